//! A member is heard of: it joins, says what it wants and has, and is told what it gets.

use super::assign::{Assignor, Partitions};
use super::member::{Current, JOINS, LEAVES, LEAVES_FOR_A_WHILE, Member, MemberId, MemberState, Profile};
use super::pattern::Match;
use super::reconcile::{Goal, reconcile};
use super::record::{Record, Resolved, Subject, TopicsMetadata};
use super::subscription::View;
use super::{Decision, Env, Group, Limits, Looked, Refusal, Timer, rebalance_ms, session_ms};
use kafka_protocol::ResponseError;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

/// ConsumerGroupHeartbeat, as far as it concerns the group. None: as it was told before.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    /// For messages.
    pub group_id: String,
    /// Never empty: a client that does not make up its own has been given one.
    pub member_id: String,
    pub epoch: i32,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub rebalance_timeout_ms: Option<i32>,
    pub topics: Option<BTreeSet<String>>,
    pub regex: Option<String>,
    pub assignor: Option<String>,
    /// What the member has.
    pub owned: Option<Partitions>,
    pub client_id: String,
    pub client_host: String,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    pub member_id: String,
    pub epoch: i32,
    /// None: as it was told before.
    pub assignment: Option<Partitions>,
}

impl Heartbeat {
    /// What is wrong with it, whatever the group is.
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        let wrong = |what: &str| Err(Refusal::new(ResponseError::InvalidRequest, what));
        let is_empty = |text: &Option<String>| text.as_ref().is_some_and(|text| text.trim().is_empty());
        if is_empty(&self.instance_id) {
            return wrong("InstanceId can't be empty.");
        }
        if is_empty(&self.rack_id) {
            return wrong("RackId can't be empty.");
        }
        if self.member_id.trim().is_empty() {
            return wrong("MemberId can't be empty.");
        }
        match self.epoch {
            JOINS if self.rebalance_timeout_ms.is_none() => {
                return wrong("RebalanceTimeoutMs must be provided in first request.");
            }
            JOINS if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) => {
                return wrong("TopicPartitions must be empty when (re-)joining.");
            }
            JOINS if self.topics.is_none() && self.regex.is_none() => {
                return wrong(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
            LEAVES_FOR_A_WHILE if self.instance_id.is_none() => return wrong("InstanceId can't be null."),
            JOINS.. | LEAVES | LEAVES_FOR_A_WHILE => {}
            _ => return wrong("MemberEpoch is invalid."),
        }
        let offered = &limits.assignors;
        let is_offered = |name: &String| offered.iter().any(|assignor| assignor.name() == name);
        if let Some(assignor) = self.assignor.as_ref().filter(|name| !is_offered(name)) {
            let names: Vec<&str> = offered.iter().map(|assignor| Assignor::name(*assignor)).collect();
            let message =
                format!("ServerAssignor {assignor} is not supported. Supported assignors: {}.", names.join(", "));
            return Err(Refusal::new(ResponseError::UnsupportedAssignor, message));
        }
        Ok(())
    }

    /// A client that has lost track tells everything, and wants to be told everything.
    fn is_full(&self) -> bool {
        let wants = self.topics.is_some() || self.regex.is_some();
        self.epoch == JOINS || (self.rebalance_timeout_ms.is_some() && wants && self.owned.is_some())
    }

    fn updated(&self, before: &Rc<Profile>) -> Rc<Profile> {
        let says_nothing = self.topics.is_none() && self.regex.is_none() && self.rebalance_timeout_ms.is_none();
        let says_no_more = self.instance_id == before.instance_id && self.rack_id.is_none() && self.assignor.is_none();
        let is_same_client = self.client_id == before.client_id && self.client_host == before.client_host;
        if says_nothing && says_no_more && is_same_client && before.classic.is_none() {
            // What nearly every heartbeat is.
            return Rc::clone(before);
        }
        let profile = Profile {
            instance_id: self.instance_id.clone().or_else(|| before.instance_id.clone()),
            rack_id: self.rack_id.clone().or_else(|| before.rack_id.clone()),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            topics: self.topics.clone().unwrap_or_else(|| before.topics.clone()),
            regex: self.regex.clone().or_else(|| before.regex.clone()),
            rebalance_timeout_ms: self.rebalance_timeout_ms.unwrap_or(before.rebalance_timeout_ms),
            assignor: self.assignor.clone().or_else(|| before.assignor.clone()),
            classic: None,
        };
        if profile == **before { Rc::clone(before) } else { Rc::new(profile) }
    }
}

/// Who a request is from, as the group knows him until now.
pub(super) struct Known {
    pub member: Member,
    pub is_new: bool,
    /// The static member whose place it takes.
    pub replaced: Option<MemberId>,
}

