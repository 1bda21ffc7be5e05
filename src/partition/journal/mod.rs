//! Drives a shard's journal of one log directory: groups what partitions hand it, tells them when it is on disk, and has
//! segments synced before their part of the ring is used again.
//!
//! One group is in flight; what arrives meanwhile goes into the next. What a checkpoint covers is everything that was handed
//! over when it began: it waits for the segment writes, syncs the files, moves the tail durably, and only then is the space
//! free. A checkpoint begins when half of the ring is used, so the other half takes what arrives while it runs.

mod start;
#[cfg(test)]
mod tests;

pub use start::{Rings, Settings};

use super::leader::Partition;
use super::shared::PartitionShared;
use super::tasks::Tasks;
use crate::base::disks::LogDirs;
use crate::base::ids::Offset;
use crate::base::limits::{
    JOURNAL_GROUP_BYTES_MAX, JOURNAL_PENDING_BYTES_MAX, JOURNAL_SYNCS_MAX, JOURNAL_WRITE_SECONDS_MAX,
};
use crate::base::metrics::ShardMetrics;
use crate::journal::file::RingFile;
use crate::journal::format::EntryHeader;
use crate::journal::ring::{Group, Placed, Ring};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing::error;

/// A shard's journal in one log directory.
pub struct Journal {
    log_dir: PathBuf,
    file: RingFile,
    ring: RefCell<Ring>,
    pending: RefCell<VecDeque<Pending>>,
    pending_bytes: Cell<usize>,
    driving: Cell<bool>,
    checkpointing: Cell<bool>,
    /// Partitions with entries that no checkpoint has begun to cover, each once.
    dirty: RefCell<Vec<Rc<Partition>>>,
    /// Everyone who ever used this journal: when it fails, what they wait for never comes.
    users: RefCell<Vec<Weak<Partition>>>,
    failure: RefCell<Option<Rc<str>>>,
    /// Writes that were handed over, and those of them that are in the ring.
    queued: Cell<u64>,
    written: Cell<u64>,
    /// More are in the ring, or the journal has failed.
    has_written: Notify,
    /// Pending bytes have become fewer, or the journal has failed.
    has_room: Notify,
    /// The tail has moved, or the journal has failed.
    has_space: Notify,
    /// The memory of the last group, for the next.
    group: Cell<Option<Group>>,
    tasks: Tasks,
    metrics: Arc<ShardMetrics>,
    disks: Arc<LogDirs>,
}

/// A write of a partition that is not in the ring yet.
struct Pending {
    partition: Rc<Partition>,
    entry: EntryHeader,
    buffers: Vec<Bytes>,
}

impl Journal {
    fn new(log_dir: &Path, file: RingFile, ring: Ring, shared: &PartitionShared) -> Rc<Journal> {
        Rc::new(Journal {
            log_dir: log_dir.to_owned(),
            file,
            ring: RefCell::new(ring),
            pending: RefCell::default(),
            pending_bytes: Cell::new(0),
            driving: Cell::new(false),
            checkpointing: Cell::new(false),
            dirty: RefCell::default(),
            users: RefCell::default(),
            failure: RefCell::new(None),
            queued: Cell::new(0),
            written: Cell::new(0),
            has_written: Notify::new(),
            has_room: Notify::new(),
            has_space: Notify::new(),
            group: Cell::default(),
            tasks: Tasks::default(),
            metrics: Arc::clone(&shared.metrics),
            disks: Arc::clone(&shared.disks),
        })
    }

    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// Larger writes go to their segment only: they would push everything else out of the ring.
    pub fn write_bytes_max(&self) -> usize {
        (self.ring.borrow().bytes() / 16) as usize
    }

    /// Ends when the journal can be handed another write; at once if it has failed.
    pub async fn room(&self) {
        while self.pending_bytes.get() >= JOURNAL_PENDING_BYTES_MAX && self.failure.borrow().is_none() {
            self.has_room.notified().await;
        }
    }

    /// A partition that is to be told if the journal fails. False: it has failed already.
    pub fn enlist(&self, partition: &Rc<Partition>) -> bool {
        let mut users = self.users.borrow_mut();
        if users.len() == users.capacity() {
            users.retain(|user| user.strong_count() > 0);
        }
        users.push(Rc::downgrade(partition));
        self.failure.borrow().is_none()
    }

