//! Views of a whole batch: images rendered on the rayon pool by [`cpu`], sequences cut and padded.
//!
//! Rendering touches no tensor, so a thread that fetches ahead may do it; [`HostView::to_view`] belongs to the thread
//! that talks to LibTorch.

use super::{Draw, PARAMS, Recipe, cpu};
use crate::data::{Image, Modality, Normalisation, Sample, Samples};
use crate::group;
use crate::method::{Batch, View};
use crate::rng::{Purpose, Rng};
use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use std::cell::RefCell;
use tch::{Device, Tensor};

/// The id behind the end of a token sequence that is shorter than its batch.
pub const PADDING: i64 = -1;

/// One view of every sample of a batch, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostView {
    pub values: Values,
    /// [B, P]; the columns are [`PARAMS`]. All 0 for what is no image.
    pub params: Vec<f32>,
}

/// The numbers of a [`HostView`].
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// [B, S, S, C]: channels last.
    Pixels { values: Vec<f32>, size: usize, channels: usize },
    /// [B, T], [`PADDING`] behind the end of a sequence.
    Tokens { ids: Vec<i64>, length: usize },
    /// [B, C, T], NaN behind the end of a series.
    Series { values: Vec<f32>, channels: usize, length: usize },
}

impl HostView {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.params.len() / PARAMS.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// The same as tensors. Images have sizes [B, C, S, S] and memory that stays channels last, so that nothing is
    /// rearranged.
    pub fn to_view(&self, device: Device) -> View {
        let columns = [self.len() as i64, PARAMS.len() as i64];
        View {
            x: self.values.to_tensor(self.len()).to_device(device),
            params: Tensor::from_slice(&self.params).view(columns).to_device(device),
        }
    }
}

impl Values {
    fn to_tensor(&self, batch: usize) -> Tensor {
        let b = batch as i64;
        match self {
            Values::Pixels { values, size, channels } => {
                let (x, s, c) = (Tensor::from_slice(values), *size as i64, *channels as i64);
                if c == 1 { x.view([b, 1, s, s]) } else { x.view([b, s, s, c]).permute([0, 3, 1, 2]) }
            }
            Values::Tokens { ids, length } => Tensor::from_slice(ids).view([b, *length as i64]),
            Values::Series { values, channels, length } => {
                Tensor::from_slice(values).view([b, *channels as i64, *length as i64])
            }
        }
    }
}

/// The views that `recipes` make of the samples `index`, one [`HostView`] per recipe.
///
/// Each draw is a function of (seed, epoch, index, view) alone: the same in any batch, any order and on any thread.
/// An image is decoded once for all its views. Of a sequence or series that is longer than `full_size` a part of that
/// length is taken, its place drawn; recipes must be empty then, for they are for images.
///
/// # Errors
/// If a recipe or the normalisation cannot be used or a sample cannot be read; the message says which and why.
pub fn render_views(
    samples: &dyn Samples,
    index: &[usize],
    recipes: &[Recipe],
    full_size: usize,
    normalisation: &Normalisation,
    seed: u64,
    epoch: u64,
) -> Result<Vec<HostView>> {
    render_repeats(samples, index, &vec![0; index.len()], recipes, full_size, normalisation, seed, epoch)
}

/// The same; `repeats` says how often each sample was drawn before in this epoch, and another draw is another view.
#[expect(clippy::too_many_arguments, reason = "those of `render_views` and one more")]
fn render_repeats(
    samples: &dyn Samples,
    index: &[usize],
    repeats: &[u32],
    recipes: &[Recipe],
    full_size: usize,
    normalisation: &Normalisation,
    seed: u64,
    epoch: u64,
) -> Result<Vec<HostView>> {
    for (view, recipe) in recipes.iter().enumerate() {
        recipe.check().with_context(|| format!("in the recipe of view {view}"))?;
    }
    let random =
        |i: usize, view: usize| Rng::new(seed, Purpose::View, epoch, index[i] as u64, view as u32 | repeats[i] << 16);
    if !matches!(samples.modality(), Modality::Images { .. }) {
        let plain = Recipe { size: 0, ..Recipe::default() };
        for (view, recipe) in recipes.iter().enumerate() {
            ensure!(
                *recipe == plain,
                "the recipe of view {view} augments images, but the data are {}: leave it empty",
                samples.modality().plural()
            );
        }
        return (0..recipes.len())
            .map(|view| {
                sequences(samples, index, full_size, normalisation, |i, room| {
                    (random(i, view).uniform() * (room + 1) as f64) as usize
                })
            })
            .collect();
    }
    let sizes: Vec<usize> = recipes.iter().map(|recipe| recipe.side(full_size)).collect();
    render_all(samples, index, &sizes, normalisation, |image, i, view| {
        recipes[view].draw(&mut random(i, view), image.height, image.width)
    })
}