impl Group {
    /// What a heartbeat that has passed its `check` does to the group.
    pub fn heartbeat(&self, now_ms: i64, env: &Env<'_>, request: &Heartbeat) -> Result<Decision<Beaten>, Refusal> {
        match request.epoch {
            LEAVES | LEAVES_FOR_A_WHILE => self.leave(env, request),
            _ => self.beat(now_ms, env, request),
        }
    }

    fn beat(&self, now_ms: i64, env: &Env<'_>, request: &Heartbeat) -> Result<Decision<Beaten>, Refusal> {
        let members_max = env.limits.members_max;
        if self.members.len() >= members_max && !self.members.contains_key(&*request.member_id) {
            let message = format!("The consumer group has reached its maximum capacity of {members_max} members.");
            return Err(Refusal::new(ResponseError::GroupMaxSizeReached, message));
        }
        let known = self.known(request)?;
        let profile = request.updated(&known.member.profile);
        self.settle(now_ms, env, known, profile, request.owned.as_ref()).map(|settled| {
            let (decision, before) = settled;
            let Decision { records, timers, looked, answer: after } = decision;
            let is_same = Rc::ptr_eq(&before, &after) || before.assigned == after.assigned;
            let is_news = request.is_full() || !is_same;
            let assignment = is_news.then(|| after.assigned.clone());
            let answer = Beaten { member_id: request.member_id.clone(), epoch: after.epoch, assignment };
            Decision { records, timers, looked, answer }
        })
    }

    fn known(&self, request: &Heartbeat) -> Result<Known, Refusal> {
        let id = &*request.member_id;
        let joins = request.epoch == JOINS;
        let of_instance = request.instance_id.as_ref().map(|instance_id| self.instances.get(instance_id));
        let (member, is_new, replaced) = match of_instance {
            None => match self.members.get(id) {
                Some(member) => {
                    check_epoch(member, request)?;
                    (member.clone(), false, None)
                }
                None if joins => (Member::new(id), true, None),
                None => return Err(unknown(request)),
            },
            Some(None) if joins => match self.members.get(id) {
                // It was dynamic before.
                Some(member) => (member.clone(), false, None),
                None => (Member::new(id), true, None),
            },
            Some(None) => return Err(unknown_instance(request)),
            Some(Some(holder)) => {
                let holder = &self.members[holder];
                if joins && *holder.id != *id {
                    self.take_place_of(holder, request)?
                } else if *holder.id != *id {
                    return Err(fenced_instance(holder, request));
                } else if joins && holder.is_away() {
                    // It comes back with the id that it had: what it held is still its own.
                    (copy_for(holder, id), false, None)
                } else {
                    check_epoch(holder, request)?;
                    (holder.clone(), false, None)
                }
            }
        };
        Ok(Known { member, is_new, replaced })
    }

    /// A static member comes back under another id: it gets what it had (KIP-345).
    fn take_place_of(&self, holder: &Member, request: &Heartbeat) -> Result<(Member, bool, Option<MemberId>), Refusal> {
        if !holder.is_away() && !holder.is_classic() {
            let message = format!(
                "Static member {} with instance id {} cannot join the group because the instance id is owned by {} member.",
                request.member_id,
                holder.instance_id().unwrap_or_default(),
                holder.id
            );
            return Err(Refusal::new(ResponseError::UnreleasedInstanceId, message));
        }
        Ok((copy_for(holder, &request.member_id), false, Some(Rc::clone(&holder.id))))
    }

