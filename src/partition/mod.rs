//! A partition that this shard leads: its log, its high watermark, and who waits for them.

pub mod checkpoints;
pub mod clean;
mod durability;
pub mod journal;
pub mod leader;
pub mod materialise;
mod opening;
pub mod scrub;
pub mod shared;
pub mod table;
pub mod tasks;
#[cfg(test)]
mod tests;
mod unlink;
pub mod waiters;
pub mod watermark;
