//! What holds of every method and of the whole program. A new method is in these tests once it is in the registry.

mod auxiliary;
mod bad_input;
mod claims;
mod command_line;
mod conformance;
mod distributed;
mod first_stage;
mod full_disk;
mod fuzz;
mod generation;
mod imagenet;
mod interop;
mod kills;
mod layering;
mod memory;
mod modalities;
mod new_method;
mod objective;
mod precision;
mod protocols;
mod resume;
mod watching;
mod weights;

use selfsup_core::method::Entry;
use selfsup_core::store::Store;
use selfsup_core::{Device, Tensor};
use selfsup_datasets::Dataset;
use selfsup_experiments::config::{RunConfig, parse_override};
use selfsup_experiments::preset::PRESETS;
use selfsup_experiments::registry::METHODS;
use selfsup_experiments::run::{Machine, build, recipes, training_samples};
use selfsup_train::{Event, Outcome, Run, fit};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use toml::Table;

/// The variable that limits the tests of methods to one, for `new_method`.
const ONE_METHOD: &str = "SELFSUP_TEST_METHOD";

/// Samples of the preset's own data: enough for six batches of 32.
const SAMPLES: usize = 200;

/// The methods to test, all if not asked otherwise, and of each what to run: its presets for a CPU (`METHOD/cpu`,
/// `METHOD/cpu-v2`), or the bare method where there is none.
fn methods() -> Vec<(&'static Entry, String)> {
    let only = std::env::var(ONE_METHOD).ok();
    let chosen: Vec<&Entry> = METHODS.iter().filter(|entry| only.as_deref().is_none_or(|o| o == entry.name)).collect();
    assert!(!chosen.is_empty(), "{ONE_METHOD} is {only:?}, which is no method");
    let runs = |entry: &'static Entry| {
        let presets = PRESETS.iter().filter(|(method, name, _)| *method == entry.name && name.starts_with("cpu"));
        let mut names: Vec<String> = presets.map(|(method, name, _)| format!("{method}/{name}")).collect();
        if names.is_empty() {
            names.push(entry.name.into());
        }
        names.into_iter().map(move |name| (entry, name))
    };
    chosen.into_iter().flat_map(runs).collect()
}

/// `METHOD/PRESET`, or `METHOD` with the small encoder, on few images and for two epochs; changed by `overrides`.
fn small(name: &str, overrides: &[&str]) -> anyhow::Result<RunConfig> {
    let whole = RunConfig::resolve(name, &[])?.data;
    let data = format!("data={whole}:{SAMPLES}");
    let mut texts = vec![
        data.as_str(),
        "train.epochs=2",
        "train.batch=32",
        "train.warmup=0.5",
        "train.precision=f32",
        "evaluate.protocols=['knn']",
    ];
    if !name.contains('/') {
        texts.push("encoder=convnet-tiny");
    }
    texts.extend(overrides);
    RunConfig::resolve(name, &texts.iter().map(|text| parse_override(text)).collect::<anyhow::Result<Vec<Table>>>()?)
}

/// Sets up LibTorch with two threads for the thread of this test. One test at a time has it, until its thread ends:
/// what LibTorch draws by itself (dropout) comes from one generator of the process, which every step of a run seeds.
fn machine() -> Machine {
    static MACHINE: Mutex<()> = Mutex::new(());
    thread_local!(static MINE: MutexGuard<'static, ()> = MACHINE.lock().unwrap_or_else(PoisonError::into_inner));
    MINE.with(|_| Machine::new("cpu", 2, None).expect("the CPU is always there"))
}

fn dataset(config: &RunConfig) -> Dataset {
    selfsup_datasets::load(&config.data, Path::new("data")).expect("the bundled data are in the sources")
}

/// The methods' variables live where the tests run.
const CPU: Device = Device::Cpu;

/// Trains in `folder`, on new variables, from the checkpoint that is there; `begin` sees the variables first, `observe` may
/// ask to stop. Gives the variables at the end of training.
fn train_on(
    config: &RunConfig,
    (folder, identity): (&Path, &str),
    begin: impl FnOnce(&Store) -> anyhow::Result<()>,
    mut observe: impl FnMut(Event<'_>, &AtomicBool) -> anyhow::Result<()>,
) -> anyhow::Result<(Outcome, BTreeMap<String, Tensor>)> {
    let data = dataset(config);
    let mut subject = build(config, selfsup_experiments::first_stage::planned(config)?.as_ref(), &data, CPU)?;
    begin(&subject.store)?;
    let recipes = recipes(config, &*subject.method);
    let stop = AtomicBool::new(false);
    let run = Run {
        method: &mut *subject.method,
        store: &subject.store,
        samples: training_samples(&data),
        recipes: &recipes,
        size: subject.shape.size() as usize,
        normalisation: &data.normalisation,
        config: &config.train,
        seed: config.seed,
        folder,
        identity,
        stop: &stop,
        resume: true,
    };
    let outcome = fit(run, &mut |event| observe(event, &stop))?;
    Ok((outcome, subject.store.variables().into_iter().map(|v| (v.name, v.tensor)).collect()))
}

/// The folder of the workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("experiments/ lies in the workspace").to_path_buf()
}
