//! BERT against PyTorch (`tests/golden.py`), counts and shares of the mask, and what may depend on what.

use super::*;
use selfsup_core::Device;
use selfsup_core::augment::PARAMS;
use selfsup_core::augment::views::PADDING;
use selfsup_core::method::{Shape, TokenShape, View};
use selfsup_core::rng::Rng;
use selfsup_core::store::{Store, assign};

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

fn config() -> Config {
    Config { dropout: 0.0, ..Config::default() }
}

const ENCODER: &str = "transformer-nano";

fn make(store: &Store, config: Config, encoder: &str, vocabulary: i64, length: i64) -> Result<Bert> {
    let tokens = Shape::Tokens(TokenShape { vocabulary, length });
    Bert::new(config, &Setup::new(store.root(), encoder.parse()?, tokens, 8))
}

/// The model of golden.py, with its weights.
fn golden(config: Config, vocabulary: i64, length: i64) -> (Store, Bert) {
    let store = Store::new(0, Device::Cpu);
    let bert = make(&store, config, ENCODER, vocabulary, length).expect("a method");
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (k, v) in variables.iter().enumerate() {
        let one = if v.name.contains("norm") && v.name.ends_with("weight") { 1.0 } else { 0.0 };
        assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.1 + one));
    }
    (store, bert)
}

/// Sequences of `length`, padded.
fn sequences(rows: &[&[i64]], length: usize) -> Tensor {
    let padded =
        |row: &&[i64]| -> Vec<i64> { row.iter().copied().chain(std::iter::repeat(PADDING)).take(length).collect() };
    Tensor::from_slice2(&rows.iter().map(padded).collect::<Vec<_>>())
}

fn batch(x: Tensor) -> Batch {
    let n = x.size()[0];
    let params = Tensor::zeros([n, PARAMS.len() as i64], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0)
}

/// As BERT's own, of 7 tokens.
const RULE: Rule = Rule { separators: &[], ratio: 0.15, most: 0, masked: 0.8, random: 0.1, mask_id: 7 };

fn noise(b: i64, t: i64) -> Tensor {
    ((wave(0.4, &[b, 3 * t]) + 1.0) / 2.001).to_kind(Kind::Float)
}

fn random_ids(b: usize, t: usize, vocabulary: usize) -> Tensor {
    let mut rng = Rng::new(0, Purpose::Sample, 0, 0, 0);
    let ids: Vec<i64> = (0..b * t).map(|_| rng.below(vocabulary) as i64).collect();
    Tensor::from_slice(&ids).view([b as i64, t as i64])
}

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

