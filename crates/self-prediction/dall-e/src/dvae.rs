//! The first stage: a discrete variational autoencoder, whose codes are relaxed by the Gumbel-softmax.

use crate::{DvaeConfig, Reconstruction};
use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::codebook::perplexity;
use selfsup_core::decoder::{Decode, Decoder, PixelError, factor};
use selfsup_core::encoder::Encoder;
use selfsup_core::group::gather;
use selfsup_core::layer::Conv2d;
use selfsup_core::method::{Batch, Loss, Method, Setup, Tokenizer, frozen};
use selfsup_core::progress::{Progress, cosine};
use selfsup_core::rng::Purpose;
use selfsup_core::store::{Init, Role};
use selfsup_core::{Kind, Tensor, precision};

/// Pixels are mapped to [eps, 1 - eps], where their logits are finite (appendix A.3).
const EPS: f64 = 0.1;

pub struct Dvae {
    config: DvaeConfig,
    encoder: Box<dyn Encoder>,
    to_logits: Conv2d,
    /// The vectors of the codes, [K, width].
    codes: Tensor,
    decoder: Decoder,
    error: PixelError,
    factor: i64,
    channels: i64,
    /// How pixels were normalised, [1, C, 1, 1] each.
    mean: Tensor,
    std: Tensor,
}

impl Dvae {
    pub(crate) fn new(config: DvaeConfig, setup: &Setup) -> Result<Dvae> {
        let (path, image) = (&setup.path, setup.image()?);
        ensure!(
            setup.tokenizer.is_none(),
            "dall-e: with stage = \"dvae\" a run makes a tokenizer and takes none: leave `tokenizer` empty"
        );
        let encoder = setup.build_encoder(&(path / "encoder"))?;
        let factor = factor(&*encoder, image, path.device())?;
        let parameters = match config.reconstruction {
            Reconstruction::LogitLaplace => 2 * image.channels,
            Reconstruction::Mse => image.channels,
        };
        let row = |row: &[f32]| Tensor::from_slice(row).view([1, -1, 1, 1]).to_device(path.device());
        Ok(Dvae {
            to_logits: Conv2d::new(&(path / "logits"), encoder.dim(), config.codes, 1, 1, 0, true),
            codes: path.variable("codes", &[config.codes, config.width], Role::Weight, Init::Normal(1.0)),
            decoder: Decoder::new(&(path / "decoder"), config.width, config.width, factor, parameters),
            error: PixelError::new(&setup.normalisation, path.device()),
            factor,
            channels: image.channels,
            mean: row(&setup.normalisation.mean),
            std: row(&setup.normalisation.std),
            encoder,
            config,
        })
    }

    /// Of every place and code: [B, C, S, S] -> [B, K, h, w] f32.
    pub(crate) fn logits(&self, x: &Tensor, train: bool) -> Tensor {
        let map = self.encoder.map(x, train).expect("`new` asked for a map");
        precision::network(x.device(), || self.to_logits.forward(&map).to_kind(Kind::Float))
    }

    /// The parameters of the pixels' distribution, from weights y of the codes: [B, K, h, w] -> [B, C or 2 C, S, S]
    /// f32.
    pub(crate) fn decode_weights(&self, y: &Tensor) -> Tensor {
        let z = precision::network(y.device(), || y.permute([0, 2, 3, 1]).matmul(&self.codes));
        self.decoder.forward(&z.permute([0, 3, 1, 2]))
    }

    /// The loss of images x whose codes have logits l, sampled by numbers u of the same shape.
    pub(crate) fn parts(&self, x: &Tensor, l: &Tensor, u: &Tensor, tau: f64) -> Loss {
        let y = gumbel_softmax(l, u, tau);
        let reconstruction = self.reconstruction(&self.decode_weights(&y), x);
        let kl = kl_to_uniform(l);
        let values = x.numel() as f64 / x.size()[0] as f64;
        Loss::new(&reconstruction + self.config.beta / values * &kl)
            .with("reconstruction", reconstruction)
            .with("kl", kl)
            .with("temperature", Tensor::from(tau))
            .with("perplexity", perplexity(&gather(&l.argmax(1, false)), self.config.codes))
    }

    /// -log p of normalised images, the mean over values.
    fn reconstruction(&self, parameters: &Tensor, x: &Tensor) -> Tensor {
        match self.config.reconstruction {
            Reconstruction::LogitLaplace => {
                let halves = parameters.chunk(2, 1);
                logit_laplace(&(x * &self.std + &self.mean), &halves[0], &halves[1])
            }
            Reconstruction::Mse => (parameters - x).square().mean(None),
        }
    }

