//! Where data lies.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The folder of data sets: `given` (an option of the command line), else the variable `SELFSUP_DATA`, else `./data`.
pub fn data_root(given: Option<&Path>) -> PathBuf {
    let named = given.map(Path::to_path_buf).or_else(|| std::env::var_os("SELFSUP_DATA").map(PathBuf::from));
    named.unwrap_or_else(|| PathBuf::from("data"))
}

/// The folder of the bundled sets: the variable `SELFSUP_DATASETS`, else `datasets/bundled` in a folder above the
/// program, in the source tree it was built from, or in the current folder.
///
/// # Errors
/// If it is in none of these places.
pub fn bundled_root() -> Result<PathBuf> {
    let holds = |folder: &Path| folder.join("fashion-mnist-10k").is_dir();
    if let Some(named) = std::env::var_os("SELFSUP_DATASETS").map(PathBuf::from) {
        if !holds(&named) {
            bail!("SELFSUP_DATASETS is {}, which has no folder fashion-mnist-10k", named.display());
        }
        return Ok(named);
    }
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|path| path.ancestors().skip(1)).map(|path| path.join("datasets/bundled"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundled");
    let mut places = above.chain([source, PathBuf::from("datasets/bundled")]);
    match places.find(|folder| holds(folder)) {
        Some(folder) => Ok(folder),
        None => bail!(
            "the bundled images are not found: set SELFSUP_DATASETS to the folder `datasets/bundled` of the sources"
        ),
    }
}
