//! Fuzz targets of all that is read from files of data sets, and what they found.

use super::folders::{encode, encoded};
use super::formats::{cifar_record, content, idx_file, packed, parse_cifar};
use super::mutate::{TAPE, inputs, mutate, one_line, read};
use super::sequences::tokenizer;
use super::transfers::archive;
use super::{message, says};
use crate::cifar::Kind;
use crate::{Dataset, Part, emoji, folder, idx, series, stl10, text, unpack};
use bolero::check;
use image::{DynamicImage, ImageFormat};
use std::fs;
use std::path::Path;

/// Reads a few samples and captions of each part, which a data set must be able to give.
fn look(set: &Dataset) {
    let part = |part: &Part| {
        for row in 0..part.len().min(3) {
            let _ = read(|| part.samples.sample(row).map(drop));
            part.samples.caption(row);
        }
    };
    [Some(&set.train), set.test.as_ref(), set.unlabelled.as_ref()].into_iter().flatten().for_each(part);
}

#[test]
fn fuzz_idx() {
    let images = idx_file(&[2051, 3, 2, 4], &[7; 24]);
    let labels = idx_file(&[2049, 3], &[0, 9, 4]);
    let seeds = [&images, &labels, &packed(&images), &packed(&labels)].map(Vec::clone);
    check!().with_iterations(inputs(2000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let bytes = mutate(&seeds, tape);
        read(|| idx::read_images(content(&bytes)));
        read(|| idx::read_labels(content(&bytes), 10));
    });
}

#[test]
fn fuzz_cifar() {
    let value = |_: usize, y: usize, x: usize| (y * 2 + x) as u8;
    let ten = [cifar_record(&[6], value), cifar_record(&[9], value)].concat();
    let seeds = [ten, cifar_record(&[19, 99], value)];
    check!().with_iterations(inputs(2000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let bytes = mutate(&seeds, tape);
        read(|| parse_cifar(&bytes, Kind::Ten));
        read(|| parse_cifar(&bytes, Kind::Hundred));
    });
}

#[test]
fn fuzz_stl10() {
    let seeds = [vec![7; stl10::SIZE], vec![1, 2, 10]];
    check!().with_iterations(inputs(2000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let bytes = mutate(&seeds, tape);
        read(|| stl10::parse_images("file", &bytes));
        read(|| stl10::parse_labels("file", &bytes));
    });
}

#[test]
fn fuzz_series() {
    let head = "# c\n@problemName x\n@timeStamps false\n@classLabel true a b\n@data\n";
    let seeds = [
        format!("{head}1.5,2,?:3,-4e2,5:a\n1,NaN:0,2:b\n"),
        format!("{head}1,2:a\n"),
        "@classLabel false\n@data\n1,2,3\n4\n".into(),
    ];
    check!().with_iterations(inputs(2000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let bytes = mutate(&seeds, tape);
        let parse = || series::parse("file", &text::utf8("file", bytes.clone())?);
        read(parse);
        let (Ok(one), Ok(two), Ok(three), Ok(four)) = (parse(), parse(), parse(), parse()) else { return };
        if let Some(set) = read(|| series::dataset(one, two)) {
            let moments = set.normalisation.mean.iter().chain(&set.normalisation.std);
            assert!(moments.clone().all(|x| x.is_finite()), "{moments:?}");
            look(&set);
        }
        read(|| series::token_dataset(three, four, 4)).iter().for_each(look);
    });
}

#[test]
fn fuzz_images() {
    let grey = DynamicImage::from(image::GrayImage::from_fn(9, 7, |x, y| image::Luma([(x * y) as u8])));
    let deep = DynamicImage::from(encodable()).into_rgba16();
    let seeds = [
        encoded(false, 9, 7),
        encoded(true, 17, 9),
        encode(&grey, ImageFormat::Png),
        encode(&grey, ImageFormat::Jpeg),
        encode(&deep.into(), ImageFormat::Png),
    ];
    check!().with_iterations(inputs(1000)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let bytes = mend_png(mutate(&seeds, tape));
        for channels in [1, 3] {
            if let Some(image) = read(|| folder::decode("file", &bytes, channels)) {
                assert_eq!(image.pixels.len(), image.height * image.width * channels);
            }
        }
    });
}

fn encodable() -> image::RgbaImage {
    image::RgbaImage::from_fn(5, 4, |x, y| image::Rgba([x as u8 * 50, y as u8 * 60, 7, 128]))
}

/// A PNG whose sums are right again, or what changed would be refused before anything reads it.
pub(super) fn mend_png(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while bytes.starts_with(&[0x89]) && at + 12 <= bytes.len() {
        let length = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let Some(end) = (at + 8).checked_add(length).filter(|end| end + 4 <= bytes.len()) else { break };
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = end + 4;
    }
    bytes
}

#[test]
fn fuzz_text() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let path = place.path().join("own.txt");
    let seeds = ["abc äöü\n".repeat(300), "x".repeat(2559), "\u{feff}ünd ".repeat(700)];
    check!().with_iterations(inputs(500)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mutate(&seeds, tape)).expect("a written file");
        let set = read(|| text::open(&path).map_err(without(place.path())));
        set.iter().for_each(look);
    });
}

/// A message without the name of the temporary folder.
fn without(folder: &Path) -> impl Fn(anyhow::Error) -> anyhow::Error {
    let name = folder.display().to_string();
    move |error| anyhow::anyhow!("{}", format!("{error:#}").replace(&name, ""))
}

