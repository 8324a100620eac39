//! One run: from a configuration to a folder with weights, records and scores.
//!
//! ```text
//! RUN/config.toml  meta.json  metrics.csv  events.out.tfevents.selfsup  checkpoints/  export/  plots/  results.csv
//!     DONE | FAILED
//! ```

use crate::config::{Auxiliary, RunConfig, differences, one_line};
use crate::distributed;
use crate::evaluation;
use crate::first_stage::{self, FirstStage};
use crate::memory;
use crate::progress_bar::Display;
use crate::registry::{self, RANDOM, SUPERVISED};
use crate::reporting::write_pictures;
use crate::weights::{self, Start};
use anyhow::{Context, Result, bail, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::data::{Modality, Samples};
use selfsup_core::encoder::{self, Encoder, EncoderConfig, Tap};
use selfsup_core::group;
use selfsup_core::method::{Batch, ImageShape, Loss, Method, SeriesShape, Setup, Shape, TokenShape, to_tokens};
use selfsup_core::progress::Progress;
use selfsup_core::store::{Store, Variable};
use selfsup_core::{Device, Tensor};
use selfsup_datasets::Dataset;
use selfsup_evaluate::Stopped;
use selfsup_report::file::write_whole;
use selfsup_report::metrics;
use selfsup_report::results::{self, Row, Status};
use selfsup_report::tensorboard::Writer;
use selfsup_train::{Event, Outcome, Run, checkpoint, fit, load_weights};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where and with what to compute: what may change between two parts of one run.
#[derive(Clone, Debug)]
pub struct Machine {
    pub device: Device,
    /// LibTorch's threads; the bits of a result depend on them.
    pub threads: usize,
    pub data_root: PathBuf,
}

impl Machine {
    /// Sets up LibTorch for this process. Must come before anything else touches it. Of several processes on one machine
    /// each has its share of the cores, and of `cuda` the GPU of its number.
    ///
    /// # Errors
    /// If the device cannot be had.
    pub fn new(device: &str, threads: usize, data_root: Option<&Path>) -> Result<Machine> {
        let device = match device {
            "cpu" => Device::Cpu,
            "cuda" => Device::Cuda(distributed::local().0),
            _ => {
                let index = device.strip_prefix("cuda:").and_then(|index| index.parse().ok());
                Device::Cuda(index.with_context(|| format!("unknown device `{device}`: expected cpu, cuda or cuda:N"))?)
            }
        };
        selfsup_core::torch_ext::init(device)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { (cores / distributed::local().1).max(1) } else { threads };
        selfsup_core::torch_ext::threads(threads)?;
        Ok(Machine { device, threads, data_root: selfsup_datasets::data_root(data_root) })
    }

    /// `cpu, 2 threads` or `cuda:0`.
    pub fn text(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => format!("cpu, {} thread{}", self.threads, if self.threads == 1 { "" } else { "s" }),
        }
    }
}

/// The commit this program was built from, `+` behind it if files differed.
pub const COMMIT: &str = env!("SELFSUP_COMMIT");

/// An encoder without a method: the random row, and what the supervised row starts from.
struct Bare {
    encoder: Box<dyn Encoder>,
    /// Makes the tokens that the encoder reads, in a comparison of methods on image codes.
    tokenizer: Option<Rc<dyn Method>>,
}

impl Bare {
    fn new(setup: &Setup) -> Result<Bare> {
        let shape = if setup.tokenizer.is_some() { Shape::Tokens(setup.tokens()?) } else { setup.shape };
        let encoder = encoder::build(&(&setup.path / "encoder"), setup.encoder, shape)?;
        Ok(Bare { encoder, tokenizer: setup.tokenizer.clone() })
    }
}

impl Method for Bare {
    fn views(&self) -> Vec<Recipe> {
        Vec::new()
    }

    fn loss(&mut self, _: &Batch, _: Progress) -> Loss {
        unreachable!("a bare encoder is never given to the training loop")
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(&to_tokens(x, self.tokenizer.as_deref().and_then(Method::tokenizer)), train)
    }
}

