//! Requests that are built once and altered in place, and answers that are skimmed rather than decoded. Pure.
//!
//! The versions are old enough to have no tagged fields, which makes them quick to walk, and all brokers since Kafka 2.1 speak them.

use super::outbox::Outbox;
use super::plan::{Plan, STAMP_BYTES};
use crate::client::connection::encode_request;
use crate::client::error::ClientError;
use crate::record::batch::{BatchHeader, Codec, crc32c};
use crate::record::builder::{BatchBuilder, BuildError};
use crate::record::records::Records;
use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, FetchRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::ops::Range;

pub const PRODUCE_VERSION: i16 = 7;
/// The first that carries zstd.
pub const FETCH_VERSION: i16 = 10;

/// Where the correlation id stands in a request's frame: behind length, API key and version.
const CORRELATION: Range<usize> = 8..12;
const CRC: Range<usize> = 17..21;
const ATTRIBUTES_AT: usize = 21;

/// A record's key, where it has one.
const KEY_BYTES: usize = 8;

/// A batch whose values cannot be compressed to nothing. Keys, if there are to be any, are drawn when it is sent.
pub fn batch(plan: &Plan, now_ms: i64) -> Result<Bytes, BuildError> {
    let (record_bytes, records, compression) = (plan.record_bytes, plan.batch_records, plan.compression);
    let key = plan.keys.map(|_| [0; KEY_BYTES]);
    let mut builder = BatchBuilder::new(compression);
    let mut random = fastrand::Rng::with_seed(u64::from(record_bytes) << 32 | u64::from(records));
    let mut value = vec![0; record_bytes as usize];
    for _ in 0..records {
        // Half of each value is chance and half is text, as compressible as events are.
        let (chance, text) = value.split_at_mut(record_bytes as usize / 2);
        random.fill(chance);
        text.fill_with(|| random.digit(10) as u8);
        builder.push(now_ms, key.as_ref().map(|key| &key[..]), Some(&value), &[])?;
    }
    builder.build()
}

/// Batches from this size on are not copied for each request.
const SHARED_BYTES_MIN: usize = 16 << 10;
/// Between two batches of a request: partition index and length.
const BETWEEN: usize = 8;

/// A Produce request with one batch for each of its partitions.
pub enum ProduceFrame {
    /// In one piece. `batches` tells where they are; in a batch without compression `value_at` where its first record's value begins, and
    /// `keys_at` where its records' keys do, if they have any.
    Whole { bytes: Vec<u8>, batches: Vec<Range<usize>>, value_at: usize, keys_at: Vec<usize> },
    /// What stands before the batches and between them; the batch stays where it is.
    Around { bytes: Vec<u8>, before: usize, batch: Bytes },
}

