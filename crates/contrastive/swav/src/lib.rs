//! SwAV: Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, "Unsupervised Learning of Visual Features by Contrasting
//! Cluster Assignments", 2020, <https://arxiv.org/abs/2006.09882>.
//!
//! ```text
//! C: K prototypes, unit rows [K, D]
//! for a batch of B images x:                                            (section 3)
//!     x_1, x_2 = two large crops; x_3 .. x_V+2 = V small ones           multi-crop, section 3.2
//!     z_s = g(f(x_s)) / |g(f(x_s))|                                     encoder, projector
//!     p_s = softmax( z_s C' / tau )                                     equation 2
//!     q_t = sinkhorn( z_t C' ),  t = 1, 2, without a gradient           codes, section 3.1
//!     L = 1/2 sum_t  1/(V+1) sum_{s != t}  - mean_b sum_k q_t[b, k] log p_s[b, k]
//! update f, g, C to minimise L;  rows of C <- rows / |rows|
//!
//! sinkhorn(S):  Q = exp(S / epsilon) [B, K]
//!     3 times:  every prototype's column of Q <- column / its sum       the batch is spread over all prototypes
//!               every image's row of Q <- row / its sum                 a code sums to 1
//! ```
//!
//! Where this departs from the paper:
//! 1. Sinkhorn's iteration runs on logarithms, where each normalisation is a log-softmax. It is the same iteration
//!    (the constant factors 1/K, 1/B and the first division by the total cancel), but no epsilon overflows.
//! 2. Prototypes are made unit vectors when they are built and after every step, so what is saved is normalised. The
//!    authors' code does it before every forward pass, which gives the same numbers.
//! 3. While prototypes are frozen they are detached from the graph, so that they have no gradient at all and the
//!    optimiser leaves them alone. The authors' code deletes their gradient, which is the same.
//! 4. The queue is filled and used as in the authors' code: filled from `queue_from` on and used once it is full. Its
//!    length need not be a multiple of the batch.

use anyhow::{Result, ensure};
use selfsup_core::augment::{Crop, Recipe};
use selfsup_core::check::{above_zero, at_least_one, not_negative};
use selfsup_core::encoder::EncoderConfig;
use selfsup_core::group::{self, gather_views};
use selfsup_core::head::{MlpStyle, Network};
use selfsup_core::memory::Queue;
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::store::{Init, Role, assign};
use selfsup_core::tensor::normalise;
use selfsup_core::{Tensor, no_grad};

mod codes;
mod config;
pub use codes::{Codes, sinkhorn};
use codes::{entropy_of_mean, share_used};
pub use config::Config;

pub struct SwAv {
    config: Config,
    network: Network,
    /// C, [K, D], unit rows.
    prototypes: Tensor,
    /// Embeddings of each large crop, if there are queues.
    queues: Vec<Queue>,
    image_size: usize,
}

impl Method for SwAv {
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        if at.step == 0 {
            self.config
                .shortage(batch.len() * group::size())
                .into_iter()
                .for_each(|warning| eprintln!("swav: {warning}"));
        }
        let z = gather_views(&self.network.project_views(&batch.views), batch.views.len());
        let z = normalise(&z); // [V N, D], of all ranks
        let frozen = at.step < first_step(self.config.freeze_epochs, at);
        let c = if frozen { self.prototypes.detach() } else { self.prototypes.shallow_clone() };
        let views = batch.views.len() as i64;
        let (z, scores) = (z.chunk(views, 0), z.matmul(&c.tr()).chunk(views, 0)); // per crop [N, D], [N, K]
        let q: Vec<Tensor> = no_grad(|| (0..2).map(|t| self.codes(t, &z[t], &scores[t], at)).collect());
        let loss = swapped_prediction(&scores, &q, self.config.temperature);
        let (used, entropy) = no_grad(|| (share_used(&scores[..2]), entropy_of_mean(&q)));
        Loss::new(loss).with("prototypes_used", used).with("code_entropy", entropy)
    }

    fn after_step(&mut self, _at: Progress) {
        no_grad(|| assign(&self.prototypes, &normalise(&self.prototypes)));
    }

    /// Section 3.2 and the authors' scripts: large crops of at least 14 % beside small ones, of at least 8 % alone.
    fn views(&self) -> Vec<Recipe> {
        let view = |size, scale| Recipe {
            size,
            crop: Some(Crop { scale, ratio: [0.75, 1.3333333333333333] }),
            ..Recipe::simclr()
        };
        let mut views = vec![view(0, [if self.config.small_crops > 0 { 0.14 } else { 0.08 }, 1.0]); 2];
        views.resize(2 + self.config.small_crops, view(self.config.small_side(self.image_size), [0.05, 0.14]));
        views
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.network.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        Some(self.network.project(x, false))
    }
}

