//! Opens a partition's directory: finds its segments, and after an unclean stop cuts what is not whole.
//!
//! Cases, and why each is right. Writes of a partition complete in order, so whatever follows a batch that is not whole
//! was never acknowledged as durable; all that acks=all promised lies below the last flush, where nothing can be torn.
//!
//! - *Clean stop*: everything was synced and the recovery point is the log's end; only the active segment's last headers
//!   are read. If they do not fit, the segment is read as after an unclean stop.
//! - *Torn write*: a write of several batches may have been cut anywhere, and after a power loss any block that was not
//!   flushed may be zeros or stale. The scan from the recovery point on cuts the segment after its last whole batch with
//!   a good CRC.
//! - *Half-done roll*: the new segment's file may be empty or missing; indexes of the old one may be missing. An empty
//!   last segment is taken as it is. The recovery point never passes a segment whose indexes are not on disk
//!   (`LogCore::recovery_point`), so they are rebuilt from the segment, and written again. A recovery point that is a
//!   segment's very end may be older than the roll: that segment is read too, since its index files may be those of an
//!   earlier clean stop.
//! - *Settled part of the active segment*: below the recovery point, and below a producer snapshot that was taken within the
//!   segment, everything is on disk: records, epochs, index entries (`Partition::settle` writes them in that order, the snapshot
//!   last). Reading begins at the last index entry below the snapshot. If the batch there is not the one that the entry tells of, or
//!   damage is met before the snapshot's offset, the whole segment is read.
//! - *Damage below the recovery point* that a scan meets all the same is none of a crash's: the log is refused, and nothing is cut.
//! - *An end below the recovery point* without any damage is none of a crash's either: somebody removed the end of the log. It goes on where
//!   it ends, as Kafka's does, since nothing that is there is in doubt; what is lost is told, and counted.
//! - *Segments after a cut* are removed, the last one first and all of them before the cut itself: a recovery that is cut
//!   short finds the same damage again.
//! - *A gap between segments* below the recovery point, the log's start or what was compacted is kept, as Kafka keeps it: its
//!   compaction makes such gaps (ours ends each segment where the next one begins). Beyond it is damage, unless the topic is
//!   compacted: a power loss kept the name of a later segment, and
//!   of the one before only what was flushed, which can end between two batches. What follows was never promised, and readers
//!   would wait before the gap for ever.
//! - *A segment that reaches beyond the next one's begin* is none of a crash's: which of both tells the truth is not known here, so
//!   the log is refused, and neither is cut.
//! - *Killed, but the machine lived on*: batches may be whole in the page cache and not on disk. What was scanned is synced
//!   before the log is served, so that a retry of such a batch is not called durable before it is.
//! - *Segments below the log's start* that were not removed in time are not cut, and nothing behind them is: they go.
//! - *Half-done removal*: files that were marked `.deleted`, temporary files, and indexes without their segment are removed.
//! - *Half-done compaction*, ours or Kafka's, is finished or taken back before anything else (`compact::swap` argues how).
//! - *No segment at all*, or the log was cut below its start: an empty segment is made at the end, so that the offsets
//!   that were given out stay given out whatever becomes of the checkpoint of log starts.
//! - *Missing checkpoints and snapshots* are rebuilt from the log: they never say more than it does. A leader epoch that only
//!   the log knew goes to its checkpoint at once: the next recovery may not read the records that bear it.
//! - *Formats v0 and v1* are refused, not cut.

