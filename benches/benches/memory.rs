//! What methods do besides networks: moving averages, queues, banks, assignments, clustering.
//! `cargo bench -p selfsup-benches --bench memory`.
//!
//! Sizes are those of ResNet-18 recipes: a batch of 256, widths of 128, a queue of 65,536, 3,000 prototypes. To be held
//! against a step of `resnet18-cifar` (bench `encoder`, forward+backward, of which a step has two views).

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use selfsup_benches::normal;
use selfsup_core::cluster::{Empty, KMeans, Metric};
use selfsup_core::ema::Ema;
use selfsup_core::encoder;
use selfsup_core::memory::{Bank, Queue};
use selfsup_core::method::{ImageShape, Shape};
use selfsup_core::optimiser::Optimiser;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::Store;
use selfsup_core::tensor::normalise;
use selfsup_core::{Device, Kind, Tensor, torch_ext};
use std::hint::black_box;
use std::time::Duration;

fn memories(criterion: &mut Criterion) {
    torch_ext::init(Device::Cpu).expect("LibTorch is there");
    let store = Store::new(0, Device::Cpu);
    let root = store.root();
    let config = "resnet18-cifar".parse().expect("a known encoder");
    let image = ImageShape { channels: 3, size: 32 };
    for path in [root.clone(), &root.frozen() / "target"] {
        let _ = encoder::build(&(path / "encoder"), config, Shape::Image(image)).expect("the image fits the encoder");
    }
    let ema = Ema::new(&store, "encoder", "target.encoder").expect("two encoders of one kind");
    let queue = Queue::new(&root, "queue", 65_536, 128);
    let bank = Bank::new(&root, "bank", 50_000, 128);
    let new = normalise(&normal(&[256, 128], 0));
    let mut rng = Rng::new(0, Purpose::Sample, 1, 0, 0);
    let places: Vec<i64> = rng.permutation(50_000)[..256].iter().map(|&place| place as i64).collect();
    let places = Tensor::from_slice(&places);
    let scores = normal(&[256, 3000], 2) * 0.3;

    let mut group = criterion.benchmark_group("memory");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.bench_function("ema/resnet18", |b| b.iter(|| ema.update(0.99)));
    group.bench_function("queue/65536x128", |b| {
        b.iter(|| {
            let _ = black_box(queue.rows());
            queue.push(&new);
        });
    });
    group.bench_function("bank/50000x128", |b| b.iter(|| bank.update(&places, &new, 0.5)));
    group.bench_function("sinkhorn/256x3000", |b| b.iter(|| black_box(swav::sinkhorn(&scores, 0.05, 3))));
    group.finish();

    let gradients: Tensor = store.trainable().iter().map(|v| v.tensor.square().sum(Kind::Float)).sum();
    gradients.backward();
    let mut group = criterion.benchmark_group("optimiser");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(2));
    for (name, settings) in [
        ("sgd", "name = 'sgd'\nrate = 1e-4\ndecay = 1e-4"),
        ("adamw", "name = 'adamw'\nrate = 1e-4\ndecay = 1e-4"),
        ("lars", "name = 'lars'\nrate = 1e-4\ndecay = 1e-4"),
    ] {
        let config = toml::from_str(settings).expect("an optimiser");
        let mut optimiser = Optimiser::new(&config, store.trainable()).expect("variables");
        group.bench_function(format!("{name}/resnet18"), |b| b.iter(|| optimiser.step(1e-4, 1e-4).expect("gradients")));
    }
    group.finish();

    let mut group = criterion.benchmark_group("kmeans");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(2));
    let x = normal(&[60_000, 512], 3);
    let kmeans = KMeans { k: 100, iterations: 20, metric: Metric::Euclidean, empty: Empty::Split };
    group.bench_function("60000x512/k100/20", |b| {
        b.iter(|| kmeans.fit(&x, &mut Rng::new(0, Purpose::Cluster, 0, 0, 0)).expect("fewer clusters than rows"));
    });
    group.finish();
}

criterion_group!(benches, memories);
criterion_main!(benches);
