//! The embedded store's file: a snapshot of the tree, then every change since, each durable before it is answered.
//!
//! ```text
//! file    "corelog-store 1\n" | record* of a snapshot | snapshot end | record* of changes
//!
//! record  0        4        8        12                 12 + length
//!         +--------+--------+--------+------------------+
//!         | marker | length | CRC-32 | payload          |     u32 little-endian each; the CRC covers length and payload
//!         +--------+--------+--------+------------------+
//! ```
//!
//! What payloads say stands in `codec`. The file's growth is bounded by rewriting it as a snapshot when the changes
//! outweigh it.
//!
//! **Crash argument.** A file gets its name only by a rename, after its snapshot is complete and synced, and the
//! directory is synced after the rename: so under the name there is always a whole snapshot, the old or the new, and
//! both say the same. Changes are appended one at a time, each synced (fdatasync) before the next is begun and before it
//! is answered. So a crash can only damage the record after the last answered one: an invalid record with no valid one
//! behind it is that torn tail, which is cut; nobody was told of it. An invalid record *before* a valid one cannot come
//! from a crash: the disk has lost something that was answered, and the file is refused. After a failed write or sync
//! the kernel may have dropped the pages, so nothing more is written until the file is opened again.

use super::super::tree::{NodeRecord, Tree, Txn};
use super::codec::{self, Record};
use crate::base::limits::{STORE_FILE_BYTES_MAX, STORE_REQUEST_BYTES_MAX};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    #[error("{path}: {action}: {source}", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error(
        "{path}: damaged at byte {position}: {found}. The records behind it are intact, so this is not the trace of a \
         crash; restore the file from a copy",
        path = path.display()
    )]
    Damaged { path: PathBuf, position: u64, found: String },
    #[error("{path}: not a store of this version: expected it to begin with {MAGIC:?}", path = path.display())]
    NotAStore { path: PathBuf },
    #[error("{path}: {bytes} bytes, more than the {STORE_FILE_BYTES_MAX} allowed", path = path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
}

/// The open file, positioned behind its last change.
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// Rewritten as a snapshot when it reaches this length.
    rewrite_at: u64,
}

const MAGIC: &str = "corelog-store 1\n";
const MARKER: u32 = 0xC07E_109A;
const HEADER: usize = 12;
/// A change is bounded by its request, a snapshot's record by `SNAPSHOT_RECORD_BYTES` and one node.
const PAYLOAD_BYTES_MAX: usize = 2 * STORE_REQUEST_BYTES_MAX;
const SNAPSHOT_RECORD_BYTES: usize = 256 << 10;
/// Changes are not weighed against the snapshot below this.
const REWRITE_BYTES_MIN: u64 = 4 << 20;

impl Journal {
    /// Opens the file, or creates it where there is none, and gives the tree that it holds.
    pub fn open(path: &Path) -> Result<(Journal, Tree), JournalError> {
        let fail = |action| move |source| JournalError::Io { path: path.to_path_buf(), action, source };
        // A leftover of a rewrite that did not get as far as its rename: never part of the store.
        match std::fs::remove_file(temporary(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(fail("removing a leftover")(error)),
            _ => {}
        }
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let tree = Tree::default();
                let (file, length) = write_snapshot(path, &tree)?;
                return Ok((Journal::at(path, file, length), tree));
            }
            Err(error) => return Err(fail("opening")(error)),
        };
        let bytes = file.metadata().map_err(fail("reading its length"))?.len();
        if bytes > STORE_FILE_BYTES_MAX {
            return Err(JournalError::TooLarge { path: path.to_path_buf(), bytes });
        }
        let content = std::fs::read(path).map_err(fail("reading"))?;
        let (tree, snapshot, end) = read_all(path, content.into(), &mut |_, _, _| {})?;
        if end < bytes {
            tracing::warn!(
                file = %path.display(),
                position = end,
                bytes = bytes - end,
                "cut an unfinished change from the store's tail: it was never answered"
            );
            file.set_len(end).and_then(|()| file.sync_all()).map_err(fail("cutting its tail"))?;
        }
        let mut journal = Journal::at(path, file, snapshot);
        journal.length = end;
        Ok((journal, tree))
    }

    /// A change as it stands in the file.
    pub fn encode(txn: &Txn) -> Vec<u8> {
        let mut record = Vec::new();
        put_record(&mut record, |payload| codec::encode_txn(payload, txn));
        record
    }

    /// Sees to it that the disk has space for so many bytes more; the file says the same as before. An error: it has none. Where the
    /// file system cannot tell, or fails otherwise, the append will.
    pub fn reserve(&self, bytes: usize) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, bytes as u64) {
            Err(e @ (Errno::NOSPC | Errno::DQUOT)) => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Makes a change durable. After an error the file must not be written again.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.file.write_all_at(record, self.length)?;
        self.file.sync_data()?;
        self.length += record.len() as u64;
        Ok(())
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// True when the changes outweigh the snapshot.
    pub fn wants_rewrite(&self) -> bool {
        self.length >= self.rewrite_at
    }

    /// Replaces the file by a snapshot. An error before the rename leaves the old file in use and is only logged;
    /// an error after it makes the file unusable, since which of the two a crash would leave is open.
    pub fn rewrite(&mut self, tree: &Tree) -> Result<(), JournalError> {
        match write_snapshot(&self.path, tree) {
            Ok((file, length)) => {
                tracing::debug!(before = self.length, after = length, "rewrote the store as a snapshot");
                *self = Journal::at(&self.path, file, length);
                Ok(())
            }
            Err(error @ JournalError::Io { action: SYNC_DIRECTORY, .. }) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "could not rewrite the store as a snapshot; it goes on growing");
                let _ = std::fs::remove_file(temporary(&self.path));
                self.rewrite_at = self.length + REWRITE_BYTES_MIN;
                Ok(())
            }
        }
    }

    fn at(path: &Path, file: File, snapshot: u64) -> Journal {
        Journal {
            path: path.to_path_buf(),
            file,
            length: snapshot,
            rewrite_at: snapshot + REWRITE_BYTES_MIN.max(2 * snapshot),
        }
    }
}

