//! OffsetDelete (key 47), version 0 (KIP-496): forgets offsets of topics that no member of the group has subscribed to.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{code, slice_of};
use crate::base::ids::PartitionIndex;
use crate::group::classic::{CONSUMER, State};
use crate::group::coordinator::{GroupView, subscribed};
use crate::group::offsets::TopicPartitionName;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use std::collections::HashSet;
use std::rc::Rc;

pub const SERVED: Served = Served { key: 47, advertised_min: 0, accepted_min: 0, max: 0, handle };

/// Topics whose offsets are in use; None: all of them.
type InUse = Option<HashSet<String>>;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: OffsetDeleteRequest| {
        let slice = slice_of(context, &request.group_id, false);
        let judged = slice.and_then(|slice| {
            let in_use =
                slice.view(&request.group_id, |view| in_use(&view)).ok_or(ResponseError::GroupIdNotFound)??;
            Ok((slice, in_use))
        });
        let (slice, in_use) = match judged {
            Ok(judged) => judged,
            Err(error) => return info.reply(&OffsetDeleteResponse::default().with_error_code(error.code())),
        };
        let mut going: Vec<TopicPartitionName> = Vec::new();
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let exists = context.exists(&topic.name, PartitionIndex(index));
                let is_used = in_use.as_ref().is_none_or(|topics| topics.contains(topic.name.as_str()));
                let error = match (exists, is_used) {
                    (false, _) => Some(ResponseError::UnknownTopicOrPartition),
                    (true, true) => Some(ResponseError::GroupSubscribedToTopic),
                    (true, false) => None,
                };
                if error.is_none() {
                    going.push((topic.name.to_string(), index));
                }
                OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code(error))
            });
            OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        let response = OffsetDeleteResponse::default().with_topics(topics.collect());
        let stored = slice.delete_offsets(&request.group_id, &going);
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            match stored.done().await {
                Ok(_) => info.answer(&response),
                Err(error) => info.answer(&OffsetDeleteResponse::default().with_error_code(error.code())),
            }
        }))
    })
}

fn in_use(view: &GroupView<'_>) -> Result<InUse, ResponseError> {
    let Some(group) = view.kind.classic() else { return Ok(subscribed(view.kind)) };
    match (group.state(), group.protocol_type()) {
        (State::Dead, _) => Err(ResponseError::GroupIdNotFound),
        (State::Empty, _) => Ok(Some(HashSet::new())),
        (_, Some(CONSUMER)) => Ok(subscribed(view.kind)),
        _ => Err(ResponseError::NonEmptyGroup),
    }
}
