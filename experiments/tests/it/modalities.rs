//! Images are not special: sequences, series and captioned images pass through the whole of a run.

use crate::{CPU, dataset, machine, small};
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::evaluation::judge;
use selfsup_experiments::run::{End, Folder, build, execute};
use selfsup_report::results::Row;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const ALL: &str = "evaluate.protocols=['knn', 'linear', 'finetune', 'geometry', 'pretext']";

fn run(config: &RunConfig, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let place = Folder { path: folder, study: "single", resume: true };
    match execute(config, &dataset(config), &machine(), &place, &AtomicBool::new(false))? {
        End::Done(rows) => Ok(rows),
        End::Stopped => panic!("nobody asked it to stop"),
    }
}

#[test]
fn every_kind_of_sample_is_trained_on_and_judged() {
    let quick = [
        ALL,
        "evaluate.finetune.epochs=1",
        "evaluate.finetune.batch=32",
        "evaluate.fractions=[1.0]",
        "evaluate.linear.max_iterations=5",
        "train.epochs=1",
    ];
    for name in ["bert/cpu", "gpt/cpu-speeches", "next-step/cpu", "next-step/cpu-regression", "dall-e/cpu-dvae"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = small(name, &quick).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let rows = run(&config, folder.path()).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let protocols: BTreeSet<&str> = rows.iter().map(|row| row.protocol.as_str()).collect();
        for protocol in ["knn", "linear", "finetune", "geometry", "pretext"] {
            assert!(protocols.contains(protocol), "{name}: {protocols:?}");
        }
        let file = if name.starts_with("dall-e") { "pictures.png" } else { "texts.txt" };
        let shown = folder.path().join("plots").join(file).is_file();
        assert!(shown || name.starts_with("next-step"), "{name}: {file}");
        // The references read the same samples.
        let supervised = RunConfig::resolve("supervised", &[]).expect("the supervised row");
        let supervised = RunConfig {
            data: config.data.clone(),
            encoder: config.encoder,
            size: config.size,
            evaluate: config.evaluate.clone(),
            train: selfsup_train::TrainConfig { precision: config.train.precision, ..supervised.train },
            ..supervised
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rows = run(&supervised, folder.path()).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(rows.iter().any(|row| row.protocol == "knn"), "{name}");
    }
}

/// The own task is judged on the same places of the test text, whatever the seed.
#[test]
fn long_texts_are_judged_from_their_beginning() {
    let _machine = machine();
    let config = small("gpt/cpu", &["evaluate.protocols=['pretext']", "size=16"]).expect("a configuration");
    let data = dataset(&config);
    let mut subject = build(&config, None, &data, CPU).expect("a method");
    let mut score = |seed| {
        let config = RunConfig { seed, ..config.clone() };
        judge(&config, &data, &mut subject, &AtomicBool::new(false)).expect("scores").values
    };
    let (a, b) = (score(0), score(1));
    assert!(a.iter().any(|(_, metric, value)| metric == "loss" && *value > 0.0), "{a:?}");
    assert_eq!(a, b);
}

#[test]
fn what_cannot_be_judged_is_refused_before_it_is_trained() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = |name: &str, overrides: &[&str]| {
        let config = small(name, overrides).expect("a configuration");
        let place = folder.path().join(name.replace('/', "-"));
        let error = run(&config, &place).err().map(|error| format!("{error:#}")).expect("a refusal");
        assert!(!place.exists(), "{name}: nothing was begun");
        error
    };
    let unlabelled = text("gpt/cpu", &["evaluate.protocols=['geometry', 'linear']"]);
    assert!(unlabelled.contains("no labels, which `linear` needs"), "{unlabelled}");
    let few = text("next-step/cpu", &["data=osu-leaf:12", "train.batch=6"]);
    assert!(few.contains("`evaluate.knn.k` is 20") && few.contains("12 training series"), "{few}");
}
