//! Getting data sets and checking those that are there.

use crate::catalogue::{Entry, Format, Source, Sum};
use crate::content::Content;
use crate::dataset::Dataset;
use crate::download::{Transfer, Wanted, fetch};
use crate::load::{Wanted as Named, load_entry, parse};
use crate::root::bundled_root;
use crate::sum;
use crate::unpack::{SUMS, unpack};
use anyhow::{Context as _, Result, bail, ensure};
use rayon::prelude::*;
use std::path::Path;
use std::time::Duration;

/// Downloads the data set `name` into the data root `root` unless it is there; lines that say what was done.
///
/// Each file is written to `NAME.part`, taken up there after an interruption, checked by its sum and renamed. A file
/// that is there under its final name with another sum is replaced; a folder never is.
///
/// # Errors
/// If a file can be had from no mirror; the message names file, addresses, reasons, sum, and where to put it by hand.
pub fn get(name: &str, root: &Path, progress: &mut dyn FnMut(Transfer<'_>)) -> Result<Vec<String>> {
    match parse(name)?.0 {
        Named::Own(_, path) => Ok(vec![format!("{}: own data are used where they lie", path.display())]),
        Named::Named(entry) => get_entry(entry, root, None, Duration::from_secs(1), progress),
    }
}

/// [`get`] of an entry; `mirrors` take the place of the entry's own.
pub(crate) fn get_entry(
    entry: &Entry,
    root: &Path,
    mirrors: Option<&[String]>,
    pause: Duration,
    progress: &mut dyn FnMut(Transfer<'_>),
) -> Result<Vec<String>> {
    let folder = root.join(entry.folder);
    match entry.format {
        format if format.is_bundled() => return Ok(vec![format!("{} is bundled", entry.name)]),
        format if format.is_archive() && entry.is_present(root) => return Ok(vec![format!("{} is there", entry.name)]),
        format if format.is_unpacked() && folder.is_dir() => {
            return Ok(vec![format!("{} is there; `verify` checks it", folder.display())]);
        }
        _ => {}
    }
    let mut lines = Vec::new();
    for source in entry.sources {
        let path = entry.place(root, source);
        if entry.idx_file(root, source).is_some_and(|there| check(&there, source).is_ok()) {
            lines.push(format!("{} is there and right", path.display()));
        } else {
            let urls = match mirrors {
                Some(bases) => bases.iter().map(|base| format!("{base}{}", source.file)).collect(),
                None => source.mirrors.iter().map(|base| format!("{base}{}", source.file)).collect(),
            };
            let wanted = Wanted {
                path: path.clone(),
                urls,
                bytes: source.bytes,
                check: &|path| check(path, source).map(drop),
                pause,
            };
            ensure!(!wanted.urls.is_empty(), "{}", entry.how_to_get(root));
            fetch(&wanted, progress)
                .with_context(|| format!("`{}` is not complete: {}", entry.name, entry.how_to_get(root)))?;
            lines.push(format!("{} downloaded, {}", path.display(), source.sum));
        }
        if entry.format.is_unpacked() {
            unpack(&path, root, entry.folder)?;
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            lines.push(format!("unpacked to {}, the archive removed", folder.display()));
        }
    }
    Ok(lines)
}

/// Checks a file against its source's sum; a line that says which sum was held against it.
fn check(path: &Path, source: &Source) -> Result<String> {
    let differ = |expected: &str, found: &str| -> Result<()> {
        let length = std::fs::metadata(path).map(|about| about.len()).unwrap_or(0);
        ensure!(
            expected == found,
            "{} is not the published file: expected {expected}, found {found} ({length} bytes{})",
            path.display(),
            source.bytes.map_or(String::new(), |bytes| format!(", expected {bytes}"))
        );
        Ok(())
    };
    match source.sum {
        Sum::Md5(expected) => {
            ensure!(
                !is_unpacked_form(path, source),
                "{}: only the sum of {} is published",
                path.display(),
                source.file
            );
            differ(expected, &sum::md5(path)?)?;
            Ok(format!("{}: md5 {expected}", path.display()))
        }
        Sum::Sha256(expected) => {
            differ(expected, &sum::sha256(path)?)?;
            Ok(format!("{}: sha256 {expected}", path.display()))
        }
        Sum::Content { sha256, bytes, .. } => {
            let (found, length) = Content::open(path)?.sum()?;
            ensure!(length == bytes, "{}: expected {bytes} bytes of content, found {length}", path.display());
            differ(sha256, &found)?;
            Ok(format!("{}: sha256 {sha256} of the content", path.display()))
        }
    }
}

/// Whether a file is the unpacked form of a source whose sum is that of the packed one.
fn is_unpacked_form(path: &Path, source: &Source) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    source.file.strip_suffix(".gz").is_some_and(|plain| plain == name)
}

/// Checks the data set `name`: every sum that is known, every label, every length; lines that say what was checked.
///
/// For own images every file is decoded.
///
/// # Errors
/// At the first thing that is wrong.
pub fn verify(name: &str, root: &Path) -> Result<Vec<String>> {
    let entry = match parse(name)?.0 {
        Named::Own(own, path) => return verify_own(own.open(path)?),
        Named::Named(entry) => entry,
    };
    ensure!(entry.is_present(root), "`{}` is not in {}: {}", entry.name, root.display(), entry.how_to_get(root));
    let mut lines = Vec::new();
    match entry.format {
        format if format == Format::Idx || format.is_bundled() => {
            let bundled = if format.is_bundled() { Some(bundled_root()?) } else { None };
            let root = bundled.as_deref().unwrap_or(root);
            for source in entry.sources {
                let path = entry.idx_file(root, source).context("a file has vanished")?;
                match source.sum {
                    Sum::Md5(_) if is_unpacked_form(&path, source) => {
                        lines
                            .push(format!("{}: only the packed file's sum is published, none checked", path.display()));
                    }
                    _ => lines.push(check(&path, source)?),
                }
            }
        }
        format if format.is_archive() => {
            let archive = entry.place(root, &entry.sources[0]);
            if root.join(entry.folder).is_dir() {
                lines.push(format!("{}: a folder, no sum is known", root.join(entry.folder).display()));
            } else {
                lines.push(check(&archive, &entry.sources[0])?);
            }
        }
        _ => {
            lines.extend(verify_unpacked(entry, &root.join(entry.folder))?);
        }
    }
    lines.extend(parts(&load_entry(entry, root)?));
    Ok(lines)
}

/// A line for each part.
fn parts(set: &Dataset) -> impl Iterator<Item = String> {
    let parts = [(Some(&set.train), "train"), (set.test.as_ref(), "test"), (set.unlabelled.as_ref(), "unlabelled")];
    parts.into_iter().filter_map(|(part, what)| {
        let part = part?;
        let (count, kind) = (part.len(), part.samples.modality().plural());
        Some(format!("{what}: {count} {kind}{}", shares(part.labels.as_deref(), set.classes.len())))
    })
}

/// How many samples the smallest and the largest class have.
fn shares(labels: Option<&[u16]>, classes: usize) -> String {
    let Some(labels) = labels else { return ", no labels".into() };
    let mut counts = vec![0; classes];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    match (counts.iter().min(), counts.iter().max()) {
        (Some(least), Some(most)) if least == most => format!(", {most} of each of {classes} classes"),
        (Some(least), Some(most)) => format!(", {least} to {most} of each of {classes} classes"),
        _ => String::new(),
    }
}

/// Of more files than these, `verify` does not print a line each.
const MANY: usize = 20;

/// The sums of an unpacked folder: those published for its files, and those written down when it was unpacked.
fn verify_unpacked(entry: &Entry, folder: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (name, expected) in entry.members {
        let found = sum::md5(&folder.join(name))?;
        ensure!(*expected == found, "{}: expected md5 {expected}, found {found}", folder.join(name).display());
        lines.push(format!("{}: md5 {expected}", folder.join(name).display()));
    }
    let list = folder.join(SUMS);
    if list.is_file() {
        let text = std::fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        let mut checked = Vec::new();
        for line in text.lines() {
            let Some((expected, name)) = line.split_once("  ") else {
                bail!("{}: expected a sum, two spaces and a name, found `{line}`", list.display());
            };
            let found = sum::sha256(&folder.join(name))?;
            ensure!(expected == found, "{}: expected sha256 {expected}, found {found}", folder.join(name).display());
            checked.push(format!("{}: sha256 {expected}, as when unpacked", folder.join(name).display()));
        }
        match checked.len() {
            n if n > MANY => lines.push(format!("{}: {n} files, sha256 as when unpacked", folder.display())),
            _ => lines.extend(checked),
        }
    } else if entry.members.is_empty() {
        lines.push(format!("{}: no sums are published for unpacked files, none checked", folder.display()));
    }
    Ok(lines)
}

/// Reads every sample of own data.
fn verify_own(set: Dataset) -> Result<Vec<String>> {
    for part in [Some(&set.train), set.test.as_ref(), set.unlabelled.as_ref()].into_iter().flatten() {
        (0..part.len()).into_par_iter().try_for_each(|index| part.samples.sample(index).map(drop))?;
    }
    let read = |line| format!("{line}, all read");
    Ok(parts(&set).map(read).chain((!set.note.is_empty()).then(|| set.note.clone())).collect())
}