/// A store's file as it lies there, read without changing anything.
pub struct Inspected {
    /// Ephemeral nodes of the last process included.
    pub tree: Tree,
    pub snapshot_bytes: u64,
    /// Where the last whole change ends; what follows was never answered, and the next start cuts it.
    pub valid_bytes: u64,
    pub file_bytes: u64,
}

/// Reads a file that nobody need have locked, with `visit` called for each record: its position, the position after it,
/// and what it says. Of a file that is refused, the records before the damage are visited.
pub fn inspect(path: &Path, visit: &mut dyn FnMut(u64, u64, &Record)) -> Result<Inspected, JournalError> {
    let fail = |action| move |source| JournalError::Io { path: path.to_path_buf(), action, source };
    let file = File::open(path).map_err(fail("opening"))?;
    // One byte more than is allowed tells that there are more, also where the file grows meanwhile.
    let mut content = Vec::new();
    file.take(STORE_FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(fail("reading"))?;
    let file_bytes = content.len() as u64;
    if file_bytes > STORE_FILE_BYTES_MAX {
        return Err(JournalError::TooLarge { path: path.to_path_buf(), bytes: file_bytes });
    }
    let (tree, snapshot_bytes, valid_bytes) = read_all(path, content.into(), visit)?;
    Ok(Inspected { tree, snapshot_bytes, valid_bytes, file_bytes })
}

const SYNC_DIRECTORY: &str = "syncing its directory";

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    name.into()
}

