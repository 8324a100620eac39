//! Which classes are taken for which.

use super::canvas::{Canvas, Side, figure, text_width};
use super::{Figure, GRID, INK, MUTED};
use anyhow::{Result, ensure};

const HEAD: f64 = 84.0;
const HEIGHT: f64 = 24.0;
const WIDTH: f64 = 42.0;
/// Cells have a number up to so many classes, and beyond that a smaller size.
const NUMBERED: usize = 20;

/// Draws how often each class (row) was taken for each (column): the share of the row in percent, the darker the more.
/// `counts` are `[classes][classes]`.
///
/// # Errors
/// If there is no class, or the counts are not of these classes.
pub fn confusion(title: &str, classes: &[String], counts: &[Vec<u64>]) -> Result<Figure> {
    let n = classes.len();
    ensure!(
        n > 0 && counts.len() == n && counts.iter().all(|row| row.len() == n),
        "{title}: {n} classes need counts of {n} rows and {n} columns"
    );
    let (height, width) = if n <= NUMBERED { (HEIGHT, WIDTH) } else { (HEIGHT / 2.0, HEIGHT / 2.0) };
    let small = if n <= NUMBERED { 12.0 } else { 8.0 };
    let names: Vec<String> = classes.iter().enumerate().map(|(i, name)| format!("{} {name}", i + 1)).collect();
    let left = 20.0 + names.iter().map(|name| text_width(name, small)).fold(60.0, f64::max) + 10.0;
    let size = ((left + n as f64 * width + 20.0).max(480.0), HEAD + n as f64 * height + 16.0);
    let right: u64 = (0..n).map(|i| counts[i][i]).sum();
    let all: u64 = counts.iter().flatten().sum();
    let share = 100.0 * right as f64 / all.max(1) as f64;
    let caption = format!("{title}. Row: the class; column: what it was taken for; in percent of the row.");
    let spoken = format!("{title}: {share:.1} % of {all} are right");
    figure(title, &caption, &spoken, size, |canvas: &mut Canvas<'_>| {
        let x = |j: usize| left + j as f64 * width;
        let y = |i: usize| HEAD + i as f64 * height;
        for (i, row) in counts.iter().enumerate() {
            canvas.text(&names[i], (left - 10.0, y(i) + 0.5 * height), small, INK, Side::Left)?;
            if n <= NUMBERED {
                canvas.text(&(i + 1).to_string(), (x(i) + 0.5 * width, HEAD - 14.0), small, MUTED, Side::Centre)?;
            }
            let sum = row.iter().sum::<u64>().max(1) as f64;
            for (j, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                let share = count as f64 / sum;
                canvas.rectangle((x(j), y(i)), (x(j) + width, y(i) + height), &shade(share))?;
                if n <= NUMBERED && share >= 0.005 {
                    let ink = if share > 0.55 { "#FFFFFF" } else { INK };
                    let at = (x(j) + 0.5 * width, y(i) + 0.5 * height);
                    canvas.text(&format!("{:.0}", 100.0 * share), at, 11.0, ink, Side::Centre)?;
                }
            }
        }
        for i in 0..=n {
            canvas.line((left, y(i)), (x(n), y(i)), GRID, 1.0)?;
            canvas.line((x(i), HEAD), (x(i), y(n)), GRID, 1.0)?;
        }
        Ok(())
    })
}

/// From white to blue. The root lets small shares be seen.
fn shade(share: f64) -> String {
    let part = |dark: f64| (255.0 + (dark - 255.0) * share.clamp(0.0, 1.0).sqrt()).round() as u8;
    format!("#{:02X}{:02X}{:02X}", part(0.0), part(84.0), part(140.0))
}
