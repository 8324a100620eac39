//! Checkpoints that are whole or refused, records that belong to their checkpoint, and what a run tells.

use crate::checkpoint::{read, restore, write};
use crate::record::{Record, Records};
use crate::{Event, Outcome, Run, TrainConfig, fit};
use anyhow::Result;
use selfsup_core::augment::Recipe;
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::method::{Batch, Loss, Method};
use selfsup_core::progress::Progress;
use selfsup_core::store::{Init, Role, Store};
use selfsup_core::tensor::channels_last;
use selfsup_core::{Device, Kind, Tensor};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_checkpoint_gives_back_values_kinds_and_text() {
    let folder = temporary();
    let path = folder.path().join("x.safetensors");
    let grid = Tensor::arange(2 * 3 * 4 * 5, (Kind::Float, Device::Cpu)).view([2, 3, 4, 5]);
    let tensors: Vec<(String, Tensor)> = vec![
        ("channels last".into(), channels_last(&grid)),
        ("i64".into(), Tensor::from_slice(&[i64::MIN, -1, i64::MAX])),
        ("bf16".into(), Tensor::from_slice(&[1.5f32, -2.0]).to_kind(Kind::BFloat16)),
        ("bool".into(), Tensor::from_slice(&[true, false])),
        ("transposed".into(), grid.view([6, 20]).tr()),
        ("scalar".into(), Tensor::from(3.5f64)),
        ("trained".into(), Tensor::from_slice(&[0.1f32]).set_requires_grad(true)),
    ];
    write(&path, &tensors, HashMap::from([("key".into(), "text".into())])).expect("written");
    let saved = read(&path).expect("read");
    assert_eq!(saved.metadata["key"], "text");
    assert_eq!(saved.tensors.len(), tensors.len());
    for (name, tensor) in &tensors {
        assert_eq!(saved.tensors[name].kind(), tensor.kind(), "{name}");
        assert!(saved.tensors[name].equal(tensor), "{name}");
    }
}

#[test]
fn a_checkpoint_of_other_variables_changes_nothing() {
    let store = Store::new(0, Device::Cpu);
    for name in ["a", "b"] {
        let _ = store.root().variable(name, &[2], Role::Weight, Init::Const(1.0));
    }
    let two = || Tensor::from_slice(&[5.0f32, 6.0]);
    let cases = [
        (vec![("model.a", two())], "`model.b` is missing"),
        (vec![("model.a", two()), ("model.b", two()), ("model.c", two())], "1 variables are saved"),
        (vec![("model.a", two()), ("model.b", Tensor::from_slice(&[5.0f32]))], "`model.b`"),
        (vec![("model.a", two()), ("model.b", Tensor::from_slice(&[5.0f64, 6.0]))], "`model.b`"),
    ];
    for (saved, words) in cases {
        let saved: HashMap<String, Tensor> = saved.into_iter().map(|(name, x)| (name.to_string(), x)).collect();
        let error = restore(&store.variables(), &saved, "model.").expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
        for variable in store.variables() {
            assert!(variable.tensor.equal(&Tensor::from_slice(&[1.0f32, 1.0])), "{} was changed", variable.name);
        }
    }
}

#[test]
fn a_file_cut_short_is_refused_wherever_it_is_cut() {
    let folder = temporary();
    let path = folder.path().join("x.safetensors");
    write(&path, &[("x".into(), Tensor::from_slice(&[1.0f32; 64]))], HashMap::new()).expect("written");
    let bytes = fs::read(&path).expect("a file");
    for length in [0, 7, 8, 20, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).expect("a file");
        let error = format!("{:#}", read(&path).err().expect("cut short"));
        assert!(error.contains("x.safetensors") && error.contains("damaged or cut short"), "{length}: {error}");
    }
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let folder = temporary();
    let path = folder.path().join("x.safetensors");
    write(&path, &[("x".into(), Tensor::from_slice(&[1i64]))], HashMap::new()).expect("written");
    let before = fs::read(&path).expect("a file");
    // A folder in the place of the temporary file fails whoever runs this, root too.
    fs::create_dir(path.with_extension("tmp")).expect("a folder");
    let error = write(&path, &[("x".into(), Tensor::from_slice(&[2i64]))], HashMap::new()).expect_err("no place");
    assert!(format!("{error:#}").contains("what was there before is unchanged"), "{error:#}");
    assert_eq!(fs::read(&path).expect("a file"), before);

    let taken = folder.path().join("taken");
    fs::create_dir_all(taken.join("inside")).expect("a folder");
    assert!(write(&taken, &[], HashMap::new()).is_err());
    assert!(taken.join("inside").is_dir() && !folder.path().join("taken.tmp").exists(), "nothing is left behind");
}

