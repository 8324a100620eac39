//! CPC and regression against PyTorch (`tests/golden.py`), closed forms, and what may depend on what.

use super::*;
use negatives::Source;
use selfsup_core::data::{Modality, Normalisation, Sample, Samples};
use selfsup_core::method::{SeriesShape, Shape, View};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::Store;
use selfsup_core::{Device, Kind};
use std::borrow::Cow;

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

/// `wave` of golden.py: sin(1.3 m^2 + phase).
fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn cpc(steps: i64, negatives: i64, negatives_from: Source) -> Config {
    Config { steps, negatives, negatives_from, ..Config::default() }
}

fn regression(order: i64) -> Config {
    Config { objective: Objective::Regression, order, ..Config::default() }
}

fn make(store: &Store, config: Config, encoder: &str, channels: i64, length: i64) -> Result<NextStep> {
    let shape = Shape::Series(SeriesShape { channels, length });
    NextStep::new(config, &Setup::new(store.root(), encoder.parse()?, shape, 8))
}

fn batch(x: &Tensor) -> Batch {
    let n = x.size()[0];
    let params = Tensor::zeros([n, 12], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x: x.shallow_clone(), params }], (0..n as usize).collect(), 0, 0)
}

/// Three series of two channels of golden.py, padded to the length of the first.
fn padded(phase: f64, lengths: [i64; 3]) -> Tensor {
    let x = (wave(phase, &[3, 2, lengths[0]]) * 2.0).to_kind(Kind::Float);
    for (row, length) in (0..).zip(lengths) {
        let _ = x.select(0, row).narrow(1, length, lengths[0] - length).fill_(f64::NAN);
    }
    x
}

/// 11, 8 and 7 steps, so that the last whole patches are the 5th, the 4th and the 3rd.
fn series() -> Tensor {
    padded(0.1, [11, 8, 7])
}

/// The model of golden.py, with its weights.
fn golden(config: Config) -> (Store, NextStep) {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, config, "gru-6/2", 2, 11).expect("a method");
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (k, v) in variables.iter().enumerate() {
        let one = if v.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.5 + one));
    }
    (store, method)
}

fn gradient(store: &Store, name: &str) -> Tensor {
    store.variables().into_iter().find(|v| v.name == name).expect(name).tensor.grad()
}

/// f32 through two layers, a GRU of five steps and a softmax: five digits.
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 2e-5 * expected.abs().max(0.1), "{found} is not {expected}");
}

