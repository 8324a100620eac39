//! Data sets: readers, verified downloads and the bundled images.
//!
//! A data set is named by one string:
//!
//! | name | what is read |
//! |---|---|
//! | `fashion-mnist-10k` | the bundled 10,000 + 2,000 images of Fashion-MNIST; needs no data root and no network |
//! | `fashion-mnist`, `mnist` | `ROOT/FashionMNIST/raw`, `ROOT/MNIST/raw`: IDX files, packed or not |
//! | `cifar10`, `cifar100` | `ROOT/cifar-10-batches-bin`, `ROOT/cifar-100-binary`: the binary versions |
//! | `stl10` | `ROOT/stl10_binary`; the 100,000 unlabelled images stay on disk |
//! | `cifar10-jpeg75` | `ROOT/cifar10-jpeg75.tar.gz` or the folder `ROOT/cifar10-jpeg75`: CIFAR-10 after JPEG of quality 75 |
//! | `folder:PATH` | own images: PNG and JPEG in folders of classes, or in one folder without labels ([`Dataset`]) |
//!
//! A number behind a name takes the first rows of every part, spread evenly over the classes, for quick tests:
//! `fashion-mnist-10k:500`. It stays in the data set's name, so no record mistakes it for the whole.
//!
//! `ROOT` is [`data_root`]; its layout is torchvision's, so a folder that torchvision filled works as it is.
//! Labels leave this crate through [`Part::labels`] alone; training is given [`Part::images`].

mod catalogue;
mod cifar;
mod content;
mod dataset;
mod download;
mod folder;
mod idx;
mod jpeg_copy;
mod load;
mod memory;
mod root;
mod split;
mod stl10;
mod store;
mod sum;
#[cfg(test)]
mod tests;
mod unpack;
mod vocabulary;

pub use catalogue::{Entry, list};
pub use dataset::{Dataset, Part};
pub use download::{Transfer, progress_bar};
pub use load::load;
pub use root::{bundled_root, data_root};
pub use split::{hold_out, stratified_first, stratified_fraction};
pub use store::{get, verify};
pub use vocabulary::Vocabulary;
