//! What is forgotten: offsets and groups that somebody deletes, those that nobody has wanted for long (KIP-211), and offsets of topics
//! that are gone.
//!
//! Memory follows the log: an offset goes when the log has taken its tombstone, and a group when the log has taken those of all its offsets
//! and its own. What does not fit into one batch is appended in several, the group's own record last, as whatever is missing then is
//! found by the next attempt.
//!
//! Nobody who deletes a topic, and no request, waits until all groups have been looked through: that is done group by group in the background.

use super::Slice;
use super::kind::subscribed;
use super::slice::{GroupView, Loaded};
use super::store::{self, Stored};
use super::turns::Turns;
use crate::group::classic::Event;
use crate::group::offsets::TopicPartitionName;
use crate::group::records::Key;
use kafka_protocol::ResponseError;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use tracing::{info, warn};

impl Slice {
    /// Forgets offsets of a group, and the group with its last one if it has no members; the answer comes when that is stored.
    /// Commits that are under way are forgotten too: they were asked for before.
    pub fn delete_offsets(self: &Rc<Self>, id: &str, of: &[TopicPartitionName]) -> Stored {
        let known = self.view(id, |view| {
            // In the order of the request, each once.
            let mut seen = BTreeSet::new();
            of.iter().filter(|of| view.offsets.is_known(of) && seen.insert(*of)).cloned().collect::<Vec<_>>()
        });
        let Some(known) = known.filter(|known| !known.is_empty()) else { return Stored::nothing() };
        let stored = self.forget_offsets(id, &known);
        let is_over = |view: GroupView<'_>| view.kind.is_forgettable() && view.offsets.is_empty();
        if stored.refused().is_none() && self.view(id, is_over) == Some(true) {
            return stored.and(self.forget_group(id));
        }
        stored
    }

    /// Forgets a group that has no members, with its offsets.
    pub fn delete_group(self: &Rc<Self>, id: &str) -> Result<Stored, ResponseError> {
        match self.view(id, |view| view.kind.state_name()) {
            None | Some("Dead") => Err(ResponseError::GroupIdNotFound),
            Some("Empty") => Ok(self.forget(id)),
            Some(_) => Err(ResponseError::NonEmptyGroup),
        }
    }

