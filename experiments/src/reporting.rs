//! Pictures of a run, and reports of studies. A report reads CSV and PNG files and nothing else.

use crate::config::RunConfig;
use crate::registry::{self, METHODS};
use crate::run::{Subject, read_meta, training_samples};
use anyhow::{Context, Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::{HostBatch, plain, render_views};
use selfsup_core::data::Normalisation;
use selfsup_core::method::{Entry, Shape};
use selfsup_core::{Device, Kind, Tensor, no_grad};
use selfsup_datasets::{Dataset, Vocabulary, stratified_first};
use selfsup_report::figure::{Axes, Figure, Panel, Series, bars, file_name, lines, matrix, panels, ranks, scatter};
use selfsup_report::file::write_whole;
use selfsup_report::html::{Card, Page};
use selfsup_report::picture::{Grid, Picture};
use selfsup_report::results::{self, Row};
use selfsup_report::table::{Listing, Table, own_tasks, summarise};
use selfsup_report::{metrics, published};
use std::fs;
use std::path::{Path, PathBuf};

/// Images in a row of a picture.
pub(crate) const COLUMNS: usize = 8;

/// [B, C, S, S] normalised -> pictures of u8.
pub(crate) fn to_pictures(x: &Tensor, normalisation: &Normalisation) -> Result<Vec<Picture>> {
    let (b, c, h, w) = x.size4()?;
    let shape = [1, c, 1, 1];
    let std = Tensor::from_slice(&normalisation.std).view(shape);
    let mean = Tensor::from_slice(&normalisation.mean).view(shape);
    let x = x.to_device(Device::Cpu).to_kind(Kind::Float) * std + mean;
    let x = (x.clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8).permute([0, 2, 3, 1]).contiguous();
    (0..b).map(|i| Picture::new(h as usize, w as usize, c as usize, Vec::try_from(x.get(i).flatten(0, -1))?)).collect()
}

/// Lines [B, C, T] by name, of the first samples and channels: a panel for each channel of each sample.
fn to_panels(rows: &[(&str, Tensor)]) -> Result<Figure> {
    let (b, c, _) = rows[0].1.size3()?;
    let mut drawn = Vec::new();
    for (sample, channel) in (0..b.min(4)).flat_map(|sample| (0..c.min(2)).map(move |channel| (sample, channel))) {
        let line = |(_, x): &(&str, Tensor)| {
            Ok(Vec::try_from(x.get(sample).get(channel).to_device(Device::Cpu).to_kind(Kind::Double))?)
        };
        let title = match (b, c) {
            (1, 1) => String::new(),
            (_, 1) => format!("series {}", sample + 1),
            _ => format!("series {}, channel {}", sample + 1, channel + 1),
        };
        drawn.push(Panel { title, lines: rows.iter().map(line).collect::<Result<_>>()? });
    }
    let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    Ok(Figure { name: "series".into(), ..panels("Test series and what the method makes of them", &names, &drawn)? })
}

/// Rows with a caption before each, and captions below the columns, if any, for which these are drawn wider.
pub(crate) fn write_grid(
    path: &Path,
    rows: Vec<(String, Vec<Picture>)>,
    column_captions: Vec<String>,
    size: usize,
) -> Result<()> {
    let (row_captions, rows) = rows.into_iter().unzip();
    let scale = if column_captions.is_empty() { (64 / size).max(1) } else { 96usize.div_ceil(size) };
    let grid = Grid { rows, row_captions, column_captions, scale, padding: 4 };
    write_whole(path, &grid.png()?)
}

/// Writes views.png (images and the run's views of them) and, for a method that has pictures, pictures.png, series.svg
/// with series.png, or texts.txt.
///
/// # Errors
/// If an image cannot be read, or a file not written.
pub fn write_pictures(
    config: &RunConfig,
    dataset: &Dataset,
    subject: &Subject,
    recipes: &[Recipe],
    folder: &Path,
) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let (size, normalisation) = (subject.shape.size() as usize, &dataset.normalisation);
    if let Shape::Image(_) = subject.shape {
        write_views(config, dataset, size, recipes, &folder.join("views.png"))?;
    }

    // What the method does to samples it was not trained on, where there are any, of as many classes as there are.
    let samples = dataset.test.as_ref().map_or(training_samples(dataset), |test| &*test.samples);
    let index = match dataset.test.as_ref().and_then(|test| test.labels.as_ref()) {
        Some(labels) => stratified_first(labels, COLUMNS),
        None => (0..COLUMNS.min(samples.len())).collect(),
    };
    let captions = match &dataset.vocabulary {
        Some(vocabulary) => {
            index.iter().filter_map(|&i| samples.caption(i)).map(|ids| text(vocabulary, &ids)).collect()
        }
        None => Vec::new(),
    };
    let batch = HostBatch::plain(samples, index, size, normalisation, config.seed, 0)?;
    let batch = batch.to_batch(subject.store.device());
    let (images, others): (Vec<_>, Vec<_>) =
        no_grad(|| subject.method.pictures(&batch)).into_iter().partition(|(_, x)| x.dim() == 4);
    let (series, texts): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, x)| x.dim() == 3);
    if !images.is_empty() {
        let rows = images
            .into_iter()
            .map(|(caption, x)| Ok((caption.to_string(), to_pictures(&x, normalisation)?)))
            .collect::<Result<_>>()?;
        write_grid(&folder.join("pictures.png"), rows, captions, size)?;
    }
    if !series.is_empty() {
        to_panels(&series)?.write(folder)?;
    }
    if !texts.is_empty() {
        // Tokens of series stand for no text.
        let numbers = |ids: &[i64]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let mut text = String::new();
        for (caption, ids) in texts {
            for row in Vec::<Vec<i64>>::try_from(ids.to_device(Device::Cpu))? {
                let row = dataset.vocabulary.as_ref().map_or_else(|| numbers(&row), |v| v.decode(&row));
                text += &format!("== {caption}\n{row}\n\n");
            }
        }
        write_whole(&folder.join("texts.txt"), text.as_bytes())?;
    }
    Ok(())
}

