//! VICReg against lightly (`tests/golden.py`), its three versions, closed forms and invariances.

use super::*;
use selfsup_core::golden::{AT, against_golden, batch, close, fixed, given, leaf, matrix, number, setup};
use selfsup_core::store::{Role, Store};
use selfsup_core::{Device, Kind};

const fn weights(invariance: f64, variance: f64, covariance: f64) -> Config {
    let (normalise, shared) = (Normalise::Off, true);
    Config { invariance, variance, covariance, hidden: 32, output: 16, layers: 3, normalise, shared }
}

/// The default weights.
const OFFICIAL: Config = weights(25.0, 25.0, 1.0);

#[test]
fn loss_and_gradients_are_those_of_lightly() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 17.5746815041, [[-6.994237596838e+00, -1.163378547617e+00, -5.321785690604e+00, 1.198682713252e+01], [2.295608033462e+00, -4.212949046861e+00, 7.562495673467e+00, 1.253478889118e+01]]),
    (8, 5, 12.1456446446, [[-8.340583027200e-01, -1.333162182847e-01, -4.649862956118e-01, 3.148495527098e+00], [3.617659385205e-01, -5.139430032794e-01, 9.791993704863e-01, 4.163102843171e+00]]),
    (32, 16, 4.74196467028, [[2.892169223702e-02, 1.113793031892e-01, -7.916930265228e-02, 1.013113304519e+00], [1.998622353592e-02, 2.633835729457e-02, 6.455344240538e-03, 9.760646613185e-01]]),
    ];
    for ((n, d, loss, gradients), config) in golden.into_iter().zip([OFFICIAL, OFFICIAL, weights(1.0, 2.0, 30.0)]) {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        against_golden(&vicreg(&a, &b, &config), [&a, &b], loss, gradients);
    }
}

#[test]
fn normalised_embeddings_have_lightlys_loss_and_gradients_too() {
    #[rustfmt::skip]
    let golden = [
    (Normalise::Batch, 3, 2, 13.8507608145, [[-1.312850286297e+01, 8.630960407715e-01, 5.204038070371e+00, 1.624080064296e+01], [1.050798136275e+01, -1.245035661263e+00, 1.111215630399e+01, 2.653483452999e+01]]),
    (Normalise::Batch, 8, 5, 10.9199291384, [[-1.753825301948e+00, -1.208003937783e-01, 5.029154766213e-02, 6.312476010971e+00], [1.040692777331e+00, -1.802252899268e+00, 3.627077172299e-01, 7.950516186191e+00]]),
    (Normalise::Batch, 32, 16, 12.9572872492, [[-1.396803661603e-01, 3.771196376730e-02, -8.407770156650e-02, 2.115748538806e+00], [7.123246586231e-02, -1.041086224435e-01, 1.702305429572e-01, 2.180508633557e+00]]),
    (Normalise::Row, 3, 2, 14.2514638487, [[-7.460487868946e+00, 1.485892312476e+00, 7.964177334488e+00, 1.567646448858e+01], [5.947885752837e+00, -5.762720704230e+00, 1.580606170458e+01, 8.764720892083e+01]]),
    (Normalise::Row, 8, 5, 12.5391307531, [[-2.277307229115e+00, -1.224248521062e+00, -8.109824720866e-01, 6.168335670196e+00], [2.185230540019e+00, -1.170612698685e+00, 2.339857906089e+00, 8.288273396313e+00]]),
    (Normalise::Row, 32, 16, 13.6126555381, [[-1.173346085336e-01, -2.270059155727e-02, -5.506911629538e-02, 2.144757657089e+00], [5.518607611286e-02, -4.966898326312e-02, 1.328052957342e-01, 2.199961963654e+00]]),
    ];
    for (normalise, n, d, loss, gradients) in golden {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        against_golden(&vicreg(&a, &b, &Config { normalise, ..OFFICIAL }), [&a, &b], loss, gradients);
    }
}

