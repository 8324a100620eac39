//! What the encoders cost, by precision and memory layout: `cargo bench -p selfsup-benches --bench encoder`.
//!
//! Figures are images per second at a batch of 128. Every id is ENCODER/IMAGE/PASS/PRECISION/LAYOUT, so that
//! `-- convnet-tiny/28x28x1` runs a part. A run of this program is bf16 or f32, and always channels-last.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use selfsup_benches::normal;
use selfsup_core::encoder::{self, Encoder, EncoderConfig};
use selfsup_core::method::{ImageShape, Shape};
use selfsup_core::precision::{self, Precision};
use selfsup_core::store::Store;
use selfsup_core::tensor::channels_last;
use selfsup_core::{Device, Kind, Tensor, no_grad, torch_ext};
use std::hint::black_box;
use std::time::Duration;

const BATCH: i64 = 128;
const GREY: ImageShape = ImageShape { channels: 1, size: 28 };
const COLOUR: ImageShape = ImageShape { channels: 3, size: 32 };

/// An encoder with its input, all in one memory layout.
struct Bench {
    store: Store,
    encoder: Box<dyn Encoder>,
    /// [B, C, S, S]
    x: Tensor,
    /// The gradient that arrives at the features, [B, D]. That of a plain sum would vanish in a BatchNorm.
    gradient: Tensor,
}

impl Bench {
    fn new(config: EncoderConfig, image: ImageShape, last: bool) -> Bench {
        let store = Store::new(0, Device::Cpu);
        let encoder = encoder::build(&(&store.root() / "encoder"), config, Shape::Image(image))
            .expect("the image fits the encoder");
        let x = normal(&[BATCH, image.channels, image.size, image.size], 0);
        let x = if last { channels_last(&x) } else { x };
        if !last {
            for mut weight in store.variables().into_iter().map(|v| v.tensor).filter(|w| w.dim() == 4) {
                weight.set_data(&weight.detach().contiguous());
            }
        }
        let gradient = normal(&[BATCH, encoder.dim()], 1);
        Bench { store, encoder, x, gradient }
    }

    /// With batch statistics, as in training, and without a graph.
    fn forward(&self) -> Tensor {
        no_grad(|| self.encoder.forward(&self.x, true))
    }

    fn forward_backward(&self) {
        let variables: Vec<Tensor> = self.store.trainable().into_iter().map(|v| v.tensor).collect();
        torch_ext::clear_grads(&variables).expect("variables have gradients to clear");
        let h = self.encoder.forward(&self.x, true);
        (h * &self.gradient).sum(Kind::Float).backward();
    }
}

fn encoders(criterion: &mut Criterion) {
    torch_ext::init(Device::Cpu).expect("LibTorch is there");
    for (name, image) in [
        ("convnet-tiny", GREY),
        ("convnet-tiny", COLOUR),
        ("convnet", GREY),
        ("convnet", COLOUR),
        ("vit-micro/4", GREY),
        ("vit-micro/4", COLOUR),
        // By far the slowest, and made for images of this shape.
        ("resnet18-cifar", COLOUR),
    ] {
        let config: EncoderConfig = name.parse().expect("a known encoder");
        let ImageShape { channels, size } = image;
        let mut group = criterion.benchmark_group(format!("{name}/{size}x{size}x{channels}"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(BATCH as u64));
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        for (layout, last) in [("plain", false), ("channels-last", true)] {
            let bench = Bench::new(config, image, last);
            for (kind, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
                group.bench_function(format!("forward/{kind}/{layout}"), |bencher| {
                    bencher.iter(|| precision::with(precision, || black_box(bench.forward())));
                });
                group.bench_function(format!("forward+backward/{kind}/{layout}"), |bencher| {
                    bencher.iter(|| precision::with(precision, || bench.forward_backward()));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, encoders);
criterion_main!(benches);
