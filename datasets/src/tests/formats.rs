//! IDX, CIFAR and STL-10.

use super::{decoded, says};
use crate::cifar::{self, Kind};
use crate::content::Content;
use crate::{bundled_root, idx, load, stl10, verify};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use selfsup_core::data::Images as _;
use std::io::Write as _;
use std::path::Path;

pub(super) fn content(bytes: &[u8]) -> Content<'_> {
    Content::new("file".into(), bytes).expect("memory can be read")
}

pub(super) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// Big-endian numbers, then bytes.
pub(super) fn idx_file(numbers: &[u32], body: &[u8]) -> Vec<u8> {
    [numbers.iter().flat_map(|n| n.to_be_bytes()).collect(), body.to_vec()].concat()
}

/// Three images of 2 x 4.
fn idx_images() -> Vec<u8> {
    idx_file(&[2051, 3, 2, 4], &(0..24).collect::<Vec<u8>>())
}

#[test]
fn idx_reads_packed_and_plain() {
    let mut sums = Vec::new();
    for bytes in [idx_images(), packed(&idx_images())] {
        let (pixels, found) = idx::read_images(content(&bytes)).expect("a right file");
        assert_eq!(pixels.len(), 3);
        let image = pixels.image(1).expect("in memory");
        assert_eq!((image.height, image.width, image.channels), (2, 4, 1));
        assert_eq!(&image.pixels[..], [8, 9, 10, 11, 12, 13, 14, 15]);
        sums.push(found);
    }
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0].len(), 64);
    let labels = idx_file(&[2049, 3], &[0, 9, 4]);
    assert_eq!(idx::read_labels(content(&labels), 10).expect("a right file").0, [0, 9, 4]);
}

#[test]
fn broken_idx_is_refused_with_the_place() {
    let whole = idx_images();
    let images = |bytes: &[u8]| idx::read_images(content(bytes));
    let gz = packed(&whole);
    says(images(&gz[..gz.len() - 12]), &["file: broken after byte", "24 bytes of pixels"]);
    says(images(&[&gz[..], &[1, 2, 3]].concat()), &["file: broken after byte 40"]);
    says(images(&whole[..30]), &["ends at byte 30", "expected 24 bytes of pixels from byte 16", "found 14"]);
    says(images(&whole[..10]), &["ends at byte 10", "the height"]);
    says(images(&[&whole[..], &[0]].concat()), &["expected the end at byte 40"]);
    says(images(&idx_file(&[2049, 3], &[0; 3])), &["expected magic number 2051 at byte 0, found 2049"]);
    says(images(&idx_file(&[2051, 3, 0, 4], &[])), &["at byte 8, found 0 x 4"]);
    says(images(&idx_file(&[2051, u32::MAX, 4096, 4096], &[0; 9])), &["content ends at byte 25"]);
    let labels = |bytes: &[u8]| idx::read_labels(content(bytes), 10);
    says(labels(&idx_file(&[2049, 3], &[1, 10, 2])), &["expected labels 0 to 9, found 10 at byte 9 (row 1)"]);
    says(labels(&idx_file(&[2051, 3], &[1, 1, 2])), &["expected magic number 2049 at byte 0, found 2051"]);
    says(labels(&idx_file(&[2049, 3], &[1, 1])), &["expected 3 bytes of labels from byte 8, found 2"]);
}

#[test]
fn as_many_labels_as_images() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    std::fs::write(&images, idx_images()).expect("a written file");
    std::fs::write(&labels, idx_file(&[2049, 2], &[1, 2])).expect("a written file");
    says(idx::read(&images, &labels, 10), &["labels holds 2 labels, expected 3", "images"]);
    says(idx::read(&folder.path().join("none"), &labels, 10), &["cannot open", "none"]);
}

/// A record whose pixel (row, column) of channel c is a known function of all three.
pub(super) fn cifar_record(labels: &[u8], value: impl Fn(usize, usize, usize) -> u8) -> Vec<u8> {
    let planes = (0..3072).map(|at| value(at / 1024, at % 1024 / 32, at % 32));
    labels.iter().copied().chain(planes).collect()
}

pub(super) fn parse_cifar(bytes: &[u8], kind: Kind) -> anyhow::Result<(Vec<u8>, Vec<u16>)> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    cifar::parse("file", bytes, kind, &mut pixels, &mut labels)?;
    Ok((pixels, labels))
}