/// A method with the store its variables live in.
pub struct Subject {
    pub store: Store,
    pub method: Box<dyn Method>,
    /// The first stage of a two-stage method.
    pub tokenizer: Option<Rc<dyn Method>>,
    pub shape: Shape,
}

/// What a method trains on: the unlabelled part where a data set has one, else the training part.
pub fn training_samples(dataset: &Dataset) -> &dyn Samples {
    &*dataset.unlabelled.as_ref().unwrap_or(&dataset.train).samples
}

/// What a batch of a run holds.
fn shape(config: &RunConfig, dataset: &Dataset) -> Shape {
    let size = (if config.size == 0 { dataset.native_size } else { config.size }) as i64;
    match training_samples(dataset).modality() {
        Modality::Images { channels } => Shape::Image(ImageShape { channels: channels as i64, size }),
        Modality::Tokens { vocabulary } => Shape::Tokens(TokenShape { vocabulary: vocabulary as i64, length: size }),
        Modality::Series { channels } => Shape::Series(SeriesShape { channels: channels as i64, length: size }),
    }
}

/// Builds the method of a configuration, untrained and without the weights that `start` names; `first` is the
/// configuration of the first stage of a two-stage method, whose weights come later ([`FirstStage::load`]).
///
/// # Errors
/// If the method cannot be built from it.
pub fn build(config: &RunConfig, first: Option<&RunConfig>, dataset: &Dataset, device: Device) -> Result<Subject> {
    build_in(Store::new(config.seed, device), config, first, dataset)
}

/// The same, its encoder with the weights that `start` names.
///
/// # Errors
/// If the method cannot be built, or the weights do not fit its encoder.
pub fn build_from(
    start: Option<&Start>,
    config: &RunConfig,
    first: Option<&RunConfig>,
    dataset: &Dataset,
    device: Device,
) -> Result<Subject> {
    let subject = build(config, first, dataset, device)?;
    let Some(start) = start else { return Ok(subject) };
    // Built anew, for what a method makes a copy of its encoder must start with these weights too.
    let given = start.fit(config, &subject.store.below("encoder"))?;
    drop(subject);
    build_in(Store::with_given(config.seed, device, given), config, first, dataset)
}

fn build_in(store: Store, config: &RunConfig, first: Option<&RunConfig>, dataset: &Dataset) -> Result<Subject> {
    let samples = training_samples(dataset);
    let shape = shape(config, dataset);
    let captions = samples.captions().map(|c| TokenShape { vocabulary: c.vocabulary as i64, length: c.length as i64 });
    let normalisation = dataset.normalisation.clone();
    let words = match (shape, &dataset.vocabulary) {
        (Shape::Tokens(_), Some(vocabulary)) => vocabulary.words().map(Into::into),
        _ => None,
    };
    let setup =
        Setup { captions, words, normalisation, ..Setup::new(store.root(), config.encoder, shape, samples.len()) };
    let tokenizer = first.map(|first| first_stage::build(first, &setup)).transpose()?;
    let auxiliary = config.auxiliary()?;
    let tap = auxiliary.as_ref().map(|_| Tap::default());
    let setup = Setup { tokenizer: tokenizer.clone(), tap, views: config.views.clone(), ..setup };
    let method: Box<dyn Method> = match config.name() {
        RANDOM | SUPERVISED => Box::new(Bare::new(&setup)?),
        name => {
            let entry = registry::find(name)?;
            let method = (entry.build)(&config.settings(), &setup)?;
            match auxiliary {
                None => method,
                Some(Auxiliary { weight, settings }) => {
                    let settings = settings.try_into()?;
                    Box::new(augself::Auxiliary::new(method, name, weight, &settings, &setup)?)
                }
            }
        }
    };
    drop(setup);
    Ok(Subject { store, method, tokenizer, shape })
}

/// The recipes of a run: its own, or the method's.
pub fn recipes(config: &RunConfig, method: &dyn Method) -> Vec<Recipe> {
    if config.views.is_empty() { method.views() } else { config.views.clone() }
}

