//! The scripted cases, one file per group of APIs. A script runs once and takes each of its APIs through every version.

mod cluster;
mod configs;
mod consumer_groups;
mod fetch;
mod fetch_sessions;
mod group_instances;
mod group_members;
mod groups;
mod idempotence;
mod malformed;
mod metadata;
mod offsets;
mod produce;
mod records;
mod topics;
mod versions;

use crate::pair::Pair;
use crate::requests::{create, fetch, from, list_offsets, metadata as metadata_of, topic};
use anyhow::{Result, bail};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
};
use kafka_protocol::protocol::Request;
use std::time::{Duration, Instant};

type Script = fn(&mut Pair) -> Result<()>;

/// Every script by name, in the order in which they run.
pub const SCRIPTS: &[(&str, Script)] = &[
    ("versions", versions::script),
    ("malformed", malformed::script),
    ("metadata", metadata::script),
    ("produce", produce::script),
    ("produce-broken", produce::broken),
    ("records", records::script),
    ("idempotence", idempotence::script),
    ("init-producer-id", idempotence::init_producer_id),
    ("fetch", fetch::script),
    ("fetch-wait", fetch::waiting),
    ("fetch-sessions", fetch_sessions::script),
    ("list-offsets", offsets::list_offsets),
    ("list-offsets-deleted", offsets::after_deletion),
    ("leader-epochs", offsets::leader_epochs),
    ("delete-records", offsets::delete_records),
    ("create-topics", topics::create_topics),
    ("create-partitions", topics::create_partitions),
    ("delete-topics", topics::delete_topics),
    ("describe-configs", configs::describe),
    ("alter-configs", configs::alter),
    ("incremental-alter-configs", configs::incremental),
    ("alter-broker-configs", configs::brokers),
    ("groups", groups::script),
    ("groups-of-several", group_members::several),
    ("groups-in-time", group_members::in_time),
    ("groups-offsets", group_members::offsets_of_several),
    ("groups-static", group_instances::script),
    ("cluster", cluster::script),
];

/// Those against Apache Kafka 4, and the settings of both brokers for them.
pub const SCRIPTS4: &[(&str, Script)] = consumer_groups::SCRIPTS;
pub const SETTINGS4: &[(&str, &str)] = consumer_groups::SETTINGS;

/// Topics that the cases share; each takes fresh partitions of them.
pub const PLAIN: &str = "plain";
pub const APPEND_TIME: &str = "append-time";
pub const BOUNDED: &str = "bounded";
pub const SMALL: &str = "small-messages";
pub const GZIP: &str = "recoded-to-gzip";
pub const UNPACKED: &str = "recoded-to-none";
/// Name, partitions and settings.
type Shared = (&'static str, i32, &'static [(&'static str, &'static str)]);
const SHARED: &[Shared] = &[
    (PLAIN, 480, &[]),
    (APPEND_TIME, 40, &[("message.timestamp.type", "LogAppendTime")]),
    (BOUNDED, 20, &[("message.timestamp.before.max.ms", "3600000"), ("message.timestamp.after.max.ms", "3600000")]),
    (SMALL, 20, &[("max.message.bytes", "2000")]),
    (GZIP, 20, &[("compression.type", "gzip")]),
    (UNPACKED, 20, &[("compression.type", "uncompressed")]),
];

pub fn prepare(pair: &mut Pair) -> Result<()> {
    pair.case("prepare");
    pair.learn_versions()?;
    let version = pair.newest::<MetadataRequest>();
    pair.same(version, |_| metadata_of(version, &[]))?;
    // Kafka fetches a block of producer ids first.
    let version = pair.newest::<InitProducerIdRequest>();
    poll("producer ids", || {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1);
        Ok(pair.exchange(version, |_| request.clone())?.all(|answer| answer.error_code == 0))
    })?;
    groups::prepare(pair)?;
    make_topics(pair, SHARED.iter().map(|(name, partitions, configs)| topic(name, *partitions, configs)).collect())
}

pub fn prepare4(pair: &mut Pair) -> Result<()> {
    pair.case("prepare");
    pair.learn_versions()?;
    groups::prepare(pair)?;
    let topics = consumer_groups::TOPICS.iter().map(|(name, partitions)| topic(name, *partitions, &[]));
    make_topics(pair, topics.collect())?;
    consumer_groups::prepare(pair)
}

/// Creates topics on both and waits until both can be written.
pub fn make_topics(pair: &mut Pair, topics: Vec<CreatableTopic>) -> Result<()> {
    let names: Vec<String> = topics.iter().map(|topic| topic.name.to_string()).collect();
    let version = pair.newest::<CreateTopicsRequest>();
    pair.same(version, |_| create(topics.clone()))?;
    learn_topics(pair, &names)
}

/// Waits until both name a leader for every partition of the topics, and remembers their ids.
pub fn learn_topics(pair: &mut Pair, names: &[String]) -> Result<()> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let version = pair.newest::<MetadataRequest>();
    poll("leaders of new topics", || {
        let answers = pair.exchange(version, |_| metadata_of(version, &names))?;
        Ok(answers.all(|answer| {
            answer.topics.iter().all(|topic| {
                topic.error_code == 0 && topic.partitions.iter().all(|partition| partition.error_code == 0)
            })
        }))
    })?;
    let answers = pair.same(version, |_| metadata_of(version, &names))?;
    for (side, answer) in pair.sides.iter_mut().zip(&answers.0) {
        for topic in answer.iter().flat_map(|answer| &answer.topics) {
            side.learn_topic_id(topic.name.as_ref().map_or("", |name| name), topic.topic_id);
        }
    }
    Ok(())
}

/// Asks again until both are so far; what happens behind an answer takes a moment.
pub fn poll(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !done()? {
        if began.elapsed() > Duration::from_secs(15) {
            bail!("waited 15 s for: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Compares what a partition holds: its records from the start, and its first and last offsets.
pub fn same_log(pair: &mut Pair, topic: &str, partition: i32) -> Result<()> {
    let version = pair.newest::<FetchRequest>();
    pair.same(version, |side| fetch(side, version, &[from(topic, partition, 0)]))?;
    let version = pair.newest::<ListOffsetsRequest>();
    for timestamp in [-2, -1] {
        pair.same(version, |_| list_offsets(version, topic, &[(partition, timestamp, -1)]))?;
    }
    Ok(())
}

/// Runs a script's part in every version that both serve.
pub fn each_version<R: Request>(pair: &mut Pair, script: impl Fn(&mut Pair, i16) -> Result<()>) -> Result<()> {
    for version in pair.versions::<R>() {
        script(pair, version)?;
    }
    Ok(())
}
