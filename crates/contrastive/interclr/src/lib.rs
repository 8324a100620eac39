//! InterCLR on MoCo v2: Xie, Zhan, Liu, Ong and Loy, "Delving into Inter-Image Invariance for Unsupervised Visual
//! Representations", 2020, <https://arxiv.org/abs/2008.11702>.
//!
//! ```text
//! query network f with weights theta; key network f_k with weights xi = theta at the start
//! queue Q of K keys; bank V of one key per image; pseudo-labels c of the images, from k-means of V
//! for a batch of images x_i:
//!     q_i = f(t(x_i)) / |..|,   k_i = sg(f_k(t'(x_i))) / |..|
//!     l(p, n; m) = -log( exp((q.p - m) / tau) / (exp((q.p - m) / tau) + sum_j exp(q.n_j / tau)) )
//!     L_intra = mean_i l(k_i, Q; 0)                                                            MoCo
//!     L_inter = mean_i l(V_j, V_S; m)        j drawn from c_j = c_i, S from c != c_i, the nearer part of V
//!     L = (1 - w) L_intra + w L_inter
//!     enqueue k;  V_i <- k_i;  c_i <- argmax_c k_i . C_c
//!     theta <- optimiser(theta, dL/dtheta);  xi <- a xi + (1 - a) theta
//!     every 10 steps: C_c <- mean of the rows of V with label c
//!     dissolve clusters that are too small, split the largest in their place
//! ```
//!
//! The margin m = -0.5 makes the pair of two images easier than that of two views: q.p + 0.5.
//!
//! Where this departs from the paper:
//! 1. The numbers are those of the authors' code (mmselfsup), which the paper names as its own.
//! 2. The devices are `groups`: the batch passes in G parts, those of the keys drawn from it in an order of their own.
//! 3. An image is never its own positive, unless it is alone in its cluster. The authors' code allows it.
//! 4. Negatives are drawn with replacement, from the nearest rows of another label. The authors' code draws without
//!    it from the nearest rows of all labels, and again where the label is the image's own.
//! 5. The rows that are clustered are the key network's, also where labels are made once per epoch. At the start both
//!    networks are equal.
//! 6. A part of a split that is too small itself is replaced by half of the cluster, and no cluster needs more than
//!    half of the mean size: a small data set can keep many clusters.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::Plain;
use selfsup_core::check::{above_zero, at_least_one, share};
use selfsup_core::ema::Ema;
use selfsup_core::group::gather;
use selfsup_core::head::{MlpStyle, Network};
use selfsup_core::loss::info_nce;
use selfsup_core::memory::Queue;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::rng::Purpose;
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor, no_grad};

mod clusters;
mod config;
use clusters::Clusters;
pub use config::{Config, Sampling};

pub struct InterClr {
    config: Config,
    query: Network,
    key: Network,
    averages: [Ema; 2],
    queue: Queue,
    clusters: Clusters,
}

impl Method for InterClr {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let Config { temperature: tau, weight: w, margin: m, negatives, groups, online, .. } = self.config;
        let (places, u) = (batch.places(), batch.uniform(Purpose::Mask, 2 + negatives as usize));
        let order = gather(&u.select(1, 1 + negatives)).argsort(0, false); // [N]: of the keys
        let q = normalise(&self.query.project_in_groups(&batch.views[0].x, groups)); // [N, D]
        let k = no_grad(|| normalise(&self.key.project_in_shuffled_groups(&batch.views[1].x, &order, groups)));

        let (positive, queue) = (dot(&q, &k), q.matmul(&self.queue.rows().tr())); // [N], [N, K]
        let intra = info_nce(&positive, &queue, tau);
        let accuracy = positive.gt_tensor(&queue.amax([-1].as_slice(), false)).to_kind(Kind::Float).mean(None);

        let s = q.matmul(&self.clusters.rows().tr()); // [N, n]
        let partner = self.clusters.partner(&places, &u.select(1, 0)).unsqueeze(-1); // [N, 1]
        let others = self.clusters.others(&s.detach(), &places, &u.narrow(1, 1, negatives), &self.config); // [N, M]
        let inter = inter_loss(&s.gather(1, &partner, false).squeeze_dim(-1), &s.gather(1, &others, false), m, tau);

