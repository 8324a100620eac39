//! Jigsaw against PyTorch and NumPy (`tests/golden.py`), permutation sets, tiles, and what may depend on what.

use super::*;
use permutations::{all, distances, grow};
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::rng::Rng;
use selfsup_core::store::{Store, assign};
use selfsup_core::{Device, no_grad};

/// `wave` of golden.py: sin(1.3 m^2 + phase).
fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn greatest(x: &Tensor) -> f64 {
    number(&x.abs().max())
}

fn any() -> Rng {
    Rng::new(0, Purpose::Sample, 0, 0, 0)
}

fn small() -> Config {
    Config { grid: 2, tile: 12.0 / 14.0, permutations: 24, tile_hidden: 8, hidden: 16, ..Config::default() }
}

fn make(store: &Store, config: Config, channels: i64, size: i64, encoder: &str) -> Result<Jigsaw> {
    Jigsaw::check(&config)?;
    let shape = Shape::Image(ImageShape { channels, size });
    Jigsaw::new(config, &Setup::new(store.root(), encoder.parse()?, shape, 8))
}

fn batch(n: i64, channels: i64, size: i64) -> Batch {
    let x = wave(0.1, &[n, channels, size, size]).to_kind(Kind::Float);
    let params = Tensor::zeros([n, 12], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0)
}

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

/// A puzzle with given numbers and permutations in place of drawn ones.
fn puzzle(method: &Jigsaw, x: &Tensor, uniform: &Tensor, set: &[Vec<u8>]) -> Puzzle {
    let (grid, cells, c) = (method.grid, method.grid.cells(), x.size()[1]);
    let y = (uniform.select(1, 0) * set.len() as f64).floor().to_kind(Kind::Int64);
    let places = grid.offsets(&uniform.narrow(1, 1, 2 * cells).reshape([-1, cells, 2]));
    let set: Vec<i64> = set.concat().into_iter().map(i64::from).collect();
    let orders = Tensor::from_slice(&set).view([-1, cells]).index_select(0, &y);
    let tiles = if method.config.channel_shift > 0.0 {
        let shifts = uniform.narrow(1, 1 + 2 * cells, 2 * cells * c).reshape([-1, cells, c, 2]);
        grid.cut_shifted(x, &places, &grid.shifts(&shifts, method.config.channel_shift))
    } else {
        grid.cut(x, &places)
    };
    Puzzle { tiles, places, y, orders }
}

#[test]
fn loss_and_gradients_are_those_of_pytorch() {
    #[rustfmt::skip]
    let golden = [
    (3, 1, 28, 2, 24, 8, 16, true, 0, 3.183196579, [(1.597419924e-04, 4.963320366e-01), (1.054776529e-01, 1.175901981e+00), (1.243924900e-02, 5.747408948e-01)]),
    (2, 3, 30, 3, 50, 4, 0, true, 0, 4.104768316, [(-3.463610947e-01, 3.041599853e+00), (6.907016211e-02, 4.261372194e+00), (5.636037076e-02, 1.955935792e+00)]),
    (3, 1, 28, 2, 24, 8, 16, false, 0, 3.186256388, [(2.644966367e-03, 4.987586042e-01), (1.011400706e-01, 1.495200063e+00), (1.778013490e-02, 6.696077275e-01)]),
    (2, 3, 30, 3, 50, 4, 0, true, 2, 3.819736538, [(0.000000000e+00, 3.117865205e+00), (9.846486097e-02, 5.270763054e+00), (6.659439794e-02, 2.395978381e+00)]),
    ];
    for (n, c, s, side, permutations, tile_hidden, hidden, normalise, most, loss, gradients) in golden {
        let store = Store::new(0, Device::Cpu);
        let (tile, pixels) = if side == 2 { (12.0 / 14.0, 12.0) } else { (0.9, 9.0) };
        let channel_shift = f64::from(most) / pixels;
        let config =
            Config { grid: side, tile, permutations, tile_hidden, hidden, normalise, channel_shift, ..small() };
        let method = make(&store, config, c, s, "convnet-tiny").expect("a method");
        let mut variables = store.trainable();
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        for (k, v) in variables.iter().enumerate() {
            let one = if v.name.ends_with("bn.weight") { 1.0 } else { 0.0 };
            assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.1 + one));
        }
        let set = grow(&all((side * side) as usize), 5, permutations as usize, Choice::Max, &mut any());
        let columns = 1 + 2 * side * side * if most > 0 { 1 + c } else { 1 };
        let uniform = wave(0.4, &[n, columns]) * 0.499 + 0.5;
        let puzzle = puzzle(&method, &batch(n, c, s).views[0].x, &uniform, &set);
        let total = cross_entropy(&method.solve(&puzzle, true), &puzzle.y);
        // f32 through five batch norms over few rows: five digits of the loss, three of a gradient, whose terms cancel.
        assert!((number(&total) / loss - 1.0).abs() < 1e-5, "{} is not {loss}", number(&total));
        total.backward();
        let names = ["context.0.weight", "encoder.0.conv.weight", "fc6.0.weight"];
        for (name, (second, norm)) in names.into_iter().zip(gradients) {
            let g = variables.iter().find(|v| v.name == name).expect("a variable of that name").tensor.grad();
            assert!((number(&g.norm()) / norm - 1.0).abs() < 1e-3, "{name}: {} is not {norm}", number(&g.norm()));
            assert!((g.flatten(0, -1).double_value(&[1]) - second).abs() < 1e-3 * norm, "{name}");
        }
    }
}

