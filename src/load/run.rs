//! Starts the connections of a run, watches the clock, and adds up what they saw.

use super::cutter::Cutter;
use super::engine::drive;
use super::error::LoadError;
use super::frames::{FetchFrame, ProduceFrame, batch};
use super::lane::{ConsumeLane, Lane, ProduceLane};
use super::link::Link;
use super::measure::{Board, Outcome, Phase, SERIES_STEPS, Seen, Totals, Usage};
use super::pipeline::Pipeline;
use super::plan::{Plan, Work};
use super::process;
use super::reading::{AtEnd, Place, Reading};
use super::skim::Skim;
use super::spread::Spread;
use crate::client::address::HostPort;
use crate::client::cluster::Cluster;
use crate::client::metadata::{PartitionInfo, Topics};
use crate::client::offsets::{Isolation, Lookup, list_offsets};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::time::{Duration, Instant, SystemTime};

/// How often the clock, and what has passed, are looked at.
const TICK: Duration = Duration::from_millis(5);
/// How long until brokers are asked again for leaders that are missing.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
const LEADER_WAIT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

/// What a run tells while it goes on.
pub struct Progress {
    pub phase: Phase,
    /// Since the last report, which was this long ago.
    pub passed: Totals,
    pub step: Duration,
}

/// Carries out the plan. `brokers` are the processes whose CPU time counts as the broker's; `progress` is called at each step.
pub fn run(
    plan: &Plan,
    cluster: &mut Cluster,
    brokers: &[u32],
    progress: &mut dyn FnMut(&Progress),
) -> Result<Outcome, LoadError> {
    plan.check().map_err(LoadError::Plan)?;
    let partitions = leaders(plan, cluster)?;
    let lanes = lanes(plan, cluster, &partitions)?;
    let step = (plan.measured / SERIES_STEPS).max(SECOND);
    let board = Board::new(lanes.len(), step)?;
    // No request was due while connections were made.
    let start = Instant::now();
    let (watched, seen) = std::thread::scope(|scope| {
        let work = |(number, lanes): (usize, Vec<Lane>)| {
            let board = &board;
            scope.spawn(move || work(lanes, start, board, number))
        };
        let threads: Vec<_> = lanes.into_iter().enumerate().map(work).collect();
        let watched = watch(plan, &board, start, brokers, progress);
        board.enter(Phase::Over, start.elapsed());
        let ends = threads.into_iter().map(|thread| thread.join().expect("a thread under load does not panic"));
        let seen: Result<Vec<Seen>, LoadError> = ends.collect();
        (watched, seen)
    });
    let mut all = Seen::default();
    seen?.iter().for_each(|seen| all.add(seen));
    let watched = watched?;
    Ok(Outcome {
        elapsed: watched.elapsed,
        totals: watched.totals,
        codes: board.codes(),
        latencies: all.requests,
        end_to_end: (plan.work == Work::EndToEnd).then_some(all.through),
        broker: (!brokers.is_empty()).then_some(watched.broker),
        generator: watched.generator,
        steps: watched.steps,
        series: all.series,
        step,
        checked: all.checked,
        whole: board.totals(),
        sent_records: board.sent_records(),
    })
}

/// One thread's part. What fails when the run is over is no error: brokers may close connections then.
fn work(lanes: Vec<Lane>, start: Instant, board: &Board, number: usize) -> Result<Seen, LoadError> {
    // Sleeps end within a microsecond of their time instead of fifty; without it they are merely less exact.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let ended = drive(lanes, start, board, number);
    board.thread_ended(ended.is_err());
    ended
}

/// Each partition's leader, by index. A topic that has just been made needs a moment, on some brokers, until each has one.
fn leaders(plan: &Plan, cluster: &mut Cluster) -> Result<Vec<(i32, HostPort)>, LoadError> {
    let until = Instant::now() + cluster.options().retry_for.min(LEADER_WAIT);
    loop {
        match leaders_now(plan, cluster) {
            Err(LoadError::NotThere(_)) if Instant::now() < until => std::thread::sleep(LEADER_PAUSE),
            found => return found,
        }
    }
}

