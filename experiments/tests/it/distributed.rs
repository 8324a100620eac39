//! N processes train as one with the same batch, and end in words when one of them is lost.

use crate::command_line::{SHORT, program, succeeds, temporary, text};
use crate::{CPU, dataset, methods, small, train_on};
use anyhow::Result;
use selfsup_core::cluster::{Empty, KMeans, Metric};
use selfsup_core::group::{self, Group, Meeting};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::Store;
use selfsup_core::{Kind, Tensor};
use selfsup_datasets::Part;
use selfsup_evaluate::geometry::uniformity;
use selfsup_evaluate::{Features, Finetune, Knn, Labelled, Linear, Network, finetune};
use selfsup_experiments::config::{RunConfig, parse_override};
use selfsup_experiments::evaluation::judge;
use selfsup_experiments::run::{Machine, build};
use selfsup_report::results;
use selfsup_train::{Event, Outcome, checkpoint};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where the children of a test leave what they trained.
const PLACE: &str = "SELFSUP_TEST_PLACE";
/// The numbers of processes to hold against one; `2,4` on request, since four share two cores.
const RANKS: &str = "SELFSUP_TEST_RANKS";

/// The step at which one process hands a run on to several.
const HALF: u64 = 3;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// The configurations of every method that are held against one process, beside the presets: variants whose loss takes
/// another way through the batch.
const VARIANTS: [(&str, &[&str]); 9] = [
    ("moco/cpu", &["method.groups=4", "method.symmetric=true"]),
    ("moco/cpu", &["method.groups=3"]),
    ("simclr/cpu", &["method.negatives=8", "method.predictor=16", "auxiliary.name=augself", "auxiliary.hidden=16"]),
    ("byol/cpu", &["method.negatives=0.5"]),
    ("simsiam/cpu", &["method.variance=1.0", "method.covariance=0.1"]),
    ("instdisc/cpu", &["method.negatives=16"]),
    ("triplet/cpu", &["method.mining=random"]),
    ("vq-vae/cpu", &["method.codebook.start=kmeans", "method.codebook.restart=0.5"]),
    ("interclr/cpu", &["method.groups=4"]),
];

/// Four steps in two epochs, by plain momentum: Adam makes steps of one length of gradients that are rounding alone (of a
/// bias before a norm), and would tell nothing.
fn equal(name: &str, changes: &[&str]) -> RunConfig {
    let whole = RunConfig::resolve(name, &[]).expect("a configuration").data;
    let data = format!("data={whole}:100");
    let mut all = vec![
        data.as_str(),
        "train.optimiser={name='sgd',rate=0.002,per=0,momentum=0.9}",
        "train.clip_norm=0.0",
        "train.batch=48",
        "evaluate.online_every=0",
    ];
    // What LibTorch draws by itself is another draw on every rank.
    if ["gpt", "bert"].contains(&name.split('/').next().unwrap_or(name)) {
        all.push("method.dropout=0.0");
    }
    all.extend(changes);
    small(name, &all).unwrap_or_else(|e| panic!("{name}: {e:#}"))
}

/// All that is compared, by what it is called.
fn cases() -> Vec<(String, RunConfig)> {
    let presets = methods().into_iter().map(|(_, name)| (name.clone(), equal(&name, &[])));
    let known: Vec<&str> = methods().into_iter().map(|(entry, _)| entry.name).collect();
    let variants = VARIANTS.iter().filter(|(name, _)| known.iter().any(|known| name.starts_with(&format!("{known}/"))));
    let variants = variants.map(|(name, changes)| (format!("{name} {}", changes.join(" ")), equal(name, changes)));
    let control = known.contains(&"simclr").then(|| (CONTROL.into(), equal("simclr/cpu", &["train.batch_norm=local"])));
    presets.chain(variants).chain(control).collect()
}

/// Trains in `folder` from the checkpoint that is there, up to a step or to the end, and leaves the weights before the
/// first step beside the checkpoint.
fn train(config: &RunConfig, folder: &Path, until: Option<u64>) -> Result<Outcome> {
    let begin = |store: &Store| {
        if group::rank() > 0 {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        let start: Vec<(String, Tensor)> =
            store.variables().into_iter().map(|v| (v.name, v.tensor.detach().copy())).collect();
        checkpoint::write(&folder.join("start.safetensors"), &start, HashMap::new())
    };
    let observe = |event: Event<'_>, stop: &AtomicBool| {
        if let Event::Step { at, .. } = event {
            stop.store(until == Some(at.step), Ordering::Relaxed);
        }
        Ok(())
    };
    Ok(train_on(config, (folder, "one"), begin, observe)?.0)
}

