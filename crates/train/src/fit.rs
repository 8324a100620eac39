//! The loop.

use crate::checkpoint::{self, Checkpoint};
use crate::record::{Record, Records};
use anyhow::{Context, Result, ensure};
use selfsup_core::Tensor;
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::{HostBatch, Plain};
use selfsup_core::data::{Normalisation, Samples};
use selfsup_core::group::{self, Gradients, Norms};
use selfsup_core::method::{Loss, Method};
use selfsup_core::optimiser::{Optimiser, OptimiserConfig, clip_gradients};
use selfsup_core::precision::{self, Precision};
use selfsup_core::progress::{Progress, Schedule};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Store, Variable};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};

/// How to train. The learning rate rises over `warmup` epochs and then falls by the `schedule`, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    pub epochs: u64,
    /// Samples of a step, of all processes together; what is left of an epoch, less than a batch, is left out.
    pub batch: usize,
    /// In epochs.
    pub warmup: f64,
    pub schedule: Schedule,
    /// Gradients are scaled down to this norm, all of them together; 0: not at all.
    pub clip_norm: f64,
    /// Of convolutions and matrix products in networks; everything else is f32.
    pub precision: Precision,
    /// Whose rows batch normalisation takes its statistics from, where several processes train.
    // Not written where it is the default: such configurations keep the hash that they had before there was this key.
    #[serde(skip_serializing_if = "is_default")]
    pub batch_norm: Norms,
    /// Epochs between checkpoints. The end of a run and a stop on request write one too.
    pub checkpoint_every: u64,
    pub optimiser: OptimiserConfig,
}

fn is_default(norms: &Norms) -> bool {
    *norms == Norms::default()
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        TrainConfig {
            epochs: 100,
            batch: 256,
            warmup: 10.0,
            schedule: Schedule::default(),
            clip_norm: 0.0,
            precision: Precision::Bf16,
            batch_norm: Norms::default(),
            checkpoint_every: 1,
            optimiser: OptimiserConfig::Sgd {
                rate: 0.06,
                per: 256,
                momentum: 0.9,
                nesterov: false,
                decay: 5e-4,
                decay_all: false,
            },
        }
    }
}

impl TrainConfig {
    /// # Errors
    /// If a number makes no sense; the message names its key.
    pub fn check(&self) -> Result<()> {
        ensure!(self.epochs > 0, "`train.epochs` must be at least 1");
        ensure!(self.batch > 0, "`train.batch` must be at least 1");
        ensure!(self.checkpoint_every > 0, "`train.checkpoint_every` must be at least 1");
        for (key, x) in [("warmup", self.warmup), ("clip_norm", self.clip_norm)] {
            ensure!(x.is_finite() && x >= 0.0, "`train.{key}` must be a number of 0 or more, but is {x}");
        }
        self.schedule.check()?;
        self.optimiser.check()
    }

    /// The samples of a step that each of `ranks` processes has.
    ///
    /// # Errors
    /// If they cannot have equally many.
    pub fn batch_of_rank(&self, ranks: usize) -> Result<usize> {
        ensure!(
            self.batch.is_multiple_of(ranks),
            "`train.batch` is {}, which {ranks} processes cannot share: choose a multiple of {ranks}, such as {}",
            self.batch,
            self.batch.next_multiple_of(ranks)
        );
        Ok(self.batch / ranks)
    }
}

/// All that a run consists of.
pub struct Run<'a> {
    pub method: &'a mut dyn Method,
    /// Where the method's variables live.
    pub store: &'a Store,
    pub samples: &'a dyn Samples,
    /// One per view, as the method states them or as a configuration replaces them.
    pub recipes: &'a [Recipe],
    /// Height and width of full-size views, or the length of sequences.
    pub size: usize,
    pub normalisation: &'a Normalisation,
    pub config: &'a TrainConfig,
    pub seed: u64,
    /// Where checkpoints/ and metrics.csv go.
    pub folder: &'a Path,
    /// What makes this run this run (a hash of its configuration): a checkpoint of another one is refused.
    pub identity: &'a str,
    /// Set from outside, it ends the run after the step in progress, with a checkpoint.
    pub stop: &'a AtomicBool,
    /// Whether to go on from a checkpoint that is there.
    pub resume: bool,
}

