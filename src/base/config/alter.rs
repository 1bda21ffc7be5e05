//! AlterConfigs and IncrementalAlterConfigs of brokers: whether settings may be changed while a node runs.

use super::broker::BrokerConfig;
use super::error::ConfigError;
use super::key::{Effect, Key, Update};
use super::keys::broker_key;
use super::settings::Texts;
use super::value::Value;

/// Checks what is to become all of the dynamic settings of this node (`for_all` false) or of all nodes (`for_all`
/// true), in Kafka's order and words (`DynamicBrokerConfig.validate`). The caller answers INVALID_REQUEST.
/// Unknown names are accepted, as Kafka does for the sake of plugins.
pub fn check_broker_settings(broker: &BrokerConfig, settings: &Texts, for_all: bool) -> Result<(), ConfigError> {
    let named = |test: &dyn Fn(&Key) -> bool| -> Vec<&str> {
        settings.keys().filter_map(|name| broker_key(name)).filter(|key| test(key)).map(|key| key.name).collect()
    };
    let refuse_as = |set: &str, why: &str, names: Vec<&str>| match names.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::Refused(format!("{why}: {set}({})", names.join(", ")))),
    };
    let refuse = |why: &str, names: Vec<&str>| refuse_as("Set", why, names);
    refuse("Cannot update these configs dynamically", named(&|key| key.update == Update::ReadOnly))?;
    refuse_as(
        "HashSet",
        "These security configs can be dynamically updated only per-listener using the listener prefix",
        named(&|key| key.name.starts_with("ssl.")),
    )?;
    if let Some(name) = settings.keys().find(|name| name.starts_with("listener.name.")) {
        return Err(ConfigError::Refused(format!("{name}: settings of a single listener are not built yet")));
    }
    for (name, text) in settings {
        let Some(key) = broker_key(name) else { continue };
        let value = Value::parse(key, text)?;
        if let Effect::NotBuilt(why) = key.effect
            && Value::default_of(key).as_ref() != Some(&value)
        {
            let (name, value) = (name.clone(), value.to_string());
            return Err(ConfigError::NotBuilt { name, value, reason: why.to_owned() });
        }
    }
    if for_all {
        refuse(
            "Cannot update these configs at default cluster level, broker id must be specified",
            named(&|key| key.update == Update::PerBroker),
        )?;
    }
    // Sockets are bound once, at the start.
    refuse("Cannot update these configs dynamically", named(&|key| key.update == Update::PerBroker))?;
    let (defaults, own) = match for_all {
        true => (settings, &broker.settings().dynamic_node),
        false => (&broker.settings().dynamic_defaults, settings),
    };
    // What is stored already was sound when it was stored; only these settings can be at fault.
    match broker.with_dynamic(defaults, own).1.into_iter().next() {
        Some((name, error)) => Err(ConfigError::Refused(in_kafkas_words(&name, &error))),
        None => Ok(()),
    }
}

