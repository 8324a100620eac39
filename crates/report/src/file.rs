//! Files written whole or not at all: a reader sees the old content or the new, never a part.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A written temporary file that waits to take its final name; dropped before that, it is removed.
struct Pending {
    temporary: PathBuf,
    path: PathBuf,
    renamed: bool,
}

impl Pending {
    fn new(path: &Path, bytes: &[u8]) -> Result<Pending> {
        let name = path
            .file_name()
            .with_context(|| format!("{}: expected a path that ends in a file name", path.display()))?;
        let temporary = folder(path).join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let pending = Pending { temporary, path: path.into(), renamed: false };
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&pending.temporary)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().with_context(|| {
            format!("{}: could not be written; give a folder that exists, is writable and has space", path.display())
        })?;
        Ok(pending)
    }

    fn rename(mut self) -> Result<()> {
        fs::rename(&self.temporary, &self.path)
            .with_context(|| format!("{}: could not take the place of what is there", self.path.display()))?;
        self.renamed = true;
        // A rename is on disk only once its folder is.
        File::open(folder(&self.path))
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("{}: written, but its folder could not be synced", self.path.display()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `bytes` to `path` through a temporary file in the same folder, synced before it takes the name.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_all_whole(&[(path.into(), bytes)])
}

/// Writes several files; none takes its name before all are on disk.
pub fn write_all_whole(files: &[(PathBuf, &[u8])]) -> Result<()> {
    let pending = files.iter().map(|(path, bytes)| Pending::new(path, bytes)).collect::<Result<Vec<_>>>()?;
    pending.into_iter().try_for_each(Pending::rename)
}
