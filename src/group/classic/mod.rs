//! The classic group protocol: members join, one of them (the leader) assigns, all fetch their part. Pure.
//!
//! ```text
//!            first member joins                    all have joined, or time is up
//!   Empty ──────────────────────▶ Preparing ─────────────────────────────────▶ Completing
//!     ▲                            ▲      │ nobody is left                          │ the leader's assignment is stored
//!     └────────────────────────────┼──────┘                                         ▼
//!                                  └──── member joins, leaves, fails, changes ── Stable
//! ```
//!
//! As Apache Kafka's coordinator does it (KIP-134, KIP-345 static membership, KIP-394 member id required, KIP-559, KIP-814).
//!
//! [`Group::step`] takes an event with the time and returns what is to be done. Each request carries a [`Waiter`], which is answered
//! exactly once. An assignment is given out only when its record is stored: after a crash the next coordinator knows
//! every generation that any member has seen.

mod event;
mod join;
mod leave;
mod member;
mod pending;
mod replaced;
mod sync;
#[cfg(test)]
mod tests;

pub use event::{
    Effect, Event, GroupRecord, JoinAnswer, JoinRequest, JoinedMember, Leaving, MemberClaim, MemberRecord, SyncAnswer,
    SyncRequest, Ticket, Waiter,
};
pub use member::{Member, Members, told_bytes};

use crate::base::limits::GROUP_BYTES;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use pending::Pending;
use replaced::Replaced;
use std::collections::{BTreeSet, HashMap};

/// What consumers call the protocol type of their groups.
pub const CONSUMER: &str = "consumer";

/// How long a member that has not heard its id yet may be waited for (its client may have gone, and would ask anew).
const NEW_MEMBER_MS: i64 = 5 * 60 * 1000;

/// Where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    /// It moved away or was deleted: whoever asks has to find the coordinator again.
    Dead,
}

impl State {
    /// As Kafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

/// The broker's settings for groups.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `group.max.size`
    pub members_max: usize,
    /// `group.min.session.timeout.ms`
    pub session_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_delay_ms: i64,
}

impl Limits {
    /// Whether a member may ask for such a session.
    pub fn allow_session(&self, timeout_ms: i32) -> bool {
        (self.session_min_ms..=self.session_max_ms).contains(&timeout_ms)
    }
}

/// One group.
#[derive(Clone, Debug)]
pub struct Group {
    limits: Limits,
    state: State,
    state_since_ms: i64,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: Members,
    /// Ids that were given out and have not come back (KIP-394), with when they are forgotten.
    pending: Pending,
    joining: Option<Joining>,
    syncing: Option<Syncing>,
    stores: HashMap<Ticket, Store>,
    /// Static members that came back while the record of others is on its way: the next one is theirs.
    replaced: Vec<Replaced>,
    next_ticket: u64,
    effects: Vec<Effect>,
}

/// A rebalance that waits for members.
#[derive(Clone, Copy, Debug)]
struct Joining {
    deadline_ms: i64,
    /// Of the first rebalance of an empty group: how much longer it may be put off for newcomers.
    initial_left_ms: Option<i64>,
    newcomers: bool,
}

/// A generation whose members have not all asked for their assignment.
#[derive(Clone, Debug)]
struct Syncing {
    deadline_ms: i64,
    missing: BTreeSet<String>,
}

/// What a record on its way to the log is for.
#[derive(Clone, Debug)]
enum Store {
    Assignment {
        generation: i32,
        assignments: HashMap<String, Bytes>,
    },
    Emptied,
    /// Static members came back under other ids, and nothing else changed.
    Replaced(Vec<Replaced>),
}

impl Group {
    pub fn new(limits: Limits, now_ms: i64) -> Group {
        Group {
            limits,
            state: State::Empty,
            state_since_ms: now_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Members::default(),
            pending: Pending::default(),
            joining: None,
            syncing: None,
            stores: HashMap::new(),
            replaced: Vec::new(),
            next_ticket: 0,
            effects: Vec::new(),
        }
    }

    /// The group as its newest record has it. Members get a whole session to be heard of again.
    pub fn restored(limits: Limits, record: &GroupRecord, now_ms: i64) -> Group {
        let mut group = Group::new(limits, now_ms);
        group.generation = record.generation;
        group.protocol_type = Some(record.protocol_type.clone()).filter(|name| !name.is_empty());
        group.state_since_ms = if record.state_since_ms >= 0 { record.state_since_ms } else { now_ms };
        if record.members.is_empty() {
            return group;
        }
        group.state = State::Stable;
        group.protocol = record.protocol.clone();
        group.leader = record.leader.clone();
        let protocol = record.protocol.clone().unwrap_or_default();
        for member in &record.members {
            let instance = member.instance_id.as_deref().and_then(|instance_id| group.members.of_instance(instance_id));
            if instance.is_some() || group.members.contains(&member.member_id) {
                // No coordinator writes such a record; whoever did, it is no reason to stop.
                continue;
            }
            let restored = Member::restored(member, &protocol);
            let session_ms = i64::from(restored.session_timeout_ms);
            let id = restored.id.clone();
            group.members.insert(restored);
            group.members.set_deadline(&id, now_ms + session_ms);
        }
        // Without a leader: it was one of the new protocol, and was to share anew. With too many, those who rejoin in time stay, and the rest
        // will not be let in; nothing is told yet, since nobody asked.
        if group.leader.is_none() || group.members.len() > limits.members_max {
            group.prepare_rebalance(now_ms);
        }
        group
    }

