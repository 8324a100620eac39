//! Named tensors on disk: safetensors, written whole or not at all.

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use selfsup_core::store::{Variable, assign};
use selfsup_core::{Device, Kind, Tensor};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Numbers of the longest shape that is read: LibTorch's own limit in many operations.
pub(crate) const MOST_SIDES: usize = 64;

/// Named tensors, and text that goes with them.
pub struct Checkpoint {
    pub tensors: HashMap<String, Tensor>,
    pub metadata: HashMap<String, String>,
}

fn dtype(kind: Kind) -> Result<Dtype> {
    Ok(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Half => Dtype::F16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        other => bail!("tensors of kind {other:?} cannot be written"),
    })
}

fn kind(dtype: Dtype) -> Result<Kind> {
    Ok(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => bail!("tensors of type {other:?} cannot be read"),
    })
}

/// The bytes of a tensor's values, row by row.
fn values(name: &str, tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut data = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut data, tensor.numel()).with_context(|| format!("copying `{name}`"))?;
    Ok(data)
}

/// SHA-256 over a text and the names, kinds, shapes and values of tensors, in whatever order these come.
pub(crate) fn digest<'a>(text: &str, tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>) -> Result<String> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by_key(|(name, _)| *name);
    let mut hasher = Sha256::new();
    hasher.update(format!("{text:?}\n"));
    for (name, tensor) in tensors {
        hasher.update(format!("{name:?} {:?} {:?}\n", tensor.kind(), tensor.size()));
        hasher.update(values(name, tensor)?);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes tensors (on any device, in any memory layout) under their names.
///
/// # Errors
/// If the file cannot be written; what stood there before is then still there.
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: HashMap<String, String>) -> Result<()> {
    let mut bytes = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        bytes.push((name.as_str(), dtype(tensor.kind())?, shape, values(name, tensor)?));
    }
    let views: Vec<(&str, TensorView)> = bytes
        .iter()
        .map(|(name, dtype, shape, data)| Ok((*name, TensorView::new(*dtype, shape.clone(), data)?)))
        .collect::<Result<_>>()?;
    let file = safetensors::serialize(views, Some(metadata))?;
    write_whole(path, &file).with_context(|| {
        format!("{}: could not be written; what was there before is unchanged. Is the disk full?", path.display())
    })
}

/// Writes beside the file, syncs, renames, and syncs the folder, for a rename is on disk only once its folder is.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let written = File::create(&temporary).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    File::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads what [`write()`] (or any program) wrote as safetensors, onto the CPU.
///
/// # Errors
/// If the file is not there, is cut short or is no safetensors.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let bytes = fs::read(path).with_context(|| format!("{}: could not be read", path.display()))?;
    let broken = || format!("{}: expected safetensors, but the file is damaged or cut short", path.display());
    let (_, header) = SafeTensors::read_metadata(&bytes).with_context(broken)?;
    let file = SafeTensors::deserialize(&bytes).with_context(broken)?;
    let mut tensors = HashMap::new();
    for (name, view) in file.tensors() {
        let shape: Result<Vec<i64>, _> = view.shape().iter().map(|&n| i64::try_from(n)).collect();
        let shape = shape.ok().filter(|shape| shape.len() <= MOST_SIDES).with_context(|| {
            format!("{}: the shape of `{name}` is damaged: {} numbers", path.display(), view.shape().len())
        })?;
        let kind = kind(view.dtype()).with_context(|| format!("{}: `{name}`", path.display()))?;
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).with_context(broken)?;
        tensors.insert(name, tensor);
    }
    Ok(Checkpoint { tensors, metadata: header.metadata().clone().unwrap_or_default() })
}

/// Gives variables the values saved under `prefix` + their names.
///
/// # Errors
/// If one is missing, unexpected or of another shape; nothing is changed then.
pub fn restore(variables: &[Variable], saved: &HashMap<String, Tensor>, prefix: &str) -> Result<()> {
    let mut values = Vec::with_capacity(variables.len());
    for variable in variables {
        let name = format!("{prefix}{}", variable.name);
        let value = saved.get(&name).with_context(|| format!("the variable `{name}` is missing"))?;
        ensure!(
            value.size() == variable.tensor.size() && value.kind() == variable.tensor.kind(),
            "the variable `{name}` is {:?} {:?}, expected {:?} {:?}",
            value.kind(),
            value.size(),
            variable.tensor.kind(),
            variable.tensor.size()
        );
        values.push(value);
    }
    let unexpected = saved.keys().filter(|name| name.starts_with(prefix)).count() - variables.len();
    ensure!(unexpected == 0, "{unexpected} variables are saved that this method does not have");
    for (variable, value) in variables.iter().zip(values) {
        assign(&variable.tensor, &value.to_device(variable.tensor.device()));
    }
    Ok(())
}
