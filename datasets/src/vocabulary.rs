//! Text as token ids and back.

use std::collections::BTreeSet;

/// What token ids stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Characters in the order of their code points.
    Characters(Vec<char>),
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
        }
    }

    /// The text of ids; padding and ids beyond the vocabulary become nothing.
    pub fn decode(&self, ids: &[i64]) -> String {
        match self {
            Vocabulary::Characters(characters) => {
                ids.iter().filter_map(|&id| characters.get(usize::try_from(id).ok()?)).collect()
            }
        }
    }
}
