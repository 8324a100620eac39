//! Scores in, tables and figures out.
//!
//! This crate reads what runs wrote (results.csv, metrics.csv) and knows no tensor, no method and no data set: a figure
//! can be drawn again, years later, from the CSV alone. Equal input gives equal bytes, and every file is written whole
//! or not at all.
//!
//! - [`results`]: results.csv, tidy, one number a row: [`results::Row`], `write`, `read`, `read_many`
//! - [`published`]: published.csv, what others got by the same recipes
//! - [`metrics`]: metrics.csv of a run, what it logged while it trained
//! - [`statistics`]: mean, sd, paired differences with intervals and p-values, corrections for many, ranks
//! - [`claims`]: what papers claim, the rules' differences over seeds, verdicts, claims.csv
//! - [`table`]: rows summed up as [`table::Table`]; terminal, Markdown, CSV
//! - [`figure`]: bars, curves, intervals, panels, ranks, scatter and matrices as SVG and PNG
//! - [`picture`]: grids of small images as PNG
//! - [`html`]: the report, one page that needs nothing else
//! - [`file`](mod@file): files written whole or not at all
//! - [`tensorboard`]: event files with scalars

pub mod claims;
pub mod figure;
pub mod file;
pub mod html;
pub mod metrics;
pub mod picture;
pub mod published;
pub mod results;
pub mod statistics;
pub mod table;
pub mod tensorboard;
