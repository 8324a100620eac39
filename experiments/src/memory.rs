//! The most memory that a run took.

use selfsup_core::{Device, torch_ext};
use std::fs;

/// Starts [`peak_mib`] anew: on a CUDA device for its tensors, on the CPU for this process, where the system can (Linux).
pub fn start(device: Device) {
    // What cannot be started anew counts what came before too, which is still a bound.
    let _ = torch_ext::reset_peak_memory(device);
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most since [`start`], in MiB: of the tensors on a CUDA device, of all of this process on the CPU. `None` where
/// the system does not tell.
pub fn peak_mib(device: Device) -> Option<f64> {
    if device.is_cuda() {
        return Some(torch_ext::memory(device).ok()??.peak as f64 / (1 << 20) as f64);
    }
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
