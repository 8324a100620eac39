//! GPT: Radford, Narasimhan, Salimans and Sutskever, "Improving Language Understanding by Generative Pre-Training",
//! 2018, <https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf>, in the form
//! that GPT-2 and GPT-3 gave it (Brown et al. 2020, <https://arxiv.org/abs/2005.14165>); of images: Chen, Radford,
//! Child, Wu, Jun, Luan and Sutskever, "Generative Pretraining from Pixels", 2020,
//! <https://proceedings.mlr.press/v119/chen20s.html>.
//!
//! ```text
//! for a window u_1 .. u_T of tokens:                             (section 3.1)
//!     h_0 = W_e[u_1 .. u_(T-1)] + W_p                            or W_e[start, u_1 .. u_(T-1)] + W_p
//!     h_l = block(h_(l-1))                                       a token sees itself and what is before it
//!     P(u_i | u_1 .. u_(i-1)) = softmax(norm(h_n) W_e')          or a matrix of its own
//!     L_1 = -mean_i log P(u_i | u_1 .. u_(i-1))
//! ```
//!
//! Where this departs from the paper:
//! 1. The norms stand in front of attention and MLP, with one behind the last block, and projections into the residual
//!    stream start narrower: GPT-2's form. Image-GPT's norm (no mean), GELU (a sigmoid's) and zero logits at the start
//!    are not taken over, so that one encoder serves text and images.
//! 2. Tokens are those of the data set (characters, or pieces of words) or, of images, the codes of a trained tokenizer
//!    instead of Image-GPT's 512 colours.
//! 3. Features are the mean over the tokens behind the middle block, as the next block's norm hands it on (Image-GPT's
//!    probe). GPT's own transfer, fine-tuning with the text rearranged for each task, is not here.

mod sample;

use anyhow::{Result, bail, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::PADDING;
use selfsup_core::check::above_zero;
use selfsup_core::encoder::{Encoder, EncoderConfig, Transformer};
use selfsup_core::group::share;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup, TokenShape, Tokenizer, to_tokens};
use selfsup_core::progress::Progress;
use selfsup_core::store::{Init, Role};
use selfsup_core::{Kind, Tensor, no_grad, precision};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether logits are products with the embedding's own rows (GPT), or with a matrix of their own (Image-GPT).
    pub tied: bool,
    /// Whether a learned vector stands in front, from which the first token is predicted (Image-GPT). Without it the
    /// first token of a window is context alone (GPT).
    pub start: bool,
    /// Of embeddings, attention and what enters the residual stream (GPT section 4.1).
    pub dropout: f64,
    /// Blocks before the features; 0: half of them (Image-GPT section 3.3, figure 2).
    pub probe: i64,
    /// What logits are divided by when sampling.
    pub temperature: f64,
    /// How many of the likeliest tokens sampling draws from; 0: all.
    pub top_k: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config { tied: true, start: false, dropout: 0.1, probe: 0, temperature: 1.0, top_k: 0 }
    }
}

pub struct Gpt {
    config: Config,
    encoder: Transformer,
    /// [1, 1, D], in front of the first token.
    start: Option<Tensor>,
    /// [V, D]; none: the embedding's rows.
    output: Option<Tensor>,
    /// The most tokens that the network reads at once, the start vector among them.
    context: i64,
    tokenizer: Option<Rc<dyn Method>>,
}

impl Method for Gpt {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let u = self.tokens(&batch.views[0].x); // [B, T]
        let targets = self.targets(&u);
        let loss = next_token_loss(&self.logits(&u, self.config.dropout), &targets);
        Loss::new(share(&loss, || targets.ne(PADDING).sum(Kind::Int64).int64_value(&[])))
    }

    /// None: a window is cut by chance, and an image's codes are those of the plain image.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn features(&self, x: &Tensor, _train: bool) -> Tensor {
        let read = self.read(&self.tokens(x));
        let depth = if self.config.probe == 0 { self.encoder.stack.depth() / 2 } else { self.config.probe as usize };
        let x = precision::network(read.device(), || self.embed(&read));
        self.encoder.pool(&x, &self.seen(&read), depth)
    }

    /// `loss` in nats and `bits_per_token`, of the same number: an entry for each token that is predicted.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let u = self.tokens(&batch.views[0].x);
        let targets = self.targets(&u);
        let loss = -log_p(&self.logits(&u, 0.0), &targets).index(&[Some(&targets.ne(PADDING))]);
        vec![("bits_per_token", &loss / std::f64::consts::LN_2), ("loss", loss)]
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        no_grad(|| match self.codebook() {
            Some(tokenizer) => self.images(batch, tokenizer),
            None => self.texts(batch),
        })
    }
}

