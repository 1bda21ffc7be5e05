//! Finding offsets by time (ListOffsets). Reads go through io_uring: these questions are rare and may be about cold data.

use super::corrupt::{CorruptRanges, Place};
use super::open_files::OpenFiles;
use super::read::{Missing, ReadError};
use super::segment::{NoBatchAt, Segment};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::record::batch::{BatchHeader, HEADER_LEN};
use crate::record::records::{first_at_or_after, greatest_from};
use bytes::Bytes;
use std::cell::Cell;
use std::io;
use std::rc::Rc;

/// Headers are read in pieces of this size.
const STEP_BYTES: usize = 64 << 10;

/// A record found by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    pub timestamp_ms: i64,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

/// The first record at or after `timestamp_ms` whose offset is not below `from`; `segments` are the log's, oldest first, and
/// `corrupt` what of it is damaged.
/// Segments that leave the log meanwhile are passed over.
pub async fn first_since(
    (segments, corrupt): (&[Rc<Segment>], &CorruptRanges),
    files: &OpenFiles,
    (timestamp_ms, from): (i64, Offset),
    index_interval_bytes: u32,
) -> Result<Option<TimestampedOffset>, ReadError> {
    for segment in segments {
        let reaches = segment.read_max_timestamp().is_none_or(|(max, _)| max >= timestamp_ms);
        if !reaches || segment.size() == 0 {
            continue;
        }
        let found = async {
            let position = segment_start(segment, files, (timestamp_ms, from), index_interval_bytes).await?;
            let is_late = |header: &BatchHeader| header.max_timestamp >= timestamp_ms;
            first_record((segment, corrupt), files, position, (timestamp_ms, from), is_late).await
        };
        match found.await {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(_) if segment.is_removed() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// The first record at or after `timestamp_ms`, not below `from`, in a segment's batches from `position` on that may have it.
async fn first_record(
    (segment, corrupt): (&Rc<Segment>, &CorruptRanges),
    files: &OpenFiles,
    mut position: u32,
    (timestamp_ms, from): (i64, Offset),
    may_have_it: impl Fn(&BatchHeader) -> bool,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let wanted = |header: &BatchHeader| may_have_it(header) && header.last_offset() >= from;
    while let Some((header, batch, next)) = first_batch((segment, corrupt), files, position, &wanted).await? {
        let found = first_at_or_after(&header, &batch, timestamp_ms, from)
            .map_err(|_| no_batch(segment, next - header.total_len() as u32))?;
        if let Some((timestamp_ms, offset)) = found {
            let leader_epoch = LeaderEpoch(header.partition_leader_epoch);
            return Ok(Some(TimestampedOffset { timestamp_ms, offset, leader_epoch }));
        }
        // The batch's late records lie below `from`, or compaction took them.
        position = next;
    }
    Ok(None)
}

/// A segment's greatest timestamp, as far as headers tell.
#[derive(Clone, Copy)]
struct Greatest {
    timestamp_ms: i64,
    /// Of the first batch that has it.
    last_offset: Offset,
    /// The record, where the batch had to be looked into.
    record: Option<TimestampedOffset>,
}

/// The record with the greatest timestamp of all from `from` on (KIP-734); of several, the first one of the first batch
/// that has it. Kafka 3.9 may answer a record below the log's start here, which no consumer can read.
pub async fn greatest(
    (segments, corrupt): (&[Rc<Segment>], &CorruptRanges),
    files: &OpenFiles,
    from: Offset,
    index_interval_bytes: u32,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let mut best: Option<(Greatest, &Rc<Segment>)> = None;
    for segment in segments.iter().filter(|segment| segment.size() > 0) {
        let known = match greatest_of((segment, corrupt), files, from, index_interval_bytes).await {
            Err(_) if segment.is_removed() => continue,
            known => known?,
        };
        if let Some(known) = known
            && best.is_none_or(|(best, _)| known.timestamp_ms > best.timestamp_ms)
        {
            best = Some((known, segment));
        }
    }
    let Some((best, segment)) = best.filter(|(best, _)| best.timestamp_ms >= 0) else { return Ok(None) };
    if best.record.is_some() {
        return Ok(best.record);
    }
    // One that compaction has emptied keeps its time.
    let has_it = |header: &BatchHeader| header.max_timestamp == best.timestamp_ms && header.record_count > 0;
    let position = position_before(segment, files, best.last_offset, index_interval_bytes).await?;
    first_record((segment, corrupt), files, position, (best.timestamp_ms, from), has_it).await
}

/// A segment's greatest timestamp at or above `from`, and the last offset of the first batch that has it.
async fn greatest_of(
    (segment, corrupt): (&Rc<Segment>, &CorruptRanges),
    files: &OpenFiles,
    from: Offset,
    index_interval_bytes: u32,
) -> Result<Option<Greatest>, ReadError> {
    if segment.read_max_timestamp().is_none() && !segment.has_indexes() {
        Missing::Indexes { segment: Rc::clone(segment), index_interval_bytes }.load(files).await?;
    }
    let as_told = |(timestamp_ms, last_offset)| Greatest { timestamp_ms, last_offset, record: None };
    let known = segment.max_timestamp().map(as_told);
    if known.is_none() || segment.base >= from {
        return Ok(known);
    }
    // The log's start lies in it. The first batch that counts may hold records below, and one of those the time in its header.
    let start = position_before(segment, files, from, index_interval_bytes).await?;
    let counts = |header: &BatchHeader| header.last_offset() >= from && header.record_count > 0;
    let Some((first, batch, next)) = first_batch((segment, corrupt), files, start, &counts).await? else {
        return Ok(None);
    };
    if known.is_some_and(|known| known.last_offset > first.last_offset()) {
        return Ok(known);
    }
    let within = greatest_from(&first, &batch, from).map_err(|_| no_batch(segment, next - first.total_len() as u32))?;
    let leader_epoch = LeaderEpoch(first.partition_leader_epoch);
    let best = Cell::new(within.map(|(timestamp_ms, offset)| Greatest {
        timestamp_ms,
        last_offset: first.last_offset(),
        record: Some(TimestampedOffset { timestamp_ms, offset, leader_epoch }),
    }));
    // The greatest of all may lie below: what is left must be read.
    let look = |header: &BatchHeader| {
        if header.record_count > 0 && best.get().is_none_or(|best| header.max_timestamp > best.timestamp_ms) {
            best.set(Some(as_told((header.max_timestamp, header.last_offset()))));
        }
        false
    };
    first_batch((segment, corrupt), files, next, &look).await?;
    Ok(best.get())
}

async fn segment_start(
    segment: &Rc<Segment>,
    files: &OpenFiles,
    (timestamp_ms, from): (i64, Offset),
    index_interval_bytes: u32,
) -> Result<u32, ReadError> {
    if !segment.has_indexes() {
        Missing::Indexes { segment: Rc::clone(segment), index_interval_bytes }.load(files).await?;
    }
    let offset = segment.offset_before_time(timestamp_ms).unwrap_or(segment.base).max(from);
    position_before(segment, files, offset, index_interval_bytes).await
}

async fn position_before(
    segment: &Rc<Segment>,
    files: &OpenFiles,
    offset: Offset,
    index_interval_bytes: u32,
) -> Result<u32, ReadError> {
    if !segment.has_indexes() {
        Missing::Indexes { segment: Rc::clone(segment), index_interval_bytes }.load(files).await?;
    }
    Ok(segment.position_before(offset).unwrap_or(0))
}

/// The first batch from `position` on whose header is wanted, with all its bytes and the position after it. What is known to
/// be damaged is passed over.
async fn first_batch(
    (segment, corrupt): (&Rc<Segment>, &CorruptRanges),
    files: &OpenFiles,
    mut position: u32,
    wanted: &dyn Fn(&BatchHeader) -> bool,
) -> Result<Option<(BatchHeader, Bytes, u32)>, ReadError> {
    let file = files.file(segment).map_err(|e| failed(segment, e))?;
    let size = segment.size();
    while position < size {
        let left = (size - position) as usize;
        let piece = file.read_at(u64::from(position), left.min(STEP_BYTES)).await.map_err(|e| failed(segment, e))?;
        // Every turn passes a batch or fails, so the loop ends whatever the bytes say.
        let mut at = 0;
        while at < piece.len() && (at == 0 || piece.len() - at >= HEADER_LEN) {
            let here = Place { segment: segment.base, position: position + at as u32 };
            if let Some(range) = corrupt.holding(here) {
                // It may reach into later segments.
                let end = if range.end.segment == segment.base { range.end.position } else { size };
                at += (end - here.position) as usize;
                break;
            }
            let header = BatchHeader::parse(&piece[at..]).map_err(|_| no_batch(segment, here.position))?;
            let length = header.total_len();
            if length > left - at {
                return Err(no_batch(segment, here.position));
            }
            if wanted(&header) {
                let place = u64::from(position) + at as u64;
                let batch = file.read_at(place, length).await.map_err(|e| failed(segment, e))?;
                return Ok(Some((header, batch, position + (at + length) as u32)));
            }
            at += length;
        }
        position += at as u32;
    }
    Ok(None)
}

fn no_batch(segment: &Segment, position: u32) -> ReadError {
    let source = NoBatchAt { position };
    ReadError::Corrupt { path: segment.path(super::paths::LOG), segment: segment.base, source }
}

fn failed(segment: &Segment, source: io::Error) -> ReadError {
    ReadError::Io { path: segment.path(super::paths::LOG), source }
}
