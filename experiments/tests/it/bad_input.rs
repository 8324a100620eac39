//! docs/bad-input.md is run row by row, so that it is what the program says.

use crate::command_line::{SHORT, program, succeeds, temporary, text};
use crate::workspace;
use selfsup_core::{Kind, Tensor};
use selfsup_train::checkpoint;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// One row of the table.
struct Case {
    what: String,
    /// `NAME=value` before the command.
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    exit: i32,
    words: Vec<String>,
}

fn cases(table: &str) -> Vec<Case> {
    let rows = table.lines().filter(|line| line.starts_with('|') && line.contains("selfsup "));
    let case = |(number, line): (usize, &str)| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [what, command, exit, words] = cells[..] else { panic!("four cells: {line}") };
        let (before, command) = command.trim_matches('`').split_once("selfsup ").expect("a command");
        let variables = before.split(' ').filter_map(|word| word.split_once('='));
        let variables = variables.map(|(name, value)| (name.into(), value.into())).collect();
        let mut arguments: Vec<String> = Vec::new();
        for word in command.split(' ') {
            match word {
                "SHORT" => arguments.extend(SHORT.map(String::from)),
                word => arguments.push(word.into()),
            }
        }
        if arguments.iter().any(|a| a == "pretrain") && !arguments.iter().any(|a| a == "--out") {
            arguments.extend(["--out".into(), format!("out/{number}")]);
        }
        let words = words.split('…').map(|words| words.trim().to_string()).collect();
        Case { what: what.into(), variables, arguments, exit: exit.parse().expect("an exit code"), words }
    };
    rows.enumerate().map(case).collect()
}

/// Writes a file and the folders above it.
fn put(place: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = place.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a made folder");
    fs::write(path, bytes).expect("a written file");
}

/// A small image that is the same in no two files.
fn png(number: u8) -> Vec<u8> {
    // Of 8 x 8 grey pixels, not packed: the header, then zlib's header, one stored block and its sum.
    let mut rows = Vec::new();
    for y in 0..8u8 {
        rows.push(0);
        rows.extend((0..8u8).map(|x| x.wrapping_mul(y).wrapping_mul(number)));
    }
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in &rows {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    let length = rows.len() as u16;
    let mut packed = vec![0x78, 1, 1];
    packed.extend(length.to_le_bytes());
    packed.extend((!length).to_le_bytes());
    packed.extend(&rows);
    packed.extend((b << 16 | a).to_be_bytes());
    let header = |side: u32| [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header(8)), &chunk(b"IDAT", &packed), &chunk(b"IEND", &[])].concat()
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    let mut crc = u32::MAX;
    for &byte in &body {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (if crc & 1 == 1 { 0xedb8_8320 } else { 0 });
        }
    }
    [&(data.len() as u32).to_be_bytes()[..], &body, &(!crc).to_be_bytes()].concat()
}

