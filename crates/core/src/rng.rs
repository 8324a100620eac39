//! Random numbers keyed by what they are for.
//!
//! A draw is a pure function of (seed, purpose, epoch, index, view): it depends on no other draw, no thread order and
//! no state of LibTorch, so any worker may make it at any time and a resumed run replays nothing.

use rand_chacha::{ChaCha8Rng, rand_core::Rng as _, rand_core::SeedableRng};

/// What a stream of random numbers is for. The values are part of every result: never renumber them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial values of a variable; `index` is the hash of its name.
    Init = 1,
    /// The order of the images in an epoch.
    Order = 2,
    /// Augmentation parameters of one view of one image.
    View = 3,
    /// Masks and other choices inside a method's loss, per image.
    Mask = 4,
    /// Splits of the training set: held-out parts, label fractions.
    Split = 5,
    /// What LibTorch draws by itself in one step (dropout).
    Step = 6,
    /// Subsamples taken for evaluation and monitoring.
    Sample = 7,
    /// Clustering: initial centroids and splits.
    Cluster = 8,
    /// What a generative model draws to make a sample.
    Generate = 9,
}

/// A stream of random numbers: ChaCha8 whose 256-bit key *is* (seed, purpose, view, epoch, index).
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of one (seed, purpose, epoch, index, view).
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, index: u64, view: u32) -> Rng {
        let mut key = [0; 32];
        key[0..8].copy_from_slice(&seed.to_le_bytes());
        key[8..12].copy_from_slice(&(purpose as u32).to_le_bytes());
        key[12..16].copy_from_slice(&view.to_le_bytes());
        key[16..24].copy_from_slice(&epoch.to_le_bytes());
        key[24..32].copy_from_slice(&index.to_le_bytes());
        Rng(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform on [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform on [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform on 0..n, by multiplication (bias below n / 2^64). `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// A random order of 0..n.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

/// The 64-bit FNV-1a hash of a name, for streams that belong to a name.
pub fn hash_name(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_each_part_of_its_key() {
        let first = |seed, purpose, epoch, index, view| Rng::new(seed, purpose, epoch, index, view).bits();
        let base = first(1, Purpose::View, 2, 3, 4);
        assert_eq!(base, first(1, Purpose::View, 2, 3, 4));
        for other in [
            first(2, Purpose::View, 2, 3, 4),
            first(1, Purpose::Mask, 2, 3, 4),
            first(1, Purpose::View, 3, 3, 4),
            first(1, Purpose::View, 2, 4, 4),
            first(1, Purpose::View, 2, 3, 5),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn moments_are_those_of_the_named_distributions() {
        let mut rng = Rng::new(0, Purpose::Sample, 0, 0, 0);
        let n = 100_000;
        let uniform: Vec<f64> = (0..n).map(|_| rng.uniform()).collect();
        let normal: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / n as f64;
        let variance = |x: &[f64]| x.iter().map(|v| (v - mean(x)).powi(2)).sum::<f64>() / n as f64;
        // Five standard errors of each estimate.
        assert!((mean(&uniform) - 0.5).abs() < 5.0 * (1.0f64 / 12.0 / n as f64).sqrt());
        assert!((variance(&uniform) - 1.0 / 12.0).abs() < 2e-3);
        assert!(mean(&normal).abs() < 5.0 / (n as f64).sqrt());
        assert!((variance(&normal) - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Rng::new(7, Purpose::Order, 0, 0, 0).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
