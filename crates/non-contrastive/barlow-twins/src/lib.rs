//! Barlow Twins: Zbontar, Jing, Misra, LeCun and Deny, "Barlow Twins: Self-Supervised Learning via Redundancy
//! Reduction", 2021, <https://arxiv.org/abs/2103.03230>.
//!
//! ```text
//! for a batch of N images x:                                     (algorithm 1)
//!     y_a, y_b = t(x), t'(x)
//!     z_a, z_b = f(y_a), f(y_b)                                  encoder and projector, [N, D]
//!     z_a, z_b = (z - mean(z)) / std(z) over the batch, each view by itself
//!     C = z_a^T z_b / N                                          [D, D]
//!     L = sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2  (equation 1)
//! with a temperature t (table 5):
//!     L = -log sum_i e^(C_ii / t) + lambda log sum_i sum_{j != i} e^(max(C_ij, 0) / t)
//! ```
//!
//! Where this departs from the paper:
//! 1. The standard deviation is the biased one with 1e-5 added to the variance, as in the authors' code, whose
//!    normalisation is a BatchNorm. The printed algorithm's is unbiased: its C is smaller by (N - 1) / N.
//! 2. `scale` multiplies the loss, because a sum over D^2 entries suits LARS, but not SGD or Adam at their usual rates.
//!    The default of 1 is the paper's.
//! 3. Where the last norm of a residual block starts, at 0 in the authors' code, is the encoder's choice:
//!    `encoder = "resnet50-zero"`.
//! 4. For `normalise = "feature"` the paper prints no equation; here each row gets mean 0 and variance 1, so that the
//!    identity is still within reach of C.
//! 5. For table 6 the predictor stands behind the first view and the gradient stops at the second; how deep and wide the
//!    paper's predictor is, is not known here: this one has one hidden layer of the projector's width. Neither is the
//!    value of table 5's temperature.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::{above_zero, at_least_one, not_negative, one_to};
use selfsup_core::group::gather;
use selfsup_core::head::{Mlp, MlpStyle, Network, widths};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::store::Path;
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The weight of the off-diagonal part (section 2.2, figure 5).
    pub lambda: f64,
    /// A factor on the whole loss; 1 in the paper.
    pub scale: f64,
    /// Width of the projector's hidden layers (section 2.2).
    pub hidden: i64,
    /// D, the projector's output width (section 2.2, figure 4).
    pub output: i64,
    /// Linear layers of the projector (section 2.2).
    pub layers: usize,
    /// BatchNorm in the projector's hidden layers (section 2.2); without it they have biases (table 5).
    pub norm: bool,
    /// Along what embeddings are normalised before C is taken.
    pub normalise: Normalise,
    /// Whether the diagonal counts (table 5).
    pub invariance: bool,
    /// Whether the rest of C counts (table 5).
    pub redundancy: bool,
    /// t of the cross-entropy over the entries of C (table 5); 0: their squares, as in the paper.
    pub temperature: f64,
    /// Whether a predictor stands behind the first view's projector (table 6).
    pub predictor: bool,
    /// Whether the second view's embedding is a constant to the gradient (table 6).
    pub stop_gradient: bool,
    /// Whether both views pass through one network; otherwise each has its own (VICReg's table 5).
    pub shared: bool,
}

/// How embeddings become comparable (table 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// Each dimension over the batch, as in the paper.
    Batch,
    /// Each row over its dimensions.
    Feature,
    /// Not at all; C is the covariance of the views.
    Off,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            lambda: 0.0051,
            scale: 1.0,
            hidden: 8192,
            output: 8192,
            layers: 3,
            norm: true,
            normalise: Normalise::Batch,
            invariance: true,
            redundancy: true,
            temperature: 0.0,
            predictor: false,
            stop_gradient: false,
            shared: true,
        }
    }
}

pub struct BarlowTwins {
    config: Config,
    network: Network,
    predictor: Option<Mlp>,
    /// The second view's, if it is another.
    second: Option<Network>,
}

impl Method for BarlowTwins {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let mut z_a = self.network.project(&batch.views[0].x, true); // [N, D]
        let mut z_b = self.second.as_ref().unwrap_or(&self.network).project(&batch.views[1].x, true);
        if let Some(predictor) = &self.predictor {
            z_a = predictor.forward(&z_a, true);
        }
        if self.config.stop_gradient {
            z_b = z_b.detach();
        }
        let (z_a, z_b) = (gather(&z_a), gather(&z_b)); // of all ranks
        let (on, off) = parts(&cross_correlation(&z_a, &z_b, self.config.normalise), self.config.temperature);
        let total = weigh(&on, &off, &self.config) * self.config.scale;
        Loss::new(total).with("on_diagonal", on).with("off_diagonal", off)
    }

    /// Section 2.2, BYOL's table: the two views differ in blur and solarisation.
    fn views(&self) -> Vec<Recipe> {
        Recipe::byol().into()
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.network.encoder.forward(x, train)
    }

    /// Of the first network, without its predictor.
    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.network.project(x, false))
    }
}

