//! Samples as they come from a data set: images, token sequences or series.

use anyhow::{Result, bail};
use std::borrow::Cow;

/// One image: `pixels` holds height x width x channels bytes, channels last (grey: 1, RGB: 3).
#[derive(Clone, Debug)]
pub struct Image<'a> {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub pixels: Cow<'a, [u8]>,
}

/// One sample of a data set.
#[derive(Clone, Debug)]
pub enum Sample<'a> {
    Image(Image<'a>),
    /// Token ids, each below the vocabulary.
    Tokens(Cow<'a, [u32]>),
    /// A series of one or more channels: all values of the first channel, then of the second.
    Series(Cow<'a, [f32]>),
}

impl<'a> Sample<'a> {
    /// The image that it is.
    ///
    /// # Errors
    /// If it is none.
    pub fn image(self) -> Result<Image<'a>> {
        match self {
            Sample::Image(image) => Ok(image),
            Sample::Tokens(_) | Sample::Series(_) => bail!("expected an image, but the sample is a sequence"),
        }
    }
}

/// What a token is to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It stands between words: a blank, a sign.
    Separator,
    /// The first of a word, whatever stands before it.
    Begins,
    /// It goes on with the word that the token before it belongs to; behind a separator it begins one.
    GoesOn,
}

/// What the samples of a data set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    /// 1 (grey) or 3 (RGB) channels; sizes may differ.
    Images { channels: usize },
    /// Sequences of ids below `vocabulary`; lengths may differ.
    Tokens { vocabulary: usize },
    /// Series of `channels` values a step; lengths may differ.
    Series { channels: usize },
}

impl Modality {
    /// `images`, `token sequences` or `series`.
    pub fn plural(self) -> &'static str {
        match self {
            Modality::Images { .. } => "images",
            Modality::Tokens { .. } => "token sequences",
            Modality::Series { .. } => "series",
        }
    }
}

/// The images of one split of a data set: what a reader of images implements to be [`Samples`].
///
/// Images may differ in size; all have the same number of channels.
pub trait Images: Send + Sync {
    /// The number of images.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels of every image: 1 (grey) or 3 (RGB).
    fn channels(&self) -> usize;

    /// Image `index`, decoded if need be.
    ///
    /// # Errors
    /// If its file cannot be read or decoded; the message names the file.
    fn image(&self, index: usize) -> Result<Image<'_>>;
}

impl<T: Images> Samples for T {
    fn len(&self) -> usize {
        Images::len(self)
    }

    fn modality(&self) -> Modality {
        Modality::Images { channels: self.channels() }
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        self.image(index).map(Sample::Image)
    }
}

/// The samples of one split of a data set, without their labels.
pub trait Samples: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What every sample is.
    fn modality(&self) -> Modality;

    /// Sample `index`, decoded if need be.
    ///
    /// # Errors
    /// If its file cannot be read or decoded; the message names the file.
    fn sample(&self, index: usize) -> Result<Sample<'_>>;

    /// The text that belongs to sample `index`, as token ids, in a set of captioned images.
    fn caption(&self, _index: usize) -> Option<Cow<'_, [u32]>> {
        None
    }

    /// The shape of captions, in a set of captioned images.
    fn captions(&self) -> Option<Captions> {
        None
    }
}

/// The captions of a set of captioned images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captions {
    /// Ids are below it.
    pub vocabulary: usize,
    /// Tokens of the longest one.
    pub length: usize,
}

/// Mean and standard deviation per channel of pixels in [0, 1], taken off after all augmentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

/// Some of the samples of a split, in a given order.
pub struct Subset<'a> {
    samples: &'a dyn Samples,
    indices: Vec<usize>,
}

impl<'a> Subset<'a> {
    /// The samples at `indices`.
    pub fn new(samples: &'a dyn Samples, indices: Vec<usize>) -> Subset<'a> {
        Subset { samples, indices }
    }
}

impl Samples for Subset<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn modality(&self) -> Modality {
        self.samples.modality()
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        self.samples.sample(self.indices[index])
    }

    fn caption(&self, index: usize) -> Option<Cow<'_, [u32]>> {
        self.samples.caption(self.indices[index])
    }

    fn captions(&self) -> Option<Captions> {
        self.samples.captions()
    }
}
