//! Jigsaw: Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", 2016,
//! <https://arxiv.org/abs/1603.09246>.
//!
//! ```text
//! once: a set of N permutations pi_1 .. pi_N of the tiles       (algorithm 1)
//!     the first at random; then, again and again, the one with the greatest mean Hamming distance to those chosen
//! for a batch of images:                                         (section 4)
//!     cut a tile at random out of each cell of a grid, each colour channel of it moved by -2 .. 2 pixels
//!     normalise each tile by its own mean and deviation
//!     draw y uniformly for each image and put its tiles in the order pi_y
//!     f_i = fc6(encoder(tile_i))                                 one tower for all tiles, none sees another
//!     L = cross-entropy(fc8(fc7(f_1 .. f_9)), y)
//! ```
//!
//! Where this departs from the paper:
//! 1. The encoder is the run's, a convolutional one; the paper's is AlexNet with a first stride of 2. Features are its
//!    output for the whole image, normalised as a tile is, so that it sees values as in training.
//! 2. fc6 has a BatchNorm (without weight and bias), as in VISSL's networks (with them), where the authors' code has
//!    dropout behind fc6 and fc7.
//! 3. Colours are jittered too, which the paper does not do.
//! 4. A tile's size is a share of its cell's, and the channels' shift one of the tile's: 64 of 75 and 2 of 64 pixels at
//!    any size of image.

use anyhow::{Result, bail, ensure};
use selfsup_core::augment::{Crop, Jitter, Recipe, param};
use selfsup_core::check::{at_least_one, share};
use selfsup_core::encoder::{Encoder, EncoderConfig};
use selfsup_core::head::{Mlp, MlpStyle};
use selfsup_core::loss::{accuracy, cross_entropy};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup, View};
use selfsup_core::progress::Progress;
use selfsup_core::rng::Purpose;
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

pub mod permutations;
pub mod tiles;

use permutations::{Choice, choose};
use tiles::{Grid, below, normalise, shuffle};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Cells a side: 3 (section 4), or 2, which has 24 permutations in all.
    pub grid: i64,
    /// The side of a tile as a share of its cell's (section 4.2: 64 of 75 pixels); 1: no gap between tiles.
    pub tile: f64,
    /// N, the permutations to be told apart (table 5; 1000 is the authors' code).
    pub permutations: i64,
    /// How far apart they are (table 5).
    pub hamming: Choice,
    /// How far each colour channel of a tile is moved at most, up, down and sideways, as a share of the tile's side
    /// (section 4.2: 2 of 64 pixels), so that chromatic aberration tells nothing of its place; 0: not at all. A view
    /// that is grey stays as it is.
    pub channel_shift: f64,
    /// Whether a tile is normalised by its own mean and deviation (section 4.2).
    pub normalise: bool,
    /// The width of fc6, of each tile (figure 3).
    pub tile_hidden: i64,
    /// The width of fc7, over all tiles (figure 3); 0: there is none (VISSL's ResNet-50).
    pub hidden: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            grid: 3,
            tile: 64.0 / 75.0,
            permutations: 1000,
            hamming: Choice::Max,
            channel_shift: 2.0 / 64.0,
            normalise: true,
            tile_hidden: 512,
            hidden: 4096,
        }
    }
}

pub struct Jigsaw {
    config: Config,
    grid: Grid,
    encoder: Box<dyn Encoder>,
    fc6: Mlp,
    /// fc7 and fc8.
    context: Mlp,
    /// Row y is pi_y, [N, cells] i64. In the store, so that a checkpoint holds what its labels mean.
    permutations: Tensor,
}

impl Method for Jigsaw {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let puzzle = self.puzzle(batch);
        let logits = self.solve(&puzzle, true); // [B, N]
        Loss::new(cross_entropy(&logits, &puzzle.y)).with("accuracy", accuracy(&logits, &puzzle.y))
    }

    /// Section 4.2: the window of 225 of 256 pixels, and what keeps colour from giving a tile's place away.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe {
            crop: Some(Crop { scale: [0.77, 0.77], ratio: [1.0, 1.0] }),
            jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 0.8 }),
            grey: 0.3,
            ..Recipe::default()
        }]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        let x = if self.config.normalise { normalise(x) } else { x.shallow_clone() };
        self.encoder.forward(&x, train)
    }

    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let puzzle = self.puzzle(batch);
        let logits = self.solve(&puzzle, false);
        vec![("accuracy", accuracy(&logits, &puzzle.y)), ("loss", cross_entropy(&logits, &puzzle.y))]
    }

    /// The tiles where they were cut, and in the order in which the network sees them.
    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let (x, puzzle) = (&batch.views[0].x, self.puzzle(batch));
        let size = x.size()[2];
        let shuffled = self.grid.lay(&shuffle(&puzzle.tiles, &puzzle.orders), &self.grid.middle(&puzzle.places), size);
        let tiles = self.grid.lay(&puzzle.tiles, &puzzle.places, size);
        vec![("input", x.shallow_clone()), ("tiles", tiles), ("shuffled", shuffled)]
    }
}

