//! Two stages: the tokenizer is trained first, in a run of its own, and lives on in the store of the second stage.

use crate::{dataset, machine, small};
use anyhow::Result;
use selfsup_core::Tensor;
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::first_stage::preset;
use selfsup_experiments::run::{End, Folder, Meta, execute, open};
use selfsup_experiments::study::Shard;
use selfsup_train::{checkpoint, checkpoint_path};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// GPT over the codes of a VQ-VAE, each trained for a moment.
fn config() -> RunConfig {
    small("gpt/cpu-image", &["evaluate.online_every=0"]).expect("a configuration")
}

/// Runs `config` in `folder`/second; with `stop` both stages end after their first step.
fn run(config: &RunConfig, folder: &Path, stop: bool) -> Result<End> {
    let second = folder.join("second");
    let place = Folder { path: &second, study: "single", resume: true };
    execute(config, &dataset(config), &machine(), &place, &AtomicBool::new(stop))
}

fn done(config: &RunConfig, folder: &Path) {
    match run(config, folder, false) {
        Ok(End::Done(_)) => {}
        Ok(End::Stopped) => panic!("nobody asked it to stop"),
        Err(error) => panic!("{error:#}"),
    }
}

/// What is said to a second stage that has nothing to go on from.
fn refused(config: &RunConfig, folder: &Path) -> String {
    drop(fs::remove_dir_all(folder.join("second")));
    run(config, folder, false).err().map(|error| format!("{error:#}")).expect("a refusal")
}

fn first(config: &RunConfig, folder: &Path) -> PathBuf {
    folder.join(preset(config).and_then(|first| first.run_id()).expect("a name"))
}

fn weights(folder: &Path) -> BTreeMap<String, Tensor> {
    checkpoint::read(&checkpoint_path(folder)).expect("a checkpoint").tensors.into_iter().collect()
}

fn meta(folder: &Path) -> Meta {
    serde_json::from_slice(&fs::read(folder.join("meta.json")).expect("meta.json")).expect("JSON")
}

#[test]
fn the_chain_is_trained_recorded_and_taken_up_again() {
    let config = config();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    done(&config, &whole);
    let (first_run, second) = (first(&config, &whole), whole.join("second"));
    assert!(first_run.join("DONE").is_file() && second.join("tokenizer.toml").is_file());
    let origin = meta(&second).tokenizer.expect("where the tokenizer comes from");
    assert_eq!((origin.run.as_path(), origin.method.as_str()), (first_run.as_path(), "vq-vae"));
    assert_eq!(origin.config_hash, preset(&config).and_then(|c| c.hash()).expect("a hash"));

    // Stopped in the first stage, then in the second, then done: the same bits.
    assert!(matches!(run(&config, &parts, true), Ok(End::Stopped)));
    assert!(!first(&config, &parts).join("DONE").exists());
    let mut places = 0;
    while matches!(run(&config, &parts, true), Ok(End::Stopped)) {
        places += 1;
        assert!(places < 100, "it goes on");
    }
    // A stage of n steps is stopped n - 1 times; the second has 12 steps.
    assert!(places > 11, "{places}");
    let (a, b) = (weights(&second), weights(&parts.join("second")));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    assert!(a.keys().any(|name| name.starts_with("model.tokenizer.")), "the second stage holds the first");
    for (name, tensor) in &a {
        assert!(tensor.equal(&b[name]), "`{name}` differs");
    }

    // The second stage needs the first run no more.
    fs::remove_dir_all(&first_run).expect("removed");
    let (_, _, subject) = open(&second, &machine()).unwrap_or_else(|error| panic!("{error:#}"));
    let saved = subject.store.variables().into_iter().find(|v| v.name.starts_with("tokenizer.")).expect("a tokenizer");
    assert!(saved.tensor.equal(&a[&format!("model.{}", saved.name)]));
}

#[test]
fn a_first_stage_that_cannot_be_used_is_refused_in_words() {
    let config = config();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path();
    done(&config, place);
    let first_run = first(&config, place);
    let named = |overrides: &[&str]| {
        let tokenizer = format!("tokenizer={}", first_run.display());
        small("gpt/cpu-image", &[&[tokenizer.as_str(), "evaluate.online_every=0"], overrides].concat()).expect("a run")
    };
    let text = refused(&named(&["size=20"]), place);
    assert!(text.contains("images of size 28") && text.contains("has size 20"), "{text}");
    let text = refused(&named(&["data=fashion-mnist-10k:150"]), place);
    assert!(text.contains("fashion-mnist-10k:200") && text.contains("the same `data`"), "{text}");

    // A size that is named is the same as the data set's own.
    fs::remove_dir_all(place.join("second")).expect("removed");
    done(&named(&["size=28"]), place);

    fs::write(first_run.join("FAILED"), "the loss became NaN").expect("written");
    for config in [named(&[]), config.clone()] {
        let text = refused(&config, place);
        assert!(text.contains("diverged") && text.contains(&first_run.display().to_string()), "{text}");
    }
    fs::remove_file(first_run.join("FAILED")).expect("removed");
    fs::remove_file(first_run.join("DONE")).expect("removed");
    let text = refused(&named(&[]), place);
    assert!(text.contains("not finished"), "{text}");

    let baseline = small("gpt/cpu-image", &["tokenizer=random"]).expect("a configuration");
    let text = refused(&baseline, &place.join("other"));
    assert!(text.contains("learns a codebook"), "{text}");
}

#[test]
fn a_baseline_over_codes_remembers_whose_codes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trained = config();
    let random = RunConfig::resolve("random", &[]).expect("the random row");
    let (data, encoder, tokenizer) = (trained.data.clone(), trained.encoder, trained.tokenizer.clone());
    let config = RunConfig { data, encoder, tokenizer, evaluate: trained.evaluate.clone(), ..random };
    done(&config, folder.path());
    let (first_run, second) = (first(&config, folder.path()), folder.path().join("second"));
    open(&second, &machine()).unwrap_or_else(|error| panic!("{error:#}"));

    // The same run, trained anew, is another tokenizer.
    let path = checkpoint_path(&first_run);
    let mut bytes = fs::read(&path).expect("a checkpoint");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&path, bytes).expect("written");
    let text = open(&second, &machine()).err().map(|error| format!("{error:#}")).expect("a refusal");
    assert!(text.contains("not those that this run was made with"), "{text}");
}

#[test]
fn runs_over_one_tokenizer_fall_to_the_same_share() {
    let other = |change| small("gpt/cpu-image", &["evaluate.online_every=0", change]).expect("a configuration");
    let runs = vec![config(), other("seed=1"), other("train.epochs=2"), other("seed=2")];
    let share = |text: &str| {
        let share = text.parse::<Shard>().and_then(|shard| shard.share(runs.clone())).expect("a share");
        share.iter().map(|run| (run.seed, run.train.epochs)).collect::<Vec<_>>()
    };
    let (seed, epochs) = (runs[0].seed, runs[0].train.epochs);
    assert_eq!(share("1/1").len(), 4);
    assert_eq!(share("1/2"), [(seed, epochs), (seed, 2), (2, epochs)]);
    assert_eq!(share("2/2"), [(1, epochs)]);
    assert!(share("4/4").is_empty(), "there are three tokenizers");
    for wrong in ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2"] {
        assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
    }
}
