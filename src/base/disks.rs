//! What each of a node's log directories is fit for: one word for all shards, told by whoever meets the disk first.
//!
//! - *Sound*: everything is served.
//! - *Full*: nothing is appended until there is space again; everything else goes on, within the reserve that was given up.
//! - *Offline*: the disk failed. It stays so until the next start has looked at it (Kafka: an offline log directory).
//!
//! Reading and writing of records never looks here: a change wakes every shard, which tells its partitions.

use super::ids::{BrokerId, TopicPartition};
use super::limits::RECOVERIES_AT_ONCE_MAX;
use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{error, info, warn};

/// All log directories of the node, in the order of `log.dirs`.
#[derive(Default)]
pub struct LogDirs {
    dirs: Vec<Dir>,
    changes: watch::Sender<u64>,
    /// Partitions that no shard can serve because of their directory, by the shard that leads them.
    lost: RwLock<HashMap<BrokerId, Arc<HashSet<TopicPartition>>>>,
}

struct Dir {
    path: PathBuf,
    /// Why it is offline; it never comes back.
    failure: OnceLock<Arc<str>>,
    full: AtomicBool,
    /// Logs in it that may be recovered side by side.
    recoveries: Arc<Semaphore>,
    /// What is large goes one after the other; bytes that wait for it, or are being removed.
    removals: Arc<Semaphore>,
    to_remove: Arc<AtomicU64>,
}

/// The turn to remove so many bytes of a directory.
pub struct Removal {
    _turn: OwnedSemaphorePermit,
    _waiting: Waiting,
}

struct Waiting {
    to_remove: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.to_remove.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Sound,
    Full,
    Offline,
}

/// What an error of the disk says about what lies on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// There is no space. Nothing that was on the disk has changed, and what failed can be done again later.
    Full,
    /// The disk, its file system or its mount: nothing in the directory can be relied on.
    Directory,
    /// Only what was asked for: a file that somebody removed, no descriptor or memory left.
    Operation,
}

/// What disks and file systems say of a part that cannot be read: nothing else needs to be wrong. ENODATA is a medium's error, which only direct
/// reads are told by that name.
pub fn is_lost_sector(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EUCLEAN | libc::EBADMSG | libc::EREMOTEIO)
    )
}

impl Harm {
    /// By the error alone. A failed sync is always the directory's: what it covered is unknown, whatever the reason.
    pub fn of(error: &io::Error) -> Harm {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => return Harm::Full,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::StaleNetworkFileHandle => return Harm::Directory,
            _ => {}
        }
        match error.raw_os_error() {
            Some(
                libc::EIO
                | libc::ENXIO
                | libc::ENODEV
                | libc::EUCLEAN
                | libc::EBADMSG
                | libc::EREMOTEIO
                | libc::ENOMEDIUM
                | libc::ENOTCONN
                | libc::ECONNABORTED
                | libc::ETIMEDOUT
                | libc::EILSEQ
                | libc::EACCES
                | libc::EPERM,
            ) => Harm::Directory,
            _ => Harm::Operation,
        }
    }
}

impl LogDirs {
    /// `dirs`: each with why it cannot be used, if it cannot.
    pub fn new(dirs: impl IntoIterator<Item = (PathBuf, Option<String>)>) -> LogDirs {
        let dirs: Vec<_> = dirs.into_iter().collect();
        let each = (RECOVERIES_AT_ONCE_MAX / dirs.len().max(1)).max(1);
        let dir = |(path, failure): (PathBuf, Option<String>)| Dir {
            path,
            failure: failure.map_or_else(OnceLock::new, |reason| OnceLock::from(Arc::from(reason))),
            full: AtomicBool::new(false),
            recoveries: Arc::new(Semaphore::new(each)),
            removals: Arc::new(Semaphore::new(1)),
            to_remove: Arc::default(),
        };
        LogDirs { dirs: dirs.into_iter().map(dir).collect(), ..LogDirs::default() }
    }

    /// The directories with what they are fit for, in the order of `log.dirs`.
    pub fn all(&self) -> impl Iterator<Item = (&Path, Health)> {
        self.dirs.iter().map(|dir| (&*dir.path, dir.health()))
    }

    /// Of a directory that is none of the node's: sound.
    pub fn health(&self, path: &Path) -> Health {
        self.dir(path).map_or(Health::Sound, Dir::health)
    }

    /// Why a directory is offline.
    pub fn failure(&self, path: &Path) -> Option<Arc<str>> {
        self.dir(path)?.failure.get().cloned()
    }

    /// Nothing is left to serve from.
    pub fn all_offline(&self) -> bool {
        !self.dirs.is_empty() && self.dirs.iter().all(|dir| dir.health() == Health::Offline)
    }

    /// The disk failed: from now on the directory is offline on every shard.
    pub fn take_offline(&self, path: &Path, reason: &str) {
        let Some(dir) = self.dir(path) else { return };
        if dir.failure.set(Arc::from(reason)).is_ok() {
            error!("log directory {} is offline: {reason}; its partitions answer KAFKA_STORAGE_ERROR", path.display());
            self.changed();
        }
    }

    /// There is no space, or there is space again.
    pub fn set_full(&self, path: &Path, full: bool) {
        let Some(dir) = self.dir(path) else { return };
        if dir.full.swap(full, Ordering::Relaxed) != full && dir.health() != Health::Offline {
            match full {
                true => {
                    warn!("log directory {} is full: nothing is appended there until there is space", path.display())
                }
                false => info!("log directory {} has space again: its partitions take records", path.display()),
            }
            self.changed();
        }
    }

