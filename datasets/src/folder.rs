//! Own images: PNG and JPEG files in folders, decoded when asked for.

use crate::dataset::{Dataset, Part};
use crate::message::plain;
use crate::split::hold_out;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use selfsup_core::data::{Image, Images, Normalisation};
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::{Path, PathBuf};

/// The share of each class that is held out where a folder has no test part of its own.
const HELD_OUT: f64 = 0.2;
/// Folders below a class folder are read down to this depth; a link that leads back to itself goes deeper.
const DEEPEST: usize = 16;
const READ: [&str; 3] = ["png", "jpg", "jpeg"];
/// Pixels of the largest image that is read: a decoder sets their memory aside before it has seen any.
const MOST_PIXELS: u64 = 100_000_000;
/// Pixels that a byte of a file may stand for: of one bit each in a PNG, which packs 1,032 bytes into one at most; a JPEG
/// packs less.
const MOST_PIXELS_A_BYTE: u64 = 8 * 1032;
/// Images that are not read: leaving them out unsaid would change a data set.
const REFUSED: [&str; 10] = ["avif", "bmp", "gif", "heic", "jp2", "jxl", "ppm", "tif", "tiff", "webp"];

/// What lies directly in one folder, sorted by the bytes of the names; hidden files and other kinds are left out.
struct Listing {
    images: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Listing {
    fn of(folder: &Path) -> Result<Listing> {
        let cannot = || format!("cannot list the folder {}", folder.display());
        let mut listing = Listing { images: Vec::new(), folders: Vec::new() };
        for entry in std::fs::read_dir(folder).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            let name = file_name(&path);
            if name.starts_with('.') || name == "__MACOSX" {
                continue;
            }
            let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
            let about = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if about.is_dir() {
                listing.folders.push(path);
            } else if READ.contains(&extension.as_str()) {
                listing.images.push(path);
            } else if REFUSED.contains(&extension.as_str()) {
                bail!("{}: only PNG and JPEG are read: convert it, or move it out of the folder", path.display());
            }
        }
        listing.images.sort();
        listing.folders.sort();
        Ok(listing)
    }

    /// The folder called `name`.
    fn folder(&self, name: &str) -> Option<&Path> {
        self.folders.iter().map(PathBuf::as_path).find(|path| file_name(path) == name)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// All images at and below `folder`: those of the folder itself, then those of its folders in turn.
fn images_below(folder: &Path, depth: usize, images: &mut Vec<PathBuf>) -> Result<()> {
    ensure!(
        depth < DEEPEST,
        "{} lies {DEEPEST} folders deep: does a link lead back to a folder above?",
        folder.display()
    );
    let listing = Listing::of(folder)?;
    images.extend(listing.images);
    listing.folders.iter().try_for_each(|inner| images_below(inner, depth + 1, images))
}

/// Files with a label each, class after class.
struct Labelled {
    classes: Vec<String>,
    files: Vec<PathBuf>,
    labels: Vec<u16>,
}

impl Labelled {
    /// The class folders of `folder`; labels are indices into `known` classes or, without those, into its own.
    fn of(folder: &Path, listing: &Listing, known: Option<&[String]>) -> Result<Labelled> {
        if let Some(stray) = listing.images.first() {
            bail!(
                "{} holds images and folders side by side, such as {}: put every image into a class folder, or none",
                folder.display(),
                file_name(stray)
            );
        }
        let own: Vec<String> = listing.folders.iter().map(|path| file_name(path)).collect();
        let classes = known.map_or_else(|| own.clone(), <[String]>::to_vec);
        ensure!(classes.len() <= 1 << 16, "{} has {} class folders, more than 65,536", folder.display(), classes.len());
        let (mut files, mut labels) = (Vec::new(), Vec::new());
        for (path, name) in listing.folders.iter().zip(&own) {
            let Some(label) = classes.iter().position(|class| class == name) else {
                bail!("{} is a class that the training part does not have", path.display());
            };
            let before = files.len();
            images_below(path, 0, &mut files)?;
            ensure!(files.len() > before, "the class folder {} holds no PNG or JPEG", path.display());
            labels.resize(files.len(), label as u16);
        }
        Ok(Labelled { classes, files, labels })
    }
}

/// Images decoded when asked for; nothing is kept.
struct Files {
    paths: Vec<PathBuf>,
    channels: usize,
}

impl Images for Files {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let path = &self.paths[index];
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        decode(&path.display().to_string(), &bytes, self.channels)
    }
}

/// A decoder whose header has been read. What a file is, its first bytes say, not its name. A header that claims more
/// pixels than can be held by the file, which is `length` long, or by memory is refused.
fn decoder<'a, R: BufRead + Seek + 'a>(name: &str, file: R, length: u64) -> Result<impl ImageDecoder + use<'a, R>> {
    let reader = ImageReader::new(file).with_guessed_format().with_context(|| format!("cannot read {name}"))?;
    ensure!(
        matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)),
        "{name} is neither PNG nor JPEG by its first bytes"
    );
    let decoder = reader.into_decoder().map_err(|why| anyhow!("{name} has a broken header: {}", plain(why)))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    ensure!(pixels > 0, "{name} has no pixels: its header says {width} x {height}");
    ensure!(
        pixels <= MOST_PIXELS,
        "{name} has {width} x {height} pixels by its header, more than {MOST_PIXELS}: make it smaller, or move it away"
    );
    ensure!(
        pixels <= length.saturating_mul(MOST_PIXELS_A_BYTE),
        "{name} is cut short or damaged: its {length} bytes cannot hold the {width} x {height} pixels of its header"
    );
    Ok(decoder)
}

