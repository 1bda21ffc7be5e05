//! What a run does, and when each of its requests is due. Pure.

use super::skew::Skew;
use crate::record::batch::Codec;
use crate::record::compression::Compression;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Each connection sends batches; latency is from due (or sent) to acknowledged.
    Produce,
    /// Each connection fetches one partition; latency is from asking to the whole answer.
    Consume,
    /// Each connection sends batches and another one reads them; latency is from due to received.
    EndToEnd,
    /// Producers, consumers at the end of their partitions, and probes: producers of one record at a time, each waiting for its answer.
    Mixed,
}

/// Values of records, by their bytes.
#[derive(Clone, Debug)]
pub enum Values {
    Fixed(u32),
    /// All sizes from one to the other are as frequent.
    Uniform {
        least: u32,
        most: u32,
    },
    /// Many short ones and few long ones.
    Exponential {
        mean: u32,
    },
    /// Those of a file, in order, over and over; at least one.
    Lines(Arc<[Bytes]>),
}

impl Values {
    /// The fewest bytes that a value has.
    pub fn least(&self) -> u32 {
        match self {
            Values::Fixed(bytes) => *bytes,
            Values::Uniform { least, .. } => *least,
            Values::Exponential { .. } | Values::Lines(_) => 0,
        }
    }

    /// The mean of their bytes.
    pub fn mean(&self) -> f64 {
        match self {
            Values::Fixed(bytes) => f64::from(*bytes),
            Values::Uniform { least, most } => (f64::from(*least) + f64::from(*most)) / 2.0,
            Values::Exponential { mean } => f64::from(*mean),
            Values::Lines(lines) => lines.iter().map(Bytes::len).sum::<usize>() as f64 / lines.len().max(1) as f64,
        }
    }
}

/// A run: what its connections do, on partitions that are spread over them.
#[derive(Clone, Debug)]
pub struct Plan {
    pub work: Work,
    pub topic: String,
    /// Of them all; where the work is mixed, of its producers.
    pub connections: u32,
    /// Of mixed work: connections that consume, and that probe.
    pub consumers: u32,
    pub probes: u32,
    /// Connections beside them that are open and do nothing.
    pub idle: u32,
    /// Threads that drive them.
    pub threads: u32,
    /// Requests in flight on a connection.
    pub depth: u32,
    /// Records a second of all connections (or producers) together; None: as fast as it goes.
    pub rate: Option<f64>,
    pub values: Values,
    /// Each record has one of so many keys, by chance; None: it has no key.
    pub keys: Option<u64>,
    pub batch_records: u32,
    /// One batch for each of so many partitions of the same broker goes into a request.
    pub partitions_per_request: u32,
    /// None: a connection's requests take turns over its partitions.
    pub skew: Option<Skew>,
    /// Each connection is an idempotent producer.
    pub idempotent: bool,
    /// Kafka's: 0, 1, or -1 for all.
    pub acks: i16,
    pub compression: Compression,
    /// Not measured.
    pub warm_up: Duration,
    pub measured: Duration,
    /// The measured part ends earlier when so many bytes of values have passed.
    pub bytes_max: Option<u64>,
    pub fetch: FetchPlan,
}

/// How consumers ask.
#[derive(Clone, Copy, Debug)]
pub struct FetchPlan {
    pub from: From,
    pub max_bytes: u32,
    pub min_bytes: u32,
    pub max_wait: Duration,
    /// Ends when every partition was read to its end; otherwise it begins again at its start.
    pub once: bool,
    /// Compute the CRC of every batch.
    pub verify: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Earliest,
    Latest,
}

/// A stamp takes the first bytes of a batch's first value.
pub const STAMP_BYTES: u32 = 8;

