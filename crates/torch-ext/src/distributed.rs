//! Several processes as one: LibTorch's process groups (c10d, on Gloo).
//!
//! Every process of a group must make the same calls in the same order. The shim compares what the processes are about
//! to do before they do it, so that a mistake is an error and not an abort or a wait without end. After the first
//! failure a group does nothing more, and every call gives that failure again.

use crate::ffi::{
    List, RawGroup, RawReducer, check, sse_group_average_gradients, sse_group_batch_norm, sse_group_broadcast,
    sse_group_exchange, sse_group_failure, sse_group_gather, sse_group_given, sse_group_join, sse_group_leave,
    sse_group_reduce, sse_group_sum, sse_reducer_backward, sse_reducer_drop, sse_reducer_new,
};
use anyhow::{Context, Result, ensure};
use std::ffi::CString;
use std::time::Duration;
use tch::{Device, Tensor};
use torch_sys::C_tensor;

/// Where and as what a process meets the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// From 0 to `size` - 1, each once.
    pub rank: usize,
    /// How many processes there are.
    pub size: usize,
    /// Where rank 0 can be reached.
    pub address: String,
    pub port: u16,
    /// Whether a launcher serves the store at that address already (`torchrun`); else rank 0 does.
    pub served: bool,
    /// What this meeting is called in the store, where a launcher keeps one store for several attempts.
    pub name: String,
    /// How long to wait for the others to come.
    pub meet: Duration,
    /// How long to wait for an answer once all are there.
    pub timeout: Duration,
}

/// Kinds of collectives, in the shim's order.
const ACTS: [&str; 7] = ["gather", "sum", "maximum", "broadcast", "norm", "gradients", "exchange"];

/// What a rank gave to collectives of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// `gather`, `sum`, `maximum`, `broadcast`, `norm` (batch statistics, both ways), `gradients` or `exchange` (whose bytes
    /// are not counted).
    pub what: &'static str,
    pub times: u64,
    /// Of the tensors that this rank gave; what that means for the network depends on the algorithm.
    pub bytes: u64,
}

/// A process's place among others.
pub struct Group {
    raw: *mut RawGroup,
    rank: usize,
    size: usize,
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}

