//! Real data, where the variable `SELFSUP_SHARED_DATA` names a folder with it.
//!
//! Expected are `fashion-mnist/` (the four published files), `cifar10/cifar10-jpeg75.tar.gz` and
//! `cifar10/exact-sample/` (the first records of the official files), and `emoji-captions/emoji-captions-64.tar.gz`.

use super::decoded;
use crate::cifar::{self, Kind};
use crate::sum;
use crate::{get, load, verify};
use selfsup_core::data::Images as _;
use std::io::Write as _;
use std::path::PathBuf;

/// The folder of real data; without it the test says loudly that it did nothing.
pub(super) fn shared(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SELFSUP_SHARED_DATA").map(PathBuf::from);
    if folder.is_none() {
        // Written directly: the test harness hides what a passing test prints.
        let _ = writeln!(std::io::stderr(), "\nSKIPPED {test}: set SELFSUP_SHARED_DATA to a folder with real data");
    }
    folder
}

#[test]
fn the_first_cifar_records_have_the_published_values() {
    let Some(shared) = shared("the_first_cifar_records_have_the_published_values") else { return };
    for (file, rows, label, first, last) in [
        ("data_batch_1.first200.bin", 200, 6, [59, 43, 50], [140, 84, 72]),
        ("test_batch.first20.bin", 20, 3, [158, 159, 165], [124, 129, 110]),
    ] {
        let path = shared.join("cifar10/exact-sample").join(file);
        let (pixels, labels) = cifar::read(&[path], rows, Kind::Ten).expect("right records");
        assert_eq!((labels[0], pixels.len()), (label, rows));
        // Published as the start and the end of a record: along the top of the red and the bottom of the blue plane.
        let image = pixels.image(0).expect("in memory");
        let plane = |channel| image.pixels.iter().skip(channel).step_by(3).copied().collect::<Vec<u8>>();
        assert_eq!((&plane(0)[..3], &plane(2)[1021..]), (&first[..], &last[..]));
    }
}

#[cfg(unix)]
#[test]
fn fashion_mnist_is_verified_and_contains_the_bundled_set() {
    let Some(shared) = shared("fashion_mnist_is_verified_and_contains_the_bundled_set") else { return };
    let root = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(root.path().join("FashionMNIST")).expect("a made folder");
    std::os::unix::fs::symlink(shared.join("fashion-mnist"), root.path().join("FashionMNIST/raw")).expect("a link");
    assert!(get("fashion-mnist", root.path(), &mut |_| {}).expect("all there").iter().all(|l| l.contains("right")));
    assert_eq!(verify("fashion-mnist", root.path()).expect("right sums").len(), 6);
    let published = root.path().join("FashionMNIST/raw/t10k-labels-idx1-ubyte.gz");
    assert_eq!(sum::md5(&published).expect("a sum"), "bb300cfdad3c16e7a12a480ee83cd310");
    let whole = load("fashion-mnist:10000", root.path()).expect("the whole set");
    let bundled = load("fashion-mnist-10k", root.path()).expect("the bundled set");
    assert_eq!(whole.train.labels, bundled.train.labels);
    for row in 0..10_000 {
        let pixels = |set: &crate::Dataset| decoded(&set.train, row).expect("in memory").pixels.into_owned();
        assert_eq!(pixels(&whole), pixels(&bundled));
    }
}

#[test]
fn the_jpeg_copy_has_official_labels_and_near_pixels() {
    let Some(shared) = shared("the_jpeg_copy_has_official_labels_and_near_pixels") else { return };
    let start = std::time::Instant::now();
    let set = load("cifar10-jpeg75", &shared.join("cifar10")).expect("the copy");
    let _ = writeln!(std::io::stderr(), "cifar10-jpeg75 loaded in {:.1} s", start.elapsed().as_secs_f64());
    let path = shared.join("cifar10/exact-sample/data_batch_1.first200.bin");
    let (exact, labels) = cifar::read(&[path], 200, Kind::Ten).expect("right records");
    assert_eq!(set.train.labels.as_ref().expect("labels")[..200], labels);
    let mut difference = 0.0;
    for row in 0..200 {
        let copy = decoded(&set.train, row).expect("in memory");
        let exact = exact.image(row).expect("in memory");
        difference += copy.pixels.iter().zip(exact.pixels.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    }
    let mean = difference / (200.0 * 3072.0);
    // 5.9 by another decoder; decoders differ by 0.3 on average.
    assert!((mean - 5.9).abs() < 0.3, "{mean}");
    let sums = (0..set.train.len()).fold([0u64; 3], |mut sums, row| {
        let image = decoded(&set.train, row).expect("in memory");
        image.pixels.chunks_exact(3).for_each(|pixel| (0..3).for_each(|c| sums[c] += u64::from(pixel[c])));
        sums
    });
    for (sum, mean) in sums.into_iter().zip(&set.normalisation.mean) {
        assert!((sum as f64 / 51_200_000.0 / 255.0 - f64::from(*mean)).abs() < 2e-3);
    }
}
