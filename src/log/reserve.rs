//! Space that is kept for a full disk: a file in each log directory that is given up when there is no space left.
//!
//! Records stop then, and what must go on has the space: checkpoints, indexes, the store of topics, the redo of a journal at the next start,
//! deletions. When as much space is free again as the file takes, it is made anew before records are taken.

use super::checkpoint::sync_dir;
use crate::base::limits::{RESERVE_BYTES_MIN, RESERVE_SHARE_MAX};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Beside the partitions' directories.
pub const RESERVE: &str = "corelog.reserve";

/// What a reserve of a log directory has to be for: `journals` are the bytes of its rings, which a redo may need. At most a
/// small share of the disk. Blocking.
pub fn bytes_wanted(log_dir: &Path, journals: u64) -> io::Result<u64> {
    let disk = statvfs(log_dir)?;
    let share = disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_SHARE_MAX;
    Ok((RESERVE_BYTES_MIN + journals).min(share.max(RESERVE_BYTES_MIN)))
}

/// Makes the reserve, or finds it. An error of kind StorageFull: there is no space for it. Where the file system cannot set space aside there is
/// none, and that is said by `Ok(false)`. Blocking.
pub fn make(log_dir: &Path, bytes: u64) -> io::Result<bool> {
    let path = path(log_dir);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
    let found = file.metadata()?.len();
    if found == bytes {
        return Ok(true);
    }
    file.set_len(found.min(bytes))?;
    let made = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
        Err(e) => Err(io::Error::from(e)),
    };
    if !matches!(made, Ok(true)) {
        // What was had of it is better used otherwise.
        fs::remove_file(path)?;
        return made;
    }
    file.sync_all()?;
    sync_dir(log_dir)?;
    made
}

/// Gives the space back to the disk. Blocking.
pub fn release(log_dir: &Path) -> io::Result<()> {
    match fs::remove_file(path(log_dir)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_dir(log_dir),
    }
}

/// Bytes of the disk that this process may still take. Blocking.
pub fn bytes_free(log_dir: &Path) -> io::Result<u64> {
    let disk = statvfs(log_dir)?;
    // The superuser may take what a file system keeps for it.
    let blocks = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
    Ok(blocks.saturating_mul(disk.f_frsize))
}

fn path(log_dir: &Path) -> PathBuf {
    log_dir.join(RESERVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_takes_space_and_gives_it_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(make(dir.path(), 3 << 20).expect("there is space"));
        assert!(make(dir.path(), 2 << 20).expect("it is there, and larger than it must be"));
        assert_eq!(fs::metadata(path(dir.path())).expect("made").len(), 2 << 20);
        release(dir.path()).expect("removed");
        release(dir.path()).expect("there is none");
        let e = make(dir.path(), 1 << 60).expect_err("no disk is so large");
        assert!(fs::read_dir(dir.path()).expect("listed").next().is_none(), "nothing is left of it: {e}");
        let wanted = bytes_wanted(dir.path(), 1 << 50).expect("known");
        assert!((RESERVE_BYTES_MIN..1 << 50).contains(&wanted));
        assert!(bytes_free(dir.path()).expect("known") > 0);
    }
}
