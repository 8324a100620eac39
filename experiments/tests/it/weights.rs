//! Weights and features in and out, without Python: what `start` gives an encoder and what it refuses, and what
//! `selfsup features` writes.

use crate::command_line::{refuses, succeeds, temporary};
use crate::{CPU, dataset, machine, small};
use selfsup_core::Tensor;
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::run::{self, build, build_from};
use selfsup_experiments::study::Study;
use selfsup_experiments::weights::Start;
use selfsup_report::results;
use selfsup_train::checkpoint;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const SHORT: [&str; 5] = [
    "data=fashion-mnist-10k:100",
    "encoder=convnet-tiny",
    "train.epochs=1",
    "train.batch=32",
    "evaluate.online_every=0",
];
const EXPORT: &str = "run/export/encoder.safetensors";

/// Trains a little in `run`, which exports its encoder.
fn exported(place: &Path) {
    let train = ["pretrain", "simclr/cpu", "--out", "run", "evaluate.protocols=['knn']"];
    succeeds(place, &[&train[..], &SHORT].concat());
}

/// Features and labels as `selfsup features` wrote them, read by the format's own description.
fn read_npy(path: &Path) -> (String, Vec<u8>) {
    let file = fs::read(path).expect("a file");
    assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
    let behind = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
    assert_eq!(behind % 64, 0, "values are aligned");
    let header = String::from_utf8(file[10..behind].to_vec()).expect("text");
    (header.trim_end().to_string(), file[behind..].to_vec())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}

#[test]
fn features_come_back_from_both_formats() {
    let place = temporary();
    let place = place.path();
    exported(place);
    let told = succeeds(place, &["features", "run"]);
    assert_eq!(told, "run/export/features-test.npy\nrun/export/features-test.labels.npy\n");
    succeeds(place, &["features", "run", "--split", "train", "--out", "train.csv"]);
    succeeds(place, &["features", "run", "--split", "train", "--out", "train.npy"]);

    let (_, data, subject) = run::open(&place.join("run"), &machine()).expect("a run");
    let test = data.test.as_ref().expect("a test part");
    let d = 128;
    let (header, bytes) = read_npy(&place.join("run/export/features-test.npy"));
    assert_eq!(header, format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {d}), }}", test.len()));
    let encode = |x: &Tensor| subject.method.features(x, false);
    let x = selfsup_experiments::evaluation::extract(&encode, &*test.samples, &subject, &data).expect("features");
    let want = Vec::<f32>::try_from(x.view([-1])).expect("values");
    let got = floats(&bytes);
    assert_eq!(got.len(), want.len());
    // The program had as many threads as there are cores, this test two.
    let far = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-5, "{far}");
    let (header, bytes) = read_npy(&place.join("run/export/features-test.labels.npy"));
    assert_eq!(header, format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({},), }}", test.len()));
    let labels: Vec<u16> =
        bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")) as u16).collect();
    assert_eq!(Some(labels), test.labels);

    // The other format has the same bits.
    let text = fs::read_to_string(place.join("train.csv")).expect("a file");
    let mut lines = text.lines();
    let head = lines.next().expect("a header");
    assert!(head.starts_with("f0,f1,") && head.ends_with(&format!("f{},label", d - 1)), "{head}");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), data.train.len());
    let values: Vec<f32> = rows.iter().flat_map(|row| row[..d].iter().map(|x| x.parse().expect("a number"))).collect();
    assert_eq!(values, floats(&read_npy(&place.join("train.npy")).1));
    let labels: Vec<u16> = rows.iter().map(|row| row[d].parse().expect("a label")).collect();
    assert_eq!(Some(labels), data.train.labels);

    refuses(place, &["features", "run", "--out", "x.txt"], &["x.txt", ".npy or .csv"]);
    refuses(place, &["features", "nowhere"], &["nowhere", "expected the folder of a run"]);
    refuses(place, &["features", "run", "--out", "none/x.npy"], &["none/x.npy", "a folder that exists"]);
    assert!(!place.join("none").exists() && !place.join("x.txt").exists(), "nothing was written");
}

