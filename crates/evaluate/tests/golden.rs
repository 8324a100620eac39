//! Scores against NumPy and scikit-learn (golden.py beside this file prints the numbers; its first lines say how to
//! run it) and against closed forms.

use selfsup_core::{Device, Kind, Tensor};
use selfsup_evaluate::split::{Use, stratified};
use selfsup_evaluate::{Features, Geometry, Knn, Linear, Ridge, geometry};

/// The formula of golden.py's `cloud`.
fn cloud(n: usize, d: usize, start: usize, classes: usize, shift: f64) -> Features {
    let labels: Vec<i64> = (0..n).map(|i| ((i * 7 + i / 5) % classes) as i64).collect();
    let mut x: Vec<f64> = (start..start + n * d).map(|m| (0.37 * m as f64 * m as f64).sin()).collect();
    for (i, &label) in labels.iter().enumerate() {
        x[i * d + label as usize] += shift;
    }
    let x = Tensor::from_slice(&x).view([n as i64, d as i64]);
    Features::new(x, Tensor::from_slice(&labels)).expect("valid features")
}

fn features(x: &[f32], rows: i64, labels: &[i64]) -> Features {
    Features::new(Tensor::from_slice(x).view([rows, -1]), Tensor::from_slice(labels)).expect("valid features")
}

fn values(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.contiguous().view([-1])).expect("numbers")
}

fn close(name: &str, ours: f64, golden: f64, tolerance: f64) {
    assert!((ours - golden).abs() <= tolerance, "{name}: {ours} is not {golden} within {tolerance}");
}

fn right(accuracy: f64, n: usize) -> usize {
    (accuracy * n as f64).round() as usize
}

#[test]
fn linear_agrees_with_scikit_learn() {
    let (train, test) = (cloud(120, 4, 0, 3, 0.8), cloud(200, 4, 1000, 3, 0.8));
    let golden = [
        (
            0.1,
            [
                0.403761834,
                -0.149667519,
                -0.254094315,
                -0.241876547,
                0.590792118,
                -0.34891557,
                -0.150813597,
                -0.316114115,
                0.466927712,
                0.142115585,
                0.0384409454,
                -0.180556531,
            ],
            [0.308877514, 0.257327321, -0.566204835],
            137,
        ),
        (
            0.001,
            [
                0.579944013,
                -0.171985361,
                -0.407958652,
                -0.282231197,
                0.968568989,
                -0.686337791,
                -0.273008761,
                -0.58259649,
                0.855605251,
                0.222168521,
                0.1206154,
                -0.342783921,
            ],
            [0.475461977, 0.336181284, -0.811643262],
            131,
        ),
    ];
    let probe = Linear { tolerance: 1e-6, ..Linear::default() };
    for (penalty, weight, bias, hits) in golden {
        let fit = probe.fit(&train, 3, penalty).expect("a fit");
        assert!(fit.converged);
        // The objective's curvature in the directions that decide is above 0.01 here, so a gradient of 1e-6 in each
        // of 15 entries leaves the solution less than 15 * 1e-6 / 0.01 away.
        for (ours, golden) in values(&fit.weight()).into_iter().zip(weight) {
            close("weight", ours, golden, 1.5e-3);
        }
        let ours = fit.bias();
        for (ours, golden) in values(&(&ours - ours.mean(Kind::Double))).into_iter().zip(bias) {
            close("bias", ours, golden, 1.5e-3);
        }
        assert_eq!(right(fit.accuracy(&test), 200), hits);
    }
}

#[test]
fn linear_solves_two_points() {
    // x = -1 and 1, one class each: W = (-a, a), where the derivative 2 penalty a - 2 / (1 + e^{2a}) is zero.
    let train = features(&[3.0, 7.0, 3.0, 7.0], 4, &[0, 1, 0, 1]);
    for penalty in [1.0, 1e-2, 1e-3] {
        let fit = Linear { tolerance: 1e-6, ..Linear::default() }.fit(&train, 2, penalty).expect("a fit");
        assert!(fit.converged);
        let weight = values(&fit.weight());
        let a = weight[1];
        // The gradient, 1e-6 at most, is small beside penalty a, 2.6e-3 at least.
        close("antisymmetry", weight[0], -a, 1e-6);
        close("stationarity", a * (1.0 + (2.0 * a).exp()) * penalty, 1.0, 1e-3);
        assert_eq!(fit.accuracy(&train), 1.0);
    }
}

