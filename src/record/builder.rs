//! Builds record batches: for the client of the command line, for what the broker itself writes, and for tests.

use bytes::Bytes;
use thiserror::Error;

use super::batch::{
    ATTRIBUTES_AT, BatchHeader, CONTROL_BIT, LOG_APPEND_TIME_BIT, LOG_OVERHEAD, MAGIC_V2, NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TRANSACTIONAL_BIT, crc32c,
};
use super::compression::{Compression, CompressionError, Encoder};
use super::records::{write_varint, write_varlong};
use crate::base::ids::{LeaderEpoch, Offset};

/// Why a batch cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    #[error("a batch needs a record")]
    Empty,
    #[error("a record or batch exceeds {} bytes, the format's bound", i32::MAX)]
    TooLarge,
    #[error("offset delta {found} does not follow {last}")]
    OffsetOrder { found: i32, last: i32 },
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// A batch in the making. Records are held uncompressed until [`build`](Self::build).
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    /// What the header will say, as far as it is known; counts and lengths come at the end.
    header: BatchHeader,
    log_append_time_ms: Option<i64>,
    records: Vec<u8>,
    body: Vec<u8>,
}

/// A header to write: key and value.
pub type HeaderRef<'r> = (&'r str, Option<&'r [u8]>);

impl BatchBuilder {
    /// A batch as a producer without idempotence sends it: base offset 0, no leader epoch.
    pub fn new(compression: Compression) -> BatchBuilder {
        let header = BatchHeader {
            base_offset: Offset(0),
            batch_length: 0,
            partition_leader_epoch: -1,
            magic: MAGIC_V2,
            crc: 0,
            attributes: i16::from(compression.codec.id()),
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        };
        BatchBuilder { compression, header, log_append_time_ms: None, records: Vec::new(), body: Vec::new() }
    }

    /// An idempotent producer's batch (KIP-98).
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> BatchBuilder {
        (self.header.producer_id, self.header.producer_epoch) = (id, epoch);
        self.header.base_sequence = base_sequence;
        self
    }

    /// Sets where the batch lies in the log, for what is written without passing a leader's admission.
    pub fn placed(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> BatchBuilder {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = leader_epoch.0;
        self
    }

    /// Marks the batch as stamped by the broker (LogAppendTime), in milliseconds.
    pub fn log_append_time(mut self, time_ms: i64) -> BatchBuilder {
        self.header.attributes |= LOG_APPEND_TIME_BIT;
        self.log_append_time_ms = Some(time_ms);
        self
    }

    pub fn transactional(mut self) -> BatchBuilder {
        self.header.attributes |= TRANSACTIONAL_BIT;
        self
    }

    /// Marks the batch as a coordinator's (commit and abort markers).
    pub fn control(mut self) -> BatchBuilder {
        self.header.attributes |= CONTROL_BIT;
        self
    }

    /// Adds a record at the next offset. `timestamp` is in milliseconds since 1970, -1 for none.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> Result<(), BuildError> {
        let next = self.header.last_offset_delta.checked_add(1).ok_or(BuildError::TooLarge)?;
        self.push_at(next, timestamp, key, value, headers)
    }

    /// Adds a record at `offset_delta` from the base offset: compaction leaves gaps.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> Result<(), BuildError> {
        let last = self.header.last_offset_delta;
        if offset_delta <= last {
            return Err(BuildError::OffsetOrder { found: offset_delta, last });
        }
        // Bounds every length below, so that none of the casts can lose anything.
        let parts = [key, value].into_iter().flatten().map(<[u8]>::len);
        let header_parts = headers.iter().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len) + 10);
        if self.records.len() + parts.chain(header_parts).sum::<usize>() > RECORDS_BYTES_MAX {
            return Err(BuildError::TooLarge);
        }
        let first = self.header.record_count == 0;
        let base_timestamp = if first { timestamp } else { self.header.base_timestamp };

        let body = &mut self.body;
        body.clear();
        body.push(0);
        write_varlong(body, timestamp.wrapping_sub(base_timestamp));
        write_varint(body, offset_delta);
        write_nullable(body, key);
        write_nullable(body, value);
        write_varint(body, headers.len() as i32);
        for (key, value) in headers {
            write_nullable(body, Some(key.as_bytes()));
            write_nullable(body, *value);
        }
        write_varint(&mut self.records, body.len() as i32);
        self.records.extend_from_slice(body);

        self.header.base_timestamp = base_timestamp;
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        self.header.last_offset_delta = offset_delta;
        self.header.record_count += 1;
        Ok(())
    }

    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Bytes of the batch if it were not compressed: what a producer compares with its batch size.
    pub fn uncompressed_len(&self) -> usize {
        BatchHeader::LEN + self.records.len()
    }

    /// Compresses the records and seals the batch.
    pub fn build(self) -> Result<Bytes, BuildError> {
        if self.is_empty() {
            return Err(BuildError::Empty);
        }
        let mut header = self.header;
        header.max_timestamp = self.log_append_time_ms.unwrap_or(header.max_timestamp);
        let mut encoder = Encoder::new(self.compression, vec![0; BatchHeader::LEN], i32::MAX as usize)?;
        encoder.write(&self.records)?;
        let mut batch = encoder.finish()?;
        header.batch_length = i32::try_from(batch.len() - LOG_OVERHEAD).map_err(|_| BuildError::TooLarge)?;
        write_header(&mut batch, &header);
        header.crc = crc32c(&batch[ATTRIBUTES_AT..]);
        write_header(&mut batch, &header);
        Ok(Bytes::from(batch))
    }
}

/// Leaves room for a record's own few bytes below i32::MAX.
const RECORDS_BYTES_MAX: usize = i32::MAX as usize - 1024;

fn write_nullable(to: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            write_varint(to, bytes.len() as i32);
            to.extend_from_slice(bytes);
        }
        None => write_varint(to, -1),
    }
}

fn write_header(batch: &mut [u8], header: &BatchHeader) {
    header.write(batch.first_chunk_mut().expect("room was made for the header"));
}
