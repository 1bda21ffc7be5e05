//! Passes over small random logs in memory, compared with what a plain list of records says should be left.
//!
//! A failure names its seed; `CORELOG_SEED` runs it alone.

use super::keep::{Keeper, Kept, Keys, LastBatches};
use super::plan::{SegmentFacts, group};
use crate::base::config::topic::TopicConfig;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::seeds::each_seed;
use crate::record::batch::{BatchHeader, Codec, walk};
use crate::record::builder::BatchBuilder;
use crate::record::compression::Compression;
use crate::record::records::Records;
use fastrand::Rng;
use std::collections::{BTreeMap, HashMap};

const SEEDS: u64 = 600;

/// A record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: usize,
}

struct Log {
    /// Segments by base; the bytes of each.
    segments: BTreeMap<i64, Vec<u8>>,
    end: i64,
    cleaned: i64,
    config: TopicConfig,
    last_batches: LastBatches,
    /// Next sequence of each producer.
    sequences: HashMap<i64, i32>,
    /// Everything that was ever appended outside transactions, and all of it.
    plain: Vec<Told>,
    all: Vec<Told>,
    now_ms: i64,
}

#[test]
fn what_is_left_is_what_a_plain_list_leaves() {
    each_seed(SEEDS, run);
}

fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let config = TopicConfig {
        segment_bytes: rng.u32(400..6000),
        segment_index_bytes: if rng.u8(0..5) == 0 { 24 } else { 10 << 20 },
        delete_retention_ms: rng.i64(1..3000),
        ..TopicConfig::default()
    };
    let mut log = Log {
        segments: BTreeMap::new(),
        end: 0,
        cleaned: 0,
        config,
        last_batches: LastBatches::new(),
        sequences: HashMap::new(),
        plain: Vec::new(),
        all: Vec::new(),
        now_ms: 1_000_000,
    };
    for _ in 0..rng.usize(1..5) {
        for _ in 0..rng.usize(1..12) {
            log.append(&mut rng);
        }
        log.now_ms += rng.i64(0..2000);
        let bytes = 24 * rng.u64(2..40);
        let stops = rng.u8(0..8) == 0;
        log.pass(bytes, stops);
        log.check();
        // Nothing is left to do: the records stay what they are, and once neighbours have become one, so do the bytes.
        let before = log.told();
        let cleaned = log.cleaned;
        if log.dirty_end() == cleaned && !stops {
            log.pass(bytes, false);
            assert_eq!(log.told(), before);
            let bytes_before = log.segments.clone();
            log.pass(bytes, false);
            if log.segments.len() == bytes_before.len() {
                assert_eq!(log.segments, bytes_before);
            }
        }
    }
}

impl Log {
    fn append(&mut self, rng: &mut Rng) {
        let codec = *rng.choice(&Codec::ALL).expect("some");
        let kind = rng.u8(0..20);
        let mut builder =
            BatchBuilder::new(Compression::of(codec)).placed(Offset(self.end), LeaderEpoch(rng.i32(0..2)));
        let producer = (kind < 10).then(|| rng.i64(0..3));
        let count = rng.i32(1..8);
        if let Some(id) = producer {
            let sequence = self.sequences.entry(id).or_insert(0);
            builder = builder.producer(id, 0, *sequence);
            *sequence += count;
        }
        let (transactional, control) = (kind < 3, kind == 0);
        if transactional {
            builder = builder.transactional();
        }
        if control {
            builder = builder.control();
        }
        let append_time = (kind == 15).then_some(self.now_ms + 5);
        if let Some(time) = append_time {
            builder = builder.log_append_time(time);
        }
        for n in 0..count {
            let key = (rng.u8(0..40) > 0).then(|| vec![b'k', rng.u8(0..12)]);
            let value = (rng.u8(0..4) > 0).then(|| vec![rng.u8(..); rng.usize(0..60)]);
            let timestamp = self.now_ms - rng.i64(0..50);
            let headers: &[(&str, Option<&[u8]>)] = if rng.bool() { &[("h", Some(b"v"))] } else { &[] };
            builder.push(timestamp, key.as_deref(), value.as_deref(), headers).expect("small");
            let told = Told {
                offset: self.end + i64::from(n),
                timestamp: append_time.unwrap_or(timestamp),
                key,
                value,
                headers: headers.len(),
            };
            if !transactional {
                self.plain.push(told.clone());
            }
            self.all.push(told);
        }
        let bytes = builder.build().expect("has records");
        self.end += i64::from(count);
        if let Some(id) = producer.filter(|_| !control) {
            self.last_batches.insert(id, Offset(self.end - 1));
        }
        let fits = self.segments.last_entry().filter(|last| {
            last.get().is_empty() || last.get().len() + bytes.len() <= self.config.segment_bytes as usize
        });
        match fits {
            Some(mut last) => last.get_mut().extend_from_slice(&bytes),
            None => {
                self.segments.insert(self.end - i64::from(count), bytes.to_vec());
            }
        }
    }

