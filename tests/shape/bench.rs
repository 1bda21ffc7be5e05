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
