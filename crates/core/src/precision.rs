//! In which precision networks compute.
//!
//! Encoders and heads wrap their forward pass in [`network`]; what a loss does with their outputs stays in f32. So a
//! method cannot lose precision in its equations by forgetting a cast.

use std::cell::Cell;
use tch::Device;

/// The arithmetic of convolutions and matrix products inside networks. Weights, statistics, losses and optimiser
/// state are f32 either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    /// LibTorch's autocast to bfloat16.
    Bf16,
}

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `f` with networks in the given precision on this thread, and restores what was before, also after a panic.
pub fn with<T>(precision: Precision, f: impl FnOnce() -> T) -> T {
    struct Restore(Precision);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(precision));
    f()
}

/// Runs a network's forward pass in the precision in force.
pub fn network<T>(device: Device, f: impl FnOnce() -> T) -> T {
    let _guard = (CURRENT.get() == Precision::Bf16).then(|| selfsup_torch_ext::autocast(device, true));
    f()
}
