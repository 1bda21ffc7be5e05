//! The coordinator, as it feeds the groups of both protocols, with a log that may lose what is not durable.

use super::*;
use crate::group::classic::{Effect, Event, GroupRecord, Ticket, Waiter};
use crate::group::coordinator::kind::Found;

#[derive(Clone, Debug)]
enum Entry {
    Consumer(Record),
    Classic(Option<GroupRecord>),
}

/// A request's client and number.
type From = (usize, u64);

pub struct Broker {
    pub kind: Kind,
    log: Vec<Entry>,
    /// So much of the log survives a crash.
    durable: usize,
    /// Records of a classic group that are on their way: how long the log is with them.
    storing: Vec<(usize, Ticket)>,
    /// Requests that a classic group has not answered.
    open: BTreeMap<Waiter, From>,
    /// Answers that wait for the log to be durable up to there.
    held: Vec<(usize, From, Answer)>,
    pub met: HashSet<String>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Classic(group) => group.fmt(f),
            Kind::Consumer(group) => group.fmt(f),
        }
    }
}

fn classic_limits() -> classic::Limits {
    classic::Limits {
        members_max: usize::MAX,
        session_min_ms: 6_000,
        session_max_ms: 1_800_000,
        initial_delay_ms: 3_000,
    }
}

fn empty(now_ms: i64) -> Kind {
    Kind::Classic(Box::new(classic::Group::new(classic_limits(), now_ms)))
}

impl Broker {
    pub fn new(now_ms: i64) -> Broker {
        Broker {
            kind: empty(now_ms),
            log: Vec::new(),
            durable: 0,
            storing: Vec::new(),
            open: BTreeMap::new(),
            held: Vec::new(),
            met: HashSet::new(),
        }
    }

    pub fn asked(&mut self, now_ms: i64, image: &ClusterImage, from: From, ask: Ask) {
        if let Some(answer) = self.ask(now_ms, image, from, ask) {
            self.hold(from, answer);
        }
    }

    fn hold(&mut self, from: From, answer: Answer) {
        if let Err(error) = &answer {
            self.met.insert(format!("{error:?}"));
        }
        self.held.push((self.log.len(), from, answer));
    }

    /// None: the answer comes later.
    fn ask(&mut self, now_ms: i64, image: &ClusterImage, from: From, ask: Ask) -> Option<Answer> {
        let limits = limits();
        let env = Env::new(image, &limits);
        if matches!(&ask, Ask::ClassicJoin(request) if request.member_id.is_empty()) {
            self.make_classic_if_empty(now_ms);
        }
        let waiter = Waiter(from.1);
        let group = match (&mut self.kind, &ask) {
            (_, Ask::Beat(request)) => return Some(self.heartbeat(now_ms, &env, request)),
            (Kind::Consumer(group), _) => group,
            (Kind::Classic(_), _) => {
                self.open.insert(waiter, from);
                let event = match ask {
                    Ask::Beat(_) => unreachable!("answered above"),
                    Ask::ClassicJoin(request) => Event::Join(waiter, request),
                    Ask::ClassicSync(request) => Event::Sync(waiter, request),
                    Ask::ClassicBeat(claim) => Event::Heartbeat(waiter, claim),
                    Ask::ClassicLeave(leaving) => Event::Leave(waiter, vec![leaving]),
                };
                self.feed(now_ms, image, event);
                return None;
            }
        };
        let answer = match &ask {
            Ask::Beat(_) => unreachable!("answered above"),
            Ask::ClassicJoin(request) => {
                let decision = group.join_classic(now_ms, &env, request).map_err(|(_, error)| error);
                decision.map(|decision| Told::Joined(self.take(decision)))
            }
            Ask::ClassicSync(request) => group.sync_classic(now_ms, &env, request).and_then(|decision| {
                let answer = self.take(decision);
                let named = subscription::read_assignment(&answer.assignment).expect("an assignment");
                answer.error.map_or(Ok(Told::Synced(of_names(&named, image), false)), Err)
            }),
            Ask::ClassicBeat(claim) => group
                .heartbeat_classic(now_ms, &env, claim)
                .and_then(|decision| self.take(decision).map_or(Ok(Told::Fine), Err)),
            Ask::ClassicLeave(leaving) => {
                let decision = group.leave_classic(&env, std::slice::from_ref(leaving));
                self.take(decision);
                Ok(Told::Fine)
            }
        };
        self.downgrade(now_ms, image);
        Some(answer)
    }

