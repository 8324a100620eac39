//! The probes on features of the size of a small and of a full data set.
//!
//! Run: cargo bench -p selfsup-benches --bench evaluate

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::{Kind, Tensor};
use selfsup_evaluate::{Features, Geometry, Knn, Linear};
use std::hint::black_box;
use std::time::Duration;

/// Ten classes whose means differ by about as much as their members, in correlated dimensions.
fn cloud(n: usize, d: usize, draw: u64) -> Features {
    let normal = |rows: usize, columns: usize, view| {
        let mut rng = Rng::new(0, Purpose::Sample, draw * u64::from(view > 1), 0, view);
        let values: Vec<f32> = (0..rows * columns).map(|_| rng.normal() as f32).collect();
        Tensor::from_slice(&values).view([rows as i64, columns as i64])
    };
    let labels = Tensor::arange(n as i64, (Kind::Int64, selfsup_core::Device::Cpu)).remainder(10);
    let means = normal(10, d, 0) * (3.0 / (d as f64).sqrt());
    let mixing = normal(d, d, 1) / (d as f64).sqrt();
    let x = (means.index_select(0, &labels) + normal(n, d, 2)).mm(&mixing);
    Features::new(x, labels).expect("valid features")
}

fn probes(criterion: &mut Criterion) {
    for (name, train, test, d) in [("10000x128", 10_000, 2_000, 128), ("60000x512", 60_000, 10_000, 512)] {
        let (train, test) = (cloud(train, d, 1), cloud(test, d, 2));
        let mut group = criterion.benchmark_group("evaluate");
        group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(5));
        group.bench_function(BenchmarkId::new("knn", name), |b| {
            b.iter(|| black_box(Knn::default().accuracy(&train, &test, 10).expect("a score")));
        });
        group.bench_function(BenchmarkId::new("linear_fit", name), |b| {
            b.iter(|| black_box(Linear::default().fit(&train, 10, 1e-3).expect("a fit").iterations));
        });
        group.bench_function(BenchmarkId::new("linear_sweep", name), |b| {
            b.iter(|| black_box(Linear::default().score(&train, &test, 10, 0).expect("a score")));
        });
        group.bench_function(BenchmarkId::new("geometry_of_test", name), |b| {
            b.iter(|| black_box(Geometry::of(&test.x, None).expect("a geometry")));
        });
        group.finish();
    }
}

criterion_group!(benches, probes);
criterion_main!(benches);
