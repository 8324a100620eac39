//! Clustering of features, and how alike two clusterings are.

use crate::group;
use crate::rng::Rng;
use anyhow::{Result, ensure};
use tch::{Kind, Tensor, no_grad};

/// What is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Small distance; a centroid is the mean of its members.
    Euclidean,
    /// Large inner product; a centroid is the mean of its members, made a unit vector (spherical k-means).
    Cosine,
}

/// What becomes of a cluster without members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// A large cluster is split in two (DeepCluster).
    Split,
    /// Its centroid stays where it is (DeepCluster-v2).
    Keep,
}

/// Lloyd's k-means.
#[derive(Clone, Copy, Debug)]
pub struct KMeans {
    pub k: i64,
    pub iterations: usize,
    pub metric: Metric,
    pub empty: Empty,
}

/// A clustering of n rows into k clusters.
pub struct Clusters {
    /// [k, D].
    pub centroids: Tensor,
    /// The cluster of each row, `[n]` i64.
    pub assignment: Tensor,
}

impl KMeans {
    /// Clusters the rows of `x`, [n, D] f32, starting from k of them drawn with `rng`. Where there are several ranks all give
    /// the same rows, and each finds the nearest centroids of a share of them.
    ///
    /// # Errors
    /// If there are fewer rows than clusters; or if a process cannot be reached.
    pub fn fit(&self, x: &Tensor, rng: &mut Rng) -> Result<Clusters> {
        let n = x.size()[0];
        ensure!(
            0 < self.k && self.k <= n,
            "{n} images cannot be put into {} clusters; expected from 1 to as many clusters as images",
            self.k
        );
        no_grad(|| {
            let first: Vec<i64> = rng.permutation(n as usize)[..self.k as usize].iter().map(|&i| i as i64).collect();
            let mut centroids = x.index_select(0, &Tensor::from_slice(&first).to_device(x.device()));
            for _ in 0..self.iterations {
                centroids = self.update(x, &self.assign(x, &centroids)?, &centroids, rng);
            }
            let assignment = self.assign(x, &centroids)?;
            Ok(Clusters { centroids, assignment })
        })
    }

    /// [`nearest`], each row by one rank.
    fn assign(&self, x: &Tensor, centroids: &Tensor) -> Result<Tensor> {
        let parts = x.split(PART, 0);
        group::in_shares(parts.len(), |i| Ok(nearest(&parts[i], centroids, self.metric)))
    }

    /// The centroids of an assignment; `old` are those before it.
    fn update(&self, x: &Tensor, assignment: &Tensor, old: &Tensor, rng: &mut Rng) -> Tensor {
        let counts = sizes(assignment, self.k);
        let sums = old.zeros_like().index_add_(0, assignment, x);
        let filled = counts.gt(0).unsqueeze(-1);
        let means = (sums / counts.clamp_min(1).unsqueeze(-1)).where_self(&filled, old);
        let centroids = match self.metric {
            Metric::Euclidean => means,
            Metric::Cosine => crate::tensor::normalise(&means),
        };
        if self.empty == Empty::Split {
            split(&centroids, &counts, rng);
        }
        centroids
    }
}

/// Rows that stay in a core's cache until their largest products are found.
const PART: i64 = 1024;

/// The place of the nearest centroid of each row: [n, D], [k, D] -> `[n]` i64.
pub fn nearest(x: &Tensor, centroids: &Tensor, metric: Metric) -> Tensor {
    // |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2), of which |x|^2 decides nothing.
    let offset = match metric {
        Metric::Euclidean => centroids.square().sum_dim_intlist([-1].as_slice(), false, None) * 0.5,
        Metric::Cosine => Tensor::zeros([centroids.size()[0]], (centroids.kind(), centroids.device())),
    };
    let parts: Vec<Tensor> =
        x.split(PART, 0).iter().map(|x| (x.matmul(&centroids.tr()) - &offset).argmax(-1, false)).collect();
    Tensor::cat(&parts, 0)
}

/// Members of each of k clusters, `[k]` i64.
pub fn sizes(assignment: &Tensor, k: i64) -> Tensor {
    assignment.bincount(None::<&Tensor>, k)
}

