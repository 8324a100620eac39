//! Several processes that train one method as if they were one.
//!
//! Of a batch of B samples each of W ranks has B / W rows, rank r those from r B / W on. Everything else is the same on
//! all of them: weights, queues, banks, and the random numbers, which are keyed by what they are for. So a loss that
//! treats each sample alone needs nothing of this module. One that holds samples against each other gathers what its
//! networks say of them, [`gather`], and then computes the same on every rank.
//!
//! Gradients of weights are averaged over the ranks by the training loop ([`Gradients`]). That makes the mean over a rank's own rows
//! the mean over the batch; and behind a gather, whose gradient is W times that of the own rows, one loss of W equal
//! ones. Batch normalisation takes its statistics from all ranks ([`crate::layer::BatchNorm`]).
//!
//! Without a group, as under [`alone`], each function is the identity: a method reads the same either way. A process that
//! cannot be reached any more is an error of the training loop ([`check`]), not of a loss.

use crate::layer::MOMENTUM;
use anyhow::{Result, bail, ensure};
pub use selfsup_torch_ext::{Given, Group, Meeting};
use selfsup_torch_ext::{Reducer, RunningMoments};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use tch::{Device, Tensor, no_grad};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Group>>> = const { RefCell::new(None) };
    static NORMS: Cell<Norms> = const { Cell::new(Norms::Sync) };
}

/// Whose rows batch normalisation takes its statistics from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norms {
    /// Those of all ranks.
    #[default]
    Sync,
    /// Those of its own rank: cheaper, and another result for every number of ranks.
    Local,
}

fn set<T>(group: Option<Rc<Group>>, norms: Norms, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Rc<Group>>, Norms);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
            NORMS.set(self.1);
        }
    }
    let _restore = Restore(CURRENT.replace(group), NORMS.replace(norms));
    f()
}

/// Runs `f` as one of the processes of `group` on this thread, and restores what was before, also after a panic.
pub fn with<T>(group: Rc<Group>, f: impl FnOnce() -> T) -> T {
    set(Some(group), NORMS.get(), f)
}

/// Runs `f` as the only process: for what one rank does by itself, or each for itself.
pub fn alone<T>(f: impl FnOnce() -> T) -> T {
    set(None, NORMS.get(), f)
}

/// Runs `f` with the statistics of batch normalisation from where `norms` says.
pub fn with_norms<T>(norms: Norms, f: impl FnOnce() -> T) -> T {
    set(current(), norms, f)
}

/// The group in force on this thread.
pub fn current() -> Option<Rc<Group>> {
    CURRENT.with_borrow(Clone::clone)
}

/// This process's rank; 0 without a group.
pub fn rank() -> usize {
    current().map_or(0, |group| group.rank())
}

/// How many processes there are; 1 without a group.
pub fn size() -> usize {
    current().map_or(1, |group| group.size())
}

/// The rows of all ranks, rank by rank, in the order in which one process would have them: [n, ..] -> [W n, ..]. Gradients
/// pass through.
pub fn gather(x: &Tensor) -> Tensor {
    gather_views(x, 1)
}

/// [`gather`] of what was made of several views, view by view: [V n, ..] -> [V W n, ..].
pub fn gather_views(x: &Tensor, views: usize) -> Tensor {
    let Some(group) = current() else { return x.shallow_clone() };
    let (n, rest) = (x.size()[0] / views as i64, &x.size()[1..]);
    // Rows first, then views: so each rank's part is in one piece.
    let rows = if views == 1 { x.shallow_clone() } else { x.unflatten(0, [views as i64, n]).transpose(0, 1) };
    let all = group.gather(&rows).expect("what has rows can be gathered");
    if views == 1 {
        all
    } else {
        all.transpose(0, 1).reshape([&[views as i64 * n * group.size() as i64], rest].concat())
    }
}

/// This rank's rows of those of all: [W n, ..] -> [n, ..].
pub fn own(x: &Tensor) -> Tensor {
    let n = x.size()[0] / size() as i64;
    x.narrow(0, rank() as i64 * n, n)
}

/// The mean over the ranks of equal tensors, without a graph.
pub fn average(x: &Tensor) -> Tensor {
    let Some(group) = current() else { return x.shallow_clone() };
    no_grad(|| group.sum(x)).expect("tensors can be added") / group.size() as f64
}