fn leaders_now(plan: &Plan, cluster: &mut Cluster) -> Result<Vec<(i32, HostPort)>, LoadError> {
    let metadata = cluster.metadata(&Topics::Named(vec![plan.topic.clone()]), false)?;
    let topic = metadata.topics.get(&plan.topic);
    let topic = topic.filter(|topic| topic.error.is_none() && !topic.partitions.is_empty());
    let topic = topic.ok_or_else(|| LoadError::NotThere(format!("topic {} does not exist", plan.topic)))?;
    let leader = |partition: &PartitionInfo| {
        let broker = partition.leader.and_then(|id| metadata.brokers.get(&id));
        let broker = broker.ok_or_else(|| {
            LoadError::NotThere(format!("partition {} of {} has no leader", partition.index, plan.topic))
        })?;
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

/// The connections of each thread.
fn lanes(plan: &Plan, cluster: &mut Cluster, partitions: &[(i32, HostPort)]) -> Result<Vec<Vec<Lane>>, LoadError> {
    let client_id = StrBytes::from_string(cluster.options().client_id.clone());
    let batch = batch(plan, now_ms())?;
    let ends = match plan.work {
        Work::Produce => BTreeMap::new(),
        Work::Consume | Work::EndToEnd => ends(plan, cluster, partitions)?,
    };
    let mut brokers: Vec<&HostPort> = Vec::new();
    let mut number_of = |leader| {
        brokers.iter().position(|broker| *broker == leader).unwrap_or_else(|| {
            brokers.push(leader);
            brokers.len() - 1
        })
    };
    let leaders: Vec<usize> = partitions.iter().map(|(_, leader)| number_of(leader)).collect();
    // Who reads everything needs a connection to everybody.
    let connections = match plan.work == Work::Consume && !plan.stays_at_end() {
        true => (plan.connections as usize).max(brokers.len()),
        false => plan.connections as usize,
    };
    let indexes: Vec<i32> = partitions.iter().map(|(index, _)| *index).collect();
    let spread = Spread::new(&indexes, &leaders, connections, plan.work == Work::Consume && !plan.stays_at_end());
    let mut threads: Vec<Vec<Lane>> = (0..connections.min(plan.threads as usize)).map(|_| Vec::new()).collect();
    for connection in 0..connections {
        let own = indexes[connection % indexes.len()];
        let broker = brokers[spread.leader(connection)];
        let count = threads.len();
        let lanes = &mut threads[connection % count];
        if plan.work != Work::Produce {
            let parts = match plan.stays_at_end() {
                true => vec![own],
                false => spread.parts(connection, !plan.fetch.once),
            };
            let parts: Vec<(i32, Ends)> = parts.iter().filter_map(|index| Some((*index, *ends.get(index)?))).collect();
            let lane = consume_lane(plan, connect(broker, cluster)?, &parts, &client_id)?;
            lanes.push(Lane::Consume(Box::new(lane)));
        }
        if plan.work != Work::Consume {
            let sets = match plan.work {
                Work::EndToEnd => vec![vec![own]],
                _ => spread.sets(connection, plan.partitions_per_request as usize),
            };
            let how = (plan.acks, plan.work == Work::EndToEnd || plan.keys.is_some());
            let frame = |set: &Vec<i32>| ProduceFrame::new(&plan.topic, set, &batch, how, &client_id);
            let frames = sets.iter().map(frame).collect::<Result<_, _>>()?;
            let lane = produce_lane(plan, connect(broker, cluster)?, frames, connection as u32);
            lanes.push(Lane::Produce(Box::new(lane)));
        }
    }
    Ok(threads)
}

fn produce_lane(plan: &Plan, link: Link, frames: Vec<ProduceFrame>, connection: u32) -> ProduceLane {
    ProduceLane {
        link,
        frames,
        pipeline: Pipeline::new(plan.pace(connection), plan.depth as usize, plan.acks != 0),
        stamped: plan.work == Work::EndToEnd,
        keys: plan.keys.map(|keys| (keys, fastrand::Rng::with_seed(u64::from(connection)))),
        answered: plan.acks != 0,
        request_records: plan.request_records(),
        request_bytes: plan.request_records() * u64::from(plan.record_bytes),
        cutter: Cutter::default(),
        wake: None,
        has_more: false,
    }
}

fn consume_lane(
    plan: &Plan,
    link: Link,
    parts: &[(i32, Ends)],
    client_id: &StrBytes,
) -> Result<ConsumeLane, LoadError> {
    let stamped = plan.work == Work::EndToEnd;
    let at_end = match (plan.stays_at_end(), plan.fetch.once) {
        (true, _) => AtEnd::Stay,
        (false, true) => AtEnd::Stop,
        (false, false) => AtEnd::Again,
    };
    let int = |value: u128| i32::try_from(value).unwrap_or(i32::MAX);
    let limits =
        (int(plan.fetch.max_bytes.into()), int(plan.fetch.min_bytes.into()), int(plan.fetch.max_wait.as_millis()));
    let place = |(_, ends): &(i32, Ends)| Place {
        beginning: ends.earliest,
        offset: if at_end == AtEnd::Stay { ends.latest } else { ends.earliest },
    };
    let rate = plan.rate.filter(|_| !stamped).map(|rate| rate / f64::from(plan.connections));
    let frame = |(index, _): &(i32, Ends)| FetchFrame::new(&plan.topic, *index, limits, client_id);
    Ok(ConsumeLane {
        link,
        frames: parts.iter().map(frame).collect::<Result<_, _>>()?,
        reading: Reading::new(parts.iter().map(place).collect(), at_end, rate),
        skim: Skim::new(plan.fetch.verify),
        stamped,
        asked: None,
        correlation: 0,
        records: 0,
        not_before: Duration::ZERO,
        wake: None,
    })
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

fn connect(leader: &HostPort, cluster: &Cluster) -> Result<Link, LoadError> {
    let socket = crate::client::connection::dial(leader, cluster.options().timeouts.connect)?;
    socket.set_nodelay(true)?;
    Ok(Link::new(socket)?)
}

/// What was seen from outside in the measured part.
struct Watched {
    elapsed: Duration,
    totals: Totals,
    broker: Usage,
    generator: Usage,
    steps: Vec<Totals>,
}

fn watch(
    plan: &Plan,
    board: &Board,
    start: Instant,
    brokers: &[u32],
    progress: &mut dyn FnMut(&Progress),
) -> Result<Watched, LoadError> {
    let mut clock = Clock { board, step: SECOND, last: (Instant::now(), Totals::default()), steps: Vec::new() };
    clock.pass(plan.warm_up, None, progress);
    let (broker, generator) = (usage_of(brokers)?, usage_of(&[std::process::id()])?);
    let before = board.totals();
    let began = Instant::now();
    board.enter(Phase::Measured, began.duration_since(start));
    let mut clock =
        Clock { step: (plan.measured / SERIES_STEPS).max(SECOND), last: (began, before), steps: Vec::new(), ..clock };
    clock.pass(plan.measured, plan.bytes_max.map(|bytes| before.bytes + bytes), progress);
    let elapsed = began.elapsed();
    let totals = board.totals().since(before);
    let used = |now: Usage, before: Usage| Usage { cpu: now.cpu.saturating_sub(before.cpu), ..now };
    Ok(Watched {
        elapsed,
        totals,
        broker: used(usage_of(brokers)?, broker),
        generator: used(usage_of(&[std::process::id()])?, generator),
        steps: clock.steps,
    })
}

/// Lets time pass, and reports each step of it.
struct Clock<'b> {
    board: &'b Board,
    step: Duration,
    last: (Instant, Totals),
    steps: Vec<Totals>,
}

impl Clock<'_> {
    /// Waits for so long, until so many bytes have passed, or until no connection has anything to do.
    fn pass(&mut self, time: Duration, bytes: Option<u64>, progress: &mut dyn FnMut(&Progress)) {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            let totals = self.board.totals();
            if now.duration_since(self.last.0) >= self.step {
                let passed = totals.since(self.last.1);
                self.last = (self.last.0 + self.step, totals);
                self.steps.push(passed);
                progress(&Progress { phase: self.board.phase(), step: self.step, passed });
            }
            if now >= until || bytes.is_some_and(|bytes| totals.bytes >= bytes) || self.board.has_ended() {
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
