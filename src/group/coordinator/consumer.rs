//! Groups of the new protocol: their requests, their time, and the way of their records to the log.

use super::kind::{Found, Kind};
use super::slice::Slice;
use super::store;
use crate::base::limits::FENCED_TOGETHER_MAX;
use crate::group::classic::Event;
use crate::group::consumer::member::{JOINS, MemberId};
use crate::group::consumer::pattern::Matches;
use crate::group::consumer::record::{Record, Resolved};
use crate::group::consumer::{Beaten, Decision, Env, Group, Heartbeat, Refusal};
use crate::group::records::Key;
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::sync::oneshot;
use tracing::{info, warn};

/// When a member that could not be fenced is looked at again.
const AGAIN_MS: i64 = 1000;

/// An answer, and what it has to wait for: a record that it follows from and that is not in the log yet.
pub struct Answered<A> {
    pub(super) answer: A,
    pub(super) stored: Option<oneshot::Receiver<Result<(), ResponseError>>>,
}

impl<A> Answered<A> {
    /// Nothing has to be waited for.
    pub fn is_ready(&self) -> bool {
        self.stored.is_none()
    }

    /// The answer, once everything that it follows from is as safe as acks=all promises.
    pub async fn wait(self) -> Result<A, ResponseError> {
        match self.stored {
            None => Ok(self.answer),
            Some(stored) => stored.await.unwrap_or(Err(ResponseError::NotCoordinator)).map(|()| self.answer),
        }
    }
}

impl Slice {
    /// A member of the new protocol is heard of. The first one makes the group, and takes over one that is empty. `matches` is what
    /// its patterns match, if it needs any.
    pub fn heartbeat(
        self: &Rc<Self>,
        id: &str,
        request: &Heartbeat,
        matches: &Matches,
    ) -> Result<Answered<Beaten>, Refusal> {
        let (settings, image) = (self.shared.settings(), self.shared.image());
        let env = Env { matches, ..Env::new(&image, &settings.consumer) };
        request.check(env.limits)?;
        if !self.partition().leads() {
            return Err(Refusal::new(ResponseError::NotCoordinator, ""));
        }
        let now_ms = self.now_ms();
        let (records, begun, decision) = {
            let groups = self.groups.borrow();
            let kind = groups.get(id).map(|entry| &entry.kind);
            let found = Found::by(kind, now_ms, &env, request)?;
            let decision = found.group().heartbeat(now_ms, &env, request)?;
            let mut records = found.gone(id);
            let begun = match found {
                Found::Known(_) => None,
                Found::Made { group, records: own, .. } => {
                    records.extend(self.encoded(id, &own));
                    Some(group)
                }
            };
            records.extend(self.encoded(id, &decision.records));
            (records, begun, decision)
        };
        let told = decision.records.iter().find_map(|record| match record {
            Record::Member(_, Some(profile)) => Some(profile.bytes()),
            _ => None,
        });
        if let Some(told) = told {
            // With somebody new comes what he is to have.
            let all = records.iter().filter_map(|(_, value)| value.as_ref()).map(Vec::len).sum();
            let who = (&*request.member_id, request.instance_id.as_deref());
            self.check_room(id, who, (told, all)).map_err(|error| Refusal::new(error, ""))?;
        }
        let ticket = self.append_for(id, &records).map_err(|error| Refusal::new(error, ""))?;
        if let Some(begun) = begun {
            self.make_consumer(id, *begun);
        }
        let answer = self.accept(id, decision).expect("invariant: the group was just made sure of");
        let stored = self.when_stored(id, ticket);
        if request.epoch < JOINS {
            self.downgrade(id);
        }
        Ok(Answered { answer, stored })
    }

    /// Members whose time is up go, as many at a time as fit into one batch.
    pub(super) fn fence_due(self: &Rc<Self>, id: &str) {
        let (settings, image) = (self.shared.settings(), self.shared.image());
        let env = Env::new(&image, &settings.consumer);
        let mut at_once = FENCED_TOGETHER_MAX;
        loop {
            let now_ms = self.now_ms();
            let decided = self.with_consumer(id, |group| {
                let due = group.due(now_ms, at_once);
                let gone: Vec<MemberId> = due.iter().map(|(member_id, _)| Rc::clone(member_id)).collect();
                (group.fence(&env, &gone), due)
            });
            let Some((decision, due)) = decided.filter(|(_, due)| !due.is_empty()) else { break };
            match self.append_for(id, &self.encoded(id, &decision.records)) {
                Ok(ticket) => {
                    for (member_id, timer) in due {
                        info!("group {id}: member {member_id} is fenced, its {timer:?} time is up");
                    }
                    self.accept(id, decision);
                    drop(self.when_stored(id, ticket));
                    self.downgrade(id);
                }
                Err(ResponseError::UnknownServerError) if due.len() > 1 => at_once = due.len() / 2,
                Err(error) => {
                    for (member_id, timer) in due {
                        warn!("group {id}: member {member_id} cannot be fenced yet: {error:?}");
                        self.with_consumer(id, |group| group.put_off(&member_id, timer, now_ms + AGAIN_MS));
                    }
                }
            }
        }
        self.rearm(id);
    }

