//! omega: what is to be told of the augmentations of two views, out of the parameters that made them.

use anyhow::{Result, ensure};
use selfsup_core::augment::{Jitter, Recipe, param};
use selfsup_core::{Kind, Tensor};

/// One augmentation, with a head of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Crop,
    Colour,
    Flip,
    Blur,
    Solarise,
}

impl Part {
    pub const ALL: [Part; 5] = [Part::Crop, Part::Colour, Part::Flip, Part::Blur, Part::Solarise];

    /// The key of its weight, its head's place in the store and its column in metrics.csv.
    pub fn name(self) -> &'static str {
        match self {
            Part::Crop => "crop",
            Part::Colour => "colour",
            Part::Flip => "flip",
            Part::Blur => "blur",
            Part::Solarise => "solarise",
        }
    }
}

/// The targets of two views made by given recipes.
pub struct Targets {
    /// Column of [`selfsup_core::augment::PARAMS`], the value that changes nothing, and by what the distance from it is divided.
    colour: Vec<(&'static str, f64, f64)>,
    /// The widest blur, in pixels.
    blur: f64,
    crop: bool,
    flip: bool,
    solarise: bool,
}

impl Targets {
    /// Of images of `channels` channels; of grey ones saturation and hue change nothing and are left out.
    ///
    /// # Errors
    /// If there are not two views of one size.
    pub fn new(recipes: &[Recipe], channels: i64) -> Result<Targets> {
        let [a, b, ..] = recipes else {
            anyhow::bail!("augself compares two views, but there are {}: expected two [[views]]", recipes.len())
        };
        ensure!(
            a.size == b.size,
            "augself compares the first two views, which have {} and {} pixels: expected one size",
            a.size,
            b.size
        );
        let both = [a, b];
        let widest = |f: &dyn Fn(&Recipe) -> f64| both.iter().map(|recipe| f(recipe)).fold(0.0, f64::max);
        let strength = |f: &dyn Fn(&Jitter) -> f64| widest(&|r| r.jitter.as_ref().filter(|j| j.p > 0.0).map_or(0.0, f));
        // From max(0, 1 - s) to 1 + s.
        let factor = |s: f64| s + s.min(1.0);
        let mut colour = vec![
            ("brightness", 1.0, factor(strength(&|j| j.brightness))),
            ("contrast", 1.0, factor(strength(&|j| j.contrast))),
            ("saturation", 1.0, factor(strength(&|j| j.saturation))),
            ("hue", 0.0, 2.0 * strength(&|j| j.hue)),
        ];
        colour.truncate(if channels == 1 { 2 } else { 4 });
        colour.retain(|(_, _, range)| *range > 0.0);
        Ok(Targets {
            colour,
            blur: widest(&|r| r.blur.as_ref().filter(|blur| blur.p > 0.0).map_or(0.0, |blur| blur.sigma[1])),
            crop: both.iter().any(|r| r.crop.is_some()),
            flip: both.iter().any(|r| r.flip > 0.0),
            solarise: both.iter().any(|r| r.solarise.is_some_and(|solarise| solarise.p > 0.0)),
        })
    }

    /// What there is to tell, as columns of [`selfsup_core::augment::PARAMS`]; nothing: the views do not have this
    /// augmentation.
    pub fn names(&self, part: Part) -> Vec<&'static str> {
        let (there, names) = match part {
            Part::Crop => (self.crop, vec!["centre_y", "centre_x", "height", "width"]),
            Part::Colour => (true, self.colour.iter().map(|(name, ..)| *name).collect()),
            Part::Flip => (self.flip, vec!["flip"]),
            Part::Blur => (self.blur > 0.0, vec!["sigma"]),
            Part::Solarise => (self.solarise, vec!["solarise"]),
        };
        if there { names } else { Vec::new() }
    }

    /// How many numbers there are to tell.
    pub fn width(&self, part: Part) -> i64 {
        self.names(part).len() as i64
    }

    /// omega of one view, parameters [B, P] -> [B, width]: any two differ by at most 1 in each number.
    pub fn omega(&self, part: Part, params: &Tensor) -> Tensor {
        let rows = match part {
            Part::Crop => {
                let whole = param(params, "height").eq(0.0).to_kind(params.kind()); // not cropped: all 0
                let flip = param(params, "flip");
                let y = param(params, "centre_y") + 0.5 * &whole;
                let x = param(params, "centre_x") + 0.5 * &whole;
                // Of a flipped view the centre is where the network sees it.
                let x = &x + flip * (1.0 - 2.0 * &x);
                vec![y, x, param(params, "height") + &whole, param(params, "width") + whole]
            }
            Part::Colour => {
                // Not jittered: all 0. Jittered, a factor whose strength is 0 is 1.
                let factors = ["brightness", "contrast", "saturation"].map(|name| param(params, name));
                let jittered = Tensor::stack(&factors, 0).amax([0].as_slice(), false).gt(0.0).to_kind(params.kind());
                let scaled =
                    |(name, neutral, range): &(&str, f64, f64)| (param(params, name) - *neutral) / *range * &jittered;
                self.colour.iter().map(scaled).collect()
            }
            Part::Flip => vec![param(params, "flip")],
            Part::Blur => vec![param(params, "sigma") / self.blur],
            Part::Solarise => vec![param(params, "solarise")],
        };
        Tensor::stack(&rows, 1)
    }

    /// What is to be told of views a and b: omega_a - omega_b, and of the flip whether both are alike, 1 or 0.
    pub fn difference(&self, part: Part, a: &Tensor, b: &Tensor) -> Tensor {
        let (a, b) = (self.omega(part, a), self.omega(part, b));
        if part == Part::Flip { a.eq_tensor(&b).to_kind(Kind::Float) } else { a - b }
    }
}
