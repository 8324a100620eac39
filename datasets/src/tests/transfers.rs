//! Downloads from a server on this machine that cuts, lies and fails as told.

use super::says;
use crate::catalogue::{Entry, Format, Source, Sum};
use crate::content::Content;
use crate::download::{Wanted, fetch};
use crate::store::get_entry;
use crate::sum;
use crate::unpack::unpack;
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with one request.
#[derive(Clone)]
enum Answer {
    /// The file, or the part that was asked for.
    File(Vec<u8>),
    /// The file without regard to the part that was asked for.
    Whole(Vec<u8>),
    /// As `File`, but the connection ends after so many bytes.
    Cut(Vec<u8>, usize),
    /// The file with a false start of the part that was asked for.
    Shifted(Vec<u8>),
    /// A page that says it is one.
    Page,
    /// A page that says it is data.
    DisguisedPage,
    Status(u16),
}

/// Answers requests in turn, the last answer for ever; keeps the `Range` of each request.
struct Server {
    base: String,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    fn new(answers: Vec<Answer>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = format!("http://{}/", listener.local_addr().expect("an address"));
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&ranges);
        std::thread::spawn(move || {
            for (stream, turn) in listener.incoming().zip(0..) {
                let Ok(mut stream) = stream else { continue };
                let mut range = None;
                for line in BufReader::new(&stream).lines() {
                    let line = line.unwrap_or_default().to_lowercase();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(value) = line.strip_prefix("range: ") {
                        range = Some(value.to_string());
                    }
                }
                let from = range.as_ref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
                log.lock().expect("the log").push(range);
                let answer = answers[usize::min(turn, answers.len() - 1)].clone();
                // A client that has seen enough hangs up, which is no fault of the server.
                let _ = stream.write_all(&reply(answer, from));
            }
        });
        Server { base, ranges }
    }

    fn url(&self) -> String {
        format!("{}file.gz", self.base)
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().expect("the log").clone()
    }
}

/// The bytes of a response.
fn reply(answer: Answer, from: Option<usize>) -> Vec<u8> {
    let head = |status: &str, extra: &str, length: usize, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{extra}\r\n");
        [head.as_bytes(), body].concat()
    };
    let ranged = |file: &[u8], stated: usize, most: usize| match from {
        Some(from) if from >= file.len() => head("416 Range Not Satisfiable", "", 0, &[]),
        Some(from) => {
            let range = format!("content-range: bytes {}-{}/{}\r\n", from + stated, file.len() - 1, file.len());
            let rest = &file[from..];
            head("206 Partial Content", &range, rest.len(), &rest[..rest.len().min(most)])
        }
        None => head("200 OK", "", file.len(), &file[..file.len().min(most)]),
    };
    match answer {
        Answer::File(file) => ranged(&file, 0, usize::MAX),
        Answer::Whole(file) => head("200 OK", "", file.len(), &file),
        Answer::Cut(file, most) => ranged(&file, 0, most),
        Answer::Shifted(file) => ranged(&file, 1, usize::MAX),
        Answer::Page => head("200 OK", "content-type: text/html; charset=utf-8\r\n", 5, b"sorry"),
        Answer::DisguisedPage => head("200 OK", "", 28, b"\n<!DOCTYPE html><p>sorry</p>"),
        Answer::Status(status) => head(&format!("{status} No"), "", 0, &[]),
    }
}

fn data() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Fetches `data()` from servers in turn; the outcome, the file's place, and the folder.
fn fetch_from(servers: &[&Server], start: Option<&[u8]>) -> (anyhow::Result<()>, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("raw/file.gz");
    if let Some(start) = start {
        fs::create_dir_all(folder.path().join("raw")).expect("a made folder");
        fs::write(part(&path), start).expect("a written file");
    }
    let check = |path: &Path| {
        let found = fs::read(path)?;
        anyhow::ensure!(found == data(), "expected sum A, found sum B of {} bytes", found.len());
        Ok(())
    };
    let wanted = Wanted {
        path: path.clone(),
        urls: servers.iter().map(|server| server.url()).collect(),
        bytes: Some(300_000),
        check: &check,
        pause: Duration::ZERO,
    };
    let mut last = 0;
    let outcome = fetch(&wanted, &mut |transfer| {
        assert_eq!((transfer.file, transfer.total), ("file.gz", Some(300_000)));
        last = transfer.done;
    });
    assert!(outcome.is_err() || last == 300_000 || start.is_some());
    (outcome, path, folder)
}

fn part(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.part", path.display()))
}

/// Fails unless the file is whole and nothing else is there.
fn assert_fetched((outcome, path, _folder): (anyhow::Result<()>, PathBuf, tempfile::TempDir)) {
    outcome.expect("a download");
    assert!(fs::read(&path).expect("a file") == data());
    assert!(!part(&path).exists());
}

#[test]
fn an_interrupted_download_resumes_and_ends_equal() {
    let server = Server::new(vec![Answer::Cut(data(), 100_000), Answer::Cut(data(), 50_000), Answer::File(data())]);
    assert_fetched(fetch_from(&[&server], None));
    assert_eq!(server.ranges(), [None, Some("bytes=100000-".into()), Some("bytes=150000-".into())]);
}

