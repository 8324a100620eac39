//! AugSelf beside any method of two views: the method's own loss and, on the features of its encoder, L_aug.

use crate::{Config, Heads};
use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::{HostBatch, Plain};
use selfsup_core::encoder::{Seen, Tap};
use selfsup_core::method::{Batch, Loss, Method, Setup, Tokenizer};
use selfsup_core::progress::Progress;
use selfsup_core::store::assign;
use selfsup_core::tch::with_grad;
use selfsup_core::{Kind, Tensor, no_grad};

/// A method with a second loss. All but the loss is the method's own.
pub struct Auxiliary {
    base: Box<dyn Method>,
    name: String,
    weight: f64,
    heads: Heads,
    tap: Tap,
    recipes: Vec<Recipe>,
    /// The fewest images that the method's loss takes.
    least: usize,
    seed: u64,
    /// Everything in the store.
    variables: Vec<Tensor>,
}

impl Auxiliary {
    /// Around `base`, the method `name`, which was built from `setup` with a tap.
    ///
    /// # Errors
    /// If the method does not compare two views of images.
    pub fn new(
        base: Box<dyn Method>,
        name: &str,
        least: usize,
        weight: f64,
        config: &Config,
        setup: &Setup,
    ) -> Result<Auxiliary> {
        let image = setup.image()?;
        let views = base.views().len();
        ensure!(
            views >= 2,
            "`auxiliary`: augself compares two views, but {name} has one: choose a method of two views"
        );
        let tap = setup.tap.clone().expect("an auxiliary loss is built from a setup with a tap");
        let recipes = if setup.views.is_empty() { base.views() } else { setup.views.clone() };
        let x = Tensor::zeros([1, image.channels, image.size, image.size], (Kind::Float, setup.path.device()));
        let dim = no_grad(|| base.features(&x, false)).size()[1];
        let heads = Heads::new(&(&setup.path / "augself"), dim, config, &recipes, image.channels)?;
        let variables = setup.path.store().variables().into_iter().map(|v| v.tensor).collect();
        let (name, seed) = (name.to_string(), setup.path.seed());
        Ok(Auxiliary { base, name, weight, heads, tap, recipes, least: least.max(2), seed, variables })
    }

    /// Computes the method's loss once, on copies of all it remembers, to see whether it shows the features of both views:
    /// no method says so of itself.
    fn try_out(&mut self, at: Progress, images: &Plain) -> Result<()> {
        let index: Vec<usize> = (0..self.least.min(images.samples.len())).collect();
        let (size, normalisation) = (images.size, images.normalisation);
        let batch = HostBatch::render(images.samples, index, &self.recipes, size, normalisation, self.seed, at.epoch)?;
        let batch = batch.to_batch(images.device);
        let before: Vec<Tensor> = self.variables.iter().map(|v| v.detach().copy()).collect();
        self.tap.borrow_mut().clear();
        drop(with_grad(|| self.base.loss(&batch, at)));
        let found = both_views(&self.tap.take(), &batch).is_some();
        self.variables.iter().zip(&before).for_each(|(variable, value)| assign(variable, value));
        ensure!(
            found,
            "`auxiliary`: augself needs the features of both views, but {} trains its encoder on one of them, or on \
             views changed further: choose another method, or its symmetric form",
            self.name
        );
        Ok(())
    }
}

impl Method for Auxiliary {
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        self.tap.borrow_mut().clear();
        let own = self.base.loss(batch, at);
        let [a, b] = both_views(&self.tap.take(), batch).expect("it was tried out before the first epoch");
        let second = self.heads.loss([&a, &b], [&batch.views[0].params, &batch.views[1].params]);
        let parts = own.parts.into_iter().chain([("augself", second.total.detach())]).chain(second.parts).collect();
        Loss { total: own.total + self.weight * second.total, parts }
    }

    fn views(&self) -> Vec<Recipe> {
        self.base.views()
    }

    fn features(&self, x: &Tensor, train: bool) -> Tensor {
        let features = self.base.features(x, train);
        // Fine-tuning has no second loss: what the tap holds would only fill memory.
        self.tap.borrow_mut().clear();
        features
    }

    fn embedding(&self, x: &Tensor) -> Option<Tensor> {
        self.base.embedding(x)
    }

    fn before_epoch(&mut self, at: Progress, images: &Plain) -> Result<Vec<String>> {
        let redrawn = self.base.before_epoch(at, images)?;
        if at.step == 0 {
            self.try_out(at, images)?;
        }
        Ok(redrawn)
    }

    fn order(&self, at: Progress) -> Option<Vec<usize>> {
        self.base.order(at)
    }

    fn after_step(&mut self, at: Progress) {
        self.base.after_step(at);
    }

    fn pretext(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        let [a, b] = [&batch.views[0], &batch.views[1]];
        let h = [a, b].map(|view| self.features(&view.x, false));
        let mut scores = self.base.pretext(batch);
        scores.extend(self.heads.scores([&h[0], &h[1]], [&a.params, &b.params]));
        scores
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        self.base.tokenizer()
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        self.base.pictures(batch)
    }
}

/// The features of the first two views, [B, D] each, out of all that the encoder saw in this step, whatever the order.
fn both_views(seen: &[Seen], batch: &Batch) -> Option<[Tensor; 2]> {
    let size = batch.views[0].x.size();
    let full: Vec<&Seen> = seen.iter().filter(|seen| seen.x.size()[1..] == size[1..]).collect();
    if full.is_empty() {
        return None;
    }
    let x = Tensor::cat(&full.iter().map(|seen| &seen.x).collect::<Vec<_>>(), 0);
    let h = Tensor::cat(&full.iter().map(|seen| &seen.features).collect::<Vec<_>>(), 0);
    let n = size[0];
    let of = |view: usize| {
        let rows = (0..x.size()[0] / n).find(|rows| x.narrow(0, rows * n, n).equal(&batch.views[view].x))?;
        Some(h.narrow(0, rows * n, n))
    };
    Some([of(0)?, of(1)?])
}
