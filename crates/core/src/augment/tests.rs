//! Both backends against torchvision and each other, the statistics of the draws, and what the batch renderer promises.

use super::views::{HostBatch, HostView, Values, plain, render_views};
use super::*;
use crate::data::{Image, Images, Normalisation};
use crate::rng::{Purpose, Rng};
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

mod sequences;

/// No normalisation: values as they leave the last operation.
fn bare(channels: usize) -> Normalisation {
    Normalisation { mean: vec![0.0; channels], std: vec![1.0; channels] }
}

/// Images with smooth colours, hard edges and equal channels, from the random stream.
struct Synthetic {
    images: Vec<(usize, usize, Vec<u8>)>,
    channels: usize,
}

impl Synthetic {
    fn new(sizes: &[(usize, usize)], channels: usize) -> Synthetic {
        let make = |(i, &(height, width)): (usize, &(usize, usize))| {
            let mut rng = Rng::new(11, Purpose::Sample, channels as u64, i as u64, 0);
            let tint: Vec<f64> = (0..channels).map(|_| rng.range(0.0, 255.0)).collect();
            let mut pixels = Vec::with_capacity(height * width * channels);
            for y in 0..height {
                for x in 0..width {
                    let grey = (x / 4 + y / 4) % 5 == 0;
                    let level = rng.range(0.0, 255.0);
                    for tint in &tint {
                        let ramp = tint * (x + y) as f64 / (height + width) as f64;
                        let value = if grey { level } else { 0.7 * ramp + 0.3 * rng.range(0.0, 255.0) };
                        pixels.push(value as u8);
                    }
                }
            }
            (height, width, pixels)
        };
        Synthetic { images: sizes.iter().enumerate().map(make).collect(), channels }
    }

    /// [B, C, H, W] u8; all images must have the size of the first.
    fn tensor(&self) -> Tensor {
        let (height, width, _) = self.images[0];
        let all: Vec<u8> = self.images.iter().flat_map(|(_, _, pixels)| pixels.iter().copied()).collect();
        let sizes = [self.images.len(), height, width, self.channels].map(|n| n as i64);
        Tensor::from_slice(&all).view(sizes).permute([0, 3, 1, 2]).contiguous()
    }
}

impl Images for Synthetic {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let (height, width, pixels) = &self.images[index];
        Ok(Image { height: *height, width: *width, channels: self.channels, pixels: Cow::Borrowed(pixels) })
    }
}

fn render(image: &Image, draw: &Draw, size: usize, normalisation: &Normalisation) -> Vec<f32> {
    let mut out = vec![f32::NAN; size * size * image.channels];
    cpu::render(image, draw, size, normalisation, &mut out, &mut cpu::Scratch::new());
    out
}

/// The values and the side of a view of images.
fn pixels(view: &HostView) -> (&[f32], usize) {
    let Values::Pixels { values, size, .. } = &view.values else { panic!("a view of images") };
    (values, *size)
}

fn simclr() -> Recipe {
    Recipe {
        crop: Some(Crop { scale: [0.08, 1.0], ratio: [0.75, 4.0 / 3.0] }),
        flip: 0.5,
        jitter: Some(Jitter { brightness: 0.8, contrast: 0.8, saturation: 0.8, hue: 0.2, p: 0.8 }),
        grey: 0.2,
        blur: Some(Blur { p: 0.5, sigma: [0.1, 2.0] }),
        solarise: Some(Solarise { p: 0.2, threshold: 0.5 }),
        ..Recipe::default()
    }
}

fn draws(recipe: &Recipe, n: usize, height: usize, width: usize) -> Vec<Draw> {
    (0..n).map(|i| recipe.draw(&mut Rng::new(5, Purpose::View, 0, i as u64, 0), height, width)).collect()
}