#[test]
fn a_part_left_by_an_earlier_call_is_taken_up() {
    let server = Server::new(vec![Answer::File(data())]);
    assert_fetched(fetch_from(&[&server], Some(&data()[..12_345])));
    assert_eq!(server.ranges(), [Some("bytes=12345-".into())]);
    // A whole part needs no request at all.
    let server = Server::new(vec![Answer::Status(500)]);
    assert_fetched(fetch_from(&[&server], Some(&data())));
    assert!(server.ranges().is_empty());
}

#[test]
fn a_wrong_part_costs_a_second_transfer_and_no_more() {
    for start in [vec![9; 5_000], vec![9; 300_000], vec![9; 400_000]] {
        let server = Server::new(vec![Answer::File(data())]);
        assert_fetched(fetch_from(&[&server], Some(&start)));
    }
}

#[test]
fn a_server_without_ranges_or_with_wrong_ones_still_serves() {
    let server = Server::new(vec![Answer::Cut(data(), 100_000), Answer::Whole(data())]);
    assert_fetched(fetch_from(&[&server], None));
    let server = Server::new(vec![Answer::Cut(data(), 100_000), Answer::Shifted(data()), Answer::File(data())]);
    assert_fetched(fetch_from(&[&server], None));
}

#[test]
fn wrong_content_is_refused_and_nothing_is_left() {
    let garbage = Server::new(vec![Answer::File(vec![7; 300_000])]);
    let (outcome, path, _folder) = fetch_from(&[&garbage], None);
    says(outcome, &["file.gz could not be downloaded", "expected sum A, found sum B", &garbage.url()]);
    assert!(!path.exists() && !part(&path).exists());
    let too_long = Server::new(vec![Answer::File(vec![7; 300_001])]);
    let (outcome, path, _folder) = fetch_from(&[&too_long], None);
    says(outcome, &["more than the expected 300000 bytes"]);
    assert!(!path.exists() && !part(&path).exists());
}

#[test]
fn a_web_page_is_no_file() {
    for answer in [Answer::Page, Answer::DisguisedPage] {
        let server = Server::new(vec![answer]);
        let (outcome, path, _folder) = fetch_from(&[&server], None);
        says(outcome, &["a web page instead of the file"]);
        assert!(!path.exists() && !part(&path).exists());
        assert_eq!(server.ranges().len(), 1);
    }
}

#[test]
fn the_next_mirror_is_asked_and_each_failure_told() {
    let bad = [
        Server::new(vec![Answer::Status(404)]),
        Server::new(vec![Answer::Page]),
        Server::new(vec![Answer::Status(503)]),
        Server::new(vec![Answer::File(vec![7; 300_000])]),
    ];
    let good = Server::new(vec![Answer::File(data())]);
    assert_fetched(fetch_from(&[&bad[0], &bad[1], &bad[2], &bad[3], &good], None));
    assert_eq!(bad.each_ref().map(|server| server.ranges().len()), [1, 1, 3, 1]);
    let (outcome, ..) = fetch_from(&[&bad[0], &bad[2]], None);
    says(outcome, &["the server answered 404", "the server answered 503"]);
}

#[test]
fn what_came_stays_when_all_tries_fail() {
    let server = Server::new(vec![Answer::Cut(data(), 1_000)]);
    let (outcome, path, _folder) = fetch_from(&[&server], None);
    says(outcome, &["could not be downloaded"]);
    assert!(!path.exists());
    assert!(fs::read(part(&path)).expect("the part") == data()[..3_000]);
    assert_eq!(server.ranges().len(), 3);
}

