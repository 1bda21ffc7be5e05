//! Removes large files a piece at a time.
//!
//! A file system that gives freed blocks back to the disk (`discard`) does so for a whole file at once, and for 40 to 60 ms a gibibyte nobody
//! else's write gets through, the journal's ring included (`bench/JOURNAL.md`). So large files are shortened step by step, each on disk before
//! the next, and what is removed at once goes in one queue for each log directory; but nothing is shortened while somebody has it open, who must
//! be able to read on, nor where space is wanted. What is removed has a name already by which every start removes it: in between nothing has to be remembered.

use super::materialise::{ignore_missing, run};
use crate::base::disks::{Health, LogDirs};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a disk takes back without anybody's notice.
const STEP_BYTES: u64 = 16 << 20;
/// Between steps: some 250 MiB/s.
const PAUSE: Duration = Duration::from_millis(60);

/// The disk that is spared.
#[derive(Clone)]
pub struct Gently {
    pub disks: Arc<LogDirs>,
    pub log_dir: PathBuf,
}

impl Gently {
    /// Removes files; one that is not there is no error. What cannot be removed keeps no other.
    pub async fn remove_files(&self, paths: Vec<PathBuf>) -> io::Result<()> {
        let bytes = run({
            let paths = paths.clone();
            move || Ok(paths.iter().filter_map(|path| Some(fs::symlink_metadata(path).ok()?.len())).sum::<u64>())
        });
        let bytes = bytes.await?;
        if bytes <= STEP_BYTES {
            // Little, as it mostly is, waits for nobody, and goes in one.
            let remove = |outcome: io::Result<()>, path: PathBuf| outcome.and(ignore_missing(fs::remove_file(path)));
            return run(move || paths.into_iter().fold(Ok(()), remove)).await;
        }
        let _turn = self.disks.turn_to_remove(&self.log_dir, bytes).await;
        let (mut freed, mut outcome) = (0, Ok(()));
        for path in paths {
            if let Err(e) = self.shorten(&path, &mut freed).await {
                // As after any sync that failed, if it was one. Without the steps the file can be removed all the same.
                self.disks.report(&self.log_dir, &format!("shortening {}", path.display()), &e);
                outcome = outcome.and(Err(e));
            }
            let removed = run(move || {
                let bytes = fs::symlink_metadata(&path).map_or(0, |found| found.len());
                ignore_missing(fs::remove_file(&path)).map(|()| bytes)
            });
            match removed.await {
                Ok(bytes) => self.pause(&mut freed, bytes).await,
                Err(e) => outcome = outcome.and(Err(e)),
            }
        }
        outcome
    }

    /// Removes a directory with the files in it.
    pub async fn remove_dir(&self, dir: PathBuf) -> io::Result<()> {
        let listed = dir.clone();
        let files = run(move || match fs::read_dir(&listed) {
            Ok(entries) => {
                let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| !kind.is_dir());
                Ok(entries.filter_map(Result::ok).filter(is_file).map(|entry| entry.path()).collect())
            }
            Err(e) => ignore_missing(Err(e)).map(|()| Vec::new()),
        });
        let outcome = self.remove_files(files.await?).await;
        run(move || ignore_missing(fs::remove_dir_all(&dir))).await.and(outcome)
    }

    async fn shorten(&self, path: &Path, freed: &mut u64) -> io::Result<()> {
        while !self.must_hurry().await {
            let file = path.to_path_buf();
            if !run(move || shorten_once(&file)).await? {
                break;
            }
            self.pause(freed, STEP_BYTES).await;
        }
        Ok(())
    }

    async fn pause(&self, freed: &mut u64, bytes: u64) {
        *freed += bytes;
        if *freed >= STEP_BYTES && !self.must_hurry().await {
            *freed = 0;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Space is wanted, or less is free than waits to be removed: clients write faster than this removes.
    async fn must_hurry(&self) -> bool {
        let dir = self.log_dir.clone();
        let free = run(move || Ok(rustix::fs::statvfs(&dir).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))?));
        self.disks.health(&self.log_dir) != Health::Sound
            || free.await.is_ok_and(|free| free < self.disks.to_remove(&self.log_dir))
    }
}

/// Whether there is more to take away. Blocking.
fn shorten_once(path: &Path) -> io::Result<bool> {
    let file = match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.len() > STEP_BYTES => File::options().write(true).open(path)?,
        Ok(_) => return Ok(false),
        Err(e) => return ignore_missing(Err(e)).map(|()| false),
    };
    let bytes = file.metadata()?.len();
    if bytes <= STEP_BYTES || !is_ours_alone(&file) {
        return Ok(false);
    }
    file.set_len(bytes - STEP_BYTES)?;
    file.sync_data()?;
    Ok(true)
}

