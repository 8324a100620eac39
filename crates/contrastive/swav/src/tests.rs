//! Codes and loss against lightly and PyTorch (`tests/golden.py`), closed forms, the queue's moments, frozen prototypes.

use super::*;
use selfsup_core::Device;
use selfsup_core::Kind;
use selfsup_core::golden::{self, close, far, fill, fixed, given, gradient_is, leaf, matrix, number};
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::store::Store;

fn sums(q: &Tensor, over: i64) -> Tensor {
    q.sum_dim_intlist([over].as_slice(), false, None)
}

/// The iteration as the paper's listing has it, on exponentials, number by number.
fn naive(scores: &Tensor, epsilon: f64, iterations: usize) -> Tensor {
    let (b, k) = scores.size2().expect("a matrix");
    let mut q: Vec<Vec<f64>> =
        (0..b).map(|b| (0..k).map(|k| (scores.double_value(&[b, k]) / epsilon).exp()).collect()).collect();
    let total: f64 = q.iter().flatten().sum();
    q.iter_mut().flatten().for_each(|x| *x /= total);
    for _ in 0..iterations {
        for k in 0..k as usize {
            let sum: f64 = q.iter().map(|row| row[k]).sum();
            q.iter_mut().for_each(|row| row[k] /= sum * row.len() as f64);
        }
        for row in &mut q {
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum * b as f64);
        }
    }
    let q: Vec<f64> = q.into_iter().flatten().map(|x| x * b as f64).collect();
    Tensor::from_slice(&q).view([b, k])
}

fn small() -> Config {
    Config { hidden: 32, output: 8, prototypes: 6, small_crops: 0, freeze_epochs: 0.0, ..Config::default() }
}

fn setup(config: Config, store: &Store, encoder: &str) -> Result<SwAv> {
    SwAv::check(&config)?;
    SwAv::new(config, &golden::setup(store, encoder, 40))
}

/// Crops of these sizes, of `n` images.
fn batch(n: i64, sizes: &[i64], phase: f64) -> Batch {
    let view = |(i, &size): (usize, &i64)| {
        let x = matrix(phase + i as f64, n, 3 * size * size).to_kind(Kind::Float);
        View { x: x.view([n, 3, size, size]), params: Tensor::zeros([n, 12], (Kind::Float, Device::Cpu)) }
    };
    let views = sizes.iter().enumerate().map(view).collect();
    Batch::new(views, (0..n as usize).collect(), 0, 0)
}

/// Ten steps an epoch.
fn at(step: u64) -> Progress {
    Progress { step, steps: 40, epoch: step / 10, epochs: 4 }
}

#[test]
fn loss_and_gradients_are_those_of_lightly() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 2, 0, 0.1, 0.05, 3, 1.74392534005, [[-1.249716931059e+00, 1.249716899261e+00, 3.179760450541e-08, 2.271544334754e+00], [-3.455017097348e-01, 3.454316052703e-01, 7.010446443935e-05, 8.772920510845e-01], [-3.455017097348e-01, 3.454316052703e-01, 7.010446443935e-05, 8.772920510845e-01]]),
    (8, 5, 3, 0, 0.2, 0.1, 3, 1.82335389804, [[-1.193046545090e-01, 6.106665549447e-02, 5.057856226712e-06, 2.660963584133e-01], [6.943820122616e-02, 1.549187634648e-02, 5.562075588771e-04, 2.602165648475e-01], [9.863564354661e-02, -9.531918853080e-02, 2.775095070513e-02, 5.727539477103e-01]]),
    (32, 16, 6, 0, 0.5, 0.5, 10, 3.8359568236, [[-5.644494777631e-04, 4.349613125546e-04, -6.163066979588e-05, 8.855298608689e-03], [5.069152472750e-04, -5.928265935882e-04, 8.142452426293e-05, 8.746834723162e-03], [-8.924435581723e-04, -1.971619499430e-03, 3.988234448033e-04, 3.340713502733e-02]]),
    (8, 5, 4, 11, 0.1, 0.25, 3, 5.98276842066, [[-9.477493926774e-02, 5.890983317472e-02, -2.900345234249e-03, 3.350669346892e-01], [8.830405502924e-02, -1.776674368510e-02, -2.318756548209e-04, 3.299979459765e-01], [-9.333326259591e-02, -2.272607804831e-01, 1.930409263569e-01, 1.269300806051e+00]]),
    ];
    for (n, k, crops, queue, temperature, epsilon, iterations, expected, gradients) in golden {
        let scores: Vec<Tensor> = (0..crops).map(|s| leaf(0.1 + 0.8 * f64::from(s), n, k)).collect();
        let code = |t: usize| {
            let all = Tensor::cat(&[&matrix(5.0 + t as f64, queue, k), &scores[t].detach()], 0);
            sinkhorn(&all, epsilon, iterations).narrow(0, queue, n)
        };
        let loss = swapped_prediction(&scores, &[code(0), code(1)], temperature);
        close(number(&loss), expected);
        let inputs = [&scores[0], &scores[1], &scores[scores.len() - 1]];
        for (gradient, expected) in Tensor::run_backward(&[&loss], &inputs, false, false).iter().zip(gradients) {
            gradient_is(gradient, expected);
        }
    }
}

