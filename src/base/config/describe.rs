//! DescribeConfigs: each setting with its value, where it comes from, and the other names and layers that it could
//! have come from (`ConfigHelper` of Kafka 3.9, quirks included, since tools compare field by field).

use super::broker::BrokerConfig;
use super::error::ConfigError;
use super::key::{Key, Type};
use super::keys::{broker_key, broker_keys, broker_synonym_of_topic, broker_synonyms, is_dynamic_only, topic_keys};
use super::settings::{Settings, Texts};
use super::topic_resolve;

/// Where a value comes from; the numbers are the protocol's (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
}

/// One setting as DescribeConfigs answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// None where it is null, or not to be shown.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub is_sensitive: bool,
    pub read_only: bool,
    /// The protocol's number of the type; 0 for a name that is not in the table.
    pub config_type: i8,
    /// In order of precedence, the value in force first.
    pub synonyms: Vec<ConfigSynonym>,
    /// Our own words; None for a name that is not in the table.
    pub documentation: Option<&'static str>,
}

/// A name and layer that a value could come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// All settings of a topic, by name. `overrides` are its own.
pub fn describe_topic(broker: &BrokerConfig, overrides: &Texts) -> Result<Vec<ConfigEntry>, ConfigError> {
    let values = topic_resolve::values_of(&broker.topic_values, overrides)?;
    let entry = |key: &'static Key| {
        let value = Some(values[key.name].to_string());
        let mut synonyms = Vec::new();
        if overrides.contains_key(key.name) {
            synonyms.push(ConfigSynonym {
                name: key.name.to_owned(),
                value: value.clone(),
                source: ConfigSource::Topic,
            });
        }
        if let Some(name) = broker_synonym_of_topic(key.name) {
            synonyms.extend(synonyms_of(&broker.settings, name, broker_synonyms(name), false));
        }
        ConfigEntry {
            name: key.name.to_owned(),
            value,
            source: source_of(&synonyms),
            is_sensitive: false,
            read_only: false,
            config_type: key.kind.wire_id(),
            synonyms,
            documentation: Some(key.doc),
        }
    };
    Ok(topic_keys().map(entry).collect())
}

/// All settings of this node, by name: Kafka's hidden ones only where they are set, unknown ones that are set too.
pub fn describe_broker(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    let settings = &broker.settings;
    let is_set = |name: &str| {
        [&settings.statics, &settings.dynamic_defaults, &settings.dynamic_node]
            .iter()
            .any(|layer| layer.contains_key(name))
    };
    let shown = |key: &&Key| is_set(key.name) || !(key.internal || is_dynamic_only(key.name));
    let mut entries: Vec<ConfigEntry> = broker_keys().filter(shown).map(|key| known(settings, key)).collect();
    let layers = [&settings.statics, &settings.dynamic_defaults, &settings.dynamic_node];
    let mut others: Vec<&String> =
        layers.iter().flat_map(|layer| layer.keys()).filter(|name| broker_key(name).is_none()).collect();
    others.sort();
    others.dedup();
    entries.extend(others.into_iter().map(|name| unknown(settings, name)));
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    entries
}

/// The dynamic settings of all nodes: what DescribeConfigs answers for the empty broker name.
pub fn describe_broker_defaults(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    let settings = &broker.settings;
    let entry = |(name, text): (&String, &String)| {
        let mut entry = match broker_key(name) {
            Some(key) => known(settings, key),
            None => unknown(settings, name),
        };
        entry.value = Some(text.clone()).filter(|_| !entry.is_sensitive);
        entry.synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
        entry.source = source_of(&entry.synonyms);
        entry
    };
    settings.dynamic_defaults.iter().map(entry).collect()
}

fn known(settings: &Settings, key: &'static Key) -> ConfigEntry {
    let sensitive = key.is_sensitive();
    let synonyms = synonyms_of(settings, key.name, broker_synonyms(key.name), sensitive);
    ConfigEntry {
        name: key.name.to_owned(),
        value: settings.get(key.name).map(ToString::to_string).filter(|_| !sensitive),
        source: source_of(&synonyms),
        is_sensitive: sensitive,
        read_only: key.is_read_only() || is_dynamic_only(key.name),
        config_type: key.kind.wire_id(),
        synonyms,
        documentation: Some(key.doc),
    }
}

/// A name that is not in the table has no type, and is therefore hidden as if it were a password.
fn unknown(settings: &Settings, name: &str) -> ConfigEntry {
    let synonyms = synonyms_of(settings, name, &[name], true);
    ConfigEntry {
        name: name.to_owned(),
        value: None,
        source: source_of(&synonyms),
        is_sensitive: true,
        read_only: true,
        config_type: 0,
        synonyms,
        documentation: None,
    }
}

fn source_of(synonyms: &[ConfigSynonym]) -> ConfigSource {
    synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source)
}

/// Layer by layer, each name within it. What stands before the first entry of `name` itself is left out, as Kafka
/// does: a file's log.roll.hours is not reported as the source of log.roll.ms.
fn synonyms_of(settings: &Settings, name: &str, names: &[&str], sensitive: bool) -> Vec<ConfigSynonym> {
    let layers = [
        (&settings.dynamic_node, ConfigSource::DynamicBroker),
        (&settings.dynamic_defaults, ConfigSource::DynamicDefaultBroker),
        (&settings.statics, ConfigSource::StaticBroker),
    ];
    let hidden = |text: &str| Some(text.to_owned()).filter(|_| !sensitive);
    let mut synonyms = Vec::new();
    for (layer, source) in layers {
        for synonym in names {
            if let Some(text) = layer.get(*synonym) {
                synonyms.push(ConfigSynonym { name: (*synonym).to_owned(), value: hidden(text), source });
            }
        }
    }
    for key in names.iter().filter_map(|synonym| broker_key(synonym)).filter(|key| !is_dynamic_only(key.name)) {
        // A default of null is no entry.
        if let Some(text) = key.default {
            synonyms.push(ConfigSynonym {
                name: key.name.to_owned(),
                value: hidden(text),
                source: ConfigSource::Default,
            });
        }
    }
    synonyms.into_iter().skip_while(|synonym| synonym.name != name).collect()
}

