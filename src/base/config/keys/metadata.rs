//! ZooKeeper and Kafka's own quorum.

use super::reason::{EMBEDDED, KRAFT, QUORUM, SECURITY, ZOOKEEPER};
use crate::base::config::key::Check::{Any, AtLeast, OneOf};
use crate::base::config::key::Effect::{NoEffect, NotBuilt};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "zookeeper.connect": Str = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Addresses of a ZooKeeper ensemble";
    "zookeeper.session.timeout.ms": Int = "18000", Any, ReadOnly, NoEffect(EMBEDDED),
        "How long a silent broker counts as alive";
    "zookeeper.connection.timeout.ms": Int = null, Any, ReadOnly, NoEffect(EMBEDDED),
        "Patience for the first connection to ZooKeeper";
    "zookeeper.set.acl": Bool = "false", Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Whether nodes are written with access rules";
    "zookeeper.max.in.flight.requests": Int = "10", AtLeast(1), ReadOnly, NoEffect(EMBEDDED),
        "Unanswered requests to ZooKeeper";
    "zookeeper.ssl.client.enable": Bool = "false", Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Whether ZooKeeper is reached by TLS";
    "zookeeper.clientCnxnSocket": Str = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Java class of the connection to ZooKeeper";
    "zookeeper.ssl.keystore.location": Str = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Key store for ZooKeeper";
    "zookeeper.ssl.keystore.password": Password = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Its password";
    "zookeeper.ssl.keystore.type": Str = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Its format";
    "zookeeper.ssl.truststore.location": Str = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Trust store for ZooKeeper";
    "zookeeper.ssl.truststore.password": Password = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Its password";
    "zookeeper.ssl.truststore.type": Str = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Its format";
    "zookeeper.ssl.protocol": Str = "TLSv1.2", Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "TLS version for ZooKeeper";
    "zookeeper.ssl.enabled.protocols": List = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "TLS versions that may be agreed on with ZooKeeper";
    "zookeeper.ssl.cipher.suites": List = null, Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Cipher suites for ZooKeeper";
    "zookeeper.ssl.endpoint.identification.algorithm": Str = "HTTPS", Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Whether ZooKeeper's host name is verified";
    "zookeeper.ssl.crl.enable": Bool = "false", Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Whether revocation lists are checked";
    "zookeeper.ssl.ocsp.enable": Bool = "false", Any, ReadOnly, NotBuilt(ZOOKEEPER),
        "Whether revocation is asked for online";
    "zookeeper.metadata.migration.enable": Bool = "false", Any, ReadOnly, NotBuilt(KRAFT),
        "Whether a move from ZooKeeper to KRaft is under way";
    "zookeeper.metadata.migration.min.batch.size": Int = "200", AtLeast(1), ReadOnly, NoEffect(QUORUM),
        "Records a batch of that move", internal;
    "process.roles": List = "", OneOf(&["broker", "controller"]), ReadOnly, NotBuilt(KRAFT),
        "Roles of a KRaft node";
    "controller.quorum.voters": List = "", Any, ReadOnly, NotBuilt(KRAFT),
        "Voters of a KRaft quorum";
    "controller.quorum.bootstrap.servers": List = "", Any, ReadOnly, NotBuilt(KRAFT),
        "Addresses to find a KRaft quorum";
    "controller.listener.names": Str = null, Any, ReadOnly, NotBuilt(KRAFT),
        "Listeners of KRaft controllers";
    "sasl.mechanism.controller.protocol": Str = "GSSAPI", Any, ReadOnly, NotBuilt(SECURITY),
        "SASL mechanism towards KRaft controllers";
    "initial.broker.registration.timeout.ms": Int = "60000", Any, ReadOnly, NoEffect(QUORUM),
        "Patience for registering with the quorum";
    "broker.heartbeat.interval.ms": Int = "2000", Any, ReadOnly, NoEffect(QUORUM),
        "Heartbeats to the quorum";
    "broker.session.timeout.ms": Int = "9000", Any, ReadOnly, NoEffect(QUORUM),
        "How long a silent broker counts as alive";
    "metadata.log.dir": Str = null, Any, ReadOnly, NoEffect(QUORUM),
        "Directory of the metadata log";
    "metadata.log.segment.bytes": Int = "1073741824", AtLeast(12), ReadOnly, NoEffect(QUORUM),
        "Segment size of the metadata log";
    "metadata.log.segment.min.bytes": Int = "8388608", AtLeast(12), ReadOnly, NoEffect(QUORUM),
        "Smallest such segment", internal;
    "metadata.log.segment.ms": Long = "604800000", Any, ReadOnly, NoEffect(QUORUM),
        "Age of a segment of the metadata log";
    "metadata.log.max.record.bytes.between.snapshots": Long = "20971520", AtLeast(1), ReadOnly, NoEffect(QUORUM),
        "Bytes of records between snapshots of metadata";
    "metadata.log.max.snapshot.interval.ms": Long = "3600000", AtLeast(0), ReadOnly, NoEffect(QUORUM),
        "Time between snapshots of metadata";
    "metadata.max.retention.bytes": Long = "104857600", Any, ReadOnly, NoEffect(QUORUM),
        "Bytes kept of the metadata log";
    "metadata.max.retention.ms": Long = "604800000", Any, ReadOnly, NoEffect(QUORUM),
        "How long the metadata log is kept";
    "metadata.max.idle.interval.ms": Int = "500", AtLeast(0), ReadOnly, NoEffect(QUORUM),
        "How often an idle quorum writes";
    "server.max.startup.time.ms": Long = "9223372036854775807", AtLeast(0), ReadOnly, NoEffect(QUORUM),
        "How long a start may wait for the quorum", internal;
    "eligible.leader.replicas.enable": Bool = "false", Any, ReadOnly, NotBuilt(KRAFT),
        "Whether eligible leader replicas are kept (KIP-966)";
    "controller.quorum.election.timeout.ms": Int = "1000", Any, ReadOnly, NoEffect(QUORUM),
        "Patience before an election";
    "controller.quorum.fetch.timeout.ms": Int = "2000", Any, ReadOnly, NoEffect(QUORUM),
        "Patience for the quorum's leader";
    "controller.quorum.election.backoff.max.ms": Int = "1000", Any, ReadOnly, NoEffect(QUORUM),
        "Longest pause between elections";
    "controller.quorum.append.linger.ms": Int = "25", Any, ReadOnly, NoEffect(QUORUM),
        "How long the quorum's leader collects writes";
    "controller.quorum.request.timeout.ms": Int = "2000", Any, ReadOnly, NoEffect(QUORUM),
        "Patience for a quorum request";
    "controller.quorum.retry.backoff.ms": Int = "20", Any, ReadOnly, NoEffect(QUORUM),
        "Pause before a quorum request is repeated";
};
