//! From a name to a data set.

use crate::catalogue::{self, Entry, Format, Source, Sum};
use crate::content::Content;
use crate::dataset::{Dataset, Part};
use crate::pieces::Pieces;
use crate::root::bundled_root;
use crate::vocabulary::Vocabulary;
use crate::{captioned, cifar, emoji, folder, idx, jpeg_copy, series, stl10, text};
use anyhow::{Context as _, Result, bail, ensure};
use selfsup_core::data::Normalisation;
use std::path::Path;

/// Images of Imagenette's two parts.
const IMAGENETTE: [usize; 2] = [9_469, 3_925];
/// Pieces of the vocabularies that byte-pair encoding finds.
const PIECES: usize = 1024;

/// A name taken apart: `NAME[:LIMIT]` or `KIND:PATH[:LIMIT]`.
pub(crate) enum Wanted<'a> {
    Named(&'static Entry),
    Own(Own, &'a Path),
}

/// Kinds of own data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Images.
    Folder,
    Text,
    Series,
    /// Series as token sequences.
    SeriesTokens,
}

impl Own {
    const ALL: [Own; 4] = [Own::Folder, Own::Text, Own::Series, Own::SeriesTokens];

    /// What stands before the path.
    fn prefix(self) -> &'static str {
        match self {
            Own::Folder => "folder:",
            Own::Text => "text:",
            Own::Series => "ts:",
            Own::SeriesTokens => "ts-tokens:",
        }
    }

    pub(crate) fn open(self, path: &Path) -> Result<Dataset> {
        match self {
            Own::Folder => folder::open(path),
            Own::Text => text::open(path),
            Own::Series => series::open(path, series::dataset),
            Own::SeriesTokens => series::open(path, |train, test| series::token_dataset(train, test, 1)),
        }
    }
}

