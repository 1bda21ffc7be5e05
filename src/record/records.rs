//! The records inside a batch, read one after another, compressed or not.
//!
//! ```text
//!  record:  length varint | attributes i8 (unused) | timestamp delta varlong | offset delta varint
//!           | key length varint (negative: null) | key | value length varint (negative: null) | value
//!           | header count varint | headers
//!  header:  key length varint | key | value length varint (negative: null) | value
//! ```
//! *length* counts the bytes after itself. Varints are zig-zag encoded, at most 5 bytes (varlong: 10).
//!
//! An uncompressed batch is read in place. A compressed one is decompressed piece by piece, so memory follows the largest
//! record that is really there (and only a chunk when records are merely checked), never a length that bytes declare.

use thiserror::Error;

use super::batch::{BatchHeader, Codec};
use super::compression::{CompressionError, Decompressor, return_chunk, take_chunk};
use crate::base::config::topic::TimestampType;
use crate::base::ids::Offset;
use crate::base::limits::{DECOMPRESS_CHUNK_BYTES, DECOMPRESSED_BATCH_BYTES_MAX};

/// Bytes of the longest varint and varlong.
const VARINT_BYTES_MAX: usize = 5;
const VARLONG_BYTES_MAX: usize = 10;

/// More than a batch can be decompressed to, so that its end is always seen.
const BUFFER_BYTES_MAX: usize = DECOMPRESSED_BATCH_BYTES_MAX + DECOMPRESS_CHUNK_BYTES;

/// Why a batch's records cannot be read. Positions are record indexes within the batch, from 0.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordsError {
    #[error("the buffer holds {have} of the batch's {expected} bytes")]
    Incomplete { expected: usize, have: usize },
    #[error("compression codec {found} does not exist")]
    UnknownCodec { found: u8 },
    #[error("record count {found} is negative")]
    NegativeCount { found: i32 },
    #[error(transparent)]
    Compression(#[from] CompressionError),
    #[error("the batch ends within record {index} of {count}")]
    Ended { index: i32, count: i32 },
    #[error("bytes remain after the batch's {count} records")]
    Trailing { count: i32 },
    #[error("record {index} is malformed: {fault}")]
    Malformed { index: i32, fault: RecordFault },
}

/// What is wrong within one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    #[error("a variable-length integer does not end")]
    Varint,
    #[error("its length {found} is negative")]
    NegativeLength { found: i32 },
    #[error("a field reaches beyond its length")]
    Overrun,
    #[error("header count {found} cannot be right")]
    HeaderCount { found: i32 },
    #[error("a header's key has length {found}")]
    HeaderKey { found: i32 },
    #[error("{left} bytes of its length are not used")]
    Unused { left: usize },
}

/// One record, borrowed from the batch or from the reader's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'r> {
    pub offset: Offset,
    /// Milliseconds since 1970; the batch's maximum where the broker sets timestamps (LogAppendTime).
    pub timestamp: i64,
    pub key: Option<&'r [u8]>,
    /// None: a null value, which compaction takes for a deletion.
    pub value: Option<&'r [u8]>,
    pub headers: Headers<'r>,
}

/// A record's headers in their order; keys may repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'r> {
    count: usize,
    bytes: &'r [u8],
}

/// A header: keys are UTF-8 by convention, which nobody checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'r> {
    pub key: &'r [u8],
    pub value: Option<&'r [u8]>,
}

impl<'r> Headers<'r> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = Header<'r>> + use<'r> {
        let mut fields = Fields { bytes: self.bytes };
        (0..self.count).map(move |_| fields.header().expect("checked when the record was decoded"))
    }
}

/// What checks need of a record: its lengths instead of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordShape {
    pub timestamp: i64,
    pub offset_delta: i32,
    /// Negative: null.
    pub key_length: i32,
    /// Negative: null.
    pub value_length: i32,
}

