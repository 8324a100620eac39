//! BERT: Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language
//! Understanding", 2019, <https://arxiv.org/abs/1810.04805>.
//!
//! ```text
//! for a sequence of n tokens:                                    (section 3.1, appendix A.1)
//!     choose 15% of the places
//!     at each: 80% [MASK], 10% a random token, 10% the token itself
//!     T = encoder(tokens + positions)                            every token sees all that are no padding
//!     p = softmax(norm(gelu(dense(T))) E' + b)                   E: the embedding's rows
//!     L = -mean over the chosen places of log p(original token)
//! ```
//!
//! Where this departs from the paper:
//! 1. There is no second task: next-sentence prediction, the class and separator tokens and the segments that serve it
//!    are left out, as later work does (RoBERTa, Liu et al. 2019, arXiv 1907.11692). Features are the mean over the
//!    tokens instead of the class token.
//! 2. Masks are drawn anew in every epoch (RoBERTa), not ten times in advance.
//! 3. The norms stand in front of attention and MLP, weights start normal and not truncated normal: GPT-2's blocks, so
//!    that BERT and GPT differ in what they predict alone.
//! 4. Tokens are those of the data set. With `whole_words` 15% of the words are chosen, each with all its tokens and none
//!    more often than another; what stands between words is not. The authors' later release fills 15% of the places with
//!    words and leaves out one that no longer fits, so that long words are seldom chosen. `most` bounds places as there.
//! 5. The loss is the plain mean; the authors' code adds 1e-5 to the number of chosen places.

mod mask;

pub use mask::{Mask, Rule, choose, count, words};

use anyhow::{Result, bail, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check;
use selfsup_core::data::Word;
use selfsup_core::encoder::{Encoder, EncoderConfig, Transformer};
use selfsup_core::group::share;
use selfsup_core::layer::{LayerNorm, Linear};
use selfsup_core::loss::{accuracy, accuracy_each, cross_entropy, cross_entropy_each};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup, to_tokens};
use selfsup_core::progress::Progress;
use selfsup_core::rng::Purpose;
use selfsup_core::store::{Init, Path, Role};
use selfsup_core::{Tensor, no_grad, precision};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The share of places, or of words, that is chosen (section 3.1).
    pub mask_ratio: f64,
    /// The most places chosen in a sequence; 0: no such bound (the authors' code: 20 of 128).
    pub most: i64,
    /// The share of chosen places that show a mask (appendix A.1, table 8).
    pub masked: f64,
    /// The share of chosen places that show a random token; the rest show the original.
    pub random: f64,
    /// Whether words are chosen with all their tokens (the authors' later release) or tokens one by one.
    pub whole_words: bool,
    /// Of embeddings, attention and what enters the residual stream (appendix A.2).
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config { mask_ratio: 0.15, most: 0, masked: 0.8, random: 0.1, whole_words: false, dropout: 0.1 }
    }
}

pub struct Bert {
    config: Config,
    encoder: Transformer,
    head: Head,
    /// What each id is to a word, where words are chosen whole.
    words: Option<Rc<[Word]>>,
    tokenizer: Option<Rc<dyn Method>>,
}

impl Method for Bert {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let mask = self.mask(batch);
        let p = self.predict(&mask, self.config.dropout); // [M, V], one row a chosen place
        let mean = |of: Tensor| share(&of, || p.size()[0]); // over the chosen places of all ranks
        Loss::new(mean(cross_entropy(&p, &mask.targets))).with("masked_accuracy", mean(accuracy(&p, &mask.targets)))
    }

    /// None: a window is cut by chance, and an image's codes are those of the plain image.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(&self.tokens(x), train)
    }

    /// An entry for each chosen place.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let mask = self.mask(batch);
        let p = self.predict(&mask, 0.0);
        vec![("loss", cross_entropy_each(&p, &mask.targets)), ("masked_accuracy", accuracy_each(&p, &mask.targets))]
    }

    /// Text as it is, as the encoder sees it, and with the likeliest token at each chosen place; of images the same as
    /// their tokenizer shows it, without a picture of the mask.
    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        no_grad(|| {
            let mask = self.mask(batch);
            let best = self.predict(&mask, 0.0).argmax(-1, false);
            let ids = self.tokens(&batch.views[0].x);
            let prediction = ids.masked_scatter(&mask.chosen, &best);
            match self.tokenizer.as_deref().and_then(Method::tokenizer) {
                Some(tokenizer) => {
                    let x = &batch.views[0].x;
                    let grid = tokenizer.grid(x.size()[3]);
                    let picture = |ids: &Tensor| tokenizer.decode(&ids.view([-1, grid, grid]));
                    vec![("input", x.shallow_clone()), ("codes", picture(&ids)), ("prediction", picture(&prediction))]
                }
                // Text after text, so that the three stand together.
                None => (0..ids.size()[0])
                    .flat_map(|i| {
                        let row = |x: &Tensor| x.narrow(0, i, 1);
                        [("input", row(&ids)), ("masked", row(&mask.input)), ("prediction", row(&prediction))]
                    })
                    .collect(),
            }
        })
    }
}

