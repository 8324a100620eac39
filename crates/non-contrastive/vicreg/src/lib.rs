//! VICReg: Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
//! Learning", 2021, <https://arxiv.org/abs/2105.04906>.
//!
//! ```text
//! for a batch of n images i:                                     (section 4, algorithm 1)
//!     x, x' = t(i), t'(i)
//!     z, z' = h(f(x)), h(f(x'))                                  encoder and expander, [n, d]
//!     s(z, z') = mean over n and d of (z - z')^2                 invariance
//!     v(z) = 1/d sum_j max(0, 1 - sqrt(Var(z_j) + 1e-4))         variance (equations 1 and 2)
//!     C(z) = 1/(n-1) sum_i (z_i - mean z) (z_i - mean z)^T
//!     c(z) = 1/d sum_{i != j} C(z)_ij^2                          covariance (equations 3 and 4)
//!     L = lambda s(z, z') + mu (v(z) + v(z')) / 2 + nu (c(z) + c(z'))
//! ```
//!
//! Where this departs from the paper:
//! 1. Three losses are called by this name; this is the authors' code. Algorithm 1 has v(z) + v(z') without the half, so
//!    that its 25 is a `variance` of 50 here. Equation 5 also sums s over d: an `invariance` of 25 d.
//! 2. The variance is unbiased, as in the authors' code.
//! 3. The two views have BYOL's two tables, as in the authors' code; the paper's appendix prints one table for both.
//! 4. Layers start with PyTorch's values.
//! 5. With `normalise = "row"` rows get the length sqrt(d), so that standard deviations of 1 are within reach.

use anyhow::{Result, ensure};
use selfsup_core::Tensor;
use selfsup_core::augment::Recipe;
use selfsup_core::check::{at_least_one, not_negative, one_to};
use selfsup_core::group::gather;
use selfsup_core::head::{MlpStyle, Network, widths};
use selfsup_core::loss::{covariance, variance};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::store::Path;
use selfsup_core::tensor::normalise;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// lambda (section 4.2, table 7); 0 leaves the term out.
    pub invariance: f64,
    /// mu, the same.
    pub variance: f64,
    /// nu, the same.
    pub covariance: f64,
    /// Width of the expander's hidden layers (section 4.2).
    pub hidden: i64,
    /// d, the expander's output width (section 4.2, table 12).
    pub output: i64,
    /// Linear layers of the expander (section 4.2).
    pub layers: usize,
    /// What becomes of embeddings before the loss (the appendix).
    pub normalise: Normalise,
    /// Whether both views pass through one network; otherwise each has its own (table 5).
    pub shared: bool,
}

/// How embeddings are normalised before the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// Not at all, as in the paper.
    Off,
    /// Each dimension over the batch: mean 0 and variance 1.
    Batch,
    /// Each row to a length of sqrt(d), so that standard deviations of 1 are within reach.
    Row,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            invariance: 25.0,
            variance: 25.0,
            covariance: 1.0,
            hidden: 8192,
            output: 8192,
            layers: 3,
            normalise: Normalise::Off,
            shared: true,
        }
    }
}

pub struct VicReg {
    config: Config,
    network: Network,
    /// The second view's, if it is another.
    second: Option<Network>,
}

impl Method for VicReg {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let z = gather(&self.network.project(&batch.views[0].x, true)); // [n, d], of all ranks
        let z_ = gather(&self.second.as_ref().unwrap_or(&self.network).project(&batch.views[1].x, true));
        let (s, v, c) = terms(&self.config.normalised(&z), &self.config.normalised(&z_));
        let total = self.config.weigh(&s, &v, &c);
        Loss::new(total).with("invariance", s).with("variance", v).with("covariance", c)
    }

    /// The authors' code, BYOL's table: the two views differ in blur and solarisation.
    fn views(&self) -> Vec<Recipe> {
        Recipe::byol().into()
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.network.encoder.forward(x, train)
    }

    /// Of the first network.
    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.network.project(x, false))
    }
}

impl Define for VicReg {
    const NAME: &'static str = "vicreg";
    const FAMILY: Family = Family::NonContrastive;
    const PAPER: &'static str = "Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for \
                                 Self-Supervised Learning, 2021, https://arxiv.org/abs/2105.04906";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        not_negative("invariance", config.invariance)?;
        not_negative("variance", config.variance)?;
        not_negative("covariance", config.covariance)?;
        let sum = config.invariance + config.variance + config.covariance;
        ensure!(sum > 0.0, "invariance, variance and covariance are 0; expected at least one above 0");
        at_least_one("hidden", config.hidden)?;
        at_least_one("output", config.output)?;
        one_to(64, "layers", config.layers)
    }

    fn new(config: Config, setup: &Setup) -> Result<VicReg> {
        setup.expect_views(2)?;
        let Config { hidden, output, layers, .. } = config;
        let style = MlpStyle { norm: true, hidden_bias: true, last_bias: false };
        let build = |path: &Path| Network::new(path, setup, &widths(layers, hidden, output), style);
        let network = build(&setup.path)?;
        let second = (!config.shared).then(|| build(&(&setup.path / "second"))).transpose()?;
        Ok(VicReg { config, network, second })
    }

    const INPUTS: &'static [&'static str] = &["a", "b"];

    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        ensure!(a.size()[0] >= 2, "`a` and `b` have one row; expected at least 2, since one has no variance");
        Ok(vicreg(a, b, config))
    }
}

impl Config {
    /// z as the loss takes it, [n, d].
    fn normalised(&self, z: &Tensor) -> Tensor {
        let no = None::<&Tensor>;
        match self.normalise {
            Normalise::Off => z.shallow_clone(),
            Normalise::Batch => z.batch_norm(no, no, no, no, true, 0.0, 1e-5, false),
            Normalise::Row => normalise(z) * (z.size()[1] as f64).sqrt(),
        }
    }

    /// lambda s + mu v + nu c.
    fn weigh(&self, s: &Tensor, v: &Tensor, c: &Tensor) -> Tensor {
        self.invariance * s + self.variance * v + self.covariance * c
    }
}

/// The loss of two views' embeddings, [n, d] each, two rows at least; of the configuration it reads the three weights and
/// `normalise`.
pub fn vicreg(z: &Tensor, z_: &Tensor, config: &Config) -> Tensor {
    let (s, v, c) = terms(&config.normalised(z), &config.normalised(z_));
    config.weigh(&s, &v, &c)
}

/// s(z, z'), (v(z) + v(z')) / 2 and c(z) + c(z').
fn terms(z: &Tensor, z_: &Tensor) -> (Tensor, Tensor, Tensor) {
    let v = (variance(z) + variance(z_)) / 2.0;
    ((z - z_).square().mean(None), v, covariance(z) + covariance(z_))
}

#[cfg(test)]
mod tests;
