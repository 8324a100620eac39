//! What the benches share: synthetic input with fixed seeds, and the set-up that a run makes before its first step.

use anyhow::Result;
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::Store;
use selfsup_core::tensor::channels_last;
use selfsup_core::{Device, Tensor, no_grad, torch_ext};
use std::borrow::Cow;

/// Sets up LibTorch as a run does: the device answered for, freed memory kept. The number of threads stays LibTorch's
/// own (one per core) unless OMP_NUM_THREADS says otherwise.
///
/// # Errors
/// If LibTorch refuses.
pub fn set_up() -> Result<()> {
    torch_ext::init(Device::Cpu)?;
    torch_ext::tune_allocator();
    Ok(())
}

/// Standard normal numbers, f32; `draw` tells one tensor from another.
pub fn normal(shape: &[i64], draw: u64) -> Tensor {
    let mut rng = Rng::new(0, Purpose::Sample, draw, 0, 0);
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| rng.normal() as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Puts convolution weights in the layout of the views, as the training loop does before its first step.
pub fn store_channels_last(store: &Store) {
    no_grad(|| {
        for variable in store.variables().into_iter().filter(|v| v.tensor.dim() == 4) {
            let mut tensor = variable.tensor;
            tensor.set_data(&channels_last(&tensor.detach()));
        }
    });
}

/// Square images of random bytes.
pub struct Noise {
    size: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Noise {
    /// `n` images of `size` x `size` x `channels`.
    pub fn new(n: usize, size: usize, channels: usize) -> Noise {
        let mut rng = Rng::new(0, Purpose::Sample, 0, 0, 0);
        Noise { size, channels, pixels: (0..n * size * size * channels).map(|_| rng.bits() as u8).collect() }
    }

    /// Roughly that of uniform bytes.
    pub fn normalisation(&self) -> Normalisation {
        Normalisation { mean: vec![0.5; self.channels], std: vec![0.25; self.channels] }
    }
}

impl Images for Noise {
    fn len(&self) -> usize {
        self.pixels.len() / (self.size * self.size * self.channels)
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let length = self.size * self.size * self.channels;
        let pixels = Cow::Borrowed(&self.pixels[index * length..][..length]);
        Ok(Image { height: self.size, width: self.size, channels: self.channels, pixels })
    }
}