/// What evaluation sees of the samples `index`, nothing random. Images [B, C, S, S]: the largest central square, resized
/// (antialiased) if it is not `size` x `size`, normalised. Tokens [B, T] and series [B, C, T], normalised: their first
/// `size` steps.
///
/// # Errors
/// If the normalisation cannot be used or a sample cannot be read; the message says which and why.
pub fn plain(samples: &dyn Samples, index: &[usize], size: usize, normalisation: &Normalisation) -> Result<Tensor> {
    Ok(plain_view(samples, index, size, normalisation)?.values.to_tensor(index.len()))
}

fn plain_view(samples: &dyn Samples, index: &[usize], size: usize, normalisation: &Normalisation) -> Result<HostView> {
    if !matches!(samples.modality(), Modality::Images { .. }) {
        return sequences(samples, index, size, normalisation, |_, _| 0);
    }
    let mut views = render_all(samples, index, &[size], normalisation, |_, _, _| Draw::default())?;
    Ok(views.remove(0))
}

/// All samples of a training set as evaluation sees them: for a method that clusters or stores their features.
pub struct Plain<'a> {
    pub samples: &'a dyn Samples,
    /// Height and width of images, length of sequences.
    pub size: usize,
    pub normalisation: &'a Normalisation,
    pub device: Device,
}

impl Plain<'_> {
    /// Samples at a time: enough for a network to work well, few enough for any memory.
    const BATCH: usize = 256;

    /// `f` of every sample, [B, ..] -> [B, ..], joined in the order of their places. No graph is built. Where there are
    /// several ranks each looks at a share of the batches that one would look at.
    ///
    /// # Errors
    /// If a sample cannot be read.
    pub fn map(&self, mut f: impl FnMut(&Tensor) -> Tensor) -> Result<Tensor> {
        let places: Vec<usize> = (0..self.samples.len()).collect();
        let batches: Vec<&[usize]> = places.chunks(Self::BATCH).collect();
        group::in_shares(batches.len(), |i| {
            let index = batches.get(i).context("there are no samples to look at")?;
            Ok(f(&plain(self.samples, index, self.size, self.normalisation)?.to_device(self.device)))
        })
    }
}

/// All that a loss sees of some samples, on the host.
pub struct HostBatch {
    views: Vec<HostView>,
    captions: Option<(Vec<i64>, usize)>,
    others: Option<Vec<i64>>,
    index: Vec<usize>,
    seed: u64,
    epoch: u64,
}

impl HostBatch {
    /// The views of [`render_views`], and captions where the samples have any.
    ///
    /// # Errors
    /// As [`render_views`], and if a sample that should have a caption has none.
    pub fn render(
        samples: &dyn Samples,
        index: Vec<usize>,
        recipes: &[Recipe],
        full_size: usize,
        normalisation: &Normalisation,
        seed: u64,
        epoch: u64,
    ) -> Result<HostBatch> {
        let views = render_views(samples, &index, recipes, full_size, normalisation, seed, epoch)?;
        Self::of(samples, views, index, seed, epoch)
    }

    /// The same of samples that an epoch may hold several times: `repeats` says how often each was drawn before in it,
    /// and every time it has other views.
    ///
    /// # Errors
    /// As [`HostBatch::render`].
    #[expect(clippy::too_many_arguments, reason = "those of `render` and one more")]
    pub fn render_repeats(
        samples: &dyn Samples,
        index: Vec<usize>,
        repeats: &[u32],
        recipes: &[Recipe],
        full_size: usize,
        normalisation: &Normalisation,
        seed: u64,
        epoch: u64,
    ) -> Result<HostBatch> {
        let views = render_repeats(samples, &index, repeats, recipes, full_size, normalisation, seed, epoch)?;
        Self::of(samples, views, index, seed, epoch)
    }

