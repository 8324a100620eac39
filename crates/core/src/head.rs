//! Heads that two or more methods put on an encoder.

use crate::layer::{BatchNorm, Linear};
use crate::precision;
use crate::store::Path;
use tch::{Kind, Tensor};

/// Linear layers with ReLU between them: the projector and the predictor of the joint-embedding methods.
pub struct Mlp {
    layers: Vec<(Linear, Option<BatchNorm>)>,
}

/// What stands in and after the layers of an [`Mlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlpStyle {
    /// BatchNorm before every ReLU.
    pub norm: bool,
    /// Biases of the layers before the last.
    pub hidden_bias: bool,
    /// Bias of the last layer.
    pub last_bias: bool,
}

impl Mlp {
    /// Widths from input to output, at least two.
    pub fn new(path: &Path, widths: &[i64], style: MlpStyle) -> Mlp {
        assert!(widths.len() >= 2, "an MLP needs an input and an output width");
        let last = widths.len() - 2;
        let layers = widths.windows(2).enumerate().map(|(i, w)| {
            let (path, hidden) = (path / i, i < last);
            let bias = if hidden { style.hidden_bias } else { style.last_bias };
            let linear = Linear::new(&path, w[0], w[1], bias);
            (linear, (hidden && style.norm).then(|| BatchNorm::new(&(&path / "norm"), w[1])))
        });
        Mlp { layers: layers.collect() }
    }

    /// The same, with a BatchNorm without weight and bias behind the last layer (SimSiam's projector).
    pub fn with_final_norm(path: &Path, widths: &[i64], style: MlpStyle) -> Mlp {
        let mut mlp = Mlp::new(path, widths, style);
        let last = widths.len() - 2;
        mlp.layers[last].1 = Some(BatchNorm::without_affine(&(path / last / "norm"), widths[last + 1]));
        mlp
    }

    /// [B, widths.first] -> [B, widths.last] f32.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        precision::network(x.device(), || {
            let mut x = x.shallow_clone();
            for (i, (linear, norm)) in self.layers.iter().enumerate() {
                x = linear.forward(&x);
                if let Some(norm) = norm {
                    x = norm.forward(&x, train);
                }
                if i + 1 < self.layers.len() {
                    x = x.relu_();
                }
            }
            x.to_kind(Kind::Float)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use tch::Device;

    #[test]
    fn a_final_norm_centres_and_scales_each_column_and_learns_nothing() {
        let store = Store::new(0, Device::Cpu);
        let style = MlpStyle { norm: true, hidden_bias: false, last_bias: false };
        let mlp = Mlp::with_final_norm(&store.root(), &[3, 5, 4], style);
        let values: Vec<f32> = (0..24).map(|m| (1.3 * (m * m) as f64).sin() as f32).collect();
        let y = mlp.forward(&Tensor::from_slice(&values).view([8, 3]), true);
        // 1e-5 is added to variances of about 0.1; sums of 8 numbers round to about 1e-6.
        assert!(y.mean_dim([0].as_slice(), false, Kind::Float).abs().max().double_value(&[]) < 1e-5);
        assert!((y.var_dim([0].as_slice(), false, false) - 1.0).abs().max().double_value(&[]) < 1e-2);
        let trained: Vec<String> = store.trainable().into_iter().map(|v| v.name).collect();
        assert_eq!(trained, ["0.weight", "0.norm.weight", "0.norm.bias", "1.weight"]);
        assert_eq!(store.below("1.norm").len(), 2);
    }
}
