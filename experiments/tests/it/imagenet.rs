//! The presets for ImageNet: the networks that they name are built and take two steps, on small images.

use crate::CPU;
use selfsup_core::augment::views::{HostBatch, Plain};
use selfsup_core::optimiser::Optimiser;
use selfsup_core::precision;
use selfsup_core::progress::Progress;
use selfsup_experiments::config::{RunConfig, parse_override};
use selfsup_experiments::preset::PRESETS;
use selfsup_experiments::run::{Machine, build, recipes, training_samples};
use selfsup_report::picture::{Grid, Picture};
use std::fs;
use std::path::Path;

/// Images of a batch, and a training set of two of them: too few for ten thousand clusters.
const BATCH: usize = 4;

/// What the presets need to run on eight images of 32 pixels: no more clusters than images, negatives from another
/// cluster, small crops that are smaller, permutations that are found at once, and heads of 2048 for 8192, whose 151
/// million weights would take most of the test's time.
const CHANGES: &[(&str, &[&str])] = &[
    ("barlow-twins", &["method.hidden=2048", "method.output=2048"]),
    ("vicreg", &["method.hidden=2048", "method.output=2048"]),
    ("deepcluster", &["method.clusters=4", "method.prototypes=4"]),
    ("interclr", &["method.clusters=2", "method.negatives=8", "method.min_size=1"]),
    ("jigsaw", &["method.permutations=100"]),
    ("swav", &["method.small_size=14"]),
];

/// Pictures of 40 x 36 pixels in two classes, below `folder`.
fn write_images(folder: &Path) {
    for (part, each) in [("train", BATCH), ("val", 1)] {
        for class in ["a", "b"] {
            let place = folder.join(part).join(class);
            fs::create_dir_all(&place).expect("a folder");
            for i in 0..each {
                let pixels =
                    (0..40 * 36 * 3).map(|m| (m * (7 * i + 3) % 251) as u8 / (1 + class.len() as u8)).collect();
                let rows = vec![vec![Picture::new(40, 36, 3, pixels).expect("a picture")]];
                let png = Grid { rows, ..Grid::default() }.png().expect("a PNG");
                fs::write(place.join(format!("{i}.png")), png).expect("written");
            }
        }
    }
}

/// The loop of the trainer without its files: checkpoints of these networks would be gigabytes.
fn two_steps(method: &str, preset: &str, folder: &Path) {
    let changes = CHANGES.iter().filter(|(name, _)| *name == method).flat_map(|(_, changes)| changes.iter().copied());
    let data = format!("data=folder:{}", folder.display());
    let texts = [data.as_str(), "size=32", "train.batch=4", "train.precision=f32"].into_iter().chain(changes);
    let layers: Vec<_> = texts.map(|text| parse_override(text).expect("key=value")).collect();
    let config = RunConfig::resolve(&format!("{method}/{preset}"), &layers).expect("a configuration");
    let data = selfsup_datasets::load(&config.data, folder).expect("the images");
    let mut subject = build(&config, None, &data, CPU).unwrap_or_else(|e| panic!("{method}/{preset}: {e:#}"));
    let (samples, size) = (training_samples(&data), subject.shape.size() as usize);
    let recipes = recipes(&config, &*subject.method);
    let mut optimiser = Optimiser::new(&config.train.optimiser, subject.store.trainable()).expect("an optimiser");
    let peak = config.train.optimiser.peak(BATCH);
    let steps = config.train.epochs * 2;
    for step in 0..2 {
        let at = Progress { step, steps, epoch: 0, epochs: config.train.epochs };
        if step == 0 {
            let plain = Plain { samples, size, normalisation: &data.normalisation, device: CPU };
            subject.method.before_epoch(at, &plain).expect("the images can be read");
        }
        let index = (0..BATCH).map(|i| BATCH * step as usize + i).collect();
        let made = HostBatch::render(samples, index, &recipes, size, &data.normalisation, config.seed, 0);
        let batch = made.expect("views").to_batch(CPU);
        let loss = precision::with(config.train.precision, || subject.method.loss(&batch, at)).total;
        assert!(loss.double_value(&[]).is_finite(), "{method}/{preset}: the loss of step {step}");
        optimiser.zero_grad().expect("no gradient");
        loss.backward();
        // A rate of the middle of the run: at the first step of a warm-up there is none.
        optimiser.step(peak / 2.0, peak).expect("a step");
        subject.method.after_step(at);
    }
    let finite = subject.store.variables().iter().all(|v| v.tensor.isfinite().all().int64_value(&[]) == 1);
    assert!(finite, "{method}/{preset}: two steps leave finite numbers");
}

#[test]
fn every_preset_for_imagenet_with_a_resnet_builds_and_trains() {
    // One thread: more would mostly wait for each other in networks of eight images.
    let _machine = Machine::new("cpu", 1, None).expect("the CPU is always there");
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_images(folder.path());
    let presets = PRESETS.iter().filter(|(_, name, _)| name.starts_with("imagenet-resnet50"));
    let mut tried = 0;
    for (method, preset, _) in presets {
        two_steps(method, preset, folder.path());
        tried += 1;
    }
    assert!(tried >= 14, "{tried} presets");
}
