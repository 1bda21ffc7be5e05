//! Members of the classic protocol in a group of the new one, while its members change from the one to the other (KIP-848).
//!
//! To such a member its epoch is the generation, and each step to another assignment is a rebalance: its heartbeat is answered
//! REBALANCE_IN_PROGRESS, it joins again with what it has, and fetches what it gets. Nobody leads, nobody waits for the others.

use super::heartbeat::{Known, copy_for};
use super::member::{Classic, Member, MemberId, MemberState, Profile};
use super::{Decision, Env, Group, Partitions, Timer, rebalance_ms, session_ms};
use crate::base::ids::TopicId;
use crate::cluster::image::ClusterImage;
use crate::group::classic::{CONSUMER, JoinAnswer, JoinRequest, Leaving, MemberClaim, SyncAnswer, SyncRequest};
use crate::group::subscription::{self, Named};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

impl Group {
    /// JoinGroup. A refusal changes nothing; it bears the member id that its answer gives back.
    pub fn join_classic(
        &self,
        now_ms: i64,
        env: &Env<'_>,
        request: &JoinRequest,
    ) -> Result<Decision<JoinAnswer>, (String, ResponseError)> {
        let told_id = request.member_id.as_str();
        let refuse = |error| (String::new(), error);
        if self.members.is_empty() && told_id.is_empty() {
            // It was to become a classic one, and the log did not take that: the client asks again.
            return Err(refuse(ResponseError::CoordinatorNotAvailable));
        }
        if self.members.len() >= env.limits.members_max && !self.members.contains_key(told_id) {
            return Err(refuse(ResponseError::GroupMaxSizeReached));
        }
        let subscription = request.protocols.first().and_then(|(_, metadata)| subscription::read(metadata));
        let subscription = subscription.filter(|_| self.supports(request));
        let subscription = subscription.ok_or_else(|| refuse(ResponseError::InconsistentGroupProtocol))?;
        if told_id.is_empty() && request.requires_known_id {
            return Err((request.fresh_id.clone(), ResponseError::MemberIdRequired));
        }
        let known = self.known_classic(request).map_err(refuse)?;
        if known.is_new && subscription.owned.iter().any(|(_, partitions)| !partitions.is_empty()) {
            // It was put out meanwhile, and does not know: what it reads from may be another's by now. Kafka takes it in, and it may
            // commit for that until it has synced; so it is told instead, as a classic group would tell it.
            return Err(refuse(ResponseError::UnknownMemberId));
        }
        let before = &known.member.profile;
        let classic = Classic { session_timeout_ms: request.session_timeout_ms, protocols: request.protocols.clone() };
        let profile = Profile {
            instance_id: request.instance_id.clone().or_else(|| before.instance_id.clone()),
            rack_id: subscription.rack.or_else(|| before.rack_id.clone()),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            topics: subscription.topics.into_iter().collect(),
            regex: None,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            assignor: before.assignor.clone(),
            classic: Some(classic),
        };
        let profile = if profile == **before { Rc::clone(before) } else { Rc::new(profile) };
        let owned = of_names(&subscription.owned, env.image);
        let id = Rc::clone(&known.member.id);
        let settled = self.settle(now_ms, env, known, profile, Some(&owned));
        let (decision, _) = settled.map_err(|refusal| refuse(refusal.error))?;
        let Decision { records, mut timers, looked, answer: current } = decision;
        timers.push((Rc::clone(&id), Timer::Join, None));
        let until_ms = now_ms + i64::from(request.rebalance_timeout_ms.max(0));
        timers.push((Rc::clone(&id), Timer::Sync, Some(until_ms)));
        let answer = JoinAnswer {
            member_id: id.to_string(),
            generation: current.epoch,
            protocol_type: Some(CONSUMER.to_owned()),
            protocol: request.protocols.first().map(|(name, _)| name.clone()),
            ..JoinAnswer::default()
        };
        Ok(Decision { records, timers, looked, answer })
    }

