//! What stands behind each stage of an encoder, for whoever listens: a probe of every layer asks nothing of a method.

use std::cell::RefCell;
use tch::{Kind, Tensor};

struct Heard {
    side: i64,
    stages: Vec<Tensor>,
}

thread_local! {
    static LISTENER: RefCell<Option<Heard>> = const { RefCell::new(None) };
}

/// Runs `f` on this thread and gives what the encoder that it passes through has behind each of its stages, the first
/// stage first: [B, D_s] f32 each, of a map the means over `side` x `side` equal parts of it, D_s = channels side^2.
///
/// [`super::Encoder::forward`] shows its stages, [`super::Encoder::map`] none: a first stage's codes are no features.
pub fn listen<T>(side: i64, f: impl FnOnce() -> T) -> Vec<Tensor> {
    struct Restore(Option<Heard>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LISTENER.set(self.0.take());
        }
    }
    let _restore = Restore(LISTENER.replace(Some(Heard { side, stages: Vec::new() })));
    drop(f());
    LISTENER.take().expect("nobody else ends it").stages
}

/// Whether someone listens.
pub(super) fn heard() -> bool {
    LISTENER.with_borrow(Option::is_some)
}

/// The features [B, D] behind a stage, computed only if someone listens.
pub(super) fn show(features: impl FnOnce() -> Tensor) {
    if heard() {
        let features = features().to_kind(Kind::Float);
        LISTENER.with_borrow_mut(|heard| heard.as_mut().expect("someone listens").stages.push(features));
    }
}

/// The map [B, D, h, w] behind a stage.
pub(super) fn show_map(x: &Tensor) {
    if let Some(side) = LISTENER.with_borrow(|heard| heard.as_ref().map(|heard| heard.side)) {
        show(|| x.to_kind(Kind::Float).adaptive_avg_pool2d([side; 2]).flatten(1, 3));
    }
}
