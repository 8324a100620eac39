//! Stratified parts of a labelled set, keyed by the seed.

use anyhow::{Result, ensure};
use selfsup_core::rng::{Purpose, Rng};
use std::collections::BTreeMap;

/// What a part is taken for. Each use has its own stream, so that one does not fix the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Use {
    /// The part of the training set on which a probe's hyper-parameters are chosen.
    HeldOut = 0,
    /// The images whose labels fine-tuning may see.
    Labelled = 1,
}

/// The places of a share `fraction` of each class, and of all others, both ascending.
///
/// A class of n images gives `round(fraction n)` of them, but at least one. The order within a class depends on the
/// seed, the use and the class alone: smaller fractions are parts of larger ones, and every method gets the same images.
///
/// # Errors
/// If `fraction` does not lie in (0, 1].
pub fn stratified(labels: &[i64], fraction: f64, seed: u64, purpose: Use) -> Result<(Vec<usize>, Vec<usize>)> {
    ensure!(fraction > 0.0 && fraction <= 1.0, "a fraction of the labels must lie in (0, 1], not {fraction}");
    let mut classes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (place, &label) in labels.iter().enumerate() {
        classes.entry(label).or_default().push(place);
    }
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    for (class, mut places) in classes {
        Rng::new(seed, Purpose::Split, 0, class as u64, purpose as u32).shuffle(&mut places);
        let count = ((fraction * places.len() as f64).round() as usize).max(1);
        chosen.extend(&places[..count]);
        rest.extend(&places[count..]);
    }
    chosen.sort_unstable();
    rest.sort_unstable();
    Ok((chosen, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_gives_its_share_and_at_least_one() {
        let labels: Vec<i64> = (0..1000).map(|i| if i < 3 { 7 } else { i64::from(i % 2) }).collect();
        let (chosen, rest) = stratified(&labels, 0.1, 0, Use::Labelled).expect("valid");
        let count = |class| chosen.iter().filter(|&&i| labels[i] == class).count();
        assert_eq!((count(0), count(1), count(7)), (50, 50, 1));
        let mut all = [chosen.clone(), rest].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn fractions_are_nested_and_seeds_differ() {
        let labels: Vec<i64> = (0..500).map(|i| i % 5).collect();
        let part = |fraction, seed, purpose| stratified(&labels, fraction, seed, purpose).expect("valid").0;
        let (small, large) = (part(0.02, 3, Use::Labelled), part(0.2, 3, Use::Labelled));
        assert!(small.iter().all(|i| large.contains(i)));
        assert_ne!(large, part(0.2, 4, Use::Labelled));
        assert_ne!(large, part(0.2, 3, Use::HeldOut));
        assert_eq!(part(1.0, 3, Use::Labelled).len(), 500);
        assert!(stratified(&labels, 0.0, 0, Use::HeldOut).is_err());
    }
}
