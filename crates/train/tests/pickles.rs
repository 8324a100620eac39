//! Files that PyTorch 2.11 wrote (tests/pickles.py), read here.

use selfsup_core::{Kind, Tensor};
use selfsup_train::pickle;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pickles").join(name)
}

fn read(name: &str) -> HashMap<String, Tensor> {
    pickle::read(&file(name)).unwrap_or_else(|error| panic!("{error:#}"))
}

/// As 64-bit floats, row by row.
fn numbers(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.to_kind(Kind::Double).flatten(0, -1)).expect("numbers")
}

#[test]
fn tensors_of_every_kind_and_layout_are_read_in_both_formats() {
    for name in ["archive.pth", "row.pth", "protocol-4.pth"] {
        let tensors = read(name);
        let is = |key: &str, kind: Kind, size: &[i64], values: &[f64]| {
            let x = tensors.get(key).unwrap_or_else(|| panic!("{name}: no {key} among {:?}", tensors.keys()));
            assert_eq!((x.kind(), x.size().as_slice(), numbers(x).as_slice()), (kind, size, values), "{name}: {key}");
            assert!(x.is_contiguous(), "{name}: {key}");
        };
        is("state_dict.0.weight", Kind::Float, &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        is("state_dict.0.bias", Kind::Float, &[2], &[10.0, 11.0]);
        is("state_dict.1.bias", Kind::Float, &[2], &[30.0, 31.0]);
        is("state_dict.1.num_batches_tracked", Kind::Int64, &[], &[1.0]);
        is("kinds.f64", Kind::Double, &[2], &[0.5, -1.5]);
        is("kinds.f16", Kind::Half, &[2], &[0.5, -1.5]);
        is("kinds.bf16", Kind::BFloat16, &[2], &[0.5, -1.5]);
        is("kinds.i64", Kind::Int64, &[2], &[(1u64 << 40) as f64, -1.0]);
        is("kinds.i32", Kind::Int, &[2], &[7.0, -7.0]);
        is("kinds.i16", Kind::Int16, &[2], &[7.0, -7.0]);
        is("kinds.i8", Kind::Int8, &[2], &[7.0, -7.0]);
        is("kinds.u8", Kind::Uint8, &[2], &[7.0, 200.0]);
        is("kinds.bool", Kind::Bool, &[2], &[1.0, 0.0]);
        is("shapes.transposed", Kind::Float, &[4, 3], &[0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
        is("shapes.middle", Kind::Float, &[2, 2], &[5.0, 6.0, 9.0, 10.0]);
        is("shapes.row", Kind::Float, &[4], &[8.0, 9.0, 10.0, 11.0]);
        is("shapes.parameter", Kind::Float, &[2], &[1.0, 1.0]);
        is("shapes.scalar", Kind::Float, &[], &[2.5]);
        is("shapes.none", Kind::Float, &[0, 3], &[]);
        // Weights, 4 + 3 of the norm; kinds; shapes. The optimiser keeps its tensors under numbers, which are no names.
        assert_eq!(tensors.len(), 7 + 9 + 7, "{name}: {:?}", tensors.keys());
    }
    assert_eq!(read("weights.pth").len(), 7);
}

#[test]
fn what_is_no_dictionary_of_tensors_is_refused() {
    let told = |bytes: &[u8]| format!("{:#}", pickle::tensors(bytes).expect_err("a refusal"));
    assert!(told(&std::fs::read(file("tensor.pth")).expect("a file")).contains("expected a dictionary"));
    assert!(told(b"PK\x03\x04 and so on").contains("damaged or cut short"));
    assert!(told(b"\x80\x02}q\x00.").contains("none of torch.save"));
    assert!(told(b"\x80\x02cos\nsystem\n").contains("cut short"));
    assert!(told(b"\x80\x02\xff").contains("0xff"));
    let whole = std::fs::read(file("row.pth")).expect("a file");
    for end in 0..whole.len() {
        told(&whole[..end]);
    }
}

/// A file that would call a function if Python read it is read here as what it is: text.
#[test]
fn nothing_is_called() {
    let head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let call = b"\x80\x02}X\x01\x00\x00\x00acposix\nsystem\nX\x05\x00\x00\x00false\x85Rs.\x80\x02].";
    assert!(pickle::tensors(&[&head[..], call].concat()).expect("a dictionary").is_empty());
}

/// A tensor of storage `0` with so many numbers, size and stride, each a number below 256.
fn with_shape(numel: u8, offset: u8, size: [u8; 2], stride: [u8; 2]) -> anyhow::Result<HashMap<String, Tensor>> {
    let mut bytes = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}U\x01a".to_vec();
    bytes.extend(b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nByteStorage\nU\x010U\x03cpuK");
    bytes.extend([numel, b'N', b't', b'Q', b'K', offset]);
    for pair in [size, stride] {
        bytes.extend([b'K', pair[0], b'K', pair[1], 0x86]);
    }
    bytes.extend(b"tRs.\x80\x02]U\x010a.");
    bytes.extend(u64::from(numel).to_le_bytes());
    bytes.extend(0..numel);
    pickle::tensors(&bytes)
}

#[test]
fn tensors_that_reach_beyond_their_numbers_are_refused() {
    let x = with_shape(6, 1, [2, 2], [3, 1]).expect("a tensor");
    assert_eq!(numbers(&x["a"]), [1.0, 2.0, 4.0, 5.0]);
    assert!(with_shape(6, 2, [2, 2], [3, 1]).is_err());
    assert!(with_shape(6, 0, [255, 255], [0, 0]).is_err(), "much larger than the file");
    assert!(with_shape(0, 0, [1, 1], [1, 1]).is_err());
    assert_eq!(with_shape(0, 9, [0, 2], [1, 1]).expect("nothing")["a"].size(), [0, 2]);
}