/// Reader of a batch's records: call [`next`](Self::next) (or [`next_shape`](Self::next_shape)) until it gives None.
///
/// After the last record the reader checks that nothing follows. After an error it must not be used further.
pub struct Records<'a> {
    base_offset: Offset,
    base_timestamp: i64,
    log_append_time: Option<i64>,
    count: i32,
    index: i32,
    source: Source<'a>,
}

impl<'a> Records<'a> {
    /// Reads `batch`, which begins with the batch that `header` was parsed from. The CRC is not looked at.
    /// At most `DECOMPRESSED_BATCH_BYTES_MAX` bytes are taken from a compressed batch.
    pub fn new(header: &BatchHeader, batch: &'a [u8]) -> Result<Records<'a>, RecordsError> {
        let expected = header.total_len();
        let Some(body) = batch.get(BatchHeader::LEN..expected) else {
            return Err(RecordsError::Incomplete { expected, have: batch.len() });
        };
        let codec = header.codec().ok_or(RecordsError::UnknownCodec { found: header.codec_id() })?;
        if header.record_count < 0 {
            return Err(RecordsError::NegativeCount { found: header.record_count });
        }
        let source = match codec {
            Codec::None => Source::Plain(body),
            // Compaction leaves empty batches behind, whose codec bits stay.
            _ if header.record_count == 0 => Source::Plain(&[]),
            _ => Source::Stream(Stream::new(Decompressor::new(codec, body, DECOMPRESSED_BATCH_BYTES_MAX)?)),
        };
        Ok(Records {
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            log_append_time: (header.timestamp_type() == TimestampType::LogAppendTime).then_some(header.max_timestamp),
            count: header.record_count,
            index: 0,
            source,
        })
    }

    /// The next record, or None after the last. Not an `Iterator`, since a record of a compressed batch lives only until
    /// the following call.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, RecordsError> {
        let Some(index) = self.begin()? else {
            return Ok(None);
        };
        let body = match &mut self.source {
            Source::Plain(rest) => take_body(rest),
            Source::Stream(stream) => stream.take_body(),
        };
        let raw = body.and_then(decode).map_err(|fault| fault.at(index, self.count))?;
        Ok(Some(Record {
            offset: Offset(self.base_offset.0.wrapping_add(i64::from(raw.offset_delta))),
            timestamp: self.log_append_time.unwrap_or(self.base_timestamp.wrapping_add(raw.timestamp_delta)),
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
        }))
    }

    /// Like [`next`](Self::next), but a compressed record beyond a chunk's size is skipped over instead of held.
    pub fn next_shape(&mut self) -> Result<Option<RecordShape>, RecordsError> {
        let Some(index) = self.begin()? else {
            return Ok(None);
        };
        let raw = match &mut self.source {
            Source::Plain(rest) => take_body(rest).and_then(decode).map(|raw| raw.shape()),
            Source::Stream(stream) => stream.take_shape(),
        };
        let raw = raw.map_err(|fault| fault.at(index, self.count))?;
        Ok(Some(RecordShape {
            timestamp: self.log_append_time.unwrap_or(self.base_timestamp.wrapping_add(raw.timestamp_delta)),
            offset_delta: raw.offset_delta,
            key_length: raw.key_length,
            value_length: raw.value_length,
        }))
    }

    /// The index of the record to read now; None after the last, once it is sure that nothing follows.
    fn begin(&mut self) -> Result<Option<i32>, RecordsError> {
        if self.index < self.count {
            self.index += 1;
            return Ok(Some(self.index - 1));
        }
        let ended = self.count == 0
            || match &mut self.source {
                Source::Plain(rest) => rest.is_empty(),
                Source::Stream(stream) => !stream.fill(1)?,
            };
        if ended { Ok(None) } else { Err(RecordsError::Trailing { count: self.count }) }
    }
}

