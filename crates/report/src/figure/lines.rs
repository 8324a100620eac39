//! Curves over a run: a line per method, its name at its end, where it covers no data.

use super::canvas::{Canvas, Point, Side, figure, text_width};
use super::{Figure, GRID, INK, MUTED, PALETTE, tick_labels, ticks};
use crate::statistics::{mean, sd};
use anyhow::{Result, ensure};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 520.0;
const HEAD: f64 = 74.0;
const FOOT: f64 = 58.0;
/// More points than this are thinned: the picture has no room for them.
const BINS: usize = 300;

/// What the axes show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axes {
    pub title: String,
    /// Under the horizontal axis: `epoch`.
    pub x: String,
    /// Above the vertical axis: `loss`.
    pub y: String,
    /// Whether values are shares, shown in %.
    pub percent: bool,
}

/// One line: the mean of some runs and their spread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub name: String,
    /// (x, mean), ascending in x; a value that is not finite interrupts the line.
    pub points: Vec<(f64, f64)>,
    /// The standard deviation at each point; empty for one run.
    pub spread: Vec<f64>,
    /// Runs whose last value is not finite, and runs in all.
    pub diverged: usize,
    pub runs: usize,
}

impl Series {
    /// Mean and sd of several runs at each x that they share; a run that diverged counts as long as it is finite.
    ///
    /// Of one metric of a metrics.csv, [`crate::metrics::points`] makes a run.
    pub fn of_runs(name: &str, runs: &[Vec<(f64, f64)>]) -> Series {
        let mut series = Series { name: name.into(), runs: runs.len(), ..Series::default() };
        series.diverged = runs.iter().filter(|run| run.last().is_some_and(|p| !p.1.is_finite())).count();
        let Some(longest) = runs.iter().max_by_key(|run| run.len()) else { return series };
        for (x, _) in longest {
            let at = |run: &Vec<(f64, f64)>| {
                let i = run.partition_point(|p| p.0 < *x);
                run.get(i).filter(|p| p.0 == *x && p.1.is_finite()).map(|p| p.1)
            };
            let values: Vec<f64> = runs.iter().filter_map(at).collect();
            series.points.push((*x, mean(&values)));
            series.spread.push(sd(&values).unwrap_or(0.0));
        }
        if runs.len() < 2 {
            series.spread.clear();
        }
        series
    }

    fn label(&self) -> String {
        match (self.diverged, self.runs) {
            (0, _) => self.name.clone(),
            (d, runs) if d >= runs => format!("{} (diverged)", self.name),
            (d, runs) => format!("{} ({d} of {runs} diverged)", self.name),
        }
    }

    /// Of each bin the lowest and the highest point, in their order: a spike stays a spike.
    fn thinned(&self) -> Vec<(usize, f64, f64)> {
        let all: Vec<(usize, f64, f64)> = self.points.iter().enumerate().map(|(i, p)| (i, p.0, p.1)).collect();
        if all.len() <= 2 * BINS {
            return all;
        }
        let mut kept = Vec::new();
        for bin in all.chunks(all.len().div_ceil(BINS)) {
            let by = |a: &&(usize, f64, f64), b: &&(usize, f64, f64)| a.2.total_cmp(&b.2);
            let mut ends: Vec<(usize, f64, f64)> =
                bin.iter().min_by(by).into_iter().chain(bin.iter().max_by(by)).copied().collect();
            ends.sort_by_key(|p| p.0);
            ends.dedup_by_key(|p| p.0);
            kept.extend(ends);
        }
        kept
    }
}

/// Draws curves; each has its name at the right, in its colour, on a column of its own.
pub fn lines(axes: &Axes, series: &[Series]) -> Result<Figure> {
    ensure!(!series.is_empty(), "{}: no line is given, so there is nothing to draw", axes.title);
    ensure!(
        series.iter().any(|s| s.points.iter().any(|p| p.0.is_finite() && p.1.is_finite())),
        "{}: no line has a finite value, so there is nothing to draw",
        axes.title
    );
    let plot = Plot::new(axes, series);
    let names: Vec<String> = series.iter().map(Series::label).collect();
    let spread =
        if series.iter().any(|s| !s.spread.is_empty()) { " Mean and standard deviation over seeds." } else { "" };
    let caption = format!("{}.{spread}", axes.title);
    let description = format!("{}: {} over {} of {}", axes.title, axes.y, axes.x, names.join(", "));
    figure(&axes.title, &caption, &description, (WIDTH, HEIGHT), |canvas| plot.draw(canvas))
}

