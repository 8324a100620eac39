//! Encoders against torchvision and PyTorch (`tests/encoder/golden.py`), with weights that are a formula of name and
//! index.

use super::*;
use crate::method::ImageShape;
use crate::store::{Role, Store, assign};
use crate::tensor::{channels_last, map_mean};
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Device, Kind, no_grad};

#[derive(Deserialize)]
struct Case {
    side: i64,
    parameters: usize,
    shapes: BTreeMap<String, Vec<i64>>,
    eval: Features,
    train: Features,
    running_var: Option<RunningVar>,
}

/// The first 8 features of the first image, the last 8 of the last, and the norm of all.
#[derive(Deserialize)]
struct Features {
    first: Vec<f64>,
    last: Vec<f64>,
    norm: f64,
}

#[derive(Deserialize)]
struct RunningVar {
    name: String,
    first: Vec<f64>,
}

/// CRC-32 as in zlib, which the Python side hashes names with.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// `value` of golden.py.
pub(super) fn value(name: &str, shape: &[i64]) -> Tensor {
    let offset = crc32(name.as_bytes());
    let uniform = |i: u32| {
        let x = i.wrapping_add(offset).wrapping_mul(2_654_435_761);
        let x = (x ^ (x >> 15)).wrapping_mul(2_246_822_519);
        f64::from(x ^ (x >> 13)) / 2f64.powi(32)
    };
    let fan_in: i64 = shape[1..].iter().product();
    let scale = |u: f64| {
        if shape.len() > 1 {
            (2.0 * u - 1.0) * (3.0 / fan_in as f64).sqrt()
        } else if name.ends_with("weight") || name.ends_with("running_var") {
            0.75 + 0.5 * u
        } else {
            0.4 * u - 0.2
        }
    };
    let n = shape.iter().product::<i64>() as u32;
    let values: Vec<f32> = (0..n).map(|i| scale(uniform(i)) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

fn make(name: &str, side: i64) -> (Store, Box<dyn Encoder>) {
    let store = Store::new(0, Device::Cpu);
    let image = Shape::Image(ImageShape { channels: 3, size: side });
    let encoder = build(&(store.root() / "encoder"), name.parse().expect("a name"), image).expect("an encoder");
    (store, encoder)
}

fn golden() -> BTreeMap<String, Case> {
    serde_json::from_str(include_str!("../../tests/encoder/golden.json")).expect("golden.json")
}

#[test]
fn encoders_give_the_features_of_torchvision_and_pytorch() {
    for (name, case) in golden() {
        let (store, encoder) = make(&name, case.side);
        let local = |name: &str| name.strip_prefix("encoder.").expect("below the path").to_string();
        let shapes: BTreeMap<_, _> = store.variables().iter().map(|v| (local(&v.name), v.tensor.size())).collect();
        assert_eq!(shapes, case.shapes, "{name}");
        assert_eq!(store.parameters(), case.parameters, "{name}");
        for v in store.variables().iter().filter(|v| !v.name.ends_with("pos_embed")) {
            assign(&v.tensor, &value(&local(&v.name), &v.tensor.size()));
        }
        let x = value("input", &[4, 3, case.side, case.side]) * 2.0;
        for (train, expected) in [(false, &case.eval), (true, &case.train)] {
            let y = no_grad(|| encoder.forward(&channels_last(&x), train));
            assert_eq!(y.size(), [4, encoder.dim()]);
            assert_eq!(y.kind(), Kind::Float);
            // Golden values are computed in f64; up to 53 layers in f32, each off by some 1e-7 to 1e-6 and passed on
            // by norms over as few as 16 values, stay within 1e-4 of the greatest feature.
            let tolerance = 1e-4 * y.abs().max().double_value(&[]);
            let close = |y: &Tensor, expected: &[f64]| {
                let error = (y.to_kind(Kind::Double) - Tensor::from_slice(expected)).abs().max().double_value(&[]);
                assert!(error < tolerance, "{name}, train {train}: {error} against {tolerance}");
            };
            close(&y.get(0).narrow(0, 0, 8), &expected.first);
            close(&y.get(3).narrow(0, encoder.dim() - 8, 8), &expected.last);
            let norm = y.norm().double_value(&[]);
            assert!((norm / expected.norm - 1.0).abs() < 1e-4, "{name}, train {train}: norm {norm}");
        }
        if let Some(expected) = case.running_var {
            let all = store.variables();
            let v = all.iter().find(|v| local(&v.name) == expected.name).expect("a running variance of that name");
            for (i, e) in expected.first.iter().enumerate() {
                assert!((v.tensor.double_value(&[i as i64]) / e - 1.0).abs() < 1e-4, "{name}: {}", v.name);
            }
        }
    }
}

#[test]
fn an_encoder_has_the_published_number_of_parameters() {
    for (name, side, expected) in
        [("resnet18", 64, 11_176_512), ("resnet34", 64, 21_284_672), ("resnet50", 64, 23_508_032)]
    {
        assert_eq!(make(name, side).0.parameters(), expected, "{name}");
    }
    // ViT-B/16 of timm without its classifier, whose positions (197 x 768) are trained: here they are fixed.
    assert_eq!(make("vit-base/16", 224).0.parameters(), 85_798_656 - 197 * 768);
}

#[test]
fn variables_start_as_in_torchvision() {
    let (store, _) = make("resnet18", 64);
    for v in store.variables() {
        let (t, size) = (v.tensor.detach(), v.tensor.size());
        if size.len() == 4 {
            let std = (2.0 / (size[0] * size[2] * size[3]) as f64).sqrt();
            // The deviation of n normal numbers is off by a share of 1 / sqrt(2n); five of those.
            let slack = 5.0 / (2.0 * t.numel() as f64).sqrt();
            let actual = t.std(false).double_value(&[]);
            assert!((actual / std - 1.0).abs() < slack, "{}: {actual} for {std}", v.name);
            assert_eq!(v.role, Role::Weight);
        } else {
            let expected = if v.name.ends_with("weight") || v.name.ends_with("var") { 1.0 } else { 0.0 };
            assert_eq!(t, t.full_like(expected), "{}", v.name);
            assert_eq!(v.role, if v.name.contains("running") { Role::Buffer } else { Role::NoDecay });
        }
    }
}

#[test]
fn plain_layers_start_as_in_pytorch() {
    let store = Store::new(0, Device::Cpu);
    crate::layer::Linear::new(&(store.root() / "linear"), 400, 50, true);
    crate::layer::Conv2d::new(&(store.root() / "conv"), 16, 50, 5, 1, 2, true);
    for v in store.variables() {
        // Uniform on +-1/sqrt(fan-in), 400 in both; the greatest of n numbers falls short of the bound by about 1/n.
        let (greatest, bound, n) = (v.tensor.abs().max().double_value(&[]), 0.05, v.tensor.numel() as f64);
        assert!(greatest <= bound + 1e-8 && greatest > bound * (1.0 - 12.0 / n), "{}: {greatest}", v.name);
    }
}

#[test]
fn positions_follow_the_formula() {
    let (grid, width) = (3, 8);
    let table = sin_cos_positions(grid, width);
    assert_eq!(table.size(), [9, 8]);
    for row in 0..grid {
        for column in 0..grid {
            for k in 0..width {
                let (half, rest) = (k / 4, k % 4);
                let p = if half == 0 { column } else { row } as f64;
                let angle = p / 10000f64.powf(2.0 * (rest % 2) as f64 / 4.0);
                let expected = if rest < 2 { angle.sin() } else { angle.cos() };
                assert!((table.double_value(&[row * grid + column, k]) - expected).abs() < 1e-7);
            }
        }
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    let names = "convnet, convnet-tiny, resnet18, resnet34, resnet50, resnet18-cifar, resnet34-cifar, resnet50-cifar, \
                 vit-micro/4, vit-tiny/2, vit-small/8, vit-base/16";
    for name in names.split(", ") {
        assert_eq!(name.parse::<EncoderConfig>().expect(name).to_string(), name);
        // All but the patch size stand in the list that a refusal shows.
        assert!(EncoderConfig::NAMES.contains(name.split('/').next().expect("a part")), "{name}");
    }
}

#[test]
fn an_unknown_name_is_refused_with_the_list() {
    for name in [
        "",
        "resnet",
        "resnet101",
        "resnet18-cifar-cifar",
        "resnet-18",
        "vit",
        "vit-huge/4",
        "vit-micro/0",
        "vit-micro/x",
        "ConvNet",
    ] {
        let message = name.parse::<EncoderConfig>().expect_err(name).to_string();
        assert!(message.contains(&format!("`{name}`")) && message.contains(EncoderConfig::NAMES), "{message}");
    }
}

#[test]
fn an_image_that_its_patches_do_not_fill_is_refused() {
    let store = Store::new(0, Device::Cpu);
    let image = Shape::Image(ImageShape { channels: 1, size: 28 });
    let refused = build(&store.root(), "vit-micro/8".parse().expect("a name"), image).err().expect("a refusal");
    assert!(refused.to_string().contains("28 pixels") && refused.to_string().contains("patches of 8"), "{refused}");
}

#[test]
fn the_small_encoders_give_features_of_their_width() {
    for (name, channels, dim) in [("convnet", 1, 256), ("convnet-tiny", 3, 128)] {
        let store = Store::new(0, Device::Cpu);
        let image = Shape::Image(ImageShape { channels, size: 28 });
        let encoder = build(&store.root(), name.parse().expect("a name"), image).expect("an encoder");
        let y = encoder.forward(&Tensor::ones([2, channels, 28, 28], (Kind::Float, Device::Cpu)), true);
        assert_eq!((encoder.dim(), y.size()), (dim, vec![2, dim]));
    }
}

#[test]
fn features_are_the_mean_of_the_map() {
    let x = value("input", &[2, 3, 32, 32]);
    for (name, side) in [
        ("convnet", 8),
        ("convnet-tiny", 4),
        ("resnet18-cifar", 4),
        ("resnet18", 1),
        ("conv-residual", 8),
        ("conv-residual-tiny/16", 2),
    ] {
        let (_store, encoder) = make(name, 32);
        for train in [false, true] {
            let map = no_grad(|| encoder.map(&x, train)).expect("a map");
            assert_eq!(map.size(), [2, encoder.dim(), side, side], "{name}");
            // Running statistics move in training, but the batch's own are used.
            let features = no_grad(|| encoder.forward(&x, train));
            assert_eq!(map_mean(&map), features, "{name}");
        }
    }
    assert!(make("vit-micro/4", 32).1.map(&x, false).is_none());
}

#[test]
fn stages_are_shown_to_who_listens_and_the_last_map_is_the_features() {
    let x = value("input", &[2, 3, 32, 32]);
    // Behind each stage its channels; of the ViT, whose features come after one more norm, four blocks of 96.
    for (name, widths, last) in [
        ("convnet", vec![32, 64, 128, 256], true),
        ("convnet-tiny", vec![32, 48, 64, 128], true),
        ("resnet18-cifar", vec![64, 128, 256, 512], true),
        ("resnet50-cifar", vec![256, 512, 1024, 2048], true),
        ("conv-residual", vec![64, 128, 128], true),
        ("vit-micro/4", vec![96; 4], false),
        ("pixelcnn-12x4", vec![12; 4], false),
    ] {
        let (_store, encoder) = make(name, 32);
        let alone = no_grad(|| encoder.forward(&x, false));
        let mut heard = None;
        for side in [1, 2] {
            let stages = no_grad(|| stages::listen(side, || heard = Some(encoder.forward(&x, false))));
            let sizes: Vec<Vec<i64>> = stages.iter().map(Tensor::size).collect();
            assert_eq!(sizes, widths.iter().map(|d| vec![2, d * side * side]).collect::<Vec<_>>(), "{name}");
            assert_eq!(heard.take().expect("features"), alone, "{name}: listening changes nothing");
            // The mean of four equal parts is the whole's; sums in another order round.
            let mean = stages[stages.len() - 1].view([2, encoder.dim(), -1]).mean_dim([-1].as_slice(), false, None);
            let error = (mean - &alone).abs().max().double_value(&[]);
            assert_eq!(error <= 1e-5 * alone.abs().max().double_value(&[]), last, "{name}: {error}");
        }
    }
    // Nobody listens any more, and a map is no pass for features.
    let (_store, encoder) = make("convnet-tiny", 32);
    assert!(!stages::heard());
    assert!(no_grad(|| stages::listen(1, || encoder.map(&x, false))).is_empty());
}

#[test]
fn a_middle_pixel_layer_and_all_transformer_blocks_are_shown_as_they_are_pooled() {
    let x = value("input", &[2, 3, 32, 32]);
    let (_store, encoder) = make("pixelcnn-12x4", 32);
    let stages = no_grad(|| stages::listen(1, || encoder.forward(&x, false)));
    let (middle, features) = (&stages[1], no_grad(|| encoder.forward(&x, false)));
    assert!((middle - features).abs().max().double_value(&[]) < 1e-6);

    let store = Store::new(0, Device::Cpu);
    let tokens = crate::method::TokenShape { vocabulary: 11, length: 6 };
    let ids = Tensor::from_slice(&[3i64, 1, 4, 1, -1, -1, 5, 9, 2, 6, 5, 3]).view([2, 6]);
    for causal in [false, true] {
        let path = &store.root() / if causal { "causal" } else { "both" };
        let encoder = Transformer::new(&path, tokens, TransformerSize::Micro, causal);
        let stages = no_grad(|| stages::listen(2, || encoder.forward(&ids, false)));
        assert_eq!(stages.len(), 4);
        stages.iter().zip(1..).for_each(|(stage, depth)| assert_eq!(*stage, no_grad(|| encoder.pooled(&ids, depth))));
    }
    let series = crate::method::SeriesShape { channels: 2, length: 8 };
    let encoder = Recurrent::new(&(&store.root() / "gru"), series, 16, 2).expect("an encoder");
    let x = value("series", &[3, 2, 8]);
    let stages = no_grad(|| stages::listen(1, || encoder.forward(&x, false)));
    assert_eq!(stages.iter().map(Tensor::size).collect::<Vec<_>>(), [[3, 16], [3, 16]]);
    assert_eq!(stages[1], no_grad(|| encoder.forward(&x, false)));
}

#[test]
fn a_tapped_encoder_gives_the_map_of_the_encoder_in_it() {
    let (_store, encoder) = make("convnet-tiny", 32);
    let x = value("input", &[2, 3, 32, 32]);
    let map = encoder.map(&x, false).expect("a map");
    let tap = Tap::default();
    let tapped = Tapped { encoder, tap: tap.clone() };
    assert_eq!(tapped.map(&x, false).expect("the same map"), map);
    assert!(tapped.map(&x, true).is_some() && tap.borrow().is_empty());
    assert!(tapped.forward(&x, true).requires_grad() && tap.borrow().len() == 1);
}

#[test]
fn names_of_residual_encoders_are_read_as_they_are_written() {
    for name in ["conv-residual", "conv-residual-tiny", "conv-residual/2", "conv-residual-tiny/8", "conv-residual/16"] {
        assert_eq!(name.parse::<EncoderConfig>().expect(name).to_string(), name);
    }
    assert_eq!("conv-residual/4".parse::<EncoderConfig>().expect("a name").to_string(), "conv-residual");
    for name in ["conv-residuals", "conv-residual/3", "conv-residual/32", "conv-residual/x", "conv-residual-tiny/"] {
        assert!(name.parse::<EncoderConfig>().expect_err(name).to_string().contains(EncoderConfig::NAMES));
    }
    let store = Store::new(0, Device::Cpu);
    let image = Shape::Image(ImageShape { channels: 1, size: 8 });
    let refused = build(&store.root(), "conv-residual/16".parse().expect("a name"), image).err().expect("a refusal");
    assert!(refused.to_string().contains("8 pixels is too small"), "{refused}");
}