    /// A member with what it says about itself now: what it leads to for the group, and for it. Gives what it had, too.
    pub(super) fn settle(
        &self,
        now_ms: i64,
        env: &Env<'_>,
        known: Known,
        profile: Rc<Profile>,
        owned: Option<&Partitions>,
    ) -> Result<(Decision<Rc<Current>>, Rc<Current>), Refusal> {
        let Known { member: before, is_new, replaced } = known;
        let mut decision = Decision::new(Rc::clone(&before.current));
        let id = before.id.to_string();
        if let Some(replaced) = &replaced {
            decision.records.extend(removed(replaced));
        }
        if is_new || replaced.is_some() || !Rc::ptr_eq(&profile, &before.profile) {
            decision.records.push(Record::Member(id.clone(), Some(Rc::clone(&profile))));
        }
        if let Some(replaced) = &replaced {
            let target = self.targets.get(replaced).cloned().unwrap_or_default();
            decision.records.push(Record::Target(id.clone(), Some(target)));
            decision.records.push(Record::Current(id.clone(), Some(Rc::clone(&before.current))));
        }
        let updated = Member { profile, ..before.clone() };
        let same_id = self.members.get(&updated.id);
        // A member that was there takes the place of another: what it had itself is to be shared.
        let is_one_less = replaced.is_some() && same_id.is_some();
        let mut bump = updated.profile.topics != before.profile.topics || self.epoch == 0 || is_one_less;
        if is_one_less {
            decision.timers.push((Rc::clone(&updated.id), Timer::Rebalance, None));
        }
        if !updated.is_classic() && same_id.is_some_and(Member::is_classic) {
            for timer in [Timer::Join, Timer::Sync] {
                decision.timers.push((Rc::clone(&updated.id), timer, None));
            }
        }
        let mut looked = self.looked;
        let gone = replaced.iter().cloned().collect();
        let view =
            View { group: self, env, updated: Some(&updated), gone: &gone, regexes: Cow::Borrowed(&self.regexes) };
        let view = self.patterns(now_ms, view, &before, (&mut decision.records, &mut bump, &mut looked))?;

        let mut topics = Cow::Borrowed(&self.topics);
        if bump || looked.topics_of != Some(env.image.version) {
            let newest = view.topics();
            if newest != self.topics {
                bump = true;
                decision.records.push(Record::Topics(Some(newest.clone())));
                topics = Cow::Owned(newest);
            }
            looked.topics_of = Some(env.image.version);
        }
        let epoch = if bump { self.epoch.saturating_add(1) } else { self.epoch };
        if bump {
            decision.records.push(Record::Epoch(Some(epoch)));
        }
        let target = self.target_of(&view, (epoch, &topics), replaced.as_deref(), &mut decision.records);
        let holder = |topic, partition| self.owners.get(&(topic, partition));
        let is_mine = |holder: &MemberId| *holder == updated.id || Some(holder) == replaced.as_ref();
        let goal = Goal {
            epoch: self.assignment_epoch.max(epoch),
            target: &target,
            owned,
            is_free: &|topic, partition| holder(topic, partition).is_none_or(is_mine),
        };
        if let Some(next) = reconcile(&updated, &goal) {
            let next = Rc::new(next);
            // A member of the classic protocol has its time to join instead.
            let is_timed = next.state == MemberState::Unrevoked && !updated.is_classic();
            let until_ms = is_timed.then(|| now_ms + rebalance_ms(&updated));
            decision.records.push(Record::Current(id, Some(Rc::clone(&next))));
            decision.timers.push((Rc::clone(&updated.id), Timer::Rebalance, until_ms));
            decision.answer = next;
        } else if !Rc::ptr_eq(&before.current, &self.current_of(&before)) && replaced.is_none() {
            decision.records.push(Record::Current(id, Some(Rc::clone(&before.current))));
        }
        let session = (Rc::clone(&updated.id), Timer::Session, Some(now_ms + session_ms(&updated, env.limits)));
        decision.timers.push(session);
        decision.looked = Some(looked);
        Ok((decision, before.current))
    }

    fn current_of(&self, member: &Member) -> Rc<Current> {
        self.members.get(&member.id).map_or_else(|| Rc::clone(&member.current), |known| Rc::clone(&known.current))
    }