/// The largest difference; where solarisation has a threshold other than 0.5 it is a jump, and values that lie within
/// `tolerance` of it may fall on either side, so a pair that adds up to 1 next to the threshold counts as equal.
fn largest_difference(a: &[f32], b: &[f32], jump: Option<f32>, tolerance: f32) -> f32 {
    assert_eq!(a.len(), b.len());
    let flipped = |a: f32, b: f32| {
        jump.is_some_and(|t| (a + b - 1.0).abs() <= tolerance && (a - t).abs().min((b - t).abs()) <= tolerance)
    };
    a.iter().zip(b).filter(|&(&a, &b)| !flipped(a, b)).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, d| {
        assert!(!d.is_nan());
        worst.max(d)
    })
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    image: String,
    size: usize,
    draw: Draw,
}

/// tests/augment/golden.py made the files.
///
/// 5e-6 is 80 times the rounding (6e-8) of a value in [0, 1]: a conversion to HSV and back makes about ten roundings
/// and divides by the range of the channels, factors up to 2 multiply what came before, and torch takes the weights of
/// a resize in f32, where they are f64 here. A wrong formula, filter or border is wrong by 1e-3 or more.
#[test]
fn both_backends_give_torchvisions_values() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/augment");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let golden: HashMap<String, Tensor> =
        Tensor::read_safetensors(folder.join("golden.safetensors")).unwrap().into_iter().collect();
    assert!(cases.len() >= 45);
    for Case { name, image, size, draw } in cases {
        let pixels = &golden[&format!("image_{image}")];
        let (channels, height, width) = pixels.size3().unwrap();
        let bytes = Vec::<u8>::try_from(pixels.permute([1, 2, 0]).contiguous().view(-1)).unwrap();
        let normalisation = bare(channels as usize);
        let expected = Vec::<f32>::try_from(golden[&name].permute([1, 2, 0]).contiguous().view(-1)).unwrap();
        let image = Image {
            height: height as usize,
            width: width as usize,
            channels: channels as usize,
            pixels: Cow::Owned(bytes),
        };
        // torchvision's operations were given the whole image where a case has no crop.
        let whole = CropBox { top: 0, left: 0, height: image.height, width: image.width };
        let draw = Draw { crop: draw.crop.or(Some(whole)), ..draw };
        let tolerance = 5e-6;
        let jump = draw.solarise.filter(|&threshold| threshold != 0.5);
        let difference = largest_difference(&render(&image, &draw, size, &normalisation), &expected, jump, tolerance);
        assert!(difference <= tolerance, "{name}: the CPU differs from torchvision by {difference:e}");

        let batch = batched::render(&pixels.unsqueeze(0), &[draw], size, &normalisation).unwrap();
        let batch = Vec::<f32>::try_from(batch.squeeze_dim(0).permute([1, 2, 0]).contiguous().view(-1)).unwrap();
        let difference = largest_difference(&batch, &expected, jump, tolerance);
        assert!(difference <= tolerance, "{name}: tensor operations differ from torchvision by {difference:e}");
    }
}

/// The bound is twice that of the golden values, each backend's distance from torchvision. Nothing is excepted near
/// ties of channels: both ways to turn the hue are continuous there. Only solarisation jumps.
#[test]
fn the_backends_agree_on_random_images_and_draws() {
    for (channels, height, width, size, threshold) in
        [(3, 32, 32, 32, 0.5), (1, 28, 28, 28, 0.5), (3, 45, 70, 32, 0.5), (1, 61, 23, 28, 0.5), (3, 20, 33, 48, 0.3)]
    {
        let images = Synthetic::new(&[(height, width); 64], channels);
        let recipe = Recipe { solarise: Some(Solarise { p: 0.3, threshold }), ..simclr() };
        let draws = draws(&recipe, images.len(), height, width);
        let normalisation = bare(channels);
        let batch = batched::render(&images.tensor(), &draws, size, &normalisation).unwrap();
        assert_eq!(batch.size(), [64, channels as i64, size as i64, size as i64]);
        let batch = batch.permute([0, 2, 3, 1]).contiguous();
        let mut worst: f32 = 0.0;
        for (i, draw) in draws.iter().enumerate() {
            let cpu = render(&images.image(i).unwrap(), draw, size, &normalisation);
            let batch = Vec::<f32>::try_from(batch.get(i as i64).view(-1)).unwrap();
            let jump = draw.solarise.filter(|&threshold| threshold != 0.5);
            worst = worst.max(largest_difference(&cpu, &batch, jump, 1e-5));
        }
        assert!(worst <= 1e-5, "{channels} x {height} x {width} -> {size}: the backends differ by {worst:e}");
    }
}

