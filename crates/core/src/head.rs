//! Heads that two or more methods put on an encoder, and the network that both make.

use crate::encoder::Encoder;
use crate::group::{self, Norms};
use crate::layer::{BatchNorm, Linear, MOMENTUM};
use crate::method::{Setup, View};
use crate::precision;
use crate::store::{Path, Variable, assign};
use anyhow::Result;
use tch::{Kind, Tensor, no_grad};

/// The rows of `x` through `f` in `groups` consecutive parts of almost equal size, of two rows at least: each part has
/// the batch statistics that it would have on a GPU of its own.
fn in_groups(x: &Tensor, groups: i64, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let parts: Vec<Tensor> = x.tensor_split(groups.min(x.size()[0] / 2).max(1), 0).iter().map(f).collect();
    Tensor::cat(&parts, 0)
}

/// Linear layers with ReLU between them: the projector and the predictor of the joint-embedding methods.
pub struct Mlp {
    layers: Vec<(Linear, Option<BatchNorm>)>,
}

/// What stands in and after the layers of an [`Mlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlpStyle {
    /// BatchNorm before every ReLU.
    pub norm: bool,
    /// Biases of the layers before the last.
    pub hidden_bias: bool,
    /// Bias of the last layer.
    pub last_bias: bool,
}

impl Mlp {
    /// Widths from input to output, at least two.
    pub fn new(path: &Path, widths: &[i64], style: MlpStyle) -> Mlp {
        assert!(widths.len() >= 2, "an MLP needs an input and an output width");
        let last = widths.len() - 2;
        let layers = widths.windows(2).enumerate().map(|(i, w)| {
            let (path, hidden) = (path / i, i < last);
            let bias = if hidden { style.hidden_bias } else { style.last_bias };
            let linear = Linear::new(&path, w[0], w[1], bias);
            (linear, (hidden && style.norm).then(|| BatchNorm::new(&(&path / "norm"), w[1])))
        });
        Mlp { layers: layers.collect() }
    }

    /// The same, with a BatchNorm without weight and bias behind the last layer (SimSiam's projector).
    pub fn with_final_norm(path: &Path, widths: &[i64], style: MlpStyle) -> Mlp {
        let mut mlp = Mlp::new(path, widths, style);
        let last = widths.len() - 2;
        mlp.layers[last].1 = Some(BatchNorm::without_affine(&(path / last / "norm"), widths[last + 1]));
        mlp
    }

    /// [B, widths.first] -> [B, widths.last] f32.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        precision::network(x.device(), || {
            let mut x = x.shallow_clone();
            for (i, (linear, norm)) in self.layers.iter().enumerate() {
                x = linear.forward(&x);
                if let Some(norm) = norm {
                    x = norm.forward(&x, train);
                }
                if i + 1 < self.layers.len() {
                    x = x.relu_();
                }
            }
            x.to_kind(Kind::Float)
        })
    }
}

/// What a view passes through in the joint-embedding methods: an encoder, h = f(x), and a projector, z = g(h).
pub struct Network {
    pub encoder: Box<dyn Encoder>,
    /// None: z = h.
    pub projector: Option<Mlp>,
    /// The running statistics of both.
    statistics: Vec<Tensor>,
}

impl Network {
    /// Builds the run's encoder at `encoder` below `path` and a projector at `projector`, with these widths behind the
    /// encoder's; without any there is none.
    ///
    /// # Errors
    /// If the encoder cannot read what the data hold.
    pub fn new(path: &Path, setup: &Setup, widths: &[i64], style: MlpStyle) -> Result<Network> {
        let encoder = setup.build_encoder(&(path / "encoder"))?;
        let widths = [&[encoder.dim()], widths].concat();
        let projector = (widths.len() > 1).then(|| Mlp::new(&(path / "projector"), &widths, style));
        Ok(Network { encoder, projector, statistics: statistics(path) })
    }

    /// The same, its projector [`Mlp::with_final_norm`].
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn with_final_norm(path: &Path, setup: &Setup, widths: &[i64], style: MlpStyle) -> Result<Network> {
        let encoder = setup.build_encoder(&(path / "encoder"))?;
        let widths = [&[encoder.dim()], widths].concat();
        let projector = Some(Mlp::with_final_norm(&(path / "projector"), &widths, style));
        Ok(Network { encoder, projector, statistics: statistics(path) })
    }

    /// g(h), [B, E] -> [B, D].
    pub fn head(&self, h: &Tensor, train: bool) -> Tensor {
        self.projector.as_ref().map_or_else(|| h.shallow_clone(), |g| g.forward(h, train))
    }

