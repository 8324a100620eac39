//! NT-Xent against lightly and PyTorch (`tests/golden.py`), closed forms and invariances.

use super::*;
use selfsup_core::Device;
use selfsup_core::golden::{self, AT, against_golden, batch, close, close6, fixed, given, leaf, matrix, number};
use selfsup_core::store::Store;

/// The loss of two views' embeddings, all negatives of the batch.
fn between(a: &Tensor, b: &Tensor, config: &Config) -> Tensor {
    SimClr::objective(config, &given(&[("a", a), ("b", b)])).expect("a loss")
}

fn at(temperature: f64) -> Config {
    Config { temperature, ..Config::default() }
}

fn setup_with(store: &Store, config: Config) -> SimClr {
    SimClr::new(config, &golden::setup(store, "convnet-tiny", 8)).expect("a method")
}

fn small() -> Config {
    Config { hidden: 32, output: 8, ..Config::default() }
}

fn setup(store: &Store) -> SimClr {
    setup_with(store, small())
}

#[test]
fn loss_and_gradients_are_those_of_lightly() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 0.324860266304, [[-1.726327992350e-01, 7.952117263356e-02, 5.826500707345e-02, 3.175174989967e-01], [3.007557169751e-02, 5.165886878136e-02, 3.586084552869e-01, 4.649645325070e-01]]),
    (8, 5, 0.806872674702, [[-7.095108660118e-02, -2.829292305225e-02, -7.892321534563e-03, 7.094442913607e-01], [8.342461925292e-02, -7.594717890592e-02, 6.852228003787e-02, 8.626958290554e-01]]),
    (32, 16, 1.36652907788, [[-7.578781507738e-03, 3.113868160439e-04, -3.809302230575e-03, 1.706761882247e-01], [6.171827812936e-03, -4.325134281250e-03, 1.000054534885e-02, 1.710525965136e-01]]),
    ];
    for ((n, d, loss, gradients), temperature) in golden.into_iter().zip([0.5, 0.1, 0.2]) {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        against_golden(&between(&a, &b, &at(temperature)), [&a, &b], loss, gradients);
    }
}

#[test]
fn without_l2_norm_loss_and_gradients_are_those_of_a_loop_over_rows() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 0.182027265235, [[-1.821426299354e-01, -4.766251487464e-02, 1.524183378461e-01, 3.685548617734e-01], [-8.654070171999e-02, -5.511255808399e-02, 3.169344331171e-01, 4.418180928904e-01]]),
    (8, 5, 1.3030070048, [[-9.527446879424e-02, -5.355128873429e-02, 2.974765936165e-02, 2.785499760617e-01], [-3.847494730472e-03, -8.919117935272e-02, 9.007852166627e-02, 3.668998565459e-01]]),
    (32, 16, 3.57930947986, [[-2.214775488776e-03, -2.357105796455e-03, 1.139448080210e-03, 4.676213249636e-02], [-3.655123376470e-04, -2.933498789185e-03, 2.985545466309e-03, 4.803763082102e-02]]),
    ];
    for ((n, d, loss, gradients), temperature) in golden.into_iter().zip([0.5, 1.0, 10.0]) {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        let config = Config { normalise: false, ..at(temperature) };
        against_golden(&between(&a, &b, &config), [&a, &b], loss, gradients);
    }
}

#[test]
fn the_debiased_loss_and_its_gradients_are_those_of_a_loop_over_rows() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 0.261284572853, [[-1.933946855240e-01, 8.964878710979e-02, 6.600021580452e-02, 3.562563816948e-01], [3.380206579102e-02, 5.762314103721e-02, 4.011043344647e-01, 5.206243634264e-01]]),
    (8, 5, 1.19516143467, [[-1.160999276097e-01, -2.408581562426e-02, -8.365676501950e-03, 2.710605942238e-01], [8.716023427028e-02, -4.024060665381e-02, 1.188090039344e-01, 4.104095238740e-01]]),
    (32, 16, 0.0102075606231, [[-9.099582858424e-05, -6.455933201987e-06, -5.903154385867e-05, 2.499551175839e-03], [6.450188033203e-05, -4.766304864398e-05, 8.974066541608e-05, 2.535995018559e-03]]),
    ];
    for ((n, d, loss, gradients), (temperature, debias)) in
        golden.into_iter().zip([(0.5, 0.05), (0.5, 0.1), (0.2, 0.3)])
    {
        let (a, b) = (leaf(0.2, n, d), leaf(0.9, n, d));
        against_golden(&between(&a, &b, &Config { debias, ..at(temperature) }), [&a, &b], loss, gradients);
    }
}