#[test]
fn a_key_that_is_not_used_changes_no_configuration() {
    let plain = RunConfig::resolve("simclr/cpu", &[]).expect("a preset");
    let empty = small("simclr/cpu", &["start=''"]).expect("a preset");
    assert!(!plain.to_toml().expect("TOML").contains("start ="));
    assert_eq!(empty.hash().expect("a hash"), small("simclr/cpu", &[]).expect("a preset").hash().expect("a hash"));
    let given = small("simclr/cpu", &["start='w.safetensors'"]).expect("a preset");
    assert_ne!(given.hash().expect("a hash"), empty.hash().expect("a hash"));
    let back: RunConfig = toml::from_str(&given.to_toml().expect("TOML")).expect("it reads itself");
    assert_eq!(back, given);
}

#[test]
fn networks_that_follow_the_encoder_start_with_its_given_weights() {
    let place = temporary();
    let place = place.path();
    exported(place);
    let _machine = machine();
    let path = place.join(EXPORT);
    let saved = checkpoint::read(&path).expect("an export").tensors;
    for method in ["byol/cpu", "moco/cpu", "simclr/cpu"] {
        let start = format!("start='{}'", path.display());
        let config = small(method, &["encoder=convnet-tiny", &start]).expect("a configuration");
        let data = dataset(&config);
        let start = Start::of(&config).expect("weights");
        let subject = build_from(start.as_ref(), &config, None, &data, CPU).expect("a method");
        let plain = build(&config, None, &data, CPU).expect("a method");
        let mut followers = 0;
        for (variable, untouched) in subject.store.variables().iter().zip(plain.store.variables()) {
            let name = variable.name.as_str();
            assert_eq!(name, untouched.name);
            match name.split_once("encoder.") {
                Some((before, rest)) => {
                    assert_eq!(variable.tensor, saved[rest], "{method}: {name}");
                    followers += usize::from(!before.is_empty());
                }
                None => assert_eq!(variable.tensor, untouched.tensor, "{method}: {name} is not given"),
            }
        }
        assert_eq!(followers, if method == "simclr/cpu" { 0 } else { saved.len() }, "{method}");
    }
}

#[test]
fn given_weights_are_a_row_of_a_comparison() {
    let place = temporary();
    let place = place.path();
    exported(place);
    let study = "name = 'given'\nseeds = [0]\n[common]\ndata = 'fashion-mnist-10k:100'\nencoder = 'convnet-tiny'\n\
                 evaluate.protocols = ['geometry']\n[[runs]]\nmethod = 'random'\nvariant = 'exported'\n\
                 start = 'run/export/encoder.safetensors'\n";
    fs::write(place.join("given.toml"), study).expect("a file");
    let table = succeeds(place, &["compare", "given.toml"]);
    assert!(table.contains("random (exported)"), "{table}");

    let runs = Study::read(&place.join("given.toml"), &[]).expect("a study").runs().expect("runs");
    assert_eq!(runs.len(), 2, "the reference and the row");
    let folder = |i: usize| format!("runs/given/{}", runs[i].run_id().expect("an id"));
    let rows = results::read(&place.join("runs/given/results.csv")).expect("scores");
    let rank = |variant: &str| {
        rows.iter()
            .find(|r| r.variant == variant && r.metric == "effective_rank")
            .and_then(|r| r.value)
            .expect("a score")
    };
    assert_ne!(rank(""), rank("exported"), "the reference starts from its own values");
    let meta = fs::read_to_string(place.join(folder(1)).join("meta.json")).expect("meta.json");
    let meta: serde_json::Value = serde_json::from_str(&meta).expect("JSON");
    let sum = Command::new("sha256sum").arg(place.join(EXPORT)).output().expect("sha256sum");
    let sum = String::from_utf8_lossy(&sum.stdout)[..64].to_string();
    assert_eq!(meta["start"]["sha256"], sum);
    assert_eq!(meta["start"]["file"], EXPORT);

    // Its features are those of the run the weights come from, also once the file is gone.
    for part in ["run", &folder(1)] {
        succeeds(place, &["--threads", "1", "features", part]);
    }
    let features = |run: &str| fs::read(place.join(run).join("export/features-test.npy")).expect("features");
    assert!(features("run") == features(&folder(1)), "the same bits");
    fs::rename(place.join(EXPORT), place.join("away")).expect("a file");
    succeeds(place, &["eval", &folder(1), "knn"]);
    succeeds(place, &["--threads", "1", "features", &folder(1)]);
    assert!(features("run") == features(&folder(1)), "the same bits");
    succeeds(place, &["compare", "given.toml"]);

    // Other weights under the same name are no reason to give the old scores.
    let mut other: Vec<(String, Tensor)> =
        checkpoint::read(&place.join("away")).expect("an export").tensors.into_iter().collect();
    other.iter_mut().for_each(|(_, x)| *x = &*x + 1.0);
    checkpoint::write(&place.join(EXPORT), &other, Default::default()).expect("a file");
    refuses(place, &["compare", "given.toml"], &["holds other weights", "--resume never"]);
    fs::write(place.join("given.toml"), study.replace("variant = 'exported'\n", "")).expect("a file");
    refuses(place, &["compare", "given.toml"], &["random", "`start`", "`variant`"]);
}

