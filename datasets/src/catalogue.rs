//! The data sets that have a name: where they lie, where they come from, by what sums they are known.
//!
//! A file without a sum cannot be listed, so nothing is ever downloaded on trust.

use std::path::{Path, PathBuf};

/// A named data set.
pub struct Entry {
    pub name: &'static str,
    /// What it holds, in one line.
    pub summary: &'static str,
    /// Under which terms, as its authors state them.
    pub licence: &'static str,
    pub(crate) format: Format,
    /// Its folder below the data root.
    pub(crate) folder: &'static str,
    /// What is downloaded, or must be placed by hand.
    pub(crate) sources: &'static [Source],
    /// Files with a published MD5 after unpacking.
    pub(crate) members: &'static [(&'static str, &'static str)],
}

/// How its files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Four IDX files that stand in the repository; with the names of the classes as captions or without.
    Bundled {
        captions: bool,
    },
    /// Four IDX files.
    Idx,
    Cifar10,
    Cifar100,
    Stl10,
    JpegCopy,
    /// Imagenette: `train/` and `val/` with a folder a class, named by WordNet's numbers.
    Imagenette,
    /// The bundled text: windows of it or single speeches, in characters or in pieces of words.
    Shakespeare {
        speeches: bool,
        pieces: bool,
    },
    /// Bundled series, as they are or as token sequences, of which a token stands for so many steps of a channel: the
    /// training part's file, then the test part's.
    Series {
        tokens: Option<usize>,
    },
    /// Captioned images, an archive or the folder that it holds; captions in characters or in pieces of words.
    Emoji {
        pieces: bool,
    },
    /// Bundled captioned images: one picture and a table.
    EmojiMini {
        pieces: bool,
    },
}

impl Format {
    /// Whether its files stand in the repository.
    pub(crate) fn is_bundled(self) -> bool {
        matches!(
            self,
            Format::Bundled { .. } | Format::Shakespeare { .. } | Format::Series { .. } | Format::EmojiMini { .. }
        )
    }

    /// Whether it is read from an archive, unpacked or as it is.
    pub(crate) fn is_archive(self) -> bool {
        matches!(self, Format::JpegCopy | Format::Emoji { .. })
    }

    /// Whether what is downloaded is an archive to be unpacked.
    pub(crate) fn is_unpacked(self) -> bool {
        matches!(self, Format::Cifar10 | Format::Cifar100 | Format::Stl10 | Format::Imagenette)
    }
}

/// One file as it is published.
pub(crate) struct Source {
    pub(crate) file: &'static str,
    /// Its length, where that is published.
    pub(crate) bytes: Option<u64>,
    pub(crate) sum: Sum,
    /// Addresses of the folder it lies in, to be tried in turn.
    pub(crate) mirrors: &'static [&'static str],
}

/// What a file is known by.
#[derive(Clone, Copy)]
pub(crate) enum Sum {
    /// MD5 of the file.
    Md5(&'static str),
    /// SHA-256 of the file.
    Sha256(&'static str),
    /// SHA-256 and length of the content, so that a file that was packed anew passes; MD5 of the published file.
    Content { sha256: &'static str, bytes: u64, md5: Option<&'static str> },
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sum::Md5(sum) => write!(f, "md5 {sum}"),
            Sum::Sha256(sum) => write!(f, "sha256 {sum}"),
            Sum::Content { sha256, bytes, md5 } => {
                write!(f, "sha256 {sha256} of its {bytes} unpacked bytes")?;
                md5.map_or(Ok(()), |md5| write!(f, ", or md5 {md5} as published"))
            }
        }
    }
}

impl Entry {
    /// Where one of its files belongs.
    pub(crate) fn place(&self, root: &Path, source: &Source) -> PathBuf {
        let beside = self.format.is_unpacked() || self.format.is_archive();
        if beside { root.join(source.file) } else { root.join(self.folder).join(source.file) }
    }

