//! Where all that a method remembers lives: named tensors in one store. Saving the store saves the method.

use crate::rng::{Purpose, Rng, hash_name};
use crate::tensor::channels_last;
use std::cell::RefCell;
use std::collections::HashMap;
use tch::{Device, Tensor};

/// What the optimiser may do with a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained, with weight decay and, under LARS, with an adapted rate: weights of linear and convolution layers,
    /// embeddings, and the learned positions of a transformer over tokens (as in nanoGPT).
    Weight,
    /// Trained, without either: biases, norm parameters, class and mask tokens.
    NoDecay,
    /// Not trained: running statistics, target networks, queues, memory banks, codebooks, assignments.
    Buffer,
}

/// One named tensor of a store.
pub struct Variable {
    /// Unique, parts joined by dots: `encoder.layer1.0.conv1.weight`.
    pub name: String,
    pub tensor: Tensor,
    pub role: Role,
    /// Whether its learning rate stays at the peak instead of following the schedule (SimSiam's predictor).
    pub fixed_rate: bool,
    /// A factor on its learning rate (BYOL's faster predictor).
    pub rate: f64,
}

impl Variable {
    /// A second handle on the same memory.
    fn share(&self) -> Variable {
        Variable {
            name: self.name.clone(),
            tensor: self.tensor.shallow_clone(),
            role: self.role,
            fixed_rate: self.fixed_rate,
            rate: self.rate,
        }
    }
}

/// Initial values of a variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Const(f64),
    /// Uniform on [-bound, bound].
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal with this standard deviation, redrawn outside two of them.
    TruncNormal(f64),
}

/// The variables of one method, in the order of their creation.
pub struct Store {
    variables: RefCell<Vec<Variable>>,
    /// What variables of these names start with, in place of their own initial values.
    given: HashMap<String, Tensor>,
    seed: u64,
    device: Device,
}

impl Store {
    /// An empty store. A variable's initial values depend on `seed` and on its name alone, not on the device, the
    /// method or what was made before it: the encoders of two methods with one seed start equal.
    pub fn new(seed: u64, device: Device) -> Store {
        Store::with_given(seed, device, HashMap::new())
    }

    /// The same, but the variables whose names are in `given` start with the values there: whatever is made a copy of
    /// them while a method is built (a target network) starts with those too.
    pub fn with_given(seed: u64, device: Device, given: HashMap<String, Tensor>) -> Store {
        Store { variables: RefCell::new(Vec::new()), given, seed, device }
    }

    /// Where its tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The place from which a method makes its variables.
    pub fn root(&self) -> Path<'_> {
        Path { store: self, prefix: String::new(), frozen: false, fixed_rate: false, rate: 1.0 }
    }

    /// All variables, in the order of their creation; the tensors share memory with the store.
    pub fn variables(&self) -> Vec<Variable> {
        self.variables.borrow().iter().map(Variable::share).collect()
    }

    /// The variables that an optimiser steps.
    pub fn trainable(&self) -> Vec<Variable> {
        self.variables().into_iter().filter(|v| v.role != Role::Buffer).collect()
    }

    /// Variables below `prefix` (a name without its last dot).
    pub fn below(&self, prefix: &str) -> Vec<Variable> {
        let prefix = format!("{prefix}.");
        self.variables().into_iter().filter(|v| v.name.starts_with(&prefix)).collect()
    }

    /// The tensors below `prefix` that no optimiser steps: of a network, its running statistics.
    pub fn buffers(&self, prefix: &str) -> Vec<Tensor> {
        self.below(prefix).into_iter().filter(|v| v.role == Role::Buffer).map(|v| v.tensor).collect()
    }

    /// The number of trained values.
    pub fn parameters(&self) -> usize {
        self.trainable().iter().map(|v| v.tensor.numel()).sum()
    }
}

/// A place in a store under which variables are made; `&path / "name"` goes one level down.
#[derive(Clone)]
pub struct Path<'a> {
    store: &'a Store,
    prefix: String,
    frozen: bool,
    fixed_rate: bool,
    rate: f64,
}

