//! Consumer groups by the classic protocol: the life of a group in all versions, and what is refused on the way.

use super::{PLAIN, poll};
use crate::pair::{Pair, Side};
use crate::requests::{text, topic_name};
use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::{Request, StrBytes};

/// A consumer's subscription to the topic that all cases share, and an assignment of it, as clients write them.
pub const SUBSCRIPTION: &[u8] = b"\0\x01\0\0\0\x01\0\x05plain\xff\xff\xff\xff\0\0\0\0";
pub(super) const ASSIGNMENT: &[u8] = b"\0\x01\0\0\0\x01\0\x05plain\0\0\0\x01\0\0\0\0\xff\xff\xff\xff";
/// Of JoinGroup and of what goes with it.
pub(super) const NEWEST: i16 = 9;

/// Waits until both have a coordinator: Kafka makes its topic behind the answer.
pub fn prepare(pair: &mut Pair) -> Result<()> {
    let version = pair.newest::<FindCoordinatorRequest>();
    poll("a coordinator of groups", || {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("group")]);
        Ok(pair.exchange(version, |_| request.clone())?.all(|answer| answer.coordinators[0].error_code == 0))
    })?;
    let version = pair.newest::<HeartbeatRequest>();
    poll("a loaded coordinator", || {
        let answers = pair.exchange(version, |_| heartbeat("group", "nobody", 1))?;
        // Unknown member: the coordinator has looked.
        Ok(answers.all(|answer| answer.error_code == 25))
    })
}

pub fn script(pair: &mut Pair) -> Result<()> {
    for round in 0..=NEWEST {
        refusals(pair, round)?;
        life(pair, round)?;
    }
    Ok(())
}

/// The version of an API that a round takes: its own number, as far as both serve that.
pub(super) fn version_of<R: Request>(pair: &Pair, round: i16) -> i16 {
    let versions = pair.versions::<R>();
    round.clamp(*versions.start(), *versions.end())
}

fn refusals(pair: &mut Pair, round: i16) -> Result<()> {
    let group = format!("refused-{round}");
    let join_version = version_of::<JoinGroupRequest>(pair, round);
    pair.case("group-join-refused");
    pair.same(join_version, |_| join(&group, "nobody"))?;
    pair.same(join_version, |_| join("", ""))?;
    pair.same(join_version, |_| join(&group, "").with_session_timeout_ms(5_999))?;
    pair.same(join_version, |_| join(&group, "").with_session_timeout_ms(1_800_001))?;
    pair.same(join_version, |_| join(&group, "").with_protocols(Vec::new()))?;
    pair.same(join_version, |_| join(&group, "").with_protocol_type(text("")))?;

    pair.case("group-unknown");
    let version = version_of::<SyncGroupRequest>(pair, round);
    pair.same(version, |_| sync(version, &group, "nobody", 1))?;
    pair.same(version, |_| sync(version, "", "nobody", 1))?;
    let version = version_of::<HeartbeatRequest>(pair, round);
    pair.same(version, |_| heartbeat(&group, "nobody", 1))?;
    pair.same(version, |_| heartbeat("", "nobody", 1))?;
    let version = version_of::<LeaveGroupRequest>(pair, round);
    pair.same(version, |_| leave(version, &group, "nobody"))?;
    pair.same(version, |_| leave(version, "", "nobody"))?;
    let version = version_of::<OffsetCommitRequest>(pair, round);
    pair.same(version, |_| commit(&group, "nobody", 1, 5))?;
    let version = version_of::<OffsetFetchRequest>(pair, round);
    pair.same(version, |_| offsets(version, "never-heard-of", Some(&[0])))?;
    if version >= 2 {
        pair.same(version, |_| offsets(version, "never-heard-of", None))?;
    }
    let version = version_of::<DescribeGroupsRequest>(pair, round);
    pair.same(version, |_| describe("never-heard-of"))?;
    let version = version_of::<DeleteGroupsRequest>(pair, round);
    pair.same(version, |_| delete("never-heard-of"))?;
    let version = version_of::<OffsetDeleteRequest>(pair, round);
    pair.same(version, |_| delete_offset("never-heard-of", PLAIN))?;
    Ok(())
}

