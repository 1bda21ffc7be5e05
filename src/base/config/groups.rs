//! Settings of consumer groups and of the topic that holds them.

use super::error::ConfigError;
use super::settings::Settings;

/// As Kafka names and means them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub session_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_delay_ms: i64,
    /// `group.max.size`
    pub members_max: usize,
    /// `offset.metadata.max.bytes`
    pub metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in ms.
    pub retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub retention_check_ms: u64,
    /// `offsets.topic.num.partitions`
    pub topic_partitions: i32,
    /// `offsets.topic.replication.factor`
    pub topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`
    pub topic_segment_bytes: i64,
    /// `group.consumer.session.timeout.ms`
    pub consumer_session_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`
    pub consumer_heartbeat_ms: i32,
    /// `group.consumer.max.size`
    pub consumer_members_max: usize,
    /// `group.consumer.assignors`: short names or Kafka's classes.
    pub consumer_assignors: Vec<String>,
    /// `group.consumer.migration.policy`, in any case.
    pub consumer_migration_policy: String,
}

impl GroupConfig {
    pub(super) fn of(settings: &Settings) -> GroupConfig {
        let int = |name: &str| i32::try_from(settings.integer(name)).unwrap_or(i32::MAX);
        let size = |name: &str| usize::try_from(settings.integer(name)).unwrap_or(0);
        GroupConfig {
            session_min_ms: int("group.min.session.timeout.ms"),
            session_max_ms: int("group.max.session.timeout.ms"),
            initial_delay_ms: settings.integer("group.initial.rebalance.delay.ms").max(0),
            members_max: size("group.max.size"),
            metadata_bytes_max: size("offset.metadata.max.bytes"),
            retention_ms: settings.integer("offsets.retention.minutes").saturating_mul(60_000),
            retention_check_ms: u64::try_from(settings.integer("offsets.retention.check.interval.ms")).unwrap_or(1),
            topic_partitions: int("offsets.topic.num.partitions"),
            topic_replication_factor: i16::try_from(int("offsets.topic.replication.factor")).unwrap_or(i16::MAX),
            topic_segment_bytes: settings.integer("offsets.topic.segment.bytes"),
            consumer_session_ms: int("group.consumer.session.timeout.ms"),
            consumer_heartbeat_ms: int("group.consumer.heartbeat.interval.ms"),
            consumer_members_max: size("group.consumer.max.size"),
            consumer_migration_policy: settings.text("group.consumer.migration.policy").unwrap_or_default().to_owned(),
            consumer_assignors: settings.value("group.consumer.assignors").as_list().to_vec(),
        }
    }
}

/// What Kafka's GroupCoordinatorConfig refuses of settings that are fine each by itself: bounds that are none, and what lies
/// outside of them.
pub(super) fn check_together(settings: &Settings) -> Vec<(String, ConfigError)> {
    let mut refused = Vec::new();
    for what in ["session.timeout.ms", "heartbeat.interval.ms"] {
        let [name, min, max] = ["", "min.", "max."].map(|bound| format!("group.consumer.{bound}{what}"));
        let (value, least, most) = (settings.integer(&name), settings.integer(&min), settings.integer(&max));
        if most < least {
            let reason = format!("must be at least {min}, which is {least}");
            refused.push((max.clone(), ConfigError::invalid(&max, most.to_string(), reason)));
        } else if !(least..=most).contains(&value) {
            let reason = format!("must be {least} to {most}, as {min} and {max} have it");
            refused.push((name.clone(), ConfigError::invalid(&name, value.to_string(), reason)));
        }
    }
    refused
}
