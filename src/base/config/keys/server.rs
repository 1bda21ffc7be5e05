//! The node itself: identity, topics, requests, quotas, metrics.

use super::reason::{JAVA, LISTENERS, METRICS, ONE_REPLICA, QUOTAS, REPLICATION, SHARDS, SOLO, UNSERVED, UNSTABLE};
use crate::base::config::key::Check::{Any, AtLeast, Between, GzipLevel, OneOf};
use crate::base::config::key::Effect::{Built, NoEffect, NotBuilt};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "broker.id": Int = "-1", Any, ReadOnly, Built,
        "The node's id, fixed when the data directories are formatted; each shard serves as broker id * 1000 + shard";
    "node.id": Int = "-1", Any, ReadOnly, Built,
        "Another name of broker.id";
    "broker.id.generation.enable": Bool = "true", Any, ReadOnly, NoEffect(SOLO),
        "Whether ZooKeeper hands out ids to brokers without one";
    "reserved.broker.max.id": Int = "1000", AtLeast(0), ReadOnly, NoEffect(SOLO),
        "Highest id that may be given by hand where ids are handed out";
    "broker.rack": Str = null, Any, ReadOnly, Built,
        "Failure domain of this node, told to clients and used when replicas are placed";
    "message.max.bytes": Int = "1048588", AtLeast(0), ClusterWide, Built,
        "Largest record batch that a topic takes unless it says otherwise";
    "num.partitions": Int = "1", AtLeast(1), ReadOnly, Built,
        "Partitions of a topic that is created without a count";
    "auto.create.topics.enable": Bool = "true", Any, ReadOnly, Built,
        "Whether asking for the metadata of an unknown topic creates it";
    "delete.topic.enable": Bool = "true", Any, ReadOnly, Built,
        "Whether topics can be deleted";
    "default.replication.factor": Int = "1", Any, ReadOnly, NotBuilt(REPLICATION),
        "Replicas of a topic that is created without a count";
    "min.insync.replicas": Int = "1", AtLeast(1), ClusterWide, NoEffect(ONE_REPLICA),
        "In-sync replicas that acks=all needs to be acknowledged";
    "compression.type": Str = "producer",
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), ClusterWide, Built,
        "Codec of stored batches; producer keeps each as it came";
    "compression.gzip.level": Int = "-1", GzipLevel, ClusterWide, Built,
        "Level of gzip where the broker compresses; -1 is the codec's own";
    "compression.lz4.level": Int = "9", Between(1, 17), ClusterWide, Built,
        "Level of lz4 where the broker compresses";
    "compression.zstd.level": Int = "3", Between(-131_072, 22), ClusterWide, Built,
        "Level of zstd where the broker compresses";
    "fetch.max.bytes": Int = "57671680", AtLeast(1024), ReadOnly, Built,
        "Most bytes that one fetch answer may carry, whatever the client asks";
    "max.incremental.fetch.session.cache.slots": Int = "1000", AtLeast(0), ReadOnly, Built,
        "Fetch sessions kept at once by a node (KIP-227)";
    "max.request.partition.size.limit": Int = "2000", AtLeast(1), ReadOnly, NoEffect(UNSERVED),
        "Partitions in one answer of DescribeTopicPartitions";
    "request.timeout.ms": Int = "30000", Any, ReadOnly, NoEffect(SOLO),
        "How long a request between brokers may take";
    "background.threads": Int = "10", AtLeast(1), ClusterWide, NoEffect(SHARDS),
        "Threads for background work";
    "num.io.threads": Int = "8", AtLeast(1), ClusterWide, NoEffect(SHARDS),
        "Threads that handle requests";
    "num.replica.alter.log.dirs.threads": Int = null, Any, ReadOnly, NoEffect(SHARDS),
        "Threads that move replicas between directories";
    "socket.connection.setup.timeout.ms": Long = "10000", Any, ReadOnly, NoEffect(SOLO),
        "First patience for a connection to another broker";
    "socket.connection.setup.timeout.max.ms": Long = "30000", Any, ReadOnly, NoEffect(SOLO),
        "Longest patience for a connection to another broker";
    "early.start.listeners": Str = null, Any, ReadOnly, NotBuilt(LISTENERS),
        "Listeners opened before the authorizer is ready";
    "controlled.shutdown.enable": Bool = "true", Any, ReadOnly, NoEffect(SOLO),
        "Whether leaders move away before a broker stops";
    "controlled.shutdown.max.retries": Int = "3", Any, ReadOnly, NoEffect(SOLO),
        "Attempts to move leaders away";
    "controlled.shutdown.retry.backoff.ms": Long = "5000", Any, ReadOnly, NoEffect(SOLO),
        "Pause between attempts to move leaders away";
    "unstable.api.versions.enable": Bool = "false", Any, ReadOnly, NotBuilt(UNSTABLE),
        "Whether unfinished versions of APIs are served", internal;
    "unstable.feature.versions.enable": Bool = "false", Any, ReadOnly, NotBuilt(UNSTABLE),
        "Whether unfinished feature versions may be used", internal;
    "create.topic.policy.class.name": Class = null, Any, ReadOnly, NotBuilt(JAVA),
        "Class that decides whether a topic may be created";
    "alter.config.policy.class.name": Class = null, Any, ReadOnly, NotBuilt(JAVA),
        "Class that decides whether settings may be altered";
    "client.quota.callback.class": Class = null, Any, ReadOnly, NotBuilt(JAVA),
        "Class that decides which quota applies";
    "quota.window.num": Int = "11", AtLeast(1), ReadOnly, NoEffect(QUOTAS),
        "Samples kept for client quotas";
    "quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, NoEffect(QUOTAS),
        "Length of a client quota's sample";
    "replication.quota.window.num": Int = "11", AtLeast(1), ReadOnly, NoEffect(QUOTAS),
        "Samples kept for replication quotas";
    "replication.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, NoEffect(QUOTAS),
        "Length of a replication quota's sample";
    "alter.log.dirs.replication.quota.window.num": Int = "11", AtLeast(1), ReadOnly, NoEffect(QUOTAS),
        "Samples kept for quotas on moves between directories";
    "alter.log.dirs.replication.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, NoEffect(QUOTAS),
        "Length of a sample of those quotas";
    "controller.quota.window.num": Int = "11", AtLeast(1), ReadOnly, NoEffect(QUOTAS),
        "Samples kept for quotas on topic changes";
    "controller.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, NoEffect(QUOTAS),
        "Length of a sample of those quotas";
    "metric.reporters": List = "", Any, ClusterWide, NotBuilt(JAVA),
        "Classes that receive metrics";
    "metrics.num.samples": Int = "2", AtLeast(1), ReadOnly, NoEffect(METRICS),
        "Samples kept for a metric";
    "metrics.sample.window.ms": Long = "30000", AtLeast(1), ReadOnly, NoEffect(METRICS),
        "Length of a metric's sample";
    "metrics.recording.level": Str = "INFO", Any, ReadOnly, NoEffect(METRICS),
        "How detailed recorded metrics are";
    "auto.include.jmx.reporter": Bool = "true", Any, ReadOnly, NoEffect(METRICS),
        "Whether metrics appear in JMX unasked";
    "kafka.metrics.reporters": List = "", Any, ReadOnly, NotBuilt(JAVA),
        "Classes that receive the older kind of metrics";
    "kafka.metrics.polling.interval.secs": Int = "10", AtLeast(1), ReadOnly, NoEffect(METRICS),
        "How often those classes are called";
    "telemetry.max.bytes": Int = "1048576", AtLeast(1), ReadOnly, NoEffect(UNSERVED),
        "Largest push of client metrics (KIP-714)";
    "log.dir.failure.timeout.ms": Long = "30000", AtLeast(1), ReadOnly, NoEffect(SOLO),
        "How long a failed directory may stay unreported before the broker stops";
};
