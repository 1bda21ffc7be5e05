//! One segment of a log: its file, its indexes, what is known of its timestamps.
//!
//! A segment's state changes only when a write has completed (`note_batch`): readers never see bytes that are not there.

use super::checkpoint::write_atomically;
use super::file::SegmentFile;
use super::index::{self, OffsetIndex, TimeEntry, TimeIndex};
use super::paths;
use crate::base::config::topic::TopicConfig;
use crate::base::faults::Faults;
use crate::base::ids::Offset;
use crate::record::batch::{BatchHeader, HEADER_LEN};
use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// One segment. Only the last one of a log, the active one, is written to.
pub struct Segment {
    pub base: Offset,
    dir: Rc<Path>,
    tail: Cell<Tail>,
    created_ms: i64,
    /// When the last batch was written, or the file last modified before this process.
    modified_ms: Cell<i64>,
    indexes: RefCell<Option<Indexes>>,
    /// The indexes were asked for since `take_indexes_used` last looked.
    indexes_used: Cell<bool>,
    file: RefCell<Option<Rc<SegmentFile>>>,
    /// The file was asked for since `take_used` last looked.
    used: Cell<bool>,
    /// Bytes were written that no flush has covered.
    dirty: Cell<bool>,
    /// The index files say all that the segment says, durably: recovery may trust them without reading the segment.
    indexed_on_disk: Cell<bool>,
    /// Entries of both indexes that this process has written to their files; None: it has not written them.
    settled: Cell<Option<(u32, u32)>>,
    /// The segment left the log: its files are being renamed, and must not be looked for or written any more.
    removed: Cell<bool>,
    /// It left because compaction put another one in its place: its records are still there.
    replaced: Cell<bool>,
}

/// How far a segment has come: what decides where the next batch goes. A plan for several batches notes them in a copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail {
    size: u32,
    /// The greatest timestamp so far and the last offset of the batch that has it; None: no batch, or not read yet.
    max_timestamp: Option<(i64, Offset)>,
    /// The first batch's greatest timestamp: a segment's age counts from it.
    first_timestamp: Option<i64>,
    bytes_since_index_entry: u32,
    offset_entries: u32,
    time_entries: u32,
    /// The last time index entry's timestamp.
    indexed_timestamp: Option<i64>,
}

/// All that is known of a segment without its open file. Plain data.
#[derive(Debug)]
pub struct SegmentState {
    base: Offset,
    tail: Tail,
    created_ms: i64,
    modified_ms: i64,
    indexes: Option<Indexes>,
    indexed_on_disk: bool,
}

/// What a helper thread needs to read a segment's files.
#[derive(Clone, Debug)]
pub struct DetachedSegment {
    pub base: Offset,
    pub size: u32,
    dir: PathBuf,
}