#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (x, y) = fixed();
    let [x, y, p] = [x, y, fill(5, |m| (0.5 * m + 2.0).sin())].map(|x| normalise(&x));
    let loss = |kind| {
        let [a, b] = [&x, &y].map(|x| x.matmul(&p.tr()).to_kind(kind));
        number(&SwAv::objective(&Config::default(), &given(&[("a", &a), ("b", &b)])).expect("a loss"))
    };
    assert!((loss(Kind::Double) - 7.344308).abs() < 6e-7, "six decimals are given");
    // f32 rounds scores / epsilon of up to 20 by 1e-6, which is what e^(scores / epsilon) is off by.
    assert!((loss(Kind::Float) / 7.344308 - 1.0).abs() < 1e-5);
    let first = sinkhorn(&x.matmul(&p.tr()), 0.05, 3).get(0);
    for (k, expected) in [0.560142, 0.0, 0.0, 0.023682, 0.416176].into_iter().enumerate() {
        assert!((first.double_value(&[k as i64]) - expected).abs() < 6e-7);
    }
    for (epsilon, totals) in [(0.05, [0.7257, 0.7468, 0.9933, 1.5343]), (0.5, [0.99973, 0.99990, 1.00009, 1.00028])] {
        let actual = sums(&sinkhorn(&x.matmul(&y.tr()), epsilon, 3), 0);
        assert!(far(&actual, &Tensor::from_slice(&totals)) < 6e-5, "four or five decimals are given");
    }
}

#[test]
fn sinkhorn_is_the_iteration_of_the_paper() {
    for (b, k, epsilon, iterations) in [(4, 7, 0.05, 3), (9, 3, 0.5, 1), (16, 16, 0.2, 10)] {
        let scores = matrix(0.4, b, k);
        assert!(far(&sinkhorn(&scores, epsilon, iterations), &naive(&scores, epsilon, iterations)) < 1e-9);
        // f32: scores / epsilon are up to 20, so their rounding is 1e-6, and each of 2 x 10 normalisations adds as much.
        let single = sinkhorn(&scores.to_kind(Kind::Float), epsilon, iterations);
        assert!(far(&single.to_kind(Kind::Double), &sinkhorn(&scores, epsilon, iterations)) < 1e-4);
    }
}

#[test]
fn every_code_sums_to_one_and_no_epsilon_overflows() {
    for epsilon in [1e-4, 0.01, 0.05, 1.0, 100.0] {
        for iterations in [1, 3, 30] {
            let q = sinkhorn(&matrix(0.7, 12, 40).to_kind(Kind::Float), epsilon, iterations);
            // The last normalisation is over prototypes: 40 additions of f32.
            assert!(far(&sums(&q, 1), &Tensor::ones([12], (Kind::Float, Device::Cpu))) < 1e-5, "{epsilon}");
        }
    }
}

