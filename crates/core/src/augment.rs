//! Augmentation: recipes as data, parameters drawn per image and per view, applied on the CPU or as tensor operations.
//!
//! A [`Recipe`] says what may happen, a [`Draw`] what happens to one image in one view, and two backends do it:
//! [`cpu`] (u8 in, f32 out, one image at a time on any thread) and [`batched`] (tensor operations on any device).
//! Every operation is torchvision's `transforms.v2.functional` on float tensors, against which both are tested.

pub mod batched;
pub mod cpu;
mod draw;
mod tables;
pub mod views;

#[cfg(test)]
mod tests;

pub use draw::{Colour, CropBox, Draw, Operation};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The columns of [`crate::method::View::params`], each 0 where the operation was not applied: the crop's centre and
/// size as shares of the image, the flip, the four jitter factors (hue as a share of a turn), grey, the blur's sigma
/// in pixels, solarisation. Where jitter was applied with a strength of 0 its factor is 1 (hue: 0).
pub const PARAMS: [&str; 12] = [
    "centre_y",
    "centre_x",
    "height",
    "width",
    "flip",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "grey",
    "sigma",
    "solarise",
];

/// The column `name` of parameters [B, P], `[B]`.
///
/// # Panics
/// If [`PARAMS`] has no such name.
pub fn param(params: &Tensor, name: &str) -> Tensor {
    params.select(1, PARAMS.iter().position(|known| *known == name).expect("a column") as i64)
}

/// How one view is made: a row of a paper's augmentation table.
///
/// The order is fixed: crop and resize, flip, colour jitter, grey, blur, solarise, normalise.
/// Without a crop the largest central square is resized to the view; resizing is bilinear and antialiased. Images of one
/// channel have no colour: saturation, hue and grey leave them as they are.
/// The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Height and width of the view in pixels; 0 stands for the full size of the run.
    #[serde(default)]
    pub size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// Probability of a horizontal flip.
    #[serde(default)]
    pub flip: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// Probability of turning grey.
    #[serde(default)]
    pub grey: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blur: Option<Blur>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solarise: Option<Solarise>,
}

/// Random resized crop: a box of `scale` of the image's area and an aspect ratio log-uniform in `ratio`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    pub scale: [f64; 2],
    pub ratio: [f64; 2],
}

/// Colour jitter, with probability `p`, its four operations in random order: brightness, contrast and saturation
/// factors uniform on [max(0, 1 - s), 1 + s], hue shift uniform on [-hue, hue] of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    pub brightness: f64,
    pub contrast: f64,
    pub saturation: f64,
    pub hue: f64,
    pub p: f64,
}

/// Gaussian blur, with probability `p`, sigma uniform on `sigma` (pixels).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    pub p: f64,
    pub sigma: [f64; 2],
}

/// Inverts values of at least `threshold`, with probability `p`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solarise {
    pub p: f64,
    pub threshold: f64,
}

/// The widest view, far above any in use: a larger number is a slip, and it is cheaper to say so than to allocate it.
const MAX_SIZE: usize = 4096;

impl Recipe {
    /// Height and width of the view in a run whose full size is `full_size`.
    pub fn side(&self, full_size: usize) -> usize {
        if self.size == 0 { full_size } else { self.size }
    }

    /// Refuses numbers that no view can be made from.
    ///
    /// # Errors
    /// If a number is out of its range; the message names it, its value and the range.
    pub fn check(&self) -> Result<()> {
        let size = self.size;
        ensure!(size <= MAX_SIZE, "the recipe's size is {size}; expected at most {MAX_SIZE}, or 0 for the full size");
        probability("flip", self.flip)?;
        probability("grey", self.grey)?;
        if let Some(Crop { scale, ratio }) = self.crop {
            ensure!(
                0.0 < scale[0] && scale[0] <= scale[1] && scale[1] <= 1.0,
                "crop.scale is {scale:?}; expected two shares of the area, [low, high] with 0 < low <= high <= 1"
            );
            ensure!(
                0.0 < ratio[0] && ratio[0] <= ratio[1] && ratio[1].is_finite(),
                "crop.ratio is {ratio:?}; expected width / height as [low, high] with 0 < low <= high"
            );
        }
        if let Some(Jitter { brightness, contrast, saturation, hue, p }) = self.jitter {
            probability("jitter.p", p)?;
            for (name, s) in [("brightness", brightness), ("contrast", contrast), ("saturation", saturation)] {
                ensure!(0.0 <= s && s.is_finite(), "jitter.{name} is {s}; expected a strength of at least 0");
            }
            ensure!((0.0..=0.5).contains(&hue), "jitter.hue is {hue}; expected a share of a turn from 0 to 0.5");
        }
        if let Some(Blur { p, sigma }) = self.blur {
            probability("blur.p", p)?;
            ensure!(
                0.0 < sigma[0] && sigma[0] <= sigma[1] && sigma[1].is_finite(),
                "blur.sigma is {sigma:?}; expected pixels as [low, high] with 0 < low <= high"
            );
        }
        if let Some(Solarise { p, threshold }) = self.solarise {
            probability("solarise.p", p)?;
            ensure!((0.0..=1.0).contains(&threshold), "solarise.threshold is {threshold}; expected 0 to 1");
        }
        Ok(())
    }
}

fn probability(name: &str, p: f64) -> Result<()> {
    ensure!((0.0..=1.0).contains(&p), "{name} is {p}; expected a probability from 0 to 1");
    Ok(())
}