    /// Ends when nothing that was handed over so far would be written again by a start.
    pub async fn outlive(self: &Rc<Self>) -> io::Result<()> {
        let queued = self.queued.get();
        while self.written.get() < queued {
            self.still_sound()?;
            self.has_written.notified().await;
        }
        let head = self.ring.borrow().head().position;
        while self.ring.borrow().superblock().tail.position < head {
            self.still_sound()?;
            let freed = self.has_space.notified();
            self.start_checkpoint();
            freed.await;
        }
        self.still_sound()
    }

    /// Takes a write; `Partition::journaled` is called when it is on disk. `is_first` since the last checkpoint began.
    pub fn queue(self: &Rc<Self>, partition: &Rc<Partition>, entry: EntryHeader, buffers: Vec<Bytes>, is_first: bool) {
        if self.failure.borrow().is_some() {
            return;
        }
        if is_first {
            self.dirty.borrow_mut().push(Rc::clone(partition));
        }
        self.queued.set(self.queued.get() + 1);
        self.pending_bytes.set(self.pending_bytes.get() + entry.length as usize);
        self.pending.borrow_mut().push_back(Pending { partition: Rc::clone(partition), entry, buffers });
        if !self.driving.replace(true) {
            let this = Rc::clone(self);
            self.tasks.spawn(async move {
                if let Err(e) = this.drive().await {
                    this.fail(&format!("writing the journal: {e}"));
                }
                this.driving.set(false);
            });
        }
    }

    async fn drive(self: &Rc<Self>) -> io::Result<()> {
        let mut group = self.group.take().unwrap_or_default();
        let driven = self.drive_groups(&mut group).await;
        self.group.set(Some(group));
        driven
    }

    async fn drive_groups(self: &Rc<Self>, group: &mut Group) -> io::Result<()> {
        let mut done: Vec<(Rc<Partition>, Offset)> = Vec::new();
        loop {
            group.clear();
            self.fill(group, &mut done);
            if group.is_empty() || self.failure.borrow().is_some() {
                return Ok(());
            }
            let Some(placed) = self.wait_for_space(group).await else { return Ok(()) };
            self.write_in_time(self.file.write_group(group, placed)).await?;
            if self.failure.borrow().is_some() {
                return Ok(());
            }
            self.ring.borrow_mut().written(placed);
            self.metrics.journal_groups.add(1);
            self.metrics.journal_bytes.add(placed.bytes as u64);
            self.written.set(self.written.get() + done.len() as u64);
            for (partition, end) in done.drain(..) {
                partition.journaled(end);
            }
            self.has_written.notify_waiters();
            if self.is_half_full() {
                self.start_checkpoint();
            }
        }
    }

    /// Moves pending writes into the group, as many as it should hold.
    fn fill(&self, group: &mut Group, done: &mut Vec<(Rc<Partition>, Offset)>) {
        let group_bytes = (self.ring.borrow().bytes() / 8).min(JOURNAL_GROUP_BYTES_MAX) as usize;
        let mut pending = self.pending.borrow_mut();
        while let Some(next) = pending.front() {
            if !group.is_empty() && group.length_with(next.entry.length as usize) > group_bytes {
                break;
            }
            let next = pending.pop_front().expect("the front was just seen");
            self.pending_bytes.set(self.pending_bytes.get() - next.entry.length as usize);
            self.metrics.journal_entries.add(1);
            group.push(&next.entry, &next.buffers);
            done.push((next.partition, next.entry.end));
        }
        self.has_room.notify_waiters();
    }

    async fn wait_for_space(self: &Rc<Self>, group: &mut Group) -> Option<Placed> {
        loop {
            if self.failure.borrow().is_some() {
                return None;
            }
            if let Some(placed) = self.ring.borrow().place(group) {
                return Some(placed);
            }
            self.metrics.journal_full.add(1);
            // Made before the checkpoint can end.
            let freed = self.has_space.notified();
            self.start_checkpoint();
            freed.await;
        }
    }

