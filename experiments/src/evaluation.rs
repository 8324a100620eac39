//! The protocol: what is asked of every encoder, in the same way.

mod augmentation;
mod layers;

use crate::config::RunConfig;
use crate::generation;
use crate::portrait::Portrait;
use crate::registry::SUPERVISED;
use crate::run::{Subject, recipes, training_samples};
use anyhow::{Result, bail, ensure};
use selfsup_core::augment::views::{HostBatch, plain, render_views};
use selfsup_core::data::{Modality, Samples, Subset};
use selfsup_core::method::Method;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Store, assign};
use selfsup_core::{Device, Kind, Tensor, group, no_grad};
use selfsup_datasets::{Dataset, Part};
use selfsup_evaluate::{Features, Finetune, Geometry, Labelled, Network, finetune};
use selfsup_report::table::OWN;
use std::sync::atomic::AtomicBool;

/// Samples that pass the encoder at once.
const BATCH: usize = 500;

/// What the protocols gave.
pub struct Scores {
    /// (protocol, metric, value).
    pub values: Vec<(String, String, f64)>,
    /// Epochs the encoder was trained for; 0 if it was not.
    pub epochs: u64,
    /// Optimiser steps of that training.
    pub steps: u64,
    pub n_test: usize,
    /// What pictures show of the features, where kNN was asked.
    pub portrait: Option<Portrait>,
}

/// Features of samples by the frozen encoder, [N, D] f32 on the CPU. Where there are several ranks each makes those of a share
/// of the batches, and has all in the end: the bits that one process has, on machines that round alike.
///
/// # Errors
/// If a sample cannot be read, or a process not be reached.
pub fn extract(
    f: &dyn Fn(&Tensor) -> Tensor,
    samples: &dyn Samples,
    subject: &Subject,
    dataset: &Dataset,
) -> Result<Tensor> {
    let rows: Vec<usize> = (0..samples.len()).collect();
    let batches: Vec<&[usize]> = rows.chunks(BATCH).collect();
    group::in_shares(batches.len(), |i| {
        let x = plain(samples, batches[i], subject.shape.size() as usize, &dataset.normalisation)?;
        Ok(f(&x.to_device(subject.store.device())).to_kind(Kind::Float).to_device(Device::Cpu))
    })
}

/// `f` of the first sample, a batch of one.
fn first<T>(samples: &dyn Samples, f: impl FnOnce(&Tensor) -> T, subject: &Subject, dataset: &Dataset) -> Result<T> {
    let x = plain(samples, &[0], subject.shape.size() as usize, &dataset.normalisation)?;
    Ok(no_grad(|| f(&x.to_device(subject.store.device()))))
}

/// The projector's output, where the method has one.
fn embedding<'a>(
    samples: &dyn Samples,
    subject: &'a Subject,
    dataset: &Dataset,
) -> Result<Option<impl Fn(&Tensor) -> Tensor + use<'a>>> {
    let there = first(samples, |x| subject.method.embedding(x).is_some(), subject, dataset)?;
    Ok(there.then_some(|x: &Tensor| subject.method.embedding(x).expect("it was there before")))
}

/// Pixels of a side of the largest images: a batch is set aside before one of them is made.
const LARGEST: usize = 4096;

/// Protocols that need labels.
pub const LABELLED: [&str; 4] = ["knn", "linear", "finetune", "layers"];

