//! What a few seeds say: mean, standard deviation, and differences of two methods with intervals and p-values; corrections
//! for many of them; ranks over many methods.

use anyhow::{Result, ensure};
use std::f64::consts::{FRAC_2_PI, SQRT_2};

/// A score per seed.
pub type Scores = [(u64, f64)];

/// Mean of the values; NaN of none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation with n - 1; none of fewer than two values.
pub fn sd(values: &[f64]) -> Option<f64> {
    let n = values.len();
    let centre = mean(values);
    (n > 1).then(|| (values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt())
}

/// The probability that |T| stays below `t >= 0`, T from Student's t with a whole number of degrees of freedom.
///
/// For whole numbers the integral is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4), so no incomplete beta
/// function is needed.
fn t_inside(t: f64, freedom: u64) -> f64 {
    let theta = (t / (freedom as f64).sqrt()).atan();
    let (sin, cos) = theta.sin_cos();
    // Term k is the one before it times (k - 1) / k times cos^2, k even or odd as the degrees of freedom are not.
    let odd = freedom % 2 == 1;
    let (mut term, mut sum) = if odd { (cos, if freedom > 1 { cos } else { 0.0 }) } else { (1.0, 1.0) };
    let mut k = if odd { 3 } else { 2 };
    while k + 2 <= freedom {
        term *= cos * cos * (k - 1) as f64 / k as f64;
        sum += term;
        k += 2;
    }
    if odd { FRAC_2_PI * (theta + sin * sum) } else { sin * sum }
}

/// The t that |T| does not exceed with probability `inside`: 0.95 and 4 degrees of freedom give 2.776.
///
/// # Panics
/// If `inside` is not between 0 and 1 or there is no degree of freedom.
pub fn t_quantile(inside: f64, freedom: u64) -> f64 {
    assert!(inside > 0.0 && inside < 1.0 && freedom > 0, "a t quantile needs 0 < p < 1 and a degree of freedom");
    let (mut low, mut high) = (0.0, 1.0);
    while t_inside(high, freedom) < inside {
        high *= 2.0;
    }
    // Each step halves the bracket; 200 take it to neighbouring numbers.
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if t_inside(middle, freedom) < inside { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Mean of (first - second) over the seeds that both have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Seeds in common.
    pub n: usize,
    pub mean: f64,
    /// The 95 % interval of the mean by Student's t with n - 1 degrees of freedom; none of one seed.
    pub interval: Option<(f64, f64)>,
    /// The two-sided p-value of the paired t test that there is no difference; none of one seed.
    pub p: Option<f64>,
}

impl Difference {
    /// Whether the interval lies on one side of zero; none where there is no interval.
    pub fn clear(&self) -> Option<bool> {
        self.interval.map(|(low, high)| low > 0.0 || high < 0.0)
    }
}

/// The paired difference of two methods; none if they have no seed in common.
///
/// Pairing by seed removes what the seed does to both (the same split, the same initial encoder), which the difference
/// of two means with their own spreads would keep. The interval is of one comparison: among twenty, one goes astray.
pub fn paired(first: &Scores, second: &Scores) -> Option<Difference> {
    let differences: Vec<f64> = first
        .iter()
        .filter_map(|(seed, a)| second.iter().find(|(other, _)| other == seed).map(|(_, b)| a - b))
        .collect();
    let n = differences.len();
    if n == 0 {
        return None;
    }
    Some(of_differences(&differences))
}

/// The mean of differences, at least one, with its interval and the p-value of the t test that it is 0.
fn of_differences(differences: &[f64]) -> Difference {
    let n = differences.len();
    let mean = mean(differences);
    let Some(sd) = sd(differences) else { return Difference { n, mean, interval: None, p: None } };
    let error = sd / (n as f64).sqrt();
    let half = t_quantile(0.95, n as u64 - 1) * error;
    // Differences that are all alike leave no doubt, but where they are 0 there is nothing to see.
    let p = match (error > 0.0, mean == 0.0) {
        (true, _) => 1.0 - t_inside((mean / error).abs(), n as u64 - 1),
        (false, zero) => f64::from(zero),
    };
    Difference { n, mean, interval: Some((mean - half, mean + half)), p: Some(p) }
}

/// The one-sided p-value of the t test that the mean is `bound` or less: small where it is clearly more. None of fewer
/// than two values, or of one that is not finite. Values that are all alike have no spread to compare with; of them it is
/// the probability that all lie on that side by chance, 2^-n.
pub fn exceeds(values: &[f64], bound: f64) -> Option<f64> {
    if values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let n = values.len();
    let (above, error) = (mean(values) - bound, sd(values)? / (n as f64).sqrt());
    Some(match (error > 0.0, above > 0.0) {
        (true, true) => 0.5 - 0.5 * t_inside(above / error, n as u64 - 1),
        (true, false) => 0.5 + 0.5 * t_inside(-above / error, n as u64 - 1),
        (false, true) => 0.5f64.powi(n as i32),
        (false, false) => 1.0,
    })
}

/// The one-sided p-value that rank correlations over `k` places are those of orders drawn by chance. None of no value or
/// fewer than two places.
///
/// Exact up to ten places where nothing was tied: of n orders of k the sums of squared rank differences D are counted,
/// and a correlation is 1 - 6 D / (k³ - k). Beyond that by the normal distribution, with mean 0 and variance 1 / (k - 1).
pub fn rank_correlation_exceeds_chance(correlations: &[f64], k: usize) -> Option<f64> {
    let n = correlations.len();
    if n == 0 || k < 2 {
        return None;
    }
    if k > 10 {
        return Some(1.0 - normal(mean(correlations) * ((n * (k - 1)) as f64).sqrt()));
    }
    let one = squared_rank_differences(k);
    let mut all = vec![1.0];
    for _ in 0..n {
        let mut sums = vec![0.0; all.len() + one.len() - 1];
        for (i, p) in all.iter().enumerate() {
            one.iter().enumerate().for_each(|(j, q)| sums[i + j] += p * q);
        }
        all = sums;
    }
    let seen = correlations.iter().map(|r| (1.0 - r) * (k * k * k - k) as f64 / 6.0).sum::<f64>();
    // Up to rounding: D is whole.
    Some(all.iter().take((seen + 1e-6).floor() as usize + 1).sum::<f64>().min(1.0))
}

/// The probability of each sum of squared rank differences D = 0, 1, .. between an order of `k` drawn by chance and its
/// like: over the first places of the order, by the set of ranks that they have taken.
fn squared_rank_differences(k: usize) -> Vec<f64> {
    let most = (k * k * k - k) / 3;
    let mut of = vec![vec![0.0; most + 1]; 1 << k];
    of[0][0] = 1.0;
    for taken in 0usize..1 << k {
        let place = taken.count_ones() as usize;
        for rank in (0..k).filter(|rank| taken & 1 << rank == 0) {
            let d = place.abs_diff(rank).pow(2);
            for sum in 0..=most - d {
                of[taken | 1 << rank][sum + d] += of[taken][sum] / (k - place) as f64;
            }
        }
    }
    of.swap_remove((1 << k) - 1)
}

/// The interval that holds the mean of a sample like this one with probability `inside`, by the percentiles of the means
/// of samples drawn from it with replacement: of all of them where there are few (up to six values), else of 20,000 by a
/// fixed sequence. Of one value it is that value. With few values such an interval is too narrow; Student's is not.
///
/// # Panics
/// If there is no value, or `inside` is not between 0 and 1.
pub fn bootstrap(values: &[f64], inside: f64) -> (f64, f64) {
    assert!(!values.is_empty() && inside > 0.0 && inside < 1.0, "a bootstrap needs values and 0 < p < 1");
    let n = values.len();
    let mut means: Vec<f64> = if n <= 6 {
        let drawn = |mut k: usize| (0..n).map(|_| (values[k % n], k /= n).0).sum::<f64>() / n as f64;
        (0..n.pow(n as u32)).map(drawn).collect()
    } else {
        let mut state = 0;
        (0..20_000)
            .map(|_| (0..n).map(|_| values[(next(&mut state) % n as u64) as usize]).sum::<f64>() / n as f64)
            .collect()
    };
    means.sort_by(f64::total_cmp);
    // Linear between order statistics, as numpy's percentiles.
    let quantile = |q: f64| {
        let place = q * (means.len() - 1) as f64;
        let (low, high) = (means[place.floor() as usize], means[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    (quantile((1.0 - inside) / 2.0), quantile((1.0 + inside) / 2.0))
}

/// SplitMix64 (Steele et al. 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The exact two-sided p-value of Wilcoxon's signed rank test that differences lie evenly around 0. Differences of 0 are
/// left out; equal sizes share their rank. With five differences it cannot be below 0.0625.
pub fn wilcoxon(differences: &[f64]) -> f64 {
    let nonzero: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    // Twice the ranks, so that shared ones are whole numbers.
    let twice: Vec<usize> = ranks(&nonzero.iter().map(|d| d.abs()).collect::<Vec<_>>())
        .into_iter()
        .map(|rank| (2.0 * rank).round() as usize)
        .collect();
    let total: usize = twice.iter().sum();
    // How many of the 2^n choices of signs give each sum of positive ranks, as a share.
    let mut share = vec![0.0; total + 1];
    share[0] = 1.0;
    for &rank in &twice {
        for sum in (0..=total).rev() {
            share[sum] = 0.5 * (share[sum] + if sum >= rank { share[sum - rank] } else { 0.0 });
        }
    }
    let positive: usize = nonzero.iter().zip(&twice).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let smaller = positive.min(total - positive);
    (2.0 * share[..=smaller].iter().sum::<f64>()).min(1.0)
}

/// The exact two-sided p-value of McNemar's test that two classifiers err equally often: `only_first` samples are right
/// by the first alone, `only_second` by the second alone.
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let (n, k) = (only_first + only_second, only_first.min(only_second));
    // Terms of the binomial distribution by logarithms: 2^-n is no number for large n.
    let mut log = -(n as f64) * 2f64.ln();
    let mut tail = log.exp();
    for i in 1..=k {
        log += ((n - i + 1) as f64 / i as f64).ln();
        tail += log.exp();
    }
    (2.0 * tail).min(1.0)
}

/// p-values of a family of tests, each corrected by Holm's step-down rule: those below alpha may be called so together,
/// and one of them is wrong with probability alpha at most.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![0.0; p.len()];
    let mut so_far = 0.0f64;
    for (place, &i) in order.iter().enumerate() {
        so_far = so_far.max((p[i] * (p.len() - place) as f64).min(1.0));
        corrected[i] = so_far;
    }
    corrected
}

/// The place of each value in ascending order, from 1; equal values share the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let place = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count() as f64;
        let equal = values.iter().filter(|other| *other == value).count() as f64;
        below + (equal + 1.0) / 2.0
    };
    values.iter().map(place).collect()
}

/// Spearman's rank correlation; none where one side does not vary.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    let (x, y) = (ranks(x), ranks(y));
    let (a, b) = (mean(&x), mean(&y));
    let product = |u: &[f64], v: &[f64], a: f64, b: f64| u.iter().zip(v).map(|(u, v)| (u - a) * (v - b)).sum::<f64>();
    let scale = (product(&x, &x, a, a) * product(&y, &y, b, b)).sqrt();
    (scale > 0.0).then(|| product(&x, &y, a, b) / scale)
}

