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
use std::collections::HashMap;
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
    journals: RefCell<Journals>,
}

/// The journals in use, by log directory. Not among them is one whose ring a start has not brought back yet.
#[derive(Default)]
struct Journals {
    by_dir: HashMap<PathBuf, Option<Rc<Journal>>>,
    /// There are no others.
    are_all: bool,
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

    /// Partitions in a log directory journal from now on, if it has a journal.
    pub(super) fn set_journal(&self, log_dir: PathBuf, journal: Option<Rc<Journal>>) {
        self.journals.borrow_mut().by_dir.insert(log_dir, journal);
    }

    /// These are in use from now on, and no others.
    #[cfg(test)]
    pub fn set_journals(&self, journals: Vec<Rc<Journal>>) {
        let by_dir = journals.into_iter().map(|journal| (journal.log_dir().to_owned(), Some(journal))).collect();
        self.journals.replace(Journals { by_dir, are_all: true });
    }

    /// Whether it is known which journal a log directory has: not while a start still brings back what its ring holds.
    pub(super) fn knows_journal(&self, log_dir: &Path) -> bool {
        let journals = self.journals.borrow();
        journals.are_all || journals.by_dir.contains_key(log_dir)
    }

    /// The journal of a log directory, if it has one.
    pub(super) fn journal(&self, log_dir: &Path) -> Option<Rc<Journal>> {
        self.journals.borrow().by_dir.get(log_dir).cloned().flatten()
    }

    /// Some log directories may have gone offline.
    pub(super) fn heed_disks(&self) {
        let journals: Vec<_> = self.journals.borrow().by_dir.values().flatten().cloned().collect();
        for journal in journals {
            if let Some(reason) = self.disks.failure(journal.log_dir()) {
                journal.fail(&reason);
            }
        }
    }

    /// Clean stop, after all partitions have closed; the log directories whose journals have something for the next start.
    pub async fn close_journals(&self) -> Vec<PathBuf> {
        let mut unclean = Vec::new();
        for journal in self.journals.take().by_dir.into_values().flatten() {
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
        self.journals.take().by_dir.into_values().flatten().for_each(|journal| journal.end());
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
