//! The log of a partition: batches in segments, found by offset and by time.

pub mod checkpoint;
pub mod epochs;
pub mod file;
pub mod index;
pub mod paths;
pub mod producers;
