//! Forecasts of the next patch: how far off they are, and the one that a network must beat first.

use selfsup_core::Tensor;

/// The mean squared errors of predictions p [B, L, F] made at t for the patch at t + 1: \[n\], of those that hold no
/// padding, [B, L] bool.
pub fn errors(p: &Tensor, patches: &Tensor, whole: &Tensor) -> Tensor {
    let l = patches.size()[1] - 1;
    let error = (p.narrow(1, 0, l) - patches.narrow(1, 1, l)).square();
    error.mean_dim([-1].as_slice(), false, None).masked_select(&whole.narrow(1, 1, l))
}

/// The forecast that nothing changes: each channel's last value of patches [B, L, C patch], repeated.
pub fn persistence(patches: &Tensor, patch: i64) -> Tensor {
    let (b, l, f) = patches.size3().expect("patches are [B, L, F]");
    let last = patches.view([b, l, f / patch, patch]).narrow(3, patch - 1, 1);
    last.expand([b, l, f / patch, patch], false).reshape([b, l, f])
}
