//! Members that go: of their own will, made to, or not heard of any more.

use super::event::{JoinAnswer, Leaving, SyncAnswer, Waiter};
use super::{Effect, Group, State};
use kafka_protocol::ResponseError;

impl Group {
    pub(super) fn leave(&mut self, now_ms: i64, waiter: Waiter, leaving: &[Leaving]) {
        let answer = match self.state {
            State::Dead => Err(ResponseError::CoordinatorNotAvailable),
            _ => Ok(leaving.iter().map(|one| self.leave_one(now_ms, one).err()).collect()),
        };
        self.effects.push(Effect::Left(waiter, answer));
    }

    fn leave_one(&mut self, now_ms: i64, leaving: &Leaving) -> Result<(), ResponseError> {
        let Leaving { member_id, instance_id } = leaving;
        if member_id.is_empty() {
            let of_instance = instance_id.as_deref().and_then(|instance_id| self.members.of_instance(instance_id));
            let id = of_instance.ok_or(ResponseError::UnknownMemberId)?.to_owned();
            self.remove_member(now_ms, &id);
            return Ok(());
        }
        if self.pending.remove(member_id) {
            self.try_complete_join(now_ms);
            return Ok(());
        }
        self.check_member(member_id, instance_id.as_deref())?;
        self.remove_member(now_ms, member_id);
        Ok(())
    }

    /// Takes a member out and has the others share what it had.
    pub(super) fn remove_member(&mut self, now_ms: i64, id: &str) {
        self.take_member(id);
        match self.state {
            State::Stable | State::CompletingRebalance => {
                self.prepare_rebalance(now_ms);
                self.try_complete_join(now_ms);
            }
            State::PreparingRebalance => self.try_complete_join(now_ms),
            State::Empty | State::Dead => {}
        }
    }

    /// Takes a member out, answering what it waits for: a client that is alive after all joins anew.
    pub(super) fn take_member(&mut self, id: &str) {
        self.answer_join(id, |_| JoinAnswer::refused("", ResponseError::UnknownMemberId));
        self.answer_sync(id, SyncAnswer::refused(ResponseError::UnknownMemberId));
        self.members.remove(id);
        if let Some(syncing) = &mut self.syncing {
            syncing.missing.remove(id);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.ids().next().map(str::to_owned);
        }
    }
}
