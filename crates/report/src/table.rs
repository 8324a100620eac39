//! Rows summed up: a line per method and encoder, a column per protocol and metric, mean ± sd over seeds.

use crate::results::{Row, Status};
use crate::statistics::{Difference, mean, paired, sd};
use anyhow::{Result, bail};
use comfy_table::{Cell as Field, CellAlignment, ContentArrangement, LineStyle, Table as Grid, TableStyle};
use std::ops::Range;

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The untrained encoder, `random`.
    Random,
    /// What else takes no training of an encoder: a method of the family `baseline`, and `random` in a variant (an
    /// encoder that starts with given weights).
    Baseline,
    Method,
    /// The encoder trained with labels, `supervised`.
    Supervised,
}

impl Kind {
    fn of(row: &Row) -> Kind {
        match (row.method.as_str(), row.family.as_str()) {
            ("random", _) if row.variant.is_empty() => Kind::Random,
            ("supervised", _) => Kind::Supervised,
            (_, "baseline") => Kind::Baseline,
            _ => Kind::Method,
        }
    }
}

/// What a column shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub protocol: String,
    pub metric: String,
}

impl Column {
    /// Whether its values are shares of correct answers, shown in %, of which more is better.
    pub fn percent(&self) -> bool {
        self.metric.contains("accuracy") || self.metric.starts_with("top")
    }

    /// Its heading: `kNN %`, `linear top5 %`, `uniformity`.
    pub fn title(&self) -> String {
        let protocol = if self.protocol == "knn" { "kNN" } else { self.protocol.as_str() };
        match self.metric.as_str() {
            "accuracy" | "top1" => format!("{protocol} %"),
            metric if metric.starts_with("accuracy_") && metric.ends_with('%') => {
                format!("{protocol}, {} of labels, %", &metric["accuracy_".len()..])
            }
            metric if self.percent() => format!("{protocol} {metric} %"),
            metric if protocol == "geometry" => metric.replace('_', " "),
            metric => format!("{protocol} {}", metric.replace('_', " ")),
        }
    }

    /// What a measure of an own task is called: `bits per dim`, `accuracy %`.
    pub fn measure(&self) -> String {
        let generated = if self.protocol == "pretext" { "" } else { "of generated samples: " };
        let unit = if self.percent() { " %" } else { "" };
        format!("{generated}{}{unit}", self.metric.replace('_', " "))
    }

    /// The factor from plain units to those shown.
    pub fn scale(&self) -> f64 {
        if self.percent() { 100.0 } else { 1.0 }
    }

    fn rank(&self) -> usize {
        let order = ["knn", "linear", "finetune"];
        let protocol = order.iter().position(|p| *p == self.protocol).unwrap_or(order.len());
        if self.percent() { protocol } else { order.len() + 1 }
    }
}

/// The scores of one line in one column, in plain units.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// A score per seed, by seed.
    pub scores: Vec<(u64, f64)>,
    pub mean: f64,
    /// With n - 1; none of one seed.
    pub sd: Option<f64>,
    /// Mean difference to the random encoder of the same kind: over the seeds in common, or, if there are none, of the
    /// two means. None without a random encoder, and for itself.
    pub gain: Option<f64>,
    /// The difference over the seeds in common, with its interval.
    pub paired: Option<Difference>,
}

impl Cell {
    /// The number of seeds.
    pub fn n(&self) -> usize {
        self.scores.len()
    }

    /// `87.31 ± 0.42 (n=3)`; one seed shows no ±.
    pub fn text(&self, column: &Column) -> String {
        format!("{} (n={})", self.value(column), self.n())
    }

    /// `87.31 ± 0.42`.
    pub fn value(&self, column: &Column) -> String {
        let places = if column.percent() { Some(2) } else { places(self.mean) };
        let number = |x: f64| match places {
            Some(places) => format!("{:.*}", places, column.scale() * x),
            None => format!("{x:.3e}"),
        };
        match self.sd {
            Some(sd) => format!("{} ± {}", number(self.mean), number(sd)),
            None => number(self.mean),
        }
    }
}

/// The decimals that show about four digits; none where a number is better written with an exponent.
fn places(x: f64) -> Option<usize> {
    let size = x.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return None;
    }
    let whole = if size < 1.0 { 0 } else { size.log10() as usize + 1 };
    Some(4usize.saturating_sub(whole))
}

