//! Series in the `.ts` format of the UCR and UEA archives, of one channel or several, of equal length or not.
//!
//! ```text
//! # a comment
//! @problemName Name
//! @classLabel true a b        `false`: no labels
//! @data
//! 1.0,2.0,?:3.0,4.0,5.0:a     channels between colons, then the label
//! ```
//!
//! A missing value (`?` or `NaN`) is interpolated between its neighbours in the channel, or takes the value of the only
//! one; the data set's note says how many were. Time stamps and regression problems are refused.

mod levels;

#[cfg(test)]
pub(crate) use levels::Levels;
pub(crate) use levels::token_dataset;

use crate::content::Content;
use crate::dataset::{Dataset, Part};
use crate::message::word;
use crate::text::utf8;
use anyhow::{Context as _, Result, bail, ensure};
use selfsup_core::data::{Modality, Normalisation, Sample, Samples};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Series one after the other, each [channels, steps].
#[derive(Debug, Default)]
pub(crate) struct Series {
    values: Vec<f32>,
    /// Where each begins, and where the last one ends.
    bounds: Vec<usize>,
    channels: usize,
}

impl Series {
    /// Steps of the longest one.
    fn longest(&self) -> usize {
        self.bounds.windows(2).map(|bounds| (bounds[1] - bounds[0]) / self.channels).max().unwrap_or(0)
    }

    /// Mean and standard deviation of each channel over all steps. A channel that never moves has deviation 1, so that
    /// it becomes 0.
    fn normalisation(&self) -> Normalisation {
        let mut sums = vec![(0.0, 0.0); self.channels];
        for bounds in self.bounds.windows(2) {
            let steps = (bounds[1] - bounds[0]) / self.channels;
            for (sum, channel) in sums.iter_mut().zip(self.values[bounds[0]..bounds[1]].chunks_exact(steps)) {
                channel.iter().map(|&x| f64::from(x)).for_each(|x| *sum = (sum.0 + x, sum.1 + x * x));
            }
        }
        let n = (self.values.len() / self.channels) as f64;
        let moments = sums.into_iter().map(|(sum, squares)| {
            let mean = sum / n;
            let std = (squares / n - mean * mean).max(0.0).sqrt();
            (mean as f32, if std > 1e-6 * mean.abs().max(1e-20) { std as f32 } else { 1.0 })
        });
        let (mean, std) = moments.unzip();
        Normalisation { mean, std }
    }
}

impl Samples for Series {
    fn len(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    fn modality(&self) -> Modality {
        Modality::Series { channels: self.channels }
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        Ok(Sample::Series(Cow::Borrowed(&self.values[self.bounds[index]..self.bounds[index + 1]])))
    }
}

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) series: Series,
    /// The labels' names as the header lists them; `None`: a file without labels.
    pub(crate) classes: Option<Vec<String>>,
    pub(crate) labels: Vec<u16>,
    /// How many values were interpolated.
    pub(crate) missing: usize,
}

/// Puts numbers where `values` has NaN; how many there were.
fn interpolate(values: &mut [f32]) -> Option<usize> {
    let known: Vec<usize> = (0..values.len()).filter(|&at| !values[at].is_nan()).collect();
    let (&first, &last) = (known.first()?, known.last()?);
    let (start, end) = (values[first], values[last]);
    values[..first].fill(start);
    values[last + 1..].fill(end);
    for pair in known.windows(2) {
        let (from, to, steps) = (values[pair[0]], values[pair[1]], pair[1] - pair[0]);
        for (value, step) in values[pair[0] + 1..pair[1]].iter_mut().zip(1..) {
            let share = step as f32 / steps as f32;
            *value = (1.0 - share) * from + share * to;
        }
    }
    Some(values.len() - known.len())
}

/// The values of one channel, NaN where one is missing.
fn channel(text: &str, place: &str) -> Result<Vec<f32>> {
    let value = |text: &str| match text.trim() {
        "?" | "NaN" | "nan" => Ok(f32::NAN),
        text => match text.parse::<f32>() {
            Ok(x) if x.is_finite() => Ok(x),
            _ => bail!("{place}: expected a finite number or `?`, found `{}`", word(text)),
        },
    };
    text.split(',').map(value).collect()
}

