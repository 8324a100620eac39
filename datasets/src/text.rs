//! Text as token sequences: windows of one long text, or single speeches.

use crate::dataset::{Dataset, Part};
use crate::pieces::Pieces;
use crate::split::hold_out;
use crate::vocabulary::Vocabulary;
use anyhow::{Context as _, Result, ensure};
use selfsup_core::data::{Modality, Normalisation, Sample, Samples};
use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Characters of a window; the context of nanoGPT's character model.
pub(crate) const WINDOW: usize = 256;
/// Characters of a speech that evaluation sees; half of all speeches are shorter.
pub(crate) const SPEECH: usize = 128;
/// Own text must hold as many characters, so that the tenth that is held out is a window at least.
const LEAST: usize = 10 * WINDOW;
/// Speeches with fewer characters say too little of their play.
const SHORTEST_SPEECH: usize = 32;
/// The share of each play's speeches that is held out.
const HELD_OUT: f64 = 0.2;

/// The plays of tinyshakespeare, each with the byte at which it begins: that of the name of its first speaker. Found by
/// searching the text for the first line of each play, and checked by the speakers before and behind it.
pub(crate) const PLAYS: [(&str, usize); 9] = [
    ("Coriolanus", 0),
    ("Richard III", 154_470),
    ("Richard II", 317_027),
    ("Romeo and Juliet", 442_994),
    ("Henry VI, Part 3", 576_460),
    ("The Winter's Tale", 710_427),
    ("Measure for Measure", 846_171),
    ("The Taming of the Shrew", 966_133),
    ("The Tempest", 1_080_739),
];

/// Parts of one long sequence, each a sample.
struct Spans {
    ids: Arc<[u32]>,
    spans: Vec<Range<usize>>,
    vocabulary: usize,
}

impl Samples for Spans {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn modality(&self) -> Modality {
        Modality::Tokens { vocabulary: self.vocabulary }
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        Ok(Sample::Tokens(Cow::Borrowed(&self.ids[self.spans[index].clone()])))
    }
}

/// The spans that begin at multiples of `step` and are `length` long, or as long as there is text.
fn windows(total: usize, step: usize, length: usize) -> Vec<Range<usize>> {
    (0..total).step_by(step).map(|start| start..total.min(start + length)).collect()
}

/// The place that divides a text for training from its end for testing: nanoGPT's nine tenths of the characters.
pub(crate) fn nine_tenths(text: &str) -> usize {
    let characters = text.chars().count();
    text.char_indices().nth(characters * 9 / 10).map_or(text.len(), |(byte, _)| byte)
}

/// A data set of token sequences.
fn dataset(train: Part, test: Part, classes: Vec<String>, vocabulary: Vocabulary, native_size: usize) -> Dataset {
    Dataset {
        name: String::new(),
        classes,
        train,
        test: Some(test),
        unlabelled: None,
        normalisation: Normalisation { mean: Vec::new(), std: Vec::new() },
        native_size,
        vocabulary: Some(vocabulary),
        note: String::new(),
    }
}

/// A text without labels: its first nine tenths for training, the rest for testing.
///
/// A training sample is a window of twice `size` tokens, so that a part of `size` tokens that is drawn from it begins
/// anywhere; the next sample begins `size` later. Test samples are `size` long and disjoint: each token is seen once.
pub(crate) fn of_windows(text: &str, vocabulary: Vocabulary, size: usize) -> Result<Dataset> {
    let (train, test) = text.split_at(nine_tenths(text));
    let part = |text: &str, length: usize| {
        let ids: Arc<[u32]> = vocabulary.encode(text)?.into();
        let spans = windows(ids.len(), size, length);
        Ok::<_, anyhow::Error>(Part::unlabelled(Spans { ids, spans, vocabulary: vocabulary.len() }))
    };
    let (train, test) = (part(train, 2 * size)?, part(test, size)?);
    Ok(dataset(train, test, Vec::new(), vocabulary, size))
}

/// The speeches of tinyshakespeare, each with the byte at which it begins: blocks between empty lines, without the
/// first line, which names the speaker.
fn speeches(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let start = text.as_ptr() as usize;
    text.split("\n\n").filter_map(move |block| {
        let block = block.trim_matches('\n');
        let (speaker, speech) = block.split_once('\n')?;
        (speaker.ends_with(':') && speech.len() >= SHORTEST_SPEECH).then(|| (block.as_ptr() as usize - start, speech))
    })
}

/// Single speeches labelled by play. The fifth part of each play's speeches is held out, by [`hold_out`] with seed 0. A
/// speech keeps its length: evaluation sees the first `size` tokens of a longer one, training any.
pub(crate) fn of_speeches(text: &str, vocabulary: Vocabulary, size: usize) -> Result<Dataset> {
    let (mut ids, mut spans, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (at, speech) in speeches(text) {
        let start = ids.len();
        ids.extend(vocabulary.encode(speech)?);
        spans.push(start..ids.len());
        labels.push((PLAYS.partition_point(|&(_, from)| from <= at) - 1) as u16);
    }
    let ids: Arc<[u32]> = ids.into();
    let (kept, held) = hold_out(&labels, HELD_OUT, 0);
    let part = |rows: &[usize]| {
        let spans = rows.iter().map(|&row| spans[row].clone()).collect();
        let samples = Spans { ids: Arc::clone(&ids), spans, vocabulary: vocabulary.len() };
        Part::labelled(samples, rows.iter().map(|&row| labels[row]).collect())
    };
    let (train, test) = (part(&kept), part(&held));
    Ok(dataset(train, test, PLAYS.iter().map(|(play, _)| (*play).to_string()).collect(), vocabulary, size))
}

/// The files of `text:PATH`: the file itself, or the `.txt` files of a folder, sorted by the bytes of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let cannot = || format!("cannot list the folder {}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(cannot)? {
        let file = entry.with_context(cannot)?.path();
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && file.extension().is_some_and(|extension| extension == "txt") {
            files.push(file);
        }
    }
    ensure!(!files.is_empty(), "{} holds no file that ends in .txt", path.display());
    files.sort();
    Ok(files)
}

/// Bytes as text, without a byte order mark.
pub(crate) fn utf8(name: &str, bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is no UTF-8 text: byte {at} begins no character; save it as UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
}

/// Own text: a file, or the `.txt` files of a folder one after the other. In characters, or in the pieces of the
/// folder's `tokenizer.json`.
pub(crate) fn open(path: &Path) -> Result<Dataset> {
    let mut text = String::new();
    for file in files(path)? {
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.push_str(&utf8(&file.display().to_string(), bytes)?);
    }
    let characters = text.chars().count();
    ensure!(
        characters >= LEAST,
        "{} holds {characters} characters; expected {LEAST} or more, for training and for testing",
        path.display()
    );
    let tokenizer = path.join("tokenizer.json");
    let (vocabulary, size) = match tokenizer.is_file() {
        true => (Vocabulary::Pieces(Box::new(Pieces::open(&tokenizer)?)), WINDOW / 2),
        false => (Vocabulary::characters(&text), WINDOW),
    };
    let note = "own text: its last tenth is held out for testing".into();
    let cannot = || format!("{} cannot write the text", tokenizer.display());
    Ok(Dataset { note, ..of_windows(&text, vocabulary, size).with_context(cannot)? })
}