impl Define for Bert {
    const NAME: &'static str = "bert";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "Devlin, Chang, Lee and Toutanova, BERT: Pre-training of Deep Bidirectional \
                                 Transformers for Language Understanding, 2019, https://arxiv.org/abs/1810.04805";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let Config { mask_ratio, most, masked, random, dropout, .. } = *config;
        ensure!(
            0.0 < mask_ratio && mask_ratio <= 1.0,
            "mask_ratio is {mask_ratio}; expected a share above 0, such as 0.15"
        );
        ensure!(most >= 0, "most is {most}; expected a number of places, or 0 for no bound");
        check::share("masked", masked)?;
        check::share("random", random)?;
        // 0.8 + 0.2 is 1 in binary too, but not every pair of shares that mean 1 is.
        ensure!(
            masked + random <= 1.0 + 1e-9,
            "masked is {masked} and random {random}; expected shares that are at most 1 together"
        );
        ensure!((0.0..1.0).contains(&dropout), "dropout is {dropout}; expected a share of at least 0 and below 1");
        Ok(())
    }

    fn new(config: Config, setup: &Setup) -> Result<Bert> {
        let tokens = setup.tokens()?;
        let EncoderConfig::Transformer { size, causal: false } = setup.encoder else {
            bail!(
                "bert needs a transformer that sees both sides, but the encoder is {}: choose one, such as \
                 encoder=transformer-micro",
                setup.encoder
            );
        };
        let words = if config.whole_words { setup.words.clone() } else { None };
        ensure!(
            words.is_some() || !config.whole_words,
            "method.whole_words: the tokens of this data do not tell where words begin: mask them one by one \
             (method.whole_words=false), or choose a text"
        );
        let encoder = Transformer::new(&(&setup.path / "encoder"), tokens, size, false);
        let head = Head::new(&(&setup.path / "head"), encoder.dim(), tokens.vocabulary);
        Ok(Bert { config, encoder, head, words, tokenizer: setup.tokenizer.clone() })
    }
}

impl Bert {
    fn tokens(&self, x: &Tensor) -> Tensor {
        to_tokens(x, self.tokenizer.as_deref().and_then(Method::tokenizer))
    }

    /// The batch's mask: a choice of each sequence's own.
    fn mask(&self, batch: &Batch) -> Mask {
        let Config { mask_ratio: ratio, most, masked, random, .. } = self.config;
        let rule = Rule { words: self.words.as_deref(), ratio, most, masked, random, mask_id: self.encoder.mask_id() };
        let ids = self.tokens(&batch.views[0].x);
        let columns = Mask::COLUMNS * ids.size()[1];
        Mask::new(&ids, &batch.uniform(Purpose::Mask, columns as usize), &rule)
    }

    /// Logits at the chosen places, sequence after sequence: [M, V] f32.
    fn predict(&self, mask: &Mask, dropout: f64) -> Tensor {
        let t = self.encoder.encode(&mask.input, dropout); // [B, T, D]
        self.head.forward(&t.index(&[Some(&mask.chosen)]), &self.encoder)
    }
}

/// Dense, GELU, norm and the embedding's own rows, with a bias for each token.
struct Head {
    dense: Linear,
    norm: LayerNorm,
    bias: Tensor,
}

impl Head {
    fn new(path: &Path, width: i64, vocabulary: i64) -> Head {
        Head {
            dense: Linear::normal(&(path / "dense"), width, width, 0.02),
            norm: LayerNorm::new(&(path / "norm"), width, 1e-12),
            bias: path.variable("bias", &[vocabulary], Role::NoDecay, Init::Const(0.0)),
        }
    }

    /// [M, D] -> [M, V] f32.
    fn forward(&self, t: &Tensor, encoder: &Transformer) -> Tensor {
        let y = precision::network(t.device(), || self.norm.forward(&self.dense.forward(t).gelu("none")));
        encoder.logits(&y) + &self.bias
    }
}

#[cfg(test)]
mod tests;
