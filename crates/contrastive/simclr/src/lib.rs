//! SimCLR: Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual
//! Representations", 2020, <https://arxiv.org/abs/2002.05709>.
//!
//! ```text
//! for a batch of N images x_k:                                   (algorithm 1)
//!     x~_2k-1, x~_2k = t(x_k), t'(x_k)                           two views of each
//!     h = f(x~), z = g(h)                                        encoder, projector: 2N rows each
//!     s_ij = z_i . z_j / (|z_i| |z_j|)
//!     l(i, j) = -log( exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau) )
//!     L = 1 / 2N  sum_k [ l(2k-1, 2k) + l(2k, 2k-1) ]
//! update f, g to minimise L
//! ```
//!
//! Where this departs from the paper:
//! 1. Both views pass through the networks as one batch, all first views before all second ones, so that batch
//!    statistics are joint. The order of the rows changes no number.
//! 2. L is the mean over the 2N rows, as printed. The authors' code adds the means of the two directions, which is
//!    twice as much, and its learning rates belong to that sum.
//! 3. The projector's hidden layer has a BatchNorm, which the authors' code has and the paper's equation has not
//!    (`norm = false`: none); that code's second norm, on the output, is left out.
//! 4. Linear layers start with PyTorch's values, not with a standard deviation of 0.01, as in every method here.

use anyhow::{Result, ensure};
use selfsup_core::augment::{Blur, Crop, Jitter, Recipe};
use selfsup_core::check::{above_zero, at_least_one};
use selfsup_core::encoder::{self, Encoder};
use selfsup_core::head::{Mlp, MlpStyle};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// tau, by which similarities are divided. 0.1 for ImageNet (table 5); 0.5 for CIFAR-10 (appendix B.9).
    pub temperature: f64,
    /// The projector's hidden width (section 4.2); 0 makes the projector linear (figure 8).
    pub hidden: i64,
    /// The width of z (section 4.2).
    pub output: i64,
    /// BatchNorm in the projector's hidden layer, as in the authors' code; without it both layers have biases.
    pub norm: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config { temperature: 0.1, hidden: 2048, output: 128, norm: true }
    }
}

pub struct SimClr {
    config: Config,
    encoder: Box<dyn Encoder>,
    projector: Mlp,
}

impl Method for SimClr {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let x = Tensor::cat(&[&batch.views[0].x, &batch.views[1].x], 0); // [2N, C, S, S]
        let z = self.projector.forward(&self.encoder.forward(&x, true), true); // [2N, D]
        let s = similarities(&z, self.config.temperature); // [2N, 2N]
        let positive = positives(&s);
        let accuracy = s.detach().argmax(-1, false).eq_tensor(&positive).to_kind(Kind::Float).mean(None);
        Loss::new(cross_entropy(&s, &positive)).with("accuracy", accuracy)
    }

    /// Appendix A with strength 1.
    fn views(&self) -> Vec<Recipe> {
        let view = Recipe {
            crop: Some(Crop { scale: [0.08, 1.0], ratio: [0.75, 1.3333333333333333] }),
            flip: 0.5,
            jitter: Some(Jitter { brightness: 0.8, contrast: 0.8, saturation: 0.8, hue: 0.2, p: 0.8 }),
            grey: 0.2,
            blur: Some(Blur { p: 0.5, sigma: [0.1, 2.0] }),
            ..Recipe::default()
        };
        vec![view.clone(), view]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.projector.forward(&self.encoder.forward(x, false), false))
    }
}

impl Define for SimClr {
    const NAME: &'static str = "simclr";
    const FAMILY: Family = Family::Contrastive;
    const PAPER: &'static str = "Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of \
                                 Visual Representations, 2020, https://arxiv.org/abs/2002.05709";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        above_zero("temperature", config.temperature)?;
        ensure!(config.hidden >= 0, "hidden is {}; expected a width, or 0 for a linear projector", config.hidden);
        at_least_one("output", config.output)
    }

    fn new(config: Config, setup: &Setup) -> Result<SimClr> {
        let Config { hidden, output, norm, .. } = config;
        let encoder = encoder::build(&(&setup.path / "encoder"), setup.encoder, setup.image)?;
        let mut widths = vec![encoder.dim(), hidden, output];
        widths.retain(|&width| width > 0);
        let style = MlpStyle { norm, hidden_bias: !norm, last_bias: !norm };
        let projector = Mlp::new(&(&setup.path / "projector"), &widths, style);
        Ok(SimClr { config, encoder, projector })
    }

    const INPUTS: &'static [&'static str] = &["a", "b"];

    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        Ok(nt_xent(a, b, config.temperature))
    }
}

/// NT-Xent of two views' embeddings, [N, D] each (equation 1): the mean over their 2N rows.
pub fn nt_xent(a: &Tensor, b: &Tensor, temperature: f64) -> Tensor {
    let s = similarities(&Tensor::cat(&[a, b], 0), temperature);
    cross_entropy(&s, &positives(&s))
}

/// s_ij / tau of all pairs of rows, [2N, D] -> [2N, 2N]. The diagonal is -inf before any softmax: a row is no
/// candidate for itself.
fn similarities(z: &Tensor, temperature: f64) -> Tensor {
    let z = normalise(z);
    (&z / temperature).matmul(&z.tr()).fill_diagonal_(f64::NEG_INFINITY, false)
}

/// The row of the same image's other view: i + N, modulo 2N. [2N] i64.
fn positives(s: &Tensor) -> Tensor {
    let rows = s.size()[0];
    Tensor::arange(rows, (Kind::Int64, s.device())).roll([rows / 2], [0])
}

/// The mean of l(i, positive(i)) over rows.
fn cross_entropy(s: &Tensor, positive: &Tensor) -> Tensor {
    s.log_softmax(-1, None).nll_loss(positive)
}

#[cfg(test)]
mod tests;
