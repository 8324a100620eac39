//! Barlow Twins against PyTorch and lightly (`tests/golden.py`), closed forms and invariances.

use super::*;
use selfsup_core::Device;
use selfsup_core::golden::{self, AT, against_golden, batch, close, close6, fixed, given, leaf, matrix, number};
use selfsup_core::store::Store;

/// The loss at the paper's settings.
fn plain(a: &Tensor, b: &Tensor) -> f64 {
    number(&barlow_twins(a, b, &Config::default()))
}

fn small() -> Config {
    Config { hidden: 32, output: 8, ..Config::default() }
}

fn setup(store: &Store, config: Config) -> BarlowTwins {
    BarlowTwins::new(config, &golden::setup(store, "convnet-tiny", 8)).expect("a method")
}

#[test]
fn loss_and_gradients_are_those_of_pytorch() {
    #[rustfmt::skip]
    let golden = [
    (3, 2, 0.179774028137, [[-4.721428668188e-01, 3.599285357517e-03, 1.871677533938e-01, 5.823985105970e-01], [3.869137483099e-01, -5.655088698914e-03, 4.092920938169e-01, 9.753066854819e-01]]),
    (8, 5, 0.2612904193, [[-4.849344290971e-02, 1.148098277881e-03, 2.801181889210e-04, 3.712079330041e-01], [3.768163806576e-02, -9.619170329678e-02, 2.652067388046e-03, 4.571655783665e-01]]),
    (32, 16, 1.03799195294, [[-3.126718016189e-02, 3.985546898550e-03, -1.437585656308e-02, 3.568986841062e-01], [1.599777353857e-02, -1.454566158649e-02, 3.049925424336e-02, 3.651169691595e-01]]),
    ];
    for (n, d, loss, gradients) in golden {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        against_golden(&barlow_twins(&a, &b, &Config::default()), [&a, &b], loss, gradients);
    }
}

#[test]
fn the_switches_have_pytorchs_loss_and_gradients_too() {
    let with = |normalise, invariance, redundancy| Config { normalise, invariance, redundancy, ..Config::default() };
    let (feature, off) = (with(Normalise::Feature, true, true), with(Normalise::Off, true, true));
    #[rustfmt::skip]
    let golden = [
    (&feature, 3, 2, 0.0102174504744, [[5.983697085356e-07, -5.983697085356e-07, 8.482567555919e-05, 2.690985429675e-04], [1.799444810751e-02, -1.799444810750e-02, 3.123722377981e-05, 2.544803096722e-02]]),
    (&feature, 8, 5, 0.262069022952, [[-1.496630110871e-01, 6.069233098894e-02, 3.110737323374e-02, 3.743301312561e-01], [-3.328711935663e-02, 8.759389141361e-02, 1.990516062065e-02, 4.418692801634e-01]]),
    (&feature, 32, 16, 1.20297650915, [[-3.157564288718e-02, 7.443697184648e-03, -1.901307942086e-03, 3.961629730913e-01], [4.905021888466e-03, -3.366378546701e-03, 2.626222669190e-02, 4.261597966744e-01]]),
    (&off, 3, 2, 1.21765645142, [[-2.749676115176e-01, -1.044166315739e-01, 2.695948861751e-01, 5.008845965799e-01], [-6.228371167380e-02, -2.596668106723e-01, 4.848762468527e-01, 8.909830035008e-01]]),
    (&off, 8, 5, 1.8975176554, [[-1.037906740974e-01, -7.568308875811e-02, 5.316537521554e-02, 5.760531074414e-01], [-1.571833333659e-02, -1.423306653110e-01, 8.895989487466e-02, 7.051937941335e-01]]),
    (&off, 32, 16, 6.65883306076, [[-3.236700329677e-02, -2.817843163552e-02, 1.598079465278e-02, 6.148133376285e-01], [-6.835238739359e-03, -4.113544098402e-02, 4.378969937332e-02, 6.310188672070e-01]]),
    (&with(Normalise::Batch, true, false), 8, 5, 0.245137439724, [[-4.724102856719e-02, 3.605946985400e-03, -4.796272354568e-04, 3.697181428070e-01], [3.909482141096e-02, -9.608736458597e-02, 1.530059293026e-03, 4.587732351089e-01]]),
    (&with(Normalise::Batch, false, true), 8, 5, 0.0161529795755, [[-1.252414342520e-03, -2.457848707519e-03, 7.597454243778e-04, 7.137666359784e-03], [-1.413183345200e-03, -1.043387108010e-04, 1.122008095020e-03, 7.054212693476e-03]]),
    ];
    for (config, n, d, loss, gradients) in golden {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        against_golden(&barlow_twins(&a, &b, config), [&a, &b], loss, gradients);
    }
}