/// What a run tells while it runs.
pub enum Event<'a> {
    /// It goes on from a checkpoint; `records` is the path of its metrics so far.
    Resumed { at: Progress, records: &'a Path },
    /// A step was done; `at` is the moment after it.
    Step { at: Progress, loss: f64 },
    /// Rows were added to metrics.csv.
    Records(&'a [Record]),
    /// An epoch was done. What is pushed to `metrics` is recorded with it; it must be a function of the state alone.
    Epoch { at: Progress, method: &'a dyn Method, metrics: &'a mut Vec<(String, f64)> },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Finished,
    /// On request; the checkpoint holds this step.
    Stopped(Progress),
    /// The loss left the finite numbers: a diagnosis. The last checkpoint is from before.
    Diverged(String),
}

/// Of the layout and meaning of checkpoints: what another number wrote is refused.
const FORMAT: u32 = 1;

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    /// Of everything else here and of all tensors: a bit that a disk or a copy changed is found before it is used.
    digest: String,
    identity: String,
    step: u64,
    records: u64,
    /// Sums since the last record, as bits, since text must not round them.
    window: Vec<(String, u64)>,
    window_steps: u64,
}

/// Trains. The same configuration, seed, machine and thread count give the same weights, bit for bit, however often
/// the run was interrupted.
///
/// Several processes with a group in force ([`group`]) train as one: each has its rows of every batch, and each observes.
/// Rank 0 alone reads and writes files; what it read the others are told, so that a run may go on with another number of
/// them.
///
/// # Errors
/// If images cannot be read, files not written, or a checkpoint belongs to something else; if another process trains
/// something else, or ended.
pub fn fit(run: Run<'_>, observe: &mut dyn FnMut(Event<'_>) -> Result<()>) -> Result<Outcome> {
    // What the run consists of.
    let config = run.config;
    config.check()?;
    let (rank, ranks) = (group::rank(), group::size());
    let batch_of_rank = config.batch_of_rank(ranks)?;
    agree(&run)?;
    let per_epoch = (run.samples.len() / config.batch) as u64;
    ensure!(
        per_epoch > 0,
        "a batch of {} cannot be drawn from {} {}: choose a smaller `train.batch`",
        config.batch,
        run.samples.len(),
        run.samples.modality().plural()
    );
    let steps = per_epoch * config.epochs;
    let moment = |step: u64| Progress { step, steps, epoch: step / per_epoch, epochs: config.epochs };
    let peak = config.optimiser.peak(config.batch);
    let every = per_epoch.div_ceil(10); // rows of metrics.csv: ten an epoch

    // Weights, optimiser, and where an earlier part of this run left them.
    let mut optimiser = Optimiser::new(&config.optimiser, run.store.trainable())?;
    let path = checkpoint_path(run.folder);
    let records_path = run.folder.join("metrics.csv");
    let mut records = None;
    let begun = group::by_first(|| {
        std::fs::create_dir_all(run.folder.join("checkpoints"))
            .with_context(|| format!("{}: the folder could not be made", run.folder.display()))?;
        let state = (run.resume && path.exists()).then(|| load(&run, &mut optimiser)).transpose()?;
        records = Some(match &state {
            Some(state) => Records::resume(&records_path, state.records)?,
            None => Records::create(&records_path)?,
        });
        Ok(serde_json::to_string(&state)?)
    })?;
    let state: Option<State> = serde_json::from_str(&begun)?;
    share_state(run.store, &optimiser)?;
    let (start, mut window) = match &state {
        Some(state) => (state.step, Window::of_bits(&state.window, state.window_steps)),
        None => (0, Window::default()),
    };
    if state.is_some() {
        observe(Event::Resumed { at: moment(start), records: &records_path })?;
    }
    let gradients = Gradients::of(run.store.trainable().into_iter().map(|v| v.tensor).collect())?;

    // Views are made on other threads, two batches ahead.
    let (samples, recipes, size, normalisation, seed) =
        (run.samples, run.recipes, run.size, run.normalisation, run.seed);
    let batch_size = config.batch;
    std::thread::scope(|scope| {
        let (sender, views) = sync_channel(2);
        // What a method chooses as an epoch's order; a method that leaves it to us once is not waited for again.
        let (orders, chosen) = channel::<Option<Vec<usize>>>();
        scope.spawn(move || {
            let (mut order, mut repeats, mut ask) = (Vec::new(), Vec::new(), true);
            for step in start..steps {
                let epoch = step / per_epoch;
                if step == start || step % per_epoch == 0 {
                    let choice = if ask { chosen.recv().unwrap_or(None) } else { None };
                    ask = choice.is_some();
                    order = choice
                        .unwrap_or_else(|| Rng::new(seed, Purpose::Order, epoch, 0, 0).permutation(samples.len()));
                    repeats = drawn_before(&order, samples.len());
                }
                let from = (step % per_epoch) as usize * batch_size + rank * batch_of_rank;
                let batch = from..from + batch_of_rank;
                let (index, repeats) = (order[batch.clone()].to_vec(), &repeats[batch]);
                let made =
                    HostBatch::render_repeats(samples, index, repeats, recipes, size, normalisation, seed, epoch);
                let failed = made.is_err();
                if sender.send(made).is_err() || failed {
                    return;
                }
            }
        });

        let mut ask = true;
        for step in start..steps {
            let at = moment(step);
            if step % per_epoch == 0 {
                // Processes of different machines may round differently, and local statistics do differ.
                share_state(run.store, &optimiser)?;
                let plain = Plain { samples, size, normalisation, device: run.store.device() };
                let redrawn = precision::with(config.precision, || run.method.before_epoch(at, &plain));
                for name in redrawn.with_context(|| format!("before epoch {}", at.epoch))? {
                    optimiser.forget(&name)?;
                }
                group::check()?;
                share_state(run.store, &optimiser)?;
            }
            if ask && (step == start || step % per_epoch == 0) {
                let order = run.method.order(at);
                let wanted = per_epoch as usize * batch_size;
                let usable = order.as_ref().is_none_or(|o| o.len() >= wanted && o.iter().all(|&i| i < samples.len()));
                ensure!(usable, "the method's order of an epoch must hold {wanted} places of images or more");
                ask = order.is_some();
                let _ = orders.send(order); // a thread that has ended tells why through `views`
            }

            // One step: views, loss, gradient, update.
            selfsup_core::torch_ext::seed(Rng::new(seed, Purpose::Step, 0, step, rank as u32).bits());
            let made = views.recv().context("the thread that makes views ended early")??;
            let batch = made.to_batch(run.store.device());
            let loss = precision::with(config.precision, || {
                group::with_norms(config.batch_norm, || run.method.loss(&batch, at))
            });
            group::check()?;
            let Told { total, parts, stop } = tell(&loss, run.stop)?;
            if !total.is_finite() {
                return Ok(Outcome::Diverged(diagnose(&loss, total, run.store, at, config)));
            }
            optimiser.zero_grad()?;
            gradients.backward(&loss.total)?;
            if config.clip_norm > 0.0 {
                let _norm = clip_gradients(&run.store.trainable(), config.clip_norm)?;
            }
            let rate = config.schedule.rate(peak, config.warmup, at);
            optimiser.step(rate, peak)?;
            run.method.after_step(at);

            // What is told of it.
            let after = moment(step + 1);
            let (in_epoch, epoch) = (step % per_epoch + 1, at.epoch);
            window.add(total, parts);
            observe(Event::Step { at: after, loss: total })?;
            let record = |metric: String, value| Record { epoch, step: step + 1, metric, value };
            let mut rows = Vec::new();
            if in_epoch % every == 0 || in_epoch == per_epoch {
                rows.extend(window.take().into_iter().map(|(metric, value)| record(metric, value)));
                rows.push(record("rate".into(), rate));
            }
            if in_epoch == per_epoch {
                let mut metrics = Vec::new();
                observe(Event::Epoch { at: after, method: run.method, metrics: &mut metrics })?;
                rows.extend(metrics.into_iter().map(|(metric, value)| record(metric, value)));
            }
            if let (false, Some(records)) = (rows.is_empty(), &mut records) {
                records.write(&rows)?;
                observe(Event::Records(&rows))?;
            }

            // What must survive.
            let stop = if ranks == 1 { run.stop.load(Ordering::Relaxed) } else { stop };
            let stop = stop && step + 1 < steps;
            let due = in_epoch == per_epoch && (epoch + 1).is_multiple_of(config.checkpoint_every);
            if let (true, Some(records)) = (stop || due || step + 1 == steps, &mut records) {
                let state = State {
                    format: FORMAT,
                    digest: String::new(),
                    identity: run.identity.into(),
                    step: step + 1,
                    records: records.sync()?,
                    window: window.bits(),
                    window_steps: window.steps,
                };
                save(&path, run.store, &optimiser, state)?;
            }
            if stop {
                return Ok(Outcome::Stopped(after));
            }
        }
        Ok(Outcome::Finished)
    })
}

