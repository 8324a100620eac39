//! DALL-E: Ramesh, Pavlov, Goh, Gray, Voss, Radford, Chen and Sutskever, "Zero-Shot Text-to-Image Generation", 2021,
//! <https://arxiv.org/abs/2102.12092>.
//!
//! ```text
//! first stage, `stage = "dvae"`:                                 (section 2.1)
//!     l = 1x1 * encoder(x)                                       K logits at each place
//!     y = softmax((l + g) / tau), g from Gumbel(0, 1)            tau falls from 1 to 1/16
//!     L = -log p(x | decoder(sum over k of y_k e_k)) + beta KL(softmax(l) || uniform)
//!
//! second stage, `stage = "transformer"`, of the frozen codes of the first one (its `tokenizer`):      (section 2.2)
//!     s = caption, padded by a token of each place's own; codes of the image in raster order
//!     p = softmax(transformer(start, s_1, .., s_(n-1)))          at places of text text alone, else codes alone
//!     L = (mean over text of -log p(s_i) + 7 mean over codes of -log p(s_i)) / 8
//! ```
//!
//! Where this departs from the paper:
//! 1. Encoder and decoder of the first stage are VQ-VAE's, or any encoder with a map, without the paper's gains; the
//!    encoder reads normalised pixels.
//! 2. beta has its weight from the first step on; the paper lets it rise over the first 5000 of 3 million.
//! 3. `reconstruction = "mse"` takes the place of the logit-Laplace density where the small presets say so.
//! 4. Captions are characters, or pieces of words without dropout of merges; attention is dense, not a mix of sparse
//!    patterns; input and output share one table of tokens, as in GPT-2.
//! 5. Features are the mean over the image's places of the middle block, under a caption of padding alone, or in the
//!    first stage of the encoder. The paper has none. They do not depend on the last code, behind which nothing is
//!    predicted. `empty_captions` of the captions are emptied in training, so that the network knows such a caption;
//!    the paper's share is 0.
//! 6. No ranking of samples by a second network.

mod dvae;
mod transformer;

pub use dvae::{Dvae, gumbel_softmax, kl_to_uniform, logit_laplace, temperature};
pub use transformer::{Sequence, Transformer, weighted};

use anyhow::{Result, ensure};
use selfsup_core::Tensor;
use selfsup_core::augment::Recipe;
use selfsup_core::check::{above_zero, at_least_one, not_negative, share};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup, Tokenizer};
use selfsup_core::progress::Progress;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub stage: Stage,
    pub dvae: DvaeConfig,
    pub transformer: TransformerConfig,
}

/// What a run trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The codes of images.
    Dvae,
    /// Captions and codes; the run's `tokenizer` has the codes.
    #[default]
    Transformer,
}

/// The first stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DvaeConfig {
    /// K (section 2.1).
    pub codes: i64,
    /// Width of the codes' vectors and of the decoder (the authors' code: 128 and 256).
    pub width: i64,
    /// tau at the start and, after `anneal` of the run, to its end, on half a cosine between (section 2.1; appendix
    /// A.2: 150,000 of 3 million steps).
    pub start: f64,
    pub end: f64,
    pub anneal: f64,
    /// beta, the weight of the KL divergence, of which all places are summed, as are all values of the reconstruction;
    /// the whole is divided by the number of values (section 2.1: 6.6).
    pub beta: f64,
    pub reconstruction: Reconstruction,
}

/// -log p(x | ..) of one value, the mean over all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// The logit-Laplace density of pixels that are mapped from [0, 1] to [0.1, 0.9] (appendix A.3).
    LogitLaplace,
    /// Squared error of normalised pixels.
    Mse,
}

/// The second stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerConfig {
    /// How much more the codes weigh than the text (section 2.2: 7).
    pub image_weight: f64,
    /// The share of captions that are emptied in training.
    pub empty_captions: f64,
    /// Divides the logits of sampled codes.
    pub temperature: f64,
}

impl Default for DvaeConfig {
    fn default() -> DvaeConfig {
        DvaeConfig {
            codes: 8192,
            width: 256,
            start: 1.0,
            end: 0.0625,
            anneal: 0.05,
            beta: 6.6,
            reconstruction: Reconstruction::LogitLaplace,
        }
    }
}

impl Default for TransformerConfig {
    fn default() -> TransformerConfig {
        TransformerConfig { image_weight: 7.0, empty_captions: 0.0, temperature: 1.0 }
    }
}

/// Either stage.
pub enum DallE {
    Dvae(Dvae),
    Transformer(Transformer),
}

impl DallE {
    fn stage(&self) -> &dyn Method {
        match self {
            DallE::Dvae(dvae) => dvae,
            DallE::Transformer(transformer) => transformer,
        }
    }
}

impl Method for DallE {
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        match self {
            DallE::Dvae(dvae) => dvae.loss(batch, at),
            DallE::Transformer(transformer) => transformer.loss(batch, at),
        }
    }

    fn views(&self) -> Vec<Recipe> {
        self.stage().views()
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.stage().features(x, train)
    }

    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        self.stage().pretext(batch)
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        self.stage().tokenizer()
    }

    fn generate(&self, batch: &Batch) -> Option<Tensor> {
        self.stage().generate(batch)
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        self.stage().pictures(batch)
    }
}

impl Define for DallE {
    const NAME: &'static str = "dall-e";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "Ramesh, Pavlov, Goh, Gray, Voss, Radford, Chen and Sutskever, Zero-Shot Text-to-Image \
                                 Generation, 2021, https://arxiv.org/abs/2102.12092";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let DvaeConfig { codes, width, start, end, anneal, beta, .. } = config.dvae;
        ensure!(codes >= 2, "dvae.codes is {codes}; expected at least 2");
        at_least_one("dvae.width", width)?;
        above_zero("dvae.start", start)?;
        above_zero("dvae.end", end)?;
        above_zero("dvae.anneal", anneal)?;
        share("dvae.anneal", anneal)?;
        not_negative("dvae.beta", beta)?;
        let TransformerConfig { image_weight, empty_captions, temperature } = config.transformer;
        above_zero("transformer.image_weight", image_weight)?;
        share("transformer.empty_captions", empty_captions)?;
        above_zero("transformer.temperature", temperature)
    }

    fn new(config: Config, setup: &Setup) -> Result<DallE> {
        Ok(match config.stage {
            Stage::Dvae => DallE::Dvae(Dvae::new(config.dvae, setup)?),
            Stage::Transformer => DallE::Transformer(Transformer::new(config.transformer, setup)?),
        })
    }
}

#[cfg(test)]
mod tests;
