//! Barlow Twins against PyTorch and lightly (`tests/golden.py`), closed forms and invariances.

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

fn setup(store: &Store, encoder: &str) -> Result<BarlowTwins> {
    let image = ImageShape { channels: 3, size: 16 };
    let encoder = encoder.parse()?;
    BarlowTwins::new(
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
fn loss_and_gradients_are_those_of_pytorch() {
    #[rustfmt::skip]
    let golden = [
    (3, 2, 0.179774028137, [[-4.721428668188e-01, 3.599285357517e-03, 1.871677533938e-01, 5.823985105970e-01], [3.869137483099e-01, -5.655088698914e-03, 4.092920938169e-01, 9.753066854819e-01]]),
    (8, 5, 0.2612904193, [[-4.849344290971e-02, 1.148098277881e-03, 2.801181889210e-04, 3.712079330041e-01], [3.768163806576e-02, -9.619170329678e-02, 2.652067388046e-03, 4.571655783665e-01]]),
    (32, 16, 1.03799195294, [[-3.126718016189e-02, 3.985546898550e-03, -1.437585656308e-02, 3.568986841062e-01], [1.599777353857e-02, -1.454566158649e-02, 3.049925424336e-02, 3.651169691595e-01]]),
    ];
    for (n, d, loss, gradients) in golden {
        let (a, b) = (matrix(0.2, n, d), matrix(0.9, n, d));
        against_golden(&barlow_twins(&a, &b, 0.0051), [&a, &b], loss, gradients);
    }
}

#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (a, b) = fixed();
    close6(number(&barlow_twins(&a, &b, 0.0051)), 4.500187);
    let (on, off) = redundancy(&cross_correlation(&a, &b));
    close6(number(&on), 4.495006);
    close6(number(&off), 1.015983);
    let single = number(&barlow_twins(&a.to_kind(Kind::Float), &b.to_kind(Kind::Float), 0.0051));
    assert!((single / 4.500187 - 1.0).abs() < 1e-5, "{single}");
}

#[test]
fn equal_views_with_uncorrelated_columns_have_no_loss_but_eps() {
    let z = Tensor::from_slice(&[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0]).view([4, 3]);
    // C_ii = 1 / (1 + eps), so the loss is D eps^2 to first order.
    assert!((number(&barlow_twins(&z, &z, 0.0051)) - 3e-10).abs() < 1e-13);
    let flipped = &z * Tensor::from_slice(&[1.0, -1.0, 1.0]);
    assert!((number(&barlow_twins(&z, &flipped, 0.0051)) - 4.0).abs() < 1e-4, "C_ii = -1 costs 4");
}

#[test]
fn duplicated_columns_cost_lambda_for_each_ordered_pair() {
    for d in [3, 6] {
        let column = matrix(0.2, 8, 1).detach();
        let z = column.expand([8, d], false).contiguous();
        let expected = 0.0051 * (d * (d - 1)) as f64;
        // Each C_ij is 1 / (1 + eps / variance), with a variance of about 0.5.
        assert!((number(&barlow_twins(&z, &z, 0.0051)) / expected - 1.0).abs() < 1e-4);
    }
}

#[test]
fn swapping_permuting_and_affine_maps_change_nothing() {
    let (a, b) = (matrix(0.2, 8, 4).detach(), matrix(0.9, 8, 4).detach());
    let loss = |a: &Tensor, b: &Tensor| number(&barlow_twins(a, b, 0.0051));
    let expected = loss(&a, &b);
    close(loss(&b, &a), expected);
    let order = Tensor::from_slice(&[3i64, 0, 5, 1, 7, 4, 2, 6]);
    close(loss(&a.index_select(0, &order), &b.index_select(0, &order)), expected);
    let affine = &a * Tensor::from_slice(&[2.0, 0.5, 3.0, 1.0]) + Tensor::from_slice(&[1.0, -2.0, 0.0, 5.0]);
    // Scaling changes eps relative to the variance of about 0.5.
    assert!((loss(&affine, &b) / expected - 1.0).abs() < 1e-3);
}

#[test]
fn one_dimension_has_no_redundancy() {
    let (on, off) = redundancy(&cross_correlation(&matrix(0.2, 8, 1), &matrix(0.9, 8, 1)));
    assert!(number(&on) > 0.0 && number(&off) == 0.0);
}

#[test]
fn a_constant_column_stays_finite() {
    let a = Tensor::ones([8, 4], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let loss = barlow_twins(&a, &matrix(0.9, 8, 4), 0.0051);
    close(number(&loss), 4.0); // C = 0
    assert!(number(&Tensor::run_backward(&[&loss], &[&a], false, false)[0].norm()).is_finite());
}

#[test]
fn the_loss_is_scaled_its_parts_are_not_and_everything_is_trained() {
    let run = |scale| {
        let store = Store::new(0, Device::Cpu);
        let image = ImageShape { channels: 3, size: 16 };
        let encoder = "convnet-tiny".parse().expect("a name");
        let config = Config { scale, hidden: 32, output: 8, ..Config::default() };
        let mut method =
            BarlowTwins::new(config, &Setup { path: store.root(), encoder, image, samples: 8 }).expect("a method");
        let loss = method.loss(&batch(4), AT);
        loss.total.backward();
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
        let parts: Vec<(&str, f64)> = loss.parts.iter().map(|(name, value)| (*name, number(value))).collect();
        (number(&loss.total), parts)
    };
    let ((total, parts), (tenth, same)) = (run(1.0), run(0.1));
    assert_eq!(parts, same);
    assert_eq!((parts[0].0, parts[1].0), ("on_diagonal", "off_diagonal"));
    assert!((total - (parts[0].1 + 0.0051 * parts[1].1)).abs() < 1e-5 * total);
    assert!((tenth - 0.1 * total).abs() < 1e-6 * total);
}

#[test]
fn the_projector_is_as_deep_as_asked_and_unusable_numbers_are_refused() {
    let make = |config| {
        let store = Store::new(0, Device::Cpu);
        let image = ImageShape { channels: 3, size: 16 };
        let encoder = "convnet-tiny".parse().expect("a name");
        let made = BarlowTwins::new(config, &Setup { path: store.root(), encoder, image, samples: 8 });
        made.map(|_| store.below("projector").iter().filter(|v| v.tensor.dim() == 2).count())
    };
    let small = Config { hidden: 32, output: 8, ..Config::default() };
    for layers in [1, 2, 3] {
        assert_eq!(make(Config { layers, ..small.clone() }).expect("a method"), layers);
    }
    for (config, name) in [
        (Config { lambda: -1.0, ..small.clone() }, "lambda"),
        (Config { scale: 0.0, ..small.clone() }, "scale"),
        (Config { output: 0, ..small.clone() }, "output"),
        (Config { layers: 0, ..small.clone() }, "layers"),
    ] {
        let refused = BarlowTwins::check(&config).expect_err("a refusal").to_string();
        assert!(refused.starts_with(&format!("{name} is")), "{refused}");
    }
    let store = Store::new(0, Device::Cpu);
    let method = setup(&store, "convnet-tiny").expect("a method");
    let x = &batch(4).views[0].x;
    assert_eq!(
        (method.features(x, false).size(), method.embedding(x).map(|z| z.size())),
        (vec![4, 128], Some(vec![4, 8]))
    );
}
