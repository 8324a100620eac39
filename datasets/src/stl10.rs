//! STL-10's binary files: three planes of 96 x 96 pixels an image, each stored column after column; labels from 1.

use crate::memory::Pixels;
use anyhow::{Context as _, Result, bail, ensure};
use selfsup_core::data::{Image, Images};
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub(crate) const SIDE: usize = 96;
/// Bytes of one image.
pub(crate) const SIZE: usize = 3 * SIDE * SIDE;

/// One image as it is stored, [channel, column, row], to [row, column, channel].
pub(crate) fn transpose(stored: &[u8], pixels: &mut Vec<u8>) {
    for row in 0..SIDE {
        for column in 0..SIDE {
            pixels.extend([0, 1, 2].map(|channel| stored[(channel * SIDE + column) * SIDE + row]));
        }
    }
}

/// The images of a file's bytes.
pub(crate) fn parse_images(name: &str, bytes: &[u8]) -> Result<Pixels> {
    ensure!(
        bytes.len().is_multiple_of(SIZE),
        "{name}: expected a multiple of {SIZE} bytes, found {}: the last image starts at byte {} and is cut short",
        bytes.len(),
        bytes.len() / SIZE * SIZE
    );
    let mut pixels = Vec::with_capacity(bytes.len());
    bytes.chunks_exact(SIZE).for_each(|stored| transpose(stored, &mut pixels));
    Ok(Pixels { height: SIDE, width: SIDE, channels: 3, bytes: pixels })
}

/// The labels of a file's bytes, 1 to 10, as 0 to 9.
pub(crate) fn parse_labels(name: &str, bytes: &[u8]) -> Result<Vec<u16>> {
    if let Some(row) = bytes.iter().position(|label| !(1..=10).contains(label)) {
        bail!("{name}: expected labels 1 to 10, found {} at byte {row}", bytes[row]);
    }
    Ok(bytes.iter().map(|&label| u16::from(label) - 1).collect())
}

/// A labelled part of `rows` images in memory.
pub(crate) fn read(images: &Path, labels: &Path, rows: usize) -> Result<(Pixels, Vec<u16>)> {
    let load = |path: &Path, size: usize| {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            bytes.len() == rows * size,
            "{}: expected {} bytes ({rows} times {size}), found {}",
            path.display(),
            rows * size,
            bytes.len()
        );
        Ok(bytes)
    };
    let pixels = parse_images(&images.display().to_string(), &load(images, SIZE)?)?;
    Ok((pixels, parse_labels(&labels.display().to_string(), &load(labels, 1)?)?))
}

/// Images that stay on disk: the unlabelled ones would take 2.8 GB of memory.
pub(crate) struct OnDisk {
    path: PathBuf,
    file: Mutex<File>,
    rows: usize,
}

impl OnDisk {
    /// The `rows` images of a file.
    pub(crate) fn open(path: &Path, rows: usize) -> Result<OnDisk> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let found = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        let expected = (rows * SIZE) as u64;
        ensure!(
            found == expected,
            "{}: expected {expected} bytes ({rows} times {SIZE}), found {found}",
            path.display()
        );
        Ok(OnDisk { path: path.to_path_buf(), file: Mutex::new(file), rows })
    }
}

impl Images for OnDisk {
    fn len(&self) -> usize {
        self.rows
    }

    fn channels(&self) -> usize {
        3
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let offset = (index * SIZE) as u64;
        let mut stored = vec![0; SIZE];
        {
            let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.read_exact(&mut stored))
                .with_context(|| format!("cannot read {SIZE} bytes at byte {offset} of {}", self.path.display()))?;
        }
        let mut pixels = Vec::with_capacity(SIZE);
        transpose(&stored, &mut pixels);
        Ok(Image { height: SIDE, width: SIDE, channels: 3, pixels: Cow::Owned(pixels) })
    }
}
