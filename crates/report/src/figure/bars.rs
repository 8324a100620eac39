//! A score per method: bars from zero, or marks where zero is far away; seeds as dots, sd as whisker.

use super::canvas::{Canvas, Side, figure, text_width};
use super::{Figure, GRID, INK, MUTED, PALETTE, tick_labels, ticks};
use crate::table::{Cell, Column, Kind, Line, Table};
use anyhow::{Context, Result, ensure};

const WIDTH: f64 = 900.0;
const HEAD: f64 = 82.0;
const FOOT: f64 = 54.0;
/// Extra room between the random encoder, the methods and the supervised encoder.
const GAP: f64 = 12.0;

/// Draws one column of a table: a row per method, the random encoder dashed across the rows of its kind.
///
/// A bar's length is its number, so bars start at zero. Where all scores lie so close together that bars from zero
/// would hide their differences (a range below a quarter of the largest), means are marks on an axis that does not
/// start at zero, and the figure says so.
pub fn bars(table: &Table, column: usize) -> Result<Figure> {
    let head = table.columns.get(column).with_context(|| {
        format!("the table has {} columns, found a figure of column {column}; the first is 0", table.columns.len())
    })?;
    let rows: Vec<&Line> =
        table.lines.iter().filter(|l| l.cells[column].is_some() || l.diverged + l.failed > 0).collect();
    ensure!(!rows.is_empty(), "{}: no line has {}, so there is nothing to draw", table.title(), head.title());
    let plot = Plot::new(table, head, column, rows);
    let title = format!("{}: {}", head.title().replace(" %", " accuracy"), table.title());
    let caption = format!("{title}. Mean, standard deviation and each seed.");
    figure(&title, &caption, &plot.description(&title), (WIDTH, plot.bottom() + FOOT), |canvas| plot.draw(canvas))
}

/// What is where.
struct Plot<'a> {
    table: &'a Table,
    head: &'a Column,
    column: usize,
    rows: Vec<&'a Line>,
    ticks: Vec<f64>,
    /// Whether lengths show the scores; marks otherwise.
    bars: bool,
    left: f64,
    right: f64,
    row_height: f64,
}

