//! A whole report from made-up scores: `cargo run --release -p selfsup-report --example demo_report -- FOLDER`.

use anyhow::{Context, Result};
use selfsup_report::figure::{Axes, Figure, Series, bars, lines};
use selfsup_report::html::{Card, Page};
use selfsup_report::picture::{Grid, Picture};
use selfsup_report::results::{self, Row, Status};
use selfsup_report::table::{Table, summarise};
use selfsup_report::tensorboard;
use std::path::{Path, PathBuf};

/// Name, family, kNN, linear, uniformity, encoder. The numbers are made up.
const METHODS: [(&str, &str, f64, f64, f64, &str); 9] = [
    ("random", "baseline", 0.612, 0.781, -0.61, "resnet8"),
    ("pixels", "baseline", 0.792, 0.835, -1.20, "none"),
    ("mae", "self-prediction", 0.655, 0.842, -1.31, "vit-tiny"),
    ("rotnet", "self-prediction", 0.731, 0.851, -1.72, "resnet8"),
    ("simclr", "contrastive", 0.858, 0.902, -2.83, "resnet8"),
    ("moco", "contrastive", 0.861, 0.899, -2.77, "resnet8"),
    ("byol", "non-contrastive", 0.846, 0.893, -2.41, "resnet8"),
    ("barlow-twins", "non-contrastive", 0.849, 0.897, -2.65, "resnet8"),
    ("supervised", "supervised", 0.921, 0.928, -2.20, "resnet8"),
];

/// Noise between -1 and 1 that depends on its arguments alone.
fn noise(a: u64, b: u64) -> f64 {
    let mixed = (a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03))
        .wrapping_mul(0x2545_f491_4f6c_dd1d);
    (mixed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (m, (method, family, knn, linear, uniformity, encoder)) in METHODS.iter().enumerate() {
        for seed in 0..3 {
            let lost = *method == "barlow-twins" && seed == 2;
            for (protocol, metric, value) in
                [("knn", "accuracy", knn), ("linear", "accuracy", linear), ("geometry", "uniformity", uniformity)]
            {
                rows.push(Row {
                    run_id: format!("{method}-digits-s{seed}-0a1b2c3d"),
                    study: "objectives".into(),
                    method: method.to_string(),
                    variant: String::new(),
                    family: family.to_string(),
                    encoder: encoder.to_string(),
                    dataset: "digits".into(),
                    input: "28".into(),
                    split: "test".into(),
                    protocol: protocol.into(),
                    metric: metric.into(),
                    value: (!lost).then(|| value + 0.008 * noise(7 * m as u64 + 1, seed + 3)),
                    epoch: 50,
                    step: 3900,
                    seed,
                    n_test: 1797,
                    wall_s: 61.5,
                    device: "cpu, 2 threads".into(),
                    commit: "0a1b2c3".into(),
                    config_hash: "0a1b2c3d".into(),
                    status: if lost { Status::Diverged } else { Status::Ok },
                });
            }
        }
    }
    rows
}

fn online(table: &Table) -> Result<Figure> {
    let curves: Vec<Series> = table
        .lines
        .iter()
        .enumerate()
        .filter(|(_, l)| !["random", "pixels", "supervised"].contains(&l.method.as_str()))
        .map(|(m, line)| {
            let end = line.cells[0].as_ref().map_or(0.0, |c| c.mean);
            let run = |seed: u64| -> Vec<(f64, f64)> {
                let at = |e: u64| {
                    0.61 + (end - 0.61) * (1.0 - (-(e as f64) / 9.0).exp()) + 0.006 * noise(e + 1, seed + 10 * m as u64)
                };
                let lost = line.diverged > 0 && seed == 2;
                (0..=50).map(|e| (e as f64, if lost && e > 17 { f64::NAN } else { at(e) })).collect()
            };
            Series::of_runs(&line.method, &[run(0), run(1), run(2)])
        })
        .collect();
    let axes =
        Axes { title: "Online kNN over epochs".into(), x: "epoch".into(), y: "kNN accuracy".into(), percent: true };
    lines(&axes, &curves)
}

