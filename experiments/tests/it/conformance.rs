//! The contract that every method keeps: one function, walked over the registry.

use crate::{CPU, dataset, machine, methods, small, workspace};
use selfsup_core::augment::views::{HostBatch, Plain, plain};
use selfsup_core::method::{Batch, Entry, View};
use selfsup_core::progress::Progress;
use selfsup_core::{Kind, Tensor, no_grad, torch_ext};
use selfsup_datasets::Dataset;
use selfsup_experiments::config::{RunConfig, parse_override};
use selfsup_experiments::first_stage;
use selfsup_experiments::registry;
use selfsup_experiments::run::{Subject, build, recipes, training_samples};
use selfsup_train::checkpoint;
use std::collections::HashMap;
use toml::Table;

#[test]
fn every_method_keeps_the_contract() {
    let _machine = machine();
    for (entry, name) in methods() {
        let config = small(&name, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let data = dataset(&config);
        names_and_folder_agree(entry);
        configuration_survives_toml(entry);
        unknown_keys_are_refused(entry);
        a_batch_too_small_is_refused(entry, &name, &config, &data);
        loss_and_gradient_are_sound(entry, &config, &data);
        outputs_have_their_shapes(entry, &config, &data);
        a_saved_store_gives_the_same_features(entry, &config, &data);
        numbers_are_those_of_the_seed(entry, &config, &data);
    }
}

/// Whoever adds a field to what a loss sees has to pass here: there is none for a label.
#[test]
fn training_never_sees_a_label() {
    let view = || View {
        x: Tensor::zeros([1, 1, 4, 4], (Kind::Float, CPU)),
        params: Tensor::zeros([1, 12], (Kind::Float, CPU)),
    };
    let Batch { views, captions, others, index, seed, epoch } = Batch::new(vec![view()], vec![0], 0, 0);
    let View { x, params } = &views[0];
    assert!(captions.is_none() && others.is_none());
    assert_eq!((x.dim(), params.dim(), index.len(), seed, epoch), (4, 2, 1, 0, 0));
}

fn subject(config: &RunConfig, data: &Dataset) -> Subject {
    let first = first_stage::planned(config).unwrap_or_else(|e| panic!("{}: {e:#}", config.name()));
    build(config, first.as_ref(), data, CPU).unwrap_or_else(|e| panic!("{}: {e:#}", config.name()))
}

/// The first `n` training images as the method's own views.
fn batch(config: &RunConfig, data: &Dataset, subject: &Subject, n: usize) -> Batch {
    let index: Vec<usize> = (0..n).collect();
    let recipes = recipes(config, &*subject.method);
    let size = subject.shape.size() as usize;
    let batch = HostBatch::render(training_samples(data), index, &recipes, size, &data.normalisation, config.seed, 0);
    batch.unwrap_or_else(|e| panic!("{}: {e:#}", config.name())).to_batch(CPU)
}

const START: Progress = Progress { step: 0, steps: 12, epoch: 0, epochs: 2 };

/// What the loop does before the first step.
fn begin(data: &Dataset, subject: &mut Subject) {
    let (images, size) = (training_samples(data), subject.shape.size() as usize);
    let images = Plain { samples: images, size, normalisation: &data.normalisation, device: CPU };
    drop(subject.method.before_epoch(START, &images).expect("the images can be read"));
}

fn loss_of(config: &RunConfig, data: &Dataset) -> f64 {
    let mut subject = subject(config, data);
    let batch = batch(config, data, &subject, 32);
    begin(data, &mut subject);
    torch_ext::seed(config.seed); // as the loop does before each step
    subject.method.loss(&batch, START).total.double_value(&[])
}

fn images(data: &Dataset, subject: &Subject, n: usize) -> Tensor {
    let index: Vec<usize> = (0..n).collect();
    plain(training_samples(data), &index, subject.shape.size() as usize, &data.normalisation)
        .expect("images can be read")
}

fn names_and_folder_agree(entry: &Entry) {
    let name = entry.name;
    let folder = workspace().join("crates").join(entry.family.to_string()).join(name);
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))
        .unwrap_or_else(|e| panic!("{name} must lie in crates/FAMILY/NAME: {}: {e}", folder.display()));
    let manifest: Table = manifest.parse().expect("a manifest is TOML");
    assert_eq!(manifest["package"]["name"].as_str(), Some(name), "the crate's name is the method's");
    assert!(entry.paper.contains("https://"), "{name}: PAPER must hold a link, but is `{}`", entry.paper);
}

