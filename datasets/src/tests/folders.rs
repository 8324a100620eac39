//! Own images.

use super::{channels, decoded, says, shape};
use crate::folder::decode;
use crate::{Dataset, load, verify};
use image::{DynamicImage, GrayImage, ImageFormat, LumaA, Rgb, RgbImage, Rgba};
use proptest::prelude::*;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

pub(super) fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("an encoded image");
    bytes.into_inner()
}

/// A colour image as JPEG or PNG.
pub(super) fn encoded(jpeg: bool, width: u32, height: u32) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8 * 20, y as u8 * 20, 100]));
    encode(&image.into(), if jpeg { ImageFormat::Jpeg } else { ImageFormat::Png })
}

/// A folder with these files; the folder goes when the first value does.
fn tree(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a made folder");
        fs::write(path, bytes).expect("a written file");
    }
    let path = folder.path().to_path_buf();
    (folder, path)
}

fn open(path: &Path) -> anyhow::Result<Dataset> {
    load(&format!("folder:{}", path.display()), Path::new("nowhere"))
}

#[test]
fn parts_classes_sizes_and_kinds() {
    let colour = |jpeg, side| encoded(jpeg, side, 8);
    let (_folder, path) = tree(&[
        ("train/zebra/b.png", colour(false, 9)),
        ("train/zebra/deeper/c.JPG", colour(true, 16)),
        ("train/ant/z.jpeg", colour(true, 12)),
        ("train/ant/notes.txt", vec![1]),
        ("train/ant/.hidden.png", vec![1]),
        ("val/zebra/x.png", encode(&GrayImage::from_pixel(5, 6, image::Luma([7])).into(), ImageFormat::Png)),
        ("unlabeled/u/1.png", colour(false, 5)),
        ("extra/x.png", colour(false, 5)),
    ]);
    let set = open(&path).expect("a right folder");
    assert_eq!(set.classes, ["ant", "zebra"]);
    assert_eq!(set.train.labels, Some(vec![0, 1, 1]));
    assert_eq!(channels(&set.train), 3);
    let sizes: Vec<_> = (0..3).map(|row| shape(&decoded(&set.train, row).expect("an image"))).collect();
    assert_eq!(sizes, [[8, 12, 3], [8, 9, 3], [8, 16, 3]]);
    let test = set.test.expect("a test part");
    assert_eq!(test.labels, Some(vec![1]));
    let grey = decoded(&test, 0).expect("an image");
    assert_eq!((shape(&grey), &grey.pixels[..6]), ([6, 5, 3], &[7; 6][..]));
    assert_eq!(set.unlabelled.expect("an unlabelled part").len(), 1);
    assert!(set.note.contains("tested on `val`") && set.note.contains("`extra` is left out"), "{}", set.note);
    assert_eq!(set.native_size, 8);
    assert_eq!(verify(&format!("folder:{}", path.display()), Path::new("nowhere")).expect("right images").len(), 4);
}

#[test]
fn class_folders_alone_are_split_by_seed_and_limited() {
    let names: Vec<String> = (0..20).map(|i| format!("{}/{i:02}.png", if i % 2 == 0 { "a" } else { "b" })).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), encoded(false, 4, 4))).collect();
    let (_folder, path) = tree(&files);
    let set = open(&path).expect("a right folder");
    assert_eq!((set.train.len(), set.test.as_ref().expect("a test part").len()), (16, 4));
    assert!(set.note.contains("4 of 20 images held out for testing, seed 0"), "{}", set.note);
    assert_eq!(set.test.expect("a test part").labels, Some(vec![0, 0, 1, 1]));
    let few = load(&format!("folder:{}:6", path.display()), Path::new("nowhere")).expect("a right folder");
    assert_eq!(few.train.labels, Some(vec![0, 0, 0, 1, 1, 1]));
}

