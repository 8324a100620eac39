//! RotNet against PyTorch (`tests/golden.py`), exact rotations, and what a label may depend on.

use super::*;
use selfsup_core::augment::views::{HostBatch, plain};
use selfsup_core::data::{Image, Images, Normalisation};
use selfsup_core::method::{ImageShape, Shape, View};
use selfsup_core::store::{Store, assign};

/// `wave` of golden.py: sin(1.3 m^2 + phase).
fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn make(store: &Store, angles: &[i64], channels: i64, size: i64) -> RotNet {
    let config = Config { angles: angles.to_vec() };
    RotNet::check(&config).expect("angles");
    let shape = Shape::Image(ImageShape { channels, size });
    RotNet::new(config, &Setup::new(store.root(), "convnet-tiny".parse().expect("a name"), shape, 8)).expect("a method")
}

fn batch(n: i64, channels: i64, size: i64) -> Batch {
    let x = wave(0.1, &[n, channels, size, size]).to_kind(Kind::Float);
    let params = Tensor::zeros([n, 12], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0)
}

const ALL: [i64; 4] = [0, 90, 180, 270];
const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

#[test]
fn loss_and_gradients_are_those_of_pytorch() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 16, vec![0, 90, 180, 270], 1.605054884, [(6.916400714e-02, 1.328491849e+00), (7.560779067e-02, 1.916016393e+00), (8.960759590e-03, 1.053069827e-01)]),
    (5, 1, 12, vec![0, 90, 180, 270], 1.611084343, [(2.809180245e-02, 1.236602638e+00), (1.425319334e-01, 1.306665251e+00), (1.623466662e-02, 9.932160266e-02)]),
    (3, 3, 16, vec![90, 270], 0.704858538, [(-5.446951230e-02, 1.044443809e+00), (-3.144769989e-02, 1.837330309e+00), (1.728048383e-03, 7.364127482e-02)]),
    ];
    for (n, channels, size, angles, loss, gradients) in golden {
        let store = Store::new(0, Device::Cpu);
        let mut method = make(&store, &angles, channels, size);
        let mut variables = store.trainable();
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        for (k, v) in variables.iter().enumerate() {
            let one = if v.name.ends_with("bn.weight") { 1.0 } else { 0.0 };
            assign(&v.tensor, &(wave(k as f64, &v.tensor.size()) * 0.1 + one));
        }
        let total = method.loss(&batch(n, channels, size), AT).total;
        // f32 through four batch norms: the loss keeps six digits; gradients are sums of signed terms and keep four.
        assert!((number(&total) / loss - 1.0).abs() < 2e-6, "{} is not {loss}", number(&total));
        total.backward();
        let names = ["classifier.weight", "encoder.0.conv.weight", "encoder.3.bn.bias"];
        for (name, (second, norm)) in names.into_iter().zip(gradients) {
            let g = variables.iter().find(|v| v.name == name).expect("a variable of that name").tensor.grad();
            assert!((number(&g.norm()) / norm - 1.0).abs() < 1e-4, "{name}: {} is not {norm}", number(&g.norm()));
            assert!((g.flatten(0, -1).double_value(&[1]) - second).abs() < 1e-4 * norm, "{name}");
        }
    }
}

#[test]
fn rotations_move_pixels_and_change_none() {
    let x = Tensor::from_slice(&[1i64, 2, 3, 4]).view([1, 1, 2, 2]);
    for (angle, expected) in [(0, [1i64, 2, 3, 4]), (90, [2, 4, 1, 3]), (180, [4, 3, 2, 1]), (270, [3, 1, 4, 2])] {
        assert_eq!(rotate(&x, angle).flatten(0, -1), Tensor::from_slice(&expected), "{angle}");
    }
    let x = wave(0.1, &[2, 3, 7, 7]);
    let four = ALL.iter().fold(x.shallow_clone(), |x, _| rotate(&x, 90));
    assert_eq!(four, x);
    assert_eq!(rotate(&rotate(&x, 90), 90), rotate(&x, 180));
    assert_eq!(rotate(&rotate(&x, 90), 180), rotate(&x, 270));
}

#[test]
fn every_image_is_there_at_every_angle_with_its_label() {
    for angles in [&ALL[..], &[0, 180], &[270, 90]] {
        let x = wave(0.1, &[3, 1, 4, 4]);
        let (copies, y) = turned(&x, angles);
        assert_eq!(copies.size(), [3 * angles.len() as i64, 1, 4, 4]);
        for (row, label) in Vec::<i64>::try_from(&y).expect("labels").into_iter().enumerate() {
            let image = x.get(row as i64 % 3);
            assert_eq!(copies.get(row as i64), rotate(&image, angles[label as usize]));
        }
        let counts: Vec<i64> = Vec::try_from(y.bincount::<Tensor>(None, 0)).expect("counts");
        assert_eq!(counts, vec![3; angles.len()], "each label as often");
    }
}

