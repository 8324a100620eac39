//! Two processes against what one knows: this program starts itself twice.

use selfsup_torch_ext::{Group, Meeting, Reducer, RunningMoments, clear_grads};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const RANK: &str = "SELFSUP_TEST_RANK";
const PORT: &str = "SELFSUP_TEST_PORT";
const SIZE: usize = 2;

fn join(rank: usize, port: u16, meet: u64) -> anyhow::Result<Group> {
    Group::join(&Meeting {
        rank,
        size: SIZE,
        address: "127.0.0.1".into(),
        port,
        served: false,
        name: "test".into(),
        meet: Duration::from_secs(meet),
        timeout: Duration::from_secs(30),
    })
}

/// Runs `part` in two processes, each of which comes here again through the test of this name.
fn twice(test: &str, part: fn(Group)) {
    if let Ok(rank) = std::env::var(RANK) {
        let port = std::env::var(PORT).expect("a port").parse().expect("a number");
        tch::set_num_threads(1);
        return part(join(rank.parse().expect("a number"), port, 30).expect("the other process is there"));
    }
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let program = std::env::current_exe().expect("this program");
    let children = [0, 1].map(|rank: usize| {
        let mut command = Command::new(&program);
        command.args(["--exact", test, "--nocapture"]).env(RANK, rank.to_string()).env(PORT, port.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    });
    for child in children {
        let output = child.wait_with_output().expect("a process ends");
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
    }
}

/// Numbers between -1 and 1, the same on every rank.
fn numbers(phase: f64, shape: &[i64]) -> Tensor {
    let n: i64 = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|m| (1.3 * (m * m) as f64 + phase).sin() as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// The rows of `x` that a rank has.
fn own(group: &Group, x: &Tensor) -> Tensor {
    let n = x.size()[0] / SIZE as i64;
    x.narrow(0, group.rank() as i64 * n, n)
}

fn away(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn leaf(x: &Tensor) -> Tensor {
    x.detach().copy().set_requires_grad(true)
}

#[test]
fn collectives_are_their_formulas() {
    twice("collectives_are_their_formulas", |group| {
        let rank = group.rank() as i64;
        for kind in [Kind::Float, Kind::Double, Kind::Int64, Kind::BFloat16] {
            let make = |x: i64| Tensor::from_slice(&[x, 10 * x, -x]).to_kind(kind);
            let (sum, max, first) = (make(1 + rank), make(1 + rank), make(1 + rank));
            group.sum_(&[sum.shallow_clone(), Tensor::from(1.0f32)]).expect("a sum of two kinds");
            group.max_(&[max.shallow_clone()]).expect("a maximum");
            group.broadcast_(&[first.shallow_clone()]).expect("a broadcast");
            assert_eq!(sum, make(3));
            assert_eq!(max, Tensor::from_slice(&[2i64, 20, -1]).to_kind(kind));
            assert_eq!(first, make(1));
            assert_eq!(group.gather(&make(1 + rank)).expect("a gather"), Tensor::cat(&[make(1), make(2)], 0));
        }
        // Four gathers of three values of 4, 8, 8 and 2 bytes.
        let given = group.given().into_iter().find(|given| given.what == "gather").expect("an act of this name");
        assert_eq!((given.times, given.bytes), (4, 3 * 22));
        // Neither layout nor emptiness is an obstacle.
        let turned = numbers(0.1, &[2, 3]).tr();
        group.sum_(&[turned.shallow_clone(), Tensor::zeros([0], (Kind::Float, Device::Cpu))]).expect("a sum");
        assert_eq!(turned, numbers(0.1, &[2, 3]).tr() * 2.0);
        let said = group.exchange(&vec![rank as u8; 3 * rank as usize]).expect("an exchange");
        assert_eq!(said, [vec![], vec![1, 1, 1]]);
        assert_eq!(group.exchange(b"").expect("an exchange of nothing"), [Vec::<u8>::new(), Vec::new()]);
    });
}

/// The gradient of a parameter before the gather, of one behind it and of one beside it, averaged over the ranks, are
/// those of one process with all rows.
#[test]
fn gradients_pass_through_gathers_and_sums() {
    twice("gradients_pass_through_gathers_and_sums", |group| {
        let (x, c) = (numbers(0.1, &[4, 3]), numbers(0.2, &[4, 2]));
        // Of z = x w, all rows: pairwise products, weighed by v; and of each row alone with u.
        let loss = |z: &Tensor, all: &Tensor, c: &Tensor, u: &Tensor, v: &Tensor| {
            (all.matmul(&all.tr()).square() * v).mean(None) + (z * c * u).mean(None)
        };
        let make = || [leaf(&numbers(0.3, &[3, 2])), leaf(&numbers(0.4, &[2])), leaf(&numbers(0.5, &[4, 4]))];
        let [w, u, v] = make();
        let z = x.matmul(&w);
        let whole = loss(&z, &z, &c, &u, &v);
        whole.backward();

        let parts = make();
        let (idle, half, late) =
            (leaf(&numbers(0.6, &[5])), leaf(&numbers(0.7, &[2])), leaf(&numbers(0.8, &[1000, 700])));
        let all: Vec<Tensor> = parts.iter().chain([&late, &idle, &half]).map(Tensor::shallow_clone).collect();
        let reducer = Reducer::new(&group, &all).expect("a reducer");
        for (round, while_it_runs) in [false, true, true, true].into_iter().enumerate() {
            clear_grads(&all).expect("gradients can go");
            let z = own(&group, &x).matmul(&parts[0]);
            let gathered = group.gather(&z).expect("a gather");
            let mut part = loss(&z, &gathered, &own(&group, &c), &parts[1], &parts[2]);
            if group.rank() == 1 {
                part += half.sum(None);
            }
            if round > 1 {
                part += late.sum(None);
            }
            if while_it_runs {
                reducer.backward(&part).expect("a pass");
            } else {
                part.backward();
                group.average_gradients(&all).expect("averages");
            }
            for (one, part) in [&w, &u, &v].iter().zip(&parts) {
                // Sums of a dozen products of numbers of about 1, each rounded to 6e-8.
                let error = away(&one.grad(), &part.grad());
                assert!(error < 1e-6, "{error}");
            }
            assert!(!idle.grad().defined(), "nobody used it");
            assert_eq!(half.grad(), Tensor::from_slice(&[0.5f32, 0.5]), "one of two ranks used it");
            assert_eq!(late.grad().defined(), round > 1);
        }

        let s = leaf(&own(&group, &x));
        let total = group.sum(&s.sum_dim_intlist([0].as_slice(), false, None)).expect("a sum");
        assert!(away(&total, &x.sum_dim_intlist([0].as_slice(), false, None)) < 1e-6);
        ((group.rank() + 1) as f64 * total).sum(None).backward();
        assert_eq!(s.grad(), s.full_like(3.0), "both losses, 1 and 2 times the sum, depend on it");
        assert_eq!(group.failure(), None);
    });
}

/// Against LibTorch's own batch normalisation of all rows: values, running moments, and gradients, where a rank's loss is
/// its part of the sum.
#[test]
fn batch_normalisation_is_that_of_all_rows() {
    twice("batch_normalisation_is_that_of_all_rows", |group| {
        for (shape, affine, kind) in [
            (vec![6, 3], true, Kind::Float),
            (vec![4, 3, 5, 5], true, Kind::Float),
            (vec![4, 3, 5, 5], false, Kind::Float),
            (vec![2, 3], false, Kind::Float),
            (vec![4, 3, 5, 5], true, Kind::Double),
            (vec![4, 3, 5, 5], true, Kind::BFloat16),
        ] {
            let values = (numbers(0.1, &shape) * 2.0 + 0.7).to_kind(kind);
            let c = numbers(0.2, &shape).to_kind(kind);
            // Statistics and parameters are wider than a narrow batch.
            let wide = if kind == Kind::Double { kind } else { Kind::Float };
            let vector = |phase| numbers(phase, &[3]).to_kind(wide);
            let run = |x: &Tensor, c: &Tensor, group: Option<&Group>| {
                let (w, b) = (leaf(&vector(0.3)), leaf(&vector(0.4)));
                let (mean, variance) = (vector(0.5), vector(0.6).square());
                let [weight, bias] = [&w, &b].map(|x| affine.then_some(x));
                let y = match group {
                    None => x.batch_norm(weight, bias, Some(&mean), Some(&variance), true, 0.1, 1e-5, false),
                    Some(group) => {
                        let running = RunningMoments { mean: &mean, variance: &variance, momentum: 0.1 };
                        group.batch_norm(x, weight, bias, Some(running), 1e-5).expect("a normalised batch")
                    }
                };
                (&y * c).sum(None).backward();
                [y.detach(), x.grad(), mean, variance].into_iter().chain([w, b].map(|x| x.grad())).collect::<Vec<_>>()
            };
            let whole = run(&leaf(&values), &c, None);
            let part = run(&leaf(&own(&group, &values)), &own(&group, &c), Some(&group));
            // Sums of up to 100 numbers of about 1, rounded to 6e-8 each, over deviations of about 1; of two rows that lie
            // close together the deviation is small. In bf16 outputs of up to 4 are rounded to 2^-7, sums are not.
            let limit = match kind {
                Kind::Double => 1e-12,
                Kind::BFloat16 => 2e-2,
                _ if shape[0] == 2 => 1e-3,
                _ => 1e-5,
            };
            for (i, (whole, part)) in whole.iter().zip(&part).enumerate() {
                if !whole.defined() {
                    continue;
                }
                let (whole, part) = match i {
                    0 | 1 => (own(&group, whole), part.shallow_clone()),
                    2 | 3 => (whole.shallow_clone(), part.shallow_clone()),
                    _ => (whole.shallow_clone(), group.sum(part).expect("a sum")),
                };
                let error = away(&whole, &part);
                assert!(error < limit, "{shape:?} {kind:?}, {i}: {error}");
            }
        }
        // Rows that all ranks have already: the same numbers, and gradients of one loss.
        let values = numbers(0.1, &[6, 3]);
        let (one, all) = (leaf(&values), leaf(&values));
        let no = None::<&Tensor>;
        let c = numbers(0.2, &[6, 3]);
        let expected = one.batch_norm(no, no, no, no, true, 0.0, 1e-5, false);
        let y = group.batch_norm(&all, None, None, None, 1e-5).expect("a normalised batch");
        assert!(away(&y, &expected) < 1e-5);
        (expected * &c).sum(None).backward();
        (y * &c).sum(None).backward();
        assert!(away(&one.grad(), &all.grad()) < 1e-5);
    });
}

#[test]
fn what_the_ranks_do_not_do_alike_is_told_and_ends_nothing() {
    twice("what_the_ranks_do_not_do_alike_is_told_and_ends_nothing", |group| {
        let rank = group.rank() as i64;
        let x = Tensor::ones([2 + rank, 3], (Kind::Float, Device::Cpu));
        let kept = group.gather(&x).expect("inside a graph a failure is kept");
        assert_eq!(kept.size(), [2 * (2 + rank), 3]);
        let why = group.failure().expect("a failure");
        let all = ["rank 0 would gather Float [2, 3]", "rank 1 would gather Float [3, 3]"];
        assert!(all.iter().all(|part| why.contains(part)), "{why}");
        let again = group.sum_(&[x]).expect_err("a group that failed does nothing more").to_string();
        assert_eq!(again, why);
    });
}

#[test]
fn a_dead_peer_is_an_error_and_so_is_one_that_never_comes() {
    twice("a_dead_peer_is_an_error_and_so_is_one_that_never_comes", |group| {
        group.exchange(b"here").expect("both are there");
        if group.rank() == 1 {
            std::process::exit(0);
        }
        let start = Instant::now();
        let error = group.sum_(&[Tensor::from(1.0f32)]).expect_err("nobody is there").to_string();
        assert!(start.elapsed() < Duration::from_secs(20), "{error}");
    });
    if std::env::var(RANK).is_err() {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let start = Instant::now();
        assert!(join(0, port, 1).is_err(), "there is one process of two");
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(join(2, port, 1).err().expect("a refusal").to_string().contains("rank 2 of 2"));
    }
}
