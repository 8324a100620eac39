//! Tiles of images: one from each cell of a grid, at a place of its own, put into another order.

use selfsup_core::{Kind, Tensor};

/// The grid over images of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Cells a side.
    pub side: i64,
    /// Height and width of a cell.
    pub cell: i64,
    /// Height and width of a tile.
    pub tile: i64,
}

impl Grid {
    /// `share` is the tile's side as a share of the cell's. Pixels that no cell gets are at the right and below.
    pub fn new(size: i64, side: i64, share: f64) -> Grid {
        let cell = size / side;
        Grid { side, cell, tile: ((cell as f64 * share).round() as i64).clamp(1, cell.max(1)) }
    }

    /// The number of cells.
    pub fn cells(&self) -> i64 {
        self.side * self.side
    }

    /// A tile's place inside its cell from numbers on [0, 1): [B, cells, 2] -> rows and columns, i64. The distance of
    /// two neighbours is 0 to 2 (cell - tile).
    pub fn offsets(&self, uniform: &Tensor) -> Tensor {
        let room = self.cell - self.tile;
        // In f32 the greatest number below 1 may have become 1.
        (uniform * (room + 1) as f64).floor().clamp_max(room as f64).to_kind(Kind::Int64)
    }

    /// The places in the middle of the cells, [B, cells, 2].
    pub fn middle(&self, like: &Tensor) -> Tensor {
        like.zeros_like() + (self.cell - self.tile) / 2
    }

    /// The pixels of every tile, places in a row of S S: offsets [B, cells, 2] -> [B, cells, t t].
    fn pixels(&self, offsets: &Tensor, size: i64) -> Tensor {
        let kind = (Kind::Int64, offsets.device());
        let start = |dimension: i64| {
            let cell = Tensor::arange(self.cells(), kind);
            let cell = if dimension == 0 { cell.floor_divide_scalar(self.side) } else { cell.remainder(self.side) };
            (cell * self.cell + offsets.select(2, dimension)).unsqueeze(-1) + Tensor::arange(self.tile, kind)
        };
        let (rows, columns) = (start(0).unsqueeze(-1), start(1).unsqueeze(-2)); // [B, cells, t, 1], [B, cells, 1, t]
        (rows * size + columns).flatten(2, 3)
    }

    /// The tiles at `offsets`, cell by cell, rows of the grid first: [B, C, S, S] -> [B, cells, C, t, t].
    pub fn cut(&self, x: &Tensor, offsets: &Tensor) -> Tensor {
        let (b, c, s, _) = x.size4().expect("images are [B, C, S, S]");
        let pixels = self.pixels(offsets, s).flatten(1, 2).unsqueeze(1).expand([b, c, -1], false);
        let tiles = x.reshape([b, c, s * s]).gather(2, &pixels, false);
        tiles.view([b, c, self.cells(), self.tile, self.tile]).transpose(1, 2)
    }

    /// The inverse of [`Grid::cut`]; pixels of no tile are 0: [B, cells, C, t, t] -> [B, C, S, S].
    pub fn lay(&self, tiles: &Tensor, offsets: &Tensor, size: i64) -> Tensor {
        let (b, c) = (tiles.size()[0], tiles.size()[2]);
        let pixels = self.pixels(offsets, size).flatten(1, 2).unsqueeze(1).expand([b, c, -1], false);
        let empty = Tensor::zeros([b, c, size * size], (tiles.kind(), tiles.device()));
        empty.scatter(2, &pixels, &tiles.transpose(1, 2).reshape([b, c, -1])).view([b, c, size, size])
    }
}

/// Tile pi(i) comes to place i: tiles [B, cells, ..], orders [B, cells] i64.
pub fn shuffle(tiles: &Tensor, orders: &Tensor) -> Tensor {
    let mut shape = orders.size();
    shape.resize(tiles.dim(), 1);
    tiles.gather(1, &orders.reshape(shape).expand(tiles.size(), false), false)
}

/// Deviations below it are rounding: a hundredth of what one grey level is to a data set of unit variance.
const FLAT: f64 = 1e-4;

/// Every channel of every picture [.., C, H, W] with mean 0 and unbiased deviation 1. What is flat is only centred, as
/// in the authors' code: nothing would be left of it but rounding.
pub fn normalise(x: &Tensor) -> Tensor {
    let std = x.std_dim([-2, -1].as_slice(), true, true);
    (x - x.mean_dim([-2, -1].as_slice(), true, None)) / std.where_scalarother(&std.ge(FLAT), 1.0)
}
