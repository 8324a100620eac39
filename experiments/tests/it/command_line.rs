//! The program as a person meets it: one clear line for every mistake, and a comparison that can be interrupted.

use selfsup_report::results;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Changes that make a run of a second.
pub(crate) const SHORT: [&str; 5] = [
    "data=fashion-mnist-10k:200",
    "train.epochs=1",
    "train.batch=32",
    "evaluate.protocols=['knn']",
    "evaluate.online_every=0",
];

pub(crate) fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selfsup"));
    // With this variable a backtrace would come out wherever one can.
    command.args(arguments).current_dir(folder).env("RUST_BACKTRACE", "1").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder, arguments).output().expect("the program starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// The program must fail with one `error:` line that holds all of `words`, and without a word of its insides.
pub(crate) fn refuses(folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = run(folder, arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}:\n{errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(lines.len(), 1, "{arguments:?}: one line `error: ...`:\n{errors}");
    for word in words {
        assert!(lines[0].contains(word), "{arguments:?}: `{word}` is missing in\n{errors}");
    }
    for inside in ["panicked", "internal error", "backtrace", "Exception raised from", "frame #"] {
        assert!(!errors.contains(inside), "{arguments:?}: {inside}\n{errors}");
    }
}

pub(crate) fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_launcher_of_several_processes_is_refused() {
    let place = temporary();
    let place = place.path();
    let train = [&["pretrain", "simclr/cpu", "--out", "run"][..], &SHORT].concat();
    let with = |size: &str| program(place, &train).env("WORLD_SIZE", size).output().expect("the program starts");
    let output = with("2");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("error: the variable WORLD_SIZE is 2") && told.lines().count() == 1, "{told}");
    assert!(!place.join("run").exists(), "nothing was written");
    assert!(with("1").status.success(), "a launcher of one process is none");
}

#[test]
fn damaged_files_are_told_in_one_line() {
    let place = temporary();
    let place = place.path();
    let train = [&["pretrain", "simclr/cpu", "--out", "run"][..], &SHORT].concat();
    succeeds(place, &train);

    // A score without a column.
    let scores = fs::read_to_string(place.join("run/results.csv")).expect("results.csv");
    let cut: Vec<String> = scores
        .lines()
        .map(|line| line.split_once(',').map(|(_, rest)| rest.to_string()).expect("many columns"))
        .collect();
    fs::write(place.join("cut.csv"), cut.join("\n") + "\n").expect("a file");
    refuses(place, &["report", "cut.csv"], &["cut.csv", "run_id"]);

    // Another configuration in the same folder: the one key that differs is named.
    let mut other = train.clone();
    other.push("seed=5");
    refuses(place, &other, &["holds another run", "seed: 5 here, 0 there"]);

    // A checkpoint cut short, met by an evaluation and by a run that would go on from it.
    let path = place.join("run/checkpoints/last.safetensors");
    let bytes = fs::read(&path).expect("a checkpoint");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("a file");
    refuses(place, &["eval", "run", "knn"], &["last.safetensors", "damaged or cut short"]);
    fs::remove_file(place.join("run/DONE")).expect("a finished run");
    refuses(place, &train, &["last.safetensors", "damaged or cut short"]);
    fs::write(&path, b"").expect("a file");
    refuses(place, &train, &["last.safetensors", "damaged or cut short"]);
}

#[test]
fn a_run_is_judged_by_other_settings_without_changing_its_scores() {
    let place = temporary();
    let place = place.path();
    succeeds(place, &[&["pretrain", "simclr/cpu", "--out", "run"][..], &SHORT].concat());
    let scores = fs::read(place.join("run/results.csv")).expect("results.csv");
    let few = ["evaluate.finetune.epochs=1", "evaluate.fractions=[0.5]"];
    let told = succeeds(place, &[&["eval", "run", "finetune"][..], &few].concat());
    assert!(told.contains("finetune") && told.contains("accuracy_50%") && !told.contains("knn"), "{told}");
    let told = succeeds(place, &["eval", "run", "evaluate.knn.k=3"]);
    assert!(told.contains("knn"), "the run's own protocols: {told}");
    assert_eq!(fs::read(place.join("run/results.csv")).expect("results.csv"), scores);
    for (change, words) in [
        ("train.epochs=3", ["`train`", "only keys below `evaluate`"]),
        ("evaluate.finetune.epoch=1", ["`evaluate.finetune.epoch`", "did you mean `epochs`"]),
        ("evaluate.layer_grid=0", ["`evaluate.layer_grid` is 0", "at least 1"]),
    ] {
        refuses(place, &["eval", "run", change], &words);
    }
    // By its own settings the scores are written.
    succeeds(place, &["eval", "run", "layers"]);
    let rows = results::read(&place.join("run/results.csv")).expect("results.csv");
    assert!(rows.iter().any(|row| row.protocol == "layers" && row.metric == "linear_block1"));
    assert!(rows.iter().any(|row| row.protocol == "knn"), "beside the old ones");
}

/// The checkpoints below a folder and when they were written.
fn checkpoints(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("a study's folder")
        .map(|entry| entry.expect("an entry").path().join("checkpoints/last.safetensors"))
        .filter(|path| path.exists())
        .map(|path| (path.clone(), fs::metadata(&path).and_then(|m| m.modified()).expect("a time")))
        .collect();
    found.sort();
    found
}

#[test]
fn a_comparison_ends_in_rows_for_every_method_and_seed_and_is_done_once() {
    let place = temporary();
    let place = place.path();
    let study = r#"
        name = "tiny"
        seeds = [0, 1]
        [common]
        data = "fashion-mnist-10k:200"
        train = { epochs = 1, batch = 32 }
        evaluate = { protocols = ["knn"], online_every = 0, finetune = { epochs = 1, batch = 32 } }
        [[runs]]
        method = "simclr/cpu"
        [[runs]]
        method = "barlow-twins/cpu"
    "#;
    fs::write(place.join("tiny.toml"), study).expect("a file");
    succeeds(place, &["compare", "tiny.toml", "--out", "out"]);

    let folder = place.join("out/tiny");
    let rows = results::read(&folder.join("results.csv")).expect("results.csv");
    let found: BTreeSet<(&str, u64)> = rows.iter().map(|row| (row.method.as_str(), row.seed)).collect();
    let wanted =
        ["random", "supervised", "simclr", "barlow-twins"].into_iter().flat_map(|m| [(m, 0), (m, 1)]).collect();
    assert_eq!(found, wanted);
    assert!(rows.iter().all(|row| row.study == "tiny" && row.n_test == 200 && row.value.is_some()));
    let page = fs::read_to_string(folder.join("report.html")).expect("report.html");
    for name in ["simclr", "barlow-twins", "random", "supervised"] {
        assert!(page.contains(name), "report.html names {name}");
        for picture in ["confusion.svg", "confusion.png", "features.svg", "features.png", "neighbours.png"] {
            let runs = fs::read_dir(&folder).expect("the study's folder").map(|entry| entry.expect("an entry").path());
            let run =
                runs.into_iter().find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(name)));
            assert!(run.expect(name).join("plots").join(picture).exists(), "{name}: {picture}");
        }
    }
    assert_eq!(page.matches("the training images nearest to each").count(), 4, "each method's, and said twice");

    let (before, scores) = (checkpoints(&folder), fs::read(folder.join("results.csv")).expect("results.csv"));
    assert_eq!(before.len(), 4, "two methods, two seeds");
    succeeds(place, &["compare", "tiny.toml", "--out", "out"]);
    assert_eq!(checkpoints(&folder), before, "a second comparison trains nothing");
    assert_eq!(fs::read(folder.join("results.csv")).expect("results.csv"), scores, "and gives the same rows");

    // Two processes side by side make what one makes.
    let halves = ["1/2", "2/2"].map(|half| {
        let arguments = ["compare", "tiny.toml", "--out", "halves", "--shard", half];
        (half, program(place, &arguments).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts"))
    });
    for (half, child) in halves {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{half}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("4 runs are done"), "{half}: {}", text(&output.stdout));
    }
    let shared = place.join("halves/tiny");
    assert!(!shared.join("results.csv").exists(), "a half makes no table");
    let before = checkpoints(&shared);
    succeeds(place, &["compare", "tiny.toml", "--out", "halves"]);
    assert_eq!(checkpoints(&shared), before, "both halves together leave nothing to train");
    assert_eq!(self::scores(&shared), self::scores(&folder));
    let output = run(place, &["compare", "tiny.toml", "--shard", "3/2"]);
    assert!(text(&output.stderr).contains("expected I/N with 1 <= I <= N"), "{}", text(&output.stderr));
    // A half begun anew leaves the other half alone.
    let plan = ["compare", "tiny.toml", "--out", "halves", "--shard", "2/2"];
    let planned = succeeds(place, &[&plan[..], &["--dry-run"]].concat());
    succeeds(place, &[&plan[..], &["--resume", "never"]].concat());
    let again = checkpoints(&shared);
    for (old, new) in before.iter().zip(&again) {
        let own = planned.lines().any(|line| old.0.to_string_lossy().contains(line.split(' ').next().expect("a name")));
        assert_eq!(old != new, own, "{}", old.0.display());
    }
}

