//! The second stage: one causal transformer over the tokens of a caption and the codes of its image.

use crate::TransformerConfig;
use anyhow::{Context, Result, bail};
use selfsup_core::augment::Recipe;
use selfsup_core::encoder::{self, Cache, EncoderConfig};
use selfsup_core::loss::cross_entropy;
use selfsup_core::method::{Batch, Loss, Method, Setup, TokenShape, Tokenizer};
use selfsup_core::progress::Progress;
use selfsup_core::rng::Purpose;
use selfsup_core::tensor::draw;
use selfsup_core::{Device, Kind, Tensor, no_grad, precision};
use std::rc::Rc;

pub struct Transformer {
    config: TransformerConfig,
    encoder: encoder::Transformer,
    sequence: Sequence,
    first: Rc<dyn Method>,
    /// Height and width of the codes of an image.
    grid: i64,
    /// Which tokens may stand at a place, [T + L, V] bool.
    allowed: Tensor,
}

/// How captions and codes become one sequence of ids: those of the text first, then a padding id for each place of the
/// caption, then the codes, then the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Tokens of a caption, T, and their ids.
    pub text: TokenShape,
    /// Codes of an image, L, and their number K.
    pub image: TokenShape,
}

impl Sequence {
    /// Ids below it are text or padding.
    pub fn text_ids(&self) -> i64 {
        self.text.vocabulary + self.text.length
    }

    /// V, and the id of the start.
    pub fn vocabulary(&self) -> i64 {
        self.text_ids() + self.image.vocabulary
    }

    /// T + L.
    pub fn length(&self) -> i64 {
        self.text.length + self.image.length
    }

    /// Captions [B, T], padding -1, as ids: padding becomes the id of its place.
    pub fn caption(&self, captions: &Tensor) -> Tensor {
        let own = Tensor::arange(self.text.length, (Kind::Int64, captions.device())) + self.text.vocabulary;
        captions.where_self(&captions.ge(0), &own)
    }

    /// A caption of padding alone, `[rows, T]`.
    pub fn empty(&self, rows: i64, device: Device) -> Tensor {
        self.caption(&Tensor::full([rows, self.text.length], -1, (Kind::Int64, device)))
    }

    /// The start, a caption's ids [B, T] and codes [B, n]: [B, 1 + T + n].
    pub fn join(&self, caption: &Tensor, codes: &Tensor) -> Tensor {
        let start = Tensor::full([caption.size()[0], 1], self.vocabulary(), (Kind::Int64, caption.device()));
        Tensor::cat(&[&start, caption, &(codes + self.text_ids())], 1)
    }

    /// Which tokens may stand at a place, [T + L, V] bool: text and padding in the caption, codes in the image.
    pub fn allowed(&self) -> Tensor {
        let place = Tensor::arange(self.length(), (Kind::Int64, Device::Cpu)).lt(self.text.length).unsqueeze(1);
        let id = Tensor::arange(self.vocabulary(), (Kind::Int64, Device::Cpu)).lt(self.text_ids()).unsqueeze(0);
        place.eq_tensor(&id)
    }
}

/// (L_text + w L_image) / (1 + w).
pub fn weighted(text: &Tensor, image: &Tensor, weight: f64) -> Tensor {
    (text + weight * image) / (1.0 + weight)
}

impl Method for Transformer {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let (caption, codes) = self.tokens(batch);
        let kept = batch.uniform(Purpose::Mask, 1).ge(self.config.empty_captions);
        let caption = caption.where_self(&kept, &self.sequence.empty(1, caption.device()));
        let (text, image) = self.losses(&caption, &codes);
        Loss::new(weighted(&text, &image, self.config.image_weight)).with("loss_text", text).with("loss_image", image)
    }

    /// Images and captions as they are.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn features(&self, x: &Tensor, _train: bool) -> Tensor {
        let codes = self.codes(x);
        let ids = self.sequence.join(&self.sequence.empty(x.size()[0], x.device()), &codes);
        let ids = ids.narrow(1, 0, self.sequence.length()); // nothing follows the last code
        let stack = &self.encoder.stack;
        let y = precision::network(x.device(), || stack.hidden(&self.encoder.embed(&ids), None, stack.depth() / 2));
        let Sequence { text, image } = self.sequence;
        y.narrow(1, text.length, image.length).mean_dim([1].as_slice(), false, Kind::Float)
    }

    /// The loss of the codes under the right caption, and under that of another image.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let (caption, codes) = self.tokens(batch);
        let (text, image) = self.losses(&caption, &codes);
        let mut scores = vec![("loss_text", text), ("loss_image", image)];
        if let Some(others) = &batch.others {
            scores.push(("loss_image_shuffled", self.losses(&self.sequence.caption(others), &codes).1));
        }
        scores
    }

    fn generate(&self, batch: &Batch) -> Option<Tensor> {
        let Sequence { image, .. } = self.sequence;
        let u = batch.uniform(Purpose::Generate, image.length as usize);
        let codes = no_grad(|| self.draw(&self.caption(batch), &u));
        Some(self.codebook().decode(&codes.view([-1, self.grid, self.grid])))
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let (x, codebook) = (&batch.views[0].x, self.codebook());
        let mut rows = vec![("input", x.shallow_clone()), ("reconstruction", codebook.decode(&codebook.encode(x)))];
        rows.extend(self.generate(batch).map(|x| ("from the caption", x)));
        rows
    }
}

