//! ResNet: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", 2016, arXiv 1512.03385.
//!
//! As in torchvision the stride of a bottleneck lies in its 3 x 3 convolution, and convolutions start Kaiming-normal
//! over the fan-out.

use super::{Encoder, stages};
use crate::layer::{BatchNorm, Conv2d};
use crate::precision;
use crate::store::Path;
use crate::tensor::map_mean;
use tch::{Kind, Tensor};

/// Convolutions of a block, each with its BatchNorm; the last has no ReLU before the sum.
struct Block {
    body: Vec<(Conv2d, BatchNorm)>,
    shortcut: Option<(Conv2d, BatchNorm)>,
}

impl Block {
    /// Two 3 x 3 convolutions, or a bottleneck of 1 x 1, 3 x 3 and 1 x 1 with four times the width at its end.
    fn new(path: &Path, input: i64, width: i64, stride: i64, bottleneck: bool, zero: bool) -> Block {
        let output = if bottleneck { 4 * width } else { width };
        let shapes = if bottleneck {
            vec![(input, width, 1, 1), (width, width, 3, stride), (width, output, 1, 1)]
        } else {
            vec![(input, width, 3, stride), (width, width, 3, 1)]
        };
        let last = shapes.len() - 1;
        let body = shapes.into_iter().enumerate().map(|(i, (from, to, kernel, stride))| {
            let conv = Conv2d::kaiming(&(path / format!("conv{}", i + 1)), from, to, kernel, stride, kernel / 2);
            let weight = if zero && i == last { 0.0 } else { 1.0 };
            (conv, BatchNorm::with_weight(&(path / format!("bn{}", i + 1)), to, weight))
        });
        let body = body.collect();
        let shortcut = (stride != 1 || input != output).then(|| {
            let path = path / "downsample";
            (Conv2d::kaiming(&(&path / 0), input, output, 1, stride, 0), BatchNorm::new(&(&path / 1), output))
        });
        Block { body, shortcut }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let shortcut = match &self.shortcut {
            Some((conv, bn)) => bn.forward(&conv.forward(x), train),
            None => x.shallow_clone(),
        };
        let mut y = x.shallow_clone();
        for (i, (conv, bn)) in self.body.iter().enumerate() {
            y = bn.forward(&conv.forward(&y), train);
            if i + 1 < self.body.len() {
                y = y.relu_();
            }
        }
        (y + shortcut).relu_()
    }
}

/// A ResNet without its classifier; features are the mean over positions.
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    pool: bool,
    stages: [Vec<Block>; 4],
    dim: i64,
}

impl ResNet {
    /// `depth` is 18, 34 or 50. `cifar`: 3 x 3 stem of stride 1, no pooling; otherwise 7 x 7 of stride 2 and pooling.
    /// `zero`: the last norm of each block starts at 0, so that the block starts as the identity.
    pub fn new(path: &Path, channels: i64, depth: u32, cifar: bool, zero: bool) -> ResNet {
        let blocks = if depth == 18 { [2, 2, 2, 2] } else { [3, 4, 6, 3] };
        let bottleneck = depth == 50;
        let (kernel, stride) = if cifar { (3, 1) } else { (7, 2) };
        let conv1 = Conv2d::kaiming(&(path / "conv1"), channels, 64, kernel, stride, kernel / 2);
        let bn1 = BatchNorm::new(&(path / "bn1"), 64);
        let mut input = 64;
        let stages = [0, 1, 2, 3].map(|stage| {
            let width = 64 << stage;
            let block = |i: i64| {
                let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                let path = path / format!("layer{}", stage + 1) / i;
                let block = Block::new(&path, input, width, stride, bottleneck, zero);
                input = if bottleneck { 4 * width } else { width };
                block
            };
            (0..blocks[stage]).map(block).collect()
        });
        ResNet { conv1, bn1, pool: !cifar, stages, dim: input }
    }

    /// The map, that of the last block of each stage shown to `behind`.
    fn grid(&self, x: &Tensor, train: bool, behind: impl Fn(&Tensor)) -> Tensor {
        let mut x = self.bn1.forward(&self.conv1.forward(x), train).relu_();
        if self.pool {
            x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        }
        for stage in &self.stages {
            x = stage.iter().fold(x, |x, block| block.forward(&x, train));
            behind(&x);
        }
        x
    }
}

impl Encoder for ResNet {
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
