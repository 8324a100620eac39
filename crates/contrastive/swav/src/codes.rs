//! Codes: what every other crop of an image is to predict.

use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

/// How codes are made from scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codes {
    /// The batch is spread over all prototypes.
    Sinkhorn,
    /// softmax(S / epsilon): nothing spreads it, and all images may share one prototype.
    Softmax,
    /// Sinkhorn's largest entry is 1 and the others are 0.
    Hard,
}

impl Codes {
    /// Codes of scores [N, K].
    pub fn of(self, scores: &Tensor, epsilon: f64, iterations: usize) -> Tensor {
        let sinkhorn = || sinkhorn(scores, epsilon, iterations);
        match self {
            Codes::Sinkhorn => sinkhorn(),
            Codes::Softmax => (scores / epsilon).softmax(-1, None),
            Codes::Hard => sinkhorn().argmax(-1, false).one_hot(scores.size()[1]).to_kind(scores.kind()),
        }
    }
}

/// Codes Q [B, K] from scores [B, K] (section 3.1): rows sum to 1, columns to about B / K. f32, or f64 if that came in.
pub fn sinkhorn(scores: &Tensor, epsilon: f64, iterations: usize) -> Tensor {
    let mut log_q = scores / epsilon;
    for _ in 0..iterations {
        // Prototypes first, images last: so every code sums to 1 however few the iterations.
        log_q = log_q.log_softmax(0, None).log_softmax(1, None);
    }
    log_q.exp()
}

/// The share of prototypes that are the nearest of some row of `scores`, [N, K] each. The scores' own choice: codes
/// are spread whatever the network does.
pub(crate) fn share_used(scores: &[Tensor]) -> Tensor {
    let nearest = Tensor::cat(scores, 0).argmax(-1, false);
    Tensor::zeros([scores[0].size()[1]], (Kind::Float, nearest.device())).index_fill_(0, &nearest, 1.0).mean(None)
}

/// The entropy of the mean of all codes in nats; log K if they are spread evenly.
pub(crate) fn entropy_of_mean(codes: &[Tensor]) -> Tensor {
    let mean = Tensor::cat(codes, 0).mean_dim([0].as_slice(), false, None); // [K]
    -mean.xlogy(&mean).sum(None)
}
