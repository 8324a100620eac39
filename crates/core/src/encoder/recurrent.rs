//! A causal network over series: disjoint patches of steps, each embedded alone, and a GRU over them (the shape of CPC:
//! van den Oord, Li and Vinyals 2018, arXiv 1807.03748, section 3.1, for short series).

use super::{Encoder, stages};
use crate::layer::{LayerNorm, Linear};
use crate::method::SeriesShape;
use crate::precision;
use crate::store::{Init, Path, Role};
use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Patches to z by two layers with channel norms, z to c by a GRU; features are the mean of c over the patches that
/// hold no padding.
pub struct Recurrent {
    embed: [(Linear, LayerNorm); 2],
    gru: [Tensor; 4],
    patch: i64,
    width: i64,
}

impl Recurrent {
    /// # Errors
    /// If a series is shorter than two patches.
    pub fn new(path: &Path, series: SeriesShape, width: i64, patch: i64) -> Result<Recurrent> {
        ensure!(
            series.length >= 2 * patch,
            "a series of {} steps has less than two patches of {patch}: choose a smaller patch",
            series.length
        );
        let layer = |name: &str, input: i64| {
            let path = path / name;
            (Linear::new(&path, input, width, true), LayerNorm::new(&(path / "norm"), width, 1e-5))
        };
        let bound = Init::Uniform((width as f64).powf(-0.5));
        let gru = path / "gru";
        let weight = |name: &str| gru.variable(name, &[3 * width, width], Role::Weight, bound);
        let bias = |name: &str| gru.variable(name, &[3 * width], Role::NoDecay, bound);
        Ok(Recurrent {
            embed: [layer("embed1", series.channels * patch), layer("embed2", width)],
            gru: [weight("weight_ih_l0"), weight("weight_hh_l0"), bias("bias_ih_l0"), bias("bias_hh_l0")],
            patch,
            width,
        })
    }

    /// Steps of a patch.
    pub fn patch(&self) -> i64 {
        self.patch
    }

    /// Patches as rows and which of them hold no padding: x [B, C, T] -> ([B, L, C patch], [B, L] bool), L = T / patch
    /// rounded down, padding 0.
    pub fn patches(&self, x: &Tensor) -> (Tensor, Tensor) {
        let (b, c, t) = x.size3().expect("series are [B, C, T]");
        let l = t / self.patch;
        let rows = x.narrow(2, 0, l * self.patch).reshape([b, c, l, self.patch]);
        let rows = rows.permute([0, 2, 1, 3]).reshape([b, l, c * self.patch]);
        let whole = rows.isnan().any_dim(-1, false).logical_not();
        (rows.nan_to_num(0.0, None, None), whole)
    }

    /// z, each patch embedded alone: [B, L, C patch] -> [B, L, D] f32.
    pub fn embed(&self, patches: &Tensor) -> Tensor {
        precision::network(patches.device(), || {
            let z = self.embed.iter().fold(patches.shallow_clone(), |x, (l, n)| n.forward(&l.forward(&x)).relu());
            z.to_kind(Kind::Float)
        })
    }

    /// c, where c_t depends on z up to t: [B, L, D] -> [B, L, D] f32. Training has the same values, but cuDNN refuses the
    /// backward pass of a GRU that was not said to be training.
    pub fn context(&self, z: &Tensor, train: bool) -> Tensor {
        let start = Tensor::zeros([1, z.size()[0], self.width], (Kind::Float, z.device()));
        z.gru(&start, &self.gru, true, 1, 0.0, train, false, true).0
    }
}

impl Encoder for Recurrent {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let (patches, whole) = self.patches(x);
        let z = self.embed(&patches);
        let weight = whole.to_kind(Kind::Float).unsqueeze(-1);
        let count = weight.sum_dim_intlist([1i64].as_slice(), false, None).clamp_min(1.0);
        let mean = |x: &Tensor| (x * &weight).sum_dim_intlist([1i64].as_slice(), false, None) / &count;
        let c = mean(&self.context(&z, train));
        stages::show(|| mean(&z));
        stages::show(|| c.shallow_clone());
        c
    }

    fn dim(&self) -> i64 {
        self.width
    }
}

#[cfg(test)]
mod tests;