use super::checkpoint::{self, sync_dir};
use super::compact::swap::{self, Finished};
use super::core::RecoveredLog;
pub use super::cut::{Cut, OpenError, Shortfall};
use super::epochs::EpochHistory;
use super::listing::{Found, Listing};
use super::paths;
use super::producers::ProducerStates;
use super::scan::{Depth, Problem, ScanEnd, old_format_at, scan};
use super::segment::{DetachedSegment, Indexes, Segment};
use crate::base::config::topic::TopicConfig;
use crate::base::disks::is_lost_sector;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::limits::LOG_OFFSET_MAX;
use crate::record::batch::BatchHeader;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What is known of a partition before its directory is opened.
#[derive(Clone, Debug)]
pub struct OpenParams {
    pub dir: PathBuf,
    /// The last stop was clean: nothing needs scanning.
    pub clean: bool,
    /// Everything below is known to be whole.
    pub recovery_point: Offset,
    /// From the log-start-offset checkpoint.
    pub log_start: Option<Offset>,
    /// From the cleaner-offset checkpoint: below, Kafka's compaction may have left gaps between segments.
    pub cleaned: Option<Offset>,
    pub now_ms: i64,
}

/// How a part of a segment's file is read from its begin to its end.
pub type ReadPart<'a> = &'a dyn Fn(&Path, Range<u32>) -> io::Result<Box<dyn Read>>;

/// Reads through the page cache.
pub fn read_part(path: &Path, range: Range<u32>) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(u64::from(range.start)))?;
    Ok(Box::new(file.take(u64::from(range.end - range.start))))
}

/// An opened log with what had to be done for it. Plain data: it may have been opened on another thread.
pub struct Opened {
    pub log: RecoveredLog,
    pub cuts: Vec<Cut>,
    /// The log ends below its recovery point.
    pub shortfall: Option<Shortfall>,
    pub scanned_bytes: u64,
    /// The directory is as a clean stop leaves it.
    pub is_clean: bool,
}

/// Opens the directory; an empty one is a log that begins at `log_start`, or 0. `read` is asked for what must be looked through.
/// Blocking.
pub fn open(params: &OpenParams, config: &TopicConfig, read: ReadPart) -> Result<Opened, OpenError> {
    if let Some(offset) = params.log_start.filter(|offset| offset.0 > LOG_OFFSET_MAX) {
        return Err(OpenError::StartTooHigh { path: params.dir.to_path_buf(), offset });
    }
    let listing = list(&params.dir)?;
    listing.remove_leftovers();
    let stored_epochs = read_epochs(&params.dir);
    let dir: Rc<Path> = Rc::from(&*params.dir);
    let mut opening = Opening {
        params,
        config,
        read,
        dir: Rc::clone(&dir),
        epochs_known: stored_epochs.is_some(),
        stored_epoch: stored_epochs.as_ref().and_then(EpochHistory::latest),
        epochs: stored_epochs.unwrap_or_default(),
        producers: None,
        producers_from: Offset(0),
        snapshots: listing.snapshots,
        cuts: Vec::new(),
        scanned_bytes: 0,
        segments: VecDeque::new(),
    };
    let mut end = params.log_start.unwrap_or(Offset(0));
    let mut files = &listing.segments[..];
    while let [file, later @ ..] = files {
        let segment = Rc::new(Segment::existing(Rc::clone(&dir), file.base, file.bytes, file.modified_ms));
        end = match later.first() {
            Some(next) if params.clean || next.base < params.recovery_point => {
                opening.trust(&segment)?;
                next.base
            }
            Some(next) if params.log_start.is_some_and(|log_start| next.base <= log_start) => {
                opening.read_below_start(&segment)?;
                next.base
            }
            None if params.clean && opening.epochs_known => opening.open_active(&segment)?,
            _ => opening.recover(&segment, later)?,
        };
        opening.segments.push_back(segment);
        files = if opening.cuts.is_empty() { later } else { &[] };
    }
    opening.finish(end)
}

/// Lists the directory, once a compaction that was under way is finished or taken back.
fn list(dir: &Path) -> Result<Listing, OpenError> {
    let listing = Listing::read(dir)?;
    if !listing.has_unfinished_compaction {
        return Ok(listing);
    }
    for Finished { base, end } in swap::finish(dir)? {
        tracing::info!("{}: a compaction of offsets {base} to {end} is finished", dir.display());
    }
    Listing::read(dir)
}

