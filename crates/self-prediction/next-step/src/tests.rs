//! CPC and regression against PyTorch (`tests/golden.py`), closed forms, and what may depend on what.

use super::*;
use selfsup_core::Device;
use selfsup_core::data::{Modality, Normalisation, Sample, Samples};
use selfsup_core::method::{SeriesShape, Shape, View};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::Store;
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

/// The series of golden.py: 11, 8 and 7 steps, so that the last whole patches are the 5th, the 4th and the 3rd.
fn series() -> Tensor {
    let x = (wave(0.1, &[3, 2, 11]) * 2.0).to_kind(Kind::Float);
    for (row, length) in [(1, 8), (2, 7)] {
        let _ = x.select(0, row).narrow(1, length, 11 - length).fill_(f64::NAN);
    }
    x
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
        let (patches, whole) = method.encoder.patches(&series());
        let places = Places::new(&whole, 2);
        let u = places.of_contexts(&wave(0.4, &[9, 3]).abs());
        let z = method.encoder.embed(&patches);
        let found = contrast(&method.scores(w, &places, &u, &z, &method.encoder.context(&z)));
        near(number(&found.loss), loss);
        near(number(&found.accuracy), accuracy);
        near(number(&found.bound), 4f64.ln() - loss);
        found.loss.backward();
        for (name, first, norm) in gradients {
            let g = gradient(&store, name);
            near(number(&g.flatten(0, -1).get(0)), first);
            near(number(&g.norm()), norm);
        }
    }
}