#[test]
fn records_after_the_checkpoint_are_taken_back() {
    let folder = temporary();
    let path = folder.path().join("metrics.csv");
    let record = |step| Record { epoch: 0, step, metric: "loss".into(), value: 0.1 + step as f64 };
    let mut records = Records::create(&path).expect("made");
    records.write(&[record(1)]).expect("written");
    let length = records.sync().expect("synced");
    let then = fs::read_to_string(&path).expect("a file");
    records.write(&[record(2), record(3)]).expect("written");
    drop(records);

    let mut records = Records::resume(&path, length).expect("resumed");
    assert_eq!(fs::read_to_string(&path).expect("a file"), then);
    records.write(&[record(2)]).expect("written");
    assert_eq!(fs::read_to_string(&path).expect("a file"), then + "0,2,loss,2.1\n");
    let error = Records::resume(&path, 1000).err().expect("shorter than its checkpoint says").to_string();
    assert!(error.contains("--resume never"), "{error}");
}

/// Images of one grey.
struct Grey(usize);

impl Images for Grey {
    fn len(&self) -> usize {
        self.0
    }

    fn channels(&self) -> usize {
        1
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        Ok(Image { height: 4, width: 4, channels: 1, pixels: vec![index as u8; 16].into() })
    }
}

/// The mean of the squared distance between a number and a batch; infinite from step `breaks` on.
struct Fake {
    w: Tensor,
    breaks: u64,
}

impl Method for Fake {
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        let factor = if at.step >= self.breaks { f64::INFINITY } else { 1.0 };
        let distance = (&batch.views[0].x - &self.w).square().mean(Kind::Float) * factor;
        Loss::new(&distance * 2.0).with("distance", distance.detach())
    }

    fn features(&self, x: &Tensor, _train: bool) -> Tensor {
        x.flatten(1, -1)
    }
}

/// Runs the fake method on `n` images in batches of 2; gives the losses of the steps as well.
fn train(folder: &Path, n: usize, epochs: u64, breaks: u64) -> Result<(Outcome, Vec<f64>)> {
    let store = Store::new(0, Device::Cpu);
    let mut method = Fake { w: store.root().variable("w", &[1], Role::Weight, Init::Const(3.0)), breaks };
    let config = TrainConfig { epochs, batch: 2, warmup: 0.0, ..TrainConfig::default() };
    let mut losses = Vec::new();
    let run = Run {
        method: &mut method,
        store: &store,
        samples: &Grey(n),
        recipes: &[Recipe::default()],
        size: 4,
        normalisation: &Normalisation { mean: vec![0.5], std: vec![0.5] },
        config: &config,
        seed: 0,
        folder,
        identity: "fake",
        stop: &AtomicBool::new(false),
        resume: true,
    };
    let outcome = fit(run, &mut |event| {
        if let Event::Step { loss, .. } = event {
            losses.push(loss);
        }
        Ok(())
    })?;
    Ok((outcome, losses))
}

/// 25 steps an epoch: a row after every third, and one after the last, of the mean since the row before.
#[test]
fn records_are_means_over_the_steps_since_the_last() {
    let folder = temporary();
    let (outcome, losses) = train(folder.path(), 51, 2, u64::MAX).expect("trained");
    assert_eq!((outcome, losses.len()), (Outcome::Finished, 50));
    let text = fs::read_to_string(folder.path().join("metrics.csv")).expect("metrics.csv");
    let of = |metric: &str| -> Vec<(usize, f64)> {
        let rows = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
        rows.filter(|row| row[2] == metric).map(|row| (row[1].parse().unwrap(), row[3].parse().unwrap())).collect()
    };
    let ends: Vec<usize> = [0, 25].iter().flat_map(|e| (3..=24).step_by(3).chain([25]).map(move |s| e + s)).collect();
    assert_eq!(of("loss").iter().map(|row| row.0).collect::<Vec<_>>(), ends);
    let mut from = 0;
    for ((end, loss), (_, distance)) in of("loss").into_iter().zip(of("distance")) {
        let mean = losses[from..end].iter().sum::<f64>() / (end - from) as f64;
        assert_eq!(loss, mean, "rows {from}..{end}");
        // The loss is twice its part, and doubling is exact.
        assert_eq!(loss, 2.0 * distance);
        from = end;
    }
    assert_eq!(of("rate").len(), ends.len());
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_with_a_diagnosis() {
    let folder = temporary();
    let (outcome, losses) = train(folder.path(), 10, 2, 7).expect("ended in order");
    let Outcome::Diverged(why) = outcome else { panic!("{outcome:?}") };
    for words in ["became inf at step 7 (epoch 1)", "part `distance` is inf", "all variables are finite"] {
        assert!(why.contains(words), "{why}");
    }
    assert_eq!(losses.len(), 7);
    let saved = read(&folder.path().join("checkpoints/last.safetensors")).expect("the checkpoint of the epoch before");
    assert!(saved.metadata["selfsup"].contains("\"step\":5"), "{}", saved.metadata["selfsup"]);
    assert!(saved.tensors["model.w"].isfinite().all().int64_value(&[]) == 1);
}

#[test]
fn a_batch_larger_than_the_data_is_refused() {
    let error = train(temporary().path(), 1, 1, 0).expect_err("no batch").to_string();
    assert!(error.contains("a batch of 2 cannot be drawn from 1 images"), "{error}");
}
