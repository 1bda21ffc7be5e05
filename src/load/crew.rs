//! Makes the connections of a run, and deals them out to threads with what each needs.

use super::batches::{Batch, batches, probe};
use super::error::LoadError;
use super::frames::{FetchFrame, ProduceFrame};
use super::identity::Identity;
use super::lane::{ConsumeLane, Lane, ProduceLane};
use super::link::Link;
use super::pipeline::Pipeline;
use super::plan::{Plan, Work};
use super::reading::{AtEnd, Place, Reading};
use super::skew::Turns;
use super::skim::Skim;
use super::spread::Spread;
use crate::client::address::HostPort;
use crate::client::cluster::{Cluster, Target};
use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::offsets::{Isolation, Lookup, list_offsets};
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One thread's connections, and what they share.
#[derive(Default)]
pub struct Crew {
    pub lanes: Vec<Lane>,
    pub stock: Stock,
}

/// What the producers of a thread send. Connections refer to frames by number.
#[derive(Clone, Default)]
pub struct Stock {
    pub frames: Vec<ProduceFrame>,
    batches: Vec<Batch>,
    probes: Vec<Batch>,
}

impl Stock {
    /// The frame of this number, and the batch that is sent in turn.
    pub fn pick(&mut self, frame: usize, is_probe: bool, turn: u64) -> (&mut ProduceFrame, &mut Batch) {
        let batches = if is_probe { &mut self.probes } else { &mut self.batches };
        let at = (turn % batches.len() as u64) as usize;
        (&mut self.frames[frame], &mut batches[at])
    }

    /// Bytes of values of the batch that was sent in turn.
    pub fn value_bytes(&self, is_probe: bool, turn: u64) -> u64 {
        let batches = if is_probe { &self.probes } else { &self.batches };
        batches[(turn % batches.len() as u64) as usize].value_bytes()
    }
}

/// Connects everybody. `partitions` are those of the topic, with their leaders.
pub fn crews(plan: &Plan, cluster: &mut Cluster, partitions: &[(i32, HostPort)]) -> Result<Vec<Crew>, LoadError> {
    let mut builder = Builder::new(plan, cluster, partitions)?;
    match plan.work {
        Work::Produce => (0..plan.connections).try_for_each(|number| builder.producer(number))?,
        Work::Consume => builder.readers()?,
        Work::EndToEnd => {
            for number in 0..plan.connections {
                builder.tail(number)?;
                builder.producer(number)?;
            }
        }
        Work::Mixed => {
            (0..plan.consumers).try_for_each(|number| builder.tail(number))?;
            (0..plan.connections).try_for_each(|number| builder.producer(number))?;
            (0..plan.probes).try_for_each(|number| builder.probe(number))?;
        }
    }
    Ok(builder.crews)
}

/// Opens the connections that do nothing: each has asked which versions there are, as any client does.
pub fn idle(plan: &Plan, cluster: &Cluster, partitions: &[(i32, HostPort)]) -> Result<Vec<Connection>, ClientError> {
    let options = cluster.options();
    let leaders = partitions.iter().map(|(_, leader)| leader).cycle().take(plan.idle as usize);
    leaders.map(|leader| Connection::open(leader, &options.client_id, &options.timeouts)).collect()
}

struct Builder<'b> {
    plan: &'b Plan,
    cluster: &'b mut Cluster,
    client_id: StrBytes,
    indexes: Vec<i32>,
    brokers: Vec<&'b HostPort>,
    /// The number of each partition's leader among the brokers.
    leaders: Vec<usize>,
    spread: Spread,
    ends: BTreeMap<i32, Ends>,
    /// For each broker, the numbers of its frames; for skew, their shares.
    sets: Vec<Arc<[usize]>>,
    shares: Vec<Option<Arc<[f64]>>>,
    /// Where one partition is a frame: which.
    frame_of: HashMap<i32, usize>,
    crews: Vec<Crew>,
    next: usize,
}

