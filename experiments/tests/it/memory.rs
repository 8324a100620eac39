//! Training for longer takes no more memory.
//!
//! `SELFSUP_MEMORY=1 cargo test --release -p selfsup-experiments --test it memory -- --nocapture` tries every method and
//! prints the peak of each.
#![cfg(target_os = "linux")]

use crate::command_line::{succeeds, temporary};
use crate::{SAMPLES, methods};
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::run;
use selfsup_report::picture::{Grid, Picture};
use std::fs;
use std::path::Path;

/// Less than 60 steps add up to that each keep what was made of a batch: its two views alone (of 32 x 28 x 28 numbers) are
/// 12 MiB, and what the network makes of them is more. The heap of equal runs mostly differs by less.
const SLACK_MIB: f64 = 12.0;

/// The largest resident memory of a training in batches of 32, in MiB.
fn peak(folder: &Path, name: &str, settings: &[&str]) -> f64 {
    let short = ["train.batch=32", "train.warmup=0.5", "evaluate.protocols=[]", "evaluate.online_every=0"];
    let arguments = ["pretrain", name, "--threads", "1", "--resume", "never", "--out", "run"];
    succeeds(folder, &[&arguments[..], &short, settings].concat());
    run::read_meta(&folder.join("run")).and_then(|meta| meta.peak_memory_mib).expect("Linux tells it")
}

#[test]
fn training_for_longer_takes_no_more_memory() {
    let few = ["moco/cpu", "deepcluster/cpu", "mae/cpu", "bert/cpu"];
    let all = std::env::var_os("SELFSUP_MEMORY").is_some();
    let place = temporary();
    for (_, name) in methods().into_iter().filter(|(_, name)| name.ends_with("/cpu")) {
        if all || few.contains(&name.as_str()) {
            // Six steps an epoch.
            let data = format!("data={}:{SAMPLES}", RunConfig::resolve(&name, &[]).expect("a preset").data);
            let peak = |epochs| peak(place.path(), &name, &[&data, &format!("train.epochs={epochs}")]);
            let [short, long] = [2, 12].map(peak);
            eprintln!("{name}: at most {short:.0} MiB in 12 steps, {long:.0} MiB in 72");
            // The heap of one run may lie worse than another's; what is kept of every step goes on growing.
            if long > short + SLACK_MIB {
                let longer = peak(72);
                eprintln!("{name}: at most {longer:.0} MiB in 432 steps");
                assert!(longer <= long + SLACK_MIB, "{name}: {short:.0}, {long:.0} and {longer:.0} MiB");
            }
        }
    }
}

/// Pixels of a folder are decoded when a batch needs them, and are not kept: 1.3 GiB of them take no more memory than a
/// fifth of them.
#[test]
fn a_folder_of_images_need_not_fit_into_memory() {
    const SIDE: usize = 1000;
    let place = temporary();
    let row = (0..SIDE).flat_map(|x| [(x / 4) as u8, 90, 200]);
    let picture = Picture::new(SIDE, SIDE, 3, row.collect::<Vec<u8>>().repeat(SIDE)).expect("a picture");
    let png = Grid { rows: vec![vec![picture]], ..Grid::default() }.png().expect("a PNG");
    let [few, many] = [96, 480].map(|images| {
        let folder = format!("of-{images}");
        fs::create_dir(place.path().join(&folder)).expect("a folder");
        for i in 0..images {
            fs::write(place.path().join(&folder).join(format!("{i}.png")), &png).expect("a file");
        }
        let data = format!("data=folder:{folder}");
        peak(place.path(), "simclr/cpu", &[&data, "size=32", "train.epochs=1"])
    });
    eprintln!("a folder of 96 images of {SIDE} x {SIDE}: {few:.0} MiB; of 480: {many:.0} MiB");
    assert!(many < few + 64.0, "{few:.0} MiB for 96 images, but {many:.0} MiB for 480");
}