/// Gives every empty cluster half of another, drawn by its size: both take its centroid, a little apart.
fn split(centroids: &Tensor, counts: &Tensor, rng: &mut Rng) {
    const APART: f64 = 1.0 / 1024.0;
    let mut counts: Vec<i64> = Vec::try_from(counts).expect("counts are whole numbers");
    for empty in 0..counts.len() {
        if counts[empty] > 0 {
            continue;
        }
        let spare: i64 = counts.iter().map(|c| (c - 1).max(0)).sum();
        if spare == 0 {
            return; // as many clusters as members: there is nothing to split
        }
        let mut place = rng.below(spare as usize) as i64;
        let full = counts
            .iter()
            .position(|c| {
                place -= (c - 1).max(0);
                place < 0
            })
            .expect("the place lies below the sum");
        let signs = Tensor::arange(centroids.size()[1], (Kind::Float, centroids.device())).remainder(2.0) * 2.0 - 1.0;
        let (mut from, mut to) = (centroids.get(full as i64), centroids.get(empty as i64));
        to.copy_(&(&from * (1.0 + &signs * APART)));
        let moved = &from * (1.0 - &signs * APART);
        from.copy_(&moved);
        counts[empty] = counts[full] / 2;
        counts[full] -= counts[empty];
    }
}

