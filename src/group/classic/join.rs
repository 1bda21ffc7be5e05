//! Joining, and how a rebalance gathers its members.

use super::event::{JoinAnswer, JoinRequest, SyncAnswer, Waiter};
use super::{Effect, Group, Joining, Member, NEW_MEMBER_MS, Replaced, State, Store, Syncing};
use kafka_protocol::ResponseError;

impl Group {
    pub(super) fn join(&mut self, now_ms: i64, waiter: Waiter, request: JoinRequest) {
        if let Err((member_id, error)) = self.try_join(now_ms, waiter, &request) {
            self.effects.push(Effect::Joined(waiter, JoinAnswer::refused(&member_id, error)));
        }
        self.try_complete_join(now_ms);
    }

    /// The error bears the member id that its answer gives back.
    fn try_join(&mut self, now_ms: i64, waiter: Waiter, request: &JoinRequest) -> Result<(), (String, ResponseError)> {
        let id = request.member_id.as_str();
        let refuse = |error| Err((id.to_owned(), error));
        if !self.limits.allow_session(request.session_timeout_ms) {
            return refuse(ResponseError::InvalidSessionTimeout);
        }
        if self.state == State::Dead {
            return refuse(ResponseError::CoordinatorNotAvailable);
        }
        if !self.has_room_for(id) {
            if self.members.contains(id) {
                self.remove_member(now_ms, id);
            }
            self.pending.remove(id);
            return Err((String::new(), ResponseError::GroupMaxSizeReached));
        }
        if !self.supports(request) {
            return refuse(ResponseError::InconsistentGroupProtocol);
        }
        if id.is_empty() {
            return self.join_as_new(now_ms, waiter, request);
        }
        if request.instance_id.is_none() && self.pending.remove(id) {
            self.add_member(now_ms, waiter, id.to_owned(), request);
            return Ok(());
        }
        self.check_member(id, request.instance_id.as_deref()).map_err(|error| (id.to_owned(), error))?;
        self.rejoin(now_ms, waiter, request);
        Ok(())
    }

