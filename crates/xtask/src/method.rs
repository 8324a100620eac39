//! `cargo xtask new-method`: a method's crate that compiles, trains and is registered.
//!
//! The three files that name every method are edited as text, so that their comments and order stay. All new texts are
//! made before the first is written.

use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;

/// The families, in the order in which lists name them.
pub(crate) const FAMILIES: [&str; 3] = ["self-prediction", "contrastive", "non-contrastive"];

const MANIFEST: &str = "Cargo.toml";
const EXPERIMENTS: &str = "experiments/Cargo.toml";
const REGISTRY: &str = "experiments/src/registry.rs";

/// Writes crates/FAMILY/NAME and names it in the workspace, in the experiments and in the registry.
///
/// # Errors
/// If the name or the family cannot be used or a file has no place for it; nothing is written then.
pub(crate) fn new(name: &str, family: &str) -> Result<()> {
    let root = workspace::root();
    write(&root, name, family)?;
    // A long name may need other line breaks; without rustfmt the files are right, only not in form.
    let formatted = workspace::cargo().args(["fmt", "--package", name]).status();
    if !formatted.is_ok_and(|status| status.success()) {
        eprintln!("`cargo fmt` failed; run it before `cargo xtask test`");
    }
    println!("wrote crates/{family}/{name} and named it in {MANIFEST}, {EXPERIMENTS} and {REGISTRY}");
    println!("its tests:     cargo test --release --package {name}");
    println!("the paper's equation goes into `objective` in crates/{family}/{name}/src/lib.rs");
    Ok(())
}

fn write(root: &Path, name: &str, family: &str) -> Result<()> {
    ensure!(FAMILIES.contains(&family), "unknown family `{family}`; expected one of {}", FAMILIES.join(", "));
    check_name(name)?;
    let read = |path: &str| {
        fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {}", root.join(path).display()))
    };
    let manifest = read(MANIFEST)?;
    if let Some(other) = FAMILIES.iter().find(|f| root.join("crates").join(f).join(name).exists()) {
        bail!("crates/{other}/{name} exists already; choose another name");
    }
    let locked = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    let taken = locked.lines().any(|line| line == format!("name = \"{name}\""))
        || section(&manifest, "[workspace.dependencies]")?.iter().any(|(_, line)| key(line) == Some(name));
    ensure!(!taken, "`{name}` is the name of a package that the workspace uses already; choose another");

    let edits = [
        (MANIFEST, add_to_workspace(&manifest, name, family)?),
        (EXPERIMENTS, add_to_dependencies(&read(EXPERIMENTS)?, name)?),
        (REGISTRY, add_to_registry(&read(REGISTRY)?, &families(&manifest)?, name, family)?),
    ];
    let before: Vec<String> = edits.iter().map(|(path, _)| read(path)).collect::<Result<_>>()?;

    // The crate is made beside the workspace's globs and renamed into place, then the three files follow.
    let part = root.join(format!(".new-method.tmp-{}", std::process::id()));
    let home = root.join("crates").join(family).join(name);
    let made = (|| -> Result<()> {
        fs::create_dir_all(part.join("src"))?;
        for (path, template) in [
            ("Cargo.toml", include_str!("template/Cargo.toml.template")),
            ("src/lib.rs", include_str!("template/lib.rs.template")),
            ("src/tests.rs", include_str!("template/tests.rs.template")),
        ] {
            workspace::write(&part.join(path), &fill(template, name, family))?;
        }
        fs::create_dir_all(root.join("crates").join(family))?;
        fs::rename(&part, &home)?;
        edits.iter().try_for_each(|(path, text)| workspace::write(&root.join(path), text))
    })();
    if made.is_err() {
        let _ = fs::remove_dir_all(&part);
        let _ = fs::remove_dir_all(&home);
        for ((path, _), text) in edits.iter().zip(&before) {
            if fs::read_to_string(root.join(path)).is_ok_and(|now| now != *text) {
                let _ = workspace::write(&root.join(path), text);
            }
        }
    }
    made.with_context(|| format!("cannot write crates/{family}/{name}; nothing was changed"))
}

fn check_name(name: &str) -> Result<()> {
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('-').all(part) && name.len() <= 40,
        "`{name}` cannot name a method; expected lower-case letters and digits, words joined by single hyphens, a \
         letter first, at most 40 characters, as in `barlow-twins`"
    );
    // Rust's keywords, the crates of every program, and the names that a method's file imports.
    const RESERVED: &str = " abstract alloc as async await become box break const continue core crate do dyn else enum \
        extern false final fn for gen if impl in let loop macro match mod move mut override priv proc-macro pub ref \
        return self static std struct super test trait true try type typeof union unsafe unsized use virtual where \
        while yield batch box config crop define encoder family jitter loss method mlp mlp-style option path progress \
        recipe result setup some string tensor vec ";
    ensure!(
        !RESERVED.split_whitespace().any(|word| word == name),
        "`{name}` means something else in Rust or in a method's file; choose another name"
    );
    Ok(())
}

/// `barlow-twins` -> `BarlowTwins`.
fn camel(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').map(capital).collect()
}

fn fill(template: &str, name: &str, family: &str) -> String {
    template.replace("{name}", name).replace("{Type}", &camel(name)).replace("{Family}", &camel(family))
}

