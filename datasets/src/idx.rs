//! IDX, the format of MNIST: big-endian; magic 2051, count, height, width, pixels; or magic 2049, count, labels.

use crate::content::Content;
use crate::memory::Pixels;
use anyhow::{Result, bail, ensure};
use selfsup_core::data::Images as _;
use std::path::Path;

const IMAGES: u32 = 2051;
const LABELS: u32 = 2049;

/// The next big-endian number.
fn number(content: &mut Content, what: &str) -> Result<u32> {
    let bytes = content.exactly(4, what)?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Checks the magic number.
fn magic(content: &mut Content, expected: u32, what: &str) -> Result<()> {
    let found = number(content, "magic number")?;
    ensure!(
        found == expected,
        "{}: no IDX file of {what}: expected magic number {expected} at byte 0, found {found}",
        content.name
    );
    Ok(())
}

/// Grey images and the SHA-256 of the content.
pub(crate) fn read_images(mut content: Content) -> Result<(Pixels, String)> {
    magic(&mut content, IMAGES, "images")?;
    let count = number(&mut content, "the number of images")? as usize;
    let height = number(&mut content, "the height")? as usize;
    let width = number(&mut content, "the width")? as usize;
    ensure!(
        (1..=4096).contains(&height) && (1..=4096).contains(&width),
        "{}: expected a height and a width of 1 to 4096 at byte 8, found {height} x {width}",
        content.name
    );
    let Some(size) = count.checked_mul(height * width) else {
        bail!("{}: {count} images of {height} x {width} at byte 4 are more than memory can address", content.name);
    };
    let bytes = content.exactly(size, "pixels")?;
    Ok((Pixels { height, width, channels: 1, bytes }, content.end()?))
}

/// Labels below `classes` and the SHA-256 of the content.
pub(crate) fn read_labels(mut content: Content, classes: usize) -> Result<(Vec<u16>, String)> {
    magic(&mut content, LABELS, "labels")?;
    let count = number(&mut content, "the number of labels")? as usize;
    let bytes = content.exactly(count, "labels")?;
    if let Some(row) = bytes.iter().position(|&label| usize::from(label) >= classes) {
        bail!(
            "{}: expected labels 0 to {}, found {} at byte {} (row {row})",
            content.name,
            classes - 1,
            bytes[row],
            8 + row
        );
    }
    Ok((bytes.into_iter().map(u16::from).collect(), content.end()?))
}

/// Images and labels that belong together, with the SHA-256 of each file's content.
pub(crate) fn read(images: &Path, labels: &Path, classes: usize) -> Result<(Pixels, Vec<u16>, [String; 2])> {
    let (pixels, images_sum) = read_images(Content::open(images)?)?;
    let (marks, labels_sum) = read_labels(Content::open(labels)?, classes)?;
    ensure!(
        pixels.len() == marks.len(),
        "{} holds {} labels, expected {}, one for each image of {}",
        labels.display(),
        marks.len(),
        pixels.len(),
        images.display()
    );
    Ok((pixels, marks, [images_sum, labels_sum]))
}
