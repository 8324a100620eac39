//! Images made for captions: judged by a classifier of real ones (protocol `generated`), or made for captions of one's
//! own (`selfsup generate`).

use crate::config::RunConfig;
use crate::reporting::{COLUMNS, to_pictures, write_grid};
use crate::run::{Machine, Subject, open, training_samples};
use anyhow::{Context, Result, bail, ensure};
use selfsup_core::augment::views::{HostBatch, PADDING};
use selfsup_core::data::Normalisation;
use selfsup_core::encoder::{self, EncoderConfig};
use selfsup_core::method::{Batch, ImageShape, Method, Shape, View};
use selfsup_core::store::Store;
use selfsup_core::{Device, Kind, Tensor, group, no_grad};
use selfsup_datasets::{Dataset, Part, Vocabulary};
use selfsup_evaluate::{Classifier, Finetune, Labelled, Network};
use std::collections::BTreeSet;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The classifier's encoder, whatever the run's own reads.
const CLASSIFIER: EncoderConfig = EncoderConfig::ConvNet { tiny: true };
/// Images that are made at once.
const BATCH: usize = 250;

/// Whether each class has a caption of its own, the same for all its images: who sees the captions sees the labels.
pub fn captions_are_labels(part: &Part) -> bool {
    let (Some(labels), true) = (&part.labels, part.samples.captions().is_some()) else { return false };
    let mut label_of = HashMap::new();
    let one_label = labels.iter().enumerate().all(|(index, label)| {
        let caption = part.samples.caption(index).unwrap_or_default().into_owned();
        *label_of.entry(caption).or_insert(label) == label
    });
    let classes: HashSet<&u16> = labels.iter().collect();
    one_label && label_of.len() == classes.len() && classes.len() < labels.len()
}

/// Of images that the method makes for the captions of the test part, the share that a classifier takes for what the
/// caption's image is; the same of these images, as they are and as the tokenizer gives them back; and the share of
/// the class that is most frequent in training. The classifier is trained on the training part alone. Nothing for a
/// method that makes no images of captions.
///
/// # Errors
/// If an image cannot be read, or the classifier not be trained, or `stop` was set meanwhile.
pub fn judge(
    config: &RunConfig,
    subject: &Subject,
    dataset: &Dataset,
    train: Labelled,
    test: Labelled,
    stop: &AtomicBool,
) -> Result<Vec<(&'static str, f64)>> {
    let (device, size, normalisation) = (subject.store.device(), subject.shape.size() as usize, &dataset.normalisation);
    let batch = |index: &[usize]| {
        // No epoch of training has this number, so these draws are new.
        let batch = HostBatch::plain(test.samples, index.to_vec(), size, normalisation, config.seed, u64::MAX)?;
        Ok::<Batch, anyhow::Error>(batch.to_batch(device))
    };
    let generate = |batch: &Batch| no_grad(|| subject.method.generate(batch));
    if generate(&batch(&[0])?).is_none() {
        return Ok(Vec::new());
    }
    let store = Store::new(config.seed, device);
    let encoder = encoder::build(&(store.root() / "encoder"), CLASSIFIER, subject.shape)?;
    let features = |x: &Tensor, train: bool| encoder.forward(x, train);
    let network = Network { features: &features, store: &store, size, normalisation };
    let settings = Finetune { fraction: 1.0, ..config.evaluate.finetune.clone() };
    let classifier = Classifier::train(&settings, &network, train, dataset.classes.len(), config.seed, stop)?;

    let tokenizer = subject.tokenizer.as_deref().and_then(Method::tokenizer);
    let rows: Vec<usize> = (0..test.samples.len()).collect();
    let batches: Vec<&[usize]> = rows.chunks(BATCH).collect();
    let right = group::in_shares(batches.len(), |i| {
        let index = batches[i];
        let batch = batch(index)?;
        let x = &batch.views[0].x;
        let labels: Vec<i64> = index.iter().map(|&i| test.labels[i]).collect();
        let labels = Tensor::from_slice(&labels).to_device(device);
        let images = [generate(&batch), tokenizer.map(|t| t.decode(&t.encode(x))), Some(x.copy())];
        let right = |x: &Option<Tensor>| {
            let found = x.as_ref().map(|x| classifier.classify(&shown(x, normalisation)));
            found.map_or(0, |found| found.eq_tensor(&labels).sum(Kind::Int64).int64_value(&[]))
        };
        Ok(Tensor::from_slice(&images.iter().map(right).collect::<Vec<i64>>()).unsqueeze(0))
    })?;
    let right = Vec::<i64>::try_from(right.sum_dim_intlist([0].as_slice(), false, None))?;
    let most = (0..dataset.classes.len() as i64).max_by_key(|c| train.labels.iter().filter(|l| *l == c).count());
    let majority = test.labels.iter().filter(|label| Some(**label) == most).count();
    let share = |right: i64| right as f64 / rows.len() as f64;
    let mut scores = vec![("accuracy", share(right[0])), ("accuracy_real", share(right[2]))];
    if tokenizer.is_some() {
        scores.insert(1, ("accuracy_reconstructed", share(right[1])));
    }
    scores.push(("majority", share(majority as i64)));
    Ok(scores)
}

