//! Settings that Kafka does not have.

use crate::base::config::key::Check::{Any, AtLeast, Between, OneOf};
use crate::base::config::key::Effect::Built;
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "shards": Int = null, Between(1, 1000), ReadOnly, Built,
        "Brokers of this node, each with a port of its own; fixed at format, one per core unless given";
    "cores": Int = null, Between(1, 1000), ReadOnly, Built,
        "Cores that the shards run on; all that this process may use unless given";
    "shard.advertised.listeners": List = "", Any, ReadOnly, Built,
        "Addresses of single shards behind NAT: SHARD=NAME://host:port,…";
    "log.flush.method": Str = "journal", OneOf(&["journal", "fdatasync"]), ReadOnly, Built,
        "How records get to the disk before an answer: one write for all partitions of a shard, or a sync of each segment";
    "log.journal.bytes": Long = "67108864", Between(1 << 20, 4 << 30), ReadOnly, Built,
        "Size of each journal: one for each shard in each of log.dirs. A start after a crash holds all of them in memory";
    "log.scrub.enable": Bool = "true", Any, ClusterWide, Built,
        "Whether what lies on disk is read for damage in the background; false holds it where it is";
    "log.scrub.period.hours": Int = "168", Between(1, 87600), ClusterWide, Built,
        "A round that reads everything for damage begins so often";
    "log.scrub.max.bytes.per.second": Long = "33554432", AtLeast(1 << 16), ClusterWide, Built,
        "Limit of what a node reads for it";
    "log.scrub.begin.ms": Long = "0", AtLeast(0), ClusterWide, Built,
        "A moment, in ms since 1970: a round that began before it is begun anew";
    "log.flush.policy": Str = "disk", OneOf(&["disk", "os"]), ReadOnly, Built,
        "What acks=all waits for: disk, or os for Kafka's own promise (memory of every in-sync replica)";
};
