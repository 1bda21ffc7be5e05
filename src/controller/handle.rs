//! What a shard may ask of the control plane: one queue to its thread, bounded in commands and in bytes, one answer each.
//!
//! An answer about a change arrives after every shard of this node has applied the image that holds the change,
//! so that a client that was told "created" can use the topic on any of them at once.

use crate::base::ids::{BrokerId, TopicId};
use crate::base::limits::CONTROL_COMMAND_BYTES_MAX;
use crate::base::metrics::ShardMetrics;
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

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
        reply: Reply<Vec<AdminResult<CreatedTopic>>>,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
        reply: Reply<Vec<AdminResult<(String, TopicId)>>>,
    },
    CreatePartitions {
        topics: Vec<MorePartitions>,
        validate_only: bool,
        reply: Reply<Vec<AdminResult<()>>>,
    },
    AlterConfigs {
        changes: Vec<ConfigChange>,
        validate_only: bool,
        reply: Reply<Vec<AdminResult<()>>>,
    },
    /// First id and length of a block of producer ids, never handed out before (KIP-730).
    AllocateProducerIds {
        reply: Reply<AdminResult<(i64, i32)>>,
    },
}

/// Where a command's answer goes. The command has its share of the queue's bytes until it is answered or dropped.
pub struct Reply<T> {
    answer: oneshot::Sender<T>,
    _share: OwnedSemaphorePermit,
}

impl<T> Reply<T> {
    /// Gives the answer back if nobody waits for it any more.
    pub fn send(self, answer: T) -> Result<(), T> {
        self.answer.send(answer)
    }
}

/// The unit in which the queue's bytes are counted.
const SHARE_BYTES: usize = 1024;
const SHARES: usize = CONTROL_COMMAND_BYTES_MAX / SHARE_BYTES;

/// The shards' end of the queue.
#[derive(Clone)]
pub struct ControlHandle {
    commands: mpsc::Sender<Command>,
    /// Shares of the queue's bytes, of all shards together.
    room: Arc<Semaphore>,
    /// Who is next to ask for room: a large command must not be overtaken by later ones of its shard.
    line: Arc<Semaphore>,
    /// Of the shard that asks: each answer is a message from another thread.
    metrics: Arc<ShardMetrics>,
}

impl ControlHandle {
    pub fn new(commands: mpsc::Sender<Command>, metrics: Arc<ShardMetrics>) -> Self {
        ControlHandle { commands, room: Arc::new(Semaphore::new(SHARES)), line: Arc::new(Semaphore::new(1)), metrics }
    }

    /// The handle of another shard to the same queue.
    pub fn of_shard(&self, metrics: Arc<ShardMetrics>) -> Self {
        ControlHandle { line: Arc::new(Semaphore::new(1)), metrics, ..self.clone() }
    }

    /// One answer a topic, in the order asked.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> AdminResult<Vec<AdminResult<CreatedTopic>>> {
        let bytes = topics.iter().map(NewTopic::bytes).sum();
        self.ask(bytes, |reply| Command::CreateTopics { topics, validate_only, reply }).await
    }

    /// One answer a topic, in the order asked: the name and id of the topic that is gone.
    pub async fn delete_topics(&self, topics: Vec<TopicRef>) -> AdminResult<Vec<AdminResult<(String, TopicId)>>> {
        let bytes = topics.iter().map(TopicRef::bytes).sum();
        self.ask(bytes, |reply| Command::DeleteTopics { topics, reply }).await
    }

    pub async fn create_partitions(
        &self,
        topics: Vec<MorePartitions>,
        validate_only: bool,
    ) -> AdminResult<Vec<AdminResult<()>>> {
        let bytes = topics.iter().map(MorePartitions::bytes).sum();
        self.ask(bytes, |reply| Command::CreatePartitions { topics, validate_only, reply }).await
    }

    pub async fn alter_configs(
        &self,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> AdminResult<Vec<AdminResult<()>>> {
        let bytes = changes.iter().map(ConfigChange::bytes).sum();
        self.ask(bytes, |reply| Command::AlterConfigs { changes, validate_only, reply }).await
    }

    pub async fn allocate_producer_ids(&self) -> AdminResult<(i64, i32)> {
        self.ask(0, |reply| Command::AllocateProducerIds { reply }).await?
    }

    /// A command of more than the queue may hold is taken when nothing else is in it.
    async fn ask<T>(&self, bytes: usize, command: impl FnOnce(Reply<T>) -> Command) -> AdminResult<T> {
        let gone =
            || AdminError { code: ResponseError::NotController, message: Some("The control plane is stopping".into()) };
        let shares = (bytes / SHARE_BYTES + 1).min(SHARES) as u32;
        let (reply, answer) = oneshot::channel();
        {
            let _turn = self.line.acquire().await.expect("never closed");
            let share = Arc::clone(&self.room).acquire_many_owned(shares).await.expect("never closed");
            let reply = Reply { answer: reply, _share: share };
            self.commands.send(command(reply)).await.map_err(|_| gone())?;
        }
        let answer = answer.await.map_err(|_| gone())?;
        self.metrics.cross_shard_messages.add(1);
        Ok(answer)
    }
}

/// About what a string costs beyond its bytes, with its place in a list or a map.
const STRING_BYTES: usize = 64;

impl NewTopic {
    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        let replicas = self.assignment.values().map(|replicas| STRING_BYTES + size_of_val(replicas.as_slice()));
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| 2 * STRING_BYTES + name.len() + value.as_ref().map_or(0, String::len));
        size_of::<Self>() + self.name.len() + replicas.sum::<usize>() + settings.sum::<usize>()
    }
}

impl TopicRef {
    fn bytes(&self) -> usize {
        match self {
            TopicRef::Name(name) => STRING_BYTES + name.len(),
            TopicRef::Id(_) => size_of::<Self>(),
        }
    }
}

impl MorePartitions {
    fn bytes(&self) -> usize {
        let replicas = self.assignment.iter().flatten().map(|replicas| STRING_BYTES + size_of_val(replicas.as_slice()));
        size_of::<Self>() + self.topic.len() + replicas.sum::<usize>()
    }
}

impl ConfigChange {
    fn bytes(&self) -> usize {
        let (ConfigResource::Topic(name) | ConfigResource::Broker(name)) = &self.resource;
        let ops = self.ops.iter().map(|(name, op)| 2 * STRING_BYTES + name.len() + op.bytes());
        size_of::<Self>() + name.len() + ops.sum::<usize>()
    }
}

impl ConfigOp {
    fn bytes(&self) -> usize {
        match self {
            ConfigOp::Set(value) | ConfigOp::Append(value) | ConfigOp::Subtract(value) => value.len(),
            ConfigOp::Delete => 0,
        }
    }
}
