//! All that a self-supervised method may use, and the contract that it keeps.
//!
//! A method file imports this crate and no other of the workspace.
//! What is here is used by two methods or more, or by everything around them; what one paper alone needs stays in
//! that method's file.

pub mod augment;
pub mod check;
pub mod cluster;
pub mod codebook;
pub mod coder;
pub mod data;
pub mod decoder;
pub mod ema;
pub mod encoder;
pub mod golden;
pub mod group;
pub mod head;
pub mod layer;
pub mod loss;
pub mod memory;
pub mod method;
pub mod objective;
pub mod optimiser;
pub mod precision;
pub mod progress;
pub mod rng;
pub mod store;
pub mod tensor;

pub use selfsup_torch_ext as torch_ext;
pub use tch::{self, Device, Kind, Tensor, no_grad};
