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
