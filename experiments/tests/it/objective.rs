//! `selfsup loss` against reference values of every loss, computed in f64 by independent programs.

use crate::command_line::{refuses, succeeds, temporary};
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor, no_grad};
use selfsup_train::checkpoint;
use std::collections::HashMap;
use std::path::Path;

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
    let scores = |x: &Tensor| normalise(x).matmul(&rows.tr());
    write(&folder.join("scores.safetensors"), &[("a", &scores(&a)), ("b", &scores(&b))]);
    let cases: &[(&str, &str, &[&str], f64)] = &[
        ("simclr", "pair", &["temperature=0.1"], 10.044807),
        ("simclr", "pair", &["temperature=0.5"], 2.811568),
        ("simclr", "pair", &["temperature=1"], 2.247665),
        ("moco", "pair", &["temperature=0.07"], 14.270601),
        ("moco", "pair", &["temperature=0.2"], 5.487980),
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
}

#[test]
fn gradients_are_finite_differences() {
    let place = temporary();
    let folder = place.path();
    let (a, b, rows) = fixed();
    write(&folder.join("pair.safetensors"), &[("a", &a), ("b", &b), ("queue", &rows)]);
    for method in ["simclr", "barlow-twins", "vicreg", "moco"] {
        succeeds(folder, &["loss", method, "pair.safetensors", "--grad", "grad.safetensors"]);
        let gradients = checkpoint::read(&folder.join("grad.safetensors")).expect("written").tensors;
        assert_eq!(gradients.len(), 2, "{method}: grad_a and grad_b");
        // Along a fixed direction, central differences with a step of 2^-7: exact in f32 as a step, and an error of
        // the order of its square.
        let (direction, step) = (fill(4, 3, |m| (3.0 * m).cos()), 1.0 / 128.0);
        let at = |sign: f64| {
            write(
                &folder.join("moved.safetensors"),
                &[("a", &(&a + &direction * (sign * step))), ("b", &b), ("queue", &rows)],
            );
            loss(folder, &[method, "moved.safetensors"])
        };
        let difference = (at(1.0) - at(-1.0)) / (2.0 * step);
        let slope = no_grad(|| (&gradients["grad_a"] * &direction).sum(Kind::Double).double_value(&[]));
        assert!((difference - slope).abs() < 0.02 * slope.abs().max(1.0), "{method}: {difference} and {slope}");
        let stopped = gradients["grad_b"].abs().max().double_value(&[]) == 0.0;
        assert_eq!(stopped, method == "moco", "{method}: only MoCo's keys have no gradient");
    }
}

#[test]
fn what_cannot_be_read_is_told_in_one_line() {
    let place = temporary();
    let folder = place.path();
    let (a, b, rows) = fixed();
    write(&folder.join("pair.safetensors"), &[("a", &a), ("b", &b), ("queue", &rows)]);
    write(&folder.join("one.safetensors"), &[("a", &a)]);
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
