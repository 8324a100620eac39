//! VQ-GAN: Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image Synthesis", 2021,
//! <https://arxiv.org/abs/2012.09841>.
//!
//! ```text
//! for a batch of images x:                                       (section 3.1)
//!     z_q = nearest codes of encoder(x), straight through;  y = decoder(z_q)
//!     rec = mean |x - y| + w_p perceptual(x, y)
//!     g   = -mean D(y)                                           the gradient goes to y, not to D
//!     lambda = |d rec / d W| / (|d g / d W| + 1e-4), at most 1e4  W: the decoder's last layer (equation 7)
//!     L_G = rec + f w_d lambda g + w_c (|sg(z) - e|^2 + beta |z - sg(e)|^2)
//!     L_D = f / 2 (mean relu(1 - D(x)) + mean relu(1 + D(sg y)))     the gradient goes to D alone
//!     minimise L_G + L_D                                         f = 0 before discriminator.start
//! ```
//!
//! Where this departs from the paper:
//! 1. One optimiser steps both: neither term has a gradient where the other has one, and Adam works value by value. The
//!    authors' two step one after the other; here D judges the images that the generator made before its step.
//! 2. LPIPS needs weights trained on ImageNet and on human judgements. In its place stands the distance in a fixed
//!    network with random weights (w_p = `perceptual`), or nothing (0).
//! 3. The encoder is the run's; the authors' has GroupNorm, more blocks and, as their decoder, attention at 16 x 16.
//! 4. The decoder's width halves wherever the picture grows, with one block there; theirs is wider and deeper.
//! 5. D sees images normalised by channel. Its norms use the batch's statistics and keep no running ones, since it is
//!    only ever used in training.
//! 6. beta weighs the commitment, as in equation 4; the authors' older code gave it to the other term.

pub mod networks;

use anyhow::{Result, ensure};
use networks::{Decoder, Discriminator, DiscriminatorConfig, Perceptual};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::Plain;
use selfsup_core::check::{at_least_one, not_negative};
use selfsup_core::codebook::{CodebookConfig, Update, perplexity};
use selfsup_core::coder::Coder;
use selfsup_core::decoder::{Decode, PixelError, sharpness};
use selfsup_core::group::{self, gather};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup, Tokenizer};
use selfsup_core::progress::Progress;
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Width of the decoder at the codes; the authors' code has 512.
    pub hidden: i64,
    pub discriminator: DiscriminatorConfig,
    /// w_p.
    pub perceptual: f64,
    /// w_c.
    pub codebook_weight: f64,
    /// K 1024, D 256, beta 0.25, moved by the optimiser (section 4, the authors' f16 configuration).
    pub codebook: CodebookConfig,
}

impl Default for Config {
    fn default() -> Config {
        let codebook =
            CodebookConfig { codes: 1024, width: 256, update: Update::Gradient, ..CodebookConfig::default() };
        Config {
            hidden: 512,
            discriminator: DiscriminatorConfig::default(),
            perceptual: 1.0,
            codebook_weight: 1.0,
            codebook,
        }
    }
}

pub struct VqGan {
    config: Config,
    coder: Coder<Decoder>,
    discriminator: Option<Discriminator>,
    perceptual: Option<Perceptual>,
    error: PixelError,
    /// From normalised values to pixels on [-1, 1]: 2 std of each channel, [1, C, 1, 1].
    scale: Tensor,
}

impl Method for VqGan {
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        let x = &batch.views[0].x;
        let z_e = self.coder.map(x, true);
        let q = self.coder.codebook.quantise(&z_e);
        self.coder.codebook.observe(&z_e, &q, at);
        let y = self.coder.decoder.forward(&q.z);
        let rec = self.reconstruction(x, &y);
        let mut total = &rec + self.config.codebook_weight * self.coder.codebook.objective(&q);

