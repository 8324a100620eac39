//! `cargo xtask setup`: a LibTorch for this checkout.
//!
//! Whatever happens on the way, the cache holds a layout whole or not at all: everything is made in a folder beside,
//! its manifest is written last, and the folder is renamed into place. One set-up at a time holds the cache's lock; its
//! child processes hold it too and end with it, so that what is left of a killed one is swept at the next start.

use crate::layout;
use crate::pins::{VERSION, Variant, Wheel};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

const SCRIPT: &str = include_str!("wheels.py");

/// What the command line asks for.
#[derive(Default)]
pub(crate) struct Wish {
    pub(crate) variant: Option<Variant>,
    /// A folder of wheels to use instead of downloading them.
    pub(crate) from: Option<PathBuf>,
    /// Whether to hold each file against its sum and make a damaged layout again.
    pub(crate) repair: bool,
}

/// Provides LibTorch and links it. Quick where all is there already.
///
/// # Errors
/// If it cannot be had; the message says what to do.
pub(crate) fn run(wish: &Wish) -> Result<()> {
    let root = workspace::root();
    if let Some(home) = workspace::libtorch_of_user(&root)? {
        ensure!(
            wish.variant.is_none() && wish.from.is_none() && !wish.repair,
            "LIBTORCH is set to {}, so there is nothing to provide; run `unset LIBTORCH` first",
            home.display()
        );
        layout::usable(&home).context("LIBTORCH cannot be used; mend it, or run `unset LIBTORCH`")?;
        return link(&root, &home);
    }
    let earlier = fs::read_link(workspace::link(&root)).ok().filter(|home| layout::usable(home).is_ok());
    let layout = earlier.as_deref().and_then(layout::of);
    let whole = layout.as_ref().is_none_or(|(dir, variant)| layout::verify(dir, *variant, false).is_ok());
    if let Some(home) = earlier.filter(|_| whole && wish.variant.is_none() && !wish.repair) {
        return link(&root, &home);
    }
    let likely = || if workspace::gpu().is_some() { Variant::Cuda } else { Variant::Cpu };
    let variant = wish.variant.or(layout.map(|(_, variant)| variant)).unwrap_or_else(likely);
    let cache = workspace::cache()?;
    let dir = provide(&cache, variant, wish)?;
    link(&root, &layout::home(&dir, variant))
}

/// The folder of a whole layout in the cache.
fn provide(cache: &Path, variant: Variant, wish: &Wish) -> Result<PathBuf> {
    let dir = layout::folder(cache, variant);
    if layout::verify(&dir, variant, wish.repair).is_ok() {
        return Ok(dir);
    }
    if (std::env::consts::OS, std::env::consts::ARCH) != ("linux", "x86_64") || cfg!(not(target_env = "gnu")) {
        bail!(
            "no LibTorch is pinned for {} {}: install LibTorch {VERSION} and set LIBTORCH to its folder",
            std::env::consts::OS,
            std::env::consts::ARCH
        );
    }
    fs::create_dir_all(cache).with_context(|| format!("cannot make the cache {}", cache.display()))?;
    let lock = lock(cache)?;
    sweep(cache);
    let Err(fault) = layout::verify(&dir, variant, wish.repair) else {
        return Ok(dir); // Made by the one that held the lock.
    };
    if dir.exists() {
        eprintln!("{fault:#}; making it again");
    }
    check_python(wish.from.is_none())?;
    let part = cache.join(format!("libtorch-{VERSION}-{}.tmp-{}", variant.name(), process::id()));
    fs::create_dir(&part).with_context(|| format!("cannot make {}", part.display()))?;
    let made = make(cache, &part, &dir, variant, wish, &lock);
    if made.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    made.map(|()| dir)
}

fn make(cache: &Path, part: &Path, dir: &Path, variant: Variant, wish: &Wish, lock: &File) -> Result<()> {
    let (download, disk, meanwhile) = variant.size_mb();
    let need = if wish.from.is_some() { disk } else { meanwhile };
    let wheels = cache.join(format!("libtorch-{VERSION}.wheels"));
    let kept: u64 =
        fs::read_dir(&wheels).into_iter().flatten().flatten().flat_map(|e| e.metadata()).map(|m| m.len()).sum();
    if let Some(free) = workspace::free_mb(cache) {
        ensure!(
            free + kept / 1_000_000 >= need,
            "{} has {free} MB free and LibTorch needs {need} MB; make room, or set SELFSUP_CACHE to a larger disk",
            cache.display()
        );
    }
    eprintln!(
        "LibTorch {VERSION} ({}): {}about {disk} MB in {}",
        variant.name(),
        if wish.from.is_some() { String::new() } else { format!("about {download} MB to download, ") },
        cache.display()
    );
    let files = match &wish.from {
        Some(from) => {
            let missing: Vec<&str> = wrong(from, variant)?.iter().map(|wheel| wheel.file).collect();
            ensure!(
                missing.is_empty(),
                "{} lacks these wheels, or holds others under their names: {}",
                from.display(),
                missing.join(", ")
            );
            from.clone()
        }
        None => {
            fetch(&wheels, part, variant, lock)?;
            wheels.clone()
        }
    };

    let laid = part.join("layout");
    let mut extract = python(lock);
    extract.arg("extract").arg(&laid).arg(layout::head(variant));
    for (path, text) in variant.texts() {
        extract.args(["--text", path, text]);
    }
    for wheel in variant.wheels() {
        extract.arg("--wheel").arg(files.join(wheel.file));
        for (from, to) in wheel.take {
            extract.args(["--take", from, to]);
        }
    }
    succeed(&mut extract, "the wheels could not be laid out")?;
    layout::verify(&laid, variant, false)?;
    layout::usable(&layout::home(&laid, variant))?;
    if dir.exists() {
        fs::rename(dir, part.join("old")).with_context(|| format!("cannot replace {}", dir.display()))?;
    }
    fs::rename(&laid, dir).with_context(|| format!("cannot rename {}", laid.display()))?;
    File::open(cache).and_then(|cache| cache.sync_all()).context("cannot sync the cache")?;
    for done in [part, &wheels] {
        let _ = fs::remove_dir_all(done);
    }
    Ok(())
}

