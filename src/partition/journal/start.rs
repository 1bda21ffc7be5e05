//! Rings at start: what a crash left in them goes back to the segments, and then they are taken into use. One that cannot be read,
//! or whose records cannot be brought back, takes its log directory offline and stays as it is for another start.

use super::{Journal, in_time};
use crate::base::disks::{Harm, Health, LogDirs};
use crate::base::host;
use crate::base::ids::TopicPartition;
use crate::base::limits::JOURNAL_WRITE_SECONDS_MAX;
use crate::journal::file::{self, JournalError, RingFile};
use crate::journal::format::Superblock;
use crate::journal::ring::Ring;
use crate::journal::scan::scan;
use crate::log::redo::RedoWrite;
use crate::partition::shared::PartitionShared;
use crate::partition::table::FoundLogDir;
use bytes::Bytes;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use tracing::{info, warn};

/// What is to be written again, by partition.
pub type Redo = HashMap<TopicPartition, Vec<RedoWrite>>;

/// How a shard journals.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub shard: u16,
    /// Bytes of each ring; None: no journal, segments are synced for each durable append.
    pub ring_bytes: Option<u64>,
}

/// A shard's rings as the start found them, by log directory, as far as they are not in use yet.
pub struct Rings {
    found: Vec<FoundRing>,
}

pub struct FoundRing {
    settings: Settings,
    log_dir: PathBuf,
    superblock: Option<Superblock>,
    redo: Redo,
}

impl Rings {
    /// Reads the rings of all log directories. Blocking.
    pub fn read(settings: Settings, log_dirs: &[FoundLogDir], disks: &LogDirs) -> Rings {
        let read = |dir: &FoundLogDir| {
            let failed = |e: &JournalError| disks.take_offline(&dir.path, &e.to_string());
            FoundRing::read(settings, dir).inspect_err(failed).ok()
        };
        Rings { found: log_dirs.iter().filter_map(read).collect() }
    }

    /// No rings: nothing was journaled, and nothing will be.
    pub fn none() -> Rings {
        Rings { found: Vec::new() }
    }

    /// The log directory whose ring has something for a partition.
    pub fn holder(&self, id: TopicPartition) -> Option<&Path> {
        self.found.iter().find(|ring| ring.redo.contains_key(&id)).map(|ring| &*ring.log_dir)
    }

    /// What the ring of a log directory has for a partition, to be brought there once; `done` says that it is in its segments,
    /// synced.
    pub fn redo(&mut self, log_dir: &Path, id: TopicPartition) -> Vec<RedoWrite> {
        let ring = self.found.iter_mut().find(|ring| ring.log_dir == log_dir);
        ring.and_then(|ring| ring.redo.get_mut(&id)).map_or_else(Vec::new, std::mem::take)
    }

    pub fn done(&mut self, log_dir: &Path, id: TopicPartition) {
        for ring in self.found.iter_mut().filter(|ring| ring.log_dir == log_dir) {
            ring.redo.remove(&id);
        }
    }

    /// Of those that are not in use yet.
    pub fn log_dirs(&self) -> Vec<PathBuf> {
        self.found.iter().map(|ring| ring.log_dir.clone()).collect()
    }

    /// Gives the ring of a log directory, to be taken into use.
    pub fn take(&mut self, log_dir: &Path) -> Option<FoundRing> {
        let at = self.found.iter().position(|ring| ring.log_dir == log_dir)?;
        Some(self.found.swap_remove(at))
    }

    /// Takes all into use, one after the other.
    #[cfg(test)]
    pub async fn begin(self, exists: impl Fn(TopicPartition) -> bool, shared: &PartitionShared) -> Vec<Rc<Journal>> {
        let mut journals = Vec::new();
        for ring in self.found {
            journals.extend(ring.begin(&exists, shared).await);
        }
        journals
    }
}

impl FoundRing {
    /// Takes the ring into use, once everything is back in its segments: nothing may be missing from it of a partition that `exists`.
    /// None: its directory needs none, cannot have one, or is offline, now if it was not before.
    pub async fn begin(
        self,
        exists: &impl Fn(TopicPartition) -> bool,
        shared: &PartitionShared,
    ) -> Option<Rc<Journal>> {
        let log_dir = self.log_dir.clone();
        if shared.disks.health(&log_dir) == Health::Offline {
            return None;
        }
        let begun = shared.unless_offline(&log_dir, self.renewed(exists, shared)).await?;
        begun.inspect_err(|e| shared.disks.take_offline(&log_dir, &e.to_string())).ok().flatten()
    }

    async fn renewed(
        self,
        exists: &impl Fn(TopicPartition) -> bool,
        shared: &PartitionShared,
    ) -> Result<Option<Rc<Journal>>, JournalError> {
        let Settings { shard, ring_bytes } = self.settings;
        let path = file::path(&self.log_dir, shard);
        let partitions = self.redo.keys().filter(|id| exists(**id)).count();
        if partitions > 0 {
            return Err(JournalError::Unfinished { path, partitions });
        }
        let io = |source| JournalError::Io { path: path.clone(), source };
        let superblock = match self.redo.len() {
            0 => self.superblock,
            unknown => {
                let path = path.clone();
                beside(move || set_aside(&path, unknown)).await.map_err(io)?;
                None
            }
        };
        let log_dir = self.log_dir.clone();
        let bytes = beside(move || Ok(ring_bytes.filter(|_| may_have_ring(&log_dir)))).await.map_err(io)?;
        let begun = match bytes {
            None => {
                let (path, exists) = (path.clone(), superblock.is_some());
                beside(move || remove(&path, exists)).await.map(|()| None)
            }
            Some(bytes) => begin(&self.log_dir, path.clone(), superblock, bytes, shared).await,
        };
        begun.map_err(io)
    }

