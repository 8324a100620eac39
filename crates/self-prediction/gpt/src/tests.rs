//! GPT against PyTorch (`tests/golden.py`), closed forms, who may see whom, and what is sampled.

use super::sample::sharpen;
use super::*;
use selfsup_core::Device;
use selfsup_core::augment::PARAMS;
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::optimiser::{Optimiser, OptimiserConfig};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Store, assign};
use selfsup_core::tensor::draw;

/// `wave` of golden.py: sin(1.3 m^2 + phase).
fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn config() -> Config {
    Config { dropout: 0.0, ..Config::default() }
}

const ENCODER: &str = "transformer-nano-causal";

fn make(store: &Store, config: Config, encoder: &str, vocabulary: i64, length: i64) -> Result<Gpt> {
    let tokens = Shape::Tokens(TokenShape { vocabulary, length });
    Gpt::new(config, &Setup::new(store.root(), encoder.parse()?, tokens, 8))
}

/// The model of golden.py, with its weights.
fn golden(config: Config, vocabulary: i64, length: i64) -> (Store, Gpt) {
    let store = Store::new(0, Device::Cpu);
    let gpt = make(&store, config, ENCODER, vocabulary, length).expect("a method");
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (k, v) in variables.iter().enumerate() {
        let one = if v.name.contains("norm") && v.name.ends_with("weight") { 1.0 } else { 0.0 };
        assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.1 + one));
    }
    (store, gpt)
}

/// Windows of `length`, padded.
fn windows(rows: &[&[i64]], length: usize) -> Tensor {
    let padded =
        |row: &&[i64]| -> Vec<i64> { row.iter().copied().chain(std::iter::repeat(PADDING)).take(length).collect() };
    Tensor::from_slice2(&rows.iter().map(padded).collect::<Vec<_>>())
}

fn batch(x: Tensor) -> Batch {
    let n = x.size()[0];
    let params = Tensor::zeros([n, PARAMS.len() as i64], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0)
}

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

struct Case {
    shape: (i64, i64),
    start: bool,
    tied: bool,
    rows: &'static [&'static [i64]],
    loss: f64,
    gradient: f64,
    /// The first three features of the second window, and the norm of all.
    features: ([f64; 3], f64),
    /// The second value and the norm of gradients.
    gradients: &'static [(&'static str, f64, f64)],
}

const CASES: [Case; 4] = [
    Case {
        shape: (5, 7),
        start: false,
        tied: true,
        rows: &[&[0, 3, 2, 4, 1, 1, 0], &[2, 2, 0, 4, 3, 1, 4]],
        loss: 1.596383431,
        gradient: 8.563045051e+00,
        features: ([-1.97021520, 0.40667398, 0.13347458], 10.10074832),
        gradients: &[
            ("encoder.embedding", 2.679268523e-01, 5.833740238e+00),
            ("encoder.positions", 2.660501268e-01, 5.481362323e+00),
            ("encoder.blocks.2.attn.qkv.weight", -2.988400168e-04, 3.395375732e-01),
        ],
    },
    Case {
        shape: (5, 7),
        start: true,
        tied: false,
        rows: &[&[0, 3, 2, 4, 1, 1, 0], &[4, 0, 1]],
        loss: 1.950622288,
        gradient: 6.353339438e+00,
        features: ([-1.55901560, -0.12788873, 0.22368629], 10.61883702),
        gradients: &[
            ("encoder.embedding", -5.097270351e-02, 2.164035247e+00),
            ("encoder.positions", -2.467170940e-01, 2.456069745e+00),
            ("encoder.blocks.2.attn.qkv.weight", -4.074555635e-04, 6.146178453e-01),
            ("start", -2.467170940e-01, 1.407171725e+00),
            ("output.weight", 2.393338926e-01, 3.180199213e+00),
        ],
    },
    Case {
        shape: (11, 4),
        start: true,
        tied: true,
        rows: &[&[10, 9], &[3, 3, 7, 0], &[8]],
        loss: 2.864770878,
        gradient: 6.334452308e+00,
        features: ([-1.41347485, 0.60717652, -0.37456582], 13.48964432),
        gradients: &[
            ("encoder.embedding", -3.190868493e-02, 3.354869404e+00),
            ("encoder.positions", 4.724174257e-02, 1.388381283e+00),
            ("encoder.blocks.2.attn.qkv.weight", -1.113813502e-05, 8.088710778e-01),
            ("start", 4.724174257e-02, 1.137911418e+00),
        ],
    },
    Case {
        shape: (11, 4),
        start: false,
        tied: false,
        rows: &[&[10, 9], &[3, 3, 7, 0], &[1, 2, 3]],
        loss: 2.645957603,
        gradient: 6.168514016e+00,
        features: ([-1.59932849, 0.67880984, -1.13884978], 13.44837575),
        gradients: &[
            ("encoder.positions", -1.609823210e-01, 1.524197052e+00),
            ("encoder.blocks.2.attn.qkv.weight", 1.314647582e-04, 7.568752523e-01),
            ("output.weight", -5.064543872e-02, 3.188846914e+00),
        ],
    },
];

