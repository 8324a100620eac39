//! Losses that two or more methods share.

use tch::{Kind, Tensor};

/// Softmax cross-entropy with class indices, the mean over rows: logits `[N, K]`, target `[N]` i64. f32, or f64 if that
/// came in.
pub fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    log_softmax(logits).nll_loss(target)
}

/// [`cross_entropy`] of each row: `[N, K]` and `[N]` -> `[N]`.
pub fn cross_entropy_each(logits: &Tensor, target: &Tensor) -> Tensor {
    -log_softmax(logits).gather(-1, &target.unsqueeze(-1), false).squeeze_dim(-1)
}

fn log_softmax(logits: &Tensor) -> Tensor {
    // tch's `cross_entropy_for_logits` computes in f32 whatever comes in.
    logits.log_softmax(-1, if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float })
}

/// The share of rows whose greatest logit is the target's: logits `[N, K]`, target `[N]` i64. Without a graph.
pub fn accuracy(logits: &Tensor, target: &Tensor) -> Tensor {
    accuracy_each(logits, target).mean(None)
}

/// [`accuracy`] of each row, 1 or 0: `[N, K]` and `[N]` -> `[N]` f32.
pub fn accuracy_each(logits: &Tensor, target: &Tensor) -> Tensor {
    logits.detach().argmax(-1, false).eq_tensor(target).to_kind(Kind::Float)
}

/// InfoNCE (van den Oord et al. 2018, equation 4), the mean over anchors, from the similarities of each with its
/// positive, `[N]`, and with its negatives, [N, K]:
///
/// ```text
/// l_i = -log( e^(p_i / t) / (e^(p_i / t) + sum_k e^(n_ik / t)) )
/// ```
///
/// A negative of -inf does not count.
pub fn info_nce(positive: &Tensor, negatives: &Tensor, temperature: f64) -> Tensor {
    info_nce_each(positive, negatives, temperature).mean(None)
}

/// [`info_nce`] of each anchor, l_i: `[..]` and [.., K] -> `[..]`.
pub fn info_nce_each(positive: &Tensor, negatives: &Tensor, temperature: f64) -> Tensor {
    let logits = Tensor::cat(&[&positive.unsqueeze(-1), negatives], -1) / temperature;
    -logits.log_softmax(-1, None).select(-1, 0)
}

/// The symmetric form, in which each side is anchor once: the mean of [`info_nce`] over directions. One alone is
/// [`info_nce`].
pub fn info_nce_symmetric(directions: &[(Tensor, Tensor)], temperature: f64) -> Tensor {
    let losses: Vec<Tensor> = directions.iter().map(|(p, n)| info_nce(p, n, temperature)).collect();
    Tensor::stack(&losses, 0).mean(None)
}

/// The debiased form (Chuang et al. 2020, equation 8), for negatives of which a share `rate` belongs to the anchor's own
/// class, as a random positive does:
///
/// ```text
/// G_i = max( (sum_k e^(n_ik / t) - rate K e^(p_i / t)) / (1 - rate), K e^(-1 / t) )
/// l_i = -log( e^(p_i / t) / (e^(p_i / t) + G_i) )
/// ```
///
/// With a rate of 0 it is [`info_nce`]. Similarities are cosines, at least -1.
pub fn info_nce_debiased(positive: &Tensor, negatives: &Tensor, temperature: f64, rate: f64) -> Tensor {
    let k = negatives.size()[1] as f64;
    let (p, n) = (positive / temperature, negatives / temperature);
    // Everything is divided by the row's largest exponential, so that none overflows and the largest is 1.
    let shift = p.maximum(&n.amax([-1], false)).detach(); // [N]
    let e_p = (&p - &shift).exp();
    let sum = (n - shift.unsqueeze(-1)).exp().sum_dim_intlist([-1].as_slice(), false, None); // [N]
    let floor = k * (-1.0 / temperature - &shift).exp();
    let g = ((sum - rate * k * &e_p) / (1.0 - rate)).maximum(&floor);
    ((e_p + g).log() + shift - p).mean(None)
}

/// v(z) of VICReg (Bardes et al. 2021, equations 1 and 2): how far each column's standard deviation falls short of 1, the
/// mean over columns. 1e-4 stands below the root, whose slope at 0 is infinite.
pub fn variance(z: &Tensor) -> Tensor {
    let missing: Tensor = 1.0 - (z.var_dim([0].as_slice(), true, false) + 1e-4).sqrt();
    missing.relu().mean(None)
}

