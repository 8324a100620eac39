//! DALL-E against PyTorch (`tests/golden.py`), closed forms, and what may depend on what.

use super::*;
use selfsup_core::data::Normalisation;
use selfsup_core::method::{ImageShape, Shape, TokenShape, View};
use selfsup_core::store::{Store, assign};
use selfsup_core::{Device, Kind, no_grad, precision};
use std::rc::Rc;

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

fn gradient_of(y: &Tensor, x: &Tensor) -> Tensor {
    Tensor::run_backward(&[y], &[x], true, false).remove(0)
}

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

fn batch(x: Tensor, captions: Option<Tensor>) -> Batch {
    let n = x.size()[0];
    let params = Tensor::zeros([n, 12], (Kind::Float, Device::Cpu));
    Batch { captions, ..Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0) }
}

fn images(n: i64, size: i64) -> Tensor {
    wave(0.1, &[n, 3, size, size]).to_kind(Kind::Float)
}

const MEAN: [f32; 3] = [0.5, 0.4, 0.3];
const STD: [f32; 3] = [0.2, 0.3, 0.25];

fn row(values: [f32; 3]) -> Tensor {
    Tensor::from_slice(&values).view([1, 3, 1, 1])
}

fn dvae(store: &Store, config: DvaeConfig) -> Dvae {
    dvae_for(store, config, 8)
}

/// `images` are in [-1, 1], and pixels then in [0, 1].
fn dvae_for(store: &Store, config: DvaeConfig, size: i64) -> Dvae {
    let image = Shape::Image(ImageShape { channels: 3, size });
    let encoder = "conv-residual-tiny".parse().expect("a name");
    let normalisation = Normalisation { mean: MEAN.into(), std: STD.into() };
    let setup = Setup { normalisation, ..Setup::new(store.root(), encoder, image, 8) };
    Dvae::new(config, &setup).expect("a method")
}

fn small(reconstruction: Reconstruction) -> DvaeConfig {
    DvaeConfig { codes: 5, width: 16, reconstruction, ..DvaeConfig::default() }
}

/// A first stage for images that hold their own codes.
struct Given {
    k: i64,
    side: i64,
}

impl Method for Given {
    fn views(&self) -> Vec<Recipe> {
        Vec::new()
    }

    fn loss(&mut self, _: &Batch, _: Progress) -> Loss {
        unreachable!("a first stage is frozen")
    }

    fn features(&self, _: &Tensor, _: bool) -> Tensor {
        unreachable!("the second stage has its own")
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        Some(self)
    }
}

impl Tokenizer for Given {
    /// The red channel of a picture of side x side pixels is its codes.
    fn encode(&self, x: &Tensor) -> Tensor {
        x.select(1, 0).to_kind(Kind::Int64)
    }

    fn decode(&self, codes: &Tensor) -> Tensor {
        codes.unsqueeze(1).repeat([1, 3, 1, 1]).to_kind(Kind::Float)
    }

    fn vocabulary(&self) -> i64 {
        self.k
    }

    fn grid(&self, _: i64) -> i64 {
        self.side
    }
}

/// A second stage for captions and codes of these shapes, with the weights of golden.py.
fn second(store: &Store, text: (i64, i64), image: (i64, i64), config: TransformerConfig) -> Transformer {
    let side = (image.1 as f64).sqrt() as i64;
    let shape = Shape::Image(ImageShape { channels: 3, size: side });
    let setup = Setup {
        captions: Some(TokenShape { vocabulary: text.0, length: text.1 }),
        tokenizer: Some(Rc::new(Given { k: image.0, side })),
        ..Setup::new(store.root(), "transformer-nano-causal".parse().expect("a name"), shape, 8)
    };
    let made = Transformer::new(config, &setup).expect("a method");
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (i, v) in variables.iter().enumerate() {
        let one = if v.name.contains("norm") && v.name.ends_with("weight") { 1.0 } else { 0.0 };
        assign(&v.tensor, &(wave(i as f64, &v.tensor.size()) * 0.1 + one));
    }
    made
}