/// Protocols that ask of each method what it was trained for. No two methods need have a measure in common, so it is no
/// column of a table.
pub const OWN: [&str; 2] = ["pretext", "generated"];

/// One method, in one variant, with one encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub method: String,
    /// Empty where the study gave none.
    pub variant: String,
    pub family: String,
    /// With what it reads, where the table has the encoder with several inputs: `vit-micro/7 @ 36`.
    pub encoder: String,
    pub kind: Kind,
    /// The configuration's hash, only where one name stands for several configurations.
    pub config: Option<String>,
    /// A cell per column of the table; none where nothing was measured.
    pub cells: Vec<Option<Cell>>,
    /// What it reached at its own task, by measure, the most telling first (protocols [`OWN`]).
    pub own: Vec<(Column, Cell)>,
    /// Training time of a run, the mean over runs, in seconds; of the random encoder the time in which it was judged.
    pub seconds: f64,
    /// Runs in all, and of them those that diverged and those that failed.
    pub runs: usize,
    pub diverged: usize,
    pub failed: usize,
}

impl Line {
    /// The method's name and its variant, with the configuration where that is needed to tell two lines apart.
    pub fn name(&self) -> String {
        let variant = if self.variant.is_empty() { String::new() } else { format!(" ({})", self.variant) };
        match &self.config {
            Some(config) => format!("{}{variant} [{}]", self.method, config.chars().take(8).collect::<String>()),
            None => format!("{}{variant}", self.method),
        }
    }

    /// The first measure of its own task: `bits per dim 0.8380`.
    pub fn own_text(&self) -> String {
        let Some((column, cell)) = self.own.first() else { return "–".into() };
        format!("{} {}", column.measure(), cell.value(column))
    }

    /// `3 runs, 1 diverged`.
    pub fn runs_text(&self) -> String {
        let mut text = format!("{}", self.runs);
        for (count, word) in [(self.diverged, "diverged"), (self.failed, "failed")] {
            if count > 0 {
                text += &format!(", {count} {word}");
            }
        }
        text
    }
}

/// The answer to "does it beat the untrained encoder?".
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// By the difference of the means; none where there is nothing to compare.
    pub beats: Option<bool>,
    /// `yes, +23.40 points of kNN (95 %: +21.10 to +25.70)`.
    pub text: String,
}

/// The scores of one study on one split of one data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub study: String,
    pub dataset: String,
    pub split: String,
    pub columns: Vec<Column>,
    pub lines: Vec<Line>,
}

/// Sums rows up, a table per study, data set and split, in the order in which they come.
///
/// Of a run with scores at several epochs the last counts. Where one name stands for several configurations with the
/// same seed (a study of batch sizes), each configuration is a line of its own; two different numbers for one
/// configuration and seed are refused, since nothing says which of them holds.
pub fn summarise(rows: &[Row]) -> Result<Vec<Table>> {
    distinct(rows, |r| [&r.study, &r.dataset, &r.split])
        .into_iter()
        .map(|key| {
            let rows: Vec<&Row> = rows.iter().filter(|r| [&r.study, &r.dataset, &r.split] == key).collect();
            table(&rows)
        })
        .collect()
}

