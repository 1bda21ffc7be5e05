//! What a leader checks before it appends a client's batch, and what it rewrites.
//!
//! The clauses are Kafka 3.9's: `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords` and
//! `LogValidator`, in that order, so that a batch with several faults is refused for the same one.
//! Where we differ:
//! - Records whose offset deltas are not 0, 1, 2, … are refused (INVALID_RECORD). Kafka appends them uncompressed and
//!   fails on them compressed; consumers could not use them.
//! - A compressed record's own length is checked even where Kafka only skips through it.
//! - A batch that decompresses beyond `DECOMPRESSED_BATCH_BYTES_MAX` is refused (MESSAGE_TOO_LARGE): producers split it.
//! - At most `RECORD_ERRORS_MAX` record errors are listed; all are counted.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use thiserror::Error;

use super::batch::{
    ATTRIBUTES_AT, BatchHeader, CRC_AT, Codec, LENGTH_MIN_OF_ANY_FORMAT, LOG_APPEND_TIME_BIT, LOG_OVERHEAD, MAGIC_V2,
    MAX_TIMESTAMP_AT, NO_TIMESTAMP, crc32c,
};
use super::compression::{Compression, CompressionError, Decompressor, Encoder};
use super::records::{RecordShape, Records, RecordsError};
use crate::base::config::topic::{CompressionType, TimestampType, TopicConfig};
use crate::base::ids::{Offset, PartitionIndex};
use crate::base::limits::{DECOMPRESS_CHUNK_BYTES, DECOMPRESSED_BATCH_BYTES_MAX, RECORD_ERRORS_MAX};

/// Under which rules a batch comes in.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionRules<'a> {
    /// Named in the messages that clients get.
    pub topic: &'a str,
    pub partition: PartitionIndex,
    pub config: &'a TopicConfig,
    /// Version of the Produce request: zstd needs 7 (KIP-110).
    pub produce_version: i16,
    /// True, as in Kafka: every record is looked into. Measured on one core: about 10-15 ns a record if uncompressed;
    /// compressed, decompressing costs about 0.7-1.9 µs a kilobyte (and 6 µs a batch for gzip, 2 for zstd, 1 for lz4).
    /// False: records are looked into only where the topic's settings need it (compaction, timestamp bounds,
    /// recompression), and the header's max timestamp is believed.
    pub validate_records: bool,
}

/// A batch that may be appended, once base offset and leader epoch are set ([`patch_prefix`](super::batch::patch_prefix)).
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The header of `bytes`; the base offset is still 0, as clients send it.
    pub header: BatchHeader,
    /// Exactly one batch: a slice of the request, or a new buffer if `rewritten`.
    pub bytes: Bytes,
    /// The largest timestamp of the records, -1 if none has one; the append time under LogAppendTime. Goes to the time
    /// index together with [`offset_of_max_timestamp`](Self::offset_of_max_timestamp).
    pub max_timestamp: i64,
    /// The answer's `log_append_time_ms`: -1 under CreateTime.
    pub log_append_time_ms: i64,
    pub rewritten: bool,
}

impl Admitted {
    /// The offset that the time index gets beside `max_timestamp`: the batch's last one, since followers and recovery do
    /// not look into batches (Kafka 3.9: `shallowOffsetOfMaxTimestamp`). The exact record is found when it is asked for:
    /// `records::greatest_from`.
    pub fn offset_of_max_timestamp(&self, base_offset: Offset) -> Offset {
        base_offset + i64::from(self.header.last_offset_delta)
    }
}

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct AdmissionError {
    pub code: ResponseError,
    /// For our own log; what the client gets is [`error_message`](Self::error_message).
    pub message: String,
    pub record_errors: Vec<RecordError>,
    pub scope: Scope,
}

/// A record at fault (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// The record's index in its batch, from 0.
    pub batch_index: i32,
    pub message: String,
}

/// At which step Kafka notices the fault, which decides how its answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// While the request is read: every partition of the request gets this error.
    Request,
    /// Before leadership is looked at: only this partition, no log start offset.
    Partition,
    /// While the batch is taken in, for its size or its CRC: only this partition, no log start offset.
    Batch,
    /// In the log: the answer tells the log start offset.
    Log,
}