#[test]
fn cifar_planes_become_channels_and_the_fine_label_is_used() {
    let value = |c: usize, y: usize, x: usize| (c * 85 + y * 2 + x) as u8;
    let ten = [cifar_record(&[6], value), cifar_record(&[9], |_, _, _| 0)].concat();
    let (pixels, labels) = parse_cifar(&ten, Kind::Ten).expect("right records");
    assert_eq!(labels, [6, 9]);
    for (y, x) in [(0, 0), (0, 31), (31, 0), (17, 5)] {
        let at = (y * 32 + x) * 3;
        assert_eq!(pixels[at..at + 3], [value(0, y, x), value(1, y, x), value(2, y, x)]);
    }
    let (hundred, labels) = parse_cifar(&cifar_record(&[19, 99], value), Kind::Hundred).expect("a right record");
    assert_eq!((labels, &hundred[..]), (vec![99], &pixels[..3072]));
}

#[test]
fn broken_cifar_is_refused_with_the_place() {
    let record = |labels: &[u8]| cifar_record(labels, |_, _, _| 1);
    let ten = [record(&[1]), record(&[10])].concat();
    says(parse_cifar(&ten, Kind::Ten), &["expected a label of 0 to 9 at byte 3073, found 10"]);
    says(parse_cifar(&ten[..4000], Kind::Ten), &["multiple of 3073 bytes, found 4000", "starts at byte 3073"]);
    says(parse_cifar(&record(&[20, 3]), Kind::Hundred), &["coarse label of 0 to 19 at byte 0, found 20"]);
    says(parse_cifar(&record(&[2, 100]), Kind::Hundred), &["label of 0 to 99 at byte 1, found 100"]);
    says(parse_cifar(&record(&[2]), Kind::Hundred), &["multiple of 3074 bytes, found 3073"]);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), record(&[1])).expect("a written file");
    says(cifar::read(&[file.path().into()], 2, Kind::Ten), &["expected 6146 bytes (2 records of 3073), found 3073"]);
}

#[test]
fn stl10_columns_become_rows_and_labels_start_at_zero() {
    // Stored [channel, column, row].
    let value = |c: usize, y: usize, x: usize| (c * 64 + y * 3 + x * 7) as u8;
    let stored: Vec<u8> = (0..stl10::SIZE).map(|at| value(at / 9216, at % 96, at % 9216 / 96)).collect();
    let pixels = stl10::parse_images("file", &stored).expect("one image");
    let image = pixels.image(0).expect("in memory");
    for (y, x) in [(0, 0), (0, 95), (95, 0), (17, 50)] {
        let at = (y * 96 + x) * 3;
        assert_eq!(image.pixels[at..at + 3], [value(0, y, x), value(1, y, x), value(2, y, x)]);
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), [vec![7; stl10::SIZE], stored].concat()).expect("a written file");
    let on_disk = stl10::OnDisk::open(file.path(), 2).expect("two images");
    assert_eq!(on_disk.image(1).expect("the second image").pixels, image.pixels);
    says(stl10::OnDisk::open(file.path(), 3), &["expected 82944 bytes", "found 55296"]);
    says(stl10::parse_images("file", &[0; 30000]), &["multiple of 27648 bytes, found 30000"]);
    assert_eq!(stl10::parse_labels("file", &[1, 10]).expect("right labels"), [0, 9]);
    says(stl10::parse_labels("file", &[1, 0]), &["expected labels 1 to 10, found 0 at byte 1"]);
    says(stl10::parse_labels("file", &[11]), &["found 11 at byte 0"]);
}

#[test]
fn the_bundled_set_is_whole_and_balanced() {
    let set = load("fashion-mnist-10k", Path::new("nowhere")).expect("the bundled set");
    let test = set.test.expect("a test part");
    assert_eq!((set.train.len(), test.len(), set.classes.len(), set.native_size), (10_000, 2_000, 10, 28));
    for (part, each) in [(&set.train, 1000), (&test, 200)] {
        let labels = part.labels.as_ref().expect("labels");
        assert!((0..10).all(|class| labels.iter().filter(|&&label| label == class).count() == each));
    }
    // The sums and the constants in the code are those of the pixels.
    let image = |row| decoded(&set.train, row).expect("in memory");
    let (mut sum, mut squares) = (0.0, 0.0);
    for row in 0..set.train.len() {
        for &pixel in image(row).pixels.iter() {
            let pixel = f64::from(pixel) / 255.0;
            (sum, squares) = (sum + pixel, squares + pixel * pixel);
        }
    }
    let mean = sum / 7_840_000.0;
    let std = (squares / 7_840_000.0 - mean * mean).sqrt();
    assert!((mean - f64::from(set.normalisation.mean[0])).abs() < 5e-5, "{mean}");
    assert!((std - f64::from(set.normalisation.std[0])).abs() < 5e-5, "{std}");
    assert_eq!(verify("fashion-mnist-10k", Path::new("nowhere")).expect("right sums").len(), 6);
}

