//! CreateTopics, CreatePartitions and DeleteTopics.

use super::{each_version, learn_topics, make_topics};
use crate::pair::Pair;
use crate::requests::{TIMEOUT_MS, assignment, create, delete, metadata, text, topic, topic_name};
use anyhow::Result;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
};
use uuid::Uuid;

const CONFIGS: &[(&str, &str)] = &[
    ("retention.ms", "1000"),
    ("retention.ms", "-1"),
    ("retention.ms", "-2"),
    ("retention.ms", "soon"),
    ("retention.ms", ""),
    ("retention.ms", " 5 "),
    ("retention.bytes", "9223372036854775808"),
    ("segment.bytes", "13"),
    ("segment.bytes", "14"),
    ("segment.bytes", "2147483648"),
    ("min.insync.replicas", "0"),
    ("min.insync.replicas", "2"),
    ("max.message.bytes", "-1"),
    ("max.message.bytes", "0"),
    ("cleanup.policy", "delete,delete"),
    ("cleanup.policy", "shred"),
    ("cleanup.policy", ""),
    ("compression.type", "brotli"),
    ("compression.type", "producer"),
    ("compression.type", "GZIP"),
    ("message.timestamp.type", "Now"),
    ("message.timestamp.type", "LogAppendTime"),
    ("unclean.leader.election.enable", "yes"),
    ("unclean.leader.election.enable", "TRUE"),
    ("preallocate", "true"),
    ("index.interval.bytes", "-1"),
    ("segment.index.bytes", "3"),
    ("segment.ms", "0"),
    ("flush.messages", "0"),
    ("flush.ms", "-1"),
    ("min.cleanable.dirty.ratio", "1.5"),
    ("min.cleanable.dirty.ratio", "half"),
    ("max.compaction.lag.ms", "0"),
    ("message.format.version", "3.0"),
    ("message.format.version", "9.9"),
    ("message.downconversion.enable", "false"),
    ("leader.replication.throttled.replicas", "*"),
    ("leader.replication.throttled.replicas", "0-1"),
    ("local.retention.ms", "-3"),
    ("local.retention.ms", "99999999999"),
    ("remote.storage.enable", "true"),
    ("no.such.config", "1"),
    ("", "1"),
];