/// Refuses protocols that a data set has no labels or no test part for, before anything is trained.
///
/// # Errors
/// Says what is missing and which protocols can be asked for.
pub fn check(config: &RunConfig, dataset: &Dataset) -> Result<()> {
    let wanted = &config.evaluate.protocols;
    ensure!(
        wanted.is_empty() || dataset.test.is_some(),
        "`{}` has no test part; give `evaluate.protocols=[]`, or a folder with test/ beside train/",
        dataset.name
    );
    let labelled = wanted.iter().map(String::as_str).find(|p| LABELLED.contains(p) || *p == "generated");
    let labelled = if config.name() == SUPERVISED { Some(SUPERVISED) } else { labelled };
    let parts = [Some(&dataset.train), dataset.test.as_ref()];
    if let (Some(asking), true) = (labelled, parts.into_iter().flatten().any(|part| part.labels.is_none())) {
        bail!(
            "`{}` has no labels, which `{asking}` needs; give `evaluate.protocols=['geometry', 'pretext']`, which need none",
            dataset.name
        );
    }
    if let (Some(asking), [only]) = (labelled, dataset.classes.as_slice()) {
        bail!(
            "`{}` has the one class `{only}`, so that every answer to `{asking}` is right: give it more classes, or \
             `evaluate.protocols=['geometry', 'pretext']`, which need none",
            dataset.name
        );
    }
    let features = wanted.iter().find(|p| !OWN.contains(&p.as_str()));
    if let (Some(asking), true) = (features, generation::captions_are_labels(&dataset.train)) {
        bail!(
            "the captions of `{}` are its labels, so features are not judged by `{asking}`, as if they had been learned \
             without: give `evaluate.protocols=['pretext', 'generated']`, or other `data`",
            dataset.name
        );
    }
    let modality = dataset.train.samples.modality();
    ensure!(
        matches!(modality, Modality::Images { .. }) || wanted.iter().all(|p| p != "augmentation"),
        "protocol `augmentation` tells how images were augmented, but `{}` holds {}: leave it out",
        dataset.name,
        modality.plural()
    );
    ensure!(
        !matches!(modality, Modality::Images { .. }) || config.size <= LARGEST,
        "`size` is {}; expected at most {LARGEST} pixels",
        config.size
    );
    let (k, n) = (config.evaluate.knn.k, dataset.train.len());
    ensure!(
        k <= n || wanted.iter().all(|p| p != "knn"),
        "`evaluate.knn.k` is {k}, but `{}` has only {n} training {} to vote: lower it",
        dataset.name,
        modality.plural()
    );
    Ok(())
}

fn labels(part: &Part) -> Option<Vec<i64>> {
    part.labels.as_ref().map(|labels| labels.iter().map(|&label| i64::from(label)).collect())
}

