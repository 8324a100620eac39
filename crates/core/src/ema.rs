//! The target network that follows the online one as a moving average of its weights.

use crate::store::{Path, Role, Store, assign};
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use tch::Tensor;

/// Pairs of online and target variables.
///
/// Trained variables are averaged. Buffers (running statistics of norms) are copied once, at the start: the target's
/// follow from its own forward passes, as in MoCo and BYOL.
pub struct Ema {
    online: Vec<Tensor>,
    target: Vec<Tensor>,
}

impl Ema {
    /// Pairs the variables below `online` with those of the same rest of the name below `target`, and makes the target
    /// equal. Build the target network under a frozen path.
    ///
    /// # Errors
    /// If there is nothing below `online`, a name has no partner, two shapes differ, or the target is trained.
    pub fn new(store: &Store, online: &str, target: &str) -> Result<Ema> {
        let rest = |name: &str, prefix: &str| name[prefix.len() + 1..].to_string();
        let mut targets: HashMap<String, _> =
            store.below(target).into_iter().map(|v| (rest(&v.name, target), v)).collect();
        let sources = store.below(online);
        ensure!(!sources.is_empty(), "there is no variable below `{online}` for `{target}` to follow");
        let mut pairs = Vec::with_capacity(sources.len());
        for source in sources {
            let partner = targets.remove(&rest(&source.name, online)).with_context(|| {
                format!("`{}` has no partner below `{target}`: build both networks alike", source.name)
            })?;
            ensure!(
                partner.role == Role::Buffer,
                "`{}` is trained, but follows `{}` as a moving average: build it under a frozen path",
                partner.name,
                source.name
            );
            let (a, b) = (&source.tensor, &partner.tensor);
            ensure!(
                a.size() == b.size() && a.kind() == b.kind(),
                "`{}` is {:?} {:?}, but `{}`, which follows it, is {:?} {:?}",
                source.name,
                a.kind(),
                a.size(),
                partner.name,
                b.kind(),
                b.size()
            );
            pairs.push((source, partner));
        }
        if let Some(name) = targets.values().map(|v| &v.name).min() {
            anyhow::bail!("`{name}` has no partner below `{online}`: build both networks alike");
        }
        for (source, partner) in &pairs {
            assign(&partner.tensor, &source.tensor.detach());
        }
        let averaged = pairs.into_iter().filter(|(source, _)| source.role != Role::Buffer);
        let (online, target) = averaged.map(|(source, partner)| (source.tensor, partner.tensor)).unzip();
        Ok(Ema { online, target })
    }

    /// Of encoder and projector below `path` and below `target` there ([`crate::head::Network`] in both places).
    ///
    /// # Errors
    /// As [`Ema::new`].
    pub fn of_network(path: &Path, target: &str) -> Result<[Ema; 2]> {
        let average = |part: &str| Ema::new(path.store(), (path / part).name(), (path / target / part).name());
        Ok([average("encoder")?, average("projector")?])
    }

