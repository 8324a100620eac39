//! Which crate may depend on which, what a crate may hold, and whether everything that is there is known.

use crate::workspace;
use selfsup_experiments::config::RunConfig;
use selfsup_experiments::preset::PRESETS;
use selfsup_experiments::registry::METHODS;
use selfsup_experiments::study::Study;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FAMILIES: [&str; 3] = ["self-prediction", "contrastive", "non-contrastive"];

/// What a crate may depend on, of the workspace and of LibTorch's bindings. Methods and what may depend on them are
/// not in the table.
const ALLOWED: &[(&str, &[&str])] = &[
    ("selfsup-torch-ext", &["tch", "torch-sys"]),
    ("selfsup-core", &["selfsup-torch-ext", "tch"]),
    ("selfsup-train", &["selfsup-core"]),
    ("selfsup-evaluate", &["selfsup-core"]),
    ("selfsup-datasets", &["selfsup-core"]),
    ("selfsup-report", &[]),
    ("xtask", &[]),
    (
        "selfsup-experiments",
        &["selfsup-core", "selfsup-train", "selfsup-evaluate", "selfsup-datasets", "selfsup-report"],
    ),
    (
        "selfsup-benches",
        &[
            "selfsup-core",
            "selfsup-train",
            "selfsup-evaluate",
            "selfsup-datasets",
            "selfsup-report",
            "selfsup-experiments",
        ],
    ),
];

/// The two that may name methods.
const ABOVE_METHODS: [&str; 2] = ["selfsup-experiments", "selfsup-benches"];

/// All that a method's file may name, and what its tests may besides.
const OF_A_METHOD: [&str; 3] = ["anyhow", "selfsup-core", "serde"];
const OF_ITS_TESTS: [&str; 4] = ["proptest", "safetensors", "serde_json", "tempfile"];

struct Package {
    folder: PathBuf,
    /// (name, whether for tests alone).
    dependencies: Vec<(String, bool)>,
}

impl Package {
    fn is_method(&self) -> bool {
        let parent = self.folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        parent.is_some_and(|name| FAMILIES.contains(&name))
    }
}

/// What cargo knows of the workspace, without a network: all that is built here is there.
fn metadata(arguments: &[&str]) -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--offline"]).args(arguments);
    let output = command.current_dir(workspace()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn packages() -> BTreeMap<String, Package> {
    let metadata = metadata(&["--no-deps"]);
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_string();
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let package = |p: &serde_json::Value| {
        let manifest = PathBuf::from(text(&p["manifest_path"]));
        let dependencies = list(&p["dependencies"]).iter().map(|d| (text(&d["name"]), d["kind"] == "dev")).collect();
        (text(&p["name"]), Package { folder: manifest.parent().expect("a folder").into(), dependencies })
    };
    list(&metadata["packages"]).iter().map(package).collect()
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    let methods: BTreeSet<&str> = packages.iter().filter(|(_, p)| p.is_method()).map(|(n, _)| n.as_str()).collect();
    for (name, package) in &packages {
        let depends = package.dependencies.iter();
        if package.is_method() {
            for (on, test) in depends {
                let known = OF_A_METHOD.contains(&on.as_str()) || (*test && OF_ITS_TESTS.contains(&on.as_str()));
                assert!(known, "{name} depends on {on}, but a method may use {OF_A_METHOD:?} alone");
            }
            continue;
        }
        let row = ALLOWED.iter().find(|(known, _)| known == name);
        let (_, allowed) = row.unwrap_or_else(|| panic!("{name} is not in the table of allowed dependencies"));
        for (on, _) in depends {
            let ours = packages.contains_key(on) || ["tch", "torch-sys"].contains(&on.as_str());
            let method = methods.contains(on.as_str()) && ABOVE_METHODS.contains(&name.as_str());
            assert!(!ours || method || allowed.contains(&on.as_str()), "{name} must not depend on {on}");
        }
    }
    for (name, _) in ALLOWED {
        assert!(packages.contains_key(*name), "{name} is in the table, but not in the workspace");
    }
}

#[test]
fn every_method_is_registered_once_and_in_its_family() {
    let root = workspace();
    let mut folders = BTreeSet::new();
    for family in FAMILIES {
        for entry in fs::read_dir(root.join("crates").join(family)).expect("a family's folder") {
            let entry = entry.expect("an entry");
            if entry.path().is_dir() {
                folders.insert((family.to_string(), entry.file_name().to_string_lossy().into_owned()));
            }
        }
    }
    let registered: Vec<_> = METHODS.iter().map(|m| (m.family.to_string(), m.name.to_string())).collect();
    let set: BTreeSet<_> = registered.iter().cloned().collect();
    assert_eq!(set.len(), registered.len(), "a method is registered twice");
    assert_eq!(folders, set, "folders under the families (left) and METHODS (right)");
}

/// Every Rust file of the workspace's packages.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&entry, into);
            } else if name.ends_with(".rs") {
                into.push(entry);
            }
        }
    }
    let mut paths = Vec::new();
    for top in ["crates", "datasets", "experiments", "benches"] {
        walk(&workspace().join(top), &mut paths);
    }
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("a source file"))).collect()
}

