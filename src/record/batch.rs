//! The header of a v2 record batch, and the walk over consecutive batches in a buffer.
//!
//! A batch is the unit of a log: it is written, replicated, checked and served whole (KIP-98). Integers are big-endian.
//!
//! ```text
//!  byte  0                   8             12            16    17          21
//!       +-------------------+-------------+-------------+-----+-----------+
//!       | base offset   i64 | length  i32 | leader      | mag | CRC-32C   |
//!       |                   |             | epoch   i32 | ic  |       u32 |
//!       +-------------------+-------------+-------------+-----+-----------+
//!       '---------------- prefix, 16 bytes --------------'
//!
//!       21            23            27                  35
//!       +-------------+-------------+-------------------+-------------------+
//!       | attributes  | last offset | base          i64 | max           i64 |
//!       |         i16 | delta   i32 | timestamp, ms     | timestamp, ms     |
//!       +-------------+-------------+-------------------+-------------------+
//!
//!       43                  51          53              57            61
//!       +-------------------+-----------+---------------+-------------+-----------
//!       | producer id   i64 | producer  | base          | record      | records
//!       |                   | epoch i16 | sequence  i32 | count   i32 | (maybe compressed)
//!       +-------------------+-----------+---------------+-------------+-----------
//! ```
//!
//! - *length* counts the bytes after itself, so the batch takes `length + 12` bytes.
//! - *CRC-32C* covers byte 21 to the end. The prefix lies outside, so the leader may assign an offset and an epoch
//!   without reading the records.
//! - *attributes*: bits 0-2 codec, 3 timestamp type (1: log append time), 4 transactional, 5 control batch,
//!   6 the base timestamp is a delete horizon (KIP-534); the rest is unused.

use crc_fast::CrcAlgorithm;
use thiserror::Error;

use crate::base::config::topic::TimestampType;
use crate::base::ids::{LeaderEpoch, Offset};

/// Bytes of a batch's header: what [`BatchHeader::parse`] needs.
pub const HEADER_LEN: usize = BatchHeader::LEN;

/// Bytes of the header's first part, which the CRC does not cover and the leader rewrites.
pub const PREFIX_LEN: usize = 16;

/// Bytes of base offset and length: what must be known to tell how long a batch is, and what *length* leaves out.
pub const LOG_OVERHEAD: usize = 12;

/// The only message format that is served (v2); formats v0 and v1 are refused.
pub const MAGIC_V2: i8 = 2;

/// "No timestamp": Kafka's -1.
pub const NO_TIMESTAMP: i64 = -1;

/// "No producer id", "no epoch" and "no sequence": a batch whose producer is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_PRODUCER_EPOCH: i16 = -1;
pub const NO_SEQUENCE: i32 = -1;

pub(crate) const CRC_AT: usize = 17;
pub(crate) const ATTRIBUTES_AT: usize = 21;
pub(crate) const MAX_TIMESTAMP_AT: usize = 35;

const CODEC_MASK: i16 = 0x07;
pub(crate) const LOG_APPEND_TIME_BIT: i16 = 0x08;
pub(crate) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(crate) const CONTROL_BIT: i16 = 0x20;
pub(crate) const DELETE_HORIZON_BIT: i16 = 0x40;

/// The least *length* that a v2 batch can declare: a header and no record.
const LENGTH_MIN: i32 = (BatchHeader::LEN - LOG_OVERHEAD) as i32;

/// The least *length* of any message format: v0's CRC, magic, attributes and two lengths.
pub(crate) const LENGTH_MIN_OF_ANY_FORMAT: i32 = 14;

/// Why bytes are not a batch of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    #[error("a batch header takes {} bytes, only {have} are there", BatchHeader::LEN)]
    Short { have: usize },
    #[error("batch length {found} is below the least possible, {LENGTH_MIN}")]
    Length { found: i32 },
    #[error("magic {found} is not served: only message format v2 (magic 2) is")]
    Magic { found: i8 },
}

/// How a batch's records are compressed (attribute bits 0-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    /// KIP-110; only with Produce 7 and Fetch 10 or later.
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec of an attribute's low three bits; None for the unassigned ids 5 to 7.
    pub fn from_id(id: u8) -> Option<Codec> {
        Codec::ALL.get(usize::from(id)).copied()
    }

    pub fn id(self) -> u8 {
        self as u8
    }

    /// Kafka's name of it, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

