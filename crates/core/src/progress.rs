//! How far a run has come, and schedules as functions of it.
//!
//! A schedule has no state: a resumed run computes the value of its step and replays nothing.

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

/// Linear warm-up over the first `warmup` steps, then half a cosine from `peak` to `floor` over the rest.
///
/// The first step has rate `peak / warmup`, so no step is wasted on a rate of zero; without warm-up it is `peak`.
pub fn warmup_cosine(peak: f64, floor: f64, warmup: f64, at: Progress) -> f64 {
    let step = at.step as f64;
    if step < warmup {
        return peak * (step + 1.0).min(warmup) / warmup;
    }
    cosine(peak, floor, (step - warmup) / (at.steps as f64 - warmup).max(1.0))
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

    #[test]
    fn warmup_rises_to_the_peak_and_falls_to_the_floor() {
        let rate = |step| warmup_cosine(1.0, 0.1, 10.0, Progress { step, steps: 110, epoch: 0, epochs: 11 });
        assert!((rate(0) - 0.1).abs() < 1e-12);
        assert!((rate(9) - 1.0).abs() < 1e-12);
        assert!((rate(10) - 1.0).abs() < 1e-12);
        assert!((rate(60) - 0.55).abs() < 1e-12);
        assert!((rate(110) - 0.1).abs() < 1e-12);
        assert!((10..110).all(|step| rate(step + 1) < rate(step)));
        let bare = |step| warmup_cosine(1.0, 0.0, 0.0, Progress { step, steps: 10, epoch: 0, epochs: 1 });
        assert_eq!(bare(0), 1.0);
    }
}
