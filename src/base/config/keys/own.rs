//! Settings that Kafka does not have.

use crate::base::config::key::Check::{Any, Between, OneOf};
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
    "log.journal.bytes": Long = "67108864", Between(16 << 20, 4 << 30), ReadOnly, Built,
        "Size of each journal: one for each shard in each of log.dirs";
    "log.flush.policy": Str = "disk", OneOf(&["disk", "os"]), ReadOnly, Built,
        "What acks=all waits for: disk, or os for Kafka's own promise (memory of every in-sync replica)";
};
