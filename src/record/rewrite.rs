//! A batch with fewer records: what compaction leaves of one.
//!
//! Base offset, last offset delta, producer, sequence, leader epoch and codec stay, whatever goes: offsets that were given out
//! stay given out, and a retry of the batch is still recognised by the sequence that its header implies. Records that stay are
//! copied byte for byte, except that their timestamp deltas change when the batch gets a delete horizon.
//!
//! *Delete horizon* (KIP-534): the time from which the tombstones of a batch may go. It takes the base timestamp's place
//! (attribute bit 6), and the deltas count from it, so that the records' times stay what they were.

use super::batch::{ATTRIBUTES_AT, BatchHeader, Codec, DELETE_HORIZON_BIT, LOG_OVERHEAD, NO_TIMESTAMP, crc32c};
use super::compression::{Compression, CompressionError, Decompressor, Encoder};
use super::records::{Fault, RecordsError, decode, read_varlong, take_body, write_varint, write_varlong};
use crate::base::config::topic::TimestampType;
use crate::base::limits::{DECOMPRESS_CHUNK_BYTES, DECOMPRESSED_BATCH_BYTES_MAX};

/// Attribute bits of codec and delete horizon: an empty batch has neither.
const WITHOUT_RECORDS: i16 = !(0x07 | DELETE_HORIZON_BIT);

/// A record with the bytes that it takes.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'r> {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub key: Option<&'r [u8]>,
    /// False: a tombstone.
    pub has_value: bool,
    /// As it lies in the batch, its length first.
    whole: &'r [u8],
    attributes: u8,
    after_timestamp: &'r [u8],
}

/// Reader of records that are not compressed: call [`next`](Self::next) until it gives None.
pub struct RawRecords<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
}

/// The records of `batch`, which begins with the batch that `header` was parsed from; decompressed into `scratch` where they
/// are compressed. The CRC is not looked at.
pub fn uncompressed<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], RecordsError> {
    let expected = header.total_len();
    let Some(body) = batch.get(BatchHeader::LEN..expected) else {
        return Err(RecordsError::Incomplete { expected, have: batch.len() });
    };
    let codec = header.codec().ok_or(RecordsError::UnknownCodec { found: header.codec_id() })?;
    if codec == Codec::None || header.record_count == 0 {
        return Ok(body);
    }
    let mut from = Decompressor::new(codec, body, DECOMPRESSED_BATCH_BYTES_MAX)?;
    let mut length = 0;
    loop {
        if scratch.len() - length < DECOMPRESS_CHUNK_BYTES {
            scratch.resize((scratch.len() * 2).max(DECOMPRESS_CHUNK_BYTES), 0);
        }
        match from.read(&mut scratch[length..])? {
            0 => return Ok(&scratch[..length]),
            more => length += more,
        }
    }
}

impl<'a> RawRecords<'a> {
    pub fn new(header: &BatchHeader, records: &'a [u8]) -> Result<RawRecords<'a>, RecordsError> {
        if header.record_count < 0 {
            return Err(RecordsError::NegativeCount { found: header.record_count });
        }
        Ok(RawRecords { rest: records, index: 0, count: header.record_count })
    }

    /// The next record, or None after the last, once it is sure that nothing follows.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<RawRecord<'a>>, RecordsError> {
        if self.index == self.count {
            return match self.rest.is_empty() || self.count == 0 {
                true => Ok(None),
                false => Err(RecordsError::Trailing { count: self.count }),
            };
        }
        let before = self.rest;
        let record = self.take(before).map_err(|fault| fault.at(self.index, self.count))?;
        self.index += 1;
        Ok(Some(record))
    }

