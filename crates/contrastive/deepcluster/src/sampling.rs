//! The order of version 1's epochs (section 3.3 of the first paper).

use selfsup_core::rng::Rng;

/// Places of images such that every non-empty cluster of `k` comes equally often, N / non-empty + 1 times each: without
/// repetition where the cluster has more members than that, with it where it has not. Shuffled.
pub fn uniform_clusters(assignment: &[i64], k: i64, rng: &mut Rng) -> Vec<usize> {
    let mut members = vec![Vec::new(); k as usize];
    assignment.iter().enumerate().for_each(|(place, &cluster)| members[cluster as usize].push(place));
    members.retain(|of_one| !of_one.is_empty());
    let each = assignment.len() / members.len().max(1) + 1;
    let mut order = Vec::with_capacity(each * members.len());
    for mut of_one in members {
        if of_one.len() > each {
            rng.shuffle(&mut of_one);
            order.extend_from_slice(&of_one[..each]);
        } else {
            order.extend((0..each).map(|_| of_one[rng.below(of_one.len())]));
        }
    }
    rng.shuffle(&mut order);
    order
}
