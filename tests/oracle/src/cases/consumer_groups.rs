//! Consumer groups of the new protocol (KIP-848), with Apache Kafka 4 as the oracle: how members join, share, change and go, what is
//! refused, and how groups go from one protocol to the other.

use super::groups::{SUBSCRIPTION, id};
use super::poll;
use crate::pair::{Answers, Pair, Side};
use crate::requests::{text, topic_name};
use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupsRequest,
    DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use std::time::Duration;

type Script = fn(&mut Pair) -> Result<()>;

pub const SCRIPTS: &[(&str, Script)] = &[
    ("new-group-refused", refused),
    ("new-group-life", life),
    ("new-group-shared", shared),
    ("new-group-static", of_instances),
    ("new-group-pattern", patterns),
    ("new-group-full", full),
    ("new-group-expiry", expiry),
    ("new-group-classic", classic),
    ("new-group-upgrade", upgrade),
];

/// Waits until both coordinators know the topics: Kafka's hears of them behind the answer.
pub fn prepare(pair: &mut Pair) -> Result<()> {
    for (topic, _) in TOPICS {
        poll("a coordinator that knows the topics", || {
            let group = format!("prepare-{topic}");
            let answers = pair.exchange(BEAT, |_| join(&group, "m", &[topic]))?;
            pair.exchange(BEAT, |_| beat(&group, "m", LEAVES))?;
            Ok(given(&answers).iter().all(|topics| topics.len() == 1))
        })?;
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![id(&format!("prepare-{topic}"))]);
        pair.exchange(2, |_| delete.clone())?;
    }
    Ok(())
}

/// Small groups, and members that are missed soon.
pub const SETTINGS: &[(&str, &str)] = &[
    ("group.consumer.max.size", "3"),
    ("group.consumer.session.timeout.ms", SESSION_MS),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.heartbeat.interval.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ("group.consumer.migration.policy", "bidirectional"),
    ("auto.create.topics.enable", "false"),
];

/// Name and partitions.
pub const TOPICS: &[(&str, i32)] = &[("plain", 4), ("other", 2), ("pattern-a", 1), ("pattern-b", 2)];

const SESSION_MS: &str = "6000";
const BEAT: i16 = 1;
const JOINS: i32 = 0;
const LEAVES: i32 = -1;
const LEAVES_FOR_A_WHILE: i32 = -2;

fn beat(group: &str, member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    let request = ConsumerGroupHeartbeatRequest::default().with_group_id(id(group)).with_member_id(text(member));
    request.with_member_epoch(epoch)
}

fn join(group: &str, member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    beat(group, member, JOINS)
        .with_rebalance_timeout_ms(30_000)
        .with_subscribed_topic_names(Some(topics.iter().map(|name| topic_name(name)).collect()))
        .with_topic_partitions(Some(Vec::new()))
}

/// Partitions of a topic, as a member says that it has them.
fn of(side: &Side, topic: &str, partitions: &[i32]) -> Vec<TopicPartitions> {
    vec![TopicPartitions::default().with_topic_id(side.topic_id(topic)).with_partitions(partitions.to_vec())]
}

/// What each side's member was given.
fn given(answers: &Answers<ConsumerGroupHeartbeatResponse>) -> [Vec<TopicPartitions>; 2] {
    answers.each(|answer| {
        let topics = answer.assignment.iter().flat_map(|assignment| &assignment.topic_partitions);
        let owned = |topic: &kafka_protocol::messages::consumer_group_heartbeat_response::TopicPartitions| {
            TopicPartitions::default().with_topic_id(topic.topic_id).with_partitions(topic.partitions.clone())
        };
        topics.map(owned).collect()
    })
}

fn describe(groups: &[&str]) -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest::default().with_group_ids(groups.iter().map(|group| id(group)).collect())
}

fn same_group(pair: &mut Pair, group: &str) -> Result<()> {
    for version in 0..=1 {
        pair.same(version, |_| describe(&[group]))?;
    }
    Ok(())
}

