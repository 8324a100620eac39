//! What stands on the encoder.

use crate::Config;
use selfsup_core::Tensor;
use selfsup_core::head::{Mlp, MlpStyle};
use selfsup_core::layer::Linear;
use selfsup_core::memory::Bank;
use selfsup_core::rng::{Purpose, Rng, hash_name};
use selfsup_core::store::{Init, Path, Role, assign};

/// One of the two versions' heads.
pub(crate) enum Head {
    /// Version 1: W and b.
    Classifier(Linear),
    /// Version 2: g, the C_h [K, D], and a bank for each of the first two crops.
    Prototypes { g: Mlp, c: Vec<Tensor>, banks: [Bank; 2] },
}

/// The name of version 1's layer.
pub(crate) const CLASSIFIER: &str = "classifier";

impl Head {
    /// W and b, which [`draw`] gives values. They are new in every epoch, so their rate does not follow the schedule.
    pub(crate) fn classifier(path: &Path, input: i64, config: &Config) -> Head {
        let path = (path / CLASSIFIER).fixed_rate();
        Head::Classifier(Linear::with_init(&path, input, config.clusters, Init::Normal(STD), true))
    }

    /// g is linear, BatchNorm, ReLU, linear. The C_h lie below a frozen path: they have no gradient, and no optimiser
    /// ever steps them.
    pub(crate) fn prototypes(path: &Path, input: i64, samples: usize, config: &Config) -> Head {
        let style = MlpStyle { norm: true, hidden_bias: true, last_bias: true };
        let g = Mlp::new(&(path / "projector"), &[input, config.hidden, config.output], style);
        let frozen = (path / "prototypes").frozen();
        let c = |h: i64| {
            frozen.variable(&h.to_string(), &[config.prototypes, config.output], Role::Buffer, Init::Const(0.0))
        };
        let bank = |name| Bank::new(path, name, samples, config.output);
        Head::Prototypes { g, c: (0..config.heads).map(c).collect(), banks: [bank("bank.0"), bank("bank.1")] }
    }
}

/// Of W at first (the authors' code).
const STD: f64 = 0.01;

/// The initial values of an epoch: W normal, b = 0.
pub(crate) fn draw(w: &Linear, seed: u64, epoch: u64) {
    let mut rng = Rng::new(seed, Purpose::Init, epoch, hash_name(CLASSIFIER), 0);
    let values: Vec<f32> = (0..w.weight.numel()).map(|_| (STD * rng.normal()) as f32).collect();
    assign(&w.weight, &Tensor::from_slice(&values).view_as(&w.weight).to_device(w.weight.device()));
    w.bias.iter().for_each(|b| assign(b, &b.zeros_like()));
}
