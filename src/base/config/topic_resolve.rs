//! From a broker's settings and a topic's own to what the topic runs with.

use super::error::ConfigError;
use super::key::Check;
use super::keys::{broker_synonym_of_topic, topic_key, topic_keys};
use super::settings::{Settings, Texts};
use super::topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
use super::value::Value;
use std::collections::HashMap;

/// The values of all of a topic's settings, by name.
pub(super) type TopicValues = HashMap<&'static str, Value>;

/// What topics have where they set nothing themselves (`KafkaConfig.extractLogConfigMap`), checked by the topics'
/// own rules, so that a broker that starts can create topics.
pub(super) fn defaults_of(settings: &Settings) -> Result<TopicValues, ConfigError> {
    let mut values = TopicValues::new();
    for key in topic_keys() {
        let value = match derived(settings, key.name) {
            Some(value) => value,
            None => match broker_synonym_of_topic(key.name) {
                Some(broker) => settings.value(broker).clone(),
                None => Value::default_of(key).expect("every setting of a topic has a default"),
            },
        };
        if key.check != Check::Any {
            let name = broker_synonym_of_topic(key.name).unwrap_or(key.name);
            Value::parse(key, &value.to_string())
                .map_err(|error| ConfigError::invalid(name, value.to_string(), error.reason()))?;
        }
        values.insert(key.name, value);
    }
    check_together(&values).map_err(|error| match error {
        ConfigError::Invalid { name, value, reason } => {
            let name = broker_synonym_of_topic(&name).map_or(name.clone(), str::to_owned);
            ConfigError::Invalid { name, value, reason }
        }
        other => other,
    })?;
    Ok(values)
}

/// The broker's values with the topic's own over them.
pub(super) fn values_of(defaults: &TopicValues, overrides: &Texts) -> Result<TopicValues, ConfigError> {
    let mut values = defaults.clone();
    if let Some(unknown) = overrides.keys().find(|name| topic_key(name).is_none()) {
        return Err(ConfigError::UnknownTopicKey(unknown.clone()));
    }
    for (name, text) in overrides {
        let Some(key) = topic_key(name) else { continue };
        values.insert(key.name, Value::parse(key, text)?);
    }
    check_together(&values)?;
    Ok(values)
}

/// The typed form.
pub(super) fn typed(values: &TopicValues) -> TopicConfig {
    let integer = |name: &str| values[name].as_i64();
    // The checks of the table leave no negative number where these are unsigned.
    let size = |name: &str| u32::try_from(integer(name)).unwrap_or(0);
    let unlimited_if_negative = |name: &str| u64::try_from(integer(name)).ok();
    let never_if_max = |name: &str| Some(integer(name)).filter(|n| *n != i64::MAX);
    let difference = integer("message.timestamp.difference.max.ms");
    // While the older name lives, it supplies what the newer two leave at their default.
    let timestamp = |name: &str| if integer(name) == i64::MAX { difference } else { integer(name) };
    let policy = values["cleanup.policy"].as_list();
    TopicConfig {
        cleanup_policy: CleanupPolicy {
            delete: policy.iter().any(|word| word == "delete"),
            compact: policy.iter().any(|word| word == "compact"),
        },
        compression_type: compression(values),
        delete_retention_ms: integer("delete.retention.ms"),
        file_delete_delay_ms: integer("file.delete.delay.ms"),
        flush_messages: never_if_max("flush.messages"),
        flush_ms: never_if_max("flush.ms"),
        index_interval_bytes: size("index.interval.bytes"),
        max_compaction_lag_ms: integer("max.compaction.lag.ms"),
        max_message_bytes: size("max.message.bytes"),
        message_timestamp_type: match values["message.timestamp.type"].as_str() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        message_timestamp_before_max_ms: timestamp("message.timestamp.before.max.ms"),
        message_timestamp_after_max_ms: timestamp("message.timestamp.after.max.ms"),
        min_cleanable_dirty_ratio: values["min.cleanable.dirty.ratio"].as_f64(),
        min_compaction_lag_ms: integer("min.compaction.lag.ms"),
        preallocate: values["preallocate"].as_bool(),
        retention_bytes: unlimited_if_negative("retention.bytes"),
        retention_ms: unlimited_if_negative("retention.ms"),
        segment_bytes: size("segment.bytes"),
        segment_index_bytes: size("segment.index.bytes"),
        segment_jitter_ms: integer("segment.jitter.ms"),
        segment_ms: integer("segment.ms"),
        unclean_leader_election_enable: values["unclean.leader.election.enable"].as_bool(),
    }
}

/// Defaults that are more than another setting's value.
fn derived(settings: &Settings, topic: &str) -> Option<Value> {
    const HOUR_MS: i64 = 3_600_000;
    let long = |name: &str| settings.get(name).map(Value::as_i64);
    let hours = |name: &str| settings.integer(name) * HOUR_MS;
    Some(Value::Long(match topic {
        "segment.ms" => long("log.roll.ms").unwrap_or_else(|| hours("log.roll.hours")),
        "segment.jitter.ms" => long("log.roll.jitter.ms").unwrap_or_else(|| hours("log.roll.jitter.hours")),
        "flush.ms" => {
            long("log.flush.interval.ms").unwrap_or_else(|| settings.integer("log.flush.scheduler.interval.ms"))
        }
        "retention.ms" => long("log.retention.ms")
            .or_else(|| long("log.retention.minutes").map(|minutes| minutes * 60_000))
            .unwrap_or_else(|| hours("log.retention.hours"))
            .max(-1),
        "message.timestamp.before.max.ms" | "message.timestamp.after.max.ms" => {
            match settings.integer(&format!("log.{topic}")) {
                i64::MAX => settings.integer("log.message.timestamp.difference.max.ms"),
                own => own,
            }
        }
        // Ignored since 3.0, whatever is set.
        "message.format.version" => return topic_key(topic).and_then(Value::default_of),
        _ => return None,
    }))
}

fn compression(values: &TopicValues) -> CompressionType {
    let level = |name: &str| i32::try_from(values[name].as_i64()).unwrap_or(0);
    match values["compression.type"].as_str() {
        "uncompressed" => CompressionType::Uncompressed,
        "gzip" => CompressionType::Gzip { level: level("compression.gzip.level") },
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4 { level: level("compression.lz4.level") },
        "zstd" => CompressionType::Zstd { level: level("compression.zstd.level") },
        _ => CompressionType::Producer,
    }
}

/// What Kafka's LogConfig.validate refuses of a topic as a whole, and what is not built.
fn check_together(values: &TopicValues) -> Result<(), ConfigError> {
    let (min, max) = (values["min.compaction.lag.ms"].as_i64(), values["max.compaction.lag.ms"].as_i64());
    if min > max {
        return Err(ConfigError::Conflict(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
        )));
    }
    if values["remote.log.delete.on.disable"].as_bool() || values["remote.log.copy.disable"].as_bool() {
        return Err(ConfigError::Conflict(
            "It is invalid to set `remote.log.delete.on.disable` or `remote.log.copy.disable` under Zookeeper's mode."
                .into(),
        ));
    }
    if values["remote.storage.enable"].as_bool() {
        return Err(ConfigError::Refused(
            "Tiered Storage functionality is disabled in the broker. \
             Topic cannot be configured with remote log storage."
                .into(),
        ));
    }
    Ok(())
}
