//! Starts the connections of a run, watches the clock, and adds up what they saw.

use super::crew::{Crew, crews, idle};
use super::engine::drive;
use super::error::LoadError;
use super::measure::{Board, Outcome, Phase, SERIES_STEPS, Seen, Totals, Usage};
use super::plan::{Plan, Work};
use super::process;
use crate::base::host;
use crate::client::address::HostPort;
use crate::client::cluster::Cluster;
use crate::client::metadata::{PartitionInfo, Topics};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

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
    host::raise_open_files();
    let partitions = leaders(plan, cluster)?;
    let crews = crews(plan, cluster, &partitions)?;
    // Open as long as the run is.
    let _idle = idle(plan, cluster, &partitions)?;
    let step = (plan.measured / SERIES_STEPS).max(SECOND);
    let board = Board::new(crews.len(), step, plan.is_stamped())?;
    // No request was due while connections were made.
    let start = Instant::now();
    let (watched, seen) = std::thread::scope(|scope| {
        let work = |(number, crew): (usize, Crew)| {
            let board = &board;
            scope.spawn(move || work(crew, start, board, number))
        };
        let threads: Vec<_> = crews.into_iter().enumerate().map(work).collect();
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
        end_to_end: plan.is_stamped().then_some(all.through),
        probes: (plan.work == Work::Mixed && plan.probes > 0).then_some(all.probes),
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
fn work(crew: Crew, start: Instant, board: &Board, number: usize) -> Result<Seen, LoadError> {
    // Sleeps end within a microsecond of their time instead of fifty; without it they are merely less exact.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let ended = drive(crew, start, board, number);
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
