//! What the renderer promises of token sequences, series and captions.

use super::*;
use crate::augment::views::{HostBatch, PADDING};
use crate::data::{Captions, Modality, Sample, Samples};

/// Sequences 100 i, 100 i + 1, ..; series of two channels with the same numbers, the second negative.
struct Counted {
    lengths: Vec<usize>,
    series: bool,
}

impl Samples for Counted {
    fn len(&self) -> usize {
        self.lengths.len()
    }

    fn modality(&self) -> Modality {
        if self.series { Modality::Series { channels: 2 } } else { Modality::Tokens { vocabulary: 1000 } }
    }

    fn sample(&self, index: usize) -> anyhow::Result<Sample<'_>> {
        let ids = (0..self.lengths[index]).map(|step| (100 * index + step) as u32);
        Ok(if self.series {
            let values: Vec<f32> = ids.map(|id| id as f32).collect();
            let second = values.iter().map(|x| -x);
            Sample::Series(values.iter().copied().chain(second).collect())
        } else {
            Sample::Tokens(ids.collect())
        })
    }
}

fn tokens(lengths: &[usize]) -> Counted {
    Counted { lengths: lengths.to_vec(), series: false }
}

fn ids(x: &Tensor) -> Vec<Vec<i64>> {
    Vec::try_from(x).expect("ids")
}

#[test]
fn plain_sequences_begin_at_the_beginning_and_are_padded() {
    let none = bare(0);
    let x = plain(&tokens(&[3, 8, 4]), &[1, 0, 2], 4, &none).expect("tokens");
    assert_eq!(ids(&x), [vec![100, 101, 102, 103], vec![0, 1, 2, PADDING], vec![200, 201, 202, 203]]);
    let normalisation = Normalisation { mean: vec![1.0, 0.0], std: vec![2.0, 1.0] };
    let x = plain(&Counted { lengths: vec![2, 5], series: true }, &[0, 1], 3, &normalisation).expect("series");
    assert_eq!(x.size(), [2, 2, 3]);
    let values = Vec::<f32>::try_from(x.nan_to_num(-7.0, None, None).view(-1)).expect("values");
    assert_eq!(values, [-0.5, 0.0, -7.0, 0.0, -1.0, -7.0, 49.5, 50.0, 50.5, -100.0, -101.0, -102.0]);
}

#[test]
fn a_long_sequence_is_cut_at_a_drawn_place_that_is_its_own() {
    let samples = tokens(&[20; 6]);
    let starts = |index: &[usize], epoch: u64| -> Vec<i64> {
        let views = render_views(&samples, index, &[Recipe::default()], 5, &bare(0), 3, epoch).expect("views");
        let rows = ids(&views[0].to_view(Device::Cpu).x);
        for (row, &i) in rows.iter().zip(index) {
            assert!(row.windows(2).all(|pair| pair[1] == pair[0] + 1), "one piece");
            assert!((100 * i as i64..=100 * i as i64 + 15).contains(&row[0]));
        }
        rows.iter().zip(index).map(|(row, &i)| row[0] - 100 * i as i64).collect()
    };
    let all = starts(&[0, 1, 2, 3, 4, 5], 0);
    assert_eq!(starts(&[4, 2], 0), [all[4], all[2]]);
    assert_ne!(starts(&[0, 1, 2, 3, 4, 5], 1), all);
    // Every place occurs: 0 to 15.
    let seen: std::collections::BTreeSet<i64> = (0..200).flat_map(|epoch| starts(&[0, 1, 2], epoch)).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), (0..=15).collect::<Vec<_>>());
}

#[test]
fn a_recipe_for_images_is_refused_for_sequences() {
    let flip = Recipe { flip: 0.5, ..Recipe::default() };
    let error = render_views(&tokens(&[5]), &[0], &[flip], 5, &bare(0), 0, 0).expect_err("a flip").to_string();
    assert!(error.contains("augments images") && error.contains("token sequences"), "{error}");
    let beyond = plain(&tokens(&[5]), &[1], 5, &bare(0)).expect_err("no such sample").to_string();
    assert!(beyond.contains("sample 1 was asked for, but there are 1"), "{beyond}");
}

/// Grey images with captions of different lengths.
struct Captioned(Vec<Vec<u32>>);

impl Samples for Captioned {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn modality(&self) -> Modality {
        Modality::Images { channels: 1 }
    }

    fn sample(&self, index: usize) -> anyhow::Result<Sample<'_>> {
        Ok(Sample::Image(Image { height: 2, width: 2, channels: 1, pixels: vec![index as u8; 4].into() }))
    }

    fn caption(&self, index: usize) -> Option<Cow<'_, [u32]>> {
        Some(self.0[index].as_slice().into())
    }

    fn captions(&self) -> Option<Captions> {
        Some(Captions { vocabulary: 9, length: 3 })
    }
}

#[test]
fn captions_come_with_their_images() {
    let samples = Captioned(vec![vec![1, 2], vec![3, 4, 5, 6], vec![]]);
    let batch = HostBatch::render(&samples, vec![1, 0, 2], &[Recipe::default()], 2, &bare(1), 0, 0).expect("a batch");
    let batch = batch.to_batch(Device::Cpu);
    assert_eq!(ids(&batch.captions.expect("captions")), [[3, 4, 5], [1, 2, PADDING], [PADDING; 3]]);
    assert!((batch.views[0].x.double_value(&[2, 0, 0, 0]) - 2.0 / 255.0).abs() < 1e-6);
    let none = HostBatch::render(&tokens(&[4]), vec![0], &[Recipe::default()], 4, &bare(0), 0, 0).expect("a batch");
    assert!(none.to_batch(Device::Cpu).captions.is_none());
}

#[test]
fn the_caption_of_another_says_something_else_in_any_batch() {
    let samples = Captioned((0..40).map(|i| vec![i % 4, 5]).collect());
    let others = |index: Vec<usize>, seed| {
        let batch = HostBatch::plain(&samples, index, 2, &bare(1), seed, 7).expect("a batch");
        let batch = batch.with_others(&samples).expect("others").to_batch(Device::Cpu);
        (ids(&batch.captions.expect("captions")), ids(&batch.others.expect("others")))
    };
    let (own, all) = others((0..40).collect(), 0);
    assert!(own.iter().zip(&all).all(|(own, other)| own != other && other[1] == 5));
    // All that differ occur, and what is drawn for a sample depends on nothing beside it: also in a batch of one.
    let of_first: std::collections::BTreeSet<i64> = (0..40).step_by(4).map(|i| all[i][0]).collect();
    assert_eq!(of_first.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    for alone in [0, 17, 39] {
        assert_eq!(others(vec![alone], 0).1, [all[alone].clone()]);
    }
    assert_ne!(others((0..40).collect(), 1).1, all);
    // Where all say the same, there is nothing to hold them against; training asks for nothing.
    let same = Captioned(vec![vec![1]; 5]);
    let batch = |samples| HostBatch::plain(samples, vec![0, 1], 2, &bare(1), 0, 0).expect("a batch");
    assert!(batch(&same).with_others(&same).expect("none").to_batch(Device::Cpu).others.is_none());
    assert!(batch(&samples).to_batch(Device::Cpu).others.is_none());
}
