//! Claims of papers and surveys as experiments: arms to run, rules fixed in advance, verdicts.

mod list;

pub use list::CLAIMS;

use crate::config::{RunConfig, one_line};
use crate::message;
use crate::registry::{RANDOM, SUPERVISED, did_you_mean};
use crate::study::{Place, execute_all, overlay, take_name};
use anyhow::{Context, Result, bail, ensure};
use list::SETTINGS;
use selfsup_report::claims::{self, LOOKS, Verdict};
use selfsup_report::file::write_whole;
use selfsup_report::html::Page;
use selfsup_report::metrics;
use selfsup_report::results::{self, Row, Status};
use selfsup_report::statistics::spearman;
use selfsup_report::table::Listing;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Table;

/// What a claim costs: minutes on two cores with bundled data, hours on them, or a GPU.
pub const CLASSES: [&str; 3] = ["minutes", "hours", "gpu"];

/// A claim file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The name of its file.
    #[serde(skip)]
    pub id: String,
    /// What `selfsup claim` calls it: its name, or the file it was read from.
    #[serde(skip)]
    name: String,
    /// What is claimed, in one sentence.
    pub statement: String,
    /// Paper and table, figure or section, or the survey.
    pub source: String,
    /// The numbers that were published.
    pub published: String,
    /// How far they are trusted: what was read where.
    pub trust: String,
    /// Of [`CLASSES`]; runs of a class share the settings of `claims/settings.toml`.
    pub class: String,
    /// Of its first look; a second takes as many more.
    pub seeds: Vec<u64>,
    /// Changes to the configuration of every arm.
    #[serde(default)]
    pub common: Table,
    /// `name`, and a run as in a study file.
    arms: Vec<Table>,
    rules: Vec<Rule>,
}

/// What has to be seen, fixed before anything is run.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RuleTable")]
enum Rule {
    /// `metric` of `more`, less `times` `than_metric` of `than`, is at least `by`.
    Difference { metric: String, more: Side, than: Side, than_metric: Option<String>, times: f64, by: f64 },
    /// Spearman's rank correlation of `metric` with the order in which the arms are listed is at least `by`.
    Trend { metric: String, rising: Vec<String>, by: f64 },
}

/// A rule as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    metric: String,
    more: Option<Side>,
    than: Option<Side>,
    /// None: that of `more`.
    than_metric: Option<String>,
    #[serde(default = "one")]
    times: f64,
    #[serde(default)]
    by: f64,
    #[serde(default)]
    rising: Vec<String>,
}

impl TryFrom<RuleTable> for Rule {
    type Error = &'static str;

    fn try_from(rule: RuleTable) -> Result<Rule, &'static str> {
        let RuleTable { metric, more, than, than_metric, times, by, rising } = rule;
        let apart: HashSet<&String> = rising.iter().collect();
        if apart.len() < rising.len() {
            return Err("`rising` has one arm twice");
        }
        if !rising.is_empty() && (times != 1.0 || than_metric.is_some()) {
            return Err("`times` and `than_metric` belong to `more` and `than`, not to `rising`");
        }
        match (more, than, rising.len()) {
            (Some(Side::Number(_)), Some(Side::Number(_)), _) => Err("a rule compares two numbers: one must be an arm"),
            (Some(more), Some(than), 0) => Ok(Rule::Difference { metric, more, than, than_metric, times, by }),
            (None, None, 3..) => Ok(Rule::Trend { metric, rising, by }),
            _ => Err("a rule has `more` and `than`, or `rising` with three arms or more"),
        }
    }
}

fn one() -> f64 {
    1.0
}

/// An arm, or a number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Side {
    Number(f64),
    Arm(String),
}

/// An arm resolved: its name and the configuration of each seed of both looks.
struct Arm {
    name: String,
    configs: Vec<RunConfig>,
}

