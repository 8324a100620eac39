//! The configuration of a run: defaults, then a preset, then files, then `key=value`; resolved, checked and written
//! out in full.

use crate::preset;
use crate::registry::{self, RANDOM, SUPERVISED, did_you_mean};
use anyhow::{Context, Result, bail, ensure};
use selfsup_core::augment::{Crop, Jitter, Recipe};
use selfsup_core::check::not_negative;
use selfsup_core::encoder::EncoderConfig;
use selfsup_evaluate::{Finetune, Knn, Linear, Ridge};
use selfsup_train::TrainConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

/// All that decides the numbers of a run, but for the device and the number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    pub seed: u64,
    /// The data set, as `selfsup data list` names it.
    pub data: String,
    pub encoder: EncoderConfig,
    /// Height and width of full-size views; 0: those of the data set.
    pub size: usize,
    /// The run whose tokenizer a two-stage method uses: its folder, or METHOD/PRESET, which is then trained first on the
    /// same data; empty: none.
    pub tokenizer: String,
    /// The safetensors file whose weights the encoder starts with, under the names of torchvision (ResNet), timm (ViT) or
    /// an export; empty: its own initial values.
    // Not written where it is empty: configurations without it keep the hash that they had before there was such a key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start: String,
    /// What to call this configuration beside its method's name, where a study has several; may be empty.
    pub variant: String,
    /// The method's `name` and its own settings.
    pub method: Table,
    /// A second loss on the features of the method's encoder: `name` (augself), `weight` and its own settings; empty:
    /// none.
    pub auxiliary: Table,
    pub train: TrainConfig,
    pub evaluate: EvaluateConfig,
    /// In place of the method's own augmentation table; empty: the method's own.
    pub views: Vec<Recipe>,
}

/// How a run is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Of [`PROTOCOLS`].
    pub protocols: Vec<String>,
    /// Epochs between two looks at the features of training images while training; 0: never.
    pub online_every: u64,
    pub knn: Knn,
    pub linear: Linear,
    /// Also how the supervised encoder is trained, from scratch and with all labels.
    pub finetune: Finetune,
    /// The shares of labels that `finetune` is run with.
    pub fractions: Vec<f64>,
    /// Protocol `layers` takes the means over this many parts a side of a layer's map; 1: over the whole of it.
    pub layer_grid: i64,
    pub augmentation: Augmented,
}

/// Protocol `augmentation`: what is done to images, and how features are asked what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmented {
    pub recipe: Recipe,
    pub ridge: Ridge,
}

impl Default for Augmented {
    /// The views of MoCo v2 and SimSiam, always jittered, neither grey nor blurred, which would hide what is asked.
    fn default() -> Augmented {
        let recipe = Recipe {
            crop: Some(Crop { scale: [0.2, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }),
            flip: 0.5,
            jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 1.0 }),
            ..Recipe::default()
        };
        Augmented { recipe, ridge: Ridge::default() }
    }
}

/// What `evaluate.protocols` may hold.
pub const PROTOCOLS: [&str; 8] =
    ["knn", "linear", "finetune", "geometry", "pretext", "layers", "augmentation", "generated"];

impl Default for EvaluateConfig {
    fn default() -> EvaluateConfig {
        EvaluateConfig {
            protocols: ["knn", "linear", "geometry", "pretext"].map(String::from).into(),
            online_every: 1,
            knn: Knn::default(),
            linear: Linear::default(),
            finetune: Finetune::default(),
            fractions: vec![1.0, 0.1, 0.01],
            layer_grid: 1,
            augmentation: Augmented::default(),
        }
    }
}

impl Default for RunConfig {
    fn default() -> RunConfig {
        RunConfig {
            seed: 0,
            data: "fashion-mnist-10k".into(),
            encoder: EncoderConfig::ConvNet { tiny: false },
            size: 0,
            tokenizer: String::new(),
            start: String::new(),
            variant: String::new(),
            method: Table::new(),
            auxiliary: Table::new(),
            train: TrainConfig::default(),
            evaluate: EvaluateConfig::default(),
            views: Vec::new(),
        }
    }
}

