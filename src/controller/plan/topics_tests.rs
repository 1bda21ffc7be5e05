use super::super::fixture::{Fixture, counted, refusal};
use super::*;
use crate::cluster::image::Partition;

fn create_one(fixture: &mut Fixture, topic: NewTopic) -> AdminResult<CreatedTopic> {
    let mut ids = Ids::new(7);
    let (mut answers, change) = create(&fixture.context(), &[topic], false, &mut ids);
    fixture.apply(change);
    answers.pop().expect("one answer")
}

fn message(fixture: &mut Fixture, topic: NewTopic) -> (ResponseError, String) {
    let answer = create_one(fixture, topic);
    let (code, message) = refusal(&answer);
    (code, message.to_string())
}

#[test]
fn a_topic_gets_its_partitions_spread_over_the_shards() {
    let mut fixture = Fixture::new(4);
    let created = create_one(&mut fixture, counted("t", 6, 1)).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (6, 1));
    let topic = fixture.image.topic("t").unwrap();
    assert_eq!(topic.id, created.id);
    let leaders: Vec<i32> = topic.partitions.iter().map(|partition| partition.leader.unwrap().0).collect();
    assert_eq!(leaders, [0, 1, 2, 3, 0, 1]);
    create_one(&mut fixture, counted("u", 2, 1)).unwrap();
    let leaders = |partition: &Partition| partition.leader.unwrap().0;
    let mut next: Vec<i32> = fixture.image.topic("u").unwrap().partitions.iter().map(leaders).collect();
    next.sort();
    assert_eq!(next, [2, 3], "the least loaded shards come next");
}

#[test]
fn the_store_gets_kafkas_nodes_parents_first() {
    let fixture = Fixture::new(1);
    let (_, change) = create(&fixture.context(), &[counted("t", 1, 1)], false, &mut Ids::new(1));
    let paths: Vec<&str> = change.ops.iter().map(Op::path).collect();
    assert_eq!(
        paths,
        [
            "/config/topics/t",
            "/brokers/topics/t",
            "/brokers/topics/t/partitions",
            "/brokers/topics/t/partitions/0",
            "/brokers/topics/t/partitions/0/state"
        ]
    );
}

#[test]
fn defaults_fill_what_is_unset() {
    let mut fixture = Fixture::configured(2, &[("num.partitions", "3")]);
    let created = create_one(&mut fixture, counted("t", -1, -1)).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (3, 1));
}

#[test]
fn counts_are_checked_as_in_kafka() {
    let mut fixture = Fixture::new(4);
    for partitions in [0, -2] {
        assert_eq!(
            message(&mut fixture, counted("t", partitions, 1)),
            (ResponseError::InvalidPartitions, "Number of partitions must be larger than 0.".into())
        );
    }
    for factor in [0, -2] {
        assert_eq!(
            message(&mut fixture, counted("t", 1, factor)),
            (ResponseError::InvalidReplicationFactor, "Replication factor must be larger than 0.".into())
        );
    }
    let (code, text) = message(&mut fixture, counted("t", 1, 3));
    assert_eq!(code, ResponseError::InvalidReplicationFactor);
    assert!(text.contains("larger than available machines: 1"), "{text}");
    let (code, _) = message(&mut fixture, counted("t", i32::MAX, 1));
    assert_eq!(code, ResponseError::PolicyViolation);
}

#[test]
fn names_are_checked_as_in_kafka() {
    let mut fixture = Fixture::new(1);
    let long = "x".repeat(250);
    let cases = [
        ("", "Topic name is invalid: the empty string is not allowed".to_string()),
        (".", "Topic name is invalid: '.' is not allowed".to_string()),
        ("..", "Topic name is invalid: '..' is not allowed".to_string()),
        (
            "a b",
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
                .to_string(),
        ),
        (&long, format!("Topic name is invalid: the length of '{long}' is longer than the max allowed length 249")),
    ];
    for (name, text) in cases {
        assert_eq!(message(&mut fixture, counted(name, 1, 1)), (ResponseError::InvalidTopicException, text));
    }
    create_one(&mut fixture, counted(&"x".repeat(249), 1, 1)).unwrap();
}

#[test]
fn names_that_differ_in_dot_and_underscore_collide() {
    let mut fixture = Fixture::new(1);
    create_one(&mut fixture, counted("a.b", 1, 1)).unwrap();
    assert_eq!(
        message(&mut fixture, counted("a_b", 1, 1)),
        (ResponseError::InvalidTopicException, "Topic 'a_b' collides with existing topics: a.b".into())
    );
    let both = [counted("c_d", 1, 1), counted("c.d", 1, 1)];
    let (answers, _) = create(&fixture.context(), &both, false, &mut Ids::new(1));
    assert!(answers[0].is_ok());
    assert_eq!(refusal(&answers[1]).0, ResponseError::InvalidTopicException);
}

/// Each new name was held against every topic: 20,000 of them beside 20,000 were 400 million comparisons.
#[test]
fn looking_for_collisions_costs_one_pass() {
    const MANY: usize = 20_000;
    let mut fixture = Fixture::new(1);
    let named = |text: &str| -> Vec<NewTopic> { (0..MANY).map(|i| counted(&format!("{text}{i:05}"), 1, 1)).collect() };
    let (_, change) = create(&fixture.context(), &named("a.b.c"), false, &mut Ids::new(1));
    fixture.image = fixture.image.edited(change.edits);
    let (answers, _) = create(&fixture.context(), &named("a_b.d"), true, &mut Ids::new(1));
    assert!(answers.iter().all(Result::is_ok));
    let (answers, _) = create(&fixture.context(), &named("a_b.c"), true, &mut Ids::new(1));
    assert_eq!(
        refusal(&answers[7]),
        (ResponseError::InvalidTopicException, "Topic 'a_b.c00007' collides with existing topics: a.b.c00007")
    );
}

