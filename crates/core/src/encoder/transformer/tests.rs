//! The transformer against PyTorch (`tests/encoder/transformer.py`), and who may see whom.

use super::*;
use crate::encoder::tests::value;
use crate::store::{Store, assign};
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Device, no_grad};

const V: i64 = 7;
const T: i64 = 6;
const DIMS: (i64, i64, i64) = (16, 3, 4);

/// The network of transformer.py: smaller than those that have a name.
fn small(causal: bool) -> (Store, Transformer) {
    let store = Store::new(0, Device::Cpu);
    let path = store.root();
    let embedding = path.variable("embedding", &[V + 1, DIMS.0], Role::Weight, Init::Normal(0.02));
    let stack = Stack::new(&path, T, DIMS, causal);
    drop(path);
    (store, Transformer { embedding, stack, vocabulary: V })
}

/// With the weights of transformer.py.
fn golden(causal: bool) -> (Store, Transformer) {
    let (store, network) = small(causal);
    for v in store.variables() {
        assign(&v.tensor, &value(&v.name, &v.tensor.size()));
    }
    (store, network)
}

fn ids() -> Tensor {
    Tensor::from_slice2(&[[3i64, 0, 6, 6, 1, 2], [5, 2, 4, -1, -1, -1], [0, -1, -1, -1, -1, -1]])
}

fn greatest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

/// f32 against f64: three blocks on values of a few units keep five digits of the greatest.
fn assert_close(x: &Tensor, expected: &[f64], what: &str) {
    let expected = Tensor::from_slice(expected);
    let error = greatest(&(x.detach().to_kind(Kind::Double).flatten(0, -1) - &expected));
    assert!(error < 1e-5 * greatest(&expected), "{what}: off by {error} of {}", greatest(&expected));
}

#[derive(Deserialize)]
struct Case {
    outputs: Vec<f64>,
    features: Vec<f64>,
    logits: Vec<f64>,
    /// The second value and the norm of each variable's gradient.
    gradients: BTreeMap<String, (f64, f64)>,
}

#[test]
fn outputs_features_and_gradients_are_those_of_pytorch() {
    let golden: BTreeMap<String, Case> =
        serde_json::from_str(include_str!("../../../tests/encoder/transformer.json")).expect("transformer.json");
    for (name, case) in golden {
        let (store, network) = self::golden(name.ends_with("-causal"));
        let (ids, tokens) = (ids(), seen(&ids()).flatten(0, 1));
        let y = network.encode(&ids, 0.0);
        let real = |x: &Tensor| x.flatten(0, 1).index(&[Some(&tokens)]); // [tokens, D]
        assert_close(&real(&y), &case.outputs, &name);
        assert_close(&network.forward(&ids, false), &case.features, &name);
        let logits = real(&network.logits(&y));
        assert_close(&logits, &case.logits, &name);
        (&logits * value("weights", &logits.size())).sum(None).backward();
        assert_eq!(store.trainable().len(), case.gradients.len());
        for v in store.trainable() {
            let (g, (second, norm)) = (v.tensor.grad(), case.gradients[&v.name]);
            assert!((g.norm().double_value(&[]) / norm - 1.0).abs() < 1e-4, "{name}: {}", v.name);
            assert!((g.flatten(0, -1).double_value(&[1]) - second).abs() < 1e-4 * norm, "{name}: {}", v.name);
        }
    }
}

#[test]
fn a_causal_token_sees_itself_and_what_is_before_it() {
    let (_store, network) = golden(true);
    let ids = ids().narrow(0, 0, 1);
    let x = network.embed(&ids).detach().set_requires_grad(true);
    let y = network.stack.forward(&x, None, 0.0);
    for t in 0..T {
        let gradient = &Tensor::run_backward(&[y.get(0).get(t).square().sum(None)], &[&x], true, false)[0];
        let reached = gradient.get(0).norm_scalaropt_dim(2.0, [-1].as_slice(), false);
        for s in 0..T {
            assert_eq!(reached.double_value(&[s]) > 0.0, s <= t, "token {t} and token {s}");
        }
    }
    // The same by values: another token at t moves nothing before t, not by one bit.
    let y = no_grad(|| network.encode(&ids, 0.0));
    for t in 0..T {
        let other = ids.copy();
        let _ = other.get(0).get(t).fill_(5);
        let moved = (no_grad(|| network.encode(&other, 0.0)) - &y).abs().amax([0, 2].as_slice(), false);
        for s in 0..T {
            assert_eq!(moved.double_value(&[s]) > 0.0, s >= t, "token {t} changed, token {s}");
        }
    }
}

