//! AugSelf beside any method of two views: the method's own loss and, on the features of its encoder, L_aug.

use crate::{Config, Heads};
use anyhow::{Result, ensure};
use selfsup_core::augment::Recipe;
use selfsup_core::augment::views::Plain;
use selfsup_core::encoder::Tap;
use selfsup_core::method::{Batch, Loss, Method, Setup, Shape, Tokenizer};
use selfsup_core::progress::Progress;
use selfsup_core::{Kind, Tensor, no_grad};

/// A method with a second loss. All but the loss is the method's own.
pub struct Auxiliary {
    base: Box<dyn Method>,
    weight: f64,
    heads: Heads,
    tap: Tap,
}

impl Auxiliary {
    /// Around `base`, the method `name`, which was built from `setup` with a tap.
    ///
    /// # Errors
    /// If the method does not compare two views of images.
    pub fn new(base: Box<dyn Method>, name: &str, weight: f64, config: &Config, setup: &Setup) -> Result<Auxiliary> {
        let Shape::Image(image) = setup.shape else {
            anyhow::bail!(
                "`auxiliary`: augself tells how images were augmented, but the data are {}: leave it out",
                setup.shape.plural()
            )
        };
        ensure!(
            base.views().len() >= 2,
            "`auxiliary`: augself compares two views, but {name} has one: choose a method of two views"
        );
        let tap = setup.tap.clone().expect("an auxiliary loss is built from a setup with a tap");
        let recipes = if setup.views.is_empty() { base.views() } else { setup.views.clone() };
        let x = Tensor::zeros([1, image.channels, image.size, image.size], (Kind::Float, setup.path.device()));
        let dim = no_grad(|| base.features(&x, false)).size()[1];
        let heads = Heads::new(&(&setup.path / "augself"), dim, config, &recipes, image.channels)?;
        Ok(Auxiliary { base, weight, heads, tap })
    }

    /// The features of the first two views, [B, D] each, with their graph: out of what the method's encoder saw in this
    /// step, whatever the order and in how many parts; what it did not see, or not as it is, passes it once more.
    fn both_views(&self, batch: &Batch) -> [Tensor; 2] {
        let size = batch.views[0].x.size();
        let seen = self.tap.take();
        let full = || seen.iter().filter(|seen| seen.x.size()[1..] == size[1..]);
        let x: Vec<&Tensor> = full().map(|seen| &seen.x).collect();
        let h: Vec<&Tensor> = full().map(|seen| &seen.features).collect();
        let joined = (!x.is_empty()).then(|| (Tensor::cat(&x, 0), Tensor::cat(&h, 0)));
        [0, 1].map(|view| {
            let (view, n) = (&batch.views[view].x, size[0]);
            let of = |(x, h): &(Tensor, Tensor)| {
                let rows = (0..x.size()[0] / n).find(|rows| x.narrow(0, rows * n, n).equal(view))?;
                Some(h.narrow(0, rows * n, n))
            };
            joined.as_ref().and_then(of).unwrap_or_else(|| self.features(view, true))
        })
    }
}

impl Method for Auxiliary {
    fn loss(&mut self, batch: &Batch, at: Progress) -> Loss {
        self.tap.borrow_mut().clear();
        let own = self.base.loss(batch, at);
        if self.weight == 0.0 {
            return own; // one pass more would move running statistics
        }
        let [a, b] = self.both_views(batch);
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
        self.base.before_epoch(at, images)
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

    fn generate(&self, batch: &Batch) -> Option<Tensor> {
        self.base.generate(batch)
    }

    fn pictures(&self, batch: &Batch) -> Vec<(&'static str, Tensor)> {
        self.base.pictures(batch)
    }
}