fn images(place: &Path) {
    for i in 0..10 {
        put(place, &format!("flat/{i}.png"), png(i));
        put(place, &format!("one/a/{i}.png"), png(i));
        for class in ["a", "b"] {
            let whole = png(i);
            let end = if (class, i) == ("b", 7) { 60 } else { whole.len() };
            for folder in ["damaged", "bomb", "words", "webp"] {
                let end = if folder == "damaged" { end } else { whole.len() };
                put(place, &format!("{folder}/{class}/{i}.png"), &whole[..end]);
            }
        }
    }
    let mut bomb = png(1);
    let header = [&60_000u32.to_be_bytes()[..], &60_000u32.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    bomb.splice(8..33, chunk(b"IHDR", &header));
    put(place, "bomb/a/0.png", bomb);
    put(place, "words/a/0.png", "no image at all");
    put(place, "webp/a/0.webp", "RIFF");
}

fn texts(place: &Path) {
    put(place, "file", "x");
    put(place, "bad.toml", "seed = = 3\n");
    put(place, "latin1.toml", b"data = '\xe9'\n");
    put(place, "not-study.toml", "name = 'x'\nseeds = [0]\nrunz = []\n");
    put(place, "no-runs.toml", "name = 'x'\nseeds = [0]\nruns = []\n");
    put(place, "typo.toml", "name = 'x'\nseeds = [0]\n[[runs]]\nmethod = 'simclr/cpu'\ntrain.epochz = 1\n");
    put(place, "tiny.toml", "name = 'tiny'\nseeds = [0]\n[[runs]]\nmethod = 'simclr/cpu'\n");
    let claim = |rule: &str| {
        format!(
            "statement = 's'\nsource = 's'\npublished = 'p'\ntrust = 't'\nclass = 'minutes'\nseeds = [0]\n[[arms]]\n\
             name = 'simclr'\nmethod = 'simclr/cpu'\n[[arms]]\nname = 'byol'\nmethod = 'byol/cpu'\n[[rules]]\n\
             metric = 'knn.accuracy'\n{rule}\n"
        )
    };
    put(place, "rule.toml", claim("more = 'simclr'"));
    put(place, "arm.toml", claim("more = 'simclrr'\nthan = 'byol'"));
    for (name, line) in
        [("word", "1,2,x:a"), ("inf", "1,inf,2:a"), ("nan", "NaN,?,nan:a"), ("class", "1,2,3:c"), ("alone", "1,2,3:a")]
    {
        let head = "@classLabel true a b\n@data\n";
        put(place, &format!("{name}_TRAIN.ts"), format!("{head}{line}\n"));
        if name != "alone" {
            put(place, &format!("{name}_TEST.ts"), format!("{head}1,2,3:a\n"));
        }
    }
    put(place, "tokens/a.txt", "See the seeing, a sea. ".repeat(200));
    put(place, "tokens/tokenizer.json", "{\"version\": \"1.0\", ");
    let idx = |part: &str| format!("data/{part}");
    for file in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
        put(place, &idx(&format!("FashionMNIST/raw/{file}-ubyte")), [0, 0, 8, 3, 0, 0, 0]);
        put(place, &idx(&format!("MNIST/raw/{file}-ubyte")), [0, 0, 8, 1, 0, 0, 0, 1, 5]);
    }
    put(place, "data/cifar-10-batches-bin/data_batch_1.bin", [1; 100]);
    put(place, "data/stl10_binary/train_X.bin", [1; 100]);
}

