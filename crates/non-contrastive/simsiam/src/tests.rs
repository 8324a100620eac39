//! SimSiam's loss against lightly and PyTorch (`tests/golden.py`), closed forms and what has a gradient.

use super::*;
use selfsup_core::Device;
use selfsup_core::golden::{AT, against_golden, batch, close, fixed, given, leaf, number, setup, views};
use selfsup_core::store::Store;

fn small(config: Config) -> Config {
    Config { hidden: 32, output: 16, predictor_hidden: 8, ..config }
}

#[test]
fn loss_and_gradients_are_those_of_lightly() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, -0.906828184348, [[-6.420851443003e-02, -1.328239381250e-02, -3.365240542235e-02, 9.002212109984e-02], [6.134572592580e-02, -4.108328880709e-02, 8.145510905217e-02, 1.656306249334e-01]]),
    (8, 5, -0.917552497744, [[-1.170289511507e-02, -5.497038779182e-03, -3.313210111020e-03, 3.543286711710e-02], [1.451689871161e-02, -5.943508885842e-03, 1.581124263924e-02, 5.926024794805e-02]]),
    (32, 16, -0.893676762592, [[-6.886582782932e-04, -4.885863355307e-05, -4.467519224913e-04, 1.271936770731e-02], [6.176826657410e-04, -4.564307085655e-04, 8.593742252821e-04, 1.632516017221e-02]]),
    ];
    for (n, d, loss, gradients) in golden {
        let [a, b, c, e] = [0.2, 0.9, 0.4, 0.6].map(|phase| leaf(phase, n, d));
        let config = Config::default();
        against_golden(&siamese([&a, &b], [&c, &e], &config), [&a, &b], loss, gradients);
    }
}

#[test]
fn without_the_stop_gradient_the_targets_have_one_too() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, -0.906828184348, [[-6.420851443003e-02, -1.328239381250e-02, -3.365240542235e-02, 9.002212109984e-02], [6.134572592580e-02, -4.108328880709e-02, 8.145510905217e-02, 1.656306249334e-01], [-8.374769602361e-02, -3.261784322344e-03, -5.678659941584e-02, 1.362820176169e-01], [5.892351654216e-02, -1.000551383692e-02, 5.123200569205e-02, 1.005504269476e-01]]),
    (8, 5, -0.917552497744, [[-1.170289511507e-02, -5.497038779182e-03, -3.313210111020e-03, 3.543286711710e-02], [1.451689871161e-02, -5.943508885842e-03, 1.581124263924e-02, 5.926024794805e-02], [-1.909894292707e-02, -6.540983025295e-03, -7.635184699882e-03, 4.995304378079e-02], [1.237970254917e-02, 2.007336448833e-03, 6.995892769928e-03, 3.781272375964e-02]]),
    (32, 16, -0.893676762592, [[-6.886582782932e-04, -4.885863355307e-05, -4.467519224913e-04, 1.271936770731e-02], [6.176826657410e-04, -4.564307085655e-04, 8.593742252821e-04, 1.632516017221e-02], [-8.306745919120e-04, 8.519862834459e-05, -6.710326457380e-04, 1.599634595069e-02], [6.054202574100e-04, -1.847491648073e-04, 6.015257653273e-04, 1.292145414122e-02]]),
    ];
    let config = Config { stop_gradient: false, ..Config::default() };
    for (n, d, loss, gradients) in golden {
        let [a, b, c, e] = [0.2, 0.9, 0.4, 0.6].map(|phase| leaf(phase, n, d));
        against_golden(&siamese([&a, &b], [&c, &e], &config), [&a, &b, &c, &e], loss, gradients);
    }
}

#[test]
fn with_cross_entropy_loss_and_gradients_are_those_of_pytorch() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 0.995635498463, [[-1.917393100112e-02, 2.454832385665e-02, -5.374392855526e-03, 4.162031882945e-02], [2.544017037373e-02, -3.673200073678e-02, 1.129183036305e-02, 5.801523809671e-02]]),
    (8, 5, 1.45287788601, [[-4.171107544430e-03, 1.873831760362e-03, -1.266359363115e-03, 1.588579087907e-02], [5.416221226495e-03, -4.458409758165e-03, 2.318180774193e-03, 1.918749365727e-02]]),
    (32, 16, 2.62467128993, [[-3.511158833110e-04, 1.760049691811e-04, -1.060873785625e-04, 5.875860462084e-03], [4.704988546686e-04, -3.795307047725e-04, 2.011785300988e-04, 7.418987509470e-03]]),
    ];
    let config = Config { similarity: Similarity::CrossEntropy, ..Config::default() };
    for (n, d, loss, gradients) in golden {
        let [a, b, c, e] = [0.2, 0.9, 0.4, 0.6].map(|phase| leaf(phase, n, d));
        against_golden(&siamese([&a, &b], [&c, &e], &config), [&a, &b], loss, gradients);
    }
}

