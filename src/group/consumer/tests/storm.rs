//! Many members join one group at once.

use super::super::member::JOINS;
use super::super::*;
use super::{limits, set_topic, topics};

/// What so many members write who join one after another, for as many partitions: records, and partitions in targets.
fn written_by_a_storm(members: usize) -> (usize, usize) {
    let (mut image, limits) = (ClusterImage::default(), limits());
    set_topic(&mut image, "t", 1, members);
    let (mut group, mut records, mut partitions) = (Group::default(), 0, 0);
    for number in 0..members {
        let request = Heartbeat {
            member_id: format!("member-{number}"),
            epoch: JOINS,
            rebalance_timeout_ms: Some(60_000),
            topics: Some(topics(&["t"])),
            owned: Some(Partitions::new()),
            ..Heartbeat::default()
        };
        let decision = group.heartbeat(0, &Env::new(&image, &limits), &request).expect("joined");
        records += decision.records.len();
        let targets = decision.records.iter().filter_map(|record| match record {
            Record::Target(_, target) => target.as_ref(),
            _ => None,
        });
        partitions += targets.flat_map(|target| target.values()).map(BTreeSet::len).sum::<usize>();
        group.accept(decision);
    }
    (records, partitions)
}

/// Each join has the assignor look at everybody. What it changes must not be everybody's: with twice the members that would be four times as
/// much. (A join takes one partition from each of those who have most: all together n log n records, with n times the root of n partitions.)
#[test]
fn who_joins_changes_little_of_what_the_others_are_to_have() {
    let (few, many) = (written_by_a_storm(250), written_by_a_storm(500));
    let ratio = |many: usize, few: usize| many as f64 / few as f64;
    assert!(ratio(many.0, few.0) < 2.5, "{many:?} records and partitions beside {few:?}");
    assert!(ratio(many.1, few.1) < 3.2, "{many:?} records and partitions beside {few:?}");
}
