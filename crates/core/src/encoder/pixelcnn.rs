//! PixelCNN: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016, arXiv 1601.06759,
//! and its gated form: van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016, arXiv
//! 1606.05328.
//!
//! The activation of a pixel depends on the pixels before it: the rows above, and what stands left of it in its own
//! row. Masks are multiplied wherever a weight is used, so that its gradient is masked as well and no optimiser, decay
//! or momentum can bring a masked weight into play.

use super::{Encoder, stages};
use crate::method::Shape;
use crate::precision;
use crate::store::{Init, Path, Role};
use crate::tensor::map_mean;
use anyhow::{Result, bail, ensure};
use tch::{Device, Kind, Tensor};

/// Kernel of the first layer and of the others.
const KERNELS: (i64, i64) = (7, 3);

/// Whether a pixel's own colours may be seen up to the channel's own (B), or only strictly before it (A).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Centre {
    A,
    B,
}

/// 1 where output channel o may look at input channel i of the same pixel, [out, in]. The channels of either side are
/// cut into `colours` equal parts, in the order of the image's: those of red see red, those of green red and green.
fn colours_seen(output: i64, input: i64, colours: i64, centre: Centre) -> Tensor {
    let part = |channels: i64| {
        let parts: Vec<i64> = (0..channels).map(|j| j * colours / channels).collect();
        Tensor::from_slice(&parts)
    };
    let (to, from) = (part(output).unsqueeze(1), part(input).unsqueeze(0));
    let seen = if centre == Centre::A { from.lt_tensor(&to) } else { from.le_tensor(&to) };
    seen.to_kind(Kind::Float)
}

/// A convolution of stride 1 with a mask on its weight.
pub struct MaskedConv {
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    padding: [i64; 2],
}

impl MaskedConv {
    /// PyTorch's initial values, as if there were no mask: uniform on +-1/sqrt(in kh kw). `mask` [out, in, kh, kw].
    fn new(path: &Path, mask: &Tensor, padding: [i64; 2]) -> MaskedConv {
        let shape = mask.size();
        let bound = Init::Uniform((shape[1..].iter().product::<i64>() as f64).powf(-0.5));
        MaskedConv {
            weight: path.variable("weight", &shape, Role::Weight, bound),
            bias: path.variable("bias", &shape[..1], Role::NoDecay, bound),
            mask: mask.to_device(path.device()),
            padding,
        }
    }

    /// 1 x 1, in which a channel sees the colours up to its own.
    pub fn pointwise(path: &Path, input: i64, output: i64, colours: i64) -> MaskedConv {
        let mask = colours_seen(output, input, colours, Centre::B);
        MaskedConv::new(path, &mask.view([output, input, 1, 1]), [0, 0])
    }

    /// k x k, without the rows below and what stands right of the centre.
    fn square(path: &Path, input: i64, output: i64, k: i64, colours: i64, centre: Centre) -> MaskedConv {
        let mask = Tensor::zeros([output, input, k, k], (Kind::Float, Device::Cpu));
        let _ = mask.narrow(2, 0, k / 2).fill_(1.0);
        let _ = mask.select(2, k / 2).narrow(2, 0, k / 2).fill_(1.0);
        mask.select(2, k / 2).select(2, k / 2).copy_(&colours_seen(output, input, colours, centre));
        MaskedConv::new(path, &mask, [k / 2; 2])
    }

    /// [B, in, H, W] -> [B, out, H', W'].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&(&self.weight * &self.mask), Some(&self.bias), [1, 1], self.padding, [1, 1], 1)
    }
}

/// A layer of both stacks (figure 2 of the gated paper). The vertical one sees the rows above, whole; the horizontal
/// one its own row and, through a 1 x 1 convolution, what the vertical one saw. Together they have no blind spot.
struct Gated {
    vertical: MaskedConv,
    to_horizontal: MaskedConv,
    horizontal: MaskedConv,
    output: MaskedConv,
    residual: bool,
}

