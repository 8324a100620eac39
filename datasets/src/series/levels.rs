//! Series as token sequences, for methods that read tokens: a value becomes the number of the level that it lies in.

use super::{Problem, Series, agree, dataset};
use crate::dataset::{Dataset, Part};
use anyhow::Result;
use selfsup_core::data::{Modality, Normalisation, Sample, Samples};
use std::borrow::Cow;
use std::sync::Arc;

/// Levels of a channel.
const LEVELS: usize = 64;

/// Where the levels of each channel part: at the quantiles of its values, so that all levels are equally frequent.
pub(crate) struct Levels(Vec<Vec<f32>>);

impl Levels {
    /// `count` levels of each channel of `series`.
    pub(crate) fn of(series: &Series, count: usize) -> Levels {
        let mut values = vec![Vec::new(); series.channels];
        for bounds in series.bounds.windows(2) {
            let steps = (bounds[1] - bounds[0]) / series.channels;
            for (to, channel) in values.iter_mut().zip(series.values[bounds[0]..bounds[1]].chunks_exact(steps)) {
                to.extend_from_slice(channel);
            }
        }
        for channel in &mut values {
            channel.sort_by(f32::total_cmp);
        }
        Levels(values.iter().map(|x| (1..count).map(|level| x[level * x.len() / count]).collect()).collect())
    }

    /// The level of a value: the lowest one holds all that is smaller, the highest all that is greater.
    pub(crate) fn level(&self, channel: usize, x: f32) -> usize {
        self.0[channel].partition_point(|&cut| cut <= x)
    }

    fn count(&self) -> usize {
        self.0[0].len() + 1
    }

    /// `series` step by step, in a step channel by channel; each channel has ids of its own.
    pub(crate) fn tokens(&self, series: &Series) -> Tokens {
        let mut ids = Vec::with_capacity(series.values.len());
        for bounds in series.bounds.windows(2) {
            let (values, steps) = (&series.values[bounds[0]..bounds[1]], (bounds[1] - bounds[0]) / series.channels);
            for (step, channel) in (0..steps).flat_map(|step| (0..series.channels).map(move |channel| (step, channel)))
            {
                let level = self.level(channel, values[channel * steps + step]);
                ids.push((channel * self.count() + level) as u32);
            }
        }
        Tokens { ids, bounds: series.bounds.clone(), vocabulary: series.channels * self.count() }
    }
}

/// Series as ids, one after the other.
pub(crate) struct Tokens {
    ids: Vec<u32>,
    bounds: Vec<usize>,
    vocabulary: usize,
}

impl Samples for Tokens {
    fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    fn modality(&self) -> Modality {
        Modality::Tokens { vocabulary: self.vocabulary }
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        Ok(Sample::Tokens(Cow::Borrowed(&self.ids[self.bounds[index]..self.bounds[index + 1]])))
    }
}

impl Series {
    /// Means of `steps` steps in place of them; the last one of those that are left.
    fn means(&self, steps: usize) -> Series {
        let mut means = Series { values: Vec::new(), bounds: vec![0], channels: self.channels };
        for bounds in self.bounds.windows(2) {
            let length = (bounds[1] - bounds[0]) / self.channels;
            for channel in self.values[bounds[0]..bounds[1]].chunks_exact(length) {
                let mean = |steps: &[f32]| steps.iter().sum::<f32>() / steps.len() as f32;
                means.values.extend(channel.chunks(steps).map(mean));
            }
            means.bounds.push(means.values.len());
        }
        means
    }
}

/// A data set of the two parts of a problem, as tokens: the mean of `steps` steps of a channel, by the levels of the
/// training part.
pub(crate) fn token_dataset(train: Problem, test: Problem, steps: usize) -> Result<Dataset> {
    agree(&train, &test)?;
    let [train_means, test_means] = [&train, &test].map(|part| part.series.means(steps));
    let levels = Levels::of(&train_means, LEVELS);
    let native_size = train_means.channels * train_means.longest().max(test_means.longest());
    let set = dataset(train, test)?;
    Ok(Dataset {
        train: Part { samples: Arc::new(levels.tokens(&train_means)), ..set.train },
        test: set.test.map(|part| Part { samples: Arc::new(levels.tokens(&test_means)), ..part }),
        normalisation: Normalisation { mean: Vec::new(), std: Vec::new() },
        native_size,
        ..set
    })
}