    /// The file of an IDX source, packed or not; `None` if there is neither.
    pub(crate) fn idx_file(&self, root: &Path, source: &Source) -> Option<PathBuf> {
        let packed = self.place(root, source);
        let plain = packed.with_extension("");
        [packed, plain].into_iter().find(|path| path.is_file())
    }

    /// Whether its files are there, unchecked. The bundled set always is.
    pub fn is_present(&self, root: &Path) -> bool {
        match self.format {
            format if format.is_bundled() => true,
            Format::Idx => self.sources.iter().all(|source| self.idx_file(root, source).is_some()),
            Format::JpegCopy | Format::Emoji { .. } => {
                root.join(self.folder).is_dir() || root.join(self.sources[0].file).is_file()
            }
            _ => root.join(self.folder).is_dir(),
        }
    }

    /// What to do where it is missing.
    pub(crate) fn how_to_get(&self, root: &Path) -> String {
        let by_hand: Vec<String> = self
            .sources
            .iter()
            .map(|source| {
                let from = source.mirrors.first().map_or(String::new(), |base| format!(" from {base}{}", source.file));
                let bytes = source.bytes.map_or(String::new(), |bytes| format!("{bytes} bytes, "));
                let then = if self.format.is_unpacked() { ", unpacked there" } else { "" };
                format!("{}{then}{from} ({bytes}{})", self.place(root, source).display(), source.sum)
            })
            .collect();
        let start = match self.sources.iter().any(|source| !source.mirrors.is_empty()) {
            true => format!("run `selfsup data get {}`, or place by hand:", self.name),
            false => "nobody publishes it under a fixed address; place by hand:".to_string(),
        };
        format!("{start} {}", by_hand.join("; "))
    }
}

/// Own data, which need no entry: how they are named, and what is read.
pub const OWN: [(&str, &str); 4] = [
    ("folder:PATH", "own images: PNG and JPEG in folders of classes, or in one folder"),
    ("text:PATH", "own text: a UTF-8 file, or a folder with .txt files; in characters, or by its tokenizer.json"),
    ("ts:PATH_TRAIN.ts", "own series in the format of the UCR and UEA archives, PATH_TEST.ts beside it"),
    ("ts-tokens:PATH_TRAIN.ts", "the same as token sequences: each value one of 64 levels, each channel with its own"),
];

/// All named data sets.
pub fn list() -> &'static [Entry] {
    &ENTRIES
}

pub(crate) const FASHION_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
pub(crate) const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
pub(crate) const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
pub(crate) const STL10_CLASSES: [&str; 10] =
    ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];
/// WordNet's numbers, as its folders are called, and what they stand for.
pub(crate) const IMAGENETTE_CLASSES: [(&str, &str); 10] = [
    ("n01440764", "tench"),
    ("n02102040", "English springer"),
    ("n02979186", "cassette player"),
    ("n03000684", "chain saw"),
    ("n03028079", "church"),
    ("n03394916", "French horn"),
    ("n03417042", "garbage truck"),
    ("n03425413", "gas pump"),
    ("n03445777", "golf ball"),
    ("n03888257", "parachute"),
];
#[rustfmt::skip]
pub(crate) const CIFAR100_CLASSES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

const FASHION: &[&str] = &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"];
const MNIST: &[&str] = &["https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"];
const CIFAR: &[&str] = &["https://www.cs.toronto.edu/~kriz/"];
const IMAGENETTE: &[&str] = &["https://s3.amazonaws.com/fast-ai-imageclas/"];
const STL: &[&str] = &["http://ai.stanford.edu/~acoates/stl10/"];

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte.gz";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte.gz";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte.gz";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte.gz";

/// A file of the bundled set.
const fn bundled(file: &'static str, bytes: u64, sha256: &'static str) -> Source {
    Source { file, bytes: None, sum: Sum::Content { sha256, bytes, md5: None }, mirrors: &[] }
}

