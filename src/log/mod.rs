//! The log of a partition: batches in segments, found by offset and by time.

pub mod checkpoint;
pub mod core;
pub mod epochs;
pub mod file;
pub mod index;
pub mod open;
pub mod open_files;
pub mod paths;
pub mod producers;
pub mod read;
pub mod retain;
pub mod scan;
pub mod segment;
#[cfg(test)]
pub mod testing;
pub mod times;
