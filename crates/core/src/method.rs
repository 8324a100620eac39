//! The contract between a method and everything else.

use crate::augment::Recipe;
use crate::augment::views::Plain;
use crate::data::{Normalisation, Word};
use crate::encoder::{self, Encoder, EncoderConfig, Tap, Tapped};
use crate::objective::Given;
use crate::precision::{self, Precision};
use crate::progress::Progress;
use crate::rng::{Purpose, Rng};
use crate::store::Path;
use anyhow::{Context, Result, bail, ensure};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::rc::Rc;
use tch::{Device, Tensor};

/// One view of every sample of a batch.
pub struct View {
    /// Images [B, C, S, S] f32, tokens [B, T] i64 or series [B, C, T] f32: see [`Shape`].
    pub x: Tensor,
    /// How it was made, [B, P] f32; the columns are [`crate::augment::PARAMS`].
    pub params: Tensor,
}

/// What a loss sees of a batch: views of samples and which samples they are. There is no field for a label.
pub struct Batch {
    /// As many as the method's recipes, in their order.
    pub views: Vec<View>,
    /// What was written beside each image, [B, T] i64, in a set of captioned images.
    pub captions: Option<Tensor>,
    /// For each image the caption of another, which differs from its own: what evaluation holds captions against. None
    /// in training.
    pub others: Option<Tensor>,
    /// The place of each sample in the training set.
    pub index: Vec<usize>,
    /// The run's seed.
    pub seed: u64,
    /// The epoch, which keys the batch's random numbers.
    pub epoch: u64,
}

impl Batch {
    /// Without captions.
    pub fn new(views: Vec<View>, index: Vec<usize>, seed: u64, epoch: u64) -> Batch {
        Batch { views, captions: None, others: None, index, seed, epoch }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Where its tensors live.
    pub fn device(&self) -> Device {
        self.views[0].x.device()
    }

    /// The places of the samples in the training set, `[B]` i64.
    pub fn places(&self) -> Tensor {
        let places: Vec<i64> = self.index.iter().map(|&index| index as i64).collect();
        Tensor::from_slice(&places).to_device(self.device())
    }

    /// Numbers uniform on [0, 1) for a choice inside the loss, [B, columns] f32. Row i depends on image i, the epoch
    /// and the seed alone, so it is the same in any batch and on any device.
    pub fn uniform(&self, purpose: Purpose, columns: usize) -> Tensor {
        let mut values = Vec::with_capacity(self.len() * columns);
        for &index in &self.index {
            let mut rng = Rng::new(self.seed, purpose, self.epoch, index as u64, 0);
            values.extend((0..columns).map(|_| rng.uniform() as f32));
        }
        Tensor::from_slice(&values).view([self.len() as i64, columns as i64]).to_device(self.device())
    }
}

/// A loss and its named parts, which become rows of metrics.csv.
pub struct Loss {
    /// A scalar.
    pub total: Tensor,
    /// Scalars to be recorded; detached by the trainer.
    pub parts: Vec<(&'static str, Tensor)>,
}

impl Loss {
    /// A loss without parts.
    pub fn new(total: Tensor) -> Loss {
        Loss { total, parts: Vec::new() }
    }

    /// Adds a part to the record.
    pub fn with(mut self, name: &'static str, value: Tensor) -> Loss {
        self.parts.push((name, value));
        self
    }
}

/// What a batch holds of each sample. The tensors of a view begin with B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// [B, C, S, S] f32, normalised.
    Image(ImageShape),
    /// [B, T] i64, [`crate::augment::views::PADDING`] behind the end of a sequence.
    Tokens(TokenShape),
    /// [B, C, T] f32, normalised, NaN behind the end of a series.
    Series(SeriesShape),
}

/// The shape of an image of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 (grey) or 3 (RGB).
    pub channels: i64,
    /// Height and width of the full-size views and of the images that evaluation shows.
    pub size: i64,
}

/// The shape of a token sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenShape {
    /// Ids are below it.
    pub vocabulary: i64,
    /// T, the tokens of a view.
    pub length: i64,
}

/// The shape of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesShape {
    pub channels: i64,
    /// T, the steps of a view.
    pub length: i64,
}

