//! MAE against PyTorch (`tests/golden.py`), closed forms, and what may depend on what.

use super::mask::kept;
use super::*;
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::store::{Store, assign};
use selfsup_core::{Device, Kind};

/// `wave` of golden.py: sin(1.3 m^2 + phase).
fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn greatest(x: &Tensor) -> f64 {
    number(&x.abs().max())
}

fn config() -> Config {
    Config { decoder: DecoderConfig { width: 16, depth: 2, heads: 2 }, ..Config::default() }
}

fn make(store: &Store, config: Config, encoder: &str) -> Result<Mae> {
    let image = ImageShape { channels: 3, size: 16 };
    Mae::new(config, &Setup::new(store.root(), encoder.parse()?, Shape::Image(image), 8))
}

/// The model of golden.py, with its weights.
fn golden(norm_pix: bool) -> (Store, Mae) {
    let store = Store::new(0, Device::Cpu);
    let mae = make(&store, Config { norm_pix, ..config() }, "vit-micro/4").expect("a method");
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (k, v) in variables.iter().enumerate() {
        let one = if v.name.contains("norm") && v.name.ends_with("weight") { 1.0 } else { 0.0 };
        assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.1 + one));
    }
    (store, mae)
}

fn images(n: i64) -> Tensor {
    wave(0.1, &[n, 3, 16, 16]).to_kind(Kind::Float)
}

fn batch(x: Tensor) -> Batch {
    let n = x.size()[0];
    let params = Tensor::zeros([n, 12], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0)
}

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