/// The first record at or after `timestamp` whose offset is at least `from`, with its timestamp: what ListOffsets by time
/// answers once the batch is found (Kafka: the first batch whose max timestamp reaches it).
pub fn first_at_or_after(
    header: &BatchHeader,
    batch: &[u8],
    timestamp: i64,
    from: Offset,
) -> Result<Option<(i64, Offset)>, RecordsError> {
    let mut records = Records::new(header, batch)?;
    while let Some(record) = records.next_shape()? {
        let offset = Offset(header.base_offset.0.wrapping_add(i64::from(record.offset_delta)));
        if record.timestamp >= timestamp && offset >= from {
            return Ok(Some((record.timestamp, offset)));
        }
    }
    Ok(None)
}

/// The greatest timestamp of the batch's records from `from` on, and the first record that bears it: what ListOffsets answers for max
/// timestamp (KIP-734). The time index only knows the batch's last offset.
pub fn greatest_from(header: &BatchHeader, batch: &[u8], from: Offset) -> Result<Option<(i64, Offset)>, RecordsError> {
    let mut records = Records::new(header, batch)?;
    let mut greatest: Option<(i64, Offset)> = None;
    while let Some(record) = records.next_shape()? {
        let offset = Offset(header.base_offset.0.wrapping_add(i64::from(record.offset_delta)));
        if offset >= from && greatest.is_none_or(|(max, _)| record.timestamp > max) {
            greatest = Some((record.timestamp, offset));
        }
    }
    Ok(greatest)
}

/// A failure that does not know its record's index yet.
pub(super) enum Fault {
    Ended,
    Record(RecordFault),
    Compression(CompressionError),
}

impl Fault {
    pub(super) fn at(self, index: i32, count: i32) -> RecordsError {
        match self {
            Fault::Ended => RecordsError::Ended { index, count },
            Fault::Record(fault) => RecordsError::Malformed { index, fault },
            Fault::Compression(error) => RecordsError::Compression(error),
        }
    }
}

impl From<RecordFault> for Fault {
    fn from(fault: RecordFault) -> Fault {
        Fault::Record(fault)
    }
}

impl From<CompressionError> for Fault {
    fn from(error: CompressionError) -> Fault {
        Fault::Compression(error)
    }
}

enum Source<'a> {
    Plain(&'a [u8]),
    Stream(Stream<'a>),
}

/// A record's fields, not yet related to its batch.
pub(super) struct Raw<'r> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'r [u8]>,
    pub(super) value: Option<&'r [u8]>,
    headers: Headers<'r>,
}

struct RawShape {
    timestamp_delta: i64,
    offset_delta: i32,
    key_length: i32,
    value_length: i32,
}

impl Raw<'_> {
    fn shape(&self) -> RawShape {
        let length = |field: Option<&[u8]>| field.map_or(-1, |bytes| bytes.len() as i32);
        RawShape {
            timestamp_delta: self.timestamp_delta,
            offset_delta: self.offset_delta,
            key_length: length(self.key),
            value_length: length(self.value),
        }
    }
}

/// Splits the next record's body, the bytes after its length, off `rest`.
pub(super) fn take_body<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let (length, used) = read_varint(rest)?.ok_or(Fault::Ended)?;
    let length = usize::try_from(length).map_err(|_| RecordFault::NegativeLength { found: length })?;
    let (body, after) = rest[used..].split_at_checked(length).ok_or(Fault::Ended)?;
    *rest = after;
    Ok(body)
}

pub(super) fn decode(body: &[u8]) -> Result<Raw<'_>, Fault> {
    let mut fields = Fields { bytes: body };
    fields.skip_attributes()?;
    let timestamp_delta = fields.varlong()?;
    let offset_delta = fields.varint()?;
    let key = fields.nullable()?;
    let value = fields.nullable()?;
    let found = fields.varint()?;
    let count = match usize::try_from(found) {
        Ok(count) if count <= fields.bytes.len() => count,
        _ => return Err(RecordFault::HeaderCount { found }.into()),
    };
    let headers = Headers { count, bytes: fields.bytes };
    for _ in 0..count {
        fields.header()?;
    }
    match fields.bytes.len() {
        0 => Ok(Raw { timestamp_delta, offset_delta, key, value, headers }),
        left => Err(RecordFault::Unused { left }.into()),
    }
}

