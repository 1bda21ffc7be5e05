//! Finding where an offset lies. What is in memory or in the page cache is answered at once; for the rest the caller gets
//! told what to read from disk first (`Missing`), awaits that, and asks again. So the core never waits for a disk.

use super::core::{LogCore, ReadSpan};
use super::corrupt::{CorruptRange, Place};
use super::open::rebuild_indexes;
use super::open_files::OpenFiles;
use super::segment::{BatchPlace, Indexes, NoBatchAt, Scan, Segment, scan_headers};
use crate::base::ids::Offset;
use crate::base::limits::BATCH_BYTES_BELIEVED;
use crate::record::batch::HEADER_LEN;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// Bytes of headers that are looked at together: one index interval and a bit.
const PROBE_BYTES: usize = 4096 + 512;

/// Where to read, or why not at once.
pub enum Located {
    At(ReadSpan),
    /// Nothing to read between the offset and the limit.
    AtEnd,
    Missing(Missing),
}

/// What must come from disk before the question can be answered.
pub enum Missing {
    Indexes { segment: Rc<Segment>, index_interval_bytes: u32 },
    Headers { segment: Rc<Segment>, position: u32 },
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// Not known before. `segment` is the base of the segment that it lies in.
    #[error("{path}: {source}")]
    Corrupt { path: PathBuf, segment: Offset, source: NoBatchAt },
    #[error("offsets {} up to {} lie in a damaged range", range.first, range.next)]
    KnownCorrupt { range: CorruptRange },
}

/// Finds the batch that holds `from`, and how far a reader who may see offsets below `limit` can read on.
/// The offset has been checked to lie within the log. What is known to be damaged is not read: a span ends before it.
pub fn locate(
    core: &LogCore,
    files: &OpenFiles,
    (from, limit): (Offset, Offset),
    index_interval_bytes: u32,
) -> Result<Located, ReadError> {
    if from >= limit || from >= core.written_end() {
        return Ok(Located::AtEnd);
    }
    if let Some(range) = core.corrupt().at(from) {
        return Err(ReadError::KnownCorrupt { range: *range });
    }
    let (segment, place) = match find(core, files, from, index_interval_bytes)? {
        Find::At(segment, place) => (segment, place),
        Find::Nothing => return Ok(Located::AtEnd),
        Find::Missing(missing) => return Ok(Located::Missing(missing)),
    };
    // A length that is wrong: a reader would wait for the rest for ever.
    if place.bytes > segment.size().saturating_sub(place.position) {
        return Err(corrupt(&segment, NoBatchAt { position: place.position }));
    }
    let here = Place { segment: segment.base, position: place.position };
    if let Some(range) = core.corrupt().holding(here) {
        return Err(ReadError::KnownCorrupt { range: *range });
    }
    let damage = core.corrupt().after(here).filter(|range| range.start.segment == segment.base && range.first <= limit);
    if let Some(damage) = damage {
        let end = damage.start.position;
        return Ok(Located::At(ReadSpan { segment, position: place.position, end, first_batch_bytes: place.bytes }));
    }
    let next_base = core.segment_after(&segment).map(|next| next.base);
    let end = if limit >= core.written_end() || next_base.is_some_and(|base| base <= limit) {
        segment.size()
    } else {
        match find(core, files, limit, index_interval_bytes)? {
            Find::At(holder, place) if holder.base == segment.base => place.position,
            Find::At(..) | Find::Nothing => segment.size(),
            Find::Missing(missing) => return Ok(Located::Missing(missing)),
        }
    };
    if place.position >= end {
        return Ok(Located::AtEnd);
    }
    Ok(Located::At(ReadSpan { segment, position: place.position, end, first_batch_bytes: place.bytes }))
}

enum Find {
    At(Rc<Segment>, BatchPlace),
    Nothing,
    Missing(Missing),
}

/// The batch that holds `offset`, or the first one after it.
fn find(core: &LogCore, files: &OpenFiles, offset: Offset, index_interval_bytes: u32) -> Result<Find, ReadError> {
    if let Some((segment, place)) = core.recent_batch(offset) {
        return Ok(Find::At(Rc::clone(segment), place));
    }
    let mut next = core.segment_of(offset).or_else(|| core.segments().front());
    while let Some(segment) = next {
        let Some(mut position) = segment.position_before(offset) else {
            return Ok(Find::Missing(Missing::Indexes { segment: Rc::clone(segment), index_interval_bytes }));
        };
        position = position.max(core.corrupt().sound_from(segment.base, offset));
        while position < segment.size() {
            match probe(segment, files, position, offset)? {
                Some(Scan::Found(place)) => return believed(core, files, segment, place),
                Some(Scan::Continue(on)) => position = on,
                None => return Ok(Find::Missing(Missing::Headers { segment: Rc::clone(segment), position })),
            }
        }
        next = core.segment_after(segment);
    }
    Ok(Find::Nothing)
}

