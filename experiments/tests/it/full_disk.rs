//! A run on a disk that fills up: one sentence, nothing half-written, and the same bytes once there is space again.
//!
//! `SELFSUP_FAULTS=40 cargo test --release -p selfsup-experiments --test it full_disk` tries so many sizes of the disk.
#![cfg(unix)]

use crate::command_line::{scores, temporary, text};
use crate::interop::skipped;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const RUN: [&str; 9] = [
    "pretrain",
    "simclr/cpu",
    "--out",
    "disk/run",
    "data=fashion-mnist-10k:200",
    "train.epochs=1",
    "train.batch=32",
    "evaluate.protocols=['knn']",
    "evaluate.online_every=0",
];

/// Runs a shell script in `folder`, in which "$@" is the run.
fn script(folder: &Path, before: &[&str], script: &str) -> Output {
    script_of(folder, before, script, &RUN)
}

/// The same with the program on other arguments.
fn script_of(folder: &Path, before: &[&str], script: &str, arguments: &[&str]) -> Output {
    let mut words = before.to_vec();
    words.extend(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_selfsup")]);
    words.extend(arguments);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(folder).env("NO_COLOR", "1").stdin(Stdio::null());
    command.output().expect("a shell starts")
}

/// What a run leaves that depends on no clock: the name of the file -> its bytes.
fn left(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::from([("results.csv".to_string(), format!("{:?}", scores(run)).into_bytes())]);
    for place in ["", "checkpoints", "export", "plots"] {
        for entry in fs::read_dir(run.join(place)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(run).expect("below it").display().to_string();
            assert!(!name.ends_with(".tmp"), "{name}: left behind");
            if path.is_file() && !["meta.json", "results.csv", "events.out.tfevents.selfsup"].contains(&name.as_str()) {
                files.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// No file grows beyond so many blocks of 512 bytes. The signal that such a limit sends would end the program before it
/// can say anything; disks send none.
fn limited(blocks: usize) -> String {
    format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$@""#)
}

/// From less than the smallest file to nearly the largest of `files`, in even steps of their logarithm: blocks of 512 bytes.
fn limits<'a>(files: &'a BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = usize> + use<'a> {
    let largest = files.values().map(Vec::len).max().expect("files");
    let tries = number("SELFSUP_FAULTS", 3);
    (0..tries).map(move |i| (0.9 * largest as f64 / 512.0).powf(i as f64 / (tries - 1).max(1) as f64) as usize)
}

/// The failed run says which file, in one line.
fn told(output: &Output, how: &str) -> String {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{how}:\n{errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("error:")).collect();
    assert!(lines.len() == 1 && !errors.contains("internal error"), "{how}:\n{errors}");
    assert!(lines[0].contains("disk/run"), "{how}: the file is named: {}", lines[0]);
    lines[0].into()
}

/// The file that an error line names.
fn file_of(line: &str) -> String {
    line.trim_start_matches("error: ").split(": ").next().unwrap_or_default().to_string()
}

/// What a run leaves that has space.
fn undisturbed(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let whole = script(place, &[], r#""$@" && mv disk whole"#);
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    left(&place.join("whole/run"))
}

fn same(run: &Path, wanted: &BTreeMap<String, Vec<u8>>, how: &str) {
    let found = left(run);
    assert!(found.keys().eq(wanted.keys()), "{how}: {:?}", found.keys());
    for (name, bytes) in found {
        assert!(bytes == wanted[&name], "{how}: {name} is not that of a run which had space");
    }
}

/// No file grows beyond so many blocks: the file that would is the one that fails, whichever it is.
#[test]
fn a_file_that_cannot_grow_fails_the_run_and_nothing_is_lost() {
    let place = temporary();
    let place = place.path();
    let wanted = undisturbed(place);
    let mut failed = BTreeMap::new();
    for blocks in limits(&wanted) {
        let how = format!("{blocks} blocks");
        let output = script(place, &[], &limited(blocks));
        *failed.entry(file_of(&told(&output, &how))).or_insert(0) += 1;
        let again = script(place, &[], r#"exec "$@""#);
        assert!(again.status.success(), "{how}: {}", text(&again.stderr));
        same(&place.join("disk/run"), &wanted, &how);
        fs::remove_dir_all(place.join("disk")).expect("removed");
    }
    eprintln!("limits; the files that failed: {failed:?}");
}

/// The event file of TensorBoard is written as a run goes on, and fails as any other.
#[test]
fn an_event_file_on_a_full_device_fails_the_run_and_is_named() {
    let place = temporary();
    let place = place.path();
    let wanted = undisturbed(place);
    let stopped = script(place, &[], r#""$@" && rm disk/run/DONE disk/run/checkpoints/*"#);
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    let events = "disk/run/events.out.tfevents.selfsup";
    fs::remove_file(place.join(events)).expect("the event file");
    std::os::unix::fs::symlink("/dev/full", place.join(events)).expect("a link");
    let line = told(&script(place, &[], r#"exec "$@""#), "a full device");
    assert!(line.contains(events), "{line}");
    fs::remove_file(place.join(events)).expect("the link");
    assert!(script(place, &[], r#"exec "$@""#).status.success());
    same(&place.join("disk/run"), &wanted, "a full device");
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).expect("a file"));
        }
    }
    found
}

/// What is made of a run, anew over an earlier one: each file is the earlier or the new one, and those are the same.
#[test]
fn reports_and_features_that_cannot_grow_leave_the_earlier_ones() {
    let place = temporary();
    let place = place.path();
    assert!(script(place, &[], r#"exec "$@""#).status.success());
    let made: [(&[&str], &str); 3] = [
        (&["report", "disk/run", "--out", "report"], "report"),
        (&["features", "disk/run", "--out", "features/test.npy"], "features"),
        (&["features", "disk/run", "--out", "table/test.csv"], "table"),
    ];
    for (arguments, folder) in made {
        fs::create_dir_all(place.join(folder)).expect("a folder");
        assert!(script_of(place, &[], r#"exec "$@""#, arguments).status.success());
        let wanted = files(&place.join(folder));
        let mut failed = BTreeMap::new();
        for blocks in limits(&wanted) {
            let output = script_of(place, &[], &limited(blocks), arguments);
            let errors = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}, {blocks} blocks:\n{errors}");
            let line = errors.lines().find(|line| line.starts_with("error:")).unwrap_or_default();
            assert!(line.contains(&format!("{folder}/")), "{blocks} blocks: the file is named: {errors}");
            assert!(files(&place.join(folder)) == wanted, "{arguments:?}, {blocks} blocks: {line}");
            *failed.entry(file_of(line)).or_insert(0) += 1;
        }
        eprintln!("{folder}: limits; the files that failed: {failed:?}");
    }
}

/// A file system in memory that holds so many KiB and then no more, of this process alone.
#[test]
fn a_full_disk_fails_the_run_and_nothing_is_lost() {
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    let mounts = Command::new(unshare[0])
        .args(&unshare[1..])
        .args(["sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .stdin(Stdio::null())
        .output();
    if !mounts.is_ok_and(|output| output.status.success()) {
        skipped(
            "a_full_disk_fails_the_run_and_nothing_is_lost",
            "nobody may mount a file system here (unshare --user --mount)",
        );
        return;
    }
    let place = temporary();
    let place = place.path();
    let wanted = undisturbed(place);
    let all = wanted.values().map(Vec::len).sum::<usize>() / 1024;
    let mut failed = BTreeMap::new();
    let tries = number("SELFSUP_FAULTS", 3);
    for i in 0..tries {
        let kib = 8 + (all - 8) * i / tries;
        let how = format!("{kib} KiB of {all}");
        fs::create_dir_all(place.join("disk")).expect("a folder");
        // Full, it fails; larger, it goes on; then what it wrote leaves the file system that ends with this script.
        let output = script(
            place,
            &unshare,
            &format!(
                r#"mount -t tmpfs -o size={kib}k tmpfs disk || exit 90
                "$@" 2> first; code=$?
                mount -o remount,size=1g disk || exit 91
                "$@" 2> second || exit 92
                cp -r disk found || exit 93
                exit $code"#
            ),
        );
        let read = |name: &str| fs::read(place.join(name)).unwrap_or_default();
        let ended = output.status.code();
        assert!(ended.is_some_and(|code| code < 90), "{how}: {ended:?}\n{}", text(&read("second")));
        *failed.entry(file_of(&told(&Output { stderr: read("first"), ..output }, &how))).or_insert(0) += 1;
        same(&place.join("found/run"), &wanted, &how);
        fs::remove_dir_all(place.join("found")).expect("removed");
    }
    eprintln!("{tries} sizes of a disk; the files that failed: {failed:?}");
}
