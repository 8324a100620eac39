//! `cargo xtask demo` and `cargo xtask test`: set up, then run.

use crate::{setup, workspace};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Builds and runs the main job on the bundled images. Returns only if it could not be started.
///
/// # Errors
/// If the set-up, the build or the start fails.
pub(crate) fn demo(extra: &[String]) -> Result<()> {
    setup::run(&setup::Wish::default())?;
    let job = ["--release", "--package", "selfsup-experiments", "--bin", "selfsup"];
    let status = workspace::cargo().arg("build").args(job).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the build failed; `cargo xtask doctor` tells what is missing");
    }
    // Cargo knows where its target folder is, and the job takes this process's place: Ctrl-C reaches it alone.
    let mut run = workspace::cargo();
    run.args(["run", "--quiet"]).args(job).args(["--", "compare", "experiments/studies/demo.toml"]).args(extra);
    Err(run.exec()).context("cannot run cargo")
}

/// How many tests passed, failed and were ignored, in how many binaries.
#[derive(Debug, Default, PartialEq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
    binaries: u64,
}

impl Count {
    /// Adds a line of cargo test if it is a `test result:`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        self.binaries += 1;
        for part in result.split(['.', ';']) {
            match part.trim().split_once(' ').map(|(n, what)| (n.parse::<u64>(), what)) {
                Some((Ok(n), "passed")) => self.passed += n,
                Some((Ok(n), "failed")) => self.failed += n,
                Some((Ok(n), "ignored")) => self.ignored += n,
                _ => {}
            }
        }
    }
}

/// Everything that CI runs, all of it in release so that LibTorch's bindings are compiled once. A failed step does not
/// stop the others.
///
/// # Errors
/// If a step failed.
pub(crate) fn test(quick: bool) -> Result<()> {
    let start = Instant::now();
    setup::run(&setup::Wish::default())?;
    let steps: [(&str, &[&str]); 4] = [
        ("format", &["fmt", "--all", "--check"]),
        ("clippy", &["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ("doc", &["doc", "--release", "--workspace", "--no-deps"]),
        ("test", &["test", "--release", "--workspace", "--no-fail-fast"]),
    ];
    let mut summary = vec![format!("{:<8} ok      {:>7.1} s", "setup", start.elapsed().as_secs_f64())];
    let (mut failed, mut count) = (Vec::new(), Count::default());
    for (name, arguments) in steps {
        if quick && name != "test" {
            continue;
        }
        eprintln!("\n== {name}: cargo {}", arguments.join(" "));
        let clock = Instant::now();
        let mut command = workspace::cargo();
        command.args(arguments);
        if name == "doc" {
            command.env("RUSTDOCFLAGS", "-D warnings");
        }
        let good = if name == "test" { counted(&mut command, &mut count)? } else { succeeds(&mut command)? };
        let verdict = if good { "ok" } else { "FAILED" };
        summary.push(format!("{name:<8} {verdict:<7} {:>7.1} s", clock.elapsed().as_secs_f64()));
        if !good {
            failed.push(name);
        }
    }
    if !quick {
        let (lines, good) = denied();
        summary.extend(lines);
        if !good {
            failed.push("deny");
        }
    }
    let Count { passed, failed: broken, ignored, binaries } = count;
    println!("\n{}", summary.join("\n"));
    println!("tests: {passed} passed, {broken} failed, {ignored} ignored, in {binaries} binaries and doc runs");
    if !failed.is_empty() {
        bail!("failed: {} (after {:.0} s)", failed.join(", "), start.elapsed().as_secs_f64());
    }
    println!("all steps ok in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// `cargo deny check`: licences and origin of all parts, and advisories where their database can be had. What cannot be
/// checked here is said, and is no failure. Lines for the summary, and whether nothing was found.
fn denied() -> (Vec<String>, bool) {
    let deny = |arguments: &[&str]| workspace::cargo().arg("deny").args(arguments).status().is_ok_and(|s| s.success());
    let line = |name: &str, verdict: &str| format!("{name:<8} {verdict}");
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !quiet(workspace::cargo().args(["deny", "--version"])).is_ok_and(|status| status.success()) {
        let why = "SKIPPED: cargo-deny is not installed (`cargo install cargo-deny`), so no advisory was looked up";
        eprintln!("\n== deny: {why}");
        return (vec![line("deny", why)], true);
    }
    eprintln!("\n== deny: cargo deny check");
    let parts = deny(&["check", "licenses", "bans", "sources"]);
    let mut lines = vec![line("deny", if parts { "ok" } else { "FAILED" })];
    if !deny(&["fetch", "db"]) {
        let why = "SKIPPED: the database of advisories cannot be reached";
        eprintln!("\n== advisories: {why}");
        lines.push(line("advisories", why));
        return (lines, parts);
    }
    let advisories = deny(&["check", "--disable-fetch", "advisories"]);
    lines.push(line("advisories", if advisories { "ok" } else { "FAILED" }));
    (lines, parts && advisories)
}

fn succeeds(command: &mut Command) -> Result<bool> {
    Ok(command.status().context("cannot run cargo")?.success())
}

/// Runs cargo test, passing its lines on and counting the results among them.
fn counted(command: &mut Command, count: &mut Count) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    if let Some(lines) = child.stdout.take() {
        let (mut lines, mut line, mut out) = (BufReader::new(lines), Vec::new(), std::io::stdout());
        while lines.read_until(b'\n', &mut line).context("cannot read what cargo test prints")? > 0 {
            count.add(String::from_utf8_lossy(&line).trim_end());
            // A closed pipe behind us is no reason to stop testing.
            let _ = out.write_all(&line).and_then(|()| out.flush());
            line.clear();
        }
    }
    Ok(child.wait().context("cannot wait for cargo")?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_over_binaries() {
        let mut count = Count::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "test result: FAILED. 10 passed; 4 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.25s",
        ] {
            count.add(line);
        }
        assert_eq!(count, Count { passed: 12, failed: 4, ignored: 1, binaries: 2 });
    }
}
