//! Claims of papers: what was expected, what the seeds say, and the verdict; claims.csv.
//!
//! A claim has rules, each a difference that has to be `by` or more, fixed before its runs. Over the seeds of one rule:
//!
//! - it holds if the mean difference is `by` or more, and a one-sided t test says that it is above 0 (where `by` is
//!   negative, as in "no worse by more than", that it is above `by`);
//! - it fails if a one-sided t test says that the difference is below `by`.
//!
//! A rank correlation has a known distribution under chance, which stands in the place of the first t test. A rule that
//! lacks the value of a seed decides nothing: seeds that are left are not a fair sample of all.
//!
//! A claim holds only if all its rules do, so its p-value is the largest of theirs; it fails if one of them fails, so
//! that p-value is the smallest times their number. A claim is looked at after its own seeds and, where those decide
//! nothing, once more after twice as many: its p-value is the smallest of its looks times [`LOOKS`] (Bonferroni), whether
//! the second was needed or not. Over all claims that are judged together both kinds are corrected by Holm's rule.

use crate::figure::{Figure, Interval, file_name, intervals};
use crate::file::write_whole;
use crate::html::Card;
use crate::statistics::{exceeds, holm, mean, rank_correlation_exceeds_chance, sd, t_quantile};
use crate::table::Listing;
use anyhow::Result;
use std::fmt;
use std::path::Path;

/// How seldom a verdict may be wrong, over all claims that are judged together.
pub const ALPHA: f64 = 0.05;

/// How often a claim may be looked at.
pub const LOOKS: usize = 2;

/// What a claim says and what was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    pub id: String,
    pub statement: String,
    /// Paper and table or figure, or the survey.
    pub source: String,
    /// What was published, in words, and how far it is trusted.
    pub published: String,
    /// What it costs: `minutes`, `hours`, `gpu`.
    pub class: String,
    /// How to run it.
    pub command: String,
    pub rules: Vec<Rule>,
    /// After how many seeds it was looked at: its own, and twice as many if there are.
    pub looks: Vec<usize>,
    /// What the rules are made of: (arm, metric, a value a seed).
    pub scores: Vec<(String, String, Vec<f64>)>,
    /// What a reader must know: runs that diverged.
    pub notes: Vec<String>,
}

/// A difference that has to be `by` or more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// In words and symbols.
    pub text: String,
    pub by: f64,
    /// One a seed; none where a run has no value.
    pub differences: Vec<Option<f64>>,
    /// Of rank correlations, over how many arms.
    pub ranked: Option<usize>,
}

impl Claim {
    /// Whether every rule has a value of every seed: without, no number of seeds decides it.
    pub fn is_whole(&self) -> bool {
        self.rules.iter().all(|rule| rule.of_all(rule.differences.len()).is_some())
    }
}

impl Rule {
    /// The p-value of its first `n` seeds that it does not hold; 1 where the mean is not large enough or a seed is missing.
    fn p_holds(&self, n: usize) -> f64 {
        let p = |differences: Vec<f64>| match self.ranked {
            _ if mean(&differences) < self.by => None,
            Some(k) => rank_correlation_exceeds_chance(&differences, k),
            None => exceeds(&differences, self.by.min(0.0)),
        };
        self.of_all(n).and_then(p).unwrap_or(1.0)
    }

    /// The p-value of its first `n` seeds that it does not fail.
    fn p_fails(&self, n: usize) -> f64 {
        let turned = |differences: Vec<f64>| differences.iter().map(|d| -d).collect::<Vec<f64>>();
        self.of_all(n).and_then(|differences| exceeds(&turned(differences), -self.by)).unwrap_or(1.0)
    }

    /// The differences of the first `n` seeds; none if one has no value.
    fn of_all(&self, n: usize) -> Option<Vec<f64>> {
        self.differences[..n].iter().copied().collect()
    }

    /// The differences that there are.
    fn values(&self) -> Vec<f64> {
        self.differences.iter().copied().flatten().collect()
    }

    /// Mean and its 95 % interval by Student's t; no interval of one seed.
    pub fn mean(&self) -> (f64, Option<(f64, f64)>) {
        let differences = self.values();
        let (n, mean) = (differences.len(), mean(&differences));
        let half = sd(&differences).map(|sd| t_quantile(0.95, n as u64 - 1) * sd / (n as f64).sqrt());
        (mean, half.map(|half| (mean - half, mean + half)))
    }

    fn ours(&self) -> String {
        match self.mean() {
            _ if self.values().is_empty() => "no value".into(),
            (mean, Some((low, high))) => {
                format!("{} (95 %: {} to {}, n={})", number(mean), number(low), number(high), self.values().len())
            }
            (mean, None) => format!("{} (n=1)", number(mean)),
        }
    }
}

/// Four digits, whatever the size.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match value {
        0.0 => "0".into(),
        _ if !(1e-4..1e5).contains(&size) => format!("{value:.3e}"),
        _ => format!("{value:.*}", (3 - size.log10().floor() as i64).clamp(0, 6) as usize),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Reproduced,
    NotReproduced,
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Reproduced => "reproduced",
            Verdict::NotReproduced => "not reproduced",
            Verdict::Inconclusive => "inconclusive",
        })
    }
}

/// A claim's verdict among those judged with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Corrected p-value that not all rules hold.
    pub p_holds: f64,
    /// Corrected p-value that no rule fails.
    pub p_fails: f64,
    pub verdict: Verdict,
}