/// Runs the configured protocols. Labels of the test part choose nothing. Several ranks with the same weights share the work,
/// and all of them have the scores.
///
/// # Errors
/// If the data set has no labels or no test part, or a protocol fails; [`Stopped`](selfsup_evaluate::Stopped) if `stop`
/// was set while one trained; or if a process cannot be reached.
pub fn judge(config: &RunConfig, dataset: &Dataset, subject: &mut Subject, stop: &AtomicBool) -> Result<Scores> {
    check(config, dataset)?;
    let wants = |protocol: &str| config.evaluate.protocols.iter().any(|p| p == protocol);
    let mut values = Vec::new();
    let mut epochs = if config.name() == crate::registry::RANDOM { 0 } else { config.train.epochs };
    let mut steps = epochs * (training_samples(dataset).len() / config.train.batch) as u64;
    let Some(test) = dataset.test.as_ref().filter(|_| !config.evaluate.protocols.is_empty()) else {
        return Ok(Scores { values, epochs, steps, n_test: 0, portrait: None });
    };
    if wants("pretext") {
        let scores = pretext(config, subject, dataset, test)?;
        values.extend(scores.into_iter().map(|(metric, value)| ("pretext".into(), metric, value)));
    }
    // Without labels, nothing below asks for them.
    let (train_labels, test_labels) = (labels(&dataset.train), labels(test));
    let (train_labels, test_labels) = (train_labels.unwrap_or_default(), test_labels.unwrap_or_default());
    let classes = dataset.classes.len();
    let train = Labelled { samples: &*dataset.train.samples, labels: &train_labels };
    let held = Labelled { samples: &*test.samples, labels: &test_labels };
    let tune = |subject: &Subject, settings: &Finetune| {
        let features = |x: &Tensor, train: bool| subject.method.features(x, train);
        let network = Network {
            features: &features,
            store: &subject.store,
            size: subject.shape.size() as usize,
            normalisation: &dataset.normalisation,
        };
        selfsup_core::precision::with(config.train.precision, || {
            finetune(settings, &network, train, held, classes, config.seed, stop)
        })
    };
    if config.name() == SUPERVISED {
        let settings = Finetune { fraction: 1.0, ..config.evaluate.finetune.clone() };
        let score = tune(subject, &settings)?;
        (epochs, steps) = (score.epochs, score.steps);
        values.push(("finetune".into(), "accuracy".into(), score.accuracy));
    }
    if wants("augmentation") {
        let scores = augmentation::augmentation(config, subject, dataset, &*test.samples)?;
        values.extend(scores.into_iter().map(|(metric, value)| ("augmentation".into(), metric, value)));
    }

    if wants("generated") {
        let scores = generation::judge(config, subject, dataset, train, held, stop)?;
        values.extend(scores.into_iter().map(|(metric, value)| ("generated".into(), metric.into(), value)));
    }

    let encode = |x: &Tensor| subject.method.features(x, false);
    let mut portrait = None;
    if wants("knn") || wants("linear") {
        let of = |samples: &dyn Samples, labels: &[i64]| {
            Features::new(extract(&encode, samples, subject, dataset)?, Tensor::from_slice(labels))
        };
        let (bank, queries) = (of(train.samples, train.labels)?, of(held.samples, held.labels)?);
        let scored = if wants("knn") { Some(config.evaluate.knn.score(&bank, &queries, classes)?) } else { None };
        if let Some((accuracy, _)) = &scored {
            values.push(("knn".into(), "accuracy".into(), *accuracy));
        }
        if wants("linear") {
            let score = config.evaluate.linear.score(&bank, &queries, classes, config.seed)?;
            if let Some(warning) = score.warning().filter(|_| group::rank() == 0) {
                eprintln!("{}: {warning}", config.name());
            }
            values.push(("linear".into(), "accuracy".into(), score.accuracy));
            values.push(("linear".into(), "penalty".into(), score.penalty));
        }
        if let (Some((_, predicted)), Some(labels), 0) = (&scored, &test.labels, group::rank()) {
            portrait = Some(Portrait::of(&bank, &queries, predicted, labels, classes)?);
        }
    }
    if wants("layers") {
        let scores = layers::layers(config, subject, dataset, [train, held])?;
        values.extend(scores.into_iter().map(|(metric, value)| ("layers".into(), metric, value)));
    }
    if wants("geometry") {
        // Of the encoder's output, and of what the loss sees, where that is another thing.
        values.extend(geometry("geometry", &encode, config, subject, dataset, test)?);
        if let Some(embed) = embedding(&*test.samples, subject, dataset)? {
            values.extend(geometry("embedding", &embed, config, subject, dataset, test)?);
        }
    }
    if wants("finetune") && config.name() != SUPERVISED {
        for &fraction in &config.evaluate.fractions {
            let before = snapshot(&subject.store);
            let score = tune(subject, &Finetune { fraction, ..config.evaluate.finetune.clone() })?;
            restore(&subject.store, &before);
            let metric = if fraction == 1.0 { "accuracy".into() } else { format!("accuracy_{}%", 100.0 * fraction) };
            values.push(("finetune".into(), metric, score.accuracy));
        }
    }
    Ok(Scores { values, epochs, steps, n_test: test.len(), portrait })
}