/// What a run's folder says of how it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Meta {
    pub commit: String,
    pub version: String,
    pub libtorch: String,
    pub device: String,
    pub command: String,
    pub parameters: usize,
    /// The run that the first stage of a two-stage method comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<first_stage::Origin>,
    /// The file whose weights the encoder started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<weights::Origin>,
    /// Seconds of training, over all parts of the run.
    pub train_seconds: f64,
    /// Images a second in the last part of the run.
    pub images_per_second: f64,
    /// The most memory in the last part of the run's training ([`memory::peak_mib`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_mib: Option<f64>,
}

/// What the folder of a run says of itself, where it says it.
pub fn read_meta(folder: &Path) -> Option<Meta> {
    serde_json::from_slice(&fs::read(folder.join("meta.json")).ok()?).ok()
}

/// The file for TensorBoard in a run's folder.
const EVENTS: &str = "events.out.tfevents.selfsup";

/// How the folder of a run is used.
pub struct Folder<'a> {
    pub path: &'a Path,
    pub study: &'a str,
    /// Whether to go on from what lies there.
    pub resume: bool,
}

/// What came of a run.
pub enum End {
    /// Its scores.
    Done(Vec<Row>),
    /// It was stopped on request and can be taken up again.
    Stopped,
}

/// Trains and judges a configuration, or takes up where the folder's earlier run was left.
///
/// Of several processes with a group in force all train and judge; rank 0 alone has the folder, and gives scores.
///
/// # Errors
/// If the folder belongs to another configuration (the message names what differs), or anything fails on the way.
pub fn execute(
    config: &RunConfig,
    dataset: &Dataset,
    machine: &Machine,
    folder: &Folder,
    stop: &AtomicBool,
) -> Result<End> {
    evaluation::check(config, dataset)?;
    if trains(config) {
        config.train.batch_of_rank(group::size())?;
    }
    let done = folder.path.join("DONE");
    let results_path = folder.path.join("results.csv");
    let (mut lock, mut rows) = (None, Vec::new());
    let found = group::by_first(|| {
        // A finished run is only read, by as many as like.
        let finished = folder.resume && done.exists();
        if !finished {
            lock = Some(Lock::of(folder.path)?);
        }
        prepare(config, folder)?;
        if !done.exists() {
            sweep(folder.path);
        }
        if finished {
            Start::unchanged(config, read_meta(folder.path).and_then(|meta| meta.start).as_ref())?;
            rows = results::read(&results_path)?;
        }
        Ok(String::from(if finished { "finished" } else { "" }))
    })?;
    if !found.is_empty() {
        return Ok(End::Done(rows));
    }
    let start = Start::of(config)?;
    let Some(stage) = FirstStage::of(config, dataset, machine, folder, stop)? else { return Ok(End::Stopped) };
    let mut subject = build_from(start.as_ref(), config, stage.config(), dataset, machine.device)?;
    stage.load(&subject.store)?;
    let first = group::rank() == 0;
    let started = Instant::now();
    let mut meta = Meta {
        commit: COMMIT.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        libtorch: "2.11.0".into(),
        device: machine.text(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        parameters: subject.store.parameters(),
        tokenizer: stage.origin(),
        start: start.map(|start| start.origin),
        train_seconds: 0.0,
        images_per_second: 0.0,
        peak_memory_mib: None,
    };
    let meta_path = folder.path.join("meta.json");
    if let Some(old) = read_meta(folder.path) {
        meta.train_seconds = if folder.resume { old.train_seconds } else { 0.0 };
    }
    let mut outcome = Outcome::Finished;
    if trains(config) {
        memory::start(machine.device);
        outcome = train(config, dataset, &mut subject, folder, stop, &mut meta)?;
        meta.peak_memory_mib = memory::peak_mib(machine.device);
        meta.train_seconds += started.elapsed().as_secs_f64();
        if first {
            write_whole(&meta_path, &serde_json::to_vec_pretty(&meta)?)?;
        }
    }
    let mut row = Row {
        run_id: folder.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        study: folder.study.into(),
        method: config.name().into(),
        variant: config.variant.clone(),
        family: registry::find(config.name()).map_or_else(|_| "baseline".into(), |entry| entry.family.to_string()),
        encoder: config.encoder.to_string(),
        dataset: config.data.clone(),
        input: format!("{} {}", subject.shape.size(), config.tokenizer).trim_end().into(),
        split: "test".into(),
        epoch: config.train.epochs,
        seed: config.seed,
        device: meta.device.clone(),
        commit: COMMIT.into(),
        config_hash: config.hash()?,
        ..Row::default()
    };
    match outcome {
        Outcome::Stopped(_) => return Ok(End::Stopped),
        Outcome::Diverged(_) if !first => return Ok(End::Done(Vec::new())),
        Outcome::Diverged(why) => {
            eprintln!("{}: {why}", config.name());
            row.protocol = "knn".into();
            row.metric = "accuracy".into();
            row.status = Status::Diverged;
            row.wall_s = meta.train_seconds;
            results::write(&results_path, std::slice::from_ref(&row))?;
            write_whole(&folder.path.join("FAILED"), why.as_bytes())?;
            write_whole(&done, b"")?;
            return Ok(End::Done(vec![row]));
        }
        Outcome::Finished => {}
    }
    // Processes of different machines may round differently, and an untrained encoder's tokenizer is rank 0's so far.
    group::broadcast(&subject.store.variables().into_iter().map(|v| v.tensor.detach()).collect::<Vec<_>>())?;
    let scores = match evaluation::judge(config, dataset, &mut subject, stop) {
        Err(why) if why.is::<Stopped>() => return Ok(End::Stopped),
        scores => scores?,
    };
    if !first {
        return Ok(End::Done(Vec::new()));
    }
    row.wall_s = if meta.train_seconds > 0.0 { meta.train_seconds } else { started.elapsed().as_secs_f64() };
    if let (Some(portrait), Some(test)) = (&scores.portrait, &dataset.test) {
        portrait.write(dataset, test, &subject, &folder.path.join("plots"))?;
    }
    row.epoch = scores.epochs;
    row.step = scores.steps;
    row.n_test = scores.n_test as u64;
    let rows: Vec<Row> = scores
        .values
        .into_iter()
        .map(|(protocol, metric, value)| Row { protocol, metric, value: Some(value), ..row.clone() })
        .collect();
    if config.name() == SUPERVISED {
        meta.train_seconds = row.wall_s;
    }
    write_whole(&meta_path, &serde_json::to_vec_pretty(&meta)?)?;
    export(&subject, config, &folder.path.join("export"))?;
    results::write(&results_path, &rows)?;
    write_whole(&done, b"")?;
    Ok(End::Done(rows))
}

/// Whether there is anything to train before it is judged.
fn trains(config: &RunConfig) -> bool {
    ![RANDOM, SUPERVISED].contains(&config.name())
}

/// Makes the folder and writes the configuration into it, or checks that the one there is the same.
fn prepare(config: &RunConfig, folder: &Folder) -> Result<()> {
    let path = folder.path.join("config.toml");
    let text = config.to_toml()?;
    if folder.resume && path.exists() {
        let there: toml::Table = fs::read_to_string(&path)
            .with_context(|| path.display().to_string())?
            .parse()
            .map_err(|error| one_line(&error))
            .with_context(|| path.display().to_string())?;
        let differing = differences(&text.parse()?, &there);
        ensure!(
            differing.is_empty(),
            "{} holds another run ({}): give another folder, or --resume never to start it anew",
            folder.path.display(),
            differing.join("; ")
        );
        return Ok(());
    }
    empty(folder.path)?;
    write_whole(&path, text.as_bytes())
}

/// Removes half-written files that a process left when it was killed. What cannot be removed does no harm.
fn sweep(folder: &Path) {
    for place in ["", "checkpoints", "export", "plots"] {
        for entry in fs::read_dir(folder.join(place)).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Keeps other processes from a run's folder while it is there. The system takes it away however the process ends.
struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// If another process has it, or it cannot be had.
    fn of(folder: &Path) -> Result<Lock> {
        fs::create_dir_all(folder).with_context(|| format!("{}: could not be made", folder.display()))?;
        let path = folder.join("LOCK");
        let file = File::options().create(true).write(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("{}: could not be opened", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{}: another process is at work on this run: wait until it has ended, or give another folder",
                folder.display()
            ),
            Err(TryLockError::Error(why)) if why.kind() == ErrorKind::Unsupported => {
                eprintln!("{}: this file system has no locks; nothing else may write there", folder.display());
            }
            Err(TryLockError::Error(why)) => {
                return Err(why).with_context(|| format!("{}: could not be locked", path.display()));
            }
        }
        Ok(Lock { _file: file })
    }
}

/// Takes away what an earlier run left in its folder, so that nothing of it enters a new one.
///
/// # Errors
/// If another process is at work there, or something could not be removed.
pub fn clear(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let _lock = Lock::of(folder)?;
    empty(folder)
}

fn empty(folder: &Path) -> Result<()> {
    // What makes it a finished run goes first.
    for old in ["DONE", "FAILED", "results.csv", "meta.json", "metrics.csv", "tokenizer.toml", EVENTS, "config.toml"] {
        let path = folder.join(old);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("{}: could not be removed", path.display()))?;
        }
    }
    for old in ["checkpoints", "plots", "export"] {
        let path = folder.join(old);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("{}: could not be removed", path.display()))?;
        }
    }
    Ok(())
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn train(
    config: &RunConfig,
    dataset: &Dataset,
    subject: &mut Subject,
    folder: &Folder,
    stop: &AtomicBool,
    meta: &mut Meta,
) -> Result<Outcome> {
    let recipes = recipes(config, &*subject.method);
    for recipe in &recipes {
        recipe.check().with_context(|| format!("in the views of {}", config.name()))?;
    }
    let needed = subject.method.views().len().min(2);
    ensure!(
        recipes.len() >= needed,
        "`views` has {} recipe, but the loss of {} compares {needed} views: add another [[views]]",
        recipes.len(),
        config.name()
    );
    let size = subject.shape.size() as usize;
    let other = recipes.iter().map(|recipe| recipe.side(size)).find(|&side| side != size);
    let smallest = recipes.iter().map(|recipe| recipe.side(size)).min().unwrap_or(size);
    if let EncoderConfig::Residual { factor, .. } = config.encoder {
        ensure!(
            smallest >= factor as usize,
            "a view of {} has {smallest} pixels, but {} divides the sides of images by {factor}: choose larger views, or a \
             smaller factor behind its name",
            config.name(),
            config.encoder
        );
    }
    let fixed = matches!(config.encoder, EncoderConfig::Vit { .. }) || !config.tokenizer.is_empty();
    ensure!(
        !fixed || other.is_none(),
        "a view of {} has {} pixels, but {} takes images of {size} alone: choose a convolutional encoder without a \
         tokenizer, or views of one size",
        config.name(),
        other.unwrap_or(size),
        config.encoder
    );
    let first = meta.tokenizer.as_ref().map_or(String::new(), |origin| format!("-{}", &origin.sha256[..8]));
    let start = meta.start.as_ref().map_or(String::new(), |origin| format!("-w{}", &origin.sha256[..8]));
    let identity = config.hash()? + &format!("-s{}{first}{start}", config.seed);
    let online = evaluation::Online::new(config, dataset, subject)?;
    let look = |at: Progress, method: &dyn Method| {
        let every = config.evaluate.online_every;
        if every > 0 && at.epoch.is_multiple_of(every) { online.look(method) } else { Ok(Vec::new()) }
    };
    let run = Run {
        method: &mut *subject.method,
        store: &subject.store,
        samples: training_samples(dataset),
        recipes: &recipes,
        size: subject.shape.size() as usize,
        normalisation: &dataset.normalisation,
        config: &config.train,
        seed: config.seed,
        folder: folder.path,
        identity: &identity,
        stop,
        resume: folder.resume,
    };
    // All look at the features; what is seen, rank 0 alone tells.
    if group::rank() > 0 {
        return fit(run, &mut |event| match event {
            Event::Epoch { at, method, .. } => look(at, method).map(drop),
            _ => Ok(()),
        });
    }
    let mut board = Writer::create(&folder.path.join(EVENTS), seconds_since_1970())?;
    let mut display = Display::new(config.name(), config.train.batch);
    let outcome = fit(run, &mut |event| {
        match event {
            Event::Resumed { at, records } => {
                display.say(&format!("{}: goes on at step {} of {}", config.name(), at.step, at.steps));
                for m in metrics::read(records)? {
                    board.scalar(&m.metric, m.step, m.value, seconds_since_1970())?;
                }
            }
            Event::Step { at, loss } => display.step(at, loss),
            Event::Records(rows) => {
                for r in rows {
                    board.scalar(&r.metric, r.step, r.value, seconds_since_1970())?;
                }
                board.flush()?;
            }
            Event::Epoch { at, method, metrics } => {
                *metrics = look(at, method)?;
                if let Some(warning) = evaluation::collapse_warning(metrics) {
                    display.say(&format!("{} epoch {}: {warning}", config.name(), at.epoch));
                }
                display.epoch(at, metrics);
            }
        }
        Ok(())
    })?;
    display.end();
    board.flush()?;
    meta.images_per_second = display.images_per_second();
    group::alone(|| write_pictures(config, dataset, subject, &recipes, &folder.path.join("plots")))?;
    Ok(outcome)
}