/// The verdicts on claims, corrected for how many there are.
pub fn judge(claims: &[Claim]) -> Vec<Judgement> {
    let holds = |claim: &Claim, n| claim.rules.iter().map(|rule| rule.p_holds(n)).fold(0.0, f64::max);
    let fails = |claim: &Claim, n| {
        claim.rules.iter().map(|rule| rule.p_fails(n)).fold(1.0, f64::min) * claim.rules.len() as f64
    };
    let corrected = |p: &dyn Fn(&Claim, usize) -> f64| {
        let best = |claim: &Claim| claim.looks.iter().map(|&n| p(claim, n)).fold(1.0, f64::min);
        holm(&claims.iter().map(|claim| (best(claim) * LOOKS as f64).min(1.0)).collect::<Vec<_>>())
    };
    let (holds, fails) = (corrected(&holds), corrected(&fails));
    let verdict = |(p_holds, p_fails)| Judgement {
        p_holds,
        p_fails,
        verdict: match (p_holds < ALPHA, p_fails < ALPHA) {
            (true, false) => Verdict::Reproduced,
            (false, true) => Verdict::NotReproduced,
            _ => Verdict::Inconclusive,
        },
    };
    holds.into_iter().zip(fails).map(verdict).collect()
}

/// The columns of claims.csv: one line a rule.
pub const COLUMNS: [&str; 14] = [
    "claim", "class", "source", "rule", "n", "mean", "low", "high", "by", "p_holds", "p_fails", "family", "verdict",
    "command",
];

/// The bytes of claims.csv. Equal claims give equal bytes.
///
/// # Errors
/// If a line cannot be written.
pub fn to_csv(claims: &[Claim]) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for (claim, judged) in claims.iter().zip(judge(claims)) {
        for rule in &claim.rules {
            let (mean, interval) = rule.mean();
            let end = |end: fn((f64, f64)) -> f64| interval.map(end).map_or(String::new(), |x| x.to_string());
            let n = rule.values().len();
            let mean = if n == 0 { String::new() } else { mean.to_string() };
            csv.write_record([
                &claim.id,
                &claim.class,
                &claim.source,
                &rule.text,
                &n.to_string(),
                &mean,
                &end(|x| x.0),
                &end(|x| x.1),
                &rule.by.to_string(),
                &judged.p_holds.to_string(),
                &judged.p_fails.to_string(),
                &claims.len().to_string(),
                &judged.verdict.to_string(),
                &claim.command,
            ])?;
        }
    }
    Ok(csv.into_inner()?)
}

/// Writes claims.csv whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, claims: &[Claim]) -> Result<()> {
    write_whole(path, &to_csv(claims)?)
}

/// All verdicts in one list.
pub fn listing(claims: &[Claim]) -> Listing {
    let line = |(claim, judged): (&Claim, Judgement)| {
        let p = match judged.verdict {
            Verdict::NotReproduced => judged.p_fails,
            _ => judged.p_holds,
        };
        vec![claim.id.clone(), claim.statement.clone(), judged.verdict.to_string(), number(p)]
    };
    Listing {
        title: "Verdicts".into(),
        head: ["claim", "statement", "verdict", "p"].map(String::from).into(),
        lines: claims.iter().zip(judge(claims)).map(line).collect(),
        note: format!(
            "A claim is reproduced if all its rules hold, not reproduced if one fails. Rules were fixed before these \
             runs; where trial runs had shown the sign before that, the claim says so. Tests are one-sided t tests of the \
             rules' values over seeds, corrected for {LOOKS} looks and by Holm's rule for {} claims at {ALPHA}: p of a \
             claim that is not reproduced is that of its failing, of every other that of its holding. Inconclusive: these \
             seeds decide neither.",
            claims.len()
        ),
    }
}

/// One claim on the page.
///
/// # Errors
/// If the figure cannot be drawn.
pub fn card(claim: &Claim, judged: &Judgement) -> Result<Card> {
    let mut notes = vec![
        claim.statement.clone(),
        format!("Published: {}", claim.published),
        format!("Verdict: {}.", judged.verdict),
    ];
    notes.extend(claim.rules.iter().map(|rule| format!("Rule: {}. Found: {}.", rule.text, rule.ours())));
    let score = |(arm, metric, values): &(String, String, Vec<f64>)| {
        let sd = sd(values).map_or(String::new(), |sd| format!(" ± {}", number(sd)));
        format!("{arm}, {metric}: {}{sd} (n={})", number(mean(values)), values.len())
    };
    notes.extend(claim.notes.iter().cloned());
    Ok(Card {
        name: claim.id.clone(),
        paper: claim.source.clone(),
        family: format!("{} · {}", judged.verdict, claim.class),
        figures: figure(claim)?.into_iter().collect(),
        texts: vec![
            ("What the rules are made of".into(), claim.scores.iter().map(score).collect::<Vec<_>>().join("\n")),
            ("Command".into(), claim.command.clone()),
        ],
        notes,
        ..Card::default()
    })
}

/// The differences of a claim's rules; none where no run ended well.
fn figure(claim: &Claim) -> Result<Option<Figure>> {
    let drawn = claim.rules.iter().filter(|rule| !rule.values().is_empty()).map(|rule| Interval {
        title: rule.text.clone(),
        values: rule.values(),
        interval: rule.mean().1,
        threshold: rule.by,
    });
    let drawn: Vec<Interval> = drawn.collect();
    if drawn.is_empty() {
        return Ok(None);
    }
    Ok(Some(Figure { name: file_name(&claim.id), ..intervals(&claim.id, &drawn)? }))
}
