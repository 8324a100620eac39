//! Optimisers against torch.optim, against a transcription of both LARS rules, and against closed forms.

mod cost;

use selfsup_core::optimiser::{LarsRule, Optimiser, OptimiserConfig, clip_gradients};
use selfsup_core::store::{Init, Role, Store, Variable, assign};
use selfsup_core::tensor::channels_last;
use selfsup_core::{Device, Kind, Tensor, no_grad};
use std::collections::HashMap;

const SHAPES: [(&str, &[i64]); 5] =
    [("conv", &[3, 2, 3, 3]), ("fc", &[4, 3]), ("bias", &[5]), ("zero", &[2, 3]), ("head", &[2, 3])];
const FACTORS: [f64; 6] = [0.3, 0.6, 1.0, 0.8, 0.4, 0.1];

/// The parameters of golden.py. The convolution has channels last if asked for.
fn parameters(last: bool) -> Vec<Variable> {
    let store = Store::new(0, Device::Cpu);
    for (k, (name, shape)) in SHAPES.iter().enumerate() {
        let role = if *name == "bias" { Role::NoDecay } else { Role::Weight };
        let path = if *name == "head" { store.root().fixed_rate() } else { store.root() };
        let mut p = path.variable(name, shape, role, Init::Const(0.0));
        if *name != "zero" {
            assign(&p, &formula(shape, |i| (0.7 * i + k as f64).sin()));
        }
        if !last {
            let data = p.detach().contiguous();
            no_grad(|| p.set_data(&data));
        }
    }
    store.trainable()
}

fn formula(shape: &[i64], f: impl Fn(f64) -> f64) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|i| f(i as f64) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// One step of golden.py: the gradients of sum(c p) + 0.15 sum(p^2), none for `fc` at step 2, and the update.
fn step(optimiser: &mut Optimiser, variables: &[Variable], t: usize, peak: f64) {
    optimiser.zero_grad().expect("gradients can be cleared");
    backward(variables, t);
    optimiser.step(peak * FACTORS[t], peak).expect("a step");
}

fn backward(variables: &[Variable], t: usize) {
    for (k, v) in variables.iter().enumerate().filter(|(_, v)| (v.name.as_str(), t) != ("fc", 2)) {
        let c = formula(&v.tensor.size(), |i| (1.3 * i + 2.0 * t as f64 + k as f64).cos());
        ((&v.tensor * c).sum(Kind::Float) + v.tensor.square().sum(Kind::Float) * 0.15).backward();
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).expect("numbers")
}

fn config(text: &str) -> OptimiserConfig {
    toml::from_str(text).expect("a configuration")
}

#[test]
fn every_step_equals_torch_optim_and_the_lars_rules() {
    let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("golden.json")).expect("golden.json");
    for case in cases {
        let config: OptimiserConfig = serde_json::from_value(case["config"].clone()).expect("a configuration");
        for last in [false, true] {
            let variables = parameters(last);
            let mut optimiser = Optimiser::new(&config, parameters_of(&variables)).expect("an optimiser");
            for t in 0..FACTORS.len() {
                step(&mut optimiser, &variables, t, config.peak(64));
                for v in &variables {
                    let golden = case["steps"][t][&v.name].as_array().expect("numbers");
                    for (ours, golden) in values(&v.tensor).iter().zip(golden) {
                        // f32 against f64: six steps, each with about three roundings to 6e-8 of values near 1.
                        let error = (ours - golden.as_f64().expect("a number")).abs();
                        assert!(error < 1e-6, "{config:?}, channels last {last}, step {t}, {}: off by {error}", v.name);
                    }
                }
            }
        }
    }
}

/// Second handles on the same variables.
fn parameters_of(variables: &[Variable]) -> Vec<Variable> {
    let share = |v: &Variable| Variable { name: v.name.clone(), tensor: v.tensor.shallow_clone(), ..*v };
    variables.iter().map(share).collect()
}

