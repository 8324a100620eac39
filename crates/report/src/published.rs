//! published.csv: what others got by the recipes of a study, held beside its own rows.

use crate::file::write_whole;
use crate::results::{Row, Status, read_records};
use crate::statistics::{mean, sd};
use crate::table::{Column, Listing};
use anyhow::Result;
use std::path::Path;

/// The columns of published.csv, in order.
pub const COLUMNS: [&str; 5] = ["config_hash", "protocol", "metric", "value", "source"];

/// One number of another's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// The configuration that follows its recipe.
    pub config_hash: String,
    pub protocol: String,
    pub metric: String,
    /// In plain units.
    pub value: f64,
    /// Whose it is, and how it was got.
    pub source: String,
}

/// Writes published.csv whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, numbers: &[Published]) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for number in numbers {
        let value = number.value.to_string();
        csv.write_record([&number.config_hash, &number.protocol, &number.metric, &value, &number.source])?;
    }
    write_whole(path, &csv.into_inner()?)
}

/// Reads a published.csv.
///
/// # Errors
/// If it cannot be read, or its columns are others.
pub fn read(path: &Path) -> Result<Vec<Published>> {
    let of = |record: &crate::results::Record| {
        let text = |column| record.text(column).to_string();
        Ok(Published {
            config_hash: text("config_hash"),
            protocol: text("protocol"),
            metric: text("metric"),
            value: record.parse("value", "a number in plain units, such as 0.9074")?,
            source: text("source"),
        })
    };
    read_records(path, &COLUMNS)?.iter().map(of).collect()
}

/// Ours and theirs, a line a number; those whose configuration has no row are left out.
pub fn beside(rows: &[Row], numbers: &[Published]) -> Listing {
    let line = |number: &Published| {
        let ours: Vec<&Row> = rows.iter().filter(|row| row.config_hash == number.config_hash).collect();
        let first = *ours.first()?;
        let column = Column { protocol: number.protocol.clone(), metric: number.metric.clone() };
        let mine = |row: &&&Row| (&row.protocol, &row.metric) == (&number.protocol, &number.metric);
        let values: Vec<f64> = ours.iter().filter(mine).filter_map(|row| row.value).collect();
        let show = |value: f64| format!("{:.2}", column.scale() * value);
        let lost = ours.iter().any(|row| row.status != Status::Ok);
        let text = match (values.is_empty(), sd(&values)) {
            (true, _) => if lost { "diverged" } else { "not measured" }.into(),
            (false, Some(sd)) => format!("{} ± {} (n={})", show(mean(&values)), show(sd), values.len()),
            (false, None) => format!("{} (n=1)", show(mean(&values))),
        };
        let variant = if first.variant.is_empty() { String::new() } else { format!(" ({})", first.variant) };
        let name = format!("{}{variant}", first.method);
        let (encoder, data) = (first.encoder.clone(), first.dataset.clone());
        Some(vec![name, encoder, data, column.title(), number.source.clone(), text, show(number.value)])
    };
    Listing {
        title: "Beside published numbers".into(),
        head: ["method", "encoder", "data", "measure", "source", "ours", "published"].map(String::from).into(),
        lines: numbers.iter().filter_map(line).collect(),
        note:
            "Published numbers are mostly single runs, and some are the best epoch on the test set; ours are the last \
               epoch. The source says which."
                .into(),
    }
}
