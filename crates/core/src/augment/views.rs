//! Views of a whole batch, rendered on the rayon pool by [`cpu`].
//!
//! Rendering touches no tensor, so a thread that fetches ahead may do it; [`HostView::to_view`] belongs to the thread
//! that talks to LibTorch.

use super::{Draw, PARAMS, Recipe, cpu};
use crate::data::{Image, Images, Normalisation};
use crate::method::View;
use crate::rng::{Purpose, Rng};
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use std::cell::RefCell;
use tch::{Device, Tensor};

/// One view of every image of a batch, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostView {
    /// [B, S, S, C]: channels last.
    pub pixels: Vec<f32>,
    /// [B, P]; the columns are [`PARAMS`].
    pub params: Vec<f32>,
    /// S: height and width.
    pub size: usize,
    /// C: 1 or 3.
    pub channels: usize,
}

impl HostView {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.params.len() / PARAMS.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// The same as tensors: x of sizes [B, C, S, S] whose memory stays channels last, so that nothing is rearranged.
    pub fn to_view(&self, device: Device) -> View {
        let columns = [self.len() as i64, PARAMS.len() as i64];
        View {
            x: pixels_to_tensor(&self.pixels, self.len(), self.size, self.channels).to_device(device),
            params: Tensor::from_slice(&self.params).view(columns).to_device(device),
        }
    }
}

/// [B, S, S, C] on the host as a tensor of sizes [B, C, S, S].
fn pixels_to_tensor(pixels: &[f32], batch: usize, size: usize, channels: usize) -> Tensor {
    let (b, s, c) = (batch as i64, size as i64, channels as i64);
    let x = Tensor::from_slice(pixels);
    if c == 1 { x.view([b, 1, s, s]) } else { x.view([b, s, s, c]).permute([0, 3, 1, 2]) }
}

/// The views that `recipes` make of the images `index`, one [`HostView`] per recipe.
///
/// Each draw is a function of (seed, epoch, index, view) alone: the same in any batch, any order and on any thread.
/// An image is decoded once for all its views.
///
/// # Errors
/// If a recipe or the normalisation cannot be used or an image cannot be read; the message says which and why.
pub fn render_views(
    images: &dyn Images,
    index: &[usize],
    recipes: &[Recipe],
    full_size: usize,
    normalisation: &Normalisation,
    seed: u64,
    epoch: u64,
) -> Result<Vec<HostView>> {
    for (view, recipe) in recipes.iter().enumerate() {
        recipe.check().with_context(|| format!("in the recipe of view {view}"))?;
    }
    let sizes: Vec<usize> = recipes.iter().map(|recipe| recipe.side(full_size)).collect();
    render_all(images, index, &sizes, normalisation, |image, index, view| {
        let mut rng = Rng::new(seed, Purpose::View, epoch, index as u64, view as u32);
        recipes[view].draw(&mut rng, image.height, image.width)
    })
}

/// What evaluation sees of the images `index`, [B, C, S, S]: the whole image, resized (antialiased) if it is not
/// `size` x `size`, normalised, nothing random.
///
/// # Errors
/// If the normalisation cannot be used or an image cannot be read; the message says which and why.
pub fn plain(images: &dyn Images, index: &[usize], size: usize, normalisation: &Normalisation) -> Result<Tensor> {
    let views = render_all(images, index, &[size], normalisation, |_, _, _| Draw::default())?;
    Ok(pixels_to_tensor(&views[0].pixels, index.len(), size, views[0].channels))
}

/// All images of a training set as evaluation sees them: for a method that clusters or stores their features.
pub struct Plain<'a> {
    pub images: &'a dyn Images,
    /// Height and width.
    pub size: usize,
    pub normalisation: &'a Normalisation,
    pub device: Device,
}

impl Plain<'_> {
    /// Images at a time: enough for a network to work well, few enough for any memory.
    const BATCH: usize = 256;

    /// `f` of every image, [B, C, S, S] -> [B, ..], joined in the order of their places. No graph is built.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn map(&self, mut f: impl FnMut(&Tensor) -> Tensor) -> Result<Tensor> {
        let places: Vec<usize> = (0..self.images.len()).collect();
        let parts: Result<Vec<Tensor>> = places
            .chunks(Self::BATCH)
            .map(|index| {
                let x = plain(self.images, index, self.size, self.normalisation)?.to_device(self.device);
                Ok(tch::no_grad(|| f(&x)))
            })
            .collect();
        Ok(Tensor::cat(&parts?, 0))
    }
}

/// Renders every image of `index` once per entry of `sizes`, as `draw(image, index, view)` says.
fn render_all(
    images: &dyn Images,
    index: &[usize],
    sizes: &[usize],
    normalisation: &Normalisation,
    draw: impl Fn(&Image, usize, usize) -> Draw + Sync,
) -> Result<Vec<HostView>> {
    thread_local! {
        static SCRATCH: RefCell<cpu::Scratch> = RefCell::new(cpu::Scratch::new());
    }
    let channels = images.channels();
    ensure!(matches!(channels, 1 | 3), "the images have {channels} channels; expected 1 (grey) or 3 (RGB)");
    check_normalisation(normalisation, channels)?;
    ensure!(!sizes.contains(&0), "the full size of the views is 0; expected their height and width in pixels");

    let mut views: Vec<HostView> = sizes
        .iter()
        .map(|&size| HostView {
            pixels: vec![0.0; index.len() * size * size * channels],
            params: vec![0.0; index.len() * PARAMS.len()],
            size,
            channels,
        })
        .collect();
    // The slots of image i in all views, so that one task fills them.
    let mut slots: Vec<Vec<(&mut [f32], &mut [f32])>> = Vec::new();
    slots.resize_with(index.len(), || Vec::with_capacity(sizes.len()));
    for view in &mut views {
        let pixels = view.pixels.chunks_exact_mut(view.size * view.size * channels);
        let params = view.params.chunks_exact_mut(PARAMS.len());
        for (slot, rows) in slots.iter_mut().zip(pixels.zip(params)) {
            slot.push(rows);
        }
    }
    slots.into_par_iter().zip(index).try_for_each(|(slots, &index)| {
        ensure!(index < images.len(), "image {index} was asked for, but there are {}", images.len());
        let image = images.image(index)?;
        let (h, w) = (image.height, image.width);
        ensure!(
            h > 0 && w > 0 && image.channels == channels && image.pixels.len() == h * w * channels,
            "image {index} says {h} x {w} x {}, and has {} bytes; expected {channels} channels and as many bytes",
            image.channels,
            image.pixels.len()
        );
        SCRATCH.with_borrow_mut(|scratch| {
            for (view, (pixels, params)) in slots.into_iter().enumerate() {
                let draw = draw(&image, index, view);
                params.copy_from_slice(&draw.params(h, w));
                cpu::render(&image, &draw, sizes[view], normalisation, pixels, scratch);
            }
        });
        Ok(())
    })?;
    Ok(views)
}

fn check_normalisation(normalisation: &Normalisation, channels: usize) -> Result<()> {
    let Normalisation { mean, std } = normalisation;
    ensure!(
        mean.len() == channels && std.len() == channels,
        "the normalisation has {} means and {} standard deviations; expected {channels} of each, one per channel",
        mean.len(),
        std.len()
    );
    ensure!(
        mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| s.is_finite() && *s > 0.0),
        "the normalisation has mean {mean:?} and std {std:?}; expected finite numbers, std above 0"
    );
    Ok(())
}
