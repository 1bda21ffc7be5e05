//! What the partitions of a shard have in common: open files, counters, and the turns that bound work under way.

use super::journal::Journal;
use crate::base::config::FlushPolicy;
use crate::base::disks::LogDirs;
use crate::base::faults::Faults;
use crate::base::metrics::ShardMetrics;
use crate::log::inline::Inline;
use crate::log::open_files::OpenFiles;
use crate::maintenance::Maintenance;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::warn;

/// What all partitions of a shard share.
pub struct PartitionShared {
    pub files: OpenFiles,
    pub policy: FlushPolicy,
    pub metrics: Arc<ShardMetrics>,
    pub maintenance: Maintenance,
    /// What the node's log directories are fit for.
    pub disks: Arc<LogDirs>,
    pub(super) faults: Faults,
    pub(super) inline: Inline,
    /// Writes and flushes that may be under way at once: each holds descriptors that cannot be closed meanwhile. The first
    /// records of ten thousand partitions take turns. Each log directory has its own, lest one that hangs keep the others waiting.
    turns: Vec<(PathBuf, Rc<Semaphore>)>,
    turns_max: usize,
    /// Segments are looked through for damage one after the other.
    pub(super) inspections: Semaphore,
    /// None: not in use yet.
    journals: RefCell<Option<Vec<Rc<Journal>>>>,
}

/// How long a stop waits for what is under way on a disk that has failed, and on one that seems sound.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
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
        let turns_max = (open_files_max / 8).clamp(1, TURNS_MAX);
        let files = OpenFiles::new(open_files_max.saturating_sub(turns_max * TURN_DESCRIPTORS));
        let (disks, faults, journals) = (Arc::default(), Faults::default(), RefCell::default());
        let turns = vec![(PathBuf::new(), Rc::new(Semaphore::new(turns_max)))];
        let inspections = Semaphore::new(1);
        let inline = Inline::default();
        PartitionShared {
            files,
            policy,
            metrics,
            maintenance,
            disks,
            faults,
            inline,
            turns,
            turns_max,
            inspections,
            journals,
        }
    }

    /// Small appends are written by the shard's own thread.
    pub fn writing_inline(self, is_possible: bool) -> PartitionShared {
        PartitionShared { inline: Inline::new(is_possible), ..self }
    }

    /// With log directories that may fail.
    pub fn on(self, disks: Arc<LogDirs>) -> PartitionShared {
        let dirs: Vec<PathBuf> = disks.all().map(|(path, _)| path.to_owned()).collect();
        let each = (self.turns_max / dirs.len().max(1)).max(1);
        let turns = dirs.into_iter().map(|dir| (dir, Rc::new(Semaphore::new(each)))).collect();
        PartitionShared { disks, turns, ..self }
    }

    /// With faults beneath all files.
    #[cfg(test)]
    pub fn with(self, faults: Faults) -> PartitionShared {
        PartitionShared { files: self.files.with(faults.clone()), faults, ..self }
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

    /// Some log directories may have gone offline.
    pub(super) fn heed_disks(&self) {
        let journals = self.journals.borrow().clone();
        for journal in journals.into_iter().flatten() {
            if let Some(reason) = self.disks.failure(journal.log_dir()) {
                journal.fail(&reason);
            }
        }
    }

    /// Clean stop, after all partitions have closed; the log directories whose journals have something for the next start.
    pub async fn close_journals(&self) -> Vec<PathBuf> {
        let mut unclean = Vec::new();
        for journal in self.journals.take().into_iter().flatten() {
            let closed = self.unless_lost(journal.log_dir(), journal.close()).await;
            if closed != Some(true) {
                unclean.push(journal.log_dir().to_owned());
            }
        }
        unclean
    }

    /// The process has ended, however.
    #[cfg(test)]
    pub fn end(&self) {
        self.journals.take().into_iter().flatten().for_each(|journal| journal.end());
    }

    /// The outcome of some work of a stop; None: the disk is lost, or does not answer. The work may still be under way then.
    pub async fn unless_lost<T>(&self, log_dir: &Path, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            ended = self.unless_offline(log_dir, work) => ended,
            () = tokio::time::sleep(STOP_PATIENCE) => {
                warn!("{}: no answer after {} s: it is left as it is", log_dir.display(), STOP_PATIENCE.as_secs());
                self.disks.take_offline(log_dir, "it did not answer at the stop");
                None
            }
        }
    }

    /// The outcome of some work; None: its disk has failed. The work may still be under way then.
    pub(super) async fn unless_offline<T>(&self, log_dir: &Path, work: impl Future<Output = T>) -> Option<T> {
        let lost = async {
            self.disks.went_offline(log_dir).await;
            tokio::time::sleep(LOST_PATIENCE).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = lost => None,
        }
    }

    /// The turns of a log directory: a permit is one, and lasts until it is dropped.
    pub(super) fn turns_in(&self, log_dir: &Path) -> Rc<Semaphore> {
        let (_, turns) = self.turns.iter().find(|(dir, _)| dir == log_dir).unwrap_or(&self.turns[0]);
        Rc::clone(turns)
    }
}
