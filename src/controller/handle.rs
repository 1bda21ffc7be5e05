//! What a shard may ask of the control plane: one bounded queue to its thread, one answer each.
//!
//! An answer about a change arrives after every shard of this node has applied the image that holds the change,
//! so that a client that was told "created" can use the topic on any of them at once.

use crate::base::ids::{BrokerId, TopicId};
use crate::base::metrics::ShardMetrics;
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Why an administrative request was refused: Kafka's code, and a message where Kafka gives one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminError {
    pub code: ResponseError,
    pub message: Option<String>,
}

pub type AdminResult<T> = Result<T, AdminError>;

/// A topic to create. Either counts (-1: the broker's defaults) or an explicit assignment.
#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i16,
    /// Partition index to replicas; empty where counts are given.
    pub assignment: BTreeMap<i32, Vec<BrokerId>>,
    /// Settings; a null value is refused as Kafka does.
    pub settings: Vec<(String, Option<String>)>,
}

/// What CreateTopics answers about a topic (KIP-525).
#[derive(Clone, Debug)]
pub struct CreatedTopic {
    pub id: TopicId,
    pub partitions: i32,
    pub replication_factor: i16,
    /// The topic's own settings; the caller resolves them against the defaults for the answer.
    pub settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub enum TopicRef {
    Name(String),
    Id(TopicId),
}

#[derive(Clone, Debug)]
pub struct MorePartitions {
    pub topic: String,
    /// The new total.
    pub count: i32,
    /// Replicas of each added partition; None: placed by the controller.
    pub assignment: Option<Vec<Vec<BrokerId>>>,
}

/// Whose settings are altered. An empty broker name means the default of all brokers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConfigResource {
    Topic(String),
    /// As the client wrote it: a broker id, or "" for all.
    Broker(String),
}

#[derive(Clone, Debug)]
pub enum ConfigOp {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

#[derive(Clone, Debug)]
pub struct ConfigChange {
    pub resource: ConfigResource,
    /// AlterConfigs replaces all settings, IncrementalAlterConfigs changes those that it names.
    pub replace_all: bool,
    pub ops: Vec<(String, ConfigOp)>,
}

/// A command to the control plane with the place for its answer.
pub enum Command {
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
        reply: oneshot::Sender<Vec<AdminResult<CreatedTopic>>>,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
        reply: oneshot::Sender<Vec<AdminResult<(String, TopicId)>>>,
    },
    CreatePartitions {
        topics: Vec<MorePartitions>,
        validate_only: bool,
        reply: oneshot::Sender<Vec<AdminResult<()>>>,
    },
    AlterConfigs {
        changes: Vec<ConfigChange>,
        validate_only: bool,
        reply: oneshot::Sender<Vec<AdminResult<()>>>,
    },
    /// First id and length of a block of producer ids, never handed out before (KIP-730).
    AllocateProducerIds {
        reply: oneshot::Sender<AdminResult<(i64, i32)>>,
    },
}

/// The shards' end of the queue.
#[derive(Clone)]
pub struct ControlHandle {
    commands: mpsc::Sender<Command>,
    /// Of the shard that asks: each answer is a message from another thread.
    metrics: Arc<ShardMetrics>,
}

impl ControlHandle {
    pub fn new(commands: mpsc::Sender<Command>, metrics: Arc<ShardMetrics>) -> Self {
        ControlHandle { commands, metrics }
    }

    /// One answer a topic, in the order asked.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> AdminResult<Vec<AdminResult<CreatedTopic>>> {
        self.ask(|reply| Command::CreateTopics { topics, validate_only, reply }).await
    }

    /// One answer a topic, in the order asked: the name and id of the topic that is gone.
    pub async fn delete_topics(&self, topics: Vec<TopicRef>) -> AdminResult<Vec<AdminResult<(String, TopicId)>>> {
        self.ask(|reply| Command::DeleteTopics { topics, reply }).await
    }

    pub async fn create_partitions(
        &self,
        topics: Vec<MorePartitions>,
        validate_only: bool,
    ) -> AdminResult<Vec<AdminResult<()>>> {
        self.ask(|reply| Command::CreatePartitions { topics, validate_only, reply }).await
    }

    pub async fn alter_configs(
        &self,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> AdminResult<Vec<AdminResult<()>>> {
        self.ask(|reply| Command::AlterConfigs { changes, validate_only, reply }).await
    }

    pub async fn allocate_producer_ids(&self) -> AdminResult<(i64, i32)> {
        self.ask(|reply| Command::AllocateProducerIds { reply }).await?
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> AdminResult<T> {
        let gone =
            || AdminError { code: ResponseError::NotController, message: Some("The control plane is stopping".into()) };
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())?;
        self.metrics.cross_shard_messages.add(1);
        Ok(answer)
    }
}
