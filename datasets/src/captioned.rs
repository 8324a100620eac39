//! Images with a caption each.

use crate::dataset::Part;
use crate::vocabulary::Vocabulary;
use anyhow::{Context as _, Result};
use selfsup_core::data::{Captions, Modality, Sample, Samples};
use std::borrow::Cow;
use std::sync::Arc;

/// Images and, in the same order, the ids of their captions.
pub(crate) struct Captioned {
    images: Arc<dyn Samples>,
    captions: Vec<Vec<u32>>,
    shape: Captions,
}

impl Captioned {
    /// With one of `texts` for each image.
    pub(crate) fn new(images: Arc<dyn Samples>, texts: &[&str], vocabulary: &Vocabulary) -> Result<Captioned> {
        debug_assert_eq!(images.len(), texts.len());
        let captions: Vec<Vec<u32>> = texts.iter().map(|text| vocabulary.encode(text)).collect::<Result<_>>()?;
        let length = captions.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Captioned { images, captions, shape: Captions { vocabulary: vocabulary.len(), length } })
    }
}

impl Samples for Captioned {
    fn len(&self) -> usize {
        self.captions.len()
    }

    fn modality(&self) -> Modality {
        self.images.modality()
    }

    fn sample(&self, index: usize) -> Result<Sample<'_>> {
        self.images.sample(index)
    }

    fn caption(&self, index: usize) -> Option<Cow<'_, [u32]>> {
        self.captions.get(index).map(|caption| Cow::Borrowed(&caption[..]))
    }

    fn captions(&self) -> Option<Captions> {
        Some(self.shape)
    }
}

/// The same images, captioned by the name of their class: whoever is trained on these captions is trained on labels.
/// `names` are in the order of the classes.
pub(crate) fn by_class(part: Part, names: &[String], vocabulary: &Vocabulary) -> Result<Part> {
    let labels = part.labels.context("a class is named by its label")?;
    let texts: Vec<&str> = labels.iter().map(|&label| names[usize::from(label)].as_str()).collect();
    Ok(Part::labelled(Captioned::new(part.samples, &texts, vocabulary)?, labels))
}