        let zero = Tensor::zeros([], (Kind::Float, x.device()));
        let [mut g, mut lambda, mut l_d] = [0; 3].map(|_| zero.shallow_clone());
        if let Some(d) = self.discriminator.as_ref().filter(|_| self.config.discriminator.started(at)) {
            g = -d.forward_fixed(&y).mean(None);
            lambda = if self.config.discriminator.adaptive { self.lambda(&rec, &g) } else { zero.ones_like() };
            l_d = hinge(&d.forward(x), &d.forward(&y.detach()));
            total = total + self.config.discriminator.weight * &lambda * &g + &l_d;
        }
        Loss::new(total)
            .with("reconstruction", rec)
            .with("commitment", q.commitment)
            .with("generator", g)
            .with("lambda", lambda)
            .with("discriminator", l_d)
            .with("perplexity", perplexity(&gather(&q.indices), self.coder.codebook.len()))
    }

    /// The authors cut squares from images; here they are resized to one.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.coder.encoder.forward(x, train)
    }

    fn before_epoch(&mut self, at: Progress, images: &Plain) -> Result<Vec<String>> {
        self.coder.start(at, images)
    }

    fn after_step(&mut self, _at: Progress) {
        self.coder.codebook.step();
    }

    /// `perplexity` and `sharpness` are those of a batch.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = &batch.views[0].x;
        let codes = self.coder.encode(x);
        let y = self.coder.decode(&codes);
        vec![
            ("reconstruction_error", self.error.of(x, &y)),
            ("sharpness", sharpness(&y) / sharpness(x)),
            ("perplexity", perplexity(&codes, self.coder.codebook.len())),
        ]
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        Some(&self.coder)
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = &batch.views[0].x;
        vec![("input", x.shallow_clone()), ("reconstruction", self.coder.decode(&self.coder.encode(x)))]
    }
}

impl Define for VqGan {
    const NAME: &'static str = "vq-gan";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "Esser, Rombach and Ommer, Taming Transformers for High-Resolution Image Synthesis, \
                                 2021, https://arxiv.org/abs/2012.09841";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        at_least_one("hidden", config.hidden)?;
        config.discriminator.check()?;
        not_negative("perceptual", config.perceptual)?;
        not_negative("codebook_weight", config.codebook_weight)?;
        config.codebook.check()
    }

    fn new(config: Config, setup: &Setup) -> Result<VqGan> {
        let (image, path) = (setup.image()?, &setup.path);
        let (hidden, width) = (config.hidden, config.codebook.width);
        let coder = Coder::new(setup, &config.codebook, |path, factor| {
            ensure!(
                hidden % factor == 0,
                "hidden is {hidden}; expected a multiple of {factor}, since the decoder halves its width as often as the \
                 picture doubles"
            );
            Ok(Decoder::new(path, width, hidden, factor, image.channels))
        })?;
        let std = Tensor::from_slice(&setup.normalisation.std).to_kind(Kind::Float) * 2.0;
        Ok(VqGan {
            coder,
            discriminator: Discriminator::new(&(path / "discriminator"), image, &config.discriminator)?,
            perceptual: (config.perceptual > 0.0).then(|| Perceptual::new(&(path / "perceptual"), image.channels)),
            error: PixelError::new(&setup.normalisation, path.device()),
            scale: std.view([1, -1, 1, 1]).to_device(path.device()),
            config,
        })
    }
}

impl VqGan {
    /// rec, in pixels on [-1, 1].
    fn reconstruction(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let rec = ((x - y) * &self.scale).abs().mean(None);
        match &self.perceptual {
            Some(perceptual) => rec + self.config.perceptual * perceptual.distance(x, y),
            None => rec,
        }
    }

    /// Equation 7, without a gradient; 0 where no graph is built.
    fn lambda(&self, rec: &Tensor, g: &Tensor) -> Tensor {
        if !rec.requires_grad() {
            return rec.zeros_like();
        }
        let last = self.coder.decoder.last_layer();
        let norm = |loss: &Tensor| group::average(&Tensor::run_backward(&[loss], &[last], true, false)[0]).norm();
        adaptive_weight(&norm(rec), &norm(g))
    }
}

/// lambda of the norms of the two gradients.
pub fn adaptive_weight(rec: &Tensor, g: &Tensor) -> Tensor {
    (rec / (g + 1e-4)).clamp(0.0, 1e4).detach()
}

/// L_D of the logits of real images and of reconstructions.
pub fn hinge(real: &Tensor, fake: &Tensor) -> Tensor {
    ((-real + 1.0).relu().mean(None) + (fake + 1.0).relu().mean(None)) * 0.5
}

#[cfg(test)]
mod tests;
