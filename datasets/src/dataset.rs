//! What a data set is to the rest of the workspace.

use crate::split::stratified_first;
use crate::vocabulary::Vocabulary;
use anyhow::{Result, ensure};
use selfsup_core::data::{Captions, Modality, Normalisation, Sample, Samples};
use std::borrow::Cow;
use std::sync::Arc;

/// A data set with its official parts.
///
/// Own images (`folder:PATH`) are taken as they lie:
///
/// - `PATH/train/CLASS/...` with `PATH/test/CLASS/...` or, where that has no class folders, `PATH/val/CLASS/...`;
///   images directly in `PATH/unlabelled` (or `unlabeled`) become the unlabelled part;
/// - `PATH/CLASS/...` or `PATH/train/CLASS/...` alone: the fifth part of each class is held out for testing, by
///   [`crate::hold_out`] with seed 0, which the [`note`](Dataset::note) says;
/// - images directly in `PATH` or `PATH/train`: one part without labels.
///
/// Classes are the folders' names, sorted by bytes. Below a class folder all folders are read. Images are decoded
/// when asked for and never kept. They may differ in size and are turned as their EXIF orientation says; transparent
/// pixels are laid over white; 16 bits become 8. All are grey when every file is grey, else all are RGB.
pub struct Dataset {
    /// The name under which it was asked for, limit included; the word for every record.
    pub name: String,
    /// Class names; a label is an index here. Empty without labels.
    pub classes: Vec<String>,
    pub train: Part,
    pub test: Option<Part>,
    /// Images made for pretraining alone (STL-10).
    pub unlabelled: Option<Part>,
    /// Mean and standard deviation of the training pixels; for own images those of ImageNet.
    pub normalisation: Normalisation,
    /// The side of its images in pixels; for own images the shorter side of the first one, at most 224.
    pub native_size: usize,
    /// What the ids of token sequences, or of captions, stand for, where that is text.
    pub vocabulary: Option<Vocabulary>,
    /// What a reader of a result must know: how pixels were decoded, how a part was split off. May be empty.
    pub note: String,
}

/// Images with or without labels.
#[derive(Clone)]
pub struct Part {
    pub samples: Arc<dyn Samples>,
    /// One label an image, below the number of classes.
    pub labels: Option<Vec<u16>>,
}

impl Part {
    /// Images with their labels.
    pub(crate) fn labelled(samples: impl Samples + 'static, labels: Vec<u16>) -> Part {
        debug_assert_eq!(samples.len(), labels.len());
        Part { samples: Arc::new(samples), labels: Some(labels) }
    }

    /// Images without labels.
    pub(crate) fn unlabelled(samples: impl Samples + 'static) -> Part {
        Part { samples: Arc::new(samples), labels: None }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The images (and labels) at `rows`, in that order; shares the pixels with this part.
    ///
    /// # Errors
    /// If a row is not below the number of images.
    pub fn select(&self, rows: &[usize]) -> Result<Part> {
        if let Some(row) = rows.iter().find(|&&row| row >= self.len()) {
            anyhow::bail!("row {row} was asked for, but the part has {} images", self.len());
        }
        let labels = self.labels.as_ref().map(|labels| rows.iter().map(|&row| labels[row]).collect());
        Ok(Part { samples: Arc::new(Selection { samples: Arc::clone(&self.samples), rows: rows.to_vec() }), labels })
    }

    /// The first `n` images, spread evenly over the classes where there are labels.
    pub(crate) fn first(&self, n: usize) -> Result<Part> {
        match &self.labels {
            Some(labels) => self.select(&stratified_first(labels, n)),
            None => self.select(&(0..n.min(self.len())).collect::<Vec<_>>()),
        }
    }
}

impl Dataset {
    /// The same set with every part cut to its first `n` images.
    pub(crate) fn first(self, n: usize) -> Result<Dataset> {
        ensure!(n > 0, "{}: a limit of 0 images leaves nothing to train on", self.name);
        Ok(Dataset {
            train: self.train.first(n)?,
            test: self.test.map(|part| part.first(n)).transpose()?,
            unlabelled: self.unlabelled.map(|part| part.first(n)).transpose()?,
            ..self
        })
    }
}

/// Some rows of other samples.
struct Selection {
    samples: Arc<dyn Samples>,
    rows: Vec<usize>,
}

impl Samples for Selection {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn modality(&self) -> Modality {
        self.samples.modality()
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        self.samples.sample(self.rows[index])
    }

    fn caption(&self, index: usize) -> Option<Cow<'_, [u32]>> {
        self.samples.caption(self.rows[index])
    }

    fn captions(&self) -> Option<Captions> {
        self.samples.captions()
    }
}
