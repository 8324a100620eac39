//! Training for longer takes no more memory.
//!
//! `SELFSUP_MEMORY=1 cargo test --release -p selfsup-experiments --test it memory -- --nocapture` tries every method and
//! prints the peak of each.
#![cfg(target_os = "linux")]

use crate::command_line::{succeeds, temporary};
use crate::{SAMPLES, methods};
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::run;
use std::path::Path;

/// Less than 60 steps add up to that each keep what was made of a batch: its two views alone (of 32 x 28 x 28 numbers) are
/// 12 MiB, and what the network makes of them is more. More than the heap differs from run to run, which was up to 4 MiB.
const SLACK_MIB: f64 = 12.0;

/// The largest resident memory of a training of so many epochs of six steps, in MiB.
fn peak(folder: &Path, name: &str, epochs: u64) -> f64 {
    let data = format!("data={}:{SAMPLES}", RunConfig::resolve(name, &[]).expect("a preset").data);
    let (out, epochs) = (format!("{}-{epochs}", name.replace('/', "-")), format!("train.epochs={epochs}"));
    let short = ["train.batch=32", "train.warmup=0.5", "evaluate.protocols=[]", "evaluate.online_every=0"];
    succeeds(folder, &[&["pretrain", name, "--threads", "1", "--out", &out, &data, &epochs][..], &short].concat());
    run::read_meta(&folder.join(&out)).and_then(|meta| meta.peak_memory_mib).expect("Linux tells it")
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
