//! Given weights: the file, safetensors or of `torch.save`, that `start` of a configuration names, under the names that
//! torchvision (ResNet), timm (ViT) and this program's exports use.

use crate::config::RunConfig;
use crate::first_stage::sum;
use anyhow::{Context, Result, anyhow, bail, ensure};
use selfsup_core::store::Variable;
use selfsup_core::{Kind, Tensor};
use selfsup_train::{checkpoint, pickle};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Below which the encoder lies in a store.
const ENCODER: &str = "encoder.";
/// A classifier on top of the encoder: torchvision's name and timm's.
const HEADS: [&str; 2] = ["fc.", "head."];
/// What training programs keep a network's weights under.
const WRAPS: [&str; 2] = ["state_dict.", "model."];
/// How many batches a norm has seen, which nothing here asks.
const COUNTER: &str = ".num_batches_tracked";

/// Which file a run started from, as meta.json says it: its path alone does not tell what was in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub file: PathBuf,
    pub sha256: String,
}

/// The weights that an encoder starts with.
pub struct Start {
    pub origin: Origin,
    tensors: BTreeMap<String, Tensor>,
}

impl Start {
    /// What `start` names; `None` where it is empty.
    ///
    /// # Errors
    /// If it is no such file.
    pub fn of(config: &RunConfig) -> Result<Option<Start>> {
        if config.start.is_empty() {
            return Ok(None);
        }
        Start::read(Path::new(&config.start)).context("`start`").map(Some)
    }

    fn read(path: &Path) -> Result<Start> {
        ensure!(
            !path.is_dir(),
            "{} is a folder; expected a safetensors file, such as export/encoder.safetensors in the folder of a run",
            path.display()
        );
        let tensors = match is_pickle(path)? {
            true => unwrapped(pickle::read(path).map_err(|error| anyhow!("{error:#}; {}", conversion(path)))?),
            false => checkpoint::read(path)?.tensors,
        };
        let tensors = tensors.into_iter().collect();
        Ok(Start { origin: Origin { file: path.into(), sha256: sum(path)? }, tensors })
    }

    /// Whether the weights of a finished run are still those in the file. A file that is gone says nothing.
    ///
    /// # Errors
    /// If they are others.
    pub fn unchanged(config: &RunConfig, made_with: Option<&Origin>) -> Result<()> {
        let path = Path::new(&config.start);
        if let (Some(origin), true) = (made_with, path.is_file()) {
            ensure!(
                sum(path)? == origin.sha256,
                "`start`: {} holds other weights than this run was made with: give it another name, or --resume never \
                 to make the run anew",
                path.display()
            );
        }
        Ok(())
    }

    /// The values for the variables of an encoder, by their whole names. What is left out is told on stderr.
    ///
    /// # Errors
    /// If a tensor is missing, unexpected or of another shape, or not finite.
    pub fn fit(&self, config: &RunConfig, variables: &[Variable]) -> Result<HashMap<String, Tensor>> {
        let file = self.origin.file.display();
        let short = |v: &Variable| v.name.strip_prefix(ENCODER).unwrap_or(&v.name).to_string();
        let expected: Vec<(String, Vec<i64>)> = variables.iter().map(|v| (short(v), v.tensor.size())).collect();
        let known = |name: &str| expected.iter().any(|(other, _)| other == name);
        let mut tensors: BTreeMap<&str, Tensor> =
            self.tensors.iter().map(|(name, x)| (name.as_str(), x.shallow_clone())).collect();
        tensors.retain(|name, _| known(name) || !name.ends_with(COUNTER));
        let mut heads = Vec::new();
        tensors.retain(|name, _| {
            let head = HEADS.iter().any(|head| name.starts_with(head)) && !known(name);
            if head {
                heads.push(name.escape_debug().to_string()); // shown on a terminal
            }
            !head
        });
        move_class_position(&mut tensors, &expected);

        let missing: Vec<&String> =
            expected.iter().map(|(name, _)| name).filter(|n| !tensors.contains_key(n.as_str())).collect();
        let unexpected: Vec<&&str> = tensors.keys().filter(|name| !known(name)).collect();
        let other: Vec<String> = expected
            .iter()
            .filter_map(|(name, shape)| {
                let x = tensors.get(name.as_str())?;
                let fits = x.size() == *shape && x.is_floating_point();
                (!fits).then(|| format!("`{name}`, {:?} {:?} for {:?} {shape:?}", x.kind(), x.size(), Kind::Float))
            })
            .collect();
        let first = [
            missing.first().map(|name| format!("{} missing (the first `{name}`)", missing.len())),
            unexpected.first().map(|name| format!("{} unexpected (the first `{name}`)", unexpected.len())),
            other.first().map(|first| format!("{} of another shape or kind (the first {first})", other.len())),
        ];
        let wrong: Vec<String> = first.into_iter().flatten().collect();
        ensure!(
            wrong.is_empty(),
            "`start`: {file} does not fit the {} tensors of {} on `{}`: {}; give the encoder and data that these \
             weights are of",
            expected.len(),
            config.encoder,
            config.data,
            wrong.join(", ")
        );
        let broken = |x: &Tensor| x.isfinite().all().int64_value(&[]) == 0;
        if let Some((name, _)) = tensors.iter().find(|(_, x)| broken(x)) {
            bail!("`start`: `{name}` in {file} holds values that are not finite: the weights are damaged");
        }
        if !heads.is_empty() {
            eprintln!("start: left out of {file}: {} (a classifier's head; features lie before it)", heads.join(", "));
        }
        Ok(tensors.into_iter().map(|(name, x)| (format!("{ENCODER}{name}"), x)).collect())
    }
}

