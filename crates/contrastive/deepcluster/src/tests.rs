//! Losses, whitening and spherical k-means against PyTorch, scikit-learn and plain loops (`tests/golden.py`), closed
//! forms, the sampler, and what an epoch's clustering does to the store.

use super::*;
use selfsup_core::Device;
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::golden::{against_golden, close, given, leaf, matrix, number};
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::store::Store;
use std::collections::BTreeSet;

/// Differs by rounding in f32: a few operations on numbers of about 1, each rounded to 6e-8.
fn close32(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 2e-6 * expected.abs().max(1.0), "{actual} is not {expected}");
}

fn rng() -> Rng {
    Rng::new(3, Purpose::Cluster, 0, 0, 0)
}

/// A training set of grey noise, 16 x 16.
struct Noise(Vec<Vec<u8>>);

impl Noise {
    fn new(n: u64) -> Noise {
        let image = |i| {
            let mut rng = Rng::new(7, Purpose::Sample, 0, i, 0);
            let level = rng.below(200) as u64;
            (0..256).map(|_| (level + rng.bits() % 56) as u8).collect()
        };
        Noise((0..n).map(image).collect())
    }
}

impl Images for Noise {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn channels(&self) -> usize {
        1
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        Ok(Image { pixels: self.0[index].as_slice().into(), height: 16, width: 16, channels: 1 })
    }
}

const IMAGES: usize = 40;
const EPOCH: Progress = Progress { step: 5, steps: 10, epoch: 1, epochs: 2 };
const START: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 2 };

fn small(version: i64) -> Config {
    let (clusters, components, iterations, heads, prototypes) = (6, 4, 10, 3, 5);
    Config { version, clusters, components, iterations, heads, prototypes, hidden: 16, output: 8, ..Config::default() }
}

fn build(store: &Store, config: Config) -> Result<DeepCluster> {
    let setup =
        Setup::new(store.root(), "convnet-tiny".parse()?, Shape::Image(ImageShape { channels: 1, size: 16 }), IMAGES);
    DeepCluster::check(&config)?;
    DeepCluster::new(config, &setup)
}

/// What `f` makes of all images.
fn with_images<T>(f: impl FnOnce(&Plain) -> T) -> T {
    let (images, normalisation) = (Noise::new(IMAGES as u64), Normalisation { mean: vec![0.5], std: vec![0.25] });
    f(&Plain { samples: &images, size: 16, normalisation: &normalisation, device: Device::Cpu })
}

fn begin(method: &mut DeepCluster, at: Progress) -> Vec<String> {
    with_images(|plain| method.before_epoch(at, plain)).expect("clusters")
}

/// Views of the images `index` of as many sizes as given.
fn batch(index: &[usize], sizes: &[i64]) -> Batch {
    let n = index.len() as i64;
    let view = |(i, &size): (usize, &i64)| {
        let x = matrix(0.1 + i as f64, n, size * size).to_kind(Kind::Float).view([n, 1, size, size]);
        View { x, params: Tensor::zeros([n, 12], (Kind::Float, Device::Cpu)) }
    };
    Batch::new(sizes.iter().enumerate().map(view).collect(), index.to_vec(), 0, 0)
}

fn get(store: &Store, name: &str) -> Tensor {
    store.variables().into_iter().find(|v| v.name == name).expect("a variable of that name").tensor
}

fn part(loss: &Loss, name: &str) -> f64 {
    number(&loss.parts.iter().find(|(n, _)| *n == name).expect("a part of that name").1)
}

