//! The numbers of InterCLR; the defaults are the authors' for ImageNet.

use serde::{Deserialize, Serialize};

/// Which rows of another label are negatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Drawn from the `nearest` most similar ones.
    SemiHard,
    /// The most similar ones.
    Hard,
    /// Drawn from all.
    Random,
}

/// The authors' numbers for ImageNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// tau of both terms.
    pub temperature: f64,
    /// a, the weight of the old key network.
    pub tau: f64,
    /// K, keys in the queue.
    pub queue: i64,
    /// Hidden width of the projector.
    pub hidden: i64,
    /// Width of the embedding.
    pub output: i64,
    /// w, the weight of the inter-image term; 0 is MoCo, 1 the inter-image term alone.
    pub weight: f64,
    /// m, taken off the cosine of the inter-image pair: above 0 stricter, below 0 easier.
    pub margin: f64,
    /// Clusters, k.
    pub clusters: i64,
    /// Negatives of the inter-image term.
    pub negatives: i64,
    /// Rows of another label that semi-hard negatives are drawn from.
    pub nearest: i64,
    /// How negatives are chosen.
    pub sampling: Sampling,
    /// Labels follow every step; otherwise they are those of k-means before each epoch.
    pub online: bool,
    /// Steps between two updates of the centroids.
    pub update_every: i64,
    /// Clusters of fewer images are dissolved.
    pub min_size: i64,
    /// G, parts of the batch with BatchNorm statistics of their own, as on so many GPUs; the keys' hold other images than
    /// the queries'. 1: the whole batch.
    pub groups: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            temperature: 0.2,
            tau: 0.999,
            queue: 65536,
            hidden: 2048,
            output: 128,
            weight: 0.25,
            margin: -0.5,
            clusters: 10000,
            negatives: 16384,
            nearest: 128_000,
            sampling: Sampling::SemiHard,
            online: true,
            update_every: 10,
            min_size: 20,
            groups: 8,
        }
    }
}
