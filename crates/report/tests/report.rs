//! The crate from outside: CSV, statistics, tables, figures, page, event files.

use selfsup_report::figure::{Axes, Panel, Series, bars, confusion, lines, matrix, panels, points, ranks, scatter};
use selfsup_report::html::{Card, Page};
use selfsup_report::published::{self, Published};
use selfsup_report::results::{self, COLUMNS, Row, Status};
use selfsup_report::table::{Kind, Table, own_tasks, summarise};
use selfsup_report::{file, metrics, tensorboard};
use std::fs;

fn row(method: &str, protocol: &str, seed: u64, value: f64) -> Row {
    Row {
        run_id: format!("{method}-s{seed}"),
        study: "objectives".into(),
        method: method.into(),
        family: "contrastive".into(),
        encoder: "resnet8".into(),
        dataset: "digits".into(),
        split: "test".into(),
        protocol: protocol.into(),
        metric: "accuracy".into(),
        value: Some(value),
        epoch: 10,
        step: 100,
        seed,
        n_test: 1000,
        wall_s: 1.5,
        config_hash: "0a1b2c3d".into(),
        ..Row::default()
    }
}

fn diverged(method: &str, seed: u64) -> Row {
    Row { value: None, status: Status::Diverged, ..row(method, "knn", seed, 0.0) }
}

fn study() -> Vec<Row> {
    let mut rows = vec![diverged("simclr", 2)];
    for seed in 0..2 {
        let s = seed as f64 * 0.01;
        rows.extend([
            row("supervised", "knn", seed, 0.9 + s),
            row("simclr", "knn", seed, 0.8 + s),
            row("simclr", "linear", seed, 0.85),
            row("byol", "knn", seed, 0.5 - s),
            row("random", "knn", seed, 0.6 + s),
        ]);
    }
    rows
}

fn table() -> Table {
    summarise(&study()).expect("a table").remove(0)
}

#[test]
fn results_survive_a_round_trip() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let odd = Row { run_id: "a,\"b\"\nc".into(), value: Some(0.1 + 0.2), seed: u64::MAX, ..row("é", "knn", 0, 0.0) };
    let tiny = Row { value: Some(-1.25e-300), ..row("x", "geometry", 1, 0.0) };
    let rows = vec![odd, diverged("byol", 3), tiny];
    results::write(&path, &rows).expect("written");
    assert_eq!(results::read(&path).expect("read"), rows);
    assert_eq!(results::read_many(&[folder.path(), &path]).expect("both").len(), 6);
    let text = fs::read_to_string(&path).expect("text");
    assert_eq!(text.lines().next(), Some(COLUMNS.join(",").as_str()));
}

#[test]
fn bad_results_are_refused_with_place_and_expectation() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let good = String::from_utf8(results::to_csv(&[row("a", "knn", 0, 0.5)]).expect("csv")).expect("text");
    let cases = [
        (good.replace(",0.5,", ",0.5x,"), "line 2, column value: expected a number in plain units"),
        (good.replace(",0.5,", ",NaN,"), "line 2, column value: expected a finite value"),
        (good.replace(",0.5,", ",,"), "expected a value, since the status is `ok`"),
        (good.replace(",ok", ",diverged"), "expected no value"),
        (good.replace(",ok", ",fine"), "column status: expected ok, diverged or failed, found `fine`"),
        (good.replace(",10,100,", ",10,-1,"), "column step: expected a whole number, found `-1`"),
        (good.replace("split,", "fold,"), "unknown column `fold`"),
        (good.replace("split,", ""), "the column `split` is missing"),
        (good.replace("run_id,study", "study,run_id"), "out of order"),
        (good.replace(",ok", ""), "line 2: expected 21 fields"),
        (String::new(), "the file is empty; expected the header"),
    ];
    for (text, expected) in cases {
        fs::write(&path, text).expect("written");
        let error = format!("{:#}", results::read(&path).expect_err(expected));
        assert!(error.contains(expected) && error.contains("results.csv"), "{error}");
    }
    let bad = Row { value: Some(f64::NAN), ..row("a", "knn", 0, 0.0) };
    assert!(results::write(&folder.path().join("new.csv"), &[bad]).is_err());
    assert!(!folder.path().join("new.csv").exists());
}