/// What the ids of a caption stand for.
fn text(vocabulary: &Vocabulary, ids: &[u32]) -> String {
    vocabulary.decode(&ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>())
}

/// Training images and the run's views of them.
fn write_views(config: &RunConfig, dataset: &Dataset, size: usize, recipes: &[Recipe], path: &Path) -> Result<()> {
    let (samples, normalisation) = (training_samples(dataset), &dataset.normalisation);
    let index: Vec<usize> = (0..COLUMNS.min(samples.len())).collect();
    let mut rows =
        vec![("image".to_string(), to_pictures(&plain(samples, &index, size, normalisation)?, normalisation)?)];
    for epoch in 0..if recipes.len() == 1 { 2 } else { 1 } {
        let views = render_views(samples, &index, recipes, size, normalisation, config.seed, epoch)?;
        for view in views {
            let caption = format!("view {}", rows.len());
            // Views of another size are shown as large as the others.
            let x = view.to_view(Device::Cpu).x.upsample_nearest2d([size as i64; 2], None, None);
            rows.push((caption, to_pictures(&x, normalisation)?));
        }
    }
    write_grid(path, rows, Vec::new(), size)
}

/// What a table shows of all rows; results.csv has the rest.
fn shown(row: &Row) -> bool {
    match row.protocol.as_str() {
        "geometry" => row.metric == "effective_rank",
        "embedding" | "layers" | "augmentation" => false,
        "linear" => row.metric == "accuracy",
        _ => true,
    }
}

/// A run whose folder is there.
struct Source {
    method: String,
    /// The method with its variant, as tables name it.
    name: String,
    folder: PathBuf,
}

