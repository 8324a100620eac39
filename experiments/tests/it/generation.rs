//! Images made for captions: what a classifier of real ones takes them for, and the command that makes them.

use crate::command_line::{refuses, succeeds};
use crate::{dataset, machine, small};
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::evaluation::{check, judge};
use selfsup_experiments::generation::captions_are_labels;
use selfsup_experiments::run::{End, Folder, execute, open};
use selfsup_report::results::Row;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const OWN: &str = "evaluate.protocols=['pretext', 'generated']";

fn run(config: &RunConfig, folder: &Path) -> Vec<Row> {
    let place = Folder { path: folder, study: "single", resume: true };
    match execute(config, &dataset(config), &machine(), &place, &AtomicBool::new(false)) {
        Ok(End::Done(rows)) => rows,
        Ok(End::Stopped) => panic!("nobody asked it to stop"),
        Err(error) => panic!("{}: {error:#}", folder.display()),
    }
}

fn values(rows: &[Row], protocol: &str) -> Vec<(String, f64)> {
    let of = rows.iter().filter(|row| row.protocol == protocol);
    of.map(|row| (row.metric.clone(), row.value.expect("a number"))).collect()
}

#[test]
fn images_for_captions_are_judged_beside_real_ones_and_made_by_a_command() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [first, second] = ["first", "second"].map(|name| place.path().join(name));
    let quick = ["evaluate.online_every=0", "evaluate.finetune.epochs=2", "evaluate.finetune.batch=32", OWN];
    let rows = run(&small("dall-e/cpu-dvae", &quick).expect("a configuration"), &first);
    assert!(!values(&rows, "pretext").is_empty());
    assert!(values(&rows, "generated").is_empty(), "the first stage makes no images of captions");

    let tokenizer = format!("tokenizer={}", first.display());
    let config = small("dall-e/cpu", &[&quick[..], &[&tokenizer]].concat()).expect("a configuration");
    let rows = run(&config, &second);
    let pretext = values(&rows, "pretext");
    let names: Vec<&str> = pretext.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["loss_text", "loss_image", "loss_image_shuffled"]);
    let generated = values(&rows, "generated");
    let names: Vec<&str> = generated.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["accuracy", "accuracy_reconstructed", "accuracy_real", "majority"]);
    assert!(generated.iter().all(|(_, value)| (0.0..=1.0).contains(value)), "{generated:?}");
    // Always naming the class that is most frequent in training.
    let data = dataset(&config);
    let labels = |part: &selfsup_datasets::Part| part.labels.clone().expect("labels");
    let (train, test) = (labels(&data.train), labels(data.test.as_ref().expect("a test part")));
    let count = |labels: &[u16], class: u16| labels.iter().filter(|&&label| label == class).count();
    let most = (0..7).map(|class| count(&train, class)).max().expect("classes");
    let shares = (0..7).filter(|&class| count(&train, class) == most);
    let shares: Vec<f64> = shares.map(|class| count(&test, class) as f64 / test.len() as f64).collect();
    assert!(shares.contains(&generated[3].1), "{shares:?} {generated:?}");
    // Judged again the numbers are the same, and the run's own networks are not touched.
    let (config, data, mut subject) = open(&second, &machine()).expect("the run");
    let weights = || subject.store.variables().iter().map(|v| v.tensor.copy()).collect::<Vec<_>>();
    let before = weights();
    let again = judge(&config, &data, &mut subject, &AtomicBool::new(false)).expect("scores").values;
    let again: Vec<(String, f64)> =
        again.into_iter().filter(|(protocol, ..)| protocol == "generated").map(|(_, name, x)| (name, x)).collect();
    assert_eq!(again, generated);
    let after: Vec<_> = subject.store.variables().iter().map(|v| v.tensor.copy()).collect();
    assert_eq!(after, before);

    let inside = place.path();
    let said = succeeds(inside, &["generate", "second", "Red heart", "flag", "--out", "made.png"]);
    assert_eq!(said.trim(), "made.png");
    assert!(fs::read(inside.join("made.png")).expect("a picture").starts_with(b"\x89PNG"));
    succeeds(inside, &["generate", "second", "flag"]);
    assert!(inside.join("second/plots/generated.png").is_file());
    let long = "flag ".repeat(40);
    for (arguments, words) in [
        (["generate", "second", "red ♥"], ["`♥`, which no caption of emoji-mini:200 has", "expected characters of"]),
        (["generate", "second", &long], ["199 tokens", "at most 78"]),
        (["generate", "second", " "], ["a caption is empty", "expected words"]),
        (["generate", "first", "flag"], ["a run of dall-e, which makes no images", "dall-e/cpu"]),
        (["generate", "nowhere", "flag"], ["nowhere", "expected the folder of a run"]),
    ] {
        refuses(inside, &arguments, &words);
    }
}

#[test]
fn features_are_not_judged_where_captions_are_labels() {
    let config = |protocols: &str| {
        let protocols = format!("evaluate.protocols={protocols}");
        small("simclr/cpu", &["data=fashion-mnist-10k-captions:200", &protocols]).expect("a configuration")
    };
    let data = dataset(&config("['knn']"));
    assert!(captions_are_labels(&data.train));
    for protocols in ["['knn']", "['pretext', 'geometry']"] {
        let error = check(&config(protocols), &data).expect_err("labels were seen").to_string();
        assert!(error.contains("captions of `fashion-mnist-10k-captions:200` are its labels"), "{error}");
    }
    check(&config("['pretext', 'generated']"), &data).expect("its own task");
    for other in ["emoji-mini", "emoji-mini:7", "fashion-mnist-10k:50"] {
        let data = selfsup_datasets::load(other, Path::new("data")).expect("a bundled set");
        assert!(!captions_are_labels(&data.train), "{other}");
    }
}
