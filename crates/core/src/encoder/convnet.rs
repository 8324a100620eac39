//! A small convolutional network for work on a CPU.

use super::{Encoder, stages};
use crate::layer::{BatchNorm, Conv2d};
use crate::precision;
use crate::store::Path;
use crate::tensor::map_mean;
use tch::{Kind, Tensor};

/// Four times 3 x 3 convolution, BatchNorm and ReLU, then the mean over positions.
pub struct ConvNet {
    layers: Vec<(Conv2d, BatchNorm)>,
    dim: i64,
}

impl ConvNet {
    /// For images of `channels` channels and any size from 8 pixels.
    pub fn new(path: &Path, channels: i64, tiny: bool) -> ConvNet {
        let (widths, strides) =
            if tiny { ([32, 48, 64, 128], [2, 2, 2, 1]) } else { ([32, 64, 128, 256], [2, 2, 1, 1]) };
        let mut input = channels;
        let layers = (0..4).map(|i| {
            let path = path / i;
            let conv = Conv2d::kaiming(&(&path / "conv"), input, widths[i], 3, strides[i], 1);
            input = widths[i];
            (conv, BatchNorm::new(&(&path / "bn"), widths[i]))
        });
        ConvNet { layers: layers.collect(), dim: widths[3] }
    }

    /// The map, each layer's shown to `behind`.
    fn grid(&self, x: &Tensor, train: bool, behind: impl Fn(&Tensor)) -> Tensor {
        let mut x = x.shallow_clone();
        for (conv, bn) in &self.layers {
            x = bn.forward(&conv.forward(&x), train).relu_();
            behind(&x);
        }
        x
    }
}

impl Encoder for ConvNet {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        precision::network(x.device(), || map_mean(&self.grid(x, train, stages::show_map)))
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn map(&self, x: &Tensor, train: bool) -> Option<Tensor> {
        Some(precision::network(x.device(), || self.grid(x, train, |_| ())).to_kind(Kind::Float))
    }
}
