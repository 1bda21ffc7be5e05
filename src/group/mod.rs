//! Consumer groups: who is a member, who reads which partition, how far each group has read.
//!
//! - `classic` is the state machine of the group protocol that clients assign by (JoinGroup, SyncGroup, Heartbeat, LeaveGroup).
//! - `consumer` is that of the protocol in which the broker assigns (KIP-848: ConsumerGroupHeartbeat).
//! - `records` and `consumer_records` are the bytes of `__consumer_offsets`, as Apache Kafka writes them.

pub mod classic;
pub mod consumer;
mod consumer_records;
pub mod coordinator;
pub mod offsets;
pub mod records;
#[cfg(test)]
mod scenario;
pub mod subscription;
