//! Splits that keep the shares of the classes.

use selfsup_core::rng::{Purpose, Rng};

/// Streams of one seed that must not share a shuffle.
const FRACTION: u32 = 0;
const HOLD_OUT: u32 = 1;

/// Rows of each class, in order.
fn rows_of_classes(labels: &[u16]) -> Vec<Vec<usize>> {
    let mut rows = vec![Vec::new(); labels.iter().max().map_or(0, |&most| usize::from(most) + 1)];
    for (row, &label) in labels.iter().enumerate() {
        rows[usize::from(label)].push(row);
    }
    rows
}

/// The rows of each class, shuffled by the class's own stream.
fn shuffled_classes(labels: &[u16], seed: u64, stream: u32) -> impl Iterator<Item = Vec<usize>> {
    rows_of_classes(labels).into_iter().enumerate().map(move |(class, mut rows)| {
        Rng::new(seed, Purpose::Split, 0, class as u64, stream).shuffle(&mut rows);
        rows
    })
}

/// The first `n` rows when the classes take turns: each class gives its first ones, in the order of the rows.
///
/// With `n` a multiple of the number of classes that is the first `n / classes` rows of each; a class that runs out
/// leaves its turns to the others. All rows if there are no more than `n`.
pub fn stratified_first(labels: &[u16], n: usize) -> Vec<usize> {
    let classes = rows_of_classes(labels);
    let longest = classes.iter().map(Vec::len).max().unwrap_or(0);
    let turns = (0..longest).flat_map(|turn| classes.iter().filter_map(move |rows| rows.get(turn).copied()));
    let mut rows: Vec<usize> = turns.take(n).collect();
    rows.sort_unstable();
    rows
}

/// Rows for training with few labels: `fraction` (in 0..=1) of each class, rounded, at least one; sorted.
///
/// With one seed a smaller fraction is contained in a larger one, so 1 % and 10 % differ in size alone.
pub fn stratified_fraction(labels: &[u16], fraction: f64, seed: u64) -> Vec<usize> {
    let mut chosen = Vec::new();
    for rows in shuffled_classes(labels, seed, FRACTION) {
        let n = (fraction.clamp(0.0, 1.0) * rows.len() as f64).round() as usize;
        chosen.extend(&rows[..n.max(1).min(rows.len())]);
    }
    chosen.sort_unstable();
    chosen
}

/// Splits rows in two, (kept, held out): `fraction` (in 0..=1) of each class is held out, rounded.
///
/// Of a class with two rows or more at least one falls on either side; a single row is kept. Both lists are sorted.
/// Another stream than [`stratified_fraction`]'s: the held-out rows say nothing of which rows have labels.
pub fn hold_out(labels: &[u16], fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let (mut kept, mut held) = (Vec::new(), Vec::new());
    for rows in shuffled_classes(labels, seed, HOLD_OUT) {
        let most = rows.len().saturating_sub(1);
        let n = ((fraction.clamp(0.0, 1.0) * rows.len() as f64).round() as usize).max(1).min(most);
        held.extend(&rows[..n]);
        kept.extend(&rows[n..]);
    }
    kept.sort_unstable();
    held.sort_unstable();
    (kept, held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The number of rows of each class among `rows`.
    fn counts(labels: &[u16], rows: &[usize]) -> [usize; 5] {
        let mut counts = [0; 5];
        for &row in rows {
            counts[usize::from(labels[row])] += 1;
        }
        counts
    }

    #[test]
    fn the_first_rows_are_those_of_each_class_in_order() {
        let labels = [1, 0, 1, 1, 0, 2, 0, 1];
        assert_eq!(stratified_first(&labels, 3), [0, 1, 5]);
        assert_eq!(stratified_first(&labels, 5), [0, 1, 2, 4, 5]);
        assert_eq!(stratified_first(&labels, 6), [0, 1, 2, 4, 5, 6]);
        assert_eq!(stratified_first(&labels, 100), (0..8).collect::<Vec<_>>());
        assert_eq!(stratified_first(&[], 3), Vec::<usize>::new());
    }

    #[test]
    fn one_percent_is_ten_of_a_thousand_and_lies_in_ten_percent() {
        let labels: Vec<u16> = (0..5000).map(|row| row % 5).collect();
        let one = stratified_fraction(&labels, 0.01, 3);
        let ten = stratified_fraction(&labels, 0.1, 3);
        assert_eq!((counts(&labels, &one), counts(&labels, &ten)), ([10; 5], [100; 5]));
        assert!(one.iter().all(|row| ten.contains(row)));
        assert_ne!(one, stratified_fraction(&labels, 0.01, 4));
        // The rows are fixed for good: results name the seed only.
        assert_eq!(stratified_fraction(&[0, 0, 0, 0, 1, 1, 1, 1], 0.25, 0), [3, 4]);
    }

    proptest! {
        #[test]
        fn a_fraction_has_each_class(labels in prop::collection::vec(0u16..5, 0..200), fraction in -0.5f64..1.5, seed: u64) {
            let rows = stratified_fraction(&labels, fraction, seed);
            prop_assert!(rows.is_sorted_by(|a, b| a < b));
            let all = counts(&labels, &(0..labels.len()).collect::<Vec<_>>());
            for (chosen, of) in counts(&labels, &rows).into_iter().zip(all) {
                let exact = (fraction.clamp(0.0, 1.0) * of as f64).round() as usize;
                prop_assert_eq!(chosen, exact.max(1).min(of));
            }
        }

        #[test]
        fn hold_out_is_a_partition(labels in prop::collection::vec(0u16..5, 0..200), fraction in -0.5f64..1.5, seed: u64) {
            let (kept, held) = hold_out(&labels, fraction, seed);
            let mut both = [kept.clone(), held.clone()].concat();
            both.sort_unstable();
            prop_assert_eq!(both, (0..labels.len()).collect::<Vec<_>>());
            let (in_kept, in_held) = (counts(&labels, &kept), counts(&labels, &held));
            for class in 0..5 {
                let of = in_kept[class] + in_held[class];
                prop_assert!(of == 0 || in_kept[class] > 0);
                prop_assert!(of < 2 || in_held[class] > 0);
            }
        }
    }
}