/// The fields of one record, taken from the front.
struct Fields<'r> {
    bytes: &'r [u8],
}

impl<'r> Fields<'r> {
    fn skip_attributes(&mut self) -> Result<(), RecordFault> {
        self.bytes = self.bytes.get(1..).ok_or(RecordFault::Overrun)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<i32, RecordFault> {
        let (value, used) = read_varint(self.bytes)?.ok_or(RecordFault::Overrun)?;
        self.bytes = &self.bytes[used..];
        Ok(value)
    }

    fn varlong(&mut self) -> Result<i64, RecordFault> {
        let (value, used) = read_varlong(self.bytes)?.ok_or(RecordFault::Overrun)?;
        self.bytes = &self.bytes[used..];
        Ok(value)
    }

    /// Any negative length stands for null, as in Kafka.
    fn nullable(&mut self) -> Result<Option<&'r [u8]>, RecordFault> {
        let Ok(length) = usize::try_from(self.varint()?) else {
            return Ok(None);
        };
        let (field, rest) = self.bytes.split_at_checked(length).ok_or(RecordFault::Overrun)?;
        self.bytes = rest;
        Ok(Some(field))
    }

    fn header(&mut self) -> Result<Header<'r>, RecordFault> {
        let found = self.varint()?;
        let length = usize::try_from(found).map_err(|_| RecordFault::HeaderKey { found })?;
        let (key, rest) = self.bytes.split_at_checked(length).ok_or(RecordFault::Overrun)?;
        self.bytes = rest;
        Ok(Header { key, value: self.nullable()? })
    }
}

/// Appends a zig-zag varint.
pub(super) fn write_varint(to: &mut Vec<u8>, value: i32) {
    // Zig-zag puts the sign last, so the 64-bit form of the same number has the same bytes.
    write_varlong(to, i64::from(value));
}

pub(super) fn write_varlong(to: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        to.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    to.push(raw as u8);
}

/// A field's value and the bytes it takes; None when the bytes end within it.
pub(super) type ReadField<T> = Result<Option<(T, usize)>, RecordFault>;

/// The zig-zag varint at the front.
#[inline]
fn read_varint(bytes: &[u8]) -> ReadField<i32> {
    let mut raw = 0_u32;
    for (at, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        // Of the fifth byte only four bits count; Kafka ignores the others too.
        raw |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(((raw >> 1) as i32 ^ -((raw & 1) as i32), at + 1)));
        }
    }
    if bytes.len() < VARINT_BYTES_MAX { Ok(None) } else { Err(RecordFault::Varint) }
}

/// As [`read_varint`], for 64 bits.
#[inline]
pub(super) fn read_varlong(bytes: &[u8]) -> ReadField<i64> {
    let mut raw = 0_u64;
    for (at, &byte) in bytes.iter().take(VARLONG_BYTES_MAX).enumerate() {
        raw |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(((raw >> 1) as i64 ^ -((raw & 1) as i64), at + 1)));
        }
    }
    if bytes.len() < VARLONG_BYTES_MAX { Ok(None) } else { Err(RecordFault::Varint) }
}