fn configuration_survives_toml(entry: &Entry) {
    let name = entry.name;
    let defaults = (entry.defaults)().expect("defaults have a TOML form");
    assert_eq!((entry.resolve)(&Table::new()).expect("no key at all is a configuration"), defaults, "{name}");
    assert_eq!((entry.resolve)(&defaults).expect("the defaults are a configuration"), defaults, "{name}");
    let config = RunConfig::resolve(name, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
    let text = config.to_toml().expect("a configuration has a TOML form");
    let read: RunConfig = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
    assert_eq!(read, config, "{name}: read back");
    let layer: Table = text.parse().expect("what was written is TOML");
    assert_eq!(RunConfig::resolve(name, &[layer]).expect("as a layer"), config, "{name}: as a layer over the defaults");
}

fn unknown_keys_are_refused(entry: &Entry) {
    let name = entry.name;
    let defaults = (entry.defaults)().expect("defaults have a TOML form");
    let Some(key) = defaults.keys().max_by_key(|key| key.len()) else { return };
    let wrong = format!("{key}x");
    let layer = parse_override(&format!("method.{wrong}=1")).expect("key=value");
    let error = RunConfig::resolve(name, &[layer]).expect_err("an unknown key").to_string();
    assert!(error.contains(&format!("`method.{wrong}`")), "{name}: the message must name the key: {error}");
    assert!(error.contains(&format!("`{key}`")), "{name}: the message must name the nearest key: {error}");
    let table = Table::from_iter([(wrong.clone(), 1.into())]);
    let error = (entry.resolve)(&table).expect_err("`Config` needs deny_unknown_fields");
    assert!(format!("{error:#}").contains(&wrong), "{name}: {error:#}");
}

fn a_batch_too_small_is_refused(entry: &Entry, name: &str, config: &RunConfig, data: &Dataset) {
    let error = small(name, &[&format!("train.batch={}", entry.min_batch - 1)]).expect_err("too small").to_string();
    assert!(error.contains("batch") && error.contains("at least"), "{name}: {error}");
    // The fewest images that MIN_BATCH promises are enough.
    let mut subject = subject(config, data);
    let batch = batch(config, data, &subject, entry.min_batch);
    begin(data, &mut subject);
    let loss = subject.method.loss(&batch, START).total.double_value(&[]);
    assert!(loss.is_finite(), "{name}: the loss of MIN_BATCH = {} images is {loss}", entry.min_batch);
}

fn loss_and_gradient_are_sound(entry: &Entry, config: &RunConfig, data: &Dataset) {
    let name = entry.name;
    let mut subject = subject(config, data);
    let batch = batch(config, data, &subject, 32);
    begin(data, &mut subject);
    let loss = subject.method.loss(&batch, START);
    assert_eq!((loss.total.dim(), loss.total.kind()), (0, Kind::Float), "{name}: the loss is one f32");
    assert!(loss.total.double_value(&[]).is_finite(), "{name}: {:?}", loss.total);
    for (part, value) in &loss.parts {
        assert_eq!(value.dim(), 0, "{name}: the part `{part}` is a scalar");
        assert!(value.double_value(&[]).is_finite(), "{name}: {part}");
    }
    loss.total.backward();
    let trained: Vec<_> = subject.store.trainable().into_iter().filter(|v| v.name.starts_with("encoder.")).collect();
    assert!(!trained.is_empty(), "{name}: the encoder's variables must be below `encoder`");
    // A class token that nothing reads (BERT-like heads aside) would be an error too: MAE's decoder attends to it.
    let idle: Vec<&str> = trained
        .iter()
        .filter(|v| !v.tensor.grad().defined() || v.tensor.grad().count_nonzero(None).int64_value(&[]) == 0)
        .map(|v| v.name.as_str())
        .collect();
    assert!(idle.is_empty(), "{name}: no gradient reaches {idle:?}");
    for variable in subject.store.variables().iter().filter(|v| v.tensor.grad().defined()) {
        let finite = variable.tensor.grad().isfinite().all().int64_value(&[]) == 1;
        assert!(finite, "{name}: the gradient of {} is not finite", variable.name);
    }
    subject.method.after_step(START);
    let finite = subject.store.variables().iter().all(|v| v.tensor.isfinite().all().int64_value(&[]) == 1);
    assert!(finite, "{name}: `after_step` leaves finite numbers");
}

fn outputs_have_their_shapes(entry: &Entry, config: &RunConfig, data: &Dataset) {
    let name = entry.name;
    let subject = subject(config, data);
    let x = images(data, &subject, 5);
    // The random row: the same encoder without a method.
    let mut bare = RunConfig::resolve(registry::RANDOM, &[]).expect("the random row");
    (bare.encoder, bare.data, bare.size) = (config.encoder, config.data.clone(), config.size);
    bare.tokenizer = config.tokenizer.clone();
    let dim = no_grad(|| self::subject(&bare, data).method.features(&x, false)).size()[1];
    let features = no_grad(|| subject.method.features(&x, false));
    assert_eq!(features.size(), [5, dim], "{name}: features are the encoder's output");
    assert!(features.isfinite().all().int64_value(&[]) == 1, "{name}");
    // An image's features do not depend on the images beside it. Not bit for bit: products of other sizes are summed
    // in another order, which moves f32 by a few of its units, 1e-7 relative each.
    let alone = no_grad(|| subject.method.features(&x.narrow(0, 2, 1), false));
    let away = (&features.narrow(0, 2, 1) - &alone).abs().max().double_value(&[]);
    assert!(away <= 1e-4 * features.abs().max().double_value(&[]), "{name}: features of one image moved by {away}");
    if let Some(embedding) = no_grad(|| subject.method.embedding(&x)) {
        assert_eq!((embedding.dim(), embedding.size()[0]), (2, 5), "{name}: embeddings are [B, E]");
    }
    let shown = batch(config, data, &subject, 3);
    for (row, pictures) in no_grad(|| subject.method.pictures(&shown)) {
        let text = pictures.dim() == 2 && pictures.kind() == Kind::Int64;
        let lines = pictures.dim() == 3 && pictures.kind() == Kind::Float;
        assert!(text || lines || pictures.size() == shown.views[0].x.size(), "{name}: the pictures `{row}`");
    }
}

fn a_saved_store_gives_the_same_features(entry: &Entry, config: &RunConfig, data: &Dataset) {
    let name = entry.name;
    let mut trained = subject(config, data);
    // A forward pass in training moves running statistics, which have to be saved as well.
    let batch = batch(config, data, &trained, 32);
    begin(data, &mut trained);
    let _loss = no_grad(|| trained.method.loss(&batch, START));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("weights.safetensors");
    let tensors: Vec<_> = trained.store.variables().into_iter().map(|v| (v.name, v.tensor)).collect();
    checkpoint::write(&path, &tensors, HashMap::new()).unwrap_or_else(|e| panic!("{name}: {e:#}"));

    let fresh = subject(&RunConfig { seed: config.seed + 1, ..config.clone() }, data);
    let x = images(data, &fresh, 16);
    let features = |subject: &Subject| no_grad(|| subject.method.features(&x, false));
    assert!(!features(&fresh).equal(&features(&trained)), "{name}: two seeds give one network");
    let saved = checkpoint::read(&path).expect("what was written can be read");
    checkpoint::restore(&fresh.store.variables(), &saved.tensors, "").unwrap_or_else(|e| panic!("{name}: {e:#}"));
    assert!(features(&fresh).equal(&features(&trained)), "{name}: saving the store must save the method");
}

fn numbers_are_those_of_the_seed(entry: &Entry, config: &RunConfig, data: &Dataset) {
    let loss = loss_of(config, data);
    assert_eq!(loss.to_bits(), loss_of(config, data).to_bits(), "{}: one seed, one loss", entry.name);
    let other = RunConfig { seed: config.seed + 1, ..config.clone() };
    assert_ne!(loss.to_bits(), loss_of(&other, data).to_bits(), "{}: another seed, another loss", entry.name);
}
