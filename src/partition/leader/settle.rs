//! Settling a log: what lies in its active segment is written down so that the next recovery need not read it again.
//!
//! Order, and why a crash in between does no harm: the log is flushed up to an offset, then its epochs and the new entries of its
//! index are on disk, and last comes the producers' snapshot at that offset. Recovery begins at the snapshot, if it is not beyond the
//! recovery point: whoever finds it finds all the rest. Without it, or before a checkpoint says so, recovery begins at an older
//! one, or at the segment's begin.

use super::Partition;
use crate::base::ids::Offset;
use crate::log::paths;
use crate::log::segment::Segment;
use crate::maintenance::{Context, Lane};
use crate::partition::materialise::{self, Settled};
use crate::partition::waiters::AppendWait;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

impl Partition {
    /// Bytes that the next recovery would read; not exact, but 0 only if there is nothing to settle.
    pub fn unsettled_bytes(&self) -> u64 {
        self.unsettled.get()
    }

    /// Settles what is written by now; the partition does not close or go before it has ended.
    pub async fn settle(self: &Rc<Self>) -> io::Result<()> {
        let is_sound = self.core.borrow().failure().is_none() && !self.deleted.get() && !self.full.get();
        if self.unsettled.get() == 0 || !is_sound || !self.home.borrow().exists {
            return Ok(());
        }
        let (done, settled) = oneshot::channel();
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let before = this.unsettled.take();
            let settled = this.try_settle().await;
            if settled.is_err() {
                this.note_unsettled(before);
            }
            // Nobody may have waited for it.
            let _ = done.send(settled);
        });
        settled.await.map_err(io::Error::other)?
    }

    async fn try_settle(self: &Rc<Self>) -> io::Result<()> {
        // Producers are noted when a batch is staged: the snapshot is of that offset.
        let (end, snapshot) = {
            let core = self.core.borrow();
            (core.staged_end(), core.producers().encode(core.staged_end()))
        };
        if self.core.borrow().written_end() < end {
            let wait = AppendWait::new();
            self.written.add(end, 0, &wait);
            if !wait.done().await.is_empty() {
                return Err(io::Error::other("what was taken could not be written"));
            }
        }
        self.sync_journaled(end).await?;
        self.save_epochs_now().await?;
        // Not beside `seal`, which writes the same files.
        let _one = self.index_files.acquire().await.expect("the semaphore is never closed");
        // Nor beside a removal: files that were made behind its back would lie there for ever.
        let _names = self.cleaning.names().acquire_owned().await;
        let Some(segment) = self.settled_segment(end) else { return Ok(()) };
        let Some(indexes) = segment.unsettled_indexes() else { return Ok(()) };
        let dir = self.home.borrow().dir.to_path_buf();
        let snapshot = (paths::segment_file(&dir, end, paths::PRODUCER_SNAPSHOT), snapshot);
        let state = Settled { dir, segment: segment.detached(), indexes, snapshot };
        let write = async move |context: Context| {
            context.blocking(move || materialise::write_settled(&state).map(|()| state.indexes)).await?
        };
        let written = self.shared.maintenance.run(Lane::Settle, write).await.map_err(io::Error::other)?;
        match written {
            Ok(indexes) => segment.set_settled(&indexes),
            // All records have expired meanwhile.
            Err(_) if segment.is_removed() => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The active segment, if `end` lies in it and everything below is on disk. One that began since then has its own snapshot at
    /// its base.
    fn settled_segment(&self, end: Offset) -> Option<Rc<Segment>> {
        let core = self.core.borrow();
        let is_sound = core.flushed_end() >= end && core.failure().is_none();
        let is_sound = is_sound && !self.deleted.get() && !self.closing.get();
        core.segments().back().filter(|active| is_sound && active.base < end).cloned()
    }

    /// The epochs of everything that is written are in their checkpoint when it returns.
    async fn save_epochs_now(self: &Rc<Self>) -> io::Result<()> {
        while self.saved_epoch.get() < self.core.borrow().epochs().latest() {
            if self.saving_epochs.replace(true) {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            let saved = self.save_epochs().await;
            self.saving_epochs.set(false);
            saved?;
        }
        Ok(())
    }

    /// Bytes were written that recovery would read.
    pub(super) fn note_unsettled(&self, bytes: u64) {
        self.unsettled.set(self.unsettled.get() + bytes);
    }
}
