//! results.csv: tidy scores, one number a row, every key in a column of its own.

use crate::file::write_whole;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::path::Path;
use std::str::FromStr;

/// The columns of results.csv, in order.
pub const COLUMNS: [&str; 21] = [
    "run_id",
    "study",
    "method",
    "variant",
    "family",
    "encoder",
    "dataset",
    "input",
    "split",
    "protocol",
    "metric",
    "value",
    "epoch",
    "step",
    "seed",
    "n_test",
    "wall_s",
    "device",
    "commit",
    "config_hash",
    "status",
];

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Ok,
    /// The loss left the finite numbers.
    Diverged,
    /// It stopped for another reason.
    Failed,
}

impl FromStr for Status {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Status> {
        match text {
            "ok" => Ok(Status::Ok),
            "diverged" => Ok(Status::Diverged),
            "failed" => Ok(Status::Failed),
            _ => bail!("unknown status `{text}`"),
        }
    }
}

/// One score of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    pub run_id: String,
    pub study: String,
    /// The method's name; `random` (an untrained encoder) and `supervised` are the two references.
    pub method: String,
    /// What tells this run's configuration from others of its method in the study, in words; may be empty.
    pub variant: String,
    pub family: String,
    pub encoder: String,
    pub dataset: String,
    /// What the encoder reads of a sample: the side of images or the length of sequences, and the tokenizer whose codes
    /// it reads in place of images, if there is one: `28`, `28 vq-vae/cpu`.
    pub input: String,
    pub split: String,
    /// How the run was judged: `knn`, `linear`, `finetune`, `geometry`, `embedding`, `layers`, `augmentation`, `pretext`,
    /// `generated`.
    pub protocol: String,
    pub metric: String,
    /// In plain units (0.9074, not 90.74); empty if, and only if, the run did not end well.
    pub value: Option<f64>,
    pub epoch: u64,
    pub step: u64,
    pub seed: u64,
    pub n_test: u64,
    pub wall_s: f64,
    pub device: String,
    pub commit: String,
    pub config_hash: String,
    pub status: Status,
}

/// The bytes of results.csv. Equal rows give equal bytes.
pub fn to_csv(rows: &[Row]) -> Result<Vec<u8>> {
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for (i, row) in rows.iter().enumerate() {
        check(row).with_context(|| format!("row {} ({} {} {})", i + 1, row.run_id, row.protocol, row.metric))?;
        csv.serialize(row)?;
    }
    Ok(csv.into_inner()?)
}

fn check(row: &Row) -> Result<()> {
    match (row.status, row.value) {
        (Status::Ok, Some(value)) if value.is_finite() => {}
        (Status::Ok, Some(value)) => {
            bail!("expected a finite value, found {value}; give such a run the status `diverged`")
        }
        (Status::Ok, None) => bail!("expected a value, since the status is `ok`, found none"),
        (_, Some(_)) => bail!("expected no value, since the status is not `ok`"),
        (_, None) => {}
    }
    ensure!(row.wall_s.is_finite(), "expected a finite wall_s, found {}", row.wall_s);
    Ok(())
}

/// Writes results.csv whole or not at all.
pub fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let bytes = to_csv(rows).with_context(|| format!("{}: not written", path.display()))?;
    write_whole(path, &bytes)
}

/// Reads a results.csv. Unknown, missing or moved columns are refused, and so is a value that does not fit its status.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    read_records(path, &COLUMNS)?.iter().map(|record| record.row()).collect()
}

/// Reads several files one after another; of a folder, its results.csv.
pub fn read_many<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for path in paths {
        let path = path.as_ref();
        rows.extend(if path.is_dir() { read(&path.join("results.csv"))? } else { read(path)? });
    }
    Ok(rows)
}

/// One line of a CSV whose columns are known, with what an error message needs.
pub(crate) struct Record<'a> {
    path: &'a Path,
    columns: &'a [&'a str],
    line: u64,
    fields: csv::StringRecord,
}