/// Refuses to train beside processes that train something else.
fn agree(run: &Run) -> Result<()> {
    let own = format!(
        "the configuration {} with {} samples and {:?}",
        run.identity,
        run.samples.len(),
        run.config.batch_norm
    );
    let all = group::exchange(&own)?;
    let other = all.iter().position(|other| *other != all[0]);
    ensure!(
        other.is_none(),
        "rank {} of {} trains {}, but rank 0 {}: start all processes with the same command on the same data",
        other.unwrap_or(0),
        all.len(),
        other.map_or("", |other| &all[other]),
        all[0]
    );
    Ok(())
}

/// Weights, buffers and what the optimiser remembers become those of rank 0.
fn share_state(store: &Store, optimiser: &Optimiser) -> Result<()> {
    if group::size() == 1 {
        return Ok(());
    }
    let remembered = optimiser.state().into_iter().map(|(_, tensor)| tensor);
    let tensors: Vec<Tensor> = store.variables().into_iter().map(|v| v.tensor.detach()).chain(remembered).collect();
    group::broadcast(&tensors)
}

/// What all processes know of a step.
struct Told {
    total: f64,
    parts: Vec<(&'static str, f64)>,
    /// Whether one of them was asked to stop.
    stop: bool,
}

/// The means of the loss and of its parts over all processes.
fn tell(loss: &Loss, stop: &AtomicBool) -> Result<Told> {
    let stop = f64::from(u8::from(stop.load(Ordering::Relaxed)));
    let parts = loss.parts.iter().map(|(_, value)| value.double_value(&[]));
    let own: Vec<f64> = [stop, loss.total.double_value(&[])].into_iter().chain(parts).collect();
    let all = group::average_numbers(&own)?;
    let parts = loss.parts.iter().map(|(name, _)| *name).zip(all[2..].iter().copied()).collect();
    Ok(Told { total: all[1], parts, stop: all[0] > 0.0 })
}

/// How often each entry of an order of `samples` samples stands before it.
fn drawn_before(order: &[usize], samples: usize) -> Vec<u32> {
    let mut drawn = vec![0; samples];
    let before = |&index: &usize| {
        drawn[index] += 1;
        drawn[index] - 1
    };
    order.iter().map(before).collect()
}

/// Where the checkpoint of a run lies.
pub fn checkpoint_path(folder: &Path) -> PathBuf {
    folder.join("checkpoints").join("last.safetensors")
}

/// Sums of the loss and its parts since the last record.
#[derive(Default)]
struct Window {
    sums: Vec<(String, f64)>,
    steps: u64,
}

impl Window {
    fn add(&mut self, total: f64, parts: Vec<(&'static str, f64)>) {
        for (name, value) in std::iter::once(("loss", total)).chain(parts) {
            match self.sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += value,
                None => self.sums.push((name.into(), value)),
            }
        }
        self.steps += 1;
    }

