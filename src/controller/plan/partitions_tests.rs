use super::super::fixture::{Fixture, refusal};
use super::*;

fn more(topic: &str, count: i32) -> MorePartitions {
    MorePartitions { topic: topic.into(), count, assignment: None }
}

#[test]
fn partitions_are_added_behind_the_present_ones() {
    let mut fixture = Fixture::new(3);
    fixture.topic("t", 2);
    let before = fixture.image.topic("t").unwrap().partitions.clone();
    let (answers, change) = add(&fixture.context(), &[more("t", 5)], false, &mut Ids::new(3));
    assert_eq!(answers, [Ok(())]);
    let paths: Vec<&str> = change.ops.iter().map(Op::path).collect();
    assert_eq!(paths[0], "/brokers/topics/t");
    assert_eq!(paths[1], "/brokers/topics/t/partitions/2");
    fixture.apply(change);
    let after = &fixture.image.topic("t").unwrap().partitions;
    assert_eq!((after.len(), &after[..2]), (5, &before[..]));
    let leaders: Vec<i32> = after.iter().map(|partition| partition.leader.unwrap().0).collect();
    assert_eq!(leaders[2], 2, "the emptiest shard first");
}

#[test]
fn refusals_are_kafkas() {
    let mut fixture = Fixture::new(2);
    fixture.topic("t", 3);
    fixture.topic("u", 3);
    let assigned = |count, brokers: &[i32]| MorePartitions {
        assignment: Some(brokers.iter().map(|id| vec![BrokerId(*id)]).collect()),
        ..more("u", count)
    };
    let one = |wanted: MorePartitions| {
        let (answers, change) = add(&fixture.context(), &[wanted], false, &mut Ids::new(3));
        assert!(change.is_empty());
        let (code, message) = refusal(&answers[0]);
        (code, message.to_string())
    };
    assert_eq!(
        one(more("none", 4)),
        (ResponseError::UnknownTopicOrPartition, "The topic 'none' does not exist.".into())
    );
    assert_eq!(
        one(more("t", 2)),
        (
            ResponseError::InvalidPartitions,
            "Topic currently has 3 partitions, which is higher than the requested 2.".into()
        )
    );
    assert_eq!(one(more("t", 3)), (ResponseError::InvalidPartitions, "Topic already has 3 partitions.".into()));
    assert_eq!(one(more("t", i32::MAX)).0, ResponseError::PolicyViolation);
    assert_eq!(
        one(assigned(4, &[9])),
        (ResponseError::InvalidReplicaAssignment, "Unknown broker(s) in replica assignment: 9.".into())
    );
    let (answers, _) = add(&fixture.context(), &[more("t", 4), more("t", 5)], false, &mut Ids::new(3));
    assert_eq!(refusal(&answers[0]), (ResponseError::InvalidRequest, "Duplicate topic in request."));
    assert_eq!(refusal(&answers[1]).0, ResponseError::InvalidRequest);
}

/// Groups went to other partitions at once, where nothing was committed.
#[test]
fn internal_topics_do_not_grow() {
    let mut fixture = Fixture::new(2);
    fixture.topic("__consumer_offsets", 3);
    let (answers, change) = add(&fixture.context(), &[more("__consumer_offsets", 4)], false, &mut Ids::new(3));
    let (code, message) = refusal(&answers[0]);
    assert_eq!(code, ResponseError::InvalidPartitions);
    assert!(message.starts_with("The topic '__consumer_offsets' keeps its 3 partitions: "), "{message}");
    assert!(change.is_empty());
}

#[test]
fn validating_changes_nothing() {
    let mut fixture = Fixture::new(2);
    fixture.topic("t", 1);
    let (answers, change) = add(&fixture.context(), &[more("t", 4)], true, &mut Ids::new(3));
    assert!(answers[0].is_ok() && change.is_empty());
}
