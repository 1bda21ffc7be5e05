//! The leader of a partition: takes batches, has them written and flushed, tells who waits.
//!
//! One write and one flush are in flight at most; everything that arrives meanwhile goes into the next one. The tasks
//! that drive them exist only while there is something to do.

mod disk;
mod removal;
mod settle;
mod sync;
mod write;

use super::clean::Cleaning;
use super::durability::Durability;
use super::journal::Journal;
use super::materialise::Home;
use super::scrub::Damage;
use super::shared::PartitionShared;
use super::tasks::Tasks;
use super::waiters::{AppendWait, AppendWaiters, FetchWaiters, Lost};
use super::watermark::Watermark;
use crate::base::config::{FlushPolicy, TopicConfig};
use crate::base::disks::Health;
use crate::base::ids::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use crate::base::metrics::ShardMetrics;
use crate::base::owner::Owner;
use crate::log::core::{AppendError, Appended, LogCore, ReadSpan, Write};
use crate::log::open_files::OpenFiles;
use crate::log::segment::DetachedSegment;
use crate::record::batch::BatchHeader;
use bytes::Bytes;
use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tracing::error;
use write::Unsealed;

/// The end of a log that was written a moment ago is not looked up in the page cache before it is sent.
const HOT_TAIL_BYTES: u64 = 4 << 20;
const HOT_TAIL_AGE: Duration = Duration::from_secs(3);

/// A log that was not written to for so long gives memory back.
const IDLE_AGE: Duration = Duration::from_secs(60);

/// What a produce request asks for (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    None,
    Leader,
    All,
}

/// A partition led by this shard.
pub struct Partition {
    pub id: TopicPartition,
    pub topic: Arc<str>,
    epoch: Cell<LeaderEpoch>,
    pub(super) config: RefCell<Rc<TopicConfig>>,
    pub(super) core: RefCell<LogCore>,
    watermark: RefCell<Watermark>,
    written: AppendWaiters,
    durable: AppendWaiters,
    pub fetches: FetchWaiters,
    pub(super) home: RefCell<Home>,
    writing: Cell<bool>,
    flushing: Cell<bool>,
    /// The flush under way may have begun too early for what wants one: it is followed by another.
    flush_again: Cell<bool>,
    durability: RefCell<Durability>,
    /// Of the log directory; found with the first durable append.
    journal: OnceCell<Option<Rc<Journal>>>,
    /// The journal has entries that no checkpoint has begun to cover.
    in_journal: Cell<bool>,
    journal_end: Cell<Offset>,
    /// When somebody last waited for the disk: writes are journaled until a while after.
    durable_wanted: Cell<Option<Instant>>,
    /// A sync has failed. It is never tried again: what was in flight is unknown, and a second one might succeed all the same.
    pub(super) sync_failed: Cell<bool>,
    /// One sync at a time: the kernel tells of a failed write-back once, and who misses it would take records for safe.
    syncs: Arc<Semaphore>,
    /// Its log directory has no space: nothing is taken until it has.
    full: Cell<bool>,
    /// The write that found none; it is done again then.
    stalled: RefCell<Option<Write>>,
    /// Full segments whose indexes could not be written.
    unsealed: RefCell<Vec<Unsealed>>,
    /// Segments that left the log and still have their names, oldest first.
    leaving: RefCell<Vec<DetachedSegment>>,
    /// Index files are written by one at a time.
    index_files: Semaphore,
    /// What a clean stop writes is not written over.
    closing: Cell<bool>,
    /// Bytes that recovery would read.
    unsettled: Cell<u64>,
    pub(super) deleted: Cell<bool>,
    pub(super) cleaning: Cleaning,
    pub(super) damage: Damage,
    /// The newest leader epoch that is in the checkpoint file.
    saved_epoch: Cell<Option<LeaderEpoch>>,
    saving_epochs: Cell<bool>,
    unflushed_since_ms: Cell<Option<i64>>,
    /// Written since the last flush began.
    unflushed_bytes: Cell<u64>,
    last_write: Cell<Option<Instant>>,
    /// Up to where of which segment the disk was handed what is written; one such call at a time.
    written_out: Cell<(Offset, u64)>,
    writing_out: Cell<bool>,
    /// Leads, as far as the image tells: requests may reach it.
    leads: Cell<bool>,
    pub(super) tasks: Tasks,
    pub(super) shared: Rc<PartitionShared>,
    /// Of its log directory.
    turns: Rc<Semaphore>,
    owner: Owner,
}

