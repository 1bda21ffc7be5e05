//! What a request changes: pure decisions from the image. The driver performs the steps on the store, and then the
//! edits on the image. Checks, their order, codes and words are Kafka 3.9's (ZooKeeper mode).

pub mod configs;
pub mod partitions;
pub mod producer_ids;
pub mod recover;
pub mod topics;

use super::handle::{AdminError, AdminResult};
use super::layout;
use crate::base::config::{BrokerConfig, ConfigError};
use crate::base::ids::{BrokerId, LeaderEpoch, NodeId, TopicId, Uuid};
use crate::base::limits::STORE_REQUEST_BYTES_MAX;
use crate::cluster::edit::Edit;
use crate::cluster::image::{ClusterImage, Partition, Topic};
use crate::cluster::placement::{Load, PlacementError, count_assignment};
use crate::coordination::{CreateMode, Op};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;

/// What decisions are made from.
pub struct Context<'a> {
    pub image: &'a ClusterImage,
    /// The node's settings in force, dynamic ones included.
    pub config: &'a BrokerConfig,
    pub node: NodeId,
    pub controller_epoch: i32,
}

/// How often a plan is made anew where the store changes under it.
pub const ATTEMPTS_MAX: usize = 5;

/// Steps on the store, in an order that may be cut anywhere (`recover` finishes what a crash left), and what they
/// change in the image.
#[derive(Debug, Default)]
pub struct Change {
    pub ops: Vec<Op>,
    pub edits: Vec<Edit>,
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.edits.is_empty()
    }

    fn create(&mut self, path: String, data: Bytes) {
        self.ops.push(Op::create(path, data, CreateMode::Persistent));
    }
}

/// The source of ids, seeded by the driver: the same seed gives the same plan.
pub struct Ids(fastrand::Rng);

impl Ids {
    pub fn new(seed: u64) -> Self {
        Ids(fastrand::Rng::with_seed(seed))
    }

    /// A random (version 4) id that no other topic bears and whose text starts with no dash, as Kafka's.
    pub fn topic(&mut self, image: &ClusterImage) -> TopicId {
        loop {
            let id = TopicId(uuid::Builder::from_random_bytes(self.0.u128(..).to_be_bytes()).into_uuid());
            if !id.to_string().starts_with('-') && image.topic_by_id(id).is_none() && id.0 != Uuid::nil() {
                return id;
            }
        }
    }

    pub fn incarnation(&mut self) -> u64 {
        self.0.u64(1..)
    }
}

fn refuse<T>(code: ResponseError, message: impl Into<String>) -> AdminResult<T> {
    Err(AdminError { code, message: Some(message.into()) })
}

fn placement_error(error: PlacementError) -> AdminError {
    let code = match error {
        PlacementError::NoPartitions => ResponseError::InvalidPartitions,
        PlacementError::NoReplicas | PlacementError::TooFewMachines { .. } => ResponseError::InvalidReplicationFactor,
        PlacementError::BadAssignment(_) => ResponseError::InvalidReplicaAssignment,
    };
    AdminError { code, message: Some(error.to_string()) }
}

fn config_error(error: &ConfigError) -> AdminError {
    AdminError { code: ResponseError::InvalidConfig, message: Some(error.to_string()) }
}

/// What all partitions put on each shard, and where the round robin goes on.
fn loads_of(image: &ClusterImage) -> (BTreeMap<BrokerId, Load>, usize) {
    let mut load = BTreeMap::new();
    let mut partitions = 0;
    for topic in image.topics.values() {
        topic.partitions.iter().for_each(|partition| count_assignment(&mut load, &partition.replicas));
        partitions += topic.partitions.len();
    }
    (load, partitions)
}

/// A partition in its first state: the first live replica leads, every live replica is in sync.
fn first_state(image: &ClusterImage, replicas: Vec<BrokerId>, ids: &mut Ids) -> Partition {
    let live: Vec<BrokerId> = replicas.iter().copied().filter(|id| image.brokers.contains_key(id)).collect();
    Partition {
        leader: live.first().copied(),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        isr: if live.is_empty() { replicas.clone() } else { live },
        replicas,
        incarnation: ids.incarnation(),
    }
}

fn create_partition(change: &mut Change, topic: &str, index: usize, partition: &Partition, controller_epoch: i32) {
    change.create(layout::partition_path(topic, index), Bytes::new());
    change.create(layout::state_path(topic, index), layout::encode_state(partition, controller_epoch));
}

/// A topic's assignment is one node of the store, and must fit one request to it.
fn check_topic_fits(topic: &Topic) -> AdminResult<()> {
    let replicas = topic.partitions.iter().map(|partition| partition.replicas.as_slice());
    let bytes = layout::encode_topic(topic.id, replicas).len();
    if bytes > STORE_REQUEST_BYTES_MAX - 10_000 {
        return refuse(
            ResponseError::PolicyViolation,
            format!("The assignment of topic '{}' would take {bytes} bytes, more than fit one node.", topic.name),
        );
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod fixture;