impl<'a> Path<'a> {
    /// The same place; all variables made below it are buffers, without gradient.
    pub fn frozen(&self) -> Path<'a> {
        Path { frozen: true, ..self.clone() }
    }

    /// The same place; variables made below it are trained at the schedule's peak rate throughout.
    pub fn fixed_rate(&self) -> Path<'a> {
        Path { fixed_rate: true, ..self.clone() }
    }

    /// The same place; variables made below it are trained at `factor` times the learning rate.
    pub fn rate(&self, factor: f64) -> Path<'a> {
        Path { rate: self.rate * factor, ..self.clone() }
    }

    /// Its name: parts joined by dots, empty at the root.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// Where its tensors live.
    pub fn device(&self) -> Device {
        self.store.device
    }

    /// The run's seed.
    pub fn seed(&self) -> u64 {
        self.store.seed
    }

    /// The store it lies in.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    fn child(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.into() } else { format!("{}.{name}", self.prefix) }
    }

    /// Makes an f32 variable with initial values drawn from its name's own stream.
    ///
    /// # Panics
    /// If the name is taken, or memory cannot hold it.
    pub fn variable(&self, name: &str, shape: &[i64], role: Role, init: Init) -> Tensor {
        let name = self.child(name);
        // A size in a configuration may be any number: what it asks for is refused in words, not by an abort.
        let n = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(usize::try_from(side).ok()?));
        let mut values: Vec<f32> = Vec::new();
        let room = n.filter(|&n| values.try_reserve_exact(n).is_ok());
        let n = room.unwrap_or_else(|| panic!("not enough memory for `{name}`, a variable of {shape:?}"));
        let mut rng = Rng::new(self.store.seed, Purpose::Init, 0, hash_name(&name), 0);
        let mut draw: Box<dyn FnMut() -> f64> = match init {
            Init::Const(value) => Box::new(move || value),
            Init::Uniform(bound) => Box::new(move || rng.range(-bound, bound)),
            Init::Normal(std) => Box::new(move || std * rng.normal()),
            Init::TruncNormal(std) => Box::new(move || {
                loop {
                    let x = rng.normal();
                    if x.abs() <= 2.0 {
                        return std * x;
                    }
                }
            }),
        };
        values.extend((0..n).map(|_| draw() as f32));
        self.add(name, Tensor::from_slice(&values).view(shape), role)
    }

    /// Makes a buffer that starts with the values (and the kind) of `tensor`.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn buffer(&self, name: &str, tensor: &Tensor) -> Tensor {
        self.add(self.child(name), tensor.copy(), Role::Buffer)
    }

    fn add(&self, name: String, tensor: Tensor, role: Role) -> Tensor {
        if let Some(given) = self.store.given.get(&name) {
            assign(&tensor, given);
        }
        let role = if self.frozen { Role::Buffer } else { role };
        // Convolution weights have the layout of the views, wherever their values came from: a pass rounds by it.
        let tensor = if tensor.dim() == 4 { channels_last(&tensor) } else { tensor };
        let tensor = tensor.to_device(self.store.device).set_requires_grad(role != Role::Buffer);
        let mut variables = self.store.variables.borrow_mut();
        assert!(variables.iter().all(|v| v.name != name), "the store has a variable `{name}` already");
        let Path { fixed_rate, rate, .. } = *self;
        variables.push(Variable { name, tensor: tensor.shallow_clone(), role, fixed_rate, rate });
        tensor
    }
}

impl<'a, S: std::fmt::Display> std::ops::Div<S> for &Path<'a> {
    type Output = Path<'a>;

    fn div(self, name: S) -> Path<'a> {
        Path { prefix: self.child(&name.to_string()), ..self.clone() }
    }
}

impl<'a, S: std::fmt::Display> std::ops::Div<S> for Path<'a> {
    type Output = Path<'a>;

    fn div(self, name: S) -> Path<'a> {
        &self / name
    }
}

/// Copies the values of `source` into `target`, converting kind and device.
///
/// # Panics
/// If their shapes differ.
pub fn assign(target: &Tensor, source: &Tensor) {
    assert_eq!(target.size(), source.size(), "assign needs equal shapes");
    tch::no_grad(|| target.shallow_clone().copy_(&source.to_kind(target.kind())));
}

