//! PixelCNN against PyTorch (`tests/golden.py`), closed forms, and what may depend on what.

use super::*;
use selfsup_core::Device;
use selfsup_core::data::Normalisation;
use selfsup_core::method::{ImageShape, Tokenizer, View};
use selfsup_core::store::{Store, assign};
use std::rc::Rc;

/// `wave` of golden.py: sin(1.3 m^2 + phase).
fn wave(phase: f64, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|m: i64| (1.3 * (m * m) as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

const AT: Progress = Progress { step: 0, steps: 10, epoch: 0, epochs: 1 };

/// A first stage for images whose pixels are the codes: code k of 5 is the grey value k / 4.
struct Painter;

impl Method for Painter {
    fn views(&self) -> Vec<Recipe> {
        Vec::new()
    }

    fn loss(&mut self, _: &Batch, _: Progress) -> Loss {
        unreachable!("a first stage is frozen")
    }

    fn features(&self, _: &Tensor, _: bool) -> Tensor {
        unreachable!("the second stage has its own")
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        Some(self)
    }
}

impl Tokenizer for Painter {
    fn encode(&self, x: &Tensor) -> Tensor {
        quantise(x, 5).squeeze_dim(1)
    }

    fn decode(&self, codes: &Tensor) -> Tensor {
        codes.unsqueeze(1).to_kind(Kind::Float) / 4.0
    }

    fn vocabulary(&self) -> i64 {
        5
    }

    fn grid(&self, size: i64) -> i64 {
        size
    }
}

fn setup<'a>(store: &'a Store, encoder: &str, channels: i64, size: i64) -> Setup<'a> {
    let image = Shape::Image(ImageShape { channels, size });
    Setup::new(store.root(), encoder.parse().expect("an encoder's name"), image, 8)
}

fn make(store: &Store, encoder: &str, channels: i64, size: i64, levels: i64) -> PixelCnn {
    let config = Config { levels, hidden: 9 };
    PixelCnn::new(config, &setup(store, encoder, channels, size)).expect("a method")
}

fn coded(store: &Store, encoder: &str, size: i64) -> PixelCnn {
    let tokenizer: Option<Rc<dyn Method>> = Some(Rc::new(Painter));
    let setup = Setup { tokenizer, ..setup(store, encoder, 1, size) };
    PixelCnn::new(Config { hidden: 9, ..Config::default() }, &setup).expect("a method")
}

/// The i-th name in alphabetical order becomes 0.3 sin(1.3 m^2 + i).
fn fill(store: &Store) {
    let mut variables = store.trainable();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    for (i, v) in variables.iter().enumerate() {
        assign(&v.tensor, &(wave(i as f64, &v.tensor.size()) * 0.3));
    }
}

fn batch(x: Tensor) -> Batch {
    let n = x.size()[0];
    let params = Tensor::zeros([n, 12], (Kind::Float, Device::Cpu));
    Batch::new(vec![View { x, params }], (0..n as usize).collect(), 0, 0)
}

/// Pixels in [0, 1].
fn pixels(n: i64, channels: i64, size: i64) -> Tensor {
    (wave(0.1, &[n, channels, size, size]).to_kind(Kind::Float) + 1.0) / 2.0
}

fn gradient(store: &Store, name: &str) -> Tensor {
    store.trainable().into_iter().find(|v| v.name == name).expect("a variable of that name").tensor.grad()
}