/// A file of Fashion-MNIST: its published length and MD5, its content's length and SHA-256.
const fn fashion(file: &'static str, packed: u64, md5: &'static str, bytes: u64, sha256: &'static str) -> Source {
    Source { file, bytes: Some(packed), sum: Sum::Content { sha256, bytes, md5: Some(md5) }, mirrors: FASHION }
}

/// A file known by its published MD5 alone.
const fn published(
    file: &'static str,
    bytes: Option<u64>,
    md5: &'static str,
    mirrors: &'static [&'static str],
) -> Source {
    Source { file, bytes, sum: Sum::Md5(md5), mirrors }
}

const VOWELS: &[Source] = &[
    bundled("JapaneseVowels_TRAIN.ts.gz", 487_971, "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd"),
    bundled("JapaneseVowels_TEST.ts.gz", 649_132, "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462"),
];

const LEAVES: &[Source] = &[
    bundled("OSULeaf_TRAIN.ts.gz", 953_148, "86b9d6e860414ffd26cebc62fff84ffb37fa588ef3e5bf79e4094a437c36ddfc"),
    bundled("OSULeaf_TEST.ts.gz", 1_152_821, "6c549dd354f9e42d5985fa5fab75321ca9acefc7873457e71467fc8a31f107ce"),
];

