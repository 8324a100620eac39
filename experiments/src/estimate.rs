//! How long a study would take: a step of each of its runs is timed, nothing is trained.

use crate::config::RunConfig;
use crate::first_stage::planned;
use crate::registry::{RANDOM, SUPERVISED};
use crate::run::{Machine, build, recipes, training_samples};
use anyhow::{Context, Result, ensure};
use selfsup_core::augment::views::{HostBatch, Plain};
use selfsup_core::precision;
use selfsup_core::progress::Progress;
use selfsup_datasets::Dataset;
use std::time::Instant;

/// About how many seconds a run trains on this machine: views are drawn beside the network's pass, so the slower of the
/// two counts; to it comes what the method does before each epoch, and the training of a first stage. The update of the
/// weights and the evaluation are not counted. None of the random and the supervised row.
///
/// # Errors
/// If the method cannot be built, or the data are fewer than a batch.
pub fn training_seconds(config: &RunConfig, dataset: &Dataset, machine: &Machine) -> Result<Option<f64>> {
    if [RANDOM, SUPERVISED].contains(&config.name()) {
        return Ok(None);
    }
    let first = planned(config)?;
    let mut subject = build(config, first.as_ref(), dataset, machine.device)?;
    let (samples, size) = (training_samples(dataset), subject.shape.size() as usize);
    let (batch, epochs) = (config.train.batch, config.train.epochs);
    ensure!(samples.len() >= batch, "{} samples are fewer than a batch of {batch}", samples.len());
    let steps = samples.len() / batch;
    let at = Progress { step: 0, steps: steps as u64 * epochs, epoch: 0, epochs };
    let normalisation = &dataset.normalisation;
    let plain = Plain { samples, size, normalisation, device: machine.device };

    let started = Instant::now();
    let _redrawn = precision::with(config.train.precision, || subject.method.before_epoch(at, &plain))?;
    let before = started.elapsed().as_secs_f64();
    let views = recipes(config, &*subject.method);
    let mut seconds = (0.0, 0.0);
    // The first step sets up what later ones find.
    for _ in 0..2 {
        let started = Instant::now();
        let index = (0..batch).collect();
        let made = HostBatch::render(samples, index, &views, size, normalisation, config.seed, 0)?;
        seconds.0 = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let made = made.to_batch(machine.device);
        let loss = precision::with(config.train.precision, || subject.method.loss(&made, at));
        let _value = loss.total.double_value(&[]); // waits for the device
        loss.total.f_backward().context("the loss has no gradient")?;
        seconds.1 = started.elapsed().as_secs_f64();
    }
    let own = epochs as f64 * (before + steps as f64 * seconds.0.max(seconds.1));
    let earlier = first.map(|first| training_seconds(&first, dataset, machine)).transpose()?.flatten();
    Ok(Some(own + earlier.unwrap_or(0.0)))
}
