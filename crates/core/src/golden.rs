//! For tests: inputs that any language can make, small batches, and comparisons with the numbers of another program.
//!
//! A method's `tests/golden.py` makes the same inputs, and its `src/tests.rs` holds what came out. Nothing else in the
//! workspace uses this module.

use crate::method::{Batch, ImageShape, Setup, Shape, View};
use crate::objective::Given;
use crate::progress::Progress;
use crate::store::Store;
use tch::{Device, Kind, Tensor};

/// `matrix` of golden.py: sin(1.3 m^2 + phase) for entry m, [n, d] f64.
pub fn matrix(phase: f64, n: i64, d: i64) -> Tensor {
    let values: Vec<f64> = (0..n * d).map(|m| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view([n, d])
}

/// The same, with a gradient: a leaf of the graph.
pub fn leaf(phase: f64, n: i64, d: i64) -> Tensor {
    matrix(phase, n, d).set_requires_grad(true)
}

/// `fixed` of golden.py: sin(m + 1) and cos(2m + 1) for entry m, [4, 3] f64.
pub fn fixed() -> (Tensor, Tensor) {
    (fill(4, |m| (m + 1.0).sin()), fill(4, |m| (2.0 * m + 1.0).cos()))
}

/// f(m) for entry m, [n, 3] f64.
pub fn fill(n: i64, f: impl Fn(f64) -> f64) -> Tensor {
    Tensor::from_slice(&(0..3 * n).map(|m| f(m as f64)).collect::<Vec<f64>>()).view([n, 3])
}

/// The value of a scalar.
pub fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

/// The largest distance between two entries, which have the same place.
///
/// # Panics
/// If the shapes differ.
pub fn far(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    number(&(a - b).abs().max())
}

/// Differs by rounding in f64 alone: a number that a few dozen operations on numbers of about 1 made.
///
/// # Panics
/// If it differs by more.
pub fn close(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-9 * expected.abs().max(1.0), "{actual} is not {expected}");
}

/// The same for a golden value that is given with six decimals.
///
/// # Panics
/// If it differs by more than the seventh.
pub fn close6(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 6e-7, "{actual} is not {expected}");
}

/// A gradient against golden.py, which gives its first three entries and its norm.
///
/// # Panics
/// If one is not [`close`].
pub fn gradient_is(gradient: &Tensor, expected: [f64; 4]) {
    let flat = gradient.flatten(0, 1);
    (0..3).for_each(|i| close(flat.double_value(&[i]), expected[i as usize]));
    close(number(&gradient.norm()), expected[3]);
}

/// A loss and its gradients against golden.py.
///
/// # Panics
/// If one is not [`close`].
pub fn against_golden<const N: usize>(loss: &Tensor, inputs: [&Tensor; N], expected: f64, gradients: [[f64; 4]; N]) {
    close(number(loss), expected);
    for (gradient, expected) in Tensor::run_backward(&[loss], &inputs, false, false).iter().zip(gradients) {
        gradient_is(gradient, expected);
    }
}

/// Copies of tensors by name, as `selfsup loss` reads them.
pub fn given(tensors: &[(&str, &Tensor)]) -> Given {
    Given::new(tensors.iter().map(|(name, x)| (name.to_string(), x.shallow_clone())))
}

/// The images of [`views`].
pub const IMAGE: ImageShape = ImageShape { channels: 3, size: 16 };

/// What a small method is built from: `encoder` by name, images as [`IMAGE`], `samples` of them.
///
/// # Panics
/// If there is no encoder of that name.
pub fn setup<'a>(store: &'a Store, encoder: &str, samples: usize) -> Setup<'a> {
    Setup::new(store.root(), encoder.parse().expect("the name of an encoder"), Shape::Image(IMAGE), samples)
}

/// One view for each of `phases` of `n` images, [n, 3, 16, 16] f32.
pub fn views(n: usize, phases: &[f64]) -> Vec<View> {
    let n = n as i64;
    let view = |&phase: &f64| View {
        x: matrix(phase, n, 3 * 16 * 16).to_kind(Kind::Float).view([n, 3, 16, 16]),
        params: Tensor::zeros([n, 12], (Kind::Float, Device::Cpu)),
    };
    phases.iter().map(view).collect()
}

/// Two views of the first `n` images, in epoch 0 of seed 0.
pub fn batch(n: usize) -> Batch {
    Batch::new(views(n, &[0.1, 0.2]), (0..n).collect(), 0, 0)
}

/// The first of ten steps.
pub const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };
