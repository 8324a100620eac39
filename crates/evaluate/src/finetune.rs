//! Fine-tuning: encoder and a linear classifier, trained together on labels.
//!
//! From a pretrained encoder with a fraction of the labels it is the semi-supervised protocol; from a randomly
//! initialised one with all of them, the supervised row that every method is held against.

use crate::split::{Use, stratified};
use anyhow::{Result, ensure};
use selfsup_core::augment::views::{plain, render_views};
use selfsup_core::augment::{Crop, Recipe};
use selfsup_core::data::{Modality, Normalisation, Samples};
use selfsup_core::group::{self, Gradients};
use selfsup_core::layer::Linear;
use selfsup_core::loss::cross_entropy;
use selfsup_core::optimiser::{Optimiser, OptimiserConfig};
use selfsup_core::progress::{Progress, Schedule};
use selfsup_core::rng::{Purpose, Rng, hash_name};
use selfsup_core::store::Store;
use selfsup_core::{Kind, Tensor, no_grad};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// How to fine-tune. The learning rate rises over `warmup` epochs and falls as half a cosine to 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finetune {
    /// The share of each class whose labels are seen, at least one image of each.
    pub fraction: f64,
    pub epochs: u64,
    /// Where `epochs` of the labelled images are fewer steps than this, there are as many epochs as it takes: 0: never.
    pub min_steps: u64,
    /// Images of a step; all labelled images, where these are fewer. The rest of an epoch, less than a batch, is left out.
    pub batch: usize,
    /// In epochs.
    pub warmup: f64,
    /// How training images are augmented; test images are not.
    pub recipe: Recipe,
    pub optimiser: OptimiserConfig,
}

impl Finetune {
    /// # Errors
    /// If a setting cannot be used.
    pub fn check(&self) -> Result<()> {
        let Finetune { fraction, epochs, batch, warmup, .. } = *self;
        ensure!(epochs > 0, "fine-tuning needs at least one epoch");
        ensure!(batch > 1, "fine-tuning needs batches of two images or more: batch statistics of one do not exist");
        ensure!(
            warmup.is_finite() && warmup >= 0.0,
            "the warm-up of fine-tuning must be 0 or more epochs, not {warmup}"
        );
        ensure!(fraction > 0.0 && fraction <= 1.0, "fine-tuning needs a fraction in (0, 1], not {fraction}");
        self.recipe.check()
    }
}

impl Default for Finetune {
    fn default() -> Finetune {
        let crop = Crop { scale: [0.2, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] };
        Finetune {
            fraction: 1.0,
            epochs: 30,
            min_steps: 0,
            batch: 128,
            warmup: 1.0,
            recipe: Recipe {
                size: 0,
                crop: Some(crop),
                flip: 0.5,
                jitter: None,
                grey: 0.0,
                blur: None,
                solarise: None,
            },
            optimiser: OptimiserConfig::Sgd {
                rate: 0.1,
                per: 256,
                momentum: 0.9,
                nesterov: false,
                decay: 5e-4,
                decay_all: false,
            },
        }
    }
}

/// An encoder to be trained further.
pub struct Network<'a> {
    /// [B, C, S, S] -> [B, D], in training mode if the flag is set.
    pub features: &'a dyn Fn(&Tensor, bool) -> Tensor,
    /// Where its variables live. Those that the features do not depend on stay as they are.
    pub store: &'a Store,
    /// S.
    pub size: usize,
    pub normalisation: &'a Normalisation,
}

/// One split: images, and the label of each.
#[derive(Clone, Copy)]
pub struct Labelled<'a> {
    pub samples: &'a dyn Samples,
    pub labels: &'a [i64],
}

/// What fine-tuning reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinetuneScore {
    /// The share of test images classified rightly after the last epoch. No other epoch is looked at.
    pub accuracy: f64,
    /// The mean loss of the last epoch.
    pub train_loss: f64,
    /// Images whose labels were seen.
    pub labelled: usize,
    /// Epochs of these images, and optimiser steps.
    pub epochs: u64,
    pub steps: u64,
}

/// Test images that pass the network at once.
const TEST_BATCH: usize = 512;

/// The error of a training that was ended from outside. Nothing of it is kept: it starts anew another time.
#[derive(Debug)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("stopped on request")
    }
}

impl std::error::Error for Stopped {}

/// Trains the encoder with a new classifier ([`Classifier::train`]), and scores both on `test`.
///
/// # Errors
/// As [`Classifier::train`], and if the test set cannot be used.
pub fn finetune(
    config: &Finetune,
    network: &Network,
    train: Labelled,
    test: Labelled,
    classes: usize,
    seed: u64,
    stop: &AtomicBool,
) -> Result<FinetuneScore> {
    test.check("test", classes)?;
    let trained = Classifier::train(config, network, train, classes, seed, stop)?;
    let Classifier { train_loss, labelled, epochs, steps, .. } = trained;
    Ok(FinetuneScore { accuracy: trained.accuracy(test)?, train_loss, labelled, epochs, steps })
}

/// A trained encoder with its classifier.
pub struct Classifier<'a> {
    network: &'a Network<'a>,
    head: Head,
    train_loss: f64,
    labelled: usize,
    epochs: u64,
    steps: u64,
}

impl<'a> Classifier<'a> {
    /// Trains the encoder (in place: its caller saves and restores it) with a new classifier.
    ///
    /// Which images are labelled depends on the labels, the fraction and the seed alone, so every method is given the
    /// same ones; smaller fractions are parts of larger ones. The arithmetic is that of
    /// [`selfsup_core::precision::with`]. `stop`, set from outside, ends it after the step in progress.
    ///
    /// Several ranks begin with the same weights and train as one, each with its part of a batch, or with all of it where it
    /// cannot be shared equally.
    ///
    /// # Errors
    /// If the configuration cannot be used, images and labels do not fit, an image cannot be read, or the loss diverges;
    /// [`Stopped`] if it was; or if a process cannot be reached.
    pub fn train(
        config: &Finetune,
        network: &'a Network<'a>,
        train: Labelled,
        classes: usize,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Classifier<'a>> {
        config.check()?;
        let Finetune { fraction, epochs, min_steps, batch, warmup, ref recipe, ref optimiser } = *config;
        train.check("training", classes)?;
        let (labelled, _) = stratified(train.labels, fraction, seed, Use::Labelled)?;
        ensure!(labelled.len() > 1, "fine-tuning needs at least two labelled images: raise the fraction {fraction}");

        let device = network.store.device();
        let head = {
            let probe = plain(train.samples, &labelled[..1], network.size, network.normalisation)?;
            let size = no_grad(|| (network.features)(&probe.to_device(device), false)).size();
            ensure!(size.len() == 2, "fine-tuning needs features of shape [images, dimensions], not {size:?}");
            Head::new(seed, network.store, size[1], classes)
        };
        let mut variables = network.store.trainable();
        variables.extend(head.store.trainable());
        let gradients = Gradients::of(variables.iter().map(|v| v.tensor.shallow_clone()).collect())?;
        let mut optimiser_state = Optimiser::new(optimiser, variables)?;

        // The recipe is for images; sequences are shown as they are.
        let recipe =
            if matches!(train.samples.modality(), Modality::Images { .. }) { recipe } else { &Recipe::default() };
        let recipes = std::slice::from_ref(recipe);
        let batch = batch.min(labelled.len());
        let shared = batch.is_multiple_of(group::size());
        let own = if shared { group::share_of(batch) } else { 0..batch };
        let per_epoch = (labelled.len() / batch) as u64;
        let epochs = epochs.max(min_steps.div_ceil(per_epoch));
        let steps = epochs * per_epoch;
        let peak = optimiser.peak(batch);
        let mut train_loss = f64::NAN;
        for epoch in 0..epochs {
            let mut order = labelled.clone();
            Rng::new(seed, Purpose::Order, epoch, hash_name("finetune"), 0).shuffle(&mut order);
            let mut total = Tensor::zeros([], (Kind::Double, device));
            for (step, index) in order.chunks_exact(batch).enumerate() {
                let at = Progress { step: epoch * per_epoch + step as u64, steps, epoch, epochs };
                let index = &index[own.clone()];
                let views =
                    render_views(train.samples, index, recipes, network.size, network.normalisation, seed, epoch)?;
                let loss = || {
                    let logits = head.linear.forward(&(network.features)(&views[0].to_view(device).x, true));
                    cross_entropy(&logits, &train.labels_of(index).to_device(device))
                };
                let loss = if shared { loss() } else { group::alone(loss) };
                group::check()?;
                optimiser_state.zero_grad()?;
                gradients.backward(&loss)?;
                optimiser_state.step(Schedule::default().rate(peak, warmup, at), peak)?;
                total += loss.detach().to_kind(Kind::Double);
                if group::any(stop.load(Ordering::Relaxed))? {
                    return Err(Stopped.into());
                }
            }
            train_loss = group::average_numbers(&[total.double_value(&[]) / per_epoch as f64])?[0];
            ensure!(
                train_loss.is_finite(),
                "fine-tuning diverged in epoch {} of {epochs} (the mean loss is {train_loss}): lower the rate",
                epoch + 1
            );
        }
        // No gradient of this training may reach the caller's next one.
        optimiser_state.zero_grad()?;
        Ok(Classifier { network, head, train_loss, labelled: labelled.len(), epochs, steps })
    }

    /// The class of each image: [B, C, S, S], normalised as the training images were -> `[B]` i64.
    pub fn classify(&self, x: &Tensor) -> Tensor {
        no_grad(|| self.head.linear.forward(&(self.network.features)(x, false)).argmax(1, false))
    }

    fn accuracy(&self, test: Labelled) -> Result<f64> {
        let Network { size, normalisation, store, .. } = *self.network;
        let index: Vec<usize> = (0..test.samples.len()).collect();
        let batches: Vec<&[usize]> = index.chunks(TEST_BATCH).collect();
        let right = group::in_shares(batches.len(), |i| {
            let x = plain(test.samples, batches[i], size, normalisation)?.to_device(store.device());
            let labels = test.labels_of(batches[i]).to_device(store.device());
            Ok(self.classify(&x).eq_tensor(&labels).sum(Kind::Int64).unsqueeze(0))
        })?;
        Ok(right.sum(Kind::Int64).int64_value(&[]) as f64 / index.len() as f64)
    }
}

/// The classifier on top, in a store of its own: the encoder's stays a method's.
struct Head {
    store: Store,
    linear: Linear,
}

impl Head {
    fn new(seed: u64, beside: &Store, input: i64, classes: usize) -> Head {
        let store = Store::new(seed, beside.device());
        let linear = Linear::new(&(store.root() / "finetune" / "classifier"), input, classes as i64, true);
        Head { store, linear }
    }
}

impl Labelled<'_> {
    fn check(&self, split: &str, classes: usize) -> Result<()> {
        let (images, labels) = (self.samples.len(), self.labels.len());
        ensure!(images == labels, "the {split} set has {images} images but {labels} labels: each image needs one");
        ensure!(images > 0, "the {split} set is empty: fine-tuning needs images");
        if let Some(bad) = self.labels.iter().find(|&&label| label < 0 || label >= classes as i64) {
            anyhow::bail!("the {split} set has the label {bad}: with {classes} classes it must lie in 0..{classes}");
        }
        Ok(())
    }

    fn labels_of(&self, index: &[usize]) -> Tensor {
        Tensor::from_slice(&index.iter().map(|&i| self.labels[i]).collect::<Vec<_>>())
    }
}
