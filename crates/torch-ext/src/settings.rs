//! Settings of the whole process.

use crate::ffi::{check, sse_deterministic, sse_tf32};
use anyhow::{Context, Result, ensure};

/// Whether LibTorch must use deterministic algorithms only, or fail in words where there is none.
///
/// On the CPU results repeat at a fixed number of threads anyway.
///
/// # Errors
/// If it is switched on with CUDA loaded and cuBLAS' workspace is not fixed, which must be done before the program
/// starts.
pub fn deterministic(on: bool) -> Result<()> {
    if on && tch::Cuda::is_available() {
        let workspace = std::env::var("CUBLAS_WORKSPACE_CONFIG").unwrap_or_default();
        ensure!(
            [":4096:8", ":16:8"].contains(&workspace.as_str()),
            "deterministic results on CUDA need the environment variable CUBLAS_WORKSPACE_CONFIG=:4096:8 when the \
             program starts; it is `{workspace}`"
        );
    }
    // SAFETY: a plain number.
    unsafe { check(sse_deterministic(i32::from(on))) }.context("setting deterministic algorithms")
}

/// Whether f32 convolutions and matrix products on CUDA may round their inputs to TF32 (10 bits of mantissa).
///
/// # Errors
/// If LibTorch refuses.
pub fn tf32(on: bool) -> Result<()> {
    // SAFETY: a plain number.
    unsafe { check(sse_tf32(i32::from(on))) }.context("setting TF32")
}

/// Threads of one operation on the CPU. The number is part of a result: sums are split by it.
///
/// # Errors
/// If `n` is 0 or absurd.
pub fn threads(n: usize) -> Result<()> {
    let n = i32::try_from(n).ok().filter(|n| *n > 0).with_context(|| format!("cannot compute with {n} threads"))?;
    tch::set_num_threads(n);
    Ok(())
}
