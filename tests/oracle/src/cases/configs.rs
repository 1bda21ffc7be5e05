//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, of topics and of brokers.

use super::{SMALL, each_version, make_topics};
use crate::pair::{Pair, Side};
use crate::requests::{text, topic};
use anyhow::Result;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::{AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn ask(resources: Vec<(i8, String, Option<Vec<&str>>)>) -> DescribeConfigsRequest {
    let resource = |(kind, name, keys): (i8, String, Option<Vec<&str>>)| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(&name))
            .with_configuration_keys(keys.map(|keys| keys.into_iter().map(text).collect()))
    };
    DescribeConfigsRequest::default().with_resources(resources.into_iter().map(resource).collect())
}

/// Compares how a topic stands now.
fn same_topic(pair: &mut Pair, name: &str) -> Result<()> {
    let newest = pair.newest::<DescribeConfigsRequest>();
    pair.same(newest, |_| ask(vec![(TOPIC, name.to_owned(), None)]).with_include_synonyms(true)).map(drop)
}

pub fn describe(pair: &mut Pair) -> Result<()> {
    pair.case("describe-configs-prepare");
    let name = pair.fresh_topic("described");
    let configs = [("retention.ms", "86400000"), ("cleanup.policy", "delete"), ("segment.bytes", "1048576")];
    make_topics(pair, vec![topic(&name, 1, &configs)])?;
    each_version::<DescribeConfigsRequest>(pair, |pair, version| {
        let broker = |side: &Side| side.broker(0).to_string();
        pair.case("describe-configs-topic");
        for synonyms in [false, true] {
            pair.same(version, |_| ask(vec![(TOPIC, name.clone(), None)]).with_include_synonyms(synonyms))?;
        }
        if version >= 3 {
            pair.case("describe-configs-documentation");
            let some = vec!["retention.ms", "cleanup.policy"];
            pair.same(version, |_| {
                ask(vec![(TOPIC, name.clone(), Some(some.clone()))]).with_include_documentation(true)
            })?;
        }
        pair.case("describe-configs-keys");
        for keys in
            [vec![], vec!["retention.ms"], vec!["no.such", "retention.ms"], vec!["retention.ms", "retention.ms"]]
        {
            pair.same(version, |_| ask(vec![(TOPIC, name.clone(), Some(keys.clone()))]))?;
        }
        pair.case("describe-configs-several");
        pair.same(version, |side| {
            ask(vec![
                (TOPIC, SMALL.into(), Some(vec!["max.message.bytes"])),
                (TOPIC, "nobody".into(), None),
                (BROKER, broker(side), Some(vec!["broker.id", "message.max.bytes"])),
            ])
        })?;
        pair.same(version, |_| {
            ask(vec![
                (TOPIC, SMALL.into(), Some(vec!["segment.bytes"])),
                (TOPIC, SMALL.into(), Some(vec!["segment.ms"])),
            ])
        })?;
        pair.case("describe-configs-unknown-topic");
        for unknown in ["nobody", "bad name", ""] {
            pair.same(version, |_| ask(vec![(TOPIC, unknown.into(), None)]))?;
        }
        pair.case("describe-configs-broker");
        pair.same(version, |side| ask(vec![(BROKER, broker(side), None)]))?;
        pair.case("describe-configs-broker-synonyms");
        pair.same(version, |side| ask(vec![(BROKER, broker(side), None)]).with_include_synonyms(true))?;
        pair.case("describe-configs-all-brokers");
        pair.same(version, |_| ask(vec![(BROKER, String::new(), None)]).with_include_synonyms(true))?;
        pair.case("describe-configs-unknown-broker");
        for unknown in ["77777", "-1", "one"] {
            pair.same(version, |_| ask(vec![(BROKER, unknown.into(), None)]))?;
        }
        pair.case("describe-configs-unknown-type");
        for kind in [0, 1, 3, 16, 32, 64, 100, -1] {
            pair.same(version, |_| ask(vec![(kind, "x".into(), None)]))?;
        }
        pair.case("describe-configs-logger");
        pair.same(version, |_| ask(vec![(BROKER_LOGGER, "77777".into(), None)]))?;
        pair.case("describe-configs-nothing");
        pair.same(version, |_| ask(vec![]))?;
        Ok(())
    })
}

/// A key and its value; none is null.
type Entry<'a> = (&'a str, Option<&'a str>);

fn alter_request(resources: Vec<(i8, String, Vec<Entry<'_>>)>) -> AlterConfigsRequest {
    let resource = |(kind, name, configs): (i8, String, Vec<Entry<'_>>)| {
        let config = |(name, value): (&str, Option<&str>)| {
            AlterableConfig::default().with_name(text(name)).with_value(value.map(text))
        };
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(&name))
            .with_configs(configs.into_iter().map(config).collect())
    };
    AlterConfigsRequest::default().with_resources(resources.into_iter().map(resource).collect())
}

