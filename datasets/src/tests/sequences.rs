//! Text, series and captioned images.

use super::says;
use crate::content::Content;
use crate::pieces::Pieces;
use crate::{Dataset, Part, Vocabulary, emoji, load, series, text, verify};
use proptest::prelude::*;
use selfsup_core::data::{Modality, Sample, Samples as _, Word};
use std::collections::BTreeSet;
use std::path::Path;

fn bundled(name: &str) -> Dataset {
    load(name, Path::new("nowhere")).expect("a bundled set")
}

fn test_part(set: &Dataset) -> &Part {
    set.test.as_ref().expect("a test part")
}

fn tokens(part: &Part, row: usize) -> Vec<i64> {
    match part.samples.sample(row).expect("in memory") {
        Sample::Tokens(ids) => ids.iter().map(|&id| i64::from(id)).collect(),
        other => panic!("expected tokens, not {other:?}"),
    }
}

fn written(set: &Dataset, part: &Part, row: usize) -> String {
    set.vocabulary.as_ref().expect("a vocabulary").decode(&tokens(part, row))
}

#[test]
fn windows_give_back_the_text_and_test_windows_are_disjoint() {
    let set = bundled("tinyshakespeare");
    assert_eq!((set.native_size, set.train.len(), test_part(&set).len()), (256, 3922, 436));
    assert_eq!(set.train.samples.modality(), Modality::Tokens { vocabulary: 65 });
    assert!(set.train.labels.is_none() && set.classes.is_empty());
    assert!(written(&set, &set.train, 0).starts_with("First Citizen:\nBefore we proceed any further"));
    // Each window begins where half of the one before it ends.
    let (first, second) = (tokens(&set.train, 0), tokens(&set.train, 1));
    assert_eq!((first.len(), &first[256..]), (512, &second[..256]));
    // nanoGPT's numbers of characters; the test part begins where the training part ends.
    let steps: Vec<Vec<i64>> = (0..436).map(|row| tokens(test_part(&set), row)).collect();
    assert_eq!(steps.iter().map(Vec::len).sum::<usize>(), 111_540);
    assert!(steps[..435].iter().all(|ids| ids.len() == 256));
    assert_eq!(3921 * 256 + tokens(&set.train, 3921).len(), 1_003_854);
    assert!(written(&set, test_part(&set), 0).starts_with("?\n\nGREMIO:\nGood morrow, neighbour Baptista."));
}

#[test]
fn speeches_are_labelled_by_play_and_name_no_speaker() {
    let set = bundled("shakespeare-speeches");
    let labels = |part: &Part| part.labels.clone().expect("labels");
    for part in [&set.train, test_part(&set)] {
        assert!((0..9).all(|play| labels(part).contains(&play)));
        for row in 0..part.len() {
            let speech = written(&set, part, row);
            assert!(speech.len() >= 32, "{speech}");
            assert!(
                !["ROMEO:", "First Citizen:", "KING RICHARD III:"].iter().any(|name| speech.contains(name)),
                "{speech}"
            );
        }
    }
    let all: Vec<(String, u16)> = [&set.train, test_part(&set)]
        .into_iter()
        .flat_map(|part| (0..part.len()).map(|row| (written(&set, part, row), labels(part)[row])).collect::<Vec<_>>())
        .collect();
    for (line, play) in [
        ("Before we proceed any further", "Coriolanus"),
        ("There is a world elsewhere", "Coriolanus"),
        ("Now is the winter of our discontent", "Richard III"),
        ("This royal throne of kings", "Richard II"),
        ("But, soft! what light", "Romeo and Juliet"),
        ("Why, I can smile, and murder", "Henry VI, Part 3"),
        ("A sad tale's best for winter", "The Winter's Tale"),
        ("snapper-up of unconsidered", "The Winter's Tale"),
        ("O, it is excellent", "Measure for Measure"),
        ("Come on, and kiss me, Kate", "The Taming of the Shrew"),
        ("Hell is empty", "The Tempest"),
    ] {
        let found: Vec<&str> = all
            .iter()
            .filter(|(speech, _)| speech.contains(line))
            .map(|(_, label)| set.classes[usize::from(*label)].as_str())
            .collect();
        assert_eq!(found, [play], "{line}");
    }
    assert_eq!(verify("shakespeare-speeches", Path::new("nowhere")).expect("right sums").len(), 3);
}