/// Runs `part` as one of the processes that [`processes`] started; `part` is told how many there are.
fn as_started(part: impl FnOnce(usize)) {
    let number = |name: &str| std::env::var(name).expect(name).parse::<usize>().expect("a number");
    let (rank, size) = (number("RANK"), number("WORLD_SIZE"));
    let _machine = Machine::new("cpu", number("THREADS"), None).expect("the CPU is always there");
    if size == 1 {
        return part(1);
    }
    let timeout = Duration::from_secs(60);
    let (address, port) = ("127.0.0.1".into(), number("MASTER_PORT") as u16);
    let meeting = Meeting { rank, size, address, port, served: false, name: "it".into(), meet: timeout, timeout };
    group::with(Rc::new(Group::join(&meeting).expect("the others are there")), || part(size));
}

/// Trains every case.
fn child(place: &str) {
    let (cases, place) = (cases(), Path::new(place));
    as_started(|size| {
        for (i, (name, config)) in cases.iter().enumerate() {
            let outcome = train(config, &place.join(i.to_string()), None);
            assert_eq!(outcome.unwrap_or_else(|e| panic!("{name}: {e:#}")), Outcome::Finished, "{name}");
        }
        // One process begins the first of them once more, several end it.
        let until = (size == 1).then_some(HALF);
        let outcome = train(&cases[0].1, &place.join("half"), until).expect("a run, or a part of one");
        assert_eq!(matches!(outcome, Outcome::Stopped(_)), size == 1);
    });
}

/// Starts so many processes, each with so many threads, which come here again through the test of this name. Gives what rank 0
/// printed.
fn processes(test: &str, place: &Path, ranks: usize, threads: usize) -> String {
    let port = free_port().to_string();
    let children: Vec<Child> = (0..ranks)
        .map(|rank| {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args(["--exact", &format!("distributed::{test}"), "--nocapture", "--include-ignored"]);
            command.env(PLACE, place).env("RANK", rank.to_string()).env("WORLD_SIZE", ranks.to_string());
            command.env("THREADS", threads.to_string()).env("MASTER_PORT", &port);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
        })
        .collect();
    let mut told = String::new();
    for (rank, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().expect("a process ends");
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        if rank == 0 {
            told = text(&output.stdout);
        }
    }
    told
}

/// What is recorded of each step, and the variables before and after.
struct Left {
    metrics: Vec<(String, f64)>,
    start: BTreeMap<String, Tensor>,
    end: BTreeMap<String, Tensor>,
}

fn left(folder: &Path) -> Left {
    let read = |file: &str| checkpoint::read(&folder.join(file)).expect("a file of tensors").tensors;
    let metrics = fs::read_to_string(folder.join("metrics.csv")).expect("metrics.csv");
    let metrics = metrics.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        (format!("{} of step {}", fields[2], fields[1]), fields[3].parse().expect("a number"))
    });
    let end = read("checkpoints/last.safetensors").into_iter();
    Left {
        metrics: metrics.collect(),
        start: read("start.safetensors").into_iter().collect(),
        end: end.filter_map(|(name, x)| Some((name.strip_prefix("model.")?.to_string(), x))).collect(),
    }
}

/// The greatest of each number of [`Apart`] that is taken for rounding.
const METRICS: f64 = 2e-3;
const MOVED: f64 = 3e-3;
const WORST: f64 = 0.2;
/// What is to lie outside.
const CONTROL: &str = "simclr/cpu train.batch_norm=local";

/// How far two trainings from one start are apart.
#[derive(Debug, Default)]
struct Apart {
    /// The greatest difference of a loss or a part, over its size or 1.
    metrics: f64,
    /// The distance of all variables, over how far they moved.
    moved: f64,
    /// The greatest of one variable alone, over how far it moved or, if it hardly did, a share of how far all did.
    worst: f64,
    which: String,
}

fn norm(x: &Tensor) -> f64 {
    x.to_kind(Kind::Double).norm().double_value(&[])
}

