//! Starts the connections of a run, watches the clock, and adds up what they saw.

use super::frames::{FetchFrame, ProduceFrame, batch};
use super::lane::{ConsumeLane, Lane, ProduceLane};
use super::measure::{Board, Latencies, Outcome, Phase, Totals, Usage};
use super::plan::{From, Plan, Work};
use super::process;
use crate::client::address::HostPort;
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::client::metadata::{PartitionInfo, Topics};
use crate::client::offsets::{Isolation, Lookup, list_offsets};
use crate::record::builder::BuildError;
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How often the clock, and what has passed, are looked at.
const TICK: Duration = Duration::from_millis(5);
/// What answers that are under way at the end get, before their connections are closed.
const GRACE: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);

/// Why a run cannot begin, or did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Plan(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the batch cannot be built: {0}")]
    Batch(#[from] BuildError),
    #[error("a connection under load failed: {0}")]
    Io(#[from] io::Error),
    #[error("the broker closed a frame that it had not finished: {0}")]
    Cut(#[from] bytes::TryGetError),
    #[error("the broker answered what nobody had asked")]
    Unasked,
    #[error("an answer's length makes no sense: is this a Kafka broker?")]
    NotKafka,
    #[error("process {pid}: {source}")]
    Process { pid: u32, source: io::Error },
}

/// What a run tells while it goes on.
pub struct Progress {
    pub phase: Phase,
    /// Since the last report.
    pub passed: Totals,
}

/// Carries out the plan. `brokers` are the processes whose CPU time counts as the broker's; `progress` is called each second.
pub fn run(
    plan: &Plan,
    cluster: &mut Cluster,
    brokers: &[u32],
    progress: &mut dyn FnMut(&Progress),
) -> Result<Outcome, LoadError> {
    plan.check().map_err(LoadError::Plan)?;
    let partitions = leaders(plan, cluster)?;
    let board = Arc::new(Board::default());
    let (sockets, lanes) = start(connections(plan, cluster, &partitions)?, &board)?;
    let seen = watch(plan, lanes.len(), &board, brokers, progress);
    board.enter(Phase::Over);
    std::thread::sleep(GRACE);
    for socket in &sockets {
        // One that is closed already needs no closing.
        let _ = socket.shutdown(Shutdown::Both);
    }
    let mut all = Latencies::default();
    let mut end_to_end = (plan.work == Work::EndToEnd).then(Latencies::default);
    for lane in lanes {
        let latencies = lane.thread.join().expect("a connection's thread does not panic")?;
        match &mut end_to_end {
            Some(end_to_end) if lane.is_tail => end_to_end.add(&latencies),
            _ => all.add(&latencies),
        }
    }
    let seen = seen?;
    Ok(Outcome {
        elapsed: seen.elapsed,
        totals: seen.totals,
        codes: board.codes(),
        latencies: all,
        end_to_end,
        broker: (!brokers.is_empty()).then_some(seen.broker),
        generator: seen.generator,
        seconds: seen.seconds,
    })
}

/// Each partition's leader, by index.
fn leaders(plan: &Plan, cluster: &mut Cluster) -> Result<Vec<(i32, HostPort)>, LoadError> {
    let metadata = cluster.metadata(&Topics::Named(vec![plan.topic.clone()]), false)?;
    let topic = metadata.topics.get(&plan.topic);
    let topic = topic.filter(|topic| topic.error.is_none() && !topic.partitions.is_empty());
    let topic = topic.ok_or_else(|| LoadError::Plan(format!("topic {} does not exist", plan.topic)))?;
    let leader = |partition: &PartitionInfo| {
        let broker = partition.leader.and_then(|id| metadata.brokers.get(&id));
        let broker = broker
            .ok_or_else(|| LoadError::Plan(format!("partition {} of {} has no leader", partition.index, plan.topic)))?;
        Ok((partition.index, broker.address.clone()))
    };
    let partitions: Vec<(i32, HostPort)> = topic.partitions.iter().map(leader).collect::<Result<_, LoadError>>()?;
    let mut led: HashMap<&HostPort, u32> = HashMap::new();
    partitions.iter().for_each(|(_, leader)| *led.entry(leader).or_default() += 1);
    match led.into_iter().find(|(_, led)| *led < plan.partitions_per_request) {
        Some((leader, led)) => Err(LoadError::Plan(format!(
            "a request wants {} partitions of one broker, but {leader} leads {led}",
            plan.partitions_per_request
        ))),
        None => Ok(partitions),
    }
}

fn connections(plan: &Plan, cluster: &mut Cluster, partitions: &[(i32, HostPort)]) -> Result<Vec<Lane>, LoadError> {
    let client_id = StrBytes::from_string(cluster.options().client_id.clone());
    let batch = batch(plan, now_ms())?;
    let ends = match plan.work {
        Work::Produce => BTreeMap::new(),
        Work::Consume | Work::EndToEnd => ends(plan, cluster, partitions)?,
    };
    let mut lanes = Vec::new();
    for connection in 0..plan.connections {
        let (partition, leader) = &partitions[connection as usize % partitions.len()];
        if let Some(ends) = ends.get(partition) {
            let socket = connect(leader, cluster)?;
            lanes.push(Lane::Consume(consume_lane(plan, socket, *partition, *ends, &client_id)?));
        }
        if plan.work != Work::Consume {
            let socket = connect(leader, cluster)?;
            let frame = |set: &Vec<i32>| ProduceFrame::new(&plan.topic, set, &batch, plan.acks, &client_id);
            let frames = partition_sets(plan, partitions, connection).iter().map(frame).collect::<Result<_, _>>()?;
            lanes.push(Lane::Produce(ProduceLane {
                socket,
                frames,
                depth: plan.depth as usize,
                pace: plan.pace(connection),
                keys: plan.keys.map(|keys| (keys, fastrand::Rng::with_seed(u64::from(connection)))),
                stamped: plan.work == Work::EndToEnd,
                answered: plan.acks != 0,
                request_records: plan.request_records(),
                request_bytes: plan.request_records() * u64::from(plan.record_bytes),
            }));
        }
    }
    Ok(lanes)
}

fn consume_lane(
    plan: &Plan,
    socket: TcpStream,
    partition: i32,
    ends: Ends,
    client_id: &StrBytes,
) -> Result<ConsumeLane, LoadError> {
    let stamped = plan.work == Work::EndToEnd;
    let tail = stamped || plan.fetch.from == From::Latest;
    let int = |value: u128| i32::try_from(value).unwrap_or(i32::MAX);
    let limits =
        (int(plan.fetch.max_bytes.into()), int(plan.fetch.min_bytes.into()), int(plan.fetch.max_wait.as_millis()));
    Ok(ConsumeLane {
        socket,
        frame: FetchFrame::new(&plan.topic, partition, limits, client_id)?,
        beginning: ends.earliest,
        offset: if tail { ends.latest } else { ends.earliest },
        once: plan.fetch.once,
        tail,
        rate: plan.rate.filter(|_| !stamped).map(|rate| rate / f64::from(plan.connections)),
        stamped,
    })
}

/// Which partitions go into the requests of a connection, in turn. The sets of partitions that one broker leads are dealt out to its
/// connections: with more sets than connections each has several, with fewer some share.
fn partition_sets(plan: &Plan, partitions: &[(i32, HostPort)], connection: u32) -> Vec<Vec<i32>> {
    let leader_of = |connection: u32| &partitions[connection as usize % partitions.len()].1;
    let leader = leader_of(connection);
    let led: Vec<i32> = partitions.iter().filter(|(_, other)| other == leader).map(|(index, _)| *index).collect();
    let sets: Vec<&[i32]> = led.chunks_exact(plan.partitions_per_request as usize).collect();
    let siblings = (0..plan.connections).filter(|other| leader_of(*other) == leader).count();
    let number = (0..connection).filter(|other| leader_of(*other) == leader).count();
    sets.iter().skip(number % sets.len()).step_by(siblings).map(|set| set.to_vec()).collect()
}

/// Where a partition begins and ends.
#[derive(Clone, Copy)]
struct Ends {
    earliest: i64,
    latest: i64,
}

fn ends(plan: &Plan, cluster: &mut Cluster, partitions: &[(i32, HostPort)]) -> Result<BTreeMap<i32, Ends>, LoadError> {
    let indexes: Vec<i32> = partitions.iter().map(|(index, _)| *index).collect();
    let mut ask = |lookup| list_offsets(cluster, &plan.topic, &indexes, lookup, Isolation::ReadUncommitted);
    let (earliest, latest) = (ask(Lookup::Earliest)?, ask(Lookup::Latest)?);
    let at = |offsets: &BTreeMap<i32, Option<i64>>, index: &i32| offsets.get(index).copied().flatten().unwrap_or(0);
    let of = |index: &i32| (*index, Ends { earliest: at(&earliest, index), latest: at(&latest, index) });
    Ok(indexes.iter().map(of).collect())
}

fn connect(leader: &HostPort, cluster: &Cluster) -> Result<TcpStream, LoadError> {
    let socket = crate::client::connection::dial(leader, cluster.options().timeouts.connect)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

struct Running {
    is_tail: bool,
    thread: JoinHandle<Result<Latencies, LoadError>>,
}

/// Starts a thread for each; the sockets are for closing them in the end.
fn start(lanes: Vec<Lane>, board: &Arc<Board>) -> io::Result<(Vec<TcpStream>, Vec<Running>)> {
    let sockets = lanes.iter().map(|lane| lane.socket().try_clone()).collect::<io::Result<Vec<_>>>()?;
    // No request was due while connections were made.
    let start = Instant::now();
    let work = |lane: Lane| {
        let is_tail = matches!(&lane, Lane::Consume(lane) if lane.stamped);
        let board = Arc::clone(board);
        let thread = std::thread::spawn(move || {
            // Sleeps end within a microsecond of their time instead of fifty; without it they are merely less exact.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            let ended = lane.run(start, &board);
            board.lane_ended(ended.is_err());
            ended
        });
        Running { is_tail, thread }
    };
    Ok((sockets, lanes.into_iter().map(work).collect()))
}

/// What was seen from outside in the measured part.
struct Seen {
    elapsed: Duration,
    totals: Totals,
    broker: Usage,
    generator: Usage,
    seconds: Vec<Totals>,
}

fn watch(
    plan: &Plan,
    lanes: usize,
    board: &Board,
    brokers: &[u32],
    progress: &mut dyn FnMut(&Progress),
) -> Result<Seen, LoadError> {
    let mut clock = Clock::new(board, lanes);
    clock.pass(plan.warm_up, None, progress);
    let (broker, generator) = (usage_of(brokers)?, usage_of(&[std::process::id()])?);
    let before = board.totals();
    clock.seconds.clear();
    board.enter(Phase::Measured);
    let began = Instant::now();
    clock.pass(plan.measured, plan.bytes_max.map(|bytes| before.bytes + bytes), progress);
    let elapsed = began.elapsed();
    let totals = board.totals().since(before);
    let used = |now: Usage, before: Usage| Usage { cpu: now.cpu.saturating_sub(before.cpu), ..now };
    Ok(Seen {
        elapsed,
        totals,
        broker: used(usage_of(brokers)?, broker),
        generator: used(usage_of(&[std::process::id()])?, generator),
        seconds: clock.seconds,
    })
}

/// Lets time pass, and reports each second of it.
struct Clock<'b> {
    board: &'b Board,
    lanes: usize,
    last: (Instant, Totals),
    seconds: Vec<Totals>,
}

impl<'b> Clock<'b> {
    fn new(board: &'b Board, lanes: usize) -> Clock<'b> {
        Clock { board, lanes, last: (Instant::now(), Totals::default()), seconds: Vec::new() }
    }

    /// Waits for so long, until so many bytes have passed, or until no connection has anything to do.
    fn pass(&mut self, time: Duration, bytes: Option<u64>, progress: &mut dyn FnMut(&Progress)) {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            let totals = self.board.totals();
            if now.duration_since(self.last.0) >= SECOND {
                let passed = totals.since(self.last.1);
                self.last = (self.last.0 + SECOND, totals);
                self.seconds.push(passed);
                progress(&Progress { phase: self.board.phase(), passed });
            }
            if now >= until || bytes.is_some_and(|bytes| totals.bytes >= bytes) || self.board.has_ended(self.lanes) {
                return;
            }
            std::thread::sleep(TICK.min(until - now));
        }
    }
}

fn usage_of(pids: &[u32]) -> Result<Usage, LoadError> {
    pids.iter().try_fold(Usage::default(), |sum, pid| {
        let used = process::usage(*pid).map_err(|source| LoadError::Process { pid: *pid, source })?;
        Ok(Usage { cpu: sum.cpu + used.cpu, resident_bytes: sum.resident_bytes + used.resident_bytes })
    })
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;
    use std::collections::BTreeSet;

    fn spread(connections: u32, partitions_per_request: u32, count: i32, leaders: u16) -> Vec<Vec<Vec<i32>>> {
        let plan = Plan { connections, partitions_per_request, ..plan() };
        let leader = |index: i32| HostPort { host: "h".to_owned(), port: 9092 + index as u16 % leaders };
        let partitions: Vec<_> = (0..count).map(|index| (index, leader(index))).collect();
        (0..connections).map(|connection| partition_sets(&plan, &partitions, connection)).collect()
    }

    #[test]
    fn every_partition_has_a_connection_and_every_connection_a_partition() {
        for (connections, count, leaders) in
            [(1, 1, 1), (4, 4, 1), (4, 4, 2), (64, 4, 2), (64, 1000, 2), (3, 10, 1), (5, 7, 3)]
        {
            let sets = spread(connections, 1, count, leaders);
            assert!(sets.iter().all(|sets| !sets.is_empty()), "{connections} {count} {leaders}");
            let all: BTreeSet<i32> = sets.iter().flatten().flatten().copied().collect();
            assert_eq!(all, (0..count).collect(), "{connections} {count} {leaders}");
            for sets in sets {
                let of: BTreeSet<i32> = sets.iter().flatten().map(|index| index % i32::from(leaders)).collect();
                assert_eq!(of.len(), 1, "a connection leads to one broker");
            }
        }
    }

    #[test]
    fn requests_hold_as_many_partitions_as_wanted() {
        let sets = spread(4, 50, 1000, 1);
        assert!(sets.iter().all(|sets| sets.len() == 5 && sets.iter().all(|set| set.len() == 50)));
    }
}
