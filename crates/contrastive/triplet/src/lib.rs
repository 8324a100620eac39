//! Triplet loss: Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face Recognition and Clustering",
//! 2015, <https://arxiv.org/abs/1503.03832>, with two views of an image as anchor and positive.
//!
//! ```text
//! for a batch of N images x_k:
//!     z = f(t(x_k)), f(t'(x_k)), rows of length 1                2N anchors a, each with one positive p, its other view
//!     d(i, j) = |z_i - z_j|^2                                    = 2 - 2 z_i . z_j
//!     l(a, n) = max(0, d(a, p) - d(a, n) + alpha)                (equation 3), n: a view of another image
//!     or, SimCLR's NT-Logistic:  -log sigma(z_a . z_p / t) - log sigma(-z_a . z_n / t)
//!     negatives of an anchor:                                    (section 3.2)
//!         batch-all     all 2N - 2
//!         semi-hard     the nearest n with d(a, p) < d(a, n) < d(a, p) + alpha
//!         batch-hard    the nearest n
//!         random        one of the 2N - 2
//!     L = mean of l over the chosen triplets, all of them or those above 0
//! ```
//!
//! Where this departs from the paper:
//! 1. Identity is "the same image", not "the same person": no label is used. The positives are two views; any other
//!    image is a negative.
//! 2. The paper sums over triplets; this is a mean, over those above 0 (`average = "positive"`), or over all that could
//!    be chosen (`average = "all"`).
//! 3. An anchor without a semi-hard negative gives no triplet: it counts as one of 0. The paper does not say.
//! 4. Of several semi-hard negatives the nearest is taken, as SimCLR (section 5.1) describes it; FaceNet does not say.
//! 5. The network is an encoder with SimCLR's projector, not FaceNet's.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::{above_zero, at_least_one};
use selfsup_core::group::{gather, gather_views};
use selfsup_core::head::{MlpStyle, Network, widths};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::rng::Purpose;
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// alpha, in squared distance (section 3.1); a cosine differs by half of it.
    pub margin: f64,
    /// Which negatives an anchor has (section 3.2).
    pub mining: Mining,
    /// What the loss is a mean over.
    pub average: Average,
    /// What a triplet costs: FaceNet's hinge, or the logistic loss that SimCLR compares it with (its tables 2 and 4).
    pub loss: Form,
    /// t of the logistic loss; SimCLR searched for it, its value is not known here.
    pub temperature: f64,
    /// The projector's hidden width (SimCLR, section 4.2); 0 makes the projector linear.
    pub hidden: i64,
    /// The width of z (section 3).
    pub output: i64,
}

/// Which negatives an anchor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mining {
    /// All.
    BatchAll,
    /// The nearest of those that are farther than the positive by less than the margin; without one: none.
    SemiHard,
    /// The nearest.
    BatchHard,
    /// One, each as likely.
    Random,
}

/// What the loss is a mean over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Average {
    /// The triplets above 0; if there is none, the loss is 0.
    Positive,
    /// 2N (2N - 2) triplets for batch-all, otherwise one of each of the 2N anchors.
    All,
}

/// What a triplet costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    Margin,
    Logistic,
}

impl Default for Config {
    fn default() -> Config {
        let (mining, average, loss) = (Mining::SemiHard, Average::Positive, Form::Margin);
        Config { margin: 0.2, mining, average, loss, temperature: 0.5, hidden: 2048, output: 128 }
    }
}

pub struct Triplet {
    config: Config,
    network: Network,
}

impl Method for Triplet {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let z = gather_views(&self.network.project_views(&batch.views), 2); // [2N, D], of all ranks
        let draw = (self.config.mining == Mining::Random).then(|| gather(&batch.uniform(Purpose::Mask, 2))); // [N, 2]
        let (l, active) = triplets(&z, draw.as_ref(), &self.config);
        Loss::new(l).with("active", active)
    }

    /// SimCLR's appendix A with strength 1.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::simclr(); 2]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.network.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.network.project(x, false))
    }
}