fn apart(one: &Left, other: &Left) -> Apart {
    let mut apart = Apart::default();
    assert_eq!(one.metrics.len(), other.metrics.len());
    for ((name, a), (same, b)) in one.metrics.iter().zip(&other.metrics) {
        assert_eq!(name, same);
        apart.metrics = apart.metrics.max((a - b).abs() / a.abs().max(1.0));
    }
    let floating = |x: &&String| one.start[*x].is_floating_point();
    let names: Vec<&String> = one.start.keys().filter(floating).collect();
    let of = |name: &String| {
        let before = one.start[name].to_kind(Kind::Double);
        let [a, b] = [one, other].map(|left| left.end[name].to_kind(Kind::Double) - &before);
        (norm(&a), norm(&(&a - &b)), before.numel() as f64)
    };
    let all: Vec<(f64, f64, f64)> = names.iter().map(|name| of(name)).collect();
    let total = |i: usize| all.iter().map(|x| [x.0, x.1][i].powi(2)).sum::<f64>().sqrt();
    apart.moved = total(1) / total(0);
    let count: f64 = all.iter().map(|x| x.2).sum();
    for (name, (moved, away, n)) in names.iter().zip(&all) {
        let error = away / moved.max(1e-2 * total(0) * (n / count).sqrt());
        if error > apart.worst {
            (apart.worst, apart.which) = (error, name.to_string());
        }
    }
    apart
}

