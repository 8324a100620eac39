//! TensorBoard event files with scalars.
//!
//! A record is its length (u64, little endian), the masked CRC-32C of those eight bytes, an `Event` in protobuf, and the
//! masked CRC-32C of that. TensorBoard skips a record with a wrong sum without a word, so golden bytes hold the sums.

use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Appends scalars to an event file, whose name must hold `tfevents` for TensorBoard to find it.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    offset: u64,
}

impl Writer {
    /// Begins a new file, in place of one that is there; `wall_time` is in seconds since 1970.
    pub fn create(path: &Path, wall_time: f64) -> Result<Writer> {
        let file = File::create(path)
            .with_context(|| format!("{}: the event file could not be made; give a writable folder", path.display()))?;
        let mut writer = Writer { path: path.into(), file: BufWriter::new(file), offset: 0 };
        writer.record(&version(wall_time))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Goes on in a file at an `offset` kept from an earlier [`Writer::offset`], and drops what was written after it:
    /// the steps that a resumed run takes again.
    pub fn resume(path: &Path, offset: u64) -> Result<Writer> {
        let open = || -> std::io::Result<(File, u64)> {
            let file = OpenOptions::new().write(true).open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (mut file, length) =
            open().with_context(|| format!("{}: the event file could not be opened", path.display()))?;
        let first = framed(&version(0.0)).len() as u64;
        ensure!(
            (first..=length).contains(&offset),
            "{}: the event file has {length} bytes, expected an offset from {first} to there, found {offset}; it is not the \
             file that this run wrote",
            path.display()
        );
        file.set_len(offset)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .with_context(|| format!("{}: the event file could not be cut at {offset}", path.display()))?;
        Ok(Writer { path: path.into(), file: BufWriter::new(file), offset })
    }

    /// Appends one value. TensorBoard keeps values in f32.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64, wall_time: f64) -> Result<()> {
        self.record(&scalar(tag, step, value as f32, wall_time))
    }

    /// The length of the file with all that was appended; after [`Writer::flush`], on its way to disk.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Hands what was appended to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("{}: the event file could not be written", self.path.display()))
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let record = framed(data);
        self.file
            .write_all(&record)
            .with_context(|| format!("{}: the event file could not be written", self.path.display()))?;
        self.offset += record.len() as u64;
        Ok(())
    }
}

fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked(crc32c(&length)).to_le_bytes()[..], data, &masked(crc32c(data)).to_le_bytes()].concat()
}

/// CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, bit by bit: events are short and rare.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Wire types of protobuf fields.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// `Event { wall_time: 1, file_version: 3 }`, the first of a file.
fn version(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, FIXED64);
    event.extend(wall_time.to_le_bytes());
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// `Event { wall_time: 1, step: 2, summary: 5 { value: 1 { tag: 1, simple_value: 2 } } }`.
fn scalar(tag: &str, step: u64, value: f32, wall_time: f64) -> Vec<u8> {
    let mut inner = Vec::new();
    bytes(&mut inner, 1, tag.as_bytes());
    key(&mut inner, 2, FIXED32);
    inner.extend(value.to_le_bytes());
    let mut summary = Vec::new();
    bytes(&mut summary, 1, &inner);
    let mut event = Vec::new();
    key(&mut event, 1, FIXED64);
    event.extend(wall_time.to_le_bytes());
    key(&mut event, 2, VARINT);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_crc32c() {
        // The check value of CRC-32C in catalogues of CRCs, and the sum of 32 zero bytes in RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
