//! Encoders: images, token sequences or series in, features out.
//!
//! Parameters carry torchvision's names (ResNet) and timm's (ViT).

mod convnet;
mod pixelcnn;
mod recurrent;
mod residual;
mod resnet;
pub mod stages;
mod transformer;
mod vit;

pub use convnet::ConvNet;
pub use pixelcnn::{MaskedConv, PixelCnn};
pub use recurrent::Recurrent;
pub use residual::{Residual, ResidualStack};
pub use resnet::ResNet;
pub use transformer::{Cache, Stack, Transformer, TransformerSize};
pub use vit::{Block, Vit, sin_cos_positions};

use crate::method::Shape;
use crate::store::Path;
use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use tch::Tensor;

/// A network from images to features.
pub trait Encoder {
    /// [B, ..] -> [B, D] f32. In training, batch statistics normalise and the running ones move.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor;

    /// D.
    fn dim(&self) -> i64;

    /// The map whose mean over positions [`Encoder::forward`] gives, [B, D, h, w] f32; `None` where there is no grid.
    fn map(&self, _x: &Tensor, _train: bool) -> Option<Tensor> {
        None
    }
}

/// What an encoder was given in training and what it made of it.
pub struct Seen {
    pub x: Tensor,
    /// With their graph.
    pub features: Tensor,
}

/// Where a method's encoder leaves what it has seen, for a second loss on the same features.
pub type Tap = Rc<RefCell<Vec<Seen>>>;

/// An encoder whose features in training go into a [`Tap`] too.
pub(crate) struct Tapped {
    pub encoder: Box<dyn Encoder>,
    pub tap: Tap,
}

impl Encoder for Tapped {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let features = self.encoder.forward(x, train);
        // A target network and features for clustering have no gradient: no loss can train on them.
        if train && features.requires_grad() {
            self.tap.borrow_mut().push(Seen { x: x.shallow_clone(), features: features.shallow_clone() });
        }
        features
    }

    fn dim(&self) -> i64 {
        self.encoder.dim()
    }

    /// Nothing is left in the tap: a loss on maps has no features of views.
    fn map(&self, x: &Tensor, train: bool) -> Option<Tensor> {
        self.encoder.map(x, train)
    }
}

/// Which encoder, written as in `encoder = "resnet18-cifar"`; [`EncoderConfig::NAMES`] lists the spellings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EncoderConfig {
    /// Four convolutions for work on a CPU. Channels 32, 64, 128, 256 and strides 2, 2, 1, 1; `tiny`: channels 32, 48,
    /// 64, 128 and strides 2, 2, 2, 1.
    ConvNet { tiny: bool },
    /// ResNet (He et al. 2016) of 18, 34 or 50 layers. `cifar`: a 3 x 3 stem of stride 1 without pooling, for images
    /// of about 32 pixels (SimCLR appendix B.9). `zero`: the last norm of each block starts at 0, so that the block
    /// starts as the identity (SimSiam, Barlow Twins).
    ResNet { depth: u32, cifar: bool, zero: bool },
    /// ViT (Dosovitskiy et al. 2021) with fixed sine-cosine positions; features are the mean of the patch tokens.
    Vit { size: VitSize, patch: i64 },
    /// Transformer over token sequences with learned positions (GPT-2's blocks), causal or not; features are the mean
    /// over the tokens of the output (causal: of the middle block).
    Transformer { size: TransformerSize, causal: bool },
    /// Causal network over series: patches of steps and a GRU (CPC, van den Oord et al. 2018), all `width` wide;
    /// features are the mean of the GRU's output.
    Recurrent { width: i64, patch: i64 },
    /// PixelCNN over images or grids of codes (van den Oord et al. 2016): gated, with two stacks, or plain, with one;
    /// features are the mean over positions of the middle layer.
    PixelCnn { width: i64, layers: i64, gated: bool },
    /// The encoder of VQ-VAE (van den Oord et al. 2017), 128 wide, `tiny`: 64. The sides of its map are `factor` (a power
    /// of two) times smaller than the image's.
    Residual { tiny: bool, factor: i64 },
}

