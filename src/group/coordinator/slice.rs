//! The groups of one partition of `__consumer_offsets`.

use super::forget::{Gone, offset_key};
use super::kind::Kind;
use super::load::LoadedGroup;
use super::room::{Charge, name_bytes};
use super::store::{self, Stored};
use super::turns::Turns;
use super::{OFFSETS_TOPIC, Shared};
use crate::base::ids::Offset;
use crate::group::classic::{Effect, Event, Group, GroupRecord, MemberClaim, Ticket, Waiter};
use crate::group::consumer;
use crate::group::offsets::{Offsets, TopicPartitionName};
use crate::group::records::{CommittedOffset, Key};
use crate::partition::leader::Partition;
use crate::partition::tasks::Tasks;
use kafka_protocol::ResponseError;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::warn;

/// How soon a commit counts that was written after all, when its disk had no space for a while.
const LOOKS_AGAIN: Duration = Duration::from_secs(1);

/// One partition of `__consumer_offsets` that this shard leads, with its groups.
pub struct Slice {
    pub(super) partition: Rc<Partition>,
    pub(super) shared: Rc<Shared>,
    pub(super) state: Cell<Loaded>,
    pub(super) groups: RefCell<BTreeMap<String, Entry>>,
    waiting: RefCell<HashMap<Waiter, oneshot::Sender<Effect>>>,
    /// Records of groups of the new protocol that are on their way to the log, and who waits for them.
    pub(super) under_way: RefCell<HashMap<String, UnderWay>>,
    /// Topics that were deleted while the slice was being loaded: what it reads is of before.
    pub(super) gone_meanwhile: RefCell<BTreeSet<Arc<str>>>,
    /// Topics that were deleted since then.
    pub(super) gone: RefCell<Gone>,
    /// Given out to waiters and lives.
    next_number: Cell<u64>,
    pub(super) tasks: Tasks,
}

/// Who waits for each append of a group, in the order of the appends.
pub(super) type UnderWay = BTreeMap<u64, Vec<oneshot::Sender<Result<(), ResponseError>>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    Loading,
    Ready,
    /// Its log cannot be read, or cannot be any more.
    Failed,
    /// The shard leads it no more.
    Gone,
}

/// A group with its offsets.
pub(super) struct Entry {
    pub kind: Kind,
    pub offsets: Offsets,
    /// As `Deadlines` knows it.
    pub deadline_ms: Option<i64>,
    pub charge: Charge,
    /// It was loaded, and its time has not begun to count: nobody could be heard of until the whole partition was there.
    pub is_timeless: bool,
    /// Up to which round of deleted topics it has forgotten them.
    pub caught_up: u64,
    /// Differs from that of a group of the same name that was forgotten: what is stored for the one is not told to the other.
    life: u64,
    /// Differs from that of the group in its protocol before. Offsets stay when a group changes that, and commits under way count.
    term: u64,
}

/// A group as requests see it.
pub struct GroupView<'g> {
    pub kind: &'g Kind,
    pub offsets: &'g Offsets,
}

impl Entry {
    /// The group goes on in the other protocol.
    pub fn change_to(&mut self, kind: Kind, term: u64) {
        (self.kind, self.term) = (kind, term);
    }
}

impl Slice {
    pub(super) fn new(partition: Rc<Partition>, shared: Rc<Shared>) -> Rc<Slice> {
        Rc::new(Slice {
            partition,
            shared,
            state: Cell::new(Loaded::Loading),
            groups: RefCell::default(),
            waiting: RefCell::default(),
            under_way: RefCell::default(),
            gone_meanwhile: RefCell::default(),
            gone: RefCell::default(),
            next_number: Cell::new(0),
            tasks: Tasks::default(),
        })
    }

    pub fn partition(&self) -> &Rc<Partition> {
        &self.partition
    }

    pub fn check_loaded(&self) -> Result<(), ResponseError> {
        match self.state.get() {
            Loaded::Loading => Err(ResponseError::CoordinatorLoadInProgress),
            Loaded::Ready => Ok(()),
            Loaded::Failed => Err(ResponseError::CoordinatorNotAvailable),
            Loaded::Gone => Err(ResponseError::NotCoordinator),
        }
    }

