//! Byte-pair encoding (Sennrich, Haddow and Birch 2016, arXiv 1508.07909) over characters.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A pair of neighbouring pieces.
type Pair = (u32, u32);

/// Pieces of words: the characters of a text in the order of their code points, then merged pairs in the order in which
/// they were merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    pieces: Vec<String>,
    /// The rank of each merge and the piece it makes.
    merges: BTreeMap<Pair, (usize, u32)>,
}

/// `text` cut into what pieces do not reach across: letters with at most one space before them, other signs likewise,
/// and single blanks. As the regular expression ` ?\p{L}+| ?[^\s\p{L}]+|\s`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let kind = |c: char| if c.is_whitespace() { 0 } else { 1 + usize::from(c.is_alphabetic()) };
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let skipped = if first == ' ' { 1 } else { 0 };
        let run = rest[skipped..].chars().next().map_or(0, kind);
        let end = match run {
            0 => first.len_utf8(),
            _ => rest[skipped..].find(|c| kind(c) != run).map_or(rest.len(), |end| skipped + end),
        };
        let (word, behind) = rest.split_at(end);
        rest = behind;
        Some(word)
    })
}

/// Replaces every `pair` of `word`, from left to right, by `piece`.
fn merge(word: &mut Vec<u32>, pair: Pair, piece: u32) {
    let mut to = 0;
    let mut from = 0;
    while from < word.len() {
        let found = from + 1 < word.len() && (word[from], word[from + 1]) == pair;
        word[to] = if found { piece } else { word[from] };
        from += 1 + usize::from(found);
        to += 1;
    }
    word.truncate(to);
}

/// How often each pair of neighbours occurs in a text whose distinct words are counted.
#[derive(Default)]
struct Corpus {
    /// Each distinct word in pieces, and how often it occurs.
    words: Vec<(Vec<u32>, i64)>,
    counts: HashMap<Pair, i64>,
    /// The words that a pair was ever seen in.
    places: HashMap<Pair, BTreeSet<usize>>,
}

impl Corpus {
    fn new(words: Vec<(Vec<u32>, i64)>) -> Corpus {
        let mut corpus = Corpus { words, ..Corpus::default() };
        (0..corpus.words.len()).for_each(|at| corpus.count(at, 1));
        corpus
    }

    /// Counts the pairs of word `at` in (1) or out (-1).
    fn count(&mut self, at: usize, sign: i64) {
        let (word, occurrences) = &self.words[at];
        for pair in word.windows(2).map(|pair| (pair[0], pair[1])) {
            *self.counts.entry(pair).or_default() += sign * occurrences;
            self.places.entry(pair).or_default().insert(at);
        }
    }

    /// The most frequent pair; of equally frequent ones that with the smaller ids.
    fn best(&self) -> Option<Pair> {
        let occurring = self.counts.iter().filter(|&(_, &count)| count > 0);
        occurring.max_by_key(|&(&pair, &count)| (count, Reverse(pair))).map(|(&pair, _)| pair)
    }

    fn merge(&mut self, pair: Pair, piece: u32) {
        for at in self.places.remove(&pair).unwrap_or_default() {
            self.count(at, -1);
            merge(&mut self.words[at].0, pair, piece);
            self.count(at, 1);
        }
        self.counts.remove(&pair);
    }
}

impl Pieces {
    /// Merges the most frequent pair of neighbours in `text` until there are `size` pieces or no pair is left.
    /// `alphabet` holds all characters that will ever be encoded.
    pub(crate) fn train(text: &str, alphabet: &str, size: usize) -> Pieces {
        let characters: BTreeSet<char> = alphabet.chars().collect();
        let mut pieces: Vec<String> = characters.into_iter().map(String::from).collect();
        let mut ids: HashMap<String, u32> = pieces.iter().cloned().zip(0..).collect();
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        words(text).for_each(|word| *counts.entry(word).or_default() += 1);
        let id = |c: char| ids.get(c.encode_utf8(&mut [0; 4]) as &str).copied();
        let words = counts.into_iter().map(|(word, count)| (word.chars().filter_map(id).collect(), count));
        let mut corpus = Corpus::new(words.collect());
        let mut merges = BTreeMap::new();
        while pieces.len() < size {
            let Some(pair) = corpus.best() else { break };
            let joined = format!("{}{}", pieces[pair.0 as usize], pieces[pair.1 as usize]);
            // Two pairs may make the same piece.
            let piece = *ids.entry(joined.clone()).or_insert_with(|| {
                pieces.push(joined);
                pieces.len() as u32 - 1
            });
            merges.insert(pair, (merges.len(), piece));
            corpus.merge(pair, piece);
        }
        Pieces { pieces, merges }
    }

    /// The number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The ids of `text`; characters that are not known are left out.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut known: HashMap<&str, Vec<u32>> = HashMap::new();
        for word in words(text) {
            ids.extend_from_slice(known.entry(word).or_insert_with(|| self.encode_word(word)));
        }
        ids
    }

    /// Of the pairs in a word the one that was merged first in training is merged first.
    fn encode_word(&self, word: &str) -> Vec<u32> {
        let id = |c: char| {
            let first = self.pieces.partition_point(|piece| piece.chars().count() == 1 && piece.starts_with(|p| p < c));
            self.pieces.get(first).filter(|piece| piece.chars().eq([c])).map(|_| first as u32)
        };
        let mut word: Vec<u32> = word.chars().filter_map(id).collect();
        loop {
            let pairs = word.windows(2).map(|pair| (pair[0], pair[1]));
            let first = pairs.filter_map(|pair| self.merges.get(&pair).map(|&(rank, piece)| (rank, pair, piece))).min();
            let Some((_, pair, piece)) = first else { return word };
            merge(&mut word, pair, piece);
        }
    }

    /// The text of an id.
    pub(crate) fn piece(&self, id: usize) -> Option<&str> {
        self.pieces.get(id).map(String::as_str)
    }
}
