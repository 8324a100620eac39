//! What a step costs beside the same arithmetic written with tch, on the parameters of a ResNet-18:
//! `cargo test --release -p selfsup-core --test optimiser -- --ignored --nocapture cost`.

use selfsup_core::ema::Ema;
use selfsup_core::optimiser::{Optimiser, OptimiserConfig};
use selfsup_core::store::{Init, Path, Role, Store, Variable};
use selfsup_core::{Device, Kind, Tensor, no_grad};

/// The 60 tensors (11.2 M values) of a ResNet-18 with a 3x3 stem and no classifier.
fn resnet18(path: &Path) {
    let conv = |name: String, output, input, kernel| {
        let _ = (path / name.as_str()).variable(
            "weight",
            &[output, input, kernel, kernel],
            Role::Weight,
            Init::Const(0.01),
        );
        for part in ["norm_weight", "norm_bias"] {
            let _ = (path / name.as_str()).variable(part, &[output], Role::NoDecay, Init::Const(0.5));
        }
    };
    conv("stem".into(), 64, 3, 3);
    let mut input = 64;
    for (stage, width) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            conv(format!("{stage}.{block}.1"), width, input, 3);
            conv(format!("{stage}.{block}.2"), width, width, 3);
            if input != width {
                conv(format!("{stage}.{block}.skip"), width, input, 1);
            }
            input = width;
        }
    }
}

/// The time that this thread has computed, in ms: unlike the clock, it does not count what other programs use.
fn computed() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells a thread's time");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds come first") / 1e6
}

/// The median of 21 runs, in ms of one thread.
fn time(mut f: impl FnMut()) -> f64 {
    let run = |_| {
        let start = computed();
        f();
        computed() - start
    };
    let mut times: Vec<f64> = (0..21).map(run).collect();
    times.sort_by(f64::total_cmp);
    times[10]
}

fn zeros(variables: &[Variable]) -> Vec<Tensor> {
    variables.iter().map(|v| v.tensor.detach().zeros_like()).collect()
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    tch::set_num_threads(1);
    let store = Store::new(0, Device::Cpu);
    resnet18(&(store.root() / "online"));
    resnet18(&(store.root().frozen() / "target"));
    let variables = store.trainable();
    assert_eq!((variables.len(), store.parameters()), (60, 11_168_832));
    Tensor::stack(&variables.iter().map(|v| v.tensor.square().sum(Kind::Float)).collect::<Vec<_>>(), 0)
        .sum(Kind::Float)
        .backward();

    let ours = |text: &str| {
        let config: OptimiserConfig = toml::from_str(text).expect("a configuration");
        let mut optimiser = Optimiser::new(&config, store.trainable()).expect("an optimiser");
        time(|| optimiser.step(1e-6, 1e-6).expect("a step"))
    };
    let each = |f: &mut dyn FnMut(usize, &mut Tensor, Tensor)| {
        no_grad(|| {
            variables.iter().enumerate().for_each(|(i, v)| f(i, &mut v.tensor.shallow_clone(), v.tensor.grad()))
        });
    };
    let (mut u, mut m, mut s) = (zeros(&variables), zeros(&variables), zeros(&variables));

    let naive = time(|| {
        each(&mut |i, p, g| {
            let g = g + &*p * 1e-4;
            let _ = u[i].g_mul_scalar_(0.9).g_add_(&g);
            let _ = p.g_sub_(&(&u[i] * 1e-6));
        });
    });
    println!("SGD    {:5.1} ms, by hand {naive:5.1} ms", ours("name = 'sgd'\nrate = 1\ndecay = 1e-4"));

    let naive = time(|| {
        each(&mut |i, p, g| {
            let _ = p.g_mul_scalar_(1.0 - 1e-8);
            let _ = m[i].g_mul_scalar_(0.9).g_add_(&(&g * 0.1));
            let _ = s[i].g_mul_scalar_(0.999).g_add_(&(g.square() * 1e-3));
            let _ = p.g_sub_(&(&m[i] / (s[i].sqrt() + 1e-8) * 1e-6));
        });
    });
    println!("AdamW  {:5.1} ms, by hand {naive:5.1} ms", ours("name = 'adamw'\nrate = 1\ndecay = 1e-2"));

    let naive = time(|| {
        each(&mut |i, p, mut g| {
            if p.dim() > 1 {
                g += &*p * 1e-4;
                let ratio = 1e-3 * p.norm().double_value(&[]) / g.norm().double_value(&[]);
                let _ = g.g_mul_scalar_(ratio);
            }
            let _ = u[i].g_mul_scalar_(0.9).g_add_(&g);
            let _ = p.g_sub_(&(&u[i] * 1e-6));
        });
    });
    println!("LARS   {:5.1} ms, by hand {naive:5.1} ms", ours("name = 'lars'\nrate = 1\ndecay = 1e-4"));

    let (online, target) = (store.below("online"), store.below("target"));
    let naive = time(|| {
        no_grad(|| {
            for (o, t) in online.iter().zip(&target) {
                let _ = t.tensor.shallow_clone().g_mul_scalar_(0.99).g_add_(&(&o.tensor * 0.01));
            }
        });
    });
    let ema = Ema::new(&store, "online", "target").expect("a pair");
    println!("EMA    {:5.1} ms, by hand {naive:5.1} ms", time(|| ema.update(0.99)));
}