#[test]
fn a_limit_takes_the_first_of_each_class_and_stays_in_the_name() {
    let whole = load("fashion-mnist-10k", Path::new("nowhere")).expect("the bundled set");
    let set = load("fashion-mnist-10k:500", Path::new("nowhere")).expect("the bundled set");
    assert_eq!(set.name, "fashion-mnist-10k:500");
    let labels = set.train.labels.as_ref().expect("labels");
    assert!((0..10).all(|class| labels.iter().filter(|&&label| label == class).count() == 50));
    assert_eq!(set.test.expect("a test part").len(), 500);
    assert_eq!(decoded(&set.train, 0).expect("pixels").pixels, decoded(&whole.train, 0).expect("pixels").pixels);
    says(whole.train.select(&[3, 10_000]), &["row 10000", "10000 images"]);
    says(load("fashion-mnist-10k:0", Path::new("nowhere")), &["a limit of 0"]);
    says(load("fashion-mnist-10k:99999999999999999999999", Path::new("nowhere")), &["too large"]);
}

#[test]
fn an_unknown_or_missing_set_says_what_to_do() {
    says(load("fashon-mnist", Path::new("nowhere")), &["did you mean `fashion-mnist`?", "cifar10", "folder:PATH"]);
    let missing = ["selfsup data get cifar10", "nowhere/cifar-10-binary.tar.gz", "c32a1d4a", "cs.toronto.edu"];
    says(load("cifar10", Path::new("nowhere")), &missing);
    says(load("cifar10-jpeg75", Path::new("nowhere")), &["by hand", "nowhere/cifar10-jpeg75.tar.gz", "93458e2f"]);
}

#[test]
fn the_list_of_sums_is_that_of_the_files() {
    let folder = bundled_root().expect("the bundled sets").join("fashion-mnist-10k");
    let list = std::fs::read_to_string(folder.join("SHA256SUMS")).expect("the list of sums");
    assert_eq!(list.lines().count(), 4);
    for line in list.lines() {
        let (sum, name) = line.split_once("  ").expect("a sum and a name");
        assert_eq!(sum, crate::sum::sha256(&folder.join(name)).expect("a readable file"));
    }
}

#[test]
fn the_catalogue_is_well_formed() {
    for entry in crate::list() {
        for source in entry.sources {
            let sum = source.sum.to_string();
            assert!(sum.split([' ', ',']).any(|word| word.len() == 32 || word.len() == 64), "{sum}");
            assert!(source.mirrors.iter().all(|base| base.starts_with("http") && base.ends_with('/')));
        }
    }
    assert!(crate::catalogue::CIFAR100_CLASSES.is_sorted());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..80) {
        let _ = idx::read_images(content(&bytes));
        let _ = idx::read_labels(content(&bytes), 10);
        for magic in [2051, 2049] {
            let framed = idx_file(&[magic], &bytes);
            let _ = idx::read_images(content(&framed));
            let _ = idx::read_labels(content(&framed), 10);
            let gz = packed(&framed);
            let _ = idx::read_images(content(&gz[..gz.len().saturating_sub(cut)]));
        }
        let _ = idx::read_images(content(&[&[0x1f, 0x8b, 8, 0], &bytes[..]].concat()));
        let _ = stl10::parse_labels("file", &bytes);
        let _ = stl10::parse_images("file", &bytes);
        let record: Vec<u8> = bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { 3074 - cut % 3 }).collect();
        let _ = parse_cifar(&record, Kind::Ten);
        let _ = parse_cifar(&record, Kind::Hundred);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..600, kind in 0usize..2) {
        let _ = crate::folder::decode("file", &bytes, 3);
        let mut image = super::folders::encoded(kind == 0, 9, 7);
        for (target, byte) in image.iter_mut().skip(at).zip(&bytes) {
            *target = *byte;
        }
        let _ = crate::folder::decode("file", &image, 1);
        let _ = crate::folder::decode("file", &image, 3);
    }
}
