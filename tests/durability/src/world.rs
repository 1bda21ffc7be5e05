//! Topics, writers, consumers and groups of one life of a data directory, across the deaths of its broker.

use crate::broker::SHARDS;
use crate::group::{self, GroupClient};
use crate::ledger::{self, Counts, Promise};
use crate::reader::{self, Tail};
use crate::writer::Writer;
use anyhow::{Context, Result, bail};
use corelog::client::address::HostPort;
use corelog::client::admin::{NewTopic, create_topic};
use corelog::client::cluster::{Cluster, Options};
use corelog::client::connection::{Connection, Timeouts};
use corelog::client::metadata::Topics;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Topics and their numbers of partitions. Into `leader` only acks=1 is written, into `mixed` both.
const TOPICS: &[(&str, i32)] = &[("all", 6), ("mixed", 1), ("leader", 1)];

/// A partition and where it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub topic: String,
    pub partition: i32,
    pub port: u16,
}

/// What is wrong with a disk, as far as producers and consumers can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sickness {
    #[default]
    None,
    /// Its partitions answer nothing but an error.
    Offline,
    /// They take nothing.
    Full,
}

/// The time in which everybody writes and reads. Connections may break from its end on, and not before.
#[derive(Default)]
pub struct Load {
    over: AtomicBool,
    sick: RwLock<(Sickness, BTreeSet<u32>)>,
    refused: AtomicU64,
    acked_on_sick: AtomicU64,
    acked_elsewhere: AtomicU64,
}

impl Load {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// To be called before the disk of these slots is harmed: they may refuse records from now on.
    pub fn sicken(&self, sickness: Sickness, slots: BTreeSet<u32>) {
        *self.sick.write().expect("no thread panics") = (sickness, slots);
    }

    /// To be called when nothing is to be refused any more.
    pub fn recover(&self) {
        self.sick.write().expect("no thread panics").0 = Sickness::None;
    }

    /// What may be wrong with a slot.
    pub fn sickness(&self, slot: u32) -> Sickness {
        let sick = self.sick.read().expect("no thread panics");
        if sick.1.contains(&slot) { sick.0 } else { Sickness::None }
    }

    pub fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn note_acked(&self, slot: u32) {
        let is_sick = self.sick.read().expect("no thread panics").1.contains(&slot);
        let count = if is_sick { &self.acked_on_sick } else { &self.acked_elsewhere };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Batches so far that a sick disk refused, that were acknowledged on it since it fell ill, and on others.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn acked_on_sick(&self) -> u64 {
        self.acked_on_sick.load(Ordering::Relaxed)
    }

    pub fn acked_elsewhere(&self) -> u64 {
        self.acked_elsewhere.load(Ordering::Relaxed)
    }

    /// To be called before the broker, or its disk, is harmed.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

pub struct World {
    slots: Vec<(u32, Slot)>,
    ports: Vec<u16>,
    seed: u64,
    writers: Vec<Writer>,
    tails: Vec<Tail>,
    groups: Vec<GroupClient>,
}

/// Stands for a slot where a coordinator's own partitions are meant.
pub const COORDINATORS: u32 = u32::MAX;

impl World {
    /// Creates the topics at a fresh broker.
    pub fn create(port: u16, seed: u64, segment_bytes: u32) -> Result<World> {
        let mut cluster = Cluster::connect(Options::new(vec![local(port)]))?;
        let configs = [
            ("segment.bytes", segment_bytes.to_string()),
            ("retention.ms", "-1".to_owned()),
            ("index.interval.bytes", "4096".to_owned()),
        ];
        for (name, partitions) in TOPICS {
            let topic = NewTopic {
                name: (*name).to_owned(),
                partitions: Some(*partitions),
                configs: configs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
                ..NewTopic::default()
            };
            create_topic(&mut cluster, &topic, false)?;
        }
        let slots = find_slots(&mut cluster)?;
        let ports: Vec<u16> = (0..SHARDS).map(|shard| port + shard).collect();
        let tails = ports.iter().map(|port| Tail::new(*port, &slots)).collect();
        Ok(World { writers: writers(&slots, &ports, seed), slots, ports, seed, tails, groups: Vec::new() })
    }

    /// With clients of consumer groups beside producers and consumers.
    pub fn with_groups(self) -> Result<World> {
        let groups = group::clients(&self.ports, TOPICS[0], self.seed)?;
        Ok(World { groups, ..self })
    }

    /// Lets everybody write and read while `harm` runs, which ends the load and kills the broker.
    pub fn during(&mut self, harm: impl FnOnce(&Load) -> Result<()>) -> Result<()> {
        let load = Load::default();
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for writer in &mut self.writers {
                threads.push(scope.spawn(|| writer.run(&load)));
            }
            for tail in &mut self.tails {
                threads.push(scope.spawn(|| tail.run(&load)));
            }
            for group in &mut self.groups {
                threads.push(scope.spawn(|| group.run(&load)));
            }
            let harmed = harm(&load);
            load.end();
            let ended: Vec<Result<()>> = threads.into_iter().map(|t| t.join().expect("no thread panics")).collect();
            ended.into_iter().collect::<Result<()>>().and(harmed)
        })
    }

