//! Partitions against a plain list of batches, through closes, crashes and damage; and stories of single bugs.

mod compaction;
mod damage;
mod directories;
mod disks;
mod faulty;
mod model;
mod recovery;
mod removal;
mod restarts;
mod stories;
pub(super) mod world;