/// Captions and codes of golden.py: captions of 1, 2, .. tokens.
fn golden_batch(text: (i64, i64), image: (i64, i64), n: i64) -> Batch {
    let token = |b: i64, j: i64| if j <= b { (3 * b + j) % text.0 } else { -1 };
    let captions: Vec<i64> = (0..n).flat_map(|b| (0..text.1).map(move |j| token(b, j))).collect();
    let codes: Vec<i64> = (0..n).flat_map(|b| (0..image.1).map(move |j| (5 * b + 2 * j) % image.0)).collect();
    let side = (image.1 as f64).sqrt() as i64;
    let x = Tensor::from_slice(&codes).view([n, 1, side, side]).repeat([1, 3, 1, 1]).to_kind(Kind::Float);
    batch(x, Some(Tensor::from_slice(&captions).view([n, text.1])))
}

#[test]
fn densities_and_gradients_are_those_of_pytorch() {
    let cases = [
        (
            [2, 5, 2, 3],
            1.0,
            [3.3919510095, 0.0395091196, 3.6711571027, 0.5582666857, -1.1590887698, 0.4904203398, 0.1028467678],
        ),
        (
            [1, 8, 3, 3],
            0.5,
            [2.6328478360, 0.1040627641, 5.0276834735, 0.6644261744, -1.1402301019, 0.4458953446, 0.0946250815],
        ),
        (
            [3, 3, 1, 2],
            0.25,
            [2.4450776054, 0.0292274159, 0.7344380780, 0.2343126292, -1.1410456064, 0.9424137527, 0.1880670780],
        ),
    ];
    for (shape, tau, expected) in cases {
        let leaf = |x: Tensor| x.set_requires_grad(true);
        let l = leaf(wave(0.1, &shape) * 2.0);
        let y = gumbel_softmax(&l, &((wave(0.2, &shape) + 1.001) / 2.002), tau);
        let dy = gradient_of(&(&y * wave(0.3, &shape)).sum(None), &l);
        let kl = kl_to_uniform(&l);
        let dkl = gradient_of(&kl, &l);
        let (mu, log_b) = (leaf(wave(0.4, &shape) * 2.0), leaf(wave(0.5, &shape) - 1.0));
        let nll = logit_laplace(&((wave(0.6, &shape) + 1.0) / 2.0), &mu, &log_b);
        let (dmu, db) = (gradient_of(&nll, &mu), gradient_of(&nll, &log_b));
        let actual = [y.norm(), dy.norm(), kl, dkl.norm(), nll, dmu.norm(), db.norm()];
        for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            // f64 on both sides; the literals have ten decimals. Gumbel noise is cut off at 6e-8, which no u here
            // meets.
            assert!((number(actual) - expected).abs() < 1e-9, "{shape:?} {i}: {} is not {expected}", number(actual));
        }
    }
}

#[test]
fn the_first_stage_is_that_of_pytorch() {
    // Size, images, what is rebuilt how, tau, beta; total, -log p, KL; of four gradients the norm and the tenth value.
    let cases = [
        (
            8,
            2,
            Reconstruction::LogitLaplace,
            0.4,
            6.6,
            [-0.2032062575, -0.2043386351, 0.0329418943],
            [0.0046185058, 0.0065118634, 0.0021453182, 0.0318291894],
            [-0.0000089880, -0.0000552373, -0.0001345391, 0.0000000000],
        ),
        (
            12,
            3,
            Reconstruction::Mse,
            0.0625,
            100.0,
            [0.5285096096, 0.5049864569, 0.1016200199],
            [0.0610706048, 0.1421705401, 0.0024798435, 0.0178235274],
            [0.0017428561, -0.0006641985, 0.0002818152, 0.0000568250],
        ),
    ];
    for (size, n, reconstruction, tau, beta, values, norms, tenths) in cases {
        let store = Store::new(0, Device::Cpu);
        let method = dvae_for(&store, DvaeConfig { beta, ..small(reconstruction) }, size);
        let mut variables = store.trainable();
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        for (k, v) in variables.iter().enumerate() {
            let codes = v.name == "codes";
            let (phase, scale) = if codes { (2.0, 0.7) } else { (k as f64, 0.1) };
            assign(&v.tensor, &(wave(phase, &v.tensor.size()) * scale));
        }
        let x = images(n, size);
        let l = method.logits(&x, true);
        let u = ((wave(0.2, &l.size()) + 1.001) / 2.002).to_kind(Kind::Float);
        let loss = method.parts(&x, &l, &u, tau);
        loss.total.backward();
        let actual = [&loss.total, &loss.parts[0].1, &loss.parts[1].1];
        for (actual, expected) in actual.into_iter().zip(values) {
            // f32 through a dozen layers: values of about 1 keep six digits, gradients four.
            assert!((number(actual) - expected).abs() < 3e-6, "{} is not {expected}", number(actual));
        }
        let names = ["encoder.down.0.weight", "logits.weight", "codes", "decoder.up.1.weight"];
        for ((name, norm), tenth) in names.into_iter().zip(norms).zip(tenths) {
            let g = variables.iter().find(|v| v.name == name).expect("a variable of that name").tensor.grad();
            assert!((number(&g.norm()) / norm - 1.0f64).abs() < 1e-4, "{name}: {} is not {norm}", number(&g.norm()));
            assert!((g.flatten(0, -1).double_value(&[9]) - tenth).abs() < 1e-4 * norm, "{name}");
        }
    }
}

