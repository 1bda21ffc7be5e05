//! What a run counts: totals that all connections share, latencies that each keeps for itself.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Latencies beyond are told as this: ten minutes, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;

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
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record_n(micros.max(1), times);
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

/// What the connections of a run share.
#[derive(Default)]
pub struct Board {
    phase: AtomicU8,
    records: AtomicU64,
    bytes: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    codes: Mutex<BTreeMap<i16, u64>>,
    /// Connections that have nothing more to do.
    ended: AtomicUsize,
    failed: AtomicBool,
}

impl Board {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measured,
            _ => Phase::Over,
        }
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub fn note_request(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn note_error(&self, code: i16) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.codes.lock().expect("no thread panics while it counts").entry(code).or_default() += 1;
    }

    pub fn totals(&self) -> Totals {
        Totals {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }

    /// Error codes with how often they came.
    pub fn codes(&self) -> BTreeMap<i16, u64> {
        self.codes.lock().expect("no thread panics while it counts").clone()
    }

    pub fn lane_ended(&self, failed: bool) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_or(failed, Ordering::Relaxed);
    }

    /// Nothing more will come: a connection failed, or all of so many have done what they had to.
    pub fn has_ended(&self, lanes: usize) -> bool {
        self.failed.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed) >= lanes
    }
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
    /// Of the brokers, all together, if they were named.
    pub broker: Option<Usage>,
    /// Of this process.
    pub generator: Usage,
    /// For each second: what it brought.
    pub seconds: Vec<Totals>,
}
