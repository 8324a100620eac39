//! MAE: He, Chen, Xie, Li, Dollár and Girshick, "Masked Autoencoders Are Scalable Vision Learners", 2022,
//! <https://arxiv.org/abs/2111.06377>.
//!
//! ```text
//! for a batch of images, each L patches:                         (section 3)
//!     x = embed(patches) + positions
//!     shuffle the patches of each image, keep the first L (1 - r)
//!     y = encoder(class token, kept tokens)                      no mask token enters the encoder
//!     y = unshuffle(linear(y), mask tokens) + decoder positions
//!     p = linear(decoder(class token, y))                        p p C values for each patch
//!     t = patches, each normalised by its own mean and deviation
//!     L = mean over the removed patches of |p - t|^2 / (p p C)
//! ```
//!
//! Where this departs from the paper:
//! 1. The number of kept patches is rounded, and at least one patch is kept and one removed. The authors' code
//!    truncates, and would keep 0 of 10 patches at r = 0.9, because 10 (1 - 0.9) is just below 1 in binary.
//! 2. Crops are resized bilinearly with antialiasing, as for every method here, not bicubically.
//! 3. Features are the mean of the patch tokens, with which the paper says it works as well as with the class token;
//!    the class token is still in the encoder.
//! 4. The encoder is the run's, any ViT; the paper's is a ViT-L.

use anyhow::{Result, bail, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::{above_zero, at_least_one};
use selfsup_core::encoder::{Encoder, EncoderConfig, Vit};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::progress::Progress;
use selfsup_core::store::{Init, Role};
use selfsup_core::{Tensor, no_grad, precision};
use serde::{Deserialize, Serialize};

mod decoder;
pub mod mask;
pub mod patches;

use decoder::Decoder;
pub use decoder::DecoderConfig;
use mask::{Mask, Sampling};
use patches::{Pixels, patchify, unpatchify};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// r, the share of patches removed (figure 5).
    pub mask_ratio: f64,
    /// How the removed patches are chosen (table 1f).
    pub sampling: Sampling,
    /// Whether mask tokens stand in the encoder for what was removed (table 1c: they cost time and linear accuracy).
    pub encode_masked: bool,
    /// Whether the target of a patch is normalised by the patch's own mean and deviation (table 1d).
    pub norm_pix: bool,
    /// Added to a patch's variance before the root; 1e-4 suits small images, whose patches are often nearly constant.
    pub eps: f64,
    pub decoder: DecoderConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mask_ratio: 0.75,
            sampling: Sampling::Random,
            encode_masked: false,
            norm_pix: true,
            eps: 1e-6,
            decoder: DecoderConfig::default(),
        }
    }
}

pub struct Mae {
    config: Config,
    encoder: Vit,
    /// What stands in the encoder for a removed patch, if anything does.
    mask_token: Option<Tensor>,
    decoder: Decoder,
}

impl Method for Mae {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let x = &batch.views[0].x;
        let mask = self.mask(batch);
        let p = self.reconstruct(x, &mask); // [B, L, p p C]
        Loss::new(self.objective(x, &p, &mask))
    }

    /// Appendix A.1: crop and flip alone.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::crop_and_flip(0.2)]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }

    /// The loss, and the error in normalised pixels, of masks that training did not see. A normalised target says nothing
    /// of a patch's own mean and deviation, so its predictions are given the true ones of the removed patch: they know
    /// more than predictions of pixels, and the two errors cannot be compared.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let (x, mask) = (&batch.views[0].x, self.mask(batch));
        let p = self.reconstruct(x, &mask);
        let patches = patchify(x, self.encoder.patch());
        let pixels = if self.config.norm_pix { Pixels::of(&patches, self.config.eps).restore(&p) } else { p.copy() };
        vec![
            ("loss", self.objective(x, &p, &mask)),
            ("reconstruction_error", masked_mse(&pixels, &patches, &mask.removed)),
        ]
    }

    /// Removed patches are 0 (the mean colour) in `masked` and predicted in the last row, which says where each was given
    /// its own true mean and deviation.
    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        no_grad(|| {
            let (x, patch) = (&batch.views[0].x, self.encoder.patch());
            let mask = self.mask(batch);
            let (patches, mut p) = (patchify(x, patch), self.reconstruct(x, &mask));
            if self.config.norm_pix {
                p = Pixels::of(&patches, self.config.eps).restore(&p);
            }
            let removed = mask.removed.unsqueeze(-1); // [B, L, 1]
            let visible = patches * (1.0 - &removed);
            let picture = |patches: &Tensor| unpatchify(patches, patch, x.size()[1]);
            let reconstruction = &visible + p * removed;
            let given = self.config.norm_pix;
            let name = if given { "reconstruction, true mean and deviation" } else { "reconstruction" };
            vec![("input", x.shallow_clone()), ("masked", picture(&visible)), (name, picture(&reconstruction))]
        })
    }
}

