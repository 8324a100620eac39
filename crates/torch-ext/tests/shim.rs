//! The shim against plain arithmetic, and what it refuses.

use selfsup_torch_ext as ext;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// The kind that a linear layer and a convolution give.
fn kinds() -> [Kind; 2] {
    let linear = Tensor::ones([2, 3], F32).linear::<&Tensor>(&Tensor::ones([4, 3], F32), None);
    let image = Tensor::ones([1, 2, 5, 5], F32);
    let conv = image.conv2d::<&Tensor>(&Tensor::ones([3, 2, 3, 3], F32), None, [1, 1], [0, 0], [1, 1], 1);
    [linear.kind(), conv.kind()]
}

const PLAIN: [Kind; 2] = [Kind::Float; 2];
const HALF: [Kind; 2] = [Kind::BFloat16; 2];

#[test]
fn autocast_is_on_under_its_guard_only() {
    assert_eq!(kinds(), PLAIN);
    {
        let _guard = ext::autocast(Device::Cpu, true);
        assert_eq!(kinds(), HALF);
        {
            let _island = ext::without_autocast(Device::Cpu);
            assert_eq!(kinds(), PLAIN);
            let _inner = ext::autocast(Device::Cpu, true);
            assert_eq!(kinds(), HALF);
        }
        assert_eq!(kinds(), HALF);
        // The setting belongs to a thread.
        assert_eq!(std::thread::spawn(kinds).join().expect("a thread"), PLAIN);
    }
    assert_eq!(kinds(), PLAIN);
}

#[test]
fn autocast_ends_with_a_panic() {
    let run = std::panic::catch_unwind(|| {
        let _guard = ext::autocast(Device::Cpu, true);
        assert_eq!(kinds(), PLAIN, "this must fail");
    });
    assert!(run.is_err());
    assert_eq!(kinds(), PLAIN);
}

#[test]
fn gradients_pass_through_autocast_in_f32_and_weights_are_cast_anew() {
    let mut w = Tensor::ones([4, 3], F32).set_requires_grad(true);
    let forward = |w: &Tensor| {
        let _guard = ext::autocast(Device::Cpu, true);
        Tensor::ones([2, 3], F32).linear::<&Tensor>(w, None).to_kind(Kind::Float).sum(Kind::Float)
    };
    let loss = forward(&w);
    loss.backward();
    assert_eq!(w.grad(), Tensor::full([4, 3], 2.0, F32));
    // The cache of cast weights must not outlive the guard.
    tch::no_grad(|| drop(w.g_mul_scalar_(2.0)));
    assert_eq!(forward(&w).double_value(&[]), 2.0 * loss.double_value(&[]));
}

// One test for all that draws from the process' one generator: tests of a file run side by side.
#[test]
fn seeds_and_states_repeat_draws() {
    let draw = || Tensor::randn([16], F32);
    ext::seed(u64::MAX);
    let first = draw();
    let state = ext::generator_state(Device::Cpu).expect("the CPU has a generator");
    let second = [draw(), draw()];
    ext::set_generator_state(Device::Cpu, &state).expect("its own state");
    assert_eq!([draw(), draw()], second);
    ext::seed(u64::MAX);
    assert_eq!(draw(), first);
    assert_ne!(second[0], first);
    let wrong = ext::set_generator_state(Device::Cpu, &Tensor::zeros([3], (Kind::Uint8, Device::Cpu)));
    assert!(format!("{:#}", wrong.expect_err("three bytes are no state")).contains("generator of Cpu"));
}

/// Values of several shapes, the 4-D one with channels last; f64 values that f32 holds.
fn list(seed: f64, positive: bool) -> Vec<Tensor> {
    let make = |k: usize, shape: &[i64]| {
        let n: i64 = shape.iter().product();
        let value = |i: i64| (seed + 0.9 * i as f64 + k as f64).sin();
        let values: Vec<f32> = (0..n).map(|i| if positive { value(i).abs() } else { value(i) } as f32).collect();
        Tensor::from_slice(&values).view(shape)
    };
    let image = make(0, &[3, 4, 4, 2]).permute([0, 3, 1, 2]);
    vec![image, make(1, &[37, 5]), make(2, &[11]), make(3, &[]), make(4, &[2, 1, 3, 3])]
}

