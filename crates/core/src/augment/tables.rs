//! The field's augmentation tables, which methods share: each is a paper's, for images of 224 pixels.

use super::{Blur, Crop, Jitter, Recipe, Solarise};

/// The aspect ratios of a random resized crop.
const RATIO: [f64; 2] = [0.75, 1.3333333333333333];
/// The sigma of a blur in pixels.
const SIGMA: [f64; 2] = [0.1, 2.0];

impl Recipe {
    /// A crop of a share of the area from `least` to all of it, and a flip: what every table begins with.
    pub fn crop_and_flip(least: f64) -> Recipe {
        Recipe { crop: Some(Crop { scale: [least, 1.0], ratio: RATIO }), flip: 0.5, ..Recipe::default() }
    }

    /// SimCLR (Chen et al. 2020, appendix A) with strength 1.
    pub fn simclr() -> Recipe {
        Recipe {
            jitter: Some(Jitter { brightness: 0.8, contrast: 0.8, saturation: 0.8, hue: 0.2, p: 0.8 }),
            grey: 0.2,
            blur: Some(Blur { p: 0.5, sigma: SIGMA }),
            ..Recipe::crop_and_flip(0.08)
        }
    }

    /// MoCo v1 (the authors' code), InstDisc's too: stronger in hue than v2, always on, and no blur. The order of
    /// operations is this program's; the authors' code turns grey first and flips last.
    pub fn moco_v1() -> Recipe {
        Recipe {
            jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.4, p: 1.0 }),
            grey: 0.2,
            ..Recipe::crop_and_flip(0.2)
        }
    }

    /// MoCo v2 (the authors' code); SimSiam's (section 3) and InterCLR's too.
    pub fn moco_v2() -> Recipe {
        Recipe {
            jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 0.8 }),
            grey: 0.2,
            blur: Some(Blur { p: 0.5, sigma: SIGMA }),
            ..Recipe::crop_and_flip(0.2)
        }
    }

    /// BYOL (Grill et al. 2020, appendix B, table 6), whose two views differ in blur and solarisation; Barlow Twins'
    /// (section 2.2) and VICReg's (the authors' code) too.
    pub fn byol() -> [Recipe; 2] {
        [(1.0, 0.0), (0.1, 0.2)].map(|(blur, solarise)| Recipe {
            jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1, p: 0.8 }),
            grey: 0.2,
            blur: Some(Blur { p: blur, sigma: SIGMA }),
            solarise: Some(Solarise { p: solarise, threshold: 0.5 }),
            ..Recipe::crop_and_flip(0.08)
        })
    }
}
