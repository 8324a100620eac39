//! What version 1 does to features before it clusters them (section 3.3 of the first paper).

use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor};

/// The `components` first principal components of the rows of [N, D], each of variance 1; then rows of unit length.
/// Components that hardly vary are not blown up to noise: no variance counts as less than 1e-10 of the largest.
pub fn whiten(x: &Tensor, components: i64) -> Tensor {
    normalise(&principal(x, components))
}

/// [`whiten`] before the rows are made unit vectors. In f64, and in parts so that only D x D of it exists at once.
pub(crate) fn principal(x: &Tensor, components: i64) -> Tensor {
    let (n, d) = x.size2().expect("rows of features");
    let mean = x.mean_dim([0i64].as_slice(), true, Kind::Double); // [1, D]
    let centred = |part: &Tensor| part.to_kind(Kind::Double) - &mean;
    let mut covariance = Tensor::zeros([d, d], (Kind::Double, x.device()));
    for part in x.split(8192, 0) {
        let part = centred(&part);
        covariance += part.tr().matmul(&part) / n as f64;
    }
    let (variance, vectors) = covariance.linalg_eigh("L"); // smallest first
    let kept = components.min(d);
    let (variance, vectors) = (variance.narrow(0, d - kept, kept), vectors.narrow(1, d - kept, kept));
    let floor = (variance.max().double_value(&[]) * 1e-10).max(1e-30);
    let projection = vectors / variance.clamp_min(floor).sqrt(); // [D, kept]
    let parts: Vec<Tensor> =
        x.split(8192, 0).iter().map(|part| centred(part).matmul(&projection).to_kind(Kind::Float)).collect();
    Tensor::cat(&parts, 0)
}