impl AdmissionError {
    /// The answer's `error_message`, where Kafka gives one: only for faults of single records or of the whole request.
    pub fn error_message(&self) -> Option<&str> {
        let told = !self.record_errors.is_empty()
            || self.scope == Scope::Request && self.code != ResponseError::UnknownServerError;
        told.then_some(self.message.as_str())
    }

    /// Whether the answer tells the partition's log start offset; otherwise -1.
    pub fn tells_log_start_offset(&self) -> bool {
        self.scope == Scope::Log
    }

    fn new(code: ResponseError, scope: Scope, message: impl Into<String>) -> AdmissionError {
        AdmissionError { code, message: message.into(), record_errors: Vec::new(), scope }
    }
}

/// Checks everything that can be known before the partition is: exactly one v2 batch, of a codec that the request's
/// version may carry. Kafka does this for all partitions before it looks at leadership; [`admit`] does it again.
pub fn check_request(records: &[u8], produce_version: i16) -> Result<BatchHeader, AdmissionError> {
    use ResponseError::{CorruptMessage, InvalidRecord, UnknownServerError, UnsupportedCompressionType};
    use Scope::{Partition, Request};

    let frame = next_frame(records).map_err(|message| AdmissionError::new(CorruptMessage, Request, message))?;
    let Some((len, magic)) = frame else {
        return Err(AdmissionError::new(
            InvalidRecord,
            Partition,
            "the request has no whole record batch for the partition",
        ));
    };
    if magic != MAGIC_V2 {
        let message = format!("record batch of message format v{magic}: only v2 (magic 2) is served");
        return Err(AdmissionError::new(InvalidRecord, Partition, message));
    }
    let header = BatchHeader::parse(&records[..len]).map_err(|error| {
        AdmissionError::new(CorruptMessage, Scope::Batch, format!("the record batch's header is cut: {error}"))
    })?;
    if produce_version < 7 {
        let message = |what: &str| format!("{what} with Produce version {produce_version}");
        match header.codec() {
            Some(Codec::Zstd) => {
                return Err(AdmissionError::new(UnsupportedCompressionType, Partition, message("zstd is not allowed")));
            }
            None => return Err(AdmissionError::new(UnknownServerError, Request, message("unknown compression codec"))),
            Some(_) => {}
        }
    }
    match next_frame(&records[len..]) {
        Ok(None) => Ok(header),
        Ok(Some(_)) => Err(AdmissionError::new(
            InvalidRecord,
            Partition,
            "the request has more than one record batch for the partition",
        )),
        Err(message) => Err(AdmissionError::new(CorruptMessage, Partition, message)),
    }
}

/// Checks one partition's `records` of a Produce request and brings them into the form in which the topic keeps them.
///
/// `now_ms` is the wall clock, in milliseconds since 1970. Transactional batches pass (`header.is_transactional()`): whether
/// they may is the caller's to decide; clients' control batches are refused. Idempotent producers' sequences are the log's
/// business, which has their state. A batch that need not change costs no copy and, uncompressed, no allocation.
pub fn admit(records: &Bytes, rules: &AdmissionRules<'_>, now_ms: i64) -> Result<Admitted, AdmissionError> {
    let header = check_request(records, rules.produce_version)?;
    let batch = records.slice(..header.total_len());
    let codec = check_batch(&header, &batch, rules)?;
    check_fields(&header, rules)?;
    let target = target_compression(rules.config.compression_type, codec);
    let max_timestamp = if rules.validate_records || needs_scan(rules.config) || target.codec != codec {
        check_records(&header, &batch, rules, now_ms)?
    } else {
        header.max_timestamp
    };
    let timestamp_type = rules.config.message_timestamp_type;
    let max_timestamp = match timestamp_type {
        TimestampType::CreateTime => max_timestamp,
        TimestampType::LogAppendTime => now_ms,
    };
    let changed = timestamp_type != header.timestamp_type() || max_timestamp != header.max_timestamp;
    let bytes = if target.codec != codec {
        recompress(&batch, codec, target, timestamp_type, max_timestamp, rules)?
    } else if changed {
        let mut copy = batch.to_vec();
        rewrite_header(&mut copy, codec, timestamp_type, max_timestamp);
        Bytes::from(copy)
    } else {
        batch
    };
    check_segment_size(bytes.len(), rules)?;
    let rewritten = changed || target.codec != codec;
    let header =
        if rewritten { BatchHeader::parse(&bytes).expect("a rewritten batch keeps its header") } else { header };
    let log_append_time_ms = if timestamp_type == TimestampType::LogAppendTime { now_ms } else { NO_TIMESTAMP };
    Ok(Admitted { header, bytes, max_timestamp, log_append_time_ms, rewritten })
}