/// Writes a snapshot under the file's name, durably; gives the open file and its length.
fn write_snapshot(path: &Path, tree: &Tree) -> Result<(File, u64), JournalError> {
    let temporary = temporary(path);
    let fail = |action| {
        let path = temporary.clone();
        move |source| JournalError::Io { path, action, source }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)
        .map_err(fail("creating"))?;
    let length = write_nodes(&file, tree).map_err(fail("writing"))?;
    file.sync_all().map_err(fail("syncing"))?;
    std::fs::rename(&temporary, path).map_err(fail("renaming"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| JournalError::Io {
        path: directory.to_path_buf(),
        action: SYNC_DIRECTORY,
        source,
    })?;
    Ok((file, length))
}

fn write_nodes(file: &File, tree: &Tree) -> io::Result<u64> {
    let mut out = MAGIC.as_bytes().to_vec();
    let mut position = 0;
    let mut pending: Vec<NodeRecord> = Vec::new();
    let (mut pending_bytes, mut nodes) = (0, 0);
    let mut outcome = Ok(());
    tree.for_each(|node| {
        if outcome.is_err() {
            return;
        }
        nodes += 1;
        pending_bytes += node.path.len() + node.data.len() + 64;
        pending.push(node);
        if pending_bytes >= SNAPSHOT_RECORD_BYTES {
            put_record(&mut out, |payload| codec::encode_nodes(payload, &pending));
            outcome = file.write_all_at(&out, position);
            position += out.len() as u64;
            out.clear();
            pending.clear();
            pending_bytes = 0;
        }
    });
    outcome?;
    put_record(&mut out, |payload| codec::encode_nodes(payload, &pending));
    put_record(&mut out, |payload| codec::encode_snapshot_end(payload, tree.zxid(), nodes));
    file.write_all_at(&out, position)?;
    Ok(position + out.len() as u64)
}

fn put_record(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    payload(out);
    let length = out.len() - start - HEADER;
    assert!(length <= PAYLOAD_BYTES_MAX, "a record of {length} bytes");
    let length = (length as u32).to_le_bytes();
    let crc = record_crc(&length, &out[start + HEADER..]).to_le_bytes();
    out[start..start + 4].copy_from_slice(&MARKER.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&length);
    out[start + 8..start + HEADER].copy_from_slice(&crc);
}

fn record_crc(length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}

/// The tree, the snapshot's length, and where the valid part ends.
fn read_all(
    path: &Path,
    content: Bytes,
    visit: &mut dyn FnMut(u64, u64, &Record),
) -> Result<(Tree, u64, u64), JournalError> {
    if !content.starts_with(MAGIC.as_bytes()) {
        return Err(JournalError::NotAStore { path: path.to_path_buf() });
    }
    let damaged = |position: usize, found: &str| JournalError::Damaged {
        path: path.to_path_buf(),
        position: position as u64,
        found: found.to_string(),
    };
    let (mut tree, snapshot) = read_snapshot(&content, &damaged, visit)?;
    let mut position = snapshot;
    while position < content.len() {
        let Some((record, end)) = record_at(&content, position) else {
            // Only what nobody was told of may be dropped: see the crash argument.
            return match later_record(&content, position, tree.zxid()) {
                Some(_) => Err(damaged(position, "no valid record")),
                None => Ok((tree, snapshot as u64, position as u64)),
            };
        };
        let Record::Txn(txn) = &record else {
            return Err(damaged(position, "a snapshot's record among changes"));
        };
        if Some(txn.zxid) != tree.zxid().checked_add(1) {
            return Err(damaged(position, &format!("change {} after change {}", txn.zxid, tree.zxid())));
        }
        tree.apply(txn).map_err(|error| damaged(position, &format!("a change that does not apply: {error}")))?;
        visit(position as u64, end as u64, &record);
        position = end;
    }
    Ok((tree, snapshot as u64, position as u64))
}

fn read_snapshot(
    content: &Bytes,
    damaged: &dyn Fn(usize, &str) -> JournalError,
    visit: &mut dyn FnMut(u64, u64, &Record),
) -> Result<(Tree, usize), JournalError> {
    let mut nodes = Vec::new();
    let mut position = MAGIC.len();
    loop {
        let record = record_at(content, position);
        if let Some((record @ (Record::Nodes(_) | Record::SnapshotEnd { .. }), end)) = &record {
            visit(position as u64, *end as u64, record);
        }
        match record {
            Some((Record::Nodes(more), end)) => {
                nodes.extend(more);
                position = end;
            }
            Some((Record::SnapshotEnd { zxid, nodes: count }, end)) => {
                if count != nodes.len() as u64 {
                    return Err(damaged(position, &format!("{} nodes where {count} were expected", nodes.len())));
                }
                let tree = Tree::restore(zxid, nodes)
                    .map_err(|error| damaged(position, &format!("a snapshot that is no tree: {error}")))?;
                return Ok((tree, end));
            }
            Some((Record::Txn(_), _)) => return Err(damaged(position, "a change inside the snapshot")),
            None => return Err(damaged(position, "no valid record in the snapshot")),
        }
    }
}

/// The record at a position with its end; None where there is no whole and valid one.
fn record_at(content: &Bytes, position: usize) -> Option<(Record, usize)> {
    let header = content.get(position..position + HEADER)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let length = word(4) as usize;
    if word(0) != MARKER || length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let start = position + HEADER;
    let payload = content.get(start..start + length)?;
    if record_crc(&header[4..8], payload) != word(8) {
        return None;
    }
    Some((codec::decode(content.slice(start..start + length))?, start + length))
}

/// A valid later change behind a position that has none.
fn later_record(content: &Bytes, from: usize, zxid: u64) -> Option<usize> {
    let marker = MARKER.to_le_bytes();
    (from + 1..content.len().saturating_sub(HEADER)).find(|position| {
        content[*position..*position + 4] == marker
            && matches!(record_at(content, *position), Some((Record::Txn(txn), _)) if txn.zxid > zxid)
    })
}
