//! `cargo xtask new-method` writes a method that conforms. It builds the whole workspace a second time, so it runs only
//! when asked for.

use crate::{ONE_METHOD, workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that asks for tests of minutes.
const SLOW: &str = "SELFSUP_SLOW_TESTS";
const NAME: &str = "probe-method";

/// The files of the checkout: all but what git ignores.
fn files(root: &Path) -> Vec<PathBuf> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(arguments).current_dir(root).output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).filter(|p| root.join(p).is_file()).collect()
}

/// Makes `copy` hold what `root` holds. Files that are equal keep their time, or cargo would build everything anew.
fn mirror(root: &Path, copy: &Path) {
    let wanted = files(root);
    for path in &wanted {
        let (from, to) = (root.join(path), copy.join(path));
        let bytes = fs::read(&from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::write(&to, bytes).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    }
    // What an earlier run of this test made.
    for family in ["self-prediction", "contrastive", "non-contrastive"] {
        let made = copy.join("crates").join(family).join(NAME);
        if made.exists() {
            fs::remove_dir_all(&made).expect("a folder of this test's own");
        }
    }
}

#[test]
fn a_new_method_conforms() {
    if std::env::var_os(SLOW).is_none_or(|value| value != "1") {
        eprintln!("SKIPPED: a new method was not built and tested; set {SLOW}=1 for it (minutes)");
        return;
    }
    let root = workspace();
    let place = root.join("target/new-method-test");
    let copy = place.join("workspace");
    fs::create_dir_all(&copy).expect("a folder");
    mirror(&root, &copy);
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).current_dir(&copy).env("CARGO_TARGET_DIR", place.join("target")).env_remove(SLOW);
        // The link is no file of the checkout, and what cargo tells this test of its own package is not the copy's.
        command.env("LIBTORCH", std::env::var_os("LIBTORCH").unwrap_or_else(|| root.join(".libtorch").into()));
        command.env("SELFSUP_DATASETS", copy.join("datasets/bundled")).env(ONE_METHOD, NAME);
        command.env_remove("CARGO_MANIFEST_DIR");
        let output = command.output().expect("cargo runs");
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{told}", output.status);
        told
    };
    cargo(&["run", "--quiet", "--release", "--package", "xtask", "--", "new-method", NAME, "--family", "contrastive"]);
    let own = cargo(&["test", "--release", "--offline", "--package", NAME]);
    assert!(own.contains("test result: ok"), "{own}");
    let told = cargo(&[
        "test",
        "--release",
        "--offline",
        "--package",
        "selfsup-experiments",
        "--test",
        "it",
        "--",
        "conformance",
        "resume",
        "every_method_is_registered",
        "dependencies_point",
    ]);
    assert!(told.contains("every_method_keeps_the_contract ... ok"), "{told}");
    assert!(told.contains("an_interrupted_run_ends_in_the_bits_of_an_uninterrupted_one ... ok"), "{told}");
}
