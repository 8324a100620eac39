//! MoCo's loss against PyTorch and lightly (`tests/golden.py`), closed forms, the queue, the groups, and what may reach
//! the keys.

use super::*;
use selfsup_core::Device;
use selfsup_core::golden::{self, AT, close, fill, fixed, given, gradient_is, leaf, matrix, number};
use selfsup_core::store::Store;

/// The same images through a network in other company: sums of the same f32 in another order, at a depth of a few
/// layers, on unit rows.
fn same(a: &Tensor, b: &Tensor) {
    assert!(distance(a, b) < 1e-5, "{a:?} {b:?}: {}", distance(a, b));
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    number(&(a - b).abs().max())
}

fn objective(config: &Config, a: &Tensor, b: &Tensor, queue: &Tensor) -> Result<Tensor> {
    MoCo::objective(config, &given(&[("a", a), ("b", b), ("queue", queue)]))
}

fn at(temperature: f64) -> Config {
    Config { temperature, ..Config::default() }
}

fn small() -> Config {
    Config { queue: 10, hidden: 32, output: 8, groups: 1, tau: 0.5, tau_end: 0.5, ..Config::default() }
}

fn build(store: &Store, config: Config) -> MoCo {
    MoCo::check(&config).expect("usable numbers");
    MoCo::new(config, &golden::setup(store, "convnet-tiny", 64)).expect("a method")
}

fn batch(n: usize, epoch: u64) -> Batch {
    Batch { epoch, ..golden::batch(n) }
}

#[test]
fn loss_and_gradient_are_those_of_pytorch_and_lightly() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 5, 0.2, 1.54973608742, [-6.397143670665e-01, -1.122386544622e-01, -3.093427870764e-01, 9.489940343421e-01]),
    (8, 5, 16, 0.07, 2.62227229799, [-4.976733074968e-01, -2.768773119192e-01, -1.661454426933e-01, 1.096497308820e+00]),
    (32, 16, 100, 0.2, 2.23716459599, [-7.204546437730e-03, -2.309641795292e-03, -4.245619212942e-03, 1.661251868309e-01]),
    ];
    for (n, d, k, t, expected, gradient) in golden {
        let (a, b, queue) = (leaf(0.2, n, d), leaf(0.9, n, d), normalise(&matrix(0.5, k, d)));
        let loss = objective(&at(t), &a, &b, &queue).expect("a loss");
        close(number(&loss), expected);
        loss.backward();
        gradient_is(&a.grad(), gradient);
        assert!(!b.grad().defined(), "keys get no gradient");
    }
}

#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (a, b) = fixed();
    let queue = normalise(&fill(5, |m| (0.5 * m + 2.0).sin()));
    for (t, expected) in [(0.07, 14.270601), (0.2, 5.487980)] {
        let value = number(&objective(&at(t), &a, &b, &queue).expect("a loss"));
        assert!((value - expected).abs() < 6e-7, "{value} is not {expected}, which has six decimals");
        let single = |x: &Tensor| x.to_kind(Kind::Float);
        let value = number(&objective(&at(t), &single(&a), &single(&b), &single(&queue)).expect("a loss"));
        // f32 rounds similarities of up to 1 / temperature.
        assert!((value / expected - 1.0).abs() < 1e-5, "{value}");
    }
}

#[test]
fn closed_forms() {
    let ones = |n: i64| Tensor::ones([n, 4], (Kind::Double, Device::Cpu));
    for k in [1, 7, 50] {
        // Query, key and queue are one vector: every logit is 1 / t.
        close(
            number(&objective(&at(0.07), &ones(3), &ones(3), &(ones(k) / 2.0)).expect("a loss")),
            ((k + 1) as f64).ln(),
        );
        // The key is the query, the queue is opposite to it: log(1 + K e^(-2 / t)).
        let value = number(&objective(&at(0.5), &ones(3), &ones(3), &(-ones(k) / 2.0)).expect("a loss"));
        close(value, (1.0 + k as f64 * (-4.0f64).exp()).ln());
    }
}

#[test]
fn lengths_and_order_of_the_queue_change_nothing() {
    let (a, b, queue) = (leaf(0.2, 6, 4), leaf(0.9, 6, 4), normalise(&matrix(0.5, 9, 4)));
    let loss = |a: &Tensor, b: &Tensor, queue: &Tensor| number(&objective(&at(0.2), a, b, queue).expect("a loss"));
    let expected = loss(&a, &b, &queue);
    close(loss(&(&a * 3.0), &(&b * 0.1), &queue), expected);
    close(loss(&a, &b, &queue.flip([0])), expected);
    let (q, _) = Tensor::linalg_qr(&matrix(0.5, 4, 4), "reduced");
    close(loss(&a.matmul(&q), &b.matmul(&q), &queue.matmul(&q)), expected);
    assert!((loss(&b, &a, &queue) - expected).abs() > 1e-3, "queries and keys are not interchangeable");
}

