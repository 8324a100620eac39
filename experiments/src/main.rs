//! The command line.

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use selfsup_core::group::{self, Meeting};
use selfsup_experiments::claim::{Claim, Judged};
use selfsup_experiments::config::{self, PROTOCOLS, RunConfig, parse_override};
use selfsup_experiments::distributed;
use selfsup_experiments::objective::{nine_digits, objective};
use selfsup_experiments::reporting::{Report, methods_csv};
use selfsup_experiments::run::{self, End, Folder, Machine};
use selfsup_experiments::study::{Place, Shard, Study, compare, make};
use selfsup_experiments::weights::Start;
use selfsup_experiments::{claim, estimate, evaluation, features, first_stage, generation, message, preset, registry};
use selfsup_report::results::{self, Row};
use selfsup_report::table::colour_wanted;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use toml::Table;

/// Self-supervised learning, compared honestly.
#[derive(Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct Arguments {
    /// cpu, cuda or cuda:N
    #[arg(long, global = true, default_value = "cpu")]
    device: String,
    /// Threads of LibTorch; 0: one per core, or of several processes on one machine each its share. The bits of a result
    /// depend on it.
    #[arg(long, global = true, default_value_t = 0)]
    threads: usize,
    /// Where data sets lie [default: the variable SELFSUP_DATA, else ./data]
    #[arg(long, global = true)]
    data_root: Option<PathBuf>,
    /// Of several processes that train together: the seconds after which one that is silent counts as lost
    #[arg(long, global = true, default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The methods: name, family, presets, paper
    Methods {
        #[arg(long)]
        csv: bool,
    },
    /// Data sets: list them, fetch one, check one
    Data {
        #[command(subcommand)]
        command: Data,
    },
    /// Train one method and judge its features
    Pretrain {
        /// METHOD or METHOD/PRESET, as in simclr/cpu
        method: String,
        /// Changes to the configuration: key=value, as in train.epochs=20
        overrides: Vec<String>,
        /// A TOML file with changes to the configuration, before the overrides
        #[arg(long)]
        config: Option<PathBuf>,
        /// The run's folder [default: runs/single/METHOD-DATA-sSEED-HASH]
        #[arg(long)]
        out: Option<PathBuf>,
        /// auto: go on from a checkpoint that is there; never: start anew
        #[arg(long, default_value = "auto", value_parser = ["auto", "never"])]
        resume: String,
        /// Print the resolved configuration and the size of the work, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Judge runs again: RUN... [knn|linear|finetune|geometry|layers|augmentation|pretext|generated ...] [evaluate.KEY=VALUE ...]
    ///
    /// With changed settings scores are printed and not written: results.csv holds those of the run's own settings.
    Eval { runs: Vec<String> },
    /// Features of a run's frozen encoder for other tools: [N, D] as .npy with the labels beside, or as .csv
    Features {
        /// The run's folder
        run: PathBuf,
        #[arg(long, default_value = "test", value_parser = ["train", "test"])]
        split: String,
        /// The file to write, NAME.npy (labels go to NAME.labels.npy) or NAME.csv [default: RUN/export/features-SPLIT.npy]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Pictures for captions of your own, by a run that learned to make some (dall-e)
    Generate {
        /// The run's folder
        run: PathBuf,
        /// Each in quotes: "red heart"
        #[arg(required = true)]
        captions: Vec<String>,
        /// The PNG file to write [default: RUN/plots/generated.png]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Methods x seeds from a study file, resumable; ends in results.csv and a report
    Compare {
        study: PathBuf,
        /// Changes to every run: key=value; for the study itself `seeds=[0,1,2]`
        overrides: Vec<String>,
        #[arg(long, default_value = "runs")]
        out: PathBuf,
        #[arg(long, default_value = "auto", value_parser = ["auto", "never"])]
        resume: String,
        /// Print the plan and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Time a step of every run, print how long each would train, and train nothing
        #[arg(long)]
        estimate: bool,
        /// Make only the I-th of N shares of the runs, as in 1/2, and no table; without it the same command makes the table
        #[arg(long, value_name = "I/N", conflicts_with = "estimate")]
        shard: Option<Shard>,
    },
    /// What papers claim, as experiments with verdicts: claims.csv and a page
    Claim {
        /// Names of claims, or a claim file; none: all of the class
        claims: Vec<String>,
        /// Print the claims and do nothing
        #[arg(long)]
        list: bool,
        /// minutes (two cores, bundled data), hours or gpu
        #[arg(long, conflicts_with = "claims")]
        class: Option<String>,
        #[arg(long, default_value = "runs")]
        out: PathBuf,
        /// Print the runs and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Make only the I-th of N shares of the runs, as in 1/2, and judge nothing; without it the same command judges
        #[arg(long, value_name = "I/N")]
        shard: Option<Shard>,
        /// Make no runs: judge the claims whose runs are there
        #[arg(long, conflicts_with_all = ["shard", "dry_run", "list"])]
        judge_only: bool,
    },
    /// Several processes on this machine for one run: `selfsup launch -n 2 -- pretrain simclr/cpu`
    ///
    /// Over several machines take torchrun, or what sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
    Launch {
        /// How many
        #[arg(short = 'n', long, value_name = "N")]
        processes: usize,
        /// What each of them runs: `pretrain ..`, `compare ..`, `eval ..` or `features ..`
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// A method's loss on given embeddings, to hold against any other implementation
    Loss {
        /// METHOD or METHOD/PRESET
        method: String,
        /// A safetensors file: `a` and `b`, [N, D] embeddings before any normalisation, and what the method's page names
        file: PathBuf,
        /// Changes to the method's own settings: key=value, as in temperature=0.5
        overrides: Vec<String>,
        /// Write the gradients `grad_a` and `grad_b` to this safetensors file
        #[arg(long)]
        grad: Option<PathBuf>,
    },
    /// Tables, figures and a page from folders or CSV files of scores
    Report {
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Where to write them [default: the first path's folder]
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Data {
    /// All data sets, and which are there
    List,
    /// Fetch a data set: resumable, checked by its sums
    Get { name: String },
    /// Check the files of a data set
    Verify { name: String },
}

fn main() -> ExitCode {
    // A fault inside LibTorch comes as a panic with pages of C++; one line of it tells what happened.
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("no message");
        if text.contains("Broken pipe") {
            std::process::exit(141); // the reader has seen enough, as in `selfsup methods | head`: what SIGPIPE leaves
        }
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or(text);
        // No fault of the program, and nothing that it could have known before.
        if ["can't allocate memory", "not enough memory", "out of memory"].iter().any(|words| text.contains(words)) {
            eprintln!("error: there is too little memory: take a smaller batch, image or network ({first})");
            std::process::exit(1);
        }
        let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
        eprintln!("internal error{place}: {first}. This is a fault of the program; please report it");
    }));
    match work(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", message::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// A flag that Ctrl-C or SIGTERM sets; a second one ends the program at once.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// The exit code of a run that was stopped on request: what `kill -INT` leaves behind.
const STOPPED: u8 = 130;

fn work(arguments: Arguments) -> Result<ExitCode> {
    let timeout = Duration::from_secs(arguments.timeout);
    let machine = || Machine::new(&arguments.device, arguments.threads, arguments.data_root.as_deref());
    match arguments.command {
        Command::Methods { csv } => print_methods(csv)?,
        Command::Data { command } => data(command, arguments.data_root.as_deref())?,
        Command::Pretrain { ref method, ref overrides, ref config, ref out, ref resume, dry_run } => {
            let layers = layers(config.as_deref(), overrides)?;
            let config = RunConfig::resolve(method, &layers)?;
            ensure!(
                ![registry::RANDOM, registry::SUPERVISED].contains(&config.name()),
                "`{}` is a row of every comparison, not a method to pretrain",
                config.name()
            );
            if dry_run {
                return plan(&config, &machine()?, distributed::meeting(timeout)?);
            }
            // CUDA is loaded before anything else touches LibTorch.
            let machine = machine()?;
            return distributed::together(timeout, || pretrain(&config, &machine, out.as_deref(), resume == "auto"));
        }
        Command::Eval { ref runs } => {
            let machine = machine()?;
            distributed::together(timeout, || eval(runs, &machine))?;
        }
        Command::Launch { processes, ref command } => {
            let own = ["--device", &arguments.device, "--timeout", &arguments.timeout.to_string()].map(String::from);
            let threads = ["--threads".to_string(), arguments.threads.to_string()];
            let root = arguments.data_root.iter().flat_map(|root| ["--data-root".into(), root.display().to_string()]);
            let all: Vec<String> = own.into_iter().chain(threads).chain(root).chain(command.iter().cloned()).collect();
            return Ok(ExitCode::from(distributed::launch(processes, &all, &*stop_flag()?)?));
        }
        Command::Features { ref run, ref split, ref out } => {
            let machine = machine()?;
            for path in distributed::together(timeout, || features::write(run, split, out.as_deref(), &machine))? {
                println!("{}", path.display());
            }
        }
        Command::Generate { ref run, ref captions, ref out } => {
            distributed::alone("generate")?;
            println!("{}", generation::draw(run, captions, out.as_deref(), &machine()?)?.display());
        }
        Command::Compare { ref study, ref overrides, ref out, ref resume, dry_run, estimate, shard } => {
            let study = Study::read(study, &layers(None, overrides)?)?;
            if estimate {
                self::estimate(&study, &machine()?)?;
                return Ok(ExitCode::SUCCESS);
            }
            if dry_run || shard.is_some() {
                distributed::alone("a share of the runs")?;
                let place = (out.join(&study.name), study.name.as_str());
                return part(shared(study.runs()?, shard)?, dry_run, place, resume == "auto", machine);
            }
            let (stop, machine) = (stop_flag()?, machine()?);
            return distributed::together(timeout, || {
                let compared = compare(&study, out, &machine, resume == "auto", &stop)?;
                if group::rank() == 0 {
                    print_tables(&compared.report);
                    println!("{}", compared.folder.join("results.csv").display());
                    println!("{}", compared.folder.join("report.html").display());
                }
                Ok(if compared.complete { ExitCode::SUCCESS } else { stopped("") })
            });
        }
        Command::Claim { ref claims, list, ref class, ref out, dry_run, shard, judge_only } => {
            ensure!(
                list || class.is_some() || !claims.is_empty(),
                "which claim? give names, or --class minutes for all of a class; `selfsup claim --list` shows them"
            );
            let mut names: Vec<&String> = Vec::new();
            claims.iter().for_each(|name| {
                if !names.contains(&name) {
                    names.push(name)
                }
            });
            let wanted = match names.as_slice() {
                [] => claim::all(class.as_deref())?,
                names => names.iter().map(|name| claim::find(name)).collect::<Result<Vec<_>>>()?,
            };
            if list {
                for claim in &wanted {
                    println!("{:38} {:8} {}", claim.id, claim.class, claim.statement);
                }
                return Ok(ExitCode::SUCCESS);
            }
            if dry_run || shard.is_some() {
                let (folder, mut configs) = (out.join("claims"), Vec::new());
                let due = claim::due(&wanted, &folder)?;
                // Shared before they are chosen: what is due changes while other processes work at their shares.
                for config in shared(claim::runs(&wanted)?, shard)? {
                    if due.contains(&config.run_id()?) {
                        configs.push(config);
                    }
                }
                if dry_run {
                    eprintln!("a claim that its first seeds leave undecided takes as many runs again");
                }
                return part(configs, dry_run, (folder, "claims"), true, machine);
            }
            distributed::alone("a claim")?;
            let (folder, name) = (out.join("claims"), claims_folder(&wanted, class.as_deref()));
            if judge_only {
                let judged = claim::judge_what_is_done(&wanted, name, &folder)?;
                ensure!(
                    judged.verdicts.is_some(),
                    "{}: no claim has all its runs here; without --judge-only they are made",
                    folder.display()
                );
                return told(judged, &folder.join(name));
            }
            let (stop, machine) = (stop_flag()?, machine()?);
            let place = Place { folder: &folder, study: "claims", machine: &machine, stop: &stop };
            return told(claim::judge(&wanted, name, &place)?, &folder.join(name));
        }
        Command::Loss { ref method, ref file, ref overrides, ref grad } => {
            let _machine = machine()?;
            let found = objective(method, file, &layers(None, overrides)?)?;
            if let Some(path) = grad {
                found.write(path)?;
            }
            if !found.unused.is_empty() {
                eprintln!("not read by {method}: {}", found.unused.join(", "));
            }
            println!("loss {}", nine_digits(found.loss));
        }
        Command::Report { ref paths, ref out } => {
            let report = Report::read(paths)?;
            let folder = |path: &PathBuf| {
                if path.is_dir() { path.clone() } else { path.parent().unwrap_or(Path::new(".")).to_path_buf() }
            };
            let places: Vec<PathBuf> = paths.iter().map(folder).collect();
            let out = out.clone().unwrap_or_else(|| places[0].clone());
            let page = report.write(&out, &places)?;
            print_tables(&report);
            println!("{}", page.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn layers(config: Option<&Path>, overrides: &[String]) -> Result<Vec<Table>> {
    let mut layers = Vec::new();
    if let Some(path) = config {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: could not be read", path.display()))?;
        let table: Result<Table, toml::de::Error> = text.parse();
        layers.push(table.map_err(|error| config::one_line(&error)).with_context(|| path.display().to_string())?);
    }
    for text in overrides {
        layers.push(parse_override(text)?);
    }
    Ok(layers)
}

/// All runs, or a share of them.
fn shared(configs: Vec<RunConfig>, shard: Option<Shard>) -> Result<Vec<RunConfig>> {
    match shard {
        Some(shard) => shard.share(configs),
        None => Ok(configs),
    }
}

/// Makes runs, or prints them; `place` is their folder and the name of their study.
fn part(
    configs: Vec<RunConfig>,
    dry_run: bool,
    place: (PathBuf, &str),
    resume: bool,
    machine: impl FnOnce() -> Result<Machine>,
) -> Result<ExitCode> {
    if dry_run {
        for config in configs {
            println!("{} {}", config.run_id()?, config.label());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (stop, (folder, study)) = (stop_flag()?, place);
    let machine = machine()?;
    let place = Place { folder: &folder, study, machine: &machine, stop: &stop };
    if !make(&configs, &place, resume)? {
        eprintln!("stopped; the same command goes on from here");
        return Ok(ExitCode::from(STOPPED));
    }
    println!("{} runs are done; once all shares are, the same command without --shard makes the tables", configs.len());
    Ok(ExitCode::SUCCESS)
}

/// The folder of claims' verdicts: named after their class, or the claim where there is one.
fn claims_folder<'a>(wanted: &'a [Claim], class: Option<&'a str>) -> &'a str {
    match (class, wanted) {
        (Some(class), _) => class,
        (None, [only]) => &only.id,
        (None, _) => "chosen",
    }
}

/// Prints verdicts on claims and where they lie.
fn told(judged: Judged, folder: &Path) -> Result<ExitCode> {
    if let Some((verdicts, page)) = judged.verdicts {
        print!("{}", verdicts.terminal(terminal_width()));
        println!("{}", folder.join("claims.csv").display());
        println!("{}", page.display());
    }
    if !judged.complete {
        eprintln!("stopped; the same command goes on from here");
        return Ok(ExitCode::from(STOPPED));
    }
    ensure!(judged.failed.is_empty(), "{} runs failed; the first: {}", judged.failed.len(), judged.failed[0]);
    Ok(ExitCode::SUCCESS)
}

/// Prints how long the runs of a study would train on this machine.
fn estimate(study: &Study, machine: &Machine) -> Result<()> {
    let mut known: HashMap<String, Option<f64>> = HashMap::new();
    let mut all = 0.0;
    for config in study.runs()? {
        let hash = config.hash()?;
        if !known.contains_key(&hash) {
            let dataset = selfsup_datasets::load(&config.data, &machine.data_root)?;
            let seconds = estimate::training_seconds(&config, &dataset, machine);
            known.insert(hash.clone(), seconds.with_context(|| format!("in {}", config.name()))?);
        }
        if let Some(seconds) = known[&hash] {
            println!("{} {}: {}", config.run_id()?, config.label(), duration(seconds));
            all += seconds;
        }
    }
    println!(
        "about {} of training in all; the random and the supervised rows and evaluation come to it",
        duration(all)
    );
    Ok(())
}

/// `12 s`, `3.4 minutes`, `5.6 hours`, `7.8 days`.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.1} minutes", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} hours", s / 3600.0),
        s => format!("{:.1} days", s / 86400.0),
    }
}

fn terminal_width() -> u16 {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(120)
}

fn print_tables(report: &Report) {
    let width = terminal_width();
    for table in &report.tables {
        println!("{}", table.terminal(width, colour_wanted()));
    }
    print!("{}", report.own_tasks.terminal(width));
}

fn print_methods(csv: bool) -> Result<()> {
    if csv {
        print!("{}", methods_csv()?);
        return Ok(());
    }
    for entry in registry::METHODS {
        let presets: Vec<&str> = preset::PRESETS.iter().filter(|p| p.0 == entry.name).map(|p| p.1).collect();
        println!("{:14} {:16} {}", entry.name, entry.family.to_string(), entry.paper);
        println!("{:31} presets: {}", "", presets.join(", "));
    }
    Ok(())
}

fn data(command: Data, root: Option<&Path>) -> Result<()> {
    let root = selfsup_datasets::data_root(root);
    let lines = match command {
        Data::List => selfsup_datasets::list()
            .iter()
            .map(|entry| {
                let there = if entry.is_present(&root) { "here" } else { "-" };
                format!("{:24} {:5} {} ({})", entry.name, there, entry.summary, entry.licence)
            })
            .chain(selfsup_datasets::OWN.map(|(name, summary)| format!("{name:24} {:5} {summary}", "")))
            .collect(),
        Data::Get { name } => selfsup_datasets::get(&name, &root, &mut selfsup_datasets::progress_bar())?,
        Data::Verify { name } => selfsup_datasets::verify(&name, &root)?,
    };
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

/// Prints the resolved configuration and the size of the work.
fn plan(config: &RunConfig, machine: &Machine, others: Option<Meeting>) -> Result<ExitCode> {
    if others.as_ref().is_some_and(|meeting| meeting.rank > 0) {
        return Ok(ExitCode::SUCCESS);
    }
    let ranks = others.map_or(1, |meeting| meeting.size);
    let rows = config.train.batch_of_rank(ranks)?;
    let dataset = selfsup_datasets::load(&config.data, &machine.data_root)?;
    let first = first_stage::planned(config)?;
    if let Some(first) = &first {
        first_stage::check(config, first, dataset.native_size)?;
    }
    let start = Start::of(config)?;
    let subject = run::build_from(start.as_ref(), config, first.as_ref(), &dataset, machine.device)?;
    let per_epoch = run::training_samples(&dataset).len() / config.train.batch;
    print!("{}", config.to_toml()?);
    println!("# run: {}", config.run_id()?);
    println!("# {} trained values, {} views", subject.store.parameters(), run::recipes(config, &*subject.method).len());
    println!("# {per_epoch} steps an epoch, {} in all", per_epoch as u64 * config.train.epochs);
    for rank in (0..ranks).filter(|_| ranks > 1) {
        println!("# rank {rank} of {ranks}: rows {} to {} of every batch", rank * rows, (rank + 1) * rows - 1);
    }
    Ok(ExitCode::SUCCESS)
}

fn pretrain(config: &RunConfig, machine: &Machine, out: Option<&Path>, resume: bool) -> Result<ExitCode> {
    let dataset = selfsup_datasets::load(&config.data, &machine.data_root)?;
    let path = match out {
        Some(path) => path.to_path_buf(),
        None => Path::new("runs").join("single").join(config.run_id()?),
    };
    let stop = stop_flag()?;
    let folder = Folder { path: &path, study: "single", resume };
    let end = run::execute(config, &dataset, machine, &folder, &stop)?;
    match end {
        End::Stopped => return Ok(stopped(&format!(": {}", path.display()))),
        End::Done(_) if group::rank() > 0 => return Ok(ExitCode::SUCCESS),
        End::Done(rows) => print_rows(&rows),
    }
    println!("{}", path.display());
    let failed = path.join("FAILED");
    if failed.exists() {
        let why = std::fs::read_to_string(&failed).with_context(|| failed.display().to_string())?;
        bail!("{}: the run diverged: {why}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said of work that was stopped on request, by rank 0 where there are several processes.
fn stopped(place: &str) -> ExitCode {
    if group::rank() == 0 {
        eprintln!("stopped; the same command goes on from here{place}");
    }
    ExitCode::from(STOPPED)
}

fn print_rows(rows: &[Row]) {
    for row in rows {
        match row.value {
            Some(value) => println!("{}", score_line(&row.protocol, &row.metric, value)),
            None => println!("{:20} {:24} diverged", row.protocol, row.metric),
        }
    }
}

fn score_line(protocol: &str, metric: &str, value: f64) -> String {
    format!("{protocol:20} {metric:24} {value:.4}")
}

fn eval(words: &[String], machine: &Machine) -> Result<()> {
    let (changes, words): (Vec<&String>, Vec<&String>) = words.iter().partition(|w| w.contains('='));
    let changes = changes.into_iter().map(|text| parse_override(text)).collect::<Result<Vec<Table>>>()?;
    let (protocols, folders): (Vec<&String>, Vec<&String>) =
        words.into_iter().partition(|w| PROTOCOLS.contains(&w.as_str()));
    ensure!(!folders.is_empty(), "which run? give the folder of one, as `selfsup pretrain` prints it");
    for folder in folders {
        let folder = Path::new(folder);
        ensure!(
            !folder.join("FAILED").exists(),
            "{}: the run diverged, so there is nothing to judge: FAILED in it says where",
            folder.display()
        );
        let (mut config, dataset, mut subject) = run::open(folder, machine)?;
        if config.name() == registry::SUPERVISED {
            bail!("{}: the supervised row is judged where it is trained; run the comparison again", folder.display());
        }
        if !protocols.is_empty() {
            config.evaluate.protocols = protocols.iter().map(|p| p.to_string()).collect();
        }
        let config = config.judged_by(&changes)?;
        let scores = evaluation::judge(&config, &dataset, &mut subject, &AtomicBool::new(false))?;
        if group::rank() > 0 {
            continue;
        }
        if !changes.is_empty() {
            println!("{}", folder.display());
            for (protocol, metric, value) in scores.values {
                println!("{}", score_line(&protocol, &metric, value));
            }
            continue;
        }
        let path = folder.join("results.csv");
        let mut rows = results::read(&path)
            .with_context(|| format!("{}: finish the run first, with the command that began it", folder.display()))?;
        let pattern = rows.first().cloned().context("results.csv has no rows")?;
        for (protocol, metric, value) in scores.values {
            rows.retain(|row| (&row.protocol, &row.metric) != (&protocol, &metric));
            rows.push(Row { protocol, metric, value: Some(value), ..pattern.clone() });
        }
        results::write(&path, &rows)?;
        println!("{}", folder.display());
        print_rows(&rows);
    }
    Ok(())
}
