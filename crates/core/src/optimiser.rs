//! Optimisers whose state is named tensors: it can be saved, loaded and forgotten in part, which tch's cannot.
//!
//! A step is a handful of calls over lists of tensors and never waits for a GPU. A variable without a gradient is left
//! alone entirely, as in PyTorch: neither decay nor momentum moves it.

use crate::store::{Role, Variable};
use anyhow::{Context, Result, bail, ensure};
use selfsup_torch_ext as ext;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use tch::{Kind, Tensor};

/// An optimiser and its numbers, as they stand in a configuration: `name = "sgd"`, `rate = 0.03`, ...
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimiserConfig {
    /// Stochastic gradient descent: g += decay p; u = momentum u + g; p -= rate u.
    Sgd {
        /// The learning rate for a batch of `per` images.
        rate: f64,
        /// The batch size that `rate` is meant for; the rate grows with the batch. 0: it does not.
        #[serde(default = "per")]
        per: u64,
        #[serde(default = "momentum")]
        momentum: f64,
        #[serde(default)]
        nesterov: bool,
        #[serde(default)]
        decay: f64,
        /// Whether biases and norm parameters decay too (MoCo's and SimSiam's code).
        #[serde(default)]
        decay_all: bool,
    },
    /// Adam with decoupled weight decay: p -= rate decay p.
    AdamW {
        rate: f64,
        #[serde(default = "per")]
        per: u64,
        #[serde(default = "betas")]
        betas: [f64; 2],
        #[serde(default = "eps")]
        eps: f64,
        #[serde(default)]
        decay: f64,
        #[serde(default)]
        decay_all: bool,
    },
    /// Layer-wise adapted rates for large batches. Biases and norm parameters are stepped by plain momentum, without
    /// decay, unless `adapt_all`.
    Lars {
        rate: f64,
        #[serde(default = "per")]
        per: u64,
        #[serde(default = "momentum")]
        momentum: f64,
        #[serde(default)]
        decay: f64,
        /// The trust coefficient.
        #[serde(default = "trust")]
        trust: f64,
        /// Whether the ratio is divided by the rate and held at 1: then LARS only ever slows a layer down.
        #[serde(default)]
        clip: bool,
        #[serde(default)]
        rule: LarsRule,
        /// The rate of biases and norm parameters, as a factor on that of the weights (Barlow Twins: 0.0048 / 0.2).
        #[serde(default = "one")]
        rate_1d: f64,
        /// Whether biases and norm parameters are adapted and decayed as weights are (LARC, which SwAV's program uses).
        #[serde(default)]
        adapt_all: bool,
    },
}

/// What the norm of a layer's weights is divided by. The papers' texts and programs differ.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum LarsRule {
    /// |g + decay p|: the programs of BYOL, Barlow Twins, VICReg and MAE.
    #[default]
    NormOfSum,
    /// |g| + decay |p| + 1e-8: You et al. (2017), and solo-learn. A layer with a gradient of zero is not decayed.
    SumOfNorms,
}

fn per() -> u64 {
    256
}
fn momentum() -> f64 {
    0.9
}
fn betas() -> [f64; 2] {
    [0.9, 0.999]
}
fn eps() -> f64 {
    1e-8
}
fn trust() -> f64 {
    1e-3
}
fn one() -> f64 {
    1.0
}

impl OptimiserConfig {
    /// The highest learning rate of a run with batches of `batch` images.
    pub fn peak(&self, batch: usize) -> f64 {
        let (Self::Sgd { rate, per, .. } | Self::AdamW { rate, per, .. } | Self::Lars { rate, per, .. }) = *self;
        if per == 0 { rate } else { rate * batch as f64 / per as f64 }
    }

