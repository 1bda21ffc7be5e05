//! OffsetFetch (key 9).
//!
//! Versions: 1-9. From 2 on all of a group's offsets may be asked for, from 8 on many groups at once (KIP-709). An offset that was never
//! committed is -1 and no error, that of an unknown group too. `require_stable` (7, KIP-447) changes nothing: there are no
//! transactions that could be open. From 9 on a member may say who it is, and is
//! refused if it is not any more (KIP-848). An answer that is full refuses further groups with MESSAGE_TOO_LARGE. Where there is no
//! coordinator the answer is NOT_COORDINATOR: to Java's consumers before 3.9 the other code is the end, as Kafka's own source says.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{Room, distinct, slice_of, text};
use crate::group::coordinator::GroupView;
use crate::group::records::CommittedOffset;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

pub const SERVED: Served = Served { key: 9, advertised_min: 1, accepted_min: 1, max: 9, handle };

const BATCHED_SINCE: i16 = 8;
/// Before, an error of all is told for each partition.
const TOP_LEVEL_ERROR_SINCE: i16 = 2;

/// Which partitions: None for all that the group has.
type Wanted = Option<Vec<(TopicName, Vec<i32>)>>;
/// By topic, each partition with what was committed.
type Found = Vec<(TopicName, Vec<(i32, Option<CommittedOffset>)>)>;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: OffsetFetchRequest| {
        if info.version >= BATCHED_SINCE {
            let mut room = Room::new();
            let groups = distinct(request.groups, |group| group.group_id.clone()).map(|group| {
                let wanted = group.topics.map(|topics| each_once(topics, |t| (t.name, t.partition_indexes)));
                let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
                let claim = (group.member_id.as_deref(), group.member_epoch);
                let refused = |error: ResponseError| answer.clone().with_error_code(error.code());
                let found = || match find(context, &group.group_id, claim, wanted) {
                    Ok(found) => answer.clone().with_topics(found.into_iter().map(batched).collect()),
                    Err(error) => refused(error),
                };
                room.part(info.version, found, refused)
            });
            return info.reply(&OffsetFetchResponse::default().with_groups(groups.collect()));
        }
        let wanted = request.topics.map(|topics| each_once(topics, |t| (t.name, t.partition_indexes)));
        let response = OffsetFetchResponse::default();
        info.reply(&match find(context, &request.group_id, (None, -1), wanted.clone()) {
            Ok(found) => response.with_topics(found.into_iter().map(|topic| single(topic, None)).collect()),
            Err(error) if info.version >= TOP_LEVEL_ERROR_SINCE => response.with_error_code(error.code()),
            Err(error) => {
                let none = |(name, indexes): (TopicName, Vec<i32>)| {
                    single((name, indexes.into_iter().map(|index| (index, None)).collect()), Some(error))
                };
                response.with_topics(wanted.unwrap_or_default().into_iter().map(none).collect())
            }
        })
    })
}

/// Topics and partitions in the order of the request, each once as in Kafka's own answer.
fn each_once<T>(topics: Vec<T>, parts: impl Fn(T) -> (TopicName, Vec<i32>)) -> Vec<(TopicName, Vec<i32>)> {
    let mut places: HashMap<TopicName, usize> = HashMap::new();
    let mut seen: HashSet<(usize, i32)> = HashSet::new();
    let mut once: Vec<(TopicName, Vec<i32>)> = Vec::new();
    for (name, indexes) in topics.into_iter().map(parts) {
        let place = *places.entry(name.clone()).or_insert(once.len());
        if place == once.len() {
            once.push((name, Vec::new()));
        }
        once[place].1.extend(indexes.into_iter().filter(|index| seen.insert((place, *index))));
    }
    once
}

fn find(
    context: &ShardContext,
    group: &str,
    (member_id, epoch): (Option<&str>, i32),
    wanted: Wanted,
) -> Result<Found, ResponseError> {
    let slice = slice_of(context, group, true).map_err(|error| match error {
        ResponseError::CoordinatorNotAvailable => ResponseError::NotCoordinator,
        error => error,
    })?;
    let may = |view: GroupView<'_>| view.kind.consumer().map_or(Ok(()), |group| group.may_fetch(member_id, epoch));
    slice.view(group, may).unwrap_or(Ok(()))?;
    let found = slice.view(group, |view| match &wanted {
        Some(topics) => {
            let topic = |(name, indexes): &(TopicName, Vec<i32>)| {
                let of = |index: &i32| (*index, view.offsets.get(name, *index).cloned());
                (name.clone(), indexes.iter().map(of).collect())
            };
            topics.iter().map(topic).collect()
        }
        None => {
            let mut all: BTreeMap<&str, Vec<(i32, Option<CommittedOffset>)>> = BTreeMap::new();
            for ((topic, index), committed) in view.offsets.iter() {
                all.entry(topic).or_default().push((*index, Some(committed.clone())));
            }
            all.into_iter().map(|(topic, partitions)| (TopicName(text(topic)), partitions)).collect()
        }
    });
    let nothing = |topics: Vec<(TopicName, Vec<i32>)>| {
        topics
            .into_iter()
            .map(|(name, indexes)| (name, indexes.into_iter().map(|index| (index, None)).collect()))
            .collect()
    };
    Ok(found.unwrap_or_else(|| wanted.map(nothing).unwrap_or_default()))
}

/// Offset, leader epoch and metadata as they are told.
fn told(committed: &Option<CommittedOffset>) -> (i64, i32, Option<StrBytes>) {
    match committed {
        Some(committed) => (committed.offset, committed.leader_epoch, Some(text(&committed.metadata))),
        None => (-1, -1, Some(StrBytes::default())),
    }
}

fn single(
    (name, partitions): (TopicName, Vec<(i32, Option<CommittedOffset>)>),
    error: Option<ResponseError>,
) -> OffsetFetchResponseTopic {
    let partition = |(index, committed): (i32, Option<CommittedOffset>)| {
        let (offset, epoch, metadata) = told(&committed);
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(metadata)
            .with_error_code(super::code(error))
    };
    let partitions = partitions.into_iter().map(partition).collect();
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
}

fn batched((name, partitions): (TopicName, Vec<(i32, Option<CommittedOffset>)>)) -> OffsetFetchResponseTopics {
    let partition = |(index, committed): (i32, Option<CommittedOffset>)| {
        let (offset, epoch, metadata) = told(&committed);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(metadata)
    };
    let partitions = partitions.into_iter().map(partition).collect();
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 400,000 times the same partition, with 4 KB of metadata each, was an answer of gigabytes.
    #[test]
    fn each_partition_is_told_once() {
        let name = |name: &'static str| TopicName(StrBytes::from_static_str(name));
        let asked =
            vec![(name("b"), vec![1; 400_000]), (name("a"), vec![]), (name("b"), vec![2, 1]), (name("a"), vec![1])];
        assert_eq!(each_once(asked, |topic| topic), [(name("b"), vec![1, 2]), (name("a"), vec![1])]);
        assert_eq!(distinct(vec![3, 1, 3], |one| *one).collect::<Vec<_>>(), [3, 1]);
    }
}