#[test]
fn the_cross_entropy_over_the_entries_of_c_is_pytorchs() {
    #[rustfmt::skip]
    let golden = [
    (3, 2, 0.172334323401, [[-1.305422531389e-01, 3.400445370706e-01, 5.173826733086e-02, 5.127846780669e-01], [2.731661347296e-02, -5.464421310075e-01, 2.883295376112e-02, 7.335525933633e-01]]),
    (8, 5, -3.9223811183, [[-1.634757730039e-01, -5.942197651109e-02, -3.309527051716e-03, 6.019682887534e-01], [7.010016930484e-02, -6.638013023785e-02, 1.391494819977e-01, 6.628558089978e-01]]),
    (32, 16, -4.04024788152, [[-2.364196445420e-02, 2.469318915234e-02, -1.425428370132e-02, 5.099887024536e-01], [-1.688175576856e-04, -2.001164172316e-02, 2.517591417455e-02, 5.351730820540e-01]]),
    ];
    for ((n, d, loss, gradients), (lambda, temperature)) in golden.into_iter().zip([(1.0, 0.5), (0.5, 0.2), (1.0, 0.1)])
    {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        let config = Config { lambda, temperature, ..Config::default() };
        against_golden(&barlow_twins(&a, &b, &config), [&a, &b], loss, gradients);
    }
    // C = I: -log(D e^(1 / t)) + log(D (D - 1)).
    let basis = Tensor::eye(3, (Kind::Double, Device::Cpu));
    let (on, off) = parts(&basis, 0.5);
    close(number(&on), -2.0 - 3f64.ln());
    close(number(&off), 6f64.ln());
}

/// Table 6, and VICReg's table 5: what is switched on is there, trained where a gradient reaches it, and no more.
#[test]
fn branches_may_differ() {
    for (predictor, stop_gradient, shared) in
        [(true, false, true), (false, true, true), (true, true, true), (false, false, false)]
    {
        let store = Store::new(0, Device::Cpu);
        let mut method = setup(&store, Config { predictor, stop_gradient, shared, ..small() });
        let batch = batch(4);
        let loss = method.loss(&batch, AT);
        let z = |network: &Network, view: usize| network.project(&batch.views[view].x, true);
        let z_a = z(&method.network, 0);
        let z_a = method.predictor.as_ref().map_or(z_a.shallow_clone(), |h| h.forward(&z_a, true));
        let z_b = z(method.second.as_ref().unwrap_or(&method.network), 1);
        let expected = number(&barlow_twins(&z_a, &z_b, &small()));
        // The same f32 operations: batch statistics, which no running ones enter.
        assert!((number(&loss.total) / expected - 1.0).abs() < 1e-5, "{predictor} {stop_gradient} {shared}");
        loss.total.backward();
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
        assert_eq!(store.below("predictor").is_empty(), !predictor);
        assert_eq!(store.below("second").is_empty(), shared);
        // Through the first view alone, or through both: the gradient of the encoder says which.
        let first = store.below("encoder").remove(0).tensor;
        let (whole, z_b) = (first.grad().copy(), if stop_gradient { z_b.detach() } else { z_b });
        let own = Tensor::run_backward(&[barlow_twins(&z_a, &z_b, &small())], &[&first], false, false).remove(0);
        assert!(number(&(&whole - &own).norm()) < 1e-4 * number(&whole.norm()), "{predictor} {stop_gradient} {shared}");
    }
}

#[test]
fn the_two_parts_add_up_and_the_command_knows_lambda() {
    let (a, b) = (leaf(0.2, 8, 5), leaf(0.9, 8, 5));
    let loss =
        |config: &Config| number(&BarlowTwins::objective(config, &given(&[("a", &a), ("b", &b)])).expect("a loss"));
    let base = Config { lambda: 0.02, scale: 0.1, ..Config::default() }; // `scale` is the trainer's alone
    let (on, off) = (Config { redundancy: false, ..base.clone() }, Config { invariance: false, ..base.clone() });
    close(loss(&on) + loss(&off), loss(&base));
    close(loss(&Config { lambda: 0.04, ..off.clone() }), 2.0 * loss(&off));
}

#[test]
fn with_features_normalised_the_scale_of_a_row_does_not_matter_and_that_of_a_column_does() {
    let (a, b) = (matrix(0.2, 8, 5), matrix(0.9, 8, 5));
    let config = Config { normalise: Normalise::Feature, ..Config::default() };
    let loss = |a: &Tensor| number(&barlow_twins(a, &b, &config));
    let (rows, columns) = (matrix(0.3, 8, 1) + 2.0, matrix(0.3, 1, 5) + 2.0);
    // A scale changes eps relative to the variance of about 0.5.
    assert!((loss(&(&a * rows)) / loss(&a) - 1.0).abs() < 1e-3);
    assert!((loss(&(&a * columns)) / loss(&a) - 1.0).abs() > 1e-2);
}