impl<'b> Builder<'b> {
    fn new(
        plan: &'b Plan,
        cluster: &'b mut Cluster,
        partitions: &'b [(i32, HostPort)],
    ) -> Result<Builder<'b>, LoadError> {
        let client_id = StrBytes::from_string(cluster.options().client_id.clone());
        let (brokers, leaders) = numbered(partitions);
        let indexes: Vec<i32> = partitions.iter().map(|(index, _)| *index).collect();
        let reads_all = plan.work == Work::Consume && !plan.stays_at_end();
        // Who reads everything needs a connection to everybody.
        let connections = (plan.connections as usize).max(if reads_all { brokers.len() } else { 0 });
        let spread = Spread::new(&indexes, &leaders, connections, reads_all);
        let ends = if plan.work == Work::Produce { BTreeMap::new() } else { ends(plan, cluster, &indexes)? };
        let (mut stock, mut sets, mut frame_of) = (Stock::default(), Vec::new(), HashMap::new());
        if plan.work != Work::Consume {
            let now_ms = now_ms();
            stock.batches = batches(plan, now_ms)?;
            stock.probes.extend((plan.probes > 0).then(|| probe(plan, now_ms)).transpose()?);
            for leader in 0..brokers.len() {
                let first = stock.frames.len();
                for set in spread.chunks(leader, plan.partitions_per_request as usize) {
                    frame_of.insert(set[0], stock.frames.len());
                    stock.frames.push(ProduceFrame::new(&plan.topic, set, plan.acks, &client_id)?);
                }
                sets.push((first..stock.frames.len()).collect());
            }
        }
        let shares = sets.iter().map(|sets: &Arc<[usize]>| plan.skew.map(|skew| skew.shares(sets.len()))).collect();
        let all = match plan.work {
            Work::Produce | Work::Consume | Work::EndToEnd => connections,
            Work::Mixed => connections + plan.consumers as usize + plan.probes as usize,
        };
        let crew = || Crew { lanes: Vec::new(), stock: stock.clone() };
        let crews = std::iter::repeat_with(crew).take(all.min(plan.threads as usize)).collect();
        Ok(Builder {
            plan,
            cluster,
            client_id,
            indexes,
            brokers,
            leaders,
            spread,
            ends,
            sets,
            shares,
            frame_of,
            crews,
            next: 0,
        })
    }

    /// Threads take turns; a producer and its consumer go to the same one.
    fn add(&mut self, lane: Lane) {
        let pairs = if self.plan.work == Work::EndToEnd { 2 } else { 1 };
        let at = self.next / pairs % self.crews.len();
        self.crews[at].lanes.push(lane);
        self.next += 1;
    }

    fn link(&self, broker: usize) -> Result<Link, LoadError> {
        let socket = crate::client::connection::dial(self.brokers[broker], self.cluster.options().timeouts.connect)?;
        socket.set_nodelay(true)?;
        Ok(Link::new(socket)?)
    }

    /// Where the work is end to end or mixed, producers have a partition each as far as there are enough, and others keep to these.
    fn own(&self, number: u32) -> usize {
        number as usize % self.indexes.len().min(self.plan.connections as usize)
    }

    fn producer(&mut self, number: u32) -> Result<(), LoadError> {
        let (leader, turns) = match self.plan.is_stamped() {
            true => {
                let own = self.own(number);
                (self.leaders[own], Turns::in_order([self.frame_of[&self.indexes[own]]].into()))
            }
            false => {
                let leader = self.spread.leader(number as usize);
                (leader, self.turns(number, leader))
            }
        };
        let identity = if self.plan.idempotent { Some(identity(self.cluster)?) } else { None };
        let lane = ProduceLane {
            pipeline: Pipeline::new(self.plan.pace(number), self.plan.depth as usize, self.plan.acks != 0),
            stamped: self.plan.is_stamped(),
            keys: self.plan.keys.map(|keys| (keys, fastrand::Rng::with_seed(u64::from(number)))),
            identity,
            request_records: self.plan.request_records(),
            partitions: u64::from(self.plan.partitions_per_request),
            ..self.plain(self.link(leader)?, turns, number)
        };
        self.add(Lane::Produce(Box::new(lane)));
        Ok(())
    }

    fn turns(&self, number: u32, leader: usize) -> Turns {
        let all = &self.sets[leader];
        match &self.shares[leader] {
            Some(shares) => Turns::by_chance(all.clone(), shares.clone(), u64::from(number)),
            None => {
                let own = self.spread.sets(number as usize, all.len());
                Turns::in_order(own.into_iter().map(|at| all[at]).collect())
            }
        }
    }

    fn probe(&mut self, number: u32) -> Result<(), LoadError> {
        let own = self.own(number);
        let turns = Turns::in_order([self.frame_of[&self.indexes[own]]].into());
        let lane = self.plain(self.link(self.leaders[own])?, turns, number);
        self.add(Lane::Produce(Box::new(ProduceLane { is_probe: true, ..lane })));
        Ok(())
    }

    /// A producer of one record at a time.
    fn plain(&self, link: Link, turns: Turns, number: u32) -> ProduceLane {
        ProduceLane {
            link,
            turns,
            is_probe: false,
            first: u64::from(number),
            pipeline: Pipeline::new(None, 1, true),
            stamped: false,
            keys: None,
            identity: None,
            answered: self.plan.acks != 0,
            request_records: 1,
            partitions: 1,
            cutter: Default::default(),
            wake: None,
            has_more: false,
        }
    }

    /// A consumer that stays at the end of one partition.
    fn tail(&mut self, number: u32) -> Result<(), LoadError> {
        let own = self.own(number);
        self.consumer(self.leaders[own], &[self.indexes[own]])
    }

    /// All consumers of a run that does nothing else.
    fn readers(&mut self) -> Result<(), LoadError> {
        if self.plan.stays_at_end() {
            let own = |number: u32| number as usize % self.indexes.len();
            let all: Vec<usize> = (0..self.plan.connections).map(own).collect();
            return all.into_iter().try_for_each(|own| self.consumer(self.leaders[own], &[self.indexes[own]]));
        }
        for connection in 0..(self.plan.connections as usize).max(self.brokers.len()) {
            let parts = self.spread.parts(connection, !self.plan.fetch.once);
            self.consumer(self.spread.leader(connection), &parts)?;
        }
        Ok(())
    }

    fn consumer(&mut self, leader: usize, parts: &[i32]) -> Result<(), LoadError> {
        let plan = self.plan;
        let stamped = plan.is_stamped();
        let at_end = match (plan.stays_at_end(), plan.fetch.once) {
            (true, _) => AtEnd::Stay,
            (false, true) => AtEnd::Stop,
            (false, false) => AtEnd::Again,
        };
        let int = |value: u128| i32::try_from(value).unwrap_or(i32::MAX);
        let limits =
            (int(plan.fetch.max_bytes.into()), int(plan.fetch.min_bytes.into()), int(plan.fetch.max_wait.as_millis()));
        let parts: Vec<(i32, Ends)> = parts.iter().filter_map(|index| Some((*index, *self.ends.get(index)?))).collect();
        let place = |(_, ends): &(i32, Ends)| Place {
            beginning: ends.earliest,
            offset: if at_end == AtEnd::Stay { ends.latest } else { ends.earliest },
        };
        let rate = plan.rate.filter(|_| !stamped).map(|rate| rate / f64::from(plan.connections));
        let frame = |(index, _): &(i32, Ends)| FetchFrame::new(&plan.topic, *index, limits, &self.client_id);
        let lane = ConsumeLane {
            link: self.link(leader)?,
            frames: parts.iter().map(frame).collect::<Result<_, _>>()?,
            reading: Reading::new(parts.iter().map(place).collect(), at_end, rate),
            skim: Skim::new(plan.fetch.verify),
            stamped,
            asked: None,
            correlation: 0,
            records: 0,
            not_before: Duration::ZERO,
            wake: None,
        };
        self.add(Lane::Consume(Box::new(lane)));
        Ok(())
    }
}

