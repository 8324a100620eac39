//! Training for longer takes no more memory.
//!
//! `SELFSUP_MEMORY=1 cargo test --release -p selfsup-experiments --test it memory -- --nocapture` tries every method and
//! prints the peak of each.
#![cfg(target_os = "linux")]

use crate::command_line::{program, temporary};
use crate::{SAMPLES, methods};
use selfsup_experiments::config::RunConfig;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Less than 60 steps add up to that each keep what was made of a batch: its two views alone (of 32 x 28 x 28 numbers) are
/// 12 MiB, and what the network makes of them is more. More than the heap differs from run to run, which was up to 4 MiB.
const SLACK_MIB: f64 = 12.0;

/// The largest resident memory of a training of so many epochs of six steps, in MiB.
fn peak(folder: &Path, name: &str, epochs: u64) -> f64 {
    let data = format!("data={}:{SAMPLES}", RunConfig::resolve(name, &[]).expect("a preset").data);
    let (out, epochs) = (format!("{}-{epochs}", name.replace('/', "-")), format!("train.epochs={epochs}"));
    let short = ["train.batch=32", "train.warmup=0.5", "evaluate.protocols=[]", "evaluate.online_every=0"];
    let arguments = [&["pretrain", name, "--threads", "1", "--out", &out, &data, &epochs][..], &short].concat();
    let mut child =
        program(folder, &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0.0;
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("a child") {
            break ended;
        }
        // Of a process that has just ended there is no such line.
        let line = fs::read_to_string(&status).unwrap_or_default();
        let line = line.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()) {
            most = kib / 1024.0;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(ended.success() && most > 0.0, "{name}: {ended}");
    most
}

#[test]
fn training_for_longer_takes_no_more_memory() {
    let few = ["moco/cpu", "deepcluster/cpu", "mae/cpu", "pixelcnn/cpu"];
    let all = std::env::var_os("SELFSUP_MEMORY").is_some();
    let place = temporary();
    for (_, name) in methods().into_iter().filter(|(_, name)| name.ends_with("/cpu")) {
        if all || few.contains(&name.as_str()) {
            let [short, long] = [2, 12].map(|epochs| peak(place.path(), &name, epochs));
            eprintln!("{name}: at most {short:.0} MiB in 12 steps, {long:.0} MiB in 72");
            assert!(long < short + SLACK_MIB, "{name}: {short:.0} MiB in 12 steps, but {long:.0} MiB in 72");
        }
    }
}
