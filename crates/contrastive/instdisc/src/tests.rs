//! The full softmax and NCE against PyTorch (`tests/golden.py`), closed forms, and what the store remembers.

use super::*;
use selfsup_core::golden::{self, AT, against_golden, close, given, leaf, matrix, number};
use selfsup_core::store::Store;
use selfsup_core::{Device, no_grad};

/// `index` of golden.py.
fn index(b: i64, n: i64) -> Tensor {
    Tensor::from_slice(&(0..b).map(|i| (7 * i + 3) % n).collect::<Vec<i64>>())
}

/// `negatives` of golden.py.
fn negatives(b: i64, m: i64, n: i64) -> Tensor {
    Tensor::from_slice(&(0..b * m).map(|i| (5 * i * i + 2 * i) % n).collect::<Vec<i64>>()).view([b, m])
}

/// Differs by rounding in f32, of numbers of about 1.
fn near(a: &Tensor, b: &Tensor) {
    assert!(number(&(a - b).abs().max()) < 1e-5, "{a:?} {b:?}");
}

fn objective(t: f64, a: &Tensor, bank: &Tensor, i: &Tensor, j: Option<&Tensor>) -> Result<Tensor> {
    let tensors = [("a", Some(a)), ("bank", Some(bank)), ("index", Some(i)), ("negatives", j)];
    let given = tensors.into_iter().filter_map(|(name, x)| Some((name.to_string(), x?.shallow_clone())));
    InstDisc::objective(&Config { temperature: t, ..Config::default() }, &Given::new(given))
}

const N: usize = 12;

fn build(store: &Store, negatives: usize) -> InstDisc {
    let config = Config { negatives, output: 8, ..Config::default() };
    InstDisc::new(config, &golden::setup(store, "convnet-tiny", N)).expect("a method")
}

fn batch(epoch: u64) -> Batch {
    Batch::new(golden::views(4, &[0.1]), vec![5, 0, 11, 3], 0, epoch)
}

fn bank(method: &InstDisc) -> &Bank {
    let Rows::Bank(bank) = &method.rows else { panic!("without `parametric` there is a bank") };
    bank
}

/// v of a batch, with the statistics of the batch.
fn embeddings(method: &InstDisc, batch: &Batch) -> Tensor {
    no_grad(|| method.network.project(&batch.views[0].x, true))
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 5, 1, 0.5, 2.80839249741, [1.912178644522e-01, 7.485441010358e-02, 1.457831276986e-01, 4.826532639057e-01]),
    (2, 3, 5, 1, 0.5, 2.604849809, [2.945222585244e-01, 5.334653202433e-03, 8.260450739898e-02, 3.816809634476e-01]),
    (8, 5, 40, 7, 0.1, 7.86614385893, [3.911534249172e-01, -2.441417876314e-01, 3.214330494300e-01, 1.516366237701e+00]),
    (8, 5, 40, 7, 0.1, 6.12089369749, [1.154619779568e-01, -1.847835835414e-01, 2.756228019103e-01, 1.372946953139e+00]),
    (32, 16, 100, 64, 0.07, 20.1165020727, [8.994923680273e-02, 3.148095984273e-02, -2.707304199588e-02, 1.269684332985e+00]),
    (32, 16, 100, 64, 0.07, 21.4723256473, [8.743466810088e-02, 3.126627259740e-02, -2.863947319228e-02, 1.223196874395e+00]),
    ];
    for (row, (b, d, n, m, t, expected, gradient)) in golden.into_iter().enumerate() {
        let (a, bank) = (leaf(0.2, b, d), matrix(0.5, n, d) / 2.0);
        let negatives = (row % 2 == 1).then(|| negatives(b, m, n)); // the softmax and NCE in turn
        let loss = objective(t, &a, &bank, &index(b, n), negatives.as_ref()).expect("a loss");
        against_golden(&loss, [&a], expected, [gradient]);
    }
}

#[test]
fn the_parametric_softmax_is_pytorchs_too() {
    #[rustfmt::skip]
    let golden = [
    (2, 3, 5, 3.27524153441, [[4.245285257563e-01, 8.665808417167e-01, -4.362819354764e-01, 1.304617445307e+00], [3.389256832725e-01, -1.375111895707e-01, -6.437371537560e-01, 1.062943522728e+00]]),
    (8, 5, 40, 4.10292424091, [[1.166764590922e-01, 4.125107754634e-02, 4.672585237649e-02, 5.712343690235e-01], [1.397613455553e-03, 1.536865561172e-02, -1.229382065576e-02, 6.379934872325e-01]]),
    (32, 16, 100, 8.5255680206, [[4.513009676968e-02, 5.177532854113e-02, -4.221092215009e-02, 6.725166448190e-01], [1.283568028833e-02, 3.881186017566e-02, -2.588661974288e-02, 6.369992610605e-01]]),
    ];
    let config = Config { parametric: true, negatives: 0, ..Config::default() };
    for (b, d, n, expected, gradients) in golden {
        let (a, w) = (leaf(0.2, b, d), leaf(0.5, n, d));
        let given = given(&[("a", &a), ("bank", &w), ("index", &index(b, n))]);
        let loss = InstDisc::objective(&config, &given).expect("a loss");
        against_golden(&loss, [&a, &w], expected, gradients);
    }
}