    /// g(f(x)) of all views of a batch of N in training mode, [V N, D], view by view.
    pub fn project_views(&self, views: &[View]) -> Tensor {
        self.head(&encode_views(&*self.encoder, views), true)
    }

    /// g(f(x)), [B, ..] -> [B, D].
    pub fn project(&self, x: &Tensor, train: bool) -> Tensor {
        self.head(&self.encoder.forward(x, train), train)
    }

    /// g(f(x)) in training mode, the batch in `groups` consecutive parts of almost equal size, of two rows at least: each
    /// part has the batch statistics that it would have on a GPU of its own. [B, ..] -> [B, D].
    ///
    /// The parts are those of the batch of all ranks. If each rank has as many whole parts as any other it passes its own;
    /// else every rank passes all of them.
    pub fn project_in_groups(&self, x: &Tensor, groups: i64) -> Tensor {
        if groups == 1 {
            return self.project(x, true);
        }
        if let Some(parts) = shared(x.size()[0], groups) {
            return self.own_groups(x, parts);
        }
        let all = group::gather(x);
        group::own(&group::alone(|| in_groups(&all, groups, |x| self.project(x, true))))
    }

    /// The same with the parts drawn from the batch of all ranks in `order`, a permutation `[W B]`; rows come back in the
    /// order of `x`, without a gradient. MoCo's shuffled BatchNorm (He et al. 2019, section 3.3): the parts of keys hold
    /// other images than those of queries, or statistics would tell which key belongs to a query.
    pub fn project_in_shuffled_groups(&self, x: &Tensor, order: &Tensor, groups: i64) -> Tensor {
        no_grad(|| {
            if groups == 1 {
                return self.project(x, true);
            }
            let shuffled = group::gather(x).index_select(0, order);
            let z = match shared(x.size()[0], groups) {
                Some(parts) => group::gather(&self.own_groups(&group::own(&shuffled), parts)),
                None => group::alone(|| in_groups(&shuffled, groups, |x| self.project(x, true))),
            };
            group::own(&z.index_select(0, &order.argsort(0, false)))
        })
    }

    /// This rank's parts, `parts` of them. One process would pass the parts of all ranks one after the other, and running
    /// statistics would move by each: so they do here, all ranks together.
    fn own_groups(&self, x: &Tensor, parts: i64) -> Tensor {
        let before: Vec<Tensor> = self.statistics.iter().map(Tensor::copy).collect();
        let z = group::with_norms(Norms::Local, || in_groups(x, parts, |x| self.project(x, true)));
        no_grad(|| {
            // r <- keep r + a, for the parts of each rank in turn.
            let (keep, ranks) = ((1.0 - MOMENTUM).powi(parts as i32), group::size() as i32);
            let weight = keep.powi(ranks - 1 - group::rank() as i32);
            let moved = self
                .statistics
                .iter()
                .zip(&before)
                .map(|(now, before)| ((now - before * keep) * weight).flatten(0, -1));
            let moved: Vec<Tensor> = moved.collect();
            if moved.is_empty() {
                return;
            }
            let sum = group::average(&Tensor::cat(&moved, 0)) * f64::from(ranks);
            let sizes: Vec<i64> = moved.iter().map(|x| x.numel() as i64).collect();
            for ((now, before), sum) in self.statistics.iter().zip(&before).zip(sum.split_with_sizes(sizes, 0)) {
                // Beside the graph, which holds the running statistics too and does not read them in training.
                assign(&now.data(), &(before * keep.powi(ranks) + sum.view_as(before)));
            }
        });
        z
    }
}

/// How many parts each rank has of a batch of which it has `rows`; none if the ranks cannot have equally many whole ones,
/// or there is one.
fn shared(rows: i64, groups: i64) -> Option<i64> {
    let ranks = group::size() as i64;
    let all = rows * ranks;
    let groups = groups.min(all / 2).max(1);
    (ranks > 1 && groups % ranks == 0 && all % groups == 0).then_some(groups / ranks)
}

/// The running statistics of encoder and projector below `path`.
fn statistics(path: &Path) -> Vec<Tensor> {
    let below = |part: &str| path.store().below((path / part).name());
    let running = |v: &Variable| v.name.ends_with(".running_mean") || v.name.ends_with(".running_var");
    below("encoder").into_iter().chain(below("projector")).filter(running).map(|v| v.tensor).collect()
}

/// f(x) of all views of a batch of N in training mode, [V N, D'], view by view. Neighbours of one size pass together, and
/// share the statistics of norms.
pub fn encode_views(encoder: &dyn Encoder, views: &[View]) -> Tensor {
    let features = views.chunk_by(|a, b| a.x.size() == b.x.size()).map(|group| {
        let x: Vec<&Tensor> = group.iter().map(|view| &view.x).collect();
        encoder.forward(&Tensor::cat(&x, 0), true)
    });
    Tensor::cat(&features.collect::<Vec<_>>(), 0)
}

