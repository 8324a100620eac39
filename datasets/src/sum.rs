//! Sums of content: MD5 as publishers give it, SHA-256 where it is known.

use anyhow::{Context as _, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The lower-case hexadecimal form of a digest.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A digest that may be taken of a file.
pub(crate) fn of_file<D: Digest>(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut digest = D::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(hex(&digest.finalize())),
            n => digest.update(&buffer[..n]),
        }
    }
}

/// MD5 of a file.
pub(crate) fn md5(path: &Path) -> Result<String> {
    of_file::<md5::Md5>(path)
}

/// SHA-256 of a file.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    of_file::<Sha256>(path)
}
