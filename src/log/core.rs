//! A log's decisions: which offsets a batch gets, which segment it goes to, what the next write holds, where an offset
//! lies. No I/O and no clock: `partition` performs what is decided here and reports back.

use super::corrupt::CorruptRanges;
use super::epochs::EpochHistory;
use super::producers::{ProducerError, ProducerStates, Verdict};
use super::segment::{BatchPlace, Segment, SegmentState};
use crate::base::config::topic::TopicConfig;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::limits::{APPEND_BYTES_MAX, APPEND_IOVECS_MAX, LOG_OFFSET_MAX, RECENT_BATCHES_MAX};
use crate::record::batch::{BatchHeader, PREFIX_LEN, patch_prefix};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

/// Batches up to this size are copied into one buffer with their neighbours: cheaper than two more I/O vectors each.
const COPY_BYTES_MAX: usize = 4096;

/// One partition's log.
///
/// ```text
/// log start ≤ flushed end ≤ written end (log end offset of readers) ≤ staged end (next offset)
/// ```
pub struct LogCore {
    dir: Rc<Path>,
    segments: VecDeque<Rc<Segment>>,
    log_start: Offset,
    staged_end: Offset,
    written_end: Offset,
    flushed_end: Offset,
    epochs: EpochHistory,
    producers: ProducerStates,
    staged: VecDeque<Staged>,
    in_flight: VecDeque<Staged>,
    recent: VecDeque<(Offset, BatchPlace)>,
    corrupt: CorruptRanges,
    failure: Option<Rc<str>>,
}

/// A log as recovery found it. Plain data.
#[derive(Debug)]
pub struct RecoveredLog {
    pub segments: Vec<SegmentState>,
    pub log_start: Offset,
    pub end: Offset,
    pub epochs: EpochHistory,
    pub producers: ProducerStates,
}

/// A batch with its final offsets that is not written yet.
struct Staged {
    header: BatchHeader,
    bytes: Bytes,
}

/// Where a batch went, or where its first sending had gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// The batch is in the log when the written (or flushed) end reaches this.
    pub end: Offset,
    /// Set when the batch had been appended before.
    pub duplicate_timestamp_ms: Option<i64>,
}

/// One write to one segment's end.
pub struct Write {
    pub segment: Rc<Segment>,
    pub position: u32,
    /// The offsets of its batches.
    pub base: Offset,
    pub end: Offset,
    pub buffers: Vec<Bytes>,
    /// Bytes of it that are written already, and are not in the buffers any more.
    pub done: u64,
    pub bytes: usize,
    pub batches: usize,
    /// The segment before, now sealed: its indexes and a producer snapshot are to be written.
    pub sealed: Option<Rc<Segment>>,
    /// This is the first write to the segment: its file is to be made.
    pub first: bool,
}

/// Where a read begins and how far it may go within that segment.
#[derive(Clone)]
pub struct ReadSpan {
    pub segment: Rc<Segment>,
    pub position: u32,
    /// The bytes up to here may be read: the limit's position, or the segment's end.
    pub end: u32,
    /// The first batch's size: what a reader needs at least.
    pub first_batch_bytes: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error("the log cannot be written: {0}")]
    Failed(Rc<str>),
}

/// An offset that the log does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {asked} is not within {log_start}..={end}")]
pub struct OutOfRange {
    pub asked: Offset,
    pub log_start: Offset,
    pub end: Offset,
}

impl LogCore {
    /// A log that holds nothing yet.
    pub fn empty(dir: Rc<Path>, log_start: Offset) -> LogCore {
        LogCore {
            dir,
            segments: VecDeque::new(),
            log_start,
            staged_end: log_start,
            written_end: log_start,
            flushed_end: log_start,
            epochs: EpochHistory::default(),
            producers: ProducerStates::default(),
            staged: VecDeque::new(),
            in_flight: VecDeque::new(),
            recent: VecDeque::new(),
            corrupt: CorruptRanges::default(),
            failure: None,
        }
    }

    /// A log that could not be opened. It holds nothing, but goes on to say what the checkpoints said of it.
    pub fn unopened(dir: Rc<Path>, log_start: Offset, recovery_point: Offset, reason: Rc<str>) -> LogCore {
        let mut core = LogCore::empty(dir, log_start);
        let end = recovery_point.max(log_start);
        (core.staged_end, core.written_end, core.flushed_end) = (end, end, end);
        core.failure = Some(reason);
        core
    }