/// The widths behind the input's of an MLP of so many linear layers.
pub fn widths(layers: usize, hidden: i64, output: i64) -> Vec<i64> {
    let mut widths = vec![hidden; layers];
    widths.iter_mut().last().into_iter().for_each(|last| *last = output);
    widths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use tch::Device;

    #[test]
    fn widths_end_with_the_output() {
        assert_eq!([0, 1, 3].map(|layers| widths(layers, 5, 2)), [vec![], vec![2], vec![5, 5, 2]]);
    }

    #[test]
    fn groups_have_at_least_two_images() {
        let sizes = |n: i64, groups: i64| {
            let seen = std::cell::RefCell::new(Vec::new());
            let x = crate::golden::matrix(0.1, n, 1);
            let f = |part: &Tensor| {
                seen.borrow_mut().push(part.size()[0]);
                part.shallow_clone()
            };
            assert_eq!(in_groups(&x, groups, f), x);
            seen.into_inner()
        };
        assert_eq!(sizes(8, 4), [2, 2, 2, 2]);
        assert_eq!(sizes(7, 3), [3, 2, 2]);
        assert_eq!(sizes(7, 8), [3, 2, 2]);
        assert_eq!(sizes(2, 8), [2]);
        assert_eq!(sizes(4, 1), [4]);
    }

    #[test]
    fn shuffled_groups_come_back_in_order() {
        use crate::golden::{setup, views};
        let store = Store::new(0, Device::Cpu);
        let style = MlpStyle { norm: true, hidden_bias: false, last_bias: true };
        let network = Network::new(&store.root(), &setup(&store, "convnet-tiny", 8), &[3], style).expect("a network");
        let (x, order) = (&views(8, &[0.1])[0].x, Tensor::from_slice(&[3i64, 0, 6, 1, 7, 2, 5, 4]));
        let z = network.project_in_shuffled_groups(x, &order, 4);
        let of = |rows: [i64; 2]| network.project(&x.index_select(0, &Tensor::from_slice(&rows)), true);
        let parts = [[3, 0], [6, 1], [7, 2], [5, 4]].map(of);
        let expected = Tensor::cat(&parts, 0).index_select(0, &order.argsort(0, false));
        // Batch statistics alone decide in training, so that moved running ones change nothing.
        assert_eq!(z, expected.detach());
        assert!(!z.requires_grad());
    }

    #[test]
    fn a_network_without_widths_has_no_projector() {
        use crate::golden::{IMAGE, setup, views};
        let style = MlpStyle { norm: true, hidden_bias: false, last_bias: true };
        let store = Store::new(0, Device::Cpu);
        let setup = setup(&store, "convnet-tiny", 4);
        let x = &views(4, &[0.1])[0].x;
        assert_eq!(x.size(), [4, IMAGE.channels, IMAGE.size, IMAGE.size]);
        let bare = Network::new(&(store.root() / "bare"), &setup, &[], style).expect("a network");
        assert_eq!(bare.project(x, false), bare.encoder.forward(x, false));
        assert!(store.below("bare.projector").is_empty());
        let network = Network::new(&(store.root() / "whole"), &setup, &[6, 3], style).expect("a network");
        let z = network.project(x, false);
        assert_eq!((z.size(), store.below("whole.projector").is_empty()), (vec![4, 3], false));
        assert_eq!(z, network.head(&network.encoder.forward(x, false), false));
    }

    #[test]
    fn a_final_norm_centres_and_scales_each_column_and_learns_nothing() {
        let store = Store::new(0, Device::Cpu);
        let style = MlpStyle { norm: true, hidden_bias: false, last_bias: false };
        let mlp = Mlp::with_final_norm(&store.root(), &[3, 5, 4], style);
        let values: Vec<f32> = (0..24).map(|m| (1.3 * (m * m) as f64).sin() as f32).collect();
        let y = mlp.forward(&Tensor::from_slice(&values).view([8, 3]), true);
        // 1e-5 is added to variances of about 0.1; sums of 8 numbers round to about 1e-6.
        assert!(y.mean_dim([0].as_slice(), false, Kind::Float).abs().max().double_value(&[]) < 1e-5);
        assert!((y.var_dim([0].as_slice(), false, false) - 1.0).abs().max().double_value(&[]) < 1e-2);
        let trained: Vec<String> = store.trainable().into_iter().map(|v| v.name).collect();
        assert_eq!(trained, ["0.weight", "0.norm.weight", "0.norm.bias", "1.weight"]);
        assert_eq!(store.below("1.norm").len(), 2);
    }
}
