//! Protocol `layers`: how much of the classes stands behind each stage of the encoder, and behind the projector.

use super::{embedding, extract, first};
use crate::config::RunConfig;
use crate::run::Subject;
use anyhow::{Result, ensure};
use selfsup_core::Tensor;
use selfsup_core::data::Samples;
use selfsup_core::encoder::stages;
use selfsup_datasets::Dataset;
use selfsup_evaluate::{Features, Labelled};

/// `knn_blockI` and `linear_blockI`, I from 1 at the input, and `knn_embedding` and `linear_embedding` where there is a
/// projector. All by the probes of the protocols `knn` and `linear`.
///
/// # Errors
/// If the features come from no encoder that shows its stages, or a probe fails.
pub(super) fn layers(
    config: &RunConfig,
    subject: &Subject,
    dataset: &Dataset,
    [train, test]: [Labelled; 2],
) -> Result<Vec<(String, f64)>> {
    let heard = |x: &Tensor| stages::listen(config.evaluate.layer_grid, || subject.method.features(x, false));
    let widths: Vec<i64> =
        first(test.samples, |x| heard(x).iter().map(|stage| stage.size()[1]).collect(), subject, dataset)?;
    ensure!(
        !widths.is_empty(),
        "protocol `layers`: the features of {} come from no encoder that shows its stages: leave it out",
        config.name()
    );
    let features = |f: &dyn Fn(&Tensor) -> Tensor, samples: &dyn Samples| extract(f, samples, subject, dataset);
    // All stages side by side, [B, D_1 + D_2 + ..]: one pass of the images gives them.
    let joined = |x: &Tensor| Tensor::cat(&heard(x), 1);
    let (bank, queries) = (features(&joined, train.samples)?, features(&joined, test.samples)?);
    let mut values = Vec::new();
    let mut probe = |name: &str, bank: Tensor, queries: Tensor| -> Result<()> {
        let labels = |labels: &[i64]| Tensor::from_slice(labels);
        let (bank, queries) =
            (Features::new(bank, labels(train.labels))?, Features::new(queries, labels(test.labels))?);
        let classes = dataset.classes.len();
        values.push((format!("knn_{name}"), config.evaluate.knn.accuracy(&bank, &queries, classes)?));
        let score = config.evaluate.linear.score(&bank, &queries, classes, config.seed)?;
        values.push((format!("linear_{name}"), score.accuracy));
        Ok(())
    };
    let mut from = 0;
    for (i, width) in widths.into_iter().enumerate() {
        let stage = |x: &Tensor| x.narrow(1, from, width).contiguous();
        probe(&format!("block{}", i + 1), stage(&bank), stage(&queries))?;
        from += width;
    }
    if let Some(embed) = embedding(test.samples, subject, dataset)? {
        probe("embedding", features(&embed, train.samples)?, features(&embed, test.samples)?)?;
    }
    Ok(values)
}
