//! What one training step of each method costs: `cargo bench -p selfsup-benches --bench step`.
//!
//! Loss, backward, optimiser and `after_step`, with the configuration of the method's preset `cpu`, on views of noise
//! that are made beforehand. Figures are images per second, an image counting once however many views it has. Ids are
//! METHOD/PRECISION; the preset's own precision is one of the two.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use selfsup_benches::training::Training;
use selfsup_core::method::ImageShape;
use selfsup_core::{Device, torch_ext};
use selfsup_experiments::registry;
use std::time::Duration;

/// The shape of the images of the presets' data set.
const IMAGE: ImageShape = ImageShape { channels: 1, size: 28 };

fn steps(criterion: &mut Criterion) {
    torch_ext::init(Device::Cpu).expect("LibTorch is there");
    for entry in registry::METHODS {
        let mut group = criterion.benchmark_group(entry.name);
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
        for kind in ["f32", "bf16"] {
            let training = Training::new(&format!("{}/cpu", entry.name), IMAGE, &[&format!("train.precision={kind}")]);
            let mut training = training.unwrap_or_else(|error| panic!("{}: {error:#}", entry.name));
            group.throughput(Throughput::Elements(training.config.train.batch as u64));
            group.bench_function(kind, |bencher| {
                bencher.iter(|| training.step().unwrap_or_else(|error| panic!("{}: {error:#}", entry.name)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