fn loss(method: &str) -> Result<Figure> {
    let points =
        (0..4000u64).map(|s| (s as f64 / 78.0, 6.2 * (-(s as f64) / 900.0).exp() + 3.1 + 0.15 * noise(s, 9))).collect();
    let axes = Axes { title: format!("Loss of {method}"), x: "epoch".into(), y: "loss".into(), percent: false };
    lines(&axes, &[Series::of_runs("seed 0", &[points])])
}

fn views() -> Result<Vec<u8>> {
    let picture = |i: u64| {
        let pixels = (0..28 * 28u64).flat_map(|p| {
            let ring =
                ((((p % 28) as f64 - 14.0).hypot((p / 28) as f64 - 14.0) - i as f64).abs() * 30.0).min(255.0) as u8;
            [255 - ring, (noise(p, i) * 40.0 + 120.0) as u8, ring]
        });
        Picture::new(28, 28, 3, pixels.collect())
    };
    let rows = (0..3).map(|r| (0..8).map(|c| picture(3 + r + c)).collect()).collect::<Result<_>>()?;
    Grid {
        rows,
        row_captions: ["image", "view 1", "view 2"].map(String::from).into(),
        scale: 2,
        padding: 4,
        ..Grid::default()
    }
    .png()
}

fn page(rows: Vec<Row>, tables: Vec<Table>, figures: Vec<Figure>) -> Result<Page> {
    let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
    let card = |(name, family, ..): &(&str, &str, f64, f64, f64, &str)| -> Result<Card> {
        Ok(Card {
            texts: Vec::new(),
            drawings: Vec::new(),
            name: name.to_string(),
            paper: "A. Author and B. Author, A paper, 2020, https://arxiv.org/abs/2002.05709.".into(),
            family: family.to_string(),
            pictures: vec![("The image and two views of it".into(), views()?)],
            figures: vec![loss(name)?],
            notes: Vec::new(),
        })
    };
    Ok(Page {
        title: "Objectives on digits".into(),
        lead: "Made-up numbers, to show what a report looks like.".into(),
        meta: vec![
            pair("commit", "0a1b2c3"),
            pair("device", "cpu, 2 threads"),
            pair("command", "selfsup compare objectives.toml seeds=0,1,2"),
        ],
        tables,
        figures,
        cards: METHODS[4..6].iter().map(card).collect::<Result<_>>()?,
        protocol: vec![
            pair("features", "of the last epoch; test labels choose nothing"),
            pair("kNN", "k = 20, temperature 0.07, cosine"),
            pair("linear", "logistic regression; penalty chosen on a held-out part of the training set"),
        ],
        notes: vec!["All numbers are made up.".into()],
        links: vec![pair("results.csv", "results.csv"), pair("table.csv", "table.csv")],
        rows,
        ..Page::default()
    })
}

fn write(folder: &Path) -> Result<()> {
    results::write(&folder.join("results.csv"), &rows())?;
    let rows = results::read_many(&[folder])?;
    let tables = summarise(&rows)?;
    let width = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(140);
    print!("{}", tables[0].terminal(width, selfsup_report::table::colour_wanted()));
    let mut figures = vec![bars(&tables[0], 0)?, bars(&tables[0], 1)?, bars(&tables[0], 2)?, online(&tables[0])?];
    figures.push(loss("simclr")?);
    for figure in &figures {
        figure.write(folder)?;
    }
    selfsup_report::file::write_whole(&folder.join("table.csv"), &tables[0].csv()?)?;
    selfsup_report::file::write_whole(&folder.join("table.md"), tables[0].markdown().as_bytes())?;
    selfsup_report::file::write_whole(&folder.join("views.png"), &views()?)?;
    let mut events = tensorboard::Writer::create(&folder.join("events.out.tfevents.0.demo"), 1.0)?;
    for step in 0..5 {
        events.scalar("loss", step, 1.0 / (step + 1) as f64, 2.0 + step as f64)?;
    }
    events.flush()?;
    page(rows, tables, figures)?.write(&folder.join("report.html"))
}

fn main() -> Result<()> {
    let folder =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("selfsup-demo-report"), PathBuf::from);
    std::fs::create_dir_all(&folder).with_context(|| format!("{}: the folder could not be made", folder.display()))?;
    write(&folder)?;
    println!("{}", folder.join("report.html").display());
    Ok(())
}