/// The length is not under the CRC, and whoever reads the batch needs as much memory: a large one is believed only if something goes on
/// where it ends.
fn believed(core: &LogCore, files: &OpenFiles, segment: &Rc<Segment>, place: BatchPlace) -> Result<Find, ReadError> {
    let found = Find::At(Rc::clone(segment), place);
    let wrong = || corrupt(segment, NoBatchAt { position: place.position });
    let position = place.position.checked_add(place.bytes).filter(|end| *end <= segment.size()).ok_or_else(wrong)?;
    let is_small = place.bytes <= BATCH_BYTES_BELIEVED;
    let is_next_lost = || core.corrupt().holding(Place { segment: segment.base, position }).is_some();
    if is_small || position == segment.size() || is_next_lost() {
        return Ok(found);
    }
    match probe(segment, files, position, place.next) {
        Ok(Some(Scan::Found(next))) if next.base >= place.next => Ok(found),
        Ok(None) => Ok(Find::Missing(Missing::Headers { segment: Rc::clone(segment), position })),
        Ok(Some(_)) | Err(ReadError::Corrupt { .. }) => Err(wrong()),
        Err(e) => Err(e),
    }
}

/// Looks at the headers that begin at `position`; None when they are not in the page cache.
fn probe(segment: &Rc<Segment>, files: &OpenFiles, position: u32, target: Offset) -> Result<Option<Scan>, ReadError> {
    let mut buffer = [0; PROBE_BYTES];
    let wanted = PROBE_BYTES.min(segment.size().saturating_sub(position) as usize);
    let file = files.file(segment).map_err(|source| io_error(segment, source))?;
    let read = file.read_cached(u64::from(position), &mut buffer[..wanted]).map_err(|e| io_error(segment, e))?;
    let Some(read) = read.filter(|read| *read >= HEADER_LEN.min(wanted)) else { return Ok(None) };
    let scan = scan_headers(&buffer[..read], position, target);
    match scan.map_err(|source| corrupt(segment, source))? {
        // A length that leads nowhere, or beyond the end.
        Scan::Continue(on) if on == position || on > segment.size() => Err(corrupt(segment, NoBatchAt { position })),
        scan => Ok(Some(scan)),
    }
}

impl Missing {
    /// Brings what is missing into memory. A segment that left the log meanwhile is no error: whoever asks again is told
    /// where the log begins now.
    pub async fn load(self, files: &OpenFiles) -> Result<(), ReadError> {
        let segment = match &self {
            Missing::Indexes { segment, .. } | Missing::Headers { segment, .. } => Rc::clone(segment),
        };
        let loaded = match self {
            Missing::Indexes { index_interval_bytes, .. } => load_indexes(&segment, files, index_interval_bytes).await,
            Missing::Headers { position, .. } => load_headers(&segment, files, position).await,
        };
        if segment.is_removed() { Ok(()) } else { loaded }
    }
}

async fn load_headers(segment: &Rc<Segment>, files: &OpenFiles, position: u32) -> Result<(), ReadError> {
    let wanted = PROBE_BYTES.min(segment.size().saturating_sub(position) as usize);
    let file = files.file(segment).map_err(|source| io_error(segment, source))?;
    let read = file.read_at(u64::from(position), wanted).await;
    read.map(drop).map_err(|source| io_error(segment, source))
}

/// Reads the index files on a helper thread, or rebuilds them from the segment where they are missing or damaged.
async fn load_indexes(segment: &Rc<Segment>, files: &OpenFiles, index_interval_bytes: u32) -> Result<(), ReadError> {
    let snapshot = segment.detached();
    let loaded = tokio::task::spawn_blocking(move || {
        let usable = |read: &Indexes| snapshot.size == 0 || !read.times.is_empty();
        match snapshot.read_indexes() {
            Ok(read) if usable(&read) => Ok(read),
            // An empty time index is right only where no batch has a timestamp: only the segment can tell.
            _ => rebuild_indexes(&snapshot, index_interval_bytes),
        }
    });
    let indexes = loaded.await.map_err(io::Error::other).and_then(|read| read).map_err(|e| io_error(segment, e))?;
    if !segment.has_indexes() {
        segment.set_indexes(indexes);
        files.indexes_loaded(segment);
    }
    Ok(())
}

fn corrupt(segment: &Segment, source: NoBatchAt) -> ReadError {
    ReadError::Corrupt { path: segment.path(super::paths::LOG), segment: segment.base, source }
}

fn io_error(segment: &Segment, source: io::Error) -> ReadError {
    ReadError::Io { path: segment.path(super::paths::LOG), source }
}
