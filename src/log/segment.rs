//! One segment of a log: its file, its indexes, what is known of its timestamps.
//!
//! A segment's state changes only when a write has completed (`note_batch`): readers never see bytes that are not there.

use super::file::SegmentFile;
use super::index::{OffsetIndex, TimeIndex};
use super::paths;
use crate::base::config::topic::TopicConfig;
use crate::base::ids::Offset;
use crate::record::batch::{BatchHeader, HEADER_LEN};
use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// One segment. Only the last one of a log, the active one, is written to.
pub struct Segment {
    pub base: Offset,
    dir: Rc<Path>,
    size: Cell<u32>,
    /// The greatest timestamp so far and the last offset of the batch that has it; None: no batch, or not read yet.
    max_timestamp: Cell<Option<(i64, Offset)>>,
    /// The first batch's greatest timestamp: a segment's age counts from it.
    first_timestamp: Cell<Option<i64>>,
    created_ms: Cell<i64>,
    bytes_since_index_entry: Cell<u32>,
    indexes: RefCell<Option<Indexes>>,
    file: RefCell<Option<Rc<SegmentFile>>>,
    /// The file was asked for since `take_used` last looked.
    used: Cell<bool>,
}

/// What a helper thread needs to read a segment's files.
pub struct DetachedSegment {
    pub base: Offset,
    pub size: u32,
    dir: PathBuf,
}

/// Both indexes of a segment, in memory.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Indexes {
    pub offsets: OffsetIndex,
    pub times: TimeIndex,
}

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    pub base: Offset,
    pub next: Offset,
    pub position: u32,
    pub bytes: u32,
}

/// What a scan through part of a segment's headers found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The batch that holds the offset, or the first one after it.
    Found(BatchPlace),
    /// No such batch before this position: read on from there.
    Continue(u32),
}

/// Bytes of a segment that hold no batch where one must begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no batch begins at byte {position} of the segment")]
pub struct NoBatchAt {
    pub position: u32,
}

impl Segment {
    /// A segment that has no file yet.
    pub fn new(dir: Rc<Path>, base: Offset, now_ms: i64) -> Segment {
        Segment {
            base,
            dir,
            size: Cell::new(0),
            max_timestamp: Cell::new(None),
            first_timestamp: Cell::new(None),
            created_ms: Cell::new(now_ms),
            bytes_since_index_entry: Cell::new(0),
            indexes: RefCell::new(Some(Indexes::default())),
            file: RefCell::new(None),
            used: Cell::new(false),
        }
    }

    /// A segment that lies on disk with `size` valid bytes; its indexes are read when they are first needed.
    pub fn existing(dir: Rc<Path>, base: Offset, size: u32, created_ms: i64) -> Segment {
        let segment = Segment::new(dir, base, created_ms);
        segment.size.set(size);
        segment.indexes.replace(None);
        segment
    }

    /// Bytes that are written and can be read.
    pub fn size(&self) -> u32 {
        self.size.get()
    }

    pub fn path(&self, suffix: &str) -> PathBuf {
        paths::segment_file(&self.dir, self.base, suffix)
    }

    pub fn max_timestamp(&self) -> Option<(i64, Offset)> {
        self.max_timestamp.get()
    }

    /// When the segment was made, or last modified before this process: its age where it has no timestamp.
    pub fn created_ms(&self) -> i64 {
        self.created_ms.get()
    }

    /// The greatest timestamp of a sealed segment, from the end of its time index where it is not known yet.
    pub fn read_max_timestamp(&self) -> Option<(i64, Offset)> {
        if self.max_timestamp.get().is_none() {
            let content = fs::read(self.path(paths::TIME_INDEX)).ok()?;
            let last = TimeIndex::decode(&content).ok()?.last()?;
            self.max_timestamp.set(Some((last.timestamp_ms, self.base + i64::from(last.relative_offset))));
        }
        self.max_timestamp.get()
    }

    /// The open file; opens it when it is not. The caller keeps the number of open files within its budget.
    pub fn file(&self) -> io::Result<Rc<SegmentFile>> {
        self.used.set(true);
        if let Some(file) = &*self.file.borrow() {
            return Ok(Rc::clone(file));
        }
        let file = Rc::new(SegmentFile::open(&self.path(paths::LOG), true)?);
        *self.file.borrow_mut() = Some(Rc::clone(&file));
        Ok(file)
    }

    pub fn is_open(&self) -> bool {
        self.file.borrow().is_some()
    }

    /// Whether the file was used since this was last asked.
    pub fn take_used(&self) -> bool {
        self.used.take()
    }

    /// Closes the file unless somebody uses it; whether it is closed now.
    pub fn close_if_unused(&self) -> bool {
        let mut file = self.file.borrow_mut();
        if file.as_ref().is_some_and(|f| Rc::strong_count(f) > 1) {
            return false;
        }
        *file = None;
        true
    }

