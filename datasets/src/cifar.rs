//! The binary version of CIFAR: records of labels, then the red, green and blue planes of 32 x 32 pixels.

use crate::memory::Pixels;
use anyhow::{Context as _, Result, bail, ensure};
use std::path::PathBuf;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// Which of the two sets.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// One label a record.
    Ten,
    /// Two labels a record: one of 20 coarse classes, which is checked and left out, then one of 100 fine classes.
    Hundred,
}

impl Kind {
    fn label_bytes(self) -> usize {
        match self {
            Kind::Ten => 1,
            Kind::Hundred => 2,
        }
    }

    fn classes(self) -> u8 {
        match self {
            Kind::Ten => 10,
            Kind::Hundred => 100,
        }
    }

    /// Bytes of one record.
    pub(crate) fn record(self) -> usize {
        self.label_bytes() + 3 * PLANE
    }
}

/// Appends the images (height, width, channel) and labels of one file's bytes, called `name` in messages.
pub(crate) fn parse(name: &str, bytes: &[u8], kind: Kind, pixels: &mut Vec<u8>, labels: &mut Vec<u16>) -> Result<()> {
    let record = kind.record();
    ensure!(
        bytes.len().is_multiple_of(record),
        "{name}: expected a multiple of {record} bytes, found {}: the last record starts at byte {} and is cut short",
        bytes.len(),
        bytes.len() / record * record
    );
    pixels.reserve(bytes.len() / record * 3 * PLANE);
    for (row, record_bytes) in bytes.chunks_exact(record).enumerate() {
        let (marks, planes) = record_bytes.split_at(kind.label_bytes());
        let offset = row * record;
        if let (Kind::Hundred, 20..) = (kind, marks[0]) {
            bail!("{name}: expected a coarse label of 0 to 19 at byte {offset}, found {}", marks[0]);
        }
        let label = marks[marks.len() - 1];
        ensure!(
            label < kind.classes(),
            "{name}: expected a label of 0 to {} at byte {}, found {label}",
            kind.classes() - 1,
            offset + marks.len() - 1
        );
        labels.push(u16::from(label));
        for at in 0..PLANE {
            pixels.extend([planes[at], planes[PLANE + at], planes[2 * PLANE + at]]);
        }
    }
    Ok(())
}

/// The images and labels of `files` in turn, each of which must hold `rows` records.
pub(crate) fn read(files: &[PathBuf], rows: usize, kind: Kind) -> Result<(Pixels, Vec<u16>)> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
        ensure!(
            bytes.len() == rows * kind.record(),
            "{name}: expected {} bytes ({rows} records of {}), found {}",
            rows * kind.record(),
            kind.record(),
            bytes.len()
        );
        parse(&name, &bytes, kind, &mut pixels, &mut labels)?;
    }
    Ok((Pixels { height: SIDE, width: SIDE, channels: 3, bytes: pixels }, labels))
}
