//! The bank of keys, the images' pseudo-labels and the centroids: what InterCLR remembers of the training set.

use crate::{Config, Sampling};
use anyhow::Result;
use selfsup_core::cluster::{Empty, KMeans, Metric, nearest, sizes};
use selfsup_core::group;
use selfsup_core::memory::Bank;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Path, assign};
use selfsup_core::{Kind, Tensor, no_grad};

/// Iterations of k-means, as in the authors' code.
const ITERATIONS: usize = 20;

pub(crate) struct Clusters {
    /// One unit row per image.
    bank: Bank,
    /// The cluster of each image, [n] i64.
    labels: Tensor,
    /// Means of the members' rows, not normalised, [k, D].
    centroids: Tensor,
    /// The fewest images of a cluster.
    least: i64,
    seed: u64,
}

impl Clusters {
    pub(crate) fn new(path: &Path, samples: usize, dim: i64, k: i64, min_size: i64) -> Clusters {
        let n = samples as i64;
        let labels = Tensor::arange(n, (Kind::Int64, path.device())).remainder(k);
        Clusters {
            bank: Bank::new(path, "bank", samples, dim),
            labels: path.buffer("labels", &labels),
            centroids: path.buffer("centroids", &Tensor::zeros([k, dim], (Kind::Float, path.device()))),
            // With at most half of the mean size, the largest cluster can always be cut in two that are large enough.
            least: min_size.min(n / (2 * k)).max(1),
            seed: path.seed(),
        }
    }

    /// The bank, [n, D]; a copy.
    pub(crate) fn rows(&self) -> Tensor {
        self.bank.rows()
    }

    fn k(&self) -> i64 {
        self.centroids.size()[0]
    }

    fn sizes(&self) -> Tensor {
        sizes(&self.labels, self.k())
    }

    /// The sizes of the smallest and of the largest cluster.
    pub(crate) fn extremes(&self) -> (Tensor, Tensor) {
        let sizes = self.sizes().to_kind(Kind::Float);
        (sizes.min(), sizes.max())
    }

    /// All images ordered by label, and where each label begins: [n], [k].
    fn by_label(&self) -> (Tensor, Tensor) {
        let sizes = self.sizes();
        (self.labels.argsort_stable(true, 0, false), sizes.cumsum(0, Kind::Int64) - sizes)
    }

    /// For each image of `places` [N] another one of its label, [N], chosen by `u` [N] in [0, 1]; itself if it is alone.
    pub(crate) fn partner(&self, places: &Tensor, u: &Tensor) -> Tensor {
        let (order, start) = self.by_label();
        let rank = order.argsort(0, false).index_select(0, places); // where the image itself stands in the order
        let label = self.labels.index_select(0, places);
        let (start, size) = (start.index_select(0, &label), self.sizes().index_select(0, &label));
        // 1 to size - 1 places further, around the end of its label.
        let further = (pick(u, &(&size - 1)) + 1).remainder_tensor(&size);
        order.index_select(0, &(&start + (rank - &start + further).remainder_tensor(&size)))
    }

    /// For each image of `places` [N] images of other labels, [N, M], chosen by the similarities of its query to the
    /// bank, `s` [N, n], and by `u` [N, M] in [0, 1].
    pub(crate) fn others(&self, s: &Tensor, places: &Tensor, u: &Tensor, config: &Config) -> Tensor {
        let label = self.labels.index_select(0, places).unsqueeze(-1); // [N, 1]
        let sizes = self.sizes();
        // So many have another label, whichever the image's label is.
        let most = (self.labels.size()[0] - sizes.max().int64_value(&[])).max(1);
        let foremost = |count: i64| {
            let own = self.labels.unsqueeze(0).eq_tensor(&label); // [N, n]
            s.masked_fill(&own, f64::NEG_INFINITY).topk(count.min(most), 1, true, false).1
        };
        match config.sampling {
            Sampling::Hard => foremost(config.negatives),
            Sampling::SemiHard => {
                let pool = foremost(config.nearest);
                pool.gather(1, &pick(u, &Tensor::from(pool.size()[1]).to_device(u.device())), false)
            }
            Sampling::Random => {
                let (order, start) = self.by_label();
                let own = sizes.take(&label); // [N, 1]
                let place = pick(u, &(self.labels.size()[0] - &own)); // [N, M], of those without the own label
                let behind = place.ge_tensor(&start.take(&label)).to_kind(Kind::Int64);
                order.take(&(place + behind * own))
            }
        }
    }

