//! An interrupted run ends in the bits of an uninterrupted one.

use crate::{dataset, machine, methods, small, train_on};
use anyhow::{Result, bail};
use selfsup_core::Tensor;
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::run::{Folder, execute};
use selfsup_train::{Event, Outcome, checkpoint};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a part of a run ends.
#[derive(Clone, Copy, Debug)]
enum Until {
    End,
    /// Asked to stop in this step: a checkpoint follows.
    Stop(u64),
    /// Killed in this step: the last checkpoint is older, and metrics.csv longer than it was then.
    Killed(u64),
}

/// Trains in `folder`, on new variables, from the checkpoint that is there. Gives the weights at the end of training.
fn part(
    config: &RunConfig,
    folder: &Path,
    identity: &str,
    until: Until,
) -> Result<(Outcome, BTreeMap<String, Tensor>)> {
    let observe = |event: Event<'_>, stop: &AtomicBool| {
        match (event, until) {
            (Event::Step { at, .. }, Until::Stop(step)) if at.step == step => stop.store(true, Ordering::Relaxed),
            (Event::Step { at, .. }, Until::Killed(step)) if at.step == step => bail!("killed"),
            (Event::Epoch { metrics, .. }, _) => metrics.push(("looked_at".into(), 1.0)),
            _ => {}
        }
        Ok(())
    };
    train_on(config, (folder, identity), |_| Ok(()), observe)
}

fn same(name: &str, how: &str, a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{name}, {how}: the names");
    for (key, tensor) in a {
        assert!(tensor.equal(&b[key]), "{name}, {how}: `{key}` differs");
    }
}

/// Weights, optimiser state and metrics.csv.
fn left_behind(folder: &Path) -> (BTreeMap<String, Tensor>, String) {
    let saved = checkpoint::read(&folder.join("checkpoints/last.safetensors")).expect("a checkpoint");
    let metrics = fs::read_to_string(folder.join("metrics.csv")).expect("metrics.csv");
    (saved.tensors.into_iter().collect(), metrics)
}

/// Six steps an epoch, twelve in all.
#[test]
fn an_interrupted_run_ends_in_the_bits_of_an_uninterrupted_one() {
    let _machine = machine();
    for (_, name) in methods() {
        let name = name.as_str();
        // Every optimiser with a memory must come through: this one has a step count in its update too.
        let config = small(name, &["train.clip_norm=5.0"]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let whole = folder.path().join("whole");
        let (outcome, weights) = part(&config, &whole, "one", Until::End).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(outcome, Outcome::Finished, "{name}");
        let (saved, metrics) = left_behind(&whole);
        assert!(saved.keys().any(|key| key.starts_with("optimiser.")), "{name}: the optimiser's state is saved");
        // Header; per epoch six rows of the loss, the rate and the parts; one look an epoch.
        assert_eq!(metrics.lines().filter(|line| line.contains(",loss,")).count(), 12, "{name}:\n{metrics}");

        for (how, first) in [
            ("stopped between epochs", Until::Stop(6)),
            ("stopped within an epoch", Until::Stop(9)),
            ("killed within an epoch", Until::Killed(9)),
        ] {
            let place = folder.path().join(how);
            match (part(&config, &place, "one", first), first) {
                (Ok((Outcome::Stopped(at), _)), Until::Stop(step)) => assert_eq!(at.step, step, "{name}, {how}"),
                (Err(error), Until::Killed(_)) => assert_eq!(error.to_string(), "killed", "{name}, {how}"),
                (Ok((outcome, _)), _) => panic!("{name}, {how}: ended as {outcome:?}"),
                (Err(error), _) => panic!("{name}, {how}: {error:#}"),
            }
            let (outcome, resumed) =
                part(&config, &place, "one", Until::End).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            assert_eq!(outcome, Outcome::Finished, "{name}, {how}");
            same(name, how, &weights, &resumed);
            let (saved_too, metrics_too) = left_behind(&place);
            same(name, how, &saved, &saved_too);
            assert_eq!(metrics, metrics_too, "{name}, {how}: metrics.csv");
        }

        // The run is over: taking it up again changes nothing.
        part(&config, &whole, "one", Until::End).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        same(name, "finished twice", &saved, &left_behind(&whole).0);

        // A checkpoint of another run is refused, and still there.
        let Err(error) = part(&config, &whole, "another", Until::End) else {
            panic!("the checkpoint of another run was taken");
        };
        let text = format!("{error:#}");
        assert!(text.contains("last.safetensors") && text.contains("belongs to"), "{name}: {text}");
        same(name, "refused", &saved, &left_behind(&whole).0);
    }
}

#[test]
fn a_run_with_a_second_loss_goes_on_too() {
    let _machine = machine();
    let config = small("simclr/cpu", &["auxiliary.name=augself", "auxiliary.hidden=16"]).expect("a configuration");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, place) = (folder.path().join("whole"), folder.path().join("stopped"));
    let (_, weights) = part(&config, &whole, "one", Until::End).expect("a run");
    assert!(weights.keys().any(|name| name.starts_with("augself.")), "its heads are saved with the rest");
    part(&config, &place, "one", Until::Stop(9)).expect("the first part of a run");
    let (_, resumed) = part(&config, &place, "one", Until::End).expect("the rest of a run");
    same("simclr + augself", "stopped within an epoch", &weights, &resumed);
    assert_eq!(left_behind(&whole).1, left_behind(&place).1, "metrics.csv");
}

#[test]
fn a_folder_of_another_configuration_is_refused() {
    let machine = machine();
    let (_, name) = &methods()[0];
    let config = small(name, &[]).expect("a configuration");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = small(name, &["train.epochs=3", "evaluate.knn.k=7"]).expect("a configuration");
    let there = other.to_toml().expect("TOML");
    fs::write(folder.path().join("config.toml"), &there).expect("a file");
    let place = Folder { path: folder.path(), study: "single", resume: true };
    let error = execute(&config, &dataset(&config), &machine, &place, &AtomicBool::new(false)).err();
    let text = format!("{:#}", error.expect("another run's folder"));
    assert!(text.contains("train.epochs: 2 here, 3 there"), "{text}");
    assert!(text.contains("evaluate.knn.k") && !text.contains("train.batch"), "{text}");
    assert_eq!(fs::read_to_string(folder.path().join("config.toml")).expect("a file"), there, "nothing was changed");
}
