//! Fuzz targets of what a person gives to the program beside data: configurations, studies, claims, checkpoints,
//! embeddings and tables.

#[path = "../../../datasets/src/tests/mutate.rs"]
mod mutate;

use self::mutate::{TAPE, inputs, mutate, one_line};
use crate::{machine, workspace};
use bolero::check;
use selfsup_core::{Kind, Tensor};
use selfsup_experiments::config::{self, RunConfig, parse_override};
use selfsup_experiments::objective::objective;
use selfsup_experiments::registry::METHODS;
use selfsup_experiments::reporting::Report;
use selfsup_experiments::study::{Shard, Study};
use selfsup_experiments::{claim, message, preset};
use selfsup_report::{metrics, published, results};
use selfsup_train::{checkpoint, pickle};
use std::fs;
use std::path::Path;
use toml::Table;

/// What must hold of a reader, of whose errors a person sees what [`message::one_line`] leaves.
fn seen<T>(reader: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
    mutate::read(|| reader().map_err(|error| message::one_line(&error)))
}

/// The same of one that is given a file.
fn at<T>(path: &Path, reader: impl FnOnce(&Path) -> anyhow::Result<T>) -> Option<T> {
    seen(|| reader(path))
}

fn place() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn fuzz_configurations() {
    let own = "seed = 3\ndata = 'fashion-mnist-10k:200'\n[train]\nepochs = 2\noptimiser = { name = 'lars', lr = 0.5 }\n\
               [method]\ntemperature = 0.5\n[[views]]\nflip = 0.5\ncrop = { scale = [0.2, 1.0] }\n";
    let whole = RunConfig::resolve("simclr/cpu", &[]).and_then(|config| config.to_toml()).expect("a configuration");
    let mut seeds = vec![own.to_string(), whole];
    seeds.extend(preset::PRESETS.iter().filter(|preset| preset.1 == "cpu").map(|preset| preset.2.to_string()));
    check!().with_iterations(inputs(1000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let text = String::from_utf8_lossy(&mutate(&seeds, tape)).into_owned();
        let Some(table) = seen(|| text.parse::<Table>().map_err(|error| config::one_line(&error))) else { return };
        for method in ["simclr/cpu", METHODS[tape.len() % METHODS.len()].name, "random"] {
            if let Some(config) = seen(|| RunConfig::resolve(method, std::slice::from_ref(&table))) {
                let text = config.to_toml().expect("a configuration is TOML");
                let again: RunConfig = toml::from_str(&text).expect("what was written is read");
                assert_eq!(again.hash().ok(), config.hash().ok());
                config.run_id().expect("a folder's name");
            }
        }
    });
}

#[test]
fn fuzz_overrides() {
    let seeds = [
        "train.epochs=20",
        "train.optimiser={ name = 'sgd', lr = 0.1 }",
        "evaluate.protocols=['knn', 'linear']",
        "views=[{flip=0.5}, {size=14}]",
        "data=folder:a b",
        "variant=wide",
        "auxiliary={name='augself', weight=0.5}",
        "seed=0x10",
    ];
    let simclr = RunConfig::resolve("simclr/cpu", &[]).expect("a configuration");
    check!().with_iterations(inputs(1000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let text = String::from_utf8_lossy(&mutate(&seeds, tape)).into_owned();
        if let Some(table) = seen(|| parse_override(&text)) {
            seen(|| RunConfig::resolve("simclr/cpu", std::slice::from_ref(&table)));
            seen(|| simclr.judged_by(&[table]));
        }
        seen(|| RunConfig::resolve(&text, &[]));
        seen(|| text.parse::<Shard>());
    });
}

