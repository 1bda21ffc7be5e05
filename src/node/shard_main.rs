//! What runs on a shard's thread: network, image updates, housekeeping; and how it stops.

use super::scrubber;
use crate::api::context::ShardContext;
use crate::api::{Outcome, registry};
use crate::base::clock::now_ms;
use crate::base::config::{BrokerConfig, FlushPolicy};
use crate::base::disks::{Health, LogDirs};
use crate::base::host;
use crate::base::ids::BrokerId;
use crate::base::limits::{SETTLE_PAUSE_SECONDS_MIN, UNSETTLED_BYTES_MAX};
use crate::base::metrics::ShardMetrics;
use crate::cluster::image::ClusterImage;
use crate::controller::handle::ControlHandle;
use crate::controller::publish::ShardUpdate;
use crate::maintenance::{Lane, Maintenance};
use crate::partition::checkpoints::CheckpointSender;
use crate::partition::clean::{CleanerMemory, clean_dirtiest};
use crate::partition::journal::{Rings, Settings};
use crate::partition::leader::Partition;
use crate::partition::shared::PartitionShared;
use crate::partition::table::{FoundLogDir, PartitionTable};
use crate::shard::{ConnectionLimits, ConnectionMeta, NetSettings, Network, Service};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

/// In-flight requests get so long to be answered at shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// A start waits so long for journals that have nothing to bring back. Until they are in use what must be durable is synced by itself.
const JOURNALS_WAIT_MAX: Duration = Duration::from_secs(5);
/// The last checkpoints get so long to be on disk.
const SAVE_MAX: Duration = Duration::from_secs(60);
/// The housekeeper wakes at most this often.
const TICK_MIN: Duration = Duration::from_millis(50);
const TICK_MAX: Duration = Duration::from_secs(1);

/// What a shard is given; all of it can be sent to its thread.
pub struct ShardParams {
    pub broker: BrokerId,
    pub listeners: Vec<TcpListener>,
    pub control: ControlHandle,
    pub updates: mpsc::Receiver<ShardUpdate>,
    pub checkpoints: CheckpointSender,
    pub config: Arc<BrokerConfig>,
    pub found: Vec<FoundLogDir>,
    pub disks: Arc<LogDirs>,
    /// Descriptors for segment files.
    pub open_files_max: usize,
    pub net: NetSettings,
    pub metrics: Arc<ShardMetrics>,
    pub maintenance: Maintenance,
    /// Turns true when the shard is to stop.
    pub stop: watch::Receiver<bool>,
}

/// The dispatcher that connections see.
struct Broker {
    context: Rc<ShardContext>,
}

impl Service for Broker {
    fn dispatch(&self, connection: &ConnectionMeta, frame: Bytes) -> Outcome {
        registry::dispatch(&self.context, connection.local_addr, connection.peer_addr, frame)
    }
}

/// How a shard ended.
pub struct Ended {
    /// The log directories in which not all of its logs are whole on disk.
    pub unclean: io::Result<BTreeSet<PathBuf>>,
    /// Something may still be under way on a disk that failed: the thread stays, because the kernel has its memory.
    pub is_stuck: bool,
}

/// Runs a shard until it is told to stop, and tells how it ended. Then it ends, unless its disk keeps it.
pub async fn run_and_tell(params: ShardParams, ended: Sender<Ended>) {
    let disks = Arc::clone(&params.disks);
    let dirs: Vec<PathBuf> = params.found.iter().map(|dir| dir.path.clone()).collect();
    let unclean = run(params).await;
    let is_stuck = dirs.iter().any(|dir| disks.health(dir) == Health::Offline);
    // The node waits for it.
    let _ = ended.send(Ended { unclean, is_stuck });
    if is_stuck {
        std::future::pending().await
    }
}

