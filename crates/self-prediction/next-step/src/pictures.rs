//! What is shown of some series: forecasts of them, or how often the right patch was found.

use super::{Head, NextStep, Read};
use crate::forecast::persistence;
use crate::linear;
use selfsup_core::method::Batch;
use selfsup_core::{Kind, Tensor};

impl NextStep {
    /// Regression: the series and forecasts of each next patch from the ones before it, [B, C, T]. CPC: accuracy for
    /// each number of patches ahead, beside that of guessing, [1, 1, K].
    pub(super) fn drawn(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let series = &batch.views[0].x;
        let x = self.read(series, false);
        match &self.head {
            Head::Cpc(w) => {
                let right = self.contrast(w, batch, &x).right;
                if right.numel() == 0 {
                    return Vec::new();
                }
                let accuracy = right.mean_dim([1i64].as_slice(), false, None).view([1, 1, -1]);
                let guess = 1.0 / (self.config.negatives + 1) as f64;
                vec![("chance", accuracy.full_like(guess)), ("accuracy by patches ahead", accuracy)]
            }
            Head::Regression(g, coefficients) => vec![
                ("series", series.shallow_clone()),
                ("persistence", self.steps(&persistence(&x.patches, self.encoder.patch()), &x, series)),
                ("linear model", self.steps(&linear::forecast(&x.patches, coefficients), &x, series)),
                ("network", self.steps(&self.forecast(g, &x), &x, series)),
            ],
        }
    }

    /// Forecasts p [B, L, F], made at t for the patch at t + 1, as steps beside those of `series` [B, C, T]; NaN where
    /// there is no whole patch or none before it.
    fn steps(&self, p: &Tensor, x: &Read, series: &Tensor) -> Tensor {
        let (b, c, t) = series.size3().expect("series are [B, C, T]");
        let (patch, l) = (self.encoder.patch(), p.size()[1]);
        let p = p.masked_fill(&x.whole.roll([-1], [1]).logical_not().unsqueeze(-1), f64::NAN).narrow(1, 0, l - 1);
        let steps = p.reshape([b, l - 1, c, patch]).permute([0, 2, 1, 3]).reshape([b, c, (l - 1) * patch]);
        let none = |n: i64| Tensor::full([b, c, n], f64::NAN, (Kind::Float, series.device()));
        Tensor::cat(&[none(patch), steps, none(t - l * patch)], 2)
    }
}
