//! Who shall read which partition: the assignors that run in the broker (KIP-848). Pure.
//!
//! - `uniform` gives every member as many partitions as the others, as far as its subscription allows it, and moves as few as that needs.
//!   Where it is the same for both, a member gets what has a replica in its rack. Kafka 4's does not look at racks.
//! - `range` gives each member one range of every topic, the same range of all topics that have equally many partitions. Racks do not count, as
//!   in Kafka 4: that the same numbers of all topics meet at one member is what it is for, and replicas of different topics lie elsewhere.

mod mixed;
mod range;
#[cfg(test)]
mod tests;
mod uniform;

use crate::base::ids::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// Partitions by topic. A topic without any does not stand in it.
pub type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

/// An assignor that the broker offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assignor {
    Uniform,
    Range,
}

/// A member as assignors see it.
#[derive(Clone, Debug)]
pub struct MemberSpec<'m> {
    pub id: &'m str,
    pub instance_id: Option<&'m str>,
    pub rack: Option<&'m str>,
    /// In ascending order, each once; all of them stand among the topics.
    pub topics: Vec<TopicId>,
    /// What it was to have before.
    pub before: &'m Partitions,
}

/// A topic as assignors see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSpec {
    pub partitions: i32,
    /// Of each partition the racks that have a replica; empty if nobody knows.
    pub racks: Vec<BTreeSet<String>>,
}

pub type Topics = BTreeMap<TopicId, TopicSpec>;

impl Assignor {
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// What clients call it.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// What `group.consumer.assignors` calls it: its short name, or the class that Kafka has for it.
    pub fn parse(text: &str) -> Option<Assignor> {
        let short = text.strip_prefix("org.apache.kafka.coordinator.group.assignor.").unwrap_or(text);
        match short {
            "uniform" | "UniformAssignor" => Some(Assignor::Uniform),
            "range" | "RangeAssignor" => Some(Assignor::Range),
            _ => None,
        }
    }

    /// What each member is to have, in their order. Every partition of a topic that somebody has subscribed to has one owner.
    pub fn assign(self, members: &[MemberSpec<'_>], topics: &Topics) -> Vec<Partitions> {
        let Some(first) = members.first() else { return Vec::new() };
        match self {
            Assignor::Range => range::assign(members, topics),
            Assignor::Uniform if members.iter().all(|member| member.topics == first.topics) => {
                uniform::assign(members, topics)
            }
            Assignor::Uniform => mixed::assign(members, topics),
        }
    }
}

/// A partition that somebody has.
type Owned = (TopicId, i32);

/// Adds a partition to somebody's.
fn give(to: &mut Partitions, topic: TopicId, partition: i32) {
    to.entry(topic).or_default().insert(partition);
}

/// What each member keeps of what it had, before anything is shared out: existing partitions of topics that it has subscribed to.
/// A partition that two members had stays with the first.
fn kept(members: &[MemberSpec<'_>], topics: &Topics) -> (Vec<Vec<Owned>>, BTreeSet<Owned>) {
    let mut taken = BTreeSet::new();
    let of_member = |member: &MemberSpec<'_>| {
        let mut kept = Vec::new();
        for (topic, partitions) in member.before {
            let count = match topics.get(topic) {
                Some(spec) if member.topics.binary_search(topic).is_ok() => spec.partitions,
                _ => continue,
            };
            let here = partitions.iter().filter(|partition| (0..count).contains(*partition));
            kept.extend(here.map(|partition| (*topic, *partition)).filter(|one| taken.insert(*one)));
        }
        kept
    };
    let kept = members.iter().map(of_member).collect();
    (kept, taken)
}

/// The racks that have a replica, if somebody knows.
fn racks_of(topics: &Topics, (topic, partition): Owned) -> Option<&BTreeSet<String>> {
    topics.get(&topic)?.racks.get(usize::try_from(partition).ok()?)
}

fn is_near(member: &MemberSpec<'_>, topics: &Topics, one: Owned) -> bool {
    member.rack.is_some_and(|rack| racks_of(topics, one).is_some_and(|racks| racks.contains(rack)))
}
