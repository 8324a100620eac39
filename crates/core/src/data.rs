//! Images as they come from a data set: u8, rows of pixels, channels last.

use anyhow::Result;
use std::borrow::Cow;

/// One image: `pixels` holds height x width x channels bytes, channels last (grey: 1, RGB: 3).
#[derive(Clone, Debug)]
pub struct Image<'a> {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub pixels: Cow<'a, [u8]>,
}

/// The images of one split of a data set, without their labels.
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

/// Mean and standard deviation per channel of pixels in [0, 1], taken off after all augmentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

/// Some of the images of a split, in a given order.
pub struct Subset<'a> {
    images: &'a dyn Images,
    indices: Vec<usize>,
}

impl<'a> Subset<'a> {
    /// The images at `indices`.
    pub fn new(images: &'a dyn Images, indices: Vec<usize>) -> Subset<'a> {
        Subset { images, indices }
    }
}

impl Images for Subset<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn channels(&self) -> usize {
        self.images.channels()
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.images.image(self.indices[index])
    }
}
