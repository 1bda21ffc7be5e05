//! Members, a network that loses and delays, and a coordinator that crashes: whatever happens, no partition has two owners in one
//! generation, nobody commits for what is not its own, who asks is answered once or is known to wait, and in the end everybody has its part.

use super::super::*;
use crate::base::seeds::{are_all, each_seed, seeds};
use fastrand::Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

const SEEDS: u64 = 150;
/// One seed of so many has up to `MANY` members.
const MANY_EVERY: u64 = 30;
const MANY: usize = 100;
const PARTITIONS: u8 = 120;
const SESSION_MS: i32 = 10_000;
/// Of static members: they may be gone for longer than a rebalance takes.
const STATIC_SESSION_MS: i32 = 45_000;
const REBALANCE_MS: i32 = 15_000;
const REQUEST_TIMEOUT_MS: i64 = 30_000;

pub fn limits() -> Limits {
    Limits { members_max: usize::MAX, session_min_ms: 6_000, session_max_ms: 1_800_000, initial_delay_ms: 3_000 }
}

/// What a client does next.
#[derive(Clone, Debug, PartialEq)]
enum Doing {
    Idle,
    Joining,
    Syncing { leads: Option<Vec<JoinedMember>> },
    Working { owns: Vec<u8> },
}

struct Client {
    member_id: String,
    instance_id: Option<String>,
    generation: i32,
    doing: Doing,
    /// The request under way and when it is given up.
    waits: Option<(Waiter, i64)>,
    next_beat_ms: i64,
    /// Hung until then: it sends nothing and hears nothing.
    paused_until_ms: i64,
    wants_in: bool,
}

/// On its way to the coordinator.
#[derive(Clone)]
enum Sent {
    Asked(Event),
    /// The member commits for what it owns, and says who it is.
    Commit {
        owner: String,
        owns: Vec<u8>,
        claim: MemberClaim,
    },
}

