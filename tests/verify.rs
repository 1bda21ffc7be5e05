//! `corelog verify` and `corelog dump` on the directories of a real broker: while it runs, after a stop in good order, after
//! kill -9, and after the disk was tampered with. What the exit codes say is what scripts go by.

#[path = "shape/broker.rs"]
mod broker;
#[path = "shape/wire.rs"]
mod wire;

use broker::{Broker, Start};
use corelog::record::batch::BatchHeader;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const CLEAN: i32 = 0;
const WARNINGS: i32 = 1;
const ERRORS: i32 = 2;
const NOT_READ: i32 = 3;

#[test]
fn a_directory_is_clean_while_the_broker_runs_when_it_stopped_and_when_it_was_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let broker = serve(&data);
    produce(&broker, 0..20_000);
    let (code, lines) = verify(&[&data]);
    assert_eq!(code, CLEAN, "{lines:?}");
    let holder = finding(&lines, "in-use");
    assert_eq!(holder["found"], format!("process {} has it open", broker.pid()));
    assert_eq!(holder["severity"], "info");
    broker.kill();
    assert_eq!(verify(&[&data]), (CLEAN, vec![summary(&data)]));
    let broker = serve(&data);
    produce(&broker, 20_000..30_000);
    let (status, log) = broker.stop(Signal::TERM);
    assert!(status.success(), "{log}");
    let (code, lines) = verify(&[&data]);
    assert_eq!((code, lines.len()), (CLEAN, 1), "{lines:?}");
    assert_eq!(lines[0]["records"], 30_000);
    assert!(lines[0]["segments"].as_u64() > Some(3), "{lines:?}");
    // Every file that a node leaves can be dumped, but its journal, and what says nothing.
    for file in files(&data) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if [".lock", ".kafka_cleanshutdown", "corelog.reserve"].contains(&name) || name.starts_with("journal-") {
            continue;
        }
        for form in ["--quiet", "--json"] {
            let output = run(&[Path::new("dump"), Path::new(form), &file]);
            assert!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", file.display());
        }
    }
}