#[test]
fn metrics_leave_out_a_line_that_is_being_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metrics.csv");
    fs::write(&path, "epoch,step,metric,value\n0,1,loss,2.5\n0,1,knn,0.25\n1,2,loss,NaN\n1,2,knn,0.3")
        .expect("written");
    let read = metrics::read(&path).expect("metrics");
    assert_eq!(read.len(), 3);
    let loss = metrics::points(&read, "loss", |m| m.step as f64);
    assert_eq!(loss[0], (1.0, 2.5));
    assert!(loss[1].1.is_nan());
    fs::write(&path, "epoch,step,metric,value\n0,x,loss,1\n").expect("written");
    assert!(metrics::read(&path).expect_err("x").to_string().contains("line 2, column step"));
}

#[test]
fn a_table_sets_references_apart_and_counts_what_diverged() {
    let table = table();
    let names: Vec<&str> = table.lines.iter().map(|l| l.method.as_str()).collect();
    assert_eq!(names, ["random", "simclr", "byol", "supervised"]);
    assert_eq!((table.lines[0].kind, table.lines[3].kind), (Kind::Random, Kind::Supervised));
    assert_eq!(table.columns.iter().map(|c| c.title()).collect::<Vec<_>>(), ["kNN %", "linear %"]);
    let simclr = table.fields(&table.lines[1]);
    assert_eq!(simclr[2], "80.50 ± 0.71 (n=2)");
    assert_eq!(simclr[4], "3, 1 diverged");
    assert!(simclr[5].starts_with("yes, +20.00 kNN"), "{}", simclr[5]);
    assert!(table.verdict(&table.lines[2]).text.starts_with("no, -11.00 kNN"));
    assert_eq!(table.fields(&table.lines[2])[3], "–");
    for text in [table.terminal(100, false), table.markdown()] {
        assert!(text.contains("1 diverged") && text.contains("byol"), "{text}");
    }
    assert!(table.terminal(60, false).lines().all(|l| l.chars().count() <= 60));
    assert!(!table.terminal(100, false).contains('\x1b') && table.terminal(100, true).contains('\x1b'));
    let csv = String::from_utf8(table.csv().expect("csv")).expect("text");
    assert!(csv.lines().nth(2).is_some_and(|l| l.contains("simclr") && l.contains(",3,1,0,0.805,")), "{csv}");
    let one = summarise(&[row("a", "knn", 0, 0.5)]).expect("one");
    assert_eq!(one[0].fields(&one[0].lines[0])[2], "50.00 (n=1)");
}

#[test]
fn runs_that_do_not_belong_together_are_not_mixed() {
    let other = |f: fn(&mut Row)| {
        let mut changed = row("a", "knn", 0, 0.7);
        f(&mut changed);
        summarise(&[row("a", "knn", 0, 0.5), changed])
    };
    assert_eq!(other(|r| r.dataset = "faces".into()).expect("two data sets").len(), 2);
    let configs = other(|r| r.config_hash = "ffff".into()).expect("two configurations").remove(0);
    assert_eq!(configs.lines.iter().map(|l| l.name()).collect::<Vec<_>>(), ["a [0a1b2c3d]", "a [ffff]"]);
    let named = other(|r| (r.variant, r.config_hash) = ("queue of 64".into(), "ffff".into())).expect("two variants");
    assert_eq!(named[0].lines.iter().map(|l| l.name()).collect::<Vec<_>>(), ["a", "a (queue of 64)"]);
    let later = other(|r| (r.epoch, r.step) = (20, 200)).expect("a later epoch").remove(0);
    assert_eq!(later.lines[0].cells[0].as_ref().map(|c| c.mean), Some(0.7));
    let error = other(|r| r.run_id = "b".into()).expect_err("two numbers for one seed").to_string();
    assert!(error.contains("seed 0") && error.contains("run a-s0") && error.contains("run b"), "{error}");
}

