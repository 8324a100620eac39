//! Augmentation: recipes as data, parameters drawn per image and per view, applied on the CPU or as tensor operations.

use serde::{Deserialize, Serialize};

/// The columns of [`crate::method::View::params`], each 0 where the operation was not applied: the crop's centre and
/// size as shares of the image, the flip, the four jitter factors (hue as a share of a turn), grey, the blur's sigma
/// in pixels, solarisation.
pub const PARAMS: [&str; 12] = [
    "centre_y", "centre_x", "height", "width", "flip", "brightness", "contrast", "saturation", "hue", "grey", "sigma",
    "solarise",
];

/// How one view is made: a row of a paper's augmentation table.
///
/// The order is fixed: crop and resize, flip, colour jitter, grey, blur, solarise, normalise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
