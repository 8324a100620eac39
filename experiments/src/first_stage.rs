//! The first stage of a two-stage method: the run whose tokenizer it uses (`tokenizer = ..` of its configuration).
//!
//! `METHOD/PRESET` names a run of the same data, size and seed, judged in the same way, which is made first, beside the
//! run that needs it, if it is not there yet. Anything else is the folder of a finished run. The weights are copied into
//! the store of the second stage below `tokenizer`, so that its checkpoints hold all that it needs.

use crate::config::{RunConfig, one_line};
use crate::registry::{self, RANDOM, SUPERVISED};
use crate::run::{End, Folder, Machine, build as build_run, execute};
use anyhow::{Context, Result, ensure};
use selfsup_core::group;
use selfsup_core::method::{Method, Setup};
use selfsup_core::store::Store;
use selfsup_datasets::Dataset;
use selfsup_report::file::write_whole;
use selfsup_train::{checkpoint_path, load_weights};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use toml::Table;

/// Where the first stage lies in the store of the second.
const PATH: &str = "tokenizer";
/// Its configuration, in the folder of the second stage.
const CONFIG: &str = "tokenizer.toml";

/// Where the weights of a first stage come from, as meta.json says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The folder of its run.
    pub run: PathBuf,
    pub method: String,
    pub config_hash: String,
    /// Of its last checkpoint.
    pub sha256: String,
}

/// The first stage of a run, trained; of most methods there is none.
pub struct FirstStage(Option<(RunConfig, Origin)>);

impl FirstStage {
    /// Finds the first stage, or trains it. `None`: it was stopped on request.
    ///
    /// # Errors
    /// If the folder that the configuration names holds no finished run of the same kind of images, or the first stage
    /// cannot be trained.
    pub fn of(
        config: &RunConfig,
        dataset: &Dataset,
        machine: &Machine,
        folder: &Folder,
        stop: &AtomicBool,
    ) -> Result<Option<FirstStage>> {
        if config.tokenizer.is_empty() {
            return Ok(Some(FirstStage(None)));
        }
        let (first, run) = if let Some(named) = folder_of(config) {
            ensure!(
                named.join("DONE").is_file(),
                "`tokenizer`: {} holds a run that is not finished: finish it first, by the command that began it",
                named.display()
            );
            (read(&named.join("config.toml"))?, named.to_path_buf())
        } else {
            let first = preset(config)?;
            // Whatever does not fit is told before hours of training.
            check(config, &first, dataset.native_size)?;
            drop(build_run(config, Some(&first), dataset, machine.device)?);
            let path = folder.path.parent().unwrap_or(Path::new(".")).join(first.run_id()?);
            let place = Folder { path: &path, study: folder.study, resume: folder.resume };
            if group::rank() == 0 {
                eprintln!("{} needs a tokenizer: {} seed {}", config.name(), config.tokenizer, first.seed);
            }
            if let End::Stopped = execute(&first, dataset, machine, &place, stop)? {
                return Ok(None);
            }
            (first, path)
        };
        check(config, &first, dataset.native_size)?;
        // Rank 0 has it whole before the others look.
        let sha256 = group::by_first(|| {
            ensure!(
                !run.join("FAILED").exists(),
                "`tokenizer`: the run in {} diverged, so there is nothing to use: change its configuration, or name \
                 another",
                run.display()
            );
            write_whole(&folder.path.join(CONFIG), first.to_toml()?.as_bytes())?;
            sum(&checkpoint_path(&run))
        })?;
        let origin = Origin { run, method: first.name().into(), config_hash: first.hash()?, sha256 };
        Ok(Some(FirstStage(Some((first, origin)))))
    }

    /// Its configuration.
    pub fn config(&self) -> Option<&RunConfig> {
        self.0.as_ref().map(|(config, _)| config)
    }

    /// Where its weights come from.
    pub fn origin(&self) -> Option<Origin> {
        self.0.as_ref().map(|(_, origin)| origin.clone())
    }

    /// Copies its weights into the store of the second stage; of several processes rank 0 alone, whose store the others
    /// are given when training begins.
    ///
    /// # Errors
    /// If they are not there or of another shape.
    pub fn load(&self, store: &Store) -> Result<()> {
        let own = self.0.as_ref().filter(|_| group::rank() == 0);
        own.map_or(Ok(()), |(_, origin)| load_weights(&origin.run, store, PATH))
    }
}

/// The folder of the run that `tokenizer` names, where it names one.
pub fn folder_of(config: &RunConfig) -> Option<&Path> {
    let named = Path::new(&config.tokenizer);
    named.join("config.toml").is_file().then_some(named)
}

