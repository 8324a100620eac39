//! VQ-VAE against PyTorch (`tests/golden.py`), closed forms, and what may move what.

use super::*;
use selfsup_core::codebook::{Start, Update};
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Store, Variable, assign};
use selfsup_core::{Device, Kind, precision};
use std::borrow::Cow;

/// `wave` of golden.py: sin(1.3 m^2 + phase).
fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn greatest(x: &Tensor) -> f64 {
    number(&x.abs().max())
}

fn config(update: Update) -> Config {
    let codebook = CodebookConfig { codes: 6, width: 4, update, ..CodebookConfig::default() };
    Config { hidden: 8, codebook, ..Config::default() }
}

fn make_for(store: &Store, config: Config, encoder: &str, channels: i64, size: i64) -> Result<VqVae> {
    let image = ImageShape { channels, size };
    let setup = Setup::new(store.root(), encoder.parse()?, Shape::Image(image), 8);
    let all = Normalisation { mean: vec![0.5, 0.4, 0.3], std: vec![0.2, 0.3, 0.25] };
    let of = |x: &[f32]| x[..channels as usize].to_vec();
    let normalisation = Normalisation { mean: of(&all.mean), std: of(&all.std) };
    VqVae::new(config, &Setup { normalisation, ..setup })
}

fn make(store: &Store, config: Config, size: i64) -> VqVae {
    make_for(store, config, "conv-residual-tiny", 3, size).expect("a method")
}

fn named(store: &Store, name: &str) -> Variable {
    store.variables().into_iter().find(|v| v.name == name).expect("a variable of that name")
}

/// The model of golden.py, with its weights.
fn golden(update: Update, size: i64) -> (Store, VqVae) {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, config(update), size);
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (k, v) in variables.iter().enumerate() {
        assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.1));
    }
    let codes = wave(2.0, &[6, 4]) * 0.7;
    for v in store.below("codebook").iter().filter(|v| ["codebook.codes", "codebook.sums"].contains(&v.name.as_str())) {
        assign(&v.tensor, &codes);
    }
    (store, method)
}

fn images(n: i64, size: i64) -> Tensor {
    wave(0.1, &[n, 3, size, size]).to_kind(Kind::Float)
}

fn batch(x: Tensor) -> Batch {
    let n = x.size()[0];
    let params = Tensor::zeros([n, 12], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0)
}

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

/// One line of golden.py: two gradients' second (the codes': tenth) value and norm; `moved` of the codes by averages.
struct Case {
    size: i64,
    images: i64,
    update: Update,
    loss: f64,
    reconstruction: f64,
    codes: &'static [i64],
    gradients: &'static [(&'static str, f64, f64)],
    moved: Option<(f64, [f64; 4])>,
}

const CASES: [Case; 4] = [
    Case {
        size: 8,
        images: 2,
        update: Update::Ema,
        loss: 0.512545230,
        reconstruction: 0.476020188,
        codes: &[1, 2, 5, 5, 2, 2, 2, 2],
        gradients: &[
            ("encoder.down.0.weight", 9.927032051e-04, 3.941109783e-02),
            ("project.weight", 2.292236893e-03, 4.778716451e-02),
            ("decoder.up.1.weight", 6.659619840e-05, 7.596089807e-03),
        ],
        moved: Some((3.930964608e-02, [-0.250926603, 0.304290802, 0.0332272, 0.531826623])),
    },
    Case {
        size: 8,
        images: 2,
        update: Update::Gradient,
        loss: 0.624870698,
        reconstruction: 0.469533233,
        codes: &[2, 2, 5, 2, 2, 1, 2, 2],
        gradients: &[
            ("encoder.down.0.weight", -3.357861529e-04, 4.502204095e-02),
            ("project.weight", -1.291160983e-03, 6.186643858e-02),
            ("decoder.up.1.weight", 0.0, 7.093546674e-04),
            ("codebook.codes", 1.859351217e-01, 2.656708789e-01),
        ],
        moved: None,
    },
    Case {
        size: 12,
        images: 3,
        update: Update::Ema,
        loss: 0.487375323,
        reconstruction: 0.450284113,
        codes: &[1, 1, 2, 1, 1, 2, 1, 2, 5, 1, 2, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 5],
        gradients: &[
            ("encoder.down.0.weight", -4.426994175e-04, 2.602603518e-02),
            ("project.weight", 6.985308215e-03, 1.053785478e-01),
            ("decoder.up.1.weight", -5.673234021e-05, 5.369955705e-03),
        ],
        moved: Some((1.274508086e-01, [-0.251188213, 0.293082158, 0.034579241, 0.520042741])),
    },
    Case {
        size: 12,
        images: 3,
        update: Update::Gradient,
        loss: 0.611274043,
        reconstruction: 0.449454597,
        codes: &[2, 1, 1, 1, 2, 2, 1, 5, 2, 2, 1, 1, 2, 1, 1, 2, 2, 2, 2, 1, 1, 2, 1, 1, 1, 1, 5],
        gradients: &[
            ("encoder.down.0.weight", 3.466432174e-05, 3.259890094e-02),
            ("project.weight", 4.752672511e-03, 7.269172209e-02),
            ("decoder.up.1.weight", 0.0, 1.697564659e-03),
            ("codebook.codes", 1.073607377e-01, 2.294648201e-01),
        ],
        moved: None,
    },
];

