//! Presets: what a recipe changes of the defaults, one TOML file each in `presets/METHOD/`, compiled into the program.

use crate::registry::did_you_mean;
use anyhow::{Context, Result};

macro_rules! presets {
    ($($method:literal: $($name:literal),+;)+) => {
        /// (method, preset, text of its file).
        pub const PRESETS: &[(&str, &str, &str)] = &[
            $($(($method, $name, include_str!(concat!("../presets/", $method, "/", $name, ".toml"))),)+)+
        ];
    };
}

presets! {
    "next-step": "cpu", "cpu-regression", "librispeech";
    "gpt": "cpu", "cpu-speeches", "cpu-image", "cpu-series", "shakespeare-char", "imagenet-igpt-s";
    "pixelcnn": "cpu", "cpu-plain", "cpu-codes", "cifar10", "cifar10-codes";
    "vq-vae": "cpu", "cifar10";
    "bert": "cpu", "bert-base";
    "mae": "cpu", "cifar10-solo", "imagenet-vit-base";
    "rotnet": "cpu", "cifar10";
    "jigsaw": "cpu", "cpu-3x3", "imagenet-2016", "imagenet-resnet50";
    "augself": "cpu", "cifar10";
    "vq-gan": "cpu", "imagenet-f16";
    "dall-e": "cpu", "cpu-dvae", "cpu-classes", "cpu-classes-dvae", "emoji", "emoji-dvae", "paper", "paper-dvae";
    "simclr": "cpu", "cifar10-solo-2021", "cifar10-solo-yaml", "cifar10-lightly", "imagenette-lightly", "imagenet-resnet50";
    "moco": "cpu", "cifar10-solo-2021", "cifar10-solo-yaml", "cifar10-lightly", "imagenette-lightly", "imagenet-resnet50", "imagenet-resnet50-v1";
    "instdisc": "cpu", "cifar10", "imagenet-resnet50";
    "triplet": "cpu", "imagenet-resnet50";
    "deepcluster": "cpu", "cpu-v2", "cifar10-solo-2021", "cifar10-solo-yaml", "imagenet-resnet50", "imagenet-resnet50-v2";
    "swav": "cpu", "cpu-multicrop", "cifar10-solo-2021", "cifar10-solo-yaml", "cifar10-lightly", "imagenette-lightly", "imagenet-resnet50";
    "interclr": "cpu", "imagenet-resnet50";
    "barlow-twins": "cpu", "cifar10-solo-2021", "cifar10-solo-yaml", "cifar10-lightly", "imagenette-lightly", "imagenet-resnet50";
    "byol": "cpu", "cifar10-solo-2021", "cifar10-solo-yaml", "cifar10-lightly", "imagenette-lightly", "imagenet-resnet50";
    "simsiam": "cpu", "cifar10", "cifar10-solo-2021", "cifar10-solo-yaml", "cifar10-lightly", "imagenette-lightly", "imagenet-resnet50", "stl10-augself";
    "vicreg": "cpu", "cifar10-solo-2021", "cifar10-solo-yaml", "imagenette-lightly", "imagenet-resnet50";
}

/// The settings of a preset.
///
/// # Errors
/// If the method has no such preset; the message lists those it has.
pub fn find(method: &str, name: &str) -> Result<toml::Table> {
    let own: Vec<&str> = PRESETS.iter().filter(|p| p.0 == method).map(|p| p.1).collect();
    let (_, _, text) = PRESETS.iter().find(|p| (p.0, p.1) == (method, name)).with_context(|| {
        let hint = did_you_mean(name, own.iter().copied());
        match own.as_slice() {
            [] => format!("{method} has no presets; leave `/{name}` out"),
            _ => format!("{method} has no preset `{name}`{hint}; it has {}", own.join(", ")),
        }
    })?;
    text.parse().with_context(|| format!("in the preset {method}/{name}"))
}