impl Transformer {
    pub(crate) fn new(config: TransformerConfig, setup: &Setup) -> Result<Transformer> {
        let size = setup.image()?.size;
        let first = setup.tokenizer.clone().context(
            "dall-e with stage = \"transformer\" predicts the codes of a first stage: give one, such as \
             tokenizer=dall-e/cpu-dvae",
        )?;
        let text = setup
            .captions
            .context("dall-e with stage = \"transformer\" needs captioned images: choose data=emoji-mini")?;
        let EncoderConfig::Transformer { size: width, causal: true } = setup.encoder else {
            bail!(
                "dall-e with stage = \"transformer\" needs a causal transformer, but the encoder is {}: choose one, \
                 such as encoder=transformer-micro-causal",
                setup.encoder
            );
        };
        let sequence = Sequence { text, image: setup.tokens()? };
        let tokens = TokenShape { vocabulary: sequence.vocabulary(), length: sequence.length() };
        let path = &setup.path / "encoder";
        let allowed = sequence.allowed().to_device(path.device());
        Ok(Transformer {
            encoder: encoder::Transformer::new(&path, tokens, width, true),
            config,
            sequence,
            grid: first.tokenizer().map_or(0, |codebook| codebook.grid(size)),
            first,
            allowed,
        })
    }

    fn codebook(&self) -> &dyn Tokenizer {
        self.first.tokenizer().expect("a run's tokenizer has a codebook")
    }

    /// [B, C, S, S] -> [B, L].
    fn codes(&self, x: &Tensor) -> Tensor {
        self.codebook().encode(x).flatten(1, 2)
    }

    /// A batch's captions as ids, [B, T], and codes, [B, L].
    pub(crate) fn tokens(&self, batch: &Batch) -> (Tensor, Tensor) {
        (self.caption(batch), self.codes(&batch.views[0].x))
    }

    /// The ids of the batch's captions, [B, T].
    fn caption(&self, batch: &Batch) -> Tensor {
        match &batch.captions {
            Some(captions) => self.sequence.caption(captions),
            None => self.sequence.empty(batch.len() as i64, batch.device()),
        }
    }

    /// Logits of each place, given those before it: ids [B, T], codes [B, L] -> [B, T + L, V] f32.
    pub fn logits(&self, caption: &Tensor, codes: &Tensor) -> Tensor {
        let ids = self.sequence.join(caption, codes).narrow(1, 0, self.sequence.length());
        self.masked(&self.encoder.encode(&ids, 0.0), &self.allowed)
    }

    fn masked(&self, y: &Tensor, allowed: &Tensor) -> Tensor {
        self.encoder.logits(y).masked_fill(&allowed.logical_not(), f64::NEG_INFINITY)
    }

    /// The means over text and over codes of -log p.
    fn losses(&self, caption: &Tensor, codes: &Tensor) -> (Tensor, Tensor) {
        let logits = self.logits(caption, codes);
        let part = |from: i64, target: &Tensor| {
            cross_entropy(&logits.narrow(1, from, target.size()[1]).flatten(0, 1), &target.flatten(0, 1))
        };
        (part(0, caption), part(self.sequence.text.length, &(codes + self.sequence.text_ids())))
    }

    /// Codes for captions, ids [B, T], one after the other, each by its uniform number u [B, L]: [B, L].
    pub fn draw(&self, caption: &Tensor, u: &Tensor) -> Tensor {
        let Sequence { text, image } = self.sequence;
        let none = Tensor::zeros([caption.size()[0], 0], (Kind::Int64, caption.device()));
        let (mut cache, mut ids) = (Cache::default(), self.sequence.join(caption, &none));
        let mut codes = Vec::new();
        for i in 0..image.length {
            let y = precision::network(ids.device(), || self.encoder.stack.step(&self.encoder.embed(&ids), &mut cache));
            let last = y.select(1, y.size()[1] - 1);
            let logits = self.masked(&last, &self.allowed.get(text.length + i)) / self.config.temperature;
            ids = draw(&logits, &u.select(1, i)).unsqueeze(-1); // codes alone are possible here
            codes.push(&ids - self.sequence.text_ids());
        }
        Tensor::cat(&codes, 1)
    }
}
