//! A view on the CPU: u8 pixels in, normalised f32 pixels out, one image at a time on any thread, without LibTorch.
//!
//! Between the two the image lies in planes of f32, one pass over them per operation, each a loop that vectorises.
//! The loops are compiled for AVX2 as well and chosen when the program runs, which makes SimCLR's recipe 1.4 times as
//! fast. The bits of a view do not depend on that choice: products and sums are separate (never fused) and sums over an
//! image are taken in an order written here. Only the blur's weights (`exp`) and the crop's tries (`ln`, `exp`) come
//! from the platform's mathematics, whose last bit may differ between operating systems.

use super::{CropBox, Draw, Operation};
use crate::data::{Image, Normalisation};
use multiversion::multiversion;

/// Buffers that rendering needs, kept between images so that rendering allocates nothing.
#[derive(Default)]
pub struct Scratch {
    planes: Vec<f32>,
    other: Vec<f32>,
    row: Vec<f32>,
    down: Taps,
    across: Taps,
    kernel: Vec<f32>,
}

impl Scratch {
    /// Empty buffers; they grow to what the first image needs.
    pub fn new() -> Scratch {
        Scratch::default()
    }
}

/// Writes the view of `image` that `draw` describes to `out`: `size` x `size` x channels, channels last.
///
/// # Panics
/// If a length does not fit the image or the crop leaves it; [`super::views`] checks what comes from outside.
pub fn render(
    image: &Image,
    draw: &Draw,
    size: usize,
    normalisation: &Normalisation,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    match image.channels {
        1 => render_channels::<1>(image, draw, size, normalisation, out, scratch),
        3 => render_channels::<3>(image, draw, size, normalisation, out, scratch),
        channels => panic!("an image of {channels} channels; views are made of 1 (grey) or 3 (RGB)"),
    }
}

fn render_channels<const C: usize>(
    image: &Image,
    draw: &Draw,
    size: usize,
    normalisation: &Normalisation,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let area = size * size;
    let crop = draw.crop_box(image.height, image.width);
    assert_eq!(image.pixels.len(), image.height * image.width * C, "pixels of the image");
    assert!(crop.top + crop.height <= image.height && crop.left + crop.width <= image.width, "{crop:?} in the image");
    assert!(size > 0 && crop.height > 0 && crop.width > 0, "an empty view or crop");
    assert_eq!(out.len(), area * C, "values of the view");

    let Scratch { planes, other, row, down, across, kernel } = scratch;
    down.set(crop.height, size, false);
    across.set(crop.width, size, draw.flip);
    planes.resize(area * C, 0.0);
    row.resize(crop.width * C, 0.0);
    resample::<C>(&image.pixels, image.width, crop, size, down, across, row, planes);

    if let Some(colour) = &draw.jitter {
        for operation in colour.order {
            let factor = colour.factor(operation);
            match operation {
                Operation::Brightness => brighten(planes, factor),
                Operation::Contrast => {
                    let level = if C == 3 { mean_luma(split(planes)) } else { mean(planes) };
                    blend_level(planes, factor, (1.0 - factor) * level);
                }
                Operation::Saturation if C == 3 => saturate(split_mut(planes), factor),
                Operation::Hue if C == 3 => turn_hue(split_mut(planes), factor),
                Operation::Saturation | Operation::Hue => {}
            }
        }
    }
    if draw.grey && C == 3 {
        turn_grey(split_mut(planes));
    }
    if let Some(sigma) = draw.sigma {
        gaussian(sigma, blur_radius(size), kernel);
        other.resize(area, 0.0);
        row.resize(size + kernel.len() - 1, 0.0);
        for plane in planes.chunks_exact_mut(area) {
            blur(plane, size, kernel, row, other);
        }
    }
    if let Some(threshold) = draw.solarise {
        solarise(planes, threshold);
    }

    let mean: [f32; C] = std::array::from_fn(|c| normalisation.mean[c]);
    let scale: [f32; C] = std::array::from_fn(|c| 1.0 / normalisation.std[c]);
    match C {
        3 => interleave(split(planes), [mean[0], mean[1], mean[2]], [scale[0], scale[1], scale[2]], out),
        _ => normalise(planes, mean[0], scale[0], out),
    }
}

