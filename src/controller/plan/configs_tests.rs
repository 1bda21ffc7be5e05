use super::super::fixture::{Fixture, refusal};
use super::*;

fn topic(name: &str, replace_all: bool, ops: &[(&str, ConfigOp)]) -> ConfigChange {
    let ops = ops.iter().map(|(name, op)| (name.to_string(), op.clone())).collect();
    ConfigChange { resource: ConfigResource::Topic(name.into()), replace_all, ops }
}

fn broker(name: &str, ops: &[(&str, ConfigOp)]) -> ConfigChange {
    ConfigChange { resource: ConfigResource::Broker(name.into()), ..topic("", false, ops) }
}

fn set(value: &str) -> ConfigOp {
    ConfigOp::Set(value.into())
}

fn run(fixture: &mut Fixture, change: ConfigChange) -> Result<(), (ResponseError, String)> {
    let (answers, done) = alter(&fixture.context(), &[change], false);
    fixture.apply(done);
    match &answers[0] {
        Ok(()) => Ok(()),
        Err(_) => {
            let (code, message) = refusal(&answers[0]);
            Err((code, message.to_string()))
        }
    }
}

#[test]
fn settings_are_changed_one_by_one_or_all() {
    let mut fixture = Fixture::new(1);
    fixture.topic("t", 1);
    run(&mut fixture, topic("t", false, &[("retention.ms", set("5")), ("segment.ms", set("7"))])).unwrap();
    run(&mut fixture, topic("t", false, &[("segment.ms", ConfigOp::Delete), ("flush.ms", set("9"))])).unwrap();
    let settings = |fixture: &Fixture| fixture.image.topic("t").unwrap().settings.clone();
    let expected = |pairs: &[(&str, &str)]| -> Texts {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    assert_eq!(settings(&fixture), expected(&[("retention.ms", "5"), ("flush.ms", "9")]));
    run(&mut fixture, topic("t", true, &[("segment.ms", set("8"))])).unwrap();
    assert_eq!(settings(&fixture), expected(&[("segment.ms", "8")]));
}

#[test]
fn lists_grow_and_shrink() {
    let mut fixture = Fixture::new(1);
    fixture.topic("t", 1);
    let name = "follower.replication.throttled.replicas";
    let value = |fixture: &Fixture| fixture.image.topic("t").unwrap().settings[name].clone();
    run(&mut fixture, topic("t", false, &[(name, ConfigOp::Append("0:1,1:1".into()))])).unwrap();
    run(&mut fixture, topic("t", false, &[(name, ConfigOp::Append("1:1,2:1".into()))])).unwrap();
    assert_eq!(value(&fixture), "0:1,1:1,2:1");
    run(&mut fixture, topic("t", false, &[(name, ConfigOp::Subtract("1:1,7:7".into()))])).unwrap();
    assert_eq!(value(&fixture), "0:1,2:1");
    assert_eq!(
        run(&mut fixture, topic("t", false, &[("retention.ms", ConfigOp::Append("1".into()))])),
        Err((ResponseError::InvalidConfig, "Config value append is not allowed for config key: retention.ms".into()))
    );
    assert_eq!(
        run(&mut fixture, topic("t", false, &[("retention.ms", ConfigOp::Subtract("1".into()))])),
        Err((ResponseError::InvalidConfig, "Config value subtract is not allowed for config key: retention.ms".into()))
    );
}

/// Each element was looked for among all others: a request of some megabytes held the controller for hours.
#[test]
fn long_lists_cost_one_pass() {
    const MANY: usize = 300_000;
    let mut fixture = Fixture::new(1);
    fixture.topic("t", 1);
    let name = "follower.replication.throttled.replicas";
    let elements = |from: usize| (from..from + MANY).map(|i| format!("{i}:1")).collect::<Vec<_>>().join(",");
    let mut settings = (*fixture.image.topics["t"]).clone();
    settings.settings.insert(name.into(), elements(0));
    fixture.image = fixture.image.edited(vec![Edit::PutTopic(Arc::new(settings))]);
    let large = (ResponseError::InvalidRequest, "The settings of one resource take too many bytes.".to_string());
    assert_eq!(run(&mut fixture, topic("t", false, &[(name, ConfigOp::Append(elements(MANY)))])), Err(large.clone()));
    assert_eq!(run(&mut fixture, topic("t", false, &[(name, ConfigOp::Subtract(elements(MANY)))])), Err(large));
    run(&mut fixture, topic("t", false, &[(name, ConfigOp::Subtract(elements(1)))])).unwrap();
    assert_eq!(fixture.image.topics["t"].settings[name], "0:1");
}

#[test]
fn refusals_about_topics_are_kafkas() {
    let mut fixture = Fixture::new(1);
    fixture.topic("t", 1);
    assert_eq!(
        run(&mut fixture, topic("", false, &[])),
        Err((ResponseError::InvalidRequest, "Default topic resources are not allowed.".into()))
    );
    assert_eq!(
        run(&mut fixture, topic("none", false, &[("retention.ms", set("1"))])),
        Err((ResponseError::UnknownTopicOrPartition, "The topic 'none' does not exist.".into()))
    );
    assert_eq!(
        run(&mut fixture, topic("t", false, &[("no.such", set("1"))])),
        Err((ResponseError::InvalidConfig, "Unknown topic config name: no.such".into()))
    );
    assert_eq!(
        run(&mut fixture, topic("t", false, &[("retention.ms", set("x"))])),
        Err((
            ResponseError::InvalidConfig,
            "Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value x for \
             configuration retention.ms: Not a number of type LONG"
                .into()
        ))
    );
    assert_eq!(
        run(&mut fixture, topic("t", false, &[("retention.ms", set("1")), ("retention.ms", set("2"))])),
        Err((ResponseError::InvalidRequest, "Error due to duplicate config keys".into()))
    );
    let twice = [topic("t", false, &[]), topic("t", false, &[])];
    let (answers, _) = alter(&fixture.context(), &twice, false);
    assert_eq!(refusal(&answers[1]), (ResponseError::InvalidRequest, "Each resource must appear at most once."));
}

#[test]
fn brokers_take_dynamic_settings_of_the_node_or_of_all() {
    let mut fixture = Fixture::new(2);
    run(&mut fixture, broker("1", &[("log.retention.ms", set("5000"))])).unwrap();
    run(&mut fixture, broker("", &[("log.retention.ms", set("6000"))])).unwrap();
    assert_eq!(fixture.image.node_settings[&NodeId(0)]["log.retention.ms"], "5000");
    assert_eq!(fixture.image.broker_defaults["log.retention.ms"], "6000");
    run(&mut fixture, broker("0", &[("log.retention.ms", ConfigOp::Delete)])).unwrap();
    assert!(fixture.image.node_settings.get(&NodeId(0)).is_none_or(Texts::is_empty));
}

#[test]
fn refusals_about_brokers_are_kafkas() {
    let mut fixture = Fixture::new(1);
    let invalid = |text: &str| Err((ResponseError::InvalidRequest, text.to_string()));
    assert_eq!(run(&mut fixture, broker("x", &[])), invalid("Node id must be an integer, but it is: x"));
    assert_eq!(run(&mut fixture, broker("5", &[])), invalid("Unexpected broker id, expected 0, but received 5"));
    assert_eq!(
        run(&mut fixture, broker("0", &[("broker.id", set("3"))])),
        invalid("Cannot update these configs dynamically: Set(broker.id)")
    );
    let (code, _) = run(&mut fixture, broker("0", &[("log.retention.ms", set("soon"))])).unwrap_err();
    assert_eq!(code, ResponseError::InvalidRequest);
    let (code, text) = run(&mut fixture, broker("", &[("advertised.listeners", set("PLAINTEXT://h:1"))])).unwrap_err();
    assert_eq!(code, ResponseError::InvalidRequest);
    assert!(text.starts_with("Cannot update these configs"), "{text}");
}

/// What a start refuses is not to be had by a change while the node runs either: it would be ignored in silence.
#[test]
fn what_is_not_built_cannot_be_switched_on_at_run_time() {
    let mut fixture = Fixture::new(1);
    for (name, value) in [
        ("metric.reporters", "x.Y"),
        ("listeners", "PLAINTEXT://:1"),
        ("advertised.listeners", "PLAINTEXT://h:1"),
        ("listener.name.plaintext.max.connections", "5"),
        ("shards", "3"),
    ] {
        let (code, _) = run(&mut fixture, broker("0", &[(name, set(value))])).expect_err(name);
        assert_eq!(code, ResponseError::InvalidRequest, "{name}");
    }
    let (_, text) = run(&mut fixture, broker("", &[("log.retention.ms", set("0"))])).unwrap_err();
    assert_eq!(
        text, "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        "Kafka's words"
    );
}

#[test]
fn validating_changes_nothing() {
    let mut fixture = Fixture::new(1);
    fixture.topic("t", 1);
    let (answers, done) = alter(&fixture.context(), &[topic("t", false, &[("retention.ms", set("1"))])], true);
    assert!(answers[0].is_ok() && done.is_empty());
}