#[test]
fn the_second_stage_is_that_of_pytorch() {
    let cases = [
        (
            ((5, 3), (4, 4), 2, 7.0),
            [2.5078836174, 1.4647741284, 1.5951628145, 1.4266672158, 0.6062981324, 0.7602932693, 0.0720113431],
        ),
        (
            ((7, 4), (6, 9), 3, 1.0),
            [2.7477991028, 1.8044818891, 2.2761404960, 1.6785953416, 0.7399982136, 0.8381750463, 0.1012264637],
        ),
    ];
    for ((text, image, n, image_weight), expected) in cases {
        let store = Store::new(0, Device::Cpu);
        let config = TransformerConfig { image_weight, ..TransformerConfig::default() };
        let mut method = second(&store, text, image, config);
        let loss = method.loss(&golden_batch(text, image, n), AT);
        loss.total.backward();
        let gradient = |name: &str| {
            store
                .trainable()
                .into_iter()
                .find(|v| v.name == name)
                .expect("a variable of that name")
                .tensor
                .grad()
                .norm()
        };
        let actual = [
            loss.parts[0].1.shallow_clone(),
            loss.parts[1].1.shallow_clone(),
            loss.total,
            gradient("encoder.embedding"),
            gradient("encoder.positions"),
            gradient("encoder.blocks.0.attn.qkv.weight"),
            gradient("encoder.norm.bias"),
        ];
        for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            // f32 through six blocks: values of about 1 keep six digits, their gradients four.
            let tolerance = if i < 3 { 3e-6 } else { 1e-4 };
            assert!((number(actual) / expected - 1.0).abs() < tolerance, "{i}: {} is not {expected}", number(actual));
        }
    }
}

#[test]
fn kl_is_zero_for_uniform_and_the_log_of_k_for_one_code() {
    let at = |q: &[f64]| number(&kl_to_uniform(&Tensor::from_slice(q).log().view([1, -1, 1, 1])));
    assert!(at(&[0.25; 4]).abs() < 1e-12);
    assert!((at(&[1.0 - 3e-12, 1e-12, 1e-12, 1e-12]) - 4f64.ln()).abs() < 1e-9);
    assert!((at(&[0.7, 0.2, 0.1]) - 0.296794).abs() < 1e-6);
    // Places are summed, images averaged.
    let l = wave(0.3, &[1, 4, 2, 3]);
    let one = number(&kl_to_uniform(&l));
    assert!((number(&kl_to_uniform(&l.repeat([3, 1, 1, 1]))) - one).abs() < 1e-12);
    assert!((number(&kl_to_uniform(&l.repeat([1, 1, 2, 1]))) - 2.0 * one).abs() < 1e-12);
}

#[test]
fn gumbel_samples_have_the_probabilities_of_their_logits() {
    let p = Tensor::from_slice(&[0.1f32, 0.2, 0.3, 0.4]);
    let n = 100_000;
    let mut rng = selfsup_core::rng::Rng::new(1, selfsup_core::rng::Purpose::Mask, 0, 0, 0);
    let u: Vec<f32> = (0..4 * n).map(|_| rng.uniform() as f32).collect();
    let l = p.log().view([1, 4, 1, 1]).expand([n, 4, 1, 1], false);
    let y = gumbel_softmax(&l, &Tensor::from_slice(&u).view([n, 4, 1, 1]), 1.0);
    let counts = y.argmax(1, false).flatten(0, -1).bincount(None::<&Tensor>, 4).to_kind(Kind::Float) / n as f64;
    // Five standard errors are 5 sqrt(0.25 / 1e5) = 0.8%.
    assert!(greatest(&(counts - p)) < 8e-3);
}