/// The three planes of an RGB image.
fn split(planes: &[f32]) -> [&[f32]; 3] {
    let area = planes.len() / 3;
    let (r, rest) = planes.split_at(area);
    let (g, b) = rest.split_at(area);
    [r, g, b]
}

fn split_mut(planes: &mut [f32]) -> [&mut [f32]; 3] {
    let area = planes.len() / 3;
    let (r, rest) = planes.split_at_mut(area);
    let (g, b) = rest.split_at_mut(area);
    [r, g, b]
}

/// Interpolation along one axis: output i is the sum over k < `count` of `weights[i * count + k]` x input
/// `start[i] + k`.
#[derive(Default)]
struct Taps {
    count: usize,
    start: Vec<usize>,
    weights: Vec<f32>,
}

impl Taps {
    /// The antialiased bilinear filter from `input` to `output` pixels with half-pixel centres: a triangle of half
    /// width 1, widened by the scale when the image shrinks, its weights normalised where the edge cuts it off.
    fn set(&mut self, input: usize, output: usize, flip: bool) {
        let scale = input as f64 / output as f64;
        let support = scale.max(1.0);
        let narrow = 1.0 / support;
        self.count = if input == output { 1 } else { input.min((2.0 * support).ceil() as usize) };
        self.start.resize(output, 0);
        self.weights.resize(output * self.count, 0.0);
        for (i, (start, weights)) in self.start.iter_mut().zip(self.weights.chunks_exact_mut(self.count)).enumerate() {
            let i = if flip { output - 1 - i } else { i };
            if input == output {
                (*start, weights[0]) = (i, 1.0);
                continue;
            }
            // In units of input pixels whose centres are whole numbers.
            let centre = (i as f64 + 0.5) * scale - 0.5;
            // The cast sends what is left of the image to 0.
            *start = ((centre - support + 1.0) as usize).min(input - self.count);
            let mut distance = *start as f64 - centre;
            let mut total = 0.0;
            for weight in weights.iter_mut() {
                let value = (1.0 - distance.abs() * narrow).max(0.0);
                *weight = value as f32;
                total += value;
                distance += 1.0;
            }
            let total = (1.0 / total) as f32;
            weights.iter_mut().for_each(|weight| *weight *= total);
        }
    }
}

/// The crop of `pixels`, resized to `size` x `size` planes of values in [0, 1].
#[multiversion(targets("x86_64+avx2"))]
#[allow(clippy::too_many_arguments)]
fn resample<const C: usize>(
    pixels: &[u8],
    width: usize,
    crop: CropBox,
    size: usize,
    down: &Taps,
    across: &Taps,
    row: &mut [f32],
    planes: &mut [f32],
) {
    let area = size * size;
    let line = |y: usize| &pixels[((crop.top + y) * width + crop.left) * C..][..crop.width * C];
    for y in 0..size {
        // First down: whole rows of the crop, weighted. The step from bytes to [0, 1] is part of the weight.
        let (first, weights) = (down.start[y], &down.weights[y * down.count..][..down.count]);
        match *weights {
            [a] => {
                let a = a / 255.0;
                for (value, &pixel) in row.iter_mut().zip(line(first)) {
                    *value = a * f32::from(pixel);
                }
            }
            [a, b] => {
                let (a, b) = (a / 255.0, b / 255.0);
                for ((value, &upper), &lower) in row.iter_mut().zip(line(first)).zip(line(first + 1)) {
                    *value = a * f32::from(upper) + b * f32::from(lower);
                }
            }
            _ => {
                row.fill(0.0);
                for (k, &weight) in weights.iter().enumerate() {
                    let weight = weight / 255.0;
                    for (value, &pixel) in row.iter_mut().zip(line(first + k)) {
                        *value += weight * f32::from(pixel);
                    }
                }
            }
        }
        // Then across. Crops are seldom larger than the view, so two taps are the usual case.
        let mut rows = planes.chunks_exact_mut(area).map(|plane| &mut plane[y * size..][..size]);
        let rows: [&mut [f32]; C] = std::array::from_fn(|_| rows.next().expect("a plane for each channel"));
        match across.count {
            1 => resample_row::<C, 1>(row, across, rows),
            2 => resample_row::<C, 2>(row, across, rows),
            _ => resample_row::<C, 0>(row, across, rows),
        }
    }
}

