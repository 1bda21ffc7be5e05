//! How a new image reaches the shards: one bounded queue to each, one acknowledgement back.

use crate::cluster::image::ClusterImage;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

/// A new image for one shard. The shard answers through `applied` when it serves by the image: partitions that it
/// now leads are open, those that are gone answer as unknown (their files may go later).
pub struct ShardUpdate {
    pub image: Arc<ClusterImage>,
    pub applied: oneshot::Sender<()>,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Every shard serves by the image.
    Everywhere,
    /// So many shards have not answered in time; they apply the image when they get to it.
    Late(usize),
    /// A shard's queue is closed: its thread has ended.
    ShardGone,
}

/// Sends `image` to every shard and waits, at most `patience`, until all have applied it.
pub async fn publish(shards: &[mpsc::Sender<ShardUpdate>], image: &Arc<ClusterImage>, patience: Duration) -> Published {
    let deadline = tokio::time::Instant::now() + patience;
    let mut answers = Vec::with_capacity(shards.len());
    let mut late = 0;
    for shard in shards {
        let (applied, answer) = oneshot::channel();
        let update = ShardUpdate { image: Arc::clone(image), applied };
        match timeout_at(deadline, shard.send(update)).await {
            Ok(Ok(())) => answers.push(answer),
            Ok(Err(_)) => return Published::ShardGone,
            // Images are whole, so one that a shard misses is made good by the next; the driver publishes again.
            Err(_) => late += 1,
        }
    }
    for answer in answers {
        match timeout_at(deadline, answer).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Published::ShardGone,
            Err(_) => late += 1,
        }
    }
    if late == 0 { Published::Everywhere } else { Published::Late(late) }
}
