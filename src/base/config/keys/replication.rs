//! Replicas, leaders, and the quotas on moving them.

use super::reason::{JAVA, QUOTAS, SHARDS, SOLO};
use crate::base::config::key::Check::{Any, AtLeast, MetadataVersion};
use crate::base::config::key::Effect::{NoEffect, NotBuilt};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "controller.socket.timeout.ms": Int = "30000", Any, ReadOnly, NoEffect(SOLO),
        "Patience of the controller for a broker's answer";
    "replica.lag.time.max.ms": Long = "30000", Any, ReadOnly, NoEffect(SOLO),
        "A follower that lags for longer leaves the in-sync replicas";
    "replica.socket.timeout.ms": Int = "30000", Any, ReadOnly, NoEffect(SOLO),
        "Patience of a follower for the leader's answer";
    "replica.socket.receive.buffer.bytes": Int = "65536", Any, ReadOnly, NoEffect(SOLO),
        "SO_RCVBUF of a follower's connection";
    "replica.fetch.max.bytes": Int = "1048576", AtLeast(0), ReadOnly, NoEffect(SOLO),
        "Bytes a follower fetches of one partition";
    "replica.fetch.wait.max.ms": Int = "500", Any, ReadOnly, NoEffect(SOLO),
        "How long a follower's fetch may wait";
    "replica.fetch.backoff.ms": Int = "1000", AtLeast(0), ReadOnly, NoEffect(SOLO),
        "Pause of a follower after an error";
    "replica.fetch.min.bytes": Int = "1", Any, ReadOnly, NoEffect(SOLO),
        "Bytes a follower's fetch waits for";
    "replica.fetch.response.max.bytes": Int = "10485760", AtLeast(0), ReadOnly, NoEffect(SOLO),
        "Bytes a follower fetches at once";
    "num.replica.fetchers": Int = "1", Any, ClusterWide, NoEffect(SOLO),
        "Connections to each leader";
    "replica.high.watermark.checkpoint.interval.ms": Long = "5000", Any, ReadOnly, NoEffect(SOLO),
        "How often high watermarks are written";
    "fetch.purgatory.purge.interval.requests": Int = "1000", Any, ReadOnly, NoEffect(SHARDS),
        "Finished fetches kept before they are cleared away";
    "producer.purgatory.purge.interval.requests": Int = "1000", Any, ReadOnly, NoEffect(SHARDS),
        "Finished produce requests kept before they are cleared away";
    "delete.records.purgatory.purge.interval.requests": Int = "1", Any, ReadOnly, NoEffect(SHARDS),
        "Finished deletions kept before they are cleared away";
    "auto.leader.rebalance.enable": Bool = "true", Any, ReadOnly, NoEffect(SOLO),
        "Whether leadership returns to preferred replicas by itself";
    "leader.imbalance.per.broker.percentage": Int = "10", Any, ReadOnly, NoEffect(SOLO),
        "Share of leaders elsewhere that makes it return";
    "leader.imbalance.check.interval.seconds": Long = "300", AtLeast(1), ReadOnly, NoEffect(SOLO),
        "How often that is checked";
    "unclean.leader.election.interval.ms": Long = "300000", AtLeast(1), ReadOnly, NoEffect(SOLO),
        "How often partitions without a leader are looked at", internal;
    "unclean.leader.election.enable": Bool = "false", Any, ClusterWide, NoEffect(SOLO),
        "Whether a replica that may lack records can become leader";
    "inter.broker.protocol.version": Str = "3.9-IV0", MetadataVersion, ReadOnly, NoEffect(SOLO),
        "Protocol that brokers use among themselves";
    "replica.selector.class": Str = null, Any, ReadOnly, NotBuilt(JAVA),
        "Class that picks the replica that a consumer reads";
    "leader.replication.throttled.rate": Long = "9223372036854775807", AtLeast(0), ClusterWide, NoEffect(QUOTAS),
        "Bytes a second that a leader sends for throttled replicas";
    "follower.replication.throttled.rate": Long = "9223372036854775807", AtLeast(0), ClusterWide, NoEffect(QUOTAS),
        "Bytes a second that a follower fetches for throttled replicas";
    "replica.alter.log.dirs.io.max.bytes.per.second": Long = "9223372036854775807",
        AtLeast(0), ClusterWide, NoEffect(QUOTAS),
        "Bytes a second of moves between directories";
};
