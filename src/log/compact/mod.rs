//! Compaction: of each key only the latest record stays (`cleanup.policy=compact`).
//!
//! `plan` decides what is worth compacting and which segments become one, `map` remembers where each key's latest record is,
//! `keep` decides batch by batch what stays. All three are pure. `swap` puts new segments in the place of old ones, so that
//! a crash at any instant leaves the one or the other.
//!
//! # A pass
//! ```text
//!  log start          first dirty         first uncleanable      log end
//!      |    clean          |       dirty          |   untouched     |
//!      |                   |---- keys → map ----->|                 |
//!      |------------ rewritten by the map ------->|                 |
//! ```
//! The dirty part is read first: its keys and their last offsets go to the map, as many as its memory holds. Then all segments
//! up to the last offset that the map covers are read again, and written without the records of which the map knows a later
//! one. Segments are replaced group by group, from the oldest on; only when all are does the first dirty offset move.
//!
//! # What never changes
//! Offsets, the order of records, the headers of batches (base and last offset, producer, sequence, epoch), the codec.
//! The active segment, and what lies above the high watermark or is not on disk yet, is never touched.
//!
//! # Why no key is lost
//! A record goes only if the map has a later one of its key: one that was read, with its CRC, in this pass. A tombstone goes
//! only after its delete horizon, which it got when a pass first met it, and so only after a pass whose map had it: by then
//! all earlier records of its key were replaced, since groups are replaced from the oldest on, and a pass that stops early
//! leaves what follows alone.

pub mod keep;
pub mod map;
pub mod plan;
pub mod swap;
#[cfg(test)]
mod tests;