/// results.csv without the seconds it took.
pub(crate) fn scores(run: &Path) -> Vec<results::Row> {
    let mut rows = results::read(&run.join("results.csv")).expect("results.csv");
    rows.iter_mut().for_each(|row| row.wall_s = 0.0);
    rows
}

#[test]
fn a_second_process_is_refused_in_a_runs_folder_while_the_first_is_at_work() {
    let place = temporary();
    let place = place.path();
    let train = [&["pretrain", "simclr/cpu", "--out", "run"][..], &SHORT].concat();
    fs::create_dir(place.join("run")).expect("a folder");
    let lock = fs::File::create(place.join("run/LOCK")).expect("a file");
    lock.lock().expect("the first has it");
    refuses(place, &train, &["run: another process is at work on this run"]);
    assert!(!place.join("run/config.toml").exists(), "nothing was written");
    drop(lock);
    succeeds(place, &train);
    // Finished, it is only read, by as many as like.
    let lock = fs::File::open(place.join("run/LOCK")).expect("a file");
    lock.lock().expect("nobody has it");
    succeeds(place, &train);
    refuses(place, &[&train[..], &["--resume", "never"]].concat(), &["another process"]);
    assert!(place.join("run/DONE").exists(), "nothing was taken away");
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_a_checkpoint_from_which_the_same_command_goes_on() {
    let place = temporary();
    let place = place.path();
    let longer = ["data=fashion-mnist-10k:2000", "train.epochs=2"];
    let command = |out: &'static str| [&["pretrain", "byol/cpu", "--out", out][..], &SHORT, &longer].concat();
    succeeds(place, &command("whole/run"));

    let mut child =
        program(place, &command("cut/run")).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
    let run = place.join("cut/run");
    let began = Instant::now();
    let rows = || fs::read_to_string(run.join("metrics.csv")).map_or(0, |text| text.lines().count());
    while rows() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "no row of metrics.csv after a minute");
        assert!(child.try_wait().expect("a child").is_none(), "it ended before its first row");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    let output = child.wait_with_output().expect("it ends");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains("the same command goes on from here"), "{told}");
    let checkpoint = run.join("checkpoints/last.safetensors");
    assert!(checkpoint.exists() && !run.join("DONE").exists() && !run.join("results.csv").exists());

    let again = self::run(place, &command("cut/run"));
    let told = text(&again.stderr);
    assert!(again.status.success() && told.contains("goes on at step"), "{told}");
    let whole = place.join("whole/run");
    assert_eq!(scores(&run), scores(&whole));
    for file in ["metrics.csv", "checkpoints/last.safetensors", "export/encoder.safetensors"] {
        let read = |run: &Path| fs::read(run.join(file)).expect(file);
        assert!(read(&run) == read(&whole), "{file} of an interrupted run differs from an uninterrupted one's");
    }
}