/// Decompressed bytes that wait to be read: `buffer[start..end]`.
struct Stream<'a> {
    from: Decompressor<'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> Stream<'a> {
    fn new(from: Decompressor<'a>) -> Stream<'a> {
        Stream { from, buffer: take_chunk(), start: 0, end: 0 }
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Makes `need` bytes wait; false when the stream ends before. The buffer at most doubles as bytes really arrive.
    fn fill(&mut self, need: usize) -> Result<bool, CompressionError> {
        while self.end - self.start < need {
            if self.end == self.buffer.len() || self.start == self.end {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.end == self.buffer.len() {
                self.buffer.resize((self.buffer.len() * 2).min(BUFFER_BYTES_MAX), 0);
            }
            match self.from.read(&mut self.buffer[self.end..])? {
                0 => return Ok(false),
                read => self.end += read,
            }
        }
        Ok(true)
    }

    /// The next record's length. Its bytes have not been waited for.
    fn take_length(&mut self) -> Result<usize, Fault> {
        let length = self.take_varint()?.ok_or(Fault::Ended)?;
        usize::try_from(length).map_err(|_| RecordFault::NegativeLength { found: length }.into())
    }

    fn take_body(&mut self) -> Result<&[u8], Fault> {
        let length = self.take_length()?;
        if !self.fill(length)? {
            return Err(Fault::Ended);
        }
        self.start += length;
        Ok(&self.buffer[self.start - length..self.start])
    }

    fn take_shape(&mut self) -> Result<RawShape, Fault> {
        let length = self.take_length()?;
        if length > self.buffer.len() {
            return self.skip_record(length);
        }
        if !self.fill(length)? {
            return Err(Fault::Ended);
        }
        self.start += length;
        Ok(decode(&self.buffer[self.start - length..self.start])?.shape())
    }

    /// Goes through a record that is larger than the buffer, with the checks that [`decode`] does.
    fn skip_record(&mut self, mut left: usize) -> Result<RawShape, Fault> {
        self.skip(1, &mut left)?;
        let timestamp_delta = self.field(read_varlong, VARLONG_BYTES_MAX, &mut left)?;
        let offset_delta = self.field(read_varint, VARINT_BYTES_MAX, &mut left)?;
        let key_length = self.field(read_varint, VARINT_BYTES_MAX, &mut left)?;
        self.skip(key_length, &mut left)?;
        let value_length = self.field(read_varint, VARINT_BYTES_MAX, &mut left)?;
        self.skip(value_length, &mut left)?;
        let headers = self.field(read_varint, VARINT_BYTES_MAX, &mut left)?;
        if usize::try_from(headers).is_ok_and(|count| count <= left) {
            for _ in 0..headers {
                let found = self.field(read_varint, VARINT_BYTES_MAX, &mut left)?;
                if found < 0 {
                    return Err(RecordFault::HeaderKey { found }.into());
                }
                self.skip(found, &mut left)?;
                let value = self.field(read_varint, VARINT_BYTES_MAX, &mut left)?;
                self.skip(value, &mut left)?;
            }
        } else {
            return Err(RecordFault::HeaderCount { found: headers }.into());
        }
        match left {
            0 => Ok(RawShape { timestamp_delta, offset_delta, key_length, value_length }),
            left => Err(RecordFault::Unused { left }.into()),
        }
    }

    fn take_varint(&mut self) -> Result<Option<i32>, Fault> {
        // Fewer bytes may do, so the end of the stream is no fault yet.
        if self.end - self.start < VARINT_BYTES_MAX {
            self.fill(VARINT_BYTES_MAX)?;
        }
        let Some((value, used)) = read_varint(self.waiting())? else {
            return Ok(None);
        };
        self.start += used;
        Ok(Some(value))
    }

    /// A variable-length field of a record that has `left` bytes left.
    fn field<T>(&mut self, read: fn(&[u8]) -> ReadField<T>, bytes_max: usize, left: &mut usize) -> Result<T, Fault> {
        self.fill(bytes_max)?;
        let (value, used) = read(self.waiting())?.ok_or(Fault::Ended)?;
        *left = left.checked_sub(used).ok_or(RecordFault::Overrun)?;
        self.start += used;
        Ok(value)
    }

    /// Passes over a field's bytes; a null one (negative) has none.
    fn skip(&mut self, length: i32, left: &mut usize) -> Result<(), Fault> {
        let Ok(mut length) = usize::try_from(length) else {
            return Ok(());
        };
        *left = left.checked_sub(length).ok_or(RecordFault::Overrun)?;
        while length > 0 {
            if !self.fill(1)? {
                return Err(Fault::Ended);
            }
            let now = length.min(self.end - self.start);
            self.start += now;
            length -= now;
        }
        Ok(())
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        return_chunk(std::mem::take(&mut self.buffer));
    }
}