#[test]
fn the_loss_is_that_of_the_queries_and_reads_the_queue_before_the_keys_enter() {
    let store = Store::new(0, Device::Cpu);
    let mut method = build(&store, small());
    let (batch, queue) = (batch(4, 0), method.queues[0].rows());
    let loss = method.loss(&batch, AT);
    let pass = |network: &Network, i: usize| no_grad(|| network.project(&batch.views[i].x, true));
    let (q, k) = (pass(&method.query, 0), pass(&method.key, 1));
    let expected = objective(&method.config, &q, &k, &queue).expect("a loss");
    assert!((number(&loss.total) - number(&expected)).abs() < 1e-5, "{:?} {expected:?}", loss.total);
    same(&method.queues[0].rows(), &Tensor::cat(&[queue.narrow(0, 4, 6), normalise(&k)], 0));
    loss.total.backward(); // after the push: the graph holds the queue as it was
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    let idle: Vec<_> =
        store.variables().into_iter().filter(|v| v.name.starts_with("key.") || v.name == "queue").collect();
    assert!(idle.len() > 10 && idle.iter().all(|v| !v.tensor.requires_grad()));
    assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 8]);
}

#[test]
fn the_queue_keeps_unit_rows_of_any_number() {
    let store = Store::new(0, Device::Cpu);
    let mut method = build(&store, small());
    let lengths = |method: &MoCo| method.queues[0].rows().norm_scalaropt_dim(2.0, [-1].as_slice(), false);
    let mut rows = method.queues[0].rows();
    for n in [4, 7, 12, 3] {
        let _loss = no_grad(|| method.loss(&batch(n, 0), AT)); // 10 is a multiple of none of them
        let next = method.queues[0].rows();
        let kept = (10 - n as i64).max(0);
        assert_eq!(next.narrow(0, 0, kept), rows.narrow(0, 10 - kept, kept), "the oldest leave first");
        assert!(number(&(lengths(&method) - 1.0).abs().max()) < 1e-6);
        rows = next;
    }
}

#[test]
fn the_key_network_starts_equal_and_follows_by_tau() {
    let values = |store: &Store, prefix: &str| -> Vec<Tensor> {
        let prefix = |part| format!("{prefix}{part}");
        let all = store.below(&prefix("encoder")).into_iter().chain(store.below(&prefix("projector")));
        all.filter(|v| !v.name.contains("running")).map(|v| v.tensor.detach().copy()).collect()
    };
    for tau in [0.0, 0.25, 1.0] {
        let store = Store::new(0, Device::Cpu);
        let mut method = build(&store, Config { tau, tau_end: tau, ..small() });
        let start = values(&store, "key.");
        assert_eq!(values(&store, ""), start);
        no_grad(|| store.trainable().iter().for_each(|v| drop(v.tensor.shallow_clone().g_add_scalar_(1.0))));
        method.after_step(AT);
        for (new, old) in values(&store, "key.").iter().zip(&start) {
            // One sum of numbers of about 1.
            assert!(distance(new, &(old + (1.0 - tau))) < 1e-6, "tau {tau}");
        }
    }
}

#[test]
fn tau_rises_along_half_a_cosine() {
    let store = Store::new(0, Device::Cpu);
    let mut method = build(&store, Config { tau: 0.0, tau_end: 1.0, ..small() });
    let bias = store.below("key.projector").into_iter().find(|v| v.name.ends_with("bias")).expect("a bias").tensor;
    let start = bias.copy();
    no_grad(|| store.trainable().iter().for_each(|v| drop(v.tensor.shallow_clone().g_add_scalar_(1.0))));
    method.after_step(Progress { step: 5, ..AT }); // half way: 0.5
    assert!(distance(&bias, &(start + 0.5)) < 1e-6);
}

#[test]
fn keys_return_in_the_order_of_their_images() {
    let store = Store::new(0, Device::Cpu);
    let x = &batch(8, 0).views[0].x;
    let order = Tensor::from_slice(&[3i64, 0, 7, 1, 4, 2, 6, 5]);
    let method = build(&store, Config { groups: 4, ..small() });
    let keys = no_grad(|| method.keys(x, &order));
    // By hand: images 3 and 0 share their statistics, then 7 and 1, and so on.
    for pair in [[3i64, 0], [7, 1], [4, 2], [6, 5]] {
        let two = no_grad(|| method.key.project(&x.index_select(0, &Tensor::from_slice(&pair)), true));
        same(&keys.index_select(0, &Tensor::from_slice(&pair)), &two);
    }
    let unshuffled = build(&Store::new(0, Device::Cpu), Config { groups: 4, shuffle: false, ..small() });
    let other = no_grad(|| unshuffled.keys(x, &order));
    same(&other.narrow(0, 2, 2), &no_grad(|| unshuffled.key.project(&x.narrow(0, 2, 2), true)));
    assert!(distance(&keys, &other) > 1e-3, "other company, other statistics");
    let whole = build(&Store::new(0, Device::Cpu), small());
    same(&no_grad(|| whole.keys(x, &order)), &no_grad(|| whole.key.project(x, true)));
}

