//! Reads the answer to a fetch of one partition as it arrives, without holding it. Pure.
//!
//! Of the records only the batches' headers are looked at, and on request the CRC of each batch is computed as it passes. So
//! an answer of any size goes through one small buffer that stays in the cache.

use super::batches::stamp_of;
use super::frames::{FetchHead, fetch_head};
use crate::record::batch::{BatchError, BatchHeader};
use crc_fast::{CrcAlgorithm, Digest};

/// Bytes of a head that are looked at first; more if it holds a long name or aborted transactions.
const HEAD_STEP: usize = 128;
/// Bytes of a head at most: a name and 60,000 aborted transactions.
const HEAD_MAX: usize = 1 << 20;
const LENGTH_BYTES: usize = 4;
/// A stamp ends within so many bytes of its batch: behind the header come six numbers of at most five bytes each, or ten.
const STAMP_END: usize = BatchHeader::LEN + 45;
/// Where the bytes begin that the CRC covers.
const COVERED_AT: usize = 21;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkimError {
    #[error("an answer's length makes no sense: is this a Kafka broker?")]
    NotKafka,
    #[error("a fetched batch cannot be read: {0}")]
    Batch(#[from] BatchError),
}

/// What was found in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole batch.
    Batch { header: BatchHeader, stamp: Option<u64>, is_intact: bool },
    /// The answer's end.
    End { error: i16, high_watermark: i64, record_bytes: usize },
}

/// Answers of one connection, one after the other.
pub struct Skim {
    /// Compute CRCs; otherwise every batch counts as intact.
    verify: bool,
    state: State,
    /// Bytes of what is only there in part: the answer's head, or a batch's.
    kept: Vec<u8>,
    /// Bytes of this answer, and of its records, that have not come yet.
    left: usize,
    records_left: usize,
    head: FetchHead,
}

#[expect(
    clippy::large_enum_variant,
    reason = "one for each connection, changed in place for each batch: a box would be an allocation each time"
)]
enum State {
    Head,
    /// A batch begins, or the records are over.
    Boundary,
    /// In a batch.
    Batch {
        header: BatchHeader,
        stamp: Option<u64>,
        left: usize,
        crc: Option<Digest>,
    },
    /// In what is not looked at: the last batch, if it is cut, and what follows the records.
    Rest,
}

impl Skim {
    pub fn new(verify: bool) -> Skim {
        let head = FetchHead { error: 0, high_watermark: -1, records: 0, length: 0 };
        Skim { verify, state: State::Head, kept: Vec::new(), left: 0, records_left: 0, head }
    }

