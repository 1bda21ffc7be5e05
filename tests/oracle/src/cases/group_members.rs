//! Consumer groups by the classic protocol with several members: what each is told while others come, go and are late.

use super::groups::{
    ASSIGNMENT, NEWEST, SUBSCRIPTION, commit, delete, delete_offset, describe, heartbeat, id, join, leave, offsets,
    sync, version_of,
};
use super::{PLAIN, poll};
use crate::pair::{Pair, Pending};
use crate::requests::{text, topic_name};
use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};
use std::thread::sleep;
use std::time::Duration;

const REBALANCE_IN_PROGRESS: i16 = 27;
/// From here on a member is told its id before it may join.
const ID_FIRST_SINCE: i16 = 4;
/// From here on a member tells how long a rebalance may take.
const REBALANCE_TIMEOUT_SINCE: i16 = 1;

/// The last byte of the partition in an assignment.
const PARTITION_AT: usize = 20;

/// What each side calls one member.
pub type Ids = [String; 2];

/// The versions of one round.
#[derive(Clone, Copy)]
pub struct Versions {
    pub join: i16,
    pub sync: i16,
    pub heartbeat: i16,
    pub leave: i16,
    pub commit: i16,
    pub describe: i16,
}

impl Versions {
    pub fn of(pair: &Pair, round: i16) -> Versions {
        Versions {
            join: version_of::<JoinGroupRequest>(pair, round),
            sync: version_of::<SyncGroupRequest>(pair, round),
            heartbeat: version_of::<HeartbeatRequest>(pair, round),
            leave: version_of::<LeaveGroupRequest>(pair, round),
            commit: version_of::<OffsetCommitRequest>(pair, round),
            describe: version_of::<DescribeGroupsRequest>(pair, round),
        }
    }
}

/// Sends a newcomer's join, on its own connection, behind the answer that told its id where there is one.
pub fn begin(
    pair: &mut Pair,
    connection: u32,
    version: i16,
    request: &JoinGroupRequest,
) -> Result<Pending<JoinGroupRequest>> {
    let mut ids = Ids::default();
    if version >= ID_FIRST_SINCE && request.group_instance_id.is_none() {
        ids = pair.same(version, |_| request.clone())?.each(|answer| answer.member_id.to_string());
    }
    pair.start(connection, version, |side| request.clone().with_member_id(text(&ids[side.index])))
}

/// Has these members join one after the other, the others with each of them: as many generations as members, the last one not synced. Each
/// uses the connection of its number; the first one leads.
pub fn gather(pair: &mut Pair, versions: Versions, members: &[JoinGroupRequest]) -> Result<Vec<Ids>> {
    let mut ids: Vec<Ids> = Vec::new();
    for (number, newcomer) in members.iter().enumerate() {
        let newest = begin(pair, number as u32, versions.join, newcomer)?;
        if let Some(first) = ids.first() {
            await_rebalance(pair, &newcomer.group_id, first, number as i32)?;
        }
        let others = rejoin(pair, versions.join, &members[..number], &ids)?;
        ids.push(joined(pair, newest)?);
        for pending in others.into_iter().rev() {
            joined(pair, pending)?;
        }
    }
    Ok(ids)
}

/// Sends the joins of those who are members.
pub fn rejoin(
    pair: &mut Pair,
    version: i16,
    members: &[JoinGroupRequest],
    ids: &[Ids],
) -> Result<Vec<Pending<JoinGroupRequest>>> {
    let each = members.iter().zip(ids).enumerate();
    each.map(|(number, (member, ids))| {
        pair.start(number as u32, version, |side| member.clone().with_member_id(text(&ids[side.index])))
    })
    .collect()
}

pub fn joined(pair: &mut Pair, pending: Pending<JoinGroupRequest>) -> Result<Ids> {
    Ok(pair.finish(pending, None)?.each(|answer| answer.member_id.to_string()))
}

/// Until both have taken what begins a rebalance, which is on a connection of its own.
pub fn await_rebalance(pair: &mut Pair, group: &str, ids: &Ids, generation: i32) -> Result<()> {
    let version = pair.newest::<HeartbeatRequest>();
    poll("a rebalance", || {
        let answers = pair.exchange(version, |side| heartbeat(group, &ids[side.index], generation))?;
        Ok(answers.all(|answer| answer.error_code == REBALANCE_IN_PROGRESS))
    })
}

