//! Small tensor operations that tch lacks or that several methods need.

use tch::{Kind, Tensor};

/// The same values with channels last in memory; sizes stay [B, C, H, W].
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// The mean over positions: [B, C, H, W] -> [B, C], f32 whatever came in.
///
/// As a sum that is divided, and not a mean: the gradient of a mean is laid out channels first, and where the map is
/// channels-last what comes before it then reads one against the other, four times as slowly.
pub fn map_mean(map: &Tensor) -> Tensor {
    let positions: i64 = map.size()[2..].iter().product();
    map.permute([0, 2, 3, 1]).sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Float) / positions as f64
}

/// Rows of unit length: x / max(|x|, 1e-12) over the last dimension, as PyTorch's `normalize`. f32 whatever came in.
pub fn normalise(x: &Tensor) -> Tensor {
    let x = if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) };
    let norm = x.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
    &x / norm.clamp_min(1e-12)
}

/// A value of each distribution softmax(logits), by inversion: the first one that is possible and whose cumulative
/// probability is above its u. Logits [.., V], u [..] uniform on [0, 1) -> [..] i64. A value of probability 0 (of a
/// logit of -inf) is never drawn, whatever u was rounded to.
pub fn draw(logits: &Tensor, u: &Tensor) -> Tensor {
    let p = logits.softmax(-1, Kind::Double);
    let cumulative = p.cumsum(-1, Kind::Double);
    // A sum of rounded shares may end beside 1, and a number just below 1 may have been rounded to it.
    let total = cumulative.narrow(-1, -1, 1);
    let level = u.to_kind(Kind::Double).clamp_max(1.0 - 1e-7).unsqueeze(-1) * total;
    let reached = cumulative.gt_tensor(&level).logical_and(&p.gt(0.0));
    reached.to_kind(Kind::Uint8).argmax(-1, false) // the first of equals
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_mean_of_a_map_and_its_gradient_are_those_of_a_mean() {
        // Whole numbers below 8 and 16 positions: all sums and quotients are exact.
        let values = Tensor::arange(2 * 3 * 16, (Kind::Float, Device::Cpu)).remainder(7.0).view([2, 3, 4, 4]);
        let gradient = Tensor::from_slice(&[1f32, -2.0, 4.0, 0.0, 8.0, -1.0]).view([2, 3]);
        for map in [values.copy(), channels_last(&values)].map(|map| map.set_requires_grad(true)) {
            let mean = map_mean(&map);
            assert_eq!(mean, values.mean_dim([2, 3].as_slice(), false, Kind::Float));
            (mean * &gradient).sum(Kind::Float).backward();
            assert_eq!(map.grad(), (&gradient / 16.0).view([2, 3, 1, 1]).expand_as(&values));
        }
        let low = map_mean(&values.to_kind(Kind::BFloat16));
        assert_eq!((low.kind(), low), (Kind::Float, map_mean(&values)));
    }

    #[test]
    fn draws_have_their_probabilities() {
        let p = Tensor::from_slice(&[0.1f32, 0.0, 0.6, 0.3]);
        // The middles of a thousand equal parts: each value gets its share exactly.
        let u = Tensor::arange(1000, (Kind::Float, Device::Cpu)) / 1000.0 + 5e-4;
        let drawn = draw(&p.log().expand([1000, 4], false), &u).bincount(None::<&Tensor>, 4);
        assert_eq!(drawn, Tensor::from_slice(&[100i64, 0, 600, 300]));
        // By inversion: the cumulative probabilities are 0.1, 0.1, 0.7 and 1.
        let at = |u: f32| draw(&p.log(), &Tensor::from(u)).int64_value(&[]);
        assert_eq!([0.0, 0.09, 0.11, 0.69, 0.71, 0.999].map(at), [0, 0, 2, 2, 3, 3]);
    }

    #[test]
    fn what_is_impossible_is_not_drawn_at_either_end() {
        let none = f32::NEG_INFINITY;
        for (logits, first, last) in [
            ([none, 0.0, none, 0.0, none], 1, 3),
            ([none, none, 0.3, none, none], 2, 2),
            ([0.0, -200.0, none, none, none], 0, 0),
        ] {
            let logits = Tensor::from_slice(&logits);
            // 1 is what f32 makes of the greatest numbers below it.
            let at = |u: f32| draw(&logits, &Tensor::from(u)).int64_value(&[]);
            assert_eq!((at(0.0), at(1.0 - f32::EPSILON / 2.0), at(1.0)), (first, last, last));
        }
    }

    #[test]
    fn draws_keep_the_shape_of_their_numbers() {
        let logits = Tensor::zeros([2, 3, 4], (Kind::Float, Device::Cpu));
        let u = Tensor::from_slice(&[0.0f32, 0.3, 0.6, 0.9, 0.1, 0.5]).view([2, 3]);
        assert_eq!(draw(&logits, &u), Tensor::from_slice(&[0i64, 1, 2, 3, 0, 2]).view([2, 3]));
    }
}
