//! Gated PixelCNN: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves and Kavukcuoglu, "Conditional Image
//! Generation with PixelCNN Decoders", 2016, <https://arxiv.org/abs/1606.05328>; the plain one with the encoder
//! `pixelcnn-WxL-plain`: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016, arXiv
//! 1601.06759.
//!
//! ```text
//! p(x) = product over i of p(x_i | x_1, .., x_(i-1))             pixels in raster order, red, green, blue in a pixel
//!
//! for a batch of images, each value one of K levels:             (section 2)
//!     v, h = x, x                                                vertical and horizontal stack
//!     for each layer:                                            figure 2
//!         v' = (rows above and own) * v                          first layer: rows above alone
//!         h' = (left and own) * h + 1x1 * v'                     first layer: left alone
//!         v = tanh(v'[first half]) sigmoid(v'[second half])      equation 2
//!         h = h + 1x1 * (tanh(h'[first half]) sigmoid(h'[second half]))      first layer: without h
//!     L = mean over values of -log softmax(1x1 relu(1x1 relu(h)))_(x_i)
//! ```
//!
//! Where this departs from the paper:
//! 1. `levels` may be fewer than 256; bits per dimension are then those of the coarser image.
//! 2. No conditioning on a class: training sees no label.
//! 3. With a `tokenizer` the values are its codes (VQ-VAE, van den Oord et al. 2017, section 3.3), embedded by a table
//!    of this network's own.
//! 4. Features are the mean over positions of the middle layer's horizontal activations. The paper has none.

mod values;

use anyhow::{Result, bail, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::at_least_one;
use selfsup_core::encoder::{Encoder, EncoderConfig, MaskedConv, PixelCnn as Network};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup, Shape};
use selfsup_core::progress::Progress;
use selfsup_core::rng::Purpose;
use selfsup_core::tensor::draw;
use selfsup_core::{Kind, Tensor, no_grad, precision};
use serde::{Deserialize, Serialize};
use values::Values;
pub use values::{quantise, unigram};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// K of an image: the levels that a pixel in [0, 1] is cut into (section 2: 256). Codes have their own K.
    pub levels: i64,
    /// Channels between the two 1 x 1 convolutions of the head.
    pub hidden: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config { levels: 256, hidden: 512 }
    }
}

pub struct PixelCnn {
    encoder: Network,
    head: [MaskedConv; 2],
    values: Values,
}

impl Method for PixelCnn {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let x = self.values.read(&batch.views[0].x); // [B, C, H, W], below K
        let nats = negative_log_likelihood(&self.logits(&x), &x);
        Loss::new(nats.shallow_clone()).with("bits_per_dim", bits(&nats))
    }

    /// The images as they are (section 3).
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::default()]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(&self.values.input(&self.values.read(x)), train)
    }

    /// Beside the bits per dimension those of a model that knows the frequencies of the values alone.
    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = self.values.read(&batch.views[0].x);
        let nats = negative_log_likelihood(&self.logits(&x), &x);
        vec![("bits_per_dim", bits(&nats)), ("bits_per_dim_unigram", bits(&unigram(&x, self.values.count())))]
    }

    /// The images of `batch` as the network reads them, completed from their upper halves, and drawn from nothing.
    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let x = self.values.read(&batch.views[0].x);
        let (_, c, h, w) = x.size4().expect("values are [B, C, H, W]");
        let u = batch.uniform(Purpose::Generate, (2 * c * h * w) as usize).view([-1, 2, c, h, w]);
        let draw = |x: &Tensor, u: Tensor, from: i64| self.values.show(&self.generate(x, &u, from));
        vec![
            ("input", self.values.show(&x)),
            ("completed", draw(&x, u.select(1, 0), h / 2)),
            ("samples", draw(&x.zeros_like(), u.select(1, 1), 0)),
        ]
    }
}