#[test]
fn a_cold_sample_is_one_code_and_a_hot_one_is_uniform() {
    let (l, u) = (wave(0.1, &[2, 5, 2, 3]), (wave(0.2, &[2, 5, 2, 3]) + 1.001) / 2.002);
    let cold = gumbel_softmax(&l, &u, 1e-3);
    assert!(number(&(cold.amax([1].as_slice(), false) - 1.0).abs().max()) < 1e-9);
    assert!(greatest(&(gumbel_softmax(&l, &u, 1e5) - 0.2)) < 1e-4);
    // The least and the greatest number that u may be.
    let ends = Tensor::from_slice(&[0.0f32, 1.0 - 6e-8, 1.0, 0.5]).view([1, 4, 1, 1]);
    assert_eq!(gumbel_softmax(&ends.zeros_like(), &ends, 0.0625).isfinite().all().int64_value(&[]), 1);
}

#[test]
fn the_temperature_falls_over_its_share_of_the_run_and_stays() {
    let config = DvaeConfig { anneal: 0.5, ..DvaeConfig::default() };
    for (fraction, tau) in [(0.0, 1.0), (0.25, (1.0 + 0.0625) / 2.0), (0.5, 0.0625), (1.0, 0.0625)] {
        assert!((temperature(&config, fraction) - tau).abs() < 1e-12);
    }
}

#[test]
fn the_density_of_a_pixel_adds_up_to_one() {
    // Over pixels whose mapped value goes from 0 to 1; by the substitution the density of m is that of x over 0.8.
    let n = 200_000;
    let m = (Tensor::arange(n, (Kind::Double, Device::Cpu)) + 0.5) / n as f64;
    let density = |x: f64| {
        let x = Tensor::from_slice(&[x]);
        number(&(-logit_laplace(&x, &Tensor::from_slice(&[0.7]), &Tensor::from_slice(&[-0.4]))).exp())
    };
    let step = 1000; // one in a thousand is enough: the density is smooth but for one kink
    let sum: f64 = (0..n / step).map(|i| density((m.double_value(&[i * step + step / 2]) - 0.1) / 0.8)).sum();
    assert!((sum * step as f64 / n as f64 - 1.0).abs() < 1e-3, "{sum}");
}

