//! A bit flips on the disk beneath a running broker: the scrub finds it, readers are told, and everything else is served.

use crate::broker::{Broker, PATIENCE, Start};
use crate::wire::{Client, FETCH_VERSION, batch, create_topic, fetch_request, leaders, produce};
use corelog::record::batch::walk;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const CORRUPT_MESSAGE: i16 = 2;
const BATCHES: u64 = 40;

fn corelog(words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_corelog")).args(words).output().expect("the binary starts");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

fn scrub(broker: &Broker, what: &str) {
    let (code, said) = corelog(&["scrub", what, "-b", &format!("127.0.0.1:{}", broker.port)]);
    assert_eq!(code, Some(0), "{said}");
}

fn sum(counters: &[Value], name: &str) -> u64 {
    counters.iter().filter_map(|shard| shard[name].as_u64()).sum()
}

/// What a consumer gets from an offset on: its batches' offsets, or the error code.
fn read(client: &mut Client, offset: i64) -> Result<Vec<(i64, i64)>, i16> {
    let answer = client.call(FETCH_VERSION, &fetch_request("t", 0, offset, 1 << 20, 0)).expect("an answer");
    let data = &answer.responses[0].partitions[0];
    if data.error_code != 0 {
        return Err(data.error_code);
    }
    let records = data.records.clone().unwrap_or_default();
    let whole = walk(&records).map(|found| {
        let found = found.expect("a batch");
        assert!(found.header.crc_matches(found.bytes), "damage was served, at {}", found.header.base_offset);
        (found.header.base_offset.0, found.header.next_offset().0)
    });
    Ok(whole.collect())
}

/// Everything that can be read, going on behind each damage.
fn read_all(client: &mut Client, end: i64, next_of: impl Fn(i64) -> i64) -> Vec<i64> {
    let (mut from, mut bases) = (0, Vec::new());
    while from < end {
        from = match read(client, from) {
            Ok(batches) => {
                bases.extend(batches.iter().map(|(base, _)| *base));
                batches.last().unwrap_or_else(|| panic!("nothing at {from}")).1
            }
            Err(code) => {
                assert_eq!(code, CORRUPT_MESSAGE);
                next_of(from)
            }
        };
    }
    bases
}

/// The segment's file and the byte in it at which a batch begins.
fn find(dir: &Path, base: i64) -> (PathBuf, u64) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir).expect("listed").map(|entry| entry.expect("listed").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    for path in files {
        let bytes = fs::read(&path).expect("readable");
        if let Some(found) = walk(&bytes).map_while(Result::ok).find(|found| found.header.base_offset.0 == base) {
            return (path, found.at as u64);
        }
    }
    panic!("no batch at {base}");
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
    file.sync_all().expect("synced");
}

fn started(dir: &Path) -> Start {
    Start::new(dir).set("log.initial.task.delay.ms", 0).set("log.flush.offset.checkpoint.interval.ms", 100)
}

#[test]
fn a_flipped_bit_is_found_told_and_passed_by() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = started(dir.path()).start();
    let port = broker.port;
    let leader = create_topic(&broker, "t", 1, &[("segment.bytes", "100000")])[0];
    let mut client = Client::connect(leader);
    for seed in 0..BATCHES {
        produce(&mut client, "t", 0, -1, batch(seed, 10, 1000)).expect("taken");
    }
    broker.until("both shards scrub what there was at the start", |all| sum(all, "scrub_rounds") >= 2);
    let (path, position) = find(&dir.path().join("t-0"), 130);
    flip(&path, position + 500);
    let before = sum(&broker.counters(), "scrub_rounds");
    scrub(&broker, "now");
    broker.until("the damage is found", |all| sum(all, "scrub_damaged") == 1);
    broker.until("the round ends", |all| sum(all, "scrub_rounds") >= before + 2);

    assert_eq!(read(&mut client, 130), Err(CORRUPT_MESSAGE));
    assert_eq!(read(&mut client, 135), Err(CORRUPT_MESSAGE));
    let expected: Vec<i64> = (0..BATCHES as i64).map(|i| i * 10).filter(|base| *base != 130).collect();
    assert_eq!(read_all(&mut client, 400, |_| 140), expected, "before and behind is served");
    assert!(sum(&broker.counters(), "corrupt_answers") >= 2);
    assert_eq!(sum(&broker.counters(), "corrupt_ranges"), 1);

    let data_dir = dir.path().display().to_string();
    let (code, status) = corelog(&["scrub", "status", "--data-dir", &data_dir, "--json"]);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(
        (code, &status["damaged"][0]["first_offset"], &status["damaged"][0]["next_offset"]),
        (Some(0), &130.into(), &140.into())
    );
    assert_eq!(status["damaged"][0]["position"], position);
    let begun = Instant::now();
    loop {
        // A broker runs: up to where it was synced when the checkpoint was written.
        let (code, verified) = corelog(&["verify", "--json", &data_dir]);
        let mut findings = verified.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let same = findings.any(|finding| {
            finding["check"] == "batch-crc"
                && finding["file"] == path.display().to_string()
                && finding["severity"] == "error"
        });
        if same && code == Some(2) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "verify does not say the same: {verified}");
        std::thread::sleep(Duration::from_millis(100));
    }

    // Held, it does not move, whatever is asked; a stop and a start forget nothing. (A kill would have the journal write anew
    // what it still holds, and heal it.)
    scrub(&broker, "pause");
    scrub(&broker, "now");
    let rounds = sum(&broker.counters(), "scrub_rounds");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sum(&broker.counters(), "scrub_rounds"), rounds);
    let told = broker.log().matches("damaged from byte").count();
    assert_eq!(told, 1, "it is told once");
    assert!(broker.stop(Signal::TERM).0.success());
    let broker = started(dir.path()).port(port).start();
    let mut client = Client::connect(leaders(port, "t")[0]);
    assert_eq!(read(&mut client, 130), Err(CORRUPT_MESSAGE), "a restart does not begin to serve it");
    assert_eq!(read_all(&mut client, 400, |_| 140), expected);
    scrub(&broker, "resume");
    broker.until("the round that was asked for", |all| sum(all, "scrub_rounds") >= 2);
    assert_eq!(read(&mut client, 130), Err(CORRUPT_MESSAGE));

    // Put right, it is served again after the next round.
    flip(&path, position + 500);
    let before = sum(&broker.counters(), "scrub_rounds");
    scrub(&broker, "now");
    broker.until("another round", |all| sum(all, "scrub_rounds") >= before + 2);
    assert_eq!(read(&mut client, 130).expect("sound")[0], (130, 140));
    assert_eq!(sum(&broker.counters(), "corrupt_ranges"), 0);
    assert!(broker.stop(Signal::TERM).0.success());
}
