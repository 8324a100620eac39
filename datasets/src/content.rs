//! The content of a file, packed by gzip or not, read front to back with its offset and its sum.

use crate::sum::hex;
use anyhow::{Context as _, Result, bail};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Room that is set aside before data has arrived; a header may claim any length.
const TRUSTED_CAPACITY: usize = 1 << 20;

/// A stream of content. It is unpacked when it starts with gzip's two magic bytes.
pub(crate) struct Content<'a> {
    pub(crate) name: String,
    reader: Box<dyn Read + 'a>,
    pub(crate) offset: u64,
    digest: Sha256,
}

impl<'a> Content<'a> {
    /// The content of the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Content<'static>> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Content::new(path.display().to_string(), BufReader::with_capacity(1 << 16, file))
    }

    /// The content of `reader`, called `name` in messages.
    pub(crate) fn new(name: String, mut reader: impl Read + 'a) -> Result<Content<'a>> {
        let mut magic = Vec::new();
        reader.by_ref().take(2).read_to_end(&mut magic).with_context(|| format!("cannot read {name}"))?;
        let packed = magic == [0x1f, 0x8b];
        let whole = io::Cursor::new(magic).chain(reader);
        let reader: Box<dyn Read + 'a> = if packed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        Ok(Content { name, reader, offset: 0, digest: Sha256::new() })
    }

    /// The next `n` bytes, which are `what`.
    pub(crate) fn exactly(&mut self, n: usize, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(n.min(TRUSTED_CAPACITY));
        let outcome = self.reader.by_ref().take(n as u64).read_to_end(&mut bytes);
        let start = self.offset;
        self.offset += bytes.len() as u64;
        self.digest.update(&bytes);
        match outcome {
            Ok(_) if bytes.len() == n => {
                bytes.shrink_to_fit();
                Ok(bytes)
            }
            Ok(_) => bail!(
                "{}: content ends at byte {}, expected {n} bytes of {what} from byte {start}, found {}",
                self.name,
                self.offset,
                bytes.len()
            ),
            Err(error) => bail!(
                "{}: broken after byte {} of its content ({error}), expected {n} bytes of {what} from byte {start}",
                self.name,
                self.offset
            ),
        }
    }

    /// All that is left.
    pub(crate) fn all(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let outcome = self.reader.read_to_end(&mut bytes);
        outcome.with_context(|| format!("{}: broken after byte {} of its content", self.name, bytes.len()))?;
        Ok(bytes)
    }

    /// Checks that nothing follows; the SHA-256 of all content.
    pub(crate) fn end(mut self) -> Result<String> {
        match self.reader.read(&mut [0]) {
            Ok(0) => Ok(hex(&self.digest.finalize())),
            Ok(_) => bail!("{}: expected the end at byte {}, found more bytes", self.name, self.offset),
            Err(error) => bail!("{}: broken after byte {} of its content ({error})", self.name, self.offset),
        }
    }

    /// Reads to the end whatever it is; the SHA-256 of all content and its length.
    pub(crate) fn sum(mut self) -> Result<(String, u64)> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match self.reader.read(&mut buffer) {
                Ok(0) => return Ok((hex(&self.digest.finalize()), self.offset)),
                Ok(n) => {
                    self.digest.update(&buffer[..n]);
                    self.offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => bail!("{}: broken after byte {} of its content ({error})", self.name, self.offset),
            }
        }
    }
}
