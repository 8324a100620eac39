//! Closed forms. Add the numbers of an independent implementation, with the program that made them beside this file.

use super::*;
use selfsup_core::Kind;

fn part(loss: &Loss, name: &str) -> f64 {
    loss.parts.iter().find(|(n, _)| *n == name).expect("the loss has this part").1.double_value(&[])
}

#[test]
fn equal_views_of_orthogonal_images() {
    // |z_i - z_j|^2 = 2 for i != j, so the uniformity is log exp(-2 t) = -2 t, and the alignment is 0.
    let z = 3.0 * Tensor::eye(4, (Kind::Float, selfsup_core::Device::Cpu));
    let loss = spread_and_align(&z, &z, &Config::default());
    assert!(part(&loss, "alignment").abs() < 1e-6);
    assert!((part(&loss, "uniformity") + 4.0).abs() < 1e-6);
    assert!((loss.total.double_value(&[]) + 4.0).abs() < 1e-6);
}

#[test]
fn collapse_has_uniformity_zero_and_opposite_views_alignment_four() {
    let z = Tensor::ones([5, 3], (Kind::Float, selfsup_core::Device::Cpu));
    let loss = spread_and_align(&z, &-&z, &Config::default());
    // f32: the rows' lengths are 1 up to 1e-7.
    assert!((part(&loss, "alignment") - 4.0).abs() < 1e-5);
    assert!(part(&loss, "uniformity").abs() < 1e-5);
}
