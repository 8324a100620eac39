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

    /// The level of a value, whatever its size: the lowest one holds all that is smaller, the highest all that is greater.
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

/// A data set of the two parts of a problem, as tokens by the levels of the training part.
pub(crate) fn token_dataset(train: Problem, test: Problem) -> Result<Dataset> {
    agree(&train, &test)?;
    let channels = train.series.channels;
    let levels = Levels::of(&train.series, LEVELS);
    let [train_ids, test_ids] = [levels.tokens(&train.series), levels.tokens(&test.series)];
    let set = dataset(train, test)?;
    Ok(Dataset {
        train: Part { samples: Arc::new(train_ids), ..set.train },
        test: set.test.map(|part| Part { samples: Arc::new(test_ids), ..part }),
        normalisation: Normalisation { mean: Vec::new(), std: Vec::new() },
        native_size: channels * set.native_size,
        ..set
    })
}