#[test]
fn the_parametric_softmax_trains_a_weight_for_each_image_and_has_no_bank() {
    let store = Store::new(0, Device::Cpu);
    let config = Config { parametric: true, negatives: 0, output: 8, ..Config::default() };
    let mut method = InstDisc::new(config, &golden::setup(&store, "convnet-tiny", N)).expect("a method");
    let weights = store.variables().into_iter().find(|v| v.name == "weights").expect("weights").tensor;
    assert_eq!(weights.size(), [N as i64, 8]);
    assert!(store.variables().iter().all(|v| !v.name.starts_with("bank")));
    let batch = batch(0);
    let loss = method.loss(&batch, AT);
    let expected = cross_entropy(&embeddings(&method, &batch).matmul(&weights.tr()), &batch.places());
    near(&loss.total, &expected);
    loss.total.backward();
    assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
    assert_eq!(loss.parts.iter().map(|part| part.0).collect::<Vec<_>>(), ["accuracy"]);
}

#[test]
fn closed_forms() {
    let ones = |n: i64| Tensor::ones([n, 4], (Kind::Double, Device::Cpu));
    for n in [2, 5, 30] {
        // All rows equal: the softmax is uniform.
        close(
            number(&objective(0.07, &ones(3), &(ones(n) / 2.0), &index(3, n), None).expect("a loss")),
            (n as f64).ln(),
        );
        for m in [1, 3, 8] {
            // Equal scores and Z = n e^s / m give P = m P_n: h = 1/2 for the image and each negative. The 1e-7 moves
            // each of 1 + m logarithms by 1e-7 / (2 m / n) at most.
            let s = Tensor::full([3, 1 + m], 0.8, (Kind::Double, Device::Cpu));
            let log_z = Tensor::from(0.8 + (n as f64 / m as f64).ln());
            let error = number(&nce(&s, &log_z, n as usize)) - (1 + m) as f64 * 2f64.ln();
            assert!(error.abs() < 1e-7 * n as f64, "{error}");
            // Z of these tensors is n e^s, so P = 1/n and h = 1 / (1 + m).
            let value =
                number(&objective(0.5, &ones(3), &ones(n), &index(3, n), Some(&negatives(3, m, n))).expect("a loss"));
            let m = m as f64;
            let expected = (1.0 + m).ln() + m * ((1.0 + m) / m).ln();
            assert!((value - expected).abs() < 1e-7 * n as f64 * (1.0 + m), "{value} is not {expected}");
        }
    }
    // Three negatives and h = 1/2: 4 ln 2, the reference value with six decimals.
    let s = Tensor::zeros([2, 4], (Kind::Double, Device::Cpu));
    assert!((number(&nce(&s, &Tensor::from((5.0f64 / 3.0).ln()), 5)) - 2.772589).abs() < 1e-6);
}

#[test]
fn small_temperatures_stay_finite() {
    let (a, bank) = (matrix(0.2, 4, 3).to_kind(Kind::Float), matrix(0.5, 6, 3).to_kind(Kind::Float));
    let a = a.set_requires_grad(true);
    for negatives in [None, Some(negatives(4, 5, 6))] {
        let loss = objective(1e-3, &a, &bank, &index(4, 6), negatives.as_ref()).expect("a loss");
        let gradient = Tensor::run_backward(&[&loss], &[&a], false, false).remove(0);
        assert!(number(&loss).is_finite() && number(&gradient.norm()).is_finite(), "{loss:?}");
    }
}

#[test]
fn the_bank_is_read_before_it_is_written_and_holds_the_new_rows() {
    for negatives in [0, 6] {
        let store = Store::new(0, Device::Cpu);
        let mut method = build(&store, negatives);
        let (batch, old) = (batch(0), bank(&method).rows());
        let i = batch.places();
        let loss = method.loss(&batch, AT);
        let v = embeddings(&method, &batch);
        let j = (negatives > 0).then(|| method.negatives(&batch));
        let expected = objective(0.07, &v, &old, &i, j.as_ref()).expect("a loss");
        // f32 rounds scores of up to 1 / temperature, by 1e-6 each, and there are seven.
        assert!((number(&loss.total) - number(&expected)).abs() < 2e-5, "{:?} {expected:?}", loss.total);
        loss.total.backward(); // after the update: the graph holds the rows as they were
        assert!(store.trainable().iter().all(|v| number(&v.tensor.grad().norm()) > 0.0));
        let new = bank(&method).rows();
        near(&new.index_select(0, &i), &normalise(&(old.index_select(0, &i) * 0.5 + normalise(&v) * 0.5)));
        let others = Tensor::from_slice(&[1i64, 2, 4, 6, 7, 8, 9, 10]);
        assert_eq!(new.index_select(0, &others), old.index_select(0, &others));
        assert!(!new.requires_grad());
    }
}

