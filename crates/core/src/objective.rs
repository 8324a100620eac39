//! Tensors on which a loss is computed alone, to be held against any other implementation (`selfsup loss`).

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Named tensors: `a` and `b` are the embeddings of two views, whatever else a method needs has the name in its
/// `INPUTS`.
pub struct Given(BTreeMap<String, Tensor>);

impl Given {
    /// Takes the tensors as they are; they are checked where they are asked for.
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Given {
        Given(tensors.into_iter().collect())
    }

    /// `name`, if it is there.
    pub fn optional(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).with_context(|| {
            let there: Vec<&str> = self.0.keys().map(String::as_str).collect();
            format!("there is no tensor `{name}`; there are {}", there.join(", "))
        })
    }

    /// Floating-point rows, [N, D], finite and at least one of each.
    ///
    /// # Errors
    /// If there is none of this name, or it is something else.
    pub fn rows(&self, name: &str) -> Result<&Tensor> {
        let x = self.tensor(name)?;
        ensure!(
            x.dim() == 2 && x.numel() > 0 && matches!(x.kind(), Kind::Float | Kind::Double),
            "`{name}` is {:?} {:?}; expected [N, D] floating-point numbers",
            x.kind(),
            x.size()
        );
        ensure!(x.isfinite().all().int64_value(&[]) == 1, "`{name}` holds numbers that are not finite");
        Ok(x)
    }

    /// Rows with as many columns as `like`, which may differ in number.
    ///
    /// # Errors
    /// As [`Given::rows`], and if the columns differ.
    pub fn rows_as_wide(&self, name: &str, like: &Tensor) -> Result<&Tensor> {
        let x = self.rows(name)?;
        let (own, other) = (x.size()[1], like.size()[1]);
        ensure!(own == other, "`{name}` has {own} columns; expected {other}, as many as the embeddings have");
        Ok(x)
    }

    /// `a` and `b`, [N, D] each.
    ///
    /// # Errors
    /// As [`Given::rows`], and if their shapes differ.
    pub fn pair(&self) -> Result<(&Tensor, &Tensor)> {
        let (a, b) = (self.rows("a")?, self.rows("b")?);
        ensure!(a.size() == b.size(), "`a` is {:?} and `b` is {:?}; expected equal shapes", a.size(), b.size());
        Ok((a, b))
    }

    /// Whole numbers from 0 to `below` - 1, `[N]`.
    ///
    /// # Errors
    /// If there is none of this name, or it is something else.
    pub fn indices(&self, name: &str, below: i64) -> Result<&Tensor> {
        let x = self.tensor(name)?;
        ensure!(
            x.dim() == 1 && x.numel() > 0 && x.kind() == Kind::Int64,
            "`{name}` is {:?} {:?}; expected [N] 64-bit whole numbers",
            x.kind(),
            x.size()
        );
        let (low, high) = (x.min().int64_value(&[]), x.max().int64_value(&[]));
        ensure!(low >= 0 && high < below, "`{name}` holds {low} to {high}; expected 0 to {}", below - 1);
        Ok(x)
    }
}
