//! What the partitions of a shard have in common: open files, counters, and the turns that bound work under way.

use super::journal::Journal;
use crate::base::config::FlushPolicy;
use crate::base::metrics::ShardMetrics;
use crate::log::open_files::OpenFiles;
use crate::maintenance::Maintenance;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What all partitions of a shard share.
pub struct PartitionShared {
    pub files: OpenFiles,
    pub policy: FlushPolicy,
    pub metrics: Arc<ShardMetrics>,
    pub maintenance: Maintenance,
    /// Writes and flushes that may be under way at once: each holds descriptors that cannot be closed meanwhile. The first
    /// records of ten thousand partitions take turns.
    turns: Semaphore,
    /// Segments are looked through for damage one after the other.
    pub(super) inspections: Semaphore,
    /// None: not in use yet.
    journals: RefCell<Option<Vec<Rc<Journal>>>>,
}

/// More at once gains nothing: the kernel's own workers are fewer.
const TURNS_MAX: usize = 128;
/// Descriptors that one turn holds at most: a segment, a file beside it, a directory.
const TURN_DESCRIPTORS: usize = 3;

impl PartitionShared {
    /// `open_files_max`: descriptors that the segments of this shard may use.
    pub fn new(
        open_files_max: usize,
        policy: FlushPolicy,
        metrics: Arc<ShardMetrics>,
        maintenance: Maintenance,
    ) -> PartitionShared {
        let turns = (open_files_max / 8).clamp(1, TURNS_MAX);
        let files = OpenFiles::new(open_files_max.saturating_sub(turns * TURN_DESCRIPTORS));
        PartitionShared {
            files,
            policy,
            metrics,
            maintenance,
            turns: Semaphore::new(turns),
            inspections: Semaphore::new(1),
            journals: RefCell::default(),
        }
    }

    /// Partitions journal from now on.
    pub fn set_journals(&self, journals: Vec<Rc<Journal>>) {
        self.journals.replace(Some(journals));
    }

    /// Whether it is known which journals there are: not while a start still brings back what they hold.
    pub(super) fn has_journals(&self) -> bool {
        self.journals.borrow().is_some()
    }

    /// The journal of a log directory, if it has one.
    pub(super) fn journal(&self, log_dir: &Path) -> Option<Rc<Journal>> {
        self.journals.borrow().iter().flatten().find(|journal| journal.log_dir() == log_dir).cloned()
    }

    /// Clean stop, after all partitions have closed; whether no journal has anything for the next start.
    pub async fn close_journals(&self) -> bool {
        let mut clean = true;
        for journal in self.journals.take().into_iter().flatten() {
            clean &= journal.close().await;
        }
        clean
    }

    /// Waits for a turn; it lasts until the permit is dropped.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("the semaphore is never closed")
    }
}
