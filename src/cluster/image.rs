//! The cluster image: one immutable snapshot of brokers, topics and settings.
//!
//! The control plane builds a new image from the coordination store and hands it to every shard;
//! a shard keeps an `Arc` of its own, so reading it touches no memory that another core writes.

use crate::base::ids::{BrokerId, LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicPartition};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One snapshot of the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterImage {
    /// Counts the images of this process, from 1; a higher one is newer.
    pub version: u64,
    pub cluster_id: String,
    /// The broker that clients are told is the controller; None while there is none.
    pub controller: Option<BrokerId>,
    pub brokers: BTreeMap<BrokerId, Broker>,
    pub topics: BTreeMap<Arc<str>, Arc<Topic>>,
    pub topics_by_id: HashMap<TopicId, Arc<Topic>>,
    /// Dynamic broker settings for all brokers (`/config/brokers/<default>`).
    pub broker_defaults: BTreeMap<String, String>,
    /// Dynamic settings of one node (`/config/brokers/N`).
    pub node_settings: BTreeMap<NodeId, BTreeMap<String, String>>,
}

/// One shard of one node, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: BrokerId,
    /// None: clients are told the local address of the connection that asks.
    pub host: Option<String>,
    pub port: u16,
    pub rack: Option<String>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub is_internal: bool,
    /// Indexed by partition.
    pub partitions: Vec<Partition>,
    /// Settings of the topic itself, by Kafka's names; defaults are not in it.
    pub settings: BTreeMap<String, String>,
}

/// One partition's assignment and leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    /// Version of the partition's state node: changes with every change of leader or in-sync replicas.
    pub partition_epoch: i32,
    /// In assignment order; the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    /// Random; tells this life of the partition from an earlier one on the same machine.
    pub incarnation: u64,
}

#[cfg(test)]
impl Partition {
    /// One that has only this replica, which leads it for the first time.
    pub fn led_by(broker: BrokerId) -> Partition {
        Partition {
            leader: Some(broker),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            replicas: vec![broker],
            isr: vec![broker],
            incarnation: 1,
        }
    }
}

impl ClusterImage {
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics_by_id.get(&id)
    }

    pub fn has_partition(&self, id: TopicPartition) -> bool {
        self.topic_by_id(id.topic).is_some_and(|topic| topic.partition(id.partition).is_some())
    }
}

impl Topic {
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }
}
