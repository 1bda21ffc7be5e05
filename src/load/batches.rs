//! Batches that are built before the clock starts, and what is written into them when they are sent. Pure.

use super::outbox::Outbox;
use super::plan::{Plan, STAMP_BYTES, Values};
use crate::record::batch::{BatchHeader, Codec, crc32c};
use crate::record::builder::{BatchBuilder, BuildError};
use crate::record::records::Records;
use bytes::Bytes;
use std::ops::Range;

const CRC: Range<usize> = 17..21;
const ATTRIBUTES_AT: usize = 21;
/// Producer id, epoch and base sequence, one behind the other.
const PRODUCER: Range<usize> = 43..57;

/// A record's key, where it has one.
const KEY_BYTES: usize = 8;
/// Batches from this size on are not copied for each request.
const SHARED_BYTES_MIN: usize = 16 << 10;
/// Where sizes vary there are several batches, of so many bytes together, but at least and at most so many.
const VARIED_BYTES: u64 = 8 << 20;
const VARIED_COUNT: std::ops::RangeInclusive<u64> = 4..=64;
/// What is longer than so many times the mean is cut: chance has a long tail.
const EXPONENTIAL_MAX: f64 = 10.0;

/// A batch without producer, whose requests may each get marks of their own.
#[derive(Clone)]
pub struct Batch {
    body: Body,
    records: u32,
    value_bytes: u64,
    /// In a batch without compression: where its first record's value begins, and where its records' keys do, if they have any.
    value_at: usize,
    keys_at: Vec<usize>,
}

#[derive(Clone)]
enum Body {
    Copied(Vec<u8>),
    /// One copy, warm in the cache, serves all.
    Shared(Bytes),
}

/// Who sends a batch, for idempotence (KIP-98), and the batch's first sequence number in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

/// The batches of a run: one, or where sizes vary several that take turns.
pub fn batches(plan: &Plan, now_ms: i64) -> Result<Vec<Batch>, BuildError> {
    let mut random = fastrand::Rng::with_seed(plan.values.mean().to_bits() ^ u64::from(plan.batch_records));
    let records = plan.batch_records;
    let count = match &plan.values {
        Values::Fixed(_) => 1,
        Values::Uniform { .. } | Values::Exponential { .. } => {
            let one = (plan.values.mean() * f64::from(records)) as u64;
            (VARIED_BYTES / one.max(1)).clamp(*VARIED_COUNT.start(), *VARIED_COUNT.end())
        }
        Values::Lines(lines) => (lines.len() as u64).div_ceil(u64::from(records)),
    };
    (0..count).map(|number| built(plan, number * u64::from(records), &mut random, now_ms)).collect()
}

/// The batch of one record that a probe sends, which nobody's end to end latency counts.
pub fn probe(plan: &Plan, now_ms: i64) -> Result<Batch, BuildError> {
    let values = Values::Fixed(plan.values.least().max(STAMP_BYTES));
    let mut random = fastrand::Rng::with_seed(u64::from(plan.batch_records));
    let mut batch = built(&Plan { values, keys: None, batch_records: 1, ..plan.clone() }, 0, &mut random, now_ms)?;
    batch.mark(Some(NOT_COUNTED), None, None);
    Ok(batch)
}

/// The stamp of what is not counted.
pub const NOT_COUNTED: u64 = u64::MAX;

