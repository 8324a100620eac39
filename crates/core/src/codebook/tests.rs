//! Closed forms of quantising, averaging and restarting.

use super::*;
use crate::store::Store;
use tch::Device;

fn tensor(values: &[f32], shape: &[i64]) -> Tensor {
    Tensor::from_slice(values).view(shape)
}

fn config(update: Update) -> CodebookConfig {
    CodebookConfig { codes: 3, width: 2, update, ..CodebookConfig::default() }
}

/// Codes (0, 0), (1, 0), (0, 1).
fn codebook(store: &Store, config: &CodebookConfig) -> Codebook {
    let book = Codebook::new(&(store.root() / "codebook"), config);
    let codes = tensor(&[0.0, 0.0, 1.0, 0.0, 0.0, 1.0], &[3, 2]);
    assign(&book.codes, &codes);
    if let Some(state) = &book.state {
        assign(&state.averages.sums, &codes);
    }
    book
}

fn averages(book: &Codebook) -> &Averages {
    &book.state.as_ref().expect("codes that move").averages
}

/// Rows as the places of one row of a map: [n, 2] -> [1, 2, 1, n].
fn map(values: &[f32]) -> Tensor {
    tensor(values, &[values.len() as i64 / 2, 2]).tr().contiguous().view([1, 2, 1, -1])
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

fn greatest(x: &Tensor) -> f64 {
    number(&x.abs().max())
}

const AT: Progress = Progress { step: 3, steps: 10, epoch: 0, epochs: 1 };

#[test]
fn four_places_and_three_codes() {
    let store = Store::new(0, Device::Cpu);
    let book = codebook(&store, &config(Update::Gradient));
    let z = map(&[0.9, 0.2, 0.1, 0.1, 0.2, 0.7, 0.8, -0.1]);
    let q = book.quantise(&z);
    assert_eq!(q.indices, Tensor::from_slice(&[1i64, 0, 2, 1]).view([1, 1, 4]));
    assert!((number(&q.commitment) - 0.03125).abs() < 1e-7);
    assert!((number(&book.objective(&q)) - 0.0390625).abs() < 1e-7);
    assert!((number(&perplexity(&q.indices, 3)) - 8f64.sqrt()).abs() < 1e-5);
    assert!(greatest(&(q.z - map(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]))) < 1e-7);
    // As near to all three: the first.
    let middle = book.encode(&map(&[0.5, 0.5]));
    assert_eq!(middle.int64_value(&[0, 0, 0]), 0);
}

#[test]
fn channels_stay_with_their_place() {
    let store = Store::new(0, Device::Cpu);
    let book = codebook(&store, &config(Update::Ema));
    let indices = Tensor::from_slice(&[0i64, 1, 2, 1, 1, 0, 2, 2, 0, 1, 2, 0]).view([2, 2, 3]);
    let z = book.decode(&indices);
    assert_eq!(z.size(), [2, 2, 2, 3]);
    assert_eq!(book.encode(&z), indices);
    // Code 2 is (0, 1): its second channel alone.
    assert_eq!((z.double_value(&[0, 0, 0, 2]), z.double_value(&[0, 1, 0, 2])), (0.0, 1.0));
}

#[test]
fn perplexity_is_one_for_one_code_and_k_for_all() {
    let one = Tensor::full([5, 4], 2, (Kind::Int64, Device::Cpu));
    assert!((number(&perplexity(&one, 8)) - 1.0).abs() < 1e-5);
    let all = Tensor::arange(8, (Kind::Int64, Device::Cpu)).repeat([3, 1]);
    assert!((number(&perplexity(&all, 8)) - 8.0).abs() < 1e-4);
}

