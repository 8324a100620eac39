//! AugSelf: Lee, Lee, Lee, Lee and Shin, "Improving Transferability of Representations via Augmentation-Aware
//! Self-Supervision", 2021, <https://arxiv.org/abs/2111.09613>.
//!
//! ```text
//! for a batch of images:                                         (section 3.1)
//!     v_1, v_2 = t_omega1(x), t_omega2(x)                        omega: the parameters of the augmentations
//!     h_1, h_2 = f(v_1), f(v_2)                                  the encoder's output, not the projector's
//!     for each augmentation:
//!         p = phi_aug([h_1 ; h_2])                               a three-layer MLP
//!         L_aug = |tanh(p) - (omega1_aug - omega2_aug)|^2        the mean over entries
//!         of the flip: the cross-entropy of (flip_1 == flip_2)
//!     both orders, (1, 2) and (2, 1)
//!     L = L_SSL(v_1, v_2) + lambda sum_aug L_aug                 L_SSL: any method of two views
//! ```
//!
//! Crop: the differences of the centre (mirrored where the view is flipped), height and width as shares of the image.
//! Colour: each factor's distance from 1, and the hue shift, as shares of their ranges; 0 without jitter.
//!
//! As a method of its own it is the sum over L_aug alone. Beside another method it is [`Auxiliary`], which that method
//! does not know: `auxiliary = { name = "augself", weight = 1.0 }` in a run's configuration.
//!
//! Where this departs from the paper:
//! 1. Grey images have no saturation and hue to tell; what the views do not change is left out of the targets.
//! 2. The weight of each augmentation is its own key, as in the authors' code; the paper has one lambda for all.
//! 3. The blur's target is a share of the widest sigma and the solarisation's the difference of 0 and 1.
//! 4. There is no rotation, which no recipe here has: see the method rotnet.
//! 5. Beside a method that trains its encoder on one of the views (MoCo) the other passes that encoder once more, with a
//!    gradient; the authors' MoCo gives the heads the key encoder's features of it, without one.

use anyhow::{Result, ensure};
use selfsup_core::Tensor;
use selfsup_core::augment::Recipe;
use selfsup_core::check::{at_least_one, not_negative};
use selfsup_core::encoder::Encoder;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::progress::Progress;
use serde::{Deserialize, Serialize};

mod auxiliary;
mod heads;
mod targets;

pub use auxiliary::Auxiliary;
pub use heads::{Heads, both_orders, objective};
pub use targets::{Part, Targets};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The weight of each augmentation's loss; 0: it is not predicted. The paper predicts crop and colour (section 4),
    /// and tries the others in table 4.
    pub crop: f64,
    pub colour: f64,
    pub flip: f64,
    pub blur: f64,
    pub solarise: f64,
    /// The width of the heads' hidden layers (the authors' code).
    pub hidden: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config { crop: 1.0, colour: 1.0, flip: 0.0, blur: 0.0, solarise: 0.0, hidden: 512 }
    }
}

impl Config {
    /// In the order of [`Part::ALL`].
    fn weights(&self) -> [f64; 5] {
        [self.crop, self.colour, self.flip, self.blur, self.solarise]
    }
}

pub struct AugSelf {
    encoder: Box<dyn Encoder>,
    heads: Heads,
}

impl Method for AugSelf {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let [a, b] = [&batch.views[0], &batch.views[1]];
        let h = self.encoder.forward(&Tensor::cat(&[&a.x, &b.x], 0), true).chunk(2, 0); // [B, D] each
        self.heads.loss([&h[0], &h[1]], [&a.params, &b.params])
    }

    fn views(&self) -> Vec<Recipe> {
        views()
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }

    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let [a, b] = [&batch.views[0], &batch.views[1]];
        let h = [a, b].map(|view| self.encoder.forward(&view.x, false));
        self.heads.scores([&h[0], &h[1]], [&a.params, &b.params])
    }
}

/// Appendix A: those of MoCo v2 and SimSiam.
fn views() -> Vec<Recipe> {
    vec![Recipe::moco_v2(); 2]
}

impl Define for AugSelf {
    const NAME: &'static str = "augself";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "Lee, Lee, Lee, Lee and Shin, Improving Transferability of Representations via \
                                 Augmentation-Aware Self-Supervision, 2021, https://arxiv.org/abs/2111.09613";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let weights = config.weights();
        Part::ALL.iter().zip(weights).try_for_each(|(part, weight)| not_negative(part.name(), weight))?;
        ensure!(
            weights.iter().any(|weight| *weight > 0.0),
            "crop, colour, flip, blur and solarise are all 0; expected a weight above 0 for one of them"
        );
        at_least_one("hidden", config.hidden)
    }

    fn new(config: Config, setup: &Setup) -> Result<AugSelf> {
        let image = setup.image()?;
        let recipes = if setup.views.is_empty() { views() } else { setup.views.clone() };
        let encoder = setup.build_encoder(&(&setup.path / "encoder"))?;
        let heads = Heads::new(&(&setup.path / "heads"), encoder.dim(), &config, &recipes, image.channels)?;
        Ok(AugSelf { encoder, heads })
    }
}

#[cfg(test)]
mod tests;
