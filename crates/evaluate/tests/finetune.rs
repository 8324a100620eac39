//! Fine-tuning of a small network on images that a label decides.

use anyhow::Result;
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::layer::{BatchNorm, Conv2d};
use selfsup_core::optimiser::OptimiserConfig;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Init, Role, Store};
use selfsup_core::{Device, Tensor};
use selfsup_evaluate::finetune::{Labelled, Network};
use selfsup_evaluate::{Finetune, FinetuneScore, Stopped, finetune};
use std::sync::atomic::AtomicBool;

/// Grey images of 8 x 8 noise with stripes: lying for class 0, standing for class 1.
struct Stripes {
    pixels: Vec<Vec<u8>>,
    labels: Vec<i64>,
}

impl Stripes {
    fn new(n: usize, draw: u64) -> Stripes {
        let labels: Vec<i64> = (0..n as i64).map(|i| i % 2).collect();
        let draw_one = |(i, &label): (usize, &i64)| {
            let mut rng = Rng::new(draw, Purpose::Sample, 0, i as u64, 0);
            let phase = rng.below(4);
            let mut pixel = |place: usize| {
                let along = if label == 0 { place / 8 } else { place % 8 };
                let stripe = if (along + phase) % 4 < 2 { 90 } else { 0 };
                (stripe + rng.below(120)) as u8
            };
            (0..64).map(&mut pixel).collect()
        };
        Stripes { pixels: labels.iter().enumerate().map(draw_one).collect(), labels }
    }

    fn labelled(&self) -> Labelled<'_> {
        Labelled { samples: self, labels: &self.labels }
    }
}

impl Images for Stripes {
    fn len(&self) -> usize {
        self.pixels.len()
    }

    fn channels(&self) -> usize {
        1
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        Ok(Image { height: 8, width: 8, channels: 1, pixels: self.pixels[index].as_slice().into() })
    }
}

/// Fine-tunes a convolution with batch normalisation; gives the score and what became of every variable.
fn run(config: &Finetune, seed: u64) -> Result<(FinetuneScore, Vec<(String, Tensor)>)> {
    run_until(config, seed, &AtomicBool::new(false))
}

fn run_until(config: &Finetune, seed: u64, stop: &AtomicBool) -> Result<(FinetuneScore, Vec<(String, Tensor)>)> {
    let store = Store::new(0, Device::Cpu);
    let path = store.root() / "encoder";
    let conv = Conv2d::kaiming(&(&path / "conv"), 1, 8, 3, 1, 1);
    let norm = BatchNorm::new(&(&path / "norm"), 8);
    let _unused = (store.root() / "projector").variable("weight", &[4], Role::Weight, Init::Const(1.0));
    let features = |x: &Tensor, train: bool| {
        norm.forward(&conv.forward(x), train).relu().mean_dim([2i64, 3].as_slice(), false, selfsup_core::Kind::Float)
    };
    let normalisation = Normalisation { mean: vec![0.4], std: vec![0.2] };
    let network = Network { features: &features, store: &store, size: 8, normalisation: &normalisation };
    let (train, test) = (Stripes::new(300, 1), Stripes::new(200, 2));
    let score = finetune(config, &network, train.labelled(), test.labelled(), 2, seed, stop)?;
    Ok((score, store.variables().into_iter().map(|v| (v.name, v.tensor.detach())).collect()))
}

fn config() -> Finetune {
    let mut config = Finetune { epochs: 20, batch: 32, ..Finetune::default() };
    // Stripes of an 8 x 8 image do not survive a small crop.
    config.recipe.crop = None;
    config.optimiser =
        OptimiserConfig::AdamW { rate: 0.02, per: 0, betas: [0.9, 0.999], eps: 1e-8, decay: 0.0, decay_all: false };
    config
}

#[test]
fn labels_are_learned_and_only_the_encoder_moves() {
    let (score, variables) = run(&config(), 0).expect("a score");
    assert!(score.accuracy > 0.9, "{score:?}");
    assert_eq!((score.labelled, score.steps), (300, 180));
    for (name, tensor) in variables {
        let projector = name.starts_with("projector");
        assert_eq!(projector && tensor.eq_tensor(&tensor.ones_like()).all().int64_value(&[]) == 1, projector, "{name}");
        assert!(!tensor.grad().defined() || tensor.grad().abs().max().double_value(&[]) == 0.0);
    }
}

#[test]
fn it_ends_when_it_is_asked_to() {
    let error = run_until(&config(), 0, &AtomicBool::new(true)).expect_err("stopped");
    assert!(error.is::<Stopped>(), "{error}");
}

#[test]
fn one_seed_gives_one_score() {
    let config = Finetune { fraction: 0.1, epochs: 3, ..config() };
    let (first, first_variables) = run(&config, 5).expect("a score");
    let (again, again_variables) = run(&config, 5).expect("a score");
    assert_eq!(first, again);
    assert_eq!(first_variables, again_variables);
    // A batch cannot be larger than the labelled set: 30 images, one step an epoch.
    assert_eq!((first.labelled, first.steps), (30, 3));
    assert_ne!(first, run(&config, 6).expect("a score").0);
}

#[test]
fn the_default_trains_too() {
    // SGD, with the standard crops.
    let (score, _) = run(&Finetune { epochs: 2, ..Finetune::default() }, 0).expect("a score");
    assert!(score.train_loss < 0.75, "{score:?}");
    let json = serde_json::to_string(&Finetune::default()).expect("JSON");
    assert_eq!(serde_json::from_str::<Finetune>(&json).expect("a configuration"), Finetune::default());
    assert!(serde_json::from_str::<Finetune>(r#"{"epoch": 1}"#).is_err());
}

#[test]
fn what_cannot_be_trained_is_refused_in_words() {
    let refused = |config: Finetune| run(&config, 0).expect_err("refused").to_string();
    assert!(refused(Finetune { epochs: 0, ..config() }).contains("at least one epoch"));
    assert!(refused(Finetune { batch: 1, ..config() }).contains("two images or more"));
    assert!(refused(Finetune { fraction: 0.0, ..config() }).contains("(0, 1]"));
    let wild =
        OptimiserConfig::Sgd { rate: 1e30, per: 0, momentum: 0.9, nesterov: false, decay: 0.0, decay_all: false };
    assert!(refused(Finetune { optimiser: wild, warmup: 0.0, ..config() }).contains("diverged in epoch"));
}
