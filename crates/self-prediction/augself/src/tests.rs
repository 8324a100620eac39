//! AugSelf against PyTorch (`tests/golden.py`), targets over real draws, and the second loss beside a toy method.

use super::*;
use crate::heads::Heads;
use selfsup_core::augment::{Blur, Crop, Jitter, PARAMS, Solarise};
use selfsup_core::encoder::Tap;
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Init, Role, Store, assign};
use selfsup_core::{Device, Kind, no_grad};

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

/// Everything that a view can have, with jitter of the given strengths.
fn recipes(s: [f64; 4]) -> Vec<Recipe> {
    let [brightness, contrast, saturation, hue] = s;
    let view = Recipe {
        crop: Some(Crop { scale: [0.08, 1.0], ratio: [0.75, 1.3333333333333333] }),
        flip: 0.5,
        jitter: Some(Jitter { brightness, contrast, saturation, hue, p: 0.8 }),
        grey: 0.2,
        blur: Some(Blur { p: 0.5, sigma: [0.1, 2.0] }),
        solarise: Some(Solarise { p: 0.2, threshold: 0.5 }),
        ..Recipe::default()
    };
    vec![view.clone(), view]
}

/// `draw` of golden.py, as the columns of [`PARAMS`].
fn draw(phase: f64, n: i64, s: [f64; 4]) -> Tensor {
    let w = wave(phase, &[n, 12]);
    let mut rows = Vec::new();
    for i in 0..n {
        let u = |j: i64| w.double_value(&[i, j]);
        let on = if u(11) > -0.5 { 1.0 } else { 0.0 };
        let factor = |j: usize| on * (1.0 + s[j] * u(5 + j as i64));
        let yes = |j: i64| if u(j) > 0.0 { 1.0 } else { 0.0 };
        rows.extend([0.5 + 0.2 * u(0), 0.5 + 0.2 * u(1), 0.6 + 0.3 * u(2), 0.6 + 0.3 * u(3), yes(4)]);
        rows.extend([factor(0), factor(1), factor(2), on * s[3] * u(8), 0.0, yes(9) * (1.0 + 0.9 * u(9)), yes(10)]);
    }
    Tensor::from_slice(&rows).view([n, 12]).to_kind(Kind::Float)
}

fn config(weights: [f64; 5], hidden: i64) -> Config {
    let [crop, colour, flip, blur, solarise] = weights;
    Config { crop, colour, flip, blur, solarise, hidden }
}

#[test]
fn loss_and_gradients_are_those_of_pytorch() {
    #[rustfmt::skip]
    let golden = [
    (4, 5, 8, [0.4, 0.4, 0.4, 0.1], [1.0, 1.0, 0.0, 0.0, 0.0], 0.269624593, [(-3.650863468e-03, 5.150016201e-02), (-4.338812200e-03, 5.944186690e-02), (-7.804541702e-03, 1.515470258e-01), (3.257134859e-02, 9.112377970e-02)]),
    (8, 3, 6, [0.8, 0.8, 0.2, 0.2], [0.5, 2.0, 1.0, 0.3, 0.7], 1.535383011, [(-8.872854769e-03, 4.147199107e-02), (-1.385966495e-02, 3.773719651e-02), (1.907201401e-02, 1.472948688e-01), (1.290803834e-01, 3.175747726e-01)]),
    (3, 16, 12, [1.5, 0.5, 0.5, 0.5], [0.0, 1.0, 0.1, 0.0, 0.0], 0.239252000, [(3.087413866e-02, 1.235127018e-01), (-1.622900772e-02, 1.300673791e-01), (5.815356491e-04, 4.267097545e-01), (8.831955840e-02, 1.671228836e-01)]),
    ];
    for (n, d, hidden, s, weights, expected, gradients) in golden {
        let store = Store::new(0, Device::Cpu);
        let heads = Heads::new(&store.root(), d, &config(weights, hidden), &recipes(s), 3).expect("heads");
        let mut variables = store.trainable();
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        for (k, v) in variables.iter().enumerate() {
            let one = if v.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.3 + one));
        }
        let [a, b] = [0.2, 0.9].map(|phase| wave(phase, &[n, d]).to_kind(Kind::Float).set_requires_grad(true));
        let loss = heads.loss([&a, &b], [&draw(0.3, n, s), &draw(0.8, n, s)]);
        // f32 through two batch norms over as few as six rows: six digits of the loss, three of gradients, whose terms
        // cancel.
        assert!((number(&loss.total) / expected - 1.0).abs() < 3e-6, "{} is not {expected}", number(&loss.total));
        let parts: f64 = loss
            .parts
            .iter()
            .map(|(name, value)| {
                let place = Part::ALL.iter().position(|part| part.name() == *name).expect("an augmentation");
                weights[place] * number(value)
            })
            .sum();
        assert!((parts - number(&loss.total)).abs() < 1e-6);
        loss.total.backward();
        let head = |name: &str| variables.iter().find(|v| v.name == name).expect("a variable").tensor.grad();
        let found = [a.grad(), b.grad(), head("colour.0.weight"), head("colour.2.bias")];
        for (g, (second, norm)) in found.iter().zip(gradients) {
            assert!((number(&g.norm()) / norm - 1.0).abs() < 1e-3, "{} is not {norm}", number(&g.norm()));
            assert!((g.flatten(0, -1).double_value(&[1]) - second).abs() < 1e-3 * norm);
        }
    }
}