impl Shape {
    /// `images`, `token sequences` or `series`.
    pub fn plural(self) -> &'static str {
        match self {
            Shape::Image(_) => "images",
            Shape::Tokens(_) => "token sequences",
            Shape::Series(_) => "series",
        }
    }

    /// Height and width of an image, the length of a sequence or series: the `size` of a run.
    pub fn size(self) -> i64 {
        match self {
            Shape::Image(image) => image.size,
            Shape::Tokens(tokens) => tokens.length,
            Shape::Series(series) => series.length,
        }
    }
}

/// Images [B, C, S, S] as sequences of the tokenizer's codes, [B, h w] i64; token sequences as they are.
pub fn to_tokens(x: &Tensor, tokenizer: Option<&dyn Tokenizer>) -> Tensor {
    match tokenizer {
        Some(tokenizer) if x.dim() == 4 => tokenizer.encode(x).flatten(1, 2),
        _ => x.shallow_clone(),
    }
}

/// What a method is built from.
pub struct Setup<'a> {
    /// Where to make its variables.
    pub path: Path<'a>,
    /// The encoder to train, by recipe: the method builds it under its own names, as often as its paper says.
    pub encoder: EncoderConfig,
    pub shape: Shape,
    /// What was taken off the pixels: for a method that needs them as they were.
    pub normalisation: Normalisation,
    /// Samples in the training set.
    pub samples: usize,
    /// The captions of the images, where they have any.
    pub captions: Option<TokenShape>,
    /// What each id of the token sequences is to a word, where they are text.
    pub words: Option<Rc<[Word]>>,
    /// The trained and frozen first stage of a two-stage method, where the run names one. Its weights lie in the same
    /// store, so that saving the store saves it.
    pub tokenizer: Option<Rc<dyn Method>>,
    /// The run's own views, where they stand in place of the method's; else empty.
    pub views: Vec<Recipe>,
    /// Where the encoder leaves its features for an auxiliary loss, where the run has one.
    pub tap: Option<Tap>,
}

impl<'a> Setup<'a> {
    /// With neither captions, words nor tokenizer, pixels in [0, 1].
    pub fn new(path: Path<'a>, encoder: EncoderConfig, shape: Shape, samples: usize) -> Setup<'a> {
        let channels = match shape {
            Shape::Image(image) => image.channels as usize,
            Shape::Tokens(_) => 0,
            Shape::Series(series) => series.channels as usize,
        };
        let normalisation = Normalisation { mean: vec![0.0; channels], std: vec![1.0; channels] };
        Setup {
            path,
            encoder,
            shape,
            normalisation,
            samples,
            captions: None,
            words: None,
            tokenizer: None,
            views: Vec::new(),
            tap: None,
        }
    }

    /// The shape of the images.
    ///
    /// # Errors
    /// If the data are no images.
    pub fn image(&self) -> Result<ImageShape> {
        match self.shape {
            Shape::Image(image) => Ok(image),
            other => bail!("the method takes images, but the data are {}: choose another `data`", other.plural()),
        }
    }

    /// The shape of the token sequences: those of the data, or the codes that the tokenizer makes of images (their rows
    /// one after the other).
    ///
    /// # Errors
    /// If the data are neither token sequences nor images with a tokenizer.
    pub fn tokens(&self) -> Result<TokenShape> {
        match (self.shape, self.tokenizer.as_deref().and_then(Method::tokenizer)) {
            (Shape::Tokens(tokens), _) => Ok(tokens),
            (Shape::Image(image), Some(tokenizer)) => {
                let grid = tokenizer.grid(image.size);
                Ok(TokenShape { vocabulary: tokenizer.vocabulary(), length: grid * grid })
            }
            (other, _) => bail!(
                "the method takes token sequences, but the data are {}: choose another `data`, or give images a \
                 `tokenizer`",
                other.plural()
            ),
        }
    }

    /// The shape of the series.
    ///
    /// # Errors
    /// If the data are no series.
    pub fn series(&self) -> Result<SeriesShape> {
        match self.shape {
            Shape::Series(series) => Ok(series),
            other => bail!("the method takes series, but the data are {}: choose another `data`", other.plural()),
        }
    }

    /// Refuses a run's own views of another number than the loss compares.
    ///
    /// # Errors
    /// If there are others than `wanted`.
    pub fn expect_views(&self, wanted: usize) -> Result<()> {
        let views = self.views.len();
        let recipes = if views == 1 { "recipe" } else { "recipes" };
        ensure!(
            views == 0 || views == wanted,
            "`views` has {views} {recipes}, but the loss takes {wanted}: give as many [[views]]"
        );
        Ok(())
    }

    /// Builds the run's encoder below `path`.
    ///
    /// # Errors
    /// If the encoder cannot read what the data hold.
    pub fn build_encoder(&self, path: &Path) -> Result<Box<dyn Encoder>> {
        let encoder = encoder::build(path, self.encoder, self.shape)?;
        Ok(match &self.tap {
            Some(tap) => Box::new(Tapped { encoder, tap: tap.clone() }),
            None => encoder,
        })
    }
}

/// A method while it runs.
pub trait Method {
    /// The paper's augmentation table: one recipe per view.
    fn views(&self) -> Vec<Recipe>;

