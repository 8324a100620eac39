//! The only crate that knows every method: registry, presets, runs, studies, claims and reports behind the binary `selfsup`.

pub mod claim;
pub mod config;
pub mod distributed;
pub mod estimate;
pub mod evaluation;
pub mod features;
pub mod first_stage;
pub mod generation;
pub mod memory;
pub mod message;
pub mod objective;
pub mod portrait;
pub mod preset;
pub mod progress_bar;
pub mod registry;
pub mod reporting;
pub mod run;
pub mod study;
pub mod weights;
