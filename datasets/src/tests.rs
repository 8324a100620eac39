//! Readers against synthetic files, broken files and any bytes; downloads against a server that misbehaves.

mod folders;
mod formats;
mod fuzz;
mod mutate;
mod published;
mod sequences;
mod transfers;

use crate::Part;
use anyhow::Result;
use selfsup_core::data::{Image, Modality, Sample};

/// The message of an error, with all its causes.
fn message<T>(outcome: Result<T>) -> String {
    match outcome {
        Ok(_) => panic!("expected an error"),
        Err(error) => format!("{error:#}"),
    }
}

/// Fails unless the error's message holds all of `parts`.
fn says<T>(outcome: Result<T>, parts: &[&str]) {
    let message = message(outcome);
    for part in parts {
        assert!(message.contains(part), "expected `{part}` in: {message}");
    }
}

/// Image `row` of a part.
fn decoded(part: &Part, row: usize) -> Result<Image<'_>> {
    part.samples.sample(row).and_then(Sample::image)
}

/// Channels of a part's images.
fn channels(part: &Part) -> usize {
    match part.samples.modality() {
        Modality::Images { channels } => channels,
        other => panic!("expected images, not {}", other.plural()),
    }
}

/// Height, width and channels.
fn shape(image: &Image) -> [usize; 3] {
    [image.height, image.width, image.channels]
}
