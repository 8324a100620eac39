//! Verdicts on made-up claims whose verdict is plain, and what is written of them.

use selfsup_report::claims::{COLUMNS, Claim, Rule, Verdict, card, judge, listing, number, to_csv};

fn claim(id: &str, rules: &[(f64, &[f64])]) -> Claim {
    let rule = |(by, differences): &(f64, &[f64])| Rule {
        text: "a − b".into(),
        by: *by,
        differences: differences.iter().copied().map(Some).collect(),
        ranked: None,
    };
    let seeds = rules[0].1.len();
    Claim { id: id.into(), rules: rules.iter().map(rule).collect(), looks: vec![seeds], ..Claim::default() }
}

const CLEAR: [f64; 5] = [0.031, 0.029, 0.03, 0.032, 0.028];
const BELOW: [f64; 5] = [-0.031, -0.029, -0.03, -0.032, -0.028];
const VAGUE: [f64; 5] = [0.03, -0.02, 0.05, -0.01, 0.04];

fn verdict(rules: &[(f64, &[f64])]) -> Verdict {
    judge(&[claim("x", rules)])[0].verdict
}

#[test]
fn a_claim_holds_if_all_its_rules_do_and_fails_if_one_does() {
    use Verdict::{Inconclusive, NotReproduced, Reproduced};
    assert_eq!(verdict(&[(0.02, &CLEAR)]), Reproduced);
    assert_eq!(verdict(&[(0.02, &CLEAR), (0.0, &CLEAR)]), Reproduced);
    assert_eq!(verdict(&[(0.02, &BELOW)]), NotReproduced);
    assert_eq!(verdict(&[(0.02, &CLEAR), (0.0, &BELOW)]), NotReproduced);
    assert_eq!(verdict(&[(0.02, &VAGUE)]), Inconclusive);
    assert_eq!(verdict(&[(0.02, &CLEAR), (0.0, &VAGUE)]), Inconclusive);
    // Clearly above 0, and clearly less than was claimed.
    assert_eq!(verdict(&[(0.1, &CLEAR)]), NotReproduced);
    // No worse by more than 0.04.
    assert_eq!(verdict(&[(-0.04, &BELOW)]), Reproduced);
    assert_eq!(verdict(&[(-0.02, &BELOW)]), NotReproduced);
    // One seed decides nothing, nor does none.
    assert_eq!(verdict(&[(0.0, &[0.5])]), Inconclusive);
    assert_eq!(verdict(&[(0.0, &[])]), Inconclusive);
}

#[test]
fn a_missing_seed_decides_nothing() {
    for values in [&CLEAR, &BELOW] {
        let mut claim = claim("x", &[(0.02, values)]);
        claim.rules[0].differences.push(None);
        claim.looks = vec![6];
        assert_eq!(judge(&[claim])[0].verdict, Verdict::Inconclusive);
    }
}

#[test]
fn a_second_look_is_paid_for_by_both() {
    let looks = |seeds: &[f64], looks: &[usize]| {
        let mut claim = claim("x", &[(0.02, seeds)]);
        claim.looks = looks.to_vec();
        judge(&[claim])[0]
    };
    let ten: Vec<f64> = [VAGUE, CLEAR.map(|x| 1.5 * x)].concat();
    let (first, second) = (looks(&ten, &[5]), looks(&ten, &[10]));
    assert_eq!((first.verdict, second.verdict), (Verdict::Inconclusive, Verdict::Reproduced));
    assert_eq!(looks(&ten, &[5, 10]).p_holds, second.p_holds);
    // What the first look has found is not lost by the second, and is no cheaper for there being none.
    let ten: Vec<f64> = [CLEAR, VAGUE].concat();
    assert_eq!(looks(&ten, &[5, 10]).p_holds, looks(&ten, &[5]).p_holds);
    let one_sided = selfsup_report::statistics::exceeds(&CLEAR, 0.0).expect("a p-value");
    assert!((looks(&ten, &[5]).p_holds - 2.0 * one_sided).abs() < 1e-15);
}

#[test]
fn rank_correlations_are_held_against_chance() {
    // Five orders of three arms that are all as claimed: of 6^5 one is so by chance; twice that for two looks.
    let trend = |values: &[f64]| {
        let mut claim = claim("x", &[(0.5, values)]);
        claim.rules[0].ranked = Some(3);
        judge(&[claim])[0]
    };
    let judged = trend(&[1.0; 5]);
    assert_eq!(judged.verdict, Verdict::Reproduced);
    assert!((judged.p_holds - 2.0 / 7776.0).abs() < 1e-12, "{judged:?}");
    assert_eq!(trend(&[-1.0, -1.0, -0.5, -1.0, -0.5]).verdict, Verdict::NotReproduced);
    assert_eq!(trend(&[1.0, -0.5, 0.5, 1.0, 0.5]).verdict, Verdict::Inconclusive);
}

#[test]
fn p_values_are_corrected_for_the_number_of_claims() {
    let alone = judge(&[claim("x", &[(0.0, &CLEAR)])])[0];
    let many: Vec<Claim> = std::iter::once(claim("x", &[(0.0, &CLEAR)]))
        .chain((0..9).map(|i| claim(&i.to_string(), &[(0.0, &VAGUE)])))
        .collect();
    let among = judge(&many)[0];
    assert!((among.p_holds / alone.p_holds - 10.0).abs() < 1e-9, "{among:?} {alone:?}");
    // Within a claim, a failing rule is one of several that might have failed by chance.
    let two = judge(&[claim("x", &[(0.0, &BELOW), (0.0, &CLEAR)])])[0];
    let one = judge(&[claim("x", &[(0.0, &BELOW)])])[0];
    assert!((two.p_fails / one.p_fails - 2.0).abs() < 1e-9);
}

#[test]
fn everything_is_told_of_every_claim() {
    let claims = [
        claim("holds", &[(0.02, &CLEAR), (0.0, &CLEAR)]),
        claim("fails", &[(0.02, &BELOW)]),
        claim("none", &[(0.0, &[])]),
    ];
    let text = String::from_utf8(to_csv(&claims).expect("a CSV")).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], COLUMNS.join(","));
    assert_eq!(lines.len(), 5, "a line a rule:\n{text}");
    assert!(lines[1].starts_with("holds,") && lines[1].contains(",reproduced,"));
    assert!(lines[3].starts_with("fails,") && lines[3].contains(",not reproduced,"));
    assert!(lines[4].contains(",a − b,0,,,,0,"), "no value where there is none: {}", lines[4]);
    let listing = listing(&claims);
    assert_eq!(
        listing.lines.iter().map(|line| line[2].as_str()).collect::<Vec<_>>(),
        ["reproduced", "not reproduced", "inconclusive"]
    );
    for (claim, judged) in claims.iter().zip(judge(&claims)) {
        let card = card(claim, &judged).expect("a card");
        assert!(card.family.starts_with(&judged.verdict.to_string()), "{}", card.family);
        assert_eq!(card.figures.len(), usize::from(claim.id != "none"));
    }
}

#[test]
fn numbers_have_four_digits() {
    for (value, text) in [
        (0.0, "0"),
        (0.03678, "0.03678"),
        (12.345678, "12.35"),
        (1234.5, "1234"),
        (4.8e-5, "4.800e-5"),
        (-0.5, "-0.5000"),
    ] {
        assert_eq!(number(value), text);
    }
}