/// What the leader hands out: something else to each.
pub fn sync_all(
    version: i16,
    group: &str,
    leader: usize,
    ids: &[Ids],
    index: usize,
    generation: i32,
) -> SyncGroupRequest {
    let assignment = |(number, ids): (usize, &Ids)| {
        let mut bytes = ASSIGNMENT.to_vec();
        *bytes.get_mut(PARTITION_AT).expect("a byte of the assignment") = number as u8;
        SyncGroupRequestAssignment::default().with_member_id(text(&ids[index])).with_assignment(Bytes::from(bytes))
    };
    sync(version, group, &ids[leader][index], generation)
        .with_assignments(ids.iter().enumerate().map(assignment).collect())
}

/// Everybody syncs, the first one last.
pub fn sync_group(pair: &mut Pair, versions: Versions, group: &str, ids: &[Ids], generation: i32) -> Result<()> {
    let version = versions.sync;
    let follow = |(number, ids): (usize, &Ids)| {
        pair.start(number as u32, version, |side| {
            sync(version, group, &ids[side.index], generation).with_assignments(Vec::new())
        })
    };
    let followers: Vec<Pending<SyncGroupRequest>> =
        ids.iter().enumerate().skip(1).map(follow).collect::<Result<_>>()?;
    pair.same(version, |side| sync_all(version, group, 0, ids, side.index, generation))?;
    for pending in followers {
        pair.finish(pending, None)?;
    }
    Ok(())
}

pub fn several(pair: &mut Pair) -> Result<()> {
    for round in 0..=NEWEST {
        two(pair, round)?;
        full(pair, round)?;
    }
    full_and_rebalancing(pair)
}

fn two(pair: &mut Pair, round: i16) -> Result<()> {
    let (group, versions) = (format!("two-{round}"), Versions::of(pair, round));
    pair.case("group-two");
    let member = join(&group, "");
    let members = [member.clone(), member.with_protocols(vec![protocol("roundrobin", SUBSCRIPTION)])];
    let first = gather(pair, versions, &members[..1])?;
    sync_group(pair, versions, &group, &first, 1)?;
    let newest = begin(pair, 1, versions.join, &members[1])?;
    await_rebalance(pair, &group, &first[0], 1)?;
    pair.case("group-two-preparing");
    asked_meanwhile(pair, versions, &group, &first[0], 1)?;
    pair.same(versions.sync, |side| sync(versions.sync, &group, &first[0][side.index], 1))?;
    pair.same(versions.join, |_| join(&group, "").with_protocols(vec![protocol("other", SUBSCRIPTION)]))?;
    let old = rejoin(pair, versions.join, &members[..1], &first)?;
    let mut ids = first;
    ids.push(joined(pair, newest)?);
    for pending in old {
        joined(pair, pending)?;
    }
    pair.case("group-two-completing");
    asked_meanwhile(pair, versions, &group, &ids[1], 2)?;
    // Its answer was lost.
    let again = |number: usize| members[number].clone();
    pair.same(versions.join, |side| again(1).with_member_id(text(&ids[1][side.index])))?;
    sync_group(pair, versions, &group, &ids, 2)?;
    pair.case("group-two-stable");
    asked_meanwhile(pair, versions, &group, &ids[1], 2)?;
    pair.same(versions.sync, |side| sync(versions.sync, &group, &ids[1][side.index], 2).with_assignments(Vec::new()))?;
    pair.same(versions.join, |side| again(1).with_member_id(text(&ids[1][side.index])))?;
    pair.same(versions.join, |_| join(&group, "").with_protocols(vec![protocol("range", SUBSCRIPTION)]))?;
    // A follower with another subscription wants another assignment, and waits for the leader.
    let other = again(1).with_protocols(vec![protocol("roundrobin", b"other")]);
    let waiting = pair.start(1, versions.join, |side| other.clone().with_member_id(text(&ids[1][side.index])))?;
    await_rebalance(pair, &group, &ids[0], 2)?;
    // The leader goes meanwhile, and the other one is all that there is.
    pair.case("group-two-left");
    pair.same(versions.leave, |side| leave(versions.leave, &group, &ids[0][side.index]))?;
    joined(pair, waiting)?;
    asked_meanwhile(pair, versions, &group, &ids[1], 3)?;
    pair.same(versions.heartbeat, |side| heartbeat(&group, &ids[0][side.index], 2))?;
    let version = versions.sync;
    pair.same(version, |side| {
        let request = sync(version, &group, &ids[1][side.index], 3);
        if version >= 5 { request.with_protocol_name(Some(text("roundrobin"))) } else { request }
    })?;
    pair.same(versions.leave, |side| leave(versions.leave, &group, &ids[1][side.index]))?;
    pair.same(versions.describe, |_| describe(&group)).map(drop)
}