    /// The target of the updated member; where the epoch asks for it, everybody's is computed anew.
    fn target_of<'t>(
        &'t self,
        view: &View<'_>,
        (epoch, topics): (i32, &TopicsMetadata),
        replaced: Option<&str>,
        records: &mut Vec<Record>,
    ) -> Cow<'t, Partitions> {
        let updated = view.updated.expect("invariant: there is one in a heartbeat");
        if epoch <= self.assignment_epoch {
            return self.targets.get(replaced.unwrap_or(&updated.id)).map(Cow::Borrowed).unwrap_or_default();
        }
        let mut targets = view.targets(topics, replaced);
        for member in view.members() {
            let target = &targets[&member.id];
            if self.targets.get(&member.id) != Some(target) {
                records.push(Record::Target(member.id.to_string(), Some(target.clone())));
            }
        }
        records.push(Record::AssignmentEpoch(Some(epoch)));
        Cow::Owned(targets.remove(&updated.id).unwrap_or_default())
    }

    /// Takes up a pattern that is new, forgets one that nobody uses any more, and sees what topics match where they have changed.
    fn patterns<'v>(
        &self,
        now_ms: i64,
        mut view: View<'v>,
        before: &Member,
        (records, bump, looked): (&mut Vec<Record>, &mut bool, &mut Looked),
    ) -> Result<View<'v>, Refusal> {
        let updated = view.updated.expect("invariant: there is one in a heartbeat");
        let (image, matches) = (view.env.image, view.env.matches);
        if before.regex() != updated.regex() {
            *bump = true;
            if let Some(regex) = updated.regex()
                && !view.regexes.contains_key(regex)
            {
                match matches.get(regex) {
                    Some(Match::Topics(topics)) => {
                        let resolved = matches.resolved(topics, now_ms);
                        records.push(Record::Regex(regex.to_owned(), Some(resolved.clone())));
                        view.regexes.to_mut().insert(regex.to_owned(), resolved);
                    }
                    Some(Match::Invalid(error)) => return Err(invalid_regex(regex, error)),
                    Some(Match::TooSlow) => {
                        return Err(invalid_regex(regex, "it takes too long to hold it against all topics"));
                    }
                    // Its last user went while somebody looked for others: the next heartbeat asks.
                    None => looked.patterns_of = None,
                }
            }
        }
        // What it had before, and what one had whose place it takes under its own id.
        let earlier = self.members.get(&updated.id).and_then(Member::regex);
        for regex in [before.regex(), earlier].into_iter().flatten().filter(|regex| updated.regex() != Some(*regex)) {
            if view.regexes.contains_key(regex) && !view.members().any(|member| member.regex() == Some(regex)) {
                records.push(Subject::Regex(regex.to_owned()).gone());
                view.regexes.to_mut().remove(regex);
            }
        }
        if self.patterns_are_due(now_ms, image) {
            let used: BTreeSet<String> = view.members().filter_map(Member::regex).map(str::to_owned).collect();
            let version = if used.is_empty() { image.version } else { matches.version };
            if used.iter().all(|regex| matches.get(regex).is_some()) {
                looked.patterns_of = Some((version, now_ms));
            }
            for regex in used {
                let resolved = match matches.get(&regex) {
                    Some(Match::Topics(topics)) => matches.resolved(topics, now_ms),
                    // A pattern that Kafka stored and we cannot read matches nothing.
                    Some(Match::Invalid(_)) => Resolved::default(),
                    // What is known of it stays.
                    Some(Match::TooSlow) | None => continue,
                };
                if view.regexes.get(&regex).map(|known| &known.topics) != Some(&resolved.topics) {
                    *bump = true;
                    records.push(Record::Regex(regex.clone(), Some(resolved.clone())));
                    view.regexes.to_mut().insert(regex, resolved);
                }
            }
        }
        Ok(view)
    }
}

fn invalid_regex(regex: &str, error: &str) -> Refusal {
    let message = format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {error}.");
    Refusal::new(ResponseError::InvalidRegularExpression, message)
}

/// The member that takes the place of a static one, under another id: it has what that had, and is to join.
pub(super) fn copy_for(holder: &Member, id: &str) -> Member {
    let current = Current { epoch: JOINS, previous_epoch: JOINS, ..(*holder.current).clone() };
    Member { id: id.into(), profile: Rc::clone(&holder.profile), current: Rc::new(current) }
}

/// The records that take a member out.
pub(super) fn removed(id: &MemberId) -> [Record; 3] {
    let id = id.to_string();
    [Subject::Current(id.clone()).gone(), Subject::Target(id.clone()).gone(), Subject::Member(id).gone()]
}

/// The epoch must be the member's, or the one before with nothing that it has not: the answer that told the new one may be lost.
fn check_epoch(member: &Member, request: &Heartbeat) -> Result<(), Refusal> {
    let (told, known) = (request.epoch, member.epoch());
    let is_part = |owned: &Partitions| {
        owned.iter().all(|(topic, partitions)| {
            member.current.assigned.get(topic).is_some_and(|assigned| partitions.is_subset(assigned))
        })
    };
    let size = match told.cmp(&known) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Greater => "greater",
        std::cmp::Ordering::Less => {
            if told == member.current.previous_epoch && request.owned.as_ref().is_some_and(is_part) {
                return Ok(());
            }
            "smaller"
        }
    };
    let message = format!(
        "The consumer group member has a {size} member epoch ({told}) than the one known by the group coordinator ({known}). \
         The member must abandon all its partitions and rejoin."
    );
    Err(Refusal::new(ResponseError::FencedMemberEpoch, message))
}

pub(super) fn unknown(request: &Heartbeat) -> Refusal {
    let Heartbeat { member_id, group_id, .. } = request;
    Refusal::new(ResponseError::UnknownMemberId, format!("Member {member_id} is not a member of group {group_id}."))
}

pub(super) fn unknown_instance(request: &Heartbeat) -> Refusal {
    let instance_id = request.instance_id.as_deref().unwrap_or_default();
    Refusal::new(ResponseError::UnknownMemberId, format!("Instance id {instance_id} is unknown."))
}

pub(super) fn fenced_instance(holder: &Member, request: &Heartbeat) -> Refusal {
    let instance_id = request.instance_id.as_deref().unwrap_or_default();
    let message = format!(
        "Static member {} with instance id {instance_id} was fenced by member {}.",
        request.member_id, holder.id
    );
    Refusal::new(ResponseError::FencedInstanceId, message)
}
