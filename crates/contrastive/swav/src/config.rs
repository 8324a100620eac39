//! The numbers of SwAV; the defaults are the authors' for ImageNet.

use crate::Codes;
use selfsup_core::Tensor;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// tau, by which scores are divided before the softmax (equation 2; its value is in the authors' scripts).
    pub temperature: f64,
    /// How codes are made from scores (section 3.1).
    pub codes: Codes,
    /// The weight of the entropy in Sinkhorn's problem: the smaller, the sharper the codes (equation 3; value as tau's).
    pub epsilon: f64,
    /// Rounds of Sinkhorn's iteration (section 3.1).
    pub sinkhorn_iterations: usize,
    /// K (authors' scripts).
    pub prototypes: i64,
    /// Whether prototypes are trained; otherwise they stay random, which the appendix tries.
    pub learn_prototypes: bool,
    /// Epochs at the start in which prototypes are not trained; 1.5 is one and a half (authors' scripts: 313 steps of
    /// 4096 images).
    pub freeze_epochs: f64,
    /// The projector's hidden width (authors' code).
    pub hidden: i64,
    /// D, the width of z (authors' code).
    pub output: i64,
    /// Small crops beside the two large ones, V (section 3.2).
    pub small_crops: usize,
    /// Their height and width in pixels; 0: 3/7 of the full size, as 96 is of 224 (section 3.2).
    pub small_size: usize,
    /// Earlier embeddings that take part in Sinkhorn's iteration, for each of the two large crops; 0: none. The
    /// authors' scripts have none with a batch of 4096, and 3840 with one of 256: there should be more than K rows.
    pub queue: i64,
    /// The epoch from which the queue is filled, and used once it is full (authors' code); 1.5 is as for `freeze_epochs`.
    pub queue_from: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            temperature: 0.1,
            codes: Codes::Sinkhorn,
            epsilon: 0.05,
            sinkhorn_iterations: 3,
            prototypes: 3000,
            learn_prototypes: true,
            freeze_epochs: 1.0,
            hidden: 2048,
            output: 128,
            small_crops: 6,
            small_size: 0,
            queue: 0,
            queue_from: 15.0,
        }
    }
}

impl Config {
    /// Codes of scores [N, K].
    pub(crate) fn codes_of(&self, scores: &Tensor) -> Tensor {
        self.codes.of(scores, self.epsilon, self.sinkhorn_iterations)
    }

    /// What to say if a batch of `rows` images and the queue cannot be spread over the prototypes: each would get less
    /// than one image.
    pub(crate) fn shortage(&self, rows: usize) -> Option<String> {
        let Config { prototypes, queue, .. } = *self;
        let spread = self.codes != Codes::Softmax && (rows as i64 + queue) < prototypes;
        spread.then(|| {
            format!(
                "{rows} images of a batch and {queue} of the queue are fewer than {prototypes} prototypes, over which codes \
                 spread them; take fewer prototypes or a longer queue"
            )
        })
    }

    /// Height and width of small crops of images of `full` pixels.
    pub(crate) fn small_side(&self, full: usize) -> usize {
        if self.small_size > 0 { self.small_size } else { (full * 3 + 3) / 7 }
    }
}