/// The claim of this name, or in this file.
///
/// # Errors
/// If there is none, or it cannot be used.
pub fn find(name: &str) -> Result<Claim> {
    if name.ends_with(".toml") {
        let text = fs::read_to_string(name).with_context(|| format!("{name}: could not be read; expected a claim"))?;
        let id = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let claim = read(&id, &text).with_context(|| name.to_string())?;
        return Ok(Claim { name: name.into(), ..claim });
    }
    let known = CLAIMS.iter().find(|(id, _)| *id == name);
    let (id, text) = known.with_context(|| {
        let hint = did_you_mean(name, CLAIMS.iter().map(|c| c.0));
        format!("there is no claim `{name}`{hint}; `selfsup claim --list` shows them all")
    })?;
    read(id, text).with_context(|| format!("in the claim {id}"))
}

/// All claims, in the order of their list; of one class, if asked for.
///
/// # Errors
/// If there is no such class, or a claim cannot be used.
pub fn all(class: Option<&str>) -> Result<Vec<Claim>> {
    if let Some(class) = class {
        let hint = did_you_mean(class, CLASSES.into_iter());
        ensure!(CLASSES.contains(&class), "there is no class `{class}`{hint}; there are {}", CLASSES.join(", "));
    }
    let claims = CLAIMS.iter().map(|(id, text)| read(id, text).with_context(|| format!("in the claim {id}")));
    claims.filter(|claim| claim.as_ref().map_or(true, |c| class.is_none_or(|class| c.class == class))).collect()
}

fn read(id: &str, text: &str) -> Result<Claim> {
    let mut claim: Claim = toml::from_str(text).map_err(|error| one_line(&error))?;
    (claim.id, claim.name) = (id.into(), id.into());
    ensure!(
        CLASSES.contains(&claim.class.as_str()),
        "`class` is {}; expected one of {}",
        claim.class,
        CLASSES.join(", ")
    );
    ensure!(!claim.seeds.is_empty() && !claim.rules.is_empty(), "expected at least one seed and one rule");
    let different: HashSet<&u64> = claim.seeds.iter().collect();
    ensure!(different.len() == claim.seeds.len(), "`seeds` has one seed twice, which would count as two");
    let arms = claim.arms()?;
    let used: Vec<(String, String)> = claim.rules.iter().flat_map(Rule::used).collect();
    for (name, metric) in &used {
        let hint = did_you_mean(name, arms.iter().map(|arm| arm.name.as_str()));
        let arm = arms.iter().find(|arm| arm.name == *name);
        let arm = arm.with_context(|| format!("a rule names the arm `{name}`, which there is not{hint}"))?;
        arm.check(metric).with_context(|| format!("the metric `{metric}` of the arm `{name}`"))?;
    }
    let idle = arms.iter().find(|arm| used.iter().all(|(name, _)| *name != arm.name));
    ensure!(idle.is_none(), "no rule looks at the arm `{}`", idle.map_or("", |arm| &arm.name));
    Ok(claim)
}

impl Arm {
    /// Refuses a metric that its runs do not give, as far as that can be told before they are run.
    fn check(&self, metric: &str) -> Result<()> {
        let (protocol, name) = metric.split_once('.').context("expected PROTOCOL.METRIC, run.seconds or log.METRIC")?;
        let config = &self.configs[0];
        let asked = |protocol: &str| config.evaluate.protocols.iter().any(|p| p == protocol);
        ensure!(
            match protocol {
                "run" => name == "seconds",
                "log" => true,
                "embedding" => asked("geometry"),
                "finetune" => asked(protocol) || config.name() == SUPERVISED,
                _ => asked(protocol),
            },
            "its runs are judged by {}: add what is missing to `evaluate.protocols`",
            config.evaluate.protocols.join(", ")
        );
        Ok(())
    }
}

impl Claim {
    /// The seeds of its first look, and as many more for a second where those decide nothing.
    fn every_seed(&self) -> Vec<u64> {
        let next = self.seeds.iter().max().map_or(0, |last| last + 1);
        self.seeds.iter().copied().chain((next..).take(self.seeds.len())).collect()
    }

