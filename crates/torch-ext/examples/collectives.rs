//! How long collectives take between the processes that a launcher started:
//!
//! ```sh
//! cargo build --release -p selfsup-torch-ext --example collectives
//! torchrun --no-python --nproc_per_node=2 target/release/examples/collectives
//! ```
//!
//! Rank 0 prints the median of each in microseconds.

use anyhow::{Context, Result};
use selfsup_torch_ext::{Group, Meeting};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const TIMES: usize = 51;

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: start this by torchrun"))
}

fn median(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[TIMES / 2])
}

fn main() -> Result<()> {
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
    let tell = |what: String, time: f64| {
        if group.rank() == 0 {
            println!("{what:40} {time:10.0}");
        }
    };
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    for values in [1i64, 1 << 10, 1 << 16, 1 << 20, 11 << 20] {
        let x = ones(&[values]);
        tell(format!("all-reduce of {values} f32"), median(|| group.sum_(&[x.shallow_clone()]))?);
    }
    for shape in [[16, 128], [128, 128], [128, 2048]] {
        let x = ones(&shape);
        tell(format!("gather of {shape:?} f32 each"), median(|| group.gather(&x).map(drop))?);
    }
    for shape in [[64, 32, 16, 16], [64, 64, 32, 32]] {
        let x = ones(&shape).set_requires_grad(true);
        let [w, b] = [1.0, 0.0].map(|value| ones(&[shape[1]]) * value);
        let none = None::<&Tensor>;
        let own = median(|| {
            x.batch_norm(Some(&w), Some(&b), none, none, true, 0.1, 1e-5, true).sum(None).backward();
            Ok(())
        })?;
        let all = median(|| {
            group.batch_norm(&x, Some(&w), Some(&b), None, 1e-5)?.sum(None).backward();
            Ok(())
        })?;
        tell(format!("batch norm of {shape:?}, both ways"), own);
        tell("the same over all ranks".into(), all);
    }
    Ok(())
}
