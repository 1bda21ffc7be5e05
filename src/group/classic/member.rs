//! One member of a group, and all of them.

use super::event::{JoinAnswer, JoinRequest, JoinedMember, MemberRecord, SyncAnswer, Waiter};
use crate::base::limits::MEMBER_BYTES;
use bytes::Bytes;
use indexmap::IndexMap;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    joining: Option<Waiter>,
    pub syncing: Option<Waiter>,
    /// Not heard of since then, it has failed. Not in force while it waits for an answer of ours.
    deadline_ms: i64,
    /// It has never got an answer to its JoinGroup: it does not know its id, so it cannot send heartbeats.
    pub is_new: bool,
}

impl Member {
    pub fn from_request(id: String, request: &JoinRequest) -> Member {
        Member {
            id,
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            deadline_ms: i64::MAX,
            is_new: true,
        }
    }

    /// A member of whom only its record is known: its assignor is the group's.
    pub fn restored(record: &MemberRecord, protocol: &str) -> Member {
        Member {
            id: record.member_id.clone(),
            instance_id: record.instance_id.clone(),
            client_id: record.client_id.clone(),
            client_host: record.client_host.clone(),
            session_timeout_ms: record.session_timeout_ms,
            rebalance_timeout_ms: record.rebalance_timeout_ms,
            protocols: vec![(protocol.to_owned(), record.subscription.clone())],
            assignment: record.assignment.clone(),
            joining: None,
            syncing: None,
            deadline_ms: i64::MAX,
            is_new: false,
        }
    }

    pub fn update(&mut self, request: &JoinRequest) {
        self.protocols.clone_from(&request.protocols);
        self.session_timeout_ms = request.session_timeout_ms;
        self.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }

    pub fn protocols(&self) -> &[(String, Bytes)] {
        &self.protocols
    }

    /// What it takes of memory, about.
    fn bytes(&self) -> usize {
        let texts = 4 * self.id.len() + 2 * self.instance_id.as_ref().map_or(0, String::len);
        let client = self.client_id.len() + self.client_host.len();
        MEMBER_BYTES + texts + client + told_bytes(&self.protocols) + self.assignment.len()
    }

    /// The assignors that it knows, each once even if it was named twice.
    fn known(&self) -> HashSet<&str> {
        self.protocols.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// What it told about itself for this assignor.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    #[cfg(test)]
    pub fn waiters(&self) -> impl Iterator<Item = Waiter> {
        self.joining.into_iter().chain(self.syncing)
    }

    /// Its time counts: a member that waits for us is alive for as long as we let it wait, unless it is new.
    fn is_timed(&self) -> bool {
        self.is_new || (self.joining.is_none() && self.syncing.is_none())
    }
}

/// What somebody who joins tells about himself.
pub fn told_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| 64 + 2 * name.len() + metadata.len()).sum()
}

/// The members of a group with what is counted about them.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// In the order in which they came; each keeps its place as long as it is there.
    by_place: BTreeMap<u64, Member>,
    /// Places by id.
    places: HashMap<String, u64>,
    next_place: u64,
    /// Member ids by instance id.
    instances: HashMap<String, String>,
    joining: usize,
    bytes: usize,
    /// How many members know each assignor.
    support: HashMap<String, usize>,
    /// When each member fails if it is not heard of: (ms, member id).
    deadlines: BTreeSet<(i64, String)>,
}

impl Members {
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    pub fn get(&self, id: &str) -> Option<&Member> {
        self.by_place.get(self.places.get(id)?)
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.by_place.get_mut(self.places.get(id)?)
    }

    pub fn contains(&self, id: &str) -> bool {
        self.places.contains_key(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_place.values()
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|member| member.id.as_str())
    }

    pub fn of_instance(&self, instance_id: &str) -> Option<&str> {
        self.instances.get(instance_id).map(String::as_str)
    }

    /// What they take of memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wait for an answer to their JoinGroup.
    pub fn joining(&self) -> usize {
        self.joining
    }

    pub fn insert(&mut self, member: Member) {
        self.insert_at(self.next_place, member);
        self.next_place += 1;
    }