#[test]
fn both_backends_make_the_same_views_of_the_same_images() {
    let images = Synthetic::new(&[(32, 32); 6], 3);
    let recipes = [simclr(), Recipe { size: 16, ..simclr() }];
    let index = [5, 0, 3];
    let cpu = render_views(&images, &index, &recipes, 32, &bare(3), 3, 7).unwrap();
    let batch = batched::render_views(&images.tensor(), &index, &recipes, 32, &bare(3), 3, 7).unwrap();
    for (cpu, batch) in cpu.iter().zip(&batch) {
        let cpu = cpu.to_view(Device::Cpu);
        assert_eq!(cpu.params, batch.params);
        assert_eq!(cpu.x.size(), batch.x.size());
        assert!((&cpu.x - &batch.x).abs().max().double_value(&[]) <= 1e-5);
    }
    let outside = batched::render_views(&images.tensor(), &[6], &recipes, 32, &bare(3), 3, 7).err().unwrap();
    assert!(outside.to_string().contains("image 6 was asked for, but there are 6"));
}

#[test]
fn normalisation_comes_last_in_both_backends() {
    let images = Synthetic::new(&[(32, 32); 4], 3);
    let normalisation = Normalisation { mean: vec![0.5, 0.4, 0.3], std: vec![0.25, 0.2, 0.5] };
    let draws = draws(&simclr(), 4, 32, 32);
    let batch = batched::render(&images.tensor(), &draws, 32, &normalisation).unwrap();
    for (i, draw) in draws.iter().enumerate() {
        let image = images.image(i).unwrap();
        let mut expected = render(&image, draw, 32, &bare(3));
        for (place, value) in expected.iter_mut().enumerate() {
            *value = (*value - normalisation.mean[place % 3]) / normalisation.std[place % 3];
        }
        // The bounds of the values in [0, 1], divided by the smallest std.
        let cpu = render(&image, draw, 32, &normalisation);
        assert!(largest_difference(&cpu, &expected, None, 0.0) <= 5e-6);
        let batch = Vec::<f32>::try_from(batch.get(i as i64).permute([1, 2, 0]).contiguous().view(-1)).unwrap();
        assert!(largest_difference(&batch, &expected, None, 0.0) <= 5e-5);
    }
}

#[test]
fn the_default_recipe_is_the_identity() {
    for channels in [1, 3] {
        let images = Synthetic::new(&[(32, 32); 3], channels);
        let views = render_views(&images, &[0, 1, 2], &[Recipe::default()], 32, &bare(channels), 0, 0).unwrap();
        let bytes = images.images.iter().flat_map(|(_, _, pixels)| pixels);
        // A product with 1/255 instead of a division: half a unit in the last place each.
        assert!(pixels(&views[0]).0.iter().zip(bytes).all(|(v, &b)| (v - f32::from(b) / 255.0).abs() <= 6e-8));
        assert!(views[0].params.iter().all(|&p| p == 0.0));
    }
}

