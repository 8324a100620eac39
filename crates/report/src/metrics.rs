//! metrics.csv: what a run logged while it trained, in long form.

use crate::results::parse_records;
use anyhow::{Context, Result};
use std::path::Path;

/// The columns of metrics.csv, in order.
pub const COLUMNS: [&str; 4] = ["epoch", "step", "metric", "value"];

/// One logged number.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub epoch: u64,
    pub step: u64,
    pub metric: String,
    /// NaN or infinite where the run diverged.
    pub value: f64,
}

/// Reads a metrics.csv, also of a run that still writes it: a last line without its end of line is one that is being
/// written and is left out, since `0.12` may be the beginning of `0.1234`.
pub fn read(path: &Path) -> Result<Vec<Metric>> {
    let bytes = std::fs::read(path).with_context(|| {
        format!("{}: could not be read; expected a CSV with the columns {}", path.display(), COLUMNS.join(","))
    })?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let records = parse_records(path, &bytes[..whole], &COLUMNS)?;
    records
        .iter()
        .map(|record| {
            Ok(Metric {
                epoch: record.parse("epoch", "a whole number")?,
                step: record.parse("step", "a whole number")?,
                metric: record.text("metric").to_string(),
                value: record.parse("value", "a number")?,
            })
        })
        .collect()
}

/// The values of one metric as points (x, value), in the order of the file; `x` says what goes to the right.
pub fn points(metrics: &[Metric], metric: &str, x: impl Fn(&Metric) -> f64) -> Vec<(f64, f64)> {
    metrics.iter().filter(|m| m.metric == metric).map(|m| (x(m), m.value)).collect()
}