/// `first`: the number of its first record, among lines that are replayed.
fn built(plan: &Plan, first: u64, random: &mut fastrand::Rng, now_ms: i64) -> Result<Batch, BuildError> {
    // Keys, if there are to be any, are drawn when the batch is sent.
    let key = plan.keys.map(|_| [0; KEY_BYTES]);
    let mut builder = BatchBuilder::new(plan.compression);
    let (mut chance, mut value_bytes) = (Vec::new(), 0);
    for record in first..first + u64::from(plan.batch_records) {
        let value = match &plan.values {
            Values::Lines(lines) => &lines[(record % lines.len() as u64) as usize],
            values => {
                fill(&mut chance, size(values, random), random);
                &chance[..]
            }
        };
        value_bytes += value.len() as u64;
        builder.push(now_ms, key.as_ref().map(|key| &key[..]), Some(value), &[])?;
    }
    let bytes = builder.build()?;
    let (value_at, keys_at) = (first_value(&bytes), keys(&bytes));
    let body = match plan.is_marked() || bytes.len() < SHARED_BYTES_MIN {
        true => Body::Copied(bytes.to_vec()),
        false => Body::Shared(bytes),
    };
    Ok(Batch { body, records: plan.batch_records, value_bytes, value_at, keys_at })
}

fn size(values: &Values, random: &mut fastrand::Rng) -> usize {
    let bytes = match values {
        Values::Fixed(bytes) => *bytes,
        Values::Uniform { least, most } => random.u32(*least..=*most),
        Values::Exponential { mean } => {
            let times = -(1.0 - random.f64()).ln();
            (f64::from(*mean) * times.min(EXPONENTIAL_MAX)) as u32
        }
        Values::Lines(_) => 0,
    };
    bytes as usize
}

/// Half of each value is chance and half is text, as compressible as events are; none can be compressed to nothing.
fn fill(value: &mut Vec<u8>, bytes: usize, random: &mut fastrand::Rng) {
    value.resize(bytes, 0);
    let (chance, text) = value.split_at_mut(bytes / 2);
    random.fill(chance);
    text.fill_with(|| random.digit(10) as u8);
}

impl Batch {
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    pub fn records(&self) -> u32 {
        self.records
    }

    /// Bytes of all values.
    pub fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Copied(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }

    pub fn put(&self, out: &mut Outbox) {
        match &self.body {
            Body::Copied(bytes) => out.copy(bytes),
            Body::Shared(bytes) => out.share(bytes.clone()),
        }
    }

    /// Writes a number into the first value, draws a key below so many for each record, names the producer. What is shared stays as it is.
    pub fn mark(&mut self, stamp: Option<u64>, keys: Option<(u64, &mut fastrand::Rng)>, author: Option<Author>) {
        let Body::Copied(bytes) = &mut self.body else { return };
        if stamp.is_none() && keys.is_none() && author.is_none() {
            return;
        }
        if let Some(stamp) = stamp {
            bytes[self.value_at..self.value_at + STAMP_BYTES as usize].copy_from_slice(&stamp.to_be_bytes());
        }
        if let Some((keys, random)) = keys {
            for at in &self.keys_at {
                bytes[*at..*at + KEY_BYTES].copy_from_slice(&random.u64(..keys).to_be_bytes());
            }
        }
        if let Some(Author { id, epoch, sequence }) = author {
            let producer = &mut bytes[PRODUCER];
            producer[..8].copy_from_slice(&id.to_be_bytes());
            producer[8..10].copy_from_slice(&epoch.to_be_bytes());
            producer[10..].copy_from_slice(&sequence.to_be_bytes());
        }
        let crc = crc32c(&bytes[ATTRIBUTES_AT..]);
        bytes[CRC].copy_from_slice(&crc.to_be_bytes());
    }
}