#[test]
fn the_first_stage_adds_up_its_parts() {
    for reconstruction in [Reconstruction::Mse, Reconstruction::LogitLaplace] {
        let store = Store::new(0, Device::Cpu);
        let mut method = dvae(&store, small(reconstruction));
        let x = images(4, 8);
        let loss = method.loss(&batch(x.shallow_clone(), None), AT);
        let part = |name: &str| number(&loss.parts.iter().find(|(n, _)| *n == name).expect("a part").1);
        // 3 x 8 x 8 values of an image.
        let expected = part("reconstruction") + 6.6 / 192.0 * part("kl");
        assert!((number(&loss.total) - expected).abs() < 1e-5);
        assert_eq!(part("temperature"), 1.0);
        assert!((1.0..=5.0).contains(&part("perplexity")));
        loss.total.backward();
        for v in store.trainable() {
            assert!(number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
        }
        assert_eq!(method.features(&x, false).size(), [4, 64]);
    }
}

#[test]
fn samples_are_as_hard_as_the_run_is_old_and_belong_to_their_images() {
    let store = Store::new(0, Device::Cpu);
    let config = DvaeConfig { anneal: 0.5, ..small(Reconstruction::Mse) };
    let mut method = dvae(&store, config.clone());
    let batch = batch(images(4, 8), None);
    let l = method.logits(&batch.views[0].x, true);
    let u = batch.uniform(selfsup_core::rng::Purpose::Mask, 5 * 2 * 2).view_as(&l);
    // A tenth, four tenths and nine tenths of the run: on the way, and at the end.
    for (step, tau) in [(1, temperature(&config, 0.1)), (4, temperature(&config, 0.4)), (9, 0.0625)] {
        let loss = method.loss(&batch, Progress { step, ..AT });
        let told = number(&loss.parts.iter().find(|(name, _)| *name == "temperature").expect("a part").1);
        assert!((told - tau).abs() < 1e-12 && (step == 9 || (0.0625 < tau && tau < 1.0)), "{told} is not {tau}");
        assert_eq!(loss.total, method.parts(&batch.views[0].x, &l, &u, tau).total);
    }
}

#[test]
fn weights_that_choose_one_code_give_its_picture() {
    for reconstruction in [Reconstruction::Mse, Reconstruction::LogitLaplace] {
        let store = Store::new(0, Device::Cpu);
        let method = dvae(&store, small(reconstruction));
        let x = images(3, 8);
        let codes = Tokenizer::encode(&method, &x);
        let one = codes.one_hot(5).permute([0, 3, 1, 2]).to_kind(Kind::Float);
        let by_weights = method.picture(&method.decode_weights(&one));
        // The same products, with zeros between.
        assert!(greatest(&(&by_weights - method.decode(&codes))) < 1e-6);

        // Errors are those of pixels over the variance of all of them: that of each channel and that of their means.
        let batch = batch(x.shallow_clone(), None);
        let scores = no_grad(|| method.pretext(&batch));
        let u = batch.uniform(selfsup_core::rng::Purpose::Mask, 5 * 2 * 2).view([3, 5, 2, 2]);
        let y = gumbel_softmax(&method.logits(&x, false), &u, 0.0625);
        let variance = (0.2f64.powi(2) + 0.3f64.powi(2) + 0.25f64.powi(2)) / 3.0 + (0.1f64.powi(2) * 2.0) / 3.0;
        let error = |picture: &Tensor| number(&((picture - &x) * row(STD)).square().mean(None)) / variance;
        let soft = error(&method.picture(&method.decode_weights(&y)));
        for ((name, actual), expected) in scores.iter().zip([error(&by_weights), soft]) {
            assert!((number(actual) / expected - 1.0).abs() < 1e-5, "{name}: {} is not {expected}", number(actual));
        }
        assert!((soft / error(&by_weights) - 1.0).abs() > 1e-4, "they differ");
    }
}

#[test]
fn the_picture_of_a_density_is_where_it_lies() {
    let method = dvae(&Store::new(0, Device::Cpu), small(Reconstruction::LogitLaplace));
    let pixels = (wave(0.4, &[2, 3, 8, 8]).to_kind(Kind::Float) + 1.0) / 2.0;
    let m = &pixels * 0.8 + 0.1;
    let rest: Tensor = 1.0 - &m;
    let location = (&m / rest).log();
    let picture = method.picture(&Tensor::cat(&[&location, &wave(0.5, &[2, 3, 8, 8]).to_kind(Kind::Float)], 1));
    assert!(greatest(&(picture * row(STD) + row(MEAN) - pixels)) < 1e-6);
    // What lies beyond [0.1, 0.9] is shown as black or white.
    let beyond = method.picture(&Tensor::cat(&[&(location * 0.0 + 9.0), &m], 1));
    assert!(greatest(&(beyond * row(STD) + row(MEAN) - 1.0)) < 1e-6);
}

#[test]
fn codes_come_back_as_images() {
    for reconstruction in [Reconstruction::Mse, Reconstruction::LogitLaplace] {
        let store = Store::new(0, Device::Cpu);
        let method = dvae(&store, small(reconstruction));
        let (x, codebook) = (images(3, 8), method.tokenizer().expect("a codebook"));
        let codes = no_grad(|| codebook.encode(&x));
        assert_eq!((codes.size(), codes.kind()), (vec![3, 2, 2], Kind::Int64));
        assert_eq!((codebook.grid(8), codebook.vocabulary()), (2, 5));
        let picture = no_grad(|| codebook.decode(&codes));
        assert_eq!(picture.size(), x.size());
        if reconstruction == Reconstruction::LogitLaplace {
            let pixels = &picture * row(STD) + row(MEAN);
            assert!(greatest(&(&pixels - 0.5)) <= 0.5 + 1e-6, "pixels stay in [0, 1]");
        }
        assert!(!picture.requires_grad(), "no graph is built");
        let in_bf16 = |f: &dyn Fn() -> Tensor| precision::with(precision::Precision::Bf16, f);
        assert_eq!(in_bf16(&|| codebook.encode(&x)), codes, "whatever the second stage computes in");
        assert_eq!(in_bf16(&|| codebook.decode(&codes)), picture);
        let rows = method.pictures(&batch(x.shallow_clone(), None));
        assert_eq!(rows[1].1, picture);
        let scores = no_grad(|| method.pretext(&batch(x.shallow_clone(), None)));
        let names: Vec<_> = scores.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["reconstruction_error", "reconstruction_error_soft", "perplexity"]);
    }
}