#[test]
fn figures_name_every_method_and_are_the_same_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let curve = |n: u64| vec![(0.0, 0.1), (1.0, 0.2 + 0.01 * n as f64), (2.0, if n == 0 { f64::NAN } else { 0.4 })];
    let series: Vec<Series> = (0..9).map(|n| Series::of_runs(&format!("method-{n}"), &[curve(n)])).collect();
    let axes = Axes { title: "A < B & \"C\"".into(), x: "epoch".into(), y: "kNN".into(), percent: true };
    let draw = || [bars(&table(), 0).expect("bars"), lines(&axes, &series).expect("lines")];
    let figures = draw();
    assert_eq!(figures, draw());
    for name in ["random", "simclr", "byol", "supervised", "1 of 3 diverged", "80.50 ± 0.71"] {
        assert!(figures[0].svg.contains(name), "{name}");
    }
    for n in 1..9 {
        assert!(figures[1].svg.contains(&format!("method-{n}\n")), "{n}");
    }
    assert!(figures[1].svg.contains("method-0 (diverged)\n"));
    assert!(figures[1].svg.contains("A &lt; B &amp; ") && !figures[1].svg.contains("A < B"));
    for figure in &figures {
        let [svg, png] = figure.write(folder.path()).expect("written");
        assert_eq!(fs::read_to_string(svg).expect("svg"), figure.svg);
        let picture = image::load_from_memory(&fs::read(png).expect("png")).expect("a PNG").to_rgb8();
        assert_eq!(picture.width(), 1800);
        // Text is drawn: the title's line has ink, which it has not where a font is missing.
        assert!((40..400).any(|x| (36..76).any(|y| picture.get_pixel(x, y).0[0] < 100)), "no title");
        assert_eq!(figure.png(1.0).expect("png"), figure.png(1.0).expect("png"));
    }
    assert!(bars(&table(), 9).is_err() && lines(&axes, &[]).is_err());
    assert!(lines(&axes, &[Series::of_runs("a", &[vec![(0.0, f64::NAN)]])]).is_err());
}

#[test]
fn a_confusion_shows_shares_of_its_rows() {
    let classes: Vec<String> = ["shirt", "<b>"].map(String::from).into();
    let figure = confusion("Taken for", &classes, &[vec![3, 1], vec![0, 4]]).expect("drawn");
    assert!(figure.svg.contains("aria-label=\"Taken for: 87.5 % of 8 are right\""), "{}", figure.svg);
    for text in ["1 shirt\n", "2 &lt;b&gt;\n", "\n75\n", "\n25\n", "\n100\n"] {
        assert!(figure.svg.contains(text), "{text} in {}", figure.svg);
    }
    assert!(!figure.svg.contains("\n0\n"), "an empty cell stays white");
    let many: Vec<String> = (0..100).map(|i| format!("class {i}")).collect();
    let counts: Vec<Vec<u64>> = (0..100).map(|i| (0..100).map(|j| u64::from(i == j)).collect()).collect();
    assert!(confusion("Many", &many, &counts).expect("drawn").svg.contains("100 class 99\n"));
    let error = confusion("Taken for", &classes, &[vec![1, 2]]).expect_err("one row").to_string();
    assert!(error.contains("2 rows and 2 columns"), "{error}");
}

#[test]
fn points_lie_in_one_scale_with_their_legend() {
    let groups: Vec<(String, Vec<(f64, f64)>)> =
        (0..20).map(|i| (format!("class-{i}"), vec![(f64::from(i), 0.0), (f64::NAN, 1.0), (0.0, 2.0)])).collect();
    let figure = points("Features", "Of them all.", &groups).expect("drawn");
    assert!(figure.svg.contains("Features: 40 points in 20 groups"), "those that are not finite are left out");
    assert!(figure.svg.contains("class-13\n") && !figure.svg.contains("class-14\n") && figure.svg.contains("6 more\n"));
    assert_eq!(figure, points("Features", "Of them all.", &groups).expect("drawn"));
    assert!(points("One", "", &[("a".into(), vec![(1.0, 1.0)])]).is_ok(), "one point has no extent");
    assert!(points("None", "", &[("a".into(), vec![(f64::NAN, 0.0)])]).is_err());
}