/// A batch's header as it lies in the log; the module's diagram tells what each field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes after this field; at least 49 in a header that was parsed.
    pub batch_length: i32,
    /// -1 in what a client sends.
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    /// The last record's offset less the base offset; kept by compaction even when that record is gone.
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Bytes of a header.
    pub const LEN: usize = 61;

    /// Reads the header at the start of `bytes`, which may be longer or shorter than the batch.
    ///
    /// Checked are the length's lower bound and the magic, nothing else: counts, deltas and the CRC are the caller's
    /// ([`crc_matches`](Self::crc_matches), `admission::admit`).
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(header) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Err(BatchError::Short { have: bytes.len() });
        };
        let parsed = BatchHeader {
            base_offset: Offset(i64::from_be_bytes(field::<0, 8>(header))),
            batch_length: i32::from_be_bytes(field::<8, 4>(header)),
            partition_leader_epoch: i32::from_be_bytes(field::<12, 4>(header)),
            magic: i8::from_be_bytes(field::<16, 1>(header)),
            crc: u32::from_be_bytes(field::<CRC_AT, 4>(header)),
            attributes: i16::from_be_bytes(field::<ATTRIBUTES_AT, 2>(header)),
            last_offset_delta: i32::from_be_bytes(field::<23, 4>(header)),
            base_timestamp: i64::from_be_bytes(field::<27, 8>(header)),
            max_timestamp: i64::from_be_bytes(field::<MAX_TIMESTAMP_AT, 8>(header)),
            producer_id: i64::from_be_bytes(field::<43, 8>(header)),
            producer_epoch: i16::from_be_bytes(field::<51, 2>(header)),
            base_sequence: i32::from_be_bytes(field::<53, 4>(header)),
            record_count: i32::from_be_bytes(field::<57, 4>(header)),
        };
        check_length_and_magic(parsed.batch_length, parsed.magic)?;
        Ok(parsed)
    }

    /// Writes every field as it stands, the CRC included; the inverse of [`parse`](Self::parse).
    pub fn write(&self, to: &mut [u8; Self::LEN]) {
        put(to, 0, self.base_offset.0.to_be_bytes());
        put(to, 8, self.batch_length.to_be_bytes());
        put(to, 12, self.partition_leader_epoch.to_be_bytes());
        put(to, 16, self.magic.to_be_bytes());
        put(to, CRC_AT, self.crc.to_be_bytes());
        put(to, ATTRIBUTES_AT, self.attributes.to_be_bytes());
        put(to, 23, self.last_offset_delta.to_be_bytes());
        put(to, 27, self.base_timestamp.to_be_bytes());
        put(to, MAX_TIMESTAMP_AT, self.max_timestamp.to_be_bytes());
        put(to, 43, self.producer_id.to_be_bytes());
        put(to, 51, self.producer_epoch.to_be_bytes());
        put(to, 53, self.base_sequence.to_be_bytes());
        put(to, 57, self.record_count.to_be_bytes());
    }

    /// Bytes of the whole batch, header included. Can exceed any sane message: compare with a limit before use.
    pub fn total_len(&self) -> usize {
        LOG_OVERHEAD + usize::try_from(self.batch_length).expect("parse refuses a negative length")
    }

    /// None: an id that names no codec.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_id((self.attributes & CODEC_MASK) as u8)
    }

    /// The attribute's low three bits, whether or not they name a codec.
    pub fn codec_id(&self) -> u8 {
        (self.attributes & CODEC_MASK) as u8
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Markers that a coordinator writes (commit, abort); never sent by a client.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// The base timestamp holds the time from which tombstones may go (KIP-534), not a record's time.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    /// The batch belongs to an idempotent producer (Kafka: any id above -1).
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// The offset of the batch's last record, present or compacted away.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.wrapping_add(i64::from(self.last_offset_delta)))
    }

    /// The offset that follows the batch.
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.wrapping_add(1))
    }

    /// The last record's sequence number: sequences wrap from i32::MAX to 0 (KIP-98). -1 without a base sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        increment_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// Whether `batch`, this header's whole batch, still has the bytes that its CRC was computed over.
    /// False when it is shorter than the header says; bytes beyond the batch are left out.
    pub fn crc_matches(&self, batch: &[u8]) -> bool {
        match batch.get(ATTRIBUTES_AT..self.total_len()) {
            Some(covered) => crc32c(covered) == self.crc,
            None => false,
        }
    }
}

/// Writes what the leader decides into a batch's first 16 bytes. None of it is covered by the CRC.
pub fn patch_prefix(prefix: &mut [u8; PREFIX_LEN], base_offset: Offset, batch_length: i32, leader_epoch: LeaderEpoch) {
    put(prefix, 0, base_offset.0.to_be_bytes());
    put(prefix, 8, batch_length.to_be_bytes());
    put(prefix, 12, leader_epoch.0.to_be_bytes());
}

