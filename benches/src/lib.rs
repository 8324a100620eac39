//! What the benches share: synthetic input with fixed seeds, and a method in the middle of training.

pub mod training;

use anyhow::Result;
use selfsup_core::Tensor;
use selfsup_core::augment::{Blur, Crop, Jitter, Recipe, Solarise, cpu};
use selfsup_core::data::{Image, Images, Normalisation, Sample, Samples};
use selfsup_core::rng::{Purpose, Rng};
use std::borrow::Cow;
use std::hint::black_box;

/// Standard normal numbers, f32; `draw` tells one tensor from another.
pub fn normal(shape: &[i64], draw: u64) -> Tensor {
    let mut rng = Rng::new(0, Purpose::Sample, draw, 0, 0);
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| rng.normal() as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Square images of random bytes.
pub struct Noise {
    size: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Noise {
    /// The side of an image.
    pub fn size(&self) -> usize {
        self.size
    }

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

/// Draws and renders a view of every image on this thread, as one worker does; what is drawn depends on `epoch`.
///
/// # Panics
/// If an image cannot be read.
pub fn render_all(
    images: &dyn Samples,
    recipe: &Recipe,
    size: usize,
    normalisation: &Normalisation,
    epoch: u64,
    out: &mut [f32],
    scratch: &mut cpu::Scratch,
) {
    for index in 0..images.len() {
        let Ok(Sample::Image(image)) = images.sample(index) else { panic!("sample {index} is no sound image") };
        let mut rng = Rng::new(0, Purpose::View, epoch, index as u64, 0);
        let draw = recipe.draw(&mut rng, image.height, image.width);
        cpu::render(&image, &draw, size, normalisation, out, scratch);
        black_box(&mut *out);
    }
}

/// The recipes whose cost is measured, under the names that `peers/augment.py` gives them.
pub fn recipes() -> [(&'static str, Recipe); 5] {
    let crop = |low| Some(Crop { scale: [low, 1.0], ratio: [0.75, 4.0 / 3.0] });
    let jitter = |saturation| Some(Jitter { brightness: 0.4, contrast: 0.4, saturation, hue: 0.1, p: 0.8 });
    let simclr = Recipe { crop: crop(0.08), flip: 0.5, jitter: jitter(0.4), grey: 0.2, ..Recipe::default() };
    let byol = |blur: f64, solarise: f64| Recipe {
        jitter: jitter(0.2),
        blur: Some(Blur { p: blur, sigma: [0.1, 2.0] }),
        solarise: Some(Solarise { p: solarise, threshold: 0.5 }),
        ..simclr.clone()
    };
    let mae = Recipe { crop: crop(0.2), flip: 0.5, ..Recipe::default() };
    [
        ("simclr-cifar", simclr.clone()),
        ("byol-a", byol(1.0, 0.0)),
        ("byol-b", byol(0.1, 0.2)),
        ("mae", mae),
        ("none", Recipe::default()),
    ]
}