/// 10 000 pairs of views as recipes draw them, of images of 30 x 40 pixels.
fn drawn(recipes: &[Recipe]) -> [Tensor; 2] {
    [0, 1].map(|view| {
        let rows: Vec<f32> = (0..10_000)
            .flat_map(|i| recipes[view].draw(&mut Rng::new(3, Purpose::View, 0, i, view as u32), 30, 40).params(30, 40))
            .collect();
        Tensor::from_slice(&rows).view([-1, PARAMS.len() as i64])
    })
}

#[test]
fn targets_are_antisymmetric_zero_for_equal_views_and_within_one() {
    for s in [[0.4, 0.4, 0.4, 0.1], [0.8, 0.8, 0.8, 0.2], [1.5, 0.3, 0.0, 0.5]] {
        let recipes = recipes(s);
        let (targets, [a, b]) = (Targets::new(&recipes, 3).expect("targets"), drawn(&recipes));
        for part in Part::ALL {
            let difference = targets.difference(part, &a, &b);
            assert_eq!(difference.size(), [10_000, targets.width(part)]);
            if part == Part::Flip {
                assert_eq!(difference, targets.difference(part, &b, &a));
                assert_eq!(number(&targets.difference(part, &a, &a).min()), 1.0);
                assert!((number(&difference.mean(None)) - 0.5).abs() < 0.025); // 5 deviations of a coin
                continue;
            }
            assert_eq!(difference, -targets.difference(part, &b, &a));
            assert_eq!(greatest(&targets.difference(part, &a, &a)), 0.0);
            // A tanh can reach it. In f32 a share of a range may be one unit above 1.
            assert!(greatest(&difference) <= 1.0 + 1e-6, "{part:?} {}", greatest(&difference));
            // And uses its range: were ranges twice as wide, it would not pass 0.5.
            assert!(greatest(&difference) > 0.7, "{part:?} {}", greatest(&difference));
        }
    }
}

fn row(values: [f32; 12]) -> Tensor {
    Tensor::from_slice(&values).view([1, 12])
}

fn numbers(x: &Tensor) -> Vec<f32> {
    Vec::try_from(x.flatten(0, -1)).expect("numbers")
}

