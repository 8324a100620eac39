//! A LibTorch on the disk: whether it is whole, and whether it is the version that the workspace is built with.

use crate::pins::{LAYOUT, VERSION, Variant};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the manifest of a layout begins with. A layout with another head is not the pinned one.
pub(crate) fn head(variant: Variant) -> String {
    let mut head = format!("libtorch {VERSION} {} layout {LAYOUT}", variant.name());
    for wheel in variant.wheels() {
        write!(head, "\nwheel {} {}", wheel.sha256, wheel.file).expect("a string takes all");
    }
    head
}

/// A file of a manifest.
pub(crate) struct Part {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// Reads the manifest of a layout.
///
/// # Errors
/// If there is none (the set-up did not finish) or if it is of another version.
pub(crate) fn manifest(dir: &Path, variant: Variant) -> Result<Vec<Part>> {
    let path = dir.join("manifest");
    let text = fs::read_to_string(&path).with_context(|| format!("{} holds no whole LibTorch", dir.display()))?;
    let Some(files) = text.strip_prefix(&head(variant)) else {
        bail!("{} is not of the pinned LibTorch {VERSION} ({})", path.display(), variant.name());
    };
    let parts: Option<Vec<Part>> = files
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.strip_prefix("file ")?.splitn(3, ' ');
            let (sha256, size, path) = (words.next()?, words.next()?, words.next()?);
            Some(Part { path: path.into(), size: size.parse().ok()?, sha256: sha256.into() })
        })
        .collect();
    match parts {
        Some(parts) if !parts.is_empty() => Ok(parts),
        _ => bail!("{} is damaged", path.display()),
    }
}

/// Checks each file of a layout: its size, and if `sums` its SHA-256 too (seconds).
///
/// # Errors
/// If one is missing or different; the message names the first.
pub(crate) fn verify(dir: &Path, variant: Variant, sums: bool) -> Result<()> {
    for Part { path, size, sha256: expected } in manifest(dir, variant)? {
        let path = dir.join(path);
        let found = fs::metadata(&path).with_context(|| format!("{} is missing", path.display()))?.len();
        ensure!(found == size, "{} has {found} bytes, expected {size}", path.display());
        if sums {
            let found = sha256(&path)?;
            ensure!(found == expected, "{} has SHA-256 {found}, expected {expected}", path.display());
        }
    }
    Ok(())
}

/// The SHA-256 of a file in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let reading = || format!("cannot read {}", path.display());
    let mut file = fs::File::open(path).with_context(reading)?;
    let (mut digest, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut block).with_context(reading)?;
        if n == 0 {
            break;
        }
        digest.update(&block[..n]);
    }
    Ok(digest.finalize().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes all");
        hex
    }))
}

/// The version of the LibTorch in `home`: of `build-version`, or of `version.py` in an installed Python package.
pub(crate) fn version(home: &Path) -> Option<String> {
    let bare = |text: &str| text.trim().split('+').next().unwrap_or_default().to_owned();
    if let Ok(text) = fs::read_to_string(home.join("build-version")) {
        return Some(bare(&text));
    }
    let text = fs::read_to_string(home.join("version.py")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(bare(line.trim_matches(['\'', '"', ' '])))
}

/// Checks that builds can use the LibTorch in `home`, whoever laid it out.
///
/// # Errors
/// If a file that linking needs is missing or the version is another.
pub(crate) fn usable(home: &Path) -> Result<()> {
    for file in ["include/torch/script.h", "lib/libtorch_cpu.so", "lib/libtorch.so", "lib/libc10.so"] {
        ensure!(home.join(file).exists(), "{} is not a LibTorch: it has no {file}", home.display());
    }
    match version(home) {
        Some(version) if version == VERSION => Ok(()),
        Some(version) => bail!("{} is LibTorch {version}, expected {VERSION}", home.display()),
        None => bail!(
            "{} does not say its version: it has neither `build-version` nor `version.py`; expected LibTorch {VERSION}",
            home.display()
        ),
    }
}

/// If a set-up has laid out `home`, in this cache or another: the layout's folder and variant.
pub(crate) fn of(home: &Path) -> Option<(PathBuf, Variant)> {
    let home = fs::canonicalize(home).ok()?;
    [Variant::Cpu, Variant::Cuda].into_iter().find_map(|variant| {
        let dir = home.ancestors().nth(usize::from(!variant.home().is_empty()))?;
        (folder(Path::new(""), variant).file_name() == dir.file_name() && self::home(dir, variant) == home)
            .then(|| (dir.to_owned(), variant))
    })
}

/// The folder of a layout that LIBTORCH names.
pub(crate) fn home(dir: &Path, variant: Variant) -> PathBuf {
    match variant.home() {
        "" => dir.to_owned(),
        below => dir.join(below),
    }
}

/// Where the cache holds a variant.
pub(crate) fn folder(cache: &Path, variant: Variant) -> PathBuf {
    cache.join(format!("libtorch-{VERSION}-{}", variant.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &Path) {
        fs::create_dir_all(dir.join("lib")).unwrap();
        fs::write(dir.join("lib/a b.so"), "abc").unwrap();
        // FIPS 180-2, appendix B.1: the sum of "abc".
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        fs::write(dir.join("manifest"), format!("{}\nfile {sum} 3 lib/a b.so\n", head(Variant::Cpu))).unwrap();
    }

    #[test]
    fn a_whole_layout_passes_and_each_fault_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let fault = |sums| verify(dir, Variant::Cpu, sums).unwrap_err().to_string();
        assert!(fault(false).contains("no whole LibTorch"));
        layout(dir);
        verify(dir, Variant::Cpu, true).unwrap();
        assert!(verify(dir, Variant::Cuda, true).unwrap_err().to_string().contains("not of the pinned"));
        fs::write(dir.join("lib/a b.so"), "abd").unwrap();
        verify(dir, Variant::Cpu, false).unwrap();
        assert!(fault(true).contains("SHA-256"));
        fs::write(dir.join("lib/a b.so"), "ab").unwrap();
        assert!(fault(false).contains("has 2 bytes, expected 3"));
        fs::remove_file(dir.join("lib/a b.so")).unwrap();
        assert!(fault(false).contains("missing"));
        fs::write(dir.join("manifest"), format!("{}\nfile x", head(Variant::Cpu))).unwrap();
        assert!(fault(false).contains("damaged"));
    }

    #[test]
    fn a_layout_is_known_by_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = fs::canonicalize(dir.path()).unwrap();
        for variant in [Variant::Cpu, Variant::Cuda] {
            let layout = folder(&cache, variant);
            fs::create_dir_all(home(&layout, variant)).unwrap();
            assert_eq!(of(&home(&layout, variant)), Some((layout, variant)));
        }
        assert_eq!(of(&cache), None);
        assert_eq!(of(&folder(&cache, Variant::Cuda)), None);
    }

    #[test]
    fn the_version_is_read_as_both_kinds_of_folder_write_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path();
        assert_eq!(version(home), None);
        fs::write(home.join("version.py"), "cuda = '13.0'\n__version__ = '2.11.0+cu130'\n").unwrap();
        assert_eq!(version(home).unwrap(), "2.11.0");
        fs::write(home.join("build-version"), "2.10.1+cpu\n").unwrap();
        assert_eq!(version(home).unwrap(), "2.10.1");
    }
}
