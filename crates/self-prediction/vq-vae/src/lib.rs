//! VQ-VAE: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", 2017,
//! <https://arxiv.org/abs/1711.00937>.
//!
//! ```text
//! e = codebook of K vectors of D values
//! for a batch of images x:                                       (section 3)
//!     z_e = encoder(x)                                           a map of h w places
//!     k = argmin_j |z_e - e_j|                                   at each place        (equation 1)
//!     z_q = z_e + sg(e_k - z_e)                                  straight through
//!     L = |x - decoder(z_q)|^2 / var(x) + |sg(z_e) - e_k|^2 + beta |z_e - sg(e_k)|^2  (equation 3)
//!         each |.|^2 a mean over all values; with moving averages the second term is left out
//!     after the step, with averages (appendix A.1):
//!         N_j = tau N_j + (1 - tau) n_j;  m_j = tau m_j + (1 - tau) sum of its z_e;  e_j = m_j / N_j
//!         a code with N_j below `restart` moves to a place of the batch
//! ```
//!
//! Where this departs from the paper:
//! 1. Squared errors are means and the reconstruction's is divided by the variance of the data's pixels, as in the
//!    authors' example (sonnet, `vqvae_example.ipynb`), whose numbers are the defaults; the paper's are sums.
//! 2. Moving averages start with one member at each code. The authors' are debiased: unused codes jump to 0 in the
//!    first step.
//! 3. Restarts are not the paper's (off by default); they are Jukebox's (Dhariwal et al. 2020), which moves codes with
//!    an average below 1 to outputs of the batch.
//! 4. Layers start as PyTorch's do, not from truncated normals; codes uniform on +-1/K, the example's on +-sqrt(3/D).
//! 5. Images are normalised by channel; the error is that of pixels, since each channel is weighted by its variance.

use anyhow::Result;
use selfsup_core::Tensor;
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::Plain;
use selfsup_core::check::at_least_one;
use selfsup_core::codebook::{CodebookConfig, perplexity};
use selfsup_core::coder::Coder;
use selfsup_core::decoder::{Decode, Decoder, PixelError, sharpness};
use selfsup_core::group::gather;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup, Tokenizer, frozen};
use selfsup_core::progress::Progress;
use selfsup_core::store::Path;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Width of the decoder; the example's `num_hiddens`.
    pub hidden: i64,
    /// Whether the map is quantised; false: a plain autoencoder of the same networks, to see what the codes cost.
    pub quantised: bool,
    /// K 512, D 64, beta 0.25, averages of 0.99, as in the example.
    pub codebook: CodebookConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config { hidden: 128, quantised: true, codebook: CodebookConfig::default() }
    }
}

pub struct VqVae {
    config: Config,
    coder: Coder<Decoder>,
    error: PixelError,
}

impl Method for VqVae {
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        let x = &batch.views[0].x;
        let z_e = self.coder.map(x, true);
        if !self.config.quantised {
            let error = self.error.of(x, &self.coder.decoder.forward(&z_e));
            return Loss::new(error.shallow_clone()).with("reconstruction", error);
        }
        let q = self.coder.codebook.quantise(&z_e);
        let reconstruction = self.error.of(x, &self.coder.decoder.forward(&q.z));
        self.coder.codebook.observe(&z_e, &q, at);
        Loss::new(&reconstruction + self.coder.codebook.objective(&q))
            .with("reconstruction", reconstruction)
            .with("commitment", q.commitment)
            .with("perplexity", perplexity(&gather(&q.indices), self.coder.codebook.len()))
    }

    /// The example shows the images as they are.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.coder.encoder.forward(x, train)
    }

    fn before_epoch(&mut self, at: Progress, images: &Plain) -> Result<Vec<String>> {
        if !self.config.quantised {
            return Ok(Vec::new());
        }
        self.coder.start(at, images)
    }

    fn after_step(&mut self, _at: Progress) {
        if self.config.quantised {
            self.coder.codebook.step();
        }
    }

    /// `sharpness` (of the reconstructions, over that of the images) and `perplexity` are those of a batch.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = &batch.views[0].x;
        let (codes, y) = self.reconstruct(x);
        let mut scores =
            vec![("reconstruction_error", self.error.of(x, &y)), ("sharpness", sharpness(&y) / sharpness(x))];
        scores.extend(codes.map(|codes| ("perplexity", perplexity(&codes, self.coder.codebook.len()))));
        scores
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        self.config.quantised.then_some(&self.coder as &dyn Tokenizer)
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = &batch.views[0].x;
        vec![("input", x.shallow_clone()), ("reconstruction", self.reconstruct(x).1)]
    }
}

impl Define for VqVae {
    const NAME: &'static str = "vq-vae";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning, 2017, \
                                 https://arxiv.org/abs/1711.00937";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        at_least_one("hidden", config.hidden)?;
        config.codebook.check()
    }

    fn new(config: Config, setup: &Setup) -> Result<VqVae> {
        let (width, hidden, channels) = (config.codebook.width, config.hidden, setup.image()?.channels);
        let decoder = |path: &Path, factor| Ok(Decoder::new(path, width, hidden, factor, channels));
        Ok(VqVae {
            coder: Coder::new(setup, &config.codebook, decoder)?,
            error: PixelError::new(&setup.normalisation, setup.path.device()),
            config,
        })
    }
}

impl VqVae {
    /// The codes, where there are any, and what they give back: [B, C, S, S] -> [B, h, w], [B, C, S, S].
    fn reconstruct(&self, x: &Tensor) -> (Option<Tensor>, Tensor) {
        if self.config.quantised {
            let codes = self.coder.encode(x);
            let y = self.coder.decode(&codes);
            return (Some(codes), y);
        }
        (None, frozen(|| self.coder.decoder.forward(&self.coder.map(x, false))))
    }
}

#[cfg(test)]
mod tests;
