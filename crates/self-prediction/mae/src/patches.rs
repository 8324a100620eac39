//! Images as rows of patches, and a patch's own mean and deviation.

use selfsup_core::Tensor;

/// Patches as rows, the grid's rows first: [B, C, S, S] -> [B, L, p p C]; within a patch row, column, channel.
pub fn patchify(x: &Tensor, patch: i64) -> Tensor {
    let (b, c, s, _) = x.size4().expect("images are [B, C, S, S]");
    let grid = s / patch;
    x.reshape([b, c, grid, patch, grid, patch]).permute([0, 2, 4, 3, 5, 1]).reshape([b, grid * grid, patch * patch * c])
}

/// The inverse of [`patchify`]: [B, L, p p C] -> [B, C, S, S].
pub fn unpatchify(patches: &Tensor, patch: i64, channels: i64) -> Tensor {
    let (b, l, _) = patches.size3().expect("patches are [B, L, p p C]");
    let grid = (l as f64).sqrt().round() as i64;
    let x = patches.reshape([b, grid, grid, patch, patch, channels]).permute([0, 5, 1, 3, 2, 4]);
    x.reshape([b, channels, grid * patch, grid * patch])
}

/// Mean and deviation of each patch's values, [B, L, 1] each; the variance is unbiased.
pub struct Pixels {
    mean: Tensor,
    std: Tensor,
}

impl Pixels {
    /// Of patches [B, L, n].
    pub fn of(patches: &Tensor, eps: f64) -> Pixels {
        let mean = patches.mean_dim([-1].as_slice(), true, None);
        let std = (patches.var_dim([-1].as_slice(), true, true) + eps).sqrt();
        Pixels { mean, std }
    }

    /// The target that section 3 calls normalised pixels.
    pub fn normalise(&self, patches: &Tensor) -> Tensor {
        (patches - &self.mean) / &self.std
    }

    /// The inverse of [`Pixels::normalise`].
    pub fn restore(&self, patches: &Tensor) -> Tensor {
        patches * &self.std + &self.mean
    }
}
