//! The one table of settings: names, types, defaults and bounds as in Kafka 3.9, grouped by subject.
//!
//! Parsing, DescribeConfigs, the checks of AlterConfigs and the reference page all read it.
//! Where a default differs from Kafka's on purpose, [`DEFAULTS_OF_OUR_OWN`] says so.

mod groups;
mod log;
mod metadata;
mod network;
mod own;
mod reason;
mod replication;
mod security;
mod server;
mod tiered;
mod topic;

use super::key::Key;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Broker settings whose default is not Kafka's, and why.
pub const DEFAULTS_OF_OUR_OWN: &[(&str, &str)] = &[
    ("log.dir", "data must not lie in a directory that a reboot empties"),
    ("socket.send.buffer.bytes", "a fixed size switches off the kernel's own tuning"),
    ("socket.receive.buffer.bytes", "a fixed size switches off the kernel's own tuning"),
];

/// The setting of a broker that bears this name.
pub fn broker_key(name: &str) -> Option<&'static Key> {
    BROKER_INDEX.get(name).copied()
}

/// The setting of a topic that bears this name.
pub fn topic_key(name: &str) -> Option<&'static Key> {
    TOPIC_INDEX.get(name).copied()
}

/// Every setting of a broker, Kafka's first and our own last.
pub fn broker_keys() -> impl Iterator<Item = &'static Key> {
    BROKER_GROUPS.iter().flat_map(|group| group.iter())
}

/// Every setting of a topic, by name.
pub fn topic_keys() -> impl Iterator<Item = &'static Key> {
    topic::KEYS.iter()
}

/// Settings that Kafka has only as dynamic ones: no line of server.properties sets them, and nothing describes them
/// until they are set.
pub fn is_dynamic_only(name: &str) -> bool {
    matches!(
        name,
        "leader.replication.throttled.rate"
            | "follower.replication.throttled.rate"
            | "replica.alter.log.dirs.io.max.bytes.per.second"
    )
}

/// Whether the setting is ours rather than Kafka's.
pub fn is_own(name: &str) -> bool {
    own::KEYS.iter().any(|key| key.name == name)
}

/// The names under which one broker setting may be given, the strongest first (the name itself where it is alone).
pub fn broker_synonyms(name: &'static str) -> &'static [&'static str] {
    const GROUPS: &[&[&str]] = &[
        &["log.roll.ms", "log.roll.hours"],
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    ];
    // The scheduler's interval is a default of the flush interval, but not the other way round.
    if name == "log.flush.interval.ms" {
        return &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"];
    }
    match GROUPS.iter().find(|group| group.contains(&name)) {
        Some(group) => group,
        None => std::slice::from_ref(&broker_key(name).expect("synonyms are asked for names of the table").name),
    }
}

/// The strongest broker setting that supplies the default of a topic's setting (`ServerTopicConfigSynonyms`).
pub fn broker_synonym_of_topic(name: &str) -> Option<&'static str> {
    TOPIC_DEFAULTS.iter().find(|(topic, _)| *topic == name).map(|(_, broker)| *broker)
}

const TOPIC_DEFAULTS: &[(&str, &str)] = &[
    ("cleanup.policy", "log.cleanup.policy"),
    ("compression.gzip.level", "compression.gzip.level"),
    ("compression.lz4.level", "compression.lz4.level"),
    ("compression.type", "compression.type"),
    ("compression.zstd.level", "compression.zstd.level"),
    ("delete.retention.ms", "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", "log.segment.delete.delay.ms"),
    ("flush.messages", "log.flush.interval.messages"),
    ("flush.ms", "log.flush.interval.ms"),
    ("index.interval.bytes", "log.index.interval.bytes"),
    ("local.retention.bytes", "log.local.retention.bytes"),
    ("local.retention.ms", "log.local.retention.ms"),
    ("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    ("max.message.bytes", "message.max.bytes"),
    ("message.downconversion.enable", "log.message.downconversion.enable"),
    ("message.format.version", "log.message.format.version"),
    ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
    ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
    ("message.timestamp.difference.max.ms", "log.message.timestamp.difference.max.ms"),
    ("message.timestamp.type", "log.message.timestamp.type"),
    ("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
    ("min.insync.replicas", "min.insync.replicas"),
    ("preallocate", "log.preallocate"),
    ("retention.bytes", "log.retention.bytes"),
    ("retention.ms", "log.retention.ms"),
    ("segment.bytes", "log.segment.bytes"),
    ("segment.index.bytes", "log.index.size.max.bytes"),
    ("segment.jitter.ms", "log.roll.jitter.ms"),
    ("segment.ms", "log.roll.ms"),
    ("unclean.leader.election.enable", "unclean.leader.election.enable"),
];

const BROKER_GROUPS: &[&[Key]] = &[
    server::KEYS,
    network::KEYS,
    log::KEYS,
    replication::KEYS,
    groups::KEYS,
    metadata::KEYS,
    security::KEYS,
    tiered::KEYS,
    own::KEYS,
];

static BROKER_INDEX: LazyLock<HashMap<&'static str, &'static Key>> =
    LazyLock::new(|| broker_keys().map(|key| (key.name, key)).collect());

static TOPIC_INDEX: LazyLock<HashMap<&'static str, &'static Key>> =
    LazyLock::new(|| topic_keys().map(|key| (key.name, key)).collect());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::key::Effect;
    use crate::base::config::value::Value;
    use std::collections::HashSet;

    #[test]
    fn the_table_holds_all_of_kafka_3_9_once() {
        let names: HashSet<&str> = broker_keys().map(|key| key.name).collect();
        assert_eq!(names.len(), broker_keys().count(), "a name stands twice");
        // 328 of KafkaConfig, 3 that are only dynamic, 10 of our own.
        assert_eq!(names.len(), 328 + 3 + 10);
        assert_eq!(topic_keys().count(), 36);
    }

    #[test]
    fn every_default_satisfies_its_own_row() {
        for key in broker_keys().chain(topic_keys()) {
            if let Some(text) = key.default {
                let value = Value::parse(key, text).unwrap_or_else(|e| panic!("{}: {e}", key.name));
                assert_eq!(value.to_string(), text, "{} is not written as it would be shown", key.name);
            }
        }
    }

    #[test]
    fn topic_defaults_name_broker_settings_of_the_same_type() {
        for key in topic_keys() {
            let Some(broker) = broker_synonym_of_topic(key.name) else { continue };
            let broker = broker_key(broker).unwrap_or_else(|| panic!("{broker} is not in the table"));
            assert_eq!(broker.kind, key.kind, "{}", key.name);
        }
    }

    #[test]
    fn every_row_says_what_it_is_in_one_line() {
        for key in broker_keys().chain(topic_keys()) {
            assert!(!key.doc.is_empty() && !key.doc.contains('\n') && !key.doc.ends_with('.'), "{}", key.name);
            if let Effect::NoEffect(why) | Effect::NotBuilt(why) = key.effect {
                assert!(!why.is_empty(), "{}", key.name);
            }
        }
    }
}