#[test]
fn loss_features_and_gradients_are_those_of_pytorch() {
    for case in CASES {
        let Case { shape: (vocabulary, length), start, tied, .. } = case;
        let (store, mut gpt) = golden(Config { start, tied, ..config() }, vocabulary, length);
        let u = windows(case.rows, length as usize);
        let loss = gpt.loss(&batch(u.copy()), AT).total;
        // f32 through six blocks: values of about 1 keep six digits.
        assert!((number(&loss) / case.loss - 1.0).abs() < 2e-6, "{} is not {}", number(&loss), case.loss);
        loss.backward();
        for &(name, second, norm) in case.gradients {
            let g = store.trainable().into_iter().find(|v| v.name == name).expect(name).tensor.grad();
            assert!((number(&g.norm()) / norm - 1.0).abs() < 1e-4, "{name}");
            assert!((g.flatten(0, -1).double_value(&[1]) - second).abs() < 1e-4 * norm, "{name}");
        }
        let all: f64 = store.trainable().iter().map(|v| number(&v.tensor.grad().square().sum(Kind::Double))).sum();
        assert!((all.sqrt() / case.gradient - 1.0).abs() < 1e-5, "{}", all.sqrt());
        let features = gpt.features(&u, false);
        let (first, norm) = case.features;
        assert!((number(&features.norm()) / norm - 1.0).abs() < 2e-6);
        for (i, expected) in first.into_iter().enumerate() {
            assert!((features.double_value(&[1, i as i64]) - expected).abs() < 5e-6);
        }
    }
}

#[test]
fn equal_logits_cost_the_log_of_the_vocabulary() {
    for v in [2, 65, 512] {
        let logits = Tensor::ones([3, 4, v], (Kind::Double, Device::Cpu)) * 1.7;
        let targets = windows(&[&[0, 1, 1, 0], &[1], &[0, 0]], 4);
        assert!((number(&next_token_loss(&logits, &targets)) - (v as f64).ln()).abs() < 1e-12);
    }
    // Nothing to predict: no loss, and no division by 0.
    let none = Tensor::full([2, 3], PADDING, (Kind::Int64, Device::Cpu));
    assert_eq!(number(&next_token_loss(&wave(0.1, &[2, 3, 5]), &none)), 0.0);
}

#[test]
fn an_untrained_network_knows_nothing() {
    for tied in [true, false] {
        let store = Store::new(0, Device::Cpu);
        let mut gpt = make(&store, Config { tied, ..config() }, "transformer-micro-causal", 65, 65).expect("a method");
        let mut rng = Rng::new(0, Purpose::Sample, 0, 0, 0);
        let u: Vec<i64> = (0..8 * 65).map(|_| rng.below(65) as i64).collect();
        let loss = number(&gpt.loss(&batch(Tensor::from_slice(&u).view([8, 65])), AT).total);
        assert!((loss - 65f64.ln()).abs() < 0.1, "{loss}");
    }
}