    /// A log as recovery found it: all of it counts as written and flushed.
    pub fn recovered(dir: Rc<Path>, log: RecoveredLog) -> LogCore {
        let RecoveredLog { segments, log_start, end, epochs, producers } = log;
        assert!(log_start <= end, "log start {log_start} beyond the end {end}");
        let segments = segments.into_iter().map(|state| Rc::new(Segment::restored(Rc::clone(&dir), state)));
        let segments = segments.collect();
        let mut core = LogCore::empty(dir, log_start);
        (core.segments, core.epochs, core.producers) = (segments, epochs, producers);
        (core.staged_end, core.written_end, core.flushed_end) = (end, end, end);
        core
    }

    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The log end offset: the first offset that is not written.
    pub fn written_end(&self) -> Offset {
        self.written_end
    }

    /// The next batch's base offset.
    pub fn staged_end(&self) -> Offset {
        self.staged_end
    }

    /// Everything below is on disk.
    pub fn flushed_end(&self) -> Offset {
        self.flushed_end
    }

    pub fn epochs(&self) -> &EpochHistory {
        &self.epochs
    }

    pub fn epochs_mut(&mut self) -> &mut EpochHistory {
        &mut self.epochs
    }

    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    pub fn producers_mut(&mut self) -> &mut ProducerStates {
        &mut self.producers
    }

    pub fn segments(&self) -> &VecDeque<Rc<Segment>> {
        &self.segments
    }

    /// What is known to be damaged: never served.
    pub fn corrupt(&self) -> &CorruptRanges {
        &self.corrupt
    }

    pub fn corrupt_mut(&mut self) -> &mut CorruptRanges {
        &mut self.corrupt
    }

    pub fn failure(&self) -> Option<&Rc<str>> {
        self.failure.as_ref()
    }

    /// No write is staged or under way.
    pub fn is_quiet(&self) -> bool {
        self.staged.is_empty() && self.in_flight.is_empty()
    }