    pub fn slots(&self) -> &[(u32, Slot)] {
        &self.slots
    }

    /// Reads everything back and compares. `promise` says what may be relied on, by acks and slot (or `COORDINATORS`).
    pub fn check(&mut self, promise: impl Fn(i16, u32) -> Promise) -> Result<Counts> {
        let mut connections: BTreeMap<u16, Connection> = BTreeMap::new();
        let mut total = Counts::default();
        for (index, slot) in &self.slots {
            let connection = match connections.entry(slot.port) {
                Entry::Vacant(vacant) => vacant.insert(connect(slot.port)?),
                Entry::Occupied(known) => known.into_mut(),
            };
            let log = reader::read_all(connection, slot).with_context(|| format!("reading {slot:?}"))?;
            let mut written: Vec<_> = self.writers.iter_mut().filter_map(|writer| writer.written(*index)).collect();
            let followed = self.tails.iter_mut().flat_map(|tail| &mut tail.followed);
            let Some(followed) = followed.into_iter().find(|followed| followed.slot_index == *index) else {
                bail!("nobody follows {slot:?}");
            };
            let counts = ledger::check(&log, &mut written, &mut followed.seen, |acks| promise(acks, *index))
                .with_context(|| format!("{}-{}", slot.topic, slot.partition))?;
            followed.next = followed.next.min(log.last().map_or(0, |batch| batch.next));
            total.add(counts);
        }
        for group in &mut self.groups {
            total.add(group.check(promise(-1, COORDINATORS))?);
        }
        for writer in &mut self.writers {
            let may_go = self.slots.iter().any(|(index, _)| promise(writer.acks, *index) == Promise::TailMayGo);
            if writer.idempotent && may_go {
                writer.begin_anew();
            }
        }
        Ok(total)
    }
}

/// Two idempotent writers and a plain one with acks=all at each shard, and one with acks=1 where that is wanted.
fn writers(slots: &[(u32, Slot)], ports: &[u16], seed: u64) -> Vec<Writer> {
    let mut writers = Vec::new();
    let mut add = |acks: i16, idempotent: bool, slots: &[(u32, Slot)]| {
        if !slots.is_empty() {
            writers.push(Writer::new(writers.len() as u32, acks, idempotent, seed, slots));
        }
    };
    for port in ports {
        let here = |topics: &[&str]| -> Vec<(u32, Slot)> {
            let of_topic = |slot: &Slot| slot.port == *port && topics.contains(&slot.topic.as_str());
            slots.iter().filter(|(_, slot)| of_topic(slot)).cloned().collect()
        };
        let all = here(&["all", "mixed"]);
        add(-1, true, &all);
        add(-1, true, &all[..all.len().min(2)]);
        add(-1, false, &all);
        add(-1, false, &all[..all.len().min(1)]);
        add(1, false, &here(&["leader", "mixed"]));
    }
    writers
}

/// The leader of each partition, as any of the brokers tells it.
pub fn leaders(port: u16) -> Result<BTreeMap<(String, i32), Option<i32>>> {
    let mut cluster = Cluster::connect(Options::new(vec![local(port)]))?;
    let names = TOPICS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let metadata = cluster.metadata(&Topics::Named(names), false)?;
    let mut leaders = BTreeMap::new();
    for (name, topic) in &metadata.topics {
        leaders.extend(topic.partitions.iter().map(|partition| ((name.clone(), partition.index), partition.leader)));
    }
    Ok(leaders)
}

fn find_slots(cluster: &mut Cluster) -> Result<Vec<(u32, Slot)>> {
    let names = TOPICS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let metadata = cluster.metadata(&Topics::Named(names), false)?;
    let mut slots = Vec::new();
    for (name, partitions) in TOPICS {
        let topic = metadata.topics.get(*name).context("a topic that was created is not known")?;
        for partition in &topic.partitions {
            let leader = partition.leader.context("a partition without a leader")?;
            let port = metadata.brokers.get(&leader).context("an unknown leader")?.address.port;
            slots.push((slots.len() as u32, Slot { topic: (*name).to_owned(), partition: partition.index, port }));
        }
        if topic.partitions.len() != *partitions as usize {
            bail!("{name} has {} partitions", topic.partitions.len());
        }
    }
    Ok(slots)
}

pub fn connect(port: u16) -> Result<Connection> {
    let timeouts = Timeouts { connect: Duration::from_secs(10), request: Duration::from_secs(60) };
    Ok(Connection::open(&local(port), "durability", &timeouts)?)
}

fn local(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}
