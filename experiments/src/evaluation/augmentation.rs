//! Protocol `augmentation`: how much of what was done to an image its features tell, by ridge regression.

use super::{BATCH, embedding};
use crate::config::RunConfig;
use crate::run::Subject;
use anyhow::{Result, bail};
use augself::{Part, Targets};
use selfsup_core::augment::views::render_views;
use selfsup_core::data::Samples;
use selfsup_core::method::Shape;
use selfsup_core::{Device, Kind, Tensor, group};
use selfsup_datasets::Dataset;

/// `r2_NAME` for each number that AugSelf tells of a view (a crop's centre is where the network sees it, what was not
/// jittered has no colour shift): fitted on one view of each training image, measured on one of each test image. Then
/// the same of the projector's output, `embedding_r2_NAME`, where there is one.
///
/// # Errors
/// If the data are no images, or an image cannot be read.
pub(super) fn augmentation(
    config: &RunConfig,
    subject: &Subject,
    dataset: &Dataset,
    test: &dyn Samples,
) -> Result<Vec<(String, f64)>> {
    let Shape::Image(image) = subject.shape else {
        bail!(
            "protocol `augmentation` tells how images were augmented, but the data are {}: leave it out",
            subject.shape.plural()
        )
    };
    let recipe = &config.evaluate.augmentation.recipe;
    let targets = Targets::new(&[recipe.clone(), recipe.clone()], image.channels)?;
    let names: Vec<&str> = Part::ALL.iter().flat_map(|&part| targets.names(part)).collect();
    if names.is_empty() {
        bail!("protocol `augmentation`: `evaluate.augmentation.recipe` changes nothing, so there is nothing to tell");
    }
    // Features [N, D] of augmented images, and omega [N, n]. No epoch of training has these numbers.
    let views = |f: &dyn Fn(&Tensor) -> Tensor, samples: &dyn Samples, epoch: u64| -> Result<[Tensor; 2]> {
        let rows: Vec<usize> = (0..samples.len()).collect();
        let batches: Vec<&[usize]> = rows.chunks(BATCH).collect();
        // Both side by side, as one pass gives them.
        let both = group::in_shares(batches.len(), |i| {
            let (recipes, size) = (std::slice::from_ref(recipe), image.size as usize);
            let views = render_views(samples, batches[i], recipes, size, &dataset.normalisation, config.seed, epoch)?;
            let view = views[0].to_view(subject.store.device());
            let parts = Part::ALL.into_iter().filter(|&part| targets.width(part) > 0);
            let omega = parts.map(|part| targets.omega(part, &view.params));
            let both: Vec<Tensor> = std::iter::once(f(&view.x)).chain(omega).collect();
            let both: Vec<Tensor> = both.iter().map(|x| x.to_kind(Kind::Float).to_device(Device::Cpu)).collect();
            Ok(Tensor::cat(&both, 1))
        })?;
        let d = both.size()[1] - names.len() as i64;
        Ok([both.narrow(1, 0, d).contiguous(), both.narrow(1, d, names.len() as i64).contiguous()])
    };
    let mut values = Vec::new();
    let mut measure = |prefix: &str, f: &dyn Fn(&Tensor) -> Tensor| -> Result<()> {
        let (train, test) = (views(f, &*dataset.train.samples, u64::MAX - 1)?, views(f, test, u64::MAX)?);
        let scores =
            config.evaluate.augmentation.ridge.score([&train[0], &train[1]], [&test[0], &test[1]], config.seed)?;
        values.extend(names.iter().zip(scores).map(|(name, score)| (format!("{prefix}r2_{name}"), score.r2)));
        Ok(())
    };
    measure("", &|x| subject.method.features(x, false))?;
    if let Some(embed) = embedding(test, subject, dataset)? {
        measure("embedding_", &embed)?;
    }
    Ok(values)
}
