//! A small cluster for the tests of plans.

use super::{Change, Context, Ids};
use crate::base::config::BrokerConfig;
use crate::base::ids::{BrokerId, NodeId, ShardId};
use crate::cluster::image::{Broker, ClusterImage};
use crate::controller::handle::{AdminResult, NewTopic};
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;

pub struct Fixture {
    pub image: ClusterImage,
    pub config: BrokerConfig,
    pub ids: Ids,
}

impl Fixture {
    /// One machine, node 0, with so many shards.
    pub fn new(shards: u16) -> Fixture {
        Fixture::configured(shards, &[])
    }

    pub fn configured(shards: u16, settings: &[(&str, &str)]) -> Fixture {
        let texts = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let config = BrokerConfig::from_texts(texts).expect("a sound configuration");
        let mut image = ClusterImage::default();
        for shard in 0..shards {
            let id = BrokerId::new(NodeId(0), ShardId(shard));
            image.brokers.insert(id, Broker { id, host: None, port: 9092 + shard, rack: None });
        }
        Fixture { image, config, ids: Ids::new(1) }
    }

    pub fn context(&self) -> Context<'_> {
        Context { image: &self.image, config: &self.config, node: NodeId(0), controller_epoch: 1 }
    }

    pub fn apply(&mut self, change: Change) {
        self.image = self.image.edited(change.edits);
        self.image.check_invariants();
    }

    /// Creates a topic that must be creatable.
    pub fn topic(&mut self, name: &str, partitions: i32) {
        let context = Context { image: &self.image, config: &self.config, node: NodeId(0), controller_epoch: 1 };
        let (answers, change) = super::topics::create(&context, &[counted(name, partitions, 1)], false, &mut self.ids);
        answers[0].as_ref().expect("creatable");
        self.apply(change);
    }
}

pub fn counted(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor, assignment: BTreeMap::new(), settings: Vec::new() }
}

/// Code and message of a refusal.
pub fn refusal<T>(answer: &AdminResult<T>) -> (ResponseError, &str) {
    let error = answer.as_ref().err().expect("a refusal");
    (error.code, error.message.as_deref().unwrap_or(""))
}
