//! Tiered storage.

use super::reason::{NO_TIERS, TIERED};
use crate::base::config::key::Check::{Any, AtLeast, BetweenDouble, NonEmpty, PoolSize};
use crate::base::config::key::Effect::{NoEffect, NotBuilt};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "remote.log.storage.system.enable": Bool = "false", Any, ReadOnly, NotBuilt(TIERED),
        "Whether old segments may move to remote storage";
    "remote.log.storage.manager.impl.prefix": Str = "rsm.config.", NonEmpty, ReadOnly, NoEffect(NO_TIERS),
        "Prefix of the storage plugin's own settings";
    "remote.log.metadata.manager.impl.prefix": Str = "rlmm.config.", NonEmpty, ReadOnly, NoEffect(NO_TIERS),
        "Prefix of the metadata plugin's own settings";
    "remote.log.storage.manager.class.name": Str = null, NonEmpty, ReadOnly, NoEffect(NO_TIERS),
        "Class of the storage plugin";
    "remote.log.storage.manager.class.path": Str = null, Any, ReadOnly, NoEffect(NO_TIERS),
        "Where that class is";
    "remote.log.metadata.manager.class.name": Str = "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
        NonEmpty, ReadOnly, NoEffect(NO_TIERS),
        "Class of the metadata plugin";
    "remote.log.metadata.manager.class.path": Str = null, Any, ReadOnly, NoEffect(NO_TIERS),
        "Where that class is";
    "remote.log.metadata.manager.listener.name": Str = null, NonEmpty, ReadOnly, NoEffect(NO_TIERS),
        "Listener that the metadata plugin connects to";
    "remote.log.metadata.custom.metadata.max.bytes": Int = "128", AtLeast(0), ReadOnly, NoEffect(NO_TIERS),
        "Largest note of the storage plugin on a segment";
    "remote.log.index.file.cache.total.size.bytes": Long = "1073741824", AtLeast(1), ClusterWide, NoEffect(NO_TIERS),
        "Space for fetched indexes";
    "remote.log.manager.thread.pool.size": Int = "10", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "Threads for remote segments";
    "remote.log.manager.copier.thread.pool.size": Int = "-1", PoolSize, ReadOnly, NoEffect(NO_TIERS),
        "Threads that copy segments out";
    "remote.log.manager.expiration.thread.pool.size": Int = "-1", PoolSize, ReadOnly, NoEffect(NO_TIERS),
        "Threads that delete remote segments";
    "remote.log.manager.task.interval.ms": Long = "30000", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "How often segments are looked at for copying";
    "remote.log.manager.task.retry.backoff.ms": Long = "500", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "First pause after a failed copy", internal;
    "remote.log.manager.task.retry.backoff.max.ms": Long = "30000", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "Longest pause after a failed copy", internal;
    "remote.log.manager.task.retry.jitter": Double = "0.2", BetweenDouble(0.0, 0.5), ReadOnly, NoEffect(NO_TIERS),
        "Random share added to that pause", internal;
    "remote.log.reader.threads": Int = "10", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "Threads that read remote segments";
    "remote.log.reader.max.pending.tasks": Int = "100", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "Remote reads that may wait";
    "remote.log.manager.copy.max.bytes.per.second": Long = "9223372036854775807",
        AtLeast(1), ClusterWide, NoEffect(NO_TIERS),
        "Most that is copied out";
    "remote.log.manager.copy.quota.window.num": Int = "11", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "Samples kept for that";
    "remote.log.manager.copy.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "Length of such a sample";
    "remote.log.manager.fetch.max.bytes.per.second": Long = "9223372036854775807",
        AtLeast(1), ClusterWide, NoEffect(NO_TIERS),
        "Most that is read back";
    "remote.log.manager.fetch.quota.window.num": Int = "11", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "Samples kept for that";
    "remote.log.manager.fetch.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, NoEffect(NO_TIERS),
        "Length of such a sample";
    "remote.fetch.max.wait.ms": Int = "500", AtLeast(1), ClusterWide, NoEffect(NO_TIERS),
        "How long a fetch waits for a remote segment";
    "log.local.retention.ms": Long = "-2", AtLeast(-2), ClusterWide, NoEffect(NO_TIERS),
        "How long segments stay local after the copy";
    "log.local.retention.bytes": Long = "-2", AtLeast(-2), ClusterWide, NoEffect(NO_TIERS),
        "Bytes that stay local after the copy";
};