#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (a, b) = fixed();
    close6(plain(&a, &b), 4.500187);
    let (on, off) = parts(&cross_correlation(&a, &b, Normalise::Batch), 0.0);
    close6(number(&on), 4.495006);
    close6(number(&off), 1.015983);
    let single = plain(&a.to_kind(Kind::Float), &b.to_kind(Kind::Float));
    assert!((single / 4.500187 - 1.0).abs() < 1e-5, "{single}");
}

#[test]
fn equal_views_with_uncorrelated_columns_have_no_loss_but_eps() {
    let z = Tensor::from_slice(&[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0]).view([4, 3]);
    // C_ii = 1 / (1 + eps), so the loss is D eps^2 to first order.
    assert!((plain(&z, &z) - 3e-10).abs() < 1e-13);
    let flipped = &z * Tensor::from_slice(&[1.0, -1.0, 1.0]);
    assert!((plain(&z, &flipped) - 4.0).abs() < 1e-4, "C_ii = -1 costs 4");
}

#[test]
fn duplicated_columns_cost_lambda_for_each_ordered_pair() {
    for d in [3, 6] {
        let column = matrix(0.2, 8, 1);
        let z = column.expand([8, d], false).contiguous();
        let expected = 0.0051 * (d * (d - 1)) as f64;
        // Each C_ij is 1 / (1 + eps / variance), with a variance of about 0.5.
        assert!((plain(&z, &z) / expected - 1.0).abs() < 1e-4);
    }
}

#[test]
fn swapping_permuting_and_affine_maps_change_nothing() {
    let (a, b) = (matrix(0.2, 8, 4), matrix(0.9, 8, 4));
    let loss = plain;
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
    let (on, off) = parts(&cross_correlation(&leaf(0.2, 8, 1), &leaf(0.9, 8, 1), Normalise::Batch), 0.0);
    assert!(number(&on) > 0.0 && number(&off) == 0.0);
}

#[test]
fn a_constant_column_stays_finite() {
    let a = Tensor::ones([8, 4], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let loss = barlow_twins(&a, &leaf(0.9, 8, 4), &Config::default());
    close(number(&loss), 4.0); // C = 0
    assert!(number(&Tensor::run_backward(&[&loss], &[&a], false, false)[0].norm()).is_finite());
}

#[test]
fn the_loss_is_scaled_its_parts_are_not_and_everything_is_trained() {
    let run = |scale| {
        let store = Store::new(0, Device::Cpu);
        let mut method = setup(&store, Config { scale, ..small() });
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
fn every_switch_trains_everything() {
    for config in [
        Config { norm: false, ..small() },
        Config { normalise: Normalise::Feature, ..small() },
        Config { normalise: Normalise::Off, ..small() },
        Config { redundancy: false, ..small() },
        Config { invariance: false, ..small() },
    ] {
        let store = Store::new(0, Device::Cpu);
        let mut method = setup(&store, config.clone());
        assert_eq!(store.below("projector").iter().any(|v| v.name.contains("norm")), config.norm);
        let loss = method.loss(&batch(4), AT);
        assert_eq!(loss.parts.len(), 2, "both parts are recorded, whichever counts");
        loss.total.backward();
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0), "{config:?}");
    }
}

#[test]
fn the_projector_is_as_deep_as_asked_and_unusable_numbers_are_refused() {
    for layers in [1, 2, 3] {
        let store = Store::new(0, Device::Cpu);
        setup(&store, Config { layers, ..small() });
        assert_eq!(store.below("projector").iter().filter(|v| v.tensor.dim() == 2).count(), layers);
    }
    for (config, start) in [
        (Config { lambda: -1.0, ..small() }, "lambda is"),
        (Config { scale: 0.0, ..small() }, "scale is"),
        (Config { temperature: -1.0, ..small() }, "temperature is"),
        (Config { temperature: 0.1, output: 1, ..small() }, "output is 1; expected at least 2"),
        (Config { output: 0, ..small() }, "output is"),
        (Config { layers: 0, ..small() }, "layers is"),
        (Config { invariance: false, redundancy: false, ..small() }, "invariance and redundancy are both false"),
    ] {
        let refused = BarlowTwins::check(&config).expect_err("a refusal").to_string();
        assert!(refused.starts_with(start), "{refused}");
    }
    let one = given(&[("a", &matrix(0.2, 1, 3)), ("b", &matrix(0.9, 1, 3))]);
    let refused = BarlowTwins::objective(&small(), &one).expect_err("a refusal").to_string();
    assert!(refused.starts_with("`a` and `b` have one row"), "{refused}");
    let store = Store::new(0, Device::Cpu);
    let method = setup(&store, small());
    let x = &batch(4).views[0].x;
    assert_eq!(
        (method.features(x, false).size(), method.embedding(x).map(|z| z.size())),
        (vec![4, 128], Some(vec![4, 8]))
    );
}
