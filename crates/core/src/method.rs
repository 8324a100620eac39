//! The contract between a method and everything else.

use crate::augment::Recipe;
use crate::augment::views::Plain;
use crate::encoder::EncoderConfig;
use crate::objective::Given;
use crate::progress::Progress;
use crate::rng::{Purpose, Rng};
use crate::store::Path;
use anyhow::{Context, Result, bail};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use tch::{Device, Tensor};

/// One view of every image of a batch.
pub struct View {
    /// [B, C, S, S] f32, normalised.
    pub x: Tensor,
    /// How it was made, [B, P] f32; the columns are [`crate::augment::PARAMS`].
    pub params: Tensor,
}

/// What a loss sees of a batch: views of images and which images they are. There is no field for a label.
pub struct Batch {
    /// As many as the method's recipes, in their order.
    pub views: Vec<View>,
    /// The place of each image in the training set.
    pub index: Vec<usize>,
    /// The run's seed.
    pub seed: u64,
    /// The epoch, which keys the batch's random numbers.
    pub epoch: u64,
}

impl Batch {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Where its tensors live.
    pub fn device(&self) -> Device {
        self.views[0].x.device()
    }

    /// The places of the images in the training set, `[B]` i64.
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

/// The shape of an image of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 (grey) or 3 (RGB).
    pub channels: i64,
    /// Height and width of the full-size views and of the images that evaluation shows.
    pub size: i64,
}

/// What a method is built from.
pub struct Setup<'a> {
    /// Where to make its variables.
    pub path: Path<'a>,
    /// The encoder to train, by recipe: the method builds it under its own names, as often as its paper says.
    pub encoder: EncoderConfig,
    pub image: ImageShape,
    /// Images in the training set.
    pub samples: usize,
}

/// A method while it runs.
pub trait Method {
    /// The paper's augmentation table: one recipe per view.
    fn views(&self) -> Vec<Recipe>;

    /// The paper's objective on one batch.
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss;

    /// What evaluation sees: [B, C, S, S] -> [B, D], the encoder's output, before any projector.
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

    /// Pictures of what the method does to `x` [B, C, S, S]: named rows of B images [B, C, S, S], all in the
    /// normalised space of `x` (MAE: the masked input and the reconstruction).
    fn pictures(&self, _x: &Batch) -> Vec<(&'static str, Tensor)> {
        Vec::new()
    }
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