/// Nobody else has the file open, by the kernel's word; whoever opens it waits until `file` is closed.
fn is_ours_alone(file: &File) -> bool {
    // Whoever opens it meanwhile has this process sent a signal, SIGIO unless another is named, by which it would end. SIGURG does nothing.
    // SAFETY: system calls on a descriptor that `file` keeps open; they are given no memory.
    unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0
    }
}

/// As fcntl(2) has it; the crate libc does not.
const F_SETSIG: libc::c_int = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn large_file(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        File::create(&path).and_then(|file| file.set_len(3 * STEP_BYTES + 1)).expect("made, sparse");
        path
    }

    fn world() -> (tempfile::TempDir, Gently) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let log_dir = dir.path().to_path_buf();
        (dir, Gently { disks: Arc::new(LogDirs::new([(log_dir.clone(), None)])), log_dir })
    }

    #[test]
    fn a_large_file_gets_shorter_in_steps() {
        let (dir, _) = world();
        let path = large_file(dir.path(), "f.deleted");
        let mut sizes = Vec::new();
        while shorten_once(&path).expect("shortened") {
            sizes.push(path.metadata().expect("there").len());
        }
        assert_eq!(sizes, [2 * STEP_BYTES + 1, STEP_BYTES + 1, 1]);
        assert!(!shorten_once(&dir.path().join("none")).expect("nothing to do"));
    }

    /// A fetch that is under way sends what it has promised.
    #[test]
    fn who_has_it_open_reads_on() {
        let (dir, gently) = world();
        let path = large_file(dir.path(), "f.deleted");
        let mut reader = File::open(&path).expect("open");
        assert!(!shorten_once(&path).expect("left alone"));
        tokio_uring::start(gently.remove_files(vec![path.clone()])).expect("removed");
        assert!(!path.exists());
        assert_eq!(reader.read_to_end(&mut Vec::new()).expect("read") as u64, 3 * STEP_BYTES + 1);
    }

    #[test]
    fn files_and_directories_go() {
        let (dir, gently) = world();
        let partition = dir.path().join("t-0-delete");
        fs::create_dir(&partition).expect("made");
        let (large, small) = (large_file(&partition, "large"), partition.join("small"));
        fs::write(&small, "x").expect("written");
        let file = large_file(dir.path(), "f.deleted");
        tokio_uring::start(async {
            gently.remove_files(vec![file.clone(), dir.path().join("none")]).await.expect("removed");
            gently.remove_dir(partition.clone()).await.expect("removed");
            gently.remove_dir(partition.clone()).await.expect("gone already");
        });
        assert!(!file.exists() && !large.exists() && !partition.exists());
    }

    #[test]
    fn what_cannot_be_removed_keeps_no_other() {
        let (dir, gently) = world();
        let (blocked, other, small) =
            (dir.path().join("blocked"), large_file(dir.path(), "f.deleted"), dir.path().join("small"));
        fs::create_dir(&blocked).expect("made");
        fs::write(&small, "x").expect("written");
        for other in [other, small] {
            let removed = tokio_uring::start(gently.remove_files(vec![blocked.clone(), other.clone()]));
            assert!(removed.is_err() && blocked.exists() && !other.exists());
        }
        assert_eq!(gently.disks.to_remove(dir.path()), 0);
    }

    /// At some 250 MiB/s the disk filled where clients wrote more than that.
    #[test]
    fn a_backlog_goes_at_once() {
        /// More than any disk has.
        const ALL: u64 = 1 << 62;
        let (dir, gently) = world();
        let disks = Arc::clone(&gently.disks);
        let path = large_file(dir.path(), "f.deleted");
        tokio_uring::start(async {
            let first = disks.turn_to_remove(dir.path(), ALL).await.expect("a turn");
            let bytes = 3 * STEP_BYTES + 1;
            let removed = gently.remove_files(vec![path.clone()]);
            let (_, ()) = tokio::join!(async { removed.await.expect("removed") }, async {
                while disks.to_remove(dir.path()) < ALL + bytes {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                assert!(gently.must_hurry().await);
                drop(first);
            });
        });
        assert!(!path.exists());
    }

    #[test]
    fn on_a_full_disk_space_comes_back_at_once() {
        let (dir, gently) = world();
        gently.disks.report(dir.path(), "a write", &io::Error::from(io::ErrorKind::StorageFull));
        let path = large_file(dir.path(), "f.deleted");
        tokio_uring::start(gently.remove_files(vec![path.clone()])).expect("removed");
        assert!(!path.exists());
    }
}
