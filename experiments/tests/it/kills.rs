//! A comparison that is killed again and again ends in the files of one that was left alone.
//!
//! `SELFSUP_KILLS=100 cargo test --release -p selfsup-experiments --test it kills` is the long form: so many kills, over the
//! small preset of every method.
#![cfg(unix)]

use crate::command_line::{program, scores, temporary, text};
use crate::{SAMPLES, methods};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_experiments::config::RunConfig;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The runs of `methods` and of their baselines, each of a second or two.
fn study(methods: &[String]) -> String {
    let mut study = "name = \"cut\"\nseeds = [0]\n".to_string();
    for name in methods {
        let RunConfig { data, evaluate, .. } = RunConfig::resolve(name, &[]).expect("a preset");
        // Not all data have labels.
        let protocol = if evaluate.protocols.iter().any(|p| p == "knn") { "knn" } else { "pretext" };
        study += &format!(
            "[[runs]]\nmethod = \"{name}\"\ndata = \"{data}:{SAMPLES}\"\n\
             train = {{ epochs = 2, batch = 32, warmup = 0.5, precision = \"f32\" }}\n\
             evaluate = {{ protocols = [\"{protocol}\"], finetune = {{ epochs = 2, batch = 32 }} }}\n"
        );
    }
    study
}

/// What must be the same: name of the run and of the file -> its bytes; of results.csv, all but the time it took.
fn left(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a study's folder") {
        let run = entry.expect("an entry").path();
        if !run.is_dir() || run.ends_with("figures") {
            continue;
        }
        let name = run.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(run.join("DONE").exists(), "{name} is done");
        files.insert(format!("{name}/results.csv"), format!("{:?}", scores(&run)).into_bytes());
        for file in ["config.toml", "metrics.csv", "checkpoints/last.safetensors", "export/encoder.safetensors"] {
            if let Ok(bytes) = fs::read(run.join(file)) {
                files.insert(format!("{name}/{file}"), bytes);
            }
        }
        for place in ["", "checkpoints", "export", "plots"] {
            for entry in fs::read_dir(run.join(place)).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                assert!(path.extension().is_none_or(|e| e != "tmp"), "{}: left behind", path.display());
            }
        }
    }
    files.insert("results.csv".into(), format!("{:?}", scores(folder)).into_bytes());
    files
}

/// What a power cut in the middle of a row of metrics.csv, or just before a checkpoint's new name, can leave.
fn leave_halves(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let run = entry.path();
        if run.join("checkpoints").is_dir() && !run.join("DONE").exists() {
            if let Ok(mut metrics) = File::options().append(true).open(run.join("metrics.csv")) {
                metrics.write_all(b"1,11,lo").expect("half a row");
            }
            fs::write(run.join("checkpoints/last.tmp"), b"half a checkpoint").expect("a file");
            fs::write(run.join(".results.csv.1.tmp"), b"half a table").expect("a file");
        }
    }
}

#[test]
fn a_comparison_killed_at_any_moment_ends_in_the_files_of_one_left_alone() {
    let asked = std::env::var("SELFSUP_KILLS").ok().filter(|n| !n.is_empty());
    let asked = asked.map(|n| n.parse::<usize>().expect("SELFSUP_KILLS is a number"));
    let few = ["simclr/cpu", "deepcluster/cpu"];
    let names = methods().into_iter().map(|(_, name)| name).filter(|name| name.ends_with("/cpu"));
    let names: Vec<String> = names.filter(|name| asked.is_some() || few.contains(&name.as_str())).collect();
    if names.is_empty() {
        return; // the tests are limited to another method
    }
    let place = temporary();
    let place = place.path();
    fs::write(place.join("cut.toml"), study(&names)).expect("a file");
    let began = Instant::now();
    let whole = program(place, &["compare", "cut.toml", "--out", "whole"]).output().expect("the program starts");
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    let whole_seconds = began.elapsed().as_secs_f64();
    let wanted = left(&place.join("whole/cut"));
    let runs = wanted.keys().filter(|name| name.ends_with("/config.toml")).count();

    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut rng = Rng::new(seed, Purpose::Sample, 0, 0, 0);
    let (mut killed, mut rounds, mut by) = (0, 0, BTreeMap::new());
    let kills = asked.unwrap_or(4);
    while killed < kills || rounds == 0 {
        let mut child = program(place, &["compare", "cut.toml", "--out", "killed"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        if killed < kills {
            // Up to the length of two runs, so that it gets on, and is hit at its start as well as in its middle.
            let mut wait = 2.0 * whole_seconds / runs as f64 * rng.uniform();
            while wait > 0.0 && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(Duration::from_millis(5));
                wait -= 0.005;
            }
            let how = ["KILL", "TERM", "INT", "INT twice"][rng.below(4)];
            for signal in how.replace(" twice", " INT").split(' ') {
                if child.try_wait().expect("a child").is_none() {
                    let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
                    assert!(sent.expect("kill runs").success() || child.try_wait().expect("a child").is_some());
                    std::thread::sleep(Duration::from_millis(rng.below(50) as u64));
                }
            }
            let output = child.wait_with_output().expect("it ends");
            let end = (output.status.code(), output.status.signal());
            let expected = match how {
                "KILL" => vec![(None, Some(9))],
                // Before it listens to signals they end it, as they do any program.
                "TERM" => vec![(Some(130), None), (None, Some(15))],
                _ => vec![(Some(130), None), (None, Some(2))],
            };
            if end == (Some(0), None) {
                rounds += 1; // it was done before
            } else {
                assert!(expected.contains(&end), "{how}, seed {seed}: {end:?}\n{}", text(&output.stderr));
                killed += 1;
                *by.entry(how).or_insert(0) += 1;
                leave_halves(&place.join("killed/cut"));
                continue;
            }
        } else {
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "seed {seed}: {}", text(&output.stderr));
            rounds += 1;
        }
        let found = left(&place.join("killed/cut"));
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "seed {seed}");
        for (name, bytes) in &found {
            assert!(*bytes == wanted[name], "seed {seed}: {name} is not that of the comparison left alone");
        }
        fs::remove_dir_all(place.join("killed")).expect("removed");
    }
    let bytes: usize = wanted.values().map(Vec::len).sum();
    eprintln!("{killed} kills ({by:?}), {runs} runs, {rounds} times {} files of {bytes} bytes compared", wanted.len());
}
