//! Claims: every file is listed and can be run, and a small one is run to its verdict.

use crate::workspace;
use selfsup_experiments::claim::{CLAIMS, CLASSES, all, find};
use selfsup_report::results;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn every_claim_is_listed_and_can_be_run() {
    let folder = workspace().join("experiments/claims");
    let files: BTreeSet<String> = fs::read_dir(&folder)
        .expect("the claims")
        .map(|file| file.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .filter(|name| name != "settings")
        .collect();
    assert_eq!(files, CLAIMS.iter().map(|(id, _)| id.to_string()).collect::<BTreeSet<_>>());

    let mut methods = BTreeSet::new();
    for claim in all(None).expect("claims that can be read") {
        // What a verdict needs: seeds for a t test, and whence the number comes.
        assert!(claim.seeds.len() >= 3, "{}", claim.id);
        for text in [&claim.statement, &claim.source, &claim.published, &claim.trust] {
            assert!(!text.is_empty(), "{}", claim.id);
        }
        let runs = claim.runs().unwrap_or_else(|e| panic!("{}: {e:#}", claim.id)).concat();
        methods.extend(runs.iter().map(|config| config.name().to_owned()));
        if claim.class == "minutes" {
            let downloaded = |data: &str| data.starts_with("cifar") || data.starts_with("folder");
            assert!(runs.iter().all(|config| !downloaded(&config.data)), "{}: bundled data alone", claim.id);
        }
    }
    assert!(methods.len() >= 15, "{methods:?}");
    for class in CLASSES {
        assert!(!all(Some(class)).expect("claims").is_empty(), "{class}");
    }
    assert!(find("collapse-without-negatives").is_ok());
}

fn selfsup(arguments: &[&str], place: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_selfsup"))
        .args(arguments)
        .args(["--threads", "2"])
        .current_dir(place)
        .output()
        .expect("the program runs")
}

const SMALL: &str = r#"
statement = "An untrained encoder is above nothing, and below everything."
source = "this test"
published = "none"
trust = "made up"
class = "minutes"
seeds = [0, 1, 2]

[common]
data = "fashion-mnist-10k:600"
encoder = "convnet-tiny"
evaluate.protocols = ["knn"]

[[arms]]
name = "random"
method = "random"

[[arms]]
name = "simclr"
method = "simclr/cpu"
train = { epochs = 1, batch = 64 }

[[rules]]
metric = "knn.accuracy"
more = "random"
than = 0.0
by = 0.2

[[rules]]
metric = "log.loss"
more = 100.0
than = "simclr"
"#;

#[test]
fn a_claim_is_run_once_and_judged() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("small.toml");
    fs::write(&file, SMALL).expect("a file");
    let run = |name: &str| selfsup(&["claim", name, "--out", "out"], place.path());
    let output = run("small.toml");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("small") && text.contains(" reproduced"), "{text}");
    let runs = place.path().join("out/claims");
    let folder = runs.join("small");
    let csv = fs::read_to_string(folder.join("claims.csv")).expect("claims.csv");
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(csv.contains("selfsup claim small.toml"), "the command that made it: {csv}");
    let page = fs::read_to_string(folder.join("claims.html")).expect("claims.html");
    for part in ["knn.accuracy: random − 0 ≥ 0.2", "An untrained encoder", "Published: none (made up)", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(results::read(&folder.join("results.csv")).expect("results.csv").len(), 6);

    // Another claim of the same arms, which cannot hold, trains nothing.
    let made = |folder: &Path| fs::metadata(folder).and_then(|m| m.modified()).expect("a file that was written");
    let weights = fs::read_dir(&runs).expect("a folder").map(|entry| entry.expect("an entry").path().join("export"));
    let weights: Vec<_> = weights.filter(|path| path.is_dir()).collect();
    assert_eq!(weights.len(), 6);
    let before: Vec<_> = weights.iter().map(|path| made(path)).collect();
    fs::write(place.path().join("other.toml"), SMALL.replace("by = 0.2", "by = 2.0")).expect("a file");
    let output = run("other.toml");
    assert!(String::from_utf8_lossy(&output.stdout).contains("not reproduced"));
    assert_eq!(before, weights.iter().map(|path| made(path)).collect::<Vec<_>>());

    // A run that cannot be done costs the claims that need it their verdict, and no other.
    let broken = SMALL
        .replace("method = \"simclr/cpu\"", "method = \"mae/cpu\"")
        .replace("statement = \"An", "statement = \"Broken: an");
    fs::write(place.path().join("broken.toml"), broken).expect("a file");
    let output = selfsup(&["claim", "broken.toml", "small.toml", "--out", "out"], place.path());
    assert!(!output.status.success());
    let csv = fs::read_to_string(runs.join("chosen/claims.csv")).expect("claims.csv");
    let verdict = |id: &str| csv.lines().find(|line| line.starts_with(id)).map(|line| line.contains(",reproduced,"));
    assert_eq!((verdict("broken"), verdict("small")), (Some(false), Some(true)), "{csv}");
    let page = fs::read_to_string(runs.join("chosen/claims.html")).expect("claims.html");
    assert!(page.contains("it failed: mae seed 0"), "the page says why");
}