impl RunConfig {
    /// The configuration of `method` (`simclr` or `simclr/PRESET`; `random` and `supervised` too), changed by `layers`
    /// in their order.
    ///
    /// # Errors
    /// If a key is unknown (the message names the nearest), or a value cannot be used.
    pub fn resolve(method: &str, layers: &[Table]) -> Result<RunConfig> {
        let (name, chosen) = method.split_once('/').map_or((method, None), |(name, preset)| (name, Some(preset)));
        let baseline = name == RANDOM || name == SUPERVISED;
        let mut table = Table::try_from(RunConfig::default())?;
        // Known, though not written where they are the defaults.
        table.insert("start".into(), String::new().into());
        if let Some(Value::Table(train)) = table.get_mut("train") {
            train.insert("batch_norm".into(), "sync".into());
        }
        let mut settings = if baseline { Table::new() } else { (registry::find(name)?.defaults)()? };
        settings.insert("name".into(), name.into());
        table.insert("method".into(), settings.into());
        if let Some(chosen) = chosen {
            merge(&mut table, &preset::find(name, chosen)?, "")?;
        }
        for layer in layers {
            merge(&mut table, layer, "")?;
        }
        let read: Result<RunConfig, toml::de::Error> = table.try_into();
        let mut config = read.map_err(|error| one_line(&error)).context("in the configuration")?;
        ensure!(config.name() == name, "`method.name` is {}, but {name} was asked for", config.name());
        if !baseline {
            let mut settings = config.method.clone();
            settings.remove("name");
            let mut full = (registry::find(name)?.resolve)(&settings)?;
            full.insert("name".into(), name.into());
            config.method = full;
        }
        if !config.auxiliary.is_empty() {
            ensure!(!baseline, "`auxiliary` is a second loss, but {name} is trained by no method: leave it out");
            config.auxiliary = Auxiliary::read(&config.auxiliary).and_then(|a| a.full()).context("in `auxiliary`")?;
        }
        config.check()?;
        Ok(config)
    }

    /// This configuration with other settings of its evaluation.
    ///
    /// # Errors
    /// If a key is unknown or not of `evaluate`, or a value cannot be used.
    pub fn judged_by(&self, layers: &[Table]) -> Result<RunConfig> {
        let mut table = Table::try_from(self)?;
        for layer in layers {
            if let Some(key) = layer.keys().find(|key| *key != "evaluate") {
                bail!("`{key}` made this run what it is; only keys below `evaluate` can be given to `eval`");
            }
            merge(&mut table, layer, "")?;
        }
        let read: Result<RunConfig, toml::de::Error> = table.try_into();
        let config = read.map_err(|error| one_line(&error)).context("in the configuration")?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        self.train.check()?;
        for recipe in &self.views {
            recipe.check().context("in `views`")?;
        }
        for protocol in &self.evaluate.protocols {
            ensure!(
                PROTOCOLS.contains(&protocol.as_str()),
                "unknown protocol `{protocol}`{}; there are {}",
                did_you_mean(protocol, PROTOCOLS.into_iter()),
                PROTOCOLS.join(", ")
            );
        }
        let EvaluateConfig { knn, linear, finetune, fractions, augmentation, .. } = &self.evaluate;
        knn.check().context("in `evaluate.knn`")?;
        linear.check().context("in `evaluate.linear`")?;
        augmentation.ridge.check().context("in `evaluate.augmentation.ridge`")?;
        for &fraction in fractions {
            Finetune { fraction, ..finetune.clone() }
                .check()
                .context("in `evaluate.finetune` or `evaluate.fractions`")?;
        }
        finetune.check().context("in `evaluate.finetune`")?;
        let grid = self.evaluate.layer_grid;
        ensure!(grid >= 1, "`evaluate.layer_grid` is {grid}; expected at least 1 part a side");
        self.evaluate.augmentation.recipe.check().context("in `evaluate.augmentation.recipe`")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || " -_.=+/%".contains(c);
        ensure!(
            self.variant.len() <= 40 && self.variant.chars().all(plain),
            "`variant` may hold 40 letters, digits, blanks and - _ . = + / %, but is `{}`",
            self.variant
        );
        ensure!(
            self.start.is_empty() || !self.variant.is_empty() || ![RANDOM, SUPERVISED].contains(&self.name()),
            "{} is the reference of a comparison, and with `start` it is another row: name that row by `variant`",
            self.name()
        );
        ensure!(self.seed <= i64::MAX as u64, "`seed` must be below 2^63");
        if let Ok(entry) = registry::find(self.name()) {
            ensure!(
                self.train.batch >= entry.min_batch,
                "the loss of {} needs a batch of at least {}, but `train.batch` is {}",
                entry.name,
                entry.min_batch,
                self.train.batch
            );
        }
        Ok(())
    }