    /// Refuses numbers that no run can mean.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let positive = |key: &str, x: f64| {
            ensure!(x.is_finite() && x > 0.0, "the optimiser's `{key}` must be above 0, but is {x}");
            Ok(())
        };
        let not_negative = |key: &str, x: f64| {
            ensure!(x.is_finite() && x >= 0.0, "the optimiser's `{key}` must be 0 or more, but is {x}");
            Ok(())
        };
        let fraction = |key: &str, x: f64| {
            ensure!((0.0..1.0).contains(&x), "the optimiser's `{key}` must be at least 0 and below 1, but is {x}");
            Ok(())
        };
        match *self {
            Self::Sgd { rate, momentum, nesterov, decay, .. } => {
                positive("rate", rate)?;
                fraction("momentum", momentum)?;
                not_negative("decay", decay)?;
                ensure!(!nesterov || momentum > 0.0, "the optimiser's `nesterov` needs a `momentum` above 0");
            }
            Self::AdamW { rate, betas, eps, decay, .. } => {
                positive("rate", rate)?;
                fraction("betas", betas[0])?;
                fraction("betas", betas[1])?;
                positive("eps", eps)?;
                not_negative("decay", decay)?;
            }
            Self::Lars { rate, momentum, decay, trust, rate_1d, .. } => {
                positive("rate", rate)?;
                fraction("momentum", momentum)?;
                not_negative("decay", decay)?;
                positive("trust", trust)?;
                not_negative("rate_1d", rate_1d)?;
            }
        }
        Ok(())
    }

    /// The names of the tensors that are remembered for each variable.
    fn slots(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd { momentum, .. } | Self::Lars { momentum, .. } if *momentum == 0.0 => &[],
            Self::Sgd { .. } | Self::Lars { .. } => &["momentum"],
            Self::AdamW { .. } => &["exp_avg", "exp_avg_sq", "step"],
        }
    }
}

/// An optimiser at work on the variables of a store.
pub struct Optimiser {
    config: OptimiserConfig,
    variables: Vec<Variable>,
    /// One list per slot, each as long as `variables`.
    state: Vec<Vec<Tensor>>,
}

impl Optimiser {
    /// An optimiser of `variables` that has seen no gradient yet.
    ///
    /// Its state takes the memory layout that the variables have now: convert convolution weights to channels-last
    /// before, not after.
    ///
    /// # Errors
    /// If a number of the configuration cannot be meant, two variables share a name, or one is a buffer.
    pub fn new(config: &OptimiserConfig, variables: Vec<Variable>) -> Result<Optimiser> {
        config.check()?;
        let mut names = HashSet::new();
        for v in &variables {
            ensure!(
                v.role != Role::Buffer,
                "`{}` is a buffer: an optimiser takes the trainable variables only",
                v.name
            );
            ensure!(names.insert(v.name.as_str()), "two variables of the optimiser are named `{}`", v.name);
        }
        let zeros = |slot: &&str| {
            let zero = |v: &Variable| match *slot {
                "step" => Tensor::zeros([] as [i64; 0], (Kind::Float, v.tensor.device())),
                // `zeros_like` keeps the strides, which the update needs to agree.
                _ => v.tensor.detach().zeros_like(),
            };
            variables.iter().map(zero).collect()
        };
        let state = config.slots().iter().map(zeros).collect();
        Ok(Optimiser { config: config.clone(), variables, state })
    }

    /// One step at learning rate `rate`; variables with a fixed rate take `peak`.
    ///
    /// LARS uses the gradients as scratch: after a step they are spent.
    ///
    /// # Errors
    /// If a rate is not a number of 0 or more, or a gradient's memory layout is not its variable's.
    pub fn step(&mut self, rate: f64, peak: f64) -> Result<()> {
        for rate in [rate, peak] {
            ensure!(rate.is_finite() && rate >= 0.0, "a learning rate must be a number of 0 or more, but is {rate}");
        }
        let grads: Vec<Tensor> = self.variables.iter().map(|v| v.tensor.grad()).collect();
        // Variables of one role and one rate are stepped together.
        let mut groups: Vec<(Role, f64, Vec<usize>)> = Vec::new();
        for (i, v) in self.variables.iter().enumerate().filter(|(i, _)| grads[*i].defined()) {
            let rate = v.rate * if v.fixed_rate { peak } else { rate };
            match groups.iter_mut().find(|(role, of_group, _)| *role == v.role && *of_group == rate) {
                Some((_, _, group)) => group.push(i),
                None => groups.push((v.role, rate, vec![i])),
            }
        }
        for (role, rate, group) in groups {
            self.step_group(&group, &grads, rate, role).map_err(|error| self.blame(&group, &grads, error))?;
        }
        Ok(())
    }