fn life(pair: &mut Pair, round: i16) -> Result<()> {
    let group = format!("life-{round}");
    let join_version = version_of::<JoinGroupRequest>(pair, round);
    pair.case("group-join");
    let answers = pair.same(join_version, |_| join(&group, ""))?;
    let mut ids = answers.each(|answer| answer.member_id.to_string());
    if join_version >= 4 {
        // The first answer only told the id.
        let answers = pair.same(join_version, |side| join(&group, &ids[side.index]))?;
        ids = answers.each(|answer| answer.member_id.to_string());
    }
    let id = |side: &Side| ids[side.index].clone();

    pair.case("group-completing");
    pair.same(join_version, |side| join(&group, &id(side)))?;
    let beat_version = version_of::<HeartbeatRequest>(pair, round);
    pair.same(beat_version, |side| heartbeat(&group, &id(side), 1))?;
    let commit_version = version_of::<OffsetCommitRequest>(pair, round);
    pair.same(commit_version, |side| commit(&group, &id(side), 1, 5))?;
    let describe_version = version_of::<DescribeGroupsRequest>(pair, round);
    pair.same(describe_version, |_| describe(&group))?;
    let sync_version = version_of::<SyncGroupRequest>(pair, round);
    pair.same(sync_version, |side| sync(sync_version, &group, &id(side), 2))?;
    if sync_version >= 5 {
        pair.same(sync_version, |side| {
            sync(sync_version, &group, &id(side), 1).with_protocol_name(Some(text("sticky")))
        })?;
        pair.same(sync_version, |side| sync(sync_version, &group, &id(side), 1).with_protocol_name(None))?;
    }
    pair.same(sync_version, |side| sync(sync_version, &group, &id(side), 1))?;

    pair.case("group-stable");
    pair.same(sync_version, |side| sync(sync_version, &group, &id(side), 1))?;
    pair.same(beat_version, |side| heartbeat(&group, &id(side), 1))?;
    pair.same(beat_version, |side| heartbeat(&group, &id(side), 2))?;
    pair.same(beat_version, |side| heartbeat(&group, &id(side), -1))?;
    pair.same(describe_version, |_| describe(&group))?;
    pair.same(commit_version, |side| commit(&group, &id(side), 1, 7))?;
    pair.same(commit_version, |side| commit(&group, &id(side), 2, 8))?;
    pair.same(commit_version, |_| commit(&group, "nobody", 1, 8))?;
    pair.same(commit_version, |_| commit(&group, "", -1, 8))?;
    let long = "x".repeat(4097);
    pair.same(commit_version, |side| {
        let mut request = commit(&group, &id(side), 1, 7);
        request.topics[0].partitions[0].committed_metadata = Some(text(&long));
        request
    })?;
    let fetch_version = version_of::<OffsetFetchRequest>(pair, round);
    pair.same(fetch_version, |_| offsets(fetch_version, &group, Some(&[0, 1])))?;
    if fetch_version >= 2 {
        pair.same(fetch_version, |_| offsets(fetch_version, &group, None))?;
    }
    let delete_version = version_of::<DeleteGroupsRequest>(pair, round);
    pair.same(delete_version, |_| delete(&group))?;
    let offset_version = version_of::<OffsetDeleteRequest>(pair, round);
    pair.same(offset_version, |_| delete_offset(&group, PLAIN))?;
    pair.same(offset_version, |_| delete_offset(&group, "nobody"))?;
    pair.same(join_version, |_| join(&group, "").with_protocol_type(text("connect")))?;
    let list_version = version_of::<ListGroupsRequest>(pair, round);
    pair.same(list_version, |_| ListGroupsRequest::default())?;
    if list_version >= 4 {
        for state in ["Stable", "stable", "Empty", "nonsense"] {
            pair.same(list_version, |_| ListGroupsRequest::default().with_states_filter(vec![text(state)]))?;
        }
    }

    pair.case("group-leave");
    let leave_version = version_of::<LeaveGroupRequest>(pair, round);
    pair.same(leave_version, |_| leave(leave_version, &group, "nobody"))?;
    pair.same(leave_version, |side| leave(leave_version, &group, &id(side)))?;
    pair.same(beat_version, |side| heartbeat(&group, &id(side), 1))?;
    pair.same(describe_version, |_| describe(&group))?;
    pair.same(commit_version, |_| commit(&group, "", -1, 9))?;
    pair.same(fetch_version, |_| offsets(fetch_version, &group, Some(&[0])))?;
    pair.same(offset_version, |_| delete_offset(&group, PLAIN))?;
    pair.same(fetch_version, |_| offsets(fetch_version, &group, Some(&[0])))?;
    pair.same(delete_version, |_| delete(&group))?;
    pair.same(delete_version, |_| delete(&group))?;
    pair.same(describe_version, |_| describe(&group))?;
    Ok(())
}