    /// Whether a batch must go to a new segment (Kafka's LogSegment.shouldRoll): by size, by age, because an index is
    /// full, or because its offsets are too far from the base.
    pub fn must_roll(&self, batch: &BatchHeader, config: &TopicConfig, now_ms: i64) -> bool {
        let bytes = batch.total_len() as u64;
        let size = u64::from(self.size.get());
        let too_big = size > 0 && size + bytes > u64::from(config.segment_bytes);
        let age_ms = match self.first_timestamp.get() {
            Some(first) if batch.max_timestamp >= 0 => batch.max_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms.get()),
        };
        let too_old = size > 0 && age_ms > config.segment_ms;
        let too_far = batch.last_offset() - self.base > i64::from(i32::MAX);
        too_big || too_old || too_far || self.index_is_full(config)
    }

    fn index_is_full(&self, config: &TopicConfig) -> bool {
        let limit = config.segment_index_bytes as usize;
        self.indexes.borrow().as_ref().is_some_and(|i| i.offsets.bytes() + 8 > limit || i.times.bytes() + 12 > limit)
    }

    /// Notes a batch whose bytes are written at the segment's end.
    pub fn note_batch(&self, batch: &BatchHeader, index_interval_bytes: u32) {
        let position = self.size.get();
        let bytes = u32::try_from(batch.total_len()).expect("a batch is smaller than a segment");
        if position == 0 {
            self.first_timestamp.set(Some(batch.max_timestamp));
        }
        if self.max_timestamp.get().is_none_or(|(max, _)| batch.max_timestamp > max) {
            self.max_timestamp.set(Some((batch.max_timestamp, batch.last_offset())));
        }
        if self.bytes_since_index_entry.get() > index_interval_bytes {
            self.add_index_entry(batch.last_offset(), position);
            self.bytes_since_index_entry.set(0);
        }
        self.bytes_since_index_entry.set(self.bytes_since_index_entry.get().saturating_add(bytes));
        self.size.set(position + bytes);
    }

    fn add_index_entry(&self, last_offset: Offset, position: u32) {
        if let Some(indexes) = &mut *self.indexes.borrow_mut() {
            indexes.offsets.push(self.relative(last_offset), position);
            if let Some((timestamp_ms, offset)) = self.max_timestamp.get() {
                indexes.times.push(timestamp_ms, self.relative(offset));
            }
        }
    }

    /// Forgets everything that was read of the file: a scan notes it again from the start.
    pub fn reset(&self) {
        self.resume(Indexes::default(), 0, (None, None));
    }

    /// Takes over what the index files say of the first `size` bytes; a scan notes the rest.
    pub fn resume(&self, indexes: Indexes, size: u32, (first, max): (Option<i64>, Option<(i64, Offset)>)) {
        self.size.set(size);
        self.first_timestamp.set(first);
        self.max_timestamp.set(max);
        self.bytes_since_index_entry.set(0);
        *self.indexes.borrow_mut() = Some(indexes);
    }

    pub fn into_indexes(self) -> Indexes {
        self.indexes.into_inner().unwrap_or_default()
    }

    /// Where to begin a search for `offset`: at a batch's start, not after the one that holds it.
    /// None: the index is not in memory, `load_indexes` first.
    pub fn position_before(&self, offset: Offset) -> Option<u32> {
        self.indexes.borrow().as_ref().map(|i| i.offsets.position_before(self.relative(offset)))
    }

    /// The last offset known to have a timestamp that is not after `timestamp_ms`; the segment's base if none is.
    /// None: the index is not in memory.
    pub fn offset_before_time(&self, timestamp_ms: i64) -> Option<Offset> {
        let indexes = self.indexes.borrow();
        let entry = indexes.as_ref()?.times.entry_before(timestamp_ms);
        Some(entry.map_or(self.base, |entry| self.base + i64::from(entry.relative_offset)))
    }

    pub fn has_indexes(&self) -> bool {
        self.indexes.borrow().is_some()
    }

    pub fn set_indexes(&self, indexes: Indexes) {
        *self.indexes.borrow_mut() = Some(indexes);
    }

    /// Frees the memory of a sealed segment's indexes; they are read again when needed.
    pub fn drop_indexes(&self) {
        *self.indexes.borrow_mut() = None;
    }

    /// Both index files' contents, as they go to disk when the segment is sealed: the time index ends with the greatest
    /// timestamp of all, so that retention need read nothing else.
    pub fn encode_indexes(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut indexes = self.indexes.borrow_mut();
        let indexes = indexes.as_mut()?;
        if let Some((timestamp_ms, offset)) = self.max_timestamp.get() {
            indexes.times.push(timestamp_ms, self.relative(offset));
        }
        Some((indexes.offsets.encode(), indexes.times.encode()))
    }

    pub fn detached(&self) -> DetachedSegment {
        DetachedSegment { base: self.base, size: self.size.get(), dir: self.dir.to_path_buf() }
    }

    fn relative(&self, offset: Offset) -> u32 {
        u32::try_from((offset - self.base).clamp(0, i64::from(i32::MAX))).expect("clamped to 31 bits")
    }
}

impl DetachedSegment {
    pub fn path(&self, suffix: &str) -> PathBuf {
        paths::segment_file(&self.dir, self.base, suffix)
    }

    /// Reads the index files. An error means that they must be rebuilt from the segment.
    pub fn read_indexes(&self) -> io::Result<Indexes> {
        let offsets = fs::read(self.path(paths::OFFSET_INDEX))?;
        let times = fs::read(self.path(paths::TIME_INDEX))?;
        let bad = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        Ok(Indexes {
            offsets: OffsetIndex::decode(&offsets, self.size).map_err(bad)?,
            times: TimeIndex::decode(&times).map_err(bad)?,
        })
    }
}

/// Looks through `bytes`, which lie at `position` of a segment, for the batch that holds `target` or the first after it.
pub fn scan_headers(bytes: &[u8], mut position: u32, target: Offset) -> Result<Scan, NoBatchAt> {
    let mut rest = bytes;
    while rest.len() >= HEADER_LEN {
        let header = BatchHeader::parse(rest).map_err(|_| NoBatchAt { position })?;
        let length = u32::try_from(header.total_len()).map_err(|_| NoBatchAt { position })?;
        if header.last_offset() >= target {
            return Ok(Scan::Found(BatchPlace {
                base: header.base_offset,
                next: header.next_offset(),
                position,
                bytes: length,
            }));
        }
        position = position.checked_add(length).ok_or(NoBatchAt { position })?;
        let Some(after) = rest.get(length as usize..) else { break };
        rest = after;
    }
    Ok(Scan::Continue(position))
}