    /// One view, nothing of which is random ([`plain`]), and captions where the samples have any.
    ///
    /// # Errors
    /// As [`plain`], and if a sample that should have a caption has none.
    pub fn plain(
        samples: &dyn Samples,
        index: Vec<usize>,
        size: usize,
        normalisation: &Normalisation,
        seed: u64,
        epoch: u64,
    ) -> Result<HostBatch> {
        let view = plain_view(samples, &index, size, normalisation)?;
        Self::of(samples, vec![view], index, seed, epoch)
    }

    fn of(samples: &dyn Samples, views: Vec<HostView>, index: Vec<usize>, seed: u64, epoch: u64) -> Result<HostBatch> {
        let captions = samples
            .captions()
            .map(|shape| Ok::<_, anyhow::Error>((captions(samples, &index, shape.length)?, shape.length)));
        Ok(HostBatch { views, captions: captions.transpose()?, others: None, index, seed, epoch })
    }

    /// The same with the captions of other samples beside: of each the caption of one that is drawn from all samples by
    /// (seed, epoch, index) and says something else. Without them where there are no captions, or too few that differ.
    ///
    /// # Errors
    /// If a sample that should have a caption has none.
    pub fn with_others(self, samples: &dyn Samples) -> Result<HostBatch> {
        const TRIES: usize = 100;
        let Some((_, length)) = self.captions else { return Ok(self) };
        let other = |&index: &usize| {
            let mut rng = Rng::new(self.seed, Purpose::Sample, self.epoch, index as u64, 1);
            let mut drawn = (0..TRIES).map(|_| rng.below(samples.len()));
            drawn.find(|&other| samples.caption(other) != samples.caption(index))
        };
        let others: Option<Vec<usize>> = self.index.iter().map(other).collect();
        let others = others.map(|others| captions(samples, &others, length)).transpose()?;
        Ok(HostBatch { others, ..self })
    }

    /// The same as tensors.
    pub fn to_batch(self, device: Device) -> Batch {
        let rows = self.index.len() as i64;
        let views = self.views.iter().map(|view| view.to_view(device)).collect();
        let (captions, length) = self.captions.unzip();
        let tensor =
            |ids: Vec<i64>| Tensor::from_slice(&ids).view([rows, length.unwrap_or(0) as i64]).to_device(device);
        let (captions, others) = (captions.map(tensor), self.others.map(tensor));
        Batch { captions, others, ..Batch::new(views, self.index, self.seed, self.epoch) }
    }
}

/// [B, length] ids with [`PADDING`] behind the end of each caption.
fn captions(samples: &dyn Samples, index: &[usize], length: usize) -> Result<Vec<i64>> {
    let mut ids = Vec::with_capacity(index.len() * length);
    for &index in index {
        let caption = samples.caption(index).with_context(|| format!("image {index} has no caption"))?;
        ids.extend(caption.iter().map(|&id| i64::from(id)).chain(std::iter::repeat(PADDING)).take(length));
    }
    Ok(ids)
}