#[test]
fn captions_and_codes_become_one_sequence() {
    let text = TokenShape { vocabulary: 5, length: 3 };
    let image = TokenShape { vocabulary: 4, length: 2 };
    let sequence = Sequence { text, image };
    assert_eq!((sequence.text_ids(), sequence.vocabulary(), sequence.length()), (8, 12, 5));
    // Padding has an id of its own at each place: 5, 6, 7.
    let caption = sequence.caption(&Tensor::from_slice(&[4i64, -1, -1, 0, 1, 2]).view([2, 3]));
    assert_eq!(caption, Tensor::from_slice(&[4i64, 6, 7, 0, 1, 2]).view([2, 3]));
    assert_eq!(sequence.empty(1, Device::Cpu), Tensor::from_slice(&[5i64, 6, 7]).view([1, 3]));
    let ids = sequence.join(&caption, &Tensor::from_slice(&[0i64, 3, 2, 1]).view([2, 2]));
    assert_eq!(ids, Tensor::from_slice(&[12i64, 4, 6, 7, 8, 11, 12, 0, 1, 2, 10, 9]).view([2, 6]));
    let allowed = sequence.allowed();
    for place in 0..5 {
        for id in 0..12 {
            assert_eq!(allowed.int64_value(&[place, id]) == 1, (place < 3) == (id < 8), "{place} {id}");
        }
    }
}

#[test]
fn the_wrong_modality_has_probability_zero() {
    let (text, image) = ((5, 3), (4, 4));
    let method = second(&Store::new(0, Device::Cpu), text, image, TransformerConfig::default());
    let batch = golden_batch(text, image, 2);
    let codes = method.tokens(&batch).1;
    let p = no_grad(|| method.logits(&method.tokens(&batch).0, &codes).softmax(-1, Kind::Float));
    assert_eq!(p.size(), [2, 7, 12]);
    assert_eq!(greatest(&p.narrow(1, 0, 3).narrow(2, 8, 4)), 0.0);
    assert_eq!(greatest(&p.narrow(1, 3, 4).narrow(2, 0, 8)), 0.0);
    assert!(number(&p.narrow(1, 0, 3).narrow(2, 0, 8).min()) > 0.0);
}

#[test]
fn a_place_knows_what_stands_before_it_alone() {
    let (text, image) = ((5, 3), (4, 4));
    let method = second(&Store::new(0, Device::Cpu), text, image, TransformerConfig::default());
    let (caption, codes) = method.tokens(&golden_batch(text, image, 1));
    let before = no_grad(|| method.logits(&caption, &codes));
    for place in 0..7 {
        let changed = |x: &Tensor, at: i64, k: i64| {
            let y = x.copy();
            let old = y.narrow(1, at, 1);
            old.shallow_clone().copy_(&(&old + 1).remainder(k));
            y
        };
        let (caption, codes) = if place < 3 {
            (changed(&caption, place, 5), codes.shallow_clone())
        } else {
            (caption.shallow_clone(), changed(&codes, place - 3, 4))
        };
        let moved = (no_grad(|| method.logits(&caption, &codes)) - &before).nan_to_num(0.0, None, None);
        // The output at a place predicts the token there: a token moves the places behind it.
        assert_eq!(greatest(&moved.narrow(1, 0, place + 1)), 0.0, "{place}");
        for later in place + 1..7 {
            assert!(greatest(&moved.narrow(1, later, 1)) > 0.0, "{place} {later}");
        }
    }
}

#[test]
fn losses_are_weighted_as_in_the_paper() {
    let one = |x: f64| Tensor::from(x);
    assert!((number(&weighted(&one(1.0), &one(2.0), 7.0)) - 1.875).abs() < 1e-12);
}

#[test]
fn equal_logits_cost_the_logs_of_the_two_vocabularies() {
    let (text, image) = ((5, 3), (4, 4));
    let store = Store::new(0, Device::Cpu);
    let mut method = second(&store, text, image, TransformerConfig::default());
    for v in store.trainable() {
        assign(&v.tensor, &v.tensor.zeros_like());
    }
    let loss = method.loss(&golden_batch(text, image, 2), AT);
    // 5 tokens and 3 kinds of padding; 4 codes.
    assert!((number(&loss.parts[0].1) - 8f64.ln()).abs() < 1e-6);
    assert!((number(&loss.parts[1].1) - 4f64.ln()).abs() < 1e-6);
}