struct Opening<'a> {
    params: &'a OpenParams,
    config: &'a TopicConfig,
    read: ReadPart<'a>,
    dir: Rc<Path>,
    epochs: EpochHistory,
    epochs_known: bool,
    /// The newest epoch in the checkpoint file.
    stored_epoch: Option<LeaderEpoch>,
    /// What the log says below the segment that is scanned next; None: not read yet.
    producers: Option<ProducerStates>,
    /// They know of everything below.
    producers_from: Offset,
    snapshots: Vec<Offset>,
    cuts: Vec<Cut>,
    scanned_bytes: u64,
    segments: VecDeque<Rc<Segment>>,
}

impl Opening<'_> {
    fn finish(mut self, mut end: Offset) -> Result<Opened, OpenError> {
        let shortfall = self.shortfall(end);
        let lower_bound = self.params.log_start.unwrap_or(Offset(0));
        let log_start = self.segments.front().map_or(end, |first| first.base).max(lower_bound);
        if log_start > end {
            // The log was cut below its start: nothing of it may be served again.
            for segment in std::mem::take(&mut self.segments) {
                self.remove(&segment)?;
            }
            end = log_start;
            self.producers = Some(ProducerStates::default());
        }
        if self.segments.is_empty() && end > Offset(0) {
            let made = Segment::existing(Rc::clone(&self.dir), end, 0, self.params.now_ms);
            let path = made.path(paths::LOG);
            File::create(&path).map_err(|source| OpenError::Io { path, source })?;
            made.reset();
            self.segments.push_back(Rc::new(made));
        }
        while self.segments.get(1).is_some_and(|second| second.base <= log_start) {
            let below = self.segments.pop_front().expect("there are two");
            self.remove_files(&below)?;
        }
        self.epochs.truncate_end(end);
        self.epochs.truncate_start(log_start);
        let recovered = self.producers.is_some();
        let producers = match self.producers.take() {
            Some(producers) => producers,
            None => self.producers_below(end)?,
        };
        self.remove_snapshots(end);
        self.write_sealed_indexes()?;
        self.write_epochs()?;
        if !self.params.clean || !self.cuts.is_empty() {
            let dir = &self.params.dir;
            let synced = sync_dir(dir).and_then(|()| dir.parent().map_or(Ok(()), sync_dir));
            synced.map_err(|source| OpenError::Io { path: dir.to_path_buf(), source })?;
        }
        let log = RecoveredLog {
            segments: self.segments.iter().map(|segment| segment.state()).collect(),
            log_start,
            end,
            epochs: self.epochs,
            producers,
        };
        let has_snapshot = self.snapshots.contains(&end);
        let is_clean = self.params.clean
            && self.epochs_known
            && self.cuts.is_empty()
            && shortfall.is_none()
            && has_snapshot
            && !recovered;
        Ok(Opened { log, cuts: self.cuts, shortfall, scanned_bytes: self.scanned_bytes, is_clean })
    }

    /// A cut never goes below the recovery point: what ends there was found so.
    fn shortfall(&self, found: Offset) -> Option<Shortfall> {
        let expected = self.params.recovery_point;
        let (file, position) = match self.segments.back() {
            Some(last) => (last.path(paths::LOG), last.size()),
            None => (self.params.dir.clone(), 0),
        };
        (found < expected).then_some(Shortfall { file, position, expected, found })
    }

    /// A sealed segment that is known to be whole. Only its epochs may have to be learnt; nothing is cut.
    fn trust(&mut self, segment: &Segment) -> Result<(), OpenError> {
        if self.epochs_known {
            return Ok(());
        }
        let epochs = &mut self.epochs;
        read_headers(self.read, segment, &mut |header| note_epoch(epochs, header))?;
        self.scanned_bytes += u64::from(segment.size());
        Ok(())
    }

    /// Reads what of a segment may not be whole, rebuilds its indexes, notes its epochs and producers, cuts it where it is not
    /// whole (with the `later` segments), and makes durable what is left.
    fn recover(&mut self, segment: &Rc<Segment>, later: &[Found]) -> Result<Offset, OpenError> {
        let size = segment.size();
        let (mut end, settled) = match self.scan_unsettled(segment, size)? {
            Some(end) => (end, true),
            None => (self.scan_whole(segment, size)?, false),
        };
        let path = segment.path(paths::LOG);
        if let Some(next) = later.first().filter(|next| end.problem.is_none() && next.base < end.next_offset) {
            return Err(OpenError::Overlap { path, end: end.next_offset, next: next.base });
        }
        end.problem = end.problem.or_else(|| self.gap_before(later, end.next_offset));
        if let Some(problem) = end.problem {
            refuse_old_format(&path, end.valid_bytes, size)?;
            if end.next_offset < self.params.recovery_point {
                let (position, offset, recovery_point) = (end.valid_bytes, end.next_offset, self.params.recovery_point);
                return Err(OpenError::Damaged { path, position, offset, recovery_point, problem });
            }
            self.remove_later(later)?;
            cut_file(&path, end.valid_bytes)?;
            self.cuts.push(Cut {
                file: path,
                position: end.valid_bytes,
                bytes: u64::from(size - end.valid_bytes),
                next_offset: end.next_offset,
                problem: Some(problem),
            });
        } else {
            let synced = open_file(&path)?.sync_all();
            synced.map_err(|source| OpenError::Io { path, source })?;
        }
        if !settled || end.problem.is_some() {
            // They may tell of batches that the segment no longer has; what was read of it takes their place.
            remove_existing(segment, &[paths::OFFSET_INDEX, paths::TIME_INDEX])?;
        }
        Ok(end.next_offset)
    }

    fn scan_whole(&mut self, segment: &Rc<Segment>, size: u32) -> Result<ScanEnd, OpenError> {
        if self.producers.is_none() {
            self.producers = Some(self.producers_below(segment.base)?);
        }
        self.keep_snapshot(segment.base)?;
        segment.reset();
        self.scan_rest(segment, (0, size), segment.base, Depth::Checksums)
    }

    /// Reads a segment from where the newest producer snapshot below the recovery point was taken: what lies below was on disk by then,
    /// with its epochs and its index entries (`Partition::settle`). None: there is no such snapshot, or something does not fit.
    fn scan_unsettled(&mut self, segment: &Rc<Segment>, size: u32) -> Result<Option<ScanEnd>, OpenError> {
        if self.producers.is_some() || !self.epochs_known {
            return Ok(None);
        }
        let within = segment.base + 1..=self.params.recovery_point;
        let Some(at) = self.snapshots.iter().copied().filter(|offset| within.contains(offset)).max() else {
            return Ok(None);
        };
        let path = paths::segment_file(&self.params.dir, at, paths::PRODUCER_SNAPSHOT);
        let Ok(Ok(producers)) = fs::read(&path).map(|content| ProducerStates::decode(&content)) else {
            return Ok(None);
        };
        let Ok(indexes) = segment.detached().read_indexes_below(at) else { return Ok(None) };
        let Some((from, expected)) = self.resume(segment, indexes)? else { return Ok(None) };
        (self.producers, self.producers_from) = (Some(producers), at);
        let epochs = self.epochs.clone();
        let end = self.scan_rest(segment, (from, size), expected, Depth::Checksums)?;
        if end.problem.is_some() && end.next_offset < at {
            // What was whole is not: nothing that was built on it counts.
            (self.producers, self.producers_from, self.epochs) = (None, Offset(0), epochs);
            return Ok(None);
        }
        Ok(Some(end))
    }

    /// A segment that lies wholly below the log's start, and was to be removed when the process ended. It may tell of producers;
    /// what is damaged in it is no reason to cut what follows.
    fn read_below_start(&mut self, segment: &Rc<Segment>) -> Result<(), OpenError> {
        if self.producers.is_none() {
            self.producers = Some(self.producers_below(segment.base)?);
        }
        let size = segment.size();
        segment.reset();
        self.scan_rest(segment, (0, size), segment.base, Depth::Checksums).map(drop)
    }

    /// The next segment does not go on where this one ends, and nothing but a crash can be why.
    fn gap_before(&self, later: &[Found], end: Offset) -> Option<Problem> {
        let next = later.first()?.base;
        let checkpoints = [self.params.log_start, self.params.cleaned].into_iter().flatten();
        let known = checkpoints.fold(self.params.recovery_point, Offset::max);
        let is_damage = next > end && next > known && !self.config.cleanup_policy.compact;
        is_damage.then_some(Problem::Gap { next })
    }

    /// Opens the last segment after a clean stop: reads on from its last index entry.
    fn open_active(&mut self, segment: &Rc<Segment>) -> Result<Offset, OpenError> {
        let size = segment.size();
        let Ok(indexes) = segment.detached().read_indexes() else { return self.recover(segment, &[]) };
        let Some((from, expected)) = self.resume(segment, indexes)? else { return self.recover(segment, &[]) };
        let end = self.scan_rest(segment, (from, size), expected, Depth::Headers)?;
        if end.problem.is_some() {
            segment.resume(Indexes::default(), size, (None, None));
            return self.recover(segment, &[]);
        }
        Ok(end.next_offset)
    }

    /// Takes over what the index files say: gives the position of their last entry, where reading goes on, and the offset of the
    /// batch there. None: they do not fit the segment.
    fn resume(&self, segment: &Segment, indexes: Indexes) -> Result<Option<(u32, Offset)>, OpenError> {
        let (last_offset, from) = match indexes.offsets.last() {
            Some((relative, position)) => (Some(segment.base + i64::from(relative)), position),
            None => (None, 0),
        };
        let max_timestamp = indexes.times.last().map(|e| (e.timestamp_ms, segment.base + i64::from(e.relative_offset)));
        let file = open_file(&segment.path(paths::LOG))?;
        let Ok((first, at)) = (|| io::Result::Ok((read_header(&file, 0)?, read_header(&file, from)?)))() else {
            return Ok(None);
        };
        if at.base_offset < segment.base || last_offset.is_some_and(|last| last != at.last_offset()) {
            return Ok(None);
        }
        segment.resume(indexes, from, (Some(first.max_timestamp), max_timestamp));
        Ok(Some((from, at.base_offset)))
    }

    fn scan_rest(
        &mut self,
        segment: &Rc<Segment>,
        (from, size): (u32, u32),
        expected: Offset,
        depth: Depth,
    ) -> Result<ScanEnd, OpenError> {
        let path = segment.path(paths::LOG);
        let (epochs, interval) = (&mut self.epochs, self.config.index_interval_bytes);
        let (producers, producers_from) = (&mut self.producers, self.producers_from);
        let end = (self.read)(&path, from..size).and_then(|mut bytes| {
            scan(&mut bytes, (from, size), expected, depth, &mut |header, _| {
                segment.note_batch(header, interval);
                note_epoch(epochs, header);
                if let Some(producers) = producers.as_mut().filter(|_| header.base_offset >= producers_from) {
                    producers.note(header);
                }
            })
        });
        self.scanned_bytes += u64::from(size - from);
        end.map_err(|source| unread(path, source))
    }

    /// Removes the segments that follow a cut, from the last one on, durably: what damage stands before them is what tells a
    /// recovery after this one to go on with it.
    fn remove_later(&mut self, later: &[Found]) -> Result<(), OpenError> {
        let dir = Rc::clone(&self.dir);
        for file in later.iter().rev() {
            self.remove(&Segment::existing(Rc::clone(&dir), file.base, file.bytes, file.modified_ms))?;
        }
        if later.is_empty() {
            return Ok(());
        }
        sync_dir(&dir).map_err(|source| OpenError::Io { path: dir.to_path_buf(), source })
    }

    /// Removes a segment of which nothing may stay, with everything that belongs to it.
    fn remove(&mut self, segment: &Segment) -> Result<(), OpenError> {
        self.remove_files(segment)?;
        self.cuts.push(Cut {
            file: segment.path(paths::LOG),
            position: 0,
            bytes: u64::from(segment.size()),
            next_offset: segment.base,
            problem: None,
        });
        Ok(())
    }

    fn remove_files(&self, segment: &Segment) -> Result<(), OpenError> {
        remove_existing(segment, &[paths::LOG, paths::OFFSET_INDEX, paths::TIME_INDEX, paths::TXN_INDEX])
    }

    /// What the log says of producers below `end`: the newest good snapshot that is not beyond it, brought up to date from
    /// the segments that are open so far.
    fn producers_below(&mut self, end: Offset) -> Result<ProducerStates, OpenError> {
        let mut producers = ProducerStates::default();
        let mut from = self.segments.front().map_or(end, |first| first.base);
        self.snapshots.sort_unstable_by(|a, b| b.cmp(a));
        for offset in self.snapshots.iter().filter(|offset| **offset <= end) {
            let path = paths::segment_file(&self.params.dir, *offset, paths::PRODUCER_SNAPSHOT);
            if let Ok(Ok(read)) = fs::read(&path).map(|content| ProducerStates::decode(&content)) {
                (producers, from) = (read, from.max(*offset));
                break;
            }
        }
        for (i, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(i + 1).map_or(end, |next| next.base);
            if next > from {
                read_headers(self.read, segment, &mut |header| {
                    if header.base_offset >= from {
                        producers.note(header);
                    }
                })?;
                self.scanned_bytes += u64::from(segment.size());
            }
        }
        Ok(producers)
    }

    /// The snapshot at a segment's base outlives the segments before it: without one, producers would be forgotten with them.
    fn keep_snapshot(&mut self, base: Offset) -> Result<(), OpenError> {
        let Some(producers) = &self.producers else { return Ok(()) };
        if self.segments.is_empty() || self.snapshots.contains(&base) {
            return Ok(());
        }
        let path = paths::segment_file(&self.params.dir, base, paths::PRODUCER_SNAPSHOT);
        let written = checkpoint::write_atomically(&path, &producers.encode(base));
        written.map_err(|source| OpenError::Io { path, source })?;
        self.snapshots.push(base);
        Ok(())
    }

    /// Snapshots beyond the end would be wrong once the log has grown again; of the others, those at a segment's base and
    /// the newest one are kept, as Kafka does.
    fn remove_snapshots(&mut self, end: Offset) {
        let newest = self.snapshots.iter().copied().filter(|offset| *offset <= end).max();
        for offset in &self.snapshots {
            let at_base = self.segments.iter().any(|segment| segment.base == *offset);
            if *offset > end || (!at_base && Some(*offset) != newest) {
                let _ = fs::remove_file(paths::segment_file(&self.params.dir, *offset, paths::PRODUCER_SNAPSHOT));
            }
        }
    }

    /// An epoch that only the log told of goes to the checkpoint file.
    fn write_epochs(&self) -> Result<(), OpenError> {
        if self.epochs.latest() <= self.stored_epoch {
            return Ok(());
        }
        let path = self.params.dir.join(paths::LEADER_EPOCH_CHECKPOINT);
        let text = checkpoint::encode_epochs(self.epochs.entries());
        checkpoint::write_atomically(&path, text.as_bytes()).map_err(|source| OpenError::Io { path, source })
    }

    /// The indexes of sealed segments that were rebuilt go to disk, so that they are not rebuilt again.
    fn write_sealed_indexes(&self) -> Result<(), OpenError> {
        let sealed = self.segments.len().saturating_sub(1);
        for segment in self.segments.iter().take(sealed).filter(|segment| !segment.is_indexed_on_disk()) {
            let Some(encoded) = segment.encode_indexes() else { continue };
            let written = segment.detached().write_indexes(&encoded);
            written.map_err(|source| OpenError::Io { path: segment.path(paths::OFFSET_INDEX), source })?;
            segment.set_indexed_on_disk(true);
            segment.drop_indexes();
        }
        Ok(())
    }
}