fn refused(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-refused";
    pair.case("new-group-refused");
    let plain = || join(GROUP, "m", &["plain"]);
    let wrong: Vec<ConsumerGroupHeartbeatRequest> = vec![
        join("", "m", &["plain"]),
        join(GROUP, "", &["plain"]),
        join(GROUP, " ", &["plain"]),
        plain().with_rebalance_timeout_ms(-1),
        plain().with_rebalance_timeout_ms(0),
        plain().with_topic_partitions(None),
        plain().with_subscribed_topic_names(None),
        plain().with_instance_id(Some(text(""))),
        plain().with_rack_id(Some(text(""))),
        plain().with_server_assignor(Some(text("nonsense"))),
        plain().with_server_assignor(Some(text(""))),
        plain().with_subscribed_topic_regex(Some(text("("))).with_subscribed_topic_names(None),
        beat(GROUP, "m", -3),
        beat(GROUP, "m", LEAVES_FOR_A_WHILE),
        beat(GROUP, "m", LEAVES_FOR_A_WHILE).with_instance_id(Some(text("i"))),
        beat(GROUP, "m", LEAVES),
        beat(GROUP, "m", 1),
        beat(GROUP, "", LEAVES),
        beat(GROUP, "", 1),
        beat("", "m", 1),
    ];
    for request in &wrong {
        pair.same(BEAT, |_| request.clone())?;
        pair.same(BEAT, |_| beat(GROUP, "m", LEAVES))?;
    }
    pair.same(BEAT, |side| plain().with_topic_partitions(Some(of(side, "plain", &[0]))))?;
    pair.case("new-group-refused-v0");
    for request in wrong.iter().filter(|request| request.subscribed_topic_regex.is_none()) {
        // An id is made up for whoever joins without one.
        if !(request.member_id.trim().is_empty() && request.member_epoch == JOINS) {
            pair.same(0, |_| request.clone())?;
        }
    }
    pair.case("new-group-unknown");
    pair.same(0, |_| describe(&["never-heard-of"]))?;
    pair.same(1, |_| describe(&["never-heard-of", "", "never-heard-of"]))?;
    pair.same(1, |_| describe(&[]))?;
    for version in 2..=9 {
        pair.same(version, |_| commit("never-heard-of", "m", 1))?;
        pair.same(version, |_| commit("never-heard-of", "", 1))?;
    }
    pair.same(9, |_| offsets("never-heard-of", "m", 1))?;
    pair.same(9, |_| offsets("never-heard-of", "", -1))?;
    Ok(())
}

