//! Members, a network that loses and delays, topics that change, and a coordinator that crashes: whatever happens, no partition has
//! two owners, nobody commits for a partition that is another's, and in the end everybody has what he is to have.

use super::super::classic_members::{names_of, of_names};
use super::super::member::{JOINS, LEAVES, LEAVES_FOR_A_WHILE};
use super::super::*;
use super::classic_stories::{request, subscription_of};
use super::{drop_topic, limits, reloaded, set_topic, topics};
use crate::base::seeds::{are_all, each_seed, seeds};
use crate::group::classic::{JoinRequest, MemberClaim, SyncRequest};
use crate::group::subscription;
use fastrand::Rng;
use std::cell::RefCell;
use std::collections::HashSet;

const SEEDS: u64 = 150;
const REQUEST_TIMEOUT_MS: i64 = 3_000;
const REBALANCE_MS: i32 = 20_000;
const BEAT_MS: i64 = 5_000;
const CHAOS_MS: i64 = 400_000;
const CALM_MS: i64 = 150_000;

struct Client {
    id: String,
    instance_id: Option<String>,
    epoch: i32,
    topics: Option<BTreeSet<String>>,
    regex: Option<String>,
    /// What it reads from.
    owned: Partitions,
    /// What it was told to have, and when it will have come to that.
    told: Option<(Partitions, i64)>,
    /// It tells everything with its next heartbeat.
    is_full: bool,
    reported: Partitions,
    waits: Option<(u64, i64)>,
    next_beat_ms: i64,
    paused_until_ms: i64,
    /// Not running until then.
    dead_until_ms: i64,
    leaves: Option<i32>,
    /// It speaks the classic protocol; with what it does next.
    classic: Option<Next>,
}

/// What a member of the classic protocol does next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    Join,
    Sync,
    Beat,
}

#[derive(Clone, Debug)]
enum Ask {
    Beat(Heartbeat),
    ClassicJoin(JoinRequest),
    ClassicSync(SyncRequest),
    ClassicBeat(MemberClaim),
}

enum Told {
    Beaten(Beaten),
    Joined(i32),
    Synced(Partitions),
    Fine,
}

type Answer = Result<Told, ResponseError>;