pub fn id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

pub(super) fn join(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = |name| {
        JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(Bytes::from_static(SUBSCRIPTION))
    };
    JoinGroupRequest::default()
        .with_group_id(id(group))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range"), protocol("roundrobin")])
}

pub(super) fn sync(version: i16, group: &str, member: &str, generation: i32) -> SyncGroupRequest {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text(member))
        .with_assignment(Bytes::from_static(ASSIGNMENT));
    let named = |name| (version >= 5).then(|| text(name));
    SyncGroupRequest::default()
        .with_group_id(id(group))
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_protocol_type(named("consumer"))
        .with_protocol_name(named("range"))
        .with_assignments(vec![assignment])
}

pub(super) fn heartbeat(group: &str, member: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(id(group)).with_generation_id(generation).with_member_id(text(member))
}

pub(super) fn leave(version: i16, group: &str, member: &str) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(id(group));
    match version >= 3 {
        true => request.with_members(vec![MemberIdentity::default().with_member_id(text(member))]),
        false => request.with_member_id(text(member)),
    }
}

/// Commits for the first partition of the shared topic, and for one that is not there.
pub(super) fn commit(group: &str, member: &str, generation: i32, offset: i64) -> OffsetCommitRequest {
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("note")))
    };
    let topic = |name, partitions: &[i32]| {
        let partitions = partitions.iter().map(|index| partition(*index)).collect();
        OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    };
    OffsetCommitRequest::default()
        .with_group_id(id(group))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![topic(PLAIN, &[0, 9_999]), topic("nobody", &[0])])
}

pub(super) fn offsets(version: i16, group: &str, partitions: Option<&[i32]>) -> OffsetFetchRequest {
    if version >= 8 {
        let topic = |partitions: &[i32]| {
            OffsetFetchRequestTopics::default().with_name(topic_name(PLAIN)).with_partition_indexes(partitions.to_vec())
        };
        let group = OffsetFetchRequestGroup::default().with_group_id(id(group)).with_member_epoch(-1);
        let group = group.with_topics(partitions.map(|partitions| vec![topic(partitions)]));
        return OffsetFetchRequest::default().with_groups(vec![group]);
    }
    let topic = |partitions: &[i32]| {
        OffsetFetchRequestTopic::default().with_name(topic_name(PLAIN)).with_partition_indexes(partitions.to_vec())
    };
    OffsetFetchRequest::default()
        .with_group_id(id(group))
        .with_topics(partitions.map(|partitions| vec![topic(partitions)]))
}

pub(super) fn describe(group: &str) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(vec![id(group)])
}

pub(super) fn delete(group: &str) -> DeleteGroupsRequest {
    DeleteGroupsRequest::default().with_groups_names(vec![id(group)])
}

pub(super) fn delete_offset(group: &str, topic: &str) -> OffsetDeleteRequest {
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let topic = OffsetDeleteRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    OffsetDeleteRequest::default().with_group_id(id(group)).with_topics(vec![topic])
}
