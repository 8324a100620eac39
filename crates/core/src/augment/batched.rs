//! Views by tensor operations on a whole batch, on any device: what [`super::cpu`] does, from the same draws.
//!
//! Images of one batch have one size. The host knows the draws, so an operation touches only the images that it was
//! drawn for, and no value is copied back from the device. Resize and blur are matrix products: where TF32 is allowed
//! they have its precision (1e-3), not that of f32.

use super::{Draw, Operation, Recipe, cpu};
use crate::data::Normalisation;
use crate::method::View;
use crate::rng::{Purpose, Rng};
use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

/// What [`super::views::render_views`] makes of the images `index`, with the same draws, on the device where `images`
/// [N, C, H, W] u8, the whole training set, lies.
///
/// # Errors
/// If a recipe, an index or a shape cannot be used; the message says which and why.
pub fn render_views(
    images: &Tensor,
    index: &[usize],
    recipes: &[Recipe],
    full_size: usize,
    normalisation: &Normalisation,
    seed: u64,
    epoch: u64,
) -> Result<Vec<View>> {
    let sizes = images.size();
    let &[count, _, height, width] = sizes.as_slice() else {
        anyhow::bail!("the images have sizes {sizes:?}; expected [N, C, H, W]");
    };
    let (height, width) = (height as usize, width as usize);
    if let Some(outside) = index.iter().find(|&&i| i as i64 >= count) {
        anyhow::bail!("image {outside} was asked for, but there are {count}");
    }
    let rows: Vec<i64> = index.iter().map(|&i| i as i64).collect();
    let device = images.device();
    let batch = images.index_select(0, &Tensor::from_slice(&rows).to_device(device));
    let view = |(view, recipe): (usize, &Recipe)| {
        recipe.check().with_context(|| format!("in the recipe of view {view}"))?;
        let draw =
            |&i: &usize| recipe.draw(&mut Rng::new(seed, Purpose::View, epoch, i as u64, view as u32), height, width);
        let draws: Vec<Draw> = index.iter().map(draw).collect();
        let params: Vec<f32> = draws.iter().flat_map(|draw| draw.params(height, width)).collect();
        Ok(View {
            x: render(&batch, &draws, recipe.side(full_size), normalisation)?,
            params: Tensor::from_slice(&params).view([index.len() as i64, -1]).to_device(device),
        })
    };
    recipes.iter().enumerate().map(view).collect()
}

/// The views of `images` [B, C, H, W] u8 that `draws` (one per image) describe: [B, C, `size`, `size`] f32, normalised,
/// on the device of `images`.
///
/// # Errors
/// If the shapes do not fit each other; the message says which and what was expected.
pub fn render(images: &Tensor, draws: &[Draw], size: usize, normalisation: &Normalisation) -> Result<Tensor> {
    let sizes = images.size();
    let &[batch, channels, height, width] = sizes.as_slice() else {
        anyhow::bail!("the images have sizes {sizes:?}; expected [B, C, H, W]");
    };
    ensure!(images.kind() == Kind::Uint8, "the images are {:?}; expected u8 pixels", images.kind());
    ensure!(draws.len() as i64 == batch, "{} draws for {batch} images; expected one for each", draws.len());
    ensure!(matches!(channels, 1 | 3), "the images have {channels} channels; expected 1 (grey) or 3 (RGB)");
    ensure!(
        normalisation.mean.len() as i64 == channels && normalisation.std.len() as i64 == channels,
        "the normalisation is not for {channels} channels"
    );
    ensure!(size > 0 && height > 0 && width > 0, "images of {height} x {width} for a view of {size}; expected pixels");
    for draw in draws {
        let c = draw.crop_box(height as usize, width as usize);
        ensure!(
            c.height > 0 && c.width > 0 && c.top + c.height <= height as usize && c.left + c.width <= width as usize,
            "{c:?} is not inside an image of {height} x {width}"
        );
    }
    let device = images.device();
    let (size, rgb) = (size as i64, channels == 3);

    let mut x = resized_crop(images, draws, size);
    for position in 0..4 {
        for operation in [Operation::Brightness, Operation::Contrast, Operation::Saturation, Operation::Hue] {
            if !rgb && matches!(operation, Operation::Saturation | Operation::Hue) {
                continue;
            }
            let drawn = |draw: &Draw| {
                draw.jitter.filter(|colour| colour.order[position] == operation).map(|colour| colour.factor(operation))
            };
            x = on_drawn(x, draws, drawn, |x, factors| {
                let f = column(factors, device);
                match operation {
                    Operation::Brightness => (x * f).clamp(0.0, 1.0),
                    Operation::Contrast => {
                        let grey = if rgb { luma(&x) } else { x.shallow_clone() };
                        let level = grey.mean_dim([1i64, 2, 3].as_slice(), true, Kind::Float);
                        (x * &f + level * complement(&f)).clamp(0.0, 1.0)
                    }
                    Operation::Saturation => (&x * &f + luma(&x) * complement(&f)).clamp(0.0, 1.0),
                    Operation::Hue => turn_hue(&x, &f),
                }
            });
        }
    }
    if rgb {
        x = on_drawn(x, draws, |draw| draw.grey.then_some(1.0), |x, _| luma(&x).expand_as(&x));
    }
    x = on_drawn(x, draws, |draw| draw.sigma, |x, sigmas| blur(&x, sigmas));
    x = on_drawn(
        x,
        draws,
        |draw| draw.solarise,
        |x, thresholds| complement(&x).where_self(&x.ge_tensor(&column(thresholds, device)), &x),
    );
    let per_channel = |values: &[f32]| Tensor::from_slice(values).to_device(device).view([1, channels, 1, 1]);
    Ok((x - per_channel(&normalisation.mean)) / per_channel(&normalisation.std))
}

