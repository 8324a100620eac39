//! The training loop, checkpoints and records. It knows the contract and no method; it sees no label.

pub mod checkpoint;
mod fit;
pub mod pickle;
mod record;

pub use fit::{Event, Outcome, Run, TrainConfig, checkpoint_path, fit, load_weights};
pub use record::Record;

#[cfg(test)]
mod tests;