impl Group {
    /// Meets the others; returns once all are there.
    ///
    /// # Errors
    /// If they do not come in time, or the address cannot be had or reached.
    pub fn join(with: &Meeting) -> Result<Group> {
        let Meeting { rank, size, port, .. } = *with;
        ensure!(rank < size, "rank {rank} of {size} processes: ranks are 0 to {}", size.saturating_sub(1));
        let (address, name) = (CString::new(with.address.as_str())?, CString::new(with.name.as_str())?);
        let serve = i32::from(rank == 0 && !with.served);
        let mut raw = std::ptr::null_mut();
        // SAFETY: both strings and `raw` outlive the call; on success the shim has written a handle that is ours.
        unsafe {
            check(sse_group_join(
                i64::try_from(rank)?,
                i64::try_from(size)?,
                address.as_ptr(),
                port,
                milliseconds(with.meet),
                milliseconds(with.timeout),
                serve,
                name.as_ptr(),
                &mut raw,
            ))
        }?;
        Ok(Group { raw, rank, size })
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are, W.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<String> {
        // SAFETY: the handle is alive; what it returns is a string of the shim or null, as `check` takes it.
        unsafe { check(sse_group_failure(self.raw)) }.err().map(|error| error.to_string())
    }

    /// What this rank gave to collectives so far, without the comparisons before each.
    pub fn given(&self) -> [Given; ACTS.len()] {
        let (mut times, mut bytes) = ([0; ACTS.len()], [0; ACTS.len()]);
        // SAFETY: the handle is alive, and the shim writes as many numbers as there are acts to each.
        unsafe { sse_group_given(self.raw, times.as_mut_ptr(), bytes.as_mut_ptr()) };
        std::array::from_fn(|i| Given { what: ACTS[i], times: times[i] as u64, bytes: bytes[i] as u64 })
    }

    /// Each tensor becomes its sum over the ranks.
    ///
    /// # Errors
    /// If the ranks' lists differ, or a process cannot be reached.
    pub fn sum_(&self, tensors: &[Tensor]) -> Result<()> {
        // SAFETY: handle and list outlive the call, and the shim keeps no pointer.
        unsafe { check(sse_group_reduce(self.raw, List::new(tensors).raw(), 0)) }
    }

    /// Each tensor becomes its greatest values over the ranks.
    ///
    /// # Errors
    /// As [`Group::sum_`].
    pub fn max_(&self, tensors: &[Tensor]) -> Result<()> {
        // SAFETY: as in `sum_`.
        unsafe { check(sse_group_reduce(self.raw, List::new(tensors).raw(), 1)) }
    }

    /// Each tensor becomes that of rank 0.
    ///
    /// # Errors
    /// As [`Group::sum_`].
    pub fn broadcast_(&self, tensors: &[Tensor]) -> Result<()> {
        // SAFETY: as in `sum_`.
        unsafe { check(sse_group_broadcast(self.raw, List::new(tensors).raw())) }
    }

    /// What each rank says, rank by rank; of any length.
    ///
    /// # Errors
    /// If a process cannot be reached, or does something else.
    pub fn exchange(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (mut out, mut lengths) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the bytes outlive the call. On success both are tensors made with `new` that the shim gives up.
        let (out, lengths) = unsafe {
            check(sse_group_exchange(self.raw, bytes.as_ptr(), bytes.len(), &mut out, &mut lengths))?;
            (Tensor::from_ptr(out), Tensor::from_ptr(lengths))
        };
        let lengths = Vec::<i64>::try_from(&lengths).context("lengths are whole numbers")?;
        let row = |(rank, length): (usize, i64)| {
            let row = Vec::<u8>::try_from(out.get(rank as i64).narrow(0, 0, length));
            row.context("messages are bytes")
        };
        lengths.into_iter().enumerate().map(row).collect()
    }

    /// The rows of all ranks, rank by rank: [n, ..] -> [W n, ..]. The gradient of a rank's own rows is W times that of
    /// the gathered ones: the sum over the ranks, of which each computes the same of them.
    ///
    /// Where communication fails the result has this shape and no meaning, and [`Group::failure`] says why.
    ///
    /// # Errors
    /// If `x` is a scalar.
    pub fn gather(&self, x: &Tensor) -> Result<Tensor> {
        let mut out = std::ptr::null_mut();
        // SAFETY: handle and tensor outlive the call (the graph holds what it needs itself); on success the shim has
        // written a tensor made with `new` and gives it up.
        unsafe {
            check(sse_group_gather(self.raw, x.as_ptr(), &mut out))?;
            Ok(Tensor::from_ptr(out))
        }
    }

    /// The sum over the ranks, through which gradients pass: theirs are summed, too. As for failures see
    /// [`Group::gather`].
    ///
    /// # Errors
    /// If LibTorch refuses.
    pub fn sum(&self, x: &Tensor) -> Result<Tensor> {
        let mut out = std::ptr::null_mut();
        // SAFETY: as in `gather`.
        unsafe {
            check(sse_group_sum(self.raw, x.as_ptr(), &mut out))?;
            Ok(Tensor::from_ptr(out))
        }
    }

    /// Batch normalisation of [B, C, ..] in training with the mean and variance of the rows of all ranks, through which
    /// gradients pass. The running moments, where given, move by their `momentum`. As for failures see
    /// [`Group::gather`].
    ///
    /// # Errors
    /// If `x` has no channels.
    pub fn batch_norm(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        running: Option<RunningMoments>,
        eps: f64,
    ) -> Result<Tensor> {
        let pointer = |x: Option<&Tensor>| x.map_or(std::ptr::null(), Tensor::as_ptr);
        let (mean, variance): (*const C_tensor, *const C_tensor) =
            (pointer(running.map(|r| r.mean)), pointer(running.map(|r| r.variance)));
        let momentum = running.map_or(0.0, |r| r.momentum);
        let (weight, bias) = (pointer(weight), pointer(bias));
        let mut out = std::ptr::null_mut();
        // SAFETY: as in `gather`; a null pointer stands for no tensor.
        unsafe {
            check(sse_group_batch_norm(self.raw, x.as_ptr(), weight, bias, mean, variance, momentum, eps, &mut out))?;
            Ok(Tensor::from_ptr(out))
        }
    }

    /// The gradients of variables become their means over the ranks, after a backward pass. One that no rank has stays
    /// away; where some have it, it counts as zeros on the others.
    ///
    /// # Errors
    /// As [`Group::sum_`].
    pub fn average_gradients(&self, variables: &[Tensor]) -> Result<()> {
        // SAFETY: as in `sum_`.
        unsafe { check(sse_group_average_gradients(self.raw, List::new(variables).raw())) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the handle came from the shim and is used no more.
        unsafe { sse_group_leave(self.raw) }
    }
}

/// Where batch normalisation keeps what it saw.
#[derive(Clone, Copy)]
pub struct RunningMoments<'a> {
    pub mean: &'a Tensor,
    pub variance: &'a Tensor,
    /// The weight of the batch.
    pub momentum: f64,
}

/// Averages the gradients of variables over the ranks while they are computed: torch's `DistributedDataParallel` without
/// the module. For variables in the CPU's memory; the others take [`Group::average_gradients`].
pub struct Reducer {
    raw: *mut RawReducer,
}

impl Reducer {
    /// For all variables that a loss may depend on, in the order in which it uses them.
    ///
    /// # Errors
    /// If there is none, or one is on another device; if the ranks' lists differ or a process cannot be reached.
    pub fn new(group: &Group, variables: &[Tensor]) -> Result<Reducer> {
        ensure!(!variables.is_empty(), "there is no variable whose gradients could be averaged");
        ensure!(
            variables.iter().all(|x| x.device() == Device::Cpu),
            "gradients are averaged during backward on the CPU alone"
        );
        let mut raw = std::ptr::null_mut();
        // SAFETY: group and list outlive the call, and the reducer holds what it needs of both; on success the shim has
        // written a handle that is ours.
        unsafe { check(sse_reducer_new(group.raw, List::new(variables).raw(), &mut raw)) }?;
        Ok(Reducer { raw })
    }

    /// The backward pass of a loss; as for gradients see [`Group::average_gradients`].
    ///
    /// # Errors
    /// If it has no gradient; if the ranks do not do the same, or a process cannot be reached.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        // SAFETY: the handle is alive and the tensor outlives the call.
        unsafe { check(sse_reducer_backward(self.raw, loss.as_ptr())) }
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the handle came from the shim and is used no more.
        unsafe { sse_reducer_drop(self.raw) }
    }
}