    /// All members of the classic protocol know one of its assignors, so that the group could become a classic one.
    fn supports(&self, request: &JoinRequest) -> bool {
        // Its own as it told them before count as well, as in Kafka.
        let classic = self.members.values().filter_map(|member| member.profile.classic.as_ref());
        let known: Vec<BTreeSet<&str>> = classic.map(|classic| classic.names().collect()).collect();
        let is_common = |(name, _): &(String, Bytes)| known.iter().all(|known| known.contains(name.as_str()));
        request.protocol_type == CONSUMER && request.protocols.iter().any(is_common)
    }

    fn known_classic(&self, request: &JoinRequest) -> Result<Known, ResponseError> {
        if self.members.is_empty() {
            // Who has no id yet would have found a classic group.
            return Err(ResponseError::UnknownMemberId);
        }
        let id = match request.member_id.is_empty() {
            true => &*request.fresh_id,
            false => &*request.member_id,
        };
        let known = |member, is_new, replaced| Ok(Known { member, is_new, replaced });
        let Some(instance_id) = &request.instance_id else {
            return match self.members.get(id) {
                Some(member) => known(member.clone(), false, None),
                None => known(Member::new(id), true, None),
            };
        };
        match self.instances.get(instance_id).map(|holder| &self.members[holder]) {
            None if request.member_id.is_empty() => known(Member::new(id), true, None),
            None => Err(ResponseError::UnknownMemberId),
            Some(holder) if request.member_id.is_empty() => {
                known(copy_for(holder, id), false, Some(Rc::clone(&holder.id)))
            }
            Some(holder) if *holder.id != *id => Err(ResponseError::FencedInstanceId),
            Some(holder) => known(holder.clone(), false, None),
        }
    }

    /// SyncGroup: what the member has.
    pub fn sync_classic(
        &self,
        now_ms: i64,
        env: &Env<'_>,
        request: &SyncRequest,
    ) -> Result<Decision<SyncAnswer>, ResponseError> {
        let SyncRequest { claim, protocol_type, protocol, .. } = request;
        let (member, classic) = self.claimed(claim)?;
        let own = classic.names().next();
        let differs = |told: &Option<String>, own: Option<&str>| told.is_some() && told.as_deref() != own;
        if differs(protocol_type, Some(CONSUMER)) || differs(protocol, own) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        // Who has to give up something has joined already; the next step is told when it has done so.
        if self.epoch > member.epoch() && member.current.state != MemberState::Unrevoked {
            let answer = SyncAnswer::refused(ResponseError::RebalanceInProgress);
            return Ok(self.to_join(now_ms, member, answer));
        }
        let version = classic.protocols.first().and_then(|(_, metadata)| subscription::read(metadata));
        let version = version.map_or(0, |subscription| subscription.version);
        let mut decision = Decision::new(SyncAnswer {
            error: None,
            protocol_type: protocol_type.clone(),
            protocol: protocol.clone(),
            assignment: subscription::write_assignment(version, &names_of(&member.current.assigned, env.image)),
        });
        let id = &member.id;
        decision.timers.push((Rc::clone(id), Timer::Sync, None));
        decision.timers.push((Rc::clone(id), Timer::Session, Some(now_ms + session_ms(member, env.limits))));
        Ok(decision)
    }

    /// Heartbeat: the member is to join again when there is another assignment, or more of this one.
    pub fn heartbeat_classic(
        &self,
        now_ms: i64,
        env: &Env<'_>,
        claim: &MemberClaim,
    ) -> Result<Decision<Option<ResponseError>>, ResponseError> {
        let (member, _) = self.claimed(claim)?;
        let is_behind = match member.current.state {
            _ if member.epoch() < self.epoch => true,
            MemberState::Stable => false,
            MemberState::Unrevoked => true,
            MemberState::Unreleased => !self.waits(member),
        };
        let mut decision = match is_behind {
            true => self.to_join(now_ms, member, Some(ResponseError::RebalanceInProgress)),
            false => Decision::new(None),
        };
        let session = Some(now_ms + session_ms(member, env.limits));
        decision.timers.push((Rc::clone(&member.id), Timer::Session, session));
        Ok(decision)
    }

