//! Every setting of a topic, in Kafka 3.9's names, types and defaults.

use super::reason::{APPENDED, FORMAT, NO_TIERS, ONE_REPLICA, QUOTAS, SOLO, TIERED};
use crate::base::config::key::Check::{Any, AtLeast, Between, GzipLevel, MetadataVersion, OneOf, ThrottledReplicas};
use crate::base::config::key::Effect::{Built, NoEffect, NotBuilt};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "cleanup.policy": List = "delete", OneOf(&["compact", "delete"]), ClusterWide, Built,
        "What becomes of old segments: delete removes them, compact keeps the latest record of each key, or both";
    "compression.gzip.level": Int = "-1", GzipLevel, ClusterWide, Built,
        "Level of gzip where compression.type is gzip; -1 is the codec's own";
    "compression.lz4.level": Int = "9", Between(1, 17), ClusterWide, Built,
        "Level of lz4 where compression.type is lz4";
    "compression.type": Str = "producer",
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), ClusterWide, Built,
        "Codec of stored batches; producer keeps each as it came";
    "compression.zstd.level": Int = "3", Between(-131_072, 22), ClusterWide, Built,
        "Level of zstd where compression.type is zstd";
    "delete.retention.ms": Long = "86400000", AtLeast(0), ClusterWide, Built,
        "How long tombstones are kept";
    "file.delete.delay.ms": Long = "60000", AtLeast(0), ClusterWide, Built,
        "How long a deleted segment's file remains";
    "flush.messages": Long = "9223372036854775807", AtLeast(1), ClusterWide, Built,
        "Records after which the partition is flushed to disk";
    "flush.ms": Long = "9223372036854775807", AtLeast(0), ClusterWide, Built,
        "Time after which the partition is flushed to disk";
    "follower.replication.throttled.replicas": List = "", ThrottledReplicas, ClusterWide, NoEffect(QUOTAS),
        "Replicas whose followers are throttled";
    "index.interval.bytes": Int = "4096", AtLeast(0), ClusterWide, Built,
        "Bytes between entries of the offset index";
    "leader.replication.throttled.replicas": List = "", ThrottledReplicas, ClusterWide, NoEffect(QUOTAS),
        "Replicas whose leaders are throttled";
    "local.retention.bytes": Long = "-2", AtLeast(-2), ClusterWide, NoEffect(NO_TIERS),
        "Bytes that stay local after the copy to remote storage";
    "local.retention.ms": Long = "-2", AtLeast(-2), ClusterWide, NoEffect(NO_TIERS),
        "How long segments stay local after the copy to remote storage";
    "max.compaction.lag.ms": Long = "9223372036854775807", AtLeast(1), ClusterWide, Built,
        "Age at which a record must be compacted";
    "max.message.bytes": Int = "1048588", AtLeast(0), ClusterWide, Built,
        "Largest record batch that is taken";
    "message.downconversion.enable": Bool = "true", Any, ClusterWide, NoEffect(FORMAT),
        "Whether batches are rewritten for clients of before 0.11";
    "message.format.version": Str = "3.0-IV1", MetadataVersion, ClusterWide, NoEffect(FORMAT),
        "Record format to write; Kafka itself ignores it since 3.0";
    "message.timestamp.after.max.ms": Long = "9223372036854775807", AtLeast(0), ClusterWide, Built,
        "Most that a record's timestamp may lie after the broker's clock";
    "message.timestamp.before.max.ms": Long = "9223372036854775807", AtLeast(0), ClusterWide, Built,
        "Most that a record's timestamp may lie before the broker's clock";
    "message.timestamp.difference.max.ms": Long = "9223372036854775807", AtLeast(0), ClusterWide, Built,
        "Most that a record's timestamp may differ from the broker's clock, older name";
    "message.timestamp.type": Str = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), ClusterWide, Built,
        "Whose clock stamps a record: the producer's or the broker's";
    "min.cleanable.dirty.ratio": Double = "0.5", Between(0, 1), ClusterWide, Built,
        "Share of uncompacted bytes that makes compaction worthwhile";
    "min.compaction.lag.ms": Long = "0", AtLeast(0), ClusterWide, Built,
        "Age before which a record is not compacted";
    "min.insync.replicas": Int = "1", AtLeast(1), ClusterWide, NoEffect(ONE_REPLICA),
        "In-sync replicas that acks=all needs to be acknowledged";
    "preallocate": Bool = "false", Any, ClusterWide, NoEffect(APPENDED),
        "Whether a new segment's space is reserved at once";
    "remote.log.copy.disable": Bool = "false", Any, ClusterWide, NoEffect(NO_TIERS),
        "Whether copying to remote storage has ended";
    "remote.log.delete.on.disable": Bool = "false", Any, ClusterWide, NoEffect(NO_TIERS),
        "Whether remote segments go when remote storage is switched off";
    "remote.storage.enable": Bool = "false", Any, ClusterWide, NotBuilt(TIERED),
        "Whether old segments move to remote storage";
    "retention.bytes": Long = "-1", Any, ClusterWide, Built,
        "Bytes kept of each partition, -1 for all";
    "retention.ms": Long = "604800000", AtLeast(-1), ClusterWide, Built,
        "How long records are kept, -1 for ever";
    "segment.bytes": Int = "1073741824", AtLeast(14), ClusterWide, Built,
        "Size at which the next segment file begins";
    "segment.index.bytes": Int = "10485760", AtLeast(4), ClusterWide, Built,
        "Largest offset index; a full one begins the next segment";
    "segment.jitter.ms": Long = "0", AtLeast(0), ClusterWide, Built,
        "Up to this much is taken off segment.ms at random";
    "segment.ms": Long = "604800000", AtLeast(1), ClusterWide, Built,
        "Age at which the next segment file begins";
    "unclean.leader.election.enable": Bool = "false", Any, ClusterWide, NoEffect(SOLO),
        "Whether a replica that may lack records can become leader";
};
