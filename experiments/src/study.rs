//! Studies: methods x seeds under one protocol, resumable, ending in results.csv.

use crate::config::{RunConfig, one_line};
use crate::evaluation::LABELLED;
use crate::first_stage::{folder_of, planned};
use crate::message::one_line as one_line_of;
use crate::registry::{RANDOM, SUPERVISED};
use crate::reporting::Report;
use crate::run::{End, Folder, Machine, clear, execute};
use anyhow::{Context, Result, bail, ensure};
use selfsup_core::group;
use selfsup_datasets::Dataset;
use selfsup_report::published::{self, Published};
use selfsup_report::results::{self, Row};
use selfsup_train::TrainConfig;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use toml::Table;

/// A study file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// The name of its folder and a column of its results.
    pub name: String,
    pub seeds: Vec<u64>,
    /// Changes to the configuration of every run.
    #[serde(default)]
    pub common: Table,
    /// What the runs' `published` numbers are.
    pub published: Option<Source>,
    /// One table a method: `method = "simclr/cpu"`, or `method = { name = "simclr/cpu", temperature = 0.5 }` with
    /// settings of its own, and changes to the rest of its configuration. `published = 0.9074` is what others got.
    pub runs: Vec<Table>,
}

/// Whose numbers a study is held beside, and what they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub source: String,
    pub protocol: String,
    pub metric: String,
}

impl Study {
    /// Reads a study file; `overrides` hold for every run, but `seeds` for the study.
    ///
    /// # Errors
    /// If the file cannot be read, or holds an unknown key.
    pub fn read(path: &Path, overrides: &[Table]) -> Result<Study> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{}: could not be read; expected a study file", path.display()))?;
        let mut study: Study =
            toml::from_str(&text).map_err(|error| one_line(&error)).with_context(|| path.display().to_string())?;
        for table in overrides {
            let mut table = table.clone();
            if let Some(seeds) = table.remove("seeds") {
                study.seeds = seeds.try_into().context("`seeds` must be a list of whole numbers: seeds=[0,1,2]")?;
            }
            overlay(&mut study.common, &table);
        }
        ensure!(!study.runs.is_empty(), "{}: has no [[runs]]", path.display());
        ensure!(!study.seeds.is_empty(), "{}: has no seeds", path.display());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure!(
            !study.name.is_empty() && study.name.chars().all(plain),
            "{}: `name` may hold letters, digits, - and _, but is `{}`",
            path.display(),
            study.name
        );
        Ok(study)
    }

    /// The configurations of all runs, seed by seed, so that a stopped study has whole seeds to show: for every encoder
    /// the random and the supervised row, then the methods.
    ///
    /// # Errors
    /// If a configuration cannot be resolved; the message names the run.
    pub fn runs(&self) -> Result<Vec<RunConfig>> {
        let configs: Vec<RunConfig> = self.configs()?.into_iter().map(|(config, _)| config).collect();
        let kind = |c: &RunConfig| (c.encoder, c.data.clone(), c.size, c.tokenizer.clone());
        let mut baselines: Vec<RunConfig> = Vec::new();
        for config in &configs {
            if baselines.iter().any(|b| kind(b) == kind(config)) {
                continue;
            }
            // All that is asked of a run of this kind is asked of its baselines.
            let mut evaluate = config.evaluate.clone();
            for other in configs.iter().filter(|other| kind(other) == kind(config)) {
                let missing = other.evaluate.protocols.iter().filter(|p| !evaluate.protocols.contains(p));
                let missing: Vec<String> = missing.cloned().collect();
                evaluate.protocols.extend(missing);
            }
            // What is asked for its own task alone has nothing to compare by; what has no labels, no supervised row.
            let asks = |protocols: &[&str]| evaluate.protocols.iter().any(|p| protocols.contains(&p.as_str()));
            let rows: &[&str] = match (asks(&LABELLED), asks(&["geometry"])) {
                (true, _) => &[RANDOM, SUPERVISED],
                (false, true) => &[RANDOM],
                (false, false) => continue,
            };
            for name in rows {
                let bare = RunConfig::resolve(name, &[])?;
                let train = TrainConfig { precision: config.train.precision, ..bare.train };
                let (data, evaluate, tokenizer) = (config.data.clone(), evaluate.clone(), config.tokenizer.clone());
                let (encoder, size) = (config.encoder, config.size);
                baselines.push(RunConfig { data, encoder, size, tokenizer, train, evaluate, ..bare });
            }
        }
        baselines.extend(configs);
        let with = |seed: u64| baselines.iter().map(move |config| RunConfig { seed, ..config.clone() });
        Ok(self.seeds.iter().flat_map(|&seed| with(seed)).collect())
    }

    /// The configuration of each of its methods, and what was published for it.
    fn configs(&self) -> Result<Vec<(RunConfig, Option<f64>)>> {
        let mut configs = Vec::new();
        for (i, run) in self.runs.iter().enumerate() {
            let mut run = run.clone();
            let published = match run.remove("published") {
                None => None,
                Some(toml::Value::Float(value)) => Some(value),
                Some(other) => bail!("`published` of run {} must be a number such as 0.9074, but is {other}", i + 1),
            };
            let name = take_name(&mut run).with_context(|| {
                format!(
                    "run {} has no `method = \"NAME/PRESET\"` or `method = {{ name = \"NAME/PRESET\", .. }}`",
                    i + 1
                )
            })?;
            let config = RunConfig::resolve(&name, &[self.common.clone(), run]);
            configs.push((config.with_context(|| format!("in run {} ({name})", i + 1))?, published));
        }
        Ok(configs)
    }

    /// What was published for its runs.
    ///
    /// # Errors
    /// If a configuration cannot be resolved, or nothing says whose a number is.
    pub fn published(&self) -> Result<Vec<Published>> {
        let numbers = self.configs()?;
        let numbers = numbers.into_iter().filter_map(|(config, value)| Some((config, value?)));
        let of = |(config, value): (RunConfig, f64)| {
            let Source { source, protocol, metric } =
                self.published.clone().context("a run has `published`, but the study has no [published]")?;
            Ok(Published { config_hash: config.hash()?, protocol, metric, value, source })
        };
        numbers.map(of).collect()
    }
}