#[test]
fn a_name_is_taken_once() {
    let mut fixture = Fixture::new(1);
    fixture.topic("t", 1);
    assert_eq!(
        message(&mut fixture, counted("t", 1, 1)),
        (ResponseError::TopicAlreadyExists, "Topic 't' already exists.".into())
    );
    let twice = [counted("u", 1, 1), counted("v", 1, 1), counted("u", 1, 1)];
    let (answers, change) = create(&fixture.context(), &twice, false, &mut Ids::new(1));
    assert_eq!(refusal(&answers[0]), (ResponseError::InvalidRequest, "Found multiple entries for this topic."));
    assert_eq!(refusal(&answers[2]).0, ResponseError::InvalidRequest);
    assert!(answers[1].is_ok());
    assert_eq!(change.edits.len(), 1);
    assert_eq!(
        message(&mut fixture, counted("__cluster_metadata", 1, 1)),
        (ResponseError::InvalidRequest, "Creation of internal topic __cluster_metadata is prohibited.".into())
    );
    create_one(&mut fixture, counted("__consumer_offsets", 1, 1)).unwrap();
    assert!(fixture.image.topic("__consumer_offsets").unwrap().is_internal);
}

#[test]
fn an_assignment_excludes_counts() {
    let mut fixture = Fixture::new(4);
    let assignment = BTreeMap::from([(0, vec![BrokerId(3)]), (1, vec![BrokerId(1)])]);
    let with = |partitions, factor| NewTopic { assignment: assignment.clone(), ..counted("t", partitions, factor) };
    let (code, text) = message(&mut fixture, with(2, -1));
    assert_eq!(code, ResponseError::InvalidRequest);
    assert!(text.starts_with("Both numPartitions or replicationFactor and replicasAssignments were set."));
    assert_eq!(create_one(&mut fixture, with(-1, -1)).unwrap().partitions, 2);
    let partitions = &fixture.image.topic("t").unwrap().partitions;
    assert_eq!([partitions[0].leader, partitions[1].leader], [Some(BrokerId(3)), Some(BrokerId(1))]);
    let unknown = NewTopic { assignment: BTreeMap::from([(0, vec![BrokerId(9)])]), ..counted("u", -1, -1) };
    assert_eq!(message(&mut fixture, unknown).0, ResponseError::InvalidReplicaAssignment);
}

#[test]
fn settings_are_checked_before_anything_is_created() {
    let mut fixture = Fixture::new(1);
    let with = |name: &str, value: Option<&str>| NewTopic {
        settings: vec![(name.into(), value.map(str::to_string))],
        ..counted("t", 1, 1)
    };
    assert_eq!(
        message(&mut fixture, with("retention.ms", None)),
        (ResponseError::InvalidConfig, "Null value not supported for topic configs: retention.ms".into())
    );
    assert_eq!(
        message(&mut fixture, with("no.such", Some("1"))),
        (ResponseError::InvalidConfig, "Unknown topic config name: no.such".into())
    );
    assert_eq!(message(&mut fixture, with("retention.ms", Some("x"))).0, ResponseError::InvalidConfig);
    let created = create_one(&mut fixture, with("retention.ms", Some("5000"))).unwrap();
    assert_eq!(created.settings["retention.ms"], "5000");
}

#[test]
fn validating_changes_nothing() {
    let fixture = Fixture::new(1);
    let (answers, change) = create(&fixture.context(), &[counted("t", 2, 1)], true, &mut Ids::new(1));
    let created = answers[0].as_ref().unwrap();
    assert_eq!((created.id, created.partitions), (TopicId::ZERO, 2));
    assert!(change.is_empty());
}

#[test]
fn deleting_by_name_or_id() {
    let mut fixture = Fixture::new(1);
    fixture.topic("a", 1);
    fixture.topic("b", 1);
    let id = fixture.image.topic("b").unwrap().id;
    let name = |name: &str| TopicRef::Name(name.into());
    let wanted = [name("a"), TopicRef::Id(id), name("c"), TopicRef::Id(TopicId::random()), name("a")];
    let (answers, change) = delete(&fixture.context(), &wanted);
    assert_eq!(answers[1].as_ref().unwrap(), &("b".to_string(), id));
    assert_eq!(refusal(&answers[2]), (ResponseError::UnknownTopicOrPartition, ""));
    assert_eq!(refusal(&answers[3]), (ResponseError::UnknownTopicId, ""));
    assert!(answers[0].is_ok() && answers[4].is_ok());
    assert_eq!(change.ops.first().map(Op::path), Some("/admin/delete_topics/a"));
    fixture.apply(change);
    assert!(fixture.image.topics.is_empty());
}

#[test]
fn deletion_can_be_switched_off() {
    let mut fixture = Fixture::configured(1, &[("delete.topic.enable", "false")]);
    fixture.topic("a", 1);
    let (answers, change) = delete(&fixture.context(), &[TopicRef::Name("a".into())]);
    assert_eq!(refusal(&answers[0]), (ResponseError::TopicDeletionDisabled, ""));
    assert!(change.is_empty());
}

#[test]
fn the_same_seed_gives_the_same_plan() {
    let fixture = Fixture::new(2);
    let plan = || create(&fixture.context(), &[counted("t", 3, 1)], false, &mut Ids::new(42)).1;
    assert_eq!(plan().edits, plan().edits);
    assert_eq!(plan().ops, plan().ops);
}
