//! Every line of a table against every other: the difference over seeds, and whether it is more than chance.

use super::canvas::{Canvas, Side, figure, text_width};
use super::{Figure, GRID, INK, MUTED};
use crate::statistics::{Difference, holm, paired};
use crate::table::{Line, Table};
use anyhow::{Context, Result};

const HEAD: f64 = 84.0;
const HEIGHT: f64 = 26.0;
const WIDTH: f64 = 52.0;
/// Better and worse than the column's method.
const BETTER: &str = "#BFE0F2";
const WORSE: &str = "#F6D0B8";

/// Draws row minus column, in points where the column of the table is a share. Coloured cells stay below 5 % after Holm's
/// correction for all pairs; white ones may be chance. None if fewer than two lines have two seeds in common.
///
/// # Errors
/// If the table has no such column.
pub fn matrix(table: &Table, column: usize) -> Result<Option<Figure>> {
    let head = table.columns.get(column).context("a column of the table")?;
    let scored: Vec<(&Line, &[(u64, f64)])> =
        table.lines.iter().filter_map(|l| Some((l, l.cells[column].as_ref()?.scores.as_slice()))).collect();
    let n = scored.len();
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect();
    let found = |&(i, j): &(usize, usize)| paired(scored[i].1, scored[j].1).filter(|d| d.p.is_some());
    let found: Vec<((usize, usize), Difference)> = pairs.iter().filter_map(|ij| Some((*ij, found(ij)?))).collect();
    if found.is_empty() {
        return Ok(None);
    }
    let corrected = holm(&found.iter().filter_map(|(_, d)| d.p).collect::<Vec<_>>());
    let title = format!("Differences in {}: {}", head.title().replace(" %", " accuracy"), table.title());
    let unit = if head.percent() { "points" } else { "plain units" };
    let clear = corrected.iter().filter(|p| **p < 0.05).count();
    let caption = format!(
        "{title}. Row less column, in {unit}, mean over the seeds in common. Coloured: p below 0.05 by a paired t test, \
         corrected by Holm's rule for {} pairs.",
        found.len()
    );
    let names: Vec<String> =
        scored.iter().enumerate().map(|(i, (line, _))| format!("{} {}", i + 1, line.name())).collect();
    let left = 20.0 + names.iter().map(|name| text_width(name, 12.0)).fold(60.0, f64::max) + 10.0;
    let size = ((left + n as f64 * WIDTH + 20.0).max(620.0), HEAD + n as f64 * HEIGHT + 16.0);
    let spoken = format!("{title}: {clear} of {} pairs differ", found.len());
    let draw = |canvas: &mut Canvas<'_>| {
        let x = |j: usize| left + j as f64 * WIDTH;
        let y = |i: usize| HEAD + i as f64 * HEIGHT;
        for (i, name) in names.iter().enumerate() {
            canvas.text(name, (left - 10.0, y(i) + 0.5 * HEIGHT), 12.0, INK, Side::Left)?;
            canvas.text(&(i + 1).to_string(), (x(i) + 0.5 * WIDTH, HEAD - 14.0), 12.0, MUTED, Side::Centre)?;
        }
        for (((i, j), difference), p) in found.iter().zip(&corrected) {
            for (i, j, mean) in [(*i, *j, difference.mean), (*j, *i, -difference.mean)] {
                if *p < 0.05 {
                    let colour = if mean > 0.0 { BETTER } else { WORSE };
                    canvas.rectangle((x(j), y(i)), (x(j) + WIDTH, y(i) + HEIGHT), colour)?;
                }
                let text = format!("{:+.*}", if head.percent() { 1 } else { 3 }, head.scale() * mean).replace('-', "−");
                canvas.text(&text, (x(j) + 0.5 * WIDTH, y(i) + 0.5 * HEIGHT), 11.0, INK, Side::Centre)?;
            }
        }
        for i in 0..=n {
            canvas.line((left, y(i)), (x(n), y(i)), GRID, 1.0)?;
            canvas.line((x(i), HEAD), (x(i), y(n)), GRID, 1.0)?;
        }
        Ok(())
    };
    figure(&title, &caption, &spoken, size, draw).map(Some)
}