#[test]
fn closed_forms() {
    let (n, k) = (6, 4);
    let constant = Tensor::full([n, k], 0.3, (Kind::Double, Device::Cpu));
    let q = sinkhorn(&constant, 0.05, 3);
    assert!(far(&q, &q.full_like(1.0 / k as f64)) < 1e-12);
    close(number(&swapped_prediction(&[constant.shallow_clone(), constant], &[q.copy(), q], 0.1)), (k as f64).ln());
    // Image i at prototype i: its code is softmax(e_i / epsilon), which Sinkhorn keeps, since the columns are as the rows.
    let basis = Tensor::eye(5, (Kind::Double, Device::Cpu));
    let q = sinkhorn(&basis, 0.5, 3);
    assert!(far(&q, &(&basis / 0.5).softmax(-1, None)) < 1e-12);
    // With q = p the loss is the entropy of p.
    let loss = swapped_prediction(&[basis.copy(), basis], &[q.copy(), q.copy()], 0.5);
    close(number(&loss), number(&-q.xlogy(&q).sum(None)) / 5.0);
}

#[test]
fn what_changes_codes_and_what_does_not() {
    let (scores, of_prototype, of_image) = (matrix(0.4, 8, 5), matrix(0.1, 1, 5), matrix(0.6, 8, 1));
    let away = |other: &Tensor, iterations| {
        far(&sinkhorn(&scores, 0.3, iterations), &sinkhorn(&(&scores + other), 0.3, iterations))
    };
    // The first step divides each prototype's column by its sum.
    assert!(away(&of_prototype, 1) < 1e-12);
    // A number added to all scores of an image weighs that image in the first sums, and is forgotten with iterations.
    assert!(away(&of_image, 3) > 1e-3 && away(&of_image, 1000) < 1e-9);
    let totals = |iterations| {
        let totals = sums(&sinkhorn(&scores, 0.3, iterations), 0);
        far(&totals, &totals.full_like(8.0 / 5.0))
    };
    assert!(totals(1) > totals(3) && totals(3) > totals(10) && totals(1000) < 1e-9);
    let (q, order) = (sinkhorn(&scores, 0.3, 3), Tensor::from_slice(&[3i64, 0, 4, 1, 2]));
    assert!(far(&sinkhorn(&scores.index_select(1, &order), 0.3, 3), &q.index_select(1, &order)) < 1e-12);
    assert!(far(&sinkhorn(&scores.index_select(0, &order), 0.3, 3), &q.index_select(0, &order)) > 1e-3, "other images");
}

#[test]
fn codes_are_no_part_of_the_graph() {
    // With q constant the gradient of a score is (p - q) / (2 N tau), where q is the other crop's.
    let (a, b) = (leaf(0.2, 6, 4), leaf(0.9, 6, 4));
    SwAv::objective(&Config::default(), &given(&[("a", &a), ("b", &b)])).expect("a loss").backward();
    for (own, other) in [(&a, &b), (&b, &a)] {
        let expected =
            ((own.detach() / 0.1).softmax(-1, None) - sinkhorn(&other.detach(), 0.05, 3)) / (2.0 * 6.0 * 0.1);
        assert!(far(&own.grad(), &expected) < 1e-12);
    }
}

#[test]
fn codes_can_be_soft_hard_or_not_spread() {
    let scores = matrix(0.4, 9, 4).to_kind(Kind::Float);
    let with = |kind| Config { codes: kind, epsilon: 0.3, ..Config::default() }.codes_of(&scores);
    let soft = with(Codes::Sinkhorn);
    assert_eq!(soft, sinkhorn(&scores, 0.3, 3));
    assert_eq!(with(Codes::Softmax), (&scores / 0.3).softmax(-1, None));
    let hard = with(Codes::Hard);
    assert_eq!((hard.kind(), hard.argmax(-1, false)), (Kind::Float, soft.argmax(-1, false)));
    assert_eq!(number(&hard.max()), 1.0);
    assert_eq!(sums(&hard, 1), Tensor::ones([9], (Kind::Float, Device::Cpu)));
}

/// Trap of small batches: 6 prototypes want 6 rows, of the batch or of the queue.
#[test]
fn fewer_rows_than_prototypes_are_told() {
    let warning = |rows, queue, codes| Config { queue, codes, ..small() }.shortage(rows);
    let told = warning(5, 0, Codes::Sinkhorn).expect("a warning");
    assert!(told.starts_with("5 images of a batch and 0 of the queue are fewer than 6 prototypes"), "{told}");
    assert!(warning(2, 3, Codes::Hard).is_some());
    assert!(warning(6, 0, Codes::Sinkhorn).is_none() && warning(2, 4, Codes::Sinkhorn).is_none());
    assert!(warning(2, 0, Codes::Softmax).is_none(), "nothing is spread");
}