/// The brokers, and which of them leads each partition, by number.
fn numbered(partitions: &[(i32, HostPort)]) -> (Vec<&HostPort>, Vec<usize>) {
    let mut brokers: Vec<&HostPort> = Vec::new();
    let number_of = |(_, leader)| {
        brokers.iter().position(|broker| *broker == leader).unwrap_or_else(|| {
            brokers.push(leader);
            brokers.len() - 1
        })
    };
    let leaders = partitions.iter().map(|(index, leader)| (index, leader)).map(number_of).collect();
    (brokers, leaders)
}

fn identity(cluster: &mut Cluster) -> Result<Identity, ClientError> {
    let wanted = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let answer = cluster.call(
        Target::Any,
        |_| wanted.clone(),
        |answer| ClientError::from_code("producer id", answer.error_code, None).map_or(Ok(()), Err),
    )?;
    Ok(Identity::new(answer.producer_id.0, answer.producer_epoch))
}

/// Where a partition begins and ends.
#[derive(Clone, Copy)]
struct Ends {
    earliest: i64,
    latest: i64,
}

fn ends(plan: &Plan, cluster: &mut Cluster, indexes: &[i32]) -> Result<BTreeMap<i32, Ends>, LoadError> {
    let mut ask = |lookup| list_offsets(cluster, &plan.topic, indexes, lookup, Isolation::ReadUncommitted);
    let (earliest, latest) = (ask(Lookup::Earliest)?, ask(Lookup::Latest)?);
    let at = |offsets: &BTreeMap<i32, Option<i64>>, index: &i32| offsets.get(index).copied().flatten().unwrap_or(0);
    let of = |index: &i32| (*index, Ends { earliest: at(&earliest, index), latest: at(&latest, index) });
    Ok(indexes.iter().map(of).collect())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
