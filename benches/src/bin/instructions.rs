//! Instructions that a view costs, counted by valgrind: they are the same on a busy machine as on a quiet one, so that
//! a slower kernel shows where times do not.
//!
//! ```sh
//! cargo run --release -p selfsup-benches --bin instructions             # the table, beside benches/instructions.csv
//! cargo run --release -p selfsup-benches --bin instructions -- --write  # and takes it as the new one
//! ```
//!
//! Needs valgrind, which has no AVX-512; the kernels use AVX2 at most. Counts depend on the compiler.

use anyhow::{Context, Result, bail, ensure};
use selfsup_benches::{Noise, recipes, render_all};
use selfsup_core::augment::{Recipe, cpu};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

/// Views of each recipe: what is drawn for them differs, so that the count is a mean.
const VIEWS: usize = 256;
/// With this argument the program does the work that is counted.
const WORK: &str = "--work";

/// What is counted for one recipe.
fn views(recipe: &Recipe, size: usize, channels: usize) {
    let images = Noise::new(VIEWS, size, channels);
    let normalisation = images.normalisation();
    let mut scratch = cpu::Scratch::new();
    let mut out = vec![0.0; size * size * channels];
    let mut work = |epoch| render_all(&images, recipe, size, &normalisation, epoch, &mut out, &mut scratch);
    work(0); // buffers grow here
    counted(&mut || work(1));
}

/// What is counted, known to valgrind by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Instructions of [`counted`] for one recipe.
fn count(set: &str, recipe: &str, folder: &Path) -> Result<u64> {
    let out = folder.join("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*instructions::counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        .args([WORK, set, recipe])
        .stderr(Stdio::null())
        .status();
    let status = status.context("valgrind does not start; install it")?;
    ensure!(status.success(), "valgrind ended with {status}");
    let text = fs::read_to_string(&out).with_context(|| out.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ")).context("valgrind counted nothing")?;
    let all: u64 = line.trim().parse().context("valgrind counted no number")?;
    ensure!(all > 0, "valgrind did not find the function `counted`");
    Ok(all / VIEWS as u64)
}

const SETS: [(&str, usize, usize); 2] = [("32x32x3", 32, 3), ("28x28x1", 28, 1)];

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [work, set, name] = arguments.as_slice()
        && work == WORK
    {
        let (_, size, channels) = SETS.into_iter().find(|other| other.0 == set).context("no such images")?;
        let (_, recipe) = recipes().into_iter().find(|other| other.0 == name).context("no such recipe")?;
        views(&recipe, size, channels);
        return Ok(());
    }
    if !matches!(arguments.as_slice(), [] | [_]) || arguments.first().is_some_and(|a| a != "--write") {
        bail!("expected nothing, or --write");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.csv");
    let before: BTreeMap<String, u64> = fs::read_to_string(&path)
        .unwrap_or_default()
        .lines()
        .skip(1)
        .filter_map(|line| line.rsplit_once(',').and_then(|(view, n)| Some((view.into(), n.parse().ok()?))))
        .collect();
    let folder = env::temp_dir().join(format!("selfsup-instructions-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut table = String::from("images,recipe,instructions\n");
    println!("{:9} {:13} {:>12} {:>9} {:>8}", "images", "recipe", "a view", "a value", "before");
    for (set, size, channels) in SETS {
        for (recipe, _) in recipes() {
            let n = count(set, recipe, &folder)?;
            let share = before
                .get(&format!("{set},{recipe}"))
                .map(|&b| format!("{:+.2} %", 100.0 * (n as f64 / b as f64 - 1.0)));
            let a_value = n as f64 / (size * size * channels) as f64;
            println!("{set:9} {recipe:13} {n:12} {a_value:9.1} {:>8}", share.unwrap_or_default());
            table += &format!("{set},{recipe},{n}\n");
        }
    }
    fs::remove_dir_all(&folder)?;
    if arguments.len() == 1 {
        fs::write(&path, table)?;
    }
    Ok(())
}
