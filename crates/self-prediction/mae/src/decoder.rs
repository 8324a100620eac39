//! The decoder: from encoded tokens to a prediction for each patch.

use crate::mask::Mask;
use selfsup_core::encoder::{Block, Encoder, Vit, sin_cos_positions};
use selfsup_core::layer::{LayerNorm, Linear};
use selfsup_core::method::ImageShape;
use selfsup_core::store::{Init, Path, Role};
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

/// Width (table 1b), blocks (table 1a) and heads of the decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderConfig {
    pub width: i64,
    pub depth: i64,
    pub heads: i64,
}

impl Default for DecoderConfig {
    fn default() -> DecoderConfig {
        DecoderConfig { width: 512, depth: 8, heads: 16 }
    }
}

/// Blocks over all tokens, with positions of their own.
pub(crate) struct Decoder {
    embed: Linear,
    mask_token: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Decoder {
    pub(crate) fn new(path: &Path, config: &DecoderConfig, encoder: &Vit, image: ImageShape) -> Decoder {
        let DecoderConfig { width, depth, heads } = *config;
        let patch = encoder.patch();
        Decoder {
            embed: Linear::xavier(&(path / "embed"), encoder.dim(), width),
            mask_token: path.variable("mask_token", &[1, 1, width], Role::NoDecay, Init::Normal(0.02)),
            positions: path.buffer("pos_embed", &sin_cos_positions(image.size / patch, width).unsqueeze(0)),
            blocks: (0..depth).map(|i| Block::new(&(path / "blocks" / i), width, heads)).collect(),
            norm: LayerNorm::new(&(path / "norm"), width, 1e-6),
            head: Linear::xavier(&(path / "head"), width, patch * patch * image.channels),
        }
    }

    /// Encoded tokens, class token first, to a prediction for each patch: [B, 1 + kept, D] -> [B, L, p p C] f32.
    /// Without a mask all L tokens are there.
    pub(crate) fn forward(&self, y: &Tensor, mask: Option<&Mask>) -> Tensor {
        let y = self.embed.forward(y).to_kind(Kind::Float);
        let (class, kept) = (y.narrow(1, 0, 1), y.narrow(1, 1, y.size()[1] - 1));
        let all = mask.map_or(kept.shallow_clone(), |mask| mask.restore(&kept, &self.mask_token));
        let mut y = Tensor::cat(&[class, all + &self.positions], 1);
        for block in &self.blocks {
            y = block.forward(&y);
        }
        let y = self.norm.forward(&y.narrow(1, 1, y.size()[1] - 1));
        self.head.forward(&y).to_kind(Kind::Float)
    }
}
