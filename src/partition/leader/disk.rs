//! What a partition does when its disk says no.
//!
//! *No space* is the one answer after which everything is known: the write that failed changed nothing that anybody relies on, and
//! its batches are still in memory. They keep their offsets and their place, producers are told that it failed, and when there is space
//! the very same bytes are written to the very same place. So nothing has to be taken back: what a part of the write
//! left in the file is written over, what the journal was handed of it says the same as the segment will, and a producer's retry
//! is recognised as one. After any other failed write, and after any failed sync, nothing more is taken (`LogCore::fail`).

use super::Partition;
use crate::base::disks::{Harm, Health, is_lost_sector};
use crate::base::ids::Offset;
use crate::log::core::Write;
use crate::log::paths;
use crate::log::read::ReadError;
use crate::partition::waiters::Lost;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

impl Partition {
    /// A write that did not succeed, nor the making of its segment.
    pub(super) fn write_failed(&self, write: Write, what: &str, error: &io::Error) {
        // A part of it may be in the file: until that is synced it stays open, or a write-back that fails is told to nobody.
        write.segment.set_dirty(true);
        let harm = self.shared.disks.report(&self.home.borrow().log_dir, what, error);
        if harm != Harm::Full || self.sync_failed.get() || self.core.borrow().failure().is_some() {
            return self.fail(&format!("{what}: {error}"));
        }
        self.stalled.replace(Some(write));
        self.full.set(true);
        self.refuse_unwritten();
    }

    /// A failed sync of files or names is never tried again, whatever the reason: what it covered is unknown, and the kernel tells of a
    /// failed write-back only once.
    pub(super) fn sync_lost(&self, error: &io::Error) {
        self.sync_failed.set(true);
        let (log_dir, reason) = {
            let home = self.home.borrow();
            (home.log_dir.clone(), format!("flushing {}: {error}", home.dir.display()))
        };
        if Harm::of(error) != Harm::Operation {
            self.shared.disks.take_offline(&log_dir, &reason);
        }
        self.fail(&reason);
    }

    /// Something beside the records went wrong: it does not fail the partition unless it tells that the disk has.
    pub(in crate::partition) fn report(&self, what: &str, error: &io::Error) -> Harm {
        let harm = self.shared.disks.report(&self.home.borrow().log_dir, what, error);
        if harm == Harm::Directory {
            self.fail(&format!("{what}: {error}"));
        }
        harm
    }

    /// A reader could not read. Sectors that are lost are damage like any other: the segment is looked through, and what cannot be read
    /// is refused from then on, what can be is served. A disk that is gone as a whole shows by that, too: nothing can be read then.
    pub fn read_failed(self: &Rc<Self>, error: &ReadError) {
        match error {
            // A file that ends too early has lost its rest.
            ReadError::Io { path, source }
                if (is_lost_sector(source) || source.kind() == io::ErrorKind::UnexpectedEof)
                    && self.disk_failure().is_none() =>
            {
                let name = path.file_name().and_then(|name| name.to_str());
                if let Some((base, _)) = name.and_then(paths::parse_segment_file) {
                    self.met_damage(base);
                }
            }
            ReadError::Io { path, source } => drop(self.report(&format!("reading {}", path.display()), source)),
            ReadError::Corrupt { segment, .. } => self.met_damage(*segment),
            ReadError::KnownCorrupt { .. } => {}
        }
    }

    /// Why its log directory is offline, if it is: at once, before the partition is told.
    pub fn disk_failure(&self) -> Option<Arc<str>> {
        self.shared.disks.failure(&self.home.borrow().log_dir)
    }

    /// What its log directory is fit for has changed, perhaps.
    pub fn heed_disk(self: &Rc<Self>) {
        let log_dir = self.home.borrow().log_dir.clone();
        match self.shared.disks.health(&log_dir) {
            Health::Offline => {
                let reason = self.shared.disks.failure(&log_dir);
                // What was told of the directory need not be told of each partition.
                self.fail_quietly(reason.as_deref().unwrap_or("its log directory is offline"));
            }
            Health::Full => self.full.set(true),
            Health::Sound => {
                if self.full.replace(false) {
                    self.seal_again();
                    self.kick_writer();
                }
            }
        }
    }

    /// Whoever waits for what is not written is told that it failed; it may be written later all the same.
    pub(super) fn refuse_unwritten(&self) {
        let written = self.core.borrow().written_end();
        self.written.fail_beyond(written, Lost::Failed);
        self.durable.fail_beyond(written, Lost::Failed);
    }

    /// Records that were refused for want of space, and are still in memory only.
    pub(super) fn unwritten(&self) -> Option<Offset> {
        let core = self.core.borrow();
        (!core.is_quiet()).then(|| core.written_end())
    }
}
