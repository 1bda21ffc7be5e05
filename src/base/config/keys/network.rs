//! Listeners and connections.

use super::reason::{LISTENERS, PLAIN, RATE, SECURITY, SHARDS};
use crate::base::config::key::Check::{Any, AtLeast, OneOf};
use crate::base::config::key::Effect::{Built, NoEffect, NotBuilt};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "listeners": Str = "PLAINTEXT://:9092", Any, PerBroker, Built,
        "Addresses to bind, NAME://host:port; shard s adds s to each port; no host means all addresses";
    "advertised.listeners": Str = null, Any, PerBroker, Built,
        "Addresses that clients are told; shard s adds s; unset: the address that the client connected to";
    "listener.security.protocol.map": Str = "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        Any, PerBroker, Built,
        "The protocol of each listener name; only PLAINTEXT is built";
    "control.plane.listener.name": Str = null, Any, ReadOnly, NotBuilt(LISTENERS),
        "Listener reserved for the controller";
    "inter.broker.listener.name": Str = null, Any, ReadOnly, Built,
        "Listener that brokers use among themselves";
    "security.inter.broker.protocol": Str = "PLAINTEXT",
        OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), ReadOnly, NotBuilt(SECURITY),
        "Protocol that brokers use among themselves";
    "socket.send.buffer.bytes": Int = "-1", Any, ReadOnly, Built,
        "SO_SNDBUF of client connections; -1 leaves it to the kernel";
    "socket.receive.buffer.bytes": Int = "-1", Any, ReadOnly, Built,
        "SO_RCVBUF of client connections; -1 leaves it to the kernel";
    "socket.request.max.bytes": Int = "104857600", AtLeast(1), ReadOnly, Built,
        "Largest request; a connection that announces more is closed";
    "socket.listen.backlog.size": Int = "50", AtLeast(1), ReadOnly, Built,
        "Connections that may wait to be accepted at a port";
    "max.connections": Int = "2147483647", AtLeast(0), ClusterWide, Built,
        "Connections that a shard keeps; more wait to be accepted";
    "max.connections.per.ip": Int = "2147483647", AtLeast(0), ClusterWide, Built,
        "Connections that a shard keeps from one address; more are closed";
    "max.connections.per.ip.overrides": Str = "", Any, ClusterWide, Built,
        "Other limits for named addresses: address:limit,…";
    "max.connection.creation.rate": Int = "2147483647", AtLeast(0), ClusterWide, NotBuilt(RATE),
        "Connections accepted a second";
    "connections.max.idle.ms": Long = "600000", Any, ReadOnly, Built,
        "A connection that is silent for this long is closed; negative: never";
    "connection.failed.authentication.delay.ms": Int = "100", AtLeast(0), ReadOnly, NoEffect(PLAIN),
        "Pause before a failed authentication is answered";
    "queued.max.requests": Int = "500", AtLeast(1), ReadOnly, NoEffect(SHARDS),
        "Requests that may wait for a thread";
    "queued.max.request.bytes": Long = "-1", Any, ReadOnly, NoEffect(SHARDS),
        "Bytes of requests that may wait for a thread; each connection has a fixed bound instead";
    "num.network.threads": Int = "3", AtLeast(1), ClusterWide, NoEffect(SHARDS),
        "Threads that read and write sockets";
};