#[test]
fn generated_codes_are_what_all_places_at_once_give() {
    let (text, image) = ((7, 4), (6, 9));
    for temperature in [1.0, 0.5] {
        let config = TransformerConfig { temperature, ..TransformerConfig::default() };
        let method = second(&Store::new(0, Device::Cpu), text, image, config);
        let (caption, _) = method.tokens(&golden_batch(text, image, 3));
        let u = (wave(0.5, &[3, 9]).to_kind(Kind::Float) + 1.0) / 2.001;
        let codes = no_grad(|| method.draw(&caption, &u));
        assert_eq!(codes.size(), [3, 9]);
        // The same draws from the logits that the finished sequence gives without a cache.
        let logits = no_grad(|| method.logits(&caption, &codes)).narrow(1, 4, 9).narrow(2, 11, 6) / temperature;
        assert_eq!(codes, selfsup_core::tensor::draw(&logits, &u));
    }
}

/// The rows at `places` of a batch.
fn rows(batch: &Batch, places: &[i64]) -> Batch {
    let at = Tensor::from_slice(places);
    let x = batch.views[0].x.index_select(0, &at);
    let params = batch.views[0].params.index_select(0, &at);
    let captions = batch.captions.as_ref().map(|captions| captions.index_select(0, &at));
    let index = places.iter().map(|&i| batch.index[i as usize]).collect();
    Batch { captions, ..Batch::new(vec![View { x, params }], index, batch.seed, batch.epoch) }
}

