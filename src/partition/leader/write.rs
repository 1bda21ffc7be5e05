//! Writes to segments, and what goes along with them: new segments, indexes of full ones, leader epochs.

use super::Partition;
use crate::base::clock::now_ms;
use crate::base::config::{FlushPolicy, TopicConfig};
use crate::base::disks::Harm;
use crate::base::faults::Place;
use crate::base::limits::UNFLUSHED_BYTES_MAX;
use crate::journal::format::EntryHeader;
use crate::log::core::Write;
use crate::log::file::Way;
use crate::log::paths;
use crate::log::segment::Segment;
use crate::partition::journal::Journal;
use crate::partition::materialise;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tracing::warn;

/// Writes go to the journal until nobody has waited for the disk for so long. A gap costs a sync of the segments, and
/// journaling what nobody waits for costs as much disk as the records do.
const JOURNALED_AFTER_WAIT: Duration = Duration::from_secs(1);

/// A full segment whose indexes are not on disk, and the producers' snapshot at its end with its path: as it was then, since what was
/// known of them is forgotten over what they send later.
pub(super) struct Unsealed {
    segment: Rc<Segment>,
    snapshot: (PathBuf, Vec<u8>),
}

impl Partition {
    pub(super) fn kick_writer(self: &Rc<Self>) {
        if self.writing.get() || self.full.get() || self.core.borrow().is_quiet() {
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
            let Some(mut write) = self.next_write(&config).await else { return };
            let (segment, sealed, bytes) = (Rc::clone(&write.segment), write.sealed.clone(), write.bytes as u64);
            if let Err(e) = self.perform(&mut write).await {
                return self.write_failed(write, &format!("writing {}", segment.path(paths::LOG).display()), &e);
            }
            self.core.borrow_mut().write_completed(&segment, config.index_interval_bytes, now_ms());
            self.note_unsettled(bytes);
            self.progressed();
            self.write_out(&segment);
            if let Some(sealed) = sealed {
                self.seal(sealed);
            }
            let unflushed = self.unflushed_bytes.get() + bytes;
            self.unflushed_bytes.set(unflushed);
            let is_due = unflushed >= UNFLUSHED_BYTES_MAX && self.shared.policy == FlushPolicy::Disk;
            if is_due || self.shared.files.is_over_budget() {
                self.start_flush();
            }
            self.save_epochs_if_new();
        }
    }

    /// What is to be written next: what found no space before, or what was staged, which the journal is handed first.
    async fn next_write(self: &Rc<Self>, config: &TopicConfig) -> Option<Write> {
        if let Some(stalled) = self.stalled.take() {
            return Some(stalled);
        }
        let journal = self.wanted_journal();
        if let Some(journal) = &journal {
            journal.room().await;
        }
        if self.full.get() {
            self.refuse_unwritten();
            return None;
        }
        let write = self.core.borrow_mut().next_write(config, now_ms())?;
        match journal.filter(|journal| write.bytes <= journal.write_bytes_max()) {
            Some(journal) => self.queue_in(&journal, &write),
            None => self.durability.borrow_mut().skip(),
        }
        Some(write)
    }

    /// The journal, if the next write is to go there.
    fn wanted_journal(self: &Rc<Self>) -> Option<Rc<Journal>> {
        if self.durable.first().is_some() {
            self.durable_wanted.set(Some(Instant::now()));
        }
        let wanted = self.durable_wanted.get().is_some_and(|at| at.elapsed() < JOURNALED_AFTER_WAIT);
        if !wanted {
            return None;
        }
        if let Some(found) = self.journal.get() {
            return found.clone();
        }
        let log_dir = &self.home.borrow().log_dir;
        if !self.shared.knows_journal(log_dir) {
            return None;
        }
        let find = || self.shared.journal(log_dir).filter(|journal| journal.enlist(self));
        self.journal.get_or_init(find).clone()
    }

    fn queue_in(self: &Rc<Self>, journal: &Rc<Journal>, write: &Write) {
        let entry = EntryHeader {
            id: self.id,
            base: write.base,
            end: write.end,
            segment: write.segment.base,
            position: write.position,
            length: write.bytes as u32,
        };
        self.durability.borrow_mut().queue(write.base, write.end);
        self.journal_end.set(write.end);
        journal.queue(self, entry, write.buffers.clone(), !self.in_journal.replace(true));
    }

