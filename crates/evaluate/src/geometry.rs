//! The shape of a cloud of features: collapse, spread, rank, redundancy. No labels are needed.
//!
//! No one number shows every collapse: the rank is blind to scale, the standard deviation to lost dimensions
//! (Jing et al. 2022), and both alignment and uniformity are 0 for a point. Read them together, on held-out images.

use crate::features::{BLOCK, moments, non_finite, normalised};
use anyhow::{Context, Result, ensure};
use selfsup_core::{Kind, Tensor, group, no_grad};
use serde::{Deserialize, Serialize};

/// All numbers of this module for one set of features.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// [`alignment`], where positive pairs were given.
    pub alignment: Option<f64>,
    /// [`uniformity`].
    pub uniformity: f64,
    /// [`effective_rank`], not mean-centred: RankMe.
    pub effective_rank: f64,
    /// [`covariance_rank`].
    pub covariance_rank: f64,
    /// [`normalised_std`].
    pub normalised_std: f64,
    /// [`feature_std`].
    pub feature_std: f64,
    /// [`correlation`]; none where fewer than two dimensions vary.
    pub correlation: Option<f64>,
    /// Dimensions that do not vary at all.
    pub constant_dimensions: usize,
}

impl Geometry {
    /// The geometry of `features` [N, D] and, where given, the alignment of `pairs`: the features of two views of each
    /// of some images, [M, D] both.
    ///
    /// # Errors
    /// If there are fewer than two images, a shape does not fit, or a value is not finite.
    pub fn of(features: &Tensor, pairs: Option<(&Tensor, &Tensor)>) -> Result<Geometry> {
        check(features)?;
        no_grad(|| {
            let x = features.detach().to_kind(Kind::Float);
            let (_, variance) = moments(&x);
            Ok(Geometry {
                alignment: pairs.map(|(a, b)| alignment(a, b)).transpose()?,
                uniformity: uniformity(&x)?,
                effective_rank: effective_rank(&x)?,
                covariance_rank: covariance_rank(&x)?,
                normalised_std: normalised_std(&x)?,
                feature_std: feature_std(&x)?,
                correlation: correlation(&x)?,
                constant_dimensions: variance.eq(0.0).sum(Kind::Int64).int64_value(&[]) as usize,
            })
        })
    }

