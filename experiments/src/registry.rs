//! The methods. Their order here is their order in every table.

use anyhow::{Result, bail};
use selfsup_core::method::{Entry, entry};

/// One line per method.
pub const METHODS: &[Entry] = &[
    entry::<next_step::NextStep>(),
    entry::<gpt::Gpt>(),
    entry::<pixelcnn::PixelCnn>(),
    entry::<vq_vae::VqVae>(),
    entry::<bert::Bert>(),
    entry::<mae::Mae>(),
    entry::<rotnet::RotNet>(),
    entry::<jigsaw::Jigsaw>(),
    entry::<augself::AugSelf>(),
    entry::<vq_gan::VqGan>(),
    entry::<dall_e::DallE>(),
    entry::<simclr::SimClr>(),
    entry::<moco::MoCo>(),
    entry::<instdisc::InstDisc>(),
    entry::<triplet::Triplet>(),
    entry::<deepcluster::DeepCluster>(),
    entry::<swav::SwAv>(),
    entry::<interclr::InterClr>(),
    entry::<barlow_twins::BarlowTwins>(),
    entry::<byol::Byol>(),
    entry::<simsiam::SimSiam>(),
    entry::<vicreg::VicReg>(),
];

/// Names that stand for no method in a comparison: the untrained encoder, and the encoder trained with labels.
pub const RANDOM: &str = "random";
/// See [`RANDOM`].
pub const SUPERVISED: &str = "supervised";

/// The method called `name`.
///
/// # Errors
/// If there is none; the message names the nearest and lists all.
pub fn find(name: &str) -> Result<&'static Entry> {
    if let Some(entry) = METHODS.iter().find(|entry| entry.name == name) {
        return Ok(entry);
    }
    let names: Vec<&str> = METHODS.iter().map(|entry| entry.name).collect();
    bail!("unknown method `{name}`{}; there are {}", did_you_mean(name, names.iter().copied()), names.join(", "))
}

/// `: did you mean x?` for the nearest of `known`, if any is near.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|k| (strsim::normalized_damerau_levenshtein(name, k), k));
    match nearest.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, nearest)) if likeness >= 0.5 => format!(": did you mean `{nearest}`?"),
        _ => String::new(),
    }
}
