//! What an operator does with groups: list, describe, look up and change committed offsets, delete.

use super::protocol::{self, Partitions};
use super::{TopicPartitionName, coordinator};
use crate::client::admin::{text, topic_name};
use crate::client::cluster::{Cluster, Target};
use crate::client::error::ClientError;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest, DescribeGroupsRequest,
    DescribeGroupsResponse, GroupId, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetFetchResponse, consumer_group_describe_response,
    describe_groups_response,
};
use std::collections::BTreeMap;

/// A group as a broker lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub group: String,
    /// `classic` or `consumer` (KIP-848); brokers before ListGroups 5 have classic ones alone.
    pub kind: String,
    /// None where the broker does not tell (before ListGroups 4).
    pub state: Option<String>,
    /// What its members are to each other, `consumer` for consumers; empty for a group without members that never had any.
    pub protocol_type: String,
    pub coordinator: i32,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    pub group: String,
    pub kind: String,
    pub state: String,
    pub protocol_type: String,
    /// Empty while there is none.
    pub assignor: String,
    pub coordinator: i32,
    pub members: Vec<MemberInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    pub assigned: Partitions,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// None where none was committed.
    pub leader_epoch: Option<i32>,
    pub metadata: String,
}

pub const CLASSIC: &str = "classic";
pub const CONSUMER: &str = "consumer";

/// States in which a group has no members (Dead: there is none).
pub const INACTIVE: [&str; 2] = ["Empty", "Dead"];

const LIST_STATES_SINCE: i16 = 4;
const LIST_TYPES_SINCE: i16 = 5;
const OFFSET_FETCH_BATCHED_SINCE: i16 = 8;
const LEAVE_REASON_SINCE: i16 = 5;
/// Of somebody who is no member: allowed while nobody is.
const NO_GENERATION: i32 = -1;
/// The broker's own `offsets.retention.minutes` decides.
const DEFAULT_RETENTION: i64 = -1;

/// All groups of all brokers, by name; `states` and `kinds` choose, and choose everything where they are empty.
pub fn list(cluster: &mut Cluster, states: &[String], kinds: &[String]) -> Result<Vec<ListedGroup>, ClientError> {
    let brokers: Vec<i32> = cluster.known().brokers.keys().copied().collect();
    let mut groups = Vec::new();
    for broker in brokers {
        let build = |version: i16| {
            let request = ListGroupsRequest::default();
            let request = match version {
                LIST_STATES_SINCE.. => request.with_states_filter(states.iter().map(|s| text(s)).collect()),
                _ => request,
            };
            match version {
                LIST_TYPES_SINCE.. => request.with_types_filter(kinds.iter().map(|k| text(k)).collect()),
                _ => request,
            }
        };
        let what = format!("groups of broker {broker}");
        let check = |answer: &kafka_protocol::messages::ListGroupsResponse| settled(&what, answer.error_code, None);
        let answer = cluster.call(Target::Broker(broker), build, check)?;
        groups.extend(answer.groups.into_iter().map(|group| ListedGroup {
            group: group.group_id.to_string(),
            kind: Some(group.group_type.to_lowercase()).filter(|kind| !kind.is_empty()).unwrap_or(CLASSIC.to_owned()),
            state: Some(group.group_state.to_string()).filter(|state| !state.is_empty()),
            protocol_type: group.protocol_type.to_string(),
            coordinator: broker,
        }));
    }
    // A broker that is too old to choose lists everything.
    let is_wanted = |group: &ListedGroup| {
        let is_state =
            |state: &String| group.state.as_ref().is_none_or(|of_group| of_group.eq_ignore_ascii_case(state));
        (states.is_empty() || states.iter().any(is_state))
            && (kinds.is_empty() || kinds.iter().any(|kind| kind.eq_ignore_ascii_case(&group.kind)))
    };
    groups.retain(is_wanted);
    groups.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(groups)
}