fn doubles(tensors: &[Tensor]) -> Vec<Vec<f64>> {
    let one = |t: &Tensor| Vec::try_from(t.to_kind(Kind::Double).contiguous().view(-1)).expect("numbers");
    tensors.iter().map(one).collect()
}

/// Calls `f` with places of all values.
fn each(shape: &[Vec<f64>], mut f: impl FnMut(usize, usize)) {
    shape.iter().enumerate().for_each(|(t, values)| (0..values.len()).for_each(|i| f(t, i)));
}

fn close(ours: &[Tensor], theirs: &[Vec<f64>], what: &str) {
    let ours = doubles(ours);
    // Values below 2 in f32 after three steps of about five roundings of 6e-8 each.
    each(theirs, |t, i| {
        let error = (ours[t][i] - theirs[t][i]).abs();
        assert!(error < 3.0 * 5.0 * 2.0 * 6e-8, "{what}, tensor {t}, value {i}: off by {error}");
    });
}

#[test]
fn sgd_equals_a_loop_in_f64() {
    for (momentum, nesterov, decay) in [(0.9, false, 0.0), (0.9, false, 0.1), (0.9, true, 0.1), (0.0, false, 0.1)] {
        let params = list(0.0, false);
        let buffers: Vec<Tensor> = params.iter().map(Tensor::zeros_like).collect();
        let buffers = if momentum == 0.0 { &[][..] } else { &buffers };
        let (mut p, mut u) = (doubles(&params), doubles(&params));
        each(&p, |t, i| u[t][i] = 0.0);
        for step in 0..3 {
            let rate = 0.1 / (step + 1) as f64;
            let grads = list(5.0 + step as f64, false);
            ext::sgd_(&params, &grads, buffers, ext::Sgd { rate, momentum, nesterov, decay }).expect("a step");
            let g = doubles(&grads);
            each(&g, |t, i| {
                let d = g[t][i] + decay * p[t][i];
                u[t][i] = momentum * u[t][i] + d;
                p[t][i] -= rate * if nesterov { d + momentum * u[t][i] } else { u[t][i] };
            });
        }
        close(&params, &p, "parameters");
        if momentum > 0.0 {
            close(buffers, &u, "buffers");
        }
    }
}

#[test]
fn adamw_equals_a_loop_in_f64() {
    for decay in [0.0, 0.1] {
        let params = list(0.0, false);
        let zeros = || params.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
        let (means, squares) = (zeros(), zeros());
        let steps: Vec<Tensor> = params.iter().map(|_| Tensor::zeros([] as [i64; 0], F32)).collect();
        let (mut p, mut m, mut v) = (doubles(&params), doubles(&means), doubles(&squares));
        let ([b1, b2], eps) = ([0.9, 0.99], 1e-8);
        for step in 0..3 {
            let rate = 0.1 / (step + 1) as f64;
            // Positive and away from 0 in the mean, so that no second moment is of the size of eps.
            let grads = list(5.0 + step as f64, true);
            let with = ext::AdamW { rate, betas: [b1, b2], eps, decay };
            ext::adamw_(&params, &grads, &means, &squares, &steps, with).expect("a step");
            let (g, n) = (doubles(&grads), step + 1);
            each(&g, |t, i| {
                m[t][i] = b1 * m[t][i] + (1.0 - b1) * g[t][i];
                v[t][i] = b2 * v[t][i] + (1.0 - b2) * g[t][i] * g[t][i];
                let (mean, square) = (m[t][i] / (1.0 - b1.powi(n)), v[t][i] / (1.0 - b2.powi(n)));
                p[t][i] -= rate * decay * p[t][i] + rate * mean / (square.sqrt() + eps);
            });
        }
        close(&params, &p, "parameters");
        assert!(steps.iter().all(|t| t.double_value(&[]) == 3.0));
    }
}

