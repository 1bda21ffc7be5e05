//! What is forgotten: offsets and groups that somebody deletes, those that nobody has wanted for long (KIP-211), and offsets of topics
//! that are gone.
//!
//! Memory follows the log: an offset goes when the log has taken its tombstone, and a group when the log has taken those of all its offsets
//! and its own. What does not fit into one batch is appended in several, the group's own record last, as whatever is missing then is
//! found by the next attempt.

use super::Slice;
use super::kind::subscribed;
use super::slice::{GroupView, Loaded};
use super::store::{self, Stored};
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

    pub(super) fn expire(self: &Rc<Self>, now_ms: i64) {
        if self.state.get() != Loaded::Ready {
            return;
        }
        let retention_ms = self.shared.settings().retention_ms;
        for id in self.ids() {
            let Some((expired, is_over)) = self.view(&id, |view| {
                let topics = subscribed(view.kind);
                let expired =
                    view.offsets.expired(view.kind.readers(&self.shared.clock, topics.as_ref()), now_ms, retention_ms);
                let is_over = view.kind.is_forgettable() && view.offsets.known().count() == expired.len();
                (expired, is_over && !view.offsets.is_under_way())
            }) else {
                continue;
            };
            let forgotten = if is_over {
                info!("group {id} is forgotten: it has no members, and its offsets have expired");
                self.forget(&id)
            } else if !expired.is_empty() {
                info!("group {id}: {} offsets have expired", expired.len());
                self.delete_offsets(&id, &expired)
            } else {
                continue;
            };
            forgotten.detach(&self.tasks);
        }
    }

    /// These topics were deleted. There may be others of their names at once, and what was read of the old ones says nothing about them.
    pub(super) fn topics_gone(self: &Rc<Self>, names: &BTreeSet<Arc<str>>) {
        match self.state.get() {
            Loaded::Loading => self.gone_meanwhile.borrow_mut().extend(names.iter().cloned()),
            Loaded::Ready => self.forget_topics(|topic| names.contains(topic)),
            Loaded::Failed | Loaded::Gone => {}
        }
    }

    /// After loading: topics may have been deleted when nobody led this partition. An image holds all topics, or it is not made at all.
    pub(super) fn forget_what_went_meanwhile(self: &Rc<Self>) {
        let (names, image) = (self.gone_meanwhile.take(), self.shared.image());
        self.forget_topics(|topic| names.contains(topic) || image.topic(topic).is_none());
    }

    fn forget_topics(self: &Rc<Self>, is_gone: impl Fn(&str) -> bool) {
        for id in self.ids() {
            let of_gone = |view: GroupView<'_>| view.offsets.known().filter(|of| is_gone(&of.0)).cloned().collect();
            let going: Vec<TopicPartitionName> = self.view(&id, of_gone).unwrap_or_default();
            if going.is_empty() {
                continue;
            }
            info!("group {id}: {} offsets are forgotten, their topics are gone", going.len());
            let stored = self.delete_offsets(&id, &going);
            if let Some(error) = stored.refused() {
                warn!("group {id}: that cannot be stored yet: {error:?}");
                let end = self.partition.core().staged_end().0;
                if let Some(entry) = self.groups.borrow_mut().get_mut(&id) {
                    going.iter().for_each(|of| entry.offsets.disown(of, end));
                }
            }
            stored.detach(&self.tasks);
        }
    }
}

pub(super) fn offset_key(group: &str, (topic, partition): &TopicPartitionName) -> Key {
    Key::Offset { group: group.to_owned(), topic: topic.clone(), partition: *partition }
}
