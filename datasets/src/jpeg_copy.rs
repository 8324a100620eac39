//! The JPEG copy of CIFAR-10: official labels and order, but pixels that went through JPEG of quality 75.
//!
//! `cifar10-jpeg75/{train,test}/CLASS/INDEX.jpg`, INDEX being the row in the official files, as a folder or as the
//! archive `cifar10-jpeg75.tar.gz`. A number got on it is no CIFAR-10 number: pixels are off by 6 of 255 on average.

use crate::catalogue::CIFAR10_CLASSES;
use crate::folder::decode;
use crate::memory::Pixels;
use crate::message::plain;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use flate2::read::GzDecoder;
use rayon::prelude::*;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

const SIZE: usize = 32 * 32 * 3;
/// Bytes of a file of the archive: an image has 1,000. What is packed may be a thousand times as large.
const LARGEST: u64 = 1 << 20;
pub(crate) const TRAIN: usize = 50_000;
pub(crate) const TEST: usize = 10_000;

/// Encoded images of one part, in their official places.
struct Encoded {
    part: &'static str,
    rows: Vec<Option<(String, Vec<u8>)>>,
    labels: Vec<u16>,
}

impl Encoded {
    fn new(part: &'static str, rows: usize) -> Encoded {
        Encoded { part, rows: vec![None; rows], labels: vec![0; rows] }
    }

    /// Decodes all, in parallel; the result does not depend on the number of threads.
    fn decode(self) -> Result<(Pixels, Vec<u16>)> {
        let missing = self.rows.iter().filter(|row| row.is_none()).count();
        if let Some(first) = self.rows.iter().position(Option::is_none) {
            bail!(
                "cifar10-jpeg75/{}: expected {} images, {missing} are missing, the first is {first:05}.jpg",
                self.part,
                self.rows.len()
            );
        }
        let rows: Vec<(String, Vec<u8>)> = self.rows.into_iter().flatten().collect();
        let mut bytes = vec![0; rows.len() * SIZE];
        bytes.par_chunks_exact_mut(SIZE).zip(&rows).try_for_each(|(pixels, (name, encoded))| {
            let image = decode(name, encoded, 3)?;
            ensure!(
                (image.height, image.width) == (32, 32),
                "{name}: expected 32 x 32 pixels, found {} x {}",
                image.height,
                image.width
            );
            pixels.copy_from_slice(&image.pixels);
            Ok(())
        })?;
        Ok((Pixels { height: 32, width: 32, channels: 3, bytes }, self.labels))
    }
}

/// Train and test part while they are gathered.
struct Copy([Encoded; 2]);

impl Copy {
    /// Puts an image into its place, which its path (from the part's folder on) says.
    fn place(&mut self, part: &str, class: &str, file: &str, bytes: Vec<u8>) -> Result<()> {
        let name = plain(format!("cifar10-jpeg75/{part}/{class}/{file}"));
        let Some(encoded) = self.0.iter_mut().find(|encoded| encoded.part == part) else {
            bail!("{name}: expected the part `train` or `test`, found `{}`", plain(part));
        };
        let Some(label) = CIFAR10_CLASSES.iter().position(|&known| known == class) else {
            bail!("{name}: `{}` is no class of CIFAR-10", plain(class));
        };
        let index = file.strip_suffix(".jpg").and_then(|index| index.parse::<usize>().ok());
        let Some(index) = index.filter(|&index| index < encoded.rows.len()) else {
            bail!("{name}: expected a file name of 0 to {} and `.jpg`", encoded.rows.len() - 1);
        };
        ensure!(encoded.rows[index].is_none(), "{name}: image {index} of `{part}` occurs twice");
        encoded.rows[index] = Some((name, bytes));
        encoded.labels[index] = label as u16;
        Ok(())
    }

    fn gather_archive(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
        let broken = |why: io::Error| anyhow!("{} is broken or cut short: {}", path.display(), plain(why));
        for entry in archive.entries().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let inner = entry.path().map_err(broken)?.to_string_lossy().into_owned();
            let parts: Vec<&str> = inner.trim_start_matches("./").split('/').collect();
            let ["cifar10-jpeg75", part, class, file] = parts[..] else { continue };
            let mut bytes = Vec::new();
            entry.take(LARGEST).read_to_end(&mut bytes).map_err(broken)?;
            self.place(part, class, file, bytes)?;
        }
        Ok(())
    }

    fn gather_folder(&mut self, path: &Path) -> Result<()> {
        for part in ["train", "test"] {
            for class in CIFAR10_CLASSES {
                let folder = path.join(part).join(class);
                let cannot = || format!("cannot list the folder {}", folder.display());
                for entry in std::fs::read_dir(&folder).with_context(cannot)? {
                    let file = entry.with_context(cannot)?.path();
                    if file.extension().is_some_and(|extension| extension == "jpg") {
                        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                        self.place(part, class, &name, bytes)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A part in memory.
type Labelled = (Pixels, Vec<u16>);

/// Both parts, from the folder or the archive at `path`, with `rows` images of train and test.
pub(crate) fn read(path: &Path, rows: [usize; 2]) -> Result<(Labelled, Labelled)> {
    let mut copy = Copy([Encoded::new("train", rows[0]), Encoded::new("test", rows[1])]);
    if path.is_dir() {
        copy.gather_folder(path)?
    } else {
        copy.gather_archive(path)?
    }
    let Copy([train, test]) = copy;
    Ok((train.decode()?, test.decode()?))
}
