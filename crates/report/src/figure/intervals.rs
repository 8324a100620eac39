//! Differences over seeds, each on an axis of its own: seeds as dots, the mean with its interval, and what was asked for.

use super::canvas::{Canvas, Point, Side, figure};
use super::{Figure, GRID, INK, MUTED, PALETTE, tick_labels, ticks};
use anyhow::{Result, ensure};

const WIDTH: f64 = 900.0;
const HEAD: f64 = 62.0;
const ROW: f64 = 92.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = WIDTH - 40.0;

/// One difference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    pub title: String,
    /// One a seed.
    pub values: Vec<f64>,
    /// Of the mean; none of one seed.
    pub interval: Option<(f64, f64)>,
    /// What the difference had to reach.
    pub threshold: f64,
}

/// Draws a row for each difference. Zero is a full line, what was asked for a dashed one.
pub fn intervals(title: &str, rows: &[Interval]) -> Result<Figure> {
    ensure!(!rows.is_empty(), "{title}: there is no difference to draw");
    for row in rows {
        ensure!(
            !row.values.is_empty() && row.values.iter().all(|v| v.is_finite()),
            "{title}: `{}` needs finite values, one a seed",
            row.title
        );
    }
    let caption =
        format!("{title}: differences over seeds, mean with its 95 % interval; dashed: what the rule asks for.");
    let spoken = rows.iter().map(|row| format!("{}: {:.4}", row.title, mean(row))).collect::<Vec<_>>().join("; ");
    figure(title, &caption, &format!("{title}. {spoken}"), (WIDTH, HEAD + ROW * rows.len() as f64), |canvas| {
        rows.iter().enumerate().try_for_each(|(i, row)| draw(canvas, row, HEAD + ROW * i as f64))
    })
}

fn mean(row: &Interval) -> f64 {
    crate::statistics::mean(&row.values)
}

fn draw(canvas: &mut Canvas<'_>, row: &Interval, top: f64) -> Result<()> {
    let ends = row.interval.iter().flat_map(|(low, high)| [*low, *high]);
    let all: Vec<f64> = row.values.iter().copied().chain(ends).chain([0.0, row.threshold]).collect();
    let (low, high) =
        (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    let ticks = ticks(low, high, 7);
    let (first, last) = (ticks[0], ticks[ticks.len() - 1]);
    let at = |value: f64, y: f64| -> Point { (LEFT + (RIGHT - LEFT) * (value - first) / (last - first), y) };
    let (above, middle, below) = (top + 14.0, top + 32.0, top + 50.0);
    canvas.text(&row.title, (20.0, top), 12.0, INK, Side::Right)?;
    for (tick, label) in ticks.iter().zip(tick_labels(&ticks)) {
        canvas.line(at(*tick, above), at(*tick, below), GRID, 1.0)?;
        canvas.text(&label, at(*tick, below + 12.0), 11.0, MUTED, Side::Centre)?;
    }
    canvas.line(at(0.0, above), at(0.0, below), MUTED, 1.4)?;
    canvas.dashed(&[at(row.threshold, above), at(row.threshold, below)], INK, 1.4, 4.0, 3.0)?;
    if let Some((low, high)) = row.interval {
        canvas.line(at(low, middle), at(high, middle), PALETTE[0], 2.4)?;
        for end in [low, high] {
            canvas.line(at(end, middle - 5.0), at(end, middle + 5.0), PALETTE[0], 2.4)?;
        }
    }
    for value in &row.values {
        canvas.dot(at(*value, middle), 3.0, MUTED)?;
    }
    let (x, y) = at(mean(row), middle);
    canvas.rectangle((x - 2.0, y - 8.0), (x + 2.0, y + 8.0), PALETTE[0])
}
