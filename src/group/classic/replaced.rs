//! Static members that come back under other ids (KIP-345): a group at rest stays so, and each is told when its new id is in the log.
//!
//! The record is of all members. Those who come while one is on its way have the next one together: a restart of a thousand members
//! would write a thousand times a thousand members otherwise, as it does in Kafka.

use super::event::{JoinAnswer, Waiter};
use super::{Effect, Group, Member, State, Store};
use kafka_protocol::ResponseError;

/// A static member that came back.
#[derive(Clone, Debug)]
pub struct Replaced {
    pub member_id: String,
    pub waiter: Waiter,
    /// What it was, as the log has it.
    pub old: Box<Member>,
    pub leader_before: Option<String>,
    pub can_skip_assignment: bool,
}

impl Group {
    pub(super) fn store_replaced(&mut self, one: Replaced) {
        self.replaced.push(one);
        if !self.stores.values().any(|store| matches!(store, Store::Replaced(_))) {
            self.store_next_replaced();
        }
    }

    fn store_next_replaced(&mut self) {
        let all = std::mem::take(&mut self.replaced);
        if !all.is_empty() {
            let record = self.record(|member| member.assignment.clone());
            self.store(Store::Replaced(all), record);
        }
    }

    pub(super) fn replaced_stored(&mut self, now_ms: i64, all: Vec<Replaced>, error: Option<ResponseError>) {
        for one in all {
            let waiter = one.waiter;
            let answer = self.instance_replaced(now_ms, one, error);
            self.effects.push(Effect::Joined(waiter, answer));
        }
        self.store_next_replaced();
    }

    /// A member whose record is not on its way yet is replaced itself: what it was before.
    pub(super) fn forget_replaced(&mut self, id: &str) -> Option<Box<Member>> {
        let at = self.replaced.iter().position(|one| one.member_id == id)?;
        let Replaced { waiter, old, .. } = self.replaced.remove(at);
        let answer = JoinAnswer::refused(id, ResponseError::FencedInstanceId);
        self.effects.push(Effect::Joined(waiter, answer));
        Some(old)
    }

    /// A rebalance begins: who has no record on its way waits for it like all who join.
    pub(super) fn replaced_wait_with_others(&mut self) {
        for Replaced { member_id, waiter, .. } in std::mem::take(&mut self.replaced) {
            if !self.members.contains(&member_id) {
                let answer = JoinAnswer::refused("", ResponseError::UnknownMemberId);
                self.effects.push(Effect::Joined(waiter, answer));
            } else if let Some(before) = self.members.begin_join(&member_id, waiter) {
                // It came again by its new id.
                let answer = JoinAnswer::refused(&member_id, ResponseError::RebalanceInProgress);
                self.effects.push(Effect::Joined(before, answer));
            }
        }
    }

    /// A static member's new id is in the log, or is not: then it keeps the old one.
    fn instance_replaced(&mut self, now_ms: i64, one: Replaced, error: Option<ResponseError>) -> JoinAnswer {
        let Replaced { member_id, old, leader_before, can_skip_assignment, .. } = one;
        let is_leader = self.leader.as_deref() == Some(&*member_id);
        let answer = JoinAnswer {
            error,
            member_id: member_id.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: leader_before,
            skip_assignment: false,
            members: Vec::new(),
        };
        if error.is_some() {
            if self.members.contains(&member_id) && self.state != State::PreparingRebalance {
                let old_id = old.id.clone();
                self.members.alter(&member_id, |member| *member = *old);
                if is_leader {
                    self.leader = Some(old_id.clone());
                }
                self.heard_of(now_ms, &old_id);
            }
            return JoinAnswer { member_id: String::new(), ..answer };
        }
        match can_skip_assignment {
            // It may know that it leads, and that there is nothing to assign.
            true => JoinAnswer { skip_assignment: is_leader, ..self.joined(&member_id) },
            // An older one would assign if it knew; the old leader's id keeps it from that.
            false => answer,
        }
    }
}