#[test]
fn the_loss_is_that_of_the_scores_and_trains_everything() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(small(), &store, "convnet-tiny").expect("a method");
    let batch = batch(4, &[16, 16, 8, 8, 8], 0.1);
    let loss = method.loss(&batch, at(0));
    // Two passes through the encoder, one through the projector: batch statistics are those of equal sizes together.
    let sized = |range: std::ops::Range<usize>| {
        let x: Vec<&Tensor> = batch.views[range].iter().map(|view| &view.x).collect();
        method.network.encoder.forward(&Tensor::cat(&x, 0), true)
    };
    let h = Tensor::cat(&[sized(0..2), sized(2..5)], 0);
    let scores = normalise(&method.network.head(&h, true)).matmul(&method.prototypes.tr()).chunk(5, 0);
    let q: Vec<Tensor> = (0..2).map(|t| sinkhorn(&scores[t].detach(), 0.05, 3)).collect();
    // The same f32 operations; running statistics moved, but training does not read them.
    let expected = number(&swapped_prediction(&scores, &q, 0.1));
    assert!((number(&loss.total) / expected - 1.0).abs() < 1e-5, "{loss} {expected}", loss = number(&loss.total));
    loss.total.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 8]);
}

#[test]
fn prototypes_are_unit_vectors_from_the_start_and_after_every_step() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(small(), &store, "convnet-tiny").expect("a method");
    let unit = |c: &Tensor| {
        let norms = c.norm_scalaropt_dim(2.0, [1].as_slice(), false);
        far(&norms, &norms.ones_like()) < 1e-6 // one division of f32
    };
    assert!(unit(&method.prototypes));
    no_grad(|| drop(method.prototypes.shallow_clone().g_mul_scalar_(3.0)));
    method.after_step(at(0));
    assert!(unit(&method.prototypes) && method.prototypes.requires_grad());
    let held = store.below("prototypes").pop().expect("a variable of the store");
    assert!(unit(&held.tensor) && held.role == Role::Weight);
}

#[test]
fn frozen_prototypes_have_no_gradient_at_all() {
    for (freeze_epochs, step, frozen) in
        [(1.0, 0, true), (1.0, 9, true), (1.0, 10, false), (0.5, 4, true), (0.5, 5, false)]
    {
        let store = Store::new(0, Device::Cpu);
        let mut method = setup(Config { freeze_epochs, ..small() }, &store, "convnet-tiny").expect("a method");
        method.loss(&batch(4, &[16, 16], 0.1), at(step)).total.backward();
        assert_eq!(!method.prototypes.grad().defined(), frozen, "{freeze_epochs} {step}");
        assert!(store.below("projector").iter().filter(|v| v.role != Role::Buffer).all(|v| v.tensor.grad().defined()));
    }
}

#[test]
fn prototypes_that_are_not_learned_are_no_trained_variable() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(Config { learn_prototypes: false, ..small() }, &store, "convnet-tiny").expect("a method");
    assert!(store.trainable().iter().all(|v| !v.name.starts_with("prototypes")));
    let before = method.prototypes.copy();
    method.loss(&batch(4, &[16, 16], 0.1), at(20)).total.backward();
    method.after_step(at(20));
    assert!(far(&method.prototypes, &before) < 1e-6, "normalising twice rounds twice");
}

/// Four rows a step: ten have been pushed before the third step after the first. At 1.45 epochs that is the 14.5th
/// step, so the 15th; 1.1 x 10 is above 11 in f64.
#[test]
fn the_queue_is_filled_from_its_epoch_on_and_used_once_full() {
    for (queue_from, first) in [(1.5, 15), (1.45, 15), (1.41, 15), (1.1, 11), (0.0, 0)] {
        fills_and_serves(queue_from, first);
    }
}

