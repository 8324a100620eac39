//! Which permutations of the tiles there are to be told apart.

use selfsup_core::rng::{Purpose, Rng, hash_name};
use serde::{Deserialize, Serialize};

/// How the set grows from its first, random permutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The next has the greatest mean Hamming distance to those chosen (algorithm 1).
    Max,
    /// It has the smallest.
    Min,
    /// It has the greatest distance to the nearest of those chosen (an option of the authors' and VISSL's code). By the
    /// mean alone two permutations of a set may be almost equal.
    Spread,
    /// It is any.
    Random,
}

/// All permutations of 0..n in lexicographic order.
pub fn all(n: usize) -> Vec<Vec<u8>> {
    let mut order: Vec<u8> = (0..n as u8).collect();
    let mut list = vec![order.clone()];
    while let Some(i) = (1..n).rev().find(|&i| order[i - 1] < order[i]) {
        let j = (i..n).rev().find(|&j| order[j] > order[i - 1]).expect("entry i is greater");
        order.swap(i - 1, j);
        order[i..].reverse();
        list.push(order.clone());
    }
    list
}

/// `count` different permutations of 0..n, a function of the seed alone.
pub fn choose(n: usize, count: usize, choice: Choice, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(seed, Purpose::Init, 0, hash_name("permutations"), 0);
    let all = all(n);
    let first = rng.below(all.len());
    grow(&all, first, count, choice, &mut rng)
}

/// `count` of `all`, beginning with the one at `first`; of several equally far the first in the list.
pub fn grow(all: &[Vec<u8>], first: usize, count: usize, choice: Choice, rng: &mut Rng) -> Vec<Vec<u8>> {
    assert!(count <= all.len(), "there are only {} permutations", all.len());
    let words: Vec<u64> = all.iter().map(|permutation| word(permutation)).collect();
    let mut rest: Vec<usize> = (0..all.len()).collect();
    // For every permutation, the sum of its distances to those chosen, whose order is that of the mean, or the least.
    let mut distance = vec![if choice == Choice::Spread { u32::MAX } else { 0 }; all.len()];
    let mut place = first;
    let mut chosen = Vec::with_capacity(count);
    loop {
        let new = rest.remove(place);
        chosen.push(all[new].clone());
        if chosen.len() == count {
            return chosen;
        }
        for &i in &rest {
            let new = hamming(words[i], words[new]);
            distance[i] = if choice == Choice::Spread { distance[i].min(new) } else { distance[i] + new };
        }
        let places = 0..rest.len();
        place = match choice {
            // `max_by_key` gives the last of several.
            Choice::Max | Choice::Spread => places.rev().max_by_key(|&p| distance[rest[p]]),
            Choice::Min => places.min_by_key(|&p| distance[rest[p]]),
            Choice::Random => Some(rng.below(rest.len())),
        }
        .expect("fewer are chosen than there are");
    }
}

/// Four bits an entry.
fn word(permutation: &[u8]) -> u64 {
    permutation.iter().fold(0, |word, &entry| word << 4 | u64::from(entry))
}

/// In how many entries two words differ.
fn hamming(a: u64, b: u64) -> u32 {
    let x = a ^ b;
    ((x | x >> 1 | x >> 2 | x >> 3) & 0x1111_1111_1111_1111).count_ones()
}

/// The mean Hamming distance of all pairs of a set, and the smallest.
pub fn distances(set: &[Vec<u8>]) -> (f64, u32) {
    let words: Vec<u64> = set.iter().map(|permutation| word(permutation)).collect();
    let pairs = words.iter().enumerate().flat_map(|(i, &a)| words[..i].iter().map(move |&b| hamming(a, b)));
    let (sum, count, least) =
        pairs.fold((0.0, 0.0, u32::MAX), |(sum, n, least), d| (sum + f64::from(d), n + 1.0, d.min(least)));
    (sum / count, least)
}
