//! VQ-GAN against PyTorch (`tests/golden.py`), closed forms, and what may move what.

use super::*;
use selfsup_core::codebook::Start;
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::precision;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Store, Variable, assign};
use selfsup_core::{Device, no_grad};
use std::borrow::Cow;

/// `wave` of golden.py: sin(1.3 m^2 + phase).
fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn scalar(x: f64) -> Tensor {
    Tensor::from_slice(&[x]).squeeze()
}

fn config() -> Config {
    let codebook = CodebookConfig { codes: 6, width: 4, ..Config::default().codebook };
    let discriminator = DiscriminatorConfig { width: 8, layers: 2, ..DiscriminatorConfig::default() };
    Config { hidden: 8, perceptual: 0.0, discriminator, codebook, ..Config::default() }
}

fn make_for(store: &Store, config: Config, encoder: &str, size: i64) -> Result<VqGan> {
    let image = ImageShape { channels: 3, size };
    let setup = Setup::new(store.root(), encoder.parse()?, Shape::Image(image), 8);
    let normalisation = Normalisation { mean: vec![0.5, 0.4, 0.3], std: vec![0.2, 0.3, 0.25] };
    VqGan::new(config, &Setup { normalisation, ..setup })
}

fn make(store: &Store, config: Config, size: i64) -> VqGan {
    make_for(store, config, "conv-residual-tiny", size).expect("a method")
}

/// The model of golden.py, with its weights.
fn golden(config: Config, size: i64) -> (Store, VqGan) {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, config, size);
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (k, v) in variables.iter().enumerate() {
        let one = if v.name.contains("norm") && v.name.ends_with("weight") { 1.0 } else { 0.0 };
        assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.1 + one));
    }
    let fixed = store.below("perceptual").into_iter().filter(|v| v.name.ends_with("conv.weight"));
    for (i, v) in fixed.enumerate() {
        assign(&v.tensor, &(wave(50.0 + i as f64, &v.tensor.size()) * 0.3));
    }
    assign(&named(&store, "codebook.codes").tensor, &(wave(2.0, &[6, 4]) * 0.7));
    (store, method)
}

fn named(store: &Store, name: &str) -> Variable {
    store.variables().into_iter().find(|v| v.name == name).expect("a variable of that name")
}

fn images(n: i64, size: i64) -> Tensor {
    wave(0.1, &[n, 3, size, size]).to_kind(Kind::Float)
}

fn batch(x: Tensor) -> Batch {
    let n = x.size()[0];
    let params = Tensor::zeros([n, 12], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0)
}

fn part(loss: &Loss, name: &str) -> f64 {
    number(&loss.parts.iter().find(|(n, _)| *n == name).expect("the loss has this part").1)
}

/// In the second of two epochs, when the discriminator counts; and before.
const LATE: Progress = Progress { step: 10, steps: 20, epoch: 1, epochs: 2 };
const EARLY: Progress = Progress { step: 9, epoch: 0, ..LATE };
const FIRST: Progress = Progress { step: 0, ..EARLY };

fn gradients(store: &Store, below: &str) -> Vec<(String, Option<Tensor>)> {
    let given = |v: Variable| (v.name, Some(v.tensor.grad()).filter(Tensor::defined).map(|g| g.copy()));
    let all = store.trainable().into_iter().filter(|v| v.name.starts_with(below));
    all.map(given).collect()
}

fn moves(gradients: &[(String, Option<Tensor>)]) -> bool {
    gradients.iter().any(|(_, g)| g.as_ref().is_some_and(|g| number(&g.abs().max()) > 0.0))
}

fn forget(store: &Store) {
    for mut v in store.trainable() {
        v.tensor.zero_grad();
    }
}

