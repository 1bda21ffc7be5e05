//! The ring's file: made once, read once after a start, written ever after.

use super::block::Blocks;
use super::format::{BLOCK, GROUPS_AT, Place, Superblock, first_link};
use super::ring::{Group, Placed};
use super::scan::Damage;
use crate::base::faults::{Faults, Place as Beneath};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio_uring::buf::{BoundedBuf, IoBuf};
use tokio_uring::fs::File;

/// What no ring reaches; sums of such numbers do not overflow.
const NUMBERS_MAX: u64 = 1 << 62;
/// The greatest `log.journal.bytes`.
const RING_BYTES_MAX: u64 = 4 << 30;
/// Bytes that are written at once when a ring is made.
const MAKE_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path}: neither superblock is whole; what it holds is lost. Move it away to start with what the logs have"
    )]
    NoSuperblock { path: PathBuf },
    #[error(
        "{path}: {found} bytes, the superblock says {expected}. Restore the file, or move it away to start with what the logs have"
    )]
    WrongSize { path: PathBuf, expected: u64, found: u64 },
    #[error("{path}: {damage}. Restore the file, or move it away to start with what the logs have")]
    Damaged { path: PathBuf, damage: Damage },
    #[error(
        "{path}: it holds records of {partitions} partitions that could not be brought to their segments. Mend what was reported before, or move the file away to start without these records"
    )]
    Unfinished { path: PathBuf, partitions: usize },
}

/// A ring's file as a start finds it.
pub struct Existing {
    pub superblock: Superblock,
    /// The groups' area; empty if the ring is clean.
    pub area: Blocks,
}

/// An open ring. Each write is on disk when it returns.
pub struct RingFile {
    file: File,
    faults: Faults,
}

/// `journal-0.ring`, one for each shard, beside the partitions' directories: Kafka minds only directories there. No partition's
/// directory can have that name, whatever its topic is called: it would end in a number.
pub fn path(log_dir: &Path, shard: u16) -> PathBuf {
    log_dir.join(format!("journal-{shard}.ring"))
}

/// Whether a file of that name is a shard's journal.
pub fn is_ring(name: &str) -> bool {
    name.strip_prefix("journal-")
        .and_then(|rest| rest.strip_suffix(".ring"))
        .is_some_and(|shard| shard.parse::<u16>().is_ok())
}

/// Makes a ring with `bytes` of groups, written through and durable under its name. Blocking.
pub fn make(path: &Path, ring: u64, bytes: u64) -> io::Result<Superblock> {
    let tail = Place { position: 0, sequence: 0, link: first_link(ring, 0) };
    let superblock = Superblock { ring, boot: 0, generation: 0, bytes, tail, clean: true };
    let temporary = path.with_extension("tmp");
    write_through(&temporary, &superblock).inspect_err(|_| {
        // What was written of it would take space from the logs.
        let _ = fs::remove_file(&temporary);
    })?;
    fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(superblock)
}

fn write_through(path: &Path, superblock: &Superblock) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let mut blocks = Blocks::zeroed(MAKE_BYTES);
    superblock.encode(blocks.bytes_mut());
    file.write_all(&blocks.bytes()[..GROUPS_AT as usize])?;
    blocks.bytes_mut()[..BLOCK].fill(0);
    let mut left = superblock.bytes;
    while left > 0 {
        let now = left.min(MAKE_BYTES as u64);
        file.write_all(&blocks.bytes()[..now as usize])?;
        left -= now;
    }
    file.sync_all()?;
    // They are not read again: memory is better used for records.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

/// Sets aside the rings that are not clean in a directory that was stopped cleanly: whatever used it since does not know the
/// journal, and its logs are newer. To be called before the mark of the clean stop goes, after which nothing tells. Blocking.
pub fn set_aside_outdated(log_dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut set_aside = Vec::new();
    let io = |source| JournalError::Io { path: log_dir.to_owned(), source };
    for entry in fs::read_dir(log_dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_str().is_some_and(is_ring)
            && read(&entry.path()).is_ok_and(|found| found.is_some_and(|found| !found.superblock.clean))
        {
            let kept = entry.path().with_extension("outdated");
            fs::rename(entry.path(), &kept).map_err(io)?;
            set_aside.push(kept);
        }
    }
    if !set_aside.is_empty() {
        fs::File::open(log_dir).and_then(|dir| dir.sync_all()).map_err(io)?;
    }
    Ok(set_aside)
}

