//! Telling the positive from negatives.

use crate::Read;
use crate::negatives::Places;
use selfsup_core::layer::Linear;
use selfsup_core::loss::info_nce_each;
use selfsup_core::{Kind, Tensor};

/// What CPC's logits come to for each k and t, [K, R] each.
pub struct Contrast {
    /// L_k (equation 4).
    pub loss: Tensor,
    /// Whether the positive has a better score than every negative.
    pub right: Tensor,
    /// log N - L_k, in nats: on average at least so much do c_t and x_{t+k} have in common (section 2.3).
    pub bound: Tensor,
}

impl Contrast {
    /// From logits [K, R, N] whose first column is the positive's.
    pub fn of(logits: &Tensor) -> Contrast {
        let n = logits.size()[2];
        let (positive, negatives) = (logits.select(2, 0), logits.narrow(2, 1, n - 1));
        let loss = info_nce_each(&positive, &negatives, 1.0);
        let right = positive.gt_tensor(&negatives.amax([2i64].as_slice(), false)).to_kind(Kind::Float);
        Contrast { right, bound: (n as f64).ln() - loss.detach(), loss }
    }
}

/// The logits of the positive, first, and of its negatives, for each k: [K, R, N].
/// `u` [R, N - 1] chooses the negatives.
pub(crate) fn scores(w: &[Linear], places: &Places, u: &Tensor, x: &Read) -> Tensor {
    let (z, c) = (x.z.flatten(0, 1), x.c.flatten(0, 1).index_select(0, &places.contexts)); // [B L, D], [R, D]
    let one = |(w, k): (&Linear, i64)| {
        let at = Tensor::cat(&[places.positives(k).unsqueeze(1), places.negatives(k, u)], 1);
        w.forward(&c).matmul(&z.tr()).gather(1, &at, false)
    };
    Tensor::stack(&w.iter().zip(1..).map(one).collect::<Vec<_>>(), 0)
}

/// The mean, of nothing 0: a batch in which no series is long enough to be asked teaches nothing and certifies nothing.
pub fn mean(x: &Tensor) -> Tensor {
    x.sum(None) / x.numel().max(1) as f64
}