#[test]
fn vicregs_terms_are_of_the_projections_which_they_alone_reach() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 0.601101593749, [[-6.420851443003e-02, -1.328239381250e-02, -3.365240542235e-02, 9.002212109984e-02], [6.134572592580e-02, -4.108328880709e-02, 8.145510905217e-02, 1.656306249334e-01], [2.791744930275e-02, -1.963587699346e-01, -2.123122061764e-01, 4.108834954030e-01], [-3.923568000341e-02, -1.710348847616e-01, -2.033414314450e-01, 3.798423571242e-01]]),
    (8, 5, -0.0465237424197, [[-1.170289511507e-02, -5.497038779182e-03, -3.313210111020e-03, 3.543286711710e-02], [1.451689871161e-02, -5.943508885842e-03, 1.581124263924e-02, 5.926024794805e-02], [-3.311887997500e-02, -4.430791947557e-02, 3.908733941146e-02, 2.016776729503e-01], [-3.646468783573e-02, -4.727022758320e-02, 3.714574166228e-02, 2.027012468526e-01]]),
    (32, 16, 0.0737113120392, [[-6.886582782932e-04, -4.885863355307e-05, -4.467519224913e-04, 1.271936770731e-02], [6.176826657410e-04, -4.564307085655e-04, 8.593742252821e-04, 1.632516017221e-02], [-1.071376842798e-03, -2.736831985611e-03, 2.658114037637e-03, 6.114468591856e-02], [-1.950052962658e-03, -2.740359287315e-03, 2.217317061002e-03, 6.109021312992e-02]]),
    ];
    let config = Config { variance: 3.0, covariance: 0.5, ..Config::default() };
    for (n, d, loss, gradients) in golden {
        let [a, b, c, e] = [0.2, 0.9, 0.4, 0.6].map(|phase| leaf(phase, n, d));
        against_golden(&siamese([&a, &b], [&c, &e], &config), [&a, &b, &c, &e], loss, gradients);
    }
}

#[test]
fn the_fixed_input_gives_the_reference_value() {
    let (a, b) = fixed();
    let value = |a: &Tensor, b: &Tensor| number(&siamese([a, b], [a, b], &Config::default()));
    assert!((value(&a, &b) - 0.015964).abs() < 6e-7);
    // f32 rounds cosines of about 0.2, of which those of opposite sign cancel.
    assert!((value(&a.to_kind(Kind::Float), &b.to_kind(Kind::Float)) - 0.015964).abs() < 1e-6);
}

#[test]
fn closed_forms() {
    let config = Config::default();
    let z = leaf(0.2, 6, 4);
    close(number(&siamese([&z, &z], [&z, &z], &config)), -1.0);
    close(number(&siamese([&z, &z], [&-&z, &-&z], &config)), 1.0);
    let basis = Tensor::eye(4, (Kind::Double, Device::Cpu));
    let turned = basis.roll([1], [0]);
    close(number(&siamese([&basis, &basis], [&turned, &turned], &config)), 0.0);
    // Only the direction of a row counts.
    close(number(&siamese([&(&z * 7.0), &z], [&(&z * 0.1), &z], &config)), -1.0);
}

#[test]
fn no_gradient_reaches_the_targets() {
    let [a, b, c, e] = [0.2, 0.9, 0.4, 0.6].map(|phase| leaf(phase, 6, 4));
    siamese([&a, &b], [&c, &e], &Config::default()).backward();
    assert!(a.grad().defined() && b.grad().defined());
    assert!(!c.grad().defined() && !e.grad().defined());
}

/// With p = z, each term of the symmetric loss passes one of its two gradients on: half of those without the
/// stop-gradient. It has the same minimum, all rows equal.
#[test]
fn with_the_identity_for_a_predictor_the_stop_gradient_halves_the_gradient() {
    let (a, b) = (leaf(0.2, 6, 4), leaf(0.9, 6, 4));
    let gradients = |stop_gradient| {
        let loss = siamese([&a, &b], [&a, &b], &Config { stop_gradient, ..Config::default() });
        Tensor::run_backward(&[&loss], &[&a, &b], false, false)
    };
    for (half, whole) in gradients(true).iter().zip(gradients(false)) {
        assert!(number(&(half * 2.0 - whole).abs().max()) < 1e-12);
    }
}