    fn forget(self: &Rc<Self>, id: &str) -> Stored {
        let known = self.view(id, |view| view.offsets.known().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let stored = self.forget_offsets(id, &known);
        match stored.refused() {
            Some(_) => stored,
            None => stored.and(self.forget_group(id)),
        }
    }

    /// In as many batches as that takes, up to the first that the log refuses.
    fn forget_offsets(&self, id: &str, mut of: &[TopicPartitionName]) -> Stored {
        let keys: Vec<Key> = of.iter().map(|of| offset_key(id, of)).collect();
        let mut keys = keys.as_slice();
        let mut all = Stored::nothing();
        while !keys.is_empty() && all.refused().is_none() {
            let fit = store::tombstones_fit(&self.partition, keys);
            let tombstones: Vec<_> = keys[..fit].iter().map(|key| (key.clone(), None)).collect();
            let stored = store::append(&self.partition, &tombstones);
            if let (Some(base), Some(entry)) = (stored.base(), self.groups.borrow_mut().get_mut(id)) {
                (base..).zip(&of[..fit]).for_each(|(at, of)| entry.offsets.forget(of, at));
            }
            all = all.and(stored);
            (keys, of) = (&keys[fit..], &of[fit..]);
        }
        all
    }

    /// A group whose offsets are forgotten.
    fn forget_group(self: &Rc<Self>, id: &str) -> Stored {
        let Some(gone) = self.view(id, |view| view.kind.gone(id)) else { return Stored::nothing() };
        let stored = store::append(&self.partition, &gone);
        if stored.refused().is_none() {
            self.feed(id, Event::Ended(ResponseError::NotCoordinator));
            if let Some(entry) = self.groups.borrow_mut().remove(id) {
                self.shared.deadlines.change((self.partition.index(), id), entry.deadline_ms, None);
            }
        }
        stored
    }

    /// Looks for what has expired by the wall clock, group by group. Requests have their turn in between.
    pub(super) async fn expire(self: &Rc<Self>, now_ms: i64) {
        let retention_ms = self.shared.settings().retention_ms;
        let (mut turns, mut next) = (Turns::default(), self.group_after(None));
        while let Some(id) = next.filter(|_| self.state.get() == Loaded::Ready) {
            let looked_at = self.view(&id, |view| view.offsets.len()).unwrap_or(0);
            let stored = self.expire_of(&id, now_ms, retention_ms);
            turns.took(looked_at, stored).await;
            next = self.group_after(Some(&id));
        }
        turns.end().await;
    }

    fn expire_of(self: &Rc<Self>, id: &str, now_ms: i64, retention_ms: i64) -> Stored {
        let found = self.view(id, |view| {
            let topics = subscribed(view.kind);
            let readers = view.kind.readers(&self.shared.clock, topics.as_ref());
            let expired = view.offsets.expired(readers, now_ms, retention_ms);
            let is_over = view.kind.is_forgettable() && view.offsets.known().count() == expired.len();
            (expired, is_over && !view.offsets.is_under_way())
        });
        match found {
            Some((_, true)) => {
                info!("group {id} is forgotten: it has no members, and its offsets have expired");
                self.forget(id)
            }
            Some((expired, false)) if !expired.is_empty() => {
                info!("group {id}: {} offsets have expired", expired.len());
                self.delete_offsets(id, &expired)
            }
            _ => Stored::nothing(),
        }
    }

    /// These topics were deleted. There may be others of their names at once, and what was read of the old ones says nothing about them.
    /// Groups forget them one by one; one that is asked for meanwhile does so first (`catch_up`).
    pub(super) fn topics_gone(self: &Rc<Self>, names: &BTreeSet<Arc<str>>) {
        match self.state.get() {
            Loaded::Loading => self.gone_meanwhile.borrow_mut().extend(names.iter().cloned()),
            Loaded::Ready => {
                let is_busy = self.gone.borrow_mut().add(names.clone());
                if !is_busy {
                    let this = Rc::clone(self);
                    self.tasks.spawn(async move { this.forget_gone_topics().await });
                }
            }
            Loaded::Failed | Loaded::Gone => {}
        }
    }

    async fn forget_gone_topics(self: &Rc<Self>) {
        let mut turns = Turns::default();
        loop {
            let round = self.gone.borrow().round();
            let mut next = self.group_after(None);
            while let Some(id) = next {
                let stored = self.catch_up(&id);
                let looked_at = self.view(&id, |view| view.offsets.len()).unwrap_or(0);
                turns.took(looked_at, stored).await;
                if self.is_over() {
                    return;
                }
                next = self.group_after(Some(&id));
            }
            if self.gone.borrow_mut().all_caught_up(round) {
                break;
            }
        }
        turns.end().await;
    }

    /// Has a group forget offsets of topics that went since it was last asked for.
    pub(super) fn catch_up(self: &Rc<Self>, id: &str) -> Stored {
        let since = {
            let (gone, mut groups) = (self.gone.borrow(), self.groups.borrow_mut());
            match groups.get_mut(id) {
                Some(entry) if entry.caught_up != gone.round => std::mem::replace(&mut entry.caught_up, gone.round),
                _ => return Stored::nothing(),
            }
        };
        let names = self.gone.borrow().since(since);
        match names.is_empty() {
            true => Stored::nothing(),
            false => self.forget_topics_of(id, |topic| names.contains(topic)),
        }
    }

    /// The shard gives the groups up: nobody looks at the rest of them here.
    pub(super) fn catch_up_all(self: &Rc<Self>) {
        if self.gone.borrow().is_busy() {
            self.ids().iter().for_each(|id| drop(self.catch_up(id)));
        }
    }

    /// While loading: topics may have been deleted when nobody led this partition, and may be meanwhile. An image holds all topics, or
    /// it is not made at all.
    pub(super) async fn forget_what_went_meanwhile(self: &Rc<Self>, turns: &mut Turns) {
        let image = self.shared.image();
        let (mut names, mut is_first) = (self.gone_meanwhile.take(), true);
        while is_first || !names.is_empty() {
            let mut next = self.group_after(None);
            while let Some(id) = next.filter(|_| !self.is_over()) {
                let is_gone = |topic: &str| names.contains(topic) || is_first && image.topic(topic).is_none();
                let stored = self.forget_topics_of(&id, is_gone);
                let looked_at = self.view(&id, |view| view.offsets.len()).unwrap_or(0);
                turns.took(looked_at, stored).await;
                next = self.group_after(Some(&id));
            }
            (names, is_first) = (self.gone_meanwhile.take(), false);
        }
    }

    fn forget_topics_of(self: &Rc<Self>, id: &str, is_gone: impl Fn(&str) -> bool) -> Stored {
        let of_gone = |view: GroupView<'_>| view.offsets.known().filter(|of| is_gone(&of.0)).cloned().collect();
        let going: Vec<TopicPartitionName> = self.view(id, of_gone).unwrap_or_default();
        if going.is_empty() {
            return Stored::nothing();
        }
        info!("group {id}: {} offsets are forgotten, their topics are gone", going.len());
        let stored = self.delete_offsets(id, &going);
        if let Some(error) = stored.refused() {
            warn!("group {id}: that cannot be stored yet: {error:?}");
            let end = self.partition.core().staged_end().0;
            if let Some(entry) = self.groups.borrow_mut().get_mut(id) {
                going.iter().for_each(|of| entry.offsets.disown(of, end));
            }
        }
        stored
    }
}

/// Topics that were deleted and of which groups may have offsets still.
#[derive(Default)]
pub(super) struct Gone {
    /// How often topics were deleted since the partition was loaded.
    round: u64,
    /// Those of each round that not all groups have heard of, in order.
    names: Vec<(u64, BTreeSet<Arc<str>>)>,
}

impl Gone {
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Groups are being told.
    pub fn is_busy(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether groups are being told of earlier ones.
    fn add(&mut self, names: BTreeSet<Arc<str>>) -> bool {
        let is_busy = self.is_busy();
        self.round += 1;
        self.names.push((self.round, names));
        is_busy
    }

    fn since(&self, round: u64) -> BTreeSet<Arc<str>> {
        let later = self.names.iter().filter(|(of, _)| *of > round);
        later.flat_map(|(_, names)| names.iter().cloned()).collect()
    }

    /// All groups have heard of this round and those before; false: there are later ones.
    fn all_caught_up(&mut self, round: u64) -> bool {
        self.names.retain(|(of, _)| *of > round);
        self.names.is_empty()
    }
}

pub(super) fn offset_key(group: &str, (topic, partition): &TopicPartitionName) -> Key {
    Key::Offset { group: group.to_owned(), topic: topic.clone(), partition: *partition }
}