/// A group, of either protocol; GROUP_ID_NOT_FOUND where there is none.
pub fn describe(cluster: &mut Cluster, group: &str) -> Result<GroupInfo, ClientError> {
    match describe_new(cluster, group) {
        Ok(info) => Ok(info),
        // Of the classic protocol, or a broker that knows no other.
        Err(ClientError::Unsupported { .. }) => describe_classic(cluster, group),
        Err(error) if is_not_found(&error) || error.code() == Some(ResponseError::UnsupportedVersion) => {
            describe_classic(cluster, group)
        }
        Err(error) => Err(error),
    }
}

pub fn is_not_found(error: &ClientError) -> bool {
    error.code() == Some(ResponseError::GroupIdNotFound)
}

fn describe_classic(cluster: &mut Cluster, group: &str) -> Result<GroupInfo, ClientError> {
    let what = format!("group {group}");
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
    let check = |answer: &DescribeGroupsResponse| {
        let found = only(&answer.groups, &what)?;
        settled(&what, found.error_code, found.error_message.as_deref())
    };
    let (coordinator, answer) = coordinator::call(cluster, group, |_| request.clone(), check)?;
    let found = only(&answer.groups, &what)?;
    if &*found.group_state == "Dead" {
        return Err(ClientError::like(ResponseError::GroupIdNotFound, what, "it does not exist"));
    }
    let member = |member: &describe_groups_response::DescribedGroupMember| MemberInfo {
        member_id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_ref().map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: host(&member.client_host),
        // Members of other protocol types tell each other other things.
        assigned: protocol::partitions_of(&member.member_assignment).unwrap_or_default(),
    };
    Ok(GroupInfo {
        group: group.to_owned(),
        kind: CLASSIC.to_owned(),
        state: found.group_state.to_string(),
        protocol_type: found.protocol_type.to_string(),
        assignor: found.protocol_data.to_string(),
        coordinator,
        members: found.members.iter().map(member).collect(),
    })
}

fn describe_new(cluster: &mut Cluster, group: &str) -> Result<GroupInfo, ClientError> {
    let what = format!("group {group}");
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
    let check = |answer: &ConsumerGroupDescribeResponse| {
        let found = only(&answer.groups, &what)?;
        settled(&what, found.error_code, found.error_message.as_deref())
    };
    let (coordinator, answer) = coordinator::call(cluster, group, |_| request.clone(), check)?;
    let found = only(&answer.groups, &what)?;
    let member = |member: &consumer_group_describe_response::Member| {
        let mut assigned = Partitions::new();
        for topic in &member.assignment.topic_partitions {
            assigned.entry(topic.topic_name.to_string()).or_default().extend(&topic.partitions);
        }
        MemberInfo {
            member_id: member.member_id.to_string(),
            instance_id: member.instance_id.as_ref().map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: host(&member.client_host),
            assigned,
        }
    };
    Ok(GroupInfo {
        group: group.to_owned(),
        kind: CONSUMER.to_owned(),
        state: found.group_state.to_string(),
        protocol_type: CONSUMER.to_owned(),
        assignor: found.assignor_name.to_string(),
        coordinator,
        members: found.members.iter().map(member).collect(),
    })
}

/// Java puts a slash before an address that it did not look up.
fn host(client_host: &str) -> String {
    client_host.trim_start_matches('/').to_owned()
}

/// What a group has committed: all of it, or for these partitions. A group that does not exist has committed nothing.
pub fn committed(
    cluster: &mut Cluster,
    group: &str,
    only: Option<&[TopicPartitionName]>,
) -> Result<BTreeMap<TopicPartitionName, Committed>, ClientError> {
    let by_topic = only.map(by_topic);
    let build = |version: i16| match version {
        OFFSET_FETCH_BATCHED_SINCE.. => {
            let topics = by_topic.as_ref().map(|topics| {
                let topic = |(name, indexes): (&String, &Vec<i32>)| {
                    OffsetFetchRequestTopics::default()
                        .with_name(topic_name(name))
                        .with_partition_indexes(indexes.clone())
                };
                topics.iter().map(topic).collect()
            });
            let group = OffsetFetchRequestGroup::default().with_group_id(group_id(group)).with_topics(topics);
            OffsetFetchRequest::default().with_groups(vec![group])
        }
        _ => {
            let topics = by_topic.as_ref().map(|topics| {
                let topic = |(name, indexes): (&String, &Vec<i32>)| {
                    OffsetFetchRequestTopic::default()
                        .with_name(topic_name(name))
                        .with_partition_indexes(indexes.clone())
                };
                topics.iter().map(topic).collect()
            });
            OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(topics)
        }
    };
    let what = format!("offsets of group {group}");
    let check = |answer: &OffsetFetchResponse| {
        let code = answer.groups.first().map_or(answer.error_code, |group| group.error_code);
        settled(&what, code, None)?;
        fetched(answer).try_for_each(|(topic, index, code, _)| settled(&format!("{what}: {topic}-{index}"), code, None))
    };
    let (_, answer) = coordinator::call(cluster, group, build, check)?;
    let found = fetched(&answer).filter(|(_, _, _, committed)| committed.offset >= 0);
    Ok(found.map(|(topic, index, _, committed)| ((topic, index), committed)).collect())
}