#[test]
fn regression_and_its_gradients_are_those_of_pytorch() {
    let (store, mut method) = golden(regression(2));
    let loss = method.loss(&batch(&series()), AT).total;
    near(number(&loss), 2.513903085);
    loss.backward();
    for (name, first, norm) in [
        ("encoder.embed1.weight", -8.512298028e-02, 4.975822955e-01),
        ("encoder.embed2.norm.bias", -7.873911655e-03, 1.358335000e-01),
        ("encoder.gru.weight_hh_l0", -4.865292210e-03, 6.521477022e-02),
        ("head.weight", 4.159677033e-02, 2.969586822e-01),
    ] {
        let g = gradient(&store, name);
        near(number(&g.flatten(0, -1).get(0)), first);
        near(number(&g.norm()), norm);
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
fn negatives_come_from_where_they_should_and_are_never_the_positive() {
    let lengths = [6i64, 3, 5, 2];
    let whole = Tensor::zeros([4, 6], (Kind::Bool, Device::Cpu));
    for (row, &length) in lengths.iter().enumerate() {
        let _ = whole.get(row as i64).narrow(0, 0, length).fill_(1);
    }
    let k_most = 2;
    let places = Places::new(&whole, k_most);
    // Series 3 has no patch two steps ahead of its first.
    let contexts: Vec<i64> = Vec::try_from(&places.contexts).expect("numbers");
    assert_eq!(contexts, [0, 1, 2, 3, 6, 12, 13, 14]);
    // A grid of numbers from 0 to 1, both ends included: 1 is what rounding may make of a number just below it.
    let n = 1001;
    let grid: Vec<f64> = (0..n).map(|i| i as f64 / (n - 1) as f64).collect();
    let u = Tensor::from_slice(&grid).unsqueeze(0).expand([contexts.len() as i64, n], false);
    for source in [Source::Both, Source::Sequence, Source::Others] {
        for k in 1..=k_most {
            let drawn = places.negatives(source, k, &u);
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
    let places = Places::new(&whole, 2);
    let x = Tensor::zeros([3, 1, 5], (Kind::Float, Device::Cpu));
    let draw = |index: Vec<usize>, epoch: u64| places.uniform(&Batch { index, epoch, ..batch(&x) }, 4);
    let (a, b) = (draw(vec![7, 1, 2], 0), draw(vec![1, 7, 2], 0));
    assert_eq!(a.narrow(0, 0, 3), b.narrow(0, 3, 3));
    assert_ne!(a, draw(vec![7, 1, 2], 1));
}

#[test]
fn gradients_flow_into_targets_and_contexts() {
    // No stop-gradient: the loss of z_j and c_t as leaves reaches both.
    let (_store, method) = golden(cpc(2, 3, Source::Both));
    let Head::Cpc(w) = &method.head else { panic!("expected predictors") };
    let (patches, whole) = method.encoder.patches(&series());
    let z = method.encoder.embed(&patches).detach().set_requires_grad(true);
    let c = method.encoder.context(&z).detach().set_requires_grad(true);
    method.contrast(w, &batch(&series()), &z, &c, &whole).loss.backward();
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
fn series_too_short_to_be_asked_give_a_loss_of_zero() {
    let (store, mut method) = golden(cpc(4, 3, Source::Both));
    let x = series().narrow(0, 1, 2);
    let loss = method.loss(&batch(&x), AT).total;
    assert_eq!(number(&loss), 0.0);
    loss.backward();
    assert_eq!(number(&gradient(&store, "encoder.embed1.weight").norm()), 0.0);
    assert!(method.pretext(&batch(&x)).iter().all(|(_, value)| number(value).is_finite()));
    assert!(method.pretext(&batch(&x.narrow(0, 0, 1))).is_empty());
}

/// Realisations of x_t = 0.9 x_{t-1} + e_t, e standard normal, from the stationary distribution.
struct Ar(Vec<Vec<f32>>);

impl Ar {
    fn new(series: usize, steps: usize, seed: u64) -> Ar {
        let one = |index| {
            let mut rng = Rng::new(seed, Purpose::Sample, 0, index as u64, 0);
            let mut x = rng.normal() / (1.0f64 - 0.81).sqrt();
            let mut next = || {
                let next = 0.9 * x + rng.normal();
                std::mem::replace(&mut x, next) as f32
            };
            (0..steps).map(|_| next()).collect()
        };
        Ar((0..series).map(one).collect())
    }
}

impl Samples for Ar {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn modality(&self) -> Modality {
        Modality::Series { channels: 1 }
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        Ok(Sample::Series(Cow::Borrowed(&self.0[index])))
    }
}

#[test]
fn the_linear_model_reaches_the_noise_and_persistence_its_closed_form() {
    let (series, normalisation) = (Ar::new(300, 100, 0), Normalisation { mean: vec![0.0], std: vec![1.0] });
    let plain = |series| Plain { samples: series, size: 100, normalisation: &normalisation, device: Device::Cpu };
    let store = Store::new(0, Device::Cpu);
    let mut method = make(&store, regression(1), "gru-8/1", 1, 100).expect("a method");
    assert!(method.before_epoch(AT, &plain(&series)).expect("readable series").is_empty());
    let coefficients = store.below("linear").pop().expect("coefficients").tensor;
    // 30,000 values: the standard errors are 0.0025 for the coefficient and 0.008 for a mean square.
    assert!((coefficients.double_value(&[0, 0]) - 0.9).abs() < 0.02);
    assert!(coefficients.double_value(&[1, 0]).abs() < 0.05);
    let unseen = Ar::new(300, 100, 1);
    let x = plain(&unseen).map(Tensor::copy).expect("readable series");
    let scores = method.pretext(&batch(&x));
    let score = |name: &str| number(&scores.iter().find(|score| score.0 == name).expect(name).1);
    assert!((score("ar_mse") - 1.0).abs() < 0.03);
    // 2 (1 - 0.9) / (1 - 0.81).
    assert!((score("persistence_mse") - 1.0526).abs() < 0.03);
    // Two steps ahead, by patches of two: 1 for the first and 1 + 0.81 for the second.
    let mut pairs = make(&Store::new(0, Device::Cpu), regression(1), "gru-8/2", 1, 100).expect("a method");
    let _ = pairs.before_epoch(AT, &plain(&series)).expect("readable series");
    let scores = pairs.pretext(&batch(&x));
    assert!((number(&scores[1].1) - (1.0 + 1.81) / 2.0).abs() < 0.05);
    // Later epochs keep what was fitted.
    assign(&coefficients, &coefficients.zeros_like());
    let later = Progress { epoch: 1, ..AT };
    let _ = method.before_epoch(later, &plain(&series)).expect("readable series");
    assert_eq!(number(&coefficients.abs().sum(None)), 0.0);
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
    assert!((number(&next_mse(&found, &x, &whole)) - first / 9.0).abs() < 1e-7);
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
