//! A connection to one broker with requests under way, and the thread that reads their answers.

use super::batch::Batch;
use super::{Acks, Event};
use crate::client::admin::topic_name;
use crate::client::connection::{Connection, ResponseReader, check_correlation, decode_response};
use crate::client::error::ClientError;
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

pub(super) struct Link {
    connection: Connection,
    version: i16,
    /// Tells answers of an earlier connection to the same broker apart.
    pub generation: u64,
    in_flight: VecDeque<InFlight>,
}

struct InFlight {
    correlation: i32,
    sent: Instant,
    batches: Vec<Batch>,
}

/// Batches that could not be sent, and why.
pub(super) struct Unsent {
    pub error: Box<ClientError>,
    pub batches: Vec<Batch>,
}

impl Link {
    pub fn new(
        connection: Connection,
        broker: i32,
        generation: u64,
        events: Sender<Event>,
    ) -> Result<Link, ClientError> {
        let version = connection.version::<ProduceRequest>()?;
        let reader = connection.split_reader()?;
        std::thread::spawn(move || read_answers(reader, broker, generation, &events));
        Ok(Link { connection, version, generation, in_flight: VecDeque::new() })
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When the oldest request under way was sent.
    pub fn oldest(&self) -> Option<Instant> {
        self.in_flight.front().map(|f| f.sent)
    }

    /// Sends the batches as one request. With `Acks::None` no answer comes: the batches are given back.
    pub fn send(
        &mut self,
        topic: &str,
        acks: Acks,
        timeout: Duration,
        batches: Vec<Batch>,
    ) -> Result<Vec<Batch>, Unsent> {
        let partition =
            |b: &Batch| PartitionProduceData::default().with_index(b.partition).with_records(Some(b.bytes.clone()));
        let data = TopicProduceData::default()
            .with_name(topic_name(topic))
            .with_partition_data(batches.iter().map(partition).collect());
        let request = ProduceRequest::default()
            .with_acks(acks.wire())
            .with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![data]);
        match self.connection.send(&request, self.version) {
            Err(error) => Err(Unsent { error: Box::new(error), batches }),
            Ok(_) if acks == Acks::None => Ok(batches),
            Ok(correlation) => {
                self.in_flight.push_back(InFlight { correlation, sent: Instant::now(), batches });
                Ok(Vec::new())
            }
        }
    }

    /// Matches an answer with its request: answers come in order.
    pub fn answered(&mut self, frame: Bytes) -> Result<(Vec<Batch>, ProduceResponse), ClientError> {
        let addr = self.connection.addr();
        let Some(due) = self.in_flight.front() else {
            let found = "an answer that nobody asked for".to_owned();
            return Err(ClientError::NotKafka { addr: addr.to_owned(), found });
        };
        check_correlation(addr, &frame, due.correlation)?;
        let response = decode_response::<ProduceRequest>(addr, frame, self.version)?;
        let due = self.in_flight.pop_front().expect("invariant: looked at above");
        Ok((due.batches, response))
    }

    /// Ends the connection; gives back what was under way, in the order of sending.
    pub fn close(self) -> Vec<Batch> {
        self.connection.shut();
        self.in_flight.into_iter().flat_map(|f| f.batches).collect()
    }
}

/// Reads until the connection ends; the time limits are the owner's, who shuts the socket.
fn read_answers(mut reader: ResponseReader, broker: i32, generation: u64, events: &Sender<Event>) {
    loop {
        let frame = match reader.wait() {
            Ok(()) => reader.next("waiting for Produce").map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (event, ended) = match frame {
            Ok(frame) => (Event::Answer { broker, generation, frame }, false),
            Err(reason) => (Event::Broken { broker, generation, reason }, true),
        };
        if events.send(event).is_err() || ended {
            return;
        }
    }
}