fn embeddings(place: &Path) {
    let write = |name: &str, tensors: &[(&str, &[f32])]| {
        let tensors: Vec<(String, Tensor)> = tensors
            .iter()
            .map(|(name, values)| (name.to_string(), Tensor::from_slice(values).to_kind(Kind::Float).view([-1, 2])))
            .collect();
        checkpoint::write(&place.join(name), &tensors, HashMap::new()).expect("a written file");
    };
    let two = [1.0, 0.0, 2.0, 3.0];
    write("nan.safetensors", &[("a", &[1.0, f32::NAN, 2.0, 3.0]), ("b", &two)]);
    write("one-row.safetensors", &[("a", &two[..2]), ("b", &two[2..])]);
    write("only-a.safetensors", &[("a", &two)]);
    write("shapes.safetensors", &[("a", &two), ("b", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]);
    let whole = fs::read(place.join("shapes.safetensors")).expect("a file");
    put(place, "cut.safetensors", &whole[..whole.len() - 3]);
    let saved = fs::read(workspace().join("crates/train/tests/pickles/weights.pth")).expect("a file of torch.save");
    put(place, "cut.pth", &saved[..saved.len() / 2]);
    put(place, "list.pth", b"\x80\x02]q\x00.");
    put(
        place,
        "given.toml",
        "name = 'given'\nseeds = [0]\n[[runs]]\nmethod = 'random'\nstart = 'only-a.safetensors'\n",
    );
}

/// Runs, whole and damaged, and their scores.
fn runs(place: &Path) {
    let train = |out: &str, changes: &[&str]| {
        let arguments = [&["pretrain", "simclr/cpu", "--out", out][..], &SHORT, changes].concat();
        program(place, &arguments).output().expect("the program starts").status.code()
    };
    assert_eq!(train("run", &[]), Some(0));
    assert_eq!(train("other", &["seed=5"]), Some(0));
    assert_eq!(train("diverged", &["train.optimiser.rate=1e30"]), Some(1));
    let last = "checkpoints/last.safetensors";
    let read = |name: &str| fs::read(place.join(name)).expect("a file of a run");
    for (name, from) in [("cut", "run"), ("swapped", "other")] {
        for file in ["config.toml", "meta.json", "metrics.csv"] {
            put(place, &format!("{name}/{file}"), read(&format!("run/{file}")));
        }
        let whole = read(&format!("{from}/{last}"));
        let end = if name == "cut" { whole.len() / 2 } else { whole.len() };
        put(place, &format!("{name}/{last}"), &whole[..end]);
    }
    let scores = String::from_utf8(read("run/results.csv")).expect("a table of text");
    let (header, row) = scores.lines().next().zip(scores.lines().nth(1)).expect("a header and a row");
    let at = header.split(',').position(|column| column == "value").expect("a column");
    // The one field with a comma in it, the device, stands behind the value.
    let with = |line: &str, text: Option<&str>| {
        let mut fields: Vec<&str> = line.split(',').collect();
        match text {
            Some(text) => fields[at] = text,
            None => drop(fields.remove(at)),
        }
        fields.join(",")
    };
    put(place, "empty.csv", "");
    put(place, "header.csv", format!("{header}\n"));
    put(place, "column.csv", format!("{}\n{}\n", with(header, None), with(row, None)));
    put(place, "more.csv", format!("{header},colour\n{row},red\n"));
    put(place, "line.csv", format!("{header}\n{}\n", &row[..row.len() / 2]));
    put(place, "word.csv", format!("{header}\n{}\n", with(row, Some("high"))));
    put(place, "nan.csv", format!("{header}\n{}\n", with(row, Some("NaN"))));
}

#[test]
fn every_row_of_the_table_is_what_the_program_says() {
    let place = temporary();
    let place = place.path();
    let table = fs::read_to_string(workspace().join("docs/bad-input.md")).expect("the table");
    let cases = cases(&table);
    assert!(cases.len() > 80, "the table has {} rows", cases.len());
    fs::create_dir_all(place.join("empty")).expect("a folder");
    images(place);
    texts(place);
    embeddings(place);
    runs(place);
    put(place, "locked/LOCK", "");
    let lock = fs::File::open(place.join("locked/LOCK")).expect("a file");
    lock.lock().expect("nobody has it");
    // All rows are tried, so that one run shows all that is not as the table says.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let halves = cases.chunks(cases.len().div_ceil(2));
        let run = |half: &'_ [Case]| half.iter().filter_map(|case| wrong(place, case)).collect::<Vec<String>>();
        let threads: Vec<_> = halves.map(|half| scope.spawn(move || run(half))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(wrong.is_empty(), "{} rows:\n\n{}", wrong.len(), wrong.join("\n"));
    succeeds(place, &["report", "run", "--out", "page"]);
}

/// What is not as the row says.
fn wrong(place: &Path, case: &Case) -> Option<String> {
    let arguments: Vec<&str> = case.arguments.iter().map(String::as_str).collect();
    let output = program(place, &arguments).envs(case.variables.clone()).output().expect("the program starts");
    let told = text(&output.stderr);
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error:")).collect();
    let mut rest = match (case.exit, errors.as_slice()) {
        (0, []) => told.as_str(),
        (_, [one]) => one,
        _ => return Some(format!("{}: not one line `error: ..`: {told}", case.what)),
    };
    if output.status.code() != Some(case.exit) {
        return Some(format!("{}: {} instead of {}: {told}", case.what, output.status, case.exit));
    }
    for word in &case.words {
        match rest.find(word.as_str()) {
            Some(at) => rest = &rest[at + word.len()..],
            None => return Some(format!("{}: `{word}` is missing in: {told}", case.what)),
        }
    }
    let inside = ["panicked", "internal error", "backtrace", "Exception raised from", "frame #"];
    inside.iter().find(|inside| told.contains(**inside)).map(|inside| format!("{}: {inside}: {told}", case.what))
}