struct Plot<'a> {
    axes: &'a Axes,
    series: &'a [Series],
    scale: f64,
    x_ticks: Vec<f64>,
    y_ticks: Vec<f64>,
    x_range: (f64, f64),
    left: f64,
    right: f64,
}

impl<'a> Plot<'a> {
    fn new(axes: &'a Axes, series: &'a [Series]) -> Plot<'a> {
        let scale = if axes.percent { 100.0 } else { 1.0 };
        let (mut x_range, mut y_range) = (EMPTY, EMPTY);
        for s in series {
            for (i, (x, y)) in s.points.iter().enumerate().filter(|(_, p)| p.1.is_finite()) {
                let sd = s.spread.get(i).copied().unwrap_or(0.0);
                x_range = (x_range.0.min(*x), x_range.1.max(*x));
                y_range = (y_range.0.min(scale * (y - sd)), y_range.1.max(scale * (y + sd)));
            }
        }
        if x_range.1 <= x_range.0 {
            x_range = (x_range.0 - 0.5, x_range.1 + 0.5);
        }
        let mut y_ticks = ticks(y_range.0, y_range.1, 6);
        if axes.percent {
            y_ticks.retain(|t| (-1e-9..=100.0 + 1e-9).contains(t));
        }
        let mut x_ticks = ticks(x_range.0, x_range.1, 7);
        x_ticks.retain(|t| (x_range.0 - 1e-9..=x_range.1 + 1e-9).contains(t));
        if x_ticks.len() < 2 {
            x_ticks = vec![x_range.0, x_range.1];
        }
        let widest = |texts: Vec<String>, size| texts.iter().map(|t| text_width(t, size)).fold(0.0, f64::max);
        let left = 20.0 + widest(tick_labels(&y_ticks), 12.0) + 10.0;
        let right = WIDTH - 20.0 - widest(series.iter().map(Series::label).collect(), 13.0).min(280.0) - 26.0;
        Plot { axes, series, scale, x_ticks, y_ticks, x_range, left, right }
    }

    fn at(&self, x: f64, y: f64) -> Point {
        let (low, high) = (self.y_ticks[0], self.y_ticks[self.y_ticks.len() - 1]);
        let across = (x - self.x_range.0) / (self.x_range.1 - self.x_range.0);
        let up = ((self.scale * y - low) / (high - low)).clamp(0.0, 1.0);
        (self.left + across * (self.right - self.left), HEIGHT - FOOT - up * (HEIGHT - FOOT - HEAD))
    }

    fn draw(&self, canvas: &mut Canvas<'_>) -> Result<()> {
        self.grid(canvas)?;
        let mut ends = Vec::new();
        for (i, series) in self.series.iter().enumerate() {
            ends.push(self.line(canvas, i, series)?);
        }
        self.names(canvas, &ends)
    }

    fn grid(&self, canvas: &mut Canvas<'_>) -> Result<()> {
        let (bottom, middle) = (HEIGHT - FOOT, 0.5 * (self.left + self.right));
        for (tick, label) in self.y_ticks.iter().zip(tick_labels(&self.y_ticks)) {
            let y = self.at(0.0, tick / self.scale).1;
            canvas.line((self.left, y), (self.right, y), GRID, 1.0)?;
            canvas.text(&label, (self.left - 8.0, y), 12.0, MUTED, Side::Left)?;
        }
        for (tick, label) in self.x_ticks.iter().zip(tick_labels(&self.x_ticks)) {
            let x = self.at(*tick, 0.0).0;
            canvas.line((x, bottom), (x, bottom + 5.0), MUTED, 1.0)?;
            canvas.text(&label, (x, bottom + 17.0), 12.0, MUTED, Side::Centre)?;
        }
        canvas.line((self.left, bottom), (self.right, bottom), MUTED, 1.0)?;
        canvas.text(&self.axes.x, (middle, bottom + 40.0), 12.0, MUTED, Side::Centre)?;
        let mut text = if self.axes.percent { format!("{}, %", self.axes.y) } else { self.axes.y.clone() };
        if self.y_ticks[0] > 0.0 {
            text += &format!(" (the axis starts at {}, not at 0)", tick_labels(&self.y_ticks)[0]);
        }
        if self.series.iter().any(|s| !s.spread.is_empty()) {
            text += "; band: sd over seeds";
        }
        canvas.text(&text, (20.0, 54.0), 12.0, MUTED, Side::Right)
    }

    /// Draws one line and gives the place of its last finite point.
    fn line(&self, canvas: &mut Canvas<'_>, i: usize, series: &Series) -> Result<Option<Point>> {
        let colour = PALETTE[i % PALETTE.len()];
        let points = series.thinned();
        let mut last = None;
        for part in points.split(|p| !p.2.is_finite()).filter(|part| !part.is_empty()) {
            let path: Vec<Point> = part.iter().map(|p| self.at(p.1, p.2)).collect();
            if !series.spread.is_empty() {
                let edge = |p: &(usize, f64, f64), sign: f64| self.at(p.1, p.2 + sign * series.spread[p.0]);
                let band: Vec<Point> =
                    part.iter().map(|p| edge(p, 1.0)).chain(part.iter().rev().map(|p| edge(p, -1.0))).collect();
                canvas.band(&band, colour)?;
            }
            match i / PALETTE.len() {
                0 => canvas.path(&path, colour, 2.2)?,
                1 => canvas.dashed(&path, colour, 2.2, 8.0, 4.0)?,
                _ => canvas.dashed(&path, colour, 2.2, 2.5, 3.0)?,
            }
            if path.len() == 1 {
                canvas.dot(path[0], 3.0, colour)?;
            }
            last = path.last().copied();
        }
        // Where other runs go on, the name says that one was lost.
        if let (true, Some((x, y))) = (series.diverged > 0 && series.diverged == series.runs, last) {
            for sign in [-1.0, 1.0] {
                canvas.line((x - 5.0, y - sign * 5.0), (x + 5.0, y + sign * 5.0), colour, 2.2)?;
            }
        }
        Ok(last)
    }

    fn names(&self, canvas: &mut Canvas<'_>, ends: &[Option<Point>]) -> Result<()> {
        let floor = HEIGHT - FOOT;
        let apart = (17.0f64).min((floor - 40.0) / ends.len() as f64);
        let mut order: Vec<usize> = (0..ends.len()).collect();
        let height = |i: usize| ends[i].map_or(floor, |p| p.1);
        order.sort_by(|a, b| height(*a).total_cmp(&height(*b)));
        let heights = spread_out(&order.iter().map(|i| height(*i)).collect::<Vec<_>>(), apart, HEAD - 20.0, floor);
        for (i, y) in order.into_iter().zip(heights) {
            let colour = PALETTE[i % PALETTE.len()];
            let x = self.right + 26.0;
            if let Some(end) = ends[i] {
                canvas.path(&[(end.0.max(self.right - 1.0) + 4.0, end.1), (x - 9.0, y), (x - 4.0, y)], colour, 1.0)?;
            }
            canvas.text(&self.series[i].label(), (x, y), apart.min(13.0), INK, Side::Right)?;
        }
        Ok(())
    }
}

