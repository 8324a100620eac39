//! SimCLR: Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual
//! Representations", 2020, <https://arxiv.org/abs/2002.05709>.
//!
//! ```text
//! for a batch of N images x_k:                                   (algorithm 1)
//!     x~_2k-1, x~_2k = t(x_k), t'(x_k)                           two views of each
//!     h = f(x~), z = g(h)                                        encoder, projector: 2N rows each
//!     s_ij = z_i . z_j / (|z_i| |z_j|)
//!     l(i, j) = -log( exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau) )
//!     L = 1 / 2N  sum_k [ l(2k-1, 2k) + l(2k, 2k-1) ]
//! update f, g to minimise L
//! ```
//!
//! Where this departs from the paper:
//! 1. Both views pass through the networks as one batch, all first views before all second ones, so that batch
//!    statistics are joint. The order of the rows changes no number.
//! 2. L is the mean over the 2N rows, as printed. The authors' code adds the means of the two directions, which is
//!    twice as much, and its learning rates belong to that sum.
//! 3. The projector's hidden layers have a BatchNorm, which the authors' code has and the paper's equation has not
//!    (`norm = false`: none); that code's other norm, on the output, is left out.
//! 4. Linear layers start with PyTorch's values, not with a standard deviation of 0.01, as in every method here.
//! 5. `negatives` (fewer of them), `debias`, `predictor` and `stop_gradient` are not the paper's; the defaults are.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::check::{above_zero, at_least_one};
use selfsup_core::group::{gather, gather_views};
use selfsup_core::head::{Mlp, MlpStyle, Network, widths};
use selfsup_core::loss::{info_nce, info_nce_debiased};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::rng::Purpose;
use selfsup_core::tensor;
use selfsup_core::{Kind, Tensor};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// tau, by which similarities are divided. 0.1 for ImageNet (table 5); 0.5 for CIFAR-10 (appendix B.9).
    pub temperature: f64,
    /// The projector's linear layers: 2 (section 4.2); 1 makes it linear, 0 leaves it out, z = h (figure 8).
    pub layers: usize,
    /// The width of the projector's hidden layers (section 4.2).
    pub hidden: i64,
    /// The width of z (section 4.2), where there is a projector.
    pub output: i64,
    /// BatchNorm in the projector's hidden layers, as in the authors' code; without it all layers have biases.
    pub norm: bool,
    /// Whether similarities are cosines; otherwise they are dot products, and tau is 10 or 100 (table 5).
    pub normalise: bool,
    /// Negatives of each row, a random choice of the 2N - 2 in the batch; 0: all of them, as in the paper.
    pub negatives: usize,
    /// tau+, the share of negatives that belong to a row's own class (Chuang et al. 2020, arXiv 2007.00224); 0: NT-Xent.
    pub debias: f64,
    /// The hidden width of a predictor behind one side of every pair, as SimSiam adds it (arXiv 2011.10566, section 6.2);
    /// 0: none.
    pub predictor: i64,
    /// Whether the other side is a constant to the gradient (the same).
    pub stop_gradient: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            temperature: 0.1,
            layers: 2,
            hidden: 2048,
            output: 128,
            norm: true,
            normalise: true,
            negatives: 0,
            debias: 0.0,
            predictor: 0,
            stop_gradient: false,
        }
    }
}

pub struct SimClr {
    config: Config,
    network: Network,
    predictor: Option<Mlp>,
}

impl Method for SimClr {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let z = gather_views(&self.network.project_views(&batch.views), 2); // [2N, D], of all ranks
        let (positive, mut negatives) = pairs(&self.similarities(&z)); // [2N], [2N, 2N - 2]
        if self.config.negatives > 0 {
            negatives = negatives.gather(-1, &chosen(batch, self.config.negatives), false); // [2N, negatives]
        }
        let accuracy = positive.gt_tensor(&negatives.amax([-1], false)).to_kind(Kind::Float).mean(None);
        Loss::new(nt_xent(&positive, &negatives, &self.config)).with("accuracy", accuracy)
    }

    /// Appendix A with strength 1.
    fn views(&self) -> Vec<Recipe> {
        vec![Recipe::simclr(); 2]
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.network.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.network.project(x, false))
    }
}

