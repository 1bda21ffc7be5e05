//! Members, a network that loses and delays, topics that change, members that change their protocol, and a coordinator that crashes:
//! whatever happens, no partition has two owners, nobody commits for a partition that is another's, and in the end everybody has what he is to
//! have. The group goes from one protocol to the other with its members, and back.

mod broker;
mod members;

use super::super::classic_members::{names_of, of_names};
use super::super::member::{JOINS, LEAVES, LEAVES_FOR_A_WHILE};
use super::super::*;
use super::classic_stories::{request, subscription_of};
use super::{drop_topic, limits, reloaded, set_topic, topics};
use crate::base::seeds::{are_all, each_seed, seeds};
use crate::group::classic::{self, JoinAnswer, JoinRequest, JoinedMember, Leaving, MemberClaim, SyncRequest};
use crate::group::coordinator::kind::Kind;
use crate::group::subscription;
use broker::Broker;
use fastrand::Rng;
use std::cell::RefCell;
use std::collections::HashSet;

const SEEDS: u64 = 150;
/// One seed of so many has up to `MANY` members.
const MANY_EVERY: u64 = 75;
const MANY: usize = 100;
const REQUEST_TIMEOUT_MS: i64 = 3_000;
/// Of JoinGroup: longer than any rebalance.
const JOIN_TIMEOUT_MS: i64 = 30_000;
const REBALANCE_MS: i32 = 20_000;
const BEAT_MS: i64 = 5_000;
const CHAOS_MS: i64 = 400_000;
const CALM_MS: i64 = 200_000;

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
    /// It speaks the classic protocol.
    classic: Option<Classic>,
}

/// A member of the classic protocol.
#[derive(Clone, Debug, Default)]
struct Classic {
    next: Next,
    /// Its id is one that the coordinator gave it.
    is_known: bool,
    /// It leads its generation, which has these members.
    members: Option<Vec<JoinedMember>>,
    /// The topics that it shared out as the leader.
    shared: Option<Vec<(String, TopicId, usize)>>,
}

/// What a member of the classic protocol does next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Next {
    #[default]
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
    ClassicLeave(Leaving),
}

enum Told {
    Beaten(Beaten),
    Joined(JoinAnswer),
    /// What it has, and whether a leader has shared that out.
    Synced(Partitions, bool),
    Fine,
}

type Answer = Result<Told, ResponseError>;