    /// Steps variables of one role at one rate.
    fn step_group(&self, group: &[usize], grads: &[Tensor], rate: f64, role: Role) -> Result<()> {
        let pick = |list: &[Tensor]| group.iter().map(|&i| list[i].shallow_clone()).collect::<Vec<_>>();
        let params: Vec<Tensor> = group.iter().map(|&i| self.variables[i].tensor.shallow_clone()).collect();
        let grads = pick(grads);
        let state: Vec<Vec<Tensor>> = self.state.iter().map(|slot| pick(slot)).collect();
        let buffers = state.first().map_or(&[][..], |slot| slot);
        let weight = role == Role::Weight;
        match self.config {
            OptimiserConfig::Sgd { momentum, nesterov, decay, decay_all, .. } => {
                let decay = if weight || decay_all { decay } else { 0.0 };
                ext::sgd_(&params, &grads, buffers, ext::Sgd { rate, momentum, nesterov, decay })
            }
            OptimiserConfig::AdamW { betas, eps, decay, decay_all, .. } => {
                let decay = if weight || decay_all { decay } else { 0.0 };
                let with = ext::AdamW { rate, betas, eps, decay };
                ext::adamw_(&params, &grads, &state[0], &state[1], &state[2], with)
            }
            OptimiserConfig::Lars { momentum, decay, trust, clip, rule, rate_1d, adapt_all, .. } => {
                if weight || adapt_all {
                    adapt(&params, &grads, Adapt { decay, trust, clip, rule, rate })?;
                }
                let rate = if weight { rate } else { rate * rate_1d };
                ext::sgd_(&params, &grads, buffers, ext::Sgd { rate, momentum, nesterov: false, decay: 0.0 })
            }
        }
    }

    /// Adds the name of the variable that a failed step tripped over.
    fn blame(&self, group: &[usize], grads: &[Tensor], error: anyhow::Error) -> anyhow::Error {
        let slots = self.config.slots();
        for &i in group {
            let v = &self.variables[i];
            let moment =
                (0..slots.len()).find(|&s| slots[s] != "step" && !ext::same_layout(&v.tensor, &self.state[s][i]));
            let what = match moment {
                Some(s) => slots[s],
                None if !ext::same_layout(&v.tensor, &grads[i]) => "gradient",
                None => continue,
            };
            return error.context(format!(
                "the {what} of `{}` is not laid out as the variable is; convert the memory layout of variables before \
                 the first backward pass and before making the optimiser",
                v.name
            ));
        }
        error
    }

    /// Takes the gradients of all its variables away.
    ///
    /// # Errors
    /// If LibTorch refuses.
    pub fn zero_grad(&self) -> Result<()> {
        ext::clear_grads(&self.variables.iter().map(|v| v.tensor.shallow_clone()).collect::<Vec<_>>())
    }

