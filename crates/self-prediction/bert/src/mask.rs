//! Which places of a sequence are predicted, and what the encoder sees there.

use selfsup_core::augment::views::PADDING;
use selfsup_core::data::Word;
use selfsup_core::{Device, Kind, Tensor};
use std::ops::Range;

/// How many of `all` tokens or words are chosen: the share, halves rounded to even as in the authors' Python, at least
/// one.
pub fn count(all: usize, ratio: f64) -> usize {
    ((all as f64 * ratio).round_ties_even() as usize).max(1)
}

/// What is chosen as one: words by `kinds`, what each id is to one; separators are not chosen. Without `kinds`, or where
/// there is no word, each token is one.
pub fn words(ids: &[i64], kinds: Option<&[Word]>) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut inside = false;
    for (i, &id) in ids.iter().enumerate() {
        let kind = kinds.map_or(Word::Separator, |kinds| kinds[id as usize]);
        match (words.last_mut(), kind) {
            (_, Word::Separator) => {}
            (Some(word), Word::GoesOn) if inside => word.end = i + 1,
            _ => words.push(i..i + 1),
        }
        inside = kind != Word::Separator;
    }
    if words.is_empty() { (0..ids.len()).map(|i| i..i + 1).collect() } else { words }
}

/// Takes `n` words in the order of their noise, that of their first token: a long one as often as a short one. Where at
/// most `most` places may be chosen (0: any number), words that no longer fit are left out, as the authors' code does;
/// where none fits, the first is taken. The places chosen.
pub fn choose(words: &[Range<usize>], noise: &[f32], mut n: usize, most: usize) -> Vec<usize> {
    let mut order: Vec<&Range<usize>> = words.iter().collect();
    order.sort_by(|a, b| noise[a.start].total_cmp(&noise[b.start]));
    let mut chosen = Vec::new();
    for word in &order {
        if n > 0 && (most == 0 || chosen.len() + word.len() <= most) {
            chosen.extend((*word).clone());
            n -= 1;
        }
    }
    if let (true, Some(first)) = (chosen.is_empty(), order.first()) {
        chosen.extend((*first).clone());
    }
    chosen
}

/// What is chosen, and what stands there.
pub struct Rule<'a> {
    /// What each id is to a word, where words are chosen whole.
    pub words: Option<&'a [Word]>,
    /// The share of tokens, or of words, that is chosen.
    pub ratio: f64,
    /// The most places of a sequence; 0: no bound.
    pub most: i64,
    /// The share of chosen places that show a mask.
    pub masked: f64,
    /// The share of chosen places that show a random token, which may be the original by chance.
    pub random: f64,
    /// V, the id of the mask; those of tokens are below it.
    pub mask_id: i64,
}

/// A masked batch.
pub struct Mask {
    /// [B, T] bool.
    pub chosen: Tensor,
    /// What the encoder sees, [B, T].
    pub input: Tensor,
    /// The original tokens at the chosen places, sequence after sequence, \[M\].
    pub targets: Tensor,
}

impl Mask {
    /// Random numbers for each token: which places, what is shown there, which random token.
    pub const COLUMNS: i64 = 3;

    /// Masks `ids` [B, T] by `noise` [B, 3 T], uniform on [0, 1).
    pub fn new(ids: &Tensor, noise: &Tensor, rule: &Rule) -> Mask {
        let t = ids.size()[1];
        let [place, kind, token] = [0, 1, 2].map(|part: i64| noise.narrow(1, part * t, t));
        let chosen = chosen(ids, &place, rule);
        let random = (token * rule.mask_id as f64).floor().to_kind(Kind::Int64).clamp_max(rule.mask_id - 1);
        let masked = kind.lt(rule.masked);
        let replaced = kind.lt(rule.masked + rule.random).logical_and(&masked.logical_not());
        let input = random.where_self(&chosen.logical_and(&replaced), ids);
        let input = input.masked_fill(&chosen.logical_and(&masked), rule.mask_id);
        let targets = ids.index(&[Some(&chosen)]);
        Mask { chosen, input, targets }
    }
}

/// The chosen places of each sequence: ids [B, T], noise [B, T] -> [B, T] bool. On the host, since words are.
fn chosen(ids: &Tensor, noise: &Tensor, rule: &Rule) -> Tensor {
    let size = ids.size();
    let to_host = |x: &Tensor| x.to_device(Device::Cpu).contiguous().flatten(0, -1);
    let all = Vec::<i64>::try_from(to_host(ids)).expect("ids are whole numbers");
    let noise = Vec::<f32>::try_from(to_host(noise)).expect("noise is f32");
    let mut chosen = vec![0u8; all.len()];
    let t = size[1] as usize;
    for ((row, ids), noise) in chosen.chunks_exact_mut(t).zip(all.chunks_exact(t)).zip(noise.chunks_exact(t)) {
        let length = ids.iter().position(|&id| id == PADDING).unwrap_or(t);
        let words = words(&ids[..length], rule.words);
        let places = choose(&words, noise, count(words.len(), rule.ratio), rule.most as usize);
        places.into_iter().for_each(|place| row[place] = 1);
    }
    Tensor::from_slice(&chosen).view(size.as_slice()).to_kind(Kind::Bool).to_device(ids.device())
}
