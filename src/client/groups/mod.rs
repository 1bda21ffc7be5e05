//! Consumer groups, from the client's side: looking at them, changing their offsets, being a member of one.
//!
//! `protocol` is what consumers tell each other through the coordinator, and `assign` how a group's leader shares partitions out
//! (both pure); `coordinator` finds who is in charge of a group; `admin` is for operators; `member` joins, and `consume` reads as one.

pub mod admin;
pub mod assign;
pub mod consume;
mod coordinator;
mod member;
pub mod protocol;

pub use consume::{Progress, consume_as_member};
pub use member::MemberOptions;

/// A topic's name and a partition.
pub type TopicPartitionName = (String, i32);
