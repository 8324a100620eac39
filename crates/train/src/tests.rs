//! Checkpoints that are whole or refused, records that belong to their checkpoint, and what a run tells.

use crate::checkpoint::{read, restore, write};
use crate::record::{Record, Records};
use crate::{Event, Outcome, Run, TrainConfig, fit};
use anyhow::Result;
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::Plain;
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::method::{Batch, Loss, Method};
use selfsup_core::progress::{Progress, Schedule};
use selfsup_core::store::{Init, Role, Store};
use selfsup_core::tensor::channels_last;
use selfsup_core::{Device, Kind, Tensor};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// What the loop asked of a [`Fake`], w at that moment, and what else there is to tell.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    BeforeEpoch { at: Progress, images: usize, w: f64 },
    Order(Progress),
    Loss { at: Progress, index: Vec<usize>, centres: Vec<f64>, mean: f64, w: f64 },
    AfterStep { at: Progress, w: f64 },
}

/// The mean of the squared distance between a number and a batch; infinite from step `breaks` on.
struct Fake {
    w: Tensor,
    breaks: u64,
    /// Whether epochs have an order of their own, in which images come twice, and forget what was learned of w.
    chooses: bool,
    calls: Rc<RefCell<Vec<Call>>>,
}

impl Fake {
    fn tell(&self, call: Call) {
        self.calls.borrow_mut().push(call);
    }

    fn w(&self) -> f64 {
        self.w.double_value(&[0])
    }
}

/// Seven places of four images, in another order in each epoch.
fn chosen_order(epoch: u64) -> Vec<usize> {
    let mut order = vec![0, 1, 2, 0, 3, 2, 1];
    order.rotate_left(epoch as usize % 3);
    order
}

impl Method for Fake {
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn before_epoch(&mut self, at: Progress, images: &Plain) -> Result<Vec<String>> {
        let images = images.map(|x| x.flatten(1, -1))?.size()[0] as usize;
        self.tell(Call::BeforeEpoch { at, images, w: self.w() });
        Ok(if self.chooses { vec!["w".into()] } else { Vec::new() })
    }

    fn order(&self, at: Progress) -> Option<Vec<usize>> {
        self.tell(Call::Order(at));
        self.chooses.then(|| chosen_order(at.epoch))
    }

    fn after_step(&mut self, at: Progress) {
        self.tell(Call::AfterStep { at, w: self.w() });
    }

    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        let view = &batch.views[0];
        let centres = Vec::try_from(view.params.select(1, 1).to_kind(Kind::Double)).expect("numbers");
        let (index, mean) = (batch.index.clone(), view.x.mean(Kind::Double).double_value(&[]));
        self.tell(Call::Loss { at, index, centres, mean, w: self.w() });
        let factor = if at.step >= self.breaks { f64::INFINITY } else { 1.0 };
        let distance = (&batch.views[0].x - &self.w).square().mean(Kind::Float) * factor;
        Loss::new(&distance * 2.0).with("distance", distance.detach())
    }

    fn features(&self, x: &Tensor, _train: bool) -> Tensor {
        x.flatten(1, -1)
    }
}

/// A run of the fake method in batches of 2.
#[derive(Clone, Copy)]
struct Trial {
    images: usize,
    epochs: u64,
    breaks: u64,
    chooses: bool,
    /// The step after which somebody stops it.
    stop_after: u64,
}

/// Runs the fake method on `n` images; gives the losses of the steps as well.
fn train(folder: &Path, n: usize, epochs: u64, breaks: u64) -> Result<(Outcome, Vec<f64>)> {
    let trial = Trial { images: n, epochs, breaks, chooses: false, stop_after: u64::MAX };
    let (outcome, losses, _) = run(folder, trial)?;
    Ok((outcome, losses))
}

