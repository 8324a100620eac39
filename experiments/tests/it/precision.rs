//! bf16 inside networks keeps what the features are worth.

use selfsup_experiments::config::{RunConfig, parse_override};
use selfsup_experiments::run::{End, Folder, execute};
use std::sync::atomic::AtomicBool;

/// kNN accuracy of a short SimCLR run on 4,000 images, on 2,000 others.
fn knn(precision: &str) -> f64 {
    let overrides = [
        format!("train.precision=\"{precision}\""),
        "train.epochs=4".into(),
        "data=fashion-mnist-10k:4000".into(),
        "evaluate.protocols=[\"knn\"]".into(),
        "evaluate.online_every=0".into(),
    ];
    let layers: Vec<_> = overrides.iter().map(|o| parse_override(o).expect("an override")).collect();
    let config = RunConfig::resolve("simclr/cpu", &layers).expect("a configuration");
    let dataset = crate::dataset(&config);
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder { path: place.path(), study: "precision", resume: false };
    match execute(&config, &dataset, &crate::machine(), &folder, &AtomicBool::new(false)).expect("a run") {
        End::Done(rows) => rows[0].value.expect("a score"),
        End::Stopped => unreachable!("nobody asked it to stop"),
    }
}

#[test]
fn bf16_keeps_knn_accuracy() {
    let (full, half) = (knn("f32"), knn("bf16"));
    // The standard error of an accuracy near 0.76 on 2,000 images is 0.0095; of the difference of two, were they
    // independent, 0.0135. The two runs see the same images and views, so three of these are a wide bound.
    assert!((full - half).abs() < 3.0 * 0.0135, "kNN {full} in f32, {half} in bf16");
    assert!(half > 0.6, "bf16 has learned nothing: kNN {half}");
}
