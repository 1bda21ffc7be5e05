//! The new group protocol (KIP-848): members say what they want and what they have, the broker says what they get. Pure.
//!
//! Three numbers tell how far a group is. The *group epoch* rises with every change that may ask for another assignment: a member
//! comes, goes or wants other topics; a topic gets partitions or goes. The *assignment epoch* is the group epoch for which the
//! target of each member was computed. A *member epoch* is the assignment that a member has come to ([`reconcile`]): members
//! come to a new assignment one by one, and nobody waits for anybody who has nothing that he is to have.
//!
//! Nothing is written here: [`Group::heartbeat`] and its like look at the group and give a [`Decision`], in which every change is a
//! [`Record`]. Once its records are on their way to the log, [`Group::accept`] takes it over. The same records build the group when
//! it is loaded, so that it is afterwards what it was before.
//!
//! As Apache Kafka's coordinator does it in 4.x. Where it differs: a heartbeat that brings a pattern is answered when that has been held
//! against the topics ([`pattern`]); in Kafka a member has nothing until then.

pub mod assign;
mod classic_members;
mod heartbeat;
mod leave;
pub mod member;
mod migrate;
pub mod pattern;
mod reconcile;
pub mod record;
mod subscription;
#[cfg(test)]
mod tests;

pub use heartbeat::{Beaten, Heartbeat};
pub use migrate::{Downgraded, Policy};

use crate::base::ids::TopicId;
use crate::base::limits::GROUP_BYTES;
use crate::cluster::image::ClusterImage;
use assign::{Assignor, Partitions};
use kafka_protocol::ResponseError;
use member::{Current, Member, MemberId, Profile, partitions_bytes};
use pattern::{Matches, NO_MATCHES};
use record::{Record, Resolved, Subject, TopicsMetadata};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// The broker's settings for groups of the new protocol.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `group.consumer.session.timeout.ms`
    pub session_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`
    pub heartbeat_ms: i32,
    /// `group.consumer.max.size`
    pub members_max: usize,
    /// `group.consumer.assignors`; the first is taken where members have no wish.
    pub assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`
    pub policy: Policy,
}

/// What a group is judged by besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Env<'e> {
    pub image: &'e ClusterImage,
    pub limits: &'e Limits,
    /// What patterns match: those that were asked for.
    pub matches: &'e Matches,
}

impl<'e> Env<'e> {
    /// Without anything about patterns.
    pub fn new(image: &'e ClusterImage, limits: &'e Limits) -> Env<'e> {
        Env { image, limits, matches: &NO_MATCHES }
    }
}

/// Where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Empty,
    /// Its newest epoch has no assignment yet: the next heartbeat computes it.
    Assigning,
    /// Some member has not come to the newest assignment.
    Reconciling,
    Stable,
}

/// Why a request is refused, in words for whoever reads the client's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: ResponseError,
    pub message: String,
}

/// What a group is to become, and what is answered once that is stored.
#[derive(Clone, Debug)]
pub struct Decision<A> {
    pub records: Vec<Record>,
    timers: Vec<(MemberId, Timer, Option<i64>)>,
    looked: Option<Looked>,
    pub answer: A,
}

/// Something that a member has to do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// To be heard of.
    Session,
    /// To give up partitions.
    Rebalance,
    /// Of the classic protocol: to join again.
    Join,
    /// Of the classic protocol: to fetch what it got.
    Sync,
}

/// When the image was last looked at. Not stored: whoever loads the group looks anew.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    /// The version whose topics are in `topics`.
    topics_of: Option<u64>,
    /// The version that patterns were held against, and when.
    patterns_of: Option<(u64, i64)>,
}

/// What the log says about a group, record by record.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    epoch: Option<i32>,
    topics: TopicsMetadata,
    assignment_epoch: Option<i32>,
    profiles: BTreeMap<String, Rc<Profile>>,
    targets: BTreeMap<String, Partitions>,
    currents: BTreeMap<String, Rc<Current>>,
    regexes: BTreeMap<String, Resolved>,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    epoch: i32,
    assignment_epoch: i32,
    topics: TopicsMetadata,
    members: BTreeMap<MemberId, Member>,
    targets: HashMap<MemberId, Partitions>,
    /// Patterns that members have subscribed to.
    regexes: BTreeMap<String, Resolved>,
    /// Who holds each partition: has it, or has not said that it gave it up.
    owners: HashMap<(TopicId, i32), MemberId>,
    /// Members by instance id.
    instances: HashMap<String, MemberId>,
    timers: HashMap<(MemberId, Timer), i64>,
    deadlines: BTreeSet<(i64, MemberId, Timer)>,
    looked: Looked,
    /// What members, targets and patterns take of memory, about.
    bytes: usize,
}

