//! Text as token ids and back.

use crate::pieces::Pieces;
use anyhow::Result;
use selfsup_core::data::Word;
use std::collections::BTreeSet;

/// What token ids stand for.
#[derive(Clone, Debug)]
pub enum Vocabulary {
    /// Characters in the order of their code points.
    Characters(Vec<char>),
    /// Pieces of words.
    Pieces(Box<Pieces>),
}

impl Vocabulary {
    /// The characters that occur in `text`.
    pub fn characters(text: &str) -> Vocabulary {
        Vocabulary::Characters(text.chars().collect::<BTreeSet<char>>().into_iter().collect())
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Vocabulary::Characters(characters) => characters.len(),
            Vocabulary::Pieces(pieces) => pieces.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of `text`; characters that are not known are left out.
    ///
    /// # Errors
    /// If pieces that were made elsewhere cannot write it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Vocabulary::Characters(characters) => {
                Ok(text.chars().filter_map(|c| characters.binary_search(&c).ok()).map(|id| id as u32).collect())
            }
            Vocabulary::Pieces(pieces) => pieces.encode(text),
        }
    }

    /// The text of ids. The id behind the last, which stands for a masked token, becomes ▒; padding and other ids beyond
    /// the vocabulary become nothing.
    pub fn decode(&self, ids: &[i64]) -> String {
        let mask = self.len() as i64;
        let run = |ids: &[i64]| {
            let ids: Vec<u32> = ids.iter().filter(|id| (0..mask).contains(*id)).map(|&id| id as u32).collect();
            match self {
                Vocabulary::Characters(characters) => ids.iter().map(|&id| characters[id as usize]).collect(),
                Vocabulary::Pieces(pieces) => pieces.decode(&ids),
            }
        };
        ids.split(|&id| id == mask).map(run).collect::<Vec<_>>().join(MASK)
    }

    /// What each id is to a word: letters, digits and apostrophes make words, a blank in front begins one. None where
    /// an id does not tell.
    pub fn words(&self) -> Option<Vec<Word>> {
        match self {
            Vocabulary::Characters(characters) => Some(characters.iter().map(|c| word(&c.to_string())).collect()),
            Vocabulary::Pieces(pieces) => Some(pieces.behind_a_word()?.iter().map(|text| word(text)).collect()),
        }
    }
}

/// What a text that stands behind a word is to it.
fn word(text: &str) -> Word {
    // Part of a letter that has several bytes is one that stands for an unknown letter.
    if !text.contains(|c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | char::REPLACEMENT_CHARACTER)) {
        Word::Separator
    } else if text.starts_with(char::is_whitespace) {
        Word::Begins
    } else {
        Word::GoesOn
    }
}

/// What a masked token looks like.
const MASK: &str = "▒";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_token_is_shown_and_padding_is_not() {
        let vocabulary = Vocabulary::characters("cab");
        assert_eq!(vocabulary.decode(&[2, 3, 0, -1, 4, -1]), "c▒a");
        assert_eq!(vocabulary.decode(&[3, 3, 1]), "▒▒b");
    }
}
