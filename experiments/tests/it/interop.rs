//! Weights and features as Python's tools read and write them. These tests are skipped, loudly, where Python has no
//! torch, torchvision and timm; SELFSUP_PYTHON names one that has.

use crate::command_line::{succeeds, temporary};
use crate::machine;
use selfsup_core::augment::views::plain;
use selfsup_core::{Tensor, no_grad};
use selfsup_experiments::run;
use selfsup_experiments::study::Study;
use selfsup_train::checkpoint;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

/// Names the Python that has what these tests need.
const PYTHON: &str = "SELFSUP_PYTHON";
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/load_export.py");
const NEEDS: &str = "torch, torchvision, timm, safetensors and numpy";

fn python(python: &OsString, program: &str, arguments: &[String]) -> std::io::Result<Output> {
    // What leads this process to its LibTorch would lead Python's torch there too.
    Command::new(python).arg(program).args(arguments).env_remove("LD_LIBRARY_PATH").env("OMP_NUM_THREADS", "2").output()
}

/// Python with all that a program needs; `None`, with a loud line, where there is none.
pub(crate) fn interpreter(test: &str, program: &str, needs: &str) -> Option<OsString> {
    let named = std::env::var_os(PYTHON);
    let found = named.clone().unwrap_or_else(|| "python3".into());
    let why = match python(&found, program, &["check".into()]) {
        Ok(output) if output.status.success() => return Some(found),
        Ok(output) => String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no reason given").to_string(),
        Err(why) => why.to_string(),
    };
    let told = format!(
        "{} cannot run {program} ({why}): it needs {needs}; let {PYTHON} name a Python that has it",
        found.display()
    );
    // Who names a Python means it to be used.
    assert!(named.is_none(), "{told}");
    skipped(test, &told);
    None
}

/// Tells that a test is skipped, by a line that no test runner swallows: what eprintln! says is not shown of a test that
/// passes.
pub(crate) fn skipped(test: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("there is a terminal or a log");
}

pub(crate) fn checks(interpreter: &OsString, program: &str, arguments: &[String]) {
    let output = python(interpreter, program, arguments).expect("Python starts");
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{arguments:?}:\n{}{}", told[0], told[1]);
    print!("{}", told[0]);
}

/// Trains for a step, so that weights and running statistics have moved.
fn trained(folder: &Path, run: &str, method: &str, data: &str, encoder: &str) {
    let (data, encoder) = (format!("data={data}:32"), format!("encoder={encoder}"));
    let short = ["train.epochs=1", "train.batch=32", "evaluate.protocols=[]", "evaluate.online_every=0"];
    succeeds(folder, &[&["pretrain", method, "--out", run, &data, &encoder][..], &short].concat());
}

/// The first twelve test images of a run as `x`, their `features`, and the `labels` of all, in a file.
fn write_features(run: &Path, to: &Path) {
    let (_, dataset, subject) = run::open(run, &machine()).expect("a run");
    let test = dataset.test.as_ref().expect("a test part");
    let rows: Vec<usize> = (0..12).collect();
    let x = plain(&*test.samples, &rows, subject.shape.size() as usize, &dataset.normalisation).expect("images");
    let features: Tensor = no_grad(|| subject.method.features(&x, false));
    let labels: Vec<i64> = test.labels.iter().flatten().map(|&label| i64::from(label)).collect();
    let named = [("x", x), ("features", features), ("labels", Tensor::from_slice(&labels))];
    let tensors = named.map(|(name, x)| (name.to_string(), x));
    checkpoint::write(to, &tensors, Default::default()).expect("a file");
}

/// (method, data, encoder): colour and grey, both stems, both kinds of blocks; patches of several sizes.
const EXPORTED: [(&str, &str, &str); 7] = [
    ("simclr/cpu", "emoji-mini", "resnet18"),
    ("simclr/cpu", "emoji-mini", "resnet18-cifar"),
    ("simclr/cpu", "fashion-mnist-10k", "resnet34"),
    ("byol/cpu", "emoji-mini", "resnet50-zero"),
    ("mae/cpu", "emoji-mini", "vit-tiny/8"),
    ("mae/cpu", "fashion-mnist-10k", "vit-micro/4"),
    ("simclr/cpu", "emoji-mini", "vit-small/16"),
];

#[test]
fn torchvision_and_timm_load_what_is_exported() {
    let Some(program) = interpreter("torchvision_and_timm_load_what_is_exported", PROGRAM, NEEDS) else { return };
    let place = temporary();
    let path = |name: &str| place.path().join(name).display().to_string();
    let mut arguments = vec!["compare".to_string()];
    for (i, (method, data, encoder)) in EXPORTED.into_iter().enumerate() {
        let (run, input) = (format!("run{i}"), path(&format!("input{i}.safetensors")));
        trained(place.path(), &run, method, data, encoder);
        write_features(&place.path().join(&run), Path::new(&input));
        arguments.extend([encoder.to_string(), path(&format!("{run}/export/encoder.safetensors")), input]);
    }
    checks(&program, PROGRAM, &arguments);
    succeeds(place.path(), &["features", "run0", "--out", "test.npy"]);
    checks(&program, PROGRAM, &["numpy".into(), path("test.npy"), path("input0.safetensors")]);
}

/// (encoder, data, channels, side): a ViT of timm has a position for the class token, one of ours has none.
const GIVEN: [(&str, &str, &str, &str); 4] = [
    ("resnet18", "emoji-mini", "3", "32"),
    ("resnet50-cifar", "fashion-mnist-10k", "1", "28"),
    ("vit-tiny/8", "emoji-mini", "3", "32"),
    ("vit-micro/7", "fashion-mnist-10k", "1", "28"),
];

#[test]
fn torchvisions_and_timms_weights_are_where_a_run_starts() {
    let Some(program) = interpreter("torchvisions_and_timms_weights_are_where_a_run_starts", PROGRAM, NEEDS) else {
        return;
    };
    let place = temporary();
    let path = |name: &str| place.path().join(name).display().to_string();
    let mut make = vec!["make".to_string()];
    for (i, (encoder, _, channels, side)) in GIVEN.into_iter().enumerate() {
        make.extend([encoder, channels, side].map(String::from));
        make.push(path(&format!("{i}.safetensors")));
    }
    checks(&program, PROGRAM, &make);
    let mut compare = vec!["compare-with".to_string()];
    for (i, (encoder, data, ..)) in GIVEN.into_iter().enumerate() {
        let format = if i % 2 == 0 { "safetensors" } else { "pth" };
        let text = format!(
            "name = 'given'\nseeds = [0]\n[common]\ndata = '{data}:16'\nencoder = '{encoder}'\nevaluate.protocols = \
             ['geometry']\n[[runs]]\nmethod = 'random'\nvariant = 'given'\nstart = '{i}.{format}'\n"
        );
        fs::write(path("given.toml"), text).expect("a file");
        succeeds(place.path(), &["compare", "given.toml"]);
        let runs = Study::read(Path::new(&path("given.toml")), &[]).expect("a study").runs().expect("runs");
        let run = runs.iter().find(|run| run.variant == "given").expect("the row").run_id().expect("an id");
        let input = path(&format!("input{i}.safetensors"));
        write_features(&place.path().join("runs/given").join(run), Path::new(&input));
        compare.extend([path(&format!("{i}.safetensors")), input]);
    }
    checks(&program, PROGRAM, &compare);
}