/// Runs a shard until it is told to stop; gives the log directories in which not all of its logs are whole on disk then.
async fn run(mut params: ShardParams) -> io::Result<BTreeSet<PathBuf>> {
    let mut disk_changes = params.disks.subscribe();
    params.maintenance.work_beside(Arc::clone(&params.metrics));
    let shared = PartitionShared::new(
        params.open_files_max,
        params.config.flush_policy,
        Arc::clone(&params.metrics),
        params.maintenance,
    );
    let inline = writes_inline(&params.found);
    let shared = Rc::new(shared.on(Arc::clone(&params.disks)).writing_inline(inline));
    let all_dirs: BTreeSet<PathBuf> = params.found.iter().map(|dir| dir.path.clone()).collect();
    let settings = Settings {
        shard: params.broker.shard().0,
        ring_bytes: params.config.journal_bytes.filter(|_| params.config.flush_policy == FlushPolicy::Disk),
    };
    let rings = Rings::read(settings, &params.found, &params.disks);
    let partitions = Rc::new(PartitionTable::new(params.broker, params.found, rings, shared));
    let context = Rc::new(ShardContext::new(
        params.broker,
        params.control,
        Arc::clone(&params.config),
        (partitions, params.checkpoints),
        Arc::new(ClusterImage::default()),
    ));
    let network = Network::new(params.net, Rc::new(Broker { context: Rc::clone(&context) }), params.metrics)?;
    let mut housekeeper = Housekeeper::new(Rc::clone(&context));
    let mut serving = false;
    let (mut images, mut journals) = (JoinSet::new(), JoinSet::new());
    let groups = Rc::clone(&context);
    tokio::task::spawn_local(async move { groups.groups.run_clock().await });
    let mut cleaner = None;
    let mut scrubbers = Vec::new();
    let stopped = params.stop.clone();
    loop {
        tokio::select! {
            biased;
            _ = params.stop.wait_for(|stop| *stop) => break,
            // One after the other. Nothing else waits for them: a topic may be deleted on a disk that does not answer.
            update = params.updates.recv(), if images.is_empty() => {
                let Some(update) = update else { break };
                images.spawn_local(apply(Rc::clone(&context), update));
            }
            Some(applied) = images.join_next() => {
                let applied = applied.map_err(io::Error::other)?;
                network.set_limits(ConnectionLimits::of(&context.config()));
                if !serving {
                    journals.spawn_local(begin_journals(Rc::clone(&context)));
                    if !context.partitions.is_redoing() {
                        // Late is no error: a disk that does not answer keeps nothing waiting that is on others.
                        let begun = tokio::time::timeout(JOURNALS_WAIT_MAX, journals.join_next()).await;
                        begun.ok().flatten().transpose().map_err(io::Error::other)?;
                    }
                    context.partitions.opened_or_late().await;
                    // Not before the first image: a client must not be told that there are no topics.
                    params.listeners.drain(..).try_for_each(|listener| network.serve(listener))?;
                    serving = true;
                    cleaner = Some(tokio::task::spawn_local(clean_on_and_on(Rc::clone(&context))));
                    scrubbers = scrubber::start(&context, &stopped);
                }
                // The control plane may have stopped waiting.
                let _ = applied.send(());
            }
            Some(begun) = journals.join_next() => begun.map_err(io::Error::other)?,
            Ok(()) = disk_changes.changed() => {
                context.partitions.heed_disks();
                context.groups.heed_disks();
            }
            () = tokio::time::sleep(housekeeper.pause()) => housekeeper.tick(),
        }
    }
    if !serving {
        // It never learned what it leads: checkpoints of nothing would take the place of what the files say.
        return Ok(all_dirs);
    }
    context.groups.close();
    if let Some(cleaner) = cleaner {
        // A new segment that is just being put in its place is waited for when its partition is closed.
        cleaner.abort();
    }
    let drained = network.drain(DRAIN_MAX).await;
    // They see the same stop, and save how far they are.
    futures_util::future::join_all(scrubbers).await;
    if drained.cut > 0 {
        warn!("shard {}: {} connections were cut at shutdown", context.shard, drained.cut);
    }
    images.shutdown().await;
    let unclean = context.partitions.close().await;
    Ok(if save_last(&context).await { unclean } else { all_dirs })
}

/// Whether the checkpoints say how far the logs are on disk.
async fn save_last(context: &ShardContext) -> bool {
    let saving = context.checkpoints.save(context.partitions.checkpoints());
    let saved = tokio::time::timeout(SAVE_MAX, saving).await.map_err(io::Error::other).and_then(|saved| saved);
    saved.inspect_err(|e| warn!("shard {}: recovery points cannot be saved: {e}", context.shard)).is_ok()
}