/// Reads the text of a file called `name`.
pub(crate) fn parse(name: &str, text: &str) -> Result<Problem> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let mut classes: Option<Vec<String>> = None;
    loop {
        let Some((at, line)) = lines.next() else { bail!("{name}: no series file: it has no line `@data`") };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default().to_lowercase();
        let flag = words.next().unwrap_or_default().eq_ignore_ascii_case("true");
        match key.as_str() {
            "@data" => break,
            "@timestamps" => ensure!(!flag, "{name}, line {at}: series with time stamps are not read"),
            "@targetlabel" => ensure!(!flag, "{name}, line {at}: a regression problem; expected class labels or none"),
            "@classlabel" if flag => {
                let listed: Vec<String> = words.map(str::to_string).collect();
                ensure!(!listed.is_empty(), "{name}, line {at}: `@classLabel true` lists no class");
                ensure!(listed.len() <= 1 << 16, "{name}, line {at}: more than 65,536 classes");
                classes = Some(listed);
            }
            key => ensure!(key.starts_with('@'), "{name}, line {at}: expected `@` and a key before `@data`"),
        }
    }
    let mut problem = Problem { series: Series::default(), classes, labels: Vec::new(), missing: 0 };
    problem.series.bounds.push(0);
    for (at, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        problem.push(line, &format!("{name}, line {at}"))?;
    }
    ensure!(problem.series.len() > 0, "{name}: there is no series behind `@data`");
    Ok(problem)
}

impl Problem {
    /// Reads one line of data.
    fn push(&mut self, line: &str, place: &str) -> Result<()> {
        let mut parts: Vec<&str> = line.split(':').collect();
        if let Some(classes) = &self.classes {
            let label = parts.pop().unwrap_or_default().trim();
            let Some(label) = classes.iter().position(|class| class == label) else {
                bail!("{place}: the label `{}` is not listed in the header", word(label));
            };
            self.labels.push(label as u16);
        }
        let channels = parts.len();
        let first = self.series.len() == 0;
        ensure!(channels > 0, "{place}: a label without a series");
        ensure!(
            first || channels == self.series.channels,
            "{place}: {channels} channels, the first series has {}",
            self.series.channels
        );
        self.series.channels = channels;
        let mut steps = None;
        for part in parts {
            let mut values = channel(part, place)?;
            let expected = *steps.get_or_insert(values.len());
            ensure!(values.len() == expected, "{place}: channels of {expected} and {} steps", values.len());
            let missing = interpolate(&mut values).with_context(|| format!("{place}: a channel without a value"))?;
            self.missing += missing;
            self.series.values.extend(values);
        }
        self.series.bounds.push(self.series.values.len());
        Ok(())
    }
}

/// Where the test part of `X_TRAIN.ts` lies: `X_TEST.ts`.
fn beside(train: &Path) -> Result<PathBuf> {
    let name = train.file_name().unwrap_or_default().to_string_lossy();
    let Some((stem, end)) = name.rsplit_once("_TRAIN.ts") else {
        bail!("{}: expected the file of a training part, NAME_TRAIN.ts", train.display());
    };
    let test = train.with_file_name(format!("{stem}_TEST.ts{end}"));
    ensure!(test.is_file(), "{}: the test part of {} is missing", test.display(), train.display());
    Ok(test)
}

/// The training part at `path` and the test part beside it, packed by gzip or not, of which `set` makes a data set.
pub(crate) fn open(path: &Path, set: impl Fn(Problem, Problem) -> Result<Dataset>) -> Result<Dataset> {
    let read = |path: &Path| {
        let name = path.display().to_string();
        parse(&name, &utf8(&name, Content::open(path)?.all()?)?)
    };
    let train = read(path)?;
    let test = beside(path)?;
    set(train, read(&test)?).with_context(|| format!("{} and {}", path.display(), test.display()))
}

/// Whether two parts belong to one problem.
fn agree(train: &Problem, test: &Problem) -> Result<()> {
    ensure!(
        train.series.channels == test.series.channels,
        "the training part has {} channels, the test part {}",
        train.series.channels,
        test.series.channels
    );
    ensure!(train.classes == test.classes, "the training part and the test part list different classes");
    Ok(())
}

/// A data set of the two parts of a problem.
pub(crate) fn dataset(train: Problem, test: Problem) -> Result<Dataset> {
    agree(&train, &test)?;
    let note = match train.missing + test.missing {
        0 => String::new(),
        missing => format!("{missing} missing values are interpolated"),
    };
    let normalisation = train.series.normalisation();
    let native_size = train.series.longest().max(test.series.longest());
    let classes = train.classes.clone().unwrap_or_default();
    let part = |problem: Problem| match problem.classes {
        Some(_) => Part::labelled(problem.series, problem.labels),
        None => Part::unlabelled(problem.series),
    };
    Ok(Dataset {
        name: String::new(),
        classes,
        train: part(train),
        test: Some(part(test)),
        unlabelled: None,
        normalisation,
        native_size,
        vocabulary: None,
        note,
    })
}
