//! Bert: two views of an image agree and the images spread out.
//!
//! Written by `cargo xtask new-method`: a small method that trains (Wang and Isola 2020,
//! <https://arxiv.org/abs/2005.10242>), to be turned into yours from top to bottom. State here what the paper does:
//!
//! ```text
//! for x in loader:                                      # B images
//!     a, b = augment(x), augment(x)                     # two views
//!     za = normalise(projector(encoder(a)))             # [B, E], rows of length 1
//!     zb = normalise(projector(encoder(b)))
//!     alignment  = mean_i |za_i - zb_i|^2
//!     uniformity = mean over za, zb of log mean_{i<j} exp(-t |z_i - z_j|^2)
//!     minimise alignment + weight * uniformity
//! ```
//!
//! Departures from the paper: the augmentation table and the projector are SimCLR's. List each of yours with its reason.

use anyhow::Result;
use selfsup_core::Tensor;
use selfsup_core::augment::{Crop, Jitter, Recipe};
use selfsup_core::check::{above_zero, at_least_one, not_negative};
use selfsup_core::encoder::Encoder;
use selfsup_core::head::{Mlp, MlpStyle};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::tensor::normalise;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// The numbers of the paper; its values are the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Width of the projector's hidden layer.
    pub hidden: i64,
    /// Width of the embedding, E.
    pub dim: i64,
    /// t, how fast the repulsion of two embeddings falls with their distance.
    pub t: f64,
    /// The weight of the uniformity.
    pub weight: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config { hidden: 512, dim: 128, t: 2.0, weight: 1.0 }
    }
}

/// The networks and the numbers. What a method must remember between steps is a tensor made from `Setup::path`.
pub struct Bert {
    encoder: Box<dyn Encoder>,
    projector: Mlp,
    config: Config,
}

/// The paper's equation, on embeddings before normalisation [B, E]: write yours here.
fn spread_and_align(a: &Tensor, b: &Tensor, config: &Config) -> Loss {
    let (a, b) = (normalise(a), normalise(b));
    let alignment = (&a - &b).square().sum_dim_intlist([-1].as_slice(), false, None).mean(None);
    // Without this term the encoder could map all images to one point: alignment alone has that as its minimum.
    let uniformity = (spread(&a, config.t) + spread(&b, config.t)) / 2.0;
    Loss::new(&alignment + config.weight * &uniformity).with("alignment", alignment).with("uniformity", uniformity)
}

/// log mean over i < j of exp(-t |z_i - z_j|^2), rows of `z` [B, E] of length 1, so |z_i - z_j|^2 = 2 - 2 z_i z_j.
fn spread(z: &Tensor, t: f64) -> Tensor {
    let n = z.size()[0] as f64;
    let cosine = z.matmul(&z.tr());
    let pairs = ((cosine - 1.0) * (2.0 * t)).exp().triu(1);
    (pairs.sum(None) / (n * (n - 1.0) / 2.0)).log()
}

impl Method for Bert {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let views = Tensor::cat(&[&batch.views[0].x, &batch.views[1].x], 0);
        let embeddings = self.projector.forward(&self.encoder.forward(&views, true), true).chunk(2, 0);
        spread_and_align(&embeddings[0], &embeddings[1], &self.config)
    }

    fn views(&self) -> Vec<Recipe> {
        let recipe = Recipe {
            crop: Some(Crop { scale: [0.2, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }),
            flip: 0.5,
            jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 0.8 }),
            grey: 0.2,
            ..Recipe::default()
        };
        vec![recipe.clone(), recipe]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.projector.forward(&self.encoder.forward(x, false), false))
    }
}

impl Define for Bert {
    const NAME: &'static str = "bert";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "Wang, Isola. Understanding Contrastive Representation Learning through Alignment and \
                                 Uniformity on the Hypersphere. ICML 2020. https://arxiv.org/abs/2005.10242";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        at_least_one("hidden", config.hidden)?;
        at_least_one("dim", config.dim)?;
        above_zero("t", config.t)?;
        not_negative("weight", config.weight)
    }

    fn new(config: Config, setup: &Setup) -> Result<Bert> {
        let Config { hidden, dim, .. } = config;
        let encoder = setup.build_encoder(&(&setup.path / "encoder"))?;
        let style = MlpStyle { norm: true, hidden_bias: false, last_bias: true };
        let projector = Mlp::new(&(&setup.path / "projector"), &[encoder.dim(), hidden, dim], style);
        Ok(Bert { encoder, projector, config })
    }

    const INPUTS: &'static [&'static str] = &["a", "b"];

    /// What `selfsup loss` prints. Leave both out if the loss is not one of embeddings.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        Ok(spread_and_align(a, b, config).total)
    }
}