#[test]
fn lars_closed_form() {
    // p = (3, 4), g = (1.2, 1.6): |p| = 5, |g| = 2, r = 0.001 5 / 2 = 0.0025, so p - r g = (2.997, 3.996).
    for rule in ["norm-of-sum", "sum-of-norms"] {
        let p = vector(&[3.0, 4.0], Role::Weight);
        let config = config(&format!("name = 'lars'\nrate = 1\nper = 0\nrule = '{rule}'"));
        let mut optimiser = Optimiser::new(&config, vec![p.0]).expect("an optimiser");
        (&p.1 * Tensor::from_slice(&[1.2f32, 1.6])).sum(Kind::Float).backward();
        optimiser.step(1.0, 1.0).expect("a step");
        let p = values(&p.1);
        // f32 near 3 and 4 is 2.4e-7 apart.
        assert!((p[0] - 2.997).abs() < 5e-7 && (p[1] - 3.996).abs() < 5e-7, "{rule}: {p:?}");
    }
}

/// A variable and a second handle on it.
fn vector(values: &[f32], role: Role) -> (Variable, Tensor) {
    let tensor = Tensor::from_slice(values).set_requires_grad(true);
    (Variable { name: "p".into(), tensor: tensor.shallow_clone(), role, fixed_rate: false, rate: 1.0 }, tensor)
}

#[test]
fn lars_at_the_edges_stays_finite() {
    for rule in ["norm-of-sum", "sum-of-norms"] {
        for clip in [true, false] {
            // A gradient of zero, weights of zero, both, and a rate of zero.
            for (p, g, rate) in
                [([1.0, 2.0], 0.0, 0.1), ([0.0, 0.0], 1.0, 0.1), ([0.0, 0.0], 0.0, 0.1), ([1.0, 2.0], 1.0, 0.0)]
            {
                let variable = vector(&p, Role::Weight);
                let config = config(&format!("name = 'lars'\nrate = 1\nrule = '{rule}'\nclip = {clip}\ndecay = 0.5"));
                let mut optimiser = Optimiser::new(&config, vec![variable.0]).expect("an optimiser");
                (&variable.1 * g).sum(Kind::Float).backward();
                optimiser.step(rate, rate).expect("a step");
                let after = values(&variable.1);
                assert!(after.iter().all(|x| x.is_finite()), "{rule} {clip} {p:?} {g} {rate}: {after:?}");
                assert!(values(&optimiser.state()[0].1).iter().all(|x| x.is_finite()));
                if g == 0.0 && rule == "sum-of-norms" || rate == 0.0 {
                    assert_eq!(after, p.map(f64::from), "{rule} {clip} {g} {rate}");
                }
            }
        }
    }
}

/// A factor on a variable's rate is that factor on the run's rate, for this variable alone.
#[test]
fn a_variable_may_have_a_multiple_of_the_rate() {
    for text in EACH {
        let config = config(text);
        let stepped = |factor: f64, rate: f64, fixed_rate: bool| {
            let ((variable, tensor), (other, beside)) =
                (vector(&[3.0, 4.0], Role::Weight), vector(&[1.0], Role::Weight));
            let variable = Variable { rate: factor, fixed_rate, ..variable };
            let other = Variable { name: "q".into(), ..other };
            let mut optimiser = Optimiser::new(&config, vec![variable, other]).expect("an optimiser");
            ((&tensor * Tensor::from_slice(&[1.2f32, 1.6])).sum(Kind::Float) + beside.sum(Kind::Float)).backward();
            optimiser.step(rate, 0.5).expect("a step");
            (values(&tensor), values(&beside))
        };
        let ((tripled, beside), (plain, without)) = (stepped(3.0, 0.25, false), stepped(1.0, 0.75, false));
        assert_eq!(tripled, plain, "{text}");
        assert_ne!(beside, without, "{text}: its neighbour keeps the run's rate");
        assert_eq!(stepped(3.0, 0.25, true).0, stepped(1.0, 1.5, false).0, "{text}: of the peak where it is fixed");
    }
}

