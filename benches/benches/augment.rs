//! What augmentation costs on one core, per operation and per recipe: `cargo bench -p selfsup-benches --bench augment`.
//!
//! The figures are images (views) per second. `peers/augment.py` takes the same recipes through torchvision on one
//! core; run the two in turns, as the load of a machine changes from minute to minute:
//! `for i in 1 2 3; do cargo bench -p selfsup-benches --bench augment -- recipe; python benches/peers/augment.py; done`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use selfsup_benches::{Noise, recipes, render_all};
use selfsup_core::Device;
use selfsup_core::augment::{Colour, CropBox, Draw, Operation, Recipe, cpu, views::render_views};
use selfsup_core::data::Images;
use std::hint::black_box;

const IMAGES: usize = 256;

fn sets() -> [(&'static str, Noise); 2] {
    [("32x32x3", Noise::new(IMAGES, 32, 3)), ("28x28x1", Noise::new(IMAGES, 28, 1))]
}

/// Each row of a draw alone; what it costs is its time less that of `none`, which converts and normalises.
fn operations(criterion: &mut Criterion) {
    let one = |operation, factor| {
        let mut colour = Colour {
            // One operation four times would not be an order; here it lets the rest of the jitter cost nothing.
            order: [operation; 4],
            brightness: 1.0,
            contrast: 1.0,
            saturation: 1.0,
            hue: 0.0,
        };
        match operation {
            Operation::Brightness => colour.brightness = factor,
            Operation::Contrast => colour.contrast = factor,
            Operation::Saturation => colour.saturation = factor,
            Operation::Hue => colour.hue = factor,
        }
        Draw { jitter: Some(colour), ..Draw::default() }
    };
    let none = Draw::default();
    let draws = [
        ("none", none),
        ("crop", Draw { crop: Some(CropBox { top: 3, left: 5, height: 17, width: 20 }), ..none }),
        ("flip", Draw { flip: true, ..none }),
        ("brightness x4", one(Operation::Brightness, 1.2)),
        ("contrast x4", one(Operation::Contrast, 1.2)),
        ("saturation x4", one(Operation::Saturation, 1.2)),
        ("hue x4", one(Operation::Hue, 0.1)),
        ("grey", Draw { grey: true, ..none }),
        ("blur", Draw { sigma: Some(1.0), ..none }),
        ("solarise", Draw { solarise: Some(0.5), ..none }),
    ];
    for (name, images) in sets() {
        let mut group = criterion.benchmark_group(format!("operation/{name}"));
        group.throughput(Throughput::Elements(IMAGES as u64));
        let normalisation = images.normalisation();
        let mut scratch = cpu::Scratch::new();
        let mut out = vec![0.0; images.size() * images.size() * images.channels()];
        for (name, draw) in &draws {
            group.bench_function(*name, |bencher| {
                bencher.iter(|| {
                    for index in 0..IMAGES {
                        let image = images.image(index).expect("in memory");
                        cpu::render(&image, black_box(draw), images.size(), &normalisation, &mut out, &mut scratch);
                        black_box(&mut out);
                    }
                });
            });
        }
    }
}

/// Draw and render on this thread, as one worker does.
fn whole_recipes(criterion: &mut Criterion) {
    for (name, images) in sets() {
        let mut group = criterion.benchmark_group(format!("recipe/{name}"));
        group.throughput(Throughput::Elements(IMAGES as u64));
        let normalisation = images.normalisation();
        let mut scratch = cpu::Scratch::new();
        let mut out = vec![0.0; images.size() * images.size() * images.channels()];
        for (name, recipe) in recipes() {
            let mut epoch = 0;
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    epoch += 1;
                    render_all(&images, &recipe, images.size(), &normalisation, epoch, &mut out, &mut scratch);
                });
            });
        }
    }
}

/// A batch on a pool of one thread, allocation and the way into tensors included.
fn batches(criterion: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    for (name, images) in sets() {
        let mut group = criterion.benchmark_group(format!("batch/{name}"));
        group.throughput(Throughput::Elements(IMAGES as u64));
        let (normalisation, index) = (images.normalisation(), (0..IMAGES).collect::<Vec<_>>());
        let recipe = &recipes()[0].1;
        let mut epoch = 0;
        let mut render = || {
            epoch += 1;
            let recipes = std::slice::from_ref(recipe);
            pool.install(|| render_views(&images, &index, recipes, images.size(), &normalisation, 0, epoch))
                .expect("a sound recipe")
        };
        group.bench_function("render simclr-cifar", |bencher| bencher.iter(&mut render));
        group.bench_function("render simclr-cifar, to tensors", |bencher| {
            bencher.iter(|| render()[0].to_view(Device::Cpu));
        });
    }
}

/// Photographs as they lie on a disk: decoded, cropped to 224 x 224, SimCLR's ImageNet recipe. The variable SELFSUP_JPEGS
/// names the folder, which `peers/parts.py` makes.
fn photographs(criterion: &mut Criterion) {
    let Some(folder) = std::env::var_os("SELFSUP_JPEGS") else {
        eprintln!("photographs: left out, for SELFSUP_JPEGS names no folder of images");
        return;
    };
    let name = format!("folder:{}", folder.display());
    let data = selfsup_datasets::load(&name, std::path::Path::new(".")).expect("a folder of images");
    let recipe = Recipe::simclr();
    let mut scratch = cpu::Scratch::new();
    let mut out = vec![0.0; 224 * 224 * 3];
    let mut group = criterion.benchmark_group("photograph");
    group.throughput(Throughput::Elements(data.train.len() as u64)).sample_size(10);
    let mut epoch = 0;
    group.bench_function("simclr-224", |bencher| {
        bencher.iter(|| {
            epoch += 1;
            render_all(&*data.train.samples, &recipe, 224, &data.normalisation, epoch, &mut out, &mut scratch);
        });
    });
}

criterion_group!(benches, operations, whole_recipes, batches, photographs);
criterion_main!(benches);