/// The three losses that are called VICReg, and how weights turn this one into the others.
#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (a, b) = fixed();
    let (s, v, c) = terms(&a, &b);
    for (term, expected) in [
        (s, 1.019288),
        (variance(&a), 0.253311),
        (variance(&b), 0.751685),
        (v, (0.253311 + 0.751685) / 2.0),
        (c, 0.735220),
    ] {
        assert!((number(&term) - expected).abs() < 6e-7, "{expected}");
    }
    let d = 3.0;
    for (config, expected) in [
        (OFFICIAL, 38.779865),                      // the authors' code, lightly
        (weights(25.0, 50.0, 1.0), 51.342316),      // algorithm 1, solo-learn
        (weights(25.0 * d, 50.0, 1.0), 102.306704), // equation 5
    ] {
        let value = number(&vicreg(&a, &b, &config));
        assert!((value - expected).abs() < 6e-7, "{value}");
        // f32 has 7 digits of terms of this size.
        let single = number(&vicreg(&a.to_kind(Kind::Float), &b.to_kind(Kind::Float), &config));
        assert!((single / expected - 1.0).abs() < 1e-5, "{single}");
    }
}

#[test]
fn a_collapsed_embedding_costs_the_variance_alone_and_has_no_gradient() {
    // Every standard deviation is sqrt(1e-4) = 0.01 in place of 0: v = 0.99.
    let z = Tensor::ones([6, 4], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let loss = vicreg(&z, &z, &OFFICIAL);
    close(number(&loss), 24.75);
    close(number(&vicreg(&z, &z, &weights(25.0, 50.0, 1.0))), 49.5);
    loss.backward();
    assert_eq!(number(&z.grad().abs().max()), 0.0, "1e-4 below the root keeps it finite, and it is 0");
}

#[test]
fn equal_uncorrelated_views_of_unit_variance_cost_nothing() {
    // Three orthogonal columns of +-1 and mean 0; their unbiased variance is 4/3, above 1.
    let z = Tensor::from_slice(&[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0]).view([4, 3]);
    close(number(&vicreg(&z, &z, &OFFICIAL)), 0.0);
    // Two equal columns of variance 4/3: c = 2 (4/3)^2 / 2 a view. Divided by d, not d^2, and both views count.
    let twice = z.narrow(1, 0, 1).repeat([1, 2]);
    close(number(&vicreg(&twice, &twice, &OFFICIAL)), 2.0 * 16.0 / 9.0);
}

#[test]
fn the_variance_is_unbiased_and_stands_below_the_root_with_its_eps() {
    let z = Tensor::from_slice(&[0.0, 0.5]).view([2, 1]); // variance 0.125 unbiased, 0.0625 biased
    close(number(&variance(&z)), 1.0 - (0.125f64 + 1e-4).sqrt());
}

#[test]
fn scaling_moving_and_swapping() {
    let (a, b) = (matrix(0.2, 8, 5), matrix(0.9, 8, 5));
    let value = |a: &Tensor, b: &Tensor| number(&vicreg(a, b, &OFFICIAL));
    close(value(&b, &a), value(&a, &b));
    let by = matrix(0.3, 1, 5) * 3.0;
    close(value(&(&a + &by), &(&b + &by)), value(&a, &b));
    assert!((value(&(&a + &by), &b) - value(&a, &b)).abs() > 1e-2, "the invariance term is not centred");
    for z in [&a, &b] {
        close(number(&variance(&(z + &by))), number(&variance(z)));
        close(number(&covariance(&(z + &by))), number(&covariance(z)));
        assert_eq!(number(&variance(&(z * 1000.0))), 0.0);
        close(number(&covariance(&(z * 10.0))), 1e4 * number(&covariance(z)));
    }
    let order = Tensor::from_slice(&[3i64, 0, 5, 1, 4, 2, 7, 6]);
    close(value(&a.index_select(0, &order), &b.index_select(0, &order)), value(&a, &b));
}

#[test]
fn a_weight_of_zero_leaves_its_term_out() {
    let (a, b) = (leaf(0.2, 8, 5), leaf(0.9, 8, 5));
    let (s, v, c) = terms(&a, &b);
    close(number(&vicreg(&a, &b, &weights(2.0, 0.0, 0.0))), 2.0 * number(&s));
    close(number(&vicreg(&a, &b, &weights(0.0, 2.0, 0.0))), 2.0 * number(&v));
    close(number(&vicreg(&a, &b, &weights(0.0, 0.0, 2.0))), 2.0 * number(&c));
}

#[test]
fn the_loss_is_that_of_two_forwards_and_trains_everything() {
    let store = Store::new(0, Device::Cpu);
    let mut method = VicReg::new(OFFICIAL, &setup(&store, "convnet-tiny", 8)).expect("a method");
    let batch = batch(4);
    let Loss { total, parts } = method.loss(&batch, AT);
    let [z, z_] = [0, 1].map(|i| method.network.project(&batch.views[i].x, true));
    // The same operations in f32, in whatever order threads add: 7 digits of a loss of about 20.
    assert!((number(&total) - number(&vicreg(&z, &z_, &OFFICIAL))).abs() < 1e-4);
    assert_eq!(parts.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["invariance", "variance", "covariance"]);
    let sum = 25.0 * number(&parts[0].1) + 25.0 * number(&parts[1].1) + number(&parts[2].1);
    assert!((number(&total) - sum).abs() < 1e-4, "the parts are logged without their weights");
    total.backward();
    // The biases before a norm change nothing, so their gradients are 0 but for rounding: they have one all the same.
    for v in store.trainable() {
        assert!(v.tensor.grad().defined(), "{}", v.name);
        let biased = ["projector.0.bias", "projector.1.bias"].contains(&v.name.as_str());
        assert!(biased || number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
    }
    assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 16]);
    assert_eq!(method.views().len(), 2);
}

