//! DeepCluster: Caron, Bojanowski, Joulin and Douze, "Deep Clustering for Unsupervised Learning of Visual Features",
//! 2018, <https://arxiv.org/abs/1807.05520>; its second version: Caron, Misra, Mairal, Goyal, Bojanowski and Joulin,
//! "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020, appendix D,
//! <https://arxiv.org/abs/2006.09882>.
//!
//! ```text
//! version 1, for each epoch:                                                              (section 3.2)
//!     y = k-means(PCA-whitened, L2-normalised f(x_n) of all images, k clusters)           f as evaluation sees it
//!     W <- drawn anew
//!     for batches drawn with equal probability of every cluster:                          (section 3.3)
//!         L = 1/N sum_n l(W f(t(x_n)) + b, y_n)                                           l: softmax cross-entropy
//!
//! version 2: banks B_c, the last z of every image's crop c, at first one pass over all images
//!     for each epoch:
//!         C_h, y_h = spherical k-means(B_(h mod 2), K prototypes)     for h in heads;     C_h is not trained
//!         for batches of images: crops x_c = t_c(x), z_c = g(f(x_c)) / |g(f(x_c))|
//!             L = mean over h, c, n of l(C_h z_c / temperature, y_h)
//!             B_c <- z_c                                                                  rows of this batch
//! ```
//!
//! Where this departs from the paper:
//! 1. Features are the encoder's output after average pooling. AlexNet's and VGG's have two more layers with dropout,
//!    of which the last ReLU is cut off before clustering; a ResNet's pooled ReLUs cannot be.
//! 2. No Sobel filter before the network; it belongs to those two architectures.
//! 3. W and b are stepped by the run's optimiser, at its peak rate throughout, since they are new in every epoch; what
//!    it remembers of them is forgotten. The authors' code gives them SGD of their own, without momentum, and has one
//!    constant rate for everything.
//! 4. Version 2's first bank is one pass over the whole images in evaluation mode, so every image has a label in
//!    every epoch. The authors' code passes augmented crops in training mode, one per crop.
//! 5. Initial centroids are rows drawn from the whole training set. The second code draws them on one of its processes.
//! 6. Images are clustered whole; the authors' code looks at the middle 224 of 256 pixels.

use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::Plain;
use selfsup_core::check::{above_zero, at_least_one};
use selfsup_core::cluster::{Empty, KMeans, Metric, nmi, sizes};
use selfsup_core::encoder::Encoder;
use selfsup_core::group::gather;
use selfsup_core::head::encode_views;
use selfsup_core::loss::{accuracy, cross_entropy};
use selfsup_core::method::{Batch, Define, Family, Loss, Method, Setup};
use selfsup_core::objective::Given;
use selfsup_core::progress::Progress;
use selfsup_core::rng::{Purpose, Rng};
use selfsup_core::store::assign;
use selfsup_core::tensor::normalise;
use selfsup_core::{Kind, Tensor};

mod config;
mod head;
mod sampling;
mod whitening;

pub use config::{Config, Sampling};
use head::Head;
pub use sampling::uniform_clusters;
pub use whitening::whiten;

pub struct DeepCluster {
    config: Config,
    seed: u64,
    encoder: Box<dyn Encoder>,
    head: Head,
    /// y, [heads, images] i64.
    assignment: Tensor,
    /// Of the clustering of this epoch: [`TOLD`].
    told: Tensor,
}

/// NMI with the assignment before, clusters that have images, the share of images in the largest; means over heads.
const TOLD: [&str; 3] = ["nmi", "clusters", "largest"];

impl Method for DeepCluster {
    fn loss(&mut self, batch: &Batch, _at: Progress) -> Loss {
        let crops = batch.views.len() as i64;
        let f = encode_views(&*self.encoder, &batch.views); // [crops B, E], all first crops, then all second ones
        let y = self.assignment.index_select(1, &batch.places()).repeat([1, crops]); // [heads, crops B]
        let scores = match &self.head {
            Head::Classifier(w) => vec![w.forward(&f)], // W f + b
            Head::Prototypes { g, c, banks } => {
                let z = normalise(&g.forward(&f, true)); // [crops B, D]
                let z_c = z.chunk(crops, 0);
                for (i, bank) in banks.iter().enumerate() {
                    bank.update(&gather(&batch.places()), &gather(&z_c[i % z_c.len()]), 0.0);
                }
                c.iter().map(|c_h| z.matmul(&c_h.tr())).collect() // C_h z
            }
        };
        let l = |(scores, y): (&Tensor, &Tensor)| cluster_loss(scores, y, self.config.divisor());
        let losses: Vec<Tensor> = scores.iter().zip(&y.unbind(0)).map(l).collect();
        let right = accuracy(&scores[0], &y.get(0));
        let loss = Loss::new(Tensor::stack(&losses, 0).mean(None)).with("accuracy", right);
        TOLD.into_iter().zip(self.told.unbind(0)).fold(loss, |loss, (name, value)| loss.with(name, value))
    }