#[test]
fn every_file_says_what_it_is_and_keeps_to_its_layer() {
    // Put together here so that this file does not hold them.
    let unsafe_code: Vec<String> =
        ["{", "fn", "impl", "extern", "trait"].map(|next| format!("{} {next}", "unsafe")).into();
    let (layers, bindings) = (format!("{}::nn", "tch"), format!("{}::", "torch_sys"));
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let place = path.strip_prefix(workspace()).expect("in the workspace").to_string_lossy().into_owned();
        if !text.starts_with("//!") {
            wrong.push(format!("{place}: must begin with `//!` and what the file is for"));
        }
        let code: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
        let holds = |what: &str| code.iter().any(|line| line.contains(what));
        let ext = place.starts_with("crates/torch-ext/");
        if !ext && unsafe_code.iter().any(|what| holds(what)) {
            wrong.push(format!("{place}: only torch-ext may hold unsafe code"));
        }
        if !ext && holds(&bindings) {
            wrong.push(format!("{place}: only torch-ext names LibTorch's raw bindings"));
        }
        if holds(&layers) {
            wrong.push(format!("{place}: tch's layers and optimisers are not the papers'; use selfsup_core's"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_method_file_is_short_and_states_its_departures() {
    for entry in METHODS {
        let path = workspace().join("crates").join(entry.family.to_string()).join(entry.name).join("src/lib.rs");
        let text = fs::read_to_string(&path).expect("a method's file");
        let lines = text.lines().count();
        assert!(lines <= 300, "{}: {lines} lines; a method reads like its paper in at most 300", path.display());
        let stated =
            ["departs from the paper", "departures from the paper"].iter().any(|s| text.to_lowercase().contains(s));
        assert!(stated, "{}: must say where this departs from the paper", path.display());
        let link = entry.paper.split_whitespace().find(|word| word.starts_with("https://"));
        assert!(
            link.is_none_or(|link| text.contains(&format!("<{link}>"))),
            "{}: its first lines link the paper",
            path.display()
        );
    }
}

#[test]
fn every_preset_is_known_commented_and_resolves() {
    let folder = workspace().join("experiments/presets");
    let mut files = BTreeSet::new();
    for method in fs::read_dir(&folder).expect("presets").map(|entry| entry.expect("an entry").path()) {
        for file in fs::read_dir(&method).expect("a folder a method").map(|entry| entry.expect("an entry").path()) {
            let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
            files.insert((name(&method), name(&file)));
        }
    }
    let known: BTreeSet<_> = PRESETS.iter().map(|(method, name, _)| (method.to_string(), name.to_string())).collect();
    assert_eq!(files, known, "files in presets/ (left) and PRESETS (right)");
    let mut wrong = Vec::new();
    for (method, name, text) in PRESETS {
        if !text.starts_with("# ") {
            wrong.push(format!("{method}/{name}: must begin with a comment that says whose numbers these are"));
        }
        match RunConfig::resolve(&format!("{method}/{name}"), &[]) {
            Ok(config) => drop(config.to_toml().expect("a configuration has a TOML form")),
            Err(error) => wrong.push(format!("{method}/{name}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_study_resolves() {
    let mut studies = 0;
    let files = |folder: &str| fs::read_dir(workspace().join("experiments").join(folder)).expect("studies");
    for path in files("studies").chain(files("papers")).map(|e| e.expect("an entry").path()) {
        let study = Study::read(&path, &[]).unwrap_or_else(|e| panic!("{}: {e:#}", path.display()));
        assert_eq!(
            path.file_stem().and_then(|s| s.to_str()),
            Some(study.name.as_str()),
            "a study is named as its file"
        );
        let runs = study.runs().unwrap_or_else(|e| panic!("{}: {e:#}", path.display()));
        let ids: BTreeSet<String> = runs.iter().map(|config| config.run_id().expect("an id")).collect();
        assert_eq!(ids.len(), runs.len(), "{}: two runs would share a folder", path.display());
        let published = study.published().unwrap_or_else(|e| panic!("{}: {e:#}", path.display()));
        assert_eq!(published.is_empty(), path.parent().is_some_and(|p| p.ends_with("studies")), "{}", path.display());
        studies += 1;
    }
    assert!(studies > 0);
}

/// Whether a licence expression can be met by a list: each part of an `AND` by one of its `OR`.
fn permitted(expression: &str, licences: &[String]) -> bool {
    let plain = expression.replace('/', " OR ").replace(['(', ')'], "");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|name| licences.iter().any(|other| other == name.trim())))
}

#[test]
fn parts_come_from_one_registry_under_permissive_licences() {
    let list = fs::read_to_string(workspace().join(".cargo/deny.toml")).expect("what cargo deny reads");
    let list: toml::Table = list.parse().expect("TOML");
    let licences: Vec<String> = list["licenses"]["allow"].clone().try_into().expect("a list of names");
    let permitted = |expression: &str| permitted(expression, &licences);
    assert!(permitted("(MIT OR Apache-2.0) AND Unicode-3.0") && permitted("GPL-3.0/MIT") && permitted("Zlib"));
    assert!(!permitted("MIT AND GPL-3.0") && !permitted("AGPL-3.0") && !permitted(""));
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100, "the whole tree: {}", packages.len());
    for package in packages {
        let name = &package["name"];
        let source = package["source"].as_str();
        let ours = source.is_none()
            && package["manifest_path"].as_str().is_some_and(|p| Path::new(p).starts_with(workspace()));
        let registry = source == Some("registry+https://github.com/rust-lang/crates.io-index");
        assert!(ours || registry, "{name} comes from {source:?}");
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(permitted(licence), "{name} is under `{licence}`");
    }
}
