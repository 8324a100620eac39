//! Ridge regression: how much of some numbers a linear map tells from frozen features.

use crate::features::{BLOCK, moments, non_finite};
use crate::split::{Use, stratified};
use anyhow::{Context, Result, ensure};
use selfsup_core::{Kind, Tensor, no_grad};
use serde::{Deserialize, Serialize};

/// How it is fitted: mean squared error + penalty |w|^2 (the bias is free) on standardised features, in closed form.
/// scikit-learn's `alpha` is penalty N.
///
/// Each target has a penalty of its own, the one that tells most of it on a held-out part of the *training* features,
/// the strongest of equals; the weights are then fitted again on all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ridge {
    /// The sweep, in any order. A single penalty is taken as it is.
    pub penalties: Vec<f64>,
    /// The share of the images on which penalties are chosen.
    pub held_out: f64,
}

impl Default for Ridge {
    fn default() -> Ridge {
        Ridge { penalties: vec![10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6], held_out: 0.2 }
    }
}

/// What is told of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RidgeScore {
    /// The share of its variance over the test images: 1 is all, 0 no more than the test images' mean does.
    pub r2: f64,
    /// The penalty that was chosen.
    pub penalty: f64,
}

impl Ridge {
    /// Fits on features x [N, D] and targets y [N, n], and scores on others, [M, D] and [M, n]: a score per target.
    ///
    /// # Errors
    /// If the configuration cannot be used, the shapes do not fit, a number is not finite, or a target does not vary.
    pub fn score(&self, train: [&Tensor; 2], test: [&Tensor; 2], seed: u64) -> Result<Vec<RidgeScore>> {
        self.check()?;
        for ([x, y], part) in [(train, "training"), (test, "test")] {
            let (sizes, columns) = ((x.size(), y.size()), |x: &Tensor| x.size()[1..].to_vec());
            ensure!(
                sizes.0.len() == 2
                    && sizes.1.len() == 2
                    && sizes.0[0] == sizes.1[0]
                    && (columns(x), columns(y)) == (columns(train[0]), columns(train[1])),
                "ridge regression needs features [images, dimensions] and targets [images, targets], the same for \
                 training and test, but the {part} part has {:?} and {:?}",
                sizes.0,
                sizes.1
            );
            let bad = non_finite(x) + non_finite(y);
            ensure!(bad == 0, "{bad} features or targets of the {part} part are not finite: the run has diverged");
        }
        no_grad(|| {
            let all = Fit::new(train)?;
            let targets = train[1].size()[1];
            let penalties = match self.penalties[..] {
                [only] => vec![only; targets as usize],
                _ => self.choose(train, seed)?,
            };
            (0..targets)
                .zip(penalties)
                .map(|(target, penalty)| {
                    let y = test[1].narrow(1, target, 1).to_kind(Kind::Double);
                    let r2 = r2(&all.predict(test[0], penalty).narrow(1, target, 1), &y).double_value(&[0]);
                    ensure!(
                        r2.is_finite(),
                        "target {target} does not vary over the test images, so nothing is told of it"
                    );
                    Ok(RidgeScore { r2, penalty })
                })
                .collect()
        })
    }

    /// The best penalty of each target on the held-out part.
    fn choose(&self, [x, y]: [&Tensor; 2], seed: u64) -> Result<Vec<f64>> {
        let (held_out, rest) = stratified(&vec![0; x.size()[0] as usize], self.held_out, seed, Use::HeldOut)?;
        ensure!(!rest.is_empty(), "ridge regression needs two images at least: one to fit and one to choose on");
        let [held_out, rest] = [held_out, rest].map(|rows| {
            let rows: Vec<i64> = rows.into_iter().map(|row| row as i64).collect();
            let rows = Tensor::from_slice(&rows).to_device(x.device());
            [x.index_select(0, &rows), y.index_select(0, &rows)]
        });
        let fit = Fit::new([&rest[0], &rest[1]])?;
        let mut penalties = self.penalties.clone();
        penalties.sort_by(|a, b| b.total_cmp(a));
        let truth = held_out[1].to_kind(Kind::Double);
        let told: Vec<Tensor> = penalties.iter().map(|&p| r2(&fit.predict(&held_out[0], p), &truth)).collect();
        // `argmax` gives the first of several, the strongest.
        let best = Vec::<i64>::try_from(Tensor::stack(&told, 0).argmax(0, false))?;
        Ok(best.into_iter().map(|place| penalties[place as usize]).collect())
    }

    /// # Errors
    /// If a setting cannot be used.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.penalties.is_empty(), "the ridge regression's sweep is empty: give at least one penalty");
        if let Some(bad) = self.penalties.iter().find(|p| !(p.is_finite() && **p > 0.0)) {
            anyhow::bail!("the ridge regression's penalties must be positive numbers, not {bad}");
        }
        let held_out = self.held_out;
        ensure!(held_out > 0.0 && held_out < 1.0, "the held-out share must lie in (0, 1), not {held_out}");
        Ok(())
    }
}

/// The share of each column's variance that a prediction tells, both [M, n] -> `[n]`.
fn r2(prediction: &Tensor, truth: &Tensor) -> Tensor {
    let over_rows = |x: Tensor| x.square().sum_dim_intlist([0i64].as_slice(), false, None::<Kind>);
    let spread = over_rows(truth - truth.mean_dim([0].as_slice(), true, None::<Kind>));
    1.0 - over_rows(truth - prediction) / spread
}

/// Training features in the axes of their covariance, where every penalty is a division.
struct Fit {
    /// Mean and inverse standard deviation of the features, `[D]` f64; the latter 0 where a dimension is constant.
    mean: Tensor,
    inverse: Tensor,
    /// Of the targets, `[n]`.
    target_mean: Tensor,
    /// V and s of Z'Z / N = V diag(s) V', and V' Z'Y / N [D, n].
    axes: Tensor,
    variance: Tensor,
    covariance: Tensor,
}

impl Fit {
    fn new([x, y]: [&Tensor; 2]) -> Result<Fit> {
        let (mean, variance) = moments(x);
        let inverse = variance.rsqrt().masked_fill(&variance.eq(0.0), 0.0);
        let (target_mean, _) = moments(y);
        let (d, n, rows) = (x.size()[1], y.size()[1], x.size()[0] as f64);
        let zeros = |columns: i64| Tensor::zeros([d, columns], (Kind::Double, x.device()));
        let (mut gram, mut cross) = (zeros(d), zeros(n));
        for (x, y) in x.split(BLOCK, 0).iter().zip(y.split(BLOCK, 0)) {
            let z = (x.to_kind(Kind::Double) - &mean) * &inverse;
            gram += z.tr().mm(&z) / rows;
            cross += z.tr().mm(&(y.to_kind(Kind::Double) - &target_mean)) / rows;
        }
        let (variance, axes) = gram.f_linalg_eigh("L").context("the spectrum of the features could not be found")?;
        Ok(Fit {
            covariance: axes.tr().mm(&cross),
            mean,
            inverse,
            target_mean,
            axes,
            variance: variance.clamp_min(0.0),
        })
    }

    /// [M, D] -> [M, n] f64.
    fn predict(&self, x: &Tensor, penalty: f64) -> Tensor {
        let weight = self.axes.mm(&(&self.covariance / (&self.variance + penalty).unsqueeze(1))); // [D, n]
        let rows = x.split(BLOCK, 0);
        let rows: Vec<Tensor> =
            rows.iter().map(|x| ((x.to_kind(Kind::Double) - &self.mean) * &self.inverse).mm(&weight)).collect();
        Tensor::cat(&rows, 0) + &self.target_mean
    }
}