pub fn alter(pair: &mut Pair) -> Result<()> {
    each_version::<AlterConfigsRequest>(pair, |pair, version| {
        pair.case("alter-prepare");
        let name = pair.fresh_topic("altered");
        make_topics(pair, vec![topic(&name, 1, &[("retention.ms", "5000"), ("segment.bytes", "70000")])])?;
        let steps: &[(&str, &[Entry<'static>])] = &[
            ("replaces-all", &[("retention.ms", Some("6000"))]),
            ("to-nothing", &[]),
            ("several", &[("retention.ms", Some("7000")), ("max.message.bytes", Some("5000"))]),
            ("bad-value", &[("retention.ms", Some("soon"))]),
            ("unknown-key", &[("no.such.config", Some("1"))]),
            ("null", &[("retention.ms", None)]),
            ("twice", &[("retention.ms", Some("1")), ("retention.ms", Some("2"))]),
            ("out-of-range", &[("min.insync.replicas", Some("0"))]),
        ];
        for (case, configs) in steps {
            pair.case(format!("alter-validate-{case}"));
            let one = |name: &str| alter_request(vec![(TOPIC, name.to_owned(), configs.to_vec())]);
            pair.same(version, |_| one(&name).with_validate_only(true))?;
            pair.case(format!("alter-{case}"));
            pair.same(version, |_| one(&name))?;
            same_topic(pair, &name)?;
        }
        pair.case("alter-unknown");
        for unknown in ["nobody", "bad name", ""] {
            pair.same(version, |_| alter_request(vec![(TOPIC, unknown.into(), vec![("retention.ms", Some("1"))])]))?;
        }
        for kind in [0, 1, 3, 100] {
            pair.case(format!("alter-unknown-type-{kind}"));
            pair.same(version, |_| alter_request(vec![(kind, "x".into(), vec![("retention.ms", Some("1"))])]))?;
        }
        if version == pair.newest::<AlterConfigsRequest>() {
            pair.case("alter-resource-twice");
            pair.impatient();
            pair.same(version, |_| {
                let one = (TOPIC, name.clone(), vec![("retention.ms", Some("1"))]);
                alter_request(vec![one.clone(), one])
            })?;
        }
        pair.case("alter-several");
        pair.same(version, |_| {
            let good = (TOPIC, name.clone(), vec![("retention.ms", Some("9000"))]);
            alter_request(vec![good, (TOPIC, "nobody".into(), vec![])])
        })?;
        same_topic(pair, &name)
    })
}

type Op<'a> = (&'a str, i8, Option<&'a str>);

fn incremental_request(resources: Vec<(i8, String, Vec<Op<'_>>)>) -> IncrementalAlterConfigsRequest {
    let resource = |(kind, name, configs): (i8, String, Vec<Op<'_>>)| {
        let config = |(name, operation, value): Op<'_>| {
            let config = incremental::AlterableConfig::default().with_name(text(name));
            config.with_config_operation(operation).with_value(value.map(text))
        };
        incremental::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(&name))
            .with_configs(configs.into_iter().map(config).collect())
    };
    IncrementalAlterConfigsRequest::default().with_resources(resources.into_iter().map(resource).collect())
}

const STEPS: &[(&str, &[Op<'static>])] = &[
    ("set", &[("retention.ms", SET, Some("6000")), ("segment.ms", SET, Some("60000"))]),
    ("set-and-delete", &[("retention.ms", DELETE, None), ("segment.ms", SET, Some("70000"))]),
    ("delete-what-is-not-set", &[("retention.bytes", DELETE, None)]),
    ("delete-with-value", &[("segment.ms", DELETE, Some("70000"))]),
    ("append-to-list", &[("leader.replication.throttled.replicas", APPEND, Some("0:1"))]),
    ("append-again", &[("leader.replication.throttled.replicas", APPEND, Some("1:1,2:1"))]),
    ("append-what-is-there", &[("leader.replication.throttled.replicas", APPEND, Some("1:1"))]),
    ("subtract", &[("leader.replication.throttled.replicas", SUBTRACT, Some("1:1"))]),
    ("subtract-what-is-not-there", &[("leader.replication.throttled.replicas", SUBTRACT, Some("7:7"))]),
    ("append-policy", &[("cleanup.policy", APPEND, Some("delete"))]),
    ("subtract-last-policy", &[("cleanup.policy", SUBTRACT, Some("delete"))]),
    ("append-to-number", &[("retention.ms", APPEND, Some("5"))]),
    ("subtract-from-number", &[("retention.ms", SUBTRACT, Some("5"))]),
    ("bad-value", &[("retention.ms", SET, Some("soon"))]),
    ("good-and-bad", &[("retention.ms", SET, Some("8000")), ("segment.ms", SET, Some("soon"))]),
    ("null", &[("retention.ms", SET, None)]),
    ("append-null", &[("cleanup.policy", APPEND, None)]),
    ("unknown-key", &[("no.such.config", SET, Some("1"))]),
    ("delete-unknown-key", &[("no.such.config", DELETE, None)]),
    ("unknown-operation", &[("retention.ms", 9, Some("1"))]),
    ("negative-operation", &[("retention.ms", -1, Some("1"))]),
    ("twice", &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))]),
    ("set-and-delete-same", &[("retention.ms", SET, Some("1")), ("retention.ms", DELETE, None)]),
    ("empty-name", &[("", SET, Some("1"))]),
    ("empty-value", &[("retention.ms", SET, Some(""))]),
    ("nothing", &[]),
];