/// What is answered to a member, and to those who ask about the group, in whatever state it is. Nothing of it changes the state.
fn asked_meanwhile(pair: &mut Pair, versions: Versions, group: &str, ids: &Ids, generation: i32) -> Result<()> {
    pair.same(versions.heartbeat, |side| heartbeat(group, &ids[side.index], generation))?;
    pair.same(versions.heartbeat, |side| heartbeat(group, &ids[side.index], generation - 1))?;
    pair.same(versions.heartbeat, |_| heartbeat(group, "nobody", generation))?;
    pair.same(versions.commit, |side| commit(group, &ids[side.index], generation, 5))?;
    pair.same(versions.commit, |side| commit(group, &ids[side.index], generation - 1, 5))?;
    pair.same(versions.commit, |_| commit(group, "nobody", generation, 5))?;
    pair.same(versions.commit, |_| commit(group, "", -1, 5))?;
    pair.same(versions.sync, |side| sync(versions.sync, group, &ids[side.index], generation - 1))?;
    pair.same(versions.sync, |_| sync(versions.sync, group, "nobody", generation))?;
    pair.same(versions.leave, |_| leave(versions.leave, group, "nobody"))?;
    pair.same(versions.describe, |_| describe(group))?;
    if versions.describe >= 3 {
        let mut both = describe(group).with_include_authorized_operations(true);
        both.groups.push(id("never-heard-of"));
        pair.same(versions.describe, |_| both.clone())?;
    }
    let version = pair.newest::<ListGroupsRequest>();
    for state in ["PreparingRebalance", "CompletingRebalance", "Stable", "Empty"] {
        pair.same(version, |_| ListGroupsRequest::default().with_states_filter(vec![text(state)]))?;
    }
    let version = pair.newest::<OffsetFetchRequest>();
    pair.same(version, |_| offsets(version, group, None).with_require_stable(true))?;
    let version = pair.newest::<DeleteGroupsRequest>();
    pair.same(version, |_| delete(group))?;
    let version = pair.newest::<OffsetDeleteRequest>();
    pair.same(version, |_| delete_offset(group, PLAIN)).map(drop)
}

/// As many members as `group.max.size` allows, and one more.
fn full(pair: &mut Pair, round: i16) -> Result<()> {
    let (group, versions) = (format!("full-{round}"), Versions::of(pair, round));
    pair.case("group-full");
    let members = vec![join(&group, ""); 3];
    let ids = gather(pair, versions, &members)?;
    pair.same(versions.join, |_| join(&group, ""))?;
    sync_group(pair, versions, &group, &ids, 3)?;
    pair.same(versions.join, |_| join(&group, ""))?;
    pair.same(versions.join, |side| join(&group, &ids[1][side.index]))?;
    pair.same(versions.describe, |_| describe(&group))?;
    if versions.leave >= 3 {
        batch(pair, versions, &group, &ids)?;
        return Ok(());
    }
    for ids in &ids {
        pair.same(versions.leave, |side| leave(versions.leave, &group, &ids[side.index]))?;
    }
    pair.same(versions.describe, |_| describe(&group)).map(drop)
}

/// In a rebalance of a full group the places belong to those who come first, members or not.
fn full_and_rebalancing(pair: &mut Pair) -> Result<()> {
    let (group, versions) = ("full-rebalancing", Versions::of(pair, NEWEST));
    pair.case("group-full-rebalancing");
    let members = vec![join(group, ""); 3];
    let ids = gather(pair, versions, &members)?;
    let other = members[0].clone().with_protocols(vec![protocol("range", b"other")]);
    // What is asked meanwhile goes by the first connection.
    let first = pair.start(4, versions.join, |side| other.clone().with_member_id(text(&ids[0][side.index])))?;
    await_rebalance(pair, group, &ids[1], 3)?;
    let newest = begin(pair, 3, versions.join, &members[0])?;
    poll("a fourth member", || {
        let answers = pair.exchange(versions.describe, |_| describe(group))?;
        Ok(answers.all(|answer| answer.groups[0].members.len() == 4))
    })?;
    let third = pair.start(1, versions.join, |side| join(group, &ids[1][side.index]))?;
    // Nobody tells whether it has been heard of.
    sleep(Duration::from_millis(200));
    let late = pair.start(2, versions.join, |side| join(group, &ids[2][side.index]))?;
    let answers = [late, newest, third, first].map(|pending| joined(pair, pending));
    answers.into_iter().try_for_each(|answer| answer.map(drop))?;
    pair.same(versions.heartbeat, |side| heartbeat(group, &ids[2][side.index], 3))?;
    pair.same(versions.describe, |_| describe(group)).map(drop)
}

