//! Refusals of numbers in a method's configuration, in one manner: which, what it is, what was expected.

use anyhow::{Result, ensure};

/// A finite number above 0: temperatures, scales.
///
/// # Errors
/// If it is anything else.
pub fn above_zero(key: &str, x: f64) -> Result<()> {
    ensure!(x > 0.0 && x.is_finite(), "{key} is {x}; expected a number above 0");
    Ok(())
}

/// A finite number of 0 or more: weights of parts of a loss.
///
/// # Errors
/// If it is anything else.
pub fn not_negative(key: &str, x: f64) -> Result<()> {
    ensure!(x >= 0.0 && x.is_finite(), "{key} is {x}; expected a number of at least 0");
    Ok(())
}

/// From 0 to 1: rates of moving averages, probabilities.
///
/// # Errors
/// If it is anything else.
pub fn share(key: &str, x: f64) -> Result<()> {
    ensure!((0.0..=1.0).contains(&x), "{key} is {x}; expected a number from 0 to 1");
    Ok(())
}

/// At least 1: widths, numbers of clusters, lengths of queues.
///
/// # Errors
/// If it is less.
pub fn at_least_one(key: &str, n: i64) -> Result<()> {
    ensure!(n >= 1, "{key} is {n}; expected at least 1");
    Ok(())
}

/// From 1 to `most`: numbers of layers, of which a slip of the finger would fill the memory.
///
/// # Errors
/// If it is anything else.
pub fn one_to(most: usize, key: &str, n: usize) -> Result<()> {
    ensure!((1..=most).contains(&n), "{key} is {n}; expected 1 to {most}");
    Ok(())
}
