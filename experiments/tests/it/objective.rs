//! `selfsup loss` against reference values of every loss, computed in f64 by independent programs, and its gradients
//! against differences.

use crate::command_line::{refuses, succeeds, temporary};
use selfsup_core::objective::Given;
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor, no_grad};
use selfsup_experiments::config::parse_override;
use selfsup_experiments::objective::objective;
use selfsup_experiments::registry::{self, METHODS};
use selfsup_experiments::run::Machine;
use selfsup_train::checkpoint;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use swav::{sinkhorn, swapped_prediction};
use toml::Table;

/// f(0), f(1), .. as rows of `columns`.
fn fill(rows: i64, columns: i64, f: impl Fn(f64) -> f64) -> Tensor {
    let values: Vec<f64> = (0..rows * columns).map(|m| f(m as f64)).collect();
    Tensor::from_slice(&values).view([rows, columns])
}

/// The fixed input: a and b, 4 x 3, and unit rows that serve as queue and as prototypes, 5 x 3.
fn fixed() -> (Tensor, Tensor, Tensor) {
    (
        fill(4, 3, |m| (m + 1.0).sin()),
        fill(4, 3, |m| (2.0 * m + 1.0).cos()),
        normalise(&fill(5, 3, |m| (0.5 * m + 2.0).sin())),
    )
}

/// Writes tensors as f32, as most programs would.
fn write(path: &Path, tensors: &[(&str, &Tensor)]) {
    let single = |(name, x): &(&str, &Tensor)| {
        let x = if x.is_floating_point() { x.to_kind(Kind::Float) } else { x.shallow_clone() };
        (name.to_string(), x)
    };
    checkpoint::write(path, &tensors.iter().map(single).collect::<Vec<_>>(), HashMap::new()).expect("written");
}

fn loss(folder: &Path, arguments: &[&str]) -> f64 {
    let arguments: Vec<&str> = [&["loss"], arguments].concat();
    let text = succeeds(folder, &arguments);
    let value = text.trim().strip_prefix("loss ").unwrap_or_else(|| panic!("`loss <value>` was expected: {text}"));
    let digits = value.chars().filter(char::is_ascii_digit).collect::<String>();
    assert!(digits.trim_start_matches('0').len() <= 9, "nine significant digits: {value}");
    value.parse().expect("a number")
}

#[test]
fn losses_are_the_reference_values() {
    let place = temporary();
    let folder = place.path();
    let (a, b, rows) = fixed();
    write(&folder.join("pair.safetensors"), &[("a", &a), ("b", &b), ("queue", &rows)]);
    write(&folder.join("scores.safetensors"), &[("a", &scores(&a)), ("b", &scores(&b))]);
    write(&folder.join("labels.safetensors"), &[("a", &scores(&a)), ("labels", &index())]);
    let bank = [("a", &a), ("bank", &rows), ("index", &index())];
    write(&folder.join("bank.safetensors"), &bank);
    write(&folder.join("nce.safetensors"), &[&bank[..], &[("negatives", &negatives())]].concat());
    let (positive, others) = inter_image(&b, &rows);
    let images = [("a", &a), ("b", &b), ("queue", &rows), ("positive", &positive), ("negatives", &others)];
    write(&folder.join("images.safetensors"), &images);
    // Where no golden.py of a method has the value, it is objective.py's, beside this file.
    let cases: &[(&str, &str, &[&str], f64)] = &[
        ("simclr", "pair", &["temperature=0.1"], 10.044807),
        ("simclr", "pair", &["temperature=0.5"], 2.811568),
        ("simclr", "pair", &["temperature=1"], 2.247665),
        ("simclr", "pair", &["temperature=0.5", "debias=0.1"], 2.868577),
        ("moco", "pair", &["temperature=0.07"], 14.270601),
        ("moco", "pair", &["temperature=0.2"], 5.487980),
        ("instdisc", "bank", &["temperature=0.07"], 8.509918),
        ("instdisc", "bank", &["temperature=0.5"], 1.932479),
        ("instdisc", "nce", &["temperature=0.1"], 5.829993),
        ("instdisc", "nce", &["temperature=0.5"], 1.689280),
        ("instdisc", "bank", &["parametric=true", "negatives=0"], 1.632861),
        ("triplet", "pair", &["mining=batch-all", "average=all"], 0.890629),
        ("triplet", "pair", &["mining=batch-all", "margin=1"], 1.811083),
        ("triplet", "pair", &[], 0.076317),
        ("triplet", "pair", &["average=all", "margin=1"], 0.463430),
        ("deepcluster", "labels", &[], 1.563232),
        ("deepcluster", "labels", &["version=2", "temperature=0.1"], 6.156389),
        ("interclr", "pair", &["temperature=0.2"], 5.487980),
        ("interclr", "images", &["temperature=0.2", "weight=0.25", "margin=-0.5"], 4.607878),
        ("interclr", "images", &["temperature=0.2", "weight=1", "margin=0.5"], 6.696223),
        ("byol", "pair", &[], 4.063855),
        ("simsiam", "pair", &[], 0.015964),
        ("barlow-twins", "pair", &["lambda=0.0051"], 4.500187),
        ("vicreg", "pair", &[], 38.779865),
        ("vicreg", "pair", &["invariance=1", "variance=0", "covariance=0"], 1.019288),
        ("vicreg", "pair", &["invariance=0", "variance=2", "covariance=0"], 0.253311 + 0.751685),
        ("vicreg", "pair", &["invariance=0", "variance=0", "covariance=1"], 0.735220),
        ("swav", "scores", &["temperature=0.1", "epsilon=0.05", "sinkhorn_iterations=3"], 7.344308),
    ];
    for (method, file, overrides, expected) in cases {
        let file = format!("{file}.safetensors");
        let value = loss(folder, &[&[*method, &file], *overrides].concat());
        // The reference has six decimals; the inputs are rounded to f32, which the exponentials of a temperature of
        // 0.05 make twenty times as large: 6e-8 x 20 of the value.
        assert!((value - expected).abs() < 2e-6 + 2e-6 * expected, "{method} {overrides:?}: {value} is not {expected}");
    }
    all_are_there(cases.iter().map(|case| case.0).collect());
}

