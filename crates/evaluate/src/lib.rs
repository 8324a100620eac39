//! Features and labels in, scores out. Nothing here knows a method.
//!
//! Three rules hold throughout: test labels choose nothing, what is random is keyed by the seed and by what it is for,
//! and memory is bounded by blocks, not by the product of two set sizes.

pub mod features;
pub mod finetune;
pub mod geometry;
pub mod knn;
mod lbfgs;
pub mod linear;
pub mod ridge;
pub mod split;

pub use features::Features;
pub use finetune::{Classifier, Finetune, FinetuneScore, Labelled, Network, Stopped, finetune};
pub use geometry::{Geometry, effective_rank, normalised_std};
pub use knn::Knn;
pub use linear::{Linear, LinearScore};
pub use ridge::{Ridge, RidgeScore};