impl Plan {
    /// What is wrong with the plan, for the one who wrote it.
    pub fn check(&self) -> Result<(), String> {
        let rate_is_sane = self.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0);
        let faults = [
            (self.connections == 0, "at least one connection is needed"),
            (self.threads == 0, "at least one thread is needed"),
            (self.depth == 0, "at least one request must be in flight"),
            (self.batch_records == 0, "a batch needs at least one record"),
            (self.partitions_per_request == 0, "a request needs at least one partition"),
            (self.measured.is_zero(), "nothing is measured in no time"),
            (!rate_is_sane, "the rate must be a positive number of records a second"),
            (self.keys == Some(0), "with keys there must be at least one"),
            (
                self.keys.is_some() && self.compression.codec != Codec::None,
                "keys need uncompressed batches: each gets its own when it is sent",
            ),
            (
                matches!(self.values, Values::Uniform { least, most } if least > most),
                "of a range of sizes the first must not exceed the second",
            ),
            (matches!(&self.values, Values::Lines(lines) if lines.is_empty()), "there is nothing to replay"),
            (self.probes > 0 && self.acks == 0, "probes wait for answers, which acks=0 has none of"),
            (self.idempotent && self.acks != -1, "idempotent producers need acks=all"),
            (
                self.work == Work::EndToEnd && self.rate.is_none(),
                "end to end needs a rate: without one, latency is the length of the queue",
            ),
            (
                self.is_stamped() && self.values.least() < STAMP_BYTES,
                "end to end latency needs values of at least 8 bytes: they carry the time",
            ),
            (
                self.is_stamped() && self.compression.codec != Codec::None,
                "end to end latency needs uncompressed batches: each carries the time at which it was due",
            ),
        ];
        match faults.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, text)) => Err((*text).to_owned()),
            None => Ok(()),
        }
    }

    /// Whether consumers wait at the end of their partitions for what comes.
    pub fn stays_at_end(&self) -> bool {
        self.is_stamped() || self.fetch.from == From::Latest
    }

    /// Whether batches bear the time at which they were due, and their records are waited for.
    pub fn is_stamped(&self) -> bool {
        matches!(self.work, Work::EndToEnd | Work::Mixed)
    }

    /// Whether each request's batches differ from those of others.
    pub fn is_marked(&self) -> bool {
        self.is_stamped() || self.keys.is_some() || self.idempotent
    }

    /// Records that one request of a producer carries.
    pub fn request_records(&self) -> u64 {
        u64::from(self.batch_records) * u64::from(self.partitions_per_request)
    }

    /// When the requests of one connection are due, if the rate is given.
    pub fn pace(&self, connection: u32) -> Option<Pace> {
        let rate = self.rate?;
        let gap = self.request_records() as f64 * f64::from(self.connections) / rate;
        Some(Pace { gap, first: gap * f64::from(connection) / f64::from(self.connections) })
    }
}

/// When requests are due: evenly, and each connection at another moment.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Seconds from one request to the next, and to the first.
    gap: f64,
    first: f64,
}

impl Pace {
    /// From the start of the run to the request that bears this number, the first being 0.
    pub fn due(&self, number: u64) -> Duration {
        Duration::try_from_secs_f64(self.first + self.gap * number as f64).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn plan() -> Plan {
        Plan {
            work: Work::Produce,
            topic: "load".to_owned(),
            connections: 4,
            consumers: 0,
            probes: 0,
            idle: 0,
            threads: 1,
            depth: 1,
            rate: Some(1000.0),
            values: Values::Fixed(100),
            keys: None,
            batch_records: 10,
            partitions_per_request: 1,
            skew: None,
            idempotent: false,
            acks: 1,
            compression: Compression::NONE,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
            bytes_max: None,
            fetch: FetchPlan {
                from: From::Earliest,
                max_bytes: 1 << 20,
                min_bytes: 1,
                max_wait: Duration::from_millis(500),
                once: false,
                verify: false,
            },
        }
    }

    #[test]
    fn requests_are_due_evenly_and_connections_take_turns() {
        let plan = plan();
        let pace = |connection| plan.pace(connection).expect("a rate is given");
        assert_eq!(pace(0).due(0), Duration::ZERO);
        assert_eq!(pace(0).due(1), Duration::from_millis(40), "10 records of 1,000 a second on each fourth request");
        assert_eq!(pace(1).due(0), Duration::from_millis(10));
        assert_eq!(pace(3).due(25), Duration::from_millis(1030));
        assert!(Plan { rate: None, ..plan }.pace(0).is_none());
    }

    #[test]
    fn a_plan_that_cannot_be_carried_out_says_why() {
        assert_eq!(plan().check(), Ok(()));
        let e2e = Plan { work: Work::EndToEnd, ..plan() };
        assert_eq!(e2e.check(), Ok(()));
        assert_eq!(Plan { work: Work::Mixed, rate: None, ..plan() }.check(), Ok(()));
        let faults = [
            Plan { rate: None, ..e2e.clone() },
            Plan { values: Values::Fixed(7), ..e2e.clone() },
            Plan { values: Values::Exponential { mean: 100 }, ..e2e.clone() },
            Plan { work: Work::Mixed, values: Values::Fixed(7), rate: None, ..e2e.clone() },
            Plan { compression: Compression { codec: Codec::Lz4, level: 0 }, ..e2e },
            Plan { keys: Some(0), ..plan() },
            Plan { keys: Some(5), compression: Compression { codec: Codec::Lz4, level: 0 }, ..plan() },
            Plan { values: Values::Uniform { least: 9, most: 8 }, ..plan() },
            Plan { values: Values::Lines([].into()), ..plan() },
            Plan { idempotent: true, ..plan() },
            Plan { probes: 1, acks: 0, ..plan() },
            Plan { connections: 0, ..plan() },
            Plan { depth: 0, ..plan() },
            Plan { threads: 0, ..plan() },
            Plan { batch_records: 0, ..plan() },
            Plan { partitions_per_request: 0, ..plan() },
            Plan { measured: Duration::ZERO, ..plan() },
            Plan { rate: Some(0.0), ..plan() },
            Plan { rate: Some(f64::NAN), ..plan() },
        ];
        for fault in faults {
            assert!(fault.check().is_err(), "{fault:?}");
        }
    }
}