/// Normalised images as a picture shows them, with pixels in [0, 1].
fn shown(x: &Tensor, Normalisation { mean, std }: &Normalisation) -> Tensor {
    let row = |values: &[f32]| Tensor::from_slice(values).view([1, -1, 1, 1]).to_device(x.device());
    let (mean, std) = (row(mean), row(std));
    ((x * &std + &mean).clamp(0.0, 1.0) - mean) / std
}

/// Makes images for `captions` by the run in `folder`, a row of draws for each, and writes them to `out` or, without
/// it, into the run's plots. Gives the path.
///
/// # Errors
/// If the run makes no images for captions, or a caption cannot be read as one.
pub fn draw(folder: &Path, captions: &[String], out: Option<&Path>, machine: &Machine) -> Result<PathBuf> {
    let (config, dataset, subject) = open(folder, machine)?;
    let none = || {
        format!(
            "{} is a run of {}, which makes no images for captions; expected one such as dall-e/cpu makes",
            folder.display(),
            config.name()
        )
    };
    let shape = training_samples(&dataset).captions().with_context(none)?;
    let (Some(vocabulary), Shape::Image(image)) = (&dataset.vocabulary, subject.shape) else { bail!(none()) };
    let ids = captions.iter().map(|caption| ids(caption, vocabulary, shape.length, &dataset.name));
    let ids = ids.collect::<Result<Vec<_>>>()?.concat();
    let ImageShape { channels, size } = image;
    let rows = (captions.len() * COLUMNS) as i64;
    let ids =
        Tensor::from_slice(&ids).view([-1, shape.length as i64]).repeat_interleave_self_int(COLUMNS as i64, 0, rows);
    // Nothing looks at these.
    let x = Tensor::zeros([rows, channels, size, size], (Kind::Float, subject.store.device()));
    let params = Tensor::zeros([rows, 0], (Kind::Float, Device::Cpu));
    let draws = (0..captions.len()).flat_map(|_| 0..COLUMNS).collect();
    let captioned = Some(ids.to_device(subject.store.device()));
    let batch = Batch { captions: captioned, ..Batch::new(vec![View { x, params }], draws, config.seed, 0) };
    let images = to_pictures(&no_grad(|| subject.method.generate(&batch)).with_context(none)?, &dataset.normalisation)?;
    let rows = captions.iter().cloned().zip(images.chunks(COLUMNS).map(<[_]>::to_vec)).collect();
    let path = out.map_or_else(|| folder.join("plots/generated.png"), Path::to_path_buf);
    write_grid(&path, rows, Vec::new(), size as usize)?;
    Ok(path)
}

/// The ids of a caption, with padding to `length`.
fn ids(caption: &str, vocabulary: &Vocabulary, length: usize, data: &str) -> Result<Vec<i64>> {
    let text = caption.trim().to_lowercase();
    ensure!(!text.is_empty(), "a caption is empty; expected words");
    let known = |c: &char| vocabulary.encode(&c.to_string()).is_ok_and(|ids| !ids.is_empty());
    if let Some(unknown) = text.chars().find(|c| !known(c)) {
        let all: Vec<i64> = (0..vocabulary.len() as i64).collect();
        bail!(
            "`{caption}` has `{unknown}`, which no caption of {data} has; expected characters of `{}`",
            vocabulary.decode(&all).chars().collect::<BTreeSet<char>>().into_iter().collect::<String>()
        );
    }
    let mut ids: Vec<i64> = vocabulary.encode(&text)?.into_iter().map(i64::from).collect();
    ensure!(
        ids.len() <= length,
        "`{caption}` has {} tokens, but the captions of {data} have at most {length}: shorten it",
        ids.len()
    );
    ids.resize(length, PADDING);
    Ok(ids)
}