#[test]
fn prediction_loss_and_gradients_are_those_of_pytorch() {
    type Gradients = [(&'static str, f64, f64); 4];
    let normalised: Gradients = [
        ("encoder.patch_embed.proj.weight", -2.308356486e-05, 3.913899968e-03),
        ("encoder.cls_token", 8.485619280e-05, 2.418532477e-03),
        ("decoder.mask_token", -2.514582794e-03, 3.914459090e-02),
        ("decoder.head.bias", 7.066392214e-03, 1.020528163e-01),
    ];
    let plain: Gradients = [
        ("encoder.patch_embed.proj.weight", -2.398540663e-06, 3.291659762e-03),
        ("encoder.cls_token", 7.226210199e-05, 2.109274232e-03),
        ("decoder.mask_token", -3.611520396e-03, 3.447577703e-02),
        ("decoder.head.bias", 3.347859873e-03, 9.305318458e-02),
    ];
    let cases = [(true, 1.101358997, 0.4217313118, normalised), (false, 0.611908849, 0.3774276985, plain)];
    for (norm_pix, loss, norm, gradients) in cases {
        let (store, mae) = golden(norm_pix);
        let (x, mask) = (images(2), Mask::new(&wave(0.4, &[2, 16]), 4));
        let p = mae.reconstruct(&x, &mask);
        // f32 through six blocks: values of about 1 keep six digits.
        for (i, expected) in [-0.60768899, -0.09054479, 0.37600937, -0.02689657].into_iter().enumerate() {
            assert!((p.double_value(&[1, 5, i as i64]) - expected).abs() < 3e-6);
        }
        assert!((number(&p.norm()) / 12.0092648 - 1.0).abs() < 1e-6);
        let total = mae.objective(&x, &p, &mask);
        assert!((number(&total) / loss - 1.0).abs() < 2e-6, "{} is not {loss}", number(&total));
        total.backward();
        let gradient = |name: &str| {
            store.trainable().into_iter().find(|v| v.name == name).expect("a variable of that name").tensor.grad()
        };
        for (name, second, norm) in gradients {
            let g = gradient(name);
            assert!((number(&g.norm()) / norm - 1.0).abs() < 1e-4, "{name}");
            assert!((g.flatten(0, -1).double_value(&[1]) - second).abs() < 1e-4 * norm, "{name}");
        }
        let all: f64 = store.trainable().iter().map(|v| number(&v.tensor.grad().square().sum(Kind::Double))).sum();
        assert!((all.sqrt() / norm - 1.0).abs() < 1e-5);
    }
}

#[test]
fn patches_are_kept_by_rounded_count() {
    let counts =
        [(196, 0.75, 49), (64, 0.75, 16), (49, 0.75, 12), (16, 0.6, 6), (10, 0.9, 1), (4, 0.99, 1), (4, 0.01, 3)];
    for (length, ratio, expected) in counts {
        assert_eq!(kept(length, ratio), expected, "{length} {ratio}");
        let mask = Mask::new(&wave(0.7, &[3, length]), expected);
        let removed = mask.removed.sum_dim_intlist([1].as_slice(), false, Kind::Int64);
        assert_eq!(removed, Tensor::from_slice(&[length - expected; 3]));
    }
}

#[test]
fn restore_brings_kept_tokens_back_and_fills_the_rest() {
    let (b, l, d) = (5, 16, 3);
    let (x, fill) = (wave(0.1, &[b, l, d]), Tensor::from_slice(&[7.0, 8.0, 9.0]).view([1, 1, 3]));
    let mask = Mask::new(&wave(0.4, &[b, l]), 4);
    let kept = mask.keep(&x);
    assert_eq!(kept.size(), [b, 4, d]);
    let removed = mask.removed.unsqueeze(-1).to_kind(Kind::Double);
    assert_eq!(mask.restore(&kept, &fill), &x * (1.0 - &removed) + &fill * removed);
    // Kept are those of least noise.
    let noise = wave(0.4, &[b, l]);
    let most_kept = (&noise - &mask.removed * 10.0).amax([1].as_slice(), false);
    let least_removed = (&noise + (&mask.removed - 1.0) * -10.0).amin([1].as_slice(), false);
    assert!(number(&(least_removed - most_kept).min()) > 0.0);
}

#[test]
fn unpatchify_is_the_inverse_of_patchify() {
    for (c, s, patch) in [(1, 28, 4), (3, 16, 4), (3, 12, 12)] {
        let x = wave(0.1, &[2, c, s, s]);
        let patches = patchify(&x, patch);
        assert_eq!(patches.size(), [2, (s / patch).pow(2), patch * patch * c]);
        assert_eq!(unpatchify(&patches, patch, c), x);
    }
    // Row, column, channel inside a patch; rows of the grid first.
    let x = wave(0.1, &[1, 3, 8, 8]);
    let patches = patchify(&x, 4);
    let (row, column, channel) = (2, 1, 2);
    assert_eq!(
        patches.double_value(&[0, 1, (row * 4 + column) * 3 + channel]),
        x.double_value(&[0, channel, row, 4 + column])
    );
}

#[test]
fn normalised_patches_have_mean_zero_and_unbiased_variance_one() {
    let patches = wave(0.1, &[2, 16, 48]);
    let pixels = Pixels::of(&patches, 1e-12);
    let t = pixels.normalise(&patches);
    assert!(greatest(&t.mean_dim([-1].as_slice(), false, None)) < 1e-12);
    assert!(greatest(&(t.var_dim([-1].as_slice(), true, false) - 1.0)) < 1e-9);
    assert!(greatest(&(pixels.restore(&t) - patches)) < 1e-12);
    let four = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0]).view([1, 1, 4]);
    let t = Pixels::of(&four, 1e-6).normalise(&four);
    for (i, expected) in [-1.161895, -0.387298, 0.387298, 1.161895].into_iter().enumerate() {
        assert!((t.double_value(&[0, 0, i as i64]) - expected).abs() < 1e-6);
    }
}

#[test]
fn a_prediction_of_zero_costs_the_biased_variance() {
    for n in [16, 48] {
        let patches = wave(0.1, &[2, 9, n]);
        let t = Pixels::of(&patches, 1e-12).normalise(&patches);
        let removed = Mask::new(&wave(0.4, &[2, 9]), 4).removed;
        let loss = number(&masked_mse(&t.zeros_like(), &t, &removed));
        assert!((loss - (n - 1) as f64 / n as f64).abs() < 1e-9);
        assert_eq!(number(&masked_mse(&t, &t, &removed)), 0.0);
    }
}

#[test]
fn the_loss_ignores_what_is_predicted_for_visible_patches() {
    let (p, t, mask) = (wave(0.1, &[2, 16, 48]), wave(0.2, &[2, 16, 48]), Mask::new(&wave(0.4, &[2, 16]), 4));
    let visible: Tensor = 1.0 - mask.removed.unsqueeze(-1);
    let expected = number(&masked_mse(&p, &t, &mask.removed));
    assert_eq!(number(&masked_mse(&(&p + &visible * 100.0), &t, &mask.removed)), expected);
    assert_ne!(number(&masked_mse(&(&p + (1.0 - visible)), &t, &mask.removed)), expected);
}

