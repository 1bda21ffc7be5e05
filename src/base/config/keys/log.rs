//! Segments, retention, flushing, timestamps, compaction.

use super::reason::{APPENDED, FORMAT, MAINTENANCE, SHARDS, STREAMS};
use crate::base::config::key::Check::{Any, AtLeast, Between, MetadataVersion, OneOf};
use crate::base::config::key::Effect::{Built, NoEffect};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "log.dir": Str = "./corelog-data", Any, ReadOnly, Built,
        "Data directory where log.dirs is not set";
    "log.dirs": Str = null, Any, ReadOnly, Built,
        "Data directories, separated by commas";
    "log.segment.bytes": Int = "1073741824", AtLeast(14), ClusterWide, Built,
        "Size at which the next segment file begins";
    "log.roll.ms": Long = null, Any, ClusterWide, Built,
        "Age at which the next segment file begins; comes before log.roll.hours";
    "log.roll.hours": Int = "168", AtLeast(1), ReadOnly, Built,
        "Age at which the next segment file begins";
    "log.roll.jitter.ms": Long = null, Any, ClusterWide, Built,
        "Up to this much is taken off that age at random; comes before log.roll.jitter.hours";
    "log.roll.jitter.hours": Int = "0", AtLeast(0), ReadOnly, Built,
        "Up to this much is taken off that age at random";
    "log.retention.ms": Long = null, Any, ClusterWide, Built,
        "How long records are kept, -1 for ever; comes before .minutes and .hours";
    "log.retention.minutes": Int = null, Any, ReadOnly, Built,
        "How long records are kept; comes before log.retention.hours";
    "log.retention.hours": Int = "168", Any, ReadOnly, Built,
        "How long records are kept";
    "log.retention.bytes": Long = "-1", Any, ClusterWide, Built,
        "Bytes kept of each partition, -1 for all";
    "log.retention.check.interval.ms": Long = "300000", AtLeast(1), ReadOnly, Built,
        "How often segments are checked for deletion";
    "log.cleanup.policy": List = "delete", OneOf(&["compact", "delete"]), ClusterWide, Built,
        "What becomes of old segments: delete removes them, compact keeps the latest record of each key, or both";
    "log.index.size.max.bytes": Int = "10485760", AtLeast(4), ClusterWide, Built,
        "Largest offset index; a full one begins the next segment";
    "log.index.interval.bytes": Int = "4096", AtLeast(0), ClusterWide, Built,
        "Bytes between entries of the offset index";
    "log.flush.interval.messages": Long = "9223372036854775807", AtLeast(1), ClusterWide, Built,
        "Records after which a partition is flushed to disk";
    "log.flush.interval.ms": Long = null, Any, ClusterWide, Built,
        "Time after which a partition is flushed to disk; unset: log.flush.scheduler.interval.ms";
    "log.flush.scheduler.interval.ms": Long = "9223372036854775807", Any, ReadOnly, Built,
        "How often partitions are checked for a due flush";
    "log.flush.offset.checkpoint.interval.ms": Int = "60000", AtLeast(0), ReadOnly, Built,
        "How often recovery points are written";
    "log.flush.start.offset.checkpoint.interval.ms": Int = "60000", AtLeast(0), ReadOnly, Built,
        "How often log start offsets are written";
    "log.segment.delete.delay.ms": Long = "60000", AtLeast(0), ClusterWide, Built,
        "How long a deleted segment's file remains";
    "log.preallocate": Bool = "false", Any, ClusterWide, NoEffect(APPENDED),
        "Whether a new segment's space is reserved at once";
    "log.initial.task.delay.ms": Long = "30000", AtLeast(0), ReadOnly, Built,
        "Pause after the start before retention and checkpoints begin", internal;
    "log.message.format.version": Str = "3.0-IV1", MetadataVersion, ReadOnly, NoEffect(FORMAT),
        "Record format to write; Kafka itself ignores it since 3.0";
    "log.message.timestamp.type": Str = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), ClusterWide, Built,
        "Whose clock stamps a record: the producer's or the broker's";
    "log.message.timestamp.difference.max.ms": Long = "9223372036854775807", AtLeast(0), ClusterWide, Built,
        "Most that a record's timestamp may differ from the broker's clock, older name";
    "log.message.timestamp.before.max.ms": Long = "9223372036854775807", AtLeast(0), ClusterWide, Built,
        "Most that a record's timestamp may lie before the broker's clock";
    "log.message.timestamp.after.max.ms": Long = "9223372036854775807", AtLeast(0), ClusterWide, Built,
        "Most that a record's timestamp may lie after the broker's clock";
    "log.message.downconversion.enable": Bool = "true", Any, ClusterWide, NoEffect(FORMAT),
        "Whether batches are rewritten for clients of before 0.11";
    "num.recovery.threads.per.data.dir": Int = "1", AtLeast(1), ClusterWide, NoEffect(SHARDS),
        "Threads that check segments after a crash";
    "producer.id.expiration.ms": Int = "86400000", AtLeast(1), ClusterWide, Built,
        "How long an idle idempotent producer is remembered";
    "producer.id.expiration.check.interval.ms": Int = "600000", AtLeast(1), ReadOnly, Built,
        "How often producers are checked for that", internal;
    "log.cleaner.enable": Bool = "true", Any, ReadOnly, Built,
        "Whether compaction runs";
    "log.cleaner.threads": Int = "1", AtLeast(0), ClusterWide, NoEffect(MAINTENANCE),
        "Threads that compact";
    "log.cleaner.io.max.bytes.per.second": Double = "1.7976931348623157E308", Any, ClusterWide, Built,
        "Most that compaction reads and writes";
    "log.cleaner.dedupe.buffer.size": Long = "134217728", Any, ClusterWide, Built,
        "Memory for the keys that a pass of compaction has seen, 24 bytes each";
    "log.cleaner.io.buffer.size": Int = "524288", AtLeast(0), ClusterWide, NoEffect(STREAMS),
        "Buffers of compaction";
    "log.cleaner.io.buffer.load.factor": Double = "0.9", Any, ClusterWide, Built,
        "How full the table of keys may become";
    "log.cleaner.backoff.ms": Long = "15000", AtLeast(0), ClusterWide, Built,
        "Pause when there is nothing to compact";
    "log.cleaner.min.cleanable.ratio": Double = "0.5", Between(0, 1), ClusterWide, Built,
        "Share of uncompacted bytes that makes compaction worthwhile";
    "log.cleaner.delete.retention.ms": Long = "86400000", AtLeast(0), ClusterWide, Built,
        "How long tombstones are kept";
    "log.cleaner.min.compaction.lag.ms": Long = "0", AtLeast(0), ClusterWide, Built,
        "Age before which a record is not compacted";
    "log.cleaner.max.compaction.lag.ms": Long = "9223372036854775807", AtLeast(1), ClusterWide, Built,
        "Age at which a record must be compacted";
};