#[test]
fn linear_chooses_its_penalty_on_training_features() {
    let (train, test) = (cloud(600, 5, 0, 3, 0.8), cloud(200, 5, 9000, 3, 0.8));
    let score = Linear::default().score(&train, &test, 3, 0).expect("a score");
    assert!(score.accuracy > 0.55 && score.held_out_accuracy.expect("a sweep") > 0.55, "{score:?}");
    // Other test labels change nothing but the accuracy.
    let shuffled = Features::new(test.x.shallow_clone(), test.labels.flip([0])).expect("valid features");
    let other = Linear::default().score(&train, &shuffled, 3, 0).expect("a score");
    assert_eq!((score.penalty, score.held_out_accuracy), (other.penalty, other.held_out_accuracy));
    assert_eq!(score, Linear::default().score(&train, &test, 3, 0).expect("a score"));
    let single = Linear { penalties: vec![0.01], ..Linear::default() }.score(&train, &test, 3, 0).expect("a score");
    assert_eq!((single.penalty, single.held_out_accuracy, single.at_edge), (0.01, None, false));
}

#[test]
fn linear_says_when_the_penalty_lies_at_the_edge() {
    // Separable: every penalty classifies all, so the strongest is taken.
    let x: Vec<f32> = (0..40).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 } + 0.001 * i as f32).collect();
    let train = features(&x, 40, &(0..40).map(|i| i % 2).collect::<Vec<_>>());
    let score = Linear::default().score(&train, &train, 2, 0).expect("a score");
    assert_eq!((score.accuracy, score.penalty, score.at_edge), (1.0, 10.0, true));
    assert!(score.warning().expect("a warning").contains("edge of the sweep"));
}

