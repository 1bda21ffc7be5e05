//! What the checkpoint files get to know. One file of a log directory covers all shards, so the shards send their part to
//! the one writer that the node has; only in the background and for rare requests, never for a record.

use crate::base::ids::PartitionIndex;
use crate::base::metrics::ShardMetrics;
use crate::log::checkpoint::PartitionOffsets;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// A shard's partitions in one log directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints {
    pub recovery_points: PartitionOffsets,
    pub log_starts: PartitionOffsets,
    /// Up to where logs were compacted.
    pub cleaned: PartitionOffsets,
}

/// Partitions by log directory and name, of which the files there may still tell what was true of an earlier life.
pub type Outdated = BTreeSet<(PathBuf, (String, PartitionIndex))>;

/// All partitions of a shard, by log directory, and where to say that they are on disk.
pub struct SaveCheckpoints {
    pub shard: u16,
    /// Rises with each part of a shard: one that had to wait may arrive after a newer one, and says nothing then.
    pub number: u64,
    pub by_dir: BTreeMap<PathBuf, Checkpoints>,
    /// What was found of these at start is not to be written again.
    pub outdated: Outdated,
    /// The log directories whose files are written and waited for; None: all.
    pub wanted: Option<BTreeSet<PathBuf>>,
    pub saved: oneshot::Sender<io::Result<()>>,
}

/// A shard's way to the writer.
pub struct CheckpointSender {
    shard: u16,
    next_number: Cell<u64>,
    sender: mpsc::Sender<SaveCheckpoints>,
    metrics: Arc<ShardMetrics>,
}

impl CheckpointSender {
    pub fn new(shard: u16, sender: mpsc::Sender<SaveCheckpoints>, metrics: Arc<ShardMetrics>) -> CheckpointSender {
        CheckpointSender { shard, next_number: Cell::new(1), sender, metrics }
    }

    /// Sends at once where there is room, otherwise when the future is polled; it ends when the files are on disk.
    pub fn save(&self, by_dir: BTreeMap<PathBuf, Checkpoints>) -> impl Future<Output = io::Result<()>> + use<> {
        self.send(by_dir, Outdated::new(), None)
    }

    /// As `save`, of these log directories only: the disk of another one may not answer.
    pub fn save_in(
        &self,
        log_dirs: BTreeSet<PathBuf>,
        by_dir: BTreeMap<PathBuf, Checkpoints>,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        self.send(by_dir, Outdated::new(), Some(log_dirs))
    }

    /// As `save_in` the log directories of the `outdated` partitions; what the files said of these before this process is forgotten.
    pub fn save_without(
        &self,
        by_dir: BTreeMap<PathBuf, Checkpoints>,
        outdated: Outdated,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let log_dirs = outdated.iter().map(|(log_dir, _)| log_dir.clone()).collect();
        self.send(by_dir, outdated, Some(log_dirs))
    }

    fn send(
        &self,
        by_dir: BTreeMap<PathBuf, Checkpoints>,
        outdated: Outdated,
        wanted: Option<BTreeSet<PathBuf>>,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let (saved, answer) = oneshot::channel();
        let number = self.next_number.replace(self.next_number.get() + 1);
        let part = SaveCheckpoints { shard: self.shard, number, by_dir, outdated, wanted, saved };
        let unsent = self.sender.try_send(part).err();
        let (sender, metrics) = (self.sender.clone(), Arc::clone(&self.metrics));
        async move {
            let gone = || io::Error::other("the checkpoint writer has ended");
            match unsent {
                None => {}
                Some(TrySendError::Full(part)) => sender.send(part).await.map_err(|_| gone())?,
                Some(TrySendError::Closed(_)) => return Err(gone()),
            }
            let answer = answer.await.map_err(|_| gone())?;
            metrics.cross_shard_messages.add(1);
            answer
        }
    }
}