impl Gated {
    fn new(path: &Path, input: i64, width: i64, k: i64, colours: i64, centre: Centre) -> Gated {
        let ones = |shape: [i64; 4]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        // The kernel of row r covers the rows r - k/2 to r. Pixels of row r itself must not enter (A); later layers
        // read row r of the stack before, which holds nothing of row r of the image (B).
        let rows = ones([2 * width, input, k / 2 + 1, k]);
        if centre == Centre::A {
            let _ = rows.select(2, k / 2).fill_(0.0);
        }
        let columns = ones([2 * width, input, 1, k / 2 + 1]);
        let own = colours_seen(width, input, colours, centre).repeat([2, 1]); // for both halves of the gate
        columns.select(3, k / 2).select(2, 0).copy_(&own);
        let everything = ones([2 * width, 2 * width, 1, 1]);
        Gated {
            vertical: MaskedConv::new(&(path / "vertical"), &rows, [k / 2; 2]),
            to_horizontal: MaskedConv::new(&(path / "vertical_to_horizontal"), &everything, [0, 0]),
            horizontal: MaskedConv::new(&(path / "horizontal"), &columns, [0, k / 2]),
            output: MaskedConv::pointwise(&(path / "output"), width, width, colours),
            residual: centre == Centre::B,
        }
    }

    /// Both stacks one layer on; the last layer of all needs no vertical output.
    fn forward(&self, v: &Tensor, h: &Tensor, last: bool) -> (Option<Tensor>, Tensor) {
        // Padding stands above and below, left and right: the first rows and columns are those that look back.
        let v = self.vertical.forward(v).narrow(2, 0, v.size()[2]);
        let own = self.horizontal.forward(h).narrow(3, 0, h.size()[3]);
        let y = self.output.forward(&gate(&(own + self.to_horizontal.forward(&v))));
        ((!last).then(|| gate(&v)), if self.residual { y + h } else { y })
    }
}

/// tanh of the first half of the channels times the sigmoid of the second (equation 2 of the gated paper).
fn gate(x: &Tensor) -> Tensor {
    let halves = x.chunk(2, 1);
    halves[0].tanh() * halves[1].sigmoid()
}

/// A residual block of the plain network (figure 5 of the first paper): 1 x 1 to half the width, masked 3 x 3, and
/// back.
struct Residual([MaskedConv; 3]);

impl Residual {
    fn new(path: &Path, width: i64, colours: i64) -> Residual {
        let half = width / 2;
        Residual([
            MaskedConv::pointwise(&(path / "narrow"), width, half, colours),
            MaskedConv::square(&(path / "conv"), half, half, KERNELS.1, colours, Centre::B),
            MaskedConv::pointwise(&(path / "widen"), half, width, colours),
        ])
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.0.iter().fold(x.shallow_clone(), |y, conv| conv.forward(&y.relu())) + x
    }
}

enum Layers {
    Gated(Vec<Gated>),
    Plain(MaskedConv, Vec<Residual>),
}

/// PixelCNN without its head: images, or grids of codes, which it embeds first. Features are the mean over positions
/// of the middle layer, since the last ones turn to the next pixel.
pub struct PixelCnn {
    /// [K, D], where it reads codes.
    embedding: Option<Tensor>,
    layers: Layers,
    width: i64,
    grid: i64,
}

impl PixelCnn {
    /// `layers` layers, the first of them with a kernel of 7 and all others of 3.
    ///
    /// # Errors
    /// If the data are series, a sequence fills no square, or the network is too narrow for the image's colours.
    pub fn new(path: &Path, shape: Shape, width: i64, layers: i64, gated: bool) -> Result<PixelCnn> {
        let (colours, input, grid, embedding) = match shape {
            Shape::Image(image) => (image.channels, image.channels, image.size, None),
            Shape::Tokens(tokens) => {
                let grid = (tokens.length as f64).sqrt().round() as i64;
                ensure!(
                    grid * grid == tokens.length,
                    "pixelcnn reads square grids of codes, but the sequences have {} tokens, which fill no square",
                    tokens.length
                );
                let rows = [tokens.vocabulary, width];
                (1, width, grid, Some(path.variable("embedding", &rows, Role::Weight, Init::Normal(1.0))))
            }
            Shape::Series(_) => bail!("pixelcnn reads images or grids of codes, but the data are series"),
        };
        let least = if gated { colours } else { 2 * colours };
        ensure!(
            width >= least,
            "pixelcnn of width {width} is too narrow for images of {colours} channels: choose at least {least}"
        );
        let (first, rest) = KERNELS;
        let layers = if gated {
            let one = |i: i64| {
                let path = path / "layers" / i;
                match i {
                    0 => Gated::new(&path, input, width, first, colours, Centre::A),
                    _ => Gated::new(&path, width, width, rest, colours, Centre::B),
                }
            };
            Layers::Gated((0..layers).map(one).collect())
        } else {
            let stem = MaskedConv::square(&(path / "layers" / 0), input, width, first, colours, Centre::A);
            Layers::Plain(stem, (1..layers).map(|i| Residual::new(&(path / "layers" / i), width, colours)).collect())
        };
        Ok(PixelCnn { embedding, layers, width, grid })
    }