/// Token sequences or series of at most `length` steps; `start(i, room)` says where entry i of `index` is cut if it is
/// longer, 0 to `room`.
fn sequences(
    samples: &dyn Samples,
    index: &[usize],
    length: usize,
    normalisation: &Normalisation,
    start: impl Fn(usize, usize) -> usize,
) -> Result<HostView> {
    ensure!(length > 0, "the length of the sequences is 0; expected the number of steps that a network sees");
    let params = vec![0.0; index.len() * PARAMS.len()];
    for &index in index {
        ensure!(index < samples.len(), "sample {index} was asked for, but there are {}", samples.len());
    }
    let values = match samples.modality() {
        Modality::Tokens { .. } => {
            let mut ids = vec![PADDING; index.len() * length];
            for (i, (row, &index)) in ids.chunks_exact_mut(length).zip(index).enumerate() {
                let Sample::Tokens(tokens) = samples.sample(index)? else { bail!("sample {index} has no tokens") };
                let from = start(i, tokens.len().saturating_sub(length));
                row.iter_mut().zip(&tokens[from..]).for_each(|(to, &id)| *to = i64::from(id));
            }
            Values::Tokens { ids, length }
        }
        Modality::Series { channels } => {
            check_normalisation(normalisation, channels)?;
            let mut values = vec![f32::NAN; index.len() * channels * length];
            for (i, (rows, &index)) in values.chunks_exact_mut(channels * length).zip(index).enumerate() {
                let Sample::Series(series) = samples.sample(index)? else { bail!("sample {index} is no series") };
                let steps = series.len() / channels;
                let from = start(i, steps.saturating_sub(length));
                for (c, row) in rows.chunks_exact_mut(length).enumerate() {
                    let (mean, std) = (normalisation.mean[c], normalisation.std[c]);
                    let steps = &series[c * steps + from..(c + 1) * steps];
                    row.iter_mut().zip(steps).for_each(|(to, &x)| *to = (x - mean) / std);
                }
            }
            Values::Series { values, channels, length }
        }
        Modality::Images { .. } => bail!("images are not sequences"),
    };
    Ok(HostView { values, params })
}

/// Renders every image of `index` once per entry of `sizes`, as `draw(image, i, view)` says of entry i.
fn render_all(
    samples: &dyn Samples,
    index: &[usize],
    sizes: &[usize],
    normalisation: &Normalisation,
    draw: impl Fn(&Image, usize, usize) -> Draw + Sync,
) -> Result<Vec<HostView>> {
    thread_local! {
        static SCRATCH: RefCell<cpu::Scratch> = RefCell::new(cpu::Scratch::new());
    }
    let Modality::Images { channels } = samples.modality() else { bail!("only images are rendered") };
    ensure!(matches!(channels, 1 | 3), "the images have {channels} channels; expected 1 (grey) or 3 (RGB)");
    check_normalisation(normalisation, channels)?;
    ensure!(!sizes.contains(&0), "the full size of the views is 0; expected their height and width in pixels");

    let mut pixels: Vec<Vec<f32>> = sizes.iter().map(|size| vec![0.0; index.len() * size * size * channels]).collect();
    let mut params: Vec<Vec<f32>> = sizes.iter().map(|_| vec![0.0; index.len() * PARAMS.len()]).collect();
    // The slots of image i in all views, so that one task fills them.
    let mut slots: Vec<Vec<(&mut [f32], &mut [f32])>> = Vec::new();
    slots.resize_with(index.len(), || Vec::with_capacity(sizes.len()));
    for ((pixels, params), size) in pixels.iter_mut().zip(&mut params).zip(sizes) {
        let rows = pixels.chunks_exact_mut(size * size * channels).zip(params.chunks_exact_mut(PARAMS.len()));
        for (slot, rows) in slots.iter_mut().zip(rows) {
            slot.push(rows);
        }
    }
    slots.into_par_iter().zip(index).enumerate().try_for_each(|(i, (slots, &index))| {
        ensure!(index < samples.len(), "image {index} was asked for, but there are {}", samples.len());
        let Sample::Image(image) = samples.sample(index)? else { bail!("sample {index} is no image") };
        let (h, w) = (image.height, image.width);
        ensure!(
            h > 0 && w > 0 && image.channels == channels && image.pixels.len() == h * w * channels,
            "image {index} says {h} x {w} x {}, and has {} bytes; expected {channels} channels and as many bytes",
            image.channels,
            image.pixels.len()
        );
        SCRATCH.with_borrow_mut(|scratch| {
            for (view, (pixels, params)) in slots.into_iter().enumerate() {
                let draw = draw(&image, i, view);
                params.copy_from_slice(&draw.params(h, w));
                cpu::render(&image, &draw, sizes[view], normalisation, pixels, scratch);
            }
        });
        Ok(())
    })?;
    let views = pixels
        .into_iter()
        .zip(params)
        .zip(sizes)
        .map(|((values, params), &size)| HostView { values: Values::Pixels { values, size, channels }, params });
    Ok(views.collect())
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
