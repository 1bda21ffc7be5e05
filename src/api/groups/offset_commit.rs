//! OffsetCommit (key 8).
//!
//! Versions: 2-9. The answer comes when the offsets are as safe as acks=all promises. A retention time of the client's (2 to 4) is kept with
//! its offsets (KIP-211); from 6 on leader epochs are kept with them, from 7 on members may be static, from 9 on of the new protocol (KIP-848).
//! A request of which nothing can be taken is answered without asking the group, which would begin with it; as in Kafka, which asks it only
//! where a note is too long.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{claim, slice_of};
use crate::base::clock::now_ms;
use crate::base::ids::PartitionIndex;
use crate::group::offsets::TopicPartitionName;
use crate::group::records::CommittedOffset;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;

pub const SERVED: Served = Served { key: 8, advertised_min: 2, accepted_min: 2, max: 9, handle };

const MEMBER_EPOCH_SINCE: i16 = 9;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: OffsetCommitRequest| {
        let mut taken = Vec::new();
        let mut answers: Vec<Vec<Option<ResponseError>>> = Vec::new();
        for topic in &request.topics {
            let judge = |partition| {
                let error = fault(context, &topic.name, partition);
                if error.is_none() {
                    taken.push(commit_of(&request, topic, partition));
                }
                error
            };
            answers.push(topic.partitions.iter().map(judge).collect());
        }
        if taken.is_empty() {
            return info.reply(&response(&request.topics, &answers, None));
        }
        let storing = slice_of(context, &request.group_id, true).and_then(|slice| {
            let instance_id = request.group_instance_id.as_ref();
            let claim = claim(request.generation_id_or_member_epoch, &request.member_id, instance_id);
            slice.commit(&request.group_id, (&claim, info.version >= MEMBER_EPOCH_SINCE), taken)
        });
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            let stored = match storing {
                Ok(storing) => storing.await,
                Err(error) => {
                    // The group is asked before notes are measured; about a topic that nobody knows it is not asked.
                    let asked =
                        |fault: &&mut Option<ResponseError>| **fault != Some(ResponseError::UnknownTopicOrPartition);
                    answers.iter_mut().flatten().filter(asked).for_each(|fault| *fault = Some(error));
                    Err(error)
                }
            };
            info.answer(&response(&request.topics, &answers, stored.err()))
        }))
    })
}

/// Why this one cannot be committed.
fn fault(context: &ShardContext, topic: &str, partition: &OffsetCommitRequestPartition) -> Option<ResponseError> {
    let metadata = partition.committed_metadata.as_ref().map_or(0, |metadata| metadata.len());
    if !context.exists(topic, PartitionIndex(partition.partition_index)) {
        Some(ResponseError::UnknownTopicOrPartition)
    } else if metadata > context.groups.metadata_bytes_max() {
        Some(ResponseError::OffsetMetadataTooLarge)
    } else {
        None
    }
}

fn commit_of(
    request: &OffsetCommitRequest,
    topic: &OffsetCommitRequestTopic,
    partition: &OffsetCommitRequestPartition,
) -> (TopicPartitionName, CommittedOffset) {
    let committed_ms = now_ms();
    let retention_ms = Some(request.retention_time_ms).filter(|ms| *ms >= 0);
    let committed = CommittedOffset {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.as_ref().map(StrBytes::to_string).unwrap_or_default(),
        committed_ms,
        expires_ms: retention_ms.map(|ms| committed_ms.saturating_add(ms)),
    };
    ((topic.name.to_string(), partition.partition_index), committed)
}

fn response(
    topics: &[OffsetCommitRequestTopic],
    faults: &[Vec<Option<ResponseError>>],
    error: Option<ResponseError>,
) -> OffsetCommitResponse {
    let answer = |(topic, faults): (&OffsetCommitRequestTopic, &Vec<Option<ResponseError>>)| {
        let partitions = topic.partitions.iter().zip(faults).map(|(partition, fault)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(super::code(fault.or(error)))
        });
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    };
    OffsetCommitResponse::default().with_topics(topics.iter().zip(faults).map(answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{Broker, add_topic, frame, image};
    use kafka_protocol::messages::{GroupId, TopicName};

    /// It made a group, which ListGroups showed.
    #[test]
    fn what_takes_nothing_is_answered_without_a_group() {
        let mut image = image(1);
        add_topic(&mut image, "t", &[0]);
        let broker = Broker::with(image);
        let name = |name: &'static str| TopicName(StrBytes::from_static_str(name));
        let partition = |index, note: &str| {
            let note = StrBytes::from_string(note.to_owned());
            OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_metadata(Some(note))
        };
        let topic =
            |topic, partitions| OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(partitions);
        let ask = |topics: Vec<OffsetCommitRequestTopic>| {
            let group = GroupId(StrBytes::from_static_str("g"));
            let request = OffsetCommitRequest::default().with_group_id(group).with_topics(topics);
            // At once: nobody is waited for, though no coordinator is there.
            let answer: OffsetCommitResponse = broker.decode_reply(8, broker.dispatch(frame(8, &request)));
            let codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code);
            codes.collect::<Vec<_>>()
        };
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(ask(vec![topic("gone", vec![partition(0, "")]), topic("t", vec![partition(7, "")])]), [unknown; 2]);
        let too_large = ResponseError::OffsetMetadataTooLarge.code();
        assert_eq!(ask(vec![topic("t", vec![partition(0, &"x".repeat(5000))])]), [too_large]);
        assert_eq!(ask(Vec::new()), [0; 0]);
    }
}