#[test]
fn a_token_changes_no_logit_before_it() {
    for start in [false, true] {
        let (_store, gpt) = golden(Config { start, ..config() }, 5, 7);
        let u = windows(&[&[0, 3, 2, 4, 1, 1, 0]], 7);
        let before = no_grad(|| gpt.logits(&u, 0.0));
        for t in 0..7 {
            let other = u.copy();
            let _ = other.get(0).get(t).fill_((u.int64_value(&[0, t]) + 1) % 5);
            let moved = (no_grad(|| gpt.logits(&other, 0.0)) - &before).abs().amax([0, 2].as_slice(), false);
            for i in 0..gpt.context {
                // Logit i predicts token i with a start vector and token i + 1 without. It may see what is before that.
                let target = i + i64::from(!start);
                assert_eq!(moved.double_value(&[i]) > 0.0, t < target, "start {start}: token {t}, logit {i}");
            }
        }
    }
}

#[test]
fn the_last_token_is_predicted_and_never_read() {
    // What fails without the shift: the loss of a window must depend on its last token as a target alone.
    let (_store, gpt) = golden(config(), 5, 7);
    let (a, b) = (windows(&[&[0, 3, 2, 4, 1, 1, 0]], 7), windows(&[&[0, 3, 2, 4, 1, 1, 4]], 7));
    let logits = no_grad(|| gpt.logits(&a, 0.0));
    assert_eq!(logits, no_grad(|| gpt.logits(&b, 0.0)));
    assert_eq!(gpt.targets(&b), windows(&[&[3, 2, 4, 1, 1, 4]], 6));
    assert_ne!(next_token_loss(&logits, &gpt.targets(&a)), next_token_loss(&logits, &gpt.targets(&b)));
    assert_eq!(gpt.features(&a, false), gpt.features(&b, false));
}

#[test]
fn padding_costs_nothing() {
    for start in [false, true] {
        let (_store, mut gpt) = golden(Config { start, ..config() }, 5, 7);
        let mut loss = |rows: &[&[i64]]| number(&gpt.loss(&batch(windows(rows, 7)), AT).total);
        let (long, short) = (loss(&[&[0, 3, 2, 4, 1, 1, 0]]), loss(&[&[1, 4, 2]]));
        let both = loss(&[&[0, 3, 2, 4, 1, 1, 0], &[1, 4, 2]]);
        let (n, m) = if start { (7.0, 3.0) } else { (6.0, 2.0) };
        // Sums over other sizes: f32.
        assert!((both - (n * long + m * short) / (n + m)).abs() < 1e-5);
    }
}

#[test]
fn the_first_token_is_predicted_from_the_start_vector_alone() {
    let (store, gpt) = golden(Config { start: true, ..config() }, 5, 7);
    let u = windows(&[&[0, 3, 2, 4, 1, 1, 0], &[4, 4, 0, 1, 2, 3, 0]], 7);
    let logits = gpt.logits(&u, 0.0);
    assert_eq!(logits.size(), [2, 7, 5]);
    assert_eq!(logits.get(0).get(0), logits.get(1).get(0));
    logits.get(0).get(0).square().sum(None).backward();
    let gradient = |name: &str| store.trainable().into_iter().find(|v| v.name == name).expect(name).tensor.grad();
    assert!(number(&gradient("start").norm()) > 0.0);
    assert_eq!(number(&gradient("encoder.positions").narrow(1, 1, 6).norm()), 0.0);
}

/// Steps of AdamW on what `rows` gives.
fn train(store: &Store, gpt: &mut Gpt, steps: u64, rows: impl Fn(u64) -> Tensor) -> f64 {
    let adam =
        OptimiserConfig::AdamW { rate: 3e-3, per: 0, betas: [0.9, 0.99], eps: 1e-8, decay: 0.0, decay_all: false };
    let mut optimiser = Optimiser::new(&adam, store.trainable()).expect("an optimiser");
    let mut last = f64::INFINITY;
    for step in 0..steps {
        let loss = gpt.loss(&batch(rows(step)), AT).total;
        last = number(&loss);
        optimiser.zero_grad().expect("gradients");
        loss.backward();
        optimiser.step(3e-3, 3e-3).expect("a step");
    }
    last
}