    /// A group that was restored is served from now on: nobody could be heard of before, and time begins to count.
    pub fn begin_time(&mut self, now_ms: i64) {
        let known: Vec<String> = self.members.iter().filter(|member| !member.is_new).map(|m| m.id.clone()).collect();
        known.iter().for_each(|id| self.heard_of(now_ms, id));
        let whole_ms = self.members.rebalance_timeout_ms();
        // One that begins just now, the group having been empty, has its time.
        if let Some(joining) = self.joining.as_mut().filter(|joining| joining.initial_left_ms.is_none()) {
            joining.deadline_ms = joining.deadline_ms.max(now_ms + whole_ms);
        }
    }

    /// What happens, and what is to be done about it, in this order.
    pub fn step(&mut self, now_ms: i64, event: Event) -> Vec<Effect> {
        match event {
            Event::Join(waiter, request) => self.join(now_ms, waiter, request),
            Event::Sync(waiter, request) => self.sync(now_ms, waiter, request),
            Event::Heartbeat(waiter, claim) => {
                let error = self.heartbeat(now_ms, &claim).err();
                self.effects.push(Effect::Beaten(waiter, error));
            }
            Event::Leave(waiter, leaving) => self.leave(now_ms, waiter, &leaving),
            Event::Stored(ticket, error) => self.stored(now_ms, ticket, error),
            Event::Tick => self.tick(now_ms),
            Event::Ended(error) => self.end(now_ms, error),
            Event::Rebalance => self.rebalance(now_ms),
        }
        #[cfg(any(test, debug_assertions))]
        self.check();
        std::mem::take(&mut self.effects)
    }

    /// When the next `Tick` is due.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let pending = self.pending.next_deadline_ms();
        let joining = self.joining.map(|joining| joining.deadline_ms);
        let syncing = self.syncing.as_ref().map(|syncing| syncing.deadline_ms);
        [self.members.next_deadline_ms(), pending, joining, syncing].into_iter().flatten().min()
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// When the group entered its state, by the time that `step` is told.
    pub fn state_since_ms(&self) -> i64 {
        self.state_since_ms
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    /// What it takes of memory, about.
    pub fn bytes(&self) -> usize {
        let protocol_type = self.protocol_type.as_ref().map_or(0, String::len);
        GROUP_BYTES + protocol_type + self.members.bytes() + self.pending.bytes()
    }

    /// Nobody can bring it back to life.
    pub fn is_forgettable(&self) -> bool {
        self.state == State::Empty && self.members.is_empty() && self.pending.is_empty() && self.stores.is_empty()
    }

    /// Whether this member may commit offsets. A generation below 0 comes from somebody who assigns partitions to himself.
    pub fn may_commit(&mut self, now_ms: i64, claim: &MemberClaim) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        if claim.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if claim.generation < 0 && claim.member_id.is_empty() && claim.instance_id.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.check_member(&claim.member_id, claim.instance_id.as_deref())?;
        if claim.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        match self.state {
            // Its partitions may be another's with the assignment that is being made.
            State::CompletingRebalance => {
                self.heard_of(now_ms, &claim.member_id);
                Err(ResponseError::RebalanceInProgress)
            }
            _ => {
                self.heard_of(now_ms, &claim.member_id);
                Ok(())
            }
        }
    }