#[test]
fn an_asymmetric_loss_predicts_the_second_view_from_the_first() {
    let [a, b, c, e] = [0.2, 0.9, 0.4, 0.6].map(|phase| leaf(phase, 6, 4));
    let config = Config { symmetric: false, ..Config::default() };
    let loss = siamese([&a, &b], [&c, &e], &config);
    close(number(&loss), number(&siamese([&a, &a], [&e, &e], &Config::default())));
    loss.backward();
    assert!(a.grad().defined() && !b.grad().defined());
}

#[test]
fn the_loss_is_that_of_two_forwards_and_trains_everything() {
    let store = Store::new(0, Device::Cpu);
    let mut method = SimSiam::new(small(Config::default()), &setup(&store, "convnet-tiny", 8)).expect("a method");
    let batch = batch(4);
    let Loss { total, parts } = method.loss(&batch, AT);
    let [z_1, z_2] = [0, 1].map(|i| method.network.project(&batch.views[i].x, true));
    let (p_1, p_2) = (method.predict(&z_1), method.predict(&z_2));
    let expected = siamese([&p_1, &p_2], [&z_1, &z_2], &method.config);
    // The same operations in f32, in whatever order threads add.
    assert!((number(&total) - number(&expected)).abs() < 1e-5);
    assert_eq!(parts[0].0, "std");
    assert!(!parts[0].1.requires_grad());
    total.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 16]);
    assert_eq!(method.views().len(), 2);
}

#[test]
fn asymmetric_twice_is_the_mean_over_two_pairs_of_views() {
    let store = Store::new(0, Device::Cpu);
    let config = small(Config { symmetric: false, pairs: 2, ..Config::default() });
    let mut method = SimSiam::new(config, &setup(&store, "convnet-tiny", 8)).expect("a method");
    assert_eq!(method.views().len(), 4);
    let batch = Batch { views: views(4, &[0.1, 0.2, 0.3, 0.4]), ..batch(4) };
    let total = method.loss(&batch, AT).total;
    let z = |i: usize| method.network.project(&batch.views[i].x, true);
    let d = |a: usize, b: usize| siamese([&method.predict(&z(a)); 2], [&z(b); 2], &Config::default());
    // The same operations in f32, in whatever order threads add.
    assert!((number(&total) - number(&((d(0, 1) + d(2, 3)) / 2.0))).abs() < 1e-5);
    let mut setup = setup(&store, "convnet-tiny", 8);
    setup.views = vec![Recipe::default(); 2];
    let refused = SimSiam::new(small(Config { pairs: 2, ..Config::default() }), &setup).err().expect("a refusal");
    assert!(refused.to_string().starts_with("`views` has 2 recipes, but the loss takes 4"), "{refused}");
}

/// Trained variables below `place`, without it.
fn trained(config: Config, place: &str) -> Vec<String> {
    let store = Store::new(0, Device::Cpu);
    SimSiam::new(small(config), &setup(&store, "convnet-tiny", 8)).expect("a method");
    let below = store.trainable().into_iter().filter_map(|v| Some(v.name.strip_prefix(place)?.to_string()));
    below.collect()
}

#[test]
fn the_heads_have_norms_and_biases_where_the_paper_has_them() {
    let style = |norm, place| trained(Config { norm, layers: 2, ..Config::default() }, place);
    let hidden = ["0.weight", "0.norm.weight", "0.norm.bias", "1.weight"];
    assert_eq!(style(Norm::Default, "projector."), hidden, "the last norm has neither weight nor bias");
    let biased = [&hidden[..], &["1.bias"]].concat();
    assert_eq!(style(Norm::Hidden, "projector."), biased);
    assert_eq!(style(Norm::Default, "predictor."), biased, "the predictor ends without a norm");
    assert_eq!(style(Norm::Hidden, "predictor."), biased);
    assert_eq!(style(Norm::All, "projector."), hidden);
    assert_eq!(style(Norm::All, "predictor."), hidden, "and the predictor with one like the projector's");
    let bare = ["0.weight", "0.bias", "1.weight", "1.bias"];
    assert_eq!(style(Norm::None, "projector."), bare);
    assert_eq!(style(Norm::None, "predictor."), bare);
    assert_eq!(trained(Config::default(), "projector.").iter().filter(|name| name.ends_with("norm.weight")).count(), 2);
}

