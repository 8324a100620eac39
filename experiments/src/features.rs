//! Features of a run's frozen encoder in files for other tools: NumPy's format, or CSV.

use crate::evaluation::extract;
use crate::run::{Machine, open};
use anyhow::{Context, Result, bail, ensure};
use selfsup_core::group;
use selfsup_core::{Kind, Tensor};
use selfsup_report::file::write_all_whole;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Writes the features [N, D] of a part of a run's data, in the order of the data, to `out` or, without it, into the run's
/// export, and gives the paths; of several processes rank 0 alone does. As `.npy` they are f32, and the labels `[N]` lie beside them as i64 in NAME.labels.npy;
/// as `.csv` the label is the last column. Without labels there are the features alone.
///
/// # Errors
/// If the folder holds no run, or one that diverged; the data have no such part; or the files cannot be written.
pub fn write(folder: &Path, split: &str, out: Option<&Path>, machine: &Machine) -> Result<Vec<PathBuf>> {
    let out = out.map_or_else(|| folder.join(format!("export/features-{split}.npy")), Path::to_path_buf);
    let csv = match out.extension().and_then(|end| end.to_str()) {
        Some("npy") => false,
        Some("csv") => true,
        _ => bail!("{}: expected a name that ends in .npy or .csv", out.display()),
    };
    ensure!(
        !folder.join("FAILED").exists(),
        "{}: the run diverged, so its features say nothing: FAILED in it says where",
        folder.display()
    );
    let (_, dataset, subject) = open(folder, machine)?;
    if !folder.join("DONE").exists() && group::rank() == 0 {
        eprintln!("{}: the run is not finished; these are features of its last checkpoint", folder.display());
    }
    let part = match split {
        "train" => &dataset.train,
        _ => {
            dataset.test.as_ref().with_context(|| format!("`{}` has no test part; give --split train", dataset.name))?
        }
    };
    let x = extract(&|x: &Tensor| subject.method.features(x, false), &*part.samples, &subject, &dataset)?;
    if group::rank() > 0 {
        return Ok(Vec::new());
    }
    let (n, d) = x.size2().context("features have the shape [N, D]")?;
    let bad = x.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
    ensure!(bad == 0, "{bad} of {} features are not finite: the weights of {} are damaged", n * d, folder.display());
    let values = Vec::<f32>::try_from(x.contiguous().view([-1]))?;
    let labels = part.labels.as_deref();
    if labels.is_none() {
        eprintln!("`{}` has no labels: the features stand alone", dataset.name);
    }
    if csv {
        write_all_whole(&[(out.clone(), table(&values, d as usize, labels)?.as_bytes())])?;
        return Ok(vec![out]);
    }
    let features = npy("<f4", &format!("{n}, {d}"), values.iter().flat_map(|value| value.to_le_bytes()));
    let beside = out.with_extension("labels.npy");
    let Some(labels) = labels else {
        // Those of other data would be taken for theirs.
        ensure!(!beside.exists(), "{} belongs to other features: remove it, or give --out", beside.display());
        write_all_whole(&[(out.clone(), &features)])?;
        return Ok(vec![out]);
    };
    let labels = npy("<i8", &format!("{n},"), labels.iter().flat_map(|&label| i64::from(label).to_le_bytes()));
    write_all_whole(&[(out.clone(), &features), (beside.clone(), &labels)])?;
    Ok(vec![out, beside])
}

/// NumPy's format 1.0: a line of text that says kind and shape, filled up to a multiple of 64 bytes, and the values, the
/// last index running fastest.
fn npy(kind: &str, shape: &str, values: impl Iterator<Item = u8>) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Ten bytes stand before it, a line feed ends it.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((length as u16).to_le_bytes());
    file.extend(format!("{header:<0$}\n", length - 1).bytes());
    file.extend(values);
    file
}

/// f0, f1, .. and label, each value in the fewest digits that give its bits again.
fn table(values: &[f32], dimensions: usize, labels: Option<&[u16]>) -> Result<String> {
    let mut text = (0..dimensions).map(|i| format!("f{i}")).collect::<Vec<_>>().join(",");
    text += if labels.is_some() { ",label\n" } else { "\n" };
    for (i, row) in values.chunks(dimensions).enumerate() {
        for (j, value) in row.iter().enumerate() {
            write!(text, "{}{value}", if j == 0 { "" } else { "," })?;
        }
        if let Some(labels) = labels {
            write!(text, ",{}", labels[i])?;
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_numpy_is_its_header_and_the_values() {
        let file = npy("<f4", "1, 2", [1.0f32, -2.5].iter().flat_map(|x| x.to_le_bytes()));
        assert_eq!(&file[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(file.len(), 128 + 8);
        let header = std::str::from_utf8(&file[10..128]).expect("text");
        assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }");
        assert!(header.ends_with(" \n"));
        assert_eq!(file[128..], [0, 0, 128, 63, 0, 0, 32, 192]);
    }

    #[test]
    fn a_table_gives_the_bits_again() {
        let values = [0.1f32, -1e-30, f32::MAX, 1.0 / 3.0];
        let text = table(&values, 2, Some(&[7, 0])).expect("a table");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("f0,f1,label"));
        let read: Vec<Vec<f32>> =
            lines.map(|line| line.split(',').map(|x| x.parse().expect("a number")).collect()).collect();
        assert_eq!(read, [[0.1, -1e-30, 7.0], [f32::MAX, 1.0 / 3.0, 0.0]]);
        assert_eq!(table(&values, 4, None).expect("a table").lines().next(), Some("f0,f1,f2,f3"));
    }
}
