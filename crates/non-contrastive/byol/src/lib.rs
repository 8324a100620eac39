//! BYOL: Grill, Strub, Altché, Tallec, Richemond et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised
//! Learning", 2020, <https://arxiv.org/abs/2006.07733>.
//!
//! ```text
//! online f, g, q with weights theta; target f', g' with weights xi = theta at the start      (section 3.1)
//! for a batch of images x, step k of K:
//!     v, v' = t(x), t'(x)
//!     L(v, v') = | q(z)/|q(z)| - sg(z')/|sg(z')| |^2,   z = g(f(v)), z' = g'(f'(v'))         = 2 - 2 cos(q(z), z')
//!     L = L(v, v') + L(v', v), the mean over the batch
//!     theta <- optimiser(theta, dL/dtheta)
//!     xi <- tau xi + (1 - tau) theta,   tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2
//! ```
//!
//! Where this departs from the paper:
//! 1. The moving average covers weights alone. The target's BatchNorms normalise with their own batches and keep their
//!    own running statistics, as in the authors' code.
//! 2. Linear and convolution layers start with PyTorch's values, as in every method here, not with the authors'
//!    framework's; BatchNorm's running statistics move by 0.1 in all networks.
//! 3. The target starts equal to the online network. The authors' code draws it by itself, and says that this makes no
//!    difference.
//! 4. With `negatives` above 0 no gradient passes through the target's side, also at tau = 0, where the paper's row
//!    without a target may have let it pass.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::{above_zero, at_least_one, not_negative, one_to, share};
use selfsup_core::ema::Ema;
use selfsup_core::group::gather;
use selfsup_core::head::{Mlp, MlpStyle, Network, widths};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::{Progress, cosine};
use selfsup_core::tensor::normalise;
use selfsup_core::{Tensor, no_grad};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// tau at the start. 0.996 for 1000 epochs (section 3.3), 0.99 for 100 to 300, 0.97 for 40: the fewer, the smaller.
    pub tau: f64,
    /// tau at the end, reached along half a cosine (section 3.3); equal to `tau` it stays constant (table 5a): at 1 the
    /// target stays as it started, at 0 it is the online network, behind a stopped gradient.
    pub tau_end: f64,
    /// Hidden width of projector and predictor (section 3.3).
    pub hidden: i64,
    /// Output width of projector and predictor (section 3.3).
    pub output: i64,
    /// Linear layers of the projector (section 3.3).
    pub layers: usize,
    /// Whether there is a predictor; without it the networks collapse (table 5b).
    pub predictor: bool,
    /// Linear layers of the predictor (section 3.3).
    pub predictor_layers: usize,
    /// A factor on the predictor's learning rate: a fast one can stand in for the target (the appendix, with tau = 0).
    pub predictor_rate: f64,
    /// beta, the weight of negatives: 0 is BYOL; 1 without predictor is SimCLR's loss with a target (table 5b).
    pub negatives: f64,
    /// alpha, by which similarities to negatives are divided, where beta is above 0. SimCLR's value.
    pub temperature: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            tau: 0.996,
            tau_end: 1.0,
            hidden: 4096,
            output: 256,
            layers: 2,
            predictor: true,
            predictor_layers: 2,
            predictor_rate: 1.0,
            negatives: 0.0,
            temperature: 0.1,
        }
    }
}

pub struct Byol {
    config: Config,
    online: Network,
    target: Network,
    predictor: Option<Mlp>,
    averages: [Ema; 2],
}

impl Method for Byol {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let v = [&batch.views[0].x, &batch.views[1].x];
        let p = v.map(|v| self.predict(&self.online.project(v, true))); // [B, E] each
        let z = no_grad(|| v.map(|v| self.target.project(v, true))); // [B, E] each
        Loss::new(both_directions(&p, &z, &self.config))
    }

    fn after_step(&mut self, at: Progress) {
        let tau = cosine(self.config.tau, self.config.tau_end, at.fraction());
        self.averages.iter().for_each(|average| average.update(tau));
    }

    /// Appendix B, table 6: the two views differ in blur and solarisation.
    fn views(&self) -> Vec<Recipe> {
        Recipe::byol().into()
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.online.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.online.project(x, false))
    }
}