#[test]
fn one_batch_is_learned_by_heart() {
    let store = Store::new(0, Device::Cpu);
    let mut gpt = make(&store, Config { start: true, ..config() }, ENCODER, 11, 16).expect("a method");
    // Eight windows that differ in their first token, without which that one could not be known from the start vector
    // alone: ln 8 / 16 of the loss remains.
    let mut rng = Rng::new(1, Purpose::Sample, 0, 0, 0);
    let rows: Vec<Vec<i64>> =
        (0..8).map(|first| (0..16).map(|t| if t == 0 { first } else { rng.below(11) as i64 }).collect()).collect();
    let rows = Tensor::from_slice2(&rows);
    let loss = train(&store, &mut gpt, 150, |_| rows.copy());
    assert!(loss - 8f64.ln() / 16.0 < 0.05, "{loss}");
}

#[test]
fn a_periodic_sequence_is_known_after_its_period() {
    let store = Store::new(0, Device::Cpu);
    let mut gpt = make(&store, config(), ENCODER, 4, 16).expect("a method");
    let word = [0i64, 3, 1, 3, 2]; // behind a 3 comes what the token before it says
    let row = |from: usize| -> Vec<i64> { (0..16).map(|t| word[(from + t) % 5]).collect() };
    let rows = Tensor::from_slice2(&(0..5).map(row).collect::<Vec<_>>());
    train(&store, &mut gpt, 150, |_| rows.copy());
    let (logits, targets) = (no_grad(|| gpt.logits(&rows, 0.0)), gpt.targets(&rows));
    let behind = next_token_loss(&logits.narrow(1, 5, 10), &targets.narrow(1, 5, 10));
    assert!(number(&behind) < 0.05, "{}", number(&behind));
    // And it goes on with it, far beyond its context of 15 tokens.
    let u = Tensor::full([1, 40], 0.5, (Kind::Float, Device::Cpu));
    let text = Vec::<i64>::try_from(gpt.go_on(&Tensor::from_slice(&word[..5]).unsqueeze(0), &u).get(0)).expect("ids");
    let expected: Vec<i64> = (0..45).map(|t| word[t % 5]).collect();
    assert_eq!(text, expected);
}

#[test]
fn dropout_is_off_where_the_network_is_judged() {
    let (_store, mut gpt) = golden(Config { dropout: 0.5, ..config() }, 5, 7);
    let u = || batch(windows(&[&[0, 3, 2, 4, 1, 1, 0], &[2, 2, 0, 4, 3, 1, 4]], 7));
    let pretext = gpt.pretext(&u());
    let (bits, loss) = (number(&pretext[0].1.mean(None)), number(&pretext[1].1.mean(None)));
    assert_eq!(pretext[0].1.size(), [12], "an entry for each of two times six predictions");
    assert_eq!((pretext[0].0, pretext[1].0), ("bits_per_token", "loss"));
    assert!((loss / CASES[0].loss - 1.0).abs() < 2e-6);
    assert!((bits * 2f64.ln() - loss).abs() < 1e-6);
    selfsup_core::tch::manual_seed(3);
    assert!((number(&gpt.loss(&u(), AT).total) - loss).abs() > 1e-2, "and on where it is trained");
    assert_eq!(gpt.features(&u().views[0].x, true), gpt.features(&u().views[0].x, false));
}

#[test]
fn scores_do_not_depend_on_how_sequences_are_put_into_batches() {
    let (_store, gpt) = golden(config(), 5, 7);
    let rows: [&[i64]; 2] = [&[0, 3, 2, 4, 1, 1, 0], &[2, 2, 0]];
    let losses = |rows: &[&[i64]]| gpt.pretext(&batch(windows(rows, 7))).swap_remove(1).1;
    let (both, apart) = (losses(&rows), Tensor::cat(&[losses(&rows[..1]), losses(&rows[1..])], 0));
    // Six predictions and two: padding is none. Kernels may differ with the size of the batch.
    assert_eq!(both.size(), [8]);
    assert!(number(&(&both - apart).abs().max()) < 1e-5);
}