impl Define for PixelCnn {
    const NAME: &'static str = "pixelcnn";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves and Kavukcuoglu, Conditional Image \
                                 Generation with PixelCNN Decoders, 2016, https://arxiv.org/abs/1606.05328";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let Config { levels, hidden } = *config;
        ensure!((2..=256).contains(&levels), "levels is {levels}; expected 2 to 256");
        at_least_one("hidden", hidden)
    }

    fn new(config: Config, setup: &Setup) -> Result<PixelCnn> {
        let EncoderConfig::PixelCnn { width, layers, gated } = setup.encoder else {
            bail!(
                "pixelcnn needs a PixelCNN, but the encoder is {}: choose one, such as encoder=pixelcnn-32x6",
                setup.encoder
            );
        };
        let (values, shape, colours) = match &setup.tokenizer {
            Some(tokenizer) => (Values::Codes(tokenizer.clone()), Shape::Tokens(setup.tokens()?), 1),
            None => {
                let image = setup.image()?;
                let row = |row: &[f32]| Tensor::from_slice(row).view([1, -1, 1, 1]).to_device(setup.path.device());
                let (mean, std) = (row(&setup.normalisation.mean), row(&setup.normalisation.std));
                (Values::Levels { levels: config.levels, mean, std }, setup.shape, image.channels)
            }
        };
        let (hidden, k) = (config.hidden, values.count());
        ensure!(
            hidden >= colours,
            "hidden is {hidden}, but an image has {colours} channels, each with its own part of the head: choose at \
             least {colours}"
        );
        let head = &setup.path / "head";
        Ok(PixelCnn {
            encoder: Network::new(&(&setup.path / "encoder"), shape, width, layers, gated)?,
            head: [
                MaskedConv::pointwise(&(&head / 0), width, hidden, colours),
                MaskedConv::pointwise(&(&head / 1), hidden, colours * k, colours),
            ],
            values,
        })
    }
}

impl PixelCnn {
    /// Logits of every value given those before it: x [B, C, H, W] i64 -> [B, C, K, H, W] f32.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        let (b, c, h, w) = x.size4().expect("values are [B, C, H, W]");
        self.head(&self.activations(x, h)).view([b, c, -1, h, w])
    }

    /// Of the first `rows` rows, which know nothing of those below.
    fn activations(&self, x: &Tensor, rows: i64) -> Tensor {
        let x = self.encoder.embed(&self.values.input(x)).narrow(2, 0, rows);
        self.encoder.activations(&x, self.encoder.depth())
    }

    fn head(&self, h: &Tensor) -> Tensor {
        precision::network(h.device(), || {
            self.head.iter().fold(h.shallow_clone(), |y, conv| conv.forward(&y.relu())).to_kind(Kind::Float)
        })
    }

    /// Draws the values from row `from` on, one after the other, each by its uniform number u [B, C, H, W]; those
    /// above are the ones of x [B, C, H, W].
    pub fn generate(&self, x: &Tensor, u: &Tensor, from: i64) -> Tensor {
        let (b, c, h, w) = x.size4().expect("values are [B, C, H, W]");
        let y = x.copy();
        let _ = y.narrow(2, from, h - from).fill_(0);
        no_grad(|| {
            for (row, column) in (from..h).flat_map(|row| (0..w).map(move |column| (row, column))) {
                for colour in 0..c {
                    let here = |x: &Tensor| x.narrow(2, row, 1).narrow(3, column, 1);
                    let logits = self.head(&here(&self.activations(&y, row + 1))).view([b, c, -1]).select(1, colour);
                    let drawn = draw(&logits, &here(u).select(1, colour).view([b]));
                    here(&y).select(1, colour).copy_(&drawn.view([b, 1, 1]));
                }
            }
        });
        y
    }
}

/// -log p of the values, the mean over all of them: logits [B, C, K, H, W], x [B, C, H, W] i64.
pub fn negative_log_likelihood(logits: &Tensor, x: &Tensor) -> Tensor {
    -logits.log_softmax(2, None).gather(2, &x.unsqueeze(2), false).mean(None)
}

fn bits(nats: &Tensor) -> Tensor {
    nats / std::f64::consts::LN_2
}

#[cfg(test)]
mod tests;