    /// Writes the keys `k` [N, D] of `places` into the bank and, if `relabel`, gives the images the labels of the nearest
    /// centroids. Gives the share whose label changed.
    pub(crate) fn write(&self, places: &Tensor, k: &Tensor, relabel: bool) -> Tensor {
        no_grad(|| {
            self.bank.update(places, k, 0.0);
            let old = self.labels.index_select(0, places);
            if !relabel {
                return Tensor::zeros([], (Kind::Float, old.device()));
            }
            let new = nearest(&self.bank.at(places), &self.centroids, Metric::Cosine); // by inner product
            let _ = self.labels.shallow_clone().index_copy_(0, places, &new);
            new.ne_tensor(&old).to_kind(Kind::Float).mean(Kind::Float)
        })
    }

    /// Labels from k-means of `rows` [n, D]; at the first step they become the bank.
    ///
    /// # Errors
    /// If there are fewer rows than clusters.
    pub(crate) fn start(&self, rows: &Tensor, step: u64) -> Result<()> {
        let k_means = KMeans { k: self.k(), iterations: ITERATIONS, metric: Metric::Euclidean, empty: Empty::Split };
        let found = k_means.fit(rows, &mut self.rng(step, 0))?;
        if step == 0 {
            self.bank.set(rows);
        }
        assign(&self.labels, &found.assignment);
        self.maintain(step, true);
        Ok(())
    }

    /// After a step: the centroids become means of their members if `update`, and no cluster stays too small.
    pub(crate) fn maintain(&self, step: u64, update: bool) {
        no_grad(|| {
            if update {
                let sizes = self.sizes().unsqueeze(-1);
                let sums = self.centroids.zeros_like().index_add_(0, &self.labels, &self.bank.rows());
                let means = (sums / sizes.clamp_min(1)).where_self(&sizes.gt(0), &self.centroids);
                assign(&self.centroids, &means);
            }
            self.dissolve(step);
        });
    }

    /// Moves the images of clusters that are too small to the nearest other ones, and refills each with a part of what
    /// is then the largest.
    fn dissolve(&self, step: u64) {
        let small = self.sizes().lt(self.least);
        let empty: Vec<i64> = Vec::try_from(small.nonzero().squeeze_dim(-1)).expect("places are whole numbers");
        if empty.is_empty() {
            return;
        }
        let homeless = small.index_select(0, &self.labels).nonzero().squeeze_dim(-1);
        if homeless.numel() > 0 {
            let s = self.bank.at(&homeless).matmul(&self.centroids.tr());
            let target = s.masked_fill(&small, f64::NEG_INFINITY).argmax(-1, false);
            let _ = self.labels.shallow_clone().index_copy_(0, &homeless, &target);
        }
        for hole in empty {
            let largest = self.sizes().argmax(0, false).int64_value(&[]);
            let members = self.labels.eq(largest).nonzero().squeeze_dim(-1);
            let rows = self.bank.at(&members);
            let part = self.half(&rows, &mut self.rng(step, 1 + hole as u64));
            for (cluster, chosen) in [(largest, part.logical_not()), (hole, part)] {
                let chosen = chosen.nonzero().squeeze_dim(-1);
                let _ = self.labels.shallow_clone().index_fill_(0, &members.index_select(0, &chosen), cluster);
                let mean = rows.index_select(0, &chosen).mean_dim([0].as_slice(), false, None);
                assign(&self.centroids.get(cluster), &mean);
            }
        }
    }

    /// One part of `rows` [m, D] cut in two, as a mask [m]: by k-means, or in the middle between its two centroids where
    /// that leaves a part too small.
    fn half(&self, rows: &Tensor, rng: &mut Rng) -> Tensor {
        let k_means = KMeans { k: 2, iterations: ITERATIONS, metric: Metric::Euclidean, empty: Empty::Split };
        // Every rank by itself: what a step does with a bank is no place to tell that another is lost.
        let found = group::alone(|| k_means.fit(rows, rng));
        let found = found.expect("the largest cluster has two images: there are as many as clusters");
        if sizes(&found.assignment, 2).min().int64_value(&[]) >= self.least {
            return found.assignment.eq(1);
        }
        let along = rows.matmul(&(found.centroids.get(1) - found.centroids.get(0)));
        let rank = along.argsort_stable(true, 0, false).argsort(0, false);
        rank.ge(rows.size()[0] / 2)
    }

    fn rng(&self, step: u64, index: u64) -> Rng {
        Rng::new(self.seed, Purpose::Cluster, step, index, 0)
    }
}

/// `u` in [0, 1] as one of `count` whole numbers, 0 to count - 1. In f32 a number just below 1 can be 1.
fn pick(u: &Tensor, count: &Tensor) -> Tensor {
    (u * count).floor().to_kind(Kind::Int64).minimum(&(count - 1)).clamp_min(0)
}