/// Width, depth and heads of a ViT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VitSize {
    /// 96 wide, 4 blocks, 4 heads: for work on a CPU.
    Micro,
    /// 192 wide, 12 blocks, 3 heads.
    Tiny,
    /// 384 wide, 12 blocks, 6 heads.
    Small,
    /// 768 wide, 12 blocks, 12 heads.
    Base,
}

impl VitSize {
    /// (width, depth, heads).
    pub fn dims(self) -> (i64, i64, i64) {
        match self {
            VitSize::Micro => (96, 4, 4),
            VitSize::Tiny => (192, 12, 3),
            VitSize::Small => (384, 12, 6),
            VitSize::Base => (768, 12, 12),
        }
    }
}

impl EncoderConfig {
    /// How encoders are written; P is any patch size.
    pub const NAMES: &str = "convnet, convnet-tiny, resnet18, resnet34, resnet50, resnet18-cifar, resnet34-cifar, \
                             resnet50-cifar, each also with -zero behind it, vit-micro/P, vit-tiny/P, vit-small/P, \
                             vit-base/P; for token sequences transformer-nano, -micro, -mini, -base, -igpt-s, each \
                             also with -causal behind it; for series gru-WIDTH/P; for images and grids of \
                             codes pixelcnn-WIDTHxLAYERS, also with -plain behind it; for images \
                             too conv-residual, conv-residual-tiny, each also with /F behind it (F = 2, 4, 8, 16)";

    /// The kind of data it takes.
    pub fn reads(self) -> &'static str {
        match self {
            EncoderConfig::ConvNet { .. } | EncoderConfig::ResNet { .. } | EncoderConfig::Vit { .. } => "images",
            EncoderConfig::Residual { .. } => "images",
            EncoderConfig::PixelCnn { .. } => "images or grids of codes",
            EncoderConfig::Transformer { .. } => "token sequences",
            EncoderConfig::Recurrent { .. } => "series",
        }
    }
}

impl FromStr for EncoderConfig {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<EncoderConfig> {
        let unknown = || anyhow::anyhow!("unknown encoder `{name}`: expected one of {}", EncoderConfig::NAMES);
        Ok(match name {
            "convnet" => EncoderConfig::ConvNet { tiny: false },
            "convnet-tiny" => EncoderConfig::ConvNet { tiny: true },
            _ if name.starts_with("resnet") => {
                let (rest, zero) = name.strip_suffix("-zero").map_or((name, false), |rest| (rest, true));
                let (rest, cifar) = rest.strip_suffix("-cifar").map_or((rest, false), |rest| (rest, true));
                let depth = rest["resnet".len()..].parse().map_err(|_| unknown())?;
                ensure!(matches!(depth, 18 | 34 | 50), unknown());
                EncoderConfig::ResNet { depth, cifar, zero }
            }
            _ if name.starts_with("pixelcnn-") => {
                let rest = &name["pixelcnn-".len()..];
                let (rest, gated) = rest.strip_suffix("-plain").map_or((rest, true), |rest| (rest, false));
                let number = |text: &str| text.parse().ok().filter(|&n: &i64| n > 0);
                let (width, layers) = rest.split_once('x').ok_or_else(unknown)?;
                let (Some(width), Some(layers)) = (number(width), number(layers)) else { bail!(unknown()) };
                EncoderConfig::PixelCnn { width, layers, gated }
            }
            _ if name.starts_with("conv-residual") => {
                let (rest, factor) = name["conv-residual".len()..].split_once('/').map_or_else(
                    || Ok((&name["conv-residual".len()..], 4)),
                    |(rest, factor)| factor.parse().map(|factor| (rest, factor)).map_err(|_| unknown()),
                )?;
                ensure!(matches!(rest, "" | "-tiny") && matches!(factor, 2 | 4 | 8 | 16), unknown());
                EncoderConfig::Residual { tiny: rest == "-tiny", factor }
            }
            _ if name.starts_with("gru-") => {
                let number = |text: &str| text.parse().ok().filter(|&n: &i64| n > 0);
                let (width, patch) = name["gru-".len()..].split_once('/').ok_or_else(unknown)?;
                let (Some(width), Some(patch)) = (number(width), number(patch)) else { bail!(unknown()) };
                EncoderConfig::Recurrent { width, patch }
            }
            _ if name.starts_with("transformer-") => {
                let rest = &name["transformer-".len()..];
                let (size, causal) = rest.strip_suffix("-causal").map_or((rest, false), |rest| (rest, true));
                let size = TransformerSize::named(size).ok_or_else(unknown)?;
                EncoderConfig::Transformer { size, causal }
            }
            _ => {
                let (size, patch) = name.split_once('/').ok_or_else(unknown)?;
                let size = match size {
                    "vit-micro" => VitSize::Micro,
                    "vit-tiny" => VitSize::Tiny,
                    "vit-small" => VitSize::Small,
                    "vit-base" => VitSize::Base,
                    _ => bail!(unknown()),
                };
                let patch = patch.parse().ok().filter(|&p| p > 0).ok_or_else(unknown)?;
                EncoderConfig::Vit { size, patch }
            }
        })
    }
}

