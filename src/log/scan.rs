//! Walks through a segment's file batch by batch: what recovery and index rebuilding are made of. Blocking reads.

use crate::base::ids::Offset;
use crate::record::batch::{BatchHeader, HEADER_LEN, LOG_OVERHEAD};
use crc_fast::{CrcAlgorithm, Digest};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

const CHUNK_BYTES: usize = 1 << 20;

/// What precedes the bytes that a batch's CRC covers.
const CRC_FROM: usize = 21;

/// Bytes up to the magic of formats v0 and v1, and the least that their length can say.
const OLD_HEADER_LEN: usize = 17;
const OLD_LENGTH_MIN: u32 = 14;

/// Where a scan ended.
#[derive(Debug, PartialEq, Eq)]
pub struct ScanEnd {
    /// Bytes from the segment's start that hold good batches.
    pub valid_bytes: u32,
    /// The offset after the last good batch.
    pub next_offset: Offset,
    /// Why the bytes after them are no batch; None: there are none.
    pub problem: Option<Problem>,
}

/// What is wrong with the bytes where a batch should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{have} bytes are too short for a batch of {need}")]
    Torn { have: u64, need: u64 },
    #[error("no batch header: {0}")]
    Header(#[from] crate::record::batch::BatchError),
    #[error("CRC does not match, {expected:08x} expected")]
    Crc { expected: u32 },
    #[error("offset {found} where {expected} or a later one is due")]
    Offset { expected: Offset, found: Offset },
    #[error("leader epoch {found} after {last}")]
    Epoch { last: i32, found: i32 },
    #[error("last offset delta {delta} with {count} records")]
    Counts { delta: i32, count: i32 },
    /// Of a segment's end, not of its bytes.
    #[error("the next segment begins at offset {next}, and what lay before it is gone")]
    Gap { next: Offset },
}

/// How strictly batches are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Headers and their order only.
    Headers,
    /// The CRC of every batch too.
    Checksums,
}

/// Goes through `bytes`, which are those of a segment from the batch at `from` to `size`; `expected` is the least offset that the
/// first batch may have. Calls `on_batch` with every good batch and its position.
pub fn scan(
    bytes: &mut dyn Read,
    (from, size): (u32, u32),
    expected: Offset,
    depth: Depth,
    on_batch: &mut dyn FnMut(&BatchHeader, u32),
) -> io::Result<ScanEnd> {
    let mut window = Window { input: bytes, size, start: from, bytes: Vec::new() };
    let mut end = ScanEnd { valid_bytes: from, next_offset: expected, problem: None };
    let mut last_epoch = -1;
    let floor = expected;
    while end.valid_bytes < size {
        let have = u64::from(size - end.valid_bytes);
        let head = window.at(end.valid_bytes, HEADER_LEN)?;
        let header = match BatchHeader::parse(head) {
            Ok(header) => header,
            Err(_) if head.len() < HEADER_LEN => {
                end.problem = Some(Problem::Torn { have, need: HEADER_LEN as u64 });
                break;
            }
            Err(error) => {
                end.problem = Some(error.into());
                break;
            }
        };
        let need = header.total_len() as u64;
        end.problem = if have < need {
            Some(Problem::Torn { have, need })
        } else {
            check(&header, (floor, end.next_offset), last_epoch)
        };
        let is_asked = end.problem.is_none() && depth == Depth::Checksums;
        if is_asked && window.crc(end.valid_bytes, header.total_len())? != header.crc {
            end.problem = Some(Problem::Crc { expected: header.crc });
        }
        if end.problem.is_some() {
            break;
        }
        on_batch(&header, end.valid_bytes);
        last_epoch = header.partition_leader_epoch;
        end.next_offset = header.next_offset();
        end.valid_bytes += need as u32;
    }
    Ok(end)
}

/// The CRC covers neither base offset nor epoch: their order is what tells good ones.
fn check(header: &BatchHeader, (floor, expected): (Offset, Offset), last_epoch: i32) -> Option<Problem> {
    if header.last_offset_delta < 0 || header.record_count < 0 {
        return Some(Problem::Counts { delta: header.last_offset_delta, count: header.record_count });
    }
    // A segment holds offsets that an index can tell from its base, in 31 bits.
    let reach = header.last_offset().0.checked_sub(floor.0);
    if header.base_offset < expected || reach.is_none_or(|reach| !(0..=i64::from(i32::MAX)).contains(&reach)) {
        return Some(Problem::Offset { expected, found: header.base_offset });
    }
    (header.partition_leader_epoch < last_epoch)
        .then_some(Problem::Epoch { last: last_epoch, found: header.partition_leader_epoch })
}

/// Whether the bytes at `position` are a message of format v0 or v1 (its magic then): their CRC-32 tells.
///
/// ```text
/// | offset i64 | length i32 | CRC-32 u32 of what follows | magic i8 | attributes i8 | ...
/// ```
pub fn old_format_at(file: &File, position: u32, size: u32) -> io::Result<Option<i8>> {
    let mut head = [0; OLD_HEADER_LEN];
    if size.saturating_sub(position) < OLD_HEADER_LEN as u32 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, u64::from(position))?;
    let [_, _, _, _, _, _, _, _, l0, l1, l2, l3, c0, c1, c2, c3, magic] = head;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let end = u64::from(position) + LOG_OVERHEAD as u64 + u64::from(length);
    if !matches!(magic, 0 | 1) || length < OLD_LENGTH_MIN || end > u64::from(size) {
        return Ok(None);
    }
    let mut crc = crc32fast::Hasher::new();
    let mut at = u64::from(position) + OLD_HEADER_LEN as u64 - 1;
    let mut chunk = vec![0; CHUNK_BYTES.min((end - at) as usize)];
    while at < end {
        let take = chunk.len().min((end - at) as usize);
        file.read_exact_at(&mut chunk[..take], at)?;
        crc.update(&chunk[..take]);
        at += take as u64;
    }
    Ok((crc.finalize() == u32::from_be_bytes([c0, c1, c2, c3])).then_some(magic as i8))
}

/// A piece of the segment in memory that moves forward; no larger than `CHUNK_BYTES`, whatever a batch says it needs.
struct Window<'a> {
    input: &'a mut dyn Read,
    size: u32,
    start: u32,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The CRC of the batch at `position`, all of which is there.
    fn crc(&mut self, position: u32, length: usize) -> io::Result<u32> {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut done = CRC_FROM;
        while done < length {
            let piece = self.at(position + done as u32, CHUNK_BYTES.min(length - done))?;
            digest.update(piece);
            done += piece.len();
        }
        Ok(digest.finalize() as u32)
    }

    /// The bytes at `position`, which is not before that of the last call: `length` of them, or fewer where the segment ends.
    fn at(&mut self, position: u32, length: usize) -> io::Result<&[u8]> {
        let left = (self.size - position) as usize;
        let length = length.min(left);
        let mut offset = (position - self.start) as usize;
        if offset + length > self.bytes.len() {
            let skipped = offset.saturating_sub(self.bytes.len()) as u64;
            self.bytes.drain(..offset.min(self.bytes.len()));
            if io::copy(&mut self.input.take(skipped), &mut io::sink())? < skipped {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (self.start, offset) = (position, 0);
            let have = self.bytes.len();
            self.bytes.resize(length.max(CHUNK_BYTES).min(left), 0);
            self.input.read_exact(&mut self.bytes[have..])?;
        }
        Ok(&self.bytes[offset..offset + length])
    }
}