#[test]
fn linear_refuses_what_it_cannot_use() {
    let train = features(&[1.0, 2.0, 3.0], 3, &[1, 1, 1]);
    let refused = |probe: Linear, train: &Features| probe.score(train, train, 2, 0).expect_err("refused").to_string();
    assert!(refused(Linear::default(), &train).contains("at least two classes"));
    let one_each = features(&[1.0, 2.0], 2, &[0, 1]);
    assert!(refused(Linear::default(), &one_each).contains("give a single penalty"));
    assert!(refused(Linear { penalties: vec![], ..Linear::default() }, &one_each).contains("empty"));
    assert!(refused(Linear { penalties: vec![0.0], ..Linear::default() }, &one_each).contains("positive"));
    assert!(refused(Linear { held_out: 1.0, ..Linear::default() }, &one_each).contains("(0, 1)"));
    let beyond = features(&[1.0, 2.0], 2, &[0, 2]);
    assert!(refused(Linear::default(), &beyond).contains("needs 3 classes"));
    assert!(serde_json::from_str::<Linear>(r#"{"penalty": 1}"#).is_err());
}

#[test]
fn linear_leaves_constant_dimensions_out() {
    let train = cloud(120, 4, 0, 3, 0.8);
    let constant = Tensor::full([120, 2], 0.1, (Kind::Float, Device::Cpu));
    let wider = Features::new(Tensor::cat(&[&constant, &train.x], 1), train.labels.shallow_clone()).expect("valid");
    let [fit, wide] = [&train, &wider].map(|train| Linear::default().fit(train, 3, 0.01).expect("a fit"));
    assert!(values(&wide.weight().narrow(0, 0, 2)).iter().all(|w| *w == 0.0));
    for (a, b) in values(&fit.weight()).into_iter().zip(values(&wide.weight().narrow(0, 2, 4))) {
        close("weight", a, b, 1e-6);
    }
}

/// The formula of golden.py's `targets`.
fn targets(x: &Tensor, start: usize) -> Tensor {
    let (n, d) = x.size2().expect("features");
    let noise: Vec<f64> = (start..start + n as usize).map(|m| (0.73 * m as f64 * m as f64).sin()).collect();
    let (x, noise) = (x.to_kind(Kind::Double), Tensor::from_slice(&noise));
    let weights = Tensor::arange(d, (Kind::Double, Device::Cpu)) + 1.0;
    let columns = [x.mv(&weights) + 4.0 * &noise, x.select(1, 0).square() + x.select(1, 1) + 0.5 * &noise, noise];
    Tensor::stack(&columns, 1).to_kind(Kind::Float)
}

#[test]
fn ridge_agrees_with_scikit_learn() {
    let (x, test) = (cloud(150, 6, 0, 3, 0.8).x, cloud(90, 6, 4000, 3, 0.8).x);
    let (y, truth) = (targets(&x, 0), targets(&test, 4000));
    for (penalty, golden) in [
        (1.0, [0.624274525, 0.374313098, -0.0359307118]),
        (0.01, [0.871986496, 0.564040276, -0.0940750219]),
        (1e-6, [0.873366067, 0.56439181, -0.0955734069]),
    ] {
        let ridge = Ridge { penalties: vec![penalty], ..Ridge::default() };
        let scores = ridge.score([&x, &y], [&test, &truth], 0).expect("scores");
        for (score, golden) in scores.iter().zip(golden) {
            assert_eq!(score.penalty, penalty);
            // Both solve in f64 what f32 holds; nine digits are printed.
            close("r2", score.r2, golden, 2e-9);
        }
        // More than one block of rows, a constant dimension, and targets in other units: the same.
        let (often, other) = (|x: &Tensor| x.repeat([60, 1]), |x: &Tensor| x.to_kind(Kind::Double) * 8.0 - 3.0);
        let wide = Tensor::cat(&[&Tensor::full([9000, 1], 0.1, (Kind::Float, Device::Cpu)), &often(&x)], 1);
        let wider = Tensor::cat(&[&Tensor::full([90, 1], 7.0, (Kind::Float, Device::Cpu)), &test], 1);
        let again = ridge.score([&wide, &other(&often(&y))], [&wider, &other(&truth)], 0).expect("scores");
        again.iter().zip(&scores).for_each(|(a, b)| close("r2", a.r2, b.r2, 1e-9));
    }
}

#[test]
fn ridge_chooses_a_penalty_for_each_target_on_training_features() {
    let (x, test) = (cloud(150, 6, 0, 3, 0.8).x, cloud(90, 6, 4000, 3, 0.8).x);
    let (y, truth) = (targets(&x, 0), targets(&test, 4000));
    let scores = Ridge::default().score([&x, &y], [&test, &truth], 0).expect("scores");
    // The one that tells most of a target on the held-out part when fitted on the rest.
    let (held_out, rest) = stratified(&[0; 150], 0.2, 0, Use::HeldOut).expect("parts");
    let part = |rows: Vec<usize>| {
        let rows = Tensor::from_slice(&rows.into_iter().map(|row| row as i64).collect::<Vec<_>>());
        [x.index_select(0, &rows), y.index_select(0, &rows)]
    };
    let (held_out, rest) = (part(held_out), part(rest));
    let single = |penalty: f64| Ridge { penalties: vec![penalty], held_out: 0.2 };
    for (target, score) in scores.iter().enumerate() {
        let told = |&penalty: &f64| {
            let scores = single(penalty).score([&rest[0], &rest[1]], [&held_out[0], &held_out[1]], 7);
            scores.expect("scores")[target].r2
        };
        let penalties = Ridge::default().penalties;
        let best = penalties.iter().max_by(|a, b| told(a).total_cmp(&told(b))).expect("a penalty");
        assert_eq!(score.penalty, *best, "target {target}");
    }
    assert!(scores[0].penalty < scores[2].penalty, "each has its own: {scores:?}");
    for (score, single) in scores.iter().map(|score| (score, single(score.penalty))) {
        let alone = single.score([&x, &y], [&test, &truth], 0).expect("scores");
        assert!(alone.contains(score), "fitted again on all training features");
    }
    // Other test targets change nothing but what is told of them.
    let flipped = Ridge::default().score([&x, &y], [&test, &truth.flip([0])], 0).expect("scores");
    assert!(flipped.iter().zip(&scores).all(|(a, b)| a.penalty == b.penalty && a.r2 != b.r2));
    let shuffled = Ridge { penalties: vec![1e-6, 10.0, 1e-2, 1e-4, 1.0, 0.1, 1e-3, 1e-5], held_out: 0.2 };
    assert_eq!(shuffled.score([&x, &y], [&test, &truth], 0).expect("scores"), scores);
}

#[test]
fn ridge_refuses_what_it_cannot_use() {
    let (x, y) = (cloud(20, 3, 0, 3, 0.8).x, targets(&cloud(20, 3, 0, 3, 0.8).x, 0));
    let refused = |ridge: &Ridge, train: [&Tensor; 2], test: [&Tensor; 2]| {
        ridge.score(train, test, 0).expect_err("refused").to_string()
    };
    let plain = Ridge::default();
    assert!(refused(&Ridge { penalties: vec![], ..plain.clone() }, [&x, &y], [&x, &y]).contains("empty"));
    assert!(refused(&Ridge { penalties: vec![-1.0], ..plain.clone() }, [&x, &y], [&x, &y]).contains("positive"));
    assert!(refused(&Ridge { held_out: 1.0, ..plain.clone() }, [&x, &y], [&x, &y]).contains("(0, 1)"));
    assert!(refused(&plain, [&x, &y], [&x, &y.narrow(0, 0, 19)]).contains("the test part has [20, 3] and [19, 3]"));
    assert!(refused(&plain, [&x, &y], [&x.narrow(1, 0, 2), &y]).contains("the test part has [20, 2]"));
    assert!(refused(&plain, [&(&x / 0.0), &y], [&x, &y]).contains("not finite"));
    assert!(refused(&plain, [&x, &y], [&x, &y.zeros_like()]).contains("target 0 does not vary"));
    assert!(refused(&plain, [&x.narrow(0, 0, 1), &y.narrow(0, 0, 1)], [&x, &y]).contains("two images"));
    assert!(serde_json::from_str::<Ridge>(r#"{"penalty": 1}"#).is_err());
}

#[test]
fn blocks_change_nothing() {
    // The same rows many times over: more than one block of each kind, and the same objective.
    let (train, queries) = (cloud(120, 4, 0, 3, 0.8), cloud(30, 4, 1000, 3, 0.8));
    let all = Features::new(train.x.repeat([150, 1]), train.labels.repeat([150])).expect("valid features");
    let probe = Linear { tolerance: 1e-6, ..Linear::default() };
    let [once, often] = [&train, &all].map(|train| probe.fit(train, 3, 0.1).expect("a fit"));
    for (a, b) in values(&once.weight()).into_iter().zip(values(&often.weight())) {
        // As against scikit-learn, with a curvature of 0.1.
        close("weight", a, b, 1.5e-4);
    }
    close("accuracy", once.accuracy(&train), often.accuracy(&all), 1e-12);
    let knn = Knn::default();
    let [once, often] = [1, 100].map(|times| knn.predict(&train, &queries.x.repeat([times, 1]), 3).expect("classes"));
    assert_eq!(once.repeat(100), often);
    for measure in [geometry::effective_rank, geometry::covariance_rank] {
        close("rank", measure(&train.x).expect("a rank"), measure(&all.x).expect("a rank"), 1e-9);
    }
}

#[test]
fn knn_agrees_with_numpy() {
    let (bank, queries) = (cloud(300, 6, 0, 4, 0.6), cloud(200, 6, 5000, 4, 0.6));
    for (k, temperature, hits, checksum) in
        [(20, 0.07, 112, 20260), (200, 0.1, 101, 17397), (1, 0.07, 124, 25515), (300, 0.5, 82, 456)]
    {
        let knn = Knn { k, temperature };
        let predicted = knn.predict(&bank, &queries.x, 4).expect("classes");
        let sum: i64 = predicted.iter().zip(1..).map(|(class, place)| class * place).sum();
        assert_eq!(sum, checksum, "k = {k}");
        assert_eq!(right(knn.accuracy(&bank, &queries, 4).expect("a score"), 200), hits);
    }
}

#[test]
fn knn_decides_ties_by_place_and_class() {
    // Collapsed features: every similarity is equal, so the first k images vote.
    let bank = features(&[1.0; 12], 6, &[2, 1, 1, 0, 0, 0]);
    let class = |k, bank: &Features| {
        Knn { k, temperature: 0.07 }.predict(bank, &Tensor::from_slice(&[1f32, 1.0]).view([1, 2]), 3).expect("classes")
    };
    // Images 0; 0, 1 (a tie of classes 1 and 2); 0..3; 0..5 (a tie of 0 and 1); all.
    assert_eq!([1, 2, 3, 5, 6].map(|k| class(k, &bank)[0]), [2, 1, 1, 0, 0]);
    // One is nearer, two of the five others fill the places.
    let bank = features(&[1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 6, &[1, 1, 0, 2, 2, 2]);
    let knn = Knn { k: 3, temperature: 100.0 };
    assert_eq!(knn.predict(&bank, &Tensor::from_slice(&[1f32, 1.0]).view([1, 2]), 3).expect("classes"), [1]);
}

#[test]
fn neighbours_are_sorted_by_angle_and_ties_by_place() {
    // At angles of 0, 90, 180 and 45 degrees, of any length, and 45 again.
    let x = [[1f32, 0.0], [0.0, 9.0], [-2.0, 0.0], [3.0, 3.0], [1.0, 1.0]].concat();
    let bank = Features::new(Tensor::from_slice(&x).view([5, 2]), Tensor::zeros([5], (Kind::Int64, Device::Cpu)));
    let bank = bank.expect("features");
    let queries = Tensor::from_slice(&[0.5f32, 0.4, -1.0, 0.1]).view([2, 2]);
    let near = |k| Knn { k, ..Knn::default() }.neighbours(&bank, &queries);
    assert_eq!(near(5).expect("neighbours"), [[3, 4, 0, 1, 2], [2, 1, 3, 4, 0]]);
    assert_eq!(near(1).expect("neighbours"), [[3], [2]]);
    assert!(near(6).expect_err("five images").to_string().contains("6 neighbours"));
}

#[test]
fn knn_refuses_what_it_cannot_use() {
    let bank = features(&[1.0, 2.0, 3.0, 4.0], 2, &[0, 1]);
    let refused = |knn: Knn, classes| knn.accuracy(&bank, &bank, classes).expect_err("refused").to_string();
    assert!(refused(Knn::default(), 2).contains("20 neighbours but there are only 2"));
    assert!(refused(Knn { k: 0, temperature: 0.1 }, 2).contains("at least one neighbour"));
    assert!(refused(Knn { k: 1, temperature: 0.0 }, 2).contains("positive temperature"));
    assert!(refused(Knn { k: 1, temperature: 0.1 }, 1).contains("needs 2 classes"));
    let narrow = features(&[1.0, 2.0], 2, &[0, 1]);
    assert!(Knn { k: 1, temperature: 0.1 }.accuracy(&bank, &narrow, 2).is_err());
    assert!(serde_json::from_str::<Knn>(r#"{"neighbours": 1}"#).is_err());
}

#[test]
fn geometry_agrees_with_numpy() {
    let scale = Tensor::arange(9, (Kind::Float, Device::Cpu)) + 1.0;
    let x = cloud(70, 9, 200, 9, 0.5).x * scale + 0.3;
    let other = cloud(70, 9, 900, 9, 0.5).x;
    let ours = Geometry::of(&x, Some((&x, &other))).expect("a geometry");
    // Features are f32: relative roundings of 6e-8 in each, which no measure amplifies by more than 100.
    for (name, value) in ours.rows() {
        let golden = match name {
            "alignment" => 2.01538825,
            "uniformity" => -2.77198944,
            "effective_rank" => 7.77232784,
            "covariance_rank" => 7.74291291,
            "normalised_std" => 0.897169994,
            "feature_std" => 3.70497001,
            "correlation" => 0.0556276815,
            _ => 0.0,
        };
        close(name, value, golden, 6e-6);
    }
    assert_eq!(ours.rows().len(), 8);
    // More dimensions than images.
    let few = x.narrow(0, 0, 5);
    close("wide rank", geometry::effective_rank(&few).expect("a rank"), 4.15435828, 1e-5);
    close("wide covariance", geometry::covariance_rank(&few).expect("a rank"), 3.46250022, 1e-5);
}

#[test]
fn alignment_and_uniformity_of_sines() {
    // za[i, j] = sin(m + 1), zb[i, j] = cos(2 m + 1), m = 3 i + j; values from the same formulas in float64.
    let m = Tensor::arange(12, (Kind::Double, Device::Cpu)).view([4, 3]);
    let (a, b) = ((&m + 1.0).sin(), (&m * 2.0 + 1.0).cos());
    close("alignment", geometry::alignment(&a, &b).expect("a number"), 2.031927, 1e-6);
    close("uniformity", geometry::uniformity(&a).expect("a number"), -1.242020, 1e-6);
}

#[test]
fn geometry_of_known_shapes() {
    let identity = Tensor::eye(4, (Kind::Float, Device::Cpu)) * 3.0;
    // All distances are sqrt(2), all singular values equal; without the mean one direction is lost.
    close("uniformity", geometry::uniformity(&identity).expect("a number"), -4.0, 1e-6);
    close("rank", geometry::effective_rank(&identity).expect("a number"), 4.0, 1e-6);
    close("covariance", geometry::covariance_rank(&identity).expect("a number"), 3.0, 1e-6);
    close("alignment", geometry::alignment(&identity, &-&identity).expect("a number"), 4.0, 1e-6);
    // Corners of a square: an isotropic cloud, std per dimension of unit rows sqrt(4/3) / sqrt(2).
    let square = Tensor::from_slice(&[1f32, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0]).view([4, 2]);
    let shape = Geometry::of(&square, None).expect("a geometry");
    close("normalised std", shape.normalised_std, (4.0f64 / 3.0).sqrt(), 1e-6);
    close("feature std", shape.feature_std, (4.0f64 / 3.0).sqrt(), 1e-6);
    close("correlation", shape.correlation.expect("two dimensions"), 0.0, 1e-12);
    // Two dimensions that say the same, up to sign: a line.
    let line = Tensor::from_slice(&[1f32, -2.0, 2.0, -4.0, -3.0, 6.0]).view([3, 2]);
    let shape = Geometry::of(&line, None).expect("a geometry");
    close("correlation", shape.correlation.expect("two dimensions"), 1.0, 1e-12);
    close("rank", shape.effective_rank, 1.0, 1e-6);
}

#[test]
fn collapse_has_defined_values() {
    let point = Tensor::full([50, 8], 0.1, (Kind::Float, Device::Cpu));
    let shape = Geometry::of(&point, Some((&point, &point))).expect("a geometry");
    close("rank", shape.effective_rank, 1.0, 1e-6);
    // exp(-2 d^2) with squared distances of f32 unit rows, off by at most a few roundings.
    close("uniformity", shape.uniformity, 0.0, 1e-6);
    assert_eq!((shape.alignment, shape.covariance_rank, shape.correlation), (Some(0.0), 0.0, None));
    assert_eq!((shape.normalised_std, shape.feature_std, shape.constant_dimensions), (0.0, 0.0, 8));
    assert!(shape.rows().iter().all(|(name, value)| *name != "correlation" && value.is_finite()));
    let zero = Geometry::of(&point.zeros_like(), None).expect("a geometry");
    assert_eq!((zero.effective_rank, zero.uniformity, zero.normalised_std), (0.0, 0.0, 0.0));
}

#[test]
fn geometry_refuses_what_it_cannot_use() {
    let refused = |x: &Tensor| Geometry::of(x, None).expect_err("refused").to_string();
    let one = Tensor::ones([1, 4], (Kind::Float, Device::Cpu));
    assert!(refused(&one).contains("at least two, not 1"));
    assert!(refused(&one.view([4])).contains("not [4]"));
    assert!(refused(&Tensor::from_slice(&[1f32, f32::NAN]).view([2, 1])).contains("1 of 2 features are not finite"));
    assert!(geometry::alignment(&one, &one.view([4, 1])).is_err());
}

#[test]
fn uniformity_of_a_sphere() {
    // Closed form of the expectation: i.i.d. directions in D dimensions have mean of exp(4 cos - 4) = e^-4 0F1(D/2; 4).
    let rows: Vec<f64> = {
        let mut rng = selfsup_core::rng::Rng::new(0, selfsup_core::rng::Purpose::Sample, 0, 0, 0);
        (0..4000 * 16).map(|_| rng.normal()).collect()
    };
    let series: f64 =
        (0..40).fold((0.0, 1.0), |(sum, term), n| (sum + term, term * 4.0 / ((8.0 + n as f64) * (n as f64 + 1.0)))).0;
    let ours = geometry::uniformity(&Tensor::from_slice(&rows).view([4000, 16])).expect("a number");
    // A U-statistic over 4000 points: its standard error is below 2e-3.
    close("uniformity", ours, series.ln() - 4.0, 6e-3);
}