#[test]
fn drawn_tokens_have_the_probabilities_of_their_logits() {
    let p = [0.5, 0.25, 0.15, 0.1f64];
    let n = 20_000;
    let logits = Tensor::from_slice(&p.map(f64::ln)).unsqueeze(0).expand([n, 4], false);
    let mut rng = Rng::new(0, Purpose::Generate, 0, 0, 0);
    let u = Tensor::from_slice(&(0..n).map(|_| rng.uniform()).collect::<Vec<_>>());
    let shares = |temperature, top_k| -> Vec<f64> {
        let ids = draw(&sharpen(&logits, temperature, top_k), &u);
        (0..4).map(|k| number(&ids.eq(k).to_kind(Kind::Double).mean(None))).collect()
    };
    let expected = |weights: [f64; 4]| weights.map(|w| w / weights.iter().sum::<f64>());
    let cases = [
        (1.0, 0, p),
        (2.0, 0, p.map(f64::sqrt)),
        (1.0, 4, p),
        (1.0, 2, [0.5, 0.25, 0.0, 0.0]),
        (0.5, 3, [0.25, 0.0625, 0.0225, 0.0]),
        (7.0, 1, [1.0, 0.0, 0.0, 0.0]),
    ];
    for (temperature, top_k, weights) in cases {
        for (share, e) in shares(temperature, top_k).into_iter().zip(expected(weights)) {
            // Five standard errors; what is cut off is never drawn.
            let slack = 5.0 * (e * (1.0 - e) / n as f64).sqrt();
            assert!((share - e).abs() <= slack, "temperature {temperature}, top_k {top_k}: {share} for {e}");
        }
    }
}

/// The token behind `ids` [B, n] as one whole pass over those from `from` on gives it, without a cache: [B].
fn next(gpt: &Gpt, ids: &Tensor, from: i64, u: &Tensor) -> Tensor {
    let read = ids.narrow(1, from, ids.size()[1] - from);
    let h = no_grad(|| gpt.encoder.stack.forward(&gpt.embed(&read), None, 0.0));
    let logits = no_grad(|| gpt.project(&h.select(1, h.size()[1] - 1)));
    draw(&sharpen(&logits, gpt.config.temperature, gpt.config.top_k), u)
}

#[test]
fn sampling_with_a_cache_is_sampling_by_whole_passes() {
    for (start, prompt) in [(true, 0), (true, 3), (false, 1), (false, 4)] {
        // Nine tokens, of which without a start vector eight are read.
        let (_store, gpt) = golden(Config { start, temperature: 0.8, top_k: 3, ..config() }, 5, 9);
        let mut ids = windows(&[&[0, 3, 2, 4, 1], &[2, 2, 0, 4, 3]], 5).narrow(1, 0, prompt);
        let u = (wave(0.4, &[2, 9 - prompt]) + 1.0) / 2.001;
        let sampled = no_grad(|| gpt.go_on(&ids, &u));
        for u in u.unbind(1) {
            ids = Tensor::cat(&[&ids, &next(&gpt, &ids, 0, &u).unsqueeze(-1)], 1);
        }
        assert_eq!(sampled, ids, "start {start}, {prompt} tokens");
    }
}

#[test]
fn text_goes_on_beyond_the_context() {
    for (start, length) in [(false, 2), (false, 3), (true, 1), (true, 2), (true, 5), (false, 6), (false, 9)] {
        let (_store, gpt) = golden(Config { start, ..config() }, 5, length);
        let context = if start { length } else { length - 1 };
        for prompt in [1, 8] {
            let mut ids = windows(&[&[0, 3, 2, 4, 1, 1, 0, 2], &[2, 2, 0, 4, 3, 3, 3, 1]], 8).narrow(1, 0, prompt);
            let u = (wave(0.4, &[2, 20]) + 1.0) / 2.001;
            let sampled = no_grad(|| gpt.go_on(&ids, &u));
            // Where what was read and the newest token fill more than a context, the last half of one is read anew.
            let mut from = 0;
            for u in u.unbind(1) {
                let n = ids.size()[1];
                if n - from + i64::from(start) > context {
                    from = n - (context / 2).max(i64::from(!start));
                }
                ids = Tensor::cat(&[&ids, &next(&gpt, &ids, from, &u).unsqueeze(-1)], 1);
            }
            assert_eq!(sampled, ids, "start {start}, windows of {length}, {prompt} tokens");
        }
    }
}

