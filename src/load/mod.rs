//! A load generator for any Kafka-compatible cluster, which costs a small part of what it measures: batches are built before
//! the clock starts, few threads drive all connections, many requests leave with one write, and answers are only skimmed.
//!
//! Pure:
//! - `plan` says what to do and when each request is due, `spread` which connection goes where, `skew` which partition is next.
//! - `batches` holds what is produced, `frames` requests, `outbox` what is to be sent of them; `identity` is an idempotent producer.
//! - `pipeline` decides when a producer sends, `reading` where a consumer reads.
//! - `cutter` cuts answers to produces, `skim` looks through answers to fetches while they pass.
//!
//! Performing:
//! - `link` is a socket, `lane` a connection with what it does, `crew` makes all of them, `engine` is a thread with its epoll.
//! - `measure` counts, `run` starts and ends it all.
//!
//! # Latency without coordinated omission
//! With a rate, each request has the time at which it is due, whatever became of those before it, and its latency counts from then:
//! a broker that stops for a second is charged for every request that was due in that second. Without a rate the loop is closed:
//! a connection keeps `depth` requests in flight, and latency counts from sending.

mod batches;
mod crew;
mod cutter;
mod engine;
mod error;
mod frames;
mod identity;
mod lane;
mod link;
pub mod measure;
mod outbox;
mod pipeline;
pub mod plan;
mod process;
mod reading;
mod run;
pub mod skew;
mod skim;
mod spread;

pub use error::LoadError;
pub use run::{Progress, run};