    /// Looks at a group, if it is there.
    pub fn view<T>(self: &Rc<Self>, group: &str, look: impl FnOnce(GroupView<'_>) -> T) -> Option<T> {
        drop(self.catch_up(group));
        let groups = self.groups.borrow();
        groups.get(group).map(|entry| look(GroupView { kind: &entry.kind, offsets: &entry.offsets }))
    }

    pub fn ids(&self) -> Vec<String> {
        self.groups.borrow().keys().cloned().collect()
    }

    /// The group behind this one, or the first.
    pub(super) fn group_after(&self, id: Option<&str>) -> Option<String> {
        let groups = self.groups.borrow();
        match id {
            None => groups.keys().next().cloned(),
            Some(id) => groups.range::<str, _>((Excluded(id), Unbounded)).next().map(|(id, _)| id.clone()),
        }
    }

    /// Has something happen to a group, and gives the answer when there is one; None: no such group. With `create` there is one then.
    pub fn ask(
        self: &Rc<Self>,
        group: &str,
        create: bool,
        event: impl FnOnce(Waiter) -> Event,
    ) -> Option<oneshot::Receiver<Effect>> {
        if create {
            if let Err(error) = self.make_classic_if_empty(group) {
                warn!("group {group} cannot be made one of the classic protocol: {error:?}");
            }
            self.ensure(group);
        } else if !self.groups.borrow().contains_key(group) {
            return None;
        }
        let waiter = Waiter(self.number());
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().insert(waiter, answer);
        self.feed(group, event(waiter));
        Some(answered)
    }

    fn ensure(&self, group: &str) {
        let limits = self.shared.settings().limits;
        let new = || self.entry(Kind::Classic(Box::new(Group::new(limits, self.now_ms()))));
        self.groups.borrow_mut().entry(group.to_owned()).or_insert_with(new);
    }

    /// A group that begins: it has nothing to do with what went before.
    pub(super) fn entry(&self, kind: Kind) -> Entry {
        let (life, caught_up) = (self.number(), self.gone.borrow().round());
        let (offsets, deadline_ms, is_timeless) = (Offsets::default(), None, false);
        let mut charge = Charge::new(&self.shared.room);
        charge.set(kind.bytes());
        Entry { kind, offsets, deadline_ms, charge, is_timeless, caught_up, life, term: life }
    }

    pub(super) fn number(&self) -> u64 {
        self.next_number.replace(self.next_number.get() + 1)
    }

    pub(super) fn tick(self: &Rc<Self>, group: &str) {
        self.feed(group, Event::Tick);
    }

    pub(super) fn feed(self: &Rc<Self>, id: &str, event: Event) {
        let effects = match self.groups.borrow_mut().get_mut(id).map(|entry| &mut entry.kind) {
            Some(Kind::Classic(group)) => Ok(group.step(self.now_ms(), event)),
            Some(Kind::Consumer(_)) => Err(event),
            None => return,
        };
        match effects {
            Ok(effects) => {
                self.rearm(id);
                self.perform(id, effects);
            }
            Err(event) => self.feed_consumer(id, event),
        }
    }

    /// Has the clock know when the group wants to be told the time, and the shard how much it takes of memory. Follows every change.
    pub(super) fn rearm(&self, id: &str) {
        let mut groups = self.groups.borrow_mut();
        let Some(entry) = groups.get_mut(id) else { return };
        if std::mem::take(&mut entry.is_timeless) {
            let settings = self.shared.settings();
            match &mut entry.kind {
                Kind::Classic(group) => group.begin_time(self.now_ms()),
                Kind::Consumer(group) => group.begin_time(&settings.consumer, self.now_ms()),
            }
        }
        entry.charge.set(entry.kind.bytes() + name_bytes(id));
        let next = entry.kind.next_deadline_ms();
        self.shared.deadlines.change((self.partition.index(), id), entry.deadline_ms, next);
        entry.deadline_ms = next;
    }

    fn perform(self: &Rc<Self>, id: &str, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Store(ticket, record) => self.store_group(id, ticket, record),
                Effect::Joined(waiter, _)
                | Effect::Synced(waiter, _)
                | Effect::Beaten(waiter, _)
                | Effect::Left(waiter, _) => self.answer(waiter, effect),
            }
        }
    }

    pub(super) fn answer(&self, waiter: Waiter, effect: Effect) {
        if let Some(answer) = self.waiting.borrow_mut().remove(&waiter) {
            // Its connection may be gone.
            let _ = answer.send(effect);
        }
    }

    fn store_group(self: &Rc<Self>, id: &str, ticket: Ticket, record: GroupRecord) {
        let key = Key::Group { group: id.to_owned() };
        let stored = store::append(&self.partition, &[(key, Some(self.stamped(record).encode()))]);
        let term = self.term_of(id);
        let (slice, id) = (Rc::clone(self), id.to_owned());
        self.tasks.spawn(async move {
            let error = stored.done().await.err();
            if let Some(error) = error {
                warn!("group {id}: its record cannot be stored: {error:?}");
            }
            if slice.term_of(&id) == term {
                slice.feed(&id, Event::Stored(ticket, error));
            }
        });
    }

    /// The record as it is stored: its time by the wall clock.
    pub(super) fn stamped(&self, record: GroupRecord) -> GroupRecord {
        GroupRecord { state_since_ms: self.shared.clock.to_wall_ms(record.state_since_ms), ..record }
    }

    /// A stored record as the group takes it.
    fn unstamped(&self, record: GroupRecord) -> GroupRecord {
        let noted = Some(record.state_since_ms).filter(|since_ms| *since_ms >= 0);
        GroupRecord { state_since_ms: noted.map_or(-1, |since_ms| self.shared.clock.to_steady_ms(since_ms)), ..record }
    }

    /// Steady time, in ms.
    pub(super) fn now_ms(&self) -> i64 {
        self.shared.clock.now_ms()
    }

    fn term_of(&self, id: &str) -> Option<u64> {
        self.groups.borrow().get(id).map(|entry| entry.term)
    }

    fn life_of(&self, id: &str) -> Option<u64> {
        self.groups.borrow().get(id).map(|entry| entry.life)
    }

    /// Commits offsets for a group: the answer comes when they are stored. A group that nobody manages is made by its first commit.
    /// Whether the client knows of member epochs decides what a member of the new protocol may do.
    pub fn commit(
        self: &Rc<Self>,
        id: &str,
        (claim, knows_epochs): (&MemberClaim, bool),
        offsets: Vec<(TopicPartitionName, CommittedOffset)>,
    ) -> Result<impl Future<Output = Result<(), ResponseError>> + use<>, ResponseError> {
        // What it knows of a topic of this name may be of an earlier one.
        drop(self.catch_up(id));
        if !self.groups.borrow().contains_key(id) {
            if claim.generation >= 0 {
                return Err(ResponseError::IllegalGeneration);
            }
            self.check_room(id, ("", None), (0, 0))?;
            self.ensure(id);
        }
        {
            let mut groups = self.groups.borrow_mut();
            let entry = groups.get_mut(id).expect("invariant: it was just made sure of");
            let allowed = match &mut entry.kind {
                Kind::Classic(group) => group.may_commit(self.now_ms(), claim),
                Kind::Consumer(group) => group.may_commit(&claim.member_id, claim.generation, knows_epochs),
            };
            drop(groups);
            self.rearm(id);
            allowed?;
            let mut groups = self.groups.borrow_mut();
            let entry = groups.get_mut(id).expect("invariant: nothing took it away");
            offsets.iter().for_each(|(of, _)| entry.offsets.begin(of));
        }
        let record = |(of, value): &(TopicPartitionName, CommittedOffset)| (offset_key(id, of), Some(value.encode()));
        let stored = store::append_commit(&self.partition, &offsets.iter().map(record).collect::<Vec<_>>());
        let (answer, answered) = oneshot::channel();
        let life = self.life_of(id);
        let (slice, id) = (Rc::clone(self), id.to_owned());
        self.tasks.spawn(async move {
            let appended = stored.base();
            let stored = stored.done().await;
            let mut answer = Some(answer);
            let mut tell = || answer.take().map(|answer| answer.send(stored.map(drop)));
            let base = match (stored, appended) {
                (Err(_), Some(base)) => {
                    // Who asked need not wait for what may take as long as the disk is full.
                    tell();
                    slice.is_stored_at_last(Offset(base + offsets.len() as i64)).await.then_some(base)
                }
                (stored, _) => stored.ok(),
            };
            if slice.life_of(&id) == life {
                slice.committed(&id, offsets, base);
            }
            // Its connection may be gone.
            tell();
        });
        Ok(async move { answered.await.unwrap_or(Err(ResponseError::NotCoordinator)) })
    }

    /// What the log took and could not write is written as soon as the disk has space again. Ends when the log is safe up to `end`; false: it
    /// will not be while this slice lives.
    async fn is_stored_at_last(&self, end: Offset) -> bool {
        loop {
            if self.partition.ends().high_watermark >= end {
                return true;
            }
            if self.is_over() || !self.partition.leads() || self.partition.core().failure().is_some() {
                return false;
            }
            tokio::time::sleep(LOOKS_AGAIN).await;
        }
    }

    fn committed(&self, id: &str, offsets: Vec<(TopicPartitionName, CommittedOffset)>, base: Option<i64>) {
        let mut groups = self.groups.borrow_mut();
        let Some(entry) = groups.get_mut(id) else { return };
        for (number, (of, value)) in (0..).zip(offsets) {
            entry.offsets.end(&of, base.map(|base| (base + number, value)));
        }
    }

    /// What the log has is in memory: groups are there, and begin to count time. Requests to others have their turn meanwhile.
    pub(super) async fn loaded(self: &Rc<Self>, groups: BTreeMap<String, LoadedGroup>) {
        let settings = self.shared.settings();
        let mut turns = Turns::default();
        for (id, LoadedGroup { classic, consumer, offsets }) in groups {
            if self.is_over() {
                // The partition has moved meanwhile, and these groups are another's; or its disk has failed.
                return;
            }
            let now_ms = self.now_ms();
            let kind = match classic {
                _ if consumer.exists() => {
                    Kind::Consumer(Box::new(consumer::Group::restored(consumer, &settings.consumer, now_ms)))
                }
                Some(record) => {
                    Kind::Classic(Box::new(Group::restored(settings.limits, &self.unstamped(record), now_ms)))
                }
                None => Kind::Classic(Box::new(Group::new(settings.limits, now_ms))),
            };
            let looked_at = offsets.len();
            self.groups.borrow_mut().insert(id, Entry { offsets, is_timeless: true, ..self.entry(kind) });
            turns.took(looked_at, Stored::nothing()).await;
        }
        self.forget_what_went_meanwhile(&mut turns).await;
        if self.is_over() {
            return;
        }
        self.state.set(Loaded::Ready);
        let mut next = self.group_after(None);
        while let Some(id) = next.filter(|_| !self.is_over()) {
            self.rearm(&id);
            turns.took(0, Stored::nothing()).await;
            next = self.group_after(Some(&id));
        }
        turns.end().await;
    }

    pub(super) fn cannot_be_loaded(&self) {
        if !self.is_over() {
            self.state.set(Loaded::Failed);
        }
    }

    /// These groups are served no more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state.get(), Loaded::Failed | Loaded::Gone)
    }

    pub(super) fn unload(self: &Rc<Self>) {
        self.catch_up_all();
        self.end(Loaded::Gone, ResponseError::NotCoordinator);
    }

    /// If the log has failed, its groups are given up, as when its leader is gone in Kafka: what they would be told could not be stored, and
    /// clients would be sent to this very shard for ever.
    pub(super) fn heed_disk(self: &Rc<Self>) {
        let Some(reason) = self.partition.core().failure().cloned().filter(|_| !self.is_over()) else { return };
        let groups = self.groups.borrow().len();
        warn!("{groups} groups of {OFFSETS_TOPIC}-{} are not served any more: {reason}", self.partition.index());
        self.end(Loaded::Failed, ResponseError::CoordinatorNotAvailable);
    }

    fn end(self: &Rc<Self>, state: Loaded, error: ResponseError) {
        self.state.set(state);
        for id in self.ids() {
            self.feed(&id, Event::Ended(error));
        }
        for (id, entry) in self.groups.take() {
            self.shared.deadlines.change((self.partition.index(), &id), entry.deadline_ms, None);
        }
        // Who waits for a record is told to look for another coordinator.
        self.under_way.borrow_mut().clear();
    }
}
