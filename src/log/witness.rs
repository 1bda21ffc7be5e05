//! Whether a disk that does not give back one file gives back another.
//!
//! A sector that is lost and a disk that is gone answer a read alike. Where a small file is read at once, its error does not tell which
//! of both it is: what else lies in the log directory does. One file that can be read is enough, since what else may be lost beside it
//! shows when it is read.

use super::open::ReadPart;
use super::reserve::RESERVE;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that are tried: of a disk that is gone, each read may take its time to fail.
const TRIED_MAX: usize = 4;
/// What is read of each, at most.
const TRIED_BYTES: u32 = 4096;

/// Whether some other file of a segment's log directory can be read: of the directory itself the rings, which are large and were
/// written in full, then checkpoints and the like; then what lies beside the segment. `read` must not go to the page cache. Blocking.
pub fn is_disk_there(segment: &Path, read: ReadPart) -> bool {
    let partition = segment.parent();
    let dirs = [partition.and_then(Path::parent), partition].into_iter().flatten();
    let others = dirs.flat_map(files).filter(|(path, _)| path != segment).take(TRIED_MAX);
    others.into_iter().any(|(path, bytes)| {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(TRIED_BYTES);
        let mut content = vec![0; bytes as usize];
        read(&path, 0..bytes).and_then(|mut part| part.read_exact(&mut content)).is_ok()
    })
}

/// Files with something in them, the largest first. Not the reserve: it was never written, so no disk is asked for what is in it.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sized = entries.filter(|entry| entry.file_name() != RESERVE).filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() > 0)?;
        Some((entry.path(), metadata.len()))
    });
    let mut files: Vec<_> = sized.collect();
    files.sort_unstable_by(|(one, bytes), (other, others)| others.cmp(bytes).then_with(|| one.cmp(other)));
    files
}
