//! The leader of a partition: takes batches, has them written and flushed, tells who waits.
//!
//! One write and one flush are in flight at most; everything that arrives meanwhile goes into the next one. The tasks
//! that drive them exist only while there is something to do.

use super::materialise::{self, CleanState, Home};
use super::shared::PartitionShared;
use super::tasks::Tasks;
use super::waiters::{AppendWait, AppendWaiters, FetchWaiters, Lost};
use super::watermark::Watermark;
use crate::base::clock::now_ms;
use crate::base::config::{FlushPolicy, TopicConfig};
use crate::base::ids::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use crate::base::owner::Owner;
use crate::log::core::{AppendError, Appended, LogCore, ReadSpan, Write};
use crate::log::open_files::OpenFiles;
use crate::log::paths;
use crate::log::retain::{self, Plan};
use crate::log::segment::Segment;
use crate::record::batch::BatchHeader;
use bytes::Bytes;
use std::cell::{Cell, Ref, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, warn};

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
    config: RefCell<Rc<TopicConfig>>,
    core: RefCell<LogCore>,
    watermark: RefCell<Watermark>,
    written: AppendWaiters,
    durable: AppendWaiters,
    pub fetches: FetchWaiters,
    home: RefCell<Home>,
    writing: Cell<bool>,
    flushing: Cell<bool>,
    /// The flush under way may have begun too early for what wants one: it is followed by another.
    flush_again: Cell<bool>,
    /// The newest leader epoch that is in the checkpoint file.
    saved_epoch: Cell<Option<LeaderEpoch>>,
    saving_epochs: Cell<bool>,
    unflushed_since_ms: Cell<Option<i64>>,
    last_write: Cell<Option<Instant>>,
    /// Leads, as far as the image tells: requests may reach it.
    leads: Cell<bool>,
    tasks: Tasks,
    shared: Rc<PartitionShared>,
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
        Rc::new(Partition {
            id,
            topic,
            epoch: Cell::new(epoch),
            config: RefCell::new(config),
            watermark: RefCell::new(Watermark::new(core.written_end())),
            saved_epoch: Cell::new(saved_epoch),
            saving_epochs: Cell::new(false),
            core: RefCell::new(core),
            written: AppendWaiters::default(),
            durable: AppendWaiters::default(),
            fetches: FetchWaiters::default(),
            home: RefCell::new(home),
            writing: Cell::new(false),
            flushing: Cell::new(false),
            flush_again: Cell::new(false),
            unflushed_since_ms: Cell::new(None),
            last_write: Cell::new(None),
            leads: Cell::new(true),
            tasks: Tasks::default(),
            shared,
            owner: Owner::here(),
        })
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
        let near_end = u64::from(span.segment.size() - span.position) <= HOT_TAIL_BYTES;
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
        let appended = core.stage(header, bytes, self.epoch.get())?;
        let is_new = appended.duplicate_timestamp_ms.is_none();
        if is_new {
            self.shared.metrics.appends.add(1);
            self.shared.metrics.append_bytes.add(length);
        }
        let crosses_flush_messages =
            self.config.borrow().flush_messages.is_some_and(|messages| appended.end - core.flushed_end() >= messages);
        let (flushed, written) = (core.flushed_end(), core.written_end());
        drop(core);
        let strict = acks == Acks::All && self.shared.policy == FlushPolicy::Disk;
        if strict && is_new {
            self.watermark.borrow_mut().note_strict(appended.base_offset, appended.end);
        }
        let (waiters, reached) =
            if strict || crosses_flush_messages { (&self.durable, flushed) } else { (&self.written, written) };
        if appended.end > reached {
            waiters.add(appended.end, place, wait);
        }
        self.kick_writer();
        if strict || crosses_flush_messages {
            self.kick_flush();
        }
        Ok(appended)
    }

    fn kick_writer(self: &Rc<Self>) {
        if self.writing.get() || self.core.borrow().is_quiet() {
            return;
        }
        self.writing.set(true);
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            this.drive_writes().await;
            this.writing.set(false);
        });
    }

    async fn drive_writes(self: &Rc<Self>) {
        loop {
            let config = self.config();
            let next = self.core.borrow_mut().next_write(&config, now_ms());
            let Some(write) = next else { return };
            let (segment, sealed) = (Rc::clone(&write.segment), write.sealed.clone());
            if let Err(e) = self.perform(write).await {
                self.fail(&format!("writing {}: {e}", segment.path(paths::LOG).display()));
                return;
            }
            self.core.borrow_mut().write_completed(&segment, config.index_interval_bytes, now_ms());
            self.progressed();
            if let Some(sealed) = sealed {
                self.seal(sealed);
            }
            self.save_epochs_if_new();
        }
    }

    async fn perform(&self, write: Write) -> io::Result<()> {
        let _turn = self.shared.turn().await;
        if write.first {
            let home = self.home.borrow().clone();
            materialise::make_segment(home, (&self.topic, self.id), write.segment.base).await?;
            let mut home = self.home.borrow_mut();
            (home.exists, home.needs_sync) = (true, true);
        }
        self.shared.metrics.append_writes.add(1);
        self.shared.metrics.append_batches_max.raise(write.batches as u64);
        let file = self.shared.files.file(&write.segment)?;
        file.write_at(write.buffers, write.position).await?;
        self.last_write.set(Some(Instant::now()));
        Ok(())
    }

    /// Tells everybody who waits for what a write or a flush has changed.
    fn progressed(self: &Rc<Self>) {
        let (written, flushed) = {
            let core = self.core.borrow();
            (core.written_end(), core.flushed_end())
        };
        if flushed < written && self.unflushed_since_ms.get().is_none() {
            self.unflushed_since_ms.set(Some(now_ms()));
        }
        self.written.reached(written);
        self.durable.reached(flushed);
        let durable = if self.shared.policy == FlushPolicy::Disk { flushed } else { written };
        if self.watermark.borrow_mut().advance(written, durable) {
            self.fetches.wake_all();
        }
        self.kick_flush();
    }

    /// Starts a flush if somebody waits for one and there is something to flush.
    fn kick_flush(self: &Rc<Self>) {
        let wanted = self.durable.first().is_some_and(|end| end <= self.core.borrow().written_end());
        if wanted {
            self.start_flush();
        }
    }

    fn start_flush(self: &Rc<Self>) {
        if self.flushing.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let flushed = this.flush().await;
            this.flushing.set(false);
            match flushed {
                Ok(()) => this.progressed(),
                Err(e) => this.fail(&format!("flushing {}: {e}", this.home.borrow().dir.display())),
            }
            if this.flush_again.take() {
                this.start_flush();
            }
        });
    }

    /// Makes everything that is written now durable, with the names of its files. After a failure nothing is any more.
    async fn flush(&self) -> io::Result<()> {
        if self.core.borrow().failure().is_some() {
            return Ok(());
        }
        let _turn = self.shared.turn().await;
        let Some((end, segments)) = self.core.borrow().unflushed() else { return Ok(()) };
        self.unflushed_since_ms.set(None);
        for segment in segments {
            segment.set_dirty(false);
            let synced = match self.shared.files.file(&segment) {
                Ok(file) => file.sync_data().await,
                Err(e) => Err(e),
            };
            // A segment that left the log meanwhile holds nothing that must be kept.
            if !segment.is_removed() {
                synced?;
            }
        }
        // Lowered before the sync: a segment that is made during it needs the next one.
        if std::mem::take(&mut self.home.borrow_mut().needs_sync) {
            let home = self.home.borrow().clone();
            materialise::sync_names(home).await?;
        }
        self.shared.metrics.flushes.add(1);
        self.core.borrow_mut().flush_completed(end);
        Ok(())
    }

    /// `flush.ms`: flushes what has been unflushed for longer than the topic allows.
    pub fn flush_if_due(self: &Rc<Self>, now_ms: i64) {
        let due = match (self.config.borrow().flush_ms, self.unflushed_since_ms.get()) {
            (Some(limit), Some(since)) => now_ms.saturating_sub(since) >= limit,
            _ => false,
        };
        if due && self.core.borrow().failure().is_none() {
            self.start_flush();
        }
    }

    /// Writes the indexes and the producer snapshot of a segment that is full, and flushes it in the background.
    fn seal(self: &Rc<Self>, sealed: Rc<Segment>) {
        if sealed.is_removed() {
            return;
        }
        let Some(indexes) = sealed.encode_indexes() else { return };
        let core = self.core.borrow();
        let end = core.segment_after(&sealed).map_or(core.written_end(), |next| next.base);
        let snapshot = core.producers().encode(end);
        drop(core);
        let detached = sealed.detached();
        let snapshot_path = paths::segment_file(&self.home.borrow().dir, end, paths::PRODUCER_SNAPSHOT);
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let written = tokio::task::spawn_blocking(move || {
                materialise::write_sealed(&detached, &indexes, (&snapshot_path, &snapshot))
            });
            match written.await.map_err(io::Error::other).and_then(|done| done) {
                Ok(()) => {
                    sealed.set_indexed_on_disk(true);
                    sealed.drop_indexes();
                }
                Err(e) if sealed.is_removed() => tracing::debug!("indexes of a removed segment: {e}"),
                // They stay in memory, and the recovery point below the segment, until the log is closed.
                Err(e) => warn!("{}-{}: indexes of a full segment: {e}", this.topic, this.index()),
            }
            this.flush_again.set(this.flushing.get());
            this.start_flush();
        });
    }

    /// Brings the leader-epoch checkpoint up to date in the background when a new epoch has records.
    fn save_epochs_if_new(self: &Rc<Self>) {
        if self.core.borrow().epochs().latest() == self.saved_epoch.get() || self.saving_epochs.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            if let Err(e) = this.save_epochs().await {
                warn!("{}-{}: leader epoch checkpoint: {e}; the next write tries again", this.topic, this.index());
            }
            this.saving_epochs.set(false);
        });
    }

    /// One at a time, lest an older history take the place of a newer one.
    async fn save_epochs(&self) -> io::Result<()> {
        loop {
            let (latest, entries) = {
                let core = self.core.borrow();
                (core.epochs().latest(), core.epochs().entries().to_vec())
            };
            if latest == self.saved_epoch.get() {
                return Ok(());
            }
            let dir = self.home.borrow().dir.to_path_buf();
            let _turn = self.shared.turn().await;
            let saved = tokio::task::spawn_blocking(move || materialise::write_epochs(&dir, &entries));
            saved.await.map_err(io::Error::other).and_then(|done| done)?;
            self.saved_epoch.set(latest);
        }
    }

    /// The log's files can no longer be trusted to take what they are given: the partition answers errors until restart.
    fn fail(&self, reason: &str) {
        error!("{}-{} is offline: {reason}", self.topic, self.index());
        self.core.borrow_mut().fail(Rc::from(reason));
        self.fail_waiters(Lost::Failed);
    }

    fn fail_waiters(&self, lost: Lost) {
        self.written.fail(lost);
        self.durable.fail(lost);
        self.fetches.wake_all();
    }

    /// DeleteRecords: the log begins at `to` from now on. The caller has checked it against the high watermark.
    pub fn delete_records(self: &Rc<Self>, to: Offset) {
        let gone = self.core.borrow_mut().raise_log_start(to);
        self.remove_files(gone);
    }

    /// Removes segments by the topic's retention time and size, and frees memory of a log that is not written to; returns
    /// how many segments went.
    pub fn enforce_retention(self: &Rc<Self>, now_ms: i64) -> usize {
        if self.core.borrow().failure().is_some() {
            return 0;
        }
        if self.last_write.get().is_some_and(|at| at.elapsed() > IDLE_AGE) {
            self.last_write.set(None);
            self.core.borrow_mut().release_memory();
        }
        let mut gone = self.core.borrow_mut().remove_below_start();
        let config = self.config();
        let ends = self.ends();
        let planned = retain::plan(&self.core.borrow(), &config, ends.high_watermark, now_ms);
        let mut count = gone.len();
        match planned {
            Plan::RaiseTo(offset) => gone.extend(self.core.borrow_mut().raise_log_start(offset)),
            Plan::RemoveAll if !self.writing.get() => count += self.remove_all(now_ms),
            Plan::RemoveAll | Plan::Keep => {}
        }
        count = count.max(gone.len());
        self.remove_files(gone);
        count
    }

    /// Writes wait until the segment that takes the place of all others has its file.
    fn remove_all(self: &Rc<Self>, now_ms: i64) -> usize {
        self.writing.set(true);
        let (gone, next) = self.core.borrow_mut().remove_all_segments(now_ms);
        let snapshot = self.core.borrow().producers().encode(next.base);
        let count = gone.len();
        let dir = self.home.borrow().dir.to_path_buf();
        let gone = gone.iter().map(|segment| segment.detached()).collect();
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let replaced = materialise::replace_segments(dir, next.base, snapshot, gone).await;
            this.home.borrow_mut().needs_sync = true;
            this.writing.set(false);
            match replaced {
                Ok(marked) => {
                    this.remove_later(marked);
                    this.kick_writer();
                }
                Err(e) => this.fail(&format!("replacing expired segments by {}: {e}", next.path(paths::LOG).display())),
            }
        });
        count
    }

    fn remove_files(self: &Rc<Self>, segments: Vec<Rc<Segment>>) {
        if segments.is_empty() {
            return;
        }
        let segments = segments.iter().map(|segment| segment.detached()).collect();
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            match materialise::mark_segments(segments).await {
                Ok(marked) => this.remove_later(marked),
                Err(e) => warn!("{}-{}: removing old segments: {e}", this.topic, this.index()),
            }
        });
    }

    fn remove_later(&self, marked: Vec<PathBuf>) {
        let delay_ms = self.config.borrow().file_delete_delay_ms;
        let name = format!("{}-{}", self.topic, self.index());
        tokio::task::spawn_local(async move {
            if let Err(e) = materialise::remove_marked(marked, delay_ms).await {
                warn!("{name}: removing old segments: {e}");
            }
        });
    }

    /// Expires idle producers (`producer.id.expiration.ms`).
    pub fn expire_producers(&self, now_ms: i64, expiration_ms: i64) {
        self.core.borrow_mut().producers_mut().expire(now_ms, expiration_ms);
    }

    /// Ends when nothing is being written, flushed, sealed or removed; new appends are the caller's to stop.
    pub async fn quiet(&self) {
        self.tasks.ended().await;
    }

    /// Clean stop: everything on disk, indexes and snapshot written, so that the next start scans nothing.
    pub async fn close(self: &Rc<Self>) -> io::Result<()> {
        self.quiet().await;
        if self.core.borrow().failure().is_some() || !self.home.borrow().exists {
            return Ok(());
        }
        self.flush().await?;
        if self.home.borrow().clean_end == Some(self.core.borrow().written_end()) {
            return Ok(());
        }
        let state = self.clean_state();
        let end = state.end;
        let dir = self.home.borrow().dir.to_path_buf();
        let written = tokio::task::spawn_blocking(move || materialise::write_clean_state(&dir, state));
        written.await.map_err(io::Error::other).and_then(|done| done)?;
        self.home.borrow_mut().clean_end = Some(end);
        Ok(())
    }

    fn clean_state(&self) -> CleanState {
        let core = self.core.borrow();
        let active = core.segments().back().map(|segment| segment.base);
        let unsaved = core.segments().iter().filter(|s| Some(s.base) == active || !s.is_indexed_on_disk());
        let indexes = unsaved.filter_map(|segment| Some((segment.detached(), segment.encode_indexes()?))).collect();
        CleanState {
            indexes,
            end: core.written_end(),
            snapshot: core.producers().encode(core.written_end()),
            epochs: core.epochs().entries().to_vec(),
        }
    }

    /// The topic is gone: the directory gets a name that a new topic of the same name does not collide with, and its
    /// files go after the topic's `file.delete.delay.ms`.
    pub async fn delete(self: &Rc<Self>) {
        self.core.borrow_mut().fail(Rc::from("the topic was deleted"));
        self.fail_waiters(Lost::Deleted);
        self.quiet().await;
        let home = self.home.borrow().clone();
        if !home.exists {
            return;
        }
        let delay_ms = self.config.borrow().file_delete_delay_ms;
        if let Err(e) = materialise::remove_partition(home, &self.topic, self.index(), delay_ms).await {
            warn!("{}-{}: removing its directory: {e}", self.topic, self.index());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::BrokerConfig;
    use crate::base::ids::TopicId;
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
            Rc::new(PartitionShared::new(1, FlushPolicy::Disk, Arc::default())),
        );
        assert_eq!(partition.core().written_end(), Offset(5));
        let moved = Moved(partition);
        let elsewhere = std::thread::spawn(move || moved.read()).join();
        assert_eq!(elsewhere.is_err(), cfg!(debug_assertions));
    }
}