/// How far the log reaches for the different readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub log_start: Offset,
    pub high_watermark: Offset,
    /// The log end offset.
    pub log_end: Offset,
    /// Everything below is on disk.
    pub flushed: Offset,
}

impl Partition {
    pub fn new(
        id: TopicPartition,
        topic: Arc<str>,
        epoch: LeaderEpoch,
        config: Rc<TopicConfig>,
        (core, home): (LogCore, Home),
        shared: Rc<PartitionShared>,
    ) -> Rc<Partition> {
        let saved_epoch = core.epochs().latest();
        let partition = Rc::new(Partition {
            id,
            topic,
            epoch: Cell::new(epoch),
            config: RefCell::new(config),
            watermark: RefCell::new(Watermark::new(core.written_end())),
            saved_epoch: Cell::new(saved_epoch),
            saving_epochs: Cell::new(false),
            durability: RefCell::new(Durability::new(core.flushed_end())),
            journal: OnceCell::new(),
            in_journal: Cell::new(false),
            journal_end: Cell::new(core.flushed_end()),
            durable_wanted: Cell::new(None),
            sync_failed: Cell::new(false),
            syncs: Arc::new(Semaphore::new(1)),
            index_files: Semaphore::new(1),
            closing: Cell::new(false),
            // What recovery has just read is to be settled too.
            unsettled: Cell::new(u64::from(home.exists && home.clean_end.is_none())),
            turns: shared.turns_in(&home.log_dir),
            full: Cell::new(shared.disks.health(&home.log_dir) == Health::Full),
            stalled: RefCell::new(None),
            unsealed: RefCell::default(),
            leaving: RefCell::default(),
            deleted: Cell::new(false),
            cleaning: Cleaning::new(),
            damage: Damage::default(),
            core: RefCell::new(core),
            written: AppendWaiters::default(),
            durable: AppendWaiters::default(),
            fetches: FetchWaiters::default(),
            home: RefCell::new(home),
            writing: Cell::new(false),
            flushing: Cell::new(false),
            flush_again: Cell::new(false),
            unflushed_since_ms: Cell::new(None),
            unflushed_bytes: Cell::new(0),
            last_write: Cell::new(None),
            written_out: Cell::new((Offset(-1), 0)),
            writing_out: Cell::new(false),
            leads: Cell::new(true),
            tasks: Tasks::default(),
            shared,
            owner: Owner::here(),
        });
        partition.count_damage();
        partition
    }

    pub fn index(&self) -> PartitionIndex {
        self.id.partition
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch.get()
    }

    /// Takes a new leader epoch and new settings from the cluster image.
    pub fn update(&self, epoch: LeaderEpoch, config: Rc<TopicConfig>) {
        if epoch > self.epoch.get() {
            self.epoch.set(epoch);
        }
        self.config.replace(config);
        self.leads.set(true);
    }

    /// The image names no leader, or another one. The log stays open: it is the only copy that this process has, and may be
    /// led again. Whoever waits is told at once.
    pub fn resign(&self) {
        if self.leads.replace(false) {
            self.fail_waiters(Lost::Moved);
        }
    }

    pub fn leads(&self) -> bool {
        self.leads.get()
    }

    pub fn config(&self) -> Rc<TopicConfig> {
        Rc::clone(&self.config.borrow())
    }

