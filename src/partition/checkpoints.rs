//! What the checkpoint files get to know. One file of a log directory covers all shards, so the shards send their part to
//! the one writer that the node has; only in the background and for rare requests, never for a record.

use crate::base::metrics::ShardMetrics;
use crate::log::checkpoint::PartitionOffsets;
use std::collections::BTreeMap;
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
}

/// All partitions of a shard, by log directory, and where to say that they are on disk.
pub struct SaveCheckpoints {
    pub shard: u16,
    pub by_dir: BTreeMap<PathBuf, Checkpoints>,
    pub saved: oneshot::Sender<io::Result<()>>,
}

/// A shard's way to the writer.
#[derive(Clone)]
pub struct CheckpointSender {
    shard: u16,
    sender: mpsc::Sender<SaveCheckpoints>,
    metrics: Arc<ShardMetrics>,
}

impl CheckpointSender {
    pub fn new(shard: u16, sender: mpsc::Sender<SaveCheckpoints>, metrics: Arc<ShardMetrics>) -> CheckpointSender {
        CheckpointSender { shard, sender, metrics }
    }

    /// Sends at once where there is room, otherwise when the future is polled; it ends when the files are on disk.
    pub fn save(&self, by_dir: BTreeMap<PathBuf, Checkpoints>) -> impl Future<Output = io::Result<()>> + use<> {
        let (saved, answer) = oneshot::channel();
        let unsent = self.sender.try_send(SaveCheckpoints { shard: self.shard, by_dir, saved }).err();
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