    /// The records of a group of the new protocol, as they are appended.
    pub(super) fn encoded(&self, id: &str, records: &[Record]) -> Vec<(Key, Option<Vec<u8>>)> {
        let clock = &self.shared.clock;
        let stamped = |record: &Record| match record {
            Record::Regex(regex, Some(resolved)) => {
                let resolved = Resolved { at_ms: clock.to_wall_ms(resolved.at_ms), ..resolved.clone() };
                store::of_consumer(id, &Record::Regex(regex.clone(), Some(resolved)))
            }
            record => store::of_consumer(id, record),
        };
        records.iter().map(stamped).collect()
    }

    pub(super) fn with_consumer<T>(&self, id: &str, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        match &mut self.groups.borrow_mut().get_mut(id)?.kind {
            Kind::Consumer(group) => Some(change(group)),
            Kind::Classic(_) => None,
        }
    }

    pub(super) fn accept<A>(self: &Rc<Self>, id: &str, decision: Decision<A>) -> Option<A> {
        let answer = self.with_consumer(id, |group| group.accept(decision));
        self.rearm(id);
        answer
    }

    /// From here on the group is one of the new protocol; its offsets stay.
    fn make_consumer(self: &Rc<Self>, id: &str, begun: Group) {
        let is_classic = match self.groups.borrow().get(id).map(|entry| &entry.kind) {
            Some(Kind::Consumer(_)) => return,
            Some(Kind::Classic(_)) => true,
            None => false,
        };
        if is_classic {
            // Who waits for the others joins again, and finds the new group.
            self.feed(id, Event::Ended(ResponseError::RebalanceInProgress));
            info!("group {id} is one of the new protocol from now on");
        }
        let mut groups = self.groups.borrow_mut();
        let new = Kind::Consumer(Box::new(begun));
        match groups.get_mut(id) {
            Some(entry) => entry.change_to(new, self.number()),
            None => drop(groups.insert(id.to_owned(), self.entry(new))),
        }
    }

    /// A member of the classic protocol wants to join: an empty group of the new one is no more; its offsets stay.
    pub(super) fn make_classic_if_empty(self: &Rc<Self>, id: &str) -> Result<(), ResponseError> {
        let gone = match self.groups.borrow().get(id).map(|entry| &entry.kind) {
            Some(kind @ Kind::Consumer(group)) if group.is_empty() => kind.gone(id),
            _ => return Ok(()),
        };
        let ticket = self.append_for(id, &gone)?;
        drop(self.when_stored(id, ticket));
        let limits = self.shared.settings().limits;
        if let Some(entry) = self.groups.borrow_mut().get_mut(id) {
            let empty = crate::group::classic::Group::new(limits, self.now_ms());
            entry.change_to(Kind::Classic(Box::new(empty)), self.number());
        }
        self.rearm(id);
        Ok(())
    }

    /// Has records appended; None if there are none. An error: none of them is.
    pub(super) fn append_for(
        self: &Rc<Self>,
        id: &str,
        records: &[(Key, Option<Vec<u8>>)],
    ) -> Result<Option<u64>, ResponseError> {
        if records.is_empty() {
            return Ok(None);
        }
        let stored = store::append(self.partition(), records);
        if let Some(error) = stored.refused() {
            return Err(error);
        }
        let ticket = self.number();
        self.under_way.borrow_mut().entry(id.to_owned()).or_default().insert(ticket, Vec::new());
        let (slice, id) = (Rc::clone(self), id.to_owned());
        self.tasks.spawn(async move {
            let result = stored.done().await.map(drop);
            if let Err(error) = result {
                warn!("group {id}: its records cannot be stored: {error:?}");
            }
            let waiting = slice.under_way.borrow_mut().get_mut(&id).and_then(|of_group| of_group.remove(&ticket));
            if slice.under_way.borrow().get(&id).is_some_and(BTreeMap::is_empty) {
                slice.under_way.borrow_mut().remove(&id);
            }
            for waiting in waiting.into_iter().flatten() {
                // Its connection may be gone.
                let _ = waiting.send(result);
            }
        });
        Ok(Some(ticket))
    }

    /// Tells when the append is through; without one of its own, an answer follows from those that are under way.
    pub(super) fn when_stored(
        &self,
        id: &str,
        ticket: Option<u64>,
    ) -> Option<oneshot::Receiver<Result<(), ResponseError>>> {
        let mut under_way = self.under_way.borrow_mut();
        let of_group = under_way.get_mut(id)?;
        let waiting = match ticket {
            Some(ticket) => of_group.get_mut(&ticket)?,
            None => of_group.last_entry()?.into_mut(),
        };
        let (sender, receiver) = oneshot::channel();
        waiting.push(sender);
        Some(receiver)
    }
}
