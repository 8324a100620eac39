//! Pieces of words, by the library `tokenizers`: found by byte-pair encoding (Sennrich, Haddow and Birch 2016, arXiv
//! 1508.07909) over characters, or those of a `tokenizer.json` that was made elsewhere.

use crate::message::plain;
use anyhow::{Context as _, Result, anyhow, ensure};
use std::fmt::Display;
use std::path::Path;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

/// What pieces do not reach across: letters with at most one space before them, other signs likewise, single blanks.
const WORDS: &str = r" ?\p{L}+| ?[^\s\p{L}]+|\s";

/// Ids of a `tokenizer.json` are below it; of the largest vocabularies in use they are below 300,000. Networks have a row for
/// each id, whether a piece has it or not.
const MOST: usize = 1 << 20;

/// Pieces of words. Trained ones are the characters of a text in the order of their code points, then merged pairs in
/// the order in which they were merged.
#[derive(Clone, Debug)]
pub struct Pieces {
    tokenizer: Tokenizer,
    /// Ids are below it.
    len: usize,
}

impl Pieces {
    /// Merges the most frequent pair of neighbours in `text` until there are `size` pieces or no pair is left.
    /// `alphabet` holds all characters that will ever be encoded.
    pub(crate) fn train(text: &str, alphabet: &str, size: usize) -> Pieces {
        let mut tokenizer = Tokenizer::new(BPE::default());
        let split = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Isolated, false);
        tokenizer.with_pre_tokenizer(Some(split.expect("a right expression")));
        tokenizer.with_decoder(Some(Fuse::new()));
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(size)
            .initial_alphabet(alphabet.chars().collect())
            .build();
        let trained = tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), std::iter::once(text));
        trained.expect("no file is read and no progress shown");
        Pieces::of(tokenizer)
    }

    /// The pieces of a `tokenizer.json`, without its special tokens, cut and padding.
    ///
    /// # Errors
    /// If the file cannot be read as one.
    pub(crate) fn open(path: &Path) -> Result<Pieces> {
        let cannot = |error: &dyn Display| anyhow!("{} is no tokenizer: {}", path.display(), plain(error));
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        // The library takes it for granted that its parts are JSON.
        let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| cannot(&error))?;
        let mut tokenizer = Tokenizer::from_bytes(json.to_string()).map_err(|error| cannot(&error))?;
        tokenizer.with_truncation(None).map_err(|error| cannot(&error))?;
        tokenizer.with_padding(None);
        let pieces = Pieces::of(tokenizer);
        ensure!(
            (1..=MOST).contains(&pieces.len),
            "{} has ids up to {}; expected at least one piece, and ids below {MOST}",
            path.display(),
            pieces.len.saturating_sub(1)
        );
        Ok(pieces)
    }

    fn of(tokenizer: Tokenizer) -> Pieces {
        let len = tokenizer.get_vocab(true).values().max().map_or(0, |&last| last as usize + 1);
        Pieces { tokenizer, len }
    }

    /// The number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The ids of `text`; characters that are not known are left out.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = self.tokenizer.encode_fast(text, false).map_err(|error| anyhow!("{}", plain(error)))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The text of ids; unknown ones and special tokens become nothing.
    pub(crate) fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).unwrap_or_default()
    }

    /// The text that each id adds behind a word, blanks included: what tells whether it goes on with that word. None
    /// where the end of a word is marked instead of its beginning, so that an id does not tell.
    pub(crate) fn behind_a_word(&self) -> Option<Vec<String>> {
        if matches!(self.tokenizer.get_model(), ModelWrapper::BPE(model) if model.end_of_word_suffix.is_some()) {
            return None;
        }
        let word = self.encode("a").ok().filter(|word| !word.is_empty())?;
        let text = self.decode(&word);
        let behind = |id| {
            let both = self.decode(&[word.as_slice(), &[id]].concat());
            both.strip_prefix(&text).map_or_else(|| self.decode(&[id]), str::to_string)
        };
        Some((0..self.len as u32).map(behind).collect())
    }
}