pub fn create_topics(pair: &mut Pair) -> Result<()> {
    each_version::<CreateTopicsRequest>(pair, |pair, version| {
        names(pair, version)?;
        numbers(pair, version)?;
        assignments(pair, version)?;
        pair.case("create-configs");
        for config in CONFIGS {
            let name = pair.fresh_topic("config");
            pair.case(format!("create-config-{}={}", config.0, config.1));
            pair.same(version, |_| create(vec![topic(&name, 1, &[*config])]).with_validate_only(true))?;
        }
        pair.case("create-configs-several");
        let name = pair.fresh_topic("config");
        pair.same(version, |_| {
            create(vec![topic(&name, 2, &[("retention.ms", "5000"), ("segment.bytes", "1000000")])])
        })?;
        let name = pair.fresh_topic("config");
        pair.same(version, |_| create(vec![topic(&name, 1, &[("retention.ms", "1"), ("retention.ms", "2")])]))?;
        pair.case("create-config-null");
        let name = pair.fresh_topic("config");
        pair.same(version, |_| {
            let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(None);
            create(vec![topic(&name, 1, &[]).with_configs(vec![config])])
        })?;
        pair.case("create-config-combination");
        let name = pair.fresh_topic("config");
        let lags = [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")];
        pair.same(version, |_| create(vec![topic(&name, 1, &lags)]).with_validate_only(true))?;
        Ok(())
    })
}

fn names(pair: &mut Pair, version: i16) -> Result<()> {
    let name = pair.fresh_topic("made");
    pair.case("create");
    pair.same(version, |_| create(vec![topic(&name, 2, &[])]))?;
    learn_topics(pair, std::slice::from_ref(&name))?;
    pair.case("create-existing");
    pair.same(version, |_| create(vec![topic(&name, 2, &[])]))?;
    pair.same(version, |_| create(vec![topic(&name, 2, &[])]).with_validate_only(true))?;
    pair.case("create-nothing");
    pair.same(version, |_| create(vec![]))?;
    pair.case("create-bad-name");
    let (long, longest) = ("x".repeat(250), format!("{:x<249}", pair.fresh_topic("long")));
    for bad in ["", ".", "..", "a b", "a/b", "ä", "new\nline", long.as_str()] {
        pair.same(version, |_| create(vec![topic(bad, 1, &[])]))?;
    }
    pair.case("create-longest-name");
    pair.same(version, |_| create(vec![topic(&longest, 1, &[])]))?;
    pair.case("create-internal-name");
    pair.same(version, |_| create(vec![topic("__cluster_metadata", 1, &[])]).with_validate_only(true))?;
    pair.case("create-colliding");
    let (dot, line) = (format!("a.b-{name}"), format!("a_b-{name}"));
    pair.same(version, |_| create(vec![topic(&dot, 1, &[])]))?;
    learn_topics(pair, std::slice::from_ref(&dot))?;
    pair.same(version, |_| create(vec![topic(&line, 1, &[])]))?;
    pair.case("create-duplicates");
    let (twice, once) = (pair.fresh_topic("twice"), pair.fresh_topic("once"));
    pair.same(version, |_| create(vec![topic(&twice, 1, &[]), topic(&once, 1, &[]), topic(&twice, 2, &[])]))?;
    pair.case("create-validate-only");
    let name = pair.fresh_topic("never");
    pair.same(version, |_| create(vec![topic(&name, 3, &[("retention.ms", "5")])]).with_validate_only(true))?;
    let newest = pair.newest::<MetadataRequest>();
    pair.same(newest, |_| metadata(newest, &[&name]))?;
    Ok(())
}

fn numbers(pair: &mut Pair, version: i16) -> Result<()> {
    pair.case("create-counts");
    for (partitions, factor) in
        [(0, 1), (-1, 1), (-2, 1), (1, 0), (1, -1), (1, -2), (1, 2), (1, 9), (-1, -1), (0, 0), (1, i16::MAX)]
    {
        let name = pair.fresh_topic("count");
        pair.case(format!("create-partitions-{partitions}-factor-{factor}"));
        pair.same(version, |_| {
            create(vec![topic(&name, partitions, &[]).with_replication_factor(factor)]).with_validate_only(true)
        })?;
    }
    pair.case("create-several");
    let (first, second, third) = (pair.fresh_topic("many"), pair.fresh_topic("many"), pair.fresh_topic("many"));
    pair.same(version, |_| {
        create(vec![topic(&first, 1, &[]), topic("bad name", 1, &[]), topic(&second, 0, &[]), topic(&third, 2, &[])])
    })?;
    learn_topics(pair, &[first, third])
}

fn assignments(pair: &mut Pair, version: i16) -> Result<()> {
    let assigned = |name: &str, partitions: &[(i32, Vec<i32>)]| {
        let assignments = partitions.iter().map(|(index, brokers)| assignment(*index, brokers)).collect();
        topic(name, -1, &[]).with_replication_factor(-1).with_assignments(assignments)
    };
    let name = pair.fresh_topic("assigned");
    pair.case("create-assigned");
    pair.same(version, |side| create(vec![assigned(&name, &[(1, vec![side.broker(0)]), (0, vec![side.broker(0)])])]))?;
    learn_topics(pair, &[name])?;
    let name = pair.fresh_topic("assigned");
    pair.case("create-assigned-with-counts");
    let with = |topic: CreatableTopic, partitions: i32, factor: i16| {
        create(vec![topic.with_num_partitions(partitions).with_replication_factor(factor)]).with_validate_only(true)
    };
    for (partitions, factor) in [(1, -1), (-1, 1), (1, 1)] {
        pair.same(version, |side| with(assigned(&name, &[(0, vec![side.broker(0)])]), partitions, factor))?;
    }
    let mut bad = |case: &str, partitions: &dyn Fn(i32) -> Vec<(i32, Vec<i32>)>| -> Result<()> {
        pair.case(format!("create-assigned-{case}"));
        pair.same(version, |side| create(vec![assigned(&name, &partitions(side.broker(0)))]).with_validate_only(true))
            .map(drop)
    };
    bad("unknown-broker", &|_| vec![(0, vec![77_777])])?;
    bad("negative-broker", &|_| vec![(0, vec![-1])])?;
    bad("broker-twice", &|broker| vec![(0, vec![broker, broker])])?;
    bad("no-brokers", &|_| vec![(0, vec![])])?;
    bad("partition-twice", &|broker| vec![(0, vec![broker]), (0, vec![broker])])?;
    bad("gap", &|broker| vec![(0, vec![broker]), (2, vec![broker])])?;
    bad("not-from-0", &|broker| vec![(1, vec![broker])])?;
    bad("negative-partition", &|broker| vec![(-1, vec![broker])])?;
    bad("uneven", &|broker| vec![(0, vec![broker]), (1, vec![broker, 77_777])])
}

pub fn create_partitions(pair: &mut Pair) -> Result<()> {
    each_version::<CreatePartitionsRequest>(pair, |pair, version| {
        let name = pair.fresh_topic("growing");
        make_topics(pair, vec![topic(&name, 2, &[])])?;
        let grow = |name: &str, count: i32, assignments: Option<Vec<Vec<i32>>>| {
            let assigned = |brokers: Vec<i32>| {
                CreatePartitionsAssignment::default().with_broker_ids(brokers.into_iter().map(BrokerId).collect())
            };
            let assignments = assignments.map(|all| all.into_iter().map(assigned).collect());
            CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(assignments)
        };
        let ask = |topics: Vec<CreatePartitionsTopic>| {
            CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS)
        };
        pair.case("create-partitions-count");
        for count in [2, 1, 0, -1] {
            pair.same(version, |_| ask(vec![grow(&name, count, None)]))?;
        }
        pair.case("create-partitions-validate");
        pair.same(version, |_| ask(vec![grow(&name, 4, None)]).with_validate_only(true))?;
        pair.case("create-partitions");
        pair.same(version, |_| ask(vec![grow(&name, 4, None)]))?;
        learn_topics(pair, std::slice::from_ref(&name))?;
        pair.case("create-partitions-unknown");
        pair.same(version, |_| ask(vec![grow("nobody", 4, None), grow("bad name", 4, None)]))?;
        pair.case("create-partitions-twice");
        pair.same(version, |_| ask(vec![grow(&name, 5, None), grow(&name, 6, None)]))?;
        pair.case("create-partitions-nothing");
        pair.same(version, |_| ask(vec![]))?;
        let mut assigned = |case: &str, count: i32, brokers: &dyn Fn(i32) -> Vec<Vec<i32>>| -> Result<()> {
            pair.case(format!("create-partitions-assigned-{case}"));
            pair.same(version, |side| {
                ask(vec![grow(&name, count, Some(brokers(side.broker(0))))]).with_validate_only(true)
            })
            .map(drop)
        };
        assigned("well", 5, &|broker| vec![vec![broker]])?;
        assigned("too-few", 6, &|broker| vec![vec![broker]])?;
        assigned("too-many", 5, &|broker| vec![vec![broker], vec![broker]])?;
        assigned("none", 5, &|_| vec![])?;
        assigned("empty", 5, &|_| vec![vec![]])?;
        assigned("unknown-broker", 5, &|_| vec![vec![77_777]])?;
        assigned("broker-twice", 5, &|broker| vec![vec![broker, broker]])?;
        assigned("uneven", 6, &|broker| vec![vec![broker], vec![broker, 77_777]])?;
        pair.case("create-partitions-grown");
        pair.same(version, |side| ask(vec![grow(&name, 5, Some(vec![vec![side.broker(0)]]))]))?;
        learn_topics(pair, &[name])
    })
}

