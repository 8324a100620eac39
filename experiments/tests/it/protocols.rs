//! What evaluation asks of any method: the layers of its encoder, and what its features tell of an augmentation.

use crate::{CPU, dataset, machine, methods, small};
use anyhow::Result;
use selfsup_core::augment::Recipe;
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::encoder::stages;
use selfsup_core::method::{Batch, ImageShape, Loss, Method, Shape};
use selfsup_core::progress::Progress;
use selfsup_core::store::Store;
use selfsup_core::{Tensor, no_grad};
use selfsup_datasets::{Dataset, Part};
use selfsup_experiments::config::{Augmented, RunConfig};
use selfsup_experiments::evaluation::judge;
use selfsup_experiments::first_stage;
use selfsup_experiments::run::{Subject, build, training_samples};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn subject(config: &RunConfig, data: &Dataset) -> Subject {
    let first = first_stage::planned(config).unwrap_or_else(|e| panic!("{}: {e:#}", config.name()));
    build(config, first.as_ref(), data, CPU).unwrap_or_else(|e| panic!("{}: {e:#}", config.name()))
}

#[test]
fn the_features_of_every_method_come_from_an_encoder_that_shows_its_stages() {
    let _machine = machine();
    // DALL-E's second stage takes the mean over the places of the image by itself; `layers` refuses it in words.
    let second = ["dall-e/cpu", "dall-e/cpu-classes"];
    for (_, name) in methods().into_iter().filter(|(_, name)| !second.contains(&name.as_str())) {
        let config = small(&name, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let data = dataset(&config);
        let subject = subject(&config, &data);
        let size = subject.shape.size() as usize;
        let x = selfsup_core::augment::views::plain(training_samples(&data), &[0, 1, 2], size, &data.normalisation);
        let x = x.expect("samples can be read");
        let features = || no_grad(|| subject.method.features(&x, false));
        let alone = features();
        let stages = stages::listen(1, || assert!(features().equal(&alone), "{name}: listening changes nothing"));
        assert!(stages.len() >= 2, "{name}: {} stages", stages.len());
        for stage in &stages {
            assert_eq!((stage.dim(), stage.size()[0]), (2, 3), "{name}");
            assert!(stage.isfinite().all().int64_value(&[]) == 1, "{name}");
        }
    }
}

fn metrics(config: &RunConfig, data: &Dataset, protocol: &str) -> Vec<(String, f64)> {
    let scores = judge(config, data, &mut subject(config, data), &AtomicBool::new(false))
        .unwrap_or_else(|e| panic!("{protocol}: {e:#}"));
    let values = scores.values.into_iter().filter(|(found, ..)| found == protocol);
    values.map(|(_, metric, value)| (metric, value)).collect()
}

#[test]
fn layers_are_probed_one_by_one_and_the_projector_beside_them() {
    let _machine = machine();
    let config = small("simclr/cpu", &["evaluate.protocols=['knn', 'linear', 'layers']"]).expect("a configuration");
    let data = dataset(&config);
    let found = metrics(&config, &data, "layers");
    let blocks = ["block1", "block2", "block3", "block4", "embedding"];
    let names: Vec<String> = blocks.iter().flat_map(|b| [format!("knn_{b}"), format!("linear_{b}")]).collect();
    assert_eq!(found.iter().map(|(metric, _)| metric).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    // A convolutional encoder's last block is its features.
    for protocol in ["knn", "linear"] {
        let score = metrics(&config, &data, protocol)[0].1;
        let last = found.iter().find(|(metric, _)| *metric == format!("{protocol}_block4")).expect("a row").1;
        assert_eq!(score, last, "{protocol}");
    }
    // Four parts of a map know where something is, which their mean does not.
    let parts = small("simclr/cpu", &["evaluate.protocols=['layers']", "evaluate.layer_grid=2"]).expect("parts");
    assert_ne!(metrics(&parts, &data, "layers"), found);
    // An encoder without a projector has its layers alone: so has the random row.
    let rotnet = small("rotnet/cpu", &["evaluate.protocols=['layers']"]).expect("a configuration");
    assert_eq!(metrics(&rotnet, &data, "layers").len(), 8);
    let error = small("rotnet/cpu", &["evaluate.layer_grid=0"]).expect_err("a refusal").to_string();
    assert!(error.contains("`evaluate.layer_grid` is 0"), "{error}");
}

/// Images that hold the same grey levels, each in another order: their mean tells nothing but the brightness.
struct Shuffled(usize);

impl Images for Shuffled {
    fn len(&self) -> usize {
        self.0
    }

    fn channels(&self) -> usize {
        1
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        // No level reaches white, so nothing is clamped; 64 and every odd factor have no common divisor.
        let pixels = (0..64).map(|i| ((i * (2 * index + 1) + index) % 64) as u8 * 2).collect::<Vec<u8>>();
        Ok(Image { height: 8, width: 8, channels: 1, pixels: pixels.into() })
    }
}

/// Features that are written down: the mean of the image and that of its left half. The embedding is one pixel.
struct Known;

impl Method for Known {
    fn views(&self) -> Vec<Recipe> {
        Vec::new()
    }

    fn loss(&mut self, _: &Batch, _: Progress) -> Loss {
        unreachable!("it is not trained")
    }

    fn features(&self, x: &Tensor, _: bool) -> Tensor {
        let mean = |x: &Tensor| x.mean_dim([1, 2, 3].as_slice(), false, None);
        Tensor::stack(&[mean(x), mean(&x.narrow(3, 0, 4))], 1)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(x.flatten(1, 3).narrow(1, 0, 1))
    }
}

#[test]
fn what_features_tell_of_an_augmentation_is_told_of_the_draw_that_made_the_pixels() {
    let _machine = machine();
    let part = |n: usize| Part { samples: Arc::new(Shuffled(n)), labels: None };
    let data = Dataset {
        name: "shuffled".into(),
        classes: Vec::new(),
        train: part(400),
        test: Some(part(200)),
        unlabelled: None,
        normalisation: Normalisation { mean: vec![0.2], std: vec![0.3] },
        native_size: 8,
        vocabulary: None,
        note: String::new(),
    };
    let mut config = small("random", &["evaluate.protocols=['augmentation']"]).expect("a configuration");
    let jitter =
        |p: f64| selfsup_core::augment::Jitter { brightness: 0.4, contrast: 0.0, saturation: 0.0, hue: 0.0, p };
    let judged = |config: &RunConfig| {
        let shape = Shape::Image(ImageShape { channels: 1, size: 8 });
        let mut subject = Subject { store: Store::new(0, CPU), method: Box::new(Known), tokenizer: None, shape };
        judge(config, &data, &mut subject, &AtomicBool::new(false)).map(|scores| scores.values)
    };
    for p in [1.0, 0.5] {
        let recipe = Recipe { jitter: Some(jitter(p)), flip: 0.5, ..Recipe::default() };
        config.evaluate.augmentation = Augmented { recipe, ..Augmented::default() };
        let found = judged(&config).expect("scores: no label is asked for");
        let names: Vec<&str> = found.iter().map(|(_, metric, _)| metric.as_str()).collect();
        assert_eq!(names, ["r2_brightness", "r2_flip", "embedding_r2_brightness", "embedding_r2_flip"]);
        assert!(found.iter().all(|(protocol, ..)| protocol == "augmentation"));
        // The mean is the factor times a constant, so it tells all of it: what is left are f32 and a penalty of 1e-6.
        assert!(found[0].2 > 1.0 - 1e-5, "{found:?}");
        // One pixel of a shuffled image tells little of it.
        assert!(found[2].2 < 0.8, "{found:?}");
        assert_eq!(judged(&config).expect("scores"), found, "one seed, one draw");
    }
    config.evaluate.augmentation.recipe = Recipe::default();
    let error = format!("{:#}", judged(&config).expect_err("nothing to tell"));
    assert!(error.contains("changes nothing"), "{error}");

    let series = small("next-step/cpu", &["evaluate.protocols=['augmentation']"]).expect("a configuration");
    let data = dataset(&series);
    let error = judge(&series, &data, &mut subject(&series, &data), &AtomicBool::new(false))
        .err()
        .expect("a refusal")
        .to_string();
    assert!(error.contains("holds series"), "{error}");
}

#[test]
fn the_supervised_row_is_trained_before_it_is_asked() {
    let _machine = machine();
    let protocols = "evaluate.protocols=['layers', 'augmentation']";
    let ask = |name: &str| {
        let config = small(name, &[protocols, "encoder=convnet-tiny", "evaluate.finetune.epochs=1"]).expect("a row");
        let data = dataset(&config);
        [metrics(&config, &data, "layers"), metrics(&config, &data, "augmentation")]
    };
    let (random, supervised) = (ask("random"), ask("supervised"));
    for (random, supervised) in random.iter().zip(&supervised) {
        assert_eq!(random.len(), supervised.len());
        assert!(!random.is_empty() && random != supervised);
    }
}