#[test]
fn plain_is_torchs_antialiased_resize_of_the_central_square() {
    let images = Synthetic::new(&[(40, 64), (40, 64), (40, 64)], 3);
    let normalisation = Normalisation { mean: vec![0.5, 0.4, 0.3], std: vec![0.25, 0.2, 0.5] };
    let x = plain(&images, &[2, 0], 32, &normalisation).unwrap();
    assert_eq!(x.size(), [2, 3, 32, 32]);
    let whole = images.tensor().index_select(0, &Tensor::from_slice(&[2i64, 0])).to_kind(Kind::Float) / 255.0;
    let source = whole.narrow(3, 12, 40);
    let resized = source.internal_upsample_bilinear2d_aa([32, 32], false, None, None);
    let per_channel = |values: &[f32]| Tensor::from_slice(values).view([1, 3, 1, 1]);
    let expected = (resized - per_channel(&normalisation.mean)) / per_channel(&normalisation.std);
    // 1e-6 of torch's f32 weights, divided by the smallest std.
    assert!((x - expected).abs().max().double_value(&[]) <= 5e-6);
}

#[test]
fn same_key_same_pixels_in_any_batch_order_and_number_of_threads() {
    let images = Synthetic::new(&[(32, 32), (40, 30), (28, 61), (32, 32), (90, 90)], 3);
    let recipes = [simclr(), Recipe { size: 16, ..simclr() }];
    let render = |index: &[usize], threads: usize| -> Vec<HostView> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| render_views(&images, index, &recipes, 32, &bare(3), 3, 7)).unwrap()
    };
    let all = render(&[0, 1, 2, 3, 4], 1);
    assert_eq!(all, render(&[0, 1, 2, 3, 4], 4));
    for (view, size) in [32, 16].into_iter().enumerate() {
        let length = size * size * 3;
        let other = &render(&[4, 2], 3)[view];
        assert_eq!((other.len(), pixels(other).1), (2, size));
        for (row, index) in [4, 2].into_iter().enumerate() {
            assert_eq!(pixels(other).0[row * length..][..length], pixels(&all[view]).0[index * length..][..length]);
            assert_eq!(other.params[row * 12..][..12], all[view].params[index * 12..][..12]);
        }
    }
    assert_ne!(all[0].params, all[1].params, "the views of an image have draws of their own");
    let next = render_views(&images, &[0, 1, 2, 3, 4], &recipes, 32, &bare(3), 3, 8).unwrap();
    assert_ne!(all[0].values, next[0].values, "so have the epochs");
}

#[test]
fn a_sample_that_is_drawn_again_has_views_of_its_own() {
    let images = Synthetic::new(&[(32, 32); 3], 3);
    let recipes = [simclr(), simclr()];
    let render = |index: &[usize], repeats: &[u32]| {
        let batch =
            HostBatch::render_repeats(&images, index.to_vec(), repeats, &recipes, 32, &bare(3), 3, 7).expect("a batch");
        let views = batch.to_batch(Device::Cpu).views;
        views.iter().flat_map(|v| Vec::<f32>::try_from(v.params.flatten(0, 1)).expect("numbers")).collect::<Vec<_>>()
    };
    let plain: Vec<f32> = render_views(&images, &[1, 2], &recipes, 32, &bare(3), 3, 7)
        .unwrap()
        .into_iter()
        .flat_map(|v| v.params)
        .collect();
    assert_eq!(render(&[1, 2], &[0, 0]), plain, "the first draw is that of a sample drawn once");
    let draws: Vec<Vec<f32>> = (0..4).map(|repeat| render(&[1], &[repeat])).collect();
    for (i, draw) in draws.iter().enumerate() {
        assert!(draws[..i].iter().all(|other| other != draw), "draw {i}");
        assert_ne!(draw[..12], draw[12..], "and neither are its views equal");
    }
    assert_eq!(render(&[1, 1], &[1, 0])[..12], draws[1][..12], "whatever else is in the batch");
}

