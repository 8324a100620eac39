//! The edits of `new-method`, on small texts and on a small workspace.

use super::*;

const WORKSPACE: &str = r#"[workspace]
members = ["crates/contrastive/*"]

[workspace.dependencies]
# The workspace's own crates.
selfsup-core = { path = "crates/core" }
mae = { path = "crates/self-prediction/mae" }
simclr = { path = "crates/contrastive/simclr" }
byol = { path = "crates/non-contrastive/byol" }

# Others.
anyhow = "1"

[profile.dev]
opt-level = 1
"#;

const DEPENDENCIES: &str = r#"[package]
name = "selfsup-experiments"

[dependencies]
anyhow.workspace = true
byol.workspace = true
clap.workspace = true
mae.workspace = true
simclr.workspace = true
toml.workspace = true

[dev-dependencies]
tempfile.workspace = true
"#;

const LIST: &str = r#"//! The methods.

use selfsup_core::method::{Entry, entry};

/// All of METHODS; one line each.
pub const METHODS: &[Entry] = &[
    entry::<mae::Mae>(),
    // entry::<old::Old>(),
    entry::<simclr::SimClr>(),
    entry::<byol::Byol>(),
];

pub fn find(name: &str) -> Option<&'static Entry> {
    METHODS.iter().find(|entry| entry.name == name)
}
"#;

fn registry(text: &str, name: &str, family: &str) -> Result<String> {
    add_to_registry(text, &families(WORKSPACE).unwrap(), name, family)
}

/// The only line of `after` that `before` lacks, and the line above it.
fn added(before: &str, after: &str) -> (String, String) {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    assert_eq!(after.len(), before.len() + 1);
    let at = (0..before.len()).find(|&i| before[i] != after[i]).unwrap_or(before.len());
    assert_eq!(before[at..], after[at + 1..]);
    (after[at - 1].trim().to_owned(), after[at].to_owned())
}

fn pair(above: &str, line: &str) -> (String, String) {
    (above.to_owned(), line.to_owned())
}

#[test]
fn names_are_kebab_case_and_free() {
    for name in ["moco", "barlow-twins", "vq-vae-2", "a"] {
        check_name(name).unwrap();
    }
    for name in ["", "-a", "a-", "a--b", "A", "a_b", "2a", "ä", "a/b", "..", "loop", "core", "tensor", "a b"] {
        assert!(check_name(name).is_err(), "{name}");
    }
    assert!(check_name(&"a".repeat(41)).is_err());
    assert_eq!(camel("vq-vae-2"), "VqVae2");
}