#[test]
fn lists_are_interpolated_added_and_scaled() {
    let (a, b) = (list(0.0, false), list(1.0, false));
    let (x, y) = (doubles(&a), doubles(&b));
    let check = |f: &dyn Fn(f64, f64) -> f64, what| {
        let mut expected = x.clone();
        each(&x, |t, i| expected[t][i] = f(x[t][i], y[t][i]));
        close(&a, &expected, what);
    };
    ext::lerp_(&a, &b, 0.25).expect("an interpolation");
    check(&|x, y| 0.75 * x + 0.25 * y, "lerp");
    ext::add_(&a, &b, -0.25).expect("an addition");
    check(&|x, _| 0.75 * x, "add");
    let two = Tensor::from(2.0f32);
    ext::mul_(&a, &a.iter().map(|_| two.shallow_clone()).collect::<Vec<_>>()).expect("a multiplication");
    check(&|x, _| 1.5 * x, "mul");
    ext::scale_(&a, &(&two / 3.0)).expect("a scaling");
    check(&|x, _| x, "scale");
    for (norm, values) in ext::norms(&a).expect("norms").iter().zip(&x) {
        let expected = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((norm.double_value(&[]) - expected).abs() < 1e-5 * expected.max(1.0));
    }
    assert!(ext::norms(&[]).expect("no norms").is_empty());
}

#[test]
fn tensors_that_disagree_are_refused_and_left_alone() {
    let with = ext::Sgd { rate: 0.1, momentum: 0.9, nesterov: false, decay: 0.0 };
    let nchw = || Tensor::ones([2, 3, 4, 5], F32);
    let nhwc = || Tensor::ones([2, 4, 5, 3], F32).permute([0, 3, 1, 2]);
    let refused = |p: Tensor, g: Tensor, u: Tensor, word: &str| {
        let before = p.copy();
        assert!(!ext::same_layout(&p, &g) || !ext::same_layout(&p, &u));
        let result = ext::sgd_(&[p.shallow_clone()], &[g], &[u], with);
        let error = format!("{:#}", result.expect_err(word));
        assert!(error.contains(word), "{error}");
        assert_eq!(p, before);
    };
    refused(nchw(), nhwc(), nchw(), "strides");
    refused(nhwc(), nhwc(), nchw(), "strides");
    refused(nchw(), Tensor::ones([2, 3, 4, 6], F32), nchw(), "shape");
    refused(nchw(), nchw().to_kind(Kind::Double), nchw(), "kind");
    refused(nchw(), Tensor::new(), nchw(), "undefined");
    let gaps = || Tensor::ones([4, 4], F32).slice(1, 0, 3, 1);
    refused(gaps(), gaps(), gaps(), "not dense");
    let short = ext::sgd_(&[nchw(), nchw()], &[nchw()], &[], with).expect_err("a gradient is missing");
    assert!(format!("{short:#}").contains("2 parameters but 1 gradients"));
    let halfway = ext::adamw_(
        &[nchw()],
        &[nchw()],
        &[nchw()],
        &[nhwc()],
        &[Tensor::zeros([1], F32)],
        ext::AdamW { rate: 0.1, betas: [0.9, 0.999], eps: 1e-8, decay: 0.0 },
    );
    assert!(format!("{:#}", halfway.expect_err("strides")).contains("second moments"));
    // Strides of dimensions of size 1 say nothing.
    let one = Tensor::ones([4, 1, 3, 3], F32);
    assert!(ext::same_layout(&one, &one.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])));
}

#[test]
fn gradients_are_taken_away() {
    let w = Tensor::ones([2], F32).set_requires_grad(true);
    w.sum(Kind::Float).backward();
    assert!(w.grad().defined());
    ext::clear_grads(&[w.shallow_clone()]).expect("cleared");
    assert!(!w.grad().defined());
}

#[test]
fn a_device_that_is_not_there_is_named() {
    ext::init(Device::Cpu).expect("the CPU");
    assert!(ext::init(Device::Mps).is_err());
    // Machines with CUDA have fewer devices than this; the others lack the library or the driver.
    let error = ext::init(Device::Cuda(99)).expect_err("no such device").to_string();
    assert!(["libtorch_cuda.so", "cuda:99"].iter().any(|word| error.contains(word)), "{error}");
    assert!(ext::generator_state(Device::Cuda(99)).is_err());
    ext::synchronize(Device::Cpu).expect("nothing to wait for");
    assert_eq!(ext::memory(Device::Cpu).expect("nothing to count"), None);
    ext::reset_peak_memory(Device::Cpu).expect("nothing to reset");
}

#[test]
fn settings_are_taken() {
    ext::tf32(true).and_then(|()| ext::tf32(false)).expect("TF32 can be set");
    assert!(ext::threads(0).is_err());
    ext::threads(1).expect("one thread");
    assert_eq!(tch::get_num_threads(), 1);
    if !tch::Cuda::is_available() {
        ext::deterministic(true).and_then(|()| ext::deterministic(false)).expect("determinism can be set");
    }
}