/// The encoder's weights in their own file, under the names that torchvision (ResNet) and timm (ViT) use, and the
/// configuration that made them beside it.
fn export(subject: &Subject, config: &RunConfig, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let tensors: Vec<(String, Tensor)> = exported(&subject.store).into_iter().map(|v| (v.name, v.tensor)).collect();
    // One entry: several would stand in the header in another order each time.
    let metadata = [("format".to_string(), "pt".to_string())].into();
    write_whole(&folder.join("config.toml"), config.to_toml()?.as_bytes())?;
    checkpoint::write(&folder.join("encoder.safetensors"), &tensors, metadata)
}

/// The encoder's variables, named as in an export.
fn exported(store: &Store) -> Vec<Variable> {
    store.below("encoder").into_iter().map(|v| Variable { name: v.name["encoder.".len()..].into(), ..v }).collect()
}

/// Reads back a run: its configuration, and its method with the weights of its last checkpoint. Each of several processes
/// reads it, and all take the weights of rank 0.
///
/// # Errors
/// If the folder holds no finished or interrupted run, or its data are not there; if processes find other runs there.
pub fn open(folder: &Path, machine: &Machine) -> Result<(RunConfig, Dataset, Subject)> {
    let (config, dataset, subject) = read(folder, machine)?;
    let hashes = group::exchange(&config.hash()?)?;
    ensure!(
        hashes.iter().all(|hash| *hash == hashes[0]),
        "{}: the processes find different runs there ({}): give all of them one",
        folder.display(),
        hashes.join(", ")
    );
    group::broadcast(&subject.store.variables().into_iter().map(|v| v.tensor.detach()).collect::<Vec<_>>())?;
    Ok((config, dataset, subject))
}