struct Sim {
    rng: Rng,
    now_ms: i64,
    image: ClusterImage,
    group: Group,
    log: Vec<Record>,
    /// So much of the log survives a crash.
    durable: usize,
    clients: Vec<Client>,
    to_broker: Vec<(i64, usize, u64, Ask)>,
    /// Answers that wait for the log to be durable up to there.
    held: Vec<(usize, usize, u64, Answer)>,
    to_client: Vec<(i64, usize, u64, Answer)>,
    next: u64,
    is_chaos: bool,
    loss: f64,
    met: HashSet<String>,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut rng = Rng::with_seed(seed);
        let mut image = ClusterImage::default();
        for (name, id) in [("a", 1), ("b", 2), ("c", 3)] {
            set_topic(&mut image, name, id, rng.usize(1..9));
        }
        let loss = rng.f64() * 0.2;
        let clients = (0..rng.usize(2..7)).map(|at| Client {
            id: format!("{at}-{}", rng.u32(..)),
            instance_id: (rng.f64() < 0.4).then(|| format!("instance-{at}")),
            epoch: JOINS,
            topics: Some(topics(&["a", "b", "c"][..rng.usize(1..4)])),
            regex: (rng.f64() < 0.2).then(|| "[a-b]".to_owned()),
            owned: Partitions::new(),
            told: None,
            is_full: true,
            reported: Partitions::new(),
            waits: None,
            next_beat_ms: rng.i64(0..10_000),
            paused_until_ms: 0,
            dead_until_ms: 0,
            leaves: None,
            classic: (at > 0 && rng.f64() < 0.3).then_some(Next::Join),
        });
        let as_classic = |client: Client| match client.classic {
            Some(_) => Client { instance_id: None, regex: None, ..client },
            None => client,
        };
        let clients = clients.map(as_classic).collect();
        Sim {
            rng,
            now_ms: 0,
            image,
            group: Group::default(),
            log: Vec::new(),
            durable: 0,
            clients,
            to_broker: Vec::new(),
            held: Vec::new(),
            to_client: Vec::new(),
            next: 0,
            is_chaos: true,
            loss,
            met: HashSet::new(),
        }
    }

    fn run(mut self) -> HashSet<String> {
        while self.now_ms < CHAOS_MS {
            self.mishap();
            self.step();
        }
        (self.is_chaos, self.loss) = (false, 0.0);
        for client in &mut self.clients {
            (client.paused_until_ms, client.dead_until_ms) = (self.now_ms, client.dead_until_ms.min(self.now_ms));
        }
        while self.now_ms < CHAOS_MS + CALM_MS {
            self.step();
        }
        self.check_end();
        self.met
    }

    fn step(&mut self) {
        self.now_ms += self.rng.i64(20..400);
        self.serve();
        if self.rng.f64() < 0.5 {
            self.durable = self.log.len();
        }
        let durable = self.durable;
        let (ready, held) = std::mem::take(&mut self.held).into_iter().partition(|(needs, ..)| *needs <= durable);
        self.held = held;
        let ready: Vec<(usize, usize, u64, Answer)> = ready;
        for (_, at, number, answer) in ready {
            let until_ms = self.now_ms + self.rng.i64(0..500);
            if self.rng.f64() >= self.loss {
                self.to_client.push((until_ms, at, number, answer));
            }
        }
        self.deliver();
        for at in 0..self.clients.len() {
            self.act(at);
        }
        self.check_commits();
    }

    /// What is due at the broker: requests that have come, members whose time is up.
    fn serve(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) = std::mem::take(&mut self.to_broker).into_iter().partition(|(at_ms, ..)| *at_ms <= now_ms);
        self.to_broker = later;
        let due: Vec<(i64, usize, u64, Ask)> = due;
        let limits = limits();
        for (_, at, number, ask) in due {
            let answer = self.ask(&limits, &ask);
            if let Err(error) = &answer {
                self.met.insert(format!("{error:?}"));
            }
            self.held.push((self.log.len(), at, number, answer));
        }
        loop {
            let (gone, timers): (Vec<MemberId>, Vec<Timer>) = self.group.due(now_ms, 2).into_iter().unzip();
            if gone.is_empty() {
                break;
            }
            self.met.extend(timers.iter().map(|timer| format!("{timer:?}")));
            let env = Env::new(&self.image, &limits);
            let decision = self.group.fence(&env, &gone);
            self.log.extend(decision.records.iter().cloned());
            self.group.accept(decision);
        }
    }

    fn ask(&mut self, limits: &Limits, ask: &Ask) -> Answer {
        let (now_ms, image) = (self.now_ms, self.image.clone());
        let env = Env::new(&image, limits);
        match ask {
            Ask::Beat(request) => {
                request.check(limits).expect("clients ask properly");
                let wanted = self.group.patterns_wanted(now_ms, &env, request);
                let matches = Matches::of(&wanted, &image, || true);
                let env = Env { matches: &matches, ..env };
                let decision = self.group.heartbeat(now_ms, &env, request).map_err(|refusal| refusal.error)?;
                Ok(Told::Beaten(self.take(decision)))
            }
            Ask::ClassicJoin(request) => {
                let decision = self.group.join_classic(now_ms, &env, request);
                let decision = decision.map_err(|(_, error)| error)?;
                Ok(Told::Joined(self.take(decision).generation))
            }
            Ask::ClassicSync(request) => {
                let decision = self.group.sync_classic(now_ms, &env, request)?;
                let answer = self.take(decision);
                let named = subscription::read_assignment(&answer.assignment).expect("an assignment");
                answer.error.map_or(Ok(Told::Synced(of_names(&named, &image))), Err)
            }
            Ask::ClassicBeat(claim) => {
                let decision = self.group.heartbeat_classic(now_ms, &env, claim)?;
                self.take(decision).map_or(Ok(Told::Fine), Err)
            }
        }
    }

    fn take<A>(&mut self, decision: Decision<A>) -> A {
        self.log.extend(decision.records.iter().cloned());
        self.group.accept(decision)
    }

    fn mishap(&mut self) {
        let (now_ms, at) = (self.now_ms, self.rng.usize(0..self.clients.len()));
        match self.rng.u32(0..700) {
            0 | 1 => self.crash(),
            2..5 => self.clients[at].paused_until_ms = now_ms + self.rng.i64(0..90_000),
            5..8 => {
                let until_ms = now_ms + self.rng.i64(0..60_000);
                self.end(at, until_ms);
            }
            8..12 => {
                let is_static = self.clients[at].instance_id.is_some();
                let leaves = if is_static && self.rng.bool() { LEAVES_FOR_A_WHILE } else { LEAVES };
                self.clients[at].leaves = Some(leaves);
            }
            12 | 13 => {
                let name = *self.rng.choice(&["a", "b", "c"]).expect("some");
                // No topic gets the id of one that was deleted.
                let fresh = (self.rng.u128(10..), 1);
                let known = self.image.topic(name).map(|topic| (topic.id.0.as_u128(), topic.partitions.len() + 1));
                let (id, more) = known.unwrap_or(fresh);
                set_topic(&mut self.image, name, id, more.min(12));
            }
            14 => drop_topic(&mut self.image, "c"),
            15 => {
                let id = self.rng.u128(10..);
                drop_topic(&mut self.image, "b");
                set_topic(&mut self.image, "b", id, self.rng.clone().usize(1..6));
            }
            16 | 17 => {
                let some = self.rng.usize(1..4);
                let client = &mut self.clients[at];
                client.topics = Some(topics(&["c", "b", "a"][..some]));
                client.is_full = true;
                if let Some(next) = &mut client.classic {
                    *next = Next::Join;
                } else {
                    let regex = self.rng.bool().then(|| self.rng.choice(["", "[ac]", ".*"]).expect("some"));
                    client.regex = Some(regex.unwrap_or_default().to_owned());
                }
            }
            _ => {}
        }
    }

    /// Another coordinator takes over: it knows what is durable, and nobody has heard of anything else.
    fn crash(&mut self) {
        let is_whole = self.durable == self.log.len();
        self.log.truncate(self.durable);
        self.held.clear();
        let found = reloaded(&self.log, self.now_ms);
        if is_whole {
            assert_eq!((found.epoch, found.assignment_epoch), (self.group.epoch, self.group.assignment_epoch));
            assert_eq!(found.members, self.group.members);
            assert_eq!(found.targets, self.group.targets);
            assert_eq!(found.owners, self.group.owners);
            assert_eq!(found.topics, self.group.topics);
        }
        self.group = found;
    }

    /// The process ends, and another one takes its place, under another id.
    fn end(&mut self, at: usize, until_ms: i64) {
        let id = format!("{at}-{}", self.rng.u32(..));
        let client = &mut self.clients[at];
        (client.id, client.epoch, client.is_full) = (id, JOINS, true);
        (client.owned, client.told, client.waits) = (Partitions::new(), None, None);
        (client.reported, client.leaves) = (Partitions::new(), None);
        client.classic = client.classic.map(|_| Next::Join);
        (client.dead_until_ms, client.next_beat_ms) = (until_ms, until_ms);
        self.to_broker.retain(|(_, of, ..)| *of != at);
    }

    fn act(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let client = &mut self.clients[at];
        if now_ms < client.paused_until_ms || now_ms < client.dead_until_ms {
            return;
        }
        // Not while a heartbeat is under way that tells of less: the broker might take what has just come for given up. (The protocol
        // leaves that window to clients; who is in it has an answer on its way that tells it to give that up again.)
        let is_quiet = client.waits.is_none_or(|(_, until_ms)| until_ms <= now_ms);
        if let Some((told, _)) = client.told.take_if(|(_, until_ms)| *until_ms <= now_ms && is_quiet) {
            client.owned = told;
            client.next_beat_ms = now_ms;
        }
        if client.waits.is_some_and(|(_, until_ms)| until_ms <= now_ms) {
            // The connection is closed: what has not come to the broker by now never will.
            client.waits = None;
            client.is_full = true;
            client.classic = client.classic.map(|_| Next::Join);
            self.to_broker.retain(|(_, of, ..)| *of != at);
        }
        let client = &mut self.clients[at];
        if let Some(leaves) = client.leaves {
            if client.classic.is_none() {
                self.send(at, leaves);
            }
            return self.end(at, now_ms + 1_000);
        }
        if client.waits.is_some() || now_ms < client.next_beat_ms {
            return;
        }
        match client.classic {
            None => self.send(at, self.clients[at].epoch),
            Some(next) => self.send_classic(at, next),
        }
    }

    fn send_classic(&mut self, at: usize, next: Next) {
        let client = &mut self.clients[at];
        // It joins with what it has once it has come to what it was told.
        let next = if next == Next::Join && client.told.is_some() { Next::Beat } else { next };
        let claim = MemberClaim { generation: client.epoch, member_id: client.id.clone(), instance_id: None };
        let ask = match next {
            Next::Beat => Ask::ClassicBeat(claim),
            Next::Sync => {
                Ask::ClassicSync(SyncRequest { claim, protocol_type: None, protocol: None, assignments: Vec::new() })
            }
            Next::Join => {
                let names: Vec<&str> = client.topics.iter().flatten().map(String::as_str).collect();
                let owned = names_of(&client.owned, &self.image);
                let metadata = subscription_of(&names, &owned);
                Ask::ClassicJoin(JoinRequest {
                    protocols: vec![("range".to_owned(), metadata)],
                    session_timeout_ms: 20_000,
                    requires_known_id: false,
                    ..request(&client.id, &[])
                })
            }
        };
        client.next_beat_ms = self.now_ms + BEAT_MS;
        self.post(at, ask);
    }

    /// Puts a request on its way, or loses it.
    fn post(&mut self, at: usize, ask: Ask) {
        self.clients[at].waits = Some((self.next, self.now_ms + REQUEST_TIMEOUT_MS));
        let until_ms = self.now_ms + self.rng.i64(0..500);
        if self.rng.f64() >= self.loss {
            self.to_broker.push((until_ms, at, self.next, ask));
        }
        self.next += 1;
    }

    fn send(&mut self, at: usize, epoch: i32) {
        let now_ms = self.now_ms;
        let client = &mut self.clients[at];
        let has_news = client.owned != client.reported || client.is_full;
        let request = Heartbeat {
            member_id: client.id.clone(),
            epoch,
            instance_id: client.instance_id.clone(),
            rebalance_timeout_ms: client.is_full.then_some(REBALANCE_MS),
            topics: client.topics.clone().filter(|_| client.is_full),
            regex: client.regex.clone().filter(|_| client.is_full),
            owned: has_news.then(|| client.owned.clone()),
            client_host: "/127.0.0.1".to_owned(),
            ..Heartbeat::default()
        };
        client.reported = client.owned.clone();
        client.is_full = false;
        client.next_beat_ms = now_ms + BEAT_MS;
        if epoch >= JOINS {
            return self.post(at, Ask::Beat(request));
        }
        // A request that leaves goes out with the connection: it comes soon or not at all.
        if self.rng.f64() >= self.loss {
            self.to_broker.push((now_ms, at, self.next, Ask::Beat(request)));
            self.next += 1;
            self.serve();
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) = std::mem::take(&mut self.to_client).into_iter().partition(|(at_ms, ..)| *at_ms <= now_ms);
        self.to_client = later;
        let due: Vec<(i64, usize, u64, Answer)> = due;
        for (_, at, number, answer) in due {
            let client = &mut self.clients[at];
            if client.paused_until_ms > now_ms {
                self.to_client.push((client.paused_until_ms, at, number, answer));
                continue;
            }
            if client.waits.is_none_or(|(awaited, _)| awaited != number) {
                continue;
            }
            client.waits = None;
            match answer {
                Ok(Told::Fine) => {}
                Ok(Told::Joined(generation)) => {
                    (client.epoch, client.classic, client.next_beat_ms) = (generation, Some(Next::Sync), now_ms);
                }
                Ok(Told::Synced(assignment)) => {
                    client.classic = Some(Next::Beat);
                    client.told = Some((assignment, now_ms + self.rng.i64(0..2_000)));
                }
                Err(ResponseError::RebalanceInProgress) => {
                    (client.classic, client.next_beat_ms) = (Some(Next::Join), now_ms + 100);
                }
                Ok(Told::Beaten(beaten)) => {
                    client.epoch = beaten.epoch;
                    if let Some(assignment) = beaten.assignment {
                        // To give up partitions takes its time, now and then too much.
                        let is_slow = self.is_chaos && self.rng.f64() < 0.05;
                        let takes_ms = if is_slow { self.rng.i64(0..40_000) } else { self.rng.i64(0..2_000) };
                        client.told = Some((assignment, now_ms + takes_ms));
                    }
                }
                Err(ResponseError::FencedInstanceId) => {
                    self.end(at, now_ms + 1_000);
                }
                Err(error) => {
                    let is_hopeless = error == ResponseError::UnreleasedInstanceId;
                    client.classic = client.classic.map(|_| Next::Join);
                    client.next_beat_ms = now_ms + if is_hopeless { 2_000 } else { 100 };
                    (client.epoch, client.is_full) = (JOINS, true);
                    (client.owned, client.told, client.reported) = (Partitions::new(), None, Partitions::new());
                }
            }
        }
    }

    /// Whoever may commit reads from nothing that is another's.
    fn check_commits(&self) {
        for client in self.clients.iter().filter(|client| client.epoch > JOINS) {
            if self.group.may_commit(&client.id, client.epoch, true).is_err() {
                continue;
            }
            // A member of the classic protocol knows topics by name alone: it cannot say that it still has one that another of that
            // name has taken the place of, and so nobody keeps it for that member. Nobody else can be given it either.
            let is_gone = |topic: &TopicId| client.classic.is_some() && self.image.topic_by_id(*topic).is_none();
            for (topic, partitions) in client.owned.iter().filter(|(topic, _)| !is_gone(topic)) {
                for partition in partitions {
                    let owner = self.group.owners.get(&(*topic, *partition));
                    assert_eq!(owner.map(|id| &**id), Some(&*client.id), "{topic} {partition}, {:?}", self.group);
                }
            }
        }
    }

    fn check_end(&self) {
        assert_eq!(self.group.state(), State::Stable, "{:?}", self.group);
        assert_eq!(self.group.members.len(), self.clients.len());
        let mut owned = 0;
        let mut wanted = BTreeSet::new();
        for client in &self.clients {
            assert_eq!(self.group.target(&client.id), Some(&client.owned), "{:?}", self.group);
            assert_eq!(client.epoch, self.group.epoch);
            owned += client.owned.values().map(BTreeSet::len).sum::<usize>();
            wanted.extend(client.topics.iter().flatten().cloned());
            let regex = client.regex.as_deref().filter(|regex| !regex.is_empty());
            if let Some(regex) = regex {
                match Matches::of(&[regex.to_owned()], &self.image, || true).get(regex) {
                    Some(pattern::Match::Topics(topics)) => wanted.extend(topics.iter().cloned()),
                    other => panic!("{other:?}"),
                }
            }
        }
        let all = wanted.iter().filter_map(|name| self.image.topic(name)).map(|topic| topic.partitions.len());
        assert_eq!(owned, all.sum::<usize>(), "every partition has an owner");
    }
}

#[test]
fn members_come_go_hang_and_the_coordinator_crashes() {
    let met = RefCell::new(HashSet::new());
    each_seed(SEEDS, |seed| met.borrow_mut().extend(Sim::new(seed).run()));
    let met = met.into_inner();
    let expected =
        ["UnknownMemberId", "FencedMemberEpoch", "UnreleasedInstanceId", "RebalanceInProgress", "Session", "Rebalance"];
    for error in expected {
        assert!(met.contains(error) || !are_all(&seeds(SEEDS), SEEDS), "{error} was never met: {met:?}");
    }
}
