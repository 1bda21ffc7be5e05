//! Corelog: a Kafka-compatible storage node in which every core is a broker.
//!
//! The modules stand in rank order, an empty line between two ranks: a module imports only from lower ranks, above it.
//! `ARCHITECTURE.md` is the map of the rooms; `tests/house.rs` keeps both true.

pub mod base;

pub mod record;
pub mod tuning;
pub mod wire;

pub mod coordination;
pub mod journal;
pub mod log;

pub mod cluster;
pub mod maintenance;

pub mod controller;
pub mod partition;

pub mod group;

pub mod api;

pub mod shard;

pub mod node;

pub mod client;

pub mod load;

pub mod cli;
