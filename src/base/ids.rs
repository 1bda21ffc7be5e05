//! Identifiers and offsets as types of their own, so that one cannot be passed for another.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

pub use uuid::Uuid;

/// One process on one machine (`broker.id` in server.properties).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i32);

/// One pinned thread of a node; a broker of its own to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The broker id that clients see: `node * 1000 + shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub i32);

/// Shards that one node can have: broker ids of two nodes must not overlap.
pub const SHARDS_PER_NODE: i32 = 1000;

impl BrokerId {
    pub fn new(node: NodeId, shard: ShardId) -> Self {
        assert!(i32::from(shard.0) < SHARDS_PER_NODE);
        BrokerId(node.0 * SHARDS_PER_NODE + i32::from(shard.0))
    }

    /// The machine: replicas of a partition never share it.
    pub fn node(self) -> NodeId {
        NodeId(self.0.div_euclid(SHARDS_PER_NODE))
    }

    pub fn shard(self) -> ShardId {
        ShardId(self.0.rem_euclid(SHARDS_PER_NODE) as u16)
    }
}

/// A topic's unique id (KIP-516): a topic created again under its old name is another topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

/// A partition's index within its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionIndex(pub i32);

/// A partition, whatever life of its topic is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: PartitionIndex,
}

/// A record's position in its partition, counted in records from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

/// Counts the leaders that a partition has had (KIP-101).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

/// An idempotent producer (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

impl Add<i64> for Offset {
    type Output = Offset;
    fn add(self, records: i64) -> Offset {
        Offset(self.0 + records)
    }
}

impl AddAssign<i64> for Offset {
    fn add_assign(&mut self, records: i64) {
        self.0 += records;
    }
}

impl Sub<Offset> for Offset {
    type Output = i64;
    fn sub(self, other: Offset) -> i64 {
        self.0 - other.0
    }
}

macro_rules! display_inner {
    ($($t:ty),*) => { $(impl fmt::Display for $t {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    })* };
}
display_inner!(NodeId, ShardId, BrokerId, PartitionIndex, Offset, LeaderEpoch, ProducerId);

impl TopicId {
    /// "No topic id": what clients send when they name the topic instead.
    pub const ZERO: TopicId = TopicId(Uuid::nil());

    /// A random id, never one that Kafka reserves (zero, one, or a leading dash in its text form).
    pub fn random() -> TopicId {
        loop {
            let id = TopicId(Uuid::new_v4());
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// Kafka's text form: URL-safe base64 without padding.
    pub fn parse(text: &str) -> Option<TopicId> {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(TopicId(Uuid::from_slice(&bytes).ok()?))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine;
        f.write_str(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_id_holds_node_and_shard() {
        let id = BrokerId::new(NodeId(7), ShardId(12));
        assert_eq!(id, BrokerId(7012));
        assert_eq!((id.node(), id.shard()), (NodeId(7), ShardId(12)));
    }

    #[test]
    fn topic_id_text_round_trips() {
        let id = TopicId::random();
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        assert_eq!(TopicId::parse("not base64!"), None);
    }
}
