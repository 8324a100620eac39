//! Downloads that resume, are checked by sum and appear under their name only when they are whole.

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{StatusCode, header};

/// How far the transfer of one file has come.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    pub file: &'a str,
    /// Bytes on disk, those of earlier tries included.
    pub done: u64,
    /// Its whole length, where the publisher or the server says it.
    pub total: Option<u64>,
}

/// Draws transfers as bars on the terminal (nothing elsewhere); to be given to [`crate::get`].
pub fn progress_bar() -> impl FnMut(Transfer<'_>) {
    let mut current: Option<(String, ProgressBar)> = None;
    move |transfer| {
        if current.as_ref().is_none_or(|(file, _)| file != transfer.file) {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
            let bar = ProgressBar::new(0).with_message(transfer.file.to_string());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            current = Some((transfer.file.to_string(), bar));
        }
        if let Some((_, bar)) = &current {
            bar.set_length(transfer.total.unwrap_or(transfer.done));
            bar.set_position(transfer.done);
            if transfer.total == Some(transfer.done) {
                bar.finish();
            }
        }
    }
}

/// A file to be downloaded.
pub(crate) struct Wanted<'a> {
    /// Its final name; `.part` is appended while it is under way.
    pub(crate) path: PathBuf,
    /// Where it can be had, to be tried in turn.
    pub(crate) urls: Vec<String>,
    pub(crate) bytes: Option<u64>,
    /// Whether a file is the wanted one, by its sum.
    pub(crate) check: &'a dyn Fn(&Path) -> Result<()>,
    /// Between two tries, times the number of tries.
    pub(crate) pause: Duration,
}

/// Tries at one address that bring less than [`ENOUGH`] new bytes.
const TRIES: u32 = 3;
/// A try that brought so much does not count as failed: long transfers may break often.
const ENOUGH: u64 = 1 << 20;
/// What a file of unknown length may grow to.
const MOST: u64 = 4 << 30;

/// Why a try failed.
enum Failure {
    /// Another try may go better.
    Broken(String),
    /// This address will not give the file.
    Refused(String),
}

use Failure::{Broken, Refused};

/// Fetches a file. What an interrupted transfer brought stays in `.part` and is taken up by the next call.
pub(crate) fn fetch(wanted: &Wanted, report: &mut dyn FnMut(Transfer<'_>)) -> Result<()> {
    let folder = wanted.path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut name = wanted.path.clone().into_os_string();
    name.push(".part");
    let part = PathBuf::from(name);
    let cannot = || format!("cannot write {}", part.display());
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&part).with_context(cannot)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("{} is being downloaded by another process", wanted.path.display()),
        Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
    }

    let mut failures = Vec::new();
    for url in &wanted.urls {
        let mut tries = 0;
        while tries < TRIES {
            let before = file.metadata().with_context(cannot)?.len();
            let failure = match transfer(url, wanted, &mut file, report) {
                Ok(()) => {
                    file.sync_all().with_context(cannot)?;
                    match (wanted.check)(&part) {
                        Ok(()) => return finish(&part, &wanted.path, folder),
                        Err(error) => {
                            file.set_len(0).with_context(cannot)?;
                            // What an earlier transfer left may be to blame; a file from one piece is not.
                            if before > 0 { Broken(format!("{error:#}")) } else { Refused(format!("{error:#}")) }
                        }
                    }
                }
                Err(failure) => failure,
            };
            let after = file.metadata().with_context(cannot)?.len();
            tries += u32::from(after < before + ENOUGH);
            let (reason, is_final) = match failure {
                Broken(reason) => (reason, tries == TRIES),
                Refused(reason) => (reason, true),
            };
            let line = format!("  {url}: {reason}");
            if failures.last() != Some(&line) {
                failures.push(line);
            }
            if is_final {
                break;
            }
            std::thread::sleep(wanted.pause * tries);
        }
    }
    if file.metadata().with_context(cannot)?.len() == 0 {
        fs::remove_file(&part).with_context(cannot)?;
    }
    bail!("{} could not be downloaded:\n{}", wanted.path.display(), failures.join("\n"))
}

