//! The numbers of SimSiam and what its ablations switch; the defaults are the paper's for ImageNet.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Linear layers of the projector: 3 (section 3), 2 for CIFAR-10 (appendix D).
    pub layers: usize,
    /// Width of the projector's hidden layers (the authors' code: as wide as the encoder's features).
    pub hidden: i64,
    /// D, the width of z and p (section 3).
    pub output: i64,
    /// Hidden width of the predictor, a bottleneck (section 3).
    pub predictor_hidden: i64,
    /// h (section 4.2).
    pub predictor: Predictor,
    /// Whether the predictor's rate stays at its peak (section 4.2, table 1).
    pub fixed_rate: bool,
    /// Whether z is a constant to the gradient (section 4.1).
    pub stop_gradient: bool,
    /// Where the heads have BatchNorm (section 4.4).
    pub norm: Norm,
    /// Whether both halves of equation 4 are used; otherwise L = D(p_1, z_2) (section 4.6).
    pub symmetric: bool,
    /// Pairs of views of an image, over which L is a mean: 2 without `symmetric` is "asymmetric 2x" (section 4.6).
    pub pairs: usize,
    /// D (section 4.5).
    pub similarity: Similarity,
    /// The weight of VICReg's variance term on z (its table 4); 0 leaves it out, as here.
    pub variance: f64,
    /// The weight of its covariance term, the same.
    pub covariance: f64,
}

/// The rows of table 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Predictor {
    /// Linear, BatchNorm, ReLU, linear.
    Mlp,
    /// The identity: p = z.
    None,
    /// The MLP as it is drawn at the start.
    Fixed,
}

/// What D compares directions or distributions by (table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// The negative cosine.
    Cosine,
    /// - softmax(z) . log softmax(p), over the D channels.
    CrossEntropy,
}

/// The rows of table 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Nowhere.
    None,
    /// Behind the hidden layers of both heads.
    Hidden,
    /// There, and without weight and bias behind the projector's last layer.
    Default,
    /// There, and the same behind the predictor's last layer, which does not train.
    All,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            layers: 3,
            hidden: 2048,
            output: 2048,
            predictor_hidden: 512,
            predictor: Predictor::Mlp,
            fixed_rate: true,
            stop_gradient: true,
            norm: Norm::Default,
            symmetric: true,
            pairs: 1,
            similarity: Similarity::Cosine,
            variance: 0.0,
            covariance: 0.0,
        }
    }
}
