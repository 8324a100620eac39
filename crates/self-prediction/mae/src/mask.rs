//! Which patches of an image are removed, and what is done with tokens then.

use selfsup_core::method::Batch;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

/// How the removed patches are chosen (table 1f).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Each patch alone.
    Random,
    /// Rectangles of patches, until enough are covered; the last one counts in part.
    Block,
    /// All but every second patch of every second row.
    Grid,
}

impl Sampling {
    /// The batch's mask over `length` patches, a choice of each image's own.
    pub fn mask(self, batch: &Batch, length: i64, ratio: f64) -> Mask {
        let noise = batch.uniform(Purpose::Mask, length as usize);
        let grid = (length as f64).sqrt() as i64;
        match self {
            Sampling::Random => Mask::new(&noise, kept(length, ratio)),
            Sampling::Block => {
                let kept = kept(length, ratio);
                let covered: Vec<f32> = batch
                    .index
                    .iter()
                    .flat_map(|&image| {
                        blocks(
                            &mut Rng::new(batch.seed, Purpose::Mask, batch.epoch, image as u64, 1),
                            grid,
                            length - kept,
                        )
                    })
                    .collect();
                let covered = Tensor::from_slice(&covered).view([-1, length]).to_device(noise.device());
                Mask::new(&(noise + covered), kept)
            }
            Sampling::Grid => {
                let even = |i: i64| i / grid % 2 == 0 && i % grid % 2 == 0;
                let removed: Vec<f32> = (0..length).map(|i| f32::from(!even(i))).collect();
                let count = (0..length).filter(|&i| even(i)).count() as i64;
                Mask::new(&(noise + Tensor::from_slice(&removed).to_device(batch.device())), count)
            }
        }
    }
}

/// 1 for patches in drawn rectangles, 0 elsewhere, grid x grid of them, at least `wanted` ones: BEiT's blocks
/// (aspect ratio log-uniform on 0.3 to 1 / 0.3), of an eighth to a half of the image.
fn blocks(rng: &mut Rng, grid: i64, wanted: i64) -> Vec<f32> {
    let mut covered = vec![0.0; (grid * grid) as usize];
    while (covered.iter().sum::<f32>() as i64) < wanted {
        let area = (grid * grid) as f64 * rng.range(0.125, 0.5);
        let aspect = rng.range(0.3f64.ln(), -(0.3f64.ln())).exp();
        let side = |x: f64| (x.round() as i64).clamp(1, grid);
        let (h, w) = (side((area * aspect).sqrt()), side((area / aspect).sqrt()));
        let mut from = |length: i64| (rng.uniform() * (grid - length + 1) as f64) as i64;
        let (top, left) = (from(h), from(w));
        for row in top..top + h {
            covered[(row * grid + left) as usize..(row * grid + left + w) as usize].fill(1.0);
        }
    }
    covered
}

/// Which patches of each image are kept.
pub struct Mask {
    /// Places of the patches in shuffled order, the kept ones first: [B, L] i64.
    shuffle: Tensor,
    kept: i64,
    /// 1 where a patch is removed, 0 where it is kept: [B, L] f32.
    pub removed: Tensor,
}

impl Mask {
    /// Keeps the `kept` patches with the least noise, [B, L], of each image.
    pub fn new(noise: &Tensor, kept: i64) -> Mask {
        let (b, l) = noise.size2().expect("noise is [B, L]");
        let shuffle = noise.argsort_stable(true, -1, false);
        let removed = Tensor::ones([b, l], (Kind::Float, noise.device()));
        let removed = removed.scatter_value(1, &shuffle.narrow(1, 0, kept), 0.0);
        Mask { shuffle, kept, removed }
    }

    /// The kept tokens in shuffled order: [B, L, D] -> [B, kept, D].
    pub fn keep(&self, x: &Tensor) -> Tensor {
        let (b, _, d) = x.size3().expect("tokens are [B, L, D]");
        let index = self.shuffle.narrow(1, 0, self.kept).unsqueeze(-1).expand([b, self.kept, d], false);
        x.gather(1, &index, false)
    }

    /// The kept tokens back at their places and `fill` [1, 1, D] at all others: [B, kept, D] -> [B, L, D].
    pub fn restore(&self, kept: &Tensor, fill: &Tensor) -> Tensor {
        let (b, n, d) = kept.size3().expect("tokens are [B, kept, D]");
        let l = self.shuffle.size()[1];
        let shuffled = Tensor::cat(&[kept, &fill.expand([b, l - n, d], false)], 1);
        let restore = self.shuffle.argsort(-1, false);
        shuffled.gather(1, &restore.unsqueeze(-1).expand([b, l, d], false), false)
    }
}

/// How many of `length` patches are kept when a share of `ratio` is removed.
pub fn kept(length: i64, ratio: f64) -> i64 {
    ((length as f64 * (1.0 - ratio)).round() as i64).clamp(1, length - 1)
}
