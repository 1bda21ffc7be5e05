//! Kafka's record batches (message format v2, KIP-98): reading, checking, building, compressing.
//!
//! Everything here is pure: no clock, no I/O. Bytes that come from a client or a disk never panic.

pub mod admission;
pub mod batch;
pub mod builder;
pub mod compression;
pub mod records;
pub mod rewrite;

#[cfg(test)]
mod tests;