#[test]
fn a_flat_folder_has_no_labels_and_grey_stays_grey() {
    let grey = |value| encode(&GrayImage::from_pixel(300, 400, image::Luma([value])).into(), ImageFormat::Png);
    let (_folder, path) = tree(&[("b.png", grey(2)), ("a.png", grey(1))]);
    let set = open(&path).expect("a right folder");
    assert!(set.classes.is_empty() && set.test.is_none() && set.train.labels.is_none());
    assert_eq!((channels(&set.train), set.normalisation.mean.len(), set.native_size), (1, 1, 224));
    let first = decoded(&set.train, 0).expect("an image");
    assert_eq!((shape(&first), first.pixels[0]), ([400, 300, 1], 1));
}

#[test]
fn alpha_lies_over_white_and_sixteen_bits_become_eight() {
    let png = |image: DynamicImage| encode(&image, ImageFormat::Png);
    let rgba = png(image::RgbaImage::from_fn(3, 1, |x, _| Rgba([10, 20, 200, [0, 128, 255][x as usize]])).into());
    // 128 / 255 of the colour and 127 / 255 of white, rounded: 132.02, 137.04, 227.39.
    let over_white = decode("file", &rgba, 3).expect("an image");
    assert_eq!(&over_white.pixels[..], [255, 255, 255, 132, 137, 227, 10, 20, 200]);
    let luma = png(image::GrayAlphaImage::from_fn(2, 1, |x, _| LumaA([40, [0, 255][x as usize]])).into());
    assert_eq!(&decode("file", &luma, 1).expect("an image").pixels[..], [255, 40]);
    assert_eq!(&decode("file", &luma, 3).expect("an image").pixels[..], [255, 255, 255, 40, 40, 40]);
    let deep = png(image::ImageBuffer::<Rgb<u16>, _>::from_pixel(1, 1, Rgb([0u16, 0x8080, 0xffff])).into());
    assert_eq!(&decode("file", &deep, 3).expect("an image").pixels[..], [0, 128, 255]);
}

#[test]
fn exif_orientation_is_honoured() {
    // An EXIF block with the one entry "orientation 6": the camera lay on its side, to be turned by 90 degrees.
    let tiff = [&b"II*\0\x08\0\0\0\x01\0"[..], &[0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0], &[0; 4]].concat();
    let exif = [&b"Exif\0\0"[..], &tiff].concat();
    let plain = encoded(true, 16, 8);
    let mut turned = plain[..2].to_vec();
    turned.extend([0xff, 0xe1]);
    turned.extend((exif.len() as u16 + 2).to_be_bytes());
    turned.extend(exif);
    turned.extend(&plain[2..]);
    let (plain, turned) = (decode("file", &plain, 3).expect("an image"), decode("file", &turned, 3).expect("an image"));
    assert_eq!((shape(&plain), shape(&turned)), ([8, 16, 3], [16, 8, 3]));
    // Turned clockwise, the lower left corner becomes the upper left one.
    assert_eq!(turned.pixels[..3], plain.pixels[7 * 16 * 3..][..3]);
}

#[test]
fn broken_folders_are_refused_with_the_file() {
    let good = || encoded(true, 16, 16);
    let nowhere = Path::new("nowhere");
    let (_folder, path) = tree(&[]);
    says(open(&path), &["holds neither a PNG or JPEG nor a class folder"]);
    says(open(&path.join("none")), &["none is no folder"]);
    let (_folder, path) = tree(&[("a/1.jpg", good()), ("b/readme.txt", vec![])]);
    says(open(&path), &["the class folder", "b holds no PNG or JPEG"]);
    let (_folder, path) = tree(&[("a/1.jpg", good()), ("stray.png", good())]);
    says(open(&path), &["side by side", "stray.png"]);
    let (_folder, path) = tree(&[("train/a/1.jpg", good()), ("test/b/1.jpg", good())]);
    says(open(&path), &["test/b is a class that the training part does not have"]);
    let (_folder, path) = tree(&[("test/b/1.jpg", good())]);
    says(open(&path), &["no folder `train`"]);
    let (_folder, path) = tree(&[("a/1.jpg", good()), ("a/2.webp", good())]);
    says(open(&path), &["2.webp: only PNG and JPEG are read"]);
    let (_folder, path) = tree(&[("a/1.png", b"no image at all".to_vec())]);
    says(open(&path), &["1.png is neither PNG nor JPEG by its first bytes"]);

    let whole = good();
    let (_folder, path) = tree(&[
        ("train/a/1.jpg", whole.clone()),
        ("train/a/2.jpg", whole[..whole.len() - 40].to_vec()),
        ("train/a/3.jpg", whole[..100].to_vec()),
        ("train/a/4.png", encoded(false, 16, 16)[..80].to_vec()),
        ("train/a/5.png", encoded(true, 16, 16)),
        ("test/a/1.jpg", whole.clone()),
    ]);
    let set = open(&path).expect("headers are read only up to the first colour image");
    let image = |row: usize| decoded(&set.train, row);
    assert!(image(0).is_ok());
    says(image(1), &["2.jpg is cut short"]);
    says(image(2), &["3.jpg"]);
    says(image(3), &["4.png"]);
    assert!(image(4).is_ok(), "the content says what a file is, not its name");
    says(verify(&format!("folder:{}", path.display()), nowhere), &["train/a/"]);
}

