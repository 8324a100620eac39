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
        below(uniform, self.cell - self.tile + 1)
    }

    /// The places in the middle of the cells, [B, cells, 2].
    pub fn middle(&self, like: &Tensor) -> Tensor {
        like.zeros_like() + (self.cell - self.tile) / 2
    }

    /// How far each colour channel of a tile is moved, from numbers on [0, 1): [B, cells, C, 2] -> rows and columns,
    /// i64, from -m to m evenly, where m is `share` of the tile's side.
    pub fn shifts(&self, uniform: &Tensor, share: f64) -> Tensor {
        let most = (self.tile as f64 * share).round() as i64;
        below(uniform, 2 * most + 1) - most
    }

    /// The corners of the tiles in the image: offsets [B, cells, 2] -> rows and columns, [B, cells, 2].
    fn corners(&self, offsets: &Tensor) -> Tensor {
        let cell = Tensor::arange(self.cells(), (Kind::Int64, offsets.device()));
        let cell = Tensor::stack(&[cell.floor_divide_scalar(self.side), cell.remainder(self.side)], 1);
        offsets + cell * self.cell
    }

    /// The pixels of tiles with these corners, places in a row of S S: [.., 2] -> [.., t t].
    fn pixels(&self, corners: &Tensor, size: i64) -> Tensor {
        let run = Tensor::arange(self.tile, (Kind::Int64, corners.device()));
        let (rows, columns) = (corners.select(-1, 0).unsqueeze(-1) + &run, corners.select(-1, 1).unsqueeze(-1) + run);
        (rows.unsqueeze(-1) * size + columns.unsqueeze(-2)).flatten(-2, -1)
    }

    /// The tiles at `offsets`, cell by cell, rows of the grid first: [B, C, S, S] -> [B, cells, C, t, t].
    pub fn cut(&self, x: &Tensor, offsets: &Tensor) -> Tensor {
        self.gather(x, &self.corners(offsets).unsqueeze(2))
    }

    /// The same, each channel moved by its own of `shifts` [B, cells, C, 2], as far as the image reaches.
    pub fn cut_shifted(&self, x: &Tensor, offsets: &Tensor, shifts: &Tensor) -> Tensor {
        let corners = self.corners(offsets).unsqueeze(2) + shifts;
        self.gather(x, &corners.clamp(0, x.size()[2] - self.tile))
    }

    /// What lies at `corners` [B, cells, C or 1, 2].
    fn gather(&self, x: &Tensor, corners: &Tensor) -> Tensor {
        let (b, c, s, _) = x.size4().expect("images are [B, C, S, S]");
        let pixels = self.pixels(corners, s).expand([b, self.cells(), c, self.tile * self.tile], false);
        let tiles = x.reshape([b, c, s * s]).gather(2, &pixels.transpose(1, 2).reshape([b, c, -1]), false);
        tiles.view([b, c, self.cells(), self.tile, self.tile]).transpose(1, 2)
    }

    /// The inverse of [`Grid::cut`]; pixels of no tile are 0: [B, cells, C, t, t] -> [B, C, S, S].
    pub fn lay(&self, tiles: &Tensor, offsets: &Tensor, size: i64) -> Tensor {
        let (b, c) = (tiles.size()[0], tiles.size()[2]);
        let pixels = self.pixels(&self.corners(offsets), size).flatten(1, 2).unsqueeze(1).expand([b, c, -1], false);
        let empty = Tensor::zeros([b, c, size * size], (tiles.kind(), tiles.device()));
        empty.scatter(2, &pixels, &tiles.transpose(1, 2).reshape([b, c, -1])).view([b, c, size, size])
    }
}

/// Whole numbers below `n` from numbers on [0, 1).
pub fn below(uniform: &Tensor, n: i64) -> Tensor {
    // In f32 the greatest number below 1 may have become 1.
    (uniform * n as f64).floor().clamp_max((n - 1) as f64).to_kind(Kind::Int64)
}

/// Tile pi(i) comes to place i: tiles [B, cells, ..], orders [B, cells] i64.
pub fn shuffle(tiles: &Tensor, orders: &Tensor) -> Tensor {
    let mut shape = orders.size();
    shape.resize(tiles.dim(), 1);
    tiles.gather(1, &orders.reshape(shape).expand(tiles.size(), false), false)
}

/// Deviations below it are rounding: a hundredth of what one grey level is to a data set of unit variance.
const FLAT: f64 = 1e-4;

/// Every channel of every picture [.., C, H, W] with mean 0 and unbiased deviation 1. What is flat is only centred:
/// nothing would be left of it but rounding.
pub fn normalise(x: &Tensor) -> Tensor {
    let std = x.std_dim([-2, -1].as_slice(), true, true);
    (x - x.mean_dim([-2, -1].as_slice(), true, None)) / std.where_scalarother(&std.ge(FLAT), 1.0)
}