#[test]
fn the_prediction_does_not_depend_on_removed_pixels() {
    let (_store, mae) = golden(true);
    let mask = Mask::new(&wave(0.4, &[2, 16]), 4);
    let x = images(2).set_requires_grad(true);
    let p = mae.reconstruct(&x, &mask);
    let gradient = &Tensor::run_backward(&[p.square().sum(None)], &[&x], false, false)[0];
    let removed = mask.removed.unsqueeze(-1);
    let gradient = patchify(gradient, 4);
    assert_eq!(greatest(&(&gradient * &removed)), 0.0);
    let per_patch = gradient.abs().sum_dim_intlist([-1].as_slice(), true, None) + removed;
    assert!(number(&per_patch.min()) > 0.0, "every kept patch counts");
}

#[test]
fn each_image_has_a_mask_of_its_own_that_depends_on_it_alone() {
    let store = Store::new(0, Device::Cpu);
    let mae = make(&store, config(), "vit-micro/4").expect("a method");
    let all = mae.mask(&batch(images(4))).removed;
    assert_ne!(all.get(0), all.get(1));
    let mut last = batch(images(1));
    last.index = vec![3];
    assert_eq!(mae.mask(&last).removed.get(0), all.get(3));
    last.epoch = 1;
    assert_ne!(mae.mask(&last).removed.get(0), all.get(3));
}

#[test]
fn everything_is_trained() {
    let store = Store::new(0, Device::Cpu);
    let mut mae = make(&store, config(), "vit-micro/4").expect("a method");
    let loss = mae.loss(&batch(images(4)), AT).total;
    assert!(number(&loss).is_finite());
    loss.backward();
    for v in store.trainable() {
        assert!(number(&v.tensor.grad().norm()) > 0.0, "{}", v.name);
    }
    assert_eq!(mae.features(&images(4), false).size(), [4, 96]);
    assert!(mae.embedding(&images(4)).is_none());
    assert_eq!(mae.views().len(), 1);
}

#[test]
fn blocks_and_the_grid_remove_as_many_patches_of_every_image() {
    let per_image = |mask: &Mask| mask.removed.sum_dim_intlist([1].as_slice(), false, Kind::Int64);
    let batch = batch(images(4));
    let block = Sampling::Block.mask(&batch, 49, 0.75);
    assert_eq!(per_image(&block), Tensor::from_slice(&[37i64; 4]));
    assert_ne!(block.removed.get(0), block.removed.get(1));
    // Neighbours of a removed patch are removed more often than with single patches.
    let together = |mask: &Mask| {
        let grid = mask.removed.view([4, 7, 7]);
        number(&(grid.narrow(2, 0, 6) * grid.narrow(2, 1, 6)).sum(None))
    };
    assert!(together(&Sampling::Block.mask(&batch, 49, 0.5)) > 1.2 * together(&Sampling::Random.mask(&batch, 49, 0.5)));
    let grid = Sampling::Grid.mask(&batch, 16, 0.75);
    let kept: Vec<i64> = (0..16).filter(|&i| grid.removed.double_value(&[2, i]) == 0.0).collect();
    assert_eq!(kept, [0, 2, 8, 10]);
    assert_eq!(grid.removed.get(0), grid.removed.get(3));
}

#[test]
fn mask_tokens_in_the_encoder_still_hide_the_removed_pixels() {
    let store = Store::new(0, Device::Cpu);
    let mut mae = make(&store, Config { encode_masked: true, ..config() }, "vit-micro/4").expect("a method");
    let batch = batch(images(2).set_requires_grad(true));
    let p = mae.reconstruct(&batch.views[0].x, &mae.mask(&batch));
    let gradient = &Tensor::run_backward(&[p.square().sum(None)], &[&batch.views[0].x], false, false)[0];
    assert_eq!(greatest(&(patchify(gradient, 4) * mae.mask(&batch).removed.unsqueeze(-1))), 0.0);
    mae.loss(&batch, AT).total.backward();
    // The decoder's own mask token is then not needed.
    let idle: Vec<String> = store
        .trainable()
        .into_iter()
        .filter(|v| !v.tensor.grad().defined() || number(&v.tensor.grad().norm()) == 0.0)
        .map(|v| v.name)
        .collect();
    assert_eq!(idle, ["decoder.mask_token"]);
}

