//! The triplet loss against a naive loop in PyTorch (`tests/golden.py`), closed forms and which negatives are chosen.

use super::*;
use selfsup_core::Device;
use selfsup_core::golden::{AT, against_golden, batch, close, given, leaf, matrix, number, setup};
use selfsup_core::store::Store;

fn config(mining: Mining, average: Average) -> Config {
    Config { mining, average, hidden: 32, output: 8, ..Config::default() }
}

/// The draw of golden.py: (0.37 (v N + i) + 0.11) mod 1 for image i of view v, [N, 2].
fn draw(n: i64) -> Tensor {
    let values: Vec<f64> = (0..2 * n).map(|i| (0.37 * i as f64 + 0.11) % 1.0).collect();
    Tensor::from_slice(&values).view([2, n]).tr()
}

fn loss(a: &Tensor, b: &Tensor, config: &Config) -> (Tensor, Tensor) {
    triplets(&Tensor::cat(&[a, b], 0), Some(&draw(a.size()[0])), config)
}

#[test]
fn losses_and_gradients_are_those_of_a_naive_loop() {
    #[rustfmt::skip]
    let golden = [
    (Mining::BatchAll, Average::Positive, 3, 3, 1.41500591428, 0.791666666667, [[-5.575107438699e-01, 1.785369324788e-01, 8.712797981766e-02, 1.026452066256e+00], [-1.625231133645e-01, -3.179450008352e-01, 6.635145143671e-01, 1.124111084485e+00]]),
    (Mining::BatchAll, Average::Positive, 8, 5, 0.775273958048, 0.424107142857, [[-2.538907555144e-01, -8.456203896759e-02, -4.627997509100e-02, 4.582304371210e-01], [-1.260819343331e-01, -2.315520620606e-01, 1.860744817413e-01, 6.999297383846e-01]]),
    (Mining::BatchAll, Average::Positive, 32, 16, 0.356717337498, 0.318548387097, [[-4.007978667733e-03, 4.605850251837e-04, -2.033537127821e-03, 1.508814172465e-01], [4.116480618672e-04, -3.824207032955e-03, 4.235587608486e-03, 1.586028447500e-01]]),
    (Mining::BatchAll, Average::All, 3, 3, 1.12021301547, 0.791666666667, [[-4.413626722304e-01, 1.413417382124e-01, 6.897631735565e-02, 8.126078857859e-01], [-1.286641314136e-01, -2.517064589945e-01, 5.252823238739e-01, 8.899212752175e-01]]),
    (Mining::BatchAll, Average::All, 8, 5, 0.328799223279, 0.424107142857, [[-1.076768829191e-01, -3.586336474072e-02, -1.962766800735e-02, 1.943388014576e-01], [-5.347224893590e-02, -9.820288346321e-02, 7.891551680991e-02, 2.968452015471e-01]]),
    (Mining::BatchAll, Average::All, 32, 16, 0.113631732509, 0.318548387097, [[-1.276735140125e-03, 1.467186168932e-04, -6.477799721688e-04, 4.806303210675e-02], [1.311298261593e-04, -1.218194982272e-03, 1.349239601090e-03, 5.052268038406e-02]]),
    (Mining::SemiHard, Average::Positive, 3, 3, 0.650272315735, 0.833333333333, [[-5.312660834810e-01, 2.167954795656e-01, 1.432598527605e-01, 9.860650991831e-01], [-1.799145302774e-01, -3.156353693496e-01, 7.044535170880e-01, 1.212963150116e+00]]),
    (Mining::SemiHard, Average::Positive, 8, 5, 0.10875990495, 0.5625, [[-2.544912020864e-01, -8.328059519015e-02, -1.539276851712e-01, 6.003405814805e-01], [-2.385251724566e-01, -4.501857359103e-02, 2.293496095159e-01, 8.500408821481e-01]]),
    (Mining::SemiHard, Average::Positive, 32, 16, 0.168152061889, 0.96875, [[-1.328726030212e-02, 4.382111296262e-03, 9.077603886080e-04, 1.588864894901e-01], [5.647420555134e-03, -1.197342371276e-02, 1.357034742048e-02, 1.526924072982e-01]]),
    (Mining::SemiHard, Average::All, 3, 3, 0.541893596446, 0.833333333333, [[-4.427217362342e-01, 1.806628996380e-01, 1.193832106337e-01, 8.217209159860e-01], [-1.499287752312e-01, -2.630294744580e-01, 5.870445975734e-01, 1.010802625097e+00]]),
    (Mining::SemiHard, Average::All, 8, 5, 0.0611774465343, 0.5625, [[-1.431513011736e-01, -4.684533479446e-02, -8.658432290880e-02, 3.376915770828e-01], [-1.341704095068e-01, -2.532294764495e-02, 1.290091553527e-01, 4.781479962083e-01]]),
    (Mining::SemiHard, Average::All, 32, 16, 0.162897309955, 0.96875, [[-1.287203341768e-02, 4.245170318253e-03, 8.793928764640e-04, 1.539212866935e-01], [5.470938662786e-03, -1.159925422174e-02, 1.314627406359e-02, 1.479207695702e-01]]),
    (Mining::BatchHard, Average::Positive, 3, 3, 2.10388316271, 1.0, [[-6.677418149155e-01, 6.265718836697e-03, -1.635812701304e-01, 8.683136562953e-01], [1.587601824464e-02, -7.752299374646e-01, 6.023382534424e-01, 1.382269105295e+00]]),
    (Mining::BatchHard, Average::Positive, 8, 5, 1.33065937556, 1.0, [[-1.410800487042e-01, -3.908470160129e-02, 4.687816357377e-03, 4.246566417673e-01], [-8.421129433285e-02, -1.561073887369e-01, 1.136416415465e-01, 6.431761832510e-01]]),
    (Mining::BatchHard, Average::Positive, 32, 16, 0.955696469081, 0.984375, [[-5.232506960571e-03, -1.314522114952e-05, -3.420151829090e-03, 1.471829649389e-01], [2.596280575885e-03, -9.418677753434e-03, 1.062736652493e-02, 1.566360200744e-01]]),
    (Mining::BatchHard, Average::All, 3, 3, 2.10388316271, 1.0, [[-6.677418149155e-01, 6.265718836697e-03, -1.635812701304e-01, 8.683136562953e-01], [1.587601824464e-02, -7.752299374646e-01, 6.023382534424e-01, 1.382269105295e+00]]),
    (Mining::BatchHard, Average::All, 8, 5, 1.33065937556, 1.0, [[-1.410800487042e-01, -3.908470160129e-02, 4.687816357377e-03, 4.246566417673e-01], [-8.421129433285e-02, -1.561073887369e-01, 1.136416415465e-01, 6.431761832510e-01]]),
    (Mining::BatchHard, Average::All, 32, 16, 0.940763711752, 0.984375, [[-5.150749039312e-03, -1.293982706905e-05, -3.366711956761e-03, 1.448832311117e-01], [2.555713691887e-03, -9.271510913536e-03, 1.046131392298e-02, 1.541885822607e-01]]),
    (Mining::Random, Average::Positive, 3, 3, 1.55157441592, 0.833333333333, [[-6.752743578741e-01, 7.759383598907e-02, -7.344649412002e-02, 1.049010153507e+00], [-1.630437861889e-01, -5.197822424025e-01, 8.318051555346e-01, 1.243329730738e+00]]),
    (Mining::Random, Average::Positive, 8, 5, 1.12424771986, 0.4375, [[-3.917757708722e-01, -1.006862293430e-01, -1.652886314515e-01, 6.307290091890e-01], [-1.534618766204e-01, -3.209299833595e-01, 2.197068182066e-01, 9.621502339907e-01]]),
    (Mining::Random, Average::Positive, 32, 16, 0.319815531197, 0.375, [[-9.802295963380e-03, -6.954491095941e-04, -6.359024068254e-03, 2.280089820861e-01], [7.874542209264e-03, -2.156369620936e-02, -3.155723647187e-03, 2.576623003614e-01]]),
    (Mining::Random, Average::All, 3, 3, 1.29297867993, 0.833333333333, [[-5.627286315618e-01, 6.466152999089e-02, -6.120541176669e-02, 8.741751279221e-01], [-1.358698218241e-01, -4.331518686688e-01, 6.931709629455e-01, 1.036108108948e+00]]),
    (Mining::Random, Average::All, 8, 5, 0.491858377437, 0.4375, [[-1.714018997566e-01, -4.405022533758e-02, -7.231377626002e-02, 2.759439415202e-01], [-6.713957102143e-02, -1.404068677198e-01, 9.612173296540e-02, 4.209407273709e-01]]),
    (Mining::Random, Average::All, 32, 16, 0.119930824199, 0.375, [[-3.675860986267e-03, -2.607934160978e-04, -2.384634025595e-03, 8.550336828228e-02], [2.952953328474e-03, -8.086386078511e-03, -1.183396367695e-03, 9.662336263553e-02]]),
    ];
    for (mining, average, n, d, expected, share, gradients) in golden {
        let margin = if n == 3 { 1.0 } else { 0.2 };
        let (a, b) = (leaf(0.2, n, d), leaf(1.5, n, d));
        let (loss, active) = loss(&a, &b, &Config { margin, ..config(mining, average) });
        close(number(&active), share);
        against_golden(&loss, [&a, &b], expected, gradients);
    }
}