    /// Where the active segment begins.
    fn dirty_end(&self) -> i64 {
        self.segments.last_key_value().map_or(0, |(base, _)| *base).max(self.cleaned)
    }

    /// One pass; `stops`: after the first group, as a crash would.
    fn pass(&mut self, map_bytes: u64, stops: bool) {
        let uncleanable = self.dirty_end();
        let mut keys = Keys::new(Offset(self.cleaned), (map_bytes, 0.9), u64::MAX);
        let bases: Vec<i64> = self.segments.keys().copied().collect();
        'all: for (i, (base, bytes)) in self.segments.iter().enumerate() {
            if *base >= uncleanable {
                break;
            }
            for batch in walk(bytes) {
                let batch = batch.expect("whole");
                if !keys.note(&batch.header, batch.bytes).expect("sound") {
                    break 'all;
                }
            }
            keys.segment_ended(Offset(bases[i + 1]));
        }
        let end = keys.end();
        let before = self.told();
        let expected = self.expected(&before, end.0);
        let cleaned: Vec<i64> = bases.into_iter().filter(|base| *base < end.0.min(uncleanable)).collect();
        let facts: Vec<SegmentFacts> = cleaned
            .iter()
            .map(|base| SegmentFacts {
                base: Offset(*base),
                bytes: self.segments[base].len() as u32,
                max_timestamp_ms: None,
                first_timestamp_ms: None,
                index_bytes: (8, 12),
            })
            .collect();
        let next_of_all =
            self.segments.range(cleaned.last().map_or(0, |base| base + 1)..).next().map(|(base, _)| *base);
        let retention = (self.now_ms, self.config.delete_retention_ms);
        let mut keeper = Keeper::new(keys, self.last_batches.clone(), retention);
        let groups = group(&facts, Offset(next_of_all.unwrap_or(self.end)), &self.config);
        for group in &groups {
            let mut merged = Vec::new();
            for at in group.clone() {
                let source = self.segments.remove(&facts[at].base.0).expect("it is there");
                for batch in walk(&source) {
                    let batch = batch.expect("whole");
                    let is_last = at + 1 == group.end && batch.at + batch.bytes.len() == source.len();
                    match keeper.keep(&batch.header, batch.bytes, is_last).expect("sound") {
                        Kept::Whole => merged.extend_from_slice(batch.bytes),
                        Kept::Rewritten(bytes) => merged.extend_from_slice(&bytes),
                        Kept::Nothing => {}
                    }
                }
            }
            self.segments.insert(facts[group.start].base.0, merged);
            if stops {
                return;
            }
        }
        self.cleaned = end.0;
        assert_eq!(self.told(), expected, "cleaned up to {end}");
    }

    /// What the records of the log should be after a pass whose map ends at `end`.
    fn expected(&self, before: &[Told], end: i64) -> Vec<Told> {
        let from = self.cleaned;
        let (headers, is_plain) = (self.headers(), |offset: i64| self.plain.iter().any(|told| told.offset == offset));
        let mut latest: HashMap<&[u8], i64> = HashMap::new();
        for told in before.iter().filter(|told| (from..end).contains(&told.offset) && is_plain(told.offset)) {
            if let Some(key) = &told.key {
                latest.insert(key, told.offset);
            }
        }
        let stays = |told: &&Told| {
            let header = headers.iter().find(|h| h.base_offset.0 <= told.offset && told.offset <= h.last_offset().0);
            let header = header.expect("every record has its batch");
            if told.offset >= end || header.is_control() {
                return true;
            }
            let Some(key) = &told.key else { return header.is_transactional() };
            let superseded = latest.get(&key[..]).is_some_and(|latest| *latest > told.offset);
            let over = header.has_delete_horizon() && header.base_timestamp <= self.now_ms;
            !superseded && (told.value.is_some() || !over || header.is_transactional())
        };
        before.iter().filter(stays).cloned().collect()
    }

    fn headers(&self) -> Vec<BatchHeader> {
        self.segments.values().flat_map(|bytes| walk(bytes).map(|batch| batch.expect("whole").header)).collect()
    }

    fn told(&self) -> Vec<Told> {
        let mut all = Vec::new();
        for bytes in self.segments.values() {
            for batch in walk(bytes) {
                let batch = batch.expect("whole");
                assert!(batch.header.crc_matches(batch.bytes));
                let mut records = Records::new(&batch.header, batch.bytes).expect("sound");
                while let Some(record) = records.next().expect("sound") {
                    all.push(Told {
                        offset: record.offset.0,
                        timestamp: record.timestamp,
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        headers: record.headers.len(),
                    });
                }
            }
        }
        all
    }

    /// What holds after any number of passes, whole or cut short.
    fn check(&self) {
        let told = self.told();
        assert!(told.is_sorted_by(|a, b| a.offset < b.offset), "order and offsets stay");
        let known: HashMap<i64, &Told> = self.all.iter().map(|told| (told.offset, told)).collect();
        for record in &told {
            assert_eq!(known[&record.offset], record, "a record that stays is what it was");
        }
        let markers: Vec<BatchHeader> = self.headers().into_iter().filter(BatchHeader::is_control).collect();
        // The latest value of each key, and no value that a later tombstone has deleted.
        let mut latest: HashMap<&[u8], &Told> = HashMap::new();
        for record in self.plain.iter() {
            latest.extend(record.key.as_deref().map(|key| (key, record)));
        }
        for record in latest.values() {
            let is_there = told.contains(record);
            let is_marker = |offset| markers.iter().any(|h| (h.base_offset..h.next_offset()).contains(&Offset(offset)));
            let older = told
                .iter()
                .any(|other| other.key == record.key && other.offset < record.offset && !is_marker(other.offset));
            assert!(is_there || (record.value.is_none() && !older), "{record:?} is lost");
        }
        // Segments end where the next one begins; each producer's last batch is there, with its sequence.
        let bases: Vec<i64> = self.segments.keys().copied().chain([self.end]).collect();
        for (i, bytes) in self.segments.values().enumerate() {
            let headers: Vec<BatchHeader> = walk(bytes).map(|batch| batch.expect("whole").header).collect();
            assert_eq!(headers.last().map(BatchHeader::next_offset), Some(Offset(bases[i + 1])));
            assert!(headers.is_sorted_by(|a, b| a.next_offset() <= b.base_offset));
            for header in headers.iter().filter(|header| header.record_count > 0 && !header.is_control()) {
                let times = told
                    .iter()
                    .filter(|told| (header.base_offset..header.next_offset()).contains(&Offset(told.offset)));
                assert_eq!(times.map(|told| told.timestamp).max(), Some(header.max_timestamp));
            }
        }
        for (id, last) in &self.last_batches {
            let header = self.headers().into_iter().find(|h| h.last_offset() == *last && h.producer_id == *id);
            let header = header.expect("kept, even if it is empty");
            let own = self.headers().into_iter().filter(|h| h.producer_id == *id && !h.is_control());
            assert!(own.map(|h| h.last_offset()).max() == Some(header.last_offset()));
        }
    }
}