fn life(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-life";
    pair.case("new-group-life");
    pair.same(BEAT, |_| join(GROUP, "m", &["plain", "nobody"]))?;
    same_group(pair, GROUP)?;
    let all = |side: &Side| Some(of(side, "plain", &[0, 1, 2, 3]));
    pair.same(BEAT, |side| beat(GROUP, "m", 1).with_topic_partitions(all(side)))?;
    pair.same(BEAT, |_| beat(GROUP, "m", 1))?;
    pair.same(0, |_| beat(GROUP, "m", 1))?;
    pair.case("new-group-epochs");
    for epoch in [2, LEAVES_FOR_A_WHILE] {
        pair.same(BEAT, |_| beat(GROUP, "m", epoch))?;
    }
    pair.same(BEAT, |_| beat(GROUP, "nobody", 1))?;
    pair.same(BEAT, |_| beat(GROUP, "nobody", LEAVES))?;
    pair.same(BEAT, |_| beat(GROUP, "m", 1).with_instance_id(Some(text("i"))))?;
    // All of it once more is what a client sends that was not answered.
    pair.same(BEAT, |side| {
        join(GROUP, "m", &["plain", "nobody"]).with_member_epoch(1).with_topic_partitions(all(side))
    })?;
    pair.same(BEAT, |_| join(GROUP, "m", &["plain", "nobody"]))?;
    same_group(pair, GROUP)?;

    pair.case("new-group-changes");
    pair.same(BEAT, |side| {
        let names = vec![topic_name("plain"), topic_name("other")];
        beat(GROUP, "m", 1).with_subscribed_topic_names(Some(names)).with_topic_partitions(all(side))
    })?;
    same_group(pair, GROUP)?;
    pair.same(BEAT, |_| beat(GROUP, "m", 1))?;
    pair.same(BEAT, |side| beat(GROUP, "m", 1).with_topic_partitions(Some(of(side, "plain", &[0, 1, 2, 3]))))?;
    pair.same(BEAT, |side| beat(GROUP, "m", 1).with_topic_partitions(Some(of(side, "other", &[7]))))?;
    pair.same(BEAT, |_| beat(GROUP, "m", 2))?;
    pair.same(BEAT, |_| beat(GROUP, "m", 2).with_server_assignor(Some(text("range"))))?;
    pair.same(BEAT, |_| beat(GROUP, "m", 2).with_rack_id(Some(text("r"))))?;
    pair.same(BEAT, |_| beat(GROUP, "m", 2).with_rebalance_timeout_ms(1_000))?;
    same_group(pair, GROUP)?;
    // It is to give up one topic, and does so.
    let only_other = |epoch| beat(GROUP, "m", epoch).with_subscribed_topic_names(Some(vec![topic_name("other")]));
    let now = pair.same(BEAT, |_| only_other(2))?.each(|answer| answer.member_epoch);
    same_group(pair, GROUP)?;
    pair.same(BEAT, |side| beat(GROUP, "m", now[side.index]).with_topic_partitions(Some(of(side, "other", &[0, 1]))))?;
    pair.same(BEAT, |_| only_other(3).with_subscribed_topic_names(Some(Vec::new())))?;
    same_group(pair, GROUP)?;

    pair.case("new-group-others");
    pair.same(5, |_| DescribeGroupsRequest::default().with_groups(vec![id(GROUP)]))?;
    pair.same(5, |_| DescribeGroupsRequest::default().with_groups(vec![id(GROUP)]))?;
    pair.same(2, |_| DeleteGroupsRequest::default().with_groups_names(vec![id(GROUP)]))?;
    for (states, types) in
        [("", ""), ("Stable", ""), ("stable", "consumer"), ("", "Consumer"), ("", "classic"), ("", "x")]
    {
        let some = |text_: &str| if text_.is_empty() { Vec::new() } else { vec![text(text_)] };
        pair.same(5, |_| ListGroupsRequest::default().with_states_filter(some(states)).with_types_filter(some(types)))?;
    }
    pair.case("new-group-leave");
    pair.same(BEAT, |_| beat(GROUP, "m", LEAVES))?;
    pair.same(BEAT, |_| beat(GROUP, "m", LEAVES))?;
    pair.same(BEAT, |_| beat(GROUP, "m", 3))?;
    same_group(pair, GROUP)?;
    pair.same(2, |_| DeleteGroupsRequest::default().with_groups_names(vec![id(GROUP)]))?;
    same_group(pair, GROUP)
}

/// Two members: what the first gives up the second gets, and only then.
fn shared(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-shared";
    pair.case("new-group-shared");
    for assignor in ["range", "uniform"] {
        let group = format!("{GROUP}-{assignor}");
        let join = |member| join(&group, member, &["plain"]).with_server_assignor(Some(text(assignor)));
        pair.same(BEAT, |_| join("a"))?;
        pair.same(BEAT, |side| beat(&group, "a", 1).with_topic_partitions(Some(of(side, "plain", &[0, 1, 2, 3]))))?;
        pair.same(BEAT, |_| join("b"))?;
        same_group(pair, &group)?;
        pair.same(BEAT, |_| beat(&group, "b", 2))?;
        // Told, and not done yet.
        let told = pair.same(BEAT, |_| beat(&group, "a", 1))?;
        let left = given(&told);
        pair.same(BEAT, |_| beat(&group, "a", 1))?;
        pair.same(BEAT, |side| beat(&group, "a", 1).with_topic_partitions(Some(of(side, "plain", &[0, 1, 2, 3]))))?;
        same_group(pair, &group)?;
        pair.same(BEAT, |_| beat(&group, "b", 2))?;
        pair.same(BEAT, |side| beat(&group, "a", 1).with_topic_partitions(Some(left[side.index].clone())))?;
        // The answer is lost, and the member comes once more with the epoch before.
        pair.same(BEAT, |side| beat(&group, "a", 1).with_topic_partitions(Some(left[side.index].clone())))?;
        pair.same(BEAT, |_| beat(&group, "a", 1))?;
        let got = given(&pair.same(BEAT, |_| beat(&group, "b", 2))?);
        pair.same(BEAT, |side| beat(&group, "b", 2).with_topic_partitions(Some(got[side.index].clone())))?;
        same_group(pair, &group)?;

        pair.case("new-group-commit");
        for version in [8, 9] {
            for (member, epoch) in [("a", 2), ("a", 1), ("a", 3), ("a", -1), ("nobody", 2), ("", -1), ("", 2)] {
                pair.same(version, |_| commit(&group, member, epoch))?;
            }
        }
        for (member, epoch) in [("a", 2), ("a", 1), ("a", 3), ("a", -1), ("nobody", 2), ("", -1), ("", 2)] {
            pair.same(9, |_| offsets(&group, member, epoch))?;
        }
        pair.case("new-group-shared");
        pair.same(BEAT, |_| beat(&group, "a", LEAVES))?;
        pair.same(BEAT, |_| beat(&group, "b", 2))?;
        same_group(pair, &group)?;
        pair.same(BEAT, |_| beat(&group, "b", LEAVES))?;
        pair.same(9, |_| commit(&group, "", -1))?;
        pair.same(9, |_| offsets(&group, "", -1))?;
    }
    Ok(())
}