#[test]
fn losses_and_gradients_are_those_of_the_formula_as_written() {
    #[rustfmt::skip]
    let golden = [
    (1.0, 2, 3, 0.61013123336, [1.388322452248e-01, -1.913857882504e-01, 5.255354302559e-02, 4.170337969358e-01]),
    (1.0, 8, 5, 1.88241674287, [2.105804002079e-02, -7.818947401964e-02, 7.971308181864e-03, 3.367667914742e-01]),
    (1.0, 32, 16, 2.91672670591, [1.820815965352e-03, -2.720245554822e-02, 6.892514777233e-04, 1.727082479826e-01]),
    (0.1, 2, 3, 0.128922288964, [1.696550793702e-03, -1.696653284151e-03, 1.024904495933e-07, 1.605292087857e+00]),
    (0.1, 8, 5, 8.63066152036, [3.534065112139e-04, -2.088092768519e-01, 2.134966566163e-08, 4.124722604138e+00]),
    (0.1, 32, 16, 9.43828030739, [3.419095966795e-05, -2.117680980904e-01, 2.065512474724e-09, 1.967504822520e+00]),
    ];
    for (temperature, n, k, expected, gradient) in golden {
        let a = leaf(0.2, n, k);
        let labels: Vec<i64> = (0..n).map(|i| (i * i + 1) % k).collect();
        let given = given(&[("a", &a), ("labels", &Tensor::from_slice(&labels))]);
        let version = if temperature == 1.0 { 1 } else { 2 };
        let loss = DeepCluster::objective(&Config { version, ..Config::default() }, &given).expect("a loss");
        against_golden(&loss, [&a], expected, [gradient]);
    }
}

#[test]
fn closed_forms() {
    let labels = Tensor::from_slice(&[0i64, 3, 3]);
    for temperature in [1.0, 0.1] {
        let equal = Tensor::full([3, 7], 2.5, (Kind::Double, Device::Cpu));
        close(number(&cluster_loss(&equal, &labels, temperature)), 7f64.ln());
        // The right score is 1, the 6 others are 0.
        let right = Tensor::zeros([3, 7], (Kind::Double, Device::Cpu)).scatter_value(1, &labels.unsqueeze(-1), 1.0);
        let expected = (1.0 + 6.0 * (-1.0f64 / temperature).exp()).ln();
        close(number(&cluster_loss(&right, &labels, temperature)), expected);
    }
    // Other names for the clusters, and the columns moved with them.
    let (a, order) = (matrix(0.2, 3, 7), Tensor::from_slice(&[4i64, 2, 0, 6, 1, 3, 5]));
    let renamed = cluster_loss(&a.index_select(1, &order), &Tensor::from_slice(&[2i64, 5, 5]), 0.1);
    close(number(&renamed), number(&cluster_loss(&a, &labels, 0.1)));
}

#[test]
fn whitening_is_that_of_scikit_learn() {
    let golden = [
        (8, 3, 2, [-0.405140313, -0.0505764064, 0.262240468, 39.7370897]),
        (20, 5, 5, [-0.299034461, -0.109034698, 0.0831465331, 137.017794]),
        (40, 16, 6, [-0.382710385, 0.32218087, 0.112263549, 525.711566]),
    ];
    for (n, d, kept, [first, second, third, sum]) in golden {
        // The signs of components are free; the products of rows do not depend on them.
        let w = whiten(&matrix(0.4, n, d).to_kind(Kind::Float), kept);
        let g = w.matmul(&w.tr());
        [([0, 1], first), ([0, 2], second), ([3, 5], third)].iter().for_each(|(at, x)| close32(g.double_value(at), *x));
        close32(number(&g.abs().sum(Kind::Double)), sum);
    }
}

#[test]
fn whitened_features_are_uncorrelated_with_variance_one_however_unequal_they_were() {
    let x = matrix(0.4, 200, 6).to_kind(Kind::Float) * Tensor::from_slice(&[1f32, 10.0, 1e-2, 3.0, 1e-3, 100.0]) + 50.0;
    let w = whitening::principal(&x, 4).to_kind(Kind::Double);
    assert!(number(&w.mean_dim([0i64].as_slice(), false, None).abs().max()) < 1e-5);
    let error = w.tr().matmul(&w) / 200.0 - Tensor::eye(4, (Kind::Double, Device::Cpu));
    assert!(number(&error.abs().max()) < 1e-5, "{error}"); // f32 rounds each of 200 rows to 6e-8
    // More components than features: all features. Equal features: no number is lost to a division by 0.
    assert_eq!(whiten(&x, 99).size(), [200, 6]);
    assert_eq!(number(&whiten(&x.ones_like(), 3).abs().max()), 0.0);
}

