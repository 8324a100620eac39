//! A codebook: K vectors, of which the nearest stands for each place of a map (VQ-VAE, VQ-GAN).

use crate::augment::views::{Plain, plain};
use crate::check::{at_least_one, not_negative, share};
use crate::cluster::{Empty, KMeans, Metric, nearest, sizes};
use crate::group::{self, gather};
use crate::progress::Progress;
use crate::rng::{Purpose, Rng};
use crate::store::{Init, Path, Role, assign, unmoved};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// The numbers of a codebook, `[method.codebook]` of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodebookConfig {
    /// K.
    pub codes: i64,
    /// D.
    pub width: i64,
    pub update: Update,
    /// The weight of the past in the moving averages of a code's members.
    pub tau: f64,
    /// The weight of the commitment; 0: the encoder is not drawn to the codes.
    pub beta: f64,
    pub start: Start,
    /// A code with fewer members a step than this, on average, is moved to a place of the batch; 0: never.
    pub restart: f64,
}

impl Default for CodebookConfig {
    fn default() -> CodebookConfig {
        CodebookConfig {
            codes: 512,
            width: 64,
            update: Update::Ema,
            tau: 0.99,
            beta: 0.25,
            start: Start::Uniform,
            restart: 0.0,
        }
    }
}

/// What moves the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Update {
    /// Each is the moving average of its members.
    Ema,
    /// The optimiser, by |sg(z) - e|^2.
    Gradient,
}

/// Where the codes start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Uniform on +-1/K.
    Uniform,
    /// At places of the maps of training images.
    Data,
    /// At the centroids of such places.
    KMeans,
}

impl CodebookConfig {
    /// Refuses numbers that no codebook can have.
    ///
    /// # Errors
    /// Says which number, its value and what was expected.
    pub fn check(&self) -> Result<()> {
        at_least_one("codebook.codes", self.codes)?;
        at_least_one("codebook.width", self.width)?;
        share("codebook.tau", self.tau)?;
        not_negative("codebook.beta", self.beta)?;
        not_negative("codebook.restart", self.restart)
    }

    /// Whether anything but the optimiser moves a code.
    fn moves(&self) -> bool {
        self.update == Update::Ema || self.restart > 0.0
    }
}

/// The codes, and what their moving averages and restarts need.
pub struct Codebook {
    config: CodebookConfig,
    seed: u64,
    name: String,
    codes: Tensor,
    /// What moves codes; nothing where the optimiser alone does.
    state: Option<State>,
}

/// Buffers of a codebook besides its codes.
struct State {
    averages: Averages,
    /// Of the latest batch, as is `places`, to which a code may be moved, [K, D].
    seen: Averages,
    places: Tensor,
}

/// Members of each code, [K], and their sum, [K, D].
struct Averages {
    counts: Tensor,
    sums: Tensor,
}

/// A quantised map.
pub struct Quantised {
    /// The nearest codes [B, D, h, w]; the gradient goes through to the encoder as if they were its output.
    pub z: Tensor,
    /// Which codes, [B, h, w] i64.
    pub indices: Tensor,
    /// mean (z - sg(e))^2.
    pub commitment: Tensor,
    /// mean (sg(z) - e)^2: the same number with the other gradient.
    pub codebook: Tensor,
}

impl Codebook {
    /// Moving averages start with one member at each code. Averages that start at 0 throw unused codes away in the
    /// first step.
    pub fn new(path: &Path, config: &CodebookConfig) -> Codebook {
        let shape = [config.codes, config.width];
        let role = if config.update == Update::Ema { Role::Buffer } else { Role::NoDecay };
        let codes = path.variable("codes", &shape, role, Init::Uniform(1.0 / config.codes as f64));
        let zero = |name: &str, shape: &[i64]| path.variable(name, shape, Role::Buffer, Init::Const(0.0));
        let state = config.moves().then(|| State {
            averages: Averages {
                counts: path.variable("counts", &[config.codes], Role::Buffer, Init::Const(1.0)),
                sums: path.buffer("sums", &codes.detach()),
            },
            seen: Averages { counts: zero("batch_counts", &[config.codes]), sums: zero("batch_sums", &shape) },
            places: zero("batch_places", &shape),
        });
        Codebook { config: config.clone(), seed: path.seed(), name: path.name().into(), codes, state }
    }

