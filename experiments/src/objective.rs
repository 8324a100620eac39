//! `selfsup loss`: a method's loss on given embeddings, to hold it against any other implementation.

use crate::config::{RunConfig, merge};
use crate::registry;
use anyhow::{Context, Result, ensure};
use selfsup_core::objective::Given;
use selfsup_core::{Kind, Tensor};
use selfsup_train::checkpoint;
use std::collections::HashMap;
use std::path::Path;
use toml::Table;

/// A loss and its gradients.
pub struct Objective {
    pub loss: f64,
    /// `grad_a`, and `grad_b` where the loss reads a `b`; zero where the method stops the gradient.
    pub gradients: Vec<(String, Tensor)>,
    /// Tensors of the file that the loss does not read.
    pub unused: Vec<String>,
}

/// The loss of `method` (`simclr`, `simclr/PRESET`), its own settings changed by `overrides`, on the tensors of a
/// safetensors file. Everything is computed in f64, so that what differs elsewhere is the other side's rounding.
///
/// # Errors
/// If the method has no such loss, a setting is unknown, the file cannot be read, or a tensor is missing or of a wrong
/// shape.
pub fn objective(method: &str, file: &Path, overrides: &[Table]) -> Result<Objective> {
    let config = RunConfig::resolve(method, &[])?;
    let entry = registry::find(config.name())?;
    ensure!(
        !entry.inputs.is_empty(),
        "{} has no loss on embeddings alone; those that have one: {}",
        entry.name,
        registry::METHODS.iter().filter(|e| !e.inputs.is_empty()).map(|e| e.name).collect::<Vec<_>>().join(", ")
    );
    let mut settings = config.settings();
    for layer in overrides {
        merge(&mut settings, layer, "")?;
    }
    let tensors = checkpoint::read(file)?.tensors;
    let mut unused: Vec<String> =
        tensors.keys().filter(|name| !entry.inputs.contains(&name.as_str())).cloned().collect();
    unused.sort();
    let double = |(name, x): (String, Tensor)| {
        let x = if x.is_floating_point() { x.to_kind(Kind::Double) } else { x };
        let trained = x.is_floating_point() && (name == "a" || name == "b");
        (name, x.set_requires_grad(trained))
    };
    let given: Vec<(String, Tensor)> = tensors.into_iter().map(double).collect();
    let copies = given.iter().map(|(name, x)| (name.clone(), x.shallow_clone()));
    let loss = (entry.objective)(&settings, &Given::new(copies)).with_context(|| file.display().to_string())?;
    if loss.requires_grad() {
        loss.backward();
    }
    let mut gradients: Vec<(String, Tensor)> = given
        .iter()
        .filter(|(name, x)| x.requires_grad() && entry.inputs.contains(&name.as_str()))
        .map(|(name, x)| {
            let gradient = if x.grad().defined() { x.grad() } else { x.zeros_like() };
            (format!("grad_{name}"), gradient.to_kind(Kind::Float))
        })
        .collect();
    gradients.sort_by(|x, y| x.0.cmp(&y.0));
    Ok(Objective { loss: loss.double_value(&[]), gradients, unused })
}

impl Objective {
    /// Writes the gradients as a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        checkpoint::write(path, &self.gradients, HashMap::new())
    }
}

/// A number with nine significant digits, without an exponent where that is readable.
pub fn nine_digits(x: f64) -> String {
    let magnitude = if x == 0.0 || !x.is_finite() { 0.0 } else { x.abs().log10().floor() };
    if (-5.0..9.0).contains(&magnitude) { format!("{x:.*}", (8.0 - magnitude) as usize) } else { format!("{x:.8e}") }
}

#[cfg(test)]
mod tests {
    use super::nine_digits;

    #[test]
    fn numbers_have_nine_significant_digits() {
        for (x, text) in [
            (2.811_567_987_654, "2.81156799"),
            (-0.015_964_123_456_7, "-0.0159641235"),
            (102.306_704_123_4, "102.306704"),
            (123_456_789.4, "123456789"),
            (0.0, "0.00000000"),
            (1.5e-7, "1.50000000e-7"),
            (3.0e12, "3.00000000e12"),
        ] {
            assert_eq!(nine_digits(x), text);
        }
    }
}
