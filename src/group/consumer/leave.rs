//! Members that go: of their own will, or because their time is up.

use super::heartbeat::{Beaten, Heartbeat, fenced_instance, removed, unknown, unknown_instance};
use super::member::{Current, LEAVES_FOR_A_WHILE, Member, MemberId};
use super::record::{Record, Subject};
use super::subscription::View;
use super::{Decision, Env, Group, Refusal};
use crate::group::consumer::assign::Partitions;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

impl Group {
    pub(super) fn leave(&self, env: &Env<'_>, request: &Heartbeat) -> Result<Decision<Beaten>, Refusal> {
        let member = match &request.instance_id {
            None => self.members.get(&*request.member_id).ok_or_else(|| unknown(request))?,
            Some(instance_id) => {
                let holder = self.instances.get(instance_id).ok_or_else(|| unknown_instance(request))?;
                &self.members[holder]
            }
        };
        if *member.id != *request.member_id {
            return Err(fenced_instance(member, request));
        }
        let answer = Beaten { member_id: request.member_id.clone(), epoch: request.epoch, assignment: None };
        if request.epoch != LEAVES_FOR_A_WHILE {
            let Decision { records, timers, looked, .. } = self.fence(env, std::slice::from_ref(&member.id));
            return Ok(Decision { records, timers, looked, answer });
        }
        // Until its session ends, or it comes back, what it has is kept for it.
        let current = Current {
            epoch: LEAVES_FOR_A_WHILE,
            revoking: Partitions::new(),
            state: match member.current.revoking.is_empty() {
                true => member.current.state,
                false => Default::default(),
            },
            ..(*member.current).clone()
        };
        let mut decision = Decision::new(answer);
        decision.records.push(Record::Current(request.member_id.clone(), Some(Rc::new(current))));
        decision.timers.push((Rc::clone(&member.id), super::Timer::Rebalance, None));
        Ok(decision)
    }

    /// Takes members out, in one step of the group's epoch: what they had is free, and the next heartbeat of another shares it out.
    /// Without any, nothing happens. It takes one walk through the group, however many they are.
    pub fn fence(&self, env: &Env<'_>, gone: &[MemberId]) -> Decision<()> {
        let mut decision = Decision::new(());
        if gone.is_empty() {
            return decision;
        }
        decision.records.extend(gone.iter().flat_map(removed));
        let gone = gone.iter().cloned().collect();
        let view = View { group: self, env, updated: None, gone: &gone, regexes: Cow::Borrowed(&self.regexes) };
        let used: BTreeSet<&str> = view.members().filter_map(Member::regex).collect();
        let unused = self.regexes.keys().filter(|regex| !used.contains(regex.as_str()));
        decision.records.extend(unused.map(|regex| Subject::Regex(regex.clone()).gone()));
        let topics = view.topics();
        if topics != self.topics {
            decision.records.push(Record::Topics(Some(topics)));
        }
        decision.records.push(Record::Epoch(Some(self.epoch.saturating_add(1))));
        decision
    }
}