    /// Bytes in all segments.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.size())).sum()
    }

    /// Gives a checked batch its offsets and queues it. A retry of an idempotent producer is recognised, not queued.
    pub fn stage(
        &mut self,
        mut header: BatchHeader,
        bytes: Bytes,
        epoch: LeaderEpoch,
    ) -> Result<Appended, AppendError> {
        if let Some(failure) = &self.failure {
            return Err(AppendError::Failed(Rc::clone(failure)));
        }
        debug_assert_eq!(header.total_len(), bytes.len());
        if let Verdict::Duplicate { base_offset, last_offset, timestamp_ms } = self.producers.check(&header)? {
            return Ok(Appended { base_offset, end: last_offset + 1, duplicate_timestamp_ms: Some(timestamp_ms) });
        }
        if self.staged_end.0 > LOG_OFFSET_MAX {
            return Err(AppendError::Failed(Rc::from("its offsets are used up")));
        }
        // Where the store is older than the log: within a log epochs never fall, or recovery would take it for damage.
        let epoch = self.epochs.latest().map_or(epoch, |latest| latest.max(epoch));
        header.base_offset = self.staged_end;
        header.partition_leader_epoch = epoch.0;
        self.epochs.assign(epoch, header.base_offset);
        self.producers.note(&header);
        self.staged_end = header.next_offset();
        self.staged.push_back(Staged { header, bytes });
        Ok(Appended { base_offset: header.base_offset, end: self.staged_end, duplicate_timestamp_ms: None })
    }

    /// The next write: as many staged batches as fit one write to one segment. None while one is under way.
    pub fn next_write(&mut self, config: &TopicConfig, now_ms: i64) -> Option<Write> {
        let front = self.staged.front().filter(|_| self.in_flight.is_empty() && self.failure.is_none())?;
        let mut sealed = None;
        let mut first = false;
        let active = match self.segments.back() {
            Some(active) if !active.must_roll(&active.tail(), &front.header, config, now_ms) => Rc::clone(active),
            full => {
                sealed = full.cloned();
                first = true;
                let next = Rc::new(Segment::new(Rc::clone(&self.dir), front.header.base_offset, now_ms));
                self.segments.push_back(Rc::clone(&next));
                next
            }
        };
        let position = active.size();
        let mut gather = Gather::new();
        let mut tail = active.tail();
        while let Some(staged) = self.staged.front() {
            // A batch rolls as it would have if those before it were written already.
            let fits = gather.bytes == 0
                || (gather.has_room(staged.bytes.len()) && !active.must_roll(&tail, &staged.header, config, now_ms));
            if !fits {
                break;
            }
            tail.note(&staged.header, config.index_interval_bytes);
            gather.add(staged);
            let staged = self.staged.pop_front().expect("the front was just seen");
            self.in_flight.push_back(staged);
        }
        let (buffers, bytes) = gather.finish();
        let ends = self.in_flight.front().zip(self.in_flight.back());
        let (first_batch, last_batch) = ends.expect("a write holds at least one batch");
        let (base, end) = (first_batch.header.base_offset, last_batch.header.next_offset());
        Some(Write {
            segment: active,
            position,
            base,
            end,
            buffers,
            done: 0,
            bytes,
            batches: self.in_flight.len(),
            sealed,
            first,
        })
    }

    /// The write that `next_write` gave has completed: its batches can be read now. After a failure it changes nothing.
    pub fn write_completed(&mut self, segment: &Segment, index_interval_bytes: u32, now_ms: i64) {
        segment.set_modified_ms(now_ms);
        segment.set_dirty(true);
        for staged in self.in_flight.drain(..) {
            let header = &staged.header;
            let place = BatchPlace {
                base: header.base_offset,
                next: header.next_offset(),
                position: segment.size(),
                bytes: staged.bytes.len() as u32,
            };
            segment.note_batch(header, index_interval_bytes);
            if self.recent.len() == RECENT_BATCHES_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back((segment.base, place));
            self.written_end = header.next_offset();
        }
        debug_assert!(self.written_end <= self.staged_end);
    }

    /// The write failed, or a sync did: what is on disk beyond the written end is unknown, so nothing more is taken.
    pub fn fail(&mut self, reason: Rc<str>) {
        self.failure.get_or_insert(reason);
        self.in_flight.clear();
        self.staged.clear();
    }

    /// What a flush that starts now makes durable, and the segments that it must sync. None: nothing is unflushed.
    pub fn unflushed(&self) -> Option<(Offset, Vec<Rc<Segment>>)> {
        if self.flushed_end == self.written_end {
            return None;
        }
        let first = self.segment_index(self.flushed_end).unwrap_or(0);
        Some((self.written_end, self.segments.iter().skip(first).filter(|s| s.size() > 0).cloned().collect()))
    }

    /// A flush that covered everything below `end` has completed. After a failure it says nothing: the kernel reports a
    /// failed write-back once, and a later sync succeeds although the data is gone.
    pub fn flush_completed(&mut self, end: Offset) {
        debug_assert!(end <= self.written_end);
        if self.failure.is_none() {
            self.flushed_end = self.flushed_end.max(end);
        }
    }

    /// Segments that end at or below this need not be read after a crash: they are on disk, and so are their indexes.
    pub fn recovery_point(&self) -> Offset {
        let sealed = self.segments.len().saturating_sub(1);
        let unindexed = self.segments.iter().take(sealed).find(|segment| !segment.is_indexed_on_disk());
        unindexed.map_or(self.flushed_end, |segment| segment.base.min(self.flushed_end))
    }

    /// The segment that holds an offset, or would.
    pub fn segment_of(&self, offset: Offset) -> Option<&Rc<Segment>> {
        self.segments.get(self.segment_index(offset)?)
    }

    /// The segment after another one.
    pub fn segment_after(&self, segment: &Segment) -> Option<&Rc<Segment>> {
        self.segments.get(self.segments.partition_point(|s| s.base <= segment.base))
    }

    /// The batch that holds `offset`, if it was written lately: no look-up on disk is needed.
    pub fn recent_batch(&self, offset: Offset) -> Option<(&Rc<Segment>, BatchPlace)> {
        let at = self.recent.partition_point(|(_, place)| place.next <= offset);
        let (base, place) = self.recent.get(at)?;
        if place.base > offset {
            return None;
        }
        let segment = self.segments.get(self.segment_index(*base)?)?;
        (segment.base == *base).then_some((segment, *place))
    }

    /// Checks that an offset can be read from a log that ends at `end` for this reader.
    pub fn check_range(&self, offset: Offset, end: Offset) -> Result<(), OutOfRange> {
        if offset < self.log_start || offset > end {
            return Err(OutOfRange { asked: offset, log_start: self.log_start, end });
        }
        Ok(())
    }

    /// Moves the log's start up, by retention or DeleteRecords. Segments that lie wholly below leave the log; the caller
    /// removes their files. The active segment always stays.
    pub fn raise_log_start(&mut self, to: Offset) -> Vec<Rc<Segment>> {
        if to <= self.log_start {
            return Vec::new();
        }
        self.log_start = to.min(self.written_end);
        self.epochs.truncate_start(self.log_start);
        self.remove_below_start()
    }

    /// Takes out the segments that lie wholly below the log's start: also those that did not when it moved, because they
    /// were the active one then. One that is just being sealed waits: the producers' snapshot at its end is all that will tell of
    /// the producers in it, and is not on disk yet.
    pub fn remove_below_start(&mut self) -> Vec<Rc<Segment>> {
        let mut gone = Vec::new();
        while self.segments.get(1).is_some_and(|second| second.base <= self.log_start)
            && self.segments.front().is_some_and(|first| first.is_indexed_on_disk())
        {
            gone.extend(self.segments.pop_front());
        }
        gone.iter().for_each(|segment| segment.set_removed());
        gone
    }

    /// Retention removes even the active segment when all of it has expired. An empty one takes its place at once, as in
    /// Kafka: its name is what tells the log's end after a restart. The caller makes its file before it removes the others.
    pub fn remove_all_segments(&mut self, now_ms: i64) -> (Vec<Rc<Segment>>, Rc<Segment>) {
        debug_assert!(self.is_quiet());
        debug_assert!(self.segments.back().is_none_or(|active| active.base < self.written_end));
        self.log_start = self.written_end;
        self.epochs.truncate_start(self.log_start);
        self.recent.clear();
        self.segments.iter().for_each(|segment| segment.set_removed());
        let gone = self.segments.drain(..).collect();
        let next = Rc::new(Segment::new(Rc::clone(&self.dir), self.written_end, now_ms));
        self.segments.push_back(Rc::clone(&next));
        (gone, next)
    }

    /// Whether segments with these bases lie one behind the other, and none of them is the active one.
    pub fn can_replace(&self, bases: &[Offset]) -> bool {
        let first = bases.first().and_then(|base| self.segments.iter().position(|segment| segment.base == *base));
        let Some(first) = first.filter(|_| self.failure.is_none()) else { return false };
        let found = self.segments.iter().skip(first).map(|segment| segment.base);
        first + bases.len() < self.segments.len() && found.take(bases.len()).eq(bases.iter().copied())
    }

    /// Compaction: a new segment takes the place of those with these bases (`can_replace`). Readers that hold one of them go
    /// on with the file that they have open.
    pub fn replace_segments(&mut self, bases: &[Offset], new: &Rc<Segment>) {
        debug_assert!(self.can_replace(bases) && bases[0] == new.base);
        let first = self.segments.partition_point(|segment| segment.base < new.base);
        let later = self.segments.split_off(first + bases.len());
        self.segments.split_off(first).iter().for_each(|segment| segment.set_replaced());
        self.segments.push_back(Rc::clone(new));
        self.segments.extend(later);
        // They speak of positions in the old files.
        self.recent.retain(|(base, _)| !bases.contains(base));
    }

    /// Frees what an idle log can do without: the positions of its last batches.
    pub fn release_memory(&mut self) {
        self.recent = VecDeque::new();
        self.staged.shrink_to_fit();
        self.in_flight.shrink_to_fit();
    }

    fn segment_index(&self, offset: Offset) -> Option<usize> {
        self.segments.partition_point(|segment| segment.base <= offset).checked_sub(1)
    }

    /// What must hold between any two calls; checked after every step in tests.
    pub fn check_invariants(&self) {
        assert!(self.log_start <= self.written_end, "log start beyond the end");
        assert!(self.flushed_end <= self.written_end && self.written_end <= self.staged_end);
        assert!(self.recovery_point() <= self.flushed_end, "recovery would trust what is not on disk");
        assert!(self.segments.iter().all(|segment| !segment.is_removed()), "a removed segment is still in the log");
        assert!(self.segments.iter().zip(self.segments.iter().skip(1)).all(|(a, b)| a.base < b.base));
        let queued = self.in_flight.iter().chain(&self.staged);
        let mut next = self.written_end;
        for staged in queued {
            assert_eq!(staged.header.base_offset, next, "queued batches are gapless");
            next = staged.header.next_offset();
        }
        assert!(self.failure.is_some() || next == self.staged_end);
        assert!(self.recent.len() <= RECENT_BATCHES_MAX);
    }
}