/// c(z) of VICReg (equations 3 and 4): the sum over ordered pairs of columns of their squared covariance, divided by d.
pub fn covariance(z: &Tensor) -> Tensor {
    let (n, d) = (z.size()[0] as f64, z.size()[1] as f64);
    let z = z - z.mean_dim([0].as_slice(), true, None);
    let c = (z.tr() / (n - 1.0)).matmul(&z).fill_diagonal_(0.0, false); // [d, d]
    c.square().sum(None) / d
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn cosines(phase: f64, shape: &[i64]) -> Tensor {
        let n: i64 = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|m| (1.3 * (m * m) as f64 + phase).sin()).collect();
        Tensor::from_slice(&values).view(shape)
    }

    #[test]
    fn cross_entropy_of_f64_stays_f64_and_of_bf16_is_f32() {
        let (logits, target) = (cosines(0.3, &[2, 3]), Tensor::from_slice(&[2i64, 0]));
        let row = |i: i64, of: i64| {
            let x = |j: i64| logits.double_value(&[i, j]);
            (0..3).map(|j| x(j).exp()).sum::<f64>().ln() - x(of)
        };
        let value = cross_entropy(&logits, &target);
        assert_eq!(value.kind(), Kind::Double);
        assert!((value.double_value(&[]) - (row(0, 2) + row(1, 0)) / 2.0).abs() < 1e-12);
        assert_eq!(cross_entropy(&logits.to_kind(Kind::BFloat16), &target).kind(), Kind::Float);
        let each = Vec::<f64>::try_from(cross_entropy_each(&logits, &target)).expect("rows");
        assert!((each[0] - row(0, 2)).abs() < 1e-12 && (each[1] - row(1, 0)).abs() < 1e-12, "{each:?}");
        assert_eq!(cross_entropy_each(&logits.to_kind(Kind::BFloat16), &target).kind(), Kind::Float);
    }

    #[test]
    fn accuracy_is_the_share_of_greatest_logits_and_has_no_graph() {
        let logits = Tensor::from_slice(&[1f32, 2.0, 0.0, 3.0, -1.0, 2.5, 0.0, 0.0, 9.0]).view([3, 3]);
        let logits = logits.set_requires_grad(true);
        let target = Tensor::from_slice(&[1i64, 2, 2]);
        assert_eq!(Vec::<f32>::try_from(accuracy_each(&logits, &target)).expect("rows"), [1.0, 0.0, 1.0]);
        let share = accuracy(&logits, &target);
        assert!((share.double_value(&[]) - 2.0 / 3.0).abs() < 1e-7 && !share.requires_grad());
    }

    #[test]
    fn equal_similarities_give_the_log_of_their_number() {
        let (p, n) = (cosines(0.1, &[6]), Tensor::zeros([6, 9], (Kind::Double, Device::Cpu)));
        let value = info_nce(&p, &(n + p.unsqueeze(-1)), 0.07).double_value(&[]);
        assert!((value - 10f64.ln()).abs() < 1e-12, "{value}");
    }

    #[test]
    fn the_loss_is_that_of_a_naive_loop() {
        let (p, n, t) = (cosines(0.3, &[4]), cosines(0.7, &[4, 5]), 0.2);
        let row = |i: i64| -> Vec<f64> { (0..5).map(|k| n.double_value(&[i, k])).collect() };
        let e = |x: f64| (x / t).exp();
        let naive = |rate: f64| {
            let one = |i: i64| {
                let p = e(p.double_value(&[i]));
                let sum: f64 = row(i).iter().map(|&x| e(x)).sum();
                let g = ((sum - rate * 5.0 * p) / (1.0 - rate)).max(5.0 * e(-1.0));
                -(p / (p + g)).ln()
            };
            (0..4).map(one).sum::<f64>() / 4.0
        };
        assert!((info_nce(&p, &n, t).double_value(&[]) - naive(0.0)).abs() < 1e-12);
        for rate in [0.0, 0.1, 0.5] {
            assert!((info_nce_debiased(&p, &n, t, rate).double_value(&[]) - naive(rate)).abs() < 1e-12, "{rate}");
        }
    }

    #[test]
    fn the_symmetric_form_is_half_of_either_direction() {
        let pairs = [(0.3, 0.7), (1.1, 0.2)].map(|(p, n)| (cosines(p, &[4]), cosines(n, &[4, 5])));
        let [a, b] = [&pairs[0], &pairs[1]].map(|(p, n)| info_nce(p, n, 0.2).double_value(&[]));
        assert!((info_nce_symmetric(&pairs, 0.2).double_value(&[]) - (a + b) / 2.0).abs() < 1e-12);
        assert_eq!(info_nce_symmetric(&pairs[..1], 0.2).double_value(&[]), a);
        // Cosines of every row of one side with every row of the other: the columns are the other direction, and both
        // cross-entropies of the square matrix, whose diagonal is right, are its two directions.
        let s = cosines(0.4, &[4, 4]) / 0.2;
        let rest = |s: &Tensor| {
            let eye = Tensor::eye(4, (Kind::Bool, Device::Cpu));
            (s.diagonal(0, 0, 1) * 0.2, s.masked_fill(&eye, f64::NEG_INFINITY) * 0.2)
        };
        let right = Tensor::arange(4, (Kind::Int64, Device::Cpu));
        let expected = (cross_entropy(&s, &right) + cross_entropy(&s.tr(), &right)) / 2.0;
        let value = info_nce_symmetric(&[rest(&s), rest(&s.tr())], 0.2);
        assert!((value - expected).abs().double_value(&[]) < 1e-12);
    }

    #[test]
    fn a_masked_negative_does_not_count() {
        let (p, n) = (cosines(0.3, &[4]), cosines(0.7, &[4, 5]));
        let mask = Tensor::full([4, 1], f64::NEG_INFINITY, (Kind::Double, Device::Cpu));
        let masked = info_nce(&p, &Tensor::cat(&[&n, &mask], 1), 0.2);
        assert!((masked - info_nce(&p, &n, 0.2)).abs().double_value(&[]) < 1e-12);
    }

    /// Of cosines, down to a temperature at which exp(2 / t), the largest ratio of two exponentials, is beyond f32.
    #[test]
    fn the_debiased_loss_is_as_exact_in_f32_as_similarities_are() {
        let (p, n) = (cosines(0.3, &[4]), cosines(0.7, &[4, 5]));
        let ends = [(-1.0, 1.0), (1.0, -1.0)].map(|(own, other)| (p.full_like(own), n.full_like(other)));
        for (p, n) in [(p, n)].into_iter().chain(ends) {
            for temperature in [0.5, 0.07, 0.018, 0.01] {
                for rate in [0.0, 0.1] {
                    let of = |kind: Kind| {
                        let inputs = [p.to_kind(kind), n.to_kind(kind)].map(|x| x.detach().set_requires_grad(true));
                        let loss = info_nce_debiased(&inputs[0], &inputs[1], temperature, rate);
                        let gradients = Tensor::run_backward(&[&loss], &[&inputs[0], &inputs[1]], false, false);
                        (loss.double_value(&[]), gradients)
                    };
                    let ((single, slopes), (double, exact)) = (of(Kind::Float), of(Kind::Double));
                    // A similarity over t is rounded by 6e-8 / t, and so are its exponentials, of themselves; a loss of
                    // up to 2 / t and slopes of up to 1 / t are sums of about ten such numbers.
                    let rounding = 10.0 * 6e-8 / temperature;
                    assert!(
                        (single - double).abs() <= rounding * double.max(1.0),
                        "{temperature} {rate}: {single} {double}"
                    );
                    for (slope, exact) in slopes.iter().zip(&exact) {
                        let away = (slope - exact).abs().max().double_value(&[]);
                        assert!(away <= rounding / temperature, "{temperature} {rate}: {away}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_debiased_sum_is_held_above_its_least_value() {
        let (p, n) = (Tensor::from_slice(&[1.0f64]), Tensor::full([1, 3], -1.0, (Kind::Double, Device::Cpu)));
        let expected = (1.0 + 3.0 * (-2.0f64 / 0.5).exp()).ln();
        let value = info_nce_debiased(&p, &n, 0.5, 0.1).double_value(&[]);
        assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
    }
}