const EMPTY: (f64, f64) = (f64::INFINITY, f64::NEG_INFINITY);

/// Moves ascending heights apart as little as one pass each way allows, within `top` and `bottom`.
fn spread_out(heights: &[f64], apart: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut y = heights.to_vec();
    let mut least = top;
    for h in &mut y {
        *h = h.max(least);
        least = *h + apart;
    }
    let mut most = bottom;
    for h in y.iter_mut().rev() {
        *h = h.min(most);
        most = *h - apart;
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_apart_and_inside() {
        let y = spread_out(&[100.0, 100.0, 101.0, 400.0, 400.0], 17.0, 50.0, 400.0);
        assert!(y.windows(2).all(|p| p[1] - p[0] >= 17.0 - 1e-9) && y[0] >= 50.0 && y[4] <= 400.0, "{y:?}");
    }

    #[test]
    fn thinning_keeps_a_spike() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (i as f64, 1.0)).collect();
        points[5_003].1 = 9.0;
        let series = Series { points, ..Series::default() };
        let kept = series.thinned();
        assert!(kept.len() <= 2 * BINS && kept.iter().any(|p| p.2 == 9.0));
    }

    #[test]
    fn the_mean_of_runs_takes_what_is_finite() {
        let runs = [vec![(0.0, 1.0), (1.0, 2.0)], vec![(0.0, 3.0), (1.0, f64::NAN)]];
        let series = Series::of_runs("a", &runs);
        assert_eq!(series.points, [(0.0, 2.0), (1.0, 2.0)]);
        assert_eq!(series.spread, [2f64.sqrt(), 0.0]);
        assert_eq!(series.label(), "a (1 of 2 diverged)");
    }
}
