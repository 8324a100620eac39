//! Text as token ids and back.

use crate::pieces::Pieces;
use std::collections::BTreeSet;

/// What token ids stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Characters in the order of their code points.
    Characters(Vec<char>),
    /// Pieces of words, found by byte-pair encoding.
    Pieces(Pieces),
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
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self {
            Vocabulary::Characters(characters) => {
                text.chars().filter_map(|c| characters.binary_search(&c).ok()).map(|id| id as u32).collect()
            }
            Vocabulary::Pieces(pieces) => pieces.encode(text),
        }
    }

    /// The text of ids. The id behind the last, which stands for a masked token, becomes ▒; padding and other ids beyond
    /// the vocabulary become nothing.
    pub fn decode(&self, ids: &[i64]) -> String {
        let ids = ids.iter().filter_map(|&id| usize::try_from(id).ok());
        let token = |id: usize| match self {
            _ if id == self.len() => Some(MASK.to_string()),
            Vocabulary::Characters(characters) => characters.get(id).map(char::to_string),
            Vocabulary::Pieces(pieces) => pieces.piece(id).map(str::to_string),
        };
        ids.filter_map(token).collect()
    }
}

/// What a masked token looks like.
const MASK: char = '▒';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_token_is_shown_and_padding_is_not() {
        let vocabulary = Vocabulary::characters("cab");
        assert_eq!(vocabulary.decode(&[2, 3, 0, -1, 4, -1]), "c▒a");
    }
}
