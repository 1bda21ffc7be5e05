//! Reading server.properties and what the command line puts over it.
//!
//! Java's format (`java.util.Properties`): `=`, `:` or a blank parts name and value, a backslash continues a line or
//! begins an escape, `#` and `!` begin comments, bytes are Latin-1. Unlike Java, a name that stands twice is refused.

use super::broker::BrokerConfig;
use super::error::ConfigError;
use super::key::{Check, Effect, Key, Type};
use super::keys::{broker_key, broker_keys, broker_synonym_of_topic, is_dynamic_only};
use super::settings::Texts;
use super::value::Value;
use crate::base::limits::PROPERTIES_BYTES_MAX;
use java_properties::{LineContent, PropertiesIter};
use std::collections::BTreeMap;
use std::path::Path;

/// One setting as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub name: String,
    pub text: String,
    /// Where, for messages: `server.properties line 12`, `--set`.
    pub origin: String,
}

/// What a start needs from the settings.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub broker: BrokerConfig,
    /// One line each, to be said once at the start: unknown names, settings without effect.
    pub warnings: Vec<String>,
}

/// Why a node does not start: every setting at fault, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct LoadError {
    pub problems: Vec<String>,
}

/// Reads a file of settings from disk.
pub fn read_file(path: &Path) -> Result<Vec<Given>, LoadError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(PROPERTIES_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| LoadError { problems: vec![format!("{}: {error}", path.display())] })?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    parse(&name, &bytes)
}

/// The settings in the bytes of a file; `file` is its name for messages.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Given>, LoadError> {
    if bytes.len() as u64 > PROPERTIES_BYTES_MAX {
        return Err(LoadError { problems: vec![format!("{file}: more than {PROPERTIES_BYTES_MAX} bytes")] });
    }
    let mut given: Vec<Given> = Vec::new();
    let mut lines_by_name: BTreeMap<String, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for line in PropertiesIter::new(bytes) {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                problems.push(match error.line_number() {
                    Some(number) => format!("{file} line {number}: {error}"),
                    None => format!("{file}: {error}"),
                });
                break;
            }
        };
        let number = line.line_number();
        if let LineContent::KVPair(name, text) = line.consume_content() {
            if let Some(first) = lines_by_name.insert(name.clone(), number) {
                problems.push(format!("{file} line {number}: {name} stands already on line {first}; keep one of them"));
            }
            given.push(Given { name, text, origin: format!("{file} line {number}") });
        }
    }
    if problems.is_empty() { Ok(given) } else { Err(LoadError { problems }) }
}

/// One `--set name=value`.
pub fn parse_set(argument: &str) -> Result<Given, LoadError> {
    match argument.split_once('=') {
        Some((name, text)) if !name.trim().is_empty() => {
            Ok(Given { name: name.trim().to_owned(), text: text.to_owned(), origin: "--set".into() })
        }
        _ => Err(LoadError { problems: vec![format!("--set {argument}: must be NAME=VALUE")] }),
    }
}

/// Puts the command line's settings over the file's and checks all of them.
pub fn load(file: Vec<Given>, command_line: Vec<Given>) -> Result<Loaded, LoadError> {
    let mut given: BTreeMap<String, Given> = file.into_iter().map(|one| (one.name.clone(), one)).collect();
    given.extend(command_line.into_iter().map(|one| (one.name.clone(), one)));
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut without_effect: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in given.values() {
        match broker_key(&one.name) {
            Some(key) => match judge(key, one) {
                Ok(None) => {}
                Ok(Some(why)) => without_effect.entry(why).or_default().push(format!("{} ({})", one.name, one.origin)),
                Err(problem) => problems.push(problem),
            },
            None if one.name.starts_with("listener.name.") => problems.push(format!(
                "{}: {}: settings of a single listener are not built yet; remove it",
                one.origin, one.name
            )),
            None => warnings.push(unknown(one)),
        }
    }
    for (why, names) in without_effect {
        warnings.push(format!("no effect: {}: {why}", names.join(", ")));
    }
    if !problems.is_empty() {
        return Err(LoadError { problems });
    }
    let texts: Texts = given.values().map(|one| (one.name.clone(), one.text.clone())).collect();
    match BrokerConfig::from_texts(texts) {
        Ok(broker) => Ok(Loaded { broker, warnings }),
        Err(errors) => {
            Err(LoadError { problems: errors.iter().map(|(name, error)| explain(&given, name, error)).collect() })
        }
    }
}