/// Takes the method's name and preset out of a run, and leaves the method's own settings in it.
pub(crate) fn take_name(run: &mut Table) -> Option<String> {
    match run.remove("method")? {
        toml::Value::String(name) => Some(name),
        toml::Value::Table(mut settings) => {
            let name = settings.remove("name")?.as_str()?.to_owned();
            run.insert("method".into(), settings.into());
            Some(name)
        }
        _ => None,
    }
}

/// Puts `layer` over `table` without asking whether its keys are known; that comes with the whole configuration.
pub(crate) fn overlay(table: &mut Table, layer: &Table) {
    for (key, value) in layer {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) if !new.contains_key("name") => overlay(old, new),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

/// The scores of a study so far, and whether all its runs are in.
pub struct Compared {
    pub folder: PathBuf,
    pub report: Report,
    pub complete: bool,
}

/// Runs what is not done yet, and writes results.csv and the report after it.
///
/// # Errors
/// If a run fails; what was done before stays, and the study can be started again.
pub fn compare(study: &Study, out: &Path, machine: &Machine, resume: bool, stop: &AtomicBool) -> Result<Compared> {
    let folder = out.join(&study.name);
    let (configs, published) = (study.runs()?, study.published()?);
    group::by_first(|| {
        fs::create_dir_all(&folder).with_context(|| format!("{}: could not be made", folder.display()))?;
        if !published.is_empty() {
            published::write(&folder.join("published.csv"), &published)?;
        }
        if !resume {
            clear_all(&configs, &folder)?;
        }
        Ok(String::new())
    })?;
    let place = Place { folder: &folder, study: &study.name, machine, stop };
    let mut rows: Vec<Row> = Vec::new();
    let complete = execute_all(&configs, &place, |_, scores| {
        rows.extend(scores?);
        if group::rank() == 0 { results::write(&folder.join("results.csv"), &rows) } else { Ok(()) }
    })?;
    let report = Report::of(rows)?;
    if !report.rows.is_empty() {
        report.write(&folder, std::slice::from_ref(&folder))?;
    }
    Ok(Compared { folder, report, complete })
}

/// Removes what earlier calls made of these runs. At once, so that a run may use what an earlier one of this call has made:
/// a tokenizer is trained once.
fn clear_all(configs: &[RunConfig], folder: &Path) -> Result<()> {
    for config in configs {
        clear(&folder.join(config.run_id()?))?;
        if let Some(first) = first_stage(config)? {
            clear(&folder.join(first))?;
        }
    }
    Ok(())
}

/// The folder beside the run's in which its first stage is trained, if it has one of its own.
fn first_stage(config: &RunConfig) -> Result<Option<String>> {
    match (folder_of(config), planned(config)?) {
        (None, Some(first)) => first.run_id().map(Some),
        _ => Ok(None),
    }
}

/// One of several shares of the runs of a study, for as many processes or machines with a folder in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: usize,
    count: usize,
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Shard> {
        let number = |text: &str| text.parse::<usize>().ok();
        match text.split_once('/').and_then(|(i, n)| Some((number(i)?, number(n)?))) {
            Some((i, count)) if 1 <= i && i <= count => Ok(Shard { index: i - 1, count }),
            _ => bail!("expected I/N with 1 <= I <= N: 1/2 and 2/2 are the halves of the runs"),
        }
    }
}

