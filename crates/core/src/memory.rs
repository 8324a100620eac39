//! Embeddings that outlive their batch: variables of the store, so that they are saved and resumed with it.

use crate::store::{Init, Path, Role, assign};
use crate::tensor::normalise;
use tch::{Tensor, no_grad};

/// The latest embeddings, oldest first: MoCo's dictionary, SwAV's queue. Any length, whatever the batch.
pub struct Queue(Tensor);

impl Queue {
    /// `length` random unit rows of width `dim`.
    pub fn new(path: &Path, name: &str, length: i64, dim: i64) -> Queue {
        let rows = path.variable(name, &[length, dim], Role::Buffer, Init::Normal(1.0));
        assign(&rows, &normalise(&rows));
        Queue(rows)
    }

    /// [K, D]. A copy: a push before the backward pass does not reach into the graph.
    pub fn rows(&self) -> Tensor {
        self.0.copy()
    }

    /// Puts the rows of `new`, [B, D], at the end, and as many of the oldest leave. Of more than K rows the last K stay.
    pub fn push(&self, new: &Tensor) {
        let length = self.0.size()[0];
        let rows = no_grad(|| Tensor::cat(&[&self.0, &new.detach()], 0));
        assign(&self.0, &rows.narrow(0, rows.size()[0] - length, length));
    }
}

/// One embedding of every training image: the memory bank of Wu et al. (2018).
pub struct Bank(Tensor);

impl Bank {
    /// `samples` random rows of width `dim`, uniform on +-sqrt(3 / dim), so of unit length on average.
    pub fn new(path: &Path, name: &str, samples: usize, dim: i64) -> Bank {
        let bound = Init::Uniform((3.0 / dim as f64).sqrt());
        Bank(path.variable(name, &[samples as i64, dim], Role::Buffer, bound))
    }

    /// [n, D]. A copy: an update before the backward pass does not reach into the graph.
    pub fn rows(&self) -> Tensor {
        self.0.copy()
    }

    /// The rows at `places` `[B]` i64, [B, D].
    pub fn at(&self, places: &Tensor) -> Tensor {
        self.0.index_select(0, places)
    }

    /// Replaces all rows.
    pub fn set(&self, rows: &Tensor) {
        assign(&self.0, rows);
    }

    /// row <- normalise(tau row + (1 - tau) new) at `places` `[B]`; `new` is [B, D]. `tau` is the weight of the old row.
    pub fn update(&self, places: &Tensor, new: &Tensor, tau: f64) {
        no_grad(|| {
            let rows = normalise(&(self.at(places) * tau + new.detach() * (1.0 - tau)));
            let _ = self.0.shallow_clone().index_copy_(0, places, &rows);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use tch::{Device, Kind};

    fn rows(from: i64, n: i64) -> Tensor {
        (Tensor::arange(n, (Kind::Float, Device::Cpu)) + from).view([n, 1])
    }

    fn close(a: &Tensor, b: &Tensor) {
        // Three operations on numbers of about 1, each rounded to 6e-8.
        assert!((a - b).abs().max().double_value(&[]) < 1e-6, "{a:?} {b:?}");
    }

    #[test]
    fn a_queue_starts_with_unit_rows_that_the_store_holds() {
        let store = Store::new(0, Device::Cpu);
        let queue = Queue::new(&store.root(), "queue", 7, 5);
        close(
            &queue.rows().norm_scalaropt_dim(2.0, [1].as_slice(), false),
            &Tensor::ones([7], (Kind::Float, Device::Cpu)),
        );
        queue.push(&Tensor::ones([2, 5], (Kind::Float, Device::Cpu)));
        assert_eq!(store.variables()[0].tensor, queue.rows());
        assert!(store.trainable().is_empty());
    }

    #[test]
    fn the_oldest_rows_leave_first_whatever_the_batch() {
        let store = Store::new(0, Device::Cpu);
        let queue = Queue::new(&store.root(), "queue", 5, 1);
        let start = queue.rows();
        queue.push(&rows(10, 3));
        assert_eq!(queue.rows(), Tensor::cat(&[start.narrow(0, 3, 2), rows(10, 3)], 0));
        queue.push(&rows(20, 3));
        assert_eq!(queue.rows(), Tensor::cat(&[rows(11, 2), rows(20, 3)], 0));
        queue.push(&rows(30, 8));
        assert_eq!(queue.rows(), rows(33, 5));
    }

    #[test]
    fn a_push_does_not_reach_into_a_graph() {
        let store = Store::new(0, Device::Cpu);
        let queue = Queue::new(&store.root(), "queue", 4, 3);
        let q = Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let before = queue.rows();
        let scores = q.matmul(&queue.rows().tr());
        queue.push(&q);
        scores.sum(Kind::Float).backward();
        close(&q.grad().narrow(0, 0, 1).squeeze_dim(0), &before.sum_dim_intlist([0].as_slice(), false, None));
        assert!(!queue.rows().requires_grad());
    }

    #[test]
    fn a_bank_averages_the_rows_of_its_images_alone() {
        let store = Store::new(0, Device::Cpu);
        let bank = Bank::new(&store.root(), "bank", 4, 2);
        bank.set(&Tensor::from_slice(&[1.0f32, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]).view([4, 2]));
        let new = Tensor::from_slice(&[0.0f32, 1.0, 0.0, 1.0]).view([2, 2]);
        bank.update(&Tensor::from_slice(&[2i64, 0]), &new, 0.5);
        let half = 0.5f32.sqrt();
        close(&bank.rows(), &Tensor::from_slice(&[half, half, 1.0, 0.0, half, half, 1.0, 0.0]).view([4, 2]));
        bank.update(&Tensor::from_slice(&[1i64, 3]), &new, 1.0);
        close(&bank.at(&Tensor::from_slice(&[3i64])), &Tensor::from_slice(&[1.0f32, 0.0]).view([1, 2]));
        bank.update(&Tensor::from_slice(&[1i64, 3]), &new, 0.0);
        close(&bank.at(&Tensor::from_slice(&[1i64])), &Tensor::from_slice(&[0.0f32, 1.0]).view([1, 2]));
    }
}
