//! Next-step prediction on series: CPC, van den Oord, Li and Vinyals, "Representation Learning with Contrastive
//! Predictive Coding", 2018, <https://arxiv.org/abs/1807.03748>; and plain regression of the next patch.
//!
//! ```text
//! for a series cut into disjoint patches x_1 .. x_L:                  (section 2.2)
//!     z_t = embed(x_t)                                                each patch alone
//!     c_t = gru(z_1 .. z_t)                                           nothing behind t
//!     for k = 1 .. K, for every t with a patch t + K:
//!         f_k(j, t) = exp(z_j' W_k c_t)                               (equation 3)
//!         L_k = -log( f_k(t + k, t) / (f_k(t + k, t) + sum over N - 1 negatives j of f_k(j, t)) )   (equation 4)
//!     L = mean over k and t of L_k, and I(x_{t+k}; c_t) >= log N - L_k          (section 2.3)
//!
//! regression instead:
//!     L = mean over t of |g(c_t) - x_{t+1}|^2 / values of a patch     in the space of the data
//! ```
//!
//! Where this departs from the paper:
//! 1. The encoder is the run's, of patches by two layers and a GRU, for short series; the paper's is of strided
//!    convolutions over raw audio. Patches are disjoint, so that no z holds a part of a patch that it is to predict.
//! 2. A positive is never drawn as its own negative. The authors' later code may draw it, harmless among 128 negatives
//!    and harmful among 4.
//! 3. Features are the mean of c over a series, for series that are classified as a whole; the paper probes each c_t.
//! 4. Series may differ in length: patches with padding are neither contexts, positives nor negatives, and a series of
//!    fewer than K + 1 patches is not asked to predict.
//! 5. The regression of the next patch is no part of the paper; it is what CPC is held against.

use anyhow::{Result, bail, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::Plain;
use selfsup_core::check::at_least_one;
use selfsup_core::encoder::{Encoder, EncoderConfig, Recurrent};
use selfsup_core::layer::Linear;
use selfsup_core::loss::cross_entropy;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::progress::Progress;
use selfsup_core::store::{Init, Role, assign};
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

pub mod linear;
pub mod negatives;
use negatives::{Places, Source};

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Which of several z is the one k steps ahead.
    Cpc,
    /// The values of the next patch.
    Regression,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub objective: Objective,
    /// K, how many patches ahead (section 3.1; table 2: 12 is best). Regression: the next one alone.
    pub steps: i64,
    /// N - 1, negatives of each positive (the authors' later code).
    pub negatives: i64,
    /// Where they come from (table 2; `both` is its row "mixed speaker").
    pub negatives_from: Source,
    /// Patches that the linear model sees, against which a regression is held.
    pub order: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config { objective: Objective::Cpc, steps: 12, negatives: 128, negatives_from: Source::Both, order: 4 }
    }
}

pub struct NextStep {
    config: Config,
    encoder: Recurrent,
    head: Head,
}

enum Head {
    /// W_1 .. W_K.
    Cpc(Vec<Linear>),
    /// g, and the coefficients of the linear model.
    Regression(Linear, Tensor),
}

impl Method for NextStep {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let (patches, whole) = self.encoder.patches(&batch.views[0].x); // [B, L, F], [B, L]
        let z = self.encoder.embed(&patches); // [B, L, D]
        let c = self.encoder.context(&z);
        match &self.head {
            Head::Cpc(w) => {
                let found = self.contrast(w, batch, &z, &c, &whole);
                Loss::new(found.loss).with("accuracy", found.accuracy).with("bound", found.bound)
            }
            Head::Regression(g, _) => Loss::new(next_mse(&g.forward(&c), &patches, &whole)),
        }
    }

    /// None but the part that is taken of a longer series.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }

    /// The linear model is fitted once, before the first step.
    fn before_epoch(&mut self, at: Progress, series: &Plain) -> Result<Vec<String>> {
        if let (0, Head::Regression(_, coefficients)) = (at.epoch, &self.head) {
            assign(coefficients, &linear::fit(series, self.config.order, |x| self.encoder.patches(x))?);
        }
        Ok(Vec::new())
    }

    /// CPC: how often the positive has the best score, and how many nats of mutual information that certifies.
    /// Regression: the error beside those of a linear model and of the last value repeated.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let (patches, whole) = self.encoder.patches(&batch.views[0].x);
        let z = self.encoder.embed(&patches);
        let c = self.encoder.context(&z);
        match &self.head {
            // A single series has no other to take negatives from.
            Head::Cpc(_) if batch.len() < Self::MIN_BATCH => Vec::new(),
            Head::Cpc(w) => {
                let found = self.contrast(w, batch, &z, &c, &whole);
                vec![("loss", found.loss), ("accuracy", found.accuracy), ("bound", found.bound)]
            }
            Head::Regression(g, coefficients) => {
                let mse = |p: &Tensor| next_mse(p, &patches, &whole);
                vec![
                    ("mse", mse(&g.forward(&c))),
                    ("ar_mse", mse(&linear::forecast(&patches, coefficients))),
                    ("persistence_mse", mse(&persistence(&patches, self.encoder.patch()))),
                ]
            }
        }
    }
}