#[test]
fn texts_are_prompts_and_what_follows() {
    let (_store, gpt) = golden(config(), 5, 7);
    let x = windows(&[&[0, 3, 2, 4, 1, 1, 0], &[2, 4, 4], &[1]], 7);
    let rows = gpt.pictures(&batch(x));
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["prompt", "continuation", "prompt", "continuation", "prompt", "continuation"]);
    for (i, prompt) in [&[0i64, 3, 2][..], &[2], &[1]].into_iter().enumerate() {
        assert_eq!(rows[2 * i].1, Tensor::from_slice(prompt).unsqueeze(0));
        let (size, kind) = (rows[2 * i + 1].1.size(), rows[2 * i + 1].1.kind());
        assert_eq!((size, kind), (vec![1, 7], Kind::Int64));
    }
    // The state of LibTorch's generator has no say.
    selfsup_core::tch::manual_seed(5);
    let again = gpt.pictures(&batch(windows(&[&[0, 3, 2, 4, 1, 1, 0], &[2, 4, 4], &[1]], 7)));
    assert_eq!(again[1].1, rows[1].1);
}

/// Codes of 2 x 2 patches of images of one channel: whether their mean is above 0.
struct Signs;

impl Method for Signs {
    fn views(&self) -> Vec<Recipe> {
        Vec::new()
    }

    fn loss(&mut self, _: &Batch, _: Progress) -> Loss {
        unreachable!("it is not trained")
    }

    fn features(&self, x: &Tensor, _: bool) -> Tensor {
        x.flatten(1, -1)
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        Some(self)
    }
}

impl Tokenizer for Signs {
    fn encode(&self, x: &Tensor) -> Tensor {
        x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None::<i64>).squeeze_dim(1).gt(0.0).to_kind(Kind::Int64)
    }

    fn decode(&self, codes: &Tensor) -> Tensor {
        let x: Tensor = codes.unsqueeze(1).to_kind(Kind::Float) * 2.0 - 1.0;
        x.upsample_nearest2d([2 * codes.size()[1], 2 * codes.size()[2]], None, None)
    }

    fn vocabulary(&self) -> i64 {
        2
    }

    fn grid(&self, size: i64) -> i64 {
        size / 2
    }
}

#[test]
fn images_are_read_as_their_codes() {
    for start in [true, false] {
        let store = Store::new(0, Device::Cpu);
        let image = Shape::Image(ImageShape { channels: 1, size: 8 });
        let setup = Setup::new(store.root(), ENCODER.parse().expect("a name"), image, 8);
        let setup = Setup { tokenizer: Some(Rc::new(Signs)), ..setup };
        let mut gpt = Gpt::new(Config { start, ..config() }, &setup).expect("a method");
        let x = wave(0.1, &[3, 1, 8, 8]).to_kind(Kind::Float);
        assert_eq!(gpt.features(&x, false).size(), [3, 64]);
        assert_eq!(gpt.features(&x, false), gpt.features(&gpt.tokens(&x), false));
        let mut loss = |x: Tensor| number(&gpt.loss(&batch(x), AT).total);
        assert_eq!(loss(x.copy()), loss(Signs.encode(&x).flatten(1, 2)));
        let rows = gpt.pictures(&batch(x.copy()));
        let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["input", "codes", "completion", "sample"]);
        assert!(rows.iter().all(|(_, row)| row.size() == [3, 1, 8, 8] && !row.requires_grad()));
        // The upper half is kept.
        assert_eq!(rows[2].1.narrow(2, 0, 4), rows[1].1.narrow(2, 0, 4));
        assert_ne!(rows[2].1, rows[1].1);
    }
}