impl Stored {
    /// Takes the next record of the log.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Epoch(epoch) => self.epoch = epoch,
            Record::Topics(topics) => self.topics = topics.unwrap_or_default(),
            Record::AssignmentEpoch(epoch) => self.assignment_epoch = epoch,
            Record::Member(id, profile) => put(&mut self.profiles, id, profile),
            Record::Target(id, target) => put(&mut self.targets, id, target),
            Record::Current(id, current) => put(&mut self.currents, id, current),
            Record::Regex(regex, resolved) => put(&mut self.regexes, regex, resolved),
        }
    }

    /// There is such a group.
    pub fn exists(&self) -> bool {
        self.epoch.is_some()
    }
}

fn put<V>(map: &mut BTreeMap<String, V>, key: String, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

impl Group {
    /// The group as its records have it. Members get a whole session to be heard of again, and their time to give up partitions.
    pub fn restored(stored: Stored, limits: &Limits, now_ms: i64) -> Group {
        let mut group = Group::default();
        group.apply(Record::Epoch(stored.epoch));
        group.apply(Record::AssignmentEpoch(stored.assignment_epoch));
        group.apply(Record::Topics(Some(stored.topics)));
        let (mut targets, mut currents) = (stored.targets, stored.currents);
        for (id, profile) in stored.profiles {
            let (target, current) = (targets.remove(&id), currents.remove(&id));
            group.apply(Record::Member(id.clone(), Some(profile)));
            group.apply(Record::Target(id.clone(), target));
            if current.is_some() {
                group.apply(Record::Current(id, current));
            }
        }
        let used: BTreeSet<String> = group.members.values().filter_map(Member::regex).map(str::to_owned).collect();
        for (regex, resolved) in stored.regexes.into_iter().filter(|(regex, _)| used.contains(regex)) {
            group.apply(Record::Regex(regex, Some(resolved)));
        }
        group.begin_time(limits, now_ms);
        group
    }

    /// A group that was restored is served from now on: nobody could be heard of before, and time begins to count.
    pub fn begin_time(&mut self, limits: &Limits, now_ms: i64) {
        let members: Vec<Member> = self.members.values().cloned().collect();
        for member in members {
            self.set_timer(&member.id, Timer::Session, Some(now_ms + session_ms(&member, limits)));
            if member.current.state == member::MemberState::Unrevoked && !member.is_classic() {
                self.set_timer(&member.id, Timer::Rebalance, Some(now_ms + rebalance_ms(&member)));
            }
        }
    }

    /// Takes over what was decided about this very group: its records are on their way to the log.
    pub fn accept<A>(&mut self, decision: Decision<A>) -> A {
        let Decision { records, timers, looked, answer } = decision;
        records.into_iter().for_each(|record| self.apply(record));
        for (id, timer, at_ms) in timers {
            if self.members.contains_key(&id) {
                self.set_timer(&id, timer, at_ms);
            }
        }
        self.looked = looked.unwrap_or(self.looked);
        #[cfg(any(test, debug_assertions))]
        self.check();
        answer
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Epoch(epoch) => self.epoch = epoch.unwrap_or(0),
            Record::Topics(topics) => self.topics = topics.unwrap_or_default(),
            Record::AssignmentEpoch(epoch) => self.assignment_epoch = epoch.unwrap_or(0),
            Record::Member(id, Some(profile)) => self.set_profile(&id, profile),
            Record::Member(id, None) => self.remove_member(&id),
            Record::Target(id, target) => self.set_target(&id, target),
            Record::Current(id, current) => self.set_current(&id, current.unwrap_or_default()),
            Record::Regex(regex, resolved) => {
                self.bytes += resolved.as_ref().map_or(0, Resolved::bytes);
                self.bytes -= self.regexes.get(&regex).map_or(0, Resolved::bytes);
                put(&mut self.regexes, regex, resolved);
            }
        }
    }

    fn set_target(&mut self, id: &str, target: Option<Partitions>) {
        self.bytes += target.as_ref().map_or(0, partitions_bytes);
        let before = match target {
            Some(target) => self.targets.insert(self.shared_id(id), target),
            None => self.targets.remove(id),
        };
        self.bytes -= before.as_ref().map_or(0, partitions_bytes);
    }

    /// One text for each id, however many tables know it.
    fn shared_id(&self, id: &str) -> MemberId {
        self.members.get_key_value(id).map_or_else(|| id.into(), |(id, _)| Rc::clone(id))
    }

    fn set_profile(&mut self, id: &str, profile: Rc<Profile>) {
        let id = self.shared_id(id);
        let is_new = !self.members.contains_key(&id);
        let member = self.members.entry(Rc::clone(&id)).or_insert_with(|| Member::new(&id));
        member.id = Rc::clone(&id);
        self.bytes -= if is_new { 0 } else { member.bytes() };
        let before = std::mem::replace(&mut member.profile, profile);
        self.bytes += member.bytes();
        let instance_id = member.profile.instance_id.clone();
        if before.instance_id != instance_id {
            self.release_instance(before.instance_id.as_deref(), &id);
        }
        if let Some(instance_id) = instance_id {
            self.instances.insert(instance_id, id);
        }
    }

    /// What this member tells about itself already, or the one whose place it takes.
    pub fn told_bytes(&self, member_id: &str, instance_id: Option<&str>) -> Option<usize> {
        let holder = instance_id.and_then(|instance_id| self.instances.get(instance_id));
        let member = self.members.get(holder.map_or(member_id, |holder| holder))?;
        Some(member.profile.bytes())
    }

    /// The instance is nobody's any more, unless another member has taken it over.
    fn release_instance(&mut self, instance_id: Option<&str>, id: &str) {
        if let Some(instance_id) = instance_id
            && self.instances.get(instance_id).is_some_and(|holder| **holder == *id)
        {
            self.instances.remove(instance_id);
        }
    }

    fn remove_member(&mut self, id: &str) {
        self.set_current(id, Rc::default());
        let Some(member) = self.members.remove(id) else { return };
        self.bytes -= member.bytes();
        self.release_instance(member.instance_id(), id);
        for timer in [Timer::Session, Timer::Rebalance, Timer::Join, Timer::Sync] {
            self.set_timer(&member.id, timer, None);
        }
    }

    fn set_current(&mut self, id: &str, current: Rc<Current>) {
        let Some(member) = self.members.get_mut(id) else { return };
        for held in member.holds() {
            if self.owners.get(&held).is_some_and(|owner| *owner == member.id) {
                self.owners.remove(&held);
            }
        }
        self.bytes -= member.bytes();
        member.current = current;
        self.bytes += member.bytes();
        self.owners.extend(member.holds().map(|held| (held, Rc::clone(&member.id))));
    }

    fn set_timer(&mut self, id: &MemberId, timer: Timer, at_ms: Option<i64>) {
        let key = (Rc::clone(id), timer);
        let before = match at_ms {
            Some(at_ms) => self.timers.insert(key, at_ms),
            None => self.timers.remove(&key),
        };
        if let Some(before) = before {
            self.deadlines.remove(&(before, Rc::clone(id), timer));
        }
        if let Some(at_ms) = at_ms {
            self.deadlines.insert((at_ms, Rc::clone(id), timer));
        }
    }

    /// What it takes of memory, about.
    pub fn bytes(&self) -> usize {
        GROUP_BYTES + self.bytes
    }

    /// When somebody's time is up next.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(at_ms, ..)| *at_ms)
    }

    /// Members whose time is up, each once, at most so many: they are to be fenced.
    pub fn due(&self, now_ms: i64, at_most: usize) -> Vec<(MemberId, Timer)> {
        let mut seen = HashSet::new();
        let due = self.deadlines.iter().take_while(|(at_ms, ..)| *at_ms <= now_ms);
        let due = due.filter(|(_, id, _)| seen.insert(Rc::clone(id)));
        due.take(at_most).map(|(_, id, timer)| (Rc::clone(id), *timer)).collect()
    }

    /// A member that could not be fenced is looked at again then.
    pub fn put_off(&mut self, id: &MemberId, timer: Timer, until_ms: i64) {
        self.set_timer(id, timer, Some(until_ms));
    }

    pub fn state(&self) -> State {
        if self.members.is_empty() {
            return State::Empty;
        }
        if self.epoch > self.assignment_epoch {
            return State::Assigning;
        }
        match self.members.values().all(|member| member.is_reconciled_to(self.assignment_epoch)) {
            true => State::Stable,
            false => State::Reconciling,
        }
    }

    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    pub fn assignment_epoch(&self) -> i32 {
        self.assignment_epoch
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The topics that members have subscribed to, by name or pattern.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let by_name = self.members.values().flat_map(|member| &member.profile.topics);
        by_name.chain(self.regexes.values().flat_map(|resolved| &resolved.topics)).map(String::as_str)
    }

    /// The assignor that the next assignment will be made by.
    pub fn assignor(&self, env: &Env<'_>) -> Assignor {
        subscription::preferred_assignor(self.members.values(), env)
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    /// What a member is to have.
    pub fn target(&self, id: &str) -> Option<&Partitions> {
        self.targets.get(id)
    }

    /// Whether this member may commit offsets. An epoch below 0 comes from somebody who assigns partitions to himself.
    pub fn may_commit(&self, member_id: &str, epoch: i32, knows_epochs: bool) -> Result<(), ResponseError> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member_id).ok_or(ResponseError::UnknownMemberId)?;
        if !knows_epochs && !member.is_classic() {
            return Err(ResponseError::UnsupportedVersion);
        }
        check_epoch(member, epoch)
    }

    /// Whether offsets may be told to whoever says that he is this member; nobody needs to say so.
    pub fn may_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ResponseError> {
        match member_id {
            None if epoch < 0 => Ok(()),
            None => Err(ResponseError::UnknownMemberId),
            Some(id) => check_epoch(self.members.get(id).ok_or(ResponseError::UnknownMemberId)?, epoch),
        }
    }

    /// The records that forget the group.
    pub fn gone(&self) -> Vec<Record> {
        let ids: BTreeSet<&MemberId> = self.members.keys().chain(self.targets.keys()).collect();
        let of_members = |subject: fn(String) -> Subject| ids.iter().map(move |id| subject(id.to_string()).gone());
        let mut records: Vec<Record> = of_members(Subject::Current).chain(of_members(Subject::Target)).collect();
        records.push(Subject::AssignmentEpoch.gone());
        records.extend(of_members(Subject::Member));
        records.push(Subject::Topics.gone());
        records.extend(self.regexes.keys().map(|regex| Subject::Regex(regex.clone()).gone()));
        records.push(Subject::Epoch.gone());
        records
    }

    #[cfg(any(test, debug_assertions))]
    fn check(&self) {
        let mut holds = 0;
        for (id, member) in &self.members {
            assert_eq!(*id, member.id);
            for held in member.holds() {
                assert_eq!(self.owners.get(&held), Some(id), "{held:?} is held by {id} alone");
                holds += 1;
            }
            assert!(member.current.epoch <= self.assignment_epoch.max(self.epoch), "{member:?}");
            assert!(member.current.revoking.is_empty() || member.current.state == member::MemberState::Unrevoked);
            if let Some(instance_id) = member.instance_id() {
                assert_eq!(self.instances.get(instance_id), Some(id), "one member an instance");
            }
        }
        assert_eq!(holds, self.owners.len());
        let of_targets = self.targets.values().map(partitions_bytes).sum::<usize>();
        let of_members = self.members.values().map(Member::bytes).sum::<usize>();
        assert_eq!(self.bytes, of_members + of_targets + self.regexes.values().map(Resolved::bytes).sum::<usize>());
        assert!(self.assignment_epoch <= self.epoch);
        let mut targeted = BTreeSet::new();
        for (id, target) in &self.targets {
            assert!(self.members.contains_key(id), "{id} has a target and is none");
            for (topic, partitions) in target {
                assert!(partitions.iter().all(|partition| targeted.insert((*topic, *partition))), "one target");
            }
        }
        assert_eq!(self.instances.len(), self.members.values().filter(|m| m.instance_id().is_some()).count());
        assert_eq!(self.deadlines.len(), self.timers.len());
        let used: BTreeSet<&str> = self.members.values().filter_map(Member::regex).collect();
        assert!(self.regexes.keys().all(|regex| used.contains(regex.as_str())), "patterns are those of members");
    }
}

/// How long a member may be silent.
fn session_ms(member: &Member, limits: &Limits) -> i64 {
    let of_classic = member.profile.classic.as_ref().map(|classic| classic.session_timeout_ms);
    i64::from(of_classic.unwrap_or(limits.session_ms))
}

/// How long a member may take to give up partitions.
fn rebalance_ms(member: &Member) -> i64 {
    i64::from(member.profile.rebalance_timeout_ms.max(0))
}

fn check_epoch(member: &Member, epoch: i32) -> Result<(), ResponseError> {
    match member.epoch() == epoch {
        true => Ok(()),
        false if member.is_classic() => Err(ResponseError::IllegalGeneration),
        false => Err(ResponseError::StaleMemberEpoch),
    }
}

impl State {
    /// As Kafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Assigning => "Assigning",
            State::Reconciling => "Reconciling",
            State::Stable => "Stable",
        }
    }
}

impl Refusal {
    pub fn new(error: ResponseError, message: impl Into<String>) -> Refusal {
        Refusal { error, message: message.into() }
    }
}

impl<A> Decision<A> {
    fn new(answer: A) -> Decision<A> {
        Decision { records: Vec::new(), timers: Vec::new(), looked: None, answer }
    }
}
