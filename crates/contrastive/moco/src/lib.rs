//! MoCo: He, Fan, Wu, Xie and Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", 2019,
//! <https://arxiv.org/abs/1911.05722>; v2: Chen, Fan, Girshick and He, "Improved Baselines with Momentum Contrastive
//! Learning", 2020, <https://arxiv.org/abs/2003.04297>.
//!
//! ```text
//! f_k <- f_q; a queue of K random keys                              (algorithm 1)
//! for a batch of N images x:
//!     q = f_q(aug(x))                                               queries, [N, C], unit rows
//!     k = f_k(aug(x))                                               keys, [N, C], unit rows, no gradient
//!     l_pos = q . k, l_neg = q queue'                               [N, 1], [N, K]
//!     L = cross_entropy([l_pos, l_neg] / t, 0)                      t: temperature
//!     theta_q <- optimiser(theta_q, dL/dtheta_q)
//!     theta_k <- m theta_k + (1 - m) theta_q                        m: `tau`
//!     enqueue(k), dequeue the oldest N
//! shuffled BatchNorm (section 3.3): every GPU normalises its own part of the batch, and the parts of the keys hold other
//! images than those of the queries; else f_q could tell its key by the statistics that both share
//! ```
//!
//! Where this departs from the paper:
//! 1. The GPUs are `groups`: on one device the batch passes through the networks in G parts one after the other. Running
//!    statistics move once for each part; on G GPUs each has its own, and those of the first are kept.
//! 2. The moving average is taken after the step, as in algorithm 1; the authors' code takes it before the keys of the
//!    next one. With f_k = f_q at the start both give the same keys. It covers weights; f_k's norms keep their own
//!    running statistics, from their own batches.
//! 3. Any K does; the authors' code needs a multiple of N. A part has two images at least, so a batch of less than 2G
//!    has fewer parts.
//! 4. `symmetric` is not in the paper, but in most programs since: each view is query once, the loss is the mean of both
//!    directions, and the keys of either view have a queue of their own, as in solo-learn.
//! 5. In a view the flip comes before colour, and v1's grey after jitter; the authors' code has the reverse.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::{above_zero, at_least_one, share};
use selfsup_core::ema::Ema;
use selfsup_core::group::gather;
use selfsup_core::head::{MlpStyle, Network, widths};
use selfsup_core::loss::{info_nce, info_nce_symmetric};
use selfsup_core::memory::Queue;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::{Progress, cosine};
use selfsup_core::rng::Purpose;
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor, no_grad};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// t, by which similarities are divided. 0.2 in v2 (table 2 there), 0.07 in v1 (section 3.3).
    pub temperature: f64,
    /// m, the share of itself that the key network keeps in a step (v1, section 3.3; varied in section 4.1).
    pub tau: f64,
    /// m at the end, reached along half a cosine. The papers' m is constant.
    pub tau_end: f64,
    /// K, the number of keys in the queue (v1, section 4.1 and figure 3).
    pub queue: i64,
    /// Whose augmentation (v2, table 1).
    pub views: Version,
    /// The head's hidden width (v2, section 3); 0 makes the head linear, as in v1.
    pub hidden: i64,
    /// The width of q and k (v1, section 3.3).
    pub output: i64,
    /// Both directions instead of one.
    pub symmetric: bool,
    /// Parts of the batch with BatchNorm statistics of their own: 8 GPUs (v1, section 4); 1: the batch as a whole.
    pub groups: i64,
    /// Whether the parts of the keys hold other images than those of the queries (v1, section 3.3 and appendix A.9).
    pub shuffle: bool,
}

/// Of the two papers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    V1,
    V2,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            temperature: 0.2,
            tau: 0.999,
            tau_end: 0.999,
            queue: 65536,
            views: Version::V2,
            hidden: 2048,
            output: 128,
            symmetric: false,
            groups: 8,
            shuffle: true,
        }
    }
}

pub struct MoCo {
    config: Config,
    query: Network,
    key: Network,
    averages: [Ema; 2],
    /// One, or one per direction.
    queues: Vec<Queue>,
}

