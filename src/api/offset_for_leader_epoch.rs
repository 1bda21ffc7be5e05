//! OffsetForLeaderEpoch (key 23).
//!
//! Versions: 2-4 (KIP-320): where a leader epoch ended, so that a client or follower sees whether its log parted.

use super::context::ShardContext;
use super::leaders;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::ids::LeaderEpoch;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use std::rc::Rc;

pub const SERVED: Served = Served { key: 23, advertised_min: 2, accepted_min: 2, max: 4, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: OffsetForLeaderEpochRequest| {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let found = end_of(context, &topic.topic, asked);
                let answer = EpochEndOffset::default().with_partition(asked.partition);
                match found {
                    Ok(Some((epoch, end))) => answer.with_leader_epoch(epoch).with_end_offset(end),
                    Ok(None) => answer.with_leader_epoch(-1).with_end_offset(-1),
                    Err(code) => answer.with_error_code(code.code()).with_leader_epoch(-1).with_end_offset(-1),
                }
            });
            OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions.collect())
        });
        info.reply(&OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
    })
}

fn end_of(
    context: &ShardContext,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<(i32, i64)>, ResponseError> {
    let partition = leaders::by_name(context, topic, asked.partition)?;
    leaders::check_epoch(asked.current_leader_epoch, partition.epoch())?;
    let core = partition.core();
    let end = core.epochs().end_of(LeaderEpoch(asked.leader_epoch), partition.epoch(), core.written_end());
    Ok(end.map(|end| (end.epoch.0, end.end.0)))
}
