//! Features of labelled images: what every probe takes.

use anyhow::{Result, ensure};
use selfsup_core::{Kind, Tensor};

/// The features of N images and their labels, on one device.
pub struct Features {
    /// [N, D] f32, finite.
    pub x: Tensor,
    /// `[N]` i64, not negative.
    pub labels: Tensor,
}

impl Features {
    /// Checks `x` [N, D], of any floating kind, and `labels` `[N]`, of any integer kind; both are detached and converted,
    /// and the labels follow the features to their device.
    ///
    /// # Errors
    /// If a shape does not fit, there is no image or no feature, a label is negative, or a feature is not finite.
    pub fn new(x: Tensor, labels: Tensor) -> Result<Features> {
        let size = x.size();
        ensure!(size.len() == 2, "features need the shape [images, dimensions], not {size:?}");
        ensure!(
            size[0] > 0 && size[1] > 0,
            "features {size:?} are empty: at least one image and one dimension are needed"
        );
        ensure!(x.is_floating_point(), "features need a floating kind, not {:?}", x.kind());
        ensure!(!labels.is_floating_point(), "labels need an integer kind, not {:?}", labels.kind());
        ensure!(
            labels.size() == [size[0]],
            "there are {} images of features but labels of shape {:?}: each image needs one label",
            size[0],
            labels.size()
        );
        let x = x.detach().to_kind(Kind::Float);
        let bad = non_finite(&x);
        ensure!(
            bad == 0,
            "{bad} of {} features are not finite: the run has diverged, or its weights are damaged",
            x.numel()
        );
        let labels = labels.to_kind(Kind::Int64).to_device(x.device());
        let lowest = labels.min().int64_value(&[]);
        ensure!(lowest >= 0, "the label {lowest} is negative: classes count from 0");
        Ok(Features { x, labels })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.x.size()[0] as usize
    }

    /// Whether there is no image; [`Features::new`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of features of an image.
    pub fn dimensions(&self) -> usize {
        self.x.size()[1] as usize
    }

    /// The images at `indices`, in that order.
    ///
    /// # Errors
    /// If there is no index, or one lies beyond the images.
    pub fn select(&self, indices: &[usize]) -> Result<Features> {
        ensure!(!indices.is_empty(), "no image was selected: at least one is needed");
        let n = self.len();
        if let Some(beyond) = indices.iter().find(|&&i| i >= n) {
            anyhow::bail!("image {beyond} was selected, but there are only {n}");
        }
        let indices: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        let indices = Tensor::from_slice(&indices).to_device(self.x.device());
        Ok(Features { x: self.x.index_select(0, &indices), labels: self.labels.index_select(0, &indices) })
    }

    /// The labels as numbers.
    pub(crate) fn label_values(&self) -> Result<Vec<i64>> {
        Ok(Vec::try_from(&self.labels)?)
    }

    /// Refuses a label that is not below `classes`.
    pub(crate) fn check_classes(&self, classes: usize) -> Result<()> {
        let highest = self.labels.max().int64_value(&[]);
        ensure!(highest < classes as i64, "the label {highest} needs {} classes, not {classes}", highest + 1);
        Ok(())
    }
}

/// Refuses a pair that no probe can use together.
pub(crate) fn check_pair(train: &Features, test: &Features, classes: usize) -> Result<()> {
    let (a, b) = (train.dimensions(), test.dimensions());
    ensure!(a == b, "training features have {a} dimensions but test features {b}: both must come from one encoder");
    train.check_classes(classes)?;
    test.check_classes(classes)
}

/// How many values of `x` are infinite or not a number.
pub(crate) fn non_finite(x: &Tensor) -> i64 {
    x.isfinite().logical_not().sum(Kind::Int64).int64_value(&[])
}

/// The rows of `x` [N, D] at unit length; a row of zeros stays one. Rows are first scaled by their largest value, so
/// that no square overflows or vanishes.
pub(crate) fn normalised(x: &Tensor) -> Tensor {
    let x = x / x.abs().amax([1], true).clamp_min(f64::from(f32::MIN_POSITIVE));
    let norm = x.square().sum_dim_intlist([1i64].as_slice(), true, None::<Kind>).sqrt();
    x / norm.clamp_min(1e-12)
}

