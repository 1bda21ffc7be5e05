//! Requests that are built once and altered in place, and answers that are skimmed rather than decoded. Pure.
//!
//! The versions are old enough to have no tagged fields, which makes them quick to walk, and all brokers since Kafka 2.1 speak them.

use super::batches::Batch;
use super::outbox::Outbox;
use crate::client::connection::encode_request;
use crate::client::error::ClientError;
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
const LENGTH: Range<usize> = 0..4;

/// Between two batches of a request: partition index and length.
const BETWEEN: usize = 8;

/// A Produce request for certain partitions, without the batches: what stands before the first one and between two.
#[derive(Clone)]
pub struct ProduceFrame {
    partitions: Vec<i32>,
    bytes: Vec<u8>,
    before: usize,
}

impl ProduceFrame {
    pub fn new(topic: &str, partitions: &[i32], acks: i16, client_id: &StrBytes) -> Result<ProduceFrame, ClientError> {
        let of =
            |partition: &i32| PartitionProduceData::default().with_index(*partition).with_records(Some(Bytes::new()));
        let data =
            TopicProduceData::default().with_name(name(topic)).with_partition_data(partitions.iter().map(of).collect());
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![data]);
        let bytes = encode_request(&request, PRODUCE_VERSION, 0, client_id)?.to_vec();
        // Partitions end the request, each with index and length before its batch.
        let before = bytes.len() - (partitions.len() - 1) * BETWEEN;
        Ok(ProduceFrame { partitions: partitions.to_vec(), bytes, before })
    }

    /// Puts the frame with this batch for each partition into what is to be sent, under this correlation id. `mark` is called before each batch
    /// leaves, with its partition.
    pub fn put(
        &mut self,
        correlation: i32,
        batch: &mut Batch,
        out: &mut Outbox,
        mut mark: impl FnMut(i32, &mut Batch),
    ) {
        let length = self.bytes.len() - LENGTH.end + self.partitions.len() * batch.len();
        self.bytes[LENGTH].copy_from_slice(&(length as u32).to_be_bytes());
        self.bytes[CORRELATION].copy_from_slice(&correlation.to_be_bytes());
        let mut at = 0;
        for (number, partition) in self.partitions.iter().enumerate() {
            let end = self.before + number * BETWEEN;
            self.bytes[end - 4..end].copy_from_slice(&(batch.len() as u32).to_be_bytes());
            out.copy(&self.bytes[at..end]);
            mark(*partition, batch);
            batch.put(out);
            at = end;
        }
    }
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
    use super::super::batches::{Author, batches, stamp_of};
    use super::super::plan::{Plan, Values, tests::plan};
    use super::*;
    use crate::record::batch::BatchHeader;
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use kafka_protocol::messages::{ProduceResponse, RequestHeader, ResponseHeader};
    use kafka_protocol::protocol::{Decodable, Encodable};

    fn client_id() -> StrBytes {
        StrBytes::from_static_str("load")
    }

    fn answer<R: Encodable>(response: &R, version: i16) -> Vec<u8> {
        let mut bytes = Vec::new();
        ResponseHeader::default().with_correlation_id(9).encode(&mut bytes, 0).expect("header");
        response.encode(&mut bytes, version).expect("response");
        bytes
    }

    fn request(frame: &mut ProduceFrame, correlation: i32, batch: &mut Batch, stamp: Option<u64>) -> ProduceRequest {
        let mut out = Outbox::default();
        frame.put(correlation, batch, &mut out, |partition, batch| {
            let author = Author { id: 9, epoch: 0, sequence: partition };
            batch.mark(stamp, None, stamp.map(|_| author));
        });
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
        let mut frame = ProduceFrame::new("topic", &[3, 5, 8], -1, &client_id()).expect("built");
        for (bytes, records) in [(8, 1), (100, 10), (1024, 64), (70_000, 1)] {
            for stamp in [None, Some(0x1234_5678_9abc)] {
                let values = Values::Fixed(bytes);
                let plan = Plan { values, batch_records: records, idempotent: stamp.is_some(), ..plan() };
                let mut batch = batches(&plan, 1_700_000_000_000).expect("built").remove(0);
                let request = request(&mut frame, 77, &mut batch, stamp);
                let partitions = &request.topic_data[0].partition_data;
                assert_eq!(partitions.iter().map(|p| p.index).collect::<Vec<_>>(), [3, 5, 8]);
                for partition in partitions {
                    let batch = partition.records.as_ref().expect("records");
                    let header = BatchHeader::parse(batch).expect("header");
                    assert!(header.crc_matches(batch));
                    assert_eq!((header.record_count, header.total_len()), (records as i32, batch.len()));
                    assert!(stamp.is_none_or(|stamp| stamp_of(batch) == Some(stamp)));
                    assert_eq!(header.base_sequence, stamp.map_or(-1, |_| partition.index));
                }
            }
        }
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