#[test]
fn the_fixed_input_gives_the_reference_values() {
    let (a, b) = fixed();
    for (temperature, expected) in [(0.1, 10.044807), (0.5, 2.811568), (1.0, 2.247665)] {
        close6(number(&between(&a, &b, &at(temperature))), expected);
        // f32 rounds similarities of up to 1 / temperature.
        let single = number(&between(&a.to_kind(Kind::Float), &b.to_kind(Kind::Float), &at(temperature)));
        assert!((single / expected - 1.0).abs() < 1e-5, "{single}");
    }
    for (debias, expected) in [(0.0, 2.811568), (0.1, 2.868577), (0.3, 3.013660)] {
        close6(number(&between(&a, &b, &Config { debias, ..at(0.5) })), expected);
    }
}

#[test]
fn closed_forms() {
    for n in [2, 4, 9] {
        let same = Tensor::ones([n, 5], (Kind::Double, Device::Cpu));
        close(number(&between(&same, &same, &at(0.1))), ((2 * n - 1) as f64).ln());
        let basis = Tensor::eye(n, (Kind::Double, Device::Cpu));
        let expected = -2.0 + (2f64.exp() + 2.0 * n as f64 - 2.0).ln();
        close(number(&between(&basis, &basis, &at(0.5))), expected);
    }
}

#[test]
fn scaling_permuting_swapping_and_rotating_change_nothing() {
    let (a, b) = (matrix(0.2, 6, 4), matrix(0.9, 6, 4));
    let loss = |a: &Tensor, b: &Tensor| number(&between(a, b, &at(0.2)));
    let expected = loss(&a, &b);
    close(loss(&b, &a), expected);
    close(loss(&(&a * (matrix(0.3, 6, 1) + 2.0)), &(&b * 100.0)), expected);
    let order = Tensor::from_slice(&[3i64, 0, 5, 1, 4, 2]);
    close(loss(&a.index_select(0, &order), &b.index_select(0, &order)), expected);
    let (q, _) = Tensor::linalg_qr(&matrix(0.5, 4, 4), "reduced");
    close(loss(&a.matmul(&q), &b.matmul(&q)), expected);
    assert!((loss(&a.index_select(0, &order), &b) - expected).abs() > 1e-3, "other pairs have another loss");
}

#[test]
fn large_similarities_stay_finite() {
    let (a, b) = (leaf(0.2, 8, 5), leaf(0.9, 8, 5));
    let loss = between(&a, &b, &at(1e-3));
    let gradients = Tensor::run_backward(&[&loss], &[&a, &b], false, false);
    assert!(number(&loss).is_finite() && gradients.iter().all(|g| number(&g.norm()).is_finite()));
}

#[test]
fn accuracy_is_the_share_of_rows_whose_nearest_is_their_positive() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(&store);
    let mut views = batch(4);
    views.views[1].x = views.views[0].x.copy(); // equal views: similarity 1, the greatest there is
    let loss = method.loss(&views, AT);
    assert_eq!(loss.parts[0].0, "accuracy");
    close(number(&loss.parts[0].1), 1.0);
    assert!(!loss.parts[0].1.requires_grad());
}

#[test]
fn the_loss_is_that_of_the_projections_and_trains_everything() {
    let store = Store::new(0, Device::Cpu);
    let mut method = setup(&store);
    let batch = batch(4);
    let loss = method.loss(&batch, AT).total;
    let x = Tensor::cat(&[&batch.views[0].x, &batch.views[1].x], 0);
    let z = method.network.project(&x, true);
    let expected = between(&z.narrow(0, 0, 4), &z.narrow(0, 4, 4), &at(0.1));
    assert!((number(&loss) - number(&expected)).abs() < 1e-5, "{loss:?} {expected:?}");
    loss.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 8]);
    assert_eq!(method.views().len(), 2);
}