/// The methods among runs with their variants, (method, name), in the order of the rows.
fn names(runs: &[Source]) -> Vec<(&'static Entry, &str)> {
    let mut names: Vec<(&Entry, &str)> = Vec::new();
    for run in runs {
        let Some(entry) = METHODS.iter().find(|entry| entry.name == run.method) else { continue };
        if names.iter().all(|(_, name)| *name != run.name) {
            names.push((entry, &run.name));
        }
    }
    names
}

/// What a report of rows consists of.
pub struct Report {
    pub rows: Vec<Row>,
    pub tables: Vec<Table>,
    pub own_tasks: Listing,
}

impl Report {
    /// The report of the scores in `paths`: results.csv files, or folders that hold one.
    ///
    /// # Errors
    /// If a file cannot be read or holds no rows.
    pub fn read(paths: &[PathBuf]) -> Result<Report> {
        let rows = results::read_many(paths)?;
        let names = || paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        ensure!(!rows.is_empty(), "{}: there is no row to report; are the runs finished?", names());
        Report::of(rows)
    }

    /// The report of rows.
    ///
    /// # Errors
    /// If two rows contradict each other.
    pub fn of(mut rows: Vec<Row>) -> Result<Report> {
        let place = |name: &str| METHODS.iter().position(|entry| entry.name == name).unwrap_or(usize::MAX);
        rows.sort_by_key(|row| place(&row.method));
        let visible: Vec<Row> = rows.iter().filter(|row| shown(row)).cloned().collect();
        let tables = summarise(&visible)?;
        let own_tasks = own_tasks(&tables);
        Ok(Report { rows, tables, own_tasks })
    }

    /// What lies in the places' published.csv, beside these rows.
    fn beside_published(&self, places: &[PathBuf]) -> Result<Listing> {
        let files = places.iter().map(|place| place.join("published.csv")).filter(|file| file.exists());
        let numbers = files.map(|file| published::read(&file)).collect::<Result<Vec<_>>>()?;
        Ok(published::beside(&self.rows, &numbers.concat()))
    }