impl Define for Triplet {
    const NAME: &'static str = "triplet";
    const FAMILY: Family = Family::Contrastive;
    const PAPER: &'static str = "Schroff, Kalenichenko and Philbin, FaceNet: A Unified Embedding for Face Recognition \
                                 and Clustering, 2015, https://arxiv.org/abs/1503.03832";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        above_zero("margin", config.margin)?;
        above_zero("temperature", config.temperature)?;
        ensure!(config.hidden >= 0, "hidden is {}; expected a width, or 0 for a linear projector", config.hidden);
        at_least_one("output", config.output)
    }

    fn new(config: Config, setup: &Setup) -> Result<Triplet> {
        setup.expect_views(2)?;
        let Config { hidden, output, .. } = config;
        let style = MlpStyle { norm: true, hidden_bias: false, last_bias: false };
        let layers = if hidden > 0 { 2 } else { 1 };
        let network = Network::new(&setup.path, setup, &widths(layers, hidden, output), style)?;
        Ok(Triplet { config, network })
    }

    const INPUTS: &'static [&'static str] = &["a", "b"];

    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        ensure!(a.size()[0] >= 2, "`a` and `b` have one row; expected at least 2, since negatives are other rows");
        ensure!(
            config.mining != Mining::Random,
            "mining is random; expected batch-all, semi-hard or batch-hard: a loss of embeddings alone draws nothing"
        );
        Ok(triplets(&Tensor::cat(&[a, b], 0), None, config).0)
    }
}

/// The loss of the embeddings of both views, [2N, D], row i + N the same image as row i, N at least 2, and the share of
/// the triplets that are above 0. `draw` are numbers uniform on [0, 1), [N, 2], a column for each view's anchors; random
/// mining alone needs them.
///
/// # Panics
/// If mining is random and there is no `draw`.
pub fn triplets(z: &Tensor, draw: Option<&Tensor>, config: &Config) -> (Tensor, Tensor) {
    let z = normalise(z);
    let d: Tensor = 2.0 - 2.0 * z.matmul(&z.tr()); // [2N, 2N]
    let rows = d.size()[0];
    let i = Tensor::arange(rows, (Kind::Int64, d.device()));
    let positive = d.gather(1, &i.roll([rows / 2], [0]).unsqueeze(1), false); // d(a, p), [2N, 1]
    let image = i.remainder(rows / 2);
    let other = image.unsqueeze(1).ne_tensor(&image.unsqueeze(0)); // n is of another image, [2N, 2N]
    let nearest = |among: &Tensor| d.detach().masked_fill(&among.logical_not(), f64::INFINITY).argmin(1, true);
    let chosen = match config.mining {
        Mining::BatchAll => other,
        Mining::SemiHard => {
            let gap = (&d - &positive).detach();
            let band = other.logical_and(&gap.gt(0.0)).logical_and(&gap.lt(config.margin));
            band.logical_and(&only(&nearest(&band), rows))
        }
        Mining::BatchHard => only(&nearest(&other), rows),
        Mining::Random => {
            let draw = draw.expect("random mining draws its negatives").tr().reshape([-1, 1]); // [2N, 1]
            let n = (draw * (rows - 2)).floor().to_kind(Kind::Int64).clamp_max(rows - 3);
            // The n-th of those that are left when both views of the anchor's own image are skipped.
            let image = image.unsqueeze(1);
            let n = &n + n.ge_tensor(&image).to_kind(Kind::Int64);
            only(&(&n + n.ge_tensor(&(image + rows / 2)).to_kind(Kind::Int64)), rows)
        }
    };
    let l = match config.loss {
        Form::Margin => (positive - d + config.margin).relu(),
        // A cosine is 1 - d / 2.
        Form::Logistic => {
            let cosine: Tensor = 1.0 - d / 2.0;
            ((positive / 2.0 - 1.0) / config.temperature).softplus() + (cosine / config.temperature).softplus()
        }
    };
    let l = l * chosen.to_kind(z.kind()); // [2N, 2N]
    let possible = if config.mining == Mining::BatchAll { rows * (rows - 2) } else { rows } as f64;
    let active = l.detach().gt(0.0).sum(z.kind());
    let mean = match config.average {
        Average::Positive => l.sum(None) / active.clamp_min(1.0),
        Average::All => l.sum(None) / possible,
    };
    (mean, active / possible)
}

/// Of each row the one place that `index` [N, 1] names: [N, columns] bool.
fn only(index: &Tensor, columns: i64) -> Tensor {
    index.eq_tensor(&Tensor::arange(columns, (Kind::Int64, index.device())).unsqueeze(0))
}

#[cfg(test)]
mod tests;
