//! Figures: drawn as SVG, rendered to PNG with the same embedded font, written as both.
//!
//! Colours are Okabe and Ito's, which readers with a colour vision deficiency tell apart. Paper, ink and grid have fixed
//! colours ([`PAPER`], [`INK`], [`MUTED`], [`GRID`]) that a page may restyle for a dark background.

mod bars;
mod canvas;
mod confusion;
mod intervals;
mod lines;
mod matrix;
mod panels;
mod points;
mod ranks;
mod scatter;

pub use bars::bars;
pub(crate) use canvas::{sheet, text_width};
pub use confusion::confusion;
pub use intervals::{Interval, intervals};
pub use lines::{Axes, Series, lines};
pub use matrix::matrix;
pub use panels::{Panel, panels};
pub use points::points;
pub use ranks::ranks;
pub use scatter::scatter;

use crate::file::write_all_whole;
use anyhow::{Context, Result, ensure};
use resvg::{tiny_skia, usvg};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Background, text, lesser text and grid, as they stand in the SVG.
pub const PAPER: &str = "#FFFFFF";
pub const INK: &str = "#222222";
pub const MUTED: &str = "#5F6368";
pub const GRID: &str = "#E3E3E3";

/// Okabe and Ito's colours, the ones that stand out best from white first; their black is ink here.
const PALETTE: [&str; 7] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C7A00"];

/// The embedded font: DejaVu Sans, reduced (fonts/LICENSE-DejaVu).
const FONT: &[u8] = include_bytes!("../fonts/DejaVuSans-subset.ttf");

/// A drawing with the name under which it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The name of its files without ending: lower case, digits and `-`.
    pub name: String,
    /// What it shows, in one sentence.
    pub caption: String,
    /// The drawing, with its numbers in words for readers who do not see it.
    pub svg: String,
}

impl Figure {
    /// The picture as PNG, `scale` pixels for each of the SVG's.
    pub fn png(&self, scale: f32) -> Result<Vec<u8>> {
        render(&self.svg, scale)?.encode_png().with_context(|| format!("the figure {} could not be encoded", self.name))
    }

    /// Writes `name.svg` and `name.png` (at twice the size) into `folder`, both or none.
    pub fn write(&self, folder: &Path) -> Result<[PathBuf; 2]> {
        ensure!(!self.name.is_empty(), "a figure needs a name to be written under, found an empty one");
        let png = self.png(2.0)?;
        let [svg_path, png_path] = ["svg", "png"].map(|ending| folder.join(format!("{}.{ending}", self.name)));
        write_all_whole(&[(svg_path.clone(), self.svg.as_bytes()), (png_path.clone(), &png)])?;
        Ok([svg_path, png_path])
    }
}

/// A file name made of any text: letters and digits in lower case, everything else one `-`.
pub fn file_name(text: &str) -> String {
    let lower: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let name = lower.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if name.is_empty() { "figure".into() } else { name }
}

/// Pixels of an SVG, text in the embedded font.
pub(crate) fn render(svg: &str, scale: f32) -> Result<tiny_skia::Pixmap> {
    static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(FONT.to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    });
    let options = usvg::Options { fontdb: FONTS.clone(), font_family: "sans-serif".into(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).context("the figure is not a valid SVG")?;
    let size = tree.size();
    let side = |length: f32| (length * scale).round() as u32;
    let mut pixmap = tiny_skia::Pixmap::new(side(size.width()), side(size.height())).with_context(|| {
        format!("a picture of {}x{} times {scale} pixels cannot be made", size.width(), size.height())
    })?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    Ok(pixmap)
}

/// Round numbers from below `low` to above `high`, about `wanted` of them.
fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let span = if high > low { high - low } else { low.abs().max(1.0) * 0.1 };
    let rough = span / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|f| f * power).find(|s| *s >= rough).unwrap_or(10.0 * power);
    // A bound that misses a tick by rounding alone must not add one.
    let first = (low / step + 1e-9).floor() as i64;
    let last = ((high / step - 1e-9).ceil() as i64).max(first + 1);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// The labels of ticks, all with the decimals that their step needs.
fn tick_labels(ticks: &[f64]) -> Vec<String> {
    let step = ticks[1] - ticks[0];
    let largest = ticks.iter().fold(0f64, |a, t| a.max(t.abs()));
    if largest >= 1e6 || step < 1e-5 {
        return ticks.iter().map(|t| format!("{t:.1e}")).collect();
    }
    let places = (0..6).find(|p| (step * 10f64.powi(*p) - (step * 10f64.powi(*p)).round()).abs() < 1e-6).unwrap_or(6);
    ticks.iter().map(|t| format!("{:.*}", places as usize, t + 0.0).replace('-', "−")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_data() {
        assert_eq!(ticks(0.0, 87.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.0, 100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(tick_labels(&ticks(-0.3, 0.2, 5)), ["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2"]);
        for (low, high) in [(3.0, 3.0), (0.0, 0.0), (-1e-9, 1e-9), (5e7, 9e8), (97.1, 98.3)] {
            let t = ticks(low, high, 5);
            assert!(t.len() >= 2 && t.len() < 12 && t[0] <= low && t[t.len() - 1] >= high, "{low} {high}: {t:?}");
        }
    }

    #[test]
    fn file_names_are_tame() {
        assert_eq!(file_name("../Loss of <b>BYOL</b> (s0)"), "loss-of-b-byol-b-s0");
        assert_eq!(file_name("…"), "figure");
    }
}
