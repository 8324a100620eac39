//! `cargo xtask`: set-up, doctor, demo, test and new-method. Needs no LibTorch to compile.

mod doctor;
mod layout;
mod method;
mod pins;
mod setup;
mod steps;
mod workspace;

use anyhow::{Context, Result, bail};
use pins::Variant;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  setup [--cpu | --cuda] [--from FOLDER] [--repair]
                  provide LibTorch and link .libtorch to it. Without a flag: a LIBTORCH set in the environment, else
                  what is linked, else CUDA's where there is an NVIDIA GPU, else the CPU's (about 550 MB to download,
                  500 MB on disk, shared by checkouts).
                  --from FOLDER  use the wheels in FOLDER instead of downloading them
                  --repair       check every file's sum and make a damaged LibTorch again
  doctor          what was found, what is wanted, the command that mends each fault
  demo [-- ARGUMENT...]
                  set up if needed, build, run the study experiments/studies/demo.toml on the bundled images;
                  the arguments go to `selfsup compare`
  test [--quick]  set up if needed, run everything that CI runs: format, clippy, doc, test. --quick: the tests only
  new-method NAME --family self-prediction|contrastive|non-contrastive
                  write a method's crate that compiles, trains and is registered, to be filled with the paper's equation
  help            this text

SELFSUP_CACHE names the folder for LibTorch; else selfsup in $XDG_CACHE_HOME, else ~/.cache/selfsup.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", [].as_slice()),
    };
    if rest.iter().any(|a| a == "--help" || a == "-h") && command != "demo" {
        println!("{HELP}");
        return Ok(());
    }
    match command {
        "setup" => setup::run(&wish(rest)?),
        "doctor" => {
            none(rest)?;
            doctor::run()
        }
        "demo" => steps::demo(rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest)),
        "test" => match rest {
            [] => steps::test(false),
            [flag] if flag == "--quick" => steps::test(true),
            _ => bail!("`test` takes no argument but --quick, found `{}`", rest.join(" ")),
        },
        "new-method" => match rest {
            [name, flag, family] if flag == "--family" => method::new(name, family),
            [flag, family, name] if flag == "--family" => method::new(name, family),
            _ => bail!("expected `cargo xtask new-method NAME --family {}`", method::FAMILIES.join("|")),
        },
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("unknown command `{other}`; expected setup, doctor, demo, test, new-method or help"),
    }
}

fn none(rest: &[String]) -> Result<()> {
    match rest.first() {
        Some(argument) => bail!("unexpected argument `{argument}`; `cargo xtask help` lists what each command takes"),
        None => Ok(()),
    }
}

fn wish(rest: &[String]) -> Result<setup::Wish> {
    let mut wish = setup::Wish::default();
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--cpu" | "--cuda" if wish.variant.is_some() => bail!("--cpu or --cuda was given twice; expected one"),
            "--cpu" => wish.variant = Some(Variant::Cpu),
            "--cuda" => wish.variant = Some(Variant::Cuda),
            "--repair" => wish.repair = true,
            "--from" => {
                let folder = rest.next().context("--from needs the folder that holds the wheels")?;
                wish.from = Some(std::path::absolute(folder)?);
            }
            other => bail!("`setup` does not know `{other}`; expected --cpu, --cuda, --from FOLDER or --repair"),
        }
    }
    Ok(wish)
}
