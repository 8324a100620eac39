//! The recurrent encoder against PyTorch (`tests/encoder/recurrent.py`), and what may depend on what.

use super::*;
use crate::store::{Store, assign};
use tch::Device;

fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Two channels of nine steps in patches of two; 0.5 sin(1.3 m^2 + k) for the k-th name, 1 more for weights of norms.
fn make() -> (Store, Recurrent) {
    let store = Store::new(0, Device::Cpu);
    let encoder = Recurrent::new(&store.root(), SeriesShape { channels: 2, length: 9 }, 4, 2).expect("an encoder");
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (k, v) in variables.iter().enumerate() {
        let one = if v.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.5 + one));
    }
    (store, encoder)
}

/// The second of nine steps less four of padding: its third patch is cut.
fn series() -> Tensor {
    let x = (wave(0.1, &[2, 2, 9]) * 2.0).to_kind(Kind::Float);
    let _ = x.select(0, 1).narrow(1, 5, 4).fill_(f64::NAN);
    x
}

#[test]
fn features_and_gradients_are_those_of_pytorch() {
    let (store, encoder) = make();
    let features = encoder.forward(&series(), true);
    let found: Vec<f64> = Vec::try_from(features.flatten(0, 1).to_kind(Kind::Double)).expect("numbers");
    let expected = [-0.22628665, 0.33685664, 0.01416810, -0.34038788, -0.37260393, 0.25051557, 0.00237756, 0.10139980];
    // f32 through two norms of four values, which enlarge rounding, and a GRU of four steps.
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found - expected).abs() < 3e-6, "{found} is not {expected}");
    }
    features.square().sum(Kind::Float).backward();
    for (name, first, norm) in [
        ("embed1.weight", -8.27786222e-02, 7.51733550e-01),
        ("gru.weight_hh_l0", -5.56654888e-03, 1.60184705e-01),
        ("gru.bias_ih_l0", 2.82158644e-02, 1.34935744),
    ] {
        let gradient = store.variables().into_iter().find(|v| v.name == name).expect(name).tensor.grad();
        assert!((gradient.flatten(0, -1).double_value(&[0]) - first).abs() < 2e-5, "{name}");
        assert!((gradient.norm().double_value(&[]) - norm).abs() < 2e-5, "{name}");
    }
}

#[test]
fn a_context_depends_on_its_past_alone() {
    let (_store, encoder) = make();
    let x = wave(0.2, &[1, 2, 9]).to_kind(Kind::Float).set_requires_grad(true);
    let c = encoder.context(&encoder.embed(&encoder.patches(&x).0), true);
    for t in 0..4 {
        let gradient = Tensor::run_backward(&[c.select(1, t).sum(Kind::Float)], &[&x], true, false).remove(0);
        let moved: Vec<f64> =
            Vec::try_from(gradient.abs().sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Double)).expect("numbers");
        let (past, future) = moved.split_at(2 * (t as usize + 1));
        assert!(past.iter().all(|&g| g > 0.0), "context {t} does not see all of its past: {moved:?}");
        assert!(future.iter().all(|&g| g == 0.0), "context {t} sees its future: {moved:?}");
    }
}

#[test]
fn training_has_the_values_of_evaluation() {
    let (_store, encoder) = make();
    assert_eq!(encoder.forward(&series(), true), encoder.forward(&series(), false));
}

#[test]
fn z_depends_on_its_own_patch_alone() {
    let (_store, encoder) = make();
    let x = wave(0.2, &[1, 2, 9]).to_kind(Kind::Float).set_requires_grad(true);
    let z = encoder.embed(&encoder.patches(&x).0);
    let gradient = Tensor::run_backward(&[z.select(1, 1).square().sum(Kind::Float)], &[&x], true, false).remove(0);
    for t in 0..9 {
        assert_eq!(gradient.select(2, t).abs().sum(Kind::Float).double_value(&[]) > 0.0, (2..4).contains(&t));
    }
}

#[test]
fn padding_changes_nothing() {
    let (_store, encoder) = make();
    let x = series();
    let alone = x.narrow(0, 1, 1).narrow(2, 0, 4).copy();
    let (together, alone) = (encoder.forward(&x, false).narrow(0, 1, 1), encoder.forward(&alone, false));
    assert!((together - alone).abs().max().double_value(&[]) < 1e-6);
    let (patches, whole) = encoder.patches(&x);
    assert_eq!(patches.size(), [2, 4, 4]);
    assert_eq!(patches.isnan().any().int64_value(&[]), 0);
    assert_eq!(
        Vec::<bool>::try_from(whole.flatten(0, 1)).expect("flags"),
        [true, true, true, true, true, true, false, false]
    );
    // A patch holds the steps of its first channel, then those of its second.
    for (i, (c, t)) in [(0, 2), (0, 3), (1, 2), (1, 3)].into_iter().enumerate() {
        assert_eq!(patches.double_value(&[0, 1, i as i64]), x.double_value(&[0, c, t]));
    }
}

#[test]
fn a_series_of_less_than_two_patches_is_refused() {
    let store = Store::new(0, Device::Cpu);
    let outcome = Recurrent::new(&store.root(), SeriesShape { channels: 1, length: 7 }, 4, 4);
    assert!(format!("{:#}", outcome.err().expect("an error")).contains("less than two patches of 4"));
}
