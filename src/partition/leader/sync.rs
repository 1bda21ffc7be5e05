//! What makes records durable, and who is told.

use super::Partition;
use crate::base::clock::now_ms;
use crate::base::config::FlushPolicy;
use crate::base::disks::Harm;
use crate::base::faults::Place;
use crate::base::ids::Offset;
use crate::base::limits::{UNSYNCED_MS_MAX, WRITE_OUT_BYTES};
use crate::log::segment::Segment;
use crate::partition::durability::Way;
use crate::partition::materialise::{self, CleanState};
use crate::partition::waiters::AppendWait;
use std::io;
use std::rc::Rc;

impl Partition {
    /// Up to where everything is on disk one way or the other, and the log end offset.
    pub(in crate::partition) fn durable_and_written(&self) -> (Offset, Offset) {
        let core = self.core.borrow();
        let written = core.written_end();
        (self.durability.borrow_mut().end(core.flushed_end(), written), written)
    }

    /// Everything below `end` that the journal was handed is on disk there.
    pub fn journaled(self: &Rc<Self>, end: Offset) {
        self.durability.borrow_mut().journaled(end);
        if self.core.borrow().failure().is_none() {
            self.progressed();
        }
    }

    /// Tells everybody who waits for what a write, a flush or the journal has changed.
    pub(super) fn progressed(self: &Rc<Self>) {
        let (durable, written) = self.durable_and_written();
        if self.core.borrow().flushed_end() < written && self.unflushed_since_ms.get().is_none() {
            self.unflushed_since_ms.set(Some(now_ms()));
        }
        self.written.reached(written);
        self.durable.reached(durable);
        let promised = if self.shared.policy == FlushPolicy::Disk { durable } else { written };
        if self.watermark.borrow_mut().advance(written, promised) {
            self.fetches.wake_all();
        }
        self.kick_flush();
    }

    /// Starts a flush if somebody waits for what only a flush can bring.
    pub(super) fn kick_flush(self: &Rc<Self>) {
        let Some(end) = self.durable.first() else { return };
        let wanted = {
            let (core, durability) = (self.core.borrow(), self.durability.borrow());
            // What is not written yet may still go to the journal.
            let reached = end <= core.written_end() || durability.lacks_what_is_below();
            reached && core.flushed_end() < core.written_end() && durability.way(end) == Way::Sync
        };
        if wanted {
            self.start_flush();
        }
    }

