//! Archives: unpacked into a temporary folder, checked, then renamed.

use crate::message::plain;
use crate::sum::hex;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write as _};
use std::path::{Component, Path};

/// The file in an unpacked folder with the SHA-256 of all others, as `sha256sum -c` reads it.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// Unpacks the folder called `folder` of a `.tar.gz` into `root`, with a list of sums beside its files.
///
/// Every entry must be a file or a folder below `folder`: a path that leads elsewhere, or a link, is refused and
/// nothing is left.
pub(crate) fn unpack(archive: &Path, root: &Path, folder: &str) -> Result<()> {
    let target = root.join(folder);
    ensure!(!target.exists(), "{} exists already: move it away to have it unpacked anew", target.display());
    let temporary = root.join(format!(".{folder}.unpacking"));
    if temporary.exists() {
        fs::remove_dir_all(&temporary).with_context(|| format!("cannot remove {}", temporary.display()))?;
    }
    let outcome = write_all(archive, &temporary, folder).and_then(|()| {
        fs::rename(temporary.join(folder), &target)
            .with_context(|| format!("cannot rename the unpacked folder to {}", target.display()))
    });
    // What is left of it is of no use, whether it went well or not.
    let _ = fs::remove_dir_all(&temporary);
    outcome
}

fn write_all(path: &Path, temporary: &Path, folder: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let broken = |why: io::Error| anyhow!("{} is broken or cut short: {}", path.display(), plain(why));
    fs::create_dir_all(temporary.join(folder))
        .with_context(|| format!("cannot make the folder {}", temporary.display()))?;
    let mut sums = BTreeMap::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let inner = entry.path().map_err(broken)?.into_owned();
        let shown = plain(inner.display());
        let mut parts = inner.components().filter(|part| *part != Component::CurDir);
        let is_below = parts.next() == Some(Component::Normal(folder.as_ref()))
            && parts.all(|part| matches!(part, Component::Normal(_)));
        let kind = entry.header().entry_type();
        if kind.is_dir() && (is_below || inner.components().all(|part| part == Component::CurDir)) {
            continue;
        }
        ensure!(is_below, "{}: `{shown}` does not lie in `{folder}`; nothing was unpacked", path.display());
        ensure!(kind.is_file(), "{}: `{shown}` is no plain file; nothing was unpacked", path.display());
        let target = temporary.join(&inner);
        let cannot = || format!("cannot write `{shown}` of {}", path.display());
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(cannot)?;
        }
        let mut out = File::create_new(&target).with_context(cannot)?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = entry.read(&mut buffer).map_err(broken)?;
            if n == 0 {
                break;
            }
            digest.update(&buffer[..n]);
            out.write_all(&buffer[..n]).with_context(cannot)?;
        }
        out.sync_all().with_context(cannot)?;
        let below = target.strip_prefix(temporary.join(folder)).unwrap_or(&target).display().to_string();
        sums.insert(below, hex(&digest.finalize()));
    }
    if sums.is_empty() {
        bail!("{} holds no file below `{folder}`", path.display());
    }
    let lines: String = sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    let target = temporary.join(folder).join(SUMS);
    let cannot = || format!("cannot write {}", target.display());
    let mut out = File::create(&target).with_context(cannot)?;
    out.write_all(lines.as_bytes()).with_context(cannot)?;
    out.sync_all().with_context(cannot)
}