#[test]
fn permutation_sets_are_those_of_numpy() {
    let golden = [
        (4, 24, 5, Choice::Max, vec![3, 0, 2, 1], 6984),
        (4, 8, 0, Choice::Max, vec![3, 2, 0, 1], 792),
        (9, 40, 100_000, Choice::Max, vec![3, 2, 1, 0, 7, 6, 8, 4, 5], 260_109),
        (9, 40, 100_000, Choice::Spread, vec![1, 2, 8, 3, 7, 4, 5, 6, 0], 260_452),
    ];
    for (cells, n, first, choice, last, sum) in golden {
        let set = grow(&all(cells), first, n, choice, &mut any());
        assert_eq!(set[n - 1], last);
        let weighted = set.concat().into_iter().enumerate().map(|(i, entry)| (i + 1) * usize::from(entry));
        assert_eq!(weighted.sum::<usize>(), sum);
    }
}

#[test]
fn permutations_are_different_and_hold_every_tile_once() {
    assert_eq!(all(4).len(), 24);
    for (n, count, choice) in
        [(4, 24, Choice::Max), (9, 100, Choice::Max), (9, 100, Choice::Min), (9, 100, Choice::Spread)]
    {
        let set = choose(n, count, choice, 7);
        assert_eq!(set, choose(n, count, choice, 7), "one seed, one set");
        assert_ne!(set, choose(n, count, choice, 8));
        let different: std::collections::BTreeSet<_> = set.iter().collect();
        assert_eq!(different.len(), count);
        for permutation in &set {
            let mut sorted = permutation.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n as u8).collect::<Vec<_>>());
        }
    }
}

#[test]
fn far_permutations_are_farther_than_random_ones_and_near_ones_nearer() {
    // Two random permutations agree in one entry on average, whatever their length: 8 of 9 differ. By how much the mean
    // over the 4950 pairs of 100 may differ: each distance has variance 1, and pairs with one in common are
    // uncorrelated, so 1 / sqrt(4950) = 0.014.
    let of = |choice| distances(&choose(9, 100, choice, 0));
    let (random, far, near) = (of(Choice::Random), of(Choice::Max), of(Choice::Min));
    assert!((random.0 - 8.0).abs() < 5.0 * 0.0143, "{random:?}");
    assert!(far.0 > 8.0 + 5.0 * 0.0143, "{far:?}");
    assert!(near.0 < 8.0 - 5.0 * 0.0143, "{near:?}");
    // The mean rule says nothing of the nearest two: here two differ as little as two permutations can. The other rule
    // keeps them apart.
    let spread = of(Choice::Spread);
    assert!(far.1 == 2 && spread.1 > far.1, "{far:?} {spread:?}");
}

#[test]
fn a_permutation_and_its_inverse_restore_the_image() {
    for (side, size) in [(2, 28), (3, 36)] {
        let (x, grid) = (wave(0.1, &[4, 3, size, size]), Grid::new(size, side, 1.0));
        let places = grid.offsets(&wave(0.3, &[4, grid.cells(), 2]).abs());
        assert_eq!(greatest(&places), 0.0, "without a gap there is one place");
        let tiles = grid.cut(&x, &places);
        let set: Vec<i64> =
            choose(grid.cells() as usize, 4, Choice::Max, 1).concat().into_iter().map(i64::from).collect();
        let orders = Tensor::from_slice(&set).view([4, -1]);
        let shuffled = shuffle(&tiles, &orders);
        assert_ne!(shuffled, tiles);
        // Place i holds tile pi(i): the label's order is the one that is applied, not its inverse.
        let second = orders.int64_value(&[1, 2]);
        assert_eq!(shuffled.get(1).get(2), tiles.get(1).get(second));
        let back = shuffle(&shuffled, &orders.argsort(-1, false));
        assert_eq!(grid.lay(&back, &places, size), x);
    }
}