/// One row across, a pixel of all channels at a time; `K` taps, or as many as there are where it is 0.
#[inline(always)]
fn resample_row<const C: usize, const K: usize>(row: &[f32], across: &Taps, rows: [&mut [f32]; C]) {
    let count = if K == 0 { across.count } else { K };
    let taps = across.start.iter().zip(across.weights.chunks_exact(count));
    for (x, (&start, weights)) in taps.enumerate() {
        let source = &row[start * C..][..count * C];
        let mut sum = [0.0; C];
        for (&weight, pixel) in weights.iter().zip(source.chunks_exact(C)) {
            for c in 0..C {
                sum[c] += weight * pixel[c];
            }
        }
        for c in 0..C {
            rows[c][x] = sum[c];
        }
    }
}

/// ITU-R BT.601's weights, rounded as torchvision rounds them.
#[inline(always)]
fn luma(r: f32, g: f32, b: f32) -> f32 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

/// To [0, 1], by selections that vectorise.
#[inline(always)]
fn clamp(x: f32) -> f32 {
    let x = if x > 0.0 { x } else { 0.0 };
    if x < 1.0 { x } else { 1.0 }
}

#[multiversion(targets("x86_64+avx2"))]
fn brighten(values: &mut [f32], factor: f32) {
    for value in values {
        *value = clamp(*value * factor);
    }
}

/// How many running sums a mean has: enough for two vectors of the widest registers, the same on every machine.
const LANES: usize = 32;

/// The mean of the grey image.
#[multiversion(targets("x86_64+avx2"))]
fn mean_luma([r, g, b]: [&[f32]; 3]) -> f32 {
    let mut lanes = [0.0; LANES];
    for ((r, g), b) in r.chunks(LANES).zip(g.chunks(LANES)).zip(b.chunks(LANES)) {
        for (((sum, &r), &g), &b) in lanes.iter_mut().zip(r).zip(g).zip(b) {
            *sum += luma(r, g, b);
        }
    }
    lanes.iter().sum::<f32>() / r.len() as f32
}

#[multiversion(targets("x86_64+avx2"))]
fn mean(values: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for values in values.chunks(LANES) {
        for (sum, &value) in lanes.iter_mut().zip(values) {
            *sum += value;
        }
    }
    lanes.iter().sum::<f32>() / values.len() as f32
}