    fn arms(&self) -> Result<Vec<Arm>> {
        let settings: Table = SETTINGS.parse().context("in claims/settings.toml")?;
        let mut common = match settings.get(&self.class) {
            Some(toml::Value::Table(table)) => table.clone(),
            _ => Table::new(),
        };
        overlay(&mut common, &self.common);
        let mut arms: Vec<Arm> = Vec::new();
        for arm in &self.arms {
            let mut arm = arm.clone();
            let name = arm.remove("name").and_then(|name| Some(name.as_str()?.to_owned()));
            let name = name.context("an arm has no `name`")?;
            let method = take_name(&mut arm).with_context(|| format!("the arm `{name}` has no `method`"))?;
            ensure!(arms.iter().all(|other| other.name != name), "two arms are called `{name}`");
            let config = RunConfig::resolve(&method, &[common.clone(), arm]);
            let config = config.with_context(|| format!("in the arm `{name}`"))?;
            let configs = self.every_seed().into_iter().map(|seed| RunConfig { seed, ..config.clone() }).collect();
            arms.push(Arm { name, configs });
        }
        Ok(arms)
    }

    /// The configurations of the runs of its first look and of its second, seed by seed.
    ///
    /// # Errors
    /// If one cannot be resolved.
    pub fn runs(&self) -> Result<[Vec<RunConfig>; LOOKS]> {
        let (arms, n) = (self.arms()?, self.seeds.len());
        let of = |seeds: Range<usize>| seeds.flat_map(|seed| arms.iter().map(move |arm| arm.configs[seed].clone()));
        Ok([of(0..n).collect(), of(n..2 * n).collect()])
    }

    /// What the runs say of it; none while one of its first look has not been run.
    fn found(&self, runs: &Runs) -> Result<Option<claims::Claim>> {
        let (arms, n) = (self.arms()?, self.seeds.len());
        let ended = |n: usize| arms.iter().flat_map(|arm| &arm.configs[..n]).all(|config| runs.of(config).is_some());
        let looks: Vec<usize> = [n, 2 * n].into_iter().take_while(|&n| ended(n)).collect();
        let Some(&seeds) = looks.last() else { return Ok(None) };
        let every_seed = self.every_seed();
        let mut notes: Vec<String> = Vec::new();
        let mut value = |arm: &str, metric: &str, seed: usize| -> Option<f64> {
            let arm = arms.iter().find(|a| a.name == arm).expect("rules name arms that there are");
            let found = runs.value(&arm.configs[seed], metric);
            let why = found.as_ref().err().map(|why| format!("`{}`, seed {}: {why:#}.", arm.name, every_seed[seed]));
            notes.extend(why.filter(|why| !notes.contains(why)));
            found.ok()
        };
        let mut rules = Vec::new();
        let mut scores: Vec<(String, String, Vec<f64>)> = Vec::new();
        for rule in &self.rules {
            let of_seed = |seed| rule.difference(|arm, metric| value(arm, metric, seed));
            let differences = (0..seeds).map(of_seed).collect();
            rules.push(claims::Rule { text: rule.text(), by: rule.by(), differences, ranked: rule.ranked() });
            for (arm, metric) in rule.used() {
                if scores.iter().all(|(a, m, _)| (a, m) != (&arm, &metric)) {
                    let values = (0..seeds).filter_map(|seed| value(&arm, &metric, seed)).collect();
                    scores.push((arm, metric, values));
                }
            }
        }
        Ok(Some(claims::Claim {
            id: self.id.clone(),
            statement: self.statement.clone(),
            source: self.source.clone(),
            published: format!("{} ({})", self.published, self.trust),
            class: self.class.clone(),
            command: format!("selfsup claim {}", self.name),
            rules,
            looks,
            scores,
            notes,
        }))
    }
}

impl Rule {
    fn by(&self) -> f64 {
        match self {
            Rule::Difference { by, .. } | Rule::Trend { by, .. } => *by,
        }
    }

    /// Over how many arms ranks are correlated, if they are.
    fn ranked(&self) -> Option<usize> {
        match self {
            Rule::Difference { .. } => None,
            Rule::Trend { rising, .. } => Some(rising.len()),
        }
    }