impl Define for SimClr {
    const NAME: &'static str = "simclr";
    const FAMILY: Family = Family::Contrastive;
    const PAPER: &'static str = "Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of \
                                 Visual Representations, 2020, https://arxiv.org/abs/2002.05709";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        let Config { debias, normalise, .. } = *config;
        above_zero("temperature", config.temperature)?;
        ensure!(config.layers <= 64, "layers is {}; expected at most 64", config.layers);
        at_least_one("hidden", config.hidden)?;
        at_least_one("output", config.output)?;
        ensure!(config.predictor >= 0, "predictor is {}; expected a width, or 0 for none", config.predictor);
        ensure!((0.0..1.0).contains(&debias), "debias is {debias}; expected a number from 0 to below 1");
        ensure!(
            normalise || debias == 0.0,
            "debias is {debias}; expected 0 with `normalise = false`: it needs cosines"
        );
        Ok(())
    }

    fn new(config: Config, setup: &Setup) -> Result<SimClr> {
        setup.expect_views(2)?;
        let Config { layers, hidden, output, norm, .. } = config;
        let style = MlpStyle { norm, hidden_bias: !norm, last_bias: !norm };
        let network = Network::new(&setup.path, setup, &widths(layers, hidden, output), style)?;
        let predictor = (config.predictor > 0).then(|| {
            let dim = if layers > 0 { output } else { network.encoder.dim() };
            let style = MlpStyle { norm: true, hidden_bias: false, last_bias: true };
            Mlp::new(&(&setup.path / "predictor"), &[dim, config.predictor, dim], style)
        });
        Ok(SimClr { config, network, predictor })
    }

    const INPUTS: &'static [&'static str] = &["a", "b"];

    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        ensure!(a.size()[0] >= 2, "`a` and `b` have one row; expected at least 2, since negatives are other rows");
        let n = config.negatives;
        ensure!(n == 0, "negatives is {n}; expected 0: which ones are chosen depends on the images of a run");
        ensure!(
            config.predictor == 0 && !config.stop_gradient,
            "predictor or stop_gradient is on; expected neither: embeddings alone have no prediction"
        );
        let z = config.rows(&Tensor::cat(&[a, b], 0));
        let (positive, negatives) = pairs(&z.matmul(&z.tr()));
        Ok(nt_xent(&positive, &negatives, config))
    }
}

/// NT-Xent (equation 1), the mean over 2N rows, of the similarity of each with its positive, `[2N]`, and with its
/// negatives, [2N, K]; with `debias` the form of Chuang et al.
pub fn nt_xent(positive: &Tensor, negatives: &Tensor, config: &Config) -> Tensor {
    match *config {
        Config { debias: 0.0, temperature, .. } => info_nce(positive, negatives, temperature),
        Config { debias, temperature, .. } => info_nce_debiased(positive, negatives, temperature, debias),
    }
}

impl SimClr {
    /// s_ij of all pairs of rows, [2N, D] -> [2N, 2N]; of predictions with projections, where there is a predictor.
    fn similarities(&self, z: &Tensor) -> Tensor {
        let rows = self.config.rows(z);
        let p = self.predictor.as_ref().map(|h| self.config.rows(&h.forward(z, true)));
        let targets = if self.config.stop_gradient { rows.detach() } else { rows.shallow_clone() };
        p.unwrap_or(rows).matmul(&targets.tr())
    }
}

impl Config {
    /// Rows whose inner products are cosines, or dot products.
    fn rows(&self, z: &Tensor) -> Tensor {
        if self.normalise { tensor::normalise(z) } else { z.shallow_clone() }
    }
}

/// The entries of [2N, 2N] at each row's positive (the same image's other view, N rows away), `[2N]`, and at its
/// negatives, [2N, 2N - 2]. A row itself is in neither.
pub fn pairs(s: &Tensor) -> (Tensor, Tensor) {
    let n = s.size()[0] / 2;
    let block = |row: i64, column: i64| s.narrow(0, row * n, n).narrow(1, column * n, n); // [N, N]
    let [aa, ab, ba, bb] = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(row, column)| block(row, column));
    let positive = Tensor::cat(&[ab.diagonal(0, 0, 1), ba.diagonal(0, 0, 1)], 0);
    // Each block without its diagonal: read in rows of N + 1 without its last entry, it begins each row with one.
    let rest =
        |x: Tensor| x.reshape([-1]).narrow(0, 0, n * n - 1).view([n - 1, n + 1]).narrow(1, 1, n).reshape([n, n - 1]);
    let [aa, ab, ba, bb] = [aa, ab, ba, bb].map(rest);
    (positive, Tensor::cat(&[Tensor::cat(&[aa, ab], 1), Tensor::cat(&[ba, bb], 1)], 0))
}

/// Which negatives count, places in the rows of [`pairs`]: [2N, count]. Of two candidates a row prefers the one with the
/// smaller part of 2^16 u v behind the point, u drawn for the row, v for the candidate. That depends on their images
/// alone, not on what else is in the batch, and a product of two f32 is exact in f64, on any device.
fn chosen(batch: &Batch, count: usize) -> Tensor {
    let draws = gather(&batch.uniform(Purpose::Mask, 4)).to_kind(Kind::Double); // [N, 4]: u and v of either view
    let both = |column| Tensor::cat(&[draws.narrow(1, column, 1), draws.narrow(1, column + 1, 1)], 0); // [2N, 1]
    let (_, rank) = pairs(&(both(0) * 65536.0).matmul(&both(2).tr()).frac());
    let count = rank.size()[1].min(count as i64);
    rank.topk(count, -1, false, false).1
}

#[cfg(test)]
mod tests;