    /// What it remembers: `momentum.encoder.conv1.weight`, ... The tensors share memory with the optimiser, and have
    /// the layout of their variables (a safetensors file needs contiguous copies).
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let slots = self.config.slots().iter().zip(&self.state);
        slots
            .flat_map(|(slot, tensors)| {
                let named = move |(v, t): (&Variable, &Tensor)| (format!("{slot}.{}", v.name), t.shallow_clone());
                self.variables.iter().zip(tensors).map(named)
            })
            .collect()
    }

    /// Puts back what [`Optimiser::state`] gave. All or nothing.
    ///
    /// # Errors
    /// If a name is missing or unexpected, or a shape or kind differs; the message says which.
    pub fn load(&mut self, saved: &HashMap<String, Tensor>) -> Result<()> {
        let own = self.state();
        let expected: HashSet<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
        let mut unexpected: Vec<&str> = saved.keys().map(String::as_str).filter(|n| !expected.contains(n)).collect();
        unexpected.sort_unstable();
        if let Some(first) = unexpected.first() {
            bail!(
                "the saved optimiser state has {} tensor(s) that this optimiser does not know, the first is `{first}`; \
                 was it saved with another optimiser or model?",
                unexpected.len()
            );
        }
        let mut pairs = Vec::with_capacity(own.len());
        for (name, target) in own {
            let source = saved.get(&name).with_context(|| {
                format!("the saved optimiser state lacks `{name}`; was it saved with another optimiser or model?")
            })?;
            ensure!(
                source.size() == target.size() && source.kind() == target.kind(),
                "the saved optimiser state `{name}` is {:?} {:?}, but {:?} {:?} was expected",
                source.kind(),
                source.size(),
                target.kind(),
                target.size()
            );
            pairs.push((target, source));
        }
        // Copying keeps the strides of the target, whatever those of the source are.
        tch::no_grad(|| pairs.into_iter().for_each(|(mut target, source)| target.copy_(source)));
        Ok(())
    }

    /// Forgets what it remembers of the variable `prefix` and of those below it, as after drawing a layer anew.
    ///
    /// # Errors
    /// If there is no such variable.
    pub fn forget(&mut self, prefix: &str) -> Result<()> {
        let below = format!("{prefix}.");
        let mut found = false;
        for (i, v) in self.variables.iter().enumerate() {
            if v.name == prefix || v.name.starts_with(&below) {
                found = true;
                self.state.iter().for_each(|slot| drop(slot[i].shallow_clone().zero_()));
            }
        }
        ensure!(found, "the optimiser has no variable `{prefix}` and none below it");
        Ok(())
    }
}

/// The numbers of [`adapt`].
struct Adapt {
    decay: f64,
    trust: f64,
    clip: bool,
    rule: LarsRule,
    rate: f64,
}

/// Replaces each gradient g of a layer p by r (g + decay p) with the layer's ratio r, without asking the device for a
/// number.
fn adapt(params: &[Tensor], grads: &[Tensor], with: Adapt) -> Result<()> {
    let Adapt { decay, trust, clip, rule, rate } = with;
    // One vector of norms, [layers].
    let norms = |list: &[Tensor]| Ok::<_, anyhow::Error>(Tensor::stack(&ext::norms(list)?, 0));
    let p = norms(params)?;
    let (divisor, own) = match rule {
        LarsRule::NormOfSum => {
            if decay != 0.0 {
                ext::add_(grads, params, decay)?;
            }
            let sum = norms(grads)?;
            (sum.shallow_clone(), sum)
        }
        LarsRule::SumOfNorms => {
            let g = norms(grads)?;
            if decay != 0.0 {
                ext::add_(grads, params, decay)?;
            }
            (&g + &p * decay + 1e-8, g)
        }
    };
    let mut ratio = &p * trust / divisor;
    if clip {
        // As the rate falls to 0 the bound is what remains.
        ratio = if rate > 0.0 { (ratio / rate).clamp_max(1.0) } else { ratio.ones_like() };
    }
    // Without weights or without a gradient there is no ratio. Where the own gradient is 0, NormOfSum has nothing left
    // to scale, and SumOfNorms takes back the decay that was added.
    let ratio = ratio.where_self(&p.gt(0.0), &p.ones_like());
    let ratio = ratio.where_self(&own.gt(0.0), &own.zeros_like());
    ext::mul_(grads, &ratio.unbind(0))
}

/// Scales the gradients of `variables` together so that their global norm is at most `max`; gives the norm before, a
/// scalar on the device. As PyTorch's `clip_grad_norm_`.
///
/// # Errors
/// If `max` is not above 0, or gradients lie on several devices.
pub fn clip_gradients(variables: &[Variable], max: f64) -> Result<Tensor> {
    ensure!(max.is_finite() && max > 0.0, "`clip_norm` must be above 0, but is {max}");
    let grads: Vec<Tensor> = variables.iter().map(|v| v.tensor.grad()).filter(Tensor::defined).collect();
    if grads.is_empty() {
        let device = variables.first().map_or(tch::Device::Cpu, |v| v.tensor.device());
        return Ok(Tensor::zeros([] as [i64; 0], (Kind::Float, device)));
    }
    let norm = Tensor::f_stack(&ext::norms(&grads)?, 0)?.norm();
    ext::scale_(&grads, &(max / (&norm + 1e-6)).clamp_max(1.0))?;
    Ok(norm)
}