struct Case {
    /// V, T.
    shape: (i64, i64),
    rule: Rule<'static>,
    rows: &'static [&'static [i64]],
    inputs: &'static [&'static [i64]],
    targets: &'static [i64],
    loss: f64,
    gradient: f64,
    /// The second value and the norm of gradients.
    gradients: [(&'static str, f64, f64); 4],
}

const CASES: [Case; 3] = [
    Case {
        shape: (7, 9),
        rule: Rule { ratio: 0.4, masked: 0.4, random: 0.3, ..RULE },
        rows: &[&[0, 3, 2, 6, 1, 1, 0, 5, 4], &[2, 2, 0, 4]],
        inputs: &[&[7, 3, 2, 7, 1, 1, 7, 5, 4], &[2, 2, 7, 4]],
        targets: &[0, 2, 6, 0, 2, 0],
        loss: 2.115096252,
        gradient: 1.225382236e+01,
        gradients: [
            ("encoder.embedding", -9.275453280e-01, 6.899564941e+00),
            ("encoder.blocks.2.attn.qkv.weight", 1.302832568e-04, 1.146799790e+00),
            ("head.dense.weight", -7.239196981e-03, 4.875368263e+00),
            ("head.bias", 7.476194285e-02, 5.514700750e-01),
        ],
    },
    Case {
        shape: (7, 9),
        rule: Rule { separators: &[0, 1], ratio: 0.5, ..RULE },
        rows: &[&[3, 3, 2, 0, 4, 5, 1, 0, 6], &[0, 1, 5], &[6, 2, 5, 4, 3, 2, 0]],
        inputs: &[&[3, 3, 2, 7, 7, 7, 7, 0, 6], &[0, 1, 7], &[6, 2, 5, 4, 3, 2, 0]],
        targets: &[0, 4, 5, 1, 0, 5, 0],
        loss: 2.428499326,
        gradient: 1.414330535e+01,
        gradients: [
            ("encoder.embedding", -2.376356802e+00, 9.349528389e+00),
            ("encoder.blocks.2.attn.qkv.weight", -4.985858282e-04, 8.371571722e-01),
            ("head.dense.weight", 4.518206997e-03, 3.766600862e+00),
            ("head.bias", -2.396382621e-02, 5.123430706e-01),
        ],
    },
    Case {
        shape: (11, 5),
        rule: Rule { ratio: 0.9, most: 2, masked: 0.0, random: 1.0, mask_id: 11, ..RULE },
        rows: &[&[10, 9, 1, 2, 3], &[8]],
        inputs: &[&[10, 9, 1, 6, 3], &[9]],
        targets: &[1, 2, 8],
        loss: 2.316256397,
        gradient: 8.666310085e+00,
        gradients: [
            ("encoder.embedding", 1.847177632e-01, 4.345837870e+00),
            ("encoder.blocks.2.attn.qkv.weight", -2.208492189e-05, 1.057229044e+00),
            ("head.dense.weight", -1.933044810e-03, 3.542150951e+00),
            ("head.bias", -2.645751190e-01, 4.667356539e-01),
        ],
    },
];

#[test]
fn masks_loss_and_gradients_are_those_of_pytorch() {
    for case in CASES {
        let (vocabulary, length) = case.shape;
        let (store, bert) = golden(config(), vocabulary, length);
        let ids = sequences(case.rows, length as usize);
        let mask = Mask::new(&ids, &noise(case.rows.len() as i64, length), &case.rule);
        assert_eq!(mask.input, sequences(case.inputs, length as usize));
        assert_eq!(mask.targets, Tensor::from_slice(case.targets));
        let loss = cross_entropy(&bert.predict(&mask, 0.0), &mask.targets);
        // f32 through six blocks: values of about 1 keep six digits.
        assert!((number(&loss) / case.loss - 1.0).abs() < 2e-6, "{} is not {}", number(&loss), case.loss);
        loss.backward();
        for (name, second, norm) in case.gradients {
            let g = store.trainable().into_iter().find(|v| v.name == name).expect(name).tensor.grad();
            assert!((number(&g.norm()) / norm - 1.0).abs() < 1e-4, "{name}");
            assert!((g.flatten(0, -1).double_value(&[1]) - second).abs() < 1e-4 * norm, "{name}");
        }
        let all: f64 = store.trainable().iter().map(|v| number(&v.tensor.grad().square().sum(Kind::Double))).sum();
        assert!((all.sqrt() / case.gradient - 1.0).abs() < 1e-5, "{}", all.sqrt());
    }
}

#[test]
fn places_are_counted_as_in_the_authors_code() {
    // Halves go to the even number, as Python rounds: 7.5 to 8, 4.5 to 4, 10.5 to 10.
    for (length, expected) in [(1, 1), (5, 1), (10, 2), (30, 4), (50, 8), (70, 10), (128, 19), (200, 20)] {
        assert_eq!(count(length, 0.15, 20), expected, "{length}");
    }
    assert_eq!((count(200, 0.15, 0), count(0, 0.15, 20)), (30, 1));
}

#[test]
fn shares_are_those_of_the_paper() {
    let (b, t, v) = (800, 128, 65);
    let ids = random_ids(b, t, v);
    let rule = Rule { mask_id: v as i64, ..RULE };
    let columns = Mask::COLUMNS as usize * t;
    let mask = Mask::new(&ids, &batch(ids.copy()).uniform(Purpose::Mask, columns), &rule);
    // 19 of 128 in each sequence.
    let share = |x: &Tensor| number(&x.to_kind(Kind::Double).mean(None));
    assert_eq!(share(&mask.chosen), 19.0 / 128.0);
    let shown = mask.input.index(&[Some(&mask.chosen)]);
    let (masked, same) = (share(&shown.eq(v as i64)), share(&shown.eq_tensor(&mask.targets)));
    let random = 1.0 - masked - same;
    // Of 15,200 places: five standard errors. A random token is the original once in V times.
    let slack = |p: f64| 5.0 * (p * (1.0 - p) / (19 * b) as f64).sqrt();
    let hit = 0.1 / v as f64;
    for (actual, expected) in [(masked, 0.8), (same, 0.1 + hit), (random, 0.1 - hit)] {
        assert!((actual - expected).abs() < slack(expected), "{actual} for {expected}");
    }
    // All places are chosen equally often, and all tokens drawn.
    let per_place = mask.chosen.to_kind(Kind::Double).mean_dim([0i64].as_slice(), false, None);
    assert!(greatest(&(per_place - 19.0 / 128.0)) < 5.0 * (0.15f64 * 0.85 / b as f64).sqrt());
    let replaced = shown.ne_tensor(&mask.targets).logical_and(&shown.ne(v as i64));
    let drawn = shown.index(&[Some(&replaced)]);
    assert_eq!((number(&drawn.min()), number(&drawn.max())), (0.0, 64.0));
    // What was not chosen stays.
    let kept = mask.chosen.logical_not();
    assert_eq!(mask.input.index(&[Some(&kept)]), ids.index(&[Some(&kept)]));
}

#[test]
fn every_mix_is_what_it_says() {
    let ids = random_ids(20, 64, 7);
    let noise = batch(ids.copy()).uniform(Purpose::Mask, 3 * 64);
    let shown = |masked, random| {
        let mask = Mask::new(&ids, &noise, &Rule { masked, random, ..RULE });
        (mask.input.index(&[Some(&mask.chosen)]), mask.targets)
    };
    assert!(shown(1.0, 0.0).0.eq(7).all().int64_value(&[]) == 1);
    assert!(shown(0.0, 1.0).0.lt(7).all().int64_value(&[]) == 1);
    let (same, targets) = shown(0.0, 0.0);
    assert_eq!(same, targets);
}

#[test]
fn words_are_runs_between_separators() {
    assert_eq!(words(&[5, 6, 0, 5, 0, 0, 6], &[0, 1]), [0..2, 2..3, 3..4, 4..5, 5..6, 6..7]);
    assert_eq!(words(&[0, 4, 4, 4], &[0]), [0..1, 1..4]);
    assert_eq!(words(&[5, 6, 0], &[]), [0..1, 1..2, 2..3]);
    assert!(words(&[], &[0]).is_empty());
    // Each word is chosen whole or not at all, and one that does not fit is left out.
    let ids = random_ids(50, 64, 7);
    let mask =
        Mask::new(&ids, &batch(ids.copy()).uniform(Purpose::Mask, 3 * 64), &Rule { separators: &[0, 1], ..RULE });
    for row in 0..50 {
        let chosen = Vec::<bool>::try_from(mask.chosen.get(row)).expect("places");
        let ids = Vec::<i64>::try_from(ids.get(row)).expect("ids");
        for word in words(&ids, &[0, 1]) {
            assert!(chosen[word.clone()].iter().all(|&c| c == chosen[word.start]), "sequence {row}");
        }
        let n = chosen.iter().filter(|&&c| c).count();
        assert!((1..=count(64, 0.15, 0)).contains(&n), "sequence {row}: {n}");
    }
    // A single word longer than all that may be chosen is chosen nevertheless.
    let long = words(&[5; 4], &[0]);
    assert_eq!(choose(&long, &[0.5; 4], 1), [0, 1, 2, 3]);
    assert_eq!(choose(&[0..3, 3..4], &[0.1, 0.1, 0.1, 0.9], 1), [3]);
    assert!(choose(&[], &[], 1).is_empty());
}

#[test]
fn only_chosen_places_count() {
    let (_store, bert) = golden(config(), 7, 9);
    let ids = sequences(&[&[0, 3, 2, 6, 1, 1, 0, 5, 4], &[2, 2, 0, 4]], 9);
    let mask = Mask::new(&ids, &noise(2, 9), &CASES[0].rule);
    // The head sees the outputs at chosen places alone: no gradient goes into it from any other.
    let t = bert.encoder.encode(&mask.input, 0.0).detach().set_requires_grad(true);
    let p = bert.head.forward(&t.index(&[Some(&mask.chosen)]), &bert.encoder);
    let gradient = &Tensor::run_backward(&[cross_entropy(&p, &mask.targets)], &[&t], false, false)[0];
    let reached = gradient.norm_scalaropt_dim(2.0, [-1].as_slice(), false).gt(0.0);
    assert_eq!(reached, mask.chosen);
    // The targets are the originals in all three cases.
    assert_eq!(mask.targets, ids.index(&[Some(&mask.chosen)]));
    // Padding is never chosen, and stays.
    assert_eq!(number(&mask.chosen.logical_and(&ids.lt(0)).sum(Kind::Int64)), 0.0);
    assert_eq!(mask.input.lt(0), ids.lt(0));
}

#[test]
fn a_masked_token_is_hidden_from_the_prediction() {
    // Two sequences that differ where both show a mask alone have the same logits.
    let (_store, bert) = golden(config(), 7, 9);
    let rule = Rule { masked: 1.0, random: 0.0, ..CASES[0].rule };
    let ids = sequences(&[&[0, 3, 2, 6, 1, 1, 0, 5, 4]], 9);
    let one = Mask::new(&ids, &noise(1, 9), &rule);
    let other = (&ids + &one.chosen.to_kind(Kind::Int64)).fmod(7);
    let two = Mask::new(&other, &noise(1, 9), &rule);
    assert_ne!(one.targets, two.targets);
    assert_eq!(one.input, two.input);
    assert_eq!(bert.predict(&one, 0.0), bert.predict(&two, 0.0));
}

#[test]
fn equal_logits_cost_the_log_of_the_vocabulary() {
    let store = Store::new(0, Device::Cpu);
    let mut bert = make(&store, config(), "transformer-micro", 65, 64).expect("a method");
    let ids = random_ids(8, 64, 65);
    let loss = number(&bert.loss(&batch(ids.copy()), AT).total);
    assert!((loss - 65f64.ln()).abs() < 0.1, "untrained: {loss}");
    // With an embedding of zeros only the bias is left, which starts at 0.
    assign(&bert.encoder.embedding, &bert.encoder.embedding.zeros_like());
    let loss = number(&bert.loss(&batch(ids), AT).total);
    assert!((loss - 65f64.ln()).abs() < 1e-6, "{loss}");
}

#[test]
fn the_mask_depends_on_its_sequence_and_the_epoch_alone() {
    let (_store, bert) = golden(config(), 7, 9);
    let all = bert.mask(&batch(random_ids(4, 9, 7)));
    let mut last = batch(random_ids(4, 9, 7).narrow(0, 3, 1));
    last.index = vec![3];
    assert_eq!(bert.mask(&last).input.get(0), all.input.get(3));
    let long = |epoch| {
        let (_store, bert) = golden(config(), 7, 128);
        bert.mask(&Batch { epoch, ..batch(random_ids(1, 128, 7)) }).chosen
    };
    assert_ne!(long(0), long(1));
}

#[test]
fn pretext_and_pictures_tell_what_the_loss_tells() {
    let (_store, mut bert) = golden(Config { mask_ratio: 0.4, ..config() }, 7, 9);
    let x = || batch(sequences(&[&[0, 3, 2, 6, 1, 1, 0, 5, 4], &[2, 2, 0, 4]], 9));
    let loss = bert.loss(&x(), AT);
    let pretext = bert.pretext(&x());
    assert_eq!((pretext[0].0, number(&pretext[0].1)), ("loss", number(&loss.total)));
    assert_eq!((pretext[1].0, number(&pretext[1].1)), ("masked_accuracy", number(&loss.parts[0].1)));
    let rows = bert.pictures(&x());
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["input", "masked", "prediction", "input", "masked", "prediction"]);
    // Text after text: here all of a kind together.
    let kind = |i: usize| Tensor::cat(&[&rows[i].1, &rows[i + 3].1], 0);
    let rows = [0, 1, 2].map(|i| (names[i], kind(i)));
    let mask = bert.mask(&x());
    assert_eq!((&rows[0].1, &rows[1].1), (&x().views[0].x, &mask.input));
    let hit = rows[2].1.eq_tensor(&rows[0].1).index(&[Some(&mask.chosen)]).to_kind(Kind::Float).mean(None);
    assert!((number(&hit) - number(&pretext[1].1)).abs() < 1e-6);
    let kept = mask.chosen.logical_not();
    assert_eq!(rows[2].1.index(&[Some(&kept)]), rows[0].1.index(&[Some(&kept)]));
    // Dropout is for training.
    let (_store, mut bert) = golden(Config { dropout: 0.5, mask_ratio: 0.4, ..config() }, 7, 9);
    assert_eq!(number(&bert.pretext(&x())[0].1), number(&loss.total));
    selfsup_core::tch::manual_seed(3);
    assert!((number(&bert.loss(&x(), AT).total) - number(&loss.total)).abs() > 1e-2);
    assert_eq!(bert.features(&x().views[0].x, true), bert.features(&x().views[0].x, false));
}

