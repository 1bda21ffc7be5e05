//! What is to be done before the first image is published: finishing what a crash cut short, and new leaders.

use super::super::layout;
use super::{Change, Context, Ids, create_partition, first_state};
use crate::base::ids::{BrokerId, LeaderEpoch, TopicId};
use crate::cluster::edit::Edit;
use crate::cluster::image::{Partition, Topic};
use crate::cluster::topic_name;
use crate::coordination::Op;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A topic as the store has it: where a crash cut its creation or growth short, states are missing.
#[derive(Debug)]
pub struct StoredTopic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub settings: BTreeMap<String, String>,
    /// Whether `/config/topics/T` is there; Kafka may have none.
    pub has_config: bool,
    pub has_partitions_node: bool,
    pub partitions: Vec<StoredPartition>,
}

#[derive(Debug)]
pub struct StoredPartition {
    pub replicas: Vec<BrokerId>,
    /// Whether `…/partitions/P` is there.
    pub has_node: bool,
    pub state: Option<Partition>,
}

/// Finishes creations that a crash cut short, and gives partitions their leaders. After an unclean stop every partition
/// that this node led gets a new leader epoch: its log may have lost its tail, and whoever knows of offsets of the old
/// epoch must notice. After a clean stop the leader goes on under its epoch.
pub fn recover(context: &Context, topics: Vec<StoredTopic>, unclean: bool, ids: &mut Ids) -> Change {
    let mut change = Change::default();
    for topic in topics {
        if !topic.has_config {
            change.create(layout::topic_config_path(&topic.name), layout::encode_config(&topic.settings));
        }
        if !topic.has_partitions_node {
            change.create(layout::partitions_path(&topic.name), Bytes::new());
        }
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (index, stored) in topic.partitions.into_iter().enumerate() {
            partitions.push(recover_partition(context, &mut change, &topic.name, index, stored, unclean, ids));
        }
        let is_internal = topic_name::is_internal(&topic.name);
        let topic = Topic { name: topic.name, id: topic.id, is_internal, partitions, settings: topic.settings };
        change.edits.push(Edit::PutTopic(Arc::new(topic)));
    }
    change
}

/// The topics that are whole, as the store has them: for a node that is not the controller and must not write.
pub fn as_stored(topics: Vec<StoredTopic>) -> Vec<Edit> {
    let whole = |topic: StoredTopic| {
        let partitions = topic.partitions.into_iter().map(|stored| stored.state).collect::<Option<Vec<_>>>()?;
        let is_internal = topic_name::is_internal(&topic.name);
        Some(Topic { name: topic.name, id: topic.id, is_internal, partitions, settings: topic.settings })
    };
    topics.into_iter().filter_map(whole).map(|topic| Edit::PutTopic(Arc::new(topic))).collect()
}

fn recover_partition(
    context: &Context,
    change: &mut Change,
    topic: &str,
    index: usize,
    stored: StoredPartition,
    unclean: bool,
    ids: &mut Ids,
) -> Partition {
    let Some(mut partition) = stored.state else {
        let partition = first_state(context.image, stored.replicas, ids);
        if stored.has_node {
            let data = layout::encode_state(&partition, context.controller_epoch);
            change.create(layout::state_path(topic, index), data);
        } else {
            create_partition(change, topic, index, &partition, context.controller_epoch);
        }
        return partition;
    };
    if let Some(leader) = new_leader(context, &partition, unclean) {
        let version = partition.partition_epoch;
        partition.leader = Some(leader);
        partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
        partition.partition_epoch += 1;
        let data = layout::encode_state(&partition, context.controller_epoch);
        change.ops.push(Op::set(layout::state_path(topic, index), data, Some(version)));
    }
    partition
}

/// Who leads from now on, where that is a new term: the same leader after an unclean stop of its node, or the first
/// live in-sync replica of a partition that has no leader.
fn new_leader(context: &Context, partition: &Partition, unclean: bool) -> Option<BrokerId> {
    match partition.leader {
        Some(leader) => (unclean && leader.node() == context.node).then_some(leader),
        None => partition
            .replicas
            .iter()
            .copied()
            .find(|id| partition.isr.contains(id) && context.image.brokers.contains_key(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn stored(state: Option<Partition>) -> StoredTopic {
        StoredTopic {
            name: "t".into(),
            id: TopicId::random(),
            settings: BTreeMap::new(),
            has_config: true,
            has_partitions_node: true,
            partitions: vec![StoredPartition { replicas: vec![BrokerId(1)], has_node: state.is_some(), state }],
        }
    }

    fn state(leader: Option<i32>) -> Partition {
        Partition {
            leader: leader.map(BrokerId),
            leader_epoch: LeaderEpoch(4),
            partition_epoch: 9,
            replicas: vec![BrokerId(1)],
            isr: vec![BrokerId(1)],
            incarnation: 77,
        }
    }

    fn run(topic: StoredTopic, unclean: bool) -> (Partition, Vec<Op>) {
        let fixture = Fixture::new(2);
        let change = recover(&fixture.context(), vec![topic], unclean, &mut Ids::new(1));
        let Some(Edit::PutTopic(topic)) = change.edits.first() else { panic!("{change:?}") };
        (topic.partitions[0].clone(), change.ops)
    }

    #[test]
    fn an_unclean_stop_starts_a_new_leader_epoch() {
        let (partition, ops) = run(stored(Some(state(Some(1)))), true);
        assert_eq!((partition.leader, partition.leader_epoch), (Some(BrokerId(1)), LeaderEpoch(5)));
        assert_eq!((partition.partition_epoch, partition.incarnation), (10, 77));
        assert!(matches!(&ops[..], [Op::Set { version: Some(9), .. }]), "{ops:?}");
    }

    #[test]
    fn a_clean_stop_changes_nothing() {
        let (partition, ops) = run(stored(Some(state(Some(1)))), false);
        assert_eq!((partition, ops), (state(Some(1)), vec![]));
    }

    #[test]
    fn a_partition_without_a_leader_gets_one() {
        let (partition, ops) = run(stored(Some(state(None))), false);
        assert_eq!((partition.leader, partition.leader_epoch), (Some(BrokerId(1)), LeaderEpoch(5)));
        assert_eq!(ops.len(), 1);
    }

    #[test]
    fn a_creation_cut_short_is_finished() {
        let (partition, ops) = run(StoredTopic { has_partitions_node: false, ..stored(None) }, true);
        assert_eq!((partition.leader, partition.leader_epoch), (Some(BrokerId(1)), LeaderEpoch(0)));
        let paths: Vec<&str> = ops.iter().map(Op::path).collect();
        assert_eq!(
            paths,
            ["/brokers/topics/t/partitions", "/brokers/topics/t/partitions/0", "/brokers/topics/t/partitions/0/state"]
        );
    }
}