#[multiversion(targets("x86_64+avx2"))]
fn blend_level(values: &mut [f32], factor: f32, level: f32) {
    for value in values {
        *value = clamp(*value * factor + level);
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn saturate([r, g, b]: [&mut [f32]; 3], factor: f32) {
    let rest = 1.0 - factor;
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let grey = rest * luma(*r, *g, *b);
        *r = clamp(*r * factor + grey);
        *g = clamp(*g * factor + grey);
        *b = clamp(*b * factor + grey);
    }
}

/// Turns the hue by `shift` of a turn, value and saturation in HSV unchanged.
///
/// A colour is its largest channel and the range down to the smallest; where on the way round a channel lies is a
/// trapezium of the hue. So there is no case per sextant, and nothing is ill-conditioned: where the range is small the
/// hue is uncertain and does not matter.
#[multiversion(targets("x86_64+avx2"))]
fn turn_hue([r, g, b]: [&mut [f32]; 3], shift: f32) {
    let shift = shift * 6.0;
    let turn = |hue: f32| if hue >= 6.0 { hue - 6.0 } else { hue };
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let (x, y, z) = (*r, *g, *b);
        let (high, low) = if x > y { (x, y) } else { (y, x) };
        let (high, low) = (if high > z { high } else { z }, if low < z { low } else { z });
        let range = high - low;
        let inverse = 1.0 / if range > 0.0 { range } else { 1.0 };
        let of_blue = 4.0 + (x - y) * inverse;
        let of_green = 2.0 + (z - x) * inverse;
        let of_red = (y - z) * inverse;
        let hue = if high == y { of_green } else { of_blue };
        let hue = if high == x { of_red } else { hue } + shift;
        let hue = turn(if hue < 0.0 { hue + 6.0 } else { hue });
        let channel = |offset: f32| {
            let place = turn(hue + offset);
            let other = 4.0 - place;
            clamp(high - range * clamp(if place < other { place } else { other }))
        };
        *r = channel(5.0);
        *g = channel(3.0);
        *b = channel(1.0);
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn turn_grey([r, g, b]: [&mut [f32]; 3]) {
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let grey = luma(*r, *g, *b);
        (*r, *g, *b) = (grey, grey, grey);
    }
}

/// The blur's kernel has 2 radius + 1 taps: SimCLR's tenth of the side, made odd, and at least 3.
pub(crate) fn blur_radius(size: usize) -> usize {
    (size / 10 / 2).max(1)
}

/// A Gaussian at whole distances up to `radius`, of sum 1.
pub(crate) fn gaussian(sigma: f32, radius: usize, kernel: &mut Vec<f32>) {
    let at = |tap: usize| (-0.5 * ((tap as f64 - radius as f64) / f64::from(sigma)).powi(2)).exp();
    let total: f64 = (0..=2 * radius).map(at).sum();
    kernel.clear();
    kernel.extend((0..=2 * radius).map(|tap| (at(tap) / total) as f32));
}

/// The pixel that stands `offset` before the start or after the end: reflected, the edge itself not repeated.
/// Where the image is too small for that (one pixel) the edge is repeated.
pub(crate) fn reflect(place: isize, size: usize) -> usize {
    let last = size as isize - 1;
    let place = place.abs();
    (if place > last { 2 * last - place } else { place }).clamp(0, last) as usize
}

/// Blurs one plane in place: across into `other`, then down.
#[multiversion(targets("x86_64+avx2"))]
fn blur(plane: &mut [f32], size: usize, kernel: &[f32], row: &mut [f32], other: &mut [f32]) {
    let radius = kernel.len() / 2;
    for (source, target) in plane.chunks_exact(size).zip(other.chunks_exact_mut(size)) {
        row[radius..radius + size].copy_from_slice(source);
        for tap in 1..=radius {
            row[radius - tap] = source[reflect(-(tap as isize), size)];
            row[radius + size - 1 + tap] = source[reflect((size - 1 + tap) as isize, size)];
        }
        target.fill(0.0);
        for (tap, &weight) in kernel.iter().enumerate() {
            for (value, &neighbour) in target.iter_mut().zip(&row[tap..tap + size]) {
                *value += weight * neighbour;
            }
        }
    }
    for (y, target) in plane.chunks_exact_mut(size).enumerate() {
        target.fill(0.0);
        for (tap, &weight) in kernel.iter().enumerate() {
            let source = reflect((y + tap) as isize - radius as isize, size) * size;
            for (value, &neighbour) in target.iter_mut().zip(&other[source..source + size]) {
                *value += weight * neighbour;
            }
        }
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn solarise(values: &mut [f32], threshold: f32) {
    for value in values {
        let (kept, inverted) = (*value, 1.0 - *value);
        *value = if kept >= threshold { inverted } else { kept };
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn normalise(values: &[f32], mean: f32, scale: f32, out: &mut [f32]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = (value - mean) * scale;
    }
}

/// Normalises three planes into pixels of three channels.
#[multiversion(targets("x86_64+avx2"))]
fn interleave([r, g, b]: [&[f32]; 3], mean: [f32; 3], scale: [f32; 3], out: &mut [f32]) {
    for (((pixel, &r), &g), &b) in out.chunks_exact_mut(3).zip(r).zip(g).zip(b) {
        pixel[0] = (r - mean[0]) * scale[0];
        pixel[1] = (g - mean[1]) * scale[1];
        pixel[2] = (b - mean[2]) * scale[2];
    }
}
