//! LibTorch's own random numbers.

use crate::ffi::{check, number, sse_generator_state, sse_seed, sse_set_generator_state};
use anyhow::{Context, Result};
use tch::{Device, Tensor};

/// Seeds LibTorch's generators on the CPU and, once [`crate::init`] has loaded it, on every CUDA device. It takes
/// microseconds: seeding at each step makes what a step draws a function of the step.
///
/// # Panics
/// If LibTorch cannot reach a device that it has.
pub fn seed(seed: u64) {
    // SAFETY: a plain number.
    unsafe { check(sse_seed(seed)) }.expect("LibTorch's generators can be seeded");
}

/// The state of a device's generator, an opaque tensor of bytes.
///
/// # Errors
/// If there is no such device.
pub fn generator_state(device: Device) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: on success the shim has written a tensor that it made with `new` and gives up; tch deletes it.
    unsafe {
        check(sse_generator_state(number(device)?, &mut out))
            .with_context(|| format!("reading the generator of {device:?}"))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// Puts back a state that [`generator_state`] gave.
///
/// # Errors
/// If there is no such device, or `state` is not a state of its generator.
pub fn set_generator_state(device: Device, state: &Tensor) -> Result<()> {
    // SAFETY: the tensor outlives the call; LibTorch copies the bytes and checks their number and kind.
    unsafe { check(sse_set_generator_state(number(device)?, state.as_ptr())) }
        .with_context(|| format!("setting the generator of {device:?}"))
}