#[test]
fn everything_is_trained() {
    for (start, tied) in [(false, true), (true, false)] {
        let store = Store::new(0, Device::Cpu);
        let mut gpt = make(&store, Config { start, tied, ..Config::default() }, ENCODER, 5, 7).expect("a method");
        gpt.loss(&batch(windows(&[&[0, 3, 2, 4, 1, 1, 0], &[2, 2, 0, 4, 3, 1, 4]], 7)), AT).total.backward();
        for v in store.trainable() {
            assert!(number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
        }
        // Every position is read: seven with the start vector, else six, since the last token is a target alone.
        let positions =
            store.trainable().into_iter().find(|v| v.name == "encoder.positions").expect("positions").tensor;
        assert_eq!(positions.size()[1], if start { 7 } else { 6 });
        assert!(number(&positions.grad().norm_scalaropt_dim(2.0, [2].as_slice(), false).min()) > 0.0);
        // One parameter where the weights are tied.
        assert_eq!(store.trainable().iter().any(|v| v.name.starts_with("output")), !tied);
        assert!(gpt.embedding(&windows(&[&[0, 1]], 7)).is_none());
        assert_eq!(gpt.views().len(), 1);
    }
}

#[test]
fn features_come_from_the_block_that_was_asked_for() {
    let u = windows(&[&[0, 3, 2, 4, 1, 1, 0]], 7);
    let at = |probe| golden(Config { probe, ..config() }, 5, 7).1.features(&u, false);
    assert_eq!(at(0), at(3));
    assert_ne!(at(0), at(6));
}

#[test]
fn bf16_networks_give_about_the_same_loss_in_f32() {
    let (_store, mut gpt) = golden(Config { start: true, tied: false, ..config() }, 5, 7);
    let rough = precision::with(precision::Precision::Bf16, || {
        gpt.loss(&batch(windows(&[&[0, 3, 2, 4, 1, 1, 0], &[4, 0, 1]], 7)), AT).total
    });
    assert_eq!(rough.kind(), Kind::Float);
    rough.backward();
    // Eight bits of mantissa, averaged over ten tokens only.
    assert!((number(&rough) / CASES[1].loss - 1.0).abs() < 2e-2, "{}", number(&rough));
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let refused = |config: Config, encoder: &str, length: i64| {
        let made = Gpt::check(&config).and_then(|()| make(&Store::new(0, Device::Cpu), config, encoder, 5, length));
        made.err().expect("a refusal").to_string()
    };
    for encoder in ["transformer-nano", "convnet-tiny"] {
        let message = refused(config(), encoder, 7);
        assert!(message.contains("gpt") && message.contains(encoder) && message.contains("-causal"), "{message}");
    }
    assert!(refused(config(), ENCODER, 1).contains("1 token"));
    assert!(refused(Config { probe: 7, ..config() }, ENCODER, 7).contains("probe is 7"));
    assert!(refused(Config { probe: -1, ..config() }, ENCODER, 7).contains("probe is -1"));
    assert!(refused(Config { top_k: -1, ..config() }, ENCODER, 7).contains("top_k is -1"));
    for dropout in [-0.1, 1.0, f64::NAN] {
        assert!(refused(Config { dropout, ..config() }, ENCODER, 7).contains("dropout is"));
    }
    for temperature in [0.0, -1.0, f64::NAN] {
        assert!(refused(Config { temperature, ..config() }, ENCODER, 7).contains("temperature is"));
    }
    let image = Shape::Image(ImageShape { channels: 1, size: 8 });
    let store = Store::new(0, Device::Cpu);
    let setup = Setup::new(store.root(), ENCODER.parse().expect("a name"), image, 8);
    let message = Gpt::new(config(), &setup).err().expect("images without a tokenizer").to_string();
    assert!(message.contains("images") && message.contains("tokenizer"), "{message}");
}