async fn apply(context: Rc<ShardContext>, ShardUpdate { image, applied }: ShardUpdate) -> oneshot::Sender<()> {
    context.metrics.cross_shard_messages.add(1);
    context.apply(image).await;
    applied
}

async fn begin_journals(context: Rc<ShardContext>) {
    context.partitions.begin_journals(|id| context.image().has_partition(id)).await;
}

/// Compacts what is due, the dirtiest first; pauses when nothing is (`log.cleaner.backoff.ms`).
async fn clean_on_and_on(context: Rc<ShardContext>) {
    loop {
        let settings = context.config().cleaner;
        let memory = CleanerMemory { map_bytes: settings.dedupe_buffer_bytes, load_factor: settings.load_factor };
        context.partitions.shared().maintenance.set_rate(Lane::Clean, settings.io_bytes_per_second_max);
        let cleaned = match settings.enable {
            true => clean_dirtiest(&context.partitions, memory, now_ms()).await,
            false => None,
        };
        if cleaned == Some(true) {
            // So that the next process does not do it again.
            if let Err(e) = context.checkpoints.save(context.partitions.checkpoints()).await {
                warn!("checkpoints cannot be saved: {e}");
            }
            continue;
        }
        tokio::time::sleep(Duration::from_millis(settings.backoff_ms).max(TICK_MIN)).await;
    }
}

/// Timed work of a shard: retention, `flush.ms`, checkpoints, idle producers.
struct Housekeeper {
    context: Rc<ShardContext>,
    retention_due: Instant,
    checkpoint_due: Instant,
    producers_due: Instant,
    offsets_due: Instant,
    settling: Settling,
}

/// Settling of logs: at every checkpoint, and in between if a recovery would read too much.
struct Settling {
    not_before: Instant,
    under_way: Rc<Cell<bool>>,
    /// A checkpoint has come: everything is to be settled.
    all: bool,
}

impl Housekeeper {
    fn new(context: Rc<ShardContext>) -> Housekeeper {
        let now = Instant::now();
        let config = context.config();
        let first = config.log_initial_task_delay_ms;
        Housekeeper {
            retention_due: now + Duration::from_millis(first.min(config.log_retention_check_interval_ms)),
            checkpoint_due: now + checkpoint_interval(&config),
            producers_due: now + Duration::from_millis(config.producer_id_expiration_check_interval_ms),
            settling: Settling { not_before: now, under_way: Rc::default(), all: false },
            offsets_due: now + Duration::from_millis(config.groups.retention_check_ms),
            context,
        }
    }

    /// Until the next tick.
    fn pause(&self) -> Duration {
        let next = self.retention_due.min(self.checkpoint_due).min(self.producers_due).min(self.offsets_due);
        next.saturating_duration_since(Instant::now()).clamp(TICK_MIN, TICK_MAX)
    }

    fn tick(&mut self) {
        let (now, now_ms) = (Instant::now(), now_ms());
        let config = self.context.config();
        let partitions = self.context.partitions.all();
        // Logs may have been opened since; their members' sessions count from when they are loaded.
        self.context.lead_groups();
        for partition in &partitions {
            partition.flush_if_due(now_ms);
        }
        if now >= self.retention_due {
            self.retention_due = now + Duration::from_millis(config.log_retention_check_interval_ms);
            for partition in &partitions {
                let log_start = partition.ends().log_start;
                let gone = partition.enforce_retention(now_ms);
                if partition.ends().log_start > log_start {
                    // So that a crash does not bring expired records back.
                    self.checkpoint_due = now;
                }
                if gone > 0 {
                    info!("{}-{}: {gone} segments removed by retention", partition.topic, partition.index());
                }
            }
        }
        if now >= self.checkpoint_due {
            self.checkpoint_due = now + checkpoint_interval(&config);
            self.settling.all = true;
            let saved = self.context.checkpoints.save(self.context.partitions.checkpoints());
            tokio::task::spawn_local(async move {
                if let Err(e) = saved.await {
                    warn!("checkpoints cannot be saved: {e}");
                }
            });
        }
        self.settle(now, &partitions);
        if now >= self.offsets_due {
            self.offsets_due = now + Duration::from_millis(config.groups.retention_check_ms);
            self.context.groups.expire(now_ms);
        }
        if now >= self.producers_due {
            self.producers_due = now + Duration::from_millis(config.producer_id_expiration_check_interval_ms);
            let expiration_ms = i64::try_from(config.producer_id_expiration_ms).unwrap_or(i64::MAX);
            for partition in &partitions {
                partition.expire_producers(now_ms, expiration_ms);
            }
        }
    }
}

