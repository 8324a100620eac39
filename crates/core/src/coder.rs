//! Images to codes and back: an encoder's map, the codebook, a decoder. What VQ-VAE and VQ-GAN share.

use crate::augment::views::Plain;
use crate::codebook::{Codebook, CodebookConfig};
use crate::decoder::{Decode, factor};
use crate::encoder::Encoder;
use crate::layer::Conv2d;
use crate::method::{Setup, Tokenizer, frozen};
use crate::precision;
use crate::progress::Progress;
use crate::store::Path;
use anyhow::Result;
use tch::{Kind, Tensor};

/// The networks around a codebook, and it.
pub struct Coder<D> {
    pub encoder: Box<dyn Encoder>,
    /// The encoder's running statistics, where it has any.
    statistics: Vec<Tensor>,
    /// 1 x 1, to the codes' width.
    project: Conv2d,
    pub codebook: Codebook,
    pub decoder: D,
    factor: i64,
}

impl<D> Coder<D> {
    /// The variables lie below `encoder`, `project` and `codebook`, and those of `decoder`, which is given how many times
    /// larger an image is than its map, below `decoder`.
    ///
    /// # Errors
    /// If the data are no images, the encoder keeps no map, or no decoder can bring it back.
    pub fn new(
        setup: &Setup,
        config: &CodebookConfig,
        decoder: impl FnOnce(&Path, i64) -> Result<D>,
    ) -> Result<Coder<D>> {
        let (image, path) = (setup.image()?, &setup.path);
        let encoder = setup.build_encoder(&(path / "encoder"))?;
        let factor = factor(&*encoder, image, path.device())?;
        Ok(Coder {
            statistics: path.store().buffers((path / "encoder").name()),
            project: Conv2d::new(&(path / "project"), encoder.dim(), config.width, 1, 1, 0, true),
            codebook: Codebook::new(&(path / "codebook"), config),
            decoder: decoder(&(path / "decoder"), factor)?,
            factor,
            encoder,
        })
    }

    /// z_e: [B, C, S, S] -> [B, D, h, w] f32.
    pub fn map(&self, x: &Tensor, train: bool) -> Tensor {
        let map = self.encoder.map(x, train).expect("an encoder without a map was refused");
        precision::network(x.device(), || self.project.forward(&map)).to_kind(Kind::Float)
    }

    /// [`Codebook::start`] on what this makes of images.
    ///
    /// # Errors
    /// As there.
    pub fn start(&self, at: Progress, images: &Plain) -> Result<Vec<String>> {
        self.codebook.start(at, images, &self.statistics, |x| self.map(x, true))
    }
}

impl<D: Decode> Tokenizer for Coder<D> {
    fn encode(&self, x: &Tensor) -> Tensor {
        frozen(|| self.codebook.encode(&self.map(x, false)))
    }

    fn decode(&self, codes: &Tensor) -> Tensor {
        frozen(|| self.decoder.forward(&self.codebook.decode(codes)))
    }

    fn vocabulary(&self) -> i64 {
        self.codebook.len()
    }

    fn grid(&self, size: i64) -> i64 {
        size / self.factor
    }
}