/// Reads what is there; None: there is no ring. Blocking.
pub fn read(path: &Path) -> Result<Option<Existing>, JournalError> {
    let io = |source| JournalError::Io { path: path.to_owned(), source };
    // Past the page cache, which may hold what the disk refused to take.
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    let file = match direct {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => fs::File::open(path),
        other => other,
    };
    let file = match file {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let found = file.metadata().map_err(io)?.len();
    if found < GROUPS_AT {
        return Err(JournalError::NoSuperblock { path: path.to_owned() });
    }
    let mut blocks = Blocks::zeroed(GROUPS_AT as usize);
    file.read_exact_at(blocks.bytes_mut(), 0).map_err(io)?;
    let both = [Superblock::decode(blocks.bytes()), Superblock::decode(&blocks.bytes()[BLOCK..])];
    let newest = both.into_iter().flatten().max_by_key(|superblock| superblock.generation);
    let superblock = newest.ok_or_else(|| JournalError::NoSuperblock { path: path.to_owned() })?;
    let numbers = [superblock.boot, superblock.generation, superblock.tail.position, superblock.tail.sequence];
    if numbers.iter().any(|number| *number >= NUMBERS_MAX) || superblock.bytes > RING_BYTES_MAX {
        return Err(JournalError::NoSuperblock { path: path.to_owned() });
    }
    if superblock.bytes == 0 || superblock.bytes % BLOCK as u64 != 0 || found != GROUPS_AT + superblock.bytes {
        let expected = GROUPS_AT.saturating_add(superblock.bytes);
        return Err(JournalError::WrongSize { path: path.to_owned(), expected, found });
    }
    let mut area = Blocks::default();
    if !superblock.clean {
        area.reserve(superblock.bytes as usize);
        file.read_exact_at(area.bytes_mut(), GROUPS_AT).map_err(io)?;
    }
    Ok(Some(Existing { superblock, area }))
}

/// Opens a ring to write to it. Fails where the file system has no direct I/O. Blocking.
pub fn open(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC).open(path)
}

impl From<fs::File> for RingFile {
    fn from(file: fs::File) -> RingFile {
        RingFile { file: File::from_std(file), faults: Faults::default() }
    }
}

impl RingFile {
    pub fn with(self, faults: Faults) -> RingFile {
        RingFile { faults, ..self }
    }

    /// Writes a group at its place; on disk when it returns.
    pub async fn write_group(&self, group: &mut Group, placed: Placed) -> io::Result<()> {
        let allowed = self.faults.write(Beneath::Ring, placed.bytes).await?;
        let buffer = group.take_blocks().slice(..allowed.max(1));
        let (written, buffer) = self.file.write_all_at(buffer, placed.file_position).await;
        group.give_blocks(buffer.into_inner());
        // A ring's size is fixed: who takes only a part of a write is broken.
        if allowed < placed.bytes { Err(io::ErrorKind::WriteZero.into()) } else { written }
    }

    /// On disk when it returns.
    pub async fn write_superblock(&self, superblock: &Superblock) -> io::Result<()> {
        if self.faults.write(Beneath::Ring, BLOCK).await? < BLOCK {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut blocks = Blocks::zeroed(BLOCK);
        superblock.encode(blocks.bytes_mut());
        self.file.write_all_at(blocks, superblock.file_position()).await.0
    }
}

// SAFETY: the blocks lie on the heap, where moving the handle does not move them; all of them are initialised, and nothing
// grows or frees them while the kernel has the handle.
unsafe impl IoBuf for Blocks {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }

    fn bytes_total(&self) -> usize {
        self.len()
    }
}