/// Values that are no default of Kafka's and yet right on a node by itself, as its stock server.properties has them.
const RIGHT_FOR_ONE_NODE: [(&str, &str); 4] = [
    ("group.initial.rebalance.delay.ms", "0"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.replication.factor", "1"),
];

/// A single setting: an error's line, or why it has no effect.
fn judge(key: &'static Key, one: &Given) -> Result<Option<&'static str>, String> {
    let line = |reason: &str| {
        let shown = if key.is_sensitive() { "(hidden)" } else { one.text.trim() };
        format!("{}: {} = {shown}: {reason}", one.origin, one.name)
    };
    let value = Value::parse(key, &one.text).map_err(|_| line(&format!("must be {}", allowed(key))))?;
    let is_default = match key.default {
        Some(_) => Value::default_of(key).as_ref() == Some(&value),
        None => value == Value::Str(String::new()) || value == Value::List(Vec::new()),
    };
    match key.effect {
        _ if is_dynamic_only(key.name) => Ok(Some("it can only be set while the broker runs")),
        Effect::NoEffect(_) if RIGHT_FOR_ONE_NODE.contains(&(key.name, one.text.trim())) => Ok(None),
        Effect::NoEffect(why) if !is_default => Ok(Some(why)),
        Effect::NotBuilt(why) if !is_default => Err(line(why)),
        _ => Ok(None),
    }
}

/// The allowed values in words.
fn allowed(key: &Key) -> String {
    let kind = match key.kind {
        Type::Bool => "true or false",
        Type::Int | Type::Short | Type::Long => "a whole number",
        Type::Double => "a number",
        Type::List => "a list, parted by commas",
        Type::Str | Type::Class | Type::Password => "a text",
    };
    let range = match (key.kind, key.check) {
        (Type::Int, Check::Any) => format!("{} to {}", i32::MIN, i32::MAX),
        (Type::Int, Check::AtLeast(min)) => format!("{min} to {}", i32::MAX),
        (Type::Short, Check::Any) => format!("{} to {}", i16::MIN, i16::MAX),
        (Type::Short, Check::AtLeast(min)) => format!("{min} to {}", i16::MAX),
        _ => key.allowed(),
    };
    match (range.as_str(), key.check) {
        ("", _) => kind.to_owned(),
        (_, Check::OneOf(_) | Check::OneOfAnyCase(_) | Check::NonEmpty | Check::MetadataVersion) => range,
        _ => format!("{kind}, {range}"),
    }
}

/// A setting that is at fault only in company.
fn explain(given: &BTreeMap<String, Given>, name: &str, error: &ConfigError) -> String {
    match (given.get(name), error) {
        (Some(one), _) => format!("{}: {name} = {}: {}", one.origin, one.text.trim(), error.reason()),
        (None, ConfigError::Invalid { value, .. }) => format!("{name} = {value} (default): {}", error.reason()),
        (None, _) => error.to_string(),
    }
}

fn unknown(one: &Given) -> String {
    let hint = match broker_synonym_of_topic(&one.name) {
        Some(broker) => format!("a topic has it; for all topics it is {broker}"),
        None => match nearest(&one.name) {
            Some(near) => format!("perhaps {near} is meant"),
            None => "neither Kafka 3.9 nor this broker has it".to_owned(),
        },
    };
    format!("{}: unknown setting {}, ignored: {hint}", one.origin, one.name)
}

/// The name of the table that differs by at most two letters.
fn nearest(name: &str) -> Option<&'static str> {
    let near = broker_keys().map(|key| (distance(name, key.name), key.name)).min()?;
    (near.0 <= 2).then_some(near.1)
}

/// Levenshtein's distance, capped at 3: names whose lengths differ by more are not looked at.
fn distance(one: &str, other: &str) -> usize {
    if one.len().abs_diff(other.len()) > 2 {
        return 3;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Loaded, LoadError> {
        load(parse("server.properties", text.as_bytes())?, Vec::new())
    }

    fn problem(text: &str) -> String {
        load_text(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn an_impossible_value_is_refused_with_line_and_range() {
        assert_eq!(
            problem("# a comment\nbroker.id=1\n\nlog.segment.bytes : 3\n"),
            "server.properties line 4: log.segment.bytes = 3: must be a whole number, 14 to 2147483647"
        );
        assert_eq!(
            problem("num.partitions=many"),
            "server.properties line 1: num.partitions = many: must be a whole number, 1 to 2147483647"
        );
        assert_eq!(
            problem("delete.topic.enable=yes"),
            "server.properties line 1: delete.topic.enable = yes: must be true or false"
        );
        assert_eq!(
            problem("compression.type=bzip2"),
            "server.properties line 1: compression.type = bzip2: must be one of uncompressed, zstd, lz4, snappy, gzip, producer"
        );
        assert_eq!(
            problem("socket.request.max.bytes=99999999999"),
            "server.properties line 1: socket.request.max.bytes = 99999999999: must be a whole number, 1 to 2147483647"
        );
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let text = problem("num.partitions=0\nlog.roll.hours=0\nmax.connections=-1");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn javas_escapes_and_continued_lines_are_read() {
        let loaded = load_text("log.dirs = /a,\\\n   /b\nbroker.rack:\\u0041\\u00e9\n").expect("sound");
        assert_eq!(loaded.broker.log_dirs, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(loaded.broker.rack.as_deref(), Some("A\u{e9}"));
        assert!(problem("broker.rack=\\u00zz").starts_with("server.properties line 1:"));
    }

    #[test]
    fn assignors_of_groups_are_a_list() {
        let assignors = |text| load_text(text).expect("sound").broker.groups.consumer_assignors;
        let kafkas = ["UniformAssignor", "RangeAssignor"]
            .map(|name| format!("org.apache.kafka.coordinator.group.assignor.{name}"));
        assert_eq!(assignors(""), kafkas);
        assert_eq!(assignors("group.consumer.assignors=range, uniform"), ["range", "uniform"]);
    }

    #[test]
    fn a_name_may_stand_once() {
        assert_eq!(
            problem("num.partitions=1\nnum.partitions=2"),
            "server.properties line 2: num.partitions stands already on line 1; keep one of them"
        );
    }

    #[test]
    fn what_is_not_built_is_refused_unless_it_has_its_default() {
        for line in [
            "zookeeper.connect=localhost:2181",
            "authorizer.class.name=kafka.security.authorizer.AclAuthorizer",
            "ssl.keystore.location=/k",
            "sasl.enabled.mechanisms=PLAIN",
            "default.replication.factor=3",
            "process.roles=broker,controller",
            "listeners=SSL://:9093",
            "log.cleaner.dedupe.buffer.size=1048576",
            "listener.name.plaintext.max.connections=3",
            "remote.log.storage.system.enable=true",
        ] {
            let text = problem(line);
            assert!(text.starts_with("server.properties line 1: "), "{text}");
        }
        for line in [
            "authorizer.class.name=",
            "default.replication.factor=1",
            "zookeeper.connect=",
            "sasl.enabled.mechanisms=GSSAPI",
        ] {
            assert_eq!(load_text(line).expect("the default is accepted").warnings, [""; 0], "{line}");
        }
    }

    /// Kafka's stock server.properties gave warnings for values that are just right.
    #[test]
    fn what_is_right_for_one_node_needs_no_warning() {
        let stock = "offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
                     transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n";
        assert_eq!(load_text(stock).expect("sound").warnings, [""; 0]);
        let warnings = load_text("transaction.state.log.replication.factor=2").expect("sound").warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("transactions are not built yet"), "{warnings:?}");
    }

    #[test]
    fn a_password_is_not_repeated() {
        let text = problem("ssl.keystore.password=hunter2");
        assert!(!text.contains("hunter2") && text.contains("(hidden)"), "{text}");
    }

    #[test]
    fn settings_without_effect_are_told_once_by_reason() {
        let loaded =
            load_text("num.io.threads=4\nnum.network.threads=2\nzookeeper.session.timeout.ms=6000\n").expect("ok");
        assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
        assert!(
            loaded
                .warnings
                .iter()
                .any(|warning| warning.contains("num.io.threads (server.properties line 1), num.network.threads"))
        );
    }

    /// Kafka takes acks=all into a topic whose minimum is above its replication factor (KAFKA-15583), and so do we.
    #[test]
    fn a_minimum_of_replicas_above_the_only_one_is_told_and_asks_for_nothing() {
        let loaded = load_text("min.insync.replicas=2\n").expect("ok");
        assert_eq!(
            loaded.warnings,
            [
                "no effect: min.insync.replicas (server.properties line 1): no more in-sync replicas are asked for than a \
              partition has, and each has one"
            ]
        );
        assert!(load_text("min.insync.replicas=0\n").is_err());
    }

    #[test]
    fn unknown_names_are_told_with_a_hint() {
        let loaded = load_text("log.segment.byte=5\nretention.ms=5\nmy.own=1\n").expect("ok");
        assert_eq!(
            loaded.warnings,
            [
                "server.properties line 1: unknown setting log.segment.byte, ignored: perhaps log.segment.bytes is meant",
                "server.properties line 3: unknown setting my.own, ignored: neither Kafka 3.9 nor this broker has it",
                "server.properties line 2: unknown setting retention.ms, ignored: a topic has it; for all topics it is log.retention.ms",
            ]
        );
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let file = parse("server.properties", b"num.partitions=1\nlog.flush.policy=os\n").expect("sound");
        let loaded = load(file.clone(), vec![parse_set("num.partitions=7").expect("sound")]).expect("sound");
        assert_eq!(loaded.broker.num_partitions, 7);
        let error = load(file, vec![parse_set("num.partitions=0").expect("sound")]).expect_err("out of range");
        assert_eq!(error.to_string(), "--set: num.partitions = 0: must be a whole number, 1 to 2147483647");
        assert!(parse_set("num.partitions").is_err());
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        assert_eq!(
            problem("queued.max.request.bytes=1000"),
            "server.properties line 1: queued.max.request.bytes = 1000: must be at least socket.request.max.bytes"
        );
        assert_eq!(
            problem("broker.id=3\nnode.id=4"),
            "server.properties line 2: node.id = 4: must be the same as broker.id"
        );
        assert!(problem("log.retention.ms=0").contains("at least 1, or -1"));
        assert!(problem("max.connections.per.ip=0").contains("overrides"));
        assert!(problem("log.dirs=/a,/a").contains("twice"));
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let bytes = vec![b'#'; PROPERTIES_BYTES_MAX as usize + 1];
        assert!(parse("server.properties", &bytes).expect_err("too long").to_string().contains("more than"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = parse("x", &bytes).map(|given| load(given, Vec::new()));
        }
    }
}
