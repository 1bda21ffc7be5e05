//! Puts batches that a journal has back into their segments, before the log is opened.
//!
//! Each write goes to its position whatever the file holds there: the same bytes, or what a crash left. Segments that are
//! missing are made: their names may not have been durable. But those before which, and after which, others are there were
//! removed by retention: a segment's name is durable before the next one is made. So only what follows all segments of the
//! directory is made, and nothing of which everything lies below the log's start.

use super::paths;
use crate::base::ids::Offset;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Whole batches and where they belong.
#[derive(Clone, Debug)]
pub struct RedoWrite {
    /// The segment's base offset.
    pub segment: Offset,
    pub position: u32,
    /// The offset after its last record.
    pub end: Offset,
    pub bytes: Bytes,
}

/// Writes everything in order; what is in the files is on disk when it returns, their names are the caller's to sync. Blocking.
pub fn redo(dir: &Path, log_start: Offset, writes: &[RedoWrite]) -> io::Result<()> {
    let there = segments(dir)?;
    let mut by_segment: BTreeMap<Offset, Vec<&RedoWrite>> = BTreeMap::new();
    for write in writes {
        by_segment.entry(write.segment).or_default().push(write);
    }
    for (base, writes) in by_segment {
        let was_removed =
            writes.iter().all(|write| write.end <= log_start) || there.last().is_some_and(|last| base < *last);
        if was_removed && !there.contains(&base) {
            continue;
        }
        let path = paths::segment_file(dir, base, paths::LOG);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        for write in writes {
            file.write_all_at(&write.bytes, u64::from(write.position))?;
        }
        file.sync_all()?;
    }
    Ok(())
}

fn segments(dir: &Path) -> io::Result<BTreeSet<Offset>> {
    let mut segments = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some((base, paths::LOG)) = name.to_str().and_then(paths::parse_segment_file) {
            segments.insert(base);
        }
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(segment: i64, position: u32, text: &'static str) -> RedoWrite {
        RedoWrite {
            segment: Offset(segment),
            position,
            end: Offset(segment + 1),
            bytes: Bytes::from_static(text.as_bytes()),
        }
    }

    #[test]
    fn writes_go_to_their_places_and_removed_segments_stay_removed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = |base: i64| paths::segment_file(dir.path(), Offset(base), paths::LOG);
        redo(dir.path(), Offset(0), &[write(0, 0, "abc"), write(0, 3, "def"), write(7, 0, "x")]).expect("written");
        assert_eq!(fs::read(file(0)).expect("made"), b"abcdef");
        fs::write(file(0), "aXX").expect("torn");
        redo(dir.path(), Offset(0), &[write(0, 0, "abc"), write(0, 3, "def"), write(7, 0, "x")]).expect("written");
        assert_eq!(fs::read(file(0)).expect("whole again"), b"abcdef");
        fs::remove_file(file(0)).expect("by retention");
        redo(dir.path(), Offset(0), &[write(0, 0, "abc"), write(7, 1, "y")]).expect("written");
        assert!(!file(0).exists());
        assert_eq!(fs::read(file(7)).expect("still there"), b"xy");
        redo(dir.path(), Offset(0), &[write(12, 0, "later")]).expect("written");
        redo(dir.path(), Offset(0), &[write(9, 1, "in the middle")]).expect("passed over");
        assert!(!file(9).exists(), "it was removed, although one before it is still there");
        fs::remove_file(file(12)).expect("not durable");
        redo(dir.path(), Offset(9), &[write(8, 0, "z"), write(9, 0, "z")]).expect("written");
        assert!(!file(8).exists() && file(9).exists(), "what lies below the log's start is not made");
    }
}
