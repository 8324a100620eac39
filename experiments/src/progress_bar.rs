//! What a person sees of a run: a bar on a terminal, a line per epoch elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use selfsup_core::progress::Progress;
use std::io::IsTerminal;
use std::time::Instant;

/// The display of one run's training.
pub struct Display {
    bar: ProgressBar,
    name: String,
    batch: u64,
    /// When the steps that are timed began and ended.
    timed: [Instant; 2],
    /// How many they are; the first of a process sets things up, and gives way to those behind it.
    steps: u64,
    warm: bool,
    loss: f64,
    online: String,
}

impl Display {
    /// For a run called `name` with `batch` images a step.
    pub fn new(name: &str, batch: usize) -> Display {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix:16} {bar:24} {percent:>3} % {msg} ETA {eta}")
            .expect("the template is valid");
        bar.set_style(style);
        bar.set_prefix(name.to_string());
        let (name, batch, timed) = (name.into(), batch as u64, [Instant::now(); 2]);
        Display { bar, name, batch, timed, steps: 0, warm: false, loss: f64::NAN, online: String::new() }
    }

    /// A step was done.
    pub fn step(&mut self, at: Progress, loss: f64) {
        if self.bar.length() != Some(at.steps) {
            self.bar.set_length(at.steps);
            self.bar.set_position(at.step - 1);
            self.bar.reset_eta();
        }
        if self.steps == 1 && !self.warm {
            (self.timed[0], self.steps, self.warm) = (self.timed[1], 0, true);
        }
        self.steps += 1;
        self.timed[1] = Instant::now();
        self.loss = loss;
        self.bar.set_position(at.step);
        if self.steps.is_multiple_of(8) {
            let epoch = at.epoch.min(at.epochs - 1) + 1;
            self.bar.set_message(format!(
                "epoch {epoch}/{} loss {loss:.3} {:.0} images/s{}",
                at.epochs,
                self.images_per_second(),
                self.online
            ));
        }
    }

    /// An epoch was done, with what was seen of the features.
    pub fn epoch(&mut self, at: Progress, metrics: &[(String, f64)]) {
        let metrics: Vec<String> = metrics.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
        self.online = metrics.iter().map(|m| format!(" {m}")).collect();
        if self.bar.is_hidden() {
            eprintln!(
                "{} epoch {}/{} loss {:.4} {:.0} images/s{}",
                self.name,
                at.epoch,
                at.epochs,
                self.loss,
                self.images_per_second(),
                self.online
            );
        }
    }

    /// Images trained on per second by this process behind its first step, evaluation and checkpoints between epochs
    /// included.
    pub fn images_per_second(&self) -> f64 {
        (self.steps * self.batch) as f64 / (self.timed[1] - self.timed[0]).as_secs_f64().max(1e-9)
    }

    /// A line above the bar.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