struct Sim {
    rng: Rng,
    now_ms: i64,
    image: ClusterImage,
    broker: Broker,
    clients: Vec<Client>,
    to_broker: Vec<(i64, usize, u64, Ask)>,
    to_client: Vec<(i64, usize, u64, Answer)>,
    next: u64,
    is_chaos: bool,
    loss: f64,
    partitions_max: usize,
    met: HashSet<String>,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut rng = Rng::with_seed(seed);
        let mut image = ClusterImage::default();
        let is_many = seed % MANY_EVERY == MANY_EVERY - 1;
        let (members_max, partitions_max) = if is_many { (MANY, 100) } else { (6, 12) };
        for (name, id) in [("a", 1), ("b", 2), ("c", 3)] {
            set_topic(&mut image, name, id, rng.usize(1..partitions_max * 3 / 4));
        }
        let loss = rng.f64() * 0.2;
        let of_classic = *rng.choice(&[0.0, 0.3, 0.7, 1.0]).expect("some");
        let clients = (0..rng.usize(2..=members_max)).map(|at| Client {
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
            classic: (rng.f64() < of_classic).then(Classic::default),
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
            broker: Broker::new(0),
            clients,
            to_broker: Vec::new(),
            to_client: Vec::new(),
            next: 0,
            is_chaos: true,
            loss,
            partitions_max,
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
        self.met.extend(self.broker.met);
        self.met
    }

    fn step(&mut self) {
        self.now_ms += self.rng.i64(20..400);
        self.serve();
        let is_stored = self.rng.f64() < 0.5;
        for (at, number, answer) in self.broker.ready(self.now_ms, is_stored, &self.image) {
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
        for (_, at, number, ask) in due {
            self.broker.asked(now_ms, &self.image, (at, number), ask);
        }
        self.broker.time_passes(now_ms, &self.image);
    }

    /// Whoever may commit reads from nothing that is another's: neither the group nor any other member takes it for his.
    fn check_commits(&mut self) {
        let mut readers: BTreeMap<(TopicId, i32), &str> = BTreeMap::new();
        let joined: Vec<&Client> = self.clients.iter().filter(|client| client.epoch > JOINS).collect();
        let may = self.broker.may_commit(self.now_ms, joined.iter().map(|client| (&*client.id, client.epoch)));
        for client in joined.into_iter().zip(may).filter_map(|(client, may)| may.then_some(client)) {
            // A member of the classic protocol knows topics by name alone: it cannot say that it still has one that another of that
            // name has taken the place of, and so nobody keeps it for that member. Nobody else can be given it either. Nor can a partition
            // that the old one had, and the new one has not.
            let count = |topic: &TopicId| self.image.topic_by_id(*topic).map_or(0, |topic| topic.partitions.len());
            for (topic, partitions) in &client.owned {
                let is_there = |one: &&i32| client.classic.is_none() || (**one as usize) < count(topic);
                for partition in partitions.iter().filter(is_there) {
                    let other = readers.insert((*topic, *partition), &client.id);
                    assert_eq!(other, None, "{topic} {partition} is read by {}, too: {:?}", client.id, self.broker);
                    if let Kind::Consumer(group) = &self.broker.kind {
                        let owner = group.owners.get(&(*topic, *partition));
                        assert_eq!(owner.map(|id| &**id), Some(&*client.id), "{topic} {partition}, {group:?}");
                    }
                }
            }
        }
    }

    fn check_end(&self) {
        let broker = &self.broker;
        assert_eq!(broker.kind.state_name(), "Stable", "{broker:?}");
        let has_new = self.clients.iter().any(|client| client.classic.is_none());
        assert_eq!(broker.kind.consumer().is_some(), has_new, "its protocol is that of its members: {broker:?}");
        assert_eq!(broker.waiting(), 0, "nobody waits in a group at rest: {broker:?}");
        let mut owned = 0;
        let mut wanted = BTreeSet::new();
        for client in &self.clients {
            match &broker.kind {
                Kind::Consumer(group) => {
                    assert_eq!(group.members.len(), self.clients.len());
                    assert_eq!(group.target(&client.id), Some(&client.owned), "{group:?}");
                    assert_eq!(client.epoch, group.epoch);
                }
                Kind::Classic(group) => {
                    assert_eq!(group.members().len(), self.clients.len());
                    let member = group.members().get(&client.id).expect("it is a member");
                    let assigned = subscription::read_assignment(&member.assignment).expect("an assignment");
                    assert_eq!(of_names(&assigned, &self.image), client.owned, "{group:?}");
                    assert_eq!(client.epoch, group.generation());
                }
            }
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
        assert_eq!(owned, all.sum::<usize>(), "every partition has an owner: {broker:?}");
    }
}

#[test]
fn members_come_go_hang_and_the_coordinator_crashes() {
    let met = RefCell::new(HashSet::new());
    each_seed(SEEDS, |seed| met.borrow_mut().extend(Sim::new(seed).run()));
    let met = met.into_inner();
    let expected = [
        "UnknownMemberId",
        "IllegalGeneration",
        "FencedMemberEpoch",
        "UnreleasedInstanceId",
        "RebalanceInProgress",
        "Session",
        "Rebalance",
        "upgraded",
        "downgraded",
        "became classic when empty",
    ];
    for error in expected {
        assert!(met.contains(error) || !are_all(&seeds(SEEDS), SEEDS), "{error} was never met: {met:?}");
    }
}