    /// In words and symbols.
    fn text(&self) -> String {
        match self {
            Rule::Trend { metric, rising, by } => format!("{metric}: Spearman over {} ≥ {by}", rising.join(", ")),
            Rule::Difference { metric, more, than, than_metric, times, by } => {
                let side = |side: &Side, metric: Option<&str>| match (side, metric) {
                    (Side::Number(number), _) => number.to_string(),
                    (Side::Arm(arm), None) => arm.clone(),
                    (Side::Arm(arm), Some(metric)) => format!("{arm} ({metric})"),
                };
                let own = than_metric.as_ref().map(|_| metric.as_str());
                let head = if own.is_some() { String::new() } else { format!("{metric}: ") };
                let times = if *times == 1.0 { String::new() } else { format!("{times} × ") };
                format!("{head}{} − {times}{} ≥ {by}", side(more, own), side(than, than_metric.as_deref()))
            }
        }
    }

    /// The arms and metrics that it looks at.
    fn used(&self) -> Vec<(String, String)> {
        match self {
            Rule::Trend { metric, rising, .. } => rising.iter().map(|arm| (arm.clone(), metric.clone())).collect(),
            Rule::Difference { metric, more, than, than_metric, .. } => {
                let than_metric = than_metric.as_ref().unwrap_or(metric);
                let side = |side: &Side, metric: &String| match side {
                    Side::Arm(arm) => Some((arm.clone(), metric.clone())),
                    Side::Number(_) => None,
                };
                side(more, metric).into_iter().chain(side(than, than_metric)).collect()
            }
        }
    }

    /// The difference on one seed; none where a value is missing. Where all arms of a trend are equal nothing rises.
    fn difference(&self, mut value: impl FnMut(&str, &str) -> Option<f64>) -> Option<f64> {
        match self {
            Rule::Trend { metric, rising, .. } => {
                let values = rising.iter().map(|arm| value(arm, metric)).collect::<Option<Vec<f64>>>()?;
                let places: Vec<f64> = (0..rising.len()).map(|i| i as f64).collect();
                Some(spearman(&places, &values).unwrap_or(0.0))
            }
            Rule::Difference { metric, more, than, than_metric, times, .. } => {
                let mut side = |side: &Side, metric: &str| match side {
                    Side::Number(number) => Some(*number),
                    Side::Arm(arm) => value(arm, metric),
                };
                let than_metric = than_metric.as_deref().unwrap_or(metric);
                Some(side(more, metric)? - times * side(than, than_metric)?)
            }
        }
    }
}

/// What came of runs, by their folder's name: their scores, or why there are none.
struct Runs<'a> {
    folder: &'a Path,
    ended: HashMap<String, Result<Vec<Row>, String>>,
}