impl<'a> Plot<'a> {
    fn new(table: &'a Table, head: &'a Column, column: usize, rows: Vec<&'a Line>) -> Plot<'a> {
        let scale = head.scale();
        let mut values: Vec<f64> = Vec::new();
        for cell in rows.iter().filter_map(|l| l.cells[column].as_ref()) {
            let sd = cell.sd.unwrap_or(0.0);
            values.extend([cell.mean - sd, cell.mean + sd].map(|v| scale * v));
            values.extend(cell.scores.iter().map(|s| scale * s.1));
        }
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if values.is_empty() { (0.0, 1.0) } else { (low, high) };
        let bars = low <= 0.0 || high - low >= 0.25 * high;
        let mut ticks = ticks(if bars { low.min(0.0) } else { low }, high.max(if bars { 0.0 } else { high }), 6);
        if head.percent() {
            // The whisker of a score near 100 % may reach above it; the axis need not.
            ticks.retain(|t| *t <= 100.0 + 1e-9);
        }
        let mut plot = Plot { table, head, column, rows, ticks, bars, left: 0.0, right: 0.0, row_height: 0.0 };
        let widest = |texts: Vec<String>| texts.iter().map(|t| text_width(t, 13.0)).fold(60.0, f64::max);
        plot.left = 20.0 + widest(plot.rows.iter().map(|l| plot.label(l)).collect()).min(260.0) + 12.0;
        let numbers = widest(plot.rows.iter().map(|l| plot.number(l)).collect());
        let lost = plot.rows.iter().map(|l| text_width(&plot.lost(l), 11.0)).fold(0.0, f64::max);
        plot.right = WIDTH - 20.0 - numbers.max(lost).min(260.0) - 20.0;
        plot.row_height = ((520.0 - HEAD - FOOT) / plot.rows.len() as f64).clamp(30.0, 52.0);
        plot
    }

    /// The method, and its encoder where the table has several.
    fn label(&self, line: &Line) -> String {
        let several = self.table.lines.iter().any(|l| l.encoder != line.encoder);
        if several { format!("{} · {}", line.name(), line.encoder) } else { line.name() }
    }

    /// The score, empty where there is none.
    fn number(&self, line: &Line) -> String {
        line.cells[self.column].as_ref().map(|cell| cell.value(self.head).replace('-', "−")).unwrap_or_default()
    }

    /// What became of runs without a score, empty if all have one.
    fn lost(&self, line: &Line) -> String {
        let lost: Vec<String> = [(line.diverged, "diverged"), (line.failed, "failed")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} of {} {word}", line.runs))
            .collect();
        lost.join(", ")
    }

    fn description(&self, title: &str) -> String {
        let row = |l: &&Line| {
            let parts = [self.label(l), self.number(l), self.lost(l)];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        };
        format!("{title}: {}", self.rows.iter().map(row).collect::<Vec<_>>().join("; "))
    }

    fn x(&self, value: f64) -> f64 {
        let (first, last) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        let share = (value - first) / (last - first);
        self.left + share.clamp(0.0, 1.02) * (self.right - self.left)
    }

    /// The middle of row `i`, with the gaps above it.
    fn y(&self, i: usize) -> f64 {
        let gaps = self.rows[..=i].windows(2).filter(|pair| group(pair[0]) != group(pair[1])).count();
        HEAD + (i as f64 + 0.5) * self.row_height + gaps as f64 * GAP
    }

    fn bottom(&self) -> f64 {
        self.y(self.rows.len() - 1) + 0.5 * self.row_height + 4.0
    }

    fn families(&self) -> Vec<&'a str> {
        let mut families: Vec<&str> = Vec::new();
        for line in self.rows.iter().filter(|l| l.kind == Kind::Method) {
            if !families.contains(&line.family.as_str()) {
                families.push(&line.family);
            }
        }
        families
    }

