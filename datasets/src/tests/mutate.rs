//! Bad input for fuzz targets: valid files, changed as a tape of bytes says, and what must hold of whatever reads them.
//!
//! A target is run by `cargo test` on as many random tapes as the variable SELFSUP_FUZZ says, and by `cargo bolero test`
//! on tapes that reach new code. This file is compiled into the tests of two crates.

use std::fmt::Display;

/// Longest tape: about eight changes.
pub(crate) const TAPE: usize = 64;

/// Memory that no input of a target needs; one that sets aside what its header claims needs more.
const MEMORY_KB: u64 = 1 << 20;

/// How many tapes to try: the variable SELFSUP_FUZZ, else few enough for every day.
pub(crate) fn inputs(few: usize) -> usize {
    std::env::var("SELFSUP_FUZZ").ok().map_or(few, |text| text.parse().expect("SELFSUP_FUZZ is a whole number"))
}

/// Numbers that headers are not made for.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX / 2 + 1];

/// Words that texts are not made for.
const WORDS: [&str; 34] = [
    "NaN",
    "inf",
    "-inf",
    "-1",
    "0",
    "-0",
    "1e999",
    "1e-320",
    "3.4e38",
    "0.5",
    "9223372036854775808",
    "4294967295",
    "99999999999999999999",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "\t",
    "\u{85}",
    "\u{2028}",
    "\u{1b}[31m",
    "\"",
    "'''",
    "\"\"\"",
    "[[",
    "{",
    "]",
    ".",
    ",",
    ":",
    "=",
    "?",
    "é",
    "a.b.c.d.e.f",
];

/// Bytes that say what to do; none left: zeros.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> usize {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(first)
    }

    /// A place in `bytes`: one of the first 64 half of the time, for headers are there.
    fn place(&mut self, bytes: &[u8]) -> usize {
        let (near, at) = (self.byte(), self.byte() << 8 | self.byte());
        let reach = if near % 2 == 0 { bytes.len().min(64) } else { bytes.len() };
        at % (reach + 1)
    }
}

/// One of the seeds, changed.
pub(crate) fn mutate<S: AsRef<[u8]>>(seeds: &[S], tape: &[u8]) -> Vec<u8> {
    let mut tape = Tape(tape);
    let seed = |tape: &mut Tape| seeds[tape.byte() % seeds.len()].as_ref().to_vec();
    let mut bytes = seed(&mut tape);
    while !tape.0.is_empty() {
        let what = tape.byte() % 10;
        let at = tape.place(&bytes);
        let behind = bytes.len() - at;
        match what {
            0 if behind > 0 => bytes[at] ^= 1 << (tape.byte() % 8),
            1 if behind > 0 => bytes[at] = tape.byte() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, tape.0.iter().copied().take(4).collect::<Vec<u8>>())),
            4 => drop(bytes.drain(at..at + behind.min(tape.byte()))),
            5 => {
                let span = bytes[at..at + behind.min(tape.byte() % 64)].to_vec();
                let times = tape.byte() % 64;
                drop(bytes.splice(at..at, span.repeat(times)));
            }
            6 => {
                let (number, shape) = (NUMBERS[tape.byte() % NUMBERS.len()], tape.byte());
                let width = 1 << (shape % 4);
                let number =
                    if shape & 4 == 0 { number.to_le_bytes() } else { (number << (64 - 8 * width)).to_be_bytes() };
                bytes[at..].iter_mut().zip(&number[..width]).for_each(|(old, new)| *old = *new);
            }
            7 => {
                let other = seed(&mut tape);
                let from = tape.place(&other);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            8 => drop(bytes.splice(at..at, WORDS[tape.byte() % WORDS.len()].bytes())),
            _ => {
                // The next number of a text becomes a word.
                let start = at + bytes[at..].iter().position(u8::is_ascii_digit).unwrap_or(behind);
                let digits = bytes[start..].iter().take_while(|byte| b"0123456789.e-+".contains(byte)).count();
                drop(bytes.splice(start..start + digits, WORDS[tape.byte() % WORDS.len()].bytes()));
            }
        }
    }
    bytes
}

/// The most address space that this process has had, in kB; 0 where no file tells.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What must hold of a reader: it ends without a panic and without much memory, and what it refuses, it refuses in one
/// short line. What was read, if anything was.
pub(crate) fn read<T, E: Display>(reader: impl FnOnce() -> Result<T, E>) -> Option<T> {
    let before = peak();
    let outcome = reader();
    let grown = peak() - before;
    assert!(grown < MEMORY_KB, "{grown} kB were set aside for a small file");
    outcome.map_err(|error| one_line(&format!("{error:#}"))).ok()
}

/// Fails unless a message is one line of text for a person.
pub(crate) fn one_line(message: &str) {
    assert!(!message.trim().is_empty(), "an error without a word");
    let unseen = message.chars().find(|c| c.is_control() || ['\u{2028}', '\u{2029}'].contains(c));
    assert!(unseen.is_none(), "{unseen:?} in the message {message:?}");
    assert!(message.chars().count() < 2100, "a message of {} characters: {message}", message.chars().count());
    for inside in ["panicked", "Exception raised from", "frame #", "c10::"] {
        assert!(!message.contains(inside), "{message}");
    }
}
