//! A method in the middle of training, on noise: what the loop does in a step, part by part.

use crate::Noise;
use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::{HostBatch, Plain};
use selfsup_core::data::Images;
use selfsup_core::method::{Batch, ImageShape, Loss, Method, Setup, Shape};
use selfsup_core::optimiser::{Optimiser, clip_gradients};
use selfsup_core::progress::Progress;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::Store;
use selfsup_core::{Device, precision, torch_ext};
use selfsup_experiments::config::{RunConfig, parse_override};
use selfsup_experiments::{registry, run};

/// Batches that are made beforehand and taken in turn.
const BATCHES: usize = 4;

pub struct Training {
    pub config: RunConfig,
    pub store: Store,
    pub batches: Vec<Batch>,
    method: Box<dyn Method>,
    optimiser: Optimiser,
    recipes: Vec<Recipe>,
    images: Noise,
    step: u64,
}

impl Training {
    /// A preset with overrides, `key=value` each, on images of noise.
    ///
    /// # Errors
    /// If the configuration is none, or the method refuses the images.
    pub fn new(preset: &str, image: ImageShape, overrides: &[&str]) -> Result<Training> {
        let layers = overrides.iter().map(|text| parse_override(text)).collect::<Result<Vec<_>>>()?;
        let config = RunConfig::resolve(preset, &layers)?;
        let images = Noise::new(BATCHES * config.train.batch, image.size as usize, image.channels as usize);
        let store = Store::new(config.seed, Device::Cpu);
        let setup = Setup::new(store.root(), config.encoder, Shape::Image(image), images.len());
        let name = preset.split('/').next().unwrap_or(preset);
        let method = (registry::find(name)?.build)(&config.settings(), &setup)?;
        drop(setup);
        let optimiser = Optimiser::new(&config.train.optimiser, store.trainable())?;
        let recipes = run::recipes(&config, &*method);
        let mut training = Training { config, store, batches: Vec::new(), method, optimiser, recipes, images, step: 0 };
        let batches = (0..BATCHES).map(|i| Ok(training.render(i)?.to_batch(Device::Cpu)));
        training.batches = batches.collect::<Result<_>>()?;
        Ok(training)
    }

    /// The views of one of the batches, as another thread makes them.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn render(&self, batch: usize) -> Result<HostBatch> {
        let size = self.config.train.batch;
        let index: Vec<usize> = (batch * size..(batch + 1) * size).collect();
        let normalisation = &self.images.normalisation();
        HostBatch::render(&self.images, index, &self.recipes, self.images.size(), normalisation, self.config.seed, 0)
    }

    fn at(&self) -> Progress {
        let (per_epoch, steps) = (BATCHES as u64, BATCHES as u64 * self.config.train.epochs);
        let step = self.step % steps; // a bench may take more steps than a run has
        Progress { step, steps, epoch: step / per_epoch, epochs: self.config.train.epochs }
    }

    /// The loss of the next batch, with what comes before it.
    ///
    /// # Errors
    /// If the method fails or the loss is not finite.
    pub fn loss(&mut self) -> Result<Loss> {
        let at = self.at();
        if at.step.is_multiple_of(BATCHES as u64) {
            let normalisation = &self.images.normalisation();
            let images = Plain { samples: &self.images, size: self.images.size(), normalisation, device: Device::Cpu };
            drop(self.method.before_epoch(at, &images)?);
        }
        torch_ext::seed(Rng::new(self.config.seed, Purpose::Step, 0, at.step, 0).bits());
        let batch = &self.batches[at.step as usize % BATCHES];
        let loss = precision::with(self.config.train.precision, || self.method.loss(batch, at));
        let total = loss.total.double_value(&[]);
        ensure!(total.is_finite(), "the loss became {total} at step {}", self.step);
        Ok(loss)
    }

    /// The optimiser's step, gradients clipped.
    ///
    /// # Errors
    /// If LibTorch refuses.
    pub fn update(&mut self) -> Result<()> {
        let train = &self.config.train;
        if train.clip_norm > 0.0 {
            let _norm = clip_gradients(&self.store.trainable(), train.clip_norm)?;
        }
        let peak = train.optimiser.peak(train.batch);
        self.optimiser.step(train.schedule.rate(peak, train.warmup, self.at()), peak)
    }

    /// What the method does after a step.
    pub fn after_step(&mut self) {
        self.method.after_step(self.at());
        self.step += 1;
    }

    /// Takes the gradients away.
    ///
    /// # Errors
    /// If LibTorch refuses.
    pub fn zero_grad(&self) -> Result<()> {
        self.optimiser.zero_grad()
    }

    /// All of it.
    ///
    /// # Errors
    /// As the parts.
    pub fn step(&mut self) -> Result<()> {
        let loss = self.loss()?;
        self.zero_grad()?;
        loss.total.f_backward()?;
        self.update()?;
        self.after_step();
        Ok(())
    }
}