    /// target <- tau target + (1 - tau) online.
    ///
    /// # Panics
    /// If `tau` is outside [0, 1].
    pub fn update(&self, tau: f64) {
        assert!((0.0..=1.0).contains(&tau), "tau must lie between 0 and 1, but is {tau}");
        selfsup_torch_ext::lerp_(&self.target, &self.online, 1.0 - tau).expect("the pairs were checked when made");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{BatchNorm, Conv2d, Linear};
    use crate::store::Init;
    use tch::{Device, no_grad};

    fn network(path: &Path) {
        Conv2d::kaiming(&(path / "conv"), 3, 4, 3, 1, 1);
        BatchNorm::new(&(path / "bn"), 4);
        Linear::new(&(path / "fc"), 4, 2, true);
    }

    /// An online network, a target and a running mean of 5, all different.
    fn pair() -> Store {
        let store = Store::new(3, Device::Cpu);
        network(&(store.root() / "online"));
        network(&(store.root().frozen() / "target"));
        let _ = no_grad(|| get(&store, "online.bn.running_mean").fill_(5.0));
        store
    }

    fn get(store: &Store, name: &str) -> Tensor {
        store.variables().into_iter().find(|v| v.name == name).expect("a variable of that name").tensor
    }

    /// Moves every online variable, buffers too.
    fn disturb(store: &Store) {
        no_grad(|| store.below("online").iter().for_each(|v| drop(v.tensor.shallow_clone().g_add_scalar_(1.25))));
    }

    fn values(store: &Store, prefix: &str) -> Vec<Tensor> {
        store.below(prefix).iter().map(|v| v.tensor.detach().copy()).collect()
    }

    #[test]
    fn the_target_starts_equal_with_its_statistics() {
        let store = pair();
        Ema::new(&store, "online", "target").expect("a pair");
        assert_eq!(values(&store, "online"), values(&store, "target"));
        assert_eq!(get(&store, "target.bn.running_mean").double_value(&[0]), 5.0);
    }

    #[test]
    fn tau_one_keeps_and_tau_zero_copies_but_not_statistics() {
        let store = pair();
        let ema = Ema::new(&store, "online", "target").expect("a pair");
        disturb(&store);
        let before = values(&store, "target");
        ema.update(1.0);
        assert_eq!(values(&store, "target"), before);
        ema.update(0.0);
        for v in store.below("online") {
            let target = get(&store, &v.name.replace("online", "target"));
            assert_eq!(target == v.tensor, v.role != Role::Buffer, "{}", v.name);
        }
    }

    #[test]
    fn many_updates_equal_a_naive_loop_and_the_closed_form() {
        let store = pair();
        let ema = Ema::new(&store, "online", "target").expect("a pair");
        let start = values(&store, "target");
        disturb(&store);
        let naive = values(&store, "target");
        let (tau, steps) = (0.9, 20);
        for _ in 0..steps {
            ema.update(tau);
            for (v, t) in store.below("online").iter().zip(&naive).filter(|(v, _)| v.role != Role::Buffer) {
                let next = t * tau + v.tensor.detach() * (1.0 - tau);
                t.shallow_clone().copy_(&next);
            }
        }
        for ((v, t), start) in store.below("target").iter().zip(&naive).zip(&start) {
            // Each update rounds values of about 1 (running means: not at all) to 6e-8 of themselves, in both loops.
            let error = (&v.tensor - t).abs().max().double_value(&[]);
            assert!(error < 2.0 * 20.0 * 1.2e-7 * 2.5, "{}: {error}", v.name);
            if v.name.contains("fc") || v.name.contains("conv") {
                // The online weights lie 1.25 above the start, so the target has covered 1 - tau^n of that.
                let form = start + 1.25 * (1.0 - tau.powi(steps));
                assert!((&v.tensor - form).abs().max().double_value(&[]) < 20.0 * 1.2e-7 * 2.5, "{}", v.name);
            }
        }
    }

    #[test]
    fn the_average_leaves_no_graph() {
        let store = pair();
        let ema = Ema::new(&store, "online", "target").expect("a pair");
        ema.update(0.5);
        assert!(store.below("target").iter().all(|v| !v.tensor.requires_grad()));
    }

    #[test]
    fn networks_that_differ_are_refused_in_words() {
        let refused = |change: &dyn Fn(&Store)| {
            let store = pair();
            change(&store);
            Ema::new(&store, "online", "target").err().expect("a refusal").to_string()
        };
        let extra = |prefix: &'static str, frozen: bool, shape: i64| {
            move |store: &Store| {
                let root = if frozen { store.root().frozen() } else { store.root() };
                let _ = (root / prefix).variable("extra", &[shape], Role::Weight, Init::Const(0.0));
            }
        };
        assert!(refused(&extra("online", false, 1)).contains("`online.extra` has no partner"));
        assert!(refused(&extra("target", true, 1)).contains("`target.extra` has no partner"));
        let shapes = refused(&|s| (extra("online", false, 1)(s), extra("target", true, 2)(s)).0);
        assert!(shapes.contains("`target.extra`") && shapes.contains("[2]"), "{shapes}");
        let trained = refused(&|s| (extra("online", false, 1)(s), extra("target", false, 1)(s)).0);
        assert!(trained.contains("frozen path"), "{trained}");
        let store = pair();
        assert!(Ema::new(&store, "offline", "target").is_err());
    }
}