    /// Writes table.md, table.csv, figures (SVG and PNG) and report.html into `folder`; `runs` are the places in which
    /// to look for the runs' own folders. Returns the path of the page.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path, runs: &[PathBuf]) -> Result<PathBuf> {
        let figures = folder.join("figures");
        fs::create_dir_all(&figures).with_context(|| format!("{}: could not be made", figures.display()))?;
        let join = |text: fn(&Table) -> Result<String>| -> Result<String> {
            Ok(self.tables.iter().map(text).collect::<Result<Vec<_>>>()?.join("\n"))
        };
        let listings = [self.own_tasks.clone(), self.beside_published(runs)?];
        let mut page = join(|t| Ok(t.markdown()))?;
        for listing in listings.iter().filter(|listing| !listing.lines.is_empty()) {
            page = page + "\n" + &listing.markdown();
        }
        write_whole(&folder.join("table.md"), page.as_bytes())?;
        write_whole(&folder.join("table.csv"), join(|t| Ok(String::from_utf8(t.csv()?)?))?.as_bytes())?;
        let runs = self.run_folders(runs);
        let mut drawn = Vec::new();
        for table in &self.tables {
            for column in (0..table.columns.len()).filter(|&c| table.columns[c].percent()) {
                drawn.push(bars(table, column)?);
            }
        }
        for table in &self.tables {
            if let Some(column) = table.primary() {
                drawn.extend(matrix(table, column)?);
                drawn.extend(scatter(table, column)?);
            }
        }
        drawn.extend(ranks(&self.tables)?);
        drawn.extend(self.curves("online_knn", "Online kNN, on training images", "kNN accuracy", true, &runs)?);
        for figure in &drawn {
            figure.write(&figures)?;
        }
        let page = Page {
            title: self.title(),
            lead: "Self-supervised methods under one protocol: the same data, encoder, evaluation and seeds. Random is \
                   the untrained encoder, supervised the same encoder trained with all labels."
                .into(),
            meta: self.meta(&runs),
            tables: self.tables.clone(),
            listings: listings.into(),
            figures: drawn,
            cards: self.cards(&runs, &figures)?,
            protocol: protocol(&runs),
            notes: vec![
                "Scores are of the last epoch; no other was looked at. Test labels choose nothing.".into(),
                "± is the standard deviation over seeds; of one seed there is none, and no difference is then shown to be \
                 more than chance."
                    .into(),
            ],
            links: [("all rows", "results.csv"), ("table as CSV", "table.csv"), ("table as Markdown", "table.md")]
                .map(|(text, address)| (text.to_string(), address.to_string()))
                .into(),
            rows: self.rows.clone(),
            ..Page::default()
        };
        let path = folder.join("report.html");
        page.write(&path)?;
        Ok(path)
    }

    fn title(&self) -> String {
        let mut names: Vec<&str> = self.rows.iter().map(|row| row.study.as_str()).collect();
        names.dedup();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }

    /// The folders of the rows' runs that are there, each once.
    fn run_folders(&self, places: &[PathBuf]) -> Vec<Source> {
        let mut found: Vec<Source> = Vec::new();
        for row in &self.rows {
            let folders = places.iter().flat_map(|place| [place.join(&row.run_id), place.clone()]);
            let folder = folders.into_iter().find(|f| f.ends_with(&row.run_id) && f.join("config.toml").is_file());
            if let Some(folder) = folder.filter(|f| found.iter().all(|known| known.folder != *f)) {
                let variant = if row.variant.is_empty() { String::new() } else { format!(" ({})", row.variant) };
                found.push(Source { method: row.method.clone(), name: format!("{}{variant}", row.method), folder });
            }
        }
        found
    }

    /// One line per method of a metric over epochs, its runs together.
    fn curves(&self, metric: &str, title: &str, unit: &str, percent: bool, runs: &[Source]) -> Result<Option<Figure>> {
        let mut series = Vec::new();
        for (_, name) in names(runs) {
            let points = read_points(name, metric, runs)?;
            if !points.is_empty() {
                series.push(Series::of_runs(name, &points));
            }
        }
        if series.is_empty() {
            return Ok(None);
        }
        let axes = Axes { title: title.into(), x: "epoch".into(), y: unit.into(), percent };
        lines(&axes, &series).map(Some)
    }

    fn meta(&self, runs: &[Source]) -> Vec<(String, String)> {
        let mut meta = Vec::new();
        if let Some(made) = runs.iter().find_map(|run| read_meta(&run.folder)) {
            meta = vec![
                ("commit".into(), made.commit),
                ("LibTorch".into(), made.libtorch),
                ("device".into(), made.device),
                ("command".into(), made.command),
            ];
        }
        let ids: std::collections::BTreeMap<&str, f64> =
            self.rows.iter().map(|row| (row.run_id.as_str(), row.wall_s)).collect();
        meta.push(("training".into(), format!("{} runs, {:.0} s together", ids.len(), ids.values().sum::<f64>())));
        meta
    }

    fn cards(&self, runs: &[Source], figures: &Path) -> Result<Vec<Card>> {
        let mut cards = Vec::new();
        for (entry, name) in names(runs) {
            let Some(Source { folder, .. }) = runs.iter().find(|run| run.name == name) else { continue };
            let picture = |file: &str, caption: &str| {
                let bytes = fs::read(folder.join("plots").join(file)).ok();
                bytes.map(|bytes| (caption.to_string(), bytes))
            };
            let pictures = [
                picture("views.png", "Training images and the views that the method is given of them"),
                picture("pictures.png", "Test images as the method sees and rebuilds them"),
                picture(
                    "neighbours.png",
                    "Test images (left) and the training images nearest to each; blue: of its class",
                ),
            ];
            let drawings = [
                picture("series.png", "Test series, and what the method makes of them"),
                picture("confusion.png", "What kNN takes the classes for, in percent of the row"),
                picture("features.png", "Test samples along the two principal components of their features"),
            ];
            let written = fs::read_to_string(folder.join("plots/texts.txt")).ok();
            let texts = written.map(|text| ("What the method does to test samples".to_string(), text));
            let mut own = Vec::new();
            let points = read_points(name, "loss", runs)?;
            if !points.is_empty() {
                let axes =
                    Axes { title: format!("Loss of {name}"), x: "epoch".into(), y: "loss".into(), percent: false };
                let figure = lines(&axes, &[Series::of_runs(name, &points)])?;
                let figure = Figure { name: file_name(&format!("loss {name}")), ..figure };
                figure.write(figures)?;
                own.push(figure);
            }
            let speed = read_meta(folder).filter(|meta| meta.images_per_second > 0.0);
            cards.push(Card {
                name: name.into(),
                paper: entry.paper.into(),
                family: entry.family.to_string(),
                pictures: pictures.into_iter().flatten().collect(),
                drawings: drawings.into_iter().flatten().collect(),
                texts: texts.into_iter().collect(),
                figures: own,
                notes: speed
                    .map(|m| {
                        let memory = m.peak_memory_mib.map_or(String::new(), |mib| format!(", at most {mib:.0} MiB"));
                        format!("{:.0} images/s, {} trained values{memory}.", m.images_per_second, m.parameters)
                    })
                    .into_iter()
                    .collect(),
            });
        }
        Ok(cards)
    }
}