fn note_epoch(epochs: &mut EpochHistory, header: &BatchHeader) {
    // -1: written by something that knows no epochs.
    if header.partition_leader_epoch >= 0 {
        epochs.assign(LeaderEpoch(header.partition_leader_epoch), header.base_offset);
    }
}

/// Goes through the headers of a segment that is known to be whole; where it is not, they end early.
fn read_headers(read: ReadPart, segment: &Segment, on_batch: &mut dyn FnMut(&BatchHeader)) -> Result<(), OpenError> {
    let (path, size) = (segment.path(paths::LOG), segment.size());
    let read = read(&path, 0..size).and_then(|mut bytes| {
        scan(&mut bytes, (0, size), segment.base, Depth::Headers, &mut |header, _| on_batch(header))
    });
    read.map(drop).map_err(|source| unread(path, source))
}

/// What could not be read: a part of a segment, or more than that.
fn unread(path: PathBuf, source: io::Error) -> OpenError {
    match is_lost_sector(&source) {
        true => OpenError::Unreadable { path, source },
        false => OpenError::Io { path, source },
    }
}

fn remove_existing(segment: &Segment, suffixes: &[&str]) -> Result<(), OpenError> {
    for suffix in suffixes {
        let path = segment.path(suffix);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(OpenError::Io { path, source }),
            _ => {}
        }
    }
    Ok(())
}