/// Mean and biased variance of each dimension of `x` [N, D], both `[D]` f64, in two passes over blocks of rows.
///
/// A dimension whose standard deviation is below one f32 rounding of its mean is constant: its variance is 0.
pub(crate) fn moments(x: &Tensor) -> (Tensor, Tensor) {
    let n = x.size()[0];
    let sum = |f: &dyn Fn(&Tensor) -> Tensor| {
        let mut total = Tensor::zeros([x.size()[1]], (Kind::Double, x.device()));
        for block in x.split(BLOCK, 0) {
            total += f(&block.to_kind(Kind::Double)).sum_dim_intlist([0i64].as_slice(), false, None::<Kind>);
        }
        total / n as f64
    };
    let mean = sum(&|block| block.shallow_clone());
    let variance = sum(&|block| (block - &mean).square());
    let floor = (&mean * f64::from(f32::EPSILON)).square();
    let constant = variance.le_tensor(&floor);
    let variance = variance.masked_fill(&constant, 0.0);
    (mean, variance)
}

/// Rows that are taken at once where a block is converted to f64.
pub(crate) const BLOCK: i64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(x: Tensor, labels: Tensor) -> String {
        Features::new(x, labels).err().expect("must be refused").to_string()
    }

    #[test]
    fn unusable_input_is_refused_in_words() {
        let x = || Tensor::from_slice(&[1f32, 2.0, f32::NAN, 4.0, f32::INFINITY, 6.0]).view([3, 2]);
        let y = || Tensor::from_slice(&[0i64, 1, 0]);
        assert!(refused(x(), y()).starts_with("2 of 6 features are not finite"));
        assert!(refused(x(), y().narrow(0, 0, 2)).contains("labels of shape [2]"));
        assert!(refused(x().view([6]), y()).contains("not [6]"));
        assert!(refused(x(), y().to_kind(Kind::Float)).contains("integer kind"));
        assert!(refused(x().nan_to_num(0.0, 0.0, 0.0), y() - 1).contains("-1 is negative"));
        assert!(refused(Tensor::zeros([0, 2], (Kind::Float, tch_cpu())), y().narrow(0, 0, 0)).contains("empty"));
    }

    fn tch_cpu() -> selfsup_core::Device {
        selfsup_core::Device::Cpu
    }

    #[test]
    fn selection_keeps_order_and_refuses_what_is_beyond() {
        let features =
            Features::new(Tensor::arange(6, (Kind::Float, tch_cpu())).view([3, 2]), Tensor::from_slice(&[5i64, 6, 7]));
        let features = features.expect("valid");
        let some = features.select(&[2, 0]).expect("in range");
        assert_eq!(some.label_values().expect("labels"), [7, 5]);
        assert_eq!(some.x.double_value(&[0, 1]), 5.0);
        assert!(features.select(&[3]).is_err());
        assert!(features.select(&[]).is_err());
    }

    #[test]
    fn rows_normalise_at_any_scale() {
        let x = Tensor::from_slice(&[3e30f32, 4e30, 3e-30, 4e-30, 0.0, 0.0]).view([3, 2]);
        let rows: Vec<f32> = Vec::try_from(normalised(&x).view([6])).expect("values");
        for (value, want) in rows.iter().zip([0.6, 0.8, 0.6, 0.8, 0.0, 0.0]) {
            assert!((value - want).abs() < 1e-6);
        }
    }

    #[test]
    fn a_constant_dimension_has_no_variance() {
        let x = Tensor::cat(
            &[
                Tensor::full([100, 1], 0.1, (Kind::Float, tch_cpu())),
                Tensor::arange(100, (Kind::Float, tch_cpu())).view([100, 1]),
            ],
            1,
        );
        let (mean, variance) = moments(&x);
        assert_eq!(variance.double_value(&[0]), 0.0);
        assert_eq!(mean.double_value(&[1]), 49.5);
        assert!((variance.double_value(&[1]) - 833.25).abs() < 1e-9);
    }
}
