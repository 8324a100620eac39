//! What a score costs: training time to the right, accuracy upwards.

use super::canvas::{Canvas, Side, figure};
use super::{Figure, GRID, INK, MUTED, PALETTE, tick_labels, ticks};
use crate::table::{Cell, Kind, Line, Table};
use anyhow::{Context, Result};

const SIZE: (f64, f64) = (900.0, 440.0);
const LEFT: f64 = 70.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 72.0;
const BOTTOM: f64 = 388.0;

/// Draws the methods of a table by the mean of a column and the seconds that a run trained, on a logarithmic axis. The
/// untrained encoder has no such time and is left out. None if fewer than two lines have a score and a time.
///
/// # Errors
/// If the table has no such column.
pub fn scatter(table: &Table, column: usize) -> Result<Option<Figure>> {
    let head = table.columns.get(column).context("a column of the table")?;
    let trained = table.lines.iter().filter(|line| line.kind != Kind::Random && line.seconds > 0.0);
    let lines: Vec<(&Line, &Cell)> = trained.filter_map(|line| Some((line, line.cells[column].as_ref()?))).collect();
    if lines.len() < 2 {
        return Ok(None);
    }
    let (scale, bounds) = (head.scale(), |values: Vec<f64>| {
        (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    });
    let (low, high) = bounds(lines.iter().map(|(_, cell)| scale * cell.mean).collect());
    let y_ticks = ticks(low, high, 6);
    let (short, long) = bounds(lines.iter().map(|(line, _)| line.seconds).collect());
    let (short, long) = (short / 1.3, long * 1.3);
    let marks = |digits: &[f64]| -> Vec<f64> {
        let all = (-3..9).flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
        all.filter(|tick| (short..=long).contains(tick)).collect()
    };
    let coarse = marks(&[1.0, 2.0, 5.0]);
    let x_ticks = if coarse.len() > 2 { coarse } else { marks(&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]) };
    let x = |seconds: f64| LEFT + (RIGHT - LEFT) * (seconds / short).ln() / (long / short).ln();
    let (first, last) = (y_ticks[0], y_ticks[y_ticks.len() - 1]);
    let y = |score: f64| BOTTOM - (BOTTOM - TOP) * (score - first) / (last - first);
    let unit = head.title().replace(" %", " accuracy, %");
    let title = format!("Cost against {}: {}", head.title().replace(" %", " accuracy"), table.title());
    let caption =
        format!("{title}. Mean over runs; training time on the machine that made the rows, evaluation not counted.");
    let one = |(line, cell): &(&Line, &Cell)| format!("{}: {:.1} s, {}", line.name(), line.seconds, cell.value(head));
    let spoken = format!("{title}: {}", lines.iter().map(one).collect::<Vec<_>>().join("; "));
    let draw = |canvas: &mut Canvas<'_>| {
        for (tick, label) in y_ticks.iter().zip(tick_labels(&y_ticks)) {
            canvas.line((LEFT, y(*tick)), (RIGHT, y(*tick)), GRID, 1.0)?;
            canvas.text(&label, (LEFT - 8.0, y(*tick)), 12.0, MUTED, Side::Left)?;
        }
        for tick in &x_ticks {
            canvas.line((x(*tick), TOP), (x(*tick), BOTTOM), GRID, 1.0)?;
            canvas.text(&format!("{tick}"), (x(*tick), BOTTOM + 14.0), 12.0, MUTED, Side::Centre)?;
        }
        canvas.text("seconds of training a run", (0.5 * (LEFT + RIGHT), BOTTOM + 38.0), 12.0, MUTED, Side::Centre)?;
        canvas.text(&unit, (20.0, TOP - 20.0), 12.0, MUTED, Side::Right)?;
        // Below the numbers in the legend, which is sorted by score.
        let mut order: Vec<&(&Line, &Cell)> = lines.iter().collect();
        order.sort_by(|a, b| b.1.mean.total_cmp(&a.1.mean));
        let step = ((BOTTOM - TOP) / order.len() as f64).min(22.0);
        for (i, (line, cell)) in order.into_iter().enumerate() {
            let colour = if line.kind == Kind::Method { PALETTE[0] } else { MUTED };
            let (at, number) = ((x(line.seconds), y(scale * cell.mean)), (i + 1).to_string());
            canvas.dot(at, 4.0, colour)?;
            canvas.text(&number, (at.0 + 8.0, at.1 - 8.0), 11.0, INK, Side::Right)?;
            let text = format!("{number}  {}  {}", line.name(), cell.value(head));
            canvas.text(&text, (RIGHT + 24.0, TOP + (i as f64 + 0.5) * step), 12.0, INK, Side::Right)?;
        }
        Ok(())
    };
    figure(&title, &caption, &spoken, SIZE, draw).map(Some)
}
