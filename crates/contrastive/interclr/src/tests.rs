//! Both terms against lightly and PyTorch (`tests/golden.py`), the choice of pairs, the upkeep of the clusters, and the
//! order of a step.

use super::*;
use selfsup_core::Device;
use selfsup_core::cluster::sizes;
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::golden::{close, fill, fixed, given, gradient_is, leaf, matrix, number};
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::store::{Store, assign};
use std::collections::BTreeSet;

/// Unit rows in f32.
fn rows(phase: f64, n: i64, d: i64) -> Tensor {
    normalise(&matrix(phase, n, d)).to_kind(Kind::Float)
}

fn whole(x: &Tensor) -> Vec<i64> {
    Vec::try_from(x.flatten(0, -1)).expect("whole numbers")
}

fn objective(config: &Config, tensors: &[(&str, &Tensor)]) -> Tensor {
    InterClr::objective(config, &given(tensors)).expect("a loss")
}

// The loss on embeddings.

#[test]
fn loss_and_gradients_are_those_of_lightly_and_pytorch() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 1.02641741438, [-2.016819818521e-01, 2.749857050682e-02, -1.635470877890e-02, 2.934761398612e-01]),
    (8, 5, 1.22685014334, [-1.495620843426e-01, -7.874205964944e-02, -5.042506320470e-02, 3.287630046460e-01]),
    (32, 16, 1.11604055294, [-3.478774868603e-03, -1.030824777812e-04, -2.294560639874e-03, 1.256508116936e-01]),
    ];
    let settings = [(0.5, 0.25, -0.5), (0.2, 0.25, -0.5), (0.1, 0.6, 0.3)];
    for ((n, d, expected, gradient), (temperature, weight, margin)) in golden.into_iter().zip(settings) {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        let config = Config { temperature, weight, margin, ..Config::default() };
        let loss = objective(
            &config,
            &[
                ("a", &a),
                ("b", &b),
                ("queue", &normalise(&matrix(0.4, 2 * n, d))),
                ("positive", &normalise(&matrix(0.6, n, d))),
                ("negatives", &normalise(&matrix(0.7, 3 * n, d))),
            ],
        );
        close(number(&loss), expected);
        loss.backward();
        gradient_is(&a.grad(), gradient);
        assert!(!b.grad().defined(), "keys have no gradient");
    }
}

#[test]
fn without_a_pair_of_images_it_is_moco_and_gives_the_reference_values() {
    let (a, b) = fixed();
    let queue = normalise(&fill(5, |m| (0.5 * m + 2.0).sin()));
    for (temperature, expected) in [(0.07, 14.270601), (0.2, 5.487980)] {
        let config = Config { temperature, ..Config::default() };
        let intra = number(&objective(&config, &[("a", &a), ("b", &b), ("queue", &queue)]));
        assert!((intra - expected).abs() < 6e-7, "{intra}: the reference has six decimals");
        // A weight of 0 is the intra-image term, a weight of 1 the other one alone.
        let all = [
            ("a", &a),
            ("b", &b),
            ("queue", &queue),
            ("positive", &normalise(&b)),
            ("negatives", &queue.repeat([4, 1])),
        ];
        close(number(&objective(&Config { weight: 0.0, ..config.clone() }, &all)), intra);
        // Here positive and negatives are those of the other term, so without a margin both are equal.
        close(number(&objective(&Config { weight: 1.0, margin: 0.0, ..config }, &all)), intra);
    }
}

#[test]
fn a_margin_above_zero_is_stricter_and_one_below_easier() {
    let (p, n) = (matrix(0.3, 6, 1).squeeze_dim(-1), matrix(0.8, 6, 9));
    let loss = |m| number(&inter_loss(&p, &n, m, 0.2));
    close(loss(0.0), number(&info_nce(&p, &n, 0.2)));
    close(loss(-0.5), number(&info_nce(&(&p + 0.5), &n, 0.2)));
    assert!(loss(-0.5) < loss(0.0) && loss(0.0) < loss(0.5));
    // All cosines equal: -log(e^(-m / tau) / (e^(-m / tau) + M)) = log(1 + M e^(m / tau)).
    let equal = Tensor::full([4], 0.3, (Kind::Double, Device::Cpu));
    for m in [-0.5, 0.0, 0.5] {
        let value = number(&inter_loss(&equal, &equal.unsqueeze(-1).expand([4, 9], false), m, 0.2));
        close(value, (9.0 * (m / 0.2f64).exp()).ln_1p());
    }
}

