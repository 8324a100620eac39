//! Limited-memory BFGS for a smooth convex function (Nocedal and Wright, algorithms 7.4 and 7.5).

use anyhow::Result;
use selfsup_core::{Kind, Tensor};
use std::collections::VecDeque;

/// Pairs of steps and gradient changes that stand for the curvature.
const MEMORY: usize = 10;
/// Trials of one line search.
const TRIALS: usize = 30;
/// The share of the predicted decrease that a step must reach, and the share of the slope that it may leave.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// The share of a value that rounding may hide: the objective's terms are f32.
const ROUNDING: f64 = f32::EPSILON as f64;

/// Where a minimisation ended.
pub(crate) struct Minimum {
    pub(crate) x: Tensor,
    pub(crate) iterations: usize,
    /// Whether the largest absolute value of the gradient fell to the tolerance.
    pub(crate) converged: bool,
}

/// Minimises `objective`, which gives value and gradient at a point, from `start`; all tensors are f64.
///
/// It ends when no entry of the gradient exceeds `tolerance`, after `max_iterations`, or when the line search finds no
/// lower point, which for a convex function means that rounding hides one.
///
/// # Errors
/// What `objective` gives.
pub(crate) fn minimise(
    objective: impl Fn(&Tensor) -> Result<(f64, Tensor)>,
    start: &Tensor,
    max_iterations: usize,
    tolerance: f64,
) -> Result<Minimum> {
    let mut x = start.copy();
    let (mut value, mut gradient) = objective(&x)?;
    let mut memory: VecDeque<(Tensor, Tensor, f64)> = VecDeque::new();
    for iterations in 0..max_iterations {
        if largest(&gradient) <= tolerance {
            return Ok(Minimum { x, iterations, converged: true });
        }
        let mut direction = descent(&gradient, &memory);
        let mut slope = dot(&gradient, &direction);
        if slope >= 0.0 {
            // Rounding has spoilt the curvature: forget it.
            memory.clear();
            direction = -&gradient;
            slope = dot(&gradient, &direction);
        }
        // Without curvature the direction has no scale; a step of length one is a modest first guess.
        let first = if memory.is_empty() { (1.0 / slope.abs().sqrt()).min(1.0) } else { 1.0 };
        let Some((step, new_value, new_gradient)) = search(&objective, &x, &direction, value, slope, first)? else {
            return Ok(Minimum { x, iterations, converged: false });
        };
        let s = &direction * step;
        let y = &new_gradient - &gradient;
        x += &s;
        let curvature = dot(&s, &y);
        if curvature > 0.0 {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back((s, y, curvature));
        }
        (value, gradient) = (new_value, new_gradient);
    }
    let converged = largest(&gradient) <= tolerance;
    Ok(Minimum { x, iterations: max_iterations, converged })
}

/// The two-loop recursion: minus the inverse curvature times the gradient.
fn descent(gradient: &Tensor, memory: &VecDeque<(Tensor, Tensor, f64)>) -> Tensor {
    let mut q = -gradient;
    let mut shares = Vec::with_capacity(memory.len());
    for (s, y, curvature) in memory.iter().rev() {
        let share = dot(s, &q) / curvature;
        q -= y * share;
        shares.push(share);
    }
    if let Some((_, y, curvature)) = memory.back() {
        q *= curvature / dot(y, y);
    }
    for ((s, y, curvature), share) in memory.iter().zip(shares.iter().rev()) {
        q += s * (share - dot(y, &q) / curvature);
    }
    q
}

/// A step with enough decrease that leaves the steep part of the slope behind (the weak Wolfe conditions), by doubling
/// and bisection; where the trials end first, the longest step with enough decrease. Close to the minimum, where rounding
/// hides the decrease of the value, that of the slope stands for it (Hager and Zhang 2005, approximate Wolfe).
fn search(
    objective: impl Fn(&Tensor) -> Result<(f64, Tensor)>,
    x: &Tensor,
    direction: &Tensor,
    value: f64,
    slope: f64,
    first: f64,
) -> Result<Option<(f64, f64, Tensor)>> {
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut step = first;
    let mut found = None;
    for _ in 0..TRIALS {
        let (trial, gradient) = objective(&(x + direction * step))?;
        let new_slope = dot(&gradient, direction);
        let lower = trial <= value + DECREASE * step * slope;
        let as_low = trial <= value + ROUNDING * value.abs() && new_slope <= (2.0 * DECREASE - 1.0) * slope;
        if !(lower || as_low) {
            high = step;
        } else if new_slope < CURVATURE * slope {
            low = step;
            found = Some((step, trial, gradient));
        } else {
            return Ok(Some((step, trial, gradient)));
        }
        step = if high.is_finite() { (low + high) / 2.0 } else { 2.0 * low };
    }
    Ok(found)
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(Kind::Double).double_value(&[])
}

fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quadratic_is_solved() {
        // f = sum d_i (x_i - 1)^2 / 2 with curvatures from 1 to 10^4.
        let d = Tensor::from_slice(&[1.0f64, 10.0, 100.0, 1e3, 1e4]);
        let f = |x: &Tensor| Ok(((&d * (x - 1.0).square()).sum(Kind::Double).double_value(&[]) / 2.0, &d * (x - 1.0)));
        let end = minimise(f, &Tensor::zeros([5], (Kind::Double, d.device())), 100, 1e-9).expect("an end");
        assert!(end.converged && end.iterations < 50, "{} iterations", end.iterations);
        // |x - 1| <= |gradient| / smallest curvature.
        assert!(largest(&(end.x - 1.0)) <= 1e-9);
    }

    #[test]
    fn too_few_iterations_are_not_called_converged() {
        let d = Tensor::from_slice(&[1.0f64, 1e4]);
        let f = |x: &Tensor| Ok(((&d * (x - 1.0).square()).sum(Kind::Double).double_value(&[]) / 2.0, &d * (x - 1.0)));
        let end = minimise(f, &Tensor::zeros([2], (Kind::Double, d.device())), 2, 1e-12).expect("an end");
        assert!(!end.converged);
        assert_eq!(end.iterations, 2);
    }
}