#[test]
fn everything_is_trained() {
    let store = Store::new(0, Device::Cpu);
    let mut bert = make(&store, Config::default(), ENCODER, 65, 64).expect("a method");
    bert.loss(&batch(random_ids(8, 64, 65)), AT).total.backward();
    for v in store.trainable() {
        assert!(number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
    }
    // The mask's row too, which no logit is made of.
    let gradient = bert.encoder.embedding.grad();
    assert!(number(&gradient.get(65).norm()) > 0.0);
    assert_eq!(bert.features(&random_ids(3, 64, 65), false).size(), [3, 64]);
    assert!(bert.embedding(&random_ids(3, 64, 65)).is_none());
}

#[test]
fn bf16_networks_give_about_the_same_loss_in_f32() {
    let (_store, mut bert) = golden(config(), 65, 64);
    let ids = random_ids(8, 64, 65);
    let exact = number(&bert.loss(&batch(ids.copy()), AT).total);
    let rough = precision::with(precision::Precision::Bf16, || bert.loss(&batch(ids), AT).total);
    assert_eq!(rough.kind(), Kind::Float);
    rough.backward();
    // Eight bits of mantissa, averaged over 80 places.
    assert!((number(&rough) / exact - 1.0).abs() < 1e-2, "{} is not about {exact}", number(&rough));
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let refused = |config: Config, encoder: &str| {
        let made = Bert::check(&config).and_then(|()| make(&Store::new(0, Device::Cpu), config, encoder, 7, 9));
        made.err().expect("a refusal").to_string()
    };
    for encoder in ["transformer-nano-causal", "convnet-tiny"] {
        let message = refused(config(), encoder);
        assert!(message.contains("bert") && message.contains(encoder) && message.contains("both sides"), "{message}");
    }
    for mask_ratio in [0.0, 1.1, -0.5, f64::NAN] {
        assert!(refused(Config { mask_ratio, ..config() }, ENCODER).contains("mask_ratio is"));
    }
    assert!(refused(Config { most: -1, ..config() }, ENCODER).contains("most is -1"));
    assert!(refused(Config { masked: 0.8, random: 0.3, ..config() }, ENCODER).contains("random 0.3"));
    assert!(refused(Config { masked: f64::NAN, ..config() }, ENCODER).contains("masked is"));
    assert!(refused(Config { random: 1.5, ..config() }, ENCODER).contains("random is"));
    assert!(refused(Config { dropout: 1.0, ..config() }, ENCODER).contains("dropout is"));
    assert!(refused(Config { separators: vec![3, -1], ..config() }, ENCODER).contains("separators has -1"));
    assert!(refused(Config { separators: vec![3, 7], ..config() }, ENCODER).contains("separators has 7"));
    assert!(Bert::check(&Config { masked: 0.7, random: 0.3, ..config() }).is_ok());
    assert!(Bert::check(&Config { masked: 0.9, random: 0.1, ..config() }).is_ok());
}