    /// What of it was done is noted in it, so that the rest can be done later.
    async fn perform(&self, write: &mut Write) -> io::Result<()> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        if write.first {
            // A directory must not be found without a segment in its middle, which the journal may still have to fill.
            if self.home.borrow().exists {
                self.sync_names().await?;
            }
            let home = self.home.borrow().clone();
            let exists = home.exists;
            let (latest, epochs) = {
                let core = self.core.borrow();
                (core.epochs().latest(), core.epochs().entries().to_vec())
            };
            self.shared.faults.sync(Place::Names).await?;
            materialise::make_segment(home, (&self.topic, self.id), write.segment.base, epochs).await?;
            self.home.borrow_mut().made_names();
            if !exists {
                self.saved_epoch.set(latest);
            }
            write.first = false;
        }
        self.shared.metrics.append_writes.add(1);
        self.shared.metrics.append_batches_max.raise(write.batches as u64);
        let file = self.shared.files.file(&write.segment)?;
        let buffers = std::mem::take(&mut write.buffers);
        let began = Instant::now();
        // The first write after a pause may have to bring the file's last page from the disk.
        let inline = self.last_write.get().is_some() && self.shared.inline.allows(write.bytes, began);
        let way = if inline { Way::Inline } else { Way::Ring };
        let written = file.write_at(buffers, u64::from(write.position) + write.done, way).await;
        if inline && self.shared.inline.ended(began, Instant::now()) {
            self.shared.metrics.append_stalls.add(1);
        }
        if let Err(unwritten) = written {
            (write.buffers, write.done) = (unwritten.buffers, write.done + unwritten.done);
            return Err(unwritten.error);
        }
        self.last_write.set(Some(Instant::now()));
        Ok(())
    }

    /// Writes the indexes and the producer snapshot of a segment that is full, and flushes it in the background.
    fn seal(self: &Rc<Self>, sealed: Rc<Segment>) {
        if sealed.is_removed() {
            return;
        }
        let core = self.core.borrow();
        let end = core.segment_after(&sealed).map_or(core.written_end(), |next| next.base);
        let snapshot = core.producers().encode(end);
        drop(core);
        let path = paths::segment_file(&self.home.borrow().dir, end, paths::PRODUCER_SNAPSHOT);
        self.write_sealed(Unsealed { segment: sealed, snapshot: (path, snapshot) });
    }

    fn write_sealed(self: &Rc<Self>, Unsealed { segment: sealed, snapshot }: Unsealed) {
        let Some(indexes) = sealed.encode_indexes() else { return };
        let detached = sealed.detached();
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let _one = this.index_files.acquire().await.expect("the semaphore is never closed");
            // Whoever removes it waits until its files are there, and takes them along.
            let _names = this.cleaning.names().acquire_owned().await;
            if sealed.is_removed() {
                return;
            }
            let written = tokio::task::spawn_blocking(move || {
                let done = materialise::write_sealed(&detached, &indexes, (&snapshot.0, &snapshot.1));
                (done, snapshot)
            });
            let (written, snapshot) = match written.await {
                Ok(written) => written,
                Err(e) => return warn!("{}-{}: sealing a segment: {e}", this.topic, this.index()),
            };
            match written {
                Ok(()) => {
                    sealed.set_indexed_on_disk(true);
                    sealed.drop_indexes();
                }
                Err(e) if sealed.is_removed() => tracing::debug!("indexes of a removed segment: {e}"),
                // They stay in memory, and the recovery point below the segment, until it is tried again.
                Err(e) => {
                    warn!("{}-{}: indexes of a full segment: {e}", this.topic, this.index());
                    if this.report("writing the indexes of a full segment", &e) != Harm::Directory {
                        this.unsealed.borrow_mut().push(Unsealed { segment: sealed, snapshot });
                    }
                }
            }
            this.flush_again.set(this.flushing.get());
            this.start_flush();
        });
    }

    /// There is space again, or retention needs to know: what could not be written when its segment was full is written now.
    pub(super) fn seal_again(self: &Rc<Self>) {
        self.unsealed.take().into_iter().for_each(|unsealed| self.write_sealed(unsealed));
    }

    /// Brings the leader-epoch checkpoint up to date in the background when a new epoch has records.
    fn save_epochs_if_new(self: &Rc<Self>) {
        if self.core.borrow().epochs().latest() == self.saved_epoch.get() || self.saving_epochs.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            if let Err(e) = this.save_epochs().await {
                let (topic, index) = (&this.topic, this.index());
                warn!("{topic}-{index}: leader epoch checkpoint: {e}; the next write tries again");
                this.report("writing the leader epoch checkpoint", &e);
            }
            this.saving_epochs.set(false);
        });
    }

    /// One at a time, lest an older history take the place of a newer one.
    pub(super) async fn save_epochs(&self) -> io::Result<()> {
        loop {
            let (latest, entries) = {
                let core = self.core.borrow();
                (core.epochs().latest(), core.epochs().entries().to_vec())
            };
            if latest == self.saved_epoch.get() {
                return Ok(());
            }
            let dir = self.home.borrow().dir.to_path_buf();
            let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
            let saved = tokio::task::spawn_blocking(move || materialise::write_epochs(&dir, &entries));
            saved.await.map_err(io::Error::other).and_then(|done| done)?;
            self.saved_epoch.set(latest);
        }
    }
}
