//! How far a run has come, and schedules as functions of it.
//!
//! A schedule has no state: a resumed run computes the value of its step and replays nothing.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// A moment of a run, just before optimiser step `step` (both counts start at 0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Optimiser steps done so far.
    pub step: u64,
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// The epoch this step belongs to.
    pub epoch: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
}

impl Progress {
    /// The share of the run that lies behind, 0 at the first step and 1 after the last.
    pub fn fraction(&self) -> f64 {
        self.step as f64 / self.steps.max(1) as f64
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps / self.epochs.max(1)
    }
}

/// Half a cosine from `start` (at 0) to `end` (at 1): `end + (start - end)(cos(pi x) + 1) / 2`.
///
/// With `start = tau_base` and `end = 1` this is BYOL's schedule of the target rate (section 3.3).
pub fn cosine(start: f64, end: f64, fraction: f64) -> f64 {
    end + (start - end) * ((std::f64::consts::PI * fraction.clamp(0.0, 1.0)).cos() + 1.0) / 2.0
}

/// How the learning rate falls behind the warm-up, as it stands in a configuration: `name = "steps"`, ...
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// Along half a cosine.
    Cosine {
        /// The rate at the end as a share of its peak.
        #[serde(default)]
        floor: f64,
    },
    /// Along a line (BERT).
    Linear {
        /// As of the cosine.
        #[serde(default)]
        floor: f64,
    },
    /// Multiplied by `by` at the beginning of each of these epochs (MoCo v1: 0.1 at 120 and 160 of 200).
    Steps { at: Vec<f64>, by: f64 },
    /// Not at all.
    Constant {},
}

impl Schedule {
    /// Refuses numbers that no run can mean.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Cosine { floor } | Self::Linear { floor } => ensure!(
                floor.is_finite() && *floor >= 0.0,
                "the schedule's `floor` must be a number of 0 or more, but is {floor}"
            ),
            Self::Steps { at, by } => {
                ensure!(by.is_finite() && *by > 0.0, "the schedule's `by` must be above 0, but is {by}");
                ensure!(
                    at.iter().all(|epoch| epoch.is_finite() && *epoch >= 0.0),
                    "the schedule's `at` must hold epochs of 0 or more, but is {at:?}"
                );
            }
            Self::Constant {} => {}
        }
        Ok(())
    }

    /// The learning rate of a step: a linear warm-up over the first `warmup` epochs, then the schedule over the rest.
    ///
    /// The first step has rate `peak` over the steps of the warm-up, so no step is wasted on a rate of zero; without
    /// warm-up it is `peak`.
    pub fn rate(&self, peak: f64, warmup: f64, at: Progress) -> f64 {
        let (step, per_epoch) = (at.step as f64, at.steps_per_epoch() as f64);
        let warmup = warmup * per_epoch;
        if step < warmup {
            return peak * (step + 1.0).min(warmup) / warmup;
        }
        let fraction = (step - warmup) / (at.steps as f64 - warmup).max(1.0);
        match self {
            Self::Cosine { floor } => cosine(peak, floor * peak, fraction),
            Self::Linear { floor } => peak * (1.0 + (floor - 1.0) * fraction.clamp(0.0, 1.0)),
            Self::Steps { at, by } => {
                let passed = at.iter().filter(|&&epoch| step >= epoch * per_epoch).count();
                peak * by.powi(passed as i32)
            }
            Self::Constant {} => peak,
        }
    }
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::Cosine { floor: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byol_target_rate() {
        // BYOL section 3.3 with tau_base = 0.996: 0.996 at the start, 0.998 half way, 1 at the end.
        for (fraction, tau) in [(0.0, 0.996), (0.5, 0.998), (1.0, 1.0)] {
            assert!((cosine(0.996, 1.0, fraction) - tau).abs() < 1e-12);
        }
    }

    /// Eleven epochs of ten steps, the first of them warm-up.
    fn rate(schedule: &Schedule, step: u64) -> f64 {
        schedule.rate(2.0, 1.0, Progress { step, steps: 110, epoch: step / 10, epochs: 11 })
    }

    #[test]
    fn warmup_rises_to_the_peak_and_the_rate_falls_to_the_floor() {
        for schedule in [Schedule::Cosine { floor: 0.1 }, Schedule::Linear { floor: 0.1 }] {
            for (step, expected) in [(0, 0.2), (9, 2.0), (10, 2.0), (60, 1.1), (110, 0.2)] {
                assert!((rate(&schedule, step) - expected).abs() < 1e-12, "{schedule:?} {step}");
            }
            assert!((10..110).all(|step| rate(&schedule, step + 1) < rate(&schedule, step)));
            let bare = schedule.rate(1.0, 0.0, Progress { step: 0, steps: 10, epoch: 0, epochs: 1 });
            assert_eq!(bare, 1.0);
        }
        // A quarter of the way a line has lost a quarter, a cosine 0.5 - 0.5 / sqrt 2.
        assert!((rate(&Schedule::Linear { floor: 0.0 }, 35) - 1.5).abs() < 1e-12);
        assert!((rate(&Schedule::Cosine { floor: 0.0 }, 35) - (1.0 + 0.5f64.sqrt())).abs() < 1e-12);
    }

    #[test]
    fn steps_fall_with_the_first_step_of_their_epochs() {
        let steps = Schedule::Steps { at: vec![3.0, 5.5], by: 0.1 };
        for (step, expected) in [(0, 0.2), (10, 2.0), (29, 2.0), (30, 0.2), (54, 0.2), (55, 0.02), (109, 0.02)] {
            assert!((rate(&steps, step) - expected).abs() < 1e-12, "{step}");
        }
        assert!([10, 55, 109].iter().all(|&step| rate(&Schedule::Constant {}, step) == 2.0));
    }

    #[test]
    fn a_schedule_is_read_by_its_name_and_unusable_numbers_are_refused() {
        let read = |text: &str| toml::from_str::<Schedule>(text).map_err(|error| error.to_string());
        assert_eq!(read("name = 'cosine'"), Ok(Schedule::default()));
        assert_eq!(read("name = 'constant'"), Ok(Schedule::Constant {}));
        assert_eq!(read("name = 'steps'\nat = [1.0]\nby = 0.1"), Ok(Schedule::Steps { at: vec![1.0], by: 0.1 }));
        assert!(read("name = 'steps'").expect_err("no epochs").contains("missing field `at`"));
        assert!(read("name = 'constant'\nfloor = 0.1").expect_err("nothing falls").contains("floor"));
        let refused = |schedule: Schedule| schedule.check().expect_err("refused").to_string();
        assert!(
            refused(Schedule::Linear { floor: -0.1 }).contains("`floor` must be a number of 0 or more, but is -0.1")
        );
        assert!(refused(Schedule::Steps { at: vec![1.0], by: 0.0 }).contains("`by` must be above 0"));
        assert!(refused(Schedule::Steps { at: vec![f64::NAN], by: 0.1 }).contains("`at` must hold epochs"));
    }
}