/// Eight images without any symmetry.
struct Noise;

impl Images for Noise {
    fn len(&self) -> usize {
        8
    }

    fn channels(&self) -> usize {
        1
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let pixels: Vec<u8> = (0..16 * 16).map(|i| (i * i * (7 + index) % 251) as u8).collect();
        Ok(Image { height: 16, width: 16, channels: 1, pixels: pixels.into() })
    }
}

#[test]
fn views_are_flipped_left_and_right_and_never_turned_so_a_label_stays_true() {
    // A flip upside down beside one left and right is half a turn: the label 180 would then be that of 0.
    let x = wave(0.1, &[1, 1, 5, 5]);
    assert_eq!(rotate(&x.flip([-1]), 90), rotate(&x, 270).flip([-1]));
    assert_eq!(x.flip([-1]).flip([-2]), rotate(&x, 180));
    // The method's own views without their crop, which keeps no pixel as it is.
    let store = Store::new(0, Device::Cpu);
    let views: Vec<Recipe> = make(&store, &ALL, 1, 16).views();
    assert_eq!(views.len(), 1);
    let recipe = [Recipe { crop: None, ..views[0].clone() }];
    let normalisation = Normalisation { mean: vec![0.0], std: vec![1.0] };
    let index: Vec<usize> = (0..8).collect();
    let original = plain(&Noise, &index, 16, &normalisation).expect("images");
    let (mut kept, mut flipped) = (0, 0);
    for epoch in 0..8 {
        let batch = HostBatch::render(&Noise, index.clone(), &recipe, 16, &normalisation, 0, epoch).expect("views");
        let view = &batch.to_batch(Device::Cpu).views[0].x;
        for i in 0..8 {
            let (view, original) = (view.get(i), original.get(i));
            kept += i32::from(view == original);
            flipped += i32::from(view == original.flip([-1]));
            // What is shown under the other labels is neither the image nor its mirror image.
            for angle in [90, 180, 270] {
                let turned = rotate(&view, angle);
                assert!(turned != original && turned != original.flip([-1]), "image {i} at {angle}");
            }
        }
    }
    // A coin 64 times: each side within 5 deviations of 4.
    assert!(kept + flipped == 64 && (12..=52).contains(&kept), "{kept} as they are, {flipped} mirrored");
}

#[test]
fn a_classifier_of_zeros_costs_the_log_of_the_number_of_angles() {
    for angles in [&ALL[..], &[0, 180]] {
        let store = Store::new(0, Device::Cpu);
        let mut method = make(&store, angles, 1, 12);
        store.below("classifier").iter().for_each(|v| assign(&v.tensor, &v.tensor.zeros_like()));
        let loss = method.loss(&batch(4, 1, 12), AT);
        assert!((number(&loss.total) - (angles.len() as f64).ln()).abs() < 1e-6);
        // All logits are equal: the first angle is told, which one copy in K has.
        assert_eq!(loss.parts[0].0, "accuracy");
        assert!((number(&loss.parts[0].1) - 1.0 / angles.len() as f64).abs() < 1e-6);
    }
}

#[test]
fn everything_is_trained_and_judging_moves_nothing() {
    let store = Store::new(0, Device::Cpu);
    let mut method = make(&store, &ALL, 3, 16);
    method.loss(&batch(4, 3, 16), AT).total.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    let before: Vec<Tensor> = store.variables().iter().map(|v| v.tensor.detach().copy()).collect();
    let scores = selfsup_core::no_grad(|| method.pretext(&batch(4, 3, 16)));
    assert_eq!(scores.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["accuracy", "loss"]);
    assert!(store.variables().iter().zip(&before).all(|(v, old)| v.tensor == *old));
    assert_eq!(method.features(&batch(4, 3, 16).views[0].x, false).size(), [4, 128]);
}

#[test]
fn pictures_are_the_images_at_each_angle() {
    let store = Store::new(0, Device::Cpu);
    let (method, batch) = (make(&store, &[90, 270], 3, 16), batch(3, 3, 16));
    let rows = method.pictures(&batch);
    assert_eq!(rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["90", "270"]);
    assert_eq!(rows[1].1, rotate(&batch.views[0].x, 270));
}

#[test]
fn unusable_angles_are_refused() {
    for angles in [vec![], vec![0], vec![0, 45], vec![0, 90, 90], vec![0, 360], vec![-90, 0]] {
        let error = RotNet::check(&Config { angles: angles.clone() }).expect_err("a refusal").to_string();
        assert!(error.starts_with(&format!("angles is {angles:?}")), "{error}");
    }
}
