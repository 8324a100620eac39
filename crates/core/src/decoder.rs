//! A decoder from a map of features to images: VQ-VAE's encoder (`conv-residual`) the other way round.

use crate::data::Normalisation;
use crate::encoder::{Encoder, ResidualStack};
use crate::layer::{Conv2d, ConvTranspose2d};
use crate::method::ImageShape;
use crate::precision;
use crate::store::Path;
use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor, no_grad};

/// What makes an image of a map.
pub trait Decode {
    /// [B, input, h, w] -> [B, C, h factor, w factor] f32, in the normalised space of the images.
    fn forward(&self, z: &Tensor) -> Tensor;
}

/// A convolution 3 x 3, two residual blocks, transposed convolutions 4 x 4 of stride 2 (van den Oord et al. 2017,
/// section 4.1). The output is linear, in the normalised space of the images.
pub struct Decoder {
    conv: Conv2d,
    blocks: ResidualStack,
    up: Vec<ConvTranspose2d>,
}

impl Decoder {
    /// From maps of `input` channels to images of `channels`, the sides `factor` (a power of two) times larger;
    /// `width` wide, half of that before the last layer.
    pub fn new(path: &Path, input: i64, width: i64, factor: i64, channels: i64) -> Decoder {
        let stages = factor.ilog2();
        let mut from = width;
        let up = (0..stages).map(|i| {
            let to = match stages - i {
                1 => channels,
                2 => (width / 2).max(1),
                _ => width,
            };
            let conv = ConvTranspose2d::new(&(path / "up" / i), from, to, 4, 2, 1);
            from = to;
            conv
        });
        Decoder {
            up: up.collect(),
            conv: Conv2d::new(&(path / "conv"), input, width, 3, 1, 1, true),
            blocks: ResidualStack::new(&(path / "blocks"), width, (width / 4).max(1)),
        }
    }
}

impl Decode for Decoder {
    fn forward(&self, z: &Tensor) -> Tensor {
        precision::network(z.device(), || {
            let mut x = self.blocks.forward(&self.conv.forward(z));
            for (i, up) in self.up.iter().enumerate() {
                if i > 0 {
                    x = x.relu();
                }
                x = up.forward(&x);
            }
            x.to_kind(Kind::Float)
        })
    }
}

/// How many times smaller the sides of an encoder's map are than the image's: a power of two, so that a decoder can
/// bring it back.
///
/// # Errors
/// If the encoder has no map, or one that an image of this size does not come back from.
pub fn factor(encoder: &dyn Encoder, image: ImageShape, device: Device) -> Result<i64> {
    let ImageShape { channels, size } = image;
    let x = Tensor::zeros([1, channels, size, size], (Kind::Float, device));
    let advice = "choose encoder=conv-residual or another that keeps a map";
    let map =
        no_grad(|| encoder.map(&x, false)).with_context(|| format!("the encoder has no map of features: {advice}"))?;
    let side = map.size()[2];
    let factor = size / side;
    ensure!(
        side * factor == size && factor >= 2 && factor & (factor - 1) == 0,
        "the encoder's map of an image of {size} pixels has {side}, and no power of two leads back: {advice}, \
         or another size"
    );
    Ok(factor)
}

/// How far a reconstruction is from its image: the mean squared error of pixels over the variance of all pixels of the
/// data, whatever the normalisation. A constant picture of the mean colour has 1.
pub struct PixelError {
    /// Of channel c: std_c^2 / variance, [1, C, 1, 1].
    weights: Tensor,
}

impl PixelError {
    /// For images normalised so. The variance of all pixels is the mean of the channels' variances and the variance of
    /// their means.
    pub fn new(normalisation: &Normalisation, device: Device) -> PixelError {
        let mean = Tensor::from_slice(&normalisation.mean).to_kind(Kind::Double);
        let variance = Tensor::from_slice(&normalisation.std).to_kind(Kind::Double).square();
        let all = variance.mean(None) + (&mean - mean.mean(None)).square().mean(None);
        PixelError { weights: (variance / all).to_kind(Kind::Float).view([1, -1, 1, 1]).to_device(device) }
    }

    /// Of images x and y, [B, C, S, S] both: a scalar.
    pub fn of(&self, x: &Tensor, y: &Tensor) -> Tensor {
        ((x - y).square() * &self.weights).mean(None)
    }
}