/// What an answer says of each partition: topic, index, error code, what is committed.
fn fetched(answer: &OffsetFetchResponse) -> impl Iterator<Item = (String, i32, i16, Committed)> {
    let committed = |offset, epoch: i32, metadata: Option<&str>| Committed {
        offset,
        leader_epoch: Some(epoch).filter(|epoch| *epoch >= 0),
        metadata: metadata.unwrap_or_default().to_owned(),
    };
    let batched = answer.groups.iter().flat_map(|group| &group.topics).flat_map(move |topic| {
        topic.partitions.iter().map(move |p| {
            let committed = committed(p.committed_offset, p.committed_leader_epoch, p.metadata.as_deref());
            (topic.name.to_string(), p.partition_index, p.error_code, committed)
        })
    });
    let single = answer.topics.iter().flat_map(move |topic| {
        topic.partitions.iter().map(move |p| {
            let committed = committed(p.committed_offset, p.committed_leader_epoch, p.metadata.as_deref());
            (topic.name.to_string(), p.partition_index, p.error_code, committed)
        })
    });
    batched.chain(single)
}

/// What became of each partition of a request.
pub type Outcomes = BTreeMap<TopicPartitionName, Result<(), ClientError>>;

/// Commits offsets for a group that has no members.
pub fn alter_offsets(
    cluster: &mut Cluster,
    group: &str,
    offsets: &BTreeMap<TopicPartitionName, i64>,
) -> Result<Outcomes, ClientError> {
    let names: Vec<TopicPartitionName> = offsets.keys().cloned().collect();
    let topic = |(name, indexes): (String, Vec<i32>)| {
        let partition = |index: &i32| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(offsets[&(name.clone(), *index)])
                .with_committed_metadata(Some(text("")))
        };
        let partitions = indexes.iter().map(partition).collect();
        OffsetCommitRequestTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    let topics: Vec<OffsetCommitRequestTopic> = by_topic(&names).into_iter().map(topic).collect();
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(NO_GENERATION)
        .with_topics(topics);
    let build = |version: i16| match version {
        ..=4 => request.clone().with_retention_time_ms(DEFAULT_RETENTION),
        _ => request.clone(),
    };
    let what = |topic: &str, index: i32| format!("commit {topic}-{index} for group {group}");
    let passes = |code: i16| ResponseError::try_from_code(code).filter(is_of_the_coordinator).is_some();
    let check = |answer: &kafka_protocol::messages::OffsetCommitResponse| {
        let partitions = answer.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (&t.name, p)));
        for (topic, p) in partitions.filter(|(_, p)| passes(p.error_code)) {
            settled(&what(topic, p.partition_index), p.error_code, None)?;
        }
        Ok(())
    };
    let (_, answer) = coordinator::call(cluster, group, build, check)?;
    let told = answer.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.to_string(), p)));
    Ok(told.map(|(topic, p)| outcome((topic, p.partition_index), p.error_code, &what)).collect())
}