/// The different values of `key`, in the order of their first occurrence.
fn distinct<'a, T: 'a, K: PartialEq>(rows: impl IntoIterator<Item = &'a T>, key: impl Fn(&'a T) -> K) -> Vec<K> {
    let mut keys = Vec::new();
    for row in rows {
        let key = key(row);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn table(rows: &[&Row]) -> Result<Table> {
    let scored = rows.iter().filter(|r| r.status == Status::Ok && !OWN.contains(&r.protocol.as_str()));
    let mut columns = distinct(scored, |r| Column { protocol: r.protocol.clone(), metric: r.metric.clone() });
    columns.sort_by_key(Column::rank);
    let mut lines = Vec::new();
    let key = |r: &&Row| [&r.method, &r.variant, &r.encoder, &r.input].map(String::clone);
    for key_of_line in distinct(rows, key) {
        let group: Vec<&Row> = rows.iter().copied().filter(|r| key(r) == key_of_line).collect();
        let first = group[0];
        let inputs = distinct(rows.iter().filter(|r| r.encoder == first.encoder), |r| &r.input);
        let encoder = match inputs.len() {
            1 => first.encoder.clone(),
            _ => format!("{} @ {}", first.encoder, first.input),
        };
        if !several_configurations(&group) {
            lines.push(line(&group, encoder, &columns, None)?);
            continue;
        }
        for config in distinct(&group, |r| &r.config_hash) {
            let part: Vec<&Row> = group.iter().copied().filter(|r| r.config_hash == *config).collect();
            lines.push(line(&part, encoder.clone(), &columns, Some(config.clone()))?);
        }
    }
    let families = distinct(rows, |r| &r.family);
    lines.sort_by_key(|l| (l.kind, families.iter().position(|f| **f == l.family)));
    compare_with_random(&mut lines);
    let first = rows[0];
    Ok(Table { study: first.study.clone(), dataset: first.dataset.clone(), split: first.split.clone(), columns, lines })
}

/// Whether one seed occurs with two configurations.
fn several_configurations(rows: &[&Row]) -> bool {
    rows.iter().any(|a| rows.iter().any(|b| a.seed == b.seed && a.config_hash != b.config_hash))
}

fn line(rows: &[&Row], encoder: String, columns: &[Column], config: Option<String>) -> Result<Line> {
    let first = rows[0];
    let own = rows.iter().filter(|r| r.status == Status::Ok && OWN.contains(&r.protocol.as_str()));
    let own = distinct(own, |r| Column { protocol: r.protocol.clone(), metric: r.metric.clone() });
    let own = own.into_iter().map(|column| Ok(cell(rows, &column)?.map(|cell| (column, cell))));
    let ended = |status| distinct(rows.iter().filter(|r| r.status == status), |r| &r.run_id).len();
    Ok(Line {
        method: first.method.clone(),
        variant: first.variant.clone(),
        family: first.family.clone(),
        encoder,
        kind: Kind::of(first),
        config,
        cells: columns.iter().map(|column| cell(rows, column)).collect::<Result<_>>()?,
        own: own.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect(),
        seconds: {
            let runs = distinct(rows, |r| &r.run_id);
            let of = |id: &&String| rows.iter().find(|r| r.run_id == **id).map_or(0.0, |r| r.wall_s);
            mean(&runs.iter().map(of).collect::<Vec<_>>())
        },
        runs: distinct(rows, |r| &r.run_id).len(),
        diverged: ended(Status::Diverged),
        failed: ended(Status::Failed),
    })
}

fn cell(rows: &[&Row], column: &Column) -> Result<Option<Cell>> {
    let mut last: Vec<&Row> = Vec::new();
    for row in rows.iter().filter(|r| r.protocol == column.protocol && r.metric == column.metric && r.value.is_some()) {
        match last.iter_mut().find(|r| r.seed == row.seed) {
            None => last.push(row),
            Some(other) if other.run_id == row.run_id && other.step != row.step => {
                if row.step > other.step {
                    *other = row;
                }
            }
            Some(other) if other.value == row.value => {}
            Some(other) => bail!(
                "{} with {} has two numbers for {} {} and seed {}: {:?} of run {} and {:?} of run {}; \
                 give the report only one of them",
                row.method,
                row.encoder,
                column.protocol,
                column.metric,
                row.seed,
                other.value.unwrap_or_default(),
                other.run_id,
                row.value.unwrap_or_default(),
                row.run_id
            ),
        }
    }
    let mut scores: Vec<(u64, f64)> = last.iter().filter_map(|r| Some((r.seed, r.value?))).collect();
    scores.sort_by_key(|s| s.0);
    let values: Vec<f64> = scores.iter().map(|s| s.1).collect();
    Ok((!values.is_empty()).then(|| Cell { mean: mean(&values), sd: sd(&values), scores, gain: None, paired: None }))
}

fn compare_with_random(lines: &mut [Line]) {
    let random: Vec<(String, Vec<Option<Cell>>)> =
        lines.iter().filter(|l| l.kind == Kind::Random).map(|l| (l.encoder.clone(), l.cells.clone())).collect();
    for line in lines.iter_mut().filter(|l| l.kind != Kind::Random) {
        let Some((_, base)) = random.iter().find(|(encoder, _)| *encoder == line.encoder) else { continue };
        for (cell, base) in line.cells.iter_mut().zip(base) {
            if let (Some(cell), Some(base)) = (cell, base) {
                cell.paired = paired(&cell.scores, &base.scores);
                cell.gain = Some(cell.paired.map_or(cell.mean - base.mean, |difference| difference.mean));
            }
        }
    }
}

impl Table {
    /// `objectives on mnist, test`.
    pub fn title(&self) -> String {
        format!("{} on {}, {}", self.study, self.dataset, self.split)
    }

    /// The column that verdicts are about: the first accuracy, kNN before linear (it has nothing to tune).
    pub fn primary(&self) -> Option<usize> {
        self.columns.iter().position(Column::percent)
    }

    /// The scores of a method with an encoder in a column, for [`paired`].
    pub fn scores(&self, method: &str, encoder: &str, column: usize) -> Option<&[(u64, f64)]> {
        let line = self.lines.iter().find(|l| l.name() == method && l.encoder == encoder)?;
        line.cells.get(column)?.as_ref().map(|cell| cell.scores.as_slice())
    }

    /// Whether a line beats the random encoder of its kind in the primary column, by the difference of the means.
    pub fn verdict(&self, line: &Line) -> Verdict {
        let none = |text: &str| Verdict { beats: None, text: text.into() };
        if line.kind == Kind::Random {
            return none("reference");
        }
        let Some(column) = self.primary() else { return none("no accuracy") };
        let Some(cell) = &line.cells[column] else {
            return none(if line.diverged > 0 { "diverged" } else { "not measured" });
        };
        let Some(gain) = cell.gain else { return none("no random encoder") };
        let name = self.columns[column].title();
        let mut text =
            format!("{}, {:+.2} {}", if gain > 0.0 { "yes" } else { "no" }, 100.0 * gain, name.trim_end_matches(" %"));
        if let Some(Difference { interval: Some((low, high)), .. }) = cell.paired {
            let unclear = if low <= 0.0 && high >= 0.0 { ", not clear" } else { "" };
            text += &format!(" (95 %: {:+.2} to {:+.2}{unclear})", 100.0 * low, 100.0 * high);
        }
        Verdict { beats: Some(gain > 0.0), text }
    }

    /// Whether a method of it was judged by its own task.
    pub fn has_own(&self) -> bool {
        self.lines.iter().any(|line| !line.own.is_empty())
    }

    /// The headings: method, encoder, a column each, the own task where there is one, runs, verdict.
    pub fn head(&self) -> Vec<String> {
        let columns = self.columns.iter().map(Column::title);
        let own = self.has_own().then_some("own task");
        let text = |s: &str| s.to_string();
        ["method", "encoder"]
            .into_iter()
            .map(text)
            .chain(columns)
            .chain(own.into_iter().chain(["runs", "beats random?"]).map(text))
            .collect()
    }

    /// The fields of a line, under [`Table::head`].
    pub fn fields(&self, line: &Line) -> Vec<String> {
        let cells = line.cells.iter().zip(&self.columns).map(|(cell, column)| match cell {
            Some(cell) => cell.text(column),
            None if line.diverged > 0 => "diverged".into(),
            None if line.failed > 0 => "failed".into(),
            None => "–".into(),
        });
        let own = self.has_own().then(|| line.own_text());
        [line.name(), line.encoder.clone()]
            .into_iter()
            .chain(cells)
            .chain(own)
            .chain([line.runs_text(), self.verdict(line).text])
            .collect()
    }

    /// For a terminal of this width; `colour` as by [`colour_wanted`].
    pub fn terminal(&self, width: u16, colour: bool) -> String {
        let fields = self.lines.iter().map(|line| self.fields(line));
        let text = terminal(&self.title(), self.head(), fields, 2..self.columns.len() + 2, width);
        if !colour {
            return text;
        }
        let (title, rest) = text.split_once('\n').unwrap_or((&text, ""));
        // Coloured after the layout, so that no escape sequence is counted as width.
        format!("\x1b[1m{title}\x1b[0m\n{}", rest.replace("diverged", "\x1b[33mdiverged\x1b[0m"))
    }

    /// As a Markdown table.
    pub fn markdown(&self) -> String {
        markdown(self.head(), self.lines.iter().map(|line| self.fields(line)), 2..self.columns.len() + 2)
    }

    /// The wide view as CSV: for each column mean, sd, n and gain over the random encoder, in plain units.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let fixed = [
            "study",
            "dataset",
            "split",
            "method",
            "variant",
            "config_hash",
            "family",
            "encoder",
            "runs",
            "diverged",
            "failed",
        ];
        let of = |c: &Column, part: &str| format!("{}_{}_{part}", c.protocol, c.metric);
        let parts = ["mean", "sd", "n", "gain"];
        let columns = self.columns.iter().flat_map(|c| parts.iter().map(move |part| of(c, part)));
        csv.write_record(fixed.iter().map(|s| s.to_string()).chain(columns))?;
        for line in &self.lines {
            let mut fields: Vec<String> =
                [&self.study, &self.dataset, &self.split, &line.method, &line.variant].map(Clone::clone).into();
            fields.extend([line.config.clone().unwrap_or_default(), line.family.clone(), line.encoder.clone()]);
            fields.extend([line.runs, line.diverged, line.failed].map(|n| n.to_string()));
            for cell in &line.cells {
                let number = |x: Option<f64>| x.map(|x| x.to_string()).unwrap_or_default();
                let cell = cell.as_ref();
                fields.push(number(cell.map(|c| c.mean)));
                fields.push(number(cell.and_then(|c| c.sd)));
                fields.push(cell.map_or("0".into(), |c| c.n().to_string()));
                fields.push(number(cell.and_then(|c| c.gain)));
            }
            csv.write_record(fields)?;
        }
        Ok(csv.into_inner()?)
    }
}