#[test]
fn losses_lambda_and_gradients_are_those_of_pytorch() {
    type Gradients = [(&'static str, f64, f64); 7];
    let plain: Gradients = [
        ("encoder.down.0.weight", 1.715022048e-03, 1.219606921e-01),
        ("codebook.codes", 1.378965349e-02, 2.601115403e-01),
        ("decoder.last.weight", -4.614302260e-03, 8.869670650e-02),
        ("decoder.first.weight", -1.419556968e-03, 2.673717277e-01),
        ("discriminator.0.weight", 1.139575098e-01, 2.885270506e+00),
        ("discriminator.2.norm.weight", 6.167731044e-02, 1.585061358e-01),
        ("discriminator.3.weight", 2.338284683e-01, 2.122004669e+00),
    ];
    let perceptual: Gradients = [
        ("encoder.down.0.weight", -1.211464855e-05, 3.335048712e-01),
        ("codebook.codes", 1.043531243e-02, 2.856653544e-01),
        ("decoder.last.weight", 5.434063436e-03, 4.449756120e-01),
        ("decoder.first.weight", 1.108448638e-03, 5.563874950e-01),
        ("discriminator.0.weight", 3.123716631e-02, 2.123650109e+00),
        ("discriminator.2.norm.weight", 7.177159132e-02, 1.574777227e-01),
        ("discriminator.3.weight", 6.014380814e-02, 1.900138111e+00),
    ];
    let cases = [
        (16, 2, 0.0, [1.535905122, 0.328003120, -0.182856011, 0.0512076, 1.029174041], plain),
        (20, 3, 0.5, [1.826050274, 0.577697363, -0.572723829, 0.0522857, 1.079102833], perceptual),
    ];
    for (size, n, weight, [total, rec, g, lambda, l_d], gradients) in cases {
        let (store, mut method) = golden(Config { perceptual: weight, ..config() }, size);
        let loss = method.loss(&batch(images(n, size)), LATE);
        // f32 through twenty layers and the norms between them: five digits.
        let close = |actual: f64, expected: f64| (actual / expected - 1.0).abs() < 2e-5;
        assert!(close(number(&loss.total), total), "{} is not {total}", number(&loss.total));
        for (name, expected) in [("reconstruction", rec), ("generator", g), ("discriminator", l_d), ("lambda", lambda)]
        {
            assert!(close(part(&loss, name), expected), "{name}: {} is not {expected}", part(&loss, name));
        }
        loss.total.backward();
        for (name, tenth, norm) in gradients {
            let g = named(&store, name).tensor.grad();
            assert!((number(&g.norm()) / norm - 1.0).abs() < 3e-4, "{name}: {}", number(&g.norm()));
            assert!((g.flatten(0, -1).double_value(&[9]) - tenth).abs() < 3e-4 * norm, "{name}");
        }
    }
}

#[test]
fn each_side_moves_its_own_weights_alone() {
    let (store, method) = golden(config(), 16);
    let x = images(2, 16);
    let d = method.discriminator.as_ref().expect("a discriminator");
    let y = || method.coder.decoder.forward(&method.coder.codebook.quantise(&method.coder.map(&x, true)).z);
    let mine = ["encoder", "project", "decoder"];

    (-d.forward_fixed(&y()).mean(None)).backward();
    assert!(!moves(&gradients(&store, "discriminator")), "the generator's term moves no weight of the discriminator");
    assert!(mine.iter().all(|below| moves(&gradients(&store, below))));

    forget(&store);
    hinge(&d.forward(&x), &d.forward(&y().detach())).backward();
    assert!(moves(&gradients(&store, "discriminator")));
    assert!(!mine.iter().any(|below| moves(&gradients(&store, below))), "the discriminator's term moves it alone");

    // Both judge alike.
    assert_eq!(d.forward(&x), d.forward_fixed(&x));
}

#[test]
fn the_generator_makes_its_pictures_look_real_and_the_discriminator_tells_them_apart() {
    let (store, method) = golden(config(), 16);
    let d = method.discriminator.as_ref().expect("a discriminator");
    // Against the gradient of g the logits of the pictures rise: on the pictures themselves.
    let y = images(2, 16).set_requires_grad(true);
    let logits = d.forward_fixed(&y).mean(None);
    (-&logits).backward();
    let better = no_grad(|| d.forward_fixed(&(&y - y.grad() * 1e-2)).mean(None));
    assert!(number(&better) > number(&logits));
    // Against the gradient of L_D its own value falls.
    let (real, fake) = (images(2, 16), images(2, 16).flip([2]) * 0.5);
    let l_d = || hinge(&d.forward(&real), &d.forward(&fake));
    let before = l_d();
    before.backward();
    for v in store.below("discriminator") {
        assign(&v.tensor, &(v.tensor.detach() - v.tensor.grad() * 1e-4));
    }
    assert!(number(&l_d()) < number(&before));
}

#[test]
fn lambda_balances_the_gradients_of_the_last_layer() {
    // 2 / (1 + 1e-4), times 0.8 in the loss; at most 1e4; none where there is nothing to weigh.
    assert!((number(&(adaptive_weight(&scalar(2.0), &scalar(1.0)) * 0.8)) - 1.59984).abs() < 1e-6);
    assert_eq!(number(&adaptive_weight(&scalar(2.0), &scalar(0.0))), 1e4);
    assert_eq!(number(&adaptive_weight(&scalar(0.0), &scalar(1.0))), 0.0);

    let (_store, method) = golden(config(), 16);
    let x = images(2, 16);
    let y = method.coder.decoder.forward(&method.coder.codebook.quantise(&method.coder.map(&x, true)).z);
    let (rec, w) = (method.reconstruction(&x, &y), method.coder.decoder.last_layer());
    let g = -method.discriminator.as_ref().expect("a discriminator").forward_fixed(&y).mean(None);
    let lambda = method.lambda(&rec, &g);
    assert!(!lambda.requires_grad());
    let norm = |loss: &Tensor| number(&Tensor::run_backward(&[loss], &[w], true, false)[0].norm());
    // |d lambda g| = |d rec| |d g| / (|d g| + 1e-4); |d g| is 1.3 here.
    assert!((norm(&(&lambda * &g)) / norm(&rec) - 1.0).abs() < 2e-4);
    // Looking at the gradients of W leaves none behind.
    assert!(!w.grad().defined());
}

#[test]
fn hinge_has_its_closed_forms() {
    let full = |x: f64| Tensor::full([3, 1, 2, 2], x, (Kind::Float, Device::Cpu));
    assert_eq!(number(&hinge(&full(0.0), &full(0.0))), 1.0);
    assert_eq!(number(&hinge(&full(1.5), &full(-1.0))), 0.0);
    assert_eq!(number(&hinge(&full(-1.0), &full(1.0))), 2.0);
    assert_eq!(number(&hinge(&full(0.5), &full(-2.0))), 0.25);
}

#[test]
fn before_its_time_the_discriminator_counts_nothing_and_learns_nothing() {
    let start = |start| DiscriminatorConfig { start, ..DiscriminatorConfig::default() };
    let at = |step| Progress { step, ..LATE };
    assert!(start(0.0).started(at(0)));
    assert!(!start(1.0).started(at(9)) && start(1.0).started(at(10)));
    assert!(!start(0.5).started(at(4)) && start(0.5).started(at(5)));

    let (store, mut method) = golden(config(), 16);
    let batch = batch(images(2, 16));
    let early = method.loss(&batch, EARLY);
    for name in ["generator", "lambda", "discriminator"] {
        assert_eq!(part(&early, name), 0.0, "{name}");
    }
    early.total.backward();
    // No gradient, not even one of zero, with which weight decay or momentum would move it.
    assert!(gradients(&store, "discriminator").iter().all(|(_, g)| g.is_none()));

    for v in store.below("discriminator") {
        assign(&v.tensor, &(v.tensor.detach() * 3.0 + 0.1));
    }
    assert_eq!(number(&method.loss(&batch, EARLY).total), number(&early.total));
    assert_ne!(number(&method.loss(&batch, LATE).total), number(&early.total));
}

#[test]
fn switches_do_what_they_say() {
    let x = images(2, 16);
    let fixed = DiscriminatorConfig { adaptive: false, ..config().discriminator };
    let (_store, mut method) = golden(Config { discriminator: fixed, ..config() }, 16);
    assert_eq!(part(&method.loss(&batch(x.shallow_clone()), LATE), "lambda"), 1.0);

    let none = DiscriminatorConfig { weight: 0.0, ..config().discriminator };
    let store = Store::new(0, Device::Cpu);
    let mut method = make(&store, Config { discriminator: none, ..config() }, 16);
    assert!(store.below("discriminator").is_empty());
    assert_eq!(part(&method.loss(&batch(x.shallow_clone()), LATE), "discriminator"), 0.0);

    // Without a graph there is nothing to weigh.
    let (_store, mut method) = golden(config(), 16);
    let loss = no_grad(|| method.loss(&batch(x), LATE));
    assert_eq!(part(&loss, "lambda"), 0.0);
    assert!(number(&loss.total).is_finite());
}

#[test]
fn the_stand_in_for_lpips_is_fixed_and_zero_for_equal_pictures() {
    let (store, method) = golden(Config { perceptual: 1.0, ..config() }, 16);
    assert!(store.below("perceptual").iter().all(|v| !v.tensor.requires_grad()));
    let perceptual = method.perceptual.as_ref().expect("a network");
    let (x, y) = (images(2, 16), images(2, 16).flip([3]).set_requires_grad(true));
    assert_eq!(number(&perceptual.distance(&x, &x)), 0.0);
    let before: Vec<Tensor> = store.below("perceptual").iter().map(|v| v.tensor.copy()).collect();
    let distance = perceptual.distance(&x, &y);
    // Unit vectors are at most 2 apart.
    assert!(0.0 < number(&distance) && number(&distance) < 4.0);
    distance.backward();
    assert!(number(&y.grad().norm()) > 0.0);
    let after: Vec<Tensor> = store.below("perceptual").iter().map(|v| v.tensor.copy()).collect();
    assert_eq!(before, after, "no running statistics move");
}

#[test]
fn everything_is_trained() {
    let store = Store::new(0, Device::Cpu);
    // Wide enough that no ReLU is dead from the start.
    let mut method = make(&store, Config { hidden: 32, perceptual: 1.0, ..config() }, 16);
    method.loss(&batch(images(4, 16)), LATE).total.backward();
    for (name, g) in gradients(&store, "") {
        // While all logits lie between -1 and 1, real images pull this up as much as the others pull it down.
        if name == "discriminator.3.bias" {
            continue;
        }
        assert!(g.is_some_and(|g| number(&g.norm()) > 0.0), "{name}");
    }
    assert_eq!(method.features(&images(4, 16), false).size(), [4, 64]);
    assert_eq!(method.views().len(), 1);
}

#[test]
fn codes_go_to_images_and_scores_are_theirs() {
    for (encoder, size, grid) in
        [("conv-residual-tiny", 28, 7), ("conv-residual-tiny", 32, 8), ("conv-residual-tiny/8", 32, 4)]
    {
        let store = Store::new(0, Device::Cpu);
        let method = make_for(&store, config(), encoder, size).expect("a method");
        let x = images(2, size);
        let tokenizer = method.tokenizer().expect("a codebook");
        let codes = tokenizer.encode(&x);
        assert_eq!((codes.size(), codes.kind()), (vec![2, grid, grid], Kind::Int64), "{encoder}");
        assert_eq!((tokenizer.grid(size), tokenizer.vocabulary()), (grid, 6));
        let pictures = method.pictures(&batch(x.shallow_clone()));
        assert_eq!(pictures[1].1, tokenizer.decode(&codes));
        let in_bf16 = |f: &dyn Fn() -> Tensor| precision::with(precision::Precision::Bf16, f);
        assert_eq!(in_bf16(&|| tokenizer.encode(&x)), codes, "whatever a second stage computes in");
        assert_eq!(in_bf16(&|| tokenizer.decode(&codes)), pictures[1].1);
        assert_eq!(pictures[1].1.size(), x.size());
        let scores = method.pretext(&batch(x.shallow_clone()));
        assert_eq!(scores.iter().map(|s| s.0).collect::<Vec<_>>(), ["reconstruction_error", "sharpness", "perplexity"]);
        let ratio = number(&sharpness(&pictures[1].1)) / number(&sharpness(&x));
        assert!((number(&scores[1].1) / ratio - 1.0).abs() < 1e-6);
    }
}

/// Three colours in stripes, as often as the image's number says.
struct Stripes;

impl Images for Stripes {
    fn len(&self) -> usize {
        4
    }

    fn channels(&self) -> usize {
        3
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let pixels = (0..3 * 256).map(|m| (127.0 + 120.0 * (0.1 * (m * (index + 1)) as f64).sin()) as u8).collect();
        Ok(Image { height: 16, width: 16, channels: 3, pixels: Cow::Owned(pixels) })
    }
}

#[test]
fn codes_start_at_what_training_quantises_where_a_norm_uses_the_batch() {
    let normalisation = Normalisation { mean: vec![0.5; 3], std: vec![0.2; 3] };
    let plain = Plain { samples: &Stripes, size: 16, normalisation: &normalisation, device: Device::Cpu };
    let store = Store::new(0, Device::Cpu);
    let codebook = CodebookConfig { start: Start::Data, ..config().codebook };
    let mut method = make_for(&store, Config { codebook, ..config() }, "convnet", 16).expect("a method");
    let statistics = || store.buffers("encoder").iter().map(Tensor::copy).collect::<Vec<_>>();
    let before = statistics();
    let drawn = method.before_epoch(FIRST, &plain).expect("images can be read");
    assert_eq!((statistics(), drawn), (before, vec!["codebook.codes".to_string()]));
    // Four images are four parts: each a batch of its own.
    let one = |i| selfsup_core::augment::views::plain(&Stripes, &[i], 16, &normalisation).expect("an image");
    let places = no_grad(|| Tensor::cat(&(0..4).map(|i| method.coder.map(&one(i), true)).collect::<Vec<_>>(), 0));
    let places = places.permute([0, 2, 3, 1]).flatten(0, 2);
    let codes = named(&store, "codebook.codes").tensor.detach();
    let distance = (codes.unsqueeze(1) - places.unsqueeze(0)).abs().amax([2].as_slice(), false);
    assert_eq!(number(&distance.amin([1].as_slice(), false).max()), 0.0);
}

#[test]
fn bf16_networks_give_about_the_same_loss_in_f32() {
    const NAMES: [&str; 4] = ["reconstruction", "generator", "discriminator", "lambda"];
    let parts = |method: &mut VqGan| {
        let loss = method.loss(&batch(images(3, 20)), LATE);
        assert_eq!(loss.total.kind(), Kind::Float);
        NAMES.map(|name| part(&loss, name))
    };
    let (store, mut method) = golden(config(), 20);
    let exact = parts(&mut method);
    let rough = precision::with(precision::Precision::Bf16, || {
        method.loss(&batch(images(3, 20)), LATE).total.backward();
        parts(&mut method)
    });
    // Eight bits: a number is moved by at most 2^-8 of itself. What that does to the parts is tried out in f32, on the
    // weights alone; a layer rounds its input and its output too, so their variance is three times that.
    let weights: Vec<(Tensor, Tensor)> = store.trainable().into_iter().map(|v| (v.tensor.copy(), v.tensor)).collect();
    const TRIES: u64 = 8;
    let mut squares = [0.0; 4];
    for draw in 0..TRIES {
        let mut rng = Rng::new(draw, Purpose::Sample, 0, 0, 0);
        for (before, tensor) in &weights {
            let moves: Vec<f32> = (0..tensor.numel()).map(|_| rng.range(-1.0, 1.0) as f32 / 256.0).collect();
            assign(tensor, &(before * (Tensor::from_slice(&moves).view_as(before) + 1.0)));
        }
        for (square, (moved, exact)) in squares.iter_mut().zip(parts(&mut method).into_iter().zip(exact)) {
            *square += (moved - exact).powi(2) / TRIES as f64;
        }
    }
    for (i, name) in NAMES.into_iter().enumerate() {
        let deviation = (3.0 * squares[i]).sqrt();
        let (a, b) = (rough[i], exact[i]);
        assert!((a - b).abs() < 3.0 * deviation, "{name}: {a} is not {b} up to three times {deviation}");
        assert!(3.0 * deviation < b.abs(), "{name}: {deviation} of {b} would hide a factor of two");
    }
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let refused = |config: Config, encoder: &str, size| {
        let made = VqGan::check(&config).and_then(|()| make_for(&Store::new(0, Device::Cpu), config, encoder, size));
        made.err().expect("a refusal").to_string()
    };
    let disc = |discriminator| Config { discriminator, ..config() };
    let paper = DiscriminatorConfig::default;
    let own = |config: Config| refused(config, "conv-residual", 28);
    assert!(own(Config { hidden: 0, ..config() }).contains("hidden is 0"));
    assert!(own(Config { hidden: 6, ..config() }).contains("hidden is 6; expected a multiple of 4"));
    assert!(own(Config { perceptual: -1.0, ..config() }).contains("perceptual is -1"));
    assert!(own(Config { codebook_weight: f64::NAN, ..config() }).contains("codebook_weight is NaN"));
    assert!(own(disc(DiscriminatorConfig { weight: -1.0, ..paper() })).contains("discriminator.weight is -1"));
    assert!(own(disc(DiscriminatorConfig { start: -1.0, ..paper() })).contains("discriminator.start is -1"));
    assert!(own(disc(DiscriminatorConfig { width: 0, ..paper() })).contains("discriminator.width is 0"));
    assert!(own(disc(DiscriminatorConfig { layers: 0, ..paper() })).contains("discriminator.layers is 0"));
    assert!(own(disc(DiscriminatorConfig { layers: 4, ..paper() })).contains("too many for images of 28 pixels"));
    assert!(refused(config(), "vit-micro/4", 28).contains("encoder=conv-residual"));
}