/// The variance of the Laplacian of images [B, C, S, S]: high where neighbours differ, low in a blurred picture.
pub fn sharpness(x: &Tensor) -> Tensor {
    let (_, _, h, w) = x.size4().expect("images are [B, C, S, S]");
    let kernel = Tensor::from_slice(&[0.0f32, 1.0, 0.0, 1.0, -4.0, 1.0, 0.0, 1.0, 0.0]).view([1, 1, 3, 3]);
    let kernel = kernel.to_kind(x.kind()).to_device(x.device());
    x.reshape([-1, 1, h, w]).conv2d(&kernel, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1).var(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{EncoderConfig, build};
    use crate::method::Shape;
    use crate::store::Store;

    #[test]
    fn the_decoder_gives_an_image_of_the_size_that_was_encoded() {
        for (name, size, expected) in [
            ("conv-residual-tiny", 28, 4),
            ("conv-residual", 32, 4),
            ("conv-residual-tiny/8", 32, 8),
            ("conv-residual-tiny/2", 28, 2),
            ("convnet", 28, 4),
            ("convnet-tiny", 32, 8),
        ] {
            let store = Store::new(0, Device::Cpu);
            let image = ImageShape { channels: 3, size };
            let config: EncoderConfig = name.parse().expect("a name");
            let encoder = build(&(store.root() / "encoder"), config, Shape::Image(image)).expect("an encoder");
            let factor = factor(&*encoder, image, Device::Cpu).expect("a factor");
            assert_eq!(factor, expected, "{name}");
            let decoder = Decoder::new(&(store.root() / "decoder"), encoder.dim(), 16, factor, 3);
            let x = Tensor::zeros([2, 3, size, size], (Kind::Float, Device::Cpu));
            assert_eq!(decoder.forward(&encoder.map(&x, false).expect("a map")).size(), x.size(), "{name}");
        }
    }

    #[test]
    fn the_narrowest_decoder_gives_images_too() {
        let store = Store::new(0, Device::Cpu);
        let decoder = Decoder::new(&store.root(), 2, 1, 4, 3);
        let z = Tensor::ones([1, 2, 3, 3], (Kind::Float, Device::Cpu));
        assert_eq!(decoder.forward(&z).size(), [1, 3, 12, 12]);
    }

    #[test]
    fn the_error_of_the_mean_colour_is_one_and_that_of_the_notebook_for_cifar() {
        // CIFAR-10: the example of VQ-VAE's authors has a variance of 0.06328.
        let normalisation = Normalisation { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] };
        let error = PixelError::new(&normalisation, Device::Cpu);
        let variance = 0.2470f64.powi(2) / error.weights.double_value(&[0, 0, 0, 0]);
        assert!((variance - 0.06328).abs() < 5e-5, "{variance}");
        // Two grey pixels, 0 and 1, of mean 0.5 and deviation 0.5, against their mean.
        let grey = Normalisation { mean: vec![0.5], std: vec![0.5] };
        let x = Tensor::from_slice(&[-1.0f32, 1.0]).view([1, 1, 1, 2]);
        assert_eq!(PixelError::new(&grey, Device::Cpu).of(&x, &x.zeros_like()).double_value(&[]), 1.0);
    }

    #[test]
    fn sharpness_is_that_of_the_second_differences() {
        let f = |f: &dyn Fn(f32, f32) -> f32| {
            let values: Vec<f32> = (0..100).map(|i| f((i / 10) as f32, (i % 10) as f32)).collect();
            sharpness(&Tensor::from_slice(&values).view([1, 1, 10, 10])).double_value(&[])
        };
        // A plane has none; a chessboard of 1 and -1 has +-8, as often the one as the other; half of it a quarter.
        assert_eq!(f(&|y, x| 2.0 * y - 3.0 * x + 1.0), 0.0);
        assert_eq!(f(&|y, x| 1.0 - 2.0 * ((x + y) % 2.0)), 64.0);
        assert_eq!(f(&|y, x| 0.5 - (x + y) % 2.0), 16.0);
    }

    #[test]
    fn a_map_that_no_decoder_brings_back_is_refused() {
        let refused = |name: &str, size| {
            let store = Store::new(0, Device::Cpu);
            let image = ImageShape { channels: 1, size };
            let config: EncoderConfig = name.parse().expect("a name");
            let encoder = build(&(store.root() / "encoder"), config, Shape::Image(image)).expect("an encoder");
            factor(&*encoder, image, Device::Cpu).expect_err("a refusal").to_string()
        };
        // 28 becomes 14, 7, 4.
        assert!(refused("convnet-tiny", 28).contains("28 pixels has 4"));
        assert!(refused("conv-residual", 30).contains("30 pixels has 7"));
        assert!(refused("vit-micro/4", 28).contains("no map"));
    }
}