#[test]
fn weights_that_do_not_fit_are_refused_in_one_line() {
    let place = temporary();
    let place = place.path();
    exported(place);
    let good: BTreeMap<String, Tensor> =
        checkpoint::read(&place.join(EXPORT)).expect("an export").tensors.into_iter().collect();
    let n = good.len().to_string();
    let first = good.keys().find(|name| name.ends_with("weight")).expect("a weight").clone();
    let write = |name: &str, change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors: BTreeMap<String, Tensor> =
            good.iter().map(|(name, x)| (name.clone(), x.shallow_clone())).collect();
        change(&mut tensors);
        let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
        checkpoint::write(&place.join(name), &tensors, Default::default()).expect("a file");
    };
    let integer = |n: i64| Tensor::from_slice(&[n]);
    write("missing.safetensors", &|t| drop(t.remove(&first)));
    write("more.safetensors", &|t| drop(t.insert("zz.weight".into(), integer(1))));
    write("shape.safetensors", &|t| drop(t.insert(first.clone(), Tensor::from_slice(&[1f32, 2.0]))));
    write("kind.safetensors", &|t| {
        let x = t[&first].to_kind(selfsup_core::Kind::Int64);
        t.insert(first.clone(), x);
    });
    write("nan.safetensors", &|t| {
        let x = &t[&first] * f64::NAN;
        t.insert(first.clone(), x);
    });
    let counted = first.replace("weight", "num_batches_tracked");
    write("head.safetensors", &|t| {
        t.insert("fc.weight".into(), integer(1));
        t.insert("head.bias".into(), integer(2));
        t.insert(counted.clone(), integer(3));
    });
    fs::write(place.join("cut.safetensors"), &fs::read(place.join(EXPORT)).expect("an export")[..1000])
        .expect("a file");
    fs::write(place.join("weights.pth"), b"PK\x03\x04 and so on").expect("a file");
    fs::write(place.join("hidden.safetensors"), b"\x80\x02}q\x00.").expect("a file");
    fs::write(place.join("empty.safetensors"), b"").expect("a file");

    let start = |file: &str| {
        let mut words =
            vec!["pretrain".to_string(), "simclr/cpu".into(), "--dry-run".into(), format!("start='{file}'")];
        words.extend(SHORT.map(String::from));
        words
    };
    let pickle = ["weights.pth", "damaged or cut short", "weights_only=True", "save_file", "weights.safetensors"];
    let cases: [(&str, &[&str]); 11] = [
        ("missing.safetensors", &["missing.safetensors", &n, &format!("1 missing (the first `{first}`)")]),
        ("more.safetensors", &["1 unexpected (the first `zz.weight`)"]),
        ("shape.safetensors", &["1 of another shape or kind", &first, "[2]"]),
        ("kind.safetensors", &["1 of another shape or kind", &first, "Int64"]),
        ("nan.safetensors", &[&first, "not finite"]),
        ("cut.safetensors", &["cut.safetensors", "expected safetensors"]),
        ("empty.safetensors", &["empty.safetensors", "expected safetensors"]),
        ("weights.pth", &pickle),
        ("hidden.safetensors", &["Python pickle", "none of torch.save"]),
        ("nowhere.safetensors", &["nowhere.safetensors", "could not be read"]),
        ("run", &["is a folder", "export/encoder.safetensors"]),
    ];
    for (file, words) in cases {
        let arguments = start(file);
        refuses(place, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
    }
    // Of another encoder everything is wrong, and is counted.
    let arguments = start(EXPORT);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.push("encoder=resnet18");
    refuses(place, &arguments, &["100 tensors of resnet18", "missing (the first `", &format!("{n} unexpected")]);

    // A classifier is left out, and said so; what counts batches is not worth a word.
    let output =
        Command::new(env!("CARGO_BIN_EXE_selfsup")).args(start("head.safetensors")).current_dir(place).output();
    let output = output.expect("the program starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("fc.weight, head.bias") && !told.contains("num_batches"), "{told}");
}