#[test]
fn the_second_versions_clustering_is_that_of_a_plain_loop() {
    let golden = [
        (12, 3, 3, 9.2232374, [0i64, 1, 2, 1, 2, 2, 0, 0, 0, 2, 0, 0]),
        (30, 5, 6, 24.3119719, [0, 1, 2, 3, 4, 5, 5, 2, 1, 1, 0, 4]),
        (60, 8, 20, 50.9170941, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ];
    for (n, d, k, sum, first) in golden {
        let x = normalise(&matrix(0.7, n, d).to_kind(Kind::Float));
        // The loop starts from the first k rows, so they are put where the random numbers will find them.
        let drawn: Vec<i64> = rng().permutation(n as usize).iter().map(|&i| i as i64).collect();
        let drawn = Tensor::from_slice(&drawn);
        let moved = x.zeros_like().index_copy_(0, &drawn, &x);
        let kmeans = KMeans { k, iterations: 10, metric: Metric::Cosine, empty: Empty::Keep };
        let found = kmeans.fit(&moved, &mut rng()).expect("clusters");
        let y = found.assignment.index_select(0, &drawn);
        close32(number(&(&x * found.centroids.index_select(0, &y)).sum(Kind::Double)), sum);
        assert_eq!(numbers(&y)[..12], first);
    }
}

#[test]
fn each_version_has_its_own_number_of_iterations() {
    let of = |version, iterations| Config { version, iterations, ..Config::default() }.iterations();
    assert_eq!([of(1, 0), of(2, 0), of(1, 10), of(2, 20)], [20, 10, 10, 20]);
}

#[test]
fn the_logged_likeness_is_that_of_scikit_learn() {
    close(nmi(&[0, 0, 1, 1, 2, 2, 0, 1], &[1, 1, 1, 0, 0, 2, 1, 3]), 0.5478932936977919);
}

#[test]
fn every_filled_cluster_is_drawn_equally_often() {
    // 4 clusters of 5 and of 60, 34, 5 and 1 images: 100 / 4 + 1 = 26 draws of each.
    let assignment: Vec<i64> =
        (0..100).map(|i| [0, 2, 3, 4][usize::from(i >= 60) + usize::from(i >= 94) + usize::from(i == 99)]).collect();
    let order = uniform_clusters(&assignment, 5, &mut rng());
    assert_eq!(order.len(), 4 * 26);
    for cluster in [0, 2, 3, 4] {
        let drawn: Vec<usize> = order.iter().copied().filter(|&i| assignment[i] == cluster).collect();
        assert_eq!(drawn.len(), 26, "cluster {cluster}");
        let different = drawn.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(different == 26, cluster < 3, "only a cluster with too few images repeats them");
    }
    assert!(
        order.windows(20).any(|run| run.iter().map(|&i| assignment[i]).collect::<BTreeSet<_>>().len() > 2),
        "shuffled"
    );
    assert_eq!(order, uniform_clusters(&assignment, 5, &mut rng()));
    assert_ne!(order, uniform_clusters(&assignment, 5, &mut Rng::new(3, Purpose::Cluster, 1, 0, 0)));
}

#[test]
fn an_epoch_of_version_1_clusters_draws_a_classifier_and_balances() {
    let store = Store::new(0, Device::Cpu);
    let mut method = build(&store, small(1)).expect("a method");
    let (w, b) = (get(&store, "classifier.weight"), get(&store, "classifier.bias"));
    assert_eq!(begin(&mut method, START), ["classifier"]);
    let (first, labels) = (w.copy(), numbers(&method.assignment.get(0)));
    // What is clustered: whitened features of whole images, in evaluation mode.
    let f = with_images(|plain| plain.map(|x| method.encoder.forward(x, false))).expect("features");
    let kmeans = KMeans { k: 6, iterations: 10, metric: Metric::Euclidean, empty: Empty::Split };
    let clusters = kmeans.fit(&whiten(&f, 4), &mut Rng::new(0, Purpose::Cluster, 0, 0, 0)).expect("clusters");
    assert_eq!(labels, numbers(&clusters.assignment));
    assert!(number(&w.std(true)) < 0.02 && number(&b.abs().max()) == 0.0);
    assert!(labels.iter().all(|y| (0..6).contains(y)) && labels.iter().collect::<BTreeSet<_>>().len() > 1);
    let features = method.encoder.forward(&batch(&[0, 1], &[16]).views[0].x, false);
    let order = method.order(START).expect("an order");
    assert!(order.len() >= IMAGES && order == method.order(START).expect("the same order"));

    // W is tiny, so no cluster is likelier than another: log 6, up to |W f|.
    let loss = method.loss(&batch(&[3, 1, 4, 15], &[16]), START);
    assert!((number(&loss.total) - 6f64.ln()).abs() < 0.3, "{}", number(&loss.total));
    assert_eq!(part(&loss, "nmi"), 0.0, "nothing to compare with yet");
    assert!(part(&loss, "clusters") >= 2.0 && part(&loss, "largest") < 1.0);
    loss.total.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));

    begin(&mut method, EPOCH);
    assert_ne!(w, first, "drawn anew");
    assert_ne!(order, method.order(EPOCH).expect("an order"));
    assert_ne!(features, method.encoder.forward(&batch(&[0, 1], &[16]).views[0].x, false), "statistics of norms moved");
    let nmi = part(&method.loss(&batch(&[0, 1], &[16]), EPOCH), "nmi");
    assert!(0.0 < nmi && nmi <= 1.0, "{nmi}");
    assert!(method.embedding(&batch(&[0], &[16]).views[0].x).is_none());
}

