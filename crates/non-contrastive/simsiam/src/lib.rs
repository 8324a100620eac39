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
//! 4. The norm at the predictor's output (`norm = "all"`) has neither weight nor bias, like that of the projector.
//! 5. VICReg's terms, which its table 4 adds, are weighted as in its own loss, on projections as they are.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::{at_least_one, not_negative, one_to};
use selfsup_core::group::gather;
use selfsup_core::head::{Mlp, MlpStyle, Network, widths};
use selfsup_core::loss::{covariance, variance};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor, no_grad};

mod config;
pub use config::{Config, Norm, Predictor, Similarity};

pub struct SimSiam {
    config: Config,
    network: Network,
    predictor: Option<Mlp>,
}

impl Method for SimSiam {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let z: Vec<Tensor> = batch.views.iter().map(|view| self.network.project(&view.x, true)).collect(); // [B, D]
        let p: Vec<Tensor> = z.iter().map(|z| self.predict(z)).collect(); // [B, D]
        let of_pair = |(p, z): (&[Tensor], &[Tensor])| siamese([&p[0], &p[1]], [&z[0], &z[1]], &self.config);
        let std = no_grad(|| mean(z.iter().map(|z| spread(&gather(z)))));
        Loss::new(mean(p.chunks(2).zip(z.chunks(2)).map(of_pair))).with("std", std)
    }

    /// Section 3, baseline settings: MoCo v2's table.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::moco_v2(); 2 * self.config.pairs]
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
        one_to(64, "layers", config.layers)?;
        at_least_one("hidden", config.hidden)?;
        at_least_one("output", config.output)?;
        at_least_one("predictor_hidden", config.predictor_hidden)?;
        one_to(32, "pairs", config.pairs)?;
        not_negative("variance", config.variance)?;
        not_negative("covariance", config.covariance)
    }

    fn new(config: Config, setup: &Setup) -> Result<SimSiam> {
        let Config { layers, hidden, output, predictor_hidden, norm, pairs, .. } = config;
        setup.expect_views(2 * pairs)?;
        let path = &setup.path;
        let style = |last_bias| MlpStyle { norm: norm != Norm::None, hidden_bias: norm == Norm::None, last_bias };
        let widths = widths(layers, hidden, output);
        let network = match norm {
            Norm::Default | Norm::All => Network::with_final_norm(path, setup, &widths, style(false))?,
            Norm::None | Norm::Hidden => Network::new(path, setup, &widths, style(true))?,
        };
        let place = path / "predictor";
        let place = match config.predictor {
            Predictor::None => None,
            Predictor::Fixed => Some(place.frozen()),
            Predictor::Mlp => Some(if config.fixed_rate { place.fixed_rate() } else { place }),
        };
        let widths = [output, predictor_hidden, output];
        let predictor = place.map(|place| match norm {
            Norm::All => Mlp::with_final_norm(&place, &widths, style(false)),
            _ => Mlp::new(&place, &widths, style(true)),
        });
        Ok(SimSiam { config, network, predictor })
    }

    const INPUTS: &'static [&'static str] = &["a", "b", "target_a", "target_b"];

    /// `a`, `b` are the predictions of two views, `target_a`, `target_b` their projections. Without a target the
    /// prediction stands for it: the predictor is the identity.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        let several = a.size()[0] >= 2 || config.variance + config.covariance == 0.0;
        ensure!(several, "`a` and `b` have one row; expected at least 2 with `variance` or `covariance`");
        let target = |name, prediction| -> Result<&Tensor> {
            if given.optional(name).is_none() {
                return Ok(prediction);
            }
            let z = given.rows_as_wide(name, prediction)?;
            let (own, other) = (z.size()[0], prediction.size()[0]);
            ensure!(own == other, "`{name}` has {own} rows; expected {other}, as many as there are predictions");
            Ok(z)
        };
        Ok(siamese([a, b], [target("target_a", a)?, target("target_b", b)?], config))
    }
}

impl SimSiam {
    /// h(z), [B, D] -> [B, D].
    fn predict(&self, z: &Tensor) -> Tensor {
        self.predictor.as_ref().map_or_else(|| z.shallow_clone(), |h| h.forward(z, true))
    }
}

/// L of two views' predictions and projections, [B, D] each (equation 4): with cosines in [-1, 1].
pub fn siamese(p: [&Tensor; 2], z: [&Tensor; 2], config: &Config) -> Tensor {
    let d = |p: &Tensor, z: &Tensor| {
        let z = if config.stop_gradient { z.detach() } else { z.shallow_clone() };
        let alike = match config.similarity {
            Similarity::Cosine => normalise(p) * normalise(&z),
            Similarity::CrossEntropy => p.log_softmax(-1, None) * z.softmax(-1, None),
        };
        -alike.sum_dim_intlist([-1].as_slice(), false, None).mean(None)
    };
    let l = if config.symmetric { d(p[0], z[1]) / 2.0 + d(p[1], z[0]) / 2.0 } else { d(p[0], z[1]) };
    if config.variance + config.covariance == 0.0 {
        return l;
    }
    let z = z.map(gather); // of all ranks
    let (v, c) = ((variance(&z[0]) + variance(&z[1])) / 2.0, covariance(&z[0]) + covariance(&z[1]));
    l + config.variance * v + config.covariance * c
}

fn mean(of: impl Iterator<Item = Tensor>) -> Tensor {
    Tensor::stack(&of.collect::<Vec<_>>(), 0).mean(None)
}

/// The standard deviation of each column of z / |z| over the batch, the mean over columns, times sqrt(D): about 1 if
/// the rows lie evenly on the sphere, 0 if they are one (figure 2, where it is not multiplied).
fn spread(z: &Tensor) -> Tensor {
    let d = z.size()[1] as f64;
    normalise(z).std_dim([0].as_slice(), true, false).mean(Kind::Float) * d.sqrt()
}

#[cfg(test)]
mod tests;