/// Lines of text under a head, whose last column stands at the right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    pub title: String,
    pub head: Vec<String>,
    pub lines: Vec<Vec<String>>,
    /// What to know of it, in small print.
    pub note: String,
}

impl Listing {
    /// For a terminal of this width; nothing without lines.
    pub fn terminal(&self, width: u16) -> String {
        let lines = self.lines.iter().cloned();
        if self.lines.is_empty() {
            return String::new();
        }
        terminal(&self.title, self.head.clone(), lines, self.last(), width)
    }

    /// As a Markdown table; nothing without lines.
    pub fn markdown(&self) -> String {
        let lines = self.lines.iter().cloned();
        if self.lines.is_empty() { String::new() } else { markdown(self.head.clone(), lines, self.last()) }
    }

    fn last(&self) -> Range<usize> {
        self.head.len().saturating_sub(1)..self.head.len()
    }
}

/// What each method reached at its own task: bits per dimension, reconstruction error, accuracy; a line a number. Empty
/// without any such number.
pub fn own_tasks(tables: &[Table]) -> Listing {
    let mut lines = Vec::new();
    for table in tables {
        for line in &table.lines {
            for (column, cell) in &line.own {
                let (name, encoder, data) = (line.name(), line.encoder.clone(), table.dataset.clone());
                lines.push(vec![name, encoder, data, column.measure(), cell.text(column)]);
            }
        }
    }
    Listing {
        title: "What each method was trained for, on test samples".into(),
        head: ["method", "encoder", "data", "measure", "value"].map(String::from).into(),
        lines,
        note: "Measured by the method itself. Numbers of two methods are comparable only where both measure the same \
               thing of the same data."
            .into(),
    }
}