impl Define for Jigsaw {
    const NAME: &'static str = "jigsaw";
    const FAMILY: Family = Family::SelfPrediction;
    const PAPER: &'static str = "Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw \
                                 Puzzles, 2016, https://arxiv.org/abs/1603.09246";
    const MIN_BATCH: usize = 1;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let Config { grid, tile, permutations, hidden, .. } = *config;
        ensure!(
            [2, 3].contains(&grid),
            "grid is {grid}; expected 2 or 3: of 16 tiles there are too many orders to list"
        );
        ensure!(0.0 < tile && tile <= 1.0, "tile is {tile}; expected a share of the cell above 0 and up to 1");
        // Choosing them takes as many passes over all there are.
        let most = (1..=grid * grid).product::<i64>().min(10_000);
        ensure!((2..=most).contains(&permutations), "permutations is {permutations}; expected 2 to {most}");
        share("channel_shift", config.channel_shift)?;
        ensure!(hidden >= 0, "hidden is {hidden}; expected a width, or 0 for no such layer");
        at_least_one("tile_hidden", config.tile_hidden)
    }

    fn new(config: Config, setup: &Setup) -> Result<Jigsaw> {
        let image = setup.image()?;
        let size = image.size as usize;
        ensure!(
            setup.views.iter().all(|view| view.side(size) == size),
            "jigsaw cuts tiles of images of {size} pixels: leave `size` out of `views`"
        );
        if !matches!(setup.encoder, EncoderConfig::ConvNet { .. } | EncoderConfig::ResNet { .. }) {
            bail!(
                "jigsaw trains on tiles and is judged on whole images, which {} cannot both take: choose a \
                 convolutional encoder, such as encoder=convnet-tiny",
                setup.encoder
            );
        }
        let grid = Grid::new(image.size, config.grid, config.tile);
        ensure!(
            grid.tile >= 8,
            "jigsaw: tiles of {} pixels are too small for an encoder: an image of {} pixels has cells of {}; expected \
             tiles of at least 8, by a larger `size`, `grid = 2` or a larger `tile`",
            grid.tile,
            image.size,
            grid.cell
        );
        let path = &setup.path;
        let encoder = setup.build_encoder(&(path / "encoder"))?;
        let Config { tile_hidden, hidden, permutations: n, .. } = config;
        let style = MlpStyle { norm: true, hidden_bias: false, last_bias: true };
        let fc6 = Mlp::with_final_norm(
            &(path / "fc6"),
            &[encoder.dim(), tile_hidden],
            MlpStyle { last_bias: false, ..style },
        );
        let widths = [grid.cells() * tile_hidden, hidden, n];
        let widths = if hidden > 0 { widths.to_vec() } else { vec![widths[0], n] };
        let context =
            Mlp::new(&(path / "context"), &widths, MlpStyle { norm: false, hidden_bias: true, last_bias: true });
        let set = choose(grid.cells() as usize, n as usize, config.hamming, path.seed()).concat();
        let set: Vec<i64> = set.into_iter().map(i64::from).collect();
        let permutations = path.buffer("permutations", &Tensor::from_slice(&set).view([n, grid.cells()]));
        Ok(Jigsaw { config, grid, encoder, fc6, context, permutations })
    }
}

/// The tiles of a batch and the order in which each image's are shown.
struct Puzzle {
    /// [B, cells, C, t, t], in the order of the grid, channels shifted, not normalised.
    tiles: Tensor,
    /// Where each was cut out of its cell, [B, cells, 2] i64.
    places: Tensor,
    /// The permutation's number, `[B]` i64.
    y: Tensor,
    /// The permutation, [B, cells] i64.
    orders: Tensor,
}

impl Jigsaw {
    /// Each image draws places, shifts and a permutation of its own.
    fn puzzle(&self, batch: &Batch) -> Puzzle {
        let (View { x, params }, cells, n) = (&batch.views[0], self.grid.cells(), self.config.permutations);
        let colours = x.size()[1];
        let shifts = if colours > 1 { 2 * cells * colours } else { 0 };
        let uniform = batch.uniform(Purpose::Mask, (1 + 2 * cells + shifts) as usize);
        let y = below(&uniform.select(1, 0), n);
        let places = self.grid.offsets(&uniform.narrow(1, 1, 2 * cells).view([-1, cells, 2]));
        let tiles = if shifts > 0 {
            let shifts = uniform.narrow(1, 1 + 2 * cells, shifts).view([-1, cells, colours, 2]);
            let coloured = param(params, "grey").eq(0.0).to_kind(Kind::Int64).view([-1, 1, 1, 1]);
            let shifts = self.grid.shifts(&shifts, self.config.channel_shift) * coloured;
            self.grid.cut_shifted(x, &places, &shifts)
        } else {
            self.grid.cut(x, &places)
        };
        let orders = self.permutations.index_select(0, &y);
        Puzzle { tiles, places, y, orders }
    }

    /// Logits of the N permutations, [B, N] f32.
    fn solve(&self, puzzle: &Puzzle, train: bool) -> Tensor {
        let tiles = if self.config.normalise { normalise(&puzzle.tiles) } else { puzzle.tiles.shallow_clone() };
        let tiles = shuffle(&tiles, &puzzle.orders);
        let f = self.fc6.forward(&self.encoder.forward(&tiles.flatten(0, 1), train), train).relu(); // [B cells, D']
        self.context.forward(&f.view([puzzle.y.size()[0], -1]), train)
    }
}

#[cfg(test)]
mod tests;
