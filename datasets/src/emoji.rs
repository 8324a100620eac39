//! Emoji with their names: captioned images.

use crate::captioned::Captioned;
use crate::dataset::{Dataset, Part};
use crate::folder::decode;
use crate::memory::Pixels;
use crate::message::plain;
use crate::pieces::Pieces;
use crate::split::hold_out;
use crate::text::utf8;
use crate::vocabulary::Vocabulary;
use anyhow::{Context as _, Result, anyhow, ensure};
use flate2::read::GzDecoder;
use rayon::prelude::*;
use selfsup_core::data::{Images as _, Normalisation};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

/// Height and width of the images of the archive.
const SIZE: usize = 64;
/// Height and width of the bundled images, and how many lie beside each other in their picture.
const MINI: usize = 32;
const MINI_COLUMNS: usize = 40;
/// Pieces of words that byte-pair encoding finds in the captions: two thirds of their words occur once, and are left in
/// parts.
const PIECES: usize = 512;
/// Bytes of a file of the archive: the table has 0.2 MB. What is packed may be a thousand times as large.
const LARGEST: u64 = 16 << 20;
/// The share of each category that is held out.
const HELD_OUT: f64 = 0.2;

/// One line of captions.tsv.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) file: String,
    pub(crate) caption: String,
    pub(crate) category: String,
}

/// The columns `file`, `caption` and `category` of a table with tabs; captions become lower case.
pub(crate) fn parse(name: &str, text: &str) -> Result<Vec<Line>> {
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines.next().map(|(_, line)| line.split('\t').collect()).unwrap_or_default();
    let column = |title: &str| {
        header.iter().position(|&found| found == title).with_context(|| format!("{name}: no column `{title}`"))
    };
    let columns = [column("file")?, column("caption")?, column("category")?];
    lines
        .map(|(at, line)| {
            let words: Vec<&str> = line.split('\t').collect();
            let word = |column: usize| {
                let found = words.get(column).filter(|word| !word.is_empty());
                found.with_context(|| format!("{name}, line {}: no {} is given", at + 1, header[column]))
            };
            Ok(Line {
                file: word(columns[0])?.to_string(),
                caption: word(columns[1])?.to_lowercase(),
                category: word(columns[2])?.to_string(),
            })
        })
        .collect()
}

/// What a picture shows, whatever the colour of its skin: `waving hand, dark skin tone` is a `waving hand`.
fn without_skin_tone(caption: &str) -> String {
    caption.split(", ").filter(|part| !part.contains("skin tone")).collect::<Vec<_>>().join(", ")
}

/// The data set of captioned images. The fifth part of each category is held out by [`hold_out`] with seed 0, so that
/// pictures that differ in the colour of a skin alone stay on one side. Captions are in characters, or in `pieces` of
/// words, found in the captions of the training part.
fn dataset(pixels: Pixels, lines: Vec<Line>, pieces: bool) -> Result<Dataset> {
    let classes: BTreeSet<&String> = lines.iter().map(|line| &line.category).collect();
    let classes: Vec<String> = classes.into_iter().cloned().collect();
    ensure!(classes.len() <= 1 << 16, "the captions name {} categories, more than 65,536", classes.len());
    let label = |line: &Line| classes.partition_point(|class| *class < line.category) as u16;
    let labels: Vec<u16> = lines.iter().map(label).collect();
    // The label of each motif, and the motif of each row.
    let (mut motifs, mut motif_labels) = (HashMap::new(), Vec::new());
    let mut motif_of_rows = Vec::new();
    for (line, &label) in lines.iter().zip(&labels) {
        let motif = *motifs.entry((label, without_skin_tone(&line.caption))).or_insert_with(|| {
            motif_labels.push(label);
            motif_labels.len() - 1
        });
        motif_of_rows.push(motif);
    }
    let (_, held) = hold_out(&motif_labels, HELD_OUT, 0);
    let (test, train): (Vec<usize>, Vec<usize>) =
        (0..lines.len()).partition(|&row| held.binary_search(&motif_of_rows[row]).is_ok());

    let texts: Vec<&str> = lines.iter().map(|line| line.caption.as_str()).collect();
    let vocabulary = match pieces {
        true => {
            let read: Vec<&str> = train.iter().map(|&row| texts[row]).collect();
            Vocabulary::Pieces(Box::new(Pieces::train(&read.join("\n"), &texts.concat(), PIECES)))
        }
        false => Vocabulary::characters(&texts.concat()),
    };
    let (native_size, normalisation) = (pixels.height, normalisation(&pixels, &train)?);
    let whole = Part::labelled(Captioned::new(Arc::new(pixels), &texts, &vocabulary)?, labels);
    Ok(Dataset {
        name: String::new(),
        classes,
        train: whole.select(&train)?,
        test: Some(whole.select(&test)?),
        unlabelled: None,
        normalisation,
        native_size,
        vocabulary: Some(vocabulary),
        note: String::new(),
    })
}