const SHAKESPEARE: &[Source] =
    &[bundled("tinyshakespeare.txt.gz", 1_115_394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed")];

/// What the bundled text is read as.
const fn shakespeare(name: &'static str, summary: &'static str, speeches: bool, pieces: bool) -> Entry {
    Entry {
        name,
        summary,
        licence: "public domain; gathered by A. Karpathy under MIT",
        format: Format::Shakespeare { speeches, pieces },
        folder: "tinyshakespeare",
        sources: SHAKESPEARE,
        members: &[],
    }
}

/// What the bundled vowels are read as.
const fn vowels(name: &'static str, summary: &'static str, tokens: Option<usize>) -> Entry {
    Entry {
        name,
        summary,
        licence: "CC BY 4.0 (UCI); cite Kudo et al. 1999",
        format: Format::Series { tokens },
        folder: "japanese-vowels",
        sources: VOWELS,
        members: &[],
    }
}

/// All emoji, with captions in characters or in pieces of words.
const fn emoji(name: &'static str, summary: &'static str, pieces: bool) -> Entry {
    Entry {
        name,
        summary,
        licence: EMOJI_LICENCE,
        format: Format::Emoji { pieces },
        folder: "emoji-captions",
        sources: &[Source {
            file: "emoji-captions-64.tar.gz",
            bytes: Some(13_556_783),
            sum: Sum::Sha256("274d61afa9660a095fef56fd6a5aff6612c43b0105a4231f2da1ceca9a4902fb"),
            mirrors: &[],
        }],
        members: &[],
    }
}

/// What the bundled outlines of leaves are read as.
const fn leaves(name: &'static str, summary: &'static str, tokens: Option<usize>) -> Entry {
    Entry {
        name,
        summary,
        licence: "free, with a citation; cite Dau et al. 2019",
        format: Format::Series { tokens },
        folder: "osu-leaf",
        sources: LEAVES,
        members: &[],
    }
}

const EMOJI_MINI: &[Source] = &[
    bundled("images.png", 1_522_683, "277a50830dff1406c97708923cb36dfa591772e4fce37d8a1f665c6645ad4b87"),
    bundled("captions.tsv", 55_260, "7bd0809349453f6f25dd4ad3ac54c8950586a58a99ecfa2cfa0f6f0e3a2dd97d"),
];

/// The bundled ones.
const fn emoji_mini(name: &'static str, summary: &'static str, pieces: bool) -> Entry {
    Entry {
        name,
        summary,
        licence: EMOJI_LICENCE,
        format: Format::EmojiMini { pieces },
        folder: "emoji-mini",
        sources: EMOJI_MINI,
        members: &[],
    }
}

const EMOJI_LICENCE: &str = "images Apache-2.0 (Noto Emoji), names MIT (emoji-data)";

const FASHION_10K: &[Source] = &[
    bundled(TRAIN_IMAGES, 7_840_016, "d33512cfdc636a0d8972818e6659995be209a88891df7fa2109d7895922c8985"),
    bundled(TRAIN_LABELS, 10_008, "620cb8e3b9348037c5ff9a07b02d773ab165330e072dfd19e0d21c59f8042dcf"),
    bundled(TEST_IMAGES, 1_568_016, "15a92dd1e9b16ea361928086e77df4dfa890c255c00b5a8c8162c1040ce8eef1"),
    bundled(TEST_LABELS, 2_008, "234596aeb6eb48133ec99a62541f90bc0728c9559a681f1e0638037462458f2c"),
];

static ENTRIES: [Entry; 21] = [
    Entry {
        name: "fashion-mnist-10k",
        summary: "10,000 + 2,000 grey images 28 x 28, 10 classes: the first of each class of Fashion-MNIST; bundled",
        licence: "MIT (Zalando SE)",
        format: Format::Bundled { captions: false },
        folder: "fashion-mnist-10k",
        sources: FASHION_10K,
        members: &[],
    },
    Entry {
        name: "fashion-mnist-10k-captions",
        summary: "the same with the names of the classes as captions, which are labels: to make images of, not features",
        licence: "MIT (Zalando SE)",
        format: Format::Bundled { captions: true },
        folder: "fashion-mnist-10k",
        sources: FASHION_10K,
        members: &[],
    },
    Entry {
        name: "fashion-mnist",
        summary: "60,000 + 10,000 grey images 28 x 28, 10 classes of clothing (31 MB)",
        licence: "MIT (Zalando SE)",
        format: Format::Idx,
        folder: "FashionMNIST/raw",
        sources: &[
            fashion(
                TRAIN_IMAGES,
                26_421_880,
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                47_040_016,
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            fashion(
                TRAIN_LABELS,
                29_515,
                "25c81989df183df01b3e8a0aad5dffbe",
                60_008,
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            fashion(
                TEST_IMAGES,
                4_422_102,
                "bef4ecab320f06d8554ea6380940ec79",
                7_840_016,
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            fashion(
                TEST_LABELS,
                5_148,
                "bb300cfdad3c16e7a12a480ee83cd310",
                10_008,
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ],
        members: &[],
    },
    Entry {
        name: "mnist",
        summary: "60,000 + 10,000 grey images 28 x 28, 10 digits (11 MB)",
        licence: "none stated by its authors; cite LeCun et al. 1998",
        format: Format::Idx,
        folder: "MNIST/raw",
        sources: &[
            published(TRAIN_IMAGES, None, "f68b3c2dcbeaaa9fbdd348bbdeb94873", MNIST),
            published(TRAIN_LABELS, None, "d53e105ee54ea40749a09fcbcd1e9432", MNIST),
            published(TEST_IMAGES, None, "9fb629c4189551a2d022fa330f9573f3", MNIST),
            published(TEST_LABELS, None, "ec29112dd5afa0611ce80d1b7f02629c", MNIST),
        ],
        members: &[],
    },
    Entry {
        name: "cifar10",
        summary: "50,000 + 10,000 colour images 32 x 32, 10 classes (170 MB)",
        licence: "none stated by its authors; cite Krizhevsky 2009",
        format: Format::Cifar10,
        folder: "cifar-10-batches-bin",
        sources: &[published("cifar-10-binary.tar.gz", Some(170_052_171), "c32a1d4ab5d03f1284b67883e8d87530", CIFAR)],
        members: &[],
    },
    Entry {
        name: "cifar100",
        summary: "50,000 + 10,000 colour images 32 x 32, 100 classes, the fine ones (169 MB)",
        licence: "none stated by its authors; cite Krizhevsky 2009",
        format: Format::Cifar100,
        folder: "cifar-100-binary",
        sources: &[published("cifar-100-binary.tar.gz", Some(168_513_733), "03b5dce01913d631647c71ecec9e9cb8", CIFAR)],
        members: &[],
    },
    Entry {
        name: "stl10",
        summary: "5,000 + 8,000 colour images 96 x 96, 10 classes, and 100,000 without labels (2.6 GB)",
        licence: "none stated by its authors (images from ImageNet); cite Coates et al. 2011",
        format: Format::Stl10,
        folder: "stl10_binary",
        sources: &[published("stl10_binary.tar.gz", None, "91f7769df0f17e558f3565bffb0c7dfb", STL)],
        members: &[
            ("train_X.bin", "918c2871b30a85fa023e0c44e0bee87f"),
            ("train_y.bin", "5a34089d4802c674881badbb80307741"),
            ("unlabeled_X.bin", "5242ba1fed5e4be9e1e742405eb56ca4"),
            ("test_X.bin", "7f263ba9f9e0b06b93213547f721ac82"),
            ("test_y.bin", "36f9794fa4beb8a2c72628de14fa638e"),
        ],
    },
    Entry {
        name: "imagenette",
        summary: "9,469 + 3,925 colour images, shorter side 160, 10 classes of ImageNet that differ much (99 MB)",
        licence: "images from ImageNet: research and teaching only; the choice of them Apache-2.0 (fast.ai)",
        format: Format::Imagenette,
        folder: "imagenette2-160",
        sources: &[published("imagenette2-160.tgz", None, "e793b78cc4c9e9a4ccc0c1155377a412", IMAGENETTE)],
        members: &[],
    },
    Entry {
        name: "cifar10-jpeg75",
        summary: "CIFAR-10 after JPEG of quality 75: official labels and order, pixels not exact (20 MB)",
        licence: "none stated by its authors; cite Krizhevsky 2009",
        format: Format::JpegCopy,
        folder: "cifar10-jpeg75",
        sources: &[Source {
            file: "cifar10-jpeg75.tar.gz",
            bytes: Some(19_747_138),
            sum: Sum::Sha256("93458e2fd3fba7c22b156a0ea6f6d65c4bba6b8eafd136147b9f18f25c38ed85"),
            mirrors: &[],
        }],
        members: &[],
    },
    shakespeare(
        "tinyshakespeare",
        "1,115,394 characters of Shakespeare, 65 different, no labels; bundled",
        false,
        false,
    ),
    shakespeare("tinyshakespeare-bpe", "the same in 1,024 pieces of words (byte-pair encoding)", false, true),
    shakespeare("shakespeare-speeches", "the speeches of the same, 9 classes: the plays; bundled", true, false),
    shakespeare("shakespeare-speeches-bpe", "the same in 1,024 pieces of words (byte-pair encoding)", true, true),
    vowels("japanese-vowels", "270 + 370 series of 12 channels and 7 to 29 steps, 9 speakers; bundled", None),
    vowels("japanese-vowels-tokens", "the same as token sequences, 64 levels of each channel", Some(1)),
    leaves("osu-leaf", "200 + 242 series of 1 channel and 427 steps: outlines of leaves, 6 species; bundled", None),
    leaves("osu-leaf-tokens", "the same as sequences of 107 tokens: the means of 4 steps in 64 levels", Some(4)),
    emoji("emoji", "3,786 emoji 64 x 64 over white with captions, 10 categories (14 MB)", false),
    emoji("emoji-bpe", "the same with captions in 512 pieces of words (byte-pair encoding)", true),
    emoji_mini("emoji-mini", "1,435 emoji 32 x 32 over white with captions, 7 categories; bundled", false),
    emoji_mini("emoji-mini-bpe", "the same with captions in 512 pieces of words (byte-pair encoding)", true),
];
