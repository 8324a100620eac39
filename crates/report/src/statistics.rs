//! What a few seeds say: mean, standard deviation, and the paired difference of two methods with its t interval.

use std::f64::consts::FRAC_2_PI;

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
    let mean = mean(&differences);
    let interval = sd(&differences).map(|sd| {
        let half = t_quantile(0.95, n as u64 - 1) * sd / (n as f64).sqrt();
        (mean - half, mean + half)
    });
    Some(Difference { n, mean, interval })
}
