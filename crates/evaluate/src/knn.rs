//! The weighted nearest-neighbour classifier of instance discrimination (Wu et al. 2018, section 3.4).

use crate::features::{Features, check_pair, normalised};
use anyhow::{Result, ensure};
use selfsup_core::{Tensor, group, no_grad};
use serde::{Deserialize, Serialize};

/// Each of the `k` training images most similar to a test image (cosine s of the features) votes for its class with
/// weight exp(s / temperature).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knn {
    pub k: usize,
    pub temperature: f64,
}

impl Default for Knn {
    fn default() -> Knn {
        Knn { k: 20, temperature: 0.07 }
    }
}

/// Queries that are compared with the whole training set at once, which one of several ranks does.
const QUERIES: i64 = 512;
/// The most similarities held at once (256 MiB); a large training set gets fewer queries at a time.
const SIMILARITIES: i64 = 1 << 26;
/// Queries whose ties are resolved at once: this takes a few more tensors of their size.
const TIED: i64 = 128;

impl Knn {
    /// The share of test images whose class gets the most votes.
    ///
    /// # Errors
    /// If `k` or `temperature` cannot be used, or train and test do not belong together.
    pub fn accuracy(&self, train: &Features, test: &Features, classes: usize) -> Result<f64> {
        Ok(self.score(train, test, classes)?.0)
    }

    /// The same, and the class that each test image was given.
    ///
    /// # Errors
    /// As [`Knn::accuracy`].
    pub fn score(&self, train: &Features, test: &Features, classes: usize) -> Result<(f64, Vec<i64>)> {
        check_pair(train, test, classes)?;
        let predicted = self.predict(train, &test.x, classes)?;
        let right = predicted.iter().zip(test.label_values()?).filter(|(p, label)| **p == *label).count();
        Ok((right as f64 / test.len() as f64, predicted))
    }

    /// # Errors
    /// If a setting cannot be used.
    pub fn check(&self) -> Result<()> {
        ensure!(self.k >= 1, "kNN needs at least one neighbour: set k to 1 or more");
        ensure!(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "kNN needs a positive temperature, not {}",
            self.temperature
        );
        Ok(())
    }

    /// The class of each row of `queries` [M, D].
    ///
    /// Among equal similarities the earlier training image is the nearer one, among equal votes the lower class wins. Where
    /// there are several ranks all give the same features and queries, and each answers a share of these.
    ///
    /// # Errors
    /// If `k` or `temperature` cannot be used, a label is not below `classes`, or the dimensions differ; or if a process
    /// cannot be reached.
    pub fn predict(&self, train: &Features, queries: &Tensor, classes: usize) -> Result<Vec<i64>> {
        self.check()?;
        let n = train.len();
        ensure!(self.k <= n, "kNN asks for {} neighbours but there are only {n} training images: lower k", self.k);
        let size = queries.size();
        ensure!(
            size.len() == 2 && size[1] == train.dimensions() as i64,
            "kNN queries need the shape [images, {}], not {size:?}",
            train.dimensions()
        );
        train.check_classes(classes)?;
        let labels = train.label_values()?;
        no_grad(|| {
            let bank = normalised(&train.x).tr().contiguous(); // the product takes a fifth less time than with a view
            let queries = normalised(&queries.to_device(train.x.device()).to_kind(train.x.kind()));
            let block = (SIMILARITIES / n as i64).clamp(1, QUERIES).min(size[0].max(1));
            // One matrix for all blocks: fresh pages for each would cost more than the search.
            let scratch = Tensor::empty([block, n as i64], (train.x.kind(), train.x.device()));
            let blocks = queries.split(block, 0);
            let predicted = group::in_shares(blocks.len(), |i| {
                let similarity = scratch.narrow(0, 0, blocks[i].size()[0]);
                let similarity = blocks[i].mm_out(&similarity, &bank);
                let (values, indices) = self.nearest(&similarity);
                let values: Vec<f32> = Vec::try_from(values.contiguous().view([-1]))?;
                let indices: Vec<i64> = Vec::try_from(indices.contiguous().view([-1]))?;
                let near = values.chunks(self.k).zip(indices.chunks(self.k));
                let votes = near.map(|(values, indices)| self.vote(values, indices, &labels, classes));
                Ok(Tensor::from_slice(&votes.collect::<Vec<i64>>()))
            })?;
            Ok(Vec::try_from(predicted)?)
        })
    }

    /// The `k` training images most similar to each row of `queries` [M, D], nearest first: `[M][k]`. For few queries.
    ///
    /// # Errors
    /// If `k` is more than there are, or the dimensions differ.
    pub fn neighbours(&self, train: &Features, queries: &Tensor) -> Result<Vec<Vec<usize>>> {
        let (n, k) = (train.len(), self.k);
        ensure!((1..=n).contains(&k), "{k} neighbours were asked for, but there are {n} training images");
        no_grad(|| {
            let similarity = normalised(queries).f_mm(&normalised(&train.x).tr())?;
            let (_, order) = similarity.sort_stable(true, 1, true);
            let rows = Vec::<Vec<i64>>::try_from(order.narrow(1, 0, k as i64).contiguous())?;
            Ok(rows.into_iter().map(|row| row.into_iter().map(|i| i as usize).collect()).collect())
        })
    }

    /// The `k` largest of each row of `similarity` [M, N] and their columns, both [M, k].
    fn nearest(&self, similarity: &Tensor) -> (Tensor, Tensor) {
        let (k, n) = (self.k as i64, similarity.size()[1]);
        // One more than wanted shows whether the k-th is tied with one left out: which of them `topk` takes is its
        // own affair, so those rows are decided by the rule.
        let (values, indices) = similarity.topk((k + 1).min(n), 1, true, true);
        if k == n {
            return (values, indices);
        }
        let tied = values.select(1, k - 1).eq_tensor(&values.select(1, k)).nonzero().squeeze_dim(1);
        let (values, indices) = (values.narrow(1, 0, k).contiguous(), indices.narrow(1, 0, k).contiguous());
        for rows in tied.split(TIED, 0).iter().filter(|rows| rows.numel() > 0) {
            let similarity = similarity.index_select(0, rows);
            let last = values.index_select(0, rows).narrow(1, k - 1, 1);
            let above = similarity.gt_tensor(&last);
            let equal = similarity.eq_tensor(&last);
            let room = k - above.sum_dim_intlist([1i64].as_slice(), true, selfsup_core::Kind::Int);
            let first = equal.cumsum(1, selfsup_core::Kind::Int).le_tensor(&room);
            // Exactly k in each row, listed row by row.
            let columns = above.logical_or(&equal.logical_and(&first)).nonzero().select(1, 1).view([-1, k]);
            let _ = values.shallow_clone().index_copy_(0, rows, &similarity.gather(1, &columns, false));
            let _ = indices.shallow_clone().index_copy_(0, rows, &columns);
        }
        (values, indices)
    }

    /// The class with the most votes, the lowest of equals. The votes are relative to the nearest image's, which
    /// changes no decision and overflows at no temperature.
    fn vote(&self, similarity: &[f32], indices: &[i64], labels: &[i64], classes: usize) -> i64 {
        let mut near: Vec<(f32, i64)> = similarity.iter().copied().zip(indices.iter().copied()).collect();
        near.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut votes = vec![0.0; classes];
        for (s, index) in &near {
            votes[labels[*index as usize] as usize] += (f64::from(s - near[0].0) / self.temperature).exp();
        }
        let best = (1..classes).fold(0, |best, class| if votes[class] > votes[best] { class } else { best });
        best as i64
    }
}