#[test]
fn the_jpeg_copy_reads_from_folder_and_archive_alike() {
    let images: Vec<Vec<u8>> =
        (0..3).map(|i| encode(&RgbImage::from_pixel(32, 32, Rgb([i * 90, 50, 0])).into(), ImageFormat::Jpeg)).collect();
    let files = [
        ("cifar10-jpeg75/train/truck/00001.jpg", images[0].clone()),
        ("cifar10-jpeg75/train/cat/00000.jpg", images[1].clone()),
        ("cifar10-jpeg75/test/dog/00000.jpg", images[2].clone()),
    ];
    let (_folder, path) = tree(&files);
    for split in ["train", "test"] {
        for class in crate::catalogue::CIFAR10_CLASSES {
            fs::create_dir_all(path.join("cifar10-jpeg75").join(split).join(class)).expect("a made folder");
        }
    }
    let pack = |files: &[(&str, Vec<u8>)]| {
        let archive = path.join("archive.tar.gz");
        let gz = flate2::write::GzEncoder::new(fs::File::create(&archive).expect("a file"), Default::default());
        let mut tar = tar::Builder::new(gz);
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, &bytes[..]).expect("an entry");
        }
        tar.into_inner().expect("an archive").finish().expect("an archive");
        archive
    };
    let folder = crate::jpeg_copy::read(&path.join("cifar10-jpeg75"), [2, 1]).expect("a right folder");
    let archive = crate::jpeg_copy::read(&pack(&files), [2, 1]).expect("a right archive");
    assert_eq!((&folder.0.1, &folder.1.1), (&vec![3, 9], &vec![5]));
    assert_eq!((&folder.0.0.bytes, &folder.1.0.bytes), (&archive.0.0.bytes, &archive.1.0.bytes));
    assert_eq!(folder.0.0.bytes[..3072], decode("file", &images[1], 3).expect("an image").pixels[..]);
    let read = |files: &[(&str, Vec<u8>)]| crate::jpeg_copy::read(&pack(files), [2, 1]);
    says(read(&files[1..]), &["train: expected 2 images, 1 are missing, the first is 00001.jpg"]);
    let with = |name, bytes: &[u8]| [&files[..2], &[(name, bytes.to_vec())]].concat();
    says(read(&with("cifar10-jpeg75/test/cow/00000.jpg", &images[0])), &["`cow` is no class"]);
    says(read(&with("cifar10-jpeg75/test/dog/1.jpg", &images[0])), &["expected a file name of 0 to 0"]);
    says(read(&with("cifar10-jpeg75/train/dog/00001.jpg", &images[0])), &["image 1 of `train` occurs twice"]);
    says(read(&with("cifar10-jpeg75/test/dog/00000.jpg", &images[0][..200])), &["test/dog/00000.jpg"]);
    says(
        read(&with("cifar10-jpeg75/test/dog/00000.jpg", &encoded(true, 9, 9))),
        &["expected 32 x 32 pixels, found 9 x 9"],
    );
}