#[test]
fn the_logistic_losses_and_gradients_are_those_of_a_naive_loop_too() {
    #[rustfmt::skip]
    let golden = [
    (Mining::BatchAll, Average::All, 3, 3, 1.5481261588, 1.0, [[-2.568968302349e-01, 7.533585180979e-02, 3.119917327195e-02, 4.560826010009e-01], [-9.297178023760e-02, -1.239770204663e-01, 3.316530659708e-01, 5.022809657015e-01]]),
    (Mining::BatchAll, Average::All, 8, 5, 1.31318038031, 1.0, [[-3.628889342617e-02, -8.086067704280e-03, -3.921929396059e-03, 8.719757583834e-02], [-2.016787277561e-02, -2.840513991744e-02, 2.651256335516e-02, 1.306472928136e-01]]),
    (Mining::BatchAll, Average::All, 32, 16, 1.16896893234, 1.0, [[-3.273745485258e-03, -8.318114232080e-05, -7.252992733795e-04, 9.716208641634e-02], [6.154001294472e-04, -2.882648050986e-03, 4.808579117370e-03, 1.001827177761e-01]]),
    (Mining::SemiHard, Average::Positive, 3, 3, 1.29382689723, 0.833333333333, [[-3.207987753545e-01, 1.351157408993e-01, 9.193537912631e-02, 4.890593593094e-01], [-9.153856357660e-02, -1.149873893638e-01, 3.206834545135e-01, 5.025161772983e-01]]),
    (Mining::SemiHard, Average::Positive, 8, 5, 1.38597102937, 0.5625, [[-6.741817954412e-02, -2.353825907268e-02, -3.744418485906e-02, 1.485870170160e-01], [-6.427119911875e-02, -1.518090973575e-02, 5.834616136812e-02, 2.213714879475e-01]]),
    (Mining::SemiHard, Average::Positive, 32, 16, 1.70645112073, 0.96875, [[-1.506497446206e-02, 9.692429942561e-03, 8.659219082764e-03, 2.038160240536e-01], [7.242435769070e-03, -1.285390303852e-02, 1.334331767855e-02, 1.819970784085e-01]]),
    ];
    for (mining, average, n, d, expected, share, gradients) in golden {
        let (margin, temperature) =
            [(1.0, 0.5), (0.2, 1.0), (0.2, 0.2)][[3, 8, 32].iter().position(|&m| m == n).expect("n")];
        let (a, b) = (leaf(0.2, n, d), leaf(1.5, n, d));
        let config = Config { margin, temperature, loss: Form::Logistic, ..config(mining, average) };
        let (loss, active) = loss(&a, &b, &config);
        close(number(&active), share);
        against_golden(&loss, [&a, &b], expected, gradients);
    }
    // Equal rows: every cosine is 1, -log sigma(1) - log sigma(-1) = log(1 + 1/e) + log(1 + e).
    let same = Tensor::ones([6, 4], (Kind::Double, Device::Cpu));
    let config = Config { temperature: 1.0, loss: Form::Logistic, ..config(Mining::BatchAll, Average::All) };
    close(number(&triplets(&same, None, &config).0), (-1f64).exp().ln_1p() + 1f64.exp().ln_1p());
}