/// Small files of each kind of `tokenizer.json`.
fn tokenizers() -> Vec<String> {
    let bytes = r#""truncation": null, "added_tokens": [], "pre_tokenizer": {"type": "ByteLevel",
        "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
    let special = r#""truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": " ?\\w+|\\s"}, "behavior": "Isolated", "invert": false},
        "added_tokens": [{"id": 0, "content": "[U]", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}]"#;
    let bpe = r#"{"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
        "vocab": {"a": 0, "Ġa": 1, "b": 2, "Ġ": 3, "ab": 4}, "merges": ["Ġ a", "a b"]}"#;
    let pieces = r###"{"type": "WordPiece", "unk_token": "[U]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[U]": 0, "a": 1, "##b": 2}}"###;
    let unigram = r#"{"type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["[U]", 0.0], ["a", -1.5], ["ab", -2.0], [" ", -3.0]]}"#;
    let words = r#"{"type": "WordLevel", "unk_token": "[U]", "vocab": {"[U]": 0, "a": 1, "b": 7}}"#;
    let byte_level = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
    vec![
        tokenizer(bpe, byte_level, bytes),
        tokenizer(pieces, r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###, special),
        tokenizer(unigram, r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}"#, special),
        tokenizer(words, "null", special),
    ]
}

#[test]
fn fuzz_tokenizer() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let seeds = tokenizers();
    fs::write(place.path().join("own.txt"), "ab a b, ".repeat(400)).expect("a written file");
    let path = place.path().join("tokenizer.json");
    check!().with_iterations(inputs(500)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        fs::write(&path, mutate(&seeds, tape)).expect("a written file");
        if let Some(set) = read(|| text::open(place.path()).map_err(without(place.path()))) {
            look(&set);
            set.vocabulary.as_ref().map(|vocabulary| (vocabulary.words(), vocabulary.decode(&[0, 1, 9, -1])));
        }
    });
}

#[test]
fn fuzz_captions() {
    let picture = encoded(false, 40 * 32, 32);
    let table = "file\tcaption\tcategory\n1.png\tred heart\tsigns\n2.png\twave, dark skin tone\thands\n";
    let seeds = [table.to_string(), table.replace("hands", "signs"), "category\tcaption\tfile\nx\ty\tz\n".into()];
    check!().with_iterations(inputs(300)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let table = mutate(&seeds, tape);
        for pieces in [false, true] {
            read(|| emoji::mini(&picture, table.clone(), pieces)).iter().for_each(look);
        }
    });
}

#[test]
fn fuzz_archives() {
    use tar::EntryType::{Directory, Regular, Symlink};
    let place = tempfile::tempdir().expect("a temporary folder");
    let (root, path) = (place.path().join("root"), place.path().join("set.tar.gz"));
    fs::create_dir(&root).expect("a folder");
    // Unpacked again: what is changed are the archive's own bytes, or those of its packing.
    let mut plain = Vec::new();
    let whole = archive(&[("set/", Directory, b""), ("set/a", Regular, b"abc"), ("set/b/c", Regular, b"de")]);
    std::io::copy(&mut flate2::read::GzDecoder::new(&whole[..]), &mut plain).expect("an archive");
    let link = archive(&[("set/a", Regular, b"abc"), ("set/l", Symlink, b"")]);
    let seeds = [plain, whole, link];
    check!().with_iterations(inputs(200)).with_max_len(TAPE).for_each(|tape: &[u8]| {
        let bytes = mutate(&seeds, tape);
        let bytes = if bytes.starts_with(&[0x1f, 0x8b]) { bytes } else { packed(&bytes) };
        fs::write(&path, bytes).expect("a written file");
        let done = read(|| unpack::unpack(&path, &root, "set").map_err(without(place.path()))).is_some();
        let left: Vec<_> = fs::read_dir(&root).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, if done { vec!["set"] } else { vec![] });
        if done {
            fs::remove_dir_all(root.join("set")).expect("removed");
        }
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 2, "nothing is written elsewhere");
    });
}

/// What libraries say in several lines, and what a file holds that a terminal obeys.
#[test]
fn found_messages_of_several_lines() {
    let jpeg = encoded(true, 17, 9);
    one_line(&message(folder::decode("file", &jpeg[..20], 3)));
    for word in ["\0", "\u{1b}[31m", "\u{2028}", &"x".repeat(100_000)] {
        one_line(&message(series::parse("file", &format!("@data\n1,{word},3"))));
        one_line(&message(series::parse("file", &format!("@classLabel true a\n@data\n1,2:{word}"))));
    }
    let place = tempfile::tempdir().expect("a temporary folder");
    let path = place.path().join("set.tar.gz");
    let mut plain = Vec::new();
    let whole = archive(&[("set/\u{1f}", tar::EntryType::Regular, b"abc")]);
    std::io::copy(&mut flate2::read::GzDecoder::new(&whole[..]), &mut plain).expect("an archive");
    plain[148] = b'x'; // the sum of the header
    fs::write(&path, packed(&plain)).expect("a written file");
    one_line(&message(unpack::unpack(&path, place.path(), "set")));
}

/// The library took it for granted that a tokenizer is JSON, and a vocabulary had as many entries as its highest id says.
#[test]
fn found_tokenizers_that_are_none() {
    let place = tempfile::tempdir().expect("a temporary folder");
    fs::write(place.path().join("own.txt"), "ab a b, ".repeat(400)).expect("a written file");
    let open = |json: &str| {
        fs::write(place.path().join("tokenizer.json"), json).expect("a written file");
        text::open(place.path())
    };
    for whole in tokenizers() {
        assert!(open(&whole).is_ok());
        let cut = whole.trim_end().strip_suffix('}').expect("an object");
        says(open(cut), &["tokenizer.json is no tokenizer", "EOF"]);
        let id = whole.replace("\"b\": 7", "\"b\": 4294967295");
        if id != whole {
            says(open(&id), &["has ids up to 4294967295", "below 1048576"]);
        }
    }
}