#[test]
fn a_view_is_channels_last_in_memory() {
    for channels in [1, 3] {
        let images = Synthetic::new(&[(32, 32); 4], channels);
        let views = render_views(&images, &[3, 1], &[simclr()], 32, &bare(channels), 0, 0).unwrap();
        let view = views[0].to_view(Device::Cpu);
        assert_eq!(view.x.size(), [2, channels as i64, 32, 32]);
        assert_eq!(view.params.size(), [2, PARAMS.len() as i64]);
        let c = channels as i64;
        let expected = if c == 1 { vec![1024, 1024, 32, 1] } else { vec![1024 * c, 1, 32 * c, c] };
        assert_eq!(view.x.stride(), expected);
        let flat = Vec::<f32>::try_from(view.x.permute([0, 2, 3, 1]).contiguous().view(-1)).unwrap();
        assert_eq!(flat, pixels(&views[0]).0);
    }
}

#[test]
fn draws_have_the_distributions_that_the_recipe_names() {
    let recipe = Recipe {
        crop: Some(Crop { scale: [0.1, 0.5], ratio: [0.75, 4.0 / 3.0] }),
        jitter: Some(Jitter { brightness: 0.4, contrast: 0.3, saturation: 0.2, hue: 0.1, p: 0.8 }),
        ..simclr()
    };
    let n = 40_000;
    // Large enough that every try fits and rounding to pixels does not matter.
    let side = 10_000;
    let draws = draws(&recipe, n, side, side);
    let crops: Vec<CropBox> = draws.iter().map(|draw| draw.crop.unwrap()).collect();
    let share = |hits: usize| hits as f64 / n as f64;
    // Five standard errors of a share, at most.
    let close = |a: f64, b: f64| assert!((a - b).abs() < 5.0 * 0.5 / (n as f64).sqrt(), "{a} instead of {b}");

    let area = |c: &CropBox| (c.height * c.width) as f64 / (side * side) as f64;
    let ratio = |c: &CropBox| (c.width as f64 / c.height as f64).ln() / (4.0f64 / 3.0).ln();
    let place = |c: &CropBox| c.left as f64 / (side - c.width) as f64;
    for part in [0.1, 0.25, 0.5, 0.75, 0.9] {
        close(share(crops.iter().filter(|c| area(c) < 0.1 + 0.4 * part).count()), part);
        close(share(crops.iter().filter(|c| ratio(c) < 2.0 * part - 1.0).count()), part);
        close(share(crops.iter().filter(|c| place(c) < part).count()), part);
    }
    assert!(crops.iter().all(|c| (0.0999..0.5001).contains(&area(c)) && ratio(c).abs() < 1.01));

    close(share(draws.iter().filter(|d| d.flip).count()), 0.5);
    close(share(draws.iter().filter(|d| d.grey).count()), 0.2);
    close(share(draws.iter().filter(|d| d.sigma.is_some()).count()), 0.5);
    close(share(draws.iter().filter(|d| d.sigma.is_some_and(|s| s < 0.1 + 1.9 / 4.0)).count()), 0.125);
    close(share(draws.iter().filter(|d| d.solarise == Some(0.5)).count()), 0.2);
    let colours: Vec<Colour> = draws.iter().filter_map(|d| d.jitter).collect();
    close(share(colours.len()), 0.8);
    close(share(colours.iter().filter(|c| c.brightness < 0.8).count()), 0.8 / 4.0);
    close(share(colours.iter().filter(|c| c.contrast < 0.85).count()), 0.8 / 4.0);
    close(share(colours.iter().filter(|c| c.saturation < 0.9).count()), 0.8 / 4.0);
    close(share(colours.iter().filter(|c| c.hue < -0.05).count()), 0.8 / 4.0);
    let mut orders: HashMap<[Operation; 4], usize> = HashMap::new();
    for colour in &colours {
        *orders.entry(colour.order).or_default() += 1;
    }
    assert_eq!(orders.len(), 24);
    orders.values().for_each(|&count| close(share(count), 0.8 / 24.0));
}

