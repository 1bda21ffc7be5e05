//! Consumer groups, share groups and transactions.

use super::reason::{GROUPS, TRANSACTIONS};
use crate::base::config::key::Check::{Any, AtLeast, Between, OneOf, OneOfAnyCase};
use crate::base::config::key::Effect::{Built, NoEffect};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "group.min.session.timeout.ms": Int = "6000", Any, ReadOnly, Built,
        "Shortest session timeout of a member";
    "group.max.session.timeout.ms": Int = "1800000", Any, ReadOnly, Built,
        "Longest session timeout of a member";
    "group.initial.rebalance.delay.ms": Int = "3000", Any, ReadOnly, Built,
        "How long a new group waits for more members";
    "group.max.size": Int = "2147483647", AtLeast(1), ReadOnly, Built,
        "Members that a group may have";
    "group.coordinator.rebalance.protocols": List = "classic",
        OneOf(&["consumer", "classic", "share", "unknown"]), ReadOnly, NoEffect(GROUPS),
        "Group protocols that are offered";
    "group.coordinator.threads": Int = "1", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "Threads of the new coordinator";
    "group.coordinator.append.linger.ms": Int = "10", AtLeast(0), ReadOnly, NoEffect(GROUPS),
        "How long the new coordinator collects writes";
    "group.coordinator.new.enable": Bool = "false", Any, ReadOnly, NoEffect(GROUPS),
        "Whether the new coordinator is used", internal;
    "offset.metadata.max.bytes": Int = "4096", Any, ReadOnly, Built,
        "Largest note beside a committed offset";
    "offsets.load.buffer.size": Int = "5242880", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "Batch size when committed offsets are loaded";
    "offsets.topic.replication.factor": Short = "3", AtLeast(1), ReadOnly, Built,
        "Replicas of the topic of committed offsets";
    "offsets.topic.num.partitions": Int = "50", AtLeast(1), ReadOnly, Built,
        "Partitions of the topic of committed offsets";
    "offsets.topic.segment.bytes": Int = "104857600", AtLeast(1), ReadOnly, Built,
        "Segment size of that topic";
    "offsets.topic.compression.codec": Int = "0", Any, ReadOnly, NoEffect(GROUPS),
        "Codec of that topic, by number";
    "offsets.retention.minutes": Int = "10080", AtLeast(1), ReadOnly, Built,
        "How long an empty group's offsets are kept";
    "offsets.retention.check.interval.ms": Long = "600000", AtLeast(1), ReadOnly, Built,
        "How often offsets are checked for that";
    "offsets.commit.timeout.ms": Int = "5000", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "How long a commit may wait for replicas";
    "offsets.commit.required.acks": Short = "-1", Any, ReadOnly, NoEffect(GROUPS),
        "Acknowledgements that a commit waits for";
    "group.consumer.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, Built,
        "Session timeout of the new protocol (KIP-848)";
    "group.consumer.min.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, Built,
        "Shortest session timeout of the new protocol";
    "group.consumer.max.session.timeout.ms": Int = "60000", AtLeast(1), ReadOnly, Built,
        "Longest session timeout of the new protocol";
    "group.consumer.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, Built,
        "Heartbeat interval of the new protocol";
    "group.consumer.min.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, Built,
        "Shortest heartbeat interval of the new protocol";
    "group.consumer.max.heartbeat.interval.ms": Int = "15000", AtLeast(1), ReadOnly, Built,
        "Longest heartbeat interval of the new protocol";
    "group.consumer.max.size": Int = "2147483647", AtLeast(1), ReadOnly, Built,
        "Members of a group of the new protocol";
    "group.consumer.assignors": List = "org.apache.kafka.coordinator.group.assignor.UniformAssignor,org.apache.kafka.coordinator.group.assignor.RangeAssignor",
        OneOf(&[
            "org.apache.kafka.coordinator.group.assignor.UniformAssignor",
            "org.apache.kafka.coordinator.group.assignor.RangeAssignor",
            "uniform",
            "range",
        ]), ReadOnly, Built,
        "Assignors of the new protocol; the first is the default";
    "group.consumer.migration.policy": Str = "bidirectional",
        OneOfAnyCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]), ReadOnly, Built,
        "Whether groups move between the protocols", internal;
    "group.share.enable": Bool = "false", Any, ReadOnly, NoEffect(GROUPS),
        "Whether share groups are offered (KIP-932)", internal;
    "group.share.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "Session timeout in share groups";
    "group.share.min.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "Shortest session timeout in share groups";
    "group.share.max.session.timeout.ms": Int = "60000", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "Longest session timeout in share groups";
    "group.share.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "Heartbeat interval in share groups";
    "group.share.min.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "Shortest heartbeat interval in share groups";
    "group.share.max.heartbeat.interval.ms": Int = "15000", AtLeast(1), ReadOnly, NoEffect(GROUPS),
        "Longest heartbeat interval in share groups";
    "group.share.max.size": Short = "200", Between(10, 1000), ReadOnly, NoEffect(GROUPS),
        "Members of a share group";
    "group.share.max.groups": Short = "10", Between(1, 100), ReadOnly, NoEffect(GROUPS),
        "Share groups at once";
    "group.share.delivery.count.limit": Int = "5", Between(2, 10), ReadOnly, NoEffect(GROUPS),
        "Deliveries of a record before it is given up";
    "group.share.record.lock.duration.ms": Int = "30000", Between(1000, 60_000), ReadOnly, NoEffect(GROUPS),
        "How long a delivered record stays reserved";
    "group.share.min.record.lock.duration.ms": Int = "15000", Between(1000, 30_000), ReadOnly, NoEffect(GROUPS),
        "Shortest such reservation";
    "group.share.max.record.lock.duration.ms": Int = "60000", Between(30_000, 3_600_000), ReadOnly, NoEffect(GROUPS),
        "Longest such reservation";
    "group.share.partition.max.record.locks": Int = "200", Between(100, 10_000), ReadOnly, NoEffect(GROUPS),
        "Reserved records in one partition";
    "transaction.state.log.min.isr": Int = "2", AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "In-sync replicas that the transaction topic needs";
    "transaction.state.log.load.buffer.size": Int = "5242880", AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "Batch size when transactions are loaded";
    "transaction.state.log.replication.factor": Short = "3", AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "Replicas of the transaction topic";
    "transaction.state.log.num.partitions": Int = "50", AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "Partitions of the transaction topic";
    "transaction.state.log.segment.bytes": Int = "104857600", AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "Segment size of the transaction topic";
    "transaction.partition.verification.enable": Bool = "true", Any, ClusterWide, NoEffect(TRANSACTIONS),
        "Whether a partition must have joined its transaction (KIP-890)";
    "transactional.id.expiration.ms": Int = "604800000", AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "How long an idle transactional id is remembered";
    "transaction.max.timeout.ms": Int = "900000", AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "Longest timeout of a transaction";
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": Int = "10000",
        AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "How often late transactions are aborted";
    "transaction.remove.expired.transaction.cleanup.interval.ms": Int = "3600000",
        AtLeast(1), ReadOnly, NoEffect(TRANSACTIONS),
        "How often idle ids are forgotten";
};