    /// The member exists, and if it names an instance it is that instance's.
    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance_id) = instance_id {
            match self.members.of_instance(instance_id) {
                Some(current) if current != member_id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
                None => return Err(ResponseError::UnknownMemberId),
            }
        }
        match self.members.contains(member_id) {
            true => Ok(()),
            false => Err(ResponseError::UnknownMemberId),
        }
    }

    fn heartbeat(&mut self, now_ms: i64, claim: &MemberClaim) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        self.check_member(&claim.member_id, claim.instance_id.as_deref())?;
        if claim.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.heard_of(now_ms, &claim.member_id);
        match self.state {
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// The member is alive: it has another session.
    fn heard_of(&mut self, now_ms: i64, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            let session_ms = i64::from(member.session_timeout_ms);
            self.members.set_deadline(member_id, now_ms + session_ms);
        }
    }

    fn tick(&mut self, now_ms: i64) {
        if self.state == State::Dead {
            return;
        }
        self.pending.tick(now_ms);
        while let Some(id) = self.members.take_failed(now_ms) {
            self.remove_member(now_ms, &id);
        }
        if let Some(syncing) = self.syncing.take_if(|syncing| syncing.deadline_ms <= now_ms) {
            self.sync_timed_out(now_ms, syncing.missing);
        }
        if self.joining.is_some() {
            self.try_complete_join(now_ms);
        }
        if self.joining.is_some_and(|joining| joining.deadline_ms <= now_ms) {
            self.join_timed_out(now_ms);
        }
    }

    fn enter(&mut self, now_ms: i64, state: State) {
        self.state = state;
        self.state_since_ms = now_ms;
    }

    fn store(&mut self, purpose: Store, record: GroupRecord) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.stores.insert(ticket, purpose);
        self.effects.push(Effect::Store(ticket, record));
    }

    /// The record of this generation, in which `assignment` tells what each member gets.
    fn record(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupRecord {
        let protocol = self.protocol.clone().unwrap_or_default();
        let member = |member: &Member| MemberRecord {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(&protocol),
            assignment: assignment(member),
        };
        GroupRecord {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms,
            members: self.members.iter().map(member).collect(),
        }
    }

    fn end(&mut self, now_ms: i64, error: ResponseError) {
        let ids: Vec<String> = self.members.ids().map(str::to_owned).collect();
        for id in ids {
            self.answer_join(&id, |_| JoinAnswer::refused(&id, error));
            self.answer_sync(&id, SyncAnswer::refused(error));
        }
        self.members = Members::default();
        self.pending = Pending::default();
        (self.joining, self.syncing) = (None, None);
        let mut replaced = std::mem::take(&mut self.replaced);
        for store in std::mem::take(&mut self.stores).into_values() {
            if let Store::Replaced(all) = store {
                replaced.extend(all);
            }
        }
        for Replaced { member_id, waiter, .. } in replaced {
            self.effects.push(Effect::Joined(waiter, JoinAnswer::refused(&member_id, error)));
        }
        self.enter(now_ms, State::Dead);
    }

    /// Answers the JoinGroup that a member waits for, if it does.
    fn answer_join(&mut self, id: &str, answer: impl FnOnce(&Group) -> JoinAnswer) -> bool {
        let Some(waiter) = self.members.end_join(id) else { return false };
        let answer = answer(self);
        self.effects.push(Effect::Joined(waiter, answer));
        true
    }

    /// Answers the SyncGroup that a member waits for, if it does.
    fn answer_sync(&mut self, id: &str, answer: SyncAnswer) -> bool {
        let mut waiter = None;
        self.members.with(id, |member| waiter = member.syncing.take());
        let Some(waiter) = waiter else { return false };
        self.effects.push(Effect::Synced(waiter, answer));
        true
    }

    /// Whoever waits for an answer of this group.
    #[cfg(test)]
    fn waiters(&self) -> impl Iterator<Item = Waiter> {
        let replaced = self.stores.values().flat_map(|store| match store {
            Store::Replaced(all) => all.as_slice(),
            Store::Assignment { .. } | Store::Emptied => &[],
        });
        let replaced = replaced.chain(&self.replaced).map(|one| one.waiter);
        self.members.iter().flat_map(Member::waiters).chain(replaced)
    }

    #[cfg(any(test, debug_assertions))]
    fn check(&self) {
        self.members.check();
        assert_eq!(self.joining.is_some(), self.state == State::PreparingRebalance, "{self:?}");
        assert!(self.syncing.is_none() || matches!(self.state, State::CompletingRebalance | State::Stable));
        match self.state {
            State::Empty | State::Dead => assert!(self.members.is_empty()),
            State::CompletingRebalance | State::Stable => {
                let leader = self.leader.as_deref().expect("a generation has a leader");
                assert!(self.members.contains(leader), "the leader is a member");
                assert_eq!(self.members.joining(), 0, "nobody waits for a rebalance that is over");
            }
            State::PreparingRebalance => {
                assert!(self.members.iter().all(|member| member.syncing.is_none()), "who synced was told to rejoin");
            }
        }
        if self.state == State::Stable {
            let waits = |member: &Member| member.syncing.is_some();
            assert!(!self.members.iter().any(waits), "in a stable group every assignment is given out");
        }
        let is_storing = self.stores.values().any(|store| matches!(store, Store::Replaced(_)));
        assert!(self.replaced.is_empty() || is_storing && self.state == State::Stable, "they wait for a record");
        self.pending.check();
        assert!(self.members.ids().all(|id| !self.pending.contains(id)));
    }
}