impl<'a> Runs<'a> {
    /// The runs of these claims that have ended well in this folder.
    fn finished(claims: &[Claim], folder: &'a Path) -> Result<Runs<'a>> {
        let mut ended = HashMap::new();
        for config in runs(claims)? {
            let id = config.run_id()?;
            if folder.join(&id).join("DONE").exists() {
                let rows = results::read(&folder.join(&id).join("results.csv"))?;
                ended.insert(id, Ok(rows));
            }
        }
        Ok(Runs { folder, ended })
    }

    /// What they say of the claims whose runs have ended, each by its place among them.
    fn found(&self, claims: &[Claim]) -> Result<Vec<(usize, claims::Claim)>> {
        let found = |claim: &Claim| claim.found(self).with_context(|| format!("the claim {}", claim.id));
        let found = claims.iter().enumerate().map(|(i, claim)| Ok(found(claim)?.map(|found| (i, found))));
        found.filter_map(Result::transpose).collect()
    }

    /// The runs of all first looks and, of claims that those leave undecided, of second ones.
    fn due(&self, claims: &[Claim]) -> Result<HashSet<String>> {
        let (places, found): (Vec<usize>, Vec<claims::Claim>) = self.found(claims)?.into_iter().unzip();
        let mut looks = vec![1; claims.len()];
        for ((i, found), judged) in places.into_iter().zip(&found).zip(claims::judge(&found)) {
            if judged.verdict == Verdict::Inconclusive && found.is_whole() {
                looks[i] = LOOKS;
            }
        }
        let mut due = HashSet::new();
        for (claim, looks) in claims.iter().zip(looks) {
            for config in claim.runs()?.iter().take(looks).flatten() {
                due.insert(config.run_id()?);
            }
        }
        Ok(due)
    }

    fn of(&self, config: &RunConfig) -> Option<&Result<Vec<Row>, String>> {
        self.ended.get(&config.run_id().ok()?)
    }

    /// `PROTOCOL.METRIC` of results.csv, `run.seconds` of training, or `log.METRIC`, the last that the run logged.
    ///
    /// # Errors
    /// Says why there is none.
    fn value(&self, config: &RunConfig, metric: &str) -> Result<f64> {
        let rows = match self.of(config).context("it has not been run")? {
            Ok(rows) => rows,
            Err(why) => bail!("it failed: {why}"),
        };
        ensure!(rows.iter().all(|row| row.status == Status::Ok), "it diverged");
        let (protocol, name) = metric.split_once('.').unwrap_or(("", metric));
        let value = match protocol {
            "run" => rows.first().map(|row| row.wall_s),
            "log" => {
                let logged = metrics::read(&self.folder.join(config.run_id()?).join("metrics.csv"))?;
                logged.iter().rev().find(|m| m.metric == name).map(|m| m.value)
            }
            _ => rows.iter().find(|row| row.protocol == protocol && row.metric == name).and_then(|row| row.value),
        };
        value.filter(|value| value.is_finite()).with_context(|| format!("it has no finite `{metric}`"))
    }
}

/// The configurations of all runs of these claims, each once: those of all first looks, then those of second ones.
///
/// # Errors
/// If one cannot be resolved.
pub fn runs(claims: &[Claim]) -> Result<Vec<RunConfig>> {
    let looks = claims.iter().map(Claim::runs).collect::<Result<Vec<_>>>()?;
    let mut known = HashSet::new();
    let mut configs = Vec::new();
    for config in (0..LOOKS).flat_map(|look| looks.iter().flat_map(move |runs| &runs[look])) {
        if known.insert(config.run_id()?) {
            configs.push(config.clone());
        }
    }
    Ok(configs)
}

/// The names of the runs that are to be made, done or not, by what has come of those in this folder: those of all first
/// looks and, of claims that those leave undecided, those of second ones.
///
/// # Errors
/// If a configuration cannot be resolved, or a finished run not read.
pub fn due(claims: &[Claim], folder: &Path) -> Result<HashSet<String>> {
    Runs::finished(claims, folder)?.due(claims)
}

/// Verdicts, and what they rest on.
pub struct Judged {
    /// None if no claim has all its runs.
    pub verdicts: Option<(Listing, PathBuf)>,
    /// Whether all runs were done; otherwise they were stopped on request.
    pub complete: bool,
    /// Runs that failed, and why.
    pub failed: Vec<String>,
}

/// Runs what is not done yet of all arms and judges together the claims whose runs are done: first all on their own seeds,
/// then those that these leave undecided on as many more.
///
/// Runs lie in the place's folder by their configuration, so that claims share them; claims.csv, claims.md, claims.html
/// and results.csv in its folder `name`. A run that fails costs the claims that need it their verdict, and no other.
///
/// # Errors
/// If a claim cannot be read, or a file not written.
pub fn judge(wanted: &[Claim], name: &str, place: &Place) -> Result<Judged> {
    let folder = place.folder.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("{}: could not be made", folder.display()))?;
    let mut runs = Runs { folder: place.folder, ended: HashMap::new() };
    let (mut rows, mut failed): (Vec<Row>, Vec<String>) = (Vec::new(), Vec::new());
    let all = self::runs(wanted)?;
    let mut complete = true;
    while complete {
        let due = runs.due(wanted)?;
        let is_left =
            |config: &&RunConfig| config.run_id().is_ok_and(|id| due.contains(&id) && !runs.ended.contains_key(&id));
        let left: Vec<RunConfig> = all.iter().filter(is_left).cloned().collect();
        if left.is_empty() {
            break;
        }
        complete = execute_all(&left, place, |config, end| {
            let end = end.map_err(|why| message::one_line(&why));
            match &end {
                Ok(scores) => rows.extend(scores.iter().cloned()),
                Err(why) => {
                    eprintln!("error: {why}; going on without it");
                    failed.push(why.clone());
                }
            }
            runs.ended.insert(config.run_id()?, end);
            results::write(&folder.join("results.csv"), &rows)
        })?;
    }
    Ok(Judged { verdicts: write(&folder, &runs.found(wanted)?, &rows)?, complete, failed })
}