impl Define for BarlowTwins {
    const NAME: &'static str = "barlow-twins";
    const FAMILY: Family = Family::NonContrastive;
    const PAPER: &'static str = "Zbontar, Jing, Misra, LeCun and Deny, Barlow Twins: Self-Supervised Learning via \
                                 Redundancy Reduction, 2021, https://arxiv.org/abs/2103.03230";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        not_negative("lambda", config.lambda)?;
        above_zero("scale", config.scale)?;
        at_least_one("hidden", config.hidden)?;
        at_least_one("output", config.output)?;
        one_to(64, "layers", config.layers)?;
        not_negative("temperature", config.temperature)?;
        ensure!(
            config.temperature == 0.0 || config.output > 1,
            "output is 1; expected at least 2 with `temperature`, which has a term for the rest of C"
        );
        let Config { invariance, redundancy, .. } = config;
        ensure!(invariance | redundancy, "invariance and redundancy are both false; expected one of them at least");
        Ok(())
    }

    fn new(config: Config, setup: &Setup) -> Result<BarlowTwins> {
        setup.expect_views(2)?;
        let Config { hidden, output, layers, norm, predictor, shared, .. } = config;
        let path = &setup.path;
        let style = MlpStyle { norm, hidden_bias: !norm, last_bias: false };
        let build = |path: &Path| Network::new(path, setup, &widths(layers, hidden, output), style);
        let network = build(path)?;
        let second = (!shared).then(|| build(&(path / "second"))).transpose()?;
        let predictor = predictor.then(|| Mlp::new(&(path / "predictor"), &[output, hidden, output], style));
        Ok(BarlowTwins { config, network, predictor, second })
    }

    const INPUTS: &'static [&'static str] = &["a", "b"];

    /// Without `scale`, as in the authors' code.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        ensure!(a.size()[0] >= 2, "`a` and `b` have one row; expected at least 2, since one has no correlation");
        Ok(barlow_twins(a, b, config))
    }
}

/// The loss of two views' embeddings, [N, D] each (equation 1).
pub fn barlow_twins(a: &Tensor, b: &Tensor, config: &Config) -> Tensor {
    let (on, off) = parts(&cross_correlation(a, b, config.normalise), config.temperature);
    weigh(&on, &off, config)
}

/// The parts that count, together.
fn weigh(on: &Tensor, off: &Tensor, config: &Config) -> Tensor {
    match (config.invariance, config.redundancy) {
        (true, true) => on + config.lambda * off,
        (true, false) => on.shallow_clone(),
        _ => config.lambda * off,
    }
}

/// C, the correlation of every dimension of one view with every dimension of the other: [N, D] twice -> [D, D].
pub fn cross_correlation(a: &Tensor, b: &Tensor, how: Normalise) -> Tensor {
    let n = a.size()[0] as f64;
    normalise(a, how).tr().matmul(&(normalise(b, how) / n))
}

/// Each column, or each row, less its mean and divided by its standard deviation. f32, or f64 if that came in.
fn normalise(z: &Tensor, how: Normalise) -> Tensor {
    let z = if z.kind() == Kind::Double { z.shallow_clone() } else { z.to_kind(Kind::Float) };
    let no = None::<&Tensor>;
    match how {
        Normalise::Batch => z.batch_norm(no, no, no, no, true, 0.0, 1e-5, false),
        Normalise::Feature => z.layer_norm([z.size()[1]], no, no, 1e-5, false),
        Normalise::Off => &z - z.mean_dim([0].as_slice(), true, z.kind()),
    }
}

/// What the diagonal and what the rest of C costs: sum_i (1 - C_ii)^2 and sum_i sum_{j != i} C_ij^2, or the two
/// logarithms with a temperature.
fn parts(c: &Tensor, temperature: f64) -> (Tensor, Tensor) {
    let (d, diagonal) = (c.size()[0], c.diagonal(0, 0, 1));
    // Read in rows of D + 1 without its last entry, C has its diagonal in the first column: a view, no mask.
    let rest = c.reshape([-1]).narrow(0, 0, d * d - 1).view([d - 1, d + 1]).narrow(1, 1, d);
    if temperature > 0.0 {
        let pooled = |x: Tensor| (x / temperature).reshape([-1]).logsumexp([0].as_slice(), false);
        return (-pooled(diagonal), pooled(rest.relu()));
    }
    let missing: Tensor = 1.0 - diagonal;
    (missing.square().sum(None), rest.square().sum(None))
}

#[cfg(test)]
mod tests;
