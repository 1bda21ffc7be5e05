//! Why a setting has no effect, or is not built: one sentence each, for the user who set it.

pub(super) const SHARDS: &str = "each shard is one thread with queues of a fixed bound; see shards and cores";
pub(super) const SOLO: &str = "it concerns several nodes, and clusters are not built yet";
pub(super) const EMBEDDED: &str = "this node keeps its metadata itself";
pub(super) const QUORUM: &str = "it concerns Kafka's KRaft quorum, which this broker does not have";
pub(super) const GROUPS: &str = "consumer groups are served without it";
pub(super) const TRANSACTIONS: &str = "transactions are not built yet";
pub(super) const MAINTENANCE: &str = "one maintenance thread compacts one partition at a time";
pub(super) const STREAMS: &str = "compaction reads and writes by direct I/O, in chunks of a fixed size";
pub(super) const QUOTAS: &str = "quotas are not built yet";
pub(super) const METRICS: &str = "metrics are kept per shard, not by Kafka's metrics library";
pub(super) const UNSERVED: &str = "the API that it bounds is not served";
/// Since 3.7 Kafka asks for no more in-sync replicas than a partition has (KAFKA-15583).
pub(super) const ONE_REPLICA: &str = "no more in-sync replicas are asked for than a partition has, and each has one";
pub(super) const APPENDED: &str = "segments grow as they are written";
pub(super) const FORMAT: &str = "there is one record format, v2";
pub(super) const NO_TIERS: &str = "tiered storage is not built";
pub(super) const PLAIN: &str = "there is no authentication yet";

pub(super) const REPLICATION: &str = "replication is not built yet; leave it at 1";
pub(super) const LISTENERS: &str = "all listeners open together and serve the same; remove it";
pub(super) const SECURITY: &str =
    "TLS, SASL and authorization are not built yet; remove it, or keep this node off open networks";
pub(super) const ZOOKEEPER: &str =
    "clusters over ZooKeeper are not built yet; remove it: one node keeps its metadata itself";
pub(super) const KRAFT: &str = "this broker has no KRaft quorum; remove it: one node keeps its metadata itself";
pub(super) const JAVA: &str = "Java classes cannot be loaded; remove it";
pub(super) const UNSTABLE: &str = "there are no unfinished versions to enable; remove it";
pub(super) const RATE: &str = "limiting the rate of connections is not built yet; use max.connections";
pub(super) const TIERED: &str = "tiered storage is not built; remove it";
