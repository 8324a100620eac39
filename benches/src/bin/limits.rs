//! How close a training step comes to what the machine can do, and what of it is not the encoder's:
//! `cargo run --release -p selfsup-benches --bin limits [-- ROUNDS]`.
//!
//! Prints three Markdown tables: the peak of matrix products; per work the milliseconds of a step, of the encoder alone
//! on as many images, and of each part, with the encoder's arithmetic as a share of that peak; and what MAE's step costs
//! by the share of patches that it masks. All are taken in turns; figures are medians over rounds, but the peak is the best of seven. The number of threads
//! is LibTorch's own (one per core) unless OMP_NUM_THREADS says otherwise.

use anyhow::{Context, Result};
use selfsup_benches::normal;
use selfsup_benches::training::Training;
use selfsup_core::encoder::{self, Encoder};
use selfsup_core::method::{ImageShape, Shape};
use selfsup_core::precision::{self, Precision};
use selfsup_core::store::Store;
use selfsup_core::tensor::channels_last;
use selfsup_core::{Device, Kind, Tensor, no_grad, torch_ext};
use std::hint::black_box;
use std::time::Instant;

const BATCH: usize = 128;
const GREY: ImageShape = ImageShape { channels: 1, size: 28 };
const COLOUR: ImageShape = ImageShape { channels: 3, size: 32 };
/// Rows and columns of the matrices whose product is the peak.
const MATRIX: i64 = 3072;

/// Preset, encoder, images, and how many passes over a batch the encoder makes: with a gradient, and without.
const WORKS: [(&str, &str, ImageShape, [usize; 2]); 3] = [
    ("simclr/cpu", "convnet", GREY, [2, 0]),
    ("simclr/cpu", "resnet18-cifar", COLOUR, [2, 0]),
    ("byol/cpu", "resnet18-cifar", COLOUR, [2, 2]),
];

/// Shares of patches that MAE masks.
const MASKED: [f64; 4] = [0.25, 0.5, 0.75, 0.9];

/// Multiplications with an addition that convolutions do to one image in a forward pass.
fn multiply_adds(name: &str, image: ImageShape) -> Result<f64> {
    // Kernel, channels in and out, side of the output.
    let halved = |side: i64| (side + 1) / 2;
    let mut layers = Vec::new();
    if name == "convnet" {
        let (mut side, mut input) = (image.size, image.channels);
        for (output, stride) in [(32, 2), (64, 2), (128, 1), (256, 1)] {
            side = if stride == 2 { halved(side) } else { side };
            layers.push((3, input, output, side));
            input = output;
        }
    } else {
        anyhow::ensure!(name == "resnet18-cifar", "the layers of {name} are not written here");
        layers.push((3, image.channels, 64, image.size));
        let (mut side, mut input) = (image.size, 64);
        for width in [64, 128, 256, 512] {
            if width != 64 {
                side = halved(side);
                layers.push((1, input, width, side));
            }
            layers.push((3, input, width, side));
            layers.extend([(3, width, width, side); 3]);
            input = width;
        }
    }
    Ok(layers
        .iter()
        .map(|&(kernel, input, output, side)| (kernel * kernel * input * output * side * side) as f64)
        .sum())
}

/// The encoder of a work alone, on a pass over a batch.
struct Alone {
    store: Store,
    encoder: Box<dyn Encoder>,
    x: Tensor,
    gradient: Tensor,
    passes: [usize; 2],
}

impl Alone {
    fn new(name: &str, image: ImageShape, passes: [usize; 2]) -> Result<Alone> {
        let store = Store::new(0, Device::Cpu);
        let encoder = encoder::build(&(&store.root() / "encoder"), name.parse()?, Shape::Image(image))?;
        let rows = (passes[0].max(passes[1]) * BATCH) as i64;
        let x = channels_last(&normal(&[rows, image.channels, image.size, image.size], 0));
        let gradient = normal(&[rows, encoder.dim()], 1);
        Ok(Alone { store, encoder, x, gradient, passes })
    }

    fn run(&self) -> Result<()> {
        if self.passes[1] > 0 {
            let _target = black_box(no_grad(|| self.encoder.forward(&self.x, true)));
        }
        let variables: Vec<Tensor> = self.store.trainable().into_iter().map(|v| v.tensor).collect();
        torch_ext::clear_grads(&variables)?;
        (self.encoder.forward(&self.x, true) * &self.gradient).sum(Kind::Float).f_backward()?;
        Ok(())
    }
}

