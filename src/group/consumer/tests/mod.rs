mod classic_stories;
mod scenario_words;
mod scenarios;
mod simulation;
mod stories;
mod storm;

use super::assign::Assignor;
use super::record::Record;
use super::*;
use crate::base::ids::{BrokerId, LeaderEpoch, Uuid};
use crate::cluster::image::{Partition, Topic};
use std::sync::Arc;

pub fn limits() -> Limits {
    let assignors = vec![Assignor::Uniform, Assignor::Range];
    let policy = Policy::parse("BIDIRECTIONAL");
    Limits { session_ms: 45_000, heartbeat_ms: 5_000, members_max: usize::MAX, assignors, policy }
}

/// Makes a topic, or gives it another number of partitions.
pub fn set_topic(image: &mut ClusterImage, name: &str, id: u128, partitions: usize) {
    let partition = Partition {
        leader: None,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        replicas: vec![BrokerId(0)],
        isr: vec![BrokerId(0)],
        incarnation: 0,
    };
    let topic = Arc::new(Topic {
        name: name.into(),
        id: TopicId(Uuid::from_u128(id)),
        is_internal: false,
        partitions: vec![partition; partitions],
        settings: BTreeMap::new(),
    });
    image.version += 1;
    image.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
    image.topics_by_id.insert(topic.id, topic);
}

pub fn drop_topic(image: &mut ClusterImage, name: &str) {
    image.version += 1;
    if let Some(topic) = image.topics.remove(name) {
        image.topics_by_id.remove(&topic.id);
    }
}

pub fn topics(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// The group that a coordinator finds which has nothing but these records.
pub fn reloaded(records: &[Record], now_ms: i64) -> Group {
    let mut stored = Stored::default();
    records.iter().cloned().for_each(|record| stored.take(record));
    Group::restored(stored, &limits(), now_ms)
}