#[test]
fn tiles_are_cut_from_their_cells_at_the_places_drawn() {
    let grid = Grid::new(28, 2, 12.0 / 14.0);
    assert_eq!((grid.cell, grid.tile), (14, 12));
    assert_eq!(Grid::new(225, 3, 64.0 / 75.0), Grid { side: 3, cell: 75, tile: 64 });
    let x = wave(0.1, &[2, 3, 28, 28]);
    // 0.999999999 is 1 in f32.
    let uniform =
        Tensor::from_slice(&[0.0, 0.4, 0.34, 0.999_999_999, 0.7, 0.0, 0.5, 0.5].repeat(2)).to_kind(Kind::Float);
    let places = grid.offsets(&uniform.view([2, 4, 2]));
    assert_eq!(places.get(0).flatten(0, -1), Tensor::from_slice(&[0i64, 1, 1, 2, 2, 0, 1, 1]));
    let tiles = grid.cut(&x, &places);
    assert_eq!(tiles.size(), [2, 4, 3, 12, 12]);
    assert_eq!(tiles.get(1).get(1), x.get(1).narrow(1, 1, 12).narrow(2, 14 + 2, 12));
    assert_eq!(tiles.get(0).get(2), x.get(0).narrow(1, 14 + 2, 12).narrow(2, 0, 12));
}

#[test]
fn each_channel_of_a_tile_is_moved_by_its_own_shift_as_far_as_the_image_reaches() {
    let grid = Grid::new(36, 3, 10.0 / 12.0);
    let x = wave(0.1, &[2, 3, 36, 36]);
    let places = grid.offsets(&(wave(0.3, &[2, 9, 2]) * 0.499 + 0.5));
    let uniform = wave(0.7, &[2, 9, 3, 2]) * 0.499 + 0.5;
    // 2 pixels of a tile of 10: -2, -1, 0, 1 and 2 all come up.
    let shifts = grid.shifts(&uniform, 0.2);
    assert_eq!((number(&shifts.min()), number(&shifts.max())), (-2.0, 2.0));
    assert_eq!(shifts.flatten(0, -1).unique_dim(0, true, false, false).0.size(), [5]);
    let tiles = grid.cut_shifted(&x, &places, &shifts);
    let mut clamped = 0;
    for (image, cell, channel) in (0..2).flat_map(|i| (0..9).flat_map(move |j| (0..3).map(move |k| (i, j, k)))) {
        let from = |dimension: i64, cell: i64| {
            let place = places.int64_value(&[image, cell, dimension]);
            let wanted = [cell / 3, cell % 3][dimension as usize] * 12 + place;
            let wanted = wanted + shifts.int64_value(&[image, cell, channel, dimension]);
            let corner = wanted.clamp(0, 36 - 10);
            (corner, corner != wanted)
        };
        let ((row, above), (column, beside)) = (from(0, cell), from(1, cell));
        clamped += i32::from(above || beside);
        let expected = x.get(image).get(channel).narrow(0, row, 10).narrow(1, column, 10);
        assert_eq!(tiles.get(image).get(cell).get(channel), expected, "{image} {cell} {channel}");
    }
    assert!(clamped > 0, "some would have left the image");
    assert_eq!(grid.cut_shifted(&x, &places, &shifts.zeros_like()), grid.cut(&x, &places));
    // The paper's share: 2 of 64 pixels, and of tiles of 15 and less none.
    for (side, most) in [(64, 2.0), (48, 2.0), (16, 1.0), (15, 0.0), (12, 0.0)] {
        let grid = Grid { side: 3, cell: side, tile: side };
        assert_eq!(greatest(&grid.shifts(&uniform, 2.0 / 64.0)), most, "{side}");
    }
}