/// Mean and standard deviation of each channel over the images at `rows`.
fn normalisation(pixels: &Pixels, rows: &[usize]) -> Result<Normalisation> {
    let mut sums = [(0.0, 0.0); 3];
    for &row in rows {
        for pixel in pixels.image(row)?.pixels.chunks_exact(3) {
            for (sum, &byte) in sums.iter_mut().zip(pixel) {
                let x = f64::from(byte) / 255.0;
                *sum = (sum.0 + x, sum.1 + x * x);
            }
        }
    }
    let n = (rows.len() * pixels.height * pixels.width) as f64;
    let moments = sums.map(|(sum, squares)| (sum / n, (squares / n - (sum / n).powi(2)).max(1e-12).sqrt()));
    Ok(Normalisation {
        mean: moments.iter().map(|moment| moment.0 as f32).collect(),
        std: moments.iter().map(|moment| moment.1 as f32).collect(),
    })
}

/// All files of the archive or the folder at `path`, by their path inside it.
fn files(path: &Path) -> Result<HashMap<String, Vec<u8>>> {
    let mut files = HashMap::new();
    if path.is_dir() {
        for folder in [path.to_path_buf(), path.join(SIZE.to_string())] {
            let cannot = || format!("cannot list the folder {}", folder.display());
            for entry in std::fs::read_dir(&folder).with_context(cannot)? {
                let file = entry.with_context(cannot)?.path();
                if file.is_file() {
                    let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
                    files
                        .insert(name, std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
                }
            }
        }
        return Ok(files);
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let broken = |why: io::Error| anyhow!("{} is broken or cut short: {}", path.display(), plain(why));
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let inner = entry.path().map_err(broken)?.to_string_lossy().into_owned();
        if let (true, Some((_, name))) = (entry.header().entry_type().is_file(), inner.split_once("emoji-captions/")) {
            let mut bytes = Vec::new();
            entry.take(LARGEST).read_to_end(&mut bytes).map_err(broken)?;
            files.insert(name.to_string(), bytes);
        }
    }
    Ok(files)
}

/// The whole set from the archive or the folder at `path`.
pub(crate) fn open(path: &Path, pieces: bool) -> Result<Dataset> {
    let mut files = files(path)?;
    let name = format!("{}, captions.tsv", path.display());
    let table = files.remove("captions.tsv").with_context(|| format!("{name}: the table is missing"))?;
    let lines = parse(&name, &utf8(&name, table)?)?;
    ensure!(!lines.is_empty(), "{name}: the table is empty");
    let mut bytes = vec![0; lines.len() * SIZE * SIZE * 3];
    bytes.par_chunks_exact_mut(SIZE * SIZE * 3).zip(&lines).try_for_each(|(pixels, line)| {
        let name = format!("{SIZE}/{}", line.file);
        let encoded = files.get(&name).with_context(|| format!("{}: {name} is missing", path.display()))?;
        let image = decode(&name, encoded, 3)?;
        ensure!(
            (image.height, image.width) == (SIZE, SIZE),
            "{name}: expected {SIZE} x {SIZE} pixels, found {} x {}",
            image.height,
            image.width
        );
        pixels.copy_from_slice(&image.pixels);
        Ok(())
    })?;
    dataset(Pixels { height: SIZE, width: SIZE, channels: 3, bytes }, lines, pieces)
}

/// The bundled form: one picture that holds all images row by row, and the table.
pub(crate) fn mini(picture: &[u8], table: Vec<u8>, pieces: bool) -> Result<Dataset> {
    let lines = parse("emoji-mini, captions.tsv", &utf8("emoji-mini, captions.tsv", table)?)?;
    let sheet = decode("emoji-mini, images.png", picture, 3)?;
    ensure!(
        sheet.width == MINI_COLUMNS * MINI && sheet.height >= lines.len().div_ceil(MINI_COLUMNS) * MINI,
        "emoji-mini, images.png: {} x {} pixels do not hold {} images",
        sheet.height,
        sheet.width,
        lines.len()
    );
    let mut bytes = Vec::with_capacity(lines.len() * MINI * MINI * 3);
    for at in 0..lines.len() {
        for y in 0..MINI {
            let start = ((at / MINI_COLUMNS * MINI + y) * sheet.width + at % MINI_COLUMNS * MINI) * 3;
            bytes.extend_from_slice(&sheet.pixels[start..start + MINI * 3]);
        }
    }
    dataset(Pixels { height: MINI, width: MINI, channels: 3, bytes }, lines, pieces)
}