/// The lines of a section of a Cargo.toml with their numbers, without its header.
fn section<'a>(text: &'a str, header: &str) -> Result<Vec<(usize, &'a str)>> {
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| line.trim() != header);
    lines.next().with_context(|| format!("there is no section {header} to add the method to"))?;
    Ok(lines.take_while(|(_, line)| !line.trim_start().starts_with('[')).collect())
}

/// The key of a line: `simclr` of `simclr = {..}` and of `simclr.workspace = true`.
fn key(line: &str) -> Option<&str> {
    let key = line.split(['.', '=']).next()?.trim();
    (!key.is_empty() && line.contains('=') && !key.starts_with('#')).then_some(key)
}

fn place(family: &str) -> usize {
    FAMILIES.iter().position(|f| *f == family).unwrap_or(FAMILIES.len())
}

/// The methods of a workspace and the places of their families in [`FAMILIES`].
fn families(manifest: &str) -> Result<Vec<(String, usize)>> {
    let lines = section(manifest, "[workspace.dependencies]")?;
    let method = |line: &str| {
        let family = line.split("path = \"crates/").nth(1)?.split('/').next()?;
        Some((key(line)?.to_owned(), place(family))).filter(|_| FAMILIES.contains(&family))
    };
    Ok(lines.into_iter().filter_map(|(_, line)| method(line)).collect())
}

fn insert_line(text: &str, at: usize, line: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(at, line);
    lines.join("\n") + "\n"
}

/// After the last method of its family or of one before it, else after the last package of the workspace's own.
fn add_to_workspace(manifest: &str, name: &str, family: &str) -> Result<String> {
    let known = families(manifest)?;
    let lines = section(manifest, "[workspace.dependencies]")?;
    let before = |line: &str| known.iter().any(|(k, p)| Some(k.as_str()) == key(line) && *p <= place(family));
    let own = |line: &str| line.contains("path = \"") && !known.iter().any(|(k, _)| Some(k.as_str()) == key(line));
    let last = lines.iter().rfind(|(_, line)| before(line)).or_else(|| lines.iter().rfind(|(_, line)| own(line)));
    let (at, _) = last.context("[workspace.dependencies] in Cargo.toml names no package of the workspace's own")?;
    Ok(insert_line(manifest, at + 1, &format!("{name} = {{ path = \"crates/{family}/{name}\" }}")))
}

/// Before the first dependency with a later name, as the list is in alphabetical order.
fn add_to_dependencies(manifest: &str, name: &str) -> Result<String> {
    let lines = section(manifest, "[dependencies]")?;
    let keys: Vec<(usize, &str)> = lines.iter().filter_map(|(at, line)| Some((*at, key(line)?))).collect();
    ensure!(keys.iter().all(|(_, k)| *k != name), "experiments/Cargo.toml depends on `{name}` already");
    let later = keys.iter().find(|(_, k)| *k > name).map(|(at, _)| *at);
    let at = later.or_else(|| keys.last().map(|(at, _)| at + 1));
    let at = at.context("[dependencies] in experiments/Cargo.toml is empty; expected the methods in it")?;
    Ok(insert_line(manifest, at, &format!("{name}.workspace = true")))
}

/// Adds `entry::<crate::Type>(),` to the list METHODS, after the last entry of its family or of one before it.
fn add_to_registry(text: &str, known: &[(String, usize)], name: &str, family: &str) -> Result<String> {
    const WANTED: &str = "experiments/src/registry.rs has no list `METHODS ... = &[entry::<..>(), ..];` to add to";
    let list = ["const METHODS:", "static METHODS:"].iter().find_map(|name| {
        let at = text.find(name)?;
        let head = &text[at..];
        let equals = head.find('=')?;
        let open = at + equals + head[equals..].find('[')? + 1;
        let close = open + text[open..].find("];")?;
        Some((open, close))
    });
    let (open, close) = list.context(WANTED)?;
    let crate_name = name.replace('-', "_");
    let item = format!("entry::<{crate_name}::{}>()", camel(name));

    // The entries as (start, end of `entry::<..>()`, place of the family).
    let mut entries = Vec::new();
    for (start, _) in text[open..close].match_indices("entry::<").map(|(at, s)| (open + at, s)) {
        let line = text[..start].rfind('\n').map_or(0, |n| n + 1);
        if text[line..start].contains("//") {
            continue;
        }
        let end = start + text[start..close].find("()").context(WANTED)? + 2;
        let module = text[start + "entry::<".len()..end].split("::").next().unwrap_or_default();
        ensure!(module != crate_name, "experiments/src/registry.rs lists `{name}` already");
        let place = known.iter().find(|(k, _)| k.replace('-', "_") == module).map_or(FAMILIES.len(), |(_, p)| *p);
        entries.push((start, end, place));
    }
    let upright = text[open..close].contains('\n');
    let mut text = text.to_owned();
    match entries.iter().rfind(|(_, _, p)| *p <= place(family)) {
        Some((start, end, _)) => {
            let line = text[..*start].rfind('\n').map_or(0, |n| n + 1);
            let indent: String = text[line..].chars().take_while(|c| *c == ' ').collect();
            let comma = text[*end..].starts_with(',');
            let new = match (upright, comma) {
                (true, true) => format!(",\n{indent}{item}"),
                (true, false) => format!(",\n{indent}{item},"),
                (false, _) => format!(", {item}"),
            };
            text.insert_str(*end, &new);
        }
        None => {
            let new = match (upright, entries.is_empty()) {
                (true, _) => format!("\n    {item},"),
                (false, true) => item,
                (false, false) => format!("{item}, "),
            };
            text.insert_str(open, &new);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
