//! metrics.csv: what a run measured of itself, one number a row, in the order of the steps.
//!
//! It holds no time, so that a resumed run writes the very bytes that an uninterrupted one does.

use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One number that a run measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub epoch: u64,
    /// Optimiser steps done.
    pub step: u64,
    pub metric: String,
    pub value: f64,
}

const HEADER: &str = "epoch,step,metric,value\n";

/// Appends records to a file and knows how long it is.
pub(crate) struct Records {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Records {
    /// Starts the file anew.
    pub(crate) fn create(path: &Path) -> Result<Records> {
        let file = File::create(path).with_context(|| format!("{}: could not be made", path.display()))?;
        let mut records = Records { path: path.into(), file, length: 0 };
        records.append(HEADER)?;
        Ok(records)
    }

    /// Goes on after the first `length` bytes: the records that belong to a checkpoint.
    pub(crate) fn resume(path: &Path, length: u64) -> Result<Records> {
        let open = || -> std::io::Result<(File, u64)> {
            let file = OpenOptions::new().write(true).open(path)?;
            let found = file.metadata()?.len();
            Ok((file, found))
        };
        let (mut file, found) = open().with_context(|| format!("{}: could not be opened", path.display()))?;
        ensure!(
            found >= length,
            "{}: holds {found} bytes, but its checkpoint was made when it held {length}; start again with --resume never",
            path.display()
        );
        file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0))).with_context(|| path.display().to_string())?;
        Ok(Records { path: path.into(), file, length })
    }

    /// Appends rows, flushed before it returns.
    pub(crate) fn write(&mut self, records: &[Record]) -> Result<()> {
        let rows = records.iter().map(|r| format!("{},{},{},{}\n", r.epoch, r.step, r.metric, r.value));
        self.append(&rows.collect::<String>())
    }

    fn append(&mut self, text: &str) -> Result<()> {
        self.file
            .write_all(text.as_bytes())
            .with_context(|| format!("{}: could not be written; is the disk full?", self.path.display()))?;
        self.length += text.len() as u64;
        Ok(())
    }

    /// Makes sure that what was written survives a power cut, and says how long it is.
    pub(crate) fn sync(&self) -> Result<u64> {
        self.file.sync_all().with_context(|| format!("{}: could not be synced", self.path.display()))?;
        Ok(self.length)
    }
}
