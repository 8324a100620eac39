//! What a run's features look like: which training images lie nearest to a test image, which class kNN takes for which,
//! and where the test images lie along the two directions in which their features vary most.

use crate::reporting::{to_pictures, write_grid};
use crate::run::Subject;
use anyhow::{Context, Result};
use selfsup_core::Kind;
use selfsup_core::augment::views::plain;
use selfsup_core::data::{Modality, Samples};
use selfsup_datasets::{Dataset, Part, stratified_first};
use selfsup_evaluate::{Features, Knn};
use selfsup_report::figure::{Figure, confusion, points};
use std::fs;
use std::path::Path;

/// Test images with their neighbours: rows of neighbours.png.
const QUERIES: usize = 10;
/// Neighbours of each.
const NEIGHBOURS: usize = 8;
/// Test images in the plane.
const POINTS: usize = 600;
/// The pixels around a neighbour: blue where its class is the test image's, orange where it is not.
const FRAME: usize = 2;

/// What the pictures need of the features, which may be too many to be kept.
pub struct Portrait {
    /// How often each class (row) was taken for each by kNN.
    counts: Vec<Vec<u64>>,
    /// Test samples, and their features.
    points: (Vec<usize>, Features),
    /// Test samples, each with the training samples nearest to it.
    near: Vec<(usize, Vec<usize>)>,
}

impl Portrait {
    /// Of the features of both parts, and the class that each test sample was given by its neighbours; `labels` are those
    /// of the test part.
    ///
    /// # Errors
    /// If the features do not belong together.
    pub(crate) fn of(
        bank: &Features,
        queries: &Features,
        predicted: &[i64],
        labels: &[u16],
        classes: usize,
    ) -> Result<Portrait> {
        let mut counts = vec![vec![0; classes]; classes];
        for (&label, &predicted) in labels.iter().zip(predicted) {
            counts[usize::from(label)][predicted as usize] += 1;
        }
        let rows = stratified_first(labels, POINTS);
        let points = queries.select(&rows)?;
        let asked = stratified_first(labels, QUERIES);
        let knn = Knn { k: NEIGHBOURS.min(bank.len()), ..Knn::default() };
        let near = knn.neighbours(bank, &queries.select(&asked)?.x)?;
        Ok(Portrait { counts, points: (rows, points), near: asked.into_iter().zip(near).collect() })
    }

    /// Writes confusion.svg and features.svg, each with its PNG, and, of images, neighbours.png into `folder`.
    ///
    /// # Errors
    /// If an image cannot be read, or a file not written.
    pub(crate) fn write(&self, dataset: &Dataset, test: &Part, subject: &Subject, folder: &Path) -> Result<()> {
        let Some(labels) = &test.labels else { return Ok(()) };
        fs::create_dir_all(folder).with_context(|| format!("{}: the folder could not be made", folder.display()))?;
        let figure = confusion("What kNN takes the classes for", &dataset.classes, &self.counts)?;
        Figure { name: "confusion".into(), ..figure }.write(folder)?;
        let (rows, features) = &self.points;
        plane(rows, features, labels, &dataset.classes, folder)?;
        if matches!(test.samples.modality(), Modality::Images { .. }) {
            self.sheet(dataset, test, labels, subject, &folder.join("neighbours.png"))?;
        }
        Ok(())
    }

    /// Test images, each with the training images whose features are most similar to its own.
    fn sheet(&self, dataset: &Dataset, test: &Part, labels: &[u16], subject: &Subject, path: &Path) -> Result<()> {
        let size = subject.shape.size() as usize;
        let show = |samples: &dyn Samples, index: &[usize]| {
            to_pictures(&plain(samples, index, size, &dataset.normalisation)?, &dataset.normalisation)
        };
        let bank = dataset.train.labels.as_deref().unwrap_or_default();
        let mut rows = Vec::new();
        for (query, near) in &self.near {
            let label = labels[*query];
            let mut row = show(&*test.samples, &[*query])?;
            for (picture, &neighbour) in show(&*dataset.train.samples, near)?.into_iter().zip(near) {
                let same = bank.get(neighbour) == Some(&label);
                row.push(picture.framed(FRAME, if same { [0, 114, 178] } else { [213, 94, 0] }));
            }
            rows.push((dataset.classes[usize::from(label)].clone(), row));
        }
        write_grid(path, rows, Vec::new(), size)
    }
}

/// The first test images of the classes in turn, in the plane of the two largest principal components.
fn plane(rows: &[usize], features: &Features, labels: &[u16], classes: &[String], folder: &Path) -> Result<()> {
    let x = &features.x;
    let x = x - x.mean_dim([0i64].as_slice(), true, x.kind());
    let (u, s, _) = x.f_svd(true, true)?;
    // One feature, or one image, has no second direction.
    let columns = s.size()[0].min(2);
    let u = u * &s;
    // A direction may point either way; here the image farthest along it lies at its right end.
    let column = |j: i64| -> Result<Vec<f64>> {
        if j >= columns {
            return Ok(vec![0.0; rows.len()]);
        }
        let values = Vec::<f64>::try_from(u.select(1, j).to_kind(Kind::Double))?;
        let farthest = values.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        Ok(values.into_iter().map(|v| v * if farthest < 0.0 { -1.0 } else { 1.0 }).collect())
    };
    let (first, second) = (column(0)?, column(1)?);
    let mut groups: Vec<(String, Vec<(f64, f64)>)> = classes.iter().map(|name| (name.clone(), Vec::new())).collect();
    for ((&row, &a), &b) in rows.iter().zip(&first).zip(&second) {
        groups[usize::from(labels[row])].1.push((a, b));
    }
    let variance = |n: i64| s.narrow(0, 0, n).square().sum(s.kind()).double_value(&[]);
    let share = 100.0 * variance(columns) / variance(s.size()[0]).max(f64::MIN_POSITIVE);
    let caption = format!(
        "Features of {} test samples along their two principal components, which hold {share:.0} % of their variance.",
        rows.len()
    );
    let figure = points("Features in their principal plane", &caption, &groups)?;
    Figure { name: "features".into(), ..figure }.write(folder)?;
    Ok(())
}