/// Table 5: two networks, of which evaluation sees the first; both are trained.
#[test]
fn branches_need_not_share_their_network() {
    let store = Store::new(0, Device::Cpu);
    let config = Config { shared: false, ..OFFICIAL };
    let mut method = VicReg::new(config.clone(), &setup(&store, "convnet-tiny", 8)).expect("a method");
    let batch = batch(4);
    let total = method.loss(&batch, AT).total;
    let second = method.second.as_ref().expect("a second network");
    let (z, z_) = (method.network.project(&batch.views[0].x, true), second.project(&batch.views[1].x, true));
    // As above: 7 digits of a loss of about 20.
    assert!((number(&total) - number(&vicreg(&z, &z_, &config))).abs() < 1e-4);
    assert_ne!(z, second.project(&batch.views[0].x, true), "they start apart");
    total.backward();
    for encoder in ["encoder", "second.encoder"] {
        let trained = store.below(encoder).into_iter().filter(|v| v.role != Role::Buffer);
        assert!(trained.map(|v| number(&v.tensor.grad().norm())).all(|norm| norm > 0.0), "{encoder}");
    }
    let (x, z) = (&batch.views[0].x, method.embedding(&batch.views[0].x).expect("an embedding"));
    assert_eq!(z, method.network.project(x, false));
}

#[test]
fn the_expander_is_as_deep_as_asked() {
    for layers in [1, 2, 3, 4] {
        let store = Store::new(0, Device::Cpu);
        VicReg::new(Config { layers, ..OFFICIAL }, &setup(&store, "convnet-tiny", 8)).expect("a method");
        let shapes: Vec<_> =
            store.below("projector").iter().map(|v| v.tensor.size()).filter(|s| s.len() == 2).collect();
        let mut expected = vec![vec![32, 32]; layers];
        expected[0][1] = 128;
        expected[layers - 1][0] = 16;
        assert_eq!(shapes, expected);
    }
}

#[test]
fn the_expander_ends_without_a_norm_and_a_bias() {
    let store = Store::new(0, Device::Cpu);
    VicReg::new(OFFICIAL, &setup(&store, "convnet-tiny", 8)).expect("a method");
    let names: Vec<String> = store.below("projector.2").into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["projector.2.weight"]);
    assert!(store.below("projector.1").iter().any(|v| v.name == "projector.1.bias"));
}

#[test]
fn unusable_numbers_are_refused() {
    let refusal = |config: &Config| VicReg::check(config).expect_err("a refusal").to_string();
    assert!(refusal(&weights(-1.0, 25.0, 1.0)).starts_with("invariance is -1"));
    assert!(refusal(&weights(25.0, f64::NAN, 1.0)).starts_with("variance is NaN"));
    assert!(refusal(&weights(25.0, 25.0, f64::INFINITY)).starts_with("covariance is inf"));
    assert!(refusal(&weights(0.0, 0.0, 0.0)).contains("at least one above 0"));
    assert!(refusal(&Config { layers: 0, ..OFFICIAL }).starts_with("layers is 0"));
    let one = leaf(0.2, 1, 3);
    let refused = VicReg::objective(&OFFICIAL, &given(&[("a", &one), ("b", &one)]));
    assert!(refused.expect_err("a refusal").to_string().contains("one row"));
}