impl SwAv {
    /// q of large crop `t` from its embeddings [N, D] and scores [N, K], with the queue's before them once it is full.
    /// When that is depends on the step alone.
    fn codes(&self, t: usize, z: &Tensor, scores: &Tensor, at: Progress) -> Tensor {
        let n = scores.size()[0];
        let since = at.step.checked_sub(first_step(self.config.queue_from, at));
        let (Some(queue), Some(pushes)) = (self.queues.get(t), since) else {
            return self.config.codes_of(scores);
        };
        let full = pushes as i64 * n >= self.config.queue;
        // Old embeddings, but the prototypes of now.
        let old = full.then(|| queue.rows().matmul(&self.prototypes.tr()));
        queue.push(z);
        let all = Tensor::cat(&old.iter().chain([scores]).collect::<Vec<_>>(), 0);
        self.config.codes_of(&all).narrow(0, all.size()[0] - n, n)
    }
}

/// The first step at which `epochs` are over. A product like 1.1 x 10, which f64 puts just above 11, counts as 11.
fn first_step(epochs: f64, at: Progress) -> u64 {
    (epochs * at.steps_per_epoch() as f64 * (1.0 - 1e-12)).ceil() as u64
}

impl Define for SwAv {
    const NAME: &'static str = "swav";
    const FAMILY: Family = Family::Contrastive;
    const PAPER: &'static str = "Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, Unsupervised Learning of Visual \
                                 Features by Contrasting Cluster Assignments, 2020, https://arxiv.org/abs/2006.09882";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        above_zero("temperature", config.temperature)?;
        above_zero("epsilon", config.epsilon)?;
        at_least_one("sinkhorn_iterations", config.sinkhorn_iterations as i64)?;
        at_least_one("prototypes", config.prototypes)?;
        not_negative("freeze_epochs", config.freeze_epochs)?;
        at_least_one("hidden", config.hidden)?;
        at_least_one("output", config.output)?;
        ensure!(config.small_crops <= 64, "small_crops is {}; expected at most 64", config.small_crops);
        ensure!(config.queue >= 0, "queue is {}; expected a length, or 0 for none", config.queue);
        not_negative("queue_from", config.queue_from)
    }

    fn new(config: Config, setup: &Setup) -> Result<SwAv> {
        setup.expect_views(2 + config.small_crops)?;
        let (path, image_size) = (&setup.path, setup.image()?.size as usize);
        ensure!(
            config.small_crops == 0
                || !setup.views.is_empty()
                || config.small_side(image_size) == image_size
                || !matches!(setup.encoder, EncoderConfig::Vit { .. }),
            "small_crops is {}, but {} takes images of one size only; set method.small_crops to 0 or choose a ResNet",
            config.small_crops,
            setup.encoder
        );
        let Config { hidden, output, prototypes, learn_prototypes, queue, .. } = config;
        let style = MlpStyle { norm: true, hidden_bias: true, last_bias: true };
        let network = Network::new(path, setup, &[hidden, output], style)?;
        let role = if learn_prototypes { Role::Weight } else { Role::Buffer };
        let init = Init::Uniform((output as f64).powf(-0.5));
        let prototypes = (path / "prototypes").variable("weight", &[prototypes, output], role, init);
        no_grad(|| assign(&prototypes, &normalise(&prototypes)));
        let crops = if queue > 0 { 0..2 } else { 0..0 };
        let queues = crops.map(|t| Queue::new(&(path / "queue"), &t.to_string(), queue, output)).collect();
        Ok(SwAv { config, network, prototypes, queues, image_size })
    }

    const INPUTS: &'static [&'static str] = &["a", "b"];

    /// `a`, `b`: the scores z C' of two crops, [N, K] each, as they are.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let (a, b) = given.pair()?;
        ensure!(
            a.size()[0] >= 2,
            "`a` and `b` have one row; expected at least 2, since codes are spread over the rows"
        );
        let scores = [a.shallow_clone(), b.shallow_clone()];
        let q: Vec<Tensor> = no_grad(|| scores.iter().map(|s| config.codes_of(s)).collect());
        Ok(swapped_prediction(&scores, &q, config.temperature))
    }
}

/// L: each of the codes predicted from every crop but its own. `scores`: z_s C' of all crops, [N, K] each; `codes`: q
/// of the first of them.
pub fn swapped_prediction(scores: &[Tensor], codes: &[Tensor], temperature: f64) -> Tensor {
    let log_p: Vec<Tensor> = scores.iter().map(|s| (s / temperature).log_softmax(-1, None)).collect();
    let pairs = codes.iter().enumerate().flat_map(|(t, q)| {
        let others = log_p.iter().enumerate().filter(move |(s, _)| *s != t);
        others.map(move |(_, log_p)| -(q * log_p).sum_dim_intlist([-1].as_slice(), false, None).mean(None))
    });
    Tensor::stack(&pairs.collect::<Vec<_>>(), 0).mean(None)
}

#[cfg(test)]
mod tests;