    pub(super) fn start_flush(self: &Rc<Self>) {
        if self.flushing.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let flushed = this.flush().await;
            this.flushing.set(false);
            match flushed {
                Ok(()) => this.progressed(),
                Err(e) => this.sync_lost(&e),
            }
            if this.flush_again.take() {
                this.start_flush();
            }
        });
    }

    /// Has the disk take what is written little by little. A sync that found all of it would keep the disk, and with it the ring and
    /// everyone who waits for that, for as long as so many bytes take.
    pub(super) fn write_out(self: &Rc<Self>, segment: &Rc<Segment>) {
        if self.shared.policy != FlushPolicy::Disk || self.writing_out.get() || self.sync_failed.get() {
            return;
        }
        let size = u64::from(segment.size());
        let (base, end) = self.written_out.get();
        let from = if base == segment.base { end.min(size) } else { 0 };
        if size - from < WRITE_OUT_BYTES {
            return;
        }
        let Ok(file) = self.shared.files.file(segment) else { return };
        self.written_out.set((segment.base, size));
        self.writing_out.set(true);
        self.shared.metrics.written_out_bytes.add(size - from);
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let begun = file.begin_write_out(from..size).await;
            this.writing_out.set(false);
            // As with a sync: what the disk did not take may never get there, and the next one might not say so.
            if let Err(e) = begun
                && Harm::of(&e) != Harm::Operation
            {
                this.sync_lost(&e);
            }
        });
    }

    /// Makes everything that is written now durable, with the names of its files. After a failure nothing is any more.
    async fn flush(&self) -> io::Result<()> {
        if self.core.borrow().failure().is_some() {
            return Ok(());
        }
        self.sync_written().await
    }

    async fn sync_written(&self) -> io::Result<()> {
        let _one = self.syncs.acquire().await.expect("the semaphore is never closed");
        if self.sync_failed.get() {
            return Err(io::Error::other("an earlier sync failed: what it covered is unknown"));
        }
        let synced = self.try_sync().await;
        if synced.is_err() {
            self.sync_failed.set(true);
        }
        synced
    }

    async fn try_sync(&self) -> io::Result<()> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let Some((end, segments)) = self.core.borrow().unflushed() else { return Ok(()) };
        self.unflushed_since_ms.set(None);
        self.unflushed_bytes.set(0);
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
        self.sync_names().await?;
        self.shared.metrics.flushes.add(1);
        self.core.borrow_mut().flush_completed(end);
        Ok(())
    }

    /// Makes the names that were made so far durable.
    pub async fn sync_names(&self) -> io::Result<()> {
        let home = self.home.borrow().clone();
        // A name that is made meanwhile needs the next sync.
        let Some(made) = home.unsynced_names() else { return Ok(()) };
        let synced = match self.shared.faults.sync(Place::Names).await {
            Ok(()) => materialise::sync_names(home).await,
            Err(e) => Err(e),
        };
        synced.inspect_err(|e| self.sync_lost(e))?;
        self.home.borrow_mut().synced_names(made);
        Ok(())
    }

    /// A checkpoint of the journal begins: it covers what was queued below this offset.
    pub fn begin_checkpoint(&self) -> Offset {
        self.in_journal.set(false);
        self.journal_end.get()
    }

    /// Syncs what the journal was handed below `end`, once it is written to its segments. A partition that takes no more
    /// writes still has records that were promised.
    pub async fn sync_journaled(&self, end: Offset) -> io::Result<()> {
        while self.core.borrow().written_end() < end && self.core.borrow().failure().is_none() {
            let wait = AppendWait::new();
            self.written.add(end, 0, &wait);
            wait.done().await;
        }
        if self.deleted.get() || self.core.borrow().flushed_end() >= end {
            return Ok(());
        }
        match self.sync_written().await {
            Err(e) if !self.deleted.get() => {
                self.sync_lost(&e);
                Err(e)
            }
            _ => Ok(()),
        }
    }

    /// Flushes what has been unflushed for longer than the topic allows (`flush.ms`), and what is not on disk in any way after a while.
    pub fn flush_if_due(self: &Rc<Self>, now_ms: i64) {
        let Some(since) = self.unflushed_since_ms.get() else { return };
        let age_ms = now_ms.saturating_sub(since);
        let is_old = self.shared.policy == FlushPolicy::Disk && age_ms >= UNSYNCED_MS_MAX;
        let due = self.config.borrow().flush_ms.is_some_and(|limit| age_ms >= limit)
            || (is_old && self.durable_and_written().0 < self.core.borrow().written_end());
        if due && self.core.borrow().failure().is_none() {
            self.start_flush();
        }
    }

    /// Clean stop: everything on disk, indexes and snapshot written, so that the next start scans nothing.
    pub async fn close(self: &Rc<Self>) -> io::Result<()> {
        self.closing.set(true);
        self.quiet().await;
        let _one = self.index_files.acquire().await.expect("the semaphore is never closed");
        if let Some(end) = self.unwritten() {
            // The next start sees a log that ends where this one does, and learns of its producers from it.
            self.fail(&format!("stopped without space for what was to follow offset {end}"));
        }
        if self.core.borrow().failure().is_some() || !self.home.borrow().exists {
            return Ok(());
        }
        self.flush().await.inspect_err(|e| self.sync_lost(e))?;
        if self.home.borrow().clean_end == Some(self.core.borrow().written_end()) {
            return Ok(());
        }
        let state = self.clean_state();
        let end = state.end;
        let dir = self.home.borrow().dir.to_path_buf();
        let written = tokio::task::spawn_blocking(move || materialise::write_clean_state(&dir, state));
        let written = written.await.map_err(io::Error::other).and_then(|done| done);
        written.inspect_err(|e| {
            self.report("closing", e);
        })?;
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
}