/// The type's name, for people.
pub fn type_name(wire_id: i8) -> &'static str {
    const TYPES: [Type; 9] = [
        Type::Bool,
        Type::Str,
        Type::Int,
        Type::Short,
        Type::Long,
        Type::Double,
        Type::List,
        Type::Class,
        Type::Password,
    ];
    TYPES.iter().find(|kind| kind.wire_id() == wire_id).map_or("UNKNOWN", |kind| kind.name())
}

#[cfg(test)]
mod tests {
    use super::super::keys::{DEFAULTS_OF_OUR_OWN, is_own};
    use super::*;

    /// What Apache Kafka 3.9.1 answered; tag, name, value, source, sensitive, read-only, type, synonyms, parted by tabs.
    /// 1 is after its start with `STATICS`, 2 with the dynamic settings of `dynamic()` on top.
    const KAFKA: &str = include_str!("testdata/kafka-3.9.1-describe.tsv");

    const STATICS: &[(&str, &str)] = &[
        ("broker.id", "0"),
        ("listeners", "PLAINTEXT://127.0.0.1:39092"),
        ("log.dirs", "/data"),
        ("zookeeper.connect", "127.0.0.1:32181"),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("log.roll.hours", "100"),
        ("log.retention.minutes", "5000"),
        ("log.cleanup.policy", "delete"),
        ("num.partitions", "3"),
        ("foo.bar", "baz"),
    ];

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn topic() -> Texts {
        texts(&[("retention.ms", "+77"), ("segment.ms", "1000"), ("cleanup.policy", " delete ")])
    }

    fn started() -> BrokerConfig {
        BrokerConfig::from_texts(texts(STATICS)).expect("sound")
    }

    fn dynamic() -> BrokerConfig {
        let defaults = texts(&[
            ("log.retention.ms", "123456"),
            ("num.io.threads", "9"),
            ("my.own", "x"),
            ("compression.type", "gzip"),
        ]);
        let node =
            texts(&[("log.roll.ms", "7000"), ("max.connections", "55"), ("leader.replication.throttled.rate", "5")]);
        let (broker, refused) = started().with_dynamic(&defaults, &node);
        assert_eq!(refused, []);
        broker
    }

    fn line(tag: &str, entry: &ConfigEntry) -> String {
        let source = |source: ConfigSource| match source {
            ConfigSource::Topic => "DYNAMIC_TOPIC_CONFIG",
            ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG",
            ConfigSource::Default => "DEFAULT_CONFIG",
        };
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".into());
        let synonyms: Vec<String> = entry
            .synonyms
            .iter()
            .map(|one| format!("{}={}@{}", one.name, shown(&one.value), source(one.source)))
            .collect();
        [
            tag,
            &entry.name,
            &shown(&entry.value),
            source(entry.source),
            &entry.is_sensitive.to_string(),
            &entry.read_only.to_string(),
            type_name(entry.config_type),
            &synonyms.join(" "),
        ]
        .join("\t")
    }

    fn compare(tag: &str, entries: &[ConfigEntry]) {
        let ours = |name: &str| is_own(name) || DEFAULTS_OF_OUR_OWN.iter().any(|(own, _)| *own == name);
        let kafka: Vec<&str> = KAFKA
            .lines()
            .filter(|line| line.split('\t').next() == Some(tag))
            .filter(|line| !ours(line.split('\t').nth(1).unwrap_or("")))
            .collect();
        let answered: Vec<String> =
            entries.iter().filter(|entry| !ours(&entry.name)).map(|entry| line(tag, entry)).collect();
        for (ours, kafkas) in answered.iter().zip(&kafka) {
            assert_eq!(ours, kafkas);
        }
        assert_eq!(answered.len(), kafka.len());
    }

    /// They were told as null, although every node has some.
    #[test]
    fn shards_and_cores_are_told_as_they_are() {
        let broker = BrokerConfig::default().in_effect(4, 2);
        let (altered, refused) = broker.with_dynamic(&Texts::new(), &[("num.io.threads".into(), "9".into())].into());
        assert!(refused.is_empty(), "{refused:?}");
        for config in [broker, altered] {
            let entries = describe_broker(&config);
            let value = |name: &str| entries.iter().find(|entry| entry.name == name).and_then(|e| e.value.as_deref());
            assert_eq!((value("shards"), value("cores")), (Some("4"), Some("2")));
            assert_eq!((config.shards, config.cores), (Some(4), Some(2)));
        }
    }

    #[test]
    fn a_broker_describes_itself_as_kafka_does() {
        compare("BROKER1", &describe_broker(&started()));
        compare("BROKER2", &describe_broker(&dynamic()));
        assert_eq!(describe_broker_defaults(&started()), []);
        compare("DEFAULT2", &describe_broker_defaults(&dynamic()));
    }

    #[test]
    fn a_topic_is_described_as_kafka_does() {
        compare("TOPIC1", &describe_topic(&started(), &topic()).expect("sound"));
        compare("TOPIC2", &describe_topic(&dynamic(), &topic()).expect("sound"));
    }
}