    /// Something went wrong in a directory, which goes offline or is full by it where that is what the error says.
    pub fn report(&self, path: &Path, what: &str, error: &io::Error) -> Harm {
        let harm = Harm::of(error);
        match harm {
            Harm::Full => self.set_full(path, true),
            Harm::Directory => self.take_offline(path, &format!("{what}: {error}")),
            Harm::Operation => {}
        }
        harm
    }

    /// A turn to recover a log, of all that the node has: one directory that does not answer leaves the others theirs.
    pub async fn recovery_turn(&self, path: &Path) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.dir(path)?.recoveries).acquire_owned().await.ok()
    }

    /// The turn to remove so many bytes of a directory.
    pub async fn turn_to_remove(&self, path: &Path, bytes: u64) -> Option<Removal> {
        let dir = self.dir(path)?;
        dir.to_remove.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Waiting { to_remove: Arc::clone(&dir.to_remove), bytes };
        let turn = Arc::clone(&dir.removals).acquire_owned().await.ok()?;
        Some(Removal { _turn: turn, _waiting: waiting })
    }

    /// Bytes of a directory that wait for their turn to be removed, or have it.
    pub fn to_remove(&self, path: &Path) -> u64 {
        self.dir(path).map_or(0, |dir| dir.to_remove.load(Ordering::Relaxed))
    }

    /// Woken by every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ends when a directory is offline.
    pub async fn went_offline(&self, path: &Path) {
        let mut changes = self.subscribe();
        while self.health(path) != Health::Offline {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Which partitions of a shard cannot be served.
    pub fn set_lost(&self, shard: BrokerId, partitions: HashSet<TopicPartition>) {
        let mut lost = self.lost.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        match partitions.is_empty() {
            true => drop(lost.remove(&shard)),
            false => drop(lost.insert(shard, Arc::new(partitions))),
        }
    }

    /// Partitions that their shards cannot serve; None: all can be.
    pub fn lost(&self) -> Option<HashMap<BrokerId, Arc<HashSet<TopicPartition>>>> {
        if self.dirs.iter().all(|dir| dir.health() != Health::Offline) {
            return None;
        }
        let lost = self.lost.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        Some(lost.clone()).filter(|lost| !lost.is_empty())
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn dir(&self, path: &Path) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.path == path)
    }
}

impl Dir {
    fn health(&self) -> Health {
        match (self.failure.get(), self.full.load(Ordering::Relaxed)) {
            (Some(_), _) => Health::Offline,
            (None, true) => Health::Full,
            (None, false) => Health::Sound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn errors_say_what_they_harm() {
        for code in [libc::ENOSPC, libc::EDQUOT] {
            assert_eq!(Harm::of(&os(code)), Harm::Full);
        }
        for code in [libc::EIO, libc::EROFS, libc::ENODEV, libc::EUCLEAN, libc::ESTALE] {
            assert_eq!(Harm::of(&os(code)), Harm::Directory);
        }
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOENT, libc::EEXIST, libc::ENOMEM, libc::EINTR] {
            assert_eq!(Harm::of(&os(code)), Harm::Operation);
        }
        assert_eq!(Harm::of(&io::Error::other("a task panicked")), Harm::Operation);
    }

    #[test]
    fn an_offline_directory_stays_so_and_a_full_one_heals() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let dirs = LogDirs::new([(a.to_owned(), None), (b.to_owned(), None)]);
        let mut changes = dirs.subscribe();
        assert_eq!(dirs.report(a, "writing", &os(libc::ENOSPC)), Harm::Full);
        assert!(changes.has_changed().is_ok_and(|changed| changed));
        changes.mark_unchanged();
        dirs.set_full(a, true);
        assert!(changes.has_changed().is_ok_and(|changed| !changed), "told once");
        assert_eq!(dirs.all().map(|(_, health)| health).collect::<Vec<_>>(), [Health::Full, Health::Sound]);
        dirs.set_full(a, false);
        assert_eq!(dirs.health(a), Health::Sound);
        assert_eq!(dirs.report(a, "writing x", &os(libc::EIO)), Harm::Directory);
        dirs.take_offline(a, "something else");
        dirs.set_full(a, false);
        assert_eq!(dirs.health(a), Health::Offline);
        assert!(dirs.failure(a).is_some_and(|why| why.starts_with("writing x: ")), "the first reason stays");
        assert!(!dirs.all_offline());
        dirs.take_offline(b, "as well");
        assert!(dirs.all_offline());
    }

    #[test]
    fn what_cannot_be_served_is_told_while_a_directory_is_offline() {
        let dirs =
            LogDirs::new([(PathBuf::from("/a"), Some("no such device".to_owned())), (PathBuf::from("/b"), None)]);
        assert!(dirs.lost().is_none());
        let partition = TopicPartition {
            topic: crate::base::ids::TopicId::random(),
            partition: super::super::ids::PartitionIndex(0),
        };
        dirs.set_lost(BrokerId(1), [partition].into());
        assert!(dirs.lost().is_some_and(|lost| lost[&BrokerId(1)].contains(&partition)));
        dirs.set_lost(BrokerId(1), HashSet::new());
        assert!(dirs.lost().is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_waits_for_a_directory_to_fail_is_told() {
        let path = Path::new("/a");
        let dirs = LogDirs::new([(path.to_owned(), None)]);
        tokio::join!(dirs.went_offline(path), async { dirs.take_offline(path, "gone") });
    }
}
