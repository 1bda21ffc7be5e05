//! A pass of compaction over one log, as a job: reads the dirty part for its keys, then all segments once more, and writes those
//! that take their place. What stays is decided by `log::compact`; whether a new segment takes its place, by the shard.

use super::{Context, Reader};
use crate::base::config::topic::TopicConfig;
use crate::base::ids::Offset;
use crate::log::checkpoint::write_synced;
use crate::log::compact::keep::{BadRecords, Keeper, Kept, Keys, LastBatches};
use crate::log::compact::plan::{SegmentFacts, group};
use crate::log::compact::swap::Replacement;
use crate::log::paths::{self, CLEANED_FILE};
use crate::log::segment::{Indexes, Segment, Tail};
use crate::record::batch::{ATTRIBUTES_AT, BatchError, BatchHeader, crc32c};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// What a pass is about.
#[derive(Clone, Debug)]
pub struct Pass {
    pub dir: PathBuf,
    /// All sealed segments below `first_uncleanable`, oldest first.
    pub sources: Vec<Source>,
    pub first_dirty: Offset,
    /// Where the last of them ends and the next segment begins.
    pub first_uncleanable: Offset,
    pub config: TopicConfig,
    pub last_batches: LastBatches,
    pub now_ms: i64,
    /// Bytes for keys, and which share of them is used.
    pub map: (u64, f64),
}

/// A segment that is read.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub base: Offset,
    pub bytes: u32,
    pub modified_ms: i64,
}

/// A new segment; its files are synced and bear `.cleaned`.
#[derive(Debug)]
pub struct NewSegment {
    pub replacement: Replacement,
    pub tail: Tail,
    pub indexes: Indexes,
    pub modified_ms: i64,
}

