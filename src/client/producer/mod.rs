//! Producing: records in, acknowledged batches out, in order and (by default) exactly once per partition.
//!
//! `outbox` decides what is sent when, `batch` is what is sent, `link` is a broker's connection with its reading thread,
//! `driver` performs. The input comes from a thread of the caller through a [`Feeder`], which blocks while too much is
//! on its way.

mod batch;
mod driver;
mod link;
mod outbox;

use super::partitioner::{Sticky, partition_of_key};
use crate::record::compression::Compression;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

pub use driver::produce;

/// Who must have a record before it counts as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nobody: errors stay unknown.
    None,
    Leader,
    All,
}

impl Acks {
    pub fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

#[derive(Clone, Debug)]
pub struct ProducerOptions {
    pub acks: Acks,
    pub compression: Compression,
    pub batch_bytes: usize,
    pub linger: Duration,
    /// Bytes of records that may be on their way; the input waits beyond that.
    pub buffer_bytes: usize,
    pub delivery_timeout: Duration,
    /// Let the broker recognise what it has already (needs `Acks::All`).
    pub idempotent: bool,
    /// Let the broker create a missing topic, if it is configured to.
    pub create_topic: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
    pub timestamp_ms: i64,
    /// None: by the key, or sticky without one.
    pub partition: Option<i32>,
    /// Its place in the input, from 1, rising.
    pub line: u64,
}

impl NewRecord {
    pub fn payload_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// No less than it takes in a batch.
    pub fn encoded_bytes_max(&self) -> usize {
        let headers = self.headers.iter().map(|(k, v)| 10 + k.len() + v.as_ref().map_or(0, Bytes::len));
        36 + self.payload_bytes() + headers.sum::<usize>()
    }
}

/// Records that will not be stored, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub partition: i32,
    pub lines: Vec<u64>,
    pub reason: String,
    /// What can be done about it.
    pub hint: Option<&'static str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionTally {
    pub records: u64,
    /// Of the first and last acknowledged batch; None with `Acks::None`.
    pub first_offset: Option<i64>,
    pub next_offset: Option<i64>,
}

/// How far it has got, or how it ended.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub read_records: u64,
    pub delivered_records: u64,
    pub delivered_bytes: u64,
    pub lost_records: u64,
    /// Neither acknowledged nor refused when it gave up: they may or may not be stored.
    pub unconfirmed_records: u64,
    /// The first of those that were lost.
    pub failures: Vec<Failure>,
    /// Why the input could not be read to its end; everything before it was still sent.
    pub input_error: Option<String>,
    /// Why it stopped early, if it did.
    pub stopped: Option<String>,
    /// The latest trouble that it goes on trying to overcome.
    pub trouble: Option<String>,
    pub retries: u64,
    pub idempotent: bool,
    pub partitions: BTreeMap<i32, PartitionTally>,
}

impl Summary {
    pub fn complete(&self) -> bool {
        self.lost_records == 0 && self.unconfirmed_records == 0 && self.stopped.is_none() && self.input_error.is_none()
    }
}

/// What reaches the producing thread.
enum Event {
    Input(Vec<NewRecord>),
    /// The input has ended, or failed for the reason given.
    InputEnd(Option<String>),
    /// An answer, or the end, of the link of this generation to a broker.
    Answer {
        broker: i32,
        generation: u64,
        frame: Bytes,
    },
    Broken {
        broker: i32,
        generation: u64,
        reason: String,
    },
}

/// Where the input goes in. Each chunk waits until the producer has room for it.
pub struct Feeder {
    events: Sender<Event>,
    credits: Receiver<()>,
}

impl Feeder {
    /// Hands over records; false when the producer has stopped and wants no more.
    pub fn give(&mut self, records: Vec<NewRecord>) -> bool {
        self.credits.recv().is_ok() && self.events.send(Event::Input(records)).is_ok()
    }

    fn end(self, error: Option<String>) {
        // Nobody listens any more if the producer stopped first.
        let _ = self.events.send(Event::InputEnd(error));
    }
}

/// Which partition each record goes to.
#[derive(Debug)]
struct Partitioner {
    sticky: Sticky,
}

impl Partitioner {
    fn choose(&mut self, record: &NewRecord, leaders: &[Option<i32>]) -> Result<i32, String> {
        let count = leaders.len() as i32;
        match (record.partition, &record.key) {
            (Some(p), _) if (0..count).contains(&p) => Ok(p),
            (Some(p), _) => Err(format!("there is no partition {p}, only 0 to {}", count - 1)),
            (None, Some(key)) => Ok(partition_of_key(key, count)),
            (None, None) => {
                let with_leader: Vec<i32> =
                    (0..).zip(leaders).filter(|(_, leader)| leader.is_some()).map(|(p, _)| p).collect();
                let all: Vec<i32>;
                let available = match with_leader.is_empty() {
                    true => {
                        all = (0..count).collect();
                        &all
                    }
                    false => &with_leader,
                };
                Ok(self.sticky.next(record.payload_bytes(), available))
            }
        }
    }
}

#[cfg(test)]
mod tests;
