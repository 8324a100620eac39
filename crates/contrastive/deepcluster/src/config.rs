//! The numbers of both versions; the defaults are the papers'.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// 1 or 2.
    pub version: i64,
    /// Version 1: k, the number of clusters (section 4.1); the best of figure 2c.
    pub clusters: i64,
    /// Version 1: dimensions that PCA keeps (section 3.3), at most as many as the features have.
    pub components: i64,
    /// Version 1: how the images of an epoch are drawn.
    pub sampling: Sampling,
    /// Of k-means; 0: the version's own, 20 in the first one's code, 10 in the second's.
    pub iterations: usize,
    /// Version 2: by which scores are divided (the code of the second paper, as all below).
    pub temperature: f64,
    /// Version 2: sets of prototypes, each clustered by itself.
    pub heads: i64,
    /// Version 2: K, prototypes of a head.
    pub prototypes: i64,
    /// Version 2: the projector's hidden width.
    pub hidden: i64,
    /// Version 2: the width of z.
    pub output: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Every non-empty cluster is drawn equally often (section 3.3).
    UniformClusters,
    /// Every image once: large clusters prevail, and one may come to hold everything.
    Images,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            version: 1,
            clusters: 10_000,
            components: 256,
            sampling: Sampling::UniformClusters,
            iterations: 0,
            temperature: 0.1,
            heads: 3,
            prototypes: 3000,
            hidden: 2048,
            output: 128,
        }
    }
}

impl Config {
    /// Iterations of k-means.
    pub(crate) fn iterations(&self) -> usize {
        match (self.iterations, self.version) {
            (0, 1) => 20,
            (0, _) => 10,
            (n, _) => n,
        }
    }

    /// What the scores are divided by: version 1 has no temperature.
    pub(crate) fn divisor(&self) -> f64 {
        if self.version == 1 { 1.0 } else { self.temperature }
    }
}