/// Several leave by one request.
fn batch(pair: &mut Pair, versions: Versions, group: &str, ids: &[Ids]) -> Result<()> {
    pair.case("group-leave-batch");
    let all_of =
        |members: Vec<MemberIdentity>| LeaveGroupRequest::default().with_group_id(id(group)).with_members(members);
    let named = |id: &str| MemberIdentity::default().with_member_id(text(id));
    pair.same(versions.leave, |_| all_of(Vec::new()))?;
    pair.same(versions.leave, |_| all_of(vec![named(""), named("nobody"), named("nobody")]))?;
    pair.same(versions.leave, |_| all_of(vec![named("").with_group_instance_id(Some(text("nobody")))]))?;
    pair.same(versions.leave, |side| {
        let instance = named(&ids[0][side.index]).with_group_instance_id(Some(text("nobody")));
        all_of(vec![instance, named("nobody"), named(&ids[1][side.index]), named(&ids[1][side.index])])
    })?;
    pair.same(versions.heartbeat, |side| heartbeat(group, &ids[0][side.index], 3))?;
    pair.same(versions.describe, |_| describe(group))?;
    pair.same(versions.leave, |side| all_of(ids.iter().map(|ids| named(&ids[side.index])).collect()))?;
    pair.same(versions.describe, |_| describe(group)).map(drop)
}

/// Sessions and rebalances that end by time.
pub fn in_time(pair: &mut Pair) -> Result<()> {
    const SESSION_MS: i32 = 6_000;
    let versions = Versions::of(pair, NEWEST);
    pair.case("group-expiry");
    let short = |group: &str| join(group, "").with_session_timeout_ms(SESSION_MS);
    let alone = gather(pair, versions, &[short("expiry-alone")])?;
    sync_group(pair, versions, "expiry-alone", &alone, 1)?;
    let told = pair.same(versions.join, |_| short("expiry-told"))?.each(|answer| answer.member_id.to_string());
    let of_instance = gather(pair, versions, &[short("expiry-static").with_group_instance_id(Some(text("i")))])?;
    sync_group(pair, versions, "expiry-static", &of_instance, 1)?;
    let both = gather(pair, versions, &[short("expiry-two"), short("expiry-two")])?;
    sync_group(pair, versions, "expiry-two", &both, 2)?;
    for round in [REBALANCE_TIMEOUT_SINCE, NEWEST] {
        late(pair, round)?;
        pair.case("group-expiry");
        pair.same(versions.heartbeat, |side| heartbeat("expiry-two", &both[0][side.index], 2))?;
    }
    sleep(Duration::from_millis(2_500));
    for group in ["expiry-alone", "expiry-told", "expiry-static", "expiry-two"] {
        pair.same(versions.describe, |_| describe(group))?;
    }
    pair.same(versions.heartbeat, |side| heartbeat("expiry-two", &both[0][side.index], 2))?;
    for (group, ids) in [("expiry-alone", &alone[0]), ("expiry-two", &both[1])] {
        pair.same(versions.heartbeat, |side| heartbeat(group, &ids[side.index], 1))?;
        pair.same(versions.commit, |side| commit(group, &ids[side.index], 1, 5))?;
        pair.same(versions.sync, |side| sync(versions.sync, group, &ids[side.index], 1))?;
        pair.same(versions.leave, |side| leave(versions.leave, group, &ids[side.index]))?;
        pair.same(versions.join, |side| join(group, &ids[side.index]))?;
    }
    pair.same(versions.join, |side| join("expiry-told", &told[side.index]))?;
    let instance = || Some(text("i"));
    pair.same(versions.heartbeat, |side| {
        heartbeat("expiry-static", &of_instance[0][side.index], 1).with_group_instance_id(instance())
    })?;
    pair.same(versions.join, |side| {
        join("expiry-static", &of_instance[0][side.index]).with_group_instance_id(instance())
    })?;
    pair.same(versions.join, |_| join("expiry-static", "").with_group_instance_id(instance()))?;
    pair.same(pair.newest::<ListGroupsRequest>(), |_| ListGroupsRequest::default()).map(drop)
}

