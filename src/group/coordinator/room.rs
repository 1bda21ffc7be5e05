//! How much memory the groups of a shard take, and who is refused for it.
//!
//! Members that come by JoinGroup are in memory only, with whatever they tell, until their group is whole: nothing else bounds them. Who is a
//! member already goes on, and may come to tell more: what a client has been given is part of what it tells, so some space is kept for
//! those. Who is refused is told COORDINATOR_LOAD_IN_PROGRESS: every client asks again
//! after a while, here, and takes no other code so; with GROUP_MAX_SIZE_REACHED consumers end, though there may be room in a moment.

use super::Slice;
use crate::base::limits::{GROUP_BYTES, MEMBER_BYTES};
use crate::group::classic::{Effect, Event, JoinRequest, told_bytes};
use kafka_protocol::ResponseError;
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::oneshot;
use tracing::warn;

/// What the groups of a shard take, about.
#[derive(Default)]
pub(super) struct Room {
    bytes: Cell<usize>,
    /// The last one was refused: that is told once.
    is_full: Cell<bool>,
}

/// What a group takes of it, as long as it is there.
pub(super) struct Charge {
    room: Rc<Room>,
    bytes: usize,
}

impl Room {
    fn has(&self, bytes: usize, max: usize) -> bool {
        let has_room = self.bytes.get().saturating_add(bytes) <= max;
        if !has_room && !self.is_full.replace(true) {
            warn!(
                "groups take {} MiB of memory, and there may be {}: nobody new joins",
                self.bytes.get() >> 20,
                max >> 20
            );
        }
        if has_room && self.bytes.get() < max / 2 {
            self.is_full.set(false);
        }
        has_room
    }
}

impl Charge {
    pub fn new(room: &Rc<Room>) -> Charge {
        Charge { room: Rc::clone(room), bytes: 0 }
    }

    pub fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.room.bytes.set(self.room.bytes.get() + bytes - before);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A group's name, with all places that hold it.
pub(super) fn name_bytes(id: &str) -> usize {
    3 * id.len()
}

impl Slice {
    /// JoinGroup: only who has no id yet can be a group's first member.
    pub fn join(
        self: &Rc<Self>,
        group: &str,
        request: JoinRequest,
    ) -> Result<oneshot::Receiver<Effect>, ResponseError> {
        // Before a group is made for it, which would take room for a while.
        if !self.shared.settings().limits.allow_session(request.session_timeout_ms) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        let told = told_bytes(&request.protocols);
        self.check_room(group, (&request.member_id, request.instance_id.as_deref()), (told, 0))?;
        let asked = self.ask(group, request.member_id.is_empty(), |waiter| Event::Join(waiter, request));
        asked.ok_or(ResponseError::UnknownMemberId)
    }

    /// Whether somebody may join who tells so much about himself and brings so much besides, or a member tell so much anew.
    pub(super) fn check_room(
        &self,
        group: &str,
        (member_id, instance_id): (&str, Option<&str>),
        (told, besides): (usize, usize),
    ) -> Result<(), ResponseError> {
        let max = self.shared.settings().bytes_max;
        let (more, max) =
            match self.groups.borrow().get(group).map(|entry| entry.kind.told_bytes(member_id, instance_id)) {
                Some(Some(known)) => (told.saturating_sub(known), max + max / 4),
                Some(None) => (told + besides + MEMBER_BYTES, max),
                None => (told + besides + MEMBER_BYTES + GROUP_BYTES + name_bytes(group), max),
            };
        match more == 0 || self.shared.room.has(more, max) {
            true => Ok(()),
            false => Err(ResponseError::CoordinatorLoadInProgress),
        }
    }
}
