//! BYOL against lightly and PyTorch (`tests/golden.py`), closed forms, and what may reach the target.

use super::*;
use selfsup_core::method::{ImageShape, View};
use selfsup_core::store::Store;
use selfsup_core::{Device, Kind};

/// `matrix` of golden.py: sin(1.3 m^2 + phase).
fn matrix(phase: f64, n: i64, d: i64) -> Tensor {
    let values: Vec<f64> = (0..n * d).map(|m| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view([n, d]).set_requires_grad(true)
}

/// `fixed` of golden.py: sin(m + 1) and cos(2m + 1), 4 x 3.
fn fixed() -> (Tensor, Tensor) {
    let fill = |f: &dyn Fn(f64) -> f64| {
        let values: Vec<f64> = (0..12).map(|m| f(f64::from(m))).collect();
        Tensor::from_slice(&values).view([4, 3])
    };
    (fill(&|m| (m + 1.0).sin()), fill(&|m| (2.0 * m + 1.0).cos()))
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

/// Differs by rounding in f64 alone.
fn close(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-9 * expected.abs().max(1.0), "{actual} is not {expected}");
}

/// A golden value with six decimals.
fn close6(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 6e-7, "{actual} is not {expected}");
}

/// Loss and gradients against golden.py: the first three entries and the norm of each gradient.
fn against_golden(loss: &Tensor, inputs: [&Tensor; 2], expected: f64, gradients: [[f64; 4]; 2]) {
    close(number(loss), expected);
    for (gradient, expected) in Tensor::run_backward(&[loss], &inputs, false, false).iter().zip(gradients) {
        let flat = gradient.flatten(0, 1);
        (0..3).for_each(|i| close(flat.double_value(&[i]), expected[i as usize]));
        close(number(&gradient.norm()), expected[3]);
    }
}

fn setup(store: &Store, encoder: &str) -> Result<Byol> {
    let image = ImageShape { channels: 3, size: 16 };
    let encoder = encoder.parse()?;
    Byol::new(
        Config { hidden: 32, output: 8, ..Config::default() },
        &Setup { path: store.root(), encoder, image, samples: 8 },
    )
}

fn batch(n: usize) -> Batch {
    let view = |phase| {
        let x = matrix(phase, n as i64, 3 * 16 * 16).detach().to_kind(Kind::Float);
        View { x: x.view([n as i64, 3, 16, 16]), params: Tensor::zeros([n as i64, 12], (Kind::Float, Device::Cpu)) }
    };
    Batch { views: vec![view(0.1), view(0.2)], index: (0..n).collect(), seed: 0, epoch: 0 }
}

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

#[test]
fn distance_and_gradients_are_those_of_lightly() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 0.434977828571, [[-4.455682663806e-01, -9.217178184165e-02, -2.335273456593e-01, 6.595640487022e-01], [3.196633665840e-01, -2.140788492144e-01, 4.244503425810e-01, 8.394921872923e-01]]),
    (8, 5, 0.384675466644, [[-8.856252836956e-02, -4.159924942018e-02, -2.507296370397e-02, 2.488986513990e-01], [7.091369916799e-02, -2.903348776525e-02, 7.723644879430e-02, 3.003362160786e-01]]),
    (32, 16, 0.493607957082, [[-4.668507186938e-03, -3.312192550010e-04, -3.028591431585e-03, 8.368079109911e-02], [3.309245012504e-03, -2.445335007195e-03, 4.604111506801e-03, 8.608769132856e-02]]),
    ];
    for (n, d, loss, gradients) in golden {
        let (p, z) = (matrix(0.2, n, d), matrix(0.9, n, d));
        against_golden(&distance(&p, &z), [&p, &z], loss, gradients);
    }
}

#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (a, b) = fixed();
    close6(number(&distance(&a, &b)), 2.031927);
    close6(number(&(distance(&a, &b) + distance(&b, &a))), 4.063855);
}

#[test]
fn closed_forms_and_invariances() {
    let (p, z) = (matrix(0.2, 6, 4).detach(), matrix(0.9, 6, 4).detach());
    close(number(&distance(&p, &p)), 0.0);
    close(number(&distance(&p, &-&p)), 4.0);
    let expected = number(&distance(&p, &z));
    close(number(&distance(&z, &p)), expected);
    close(number(&distance(&(&p * 7.0), &(&z * 0.01))), expected);
    let order = Tensor::from_slice(&[3i64, 0, 5, 1, 4, 2]);
    close(number(&distance(&p.index_select(0, &order), &z.index_select(0, &order))), expected);
}