/// Who does not join in time is out, and so is who does not sync.
fn late(pair: &mut Pair, round: i16) -> Result<()> {
    const REBALANCE_MS: i32 = 1_000;
    pair.case("group-late");
    let (group, versions) = (format!("late-{round}"), Versions::of(pair, round));
    let member = join(&group, "").with_rebalance_timeout_ms(REBALANCE_MS);
    let first = gather(pair, versions, std::slice::from_ref(&member))?;
    sync_group(pair, versions, &group, &first, 1)?;
    let waiting = begin(pair, 1, versions.join, &member)?;
    let wait = Duration::from_millis(REBALANCE_MS as u64);
    let second = pair.finish(waiting, Some(wait))?.each(|answer| answer.member_id.to_string());
    pair.same(versions.heartbeat, |side| heartbeat(&group, &first[0][side.index], 1))?;
    pair.same(versions.describe, |_| describe(&group))?;
    sleep(wait + Duration::from_millis(500));
    pair.same(versions.describe, |_| describe(&group))?;
    pair.same(versions.sync, |side| sync(versions.sync, &group, &second[side.index], 2))?;
    pair.same(versions.heartbeat, |side| heartbeat(&group, &second[side.index], 2)).map(drop)
}

/// OffsetFetch of several groups, and commits of which not all is taken.
pub fn offsets_of_several(pair: &mut Pair) -> Result<()> {
    pair.case("group-offsets");
    let version = pair.newest::<OffsetCommitRequest>();
    for (group, offset) in [("offsets-a", 3), ("offsets-b", 4)] {
        pair.same(version, |_| commit(group, "", -1, offset))?;
    }
    for version in 8..=pair.newest::<OffsetFetchRequest>() {
        let topics = |name: &str, indexes: &[i32]| {
            OffsetFetchRequestTopics::default().with_name(topic_name(name)).with_partition_indexes(indexes.to_vec())
        };
        let of = |group: &str, topics: Option<Vec<OffsetFetchRequestTopics>>| {
            OffsetFetchRequestGroup::default().with_group_id(id(group)).with_member_epoch(-1).with_topics(topics)
        };
        let all = || Some(vec![topics(PLAIN, &[1, 0]), topics("nobody", &[0])]);
        let lists = [
            vec![of("offsets-a", None), of("offsets-b", None), of("never-heard-of", None)],
            vec![of("offsets-b", all()), of("never-heard-of", all()), of("offsets-a", Some(Vec::new()))],
            vec![of("", None), of("offsets-a", all())],
        ];
        for list in lists {
            for stable in [false, true] {
                pair.same(version, |_| {
                    OffsetFetchRequest::default().with_groups(list.clone()).with_require_stable(stable)
                })?;
            }
        }
    }
    pair.same(7, |_| offsets(7, "offsets-a", None).with_require_stable(true))?;

    pair.versions::<OffsetCommitRequest>().try_for_each(|version| takes_little(pair, version))
}

/// Commits of which nothing is taken, or not all.
fn takes_little(pair: &mut Pair, version: i16) -> Result<()> {
    let of = |name: &str, notes: &[&str]| {
        let partition = |(index, note): (i32, &&str)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_metadata(Some(text(note)))
        };
        let partitions = (0..).zip(notes).map(partition).collect();
        OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    };
    let request = |group: &str, topics: &[OffsetCommitRequestTopic], generation: i32| {
        let request = OffsetCommitRequest::default().with_group_id(id(group)).with_topics(topics.to_vec());
        request.with_generation_id_or_member_epoch(generation)
    };
    let long = "x".repeat(4097);
    let fresh = [
        ("group-takes-nothing", vec![of("nobody", &[""])]),
        ("group-takes-nothing", vec![]),
        ("group-note-too-long", vec![of("nobody", &[""]), of(PLAIN, &[&long])]),
    ];
    for (number, (case, topics)) in fresh.iter().enumerate() {
        let group = format!("takes-nothing-{number}");
        pair.case(*case);
        pair.same(version, |_| request(&group, topics, -1))?;
        pair.same(version, |_| request(&group, topics, 1))?;
        pair.same(pair.newest::<ListGroupsRequest>(), |_| ListGroupsRequest::default())?;
        pair.same(pair.newest::<DescribeGroupsRequest>(), |_| describe(&group))?;
        pair.same(pair.newest::<DeleteGroupsRequest>(), |_| delete(&group))?;
    }
    pair.case("group-takes-a-part");
    for generation in [-1, 1] {
        let topics = [of(PLAIN, &["", &long]), of("nobody", &[""])];
        pair.same(version, |_| request("takes-a-part", &topics, generation))?;
    }
    Ok(())
}

pub fn protocol(name: &str, metadata: &'static [u8]) -> JoinGroupRequestProtocol {
    JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(Bytes::from_static(metadata))
}