impl Define for Gpt {
    const NAME: &'static str = "gpt";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "Radford, Narasimhan, Salimans and Sutskever, Improving Language Understanding by \
                                 Generative Pre-Training, 2018; Brown et al., Language Models are Few-Shot Learners, \
                                 2020, https://arxiv.org/abs/2005.14165";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let Config { dropout, probe, temperature, top_k, .. } = *config;
        ensure!((0.0..1.0).contains(&dropout), "dropout is {dropout}; expected a share of at least 0 and below 1");
        ensure!(probe >= 0, "probe is {probe}; expected a number of blocks, or 0 for half of them");
        ensure!(top_k >= 0, "top_k is {top_k}; expected a number of tokens, or 0 for all");
        above_zero("temperature", temperature)
    }

    fn new(config: Config, setup: &Setup) -> Result<Gpt> {
        let tokens = setup.tokens()?;
        let EncoderConfig::Transformer { size, causal: true } = setup.encoder else {
            bail!(
                "gpt needs a causal transformer, but the encoder is {}: choose one, such as \
                 encoder=transformer-micro-causal",
                setup.encoder
            );
        };
        let context = tokens.length - i64::from(!config.start);
        ensure!(
            context > 0,
            "gpt: a window of {} token has no next token: choose a greater `size`, or method.start=true",
            tokens.length
        );
        // It has positions for what it reads: the last token of a window is a target alone.
        let read = TokenShape { length: context, ..tokens };
        let encoder = Transformer::new(&(&setup.path / "encoder"), read, size, true);
        ensure!(
            config.probe <= encoder.stack.depth() as i64,
            "probe is {}, but {} has {} blocks",
            config.probe,
            setup.encoder,
            encoder.stack.depth()
        );
        let (width, normal) = (encoder.dim(), Init::Normal(0.02));
        let start = config.start.then(|| setup.path.variable("start", &[1, 1, width], Role::NoDecay, normal));
        let output = (!config.tied)
            .then(|| (&setup.path / "output").variable("weight", &[tokens.vocabulary, width], Role::Weight, normal));
        Ok(Gpt { config, encoder, start, output, context, tokenizer: setup.tokenizer.clone() })
    }
}

impl Gpt {
    fn codebook(&self) -> Option<&dyn Tokenizer> {
        self.tokenizer.as_deref().and_then(Method::tokenizer)
    }

    fn tokens(&self, x: &Tensor) -> Tensor {
        to_tokens(x, self.codebook())
    }

    /// What of a window is read: all but the last token. [B, T] -> [B, T - 1].
    fn read(&self, u: &Tensor) -> Tensor {
        u.narrow(1, 0, u.size()[1] - 1)
    }

    /// What is predicted: all tokens, or without a start vector all but the first. [B, T] -> [B, context].
    fn targets(&self, u: &Tensor) -> Tensor {
        u.narrow(1, u.size()[1] - self.context, self.context)
    }

    /// h_0 without W_p: the start vector, where there is one, and the tokens' rows. [B, n] -> [B, n or n + 1, D].
    fn embed(&self, read: &Tensor) -> Tensor {
        let x = self.encoder.embed(read);
        match &self.start {
            Some(start) => Tensor::cat(&[&start.expand([x.size()[0], 1, -1], false).to_kind(x.kind()), &x], 1),
            None => x,
        }
    }

    /// Which of these are no padding, [B, n] -> [B, n or n + 1] bool.
    fn seen(&self, read: &Tensor) -> Tensor {
        let seen = read.ne(PADDING);
        if self.config.start {
            Tensor::cat(&[&seen.new_ones([seen.size()[0], 1], (Kind::Bool, seen.device())), &seen], 1)
        } else {
            seen
        }
    }

    /// log P before the softmax, of every target: windows [B, T] -> [B, context, V] f32.
    fn logits(&self, u: &Tensor, dropout: f64) -> Tensor {
        let read = self.read(u);
        let h = precision::network(u.device(), || self.encoder.stack.forward(&self.embed(&read), None, dropout));
        self.project(&h)
    }

    /// norm(h_n) W_e': [B, n, D] -> [B, n, V] f32.
    fn project(&self, h: &Tensor) -> Tensor {
        match &self.output {
            Some(w) => precision::network(h.device(), || h.linear(w, None::<&Tensor>).to_kind(Kind::Float)),
            None => self.encoder.logits(h),
        }
    }
}

/// L_1, the mean over targets that are no padding: logits [B, n, V], targets [B, n].
pub fn next_token_loss(logits: &Tensor, targets: &Tensor) -> Tensor {
    let log_p = log_p(logits, targets);
    let real = targets.ne(PADDING).to_kind(log_p.kind());
    -(log_p * &real).sum(None) / real.sum(None).clamp_min(1.0)
}

/// log P of every target; at padding of token 0. [B, n, V] and [B, n] -> [B, n].
fn log_p(logits: &Tensor, targets: &Tensor) -> Tensor {
    logits.log_softmax(-1, None).gather(-1, &targets.clamp_min(0).unsqueeze(-1), false).squeeze_dim(-1)
}

#[cfg(test)]
mod tests;