/// Judges together the claims whose runs are done in `runs_folder`, and runs nothing. It writes what [`judge`] writes.
///
/// # Errors
/// If a claim or a finished run cannot be read, or a file not written.
pub fn judge_what_is_done(wanted: &[Claim], name: &str, runs_folder: &Path) -> Result<Judged> {
    let folder = runs_folder.join(name);
    let runs = Runs::finished(wanted, runs_folder)?;
    let mut rows = Vec::new();
    for config in self::runs(wanted)? {
        rows.extend(runs.of(&config).into_iter().flatten().flatten().cloned());
    }
    let found = runs.found(wanted)?;
    if !found.is_empty() {
        fs::create_dir_all(&folder).with_context(|| format!("{}: could not be made", folder.display()))?;
        results::write(&folder.join("results.csv"), &rows)?;
    }
    Ok(Judged { verdicts: write(&folder, &found, &rows)?, complete: true, failed: Vec::new() })
}

/// Writes claims.csv, claims.md and claims.html; the verdicts, and the path of the page. Nothing of no claims.
fn write(folder: &Path, found: &[(usize, claims::Claim)], rows: &[Row]) -> Result<Option<(Listing, PathBuf)>> {
    if found.is_empty() {
        return Ok(None);
    }
    let found = &found.iter().map(|(_, found)| found.clone()).collect::<Vec<_>>();
    let verdicts = claims::listing(found);
    claims::write(&folder.join("claims.csv"), found)?;
    write_whole(&folder.join("claims.md"), verdicts.markdown().as_bytes())?;
    let judged = claims::judge(found);
    let cards = found.iter().zip(&judged).map(|(claim, judged)| claims::card(claim, judged));
    let of_all = |part: fn(&Row) -> &str| {
        let parts: BTreeSet<&str> = rows.iter().map(part).collect();
        parts.into_iter().collect::<Vec<_>>().join(", ")
    };
    // Of the untrained encoder it is the time of its evaluation.
    let trained = rows.iter().filter(|row| row.method != RANDOM);
    let seconds: HashMap<&str, f64> = trained.map(|row| (row.run_id.as_str(), row.wall_s)).collect();
    let training = format!("{} runs, {:.1} hours together", seconds.len(), seconds.values().sum::<f64>() / 3600.0);
    let page = Page {
        title: "Claims".into(),
        lead:
            "What papers on self-supervised learning claim, run here by rules that were fixed before these runs, and \
               what came of it. A claim that fails at this scale may hold at that of its paper."
                .into(),
        meta: [("commit", of_all(|row| &row.commit)), ("device", of_all(|row| &row.device)), ("training", training)]
            .map(|(name, text)| (name.to_string(), text))
            .into(),
        listings: vec![verdicts.clone()],
        cards_title: "What each rests on".into(),
        cards: cards.collect::<Result<_>>()?,
        links: ["claims.csv", "results.csv"].map(|name| (name.to_string(), name.to_string())).into(),
        rows: rows.to_vec(),
        ..Page::default()
    };
    let path = folder.join("claims.html");
    page.write(&path)?;
    Ok(Some((verdicts, path)))
}