#[test]
fn panels_show_each_series_with_its_own_axis() {
    let folder = tempfile::tempdir().expect("a folder");
    let wave = |scale: f64| (0..40).map(|t| scale * (0.3 * t as f64).sin()).collect::<Vec<_>>();
    let gap = |line: Vec<f64>| line.into_iter().enumerate().map(|(t, y)| if t < 8 { f64::NAN } else { y }).collect();
    let panel = |n: usize| Panel { title: format!("<{n}>"), lines: vec![wave(10f64.powi(n as i32)), gap(wave(0.9))] };
    let (names, drawn) = (["series", "forecast & co"], (0..3).map(panel).collect::<Vec<_>>());
    let figure = panels("Test series", &names, &drawn).expect("panels");
    assert_eq!(figure, panels("Test series", &names, &drawn).expect("the same"));
    for text in ["&lt;0&gt;", "&lt;2&gt;", "series\n", "forecast &amp; co", "100\n", "−100\n", "40\n"] {
        assert!(figure.svg.contains(text), "{text}");
    }
    let [_, png] = figure.write(folder.path()).expect("written");
    let picture = image::load_from_memory(&fs::read(png).expect("png")).expect("a PNG").to_rgb8();
    // Two columns and two rows; the last place of four is empty paper.
    assert_eq!(picture.width(), 1800);
    let ink = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
        x.flat_map(|x| y.clone().map(move |y| (x, y))).any(|(x, y)| picture.get_pixel(x, y).0[0] < 100)
    };
    let (middle, below) = (picture.width() / 2, picture.height() / 2 + 74);
    assert!(ink(0..middle, below..picture.height()) && !ink(middle..picture.width(), below..picture.height()));
    let one = |lines| panels("x", &names, &[Panel { title: String::new(), lines }]);
    assert!(one(vec![vec![0.5], vec![0.25]]).is_ok(), "a single step");
    assert!(one(vec![wave(1.0)]).expect_err("a line is missing").to_string().contains("1 lines for 2 names"));
    assert!(one(vec![vec![f64::NAN], vec![]]).is_err() && panels("x", &names, &[]).is_err());
}

#[test]
fn a_page_escapes_hostile_names_and_loads_nothing() {
    let hostile = "<script>alert('x')</script>\"&\u{1b}[31m";
    let own = Row { metric: hostile.into(), ..row("byol", "pretext", 0, 1.5) };
    let rows: Vec<Row> = study()
        .into_iter()
        .chain([own])
        .map(|r| Row { method: r.method.replace("byol", hostile), study: hostile.into(), ..r })
        .collect();
    let tables = summarise(&rows).expect("tables");
    let figures = vec![bars(&tables[0], 0).expect("bars")];
    let pair = || (hostile.to_string(), hostile.to_string());
    let card = Card {
        name: hostile.into(),
        paper: "https://example.org/\"onclick=alert(1) <script>".into(),
        pictures: vec![(hostile.into(), vec![1, 2, 3])],
        drawings: vec![(hostile.into(), vec![4, 5, 6])],
        texts: vec![(hostile.into(), hostile.into())],
        figures: figures.clone(),
        ..Card::default()
    };
    let page = Page {
        listings: vec![own_tasks(&tables)],
        title: hostile.into(),
        meta: vec![pair()],
        cards: vec![card],
        protocol: vec![pair()],
        notes: vec![hostile.into()],
        links: vec![pair(), ("bad".into(), "javascript:alert(1)".into()), ("csv".into(), "results.csv".into())],
        lead: hostile.into(),
        tables,
        figures,
        rows,
        ..Page::default()
    };
    let html = page.html().expect("a page");
    assert_eq!(html, page.html().expect("again"));
    assert!(!html.contains("<script") && !html.contains("javascript:") && !html.contains("\"onclick"));
    assert!(html.contains("&lt;script&gt;"));
    for loading in ["<link", "<iframe", "@import", "url(", "src=\"http"] {
        assert!(!html.contains(loading), "{loading}");
    }
    assert!(html.contains("data:image/png;base64,AQID") && html.contains("data:image/png;base64,BAUG"));
    assert!(html.contains("href=\"results.csv\""));
    assert!(html.contains("1 diverged") && html.contains("beats random?"));
    assert!(!page.tables[0].terminal(120, false).contains('\x1b'));
}

#[test]
fn files_are_whole_or_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.txt");
    file::write_whole(&path, b"old").expect("written");
    file::write_whole(&path, b"new").expect("written again");
    assert_eq!(fs::read(&path).expect("read"), b"new");
    // The second of two files cannot be made: the first does not appear.
    let first = folder.path().join("first");
    let second = folder.path().join("missing").join("second");
    let error = file::write_all_whole(&[(first.clone(), b"1"), (second, b"2")]).expect_err("no such folder");
    assert!(error.to_string().contains("second: could not be written; give a folder that exists"), "{error}");
    assert!(!first.exists());
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "a temporary file is left");
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_written_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    results::write(&path, &[row("a", "knn", 0, 0.5)]).expect("written");
    let before = fs::read(&path).expect("read");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).expect("mode");
    // The superuser may write everywhere; there is nothing to see then.
    let everywhere = fs::write(folder.path().join("probe"), b"").is_ok();
    let refused = results::write(&path, &[row("b", "knn", 0, 0.5)]);
    let drawn = bars(&table(), 0).expect("bars").write(folder.path());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    if !everywhere {
        assert!(refused.expect_err("no permission").to_string().contains("writable") && drawn.is_err());
        assert_eq!(fs::read(&path).expect("read"), before);
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1);
    }
}