impl ProduceFrame {
    /// `altered`: each request gets a stamp or keys of its own.
    pub fn new(
        topic: &str,
        partitions: &[i32],
        batch: &Bytes,
        (acks, altered): (i16, bool),
        client_id: &StrBytes,
    ) -> Result<ProduceFrame, ClientError> {
        let of =
            |partition: &i32| PartitionProduceData::default().with_index(*partition).with_records(Some(batch.clone()));
        let data =
            TopicProduceData::default().with_name(name(topic)).with_partition_data(partitions.iter().map(of).collect());
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![data]);
        let mut bytes = encode_request(&request, PRODUCE_VERSION, 0, client_id)?.to_vec();
        // Partitions end the request, each with index and length before its batch.
        let step = batch.len() + BETWEEN;
        let first = bytes.len() + BETWEEN - partitions.len() * step;
        let batches = (0..partitions.len()).map(|number| first + number * step).map(|at| at..at + batch.len());
        if altered || batch.len() < SHARED_BYTES_MIN {
            let (batches, keys_at) = (batches.collect(), keys(batch));
            return Ok(ProduceFrame::Whole { bytes, batches, value_at: first_value(batch), keys_at });
        }
        for range in batches.rev() {
            bytes.drain(range);
        }
        Ok(ProduceFrame::Around { bytes, before: first, batch: batch.clone() })
    }

    /// Draws a key below `keys` for each record.
    pub fn draw_keys(&mut self, keys: u64, random: &mut fastrand::Rng) {
        let ProduceFrame::Whole { bytes, batches, keys_at, .. } = self else { return };
        for range in batches {
            let batch = &mut bytes[range.clone()];
            for at in &*keys_at {
                batch[*at..*at + KEY_BYTES].copy_from_slice(&random.u64(..keys).to_be_bytes());
            }
            seal(batch);
        }
    }

    /// Puts the frame into what is to be sent, under this correlation id. A stamp is a number in the first value of each batch.
    pub fn put(&mut self, correlation: i32, stamp: Option<u64>, out: &mut Outbox) {
        match self {
            ProduceFrame::Whole { bytes, batches, value_at, .. } => {
                bytes[CORRELATION].copy_from_slice(&correlation.to_be_bytes());
                if let Some(stamp) = stamp {
                    batches.iter().for_each(|range| write_stamp(&mut bytes[range.clone()], *value_at, stamp));
                }
                out.copy(bytes);
            }
            ProduceFrame::Around { bytes, before, batch } => {
                bytes[CORRELATION].copy_from_slice(&correlation.to_be_bytes());
                let (head, between) = bytes.split_at(*before);
                out.copy(head);
                out.share(batch.clone());
                for between in between.chunks_exact(BETWEEN) {
                    out.copy(between);
                    out.share(batch.clone());
                }
            }
        }
    }
}

fn write_stamp(batch: &mut [u8], value_at: usize, stamp: u64) {
    batch[value_at..value_at + STAMP_BYTES as usize].copy_from_slice(&stamp.to_be_bytes());
    seal(batch);
}

/// Writes the CRC anew.
fn seal(batch: &mut [u8]) {
    let crc = crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
}

/// Where the keys of a batch's records begin, if it is not compressed and they are of our length.
fn keys(batch: &Bytes) -> Vec<usize> {
    let Ok(header) = BatchHeader::parse(batch) else { return Vec::new() };
    let Ok(mut records) = Records::new(&header, batch) else { return Vec::new() };
    let mut found = Vec::new();
    while header.codec() == Some(Codec::None)
        && let Ok(Some(record)) = records.next()
    {
        // Records of a batch without compression are slices of it.
        let key = record.key.filter(|key| key.len() == KEY_BYTES);
        found.extend(key.map(|key| key.as_ptr() as usize - batch.as_ptr() as usize));
    }
    found
}