/// Mean ranks of methods over several comparisons (data sets, seeds), 1 the best, and how far apart two must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// One a method, in the order given.
    pub mean_ranks: Vec<f64>,
    /// Two methods whose mean ranks differ by less are not told apart (Nemenyi's test at 5 %; Demsar 2006, section 3.2.2).
    pub critical_difference: f64,
}

/// Ranks methods by `scores`, of which each comparison has one a method; more is better.
///
/// # Errors
/// If there are fewer than two methods or comparisons, or a comparison lacks a score.
pub fn ranking(scores: &[Vec<f64>]) -> Result<Ranking> {
    let (n, k) = (scores.len(), scores.first().map_or(0, Vec::len));
    ensure!(n >= 2 && k >= 2, "a ranking needs two methods and two comparisons, but has {k} and {n}");
    ensure!(scores.iter().all(|row| row.len() == k), "every comparison must have a score of all {k} methods");
    let mut mean_ranks = vec![0.0; k];
    for row in scores {
        let worst_first: Vec<f64> = row.iter().map(|score| -score).collect();
        mean_ranks.iter_mut().zip(ranks(&worst_first)).for_each(|(sum, rank)| *sum += rank / n as f64);
    }
    let critical_difference = range_quantile(0.95, k) / SQRT_2 * ((k * (k + 1)) as f64 / (6 * n) as f64).sqrt();
    Ok(Ranking { mean_ranks, critical_difference })
}

/// What the range of `k` standard normal numbers does not exceed with probability `inside`: Tukey's studentised range
/// with infinitely many degrees of freedom.
fn range_quantile(inside: f64, k: usize) -> f64 {
    // k Int phi(z) (Phi(z) - Phi(z - q))^(k - 1) dz, by Simpson's rule: smooth, and nothing beyond 9 deviations.
    let within = |q: f64| {
        let (from, to, steps) = (-9.0, 9.0, 2000);
        let width = (to - from) / steps as f64;
        let value = |i: usize| {
            let z = from + width * i as f64;
            let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
            density * (normal(z) - normal(z - q)).powi(k as i32 - 1)
        };
        let weight = |i: usize| {
            if i == 0 || i == steps {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            }
        };
        k as f64 * (0..=steps).map(|i| weight(i) * value(i)).sum::<f64>() * width / 3.0
    };
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if within(middle) < inside { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The probability that a standard normal number is below `z`.
fn normal(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}
