//! Series in small panels: what was measured, and beside it what a method makes of it.

use super::canvas::{Canvas, Point, Side, figure, text_width};
use super::{Figure, GRID, INK, MUTED, PALETTE, tick_labels, ticks};
use anyhow::{Result, ensure};

const WIDTH: f64 = 900.0;
/// Of the plot in a panel.
const HEIGHT: f64 = 120.0;
const HEAD: f64 = 74.0;
/// Below each plot, for the labels of its steps and the next panel's title.
const GAP: f64 = 62.0;
/// A line of fewer steps has a dot at each.
const FEW: usize = 30;

/// One panel: of each name the values over steps 1, 2, ..; one that is not finite interrupts the line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// May be empty.
    pub title: String,
    pub lines: Vec<Vec<f64>>,
}

/// Draws panels in two columns. The names stand above them all, each in the colour of its lines; the first one, in ink,
/// is what the others are compared with. Each panel has its own vertical axis.
pub fn panels(title: &str, names: &[&str], panels: &[Panel]) -> Result<Figure> {
    ensure!(!panels.is_empty(), "{title}: no panel is given, so there is nothing to draw");
    for panel in panels {
        ensure!(
            panel.lines.len() == names.len(),
            "{title}: the panel `{}` has {} lines for {} names",
            panel.title,
            panel.lines.len(),
            names.len()
        );
        ensure!(
            panel.lines.iter().flatten().any(|y| y.is_finite()),
            "{title}: the panel `{}` has no finite value, so there is nothing to draw",
            panel.title
        );
    }
    let columns = panels.len().min(2);
    let rows = panels.len().div_ceil(columns);
    let size = (WIDTH, HEAD + rows as f64 * (HEIGHT + GAP));
    let caption = format!("{title}: {}.", names.join(", "));
    let description = format!("{title}: {} over steps, in {} panels", names.join(", "), panels.len());
    figure(title, &caption, &description, size, |canvas| {
        legend(canvas, names)?;
        for (i, panel) in panels.iter().enumerate() {
            let width = WIDTH / columns as f64;
            let corner = ((i % columns) as f64 * width, HEAD + (i / columns) as f64 * (HEIGHT + GAP));
            Plot::new(panel, corner, width).draw(canvas)?;
        }
        Ok(())
    })
}

fn colour(line: usize) -> &'static str {
    if line == 0 { INK } else { PALETTE[(line - 1) % PALETTE.len()] }
}

fn legend(canvas: &mut Canvas<'_>, names: &[&str]) -> Result<()> {
    let mut x = 20.0;
    for (i, name) in names.iter().enumerate() {
        canvas.line((x, 52.0), (x + 22.0, 52.0), colour(i), 2.2)?;
        canvas.text(name, (x + 28.0, 52.0), 12.0, INK, Side::Right)?;
        x += 28.0 + text_width(name, 12.0) + 22.0;
    }
    Ok(())
}

struct Plot<'a> {
    panel: &'a Panel,
    steps: usize,
    y_ticks: Vec<f64>,
    left: f64,
    right: f64,
    top: f64,
}

impl<'a> Plot<'a> {
    fn new(panel: &'a Panel, corner: Point, width: f64) -> Plot<'a> {
        let finite = || panel.lines.iter().flatten().copied().filter(|y| y.is_finite());
        let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        let y_ticks = ticks(low, high, 4);
        let labels = tick_labels(&y_ticks).iter().map(|t| text_width(t, 11.0)).fold(0.0, f64::max);
        Plot {
            steps: panel.lines.iter().map(Vec::len).max().unwrap_or(0),
            left: corner.0 + 20.0 + labels + 8.0,
            right: corner.0 + width - 20.0,
            top: corner.1 + 18.0,
            panel,
            y_ticks,
        }
    }

    /// The place of a value at a step, which count from 0 here.
    fn at(&self, step: f64, y: f64) -> Point {
        let (low, high) = (self.y_ticks[0], self.y_ticks[self.y_ticks.len() - 1]);
        let across = if self.steps > 1 { step / (self.steps - 1) as f64 } else { 0.5 };
        (self.left + across * (self.right - self.left), self.top + HEIGHT * (high - y) / (high - low))
    }

    fn draw(&self, canvas: &mut Canvas<'_>) -> Result<()> {
        let bottom = self.top + HEIGHT;
        canvas.text(&self.panel.title, (self.left, self.top - 12.0), 12.0, INK, Side::Right)?;
        for (tick, label) in self.y_ticks.iter().zip(tick_labels(&self.y_ticks)) {
            let y = self.at(0.0, *tick).1;
            canvas.line((self.left, y), (self.right, y), GRID, 1.0)?;
            canvas.text(&label, (self.left - 6.0, y), 11.0, MUTED, Side::Left)?;
        }
        let last = self.steps.max(2) as f64;
        let steps: Vec<f64> =
            ticks(1.0, last, 6).into_iter().filter(|t| (1.0..=last).contains(t) && t.fract() == 0.0).collect();
        for step in [1.0].into_iter().filter(|_| steps.first().is_none_or(|t| *t > 1.0)).chain(steps.iter().copied()) {
            let x = self.at(step - 1.0, 0.0).0;
            canvas.line((x, bottom), (x, bottom + 4.0), MUTED, 1.0)?;
            canvas.text(&format!("{step}"), (x, bottom + 14.0), 11.0, MUTED, Side::Centre)?;
        }
        for (i, line) in self.panel.lines.iter().enumerate() {
            self.line(canvas, line, i)?;
        }
        Ok(())
    }

    fn line(&self, canvas: &mut Canvas<'_>, line: &[f64], i: usize) -> Result<()> {
        let points: Vec<(usize, f64)> = line.iter().copied().enumerate().collect();
        for part in points.split(|p| !p.1.is_finite()).filter(|part| !part.is_empty()) {
            let path: Vec<Point> = part.iter().map(|p| self.at(p.0 as f64, p.1)).collect();
            canvas.path(&path, colour(i), if i == 0 { 1.8 } else { 1.4 })?;
            if path.len() == 1 || self.steps < FEW {
                for point in path {
                    canvas.dot(point, 2.2, colour(i))?;
                }
            }
        }
        Ok(())
    }
}