    /// A write that hangs fails the journal; it is waited for all the same, because the kernel still has its memory.
    async fn write_in_time(&self, write: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let mut write = std::pin::pin!(write);
        if let Some(written) = in_time(&mut write).await {
            return written;
        }
        self.fail(&format!("a write to the journal took longer than {JOURNAL_WRITE_SECONDS_MAX} s"));
        write.await
    }

    fn is_half_full(&self) -> bool {
        let ring = self.ring.borrow();
        ring.used() > ring.bytes() / 2
    }

    fn start_checkpoint(self: &Rc<Self>) {
        // A journal that has failed keeps all that it holds.
        if self.failure.borrow().is_some() || self.checkpointing.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let done = this.checkpoint(false).await;
            this.checkpointing.set(false);
            if let Err(e) = done {
                this.fail(&format!("syncing what the journal holds: {e}"));
            }
            this.has_space.notify_waiters();
        });
    }

    /// Syncs everything that was journaled so far, and frees its part of the ring.
    async fn checkpoint(&self, clean: bool) -> io::Result<()> {
        let head = self.ring.borrow().head();
        let dirty = self.dirty.take();
        let covered: Vec<_> = dirty.into_iter().map(|partition| (partition.begin_checkpoint(), partition)).collect();
        let syncs = covered.into_iter().map(|(end, partition)| async move { partition.sync_journaled(end).await });
        let mut syncs = stream::iter(syncs).buffer_unordered(JOURNAL_SYNCS_MAX);
        let mut result = Ok(());
        while let Some(synced) = syncs.next().await {
            result = result.and(synced);
        }
        result?;
        self.still_sound()?;
        let superblock = self.ring.borrow().superblock_at(head, clean);
        self.write_in_time(self.file.write_superblock(&superblock)).await?;
        self.still_sound()?;
        self.ring.borrow_mut().moved(superblock);
        self.metrics.journal_checkpoints.add(1);
        Ok(())
    }

    /// Not when the directory is offline, even before the journal is told: whatever went wrong there, what the ring holds stays.
    fn still_sound(&self) -> io::Result<()> {
        let failure = self.failure.borrow().as_ref().map(|failure| failure.to_string());
        match failure.or_else(|| self.disks.failure(&self.log_dir).map(|failure| failure.to_string())) {
            Some(failure) => Err(io::Error::other(failure)),
            None => Ok(()),
        }
    }

    /// What the ring holds stays there for the next start, and its log directory is offline. Everyone who relies on the ring is told at
    /// once; others in the directory learn of it as its state becomes known.
    pub(super) fn fail(&self, reason: &str) {
        let mut failure = self.failure.borrow_mut();
        if failure.is_some() {
            return;
        }
        *failure = Some(Rc::from(reason));
        drop(failure);
        self.disks.take_offline(&self.log_dir, reason);
        self.pending.borrow_mut().clear();
        self.pending_bytes.set(0);
        for user in self.users.take() {
            if let Some(partition) = user.upgrade() {
                partition.fail(reason);
            }
        }
        self.dirty.borrow_mut().clear();
        self.has_room.notify_waiters();
        self.has_written.notify_waiters();
        self.has_space.notify_waiters();
    }

    /// Ends when nothing is being written or checkpointed.
    pub async fn quiet(&self) {
        self.tasks.ended().await;
    }

    /// The process has ended, however: there is nobody to be synced any more. Who was to be holds the journal in turn.
    #[cfg(test)]
    pub fn end(&self) {
        self.dirty.take();
    }

    /// Clean stop, after all partitions have closed: the next start reads nothing from the ring. False: it must.
    pub async fn close(&self) -> bool {
        self.quiet().await;
        let is_sound = self.failure.borrow().is_none();
        let closed =
            is_sound && self.checkpoint(true).await.inspect_err(|e| error!("closing the journal: {e}")).is_ok();
        self.users.borrow_mut().clear();
        closed
    }
}

/// The outcome of a write to a ring; None: it takes too long. Counted are seconds that this thread has seen: a process that was
/// stopped for a while learns of completed writes first.
async fn in_time<T>(mut write: impl Future<Output = T> + Unpin) -> Option<T> {
    for _ in 0..JOURNAL_WRITE_SECONDS_MAX {
        tokio::select! {
            biased;
            written = &mut write => return Some(written),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    None
}