fn of_instances(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-static";
    pair.case("new-group-static");
    let instance = || Some(text("i"));
    let join = |member| join(GROUP, member, &["plain"]).with_instance_id(instance());
    let beat = |member, epoch| beat(GROUP, member, epoch).with_instance_id(instance());
    pair.same(BEAT, |_| join("a"))?;
    pair.same(BEAT, |_| join("b"))?;
    pair.same(BEAT, |_| beat("b", 1))?;
    pair.same(BEAT, |_| beat("b", LEAVES))?;
    pair.same(BEAT, |_| beat("b", LEAVES_FOR_A_WHILE))?;
    pair.same(BEAT, |_| beat("a", 1).with_instance_id(None))?;
    pair.same(BEAT, |_| beat("a", 1).with_instance_id(Some(text("j"))))?;
    pair.same(BEAT, |_| beat("a", 2))?;
    pair.same(BEAT, |_| beat("a", LEAVES_FOR_A_WHILE))?;
    same_group(pair, GROUP)?;
    pair.same(BEAT, |_| beat("a", 1))?;
    pair.same(9, |_| commit(GROUP, "a", 1))?;
    pair.same(BEAT, |_| join("b"))?;
    same_group(pair, GROUP)?;
    pair.same(BEAT, |_| beat("a", 1))?;
    pair.same(BEAT, |_| beat("b", 1))?;
    pair.same(BEAT, |_| beat("b", LEAVES_FOR_A_WHILE))?;
    pair.same(BEAT, |_| join("b"))?;
    pair.same(BEAT, |_| beat("b", LEAVES))?;
    same_group(pair, GROUP)
}

fn patterns(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-pattern";
    pair.case("new-group-pattern");
    let by_pattern = |member, epoch: i32, pattern: &str| {
        let all = join(GROUP, member, &[]).with_subscribed_topic_regex(Some(text(pattern))).with_member_epoch(epoch);
        all.with_subscribed_topic_names(None)
    };
    // Kafka resolves patterns behind the answer.
    pair.exchange(BEAT, |_| by_pattern("a", JOINS, "pattern-.*"))?;
    let mut epochs = [1, 1];
    poll("the pattern's topics", || {
        let answers = pair.exchange(BEAT, |side| {
            by_pattern("a", epochs[side.index], "pattern-.*").with_topic_partitions(Some(Vec::new()))
        })?;
        epochs = answers.each(|answer| answer.member_epoch);
        Ok(given(&answers).iter().all(|topics| topics.len() == 2))
    })?;
    pair.same(1, |_| describe(&[GROUP]))?;
    for pattern in ["(", "[a-", "*", "a{2,1}", r"\d+", "^pattern-a$", "(?=x)", r"(a)\1", ""] {
        pair.case(format!("new-group-pattern-{pattern}"));
        let answers = pair
            .same(BEAT, |side| beat(GROUP, "a", epochs[side.index]).with_subscribed_topic_regex(Some(text(pattern))))?;
        let told = answers.each(|answer| (answer.error_code, answer.member_epoch));
        for (epoch, (error, told)) in epochs.iter_mut().zip(told) {
            *epoch = if error == 0 { told } else { *epoch };
        }
    }
    pair.exchange(BEAT, |_| beat(GROUP, "a", LEAVES))?;
    Ok(())
}