    /// K.
    pub fn len(&self) -> i64 {
        self.config.codes
    }

    /// Whether there is no code: never.
    pub fn is_empty(&self) -> bool {
        self.config.codes == 0
    }

    /// [K, D].
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// Puts the codes, before the first step, where the configuration says; `map` [B, D, h, w] is what training will
    /// quantise, computed as in training. What it moves of `statistics`, the network's buffers, is put back. Gives the
    /// names of the trained variables that were set, as `Method::before_epoch` does.
    ///
    /// # Errors
    /// If an image cannot be read, or there are fewer places than codes.
    pub fn start(
        &self,
        at: Progress,
        images: &Plain,
        statistics: &[Tensor],
        map: impl Fn(&Tensor) -> Tensor,
    ) -> Result<Vec<String>> {
        // Parts of equal size, since batch norm makes of each what it makes of a batch.
        const IMAGES: usize = 512;
        const PARTS: usize = 4;
        if at.step > 0 || self.config.start == Start::Uniform {
            return Ok(Vec::new());
        }
        let mut rng = Rng::new(self.seed, Purpose::Cluster, 0, 0, 0);
        let mut chosen = rng.permutation(images.samples.len());
        chosen.truncate(IMAGES);
        let part = |index: &[usize]| {
            let x = plain(images.samples, index, images.size, images.normalisation)?.to_device(images.device);
            Ok(no_grad(|| rows(&map(&x))))
        };
        let parts: Result<Vec<Tensor>> =
            unmoved(statistics, || group::alone(|| chosen.chunks(chosen.len().div_ceil(PARTS)).map(part).collect()));
        let places = Tensor::cat(&parts?, 0);
        let n = places.size()[0];
        let k = self.config.codes;
        ensure!(
            n >= k,
            "codebook.codes is {k}, but {} images have {n} places to start them at; expected fewer codes, or \
             codebook.start = \"uniform\"",
            chosen.len()
        );
        let codes = if self.config.start == Start::KMeans {
            KMeans { k, iterations: 10, metric: Metric::Euclidean, empty: Empty::Split }
                .fit(&places, &mut rng)?
                .centroids
        } else {
            places.index_select(0, &choose(n, k, &mut rng).to_device(places.device()))
        };
        assign(&self.codes, &codes);
        if let Some(State { averages, .. }) = &self.state {
            assign(&averages.sums, &codes);
            assign(&averages.counts, &averages.counts.ones_like());
        }
        Ok(if self.config.update == Update::Gradient { vec![format!("{}.codes", self.name)] } else { Vec::new() })
    }

    /// The nearest code of each place: [B, D, h, w].
    pub fn quantise(&self, z: &Tensor) -> Quantised {
        let indices = self.encode(z);
        let e = self.decode(&indices);
        Quantised {
            commitment: (z - e.detach()).square().mean(None),
            codebook: (z.detach() - &e).square().mean(None),
            z: straight_through(z, &e),
            indices,
        }
    }

    /// What the codebook adds to the loss: `beta` commitment, and the codebook's own term where the optimiser moves it.
    pub fn objective(&self, q: &Quantised) -> Tensor {
        let commitment = &q.commitment * self.config.beta;
        if self.config.update == Update::Gradient { commitment + &q.codebook } else { commitment }
    }

    /// The place of the nearest code, the first of equally near ones: [B, D, h, w] -> [B, h, w] i64.
    pub fn encode(&self, z: &Tensor) -> Tensor {
        let (b, _, h, w) = z.size4().expect("maps are [B, D, h, w]");
        no_grad(|| nearest(&rows(&z.detach()), &self.codes, Metric::Euclidean).view([b, h, w]))
    }