impl fmt::Display for EncoderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncoderConfig::ConvNet { tiny } => f.write_str(if *tiny { "convnet-tiny" } else { "convnet" }),
            EncoderConfig::ResNet { depth, cifar, zero } => {
                let (stem, start) = (if *cifar { "-cifar" } else { "" }, if *zero { "-zero" } else { "" });
                write!(f, "resnet{depth}{stem}{start}")
            }
            EncoderConfig::Vit { size, patch } => {
                let size = match size {
                    VitSize::Micro => "micro",
                    VitSize::Tiny => "tiny",
                    VitSize::Small => "small",
                    VitSize::Base => "base",
                };
                write!(f, "vit-{size}/{patch}")
            }
            EncoderConfig::Transformer { size, causal } => {
                write!(f, "transformer-{}{}", size.name(), if *causal { "-causal" } else { "" })
            }
            EncoderConfig::Residual { tiny, factor } => {
                write!(f, "conv-residual{}", if *tiny { "-tiny" } else { "" })?;
                if *factor == 4 { Ok(()) } else { write!(f, "/{factor}") }
            }
            EncoderConfig::Recurrent { width, patch } => write!(f, "gru-{width}/{patch}"),
            EncoderConfig::PixelCnn { width, layers, gated } => {
                write!(f, "pixelcnn-{width}x{layers}{}", if *gated { "" } else { "-plain" })
            }
        }
    }
}

impl TryFrom<String> for EncoderConfig {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<EncoderConfig> {
        name.parse()
    }
}

impl From<EncoderConfig> for String {
    fn from(config: EncoderConfig) -> String {
        config.to_string()
    }
}

/// Builds an encoder below `path`.
///
/// # Errors
/// If it reads another kind of data, or the image cannot be cut into its patches.
pub fn build(path: &Path, config: EncoderConfig, shape: Shape) -> Result<Box<dyn Encoder>> {
    Ok(match (config, shape) {
        (EncoderConfig::ConvNet { tiny }, Shape::Image(image)) => Box::new(ConvNet::new(path, image.channels, tiny)),
        (EncoderConfig::ResNet { depth, cifar, zero }, Shape::Image(image)) => {
            Box::new(ResNet::new(path, image.channels, depth, cifar, zero))
        }
        (EncoderConfig::Vit { size, patch }, Shape::Image(image)) => Box::new(Vit::new(path, image, size, patch)?),
        (EncoderConfig::Transformer { size, causal }, Shape::Tokens(tokens)) => {
            Box::new(Transformer::new(path, tokens, size, causal))
        }
        (EncoderConfig::Recurrent { width, patch }, Shape::Series(series)) => {
            Box::new(Recurrent::new(path, series, width, patch)?)
        }
        (EncoderConfig::PixelCnn { width, layers, gated }, Shape::Image(_) | Shape::Tokens(_)) => {
            Box::new(PixelCnn::new(path, shape, width, layers, gated)?)
        }
        (EncoderConfig::Residual { tiny, factor }, Shape::Image(image)) => {
            Box::new(Residual::new(path, image, tiny, factor)?)
        }
        _ => bail!(
            "the encoder {config} reads {}, but the data are {}: choose {}",
            config.reads(),
            shape.plural(),
            match shape {
                Shape::Image(_) => "a convnet, resnet or vit",
                Shape::Tokens(_) => "encoder=transformer-micro or another transformer",
                Shape::Series(_) => "encoder=gru-64/2",
            }
        ),
    })
}

#[cfg(test)]
mod tests;