#[test]
fn the_pretext_scores_are_the_loss_and_the_error_in_pixels() {
    let (_store, mut mae) = golden(true);
    let batch = batch(images(3));
    let scores = no_grad(|| mae.pretext(&batch));
    assert_eq!(number(&scores[0].1), number(&mae.loss(&batch, AT).total));
    let rows = mae.pictures(&batch);
    let removed = mae.mask(&batch).removed.unsqueeze(-1);
    let error = (patchify(&rows[2].1, 4) - patchify(&rows[0].1, 4)) * &removed;
    let mean = number(&error.square().sum(None)) / (number(&removed.sum(None)) * 48.0);
    assert_eq!(scores[1].0, "reconstruction_error");
    assert!((number(&scores[1].1) / mean - 1.0).abs() < 1e-5);
}

#[test]
fn bf16_networks_give_about_the_same_loss_in_f32() {
    let (_store, mut mae) = golden(true);
    let exact = number(&mae.loss(&batch(images(4)), AT).total);
    let rough = precision::with(precision::Precision::Bf16, || mae.loss(&batch(images(4)), AT).total);
    assert_eq!(rough.kind(), Kind::Float);
    rough.backward();
    // Eight bits of mantissa, averaged over more than 2000 values.
    assert!((number(&rough) / exact - 1.0).abs() < 4e-3, "{} is not about {exact}", number(&rough));
}

#[test]
fn pictures_keep_visible_patches() {
    for norm_pix in [true, false] {
        let (_store, mae) = golden(norm_pix);
        let batch = batch(images(3));
        let rows = mae.pictures(&batch);
        // What is no prediction is said where it is shown.
        let last = if norm_pix { "reconstruction, true mean and deviation" } else { "reconstruction" };
        assert_eq!(rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["input", "masked", last]);
        assert!(rows.iter().all(|(_, row)| row.size() == [3, 3, 16, 16] && !row.requires_grad()));
        let removed = mae.mask(&batch).removed.unsqueeze(-1);
        let [input, masked, reconstruction] = [0, 1, 2].map(|i: usize| patchify(&rows[i].1, 4));
        assert_eq!(masked, &input * (1.0 - &removed));
        assert_eq!(greatest(&((&reconstruction - &input) * (1.0 - &removed))), 0.0);
        let mut p = no_grad(|| mae.reconstruct(&batch.views[0].x, &mae.mask(&batch)));
        if norm_pix {
            p = Pixels::of(&input, 1e-6).restore(&p);
        }
        assert!(greatest(&((reconstruction - p) * removed)) < 1e-6);
    }
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let refused = |config: Config, encoder: &str| {
        let made = Mae::check(&config).and_then(|()| make(&Store::new(0, Device::Cpu), config, encoder));
        made.err().expect("a refusal").to_string()
    };
    let message = refused(config(), "resnet18-cifar");
    assert!(message.contains("mae") && message.contains("resnet18-cifar") && message.contains("encoder=vit-micro/4"));
    for mask_ratio in [0.0, 1.0, -0.5, f64::NAN] {
        assert!(refused(Config { mask_ratio, ..config() }, "vit-micro/4").contains("mask_ratio is"));
    }
    assert!(refused(Config { eps: 0.0, ..config() }, "vit-micro/4").contains("eps is 0"));
    let decoder = |width, depth, heads| Config { decoder: DecoderConfig { width, depth, heads }, ..config() };
    assert!(refused(decoder(18, 1, 2), "vit-micro/4").contains("decoder.width is 18"));
    assert!(refused(decoder(16, 1, 3), "vit-micro/4").contains("decoder.heads 3"));
    assert!(refused(decoder(16, 0, 2), "vit-micro/4").contains("decoder.depth is 0"));
    assert!(refused(config(), "vit-micro/5").contains("patches of 5"));
    assert!(refused(config(), "vit-micro/16").contains("single patch"));
}
