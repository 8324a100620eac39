//! A second loss beside any method of two views.

use crate::{CPU, dataset, machine, small};
use anyhow::Result;
use selfsup_core::augment::views::{HostBatch, Plain};
use selfsup_core::progress::Progress;
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::run::{Subject, build, recipes, training_samples};

const START: Progress = Progress { step: 0, steps: 12, epoch: 0, epochs: 2 };

/// The method on few images, and the loss and its parts of the first step.
fn first_step(name: &str, overrides: &[&str]) -> Result<(Subject, Vec<(&'static str, f64)>)> {
    let config: RunConfig = small(name, overrides)?;
    let data = dataset(&config);
    let mut subject = build(&config, None, &data, CPU)?;
    let (samples, size) = (training_samples(&data), subject.shape.size() as usize);
    let images = Plain { samples, size, normalisation: &data.normalisation, device: CPU };
    drop(subject.method.before_epoch(START, &images)?);
    let recipes = recipes(&config, &*subject.method);
    let index = (0..32).collect();
    let batch = HostBatch::render(samples, index, &recipes, size, &data.normalisation, config.seed, 0)?.to_batch(CPU);
    let loss = subject.method.loss(&batch, START);
    loss.total.backward();
    let parts = [("loss", loss.total)].into_iter().chain(loss.parts);
    let parts = parts.map(|(name, value)| (name, value.double_value(&[]))).collect();
    Ok((subject, parts))
}

fn part(parts: &[(&str, f64)], name: &str) -> f64 {
    parts.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no part {name} in {parts:?}")).1
}

#[test]
fn it_stands_beside_methods_that_know_nothing_of_it() {
    let _machine = machine();
    for name in [
        "simclr/cpu",
        "triplet/cpu",
        "swav/cpu",
        "swav/cpu-multicrop",
        "barlow-twins/cpu",
        "byol/cpu",
        "simsiam/cpu",
        "vicreg/cpu",
        "deepcluster/cpu-v2",
    ] {
        let (plain, own) = first_step(name, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let (subject, both) = first_step(name, &["auxiliary.name=augself", "auxiliary.weight=0.5"])
            .unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let (own, second) = (part(&own, "loss"), part(&both, "augself"));
        // A sum in f32.
        assert!((part(&both, "loss") - own - 0.5 * second).abs() < 1e-5 * (1.0 + own.abs()), "{name}");
        assert!(second > 0.0 && (part(&both, "crop") + part(&both, "colour") - second).abs() < 1e-6, "{name}");
        let heads = subject.store.below("augself");
        assert!(!heads.is_empty() && plain.store.below("augself").is_empty(), "{name}");

        let (zero, nothing) = first_step(name, &["auxiliary.name=augself", "auxiliary.weight=0"])
            .unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(part(&nothing, "loss").to_bits(), own.to_bits(), "{name}: a weight of 0 is the method itself");
        for v in plain.store.trainable() {
            let other = zero.store.trainable().into_iter().find(|o| o.name == v.name).expect("the same variables");
            let (g, o) = (v.tensor.grad(), other.tensor.grad());
            assert!(g.defined() == o.defined() && (!g.defined() || g.equal(&o)), "{name}: the gradient of {}", v.name);
        }
    }
}

#[test]
fn a_method_without_the_features_of_two_views_is_refused_in_words() {
    let _machine = machine();
    for (name, words) in [
        ("moco/cpu", "needs the features of both views, but moco"),
        ("interclr/cpu", "needs the features of both views, but interclr"),
        ("instdisc/cpu", "instdisc has one"),
        ("mae/cpu", "mae has one"),
        ("random", "random is trained by no method"),
    ] {
        let error = first_step(name, &["auxiliary.name=augself"]).err().unwrap_or_else(|| panic!("{name} was taken"));
        assert!(format!("{error:#}").contains(words), "{name}: {error:#}");
    }
    // The symmetric form shows both.
    first_step("moco/cpu", &["method.symmetric=true", "auxiliary.name=augself"]).unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn its_configuration_is_read_whole_and_refused_in_words() {
    let config = small("simclr/cpu", &["auxiliary.name=augself", "auxiliary.weight=2"]).expect("a configuration");
    assert_eq!(config.auxiliary["weight"].as_float(), Some(2.0));
    assert_eq!(config.auxiliary["hidden"].as_integer(), Some(512), "defaults are written out");
    let read: RunConfig = toml::from_str(&config.to_toml().expect("TOML")).expect("a configuration");
    assert_eq!(read, config);
    assert_ne!(small("simclr/cpu", &[]).and_then(|c| c.hash()).expect("a hash"), config.hash().expect("a hash"));
    for (overrides, words) in [
        (vec!["auxiliary.weight=1.0"], "`auxiliary.name` is"),
        (vec!["auxiliary.name=simclr"], "`auxiliary.name` is \"simclr\"; expected \"augself\""),
        (vec!["auxiliary.name=augself", "auxiliary.weight=-1"], "weight is -1"),
        (vec!["auxiliary.name=augself", "auxiliary.weight='much'"], "must be a number"),
        (
            vec!["auxiliary.name=augself", "auxiliary.color=1.0"],
            "unknown key `auxiliary.color`: did you mean `colour`?",
        ),
        (vec!["auxiliary.name=augself", "auxiliary.hidden=0"], "hidden is 0"),
    ] {
        let error = small("simclr/cpu", &overrides).expect_err("a refusal");
        assert!(format!("{error:#}").contains(words), "{overrides:?}: {error:#}");
    }
}