    /// The method's name.
    pub fn name(&self) -> &str {
        self.method.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// What a reader knows it by: method, variant, encoder and seed.
    pub fn label(&self) -> String {
        let variant = if self.variant.is_empty() { String::new() } else { format!(" ({})", self.variant) };
        format!("{}{variant} {} seed {}", self.name(), self.encoder, self.seed)
    }

    /// The method's own settings.
    pub fn settings(&self) -> Table {
        self.method.iter().filter(|(key, _)| *key != "name").map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// The second loss, where there is one.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn auxiliary(&self) -> Result<Option<Auxiliary>> {
        (!self.auxiliary.is_empty()).then(|| Auxiliary::read(&self.auxiliary).context("in `auxiliary`")).transpose()
    }

    /// The configuration as TOML, all defaults written out.
    ///
    /// # Errors
    /// If a value has no TOML form.
    pub fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string_pretty(self)?)
    }

    /// Eight hexadecimal digits of the hash of everything but the seed: equal for the seeds of one configuration.
    ///
    /// # Errors
    /// If a value has no TOML form.
    pub fn hash(&self) -> Result<String> {
        let text = RunConfig { seed: 0, ..self.clone() }.to_toml()?;
        Ok(Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect())
    }

    /// The name of the run's folder.
    ///
    /// # Errors
    /// If a value has no TOML form.
    pub fn run_id(&self) -> Result<String> {
        let data: String = self.data.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '-' }).collect();
        Ok(format!("{}-{}-s{}-{}", self.name(), data.trim_matches('-'), self.seed, self.hash()?))
    }
}

/// A second loss on the features of a method's encoder: `auxiliary` of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Auxiliary {
    /// By what its loss is multiplied.
    pub weight: f64,
    /// Its other keys: those of the method of its name.
    pub settings: Table,
}

impl Auxiliary {
    /// The only one there is.
    const NAME: &str = "augself";

    fn read(table: &Table) -> Result<Auxiliary> {
        let mut settings = table.clone();
        let name = settings.remove("name").unwrap_or_else(|| "nothing".into());
        ensure!(
            name.as_str() == Some(Auxiliary::NAME),
            "`auxiliary.name` is {name}; expected \"{}\", the only loss that can stand beside another",
            Auxiliary::NAME
        );
        let weight = match settings.remove("weight") {
            None => 1.0,
            Some(Value::Integer(weight)) => weight as f64,
            Some(Value::Float(weight)) => weight,
            Some(other) => bail!("`auxiliary.weight` must be a number, but is {other}"),
        };
        not_negative("weight", weight)?;
        let known = (registry::find(Auxiliary::NAME)?.defaults)()?;
        if let Some(key) = settings.keys().find(|key| !known.contains_key(*key)) {
            let keys: Vec<&str> = ["name", "weight"].into_iter().chain(known.keys().map(String::as_str)).collect();
            bail!(
                "unknown key `auxiliary.{key}`{}; there are {}",
                did_you_mean(key, keys.iter().copied()),
                keys.join(", ")
            );
        }
        Ok(Auxiliary { weight, settings: (registry::find(Auxiliary::NAME)?.resolve)(&settings)? })
    }