#[test]
fn loss_gradients_and_averages_are_those_of_pytorch() {
    for case in CASES {
        let (store, mut method) = golden(case.update, case.size);
        let batch = batch(images(case.images, case.size));
        let codes = Tokenizer::encode(&method.coder, &batch.views[0].x);
        assert_eq!(codes.flatten(0, -1), Tensor::from_slice(case.codes));
        let before = named(&store, "codebook.codes").tensor.detach().copy();
        let loss = method.loss(&batch, AT);
        // f32 through a dozen layers: values of about 1 keep six digits, gradients five.
        assert!((number(&loss.total) / case.loss - 1.0).abs() < 3e-6, "{} is not {}", number(&loss.total), case.loss);
        assert!((number(&loss.parts[0].1) / case.reconstruction - 1.0).abs() < 3e-6);
        loss.total.backward();
        for &(name, value, norm) in case.gradients {
            let g = named(&store, name).tensor.grad();
            assert!((number(&g.norm()) / norm - 1.0).abs() < 1e-4, "{name}");
            let place = if name == "codebook.codes" { 9 } else { 1 };
            assert!((g.flatten(0, -1).double_value(&[place]) - value).abs() < 1e-4 * norm, "{name}");
        }
        method.after_step(AT);
        let after = named(&store, "codebook.codes").tensor.detach();
        match case.moved {
            Some((moved, row)) => {
                assert!((number(&(&after - before).norm()) / moved - 1.0).abs() < 1e-4);
                assert!(greatest(&(after.get(2) - Tensor::from_slice(&row))) < 1e-6);
            }
            None => assert_eq!(after, before, "the optimiser alone moves these"),
        }
    }
}