/// A mean over `count` entries of this rank, where others have another number: weighed so that the mean over the ranks is
/// the mean over all entries. Without a group nobody counts, which may mean waiting for a device.
pub fn share(mean: &Tensor, count: impl FnOnce() -> i64) -> Tensor {
    let Some(group) = current() else { return mean.shallow_clone() };
    let count = count() as f64;
    let all = no_grad(|| group.sum(&Tensor::from_slice(&[count]))).expect("numbers can be added");
    mean * (count * group.size() as f64 / all.double_value(&[0]).max(1.0))
}

/// Batch normalisation of [B, C, ..] by the statistics of the batch, over all ranks unless [`Norms::Local`] is in force;
/// the running ones (mean, variance), where given, move by [`MOMENTUM`].
pub fn batch_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, running: Option<[&Tensor; 2]>) -> Tensor {
    match current().filter(|_| NORMS.get() == Norms::Sync) {
        Some(group) => {
            let running = running.map(|[mean, variance]| RunningMoments { mean, variance, momentum: MOMENTUM });
            group.batch_norm(x, weight, bias, running, 1e-5).expect("a batch has channels")
        }
        None => {
            let [mean, variance] = running.map_or([None; 2], |both| both.map(Some));
            x.batch_norm(weight, bias, mean, variance, true, MOMENTUM, 1e-5, true)
        }
    }
}

/// Whether all processes could be reached so far.
///
/// # Errors
/// If not: one sentence that says what happened, and what to do.
pub fn check() -> Result<()> {
    match current().and_then(|group| group.failure()) {
        Some(why) => Err(lost(&why)),
        None => Ok(()),
    }
}

/// The sentence for a failure of a group.
fn lost(why: &str) -> anyhow::Error {
    let first = why.lines().next().unwrap_or(why);
    // `[file:line] what happened. advice`.
    let what = first.split_once("] ").filter(|_| first.starts_with('[')).map_or(first, |(_, what)| what);
    let what = what.split(". ").next().unwrap_or(what).trim_end_matches('.');
    if what.starts_with("the processes do not do the same") {
        return anyhow::anyhow!("{what}; they must have the same program, configuration and data");
    }
    // A backward pass that needs the others fails for want of memory, too.
    if what.contains("allocate memory") {
        return anyhow::anyhow!("rank {} of {}: {what}", rank(), size());
    }
    anyhow::anyhow!(
        "rank {} of {} lost the other processes ({what}): one of them ended or did not answer in time; start all of them \
         again, and they go on from the last checkpoint",
        rank(),
        size()
    )
}

fn told<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| lost(&error.to_string()))
}

/// Every tensor becomes that of rank 0.
///
/// # Errors
/// If a process cannot be reached, or their lists differ.
pub fn broadcast(tensors: &[Tensor]) -> Result<()> {
    current().map_or(Ok(()), |group| told(group.broadcast_(tensors)))
}

/// Gradients of variables as means over the ranks: on the CPU averaged while backward computes them, elsewhere after it.
pub struct Gradients {
    variables: Vec<Tensor>,
    reducer: Option<Reducer>,
}

impl Gradients {
    /// Of all variables that a loss may depend on, in the order in which it uses them.
    ///
    /// # Errors
    /// If a process cannot be reached, or their lists differ.
    pub fn of(variables: Vec<Tensor>) -> Result<Gradients> {
        let group = current().filter(|_| variables.iter().all(|x| x.device() == Device::Cpu));
        let reducer = group.map(|group| told(Reducer::new(&group, &variables))).transpose()?;
        Ok(Gradients { variables, reducer })
    }

    /// The backward pass of a loss. A gradient that no rank has stays undefined.
    ///
    /// # Errors
    /// If the loss has no gradient; if a process cannot be reached, or does something else.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        ensure!(loss.requires_grad(), "the loss has no gradient");
        if let Some(reducer) = &self.reducer {
            return told(reducer.backward(loss));
        }
        let done = loss.f_backward();
        check()?;
        done?;
        current().map_or(Ok(()), |group| told(group.average_gradients(&self.variables)))
    }
}

