//! `corelog bench` against a running broker: what it counts is what the broker has.

use crate::broker::Start;
use serde_json::Value;
use std::process::Command;

fn bench(address: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.arg("bench").args(arguments).args(["--json", "-b", address]);
    let output = command.output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn count(result: &Value, pointer: &str) -> u64 {
    result.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {result}"))
}

#[test]
fn what_was_produced_is_consumed_and_counted() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = Start::new(dir.path()).shards(2).start();
    let address = format!("127.0.0.1:{}", broker.port_of(0));
    let short = ["--duration", "300ms", "--warm-up", "0s"];
    let sizes = ["--size", "100", "--batch", "7"];

    let shape = ["produce", "--keep", "--partitions", "6", "-c", "4", "--partitions-per-request", "3", "--acks", "1"];
    let produced = bench(&address, &[&shape, &short[..], &sizes].concat());
    let requests = count(&produced, "/totals/requests");
    assert!(requests > 0);
    assert_eq!(count(&produced, "/totals/records"), requests * 3 * 7);
    assert_eq!(count(&produced, "/totals/bytes"), requests * 3 * 7 * 100);
    assert!(count(&produced, "/request_latency_us/count") > 0);
    assert!(count(&produced, "/request_latency_us/max") > 0);

    // Everything once, one connection for each partition: at least what was counted, since some was under way at the end.
    let once = ["consume", "--once", "-c", "6", "--duration", "60s", "--warm-up", "0s"];
    let consumed = bench(&address, &once);
    let records = count(&consumed, "/totals/records");
    assert!(records >= count(&produced, "/totals/records"), "{records}");
    assert_eq!(records % 7, 0);
    assert_eq!(count(&bench(&address, &once), "/totals/records"), records);

    let pid = broker.pid().to_string();
    let e2e = ["e2e", "--topic", "e2e", "-c", "2", "--rate", "2000", "--pid", &pid];
    let through = bench(&address, &[&e2e, &short[..], &sizes].concat());
    assert!(count(&through, "/end_to_end_latency_us/count") > 0);
    assert!(count(&through, "/request_latency_us/count") > 0);
    assert!(count(&through, "/broker/resident_bytes") > 0);
    // Its topic was its own, and is gone.
    let mut list = Command::new(env!("CARGO_BIN_EXE_corelog"));
    let topics = list.args(["topic", "list", "-b", &address]).output().expect("it runs");
    assert!(!String::from_utf8_lossy(&topics.stdout).contains("e2e"));
    broker.stop(rustix::process::Signal::TERM);
}

/// What a run on a broker of its own shows; the broker is told by its address and its process.
fn on_a_broker(look: impl FnOnce(&str, &str)) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = Start::new(dir.path()).shards(2).start();
    look(&format!("127.0.0.1:{}", broker.port_of(0)), &broker.pid().to_string());
    broker.stop(rustix::process::Signal::TERM);
}

const SHORT: [&str; 4] = ["--duration", "300ms", "--warm-up", "0s"];

#[test]
fn producers_consumers_and_probes_go_together() {
    on_a_broker(|address, pid| {
        let who = ["mixed", "-c", "3", "--partitions", "2", "--consumers", "4", "--probes", "2", "--pid", pid];
        let what = ["--rate", "3000", "--size", "100-300", "--batch", "5"];
        let mixed = bench(address, &[&who[..], &what, &SHORT].concat());
        let records = count(&mixed, "/totals/records");
        assert!(records > 0 && count(&mixed, "/probe_latency_us/count") > 0);
        assert_eq!(records, count(&mixed, "/totals/requests") * 5, "probes are not among them");
        // Both partitions are read twice.
        assert!(count(&mixed, "/end_to_end_latency_us/count") > records);
        let bytes = count(&mixed, "/totals/bytes");
        assert!((records * 150..records * 250).contains(&bytes), "{bytes} bytes of {records} records");
    });
}

