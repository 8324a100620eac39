//! Transformer over tokens with learned positions: GPT-2's blocks and initial values (Radford et al. 2019), causal for
//! GPT, seeing both sides for BERT (Devlin et al. 2019, arXiv 1810.04805).

use super::vit::{Block, Sight};
use super::{Encoder, stages};
use crate::layer::LayerNorm;
use crate::method::TokenShape;
use crate::precision;
use crate::store::{Init, Path, Role};
use tch::{Kind, Tensor};

/// Width, depth and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransformerSize {
    /// 64 wide, 6 blocks, 4 heads: for a few hundred image codes on a CPU.
    Nano,
    /// 128 wide, 4 blocks, 4 heads: nanoGPT's setting for a CPU.
    Micro,
    /// 384 wide, 6 blocks, 6 heads: nanoGPT's setting for the characters of Shakespeare on a GPU.
    Mini,
    /// 768 wide, 12 blocks, 12 heads: GPT-2 small, BERT base.
    Base,
    /// 512 wide, 24 blocks, 8 heads: Image-GPT S.
    IgptS,
}

impl TransformerSize {
    /// All of them.
    pub const ALL: [TransformerSize; 5] = [
        TransformerSize::Nano,
        TransformerSize::Micro,
        TransformerSize::Mini,
        TransformerSize::Base,
        TransformerSize::IgptS,
    ];

    /// As it is written behind `transformer-`.
    pub fn name(self) -> &'static str {
        match self {
            TransformerSize::Nano => "nano",
            TransformerSize::Micro => "micro",
            TransformerSize::Mini => "mini",
            TransformerSize::Base => "base",
            TransformerSize::IgptS => "igpt-s",
        }
    }

    /// The size of that name.
    pub fn named(name: &str) -> Option<TransformerSize> {
        TransformerSize::ALL.into_iter().find(|size| size.name() == name)
    }

    /// (width, depth, heads).
    pub fn dims(self) -> (i64, i64, i64) {
        match self {
            TransformerSize::Nano => (64, 6, 4),
            TransformerSize::Micro => (128, 4, 4),
            TransformerSize::Mini => (384, 6, 6),
            TransformerSize::Base => (768, 12, 12),
            TransformerSize::IgptS => (512, 24, 8),
        }
    }
}

/// Keys and values of the tokens that a causal stack has seen, one pair a block: what sampling need not compute again.
#[derive(Default)]
pub struct Cache(pub(super) Vec<(Tensor, Tensor)>);

impl Cache {
    /// The number of tokens seen.
    pub fn len(&self) -> i64 {
        self.0.first().map_or(0, |(k, _)| k.size()[2])
    }

    /// Whether no token was seen yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Blocks over embedded tokens, with learned positions and a norm behind them.
pub struct Stack {
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    causal: bool,
}

impl Stack {
    /// For at most `length` tokens of `width` values; weights N(0, 0.02), the projections into the residual stream
    /// narrower by the root of their number (2 a block).
    pub fn new(path: &Path, length: i64, (width, depth, heads): (i64, i64, i64), causal: bool) -> Stack {
        Stack {
            positions: path.variable("positions", &[1, length, width], Role::Weight, Init::Normal(0.02)),
            blocks: (0..depth).map(|i| Block::gpt(&(path / "blocks" / i), width, heads, depth)).collect(),
            norm: LayerNorm::new(&(path / "norm"), width, 1e-5),
            causal,
        }
    }

    /// The most tokens that it takes.
    pub fn length(&self) -> i64 {
        self.positions.size()[1]
    }

    /// The number of blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// All blocks and the norm: embedded tokens x [B, T, D] -> [B, T, D] f32. `seen` [B, T] bool says which tokens may
    /// be looked at (a stack that sees both sides needs it where sequences are padded; in a causal one padding lies
    /// behind all that could see it). `dropout` is for training; 0 switches it off.
    pub fn forward(&self, x: &Tensor, seen: Option<&Tensor>, dropout: f64) -> Tensor {
        let x = self.blocks(self.place(x, 0), seen, dropout, self.depth());
        self.norm.forward(&x).to_kind(Kind::Float)
    }

    /// The stream of activations behind `depth` blocks, as the next block's norm (behind the last one: the stack's)
    /// hands it on: [B, T, D] -> [B, T, D] f32 (Image-GPT's probe).
    pub fn hidden(&self, x: &Tensor, seen: Option<&Tensor>, depth: usize) -> Tensor {
        let x = self.blocks(self.place(x, 0), seen, 0.0, depth);
        let norm = self.blocks.get(depth).map_or(&self.norm, Block::first_norm);
        norm.forward(&x).to_kind(Kind::Float)
    }