#[test]
fn colours_are_shifted_and_grey_images_are_not() {
    let config = Config { channel_shift: 0.2, ..small() };
    let method = |config: &Config, channels| {
        let store = Store::new(0, Device::Cpu);
        make(&store, config.clone(), channels, 28, "convnet-tiny").expect("a method")
    };
    let (shifted, plain) = (method(&config, 3), method(&Config { channel_shift: 0.0, ..small() }, 3));
    let views = batch(4, 3, 28);
    let (a, b) = (shifted.puzzle(&views), plain.puzzle(&views));
    assert_eq!((&a.y, &a.places), (&b.y, &b.places), "labels and places are those without shifts");
    for image in 0..4 {
        assert_ne!(a.tiles.get(image), b.tiles.get(image));
        // In every tile some channel moved.
        for tile in 0..4 {
            let moved = |c: i64| a.tiles.get(image).get(tile).get(c) != b.tiles.get(image).get(tile).get(c);
            assert!((0..3).any(moved));
        }
    }
    // Images 1 and 3 were turned grey.
    views.views[0].params.select(1, 9).copy_(&Tensor::from_slice(&[0f32, 1.0, 0.0, 1.0]));
    let c = shifted.puzzle(&views);
    for image in 0..4 {
        let expected = if image % 2 == 1 { &b.tiles } else { &a.tiles };
        assert_eq!(c.tiles.get(image), expected.get(image), "{image}");
    }
    // Of one channel there is nothing to shift, and nothing is drawn for it.
    let grey = batch(4, 1, 28);
    let (a, b) = (method(&config, 1).puzzle(&grey), method(&Config { channel_shift: 0.0, ..small() }, 1).puzzle(&grey));
    assert_eq!((a.tiles, a.y), (b.tiles, b.y));
}

#[test]
fn every_tile_has_mean_zero_and_deviation_one_and_a_flat_one_is_zero() {
    let tiles = wave(0.1, &[2, 4, 3, 12, 12]) * 5.0 + 3.0;
    let t = normalise(&tiles);
    assert!(greatest(&t.mean_dim([-2, -1].as_slice(), false, None)) < 1e-12);
    assert!(greatest(&(t.std_dim([-2, -1].as_slice(), true, false) - 1.0)) < 1e-12);
    // Brightness and contrast of a tile tell nothing.
    assert!(greatest(&(normalise(&(&tiles * 0.5 - 7.0)) - t)) < 1e-12);
    // Rounding of a constant is not blown up to a deviation of 1.
    let flat = Tensor::full([1, 1, 12, 12], -0.81f64, (Kind::Float, Device::Cpu)) + wave(0.1, &[1, 1, 12, 12]) * 1e-7;
    assert!(greatest(&normalise(&flat.to_kind(Kind::Float))) < 1e-6);
}

#[test]
fn no_tile_sees_another_before_fc7() {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, small(), 1, 28, "convnet-tiny").expect("a method");
    let x = batch(3, 1, 28).views[0].x.shallow_clone().set_requires_grad(true);
    let grid = method.grid;
    let places = grid.middle(&Tensor::zeros([3, 4, 2], (Kind::Int64, Device::Cpu)));
    // In evaluation: batch statistics join tiles, as they join images.
    let f = method.encoder.forward(&normalise(&grid.cut(&x, &places)).flatten(0, 1), false).view([3, 4, -1]);
    let loss = f.get(1).get(2).square().sum(None);
    let g = &Tensor::run_backward(&[loss], &[&x], false, false)[0];
    let seen = grid.cut(&g.abs(), &places).sum_dim_intlist([2i64, 3, 4].as_slice(), false, None); // [B, cells]
    let mask = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
    let _ = mask.get(1).get(2).fill_(1.0);
    assert!(seen.double_value(&[1, 2]) > 0.0);
    assert_eq!(greatest(&(&seen * (1.0 - mask))), 0.0);
    // Nor what is in the gaps.
    assert!((number(&g.abs().sum(None)) / seen.double_value(&[1, 2]) - 1.0).abs() < 1e-6);
}

#[test]
fn each_image_has_a_permutation_of_its_own_that_depends_on_it_alone() {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, small(), 1, 28, "convnet-tiny").expect("a method");
    let y = Vec::<i64>::try_from(method.puzzle(&batch(8, 1, 28)).y).expect("labels");
    assert!(y.iter().any(|&label| label != y[0]), "one permutation for a whole batch is wrong");
    let mut one = batch(1, 1, 28);
    one.index = vec![5];
    let puzzle = method.puzzle(&one);
    assert_eq!(puzzle.y.int64_value(&[0]), y[5]);
    assert_eq!(puzzle.orders.get(0), method.permutations.get(y[5]));
    let labels = |epoch| method.puzzle(&Batch { epoch, ..batch(8, 1, 28) }).y;
    assert_ne!(labels(0), labels(1));
    // All labels come up equally often: 24 counts around 1000 within 5 deviations of 31.
    let counts = method.puzzle(&batch_of_labels(24_000)).y.bincount::<Tensor>(None, 24);
    assert!(greatest(&(counts - 1000)) < 155.0);
}

