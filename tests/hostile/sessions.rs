//! Fetch sessions (KIP-227) under clients that lie about them, open too many, or make them huge.

use crate::Besieged;
use crate::wire::{Client, FETCH_VERSION, batch, create_topic, fetch_request, frame, name, produce};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use std::io::Write;

const ID_NOT_FOUND: i16 = 70;
const INVALID_EPOCH: i16 = 71;
const UNKNOWN_TOPIC: i16 = 3;
/// `max.incremental.fetch.session.cache.slots` unless set.
const SLOTS: usize = 1000;

/// A request of a session that names nothing.
fn goes_on(id: i32, epoch: i32) -> FetchRequest {
    fetch_request("none", 0, 0, 1 << 20, 0).with_session_id(id).with_session_epoch(epoch).with_topics(vec![])
}

fn opens(topic: &str) -> FetchRequest {
    fetch_request(topic, 0, 0, 1 << 20, 0).with_session_epoch(0)
}

fn ask(client: &mut Client, request: &FetchRequest) -> FetchResponse {
    client.call(FETCH_VERSION, request).expect("an answer to fetch")
}

/// A topic with one record, and a client of its leader.
fn prepare(besieged: &Besieged, topic: &str) -> Client {
    let port = create_topic(&besieged.broker, topic, 1, &[])[0];
    let mut client = Client::connect(port);
    assert_eq!(produce(&mut client, topic, 0, 1, batch(1, 1, 100)), Ok(0));
    client
}

#[test]
fn lies_about_a_session_are_told_and_do_not_end_it() {
    let besieged = Besieged::start();
    let mut client = prepare(&besieged, "told");
    let opened = ask(&mut client, &opens("told"));
    let id = opened.session_id;
    assert_ne!(id, 0);
    for unknown in [id ^ 1, -1, i32::MIN, i32::MAX] {
        assert_eq!(ask(&mut client, &goes_on(unknown, 1)).error_code, ID_NOT_FOUND, "session {unknown}");
    }
    for epoch in [2, 77, i32::MAX, i32::MIN, -2] {
        assert_eq!(ask(&mut client, &goes_on(id, epoch)).error_code, INVALID_EPOCH, "epoch {epoch}");
    }
    let strange = |topic: &str, partitions: Vec<i32>| {
        ForgottenTopic::default().with_topic(name(topic)).with_partitions(partitions)
    };
    let forgets = vec![
        strange("told", (1..50_000).collect()),
        strange("told", vec![-1, i32::MIN, i32::MAX]),
        strange(&"n".repeat(30_000), vec![0]),
        strange("", vec![]),
    ];
    let answer = ask(&mut client, &goes_on(id, 1).with_forgotten_topics_data(forgets));
    assert_eq!((answer.error_code, answer.session_id), (0, id), "what it does not hold cannot be forgotten");
    let answer = ask(&mut client, &goes_on(id, 2));
    let records = answer.responses[0].partitions[0].records.as_ref().expect("the session's partition");
    assert!(!records.is_empty(), "the session goes on");
    besieged.end();
}

#[test]
fn thousands_of_sessions_are_served_but_not_remembered() {
    const OPENED: usize = 5_000;
    let besieged = Besieged::start();
    let mut client = prepare(&besieged, "opened");
    let mut ids = Vec::new();
    for n in 0..OPENED {
        let answer = ask(&mut client, &opens("opened"));
        assert!(!answer.responses[0].partitions[0].records.as_ref().expect("records").is_empty(), "fetch {n}");
        ids.push(answer.session_id);
    }
    let mut remembered: Vec<i32> = ids.into_iter().filter(|id| *id != 0).collect();
    assert_eq!(remembered.len(), SLOTS, "no slot is taken from a session that is in use");
    besieged.assert_memory(1, false);
    for id in &remembered {
        assert_eq!(ask(&mut client, &goes_on(*id, 1)).error_code, 0);
    }
    // One that ends makes room for another.
    ask(&mut client, &goes_on(remembered[0], -1));
    assert_ne!(ask(&mut client, &opens("opened")).session_id, 0);
    remembered.sort_unstable();
    remembered.dedup();
    assert_eq!(remembered.len(), SLOTS, "each has an id of its own");
    besieged.end();
}

/// Thirty bytes ask for all partitions of a session.
#[test]
fn a_huge_session_costs_others_neither_memory_nor_their_turn() {
    const PARTITIONS: i32 = 100_000;
    const PIPELINED: i32 = 60;
    let besieged = Besieged::start();
    let mut client = Client::connect(besieged.broker.port);
    let partitions = (0..PARTITIONS).map(|index| FetchPartition::default().with_partition(index)).collect();
    let topic = FetchTopic::default().with_topic(name("unknown")).with_partitions(partitions);
    let opened = ask(&mut client, &opens("unknown").with_topics(vec![topic]));
    let id = opened.session_id;
    assert_ne!(id, 0);
    assert_eq!(opened.responses[0].partitions.len(), PARTITIONS as usize);
    assert!(opened.responses[0].partitions.iter().all(|partition| partition.error_code == UNKNOWN_TOPIC));
    besieged.assert_memory(1, true);

    // Many at once, whose answers nobody reads for a while.
    let all: Vec<u8> = (1..=PIPELINED).flat_map(|epoch| frame(FETCH_VERSION, epoch, &goes_on(id, epoch))).collect();
    client.stream.write_all(&all).expect("the broker takes them");
    let mut other = Client::connect(besieged.broker.port);
    for _ in 0..20 {
        let unknown = ask(&mut other, &goes_on(1, 1));
        assert_eq!(unknown.error_code, ID_NOT_FOUND, "others of the shard are served");
        besieged.assert_memory(2, true);
    }
    for epoch in 1..=PIPELINED {
        let answer = client.receive::<FetchRequest>(FETCH_VERSION).expect("answered in order");
        assert_eq!(answer.error_code, 0, "epoch {epoch}");
        assert_eq!(answer.responses[0].partitions.len(), PARTITIONS as usize, "errors are told each time");
    }
    besieged.end();
}