#[test]
fn padding_is_never_seen() {
    for causal in [false, true] {
        let (_store, network) = golden(causal);
        let ids = ids();
        let x = network.embed(&ids).detach().set_requires_grad(true);
        let y = network.stack.forward(&x, Some(&seen(&ids)), 0.0);
        // What the real tokens become, and the features, say nothing of what lies at padded places.
        let real = y.get(1).narrow(0, 0, 3).square().sum(None);
        let features = network.pool(&x, &seen(&ids), 1).square().sum(None);
        for (output, row) in [(real, 1), (features, 2)] {
            let gradient = &Tensor::run_backward(&[output], &[&x], true, false)[0];
            let padded = ids.get(row).lt(0).unsqueeze(-1).to_kind(Kind::Float);
            assert_eq!(greatest(&(gradient.get(row) * &padded)), 0.0, "causal {causal}");
            assert!(greatest(&(gradient.get(row) * (1.0 - &padded))) > 0.0);
        }
        // A sequence has the features that it has without its padding.
        let alone = network.forward(&ids.get(1).narrow(0, 0, 3).unsqueeze(0), false);
        let beside = network.forward(&ids, false).narrow(0, 1, 1);
        // The products of other sizes are summed in another order.
        assert!(greatest(&(alone - &beside)) < 1e-5 * greatest(&beside), "causal {causal}");
        // Of nothing but padding the mean is that of no token: 0, and finite.
        let empty = network.forward(&Tensor::full([1, T], -1, (Kind::Int64, Device::Cpu)), false);
        assert_eq!(empty, empty.zeros_like());
    }
}

#[test]
fn both_sides_are_seen_where_nothing_is_causal() {
    let (_store, network) = golden(false);
    let x = network.embed(&ids().narrow(0, 0, 1)).detach().set_requires_grad(true);
    let y = network.stack.forward(&x, None, 0.0);
    let gradient = &Tensor::run_backward(&[y.get(0).get(2).square().sum(None)], &[&x], false, false)[0];
    assert!(gradient.norm_scalaropt_dim(2.0, [-1].as_slice(), false).min().double_value(&[]) > 0.0);
}

#[test]
fn steps_with_a_cache_are_the_whole_pass() {
    let (_store, network) = golden(true);
    let x = network.embed(&ids().narrow(0, 0, 1));
    let whole = network.stack.forward(&x, None, 0.0);
    for first in 1..=T {
        let mut cache = Cache::default();
        assert!(cache.is_empty());
        assert_eq!(cache.len(), 0);
        let mut parts = vec![network.stack.step(&x.narrow(1, 0, first), &mut cache)];
        for t in first..T {
            assert_eq!(cache.len(), t);
            parts.push(network.stack.step(&x.narrow(1, t, 1), &mut cache));
        }
        // Other sizes of products: f32 sums in another order, through three blocks.
        let error = greatest(&(Tensor::cat(&parts, 1) - &whole));
        assert!(error < 1e-5 * greatest(&whole), "after {first} at once: {error}");
    }
}

#[test]
fn dropout_is_for_training_alone() {
    let (_store, network) = golden(true);
    let ids = ids();
    tch::manual_seed(1);
    let dropped = network.encode(&ids, 0.5);
    assert!(greatest(&(&dropped - network.encode(&ids, 0.0))) > 0.1);
    assert_eq!(network.encode(&ids, 0.0), network.encode(&ids, 0.0));
    assert_eq!(network.forward(&ids, true), network.forward(&ids, false));
}

#[test]
fn variables_start_as_in_gpt2() {
    let tokens = TokenShape { vocabulary: 65, length: 64 };
    let store = Store::new(0, Device::Cpu);
    Transformer::new(&store.root(), tokens, TransformerSize::Micro, true);
    for v in store.variables() {
        if v.tensor.dim() == 1 {
            let expected = if v.name.ends_with("weight") { 1.0 } else { 0.0 };
            assert_eq!(v.tensor.detach(), v.tensor.detach().full_like(expected), "{}", v.name);
            assert_eq!(v.role, Role::NoDecay);
        } else {
            let residual = v.name.ends_with("proj.weight") || v.name.ends_with("fc2.weight");
            let std = if residual { 0.02 / 8f64.sqrt() } else { 0.02 };
            // The deviation of n normal numbers is off by a share of 1 / sqrt(2n); five of those.
            let slack = 5.0 / (2.0 * v.tensor.numel() as f64).sqrt();
            let actual = v.tensor.detach().std(false).double_value(&[]);
            assert!((actual / std - 1.0).abs() < slack, "{}: {actual} for {std}", v.name);
            assert_eq!(v.role, Role::Weight);
        }
    }
    // nanoGPT's micro model of 65 tokens and 64 places, with the biases, and a row for a masked token: 12 D^2 + 13 D a
    // block, 2 D for the norm.
    assert_eq!(store.parameters(), (66 + 64) * 128 + 4 * (12 * 128 * 128 + 13 * 128) + 2 * 128);
}

#[test]
fn names_of_transformers_are_read_as_they_are_written() {
    for size in TransformerSize::ALL {
        for causal in ["", "-causal"] {
            let name = format!("transformer-{}{causal}", size.name());
            assert_eq!(name.parse::<crate::encoder::EncoderConfig>().expect("a name").to_string(), name);
        }
    }
    for name in
        ["transformer", "transformer-", "transformer-huge", "transformer-causal", "transformer-micro-causal-causal"]
    {
        assert!(name.parse::<crate::encoder::EncoderConfig>().is_err(), "{name}");
    }
}