fn full(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-full";
    pair.case("new-group-full");
    // Who gets which of few partitions is each assignor's own affair.
    for member in ["a", "b", "c", "d"] {
        pair.same(BEAT, |_| join(GROUP, member, &["nobody"]))?;
    }
    pair.same(BEAT, |_| join(GROUP, "c", &["nobody"]))?;
    pair.same(BEAT, |_| beat(GROUP, "a", LEAVES))?;
    pair.same(BEAT, |_| join(GROUP, "d", &["nobody"]))?;
    Ok(())
}

fn expiry(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-expiry";
    pair.case("new-group-expiry");
    pair.same(BEAT, |_| join(GROUP, "a", &["plain"]))?;
    std::thread::sleep(Duration::from_millis(7_500));
    same_group(pair, GROUP)?;
    pair.same(BEAT, |_| beat(GROUP, "a", 1))?;
    pair.same(9, |_| commit(GROUP, "a", 1)).map(drop)
}

/// What a group of the new protocol says to members of the classic one.
fn classic(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-classic";
    pair.case("new-group-classic");
    pair.same(BEAT, |_| join(GROUP, "a", &["plain"]))?;
    pair.same(4, |_| {
        HeartbeatRequest::default().with_group_id(id(GROUP)).with_generation_id(1).with_member_id(text("a"))
    })?;
    pair.same(4, |_| {
        HeartbeatRequest::default().with_group_id(id(GROUP)).with_generation_id(1).with_member_id(text("x"))
    })?;
    pair.same(5, |_| sync(GROUP, "a", 1))?;
    pair.same(5, |_| sync(GROUP, "x", 1))?;
    pair.same(5, |_| leave(GROUP, "a"))?;
    pair.same(5, |_| leave(GROUP, "x"))?;
    pair.same(9, |_| join_classic(GROUP, "").with_protocol_type(text("connect")))?;
    pair.same(9, |_| join_classic(GROUP, "").with_session_timeout_ms(1))?;
    // One of each in a group.
    let ids = pair.same(9, |_| join_classic(GROUP, ""))?.each(|answer| answer.member_id.to_string());
    let joined = pair.same(9, |side| join_classic(GROUP, &ids[side.index]))?.each(|answer| answer.generation_id);
    let generation = |side: &Side| joined[side.index];
    pair.same(5, |side| sync(GROUP, &ids[side.index], generation(side)))?;
    pair.same(5, |side| sync(GROUP, &ids[side.index], generation(side) + 1))?;
    let heartbeat = |side: &Side, more| {
        let request = HeartbeatRequest::default().with_group_id(id(GROUP)).with_member_id(text(&ids[side.index]));
        request.with_generation_id(generation(side) + more)
    };
    pair.same(4, |side| heartbeat(side, 0))?;
    pair.same(4, |side| heartbeat(side, 1))?;
    pair.same(1, |_| describe(&[GROUP]))?;
    let told = given(&pair.same(BEAT, |_| beat(GROUP, "a", 1))?);
    pair.same(BEAT, |side| beat(GROUP, "a", 1).with_topic_partitions(Some(told[side.index].clone())))?;
    pair.same(4, |side| heartbeat(side, 0))?;
    pair.same(9, |side| join_classic(GROUP, &ids[side.index]))?;
    pair.same(5, |side| sync(GROUP, &ids[side.index], generation(side)))?;
    pair.same(4, |side| heartbeat(side, 0))?;
    pair.same(8, |side| commit(GROUP, &ids[side.index], generation(side)))?;
    pair.same(9, |side| commit(GROUP, &ids[side.index], generation(side) - 1))?;
    pair.same(1, |_| describe(&[GROUP]))?;
    pair.case("new-group-downgrade");
    pair.same(BEAT, |_| beat(GROUP, "a", LEAVES))?;
    pair.same(1, |_| describe(&[GROUP]))?;
    pair.same(5, |_| DescribeGroupsRequest::default().with_groups(vec![id(GROUP)]))?;
    pair.same(8, |side| commit(GROUP, &ids[side.index], generation(side)))?;
    pair.same(4, |side| heartbeat(side, 0))?;
    pair.same(9, |side| join_classic(GROUP, &ids[side.index]))?;
    pair.same(5, |side| sync(GROUP, &ids[side.index], generation(side) + 1))?;
    pair.same(4, |side| heartbeat(side, 1))?;
    pair.same(5, |side| leave(GROUP, &ids[side.index]))?;
    Ok(())
}

