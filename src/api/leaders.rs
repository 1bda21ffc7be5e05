//! Finding the partition that a request names, with Kafka's code where this shard cannot serve it.

use super::context::ShardContext;
use crate::base::ids::{LeaderEpoch, PartitionIndex, TopicId};
use crate::partition::leader::Partition;
use kafka_protocol::ResponseError;
use std::rc::Rc;

/// The partition by its topic's name, if this shard leads it.
pub fn by_name(context: &ShardContext, topic: &str, index: i32) -> Result<Rc<Partition>, ResponseError> {
    let index = PartitionIndex(index);
    if let Some(found) = context.partitions.topic(topic).and_then(|local| local.partition(index).cloned()) {
        return Ok(found);
    }
    match context.image().topic(topic).and_then(|topic| topic.partition(index)) {
        Some(_) => Err(ResponseError::NotLeaderOrFollower),
        None => Err(ResponseError::UnknownTopicOrPartition),
    }
}

/// The partition by its topic's id (KIP-516), if this shard leads it.
pub fn by_id(context: &ShardContext, topic: TopicId, index: i32) -> Result<Rc<Partition>, ResponseError> {
    let index = PartitionIndex(index);
    if let Some(found) = context.partitions.topic_by_id(topic).and_then(|local| local.partition(index).cloned()) {
        return Ok(found);
    }
    match context.image().topic_by_id(topic).map(|topic| topic.partition(index).is_some()) {
        Some(true) => Err(ResponseError::NotLeaderOrFollower),
        Some(false) => Err(ResponseError::UnknownTopicOrPartition),
        None => Err(ResponseError::UnknownTopicId),
    }
}

/// Compares the leader epoch that a client knows (KIP-320; -1: none) with ours.
pub fn check_epoch(asked: i32, current: LeaderEpoch) -> Result<(), ResponseError> {
    match asked {
        -1 => Ok(()),
        epoch if epoch < current.0 => Err(ResponseError::FencedLeaderEpoch),
        epoch if epoch > current.0 => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