/// The stamp of a batch that `ProduceFrame::put` wrote, from the batch's beginning; None if that is too short for one.
pub fn stamp_of(batch: &[u8]) -> Option<u64> {
    let at = first_value(batch);
    batch.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Where the first record's value begins in a batch without compression: its length, attributes, two deltas, key length (null)
/// and value length come before.
fn first_value(batch: &[u8]) -> usize {
    let varint =
        |at: usize| at + batch.get(at..).unwrap_or_default().iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let attributes = varint(BatchHeader::LEN);
    let timestamp = attributes + 1;
    varint(varint(varint(varint(timestamp))))
}

/// A Fetch request for one partition.
pub struct FetchFrame {
    bytes: Vec<u8>,
}

impl FetchFrame {
    pub fn new(
        topic: &str,
        partition: i32,
        (max_bytes, min_bytes, max_wait_ms): (i32, i32, i32),
        client_id: &StrBytes,
    ) -> Result<FetchFrame, ClientError> {
        let wanted = FetchPartition::default().with_partition(partition).with_partition_max_bytes(max_bytes);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(min_bytes)
            .with_max_bytes(max_bytes)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(name(topic)).with_partitions(vec![wanted])]);
        Ok(FetchFrame { bytes: encode_request(&request, FETCH_VERSION, 0, client_id)?.to_vec() })
    }

    /// Asks for what lies at this offset.
    pub fn put(&mut self, offset: i64, correlation: i32, out: &mut Outbox) {
        self.bytes[CORRELATION].copy_from_slice(&correlation.to_be_bytes());
        // Behind the offset: log start offset, greatest size, and the number of forgotten topics.
        let end = self.bytes.len() - (8 + 4 + 4);
        self.bytes[end - 8..end].copy_from_slice(&offset.to_be_bytes());
        out.copy(&self.bytes);
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// The first error code in a Produce answer, or 0. The frame begins behind its length.
pub fn produce_error(mut frame: &[u8]) -> Result<i16, TryGetError> {
    let answer = &mut frame;
    answer.try_get_i32()?;
    let mut first = 0;
    for _ in 0..answer.try_get_i32()? {
        skip_string(answer)?;
        for _ in 0..answer.try_get_i32()? {
            answer.try_get_i32()?;
            let error = answer.try_get_i16()?;
            skip(answer, 24)?;
            first = if first == 0 { error } else { first };
        }
    }
    Ok(first)
}

/// What stands before the records in a Fetch answer for one partition.
#[derive(Clone, Copy, Debug)]
pub struct FetchHead {
    pub error: i16,
    pub high_watermark: i64,
    /// Bytes of records: batches, of which the last may be cut.
    pub records: usize,
    /// Bytes of this head, behind the frame's length.
    pub length: usize,
}

/// Reads the head of a Fetch answer for one partition, from behind its length; an error means that more bytes are needed.
pub fn fetch_head(answer: &[u8]) -> Result<FetchHead, TryGetError> {
    let mut rest = answer;
    let left = &mut rest;
    skip(left, 4 + 4)?;
    let whole = left.try_get_i16()?;
    left.try_get_i32()?;
    let topics = left.try_get_i32()?;
    if whole != 0 || topics == 0 {
        return Ok(FetchHead { error: whole, high_watermark: -1, records: 0, length: answer.len() - rest.len() });
    }
    // One topic, its name, one partition, its index.
    skip_string(left)?;
    skip(left, 4 + 4)?;
    let error = left.try_get_i16()?;
    let high_watermark = left.try_get_i64()?;
    skip(left, 8 + 8)?;
    let aborted = left.try_get_i32()?.max(0) as usize;
    skip(left, aborted.saturating_mul(16))?;
    let records = left.try_get_i32()?.max(0) as usize;
    Ok(FetchHead { error, high_watermark, records, length: answer.len() - rest.len() })
}

fn skip(bytes: &mut &[u8], length: usize) -> Result<(), TryGetError> {
    if bytes.len() < length {
        return Err(TryGetError { requested: length, available: bytes.len() });
    }
    bytes.advance(length);
    Ok(())
}

fn skip_string(bytes: &mut &[u8]) -> Result<(), TryGetError> {
    let length = bytes.try_get_i16()?.max(0) as usize;
    skip(bytes, length)
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use kafka_protocol::messages::{ProduceResponse, RequestHeader, ResponseHeader};
    use kafka_protocol::protocol::{Decodable, Encodable};

    fn client_id() -> StrBytes {
        StrBytes::from_static_str("load")
    }

    fn plain(record_bytes: u32, records: u32) -> Bytes {
        batch(&Plan { record_bytes, batch_records: records, ..plan() }, 1_700_000_000_000).expect("built")
    }

    fn answer<R: Encodable>(response: &R, version: i16) -> Vec<u8> {
        let mut bytes = Vec::new();
        ResponseHeader::default().with_correlation_id(9).encode(&mut bytes, 0).expect("header");
        response.encode(&mut bytes, version).expect("response");
        bytes
    }

    fn request(frame: &mut ProduceFrame, correlation: i32, stamp: Option<u64>) -> ProduceRequest {
        let mut out = Outbox::default();
        frame.put(correlation, stamp, &mut out);
        let mut sent = Bytes::from(out.gathered());
        assert_eq!(sent.get_i32() as usize, sent.len());
        let header = RequestHeader::decode(&mut sent, 1).expect("header");
        assert_eq!(header.correlation_id, correlation);
        let request = ProduceRequest::decode(&mut sent, PRODUCE_VERSION).expect("request");
        assert!(sent.is_empty());
        request
    }

    #[test]
    fn a_request_decodes_and_its_batches_are_whole() {
        for (bytes, records) in [(8, 1), (100, 10), (1024, 64), (70_000, 1)] {
            for stamp in [None, Some(0x1234_5678_9abc)] {
                let how = (-1, stamp.is_some());
                let batch = plain(bytes, records);
                let mut frame = ProduceFrame::new("topic", &[3, 5, 8], &batch, how, &client_id()).expect("built");
                let request = request(&mut frame, 77, stamp);
                let partitions = &request.topic_data[0].partition_data;
                assert_eq!(partitions.iter().map(|p| p.index).collect::<Vec<_>>(), [3, 5, 8]);
                for partition in partitions {
                    let batch = partition.records.as_ref().expect("records");
                    let header = BatchHeader::parse(batch).expect("header");
                    assert!(header.crc_matches(batch));
                    assert_eq!((header.record_count, header.total_len()), (records as i32, batch.len()));
                    assert!(stamp.is_none_or(|stamp| stamp_of(batch) == Some(stamp)));
                }
            }
        }
    }

    #[test]
    fn records_get_keys_by_chance() {
        let plan = Plan { keys: Some(300), record_bytes: 50, batch_records: 200, ..plan() };
        let batch = batch(&plan, 1_700_000_000_000).expect("built");
        let mut frame = ProduceFrame::new("topic", &[0], &batch, (-1, true), &client_id()).expect("built");
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn = || -> Vec<u64> {
            frame.draw_keys(300, &mut random);
            let request = request(&mut frame, 1, None);
            let batch = request.topic_data[0].partition_data[0].records.clone().expect("records");
            let header = BatchHeader::parse(&batch).expect("header");
            assert!(header.crc_matches(&batch));
            let mut records = Records::new(&header, &batch).expect("records");
            let mut keys = Vec::new();
            while let Some(record) = records.next().expect("record") {
                assert_eq!(record.value.map(<[u8]>::len), Some(50));
                keys.push(u64::from_be_bytes(record.key.expect("key").try_into().expect("8 bytes")));
            }
            keys
        };
        let (first, second) = (drawn(), drawn());
        assert_eq!((first.len(), second.len()), (200, 200));
        assert!(first != second && first.iter().chain(&second).all(|key| *key < 300));
        assert!(first.iter().collect::<std::collections::BTreeSet<_>>().len() > 100);
    }

    #[test]
    fn a_fetch_asks_for_its_offset() {
        let mut frame = FetchFrame::new("topic", 4, (1 << 20, 1, 500), &client_id()).expect("built");
        let mut out = Outbox::default();
        frame.put(1 << 40, 5, &mut out);
        let mut sent = Bytes::from(out.gathered()).slice(4..);
        RequestHeader::decode(&mut sent, 1).expect("header");
        let request = FetchRequest::decode(&mut sent, FETCH_VERSION).expect("request");
        let partition = &request.topics[0].partitions[0];
        assert_eq!((partition.partition, partition.fetch_offset, partition.partition_max_bytes), (4, 1 << 40, 1 << 20));
    }

    #[test]
    fn an_answer_tells_its_first_error() {
        let partition = |error| PartitionProduceResponse::default().with_error_code(error);
        let topic = TopicProduceResponse::default().with_name(name("t")).with_partition_responses(vec![
            partition(0),
            partition(6),
            partition(3),
        ]);
        let produced = answer(&ProduceResponse::default().with_responses(vec![topic]), PRODUCE_VERSION);
        assert_eq!(produce_error(&produced).expect("whole"), 6);
        for length in 0..produced.len() {
            // Cut answers are refused or end early; they never panic.
            let _ = (produce_error(&produced[..length]), fetch_head(&produced[..length]));
        }
    }
}
