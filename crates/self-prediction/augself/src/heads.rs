//! phi: the heads that tell the difference of two views from their features, and their losses.

use crate::Config;
use crate::targets::{Part, Targets};
use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::head::{Mlp, MlpStyle};
use selfsup_core::method::Loss;
use selfsup_core::store::Path;
use selfsup_core::{Kind, Tensor};

/// One head for each augmentation that has a weight.
pub struct Heads {
    heads: Vec<(Part, f64, Mlp)>,
    targets: Targets,
}

impl Heads {
    /// For features of width `dim` of the first two of `recipes`.
    ///
    /// # Errors
    /// If an augmentation is to be told that the views do not have, or there are not two views of one size.
    pub fn new(path: &Path, dim: i64, config: &Config, recipes: &[Recipe], channels: i64) -> Result<Heads> {
        let targets = Targets::new(recipes, channels)?;
        let style = MlpStyle { norm: true, hidden_bias: false, last_bias: true };
        let mut heads = Vec::new();
        for (part, weight) in Part::ALL.into_iter().zip(config.weights()).filter(|(_, weight)| *weight > 0.0) {
            let (name, outputs) = (part.name(), targets.width(part));
            ensure!(
                outputs > 0,
                "augself: `{name}` is {weight}, but the views do not differ in it: set `{name} = 0`, or choose views \
                 that have it"
            );
            heads.push((
                part,
                weight,
                Mlp::new(&(path / name), &[2 * dim, config.hidden, config.hidden, outputs], style),
            ));
        }
        Ok(Heads { heads, targets })
    }

    /// The weighted sum of the losses, and each as a part: features [B, D] and parameters [B, P] of views a and b.
    pub fn loss(&self, h: [&Tensor; 2], params: [&Tensor; 2]) -> Loss {
        let mut loss = Loss::new(Tensor::zeros([], (Kind::Float, h[0].device())));
        for (part, weight, phi) in &self.heads {
            let (p, omega) = (phi.forward(&both_orders(h), true), self.both_targets(*part, params));
            let value = objective(*part, &p, &omega);
            loss.total += *weight * &value;
            loss = loss.with(part.name(), value.detach());
        }
        loss
    }

    /// How much of the difference is told: of the flip the share told right, of all else the share of its variance.
    pub fn scores(&self, h: [&Tensor; 2], params: [&Tensor; 2]) -> Vec<(&'static str, Tensor)> {
        let score = |(part, _, phi): &(Part, f64, Mlp)| {
            let (p, omega) = (phi.forward(&both_orders(h), false), self.both_targets(*part, params));
            match part {
                Part::Crop => ("crop_r2", explained(&p.tanh(), &omega)),
                Part::Colour => ("colour_r2", explained(&p.tanh(), &omega)),
                Part::Blur => ("blur_r2", explained(&p.tanh(), &omega)),
                Part::Solarise => ("solarise_r2", explained(&p.tanh(), &omega)),
                Part::Flip => ("flip_accuracy", p.gt(0.0).eq_tensor(&omega.gt(0.5)).to_kind(Kind::Float).mean(None)),
            }
        };
        self.heads.iter().map(score).collect()
    }

    fn both_targets(&self, part: Part, [a, b]: [&Tensor; 2]) -> Tensor {
        Tensor::cat(&[self.targets.difference(part, a, b), self.targets.difference(part, b, a)], 0)
    }
}

/// [h_a ; h_b] and behind them [h_b ; h_a], [2B, 2D].
pub fn both_orders([a, b]: [&Tensor; 2]) -> Tensor {
    Tensor::cat(&[Tensor::cat(&[a, b], 1), Tensor::cat(&[b, a], 1)], 0)
}

/// L_aug of outputs and targets, both [2B, n]: the mean squared error of the tanh; of the flip the binary
/// cross-entropy.
pub fn objective(part: Part, p: &Tensor, omega: &Tensor) -> Tensor {
    match part {
        // log(1 + e^p) - p omega.
        Part::Flip => (p.softplus() - p * omega).mean(None),
        _ => (p.tanh() - omega).square().mean(None),
    }
}

/// 1 - the error's square over the target's, whose mean over both orders is 0. Rows all alike have no variance: 0.
fn explained(p: &Tensor, omega: &Tensor) -> Tensor {
    let (error, variance) = ((p - omega).square().mean(None), omega.square().mean(None));
    (&variance - error) / variance.clamp_min(1e-12)
}