#[test]
fn everything_is_trained() {
    for (update, quantised) in [(Update::Ema, true), (Update::Gradient, true), (Update::Ema, false)] {
        let store = Store::new(0, Device::Cpu);
        // Wide enough that no ReLU is dead from the start.
        let mut method = make(&store, Config { quantised, hidden: 32, ..config(update) }, 8);
        method.loss(&batch(images(4, 8)), AT).total.backward();
        for v in store.trainable() {
            assert!(v.tensor.grad().defined() && number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
        }
        assert_eq!(store.trainable().iter().any(|v| v.name == "codebook.codes"), update == Update::Gradient);
        assert_eq!(method.tokenizer().is_some(), quantised);
        assert_eq!(method.features(&images(4, 8), false).size(), [4, 64]);
        assert_eq!(method.views().len(), 1);
    }
}

#[test]
fn the_loss_moves_no_code_and_neither_does_anything_but_a_step() {
    let (store, mut method) = golden(Update::Ema, 8);
    let names = ["codebook.codes", "codebook.counts", "codebook.sums"];
    let state = || names.map(|name| named(&store, name).tensor.detach().copy());
    let before = state();
    let batch = batch(images(2, 8));
    let _loss = method.loss(&batch, AT);
    let _scores = method.pretext(&batch);
    let _pictures = method.pictures(&batch);
    let _features = method.features(&batch.views[0].x, false);
    assert_eq!(state(), before);
    method.after_step(AT);
    assert_ne!(state()[0], before[0]);
}

#[test]
fn codes_go_to_images_and_their_grid_is_what_it_says() {
    for (encoder, channels, size, grid) in [
        ("conv-residual-tiny", 1, 28, 7),
        ("conv-residual-tiny", 3, 32, 8),
        ("conv-residual-tiny/8", 3, 32, 4),
        ("convnet", 1, 28, 7),
    ] {
        let store = Store::new(0, Device::Cpu);
        let method = make_for(&store, config(Update::Ema), encoder, channels, size).expect("a method");
        let tokenizer = method.tokenizer().expect("a codebook");
        let x = wave(0.2, &[2, channels, size, size]).to_kind(Kind::Float);
        let codes = tokenizer.encode(&x);
        assert_eq!((codes.size(), codes.kind()), (vec![2, grid, grid], Kind::Int64), "{encoder}");
        assert!(codes.max().int64_value(&[]) < tokenizer.vocabulary());
        assert_eq!(tokenizer.grid(size), grid);
        let pictures = method.pictures(&batch(x.shallow_clone()));
        assert_eq!(tokenizer.decode(&codes), pictures[1].1, "{encoder}");
        let in_bf16 = |f: &dyn Fn() -> Tensor| precision::with(precision::Precision::Bf16, f);
        assert_eq!(in_bf16(&|| tokenizer.encode(&x)), codes, "whatever a second stage computes in");
        assert_eq!(in_bf16(&|| tokenizer.decode(&codes)), pictures[1].1);
        assert_eq!(pictures[1].1.size(), x.size());
    }
}

#[test]
fn the_scores_of_unseen_images_are_those_of_the_codes_themselves() {
    let (_store, method) = golden(Update::Ema, 8);
    let scores = method.pretext(&batch(images(2, 8)));
    assert_eq!(
        scores.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["reconstruction_error", "sharpness", "perplexity"]
    );
    // The forward pass in training decodes z + (e - z), which is e up to rounding.
    assert!((number(&scores[0].1) / CASES[0].reconstruction - 1.0).abs() < 3e-6);
    // 1 of 8 places has code 1, 5 of 8 code 2, 2 of 8 code 5.
    let entropy: f64 = [1.0f64, 5.0, 2.0].iter().map(|n| -n / 8.0 * (n / 8.0).ln()).sum();
    assert!((number(&scores[2].1) - entropy.exp()).abs() < 1e-5);
}

/// Grey images of 8 x 8, each a wave of its own.
struct Waves(usize);

impl Images for Waves {
    fn len(&self) -> usize {
        self.0
    }

    fn channels(&self) -> usize {
        1
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let pixels = (0..64).map(|m| (127.0 + 120.0 * (0.1 * (m * (index + 1)) as f64).sin()) as u8).collect();
        Ok(Image { height: 8, width: 8, channels: 1, pixels: Cow::Owned(pixels) })
    }
}

#[test]
fn codes_start_at_places_of_the_data_before_the_first_step_alone() {
    let normalisation = Normalisation { mean: vec![0.5], std: vec![0.2] };
    let samples = Waves(20);
    let plain = Plain { samples: &samples, size: 8, normalisation: &normalisation, device: Device::Cpu };
    for (start, update) in [
        (Start::Data, Update::Ema),
        (Start::KMeans, Update::Ema),
        (Start::Data, Update::Gradient),
        (Start::Uniform, Update::Ema),
    ] {
        let store = Store::new(0, Device::Cpu);
        let codebook = CodebookConfig { start, ..config(update).codebook };
        let mut method =
            make_for(&store, Config { codebook, ..config(update) }, "conv-residual-tiny", 1, 8).expect("a method");
        let codes = || named(&store, "codebook.codes").tensor.detach().copy();
        let before = codes();
        let later = Progress { step: 3, epoch: 1, ..AT };
        assert!(method.before_epoch(later, &plain).expect("no images are read").is_empty());
        assert_eq!(codes(), before);
        let drawn = method.before_epoch(AT, &plain).expect("images can be read");
        let trained = start != Start::Uniform && update == Update::Gradient;
        assert_eq!(drawn, if trained { vec!["codebook.codes".to_string()] } else { Vec::new() });
        assert_eq!(codes() != before, start != Start::Uniform);
        if update == Update::Ema {
            assert_eq!(named(&store, "codebook.sums").tensor, codes());
        }
        if start == Start::Data {
            // Each code is one of the 80 places.
            let places = plain.map(|x| method.coder.map(x, false).permute([0, 2, 3, 1]).flatten(0, 2)).expect("a map");
            let distance = (codes().unsqueeze(1) - places.unsqueeze(0)).abs().amax([2].as_slice(), false);
            // Batches of other sizes are summed in another order: a few units of f32.
            assert!(greatest(&distance.amin([1].as_slice(), false)) < 1e-5);
        }
    }
    let store = Store::new(0, Device::Cpu);
    let codebook = CodebookConfig { codes: 81, start: Start::Data, ..config(Update::Ema).codebook };
    let many = Config { codebook, ..config(Update::Ema) };
    let mut method = make_for(&store, many, "conv-residual-tiny", 1, 8).expect("a method");
    let message = method.before_epoch(AT, &plain).expect_err("80 places").to_string();
    assert!(message.contains("codebook.codes is 81") && message.contains("80 places"), "{message}");
}

#[test]
fn codes_start_at_what_training_quantises_where_a_norm_uses_the_batch() {
    let normalisation = Normalisation { mean: vec![0.5], std: vec![0.2] };
    // As many images as parts, so that each is a batch of its own.
    let samples = Waves(4);
    let plain = Plain { samples: &samples, size: 8, normalisation: &normalisation, device: Device::Cpu };
    for update in [Update::Ema, Update::Gradient] {
        let store = Store::new(0, Device::Cpu);
        let codebook = CodebookConfig { start: Start::Data, ..config(update).codebook };
        let config = Config { codebook, ..config(update) };
        let mut method = make_for(&store, config, "convnet", 1, 8).expect("a method");
        let statistics = || store.buffers("encoder").iter().map(Tensor::copy).collect::<Vec<_>>();
        let before = statistics();
        assert_eq!(before.len(), 8, "mean and variance of four norms");
        let _drawn = method.before_epoch(AT, &plain).expect("images can be read");
        assert_eq!(statistics(), before, "only training moves running statistics");

        let codes = named(&store, "codebook.codes").tensor.detach().copy();
        let farthest = |train: bool| {
            let one = |i| {
                let x = selfsup_core::augment::views::plain(&samples, &[i], 8, &normalisation).expect("an image");
                selfsup_core::no_grad(|| method.coder.map(&x, train)).permute([0, 2, 3, 1]).flatten(0, 2)
            };
            let places = Tensor::cat(&(0..4).map(one).collect::<Vec<_>>(), 0);
            let distance = (codes.unsqueeze(1) - places.unsqueeze(0)).abs().amax([2].as_slice(), false);
            greatest(&distance.amin([1].as_slice(), false))
        };
        assert_eq!(farthest(true), 0.0, "each code is a place as training sees it");
        assert!(farthest(false) > 0.1, "and none that running statistics of 0 and 1 would give");
    }
}

#[test]
fn bf16_networks_give_about_the_same_loss_in_f32() {
    let (store, mut method) = golden(Update::Ema, 12);
    let mut loss = || method.loss(&batch(images(3, 12)), AT).total;
    let exact = number(&loss());
    let rough = precision::with(precision::Precision::Bf16, &mut loss);
    assert_eq!(rough.kind(), Kind::Float);
    rough.backward();
    // Eight bits: a number is moved by at most 2^-8 of itself. What that does to the loss is tried out in f32, on the
    // weights alone; a layer rounds its input and its output too, so the variance is three times that.
    let weights: Vec<(Tensor, Tensor)> = store.trainable().into_iter().map(|v| (v.tensor.copy(), v.tensor)).collect();
    const TRIES: u64 = 8;
    let mut square = 0.0;
    for draw in 0..TRIES {
        let mut rng = Rng::new(draw, Purpose::Sample, 0, 0, 0);
        for (before, tensor) in &weights {
            let moves: Vec<f32> = (0..tensor.numel()).map(|_| rng.range(-1.0, 1.0) as f32 / 256.0).collect();
            assign(tensor, &(before * (Tensor::from_slice(&moves).view_as(before) + 1.0)));
        }
        square += (number(&loss()) - exact).powi(2) / TRIES as f64;
    }
    let deviation = (3.0 * square).sqrt();
    assert!((number(&rough) - exact).abs() < 3.0 * deviation, "{} is not {exact} up to {deviation}", number(&rough));
    assert!(3.0 * deviation < exact, "{deviation} of {exact} would hide a factor of two");
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let refused = |config: Config, encoder: &str, size| {
        let made = VqVae::check(&config).and_then(|()| make_for(&Store::new(0, Device::Cpu), config, encoder, 1, size));
        made.err().expect("a refusal").to_string()
    };
    assert!(refused(Config { hidden: 0, ..config(Update::Ema) }, "conv-residual", 28).contains("hidden is 0"));
    let codebook = CodebookConfig { codes: 0, ..config(Update::Ema).codebook };
    assert!(refused(Config { codebook, ..config(Update::Ema) }, "conv-residual", 28).contains("codebook.codes is 0"));
    assert!(refused(config(Update::Ema), "vit-micro/4", 28).contains("encoder=conv-residual"));
    assert!(refused(config(Update::Ema), "convnet-tiny", 28).contains("no power of two"));
    assert!(refused(config(Update::Ema), "conv-residual", 2).contains("too small"));
}