/// Whether a JPEG's data ends with an end-of-image marker. Decoders fill what is missing with grey and say nothing.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    // Within the data 0xff is followed by 0x00, so the marker cannot occur there; an embedded preview's marker is
    // followed by the start of the image's own scan.
    let end = bytes.windows(2).rposition(|pair| pair == [0xff, 0xd9]);
    end.is_some_and(|end| !bytes[end..].windows(2).any(|pair| pair == [0xff, 0xda]))
}

/// One image of `channels` channels: turned as EXIF says, laid over white where transparent, 8 bits a channel.
pub(crate) fn decode(name: &str, bytes: &[u8], channels: usize) -> Result<Image<'static>> {
    let mut decoder = decoder(name, Cursor::new(bytes), bytes.len() as u64)?;
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder);
    let mut decoded = decoded.map_err(|why| anyhow!("{name} cannot be decoded: {}", plain(why)))?;
    ensure!(
        !bytes.starts_with(&[0xff, 0xd8]) || jpeg_is_whole(bytes),
        "{name} is cut short: its {} bytes hold no end-of-image marker",
        bytes.len()
    );
    decoded.apply_orientation(orientation);
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let over_white = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let pixels = match (channels, decoded.color().has_alpha()) {
        (1, false) => decoded.into_luma8().into_raw(),
        (1, true) => decoded.into_luma_alpha8().pixels().map(|p| over_white(p.0[0], p.0[1])).collect(),
        (_, false) => decoded.into_rgb8().into_raw(),
        (_, true) => {
            let opaque = |p: &image::Rgba<u8>| [0, 1, 2].map(|channel| over_white(p.0[channel], p.0[3]));
            decoded.into_rgba8().pixels().flat_map(opaque).collect()
        }
    };
    Ok(Image { height, width, channels, pixels: Cow::Owned(pixels) })
}

/// Height, width and whether there is colour, from the header alone.
fn header(path: &Path) -> Result<(u32, u32, bool)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let length = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    let decoder = decoder(&path.display().to_string(), BufReader::new(file), length)?;
    let (width, height) = decoder.dimensions();
    Ok((height, width, decoder.color_type().has_color()))
}

