//! A group of either protocol.

use super::clock::Clock;
use crate::group::classic::{self, CONSUMER};
use crate::group::consumer::member::JOINS;
use crate::group::consumer::record::Record;
use crate::group::consumer::{self, Env, Heartbeat, Refusal};
use crate::group::offsets::Readers;
use crate::group::records::Key;
use kafka_protocol::ResponseError;
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

    /// What it takes of memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Kind::Classic(group) => group.bytes(),
            Kind::Consumer(group) => group.bytes(),
        }
    }

    /// What a member that joins is known to tell about itself, or the static one whose place it takes; None: nobody.
    pub fn told_bytes(&self, member_id: &str, instance_id: Option<&str>) -> Option<usize> {
        match self {
            Kind::Classic(group) => {
                let holder = instance_id.and_then(|instance_id| group.members().of_instance(instance_id));
                let member = group.members().get(holder.unwrap_or(member_id))?;
                Some(classic::told_bytes(member.protocols()))
            }
            Kind::Consumer(group) => group.told_bytes(member_id, instance_id),
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
            Kind::Consumer(group) => group.gone().iter().map(|record| super::store::of_consumer(id, record)).collect(),
        }
    }

    /// Whose wishes decide when its offsets expire; `topics` are those that it has subscribed to.
    pub fn readers<'t>(&self, clock: &Clock, topics: Option<&'t HashSet<String>>) -> Readers<'t> {
        let group = match self {
            Kind::Classic(group) => group,
            // As in Kafka, from its commit on each.
            Kind::Consumer(_) => return topics.map_or(Readers::Simple, Readers::Subscribed),
        };
        match (group.state(), group.protocol_type(), topics) {
            (classic::State::Empty, Some(_), _) => Readers::Gone { since_ms: clock.to_wall_ms(group.state_since_ms()) },
            (classic::State::Empty, None, _) => Readers::Simple,
            (classic::State::Stable, Some(CONSUMER), Some(topics)) => Readers::Subscribed(topics),
            _ => Readers::Unknown,
        }
    }
}

/// The group of the new protocol that a heartbeat is for.
pub enum Found<'k> {
    Known(&'k consumer::Group),
    /// The heartbeat makes it, where there was none or a classic one.
    Made {
        was: Option<&'k Kind>,
        group: Box<consumer::Group>,
        /// Those that make it, before the heartbeat does anything.
        records: Vec<Record>,
    },
}

impl<'k> Found<'k> {
    /// Looks for the group. Who joins makes it; so he does of a classic group, if that has no members or may be upgraded.
    pub fn by(kind: Option<&'k Kind>, now_ms: i64, env: &Env<'_>, request: &Heartbeat) -> Result<Found<'k>, Refusal> {
        let joins = request.epoch == JOINS;
        let made = |group, records| Ok(Found::Made { was: kind, group: Box::new(group), records });
        let id = &request.group_id;
        let not_found = |message| Err(Refusal::new(ResponseError::GroupIdNotFound, message));
        match kind {
            Some(Kind::Consumer(group)) => Ok(Found::Known(group)),
            Some(Kind::Classic(group)) if joins && group.state() == classic::State::Empty => {
                made(consumer::Group::default(), Vec::new())
            }
            Some(Kind::Classic(group)) => {
                match joins.then(|| consumer::Group::of_classic(group, env, now_ms)).flatten() {
                    Some((group, records)) => made(group, records),
                    None => not_found(format!("Group {id} is not a consumer group.")),
                }
            }
            None if joins => made(consumer::Group::default(), Vec::new()),
            None if request.epoch < JOINS => not_found(format!("Group {id} not found.")),
            None => not_found(format!("Consumer group {id} not found.")),
        }
    }

    pub fn group(&self) -> &consumer::Group {
        match self {
            Found::Known(group) => group,
            Found::Made { group, .. } => group,
        }
    }

    /// What is appended to forget what it was.
    pub fn gone(&self, id: &str) -> Vec<(Key, Option<Vec<u8>>)> {
        match self {
            Found::Made { was: Some(was), .. } => was.gone(id),
            _ => Vec::new(),
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