#[test]
fn a_row_and_its_positive_are_not_among_its_negatives() {
    // s_ij = 10 i + j, so that each entry says where it was.
    let s = Tensor::from_slice(&(0..36).map(|m| f64::from(10 * (m / 6) + m % 6)).collect::<Vec<_>>()).view([6, 6]);
    let (positive, negatives) = pairs(&s);
    assert_eq!(Vec::<f64>::try_from(positive).expect("numbers"), [3.0, 14.0, 25.0, 30.0, 41.0, 52.0]);
    for i in 0..6 {
        let mut row = Vec::<f64>::try_from(negatives.get(i)).expect("numbers");
        row.sort_by(f64::total_cmp);
        let others = (0..6).filter(|j| j % 3 != i % 3).map(|j| (10 * i + j) as f64);
        assert_eq!(row, others.collect::<Vec<_>>());
    }
}

#[test]
fn the_projector_has_the_layers_asked_for() {
    for (layers, shapes) in
        [(0, vec![]), (1, vec![[8, 128]]), (2, vec![[32, 128], [8, 32]]), (3, vec![[32, 128], [32, 32], [8, 32]])]
    {
        for norm in [true, false] {
            let store = Store::new(0, Device::Cpu);
            let mut method = setup_with(&store, Config { layers, norm, ..small() });
            let variables = store.below("projector");
            let weights = variables.iter().filter(|v| v.tensor.dim() == 2);
            assert_eq!(weights.map(|v| v.tensor.size()).collect::<Vec<_>>(), shapes);
            assert_eq!(variables.iter().any(|v| v.name.contains("norm")), norm && layers > 1);
            method.loss(&batch(4), AT).total.backward();
            assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0), "{layers} {norm}");
            let x = &batch(4).views[0].x;
            let z = method.embedding(x).expect("an embedding");
            if layers == 0 {
                assert_eq!(z, method.features(x, false));
            } else {
                assert_eq!(z.size(), [4, 8]);
            }
        }
    }
}

#[test]
fn as_many_negatives_count_as_were_asked_for_and_all_of_them_are_all() {
    let run = |negatives| {
        let store = Store::new(0, Device::Cpu);
        number(&setup_with(&store, Config { negatives, ..small() }).loss(&batch(4), AT).total)
    };
    for asked in [1, 3, 6, 100] {
        let places = chosen(&batch(4), asked);
        assert_eq!(places.size(), [8, asked.min(6) as i64]);
        for i in 0..8 {
            let mut row = Vec::<i64>::try_from(places.get(i)).expect("places");
            row.sort_unstable();
            row.dedup();
            assert_eq!(row.len(), asked.min(6), "no negative twice");
        }
    }
    // The order of a sum in f32.
    assert!((run(0) - run(6)).abs() < 1e-5 && (run(0) - run(100)).abs() < 1e-5);
    assert!(run(1) < run(3) && run(3) < run(0), "fewer terms in the denominator");
}

/// The images that the first row of image `of` is set against, in the batch of `images`: (image, view).
fn opponents(images: &[usize], of: usize, count: usize, epoch: u64) -> Vec<(usize, usize)> {
    let n = images.len();
    let batch = Batch { index: images.to_vec(), epoch, ..batch(n) };
    // Entry (i, j) says which row j is.
    let rows = Tensor::arange(2 * n as i64, (Kind::Int64, Device::Cpu)).expand([2 * n as i64; 2], false);
    let (_, rows) = pairs(&rows);
    let row = images.iter().position(|&i| i == of).expect("an image of the batch") as i64;
    let places = rows.gather(-1, &chosen(&batch, count), false).get(row);
    let places = Vec::<i64>::try_from(places).expect("places");
    let mut found: Vec<_> = places.into_iter().map(|j| (images[j as usize % n], j as usize / n)).collect();
    found.sort_unstable();
    found
}

#[test]
fn a_choice_of_negatives_depends_on_the_images_and_the_epoch_alone() {
    let (all, some) = (opponents(&[5, 9, 2, 7, 1], 9, 4, 0), opponents(&[1, 2, 9, 5, 7], 9, 4, 0));
    assert_eq!(all, some, "the order of the batch does not matter");
    assert_ne!(all, opponents(&[5, 9, 2, 7, 1], 9, 4, 1), "another epoch, another choice");
    // Who is preferred does not depend on who else is there.
    let left: Vec<_> = all.iter().copied().filter(|&(image, _)| image != 5).collect();
    let without = opponents(&[9, 2, 7, 1], 9, 4, 0);
    assert!(left.iter().all(|one| without.contains(one)));
}