/// Kafka's words for settings that are refused only in company (`KafkaConfig.validateValues`).
fn in_kafkas_words(name: &str, error: &ConfigError) -> String {
    let requirement = match name {
        "log.retention.ms" => "log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        "log.roll.ms" => "log.roll.ms must be greater than or equal to 1",
        "log.roll.jitter.ms" => "log.roll.jitter.ms must be greater than or equal to 0",
        "max.connections.per.ip" => {
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set."
        }
        _ => return error.to_string(),
    };
    format!("requirement failed: {requirement}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn broker_refuses(name: &str, text: &str, for_all: bool) -> String {
        check_broker_settings(&BrokerConfig::default(), &texts(&[(name, text)]), for_all)
            .expect_err("must be refused")
            .to_string()
    }

    /// Texts that Apache Kafka 3.9.1 answered to the same requests.
    #[test]
    fn topics_are_refused_in_kafkas_words() {
        let resolve = |name: &str, text: &str| {
            crate::base::config::TopicConfig::resolve(&BrokerConfig::default(), &texts(&[(name, text)]))
        };
        let refused = |name: &str, text: &str| resolve(name, text).expect_err("must be refused").to_string();
        for (name, text, answer) in [
            ("nope", "1", "Unknown topic config name: nope"),
            ("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
            ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
            ("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"),
            (
                "cleanup.policy",
                "delete,foo",
                "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                "min.cleanable.dirty.ratio",
                "2",
                "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "compression.type",
                "bzip2",
                "Invalid value bzip2 for configuration compression.type: String must be one of: \
                 uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            (
                "leader.replication.throttled.replicas",
                "a:b",
                "Invalid value [a:b] for configuration leader.replication.throttled.replicas: \
                 leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following \
                 format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
            (
                "preallocate",
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "remote.storage.enable",
                "true",
                "Tiered Storage functionality is disabled in the broker. \
                 Topic cannot be configured with remote log storage.",
            ),
            (
                "message.format.version",
                "9.9",
                "Invalid value 9.9 for configuration message.format.version: Version 9.9 is not a valid version",
            ),
            ("segment.bytes", "13", "Invalid value 13 for configuration segment.bytes: Value must be at least 14"),
            (
                "segment.bytes",
                "99999999999",
                "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT",
            ),
        ] {
            assert_eq!(refused(name, text), answer);
        }
        for (name, text) in [("cleanup.policy", ""), ("min.cleanable.dirty.ratio", "1e-5"), ("preallocate", " TRUE ")] {
            resolve(name, text).expect("Kafka accepts it");
        }
    }

    #[test]
    fn compaction_is_resolved() {
        let compact = texts(&[("cleanup.policy", "compact,delete"), ("min.cleanable.dirty.ratio", "0.1")]);
        let topic = crate::base::config::TopicConfig::resolve(&BrokerConfig::default(), &compact).expect("sound");
        assert!(topic.cleanup_policy.compact && topic.cleanup_policy.delete);
        assert_eq!((topic.min_cleanable_dirty_ratio, topic.max_compaction_lag_ms), (0.1, i64::MAX));
        assert_eq!(topic.segment_ms_max(), topic.segment_ms);
        let hasty = texts(&[("cleanup.policy", "compact"), ("max.compaction.lag.ms", "500")]);
        let topic = crate::base::config::TopicConfig::resolve(&BrokerConfig::default(), &hasty).expect("sound");
        assert_eq!(topic.segment_ms_max(), 500, "the active segment must end in time");
    }

    #[test]
    fn contradictions_of_a_topic_are_refused() {
        let lags = texts(&[("max.compaction.lag.ms", "5"), ("min.compaction.lag.ms", "50")]);
        let error = crate::base::config::TopicConfig::resolve(&BrokerConfig::default(), &lags).expect_err("contradict");
        assert_eq!(
            error.to_string(),
            "conflict topic config setting min.compaction.lag.ms (50) > max.compaction.lag.ms (5)"
        );
        assert!(!error.names_resource());
    }

    /// Texts that Apache Kafka 3.9.1 answered to the same requests.
    #[test]
    fn brokers_are_refused_in_kafkas_words() {
        for (name, text, for_all, answer) in [
            ("broker.id", "3", false, "Cannot update these configs dynamically: Set(broker.id)"),
            ("log.retention.hours", "3", true, "Cannot update these configs dynamically: Set(log.retention.hours)"),
            (
                "log.retention.ms",
                "0",
                true,
                "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
            ),
            ("log.roll.ms", "0", false, "requirement failed: log.roll.ms must be greater than or equal to 1"),
            (
                "ssl.keystore.location",
                "/x",
                true,
                "These security configs can be dynamically updated only per-listener using the listener prefix: \
                 HashSet(ssl.keystore.location)",
            ),
            (
                "listeners",
                "PLAINTEXT://:1",
                true,
                "Cannot update these configs at default cluster level, broker id must be specified: Set(listeners)",
            ),
            (
                "log.segment.bytes",
                "3",
                true,
                "Invalid value 3 for configuration log.segment.bytes: Value must be at least 14",
            ),
            (
                "max.connections",
                "-1",
                false,
                "Invalid value -1 for configuration max.connections: Value must be at least 0",
            ),
        ] {
            assert_eq!(broker_refuses(name, text, for_all), answer);
        }
    }

    #[test]
    fn brokers_are_refused_what_is_not_built() {
        for (name, text) in [
            ("listeners", "PLAINTEXT://:1"),
            ("listener.name.plaintext.max.connections", "5"),
            ("metric.reporters", "x.Y"),
            ("shards", "3"),
        ] {
            broker_refuses(name, text, false);
        }
    }

    /// Ours that may be changed were refused with those that may not.
    #[test]
    fn scrubbing_is_steered_while_a_node_runs() {
        let settings = texts(&[("log.scrub.enable", "false"), ("log.scrub.max.bytes.per.second", "100000")]);
        check_broker_settings(&BrokerConfig::default(), &settings, true).expect("sound");
        let (broker, refused) = BrokerConfig::default().with_dynamic(&settings, &Texts::new());
        assert_eq!((refused.len(), broker.scrub_enable, broker.scrub_bytes_per_second), (0, false, 100_000));
        broker_refuses("log.scrub.max.bytes.per.second", "0", true);
        broker_refuses("log.flush.method", "fdatasync", true);
    }

    #[test]
    fn dynamic_settings_reach_brokers_and_topics() {
        let broker = BrokerConfig::default();
        let settings = texts(&[("log.retention.ms", "-5"), ("max.connections", "7"), ("plugin.of.mine", "x")]);
        check_broker_settings(&broker, &settings, true).expect("sound");
        let (broker, refused) = broker.with_dynamic(&settings, &Texts::new());
        assert_eq!(refused, []);
        assert_eq!(broker.max_connections, 7);
        assert_eq!(broker.topic_defaults.retention_ms, None, "any negative number is for ever");
        let (broker, refused) = broker.with_dynamic(&texts(&[("max.connections", "many")]), &Texts::new());
        assert_eq!(refused.len(), 1, "what is unsound is left out");
        assert_eq!(broker.max_connections, i32::MAX as u32);
    }
}
