//! BERT against PyTorch (`tests/golden.py`), counts and shares of the mask, and what may depend on what.

use super::*;
use selfsup_core::augment::PARAMS;
use selfsup_core::augment::views::PADDING;
use selfsup_core::method::{Shape, TokenShape, View};
use selfsup_core::rng::Rng;
use selfsup_core::store::{Store, assign};
use selfsup_core::{Device, Kind};
use std::ops::Range;

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
const RULE: Rule = Rule { words: None, ratio: 0.15, most: 0, masked: 0.8, random: 0.1, mask_id: 7 };

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

/// Separator, begins a word, goes on with one.
const S: Word = Word::Separator;
const B: Word = Word::Begins;
const G: Word = Word::GoesOn;

const CASES: [Case; 4] = [
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
        rule: Rule { words: Some(&[S, S, B, G, G, G, G]), ratio: 0.5, ..RULE },
        rows: &[&[3, 3, 2, 0, 4, 5, 1, 0, 6], &[0, 1, 5], &[6, 2, 5, 4, 3, 2, 0]],
        inputs: &[&[7, 7, 7, 0, 4, 5, 1, 0, 6], &[0, 1, 7], &[6, 7, 5, 4, 7, 2, 0]],
        targets: &[3, 3, 2, 5, 6, 2, 5, 4, 3],
        loss: 1.742053490,
        gradient: 8.061321999e+00,
        gradients: [
            ("encoder.embedding", 3.844022354e-01, 5.267398895e+00),
            ("encoder.blocks.2.attn.qkv.weight", -3.604940786e-05, 4.618192435e-01),
            ("head.dense.weight", 2.541321799e-03, 1.789399164e+00),
            ("head.bias", 1.089820125e-01, 1.872997929e-01),
        ],
    },
    Case {
        shape: (7, 9),
        rule: Rule { words: Some(&[S, B, B, G, G, G, G]), ratio: 0.8, most: 4, masked: 0.6, random: 0.2, ..RULE },
        rows: &[&[3, 4, 3, 1, 2, 6, 5, 0, 3], &[2, 3, 4, 5, 6], &[0, 0]],
        inputs: &[&[7, 7, 0, 7, 2, 6, 5, 0, 3], &[2, 3, 7, 7, 6], &[0, 7]],
        targets: &[3, 4, 3, 1, 2, 3, 4, 5, 6, 0, 0],
        loss: 1.988336642,
        gradient: 1.063341176e+01,
        gradients: [
            ("encoder.embedding", -1.027222434e+00, 7.216696061e+00),
            ("encoder.blocks.2.attn.qkv.weight", 4.732114888e-05, 4.012802529e-01),
            ("head.dense.weight", -3.326413262e-03, 1.624330133e+00),
            ("head.bias", 1.956172522e-02, 1.888169145e-01),
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
    // Halves go to the even number, as Python rounds: 7.5 to 8, 4.5 to 4, 10.5 to 10. No more than 20.
    for (length, expected) in [(1, 1), (5, 1), (10, 2), (30, 4), (50, 8), (70, 10), (128, 19), (200, 20)] {
        let places = choose(&words(&vec![5; length], None), &vec![0.5; length], count(length, 0.15), 20);
        assert_eq!(places.len(), expected, "{length}");
    }
    assert_eq!((count(200, 0.15), count(0, 0.15)), (30, 1));
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
    let kinds = Some([S, S, B, B, G, G, G].as_slice());
    // A piece that goes on with nothing is a word; one that begins a word ends the one before it.
    assert_eq!(words(&[5, 6, 0, 5, 0, 0, 6], kinds), [0..2, 3..4, 6..7]);
    assert_eq!(words(&[2, 4, 3, 1, 3, 2, 5], kinds), [0..2, 2..3, 4..5, 5..7]);
    assert_eq!(words(&[0, 4, 4, 4], kinds), vec![1..4]);
    // Without words each token is one.
    assert_eq!(words(&[5, 6, 0], None), [0..1, 1..2, 2..3]);
    assert_eq!(words(&[0, 1, 0], kinds), [0..1, 1..2, 2..3]);
    assert!(words(&[], kinds).is_empty());
    // Where only so many places may be chosen, a word that does not fit is left out, unless no word fits.
    let long = words(&[5; 4], kinds);
    assert_eq!(choose(&long, &[0.5; 4], 1, 1), [0, 1, 2, 3]);
    assert_eq!(choose(&[0..3, 3..4], &[0.1, 0.1, 0.1, 0.9], 1, 1), [3]);
    assert_eq!(choose(&[0..3, 3..4], &[0.1, 0.1, 0.1, 0.9], 1, 0), [0, 1, 2]);
    assert!(choose(&[], &[], 1, 0).is_empty());
}

#[test]
fn a_long_word_is_chosen_as_often_as_a_short_one() {
    // Words of 1 to 14 letters between separators: 119 tokens, of whose 14 words 2 are chosen.
    let row: Vec<i64> = (1..=14).flat_map(|n| std::iter::repeat_n(2, n).chain([0])).collect();
    let (b, t) = (4000, row.len() as i64);
    let ids = Tensor::from_slice(&row).unsqueeze(0).expand([b, t], false).contiguous();
    let noise = batch(ids.copy()).uniform(Purpose::Mask, 3 * t as usize);
    let mask = Mask::new(&ids, &noise, &Rule { words: Some(&[S, B, G, G, G, G, G]), ..RULE });
    let share = mask.chosen.to_kind(Kind::Double).mean_dim([0i64].as_slice(), false, None);
    let share = Vec::<f64>::try_from(share).expect("places");
    let all = words(&row, Some(&[S, B, G, G, G, G, G]));
    assert_eq!(all.len(), 14);
    // Two words of 14 in each sequence; five standard errors of 4,000.
    let expected = 2.0 / 14.0;
    let slack = 5.0 * (expected * (1.0 - expected) / b as f64).sqrt();
    for word in &all {
        let found = share[word.start];
        assert!((found - expected).abs() < slack, "{} letters: {found}", word.len());
        // Whole or not at all.
        assert!(share[word.clone()].iter().all(|&s| s == found));
    }
    let chosen = |word: &Range<usize>| mask.chosen.narrow(1, word.start as i64, word.len() as i64);
    for word in &all {
        assert_eq!(chosen(word).all_dim(1, false), chosen(word).any_dim(1, false), "{} letters", word.len());
    }
    assert!(row.iter().zip(&share).all(|(&id, &s)| id != 0 || s == 0.0), "a separator was chosen");
    // On average 2 of 14 words, which is 2 / 14 of the 105 letters.
    let letters: f64 = share.iter().sum();
    assert!((letters - 15.0).abs() < 0.5, "{letters}");
    // What is shown at the places of words keeps the shares: 8 in 10 masks.
    let masked = mask.input.eq(7).sum(Kind::Double) / mask.chosen.sum(Kind::Double);
    assert!((number(&masked) - 0.8).abs() < 5.0 * (0.16 / (15.0 * b as f64)).sqrt());
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
    let (_store, bert) = golden(config(), 7, 9);
    let ids = sequences(&[&[0, 3, 2, 6, 1, 1, 0, 5, 4]], 9);
    let under = |rule: &Rule, ids: &Tensor| Mask::new(ids, &noise(1, 9), rule);
    let predicted = |mask: &Mask| bert.predict(mask, 0.0);
    // Other tokens at the chosen places: where all of them are masked, nothing of that reaches the logits.
    let masked = Rule { masked: 1.0, random: 0.0, ..CASES[0].rule };
    let one = under(&masked, &ids);
    let hidden = (&ids + &one.chosen.to_kind(Kind::Int64)).fmod(7);
    assert_ne!(under(&masked, &hidden).targets, one.targets);
    assert_eq!(predicted(&under(&masked, &hidden)), predicted(&one));
    // Where they are shown it does, and so does any other token.
    let shown = Rule { masked: 0.0, random: 0.0, ..CASES[0].rule };
    assert_ne!(predicted(&under(&shown, &hidden)), predicted(&under(&shown, &ids)));
    let seen = (&ids + &one.chosen.logical_not().to_kind(Kind::Int64)).fmod(7);
    assert_ne!(predicted(&under(&masked, &seen)), predicted(&one));
    // Each place tells of its own position: masks alone do not give equal logits.
    let p = predicted(&one);
    assert_ne!(p.get(0), p.get(1));
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
    assert_eq!((pretext[0].0, pretext[1].0), ("loss", "masked_accuracy"));
    assert_eq!(pretext[0].1.size(), bert.mask(&x()).targets.size());
    let mean = |i: usize| number(&pretext[i].1.mean(None));
    // Sums of six f32 in another order.
    assert!((mean(0) / number(&loss.total) - 1.0).abs() < 1e-6);
    assert_eq!(mean(1), number(&loss.parts[0].1));
    // A sequence's entries are its own, whatever it is judged with. Kernels may differ with the size of the batch.
    let alone = |row: i64| {
        let x = Batch { index: vec![row as usize], ..batch(x().views[0].x.narrow(0, row, 1)) };
        bert.pretext(&x).swap_remove(0).1
    };
    assert!(greatest(&(Tensor::cat(&[alone(0), alone(1)], 0) - &pretext[0].1)) < 1e-5);
    let rows = bert.pictures(&x());
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["input", "masked", "prediction", "input", "masked", "prediction"]);
    // Text after text: here all of a kind together.
    let kind = |i: usize| Tensor::cat(&[&rows[i].1, &rows[i + 3].1], 0);
    let rows = [0, 1, 2].map(|i| (names[i], kind(i)));
    let mask = bert.mask(&x());
    assert_eq!((&rows[0].1, &rows[1].1), (&x().views[0].x, &mask.input));
    let hit = rows[2].1.eq_tensor(&rows[0].1).index(&[Some(&mask.chosen)]).to_kind(Kind::Float).mean(None);
    assert!((number(&hit) - mean(1)).abs() < 1e-6);
    let kept = mask.chosen.logical_not();
    assert_eq!(rows[2].1.index(&[Some(&kept)]), rows[0].1.index(&[Some(&kept)]));
    // Dropout is for training.
    let (_store, mut bert) = golden(Config { dropout: 0.5, mask_ratio: 0.4, ..config() }, 7, 9);
    assert_eq!(bert.pretext(&x())[0].1, pretext[0].1);
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
    let message = refused(Config { whole_words: true, ..config() }, ENCODER);
    assert!(message.contains("whole_words") && message.contains("one by one"), "{message}");
    assert!(Bert::check(&Config { masked: 0.7, random: 0.3, ..config() }).is_ok());
    assert!(Bert::check(&Config { masked: 0.9, random: 0.1, ..config() }).is_ok());
}