#[test]
fn fuzz_studies() {
    let place = place();
    let path = place.path().join("study.toml");
    let own = "name = 'x'\nseeds = [0, 1]\n[common]\ndata = 'fashion-mnist-10k:200'\n[published]\nsource = 's'\n\
               protocol = 'knn'\nmetric = 'accuracy'\n[[runs]]\nmethod = 'simclr/cpu'\npublished = 0.9\n[[runs]]\n\
               method = { name = 'byol/cpu', momentum = 0.99 }\ntrain.epochs = 2\n";
    let bundled = fs::read_to_string(workspace().join("experiments/studies/demo.toml"));
    let seeds: Vec<String> = [own.to_string()].into_iter().chain(bundled.ok()).collect();
    check!().with_iterations(inputs(300)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mutate(&seeds, tape)).expect("a written file");
        if let Some(study) = at(&path, |path| Study::read(path, &[])) {
            seen(|| study.runs());
            seen(|| study.published());
        }
    });
}

#[test]
fn fuzz_claims() {
    let place = place();
    let path = place.path().join("claim.toml");
    let seeds: Vec<&str> = claim::CLAIMS.iter().map(|(_, text)| *text).collect();
    check!().with_iterations(inputs(300)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mutate(&seeds, tape)).expect("a written file");
        if let Some(claim) = at(&path, |path| claim::find(&path.display().to_string())) {
            at(&path, |_| claim.runs());
        }
    });
}

/// Small safetensors files: what a checkpoint holds, and what losses read.
fn safetensors(place: &Path) -> Vec<Vec<u8>> {
    let _machine = machine();
    let path = place.join("seed.safetensors");
    let rows = |n: i64| Tensor::arange(n * 4, (Kind::Float, selfsup_core::Device::Cpu)).sin().view([n, 4]);
    let labels = Tensor::from_slice(&[0i64, 1, 0]);
    let lists: [Vec<(&str, Tensor)>; 4] = [
        vec![("a", rows(3)), ("b", rows(3).cos())],
        vec![("a", rows(3)), ("b", rows(3)), ("labels", labels), ("queue", rows(5)), ("bank", rows(6))],
        vec![("x", rows(1).to_kind(Kind::BFloat16)), ("y", Tensor::from_slice(&[true, false])), ("z", rows(0))],
        vec![("a", rows(2).to_kind(Kind::Double)), ("b", rows(2)), ("momentum", rows(2))],
    ];
    let write = |tensors: Vec<(&str, Tensor)>| {
        let named: Vec<(String, Tensor)> = tensors.into_iter().map(|(name, x)| (name.to_string(), x)).collect();
        let metadata = [("step".to_string(), "3".to_string())].into();
        checkpoint::write(&path, &named, metadata).expect("a written file");
        fs::read(&path).expect("a file")
    };
    lists.into_iter().map(write).collect()
}

#[test]
fn fuzz_safetensors() {
    let place = place();
    let seeds = safetensors(place.path());
    let path = place.path().join("x.safetensors");
    check!().with_iterations(inputs(1000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mend_header(mutate(&seeds, tape))).expect("a written file");
        at(&path, checkpoint::read);
    });
}

/// Files of torch.save, the old format too, whose bytes no sum guards.
#[test]
fn fuzz_pickles() {
    let place = place();
    let _machine = machine();
    let folder = workspace().join("crates/train/tests/pickles");
    let seeds = ["row.pth", "archive.pth", "weights.pth"].map(|name| fs::read(folder.join(name)).expect("a file"));
    let path = place.path().join("x.pth");
    check!().with_iterations(inputs(1000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mutate(&seeds, tape)).expect("a written file");
        at(&path, pickle::read);
    });
}

/// The file with a header that is as long as it says, or what changed would be refused before anything reads it.
fn mend_header(mut bytes: Vec<u8>) -> Vec<u8> {
    let text = bytes.get(8..).unwrap_or_default();
    let end = text.windows(3).rposition(|three| three == b"]}}").map(|at| at + 3);
    if let Some(end) = end.filter(|_| bytes[8] % 2 == 1) {
        let blanks = text[end..].iter().take_while(|byte| **byte == b' ').count();
        bytes[..8].copy_from_slice(&((end + blanks) as u64).to_le_bytes());
    }
    bytes
}