    /// The codes themselves: [B, h, w] i64 -> [B, D, h, w].
    pub fn decode(&self, indices: &Tensor) -> Tensor {
        let mut shape = indices.size();
        shape.push(self.config.width);
        self.codes.index_select(0, &indices.flatten(0, -1)).view(shape.as_slice()).permute([0, 3, 1, 2])
    }

    /// Notes what a training batch shows, on all ranks, for [`Codebook::step`]; moves nothing yet.
    pub fn observe(&self, z: &Tensor, q: &Quantised, at: Progress) {
        let Some(State { seen, places, .. }) = &self.state else { return };
        no_grad(|| {
            let (rows, indices) = (gather(&rows(&z.detach())), gather(&q.indices.flatten(0, -1)));
            let mut rng = Rng::new(self.seed, Purpose::Cluster, at.epoch, at.step, 1);
            let chosen = choose(rows.size()[0], self.config.codes, &mut rng).to_device(rows.device());
            assign(&seen.counts, &sizes(&indices, self.config.codes));
            assign(&seen.sums, &seen.sums.zeros_like().index_add_(0, &indices, &rows));
            assign(places, &rows.index_select(0, &chosen));
        });
    }

    /// After an optimiser step: averages, codes, restarts.
    pub fn step(&self) {
        let Some(State { averages, seen, places }) = &self.state else { return };
        no_grad(|| {
            let new = average(averages, seen, self.config.tau);
            let codes = if self.config.update == Update::Ema { centres(&new) } else { self.codes.detach().copy() };
            let dead = new.counts.lt(self.config.restart);
            // A moved code starts with as many members as it must have to stay; without them the next average would
            // send it back.
            let members = self.config.restart.max(1.0);
            let column = dead.unsqueeze(-1);
            let codes = places.where_self(&column, &codes);
            assign(&self.codes, &codes);
            assign(&averages.counts, &new.counts.full_like(members).where_self(&dead, &new.counts));
            assign(&averages.sums, &(&codes * members).where_self(&column, &new.sums));
        });
    }
}

/// Channels last, one row a place: [B, D, h, w] -> [B h w, D].
fn rows(z: &Tensor) -> Tensor {
    z.permute([0, 2, 3, 1]).flatten(0, 2)
}

/// k of n places without repetition while there are any, then again from the first.
fn choose(n: i64, k: i64, rng: &mut Rng) -> Tensor {
    let order = rng.permutation(n as usize);
    let places: Vec<i64> = (0..k as usize).map(|i| order[i % order.len()] as i64).collect();
    Tensor::from_slice(&places)
}

/// e going forward, the gradient going to z.
pub fn straight_through(z: &Tensor, e: &Tensor) -> Tensor {
    z + (e - z).detach()
}

/// N <- tau N + (1 - tau) n and m <- tau m + (1 - tau) sum.
fn average(old: &Averages, new: &Averages, tau: f64) -> Averages {
    let blend = |old: &Tensor, new: &Tensor| old * tau + new * (1.0 - tau);
    Averages { counts: blend(&old.counts, &new.counts), sums: blend(&old.sums, &new.sums) }
}

/// m / N, with N smoothed over the codes: (N + eps) / (sum + K eps) sum.
fn centres(averages: &Averages) -> Tensor {
    const EPS: f64 = 1e-5;
    let Averages { counts, sums } = averages;
    let total = counts.sum(None);
    let smooth = (counts + EPS) / (&total + counts.size()[0] as f64 * EPS) * &total;
    sums / smooth.unsqueeze(-1)
}

/// exp of the entropy of how often each of K codes is used: from 1 to K. Of one rank's codes; those of a training batch
/// are gathered before.
pub fn perplexity(indices: &Tensor, codes: i64) -> Tensor {
    let p = sizes(&indices.flatten(0, -1), codes).to_kind(Kind::Float) / indices.numel() as f64;
    (-(&p * (&p + 1e-10).log()).sum(None)).exp()
}

#[cfg(test)]
mod tests;