/// Entries of both indexes that are to be appended to their files.
pub struct NewEntries {
    is_all: bool,
    offsets_from: u32,
    times_from: u32,
    offsets: Vec<u8>,
    times: Vec<u8>,
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
            tail: Cell::default(),
            created_ms: now_ms,
            modified_ms: Cell::new(now_ms),
            indexes: RefCell::new(Some(Indexes::default())),
            indexes_used: Cell::new(false),
            file: RefCell::new(None),
            used: Cell::new(false),
            dirty: Cell::new(false),
            indexed_on_disk: Cell::new(false),
            settled: Cell::new(None),
            removed: Cell::new(false),
            replaced: Cell::new(false),
        }
    }

    /// A segment that lies on disk with `size` valid bytes; its indexes are read when they are first needed.
    pub fn existing(dir: Rc<Path>, base: Offset, size: u32, modified_ms: i64) -> Segment {
        let segment = Segment::new(dir, base, modified_ms);
        segment.tail.set(Tail { size, ..Tail::default() });
        segment.indexes.replace(None);
        segment.indexed_on_disk.set(true);
        segment
    }

    /// What is known of it; its indexes go with that.
    pub fn state(&self) -> SegmentState {
        SegmentState {
            base: self.base,
            tail: self.tail.get(),
            created_ms: self.created_ms,
            modified_ms: self.modified_ms.get(),
            indexes: self.indexes.take(),
            indexed_on_disk: self.indexed_on_disk.get(),
        }
    }

    pub fn restored(dir: Rc<Path>, state: SegmentState) -> Segment {
        let segment = Segment::new(dir, state.base, state.created_ms);
        segment.tail.set(state.tail);
        segment.modified_ms.set(state.modified_ms);
        segment.indexes.replace(state.indexes);
        segment.indexed_on_disk.set(state.indexed_on_disk);
        segment
    }

    /// A segment that compaction has made: complete, with its index files.
    pub fn compacted(dir: Rc<Path>, base: Offset, (tail, indexes): (Tail, Indexes), modified_ms: i64) -> Segment {
        let segment = Segment::new(dir, base, modified_ms);
        segment.tail.set(tail);
        segment.indexes.replace(Some(indexes));
        segment.indexed_on_disk.set(true);
        segment
    }

    /// Bytes that are written and can be read.
    pub fn size(&self) -> u32 {
        self.tail.get().size
    }

    pub fn tail(&self) -> Tail {
        self.tail.get()
    }

    pub fn path(&self, suffix: &str) -> PathBuf {
        paths::segment_file(&self.dir, self.base, suffix)
    }

    pub fn max_timestamp(&self) -> Option<(i64, Offset)> {
        self.tail.get().max_timestamp
    }

    /// When the segment was last written to: its age where it has no timestamp.
    pub fn modified_ms(&self) -> i64 {
        self.modified_ms.get()
    }

    pub fn set_modified_ms(&self, now_ms: i64) {
        self.modified_ms.set(now_ms);
    }

    /// The greatest timestamp of a sealed segment, from the end of its time index where it is not known yet.
    /// None: there is no batch, or only the segment itself can tell.
    pub fn read_max_timestamp(&self) -> Option<(i64, Offset)> {
        if self.max_timestamp().is_none()
            && let Some(last) = index::last_time_entry(&self.path(paths::TIME_INDEX))
        {
            self.learn_max_timestamp(last);
        }
        self.max_timestamp()
    }

    /// The greatest timestamp of the first batch; None where there is none or nobody has read it. -1: it has no timestamp.
    pub fn first_timestamp(&self) -> Option<i64> {
        self.tail.get().first_timestamp
    }

    pub fn learn_first_timestamp(&self, timestamp_ms: i64) {
        self.tail.set(Tail { first_timestamp: Some(timestamp_ms), ..self.tail.get() });
    }

    /// Reads the first batch's header. Blocking.
    pub fn read_first_timestamp(path: &Path) -> io::Result<i64> {
        let mut head = [0; HEADER_LEN];
        fs::File::open(path)?.read_exact_at(&mut head, 0)?;
        let header = BatchHeader::parse(&head).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(header.max_timestamp)
    }

    fn learn_max_timestamp(&self, last: TimeEntry) {
        let max = (last.timestamp_ms, index::absolute(self.base, last.relative_offset));
        self.tail.set(Tail { max_timestamp: Some(max), ..self.tail.get() });
    }

    /// Bytes were written (true), or a flush that covers all of them begins (false).
    pub fn set_dirty(&self, dirty: bool) {
        self.dirty.set(dirty);
    }

    pub fn is_dirty(&self) -> bool {
        self.dirty.get()
    }

    pub fn is_indexed_on_disk(&self) -> bool {
        self.indexed_on_disk.get()
    }

    pub fn set_indexed_on_disk(&self, indexed: bool) {
        self.indexed_on_disk.set(indexed);
    }

    /// The segment left the log.
    pub fn set_removed(&self) {
        self.removed.set(true);
    }

    pub fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// The segment left the log, and its records are in another one.
    pub fn set_replaced(&self) {
        self.replaced.set(true);
        self.removed.set(true);
    }

    pub fn is_replaced(&self) -> bool {
        self.replaced.get()
    }

    /// The open file; opens it when it is not. The caller keeps the number of open files within its budget.
    pub fn file(&self, faults: &Faults) -> io::Result<Rc<SegmentFile>> {
        self.used.set(true);
        if let Some(file) = &*self.file.borrow() {
            return Ok(Rc::clone(file));
        }
        // Under its name there may be another segment by now.
        if self.is_removed() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the segment left the log"));
        }
        self.open_as(&self.path(paths::LOG), faults)
    }

    /// Opens the file, which does not have its name yet.
    pub fn open_as(&self, path: &Path, faults: &Faults) -> io::Result<Rc<SegmentFile>> {
        let file = Rc::new(SegmentFile::open(path, false)?.with(faults.clone()));
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
    /// full, or because its offsets are too far from the base. `tail` is the segment's, with what is planned before it.
    pub fn must_roll(&self, tail: &Tail, batch: &BatchHeader, config: &TopicConfig, now_ms: i64) -> bool {
        if batch.last_offset() - self.base > i64::from(i32::MAX) {
            return true;
        }
        if tail.size == 0 {
            return false;
        }
        let too_big = u64::from(tail.size) + batch.total_len() as u64 > u64::from(config.segment_bytes);
        let age_ms = match tail.first_timestamp {
            Some(first) if first >= 0 => batch.max_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms),
        };
        let too_old = age_ms > config.segment_ms_max().saturating_sub(self.roll_jitter_ms(config));
        too_big || too_old || tail.index_is_full(config)
    }

    /// `segment.jitter.ms`: how much earlier this segment's time is over, so that not all partitions roll at once.
    /// Spread by the segment's name instead of at random: the same log decides the same again.
    fn roll_jitter_ms(&self, config: &TopicConfig) -> i64 {
        let most = config.segment_jitter_ms.min(config.segment_ms_max());
        if most <= 0 {
            return 0;
        }
        let mut name = self.dir.as_os_str().as_encoded_bytes().to_vec();
        name.extend_from_slice(&self.base.0.to_be_bytes());
        i64::from(crc32fast::hash(&name)) % most
    }

    /// Notes a batch whose bytes are written at the segment's end. Index files of an earlier stop do not know of it.
    pub fn note_batch(&self, batch: &BatchHeader, index_interval_bytes: u32) {
        self.indexed_on_disk.set(false);
        let mut tail = self.tail.get();
        let position = tail.size;
        let indexed = tail.note(batch, index_interval_bytes);
        self.tail.set(tail);
        if indexed {
            self.add_index_entry(batch.last_offset(), position);
        }
    }

    fn add_index_entry(&self, last_offset: Offset, position: u32) {
        if let Some(indexes) = &mut *self.indexes.borrow_mut() {
            indexes.offsets.push(self.relative(last_offset), position);
            if let Some((timestamp_ms, offset)) = self.max_timestamp() {
                indexes.times.push(timestamp_ms, self.relative(offset));
            }
        }
    }

    /// Forgets everything that was read of the file: a scan notes it again from the start.
    pub fn reset(&self) {
        self.resume(Indexes::default(), 0, (None, None));
        self.indexed_on_disk.set(false);
    }

    /// Takes over what the index files say of the first `size` bytes; a scan notes the rest.
    pub fn resume(&self, indexes: Indexes, size: u32, (first, max): (Option<i64>, Option<(i64, Offset)>)) {
        self.tail.set(Tail {
            size,
            max_timestamp: max,
            first_timestamp: first,
            bytes_since_index_entry: 0,
            offset_entries: indexes.offsets.len(),
            time_entries: indexes.times.len(),
            indexed_timestamp: indexes.times.last().map(|entry| entry.timestamp_ms),
        });
        *self.indexes.borrow_mut() = Some(indexes);
    }

    /// Both indexes, closed with the greatest timestamp of all as a sealed segment's are.
    pub fn into_sealed_indexes(self) -> Indexes {
        self.close_time_index();
        self.indexes.into_inner().unwrap_or_default()
    }

    /// Where to begin a search for `offset`: at a batch's start, not after the one that holds it.
    /// None: the index is not in memory, `load_indexes` first.
    pub fn position_before(&self, offset: Offset) -> Option<u32> {
        self.indexes_used.set(true);
        self.indexes.borrow().as_ref().map(|i| i.offsets.position_before(self.relative(offset)))
    }

    /// The last offset known to have a timestamp that is not after `timestamp_ms`; the segment's base if none is.
    /// None: the index is not in memory.
    pub fn offset_before_time(&self, timestamp_ms: i64) -> Option<Offset> {
        let indexes = self.indexes.borrow();
        let entry = indexes.as_ref()?.times.entry_before(timestamp_ms);
        Some(entry.map_or(self.base, |entry| self.base + i64::from(entry.relative_offset)))
    }

    /// A copy of the offset index, if it is in memory.
    pub fn offset_index(&self) -> Option<OffsetIndex> {
        self.indexes.borrow().as_ref().map(|indexes| indexes.offsets.clone())
    }

    pub fn has_indexes(&self) -> bool {
        self.indexes.borrow().is_some()
    }

    /// Takes a sealed segment's indexes, as its files or a scan of it gave them.
    pub fn set_indexes(&self, indexes: Indexes) {
        if let Some(last) = indexes.times.last() {
            self.learn_max_timestamp(last);
        }
        *self.indexes.borrow_mut() = Some(indexes);
    }

    /// Bytes of the indexes in memory.
    pub fn index_bytes(&self) -> usize {
        self.indexes.borrow().as_ref().map_or(0, |indexes| indexes.offsets.bytes() + indexes.times.bytes())
    }

    /// Whether the indexes were used since this was last asked.
    pub fn take_indexes_used(&self) -> bool {
        self.indexes_used.take()
    }

    /// Frees the memory of a sealed segment's indexes; they are read again when needed.
    pub fn drop_indexes(&self) {
        *self.indexes.borrow_mut() = None;
    }

    /// Both index files' contents, as they go to disk when the segment is sealed: the time index ends with the greatest
    /// timestamp of all, so that retention need read nothing else.
    pub fn encode_indexes(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.close_time_index();
        let indexes = self.indexes.borrow();
        let indexes = indexes.as_ref()?;
        Some((indexes.offsets.encode(), indexes.times.encode()))
    }

    /// The entries that are not in the index files yet, to be appended; None: the indexes are not in memory.
    pub fn unsettled_indexes(&self) -> Option<NewEntries> {
        let indexes = self.indexes.borrow();
        let indexes = indexes.as_ref()?;
        let (offsets_from, times_from) = self.settled.get().unwrap_or_default();
        Some(NewEntries {
            is_all: self.settled.get().is_none(),
            offsets_from,
            times_from,
            offsets: indexes.offsets.encode_from(offsets_from),
            times: indexes.times.encode_from(times_from),
        })
    }

    /// What was unsettled is in the files now.
    pub fn set_settled(&self, entries: &NewEntries) {
        let count = |from: u32, bytes: &[u8], size: usize| from + u32::try_from(bytes.len() / size).unwrap_or(u32::MAX);
        let offsets = count(entries.offsets_from, &entries.offsets, index::OFFSET_ENTRY_BYTES);
        self.settled.set(Some((offsets, count(entries.times_from, &entries.times, index::TIME_ENTRY_BYTES))));
    }

    fn close_time_index(&self) {
        let Some((timestamp_ms, offset)) = self.max_timestamp() else { return };
        if let Some(indexes) = &mut *self.indexes.borrow_mut() {
            indexes.times.push(timestamp_ms, self.relative(offset));
        }
    }

    pub fn detached(&self) -> DetachedSegment {
        DetachedSegment { base: self.base, size: self.size(), dir: self.dir.to_path_buf() }
    }

    fn relative(&self, offset: Offset) -> u32 {
        u32::try_from((offset - self.base).clamp(0, i64::from(i32::MAX))).expect("clamped to 31 bits")
    }
}

