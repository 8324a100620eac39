//! BYOL against lightly and PyTorch (`tests/golden.py`), closed forms, and what may reach the target.

use super::*;
use selfsup_core::golden::{self, AT, against_golden, batch, close, close6, fixed, given, leaf, matrix, number};
use selfsup_core::store::Store;
use selfsup_core::{Device, Kind};

fn setup_with(store: &Store, config: Config) -> Byol {
    Byol::new(config, &golden::setup(store, "convnet-tiny", 8)).expect("a method")
}

fn setup(store: &Store) -> Byol {
    setup_with(store, Config { hidden: 32, output: 8, ..Config::default() })
}

#[test]
fn distance_and_gradients_are_those_of_lightly() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 0.434977828571, [[-4.455682663806e-01, -9.217178184165e-02, -2.335273456593e-01, 6.595640487022e-01], [3.196633665840e-01, -2.140788492144e-01, 4.244503425810e-01, 8.394921872923e-01]]),
    (8, 5, 0.384675466644, [[-8.856252836956e-02, -4.159924942018e-02, -2.507296370397e-02, 2.488986513990e-01], [7.091369916799e-02, -2.903348776525e-02, 7.723644879430e-02, 3.003362160786e-01]]),
    (32, 16, 0.493607957082, [[-4.668507186938e-03, -3.312192550010e-04, -3.028591431585e-03, 8.368079109911e-02], [3.309245012504e-03, -2.445335007195e-03, 4.604111506801e-03, 8.608769132856e-02]]),
    ];
    for (n, d, loss, gradients) in golden {
        let (p, z) = (leaf(0.2, n, d), leaf(0.9, n, d));
        against_golden(&distance(&p, &z), [&p, &z], loss, gradients);
    }
}

#[test]
fn with_negatives_loss_and_gradients_are_those_of_a_loop_over_rows() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 4.20280332465, [[-7.595095093440e-02, 2.778792799783e-02, 1.634287609477e-02, 6.352780558065e-01], [4.610958542799e-04, -2.721022281594e-04, 7.751052731797e-04, 1.978922333876e-02]]),
    (8, 5, 3.72596129337, [[-1.278818256072e-01, -4.242532447060e-02, -3.420619062294e-04, 3.611619106470e-01], [3.964869059584e-02, -1.650485716196e-02, 5.768967261544e-02, 1.732021959340e-01]]),
    (32, 16, 10.3854803114, [[-6.919818883795e-03, -2.732477918887e-04, -3.542607193290e-03, 1.199313538509e-01], [2.385824835158e-03, -1.477831015687e-03, 4.236702157417e-03, 6.261848088829e-02]]),
    ];
    let settings = [(1.0, 0.1), (0.5, 0.2), (1.0, 0.5)];
    for ((n, d, loss, gradients), (negatives, temperature)) in golden.into_iter().zip(settings) {
        let p = [leaf(0.2, n, d), leaf(0.9, n, d)];
        let z = [matrix(0.4, n, d), matrix(1.5, n, d)];
        let config = Config { negatives, temperature, ..Config::default() };
        against_golden(&both_directions(&p, &z, &config), [&p[0], &p[1]], loss, gradients);
    }
}

/// The loss of tensors by name.
fn objective(config: &Config, tensors: &[(&str, &Tensor)]) -> Result<Tensor> {
    Byol::objective(config, &given(tensors))
}

#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (a, b) = fixed();
    close6(number(&distance(&a, &b)), 2.031927);
    let loss = objective(&Config::default(), &[("a", &a), ("b", &b)]).expect("a loss");
    close6(number(&loss), 4.063855);
    // Without predictor, p = z: 4 + 4 alpha NT-Xent, which is 2.811568 at 0.5 and 10.044807 at 0.1.
    for (temperature, expected) in [(0.5, 9.623136), (0.1, 8.017923)] {
        let config = Config { negatives: 1.0, temperature, ..Config::default() };
        close6(number(&objective(&config, &[("a", &a), ("b", &b)]).expect("a loss")), expected);
    }
}

#[test]
fn the_loss_of_given_tensors_takes_targets_where_there_are_some_and_stops_their_gradient() {
    let (p_a, p_b) = (leaf(0.2, 4, 3), leaf(0.9, 4, 3));
    let (z_a, z_b) = (leaf(0.4, 4, 3), leaf(1.5, 4, 3));
    let config = Config::default();
    let all = [("a", &p_a), ("b", &p_b), ("target_a", &z_a), ("target_b", &z_b)];
    let loss = objective(&config, &all).expect("a loss");
    close(number(&loss), number(&(distance(&p_a, &z_b) + distance(&p_b, &z_a))));
    loss.backward();
    assert!(p_a.grad().defined() && !z_a.grad().defined() && !z_b.grad().defined());
    // Alone, a and b are targets too: the gradient is that of one side, half of the whole.
    let gradient = |loss: &Tensor| Tensor::run_backward(&[loss], &[&p_a], false, false).remove(0);
    let stopped = gradient(&objective(&config, &all[..2]).expect("a loss"));
    let whole = gradient(&(distance(&p_a, &p_b) + distance(&p_b, &p_a)));
    close(number(&(stopped * 2.0 - whole).norm()), 0.0);
    let refused = |tensors: &[(&str, &Tensor)]| objective(&config, tensors).expect_err("a refusal").to_string();
    assert!(refused(&all[..3]).contains("`target_b`"));
    let [one, other] = [p_a.narrow(0, 0, 1), p_b.narrow(0, 0, 1)];
    let alone = Config { negatives: 1.0, ..config.clone() };
    let error = objective(&alone, &[("a", &one), ("b", &other)]).expect_err("a refusal").to_string();
    assert!(error.starts_with("`a` and `b` have one row"), "{error}");
    drop(objective(&config, &[("a", &one), ("b", &other)]).expect("a cosine needs one row"));
    let short = leaf(0.4, 3, 3);
    let uneven = refused(&[("a", &p_a), ("b", &p_b), ("target_a", &short), ("target_b", &z_b)]);
    assert!(uneven.starts_with("`target_a` is [3, 3]; expected [4, 3]"), "{uneven}");
}