#[test]
fn event_files_are_tensorboards_and_can_be_cut() {
    let golden = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c\
                  2100000000000000017becf609000000000000044010ac022a130a110a0a747261696e2f6c6f7373150000803e3cc9cac5";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.out.tfevents.0");
    let mut writer = tensorboard::Writer::create(&path, 1.5).expect("created");
    writer.scalar("train/loss", 300, 0.25, 2.5).expect("appended");
    writer.flush().expect("flushed");
    let bytes = fs::read(&path).expect("read");
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, golden);
    assert_eq!(writer.offset(), bytes.len() as u64);
    let kept = writer.offset();
    writer.scalar("train/loss", 301, 0.2, 3.5).expect("appended");
    drop(writer);
    let whole = fs::read(&path).expect("read");
    let mut again = tensorboard::Writer::resume(&path, kept).expect("resumed");
    again.scalar("train/loss", 301, 0.2, 3.5).expect("appended");
    again.flush().expect("flushed");
    assert_eq!(fs::read(&path).expect("read"), whole);
    for wrong in [0, 10_000] {
        assert!(tensorboard::Writer::resume(&path, wrong).is_err());
    }
}

#[test]
fn own_tasks_are_a_line_a_number() {
    let of =
        |method: &str, metric: &str, seed, value| Row { metric: metric.into(), ..row(method, "pretext", seed, value) };
    let mut rows = study();
    rows.extend([
        of("pixelcnn", "bits_per_dim", 0, 1.25),
        of("pixelcnn", "bits_per_dim", 1, 1.35),
        of("rotnet", "accuracy", 0, 0.75),
    ]);
    let tables = summarise(&rows).expect("a table");
    let own = own_tasks(&tables);
    assert_eq!(
        own.lines,
        [
            ["pixelcnn", "resnet8", "digits", "bits per dim", "1.300 ± 0.071 (n=2)"],
            ["rotnet", "resnet8", "digits", "accuracy %", "75.00 (n=1)"],
        ]
    );
    assert!(
        own.markdown().starts_with("| method | encoder | data | measure | value |\n| --- | --- | --- | --- | ---: |")
    );
    assert!(own.terminal(100).contains("bits per dim"));
    let none = own_tasks(&[table()]);
    assert!(none.terminal(100).is_empty() && none.markdown().is_empty());

    // The table itself shows the first of each, and no verdict is about it.
    let text = tables[0].markdown();
    assert!(text.starts_with("| method | encoder | kNN % | linear % | own task | runs |"), "{text}");
    assert!(text.contains("| bits per dim 1.300 ± 0.071 | 2 | not measured |"), "{text}");
    assert!(text.contains("| 90.50 ± 0.71 (n=2) | – | – | 2 |"), "{text}");
    assert!(!table().has_own());
}

#[test]
fn an_encoder_that_reads_other_things_has_another_random_encoder() {
    let of = |method: &str, input: &str, value| Row {
        run_id: format!("{method}-{input}"),
        input: input.into(),
        config_hash: input.into(),
        ..row(method, "knn", 0, value)
    };
    let rows =
        [of("random", "28", 0.6), of("random", "36", 0.7), of("jigsaw", "36", 0.75), of("byol", "28", 0.8)].to_vec();
    let table = summarise(&rows).expect("a table").remove(0);
    let line = |name: &str| table.lines.iter().find(|l| l.method == name).expect("a line");
    assert_eq!((line("jigsaw").encoder.as_str(), line("byol").encoder.as_str()), ("resnet8 @ 36", "resnet8 @ 28"));
    for (name, gain) in [("jigsaw", 0.05), ("byol", 0.2)] {
        let found = line(name).cells[0].as_ref().and_then(|cell| cell.gain).expect("a gain");
        assert!((found - gain).abs() < 1e-12, "{name}: {found}");
    }
    assert!(table.lines.iter().all(|l| l.config.is_none()));
}