    fn heartbeat(&mut self, now_ms: i64, env: &Env<'_>, request: &Heartbeat) -> Answer {
        request.check(env.limits).expect("clients ask properly");
        let found = Found::by(Some(&self.kind), now_ms, env, request).map_err(|refusal| refusal.error)?;
        let wanted = found.group().patterns_wanted(now_ms, env, request);
        let matches = Matches::of(&wanted, env.image, || true);
        let env = Env { matches: &matches, ..*env };
        let decision = found.group().heartbeat(now_ms, &env, request).map_err(|refusal| refusal.error)?;
        if let Found::Made { group, records, .. } = found {
            if !records.is_empty() {
                self.met.insert("upgraded".to_owned());
            }
            self.log.push(Entry::Classic(None));
            self.log.extend(records.into_iter().map(Entry::Consumer));
            self.feed(now_ms, env.image, Event::Ended(ResponseError::RebalanceInProgress));
            self.storing.clear();
            self.kind = Kind::Consumer(group);
        }
        let beaten = self.take(decision);
        if request.epoch < JOINS {
            self.downgrade(now_ms, env.image);
        }
        Ok(Told::Beaten(beaten))
    }

    fn take<A>(&mut self, decision: Decision<A>) -> A {
        let Kind::Consumer(group) = &mut self.kind else { panic!("a decision about a group of the new protocol") };
        self.log.extend(decision.records.iter().cloned().map(Entry::Consumer));
        group.accept(decision)
    }

    fn make_classic_if_empty(&mut self, now_ms: i64) {
        if let Kind::Consumer(group) = &self.kind
            && group.is_empty()
        {
            self.log.extend(group.gone().into_iter().map(Entry::Consumer));
            self.kind = empty(now_ms);
            self.met.insert("became classic when empty".to_owned());
        }
    }

    fn downgrade(&mut self, now_ms: i64, image: &ClusterImage) {
        let limits = limits();
        let Kind::Consumer(group) = &self.kind else { return };
        let Some(downgraded) = group.downgraded(&Env::new(image, &limits), usize::MAX, now_ms) else { return };
        self.log.extend(group.gone().into_iter().map(Entry::Consumer));
        self.log.push(Entry::Classic(Some(downgraded.record.clone())));
        self.kind = Kind::Classic(Box::new(classic::Group::restored(classic_limits(), &downgraded.record, now_ms)));
        self.met.insert("downgraded".to_owned());
        if downgraded.rebalances {
            self.feed(now_ms, image, Event::Rebalance);
        }
    }

    fn feed(&mut self, now_ms: i64, image: &ClusterImage, event: Event) {
        let Kind::Classic(group) = &mut self.kind else { return };
        for effect in group.step(now_ms, event) {
            let (waiter, answer) = match effect {
                Effect::Store(ticket, record) => {
                    self.log.push(Entry::Classic(Some(record)));
                    self.storing.push((self.log.len(), ticket));
                    continue;
                }
                Effect::Joined(waiter, answer) => (waiter, answer.error.map_or(Ok(Told::Joined(answer)), Err)),
                Effect::Synced(waiter, answer) => {
                    let named = subscription::read_assignment(&answer.assignment).expect("an assignment");
                    (waiter, answer.error.map_or(Ok(Told::Synced(of_names(&named, image), true)), Err))
                }
                Effect::Beaten(waiter, error) => (waiter, error.map_or(Ok(Told::Fine), Err)),
                Effect::Left(waiter, _) => (waiter, Ok(Told::Fine)),
            };
            let from = self.open.remove(&waiter).expect("who asked is answered once");
            self.hold(from, answer);
        }
    }

