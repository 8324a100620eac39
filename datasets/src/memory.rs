//! Images of one size that lie in memory.

use anyhow::Result;
use selfsup_core::data::{Image, Images};
use std::borrow::Cow;

/// Images one after the other: u8 [count, height, width, channels].
pub(crate) struct Pixels {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Images for Pixels {
    fn len(&self) -> usize {
        self.bytes.len() / (self.height * self.width * self.channels).max(1)
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let size = self.height * self.width * self.channels;
        Ok(Image {
            height: self.height,
            width: self.width,
            channels: self.channels,
            pixels: Cow::Borrowed(&self.bytes[index * size..(index + 1) * size]),
        })
    }
}