/// Normalised mutual information of two clusterings of the same things, I(a; b) / sqrt(H(a) H(b)), from 0 to 1
/// (DeepCluster, section 4.1). Two clusterings that both put everything into one cluster are alike: 1.
///
/// # Panics
/// If their lengths differ.
pub fn nmi(a: &[i64], b: &[i64]) -> f64 {
    use std::collections::BTreeMap;
    assert_eq!(a.len(), b.len(), "two clusterings of the same things are equally long");
    let n = a.len() as f64;
    let (mut of_a, mut of_b, mut joint) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (&a, &b) in a.iter().zip(b) {
        *of_a.entry(a).or_insert(0.0) += 1.0 / n;
        *of_b.entry(b).or_insert(0.0) += 1.0 / n;
        *joint.entry((a, b)).or_insert(0.0) += 1.0 / n;
    }
    let entropy = |p: &BTreeMap<i64, f64>| -p.values().map(|p: &f64| p * p.ln()).sum::<f64>();
    let (h_a, h_b) = (entropy(&of_a), entropy(&of_b));
    if of_a.len() == 1 && of_b.len() == 1 {
        return 1.0;
    }
    if of_a.len() == 1 || of_b.len() == 1 {
        return 0.0;
    }
    let information: f64 = joint.iter().map(|((a, b), p): (_, &f64)| p * (p / (of_a[a] * of_b[b])).ln()).sum();
    (information / (h_a * h_b).sqrt()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use tch::Device;

    fn rng() -> Rng {
        Rng::new(0, Purpose::Cluster, 0, 0, 0)
    }

    /// `each` points around each of `k` corners, far apart against their spread.
    fn blobs(k: i64, each: i64) -> (Tensor, Vec<i64>) {
        let mut rng = Rng::new(1, Purpose::Sample, 0, 0, 0);
        let labels: Vec<i64> = (0..k * each).map(|i| i % k).collect();
        let values: Vec<f32> = labels
            .iter()
            .flat_map(|&label| (0..k).map(move |d| if d == label { 10.0 } else { 0.0 }))
            .map(|x: f32| x + 0.1 * rng.normal() as f32)
            .collect();
        (Tensor::from_slice(&values).view([k * each, k]), labels)
    }

    /// Normal numbers, [n, d].
    fn normal(n: i64, d: i64) -> Tensor {
        let mut rng = Rng::new(2, Purpose::Sample, 0, 0, 0);
        Tensor::from_slice(&(0..n * d).map(|_| rng.normal() as f32).collect::<Vec<f32>>()).view([n, d])
    }

    /// Lloyd's iteration parts two far blobs from any start, and more of them from one that has a row of each: with
    /// another start it may merge two and split a third.
    #[test]
    fn far_apart_blobs_are_found() {
        let each = 40;
        let start = |seed| Rng::new(seed, Purpose::Cluster, 0, 0, 0);
        for k in [2, 4] {
            let (x, labels) = blobs(k, each);
            let has_all = |seed: &u64| {
                let first = &start(*seed).permutation((k * each) as usize)[..k as usize];
                (0..k).all(|label| k == 2 || first.iter().any(|&row| labels[row] == label))
            };
            let seeds: Vec<u64> = (0..100).filter(has_all).take(10).collect();
            assert!(seeds.len() >= 5, "{seeds:?}");
            for (seed, metric) in seeds.into_iter().flat_map(|s| [(s, Metric::Euclidean), (s, Metric::Cosine)]) {
                let kmeans = KMeans { k, iterations: 30, metric, empty: Empty::Split };
                let found = kmeans.fit(&x, &mut start(seed)).expect("found").assignment;
                let found: Vec<i64> = Vec::try_from(&found).expect("numbers");
                // Logarithms of f64 shares.
                assert!((nmi(&found, &labels) - 1.0).abs() < 1e-12, "{k} {metric:?} {seed}: {}", nmi(&found, &labels));
            }
        }
    }

    #[test]
    fn the_objective_never_rises() {
        let (x, _) = blobs(5, 30);
        let x = x + normal(150, 5) * 4.0;
        let cost = |iterations| {
            let kmeans = KMeans { k: 8, iterations, metric: Metric::Euclidean, empty: Empty::Keep };
            let found = kmeans.fit(&x, &mut rng()).expect("found");
            (&x - found.centroids.index_select(0, &found.assignment)).square().sum(Kind::Double).double_value(&[])
        };
        let costs: Vec<f64> = (0..8).map(cost).collect();
        // f32 sums of 150 terms.
        assert!(costs.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-5)), "{costs:?}");
    }

    #[test]
    fn spherical_centroids_are_unit_vectors() {
        let (x, _) = blobs(4, 20);
        let kmeans = KMeans { k: 4, iterations: 5, metric: Metric::Cosine, empty: Empty::Keep };
        let centroids = kmeans.fit(&x, &mut rng()).expect("found").centroids;
        let norms = centroids.norm_scalaropt_dim(2.0, [1].as_slice(), false);
        assert!((norms - 1.0).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn splitting_leaves_no_cluster_empty_where_points_differ() {
        // Two tight groups and ten clusters: without splitting most start in one group and some stay empty.
        let near = normal(100, 3) * 1e-2;
        let x = Tensor::cat(&[&near, &(&near + 100.0)], 0);
        let kmeans = KMeans { k: 10, iterations: 30, metric: Metric::Euclidean, empty: Empty::Split };
        let found = kmeans.fit(&x, &mut rng()).expect("found");
        assert!(sizes(&found.assignment, 10).min().int64_value(&[]) > 0);
    }

    #[test]
    fn equal_points_and_many_clusters_end() {
        let x = Tensor::ones([6, 2], (Kind::Float, Device::Cpu));
        let found = KMeans { k: 6, iterations: 4, metric: Metric::Euclidean, empty: Empty::Split }.fit(&x, &mut rng());
        assert!(found.expect("found").centroids.isfinite().all().int64_value(&[]) == 1);
        let error = KMeans { k: 7, iterations: 1, metric: Metric::Euclidean, empty: Empty::Split }.fit(&x, &mut rng());
        assert!(error.err().expect("too many").to_string().contains("6 images cannot be put into 7 clusters"));
    }

    #[test]
    fn mutual_information_is_that_of_names_not_of_numbers() {
        let a = [0, 0, 1, 1, 2, 2];
        let renamed = [7, 7, 3, 3, 5, 5];
        assert!((nmi(&a, &a) - 1.0).abs() < 1e-12);
        assert!((nmi(&a, &renamed) - 1.0).abs() < 1e-12);
        assert!(nmi(&a, &[0, 1, 0, 1, 0, 1]) < 1e-12, "independent");
        assert_eq!(nmi(&a, &[0; 6]), 0.0);
        // a = (0, 0, 1, 1), b = (0, 0, 0, 1): I = H(b) - H(b|a) = 0.562335 - 0.346574, H(a) = ln 2.
        let expected =
            (0.562_335_144_618_808_f64 - 0.346_573_590_279_973) / (0.562_335_144_618_808_f64 * 2f64.ln()).sqrt();
        assert!((nmi(&[0, 0, 1, 1], &[0, 0, 0, 1]) - expected).abs() < 1e-9);
    }
}