    /// LeaveGroup: what each of them is told. Those who go do so in one step of the group's epoch.
    pub fn leave_classic(&self, env: &Env<'_>, leaving: &[Leaving]) -> Decision<Vec<Option<ResponseError>>> {
        let (mut gone, mut answers, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for one in leaving {
            let member = self.leaving_classic(one);
            if let Ok(member) = member
                && seen.insert(Rc::clone(&member.id))
            {
                gone.push(Rc::clone(&member.id));
            }
            answers.push(member.err());
        }
        let Decision { records, timers, looked, .. } = self.fence(env, &gone);
        Decision { records, timers, looked, answer: answers }
    }

    /// The member that leaves, by id or by instance id alone. Administrators take members of the new protocol out in this way, too.
    pub(super) fn leaving_classic(&self, leaving: &Leaving) -> Result<&Member, ResponseError> {
        let unknown = ResponseError::UnknownMemberId;
        match &leaving.instance_id {
            None => self.members.get(&*leaving.member_id).ok_or(unknown),
            Some(instance_id) => {
                let holder = self.instances.get(instance_id).ok_or(unknown)?;
                if !leaving.member_id.is_empty() && **holder != *leaving.member_id {
                    return Err(ResponseError::FencedInstanceId);
                }
                Ok(&self.members[holder])
            }
        }
    }

    fn claimed(&self, claim: &MemberClaim) -> Result<(&Member, &Classic), ResponseError> {
        let member = match &claim.instance_id {
            None => self.members.get(&*claim.member_id),
            Some(instance_id) => match self.instances.get(instance_id) {
                Some(holder) if **holder != *claim.member_id => return Err(ResponseError::FencedInstanceId),
                holder => holder.and_then(|holder| self.members.get(holder)),
            },
        };
        let member = member.ok_or(ResponseError::UnknownMemberId)?;
        let classic = member.profile.classic.as_ref().ok_or(ResponseError::UnknownMemberId)?;
        if member.epoch() != claim.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok((member, classic))
    }

    /// The member is told to join, and has its rebalance timeout for it from when it was first told.
    fn to_join<A>(&self, now_ms: i64, member: &Member, answer: A) -> Decision<A> {
        let mut decision = Decision::new(answer);
        let first = self.timers.get(&(Rc::clone(&member.id), Timer::Join)).copied();
        let until_ms = first.unwrap_or(now_ms + rebalance_ms(member));
        decision.timers.push((Rc::clone(&member.id), Timer::Join, Some(until_ms)));
        decision
    }

    /// Something that the member is to have is another's still.
    fn waits(&self, member: &Member) -> bool {
        let target = self.targets.get(&member.id).into_iter().flatten();
        let each = |(topic, partitions): (&'_ TopicId, &'_ BTreeSet<i32>)| -> Vec<(TopicId, i32)> {
            partitions.iter().map(|partition| (*topic, *partition)).collect()
        };
        let mut missing = target.flat_map(each);
        missing.any(|one| self.owners.get(&one).is_some_and(|owner: &MemberId| *owner != member.id))
    }
}

impl Classic {
    /// The assignors that the member knows.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.protocols.iter().map(|(name, _)| name.as_str())
    }
}

/// Topics that do not exist are left out.
pub(super) fn of_names(named: &Named, image: &ClusterImage) -> Partitions {
    let mut partitions = Partitions::new();
    for (name, numbers) in named {
        if let Some(topic) = image.topic(name).filter(|_| !numbers.is_empty()) {
            partitions.entry(topic.id).or_default().extend(numbers);
        }
    }
    partitions
}

pub(super) fn names_of(partitions: &Partitions, image: &ClusterImage) -> Named {
    let name = |(id, numbers): (&TopicId, &BTreeSet<i32>)| {
        image.topic_by_id(*id).map(|topic| (topic.name.to_string(), numbers.iter().copied().collect()))
    };
    partitions.iter().filter_map(name).collect()
}
