//! `cargo xtask doctor`: what was found, what is wanted, and for each fault the command that mends it.

use crate::layout;
use crate::pins::{VERSION, Variant};
use crate::{setup, workspace};
use anyhow::{Result, bail};
use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// One finding; a fault has the command that mends it.
struct Finding {
    what: &'static str,
    found: String,
    mend: Option<String>,
    /// Whether builds fail without it.
    needed: bool,
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, found: found.into(), mend: None, needed: false }
}

fn fault(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { what, found: found.into(), mend: Some(mend.into()), needed: true }
}

fn warning(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { needed: false, ..fault(what, found, mend) }
}

/// Looks at everything and prints it.
///
/// # Errors
/// If something that builds need is missing.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let mut findings = tools();
    findings.extend(libtorch(&root));
    findings.push(match workspace::gpu() {
        Some(gpu) => good("GPU", gpu),
        None => good("GPU", "none seen, so the CPU is used"),
    });
    findings.extend(disk("disk, checkout", &root, 3000));
    if let Ok(cache) = workspace::cache() {
        findings.extend(disk("disk, cache", &cache, 0));
    }

    for Finding { what, found, mend, needed } in &findings {
        let mark = match (mend, needed) {
            (None, _) => "ok   ",
            (Some(_), true) => "FAULT",
            (Some(_), false) => "note ",
        };
        println!("{mark}  {what:<16} {found}");
        if let Some(mend) = mend {
            println!("       {:<16} mend: {mend}", "");
        }
    }
    let faults = findings.iter().filter(|f| f.needed).count();
    if faults > 0 {
        bail!("{faults} of the things that builds need {} missing or damaged", if faults == 1 { "is" } else { "are" });
    }
    println!("\nAll that builds need is there.");
    Ok(())
}

fn tools() -> Vec<Finding> {
    let mut findings = Vec::new();
    let wanted = fs::read_to_string(workspace::root().join("Cargo.toml")).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("rust-version = "))?.trim_matches('"').to_owned();
        Some(line)
    });
    let wanted = wanted.unwrap_or_default();
    findings.push(
        match workspace::first_line(Command::new(env::var_os("RUSTC").unwrap_or("rustc".into())).arg("-V")) {
            Some(version) if older(&version, &wanted) => {
                fault("rustc", format!("{version}, wanted {wanted} or later"), "rustup update stable")
            }
            Some(version) => good("rustc", format!("{version} (wanted {wanted} or later)")),
            None => fault("rustc", "not found", "install Rust with rustup"),
        },
    );
    for (what, component) in [("rustfmt", "rustfmt"), ("clippy", "clippy-driver")] {
        if workspace::first_line(Command::new(component).arg("--version")).is_none() {
            let mend = format!("rustup component add {what}");
            findings.push(warning(what, "not found; `cargo xtask test` needs it", mend));
        }
    }

    let compiler = env::var_os("CXX").filter(|v| !v.is_empty()).unwrap_or("c++".into());
    let name = compiler.to_string_lossy().into_owned();
    const INSTALL: &str = "apt-get install g++   (or: dnf install gcc-c++)";
    findings.push(match workspace::first_line(Command::new(&compiler).arg("--version")) {
        None => fault("C++ compiler", format!("`{name}` not found"), INSTALL),
        Some(_) if !compiles(&compiler) => {
            fault("C++ compiler", format!("`{name}` cannot compile C++17 with the standard headers"), INSTALL)
        }
        Some(version) => good("C++ compiler", format!("{version} (wanted C++17)")),
    });
    // torch-sys links -lgomp through the C compiler, which answers with the bare name if it has no such file.
    let gomp = workspace::first_line(Command::new("cc").arg("-print-file-name=libgomp.so"));
    findings.push(match gomp {
        Some(path) if Path::new(&path).is_absolute() => good("libgomp", path),
        Some(_) => fault("libgomp", "`cc` does not find libgomp.so, which torch-sys links", "apt-get install gcc"),
        None => fault("C compiler", "`cc` not found; Rust links with it", "apt-get install gcc"),
    });

    // Only the set-up needs Python, so a machine whose LibTorch is there does without.
    findings.push(match workspace::first_line(Command::new("python3").arg("--version")) {
        None => warning("python3", "not found; `cargo xtask setup` needs it", "install python3 with pip"),
        Some(version) => match workspace::first_line(Command::new("python3").args(["-m", "pip", "--version"])) {
            Some(pip) => good("python3", format!("{version}, {}", pip.split(" from").next().unwrap_or_default())),
            None => warning("python3", format!("{version} without pip, which `cargo xtask setup` needs"), setup::PIP),
        },
    });
    findings
}

/// Whether `rustc X.Y.Z (...)` is older than `wanted`.
fn older(version: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).take(2).collect()
    };
    numbers(version.trim_start_matches("rustc ")) < numbers(wanted)
}