/// Whether every method that has a loss on embeddings is among `tested`.
fn all_are_there(tested: BTreeSet<&str>) {
    let with_one: BTreeSet<&str> = METHODS.iter().filter(|e| !e.inputs.is_empty()).map(|e| e.name).collect();
    assert_eq!(tested, with_one, "tested (left), and those that have a loss on embeddings");
}

/// The scores of five prototypes, [4, 5].
fn scores(x: &Tensor) -> Tensor {
    normalise(x).matmul(&fixed().2.tr())
}

/// `index` of objective.py: places in five rows.
fn index() -> Tensor {
    Tensor::from_slice(&[3i64, 0, 4, 1])
}

/// `negatives` of objective.py, the same.
fn negatives() -> Tensor {
    Tensor::from_slice(&[0i64, 2, 1, 4, 0, 3, 1, 1, 2, 3, 4, 0]).view([4, 3])
}

/// InterCLR's `positive` and `negatives` of objective.py: the unit rows of b in reverse, and three rows for each.
fn inter_image(b: &Tensor, rows: &Tensor) -> (Tensor, Tensor) {
    let others = rows.index_select(0, &Tensor::from_slice(&[1i64, 3, 0]));
    (normalise(b).flip([0]), others.repeat([4, 1]))
}

type Tensors = Vec<(&'static str, Tensor)>;

/// A method, its settings, and what its loss reads.
struct Case {
    method: &'static str,
    settings: &'static [&'static str],
    tensors: Tensors,
}