/// Gives a whole and checked file its name, so that it survives a loss of power.
fn finish(part: &Path, path: &Path, folder: &Path) -> Result<()> {
    fs::rename(part, path).with_context(|| format!("cannot rename {} to {}", part.display(), path.display()))?;
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", folder.display()))?;
    Ok(())
}

/// One try at one address: appends to `file` what is missing.
fn transfer(url: &str, wanted: &Wanted, file: &mut File, report: &mut dyn FnMut(Transfer<'_>)) -> Result<(), Failure> {
    let disk = |error: std::io::Error| Refused(format!("cannot write to disk ({error})"));
    let network = |error: &dyn std::fmt::Display| Broken(format!("the transfer failed ({error})"));
    let mut have = file.metadata().map_err(disk)?.len();
    if Some(have) == wanted.bytes {
        return Ok(());
    }
    if wanted.bytes.is_some_and(|bytes| have > bytes) {
        file.set_len(0).map_err(disk)?;
        have = 0;
    }

    // A secure address never leads to an insecure one; where a publisher has nothing else, the sum makes it bearable.
    let config = ureq::Agent::config_builder()
        .https_only(url.starts_with("https:"))
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(Duration::from_secs(30)))
        .user_agent(concat!("selfsup/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut request = ureq::Agent::new_with_config(config).get(url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let response = request.call().map_err(|error| network(&error))?;
    let text = |name| response.headers().get(name).and_then(|value: &ureq::http::HeaderValue| value.to_str().ok());
    match response.status() {
        StatusCode::OK => {
            file.set_len(0).map_err(disk)?;
            have = 0;
        }
        StatusCode::PARTIAL_CONTENT => {
            let range = text(header::CONTENT_RANGE).unwrap_or_default();
            if !range.starts_with(&format!("bytes {have}-")) {
                file.set_len(0).map_err(disk)?;
                return Err(Broken(format!("asked for the bytes from {have}, the server sent `{range}`")));
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            file.set_len(0).map_err(disk)?;
            return Err(Broken(format!("the server has no bytes from {have}")));
        }
        status if status.is_server_error() || status == 408 || status == 429 => {
            return Err(Broken(format!("the server answered {status}")));
        }
        status => return Err(Refused(format!("the server answered {status}"))),
    }
    if text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) {
        return Err(Refused("the server sent a web page instead of the file".into()));
    }
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let total = length.map(|length| have + length);
    let most = wanted.bytes.or(total).unwrap_or(MOST).min(MOST);
    let label = wanted.path.file_name().unwrap_or_default().to_string_lossy().into_owned();

    file.seek(SeekFrom::Start(have)).map_err(disk)?;
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(network(&error)),
        };
        if n == 0 {
            break;
        }
        if have == 0 && is_html(&buffer[..n]) {
            return Err(Refused("the server sent a web page instead of the file".into()));
        }
        if have + n as u64 > most {
            file.set_len(0).map_err(disk)?;
            return Err(Refused(format!("the server sent more than the expected {most} bytes")));
        }
        file.write_all(&buffer[..n]).map_err(disk)?;
        have += n as u64;
        report(Transfer { file: &label, done: have, total: wanted.bytes.or(total) });
    }
    match wanted.bytes.or(total) {
        Some(total) if have < total => Err(Broken(format!("the connection ended after {have} of {total} bytes"))),
        _ => Ok(()),
    }
}

/// Whether data starts as a web page does; no file listed here does.
fn is_html(start: &[u8]) -> bool {
    let start: Vec<u8> = start.trim_ascii_start().iter().take(14).map(u8::to_ascii_lowercase).collect();
    start.starts_with(b"<!doctype html") || start.starts_with(b"<html") || start.starts_with(b"<?xml")
}