/// CRC-32C (Castagnoli), as batches and producer snapshots use it. Not the IEEE CRC-32 of our own files.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// `sequence` advanced by `by` (not negative): after i32::MAX comes 0.
pub fn increment_sequence(sequence: i32, by: i32) -> i32 {
    (sequence.wrapping_add(by)) & i32::MAX
}

/// Walks the batches that lie one after another in `bytes`, such as a piece of a segment or a fetched set.
///
/// Only headers are read; the CRC is the caller's choice ([`BatchHeader::crc_matches`]).
pub fn walk(bytes: &[u8]) -> Walk<'_> {
    Walk { bytes, at: 0, failed: false }
}

/// A whole batch inside a walked buffer.
#[derive(Clone, Copy, Debug)]
pub struct WalkedBatch<'a> {
    /// Where the batch begins in the buffer.
    pub at: usize,
    pub header: BatchHeader,
    /// The batch, exactly `header.total_len()` bytes.
    pub bytes: &'a [u8],
}

/// The buffer holds no batch at byte `at`, nor would it if more bytes followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no batch at byte {at}: {error}")]
pub struct CorruptAt {
    pub at: usize,
    pub error: BatchError,
}

/// Iterator of [`walk`]. It ends (None) where the whole batches end: [`consumed`](Self::consumed) tells where that is and
/// [`missing`](Self::missing) whether a further batch has begun there. A corrupt header is yielded once, as an error.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    failed: bool,
}

impl<'a> Walk<'a> {
    /// Bytes of the batches yielded so far: where the next batch begins.
    pub fn consumed(&self) -> usize {
        self.at
    }

    /// After the end: None when the buffer ended between two batches; otherwise how many more bytes are needed, at least,
    /// to go on. That is exactly what the batch lacks once its length is known. Compare with a limit before allocating.
    pub fn missing(&self) -> Option<usize> {
        let rest = self.bytes.get(self.at..)?;
        if rest.is_empty() || self.failed {
            return None;
        }
        match declared_len(rest) {
            Some(len) => len.max(BatchHeader::LEN).checked_sub(rest.len()).filter(|&more| more > 0),
            None => Some(LOG_OVERHEAD - rest.len()),
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<WalkedBatch<'a>, CorruptAt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let rest = self.bytes.get(self.at..)?;
        let at = self.at;
        let header = match BatchHeader::parse(rest) {
            Ok(header) => header,
            Err(error) => {
                // A header that is cut short can already be known to be wrong.
                let error = match error {
                    BatchError::Short { .. } => check_cut_header(rest).err()?,
                    known => known,
                };
                self.failed = true;
                return Some(Err(CorruptAt { at, error }));
            }
        };
        let bytes = rest.get(..header.total_len())?;
        self.at += bytes.len();
        Some(Ok(WalkedBatch { at, header, bytes }))
    }
}

/// What `bytes` say about how long their batch is; None when too few are there.
fn declared_len(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_be_bytes(*bytes.get(8..)?.first_chunk()?);
    Some(LOG_OVERHEAD + usize::try_from(length).unwrap_or(0))
}

/// What of a cut header is there already.
fn check_cut_header(bytes: &[u8]) -> Result<(), BatchError> {
    let length = bytes.get(8..).and_then(|b| b.first_chunk()).map(|b| i32::from_be_bytes(*b));
    let Some(length) = length else {
        return Ok(());
    };
    match bytes.get(16) {
        Some(&magic) => check_length_and_magic(length, magic as i8),
        None if length < LENGTH_MIN_OF_ANY_FORMAT => Err(BatchError::Length { found: length }),
        None => Ok(()),
    }
}

/// Zeros are no batch of an old format, but formats v0 and v1 have shorter lengths than ours.
fn check_length_and_magic(length: i32, magic: i8) -> Result<(), BatchError> {
    if length < LENGTH_MIN_OF_ANY_FORMAT {
        return Err(BatchError::Length { found: length });
    }
    if magic != MAGIC_V2 {
        return Err(BatchError::Magic { found: magic });
    }
    if length < LENGTH_MIN {
        return Err(BatchError::Length { found: length });
    }
    Ok(())
}

fn field<const AT: usize, const N: usize>(header: &[u8; BatchHeader::LEN]) -> [u8; N] {
    const { assert!(AT + N <= BatchHeader::LEN) };
    *header[AT..].first_chunk().expect("the field lies within the header, as asserted above")
}

fn put<const N: usize>(to: &mut [u8], at: usize, bytes: [u8; N]) {
    to[at..at + N].copy_from_slice(&bytes);
}