#[test]
fn the_workspace_lists_a_method_after_its_family() {
    let added = |name, family| added(WORKSPACE, &add_to_workspace(WORKSPACE, name, family).unwrap());
    let last = r#"simclr = { path = "crates/contrastive/simclr" }"#;
    assert_eq!(added("moco", "contrastive"), pair(last, r#"moco = { path = "crates/contrastive/moco" }"#));
    let last = r#"byol = { path = "crates/non-contrastive/byol" }"#;
    assert_eq!(
        added("vicreg", "non-contrastive"),
        pair(last, r#"vicreg = { path = "crates/non-contrastive/vicreg" }"#)
    );
    let bare = "[workspace.dependencies]\nselfsup-core = { path = \"crates/core\" }\nbyol = { path = \"crates/non-contrastive/byol\" }\n";
    let text = add_to_workspace(bare, "bert", "self-prediction").unwrap();
    assert!(text.contains("crates/core\" }\nbert = { path = \"crates/self-prediction/bert\" }\nbyol"));
    assert!(add_to_workspace("[package]\n", "bert", "self-prediction").is_err());
}

#[test]
fn dependencies_stay_in_alphabetical_order() {
    let added = |name| added(DEPENDENCIES, &add_to_dependencies(DEPENDENCIES, name).unwrap());
    assert_eq!(added("moco"), pair("mae.workspace = true", "moco.workspace = true"));
    assert_eq!(added("aa"), pair("[dependencies]", "aa.workspace = true"));
    assert_eq!(added("vicreg"), pair("toml.workspace = true", "vicreg.workspace = true"));
    assert!(add_to_dependencies(DEPENDENCIES, "mae").is_err());
    assert!(add_to_dependencies("[package]\n", "mae").is_err());
}

#[test]
fn the_registry_lists_a_method_after_its_family() {
    let added = |name, family| added(LIST, &registry(LIST, name, family).unwrap());
    assert_eq!(added("moco", "contrastive"), pair("entry::<simclr::SimClr>(),", "    entry::<moco::Moco>(),"));
    assert_eq!(added("vq-vae", "self-prediction"), pair("entry::<mae::Mae>(),", "    entry::<vq_vae::VqVae>(),"));
    assert_eq!(added("vicreg", "non-contrastive"), pair("entry::<byol::Byol>(),", "    entry::<vicreg::Vicreg>(),"));
    assert!(registry(LIST, "simclr", "contrastive").is_err());
    assert!(registry("pub fn find() {}", "moco", "contrastive").is_err());
}

#[test]
fn the_registry_may_be_short() {
    let one = "pub const METHODS: &[Entry] = &[entry::<byol::Byol>()];\n";
    let after = registry(one, "moco", "contrastive").unwrap();
    assert_eq!(after, "pub const METHODS: &[Entry] = &[entry::<moco::Moco>(), entry::<byol::Byol>()];\n");
    let after = registry(one, "vicreg", "non-contrastive").unwrap();
    assert_eq!(after, "pub const METHODS: &[Entry] = &[entry::<byol::Byol>(), entry::<vicreg::Vicreg>()];\n");
    let none = "pub const METHODS: [Entry; 0] = [];\n";
    assert_eq!(registry(none, "a", "contrastive").unwrap(), "pub const METHODS: [Entry; 0] = [entry::<a::A>()];\n");
    let open = "static METHODS: &[Entry] = &[\n    entry::<byol::Byol>()\n];\n";
    let after = registry(open, "vicreg", "non-contrastive").unwrap();
    assert_eq!(
        after,
        "static METHODS: &[Entry] = &[\n    entry::<byol::Byol>(),\n    entry::<vicreg::Vicreg>(),\n];\n"
    );
}

fn checkout() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("experiments/src")).unwrap();
    for (path, text) in [(MANIFEST, WORKSPACE), (EXPERIMENTS, DEPENDENCIES), (REGISTRY, LIST)] {
        fs::write(root.path().join(path), text).unwrap();
    }
    root
}

fn unchanged(root: &Path) {
    for (path, text) in [(MANIFEST, WORKSPACE), (EXPERIMENTS, DEPENDENCIES), (REGISTRY, LIST)] {
        assert_eq!(fs::read_to_string(root.join(path)).unwrap(), text);
    }
    let left: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("tmp")), "{left:?}");
}

#[test]
fn a_method_is_written_whole() {
    let root = checkout();
    write(root.path(), "vq-vae", "self-prediction").unwrap();
    let crate_text =
        |path: &str| fs::read_to_string(root.path().join("crates/self-prediction/vq-vae").join(path)).unwrap();
    assert!(crate_text("Cargo.toml").contains("name = \"vq-vae\""));
    assert!(crate_text("src/lib.rs").contains("const FAMILY: Family = Family::SelfPrediction;"));
    for path in ["Cargo.toml", "src/lib.rs", "src/tests.rs"] {
        assert!(!["{name}", "{Type}", "{Family}"].iter().any(|hole| crate_text(path).contains(hole)), "{path}");
    }
    let error = write(root.path(), "vq-vae", "contrastive").unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
}

#[test]
fn nothing_is_written_if_a_file_has_no_place_or_cannot_be_written() {
    let root = checkout();
    for (name, family) in
        [("simclr", "contrastive"), ("anyhow", "contrastive"), ("a_b", "contrastive"), ("moco", "other")]
    {
        assert!(write(root.path(), name, family).is_err());
        unchanged(root.path());
    }
    fs::write(root.path().join(REGISTRY), "no list\n").unwrap();
    assert!(write(root.path(), "moco", "contrastive").is_err());
    fs::write(root.path().join(REGISTRY), LIST).unwrap();
    unchanged(root.path());

    // A folder in the way of the second file's temporary makes the writes fail midway.
    let blocked = root.path().join(format!("{EXPERIMENTS}.tmp-{}", std::process::id()));
    fs::create_dir(&blocked).unwrap();
    let error = write(root.path(), "moco", "contrastive").unwrap_err().to_string();
    assert!(error.contains("nothing was changed"), "{error}");
    assert!(!root.path().join("crates/contrastive/moco").exists());
    fs::remove_dir(&blocked).unwrap();
    unchanged(root.path());
}