/// In a process of its own, for the limit is one of processes: no file grows beyond so many blocks of 512 bytes.
#[cfg(unix)]
#[test]
fn a_file_that_cannot_grow_ends_a_download_and_what_came_stays() {
    let limited = "trap '' XFSZ; ulimit -f 200; exec \"$@\"";
    let itself = std::env::current_exe().expect("this program");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", limited, "sh"]).arg(itself).args(["--exact", "tests::transfers::within_limits", "--ignored"]);
    let output = command.output().expect("a shell");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[cfg(unix)]
#[test]
#[ignore = "run by a_file_that_cannot_grow_ends_a_download_and_what_came_stays"]
fn within_limits() {
    let server = Server::new(vec![Answer::File(data())]);
    let (outcome, path, _folder) = fetch_from(&[&server], None);
    says(outcome, &["file.gz could not be downloaded", "cannot write to disk"]);
    assert!(!path.exists());
    assert!(fs::read(part(&path)).expect("the part") == data()[..200 * 512]);
}

#[test]
fn nobody_listening_is_said() {
    let server = Server { base: "http://127.0.0.1:9/".into(), ranges: Arc::default() };
    says(fetch_from(&[&server], None).0, &["the transfer failed", "127.0.0.1:9"]);
}

/// A text that lives as long as the program, as those of the catalogue do.
fn forever(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn gz(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

#[test]
fn get_accepts_either_packing_of_the_right_content_and_replaces_the_wrong() {
    let content = data();
    let (sha256, bytes) = Content::new("data".into(), &content[..]).expect("memory").sum().expect("a sum");
    let source = Source {
        file: "x.gz",
        bytes: None,
        sum: Sum::Content { sha256: forever(sha256), bytes, md5: None },
        mirrors: &[],
    };
    let entry = Entry {
        name: "synthetic",
        summary: "",
        licence: "",
        format: Format::Idx,
        folder: "Set/raw",
        sources: Box::leak(Box::new([source])),
        members: &[],
    };
    let root = tempfile::tempdir().expect("a temporary folder");
    let get = |mirrors: &[String]| get_entry(&entry, root.path(), Some(mirrors), Duration::ZERO, &mut |_| {});
    says(get(&["http://127.0.0.1:9/".into()]), &["place by hand", "Set/raw/x.gz", "sha256", "the transfer failed"]);
    for level in [1, 9] {
        let server = Server::new(vec![Answer::File(gz(&content, level))]);
        get(std::slice::from_ref(&server.base)).expect("a download");
        assert_eq!(server.ranges().len(), 1);
        get(&[]).expect("it is there and right");
        fs::write(root.path().join("Set/raw/x.gz"), b"rotten").expect("a written file");
    }
    says(get(&[]), &["place by hand"]);
}

/// A packed archive with entries as they come, their names unchecked.
pub(super) fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        if *kind == tar::EntryType::Symlink {
            header.set_link_name("/etc/passwd").expect("a link");
        }
        header.set_cksum();
        tar.append(&header, *bytes).expect("an entry");
    }
    gz(&tar.into_inner().expect("an archive"), 6)
}

#[test]
fn an_archive_is_checked_unpacked_and_removed() {
    let packed = archive(&[
        ("set/", tar::EntryType::Directory, b""),
        ("set/a.bin", tar::EntryType::Regular, b"abc"),
        ("./set/deep/b.txt", tar::EntryType::Regular, b"de"),
    ]);
    let root = tempfile::tempdir().expect("a temporary folder");
    let by_hand = root.path().join("by-hand");
    fs::write(&by_hand, &packed).expect("a written file");
    let source = Source {
        file: "set.tar.gz",
        bytes: Some(packed.len() as u64),
        sum: Sum::Md5(forever(sum::md5(&by_hand).expect("a sum"))),
        mirrors: &[],
    };
    let entry = Entry {
        name: "synthetic",
        summary: "",
        licence: "",
        format: Format::Cifar10,
        folder: "set",
        sources: Box::leak(Box::new([source])),
        members: &[],
    };
    let server = Server::new(vec![Answer::Cut(packed.clone(), 50), Answer::File(packed)]);
    let mirrors = [server.base.clone()];
    get_entry(&entry, root.path(), Some(&mirrors), Duration::ZERO, &mut |_| {}).expect("a download");
    assert_eq!(fs::read(root.path().join("set/a.bin")).expect("a file"), b"abc");
    assert_eq!(fs::read(root.path().join("set/deep/b.txt")).expect("a file"), b"de");
    let sums = fs::read_to_string(root.path().join("set/SHA256SUMS")).expect("sums");
    // SHA-256 of "abc" is the standard's own example.
    assert!(sums.starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.bin\n"));
    let left: Vec<_> = fs::read_dir(root.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn an_archive_that_leads_elsewhere_is_refused_and_leaves_nothing() {
    use tar::EntryType::{Regular, Symlink};
    let cases: [(&str, tar::EntryType, &str); 5] = [
        ("set/../../evil", Regular, "does not lie in `set`"),
        ("/set/evil", Regular, "does not lie in `set`"),
        ("../evil", Regular, "does not lie in `set`"),
        ("other/evil", Regular, "does not lie in `set`"),
        ("set/evil", Symlink, "is no plain file"),
    ];
    for (name, kind, expected) in cases {
        let root = tempfile::tempdir().expect("a temporary folder");
        let inner = root.path().join("root");
        fs::create_dir(&inner).expect("a made folder");
        let path = root.path().join("set.tar.gz");
        let body: &[u8] = if kind == Symlink { b"" } else { b"evil" };
        fs::write(&path, archive(&[("set/good", Regular, b"good"), (name, kind, body)])).expect("a written file");
        says(unpack(&path, &inner, "set"), &[expected, name]);
        assert_eq!(fs::read_dir(&inner).expect("a folder").count(), 0);
        assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 2);
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("set.tar.gz");
    let whole = archive(&[("set/good", Regular, &data())]);
    fs::write(&path, &whole[..whole.len() / 2]).expect("a written file");
    says(unpack(&path, root.path(), "set"), &["is broken or cut short"]);
    fs::create_dir(root.path().join("set")).expect("a made folder");
    says(unpack(&path, root.path(), "set"), &["exists already"]);
}
