//! Vision transformer: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, arXiv 2010.11929, with the fixed
//! positions and initial values of MAE's code (He et al. 2022, arXiv 2111.06377).

use super::{Encoder, VitSize, stages};
use crate::layer::{LayerNorm, Linear};
use crate::method::ImageShape;
use crate::precision;
use crate::store::{Init, Path, Role};
use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

const EPS: f64 = 1e-6;

/// A transformer block with the norm in front: `x += attention(norm x)`, `x += mlp(norm x)`.
pub struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
}

impl Block {
    /// `heads` must divide `width`; the MLP is four times as wide.
    pub fn new(path: &Path, width: i64, heads: i64) -> Block {
        let (attn, mlp) = (path / "attn", path / "mlp");
        Block {
            norm1: LayerNorm::new(&(path / "norm1"), width, EPS),
            qkv: Linear::xavier(&(&attn / "qkv"), width, 3 * width),
            proj: Linear::xavier(&(&attn / "proj"), width, width),
            norm2: LayerNorm::new(&(path / "norm2"), width, EPS),
            fc1: Linear::xavier(&(&mlp / "fc1"), width, 4 * width),
            fc2: Linear::xavier(&(&mlp / "fc2"), 4 * width, width),
            heads,
        }
    }

    /// GPT-2's initial values: weights N(0, 0.02), biases 0, the two projections into the residual stream of `depth`
    /// blocks N(0, 0.02 / sqrt(2 depth)).
    pub(super) fn gpt(path: &Path, width: i64, heads: i64, depth: i64) -> Block {
        let (attn, mlp) = (path / "attn", path / "mlp");
        let residual = 0.02 / (2.0 * depth as f64).sqrt();
        Block {
            norm1: LayerNorm::new(&(path / "norm1"), width, 1e-5),
            qkv: Linear::normal(&(&attn / "qkv"), width, 3 * width, 0.02),
            proj: Linear::normal(&(&attn / "proj"), width, width, residual),
            norm2: LayerNorm::new(&(path / "norm2"), width, 1e-5),
            fc1: Linear::normal(&(&mlp / "fc1"), width, 4 * width, 0.02),
            fc2: Linear::normal(&(&mlp / "fc2"), 4 * width, width, residual),
            heads,
        }
    }

    /// [B, T, D] -> [B, T, D], every token seeing all.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_as(x, Sight::All, 0.0)
    }

    /// [B, T, D] -> [B, T, D]; `dropout` of attention and of what enters the residual stream.
    pub(super) fn forward_as(&self, x: &Tensor, sight: Sight, dropout: f64) -> Tensor {
        let [q, k, v] = self.heads_of(x);
        let mask = match sight {
            Sight::Keys(seen) => Some(seen.unsqueeze(1).unsqueeze(1)), // [B, 1, 1, T]
            Sight::All | Sight::Causal => None,
        };
        let causal = matches!(sight, Sight::Causal);
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, mask.as_ref(), dropout, causal, None, false);
        self.residual(x, &y, dropout)
    }

    /// Goes on behind the keys and values of earlier tokens, and gives those of all.
    pub(super) fn step(&self, x: &Tensor, past: Option<(Tensor, Tensor)>) -> (Tensor, (Tensor, Tensor)) {
        let [q, mut k, mut v] = self.heads_of(x);
        let first = past.is_none();
        if let Some((keys, values)) = past {
            assert_eq!(x.size()[1], 1, "behind earlier tokens comes one at a time");
            (k, v) = (Tensor::cat(&[keys, k], 2), Tensor::cat(&[values, v], 2));
        }
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, first, None, false);
        (self.residual(x, &y, 0.0), (k, v))
    }

    /// The norm that stands in front of the block.
    pub(super) fn first_norm(&self) -> &LayerNorm {
        &self.norm1
    }

    /// Queries, keys and values, [B, heads, T, D / heads] each.
    fn heads_of(&self, x: &Tensor) -> [Tensor; 3] {
        let (b, t, d) = x.size3().expect("tokens are [B, T, D]");
        let qkv = self.qkv.forward(&self.norm1.forward(x)).view([b, t, 3, self.heads, d / self.heads]);
        let qkv = qkv.permute([2, 0, 3, 1, 4]); // [3, B, heads, T, D / heads]
        [qkv.get(0), qkv.get(1), qkv.get(2)]
    }

    /// What attention gave, [B, heads, T, D / heads], and the MLP, added to the stream x [B, T, D].
    fn residual(&self, x: &Tensor, y: &Tensor, dropout: f64) -> Tensor {
        let drop = |x: Tensor| if dropout > 0.0 { x.dropout(dropout, true) } else { x };
        let x = x + drop(self.proj.forward(&y.transpose(1, 2).reshape(x.size())));
        &x + drop(self.fc2.forward(&self.fc1.forward(&self.norm2.forward(&x)).gelu("none")))
    }
}