#[test]
fn a_crop_that_cannot_fit_is_central() {
    let draw = |scale, ratio, height, width| {
        let recipe = Recipe { crop: Some(Crop { scale, ratio }), ..Recipe::default() };
        draws(&recipe, 1, height, width)[0].crop.unwrap()
    };
    // Too wide an image: full height, the widest allowed ratio.
    let wide = draw([1.0, 1.0], [0.75, 1.5], 10, 100);
    assert_eq!(wide, CropBox { top: 0, left: 42, height: 10, width: 15 });
    // Too tall: full width, the narrowest.
    let tall = draw([1.0, 1.0], [0.5, 1.5], 100, 10);
    assert_eq!(tall, CropBox { top: 40, left: 0, height: 20, width: 10 });
    // The ratio of the image itself.
    let whole = draw([1.0, 1.0], [1.0, 1.0], 32, 32);
    assert_eq!(whole, CropBox { top: 0, left: 0, height: 32, width: 32 });
}

#[test]
fn changing_one_operation_leaves_the_draws_of_the_others() {
    let base = simclr();
    let jitter = base.jitter.unwrap();
    let changed = [
        Recipe { crop: None, ..base.clone() },
        Recipe { flip: 0.0, ..base.clone() },
        Recipe { jitter: None, ..base.clone() },
        Recipe { jitter: Some(Jitter { hue: 0.0, ..jitter }), ..base.clone() },
        Recipe { grey: 1.0, ..base.clone() },
        Recipe { blur: None, ..base.clone() },
        Recipe { solarise: None, ..base.clone() },
    ];
    for i in 0..200 {
        let draw = |recipe: &Recipe| recipe.draw(&mut Rng::new(1, Purpose::View, 2, i, 3), 40, 50);
        let full = draw(&base);
        let no_hue = full.jitter.map(|colour| Colour { hue: 0.0, ..colour });
        let expected = [
            Draw { crop: None, ..full },
            Draw { flip: false, ..full },
            Draw { jitter: None, ..full },
            Draw { jitter: no_hue, ..full },
            Draw { grey: true, ..full },
            Draw { sigma: None, ..full },
            Draw { solarise: None, ..full },
        ];
        for (recipe, expected) in changed.iter().zip(expected) {
            assert_eq!(draw(recipe), expected);
        }
    }
}

#[test]
fn params_record_the_draw() {
    let draw = Draw {
        crop: Some(CropBox { top: 4, left: 10, height: 8, width: 20 }),
        flip: true,
        jitter: Some(Colour {
            order: [Operation::Hue, Operation::Saturation, Operation::Contrast, Operation::Brightness],
            brightness: 1.25,
            contrast: 0.75,
            saturation: 1.5,
            hue: -0.125,
        }),
        grey: true,
        sigma: Some(0.5),
        solarise: Some(0.5),
    };
    assert_eq!(draw.params(16, 40), [0.5, 0.5, 0.5, 0.5, 1.0, 1.25, 0.75, 1.5, -0.125, 1.0, 0.5, 1.0]);
    assert_eq!(Draw::default().params(16, 40), [0.0; 12]);
}

