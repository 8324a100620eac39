//! Layers with PyTorch's initial values. tch's own defaults are not PyTorch's (a BatchNorm weight there starts uniform
//! on [0, 1]), so nothing here comes from `tch::nn`.

use crate::group;
use crate::store::{Init, Path, Role};
use tch::Tensor;

/// `y = x W' + b`, W [out, in].
pub struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

impl Linear {
    /// PyTorch's initial values: weight and bias uniform on +-1/sqrt(in).
    pub fn new(path: &Path, input: i64, output: i64, bias: bool) -> Linear {
        Linear::with_init(path, input, output, Init::Uniform((input as f64).powf(-0.5)), bias)
    }

    /// A weight with the given initial values and, if `bias`, a bias uniform on +-1/sqrt(in).
    pub fn with_init(path: &Path, input: i64, output: i64, init: Init, bias: bool) -> Linear {
        let bound = Init::Uniform((input as f64).powf(-0.5));
        Linear {
            weight: path.variable("weight", &[output, input], Role::Weight, init),
            bias: bias.then(|| path.variable("bias", &[output], Role::NoDecay, bound)),
        }
    }

    /// A transformer's layer: weight Xavier-uniform, bias 0 (MAE's code, ViT's).
    pub fn xavier(path: &Path, input: i64, output: i64) -> Linear {
        let bound = (6.0 / (input + output) as f64).sqrt();
        Linear {
            weight: path.variable("weight", &[output, input], Role::Weight, Init::Uniform(bound)),
            bias: Some(path.variable("bias", &[output], Role::NoDecay, Init::Const(0.0))),
        }
    }

    /// GPT-2's and BERT's layer: weight N(0, std), bias 0.
    pub fn normal(path: &Path, input: i64, output: i64, std: f64) -> Linear {
        Linear {
            weight: path.variable("weight", &[output, input], Role::Weight, Init::Normal(std)),
            bias: Some(path.variable("bias", &[output], Role::NoDecay, Init::Const(0.0))),
        }
    }

    /// [.., in] -> [.., out].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// A square convolution, weight [out, in, k, k].
pub struct Conv2d {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// PyTorch's initial values: weight and bias uniform on +-1/sqrt(in k k).
    pub fn new(path: &Path, input: i64, output: i64, kernel: i64, stride: i64, padding: i64, bias: bool) -> Conv2d {
        let bound = Init::Uniform(((input * kernel * kernel) as f64).powf(-0.5));
        Conv2d {
            weight: path.variable("weight", &[output, input, kernel, kernel], Role::Weight, bound),
            bias: bias.then(|| path.variable("bias", &[output], Role::NoDecay, bound)),
            stride,
            padding,
        }
    }

    /// A ResNet's convolution: no bias, weight Kaiming-normal over the fan-out (torchvision's `resnet.py`).
    pub fn kaiming(path: &Path, input: i64, output: i64, kernel: i64, stride: i64, padding: i64) -> Conv2d {
        let std = (2.0 / (output * kernel * kernel) as f64).sqrt();
        let weight = path.variable("weight", &[output, input, kernel, kernel], Role::Weight, Init::Normal(std));
        Conv2d { weight, bias: None, stride, padding }
    }

    /// [B, in, H, W] -> [B, out, H', W'].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, self.bias.as_ref(), [self.stride; 2], [self.padding; 2], [1, 1], 1)
    }
}

/// A square transposed convolution, weight [in, out, k, k]: the sides grow `stride` times where
/// `kernel = stride + 2 padding`.
pub struct ConvTranspose2d {
    pub weight: Tensor,
    pub bias: Tensor,
    stride: i64,
    padding: i64,
}

impl ConvTranspose2d {
    /// PyTorch's initial values: weight and bias uniform on +-1/sqrt(out k k).
    pub fn new(path: &Path, input: i64, output: i64, kernel: i64, stride: i64, padding: i64) -> ConvTranspose2d {
        let bound = Init::Uniform(((output * kernel * kernel) as f64).powf(-0.5));
        ConvTranspose2d {
            weight: path.variable("weight", &[input, output, kernel, kernel], Role::Weight, bound),
            bias: path.variable("bias", &[output], Role::NoDecay, bound),
            stride,
            padding,
        }
    }

    /// [B, in, H, W] -> [B, out, H', W'].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        x.conv_transpose2d(&self.weight, Some(&self.bias), stride, padding, [0, 0], 1, [1, 1])
    }
}

/// The weight of a batch in running statistics.
pub const MOMENTUM: f64 = 0.1;

/// Batch normalisation over [B, C] or [B, C, H, W]: momentum 0.1, eps 1e-5, biased variance in the batch, which is that
/// of all ranks where there are several ([`group::batch_norm`]).
pub struct BatchNorm {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    mean: Tensor,
    variance: Tensor,
}

impl BatchNorm {
    /// Weight 1, bias 0, as in PyTorch.
    pub fn new(path: &Path, channels: i64) -> BatchNorm {
        BatchNorm::with_weight(path, channels, 1.0)
    }

    /// A weight that starts at `weight`; 0 makes the residual block that ends with it start as the identity.
    pub fn with_weight(path: &Path, channels: i64, weight: f64) -> BatchNorm {
        let weight = path.variable("weight", &[channels], Role::NoDecay, Init::Const(weight));
        let bias = path.variable("bias", &[channels], Role::NoDecay, Init::Const(0.0));
        BatchNorm { weight: Some(weight), bias: Some(bias), ..BatchNorm::without_affine(path, channels) }
    }

    /// Neither weight nor bias.
    pub fn without_affine(path: &Path, channels: i64) -> BatchNorm {
        let mean = path.variable("running_mean", &[channels], Role::Buffer, Init::Const(0.0));
        let variance = path.variable("running_var", &[channels], Role::Buffer, Init::Const(1.0));
        BatchNorm { weight: None, bias: None, mean, variance }
    }

    /// In training the batch's statistics normalise and move the running ones, also under `no_grad`, as a momentum
    /// encoder's do; otherwise the running ones normalise.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let (w, b) = (self.weight.as_ref(), self.bias.as_ref());
        if train {
            return group::batch_norm(x, w, b, Some([&self.mean, &self.variance]));
        }
        x.batch_norm(w, b, Some(&self.mean), Some(&self.variance), false, MOMENTUM, 1e-5, true)
    }
}

/// Layer normalisation over the last dimension.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Weight 1, bias 0.
    pub fn new(path: &Path, width: i64, eps: f64) -> LayerNorm {
        LayerNorm {
            weight: path.variable("weight", &[width], Role::NoDecay, Init::Const(1.0)),
            bias: path.variable("bias", &[width], Role::NoDecay, Init::Const(0.0)),
            eps,
        }
    }

    /// [.., width] -> [.., width].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}