fn read(folder: &Path, machine: &Machine) -> Result<(RunConfig, Dataset, Subject)> {
    let path = folder.join("config.toml");
    let text = fs::read_to_string(&path).with_context(|| {
        format!("{}: could not be read; expected the folder of a run, as `selfsup pretrain` makes it", path.display())
    })?;
    let config: RunConfig =
        toml::from_str(&text).map_err(|error| one_line(&error)).with_context(|| path.display().to_string())?;
    let dataset = selfsup_datasets::load(&config.data, &machine.data_root)?;
    let subject = build(&config, first_stage::of_run(folder)?.as_ref(), &dataset, machine.device)?;
    if ![RANDOM, SUPERVISED].contains(&config.name()) {
        load_weights(folder, &subject.store, "")?;
        return Ok((config, dataset, subject));
    }
    if let Some(origin) = read_meta(folder).and_then(|meta| meta.tokenizer) {
        first_stage::reload(&origin, folder, &subject.store)?;
    }
    // These have no checkpoint. Nothing but the seed is needed of untrained ones; of others the export has all.
    if config.name() == SUPERVISED || !config.start.is_empty() {
        let path = folder.join("export/encoder.safetensors");
        let unfinished = || format!("{}: finish the run first, with the command that began it", folder.display());
        let saved = checkpoint::read(&path).with_context(unfinished)?;
        checkpoint::restore(&exported(&subject.store), &saved.tensors, "")
            .with_context(|| path.display().to_string())?;
    }
    Ok((config, dataset, subject))
}