#[test]
fn plays_begin_where_the_table_says() {
    let set = bundled("tinyshakespeare");
    let whole: String = (0..3922).step_by(2).map(|row| written(&set, &set.train, row)).collect();
    for ((play, at), first) in text::PLAYS.into_iter().zip([
        "First Citizen:\nBefore we proceed",
        "GLOUCESTER:\nNow is the winter",
        "KING RICHARD II:\nOld John of Gaunt",
        "SAMPSON:\nGregory, o' my word",
        "WARWICK:\nI wonder how the king",
        "ARCHIDAMUS:\nIf you shall chance",
        "DUKE VINCENTIO:\nEscalus.",
        "SLY:\nI'll pheeze you",
    ]) {
        assert!(whole[at..].starts_with(first), "{play}");
    }
    // The last play lies in the test part.
    let at = text::PLAYS[8].1 - 1_003_854;
    let rest: String = (0..436).map(|row| written(&set, test_part(&set), row)).collect();
    assert!(rest[at..].starts_with("Master:\nBoatswain!"));
}

#[test]
fn pieces_stay_what_they_were() {
    // Found twice, by an own implementation that was here before and by the library's package for Python (0.23.3): model
    // BPE, trainer with the same number of pieces and the alphabet of the text, pre-tokeniser Split(Regex(r" ?\p{L}+| ?[^\s\p{L}]+|\s"), "isolated").
    let text = GOLDEN_TEXT;
    let pieces = Pieces::train(text, text, 40);
    let piece = |pieces: &Pieces, id: usize| pieces.decode(&[id as u32]);
    let found: Vec<String> = (0..pieces.len()).map(|id| piece(&pieces, id)).collect();
    assert_eq!(found, GOLDEN_PIECES);
    assert_eq!(pieces.encode(text).expect("ids"), GOLDEN_IDS);
    let set = bundled("tinyshakespeare-bpe");
    let Some(Vocabulary::Pieces(pieces)) = &set.vocabulary else { panic!("expected pieces") };
    assert_eq!(pieces.len(), 1024);
    let last: Vec<String> = (1016..1024).map(|id| piece(pieces, id)).collect();
    assert_eq!(last, [" bid", "ister", " chan", "eth", "uty", " fort", " said", " MARGAR"]);
    let start =
        [446, 923, 10, 0, 574, 362, 139, 387, 115, 124, 611, 80, 168, 505, 6, 482, 128, 427, 8, 0, 0, 13, 82, 10];
    assert_eq!(tokens(&set.train, 0)[..24], start);
    let total: usize = (0..test_part(&set).len()).map(|row| tokens(test_part(&set), row).len()).sum();
    assert_eq!(total, 48_116);
}

#[test]
fn vocabularies_tell_what_an_id_is_to_a_word() {
    use Word::{Begins, GoesOn, Separator};
    let set = bundled("shakespeare-speeches");
    let words = set.vocabulary.as_ref().expect("a vocabulary").words().expect("characters tell");
    let kind = |c: &str| words[set.vocabulary.as_ref().expect("a vocabulary").encode(c).expect("an id")[0] as usize];
    assert!("\n !$&,-.:;?".chars().all(|c| kind(&c.to_string()) == Separator));
    assert!("aZ3'".chars().all(|c| kind(&c.to_string()) == GoesOn));
    assert_eq!((words.len(), words.iter().filter(|&&word| word == Separator).count()), (65, 11));
    // Of the pieces of the golden text: ` s` begins a word, `he` goes on with one.
    let pieces = Vocabulary::Pieces(Box::new(Pieces::train(GOLDEN_TEXT, GOLDEN_TEXT, 40)));
    let words = pieces.words().expect("pieces with their blanks tell");
    for (id, piece) in GOLDEN_PIECES.iter().enumerate() {
        let expected = match *piece {
            "\n" | " " | "," | "-" | "." | ";" | ".." => Separator,
            piece if piece.starts_with(' ') => Begins,
            _ => GoesOn,
        };
        assert_eq!(words[id], expected, "`{piece}`");
    }
}

