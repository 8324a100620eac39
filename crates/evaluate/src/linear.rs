//! The linear probe: multinomial logistic regression on frozen features.

use crate::features::{Features, check_pair, moments};
use crate::lbfgs::{Minimum, minimise};
use crate::split::{Use, stratified};
use anyhow::{Result, ensure};
use selfsup_core::{Kind, Tensor, group, no_grad};
use serde::{Deserialize, Serialize};

/// How the probe is fitted: mean cross-entropy + penalty / 2 |W|^2 (the bias is free) on standardised features, by
/// full-batch L-BFGS. scikit-learn's `C` is 1 / (penalty N).
///
/// The penalty is the one with the highest accuracy on a held-out part of the *training* features, the strongest of
/// equals; the classifier is then fitted again on all of them. The sweep goes from strong to weak, each fit starting from
/// the last, and ends after two penalties in turn that are worse than the best: the weakest take by far the longest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Linear {
    /// The sweep, in any order. A single penalty is taken as it is.
    pub penalties: Vec<f64>,
    /// The share of each class on which the penalty is chosen.
    pub held_out: f64,
    /// For one fit.
    pub max_iterations: usize,
    /// A fit has converged when no entry of the objective's gradient exceeds this.
    pub tolerance: f64,
}

impl Default for Linear {
    fn default() -> Linear {
        let penalties = vec![10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
        Linear { penalties, held_out: 0.2, max_iterations: 1000, tolerance: 1e-4 }
    }
}

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearScore {
    /// The share of test images classified rightly.
    pub accuracy: f64,
    /// The penalty that was chosen.
    pub penalty: f64,
    /// The accuracy by which it was chosen; none where the sweep has one value.
    pub held_out_accuracy: Option<f64>,
    /// Whether it is the weakest or the strongest of the sweep: a wider sweep might find a better one.
    pub at_edge: bool,
    /// Iterations of the last fit, on all training features.
    pub iterations: usize,
    /// Whether that fit converged.
    pub converged: bool,
}

impl LinearScore {
    /// What a reader of the accuracy should know, if anything.
    pub fn warning(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.at_edge {
            parts.push(format!("the chosen penalty {} lies at the edge of the sweep: widen it", self.penalty));
        }
        if !self.converged {
            parts.push(format!("the fit had not converged after {} iterations: raise max_iterations", self.iterations));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Linear {
    /// Fits on `train` and scores on `test`. Of `test`, only this score depends on the labels. Where there are several ranks
    /// all give the same features, and each computes the objective of a share of the images.
    ///
    /// # Errors
    /// If the configuration cannot be used, train and test do not belong together, or there is only one class; or if a
    /// process cannot be reached.
    pub fn score(&self, train: &Features, test: &Features, classes: usize, seed: u64) -> Result<LinearScore> {
        self.check()?;
        check_pair(train, test, classes)?;
        let (penalty, held_out_accuracy) = match self.penalties[..] {
            [only] => (only, None),
            _ => self.choose(train, classes, seed).map(|(penalty, accuracy)| (penalty, Some(accuracy)))?,
        };
        let fit = self.fit(train, classes, penalty)?;
        let edge = |bound: f64| held_out_accuracy.is_some() && penalty == bound;
        Ok(LinearScore {
            accuracy: fit.accuracy(test),
            penalty,
            held_out_accuracy,
            at_edge: edge(self.strong_to_weak()[0]) || edge(*self.strong_to_weak().last().expect("checked")),
            iterations: fit.iterations,
            converged: fit.converged,
        })
    }

    /// Fits a classifier with a given penalty.
    ///
    /// # Errors
    /// If a label is not below `classes` or all are equal.
    pub fn fit(&self, train: &Features, classes: usize, penalty: f64) -> Result<Classifier> {
        self.check()?;
        train.check_classes(classes)?;
        check_two_classes(train)?;
        no_grad(|| {
            let problem = Problem::new(train, classes);
            problem.fit(&problem.origin(), penalty, self)
        })
    }

    /// The best penalty on the held-out part, and its accuracy there.
    fn choose(&self, train: &Features, classes: usize, seed: u64) -> Result<(f64, f64)> {
        check_two_classes(train)?;
        let labels = train.label_values()?;
        let (mut held_out, mut rest) = stratified(&labels, self.held_out, seed, Use::HeldOut)?;
        // A class with a single image keeps it for the fit: a class that was never seen cannot be recognised.
        let mut fitted = vec![false; classes];
        rest.iter().for_each(|&i| fitted[labels[i] as usize] = true);
        let (keep, back): (Vec<usize>, Vec<usize>) = held_out.iter().partition(|&&i| fitted[labels[i] as usize]);
        held_out = keep;
        rest.extend(back);
        ensure!(
            !held_out.is_empty(),
            "no class has two training images, so none can be held out to choose the penalty: give a single penalty"
        );
        let (rest, held_out) = (train.select(&rest)?, train.select(&held_out)?);
        no_grad(|| {
            let problem = Problem::new(&rest, classes);
            let mut start = problem.origin();
            let mut best = (f64::NAN, -1.0);
            let mut worse = 0;
            for penalty in self.strong_to_weak() {
                let fit = problem.fit(&start, penalty, self)?;
                let accuracy = group::of_first(fit.accuracy(&held_out))?;
                if accuracy > best.1 {
                    best = (penalty, accuracy);
                }
                worse = if accuracy < best.1 { worse + 1 } else { 0 };
                if worse == 2 {
                    break;
                }
                start = fit.parameters;
            }
            Ok(best)
        })
    }

    fn strong_to_weak(&self) -> Vec<f64> {
        let mut penalties = self.penalties.clone();
        penalties.sort_by(|a, b| b.total_cmp(a));
        penalties
    }

    /// # Errors
    /// If a setting cannot be used.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.penalties.is_empty(), "the linear probe's sweep is empty: give at least one penalty");
        if let Some(bad) = self.penalties.iter().find(|p| !(p.is_finite() && **p > 0.0)) {
            anyhow::bail!("the linear probe's penalties must be positive numbers, not {bad}");
        }
        let held_out = self.held_out;
        ensure!(held_out > 0.0 && held_out < 1.0, "the held-out share must lie in (0, 1), not {held_out}");
        ensure!(self.max_iterations > 0, "the linear probe needs at least one iteration");
        let tolerance = self.tolerance;
        ensure!(tolerance > 0.0 && tolerance.is_finite(), "the tolerance must be positive, not {tolerance}");
        Ok(())
    }
}

fn check_two_classes(train: &Features) -> Result<()> {
    let (low, high) = (train.labels.min().int64_value(&[]), train.labels.max().int64_value(&[]));
    ensure!(low != high, "all training labels are {low}: a linear probe needs at least two classes");
    Ok(())
}

/// A fitted classifier.
pub struct Classifier {
    /// [classes, D + 1] f64, on standardised features; the last column is the bias.
    parameters: Tensor,
    scaling: Scaling,
    pub iterations: usize,
    /// Whether the gradient fell to the tolerance.
    pub converged: bool,
}

impl Classifier {
    /// The weight [D, classes] f64 on standardised features.
    pub fn weight(&self) -> Tensor {
        self.parameters.narrow(1, 0, self.parameters.size()[1] - 1).tr()
    }

    /// The bias `[classes]` f64.
    pub fn bias(&self) -> Tensor {
        self.parameters.select(1, -1)
    }

    /// The class of each row of `x` [N, D], `[N]` i64.
    pub fn predict(&self, x: &Tensor) -> Tensor {
        let parameters = self.parameters.to_kind(x.kind()).tr();
        let classes = x.to_device(parameters.device()).split(ROWS, 0);
        let classes: Vec<Tensor> =
            classes.iter().map(|x| self.scaling.apply(x).mm(&parameters).argmax(1, false)).collect();
        Tensor::cat(&classes, 0)
    }

    /// The share of images classified rightly.
    pub fn accuracy(&self, features: &Features) -> f64 {
        let predicted = self.predict(&features.x);
        let labels = features.labels.to_device(predicted.device());
        predicted.eq_tensor(&labels).sum(Kind::Int64).int64_value(&[]) as f64 / features.len() as f64
    }
}

/// Rows that are taken at once: the objective needs them twice, for logits and for the gradient, and the second time they
/// should come from a core's cache. With 16 times as many a fit takes twice as long.
const ROWS: i64 = 1024;

/// Mean and inverse standard deviation of each dimension; 0 where a dimension is constant, so that it stays 0.
struct Scaling {
    mean: Tensor,
    inverse: Tensor,
}

impl Scaling {
    fn of(x: &Tensor) -> Scaling {
        let (mean, variance) = moments(x);
        let inverse = variance.rsqrt().masked_fill(&variance.eq(0.0), 0.0);
        Scaling { mean: mean.to_kind(x.kind()), inverse: inverse.to_kind(x.kind()) }
    }

    /// [n, D] -> [n, D + 1]: standardised, and a column of ones for the bias.
    fn apply(&self, x: &Tensor) -> Tensor {
        let ones = Tensor::ones([x.size()[0], 1], (x.kind(), x.device()));
        Tensor::cat(&[(x - &self.mean) * &self.inverse, ones], 1)
    }
}

/// Standardised features with their labels, as blocks of rows, of which each rank has a share.
struct Problem {
    /// [n, D + 1] and [1, n] each.
    blocks: Vec<(Tensor, Tensor)>,
    scaling: Scaling,
    shape: [i64; 2],
    samples: f64,
}

impl Problem {
    fn new(train: &Features, classes: usize) -> Problem {
        let scaling = Scaling::of(&train.x);
        let (x, labels) = (train.x.split(ROWS, 0), train.labels.unsqueeze(0).split(ROWS, 1));
        let share = group::share_of(x.len());
        let blocks = share.map(|i| (scaling.apply(&x[i]), labels[i].shallow_clone())).collect();
        let shape = [classes as i64, train.dimensions() as i64 + 1];
        Problem { blocks, scaling, shape, samples: train.len() as f64 }
    }

    fn origin(&self) -> Tensor {
        Tensor::zeros(self.shape, (Kind::Double, self.scaling.mean.device()))
    }

    /// Rank 0 says where to look next, since machines may round differently; all look together.
    fn fit(&self, start: &Tensor, penalty: f64, config: &Linear) -> Result<Classifier> {
        const LOOK: [f64; 2] = [-1.0, 0.0]; // or iterations and whether they converged, at the end
        let tell = |x: &Tensor, what: [f64; 2]| -> Result<(Tensor, Vec<f64>)> {
            let (x, what) = (x.copy(), Tensor::from_slice(&what));
            group::broadcast(&[x.shallow_clone(), what.shallow_clone()])?;
            Ok((x, Vec::try_from(what)?))
        };
        let end = if group::rank() == 0 {
            let look = |x: &Tensor| tell(x, LOOK).and_then(|(x, _)| self.objective(&x, penalty));
            let end = minimise(look, start, config.max_iterations, config.tolerance)?;
            let _ = tell(&end.x, [end.iterations as f64, f64::from(u8::from(end.converged))])?;
            end
        } else {
            loop {
                let (x, what) = tell(start, LOOK)?;
                if what != LOOK {
                    break Minimum { x, iterations: what[0] as usize, converged: what[1] > 0.0 };
                }
                let _ = self.objective(&x, penalty)?;
            }
        };
        let scaling =
            Scaling { mean: self.scaling.mean.shallow_clone(), inverse: self.scaling.inverse.shallow_clone() };
        Ok(Classifier { parameters: end.x, scaling, iterations: end.iterations, converged: end.converged })
    }

    /// Value and gradient of mean cross-entropy + penalty / 2 |W|^2 at `parameters` [classes, D + 1] f64, of the images of
    /// all ranks.
    ///
    /// The products are made in the features' kind; the sums over blocks of images, in f64. Logits are [classes, n]: with
    /// few classes, products of that orientation take a fraction of the time of their transposes.
    fn objective(&self, parameters: &Tensor, penalty: f64) -> Result<(f64, Tensor)> {
        let kind = self.scaling.mean.kind();
        let p = parameters.to_kind(kind);
        let mut loss = Tensor::zeros([], (Kind::Double, p.device()));
        let mut gradient = parameters.zeros_like();
        for (x, labels) in &self.blocks {
            let mut log = p.mm(&x.tr()).log_softmax(0, None::<Kind>);
            loss -= log.gather(0, labels, false).sum(Kind::Double);
            // The gradient at the logits is softmax - onehot.
            let ones = Tensor::full(labels.size(), -1.0, (kind, p.device()));
            let excess = log.exp_().scatter_add_(0, labels, &ones);
            gradient += excess.mm(x);
        }
        group::sum(&[loss.shallow_clone(), gradient.shallow_clone()])?;
        let weight = parameters.narrow(1, 0, self.shape[1] - 1);
        gradient /= self.samples;
        let _ = gradient.narrow(1, 0, self.shape[1] - 1).g_add_(&(&weight * penalty));
        let loss = loss.double_value(&[]) / self.samples;
        Ok((loss + penalty / 2.0 * weight.square().sum(Kind::Double).double_value(&[]), gradient))
    }
}
