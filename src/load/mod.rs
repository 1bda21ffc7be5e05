//! A load generator for any Kafka-compatible cluster, which costs a small part of what it measures: batches are built before
//! the clock starts, each connection has a thread of its own that writes many requests at a time, and answers are only skimmed.
//!
//! - `plan` says what to do and when each request is due, `frames` holds the bytes; both are pure.
//! - `lane` drives one connection, `measure` counts, `run` starts and ends it all.
//!
//! # Latency without coordinated omission
//! With a rate, each request has the time at which it is due, whatever became of those before it, and its latency counts from then:
//! a broker that stops for a second is charged for every request that was due in that second. Without a rate the loop is closed:
//! a connection keeps `depth` requests in flight, and latency counts from sending.

mod frames;
mod lane;
pub mod measure;
pub mod plan;
mod process;
mod run;

pub use run::{LoadError, Progress, run};
