//! What a run counts: totals that threads publish, latencies that each keeps for itself.

use hdrhistogram::Histogram;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Latencies beyond are told as this: ten minutes, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;
/// Steps of a series of latencies that are kept: about 25 KB each.
const STEPS_MAX: usize = 2 * SERIES_STEPS as usize;
/// A longer run has steps of more than a second.
pub const SERIES_STEPS: u32 = 600;

/// Latencies in microseconds, from 1, with three significant digits.
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Latencies { histogram: histogram.expect("invariant: the bounds are in order and three digits are allowed") }
    }
}

impl Latencies {
    pub fn note(&mut self, latency: Duration, times: u64) {
        self.histogram.saturating_record_n(micros(latency), times);
    }

    pub fn add(&mut self, other: &Latencies) {
        let added = self.histogram.add(&other.histogram);
        added.expect("invariant: both have the same bounds");
    }

    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    WarmUp,
    Measured,
    Over,
}

/// Totals since the start of the run, warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub records: u64,
    /// Of values when producing, of whole batches when consuming.
    pub bytes: u64,
    pub requests: u64,
    pub errors: u64,
}

impl Totals {
    pub fn since(self, earlier: Totals) -> Totals {
        Totals {
            records: self.records - earlier.records,
            bytes: self.bytes - earlier.bytes,
            requests: self.requests - earlier.requests,
            errors: self.errors - earlier.errors,
        }
    }
}

/// What the threads of a run share. Each writes counters of its own.
pub struct Board {
    /// One for each thread: readable when another phase has begun.
    bells: Vec<OwnedFd>,
    phase: AtomicU8,
    /// When the measured part began, in nanoseconds since the run's start.
    measured_from: AtomicU64,
    threads: Vec<Counters>,
    /// Length of one step of the series of latencies.
    step: Duration,
    /// The run is about latencies from due to received, not about those of requests.
    is_about_through: bool,
    codes: Mutex<BTreeMap<i16, u64>>,
    /// Threads that have nothing more to do.
    ended: AtomicUsize,
    failed: AtomicBool,
}

/// On cache lines of their own.
#[derive(Default)]
#[repr(align(128))]
struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    sent_records: AtomicU64,
}

impl Board {
    pub fn new(threads: usize, step: Duration, is_about_through: bool) -> io::Result<Board> {
        let bell = |_| Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Board {
            bells: (0..threads).map(bell).collect::<io::Result<_>>()?,
            phase: AtomicU8::new(Phase::WarmUp as u8),
            measured_from: AtomicU64::new(0),
            threads: std::iter::repeat_with(Counters::default).take(threads).collect(),
            step,
            is_about_through,
            codes: Mutex::default(),
            ended: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        })
    }

    /// What wakes a thread that has nothing to do when another phase begins.
    pub fn bell(&self, thread: usize) -> BorrowedFd<'_> {
        self.bells[thread].as_fd()
    }

    /// Makes a thread's bell silent until the next phase.
    pub fn hush(&self, thread: usize) {
        // Nothing to read: it is silent already.
        let _ = rustix::io::read(&self.bells[thread], &mut [0; 8]);
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::WarmUp,
            1 => Phase::Measured,
            _ => Phase::Over,
        }
    }

    /// `now` is since the run's start.
    pub fn enter(&self, phase: Phase, now: Duration) {
        if phase == Phase::Measured {
            self.measured_from.store(now.as_nanos() as u64, Ordering::Relaxed);
        }
        self.phase.store(phase as u8, Ordering::Release);
        for bell in &self.bells {
            // It fails only where it has been rung 2^64 times.
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
    }

    pub fn totals(&self) -> Totals {
        let sum = |of: fn(&Counters) -> &AtomicU64| {
            self.threads.iter().map(|counters| of(counters).load(Ordering::Relaxed)).sum()
        };
        Totals {
            records: sum(|counters| &counters.records),
            bytes: sum(|counters| &counters.bytes),
            requests: sum(|counters| &counters.requests),
            errors: sum(|counters| &counters.errors),
        }
    }

    /// Records that were sent, answered or not.
    pub fn sent_records(&self) -> u64 {
        self.threads.iter().map(|counters| counters.sent_records.load(Ordering::Relaxed)).sum()
    }

    /// Error codes with how often they came since the warm-up.
    pub fn codes(&self) -> BTreeMap<i16, u64> {
        self.codes.lock().expect("no thread panics while it counts").clone()
    }

    pub fn thread_ended(&self, failed: bool) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_or(failed, Ordering::Relaxed);
    }

    /// Nothing more will come: a thread failed, or all have done what they had to.
    pub fn has_ended(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed) >= self.threads.len()
    }
}

/// What one thread sees. It counts for itself, and publishes from time to time.
pub struct Scores<'b> {
    board: &'b Board,
    thread: usize,
    totals: Totals,
    sent_records: u64,
    /// As of the last look at the board.
    phase: Phase,
    measured_from: Duration,
    seen: Seen,
}

/// What a thread has seen in the measured part.
#[derive(Default)]
pub struct Seen {
    /// Of requests.
    pub requests: Latencies,
    /// End to end, of records.
    pub through: Latencies,
    /// Of probes.
    pub probes: Latencies,
    /// Of whichever of both the run is about, step by step.
    pub series: Vec<Brief>,
    /// Over the whole run.
    pub checked: Checked,
}

