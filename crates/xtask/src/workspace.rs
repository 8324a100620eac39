//! Where things are: the checkout, the cache, the tools.

use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The checkout that this command belongs to.
pub(crate) fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.ancestors().nth(2).map(Path::to_owned).unwrap_or(package)
}

/// The link that builds use.
pub(crate) fn link(root: &Path) -> PathBuf {
    root.join(".libtorch")
}

/// A LIBTORCH that the user has set. Cargo's `[env]` gives every command of this checkout the link's own path, which
/// therefore means that nobody has.
pub(crate) fn libtorch_of_user(root: &Path) -> Result<Option<PathBuf>> {
    let Some(value) = env::var_os("LIBTORCH") else { return Ok(None) };
    if value.is_empty() {
        bail!("LIBTORCH is set and empty, which hides this checkout's own; run `unset LIBTORCH`");
    }
    let path = PathBuf::from(value);
    if path == link(root) {
        return Ok(None);
    }
    if path.is_relative() {
        bail!("LIBTORCH is `{}`; expected an absolute path, or unset it with `unset LIBTORCH`", path.display());
    }
    Ok(Some(path))
}

/// The folder that several checkouts share: $SELFSUP_CACHE, else selfsup in $XDG_CACHE_HOME, else in ~/.cache.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let path = set("SELFSUP_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("selfsup")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/selfsup")))
        .context("neither SELFSUP_CACHE, XDG_CACHE_HOME nor HOME is set; set SELFSUP_CACHE to a folder for LibTorch")?;
    std::path::absolute(&path).with_context(|| format!("the cache's path `{}`", path.display()))
}

/// The cargo that runs this command.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The first line that a command prints, or `None` if it cannot be run or fails.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Whether there is an NVIDIA GPU with its driver, in words.
pub(crate) fn gpu() -> Option<String> {
    if let Some(line) = first_line(Command::new("nvidia-smi").arg("-L")).filter(|line| !line.is_empty()) {
        return Some(line.split(" (UUID").next().unwrap_or_default().to_owned());
    }
    let version = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    Some(version.lines().next().unwrap_or("an NVIDIA driver").trim().to_owned())
}

/// Free space where `path` is or would be, in MB.
pub(crate) fn free_mb(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|p| p.exists())?;
    let output = Command::new("df").arg("-Pk").arg(there).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let kib: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib * 1024 / 1_000_000)
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp-{}", std::process::id()));
    let part = path.with_file_name(name);
    let written = fs::File::create(&part)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}
