//! RotNet: Gidaris, Singh and Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", 2018,
//! <https://arxiv.org/abs/1803.07728>.
//!
//! ```text
//! for a batch of N images X_i:                                   (section 3.1)
//!     g(X | y) = X turned by the y-th of K angles                K = 4: 0, 90, 180, 270 degrees
//!     F(X) = softmax(linear(encoder(X)))                         K probabilities
//!     L = 1 / N  sum_i  -1 / K  sum_y  log F^y( g(X_i | y) )     all K copies in one batch
//! ```
//!
//! Where this departs from the paper:
//! 1. The encoder is the run's and features are its output; the paper's are a NIN and an AlexNet, and its best features
//!    come from the second of four blocks, not from the last: ask the protocol `layers`.
//! 2. Crops are a square of 7/8 of the image's side, resized: of ImageNet that is the authors' 224 of 256 pixels. For
//!    CIFAR-10 their code pads by 4 pixels and crops 32, which no recipe here does.
//! 3. Angles are multiples of 90 degrees, turned without interpolation. Table 2 has eight angles too; those in between
//!    need interpolation, whose corners give them away.

use anyhow::{Result, ensure};
use selfsup_core::augment::{Crop, Recipe};
use selfsup_core::encoder::Encoder;
use selfsup_core::layer::Linear;
use selfsup_core::loss::{accuracy, cross_entropy};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::progress::Progress;
use selfsup_core::{Device, Kind, Tensor, precision};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The K angles in degrees, counter-clockwise, of which one is predicted (table 2: all four; `[0, 180]`;
    /// `[90, 270]`).
    pub angles: Vec<i64>,
}

impl Default for Config {
    fn default() -> Config {
        Config { angles: vec![0, 90, 180, 270] }
    }
}

pub struct RotNet {
    config: Config,
    encoder: Box<dyn Encoder>,
    /// To the logits of the K angles.
    classifier: Linear,
}

impl Method for RotNet {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let (logits, y) = self.predict(&batch.views[0].x, true); // [K N, K], [K N]
        Loss::new(cross_entropy(&logits, &y)).with("accuracy", accuracy(&logits, &y))
    }

    /// Section 4.2: a shifted crop and a flip. A flip upside down would make a label ambiguous: with the other flip it
    /// is a turn by 180 degrees.
    fn views(&self) -> Vec<Recipe> {
        let crop = Crop { scale: [0.765625, 0.765625], ratio: [1.0, 1.0] };
        vec![Recipe { crop: Some(crop), flip: 0.5, ..Recipe::default() }]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }

    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let (logits, y) = self.predict(&batch.views[0].x, false);
        vec![("accuracy", accuracy(&logits, &y)), ("loss", cross_entropy(&logits, &y))]
    }

    /// The images at each angle.
    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = &batch.views[0].x;
        let row = |&angle: &i64| (["0", "90", "180", "270"][quarters(angle) as usize], rotate(x, angle));
        self.config.angles.iter().map(row).collect()
    }
}

impl Define for RotNet {
    const NAME: &'static str = "rotnet";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "Gidaris, Singh and Komodakis, Unsupervised Representation Learning by Predicting \
                                 Image Rotations, 2018, https://arxiv.org/abs/1803.07728";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let angles = &config.angles;
        let known = |angle: &i64| [0, 90, 180, 270].contains(angle);
        let distinct = |i: usize| !angles[..i].contains(&angles[i]);
        ensure!(
            angles.len() >= 2 && angles.iter().all(known) && (0..angles.len()).all(distinct),
            "angles is {angles:?}; expected at least two different ones of 0, 90, 180 and 270"
        );
        Ok(())
    }

    fn new(config: Config, setup: &Setup) -> Result<RotNet> {
        setup.image()?;
        let encoder = setup.build_encoder(&(&setup.path / "encoder"))?;
        let classifier = Linear::new(&(&setup.path / "classifier"), encoder.dim(), config.angles.len() as i64, true);
        Ok(RotNet { config, encoder, classifier })
    }
}

impl RotNet {
    /// Logits of the angle of every copy and the angle that it has: [N, C, S, S] -> [K N, K] f32, `[K N]`.
    fn predict(&self, x: &Tensor, train: bool) -> (Tensor, Tensor) {
        let (copies, y) = turned(x, &self.config.angles);
        let logits = precision::network(x.device(), || {
            self.classifier.forward(&self.encoder.forward(&copies, train)).to_kind(Kind::Float)
        });
        (logits, y)
    }
}

/// Every image at every angle, the first angle of all images first, and the place of the angle in the list:
/// [N, C, S, S] -> [K N, C, S, S], `[K N]`.
pub fn turned(x: &Tensor, angles: &[i64]) -> (Tensor, Tensor) {
    let copies: Vec<Tensor> = angles.iter().map(|&angle| rotate(x, angle)).collect();
    let places = Tensor::arange(angles.len() as i64, (Kind::Int64, Device::Cpu)).to_device(x.device());
    (Tensor::cat(&copies, 0), places.repeat_interleave_self_int(x.size()[0], 0, None))
}

/// Turns images [.., S, S] counter-clockwise by a multiple of 90 degrees. Pixels move and keep their values.
pub fn rotate(x: &Tensor, angle: i64) -> Tensor {
    x.rot90(quarters(angle), [-2, -1])
}

fn quarters(angle: i64) -> i64 {
    angle / 90
}

#[cfg(test)]
mod tests;