/// All lines of a CSV that must have exactly `columns`.
pub(crate) fn read_records<'a>(path: &'a Path, columns: &'a [&'a str]) -> Result<Vec<Record<'a>>> {
    let bytes = std::fs::read(path).with_context(|| {
        format!("{}: could not be read; expected a CSV with the columns {}", path.display(), columns.join(","))
    })?;
    parse_records(path, &bytes, columns)
}

pub(crate) fn parse_records<'a>(path: &'a Path, bytes: &[u8], columns: &'a [&'a str]) -> Result<Vec<Record<'a>>> {
    ensure!(!bytes.is_empty(), "{}: the file is empty; expected the header {}", path.display(), columns.join(","));
    let mut csv = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header = csv.headers().with_context(|| format!("{}, line 1: expected a header in UTF-8", path.display()))?;
    check_header(path, header, columns)?;
    let mut records = Vec::new();
    for fields in csv.into_records() {
        let fields = fields.with_context(|| format!("{}: expected UTF-8 text", path.display()))?;
        let line = fields.position().map_or(0, csv::Position::line);
        ensure!(
            fields.len() == columns.len(),
            "{}, line {line}: expected {} fields, one for each column, found {}; the line is cut off or has a comma that \
             is not quoted",
            path.display(),
            columns.len(),
            fields.len()
        );
        records.push(Record { path, columns, line, fields });
    }
    Ok(records)
}

fn check_header(path: &Path, header: &csv::StringRecord, columns: &[&str]) -> Result<()> {
    let at = path.display();
    let wanted = columns.join(",");
    if let Some(unknown) = header.iter().find(|name| !columns.contains(name)) {
        bail!("{at}, line 1: unknown column `{unknown}`; expected exactly {wanted}");
    }
    if let Some(missing) = columns.iter().find(|name| !header.iter().any(|h| h == **name)) {
        bail!("{at}, line 1: the column `{missing}` is missing; expected exactly {wanted}");
    }
    ensure!(
        header.iter().eq(columns.iter().copied()),
        "{at}, line 1: the columns are out of order; expected exactly {wanted}"
    );
    Ok(())
}

impl Record<'_> {
    /// The field of `column`, which must be one of the columns read.
    pub(crate) fn text(&self, column: &str) -> &str {
        let i = self.columns.iter().position(|c| *c == column).expect("a column of this file");
        &self.fields[i]
    }

    /// The field of `column` as a value; `expected` says in words what it should have been.
    pub(crate) fn parse<T: FromStr>(&self, column: &str, expected: &str) -> Result<T> {
        let text = self.text(column);
        text.parse().ok().with_context(|| self.error(column, &format!("expected {expected}, found `{text}`")))
    }

    fn error(&self, column: &str, what: &str) -> String {
        format!("{}, line {}, column {column}: {what}", self.path.display(), self.line)
    }

    fn row(&self) -> Result<Row> {
        let text = |column| self.text(column).to_string();
        let count = |column| self.parse(column, "a whole number");
        let row = Row {
            run_id: text("run_id"),
            study: text("study"),
            method: text("method"),
            variant: text("variant"),
            family: text("family"),
            encoder: text("encoder"),
            dataset: text("dataset"),
            input: text("input"),
            split: text("split"),
            protocol: text("protocol"),
            metric: text("metric"),
            value: match self.text("value") {
                "" => None,
                _ => Some(self.parse("value", "a number in plain units, such as 0.9074")?),
            },
            epoch: count("epoch")?,
            step: count("step")?,
            seed: count("seed")?,
            n_test: count("n_test")?,
            wall_s: self.parse("wall_s", "a number of seconds")?,
            device: text("device"),
            commit: text("commit"),
            config_hash: text("config_hash"),
            status: self.parse("status", "ok, diverged or failed")?,
        };
        // One sentence, not a chain: what `check` found is the message, where it was found goes before it.
        check(&row).map_err(|e| anyhow::anyhow!(self.error("value", &e.to_string())))?;
        Ok(row)
    }
}