    fn read(settings: Settings, dir: &FoundLogDir) -> Result<FoundRing, JournalError> {
        let path = file::path(&dir.path, settings.shard);
        let mut ring = FoundRing { settings, log_dir: dir.path.clone(), superblock: None, redo: Redo::new() };
        let Some(existing) = file::read(&path)? else { return Ok(ring) };
        ring.superblock = Some(existing.superblock.clone());
        let scanned = scan(existing.area.bytes(), &existing.superblock)
            .map_err(|damage| JournalError::Damaged { path: path.clone(), damage })?;
        let area = Bytes::from_owner(existing.area);
        let mut bytes = 0;
        for found in scanned.entries {
            let write = RedoWrite {
                segment: found.header.segment,
                position: found.header.position,
                end: found.header.end,
                bytes: area.slice(found.bytes),
            };
            bytes += write.bytes.len();
            ring.redo.entry(found.header.id).or_default().push(write);
        }
        if bytes > 0 {
            info!("{}: {bytes} bytes for {} partitions go back to their segments", path.display(), ring.redo.len());
        }
        Ok(ring)
    }
}

/// A ring gains by being written over in place. Where the file system writes elsewhere, each write is one more change of its own.
fn may_have_ring(log_dir: &Path) -> bool {
    let obstacle = host::file_system_of(log_dir).ok().and_then(|found| found.moves_what_is_written());
    if let Some(what) = obstacle {
        warn!("{}: on {what} there is no journal: durable appends sync their segments instead", log_dir.display());
    }
    obstacle.is_none()
}

/// A ring with records of partitions that nobody knows: their topics were deleted, or the store is older than the ring. The file
/// is kept for whoever wants to look.
fn set_aside(path: &Path, partitions: usize) -> io::Result<()> {
    let kept = path.with_extension("unknown");
    fs::rename(path, &kept)?;
    warn!(
        "{}: records of {partitions} partitions that the store does not know are in it; it is kept, and not used",
        kept.display()
    );
    path.parent().map_or(Ok(()), crate::log::checkpoint::sync_dir)
}

fn remove(path: &Path, exists: bool) -> io::Result<()> {
    if !exists {
        return Ok(());
    }
    fs::remove_file(path)?;
    path.parent().map_or(Ok(()), crate::log::checkpoint::sync_dir)
}

/// Both superblocks: if only one told of this start, and that one rotted, what comes next would be lost without a word.
async fn renew(file: &RingFile, ring: &mut Ring) -> io::Result<()> {
    write_in_time(file, ring.superblock()).await?;
    let again = ring.superblock_at(ring.head(), false);
    write_in_time(file, &again).await?;
    ring.moved(again);
    Ok(())
}

async fn write_in_time(file: &RingFile, superblock: &Superblock) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {JOURNAL_WRITE_SECONDS_MAX} s"));
    in_time(pin!(file.write_superblock(superblock))).await.ok_or_else(late)?
}

/// Runs what blocks on a thread beside: the shard serves other disks meanwhile.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// None: the file system has no direct I/O, or no space.
async fn begin(
    log_dir: &Path,
    path: PathBuf,
    superblock: Option<Superblock>,
    bytes: u64,
    shared: &PartitionShared,
) -> io::Result<Option<Rc<Journal>>> {
    let superblock = match superblock {
        Some(superblock) if superblock.bytes == bytes => superblock,
        before => {
            let path_made = path.clone();
            match beside(move || file::make(&path_made, fastrand::u64(..), bytes)).await {
                Ok(superblock) => superblock,
                Err(e) if Harm::of(&e) == Harm::Full => {
                    warn!(
                        "{}: no space for a journal of {bytes} bytes: durable appends sync their segments instead",
                        log_dir.display()
                    );
                    return beside(move || remove(&path, before.is_some())).await.map(|()| None);
                }
                Err(e) => return Err(e),
            }
        }
    };
    let mut ring = Ring::renewed(&superblock);
    let path_opened = path.clone();
    let opened = match beside(move || file::open(&path_opened)).await {
        Ok(file) => {
            let file = RingFile::from(file).with(shared.faults.clone());
            renew(&file, &mut ring).await.map(|()| file)
        }
        Err(e) => Err(e),
    };
    match opened {
        Ok(file) => Ok(Some(Journal::new(log_dir, file, ring, shared))),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            warn!(
                "{}: no direct I/O on this file system: durable appends sync their segments instead",
                log_dir.display()
            );
            beside(move || remove(&path, true)).await.map(|()| None)
        }
        Err(e) => Err(e),
    }
}
