//! Members of the classic protocol in groups of the new one, and the way back to the classic protocol.

use super::consumer::Answered;
use super::kind::Kind;
use super::slice::Slice;
use super::store;
use crate::group::classic::{self, Effect, Event, JoinAnswer, JoinRequest, Leaving, SyncAnswer, Waiter};
use crate::group::consumer::{Decision, Downgraded, Env, Group};
use crate::group::records::Key;
use kafka_protocol::ResponseError;
use std::rc::Rc;
use tracing::{info, warn};

impl Slice {
    /// What happens to a group of the new protocol, in the words of the classic one.
    pub(super) fn feed_consumer(self: &Rc<Self>, id: &str, event: Event) {
        let now_ms = self.now_ms();
        match event {
            Event::Tick => self.fence_due(id),
            Event::Join(waiter, request) => self.join_classic(id, waiter, &request),
            Event::Sync(waiter, request) => {
                let decide = |group: &Group, env: &Env<'_>| group.sync_classic(now_ms, env, &request);
                self.answer_later(id, waiter, self.decided(id, decide), |waiter, answer| {
                    Effect::Synced(waiter, answer.unwrap_or_else(SyncAnswer::refused))
                });
            }
            Event::Heartbeat(waiter, claim) => {
                let decide = |group: &Group, env: &Env<'_>| group.heartbeat_classic(now_ms, env, &claim);
                self.answer_later(id, waiter, self.decided(id, decide), |waiter, answer| {
                    Effect::Beaten(waiter, answer.unwrap_or_else(Some))
                });
            }
            Event::Leave(waiter, leaving) => self.leave_classic(id, waiter, &leaving),
            Event::Stored(..) | Event::Rebalance | Event::Ended(_) => {}
        }
    }

    fn join_classic(self: &Rc<Self>, id: &str, waiter: Waiter, request: &JoinRequest) {
        let (limits, now_ms) = (self.shared.settings().limits, self.now_ms());
        let sessions = limits.session_min_ms..=limits.session_max_ms;
        let mut told_id = String::new();
        let decided = match sessions.contains(&request.session_timeout_ms) {
            false => {
                told_id.clone_from(&request.member_id);
                Err(ResponseError::InvalidSessionTimeout)
            }
            true => self.decided(id, |group, env| {
                group.join_classic(now_ms, env, request).map_err(|(member_id, error)| {
                    told_id = member_id;
                    error
                })
            }),
        };
        self.answer_later(id, waiter, decided, move |waiter, answer| {
            let refused = |error| JoinAnswer::refused(&told_id, error);
            Effect::Joined(waiter, answer.unwrap_or_else(refused))
        });
        self.downgrade(id);
    }

    fn leave_classic(self: &Rc<Self>, id: &str, waiter: Waiter, leaving: &[Leaving]) {
        let decided = self.decided(id, |group: &Group, env: &Env<'_>| Ok(group.leave_classic(env, leaving)));
        self.answer_later(id, waiter, decided, Effect::Left);
        self.downgrade(id);
    }

    /// Has the group decide, and takes the decision over if its records are on their way to the log.
    fn decided<A>(
        self: &Rc<Self>,
        id: &str,
        decide: impl FnOnce(&Group, &Env<'_>) -> Result<Decision<A>, ResponseError>,
    ) -> Result<Answered<A>, ResponseError> {
        if !self.partition().leads() {
            return Err(ResponseError::NotCoordinator);
        }
        let (settings, image) = (self.shared.settings(), self.shared.image());
        let env = Env::new(&image, &settings.consumer);
        let decision = self.with_consumer(id, |group| decide(group, &env)).ok_or(ResponseError::UnknownMemberId)??;
        let ticket = self.append_for(id, &self.encoded(id, &decision.records))?;
        let answer = self.accept(id, decision).ok_or(ResponseError::UnknownMemberId)?;
        Ok(Answered { answer, stored: self.when_stored(id, ticket) })
    }

    fn answer_later<A: 'static>(
        self: &Rc<Self>,
        id: &str,
        waiter: Waiter,
        decided: Result<Answered<A>, ResponseError>,
        effect: impl FnOnce(Waiter, Result<A, ResponseError>) -> Effect + 'static,
    ) {
        match decided {
            Err(error) => self.answer(waiter, effect(waiter, Err(error))),
            Ok(Answered { answer, stored: None }) => self.answer(waiter, effect(waiter, Ok(answer))),
            Ok(answered) => {
                let (slice, id) = (Rc::clone(self), id.to_owned());
                self.tasks.spawn(async move {
                    let answer = answered.wait().await;
                    if let Err(error) = &answer {
                        warn!("group {id}: an answer is lost with its record: {error:?}");
                    }
                    slice.answer(waiter, effect(waiter, answer));
                });
            }
        }
    }

    /// When only members of the classic protocol are left, they go on by themselves, as far as the policy allows it.
    pub(super) fn downgrade(self: &Rc<Self>, id: &str) {
        let (settings, image) = (self.shared.settings(), self.shared.image());
        let env = Env::new(&image, &settings.consumer);
        let now_ms = self.now_ms();
        let changed = self.with_consumer(id, |group| {
            let downgraded = group.downgraded(&env, settings.limits.members_max, now_ms)?;
            let gone = group.gone();
            let mut records: Vec<_> = gone.iter().map(|record| store::of_consumer(id, record)).collect();
            records.push((Key::Group { group: id.to_owned() }, Some(self.stamped(downgraded.record.clone()).encode())));
            Some((downgraded, records))
        });
        let Some((Downgraded { record, rebalances }, records)) = changed.flatten() else { return };
        match self.append_for(id, &records) {
            Ok(ticket) => drop(self.when_stored(id, ticket)),
            Err(error) => return warn!("group {id} stays one of the new protocol: {error:?}"),
        }
        info!("group {id} is one of the classic protocol from now on");
        if let Some(entry) = self.groups.borrow_mut().get_mut(id) {
            let group = classic::Group::restored(settings.limits, &record, now_ms);
            entry.change_to(Kind::Classic(Box::new(group)), self.number());
        }
        self.rearm(id);
        if rebalances {
            self.feed(id, Event::Rebalance);
        }
    }
}