#[test]
fn each_term_has_its_own_gradient() {
    let store = Store::new(0, Device::Cpu);
    let book = codebook(&store, &config(Update::Gradient));
    let z = map(&[0.9, 0.2, 0.1, 0.1, 0.2, 0.7, 0.8, -0.1]).set_requires_grad(true);
    let gradient = |loss: &dyn Fn(&Quantised) -> Tensor| {
        let (mut z, mut codes) = (z.shallow_clone(), book.codes.shallow_clone());
        z.zero_grad();
        codes.zero_grad();
        loss(&book.quantise(&z)).backward();
        let grad = |x: &Tensor| if x.grad().defined() { x.grad().copy() } else { x.zeros_like() };
        (grad(&z), grad(&codes))
    };
    let (to_z, to_codes) = gradient(&|q| q.z.sum(None));
    assert_eq!(greatest(&(to_z - 1.0)), 0.0, "straight through");
    assert_eq!(greatest(&to_codes), 0.0, "the reconstruction does not move the codes");
    let (to_z, to_codes) = gradient(&|q| q.commitment.shallow_clone());
    assert!(greatest(&to_z) > 0.0);
    assert_eq!(greatest(&to_codes), 0.0);
    let (to_z, to_codes) = gradient(&|q| q.codebook.shallow_clone());
    assert_eq!(greatest(&to_z), 0.0);
    // d mean (z - e)^2 / d e = 2 (e - z) / 8, summed over the members (0.9, 0.2) and (0.8, -0.1).
    let expected = tensor(&[(1.0 - 0.9 + 1.0 - 0.8) / 4.0, (-0.2 + 0.1) / 4.0], &[2]);
    assert!(greatest(&(to_codes.get(1) - expected)) < 1e-7);
}

#[test]
fn without_a_past_a_code_is_the_mean_of_its_members() {
    let store = Store::new(0, Device::Cpu);
    let book = codebook(&store, &CodebookConfig { tau: 0.0, ..config(Update::Ema) });
    let z = map(&[0.9, 0.2, 0.1, 0.1, 0.2, 0.7, 0.8, -0.1]);
    let q = book.quantise(&z);
    let before = book.codes.copy();
    book.observe(&z, &q, AT);
    assert_eq!(book.codes, before, "only a step moves codes");
    book.step();
    // The smoothed count is off by eps / N, 1e-5 relative.
    assert!(greatest(&(book.codes.get(1) - tensor(&[0.85, 0.05], &[2]))) < 2e-5);
    assert!(greatest(&(book.codes.get(2) - tensor(&[0.2, 0.7], &[2]))) < 2e-5);
}

#[test]
fn averages_start_warm() {
    let store = Store::new(0, Device::Cpu);
    let book = codebook(&store, &config(Update::Ema));
    let z = map(&[0.9, 0.2, 0.8, -0.1]);
    book.observe(&z, &book.quantise(&z), AT);
    book.step();
    // N = 0.99 + 0.01 2 = 1.01 and m = 0.99 (1, 0) + 0.01 (1.7, 0.1); averages that start at 0 would give
    // (50.36, 0.05).
    let expected = tensor(&[(0.99 + 0.017) / 1.01, 0.001 / 1.01], &[2]);
    assert!(greatest(&(book.codes.get(1) - expected)) < 2e-5);
    // Unused codes stay.
    assert!(greatest(&(book.codes.get(2) - tensor(&[0.0, 1.0], &[2]))) < 2e-5);
}