#[test]
fn features_are_clustered_in_evaluation_mode() {
    for version in [1, 2] {
        let store = Store::new(0, Device::Cpu);
        let mut method = build(&store, small(version)).expect("a method");
        let running = || store.variables().into_iter().filter(|v| v.name.contains("running"));
        let statistics = || running().map(|v| v.tensor.detach().copy()).collect::<Vec<_>>();
        let before = statistics();
        assert!(!before.is_empty());
        begin(&mut method, START);
        assert_eq!(before, statistics());
    }
}

#[test]
fn labels_follow_the_places_of_the_images() {
    let store = Store::new(0, Device::Cpu);
    let mut method = build(&store, small(1)).expect("a method");
    assign(&method.assignment, &Tensor::from_slice(&[2i64; IMAGES]).unsqueeze(0));
    let _ = method.assignment.get(0).narrow(0, 7, 1).fill_(5);
    let Head::Classifier(w) = &method.head else { panic!("version 1") };
    let (weight, bias) = (w.weight.copy(), w.bias.as_ref().map(Tensor::copy));
    let two = batch(&[30, 7], &[16, 16]); // two crops of each: labels 2, 5, 2, 5
    let loss = number(&method.loss(&two, EPOCH).total);
    let f = method.encoder.forward(&Tensor::cat(&[&two.views[0].x, &two.views[1].x], 0), true);
    let expected = number(&cluster_loss(&f.linear(&weight, bias.as_ref()), &Tensor::from_slice(&[2i64, 5, 2, 5]), 1.0));
    close32(loss, expected);
}

#[test]
fn without_balancing_every_image_comes_once() {
    let store = Store::new(0, Device::Cpu);
    let config = Config { sampling: Sampling::Images, ..small(1) };
    assert!(build(&store, config).expect("a method").order(START).is_none());
    assert!(build(&Store::new(0, Device::Cpu), small(2)).expect("a method").order(START).is_none());
}