    /// The normalised image that a distribution stands for: its location.
    pub(crate) fn picture(&self, parameters: &Tensor) -> Tensor {
        match self.config.reconstruction {
            Reconstruction::LogitLaplace => {
                let mapped = parameters.narrow(1, 0, self.channels).sigmoid();
                let pixels = ((mapped - EPS) / (1.0 - 2.0 * EPS)).clamp(0.0, 1.0);
                (pixels - &self.mean) / &self.std
            }
            Reconstruction::Mse => parameters.shallow_clone(),
        }
    }
}

impl Method for Dvae {
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        let x = &batch.views[0].x;
        let l = self.logits(x, true); // [B, K, h, w]
        self.parts(x, &l, &noise(batch, &l), temperature(&self.config, at.fraction()))
    }

    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }

    /// Squared errors of pixels over their variance, from the codes as the second stage gets them (hard) and as training
    /// samples them in the end (soft); `perplexity` is that of a batch.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = &batch.views[0].x;
        let l = self.logits(x, false);
        let codes = l.argmax(1, false);
        let y = gumbel_softmax(&l, &noise(batch, &l), self.config.end);
        let soft = self.picture(&self.decode_weights(&y));
        vec![
            ("reconstruction_error", self.error.of(x, &self.decode(&codes))),
            ("reconstruction_error_soft", self.error.of(x, &soft)),
            ("perplexity", perplexity(&codes, self.config.codes)),
        ]
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        Some(self)
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = &batch.views[0].x;
        vec![("input", x.shallow_clone()), ("reconstruction", self.decode(&self.encode(x)))]
    }
}

impl Tokenizer for Dvae {
    fn encode(&self, x: &Tensor) -> Tensor {
        frozen(|| self.logits(x, false).argmax(1, false))
    }

    fn decode(&self, codes: &Tensor) -> Tensor {
        frozen(|| {
            let z = Tensor::embedding(&self.codes, codes, -1, false, false); // [B, h, w, width]
            self.picture(&self.decoder.forward(&z.permute([0, 3, 1, 2])))
        })
    }

    fn vocabulary(&self) -> i64 {
        self.config.codes
    }

    fn grid(&self, size: i64) -> i64 {
        size / self.factor
    }
}

/// Numbers uniform on [0, 1) of the shape of the logits.
fn noise(batch: &Batch, logits: &Tensor) -> Tensor {
    batch.uniform(Purpose::Mask, logits.numel() / batch.len()).view_as(logits)
}

/// tau when a share `fraction` of the run lies behind.
pub fn temperature(config: &DvaeConfig, fraction: f64) -> f64 {
    cosine(config.start, config.end, fraction / config.anneal)
}

/// softmax((l + g) / tau) over the second dimension, where g = -log(-log u) is Gumbel noise from u in [0, 1).
pub fn gumbel_softmax(logits: &Tensor, u: &Tensor, tau: f64) -> Tensor {
    // Neither logarithm may be infinite: in f32 no number lies between 1 - 6e-8 and 1.
    let g = -(-u.clamp(1e-20, 1.0 - 6e-8).log()).log();
    ((logits + g) / tau).softmax(1, None)
}

/// KL(softmax(l) || uniform) = sum over k of q_k log(q_k K), summed over places, the mean over images:
/// [B, K, h, w] -> a scalar.
pub fn kl_to_uniform(logits: &Tensor) -> Tensor {
    let (b, k, _, _) = logits.size4().expect("logits are [B, K, h, w]");
    let log_q = logits.log_softmax(1, None);
    (log_q.exp() * (log_q + (k as f64).ln())).sum(None) / b as f64
}

/// -log of the logit-Laplace density of pixels in [0, 1], mapped to m in [eps, 1 - eps], with location mu and scale
/// b = e^(log_b), the mean over values: log(2 b m (1 - m)) + |logit(m) - mu| / b (appendix A.3).
pub fn logit_laplace(pixels: &Tensor, mu: &Tensor, log_b: &Tensor) -> Tensor {
    let m = pixels * (1.0 - 2.0 * EPS) + EPS;
    let rest = 1.0 - &m;
    let logit = (&m / &rest).log();
    ((m * rest * 2.0).log() + log_b + (logit - mu).abs() * (-log_b).exp()).mean(None)
}