/// How well the method does on the test part what it was trained for: means over its samples, or over what else the
/// method counts. A method of one view sees them plain, a method of several sees its own views of them, drawn anew.
fn pretext(config: &RunConfig, subject: &Subject, dataset: &Dataset, test: &Part) -> Result<Vec<(String, f64)>> {
    let recipes = recipes(config, &*subject.method);
    let (size, normalisation) = (subject.shape.size() as usize, &dataset.normalisation);
    let (samples, seed) = (&*test.samples, config.seed);
    let rows: Vec<usize> = (0..test.len()).collect();
    let batches: Vec<&[usize]> = rows.chunks(config.train.batch).collect();
    let mut parts = Vec::new(); // name, and bits of sum and weight: what the others read again is what was said
    for i in group::share_of(batches.len()) {
        let index = batches[i].to_vec();
        let rows = index.len();
        // No epoch of training has this number, so these draws are new.
        let batch = match recipes.as_slice() {
            [only] => HostBatch::plain(samples, index, only.side(size), normalisation, seed, u64::MAX)?,
            _ => HostBatch::render(samples, index, &recipes, size, normalisation, seed, u64::MAX)?,
        };
        let batch = batch.with_others(samples)?;
        let batch = batch.to_batch(subject.store.device());
        for (metric, value) in no_grad(|| group::alone(|| subject.method.pretext(&batch))) {
            let weight = if value.dim() == 0 { rows } else { value.numel() } as f64;
            let sum = value.mean(Kind::Double).double_value(&[]) * weight;
            parts.push((metric.to_string(), sum.to_bits(), weight.to_bits()));
        }
    }
    let mut sums: Vec<(String, f64, f64)> = Vec::new(); // name, sum, weight
    for said in group::exchange(&serde_json::to_string(&parts)?)? {
        for (metric, sum, weight) in serde_json::from_str::<Vec<(String, u64, u64)>>(&said)? {
            let (sum, weight) = (f64::from_bits(sum), f64::from_bits(weight));
            match sums.iter_mut().find(|(known, ..)| *known == metric) {
                Some((_, old, count)) => (*old, *count) = (*old + sum, *count + weight),
                None => sums.push((metric, sum, weight)),
            }
        }
    }
    let counted = sums.into_iter().filter(|(.., weight)| *weight > 0.0);
    Ok(counted.map(|(metric, sum, weight)| (metric, sum / weight)).collect())
}

fn snapshot(store: &Store) -> Vec<Tensor> {
    store.variables().iter().map(|v| v.tensor.detach().copy()).collect()
}

fn restore(store: &Store, values: &[Tensor]) {
    for (variable, value) in store.variables().iter().zip(values) {
        assign(&variable.tensor, value);
    }
}

/// Alignment of two augmented views of the test images (by the run's first and last recipe), and what the features
/// alone tell.
fn geometry(
    protocol: &str,
    f: &dyn Fn(&Tensor) -> Tensor,
    config: &RunConfig,
    subject: &Subject,
    dataset: &Dataset,
    test: &Part,
) -> Result<Vec<(String, String, f64)>> {
    let x = extract(f, &*test.samples, subject, dataset)?;
    let recipes = recipes(config, &*subject.method);
    let views = match recipes.as_slice() {
        [] => None,
        [only] => Some([only.clone(), only.clone()]),
        [first, .., last] => Some([first.clone(), last.clone()]),
    };
    let pair = views.map(|views| two_views(f, &views, config.seed, subject, dataset, test)).transpose()?;
    // Views that nothing sets apart are aligned whatever the features are.
    let pair = pair.as_ref().filter(|(a, b)| a != b).map(|(a, b)| (a, b));
    let geometry = Geometry::of(&x, pair)?;
    Ok(geometry.rows().into_iter().map(|(metric, value)| (protocol.into(), metric.into(), value)).collect())
}

