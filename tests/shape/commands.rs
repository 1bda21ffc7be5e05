//! The commands against a real node: what they say, on which stream, and how they end.

use crate::broker::{Broker, Start};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    after: Duration,
}

/// Runs a command against a node, with some input.
fn run(broker: &Broker, words: &[&str], input: &str) -> Ended {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(words).args(["-b", &format!("127.0.0.1:{}", broker.port)]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    // A command that has ended already reads nothing.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("our own child");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        after: begun.elapsed(),
    }
}

#[track_caller]
fn assert_ended(ended: &Ended, code: i32, said: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    for part in said {
        assert!(ended.stderr.contains(part), "{part:?} is missing in:\n{}", ended.stderr);
    }
}

/// It waited for half a minute without a word.
#[test]
fn producing_to_a_topic_that_nobody_creates_says_so() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = Start::new(dir.path()).set("auto.create.topics.enable", false).start();
    let ended = run(&broker, &["produce", "nobody"], "hello\n");
    assert_ended(&ended, 1, &["topic nobody", "auto.create.topics.enable=false", "corelog topic create"]);
    assert!(ended.after < Duration::from_secs(20), "it need not wait: {:?}", ended.after);
    let ended = run(&broker, &["produce", "a b"], "hello\n");
    assert_ended(&ended, 1, &["INVALID_TOPIC_EXCEPTION", "ASCII letters"]);
}

#[test]
fn topics_are_altered_deleted_and_described_as_asked() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = Start::new(dir.path()).start();
    assert_ended(&run(&broker, &["topic", "create", "a", "b", "--config", "retention.ms=5"], ""), 0, &[]);
    let wrong = run(&broker, &["topic", "alter", "a", "--unset", "retention.ms", "--unset", "nope"], "");
    assert_ended(&wrong, 1, &["there is no setting nope"]);
    let described = run(&broker, &["topic", "describe", "missing", "a", "gone", "b", "--json"], "");
    assert_ended(&described, 1, &["topic missing", "topic gone", "does not exist"]);
    let topics: Value = serde_json::from_str(&described.stdout).expect("JSON all the same");
    let names: Vec<_> = topics.as_array().expect("a list").iter().map(|topic| &topic["topic"]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(topics[0]["configs"]["retention.ms"]["value"], "5", "nothing was unset");
    assert_ended(&run(&broker, &["topic", "alter", "a", "--unset", "retention.ms"], ""), 0, &[]);
    assert_ended(&run(&broker, &["topic", "delete", "zzz*", "--if-exists"], ""), 0, &["no topic matches 'zzz*'"]);
    assert_ended(&run(&broker, &["topic", "delete", "zzz*"], ""), 1, &["no topic matches 'zzz*'"]);
}

#[test]
fn what_is_not_stored_is_told_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = Start::new(dir.path()).start();
    assert_ended(&run(&broker, &["topic", "create", "t", "--partitions", "1"], ""), 0, &[]);
    let ended = run(&broker, &["produce", "t", "-p", "7"], "hello\n");
    assert_ended(&ended, 1, &["lost: line 1: there is no partition 7"]);
    let ended = run(&broker, &["produce", "t", "--key-field", "a"], "{\"a\":1}\nnonsense\n{\"a\":2}\n");
    assert_ended(&ended, 1, &["error: line 2: not JSON", "the rest of the input was not read"]);
    let ended = run(&broker, &["consume", "t", "-o", "5", "-e"], "");
    assert_ended(&ended, 1, &["t-0: offset 5 lies beyond the end, which is 1"]);
}