    /// Members whose time is up go.
    pub fn time_passes(&mut self, now_ms: i64, image: &ClusterImage) {
        if self.kind.classic().and_then(classic::Group::next_deadline_ms).is_some_and(|at_ms| at_ms <= now_ms) {
            self.feed(now_ms, image, Event::Tick);
        }
        let limits = limits();
        while let Kind::Consumer(group) = &self.kind {
            let (gone, timers): (Vec<MemberId>, Vec<Timer>) = group.due(now_ms, 2).into_iter().unzip();
            if gone.is_empty() {
                break;
            }
            let decision = group.fence(&Env::new(image, &limits), &gone);
            self.met.extend(timers.iter().map(|timer| format!("{timer:?}")));
            self.take(decision);
            self.downgrade(now_ms, image);
        }
    }

    /// Answers that may go. With `is_stored` all that was appended is durable from now on.
    pub fn ready(&mut self, now_ms: i64, is_stored: bool, image: &ClusterImage) -> Vec<(usize, u64, Answer)> {
        if is_stored {
            self.durable = self.log.len();
            for (_, ticket) in std::mem::take(&mut self.storing) {
                self.feed(now_ms, image, Event::Stored(ticket, None));
            }
        }
        let durable = self.durable;
        let (ready, held) = std::mem::take(&mut self.held).into_iter().partition(|(needs, ..)| *needs <= durable);
        self.held = held;
        let ready: Vec<(usize, From, Answer)> = ready;
        ready.into_iter().map(|(_, (at, number), answer)| (at, number, answer)).collect()
    }

    /// Another coordinator takes over: it knows what is durable, and nobody has heard of anything else.
    pub fn crash(&mut self, now_ms: i64) {
        let is_whole = self.durable == self.log.len();
        self.log.truncate(self.durable);
        (self.held, self.open, self.storing) = (Vec::new(), BTreeMap::new(), Vec::new());
        let (mut classic, mut records) = (None, Vec::new());
        for entry in &self.log {
            match entry {
                Entry::Classic(record) => classic = record.clone(),
                Entry::Consumer(record) => records.push(record.clone()),
            }
        }
        let mut stored = Stored::default();
        records.iter().cloned().for_each(|record| stored.take(record));
        let found = match classic {
            _ if stored.exists() => Kind::Consumer(Box::new(reloaded(&records, now_ms))),
            Some(record) => Kind::Classic(Box::new(classic::Group::restored(classic_limits(), &record, now_ms))),
            None => empty(now_ms),
        };
        if is_whole {
            match (&found, &self.kind) {
                (Kind::Consumer(found), Kind::Consumer(group)) => {
                    assert_eq!((found.epoch, found.assignment_epoch), (group.epoch, group.assignment_epoch));
                    assert_eq!(found.members, group.members);
                    assert_eq!(found.targets, group.targets);
                    assert_eq!(found.owners, group.owners);
                    assert_eq!(found.topics, group.topics);
                }
                (found, kind) => assert_eq!(found.type_name(), kind.type_name()),
            }
        }
        self.kind = found;
    }

    /// How many wait for a classic group's answer.
    pub fn waiting(&self) -> usize {
        self.open.len()
    }

    /// Of which of these, by member id and epoch, a commit would be taken. To ask renews no session.
    pub fn may_commit<'c>(&self, now_ms: i64, claims: impl Iterator<Item = (&'c str, i32)>) -> Vec<bool> {
        match &self.kind {
            Kind::Consumer(group) => claims.map(|(id, epoch)| group.may_commit(id, epoch, true).is_ok()).collect(),
            Kind::Classic(group) => {
                let mut asked = group.as_ref().clone();
                let claim =
                    |id: &str, generation| MemberClaim { generation, member_id: id.to_owned(), instance_id: None };
                claims.map(|(id, epoch)| asked.may_commit(now_ms, &claim(id, epoch)).is_ok()).collect()
            }
        }
    }
}