#[test]
fn the_order_of_the_keys_is_of_the_epoch() {
    let of = |epoch, shuffle| {
        let mut method = build(&Store::new(0, Device::Cpu), Config { groups: 4, shuffle, ..small() });
        number(&no_grad(|| method.loss(&batch(8, epoch), AT)).total)
    };
    assert_eq!(of(0, true), of(0, true));
    assert_ne!(of(0, true), of(1, true));
    assert_eq!(of(0, false), of(1, false));
}

#[test]
fn the_symmetric_form_is_the_mean_of_both_directions_each_with_its_queue() {
    let store = Store::new(0, Device::Cpu);
    let mut method = build(&store, Config { symmetric: true, ..small() });
    let batch = batch(4, 0);
    let queues = [method.queues[0].rows(), method.queues[1].rows()];
    assert!(distance(&queues[0], &queues[1]) > 0.1);
    let loss = method.loss(&batch, AT);
    let pass = |network: &Network, i: usize| no_grad(|| network.project(&batch.views[i].x, true));
    let direction = |i: usize| {
        let (q, k) = (pass(&method.query, i), pass(&method.key, 1 - i));
        same(&method.queues[i].rows().narrow(0, 6, 4), &normalise(&k));
        number(&objective(&method.config, &q, &k, &queues[i]).expect("a loss"))
    };
    let expected = (direction(0) + direction(1)) / 2.0;
    assert!((number(&loss.total) - expected).abs() < 1e-5, "{:?} {expected}", loss.total);
    assert_eq!(loss.total.dim(), 0);
}

#[test]
fn accuracy_is_the_share_of_queries_whose_key_comes_first() {
    let mut method = build(&Store::new(0, Device::Cpu), small());
    let mut batch = batch(4, 0);
    let other = batch.views[1].x.copy();
    batch.views[1].x = batch.views[0].x.copy(); // f_k = f_q at the start: the keys are the queries
    let loss = method.loss(&batch, AT);
    assert_eq!(loss.parts[0].0, "accuracy");
    close(number(&loss.parts[0].1), 1.0);
    // Now the queue holds what equals each query, and the keys are of other pictures.
    batch.views[1].x = other;
    let again = method.loss(&batch, AT);
    close(number(&again.parts[0].1), 0.0);
    assert!(!again.parts[0].1.requires_grad());
}

#[test]
fn a_width_of_zero_is_the_first_version() {
    let store = Store::new(0, Device::Cpu);
    let v1 = build(&store, Config { hidden: 0, ..small() });
    let sizes: Vec<Vec<i64>> = store.below("projector").iter().map(|v| v.tensor.size()).collect();
    assert_eq!(sizes, [vec![8, 128], vec![8]]);
    assert_eq!(v1.views(), vec![Recipe::moco_v2(); 2], "the head chooses no augmentation");
}

#[test]
fn the_views_are_those_of_either_paper() {
    for (views, table) in [(Version::V1, Recipe::moco_v1()), (Version::V2, Recipe::moco_v2())] {
        let method = build(&Store::new(0, Device::Cpu), Config { views, ..small() });
        assert_eq!(method.views(), vec![table; 2]);
    }
    let (first, second) = (Recipe::moco_v1(), Recipe::moco_v2());
    assert!(first.blur.is_none() && second.blur.is_some());
    assert_eq!((first.jitter.expect("jitter").hue, second.jitter.expect("jitter").hue), (0.4, 0.1));
}

#[test]
fn unusable_numbers_are_refused() {
    let refused = |config: Config| MoCo::check(&config).expect_err("a refusal").to_string();
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(at(temperature)).starts_with("temperature is"));
    }
    assert!(refused(Config { tau: 1.5, ..small() }).starts_with("tau is 1.5"));
    assert!(refused(Config { tau_end: -0.1, ..small() }).starts_with("tau_end is -0.1"));
    assert!(refused(Config { queue: 0, ..small() }).starts_with("queue is 0"));
    assert!(refused(Config { hidden: -1, ..small() }).starts_with("hidden is -1"));
    assert!(refused(Config { output: 0, ..small() }).starts_with("output is 0"));
    assert!(refused(Config { groups: 0, ..small() }).starts_with("groups is 0"));
    let (a, wide) = (leaf(0.2, 2, 3), leaf(0.5, 4, 5));
    assert!(objective(&at(0.2), &a, &a, &wide).expect_err("a refusal").to_string().contains("5 columns"));
}
