//! What a partition's directory holds: listed when it is opened.

use super::open::OpenError;
use super::paths;
use crate::base::ids::Offset;
use crate::base::limits::LOG_OFFSET_MAX;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What lies in a partition's directory.
#[derive(Default)]
pub struct Listing {
    /// By base offset.
    pub segments: Vec<Found>,
    pub snapshots: Vec<Offset>,
    indexes: Vec<(Offset, PathBuf)>,
    /// Files that were marked as deleted, or never finished.
    marked: Vec<PathBuf>,
    /// A compaction was under way when the process ended (`compact::swap`).
    pub has_unfinished_compaction: bool,
}

/// A `.log` file of the directory.
pub struct Found {
    pub base: Offset,
    pub bytes: u32,
    pub modified_ms: i64,
}

impl Listing {
    pub fn read(dir: &Path) -> Result<Listing, OpenError> {
        let at = |source| OpenError::Io { path: dir.to_owned(), source };
        let mut listing = Listing::default();
        for entry in fs::read_dir(dir).map_err(at)? {
            let entry = entry.map_err(at)?;
            let (name, path) = (entry.file_name(), entry.path());
            match name.to_str().and_then(paths::parse_segment_file) {
                Some((offset, paths::LOG)) if offset.0 > LOG_OFFSET_MAX => {
                    return Err(OpenError::OffsetTooHigh { path, offset });
                }
                Some((base, paths::LOG)) => listing.segments.push(Found::look(base, &entry)?),
                Some((base, paths::PRODUCER_SNAPSHOT)) => listing.snapshots.push(base),
                Some((base, paths::OFFSET_INDEX | paths::TIME_INDEX | paths::TXN_INDEX)) => {
                    listing.indexes.push((base, path));
                }
                Some((_, suffix)) if suffix.ends_with(paths::SWAP_FILE) => listing.has_unfinished_compaction = true,
                Some((_, suffix))
                    if [paths::DELETED_FILE, paths::CLEANED_FILE, ".tmp"].iter().any(|s| suffix.ends_with(s)) =>
                {
                    listing.has_unfinished_compaction |= suffix.ends_with(paths::CLEANED_FILE);
                    listing.marked.push(path);
                }
                _ => {}
            }
        }
        listing.segments.sort_unstable_by_key(|file| file.base);
        Ok(listing)
    }

    /// What cannot be removed now is tried again at the next start.
    pub fn remove_leftovers(&self) {
        let has_segment = |base: &Offset| self.segments.binary_search_by_key(base, |file| file.base).is_ok();
        let orphans = self.indexes.iter().filter(|(base, _)| !has_segment(base)).map(|(_, path)| path);
        for path in self.marked.iter().chain(orphans) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Found {
    fn look(base: Offset, entry: &fs::DirEntry) -> Result<Found, OpenError> {
        let metadata = entry.metadata().map_err(|source| OpenError::Io { path: entry.path(), source })?;
        let bytes = metadata.len();
        let bytes = u32::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= i32::MAX as u32)
            .ok_or_else(|| OpenError::TooLarge { path: entry.path(), bytes })?;
        let modified_ms = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_ms = modified_ms.map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        Ok(Found { base, bytes, modified_ms })
    }
}
