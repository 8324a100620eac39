//! What one training step of each method costs: `cargo bench -p selfsup-benches --bench step`.
//!
//! Loss, backward, optimiser and `after_step`, with the configuration of the method's preset `cpu`, on views of noise
//! that are made beforehand. Figures are images per second, an image counting once however many views it has. Ids are
//! METHOD/PRECISION; the preset's own precision is one of the two.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use selfsup_benches::{Noise, store_channels_last};
use selfsup_core::augment::views::{HostBatch, Plain};
use selfsup_core::data::Images;
use selfsup_core::method::{Batch, ImageShape, Method, Setup, Shape};
use selfsup_core::optimiser::{Optimiser, clip_gradients};
use selfsup_core::precision::{self, Precision};
use selfsup_core::progress::Progress;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::Store;
use selfsup_core::{Device, torch_ext};
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::{registry, run};
use std::time::Duration;

/// Size of the images of the presets' data set.
const SIZE: usize = 28;
/// Batches that are made beforehand and taken in turn.
const BATCHES: usize = 4;

/// A method in the middle of training.
struct Training {
    config: RunConfig,
    method: Box<dyn Method>,
    store: Store,
    optimiser: Optimiser,
    images: Noise,
    batches: Vec<Batch>,
    step: u64,
}

impl Training {
    fn new(name: &str, precision: Precision) -> anyhow::Result<Training> {
        let mut config = RunConfig::resolve(&format!("{name}/cpu"), &[])?;
        config.train.precision = precision;
        let size = config.train.batch;
        let images = Noise::new(BATCHES * size, SIZE, 1);
        let store = Store::new(config.seed, Device::Cpu);
        let image = ImageShape { channels: images.channels() as i64, size: SIZE as i64 };
        let setup = Setup::new(store.root(), config.encoder, Shape::Image(image), images.len());
        let method = (registry::find(name)?.build)(&config.settings(), &setup)?;
        drop(setup);
        store_channels_last(&store);
        let optimiser = Optimiser::new(&config.train.optimiser, store.trainable())?;
        let recipes = run::recipes(&config, &*method);
        let batches = (0..BATCHES).map(|i| {
            let index: Vec<usize> = (i * size..(i + 1) * size).collect();
            let made = HostBatch::render(&images, index, &recipes, SIZE, &images.normalisation(), config.seed, 0)?;
            Ok(made.to_batch(Device::Cpu))
        });
        let batches = batches.collect::<anyhow::Result<_>>()?;
        Ok(Training { config, method, store, optimiser, images, batches, step: 0 })
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let train = &self.config.train;
        let (per_epoch, steps) = (BATCHES as u64, BATCHES as u64 * train.epochs);
        let step = self.step % steps; // criterion may take more steps than a run has
        let at = Progress { step, steps, epoch: step / per_epoch, epochs: train.epochs };
        if step.is_multiple_of(per_epoch) {
            let normalisation = &self.images.normalisation();
            let images = Plain { samples: &self.images, size: SIZE, normalisation, device: Device::Cpu };
            drop(self.method.before_epoch(at, &images)?);
        }
        torch_ext::seed(Rng::new(self.config.seed, Purpose::Step, 0, step, 0).bits());
        let batch = &self.batches[(step % per_epoch) as usize];
        let loss = precision::with(train.precision, || self.method.loss(batch, at));
        let total = loss.total.double_value(&[]);
        anyhow::ensure!(total.is_finite(), "the loss became {total} at step {}", self.step);
        self.optimiser.zero_grad()?;
        loss.total.f_backward()?;
        if train.clip_norm > 0.0 {
            let _norm = clip_gradients(&self.store.trainable(), train.clip_norm)?;
        }
        let peak = train.optimiser.peak(train.batch);
        let rate = train.schedule.rate(peak, train.warmup, at);
        self.optimiser.step(rate, peak)?;
        self.method.after_step(at);
        self.step += 1;
        Ok(())
    }
}

fn steps(criterion: &mut Criterion) {
    torch_ext::init(Device::Cpu).expect("LibTorch is there");
    for entry in registry::METHODS {
        let mut group = criterion.benchmark_group(entry.name);
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
        for (kind, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
            let training = Training::new(entry.name, precision);
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