    /// Whether one more may join, or one that is there again.
    fn has_room_for(&self, id: &str) -> bool {
        let members_max = self.limits.members_max;
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                self.members.get(id).is_some_and(Member::is_joining) || self.members.joining() < members_max
            }
            State::CompletingRebalance | State::Stable => self.members.contains(id) || self.members.len() < members_max,
        }
    }

    fn supports(&self, request: &JoinRequest) -> bool {
        if self.state == State::Empty {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        let is_same_type = self.members.is_empty() || self.protocol_type.as_deref() == Some(&*request.protocol_type);
        is_same_type && self.members.share_one_of(&request.protocols)
    }

    fn join_as_new(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: &JoinRequest,
    ) -> Result<(), (String, ResponseError)> {
        let id = request.fresh_id.clone();
        if let Some(instance_id) = &request.instance_id {
            match self.members.of_instance(instance_id).map(str::to_owned) {
                Some(old_id) => self.replace_instance(now_ms, waiter, &old_id, request),
                None => self.add_member(now_ms, waiter, id, request),
            }
            return Ok(());
        }
        if request.requires_known_id {
            self.pending.insert(id.clone(), now_ms + i64::from(request.session_timeout_ms));
            return Err((id, ResponseError::MemberIdRequired));
        }
        self.add_member(now_ms, waiter, id, request);
        Ok(())
    }

    fn add_member(&mut self, now_ms: i64, waiter: Waiter, id: String, request: &JoinRequest) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if let Some(joining) = &mut self.joining {
            joining.newcomers |= self.generation == 0;
        }
        self.members.insert(Member::from_request(id.clone(), request));
        self.members.begin_join(&id, waiter);
        self.members.set_deadline(&id, now_ms + NEW_MEMBER_MS);
        self.leader.get_or_insert(id);
        self.rebalance(now_ms);
    }

    fn rejoin(&mut self, now_ms: i64, waiter: Waiter, request: &JoinRequest) {
        let id = request.member_id.as_str();
        let is_same = self.members.get(id).is_some_and(|member| member.protocols() == request.protocols);
        let is_leader = self.leader.as_deref() == Some(id);
        let stays = match self.state {
            // It may not have got our answer.
            State::CompletingRebalance => is_same,
            // A leader that joins again wants a new assignment.
            State::Stable => is_same && !is_leader,
            State::Empty | State::PreparingRebalance | State::Dead => false,
        };
        if stays {
            self.heard_of(now_ms, id);
            let answer = self.joined(id);
            self.effects.push(Effect::Joined(waiter, answer));
            return;
        }
        self.update_member(id, waiter, request);
        self.rebalance(now_ms);
    }

    fn update_member(&mut self, id: &str, waiter: Waiter, request: &JoinRequest) {
        self.members.alter(id, |member| member.update(request));
        if let Some(before) = self.members.begin_join(id, waiter) {
            // One client asks once at a time: the earlier asking has nobody behind it any more.
            let answer = JoinAnswer::refused(id, ResponseError::RebalanceInProgress);
            self.effects.push(Effect::Joined(before, answer));
        }
    }

    /// A static member came back under a new id (KIP-345).
    fn replace_instance(&mut self, now_ms: i64, waiter: Waiter, old_id: &str, request: &JoinRequest) {
        let id = request.fresh_id.clone();
        self.answer_join(old_id, |_| JoinAnswer::refused(old_id, ResponseError::FencedInstanceId));
        self.answer_sync(old_id, SyncAnswer::refused(ResponseError::FencedInstanceId));
        let leader_before = self.leader.clone();
        let earlier = self.forget_replaced(old_id);
        let old = self.members.get(old_id).cloned().expect("invariant: instances are those of members");
        self.members.alter(old_id, |member| {
            member.id.clone_from(&id);
            member.update(request);
        });
        if let Some(syncing) = &mut self.syncing
            && syncing.missing.remove(old_id)
        {
            syncing.missing.insert(id.clone());
        }
        if self.leader.as_deref() == Some(old_id) {
            self.leader = Some(id.clone());
        }
        self.members.begin_join(&id, waiter);
        self.heard_of(now_ms, &id);
        match self.state {
            State::Stable if self.members.elect_protocol() == self.protocol => {
                self.members.end_join(&id);
                let can_skip_assignment = request.can_skip_assignment;
                // What the log has is the one whose place the earlier one had taken.
                let old = earlier.unwrap_or(Box::new(old));
                self.store_replaced(Replaced { member_id: id, waiter, old, leader_before, can_skip_assignment });
            }
            // An assignment under way speaks of the old id.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(now_ms),
            State::Empty | State::PreparingRebalance | State::Dead => {}
        }
    }

    /// The answer that tells a member of the generation at hand.
    pub(super) fn joined(&self, id: &str) -> JoinAnswer {
        let is_leader = self.leader.as_deref() == Some(id);
        let protocol = self.protocol.as_deref().unwrap_or_default();
        JoinAnswer {
            error: None,
            member_id: id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            skip_assignment: false,
            members: if is_leader { self.members.for_leader(protocol) } else { Vec::new() },
        }
    }

    /// Begins a rebalance unless one is gathering members already.
    pub(super) fn rebalance(&mut self, now_ms: i64) {
        if matches!(self.state, State::Empty | State::CompletingRebalance | State::Stable) {
            self.prepare_rebalance(now_ms);
        }
    }

    pub(super) fn prepare_rebalance(&mut self, now_ms: i64) {
        self.replaced_wait_with_others();
        if self.state == State::CompletingRebalance {
            let ids: Vec<String> = self.members.ids().map(str::to_owned).collect();
            for id in ids {
                self.members.with(&id, |member| member.assignment.clear());
                if self.answer_sync(&id, SyncAnswer::refused(ResponseError::RebalanceInProgress)) {
                    self.heard_of(now_ms, &id);
                }
            }
        }
        self.syncing = None;
        let whole_ms = self.members.rebalance_timeout_ms();
        self.joining = Some(match self.state {
            State::Empty => {
                let delay_ms = self.limits.initial_delay_ms;
                let left_ms = (whole_ms - delay_ms).max(0);
                Joining { deadline_ms: now_ms + delay_ms, initial_left_ms: Some(left_ms), newcomers: false }
            }
            _ => Joining { deadline_ms: now_ms + whole_ms, initial_left_ms: None, newcomers: false },
        });
        self.enter(now_ms, State::PreparingRebalance);
    }

    /// Ends the gathering if everybody is there. That of a group that was empty always takes its time: more will come.
    pub(super) fn try_complete_join(&mut self, now_ms: i64) {
        let Some(joining) = &self.joining else { return };
        let everybody = self.members.joining() == self.members.len() && self.pending.is_empty();
        if everybody && joining.initial_left_ms.is_none() {
            self.complete_join(now_ms);
        }
    }

    pub(super) fn join_timed_out(&mut self, now_ms: i64) {
        let Some(joining) = &mut self.joining else { return };
        if let Some(left_ms) = joining.initial_left_ms
            && joining.newcomers
            && left_ms > 0
        {
            let delay_ms = self.limits.initial_delay_ms.min(left_ms);
            joining.newcomers = false;
            joining.deadline_ms = now_ms + delay_ms;
            joining.initial_left_ms = Some(left_ms - delay_ms);
            return;
        }
        self.complete_join(now_ms);
    }

    /// The members who have joined are the next generation. Dynamic ones who have not are out; static ones keep their place
    /// until their session ends.
    fn complete_join(&mut self, now_ms: i64) {
        let absent = |member: &&Member| !member.is_joining() && member.instance_id.is_none();
        let gone: Vec<String> = self.members.iter().filter(absent).map(|member| member.id.clone()).collect();
        for id in &gone {
            self.take_member(id);
        }
        let is_here = |id: &String| self.members.get(id).is_some_and(Member::is_joining);
        if !self.leader.as_ref().is_some_and(is_here) {
            let elected = self.members.iter().find(|member| member.is_joining()).map(|member| member.id.clone());
            if elected.is_none() && !self.members.is_empty() {
                // Only static members are left, and none has come: until their sessions end there is nothing to do.
                let whole_ms = self.members.rebalance_timeout_ms().max(1);
                self.joining =
                    Some(Joining { deadline_ms: now_ms + whole_ms, initial_left_ms: None, newcomers: false });
                return;
            }
            self.leader = elected;
        }
        self.joining = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.members.elect_protocol();
        if self.members.is_empty() {
            self.leader = None;
            self.enter(now_ms, State::Empty);
            let record = self.record(|_| Default::default());
            self.store(Store::Emptied, record);
            return;
        }
        self.enter(now_ms, State::CompletingRebalance);
        let ids: Vec<String> = self.members.ids().map(str::to_owned).collect();
        for id in &ids {
            self.answer_join(id, |group| group.joined(id));
            self.heard_of(now_ms, id);
            self.members.with(id, |member| member.is_new = false);
        }
        let deadline_ms = now_ms + self.members.rebalance_timeout_ms();
        self.syncing = Some(Syncing { deadline_ms, missing: ids.into_iter().collect() });
    }
}