impl Define for Mae {
    const NAME: &'static str = "mae";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "He, Chen, Xie, Li, Dollár and Girshick, Masked Autoencoders Are Scalable Vision \
                                 Learners, 2022, https://arxiv.org/abs/2111.06377";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let Config { mask_ratio, eps, decoder: DecoderConfig { width, depth, heads }, .. } = *config;
        ensure!(
            0.0 < mask_ratio && mask_ratio < 1.0,
            "mask_ratio is {mask_ratio}; expected a share between 0 and 1, such as 0.75"
        );
        above_zero("eps", eps)?;
        ensure!(
            heads > 0 && width > 0 && width % 4 == 0 && width % heads == 0,
            "decoder.width is {width} and decoder.heads {heads}; expected a width that both 4 and heads divide"
        );
        at_least_one("decoder.depth", depth)
    }

    fn new(config: Config, setup: &Setup) -> Result<Mae> {
        let image = setup.image()?;
        let EncoderConfig::Vit { size, patch } = setup.encoder else {
            bail!("mae needs a ViT, but the encoder is {}: choose one, such as encoder=vit-micro/4", setup.encoder);
        };
        let encoder = Vit::new(&(&setup.path / "encoder"), image, size, patch)?;
        ensure!(
            encoder.length() > 1,
            "mae: an image of {0} pixels is a single patch of {patch}, which cannot be masked: choose a smaller patch",
            image.size
        );
        let decoder = Decoder::new(&(&setup.path / "decoder"), &config.decoder, &encoder, image);
        let token = || setup.path.variable("mask_token", &[1, 1, encoder.dim()], Role::NoDecay, Init::Normal(0.02));
        let mask_token = config.encode_masked.then(token);
        Ok(Mae { config, encoder, mask_token, decoder })
    }
}

impl Mae {
    /// The batch's mask: a choice of each image's own.
    fn mask(&self, batch: &Batch) -> Mask {
        self.config.sampling.mask(batch, self.encoder.length(), self.config.mask_ratio)
    }

    /// The loss of predictions p [B, L, p p C] for the images.
    fn objective(&self, x: &Tensor, p: &Tensor, mask: &Mask) -> Tensor {
        let patches = patchify(x, self.encoder.patch());
        let t = if self.config.norm_pix { Pixels::of(&patches, self.config.eps).normalise(&patches) } else { patches };
        masked_mse(p, &t, &mask.removed)
    }

    /// Predictions for all patches, from the kept ones: [B, C, S, S] -> [B, L, p p C] f32.
    fn reconstruct(&self, x: &Tensor, mask: &Mask) -> Tensor {
        precision::network(x.device(), || match &self.mask_token {
            None => {
                let y = self.encoder.encode(&mask.keep(&self.encoder.tokens(x))); // [B, 1 + kept, D]
                self.decoder.forward(&y, Some(mask))
            }
            Some(token) => {
                let (removed, masked) = (mask.removed.unsqueeze(-1), token + self.encoder.positions());
                let tokens = self.encoder.tokens(x) * (1.0 - &removed) + masked * removed;
                self.decoder.forward(&self.encoder.encode(&tokens), None)
            }
        })
    }
}

/// The mean squared error over removed patches: prediction and target [B, L, n], removed [B, L].
pub fn masked_mse(prediction: &Tensor, target: &Tensor, removed: &Tensor) -> Tensor {
    let error = (prediction - target).square().mean_dim([-1].as_slice(), false, None); // [B, L]
    (error * removed).sum(None) / removed.sum(None)
}

#[cfg(test)]
mod tests;