impl Housekeeper {
    /// Settles logs, one after the other, and tells the checkpoint files.
    fn settle(&mut self, now: Instant, partitions: &[Rc<Partition>]) {
        let settling = &mut self.settling;
        if settling.under_way.get() || (!settling.all && now < settling.not_before) {
            return;
        }
        let unsettled = partitions.iter().map(|partition| partition.unsettled_bytes()).collect();
        let chosen = to_settle(unsettled, if settling.all { 0 } else { UNSETTLED_BYTES_MAX });
        settling.all = false;
        if chosen.is_empty() {
            return;
        }
        settling.not_before = now + Duration::from_secs(SETTLE_PAUSE_SECONDS_MIN);
        settling.under_way.set(true);
        let chosen: Vec<_> = chosen.into_iter().map(|at| Rc::clone(&partitions[at])).collect();
        let (context, under_way) = (Rc::clone(&self.context), Rc::clone(&settling.under_way));
        tokio::task::spawn_local(async move {
            for partition in chosen {
                if let Err(e) = partition.settle().await {
                    warn!("{}-{}: a recovery would be longer than it need be: {e}", partition.topic, partition.index());
                }
            }
            under_way.set(false);
            if let Err(e) = context.checkpoints.save(context.partitions.checkpoints()).await {
                warn!("checkpoints cannot be saved: {e}");
            }
        });
    }
}

/// Which logs are to be settled so that no more than half of `most` bytes stay unsettled, if there are more than `most`: the
/// largest first.
fn to_settle(unsettled: Vec<u64>, most: u64) -> Vec<usize> {
    let mut left: u64 = unsettled.iter().sum();
    if left <= most {
        return Vec::new();
    }
    let mut by_size: Vec<_> = unsettled.into_iter().enumerate().filter(|(_, bytes)| *bytes > 0).collect();
    by_size.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let chosen = by_size.into_iter().take_while(|(_, bytes)| {
        let is_due = left > most / 2;
        left -= bytes;
        is_due
    });
    chosen.map(|(at, _)| at).collect()
}

/// Whether the shard's own thread writes small appends. Not where there are several log directories: it would wait for the disk of one
/// that hangs, and the others with it.
fn writes_inline(dirs: &[FoundLogDir]) -> bool {
    let [dir] = dirs else { return false };
    host::file_system_of(&dir.path).is_ok_and(|file_system| file_system.needs_workers_to_write())
}

/// Both kinds of checkpoints are written together, so that the shorter interval counts.
fn checkpoint_interval(config: &BrokerConfig) -> Duration {
    let offsets_ms = config.log_flush_offset_checkpoint_interval_ms;
    Duration::from_millis(offsets_ms.min(config.log_flush_start_offset_checkpoint_interval_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_largest_unsettled_parts_are_settled_first() {
        assert_eq!(to_settle(vec![10, 0, 30, 20], 60), [0; 0], "not too much");
        assert_eq!(to_settle(vec![10, 0, 30, 20], 50), [2, 3], "half of it may stay");
        assert_eq!(to_settle(vec![10, 0, 30, 20], 0), [2, 3, 0], "all that is");
        assert_eq!(to_settle(vec![0, 0], 0), [0; 0]);
    }

    #[test]
    fn log_starts_are_saved_as_often_as_is_asked_for() {
        let set = |name: &str, ms: &str| {
            let texts = BTreeMap::from([(name.to_owned(), ms.to_owned())]);
            checkpoint_interval(&BrokerConfig::from_texts(texts).expect("sound"))
        };
        assert_eq!(set("log.flush.start.offset.checkpoint.interval.ms", "100"), Duration::from_millis(100));
        assert_eq!(set("log.flush.offset.checkpoint.interval.ms", "200"), Duration::from_millis(200));
    }
}