/// Runs `f` and gives `tensors` back what they held before: a forward pass as in training that moves no statistics.
pub fn unmoved<T>(tensors: &[Tensor], f: impl FnOnce() -> T) -> T {
    let before: Vec<Tensor> = tensors.iter().map(|tensor| tensor.detach().copy()).collect();
    let result = f();
    tensors.iter().zip(&before).for_each(|(tensor, old)| assign(tensor, old));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_depend_on_seed_and_name_alone() {
        let make = |seed, names: &[&str]| {
            let store = Store::new(seed, Device::Cpu);
            for name in names {
                let _ = (store.root() / "a").variable(name, &[3, 4], Role::Weight, Init::Uniform(1.0));
            }
            store.variables().pop().expect("one variable").tensor
        };
        assert_eq!(make(0, &["w"]), make(0, &["other", "w"]));
        assert_ne!(make(0, &["w"]), make(1, &["w"]));
        assert_ne!(make(0, &["w"]), make(0, &["v"]));
    }

    #[test]
    fn given_values_take_the_place_of_initial_ones() {
        let value = Tensor::from_slice(&[1.0f64, 2.0]);
        let store = Store::with_given(0, Device::Cpu, [("a.w".to_string(), value)].into());
        let w = (store.root() / "a").variable("w", &[2], Role::Weight, Init::Normal(1.0));
        assert_eq!(w, Tensor::from_slice(&[1.0f32, 2.0]));
        assert!(w.requires_grad());
        let other = (store.root() / "b").variable("w", &[2], Role::Weight, Init::Normal(1.0));
        let drawn = Store::new(0, Device::Cpu);
        assert_eq!(other, (drawn.root() / "b").variable("w", &[2], Role::Weight, Init::Normal(1.0)));
    }

    #[test]
    fn convolution_weights_are_channels_last_and_so_are_their_copies() {
        let value = Tensor::from_slice(&(0..24).map(f64::from).collect::<Vec<_>>()).view([2, 3, 2, 2]);
        let store = Store::with_given(0, Device::Cpu, [("a.w".to_string(), value.shallow_clone())].into());
        let path = store.root() / "a";
        let w = path.variable("w", &[2, 3, 2, 2], Role::Weight, Init::Normal(1.0));
        let target = path.buffer("target", &w);
        for tensor in [&w, &target] {
            assert_eq!(tensor.stride(), [12, 1, 6, 3]);
            assert_eq!(tensor.detach(), value.to_kind(tch::Kind::Float));
        }
    }

    #[test]
    fn a_frozen_path_makes_buffers() {
        let store = Store::new(0, Device::Cpu);
        let w = (store.root().frozen() / "target").variable("w", &[2], Role::Weight, Init::Normal(1.0));
        assert!(!w.requires_grad());
        assert!(store.trainable().is_empty());
        assert_eq!(store.below("target").len(), 1);
        assert_eq!(w.kind(), tch::Kind::Float);
    }

    #[test]
    fn buffers_that_a_pass_moved_are_put_back() {
        let store = Store::new(0, Device::Cpu);
        let path = store.root() / "net";
        let _w = path.variable("w", &[2], Role::Weight, Init::Normal(1.0));
        let mean = path.buffer("mean", &Tensor::from_slice(&[1.0f32, 2.0]));
        let _other = store.root().buffer("other", &Tensor::from_slice(&[0.0f32]));
        let buffers = store.buffers("net");
        assert_eq!(buffers.len(), 1);
        let moved = unmoved(&buffers, || {
            assign(&mean, &Tensor::from_slice(&[5.0f32, 6.0]));
            mean.copy()
        });
        assert_eq!(moved, Tensor::from_slice(&[5.0f32, 6.0]));
        assert_eq!(mean, Tensor::from_slice(&[1.0f32, 2.0]));
    }

    #[test]
    fn a_second_variable_of_one_name_is_refused() {
        let store = Store::new(0, Device::Cpu);
        let root = store.root();
        let _ = root.variable("w", &[1], Role::Weight, Init::Const(0.0));
        let again = std::panic::AssertUnwindSafe(|| root.variable("w", &[1], Role::Weight, Init::Const(0.0)));
        assert!(std::panic::catch_unwind(again).is_err());
    }
}