impl Define for Byol {
    const NAME: &'static str = "byol";
    const FAMILY: Family = Family::NonContrastive;
    const PAPER: &'static str = "Grill, Strub, Altché, Tallec, Richemond et al., Bootstrap Your Own Latent: A New \
                                 Approach to Self-Supervised Learning, 2020, https://arxiv.org/abs/2006.07733";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        share("tau", config.tau)?;
        share("tau_end", config.tau_end)?;
        at_least_one("hidden", config.hidden)?;
        at_least_one("output", config.output)?;
        one_to(64, "layers", config.layers)?;
        one_to(64, "predictor_layers", config.predictor_layers)?;
        above_zero("predictor_rate", config.predictor_rate)?;
        not_negative("negatives", config.negatives)?;
        above_zero("temperature", config.temperature)
    }

    fn new(config: Config, setup: &Setup) -> Result<Byol> {
        setup.expect_views(2)?;
        let path = &setup.path;
        let Config { hidden, output, layers, predictor_layers, predictor_rate, .. } = config;
        let projector = widths(layers, hidden, output);
        let online = Network::new(path, setup, &projector, STYLE)?;
        let predictor = config.predictor.then(|| {
            let widths = [&[output][..], &widths(predictor_layers, hidden, output)].concat();
            Mlp::new(&(path / "predictor").rate(predictor_rate), &widths, STYLE)
        });
        let target = Network::new(&(path / "target").frozen(), setup, &projector, STYLE)?;
        let averages = Ema::of_network(path, "target")?; // sets target = online
        Ok(Byol { config, online, target, predictor, averages })
    }

    const INPUTS: &'static [&'static str] = &["a", "b", "target_a", "target_b"];

    /// `a` and `b` are predictions, the others the target's projections; where these are absent, `a` and `b` stand for
    /// them too, without a gradient.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        ensure!(
            a.size()[0] >= 2 || config.negatives == 0.0,
            "`a` and `b` have one row; expected at least 2 with `negatives`, which are other rows"
        );
        let targets = ["target_a", "target_b"];
        let z = if targets.iter().any(|name| given.optional(name).is_some()) {
            let [z_a, z_b] = targets.map(|name| {
                let z = given.rows(name)?;
                ensure!(z.size() == a.size(), "`{name}` is {:?}; expected {:?}, as `a` is", z.size(), a.size());
                Ok(z.detach())
            });
            [z_a?, z_b?]
        } else {
            [a.detach(), b.detach()]
        };
        Ok(both_directions(&[a.shallow_clone(), b.shallow_clone()], &z, config))
    }
}

impl Byol {
    /// q(z), [B, E] -> [B, E].
    fn predict(&self, z: &Tensor) -> Tensor {
        self.predictor.as_ref().map_or_else(|| z.shallow_clone(), |q| q.forward(z, true))
    }
}

/// Projector and predictor: linear, BatchNorm, ReLU, linear without bias (section 3.3).
const STYLE: MlpStyle = MlpStyle { norm: true, hidden_bias: true, last_bias: false };

/// The loss of two views' predictions and targets, [B, E] each (equation 2 and the sum behind it). The caller stops the
/// gradient of the targets.
pub fn both_directions(p: &[Tensor; 2], z: &[Tensor; 2], config: &Config) -> Tensor {
    let [p_a, p_b] = p;
    let [z_a, z_b] = z;
    let loss = distance(p_a, z_b) + distance(p_b, z_a);
    if config.negatives == 0.0 {
        return loss;
    }
    let alpha = config.temperature;
    let [p_a, p_b, z_a, z_b] = &[p_a, p_b, z_a, z_b].map(gather); // negatives are those of all ranks
    loss + config.negatives * (repulsion(p_a, z_a, z_b, alpha) + repulsion(p_b, z_b, z_a, alpha))
}

/// 2 - 2 cos(p, z), the mean over rows.
pub fn distance(p: &Tensor, z: &Tensor) -> Tensor {
    let cosine = (normalise(p) * normalise(z)).sum_dim_intlist([-1].as_slice(), false, None); // [B]
    2.0 - 2.0 * cosine.mean(None)
}

/// What beta weighs (the comparison with InfoNCE around table 5b): 2 alpha times the mean over rows of the log of
/// sum_{j != i} exp(cos(p_i, own_j) / alpha) + sum_j exp(cos(p_i, other_j) / alpha), over the targets of p's own view
/// and of the other.
fn repulsion(p: &Tensor, own: &Tensor, other: &Tensor, alpha: f64) -> Tensor {
    let p = normalise(p);
    let own = p.matmul(&normalise(own).tr()).fill_diagonal_(f64::NEG_INFINITY, false);
    let other = p.matmul(&normalise(other).tr());
    let all = Tensor::cat(&[own, other], 1) / alpha; // [B, 2B]
    2.0 * alpha * all.logsumexp([1].as_slice(), false).mean(None)
}

#[cfg(test)]
mod tests;