impl Shard {
    /// Its part of the runs, in their order. Runs that rest on the same first stage stay together, as of two
    /// processes that came to it at once one would be refused.
    ///
    /// # Errors
    /// If a configuration cannot be resolved.
    pub fn share(self, configs: Vec<RunConfig>) -> Result<Vec<RunConfig>> {
        let mut groups: HashMap<String, usize> = HashMap::new();
        let mut share = Vec::new();
        for config in configs {
            let name = first_stage(&config)?.map_or_else(|| config.run_id(), Ok)?;
            let next = groups.len();
            if *groups.entry(name).or_insert(next) % self.count == self.index {
                share.push(config);
            }
        }
        Ok(share)
    }
}

/// Makes runs, and no table of them. False: it was stopped.
///
/// # Errors
/// If a run failed; the others are made all the same.
pub fn make(configs: &[RunConfig], place: &Place, resume: bool) -> Result<bool> {
    fs::create_dir_all(place.folder).with_context(|| format!("{}: could not be made", place.folder.display()))?;
    if !resume {
        clear_all(configs, place.folder)?;
    }
    let mut failed = Vec::new();
    let complete = execute_all(configs, place, |_, end| {
        failed.extend(end.err().inspect(|why| eprintln!("error: {}; going on without it", one_line_of(why))));
        Ok(())
    })?;
    let count = failed.len();
    match failed.into_iter().next() {
        Some(first) => Err(first.context(format!("{count} runs failed; the first"))),
        None => Ok(complete),
    }
}

/// Where runs lie, and what they run on.
pub struct Place<'a> {
    pub folder: &'a Path,
    pub study: &'a str,
    pub machine: &'a Machine,
    pub stop: &'a AtomicBool,
}

/// Runs what is not done yet, each in a folder of its own, and hands on the scores of each, or why it failed. False: it was
/// stopped.
///
/// # Errors
/// What `done` gives.
pub fn execute_all(
    configs: &[RunConfig],
    place: &Place,
    mut done: impl FnMut(&RunConfig, Result<Vec<Row>>) -> Result<()>,
) -> Result<bool> {
    let mut data: HashMap<String, Dataset> = HashMap::new();
    for (i, config) in configs.iter().enumerate() {
        if group::any(place.stop.load(Ordering::Relaxed))? {
            return Ok(false);
        }
        if group::rank() == 0 {
            eprintln!("[{}/{}] {}", i + 1, configs.len(), config.label());
        }
        let mut run = || {
            if !data.contains_key(&config.data) {
                data.insert(config.data.clone(), selfsup_datasets::load(&config.data, &place.machine.data_root)?);
            }
            let path = place.folder.join(config.run_id()?);
            let folder = Folder { path: &path, study: place.study, resume: true };
            execute(config, &data[&config.data], place.machine, &folder, place.stop)
        };
        match run().with_context(|| format!("{} seed {}", config.name(), config.seed)) {
            Ok(End::Done(scores)) => done(config, Ok(scores))?,
            Ok(End::Stopped) => return Ok(false),
            Err(why) => done(config, Err(why))?,
        }
    }
    Ok(true)
}