pub fn incremental(pair: &mut Pair) -> Result<()> {
    each_version::<IncrementalAlterConfigsRequest>(pair, |pair, version| {
        pair.case("incremental-prepare");
        let name = pair.fresh_topic("altered");
        make_topics(pair, vec![topic(&name, 1, &[("segment.bytes", "70000")])])?;
        for (case, operations) in STEPS {
            let one = || incremental_request(vec![(TOPIC, name.clone(), operations.to_vec())]);
            pair.case(format!("incremental-validate-{case}"));
            pair.same(version, |_| one().with_validate_only(true))?;
            pair.case(format!("incremental-{case}"));
            pair.same(version, |_| one())?;
            same_topic(pair, &name)?;
        }
        let set = vec![("retention.ms", SET, Some("1"))];
        pair.case("incremental-unknown");
        for unknown in ["nobody", "bad name", ""] {
            pair.same(version, |_| incremental_request(vec![(TOPIC, unknown.into(), set.clone())]))?;
        }
        for kind in [0, 1, 3, 100] {
            pair.case(format!("incremental-unknown-type-{kind}"));
            pair.same(version, |_| incremental_request(vec![(kind, "x".into(), set.clone())]))?;
        }
        pair.case("incremental-resource-twice");
        pair.same(version, |_| {
            incremental_request(vec![(TOPIC, name.clone(), set.clone()), (TOPIC, name.clone(), set.clone())])
        })?;
        Ok(())
    })
}

pub fn brokers(pair: &mut Pair) -> Result<()> {
    each_version::<IncrementalAlterConfigsRequest>(pair, |pair, version| {
        let broker = |side: &Side| side.broker(0).to_string();
        let steps: &[(&str, &[Op<'static>])] = &[
            ("set", &[("log.segment.bytes", SET, Some("50000000"))]),
            ("delete", &[("log.segment.bytes", DELETE, None)]),
            ("read-only", &[("broker.id", SET, Some("9"))]),
            ("read-only-2", &[("num.partitions", SET, Some("9"))]),
            ("bad-value", &[("log.segment.bytes", SET, Some("many"))]),
            ("out-of-range", &[("log.segment.bytes", SET, Some("1"))]),
            ("unknown-key", &[("no.such.config", SET, Some("1"))]),
            ("topic-key", &[("segment.bytes", SET, Some("50000000"))]),
        ];
        for (case, operations) in steps {
            for every in [false, true] {
                let who = if every { "all-brokers" } else { "broker" };
                pair.case(format!("incremental-{who}-{case}"));
                let name = |side: &Side| if every { String::new() } else { broker(side) };
                pair.same(version, |side| {
                    incremental_request(vec![(BROKER, name(side), operations.to_vec())]).with_validate_only(true)
                })?;
                if matches!(*case, "set" | "delete") {
                    pair.same(version, |side| incremental_request(vec![(BROKER, name(side), operations.to_vec())]))?;
                    // Kafka answers before its brokers have heard of it.
                    let key = operations[0].0;
                    let newest = pair.newest::<DescribeConfigsRequest>();
                    std::thread::sleep(std::time::Duration::from_millis(300));
                    pair.same(newest, |side| {
                        ask(vec![(BROKER, name(side), Some(vec![key]))]).with_include_synonyms(true)
                    })?;
                }
            }
        }
        pair.case("incremental-unknown-broker");
        for unknown in ["77777", "one"] {
            pair.same(version, |_| {
                incremental_request(vec![(BROKER, unknown.into(), vec![("log.segment.bytes", SET, Some("50000000"))])])
            })?;
        }
        Ok(())
    })?;
    each_version::<AlterConfigsRequest>(pair, |pair, version| {
        for (case, key, value) in [
            ("read-only", "broker.id", "9"),
            ("good", "log.segment.bytes", "50000000"),
            ("bad", "log.segment.bytes", "x"),
        ] {
            pair.case(format!("alter-broker-{case}"));
            pair.same(version, |side| {
                alter_request(vec![(BROKER, side.broker(0).to_string(), vec![(key, Some(value))])])
                    .with_validate_only(true)
            })?;
        }
        Ok(())
    })
}