const EACH: [&str; 4] = [
    "name = 'sgd'\nrate = 0.1\nper = 0\ndecay = 0.05\nnesterov = true",
    "name = 'adamw'\nrate = 0.01\nper = 0\ndecay = 0.05",
    "name = 'lars'\nrate = 0.5\nper = 0\ndecay = 0.05\ntrust = 0.02",
    "name = 'sgd'\nrate = 0.1\nper = 0\nmomentum = 0",
];

/// What a checkpoint would hold: contiguous copies.
fn save(optimiser: &Optimiser) -> HashMap<String, Tensor> {
    optimiser.state().into_iter().map(|(name, t)| (name, t.contiguous().copy())).collect()
}

#[test]
fn saved_and_continued_equals_uninterrupted_bit_for_bit() {
    for text in EACH {
        let config = config(text);
        let whole = parameters(true);
        let mut optimiser = Optimiser::new(&config, parameters_of(&whole)).expect("an optimiser");
        (0..6).for_each(|t| step(&mut optimiser, &whole, t, config.peak(1)));

        let first = parameters(true);
        let mut optimiser = Optimiser::new(&config, parameters_of(&first)).expect("an optimiser");
        (0..3).for_each(|t| step(&mut optimiser, &first, t, config.peak(1)));
        let saved = save(&optimiser);
        let second = parameters(true);
        for (new, old) in second.iter().zip(&first) {
            assign(&new.tensor, &old.tensor.detach());
        }
        let mut optimiser = Optimiser::new(&config, parameters_of(&second)).expect("an optimiser");
        optimiser.load(&saved).expect("its own state");
        (3..6).for_each(|t| step(&mut optimiser, &second, t, config.peak(1)));
        for (a, b) in whole.iter().zip(&second) {
            assert_eq!(a.tensor, b.tensor, "{text}: {}", a.name);
        }
    }
}

#[test]
fn state_that_does_not_fit_is_refused_and_nothing_is_loaded() {
    let config = config(EACH[0]);
    let variables = parameters(false);
    let mut optimiser = Optimiser::new(&config, parameters_of(&variables)).expect("an optimiser");
    step(&mut optimiser, &variables, 0, 0.1);
    let before = save(&optimiser);
    let mut refused = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut saved: HashMap<_, _> = before.iter().map(|(name, t)| (name.clone(), t.zeros_like())).collect();
        change(&mut saved);
        let message = optimiser.load(&saved).expect_err("a refusal").to_string();
        for (name, tensor) in optimiser.state() {
            assert_eq!(tensor, before[&name], "{name} after `{message}`");
        }
        message
    };
    assert!(refused(&|s| drop(s.remove("momentum.fc"))).contains("lacks `momentum.fc`"));
    assert!(
        refused(&|s| drop(s.insert("exp_avg.fc".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu)))))
            .contains("`exp_avg.fc`")
    );
    assert!(
        refused(&|s| drop(s.insert("momentum.fc".into(), Tensor::zeros([3, 4], (Kind::Float, Device::Cpu)))))
            .contains("[4, 3] was expected")
    );
}

#[test]
fn state_is_named_after_the_variables_and_can_be_forgotten() {
    let variables = parameters(true);
    let mut optimiser = Optimiser::new(&config(EACH[1]), parameters_of(&variables)).expect("an optimiser");
    step(&mut optimiser, &variables, 0, 0.1);
    let names: Vec<String> = optimiser.state().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 15);
    for name in ["exp_avg.conv", "exp_avg_sq.conv", "step.conv"] {
        assert!(names.iter().any(|n| n == name), "{name}");
    }
    optimiser.forget("fc").expect("a variable of that name");
    for (name, tensor) in optimiser.state() {
        let nothing = tensor.abs().sum(Kind::Double).double_value(&[]) == 0.0;
        assert_eq!(nothing, name.ends_with(".fc"), "{name}");
    }
    // Half a name is no name.
    assert!(optimiser.forget("con").is_err());
}

