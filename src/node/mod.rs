//! The composition root: everything that a running node consists of is put together here.

mod checkpoints;
pub mod cores;
mod counters;
mod disks;
pub mod format;
mod inventory;
pub mod manifest;
pub mod probe;
mod scrubber;
pub mod serve;
mod shard_main;