impl Tail {
    /// Whether an index has no room for the entry that the next batch may need (Kafka's isFull; the time index keeps its
    /// last place for the entry that seals the segment).
    fn index_is_full(&self, config: &TopicConfig) -> bool {
        let offsets_max = config.segment_index_bytes / index::OFFSET_ENTRY_BYTES as u32;
        let times_max = config.segment_index_bytes / index::TIME_ENTRY_BYTES as u32;
        self.offset_entries >= offsets_max || self.time_entries + 1 >= times_max
    }

    /// Notes a batch at the end; whether it gets index entries.
    pub fn note(&mut self, batch: &BatchHeader, index_interval_bytes: u32) -> bool {
        let bytes = u32::try_from(batch.total_len()).expect("a batch is smaller than a segment");
        if self.size == 0 {
            self.first_timestamp = Some(batch.max_timestamp);
        }
        // Of records: a batch that compaction has emptied keeps its time for its producer's sake.
        if batch.record_count > 0 && self.max_timestamp.is_none_or(|(max, _)| batch.max_timestamp > max) {
            self.max_timestamp = Some((batch.max_timestamp, batch.last_offset()));
        }
        let indexed = self.bytes_since_index_entry > index_interval_bytes;
        if indexed {
            self.bytes_since_index_entry = 0;
            self.offset_entries += 1;
            let timestamp = self.max_timestamp.map(|(max, _)| max).filter(|max| *max >= 0);
            if timestamp > self.indexed_timestamp {
                self.indexed_timestamp = timestamp;
                self.time_entries += 1;
            }
        }
        self.bytes_since_index_entry = self.bytes_since_index_entry.saturating_add(bytes);
        self.size += bytes;
        indexed
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

    /// Reads of the index files what recovery may trust: the entries of batches that end below `end`. An error: there are none.
    pub fn read_indexes_below(&self, end: Offset) -> io::Result<Indexes> {
        let below = u32::try_from((end - self.base).clamp(0, i64::from(i32::MAX))).expect("clamped to 31 bits");
        let offsets = OffsetIndex::decode_below(&fs::read(self.path(paths::OFFSET_INDEX))?, self.size, below);
        let (last, _) = offsets.last().ok_or(io::ErrorKind::NotFound)?;
        let times = TimeIndex::decode_to(&fs::read(self.path(paths::TIME_INDEX))?, last);
        if times.is_empty() {
            // Lost, or nothing has a timestamp: the greatest one is not known from here.
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Indexes { offsets, times })
    }

    /// Brings both index files up to date, durably but for their names. A crash leaves some of the entries. Blocking.
    pub fn append_indexes(&self, entries: &NewEntries) -> io::Result<()> {
        if entries.is_all {
            write_atomically(&self.path(paths::OFFSET_INDEX), &entries.offsets)?;
            return write_atomically(&self.path(paths::TIME_INDEX), &entries.times);
        }
        let append = |suffix, from: u64, bytes: &[u8]| {
            if bytes.is_empty() {
                return Ok(());
            }
            let file = fs::File::options().write(true).open(self.path(suffix))?;
            file.write_all_at(bytes, from)?;
            file.sync_data()
        };
        let (offset_bytes, time_bytes) = (index::OFFSET_ENTRY_BYTES as u64, index::TIME_ENTRY_BYTES as u64);
        append(paths::OFFSET_INDEX, u64::from(entries.offsets_from) * offset_bytes, &entries.offsets)?;
        append(paths::TIME_INDEX, u64::from(entries.times_from) * time_bytes, &entries.times)
    }

    /// Writes both index files durably; a crash leaves old ones or new ones, never a part. Blocking.
    pub fn write_indexes(&self, (offsets, times): &(Vec<u8>, Vec<u8>)) -> io::Result<()> {
        write_atomically(&self.path(paths::OFFSET_INDEX), offsets)?;
        write_atomically(&self.path(paths::TIME_INDEX), times)
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