/// Goes on from what is in `folder`; gives the losses of the steps and what the loop called.
fn run(folder: &Path, trial: Trial) -> Result<(Outcome, Vec<f64>, Vec<Call>)> {
    let Trial { images, epochs, breaks, chooses, stop_after } = trial;
    let (store, calls) = (Store::new(0, Device::Cpu), Rc::new(RefCell::new(Vec::new())));
    let w = store.root().variable("w", &[1], Role::Weight, Init::Const(3.0));
    let mut method = Fake { w, breaks, chooses, calls: calls.clone() };
    let schedule = if chooses { Schedule::Constant {} } else { Schedule::default() };
    let config = TrainConfig { epochs, batch: 2, warmup: 0.0, schedule, ..TrainConfig::default() };
    let (mut losses, stop) = (Vec::new(), AtomicBool::new(false));
    let run = Run {
        method: &mut method,
        store: &store,
        samples: &Grey(images),
        recipes: &[Recipe::crop_and_flip(0.3)],
        size: 4,
        normalisation: &Normalisation { mean: vec![0.5], std: vec![0.5] },
        config: &config,
        seed: 0,
        folder,
        identity: "fake",
        stop: &stop,
        resume: true,
    };
    let outcome = fit(run, &mut |event| {
        if let Event::Step { loss, at } = event {
            losses.push(loss);
            stop.store(at.step >= stop_after, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok((outcome, losses, calls.take()))
}

/// Three steps of seven places in an epoch; the seventh is left out.
const CHOOSES: Trial = Trial { images: 5, epochs: 3, breaks: u64::MAX, chooses: true, stop_after: u64::MAX };

#[test]
fn a_method_is_called_in_the_order_of_the_contract() {
    for chooses in [true, false] {
        let trial = Trial { images: 7, chooses, ..CHOOSES };
        let (outcome, _, calls) = run(temporary().path(), trial).expect("trained");
        assert_eq!(outcome, Outcome::Finished);
        let mut calls = calls.into_iter();
        let mut last = 3.0;
        for step in 0..9 {
            let now = Progress { step, steps: 9, epoch: step / 3, epochs: 3 };
            if step % 3 == 0 {
                assert_eq!(calls.next(), Some(Call::BeforeEpoch { at: now, images: 7, w: last }), "once an epoch");
                if chooses || step == 0 {
                    assert_eq!(calls.next(), Some(Call::Order(now)), "each epoch, or once for good");
                }
            }
            let Some(Call::Loss { at, index, w, .. }) = calls.next() else { panic!("step {step}: a loss is next") };
            assert_eq!((at, w), (now, last));
            if chooses {
                assert_eq!(index, chosen_order(at.epoch)[2 * (step as usize % 3)..][..2]);
            }
            let Some(Call::AfterStep { at, w }) = calls.next() else { panic!("step {step}: after_step is next") };
            assert_eq!(at, now);
            assert_ne!(w, last, "the optimiser has stepped");
            last = w;
        }
        assert_eq!(calls.next(), None);
    }
}

#[test]
fn an_order_of_the_method_may_repeat_an_image_whose_views_then_differ() {
    let (_, _, calls) = run(temporary().path(), CHOOSES).expect("trained");
    let mut draws: HashMap<(u64, usize), Vec<f64>> = HashMap::new();
    for call in calls {
        let Call::Loss { at, index, centres, .. } = call else { continue };
        index.into_iter().zip(centres).for_each(|(i, x)| draws.entry((at.epoch, i)).or_default().push(x));
    }
    let again: Vec<&Vec<f64>> = draws.values().filter(|draws| draws.len() == 2).collect();
    assert!(!again.is_empty() && again.iter().all(|draws| draws[0] != draws[1]), "{draws:?}");
}

/// w <- w - rate u, u = 0.9 u + g, g = 4 (w - mean) + 5e-4 w: from u = 0 in the first step of each epoch if it is
/// forgotten. The rate is 0.06 for 256 images and constant.
#[test]
fn what_a_method_drew_anew_is_forgotten_by_the_optimiser() {
    let (_, _, calls) = run(temporary().path(), CHOOSES).expect("trained");
    let (mut u, mut next) = (0.0, f64::NAN);
    for call in calls {
        match call {
            Call::BeforeEpoch { .. } => u = 0.0,
            Call::Loss { mean, w, .. } => {
                u = 0.9 * u + 4.0 * (w - mean) + 5e-4 * w;
                next = w - 0.06 * 2.0 / 256.0 * u;
            }
            // f32, of numbers of about 3.
            Call::AfterStep { at, w } => assert!((w - next).abs() < 2e-6, "step {}: {w} is not {next}", at.step),
            Call::Order(_) => {}
        }
    }
}

#[test]
fn a_run_that_goes_on_calls_what_was_left_and_no_more() {
    for chooses in [true, false] {
        let trial = Trial { images: 7, chooses, ..CHOOSES };
        let (_, _, whole) = run(temporary().path(), trial).expect("trained");
        for stop_after in 1..9 {
            let folder = temporary();
            let (outcome, _, mut calls) = run(folder.path(), Trial { stop_after, ..trial }).expect("trained");
            assert!(matches!(outcome, Outcome::Stopped(at) if at.step == stop_after), "{outcome:?}");
            let (outcome, _, rest) = run(folder.path(), trial).expect("trained");
            assert_eq!(outcome, Outcome::Finished);
            // It asks for the order again, since it was not saved; that is a function of the store and the moment.
            let asked = rest.iter().filter(|call| matches!(call, Call::Order(_))).count();
            assert_eq!(asked, if chooses { 3 - stop_after as usize / 3 } else { 1 }, "{stop_after}");
            calls.extend(rest);
            let steps = |calls: &[Call]| -> Vec<Call> {
                calls.iter().filter(|call| !matches!(call, Call::Order(_))).cloned().collect()
            };
            assert_eq!(steps(&calls), steps(&whole), "stopped after {stop_after}");
        }
    }
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
fn a_checkpoint_with_one_bit_changed_is_refused_wherever_it_is() {
    let folder = temporary();
    train(folder.path(), 4, 1, u64::MAX).expect("trained");
    let path = folder.path().join("checkpoints/last.safetensors");
    let whole = fs::read(&path).expect("a checkpoint");
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, &bytes).expect("a file");
        let error = train(folder.path(), 4, 1, u64::MAX).expect_err(&format!("byte {place} of {}", bytes.len()));
        let text = format!("{error:#}");
        assert!(text.contains("last.safetensors") && !text.contains('\n'), "byte {place}: {text}");
    }
    fs::write(&path, &whole).expect("a file");
    train(folder.path(), 4, 1, u64::MAX).expect("as it was written it is taken");
}

#[test]
fn a_checkpoint_of_another_format_is_refused() {
    let folder = temporary();
    train(folder.path(), 4, 1, u64::MAX).expect("trained");
    let path = folder.path().join("checkpoints/last.safetensors");
    let saved = read(&path).expect("a checkpoint");
    let tensors: Vec<(String, Tensor)> = saved.tensors.into_iter().collect();
    for (written, told) in [("", "format 0"), ("\"format\":2,", "format 2"), ("\"format\":-1,", "damaged")] {
        let text = saved.metadata["selfsup"].replace("\"format\":1,", written);
        write(&path, &tensors, HashMap::from([("selfsup".into(), text)])).expect("written");
        let error = format!("{:#}", train(folder.path(), 4, 1, u64::MAX).expect_err(told));
        assert!(error.contains(told) && error.contains("--resume never"), "{error}");
    }
}

#[test]
fn a_batch_larger_than_the_data_is_refused() {
    let error = train(temporary().path(), 1, 1, 0).expect_err("no batch").to_string();
    assert!(error.contains("a batch of 2 cannot be drawn from 1 images"), "{error}");
}