    /// Takes what has come, and tells what was complete with it.
    pub fn feed(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Found)) -> Result<(), SkimError> {
        loop {
            let used = match &mut self.state {
                State::Head => self.read_head(bytes)?,
                State::Boundary => self.read_boundary(bytes)?,
                State::Batch { .. } => self.pass_batch(bytes, found),
                State::Rest => self.pass_rest(bytes, found),
            };
            let Some(used) = used else { return Ok(()) };
            bytes = &bytes[used..];
        }
    }

    /// Each of these tells how many bytes it has used, or None when it took all there are and needs more.
    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, SkimError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let before = self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(HEAD_STEP)]);
        let taken = self.kept.len() - before;
        let Some(length) = self.kept.first_chunk::<LENGTH_BYTES>() else { return Ok(Some(taken)) };
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| SkimError::NotKafka)?;
        let end = self.kept.len().min(LENGTH_BYTES.saturating_add(length));
        let Ok(head) = fetch_head(&self.kept[LENGTH_BYTES..end]) else {
            // Not all of it is here; if all of the answer is, it is none.
            let is_whole = self.kept.len() >= LENGTH_BYTES.saturating_add(length);
            return if is_whole || end > HEAD_MAX { Err(SkimError::NotKafka) } else { Ok(Some(taken)) };
        };
        let left = length.checked_sub(head.length).ok_or(SkimError::NotKafka)?;
        if head.records > left {
            return Err(SkimError::NotKafka);
        }
        let used = LENGTH_BYTES + head.length - before;
        (self.head, self.left, self.records_left) = (head, left, head.records);
        self.kept.clear();
        self.state = State::Boundary;
        Ok(Some(used))
    }

    fn read_boundary(&mut self, bytes: &[u8]) -> Result<Option<usize>, SkimError> {
        let before = self.kept.len();
        let here = self.records_left + before;
        let view = match before {
            0 => bytes,
            _ => {
                self.kept.extend_from_slice(&bytes[..bytes.len().min(STAMP_END - before)]);
                &self.kept[..]
            }
        };
        let opened = match here >= BatchHeader::LEN && view.len() >= BatchHeader::LEN {
            true => Some(BatchHeader::parse(view)?),
            false => None,
        };
        // The last batch may be cut, even within its header.
        if here < BatchHeader::LEN || opened.is_some_and(|header| header.total_len() > here) {
            self.kept.clear();
            self.state = State::Rest;
            return Ok(Some(0));
        }
        let wanted = opened.map_or(BatchHeader::LEN, |header| header.total_len().min(STAMP_END));
        let (Some(header), Some(begin)) = (opened, view.get(..wanted)) else {
            if before == 0 {
                self.kept.extend_from_slice(bytes);
            }
            self.count(bytes.len());
            return Ok(None);
        };
        let crc = self.verify.then(|| {
            let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
            crc.update(&begin[COVERED_AT..]);
            crc
        });
        self.state = State::Batch { header, stamp: stamp_of(begin), left: header.total_len() - wanted, crc };
        self.kept.clear();
        self.count(wanted - before);
        Ok(Some(wanted - before))
    }

    fn pass_batch(&mut self, bytes: &[u8], found: &mut impl FnMut(Found)) -> Option<usize> {
        let State::Batch { header, stamp, left, crc } = &mut self.state else { return Some(0) };
        let taken = bytes.len().min(*left);
        *left -= taken;
        if let Some(crc) = crc {
            crc.update(&bytes[..taken]);
        }
        let is_whole = *left == 0;
        if is_whole {
            let is_intact = crc.as_ref().is_none_or(|crc| crc.finalize() as u32 == header.crc);
            found(Found::Batch { header: *header, stamp: *stamp, is_intact });
            self.state = State::Boundary;
        }
        self.count(taken);
        is_whole.then_some(taken)
    }

    fn pass_rest(&mut self, bytes: &[u8], found: &mut impl FnMut(Found)) -> Option<usize> {
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        if self.left > 0 {
            return None;
        }
        let FetchHead { error, high_watermark, records, .. } = self.head;
        found(Found::End { error, high_watermark, record_bytes: records });
        self.state = State::Head;
        Some(taken)
    }

    fn count(&mut self, bytes: usize) {
        self.left -= bytes;
        self.records_left -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::batches::batches;
    use super::super::frames::FETCH_VERSION;
    use super::super::plan::{Plan, Values, tests::plan};
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::{FetchResponse, ResponseHeader, TopicName};
    use kafka_protocol::protocol::{Encodable, StrBytes};

    fn plain(record_bytes: u32, records: u32) -> Bytes {
        let plan = Plan { values: Values::Fixed(record_bytes), batch_records: records, ..plan() };
        let batches = batches(&plan, 1_700_000_000_000).expect("built");
        Bytes::copy_from_slice(batches[0].bytes())
    }

    fn answer(error: i16, name: &str, aborted: usize, records: &[u8]) -> Vec<u8> {
        let data = PartitionData::default()
            .with_error_code(error)
            .with_high_watermark(12)
            .with_aborted_transactions(Some(vec![AbortedTransaction::default(); aborted]))
            .with_records(Some(Bytes::copy_from_slice(records)));
        let name = TopicName(StrBytes::from_string(name.to_owned()));
        let topic = FetchableTopicResponse::default().with_topic(name).with_partitions(vec![data]);
        framed(&FetchResponse::default().with_responses(vec![topic]))
    }

    fn framed(response: &FetchResponse) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        ResponseHeader::default().with_correlation_id(9).encode(&mut bytes, 0).expect("header");
        response.encode(&mut bytes, FETCH_VERSION).expect("response");
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn skim(stream: &[u8], step: usize) -> Result<Vec<Found>, SkimError> {
        let (mut skim, mut all) = (Skim::new(true), Vec::new());
        for chunk in stream.chunks(step) {
            skim.feed(chunk, &mut |found| all.push(found))?;
        }
        Ok(all)
    }

    #[test]
    fn answers_are_understood_wherever_reads_end() {
        let mut damaged = plain(300, 2).to_vec();
        damaged[200] ^= 1;
        let records = [plain(10, 3), plain(1, 1), Bytes::from(damaged), plain(2000, 4)].concat();
        let cut = records.len() - 1;
        let short_cut = records.len() + 30;
        let more = [&records[..], &plain(5, 1)[..30]].concat();
        let mut refused = FetchResponse::default();
        refused.error_code = 70;
        let stream = [
            answer(0, "t", 0, &records),
            answer(0, &"long".repeat(50), 100, &records[..cut]),
            answer(0, "t", 1, &more),
            answer(1, "t", 0, &[]),
            framed(&refused),
        ]
        .concat();
        let whole = skim(&stream, stream.len()).expect("sound");
        let counts: Vec<(i32, bool)> = whole
            .iter()
            .filter_map(|found| match found {
                Found::Batch { header, is_intact, .. } => Some((header.record_count, *is_intact)),
                Found::End { .. } => None,
            })
            .collect();
        let all = [(3, true), (1, true), (2, false), (4, true)];
        assert_eq!(counts, [&all[..], &all[..3], &all[..]].concat());
        let end = |error, high_watermark, record_bytes| Found::End { error, high_watermark, record_bytes };
        let ends: Vec<Found> = whole.iter().copied().filter(|found| matches!(found, Found::End { .. })).collect();
        let length = records.len();
        assert_eq!(ends, [end(0, 12, length), end(0, 12, cut), end(0, 12, short_cut), end(1, 12, 0), end(70, -1, 0)]);
        for step in [1, 2, 3, 7, 60, 61, 62, 105, 127, 128, 129, 500, 4096] {
            assert_eq!(skim(&stream, step).expect("sound"), whole, "{step}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let records = plain(10, 3);
        let mut old = records.to_vec();
        old[16] = 1;
        for step in [1, 10, 1000] {
            assert!(matches!(skim(&answer(0, "t", 0, &old), step), Err(SkimError::Batch(BatchError::Magic { .. }))));
            assert_eq!(
                skim(b"HTTP/1.1 400 Bad Request\r\n\r\n", step),
                Ok(Vec::new()),
                "still waiting for a long answer"
            );
            assert_eq!(skim(&[0, 0, 0, 5, 1, 2, 3, 4, 5], step), Err(SkimError::NotKafka));
            assert_eq!(skim(&[0xff; 8], step), Err(SkimError::NotKafka));
        }
        // Whatever byte is changed: an error or another finding, never a panic.
        let sound = answer(0, "topic", 2, &records);
        for at in 0..sound.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = sound.clone();
                bytes[at] = value;
                let _ = (skim(&bytes, 7), skim(&bytes, 10_000));
            }
        }
    }
}