#[test]
fn every_method_is_held_against_every_other() {
    // Equal differences on both seeds leave no doubt. Byol's are d and d + 0.02: t = (d + 0.01) / 0.01 with one degree of
    // freedom, p = 0.0155, 0.0205 and 0.0577 for supervised, simclr and random; times 3, 2 and 1.
    let drawn = matrix(&table(), 0).expect("a figure").expect("seeds in common");
    assert!(drawn.svg.contains("5 of 6 pairs differ"), "{}", drawn.svg.lines().next().unwrap_or_default());
    for text in ["+20.0", "−20.0", "+30.0", "3 byol", "corrected by Holm's rule for 6 pairs"] {
        assert!(drawn.svg.contains(text) || drawn.caption.contains(text), "{text}");
    }
    let one: Vec<Row> = study().into_iter().filter(|row| row.seed == 0).collect();
    assert_eq!(matrix(&summarise(&one).expect("a table")[0], 0).expect("no error"), None);
    assert!(matrix(&table(), 9).is_err());
}

#[test]
fn cost_is_the_mean_time_of_runs() {
    let mut rows = study();
    rows.iter_mut().filter(|row| row.method == "byol" && row.seed == 1).for_each(|row| row.wall_s = 2.5);
    let table = summarise(&rows).expect("a table").remove(0);
    let drawn = scatter(&table, 0).expect("a figure").expect("times and scores");
    assert!(drawn.svg.contains("byol: 2.0 s") && drawn.svg.contains("simclr: 1.5 s"));
    assert!(!drawn.svg.contains("random"), "nobody trained it");
    let few: Vec<Row> = rows.into_iter().filter(|row| ["random", "byol"].contains(&row.method.as_str())).collect();
    assert_eq!(scatter(&summarise(&few).expect("a table")[0], 0).expect("no error"), None);
}

#[test]
fn published_numbers_stand_beside_ours() {
    let of = |hash: &str, protocol: &str, value| Published {
        config_hash: hash.into(),
        protocol: protocol.into(),
        metric: "accuracy".into(),
        value,
        source: "a paper, table 1".into(),
    };
    let other = |row: Row| Row { config_hash: "ffffffff".into(), ..row };
    let mut rows =
        vec![row("simclr", "knn", 0, 0.8), row("simclr", "knn", 1, 0.82), other(row("byol", "linear", 0, 0.5))];
    rows.push(other(diverged("byol", 1)));
    let numbers = [of("0a1b2c3d", "knn", 0.9), of("ffffffff", "knn", 0.7), of("nobody", "knn", 0.6)];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("published.csv");
    published::write(&path, &numbers).expect("written");
    let listing = published::beside(&rows, &published::read(&path).expect("what was written can be read"));
    let ours = listing.lines.iter().map(|line| [line[0].as_str(), line[5].as_str(), line[6].as_str()]);
    assert_eq!(
        ours.collect::<Vec<_>>(),
        [["simclr", "81.00 ± 1.41 (n=2)", "90.00"], ["byol", "diverged", "70.00"]],
        "no line for a configuration without rows"
    );
    fs::write(&path, "config_hash,protocol,metric,value,source\nx,knn,accuracy,much,y\n").expect("written");
    let error = published::read(&path).expect_err("a refusal").to_string();
    assert!(error.contains("line 2") && error.contains("such as 0.9074, found `much`"), "{error}");
}

#[test]
fn ranks_are_over_data_sets_and_seeds() {
    let of =
        |dataset: &str, method: &str, seed, value| Row { dataset: dataset.into(), ..row(method, "knn", seed, value) };
    let mut rows = Vec::new();
    for (dataset, a, b, c) in [("digits", 0.9, 0.8, 0.7), ("letters", 0.5, 0.6, 0.4)] {
        for seed in 0..2 {
            rows.extend([of(dataset, "a", seed, a), of(dataset, "b", seed, b), of(dataset, "c", seed, c)]);
        }
    }
    rows.push(of("digits", "d", 0, 1.0)); // not on letters
    let tables = summarise(&rows).expect("tables");
    let drawn = ranks(&tables).expect("a figure").expect("three methods");
    assert!(
        drawn.svg.contains("Mean ranks: a 1.50, b 1.50, c 3.00"),
        "{}",
        drawn.svg.lines().next().unwrap_or_default()
    );
    assert!(drawn.caption.contains("3 methods over 4 comparisons (2 data sets"));
    assert_eq!(ranks(&[table()]).expect("no error"), None, "two methods");
}