/// Against what one process makes of the same four steps. All is f32: sums over a batch are rounded in another order, to
/// about 1e-7 of themselves. Where nothing is decided that is what remains. A ReLU, the nearest negative or a cluster
/// decide between numbers that may lie closer together than that, and of 48 images one that decides otherwise moves the
/// gradient by a share. How much it comes to is told by one process alone, with one thread and with two, which differ in
/// the order of sums too ([`RANKS`] prints both): as much. Of AugSelf over eight seeds threads came to 2e-2 of the variable
/// that differed most, two processes to 4e-2. A gradient that lacks a factor or other rows is off by half of itself: so is
/// that of the last case, a control, statistics of half of the batch, which must lie outside.
#[test]
fn n_processes_are_one_with_the_same_batch() {
    if let Ok(place) = std::env::var(PLACE) {
        return child(&place);
    }
    let trained = |place: &Path, ranks: usize, threads: usize| {
        processes("n_processes_are_one_with_the_same_batch", place, ranks, threads);
    };
    let folder = temporary();
    let place = |name: &str| folder.path().join(name);
    let (asked, cases) = (std::env::var(RANKS).ok(), cases());
    trained(&place("one"), 1, 1);
    if asked.is_some() {
        trained(&place("threads"), 1, 2);
    }
    let mut wrong = Vec::new();
    for ranks in asked.as_deref().unwrap_or("2").split(',') {
        let half = place(ranks).join("half");
        fs::create_dir_all(half.join("checkpoints")).expect("a folder");
        for file in ["metrics.csv", "checkpoints/last.safetensors"] {
            fs::copy(place("one").join("half").join(file), half.join(file)).expect("a copy of half a run");
        }
        trained(&place(ranks), ranks.parse().expect("a number"), 1);
        let names = cases.iter().enumerate().map(|(i, (name, _))| (i.to_string(), i.to_string(), name.clone()));
        let resumed = ("0".into(), "half".into(), format!("{}, begun by one", cases[0].0));
        for (of_one, of_ranks, name) in names.chain([resumed]) {
            let one = left(&place("one").join(&of_one));
            let found = apart(&one, &left(&place(ranks).join(of_ranks)));
            if asked.is_some() {
                let threads = apart(&one, &left(&place("threads").join(&of_one)));
                let row = |x: &Apart| format!("{:.0e} | {:.0e} | {:.0e}", x.metrics, x.moved, x.worst);
                println!("| {name} | {ranks} | {} | {} | {}", row(&found), row(&threads), found.which);
            }
            if (found.metrics > METRICS || found.moved > MOVED || found.worst > WORST) != (name == CONTROL) {
                wrong.push(format!("{name} x {ranks}: {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Numbers between -1 and 1, the same on every rank.
fn numbers(phase: f64, shape: [i64; 2]) -> Tensor {
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|m| (1.3 * (m * m) as f64 + phase).sin() as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Evaluation by several ranks is held against evaluation by the same process alone. What is made in shares is made of the
/// same batches, so it has the same bits; the linear probe adds its shares in another order. Three ranks: there are shares of
/// two sizes, and one of nothing.
#[test]
fn evaluation_in_shares_is_that_of_one_process() {
    let Ok(place) = std::env::var(PLACE) else {
        let folder = temporary();
        processes("evaluation_in_shares_is_that_of_one_process", folder.path(), 3, 1);
        return;
    };
    assert!(!place.is_empty());
    as_started(|ranks| {
        // Parts of any lengths, in order; what one cannot make is an error.
        let parts = |count| group::in_shares(count, |i| Ok(numbers(i as f64, [i as i64, 2])));
        for count in [1, 2, 3, 4, 7] {
            let all = parts(count).expect("parts");
            assert!(all.equal(&group::alone(|| parts(count)).expect("parts")) && all.size()[0] > 0 || count == 1);
        }
        assert_eq!((0..7).filter(|i| group::share_of(7).contains(i)).count(), [3, 3, 1][group::rank()]);

        let alike = |what: &str, f: &dyn Fn() -> Tensor| assert!(f().equal(&group::alone(f)), "{what}");
        let x = numbers(0.1, [3000, 5]);
        for empty in [Empty::Split, Empty::Keep] {
            let kmeans = KMeans { k: 20, iterations: 5, metric: Metric::Euclidean, empty };
            let fit = || kmeans.fit(&x, &mut Rng::new(0, Purpose::Cluster, 0, 0, 0)).expect("clusters");
            alike("centroids", &|| fit().centroids);
            alike("assignment", &|| fit().assignment);
        }
        alike("uniformity", &|| Tensor::from(uniformity(&numbers(0.2, [5000, 4])).expect("a number")));

        // Three classes that overlap: of what the first dimensions say.
        let labelled = |phase, n| {
            let x = numbers(phase, [n, 6]);
            let labels =
                ((x.select(1, 0) + x.select(1, 1) * 0.5) * 1.5 + numbers(9.0, [n, 1]).squeeze_dim(1) * 0.3 + 1.5)
                    .clamp(0.0, 2.9)
                    .to_kind(Kind::Int64);
            Features::new(x, labels).expect("features")
        };
        let (train, test) = (labelled(0.3, 5000), labelled(0.4, 1500));
        alike("classes", &|| Tensor::from_slice(&Knn::default().predict(&train, &test.x, 3).expect("classes")));
        let linear = Linear::default();
        let score = || linear.score(&train, &test, 3, 0).expect("a score");
        let (all, alone) = (score(), group::alone(score));
        assert_eq!((all.penalty, all.accuracy), (alone.penalty, alone.accuracy), "{all:?} {alone:?}");
        assert!(all.accuracy > 0.6 && all.converged, "{all:?}");
        let weight = || linear.fit(&train, 3, 0.1).expect("a fit").weight();
        // Each has a gradient of at most 1e-4 an entry, so each weight is within 1e-4 sqrt(entries) / penalty of the minimum.
        let apart = (weight() - group::alone(weight)).norm().double_value(&[]);
        assert!(apart < 2.0 * 1e-4 * 21f64.sqrt() / 0.1, "{apart}");

        // Every protocol but tuning, of encoders as they begin.
        let protocols = |names: &str| format!("evaluate.protocols=['pretext', 'knn', 'linear', 'geometry', {names}]");
        let all = [protocols("'layers', 'augmentation'"), protocols("'augmentation'")];
        for (name, all) in ["simclr/cpu", "mae/cpu"].into_iter().zip(&all) {
            let changes = ["data=fashion-mnist-10k:600", all, "evaluate.linear.penalties=[1.0, 0.1]"];
            let config = small(name, &changes).expect("a configuration");
            let data = dataset(&config);
            let scores = || {
                let mut subject = build(&config, None, &data, CPU).expect("a method");
                judge(&config, &data, &mut subject, &AtomicBool::new(false)).expect("scores").values
            };
            let (all, alone) = (scores(), group::alone(scores));
            assert!(all.len() >= 20, "{all:?}");
            for (of_all, of_one) in all.iter().zip(&alone) {
                assert_eq!(of_all, of_one, "{name}: by {ranks}, and by one");
            }
        }

        // Tuning, by its loss: the images it classifies differ where one lies between two classes. A batch of 30 has parts, one
        // of 31 has not.
        let config = small("simclr/cpu", &["data=fashion-mnist-10k:600"]).expect("a configuration");
        let data = dataset(&config);
        let labels =
            |part: &Part| part.labels.as_ref().expect("labels").iter().map(|&l| i64::from(l)).collect::<Vec<_>>();
        let (train, test) = (&data.train, data.test.as_ref().expect("a test part"));
        let (of_train, of_test) = (labels(train), labels(test));
        for batch in [30, 31] {
            let settings = Finetune { fraction: 0.2, epochs: 2, batch, ..Finetune::default() };
            let tune = || {
                let subject = build(&config, None, &data, CPU).expect("a method");
                let network = Network {
                    features: &|x, train| subject.method.features(x, train),
                    store: &subject.store,
                    size: subject.shape.size() as usize,
                    normalisation: &data.normalisation,
                };
                let train = Labelled { samples: &*train.samples, labels: &of_train };
                let test = Labelled { samples: &*test.samples, labels: &of_test };
                finetune(&settings, &network, train, test, 10, 0, &AtomicBool::new(false)).expect("a score").train_loss
            };
            let (all, alone) = (tune(), group::alone(tune));
            assert!((all - alone).abs() / alone < METRICS, "batch {batch}: {all} by {ranks}, {alone} by one");
        }
    });
}

/// `selfsup pretrain` as the ranks of one run, by the variables that launchers set; `own` are the arguments of each.
fn ranks(place: &Path, own: &[&[&str]]) -> Vec<Child> {
    let port = free_port().to_string();
    let start = |(rank, own): (usize, &&[&str])| {
        let arguments = [&["--threads", "1", "pretrain", "simclr/cpu", "--out", "run"][..], &SHORT, own].concat();
        let mut command = program(place, &arguments);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", "2").env("MASTER_ADDR", "127.0.0.1");
        command.env("MASTER_PORT", &port).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    };
    own.iter().enumerate().map(start).collect()
}

/// The one line of an error with which a process must have ended.
fn last_words(child: Child) -> String {
    let output = child.wait_with_output().expect("a process ends");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{told}");
    assert!(!told.contains("panicked") && !told.contains("internal error") && !told.contains(".cc"), "{told}");
    errors[0].into()
}

#[test]
fn launched_processes_train_one_run_and_one_of_them_tells() {
    let place = temporary();
    let place = place.path();
    // By plain momentum, as in the test above, and by short steps: at ten times the rate the loss rises, and one process
    // with two threads leaves one with one thread as far behind as two processes do.
    let plain = [
        "train.precision=f32",
        "train.optimiser={name='sgd',rate=0.0002,per=0}",
        "evaluate.online_every=1",
        "evaluate.protocols=['pretext', 'knn', 'linear', 'geometry', 'augmentation']",
    ];
    let train = |out| [&["pretrain", "simclr/cpu", "--out", out][..], &SHORT, &plain].concat();
    let launched = [&["--threads", "1", "launch", "-n", "2", "--"][..], &train("two")].concat();
    let told = succeeds(place, &launched);
    assert_eq!(told.lines().filter(|line| line.starts_with("knn")).count(), 1, "{told}");
    succeeds(place, &[&["--threads", "1"][..], &train("one")].concat());
    let losses = |run: &str| -> Vec<f64> {
        let metrics = fs::read_to_string(place.join(run).join("metrics.csv")).expect("metrics.csv");
        let losses = metrics.lines().filter_map(|line| line.split_once(",loss,"));
        losses.map(|(_, value)| value.parse().expect("a number")).collect()
    };
    let (one, two) = (losses("one"), losses("two"));
    assert_eq!((one.len(), two.len()), (6, 6));
    assert!(one.iter().zip(&two).all(|(a, b)| (a - b).abs() / a < METRICS), "{one:?} {two:?}");
    // A finished run is told again, by any number of processes.
    assert_eq!(succeeds(place, &launched), told);

    // What two have judged one judges alike, to the last digit, once it must judge again what they trained.
    let scores = || -> Vec<(String, String, Option<f64>)> {
        let rows = results::read(&place.join("two/results.csv")).expect("results.csv").into_iter();
        rows.map(|row| (row.protocol, row.metric, row.value)).collect()
    };
    let by_two = scores();
    for file in ["DONE", "results.csv"] {
        fs::remove_file(place.join("two").join(file)).expect("a file of a finished run");
    }
    succeeds(place, &[&["--threads", "1"][..], &train("two")].concat());
    assert_eq!(scores(), by_two);
    // And so do those who read the weights from their file, one or two.
    let told = succeeds(place, &["--threads", "1", "eval", "two"]);
    assert_eq!(scores(), by_two);
    assert_eq!(succeeds(place, &["--threads", "1", "launch", "-n", "2", "--", "eval", "two"]), told);
    assert_eq!(scores(), by_two);
    let features = |ranks| {
        let features = ["features", "two", "--out", "features.npy"];
        succeeds(place, &[&["--threads", "1", "launch", "-n", ranks, "--"][..], &features].concat());
        fs::read(place.join("features.npy")).expect("features.npy")
    };
    assert!(features("2") == features("1"), "two make the features that one makes");
    assert!(["knn", "linear", "geometry", "augmentation"].iter().all(|p| by_two.iter().any(|row| row.0 == *p)));
    // Between epochs, too: of an encoder that moved by rounding alone.
    let seen = |run: &str| -> Vec<(String, f64)> {
        let metrics = fs::read_to_string(place.join(run).join("metrics.csv")).expect("metrics.csv");
        let of_epoch = metrics.lines().filter(|line| line.contains("online_knn") || line.contains("features_"));
        let split = of_epoch.map(|line| line.rsplit_once(',').expect("columns"));
        split.map(|(name, value)| (name.into(), value.parse().expect("a number"))).collect()
    };
    let (one, two) = (seen("one"), seen("two"));
    assert_eq!((one.len(), two.len()), (3, 3), "{one:?} {two:?}");
    for ((name, a), (same, b)) in one.iter().zip(&two) {
        // Of the 40 images that are looked at one may lie between two classes.
        let limit = if name.contains("knn") { 1.0 / 40.0 + 1e-9 } else { METRICS * a.abs() };
        assert!(name == same && (a - b).abs() <= limit, "{name}: {a} {b}");
    }
}

/// Kills rank 1 of two once this file is there and `more` has passed, and holds rank 0 to its sentence.
fn kill_one(mut children: Vec<Child>, there: &Path, more: Duration) {
    let started = Instant::now();
    while !there.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no {}", there.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(more);
    children[1].kill().expect("it can be killed");
    let _ = children.remove(1).wait();
    let killed = Instant::now();
    let told = last_words(children.remove(0));
    assert!(told.contains("rank 0 of 2 lost the other processes") && told.contains("last checkpoint"), "{told}");
    assert!(killed.elapsed() < Duration::from_secs(20), "it took {:?}", killed.elapsed());
}

#[test]
fn a_process_killed_while_all_judge_ends_the_other_in_words() {
    let place = temporary();
    let place = place.path();
    let long = ["evaluate.protocols=['finetune']", "evaluate.fractions=[1.0]", "evaluate.finetune.epochs=100000"];
    // Written between training and judging.
    kill_one(ranks(place, &[&long, &long]), &place.join("run/meta.json"), Duration::from_secs(1));
    assert!(!place.join("run/DONE").exists());
}

#[test]
fn a_killed_process_ends_the_other_in_words_and_another_number_goes_on() {
    let place = temporary();
    let place = place.path();
    let long = ["train.epochs=60", "train.warmup=0"];
    kill_one(ranks(place, &[&long, &long]), &place.join("run/checkpoints/last.safetensors"), Duration::ZERO);

    let again = [&["--threads", "1", "pretrain", "simclr/cpu", "--out", "run"][..], &SHORT, &long].concat();
    let output = program(place, &again).output().expect("the program starts");
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("goes on at step"), "{told}");
    assert!(place.join("run/DONE").exists());
}

#[test]
fn processes_that_differ_or_do_not_come_are_told() {
    let place = temporary();
    let place = place.path();
    for child in ranks(place, &[&[], &["train.optimiser.rate=0.01"]]) {
        let told = last_words(child);
        assert!(told.contains("rank 1 of 2 trains the configuration") && told.contains("the same command"), "{told}");
    }
    let started = Instant::now();
    let told = last_words(ranks(place, &[&["--timeout", "2"]]).remove(0));
    assert!(told.contains("rank 0 of 2 did not meet the others") && told.contains("--timeout"), "{told}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Methods at the size of their papers, each with its passes: how often a network's forward and backward pass of one image
/// of 224 pixels a step takes of each image of the batch, in those of a ResNet-50. A forward pass alone is a third. SwAV's six
/// small crops have (96 / 224)^2 of the pixels each. MAE's are multiply-adds of one image, 4.3 G of ViT-B's encoder (50 of 197
/// places) and 5.1 G of the decoder, over a ResNet-50's 4.1 G.
const AT_SIZE: [(&str, f64); 7] = [
    ("simclr/imagenet-resnet50", 2.0),
    ("moco/imagenet-resnet50", 1.0 + 1.0 / 3.0),
    ("swav/imagenet-resnet50", 2.0 + 6.0 * 0.184),
    ("byol/imagenet-resnet50", 2.0 + 2.0 / 3.0),
    ("barlow-twins/imagenet-resnet50", 2.0),
    ("vicreg/imagenet-resnet50", 2.0),
    ("mae/imagenet-vit-base", 2.3),
];

/// A ResNet-50's training on one GPU, images a second, and of n GPUs in all: the link's bytes a second of each, and the
/// seconds that a message takes at least.
struct Machines {
    images: f64,
    n: f64,
    bandwidth: f64,
    latency: f64,
}

/// What a rank gives to the others in a step.
struct Given {
    /// Bytes of gradients.
    gradients: f64,
    /// Messages of batch statistics, and channels of all of them, each counted once.
    norms: f64,
    channels: f64,
    /// Messages of gathers and sums, and bytes for each image of the rank's part of the batch.
    gathers: f64,
    per_image: f64,
}

impl Given {
    /// Seconds of a step of `batch` images: computing, waiting for messages, bytes. Each message, and that of the
    /// gradients, is preceded by a comparison, which is another.
    fn seconds(&self, batch: f64, passes: f64, on: &Machines) -> [f64; 3] {
        let Machines { images, n, bandwidth, latency } = *on;
        let messages = 2.0 * (self.norms + self.gathers + 1.0);
        let reduced = self.gradients + 8.0 * self.channels;
        let gathered = self.per_image * batch / n + 16.0 * self.channels;
        let sent = 2.0 * (n - 1.0) / n * reduced + (n - 1.0) * gathered;
        [batch * passes / images / n, if n > 1.0 { messages * latency } else { 0.0 }, sent / bandwidth]
    }
}

/// What two ranks give to each other in one step, counted where it is given, of methods at the size of their papers; and what
/// follows from it for many GPUs. `--ignored what_a_step --nocapture` prints both tables.
#[test]
#[ignore = "seven networks at the size of papers take minutes and 8 GiB: cargo test .. -- --ignored --nocapture what_a_step"]
fn what_a_step_gives_to_the_others() {
    const IMAGES: usize = 16;
    if std::env::var(PLACE).is_err() {
        let folder = temporary();
        let told = processes("what_a_step_gives_to_the_others", folder.path(), 2, 1);
        return told.lines().filter(|line| line.starts_with('|')).for_each(|line| println!("{line}"));
    }
    as_started(|ranks| {
        let first = group::rank() == 0;
        let mut rows = Vec::new();
        for (name, passes) in AT_SIZE {
            let batch = format!("train.batch={IMAGES}");
            let sgd = "train.optimiser={name='sgd',rate=0.001,per=0}";
            let data = format!("data=emoji-mini:{IMAGES}");
            let all = [&data, &batch, sgd, "train.epochs=1", "train.warmup=0.0", "train.precision=f32"];
            let layers = all.iter().map(|text| parse_override(text)).collect::<Result<Vec<_>>>().expect("changes");
            let config = RunConfig::resolve(name, &layers).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            let given = || group::current().expect("a group").given();
            let (folder, before) = (temporary(), given());
            let mut values = 0;
            let begin = |store: &Store| {
                values = store.trainable().iter().map(|v| v.tensor.numel() as u64).sum();
                Ok(())
            };
            let (outcome, _) = train_on(&config, (folder.path(), "one"), begin, |_, _| Ok(())).expect("a step");
            assert_eq!(outcome, Outcome::Finished);
            let after = given();
            let of = |what: &str| {
                let i = after.iter().position(|given| given.what == what).expect(what);
                (after[i].times - before[i].times, after[i].bytes - before[i].bytes)
            };
            let (gradients, norm, gather, sum) = (of("gradients"), of("norm"), of("gather"), of("sum"));
            assert_eq!(gradients, (1, 4 * values), "{name}: every trained value once, in f32");
            // Forward 2 C + 1 numbers of 8 bytes, backward, where there is a gradient, 2 C of 4.
            let own = (IMAGES / ranks) as f64;
            let row = Given {
                gradients: gradients.1 as f64,
                norms: norm.0 as f64,
                channels: norm.1 as f64 / 24.0,
                gathers: (gather.0 + sum.0) as f64,
                per_image: (gather.1 + sum.1) as f64 / own,
            };
            if first {
                let (values, per_image) = (values as f64 / 1e6, row.per_image / 1e3);
                println!(
                    "| {name} | {values:.1} | {:.1} | {} | {:.2} | {} | {per_image:.2} |",
                    row.gradients / 1e6,
                    norm.0,
                    norm.1 as f64 / 1e6,
                    gather.0 + sum.0,
                );
            }
            rows.push((name, passes, row));
        }
        for (name, passes, row) in rows.into_iter().filter(|_| first) {
            let batch = RunConfig::resolve(name, &[]).expect("a configuration").train.batch as f64;
            let of = |n: f64, bandwidth: f64, latency: f64| {
                let on = Machines { images: 2470.0, n, bandwidth, latency };
                row.seconds(batch, passes, &on).map(|seconds| 1e3 * seconds)
            };
            let one = of(1.0, 1.0, 0.0)[0];
            let row = |[compute, messages, bytes]: [f64; 3]| {
                let all = compute + messages + bytes;
                format!("{compute:.1} + {messages:.1} + {bytes:.1} | {:.1}", one / all)
            };
            let (nvlink, infiniband) = (of(8.0, 300e9, 20e-6), of(64.0, 25e9, 50e-6));
            println!("| {name} | {batch} | {one:.0} | {} | {} |", row(nvlink), row(infiniband));
        }
    });
}

/// Two network namespaces, each with an address on a cable between them: what two machines are to a program.
struct Hosts(u32);

impl Hosts {
    fn ip(arguments: &str) -> bool {
        let done = Command::new("ip").args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    }

    fn name(&self, rank: usize) -> String {
        format!("selfsup{}-{rank}", self.0)
    }

    /// None where namespaces cannot be made.
    fn new() -> Option<Hosts> {
        let hosts = Hosts(std::process::id());
        let [a, b] = [0, 1].map(|rank| hosts.name(rank));
        let cable = format!("link add eth0 netns {a} type veth peer name eth0 netns {b}");
        let mut made =
            Hosts::ip(&format!("netns add {a}")) && Hosts::ip(&format!("netns add {b}")) && Hosts::ip(&cable);
        for (rank, name) in [&a, &b].into_iter().enumerate() {
            made = made && Hosts::ip(&format!("-n {name} addr add 10.9.8.{}/24 dev eth0", rank + 1));
            made = made && Hosts::ip(&format!("-n {name} link set lo up"));
        }
        (made && hosts.cable("up")).then_some(hosts)
    }

    /// `up` or `down`.
    fn cable(&self, state: &str) -> bool {
        [0, 1].iter().all(|&rank| Hosts::ip(&format!("-n {} link set eth0 {state}", self.name(rank))))
    }

    /// `selfsup pretrain` with a process on each.
    fn start(&self, place: &Path, own: &[&str]) -> [Child; 2] {
        let port = free_port().to_string();
        [0, 1].map(|rank| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &self.name(rank), env!("CARGO_BIN_EXE_selfsup"), "--threads", "1"]);
            command.args(own).current_dir(place).env("RANK", rank.to_string()).env("WORLD_SIZE", "2");
            command.env("MASTER_ADDR", "10.9.8.1").env("MASTER_PORT", &port).env("GLOO_SOCKET_IFNAME", "eth0");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("ip starts")
        })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // The cable goes with its ends.
        let _ = [0, 1].map(|rank| Hosts::ip(&format!("netns del {}", self.name(rank))));
    }
}

#[test]
#[ignore = "needs root for network namespaces: cargo test .. -- --ignored --nocapture two_hosts"]
fn two_hosts_train_as_one_and_end_in_words_when_the_cable_is_cut() {
    let Some(hosts) = Hosts::new() else {
        eprintln!("SKIPPED, nothing was tested: `ip netns` cannot make namespaces here; it needs root and Linux");
        return;
    };
    let place = temporary();
    let place = place.path();
    let train = |out| [&["pretrain", "simclr/cpu", "--out", out][..], &SHORT].concat();
    let end = |child: Child| {
        let output = child.wait_with_output().expect("a process ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let _ = hosts.start(place, &train("two")).map(end);
    // The same arithmetic as of two processes on one host, which `n_processes_are_one_with_the_same_batch` holds against one.
    succeeds(place, &[&["--threads", "1", "launch", "-n", "2", "--"][..], &train("here")].concat());
    let weights = |run: &str| checkpoint::read(&place.join(run).join("checkpoints/last.safetensors")).expect("weights");
    let (two, here) = (weights("two").tensors, weights("here").tensors);
    assert!(two.len() > 20 && two.len() == here.len());
    let here: BTreeMap<String, Tensor> = here.into_iter().collect();
    assert!(two.iter().all(|(name, tensor)| here[name].equal(tensor)), "the same bits on two hosts as on one");

    const TIMEOUT: u64 = 5;
    let timeout = TIMEOUT.to_string();
    let long = ["train.epochs=60", "train.warmup=0", "--timeout", &timeout];
    let long = [&train("cut")[..], &long].concat();
    let ranks = hosts.start(place, &long);
    let (checkpoint, started) = (place.join("cut/checkpoints/last.safetensors"), Instant::now());
    while !checkpoint.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(hosts.cable("down"));
    let cut = Instant::now();
    for (rank, child) in ranks.into_iter().enumerate() {
        let told = last_words(child);
        println!("rank {rank}, {:.1} s after the cut: {told}", cut.elapsed().as_secs_f64());
        assert!(told.contains(&format!("rank {rank} of 2 lost the other processes")), "{told}");
    }
    assert!(cut.elapsed() < Duration::from_secs(TIMEOUT + 10), "it took {:?}", cut.elapsed());
    assert!(weights("cut").tensors.len() > 20, "the last checkpoint is whole");
    assert!(hosts.cable("up"));
    let told = hosts.start(place, &long).map(end);
    let goes_on = told[0].lines().find(|line| line.contains("goes on at step")).expect("it goes on");
    println!("with the cable up again: {goes_on}");
    assert!(place.join("cut/DONE").exists());
}
