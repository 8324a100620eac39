//! The shim's functions and how their errors become ours.

use anyhow::{Result, bail};
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use tch::{Device, Tensor};
use torch_sys::C_tensor;

/// A list of tensors as the shim takes it.
#[repr(C)]
pub(crate) struct RawList {
    items: *const *mut C_tensor,
    count: usize,
}

/// Pointers to tensors that live at least as long as this.
pub(crate) struct List<'a> {
    pointers: Vec<*mut C_tensor>,
    tensors: PhantomData<&'a [Tensor]>,
}

impl<'a> List<'a> {
    pub(crate) fn new(tensors: &'a [Tensor]) -> List<'a> {
        List { pointers: tensors.iter().map(|t| t.as_ptr().cast_mut()).collect(), tensors: PhantomData }
    }

    /// Valid while `self` is borrowed, which every call here holds to.
    pub(crate) fn raw(&self) -> RawList {
        RawList { items: self.pointers.as_ptr(), count: self.pointers.len() }
    }
}

unsafe extern "C" {
    pub(crate) fn sse_autocast_enter(device: i32, enabled: i32, before: *mut i32) -> *mut c_char;
    pub(crate) fn sse_autocast_leave(device: i32, before: i32) -> *mut c_char;
    pub(crate) fn sse_difference(a: *const C_tensor, b: *const C_tensor, what: *mut *const c_char) -> *mut c_char;
    pub(crate) fn sse_sgd(
        params: RawList,
        grads: RawList,
        buffers: RawList,
        lr: f64,
        momentum: f64,
        nesterov: i32,
        decay: f64,
    ) -> *mut c_char;
    pub(crate) fn sse_adamw(
        params: RawList,
        grads: RawList,
        means: RawList,
        squares: RawList,
        steps: RawList,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        decay: f64,
    ) -> *mut c_char;
    pub(crate) fn sse_lerp(targets: RawList, sources: RawList, weight: f64) -> *mut c_char;
    pub(crate) fn sse_add(targets: RawList, sources: RawList, alpha: f64) -> *mut c_char;
    pub(crate) fn sse_mul(targets: RawList, factors: RawList) -> *mut c_char;
    pub(crate) fn sse_scale(targets: RawList, factor: *const C_tensor) -> *mut c_char;
    pub(crate) fn sse_norms(list: RawList, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn sse_clear_grads(list: RawList) -> *mut c_char;
    pub(crate) fn sse_seed(seed: u64) -> *mut c_char;
    pub(crate) fn sse_generator_state(device: i32, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn sse_set_generator_state(device: i32, state: *const C_tensor) -> *mut c_char;
    pub(crate) fn sse_deterministic(on: i32) -> *mut c_char;
    pub(crate) fn sse_tf32(on: i32) -> *mut c_char;
    pub(crate) fn sse_synchronize(device: i32) -> *mut c_char;
    pub(crate) fn sse_memory(device: i32, allocated: *mut i64, peak: *mut i64) -> *mut c_char;
    pub(crate) fn sse_reset_peak_memory(device: i32) -> *mut c_char;
    pub(crate) fn sse_group_join(
        rank: i64,
        size: i64,
        address: *const c_char,
        port: u16,
        join_ms: i64,
        timeout_ms: i64,
        serve: i32,
        prefix: *const c_char,
        out: *mut *mut RawGroup,
    ) -> *mut c_char;
    pub(crate) fn sse_group_leave(group: *mut RawGroup);
    pub(crate) fn sse_group_failure(group: *const RawGroup) -> *mut c_char;
    pub(crate) fn sse_group_given(group: *const RawGroup, times: *mut i64, bytes: *mut i64);
    pub(crate) fn sse_group_reduce(group: *const RawGroup, list: RawList, op: i32) -> *mut c_char;
    pub(crate) fn sse_group_broadcast(group: *const RawGroup, list: RawList) -> *mut c_char;
    pub(crate) fn sse_group_exchange(
        group: *const RawGroup,
        bytes: *const u8,
        count: usize,
        out: *mut *mut C_tensor,
        lengths: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn sse_group_gather(group: *const RawGroup, x: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn sse_group_sum(group: *const RawGroup, x: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn sse_group_batch_norm(
        group: *const RawGroup,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        mean: *const C_tensor,
        var: *const C_tensor,
        momentum: f64,
        eps: f64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn sse_group_average_gradients(group: *const RawGroup, list: RawList) -> *mut c_char;
    pub(crate) fn sse_reducer_new(group: *const RawGroup, list: RawList, out: *mut *mut RawReducer) -> *mut c_char;
    pub(crate) fn sse_reducer_backward(reducer: *mut RawReducer, loss: *const C_tensor) -> *mut c_char;
    pub(crate) fn sse_reducer_drop(reducer: *mut RawReducer);
}

/// The shim's process group, seen from outside.
#[repr(C)]
pub(crate) struct RawGroup {
    _private: [u8; 0],
}

/// The shim's reducer, seen from outside.
#[repr(C)]
pub(crate) struct RawReducer {
    _private: [u8; 0],
}

/// Turns what a function of the shim returned into a result, and frees it.
///
/// # Safety
/// `error` is null or came from the shim, and is used nowhere else.
pub(crate) unsafe fn check(error: *mut c_char) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns strings with a final zero, made by strdup and given to us alone.
    let text = unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        libc::free(error.cast());
        text
    };
    bail!(text)
}

/// The shim's number of a device: -1 is the CPU.
pub(crate) fn number(device: Device) -> Result<i32> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(index) => Ok(i32::try_from(index)?),
        other => bail!("{other:?} is not supported here: use the CPU or CUDA"),
    }
}
