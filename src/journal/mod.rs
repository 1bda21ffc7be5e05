//! A shard's journal: one ring for each log directory, in which record batches are on disk before their segments are.
//!
//! A durable append by fdatasync costs one sync a file. The journal costs one write for everything that arrived meanwhile on
//! any partition: a *group* of entries, written at once with `O_DIRECT | O_DSYNC` into a file that was written before, so
//! that no size and no mapping changes. Segments are written to the page cache as ever, and synced at leisure, before their
//! part of the ring is used again.
//!
//! - `format` has the bytes, `ring` decides where they go, `scan` reads them after a crash, `file` performs.
//! - `partition::journal` drives it: what is journaled, who is told, when segments are synced.
//!
//! # Why it is right
//! *What is on disk, at any instant.* Of each partition: all that some sync of its files covered, and the batches in groups
//! between the ring's tail and head. A batch is promised when the group that holds it is written, and everything below it is
//! on disk in one way or the other (`partition::durability`).
//!
//! *Torn group.* One group is in flight. Its entries were promised to nobody; `scan` ends before it.
//!
//! *Reuse.* The tail moves when all files with entries below it are synced, and a superblock that says so is on disk. Only
//! then are their groups overwritten. Superblocks alternate: a torn one leaves the one before, whose groups are still whole.
//!
//! *Laps and starts.* A group names ring, boot, position and sequence, and the CRC of the header before it: remains of an
//! earlier lap, of an earlier start, or of another ring never continue the chain.
//!
//! *Redo.* Entries are written again at their positions, whatever the file holds: the same bytes where it holds them. A
//! recovery that is cut short does the same again. Then the log is opened as after any crash: it ends before the first batch
//! that is not whole. A hole below a journaled batch can only be what was promised to nobody.
//!
//! *Segments that retention removed.* Their entries may still be in the ring. They lie before a segment that the directory
//! holds, and are left alone: a segment's name is durable before the next one's file is made, so what is missing before another
//! was removed.

pub mod block;
pub mod file;
pub mod format;
pub mod ring;
pub mod scan;
#[cfg(test)]
mod tests;