#[test]
fn imagenette_has_the_names_of_its_classes() {
    let names: Vec<String> = crate::catalogue::IMAGENETTE_CLASSES
        .iter()
        .flat_map(|(id, _)| ["train", "val"].map(|part| format!("imagenette2-160/{part}/{id}/a.JPEG")))
        .collect();
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), encoded(true, 12, 9))).collect();
    let (_folder, root) = tree(&files);
    fs::write(root.join("imagenette2-160/noisy_imagenette.csv"), "path").expect("a written file");
    let folder = root.join("imagenette2-160");
    let set = crate::load::imagenette(&folder, [10, 10]).expect("a right folder");
    assert_eq!(set.classes[..2], ["tench", "English springer"]);
    says(load("imagenette", &root), &["imagenette2-160/train: expected 9469 images, found 10"]);
    says(crate::load::imagenette(&folder, [10, 11]), &["imagenette2-160/val: expected 11 images, found 10"]);
    assert_eq!((set.train.labels.clone(), channels(&set.train)), (Some((0..10).collect()), 3));
    assert_eq!(set.test.expect("a test part").labels, Some((0..10).collect()));
    let of = |part: &str, id: &str| root.join("imagenette2-160").join(part).join(id);
    fs::remove_dir_all(of("val", "n03888257")).expect("removed");
    says(load("imagenette", &root), &["is not Imagenette", "n01440764 to n03888257"]);
    fs::rename(of("train", "n03888257"), of("train", "n00000000")).expect("moved");
    says(load("imagenette", &root), &["is not Imagenette"]);
}

#[test]
fn images_that_claim_more_than_their_file_can_hold_are_refused() {
    // A PNG says its width and height at byte 16, a JPEG its height and width 5 bytes behind the start of its frame.
    let png = |side: u32| {
        let mut png = encoded(false, 9, 7);
        png[16..24].copy_from_slice(&[side.to_be_bytes(), side.to_be_bytes()].concat());
        super::fuzz::mend_png(png)
    };
    let jpeg = |side: u16| {
        let mut jpeg = encoded(true, 9, 7);
        let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame") + 5;
        jpeg[at..at + 4].copy_from_slice(&[side.to_be_bytes(), side.to_be_bytes()].concat());
        jpeg
    };
    for (name, image) in [("a/1.png", png(60_000)), ("a/1.jpg", jpeg(60_000))] {
        says(decode("file", &image, 3), &["file has 60000 x 60000 pixels by its header, more than 100000000"]);
        let (_folder, path) = tree(&[(name, image), ("a/2.png", encoded(false, 9, 7))]);
        says(open(&path), &[name, "60000 x 60000"]);
    }
    for image in [png(9_000), jpeg(9_000)] {
        says(decode("file", &image, 3), &["file is cut short or damaged", "cannot hold the 9000 x 9000 pixels"]);
    }
    says(decode("file", &png(0), 3), &["file"]);
    // What is all of one colour is packed best, and read.
    let white = encode(&GrayImage::from_pixel(3000, 3000, image::Luma([255])).into(), ImageFormat::Png);
    assert_eq!(shape(&decode("file", &white, 1).expect("an image")), [3000, 3000, 1]);
    let white = encode(&GrayImage::from_pixel(3000, 3000, image::Luma([255])).into(), ImageFormat::Jpeg);
    assert_eq!(shape(&decode("file", &white, 1).expect("an image")), [3000, 3000, 1]);
}

#[cfg(unix)]
#[test]
fn a_link_back_to_a_folder_above_ends() {
    let (_folder, path) = tree(&[("a/1.png", encoded(false, 9, 7))]);
    std::os::unix::fs::symlink(path.join("a"), path.join("a/again")).expect("a link");
    says(open(&path), &["folders deep: does a link lead back to a folder above?"]);
    fs::remove_file(path.join("a/again")).expect("removed");
    std::os::unix::fs::symlink(path.join("none"), path.join("a/2.png")).expect("a link");
    says(open(&path), &["cannot read", "a/2.png"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_jpeg_cut_anywhere_is_refused(cut in 1usize..400) {
        let whole = encoded(true, 40, 40);
        let cut = cut.min(whole.len());
        prop_assert!(decode("file", &whole[..whole.len() - cut], 3).is_err());
    }
}