/// A member of the new protocol comes to a classic group.
fn upgrade(pair: &mut Pair) -> Result<()> {
    const GROUP: &str = "new-upgrade";
    pair.case("new-group-upgrade");
    let ids = pair.same(9, |_| join_classic(GROUP, ""))?.each(|answer| answer.member_id.to_string());
    pair.same(9, |side| join_classic(GROUP, &ids[side.index]))?;
    pair.same(5, |side| sync(GROUP, &ids[side.index], 1))?;
    let heartbeat = |side: &Side| {
        let request = HeartbeatRequest::default().with_group_id(id(GROUP)).with_member_id(text(&ids[side.index]));
        request.with_generation_id(1)
    };
    pair.same(4, heartbeat)?;
    pair.same(9, |side| commit(GROUP, &ids[side.index], 1))?;
    pair.same(BEAT, |_| beat(GROUP, "a", 1))?;
    pair.same(BEAT, |_| beat(GROUP, "a", LEAVES))?;
    pair.same(BEAT, |_| join(GROUP, "a", &["plain"]))?;
    pair.same(1, |_| describe(&[GROUP]))?;
    pair.same(4, heartbeat)?;
    pair.same(9, |side| commit(GROUP, &ids[side.index], 1))?;
    pair.same(5, |_| ListGroupsRequest::default().with_types_filter(vec![text("consumer")]))?;
    pair.same(9, |side| join_classic(GROUP, &ids[side.index]))?;
    pair.same(5, |side| sync(GROUP, &ids[side.index], 2))?;
    pair.same(9, |_| offsets(GROUP, "", -1))?;
    pair.same(5, |side| leave(GROUP, &ids[side.index]))?;
    pair.same(BEAT, |_| beat(GROUP, "a", LEAVES))?;
    pair.same(1, |_| describe(&[GROUP]))?;
    // And an empty one becomes what whoever comes speaks.
    let joined = pair.same(9, |_| join_classic(GROUP, "").with_group_instance_id(Some(text("i"))))?;
    let ids = joined.each(|answer| answer.member_id.to_string());
    pair.same(5, |side| sync(GROUP, &ids[side.index], 1))?;
    pair.same(1, |_| describe(&[GROUP]))?;
    Ok(())
}

fn commit(group: &str, member: &str, epoch: i32) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(5);
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name("plain")).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(id(group))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(epoch)
        .with_topics(vec![topic])
}

fn offsets(group: &str, member: &str, epoch: i32) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopics::default().with_name(topic_name("plain")).with_partition_indexes(vec![0]);
    let member = Some(text(member)).filter(|member| !member.is_empty());
    let group = OffsetFetchRequestGroup::default().with_group_id(id(group)).with_member_id(member);
    OffsetFetchRequest::default().with_groups(vec![group.with_member_epoch(epoch).with_topics(Some(vec![topic]))])
}

fn join_classic(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = |name| {
        JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(Bytes::from_static(SUBSCRIPTION))
    };
    JoinGroupRequest::default()
        .with_group_id(id(group))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range"), protocol("roundrobin")])
}

fn sync(group: &str, member: &str, generation: i32) -> SyncGroupRequest {
    SyncGroupRequest::default()
        .with_group_id(id(group))
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
}

fn leave(group: &str, member: &str) -> LeaveGroupRequest {
    let member = MemberIdentity::default().with_member_id(text(member));
    LeaveGroupRequest::default().with_group_id(id(group)).with_members(vec![member])
}