/// The configuration of the first stage as far as it can be told without training it: for tests and `--dry-run`.
///
/// # Errors
/// If `tokenizer` names neither a run nor a preset.
pub fn planned(config: &RunConfig) -> Result<Option<RunConfig>> {
    if config.tokenizer.is_empty() {
        return Ok(None);
    }
    match folder_of(config) {
        Some(folder) => read(&folder.join("config.toml")).map(Some),
        None => preset(config).map(Some),
    }
}

/// The configuration of the first stage that a preset names, with the data, the size, the seed and the protocols of the
/// second stage: what can be asked of one can be asked of the other.
///
/// # Errors
/// If there is no such method or preset.
pub fn preset(config: &RunConfig) -> Result<RunConfig> {
    let mut layer = Table::new();
    layer.insert("seed".into(), toml::Value::try_from(config.seed)?);
    layer.insert("data".into(), config.data.clone().into());
    layer.insert("size".into(), toml::Value::try_from(config.size)?);
    layer.insert("evaluate".into(), toml::Value::try_from(&config.evaluate)?);
    let first = RunConfig::resolve(&config.tokenizer, &[layer]).with_context(|| {
        format!(
            "`tokenizer` is `{}`; expected the folder of a finished run, or METHOD/PRESET such as vq-vae/cpu",
            config.tokenizer
        )
    })?;
    Ok(first)
}

/// Refuses a first stage that does not fit the second. `native` is the size of the images of the data set, which a `size`
/// of 0 stands for.
///
/// # Errors
/// Says what does not fit.
pub fn check(config: &RunConfig, first: &RunConfig, native: usize) -> Result<()> {
    ensure!(
        first.tokenizer.is_empty() && ![RANDOM, SUPERVISED].contains(&first.name()),
        "`tokenizer` is `{}`, a run of {}; expected one of a method that learns a codebook, such as vq-vae",
        config.tokenizer,
        first.name()
    );
    // Pixels reach the tokenizer as this run normalises them.
    ensure!(
        first.data == config.data,
        "`tokenizer`: {} was trained on {}, but this run has {}: both stages must have the same `data`",
        config.tokenizer,
        first.data,
        config.data
    );
    let [of_first, of_second] = [first, config].map(|c| if c.size == 0 { native } else { c.size });
    ensure!(
        of_first == of_second,
        "`tokenizer`: {} was trained on images of size {of_first}, but this run has size {of_second}: give both the same \
         `size`",
        config.tokenizer
    );
    Ok(())
}

/// The first stage of the run in `folder`, as it was when that run began.
///
/// # Errors
/// If its configuration cannot be read.
pub fn of_run(folder: &Path) -> Result<Option<RunConfig>> {
    let path = folder.join(CONFIG);
    path.is_file().then(|| read(&path)).transpose()
}

/// Builds the method of the first stage in the store of the second, frozen.
///
/// # Errors
/// If the method cannot be built, or has no codebook.
pub fn build(first: &RunConfig, setup: &Setup) -> Result<Rc<dyn Method>> {
    let path = (&setup.path / PATH).frozen();
    let own = Setup::new(path, first.encoder, setup.shape, setup.samples);
    let own = Setup { normalisation: setup.normalisation.clone(), ..own };
    let method = (registry::find(first.name())?.build)(&first.settings(), &own)?;
    ensure!(
        method.tokenizer().is_some(),
        "`tokenizer`: {} learns no codebook; expected a method that does, such as vq-vae",
        first.name()
    );
    Ok(method.into())
}

/// Gives the first stage of the run in `folder` its weights again, from the run that it came from: a baseline has no
/// checkpoint of its own.
///
/// # Errors
/// If that run is no longer there, or was trained again.
pub fn reload(origin: &Origin, folder: &Path, store: &Store) -> Result<()> {
    // Where it was made, or, of a study that was moved or is looked at from elsewhere, beside the run that used it.
    let beside = folder.parent().zip(origin.run.file_name()).map(|(study, name)| study.join(name));
    let run = beside.filter(|run| !origin.run.exists() && run.exists()).unwrap_or_else(|| origin.run.clone());
    let now = sum(&checkpoint_path(&run))?;
    ensure!(
        now == origin.sha256,
        "{}: its weights are not those that this run was made with: make this run again too",
        run.display()
    );
    load_weights(&run, store, PATH)
}

/// The sha256 of a file, in hexadecimal digits.
pub(crate) fn sum(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("{}: could not be read", path.display()))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(path: &Path) -> Result<RunConfig> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).map_err(|error| one_line(&error)).with_context(|| path.display().to_string())
}