    /// Names and values, without those that are not defined: rows of a table.
    pub fn rows(&self) -> Vec<(&'static str, f64)> {
        let rows = [
            ("alignment", self.alignment),
            ("uniformity", Some(self.uniformity)),
            ("effective_rank", Some(self.effective_rank)),
            ("covariance_rank", Some(self.covariance_rank)),
            ("normalised_std", Some(self.normalised_std)),
            ("feature_std", Some(self.feature_std)),
            ("correlation", self.correlation),
            ("constant_dimensions", Some(self.constant_dimensions as f64)),
        ];
        rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Two images at least, [N, D], finite.
fn check(x: &Tensor) -> Result<()> {
    let size = x.size();
    ensure!(size.len() == 2 && size[1] > 0, "geometry needs features of shape [images, dimensions], not {size:?}");
    ensure!(size[0] >= 2, "geometry compares images, so it needs at least two, not {}", size[0]);
    ensure!(x.is_floating_point(), "geometry needs features of a floating kind, not {:?}", x.kind());
    let bad = non_finite(x);
    ensure!(
        bad == 0,
        "{bad} of {} features are not finite: the run has diverged, or its weights are damaged",
        x.numel()
    );
    Ok(())
}

/// Mean squared distance of the L2-normalised features of two views, row by row (Wang and Isola 2020, alpha = 2): 0 if
/// each pair falls together, 2 for unrelated directions. `a`, `b`: [N, D].
///
/// # Errors
/// If the shapes differ or are not [N, D] with at least one row, or a value is not finite.
pub fn alignment(a: &Tensor, b: &Tensor) -> Result<f64> {
    let size = a.size();
    ensure!(
        size == b.size() && size.len() == 2 && size[0] > 0 && size[1] > 0,
        "alignment needs two views of the same images, [images, dimensions] each, not {size:?} and {:?}",
        b.size()
    );
    let bad = non_finite(a) + non_finite(b);
    ensure!(bad == 0, "{bad} of {} features of the two views are not finite: the run has diverged", 2 * a.numel());
    let mut total = 0.0;
    for (a, b) in a.split(BLOCK, 0).iter().zip(b.to_device(a.device()).split(BLOCK, 0)) {
        let [a, b] = [a, &b].map(|x| normalised(&x.detach().to_kind(Kind::Double)));
        total += (a - b).square().sum(Kind::Double).double_value(&[]);
    }
    Ok(total / size[0] as f64)
}

/// Log of the mean of exp(-2 d^2) over all pairs of L2-normalised rows of `x` [N, D] (Wang and Isola 2020, t = 2): 0
/// for a single point, -4 for orthonormal rows, near -4 for a uniform sphere of many dimensions. Lower is more uniform.
///
/// A row of zeros has no direction and stays at the origin. The cost grows with N^2; where there are several ranks all give
/// the same rows, and each sums a share of the pairs.
///
/// # Errors
/// If there are fewer than two rows, or a value is not finite; or if a process cannot be reached.
pub fn uniformity(x: &Tensor) -> Result<f64> {
    check(x)?;
    let x = normalised(&x.detach().to_kind(Kind::Float));
    let square = x.square().sum_dim_intlist([1i64].as_slice(), false, None::<Kind>);
    let n = x.size()[0];
    let block = ((1 << 25) / n).clamp(1, 2048);
    let sums = group::in_shares((n as u64).div_ceil(block as u64) as usize, |i| {
        let start = i as i64 * block;
        let rows = block.min(n - start);
        // Only pairs (i, j > i): the columns from the block's own first row on, less the diagonal and what is below.
        let (left, right) = (x.narrow(0, start, rows), x.narrow(0, start, n - start));
        let norms = square.narrow(0, start, rows).unsqueeze(1) + square.narrow(0, start, n - start);
        let distance = (norms - left.mm(&right.tr()) * 2.0).clamp_min_(0.0);
        Ok((distance * -2.0).exp_().triu(1).sum(Kind::Double).unsqueeze(0))
    })?;
    let total: f64 = Vec::<f64>::try_from(sums)?.iter().sum();
    Ok((total / (n as f64 * (n - 1) as f64 / 2.0)).ln())
}

/// RankMe (Garrido et al. 2023, equation 1): exp of the entropy of the singular values of `x` [N, D], **not**
/// mean-centred, divided by their sum. Between 1 (a line through the origin) and min(N, D); 0 for a matrix of zeros.
///
/// A common offset of all features counts as a direction here; [`covariance_rank`] takes it off.
///
/// # Errors
/// If there are fewer than two rows, a value is not finite, or the eigenvalues cannot be found.
pub fn effective_rank(x: &Tensor) -> Result<f64> {
    check(x)?;
    let x = x.detach();
    rank(&x, &Tensor::zeros([x.size()[1]], (Kind::Double, x.device())))
}

/// [`effective_rank`] after the mean of each dimension is taken off: how many directions the covariance has, with
/// standard deviations as weights. 0 for constant features.
///
/// # Errors
/// As for [`effective_rank`].
pub fn covariance_rank(x: &Tensor) -> Result<f64> {
    check(x)?;
    let x = x.detach();
    let (mean, variance) = moments(&x);
    if variance.sum(Kind::Double).double_value(&[]) == 0.0 {
        return Ok(0.0);
    }
    rank(&x, &mean)
}

/// Singular values come from the eigenvalues of the smaller Gram matrix, in f64: those that squaring loses are below
/// 10^-8 of the largest and weigh nothing in the entropy.
fn rank(x: &Tensor, mean: &Tensor) -> Result<f64> {
    let [n, d] = [x.size()[0], x.size()[1]];
    let gram = if n < d {
        let x = x.to_kind(Kind::Double) - mean;
        x.mm(&x.tr())
    } else {
        centred_gram(x, mean)
    };
    let eigenvalues = gram.f_linalg_eigvalsh("L").context("the spectrum of the features could not be found")?;
    let values: Vec<f64> = Vec::try_from(eigenvalues)?;
    Ok(entropy_rank(values.iter().map(|value| value.max(0.0).sqrt())))
}

/// (x - mean)'(x - mean), [D, D] f64, summed over blocks of rows.
fn centred_gram(x: &Tensor, mean: &Tensor) -> Tensor {
    let d = x.size()[1];
    let mut gram = Tensor::zeros([d, d], (Kind::Double, x.device()));
    for block in x.split(BLOCK, 0) {
        let block = block.to_kind(Kind::Double) - mean;
        gram += block.tr().mm(&block);
    }
    gram
}

/// exp of the entropy of `values` divided by their sum, 0 if that is 0.
fn entropy_rank(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let sum: f64 = values.clone().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let entropy: f64 = values.map(|v| v / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    entropy.exp()
}

/// The mean over dimensions of the standard deviation of the L2-normalised rows of `x` [N, D], times sqrt(D): about 1
/// for an isotropic cloud, 0 for a point (SimSiam, figure 2).
///
/// # Errors
/// If there are fewer than two rows, or a value is not finite.
pub fn normalised_std(x: &Tensor) -> Result<f64> {
    check(x)?;
    Ok(mean_std(&normalised(&x.detach().to_kind(Kind::Float))) * (x.size()[1] as f64).sqrt())
}

/// The mean over dimensions of the standard deviation of `x` [N, D] as it is. The one number here that sees a cloud
/// shrink without changing its shape.
///
/// # Errors
/// If there are fewer than two rows, or a value is not finite.
pub fn feature_std(x: &Tensor) -> Result<f64> {
    check(x)?;
    Ok(mean_std(&x.detach()))
}

/// The mean over dimensions of the unbiased standard deviation.
fn mean_std(x: &Tensor) -> f64 {
    let n = x.size()[0] as f64;
    let (_, variance) = moments(x);
    (variance * (n / (n - 1.0))).sqrt().mean(Kind::Double).double_value(&[])
}

/// The mean of |correlation| over all pairs of different dimensions of `x` [N, D]: 0 for independent dimensions (about
/// sqrt(2 / (pi N)) by chance), 1 if all say the same. Dimensions that do not vary have no correlation and are left
/// out; none if fewer than two vary.
///
/// # Errors
/// If there are fewer than two rows, or a value is not finite.
pub fn correlation(x: &Tensor) -> Result<Option<f64>> {
    check(x)?;
    let x = x.detach();
    let (mean, variance) = moments(&x);
    let varying = variance.gt(0.0).nonzero().squeeze_dim(1);
    let d = varying.numel() as f64;
    if d < 2.0 {
        return Ok(None);
    }
    let gram = centred_gram(&x.index_select(1, &varying), &mean.index_select(0, &varying));
    let scale = gram.diagonal(0, 0, 1).sqrt();
    let sum = (gram / (scale.unsqueeze(1) * &scale)).abs_().sum(Kind::Double).double_value(&[]);
    // The diagonal holds d ones.
    Ok(Some(((sum - d) / (d * (d - 1.0))).max(0.0)))
}
