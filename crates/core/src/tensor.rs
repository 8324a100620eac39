//! Small tensor operations that tch lacks or that several methods need.

use tch::{Kind, Tensor};

/// The same values with channels last in memory; sizes stay [B, C, H, W].
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Rows of unit length: x / max(|x|, 1e-12) over the last dimension, as PyTorch's `normalize`. f32 whatever came in.
pub fn normalise(x: &Tensor) -> Tensor {
    let x = if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) };
    let norm = x.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
    &x / norm.clamp_min(1e-12)
}
