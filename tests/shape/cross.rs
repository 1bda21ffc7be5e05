//! Produce and fetch stay on their shard: nothing that another thread sends arrives meanwhile.

use crate::broker::{Broker, Start};
use crate::wire::{Client, batch, create_topic, fetch, fetch_request, produce};
use kafka_protocol::messages::FetchRequest;

/// One topic with a partition on each shard, warmed up: its files are there and were read.
pub struct Load {
    topic: &'static str,
    clients: Vec<(Client, Client)>,
    next: Vec<i64>,
}

impl Load {
    pub fn prepare(broker: &Broker, topic: &'static str) -> Load {
        let leaders = create_topic(broker, topic, 2, &[]);
        assert_ne!(leaders[0], leaders[1], "a partition on each shard");
        let clients = leaders.iter().map(|port| (Client::connect(*port), Client::connect(*port))).collect();
        let mut load = Load { topic, clients, next: vec![0; 2] };
        load.run(20);
        load
    }

    /// Produces with both kinds of acks and fetches, on both shards; every other fetch waits for the record that wakes it.
    pub fn run(&mut self, rounds: usize) {
        for round in 0..rounds {
            for (partition, (producer, consumer)) in self.clients.iter_mut().enumerate() {
                let (next, index) = (self.next[partition], partition as i32);
                let waits = round % 2 == 0;
                if waits {
                    let request = fetch_request(self.topic, index, next, 1 << 20, 60_000);
                    consumer.send(crate::wire::FETCH_VERSION, &request).expect("sent");
                }
                let acks = if round % 3 == 0 { -1 } else { 1 };
                let sent = batch(round as u64, 3, 500);
                assert_eq!(produce(producer, self.topic, index, acks, sent.clone()), Ok(next));
                let records = if waits {
                    let answer = consumer.receive::<FetchRequest>(crate::wire::FETCH_VERSION).expect("an answer");
                    answer.responses[0].partitions[0].records.clone().expect("the record that woke it")
                } else {
                    fetch(consumer, self.topic, index, next, 1 << 20).1
                };
                assert_eq!(records.slice(16..), sent.slice(16..), "what was sent came back");
                self.next[partition] = next + 3;
            }
        }
    }
}

/// A broker without timed work in the way.
pub fn quiet(start: Start) -> Start {
    start.set("log.flush.offset.checkpoint.interval.ms", 3_600_000).set("log.retention.check.interval.ms", 3_600_000)
}

#[test]
fn produce_and_fetch_send_nothing_between_shards() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = quiet(Start::new(dir.path())).start();
    let mut load = Load::prepare(&broker, "steady");
    let before = broker.counter("cross_shard_messages");
    load.run(300);
    assert_eq!(broker.counter("cross_shard_messages"), before, "steady produce and fetch stay on their shards");

    // That it would have been seen: a new topic is a message of the control plane to every shard.
    create_topic(&broker, "injected", 1, &[]);
    let after = broker.counter("cross_shard_messages");
    assert!(after.iter().zip(&before).all(|(after, before)| after > before), "{before:?} then {after:?}");
}