    fn take(&mut self) -> Vec<(String, f64)> {
        let Window { sums, steps } = std::mem::take(self);
        sums.into_iter().map(|(name, sum)| (name, sum / steps as f64)).collect()
    }

    fn bits(&self) -> Vec<(String, u64)> {
        self.sums.iter().map(|(name, sum)| (name.clone(), sum.to_bits())).collect()
    }

    fn of_bits(sums: &[(String, u64)], steps: u64) -> Window {
        Window { sums: sums.iter().map(|(name, bits)| (name.clone(), f64::from_bits(*bits))).collect(), steps }
    }
}

fn save(path: &Path, store: &Store, optimiser: &Optimiser, state: State) -> Result<()> {
    let model = store.variables().into_iter().map(|v| (format!("model.{}", v.name), v.tensor));
    let optimiser = optimiser.state().into_iter().map(|(name, tensor)| (format!("optimiser.{name}"), tensor));
    let tensors: Vec<(String, Tensor)> = model.chain(optimiser).collect();
    let digest = checkpoint::digest(&serde_json::to_string(&state)?, tensors.iter().map(|(name, x)| (name, x)))?;
    let state = State { digest, ..state };
    let metadata = HashMap::from([("selfsup".into(), serde_json::to_string(&state)?)]);
    checkpoint::write(path, &tensors, metadata)
}

/// Reads a checkpoint that is as it was written.
fn read(path: &Path) -> Result<(State, HashMap<String, Tensor>)> {
    let saved = checkpoint::read(path)?;
    let state = state_of(&saved).with_context(|| path.display().to_string())?;
    Ok((state, saved.tensors))
}

fn state_of(saved: &Checkpoint) -> Result<State> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default)]
        format: u32,
    }
    let text = saved.metadata.get("selfsup").context("not a checkpoint of this program: its header says nothing")?;
    let damaged = "the checkpoint's header is damaged; start the run again with --resume never";
    let Written { format } = serde_json::from_str(text).context(damaged)?;
    ensure!(
        format == FORMAT,
        "the checkpoint has format {format}, this program reads {FORMAT}: use the version that wrote it, or start the run \
         again with --resume never"
    );
    let mut state: State = serde_json::from_str(text).context(damaged)?;
    let digest = std::mem::take(&mut state.digest);
    ensure!(
        checkpoint::digest(&serde_json::to_string(&state)?, &saved.tensors)? == digest,
        "the checkpoint is damaged: it is not what was written; start the run again with --resume never"
    );
    Ok(state)
}

