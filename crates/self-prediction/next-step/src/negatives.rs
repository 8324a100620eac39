//! What a positive is told apart from.

use selfsup_core::group::gather;
use selfsup_core::method::Batch;
use selfsup_core::rng::Purpose;
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

/// Where negatives come from (table 2 of the paper).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Any patch of the batch but the positive.
    Both,
    /// The positive's own series, without the positive.
    Sequence,
    /// All other series of the batch.
    Others,
}

/// The contexts that are asked to predict, and what lies where. Places are rows of z, `[B L]`.
pub struct Places {
    source: Source,
    /// The place of each context t, \[R\]: those with a patch t + K that holds no padding, and with a negative to tell it
    /// from (with [`Source::Others`] a series that is alone in its batch has none).
    pub contexts: Tensor,
    /// The same among the `B (L - K)` that might be, [R].
    slots: Tensor,
    /// The places of all patches without padding, [M], series after series.
    patches: Tensor,
    /// How many patches lie before a place, `[B L]`.
    rank: Tensor,
    /// Patches of each context's series, and how many lie before that series, [R].
    length: Tensor,
    start: Tensor,
    /// L - K.
    per_series: i64,
}

impl Places {
    /// `whole` [B, L] bool says which patches hold no padding; K = `steps`.
    pub fn new(whole: &Tensor, steps: i64, source: Source) -> Places {
        let l = whole.size()[1];
        let per_series = l - steps;
        let whole_flat = whole.reshape([-1]).to_kind(Kind::Int64);
        let lengths = whole.to_kind(Kind::Int64).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
        let starts = lengths.cumsum(0, Kind::Int64) - &lengths;
        let mut asked = whole.narrow(1, steps, per_series).shallow_clone(); // [B, L - K]
        if source == Source::Others {
            asked = asked.logical_and(&lengths.lt_tensor(&lengths.sum(Kind::Int64)).unsqueeze(1));
        }
        let slots = asked.reshape([-1]).nonzero().squeeze_dim(1); // [R]
        let series = slots.divide_scalar_mode(per_series, "floor");
        Places {
            source,
            contexts: &series * l + slots.remainder(per_series),
            patches: whole_flat.nonzero().squeeze_dim(1),
            rank: whole_flat.cumsum(0, Kind::Int64) - whole_flat,
            length: lengths.index_select(0, &series),
            start: starts.index_select(0, &series),
            slots,
            per_series,
        }
    }

    /// The place of the positive of each context, \[R\], k steps ahead.
    pub fn positives(&self, k: i64) -> Tensor {
        &self.contexts + k
    }

    /// Numbers uniform on [0, 1), [R, n]: one draw for all k, as in the authors' code.
    pub fn uniform(&self, batch: &Batch, n: i64) -> Tensor {
        self.of_contexts(&gather(&batch.uniform(Purpose::Mask, (self.per_series * n) as usize)).view([-1, n]))
    }

    /// The rows of `x` [B (L - K), n] that belong to contexts.
    pub fn of_contexts(&self, x: &Tensor) -> Tensor {
        x.index_select(0, &self.slots)
    }

    /// The places of negatives for the contexts' positives k steps ahead, [R, n], from numbers u [R, n]. What may be
    /// drawn is a stretch of the list of patches with a hole in it: the positive, or the whole series.
    pub fn negatives(&self, k: i64, u: &Tensor) -> Tensor {
        let positive = self.rank.index_select(0, &self.positives(k));
        let (all, none) = (positive.full_like(self.patches.size()[0]), positive.zeros_like());
        let one = positive.ones_like();
        let (first, count, hole, width) = match self.source {
            Source::Both => (&none, &all, &positive, &one),
            Source::Sequence => (&self.start, &self.length, &positive, &one),
            Source::Others => (&none, &all, &self.start, &self.length),
        };
        let room = (count - width).unsqueeze(1); // [R, 1]
        // A number just below 1 may have been rounded to 1.
        let drawn = (u.to_kind(Kind::Double) * &room).floor().to_kind(Kind::Int64).minimum(&(room - 1));
        let drawn = drawn + first.unsqueeze(1);
        let behind = drawn.ge_tensor(&hole.unsqueeze(1)).to_kind(Kind::Int64);
        let drawn = drawn + behind * width.unsqueeze(1);
        self.patches.index_select(0, &drawn.reshape([-1])).view_as(&drawn)
    }
}