#[test]
fn a_variable_without_gradient_is_left_alone() {
    for text in EACH {
        let config = config(text);
        let variables = parameters(false);
        let mut optimiser = Optimiser::new(&config, parameters_of(&variables)).expect("an optimiser");
        step(&mut optimiser, &variables, 0, config.peak(1));
        let (before, state) = (variables[1].tensor.copy(), save(&optimiser));
        step(&mut optimiser, &variables, 2, config.peak(1));
        assert_eq!(variables[1].tensor, before, "{text}");
        for (name, tensor) in optimiser.state() {
            let changed = tensor != state[&name];
            assert_eq!(changed, !name.ends_with(".fc"), "{text}: {name}");
        }
    }
}

#[test]
fn a_gradient_of_another_layout_is_refused_by_name() {
    // The gradient is made before the weights are laid out anew: the update would silently mix values up.
    let mut variables = parameters(false);
    let mut optimiser = Optimiser::new(&config(EACH[0]), parameters_of(&variables)).expect("an optimiser");
    backward(&variables, 0);
    let data = channels_last(&variables[0].tensor.detach());
    no_grad(|| variables[0].tensor.set_data(&data));
    let before = variables[0].tensor.copy();
    let error = format!("{:#}", optimiser.step(0.1, 0.1).expect_err("a refusal"));
    assert!(error.contains("`conv`") && error.contains("strides"), "{error}");
    assert_eq!(variables[0].tensor, before);
}

#[test]
fn the_rate_grows_with_the_batch_unless_absolute() {
    assert_eq!(config("name = 'sgd'\nrate = 0.03").peak(512), 0.06);
    assert_eq!(config("name = 'adamw'\nrate = 0.03\nper = 0").peak(512), 0.03);
}

#[test]
fn configurations_round_trip_and_strangers_are_refused() {
    let plain = config("name = 'lars'\nrate = 1");
    let expected = OptimiserConfig::Lars {
        rate: 1.0,
        per: 256,
        momentum: 0.9,
        decay: 0.0,
        trust: 1e-3,
        clip: false,
        rule: LarsRule::NormOfSum,
        rate_1d: 1.0,
        adapt_all: false,
    };
    assert_eq!(plain, expected);
    for text in EACH {
        let once = config(text);
        assert_eq!(config(&toml::to_string(&once).expect("TOML")), once);
    }
    let refused = |text: &str| toml::from_str::<OptimiserConfig>(text).expect_err("a refusal").to_string();
    assert!(refused("name = 'sgd'\nrate = 1\ntrust = 1").contains("trust"));
    assert!(refused("name = 'sgd'").contains("rate"));
    assert!(refused("name = 'adam'\nrate = 1").contains("adamw"));
    for (text, key) in [
        ("name = 'sgd'\nrate = 0", "rate"),
        ("name = 'sgd'\nrate = 1\nmomentum = 1", "momentum"),
        ("name = 'sgd'\nrate = 1\nmomentum = 0\nnesterov = true", "nesterov"),
        ("name = 'adamw'\nrate = 1\nbetas = [0.9, 1.5]", "betas"),
        ("name = 'lars'\nrate = 1\ndecay = -1", "decay"),
    ] {
        let error = Optimiser::new(&config(text), parameters(false)).err().expect("a refusal").to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn gradients_are_clipped_by_their_global_norm() {
    let variables = parameters(true);
    backward(&variables, 2);
    let grads: Vec<Tensor> = variables.iter().map(|v| v.tensor.grad()).filter(Tensor::defined).collect();
    let before: Vec<f64> = grads.iter().flat_map(values).collect();
    let norm = before.iter().map(|g| g * g).sum::<f64>().sqrt();
    for max in [1000.0, 0.5] {
        let got = clip_gradients(&variables, max).expect("a norm").double_value(&[]);
        // A sum of 80 squares in f32.
        assert!((got - norm).abs() < 1e-6 * norm, "{got} {norm}");
        let factor = (max / norm).min(1.0);
        for (after, before) in grads.iter().flat_map(values).zip(&before) {
            assert!((after - before * factor).abs() < 1e-6, "{after} {before} {factor}");
        }
    }
    assert!(clip_gradients(&variables, 0.0).is_err());
}