/// The length and magic of the batch at the front. None: not even one whole batch is there, which Kafka passes over.
fn next_frame(bytes: &[u8]) -> Result<Option<(usize, i8)>, String> {
    let Some(length) = bytes.get(8..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    // These two messages reach clients, so they are Kafka's.
    if length < LENGTH_MIN_OF_ANY_FORMAT {
        let least = LENGTH_MIN_OF_ANY_FORMAT;
        return Err(format!("Record size {length} is less than the minimum record overhead ({least})"));
    }
    let Some(&magic) = bytes.get(16) else {
        return Ok(None);
    };
    let magic = magic as i8;
    if !(0..=MAGIC_V2).contains(&magic) {
        return Err(format!("Invalid magic found in record: {magic}"));
    }
    let len = LOG_OVERHEAD + usize::try_from(length).expect("not negative, as checked above");
    Ok((len <= bytes.len()).then_some((len, magic)))
}

/// `UnifiedLog.analyzeAndValidateRecords`.
fn check_batch(header: &BatchHeader, batch: &[u8], rules: &AdmissionRules<'_>) -> Result<Codec, AdmissionError> {
    let place = Place(rules);
    if header.base_offset != Offset(0) {
        let message = format!("base offset {} in an append to {place} should be 0", header.base_offset);
        return Err(AdmissionError::new(ResponseError::InvalidRecord, Scope::Log, message));
    }
    check_size(batch.len(), rules)?;
    if !header.crc_matches(batch) {
        let message = format!("CRC {:#010x} of a batch for {place} does not match its bytes", header.crc);
        return Err(AdmissionError::new(ResponseError::CorruptMessage, Scope::Batch, message));
    }
    header.codec().ok_or_else(|| {
        // Kafka's own code for it.
        let message = format!("a batch for {place} has the unknown compression codec {}", header.codec_id());
        AdmissionError::new(ResponseError::UnknownServerError, Scope::Log, message)
    })
}

fn check_size(len: usize, rules: &AdmissionRules<'_>) -> Result<(), AdmissionError> {
    let max = rules.config.max_message_bytes;
    if len as u64 > u64::from(max) {
        let message = format!("a batch of {len} bytes for {} exceeds max.message.bytes {max}", Place(rules));
        return Err(AdmissionError::new(ResponseError::MessageTooLarge, Scope::Batch, message));
    }
    Ok(())
}

fn check_segment_size(len: usize, rules: &AdmissionRules<'_>) -> Result<(), AdmissionError> {
    let max = rules.config.segment_bytes;
    if len as u64 > u64::from(max) {
        let message = format!("a batch of {len} bytes for {} exceeds segment.bytes {max}", Place(rules));
        return Err(AdmissionError::new(ResponseError::RecordListTooLarge, Scope::Batch, message));
    }
    Ok(())
}

/// `LogValidator.validateBatch`.
fn check_fields(header: &BatchHeader, rules: &AdmissionRules<'_>) -> Result<(), AdmissionError> {
    let place = Place(rules);
    let (count, last_delta) = (i64::from(header.record_count), i64::from(header.last_offset_delta));
    let message = if last_delta < 0 {
        format!("last offset delta {last_delta} of a batch for {place} is negative")
    } else if count <= 0 {
        format!("record count {count} of a batch for {place} is not positive")
    } else if last_delta + 1 != count {
        format!("last offset delta {last_delta} of a batch for {place} does not fit its record count {count}")
    } else if header.is_control() {
        format!("a client sent a control batch to {place}")
    } else if header.has_producer_id() && header.base_sequence < 0 {
        let (id, sequence) = (header.producer_id, header.base_sequence);
        format!("base sequence {sequence} of producer {id} in a batch for {place} is negative")
    } else {
        return Ok(());
    };
    Err(AdmissionError::new(ResponseError::InvalidRecord, Scope::Log, message))
}

fn needs_scan(config: &TopicConfig) -> bool {
    config.cleanup_policy.compact
        || config.message_timestamp_type == TimestampType::CreateTime
            && (config.message_timestamp_before_max_ms != i64::MAX || config.message_timestamp_after_max_ms != i64::MAX)
}

/// Goes through the records; their largest timestamp, -1 if none has one.
fn check_records(
    header: &BatchHeader,
    batch: &[u8],
    rules: &AdmissionRules<'_>,
    now_ms: i64,
) -> Result<i64, AdmissionError> {
    let mut max_timestamp = NO_TIMESTAMP;
    let mut faults = Faults::default();
    let mut records = Records::new(header, batch).map_err(|error| unreadable(error, rules))?;
    let mut index = 0;
    while let Some(record) = records.next_shape().map_err(|error| unreadable(error, rules))? {
        max_timestamp = max_timestamp.max(record.timestamp);
        if let Err((code, message)) = check_record(header, index, &record, rules, now_ms) {
            faults.add(code, index, message);
        }
        index += 1;
    }
    faults.into_result()?;
    Ok(max_timestamp)
}

/// `LogValidator.validateRecord`, and the offset delta. These messages reach clients, so Kafka's are worded as Kafka's.
fn check_record(
    header: &BatchHeader,
    index: i32,
    record: &RecordShape,
    rules: &AdmissionRules<'_>,
    now_ms: i64,
) -> Result<(), (ResponseError, String)> {
    let config = rules.config;
    if config.cleanup_policy.compact && record.key_length < 0 {
        let message = format!("Compacted topic cannot accept message without key in topic partition {}", Place(rules));
        return Err((ResponseError::InvalidRecord, message));
    }
    if record.offset_delta != index {
        let delta = record.offset_delta;
        let message =
            format!("Offset delta {delta} of record {index} in topic partition {} should be {index}", Place(rules));
        return Err((ResponseError::InvalidRecord, message));
    }
    let (before, after) = (config.message_timestamp_before_max_ms, config.message_timestamp_after_max_ms);
    if config.message_timestamp_type == TimestampType::CreateTime && record.timestamp != NO_TIMESTAMP {
        // Java's arithmetic wraps, and the defaults are its largest number.
        let age = now_ms.wrapping_sub(record.timestamp);
        if age > before || age.wrapping_neg() > after {
            let message = format!(
                "Timestamp {} of message with offset {} is out of range. The timestamp should be within [{}, {}]",
                record.timestamp,
                record.offset_delta,
                now_ms.wrapping_sub(before),
                now_ms.wrapping_add(after),
            );
            return Err((ResponseError::InvalidTimestamp, message));
        }
    } else if header.timestamp_type() == TimestampType::LogAppendTime {
        let message = format!(
            "Invalid timestamp type in message {}. Producer should not set timestamp type to LogAppendTime.",
            describe(header, record, rules),
        );
        return Err((ResponseError::InvalidTimestamp, message));
    }
    Ok(())
}

/// A record as Kafka's messages show it: by another name where it was only skipped through.
fn describe(header: &BatchHeader, record: &RecordShape, rules: &AdmissionRules<'_>) -> String {
    let codec = header.codec().unwrap_or(Codec::None);
    let skipped = codec != Codec::None && target_compression(rules.config.compression_type, codec).codec == codec;
    let (name, least) = if skipped { ("PartialDefaultRecord", i32::MIN) } else { ("DefaultRecord", 0) };
    format!(
        "{name}(offset={}, timestamp={}, key={} bytes, value={} bytes)",
        record.offset_delta,
        record.timestamp,
        record.key_length.max(least),
        record.value_length.max(least)
    )
}

/// The faulty records of a batch: some listed, all counted.
#[derive(Default)]
struct Faults {
    count: usize,
    timestamp: bool,
    listed: Vec<RecordError>,
}

impl Faults {
    fn add(&mut self, code: ResponseError, batch_index: i32, message: String) {
        self.count += 1;
        self.timestamp |= code == ResponseError::InvalidTimestamp;
        if self.listed.len() < RECORD_ERRORS_MAX {
            self.listed.push(RecordError { batch_index, message });
        }
    }

    /// One bad timestamp makes it a matter of timestamps, as in Kafka.
    fn into_result(self) -> Result<(), AdmissionError> {
        if self.count == 0 {
            return Ok(());
        }
        let (code, message) = if self.timestamp {
            let message = "One or more records have been rejected due to invalid timestamp".to_owned();
            (ResponseError::InvalidTimestamp, message)
        } else {
            let shown: Vec<String> = self.listed.iter().take(3).map(show_record_error).collect();
            let message = format!(
                "One or more records have been rejected due to {} record errors in total, \
                 and only showing the first three errors at most: [{}]",
                self.count,
                shown.join(", "),
            );
            (ResponseError::InvalidRecord, message)
        };
        Err(AdmissionError { code, message, record_errors: self.listed, scope: Scope::Log })
    }
}

fn show_record_error(error: &RecordError) -> String {
    format!("RecordError(batchIndex={}, message='{}')", error.batch_index, error.message)
}

/// Records that cannot be read. Damaged compression has Kafka's code for it: to clients neither is retriable.
fn unreadable(error: RecordsError, rules: &AdmissionRules<'_>) -> AdmissionError {
    let (code, scope) = match &error {
        RecordsError::Compression(CompressionError::TooLarge { .. }) => (ResponseError::MessageTooLarge, Scope::Batch),
        RecordsError::Compression(_) | RecordsError::UnknownCodec { .. } => {
            (ResponseError::UnknownServerError, Scope::Log)
        }
        _ => (ResponseError::InvalidRecord, Scope::Log),
    };
    AdmissionError::new(code, scope, format!("unreadable records in a batch for {}: {error}", Place(rules)))
}

fn target_compression(topic: CompressionType, source: Codec) -> Compression {
    match topic {
        CompressionType::Producer => Compression::of(source),
        CompressionType::Uncompressed => Compression::NONE,
        CompressionType::Gzip { level } => Compression { codec: Codec::Gzip, level },
        CompressionType::Snappy => Compression::of(Codec::Snappy),
        CompressionType::Lz4 { level } => Compression { codec: Codec::Lz4, level },
        CompressionType::Zstd { level } => Compression { codec: Codec::Zstd, level },
    }
}

/// The batch with its records in another codec, checked before. Records go over as they are: nothing in them changes.
fn recompress(
    batch: &[u8],
    from: Codec,
    to: Compression,
    timestamp_type: TimestampType,
    max_timestamp: i64,
    rules: &AdmissionRules<'_>,
) -> Result<Bytes, AdmissionError> {
    // A batch's length is an i32, whatever max.message.bytes allows.
    let len_max = rules.config.max_message_bytes.min(i32::MAX as u32) as usize;
    let failed = |error: CompressionError| unreadable(error.into(), rules);
    let (header, body) = batch.split_at(BatchHeader::LEN);
    let mut encoder = Encoder::new(to, header.to_vec(), len_max).map_err(failed)?;
    let mut decompressor = Decompressor::new(from, body, DECOMPRESSED_BATCH_BYTES_MAX).map_err(failed)?;
    let mut chunk = vec![0; DECOMPRESS_CHUNK_BYTES];
    loop {
        match decompressor.read(&mut chunk).map_err(failed)? {
            0 => break,
            len => encoder.write(&chunk[..len]).map_err(failed)?,
        }
    }
    let mut rebuilt = encoder.finish().map_err(failed)?;
    let length = i32::try_from(rebuilt.len() - LOG_OVERHEAD).expect("the encoder stops at i32::MAX");
    rebuilt[8..12].copy_from_slice(&length.to_be_bytes());
    rewrite_header(&mut rebuilt, to.codec, timestamp_type, max_timestamp);
    Ok(Bytes::from(rebuilt))
}

/// Sets what the broker decides under the CRC, and the CRC.
fn rewrite_header(batch: &mut [u8], codec: Codec, timestamp_type: TimestampType, max_timestamp: i64) {
    /// Attribute bits that have a meaning, less codec and timestamp type.
    const KEPT: i16 = 0x70;
    let old = i16::from_be_bytes([batch[ATTRIBUTES_AT], batch[ATTRIBUTES_AT + 1]]);
    let time_bit = if timestamp_type == TimestampType::LogAppendTime { LOG_APPEND_TIME_BIT } else { 0 };
    let attributes = old & KEPT | i16::from(codec.id()) | time_bit;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.to_be_bytes());
    let crc = crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Kafka's name of a partition in messages: `topic-0`.
struct Place<'a>(&'a AdmissionRules<'a>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0.topic, self.0.partition)
    }
}
