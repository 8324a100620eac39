//! Many points in a plane, coloured by their class.

use super::canvas::{Canvas, Point, Side, figure};
use super::{Figure, GRID, INK, MUTED, PALETTE};
use anyhow::{Result, ensure};

const WIDTH: f64 = 720.0;
/// The plot's upper left corner, and its right side.
const CORNER: Point = (24.0, 60.0);
const RIGHT: f64 = 524.0;
/// Between the names of the legend.
const STEP: f64 = 24.0;

/// Draws groups of points with a legend; both axes have one scale, so that distances can be read. Of more groups than
/// there are marks, twice the colours, the rest is muted.
///
/// # Errors
/// If there is no finite point.
pub fn points(title: &str, caption: &str, groups: &[(String, Vec<Point>)]) -> Result<Figure> {
    let all = || groups.iter().flat_map(|(_, points)| points).filter(|p| p.0.is_finite() && p.1.is_finite());
    ensure!(all().next().is_some(), "{title}: no finite point is given, so there is nothing to draw");
    let range = |of: fn(&Point) -> f64| all().map(of).fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
    let ((left, right), (low, high)) = (range(|p| p.0), range(|p| p.1));
    let shown = groups.len().min(2 * PALETTE.len());
    // As high as the points ask for, and as the legend does.
    let ((x0, y0), x1) = (CORNER, RIGHT);
    let tall = ((high - low) / (right - left).max(1e-9)).clamp(0.2, 1.0) * (x1 - x0);
    let y1 = y0 + tall.max(STEP * (shown + 1) as f64);
    let scale = 0.96 * ((x1 - x0) / (right - left).max(1e-9)).min((y1 - y0) / (high - low).max(1e-9));
    let at = |p: &Point| {
        let from_middle = |x: f64, a: f64, b: f64| scale * (x - (a + b) / 2.0);
        ((x0 + x1) / 2.0 + from_middle(p.0, left, right), (y0 + y1) / 2.0 - from_middle(p.1, low, high))
    };
    let spoken = format!("{title}: {} points in {} groups", all().count(), groups.len());
    figure(title, caption, &spoken, (WIDTH, y1 + 20.0), |canvas: &mut Canvas<'_>| {
        for (from, to) in [((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0))] {
            canvas.line(from, to, GRID, 1.0)?;
        }
        // One of each group in turn, so that no group covers the others.
        let longest = groups.iter().map(|(_, points)| points.len()).max().unwrap_or(0);
        for turn in 0..longest {
            for (i, (_, points)) in groups.iter().enumerate() {
                if let Some(point) = points.get(turn).filter(|p| p.0.is_finite() && p.1.is_finite()) {
                    mark(canvas, at(point), i)?;
                }
            }
        }
        for (i, (name, _)) in groups.iter().take(shown).enumerate() {
            let y = y0 + 12.0 + STEP * i as f64;
            mark(canvas, (x1 + 24.0, y), i)?;
            canvas.text(name, (x1 + 36.0, y), 12.0, INK, Side::Right)?;
        }
        if shown < groups.len() {
            let y = y0 + 12.0 + STEP * shown as f64;
            canvas.text(&format!("{} more", groups.len() - shown), (x1 + 36.0, y), 12.0, MUTED, Side::Right)?;
        }
        Ok(())
    })
}

/// A disc in the first round of colours, a ring in the second.
fn mark(canvas: &mut Canvas<'_>, at: Point, group: usize) -> Result<()> {
    match group / PALETTE.len() {
        0 => canvas.disc(at, 2.6, PALETTE[group]),
        1 => canvas.dot(at, 2.8, PALETTE[group - PALETTE.len()]),
        _ => canvas.disc(at, 1.6, MUTED),
    }
}