/// Milliseconds of `f`.
fn time<T>(f: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let value = f()?;
    Ok((start.elapsed().as_secs_f64() * 1e3, value))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// GFLOP/s of a matrix product, at its best.
fn peak(precision: Precision) -> Result<f64> {
    let kind = if precision == Precision::Bf16 { Kind::BFloat16 } else { Kind::Float };
    let [a, b] = [0, 1].map(|draw| normal(&[MATRIX, MATRIX], draw).to_kind(kind));
    let _warm = a.matmul(&b);
    let times = (0..7).map(|_| Ok(time(|| Ok(black_box(a.matmul(&b))))?.0)).collect::<Result<Vec<f64>>>()?;
    Ok(2.0 * (MATRIX as f64).powi(3) / times.into_iter().fold(f64::INFINITY, f64::min) / 1e6)
}

/// What is timed of a step, in this order.
const PARTS: [&str; 8] =
    ["step", "encoder", "loss", "backward", "update", "after step", "copy to a tensor", "views, on other threads"];

/// One round of a work: milliseconds of [`PARTS`].
fn round(training: &mut Training, alone: &Alone, batch: usize) -> Result<[f64; PARTS.len()]> {
    let (views, host) = time(|| training.render(batch))?;
    let (copy, _batch) = time(|| Ok(host.to_batch(Device::Cpu)))?;
    let (forward, loss) = time(|| training.loss())?;
    let (zero, ()) = time(|| training.zero_grad())?;
    let (backward, ()) = time(|| Ok(loss.total.f_backward()?))?;
    let (update, ()) = time(|| training.update())?;
    let (after, ()) = time(|| {
        training.after_step();
        Ok(())
    })?;
    let (encoder, ()) = time(|| precision::with(training.config.train.precision, || alone.run()))?;
    let step = copy + forward + zero + backward + update + after;
    Ok([step, encoder, forward, backward, zero + update, after, copy, views])
}

fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(7), |n| n.parse()).context("expected a number of rounds")?;
    torch_ext::init(Device::Cpu)?;
    let precisions = [("f32", Precision::F32), ("bf16", Precision::Bf16)];

    let mut peaks = Vec::new();
    println!("| product of two matrices of {MATRIX} x {MATRIX} | GFLOP/s |\n|---|---:|");
    for (name, precision) in precisions {
        peaks.push(peak(precision)?);
        println!("| {name} | {:.0} |", peaks[peaks.len() - 1]);
    }

    println!("\n| method, encoder, images | precision | {} | outside the encoder | of the peak |", PARTS.join(" | "));
    println!("|---|---|{}---:|---:|", "---:|".repeat(PARTS.len()));
    for (preset, name, image, passes) in WORKS {
        let alone = Alone::new(name, image, passes)?;
        for ((kind, _), peak) in precisions.iter().zip(&peaks) {
            let overrides =
                [format!("encoder={name}"), format!("train.precision={kind}"), format!("train.batch={BATCH}")];
            let mut training = Training::new(preset, image, &overrides.each_ref().map(String::as_str))?;
            let _warm = round(&mut training, &alone, 0)?;
            let times = (0..rounds).map(|i| round(&mut training, &alone, i % 4)).collect::<Result<Vec<_>>>()?;
            let of = |part: usize| median(times.iter().map(|round| round[part]).collect());
            // A gradient costs two more forward passes, that of the images none.
            let passes = (3 * passes[0] + passes[1]) as f64;
            let flop = 2.0 * multiply_adds(name, image)? * BATCH as f64 * passes;
            let cells: Vec<String> = (0..PARTS.len()).map(|part| format!("{:.2}", of(part))).collect();
            println!(
                "| {preset}, {name}, {0} x {0} x {1} | {kind} | {2} | {3:.1} % | {4:.0} % |",
                image.size,
                image.channels,
                cells.join(" | "),
                100.0 * (1.0 - of(1) / of(0)),
                100.0 * flop / of(1) / 1e6 / peak
            );
        }
    }

    println!("\n| MAE masks, of vit-tiny/4 at 32 x 32 | ms a step, bf16 | of the first |\n|---:|---:|---:|");
    let mut trainings = Vec::new();
    for masked in MASKED {
        let overrides = [format!("method.mask_ratio={masked:?}"), format!("train.batch={BATCH}")];
        let overrides = overrides.each_ref().map(String::as_str);
        let fixed = ["encoder=vit-tiny/4", "train.precision=bf16"];
        trainings.push(Training::new("mae/cpu", COLOUR, &[&fixed[..], &overrides].concat())?);
    }
    let mut times = vec![Vec::new(); MASKED.len()];
    for round in 0..=rounds {
        for (training, times) in trainings.iter_mut().zip(&mut times) {
            let (ms, ()) = time(|| training.step())?;
            if round > 0 {
                times.push(ms);
            }
        }
    }
    let whole = median(times[0].clone());
    for (masked, times) in MASKED.iter().zip(times) {
        let ms = median(times);
        println!("| {masked} | {ms:.1} | {:.2} |", ms / whole);
    }
    Ok(())
}
