//! SimSiam: Chen and He, "Exploring Simple Siamese Representation Learning", 2020, <https://arxiv.org/abs/2011.10566>.
//!
//! ```text
//! for a batch of images x:                                       (algorithm 1)
//!     x_1, x_2 = aug(x), aug(x)
//!     z_1, z_2 = f(x_1), f(x_2)                                  encoder with projector, [B, D]
//!     p_1, p_2 = h(z_1), h(z_2)                                  predictor, [B, D]
//!     D(p, z) = - p / |p| . stopgrad(z) / |z|                    the mean over the batch (equations 1 and 3)
//!     L = D(p_1, z_2) / 2 + D(p_2, z_1) / 2                      (equation 4)
//! update f, h to minimise L, h at a learning rate that does not decay
//! ```
//!
//! Where this departs from the paper:
//! 1. The rate changes by step, not by epoch as in the authors' code.
//! 2. A layer of a head has a bias where no norm follows it, so the heads without norms (`norm`) have biases. The paper
//!    does not say.
//! 3. The last layer of the projector has no bias. The authors' code has one that is never trained; the norm behind it
//!    takes it out.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::at_least_one;
use selfsup_core::head::{Mlp, MlpStyle, Network, widths};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor, no_grad};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Linear layers of the projector: 3 (section 3), 2 for CIFAR-10 (appendix D).
    pub layers: usize,
    /// Width of the projector's hidden layers (the authors' code: as wide as the encoder's features).
    pub hidden: i64,
    /// D, the width of z and p (section 3).
    pub output: i64,
    /// Hidden width of the predictor, a bottleneck (section 3).
    pub predictor_hidden: i64,
    /// h (section 4.2).
    pub predictor: Predictor,
    /// Whether the predictor's rate stays at its peak (section 4.2, table 1).
    pub fixed_rate: bool,
    /// Whether z is a constant to the gradient (section 4.1).
    pub stop_gradient: bool,
    /// Where the heads have BatchNorm (section 4.4).
    pub norm: Norm,
    /// Whether both halves of equation 4 are used; otherwise L = D(p_1, z_2) (section 4.6).
    pub symmetric: bool,
}

/// The rows of table 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Predictor {
    /// Linear, BatchNorm, ReLU, linear.
    Mlp,
    /// The identity: p = z.
    None,
    /// The MLP as it is drawn at the start.
    Fixed,
}

/// The first three rows of table 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Nowhere.
    None,
    /// Behind the hidden layers of both heads.
    Hidden,
    /// There, and without weight and bias behind the projector's last layer.
    Default,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            layers: 3,
            hidden: 2048,
            output: 2048,
            predictor_hidden: 512,
            predictor: Predictor::Mlp,
            fixed_rate: true,
            stop_gradient: true,
            norm: Norm::Default,
            symmetric: true,
        }
    }
}

pub struct SimSiam {
    config: Config,
    network: Network,
    predictor: Option<Mlp>,
}

impl Method for SimSiam {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let [z_1, z_2] = [0, 1].map(|view| self.network.project(&batch.views[view].x, true)); // [B, D]
        let (p_1, p_2) = (self.predict(&z_1), self.predict(&z_2)); // [B, D]
        let std = no_grad(|| (spread(&z_1) + spread(&z_2)) / 2.0);
        Loss::new(negative_cosine([&p_1, &p_2], [&z_1, &z_2], &self.config)).with("std", std)
    }

    /// Section 3, baseline settings: MoCo v2's table.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::moco_v2(); 2]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.network.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.network.project(x, false))
    }
}

impl Define for SimSiam {
    const NAME: &'static str = "simsiam";
    const FAMILY: Family = Family::NonContrastive;
    const PAPER: &'static str = "Chen and He, Exploring Simple Siamese Representation Learning, 2020, \
                                 https://arxiv.org/abs/2011.10566";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        at_least_one("layers", config.layers as i64)?;
        at_least_one("hidden", config.hidden)?;
        at_least_one("output", config.output)?;
        at_least_one("predictor_hidden", config.predictor_hidden)
    }

    fn new(config: Config, setup: &Setup) -> Result<SimSiam> {
        let Config { layers, hidden, output, predictor_hidden, norm, .. } = config;
        let path = &setup.path;
        let style = |last_bias| MlpStyle { norm: norm != Norm::None, hidden_bias: norm == Norm::None, last_bias };
        let widths = widths(layers, hidden, output);
        let network = match norm {
            Norm::Default => Network::with_final_norm(path, setup, &widths, style(false))?,
            Norm::None | Norm::Hidden => Network::new(path, setup, &widths, style(true))?,
        };
        let place = path / "predictor";
        let place = match config.predictor {
            Predictor::None => None,
            Predictor::Fixed => Some(place.frozen()),
            Predictor::Mlp => Some(if config.fixed_rate { place.fixed_rate() } else { place }),
        };
        let predictor = place.map(|place| Mlp::new(&place, &[output, predictor_hidden, output], style(true)));
        Ok(SimSiam { config, network, predictor })
    }

    const INPUTS: &'static [&'static str] = &["a", "b", "target_a", "target_b"];

    /// `a`, `b` are the predictions of two views, `target_a`, `target_b` their projections. Without a target the
    /// prediction stands for it: the predictor is the identity.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        let target = |name, prediction| -> Result<&Tensor> {
            if given.optional(name).is_none() {
                return Ok(prediction);
            }
            let z = given.rows_as_wide(name, prediction)?;
            let (own, other) = (z.size()[0], prediction.size()[0]);
            ensure!(own == other, "`{name}` has {own} rows; expected {other}, as many as there are predictions");
            Ok(z)
        };
        Ok(negative_cosine([a, b], [target("target_a", a)?, target("target_b", b)?], config))
    }
}

impl SimSiam {
    /// h(z), [B, D] -> [B, D].
    fn predict(&self, z: &Tensor) -> Tensor {
        self.predictor.as_ref().map_or_else(|| z.shallow_clone(), |h| h.forward(z, true))
    }
}

/// L of two views' predictions and projections, [B, D] each (equation 4), in [-1, 1].
pub fn negative_cosine(p: [&Tensor; 2], z: [&Tensor; 2], config: &Config) -> Tensor {
    let d = |p: &Tensor, z: &Tensor| {
        let z = if config.stop_gradient { z.detach() } else { z.shallow_clone() };
        -(normalise(p) * normalise(&z)).sum_dim_intlist([-1].as_slice(), false, None).mean(None)
    };
    if config.symmetric { d(p[0], z[1]) / 2.0 + d(p[1], z[0]) / 2.0 } else { d(p[0], z[1]) }
}

/// The standard deviation of each column of z / |z| over the batch, the mean over columns, times sqrt(D): about 1 if
/// the rows lie evenly on the sphere, 0 if they are one (figure 2, where it is not multiplied).
fn spread(z: &Tensor) -> Tensor {
    let d = z.size()[1] as f64;
    normalise(z).std_dim([0].as_slice(), true, false).mean(Kind::Float) * d.sqrt()
}

#[cfg(test)]
mod tests;