/// What a token of a block may look at.
#[derive(Clone, Copy)]
pub(super) enum Sight<'a> {
    All,
    /// Itself and what stands before it.
    Causal,
    /// The tokens marked in [B, T] bool.
    Keys(&'a Tensor),
}

/// Fixed two-dimensional sine-cosine positions, [grid x grid, width] f32, rows of the grid first.
///
/// Half of the channels stand for the column and half for the row (the order of MAE's code), each half as
/// [sin | cos] with frequencies 10000^(-2i / (width / 2)). `width` must be a multiple of 4.
pub fn sin_cos_positions(grid: i64, width: i64) -> Tensor {
    let quarter = width / 4;
    let mut values = Vec::with_capacity((grid * grid * width) as usize);
    for row in 0..grid {
        for column in 0..grid {
            for position in [column, row] {
                let angle = |i: i64| position as f64 / 10000f64.powf(i as f64 / quarter as f64);
                values.extend((0..quarter).map(|i| angle(i).sin() as f32));
                values.extend((0..quarter).map(|i| angle(i).cos() as f32));
            }
        }
    }
    Tensor::from_slice(&values).view([grid * grid, width])
}

/// The encoder; features are the mean of the patch tokens after the last norm.
pub struct Vit {
    proj_weight: Tensor,
    proj_bias: Tensor,
    cls_token: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    patch: i64,
    width: i64,
}

impl Vit {
    /// # Errors
    /// If the image's size is not a multiple of the patch.
    pub fn new(path: &Path, image: ImageShape, size: VitSize, patch: i64) -> Result<Vit> {
        let ImageShape { channels, size: side } = image;
        ensure!(
            side % patch == 0,
            "an image of {side} pixels cannot be cut into patches of {patch}: choose a patch that divides {side}"
        );
        let (width, depth, heads) = size.dims();
        let grid = side / patch;
        let fan_in = channels * patch * patch;
        let xavier = Init::Uniform((6.0 / (fan_in + width) as f64).sqrt());
        let proj = path / "patch_embed" / "proj";
        Ok(Vit {
            proj_weight: proj.variable("weight", &[width, channels, patch, patch], Role::Weight, xavier),
            proj_bias: proj.variable("bias", &[width], Role::NoDecay, Init::Const(0.0)),
            cls_token: path.variable("cls_token", &[1, 1, width], Role::NoDecay, Init::Normal(0.02)),
            positions: path.buffer("pos_embed", &sin_cos_positions(grid, width).unsqueeze(0)),
            blocks: (0..depth).map(|i| Block::new(&(path / "blocks" / i), width, heads)).collect(),
            norm: LayerNorm::new(&(path / "norm"), width, EPS),
            patch,
            width,
        })
    }

    /// Patches as tokens, positions added: [B, C, S, S] -> [B, L, D], rows of the grid first.
    pub fn tokens(&self, x: &Tensor) -> Tensor {
        let (w, b) = (&self.proj_weight, Some(&self.proj_bias));
        let x = x.conv2d(w, b, [self.patch; 2], [0, 0], [1, 1], 1); // [B, D, grid, grid]
        x.flatten(2, 3).transpose(1, 2) + &self.positions
    }

    /// The transformer over a class token (which has no position) and the given tokens:
    /// [B, n, D] -> [B, 1 + n, D] f32.
    pub fn encode(&self, tokens: &Tensor) -> Tensor {
        self.encode_showing(tokens, |_| ())
    }

    /// The same, the stream [B, 1 + n, D] behind each block shown to `behind`.
    fn encode_showing(&self, tokens: &Tensor, behind: impl Fn(&Tensor)) -> Tensor {
        let (b, _, d) = tokens.size3().expect("tokens are [B, n, D]");
        let mut x = Tensor::cat(&[self.cls_token.expand([b, 1, d], false), tokens.to_kind(Kind::Float)], 1);
        for block in &self.blocks {
            x = block.forward(&x);
            behind(&x);
        }
        self.norm.forward(&x).to_kind(Kind::Float)
    }

    /// The patch tokens of [B, 1 + L, D] at their places, [B, D, grid, grid].
    fn grid(&self, x: &Tensor) -> Tensor {
        let side = (self.length() as f64).sqrt().round() as i64;
        x.narrow(1, 1, self.length()).transpose(1, 2).unflatten(2, [side, side])
    }

    /// The positions that [`Vit::tokens`] adds, [1, L, D].
    pub fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// Tokens of an image.
    pub fn length(&self) -> i64 {
        self.positions.size()[1]
    }

    /// Height and width of a patch in pixels.
    pub fn patch(&self) -> i64 {
        self.patch
    }
}

impl Encoder for Vit {
    fn forward(&self, x: &Tensor, _train: bool) -> Tensor {
        precision::network(x.device(), || {
            let y = self.encode_showing(&self.tokens(x), |x| stages::show_map(&self.grid(x)));
            y.narrow(1, 1, self.length()).mean_dim([1].as_slice(), false, Kind::Float) // [B, D]
        })
    }

    fn dim(&self) -> i64 {
        self.width
    }
}
