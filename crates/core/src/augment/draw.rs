//! What happens to one image in one view: the parameters that a recipe's random numbers stand for.

use super::{Blur, Crop, Jitter, PARAMS, Recipe};
use crate::rng::Rng;
use serde::{Deserialize, Serialize};

/// A box of whole pixels inside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CropBox {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// One of the four operations of colour jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    Brightness,
    Contrast,
    Saturation,
    Hue,
}

/// Colour jitter as drawn: the order of its operations and their factors (hue: a share of a turn).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Colour {
    pub order: [Operation; 4],
    pub brightness: f32,
    pub contrast: f32,
    pub saturation: f32,
    pub hue: f32,
}

impl Colour {
    /// The factor of one operation.
    pub fn factor(&self, operation: Operation) -> f32 {
        match operation {
            Operation::Brightness => self.brightness,
            Operation::Contrast => self.contrast,
            Operation::Saturation => self.saturation,
            Operation::Hue => self.hue,
        }
    }
}

/// The parameters of one view of one image. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Draw {
    /// The part of the image that becomes the view; the whole image if absent.
    pub crop: Option<CropBox>,
    pub flip: bool,
    pub jitter: Option<Colour>,
    pub grey: bool,
    /// The standard deviation of the Gaussian blur in pixels of the view.
    pub sigma: Option<f32>,
    /// The threshold from which values are inverted.
    pub solarise: Option<f32>,
}

impl Recipe {
    /// Draws the parameters of one view of an image of `height` x `width` pixels.
    ///
    /// The same numbers are taken from `rng` whatever the recipe holds and whatever they decide, and the crop, whose
    /// tries vary, takes its own last. So a recipe with one operation changed or switched off draws the same values
    /// for all others: an ablation is paired image by image.
    pub fn draw(&self, rng: &mut Rng, height: usize, width: usize) -> Draw {
        let flip = rng.chance(self.flip);
        let jitter =
            self.jitter.unwrap_or(Jitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0, p: 0.0 });
        let jittered = rng.chance(jitter.p);
        let mut factor = |s: f64| rng.range((1.0 - s).max(0.0), 1.0 + s) as f32;
        let (brightness, contrast, saturation) =
            (factor(jitter.brightness), factor(jitter.contrast), factor(jitter.saturation));
        let hue = rng.range(-jitter.hue, jitter.hue) as f32;
        let mut order = [Operation::Brightness, Operation::Contrast, Operation::Saturation, Operation::Hue];
        rng.shuffle(&mut order);
        let grey = rng.chance(self.grey);
        let blur = self.blur.unwrap_or(Blur { p: 0.0, sigma: [0.0; 2] });
        let blurred = rng.chance(blur.p);
        let sigma = rng.range(blur.sigma[0], blur.sigma[1]) as f32;
        let solarised = rng.chance(self.solarise.map_or(0.0, |solarise| solarise.p));
        Draw {
            crop: self.crop.map(|crop| crop.draw(rng, height, width)),
            flip,
            jitter: jittered.then_some(Colour { order, brightness, contrast, saturation, hue }),
            grey,
            sigma: blurred.then_some(sigma),
            solarise: self.solarise.filter(|_| solarised).map(|solarise| solarise.threshold as f32),
        }
    }
}

impl Crop {
    /// torchvision's `RandomResizedCrop.get_params`: up to ten tries of an area and an aspect ratio, the first box that
    /// fits placed uniformly; otherwise the largest central box whose aspect ratio is allowed.
    fn draw(&self, rng: &mut Rng, height: usize, width: usize) -> CropBox {
        let area = (height * width) as f64;
        for _ in 0..10 {
            let share = area * rng.range(self.scale[0], self.scale[1]);
            let ratio = rng.range(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            // Python's `round`, which torchvision uses, goes to the even neighbour.
            let w = (share * ratio).sqrt().round_ties_even() as usize;
            let h = (share / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let (top, left) = (rng.below(height - h + 1), rng.below(width - w + 1));
                return CropBox { top, left, height: h, width: w };
            }
        }
        let ratio = (width as f64 / height as f64).clamp(self.ratio[0], self.ratio[1]);
        let (h, w) = if (width as f64) < ratio * height as f64 {
            ((width as f64 / ratio).round_ties_even() as usize, width)
        } else {
            (height, (height as f64 * ratio).round_ties_even() as usize)
        };
        let (h, w) = (h.clamp(1, height), w.clamp(1, width));
        CropBox { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }
}

impl Draw {
    /// The box that becomes the view, of an image of `height` x `width` pixels: without a crop the largest central square.
    pub fn crop_box(&self, height: usize, width: usize) -> CropBox {
        let side = height.min(width);
        let square = CropBox { top: (height - side) / 2, left: (width - side) / 2, height: side, width: side };
        self.crop.unwrap_or(square)
    }

    /// The row of [`crate::method::View::params`] that records this draw; columns as in [`PARAMS`].
    pub fn params(&self, height: usize, width: usize) -> [f32; PARAMS.len()] {
        let (h, w) = (height as f32, width as f32);
        let [y, x, tall, wide] = self.crop.map_or([0.0; 4], |c| {
            let centre = |start: usize, length: usize| start as f32 + length as f32 / 2.0;
            [centre(c.top, c.height) / h, centre(c.left, c.width) / w, c.height as f32 / h, c.width as f32 / w]
        });
        let [brightness, contrast, saturation, hue] =
            self.jitter.map_or([0.0; 4], |j| [j.brightness, j.contrast, j.saturation, j.hue]);
        let (flip, grey) = (f32::from(u8::from(self.flip)), f32::from(u8::from(self.grey)));
        let (sigma, solarise) = (self.sigma.unwrap_or(0.0), f32::from(u8::from(self.solarise.is_some())));
        [y, x, tall, wide, flip, brightness, contrast, saturation, hue, grey, sigma, solarise]
    }
}