/// Latencies of one step of time, with two significant digits.
#[derive(Clone)]
pub struct Brief {
    histogram: Histogram<u64>,
}

/// What consumers found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub batches: u64,
    /// Batches whose CRC is wrong; counted if asked for.
    pub damaged: u64,
    /// Offsets between two batches that hold nothing.
    pub missing: u64,
}

impl Checked {
    pub fn add(&mut self, other: Checked) {
        self.batches += other.batches;
        self.damaged += other.damaged;
        self.missing += other.missing;
    }
}

impl<'b> Scores<'b> {
    pub fn new(board: &'b Board, thread: usize) -> Scores<'b> {
        Scores {
            board,
            thread,
            totals: Totals::default(),
            sent_records: 0,
            phase: Phase::WarmUp,
            measured_from: Duration::ZERO,
            seen: Seen::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Learns which phase it is.
    pub fn look(&mut self) {
        self.phase = self.board.phase();
        self.measured_from = Duration::from_nanos(self.board.measured_from.load(Ordering::Relaxed));
    }

    /// Lets others see the totals.
    pub fn publish(&self) {
        let counters = &self.board.threads[self.thread];
        let Totals { records, bytes, requests, errors } = self.totals;
        counters.records.store(records, Ordering::Relaxed);
        counters.bytes.store(bytes, Ordering::Relaxed);
        counters.requests.store(requests, Ordering::Relaxed);
        counters.errors.store(errors, Ordering::Relaxed);
        counters.sent_records.store(self.sent_records, Ordering::Relaxed);
    }

    pub fn into_seen(self) -> Seen {
        self.seen
    }

    pub fn sent(&mut self, records: u64) {
        self.sent_records += records;
    }

    /// A request was answered, or will never be.
    pub fn request(&mut self, records: u64, bytes: u64) {
        self.totals.records += records;
        self.totals.bytes += bytes;
        self.totals.requests += 1;
    }

    pub fn error(&mut self, code: i16) {
        self.totals.errors += 1;
        if self.phase == Phase::WarmUp {
            // A topic that was just made has leaders that do not know it yet.
            return;
        }
        *self.board.codes.lock().expect("no thread panics while it counts").entry(code).or_default() += 1;
    }

    /// A consumer's batch, and how many offsets are missing before it.
    pub fn batch(&mut self, missing: u64, is_intact: bool) {
        self.seen.checked.add(Checked { batches: 1, damaged: u64::from(!is_intact), missing });
    }

    /// A request's latency, known since `now`.
    pub fn latency(&mut self, now: Duration, latency: Duration) {
        if self.phase == Phase::Measured {
            self.seen.requests.note(latency, 1);
            if !self.board.is_about_through {
                self.note_step(now, latency, 1);
            }
        }
    }

    /// A probe's latency.
    pub fn probe(&mut self, latency: Duration) {
        if self.phase == Phase::Measured {
            self.seen.probes.note(latency, 1);
        }
    }

    /// The latency of so many records from due to received.
    pub fn through(&mut self, now: Duration, latency: Duration, records: u64) {
        if self.phase == Phase::Measured {
            self.seen.through.note(latency, records);
            self.note_step(now, latency, records);
        }
    }

    fn note_step(&mut self, now: Duration, latency: Duration, times: u64) {
        let step = (now.saturating_sub(self.measured_from).as_nanos() / self.board.step.as_nanos().max(1)) as usize;
        if step >= STEPS_MAX {
            return;
        }
        if self.seen.series.len() <= step {
            self.seen.series.resize_with(step + 1, Brief::default);
        }
        self.seen.series[step].histogram.saturating_record_n(micros(latency), times);
    }
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        self.requests.add(&other.requests);
        self.through.add(&other.through);
        self.probes.add(&other.probes);
        self.checked.add(other.checked);
        if self.series.len() < other.series.len() {
            self.series.resize_with(other.series.len(), Brief::default);
        }
        for (step, other) in self.series.iter_mut().zip(&other.series) {
            step.histogram.add(&other.histogram).expect("invariant: both have the same bounds");
        }
    }
}

impl Default for Brief {
    fn default() -> Brief {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 2);
        Brief { histogram: histogram.expect("invariant: the bounds are in order and two digits are allowed") }
    }
}

impl Brief {
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// What a process has used: CPU time of all its threads, and memory that is resident now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
}

/// What a run has shown. Latencies are of the measured part only, as are all totals.
pub struct Outcome {
    pub elapsed: Duration,
    pub totals: Totals,
    pub codes: BTreeMap<i16, u64>,
    /// Of requests; empty where nothing was asked for.
    pub latencies: Latencies,
    /// End to end: from due to received, for each record.
    pub end_to_end: Option<Latencies>,
    /// Of probes, if there were any: from sent to acknowledged.
    pub probes: Option<Latencies>,
    /// Of the brokers, all together, if they were named.
    pub broker: Option<Usage>,
    /// Of this process.
    pub generator: Usage,
    /// What each step of time brought, `step` long.
    pub steps: Vec<Totals>,
    /// Latencies of each step.
    pub series: Vec<Brief>,
    pub step: Duration,
    /// What consumers found.
    pub checked: Checked,
    /// Over the whole run, warm-up and end included: acknowledged or received, and sent.
    pub whole: Totals,
    pub sent_records: u64,
}