fn two_views(
    f: &dyn Fn(&Tensor) -> Tensor,
    recipes: &[selfsup_core::augment::Recipe],
    seed: u64,
    subject: &Subject,
    dataset: &Dataset,
    test: &Part,
) -> Result<(Tensor, Tensor)> {
    let size = subject.shape.size() as usize;
    let rows: Vec<usize> = (0..test.len()).collect();
    let batches: Vec<&[usize]> = rows.chunks(BATCH).collect();
    let both = group::in_shares(batches.len(), |i| {
        // No epoch of training has this number, so these draws are new.
        let views = render_views(&*test.samples, batches[i], recipes, size, &dataset.normalisation, seed, u64::MAX)?;
        let views = views.iter().map(|view| f(&view.to_view(subject.store.device()).x).to_device(Device::Cpu));
        Ok(Tensor::stack(&views.collect::<Vec<_>>(), 1))
    })?;
    Ok((both.select(1, 0).contiguous(), both.select(1, 1).contiguous()))
}

/// A look at the features while training: on training images alone, a few of them held against the others.
pub struct Online {
    /// [n, C, S, S], the bank first.
    images: Tensor,
    labels: Option<Tensor>,
    bank: i64,
    classes: usize,
    knn: selfsup_evaluate::Knn,
}

impl Online {
    /// Takes 2,000 images as bank and 500 as queries (a quarter of that above 64 pixels), the same in all epochs.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn new(config: &RunConfig, dataset: &Dataset, subject: &Subject) -> Result<Online> {
        let part = &dataset.train;
        let size = subject.shape.size() as usize;
        let wanted = if size > 64 { 625 } else { 2500 };
        let mut index = Rng::new(config.seed, Purpose::Sample, 0, 0, 0).permutation(part.len());
        index.truncate(wanted);
        let images = Subset::new(&*part.samples, index.clone());
        let rows: Vec<usize> = (0..index.len()).collect();
        let x = plain(&images, &rows, size, &dataset.normalisation)?.to_device(subject.store.device());
        let labels = part
            .labels
            .as_ref()
            .map(|labels| Tensor::from_slice(&index.iter().map(|&i| i64::from(labels[i])).collect::<Vec<_>>()));
        let knn = config.evaluate.knn;
        Ok(Online { images: x, labels, bank: (index.len() * 4 / 5) as i64, classes: dataset.classes.len(), knn })
    }

    /// `online_knn` (where there are labels and neighbours enough), and two signs of collapse: the mean standard
    /// deviation of normalised features times the root of their dimension, and their effective rank. Several ranks share the
    /// work.
    ///
    /// # Errors
    /// If the features are not finite, or a process cannot be reached.
    pub fn look(&self, method: &dyn Method) -> Result<Vec<(String, f64)>> {
        let n = self.images.size()[0];
        let batches = self.images.split(BATCH as i64, 0);
        let x = group::in_shares(batches.len(), |i| Ok(method.features(&batches[i], false).to_device(Device::Cpu)))?;
        let mut metrics = Vec::new();
        if let (Some(labels), true) = (&self.labels, self.bank >= self.knn.k as i64 && self.bank < n) {
            let part = |from, length| Features::new(x.narrow(0, from, length), labels.narrow(0, from, length));
            let score = self.knn.accuracy(&part(0, self.bank)?, &part(self.bank, n - self.bank)?, self.classes)?;
            metrics.push(("online_knn".into(), score));
        }
        let few = x.narrow(0, 0, n.min(500));
        metrics.push(("features_std".into(), selfsup_evaluate::normalised_std(&few)?));
        metrics.push(("features_rank".into(), selfsup_evaluate::effective_rank(&few)?));
        Ok(metrics)
    }
}

/// A sentence if the features have nearly collapsed to a point or a line.
pub fn collapse_warning(metrics: &[(String, f64)]) -> Option<String> {
    let value = |name: &str| metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value);
    let (std, rank) = (value("features_std")?, value("features_rank")?);
    (std < 0.01 || rank < 1.5).then(|| {
        format!(
            "the features look collapsed: standard deviation {std:.4} (1 when isotropic), effective rank {rank:.1}. \
             Compare with the random encoder's before trusting this run"
        )
    })
}
