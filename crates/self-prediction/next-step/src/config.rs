//! The numbers of next-step prediction; the defaults are the paper's and its authors'.

use crate::negatives::Source;
use serde::{Deserialize, Serialize};

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Which of several z is the one k steps ahead.
    Cpc,
    /// The values of the next patch.
    Regression,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub objective: Objective,
    /// K, how many patches ahead (section 3.1; table 2: 12 is best). Regression: the next one alone.
    pub steps: i64,
    /// N - 1, negatives of each positive (the authors' later code).
    pub negatives: i64,
    /// Where they come from (table 2; `both` is its row "mixed speaker").
    pub negatives_from: Source,
    /// Regression: whether g gives the difference from each channel's last value, instead of the patch itself.
    pub residual: bool,
    /// Patches that the linear model sees, against which a regression is held.
    pub order: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            objective: Objective::Cpc,
            steps: 12,
            negatives: 128,
            negatives_from: Source::Both,
            residual: false,
            order: 4,
        }
    }
}
