//! InstDisc (also NPID): Wu, Xiong, Yu and Lin, "Unsupervised Feature Learning via Non-Parametric Instance
//! Discrimination", 2018, <https://arxiv.org/abs/1805.01978>.
//!
//! ```text
//! a bank V of one row for each of n images, random at the start          (section 3)
//! for a batch of images x_i:
//!     v = f(aug(x_i)) / |f(aug(x_i))|                                    [B, D]
//!     P(i|v) = exp(V_i . v / t) / Z,  Z = sum_j exp(V_j . v / t)         (equation 2)
//!     full softmax:  L = -log P(i|v)                                     (equation 3)
//!     NCE, m negatives j drawn uniformly from all images, P_n = 1/n:     (equations 4 to 8)
//!         Z ~ n mean exp(V_j . v / t), once, on the first batch; a constant from then on
//!         h(i, v) = P(i|v) / (P(i|v) + m P_n)
//!         L = -log h(i, v) - sum_j log(1 - h(j, v))
//!     minimise L over f
//!     V_i <- normalise(tau V_i + (1 - tau) v)
//! what it is compared with:  P(i|v) = exp(w_i . v) / sum_j exp(w_j . v), w trained, v of any length   (equation 1)
//! ```
//!
//! Where this departs from the paper:
//! 1. The bank keeps half of the old row (`tau`), as the authors' code does; the paper's update is V_i <- v.
//! 2. There is no proximal term lambda |v - V_i|^2 (section 3.3): the authors' code has none either, the half that the
//!    bank keeps is in its place.
//! 3. In denominators of h stands 1e-7 more, which the authors' code has. With a million images it moves the loss by
//!    about 0.1 and the gradient by less than 1e-4 of itself.
//! 4. The bank is updated once the loss has read it, the authors' in the backward pass: the same numbers, as each image
//!    is in a batch once.
//! 5. In a view the flip comes before colour, and grey after jitter; the authors' code for ImageNet has the reverse.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::{above_zero, at_least_one, share};
use selfsup_core::group::gather;
use selfsup_core::head::{MlpStyle, Network};
use selfsup_core::loss::{accuracy, cross_entropy};
use selfsup_core::memory::Bank;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::{Init, Role, assign};
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// t, by which similarities are divided. 0.07 for ImageNet (section 4.2); 0.1 for CIFAR-10 in the authors' code.
    pub temperature: f64,
    /// m, negatives of each image (section 4.2; varied in table 1); 0: the softmax over all images.
    pub negatives: usize,
    /// The weight of an image's old row when its new one enters the bank (`nce-m` of the authors' code).
    pub tau: f64,
    /// D, the width of v (section 3).
    pub output: i64,
    /// Whether the softmax is the parametric one that the paper compares with: a trained weight for each image instead
    /// of its row of the bank (equation 1, table 1).
    pub parametric: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config { temperature: 0.07, negatives: 4096, tau: 0.5, output: 128, parametric: false }
    }
}

pub struct InstDisc {
    config: Config,
    network: Network,
    rows: Rows,
    /// log Z, a scalar, and before it whether it is known: [2]. None for the full softmax.
    log_z: Option<Tensor>,
    samples: usize,
}

/// What stands for each image in the softmax, [n, D].
enum Rows {
    /// V: what the network said of it last.
    Bank(Bank),
    /// W: a trained weight.
    Weights(Tensor),
}

impl Method for InstDisc {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let z = self.network.project(&batch.views[0].x, true); // [B, D]
        let (i, t) = (batch.places(), self.config.temperature);
        let bank = match &self.rows {
            Rows::Bank(bank) => bank,
            Rows::Weights(w) => return softmax(&z.matmul(&w.tr()), &i),
        };
        let v = normalise(&z);
        let loss = if let Some(known) = &self.log_z {
            let s = scores(&v, |places| bank.at(places), &i, &self.negatives(batch), t); // [B, 1 + m]
            let first = s.detach().argmax(-1, false).eq(0).to_kind(Kind::Float).mean(None);
            let (is_known, log_z) = (known.get(0), known.get(1));
            let log_z = log_z.where_self(&is_known.gt(0.0), &estimate_log_z(&s, self.samples));
            assign(known, &Tensor::stack(&[log_z.ones_like(), log_z.shallow_clone()], 0));
            Loss::new(nce(&s, &log_z, self.samples)).with("accuracy", first).with("log_z", log_z)
        } else {
            softmax(&(v.matmul(&bank.rows().tr()) / t), &i)
        };
        bank.update(&gather(&i), &gather(&v), self.config.tau);
        loss
    }

    /// The authors' code for ImageNet.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::moco_v1()]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.network.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.network.project(x, false))
    }
}