    pub fn core(&self) -> Ref<'_, LogCore> {
        self.owner.assert();
        self.core.borrow()
    }

    pub fn metrics(&self) -> &Arc<ShardMetrics> {
        &self.shared.metrics
    }

    pub fn files(&self) -> &OpenFiles {
        &self.shared.files
    }

    pub fn ends(&self) -> Ends {
        let core = self.core.borrow();
        Ends {
            log_start: core.log_start(),
            high_watermark: self.watermark.borrow().high(),
            log_end: core.written_end(),
            flushed: core.flushed_end(),
        }
    }

    /// Whether a span was written so lately that it must still be in the page cache: its pages are dirty, or young.
    pub fn is_hot(&self, span: &ReadSpan) -> bool {
        let in_active = self.core.borrow().segments().back().is_some_and(|active| active.base == span.segment.base);
        let near_end = in_active && u64::from(span.segment.size() - span.position) <= HOT_TAIL_BYTES;
        near_end && self.last_write.get().is_some_and(|at| at.elapsed() < HOT_TAIL_AGE)
    }

    /// The directory that holds, or will hold, the partition; and the log directory above it.
    pub fn home(&self) -> Ref<'_, Home> {
        self.home.borrow()
    }

    /// Stage one of an append: fixes the batch's offsets and its place in the log. `wait` goes on when the batch is as
    /// safe as `acks` asks; `place` is the partition's place in the request.
    pub fn append(
        self: &Rc<Self>,
        header: BatchHeader,
        bytes: Bytes,
        acks: Acks,
        (wait, place): (&Rc<AppendWait>, u32),
    ) -> Result<Appended, AppendError> {
        self.owner.assert();
        let length = bytes.len() as u64;
        let mut core = self.core.borrow_mut();
        if self.full.get() && core.failure().is_none() {
            return Err(AppendError::Failed(Rc::from("its log directory has no space left")));
        }
        let appended = core.stage(header, bytes, self.epoch.get())?;
        let is_new = appended.duplicate_timestamp_ms.is_none();
        if is_new {
            self.shared.metrics.appends.add(1);
            self.shared.metrics.append_bytes.add(length);
            if self.config.borrow().cleanup_policy.compact {
                self.shared.metrics.append_compacted_bytes.add(length);
            }
        }
        drop(core);
        let (durable, written) = self.durable_and_written();
        let crosses_flush_messages =
            self.config.borrow().flush_messages.is_some_and(|messages| appended.end - durable >= messages);
        let strict = acks == Acks::All && self.shared.policy == FlushPolicy::Disk;
        if strict && is_new {
            self.watermark.borrow_mut().note_strict(appended.base_offset, appended.end);
        }
        let (waiters, reached) =
            if strict || crosses_flush_messages { (&self.durable, durable) } else { (&self.written, written) };
        if appended.end > reached {
            waiters.add(appended.end, place, wait);
        }
        self.kick_writer();
        if strict || crosses_flush_messages {
            self.kick_flush();
        }
        Ok(appended)
    }

    /// The log's files can no longer be trusted to take what they are given: the partition answers errors until restart.
    pub(super) fn fail(&self, reason: &str) {
        if self.core.borrow().failure().is_some() {
            return;
        }
        error!("{}-{} is offline: {reason}", self.topic, self.index());
        self.fail_quietly(reason);
    }

    fn fail_quietly(&self, reason: &str) {
        if self.core.borrow().failure().is_some() {
            return;
        }
        self.core.borrow_mut().fail(Rc::from(reason));
        self.stalled.take();
        self.fail_waiters(Lost::Failed);
    }

    fn fail_waiters(&self, lost: Lost) {
        self.written.fail(lost);
        self.durable.fail(lost);
        self.fetches.wake_all();
    }

    /// Expires idle producers (`producer.id.expiration.ms`).
    pub fn expire_producers(&self, now_ms: i64, expiration_ms: i64) {
        self.core.borrow_mut().producers_mut().expire(now_ms, expiration_ms);
    }

    /// Ends when nothing is being written, flushed, sealed or removed; new appends are the caller's to stop.
    pub async fn quiet(&self) {
        self.tasks.ended().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::BrokerConfig;
    use crate::base::ids::TopicId;
    use crate::maintenance::Maintenance;
    use std::path::Path;

    struct Moved(Rc<Partition>);

    // SAFETY: the test hands its only reference over and keeps none.
    unsafe impl Send for Moved {}

    impl Moved {
        fn read(self) -> Offset {
            self.0.core().written_end()
        }
    }

    #[test]
    fn debug_builds_refuse_to_serve_a_partition_from_another_thread() {
        let config = BrokerConfig::from_texts(Default::default()).expect("defaults are valid");
        let home = Home::new(Path::new("/nowhere"), "t", PartitionIndex(0), false);
        let partition = Partition::new(
            TopicPartition { topic: TopicId::random(), partition: PartitionIndex(0) },
            Arc::from("t"),
            LeaderEpoch(0),
            Rc::new(config.topic_defaults.clone()),
            (LogCore::empty(Rc::clone(&home.dir), Offset(5)), home),
            Rc::new(PartitionShared::new(1, FlushPolicy::Disk, Arc::default(), Maintenance::stopped())),
        );
        assert_eq!(partition.core().written_end(), Offset(5));
        let moved = Moved(partition);
        let elsewhere = std::thread::spawn(move || moved.read()).join();
        assert_eq!(elsewhere.is_err(), cfg!(debug_assertions));
    }
}