#[test]
fn the_projections_are_centred_and_scaled_over_each_view() {
    let store = Store::new(0, Device::Cpu);
    let method = SimSiam::new(small(Config::default()), &setup(&store, "convnet-tiny", 8)).expect("a method");
    let z = method.network.project(&batch(4).views[0].x, true);
    // f32, and 1e-5 beside variances that an untrained network makes as small as 1e-3.
    assert!(number(&z.mean_dim([0].as_slice(), false, Kind::Float).abs().max()) < 1e-4);
    assert!(number(&(z.std_dim([0].as_slice(), false, false) - 1.0).abs().max()) < 2e-2);
}

#[test]
fn the_predictors_rate_is_fixed_or_not_and_nothing_elses() {
    for fixed_rate in [true, false] {
        let store = Store::new(0, Device::Cpu);
        let config = small(Config { fixed_rate, ..Config::default() });
        SimSiam::new(config, &setup(&store, "convnet-tiny", 8)).expect("a method");
        for v in store.trainable() {
            assert_eq!(v.fixed_rate, fixed_rate && v.name.starts_with("predictor."), "{}", v.name);
        }
    }
}

#[test]
fn a_fixed_predictor_is_random_and_passes_a_gradient_on() {
    let store = Store::new(0, Device::Cpu);
    let config = small(Config { predictor: Predictor::Fixed, ..Config::default() });
    let mut method = SimSiam::new(config, &setup(&store, "convnet-tiny", 8)).expect("a method");
    method.loss(&batch(4), AT).total.backward();
    assert!(store.trainable().iter().all(|v| !v.name.starts_with("predictor.")));
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    assert!(store.below("predictor").iter().any(|v| number(&v.tensor.std(false)) > 0.0));
}

#[test]
fn without_a_predictor_the_prediction_is_the_projection() {
    assert!(trained(Config { predictor: Predictor::None, ..Config::default() }, "predictor.").is_empty());
    let store = Store::new(0, Device::Cpu);
    let config = small(Config { predictor: Predictor::None, ..Config::default() });
    let mut method = SimSiam::new(config, &setup(&store, "convnet-tiny", 8)).expect("a method");
    let z = leaf(0.2, 4, 16);
    assert_eq!(method.predict(&z), z);
    method.loss(&batch(4), AT).total.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
}

#[test]
fn the_logged_spread_is_one_on_the_sphere_and_zero_at_collapse() {
    // Rows +-e_j: each column holds 1 and -1 once and 2D - 2 zeros, variance 2 / (2D - 1) unbiased.
    let basis = Tensor::eye(64, (Kind::Float, Device::Cpu));
    let value = number(&spread(&Tensor::cat(&[&basis, &-&basis], 0)));
    assert!((value - (2.0 / 127.0f64).sqrt() * 8.0).abs() < 1e-5, "{value}");
    assert!(number(&spread(&Tensor::ones([8, 5], (Kind::Float, Device::Cpu)))) < 1e-6);
}

#[test]
fn the_objective_takes_targets_or_does_without() {
    let [a, b, c, e] = [0.2, 0.9, 0.4, 0.6].map(|phase| leaf(phase, 6, 4));
    let config = Config::default();
    let alone = SimSiam::objective(&config, &given(&[("a", &a), ("b", &b)])).expect("a loss");
    close(number(&alone), number(&siamese([&a, &b], [&a, &b], &config)));
    let all = [("a", &a), ("b", &b), ("target_a", &c), ("target_b", &e)];
    let loss = SimSiam::objective(&config, &given(&all)).expect("a loss");
    close(number(&loss), number(&siamese([&a, &b], [&c, &e], &config)));
    let refused = |target: &Tensor| {
        let refusal = SimSiam::objective(&config, &given(&[("a", &a), ("b", &b), ("target_b", target)]));
        refusal.expect_err("a refusal").to_string()
    };
    assert!(refused(&leaf(0.1, 5, 4)).contains("`target_b` has 5 rows; expected 6"));
    assert!(refused(&leaf(0.1, 6, 3)).contains("`target_b` has 3 columns"));
}

#[test]
fn unusable_numbers_are_refused() {
    let starts = |config: &Config, key: &str| {
        let refusal = SimSiam::check(config).expect_err("a refusal").to_string();
        assert!(refusal.starts_with(&format!("{key} is ")), "{refusal}");
    };
    starts(&Config { layers: 0, ..Config::default() }, "layers");
    starts(&Config { hidden: 0, ..Config::default() }, "hidden");
    starts(&Config { output: -1, ..Config::default() }, "output");
    starts(&Config { predictor_hidden: 0, ..Config::default() }, "predictor_hidden");
}
