//! Statistics against scipy and numpy (`golden.py`), and against all samples and all signs where these can be counted.

use selfsup_report::statistics::{
    Difference, bootstrap, exceeds, holm, mcnemar, paired, rank_correlation_exceeds_chance, ranking, ranks, sd,
    spearman, t_quantile, wilcoxon,
};

fn close(ours: f64, expected: f64, tolerance: f64) {
    assert!((ours - expected).abs() < tolerance, "{ours} is not {expected}");
}

/// The differences of the paired example.
const D: [f64; 5] = [0.008, 0.001, 0.014, -0.002, 0.011];

#[test]
fn t_and_the_paired_interval_are_scipys() {
    // tests/golden.py. The quantile is bisected to the last bits; 1e-11 leaves room for rounding in sums of 500 terms.
    for (inside, freedom, expected) in [
        (0.95, 1, 12.7062047361747),
        (0.95, 2, 4.30265272974946),
        (0.95, 3, 3.18244630528371),
        (0.95, 4, 2.77644510519779),
        (0.95, 9, 2.2621571627982),
        (0.95, 30, 2.04227245630124),
        (0.99, 7, 3.49948329735049),
        (0.5, 6, 0.717558196491413),
        (0.95, 1000, 1.96233908082641),
    ] {
        let t: f64 = t_quantile(inside, freedom);
        assert!((t / expected - 1.0).abs() < 1e-11, "{inside} {freedom}: {t}");
    }
    let a = [0.861, 0.858, 0.866, 0.849, 0.871];
    let b = [0.853, 0.857, 0.852, 0.851, 0.860];
    assert!((sd(&a).expect("five") - 0.00833666600026654).abs() < 1e-15);
    let by_seed = |v: &[f64]| v.iter().enumerate().map(|(i, v)| (i as u64, *v)).collect::<Vec<_>>();
    let (mut first, second) = (by_seed(&a), by_seed(&b));
    // A seed that only one has does not count, and order does not matter.
    first.insert(0, (99, 0.1));
    first.reverse();
    let Difference { n, mean, interval, p } = paired(&first, &second).expect("common seeds");
    let (low, high) = interval.expect("an interval");
    assert_eq!(n, 5);
    let p = p.expect("a p-value");
    for (ours, scipys) in
        [(p, 0.100630703466891), (mean, 0.0064), (low, -0.00195705364616751), (high, 0.0147570536461675)]
    {
        assert!((ours - scipys).abs() < 1e-14, "{ours} {scipys}");
    }
    assert_eq!(paired(&first, &[(7, 1.0)]), None);
    assert_eq!(paired(&[(1, 0.5)], &[(1, 0.25)]), Some(Difference { n: 1, mean: 0.25, interval: None, p: None }));
    assert_eq!(sd(&[1.0]), None);
}

#[test]
fn one_sided_p_values_are_scipys() {
    close(exceeds(&D, 0.0).expect("five"), 0.0503153517334453, 1e-14);
    close(exceeds(&D, 0.01).expect("five"), 0.851130826102207, 1e-14);
    close(exceeds(&D.map(|d| -d), 0.0).expect("five"), 0.949684648266555, 1e-14);
    assert_eq!(exceeds(&[0.5], 0.0), None);
    assert_eq!((exceeds(&[0.5; 3], 0.25), exceeds(&[0.5; 3], 0.5)), (Some(0.125), Some(1.0)));
    assert_eq!(exceeds(&[0.5, f64::INFINITY], 0.0), None);
}

#[test]
fn equal_differences_leave_no_doubt() {
    let scores = |values: [f64; 3]| values.into_iter().enumerate().map(|(i, v)| (i as u64, v)).collect::<Vec<_>>();
    let (a, b) = (scores([0.5, 0.25, 0.75]), scores([0.25, 0.0, 0.5]));
    assert_eq!(paired(&a, &b).and_then(|d| d.p), Some(0.0));
    assert_eq!(paired(&a, &a).and_then(|d| d.p), Some(1.0));
}

#[test]
fn bootstrap_intervals_are_percentiles_of_the_means_of_samples() {
    // All 5^5 samples, so nothing is drawn: numpy's percentiles to rounding.
    let (low, high) = bootstrap(&D, 0.95);
    close(low, 0.0012, 1e-14);
    close(high, 0.0116, 1e-14);
    assert_eq!(bootstrap(&[0.3], 0.95), (0.3, 0.3));
    // Forty values are drawn from: the bounds have a standard error of about sqrt(0.025 0.975 / 20000) / density, where
    // the means' density at the 2.5 % point is 0.0584 / 0.112; that is 0.0021, and scipy's 200,000 add a third of it.
    let long: Vec<f64> = (0..40).map(|i| f64::from(i).sin()).collect();
    let (low, high) = bootstrap(&long, 0.95);
    close(low, -0.18900301, 4.0 * 0.0023);
    close(high, 0.24690651, 4.0 * 0.0023);
    assert_eq!(bootstrap(&long, 0.95), (low, high));
}