fn compiles(compiler: &std::ffi::OsStr) -> bool {
    let child = Command::new(compiler)
        .args(["-std=c++17", "-fsyntax-only", "-x", "c++", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(b"#include <optional>\nstd::optional<int> x;\n");
    }
    child.wait().is_ok_and(|status| status.success())
}

fn libtorch(root: &Path) -> Vec<Finding> {
    const SETUP: &str = "cargo xtask setup";
    let mut findings = Vec::new();
    for name in ["LIBTORCH_USE_PYTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_LIB", "LIBTORCH_STATIC"] {
        if env::var_os(name).is_some() {
            findings.push(warning(
                name,
                "set, so torch-sys looks elsewhere than in .libtorch",
                format!("unset {name}"),
            ));
        }
    }
    let link = workspace::link(root);
    let user = match workspace::libtorch_of_user(root) {
        Ok(user) => user,
        Err(error) => {
            findings.push(fault("LIBTORCH", format!("{error:#}"), "unset LIBTORCH"));
            None
        }
    };
    let home = match (&user, fs::read_link(&link)) {
        (Some(home), target) => {
            findings.push(good("LIBTORCH", format!("{} (set by you)", home.display())));
            if target.ok().as_ref() != Some(home) {
                findings.push(warning(".libtorch", "is not linked to your LIBTORCH", SETUP));
            }
            home.clone()
        }
        (None, Ok(target)) => {
            findings.push(good(".libtorch", format!("-> {}", target.display())));
            target
        }
        (None, Err(_)) => {
            findings.push(fault(".libtorch", format!("no link; LibTorch {VERSION} is wanted"), SETUP));
            return findings;
        }
    };
    let mend = if user.is_some() { "unset LIBTORCH; cargo xtask setup" } else { "cargo xtask setup --cpu" };
    let home = match fs::canonicalize(&home) {
        Ok(home) => home,
        Err(_) => {
            findings.push(fault("LibTorch", format!("{} does not exist", home.display()), mend));
            return findings;
        }
    };

    let ours = layout::of(&home);
    if let Some((dir, variant)) = &ours {
        let repair = format!("cargo xtask setup --{} --repair", variant.name());
        match layout::verify(dir, *variant, true).and_then(|()| layout::manifest(dir, *variant)) {
            Ok(parts) => {
                let mb = parts.iter().map(|part| part.size).sum::<u64>() / 1_000_000;
                let text =
                    format!("{VERSION} ({}); {} files, {mb} MB, sizes and sums right", variant.name(), parts.len());
                findings.push(good("LibTorch", text));
            }
            Err(error) => findings.push(fault("LibTorch", format!("{error:#}"), repair)),
        }
    } else {
        match layout::usable(&home) {
            Ok(()) => {
                findings.push(good("LibTorch", format!("{VERSION}, not laid out by a set-up, so its sums are unknown")))
            }
            Err(error) => findings.push(fault("LibTorch", format!("{error:#}"), mend)),
        }
    }

    let mend = match ours {
        Some((_, variant)) => format!("cargo xtask setup --{} --repair", variant.name()),
        None => mend.to_owned(),
    };
    let cuda = home.join("lib/libtorch_cuda.so").exists();
    for library in ["libc10.so", "libtorch_cpu.so", "libtorch_cuda.so"] {
        let path = home.join("lib").join(library);
        if path.exists() {
            findings.push(match unresolved(&path) {
                Some(missing) if missing.is_empty() => good(library, "finds every library that it needs"),
                Some(missing) => fault(library, format!("does not find {}", missing.join(", ")), mend.clone()),
                None => fault(library, "cannot be loaded (`ldd` fails on it)", mend.clone()),
            });
        }
    }
    if workspace::gpu().is_some() && !cuda {
        findings.push(warning("CUDA", "there is a GPU, and this LibTorch has no CUDA", "cargo xtask setup --cuda"));
    }
    findings
}

/// The libraries that the loader would not find for `library`, or `None` if it cannot read it.
fn unresolved(library: &Path) -> Option<Vec<String>> {
    let output = Command::new("ldd").arg(library).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let missing = text.lines().filter(|line| line.contains("not found"));
    let missing: Vec<String> =
        missing.map(|line| line.split(" => ").next().unwrap_or(line).trim().to_owned()).collect();
    (output.status.success() || !missing.is_empty()).then_some(missing)
}

/// Free space; less than `wanted` MB is a note, not a fault, as what is built may be there already.
fn disk(what: &'static str, path: &Path, wanted: u64) -> Option<Finding> {
    let free = workspace::free_mb(path)?;
    let wanted =
        if wanted > 0 || layout::folder(path, Variant::Cpu).exists() { wanted } else { Variant::Cpu.size_mb().2 };
    let found = format!("{free} MB free in {}", path.display());
    Some(if free < wanted {
        warning(
            what,
            format!("{found}, {wanted} MB wanted"),
            "make room, or set SELFSUP_CACHE or CARGO_TARGET_DIR to another disk",
        )
    } else {
        good(what, found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(older("rustc 1.94.1 (e408947bf 2026-03-25)", "1.95"));
        assert!(!older("rustc 1.95.0 (59807616e 2026-04-14)", "1.95"));
        assert!(!older("rustc 1.100.0", "1.95"));
    }
}