#[test]
fn likelihood_and_gradients_are_those_of_pytorch() {
    type Case = (&'static str, f64, f64, f64, f64, &'static [(&'static str, f64)]);
    let cases: [Case; 5] = [
        (
            "gated grey",
            1.4110287528,
            2.146351107,
            0.019832510,
            0.228266898,
            &[
                ("encoder.layers.0.horizontal.weight", 5.783527456e-03),
                ("encoder.layers.1.vertical.weight", 3.931534005e-03),
                ("head.1.bias", 1.980736619e-01),
            ],
        ),
        (
            "gated colour",
            2.0683596856,
            5.688457273,
            0.126806890,
            0.216090345,
            &[
                ("encoder.layers.0.horizontal.weight", 4.572190500e-03),
                ("encoder.layers.1.vertical.weight", 2.736958923e-03),
                ("head.1.bias", 1.881133620e-01),
            ],
        ),
        (
            "plain grey",
            1.4584381654,
            6.933170673,
            0.396037417,
            0.526916736,
            &[
                ("encoder.layers.0.weight", 8.382611403e-02),
                ("encoder.layers.1.conv.weight", 1.047831736e-03),
                ("head.1.bias", 2.910218174e-01),
            ],
        ),
        (
            "plain colour",
            2.1479427817,
            8.572008846,
            -0.217449159,
            0.269141097,
            &[
                ("encoder.layers.0.weight", 5.151454472e-02),
                ("encoder.layers.1.conv.weight", 5.729827857e-04),
                ("head.1.bias", 2.041616871e-01),
            ],
        ),
        (
            "gated codes",
            1.6856722346,
            1.648402003,
            0.183363026,
            0.344509071,
            &[
                ("encoder.layers.0.horizontal.weight", 1.668714903e-03),
                ("encoder.layers.1.vertical.weight", 2.232172474e-03),
                ("head.1.bias", 2.648733549e-01),
            ],
        ),
    ];
    for (name, loss, norm, logit, total, gradients) in cases {
        let store = Store::new(0, Device::Cpu);
        let encoder = if name.starts_with("gated") { "pixelcnn-6x3" } else { "pixelcnn-6x3-plain" };
        let (mut method, x) = if name == "gated codes" {
            (coded(&store, encoder, 3), pixels(2, 1, 3))
        } else {
            let (channels, levels) = if name.ends_with("grey") { (1, 4) } else { (3, 8) };
            let size = if name == "gated grey" {
                5
            } else if name == "plain grey" {
                6
            } else {
                4
            };
            let normalisation = Normalisation { mean: vec![0.3; channels], std: vec![0.4; channels] };
            let setup = Setup { normalisation, ..setup(&store, encoder, channels as i64, size) };
            let method = PixelCnn::new(Config { levels, hidden: 9 }, &setup).expect("a method");
            (method, (pixels(2, channels as i64, size) - 0.3) / 0.4)
        };
        fill(&store);
        // f32 through six layers of some hundred products: values of about 1 keep six digits.
        let logits = method.logits(&method.values.read(&x));
        assert!((number(&logits.norm()) / norm - 1.0).abs() < 2e-6, "{name}: {}", number(&logits.norm()));
        let (c, w) = (logits.size()[1], logits.size()[4]);
        assert!((logits.double_value(&[1, c - 1, 2, w - 1, 1]) - logit).abs() < 3e-6, "{name}");
        let value = method.loss(&batch(x), AT);
        assert!((number(&value.total) / loss - 1.0).abs() < 1e-6, "{name}: {}", number(&value.total));
        assert!((number(&value.parts[0].1) / (loss / 2f64.ln()) - 1.0).abs() < 1e-6, "{name}: bits");
        value.total.backward();
        for (variable, norm) in gradients {
            let g = number(&gradient(&store, variable).norm());
            assert!((g / norm - 1.0).abs() < 1e-4, "{name}: {variable} {g}");
        }
        let all: f64 = store.trainable().iter().map(|v| number(&v.tensor.grad().square().sum(Kind::Double))).sum();
        assert!((all.sqrt() / total - 1.0).abs() < 1e-5, "{name}: {}", all.sqrt());
    }
}

#[test]
fn layers_take_pictures_that_are_no_square() {
    for (encoder, norm, value) in
        [("pixelcnn-6x3", 6.181492269, 0.494337911), ("pixelcnn-6x3-plain", 10.616860472, -1.748029287)]
    {
        let store = Store::new(0, Device::Cpu);
        let method = make(&store, encoder, 1, 5, 4);
        fill(&store);
        let y = method.encoder.activations(&wave(0.2, &[1, 1, 4, 7]).to_kind(Kind::Float), 3);
        assert_eq!(y.size(), [1, 6, 4, 7]);
        assert!((number(&y.norm()) / norm - 1.0).abs() < 2e-6, "{encoder}");
        assert!((y.double_value(&[0, 2, 3, 5]) - value).abs() < 3e-6, "{encoder}");
    }
}

/// Which places of the picture, [C, H, W] bool, the activations of one colour at one place depend on.
fn seen_from(method: &PixelCnn, c: i64, (h, w): (i64, i64), (colour, row, column): (i64, i64, i64)) -> Tensor {
    let x = wave(0.3, &[1, c, h, w]).to_kind(Kind::Float).set_requires_grad(true);
    let y = method.head(&method.encoder.activations(&x, method.encoder.depth())).view([c, -1, h, w]);
    let y = y.select(0, colour).select(1, row).select(1, column);
    // Weights of golden.py's kind meet no exact zero; the weights here make sums that cancel nowhere either.
    let y = (&y * wave(0.9, &y.size()).to_kind(Kind::Float)).sum(None);
    Tensor::run_backward(&[y], &[&x], false, false)[0].squeeze_dim(0).ne(0.0)
}

#[test]
fn a_value_sees_all_values_before_it_and_nothing_else() {
    // Three layers of kernels 7, 3, 3 look back over 3 + 1 + 1 rows and columns: all of 4 x 5.
    for (colours, h, w) in [(1, 4, 5), (3, 4, 5), (1, 5, 3)] {
        let store = Store::new(0, Device::Cpu);
        let method = make(&store, "pixelcnn-12x3", colours, 5, 4);
        let place = |c: i64, r: i64, k: i64| (r * w + k) * colours + c;
        for row in 0..h {
            for column in 0..w {
                for colour in 0..colours {
                    let seen = seen_from(&method, colours, (h, w), (colour, row, column));
                    for (c, r, k) in (0..colours).flat_map(|c| (0..h).flat_map(move |r| (0..w).map(move |k| (c, r, k))))
                    {
                        let expected = place(c, r, k) < place(colour, row, column);
                        let actual = seen.int64_value(&[c, r, k]) == 1;
                        assert_eq!(actual, expected, "{colours}: {:?} from {:?}", (c, r, k), (colour, row, column));
                    }
                }
            }
        }
    }
}

#[test]
fn the_plain_network_is_causal_and_has_a_blind_spot() {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, "pixelcnn-12x3-plain", 1, 9, 4);
    let (h, w, row, column) = (9, 16, 7, 8);
    let seen = seen_from(&method, 1, (h, w), (0, row, column)).squeeze_dim(0);
    for r in 0..h {
        for k in 0..w {
            // Three layers reach 3 + 1 + 1 columns to the left and as many rows up. To the right a layer reaches only
            // where it goes up as well: the first by three columns, each other by one.
            let expected = match row - r {
                0 => column - 5..column,
                up @ 1..=5 => column - 5..column + 3 + (up - 1).min(2) + 1,
                _ => 0..0,
            };
            assert_eq!(seen.int64_value(&[r, k]) == 1, expected.contains(&k), "{r} {k}");
        }
    }
    // The gated network sees what is blind here: one row up, five columns to the right.
    let gated = make(&Store::new(0, Device::Cpu), "pixelcnn-12x3", 1, 9, 4);
    let seen = seen_from(&gated, 1, (h, w), (0, row, column)).squeeze_dim(0);
    assert_eq!(seen.int64_value(&[row - 1, column + 5]), 1);
}

#[test]
fn masked_weights_get_no_gradient_and_do_nothing() {
    // Of the gated layers, in which no ReLU may rest. Six pixels fill a kernel of 7, so that none of its weights meets
    // padding alone.
    let store = Store::new(0, Device::Cpu);
    let network = make(&store, "pixelcnn-6x3", 3, 6, 4).encoder;
    let x = pixels(2, 3, 6);
    let before = network.activations(&x, 3);
    (&before * wave(0.7, &[2, 6, 6, 6]).to_kind(Kind::Float)).sum(None).backward();
    let mut masked = 0;
    for v in store.trainable().iter().filter(|v| v.name.starts_with("encoder.") && v.tensor.dim() == 4) {
        let idle = v.tensor.grad().eq(0.0).to_kind(Kind::Float);
        masked += idle.sum(Kind::Int64).int64_value(&[]);
        assign(&v.tensor, &(v.tensor.detach() + idle * 100.0));
    }
    // Six channels, two of a colour, and twice that for the gate. First layer: the own row of the vertical kernel (7
    // columns, 3 inputs), and at the centre of the horizontal one the colours from the own on (6 of 9 pairs, 4 outputs
    // each). All layers: 1 x 1 of 6 x 6, and later ones' centres (two of 12 x 6): later colours, a third.
    let expected = 12 * 3 * 7 + 4 * 6 + 3 * 36 / 3 + 2 * 72 / 3;
    assert_eq!(masked, expected);
    assert_eq!(network.activations(&x, 3), before);
}

#[test]
fn zero_weights_cost_the_log_of_the_number_of_levels() {
    for levels in [2, 8, 256] {
        let store = Store::new(0, Device::Cpu);
        let mut method = make(&store, "pixelcnn-6x3", 1, 5, levels);
        for v in store.trainable() {
            assign(&v.tensor, &v.tensor.zeros_like());
        }
        let loss = method.loss(&batch(pixels(3, 1, 5)), AT);
        assert!((number(&loss.total) - (levels as f64).ln()).abs() < 1e-6);
        assert!((number(&loss.parts[0].1) - (levels as f64).log2()).abs() < 1e-6, "8 levels are 3 bits");
    }
}

#[test]
fn a_picture_of_one_pixel_has_a_table() {
    let store = Store::new(0, Device::Cpu);
    let method = make(&store, "pixelcnn-6x3", 1, 1, 4);
    let at = |x: i64| method.logits(&Tensor::from_slice(&[x]).view([1, 1, 1, 1]));
    assert!((1..4).all(|x| at(x) == at(0)), "no logit depends on the only pixel");
}

#[test]
fn levels_are_the_bytes_of_an_image() {
    // Through the normalisation and back, as the method meets them.
    let bytes = Tensor::arange(256, (Kind::Float, Device::Cpu));
    let x = (&bytes / 255.0 - 0.2860) / 0.3530;
    let pixels = x * 0.3530 + 0.2860;
    assert_eq!(quantise(&pixels, 256), bytes.to_kind(Kind::Int64));
    let counts = quantise(&pixels, 8).bincount(None::<&Tensor>, 8);
    assert_eq!(counts, Tensor::from_slice(&[32i64; 8]));
    assert_eq!(
        quantise(&Tensor::from_slice(&[-1e-7f32, 0.0, 1.0, 1.0 + 1e-6]), 8),
        Tensor::from_slice(&[0i64, 0, 7, 7])
    );
}

#[test]
fn the_entropy_of_frequencies() {
    let x = Tensor::from_slice(&[0i64, 1, 1, 2]).view([1, 1, 2, 2]);
    // (1/4, 1/2, 1/4): 1.5 bits.
    assert!((number(&bits(&unigram(&x, 5))) - 1.5).abs() < 1e-6);
    assert_eq!(number(&unigram(&x.zeros_like(), 5)), 0.0);
}

#[test]
fn a_generated_picture_is_what_its_own_distribution_gives_for_the_numbers_drawn() {
    for (channels, size) in [(1, 4), (3, 3)] {
        let store = Store::new(0, Device::Cpu);
        let method = make(&store, "pixelcnn-12x3", channels, size, 4);
        let u = (wave(0.5, &[2, channels, size, size]).to_kind(Kind::Float) + 1.0) / 2.001;
        let x = Tensor::ones([2, channels, size, size], (Kind::Int64, Device::Cpu));
        for from in [0, size / 2] {
            let y = method.generate(&x, &u, from);
            assert_eq!(y.narrow(2, 0, from), x.narrow(2, 0, from), "rows that were given stay");
            // All places at once, each given the finished picture before it.
            let (b, c, h, w) = y.size4().expect("a picture");
            let logits = method.logits(&y).permute([0, 1, 3, 4, 2]).reshape([b * c * h * w, -1]);
            let again = draw(&logits, &u.reshape([-1])).view([b, c, h, w]);
            assert_eq!(again.narrow(2, from, h - from), y.narrow(2, from, h - from));
        }
    }
}

#[test]
fn everything_is_trained() {
    for encoder in ["pixelcnn-6x4", "pixelcnn-6x4-plain"] {
        for codes in [false, true] {
            let store = Store::new(0, Device::Cpu);
            let mut method = if codes { coded(&store, encoder, 5) } else { make(&store, encoder, 3, 6, 4) };
            let x = if codes { pixels(4, 1, 5) } else { pixels(4, 3, 6) };
            method.loss(&batch(x.shallow_clone()), AT).total.backward();
            for v in store.trainable() {
                assert!(number(&v.tensor.grad().norm()) > 0.0, "{encoder}: {}", v.name);
            }
            assert_eq!(method.features(&x, false).size(), [4, 6]);
        }
    }
}

#[test]
fn pictures_and_scores_of_pixels_and_of_codes() {
    for codes in [false, true] {
        let store = Store::new(0, Device::Cpu);
        let method = if codes { coded(&store, "pixelcnn-6x2", 5) } else { make(&store, "pixelcnn-6x2", 1, 5, 4) };
        let batch = batch(pixels(3, 1, 5));
        let rows = method.pictures(&batch);
        assert_eq!(rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["input", "completed", "samples"]);
        assert!(rows.iter().all(|(_, x)| x.size() == [3, 1, 5, 5] && !x.requires_grad()));
        assert_eq!(rows[0].1.narrow(2, 0, 2), rows[1].1.narrow(2, 0, 2));
        // Completions and samples have numbers of their own: a completion that keeps no row is another picture.
        let x = method.values.read(&batch.views[0].x);
        let u = batch.uniform(Purpose::Generate, 50).view([-1, 2, 1, 5, 5]);
        let free = |of: i64| method.values.show(&method.generate(&x, &u.select(1, of), 0));
        assert_eq!((rows[2].1 == free(1), rows[2].1 == free(0)), (true, false));
        let scores = no_grad(|| method.pretext(&batch));
        assert_eq!(scores.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["bits_per_dim", "bits_per_dim_unigram"]);
        assert!(scores.iter().all(|(_, x)| number(x) > 0.0 && number(x) < 4.0));
    }
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let refused = |config: Config, encoder: &str, channels: i64| {
        let store = Store::new(0, Device::Cpu);
        let made = PixelCnn::check(&config).and_then(|()| PixelCnn::new(config, &setup(&store, encoder, channels, 6)));
        made.err().expect("a refusal").to_string()
    };
    let message = refused(Config::default(), "convnet", 1);
    assert!(message.contains("convnet") && message.contains("encoder=pixelcnn-32x6"), "{message}");
    for levels in [-1, 0, 1, 257] {
        assert!(refused(Config { levels, ..Config::default() }, "pixelcnn-6x3", 1).contains("levels is"));
    }
    assert!(refused(Config { hidden: 0, ..Config::default() }, "pixelcnn-6x3", 1).contains("hidden is 0"));
    let message = refused(Config { hidden: 2, ..Config::default() }, "pixelcnn-6x3", 3);
    assert!(message.contains("hidden is 2") && message.contains("at least 3"), "{message}");
    assert!(refused(Config::default(), "pixelcnn-2x3", 3).contains("too narrow"));
    assert!(refused(Config::default(), "pixelcnn-4x3-plain", 3).contains("at least 6"));
    let tokens = Shape::Tokens(selfsup_core::method::TokenShape { vocabulary: 9, length: 12 });
    let store = Store::new(0, Device::Cpu);
    let text = Setup::new(store.root(), "pixelcnn-6x3".parse().expect("a name"), tokens, 8);
    let message = PixelCnn::new(Config::default(), &text).err().expect("a refusal").to_string();
    assert!(message.contains("takes images"), "{message}");
    let message =
        selfsup_core::encoder::build(&store.root(), text.encoder, tokens).err().expect("a refusal").to_string();
    assert!(message.contains("12 tokens") && message.contains("no square"), "{message}");
}