/// Forgets offsets of topics that nobody in the group reads (KIP-496).
pub fn delete_offsets(
    cluster: &mut Cluster,
    group: &str,
    partitions: &[TopicPartitionName],
) -> Result<Outcomes, ClientError> {
    let topic = |(name, indexes): (String, Vec<i32>)| {
        let partition = |index: i32| OffsetDeleteRequestPartition::default().with_partition_index(index);
        let partitions = indexes.into_iter().map(partition).collect();
        OffsetDeleteRequestTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    let topics: Vec<OffsetDeleteRequestTopic> = by_topic(partitions).into_iter().map(topic).collect();
    let request = OffsetDeleteRequest::default().with_group_id(group_id(group)).with_topics(topics);
    let what = |topic: &str, index: i32| format!("delete offset of {topic}-{index} in group {group}");
    let check = |answer: &kafka_protocol::messages::OffsetDeleteResponse| {
        settled(&format!("delete offsets of group {group}"), answer.error_code, None)
    };
    let (_, answer) = coordinator::call(cluster, group, |_| request.clone(), check)?;
    let told = answer.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.to_string(), p)));
    Ok(told.map(|(topic, p)| outcome((topic, p.partition_index), p.error_code, &what)).collect())
}

/// Deletes a group that has no members, with its offsets.
pub fn delete(cluster: &mut Cluster, group: &str) -> Result<(), ClientError> {
    let what = format!("delete group {group}");
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
    let check = |answer: &kafka_protocol::messages::DeleteGroupsResponse| {
        settled(&what, only(&answer.results, &what)?.error_code, None)
    };
    coordinator::call(cluster, group, |_| request.clone(), check).map(|_| ())
}

/// What became of each static member that was to be removed.
pub type Removals = Vec<(String, Result<(), ClientError>)>;

/// Removes static members, by their `group.instance.id` (KIP-345), in the order in which they are named. UNKNOWN_MEMBER_ID where the
/// group has none of that name, and for members of the new protocol where the broker is Kafka 3.9.
pub fn remove_static_members(
    cluster: &mut Cluster,
    group: &str,
    instances: &[String],
) -> Result<Removals, ClientError> {
    let what = format!("remove from group {group}");
    let member = |version: i16, instance: &String| {
        let member = MemberIdentity::default().with_group_instance_id(Some(text(instance)));
        match version {
            LEAVE_REASON_SINCE.. => member.with_reason(Some(text("removed by an operator"))),
            _ => member,
        }
    };
    let build = |version: i16| {
        let members = instances.iter().map(|instance| member(version, instance)).collect();
        LeaveGroupRequest::default().with_group_id(group_id(group)).with_members(members)
    };
    let check = |answer: &LeaveGroupResponse| settled(&what, answer.error_code, None);
    let (_, answer) = coordinator::call(cluster, group, build, check)?;
    let outcome = |instance: &String| {
        let told = answer.members.iter().find(|m| m.group_instance_id.as_deref() == Some(instance.as_str()));
        let result = match told {
            Some(told) => settled(&format!("{what}: {instance}"), told.error_code, None),
            None => Err(ClientError::Invalid(format!("{what}: {instance}: the broker's answer leaves it out"))),
        };
        (instance.clone(), result)
    };
    Ok(instances.iter().map(outcome).collect())
}

/// Errors of a partition that say that somebody else must be asked, or later.
fn is_of_the_coordinator(code: &ResponseError) -> bool {
    use ResponseError as E;
    matches!(code, E::NotCoordinator | E::CoordinatorNotAvailable | E::CoordinatorLoadInProgress)
}

fn outcome(
    of: TopicPartitionName,
    code: i16,
    what: &impl Fn(&str, i32) -> String,
) -> (TopicPartitionName, Result<(), ClientError>) {
    let result = settled(&what(&of.0, of.1), code, None);
    (of, result)
}

pub(super) fn by_topic(partitions: &[TopicPartitionName]) -> Partitions {
    let mut topics = Partitions::new();
    for (topic, index) in partitions {
        topics.entry(topic.clone()).or_default().push(*index);
    }
    topics
}

pub(super) fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

fn settled(what: &str, code: i16, message: Option<&str>) -> Result<(), ClientError> {
    ClientError::from_code(what, code, message).map_or(Ok(()), Err)
}

fn only<'a, T>(answers: &'a [T], what: &str) -> Result<&'a T, ClientError> {
    answers.first().ok_or_else(|| ClientError::Invalid(format!("{what}: the broker's answer is empty")))
}