pub fn delete_topics(pair: &mut Pair) -> Result<()> {
    each_version::<DeleteTopicsRequest>(pair, |pair, version| {
        let names: Vec<String> = (0..5).map(|_| pair.fresh_topic("doomed")).collect();
        make_topics(pair, names.iter().map(|name| topic(name, 2, &[])).collect())?;
        pair.case("delete");
        pair.same(version, |_| delete(version, &[&names[0]]))?;
        let newest = pair.newest::<MetadataRequest>();
        pair.same(newest, |_| metadata(newest, &[&names[0], &names[1]]))?;
        pair.case("delete-again");
        super::poll("the topic to be gone", || {
            let answers = pair.exchange(version, |_| delete(version, &[&names[0]]))?;
            Ok(answers.all(|answer| answer.responses.iter().all(|topic| topic.error_code == 3)))
        })?;
        pair.same(version, |_| delete(version, &[&names[0]]))?;
        pair.case("delete-unknown");
        pair.same(version, |_| delete(version, &["nobody", "bad name", ""]))?;
        pair.case("delete-nothing");
        pair.same(version, |_| delete(version, &[]))?;
        pair.case("delete-several");
        pair.same(version, |_| delete(version, &[&names[1], "nobody"]))?;
        pair.case("delete-twice");
        pair.same(version, |_| delete(version, &[&names[2], &names[2]]))?;
        if version >= 6 {
            by_id(pair, version, &names[3], &names[4])?;
        }
        Ok(())
    })
}

fn by_id(pair: &mut Pair, version: i16, name: &str, other: &str) -> Result<()> {
    let state =
        |id: Uuid, name: Option<&str>| DeleteTopicState::default().with_topic_id(id).with_name(name.map(topic_name));
    let ask =
        |topics: Vec<DeleteTopicState>| DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS);
    pair.case("delete-by-id-and-name");
    pair.same(version, |side| ask(vec![state(side.topic_id(name), Some(name))]))?;
    pair.case("delete-by-unknown-id");
    pair.same(version, |_| ask(vec![state(Uuid::from_u128(0x77), None)]))?;
    pair.case("delete-by-nothing");
    pair.same(version, |_| ask(vec![state(Uuid::nil(), None)]))?;
    pair.case("delete-by-id-twice");
    pair.same(version, |side| ask(vec![state(side.topic_id(other), None), state(side.topic_id(other), None)]))?;
    pair.case("delete-by-id");
    pair.same(version, |side| ask(vec![state(side.topic_id(name), None)]))?;
    Ok(())
}