    fn colour(&self, line: &Line) -> &'static str {
        match self.families().iter().position(|f| line.kind == Kind::Method && *f == line.family) {
            Some(i) => PALETTE[i % PALETTE.len()],
            None => "#999999",
        }
    }

    fn draw(&self, canvas: &mut Canvas<'_>) -> Result<()> {
        self.legend(canvas)?;
        self.axis(canvas)?;
        for (i, line) in self.rows.iter().enumerate() {
            let y = self.y(i);
            canvas.text(&self.label(line), (self.left - 12.0, y), 13.0, INK, Side::Left)?;
            let (number, lost) = (self.number(line), self.lost(line));
            let shift = if number.is_empty() || lost.is_empty() { 0.0 } else { 7.5 };
            canvas.text(&number, (WIDTH - 20.0, y - shift), 13.0, INK, Side::Left)?;
            canvas.text(&lost, (WIDTH - 20.0, y + shift), 11.0, MUTED, Side::Left)?;
            if let Some(cell) = &line.cells[self.column] {
                self.row(canvas, y, cell, self.colour(line))?;
            }
        }
        self.random(canvas)
    }

    fn row(&self, canvas: &mut Canvas<'_>, y: f64, cell: &Cell, colour: &str) -> Result<()> {
        let half = (0.32 * self.row_height).min(13.0);
        let x = |value: f64| self.x(self.head.scale() * value);
        let mean = x(cell.mean);
        if self.bars {
            let zero = self.x(0.0);
            canvas.rectangle((zero.min(mean), y - half), (zero.max(mean), y + half), colour)?;
        } else {
            canvas.rectangle((mean - 2.0, y - half), (mean + 2.0, y + half), colour)?;
        }
        if let Some(sd) = cell.sd {
            let (low, high) = (x(cell.mean - sd), x(cell.mean + sd));
            let y = y - 0.6 * half;
            canvas.line((low, y), (high, y), INK, 1.6)?;
            for end in [low, high] {
                canvas.line((end, y - 3.5), (end, y + 3.5), INK, 1.6)?;
            }
        }
        // Below the whisker, one above another in the order of their numbers, so that equal scores stay apart.
        let n = cell.n();
        let apart = if n > 1 { (half / (n - 1) as f64).min(6.0) } else { 0.0 };
        for (i, (_, score)) in cell.scores.iter().enumerate() {
            canvas.dot((x(*score), y + 0.35 * half + (i as f64 - 0.5 * (n - 1) as f64) * apart), 2.5, INK)?;
        }
        Ok(())
    }

    /// A dashed line at the random encoder's mean, over the rows of its encoder.
    fn random(&self, canvas: &mut Canvas<'_>) -> Result<()> {
        for base in self.rows.iter().filter(|l| l.kind == Kind::Random) {
            let Some(cell) = &base.cells[self.column] else { continue };
            let x = self.x(self.head.scale() * cell.mean);
            let mine: Vec<usize> = (0..self.rows.len()).filter(|i| self.rows[*i].encoder == base.encoder).collect();
            for run in mine.chunk_by(|a, b| b - a == 1) {
                let (top, end) = (self.y(run[0]), self.y(run[run.len() - 1]));
                let half = 0.5 * self.row_height;
                canvas.dashed(&[(x, top - half), (x, end + half)], INK, 1.4, 5.0, 4.0)?;
            }
        }
        Ok(())
    }

    fn axis(&self, canvas: &mut Canvas<'_>) -> Result<()> {
        let bottom = self.bottom();
        for (tick, label) in self.ticks.iter().zip(tick_labels(&self.ticks)) {
            let x = self.x(*tick);
            let zero = *tick == 0.0 && self.bars;
            canvas.line((x, HEAD), (x, bottom), if zero { MUTED } else { GRID }, 1.0)?;
            canvas.text(&label, (x, bottom + 14.0), 12.0, MUTED, Side::Centre)?;
        }
        let mut text = self.head.title().replace(" %", " accuracy, %");
        if !self.bars {
            text += &format!(" (the axis starts at {}, not at 0)", tick_labels(&self.ticks)[0]);
        }
        canvas.text(&text, (0.5 * (self.left + self.right), bottom + 36.0), 12.0, MUTED, Side::Centre)
    }

    fn legend(&self, canvas: &mut Canvas<'_>) -> Result<()> {
        let mut x = 20.0;
        let y = 58.0;
        let mut entries: Vec<(String, &str)> = Vec::new();
        for (i, family) in self.families().into_iter().enumerate() {
            entries.push((family.to_string(), PALETTE[i % PALETTE.len()]));
        }
        entries.push(("no method".into(), "#999999"));
        for (text, colour) in entries {
            canvas.rectangle((x, y - 6.0), (x + 12.0, y + 6.0), colour)?;
            canvas.text(&text, (x + 18.0, y), 12.0, MUTED, Side::Right)?;
            x += 18.0 + text_width(&text, 12.0) + 16.0;
        }
        canvas.dot((x + 4.0, y), 2.5, INK)?;
        canvas.text("one seed", (x + 14.0, y), 12.0, MUTED, Side::Right)?;
        x += 14.0 + text_width("one seed", 12.0) + 16.0;
        canvas.line((x, y), (x + 18.0, y), INK, 1.6)?;
        for end in [x, x + 18.0] {
            canvas.line((end, y - 4.0), (end, y + 4.0), INK, 1.6)?;
        }
        canvas.text("sd", (x + 25.0, y), 12.0, MUTED, Side::Right)?;
        x += 25.0 + text_width("sd", 12.0) + 16.0;
        if self.rows.iter().any(|l| l.kind == Kind::Random && l.cells[self.column].is_some()) {
            canvas.dashed(&[(x, y), (x + 23.0, y)], INK, 1.4, 5.0, 4.0)?;
            canvas.text("random encoder", (x + 30.0, y), 12.0, MUTED, Side::Right)?;
        }
        Ok(())
    }
}

/// Rows of one group stand together.
fn group(line: &Line) -> usize {
    match line.kind {
        Kind::Random | Kind::Baseline => 0,
        Kind::Method => 1,
        Kind::Supervised => 2,
    }
}