/// The curve of a metric over epochs in each run of one name.
fn read_points(name: &str, metric: &str, runs: &[Source]) -> Result<Vec<Vec<(f64, f64)>>> {
    let mut curves = Vec::new();
    for run in runs.iter().filter(|run| run.name == name) {
        let path = run.folder.join("metrics.csv");
        if !path.is_file() {
            continue;
        }
        let read = metrics::read(&path)?;
        let steps = read.last().map_or(1, |m| m.step).max(1);
        let epochs = read.last().map_or(1, |m| m.epoch + 1);
        let points = metrics::points(&read, metric, |m| m.step as f64 * epochs as f64 / steps as f64);
        if !points.is_empty() {
            curves.push(points);
        }
    }
    Ok(curves)
}

/// How features were judged, from the configuration of the first run.
fn protocol(runs: &[Source]) -> Vec<(String, String)> {
    let text = runs.first().and_then(|run| fs::read_to_string(run.folder.join("config.toml")).ok());
    let Some(config) = text.and_then(|text| toml::from_str::<RunConfig>(&text).ok()) else { return Vec::new() };
    let evaluate = &config.evaluate;
    let lines = [
        ("features", "the encoder's output, frozen, in evaluation mode, of images without augmentation".to_string()),
        ("kNN", format!("k = {}, temperature {}, cosine", evaluate.knn.k, evaluate.knn.temperature)),
        (
            "linear",
            format!(
                "logistic regression on standardised features; the penalty is chosen on {:.0} % of the training part",
                100.0 * evaluate.linear.held_out
            ),
        ),
        (
            "supervised",
            format!("the same encoder from scratch with all labels, {} epochs, light crops", evaluate.finetune.epochs),
        ),
        ("geometry", "effective rank of the features; results.csv has more of it, of the embedding too".into()),
    ];
    lines.map(|(name, text)| (name.to_string(), text)).into()
}

/// The table of methods, for `selfsup methods`.
pub fn methods_csv() -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["name", "family", "presets", "paper"])?;
    for entry in registry::METHODS {
        let presets: Vec<&str> = crate::preset::PRESETS.iter().filter(|p| p.0 == entry.name).map(|p| p.1).collect();
        writer.write_record([entry.name, &entry.family.to_string(), &presets.join(" "), entry.paper])?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