impl Case {
    fn new(method: &'static str, settings: &'static [&'static str], tensors: &[(&'static str, &Tensor)]) -> Case {
        Case { method, settings, tensors: tensors.iter().map(|(name, x)| (*name, x.shallow_clone())).collect() }
    }

    fn layers(&self) -> Vec<Table> {
        self.settings.iter().map(|text| parse_override(text).expect("key=value")).collect()
    }

    fn loss(&self, tensors: &Tensors) -> f64 {
        let table: Table = self.layers().into_iter().flatten().collect();
        let entry = registry::find(self.method).expect("a method");
        let given = Given::new(tensors.iter().map(|(name, x)| (name.to_string(), x.shallow_clone())));
        no_grad(|| (entry.objective)(&table, &given)).expect("a loss").double_value(&[])
    }

    /// Holds the gradients that the library gives of `a` and `b` against central differences of `loss` in f64: every
    /// entry of those in `moving`, and zero in the others, where the method stops the gradient.
    ///
    /// A difference is off by h^2 / 6 of the third derivative, which exponentials of 1 / 0.07 make 3e3 of the gradient,
    /// so by 5e-10 of it for h = 1e-6, and by the rounding of the loss over h, 1e-10 of a loss of up to 40. The library
    /// gives gradients in f32, which is 6e-8. 1e-6 of the largest entry allows for ten times as much.
    fn check(&self, folder: &Path, moving: &[&str], loss: &dyn Fn(&Tensors) -> f64) {
        const STEP: f64 = 1e-6;
        let name = format!("{} {:?}", self.method, self.settings);
        let path = folder.join("double.safetensors");
        let tensors: Vec<_> = self.tensors.iter().map(|(name, x)| (name.to_string(), x.shallow_clone())).collect();
        checkpoint::write(&path, &tensors, HashMap::new()).expect("written");
        let given = objective(self.method, &path, &self.layers()).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert!((given.loss - loss(&self.tensors)).abs() <= 1e-12 * given.loss.abs(), "{name}: {}", given.loss);
        let names: Vec<&str> = self.tensors.iter().map(|t| t.0).filter(|name| ["a", "b"].contains(name)).collect();
        let found: Vec<&str> = given.gradients.iter().map(|(name, _)| name.strip_prefix("grad_").expect("a")).collect();
        assert_eq!(found, names, "{name}");
        for (which, (_, gradient)) in names.iter().zip(&given.gradients) {
            let largest = gradient.abs().max().double_value(&[]);
            if !moving.contains(which) {
                assert_eq!(largest, 0.0, "{name}: {which} has no gradient");
                continue;
            }
            assert!(largest > 1e-3, "{name}: the gradient of {which} is {largest}");
            for entry in 0..gradient.numel() as i64 {
                let at = |by: f64| {
                    let moved = |(name, x): &(&'static str, Tensor)| {
                        let x = x.copy();
                        if name == which {
                            let _ = x.view([-1]).get(entry).g_add_scalar_(by);
                        }
                        (*name, x)
                    };
                    loss(&self.tensors.iter().map(moved).collect())
                };
                let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let slope = gradient.view([-1]).double_value(&[entry]);
                let away = (difference - slope).abs();
                assert!(away < 1e-6 * largest, "{name}: entry {entry} of {which}: {difference} and {slope}");
            }
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    // One thread: on tensors of a dozen numbers more would only wait for each other.
    let _machine = Machine::new("cpu", 1, None).expect("the CPU is always there");
    let place = temporary();
    let (a, b, rows) = fixed();
    let (z_a, z_b) = (fill(4, 3, |m| (0.7 * m + 0.4).sin()), fill(4, 3, |m| (1.9 * m + 0.1).cos()));
    let (positive, others) = inter_image(&b, &rows);
    let (s_a, s_b, index, negatives) = (scores(&a), scores(&b), index(), negatives());
    let pair: &[(&str, &Tensor)] = &[("a", &a), ("b", &b)];
    let keys: &[(&str, &Tensor)] = &[("a", &a), ("b", &b), ("queue", &rows)];
    let images = &[keys, &[("positive", &positive), ("negatives", &others)]].concat();
    let targets = &[pair, &[("target_a", &z_a), ("target_b", &z_b)]].concat();
    let bank: &[(&str, &Tensor)] = &[("a", &a), ("bank", &rows), ("index", &index)];
    let labels: &[(&str, &Tensor)] = &[("a", &s_a), ("labels", &index)];
    let cases = [
        (Case::new("simclr", &["temperature=0.1"], pair), "ab"),
        (Case::new("simclr", &["temperature=0.5", "debias=0.1"], pair), "ab"),
        (Case::new("simclr", &["temperature=1", "normalise=false"], pair), "ab"),
        (Case::new("moco", &["temperature=0.07"], keys), "a"),
        (Case::new("instdisc", &["temperature=0.07"], bank), "a"),
        (Case::new("instdisc", &["parametric=true", "negatives=0"], bank), "a"),
        (Case::new("triplet", &["margin=1"], pair), "ab"),
        (Case::new("triplet", &["mining=batch-all", "average=all"], pair), "ab"),
        (Case::new("triplet", &["mining=batch-hard"], pair), "ab"),
        (Case::new("triplet", &["mining=batch-all", "loss=logistic"], pair), "ab"),
        (Case::new("deepcluster", &[], labels), "a"),
        (Case::new("deepcluster", &["version=2", "temperature=0.1"], labels), "a"),
        (Case::new("interclr", &["margin=-0.5"], images), "a"),
        (Case::new("interclr", &[], keys), "a"),
        (Case::new("byol", &[], targets), "ab"),
        (Case::new("byol", &["negatives=1", "temperature=0.1"], targets), "ab"),
        (Case::new("simsiam", &[], targets), "ab"),
        (Case::new("simsiam", &["symmetric=false"], targets), "a"),
        (Case::new("simsiam", &["similarity=cross-entropy"], targets), "ab"),
        (Case::new("simsiam", &["stop_gradient=false", "variance=3", "covariance=0.5"], pair), "ab"),
        (Case::new("barlow-twins", &[], pair), "ab"),
        (Case::new("barlow-twins", &["temperature=0.2", "lambda=1"], pair), "ab"),
        (Case::new("barlow-twins", &["normalise=feature"], pair), "ab"),
        (Case::new("barlow-twins", &["normalise=off"], pair), "ab"),
        (Case::new("vicreg", &[], pair), "ab"),
        (Case::new("vicreg", &["normalise=batch"], pair), "ab"),
        (Case::new("vicreg", &["normalise=row"], pair), "ab"),
    ];
    let which = |moving: &'static str| -> Vec<&str> { moving.split("").filter(|name| !name.is_empty()).collect() };
    for (case, moving) in &cases {
        case.check(place.path(), &which(moving), &|tensors| case.loss(tensors));
    }

    // What a method holds constant must not move with the embeddings here either: SwAV's codes, InstDisc's Z.
    let swav = Case::new("swav", &["temperature=0.1", "epsilon=0.5"], &[("a", &s_a), ("b", &s_b)]);
    let codes = [&s_a, &s_b].map(|s| sinkhorn(s, 0.5, 3));
    let held = |tensors: &Tensors| {
        let scores: Vec<Tensor> = tensors.iter().map(|(_, x)| x.shallow_clone()).collect();
        swapped_prediction(&scores, &codes, 0.1).double_value(&[])
    };
    swav.check(place.path(), &["a", "b"], &held);
    let nce = Case::new("instdisc", &["temperature=0.5"], &[bank, &[("negatives", &negatives)]].concat());
    let places = Tensor::cat(&[&index.unsqueeze(-1), &negatives], 1);
    let of_rows = |a: &Tensor| {
        let rows = rows.index_select(0, &places.flatten(0, 1)).view([4, 4, 3]);
        rows.matmul(&normalise(a).unsqueeze(-1)).squeeze_dim(-1) / 0.5
    };
    let log_z = (of_rows(&a).exp().mean(None) * 5.0).log();
    nce.check(place.path(), &["a"], &|tensors| instdisc::nce(&of_rows(&tensors[0].1), &log_z, 5).double_value(&[]));

    let tested = cases.iter().map(|(case, _)| case.method).chain(["swav"]);
    all_are_there(tested.collect());
}

#[test]
fn what_cannot_be_read_is_told_in_one_line() {
    let place = temporary();
    let folder = place.path();
    let (a, b, rows) = fixed();
    write(&folder.join("pair.safetensors"), &[("a", &a), ("b", &b), ("queue", &rows)]);
    write(&folder.join("one.safetensors"), &[("a", &a)]);
    write(&folder.join("row.safetensors"), &[("a", &a.narrow(0, 0, 1)), ("b", &b.narrow(0, 0, 1))]);
    write(&folder.join("shapes.safetensors"), &[("a", &a), ("b", &rows)]);
    write(&folder.join("nan.safetensors"), &[("a", &(&a / 0.0)), ("b", &b)]);
    write(&folder.join("flat.safetensors"), &[("a", &a.view([12])), ("b", &b.view([12]))]);
    std::fs::write(folder.join("text.safetensors"), "not a file of tensors").expect("a file");
    let cases: &[(&[&str], &[&str])] = &[
        (&["loss", "simclrr", "pair.safetensors"], &["unknown method", "did you mean `simclr`"]),
        (&["loss", "simclr", "pair.safetensors", "temprature=1"], &["`temprature`", "did you mean `temperature`"]),
        (&["loss", "simclr", "pair.safetensors", "temperature=0"], &["temperature is 0", "above 0"]),
        (&["loss", "simclr", "gone.safetensors"], &["gone.safetensors"]),
        (&["loss", "simclr", "text.safetensors"], &["text.safetensors", "damaged"]),
        (&["loss", "simclr", "one.safetensors"], &["one.safetensors", "no tensor `b`", "there are a"]),
        (&["loss", "simclr", "shapes.safetensors"], &["`a` is [4, 3]", "`b` is [5, 3]", "equal shapes"]),
        (&["loss", "simclr", "nan.safetensors"], &["`a`", "not finite"]),
        (&["loss", "simclr", "flat.safetensors"], &["`a` is", "[12]", "expected [N, D]"]),
        (&["loss", "moco", "one.safetensors"], &["no tensor `b`"]),
        (&["loss", "simclr", "row.safetensors"], &["one row", "at least 2"]),
        (&["loss", "barlow-twins", "row.safetensors"], &["one row", "at least 2"]),
        (&["loss", "swav", "row.safetensors"], &["one row", "at least 2"]),
        (&["loss", "mae", "pair.safetensors"], &["mae has no loss on embeddings alone", "simclr"]),
        (
            &["loss", "simclr", "pair.safetensors", "--grad", "no-such-folder/g.safetensors"],
            &["no-such-folder/g.safetensors"],
        ),
    ];
    for (arguments, words) in cases {
        refuses(folder, arguments, words);
    }
}