#[test]
fn a_rate_of_zero_makes_the_target_the_online_network_and_a_rate_of_one_leaves_it() {
    for (tau, same) in [(0.0, true), (1.0, false)] {
        let store = Store::new(0, Device::Cpu);
        let config = Config { tau, tau_end: tau, hidden: 32, output: 8, ..Config::default() };
        let mut method = setup_with(&store, config);
        for v in store.trainable() {
            let _ = no_grad(|| v.tensor.shallow_clone().g_add_scalar_(0.25));
        }
        method.after_step(AT);
        let x = &batch(4).views[0].x;
        // In training, batches normalise, so equal weights give equal outputs whatever the running statistics are.
        let (online, target) = no_grad(|| (method.online.project(x, true), method.target.project(x, true)));
        assert_eq!(online == target, same);
    }
}

#[test]
fn closed_forms_and_invariances() {
    let (p, z) = (matrix(0.2, 6, 4), matrix(0.9, 6, 4));
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
    setup(&store);
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
    for negatives in [0.0, 1.0] {
        let store = Store::new(0, Device::Cpu);
        let mut method = setup_with(&store, Config { hidden: 32, output: 8, negatives, ..Config::default() });
        // Also where the target's variables could take one.
        let target: Vec<Tensor> = store.below("target").into_iter().map(|v| v.tensor.set_requires_grad(true)).collect();
        let loss = method.loss(&batch(4), AT).total;
        loss.backward();
        assert!(target.iter().all(|t| !t.grad().defined()));
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    }
}

#[test]
fn the_loss_sums_both_directions_and_swapping_views_changes_nothing() {
    let loss = |swap: bool| {
        let store = Store::new(0, Device::Cpu);
        let mut method = setup(&store);
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
        let mut method = setup(&store);
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
    let mut method = setup(&store);
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
fn without_a_predictor_the_projections_are_the_predictions() {
    let store = Store::new(0, Device::Cpu);
    let bare = Config { hidden: 32, output: 8, predictor: false, ..Config::default() };
    let mut method = setup_with(&store, bare.clone());
    assert!(store.variables().iter().all(|v| !v.name.contains("predictor")));
    let batch = batch(4);
    let v = [&batch.views[0].x, &batch.views[1].x];
    let z = v.map(|v| method.online.project(v, true));
    assert_eq!(method.predict(&z[0]), z[0]);
    // The target is still equal to the online network, and training does not read running statistics.
    let targets = [z[0].detach(), z[1].detach()];
    let expected = number(&both_directions(&z, &targets, &bare));
    assert_eq!(number(&method.loss(&batch, AT).total), expected);
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 8]);
    assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
}

#[test]
fn heads_are_as_deep_as_asked_and_the_predictor_alone_has_its_own_rate() {
    for (layers, predictor_layers, predictor_rate) in [(2, 2, 1.0), (1, 3, 10.0), (3, 1, 0.5)] {
        let store = Store::new(0, Device::Cpu);
        let config = Config { layers, predictor_layers, predictor_rate, hidden: 32, output: 8, ..Config::default() };
        let mut method = setup_with(&store, config);
        let depth = |name: &str| store.below(name).iter().filter(|v| v.tensor.dim() == 2).count();
        assert_eq!(
            [depth("projector"), depth("target.projector"), depth("predictor")],
            [layers, layers, predictor_layers]
        );
        for v in store.variables() {
            let expected = if v.name.starts_with("predictor.") { predictor_rate } else { 1.0 };
            assert_eq!(v.rate, expected, "{}", v.name);
        }
        method.loss(&batch(4), AT).total.backward();
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    }
}

#[test]
fn unusable_numbers_are_refused() {
    for tau in [-0.1, 1.1, f64::NAN] {
        let refused = Byol::check(&Config { tau, ..Config::default() }).expect_err("a refusal").to_string();
        assert!(refused.starts_with("tau is"), "{refused}");
    }
    for (config, name) in [
        (Config { negatives: -1.0, ..Config::default() }, "negatives"),
        (Config { temperature: 0.0, ..Config::default() }, "temperature"),
        (Config { hidden: 0, ..Config::default() }, "hidden"),
        (Config { layers: 0, ..Config::default() }, "layers"),
        (Config { predictor_layers: 0, ..Config::default() }, "predictor_layers"),
        (Config { predictor_rate: 0.0, ..Config::default() }, "predictor_rate"),
    ] {
        let refused = Byol::check(&config).expect_err("a refusal").to_string();
        assert!(refused.starts_with(&format!("{name} is")), "{refused}");
    }
}