#[test]
fn what_the_first_seeds_leave_undecided_is_looked_at_once_more() {
    let place = tempfile::tempdir().expect("a temporary folder");
    // Nothing is more than itself, nor less: no number of seeds decides it.
    let simclr = "[[arms]]\nname = \"simclr\"\nmethod = \"simclr/cpu\"\ntrain = { epochs = 1, batch = 64 }\n";
    let same = SMALL.replace(simclr, "").split("[[rules]]").next().expect("a claim").to_owned();
    let same = same + "[[rules]]\nmetric = \"knn.accuracy\"\nmore = \"random\"\nthan = \"random\"\n";
    fs::write(place.path().join("same.toml"), same).expect("a file");
    let run = |more: &[&str]| selfsup(&[&["claim", "same.toml", "--out", "out"], more].concat(), place.path());
    let seeds = |output: &Output| -> Vec<String> {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter_map(|line| line.split_once(" seed ")).map(|(_, seed)| seed.to_owned()).collect()
    };
    assert_eq!(seeds(&run(&["--dry-run"])), ["0", "1", "2"], "the first look alone, before anything is run");
    let shares = ["1/2", "2/2"].map(|shard| run(&["--shard", shard]));
    assert!(shares.iter().all(|output| output.status.success()), "{shares:?}");
    assert_eq!(seeds(&run(&["--dry-run"])), ["0", "1", "2", "3", "4", "5"]);
    let csv = |more: &[&str]| {
        let output = run(more);
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(place.path().join("out/claims/same/claims.csv")).expect("claims.csv")
    };
    let three = csv(&["--judge-only"]);
    assert!(three.contains(",3,0,0,0,0,1,1,1,inconclusive,"), "what is there: {three}");
    let six = csv(&[]);
    assert!(six.contains(",6,0,0,0,0,1,1,1,inconclusive,"), "six seeds: {six}");
    assert_eq!(csv(&["--judge-only"]), six);
    let elsewhere = selfsup(&["claim", "same.toml", "--out", "elsewhere", "--judge-only"], place.path());
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("no claim has all its runs here"), "{elsewhere:?}");
}

#[test]
fn what_is_wrong_with_a_claim_is_told_in_one_line() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let wrong = |from: &str, to: &str| {
        let text = SMALL.replace(from, to);
        assert_ne!(text, SMALL, "`{from}` stands in the file");
        fs::write(place.path().join("wrong.toml"), text).expect("a file");
        let output = selfsup(&["claim", "wrong.toml", "--dry-run"], place.path());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.lines().count() == 1, "{text}");
        text
    };
    assert!(
        wrong("than = \"simclr\"", "than = \"simcl\"")
            .contains("the arm `simcl`, which there is not: did you mean `simclr`?")
    );
    assert!(wrong("class = \"minutes\"", "class = \"days\"").contains("expected one of minutes, hours, gpu"));
    assert!(wrong("more = 100.0\nthan = \"simclr\"", "more = 100.0\nthan = 1.0").contains("one must be an arm"));
    assert!(wrong("seeds = [0, 1, 2]", "seeds = []").contains("at least one seed"));
    assert!(wrong("method = \"simclr/cpu\"", "method = \"simclr/cp\"").contains("no preset `cp`"));
    assert!(wrong("by = 0.2", "bye = 0.2").contains("unknown field `bye`"));
    assert!(wrong("than = 0.0\n", "").contains("a rule has `more` and `than`"));
    assert!(wrong("seeds = [0, 1, 2]", "seeds = [0, 0, 2]").contains("one seed twice"));
    assert!(wrong("metric = \"knn.accuracy\"", "metric = \"linear.accuracy\"").contains("its runs are judged by knn"));
    assert!(wrong("than = \"simclr\"", "than = \"random\"").contains("no rule looks at the arm `simclr`"));
    let unknown = selfsup(&["claim", "collapse-without-negative"], place.path());
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(text.contains("did you mean `collapse-without-negatives`?"), "{text}");
}
