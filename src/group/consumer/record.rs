//! What of a group outlives its coordinator. A group changes by its records alone: while it is served, and when it is loaded.

use super::assign::Partitions;
use super::member::{Current, Profile};
use crate::base::ids::TopicId;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One record about a group; None takes away what was known.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Epoch(Option<i32>),
    Topics(Option<TopicsMetadata>),
    Member(String, Option<Rc<Profile>>),
    AssignmentEpoch(Option<i32>),
    Target(String, Option<Partitions>),
    Current(String, Option<Rc<Current>>),
    Regex(String, Option<Resolved>),
}

/// What a record is about, within its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Epoch,
    Topics,
    Member(String),
    AssignmentEpoch,
    Target(String),
    Current(String),
    Regex(String),
}

/// The topics that members have subscribed to, as far as they exist, by name.
pub type TopicsMetadata = BTreeMap<String, TopicMetadata>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    pub id: TopicId,
    pub partitions: i32,
}

/// The topics that match a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// By name, in ascending order.
    pub topics: Vec<String>,
    /// The version of the image that was looked at.
    pub version: i64,
    /// When, in ms since 1970.
    pub at_ms: i64,
}

impl Resolved {
    /// What it takes of memory, about.
    pub fn bytes(&self) -> usize {
        128 + self.topics.iter().map(|topic| 32 + topic.len()).sum::<usize>()
    }
}

impl Record {
    pub fn subject(&self) -> Subject {
        match self {
            Record::Epoch(_) => Subject::Epoch,
            Record::Topics(_) => Subject::Topics,
            Record::Member(id, _) => Subject::Member(id.clone()),
            Record::AssignmentEpoch(_) => Subject::AssignmentEpoch,
            Record::Target(id, _) => Subject::Target(id.clone()),
            Record::Current(id, _) => Subject::Current(id.clone()),
            Record::Regex(regex, _) => Subject::Regex(regex.clone()),
        }
    }
}

impl Subject {
    /// The record that takes away what is known of this.
    pub fn gone(self) -> Record {
        match self {
            Subject::Epoch => Record::Epoch(None),
            Subject::Topics => Record::Topics(None),
            Subject::Member(id) => Record::Member(id, None),
            Subject::AssignmentEpoch => Record::AssignmentEpoch(None),
            Subject::Target(id) => Record::Target(id, None),
            Subject::Current(id) => Record::Current(id, None),
            Subject::Regex(regex) => Record::Regex(regex, None),
        }
    }
}