        let (smallest, largest) = self.clusters.extremes();
        let (places, k) = (gather(&places), gather(&k)); // of all ranks
        self.queue.push(&k);
        let changed = self.clusters.write(&places, &k, online);
        Loss::new((1.0 - w) * &intra + w * &inter)
            .with("intra", intra)
            .with("inter", inter)
            .with("accuracy", accuracy)
            .with("smallest_cluster", smallest)
            .with("largest_cluster", largest)
            .with("changed", changed)
    }

    fn before_epoch(&mut self, at: Progress, images: &Plain) -> Result<Vec<String>> {
        if at.step == 0 || !self.config.online {
            let rows = images.map(|x| normalise(&self.key.project(x, false)))?; // [n, D]
            self.clusters.start(&rows, at.step)?;
        }
        Ok(Vec::new())
    }

    fn after_step(&mut self, at: Progress) {
        self.averages.iter().for_each(|average| average.update(self.config.tau));
        if self.config.online {
            self.clusters.maintain(at.step, (at.step + 1).is_multiple_of(self.config.update_every as u64));
        }
    }

    /// MoCo v2's.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::moco_v2(); 2]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.query.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.query.project(x, false))
    }
}

impl Define for InterClr {
    const NAME: &'static str = "interclr";
    const FAMILY: Family = Family::Contrastive;
    const PAPER: &'static str = "Xie, Zhan, Liu, Ong and Loy, Delving into Inter-Image Invariance for Unsupervised \
                                 Visual Representations, 2020, https://arxiv.org/abs/2008.11702";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let &Config { queue, hidden, output, clusters, negatives, nearest, update_every, min_size, groups, .. } =
            config;
        above_zero("temperature", config.temperature)?;
        share("tau", config.tau)?;
        share("weight", config.weight)?;
        ensure!(config.margin.is_finite(), "margin is {}; expected a number, such as -0.5", config.margin);
        ensure!(clusters >= 2, "clusters is {clusters}; expected at least 2: negatives come from another cluster");
        at_least_one("queue", queue)?;
        at_least_one("hidden", hidden)?;
        at_least_one("output", output)?;
        at_least_one("negatives", negatives)?;
        at_least_one("nearest", nearest)?;
        at_least_one("update_every", update_every)?;
        at_least_one("min_size", min_size)?;
        at_least_one("groups", groups)
    }

    fn new(config: Config, setup: &Setup) -> Result<InterClr> {
        setup.expect_views(2)?;
        let (k, n, path) = (config.clusters, setup.samples, &setup.path);
        ensure!(k <= n as i64, "clusters is {k}; expected at most {n}, the number of training images");
        let (widths, style) =
            ([config.hidden, config.output], MlpStyle { norm: false, hidden_bias: true, last_bias: true });
        let query = Network::new(path, setup, &widths, style)?;
        let key = Network::new(&(path / "key").frozen(), setup, &widths, style)?;
        let averages = Ema::of_network(path, "key")?; // sets xi = theta
        let queue = Queue::new(path, "queue", config.queue, config.output);
        let clusters = Clusters::new(path, n, config.output, k, config.min_size);
        Ok(InterClr { config, query, key, averages, queue, clusters })
    }

    const INPUTS: &'static [&'static str] = &["a", "b", "queue", "positive", "negatives"];

    /// The intra-image term of queries `a`, keys `b` and `queue`; with `positive` [N, D] and `negatives` [N M, D], M to
    /// each query in turn, the weighted sum of both. These three are unit rows of the memory and taken as they are.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        let (n, tau, w) = (a.size()[0], config.temperature, config.weight);
        let (q, k, queue) = (normalise(a), normalise(&b.detach()), given.rows_as_wide("queue", a)?);
        let intra = info_nce(&dot(&q, &k), &q.matmul(&queue.tr()), tau);
        if given.optional("positive").is_none() && given.optional("negatives").is_none() {
            return Ok(intra);
        }
        let positive = given.rows_as_wide("positive", a)?;
        let negatives = given.rows_as_wide("negatives", a)?;
        ensure!(positive.size() == a.size(), "`positive` has {} rows; expected {n}, as `a`", positive.size()[0]);
        let rows = negatives.size()[0];
        ensure!(rows % n == 0, "`negatives` has {rows} rows; expected as many for each of the {n} rows of `a`");
        let s = dot(&q.unsqueeze(1), &negatives.view([n, -1, a.size()[1]])); // [N, M]
        Ok((1.0 - w) * intra + w * inter_loss(&dot(&q, positive), &s, config.margin, tau))
    }
}

/// Inner products of rows.
fn dot(a: &Tensor, b: &Tensor) -> Tensor {
    (a * b).sum_dim_intlist([-1].as_slice(), false, None)
}

/// L_inter of the cosines of queries with their positives, `[N]`, and with their negatives, [N, M].
pub fn inter_loss(positive: &Tensor, negatives: &Tensor, margin: f64, temperature: f64) -> Tensor {
    info_nce(&(positive - margin), negatives, temperature)
}

#[cfg(test)]
mod tests;
