//! The log of a partition: batches in segments, found by offset and by time.
//!
//! # What an append promises
//! A batch passes three ends, each a promise of its own (`core::LogCore`):
//!
//! ```text
//! log start ≤ flushed end ≤ written end ≤ staged end
//!             on disk       in the page   has its offset and its
//!                           cache         place in the order
//! ```
//!
//! - *staged*: the offset is final, the producer's sequence is noted. A retry from here on is recognised, and waits for
//!   the same ends as the first sending.
//! - *written*: the write has completed. Readers see the batch once the high watermark passes it; it survives the process.
//! - *flushed*: file and names are synced. It survives the machine.
//!
//! One write is in flight at a time, so batches become written in their order: what follows a torn batch was never
//! acknowledged. A write that fails, or a sync, ends all of it: nothing is taken, flushed or served any more until the log
//! is opened again, since what the disk holds beyond the flushed end is unknown then.
//!
//! # What a flush covers
//! A flush takes the written end as it is when it begins, syncs the segments from the flushed end on, then the names that
//! were made, and only then raises the flushed end. The *recovery point*, which a checkpoint keeps, is the flushed end too,
//! but never beyond a sealed segment whose indexes and producer snapshot are not on disk: below it recovery reads nothing.
//!
//! # How segments begin and end
//! A segment begins with an empty file, made before its first write and never over bytes. It is sealed when the first
//! batch of the next one is written: its indexes (closed with the greatest timestamp) and the snapshot of the producers at
//! its end go to disk in the background. A segment leaves the log in memory first; then its files are renamed `.deleted`;
//! they are removed after `file.delete.delay.ms`, or at the next start. When all records expire, an empty segment at the
//! log's end is made before the others go: its name keeps the offsets that were given out.
//!
//! # Recovery
//! The cases, and why each is right, are told in `open`; the formats in `index`, `producers` and `checkpoint`.

pub mod checkpoint;
pub mod cold;
pub mod compact;
pub mod core;
pub mod corrupt;
pub mod cut;
pub mod epochs;
pub mod file;
pub mod index;
pub mod inline;
pub mod inspect;
mod listing;
pub mod open;
pub mod open_files;
pub mod paths;
pub mod producers;
pub mod read;
pub mod redo;
pub mod reserve;
pub mod retain;
pub mod scan;
pub mod segment;
#[cfg(test)]
pub mod testing;
pub mod times;
pub mod witness;