/// timm's usual ViT has a position for the class token too. It is added to that token always, so it may as well be part
/// of it, as in our ViT, whose class token has no position.
fn move_class_position(tensors: &mut BTreeMap<&str, Tensor>, expected: &[(String, Vec<i64>)]) {
    let of = |name: &str| expected.iter().find(|(other, _)| other == name).map(|(_, shape)| shape.as_slice());
    let Some((&[_, length, width], class)) =
        of("pos_embed").and_then(|p| Some((<&[i64; 3]>::try_from(p).ok()?, of("cls_token")?)))
    else {
        return;
    };
    let fits =
        |name: &str, shape: &[i64]| tensors.get(name).is_some_and(|x| x.size() == shape && x.is_floating_point());
    if fits("pos_embed", &[1, length + 1, width]) && fits("cls_token", class) {
        let (positions, token) = (&tensors["pos_embed"], &tensors["cls_token"]);
        let (first, rest) = (positions.narrow(1, 0, 1), positions.narrow(1, 1, length));
        let token = token + first;
        tensors.insert("pos_embed", rest);
        tensors.insert("cls_token", token);
    }
}

/// What torch.save writes is told by its first bytes, or else by its name.
fn is_pickle(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    let file = File::open(path).with_context(|| format!("{}: could not be read", path.display()))?;
    file.take(9).read_to_end(&mut head).with_context(|| format!("{}: could not be read", path.display()))?;
    if head.get(8) == Some(&b'{') {
        return Ok(false); // Safetensors: the length of a text in JSON, and the text.
    }
    let named = path.extension().is_some_and(|end| ["pth", "pt", "ckpt", "pkl"].iter().any(|other| end == *other));
    // A zip archive, and a bare pickle of protocol 2 or later.
    Ok(named || head.starts_with(b"PK\x03\x04") || (head.len() > 2 && head[0] == 0x80 && (2..=5).contains(&head[1])))
}

/// Training programs keep the weights under such a name, beside the optimiser's state and what else they need.
fn unwrapped(tensors: HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let Some(wrap) = WRAPS.iter().find(|wrap| tensors.keys().any(|name| name.starts_with(*wrap))) else {
        return tensors;
    };
    tensors.into_iter().filter_map(|(name, x)| Some((name.strip_prefix(wrap)?.to_string(), x))).collect()
}

/// What to do with a pickle that cannot be read here.
fn conversion(path: &Path) -> String {
    let (from, to) = (path.display(), path.with_extension("safetensors"));
    format!(
        "PyTorch may read it: `python3 -c \"import torch, safetensors.torch as s; w = torch.load('{from}', \
         map_location='cpu', weights_only=True); s.save_file({{k: v.contiguous() for k, v in w.get('state_dict', w).items()}}, \
         '{}')\"` makes safetensors of it",
        to.display()
    )
}