    /// The paper's objective on one batch.
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss;

    /// What evaluation sees: x [B, ..] -> [B, D], the encoder's output, before any projector.
    /// `train` is false except in fine-tuning.
    fn features(&self, x: &Tensor, train: bool) -> Tensor;

    /// What the loss is computed on, [B, C, S, S] -> [B, E], where there is such a thing: the projector's output.
    fn embedding(&self, _x: &Tensor) -> Option<Tensor> {
        None
    }

    /// Called before the first step of an epoch, but not when a run goes on in the middle of one. A method that looks
    /// at all training images does it here, and keeps what it saw in the store. Gives the names of trained variables
    /// (or what they lie below) that it drew anew: the optimiser forgets what it remembered of them.
    ///
    /// # Errors
    /// If an image cannot be read, or what was seen cannot be used.
    fn before_epoch(&mut self, _at: Progress, _images: &Plain) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The places of the images of this epoch, in their order; `None`, once, for good: each image once, shuffled.
    /// A function of the store and `at` alone, since a run that goes on asks again.
    fn order(&self, _at: Progress) -> Option<Vec<usize>> {
        None
    }

    /// Called after every optimiser step: moving averages, normalised prototypes.
    fn after_step(&mut self, _at: Progress) {}

    /// How well the method does what it was trained for, on samples that it was not trained on, by name (`accuracy`,
    /// `bits_per_dim`, `reconstruction_error`): a scalar, the mean over the batch's samples, or an entry \[n\] for each of
    /// what is averaged (a token, where sequences differ in length). Nothing moves, no graph is built.
    fn pretext(&self, _batch: &Batch) -> Vec<(&'static str, Tensor)> {
        Vec::new()
    }

    /// The codebook that another method may predict, where this one has learned such a thing (VQ-VAE, VQ-GAN, dVAE).
    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        None
    }

    /// Images [B, C, S, S] made for the captions of a batch, in the normalised space of its images, which are not looked
    /// at; each is drawn from (seed, epoch, index) of its sample. `None` where the method makes no images of captions.
    fn generate(&self, _batch: &Batch) -> Option<Tensor> {
        None
    }

    /// Pictures of what the method does to `x` [B, C, S, S]: named rows of B images [B, C, S, S], all in the
    /// normalised space of `x` (MAE: the masked input and the reconstruction). A method of text gives rows of token
    /// sequences [B, T] i64 instead; a method of series lines [B, C, T] f32 over steps 1 to T, all of one size, NaN where
    /// a line has no value (the series itself, a forecast).
    fn pictures(&self, _x: &Batch) -> Vec<(&'static str, Tensor)> {
        Vec::new()
    }
}

/// Images as grids of discrete codes: what the first stage of a two-stage method learns. Both ways pass [`frozen`].
pub trait Tokenizer {
    /// Images [B, C, S, S] -> codes [B, h, w] i64 below [`Tokenizer::vocabulary`].
    fn encode(&self, x: &Tensor) -> Tensor;