#[test]
fn the_centre_of_a_flipped_view_is_mirrored_and_an_uncropped_view_is_the_whole_image() {
    let targets = Targets::new(&recipes([0.4, 0.4, 0.4, 0.1]), 3).expect("targets");
    let plain = row([0.25, 0.25, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let flipped = row([0.25, 0.25, 0.5, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let whole = row([0.0; 12]);
    assert_eq!(numbers(&targets.difference(Part::Crop, &plain, &flipped)), [0.0, -0.5, 0.0, 0.0]);
    assert_eq!(numbers(&targets.difference(Part::Crop, &whole, &plain)), [0.25, 0.25, 0.5, 0.5]);
    assert_eq!(numbers(&targets.difference(Part::Flip, &plain, &flipped)), [0.0]);
}

#[test]
fn colour_is_a_share_of_its_range_and_zero_without_jitter() {
    let targets = Targets::new(&recipes([0.4, 0.4, 0.4, 0.1]), 3).expect("targets");
    let off = row([0.0; 12]);
    let on = row([0.0, 0.0, 0.0, 0.0, 0.0, 1.4, 0.6, 1.0, -0.1, 0.0, 0.0, 0.0]);
    let found = numbers(&targets.difference(Part::Colour, &on, &off));
    // One unit of f32 in 1.4 - 1 is 3e-7 of 0.4.
    assert!(
        found.iter().zip([0.5, -0.5, 0.0, -0.5]).all(|(found, expected)| (found - expected).abs() < 1e-6),
        "{found:?}"
    );
}

#[test]
fn what_the_images_or_the_views_do_not_have_is_no_target() {
    let grey = Targets::new(&recipes([0.4, 0.4, 0.4, 0.1]), 1).expect("targets");
    assert_eq!(grey.names(Part::Colour), ["brightness", "contrast"]);
    let targets = Targets::new(&recipes([0.4, 0.0, 0.4, 0.1]), 3).expect("targets");
    assert_eq!(targets.names(Part::Colour), ["brightness", "saturation", "hue"]);
    let bare = vec![Recipe::default(), Recipe::default()];
    assert!(Part::ALL.iter().all(|&part| Targets::new(&bare, 3).expect("targets").width(part) == 0));
    let store = Store::new(0, Device::Cpu);
    let refused = |recipes: &[Recipe], config: &Config| {
        Heads::new(&store.root(), 4, config, recipes, 3).err().expect("a refusal").to_string()
    };
    assert!(refused(&bare, &Config::default()).contains("`crop` is 1"));
    assert!(refused(&bare[..1], &Config::default()).contains("two views"));
    let mut sizes = recipes([0.4, 0.4, 0.4, 0.1]);
    sizes[1].size = 16;
    assert!(refused(&sizes, &Config::default()).contains("0 and 16 pixels"));
}

#[test]
fn both_orders_count_alike() {
    let (s, store) = ([0.4, 0.4, 0.4, 0.1], Store::new(0, Device::Cpu));
    let heads = Heads::new(&store.root(), 5, &config([1.0; 5], 8), &recipes(s), 3).expect("heads");
    let [a, b] = [0.2, 0.9].map(|phase| wave(phase, &[6, 5]).to_kind(Kind::Float));
    let (p, q) = (draw(0.3, 6, s), draw(0.8, 6, s));
    let (one, other) = (heads.loss([&a, &b], [&p, &q]).total, heads.loss([&b, &a], [&q, &p]).total);
    // The same rows in another order.
    assert!((number(&one) / number(&other) - 1.0).abs() < 1e-6);
    // But features that are swapped without their parameters are another matter: the sign counts.
    assert!((number(&one) / number(&heads.loss([&b, &a], [&p, &q]).total) - 1.0).abs() > 1e-3);
}

#[test]
fn closed_forms_of_the_losses() {
    let omega = wave(0.1, &[6, 4]);
    let zero = omega.zeros_like();
    assert!((number(&objective(Part::Crop, &zero, &omega)) - number(&omega.square().mean(None))).abs() < 1e-12);
    assert!(number(&objective(Part::Colour, &(&omega * 0.9).atanh(), &(&omega * 0.9))) < 1e-12);
    let same = Tensor::from_slice(&[1.0, 0.0, 1.0]).view([3, 1]);
    assert!((number(&objective(Part::Flip, &same.zeros_like(), &same)) - 2f64.ln()).abs() < 1e-12);
    assert!(number(&objective(Part::Flip, &((&same * 2.0 - 1.0) * 30.0), &same)) < 1e-12);
}

const IMAGE: ImageShape = ImageShape { channels: 3, size: 16 };
const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

fn batch(n: i64) -> Batch {
    let view = |phase: f64| View {
        x: wave(phase, &[n, 3, 16, 16]).to_kind(Kind::Float),
        params: draw(phase, n, [0.4, 0.4, 0.4, 0.1]),
    };
    Batch::new(vec![view(0.1), view(0.2)], (0..n as usize).collect(), 0, 0)
}

fn setup(store: &Store) -> Setup<'_> {
    Setup::new(store.root(), "convnet-tiny".parse().expect("a name"), Shape::Image(IMAGE), 8)
}

#[test]
fn alone_everything_is_trained_and_judging_moves_nothing() {
    let store = Store::new(0, Device::Cpu);
    let mut method = AugSelf::new(config([1.0, 1.0, 0.5, 0.0, 0.0], 16), &setup(&store)).expect("a method");
    let loss = method.loss(&batch(6), AT);
    assert_eq!(loss.parts.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["crop", "colour", "flip"]);
    loss.total.backward();
    for v in store.trainable() {
        assert!(number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
    }
    let before: Vec<Tensor> = store.variables().iter().map(|v| v.tensor.detach().copy()).collect();
    let scores = no_grad(|| method.pretext(&batch(6)));
    assert_eq!(scores.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["crop_r2", "colour_r2", "flip_accuracy"]);
    assert!(scores.iter().all(|(_, score)| number(score).is_finite() && number(score) <= 1.0));
    assert!(store.variables().iter().zip(&before).all(|(v, old)| v.tensor == *old));
}

#[test]
fn unusable_numbers_are_refused() {
    let refused = |config: &Config| AugSelf::check(config).expect_err("a refusal").to_string();
    assert!(refused(&config([-1.0, 1.0, 0.0, 0.0, 0.0], 8)).starts_with("crop is -1"));
    assert!(refused(&config([1.0, f64::NAN, 0.0, 0.0, 0.0], 8)).starts_with("colour is NaN"));
    assert!(refused(&config([0.0; 5], 8)).contains("all 0"));
    assert!(refused(&config([1.0; 5], 0)).starts_with("hidden is 0"));
}

/// A method that passes its views through its encoder in the manner asked for; its loss is the mean square of features.
struct Toy {
    encoder: Box<dyn Encoder>,
    target: Box<dyn Encoder>,
    scale: Tensor,
    manner: Manner,
}

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Joined,
    OneByOne,
    Backwards,
    OneView,
    /// Each view in two parts.
    InParts,
    /// Not the views, but something made of them.
    Changed,
}

impl Toy {
    fn new(setup: &Setup, manner: Manner) -> Toy {
        Toy {
            encoder: setup.build_encoder(&(&setup.path / "encoder")).expect("an encoder"),
            target: setup.build_encoder(&(&setup.path / "target").frozen()).expect("an encoder"),
            scale: setup.path.variable("scale", &[], Role::NoDecay, Init::Const(1.5)),
            manner,
        }
    }
}

impl Method for Toy {
    fn views(&self) -> Vec<Recipe> {
        recipes([0.4, 0.4, 0.4, 0.1])
    }

    fn loss(&mut self, batch: &Batch, _: Progress) -> Loss {
        let (a, b) = (&batch.views[0].x, &batch.views[1].x);
        let _target = no_grad(|| self.target.forward(b, true));
        let h = match self.manner {
            Manner::Joined => self.encoder.forward(&Tensor::cat(&[a, b], 0), true),
            Manner::OneByOne => Tensor::cat(&[self.encoder.forward(a, true), self.encoder.forward(b, true)], 0),
            Manner::Backwards => Tensor::cat(&[self.encoder.forward(b, true), self.encoder.forward(a, true)], 0),
            Manner::OneView => self.encoder.forward(a, true),
            Manner::InParts => {
                let parts: Vec<Tensor> = [a, b].into_iter().flat_map(|x| x.chunk(2, 0)).collect();
                Tensor::cat(&parts.iter().map(|x| self.encoder.forward(x, true)).collect::<Vec<_>>(), 0)
            }
            Manner::Changed => self.encoder.forward(&Tensor::cat(&[&(a * 2.0), &(b * 2.0)], 0), true),
        };
        Loss::new(h.square().mean(None) * &self.scale).with("own", h.mean(None).detach())
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }
}

fn beside(store: &Store, manner: Manner, weight: f64) -> Auxiliary {
    let setup = Setup { tap: Some(Tap::default()), ..setup(store) };
    let toy = Box::new(Toy::new(&setup, manner));
    Auxiliary::new(toy, "toy", weight, &Config { hidden: 16, ..Config::default() }, &setup).expect("a method")
}

#[test]
fn a_weight_of_zero_is_the_method_itself_to_the_bit() {
    for manner in [Manner::Joined, Manner::OneView] {
        let plain = Store::new(0, Device::Cpu);
        let mut toy = Toy::new(&setup(&plain), manner);
        let own = toy.loss(&batch(6), AT).total;
        own.backward();
        let store = Store::new(0, Device::Cpu);
        let mut both = beside(&store, manner, 0.0);
        let total = both.loss(&batch(6), AT).total;
        total.backward();
        assert_eq!(number(&own).to_bits(), number(&total).to_bits());
        // Running statistics too: no pass is made for a loss that does not count.
        for v in plain.variables() {
            let other = store.variables().into_iter().find(|o| o.name == v.name).expect("the same variables");
            assert_eq!(v.tensor, other.tensor, "{}", v.name);
            if v.role != Role::Buffer {
                assert_eq!(v.tensor.grad(), other.tensor.grad(), "{}", v.name);
            }
        }
    }
}

#[test]
fn the_total_is_the_method_s_loss_and_the_weighted_second_one_on_its_own_features() {
    let mut seen = Vec::new();
    for manner in [Manner::OneByOne, Manner::Backwards] {
        let store = Store::new(0, Device::Cpu);
        let mut both = beside(&store, manner, 3.0);
        let loss = both.loss(&batch(6), AT);
        let part = |name: &str| number(&loss.parts.iter().find(|(n, _)| *n == name).expect("a part").1);
        assert_eq!(loss.parts.iter().map(|(n, _)| *n).collect::<Vec<_>>(), ["own", "augself", "crop", "colour"]);
        assert!((part("augself") - part("crop") - part("colour")).abs() < 1e-6);
        let own = Toy::new(&setup(&Store::new(0, Device::Cpu)), manner).loss(&batch(6), AT).total;
        assert!((number(&loss.total) - number(&own) - 3.0 * part("augself")).abs() < 1e-5);
        loss.total.backward();
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
        seen.push(part("augself"));
    }
    // Whichever view the method looks at first, a is a and b is b; the same rows are summed in the same order.
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn what_the_method_did_not_pass_through_its_encoder_passes_it_once_more() {
    let last = "encoder.3.bn.running_mean"; // the running statistics of the last layer
    let run = |manner: Manner| {
        let store = Store::new(0, Device::Cpu);
        let mut both = beside(&store, manner, 1.0);
        let loss = both.loss(&batch(6), AT);
        let own = Toy::new(&setup(&Store::new(0, Device::Cpu)), manner).loss(&batch(6), AT).total;
        let part = |name: &str| number(&loss.parts.iter().find(|(n, _)| *n == name).expect("a part").1);
        assert!((number(&loss.total) - number(&own) - part("augself")).abs() < 1e-5);
        loss.total.backward();
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
        let mean = store.variables().into_iter().find(|v| v.name == last).expect("a norm").tensor;
        (part("augself"), mean.copy())
    };
    let (expected, two_passes) = run(Manner::OneByOne);
    // One view was seen: the other is passed as it would have been, and the statistics end where two passes leave them.
    assert_eq!(run(Manner::OneView), (expected, two_passes.copy()));
    // The encoder saw other pixels than the views': both pass it as they are, and move its statistics once more.
    let (second, three_passes) = run(Manner::Changed);
    assert_eq!(second, expected);
    assert_ne!(three_passes, two_passes);
    // In parts, as MoCo's groups: rows come together, but statistics are of a part.
    let (in_parts, _) = run(Manner::InParts);
    assert!(in_parts != expected && (in_parts - expected).abs() < 0.5 * expected);
}

#[test]
fn fine_tuning_leaves_nothing_in_the_tap() {
    let store = Store::new(0, Device::Cpu);
    let setup = Setup { tap: Some(Tap::default()), ..setup(&store) };
    let toy = Box::new(Toy::new(&setup, Manner::Joined));
    let both = Auxiliary::new(toy, "toy", 1.0, &Config::default(), &setup).expect("a method");
    assert!(both.features(&batch(2).views[0].x, true).requires_grad());
    assert!(setup.tap.expect("a tap").borrow().is_empty());
}