#[test]
fn z_is_that_of_the_first_batch_for_good_and_lies_in_the_store() {
    let store = Store::new(0, Device::Cpu);
    let mut method = build(&store, 6);
    let kept = || store.variables().into_iter().find(|v| v.name == "log_z").expect("log Z").tensor.copy();
    assert_eq!(kept(), Tensor::from_slice(&[0.0f32, 0.0]));
    let (first, rows) = (batch(0), bank(&method).rows());
    let s = scores(
        &normalise(&embeddings(&method, &first)),
        |places| rows.index_select(0, places),
        &first.places(),
        &method.negatives(&first),
        0.07,
    );
    let naive = number(&s.to_kind(Kind::Double).exp().mean(None)) * N as f64;
    let _loss = method.loss(&first, AT);
    let known = kept();
    assert_eq!(known.double_value(&[0]), 1.0);
    assert!((known.double_value(&[1]) - naive.ln()).abs() < 1e-5, "{known:?} {naive}");
    let loss = method.loss(&batch(1), AT);
    assert_eq!(kept(), known);
    assert_eq!(number(&loss.parts[1].1), known.double_value(&[1]));
    // The full softmax needs none.
    let store = Store::new(0, Device::Cpu);
    build(&store, 0);
    assert!(store.variables().iter().all(|v| v.name != "log_z"));
}

#[test]
fn negatives_are_uniform_over_all_images_and_of_the_epoch() {
    let method = build(&Store::new(0, Device::Cpu), 6000);
    let drawn = method.negatives(&batch(0));
    assert_eq!(drawn.size(), [4, 6000]);
    assert_eq!(drawn, method.negatives(&batch(0)));
    assert_ne!(drawn, method.negatives(&batch(1)));
    let counts = drawn.flatten(0, 1).bincount::<Tensor>(None, N as i64).to_kind(Kind::Double);
    // 24000 draws in 12 bins: 2000 each, with a standard deviation of 43; five of them.
    assert_eq!(counts.size(), [N as i64]);
    assert!(number(&(counts - 2000.0).abs().max()) < 215.0);
}

#[test]
fn accuracy_is_the_share_of_images_whose_own_row_comes_first() {
    for negatives in [0, 6] {
        let mut method = build(&Store::new(0, Device::Cpu), negatives);
        let batch = batch(0);
        let v = normalise(&embeddings(&method, &batch));
        let bank = Tensor::zeros([N as i64, 8], (Kind::Float, Device::Cpu));
        self::bank(&method).set(&bank.index_copy(0, &batch.places(), &v));
        let loss = method.loss(&batch, AT);
        assert_eq!(loss.parts[0].0, "accuracy");
        close(number(&loss.parts[0].1), 1.0);
        self::bank(&method).set(&bank.index_copy(0, &batch.places(), &-v));
        close(number(&method.loss(&batch, AT).parts[0].1), 0.0);
    }
}

#[test]
fn outputs_have_their_shapes() {
    let method = build(&Store::new(0, Device::Cpu), 0);
    let batch = batch(0);
    assert_eq!(method.features(&batch.views[0].x, false).size(), [4, 128]);
    assert_eq!(method.embedding(&batch.views[0].x).expect("an embedding").size(), [4, 8]);
    assert_eq!(method.views().len(), 1);
}

#[test]
fn unusable_numbers_are_refused() {
    let refused = |config: Config| InstDisc::check(&config).expect_err("a refusal").to_string();
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(Config { temperature, ..Config::default() }).starts_with("temperature is"));
    }
    assert!(refused(Config { tau: 1.5, ..Config::default() }).starts_with("tau is 1.5"));
    assert!(refused(Config { output: 0, ..Config::default() }).starts_with("output is 0"));
    assert!(refused(Config { parametric: true, ..Config::default() }).starts_with("negatives is 4096"));
    let (a, bank) = (leaf(0.2, 4, 3), leaf(0.5, 6, 3));
    let says = |i: &Tensor, j: Option<&Tensor>, words: &str| {
        let error = objective(0.1, &a, &bank, i, j).expect_err("a refusal").to_string();
        assert!(error.contains(words), "{error}");
    };
    says(&index(3, 6), None, "`index` has 3 entries");
    says(&(index(4, 6) + 6), None, "expected 0 to 5");
    says(&index(4, 6), Some(&negatives(3, 2, 6)), "expected [4, m]");
    says(&index(4, 6), Some(&(negatives(4, 2, 6) + 6)), "expected 0 to 5");
}