/// The unit vectors of methods with a single other image: a = (1, 0), p = (0.6, 0.8) and that image's views.
fn plane(other: [f64; 4]) -> Tensor {
    let [x, y, u, v] = other;
    Tensor::from_slice(&[1.0, 0.0, x, y, 0.6, 0.8, u, v]).view([4, 2])
}

/// d(a, p) = 2 - 1.2 = 0.8. d(a, n) = 2 - 1.6 = 0.4 for n = (0.8, 0.6): 0.8 - 0.4 + 0.2 = 0.6; 2 for n = (0, 1): 0.
#[test]
fn the_reference_values_and_those_of_equal_rows() {
    let hard = config(Mining::BatchHard, Average::All);
    // All four anchors by hand. n1 = n2 = (0.8, 0.6): a 0.6; p: d(p, n) = 2 - 1.92 = 0.08, 0.92; n: d = 0 to its
    // positive, 0.4 and 0.08 to the others, the nearer: 0 - 0.08 + 0.2 = 0.12 each.
    close(number(&triplets(&plane([0.8, 0.6, 0.8, 0.6]), None, &hard).0), (0.6 + 0.92 + 0.12 + 0.12) / 4.0);
    // n1 = n2 = (0, 1): a 0; p: d(p, n) = 2 - 1.6 = 0.4, 0.6; n: 0 - 0.4 + 0.2 < 0.
    let (l, active) = triplets(&plane([0.0, 1.0, 0.0, 1.0]), None, &hard);
    close(number(&l), 0.6 / 4.0);
    close(number(&active), 0.25);
    let same = Tensor::ones([8, 3], (Kind::Double, Device::Cpu));
    for mining in [Mining::BatchAll, Mining::BatchHard, Mining::Random] {
        for average in [Average::All, Average::Positive] {
            let (l, active) = triplets(&same, Some(&draw(4)), &config(mining, average));
            close(number(&l), 0.2);
            close(number(&active), 1.0);
        }
    }
}