/// A new segment that waits to take its place; the pass goes on when it is told that it has. Not told: the pass ends.
pub struct Offer {
    pub segment: NewSegment,
    pub taken: oneshot::Sender<()>,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cleaned {
    /// The next pass begins here; None: it was not let finish.
    pub end: Option<Offset>,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub records_read: u64,
    pub records_kept: u64,
    pub map_utilization: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// Nothing of the segment may be replaced: what is damaged would be lost, and with it perhaps what can be read still.
    #[error("{path}: damaged at byte {position}: {damage}")]
    Corrupt { segment: Offset, path: PathBuf, position: u64, damage: Damage },
    #[error("{path}: {bytes} bytes are more than a segment can have")]
    TooLarge { path: PathBuf, bytes: u64 },
}

#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("{0}")]
    Header(#[from] BatchError),
    #[error("a batch of {need} bytes, {have} are there")]
    Torn { need: u64, have: u64 },
    #[error("CRC {expected:08x} expected, {found:08x} found")]
    Crc { expected: u32, found: u32 },
    #[error("offset {found} where {expected} or a later one is due")]
    Order { expected: Offset, found: Offset },
    #[error("{0}")]
    Records(#[from] BadRecords),
}

/// Runs the pass. Each new segment is offered when it is complete; the next one waits until it has taken its place, so that no
/// more than one segment's space is needed beside the log.
pub async fn clean(context: Context, pass: Pass, offers: mpsc::Sender<Offer>) -> Result<Cleaned, CleanError> {
    let mut cleaned = Cleaned::default();
    let keys = read_keys(&context, &pass, &mut cleaned).await?;
    let end = keys.end();
    cleaned.map_utilization = keys.utilization();
    let facts = read_facts(&context, &pass, end).await?;
    let next = pass.sources.get(facts.len()).map_or(pass.first_uncleanable, |next| next.base);
    let mut keeper = Keeper::new(keys, pass.last_batches.clone(), (pass.now_ms, pass.config.delete_retention_ms));
    for group in group(&facts, next, &pass.config) {
        let made = rewrite(&context, &pass, group.clone(), &mut keeper, &mut cleaned).await?;
        let Some(segment) = made else { continue };
        let (taken, is_taken) = oneshot::channel();
        let offered = offers.send(Offer { segment, taken }).await;
        if offered.is_err() || is_taken.await.is_err() {
            return Ok(cleaned);
        }
    }
    (cleaned.records_read, cleaned.records_kept) = (keeper.records_read, keeper.records_kept);
    cleaned.end = Some(end);
    Ok(cleaned)
}

/// The keys of the dirty part, as many as the map takes.
async fn read_keys(context: &Context, pass: &Pass, cleaned: &mut Cleaned) -> Result<Keys, CleanError> {
    let records_max = u64::try_from(pass.first_uncleanable - pass.first_dirty).unwrap_or(0);
    let mut keys = Keys::new(pass.first_dirty, pass.map, records_max);
    for (i, source) in pass.sources.iter().enumerate() {
        let next = pass.sources.get(i + 1).map_or(pass.first_uncleanable, |next| next.base);
        if next <= pass.first_dirty {
            continue;
        }
        let mut batches = Batches::open(context, &pass.dir, source).await?;
        while let Some((header, batch, _)) = batches.next().await? {
            cleaned.bytes_read += batch.len() as u64;
            match keys.note(&header, batch) {
                Ok(true) => {}
                Ok(false) => return Ok(keys),
                Err(bad) => return Err(batches.corrupt(bad)),
            }
        }
        keys.segment_ended(next);
    }
    Ok(keys)
}

/// What grouping needs to know of the segments that begin below `end`.
async fn read_facts(context: &Context, pass: &Pass, end: Offset) -> Result<Vec<SegmentFacts>, CleanError> {
    let sources: Vec<Source> = pass.sources.iter().copied().filter(|source| source.base < end).collect();
    let dir = pass.dir.clone();
    let read = move || {
        let size = |base, suffix| {
            let bytes = fs::metadata(paths::segment_file(&dir, base, suffix)).map_or(0, |file| file.len());
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let facts = sources.iter().map(|source| SegmentFacts {
            base: source.base,
            bytes: source.bytes,
            max_timestamp_ms: None,
            first_timestamp_ms: None,
            index_bytes: (size(source.base, paths::OFFSET_INDEX), size(source.base, paths::TIME_INDEX)),
        });
        facts.collect()
    };
    context.blocking(read).await.map_err(|source| CleanError::Io { path: pass.dir.clone(), source })
}

/// Writes what stays of a group of segments; None: all of it does, and it is one segment already.
async fn rewrite(
    context: &Context,
    pass: &Pass,
    group: Range<usize>,
    keeper: &mut Keeper,
    cleaned: &mut Cleaned,
) -> Result<Option<NewSegment>, CleanError> {
    let sources = &pass.sources[group];
    let (first, last) = (sources[0], sources[sources.len() - 1]);
    let path = paths::segment_file(&pass.dir, first.base, &format!("{}{CLEANED_FILE}", paths::LOG));
    let at = |source| CleanError::Io { path: path.clone(), source };
    let segment = Segment::new(Rc::from(pass.dir.as_path()), first.base, last.modified_ms);
    let mut writer = context.write(&path).await.map_err(at)?;
    let mut is_changed = sources.len() > 1;
    for (i, source) in sources.iter().enumerate() {
        let mut batches = Batches::open(context, &pass.dir, source).await?;
        while let Some((header, batch, ends)) = batches.next().await? {
            cleaned.bytes_read += batch.len() as u64;
            let is_last = i + 1 == sources.len() && ends;
            let kept = keeper.keep(&header, batch, is_last);
            let (header, bytes) = match &kept {
                Ok(Kept::Whole) => (header, batch),
                Ok(Kept::Rewritten(bytes)) => (BatchHeader::parse(bytes).expect("it was just made"), &bytes[..]),
                Ok(Kept::Nothing) => (header, &[][..]),
                Err(bad) => return Err(batches.corrupt(bad.clone())),
            };
            is_changed |= kept != Ok(Kept::Whole);
            if bytes.is_empty() {
                continue;
            }
            let size = writer.position() + bytes.len() as u64;
            if size > i32::MAX as u64 {
                return Err(CleanError::TooLarge { path, bytes: size });
            }
            writer.write(bytes).await.map_err(at)?;
            segment.note_batch(&header, pass.config.index_interval_bytes);
        }
    }
    let bytes_written = writer.finish().await.map_err(at)?;
    if !is_changed {
        let unwanted = path.clone();
        context.blocking(move || fs::remove_file(unwanted)).await.and_then(|removed| removed).map_err(at)?;
        return Ok(None);
    }
    cleaned.bytes_written += bytes_written;
    let old: Vec<Offset> = sources.iter().map(|source| source.base).collect();
    let (tail, indexes) = (segment.tail(), segment.into_sealed_indexes());
    let replacement = Replacement { dir: pass.dir.clone(), old };
    let beside = Beside {
        replacement: replacement.clone(),
        log: path.clone(),
        contents: [indexes.offsets.encode(), indexes.times.encode()],
        modified_ms: last.modified_ms,
    };
    context.blocking(move || beside.write()).await.and_then(|written| written).map_err(at)?;
    Ok(Some(NewSegment { replacement, tail, indexes, modified_ms: last.modified_ms }))
}

/// What a new segment has besides its records.
struct Beside {
    replacement: Replacement,
    log: PathBuf,
    /// Of both indexes.
    contents: [Vec<u8>; 2],
    modified_ms: i64,
}

impl Beside {
    /// Blocking; on disk when it returns, but not the names.
    fn write(&self) -> io::Result<()> {
        let Replacement { dir, old } = &self.replacement;
        let path = |suffix: &str| paths::segment_file(dir, old[0], &format!("{suffix}{CLEANED_FILE}"));
        for (suffix, content) in [paths::OFFSET_INDEX, paths::TIME_INDEX].iter().zip(&self.contents) {
            write_synced(&path(suffix), content)?;
        }
        // Aborted transactions bear their offsets: those of all old segments are those of the new one.
        let mut aborted = Vec::new();
        for base in old {
            match fs::read(paths::segment_file(dir, *base, paths::TXN_INDEX)) {
                Ok(bytes) => aborted.extend(bytes),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        if !aborted.is_empty() {
            write_synced(&path(paths::TXN_INDEX), &aborted)?;
        }
        // Where records have no timestamp, retention goes by the file's.
        let modified = UNIX_EPOCH + Duration::from_millis(u64::try_from(self.modified_ms).unwrap_or(0));
        let log = File::options().write(true).open(&self.log)?;
        log.set_modified(modified)?;
        log.sync_all()
    }
}

/// The batches of a segment, one after another, each checked.
struct Batches {
    reader: Reader,
    base: Offset,
    path: PathBuf,
    size: u64,
    /// What was read and not consumed yet begins at `at`.
    buffer: Vec<u8>,
    at: usize,
    /// Where the batch that was given last begins and ends.
    began: u64,
    position: u64,
    expected: Offset,
}

impl Batches {
    async fn open(context: &Context, dir: &Path, source: &Source) -> Result<Batches, CleanError> {
        let path = paths::segment_file(dir, source.base, paths::LOG);
        let size = u64::from(source.bytes);
        let opened = context.read(&path, 0..size).await;
        let reader = opened.map_err(|source| CleanError::Io { path: path.clone(), source })?;
        Ok(Batches {
            reader,
            base: source.base,
            path,
            size,
            buffer: Vec::new(),
            at: 0,
            began: 0,
            position: 0,
            expected: source.base,
        })
    }

    /// The batch that was given last cannot be read.
    fn corrupt(&self, bad: BadRecords) -> CleanError {
        self.damaged(bad.into())
    }

    fn damaged(&self, damage: Damage) -> CleanError {
        CleanError::Corrupt { segment: self.base, path: self.path.clone(), position: self.began, damage }
    }

    /// The next batch, and whether it is the last one.
    async fn next(&mut self) -> Result<Option<(BatchHeader, &[u8], bool)>, CleanError> {
        if self.position == self.size {
            return Ok(None);
        }
        self.began = self.position;
        let have = self.size - self.position;
        self.fill((BatchHeader::LEN as u64).min(have) as usize).await?;
        let header = BatchHeader::parse(&self.buffer[self.at..]).map_err(|e| self.damaged(e.into()))?;
        let length = header.total_len();
        if length as u64 > have {
            return Err(self.damaged(Damage::Torn { need: length as u64, have }));
        }
        self.fill(length).await?;
        let range = self.at..self.at + length;
        self.check(&header, &self.buffer[range.clone()])?;
        self.at += length;
        self.position += length as u64;
        self.expected = header.next_offset();
        Ok(Some((header, &self.buffer[range], self.position == self.size)))
    }

    /// Reads on until so many bytes are in the buffer.
    async fn fill(&mut self, length: usize) -> Result<(), CleanError> {
        while self.buffer.len() - self.at < length {
            self.buffer.drain(..self.at);
            self.at = 0;
            let chunk = match self.reader.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Err(self.unreadable(io::ErrorKind::UnexpectedEof.into())),
                Err(e) => return Err(self.unreadable(e)),
            };
            self.buffer.extend_from_slice(&chunk);
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> CleanError {
        CleanError::Io { path: self.path.clone(), source }
    }

    fn check(&self, header: &BatchHeader, batch: &[u8]) -> Result<(), CleanError> {
        if !header.crc_matches(batch) {
            let found = crc32c(batch.get(ATTRIBUTES_AT..).unwrap_or_default());
            return Err(self.damaged(Damage::Crc { expected: header.crc, found }));
        }
        let found = header.base_offset;
        if found < self.expected || header.last_offset_delta < 0 || header.record_count < 0 {
            return Err(self.damaged(Damage::Order { expected: self.expected, found }));
        }
        Ok(())
    }
}