#[test]
fn tensors_of_a_wrong_shape_are_refused_by_name() {
    let (a, three) = (matrix(0.2, 4, 3), matrix(0.3, 3, 3));
    let refused = |tensors: &[(&str, &Tensor)]| {
        InterClr::objective(&Config::default(), &given(tensors)).expect_err("a refusal").to_string()
    };
    let base = [("a", &a), ("b", &a)];
    assert!(refused(&base).contains("`queue`"));
    let with = |more: &[(&'static str, &Tensor)]| {
        let queue = [("queue", &three)];
        refused(&base.iter().copied().chain(queue).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    assert!(with(&[("positive", &three), ("negatives", &a)]).starts_with("`positive` has 3 rows; expected 4"));
    assert!(with(&[("positive", &a)]).contains("no tensor `negatives`"));
    assert!(with(&[("positive", &a), ("negatives", &three)]).starts_with("`negatives` has 3 rows"));
}

// The choice of pairs.

/// Clusters of `n` images with the given rows and labels.
fn clusters(store: &Store, rows: &Tensor, labels: &[i64], k: i64, min_size: i64) -> Clusters {
    let size = rows.size();
    let clusters = Clusters::new(&store.root(), size[0] as usize, size[1], k, min_size);
    set(store, "bank", rows);
    set(store, "labels", &Tensor::from_slice(labels));
    clusters
}

fn get(store: &Store, name: &str) -> Tensor {
    store.variables().into_iter().find(|v| v.name == name).expect("a variable of that name").tensor
}

fn set(store: &Store, name: &str, values: &Tensor) {
    assign(&get(store, name), values);
}

/// Each row m numbers from 0 to 1, both ends among them.
fn uniform(n: i64, m: i64) -> Tensor {
    Tensor::linspace(0.0, 1.0, m, (Kind::Float, Device::Cpu)).unsqueeze(0).expand([n, m], false)
}

/// 40 images; cluster 3 has one, cluster 0 most.
const LABELS: [i64; 40] = [
    0, 1, 2, 0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 2, 0, 0, 1, 0, 3, 0, 0, 2, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0, 0, 2, 0, 0,
    1, 0,
];

#[test]
fn a_partner_is_another_image_of_the_same_label() {
    let store = Store::new(0, Device::Cpu);
    let clusters = clusters(&store, &rows(0.2, 40, 6), &LABELS, 4, 1);
    let places = Tensor::arange(40, (Kind::Int64, Device::Cpu));
    let u = uniform(40, 200);
    let mut seen = vec![BTreeSet::new(); 40];
    for column in 0..200 {
        for (i, partner) in whole(&clusters.partner(&places, &u.select(1, column))).into_iter().enumerate() {
            seen[i].insert(partner as usize);
        }
    }
    for (i, seen) in seen.into_iter().enumerate() {
        let others: BTreeSet<usize> = (0..40).filter(|&j| j != i && LABELS[j] == LABELS[i]).collect();
        assert_eq!(seen, if others.is_empty() { BTreeSet::from([i]) } else { others }, "image {i}");
    }
}

#[test]
fn negatives_have_another_label_and_are_as_near_as_asked_for() {
    let store = Store::new(0, Device::Cpu);
    let bank = rows(0.2, 40, 6);
    let clusters = clusters(&store, &bank, &LABELS, 4, 1);
    let places = Tensor::from_slice(&[0i64, 1, 19, 2]);
    let s = rows(0.9, 4, 6).matmul(&bank.tr()); // [4, 40]
    let u = uniform(4, 400);
    // By similarity, those of another label first; cluster 0 leaves 16 of 40.
    let most = LABELS.iter().filter(|&&label| label != 0).count();
    let near = |i: usize, place: usize, count: usize| -> BTreeSet<i64> {
        let mut others: Vec<usize> = (0..40).filter(|&j| LABELS[j] != LABELS[place]).collect();
        others
            .sort_by(|&x, &y| s.double_value(&[i as i64, y as i64]).total_cmp(&s.double_value(&[i as i64, x as i64])));
        others.into_iter().take(count).map(|j| j as i64).collect()
    };
    for (sampling, nearest, negatives, count) in [
        (Sampling::SemiHard, 5, 400, 5),
        (Sampling::SemiHard, 1000, 400, most),
        (Sampling::Hard, 1, 7, 7),
        (Sampling::Hard, 1, 1000, most),
        (Sampling::Random, 1, 400, 40),
    ] {
        let config = Config { sampling, nearest, negatives, ..Config::default() };
        let chosen = clusters.others(&s, &places, &u, &config);
        for (i, place) in whole(&places).into_iter().enumerate() {
            let seen: BTreeSet<i64> = whole(&chosen.get(i as i64)).into_iter().collect();
            assert_eq!(seen, near(i, place as usize, count), "{sampling:?} {nearest} of image {place}");
        }
    }
}

// The upkeep of the clusters.

fn sizes_of(store: &Store, k: i64) -> Vec<i64> {
    whole(&sizes(&get(store, "labels"), k))
}

#[test]
fn centroids_are_means_and_empty_ones_stay() {
    let store = Store::new(0, Device::Cpu);
    let bank = rows(0.2, 6, 3);
    let clusters = clusters(&store, &bank, &[0, 1, 0, 1, 0, 1], 2, 1);
    clusters.maintain(0, false);
    assert_eq!(number(&get(&store, "centroids").norm()), 0.0, "not before it is asked for");
    clusters.maintain(0, true);
    let expected =
        Tensor::stack(&[0i64, 1].map(|k| bank.slice(0, k, None, 2).mean_dim([0].as_slice(), false, Kind::Float)), 0);
    // Sums of three f32 numbers below 1.
    assert!(number(&(get(&store, "centroids") - expected).abs().max()) < 1e-6);
}

#[test]
fn small_clusters_join_the_nearest_and_the_largest_is_split() {
    let store = Store::new(0, Device::Cpu);
    // Two far groups of 10 on the first axis, in cluster 0; 8 images on the second, in cluster 1; 2 near them in cluster 2.
    let group = |x: f32, y: f32, n: i64| Tensor::from_slice(&[x, y]).view([1, 2]).repeat([n, 1]);
    let bank = Tensor::cat(&[group(1.0, 0.0, 10), group(-1.0, 0.0, 10), group(0.0, 1.0, 8), group(0.1, 0.9, 2)], 0);
    let mut labels = [0i64; 30];
    labels[20..28].fill(1);
    labels[28..].fill(2);
    let clusters = clusters(&store, &bank, &labels, 3, 3);
    clusters.maintain(0, true);
    let labels = whole(&get(&store, "labels"));
    assert_eq!(labels[20..], [1; 10], "the two join the cluster beside them");
    assert!(labels[..10].iter().all(|&l| l == labels[0]) && labels[10..20].iter().all(|&l| l == 2 - labels[0]));
    let centroids = get(&store, "centroids");
    assert_eq!(centroids.get(labels[0]), group(1.0, 0.0, 1).get(0), "the parts have their own means");
    assert_eq!(centroids.get(labels[10]), group(-1.0, 0.0, 1).get(0));
}

#[test]
fn no_cluster_stays_too_small() {
    // (images, clusters, min_size, the least size that this leaves: at most half of the mean)
    for (n, k, min_size, least) in [(200, 8, 5, 5), (40, 4, 20, 5), (7, 5, 3, 1), (5, 5, 1, 1), (120, 50, 5, 1)] {
        for (case, label) in
            [&(|_| 0i64) as &dyn Fn(i64) -> i64, &|i: i64| i * i % k, &|i: i64| i % 2].iter().enumerate()
        {
            // Different rows, and all rows equal: k-means cannot cut those.
            for bank in [rows(0.2, n, 4), rows(0.2, 1, 4).repeat([n, 1])] {
                let store = Store::new(0, Device::Cpu);
                let labels: Vec<i64> = (0..n).map(label).collect();
                let clusters = clusters(&store, &bank, &labels, k, min_size);
                clusters.maintain(3, true);
                let sizes = sizes_of(&store, k);
                assert_eq!(sizes.iter().sum::<i64>(), n);
                assert!(sizes.iter().all(|&size| size >= least), "n {n}, k {k}, case {case}: {sizes:?}");
                assert!(get(&store, "centroids").isfinite().all().int64_value(&[]) == 1);
                let (low, high) = clusters.extremes();
                assert_eq!(number(&low) as i64, *sizes.iter().min().expect("clusters"));
                assert_eq!(number(&high) as i64, *sizes.iter().max().expect("clusters"));
            }
        }
    }
}

#[test]
fn writing_replaces_the_row_and_takes_the_label_of_the_nearest_centroid() {
    let store = Store::new(0, Device::Cpu);
    let clusters = clusters(&store, &rows(0.2, 6, 2), &[1, 0, 0, 1, 0, 1], 2, 1);
    // By inner product, not by distance or angle: the second centroid is nearer to the key, but shorter.
    set(&store, "centroids", &Tensor::from_slice(&[0.9f32, 0.5, 0.1, 0.1]).view([2, 2]));
    let (places, key) = (Tensor::from_slice(&[3i64, 1]), Tensor::from_slice(&[0.6f32, 0.8, 0.6, 0.8]).view([2, 2]));
    let before = get(&store, "bank").copy();
    let changed = clusters.write(&places, &key, true);
    assert_eq!(number(&changed), 0.5, "image 3 had label 1, image 1 had label 0");
    assert_eq!(whole(&get(&store, "labels")), [1, 0, 0, 0, 0, 1]);
    // One normalisation of rows of length 1 in f32.
    assert!(number(&(get(&store, "bank").index_select(0, &places) - &key).abs().max()) < 1e-6);
    let rest = Tensor::from_slice(&[0i64, 2, 4, 5]);
    assert_eq!(get(&store, "bank").index_select(0, &rest), before.index_select(0, &rest));
    let changed = clusters.write(&places, &-key, false);
    assert_eq!((number(&changed), whole(&get(&store, "labels"))), (0.0, vec![1, 0, 0, 0, 0, 1]), "labels stay");
}

// The method.

const N: usize = 24;

fn small() -> Config {
    Config {
        queue: 20,
        hidden: 32,
        output: 8,
        clusters: 4,
        negatives: 6,
        nearest: 12,
        min_size: 2,
        update_every: 2,
        groups: 1,
        ..Config::default()
    }
}

fn method(store: &Store, config: Config) -> InterClr {
    let (image, encoder) = (ImageShape { channels: 1, size: 16 }, "convnet-tiny".parse().expect("a name"));
    InterClr::new(config, &Setup::new(store.root(), encoder, Shape::Image(image), N)).expect("a method")
}

/// Twenty-four grey images.
struct Pixels;

impl Images for Pixels {
    fn len(&self) -> usize {
        N
    }

    fn channels(&self) -> usize {
        1
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let pixels: Vec<u8> = (0..256).map(|m| ((m * m * (index + 3) + 31 * index) % 256) as u8).collect();
        Ok(Image { height: 16, width: 16, channels: 1, pixels: pixels.into() })
    }
}

fn begin(method: &mut InterClr, at: Progress) {
    let normalisation = Normalisation { mean: vec![0.5], std: vec![0.25] };
    let images = Plain { samples: &Pixels, size: 16, normalisation: &normalisation, device: Device::Cpu };
    assert!(method.before_epoch(at, &images).expect("images").is_empty());
}

fn batch(index: &[usize]) -> Batch {
    let n = index.len() as i64;
    let view = |phase| View {
        x: matrix(phase, n, 256).to_kind(Kind::Float).view([n, 1, 16, 16]),
        params: Tensor::zeros([n, 12], (Kind::Float, Device::Cpu)),
    };
    Batch::new(vec![view(0.1), view(0.2)], index.to_vec(), 0, 0)
}

fn at(step: u64) -> Progress {
    Progress { step, steps: 20, epoch: step / 4, epochs: 5 }
}

const PLACES: [usize; 6] = [5, 0, 23, 7, 11, 2];

fn part(loss: &Loss, name: &str) -> f64 {
    number(&loss.parts.iter().find(|(n, _)| *n == name).expect("the loss has this part").1)
}

#[test]
fn a_step_uses_the_old_queue_bank_and_labels_and_then_writes_them() {
    let store = Store::new(0, Device::Cpu);
    let mut method = method(&store, small());
    begin(&mut method, at(0));
    let state = |name| get(&store, name).copy();
    let (queue, bank, labels, centroids) = (state("queue"), state("bank"), state("labels"), state("centroids"));
    let batch = batch(&PLACES);
    let loss = method.loss(&batch, at(0));

    // The same keys again: training mode normalises by the batch, so running statistics decide nothing.
    let q = normalise(&method.query.project(&batch.views[0].x, true));
    let k = no_grad(|| normalise(&method.key.project(&batch.views[1].x, true)));
    let intra = info_nce(&dot(&q, &k), &q.matmul(&queue.tr()), 0.2);
    // f32, numbers of about 3.
    assert!((part(&loss, "intra") - number(&intra)).abs() < 1e-5);
    let expected = 0.75 * part(&loss, "intra") + 0.25 * part(&loss, "inter");
    assert!((number(&loss.total) - expected).abs() < 1e-5);

    // Written: the queue ends with the keys, the bank holds them, labels are those of the nearest centroids.
    assert!(number(&(state("queue").narrow(0, 14, 6) - &k).abs().max()) < 1e-6);
    assert_eq!(state("queue").narrow(0, 0, 14), queue.narrow(0, 6, 14));
    let places = batch.places();
    assert!(number(&(state("bank").index_select(0, &places) - &k).abs().max()) < 1e-6);
    assert_eq!(state("labels").index_select(0, &places), k.matmul(&centroids.tr()).argmax(-1, false));
    let kept: Vec<i64> = (0..N as i64).filter(|i| !PLACES.contains(&(*i as usize))).collect();
    let kept = Tensor::from_slice(&kept);
    assert_eq!(state("bank").index_select(0, &kept), bank.index_select(0, &kept));
    assert_eq!(state("labels").index_select(0, &kept), labels.index_select(0, &kept));
    assert_eq!(state("centroids"), centroids, "the loss leaves the centroids");
    assert!(part(&loss, "smallest_cluster") >= 2.0 && part(&loss, "largest_cluster") <= N as f64);
}

#[test]
fn the_inter_image_term_is_that_of_pairs_of_the_old_bank() {
    // Two clusters of one row each: every positive is u, every negative v or the other way round.
    let store = Store::new(0, Device::Cpu);
    let config = Config { clusters: 2, weight: 1.0, ..small() };
    let mut method = method(&store, config);
    let two = rows(0.3, 2, 8);
    let labels = Tensor::arange(N as i64, (Kind::Int64, Device::Cpu)).remainder(2);
    set(&store, "bank", &two.index_select(0, &labels));
    set(&store, "labels", &labels);
    let batch = batch(&PLACES);
    let q = no_grad(|| normalise(&method.query.project(&batch.views[0].x, true)));
    let label = labels.index_select(0, &batch.places());
    let positive = dot(&q, &two.index_select(0, &label));
    let negative = dot(&q, &two.index_select(0, &(1 - label))).unsqueeze(-1).expand([6, 6], false);
    let expected = number(&inter_loss(&positive, &negative, -0.5, 0.2));
    let loss = method.loss(&batch, at(0));
    // f32, a sum of seven exponentials.
    assert!((number(&loss.total) - expected).abs() < 1e-5, "{:?} is not {expected}", loss.total);
}

#[test]
fn everything_trained_has_a_gradient_and_nothing_else() {
    for weight in [0.0, 0.25, 1.0] {
        let store = Store::new(0, Device::Cpu);
        let mut method = method(&store, Config { weight, ..small() });
        begin(&mut method, at(0));
        let batch = batch(&PLACES);
        method.loss(&batch, at(0)).total.backward();
        for v in store.variables() {
            let trained = !v.name.starts_with("key.") && v.name.contains('.') && !v.name.contains("running");
            assert_eq!(v.tensor.grad().defined(), trained, "{}", v.name);
            assert!(!trained || number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
        }
        assert_eq!(method.features(&batch.views[0].x, false).size(), [6, 128]);
        assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [6, 8]);
        assert_eq!(method.views().len(), 2);
    }
}

#[test]
fn a_weight_of_zero_has_the_gradient_of_moco() {
    let store = Store::new(0, Device::Cpu);
    let mut method = method(&store, Config { weight: 0.0, ..small() });
    begin(&mut method, at(0));
    let (queue, batch) = (get(&store, "queue").copy(), batch(&PLACES));
    method.loss(&batch, at(0)).total.backward();
    let weight = get(&store, "projector.1.weight");
    let got = weight.grad().copy();
    let q = normalise(&method.query.project(&batch.views[0].x, true));
    let k = no_grad(|| normalise(&method.key.project(&batch.views[1].x, true)));
    let moco = info_nce(&dot(&q, &k), &q.matmul(&queue.tr()), 0.2);
    let expected = Tensor::run_backward(&[&moco], &[&weight], false, false).remove(0);
    // The running statistics moved between both, which training mode does not read; the rest is rounding in f32.
    assert!(number(&(got - &expected).abs().max()) < 1e-5 * number(&expected.abs().max()).max(1.0));
}

#[test]
fn keys_are_normalised_in_other_company_than_queries() {
    let store = Store::new(0, Device::Cpu);
    let mut method = method(&store, Config { groups: 3, ..small() });
    begin(&mut method, at(0));
    let batch = batch(&PLACES);
    method.loss(&batch, at(0));
    let newest = get(&store, "queue").narrow(0, 14, 6); // of 20: the newest keys come last
    let order = batch.uniform(Purpose::Mask, 8).select(1, 7).argsort(0, false);
    let alone = |pair: &Tensor| no_grad(|| method.key.project(&batch.views[1].x.index_select(0, pair), true));
    for pair in order.split(2, 0) {
        let keys = normalise(&alone(&pair));
        // Unit rows, sums of f32 in another order.
        assert!(number(&(newest.index_select(0, &pair) - keys).abs().max()) < 1e-5);
    }
    assert_ne!(whole(&order), [0, 1, 2, 3, 4, 5], "or nothing was shuffled");
}

#[test]
fn the_key_network_follows_after_the_step() {
    for (tau, moved) in [(1.0, 0.0), (0.75, 0.25), (0.0, 1.0)] {
        let store = Store::new(0, Device::Cpu);
        let mut method = method(&store, Config { tau, ..small() });
        begin(&mut method, at(0));
        let first = store.trainable().remove(0);
        let (online, key) = (first.tensor, get(&store, &format!("key.{}", first.name)));
        assert_eq!(online, key, "equal at the start");
        let _ = method.loss(&batch(&PLACES), at(0));
        no_grad(|| drop(online.shallow_clone().g_add_scalar_(1.0))); // an optimiser's step
        let before = key.copy();
        method.after_step(at(0));
        // f32 numbers of about 1.
        assert!(number(&(&key - before - moved).abs().max()) < 1e-6, "tau {tau}");
    }
}

#[test]
fn centroids_follow_every_second_step_where_that_is_asked_for() {
    let store = Store::new(0, Device::Cpu);
    let mut method = method(&store, small());
    begin(&mut method, at(0));
    let mut whole = [0, 0];
    for step in 0..4 {
        let before = get(&store, "centroids").copy();
        let _ = method.loss(&batch(&PLACES.map(|place| (place + step as usize) % N)), at(step));
        // The rows of other images moved: only an update of the means, or a split, moves the centroids.
        let labels = get(&store, "labels").copy();
        method.after_step(at(step));
        let dissolved = labels != get(&store, "labels");
        let moved = number(&(get(&store, "centroids") - before).abs().max()) > 0.0;
        assert!(dissolved || moved == (step % 2 == 1), "step {step}");
        whole[step as usize % 2] += usize::from(!dissolved);
        assert!(sizes_of(&store, 4).iter().all(|&size| size >= 2));
    }
    assert!(whole.iter().all(|&steps| steps > 0), "a step of each kind without a dissolved cluster: {whole:?}");
}

#[test]
fn labels_start_from_all_images_and_are_made_anew_only_offline() {
    for online in [true, false] {
        let store = Store::new(0, Device::Cpu);
        let mut method = method(&store, Config { online, ..small() });
        begin(&mut method, at(0));
        let bank = get(&store, "bank").copy();
        let norms = bank.norm_scalaropt_dim(2.0, [1].as_slice(), false);
        assert!(number(&(norms - 1.0).abs().max()) < 1e-6, "unit rows in f32");
        assert!(sizes_of(&store, 4).iter().all(|&size| size >= 2));
        let centroids = get(&store, "centroids").copy();
        let again = Store::new(0, Device::Cpu);
        begin(&mut self::method(&again, Config { online, ..small() }), at(0));
        assert_eq!(get(&again, "labels"), get(&store, "labels"), "a function of the seed");
        assert_eq!(get(&again, "centroids"), centroids);

        let wrong = Tensor::zeros([N as i64], (Kind::Int64, Device::Cpu));
        set(&store, "labels", &wrong);
        begin(&mut method, at(4));
        assert_eq!(get(&store, "labels") == wrong, online, "k-means before the second epoch is for offline labels");
        assert_eq!(get(&store, "bank"), bank, "the bank has its rows from training");
        if !online {
            let labels = get(&store, "labels").copy();
            let loss = method.loss(&batch(&PLACES), at(4));
            method.after_step(at(4));
            assert_eq!((part(&loss, "changed"), get(&store, "labels")), (0.0, labels), "labels stay for the epoch");
        }
    }
}

#[test]
fn every_sampling_trains() {
    for sampling in [Sampling::SemiHard, Sampling::Hard, Sampling::Random] {
        let store = Store::new(0, Device::Cpu);
        // More negatives and neighbours than there are images.
        let mut method = method(&store, Config { sampling, negatives: 100, nearest: 1000, ..small() });
        begin(&mut method, at(0));
        assert!(number(&method.loss(&batch(&PLACES), at(0)).total).is_finite(), "{sampling:?}");
    }
}

#[test]
fn unusable_numbers_are_refused() {
    let refused = |config: Config| InterClr::check(&config).expect_err("a refusal").to_string();
    let d = Config::default;
    assert!(InterClr::check(&d()).is_ok());
    for x in [0.0, -1.0, f64::NAN] {
        assert!(refused(Config { temperature: x, ..d() }).starts_with("temperature is"));
    }
    assert!(refused(Config { tau: 1.5, ..d() }).starts_with("tau is 1.5"));
    assert!(refused(Config { weight: -0.1, ..d() }).starts_with("weight is -0.1"));
    assert!(refused(Config { margin: f64::NAN, ..d() }).starts_with("margin is NaN"));
    assert!(refused(Config { clusters: 1, ..d() }).starts_with("clusters is 1; expected at least 2"));
    assert!(refused(Config { queue: 0, ..d() }).starts_with("queue is 0"));
    assert!(refused(Config { negatives: 0, ..d() }).starts_with("negatives is 0"));
    assert!(refused(Config { nearest: 0, ..d() }).starts_with("nearest is 0"));
    assert!(refused(Config { update_every: 0, ..d() }).starts_with("update_every is 0"));
    assert!(refused(Config { min_size: 0, ..d() }).starts_with("min_size is 0"));
    let store = Store::new(0, Device::Cpu);
    let (image, encoder) = (ImageShape { channels: 1, size: 16 }, "convnet-tiny".parse().expect("a name"));
    let setup = Setup::new(store.root(), encoder, Shape::Image(image), N);
    let error = InterClr::new(Config { clusters: 25, ..small() }, &setup).err().expect("a refusal");
    assert_eq!(error.to_string(), "clusters is 25; expected at most 24, the number of training images");
}