    fn take(&mut self, before: &'a [u8]) -> Result<RawRecord<'a>, Fault> {
        let body = take_body(&mut self.rest)?;
        let raw = decode(body)?;
        let (attributes, timed) = body.split_first().ok_or(Fault::Ended)?;
        let (_, used) = read_varlong(timed)?.ok_or(Fault::Ended)?;
        Ok(RawRecord {
            offset_delta: raw.offset_delta,
            timestamp_delta: raw.timestamp_delta,
            key: raw.key,
            has_value: raw.value.is_some(),
            whole: &before[..before.len() - self.rest.len()],
            attributes: *attributes,
            after_timestamp: &timed[used..],
        })
    }
}

/// The batch with only the records of `kept`, in their order; at least one. `horizon_ms`: the delete horizon that it gets.
pub fn with_records(
    header: &BatchHeader,
    kept: &[RawRecord<'_>],
    horizon_ms: Option<i64>,
) -> Result<Vec<u8>, CompressionError> {
    debug_assert!(!kept.is_empty());
    let codec = header.codec().expect("its records were read");
    let mut encoder = Encoder::new(Compression::of(codec), vec![0; BatchHeader::LEN], i32::MAX as usize)?;
    let base_timestamp = horizon_ms.unwrap_or(header.base_timestamp);
    let mut record_bytes = Vec::new();
    let mut max_timestamp = NO_TIMESTAMP;
    for record in kept {
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        if base_timestamp == header.base_timestamp {
            encoder.write(record.whole)?;
        } else {
            record.encode(timestamp.wrapping_sub(base_timestamp), &mut record_bytes);
            encoder.write(&record_bytes)?;
        }
    }
    let mut rebuilt = *header;
    rebuilt.base_timestamp = base_timestamp;
    rebuilt.record_count = i32::try_from(kept.len()).expect("no more than there were");
    if header.timestamp_type() == TimestampType::CreateTime {
        rebuilt.max_timestamp = max_timestamp;
    }
    if horizon_ms.is_some() {
        rebuilt.attributes |= DELETE_HORIZON_BIT;
    }
    Ok(sealed(rebuilt, encoder.finish()?))
}

/// The batch without any record: it keeps its offsets, its producer's sequence and its time, as Kafka's empty batches do.
pub fn without_records(header: &BatchHeader) -> Vec<u8> {
    let mut empty = *header;
    (empty.record_count, empty.base_timestamp) = (0, NO_TIMESTAMP);
    empty.attributes &= WITHOUT_RECORDS;
    sealed(empty, vec![0; BatchHeader::LEN])
}

impl RawRecord<'_> {
    fn encode(&self, timestamp_delta: i64, to: &mut Vec<u8>) {
        let mut timed = Vec::with_capacity(11);
        timed.push(self.attributes);
        write_varlong(&mut timed, timestamp_delta);
        to.clear();
        write_varint(to, (timed.len() + self.after_timestamp.len()) as i32);
        to.extend_from_slice(&timed);
        to.extend_from_slice(self.after_timestamp);
    }
}

/// Writes length and CRC, and the header before the records.
fn sealed(mut header: BatchHeader, mut batch: Vec<u8>) -> Vec<u8> {
    header.batch_length = i32::try_from(batch.len() - LOG_OVERHEAD).expect("the encoder stops at i32::MAX");
    header.crc = 0;
    header.write(batch.first_chunk_mut().expect("room was made for the header"));
    header.crc = crc32c(&batch[ATTRIBUTES_AT..]);
    header.write(batch.first_chunk_mut().expect("room was made for the header"));
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{LeaderEpoch, Offset};
    use crate::record::builder::BatchBuilder;
    use crate::record::records::Records;

    fn batch(codec: Codec) -> Vec<u8> {
        let mut builder =
            BatchBuilder::new(Compression::of(codec)).placed(Offset(40), LeaderEpoch(3)).producer(7, 1, 90);
        for n in 0..6i64 {
            let (key, value) = (format!("key {n}"), format!("value {n}").repeat(30));
            let value = (n != 4).then_some(value.as_bytes());
            builder.push(1_000_000 - 1000 * n, Some(key.as_bytes()), value, &[("h", Some(b"x"))]).expect("small");
        }
        builder.build().expect("has records").to_vec()
    }

    fn rewritten(batch: &[u8], keep: &[i32], horizon_ms: Option<i64>) -> Vec<u8> {
        let header = BatchHeader::parse(batch).expect("whole");
        let mut scratch = Vec::new();
        let body = uncompressed(&header, batch, &mut scratch).expect("sound");
        let mut records = RawRecords::new(&header, body).expect("sound");
        let mut kept = Vec::new();
        while let Some(record) = records.next().expect("sound") {
            if keep.contains(&record.offset_delta) {
                kept.push(record);
            }
        }
        with_records(&header, &kept, horizon_ms).expect("fits")
    }

    type Told = (i64, i64, Vec<u8>, Option<Vec<u8>>, usize);

    fn told(batch: &[u8]) -> Vec<Told> {
        let header = BatchHeader::parse(batch).expect("whole");
        assert!(header.crc_matches(batch) && header.total_len() == batch.len());
        let mut records = Records::new(&header, batch).expect("sound");
        let mut all = Vec::new();
        while let Some(record) = records.next().expect("sound") {
            let (key, value) = (record.key.expect("keyed").to_vec(), record.value.map(<[u8]>::to_vec));
            all.push((record.offset.0, record.timestamp, key, value, record.headers.len()));
        }
        all
    }

    #[test]
    fn records_that_stay_are_what_they_were() {
        for codec in Codec::ALL {
            let before = batch(codec);
            let all = told(&before);
            for horizon_ms in [None, Some(77_000_000)] {
                let after = rewritten(&before, &[1, 4], horizon_ms);
                assert_eq!(told(&after), [all[1].clone(), all[4].clone()], "{codec:?}");
                let (old, new) = (BatchHeader::parse(&before).expect("old"), BatchHeader::parse(&after).expect("new"));
                assert_eq!((new.base_offset, new.last_offset()), (old.base_offset, old.last_offset()));
                assert_eq!((new.last_sequence(), new.producer_id), (old.last_sequence(), old.producer_id));
                assert_eq!((new.codec(), new.partition_leader_epoch), (old.codec(), 3));
                assert_eq!((new.record_count, new.max_timestamp), (2, 999_000));
                assert_eq!(new.has_delete_horizon(), horizon_ms.is_some());
                assert_eq!(new.base_timestamp, horizon_ms.unwrap_or(1_000_000));
                // Once more: the horizon stays.
                let again = rewritten(&after, &[4], None);
                assert_eq!(told(&again), [all[4].clone()]);
                assert_eq!(BatchHeader::parse(&again).expect("new").has_delete_horizon(), horizon_ms.is_some());
            }
        }
    }

    #[test]
    fn an_empty_batch_keeps_offsets_and_sequence() {
        for codec in Codec::ALL {
            let before = batch(codec);
            let old = BatchHeader::parse(&before).expect("old");
            let after = without_records(&old);
            let new = BatchHeader::parse(&after).expect("new");
            assert_eq!(told(&after), []);
            assert_eq!((new.base_offset, new.last_offset()), (old.base_offset, old.last_offset()));
            assert_eq!((new.last_sequence(), new.max_timestamp), (old.last_sequence(), old.max_timestamp));
            assert_eq!((new.codec(), new.base_timestamp), (Some(Codec::None), NO_TIMESTAMP));
        }
    }

    #[test]
    fn damaged_records_are_an_error() {
        let whole = batch(Codec::None);
        let header = BatchHeader::parse(&whole).expect("whole");
        for at in BatchHeader::LEN..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] = damaged[at].wrapping_add(97);
            let mut scratch = Vec::new();
            let body = uncompressed(&header, &damaged, &mut scratch).expect("not compressed");
            let mut records = RawRecords::new(&header, body).expect("sound");
            // Whatever comes of it: no panic, and an end.
            while let Ok(Some(_)) = records.next() {}
        }
        let fewer = BatchHeader { record_count: header.record_count - 1, ..header };
        let mut scratch = Vec::new();
        let body = uncompressed(&fewer, &whole, &mut scratch).expect("not compressed");
        let mut records = RawRecords::new(&fewer, body).expect("sound");
        let end = loop {
            match records.next() {
                Ok(Some(_)) => {}
                end => break end.map(|_| ()),
            }
        };
        assert_eq!(end, Err(RecordsError::Trailing { count: 5 }));
    }
}