/// 1 - x.
fn complement(x: &Tensor) -> Tensor {
    1.0 - x
}

/// One number per image, [n, 1, 1, 1].
fn column(values: &[f32], device: Device) -> Tensor {
    Tensor::from_slice(values).to_device(device).view([-1, 1, 1, 1])
}

/// Applies `operation` to those images of `x` for which `drawn` gives a parameter.
fn on_drawn(
    x: Tensor,
    draws: &[Draw],
    drawn: impl Fn(&Draw) -> Option<f32>,
    operation: impl FnOnce(Tensor, &[f32]) -> Tensor,
) -> Tensor {
    let (rows, values): (Vec<i64>, Vec<f32>) =
        draws.iter().enumerate().filter_map(|(i, draw)| Some((i as i64, drawn(draw)?))).unzip();
    if rows.is_empty() {
        return x;
    }
    if rows.len() == draws.len() {
        return operation(x, &values);
    }
    let rows = Tensor::from_slice(&rows).to_device(x.device());
    let changed = operation(x.index_select(0, &rows), &values);
    x.index_copy(0, &rows, &changed)
}

/// Crop, antialiased resize and flip: [B, C, H, W] u8 -> [B, C, S, S] f32 in [0, 1], as a product with one matrix per
/// image and axis.
fn resized_crop(images: &Tensor, draws: &[Draw], size: i64) -> Tensor {
    let (batch, channels, height, width) = images.size4().expect("checked by render");
    let boxes: Vec<_> = draws.iter().map(|draw| draw.crop_box(height as usize, width as usize)).collect();
    let (mut top, mut tall, mut left, mut wide) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for c in &boxes {
        top.push(c.top as f64);
        tall.push(c.height as f64);
        left.push(c.left as f64);
        wide.push(c.width as f64);
    }
    let device = images.device();
    let down = interpolation(&top, &tall, size, height, device);
    let across = interpolation(&left, &wide, size, width, device);
    let flips: Vec<bool> = draws.iter().map(|draw| draw.flip).collect();
    let flips = Tensor::from_slice(&flips).to_device(device).view([batch, 1, 1]);
    let across = across.flip([1]).where_self(&flips, &across);
    let x = images.to_kind(Kind::Float) / 255.0;
    // [B, 1, S, H] x [B, C, H, W] x [B, 1, W, S]
    let fold = |weights: &Tensor| {
        let size = weights.size();
        weights.unsqueeze(1).expand([batch, channels, size[1], size[2]], false)
    };
    fold(&down).matmul(&x).matmul(&fold(&across).transpose(2, 3))
}

