//! Starts that must fail, each with a reason that tells what to do.

use crate::broker::{Start, free_ports};
use crate::wire::{Client, batch, create_topic, leaders, produce};
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

/// What is fixed at format must be possible: the next start could not take it back.
#[test]
fn an_impossible_number_of_shards_formats_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let data = dir.path().join("data");
    assert_says(&Start::new(&data).port(65_535).refusal(), &["2 shards need ports up to 65536"]);
    for shards in [0, 1001, 65_535] {
        assert_says(&Start::new(&data).shards(shards).refusal(), &["1..=1000"]);
    }
    assert!(!data.exists(), "nothing was made");
}

/// The store cannot be opened, so that no shard ever learns what it leads: none may say what it does not know.
#[test]
fn a_start_that_fails_forgets_no_checkpoint() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = Start::new(dir.path()).start();
    let leader = create_topic(&broker, "kept", 1, &[])[0];
    assert_eq!(produce(&mut Client::connect(leader), "kept", 0, -1, batch(1, 3, 100)), Ok(0));
    assert!(broker.stop(Signal::TERM).0.success());
    let files = ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint"];
    let read = || files.map(|name| std::fs::read_to_string(dir.path().join(name)).expect("written at the stop"));
    let before = read();
    assert!(before[0].contains("kept 0 3"), "{before:?}");
    let journal = dir.path().join("corelog-store.journal");
    let sound = std::fs::read(&journal).expect("the store");
    let mut damaged = sound.clone();
    damaged[40] ^= 1;
    std::fs::write(&journal, damaged).expect("written");
    assert_says(&Start::new(dir.path()).refusal(), &["opening the embedded store", "damaged at byte"]);
    assert_eq!(read(), before);
    std::fs::write(&journal, sound).expect("written");
    let broker = Start::new(dir.path()).start();
    assert_eq!(produce(&mut Client::connect(leaders(broker.port, "kept")[0]), "kept", 0, -1, batch(2, 1, 100)), Ok(3));
}

/// The store lies in the directory that was named first at format.
#[test]
fn directories_may_be_named_in_another_order_and_none_left_out() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let named = |dirs: &[&std::path::Path]| {
        let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Start::new(&a).set("log.dirs", dirs.join(","))
    };
    let broker = named(&[&a, &b]).start();
    for (partition, leader) in create_topic(&broker, "kept", 2, &[]).into_iter().enumerate() {
        assert_eq!(produce(&mut Client::connect(leader), "kept", partition as i32, -1, batch(1, 3, 100)), Ok(0));
    }
    assert!(broker.stop(Signal::TERM).0.success());
    let broker = named(&[&b, &a]).start();
    for (partition, leader) in leaders(broker.port, "kept").into_iter().enumerate() {
        assert_eq!(produce(&mut Client::connect(leader), "kept", partition as i32, -1, batch(2, 1, 100)), Ok(3));
    }
    assert!(broker.stop(Signal::TERM).0.success());
    let text = named(&[&b]).refusal();
    assert_says(&text, &["missing: ", &a.display().to_string(), "log.dirs does not name it", "--forget-dir"]);
    std::fs::copy(a.join("corelog-store.journal"), b.join("corelog-store.journal")).expect("copied");
    assert_says(&named(&[&a, &b]).refusal(), &["both hold a corelog-store.journal"]);
}

/// A disk that is not mounted: its partitions came back empty, without a word; later it kept the whole node from starting.
#[test]
fn a_directory_whose_disk_is_not_mounted_is_offline_and_the_others_are_served() {
    const STORAGE_ERROR: i16 = 56;
    let dir = tempfile::tempdir().expect("temporary directory");
    let (a, b, aside) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("aside"));
    let start = || Start::new(&a).set("log.dirs", format!("{},{}", a.display(), b.display()));
    let broker = start().start();
    let write = |leaders: Vec<u16>, number: u64| -> Vec<Result<i64, i16>> {
        let each = leaders.into_iter().enumerate();
        each.map(|(at, port)| produce(&mut Client::connect(port), "kept", at as i32, -1, batch(number, 1, 100)))
            .collect()
    };
    assert!(write(create_topic(&broker, "kept", 4, &[]), 1).iter().all(|answer| *answer == Ok(0)));
    let is_in_b: Vec<bool> = (0..4).map(|at| b.join(format!("kept-{at}")).is_dir()).collect();
    assert!(is_in_b.contains(&true) && is_in_b.contains(&false), "{is_in_b:?}");
    let ports = leaders(broker.port, "kept");
    assert!(broker.stop(Signal::TERM).0.success());
    std::fs::rename(&b, &aside).expect("unmounted");
    std::fs::create_dir(&b).expect("the mount point");

    let broker = start().port(ports[0].min(ports[1])).start();
    for (answer, is_in_b) in write(ports, 2).into_iter().zip(&is_in_b) {
        assert_eq!(answer, if *is_in_b { Err(STORAGE_ERROR) } else { Ok(1) });
    }
    let new = create_topic(&broker, "new", 2, &[]);
    for (at, port) in new.into_iter().enumerate() {
        assert_eq!(produce(&mut Client::connect(port), "new", at as i32, -1, batch(1, 1, 100)), Ok(0));
    }
    let log = broker.log();
    assert_says(&log, &[&format!("log directory {} is offline", b.display()), "is its disk mounted?"]);
    assert!(broker.stop(Signal::TERM).0.success());
    assert_eq!(std::fs::read_dir(&b).expect("listed").count(), 0, "nothing was written in its place");

    std::fs::remove_dir(&b).expect("empty");
    std::fs::rename(&aside, &b).expect("mounted again");
    let broker = start().start();
    for (answer, is_in_b) in write(leaders(broker.port, "kept"), 3).into_iter().zip(is_in_b) {
        assert_eq!(answer, Ok(if is_in_b { 1 } else { 2 }));
    }
    assert!(broker.stop(Signal::TERM).0.success());
    std::fs::rename(&a, &aside).expect("unmounted");
    assert_says(
        &start().refusal(),
        &["no directory that can be used has corelog-store.journal", "is its disk mounted?"],
    );
}

/// A disk that is lost for good is given up by name, and only by a start that succeeds.
#[test]
fn a_directory_is_given_up_by_name() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (a, b, aside) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("aside"));
    let start = || Start::new(&a).set("log.dirs", format!("{},{}", a.display(), b.display()));
    assert!(start().start().stop(Signal::TERM).0.success());
    std::fs::rename(&b, &aside).expect("unmounted");
    let mut lost = start().command();
    lost.args(["--forget-dir", &b.display().to_string(), "--set", "listeners=PLAINTEXT://192.0.2.1:9092"]);
    let text = String::from_utf8_lossy(&lost.output().expect("the binary starts").stderr).into_owned();
    assert_says(&text, &["cannot listen on port 9092 of 192.0.2.1"]);
    assert!(!b.exists(), "a start that fails leaves no new directory behind, and gives nothing up");
    std::fs::rename(&aside, &b).expect("mounted again");
    let log = start().start().log();
    assert!(!log.contains("directories to recover"), "{log}");
}

#[test]
fn a_taken_port_is_named_though_it_is_a_later_shards() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let port = free_ports();
    let _holder = TcpListener::bind(("127.0.0.1", port + 1)).expect("free a moment ago");
    let data = dir.path().join("data");
    assert_says(&Start::new(&data).port(port).refusal(), &[&format!("port {} on 127.0.0.1 is taken", port + 1)]);
    assert!(!data.exists(), "a start that fails leaves no new directory behind");
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