#[test]
fn without_a_semi_hard_negative_an_anchor_has_no_triplet() {
    // At collapse every negative is as near as the positive, none farther: loss 0, no gradient, nothing undefined.
    let same = Tensor::ones([8, 3], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    for average in [Average::All, Average::Positive] {
        let (l, active) = triplets(&same, None, &config(Mining::SemiHard, average));
        assert_eq!((number(&l), number(&active)), (0.0, 0.0));
        let gradient = Tensor::run_backward(&[&l], &[&same], false, false).remove(0);
        assert_eq!(number(&gradient.abs().max()), 0.0);
    }
    // Images that are far apart: no triplet above 0 for any mining.
    let basis = Tensor::eye(4, (Kind::Double, Device::Cpu));
    for mining in [Mining::BatchAll, Mining::SemiHard, Mining::BatchHard, Mining::Random] {
        let (l, active) = loss(&basis, &basis, &config(mining, Average::Positive));
        assert_eq!((number(&l), number(&active)), (0.0, 0.0));
    }
}

#[test]
fn semi_hard_negatives_lie_in_the_band_and_are_its_nearest() {
    // Of image 0 the two views lie at squared distance 0.1. Seen from the first, the first views of images 1, 2 and 3 lie
    // at 0.05 (too near), 0.15 (in the band) and 0.25 (in it, farther); seen from the second, nearer than 0.1. Their
    // second views are orthogonal to everything: a distance of 2, that of their own positives, so they have no band.
    let at = |squared: f64| {
        let cosine = 1.0 - squared / 2.0;
        [cosine, (1.0 - cosine * cosine).sqrt(), 0.0, 0.0, 0.0]
    };
    let axis = |k: usize| std::array::from_fn(|j| f64::from(u8::from(j == k)));
    let rows = [axis(0), at(0.05), at(0.15), at(0.25), at(0.1), axis(2), axis(3), axis(4)].concat();
    let z = Tensor::from_slice(&rows).view([8, 5]);
    let (l, active) = triplets(&z, None, &config(Mining::SemiHard, Average::All));
    close(number(&l), (0.1 - 0.15 + 0.2) / 8.0);
    close(number(&active), 1.0 / 8.0);
    close(number(&triplets(&z, None, &config(Mining::SemiHard, Average::Positive)).0), 0.1 - 0.15 + 0.2);
}

/// Draws in the middle of each sixth name each of the 6 other rows once, so their mean is that of all triplets.
#[test]
fn random_negatives_are_any_of_the_other_images_equally_often() {
    let (n, config) = (4, Config { margin: 1.0, ..config(Mining::Random, Average::All) });
    let z = Tensor::cat(&[leaf(0.2, n, 3), leaf(1.5, n, 3)], 0);
    let random = |u: f64| {
        let draw = Tensor::full([n, 2], u, (Kind::Float, Device::Cpu));
        number(&triplets(&z, Some(&draw), &config).0)
    };
    let mean = (0..6).map(|k| random((f64::from(k) + 0.5) / 6.0)).sum::<f64>() / 6.0;
    let all = Config { mining: Mining::BatchAll, ..config.clone() };
    close(mean, number(&triplets(&z, None, &all).0));
    // A number that rounds up to 1 in f32 still names the last of them.
    close(random(1.0), random(0.99));
}

#[test]
fn scaling_permuting_swapping_and_rotating_change_nothing() {
    let (a, b) = (matrix(0.2, 6, 4), matrix(1.5, 6, 4));
    for mining in [Mining::BatchAll, Mining::SemiHard, Mining::BatchHard] {
        let value = |a: &Tensor, b: &Tensor| number(&loss(a, b, &config(mining, Average::Positive)).0);
        let expected = value(&a, &b);
        close(value(&b, &a), expected);
        close(value(&(&a * (matrix(0.3, 6, 1) + 2.0)), &(&b * 100.0)), expected);
        let order = Tensor::from_slice(&[3i64, 0, 5, 1, 4, 2]);
        close(value(&a.index_select(0, &order), &b.index_select(0, &order)), expected);
        let (q, _) = Tensor::linalg_qr(&matrix(0.5, 4, 4), "reduced");
        close(value(&a.matmul(&q), &b.matmul(&q)), expected);
    }
}

#[test]
fn equal_views_have_a_finite_gradient() {
    let a = matrix(0.2, 6, 4).to_kind(Kind::Float).set_requires_grad(true);
    for mining in [Mining::BatchAll, Mining::SemiHard, Mining::BatchHard] {
        let (l, _) = loss(&a, &a, &Config { margin: 1.0, ..config(mining, Average::Positive) });
        let gradient = Tensor::run_backward(&[&l], &[&a], false, false).remove(0);
        assert!(number(&gradient.norm()).is_finite(), "a squared distance has no root whose slope is infinite at 0");
    }
}

#[test]
fn the_loss_is_that_of_the_projections_and_trains_everything() {
    for mining in [Mining::BatchAll, Mining::SemiHard, Mining::BatchHard, Mining::Random] {
        let store = Store::new(0, Device::Cpu);
        let config = Config { margin: 4.0, ..config(mining, Average::Positive) }; // the greatest distance: all above 0
        let mut method = Triplet::new(config, &setup(&store, "convnet-tiny", 8)).expect("a method");
        let batch = batch(4);
        let Loss { total, parts } = method.loss(&batch, AT);
        let x = Tensor::cat(&[&batch.views[0].x, &batch.views[1].x], 0);
        let z = method.network.project(&x, true);
        let expected = triplets(&z, Some(&batch.uniform(Purpose::Mask, 2)), &method.config);
        // The same operations in f32, in whatever order threads add.
        assert!((number(&total) - number(&expected.0)).abs() < 1e-5, "{mining:?}");
        assert_eq!(parts[0].0, "active");
        assert!(!parts[0].1.requires_grad() && number(&parts[0].1) > 0.0, "{mining:?}");
        total.backward();
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0), "{mining:?}");
        assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
        assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 8]);
        assert_eq!(method.views().len(), 2);
    }
}

#[test]
fn unusable_numbers_and_inputs_are_refused() {
    for margin in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = Triplet::check(&Config { margin, ..Config::default() });
        assert!(refused.expect_err("a refusal").to_string().starts_with("margin is"));
    }
    let refused = Triplet::check(&Config { temperature: 0.0, ..Config::default() });
    assert!(refused.expect_err("a refusal").to_string().starts_with("temperature is 0"));
    let refusal = |config: &Config, n| {
        let x = leaf(0.2, n, 3);
        Triplet::objective(config, &given(&[("a", &x), ("b", &x)])).expect_err("a refusal").to_string()
    };
    assert!(refusal(&config(Mining::Random, Average::All), 4).starts_with("mining is random"));
    assert!(refusal(&Config::default(), 1).contains("one row"));
    let x = leaf(0.2, 3, 3);
    let value = Triplet::objective(&Config::default(), &given(&[("a", &x), ("b", &leaf(1.5, 3, 3))]));
    assert!(number(&value.expect("a loss")).is_finite());
}
