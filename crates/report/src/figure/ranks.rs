//! Mean ranks of methods over data sets and seeds, with what two must be apart (Demsar 2006, figure 1).

use super::canvas::{Canvas, Side, figure, text_width};
use super::{Figure, GRID, INK, MUTED, PALETTE};
use crate::statistics::ranking;
use crate::table::{Kind, Table};
use anyhow::Result;

const WIDTH: f64 = 900.0;
const HEAD: f64 = 76.0;
const ROW: f64 = 24.0;

/// Ranks the methods that have a score in the first accuracy of every table and of every seed of it; 1 is the best. Two
/// methods whose whiskers do not touch differ by more than Nemenyi's critical difference at 5 %. None if fewer than three
/// methods or two comparisons are left.
///
/// # Errors
/// If it cannot be drawn.
pub fn ranks(tables: &[Table]) -> Result<Option<Figure>> {
    let tables: Vec<(&Table, usize)> = tables.iter().filter_map(|t| Some((t, t.primary()?))).collect();
    let scores = |name: &str, table: &Table, column: usize| -> Option<Vec<(u64, f64)>> {
        let mut lines = table.lines.iter().filter(|l| l.name() == name);
        let line = lines.next()?;
        // Of a name with several encoders nothing says which is meant.
        lines.next().is_none().then(|| line.cells[column].as_ref().map(|cell| cell.scores.clone()))?
    };
    let Some((first, _)) = tables.first() else { return Ok(None) };
    let methods: Vec<String> = first
        .lines
        .iter()
        .filter(|l| l.kind == Kind::Method)
        .map(|l| l.name())
        .filter(|name| tables.iter().all(|(t, column)| scores(name, t, *column).is_some()))
        .collect();
    let mut comparisons: Vec<Vec<f64>> = Vec::new();
    for (table, column) in &tables {
        let all: Vec<Vec<(u64, f64)>> = methods.iter().filter_map(|name| scores(name, table, *column)).collect();
        for (seed, _) in all.first().into_iter().flatten() {
            let of = |scores: &Vec<(u64, f64)>| scores.iter().find(|(s, _)| s == seed).map(|(_, score)| *score);
            comparisons.extend(all.iter().map(of).collect::<Option<Vec<f64>>>());
        }
    }
    let (k, n) = (methods.len(), comparisons.len());
    if k < 3 || n < 2 {
        return Ok(None);
    }
    let found = ranking(&comparisons)?;
    let half = 0.5 * found.critical_difference;
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| found.mean_ranks[a].total_cmp(&found.mean_ranks[b]));
    let title = "Mean ranks".to_string();
    let caption = format!(
        "Ranks of {k} methods over {n} comparisons ({} data sets and their seeds, which are not independent), 1 the best. \
         Methods whose whiskers do not touch differ by more than the critical difference {:.2} at 5 % (Nemenyi).",
        tables.len(),
        found.critical_difference
    );
    let one = |&i: &usize| format!("{} {:.2}", methods[i], found.mean_ranks[i]);
    let spoken = format!("{title}: {}", order.iter().map(one).collect::<Vec<_>>().join(", "));
    let left = 20.0 + methods.iter().map(|name| text_width(name, 12.0)).fold(60.0, f64::max) + 14.0;
    let right = WIDTH - 70.0;
    let bottom = HEAD + k as f64 * ROW;
    let draw = |canvas: &mut Canvas<'_>| {
        let x = |rank: f64| left + (right - left) * ((rank - 1.0) / (k - 1) as f64).clamp(0.0, 1.0);
        for rank in 1..=k {
            canvas.line((x(rank as f64), HEAD), (x(rank as f64), bottom), GRID, 1.0)?;
            canvas.text(&rank.to_string(), (x(rank as f64), HEAD - 12.0), 11.0, MUTED, Side::Centre)?;
        }
        for (row, &i) in order.iter().enumerate() {
            let (rank, y) = (found.mean_ranks[i], HEAD + (row as f64 + 0.5) * ROW);
            canvas.text(&methods[i], (left - 14.0, y), 12.0, INK, Side::Left)?;
            canvas.line((x(rank - half), y), (x(rank + half), y), PALETTE[0], 2.0)?;
            canvas.dot((x(rank), y), 4.0, PALETTE[0])?;
            canvas.text(&format!("{rank:.2}"), (WIDTH - 20.0, y), 12.0, INK, Side::Left)?;
        }
        Ok(())
    };
    figure(&title, &caption, &spoken, (WIDTH, bottom + 16.0), draw).map(Some)
}
