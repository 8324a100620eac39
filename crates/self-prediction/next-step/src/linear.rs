//! The classical forecast that a network must beat: a linear autoregressive model, fitted by ridge regression.

use anyhow::Result;
use selfsup_core::augment::views::Plain;
use selfsup_core::{Kind, Tensor};

/// What is added to the diagonal of the mean of x x': small beside the variance of 1 of normalised data.
const RIDGE: f64 = 1e-4;

/// The last `order` patches up to each t, the newest first, 0 before the start, and a 1:
/// [B, L, F] -> [B, L, order F + 1].
fn design(patches: &Tensor, order: i64) -> Tensor {
    let (b, l, _) = patches.size3().expect("patches are [B, L, F]");
    let padded = patches.constant_pad_nd([0, 0, order - 1, 0]);
    let lags = (0..order).map(|lag| padded.narrow(1, order - 1 - lag, l));
    let one = Tensor::ones([b, l, 1], (patches.kind(), patches.device()));
    Tensor::cat(&lags.chain([one]).collect::<Vec<_>>(), -1)
}

/// Forecasts of the next patch from each t: [B, L, F] and coefficients [order F + 1, F] -> [B, L, F].
pub fn forecast(patches: &Tensor, coefficients: &Tensor) -> Tensor {
    let order = (coefficients.size()[0] - 1) / coefficients.size()[1];
    design(patches, order).matmul(coefficients)
}

/// The coefficients that forecast the training series best. `patches` cuts series into patches and says which of them
/// hold no padding.
///
/// # Errors
/// If a series cannot be read.
pub fn fit(series: &Plain, order: i64, patches: impl Fn(&Tensor) -> (Tensor, Tensor)) -> Result<Tensor> {
    let mut sums: Option<(Tensor, Tensor, f64)> = None;
    let _ = series.map(|x| {
        let (rows, whole) = patches(x);
        let l = rows.size()[1] - 1;
        let valid = whole.narrow(1, 1, l).reshape([-1]).nonzero().squeeze_dim(1);
        let pick = |x: Tensor| x.flatten(0, 1).index_select(0, &valid).to_kind(Kind::Double);
        let (x, y) = (pick(design(&rows.narrow(1, 0, l), order)), pick(rows.narrow(1, 1, l)));
        let (xx, xy, n) = (x.tr().matmul(&x), x.tr().matmul(&y), x.size()[0] as f64);
        sums = Some(match sums.take() {
            Some((a, b, m)) => (a + xx, b + xy, m + n),
            None => (xx, xy, n),
        });
        rows.narrow(1, 0, 0)
    })?;
    let (xx, xy, n) = sums.expect("a training set has a series");
    let ridge = Tensor::eye(xx.size()[0], (Kind::Double, xx.device())) * (RIDGE * n.max(1.0));
    Ok(Tensor::linalg_solve(&(xx + ridge), &xy, true).to_kind(Kind::Float))
}
