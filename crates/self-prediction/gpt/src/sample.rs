//! Sampling: one token after the other, and what is shown of it.

use super::Gpt;
use selfsup_core::augment::views::PADDING;
use selfsup_core::encoder::Cache;
use selfsup_core::method::{Batch, Tokenizer};
use selfsup_core::rng::Purpose;
use selfsup_core::tensor::draw;
use selfsup_core::{Kind, Tensor, precision};

/// What tokens are drawn from: logits [B, V] divided by `temperature`, all but the `top_k` (0: V) greatest impossible.
pub(super) fn sharpen(logits: &Tensor, temperature: f64, top_k: i64) -> Tensor {
    let logits = logits.to_kind(Kind::Double) / temperature;
    if top_k == 0 || top_k >= logits.size()[1] {
        return logits;
    }
    let least = logits.topk(top_k, -1, true, true).0.narrow(1, top_k - 1, 1); // [B, 1]
    logits.masked_fill(&logits.lt_tensor(&least), f64::NEG_INFINITY)
}

impl Gpt {
    /// Goes on behind `prompt` [B, n], in which nothing is padding, by as many tokens as `u` [B, m] has numbers
    /// uniform on [0, 1): [B, n + m]. Without a start vector n must be at least 1.
    ///
    /// Where the text outgrows the context, the network reads the last half of a context anew and goes on from there.
    pub fn go_on(&self, prompt: &Tensor, u: &Tensor) -> Tensor {
        let start = i64::from(self.config.start);
        let (mut ids, mut cache) = (prompt.shallow_clone(), Cache::default());
        for u in u.unbind(1) {
            let n = ids.size()[1];
            let x = if cache.is_empty() || cache.len() == self.context {
                cache = Cache::default();
                let kept = if start + n <= self.context { n } else { (self.context / 2).max(1 - start) };
                self.embed(&ids.narrow(1, n - kept, kept))
            } else {
                self.encoder.embed(&ids.narrow(1, n - 1, 1))
            };
            let h = precision::network(x.device(), || self.encoder.stack.step(&x, &mut cache));
            let logits = self.project(&h.narrow(1, h.size()[1] - 1, 1)).squeeze_dim(1); // [B, V]
            let next = draw(&sharpen(&logits, self.config.temperature, self.config.top_k), &u);
            ids = Tensor::cat(&[ids, next.unsqueeze(-1)], 1);
        }
        ids
    }

    /// Of each text its first half and what the network makes of it: as many tokens as a window has.
    pub(super) fn texts(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let (ids, t) = (&batch.views[0].x, batch.views[0].x.size()[1]);
        let u = batch.uniform(Purpose::Generate, t as usize);
        let lengths = ids.ne(PADDING).sum_dim_intlist([1].as_slice(), false, Kind::Int64);
        let one = |i: i64| {
            // One by one, since the texts are of different lengths.
            let n = (lengths.int64_value(&[i]) / 2).max(1);
            let prompt = ids.narrow(0, i, 1).narrow(1, 0, n).clamp_min(0);
            let text = self.go_on(&prompt, &u.narrow(0, i, 1));
            [("prompt", prompt), ("continuation", text.narrow(1, n, t))]
        };
        (0..ids.size()[0]).flat_map(one).collect()
    }

    /// The images, what their codes keep of them, the lower half of the codes drawn anew, and codes drawn freely (or,
    /// without a start vector, from the first code on).
    pub(super) fn images(&self, batch: &Batch, tokenizer: &dyn Tokenizer) -> Vec<(&'static str, Tensor)> {
        let x = &batch.views[0].x;
        let grid = tokenizer.grid(x.size()[3]);
        let codes = self.tokens(x); // [B, h w]
        let n = codes.size()[1];
        let first = i64::from(!self.config.start);
        let picture = |codes: &Tensor| tokenizer.decode(&codes.view([-1, grid, grid]));
        let u = batch.uniform(Purpose::Generate, 2 * n as usize);
        let go_on = |kept: i64, from: i64| self.go_on(&codes.narrow(1, 0, kept), &u.narrow(1, from, n - kept));
        vec![
            ("input", x.shallow_clone()),
            ("codes", picture(&codes)),
            ("completion", picture(&go_on((grid / 2 * grid).max(first), 0))),
            ("sample", picture(&go_on(first, n))),
        ]
    }
}
