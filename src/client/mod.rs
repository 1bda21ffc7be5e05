//! A blocking Kafka client for the operator's commands: administration, producing and consuming against any
//! Kafka-compatible cluster.
//!
//! What decides (batching, sequences, retries, partitioning) is pure and tested without sockets; what performs is plain
//! `std::net` and threads, because a command-line tool has no need of a runtime.

pub mod address;
pub mod admin;
pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod groups;
pub mod limits;
pub mod metadata;
pub mod offsets;
pub mod outage;
pub mod partitioner;
pub mod producer;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod fake;