fn fills_and_serves(queue_from: f64, first: u64) {
    let store = Store::new(0, Device::Cpu);
    let method = setup(Config { queue: 10, queue_from, ..small() }, &store, "convnet-tiny").expect("a method");
    assert_eq!(store.below("queue").iter().map(|v| v.tensor.size()).collect::<Vec<_>>(), [[10, 8], [10, 8]]);
    let z = |step: u64| normalise(&matrix(step as f64, 4, 8).to_kind(Kind::Float));
    let scores = |z: &Tensor| z.matmul(&method.prototypes.detach().tr());
    let start = method.queues[0].rows();
    let mut pushed: Vec<Tensor> = vec![start.shallow_clone()];
    for step in first.saturating_sub(2)..first + 5 {
        let (z, before) = (z(step), method.queues[0].rows());
        let q = no_grad(|| method.codes(0, &z, &scores(&z), at(step)));
        let alone = sinkhorn(&scores(&z), 0.05, 3);
        if step < first + 3 {
            assert_eq!(q, alone, "{queue_from} {step}");
        } else {
            let all = sinkhorn(&scores(&Tensor::cat(&[&before, &z], 0)), 0.05, 3);
            assert!(far(&q, &all.narrow(0, 10, 4)) < 1e-5 && far(&q, &alone) > 1e-3, "{queue_from} {step}");
        }
        if step >= first {
            pushed.push(z);
        }
        let last = Tensor::cat(&pushed, 0);
        assert_eq!(method.queues[0].rows(), last.narrow(0, last.size()[0] - 10, 10), "{queue_from} {step}");
    }
    assert_eq!(store.below("queue")[0].tensor, method.queues[0].rows());
    assert_ne!(method.queues[1].rows(), method.queues[0].rows(), "each crop has its own");
}

#[test]
fn scores_of_the_queue_are_those_of_the_prototypes_of_now() {
    let store = Store::new(0, Device::Cpu);
    let config = Config { queue: 4, queue_from: 0.0, ..small() };
    let method = setup(config, &store, "convnet-tiny").expect("a method");
    let z = normalise(&matrix(0.3, 4, 8).to_kind(Kind::Float));
    let code = || no_grad(|| method.codes(0, &z, &z.matmul(&method.prototypes.tr()), at(5)));
    let _fills_the_queue_with_z = code();
    let turned = normalise(&matrix(0.8, 6, 8).to_kind(Kind::Float));
    assign(&method.prototypes, &turned);
    // Batch and queue hold the same rows, so each code is that of the batch alone: rows count twice.
    let expected = sinkhorn(&z.matmul(&turned.tr()), 0.05, 3);
    assert!(far(&code(), &expected) < 1e-5);
}

#[test]
fn a_copy_of_the_store_goes_on_with_the_same_numbers() {
    let config = Config { queue: 6, queue_from: 0.2, freeze_epochs: 0.3, ..small() };
    let step = |method: &mut SwAv, store: &Store, step: u64| {
        store.trainable().into_iter().for_each(|mut v| v.tensor.zero_grad());
        let loss = method.loss(&batch(4, &[16, 16], step as f64), at(step));
        loss.total.backward();
        let trained = store.trainable().into_iter().filter(|v| v.tensor.grad().defined());
        trained.for_each(|v| assign(&v.tensor, &(&v.tensor - v.tensor.grad() * 0.1).detach()));
        method.after_step(at(step));
        number(&loss.total)
    };
    let (store, other) = (Store::new(0, Device::Cpu), Store::new(1, Device::Cpu));
    let mut method = setup(config.clone(), &store, "convnet-tiny").expect("a method");
    (0..4).for_each(|i| assert!(step(&mut method, &store, i).is_finite()));
    let mut resumed = setup(config, &other, "convnet-tiny").expect("a method");
    other.variables().iter().zip(store.variables()).for_each(|(to, from)| assign(&to.tensor, &from.tensor));
    for i in 4..8 {
        assert_eq!(step(&mut method, &store, i).to_bits(), step(&mut resumed, &other, i).to_bits(), "step {i}");
    }
}