#[test]
fn the_exit_code_is_the_worst_that_was_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let broker = serve(&data);
    produce(&broker, 0..20_000);
    broker.kill();
    let segments: Vec<PathBuf> =
        files(&data).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log")).collect();
    let [first, .., last] = &segments[..] else { panic!("several segments: {segments:?}") };

    // What a crash in mid-write leaves.
    fs::OpenOptions::new().append(true).open(last).and_then(|mut file| file.write_all(&[7; 100])).expect("written");
    let (code, lines) = verify(&[&data]);
    assert_eq!(code, WARNINGS, "{lines:?}");
    let torn = finding(&lines, "batch-header");
    assert_eq!((&torn["severity"], torn["file"].as_str()), (&Value::from("warning"), last.to_str()));
    assert_eq!(torn["position"], fs::metadata(last).expect("there").len() - 100);

    // Recovery cuts it, and nothing is odd any more.
    let (status, log) = serve(&data).stop(Signal::TERM);
    assert!(status.success(), "{log}");
    assert_eq!(verify(&[&data]).0, CLEAN);

    // A bit that rots.
    let mut content = fs::read(first).expect("read");
    content[200] ^= 1;
    fs::write(first, content).expect("written");
    let (code, lines) = verify(&[&data]);
    assert_eq!(code, ERRORS, "{lines:?}");
    let rotten = finding(&lines, "batch-crc");
    assert_eq!((&rotten["severity"], &rotten["position"]), (&Value::from("error"), &Value::from(0)));
    let partition = first.parent().expect("in a partition's directory");
    assert_eq!(verify(&[partition]).0, ERRORS);
    assert_eq!(verify(&[first]).0, ERRORS);
    assert_eq!(verify(&[last]).0, CLEAN);
    let text = run(&[Path::new("verify"), Path::new("--data-dir"), &data]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("batch-crc\n         expected: CRC-32C "), "{text}");
    assert!(text.ends_with(": 1 error, 0 warnings\n"), "{text}");
    let output = run(&[Path::new("dump"), Path::new("--quiet"), first]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn what_could_not_be_looked_at_is_no_verdict() {
    let dir = tempfile::tempdir().expect("a directory");
    for wrong in [&["--no-such-option"][..], &["--jobs", "0"], &["no/such/directory"]] {
        let words: Vec<&Path> = [&["verify"], wrong].concat().into_iter().map(Path::new).collect();
        let output = run(&words);
        assert_eq!(output.status.code(), Some(NOT_READ), "{output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
    }
    assert_eq!(verify(&[dir.path()]).0, NOT_READ, "an empty directory is no data directory");
    let notes = dir.path().join("notes.txt");
    fs::write(&notes, "x").expect("written");
    assert_eq!(verify(&[&notes]).0, NOT_READ);
    assert_eq!(run(&[Path::new("verify"), Path::new("--help")]).status.code(), Some(0));
}

/// Headers rotted below the recovery point, which no start reads: whoever asks for these records is told so, and the rest of
/// the partition is served. (KAFKA_STORAGE_ERROR would have consumers wait for a disk that is well.)
#[test]
fn records_that_rotted_answer_corrupt_message_and_the_others_are_served() {
    const BATCHES: i64 = 12;
    const RECORDS: i64 = 5;
    for (rotten, byte) in [(4, 16), (7, 8)] {
        let dir = tempfile::tempdir().expect("a directory");
        let broker = Start::new(dir.path()).shards(1).start();
        wire::create_topic(&broker, "t", 1, &[("index.interval.bytes", "1")]);
        let mut client = wire::Client::connect(broker.port);
        for seed in 0..BATCHES as u64 {
            wire::produce(&mut client, "t", 0, -1, wire::batch(seed, RECORDS as usize, 1000)).expect("taken");
        }
        broker.stop(Signal::TERM);
        let segment = dir.path().join("t-0/00000000000000000000.log");
        let mut content = fs::read(&segment).expect("read");
        let mut at = 0;
        for _ in 0..rotten {
            at += BatchHeader::parse(&content[at..]).expect("a batch").total_len();
        }
        content[at + byte] ^= 0x40;
        fs::write(&segment, content).expect("written");

        let broker = Start::new(dir.path()).shards(1).start();
        let mut client = wire::Client::connect(broker.port);
        let mut ask = |offset: i64| {
            let answer = client.call(wire::FETCH_VERSION, &wire::fetch_request("t", 0, offset, 6000, 0));
            let answer = answer.expect("an answer to fetch").responses.remove(0).partitions.remove(0);
            (answer.error_code, answer.records.map_or(0, |records| records.len()))
        };
        for n in (0..BATCHES).filter(|n| *n != rotten + 1) {
            let (code, bytes) = ask(n * RECORDS);
            match n == rotten {
                true => assert_eq!((code, bytes), (ResponseError::CorruptMessage.code(), 0)),
                false => assert!(code == 0 && bytes > 5000, "batch {n}: {code}, {bytes} bytes"),
            }
        }
        let end =
            ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-1).with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default().with_name(wire::name("t")).with_partitions(vec![end]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let answer = client.call(5, &request).expect("an answer");
        let end = &answer.topics[0].partitions[0];
        assert_eq!((end.error_code, end.offset), (0, BATCHES * RECORDS));
        broker.stop(Signal::TERM);
        assert_eq!(verify(&[dir.path()]).0, ERRORS);
    }
}

fn serve(data: &Path) -> Broker {
    Start::new(data).set("log.segment.bytes", 50_000).start()
}

fn produce(broker: &Broker, numbers: std::ops::Range<u32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(["produce", "clicks", "-b", &format!("127.0.0.1:{}", broker.port)]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let lines: String = numbers.map(|n| format!("{n}\n")).collect();
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("our own child");
    assert!(output.status.success(), "{output:?}");
}

fn run(words: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corelog")).args(words).output().expect("the binary starts")
}

/// The exit code, and the JSON lines.
fn verify(paths: &[&Path]) -> (i32, Vec<Value>) {
    let output = run(&[&[Path::new("verify"), Path::new("--json")], paths].concat());
    let lines = String::from_utf8(output.stdout).expect("text");
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (output.status.code().expect("not killed"), lines)
}

fn finding<'a>(lines: &'a [Value], check: &str) -> &'a Value {
    let found: Vec<&Value> = lines.iter().filter(|line| line["check"] == check).collect();
    assert_eq!(found.len(), 1, "{lines:?}");
    found[0]
}

/// The summary of a clean directory with 20,000 records.
fn summary(data: &Path) -> Value {
    let segments: Vec<PathBuf> =
        files(data).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log")).collect();
    let bytes: u64 = segments.iter().map(|file| fs::metadata(file).expect("there").len()).sum();
    let (_, lines) = verify(&[data]);
    let batches = lines.last().expect("a summary")["batches"].clone();
    serde_json::json!({ "type": "summary", "partitions": 1, "segments": segments.len(), "batches": batches,
        "records": 20_000, "bytes": bytes, "errors": 0, "warnings": 0, "infos": 0, "exit_code": 0 })
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
