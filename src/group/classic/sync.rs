//! The leader's assignment, and how each member gets its part.

use super::event::{SyncAnswer, SyncRequest, Ticket, Waiter};
use super::{Effect, Group, State, Store};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::collections::{BTreeSet, HashMap};

impl Group {
    pub(super) fn sync(&mut self, now_ms: i64, waiter: Waiter, request: SyncRequest) {
        if let Err(error) = self.try_sync(now_ms, waiter, request) {
            self.effects.push(Effect::Synced(waiter, SyncAnswer::refused(error)));
        }
    }

    fn try_sync(&mut self, now_ms: i64, waiter: Waiter, request: SyncRequest) -> Result<(), ResponseError> {
        let SyncRequest { claim, protocol_type, protocol, assignments } = request;
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        self.check_member(&claim.member_id, claim.instance_id.as_deref())?;
        if claim.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let differs = |told: &Option<String>, ours: &Option<String>| told.is_some() && told != ours;
        if differs(&protocol_type, &self.protocol_type) || differs(&protocol, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.state {
            State::PreparingRebalance => return Err(ResponseError::RebalanceInProgress),
            State::CompletingRebalance => {}
            State::Stable => {
                self.has_synced(&claim.member_id);
                self.heard_of(now_ms, &claim.member_id);
                let answer = self.assigned(&claim.member_id);
                self.effects.push(Effect::Synced(waiter, answer));
                return Ok(());
            }
            State::Empty | State::Dead => return Err(ResponseError::UnknownMemberId),
        }
        let mut before = None;
        self.members.with(&claim.member_id, |member| before = member.syncing.replace(waiter));
        if let Some(before) = before {
            // One client asks once at a time: the earlier asking has nobody behind it any more.
            let answer = SyncAnswer::refused(ResponseError::RebalanceInProgress);
            self.effects.push(Effect::Synced(before, answer));
        }
        self.has_synced(&claim.member_id);
        let is_stored =
            |store: &Store| matches!(store, Store::Assignment { generation, .. } if *generation == self.generation);
        if self.leader.as_deref() == Some(&*claim.member_id) && !self.stores.values().any(is_stored) {
            let assignments: HashMap<String, Bytes> = assignments.into_iter().collect();
            let record = self.record(|member| assignments.get(&member.id).cloned().unwrap_or_default());
            self.store(Store::Assignment { generation: self.generation, assignments }, record);
        }
        Ok(())
    }

    pub(super) fn stored(&mut self, now_ms: i64, ticket: Ticket, error: Option<ResponseError>) {
        match self.stores.remove(&ticket) {
            Some(Store::Assignment { generation, assignments }) => {
                // A member may have joined meanwhile: then that assignment is history.
                if self.state == State::CompletingRebalance && self.generation == generation {
                    self.assignment_stored(now_ms, assignments, error);
                }
            }
            Some(Store::Replaced(all)) => self.replaced_stored(now_ms, all, error),
            Some(Store::Emptied) | None => {}
        }
    }

    fn assignment_stored(
        &mut self,
        now_ms: i64,
        mut assignments: HashMap<String, Bytes>,
        error: Option<ResponseError>,
    ) {
        let ids: Vec<String> = self.members.ids().map(str::to_owned).collect();
        if error.is_none() {
            self.enter(now_ms, State::Stable);
        }
        for id in &ids {
            let assignment = assignments.remove(id).filter(|_| error.is_none()).unwrap_or_default();
            self.members.with(id, |member| member.assignment = assignment);
            let answer = match error {
                Some(error) => SyncAnswer::refused(error),
                None => self.assigned(id),
            };
            if self.answer_sync(id, answer) {
                self.heard_of(now_ms, id);
            }
        }
        if error.is_some() {
            self.prepare_rebalance(now_ms);
        }
    }

    fn assigned(&self, id: &str) -> SyncAnswer {
        SyncAnswer {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    fn has_synced(&mut self, id: &str) {
        if let Some(syncing) = &mut self.syncing {
            syncing.missing.remove(id);
            if syncing.missing.is_empty() {
                self.syncing = None;
            }
        }
    }

    /// Who joined but has not asked for its assignment in time is out.
    pub(super) fn sync_timed_out(&mut self, now_ms: i64, missing: BTreeSet<String>) {
        for id in &missing {
            self.take_member(id);
        }
        self.prepare_rebalance(now_ms);
        self.try_complete_join(now_ms);
    }
}