#[test]
fn signed_ranks_are_scipys_and_all_signs_where_it_has_none() {
    close(wilcoxon(&D), 0.1875, 1e-15);
    close(wilcoxon(&[0.1, -0.2, 0.35, 0.4, 0.5, 0.62, -0.05, 0.8]), 0.0546875, 1e-15);
    close(wilcoxon(&[1.0, 1.0, -1.0, 2.0, 2.0, 3.0, -3.0, 4.0, 0.0]), 0.2421875, 1e-15);
    assert_eq!((wilcoxon(&[]), wilcoxon(&[0.0]), wilcoxon(&[1.0])), (1.0, 1.0, 1.0));
    close(wilcoxon(&[1.0, 2.0, 3.0, 4.0, 5.0]), 0.0625, 1e-15);
}

#[test]
fn mcnemar_is_the_exact_binomial_test() {
    for ((b, c), expected) in [
        ((10, 2), 0.03857421875),
        ((3, 3), 1.0),
        ((0, 9), 0.00390625),
        ((700, 620), 0.0296364293253848),
        ((3000, 3200), 0.0114882537708716),
        ((0, 0), 1.0),
    ] {
        // Thousands of logarithms are added, each good to 1e-16 of values up to 4000.
        close(mcnemar(b, c) / expected, 1.0, 1e-9);
        assert_eq!(mcnemar(b, c), mcnemar(c, b));
    }
}

#[test]
fn holm_corrects_in_the_order_of_size() {
    for (ours, expected) in holm(&[0.01, 0.04, 0.03, 0.005, 0.5]).into_iter().zip([0.04, 0.09, 0.09, 0.025, 0.5]) {
        close(ours, expected, 1e-15);
    }
    assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    assert!(holm(&[]).is_empty());
}

#[test]
fn rank_correlation_is_scipys() {
    assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    let of = |x: &[f64], y: &[f64]| spearman(x, y).expect("a correlation");
    close(of(&[1.0, 4.0, 16.0, 64.0, 254.0], &[79.1, 80.0, 80.2, 81.7, 81.0]), 0.9, 1e-15);
    close(of(&[1.0, 2.0, 2.0, 3.0], &[5.0, 7.0, 6.0, 6.0]), 0.5, 1e-15);
    assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
}

#[test]
fn rank_correlations_by_chance_are_those_of_all_orders() {
    let of = |values: &[f64], k: usize| rank_correlation_exceeds_chance(values, k).expect("a probability");
    // Of all orders, counted.
    close(of(&[1.0, 0.5, 1.0, 1.0], 3), 9.0 / 1296.0, 1e-15);
    close(of(&[0.8, 0.4, 1.0], 4), 0.014829282407407407, 1e-15);
    close(of(&[0.3, 0.7], 5), 0.09618055555555556, 1e-14);
    close(of(&[0.6], 6), 87.0 / 720.0, 1e-15);
    close(of(&[-1.0; 3], 4), 1.0, 1e-14);
    // Ten are counted, eleven are not; the normal distribution comes near.
    let (counted, normal) = (of(&[0.3; 4], 10), of(&[0.3; 4], 11));
    assert!((counted - 0.036).abs() < 0.002 && (normal - 0.0289).abs() < 1e-3, "{counted} {normal}");
    assert_eq!(rank_correlation_exceeds_chance(&[], 3), None);
    assert_eq!(rank_correlation_exceeds_chance(&[1.0], 1), None);
}

#[test]
fn ranks_over_methods_have_a_critical_difference() {
    // Studentised ranges of scipy, which integrates to about 1e-9; CD = q / sqrt 2 sqrt(k (k + 1) / 6 n).
    for (k, range) in
        [(2, 2.7718076487), (3, 3.3144931554), (5, 3.85765551038), (10, 4.47412422173), (20, 5.01168879412)]
    {
        let scores: Vec<Vec<f64>> = (0..7).map(|i| (0..k).map(|j| f64::from((i * j) % 5)).collect()).collect();
        let expected = range / 2f64.sqrt() * (f64::from(k * (k + 1)) / 42.0).sqrt();
        close(ranking(&scores).expect("a ranking").critical_difference, expected, 1e-7);
    }
    let found = ranking(&[vec![0.9, 0.8, 0.8], vec![0.7, 0.9, 0.1]]).expect("a ranking");
    assert_eq!(found.mean_ranks, [1.5, 1.75, 2.75]);
    assert!(ranking(&[vec![1.0, 2.0]]).is_err() && ranking(&[vec![1.0, 2.0], vec![1.0]]).is_err());
}
