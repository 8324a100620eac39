//! What a PixelCNN draws: levels of pixels, or the codes of a tokenizer.

use selfsup_core::method::{Method, Tokenizer};
use selfsup_core::{Kind, Tensor, no_grad};
use std::rc::Rc;

/// What the values of an image are.
pub(crate) enum Values {
    /// Levels of pixels; how pixels were normalised, [1, C, 1, 1] each.
    Levels {
        levels: i64,
        mean: Tensor,
        std: Tensor,
    },
    Codes(Rc<dyn Method>),
}

impl Values {
    /// K.
    pub(crate) fn count(&self) -> i64 {
        match self {
            Values::Levels { levels, .. } => *levels,
            Values::Codes(method) => codebook(method).vocabulary(),
        }
    }

    /// Normalised images [B, C, S, S] -> levels [B, C, S, S] or codes [B, 1, h, w], i64.
    pub(crate) fn read(&self, x: &Tensor) -> Tensor {
        match self {
            Values::Levels { levels, mean, std } => quantise(&(x * std + mean), *levels),
            Values::Codes(method) => no_grad(|| codebook(method).encode(x).unsqueeze(1)),
        }
    }

    /// What the encoder reads: levels as normalised pixels again, codes as a sequence.
    pub(crate) fn input(&self, x: &Tensor) -> Tensor {
        match self {
            Values::Levels { levels, mean, std } => (x.to_kind(Kind::Float) / (levels - 1) as f64 - mean) / std,
            Values::Codes(_) => x.flatten(1, 3),
        }
    }

    /// As normalised images.
    pub(crate) fn show(&self, x: &Tensor) -> Tensor {
        match self {
            Values::Levels { .. } => self.input(x),
            Values::Codes(method) => no_grad(|| codebook(method).decode(&x.squeeze_dim(1))),
        }
    }
}

fn codebook(method: &Rc<dyn Method>) -> &dyn Tokenizer {
    method.tokenizer().expect("a run's tokenizer has a codebook")
}

/// Pixels in [0, 1] -> levels 0 to K - 1 of equal width. With 256 levels a byte's value stays what it is.
pub fn quantise(pixels: &Tensor, levels: i64) -> Tensor {
    (pixels * levels as f64).floor().clamp(0.0, (levels - 1) as f64).to_kind(Kind::Int64)
}

/// The entropy, in nats, of the frequencies of the values below `k`.
pub fn unigram(x: &Tensor, k: i64) -> Tensor {
    let share = x.flatten(0, -1).bincount(None::<&Tensor>, k).to_kind(Kind::Float) / x.numel() as f64;
    -(&share * share.clamp_min(1e-30).log()).sum(None)
}