#[test]
fn members_at_their_code_leave_it_there() {
    let store = Store::new(0, Device::Cpu);
    let book = codebook(&store, &config(Update::Ema));
    let z = map(&[0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    let before = book.codes.copy();
    for _ in 0..20 {
        book.observe(&z, &book.quantise(&z), AT);
        book.step();
    }
    assert!(greatest(&(&book.codes - before)) < 1e-6);
}

#[test]
fn a_code_that_nobody_uses_is_moved_to_the_batch_and_stays() {
    for update in [Update::Ema, Update::Gradient] {
        let store = Store::new(0, Device::Cpu);
        let book = codebook(&store, &CodebookConfig { restart: 1.0, tau: 0.9, ..config(update) });
        // All nearest to code 1, in two groups.
        let z = map(&[2.0, -1.0, 2.0, -1.0, 3.0, 0.0, 3.0, 0.0, 2.0, -1.0, 3.0, 0.0]);
        book.observe(&z, &book.quantise(&z), AT);
        book.step();
        for code in [0, 2] {
            let row = book.codes.get(code);
            let at = |x: f32, y: f32| greatest(&(&row - tensor(&[x, y], &[2]))) == 0.0;
            assert!(at(2.0, -1.0) || at(3.0, 0.0), "{update:?}");
            assert_eq!(averages(&book).counts.double_value(&[code]), 1.0);
            assert_eq!(averages(&book).sums.get(code), row);
        }
        let moved = book.codes.copy();
        assert!(greatest(&(averages(&book).counts.get(1) - (0.9 + 0.1 * 6.0))) < 1e-6);
        let used = book.quantise(&z).indices;
        book.observe(&z, &book.quantise(&z), AT);
        book.step();
        // Each of the two groups has three places, and a code that lies on them, unless both moved to one group.
        let mut stayed = 0;
        for code in [0, 2] {
            let members = number(&used.eq(code).sum(Kind::Float));
            if members > 0.0 {
                assert_eq!(members, 3.0, "{update:?}");
                // N = 0.9 + 0.1 3 and m = N e: the code stays. By averages it is m over N smoothed by eps 1e-5.
                assert!(greatest(&(book.codes.get(code) - moved.get(code))) < 1e-4, "{update:?}");
                assert!(greatest(&(averages(&book).counts.get(code) - 1.2)) < 1e-6, "{update:?}");
                assert!(greatest(&(averages(&book).sums.get(code) - moved.get(code) * 1.2)) < 1e-5, "{update:?}");
                stayed += 1;
            } else {
                // Nobody's again: moved to the batch once more.
                assert_eq!(averages(&book).counts.double_value(&[code]), 1.0);
            }
        }
        assert!(stayed > 0 && (stayed == 2 || moved.get(0) == moved.get(2)), "{update:?}");
    }
    // Never, where the configuration says so.
    let store = Store::new(0, Device::Cpu);
    let book = codebook(&store, &config(Update::Gradient));
    let z = map(&[2.0, -1.0, 2.0, -1.0]);
    let before = book.codes.copy();
    book.observe(&z, &book.quantise(&z), AT);
    book.step();
    assert_eq!(book.codes, before);
    assert_eq!(store.variables().len(), 1, "where the optimiser alone moves codes, nothing else is kept");
}

#[test]
fn without_commitment_the_encoder_is_not_drawn_to_the_codes() {
    for update in [Update::Ema, Update::Gradient] {
        let config = CodebookConfig { beta: 0.0, ..config(update) };
        config.check().expect("the ablation");
        let store = Store::new(0, Device::Cpu);
        let book = codebook(&store, &config);
        let z = map(&[0.9, 0.2, 0.1, 0.1, 0.2, 0.7, 0.8, -0.1]).set_requires_grad(true);
        let q = book.quantise(&z);
        let objective = book.objective(&q);
        // What is left is the codebook's own term, 0.03125 in this case, where the optimiser moves it.
        let own = if update == Update::Gradient { 0.03125 } else { 0.0 };
        assert!((number(&objective) - own).abs() < 1e-7);
        (objective + q.z.sum(None)).backward();
        assert_eq!(greatest(&(z.grad() - 1.0)), 0.0, "the reconstruction alone moves the encoder");
        if update == Update::Gradient {
            assert!(greatest(&book.codes.grad()) > 0.0);
        }
    }
}

#[test]
fn restarts_are_a_function_of_seed_and_step() {
    let run = |seed, step| {
        let store = Store::new(seed, Device::Cpu);
        let book = codebook(&store, &CodebookConfig { restart: 1.0, ..config(Update::Ema) });
        let values: Vec<f32> = (0..200).map(|i| (1.3 * (i * i) as f32).sin() + 5.0).collect();
        let z = map(&values);
        book.observe(&z, &book.quantise(&z), Progress { step, ..AT });
        book.step();
        book.codes.copy()
    };
    assert_eq!(run(0, 3), run(0, 3));
    assert_ne!(run(0, 3), run(0, 4));
    assert_ne!(run(0, 3), run(1, 3));
}

#[test]
fn unusable_numbers_are_refused() {
    let refused = |config: CodebookConfig| config.check().expect_err("a refusal").to_string();
    assert!(refused(CodebookConfig { codes: 0, ..config(Update::Ema) }).contains("codebook.codes is 0"));
    assert!(refused(CodebookConfig { width: 0, ..config(Update::Ema) }).contains("codebook.width is 0"));
    assert!(refused(CodebookConfig { tau: 1.5, ..config(Update::Ema) }).contains("codebook.tau is 1.5"));
    assert!(refused(CodebookConfig { restart: -1.0, ..config(Update::Ema) }).contains("codebook.restart is -1"));
    assert!(refused(CodebookConfig { beta: f64::NAN, ..config(Update::Ema) }).contains("codebook.beta is NaN"));
}
