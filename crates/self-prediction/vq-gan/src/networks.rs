//! The networks of VQ-GAN besides its encoder: the decoder, the patch discriminator, and a stand-in for LPIPS.

use anyhow::{Result, ensure};
use selfsup_core::check::{at_least_one, not_negative};
use selfsup_core::decoder::Decode;
use selfsup_core::encoder::{ConvNet, Encoder};
use selfsup_core::group;
use selfsup_core::layer::Conv2d;
use selfsup_core::method::ImageShape;
use selfsup_core::progress::Progress;
use selfsup_core::store::{Init, Path, Role, assign};
use selfsup_core::{Kind, Tensor, no_grad, precision};
use serde::{Deserialize, Serialize};

/// GroupNorm of at most 32 groups of four channels or more, eps 1e-6, then x sigmoid(x).
struct NormSwish {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
}

impl NormSwish {
    fn new(path: &Path, channels: i64) -> NormSwish {
        let groups = (1..=32).rev().find(|g| channels % (4 * g) == 0).unwrap_or(1);
        NormSwish {
            weight: path.variable("weight", &[channels], Role::NoDecay, Init::Const(1.0)),
            bias: path.variable("bias", &[channels], Role::NoDecay, Init::Const(0.0)),
            groups,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), 1e-6, true).silu()
    }
}

/// `x += conv(swish(norm(conv(swish(norm x)))))`.
struct Block {
    first: (NormSwish, Conv2d),
    second: (NormSwish, Conv2d),
}

impl Block {
    fn new(path: &Path, width: i64) -> Block {
        let half = |i: i64| {
            let norm = NormSwish::new(&(path / format!("norm{i}")), width);
            (norm, Conv2d::new(&(path / format!("conv{i}")), width, width, 3, 1, 1, true))
        };
        Block { first: half(1), second: half(2) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.first.1.forward(&self.first.0.forward(x));
        x + self.second.1.forward(&self.second.0.forward(&y))
    }
}

/// Residual blocks, and nearest neighbours with a convolution where the picture grows. The width halves as often.
pub struct Decoder {
    first: (Conv2d, Block),
    up: Vec<(Conv2d, Block)>,
    norm: NormSwish,
    last: Conv2d,
}

impl Decoder {
    /// From maps of `input` channels, `width` wide inside, to images of `channels` with sides `factor` times larger.
    pub fn new(path: &Path, input: i64, width: i64, factor: i64, channels: i64) -> Decoder {
        let mut from = width;
        let first = (Conv2d::new(&(path / "first"), input, width, 3, 1, 1, true), Block::new(&(path / "block"), width));
        let up = (0..factor.ilog2()).map(|i| {
            let (path, to) = (path / "up" / i, from / 2);
            let conv = Conv2d::new(&(&path / "conv"), from, to, 3, 1, 1, true);
            from = to;
            (conv, Block::new(&(&path / "block"), to))
        });
        let up: Vec<_> = up.collect();
        let norm = NormSwish::new(&(path / "norm"), from);
        Decoder { first, up, norm, last: Conv2d::new(&(path / "last"), from, channels, 3, 1, 1, true) }
    }

    /// W, the weights of the last convolution, at which the two terms of the loss are weighed.
    pub fn last_layer(&self) -> &Tensor {
        &self.last.weight
    }
}

impl Decode for Decoder {
    fn forward(&self, z: &Tensor) -> Tensor {
        precision::network(z.device(), || {
            let mut x = self.first.1.forward(&self.first.0.forward(z));
            for (conv, block) in &self.up {
                let (_, _, h, w) = x.size4().expect("maps are [B, D, h, w]");
                x = block.forward(&conv.forward(&x.upsample_nearest2d([2 * h, 2 * w], None, None)));
            }
            self.last.forward(&self.norm.forward(&x)).to_kind(Kind::Float)
        })
    }
}

/// The opponent, `[method.discriminator]` of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscriminatorConfig {
    /// w_d (the authors' ImageNet configuration: 0.8); 0: none is built.
    pub weight: f64,
    /// The epoch, possibly a fraction, from which it counts. The authors begin after 10000 to 250001 steps.
    pub start: f64,
    /// Of the first layer (Isola et al. 2017).
    pub width: i64,
    /// Those of stride 2.
    pub layers: i64,
    /// Whether lambda is equation 7; false: it is 1.
    pub adaptive: bool,
}

impl Default for DiscriminatorConfig {
    fn default() -> DiscriminatorConfig {
        DiscriminatorConfig { weight: 0.8, start: 1.0, width: 64, layers: 3, adaptive: true }
    }
}