/// Downloads the wheels that are not there yet. They outlive a failed set-up, so that the next one need not fetch them
/// again, and go when a layout is made.
fn fetch(wheels: &Path, part: &Path, variant: Variant, lock: &File) -> Result<()> {
    fs::create_dir_all(wheels).with_context(|| format!("cannot make {}", wheels.display()))?;
    let missing = wrong(wheels, variant)?;
    if missing.is_empty() {
        return Ok(());
    }
    for wheel in &missing {
        let _ = fs::remove_file(wheels.join(wheel.file));
    }
    let list: String =
        missing.iter().map(|w| format!("{}=={} --hash=sha256:{}\n", w.package, w.version, w.sha256)).collect();
    let requirements = part.join("requirements.txt");
    workspace::write(&requirements, &list)?;
    let mut pip = python(lock);
    pip.args(["fetch", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir"])
        .args(["--disable-pip-version-check", "--no-input", "--progress-bar=on"])
        .args(["--python-version=3.12", "--implementation=cp", "--abi=cp312"]);
    let mut platforms: Vec<&str> = missing.iter().flat_map(|wheel| wheel.platforms()).collect();
    platforms.sort_unstable();
    platforms.dedup();
    pip.args(platforms.iter().map(|platform| format!("--platform={platform}")));
    // pip's own temporary files would need as much room in the system's folder, which is often small.
    pip.arg("--dest").arg(wheels).arg("--requirement").arg(&requirements).env("TMPDIR", part);
    succeed(
        &mut pip,
        "pip could not download LibTorch (its own message is above); once the network or pip's settings are mended run \
         `cargo xtask setup` again, or fetch the wheels elsewhere and run `cargo xtask setup --from FOLDER`",
    )?;
    let wrong: Vec<&str> = wrong(wheels, variant)?.iter().map(|wheel| wheel.file).collect();
    ensure!(wrong.is_empty(), "after the download these wheels are missing or have another sum: {}", wrong.join(", "));
    Ok(())
}

/// The wheels that `folder` does not hold, or not with the pinned sum.
fn wrong(folder: &Path, variant: Variant) -> Result<Vec<&'static Wheel>> {
    let mut wrong = Vec::new();
    for wheel in variant.wheels() {
        let path = folder.join(wheel.file);
        if !path.is_file() || layout::sha256(&path)? != wheel.sha256 {
            wrong.push(wheel);
        }
    }
    Ok(wrong)
}

/// The script's interpreter. Its standard input is the lock, which thereby is held as long as it runs.
fn python(lock: &File) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(process::id().to_string());
    if let Ok(lock) = lock.try_clone() {
        command.stdin(Stdio::from(lock));
    }
    command
}

fn succeed(command: &mut Command, fault: &str) -> Result<()> {
    // What the child prints is for people and may be much: all of it goes to the error stream.
    let status = command.stdout(std::io::stderr()).status().context("cannot run python3")?;
    ensure!(status.success(), "{fault}");
    Ok(())
}

fn check_python(pip: bool) -> Result<()> {
    let works = |arguments: &[&str]| workspace::first_line(Command::new("python3").args(arguments)).is_some();
    ensure!(works(&["--version"]), "there is no python3, which fetches and unpacks LibTorch; install python3 with pip");
    ensure!(
        works(&["-c", "import sys; assert sys.version_info >= (3, 8)"]),
        "python3 is older than 3.8; install a newer one"
    );
    ensure!(!pip || works(&["-m", "pip", "--version"]), "python3 has no pip, which downloads LibTorch; {PIP}");
    Ok(())
}

/// How to get pip.
pub(crate) const PIP: &str =
    "install it (`apt-get install python3-pip`, `dnf install python3-pip` or `python3 -m ensurepip`)";

/// The cache's lock. The system lets go of it when its holder ends, however that ends.
fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("setup.lock");
    let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => return Ok(lock),
        Err(TryLockError::WouldBlock) => eprintln!("another set-up uses {}; waiting for it", cache.display()),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(lock)
}

/// Removes what killed set-ups have left. The caller holds the lock, so nobody works in it.
fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("libtorch-")
            && entry.file_name().to_string_lossy().contains(".tmp-")
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Links `.libtorch` to `home`. A link that is right is left as it is, so that nothing is built again.
fn link(root: &Path, home: &Path) -> Result<()> {
    let link = workspace::link(root);
    let name = link.display();
    match fs::symlink_metadata(&link) {
        Ok(meta) if !meta.is_symlink() => bail!("{name} is not a link; move it away and run `cargo xtask setup` again"),
        Ok(_) if fs::read_link(&link).is_ok_and(|target| target == home) => {
            println!("LibTorch {VERSION} is ready: {}", home.display());
            return Ok(());
        }
        _ => {}
    }
    let part = root.join(format!(".libtorch.tmp-{}", process::id()));
    let _ = fs::remove_file(&part);
    symlink(home, &part)
        .and_then(|()| fs::rename(&part, &link))
        .with_context(|| format!("cannot link {name} to {}", home.display()))?;
    println!("LibTorch {VERSION} is ready: .libtorch -> {}", home.display());
    Ok(())
}
