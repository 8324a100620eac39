//! Data sets: readers, verified downloads and the bundled sets.
//!
//! A data set is named by one string:
//!
//! | name | what is read |
//! |---|---|
//! | `fashion-mnist-10k` | the bundled 10,000 + 2,000 images of Fashion-MNIST; needs no data root and no network |
//! | `fashion-mnist-10k-captions` | the same with the names of the classes as captions: labels, so for generation alone |
//! | `fashion-mnist`, `mnist` | `ROOT/FashionMNIST/raw`, `ROOT/MNIST/raw`: IDX files, packed or not |
//! | `cifar10`, `cifar100` | `ROOT/cifar-10-batches-bin`, `ROOT/cifar-100-binary`: the binary versions |
//! | `stl10` | `ROOT/stl10_binary`; the 100,000 unlabelled images stay on disk |
//! | `imagenette` | `ROOT/imagenette2-160`: JPEG files in folders of classes, decoded when asked for |
//! | `cifar10-jpeg75` | `ROOT/cifar10-jpeg75.tar.gz` or the folder `ROOT/cifar10-jpeg75`: CIFAR-10 after JPEG of quality 75 |
//! | `emoji-mini` | 1,435 bundled emoji 32 x 32 with captions |
//! | `emoji` | `ROOT/emoji-captions-64.tar.gz` or the folder `ROOT/emoji-captions`: 3,786 emoji 64 x 64 with captions |
//! | `emoji-mini-bpe`, `emoji-bpe` | the same two with captions in pieces of words ([`Pieces`]) |
//! | `tinyshakespeare` | the bundled text in windows of characters, without labels |
//! | `shakespeare-speeches` | its speeches, labelled by play |
//! | `tinyshakespeare-bpe`, `shakespeare-speeches-bpe` | the same two in pieces of words ([`Pieces`]) |
//! | `japanese-vowels`, `osu-leaf` | bundled series: 12 channels and 7 to 29 steps; one channel and 427 steps |
//! | `japanese-vowels-tokens`, `osu-leaf-tokens` | the same as token sequences: 64 levels of each channel, of each step and of the means of 4 |
//! | `text:PATH` | own text: a UTF-8 file or the `.txt` files of a folder, in windows of characters; in those of pieces where the folder holds a `tokenizer.json` |
//! | `ts:PATH_TRAIN.ts`, `ts-tokens:PATH_TRAIN.ts` | own series in the `.ts` format, with `PATH_TEST.ts` beside it; as token sequences |
//! | `folder:PATH` | own images: PNG and JPEG in folders of classes, or in one folder without labels ([`Dataset`]) |
//!
//! A number behind a name takes the first rows of every part, spread evenly over the classes, for quick tests:
//! `fashion-mnist-10k:500`. It stays in the data set's name, so no record mistakes it for the whole.
//!
//! `ROOT` is [`data_root`]; its layout is torchvision's, so a folder that torchvision filled works as it is.
//! Labels leave this crate through [`Part::labels`] alone; training is given [`Part::samples`].

mod captioned;
mod catalogue;
mod cifar;
mod content;
mod dataset;
mod download;
mod emoji;
mod folder;
mod idx;
mod jpeg_copy;
mod load;
mod memory;
mod message;
mod pieces;
mod root;
mod series;
mod split;
mod stl10;
mod store;
mod sum;
#[cfg(test)]
mod tests;
mod text;
mod unpack;
mod vocabulary;

pub use catalogue::{Entry, OWN, list};
pub use dataset::{Dataset, Part};
pub use download::{Transfer, progress_bar};
pub use load::load;
pub use pieces::Pieces;
pub use root::{bundled_root, data_root};
pub use split::{hold_out, stratified_first, stratified_fraction};
pub use store::{get, verify};
pub use vocabulary::Vocabulary;