/// Collects the buffers of one write: small batches copied together, large ones as slices of what was received.
struct Gather {
    buffers: Vec<Bytes>,
    copied: BytesMut,
    bytes: usize,
}

impl Gather {
    fn new() -> Gather {
        Gather { buffers: Vec::new(), copied: BytesMut::new(), bytes: 0 }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.buffers.len() + 3 <= APPEND_IOVECS_MAX && self.bytes + bytes <= APPEND_BYTES_MAX
    }

    fn add(&mut self, staged: &Staged) {
        let mut prefix = [0; PREFIX_LEN];
        let header = &staged.header;
        patch_prefix(&mut prefix, header.base_offset, header.batch_length, LeaderEpoch(header.partition_leader_epoch));
        self.copied.extend_from_slice(&prefix);
        let rest = staged.bytes.slice(PREFIX_LEN..);
        self.bytes += staged.bytes.len();
        if rest.len() <= COPY_BYTES_MAX {
            self.copied.extend_from_slice(&rest);
        } else {
            self.buffers.push(self.copied.split().freeze());
            self.buffers.push(rest);
        }
    }

    fn finish(mut self) -> (Vec<Bytes>, usize) {
        if !self.copied.is_empty() {
            self.buffers.push(self.copied.freeze());
        }
        (self.buffers, self.bytes)
    }
}
