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
//!     L = mean over t of |g(c_t) - x_{t+1}|^2 / values of a patch     in the space of the data; with `residual` plus
//!                                                                     the last value of x_t
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
use selfsup_core::group::{gather, share};
use selfsup_core::layer::Linear;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::progress::Progress;
use selfsup_core::store::{Init, Role, assign};
use selfsup_core::{Tensor, no_grad};

mod config;
pub mod contrast;
pub mod forecast;
pub mod linear;
pub mod negatives;
mod pictures;
pub use config::{Config, Objective};
use contrast::{Contrast, mean, scores};
use forecast::{errors, persistence};
use negatives::Places;

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
        let x = self.read(&batch.views[0].x, true);
        match &self.head {
            Head::Cpc(w) => {
                let Contrast { loss, right, bound } = self.contrast(w, batch, &x.of_all());
                Loss::new(mean(&loss)).with("accuracy", mean(&right)).with("bound", mean(&bound))
            }
            Head::Regression(g, _) => {
                let errors = errors(&self.forecast(g, &x), &x.patches, &x.whole);
                Loss::new(share(&mean(&errors), || errors.numel() as i64))
            }
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
    /// Regression: the error beside those of a linear model and of the last value repeated. Of every prediction of the
    /// batch an entry, so that longer series count for more.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = self.read(&batch.views[0].x, false);
        let scores = match &self.head {
            Head::Cpc(w) => {
                let Contrast { loss, right, bound } = self.contrast(w, batch, &x);
                vec![("loss", loss), ("accuracy", right), ("bound", bound)]
            }
            Head::Regression(g, coefficients) => {
                let mse = |p: Tensor| errors(&p, &x.patches, &x.whole);
                vec![
                    ("mse", mse(self.forecast(g, &x))),
                    ("ar_mse", mse(linear::forecast(&x.patches, coefficients))),
                    ("persistence_mse", mse(persistence(&x.patches, self.encoder.patch()))),
                ]
            }
        };
        // Where no series is long enough to be asked, nothing was measured.
        scores.into_iter().filter(|(_, entries)| entries.numel() > 0).collect()
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        no_grad(|| self.drawn(batch))
    }
}

/// What the network makes of series: patches [B, L, F], which of them hold no padding [B, L], z and c [B, L, D].
struct Read {
    patches: Tensor,
    whole: Tensor,
    z: Tensor,
    c: Tensor,
}

impl Read {
    /// What all ranks read, of whose patches negatives are drawn.
    fn of_all(&self) -> Read {
        let [patches, whole, z, c] = [&self.patches, &self.whole, &self.z, &self.c].map(gather);
        Read { patches, whole, z, c }
    }
}

impl NextStep {
    fn read(&self, x: &Tensor, train: bool) -> Read {
        let (patches, whole) = self.encoder.patches(x);
        let z = self.encoder.embed(&patches);
        Read { c: self.encoder.context(&z, train), patches, whole, z }
    }

    /// Of the next patch from each t, [B, L, F].
    fn forecast(&self, g: &Linear, x: &Read) -> Tensor {
        let p = g.forward(&x.c);
        if self.config.residual { p + persistence(&x.patches, self.encoder.patch()) } else { p }
    }

    fn contrast(&self, w: &[Linear], batch: &Batch, x: &Read) -> Contrast {
        let places = Places::new(&x.whole, w.len() as i64, self.config.negatives_from);
        let u = places.uniform(batch, self.config.negatives);
        Contrast::of(&scores(w, &places, &u, x))
    }
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