impl Method for MoCo {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let orders = gather(&batch.uniform(Purpose::Mask, 2)).argsort(0, false); // [N, 2]: of each direction its own
        let directions = self.queues.iter().enumerate().map(|(i, queue)| {
            let (x_q, x_k) = (&batch.views[i].x, &batch.views[1 - i].x);
            let q = normalise(&self.query.project_in_groups(x_q, self.config.groups)); // [N, C]
            let k = no_grad(|| normalise(&self.keys(x_k, &orders.select(1, i as i64)))); // [N, C]
            let (l_pos, l_neg) = similarities(&q, &k, &queue.rows()); // [N], [N, K]
            queue.push(&gather(&k)); // after the queue was read: a key is no negative of its own query
            (l_pos, l_neg)
        });
        let directions: Vec<(Tensor, Tensor)> = directions.collect();
        let first = |(l_pos, l_neg): &(Tensor, Tensor)| l_pos.gt_tensor(&l_neg.amax([-1], false)).to_kind(Kind::Float);
        let accuracy = Tensor::cat(&directions.iter().map(first).collect::<Vec<_>>(), 0).mean(None);
        Loss::new(info_nce_symmetric(&directions, self.config.temperature)).with("accuracy", accuracy)
    }

    fn after_step(&mut self, at: Progress) {
        let tau = cosine(self.config.tau, self.config.tau_end, at.fraction());
        self.averages.iter().for_each(|average| average.update(tau));
    }

    /// The authors' code; v1's are stronger in hue and have no blur.
    fn views(&self) -> Vec<Recipe> {
        match self.config.views {
            Version::V1 => vec![Recipe::moco_v1(); 2],
            Version::V2 => vec![Recipe::moco_v2(); 2],
        }
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.query.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.query.project(x, false))
    }
}

impl Define for MoCo {
    const NAME: &'static str = "moco";
    const FAMILY: Family = Family::Contrastive;
    const PAPER: &'static str = "He, Fan, Wu, Xie and Girshick, Momentum Contrast for Unsupervised Visual \
                                 Representation Learning, 2019, https://arxiv.org/abs/1911.05722";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        above_zero("temperature", config.temperature)?;
        share("tau", config.tau)?;
        share("tau_end", config.tau_end)?;
        at_least_one("queue", config.queue)?;
        ensure!(config.hidden >= 0, "hidden is {}; expected a width, or 0 for a linear head", config.hidden);
        at_least_one("output", config.output)?;
        at_least_one("groups", config.groups)
    }

    fn new(config: Config, setup: &Setup) -> Result<MoCo> {
        setup.expect_views(2)?;
        let path = &setup.path;
        let Config { hidden, output, .. } = config;
        let widths = widths(if hidden > 0 { 2 } else { 1 }, hidden, output);
        let style = MlpStyle { norm: false, hidden_bias: true, last_bias: true };
        let query = Network::new(path, setup, &widths, style)?;
        let key = Network::new(&(path / "key").frozen(), setup, &widths, style)?;
        let averages = Ema::of_network(path, "key")?; // sets f_k = f_q
        let names = if config.symmetric { &["queue", "queue_swapped"][..] } else { &["queue"] };
        let queues = names.iter().map(|name| Queue::new(path, name, config.queue, config.output)).collect();
        Ok(MoCo { config, query, key, averages, queues })
    }

    const INPUTS: &'static [&'static str] = &["a", "b", "queue"];

    /// One direction, whatever `symmetric` says: `a` are queries and `b` their keys, which get no gradient. Rows of
    /// `queue` are taken as they are.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        let (l_pos, l_neg) = similarities(&normalise(a), &normalise(&b.detach()), given.rows_as_wide("queue", a)?);
        Ok(info_nce(&l_pos, &l_neg, config.temperature))
    }
}

impl MoCo {
    /// f_k(x), its parts drawn from the batch in `order`, a permutation [N]; rows come back in the order of `x`.
    fn keys(&self, x: &Tensor, order: &Tensor) -> Tensor {
        let groups = self.config.groups;
        if self.config.shuffle {
            self.key.project_in_shuffled_groups(x, order, groups)
        } else {
            self.key.project_in_groups(x, groups)
        }
    }
}

/// q . k and q queue' of unit rows, [N, C], [N, C], [K, C] -> [N], [N, K].
fn similarities(q: &Tensor, k: &Tensor, queue: &Tensor) -> (Tensor, Tensor) {
    ((q * k).sum_dim_intlist([-1].as_slice(), false, None), q.matmul(&queue.tr()))
}

#[cfg(test)]
mod tests;