/// A `tokenizer.json`: its model, its decoder and what else it has.
pub(super) fn tokenizer(model: &str, decoder: &str, more: &str) -> String {
    format!(
        r#"{{"version": "1.0", "padding": null, "post_processor": null, "normalizer": null, "model": {model},
        "decoder": {decoder}, {more}}}"#
    )
}

#[test]
fn own_text_may_be_read_in_pieces_made_elsewhere() {
    use Word::{Begins, GoesOn, Separator};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.json");
    let name = format!("text:{}", folder.path().display());
    let open = || load(&name, Path::new("nowhere"));
    std::fs::write(folder.path().join("a.txt"), "See the seeing, a sea. ".repeat(200)).expect("a written file");
    // Word pieces, cut after 4 tokens where the file is used for what it was made for.
    let model = r###"{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {"[UNK]": 0, "a": 1, "See": 2, "##ing": 3, "the": 4, ",": 5, "##a": 6, "see": 7, "se": 8}}"###;
    let special = r#""truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "added_tokens": [{"id": 0, "content": "[UNK]", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}]"#;
    let decoder = r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###;
    std::fs::write(&path, tokenizer(model, decoder, special)).expect("a written file");
    let set = open().expect("own text");
    assert_eq!((set.native_size, set.train.samples.modality()), (128, Modality::Tokens { vocabulary: 9 }));
    assert_eq!(tokens(&set.train, 0)[..9], [2, 4, 7, 3, 5, 1, 8, 6, 0]);
    let vocabulary = set.vocabulary.as_ref().expect("a vocabulary");
    assert_eq!(vocabulary.decode(&[2, 4, 9, 3, 5, -1]), "See the▒##ing,");
    let expected = [Separator, Begins, Begins, GoesOn, Begins, Separator, GoesOn, Begins, Begins];
    assert_eq!(vocabulary.words().expect("prefixes tell"), expected);
    // Pieces of bytes, `Ġ` for a blank, two of them for `é`.
    let vocab = r#""vocab": {"a": 0, "Ġa": 1, "b": 2, "Ġ": 3, "Ã": 4, "©": 5, ",": 6}, "merges": ["Ġ a"]"#;
    let bytes = r#""truncation": null, "added_tokens": [], "pre_tokenizer": {"type": "ByteLevel",
        "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
    let decoder = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
    std::fs::write(&path, tokenizer(&format!(r#"{{"type": "BPE", {vocab}}}"#), decoder, bytes)).expect("written");
    let vocabulary = open().expect("own text").vocabulary.expect("a vocabulary");
    assert_eq!(vocabulary.encode("ab, aé").expect("ids"), [0, 2, 6, 1, 4, 5]);
    assert_eq!(vocabulary.decode(&[0, 2, 6, 1, 4, 5]), "ab, aé");
    let expected = [GoesOn, Begins, GoesOn, Separator, GoesOn, GoesOn, Separator];
    assert_eq!(vocabulary.words().expect("blanks tell"), expected);
    // Where the end of a word is marked, an id does not tell whether it begins one.
    let ends = r#"{"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a</w>": 0, "b": 1}, "merges": []}"#;
    std::fs::write(&path, tokenizer(ends, "null", bytes)).expect("a written file");
    assert_eq!(open().expect("own text").vocabulary.expect("a vocabulary").words(), None);
    // What is no tokenizer, and what cannot write the text.
    std::fs::write(&path, "{}").expect("a written file");
    says(open(), &["tokenizer.json is no tokenizer"]);
    let words = r#"{"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"See": 0}}"#;
    std::fs::write(&path, tokenizer(words, "null", bytes)).expect("a written file");
    says(open(), &["tokenizer.json cannot write the text"]);
}

const GOLDEN_TEXT: &str = "She sells sea shells by the sea shore;\nthe shells she sells are sea-shells, I'm sure.\n\n\
                           So if she sells sea shells on the sea shore...";
#[rustfmt::skip]
const GOLDEN_PIECES: [&str; 40] = [
    "\n", " ", "'", ",", "-", ".", ";", "I", "S", "a",
    "b", "e", "f", "h", "i", "l", "m", "n", "o", "r", "s", "t", "u", "y", " s", "he", " se", "ll", "lls", " she",
    " sea", "re", "the", " sells", " shells", " the", "..", "ho", " sho", " shore"
];
#[rustfmt::skip]
const GOLDEN_IDS: [u32; 53] = [
    8, 25, 33, 30, 34, 1, 10, 23, 35, 30, 39, 6, 0, 32, 34, 29, 33, 1, 9, 31, 30, 4, 20, 25, 28, 3,
    1, 7, 2, 16, 24, 22, 31, 5, 0, 0, 8, 18, 1, 14, 12, 29, 33, 30, 34, 1, 18, 17, 35, 30, 39, 36, 5
];

#[test]
fn own_text_is_read_from_a_file_or_a_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let name = |name: &str| format!("text:{}", path(name).display());
    let open = |name: &str| load(name, Path::new("nowhere"));
    std::fs::write(path("b.txt"), "\u{feff}ünd".repeat(1000)).expect("a written file");
    std::fs::write(path("a.txt"), "abc".repeat(1000)).expect("a written file");
    std::fs::write(path("c.md"), [0xff; 10]).expect("a written file");
    let set = open(&name("")).expect("own text");
    assert!(written(&set, &set.train, 0).starts_with("abcabc"));
    assert!(set.note.contains("tenth"));
    assert_eq!(open(&format!("{}:3", name("b.txt"))).expect("own text").train.len(), 3);
    std::fs::write(path("short.txt"), "abc").expect("a written file");
    says(open(&name("short.txt")), &["holds 3 characters", "2560"]);
    says(open(&name("c.md")), &["is no UTF-8 text: byte 0"]);
    says(open(&name("none.txt")), &["cannot read", "none.txt"]);
    std::fs::create_dir(path("empty")).expect("a folder");
    says(open(&name("empty")), &["holds no file that ends in .txt"]);
}

fn problem(lines: &str) -> anyhow::Result<series::Problem> {
    series::parse("file", &format!("# a comment\n@problemName x\n@classLabel true a b\n@data\n{lines}"))
}

#[test]
fn series_are_read_channel_by_channel_and_gaps_are_filled() {
    let found = problem("1,2,3:4,5,6:b\n\n?,1,?,?,4,NaN:0,0,0,0,0,0:a\n").expect("a right file");
    assert_eq!((found.labels.clone(), found.missing), (vec![1, 0], 4));
    let test = problem("3:4:a\n").expect("a right file");
    let set = series::dataset(found, test).expect("two parts");
    assert_eq!((set.native_size, set.note.as_str()), (6, "4 missing values are interpolated"));
    assert_eq!(set.train.samples.modality(), Modality::Series { channels: 2 });
    let Sample::Series(values) = set.train.samples.sample(1).expect("in memory") else { panic!("expected a series") };
    assert_eq!(values[..], [1.0, 1.0, 2.0, 3.0, 4.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    // Of 1 2 3 1 1 2 3 4 4: mean 21 / 9, mean square 61 / 9.
    let (mean, std) = (set.normalisation.mean[0], set.normalisation.std[0]);
    assert!((mean - 7.0 / 3.0).abs() < 1e-6 && (std - (61.0f32 / 9.0 - 49.0 / 9.0).sqrt()).abs() < 1e-6);
    let unlabelled = series::parse("file", "@classlabel false\n@data\n1,2\n3\n").expect("a right file");
    assert!(unlabelled.classes.is_none());
    let flat = series::parse("file", "@data\n5,5\n5\n").expect("a right file");
    let flat = series::dataset(flat, unlabelled).expect("two parts");
    assert_eq!((flat.normalisation.mean[0], flat.normalisation.std[0]), (5.0, 1.0));
}

#[test]
fn broken_series_are_refused_with_the_place() {
    says(series::parse("file", "1,2,3:a"), &["file, line 1", "before `@data`"]);
    says(series::parse("file", "@univariate true"), &["no line `@data`"]);
    says(series::parse("file", "@timeStamps true\n@data\n"), &["line 1", "time stamps"]);
    says(series::parse("file", "@targetlabel true\n@data\n"), &["regression"]);
    says(series::parse("file", "@classLabel true\n@data\n"), &["lists no class"]);
    says(problem(""), &["no series behind `@data`"]);
    says(problem("1,2:c"), &["line 5", "label `c`"]);
    says(problem("1,x:a"), &["line 5", "found `x`"]);
    says(problem("1,1e99:a"), &["found `1e99`"]);
    says(problem("?,?:a"), &["a channel without a value"]);
    says(problem("1,2:1:a"), &["channels of 2 and 1 steps"]);
    says(problem("1:1:a\n1:a"), &["line 6", "1 channels, the first series has 2"]);
    says(problem("a"), &["a label without a series"]);
    let (one, two) = (problem("1:a").expect("right"), problem("1:1:a").expect("right"));
    says(series::dataset(one, two), &["1 channels, the test part 2"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("X_TRAIN.ts");
    let name = format!("ts:{}", path.display());
    says(load(&name, Path::new("nowhere")), &["cannot open", "X_TRAIN.ts"]);
    std::fs::write(&path, "@data\n1,2\n3,4\n5,6").expect("a written file");
    says(load(&name, Path::new("nowhere")), &["X_TEST.ts", "missing"]);
    std::fs::write(folder.path().join("X_TEST.ts"), "@data\n1,2").expect("a written file");
    assert_eq!(load(&format!("{name}:2"), Path::new("nowhere")).expect("two parts").train.len(), 2);
    assert_eq!(verify(&name, Path::new("nowhere")).expect("two parts").len(), 2);
}

#[test]
fn the_bundled_series_are_those_of_the_archive() {
    for (name, parts, channels, longest, classes) in
        [("japanese-vowels", (270, 370), 12, 29, 9), ("osu-leaf", (200, 242), 1, 427, 6)]
    {
        let set = bundled(name);
        assert_eq!((set.train.len(), test_part(&set).len()), parts);
        assert_eq!(set.train.samples.modality(), Modality::Series { channels });
        assert_eq!((set.native_size, set.classes.len(), set.note.as_str()), (longest, classes, ""));
        assert_eq!(verify(name, Path::new("nowhere")).expect("right sums").len(), 4);
    }
}

#[test]
fn levels_are_the_quantiles_of_the_training_part() {
    let part = |lines: &str| series::parse("file", &format!("@data\n{lines}")).expect("a right file");
    // 1 to 8 in two series, out of order; of the other channel always the same.
    let train = part("5,1,8:0,0,0\n4,2,3,7,6:0,0,0,0,0\n");
    let levels = series::Levels::of(&train.series, 4);
    let found: Vec<usize> = (1..=8).map(|x| levels.level(0, x as f32)).collect();
    assert_eq!(found, [0, 0, 1, 1, 2, 2, 3, 3], "a quarter of the values in each level");
    // Between values and beyond them: monotone, the ends open.
    let order = [f32::MIN, -1.0, 1.5, 2.9, 3.0, 4.999, 5.0, 6.5, 7.0, 9.0, f32::MAX].map(|x| levels.level(0, x));
    assert_eq!(order, [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3]);
    assert_eq!([-1.0, 0.0, 1.0].map(|x| levels.level(1, x)), [0, 3, 3], "all cuts in one place");
    // Step by step, channel by channel, each channel with ids of its own.
    let tokens = levels.tokens(&train.series);
    assert_eq!(tokens.modality(), Modality::Tokens { vocabulary: 8 });
    let Sample::Tokens(ids) = tokens.sample(0).expect("in memory") else { panic!("expected tokens") };
    assert_eq!(ids[..], [2, 7, 0, 7, 3, 7]);
}

#[test]
fn series_are_token_sequences_too() {
    for (name, channels, longest, each) in [("japanese-vowels", 12, 29, 1), ("osu-leaf", 1, 107, 4)] {
        let (set, plain) = (bundled(&format!("{name}-tokens")), bundled(name));
        assert_eq!(set.train.samples.modality(), Modality::Tokens { vocabulary: 64 * channels });
        assert_eq!((set.native_size, &set.classes), (channels * longest, &plain.classes));
        assert_eq!((&set.train.labels, &test_part(&set).labels), (&plain.train.labels, &test_part(&plain).labels));
        let counts = |part: &Part| {
            let mut counts = vec![0; 64 * channels];
            (0..part.len()).for_each(|row| tokens(part, row).into_iter().for_each(|id| counts[id as usize] += 1));
            counts
        };
        // The training part has equally many values in each level, but for ties; the test part, which had no say, not.
        let (train, test) = (counts(&set.train), counts(test_part(&set)));
        let spread = |counts: &[i32]| {
            let mean = counts.iter().sum::<i32>() as f32 / counts.len() as f32;
            counts.iter().map(|&n| (n as f32 - mean).abs() / mean).fold(0.0, f32::max)
        };
        assert!(spread(&train) < 0.05 && spread(&test) > 0.1, "{name}: {} {}", spread(&train), spread(&test));
        // In a series the ids of a channel rise and fall with its values.
        let Sample::Series(values) = plain.train.samples.sample(0).expect("in memory") else { panic!("no series") };
        let (ids, steps) = (tokens(&set.train, 0), values.len() / channels);
        assert_eq!(ids.len(), channels * steps.div_ceil(each));
        for step in 1..ids.len() / channels {
            for channel in 0..channels {
                let channel_values = &values[channel * steps..(channel + 1) * steps];
                let means: Vec<f32> =
                    channel_values.chunks(each).map(|x| x.iter().sum::<f32>() / x.len() as f32).collect();
                let rise = means[step] - means[step - 1];
                let levels = ids[step * channels + channel] - ids[(step - 1) * channels + channel];
                assert!(levels == 0 || (levels > 0) == (rise > 0.0), "{name}");
            }
        }
    }
    let (one, two) = ("@data\n1\n", "@data\n1:1\n");
    let read = |text| series::parse("file", text).expect("a right file");
    says(series::token_dataset(read(one), read(two), 1), &["1 channels, the test part 2"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("X_TRAIN.ts");
    std::fs::write(&path, "@data\n1,2\n3,4\n5,6").expect("a written file");
    std::fs::write(folder.path().join("X_TEST.ts"), "@data\n9,-9").expect("a written file");
    let set = load(&format!("ts-tokens:{}", path.display()), Path::new("nowhere")).expect("two parts");
    assert_eq!(tokens(test_part(&set), 0), [63, 0]);
}

#[test]
fn captions_belong_to_their_images() {
    let set = bundled("emoji-mini");
    assert_eq!((set.train.len() + test_part(&set).len(), set.classes.len(), set.native_size), (1435, 7, 32));
    let (vocabulary, shape) = (set.vocabulary.as_ref().expect("a vocabulary"), set.train.samples.captions());
    let shape = shape.expect("captions");
    assert_eq!((shape.vocabulary, shape.length), (vocabulary.len(), 78));
    let caption = |part: &Part, row: usize| {
        let ids: Vec<i64> = part.samples.caption(row).expect("a caption").iter().map(|&id| i64::from(id)).collect();
        vocabulary.decode(&ids)
    };
    let rows = |part: &Part| (0..part.len()).map(|row| caption(part, row)).collect::<Vec<_>>();
    let (train, test) = (rows(&set.train), rows(test_part(&set)));
    assert!(train.iter().chain(&test).all(|caption| !caption.is_empty() && *caption == caption.to_lowercase()));
    // The red square is red and the blue one blue: pictures and names are in the same order.
    for (name, channel) in [("large red square", 0), ("large blue square", 2), ("large green square", 1)] {
        let (part, row) = match train.iter().position(|caption| caption == name) {
            Some(row) => (&set.train, row),
            None => (test_part(&set), test.iter().position(|caption| caption == name).expect("a known name")),
        };
        let image = super::decoded(part, row).expect("in memory");
        let middle = &image.pixels[(16 * 32 + 16) * 3..][..3];
        let most = (0..3).max_by_key(|&c| middle[c]).expect("three channels");
        assert_eq!(most, channel, "{name}: {middle:?}");
        assert!(image.pixels[..3].iter().all(|&pixel| pixel > 200), "{name} lies over white");
    }
    assert_eq!(bundled("emoji-mini:70").train.len(), 70);
    assert_eq!(verify("emoji-mini", Path::new("nowhere")).expect("right sums").len(), 4);
}

#[test]
fn captions_in_pieces_of_words_are_the_same_captions() {
    let (whole, cut) = (bundled("emoji-mini"), bundled("emoji-mini-bpe"));
    let (characters, pieces) = (whole.vocabulary.as_ref().expect("one"), cut.vocabulary.as_ref().expect("one"));
    assert_eq!(pieces.len(), 512);
    let text = |vocabulary: &Vocabulary, part: &Part, row: usize| {
        let ids: Vec<i64> = part.samples.caption(row).expect("a caption").iter().map(|&id| i64::from(id)).collect();
        (vocabulary.decode(&ids), ids.len())
    };
    for (whole, cut) in [(&whole.train, &cut.train), (test_part(&whole), test_part(&cut))] {
        assert_eq!(whole.labels, cut.labels);
        for row in 0..whole.len() {
            let ((a, longer), (b, shorter)) = (text(characters, whole, row), text(pieces, cut, row));
            assert!(a == b && shorter <= longer, "{a} {b}");
        }
    }
    assert_eq!(
        pieces.encode("angola flag").expect("known").last(),
        pieces.encode("monaco flag").expect("known").last(),
        "a frequent word is one piece"
    );
}

#[test]
fn captions_may_be_the_names_of_classes() {
    let (plain, named) = (bundled("fashion-mnist-10k:20"), bundled("fashion-mnist-10k-captions:20"));
    assert!(plain.train.samples.captions().is_none() && named.note.contains("labels"));
    let vocabulary = named.vocabulary.as_ref().expect("a vocabulary");
    for (plain, named_part) in [(&plain.train, &named.train), (test_part(&plain), test_part(&named))] {
        let labels = named_part.labels.as_ref().expect("labels");
        assert_eq!(plain.labels.as_ref(), Some(labels));
        for (row, &label) in labels.iter().enumerate() {
            let ids: Vec<i64> = named_part.samples.caption(row).expect("one").iter().map(|&id| i64::from(id)).collect();
            assert_eq!(vocabulary.decode(&ids), named.classes[usize::from(label)].to_lowercase());
            let [a, b] = [plain, named_part].map(|part| super::decoded(part, row).expect("in memory").pixels.to_vec());
            assert_eq!(a, b);
        }
    }
}

#[test]
fn broken_captions_are_refused_with_the_place() {
    says(emoji::parse("file", "caption\tcategory\n"), &["file: no column `file`"]);
    says(emoji::parse("file", "file\tcaption\tcategory\na.png\tan A"), &["line 2", "no category"]);
    says(emoji::parse("file", "file\tcaption\tcategory\na.png\t\tx"), &["line 2", "no caption"]);
    let table = b"file\tcaption\tcategory\na.png\tA\tx".to_vec();
    says(emoji::mini(&super::folders::encoded(true, 9, 7), table, false), &["do not hold 1 images"]);
    let lines = emoji::parse("file", "category\tfile\tcaption\nx\ta.png\tAn A\n").expect("a right table");
    assert_eq!((lines[0].file.as_str(), lines[0].caption.as_str()), ("a.png", "an a"));
    says(load("emoji", Path::new("nowhere")), &["by hand", "nowhere/emoji-captions-64.tar.gz", "274d61af"]);
}

#[test]
fn skin_tones_of_one_emoji_stay_on_one_side() {
    let Some(shared) = super::published::shared("skin_tones_of_one_emoji_stay_on_one_side") else { return };
    let root = shared.join("emoji-captions");
    let set = load("emoji", &root).expect("the emoji");
    assert_eq!((set.train.len() + test_part(&set).len(), set.native_size, set.classes.len()), (3786, 64, 10));
    let vocabulary = set.vocabulary.as_ref().expect("a vocabulary");
    let motifs = |part: &Part| -> BTreeSet<String> {
        (0..part.len())
            .map(|row| {
                let caption = part.samples.caption(row).expect("a caption");
                let text = vocabulary.decode(&caption.iter().map(|&id| i64::from(id)).collect::<Vec<_>>());
                text.split(", ").filter(|part| !part.contains("skin tone")).collect::<Vec<_>>().join(", ")
            })
            .filter(|motif| motif.contains("person") || motif.contains("hand"))
            .collect()
    };
    let (train, test) = (motifs(&set.train), motifs(test_part(&set)));
    assert!(test.len() > 10, "{test:?}");
    let both: Vec<&String> = train.intersection(&test).collect();
    assert!(both.is_empty(), "{both:?}");
    assert_eq!(verify("emoji", &root).expect("a right sum").len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_text_makes_a_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        lines in "[ab:,?@0-9.e\n-]{0,60}",
    ) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = series::parse("file", &text);
        let _ = emoji::parse("file", &text);
        let _ = emoji::parse("file", &format!("file\tcaption\tcategory\n{text}"));
        let _ = text::utf8("file", bytes.clone());
        let _ = Content::new("file".into(), &bytes[..]).and_then(Content::all);
        if let (Ok(train), Ok(test)) = (problem(&lines), problem("1:a")) {
            let _ = series::dataset(train, test);
        }
    }

    #[test]
    fn encoding_and_decoding_give_back_the_text(text in "[a-c éß\n.]{0,80}", size in 0usize..30) {
        for vocabulary in [Vocabulary::characters(&text), Vocabulary::Pieces(Box::new(Pieces::train(&text, &text, size)))] {
            let encode = |text: &str| vocabulary.encode(text).expect("ids");
            let ids: Vec<i64> = encode(&text).into_iter().map(i64::from).collect();
            prop_assert!(ids.iter().all(|&id| id < vocabulary.len() as i64));
            prop_assert_eq!(vocabulary.decode(&ids), text.clone());
            prop_assert_eq!(encode(&format!("{text}%")), encode(&text));
        }
    }
}
