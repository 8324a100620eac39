//! Losses that two or more methods share.

use tch::{Kind, Tensor};

/// Softmax cross-entropy with class indices, the mean over rows: logits `[N, K]`, target `[N]` i64.
pub fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    logits.to_kind(Kind::Float).cross_entropy_for_logits(target)
}
