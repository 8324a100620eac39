//! Updates of lists of tensors in one call: LibTorch's fused and foreach operations.
//!
//! None of them tracks gradients and none waits for a GPU. The fused operations walk raw memory, and on tensors whose
//! strides differ they would silently compute nonsense, so the wrappers here check first.

use crate::ffi::{
    List, check, sse_adamw, sse_add, sse_clear_grads, sse_difference, sse_lerp, sse_mul, sse_norms, sse_scale, sse_sgd,
};
use anyhow::{Context, Result};
use tch::Tensor;

/// What stochastic gradient descent needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    pub rate: f64,
    pub momentum: f64,
    pub nesterov: bool,
    /// L2: `decay p` is added to the gradient before the momentum.
    pub decay: f64,
}

/// One step: g += decay p; u = momentum u + g; p -= rate (nesterov ? g + momentum u : u).
///
/// `buffers` (u) starts as zeros; without momentum it is empty.
///
/// # Errors
/// If the lists differ in length, or tensors in shape, strides, kind or device, or one is not dense. Nothing is changed
/// then.
pub fn sgd_(params: &[Tensor], grads: &[Tensor], buffers: &[Tensor], with: Sgd) -> Result<()> {
    let (p, g, u) = (List::new(params), List::new(grads), List::new(buffers));
    // SAFETY: the lists outlive the call, the shim keeps no pointer and checks that the tensors agree.
    unsafe { check(sse_sgd(p.raw(), g.raw(), u.raw(), with.rate, with.momentum, i32::from(with.nesterov), with.decay)) }
        .context("in an SGD step")
}

/// What AdamW needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub rate: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    /// Decoupled: p -= rate decay p.
    pub decay: f64,
}

/// One step of AdamW as PyTorch defines it. `means`, `squares` and `steps` (f32, one value each) start as zeros; the
/// steps are counted here.
///
/// # Errors
/// As [`sgd_`], and if a step count is not one f32 on its parameter's device.
pub fn adamw_(
    params: &[Tensor],
    grads: &[Tensor],
    means: &[Tensor],
    squares: &[Tensor],
    steps: &[Tensor],
    with: AdamW,
) -> Result<()> {
    let (p, g, t) = (List::new(params), List::new(grads), List::new(steps));
    let (m, v) = (List::new(means), List::new(squares));
    let [b1, b2] = with.betas;
    // SAFETY: the lists outlive the call, the shim keeps no pointer and checks that the tensors agree.
    unsafe { check(sse_adamw(p.raw(), g.raw(), m.raw(), v.raw(), t.raw(), with.rate, b1, b2, with.eps, with.decay)) }
        .context("in an AdamW step")
}

/// targets += weight (sources - targets). Any strides will do.
///
/// # Errors
/// If the lists differ in length, or shapes do not broadcast.
pub fn lerp_(targets: &[Tensor], sources: &[Tensor], weight: f64) -> Result<()> {
    let (a, b) = (List::new(targets), List::new(sources));
    // SAFETY: the lists outlive the call and the shim keeps no pointer.
    unsafe { check(sse_lerp(a.raw(), b.raw(), weight)) }.context("in an interpolation of lists")
}

/// targets += alpha sources.
///
/// # Errors
/// As [`lerp_`].
pub fn add_(targets: &[Tensor], sources: &[Tensor], alpha: f64) -> Result<()> {
    let (a, b) = (List::new(targets), List::new(sources));
    // SAFETY: the lists outlive the call and the shim keeps no pointer.
    unsafe { check(sse_add(a.raw(), b.raw(), alpha)) }.context("in an addition of lists")
}

/// targets *= factors, which may be scalars on the device.
///
/// # Errors
/// As [`lerp_`].
pub fn mul_(targets: &[Tensor], factors: &[Tensor]) -> Result<()> {
    let (a, b) = (List::new(targets), List::new(factors));
    // SAFETY: the lists outlive the call and the shim keeps no pointer.
    unsafe { check(sse_mul(a.raw(), b.raw())) }.context("in a multiplication of lists")
}

/// targets *= factor, a scalar on the device.
///
/// # Errors
/// If `factor` is not a scalar.
pub fn scale_(targets: &[Tensor], factor: &Tensor) -> Result<()> {
    // SAFETY: list and factor outlive the call and the shim keeps no pointer.
    unsafe { check(sse_scale(List::new(targets).raw(), factor.as_ptr())) }.context("in a scaling of a list")
}

/// The Euclidean norm of each tensor, as scalars on its device.
///
/// # Errors
/// If a tensor is undefined or not of a floating kind.
pub fn norms(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    let list = List::new(tensors);
    let mut out = vec![std::ptr::null_mut(); tensors.len()];
    // SAFETY: `out` has room for as many pointers as the list has. On success each is a tensor made with `new` that
    // the shim gives up, and tch deletes it; on an error none was written.
    unsafe {
        check(sse_norms(list.raw(), out.as_mut_ptr())).context("in the norms of a list")?;
        Ok(out.into_iter().map(|pointer| Tensor::from_ptr(pointer)).collect())
    }
}

/// Takes the gradients away, so that a variable without a new one is known by it.
///
/// # Errors
/// If a tensor is undefined.
pub fn clear_grads(tensors: &[Tensor]) -> Result<()> {
    // SAFETY: the list outlives the call; the shim drops LibTorch's own references to the gradients.
    unsafe { check(sse_clear_grads(List::new(tensors).raw())) }.context("in clearing gradients")
}

/// Whether two tensors agree in shape, strides (except in dimensions of size 1), kind and device and are dense, as the
/// fused updates need them to.
pub fn same_layout(a: &Tensor, b: &Tensor) -> bool {
    let mut what = std::ptr::null();
    // SAFETY: both tensors and `what` outlive the call; `what` points to a constant of the shim.
    unsafe { check(sse_difference(a.as_ptr(), b.as_ptr(), &mut what)) }.is_ok() && what.is_null()
}
