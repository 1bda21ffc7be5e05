//! A member of a group of the new protocol.

use super::assign::Partitions;
use crate::base::limits::MEMBER_BYTES;
use crate::group::classic::told_bytes;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A member's id. Clients make it up (KIP-1082), older ones are given one.
pub type MemberId = Rc<str>;

/// Epoch of a member that wants to join, or to come back after it was fenced.
pub const JOINS: i32 = 0;
/// Epoch of a member that leaves for good.
pub const LEAVES: i32 = -1;
/// Epoch of a static member that leaves and will be back.
pub const LEAVES_FOR_A_WHILE: i32 = -2;

/// A member: what it told about itself, and what it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub id: MemberId,
    pub profile: Rc<Profile>,
    pub current: Rc<Current>,
}

/// What a member told about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Topics by name.
    pub topics: BTreeSet<String>,
    /// Topics by pattern; empty is none.
    pub regex: Option<String>,
    pub rebalance_timeout_ms: i32,
    /// The assignor that it would like.
    pub assignor: Option<String>,
    /// Of a member that speaks the classic protocol in a group of the new one.
    pub classic: Option<Classic>,
}

/// What a member of the classic protocol told besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classic {
    pub session_timeout_ms: i32,
    /// Assignors by name with its subscription, the preferred one first.
    pub protocols: Vec<(String, Bytes)>,
}

/// What a member has, and how far it is on its way to what it is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// The assignment epoch that it has come to; what its requests must bear.
    pub epoch: i32,
    /// Before the last change: the answer that told the new one may be lost.
    pub previous_epoch: i32,
    pub state: MemberState,
    pub assigned: Partitions,
    /// It has to give these up, and has not said that it has.
    pub revoking: Partitions,
}

/// Where a member is on its way to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    /// It has all that it is to have, and nothing else.
    #[default]
    Stable,
    /// It has to give up partitions first.
    Unrevoked,
    /// It waits for partitions that others have not given up yet.
    Unreleased,
}

impl MemberState {
    /// As Kafka's records have it; None for one of a newer version.
    pub fn of_code(code: i8) -> Option<MemberState> {
        [MemberState::Stable, MemberState::Unrevoked, MemberState::Unreleased]
            .into_iter()
            .find(|state| state.code() == code)
    }

    pub fn code(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::Unrevoked => 1,
            MemberState::Unreleased => 2,
        }
    }
}

impl Member {
    pub fn new(id: &str) -> Member {
        Member { id: id.into(), profile: Rc::default(), current: Rc::default() }
    }

    /// It has what the assignment of this epoch gives it.
    pub fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.current.state == MemberState::Stable && self.current.epoch == epoch
    }

    pub fn epoch(&self) -> i32 {
        self.current.epoch
    }

    pub fn instance_id(&self) -> Option<&str> {
        self.profile.instance_id.as_deref()
    }

    /// It speaks the classic protocol.
    pub fn is_classic(&self) -> bool {
        self.profile.classic.is_some()
    }

    /// A static member that has left and will be back.
    pub fn is_away(&self) -> bool {
        self.current.epoch == LEAVES_FOR_A_WHILE
    }

    /// The pattern that it has subscribed to.
    pub fn regex(&self) -> Option<&str> {
        self.profile.regex.as_deref().filter(|regex| !regex.is_empty())
    }

    /// What it takes of memory, about: each partition is noted with its owner, too.
    pub fn bytes(&self) -> usize {
        let has = partitions_bytes(&self.current.assigned) + partitions_bytes(&self.current.revoking);
        MEMBER_BYTES + 2 * self.id.len() + self.profile.bytes() + has + 64 * self.holds().count()
    }

    /// Everything that nobody else may be given meanwhile.
    pub fn holds(&self) -> impl Iterator<Item = (crate::base::ids::TopicId, i32)> {
        let all = self.current.assigned.iter().chain(&self.current.revoking);
        all.flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
    }
}

impl Profile {
    /// What the texts in it take of memory, about.
    pub fn bytes(&self) -> usize {
        let texts = [&self.instance_id, &self.rack_id, &self.regex, &self.assignor];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        let topics = self.topics.iter().map(|topic| 32 + topic.len()).sum::<usize>();
        let of_classic = self.classic.as_ref().map_or(0, |classic| told_bytes(&classic.protocols));
        texts + self.client_id.len() + self.client_host.len() + topics + of_classic
    }
}

/// What they take of memory, about.
pub fn partitions_bytes(partitions: &Partitions) -> usize {
    partitions.values().map(|of_topic| 96 + 8 * of_topic.len()).sum()
}

impl Current {
    /// The same with another epoch; the one before is kept for a member that has not heard of it.
    pub fn with_epoch(self, epoch: i32) -> Current {
        Current { epoch, previous_epoch: self.epoch, ..self }
    }
}
