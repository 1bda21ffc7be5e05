//! A well-behaved client on every shard, which checks each answer.

#![allow(dead_code, reason = "each of the two suites uses its part")]

use crate::broker::Broker;
use crate::wire::{Client, FETCH_VERSION, batch, create_topic, fetch, fetch_request, produce};
use kafka_protocol::messages::FetchRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

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
                    consumer.send(FETCH_VERSION, &request).expect("sent");
                }
                let acks = if round % 3 == 0 { -1 } else { 1 };
                let sent = batch(round as u64, 3, 500);
                assert_eq!(produce(producer, self.topic, index, acks, sent.clone()), Ok(next));
                let records = if waits {
                    let answer = consumer.receive::<FetchRequest>(FETCH_VERSION).expect("an answer");
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

/// A load that runs in the background until the test is done with whatever it does to the broker.
pub struct Witness {
    done: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Witness {
    pub fn start(mut load: Load) -> Witness {
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut rounds = 0;
            while !told.load(Ordering::Relaxed) || rounds == 0 {
                load.run(6);
                rounds += 6;
            }
            rounds
        });
        Witness { done, thread }
    }

    /// Fails if any of its requests was not answered, or answered wrongly.
    pub fn finish(self) {
        self.done.store(true, Ordering::Relaxed);
        let rounds = self.thread.join().expect("the well-behaved client was served correctly");
        assert!(rounds > 0);
    }
}