#[test]
fn emptied_captions_are_padding_alone_and_belong_to_their_image() {
    let (text, image, n) = ((5, 3), (4, 4), 12);
    let batch = golden_batch(text, image, n);
    let losses = |share: f64, batch: &Batch| {
        let config = TransformerConfig { empty_captions: share, ..TransformerConfig::default() };
        let loss = second(&Store::new(0, Device::Cpu), text, image, config).loss(batch, AT);
        number(&loss.total)
    };
    let padding = Tensor::full([n, 3], -1i64, (Kind::Int64, Device::Cpu));
    let emptied = Batch { captions: Some(padding), ..golden_batch(text, image, n) };
    assert_eq!(losses(1.0, &batch), losses(0.0, &emptied));
    assert_ne!(losses(0.0, &batch), losses(0.0, &emptied));

    // A share of them: each caption is kept or emptied whatever stands beside it.
    let (mut kept, mut sum) = (0, 0.0);
    for i in 0..n {
        let [alone, whole, none] =
            [losses(0.4, &rows(&batch, &[i])), losses(0.0, &rows(&batch, &[i])), losses(0.0, &rows(&emptied, &[i]))];
        // One row is computed in the same way each time.
        assert!(alone == whole || alone == none, "{alone} is neither {whole} nor {none}");
        kept += i64::from(alone == whole);
        sum += alone;
    }
    assert!((3..n).contains(&kept), "{kept} of {n} are kept"); // 7.2 on average, with a deviation of 1.7
    let order = [7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 6, 4];
    for batch in [&batch, &rows(&batch, &order)] {
        // A mean over rows, in f32.
        assert!((losses(0.4, batch) / (sum / n as f64) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_caption_is_held_against_that_of_another_image() {
    let (text, image) = ((7, 4), (6, 9));
    let method = second(&Store::new(0, Device::Cpu), text, image, TransformerConfig::default());
    let scores = |batch: &Batch| no_grad(|| method.pretext(batch));
    for n in [1, 3] {
        let batch = golden_batch(text, image, n);
        let others = golden_batch(text, image, 4).captions.expect("captions").narrow(0, 4 - n, n);
        let swapped = Batch { captions: Some(others.shallow_clone()), ..golden_batch(text, image, n) };
        let expected = number(&scores(&swapped)[1].1);
        let held = scores(&Batch { others: Some(others), ..batch });
        assert_eq!(held.iter().map(|s| s.0).collect::<Vec<_>>(), ["loss_text", "loss_image", "loss_image_shuffled"]);
        assert_eq!(number(&held[2].1), expected);
        assert_ne!(number(&held[1].1), expected);
    }
    assert_eq!(scores(&golden_batch(text, image, 2)).len(), 2, "without others there is nothing to hold it against");
}

#[test]
fn images_are_generated_from_captions_alone_each_from_its_own_numbers() {
    let (text, image) = ((7, 4), (6, 9));
    let method = second(&Store::new(0, Device::Cpu), text, image, TransformerConfig::default());
    let batch = golden_batch(text, image, 3);
    let made = |batch: &Batch| Method::generate(&method, batch).expect("images");
    let images = made(&batch);
    assert_eq!(images.size(), [3, 3, 3, 3]);
    let u = batch.uniform(selfsup_core::rng::Purpose::Generate, 9);
    let codes = no_grad(|| method.draw(&method.tokens(&batch).0, &u));
    assert_eq!(images.select(1, 0).flatten(1, 2).to_kind(Kind::Int64), codes, "`Given` shows its codes");
    let View { x, params } = &batch.views[0];
    let blind = vec![View { x: x.zeros_like(), params: params.shallow_clone() }];
    assert_eq!(made(&Batch { views: blind, ..golden_batch(text, image, 3) }), images);
    assert_eq!(made(&rows(&batch, &[2, 0])), images.index_select(0, &Tensor::from_slice(&[2i64, 0])));
    assert_ne!(made(&Batch { seed: 1, ..golden_batch(text, image, 3) }), images);
}

#[test]
fn everything_in_the_second_stage_is_trained_and_shown() {
    let (text, image) = ((7, 4), (6, 9));
    let store = Store::new(0, Device::Cpu);
    let mut method = second(&store, text, image, TransformerConfig::default());
    let batch = golden_batch(text, image, 3);
    method.loss(&batch, AT).total.backward();
    for v in store.trainable() {
        assert!(number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
    }
    let x = &batch.views[0].x;
    assert_eq!(method.features(x, false).size(), [3, 64]);
    // Features see the image, without its caption.
    let others = method.features(&x.flip([0]), false);
    assert!(greatest(&(others.flip([0]) - method.features(x, false))) < 1e-5);
    // Nor its last code, behind which nothing is predicted; but every other one.
    for place in 0..9 {
        let changed = x.flatten(2, 3).copy();
        let mut code = changed.narrow(2, place, 1);
        code.copy_(&(&code + 1.0).remainder(6.0));
        let moved = greatest(&(method.features(&changed.view_as(x), false) - method.features(x, false)));
        assert_eq!(moved > 0.0, place < 8, "{place}");
    }
    let rows = method.pictures(&batch);
    assert_eq!(rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["input", "reconstruction", "from the caption"]);
    assert!(rows.iter().all(|(_, row)| row.size() == x.size()));
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let store = Store::new(0, Device::Cpu);
    let shape = Shape::Image(ImageShape { channels: 3, size: 2 });
    let captions = Some(TokenShape { vocabulary: 5, length: 3 });
    let setup = |encoder: &str| Setup::new(store.root(), encoder.parse().expect("a name"), shape, 8);
    let refused = |setup: &Setup| DallE::new(Config::default(), setup).err().expect("a refusal").to_string();
    assert!(refused(&setup("transformer-nano-causal")).contains("tokenizer=dall-e/cpu-dvae"));
    let coded = |encoder: &str| Setup { tokenizer: Some(Rc::new(Given { k: 4, side: 2 })), ..setup(encoder) };
    assert!(refused(&coded("transformer-nano-causal")).contains("data=emoji-mini"));
    for encoder in ["transformer-nano", "convnet"] {
        assert!(refused(&Setup { captions, ..coded(encoder) }).contains("encoder=transformer-micro-causal"));
    }
    let first = Config { stage: Stage::Dvae, ..Config::default() };
    let message = DallE::new(first.clone(), &coded("conv-residual-tiny")).err().expect("a refusal").to_string();
    assert!(message.contains("leave `tokenizer` empty"), "{message}");
    let message = DallE::new(first, &setup("vit-micro/1")).err().expect("a refusal").to_string();
    assert!(message.contains("no map"), "{message}");

    let says = |change: &dyn Fn(&mut Config), key: &str| {
        let mut config = Config::default();
        change(&mut config);
        let message = DallE::check(&config).expect_err("a refusal").to_string();
        assert!(message.starts_with(&format!("{key} is")) && message.contains("expected"), "{message}");
    };
    says(&|c| c.dvae.codes = 1, "dvae.codes");
    says(&|c| c.dvae.width = 0, "dvae.width");
    says(&|c| c.dvae.start = 0.0, "dvae.start");
    says(&|c| c.dvae.end = f64::NAN, "dvae.end");
    says(&|c| c.dvae.anneal = 0.0, "dvae.anneal");
    says(&|c| c.dvae.anneal = 1.5, "dvae.anneal");
    says(&|c| c.dvae.beta = -1.0, "dvae.beta");
    says(&|c| c.transformer.image_weight = 0.0, "transformer.image_weight");
    says(&|c| c.transformer.empty_captions = 1.1, "transformer.empty_captions");
    says(&|c| c.transformer.temperature = 0.0, "transformer.temperature");
}