/// Weights [B, S, L] of the antialiased bilinear filter from the `length` pixels after `start` of a line of L pixels
/// to S pixels.
fn interpolation(start: &[f64], length: &[f64], size: i64, line: i64, device: Device) -> Tensor {
    let options = (Kind::Double, device);
    let numbers = |values: &[f64]| Tensor::from_slice(values).to_device(device).view([-1, 1, 1]);
    let (start, length) = (numbers(start), numbers(length));
    let scale = &length / size as f64;
    let support = scale.clamp_min(1.0);
    let centre = (Tensor::arange(size, options).view([1, -1, 1]) + 0.5) * scale;
    let place = Tensor::arange(line, options).view([1, 1, -1]) + 0.5 - start;
    let inside = place.ge(0.0).logical_and(&place.le_tensor(&length));
    let weights = complement(&((place - centre).abs() / support)).clamp_min(0.0) * inside;
    let total = weights.sum_dim_intlist([-1i64].as_slice(), true, Kind::Double);
    (weights / total).to_kind(Kind::Float)
}

/// The grey image, [n, 3, S, S] -> [n, 1, S, S].
fn luma(x: &Tensor) -> Tensor {
    let plane = |c: i64| x.narrow(1, c, 1);
    plane(0) * 0.2989 + plane(1) * 0.587 + plane(2) * 0.114
}

/// RGB to hue, saturation and value and back with the hue turned by `shift` [n, 1, 1, 1] of a turn; the textbook's
/// sextants, where the CPU has trapezia.
fn turn_hue(x: &Tensor, shift: &Tensor) -> Tensor {
    let value = x.amax([1i64].as_slice(), true);
    let range = &value - x.amin([1i64].as_slice(), true);
    let divisor = range.ones_like().where_self(&range.eq(0.0), &range);
    let (r, g, b) = (x.narrow(1, 0, 1), x.narrow(1, 1, 1), x.narrow(1, 2, 1));
    let of_red = (&g - &b) / &divisor;
    let of_green = (&b - &r) / &divisor + 2.0;
    let of_blue = (&r - &g) / &divisor + 4.0;
    let hue = of_green.where_self(&g.eq_tensor(&value), &of_blue);
    let hue = of_red.where_self(&r.eq_tensor(&value), &hue);
    let hue = (hue / 6.0 + shift).remainder(1.0) * 6.0;

    let sextant = hue.floor();
    let part = hue - &sextant;
    let saturation = &range / value.ones_like().where_self(&value.eq(0.0), &value);
    let p = complement(&saturation) * &value;
    let q = complement(&(&saturation * &part)) * &value;
    let t = complement(&(&saturation * complement(&part))) * &value;
    // Which of value, q, p, t each channel is in sextants 0 to 5. A remainder may round up to 1, which is sextant 0.
    let table = |channel: [&Tensor; 6]| Tensor::cat(&channel, 1);
    let sextant = sextant.to_kind(Kind::Int64).remainder(6);
    let pick = |channel: [&Tensor; 6]| table(channel).gather(1, &sextant, false);
    let red = pick([&value, &q, &p, &p, &t, &value]);
    let green = pick([&t, &value, &value, &q, &p, &p]);
    let blue = pick([&p, &p, &t, &value, &value, &q]);
    Tensor::cat(&[red, green, blue], 1).clamp(0.0, 1.0)
}

/// Gaussian blur with a sigma per image: a product with a banded matrix per image on either side.
fn blur(x: &Tensor, sigmas: &[f32]) -> Tensor {
    let size = x.size()[3] as usize;
    let radius = cpu::blur_radius(size);
    let mut matrices = vec![0.0f32; sigmas.len() * size * size];
    let mut kernel = Vec::new();
    for (&sigma, matrix) in sigmas.iter().zip(matrices.chunks_exact_mut(size * size)) {
        cpu::gaussian(sigma, radius, &mut kernel);
        for (place, row) in matrix.chunks_exact_mut(size).enumerate() {
            for (tap, &weight) in kernel.iter().enumerate() {
                row[cpu::reflect((place + tap) as isize - radius as isize, size)] += weight;
            }
        }
    }
    let (s, channels) = (size as i64, x.size()[1]);
    let m = Tensor::from_slice(&matrices).to_device(x.device()).view([-1, 1, s, s]).expand([-1, channels, s, s], false);
    m.matmul(x).matmul(&m.transpose(2, 3))
}