    fn full(self) -> Result<Table> {
        let mut table = self.settings;
        table.insert("name".into(), Auxiliary::NAME.into());
        table.insert("weight".into(), self.weight.into());
        Ok(table)
    }
}

/// A TOML error on one line.
pub fn one_line(error: &toml::de::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Tables whose keys depend on a `name` in them: a table that names another replaces the whole.
fn chosen_by_name(path: &str) -> bool {
    path.ends_with("optimiser") || path == "train.schedule" || path == "auxiliary"
}

/// Puts `layer` over `table`, key by key.
///
/// # Errors
/// If a key is unknown at its place.
pub fn merge(table: &mut Table, layer: &Table, prefix: &str) -> Result<()> {
    for (key, value) in layer {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let optional = prefix.ends_with("recipe");
        match (table.get_mut(key), value) {
            (Some(Value::Table(_)), Value::Table(new)) if chosen_by_name(&path) && new.contains_key("name") => {
                table.insert(key.clone(), value.clone());
            }
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new, &path)?,
            (Some(old), new) => {
                ensure!(
                    old.same_type(new) || (old.is_float() && new.is_integer()),
                    "`{path}` must be {}, but is {new}",
                    a_kind(old)
                );
                let number = new.as_integer().filter(|_| old.is_float()).map(|n| Value::Float(n as f64));
                *old = number.unwrap_or_else(|| new.clone());
            }
            (None, _) if optional || chosen_by_name(prefix) => {
                table.insert(key.clone(), value.clone());
            }
            (None, _) => {
                let known: Vec<&str> = table.keys().map(String::as_str).collect();
                let place = if prefix.is_empty() { "at the top".into() } else { format!("in `{prefix}`") };
                bail!(
                    "unknown key `{path}`{}; {place} there are {}",
                    did_you_mean(key, known.iter().copied()),
                    known.join(", ")
                );
            }
        }
    }
    Ok(())
}

fn a_kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
        Value::Datetime(_) => "a date",
    }
}

/// Parts of the longest key: there are four in `evaluate.augmentation.recipe.crop.scale`, and room for more.
const DEEPEST: usize = 8;

/// `a.b=value` as a table. The value is TOML; what is not, is a text.
///
/// # Errors
/// If there is no `=`, or no key before it.
pub fn parse_override(text: &str) -> Result<Table> {
    let (key, value) = text.split_once('=').with_context(|| format!("`{text}`: expected key=value"))?;
    ensure!(!key.is_empty() && key.split('.').all(|part| !part.is_empty()), "`{text}`: expected key=value");
    // No key has as many, and tables inside tables without end would overflow the stack.
    ensure!(key.split('.').count() <= DEEPEST, "`{key}`: expected a key of at most {DEEPEST} parts");
    let value = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let mut value = value.unwrap_or_else(|| Value::String(text[key.len() + 1..].into()));
    for part in key.split('.').rev() {
        value = Value::Table(Table::from_iter([(part.to_string(), value)]));
    }
    match value {
        Value::Table(table) => Ok(table),
        _ => unreachable!("a key has at least one part"),
    }
}

/// The keys whose values differ, as `key: a here, b there`.
pub fn differences(here: &Table, there: &Table) -> Vec<String> {
    fn flatten(table: &Table, prefix: &str, into: &mut std::collections::BTreeMap<String, String>) {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(table) => flatten(table, &path, into),
                value => drop(into.insert(path, value.to_string())),
            }
        }
    }
    let (mut a, mut b) = Default::default();
    flatten(here, "", &mut a);
    flatten(there, "", &mut b);
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let text = |x: Option<&String>| x.cloned().unwrap_or_else(|| "nothing".into());
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| format!("{key}: {} here, {} there", text(a.get(key)), text(b.get(key))))
        .collect()
}
