//! A group of either protocol.

use crate::group::classic::{self, CONSUMER};
use crate::group::consumer;
use crate::group::offsets::Readers;
use crate::group::records::Key;
use std::collections::HashSet;

/// A group by the protocol that its members speak.
pub enum Kind {
    Classic(Box<classic::Group>),
    Consumer(Box<consumer::Group>),
}

impl Kind {
    pub fn classic(&self) -> Option<&classic::Group> {
        match self {
            Kind::Classic(group) => Some(group),
            Kind::Consumer(_) => None,
        }
    }

    pub fn consumer(&self) -> Option<&consumer::Group> {
        match self {
            Kind::Consumer(group) => Some(group),
            Kind::Classic(_) => None,
        }
    }

    /// As ListGroups calls it (KIP-848).
    pub fn type_name(&self) -> &'static str {
        match self {
            Kind::Classic(_) => "classic",
            Kind::Consumer(_) => "consumer",
        }
    }

    /// As Kafka calls it.
    pub fn state_name(&self) -> &'static str {
        match self {
            Kind::Classic(group) => group.state().name(),
            Kind::Consumer(group) => group.state().name(),
        }
    }

    pub fn protocol_type(&self) -> &str {
        match self {
            Kind::Classic(group) => group.protocol_type().unwrap_or_default(),
            Kind::Consumer(_) => CONSUMER,
        }
    }

    pub fn next_deadline_ms(&self) -> Option<i64> {
        match self {
            Kind::Classic(group) => group.next_deadline_ms(),
            Kind::Consumer(group) => group.next_deadline_ms(),
        }
    }

    /// Nobody can bring it back to life.
    pub fn is_forgettable(&self) -> bool {
        match self {
            Kind::Classic(group) => group.is_forgettable(),
            Kind::Consumer(group) => group.is_empty(),
        }
    }

    /// What is appended to forget it.
    pub fn gone(&self, id: &str) -> Vec<(Key, Option<Vec<u8>>)> {
        match self {
            Kind::Classic(_) => vec![(Key::Group { group: id.to_owned() }, None)],
            Kind::Consumer(group) => super::store::of_consumer(id, &group.gone()),
        }
    }

    /// Whose wishes decide when its offsets expire; `topics` are those that it has subscribed to.
    pub fn readers<'t>(&self, topics: Option<&'t HashSet<String>>) -> Readers<'t> {
        let group = match self {
            Kind::Classic(group) => group,
            // As in Kafka, from its commit on each.
            Kind::Consumer(_) => return topics.map_or(Readers::Simple, Readers::Subscribed),
        };
        match (group.state(), group.protocol_type(), topics) {
            (classic::State::Empty, Some(_), _) => Readers::Gone { since_ms: group.state_since_ms() },
            (classic::State::Empty, None, _) => Readers::Simple,
            (classic::State::Stable, Some(CONSUMER), Some(topics)) => Readers::Subscribed(topics),
            _ => Readers::Unknown,
        }
    }
}

/// The topics that a group's members have subscribed to; None: one of them cannot be read.
pub fn subscribed(kind: &Kind) -> Option<HashSet<String>> {
    let group = match kind {
        Kind::Classic(group) => group,
        Kind::Consumer(group) => return Some(group.topics().map(str::to_owned).collect()),
    };
    let protocol = group.protocol()?;
    let mut topics = HashSet::new();
    for member in group.members().iter() {
        topics.extend(crate::group::subscription::topics(&member.metadata(protocol))?);
    }
    Some(topics)
}
