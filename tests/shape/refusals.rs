//! Starts that must fail, each with a reason that tells what to do.

use crate::broker::{Start, free_ports};
use rustix::process::Signal;
use std::net::TcpListener;

#[track_caller]
fn assert_says(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn a_directory_belongs_to_one_process_and_to_what_it_was_formatted_for() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut broker = Start::new(dir.path()).set("broker.id", 4).start();
    assert_says(&Start::new(dir.path()).set("broker.id", 4).refusal(), &["is in use by another process"]);
    broker.assert_alive();
    let (status, _) = broker.stop(Signal::TERM);
    assert!(status.success());
    let wrong_shards = Start::new(dir.path()).set("broker.id", 4).shards(3).refusal();
    assert_says(&wrong_shards, &["was formatted with shards 2, and 3 is asked for"]);
    let wrong_node = Start::new(dir.path()).set("broker.id", 5).refusal();
    assert_says(&wrong_node, &["was formatted with", "4, and 5 is asked for"]);
    // Refusals leave the directory as it was.
    let log = Start::new(dir.path()).set("broker.id", 4).start().log();
    assert!(!log.contains("directories to recover"), "{log}");
}

#[test]
fn a_taken_port_is_named_though_it_is_a_later_shards() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let port = free_ports();
    let _holder = TcpListener::bind(("127.0.0.1", port + 1)).expect("free a moment ago");
    assert_says(&Start::new(dir.path()).port(port).refusal(), &[&format!("port {} on 127.0.0.1 is taken", port + 1)]);
}

#[test]
fn an_impossible_setting_is_told_with_its_line_and_range() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("server.properties");
    std::fs::write(&file, "# comment\n\nlog.retention.hours=168\nnum.partitions=0\n").expect("written");
    let mut command = Start::new(&dir.path().join("data")).command();
    let output = command.args(["--config", &file.display().to_string()]).output().expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert_says(&text, &["server.properties line 4: num.partitions = 0: must be a whole number, 1 to 2147483647"]);
    assert_says(&Start::new(dir.path()).set("socket.request.max.bytes", "-1").refusal(), &["socket.request.max.bytes"]);
    let promised = Start::new(dir.path()).set("authorizer.class.name", "kafka.security.Authorizer").refusal();
    assert_says(&promised, &["authorizer.class.name"]);
}

#[test]
fn a_directory_with_somebody_elses_files_is_left_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("thesis.txt"), "ten years of work").expect("written");
    assert_says(&Start::new(dir.path()).refusal(), &["is not empty and not a data directory of corelog", "thesis.txt"]);
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("readable").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["thesis.txt"]);
}