/// Many images of which only the numbers matter.
fn batch_of_labels(n: usize) -> Batch {
    let x = Tensor::zeros([1, 1, 28, 28], (Kind::Float, Device::Cpu)).expand([n as i64, 1, 28, 28], false);
    let params = Tensor::zeros([1, 12], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n).collect(), 0, 0)
}

#[test]
fn a_classifier_of_zeros_costs_the_log_of_the_number_of_permutations() {
    for (hidden, layer) in [(16, "context.1"), (0, "context.0")] {
        let store = Store::new(0, Device::Cpu);
        let mut method = make(&store, Config { hidden, ..small() }, 1, 28, "convnet-tiny").expect("a method");
        store.below(layer).iter().for_each(|v| assign(&v.tensor, &v.tensor.zeros_like()));
        assert!((number(&method.loss(&batch(4, 1, 28), AT).total) - 24f64.ln()).abs() < 1e-6);
    }
}

#[test]
fn everything_is_trained_and_the_set_is_in_the_store() {
    for hidden in [0, 16] {
        let store = Store::new(0, Device::Cpu);
        let mut method = make(&store, Config { hidden, ..small() }, 3, 28, "convnet-tiny").expect("a method");
        method.loss(&batch(6, 3, 28), AT).total.backward();
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
        let saved = store.variables().into_iter().find(|v| v.name == "permutations").expect("a buffer").tensor;
        assert_eq!(saved.size(), [24, 4]);
        // Another set in the store, as a checkpoint of another seed would bring it, is the one in use.
        let old = method.puzzle(&batch(6, 3, 28));
        assign(&saved, &saved.flip([0]));
        let new = method.puzzle(&batch(6, 3, 28));
        assert_eq!(new.y, old.y);
        assert_eq!(new.orders.get(0), saved.get(old.y.int64_value(&[0])));
    }
}

#[test]
fn features_are_of_the_whole_image_normalised_as_a_tile_is() {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, small(), 1, 28, "convnet-tiny").expect("a method");
    let x = batch(3, 1, 28).views[0].x.shallow_clone();
    let features = method.features(&x, false);
    assert_eq!(features.size(), [3, 128]);
    assert!(greatest(&(method.features(&(&x * 3.0 + 1.0), false) - &features)) < 1e-4 * greatest(&features));
    let plain = make(&Store::new(0, Device::Cpu), Config { normalise: false, ..small() }, 1, 28, "convnet-tiny");
    assert_ne!(plain.expect("a method").features(&x, false), features);
}

#[test]
fn pictures_show_the_tiles_of_each_image() {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, small(), 3, 28, "convnet-tiny").expect("a method");
    let batch = batch(3, 3, 28);
    let rows = no_grad(|| method.pictures(&batch));
    assert_eq!(rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["input", "tiles", "shuffled"]);
    assert!(rows.iter().all(|(_, row)| row.size() == [3, 3, 28, 28]));
    let puzzle = method.puzzle(&batch);
    assert_eq!(method.grid.cut(&rows[1].1, &puzzle.places), puzzle.tiles);
    let shuffled = method.grid.cut(&rows[2].1, &method.grid.middle(&puzzle.places));
    assert_eq!(shuffled, shuffle(&puzzle.tiles, &puzzle.orders));
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let refused = |config: Config, size: i64, encoder: &str| {
        make(&Store::new(0, Device::Cpu), config, 3, size, encoder).err().expect("a refusal").to_string()
    };
    for grid in [0, 1, 4] {
        assert!(refused(Config { grid, ..small() }, 28, "convnet-tiny").starts_with(&format!("grid is {grid}")));
    }
    for tile in [0.0, -0.5, 1.1, f64::NAN] {
        assert!(refused(Config { tile, ..small() }, 28, "convnet-tiny").starts_with("tile is"));
    }
    for permutations in [0, 1, 25] {
        let message = refused(Config { permutations, ..small() }, 28, "convnet-tiny");
        assert!(message.starts_with(&format!("permutations is {permutations}; expected 2 to 24")), "{message}");
    }
    for channel_shift in [-0.1, 1.5, f64::NAN] {
        assert!(refused(Config { channel_shift, ..small() }, 28, "convnet-tiny").starts_with("channel_shift is"));
    }
    assert!(refused(Config { hidden: -1, ..small() }, 28, "convnet-tiny").starts_with("hidden is -1"));
    assert!(refused(Config { tile_hidden: 0, ..small() }, 28, "convnet-tiny").starts_with("tile_hidden is 0"));
    assert!(refused(small(), 28, "vit-micro/4").contains("vit-micro/4"));
    assert!(refused(small(), 16, "convnet-tiny").contains("tiles of 7 pixels"));
}
