//! bfloat16 autocast for the CPU and CUDA.

use crate::ffi::{check, number, sse_autocast_enter, sse_autocast_leave};
use std::marker::PhantomData;
use tch::Device;

/// Restores on drop what [`autocast`] changed. The setting belongs to a thread, so a guard cannot leave its own.
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    device: i32,
    before: i32,
    thread: PhantomData<*const ()>,
}

/// While the guard lives, convolutions and matrix products on `device` compute in bfloat16 (or, with `enabled` false,
/// in the kind of their inputs) on this thread. Drop guards in the reverse of the order in which they were made.
///
/// Run `backward` outside: it follows what the forward pass did by itself. Weights are cast once while the outermost
/// guard lives, so do not change them under it.
///
/// # Panics
/// On a device other than the CPU and CUDA.
pub fn autocast(device: Device, enabled: bool) -> Autocast {
    let device = number(device).expect("autocast is for the CPU and CUDA");
    let mut before = 0;
    // SAFETY: `before` outlives the call; the shim keeps no pointer.
    unsafe { check(sse_autocast_enter(device, i32::from(enabled), &mut before)) }
        .expect("a thread-local setting can be written");
    Autocast { device, before, thread: PhantomData }
}

/// An island without autocast: what a loss must compute in f32, it casts and computes under this guard.
pub fn without_autocast(device: Device) -> Autocast {
    autocast(device, false)
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: plain numbers. An error is not possible here (two thread-local writes), and a drop must not panic.
        let _ = unsafe { check(sse_autocast_leave(self.device, self.before)) };
    }
}
