//! ListOffsets (key 2).
//!
//! Versions: 1-9. Earliest, latest, by time, the record with the greatest timestamp (7, KIP-734), earliest local (8) and
//! latest tiered (9): all records are local, so the former is the earliest and there is none of the latter.
//! Questions by time may need the disk; they are read through io_uring in stage two.

use super::context::ShardContext;
use super::leaders;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::log::read::ReadError;
use crate::log::times::{self, TimestampedOffset};
use crate::partition::leader::Partition;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use std::collections::HashSet;
use std::rc::Rc;
use tracing::error;

pub const SERVED: Served = Served { key: 2, advertised_min: 1, accepted_min: 1, max: 9, handle };

/// Answers tell the leader epoch from this version on.
const LEADER_EPOCH_SINCE: i16 = 4;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: ListOffsetsRequest| {
        let by_time = |timestamp| timestamp >= 0 || timestamp == MAX_TIMESTAMP;
        let needs_log = request.topics.iter().flat_map(|topic| &topic.partitions).any(|p| by_time(p.timestamp));
        let (context, info) = (Rc::clone(context), info.clone());
        let answering = async move { info.answer(&answer(&context, &info, &request).await) };
        if needs_log {
            return Outcome::Wait(Box::pin(answering));
        }
        match super::now_or_never(answering) {
            Some(Ok(frame)) => Outcome::Reply(frame),
            Some(Err(e)) => Outcome::Close(e.to_string()),
            None => unreachable!("questions for the ends of a log never wait"),
        }
    })
}

async fn answer(context: &ShardContext, info: &RequestInfo, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.as_str(), partition.partition_index);
            if !seen.insert(key) {
                twice.insert(key);
            }
        }
    }
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let mut answers = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let index = asked.partition_index;
            let found = if twice.contains(&(topic.name.as_str(), index)) {
                Err(ResponseError::InvalidRequest)
            } else {
                match find(context, (&topic.name, index), asked.timestamp, info.version) {
                    Err(code) => Err(code),
                    Ok(partition) => look_up(&partition, (asked.timestamp, asked.current_leader_epoch)).await,
                }
            };
            answers.push(told(index, found, info.version));
        }
        response
            .topics
            .push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(answers));
    }
    response
}

fn told(
    index: i32,
    found: Result<Option<TimestampedOffset>, ResponseError>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Err(code) => answer.with_error_code(code.code()).with_timestamp(-1).with_offset(-1).with_leader_epoch(-1),
        Ok(None) => answer.with_timestamp(-1).with_offset(-1).with_leader_epoch(-1),
        Ok(Some(found)) => answer
            .with_timestamp(found.timestamp_ms)
            .with_offset(found.offset.0)
            .with_leader_epoch(if version >= LEADER_EPOCH_SINCE { found.leader_epoch.0 } else { -1 }),
    }
}

/// The partition, if the question is one that this version may ask: Kafka looks at that first.
fn find(
    context: &ShardContext,
    (topic, index): (&str, i32),
    timestamp: i64,
    version: i16,
) -> Result<Rc<Partition>, ResponseError> {
    let asked_since = match timestamp {
        LATEST_TIERED => 9,
        EARLIEST_LOCAL => 8,
        MAX_TIMESTAMP => 7,
        EARLIEST.. => 1,
        _ => return Err(ResponseError::UnsupportedVersion),
    };
    if version < asked_since {
        return Err(ResponseError::UnsupportedVersion);
    }
    leaders::by_name(context, topic, index)
}

async fn look_up(
    partition: &Rc<Partition>,
    (timestamp, asked_epoch): (i64, i32),
) -> Result<Option<TimestampedOffset>, ResponseError> {
    leaders::check_epoch(asked_epoch, partition.epoch())?;
    if partition.core().failure().is_some() {
        return Err(ResponseError::KafkaStorageError);
    }
    let ends = partition.ends();
    let plain = |offset, leader_epoch| Ok(Some(TimestampedOffset { timestamp_ms: -1, offset, leader_epoch }));
    match timestamp {
        LATEST => plain(ends.high_watermark, partition.epoch()),
        EARLIEST | EARLIEST_LOCAL => plain(ends.log_start, epoch_at_start(partition, ends.log_start)),
        LATEST_TIERED => plain(Offset(-1), LeaderEpoch(-1)),
        MAX_TIMESTAMP | 0.. => by_time(partition, timestamp, ends.high_watermark).await,
        _ => Err(ResponseError::UnsupportedVersion),
    }
}

/// The epoch of the first record; the current one where none was written yet.
fn epoch_at_start(partition: &Partition, log_start: Offset) -> LeaderEpoch {
    partition.core().epochs().epoch_at(log_start).unwrap_or(partition.epoch())
}

/// Searches the log by time. What lies at or above the high watermark is not told.
async fn by_time(
    partition: &Rc<Partition>,
    timestamp: i64,
    high_watermark: Offset,
) -> Result<Option<TimestampedOffset>, ResponseError> {
    let found = loop {
        let (segments, log_start, corrupt) = {
            let core = partition.core();
            (core.segments().iter().cloned().collect::<Vec<_>>(), core.log_start(), core.corrupt().clone())
        };
        let log = (&segments[..], &corrupt);
        let interval = partition.config().index_interval_bytes;
        let found = match timestamp {
            MAX_TIMESTAMP => times::greatest(log, partition.files(), log_start, interval).await,
            _ => times::first_since(log, partition.files(), (timestamp, log_start), interval).await,
        };
        // Segments that compaction replaced meanwhile were passed over, but their records are still there. That is rare:
        // a new segment took minutes to make.
        if !segments.iter().any(|segment| segment.is_replaced()) {
            break found;
        }
    };
    match found {
        Ok(found) => Ok(found.filter(|found| found.offset < high_watermark)),
        Err(e) => {
            error!("{}-{}: looking up {timestamp}: {e}", partition.topic, partition.index());
            partition.read_failed(&e);
            Err(match e {
                ReadError::Io { .. } => ResponseError::KafkaStorageError,
                ReadError::Corrupt { .. } | ReadError::KnownCorrupt { .. } => ResponseError::CorruptMessage,
            })
        }
    }
}