#[test]
fn an_epoch_of_version_2_freezes_its_centroids_and_fills_its_banks() {
    let store = Store::new(0, Device::Cpu);
    let mut method = build(&store, small(2)).expect("a method");
    assert!(begin(&mut method, START).is_empty(), "no trained variable is drawn anew");
    let (c, banks) =
        ([0, 1, 2].map(|h| get(&store, &format!("prototypes.{h}"))), [0, 1].map(|i| get(&store, &format!("bank.{i}"))));
    assert_eq!(banks[0], banks[1], "one pass over the images fills both");
    let z = with_images(|plain| plain.map(|x| method.embedding(x).expect("an embedding"))).expect("embeddings");
    assert_eq!(banks[0], normalise(&z), "with embeddings in evaluation mode");
    for (h, c_h) in c.iter().enumerate() {
        let norms = c_h.norm_scalaropt_dim(2.0, [1].as_slice(), false);
        assert!(number(&(norms - 1.0).abs().max()) < 1e-6);
        let nearest = banks[h % 2].matmul(&c_h.tr()).argmax(-1, false);
        assert_eq!(nearest, method.assignment.get(h as i64), "labels belong to these centroids");
    }
    let (before, labels) = ([banks[0].copy(), banks[1].copy()], method.assignment.copy());

    // A small crop beside the two large ones joins the loss, but no bank.
    let batch = batch(&[9, 4, 31], &[16, 16, 8]);
    let loss = method.loss(&batch, EPOCH);
    let Head::Prototypes { g, .. } = &method.head else { panic!("version 2") };
    let f = |x: &Tensor| method.encoder.forward(x, true);
    let large = f(&Tensor::cat(&[&batch.views[0].x, &batch.views[1].x], 0));
    let z = normalise(&g.forward(&Tensor::cat(&[large, f(&batch.views[2].x)], 0), true));
    let of = |h: i64| {
        let y = labels.get(h).index_select(0, &batch.places());
        cluster_loss(&z.matmul(&c[h as usize].tr()), &Tensor::cat(&[&y, &y, &y], 0), 0.1)
    };
    close32(number(&loss.total), number(&((of(0) + of(1) + of(2)) / 3.0)));
    for (i, bank) in banks.iter().enumerate() {
        let rows = bank.index_select(0, &batch.places()) - z.narrow(0, 3 * i as i64, 3);
        assert!(number(&rows.abs().max()) < 1e-6, "the rows are those of crop {i}");
        let others = bank.ne_tensor(&before[i]).any_dim(1, false).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(others, 3);
        assert!(!bank.requires_grad());
    }

    loss.total.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    assert!(store.trainable().iter().all(|v| !v.name.starts_with("prototypes")));
    assert!(c.iter().all(|c_h| !c_h.requires_grad()));
    let (written, old) = (banks[0].copy(), c[0].copy());
    begin(&mut method, EPOCH);
    assert_eq!(banks[0], written, "a later epoch passes over nothing");
    assert_ne!(c[0], old, "and clusters what the last one wrote");
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [3, 8]);
    assert_eq!(method.views().len(), 2);
}

#[test]
fn unusable_numbers_are_refused() {
    let refused = |change: &dyn Fn(&mut Config), words: &str| {
        let mut config = small(1);
        change(&mut config);
        let error = build(&Store::new(0, Device::Cpu), config).err().expect("a refusal").to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&|c| c.version = 3, "version is 3; expected 1 or 2");
    refused(&|c| c.temperature = 0.0, "temperature is 0");
    refused(&|c| c.clusters = 0, "clusters is 0");
    refused(&|c| c.clusters = 41, "clusters is 41; expected at most 40");
    refused(&|c| (c.version, c.prototypes) = (2, 41), "prototypes is 41; expected at most 40");
    refused(&|c| c.components = 0, "components is 0");
    refused(&|c| c.heads = -1, "heads is -1");
    assert!(finite(Tensor::from_slice(&[1f32, f32::NAN])).expect_err("a refusal").to_string().contains("not finite"));
}
