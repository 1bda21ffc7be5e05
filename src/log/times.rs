//! Finding offsets by time (ListOffsets). Reads go through io_uring: these questions are rare and may be about cold data.

use super::open_files::OpenFiles;
use super::read::{Missing, ReadError};
use super::segment::Segment;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::record::batch::{BatchHeader, HEADER_LEN};
use crate::record::records::{first_at_or_after, offset_of_max_timestamp};
use bytes::Bytes;
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

/// The first record at or after `timestamp_ms` whose offset is not below `from`; `segments` are the log's, oldest first.
pub async fn first_since(
    segments: &[Rc<Segment>],
    files: &OpenFiles,
    (timestamp_ms, from): (i64, Offset),
    index_interval_bytes: u32,
) -> Result<Option<TimestampedOffset>, ReadError> {
    for segment in segments {
        let reaches = segment.read_max_timestamp().is_none_or(|(max, _)| max >= timestamp_ms);
        if !reaches || segment.size() == 0 {
            continue;
        }
        let wanted = |header: &BatchHeader| header.max_timestamp >= timestamp_ms && header.last_offset() >= from;
        let start = segment_start(segment, files, (timestamp_ms, from), index_interval_bytes).await?;
        let Some((header, batch)) = first_batch(segment, files, start, &wanted).await? else { continue };
        let found = first_at_or_after(&header, &batch, timestamp_ms, from)
            .map_err(|e| corrupt(segment, io::Error::new(io::ErrorKind::InvalidData, e)))?;
        if let Some((timestamp_ms, offset)) = found {
            let leader_epoch = LeaderEpoch(header.partition_leader_epoch);
            return Ok(Some(TimestampedOffset { timestamp_ms, offset, leader_epoch }));
        }
    }
    Ok(None)
}

/// The record with the greatest timestamp of all (KIP-734); of several, the first one of the first batch that has it.
pub async fn greatest(
    segments: &[Rc<Segment>],
    files: &OpenFiles,
    index_interval_bytes: u32,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let mut best: Option<(i64, Offset, &Rc<Segment>)> = None;
    for segment in segments {
        if let Some((timestamp_ms, offset)) = segment.read_max_timestamp()
            && best.is_none_or(|(max, ..)| timestamp_ms > max)
        {
            best = Some((timestamp_ms, offset, segment));
        }
    }
    let Some((timestamp_ms, last_offset, segment)) = best.filter(|(timestamp_ms, ..)| *timestamp_ms >= 0) else {
        return Ok(None);
    };
    let start = position_before(segment, files, last_offset, index_interval_bytes).await?;
    let wanted = |header: &BatchHeader| header.max_timestamp == timestamp_ms;
    let Some((header, batch)) = first_batch(segment, files, start, &wanted).await? else { return Ok(None) };
    let offset = offset_of_max_timestamp(&header, &batch)
        .map_err(|e| corrupt(segment, io::Error::new(io::ErrorKind::InvalidData, e)))?;
    let leader_epoch = LeaderEpoch(header.partition_leader_epoch);
    Ok(offset.map(|offset| TimestampedOffset { timestamp_ms, offset, leader_epoch }))
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

/// The first batch from `position` on whose header is wanted, with all its bytes.
async fn first_batch(
    segment: &Rc<Segment>,
    files: &OpenFiles,
    mut position: u32,
    wanted: &dyn Fn(&BatchHeader) -> bool,
) -> Result<Option<(BatchHeader, Bytes)>, ReadError> {
    let file = files.file(segment).map_err(|e| corrupt(segment, e))?;
    while position < segment.size() {
        let left = (segment.size() - position) as usize;
        let piece = file.read_at(u64::from(position), left.min(STEP_BYTES)).await.map_err(|e| corrupt(segment, e))?;
        let mut at = 0;
        while piece.len() - at >= HEADER_LEN.min(left) {
            let header = BatchHeader::parse(&piece[at..])
                .map_err(|e| corrupt(segment, io::Error::new(io::ErrorKind::InvalidData, e)))?;
            let length = header.total_len();
            if wanted(&header) {
                let place = u64::from(position) + at as u64;
                let length = length.min(left - at);
                let batch = file.read_at(place, length).await.map_err(|e| corrupt(segment, e))?;
                return Ok(Some((header, batch)));
            }
            at += length;
            if at >= piece.len() {
                break;
            }
        }
        position = position.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
    }
    Ok(None)
}

fn corrupt(segment: &Segment, source: io::Error) -> ReadError {
    ReadError::Io { path: segment.path(super::paths::LOG), source }
}