/// Where the keys of a batch's records begin, if it is not compressed and they are of our length.
fn keys(batch: &[u8]) -> Vec<usize> {
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

/// The stamp of a batch that was marked with one, from the batch's beginning; None if that is too short for one.
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

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;
    use std::collections::BTreeSet;

    const NOW: i64 = 1_700_000_000_000;

    /// Keys (as numbers) and lengths of a batch's records; its CRC is right.
    fn records(batch: &Batch) -> Vec<(Option<u64>, Vec<u8>)> {
        let header = BatchHeader::parse(batch.bytes()).expect("header");
        assert!(header.crc_matches(batch.bytes()));
        assert_eq!((header.record_count as u32, header.total_len()), (batch.records(), batch.len()));
        let mut records = Records::new(&header, batch.bytes()).expect("records");
        let mut all = Vec::new();
        while let Some(record) = records.next().expect("record") {
            let key = record.key.map(|key| u64::from_be_bytes(key.try_into().expect("8 bytes")));
            all.push((key, record.value.expect("a value").to_vec()));
        }
        assert_eq!(all.iter().map(|(_, value)| value.len() as u64).sum::<u64>(), batch.value_bytes());
        all
    }

    fn of(values: Values, batch_records: u32) -> Vec<Batch> {
        batches(&Plan { values, batch_records, ..plan() }, NOW).expect("built")
    }

    #[test]
    fn records_get_keys_by_chance() {
        let plan = Plan { keys: Some(300), values: Values::Fixed(50), batch_records: 200, ..plan() };
        let mut batch = batches(&plan, NOW).expect("built").remove(0);
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn = || -> Vec<u64> {
            batch.mark(None, Some((300, &mut random)), None);
            records(&batch).into_iter().map(|(key, _)| key.expect("a key")).collect()
        };
        let (first, second) = (drawn(), drawn());
        assert_eq!((first.len(), second.len()), (200, 200));
        assert!(first != second && first.iter().chain(&second).all(|key| *key < 300));
        assert!(first.iter().collect::<BTreeSet<_>>().len() > 100);
    }

    #[test]
    fn sizes_are_spread_as_wanted() {
        let sizes = |values| -> Vec<usize> {
            let each = |batch: &Batch| records(batch).into_iter().map(|(_, value)| value.len()).collect::<Vec<_>>();
            of(values, 100).iter().flat_map(each).collect()
        };
        let fixed = sizes(Values::Fixed(70));
        assert_eq!(fixed, [70; 100]);
        let uniform = sizes(Values::Uniform { least: 10, most: 20 });
        assert_eq!((uniform.iter().min(), uniform.iter().max(), uniform.len()), (Some(&10), Some(&20), 6400));
        let chance = sizes(Values::Exponential { mean: 1000 });
        let mean = chance.iter().sum::<usize>() as f64 / chance.len() as f64;
        assert!((900.0..1100.0).contains(&mean), "{mean}");
        let short = chance.iter().filter(|size| **size < 693).count() as f64 / chance.len() as f64;
        assert!((0.46..0.54).contains(&short), "half are below the mean times the logarithm of two, found {short}");
        assert!(chance.iter().all(|size| *size <= 10_000));
    }

    #[test]
    fn lines_are_replayed_in_order_and_begin_again_within_the_last_batch() {
        let lines: Vec<Bytes> = ["one", "two", "", "four", "five"].map(Bytes::from).into();
        let batches = of(Values::Lines(lines.into()), 2);
        let values: Vec<Vec<u8>> = batches.iter().flat_map(records).map(|(_, value)| value).collect();
        assert_eq!(values, [&b"one"[..], b"two", b"", b"four", b"five", b"one"]);
    }

    #[test]
    fn marks_are_read_back() {
        let author = Author { id: 1 << 40, epoch: 3, sequence: i32::MAX };
        for (bytes, count) in [(8, 1), (100, 10), (70_000, 1)] {
            let plan = Plan { idempotent: true, values: Values::Fixed(bytes), batch_records: count, ..plan() };
            let mut batch = batches(&plan, NOW).expect("built").remove(0);
            batch.mark(Some(77), None, Some(author));
            assert_eq!((stamp_of(batch.bytes()), records(&batch).len()), (Some(77), count as usize));
            let header = BatchHeader::parse(batch.bytes()).expect("header");
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (1 << 40, 3, i32::MAX));
        }
        assert_eq!(stamp_of(probe(&plan(), NOW).expect("built").bytes()), Some(NOT_COUNTED));
    }
}