#[test]
fn bad_input_is_refused_in_words() {
    let message = |recipe: Recipe| format!("{:#}", recipe.check().unwrap_err());
    let jitter = Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 0.8 };
    for (recipe, words) in [
        (Recipe { flip: 1.5, ..Recipe::default() }, "flip is 1.5; expected a probability"),
        (Recipe { grey: f64::NAN, ..Recipe::default() }, "grey is NaN; expected a probability"),
        (Recipe { size: 100_000, ..Recipe::default() }, "size is 100000; expected at most"),
        (
            Recipe { crop: Some(Crop { scale: [0.5, 0.2], ratio: [0.75, 1.3] }), ..Recipe::default() },
            "crop.scale is [0.5, 0.2]",
        ),
        (Recipe { crop: Some(Crop { scale: [0.2, 1.0], ratio: [0.0, 1.3] }), ..Recipe::default() }, "crop.ratio"),
        (Recipe { jitter: Some(Jitter { hue: 0.6, ..jitter }), ..Recipe::default() }, "jitter.hue is 0.6"),
        (Recipe { jitter: Some(Jitter { contrast: -0.1, ..jitter }), ..Recipe::default() }, "jitter.contrast is -0.1"),
        (Recipe { blur: Some(Blur { p: 0.5, sigma: [0.0, 2.0] }), ..Recipe::default() }, "blur.sigma is [0.0, 2.0]"),
        (Recipe { solarise: Some(Solarise { p: 0.5, threshold: 1.5 }), ..Recipe::default() }, "solarise.threshold"),
    ] {
        let said = message(recipe);
        assert!(said.contains(words), "{said}");
    }
    let images = Synthetic::new(&[(32, 32); 2], 3);
    let fails = |index: &[usize], recipe: Recipe, size: usize, channels: usize| {
        format!("{:#}", render_views(&images, index, &[recipe], size, &bare(channels), 0, 0).unwrap_err())
    };
    assert!(fails(&[2], simclr(), 32, 3).contains("image 2 was asked for, but there are 2"));
    assert!(fails(&[0], simclr(), 32, 1).contains("expected 3 of each"));
    assert!(fails(&[0], simclr(), 0, 3).contains("size of the views is 0"));
    assert!(fails(&[0], Recipe { flip: 2.0, ..simclr() }, 32, 3).contains("in the recipe of view 0: flip is 2"));
    assert!(batched::render(&images.tensor(), &[], 32, &bare(3)).unwrap_err().to_string().contains("0 draws for 2"));
}

#[test]
fn a_recipe_survives_toml() {
    let recipe = simclr();
    let text = toml::to_string(&recipe).unwrap();
    assert_eq!(toml::from_str::<Recipe>(&text).unwrap(), recipe);
    assert!(toml::from_str::<Recipe>("flips = 0.5").is_err());
}

prop_compose! {
    fn any_recipe()(
        (low, high) in (0.01f64..1.0, 0.01f64..1.0),
        (narrow, wide) in (0.2f64..5.0, 0.2f64..5.0),
        strengths in prop::array::uniform3(0.0f64..3.0),
        hue in 0.0f64..=0.5,
        (sigma, more) in (0.01f64..3.0, 0.0f64..3.0),
        threshold in 0.0f64..=1.0,
        crop in any::<bool>(),
    ) -> Recipe {
        Recipe {
            size: 0,
            crop: crop.then_some(Crop {
                scale: [low.min(high), low.max(high)],
                ratio: [narrow.min(wide), narrow.max(wide)],
            }),
            flip: 0.5,
            jitter: Some(Jitter {
                brightness: strengths[0], contrast: strengths[1], saturation: strengths[2], hue, p: 0.8,
            }),
            grey: 0.2,
            blur: Some(Blur { p: 0.5, sigma: [sigma, sigma + more] }),
            solarise: Some(Solarise { p: 0.2, threshold }),
        }
    }
}

proptest! {
    #[test]
    fn any_recipe_gives_values_from_0_to_1_and_crops_inside(
        recipe in any_recipe(),
        (height, width, size) in (1usize..50, 1usize..50, 1usize..40),
        rgb in any::<bool>(),
        seed in any::<u64>(),
    ) {
        prop_assert!(recipe.check().is_ok());
        let images = Synthetic::new(&[(height, width)], if rgb { 3 } else { 1 });
        for epoch in 0..4 {
            let draw = recipe.draw(&mut Rng::new(seed, Purpose::View, epoch, 0, 0), height, width);
            let c = draw.crop_box(height, width);
            prop_assert!(c.height > 0 && c.width > 0 && c.top + c.height <= height && c.left + c.width <= width);
            let values = render(&images.image(0).unwrap(), &draw, size, &bare(images.channels));
            // Weights of sum 1 are so to a few units in the last place.
            prop_assert!(values.iter().all(|v| (-1e-6..=1.0 + 1e-6).contains(v)));
            prop_assert!(draw.params(height, width).iter().all(|p| p.is_finite()));
        }
    }
}