/// A number as rank 0 has it: for decisions, since machines may round differently.
///
/// # Errors
/// If a process cannot be reached.
pub fn of_first(number: f64) -> Result<f64> {
    let number = Tensor::from(number);
    broadcast(&[number.shallow_clone()])?;
    Ok(number.double_value(&[]))
}

/// What each rank says, rank by rank.
///
/// # Errors
/// If a process cannot be reached.
pub fn exchange(text: &str) -> Result<Vec<String>> {
    let Some(group) = current() else { return Ok(vec![text.into()]) };
    let said = told(group.exchange(text.as_bytes()))?;
    Ok(said.into_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect())
}

/// Each tensor becomes its sum over the ranks.
///
/// # Errors
/// If a process cannot be reached, or their lists differ.
pub fn sum(tensors: &[Tensor]) -> Result<()> {
    current().map_or(Ok(()), |group| told(group.sum_(tensors)))
}

/// The means of numbers over the ranks.
///
/// # Errors
/// If a process cannot be reached, or they have other numbers.
pub fn average_numbers(numbers: &[f64]) -> Result<Vec<f64>> {
    let sums = Tensor::from_slice(numbers);
    sum(&[sums.shallow_clone()])?;
    Ok(Vec::try_from(sums / size() as f64)?)
}

/// What rank 0 alone does, the others waiting for what it says.
///
/// # Errors
/// If it fails, on every rank; or if a process cannot be reached.
pub fn by_first(f: impl FnOnce() -> Result<String>) -> Result<String> {
    if current().is_none() {
        return f();
    }
    let (rank, ranks) = (rank(), size());
    let done = (rank == 0).then(|| alone(f));
    let own = match &done {
        None => String::new(),
        Some(Ok(text)) => format!("+{text}"),
        Some(Err(why)) => format!("-{why:#}"),
    };
    let said = exchange(&own)?.swap_remove(0);
    match done {
        Some(done) => done,
        None => match said.strip_prefix('+') {
            Some(text) => Ok(text.into()),
            None => bail!("rank 0 of {ranks} ended: {}", said.trim_start_matches('-')),
        },
    }
}

/// Whether any rank says so.
///
/// # Errors
/// If a process cannot be reached.
pub fn any(here: bool) -> Result<bool> {
    Ok(average_numbers(&[f64::from(u8::from(here))])?[0] > 0.0)
}

/// Which of `count` things are this rank's to make, where each is made by one: as many in a row as it takes, from rank 0 on.
pub fn share_of(count: usize) -> Range<usize> {
    let share = count.div_ceil(size());
    (rank() * share).min(count)..((rank() + 1) * share).min(count)
}

/// `count` parts of a whole, part i by `f(i)`, [n_i, ..], joined in their order: [sum of n_i, ..]. Each rank makes its share
/// ([`share_of`]) as if it were alone and is given the others', so the whole has the same bits for any number of ranks.
/// Without a graph.
///
/// # Errors
/// What `f` gives; or if a process cannot be reached, or makes rows of another kind or shape.
pub fn in_shares(count: usize, mut f: impl FnMut(usize) -> Result<Tensor>) -> Result<Tensor> {
    let mut f = |i| no_grad(|| alone(|| f(i)));
    let own = match share_of(count).map(&mut f).collect::<Result<Vec<Tensor>>>()? {
        // Who has nothing to make still says what rows are like.
        parts if parts.is_empty() => f(0)?.narrow(0, 0, 0),
        parts => Tensor::cat(&parts, 0),
    };
    if current().is_none() {
        return Ok(own);
    }
    no_grad(|| {
        let rows = Vec::<i64>::try_from(gather(&Tensor::from_slice(&[own.size()[0]])))?;
        let most = rows.iter().copied().max().unwrap_or(0);
        let missing = own.new_zeros([&[most - own.size()[0]], &own.size()[1..]].concat(), (own.kind(), own.device()));
        let all = gather(&Tensor::cat(&[own, missing], 0));
        check()?;
        let parts: Vec<Tensor> = rows.iter().zip(all.split(most, 0)).map(|(&n, part)| part.narrow(0, 0, n)).collect();
        Ok(Tensor::cat(&parts, 0))
    })
}
