//! What collectives cost between N processes of one machine (2 if not said otherwise), or of those that a launcher started:
//!
//! ```sh
//! cargo run --release -p selfsup-torch-ext --example collectives -- 2
//! torchrun --no-python --nproc_per_node=2 target/release/examples/collectives
//! ```
//!
//! Rank 0 prints a row for each size: the bytes that a rank must send at least (of n bytes: 2 (W - 1) / W n for an
//! all-reduce; (W - 1) n for a gather; both for batch normalisation, which gathers 16 C + 8 bytes in the forward pass and
//! adds up 8 C in the backward pass), and the time of one call in microseconds: the median of many and the quartiles. Then
//! the line `latency + bytes / bandwidth` with the smallest squares of relative errors, and how far the medians are off it.
//! Each call includes what a group does before it: the ranks compare what they are about to do.

use anyhow::{Context, Result, ensure};
use selfsup_torch_ext::{Group, Meeting};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const TIMES: usize = 41;

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set, but RANK is: start this by a launcher, or alone"))
}

/// One size of one collective.
struct Row {
    bytes: f64,
    /// First quartile, median and third, in microseconds.
    quartiles: [f64; 3],
}

fn time(bytes: f64, mut f: impl FnMut() -> Result<()>) -> Result<Row> {
    f()?; // the first call connects
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(Row { bytes, quartiles: [1, 2, 3].map(|q| times[q * (TIMES - 1) / 4]) })
}

/// Latency in microseconds and bandwidth in bytes a microsecond: least squares of (a + b x - y) / y.
fn line(rows: &[Row]) -> (f64, f64) {
    let mut s = [0.0; 5]; // sums of w, w x, w x^2, w y, w x y with w = 1 / y^2
    for Row { bytes: x, quartiles: [_, y, _] } in rows {
        let w = 1.0 / (y * y);
        for (sum, term) in s.iter_mut().zip([w, w * x, w * x * x, w * y, w * x * y]) {
            *sum += term;
        }
    }
    let [w, x, xx, y, xy] = s;
    let slope = (w * xy - x * y) / (w * xx - x * x);
    ((y - slope * x) / w, 1.0 / slope)
}

fn tell(what: &str, rows: &[Row]) {
    println!("{what}\n{:>14} {:>10} {:>10} {:>10}", "bytes", "quartile", "median", "quartile");
    for Row { bytes, quartiles: [low, median, high] } in rows {
        println!("{bytes:14.0} {low:10.0} {median:10.0} {high:10.0}");
    }
    let (latency, bandwidth) = line(rows);
    if latency <= 0.0 || bandwidth <= 0.0 {
        return println!("{what}: no line, the times are not ruled by the bytes: other work has the machine\n");
    }
    let off = rows.iter().map(|r| ((latency + r.bytes / bandwidth) / r.quartiles[1] - 1.0).abs()).fold(0.0, f64::max);
    println!("{what}: {latency:.0} us + bytes / {bandwidth:.0} MB/s, at most {:.0} % off a median\n", 100.0 * off);
}

fn measure(group: &Group) -> Result<()> {
    let w = group.size() as f64;
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let say = |what: &str, rows: &[Row]| {
        if group.rank() == 0 {
            tell(what, rows);
        }
    };
    const VALUES: [i64; 7] = [1, 1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 11 << 20];
    let reduce = |&values: &i64| {
        let x = ones(&[values]);
        time(2.0 * (w - 1.0) / w * 4.0 * values as f64, || group.sum_(&[x.shallow_clone()]))
    };
    say("all-reduce", &VALUES.iter().map(reduce).collect::<Result<Vec<_>>>()?);
    let gather = |&values: &i64| {
        let x = ones(&[values]);
        time((w - 1.0) * 4.0 * values as f64, || group.gather(&x).map(drop))
    };
    say("gather", &VALUES[..6].iter().map(gather).collect::<Result<Vec<_>>>()?);
    // Two rows, so that there is next to nothing to compute.
    let norm = |&channels: &i64| {
        let (x, c) =
            (Tensor::randn([2, channels], (Kind::Float, Device::Cpu)).set_requires_grad(true), channels as f64);
        let bytes = (w - 1.0) * (16.0 * c + 8.0) + 2.0 * (w - 1.0) / w * 8.0 * c;
        let [weight, bias] = [1.0, 0.0].map(|value| ones(&[channels]) * value);
        time(bytes, || {
            group.batch_norm(&x, Some(&weight), Some(&bias), None, 1e-5)?.sum(None).backward();
            Ok(())
        })
    };
    say("batch norm, both ways", &[16, 64, 256, 1024, 4096, 1 << 14].iter().map(norm).collect::<Result<Vec<_>>>()?);
    Ok(())
}

/// Starts this program as the ranks of one group.
fn launch(count: usize) -> Result<()> {
    ensure!(count > 1, "{count} processes have nothing to say to each other: give 2 or more");
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let start = |rank: usize| {
        let mut command = Command::new(std::env::current_exe()?);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", count.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.spawn().with_context(|| format!("rank {rank} could not be started"))
    };
    let children = (0..count).map(start).collect::<Result<Vec<_>>>()?;
    for mut child in children {
        let status = child.wait()?;
        ensure!(status.success(), "a process ended with {status}");
    }
    Ok(())
}

fn main() -> Result<()> {
    if std::env::var("RANK").is_err() {
        let count = std::env::args().nth(1).map_or(Ok(2), |text| text.parse());
        return launch(count.context("expected the number of processes")?);
    }
    tch::set_num_threads(1);
    let group = Group::join(&Meeting {
        rank: variable("RANK")?.parse()?,
        size: variable("WORLD_SIZE")?.parse()?,
        address: variable("MASTER_ADDR")?,
        port: variable("MASTER_PORT")?.parse()?,
        served: std::env::var("TORCHELASTIC_USE_AGENT_STORE").is_ok_and(|served| served == "True"),
        name: "collectives".into(),
        meet: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
    })?;
    measure(&group)
}
