//! What LibTorch has and tch does not bind, as a safe API over a small C++ shim.
//!
//! The only crate of the workspace with C++ or `unsafe`. Call [`init`] before anything else asks LibTorch for a
//! device: whether CUDA exists is answered once in a process and then remembered.

// The workspace denies unsafe code; calls into the shim are what this crate is for.
#![allow(unsafe_code)]

mod autocast;
mod device;
mod distributed;
mod ffi;
mod generator;
mod settings;
mod update;

pub use autocast::{Autocast, autocast, without_autocast};
pub use device::{Memory, init, memory, reset_peak_memory, synchronize};
pub use distributed::{Given, Group, Meeting, Reducer, RunningMoments};
pub use generator::{generator_state, seed, set_generator_state};
pub use settings::{deterministic, tf32, threads};
pub use update::{AdamW, Sgd, adamw_, add_, clear_grads, lerp_, mul_, norms, same_layout, scale_, sgd_};

/// The heap of every program of the workspace, tensors on the CPU included, since `malloc` itself is replaced. glibc's
/// either gives each step's large tensors back to the system, and their pages fault in again, or grows by the holes that
/// tensors of changing size leave (docs/decisions/0027).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;