impl Define for InstDisc {
    const NAME: &'static str = "instdisc";
    const FAMILY: Family = Family::Contrastive;
    const PAPER: &'static str = "Wu, Xiong, Yu and Lin, Unsupervised Feature Learning via Non-Parametric Instance \
                                 Discrimination, 2018, https://arxiv.org/abs/1805.01978";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        above_zero("temperature", config.temperature)?;
        share("tau", config.tau)?;
        let m = config.negatives;
        ensure!(
            m == 0 || !config.parametric,
            "negatives is {m}; expected 0 with `parametric`, whose softmax has all images"
        );
        at_least_one("output", config.output)
    }

    fn new(config: Config, setup: &Setup) -> Result<InstDisc> {
        setup.expect_views(1)?;
        let path = &setup.path;
        let style = MlpStyle { norm: false, hidden_bias: true, last_bias: true };
        let network = Network::new(path, setup, &[config.output], style)?;
        let rows = if config.parametric {
            let init = Init::Uniform((config.output as f64).powf(-0.5)); // a linear layer's
            Rows::Weights(path.variable("weights", &[setup.samples as i64, config.output], Role::Weight, init))
        } else {
            Rows::Bank(Bank::new(path, "bank", setup.samples, config.output))
        };
        let log_z = (config.negatives > 0).then(|| path.variable("log_z", &[2], Role::Buffer, Init::Const(0.0)));
        Ok(InstDisc { config, network, rows, log_z, samples: setup.samples })
    }

    const INPUTS: &'static [&'static str] = &["a", "bank", "index", "negatives"];

    /// With `negatives`, [N, m] places in `bank`, the NCE form, Z estimated from these tensors as on a first batch;
    /// without, the softmax over all rows. Rows of `bank` are taken as they are; if `parametric` they are the weights.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let a = given.rows("a")?;
        let bank = given.rows_as_wide("bank", a)?;
        let n = bank.size()[0];
        let i = given.indices("index", n)?;
        let (v, t, rows) = (normalise(a), config.temperature, a.size()[0]);
        ensure!(i.size() == [rows], "`index` has {} entries; expected {rows}, one for each row of `a`", i.size()[0]);
        if config.parametric {
            return Ok(cross_entropy(&a.matmul(&bank.tr()), i));
        }
        let Some(j) = given.optional("negatives") else {
            return Ok(cross_entropy(&(v.matmul(&bank.tr()) / t), i));
        };
        ensure!(
            j.kind() == Kind::Int64 && j.dim() == 2 && j.size()[0] == rows && j.size()[1] > 0,
            "`negatives` is {:?} {:?}; expected [{rows}, m] 64-bit whole numbers",
            j.kind(),
            j.size()
        );
        let (low, high) = (j.min().int64_value(&[]), j.max().int64_value(&[]));
        ensure!(low >= 0 && high < n, "`negatives` holds {low} to {high}; expected 0 to {}", n - 1);
        let s = scores(&v, |places| bank.index_select(0, places), i, j, t);
        Ok(nce(&s, &estimate_log_z(&s, n as usize), n as usize))
    }
}

impl InstDisc {
    /// m places in the bank for each image, uniform on all of them: its own may be among them, as in the authors' code.
    fn negatives(&self, batch: &Batch) -> Tensor {
        let m = self.config.negatives;
        let mut places = Vec::with_capacity(batch.len() * m);
        for &index in &batch.index {
            let mut rng = Rng::new(batch.seed, Purpose::Mask, batch.epoch, index as u64, 0);
            places.extend((0..m).map(|_| rng.below(self.samples) as i64));
        }
        Tensor::from_slice(&places).view([batch.len() as i64, m as i64]).to_device(batch.device())
    }
}

/// Cross-entropy of the scores of all n images, [B, n], with places `[B]`.
fn softmax(s: &Tensor, i: &Tensor) -> Loss {
    Loss::new(cross_entropy(s, i)).with("accuracy", accuracy(s, i))
}

/// V_j . v / t for j = i and then each negative, [B, D], [B], [B, m] -> [B, 1 + m]; `bank` gives the rows at places.
fn scores(v: &Tensor, bank: impl Fn(&Tensor) -> Tensor, i: &Tensor, negatives: &Tensor, t: f64) -> Tensor {
    let places = Tensor::cat(&[&i.unsqueeze(-1), negatives], 1); // [B, 1 + m]
    let rows = bank(&places.flatten(0, 1)).view([places.size()[0], places.size()[1], -1]);
    rows.matmul(&v.unsqueeze(-1)).squeeze_dim(-1) / t
}

/// log Z = log(n mean exp(s)) over all of s, the positives too, as in the authors' code. A constant: without gradient.
fn estimate_log_z(s: &Tensor, n: usize) -> Tensor {
    let s = s.detach();
    let ranks = gather(&s.flatten(0, -1).logsumexp([0].as_slice(), true)); // of each rank's s, [W]
    let (count, log_sum) = (s.numel() as i64 * ranks.size()[0], ranks.logsumexp([0].as_slice(), false));
    log_sum + (n as f64 / count as f64).ln()
}

/// -log h(i) - sum_j log(1 - h(j)), the mean over rows of the scores s, [B, 1 + m], whose first column is i's. In
/// logarithms, so that no exp(s) overflows at a small temperature.
pub fn nce(s: &Tensor, log_z: &Tensor, n: usize) -> Tensor {
    let log_p = s - log_z;
    let noise = (s.size()[1] - 1) as f64 / n as f64; // m P_n
    let log_both = log_p.logaddexp(&log_p.full_like((noise + 1e-7).ln())); // log(P + m P_n)
    let log_one = noise.ln() - log_both.slice(1, 1, None, 1); // log(1 - h), [B, m]
    let log_h = (log_p - log_both).select(1, 0); // [B]
    -(log_h + log_one.sum_dim_intlist([-1].as_slice(), false, None)).mean(None)
}

#[cfg(test)]
mod tests;