    fn insert_at(&mut self, place: u64, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.instances.insert(instance_id.clone(), member.id.clone());
        }
        self.joining += usize::from(member.is_joining());
        self.bytes += member.bytes();
        for protocol in member.known() {
            *self.support.entry(protocol.to_owned()).or_default() += 1;
        }
        self.deadlines.insert((member.deadline_ms, member.id.clone()));
        let before = self.places.insert(member.id.clone(), place);
        debug_assert!(before.is_none(), "a member is added once");
        self.by_place.insert(place, member);
    }

    pub fn remove(&mut self, id: &str) -> Option<Member> {
        self.take(id).map(|(_, member)| member)
    }

    fn take(&mut self, id: &str) -> Option<(u64, Member)> {
        let place = self.places.remove(id)?;
        let member = self.by_place.remove(&place).expect("invariant: places are those of members");
        if let Some(instance_id) = &member.instance_id
            && self.instances.get(instance_id).is_some_and(|current| current == id)
        {
            self.instances.remove(instance_id);
        }
        self.joining -= usize::from(member.is_joining());
        self.bytes -= member.bytes();
        for protocol in member.known() {
            if let Some(count) = self.support.get_mut(protocol) {
                *count -= 1;
                if *count == 0 {
                    self.support.remove(protocol);
                }
            }
        }
        self.deadlines.remove(&(member.deadline_ms, member.id.clone()));
        Some((place, member))
    }

    /// Takes the member out, has it changed, and puts it back where it was.
    pub fn alter(&mut self, id: &str, change: impl FnOnce(&mut Member)) {
        let Some((place, mut member)) = self.take(id) else { return };
        change(&mut member);
        self.insert_at(place, member);
    }

    /// It waits for an answer to its JoinGroup; who waited before in its name is given back.
    pub fn begin_join(&mut self, id: &str, waiter: Waiter) -> Option<Waiter> {
        let member = self.get_mut(id)?;
        let before = member.joining.replace(waiter);
        self.joining += usize::from(before.is_none());
        before
    }

    pub fn end_join(&mut self, id: &str) -> Option<Waiter> {
        let waiter = self.get_mut(id)?.joining.take()?;
        self.joining -= 1;
        Some(waiter)
    }

    pub fn with(&mut self, id: &str, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.get_mut(id) else { return };
        let before = member.bytes();
        change(member);
        let after = member.bytes();
        self.bytes = self.bytes + after - before;
    }

    /// It fails if it is not heard of until then.
    pub fn set_deadline(&mut self, id: &str, deadline_ms: i64) {
        let Some(member) = self.get_mut(id) else { return };
        let before = (member.deadline_ms, member.id.clone());
        member.deadline_ms = deadline_ms;
        self.deadlines.remove(&before);
        self.deadlines.insert((deadline_ms, before.1));
    }

    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// A member whose time is up. One that waits for us gets more time instead.
    pub fn take_failed(&mut self, now_ms: i64) -> Option<String> {
        loop {
            let (deadline_ms, id) = self.deadlines.first()?;
            if *deadline_ms > now_ms {
                return None;
            }
            let id = id.clone();
            let member = self.get(&id).expect("invariant: deadlines are those of members");
            if member.is_timed() {
                return Some(id);
            }
            let later = now_ms + i64::from(member.session_timeout_ms).max(1);
            self.set_deadline(&id, later);
        }
    }

    /// Whether one of these assignors is known to all members.
    pub fn share_one_of(&self, protocols: &[(String, Bytes)]) -> bool {
        protocols.iter().any(|(name, _)| self.support.get(name).copied().unwrap_or(0) == self.len())
    }

    /// The assignor that most members prefer among those that all know.
    pub fn elect_protocol(&self) -> Option<String> {
        let known = |name: &str| self.support.get(name).copied() == Some(self.len());
        let mut votes: IndexMap<&str, usize> = IndexMap::new();
        for member in self.iter() {
            let choice = member.protocols.iter().map(|(name, _)| name.as_str()).find(|name| known(name))?;
            *votes.entry(choice).or_default() += 1;
        }
        // Of equals the one that was voted for first.
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.iter().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    pub fn for_leader(&self, protocol: &str) -> Vec<JoinedMember> {
        let told = |member: &Member| JoinedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        self.iter().map(told).collect()
    }

    #[cfg(any(test, debug_assertions))]
    pub fn check(&self) {
        assert_eq!(self.joining, self.iter().filter(|member| member.is_joining()).count());
        assert_eq!(self.deadlines.len(), self.by_place.len());
        assert_eq!(self.bytes, self.iter().map(Member::bytes).sum::<usize>());
        assert_eq!(self.places.len(), self.by_place.len());
        for (place, member) in &self.by_place {
            assert_eq!(self.places.get(&member.id), Some(place));
            assert!(self.deadlines.contains(&(member.deadline_ms, member.id.clone())));
            if let Some(instance_id) = &member.instance_id {
                assert_eq!(self.instances.get(instance_id), Some(&member.id), "one member an instance");
            }
        }
        assert_eq!(self.instances.len(), self.iter().filter(|m| m.instance_id.is_some()).count());
    }
}

impl JoinAnswer {
    pub fn refused(member_id: &str, error: kafka_protocol::ResponseError) -> JoinAnswer {
        JoinAnswer { error: Some(error), member_id: member_id.to_owned(), generation: -1, ..JoinAnswer::default() }
    }
}

impl SyncAnswer {
    pub fn refused(error: kafka_protocol::ResponseError) -> SyncAnswer {
        SyncAnswer { error: Some(error), ..SyncAnswer::default() }
    }
}