/// What `name` asks for and how many samples of each part.
pub(crate) fn parse(name: &str) -> Result<(Wanted<'_>, Option<usize>)> {
    let (rest, limit) = match name.rsplit_once(':') {
        Some((rest, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let limit = digits.parse().with_context(|| format!("`{name}`: the limit {digits} is too large"))?;
            ensure!(limit > 0, "`{name}`: a limit of 0 leaves nothing to train on");
            (rest, Some(limit))
        }
        _ => (name, None),
    };
    for own in Own::ALL {
        if let Some(path) = name.strip_prefix(own.prefix()) {
            // A path may end in a colon and digits itself.
            return match rest.strip_prefix(own.prefix()) {
                Some(shorter) if limit.is_some() && !Path::new(path).exists() => {
                    Ok((Wanted::Own(own, Path::new(shorter)), limit))
                }
                _ => Ok((Wanted::Own(own, Path::new(path)), None)),
            };
        }
    }
    if let Some(entry) = catalogue::list().iter().find(|entry| entry.name == rest) {
        return Ok((Wanted::Named(entry), limit));
    }
    let known: Vec<&str> = catalogue::list().iter().map(|entry| entry.name).collect();
    let near = known.iter().copied().max_by(|a, b| strsim::jaro(rest, a).total_cmp(&strsim::jaro(rest, b)));
    bail!(
        "there is no data set `{rest}`; did you mean `{}`? Known: {}, {}",
        near.unwrap_or_default(),
        known.join(", "),
        Own::ALL.map(|own| format!("{}PATH", own.prefix())).join(", ")
    )
}

/// The data set called `name` (see the crate's page), from the data root `root`.
///
/// # Errors
/// If there is no such name, if its files are missing (the message says how to get them), or if they are corrupt.
pub fn load(name: &str, root: &Path) -> Result<Dataset> {
    let (wanted, limit) = parse(name)?;
    let whole = match wanted {
        Wanted::Own(own, path) => own.open(path)?,
        Wanted::Named(entry) => load_entry(entry, root)?,
    };
    let cut = match limit {
        Some(limit) => whole.first(limit)?,
        None => whole,
    };
    Ok(Dataset { name: name.to_string(), ..cut })
}

/// A named set in whole.
pub(crate) fn load_entry(entry: &Entry, root: &Path) -> Result<Dataset> {
    let folder = root.join(entry.folder);
    ensure!(
        entry.is_present(root),
        "the data set `{}` is not in {}: {}",
        entry.name,
        root.display(),
        entry.how_to_get(root)
    );
    let set = |train, test: Part, classes: &[&str], mean: &[f32], std: &[f32], native_size| Dataset {
        name: entry.name.to_string(),
        classes: classes.iter().map(ToString::to_string).collect(),
        train,
        test: Some(test),
        unlabelled: None,
        normalisation: Normalisation { mean: mean.to_vec(), std: std.to_vec() },
        native_size,
        vocabulary: None,
        note: String::new(),
    };
    match entry.format {
        Format::Bundled { captions } => {
            let (train, test) = load_idx(entry, &bundled_root()?)?;
            let set = set(train, test, &catalogue::FASHION_CLASSES, &[0.2867], &[0.3540], 28);
            if captions { with_class_names(set) } else { Ok(set) }
        }
        Format::Idx => {
            let (train, test) = load_idx(entry, root)?;
            Ok(match entry.name {
                "mnist" => set(train, test, &catalogue::DIGITS, &[0.1307], &[0.3081], 28),
                _ => set(train, test, &catalogue::FASHION_CLASSES, &[0.2860], &[0.3530], 28),
            })
        }
        Format::Shakespeare { speeches, pieces } => {
            let text = text::utf8(entry.name, checked(entry, &bundled_root()?, &entry.sources[0])?)?;
            let vocabulary = match pieces {
                true => Vocabulary::Pieces(Box::new(Pieces::train(&text[..text::nine_tenths(&text)], &text, PIECES))),
                false => Vocabulary::characters(&text),
            };
            let shorter = if pieces { 2 } else { 1 };
            let set = match speeches {
                true => text::of_speeches(&text, vocabulary, text::SPEECH / shorter)?,
                false => text::of_windows(&text, vocabulary, text::WINDOW / shorter)?,
            };
            Ok(Dataset { name: entry.name.into(), ..set })
        }
        Format::Series { tokens } => {
            let root = bundled_root()?;
            let read =
                |source: &Source| series::parse(source.file, &text::utf8(source.file, checked(entry, &root, source)?)?);
            let (train, test) = (read(&entry.sources[0])?, read(&entry.sources[1])?);
            let set = match tokens {
                Some(steps) => series::token_dataset(train, test, steps)?,
                None => series::dataset(train, test)?,
            };
            Ok(Dataset { name: entry.name.into(), ..set })
        }
        Format::Emoji { pieces } => {
            let archive = root.join(entry.sources[0].file);
            let set = emoji::open(if folder.is_dir() { &folder } else { &archive }, pieces)?;
            Ok(Dataset { name: entry.name.into(), ..set })
        }
        Format::EmojiMini { pieces } => {
            let root = bundled_root()?;
            let [picture, table] = [0, 1].map(|at| checked(entry, &root, &entry.sources[at]));
            Ok(Dataset { name: entry.name.into(), ..emoji::mini(&picture?, table?, pieces)? })
        }
        Format::Cifar10 => {
            let batches: Vec<_> = (1..=5).map(|batch| folder.join(format!("data_batch_{batch}.bin"))).collect();
            let train = cifar::read(&batches, 10_000, cifar::Kind::Ten)?;
            let test = cifar::read(&[folder.join("test_batch.bin")], 10_000, cifar::Kind::Ten)?;
            Ok(set(
                Part::labelled(train.0, train.1),
                Part::labelled(test.0, test.1),
                &catalogue::CIFAR10_CLASSES,
                &[0.4914, 0.4822, 0.4465],
                &[0.2470, 0.2435, 0.2616],
                32,
            ))
        }
        Format::Cifar100 => {
            let train = cifar::read(&[folder.join("train.bin")], 50_000, cifar::Kind::Hundred)?;
            let test = cifar::read(&[folder.join("test.bin")], 10_000, cifar::Kind::Hundred)?;
            Ok(set(
                Part::labelled(train.0, train.1),
                Part::labelled(test.0, test.1),
                &catalogue::CIFAR100_CLASSES,
                &[0.5071, 0.4865, 0.4409],
                &[0.2673, 0.2564, 0.2762],
                32,
            ))
        }
        Format::Stl10 => {
            let file = |name| folder.join(name);
            let train = stl10::read(&file("train_X.bin"), &file("train_y.bin"), 5_000)?;
            let test = stl10::read(&file("test_X.bin"), &file("test_y.bin"), 8_000)?;
            let unlabelled = stl10::OnDisk::open(&file("unlabeled_X.bin"), 100_000)?;
            let labelled = set(
                Part::labelled(train.0, train.1),
                Part::labelled(test.0, test.1),
                &catalogue::STL10_CLASSES,
                &[0.4467, 0.4398, 0.4066],
                &[0.2603, 0.2566, 0.2713],
                96,
            );
            Ok(Dataset { unlabelled: Some(Part::unlabelled(unlabelled)), ..labelled })
        }
        Format::Imagenette => {
            let set = imagenette(&folder, IMAGENETTE)?;
            Ok(Dataset { name: entry.name.into(), ..set })
        }
        Format::JpegCopy => {
            let archive = root.join(entry.sources[0].file);
            let path = if folder.is_dir() { &folder } else { &archive };
            let (train, test) = jpeg_copy::read(path, [jpeg_copy::TRAIN, jpeg_copy::TEST])?;
            let copy = set(
                Part::labelled(train.0, train.1),
                Part::labelled(test.0, test.1),
                &catalogue::CIFAR10_CLASSES,
                &[0.4913, 0.4821, 0.4465],
                &[0.2452, 0.2428, 0.2606],
                32,
            );
            let note = "CIFAR-10 (JPEG-75 copy): pixels are not CIFAR-10's; JPEG decoded by zune-jpeg";
            Ok(Dataset { note: note.into(), ..copy })
        }
    }
}

/// Imagenette in a folder, with `counts` images for training and for testing: a folder that was filled by hand or cut short
/// says nothing else of what is missing.
pub(crate) fn imagenette(folder: &Path, counts: [usize; 2]) -> Result<Dataset> {
    let set = folder::open(folder)?;
    let (ids, names): (Vec<&str>, Vec<&str>) = catalogue::IMAGENETTE_CLASSES.into_iter().unzip();
    let test = set.test.as_ref().and_then(|part| part.labels.as_deref()).unwrap_or_default();
    ensure!(
        set.classes == ids && (0..10).all(|class| test.contains(&class)),
        "{} is not Imagenette: expected train/ and val/ with the ten folders {} to {} each",
        folder.display(),
        ids[0],
        ids[9]
    );
    for (part, found, expected) in [("train", set.train.len(), counts[0]), ("val", test.len(), counts[1])] {
        ensure!(
            found == expected,
            "{}: expected {expected} images, found {found}: move the folder away and unpack the archive anew",
            folder.join(part).display()
        );
    }
    let classes = names.into_iter().map(String::from).collect();
    Ok(Dataset { classes, ..set })
}

/// The same set with the names of its classes, in lower case, as captions.
fn with_class_names(set: Dataset) -> Result<Dataset> {
    let names: Vec<String> = set.classes.iter().map(|name| name.to_lowercase()).collect();
    let vocabulary = Vocabulary::characters(&names.concat());
    let part = |part| captioned::by_class(part, &names, &vocabulary);
    Ok(Dataset {
        train: part(set.train)?,
        test: set.test.map(part).transpose()?,
        vocabulary: Some(vocabulary.clone()),
        note: "captions are the names of the classes: whoever is trained on them is trained on labels".into(),
        ..set
    })
}

/// The content of a file whose sum is known.
fn checked(entry: &Entry, root: &Path, source: &Source) -> Result<Vec<u8>> {
    let path = entry.idx_file(root, source).with_context(|| {
        format!("{} is missing from the data set `{}`", entry.place(root, source).display(), entry.name)
    })?;
    let Sum::Content { sha256, bytes, .. } = source.sum else { bail!("{}: its content has no sum", source.file) };
    let mut content = Content::open(&path)?;
    let whole = content.exactly(bytes as usize, "content")?;
    let found = content.end()?;
    ensure!(
        sha256 == found,
        "{}: the content is not that of `{}`: expected sha256 {sha256}, found {found}",
        path.display(),
        entry.name
    );
    Ok(whole)
}

/// Train and test part of an IDX set, its content checked where the content's sum is known.
fn load_idx(entry: &Entry, root: &Path) -> Result<(Part, Part)> {
    let part = |at: usize| {
        let sources = [&entry.sources[at], &entry.sources[at + 1]];
        let mut paths = Vec::new();
        for source in sources {
            let path = entry.idx_file(root, source);
            paths.push(path.with_context(|| {
                format!("{} is missing from the data set `{}`", entry.place(root, source).display(), entry.name)
            })?);
        }
        let (pixels, labels, sums) = idx::read(&paths[0], &paths[1], 10)?;
        for ((path, source), found) in paths.iter().zip(sources).zip(sums) {
            if let Sum::Content { sha256, .. } = source.sum {
                ensure!(
                    sha256 == found,
                    "{}: the content is not that of `{}`: expected sha256 {sha256}, found {found}",
                    path.display(),
                    entry.name
                );
            }
        }
        Ok::<_, anyhow::Error>(Part::labelled(pixels, labels))
    };
    Ok((part(0)?, part(2)?))
}