#[test]
fn cpc_and_its_gradients_are_those_of_pytorch() {
    type Gradients = [(&'static str, f64, f64); 4];
    let both: Gradients = [
        ("encoder.embed1.weight", 2.560270635e-02, 4.124369059e-01),
        ("encoder.embed2.norm.bias", 2.482370259e-02, 2.912869834e-02),
        ("encoder.gru.weight_hh_l0", 4.482367057e-03, 3.179127271e-02),
        ("predictors.2.weight", 6.477171188e-03, 6.699694907e-02),
    ];
    let sequence: Gradients = [
        ("encoder.embed1.weight", -6.339534887e-02, 5.716157544e-01),
        ("encoder.embed2.norm.bias", 2.967400749e-02, 5.514808855e-02),
        ("encoder.gru.weight_hh_l0", 4.632540723e-03, 3.251386831e-02),
        ("predictors.2.weight", -7.555539175e-03, 1.009726948e-01),
    ];
    let others: Gradients = [
        ("encoder.embed1.weight", 9.733906025e-03, 5.147617022e-01),
        ("encoder.embed2.norm.bias", 6.085235816e-02, 6.260550297e-02),
        ("encoder.gru.weight_hh_l0", 2.508354555e-03, 2.045474253e-02),
        ("predictors.2.weight", 2.242446473e-02, 6.200837448e-02),
    ];
    for (source, loss, accuracy, gradients) in [
        (Source::Both, 1.403520989, 1.0 / 6.0, both),
        (Source::Sequence, 1.413577352, 0.25, sequence),
        (Source::Others, 1.423036803, 0.25, others),
    ] {
        let (store, method) = golden(cpc(2, 3, source));
        let Head::Cpc(w) = &method.head else { panic!("expected predictors") };
        let x = method.read(&series(), true);
        let places = Places::new(&x.whole, 2, source);
        let u = places.of_contexts(&wave(0.4, &[9, 3]).abs());
        let found = Contrast::of(&scores(w, &places, &u, &x));
        near(number(&mean(&found.loss)), loss);
        near(number(&mean(&found.right)), accuracy);
        near(number(&mean(&found.bound)), 4f64.ln() - loss);
        mean(&found.loss).backward();
        for (name, first, norm) in gradients {
            let g = gradient(&store, name);
            near(number(&g.flatten(0, -1).get(0)), first);
            near(number(&g.norm()), norm);
        }
    }
}

#[test]
fn regression_and_its_gradients_are_those_of_pytorch() {
    let patch = [
        ("encoder.embed1.weight", -8.512298028e-02, 4.975822955e-01),
        ("encoder.embed2.norm.bias", -7.873911655e-03, 1.358335000e-01),
        ("encoder.gru.weight_hh_l0", -4.865292210e-03, 6.521477022e-02),
        ("head.weight", 4.159677033e-02, 2.969586822e-01),
    ];
    let difference = [
        ("encoder.embed1.weight", -1.334281005e-01, 1.038406486e+00),
        ("encoder.embed2.norm.bias", 4.875679264e-03, 1.888131287e-01),
        ("encoder.gru.weight_hh_l0", -1.211307766e-03, 9.678280347e-02),
        ("head.weight", 3.292150113e-02, 5.280931154e-01),
    ];
    for (residual, expected, gradients) in [(false, 2.513903085, patch), (true, 5.563999862, difference)] {
        let (store, mut method) = golden(Config { residual, ..regression(2) });
        let loss = method.loss(&batch(&series()), AT).total;
        near(number(&loss), expected);
        loss.backward();
        for (name, first, norm) in gradients {
            let g = gradient(&store, name);
            near(number(&g.flatten(0, -1).get(0)), first);
            near(number(&g.norm()), norm);
        }
    }
}

#[test]
fn weights_of_zero_give_the_log_of_the_number_of_candidates() {
    let store = Store::new(0, Device::Cpu);
    let mut method = make(&store, cpc(3, 127, Source::Both), "gru-8/1", 1, 20).expect("a method");
    for v in store.below("predictors") {
        assign(&v.tensor, &v.tensor.zeros_like());
    }
    let loss = method.loss(&batch(&wave(0.2, &[4, 1, 20]).to_kind(Kind::Float)), AT);
    // ln 128 in f32.
    assert!((number(&loss.total) - 4.852030264).abs() < 1e-6);
    let part = |name: &str| number(&loss.parts.iter().find(|part| part.0 == name).expect(name).1);
    assert!(part("bound").abs() < 1e-6);
    // A tie is not counted as right.
    assert_eq!(part("accuracy"), 0.0);
}

#[test]
fn candidates_that_are_alike_give_the_log_of_their_number() {
    // Whatever the weights: all patches are one patch, so all z are one z (bit for bit: every row is the same sum).
    let (_store, mut method) = golden(cpc(2, 3, Source::Both));
    let x = wave(0.3, &[1, 2, 2]).to_kind(Kind::Float).repeat([3, 1, 5]);
    let found = method.loss(&batch(&x), AT);
    assert!((number(&found.total) - 4f64.ln()).abs() < 1e-6);
    let part = |name: &str| number(&found.parts.iter().find(|part| part.0 == name).expect(name).1);
    assert!((part("accuracy"), part("bound").abs() < 1e-6) == (0.0, true));
}

#[test]
fn negatives_come_from_where_they_should_and_are_never_the_positive() {
    let lengths = [6i64, 3, 5, 2];
    let whole = Tensor::zeros([4, 6], (Kind::Bool, Device::Cpu));
    for (row, &length) in lengths.iter().enumerate() {
        let _ = whole.get(row as i64).narrow(0, 0, length).fill_(1);
    }
    let k_most = 2;
    // A grid of numbers from 0 to 1, both ends included: 1 is what rounding may make of a number just below it.
    let n = 1001;
    let grid: Vec<f64> = (0..n).map(|i| i as f64 / (n - 1) as f64).collect();
    for source in [Source::Both, Source::Sequence, Source::Others] {
        let places = Places::new(&whole, k_most, source);
        // Series 3 has no patch two steps ahead of its first.
        let contexts: Vec<i64> = Vec::try_from(&places.contexts).expect("numbers");
        assert_eq!(contexts, [0, 1, 2, 3, 6, 12, 13, 14]);
        let u = Tensor::from_slice(&grid).unsqueeze(0).expand([contexts.len() as i64, n], false);
        for k in 1..=k_most {
            let drawn = places.negatives(k, &u);
            for (row, &context) in contexts.iter().enumerate() {
                let mut found: Vec<i64> = Vec::try_from(drawn.get(row as i64)).expect("numbers");
                found.dedup();
                let (series, positive) = (context / 6, context + k);
                let expected: Vec<i64> = (0..24)
                    .filter(|place| place % 6 < lengths[(place / 6) as usize])
                    .filter(|&place| match source {
                        Source::Both => place != positive,
                        Source::Sequence => place / 6 == series && place != positive,
                        Source::Others => place / 6 != series,
                    })
                    .collect();
                assert_eq!(found, expected, "{source:?}, k = {k}, context {context}");
            }
        }
    }
}

#[test]
fn negatives_depend_on_seed_epoch_and_series_alone() {
    let whole = Tensor::ones([3, 5], (Kind::Bool, Device::Cpu));
    let places = Places::new(&whole, 2, Source::Both);
    let x = Tensor::zeros([3, 1, 5], (Kind::Float, Device::Cpu));
    let draw = |index: Vec<usize>, seed: u64, epoch: u64| places.uniform(&Batch { index, seed, epoch, ..batch(&x) }, 4);
    let (a, b) = (draw(vec![7, 1, 2], 0, 0), draw(vec![1, 7, 2], 0, 0));
    assert_eq!(a.narrow(0, 0, 3), b.narrow(0, 3, 3));
    assert_ne!(a.narrow(0, 0, 3), a.narrow(0, 3, 3), "another series");
    assert_ne!(a, draw(vec![7, 1, 2], 0, 1), "another epoch");
    assert_ne!(a, draw(vec![7, 1, 2], 1, 0), "another seed");
}

#[test]
fn gradients_flow_into_targets_and_contexts() {
    // No stop-gradient: the loss of z_j and c_t as leaves reaches both.
    let (_store, method) = golden(cpc(2, 3, Source::Both));
    let Head::Cpc(w) = &method.head else { panic!("expected predictors") };
    let x = method.read(&series(), true);
    let leaf = |x: &Tensor| x.detach().set_requires_grad(true);
    let x = Read { z: leaf(&x.z), c: leaf(&x.c), ..x };
    mean(&method.contrast(w, &batch(&series()), &x).loss).backward();
    let (z, c) = (x.z, x.c);
    assert!(number(&z.grad().norm()) > 0.0 && number(&c.grad().norm()) > 0.0);
    // Contexts are those with a patch K = 2 ahead: t = 0, 1, 2 of the first, 0 and 1 of the second, 0 of the third.
    let reached: Vec<i64> = Vec::try_from(
        c.grad().abs().sum_dim_intlist([2i64].as_slice(), false, None).flatten(0, 1).nonzero().squeeze_dim(1),
    )
    .expect("numbers");
    assert_eq!(reached, [0, 1, 2, 5, 6, 10]);
}

#[test]
fn what_lies_behind_the_end_changes_nothing() {
    for config in [cpc(2, 3, Source::Both), regression(2)] {
        let (_store, mut method) = golden(config);
        let x = series();
        // Half a patch more or less of the third series: patches that are not whole do not count.
        let shorter = x.copy();
        let _ = shorter.select(0, 2).narrow(1, 6, 1).fill_(f64::NAN);
        let loss = |method: &mut NextStep, x: &Tensor| number(&method.loss(&batch(x), AT).total);
        assert_eq!(loss(&mut method, &x), loss(&mut method, &shorter));
        assert_eq!(method.features(&x, false), method.features(&shorter, false));
    }
}

#[test]
fn where_nothing_is_asked_nothing_is_learned_certified_or_measured() {
    // Series too short for four patches ahead; and one whole series beside two of padding, with no other to take
    // negatives from.
    let short = series().narrow(0, 1, 2);
    let alone = series();
    let _ = alone.narrow(0, 1, 2).fill_(f64::NAN);
    for (config, x) in [(cpc(4, 3, Source::Both), short), (cpc(2, 3, Source::Others), alone.copy())] {
        let (store, mut method) = golden(config);
        let found = method.loss(&batch(&x), AT);
        assert_eq!(number(&found.total), 0.0);
        assert!(found.parts.iter().all(|(_, value)| number(value) == 0.0), "a bound without evidence");
        found.total.backward();
        assert_eq!(number(&gradient(&store, "encoder.embed1.weight").norm()), 0.0);
        assert!(method.pretext(&batch(&x)).is_empty() && method.pictures(&batch(&x)).is_empty());
    }
    // The same series has negatives of its own.
    let (_store, mut method) = golden(cpc(2, 3, Source::Both));
    assert!(number(&method.loss(&batch(&alone), AT).total) > 0.0);
    assert_eq!(method.pretext(&batch(&alone))[0].1.size(), [2, 3]);
    // Of one patch each there is no next one.
    let (_store, method) = golden(regression(2));
    assert!(method.pretext(&batch(&series().narrow(2, 0, 3))).is_empty());
}

/// Series as a training set has them.
struct Kept {
    series: Vec<Vec<f32>>,
    channels: usize,
}

impl Kept {
    /// Realisations of x_t = 0.9 x_{t-1} + e_t, e standard normal, from the stationary distribution.
    fn autoregressive(series: usize, steps: usize, seed: u64) -> Kept {
        let one = |index| {
            let mut rng = Rng::new(seed, Purpose::Sample, 0, index as u64, 0);
            let mut x = rng.normal() / (1.0f64 - 0.81).sqrt();
            let mut next = || {
                let next = 0.9 * x + rng.normal();
                std::mem::replace(&mut x, next) as f32
            };
            (0..steps).map(|_| next()).collect()
        };
        Kept { series: (0..series).map(one).collect(), channels: 1 }
    }

    /// Those of x [B, C, T], without their padding.
    fn of(x: &Tensor) -> Kept {
        let one = |x: Tensor| {
            let values = Vec::<f32>::try_from(x.flatten(0, 1)).expect("numbers");
            values.into_iter().filter(|x| !x.is_nan()).collect()
        };
        Kept { series: x.unbind(0).into_iter().map(one).collect(), channels: x.size()[1] as usize }
    }

    /// What a method sees of them before its first step.
    fn shown_to(&self, method: &mut NextStep, at: Progress) {
        let normalisation = Normalisation { mean: vec![0.0; self.channels], std: vec![1.0; self.channels] };
        let plain = Plain { samples: self, size: 100, normalisation: &normalisation, device: Device::Cpu };
        assert!(method.before_epoch(at, &plain).expect("readable series").is_empty());
    }
}

impl Samples for Kept {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn modality(&self) -> Modality {
        Modality::Series { channels: self.channels }
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        Ok(Sample::Series(Cow::Borrowed(&self.series[index])))
    }
}

/// A part of `pretext` and the mean of its entries.
fn score(method: &NextStep, x: &Tensor, name: &str) -> f64 {
    number(&mean(&method.pretext(&batch(x)).into_iter().find(|score| score.0 == name).expect(name).1))
}

#[test]
fn the_linear_model_reaches_the_noise_and_persistence_its_closed_form() {
    let store = Store::new(0, Device::Cpu);
    let mut method = make(&store, regression(1), "gru-8/1", 1, 100).expect("a method");
    let series = Kept::autoregressive(300, 100, 0);
    series.shown_to(&mut method, AT);
    let coefficients = store.below("linear").pop().expect("coefficients").tensor;
    // 30,000 values: the standard errors are 0.0025 for the coefficient and 0.008 for a mean square.
    assert!((coefficients.double_value(&[0, 0]) - 0.9).abs() < 0.02);
    assert!(coefficients.double_value(&[1, 0]).abs() < 0.05);
    let unseen = Tensor::from_slice2(&Kept::autoregressive(300, 100, 1).series).unsqueeze(1);
    assert!((score(&method, &unseen, "ar_mse") - 1.0).abs() < 0.03);
    // 2 (1 - 0.9) / (1 - 0.81).
    assert!((score(&method, &unseen, "persistence_mse") - 1.0526).abs() < 0.03);
    // Two steps ahead, by patches of two: 1 for the first and 1 + 0.81 for the second.
    let mut pairs = make(&Store::new(0, Device::Cpu), regression(1), "gru-8/2", 1, 100).expect("a method");
    series.shown_to(&mut pairs, AT);
    assert!((score(&pairs, &unseen, "ar_mse") - (1.0 + 1.81) / 2.0).abs() < 0.05);
    // Later epochs keep what was fitted.
    assign(&coefficients, &coefficients.zeros_like());
    series.shown_to(&mut method, Progress { epoch: 1, ..AT });
    assert_eq!(number(&coefficients.abs().sum(None)), 0.0);
}

#[test]
fn scores_count_predictions_and_not_batches() {
    let (_store, mut method) = golden(regression(2));
    Kept::of(&series()).shown_to(&mut method, AT);
    let scores = |x: Tensor| method.pretext(&batch(&x));
    let all = scores(series());
    let parts = [scores(series().narrow(0, 0, 1)), scores(series().narrow(0, 1, 2))];
    for (i, (name, entries)) in all.iter().enumerate() {
        // 4, 3 and 2 patches have one before them.
        assert_eq!(entries.size(), [9], "{name}");
        let joined = Tensor::cat(&[&parts[0][i].1, &parts[1][i].1], 0);
        // Products of other sizes: f32.
        assert!(number(&(entries - joined).abs().max()) < 1e-5, "{name}");
    }
}

#[test]
fn a_linear_model_of_several_patches_sees_them_newest_first() {
    // x_t = x_{t-2}: of two patches of one step the older one is the forecast.
    let x = wave(0.3, &[2]).to_kind(Kind::Float).repeat([5]).view([1, 10, 1]);
    let coefficients = Tensor::from_slice(&[0.0f32, 1.0, 0.0]).view([3, 1]);
    let found = linear::forecast(&x, &coefficients);
    let whole = Tensor::ones([1, 10], (Kind::Bool, Device::Cpu));
    // The first forecast has no older patch and is 0; the eight behind it are exact.
    let first = x.double_value(&[0, 1, 0]).powi(2);
    assert!((number(&mean(&errors(&found, &x, &whole))) - first / 9.0).abs() < 1e-7);
}

#[test]
fn what_forecasts_are_held_against_is_that_of_pytorch() {
    // Two channels, patches of two, padding.
    let (store, mut method) = golden(regression(2));
    let x = padded(0.2, [31, 20, 13]);
    Kept::of(&x).shown_to(&mut method, AT);
    let coefficients = store.below("linear").pop().expect("coefficients").tensor;
    assert_eq!(coefficients.size(), [9, 4]);
    for (at, expected) in [([0i64, 0], -0.020933715), ([5, 2], -0.142902846), ([8, 3], -0.104546343)] {
        near(coefficients.double_value(&at), expected);
    }
    near(number(&coefficients.norm()), 2.252840829);
    near(score(&method, &x, "ar_mse"), 0.817098716);
    near(score(&method, &x, "persistence_mse"), 4.612209650);
}

#[test]
fn forecasts_are_drawn_beside_the_steps_that_they_are_of() {
    let (_store, method) = golden(regression(2));
    let rows = method.pictures(&batch(&series()));
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["series", "persistence", "linear model", "network"]);
    let (x, persistence) = (&rows[0].1, &rows[1].1);
    for (row, length) in [(0, 11), (1, 8), (2, 7)] {
        for (channel, t) in (0..2).flat_map(|channel| (0..11).map(move |t| (channel, t))) {
            let found = persistence.double_value(&[row, channel, t]);
            // Patches of two: steps 2 and 3 are forecast from step 1.
            if (2..length / 2 * 2).contains(&t) {
                assert_eq!(found, x.double_value(&[row, channel, t / 2 * 2 - 1]));
            } else {
                assert!(found.is_nan(), "nothing is forecast of series {row} at {t}");
            }
        }
    }
    assert_eq!(rows[3].1.isnan(), persistence.isnan());
    let (_store, method) = golden(cpc(2, 3, Source::Both));
    let rows = method.pictures(&batch(&series()));
    let value = |row: usize, k: i64| rows[row].1.double_value(&[0, 0, k]);
    assert_eq!((rows[1].1.size(), value(0, 0), value(0, 1)), (vec![1, 1, 2], 0.25, 0.25));
    let right = &method.pretext(&batch(&series()))[1].1;
    assert!((0..2).all(|k| (value(1, k) - number(&right.get(k).mean(None))).abs() < 1e-7));
}

#[test]
fn every_trained_variable_gets_a_gradient() {
    for config in [cpc(3, 8, Source::Both), cpc(3, 8, Source::Sequence), cpc(3, 8, Source::Others), regression(2)] {
        let store = Store::new(0, Device::Cpu);
        let mut method = make(&store, config, "gru-16/2", 2, 20).expect("a method");
        method.loss(&batch(&wave(0.2, &[4, 2, 20]).to_kind(Kind::Float)), AT).total.backward();
        for v in store.trainable() {
            let gradient = v.tensor.grad();
            assert!(gradient.defined() && number(&gradient.norm()) > 0.0, "{}", v.name);
        }
    }
}

#[test]
fn unusable_settings_are_refused_in_words() {
    let message = |outcome: Result<()>| format!("{:#}", outcome.expect_err("an error"));
    let check = |config: Config| message(NextStep::check(&config));
    assert!(check(cpc(0, 8, Source::Both)).contains("steps is 0; expected at least 1"));
    assert!(check(cpc(2, 0, Source::Both)).contains("negatives is 0"));
    assert!(check(regression(0)).contains("order is 0"));
    let build = |config: Config, encoder: &str, length: i64| {
        message(make(&Store::new(0, Device::Cpu), config, encoder, 1, length).map(drop))
    };
    assert!(build(cpc(12, 8, Source::Both), "gru-8/2", 24).contains("12 patches of 2, too few to predict 12 ahead"));
    assert!(build(cpc(1, 8, Source::Both), "gru-8/4", 7).contains("less than two patches"));
    assert!(build(cpc(1, 8, Source::Both), "convnet", 7).contains("needs a GRU, but the encoder is convnet"));
    let store = Store::new(0, Device::Cpu);
    let image = Shape::Image(selfsup_core::method::ImageShape { channels: 1, size: 28 });
    let setup = Setup::new(store.root(), "gru-8/2".parse().expect("an encoder"), image, 8);
    assert!(message(NextStep::new(Config::default(), &setup).map(drop)).contains("takes series"));
}
