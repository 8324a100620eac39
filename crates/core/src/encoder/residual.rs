//! The encoder of VQ-VAE: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", 2017,
//! arXiv 1711.00937 (section 4.1), as in the authors' example.

use super::{Encoder, stages};
use crate::layer::Conv2d;
use crate::method::ImageShape;
use crate::precision;
use crate::store::Path;
use crate::tensor::map_mean;
use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Residual blocks without norms, `x += conv1(relu(conv3(relu x)))`, and a ReLU behind the last.
pub struct ResidualStack(Vec<(Conv2d, Conv2d)>);

impl ResidualStack {
    /// Two blocks, `hidden` wide inside.
    pub fn new(path: &Path, width: i64, hidden: i64) -> ResidualStack {
        let block = |i: i64| {
            let path = path / i;
            let conv3 = Conv2d::new(&(&path / "conv3"), width, hidden, 3, 1, 1, true);
            (conv3, Conv2d::new(&(&path / "conv1"), hidden, width, 1, 1, 0, true))
        };
        ResidualStack((0..2).map(block).collect())
    }

    /// [B, width, h, w] -> [B, width, h, w].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = x.shallow_clone();
        for (conv3, conv1) in &self.0 {
            x = &x + conv1.forward(&conv3.forward(&x.relu()).relu());
        }
        x.relu()
    }
}

/// Convolutions 4 x 4 of stride 2, one 3 x 3, two residual blocks; features are the mean of the map.
pub struct Residual {
    down: Vec<Conv2d>,
    conv: Conv2d,
    blocks: ResidualStack,
    width: i64,
}

impl Residual {
    /// The map's sides are `factor` (a power of two) times smaller than the image's. 128 wide, `tiny` 64; the first
    /// convolution has half and the blocks have a quarter of that inside.
    ///
    /// # Errors
    /// If the image is smaller than `factor`.
    pub fn new(path: &Path, image: ImageShape, tiny: bool, factor: i64) -> Result<Residual> {
        ensure!(
            image.size >= factor,
            "an image of {} pixels is too small for an encoder that divides its sides by {factor}",
            image.size
        );
        let width = if tiny { 64 } else { 128 };
        let mut input = image.channels;
        let down = (0..factor.ilog2()).map(|i| {
            let output = if i == 0 && factor > 2 { width / 2 } else { width };
            let conv = Conv2d::new(&(path / "down" / i), input, output, 4, 2, 1, true);
            input = output;
            conv
        });
        Ok(Residual {
            down: down.collect(),
            conv: Conv2d::new(&(path / "conv"), width, width, 3, 1, 1, true),
            blocks: ResidualStack::new(&(path / "blocks"), width, width / 4),
            width,
        })
    }

    /// The map; that, and those behind the convolutions of stride 2, shown to `behind`.
    fn grid(&self, x: &Tensor, behind: impl Fn(&Tensor)) -> Tensor {
        let mut x = x.shallow_clone();
        for conv in &self.down {
            x = conv.forward(&x).relu();
            behind(&x);
        }
        let x = self.blocks.forward(&self.conv.forward(&x));
        behind(&x);
        x
    }
}

impl Encoder for Residual {
    fn forward(&self, x: &Tensor, _train: bool) -> Tensor {
        precision::network(x.device(), || map_mean(&self.grid(x, stages::show_map)))
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn map(&self, x: &Tensor, _train: bool) -> Option<Tensor> {
        Some(precision::network(x.device(), || self.grid(x, |_| ())).to_kind(Kind::Float))
    }
}