#[test]
fn the_target_starts_equal_and_has_no_predictor() {
    let store = Store::new(0, Device::Cpu);
    setup(&store, "convnet-tiny").expect("a method");
    for part in ["encoder", "projector"] {
        let (online, target) = (store.below(part), store.below(&format!("target.{part}")));
        assert!(!online.is_empty());
        assert_eq!(online.len(), target.len());
        for (o, t) in online.iter().zip(&target) {
            assert_eq!(format!("target.{}", o.name), t.name);
            assert_eq!(o.tensor, t.tensor, "{}", t.name);
        }
    }
    assert!(store.below("target.predictor").is_empty() && !store.below("predictor").is_empty());
}

#[test]
fn no_gradient_reaches_the_target() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(&store, "convnet-tiny").expect("a method");
    // Also where the target's variables could take one.
    let target: Vec<Tensor> = store.below("target").into_iter().map(|v| v.tensor.set_requires_grad(true)).collect();
    let loss = method.loss(&batch(4), AT).total;
    loss.backward();
    assert!(target.iter().all(|t| !t.grad().defined()));
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
}

#[test]
fn the_loss_sums_both_directions_and_swapping_views_changes_nothing() {
    let loss = |swap: bool| {
        let store = Store::new(0, Device::Cpu);
        let mut method = setup(&store, "convnet-tiny").expect("a method");
        let mut batch = batch(4);
        if swap {
            batch.views.swap(0, 1);
        }
        let loss = number(&method.loss(&batch, AT).total);
        let (a, b) = (&batch.views[0].x, &batch.views[1].x);
        let p = |x| method.predict(&method.online.project(x, true));
        let z = |x| method.target.project(x, true);
        let cosine = |p: Tensor, z: Tensor| number(&Tensor::cosine_similarity(&p, &z, 1, 1e-12).mean(None));
        let expected = 4.0 - 2.0 * cosine(p(a), z(b)) - 2.0 * cosine(p(b), z(a));
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
        loss
    };
    assert!((loss(false) - loss(true)).abs() < 1e-6);
}

#[test]
fn the_target_follows_at_the_scheduled_rate() {
    for (step, tau) in [(0, 0.996), (5, 0.998), (10, 1.0)] {
        let store = Store::new(0, Device::Cpu);
        let mut method = setup(&store, "convnet-tiny").expect("a method");
        for v in store.trainable() {
            let _ = no_grad(|| v.tensor.shallow_clone().g_add_scalar_(1.0));
        }
        let of = |name: &str| store.below(name).remove(0).tensor.detach().to_kind(Kind::Double).sum(None);
        for part in ["encoder", "projector"] {
            let target = format!("target.{part}");
            let (before, online) = (of(&target), of(part));
            method.averages.iter().for_each(|a| a.update(1.0));
            assert_eq!(of(&target), before);
            let start = store.below(&target).remove(0).tensor.copy();
            method.after_step(Progress { step, ..AT });
            let expected = number(&(&before * tau + &online * (1.0 - tau)));
            // A sum of up to 4096 values, each rounded to f32.
            assert!((number(&of(&target)) - expected).abs() < 1e-4, "{part} {step}");
            no_grad(|| store.below(&target).remove(0).tensor.copy_(&start));
        }
    }
}

#[test]
fn the_targets_statistics_are_its_own() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(&store, "convnet-tiny").expect("a method");
    let before = store.below("target.encoder.0.bn").pop().expect("a running variance").tensor.copy();
    method.loss(&batch(4), AT);
    let after = store.below("target.encoder.0.bn").pop().expect("a running variance").tensor;
    assert_ne!(after, before, "the target normalises with its batch");
    let online = store.below("encoder.0.bn").pop().expect("a running variance").tensor.copy();
    let _ = no_grad(|| store.below("encoder.0.bn").pop().expect("one").tensor.fill_(9.0));
    method.after_step(AT);
    assert_eq!(after, online, "equal weights and batches gave equal statistics, which the average leaves alone");
}

#[test]
fn it_runs_without_a_predictor_and_refuses_unusable_rates() {
    let make = |config| {
        let store = Store::new(0, Device::Cpu);
        let image = ImageShape { channels: 3, size: 16 };
        let encoder = "convnet-tiny".parse().expect("a name");
        Byol::new(config, &Setup { path: store.root(), encoder, image, samples: 8 })
    };
    let bare = Config { hidden: 32, output: 8, predictor: false, ..Config::default() };
    let mut method = make(bare).expect("a method");
    assert!(number(&method.loss(&batch(4), AT).total).is_finite());
    assert_eq!(method.embedding(&batch(2).views[0].x).expect("an embedding").size(), [2, 8]);
    assert_eq!(method.features(&batch(2).views[0].x, false).size(), [2, 128]);
    for tau in [-0.1, 1.1, f64::NAN] {
        let refused = Byol::check(&Config { tau, ..Config::default() }).expect_err("a refusal").to_string();
        assert!(refused.starts_with("tau is"), "{refused}");
    }
}
