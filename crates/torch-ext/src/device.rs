//! Loading CUDA, and asking a device.

use crate::ffi::{check, number, sse_memory, sse_reset_peak_memory, sse_synchronize};
use anyhow::{Result, bail, ensure};
use std::ffi::CStr;
use tch::Device;

const CUDA: &CStr = c"libtorch_cuda.so";

/// Makes `device` usable. Call it first in the program: before any other call of LibTorch that asks for CUDA (seeding
/// does), because the first answer is kept for the life of the process.
///
/// The program links LibTorch's CPU library only, so that one binary runs on any machine; LibTorch's CUDA library is
/// loaded here, when it is asked for. For the CPU this does nothing.
///
/// # Errors
/// If the CUDA library cannot be loaded (the message names the library that is missing), or there is no such device.
pub fn init(device: Device) -> Result<()> {
    number(device)?;
    let Device::Cuda(index) = device else { return Ok(()) };
    load(CUDA)?;
    ensure!(
        tch::Cuda::is_available(),
        "device cuda:{index} was asked for and LibTorch's CUDA library was loaded, but it finds no usable GPU or \
         driver; check that `nvidia-smi` lists a GPU, and that nothing asked LibTorch for CUDA before `init`"
    );
    let count = tch::Cuda::device_count();
    ensure!(
        (index as i64) < count,
        "device cuda:{index} was asked for, but this machine has {count} CUDA device(s), numbered from 0"
    );
    Ok(())
}

fn load(library: &CStr) -> Result<()> {
    // SAFETY: LibTorch's library runs its own initialisers and nothing of ours; the name ends with a zero. It is never
    // unloaded, so what it registers stays valid. dlerror's string is copied before another call can change it.
    let error = unsafe {
        if !libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return Ok(());
        }
        let text = libc::dlerror();
        if text.is_null() { "no reason given".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    bail!(
        "CUDA was asked for, but {} could not be loaded ({error}); put the `lib` folder of a LibTorch 2.11.0 with CUDA \
         (a wheel's `torch/lib`) into LD_LIBRARY_PATH, or run on the CPU",
        library.to_string_lossy()
    )
}

/// Waits until all work given to `device` is done. Timings need it; nothing else does.
///
/// # Errors
/// If earlier work failed on the device.
pub fn synchronize(device: Device) -> Result<()> {
    let index = number(device)?;
    // SAFETY: a plain number.
    if index < 0 { Ok(()) } else { unsafe { check(sse_synchronize(index)) } }
}

/// Bytes that tensors hold on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub allocated: u64,
    /// The most since the start, or since [`reset_peak_memory`].
    pub peak: u64,
}

/// What tensors hold on a CUDA device; `None` on the CPU, whose allocator does not count.
///
/// # Errors
/// If the device cannot be asked.
pub fn memory(device: Device) -> Result<Option<Memory>> {
    let index = number(device)?;
    if index < 0 {
        return Ok(None);
    }
    let (mut allocated, mut peak) = (0, 0);
    // SAFETY: both numbers outlive the call; the shim keeps no pointer.
    unsafe { check(sse_memory(index, &mut allocated, &mut peak)) }?;
    Ok(Some(Memory { allocated: allocated.max(0) as u64, peak: peak.max(0) as u64 }))
}

/// Starts the peak of [`memory`] anew. Does nothing on the CPU.
///
/// # Errors
/// If the device cannot be asked.
pub fn reset_peak_memory(device: Device) -> Result<()> {
    let index = number(device)?;
    // SAFETY: a plain number.
    if index < 0 { Ok(()) } else { unsafe { check(sse_reset_peak_memory(index)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let error = load(c"libtorch_cuda_of_no_machine.so").expect_err("no such library").to_string();
        assert!(error.contains("libtorch_cuda_of_no_machine.so") && error.contains("LD_LIBRARY_PATH"), "{error}");
    }
}