    /// Goes on behind the tokens of `cache`, which must be empty or followed by one token at a time:
    /// x [B, n, D] -> [B, n, D] f32. The same numbers as [`Stack::forward`] of all tokens gives at these places.
    pub fn step(&self, x: &Tensor, cache: &mut Cache) -> Tensor {
        assert!(self.causal, "only a causal stack can go on");
        let mut x = self.place(x, cache.len());
        let first = cache.is_empty();
        for (i, block) in self.blocks.iter().enumerate() {
            let past = (!first).then(|| (cache.0[i].0.shallow_clone(), cache.0[i].1.shallow_clone()));
            let (y, pair) = block.step(&x, past);
            x = y;
            if first { cache.0.push(pair) } else { cache.0[i] = pair }
        }
        self.norm.forward(&x).to_kind(Kind::Float)
    }

    fn place(&self, x: &Tensor, from: i64) -> Tensor {
        let t = x.size()[1];
        assert!(from + t <= self.length(), "{} tokens, but positions for {}", from + t, self.length());
        x + self.positions.narrow(1, from, t)
    }

    fn blocks(&self, mut x: Tensor, seen: Option<&Tensor>, dropout: f64, depth: usize) -> Tensor {
        let sight = match (self.causal, seen) {
            (true, _) => Sight::Causal,
            (false, Some(seen)) => Sight::Keys(seen),
            (false, None) => Sight::All,
        };
        if dropout > 0.0 {
            x = x.dropout(dropout, true);
        }
        for block in &self.blocks[..depth] {
            x = block.forward_as(&x, sight, dropout);
        }
        x
    }
}

/// Token embedding and [`Stack`].
///
/// Features are the mean over the tokens that are no padding: of the output, or, in a causal network, whose last blocks
/// turn to the next token, of the middle block (Image-GPT, Chen et al. 2020).
pub struct Transformer {
    /// [V + 1, D]; the last row stands for a masked token.
    pub embedding: Tensor,
    pub stack: Stack,
    vocabulary: i64,
}

impl Transformer {
    pub fn new(path: &Path, tokens: TokenShape, size: TransformerSize, causal: bool) -> Transformer {
        let dims = size.dims();
        let rows = [tokens.vocabulary + 1, dims.0];
        Transformer {
            embedding: path.variable("embedding", &rows, Role::Weight, Init::Normal(0.02)),
            stack: Stack::new(path, tokens.length, dims, causal),
            vocabulary: tokens.vocabulary,
        }
    }

    /// V: token ids are below it.
    pub fn vocabulary(&self) -> i64 {
        self.vocabulary
    }

    /// The id that stands for a masked token, V.
    pub fn mask_id(&self) -> i64 {
        self.vocabulary
    }

    /// Ids [B, T] -> [B, T, D]; padding becomes token 0, which `seen` hides.
    pub fn embed(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding, &ids.clamp_min(0), -1, false, false)
    }

    /// The output for every token: ids [B, T] -> [B, T, D] f32.
    pub fn encode(&self, ids: &Tensor, dropout: f64) -> Tensor {
        precision::network(ids.device(), || self.stack.forward(&self.embed(ids), Some(&seen(ids)), dropout))
    }

    /// Logits over the V tokens by the embedding's own rows (weight tying): [B, T, D] -> [B, T, V] f32.
    pub fn logits(&self, y: &Tensor) -> Tensor {
        let rows = self.embedding.narrow(0, 0, self.vocabulary);
        precision::network(y.device(), || y.linear(&rows, None::<&Tensor>).to_kind(Kind::Float))
    }

    /// Features behind `depth` blocks: ids [B, T] -> [B, D] f32.
    pub fn pooled(&self, ids: &Tensor, depth: usize) -> Tensor {
        precision::network(ids.device(), || self.pool(&self.embed(ids), &seen(ids), depth))
    }

    /// The same of tokens that are embedded: the mean over those marked in `seen`, x [B, T, D], [B, T] bool ->
    /// [B, D] f32. For a method that changes what the network reads. Shows all blocks, also those behind `depth`.
    pub fn pool(&self, x: &Tensor, seen: &Tensor, depth: usize) -> Tensor {
        let weight = seen.to_kind(Kind::Float).unsqueeze(-1);
        let tokens = weight.sum_dim_intlist([1i64].as_slice(), false, None).clamp_min(1.0);
        let mean = |depth: usize| {
            let y = precision::network(x.device(), || self.stack.hidden(x, Some(seen), depth));
            (y * &weight).sum_dim_intlist([1i64].as_slice(), false, None) / &tokens
        };
        (1..=self.stack.depth()).for_each(|depth| stages::show(|| mean(depth)));
        mean(depth)
    }
}

/// Which tokens are no padding: ids [B, T] -> [B, T] bool.
fn seen(ids: &Tensor) -> Tensor {
    ids.ge(0)
}

impl Encoder for Transformer {
    fn forward(&self, x: &Tensor, _train: bool) -> Tensor {
        let depth = self.stack.depth();
        self.pooled(x, if self.stack.causal { depth / 2 } else { depth })
    }

    fn dim(&self) -> i64 {
        self.embedding.size()[1]
    }
}

#[cfg(test)]
mod tests;
