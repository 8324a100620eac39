//! A second loss beside any method of two views.

use crate::{CPU, dataset, machine, methods, small};
use anyhow::Result;
use selfsup_core::augment::views::{HostBatch, Plain};
use selfsup_core::method::Family;
use selfsup_core::progress::Progress;
use selfsup_core::store::Role;
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

/// Presets of every method that compares two views of an image, and forms of MoCo that show its encoder one view alone,
/// or parts of it.
fn two_views() -> Vec<(String, Vec<&'static str>)> {
    let joint = methods().into_iter().filter(|(entry, _)| entry.family != Family::SelfPrediction);
    let mut cases: Vec<(String, Vec<&str>)> = joint.map(|(_, name)| (name, vec![])).collect();
    cases.retain(|(name, _)| {
        let config = small(name, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let subject = build(&config, None, &dataset(&config), CPU).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        recipes(&config, &*subject.method).len() >= 2
    });
    if std::env::var(crate::ONE_METHOD).is_err() {
        assert!(cases.len() >= 11, "{cases:?}");
        for form in [vec!["method.groups=4", "method.shuffle=true"], vec!["method.symmetric=true", "method.groups=2"]] {
            cases.push(("moco/cpu".into(), form));
        }
    }
    cases
}

#[test]
fn it_stands_beside_every_method_of_two_views_which_knows_nothing_of_it() {
    let _machine = machine();
    for (name, form) in two_views() {
        let run = |second: &[&str]| {
            first_step(&name, &[&form, second].concat()).unwrap_or_else(|e| panic!("{name} {form:?}: {e:#}"))
        };
        let (plain, own) = run(&[]);
        let (subject, both) = run(&["auxiliary.name=augself", "auxiliary.weight=0.5"]);
        let (own, second) = (part(&own, "loss"), part(&both, "augself"));
        // A sum in f32.
        assert!((part(&both, "loss") - own - 0.5 * second).abs() < 1e-5 * (1.0 + own.abs()), "{name}");
        assert!(second > 0.0 && (part(&both, "crop") + part(&both, "colour") - second).abs() < 1e-6, "{name}");
        let heads = subject.store.below("augself");
        assert!(!heads.is_empty() && plain.store.below("augself").is_empty(), "{name}");
        assert!(
            heads.iter().filter(|v| v.role != Role::Buffer).all(|v| v.tensor.grad().defined()),
            "{name}: heads are trained"
        );

        let (zero, nothing) = run(&["auxiliary.name=augself", "auxiliary.weight=0"]);
        assert_eq!(part(&nothing, "loss").to_bits(), own.to_bits(), "{name}: a weight of 0 is the method itself");
        for v in plain.store.variables() {
            let other = zero.store.variables().into_iter().find(|o| o.name == v.name).expect("the same variables");
            // Running statistics, queues and banks too.
            assert!(v.tensor.equal(&other.tensor), "{name}: {}", v.name);
            let (g, o) = (v.tensor.grad(), other.tensor.grad());
            assert!(g.defined() == o.defined() && (!g.defined() || g.equal(&o)), "{name}: the gradient of {}", v.name);
        }
    }
}

#[test]
fn what_has_no_two_views_of_images_is_refused_in_words() {
    let _machine = machine();
    for (name, words) in [
        ("instdisc/cpu", "instdisc has one"),
        ("deepcluster/cpu", "deepcluster has one"),
        ("mae/cpu", "mae has one"),
        ("vq-vae/cpu", "vq-vae has one"),
        ("bert/cpu", "the data are token sequences"),
        ("next-step/cpu", "the data are series"),
        ("random", "random is trained by no method"),
    ] {
        let error = first_step(name, &["auxiliary.name=augself"]).err().unwrap_or_else(|| panic!("{name} was taken"));
        assert!(format!("{error:#}").contains(words), "{name}: {error:#}");
    }
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
