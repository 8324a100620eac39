//! Writes LibTorch's folder and the commit into the program.

#[path = "../crates/rpath.rs"]
mod rpath;

fn git(arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn main() {
    rpath::main();
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=SELFSUP_COMMIT={commit}{}", if changed { "+" } else { "" });
    for watched in ["../.git/logs/HEAD", "../crates", "../datasets/src", "src", "presets", "claims", "build.rs"] {
        println!("cargo::rerun-if-changed={watched}");
    }
}
