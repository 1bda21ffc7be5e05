//! The thread that fetches from one broker all partitions that it leads.

use super::ConsumerOptions;
use super::lane::Aborted;
use crate::client::admin::topic_name;
use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::limits::RESPONSE_BYTES_MAX;
use crate::record::batch::walk;
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest};
use kafka_protocol::protocol::StrBytes;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

/// What the driver tells a fetcher.
pub(super) enum Order {
    Read { partition: i32, offset: i64 },
    Leave { partition: i32 },
}

/// What a fetcher tells the driver.
pub(super) enum Event {
    Data {
        partition: i32,
        bytes: Bytes,
        aborted: Vec<Aborted>,
    },
    /// The partition is read here: its first answer since it was ordered is no error.
    Sound {
        partition: i32,
    },
    /// The partition cannot be read here (any more); the fetcher has dropped it. `dead`: so it goes for all of them.
    Trouble {
        fetcher: u64,
        dead: bool,
        partition: i32,
        offset: i64,
        error: ClientError,
    },
}

pub(super) struct Fetcher {
    pub id: u64,
    pub topic: String,
    pub options: ConsumerOptions,
    pub orders: Receiver<Order>,
    pub events: SyncSender<Event>,
}

struct Tap {
    partition: i32,
    offset: i64,
    max_bytes: i32,
    /// No answer has come yet.
    is_new: bool,
}

/// For an answer, beyond the time that the broker was told it may hold it.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

impl Fetcher {
    /// Fetches until the driver is gone or the connection breaks.
    pub fn run(self, mut connection: Connection) {
        let mut taps: Vec<Tap> = Vec::new();
        connection.set_timeout(self.options.max_wait + ANSWER_LIMIT);
        loop {
            if !self.obey(&mut taps) {
                return;
            }
            match connection.call(|version| self.request(&taps, version)) {
                Err(error) => return self.fail_all(taps, &error),
                Ok(answer) if answer.error_code != 0 => {
                    let error = ClientError::from_code("fetch", answer.error_code, None);
                    return self.fail_all(taps, &error.expect("invariant: the code is not 0"));
                }
                Ok(answer) => {
                    for data in answer.responses.into_iter().flat_map(|t| t.partitions) {
                        if !self.take(&mut taps, data) {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Takes the orders that came; waits for one while there is nothing to read. False when the driver is gone.
    fn obey(&self, taps: &mut Vec<Tap>) -> bool {
        loop {
            let order = match taps.is_empty() {
                true => self.orders.recv().map_err(|_| TryRecvError::Disconnected),
                false => self.orders.try_recv(),
            };
            match order {
                Ok(order) => obey(order, taps, self.options.partition_fetch_bytes),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn request(&self, taps: &[Tap], version: i16) -> FetchRequest {
        let partition = |tap: &Tap| {
            FetchPartition::default()
                .with_partition(tap.partition)
                .with_fetch_offset(tap.offset)
                .with_partition_max_bytes(tap.max_bytes)
        };
        let topic = FetchTopic::default()
            .with_topic(topic_name(&self.topic))
            .with_partitions(taps.iter().map(partition).collect());
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(self.options.max_wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(self.options.fetch_bytes)
            .with_isolation_level(self.options.isolation.wire())
            .with_topics(vec![topic]);
        // No session (KIP-227): epoch -1 asks for a full fetch every time.
        if version >= 7 { request.with_session_epoch(-1).with_rack_id(StrBytes::new()) } else { request }
    }

    fn take(&self, taps: &mut Vec<Tap>, data: PartitionData) -> bool {
        let Some(at) = taps.iter().position(|tap| tap.partition == data.partition_index) else { return true };
        let what = format!("fetch {}-{}", self.topic, data.partition_index);
        if let Some(error) = ClientError::from_code(what, data.error_code, None) {
            return self.trouble(&taps.swap_remove(at), error, false);
        }
        let tap = taps.get_mut(at).expect("invariant: found above");
        let partition = tap.partition;
        if std::mem::take(&mut tap.is_new) && self.events.send(Event::Sound { partition }).is_err() {
            return false;
        }
        let Some(bytes) = data.records.filter(|bytes| !bytes.is_empty()) else { return true };
        let mut batches = walk(&bytes);
        let next = batches.by_ref().take_while(Result::is_ok).flatten().last().map(|b| b.header.next_offset().0);
        match next {
            // A broken batch is sent on too: whoever reads it will say so.
            None if batches.missing().is_some() => {
                // Only a part of the first batch: brokers before 0.10.1 kept to the limit. Ask for more.
                let more = tap.max_bytes.saturating_mul(2).min(RESPONSE_BYTES_MAX as i32);
                if more == tap.max_bytes {
                    let tap = taps.swap_remove(at);
                    let place = format!("{}-{} offset {}", self.topic, tap.partition, tap.offset);
                    let reason = format!("{place}: a batch is larger than {RESPONSE_BYTES_MAX} bytes");
                    return self.trouble(&tap, ClientError::Invalid(reason), false);
                }
                tap.max_bytes = more;
                return true;
            }
            None => {}
            Some(next) => tap.offset = tap.offset.max(next),
        }
        let aborted = data.aborted_transactions.unwrap_or_default();
        let aborted =
            aborted.iter().map(|a| Aborted { producer_id: a.producer_id.0, first_offset: a.first_offset }).collect();
        self.events.send(Event::Data { partition: data.partition_index, bytes, aborted }).is_ok()
    }

    fn trouble(&self, tap: &Tap, error: ClientError, dead: bool) -> bool {
        let Tap { partition, offset, .. } = *tap;
        self.events.send(Event::Trouble { fetcher: self.id, dead, partition, offset, error }).is_ok()
    }

    /// Reports all partitions, and those that are still being handed over.
    fn fail_all(&self, mut taps: Vec<Tap>, error: &ClientError) {
        loop {
            for tap in taps.drain(..) {
                if !self.trouble(&tap, error.clone(), true) {
                    return;
                }
            }
            match self.orders.recv() {
                Ok(order) => obey(order, &mut taps, self.options.partition_fetch_bytes),
                Err(_) => return,
            }
        }
    }
}

fn obey(order: Order, taps: &mut Vec<Tap>, max_bytes: i32) {
    match order {
        Order::Read { partition, offset } => taps.push(Tap { partition, offset, max_bytes, is_new: true }),
        Order::Leave { partition } => taps.retain(|tap| tap.partition != partition),
    }
}