impl NextStep {
    fn contrast(&self, w: &[Linear], batch: &Batch, z: &Tensor, c: &Tensor, whole: &Tensor) -> Contrast {
        let places = Places::new(whole, w.len() as i64);
        let u = places.uniform(batch, self.config.negatives);
        contrast(&self.scores(w, &places, &u, z, c))
    }

    /// For each k the logits of the positive, first, and of its negatives: [R, N].
    /// `u` [R, N - 1] chooses the negatives.
    fn scores(&self, w: &[Linear], places: &Places, u: &Tensor, z: &Tensor, c: &Tensor) -> Vec<Tensor> {
        let (z, c) = (z.flatten(0, 1), c.flatten(0, 1).index_select(0, &places.contexts)); // [B L, D], [R, D]
        let one = |(w, k): (&Linear, i64)| {
            let negatives = places.negatives(self.config.negatives_from, k, u);
            let at = Tensor::cat(&[places.positives(k).unsqueeze(1), negatives], 1);
            w.forward(&c).matmul(&z.tr()).gather(1, &at, false)
        };
        w.iter().zip(1..).map(one).collect()
    }
}

/// What CPC's logits come to, means over k and t.
pub struct Contrast {
    pub loss: Tensor,
    /// How often the positive has a better score than every negative.
    pub accuracy: Tensor,
    /// log N - L, in nats: at least so much do c_t and x_{t+k} have in common.
    pub bound: Tensor,
}

/// Equation 4 for each k, from logits [R, N] whose first column is the positive's.
pub fn contrast(logits: &[Tensor]) -> Contrast {
    let logits = Tensor::stack(logits, 0); // [K, R, N]
    let n = logits.size()[2];
    let logits = logits.view([-1, n]);
    let rows = logits.size()[0];
    // No series of the batch is long enough to be asked: nothing to learn from it.
    let loss = match rows {
        0 => logits.sum(None),
        _ => cross_entropy(&logits, &Tensor::zeros([rows], (Kind::Int64, logits.device()))),
    };
    let best = logits.narrow(1, 1, n - 1).amax([1i64].as_slice(), false);
    let right = logits.select(1, 0).gt_tensor(&best).to_kind(Kind::Float);
    Contrast { accuracy: right.sum(None) / rows.max(1), bound: (n as f64).ln() - loss.detach(), loss }
}

/// The mean squared error of predictions p [B, L, F] made at t for the patch at t + 1, where that holds no padding.
pub fn next_mse(p: &Tensor, patches: &Tensor, whole: &Tensor) -> Tensor {
    let l = patches.size()[1] - 1;
    let error = (p.narrow(1, 0, l) - patches.narrow(1, 1, l)).square();
    let error = error.mean_dim([-1].as_slice(), false, None); // [B, L - 1]
    let weight = whole.narrow(1, 1, l).to_kind(Kind::Float);
    (error * &weight).sum(None) / weight.sum(None).clamp_min(1.0)
}

/// The forecast that nothing changes: each channel's last value of patches [B, L, C patch], repeated.
fn persistence(patches: &Tensor, patch: i64) -> Tensor {
    let (b, l, f) = patches.size3().expect("patches are [B, L, F]");
    let last = patches.view([b, l, f / patch, patch]).narrow(3, patch - 1, 1);
    last.expand([b, l, f / patch, patch], false).reshape([b, l, f])
}

impl Define for NextStep {
    const NAME: &'static str = "next-step";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "van den Oord, Li and Vinyals, Representation Learning with Contrastive Predictive \
                                 Coding, 2018, https://arxiv.org/abs/1807.03748";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        at_least_one("steps", config.steps)?;
        at_least_one("negatives", config.negatives)?;
        at_least_one("order", config.order)
    }

    fn new(config: Config, setup: &Setup) -> Result<NextStep> {
        let series = setup.series()?;
        let EncoderConfig::Recurrent { width, patch } = setup.encoder else {
            bail!("next-step needs a GRU, but the encoder is {}: choose one, such as encoder=gru-64/2", setup.encoder);
        };
        let encoder = Recurrent::new(&(&setup.path / "encoder"), series, width, patch)?;
        let head = match config.objective {
            Objective::Cpc => {
                let l = series.length / patch;
                ensure!(
                    l > config.steps,
                    "next-step: a series of {} steps has {l} patches of {patch}, too few to predict {} ahead: choose \
                     fewer method.steps or a smaller patch",
                    series.length,
                    config.steps
                );
                let layer = |k| Linear::new(&(&setup.path / "predictors" / k), width, width, false);
                Head::Cpc((1..=config.steps).map(layer).collect())
            }
            Objective::Regression => {
                let values = series.channels * patch;
                let shape = [config.order * values + 1, values];
                let coefficients = setup.path.variable("linear.coefficients", &shape, Role::Buffer, Init::Const(0.0));
                Head::Regression(Linear::new(&(&setup.path / "head"), width, values, true), coefficients)
            }
        };
        Ok(NextStep { config, encoder, head })
    }
}

#[cfg(test)]
mod tests;