#[test]
fn idempotent_producers_are_skewed_and_nothing_is_lost_or_doubled() {
    on_a_broker(|address, _| {
        let who = ["produce", "--keep", "-c", "2", "--partitions", "8", "--idempotent", "--skew", "hot"];
        let produced = bench(address, &[&who[..], &["--batch", "3", "--size", "exp:200"], &SHORT].concat());
        let once = ["consume", "--once", "--verify", "-c", "2", "--duration", "60s", "--warm-up", "0s"];
        let consumed = bench(address, &once);
        // All that was sent was answered, at the latest in the grace that follows the run.
        assert_eq!(count(&consumed, "/totals/records"), count(&produced, "/whole_run/sent_records"));
        assert_eq!(count(&consumed, "/consumed/damaged"), 0);
        let mut partitions = Command::new(env!("CARGO_BIN_EXE_corelog"));
        let partitions = partitions.args(["consume", "corelog-bench", "-e", "-f", "%p\\n", "-b", address]);
        let partitions = String::from_utf8(partitions.output().expect("it runs").stdout).expect("numbers");
        let mut records = [0usize; 8];
        partitions.lines().for_each(|partition| records[partition.parse::<usize>().expect("a number")] += 1);
        records.sort_unstable();
        let (hot, all) = (records[6] + records[7], records.iter().sum::<usize>());
        assert!(hot * 10 > all * 7, "the first partition of each of two brokers gets most: {records:?}");
    });
}

#[test]
fn a_file_is_replayed_compressed() {
    on_a_broker(|address, _| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("lines");
        let lines: Vec<String> = (0..10).map(|number| format!("line {number}")).collect();
        std::fs::write(&path, lines.join("\n")).expect("written");
        let file = path.to_str().expect("a name");
        let how = ["produce", "--keep", "-c", "1", "--batch", "4", "-z", "zstd", "--replay", file];
        let produced = bench(address, &[&how[..], &SHORT].concat());
        assert_eq!(count(&produced, "/totals/bytes"), count(&produced, "/totals/records") * 6);
        let mut consume = Command::new(env!("CARGO_BIN_EXE_corelog"));
        let read =
            consume.args(["consume", "corelog-bench", "-p", "0", "-c", "10", "-b", address]).output().expect("it runs");
        let read = String::from_utf8_lossy(&read.stdout).into_owned();
        assert_eq!(read.lines().collect::<Vec<_>>(), lines);
    });
}

#[test]
fn cost_is_shown_over_connections_and_partitions() {
    on_a_broker(|address, pid| {
        let load = ["--size", "100", "--batch", "1", "--pid", pid];
        let counts = |sweep: &Value| -> Vec<u64> {
            let runs = sweep["runs"].as_array().expect("runs");
            assert!(runs.iter().all(|run| count(run, "/result/totals/requests") > 0), "{sweep}");
            runs.iter().map(|run| count(run, "/count")).collect()
        };
        let active = bench(address, &[&["connections", "--counts", "20,1"], &load[..], &SHORT].concat());
        assert_eq!((counts(&active), active["over"].as_str()), (vec![1, 20], Some("connections")));
        let idle = ["connections", "--idle", "--counts", "10,300", "-c", "2", "--rate", "1000"];
        let idle = bench(address, &[&idle[..], &load, &SHORT].concat());
        assert_eq!((counts(&idle), idle["over"].as_str()), (vec![10, 300], Some("idle connections")));
        assert!(idle.pointer("/runs/1/resident_bytes_each").is_some_and(Value::is_number), "{idle}");
        let dir = tempfile::tempdir().expect("temporary directory");
        let page = dir.path().join("report.html");
        let wide = [
            "partitions",
            "--counts",
            "1,30",
            "--partitions-per-request",
            "10",
            "--html",
            page.to_str().expect("a name"),
        ];
        let wide = bench(address, &[&wide[..], &load, &SHORT].concat());
        assert_eq!(counts(&wide), [1, 30]);
        let of = |run: &str, total: &str| count(&wide, &format!("/runs/{run}/result/totals/{total}"));
        assert_eq!((of("0", "records"), of("1", "records")), (of("0", "requests"), of("1", "requests") * 10));
        assert!(std::fs::read_to_string(page).expect("written").contains("<svg"));
    });
}