/// What looks torn may be a message of an old format: that is no damage, and must not be cut.
fn refuse_old_format(path: &Path, position: u32, size: u32) -> Result<(), OpenError> {
    let found = old_format_at(&open_file(path)?, position, size);
    match found.map_err(|source| OpenError::Io { path: path.to_owned(), source })? {
        Some(magic) => Err(OpenError::OldFormat { path: path.to_owned(), position, magic }),
        None => Ok(()),
    }
}

/// Rebuilds the indexes of a sealed segment from its file. Blocking.
pub fn rebuild_indexes(segment: &DetachedSegment, index_interval_bytes: u32) -> io::Result<Indexes> {
    let rebuilt = Segment::new(Rc::from(Path::new("")), segment.base, 0);
    let mut file = File::open(segment.path(paths::LOG))?;
    scan(&mut file, (0, segment.size), segment.base, Depth::Headers, &mut |header, _| {
        rebuilt.note_batch(header, index_interval_bytes);
    })?;
    Ok(rebuilt.into_sealed_indexes())
}

fn read_epochs(dir: &Path) -> Option<EpochHistory> {
    let text = fs::read_to_string(dir.join(paths::LEADER_EPOCH_CHECKPOINT)).ok()?;
    EpochHistory::from_entries(checkpoint::decode_epochs(&text).ok()?)
}

fn read_header(file: &File, position: u32) -> io::Result<BatchHeader> {
    let mut bytes = [0; BatchHeader::LEN];
    file.read_exact_at(&mut bytes, u64::from(position))?;
    BatchHeader::parse(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn open_file(path: &Path) -> Result<File, OpenError> {
    File::open(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

fn cut_file(path: &Path, bytes: u32) -> Result<(), OpenError> {
    let cut = || {
        let file = File::options().write(true).open(path)?;
        file.set_len(u64::from(bytes))?;
        file.sync_all()
    };
    cut().map_err(|source| OpenError::Io { path: path.to_owned(), source })
}