    /// The number of layers.
    pub fn depth(&self) -> usize {
        match &self.layers {
            Layers::Gated(layers) => layers.len(),
            Layers::Plain(_, blocks) => 1 + blocks.len(),
        }
    }

    /// What the first layer reads: images as they are; codes [B, h w] -> [B, D, h, w].
    pub fn embed(&self, x: &Tensor) -> Tensor {
        let Some(rows) = &self.embedding else { return x.shallow_clone() };
        let codes = x.clamp_min(0).view([-1, self.grid, self.grid]);
        Tensor::embedding(rows, &codes, -1, false, false).permute([0, 3, 1, 2])
    }

    /// The (horizontal) activations behind `depth` layers: [B, in, H, W] -> [B, D, H, W] f32. Any height and width.
    pub fn activations(&self, x: &Tensor, depth: usize) -> Tensor {
        let h = precision::network(x.device(), || match &self.layers {
            Layers::Gated(layers) => {
                let (mut v, mut h) = (x.shallow_clone(), x.shallow_clone());
                for (i, layer) in layers[..depth].iter().enumerate() {
                    let (above, y) = layer.forward(&v, &h, i + 1 == depth);
                    (v, h) = (above.unwrap_or(v), y);
                }
                h
            }
            Layers::Plain(stem, blocks) => {
                blocks[..depth - 1].iter().fold(stem.forward(x), |y, block| block.forward(&y))
            }
        });
        h.to_kind(Kind::Float)
    }
}

impl Encoder for PixelCnn {
    fn forward(&self, x: &Tensor, _train: bool) -> Tensor {
        let (x, middle) = (self.embed(x), (self.depth() / 2).max(1));
        if stages::heard() {
            (1..=self.depth()).for_each(|depth| stages::show_map(&self.activations(&x, depth)));
        }
        map_mean(&self.activations(&x, middle))
    }

    fn dim(&self) -> i64 {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn a_masked_convolution_reads_and_learns_what_comes_before_alone() {
        for (centre, own) in [(Centre::A, 0), (Centre::B, 1)] {
            let store = Store::new(0, Device::Cpu);
            let conv = MaskedConv::square(&store.root(), 2, 3, 5, 1, centre);
            let x = Tensor::ones([1, 2, 5, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            conv.forward(&x).select(2, 2).select(2, 2).sum(None).backward();
            for (gradient, rows) in [(x.grad(), 2), (conv.weight.grad(), 6)] {
                let counts =
                    gradient.ne(0.0).reshape([rows, 25]).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
                assert_eq!(counts, Tensor::full([rows], 12 + own, (Kind::Int64, Device::Cpu)));
                assert_eq!(
                    gradient.reshape([rows, 25]).narrow(1, 12 + own, 13 - own).abs().max().double_value(&[]),
                    0.0
                );
            }
        }
    }

    #[test]
    fn colours_see_those_before_them() {
        let three = |centre| colours_seen(3, 6, 3, centre);
        let rows = |rows: [[f32; 6]; 3]| Tensor::from_slice(&rows.concat()).view([3, 6]);
        let a = rows([[0.0; 6], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]);
        let b = rows([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0], [1.0; 6]]);
        assert_eq!((three(Centre::A), three(Centre::B)), (a, b));
    }
}