impl DiscriminatorConfig {
    pub fn check(&self) -> Result<()> {
        not_negative("discriminator.weight", self.weight)?;
        not_negative("discriminator.start", self.start)?;
        at_least_one("discriminator.width", self.width)?;
        at_least_one("discriminator.layers", self.layers)
    }

    /// f: whether it counts.
    pub fn started(&self, at: Progress) -> bool {
        at.step as f64 >= self.start * at.steps_per_epoch() as f64
    }
}

/// A convolution 4 x 4 and, inside the network, batch norm with the batch's own statistics.
struct Layer {
    weight: Tensor,
    bias: Option<Tensor>,
    norm: Option<(Tensor, Tensor)>,
    stride: i64,
}

/// Judges patches: [B, C, S, S] -> logits [B, 1, h, w], high where it takes them for real (Isola et al. 2017).
pub struct Discriminator(Vec<Layer>);

impl Discriminator {
    /// As many convolutions of stride 2 as `config` has layers, the first `width` wide, each next one twice that (at
    /// most eight times), and two of stride 1. `None`: it has no weight in the loss.
    ///
    /// # Errors
    /// If it leaves nothing of the image.
    pub fn new(path: &Path, image: ImageShape, config: &DiscriminatorConfig) -> Result<Option<Discriminator>> {
        let DiscriminatorConfig { width, layers, .. } = *config;
        if config.weight == 0.0 {
            return Ok(None);
        }
        ensure!(
            (0..layers).fold(image.size, |side, _| side / 2) > 2,
            "discriminator.layers is {layers}, too many for images of {} pixels; expected fewer",
            image.size
        );
        let mut from = image.channels;
        let layer = |i: i64| {
            let path = path / i;
            let (first, last) = (i == 0, i == layers + 1);
            let to = if last { 1 } else { width << i.min(3) };
            // Weights N(0, 0.02), norms N(1, 0.02), biases PyTorch's, as in the authors' code.
            let weight = path.variable("weight", &[to, from, 4, 4], Role::Weight, Init::Normal(0.02));
            let bound = Init::Uniform(((from * 16) as f64).powf(-0.5));
            let bias = (first || last).then(|| path.variable("bias", &[to], Role::NoDecay, bound));
            let norm = (!first && !last).then(|| {
                let gamma = path.variable("norm.weight", &[to], Role::NoDecay, Init::Normal(0.02));
                assign(&gamma, &(gamma.detach() + 1.0));
                (gamma, path.variable("norm.bias", &[to], Role::NoDecay, Init::Const(0.0)))
            });
            from = to;
            Layer { weight, bias, norm, stride: if i < layers { 2 } else { 1 } }
        };
        Ok(Some(Discriminator((0..layers + 2).map(layer).collect())))
    }

    /// For its own term.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.judge(x, Tensor::shallow_clone)
    }

    /// For the generator's term: the gradient goes to x and to no weight.
    pub fn forward_fixed(&self, x: &Tensor) -> Tensor {
        self.judge(x, Tensor::detach)
    }

    fn judge(&self, x: &Tensor, take: impl Fn(&Tensor) -> Tensor) -> Tensor {
        precision::network(x.device(), || {
            let mut x = x.shallow_clone();
            for (i, layer) in self.0.iter().enumerate() {
                let bias = layer.bias.as_ref().map(&take);
                x = x.conv2d(&take(&layer.weight), bias.as_ref(), [layer.stride; 2], [1, 1], [1, 1], 1);
                if let Some((gamma, beta)) = &layer.norm {
                    x = group::batch_norm(&x, Some(&take(gamma)), Some(&take(beta)), None);
                }
                if i + 1 < self.0.len() {
                    x = (&x * 0.2).maximum(&x);
                }
            }
            x.to_kind(Kind::Float)
        })
    }
}

/// The distance of two pictures in a fixed network with random weights: LPIPS without what makes it LPIPS, a network
/// and weights that were trained.
pub struct Perceptual(ConvNet);

impl Perceptual {
    pub fn new(path: &Path, channels: i64) -> Perceptual {
        Perceptual(ConvNet::new(&path.frozen(), channels, true))
    }

    /// The mean over places of |f(x) - f(y)|^2, f of unit length at each place.
    pub fn distance(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let unit = |x: &Tensor| {
            let f = self.0.map(x, false).expect("a ConvNet has a map");
            &f / (f.square().sum_dim_intlist([1].as_slice(), true, None) + 1e-10).sqrt()
        };
        let x = no_grad(|| unit(x));
        (x - unit(y)).square().sum_dim_intlist([1].as_slice(), false, None).mean(None)
    }
}