#[test]
fn fuzz_losses() {
    let place = place();
    let seeds = safetensors(place.path());
    let path = place.path().join("x.safetensors");
    let methods: Vec<&str> = METHODS.iter().filter(|entry| !entry.inputs.is_empty()).map(|entry| entry.name).collect();
    check!().with_iterations(inputs(300)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mend_header(mutate(&seeds, tape))).expect("a written file");
        let method = methods[tape.first().map_or(0, |&byte| usize::from(byte)) % methods.len()];
        at(&path, |path| objective(method, path, &[]));
    });
}

#[test]
fn fuzz_results() {
    let place = place();
    let path = place.path().join("results.csv");
    let row = |method: &str, seed: u64, metric: &str, value: Option<f64>| results::Row {
        run_id: format!("{method}-{seed}"),
        method: method.into(),
        family: "contrastive".into(),
        encoder: "convnet".into(),
        dataset: "fashion-mnist-10k".into(),
        input: "28".into(),
        protocol: "knn".into(),
        metric: metric.into(),
        value,
        seed,
        n_test: 2000,
        status: if value.is_some() { results::Status::Ok } else { results::Status::Diverged },
        ..results::Row::default()
    };
    let rows = [
        row("random", 0, "accuracy", Some(0.5)),
        row("simclr", 0, "accuracy", Some(0.75)),
        row("simclr", 1, "accuracy", Some(0.875)),
        row("byol, \"x\"\ny", 1, "accuracy", None),
    ];
    let seeds = [results::to_csv(&rows).expect("a table"), results::to_csv(&rows[1..2]).expect("a table")];
    check!().with_iterations(inputs(500)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mutate(&seeds, tape)).expect("a written file");
        if let Some(report) = at(&path, |path| Report::read(&[path.to_path_buf()])) {
            for table in &report.tables {
                let _ = (table.terminal(80, false), table.markdown(), table.csv());
            }
        }
    });
}

#[test]
fn fuzz_metrics() {
    let place = place();
    let path = place.path().join("metrics.csv");
    let seeds = [
        "epoch,step,metric,value\n0,1,loss,5.5\n0,2,loss,NaN\n1,3,online_knn,inf\n",
        "config_hash,protocol,metric,value,source\n0a0b0c0d,knn,accuracy,0.9,\"a, b\"\n",
    ];
    check!().with_iterations(inputs(1000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mutate(&seeds, tape)).expect("a written file");
        at(&path, metrics::read).map(|found| metrics::points(&found, "loss", |m| m.step as f64));
        at(&path, published::read);
    });
}

/// A key of so many parts would be a table as deep; and what was given stood in messages with its line breaks.
#[test]
fn found_overrides_deep_and_of_several_lines() {
    let told = |text: &str| {
        let table = parse_override(text);
        let outcome = table.and_then(|table| RunConfig::resolve("simclr/cpu", &[table]));
        one_line(&message::one_line(&outcome.err().unwrap_or_else(|| panic!("{text:.60} was taken"))));
    };
    told(&format!("{}a=1", "a.".repeat(100_000)));
    told("seed=a\nb");
    told("a\nb");
    told("a\nb=1");
    told("seed=a\n  b");
    told(&format!("train.epochs={}", "x".repeat(100_000)));
}

/// A shape of 2^64 - 1 by nothing holds no byte too many, but LibTorch says in its own words that it has none such.
#[test]
fn found_shapes_that_no_tensor_has() {
    let place = place();
    let path = place.path().join("x.safetensors");
    let with = |shape: &str, dtype: &str, bytes: usize| {
        let header =
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[0,{bytes}]}}}}"#).into_bytes();
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; bytes]].concat();
        fs::write(&path, file).expect("a written file");
        let told = message::one_line(&checkpoint::read(&path).err().expect("a refusal"));
        one_line(&told);
        assert!(told.contains("x.safetensors") && told.contains("`a`"), "{told}");
    };
    with("0,18446744073709551615", "F32", 0);
    with(&["1"; 100].join(","), "F32", 4);
    with("4", "F8_E4M3", 4);
}
