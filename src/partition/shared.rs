//! What the partitions of a shard have in common: open files, counters, and the turns that bound work under way.

use crate::base::config::FlushPolicy;
use crate::base::metrics::ShardMetrics;
use crate::log::open_files::OpenFiles;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What all partitions of a shard share.
pub struct PartitionShared {
    pub files: OpenFiles,
    pub policy: FlushPolicy,
    pub metrics: Arc<ShardMetrics>,
    /// Writes and flushes that may be under way at once: each holds descriptors that cannot be closed meanwhile. The first
    /// records of ten thousand partitions take turns.
    turns: Semaphore,
}

/// More at once gains nothing: the kernel's own workers are fewer.
const TURNS_MAX: usize = 128;
/// Descriptors that one turn holds at most: a segment, a file beside it, a directory.
const TURN_DESCRIPTORS: usize = 3;

impl PartitionShared {
    /// `open_files_max`: descriptors that the segments of this shard may use.
    pub fn new(open_files_max: usize, policy: FlushPolicy, metrics: Arc<ShardMetrics>) -> PartitionShared {
        let turns = (open_files_max / 8).clamp(1, TURNS_MAX);
        let files = OpenFiles::new(open_files_max.saturating_sub(turns * TURN_DESCRIPTORS));
        PartitionShared { files, policy, metrics, turns: Semaphore::new(turns) }
    }

    /// Waits for a turn; it lasts until the permit is dropped.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("the semaphore is never closed")
    }
}