#[test]
fn all_negatives_are_chosen_equally_often() {
    let (mut counts, epochs) = (vec![0u32; 14], 2000);
    for epoch in 0..epochs {
        let places = chosen(&Batch { epoch, ..batch(8) }, 3).get(0);
        Vec::<i64>::try_from(places).expect("places").into_iter().for_each(|place| counts[place as usize] += 1);
    }
    let share = 3.0 / 14.0;
    let (mean, deviation) = (epochs as f64 * share, (epochs as f64 * share * (1.0 - share)).sqrt());
    assert!(counts.iter().all(|&c| (f64::from(c) - mean).abs() < 4.0 * deviation), "{counts:?}"); // 4 sigma of 14 counts
}

#[test]
fn dot_products_are_not_scale_free_and_cosines_are() {
    let (a, b) = (matrix(0.2, 6, 4), matrix(0.9, 6, 4));
    let dots = Config { normalise: false, ..at(10.0) };
    assert!((number(&between(&(&a * 3.0), &b, &dots)) - number(&between(&a, &b, &dots))).abs() > 1e-3);
    // Rows of length 1 have one similarity either way.
    let (u, v) = (tensor::normalise(&a), tensor::normalise(&b));
    close(number(&between(&u, &v, &dots)), number(&between(&a, &b, &at(10.0))));
}

/// SimSiam, section 6.2: p on one side of each pair, z on the other, and where the gradient goes.
#[test]
fn a_predictor_and_a_stopped_gradient_are_on_one_side_of_every_pair() {
    for (predictor, stop_gradient) in [(16, false), (16, true), (0, true)] {
        for layers in [0, 2] {
            let store = Store::new(0, Device::Cpu);
            let mut method = setup_with(&store, Config { predictor, stop_gradient, layers, ..small() });
            let batch = batch(4);
            let total = method.loss(&batch, AT).total;
            let z = method.network.project(&Tensor::cat(&[&batch.views[0].x, &batch.views[1].x], 0), true);
            let p = method.predictor.as_ref().map_or(z.shallow_clone(), |h| h.forward(&z, true));
            let targets = if stop_gradient { z.detach() } else { z.shallow_clone() };
            let (positive, negatives) = pairs(&tensor::normalise(&p).matmul(&tensor::normalise(&targets).tr()));
            let expected = nt_xent(&positive, &negatives, &small());
            // The same operations in f32, in whatever order threads add.
            assert!((number(&total) - number(&expected)).abs() < 1e-5);
            total.backward();
            assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
            assert_eq!(store.below("predictor").is_empty(), predictor == 0);
            let first = store.below("encoder").remove(0).tensor;
            let own = Tensor::run_backward(&[expected], &[&first], false, false).remove(0);
            assert!(number(&(first.grad() - &own).norm()) < 1e-4 * number(&own.norm()), "{predictor} {stop_gradient}");
        }
    }
}

#[test]
fn unusable_numbers_are_refused() {
    let refused = |config: &Config| SimClr::check(config).expect_err("a refusal").to_string();
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(&at(temperature)).starts_with("temperature is"));
    }
    for debias in [-0.1, 1.0, f64::NAN] {
        assert!(refused(&Config { debias, ..small() }).starts_with("debias is"));
    }
    assert!(refused(&Config { debias: 0.1, normalise: false, ..small() }).contains("cosines"));
    assert!(refused(&Config { hidden: 0, ..small() }).starts_with("hidden is 0"));
    assert!(refused(&Config { predictor: -1, ..small() }).starts_with("predictor is -1"));
    assert!(refused(&Config { output: 0, ..small() }).starts_with("output is 0"));
    let x = matrix(0.2, 3, 2);
    let of = |config: Config, x: &Tensor| {
        SimClr::objective(&config, &given(&[("a", x), ("b", x)])).expect_err("a refusal").to_string()
    };
    let refused = of(Config { negatives: 2, ..small() }, &x);
    assert!(refused.starts_with("negatives is 2"), "{refused}");
    assert!(of(Config { stop_gradient: true, ..small() }, &x).starts_with("predictor or stop_gradient is on"));
    let refused = of(small(), &x.narrow(0, 0, 1));
    assert!(refused.starts_with("`a` and `b` have one row"), "{refused}");
}
