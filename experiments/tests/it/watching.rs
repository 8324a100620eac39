//! What people watch runs with: TensorBoard reads the event file, and a browser shows the report. Skipped, loudly, where
//! there is neither; SELFSUP_PYTHON and SELFSUP_CHROMIUM name them.

use crate::command_line::{succeeds, temporary};
use crate::interop::{checks, interpreter, skipped};
use std::fs;
use std::path::Path;
use std::process::Command;

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/read_events.py");

const SHORT: [&str; 3] = ["data=fashion-mnist-10k:200", "train.batch=32", "evaluate.protocols=['knn']"];

#[test]
fn tensorboard_reads_what_a_run_wrote() {
    let Some(python) = interpreter("tensorboard_reads_what_a_run_wrote", READER, "tensorboard") else { return };
    let place = temporary();
    succeeds(place.path(), &[&["pretrain", "vicreg/cpu", "--out", "run", "train.epochs=2"][..], &SHORT].concat());
    checks(&python, READER, &[place.path().join("run").display().to_string()]);
}

/// Chromium, or `None` with a loud line.
fn browser(test: &str) -> Option<String> {
    let named = std::env::var("SELFSUP_CHROMIUM").ok();
    let usual = ["chromium", "chromium-browser", "google-chrome"].map(String::from);
    let names: Vec<String> = named.clone().map_or(usual.into(), |name| vec![name]);
    let starts = |name: &&String| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let found = names.iter().find(starts).cloned();
    let told = format!("none of {} starts; let SELFSUP_CHROMIUM name a Chromium", names.join(", "));
    assert!(named.is_none() || found.is_some(), "{told}");
    if found.is_none() {
        skipped(test, &told);
    }
    found
}

/// Appended to the page: what it shows and asked for, as text at its end.
const PROBE: &str = r#"<script>
addEventListener('load', () => {
  const hidden = e => { const r = e.getBoundingClientRect(); return r.width < 20 || r.height < 20; };
  const of = (what, bad) => [...document.querySelectorAll(what)].filter(bad).length;
  const wide = document.documentElement.scrollWidth > innerWidth + 1;
  const asked = performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).map(r => r.name);
  const p = document.createElement('p');
  p.textContent = `PROBE svg=${of('figure svg', () => true)} img=${of('img', () => true)} `
    + `hidden=${of('figure svg, img', hidden)} broken=${of('img', e => !e.naturalWidth)} wide=${wide} `
    + `asked=${asked.join(',')} END`;
  document.body.append(p);
});
</script>"#;

/// What the browser makes of a page in a window of this size, and what it writes to its console.
fn shown(browser: &str, page: &Path, size: &str) -> (String, String) {
    let profile = temporary();
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--log-level=0"])
        .args(["--no-first-run", "--disable-extensions", "--disable-background-networking"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={size}"))
        // No name leads anywhere: a page that needs one would miss something.
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    let [page, log] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{log}");
    (page, log)
}

#[test]
fn a_browser_shows_the_report_and_asks_for_nothing() {
    let Some(browser) = browser("a_browser_shows_the_report_and_asks_for_nothing") else { return };
    let place = temporary();
    let place = place.path();
    let study = "name = \"seen\"\nseeds = [0]\n[common]\ndata = \"fashion-mnist-10k:200\"\n\
                 train = { epochs = 1, batch = 32 }\n\
                 evaluate = { protocols = [\"knn\"], finetune = { epochs = 1, batch = 32 } }\n\
                 [[runs]]\nmethod = \"simclr/cpu\"\n";
    fs::write(place.join("seen.toml"), study).expect("a file");
    succeeds(place, &["compare", "seen.toml", "--out", "out"]);
    let report = place.join("out/seen/report.html");
    let html = fs::read_to_string(&report).expect("the report");
    let probed = place.join("out/seen/probed.html");
    fs::write(&probed, html + PROBE).expect("a file");
    for size in ["1280,900", "390,844"] {
        let (page, log) = shown(&browser, &probed, size);
        let said: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(said.is_empty(), "{size}: {said:?}");
        let (_, probe) = page.rsplit_once("<p>PROBE ").expect("the page was loaded");
        let number = |name: &str| -> usize {
            let (_, rest) = probe.split_once(&format!("{name}=")).expect(name);
            rest.split_whitespace().next().and_then(|n| n.parse().ok()).expect(name)
        };
        assert!(number("svg") >= 2 && number("img") >= 4, "{size}: {probe}");
        assert_eq!((number("hidden"), number("broken")), (0, 0), "{size}: {probe}");
        assert!(probe.contains("wide=false"), "{size}: the page is wider than its window: {probe}");
        assert!(probe.contains("asked= END"), "{size}: {probe}");
    }
    // For whoever wants to look at it.
    if let Some(folder) = std::env::var_os("SELFSUP_SEEN") {
        fs::copy(&report, Path::new(&folder).join("report.html")).expect("a copy");
    }
}