#[test]
fn parts_say_how_many_prototypes_are_used_and_how_evenly() {
    let one = Tensor::from_slice(&[0.1f32, 0.9, 0.2, 0.3]).view([1, 4]).expand([5, 4], false);
    close(number(&share_used(&[one.shallow_clone(), one.shallow_clone()])), 0.25);
    let each = Tensor::eye(4, (Kind::Float, Device::Cpu));
    close(number(&share_used(&[each.shallow_clone(), one])), 1.0);
    assert!((number(&entropy_of_mean(&[each])) - 4f64.ln()).abs() < 1e-6, "f32");
    let same = Tensor::from_slice(&[0.0f64, 1.0, 0.0]).view([1, 3]);
    close(number(&entropy_of_mean(&[same])), 0.0);
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(small(), &store, "convnet-tiny").expect("a method");
    let loss = method.loss(&batch(4, &[16, 16], 0.1), at(0));
    assert_eq!(loss.parts.iter().map(|part| part.0).collect::<Vec<_>>(), ["prototypes_used", "code_entropy"]);
    assert!(loss.parts.iter().all(|part| !part.1.requires_grad()));
}

#[test]
fn views_are_two_large_crops_and_the_small_ones() {
    let views = |small_crops, small_size, size| {
        let store = Store::new(0, Device::Cpu);
        let image = ImageShape { channels: 3, size };
        let encoder = "convnet-tiny".parse().expect("a name");
        let config = Config { small_crops, small_size, ..small() };
        SwAv::new(config, &Setup::new(store.root(), encoder, Shape::Image(image), 8)).expect("a method").views()
    };
    let sizes = |views: &[Recipe]| views.iter().map(|view| view.size).collect::<Vec<_>>();
    let scale = |view: &Recipe| view.crop.expect("a crop").scale;
    let paper = views(6, 0, 224);
    assert_eq!(sizes(&paper), [0, 0, 96, 96, 96, 96, 96, 96]);
    assert_eq!((scale(&paper[1]), scale(&paper[2])), ([0.14, 1.0], [0.05, 0.14]));
    assert_eq!(sizes(&views(1, 14, 28)), [0, 0, 14]);
    assert_eq!(sizes(&views(1, 0, 32)), [0, 0, 14], "3/7 of 32 is 13.7");
    let alone = views(0, 0, 32);
    assert_eq!((alone.len(), scale(&alone[0])), (2, [0.08, 1.0]));
    assert!(paper.iter().all(|view| view.check().is_ok()));
}

#[test]
fn a_vit_is_refused_small_crops_in_words() {
    let build = |small_crops, small_size| {
        let store = Store::new(0, Device::Cpu);
        setup(Config { small_crops, small_size, ..small() }, &store, "vit-micro/4").map(drop)
    };
    let error = build(6, 8).expect_err("a refusal").to_string();
    assert!(error.contains("small_crops is 6") && error.contains("vit-micro/4 takes images of one size"), "{error}");
    build(0, 0).expect("two crops of one size");
    build(2, 16).expect("all crops of one size");
}

#[test]
fn unusable_numbers_are_refused() {
    let refused = |config: Config, start: &str| {
        let error = SwAv::check(&config).expect_err("a refusal").to_string();
        assert!(error.starts_with(start), "{error}");
    };
    for x in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(Config { temperature: x, ..Config::default() }, "temperature is");
        refused(Config { epsilon: x, ..Config::default() }, "epsilon is");
    }
    refused(Config { sinkhorn_iterations: 0, ..Config::default() }, "sinkhorn_iterations is 0; expected at least 1");
    refused(Config { prototypes: 0, ..Config::default() }, "prototypes is 0");
    refused(Config { hidden: 0, ..Config::default() }, "hidden is 0");
    refused(Config { output: -1, ..Config::default() }, "output is -1");
    refused(Config { queue: -1, ..Config::default() }, "queue is -1");
    refused(Config { queue_from: -1.0, ..Config::default() }, "queue_from is -1");
    refused(Config { freeze_epochs: f64::NAN, ..Config::default() }, "freeze_epochs is NaN");
    refused(Config { small_crops: 65, ..Config::default() }, "small_crops is 65");
    let one = given(&[("a", &matrix(0.2, 1, 4)), ("b", &matrix(0.9, 1, 4))]);
    let error = SwAv::objective(&Config::default(), &one).expect_err("a refusal").to_string();
    assert!(error.starts_with("`a` and `b` have one row"), "{error}");
}