struct Sim {
    rng: Rng,
    now_ms: i64,
    group: Group,
    /// What the log has, and what may yet get there.
    log: Option<GroupRecord>,
    storing: Vec<(Ticket, GroupRecord, i64)>,
    clients: Vec<Client>,
    /// Who asked; an answer may come once.
    open: BTreeMap<Waiter, usize>,
    /// Of these, whose asking has come to the group.
    heard: BTreeSet<Waiter>,
    to_broker: Vec<(i64, Sent)>,
    to_client: Vec<(i64, usize, Waiter, Effect)>,
    next: u64,
    loss: f64,
    /// Who was given each partition, by generation.
    given: BTreeMap<(i32, u8), String>,
    /// The newest generation that gave out each partition.
    newest: BTreeMap<u8, i32>,
    commits: usize,
    generation_seen: i32,
    /// Errors that were answered, and replacements that were stored: what the run went through.
    met: HashSet<String>,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut rng = Rng::with_seed(seed);
        let at_most = if seed % MANY_EVERY == MANY_EVERY - 1 { MANY } else { 11 };
        let clients = (0..rng.usize(1..=at_most)).map(|number| Client {
            member_id: String::new(),
            instance_id: (number % 4 == 1).then(|| format!("static-{number}")),
            generation: -1,
            doing: Doing::Idle,
            waits: None,
            next_beat_ms: 0,
            paused_until_ms: 0,
            wants_in: true,
        });
        let clients = clients.collect();
        Sim {
            loss: if rng.bool() { 0.0 } else { 0.05 },
            rng,
            now_ms: 1_000,
            group: Group::new(limits(), 1_000),
            log: None,
            storing: Vec::new(),
            clients,
            open: BTreeMap::new(),
            heard: BTreeSet::new(),
            to_broker: Vec::new(),
            to_client: Vec::new(),
            next: 0,
            given: BTreeMap::new(),
            newest: BTreeMap::new(),
            commits: 0,
            generation_seen: 0,
            met: HashSet::new(),
        }
    }

    fn run(mut self) -> HashSet<String> {
        for _ in 0..1_500 {
            self.advance(true);
        }
        // Calm: no losses, no pauses, no crashes. Everybody who wants in gets in.
        self.loss = 0.0;
        for client in &mut self.clients {
            client.paused_until_ms = 0;
        }
        for _ in 0..3_000 {
            self.advance(false);
        }
        let mut owned: Vec<u8> = Vec::new();
        for client in &self.clients {
            match &client.doing {
                Doing::Working { owns } if client.wants_in => owned.extend(owns),
                doing => assert!(!client.wants_in, "{doing:?} of {} in {:?}", client.member_id, self.group),
            }
        }
        owned.sort_unstable();
        if self.clients.iter().any(|client| client.wants_in) {
            assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>());
            assert!(self.commits > 0, "members at work commit");
        }
        if self.storing.is_empty() {
            assert_eq!(self.heard, BTreeSet::new(), "nobody waits in a group at rest: {:?}", self.group);
        }
        self.met
    }

    fn advance(&mut self, trouble: bool) {
        self.now_ms += self.rng.i64(1..150);
        for at in 0..self.clients.len() {
            self.client_turn(at);
        }
        if trouble {
            self.trouble();
        }
        let now_ms = self.now_ms;
        for (_, sent) in self.to_broker.extract_if(.., |(at, _)| *at <= now_ms).collect::<Vec<_>>() {
            match sent {
                Sent::Asked(event) => self.feed(event),
                Sent::Commit { owner, owns, claim } => self.commit(&owner, &owns, &claim),
            }
        }
        let mut due: Vec<Event> = Vec::new();
        for (ticket, record, _) in self.storing.extract_if(.., |(_, _, at)| *at <= now_ms).collect::<Vec<_>>() {
            // The log is there before anybody is told.
            let fails = trouble && self.rng.u8(..) < 4;
            if !fails {
                self.log = Some(record);
            }
            due.push(Event::Stored(ticket, fails.then_some(ResponseError::NotLeaderOrFollower)));
        }
        for event in due {
            self.feed(event);
        }
        if self.group.next_deadline_ms().is_some_and(|deadline| deadline <= now_ms) {
            self.feed(Event::Tick);
            let next = self.group.next_deadline_ms();
            assert!(next.is_none_or(|next| next > now_ms), "a tick does all that is due: {next:?} at {now_ms}");
        }
        for (_, at, waiter, effect) in self.to_client.extract_if(.., |(at, ..)| *at <= now_ms).collect::<Vec<_>>() {
            self.hear(at, waiter, effect);
        }
    }

    fn trouble(&mut self) {
        let at = self.rng.usize(..self.clients.len());
        match self.rng.u16(..1_000) {
            0..5 => self.clients[at].paused_until_ms = self.now_ms + self.rng.i64(0..30_000),
            // Killed and started again: it knows nothing.
            5..10 => {
                let client = &mut self.clients[at];
                (client.member_id, client.generation, client.waits) = (String::new(), -1, None);
                client.doing = Doing::Idle;
            }
            10..14 => self.leave(at),
            14..18 => self.clients[at].wants_in = true,
            18..20 => self.crash(),
            _ => {}
        }
    }

    fn leave(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.wants_in = false;
        client.doing = Doing::Idle;
        client.waits = None;
        let leaving =
            Leaving { member_id: std::mem::take(&mut client.member_id), instance_id: client.instance_id.clone() };
        if !leaving.member_id.is_empty() || leaving.instance_id.is_some() {
            let waiter = self.waiter(at);
            self.send(Event::Leave(waiter, vec![leaving]));
        }
    }

    /// The coordinator starts anew from the log, in which the record under way may or may not be.
    fn crash(&mut self) {
        self.open.clear();
        self.heard.clear();
        self.to_client.clear();
        self.to_broker.clear();
        for (_, record, _) in std::mem::take(&mut self.storing) {
            if self.rng.bool() {
                self.log = Some(record);
            }
        }
        self.group = match &self.log {
            Some(record) => Group::restored(limits(), record, self.now_ms),
            None => Group::new(limits(), self.now_ms),
        };
        assert!(
            self.group.generation() >= self.generation_seen,
            "a generation that was given out is never given out again"
        );
    }

    fn waiter(&mut self, at: usize) -> Waiter {
        self.next += 1;
        self.open.insert(Waiter(self.next), at);
        Waiter(self.next)
    }

    fn send(&mut self, event: Event) {
        if self.rng.f64() >= self.loss {
            let at = self.now_ms + self.rng.i64(0..50);
            self.to_broker.push((at, Sent::Asked(event)));
        }
    }

    fn feed(&mut self, event: Event) {
        match &event {
            Event::Join(waiter, _) | Event::Sync(waiter, _) | Event::Heartbeat(waiter, _) | Event::Leave(waiter, _) => {
                self.heard.insert(*waiter);
            }
            Event::Stored(..) | Event::Tick | Event::Ended(_) | Event::Rebalance => {}
        }
        for effect in self.group.step(self.now_ms, event) {
            let waiter = match &effect {
                Effect::Store(ticket, record) => {
                    let at = self.now_ms + self.rng.i64(0..200);
                    self.storing.push((*ticket, record.clone(), at));
                    continue;
                }
                Effect::Joined(waiter, _)
                | Effect::Synced(waiter, _)
                | Effect::Beaten(waiter, _)
                | Effect::Left(waiter, _) => *waiter,
            };
            if let Effect::Joined(_, JoinAnswer { error: Some(error), .. })
            | Effect::Synced(_, SyncAnswer { error: Some(error), .. })
            | Effect::Beaten(_, Some(error)) = &effect
            {
                self.met.insert(format!("{error:?}"));
            }
            let Some(at) = self.open.remove(&waiter) else {
                panic!("{waiter:?} is answered twice, or was never there: {effect:?}")
            };
            self.heard.remove(&waiter);
            if let Effect::Synced(_, SyncAnswer { error: None, assignment, .. }) = &effect {
                self.generation_seen = self.generation_seen.max(self.group.generation());
                for partition in assignment {
                    let owner = self.owner(at);
                    let before = self.given.insert((self.group.generation(), *partition), owner.clone());
                    assert!(before.is_none_or(|before| before == owner), "two owners of {partition}");
                    self.newest.insert(*partition, self.group.generation());
                }
            }
            if self.rng.f64() >= self.loss {
                let due = self.now_ms + self.rng.i64(0..50);
                self.to_client.push((due, at, waiter, effect));
            }
        }
        let waiting: BTreeSet<Waiter> = self.group.waiters().collect();
        assert_eq!(waiting, self.heard, "whose asking has come and who has no answer is known to wait");
    }

    /// By which a member that comes back is known, too.
    fn owner(&self, at: usize) -> String {
        self.clients[at].instance_id.clone().unwrap_or_else(|| format!("client {at}"))
    }

    fn claim(&self, at: usize) -> MemberClaim {
        let client = &self.clients[at];
        let (member_id, instance_id) = (client.member_id.clone(), client.instance_id.clone());
        MemberClaim { generation: client.generation, member_id, instance_id }
    }

    fn client_turn(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.paused_until_ms > self.now_ms || !client.wants_in {
            return;
        }
        if let Some((waiter, until_ms)) = client.waits {
            if until_ms > self.now_ms {
                return;
            }
            // Timed out: the connection is closed, and everything begins again.
            self.to_client.retain(|(_, _, other, _)| *other != waiter);
            client.waits = None;
            client.doing = Doing::Idle;
        }
        let doing = client.doing.clone();
        match doing {
            Doing::Idle | Doing::Joining => self.send_join(at),
            Doing::Syncing { leads } => {
                let assignments = leads.map(assign).unwrap_or_default();
                let (waiter, claim) = (self.waiter(at), self.claim(at));
                self.clients[at].waits = Some((waiter, self.now_ms + REQUEST_TIMEOUT_MS));
                self.send(Event::Sync(waiter, SyncRequest { claim, protocol_type: None, protocol: None, assignments }));
            }
            Doing::Working { .. } if client.next_beat_ms <= self.now_ms => {
                client.next_beat_ms = self.now_ms + 3_000;
                self.send_commit(at);
                let (waiter, claim) = (self.waiter(at), self.claim(at));
                self.send(Event::Heartbeat(waiter, claim));
            }
            Doing::Working { .. } => {}
        }
    }

    fn send_commit(&mut self, at: usize) {
        let (owner, claim) = (self.owner(at), self.claim(at));
        if let Doing::Working { owns } = &self.clients[at].doing {
            let sent = Sent::Commit { owner, owns: owns.clone(), claim };
            // Now and then one is held up for longer than a rebalance takes.
            let longest_ms = if self.rng.u8(..) < 8 { 20_000 } else { 50 };
            self.to_broker.push((self.now_ms + self.rng.i64(0..longest_ms), sent));
        }
    }

    /// What is allowed is for partitions that were given to this very owner, and to nobody since.
    fn commit(&mut self, owner: &String, owns: &[u8], claim: &MemberClaim) {
        if let Err(error) = self.group.may_commit(self.now_ms, claim) {
            self.met.insert(format!("commit {error:?}"));
            return;
        }
        self.commits += 1;
        for partition in owns {
            assert_eq!(self.given.get(&(claim.generation, *partition)), Some(owner), "{partition} by {claim:?}");
            assert_eq!(self.newest.get(partition), Some(&claim.generation), "{partition} was given out since");
        }
    }

    fn send_join(&mut self, at: usize) {
        let waiter = self.waiter(at);
        let fresh_id = format!("member-{}", self.next);
        let client = &mut self.clients[at];
        client.doing = Doing::Joining;
        // Longer than any rebalance.
        client.waits = Some((waiter, self.now_ms + 2 * REQUEST_TIMEOUT_MS));
        let request = JoinRequest {
            member_id: client.member_id.clone(),
            fresh_id,
            instance_id: client.instance_id.clone(),
            client_id: format!("client-{at}"),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: if client.instance_id.is_some() { STATIC_SESSION_MS } else { SESSION_MS },
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: CONSUMER.to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
            requires_known_id: true,
            can_skip_assignment: at.is_multiple_of(2),
        };
        self.send(Event::Join(waiter, request));
    }

    fn hear(&mut self, at: usize, waiter: Waiter, effect: Effect) {
        let client = &mut self.clients[at];
        if client.paused_until_ms > self.now_ms {
            let until_ms = client.paused_until_ms;
            self.to_client.push((until_ms, at, waiter, effect));
            return;
        }
        let awaited = client.waits.is_some_and(|(awaited, _)| awaited == waiter);
        match effect {
            Effect::Joined(_, answer) if awaited => {
                client.waits = None;
                match answer.error {
                    None => {
                        client.member_id = answer.member_id.clone();
                        client.generation = answer.generation;
                        let leads = answer.leader.as_deref() == Some(&*answer.member_id) && !answer.skip_assignment;
                        client.doing = Doing::Syncing { leads: leads.then_some(answer.members) };
                    }
                    Some(ResponseError::MemberIdRequired) => client.member_id = answer.member_id,
                    Some(ResponseError::UnknownMemberId | ResponseError::FencedInstanceId) => client.member_id.clear(),
                    Some(_) => {}
                }
            }
            Effect::Synced(_, answer) if awaited => {
                client.waits = None;
                client.doing = Doing::Idle;
                match answer.error {
                    None => {
                        client.doing = Doing::Working { owns: answer.assignment.to_vec() };
                        client.next_beat_ms = self.now_ms;
                    }
                    Some(ResponseError::UnknownMemberId | ResponseError::FencedInstanceId) => client.member_id.clear(),
                    Some(_) => {}
                }
            }
            Effect::Beaten(_, Some(error)) if matches!(client.doing, Doing::Working { .. }) => {
                client.doing = Doing::Idle;
                if matches!(error, ResponseError::UnknownMemberId | ResponseError::FencedInstanceId) {
                    client.member_id.clear();
                }
            }
            _ => {}
        }
    }
}

/// Partitions in turn to everybody.
fn assign(members: Vec<JoinedMember>) -> Vec<(String, Bytes)> {
    let unique: HashSet<&str> = members.iter().map(|member| member.member_id.as_str()).collect();
    assert_eq!(unique.len(), members.len());
    let of =
        |at: usize| (0..PARTITIONS).filter(|partition| *partition as usize % members.len() == at).collect::<Vec<_>>();
    members.iter().enumerate().map(|(at, member)| (member.member_id.clone(), Bytes::from(of(at)))).collect()
}

#[test]
fn members_come_go_hang_and_the_coordinator_crashes() {
    let met = RefCell::new(HashSet::new());
    each_seed(SEEDS, |seed| met.borrow_mut().extend(Sim::new(seed).run()));
    let met = met.into_inner();
    let expected = [
        "UnknownMemberId",
        "IllegalGeneration",
        "RebalanceInProgress",
        "FencedInstanceId",
        "MemberIdRequired",
        "NotLeaderOrFollower",
        "commit IllegalGeneration",
        "commit UnknownMemberId",
    ];
    for error in expected {
        assert!(met.contains(error) || !are_all(&seeds(SEEDS), SEEDS), "{error} was never met: {met:?}");
    }
}