/// A table under its title; the columns of `numeric` stand at the right.
fn terminal(
    title: &str,
    head: Vec<String>,
    lines: impl Iterator<Item = Vec<String>>,
    numeric: Range<usize>,
    width: u16,
) -> String {
    let mut grid = Grid::new();
    grid.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic).set_width(width).set_header(head);
    for line in lines {
        grid.add_row(line.iter().enumerate().map(|(i, text)| {
            let side = if numeric.contains(&i) { CellAlignment::Right } else { CellAlignment::Left };
            Field::new(printable(text)).set_alignment(side)
        }));
    }
    format!("{}\n{grid}\n", printable(title))
}

fn markdown(head: Vec<String>, lines: impl Iterator<Item = Vec<String>>, numeric: Range<usize>) -> String {
    let escape = |s: &String| printable(s).replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;");
    let line = |fields: &[String]| format!("| {} |\n", fields.iter().map(escape).collect::<Vec<_>>().join(" | "));
    let rule: Vec<&str> = (0..head.len()).map(|i| if numeric.contains(&i) { "---:" } else { "---" }).collect();
    let mut text = line(&head) + &format!("| {} |\n", rule.join(" | "));
    lines.for_each(|fields| text += &line(&fields));
    text
}

/// A rule above and below the table and one under its head.
const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// Text without control characters, so that a name cannot move the cursor or break a line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether standard output is a terminal that wants colour: NO_COLOR is unset or empty, TERM is not `dumb`.
pub fn colour_wanted() -> bool {
    use std::io::IsTerminal;
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    std::io::stdout().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}