/// The data set in a folder; see [`Dataset`] for what is read as what.
pub(crate) fn open(path: &Path) -> Result<Dataset> {
    ensure!(path.is_dir(), "{} is no folder: expected one of images or of class folders", path.display());
    let top = Listing::of(path)?;
    let mut notes = Vec::new();
    let (mut test, mut unlabelled) = (None, None);

    let (train_path, train_listing) = match top.folder("train") {
        Some(train) => (train.to_path_buf(), Listing::of(train)?),
        None => {
            let parts = ["test", "val"].iter().filter(|name| top.folder(name).is_some()).count();
            ensure!(
                parts == 0 || parts < top.folders.len(),
                "{} has a test part but no folder `train`",
                path.display()
            );
            (path.to_path_buf(), Listing::of(path)?)
        }
    };
    ensure!(
        !(train_listing.images.is_empty() && train_listing.folders.is_empty()),
        "{} holds neither a PNG or JPEG nor a class folder",
        train_path.display()
    );
    let train = if train_listing.folders.is_empty() {
        Labelled { classes: Vec::new(), files: train_listing.images, labels: Vec::new() }
    } else {
        Labelled::of(&train_path, &train_listing, None)?
    };
    if top.folder("train").is_some() {
        if let Some(stray) = top.images.first() {
            bail!("{} holds the folder `train` and images beside it, such as {}", path.display(), file_name(stray));
        }
        for folder in &top.folders {
            let name = file_name(folder);
            let listing = Listing::of(folder)?;
            match name.as_str() {
                "train" => {}
                "test" | "val" if train.classes.is_empty() || listing.folders.is_empty() => {
                    notes.push(format!("`{name}` is left out: no labels"));
                }
                // Folders come sorted: `test` has been read when `val` is met.
                "test" | "val" if test.is_none() => {
                    test = Some(Labelled::of(folder, &listing, Some(&train.classes))?);
                    notes.push(format!("tested on `{name}`"));
                }
                "unlabelled" | "unlabeled" if unlabelled.is_none() => {
                    let mut files = Vec::new();
                    images_below(folder, 0, &mut files)?;
                    ensure!(!files.is_empty(), "{} holds no PNG or JPEG", folder.display());
                    unlabelled = Some(files);
                }
                _ => notes.push(format!("`{name}` is left out")),
            }
        }
    }

    // One colour image makes all RGB, so reading headers usually ends at the first one.
    let rest = test.iter().flat_map(|part| &part.files).chain(unlabelled.iter().flatten());
    let mut channels = 1;
    for file in train.files.iter().chain(rest) {
        if header(file)?.2 {
            channels = 3;
            break;
        }
    }
    let (height, width, _) = header(&train.files[0])?;
    let files = |paths| Files { paths, channels };

    let has_labels = !train.classes.is_empty();
    let classes = train.classes;
    let (train, test) = match test {
        Some(part) => {
            (Part::labelled(files(train.files), train.labels), Some(Part::labelled(files(part.files), part.labels)))
        }
        None if has_labels => {
            let (kept, held) = hold_out(&train.labels, HELD_OUT, 0);
            let whole = Part::labelled(files(train.files), train.labels);
            if held.is_empty() {
                notes.push("no class has two images, so there is no test part".into());
                (whole, None)
            } else {
                notes.push(format!("{} of {} images held out for testing, seed 0", held.len(), whole.len()));
                (whole.select(&kept)?, Some(whole.select(&held)?))
            }
        }
        None => (Part::unlabelled(files(train.files)), None),
    };
    notes.push("JPEG decoded by zune-jpeg".into());
    Ok(Dataset {
        name: format!("folder:{}", path.display()),
        classes,
        train,
        test,
        unlabelled: unlabelled.map(|paths| Part::unlabelled(files(paths))),
        normalisation: match channels {
            // The mean over ImageNet's three channels.
            1 => Normalisation { mean: vec![0.449], std: vec![0.226] },
            _ => Normalisation { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] },
        },
        native_size: height.min(width).clamp(1, 224) as usize,
        vocabulary: None,
        note: notes.join("; "),
    })
}