    /// Codes [B, h, w] i64 -> images [B, C, S, S] in the normalised space of the images that it was trained on.
    fn decode(&self, codes: &Tensor) -> Tensor;

    /// The number of codes, K.
    fn vocabulary(&self) -> i64;

    /// h and w of an image of `size` pixels.
    fn grid(&self, size: i64) -> i64;
}

/// Runs `f` as a tokenizer encodes and decodes: no graph is built, and networks compute in f32 whatever the second stage
/// trains in, so that an image has the same codes wherever it is met.
pub fn frozen<T>(f: impl FnOnce() -> T) -> T {
    precision::with(Precision::F32, || tch::no_grad(f))
}

/// The family of a method: the folder of its crate and a column of every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    SelfPrediction,
    Contrastive,
    NonContrastive,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::SelfPrediction => "self-prediction",
            Family::Contrastive => "contrastive",
            Family::NonContrastive => "non-contrastive",
        })
    }
}

/// A method before it runs: its name, where it comes from and how it is built.
pub trait Define: Method + Sized + 'static {
    /// The paper's name in lower case: the crate's name, the CSV's value, the docs' anchor.
    const NAME: &'static str;
    const FAMILY: Family;
    /// Authors, title, year, link.
    const PAPER: &'static str;
    /// The fewest images that its loss is defined on.
    const MIN_BATCH: usize;
    /// The paper's numbers are its `Default`. Unknown keys must be refused (`deny_unknown_fields`).
    type Config: Default + Clone + Serialize + DeserializeOwned;

    /// Refuses numbers that the method cannot use, whatever it is built on.
    ///
    /// # Errors
    /// Says which number, its value and what was expected ([`crate::check`]).
    fn check(config: &Self::Config) -> Result<()>;

    /// Builds the method from a configuration that was checked.
    ///
    /// # Errors
    /// If the encoder, the image or the size of the training set cannot be used; the message says which and why.
    fn new(config: Self::Config, setup: &Setup) -> Result<Self>;

    /// The tensors that [`Define::objective`] reads; empty if there is no loss on embeddings alone.
    const INPUTS: &'static [&'static str] = &[];

    /// The loss on given embeddings, a scalar, in the convention of the authors' code.
    ///
    /// # Errors
    /// If a tensor is missing or has the wrong shape.
    fn objective(_config: &Self::Config, _given: &Given) -> Result<Tensor> {
        bail!("{} has no loss on embeddings alone", Self::NAME)
    }
}

/// A method as the registry knows it: [`Define`] with its type erased.
#[derive(Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub family: Family,
    pub paper: &'static str,
    pub min_batch: usize,
    /// The default configuration as TOML.
    pub defaults: fn() -> Result<toml::Table>,
    /// The configuration that `table` and the defaults make, written out in full.
    pub resolve: fn(&toml::Table) -> Result<toml::Table>,
    /// Builds the method from its `[method]` table.
    pub build: fn(&toml::Table, &Setup) -> Result<Box<dyn Method>>,
    /// What `objective` reads; empty: there is none.
    pub inputs: &'static [&'static str],
    /// The loss on given embeddings.
    pub objective: fn(&toml::Table, &Given) -> Result<Tensor>,
}

fn parse<M: Define>(table: &toml::Table) -> Result<M::Config> {
    let read = table.clone().try_into().map_err(anyhow::Error::from);
    let checked = read.and_then(|config| M::check(&config).map(|()| config));
    checked.with_context(|| format!("in the configuration of {}", M::NAME))
}

fn write<C: Serialize>(config: &C) -> Result<toml::Table> {
    Ok(toml::Table::try_from(config)?)
}

/// The registry entry of a method.
pub const fn entry<M: Define>() -> Entry {
    Entry {
        name: M::NAME,
        family: M::FAMILY,
        paper: M::PAPER,
        min_batch: M::MIN_BATCH,
        defaults: || write(&M::Config::default()),
        resolve: |table| write(&parse::<M>(table)?),
        build: |table, setup| Ok(Box::new(M::new(parse::<M>(table)?, setup)?)),
        inputs: M::INPUTS,
        objective: |table, given| M::objective(&parse::<M>(table)?, given),
    }
}