fn load(run: &Run, optimiser: &mut Optimiser) -> Result<State> {
    let path = checkpoint_path(run.folder);
    let (state, tensors) = read(&path)?;
    let mut take = || {
        ensure!(
            state.identity == run.identity,
            "the checkpoint belongs to the configuration {}, this run has {}: use another folder, or --resume never",
            state.identity,
            run.identity
        );
        checkpoint::restore(&run.store.variables(), &tensors, "model.")?;
        let slots = tensors.iter();
        let slots = slots.filter_map(|(name, x)| Some((name.strip_prefix("optimiser.")?.into(), x.shallow_clone())));
        optimiser.load(&slots.collect())
    };
    take().with_context(|| path.display().to_string())?;
    Ok(state)
}

/// Gives variables the weights of a run's last checkpoint: all of the store, or those below the name `below`, which the
/// run knew without it.
///
/// # Errors
/// If there is none, or it holds other variables.
pub fn load_weights(folder: &Path, store: &Store, below: &str) -> Result<()> {
    let path = checkpoint_path(folder);
    let (_, tensors) = read(&path)?;
    let variables = if below.is_empty() { store.variables() } else { store.below(below) };
    let variables: Vec<Variable> = variables
        .into_iter()
        .map(|v| Variable { name: v.name[if below.is_empty() { 0 } else { below.len() + 1 }..].into(), ..v })
        .collect();
    checkpoint::restore(&variables, &tensors, "model.").with_context(|| path.display().to_string())
}

/// Why a loss is not finite, as far as can be seen.
fn diagnose(loss: &Loss, total: f64, store: &Store, at: Progress, config: &TrainConfig) -> String {
    let finite = |x: &Tensor| x.detach().isfinite().all().int64_value(&[]) == 1;
    let mut text = format!("the loss became {} at step {} (epoch {})", total, at.step, at.epoch);
    if let Some((name, value)) = loss.parts.iter().find(|(_, value)| !finite(value)) {
        text += &format!("; its part `{name}` is {}", value.double_value(&[]));
    }
    match store.variables().iter().find(|v| !finite(&v.tensor)) {
        Some(variable) => text += &format!("; the first variable that is not finite is `{}`", variable.name),
        None => text += "; all variables are finite, so it comes from this batch's views or from the loss itself",
    }
    if config.precision == Precision::Bf16 {
        text += ". Try a lower rate, more warm-up, or train.precision=f32";
    } else {
        text += ". Try a lower rate or more warm-up";
    }
    text
}
