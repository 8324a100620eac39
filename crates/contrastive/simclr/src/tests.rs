//! NT-Xent against lightly and PyTorch (`tests/golden.py`), closed forms and invariances.

use super::*;
use selfsup_core::Device;
use selfsup_core::method::{ImageShape, View};
use selfsup_core::store::Store;

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

fn setup(store: &Store, encoder: &str) -> Result<SimClr> {
    let image = ImageShape { channels: 3, size: 16 };
    let encoder = encoder.parse()?;
    SimClr::new(
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
fn loss_and_gradients_are_those_of_lightly() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 0.324860266304, [[-1.726327992350e-01, 7.952117263356e-02, 5.826500707345e-02, 3.175174989967e-01], [3.007557169751e-02, 5.165886878136e-02, 3.586084552869e-01, 4.649645325070e-01]]),
    (8, 5, 0.806872674702, [[-7.095108660118e-02, -2.829292305225e-02, -7.892321534563e-03, 7.094442913607e-01], [8.342461925292e-02, -7.594717890592e-02, 6.852228003787e-02, 8.626958290554e-01]]),
    (32, 16, 1.36652907788, [[-7.578781507738e-03, 3.113868160439e-04, -3.809302230575e-03, 1.706761882247e-01], [6.171827812936e-03, -4.325134281250e-03, 1.000054534885e-02, 1.710525965136e-01]]),
    ];
    for ((n, d, loss, gradients), temperature) in golden.into_iter().zip([0.5, 0.1, 0.2]) {
        let (a, b) = (matrix(0.2, n, d), matrix(0.9, n, d));
        against_golden(&nt_xent(&a, &b, temperature), [&a, &b], loss, gradients);
    }
}

#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (a, b) = fixed();
    for (temperature, expected) in [(0.1, 10.044807), (0.5, 2.811568), (1.0, 2.247665)] {
        close6(number(&nt_xent(&a, &b, temperature)), expected);
        // f32 rounds similarities of up to 1 / temperature.
        let single = number(&nt_xent(&a.to_kind(Kind::Float), &b.to_kind(Kind::Float), temperature));
        assert!((single / expected - 1.0).abs() < 1e-5, "{single}");
    }
}

#[test]
fn closed_forms() {
    for n in [2, 4, 9] {
        let same = Tensor::ones([n, 5], (Kind::Double, Device::Cpu));
        close(number(&nt_xent(&same, &same, 0.1)), ((2 * n - 1) as f64).ln());
        let basis = Tensor::eye(n, (Kind::Double, Device::Cpu));
        let expected = -2.0 + (2f64.exp() + 2.0 * n as f64 - 2.0).ln();
        close(number(&nt_xent(&basis, &basis, 0.5)), expected);
    }
}

#[test]
fn scaling_permuting_swapping_and_rotating_change_nothing() {
    let (a, b) = (matrix(0.2, 6, 4).detach(), matrix(0.9, 6, 4).detach());
    let loss = |a: &Tensor, b: &Tensor| number(&nt_xent(a, b, 0.2));
    let expected = loss(&a, &b);
    close(loss(&b, &a), expected);
    close(loss(&(&a * (matrix(0.3, 6, 1).detach() + 2.0)), &(&b * 100.0)), expected);
    let order = Tensor::from_slice(&[3i64, 0, 5, 1, 4, 2]);
    close(loss(&a.index_select(0, &order), &b.index_select(0, &order)), expected);
    let (q, _) = Tensor::linalg_qr(&matrix(0.5, 4, 4).detach(), "reduced");
    close(loss(&a.matmul(&q), &b.matmul(&q)), expected);
    assert!((loss(&a.index_select(0, &order), &b) - expected).abs() > 1e-3, "other pairs have another loss");
}

#[test]
fn large_similarities_stay_finite() {
    let (a, b) = (matrix(0.2, 8, 5), matrix(0.9, 8, 5));
    let loss = nt_xent(&a, &b, 1e-3);
    let gradients = Tensor::run_backward(&[&loss], &[&a, &b], false, false);
    assert!(number(&loss).is_finite() && gradients.iter().all(|g| number(&g.norm()).is_finite()));
}

#[test]
fn accuracy_is_the_share_of_rows_whose_nearest_is_their_positive() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(&store, "convnet-tiny").expect("a method");
    let mut views = batch(4);
    views.views[1].x = views.views[0].x.copy(); // equal views: similarity 1, the greatest there is
    let loss = method.loss(&views, AT);
    assert_eq!(loss.parts[0].0, "accuracy");
    close(number(&loss.parts[0].1), 1.0);
    assert!(!loss.parts[0].1.requires_grad());
}

#[test]
fn the_loss_is_that_of_the_projections_and_trains_everything() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(&store, "convnet-tiny").expect("a method");
    let batch = batch(4);
    let loss = method.loss(&batch, AT).total;
    let x = Tensor::cat(&[&batch.views[0].x, &batch.views[1].x], 0);
    let z = method.projector.forward(&method.encoder.forward(&x, true), true);
    let expected = nt_xent(&z.narrow(0, 0, 4), &z.narrow(0, 4, 4), 0.1);
    assert!((number(&loss) - number(&expected)).abs() < 1e-5, "{loss:?} {expected:?}");
    loss.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 8]);
    assert_eq!(method.views().len(), 2);
}

#[test]
fn a_width_of_zero_makes_the_projector_linear() {
    let store = Store::new(0, Device::Cpu);
    let image = ImageShape { channels: 3, size: 16 };
    let encoder = "convnet-tiny".parse().expect("a name");
    let config = Config { hidden: 0, output: 8, ..Config::default() };
    SimClr::new(config, &Setup { path: store.root(), encoder, image, samples: 8 }).expect("a method");
    assert_eq!(store.below("projector").iter().map(|v| v.tensor.size()).collect::<Vec<_>>(), [[8, 128]]);
}

#[test]
fn unusable_numbers_are_refused() {
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = SimClr::check(&Config { temperature, ..Config::default() });
        assert!(refused.expect_err("a refusal").to_string().starts_with("temperature is"));
    }
}