    fn before_epoch(&mut self, at: Progress, images: &Plain) -> Result<Vec<String>> {
        let kmeans = |k, metric, empty| KMeans { k, iterations: self.config.iterations(), metric, empty };
        let rng = |head| Rng::new(self.seed, Purpose::Cluster, at.epoch, head, 0);
        match &self.head {
            Head::Classifier(w) => {
                let f = finite(images.map(|x| self.encoder.forward(x, false))?)?;
                let f = whiten(&f, self.config.components);
                let found = kmeans(self.config.clusters, Metric::Euclidean, Empty::Split).fit(&f, &mut rng(0))?;
                self.remember(&[found.assignment]);
                head::draw(w, self.seed, at.epoch);
                Ok(vec![head::CLASSIFIER.into()])
            }
            Head::Prototypes { c, banks, .. } => {
                if at.step == 0 {
                    let z = images.map(|x| normalise(&self.embedding(x).expect("version 2 has embeddings")))?;
                    banks.iter().for_each(|bank| bank.set(&z));
                }
                let kmeans = kmeans(self.config.prototypes, Metric::Cosine, Empty::Keep);
                let cluster = |(h, c_h): (usize, &Tensor)| {
                    let found = kmeans.fit(&finite(banks[h % 2].rows())?, &mut rng(h as u64))?;
                    assign(c_h, &found.centroids);
                    Ok(found.assignment)
                };
                let found: Result<Vec<Tensor>> = c.iter().enumerate().map(cluster).collect();
                self.remember(&found?);
                Ok(Vec::new())
            }
        }
    }

    fn order(&self, at: Progress) -> Option<Vec<usize>> {
        let balanced = self.config.version == 1 && self.config.sampling == Sampling::UniformClusters;
        let mut rng = Rng::new(self.seed, Purpose::Order, at.epoch, 0, 0);
        balanced.then(|| uniform_clusters(&numbers(&self.assignment.get(0)), self.config.clusters, &mut rng))
    }

    /// Version 1: crop and flip (the first paper's code). Version 2: two crops and SimCLR's colours (the second's).
    fn views(&self) -> Vec<Recipe> {
        if self.config.version == 1 { vec![Recipe::crop_and_flip(0.08)] } else { vec![Recipe::simclr(); 2] }
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(x, train)
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        match &self.head {
            Head::Classifier(_) => None,
            Head::Prototypes { g, .. } => Some(g.forward(&self.encoder.forward(x, false), false)),
        }
    }
}

impl Define for DeepCluster {
    const NAME: &'static str = "deepcluster";
    const FAMILY: Family = Family::Contrastive;
    const PAPER: &'static str = "Caron, Bojanowski, Joulin and Douze, Deep Clustering for Unsupervised Learning of \
                                 Visual Features, 2018, https://arxiv.org/abs/1807.05520";
    const MIN_BATCH: usize = 2;
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        ensure!([1, 2].contains(&config.version), "version is {}; expected 1 or 2", config.version);
        above_zero("temperature", config.temperature)?;
        let Config { clusters, components, heads, prototypes, hidden, output, .. } = *config;
        let sizes = [clusters, components, heads, prototypes, hidden, output];
        let keys = ["clusters", "components", "heads", "prototypes", "hidden", "output"];
        keys.into_iter().zip(sizes).try_for_each(|(key, n)| at_least_one(key, n))
    }

    fn new(config: Config, setup: &Setup) -> Result<DeepCluster> {
        let (path, samples) = (&setup.path, setup.samples);
        let (key, k) =
            if config.version == 1 { ("clusters", config.clusters) } else { ("prototypes", config.prototypes) };
        ensure!(k <= samples as i64, "{key} is {k}; expected at most {samples}, the number of training images");
        let encoder = setup.build_encoder(&(path / "encoder"))?;
        let (head, heads) = match config.version {
            1 => (Head::classifier(path, encoder.dim(), &config), 1),
            _ => (Head::prototypes(path, encoder.dim(), samples, &config), config.heads),
        };
        let assignment =
            path.buffer("assignment", &Tensor::zeros([heads, samples as i64], (Kind::Int64, path.device())));
        let told = path.buffer("clustering", &Tensor::zeros([TOLD.len() as i64], (Kind::Float, path.device())));
        Ok(DeepCluster { config, seed: path.seed(), encoder, head, assignment, told })
    }

    const INPUTS: &'static [&'static str] = &["a", "labels"];

    /// `a`: scores of the clusters, [N, K], in version 2 before the division by the temperature; `labels`: `[N]`.
    fn objective(config: &Config, given: &Given) -> Result<Tensor> {
        let scores = given.rows("a")?;
        Ok(cluster_loss(scores, given.indices("labels", scores.size()[1])?, config.divisor()))
    }
}

/// l of scores [N, K] and the numbers of the clusters `[N]`, the mean over rows.
pub fn cluster_loss(scores: &Tensor, clusters: &Tensor, temperature: f64) -> Tensor {
    cross_entropy(&(scores / temperature), clusters)
}

fn finite(x: Tensor) -> Result<Tensor> {
    let finite = x.isfinite().all().int64_value(&[]) == 1;
    ensure!(finite, "the features of the training images are not finite, so they have no clusters; try a lower rate");
    Ok(x)
}

fn numbers(assignment: &Tensor) -> Vec<i64> {
    Vec::try_from(assignment).expect("an assignment is a row of whole numbers")
}

impl DeepCluster {
    /// Keeps the assignment [images] of each head, and what there is to tell of it.
    fn remember(&self, found: &[Tensor]) {
        let k = if self.config.version == 1 { self.config.clusters } else { self.config.prototypes };
        let told = found.iter().zip(self.assignment.unbind(0)).map(|(new, old)| {
            let sizes = sizes(new, k);
            let filled = sizes.gt(0).sum(Kind::Int64).int64_value(&[]);
            let largest = sizes.max().int64_value(&[]) as f64 / new.numel() as f64;
            Tensor::from_slice(&[nmi(&numbers(new), &numbers(&old)), filled as f64, largest])
        });
        assign(
            &self.told,
            &Tensor::stack(&told.collect::<Vec<_>>(), 0).mean_dim([0i64].as_slice(), false, Kind::Double),
        );
        assign(&self.assignment, &Tensor::stack(found, 0));
    }
}

#[cfg(test)]
mod tests;
