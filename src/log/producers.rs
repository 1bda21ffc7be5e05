//! Idempotent producers of one partition (KIP-98): their last batches, so that a retry is recognised and a gap refused.
//!
//! The snapshot beside the segments has Kafka's layout:
//!
//! ```text
//! | version i16 = 1 | crc32c u32 of what follows | count i32 | entries |
//! entry: | producer id i64 | epoch i16 | last sequence i32 | last offset i64 | offset delta i32 |
//!        | timestamp i64 | coordinator epoch i32 | first offset of the open transaction i64, or -1 |
//! ```
//!
//! Kafka writes one entry for a producer, its last batch. Here there is one for each batch that is remembered, oldest first: a
//! producer that had five requests under way when the broker died sends all five again, and all must be recognised. Kafka takes
//! the last entry of a producer, which is the one that it would have written.
//!
//! Crash argument: a snapshot named after offset N only repeats what the log says below N. It is written when a segment
//! is sealed and when the log is closed; recovery takes the newest one that passes its CRC and is not beyond the log's
//! end, and reads the log from there. Without any, it reads the log from its start.

use crate::base::ids::{Offset, ProducerId};
use crate::base::limits::PRODUCERS_PER_PARTITION_MAX;
use crate::record::batch::{BatchHeader, NO_PRODUCER_EPOCH, NO_SEQUENCE, crc32c, increment_sequence};
use std::collections::{HashMap, VecDeque};

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_HEADER_BYTES: usize = 10;
const SNAPSHOT_ENTRY_BYTES: usize = 46;
/// Batches that are remembered of each producer: what clients keep in flight at most.
const BATCHES_KEPT: usize = 5;
/// One more tells a snapshot what came before those in flight: a client of five in flight may have all of them above its
/// offset, and a crash may take all of them.
const SPANS_KEPT: usize = BATCHES_KEPT + 1;
/// Earlier epochs of a producer that a snapshot may have to tell of: those of the batches that are being written.
const EPOCHS_KEPT: usize = 3;
/// When there are too many producers, one of so many goes.
const FORGOTTEN_SHARE: usize = 100;

/// All idempotent producers that wrote to a partition lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: HashMap<ProducerId, ProducerEntry, foldhash::fast::RandomState>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ProducerEntry {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp_ms: i64,
    transaction_first_offset: Option<Offset>,
    batches: VecDeque<BatchSpan>,
    /// Epochs before this one with their batches, oldest first. For snapshots alone: the batch that brought the new epoch may lie
    /// above their offset, and a crash may take it.
    before: Vec<(i16, VecDeque<BatchSpan>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BatchSpan {
    last_sequence: i32,
    last_offset: Offset,
    offset_delta: i32,
    timestamp_ms: i64,
}

/// What the state says about a batch that wants to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// The batch is in the log already; the retry is answered as the original was.
    Duplicate {
        base_offset: Offset,
        last_offset: Offset,
        timestamp_ms: i64,
    },
}

/// Why a batch of an idempotent producer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    #[error("Epoch of producer {producer} is {found}, which is smaller than the last seen epoch {current}")]
    StaleEpoch { producer: ProducerId, found: i16, current: i16 },
    #[error(
        "Out of order sequence number for producer {producer}: {found} (incoming seq. number), {last} (current end sequence number)"
    )]
    OutOfOrder { producer: ProducerId, found: i32, last: i32 },
    #[error(
        "Invalid sequence number for new epoch of producer {producer}: {found} (seq. number), {current} (current producer epoch)"
    )]
    NewEpochNotFromZero { producer: ProducerId, found: i32, current: i16 },
}

/// Why a snapshot file was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("{found} bytes are too short for {expected}")]
    Short { expected: usize, found: usize },
    #[error("version {found} is not {SNAPSHOT_VERSION}")]
    Version { found: i16 },
    #[error("CRC {found:08x}, expected {expected:08x}")]
    Crc { expected: u32, found: u32 },
}

impl ProducerStates {
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Decides about a batch of a client; changes nothing. Batches without a producer id always append.
    pub fn check(&self, batch: &BatchHeader) -> Result<Verdict, ProducerError> {
        let Some(entry) = producer_of(batch).and_then(|id| self.producers.get(&id)) else {
            // Unknown producers may begin anywhere: their records may be gone by retention.
            return Ok(Verdict::Append);
        };
        if let Some(span) = entry.find_duplicate(batch) {
            return Ok(Verdict::Duplicate {
                base_offset: span.last_offset + -i64::from(span.offset_delta),
                last_offset: span.last_offset,
                timestamp_ms: span.timestamp_ms,
            });
        }
        let producer = ProducerId(batch.producer_id);
        if batch.producer_epoch < entry.epoch {
            return Err(ProducerError::StaleEpoch { producer, found: batch.producer_epoch, current: entry.epoch });
        }
        let found = batch.base_sequence;
        if batch.producer_epoch != entry.epoch {
            if found != 0 && entry.epoch != NO_PRODUCER_EPOCH {
                return Err(ProducerError::NewEpochNotFromZero { producer, found, current: entry.epoch });
            }
            return Ok(Verdict::Append);
        }
        let last = entry.batches.back().map_or(NO_SEQUENCE, |span| span.last_sequence);
        if entry.epoch != NO_PRODUCER_EPOCH && !follows(last, found) {
            return Err(ProducerError::OutOfOrder { producer, found, last });
        }
        Ok(Verdict::Append)
    }

    /// Notes an appended batch, of a client or found by recovery; its offsets are final.
    pub fn note(&mut self, batch: &BatchHeader) {
        let Some(id) = producer_of(batch) else { return };
        if !self.producers.contains_key(&id) && self.producers.len() >= PRODUCERS_PER_PARTITION_MAX {
            self.forget_oldest(PRODUCERS_PER_PARTITION_MAX / FORGOTTEN_SHARE);
        }
        let entry = self.producers.entry(id).or_insert_with(ProducerEntry::new);
        if batch.producer_epoch != entry.epoch {
            entry.end_epoch();
            entry.epoch = batch.producer_epoch;
        }
        entry.last_timestamp_ms = batch.max_timestamp;
        if batch.is_control() {
            entry.transaction_first_offset = None;
            return;
        }
        if batch.is_transactional() && entry.transaction_first_offset.is_none() {
            entry.transaction_first_offset = Some(batch.base_offset);
        }
        if entry.batches.len() == SPANS_KEPT {
            entry.batches.pop_front();
        }
        entry.batches.push_back(BatchSpan {
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta,
            timestamp_ms: batch.max_timestamp,
        });
    }

    /// Forgets producers without an open transaction whose last batch is older than `expiration_ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, entry| {
            entry.transaction_first_offset.is_some() || now_ms.saturating_sub(entry.last_timestamp_ms) < expiration_ms
        });
    }

    /// The last offset of each producer's last batch, where that lies below `end`: what compaction keeps for its sequence's sake.
    pub fn last_batches_below(&self, end: Offset) -> HashMap<i64, Offset> {
        let last = |(id, entry): (&ProducerId, &ProducerEntry)| Some((id.0, entry.batches.back()?.last_offset));
        self.producers.iter().filter_map(last).filter(|(_, last)| *last < end).collect()
    }

    pub fn clear(&mut self) {
        self.producers.clear();
    }

    /// The snapshot of what the log says below `end`. Batches that were taken but lie above are left out: the log is read
    /// from `end` on when the snapshot is loaded, and what a crash cut off must not be taken for a duplicate.
    pub fn encode(&self, end: Offset) -> Vec<u8> {
        let mut body = Vec::with_capacity(4 + self.producers.len() * SNAPSHOT_ENTRY_BYTES);
        let known = self.producers.iter().filter_map(|(id, entry)| Some((*id, entry.below(end)?)));
        let mut sorted: Vec<(ProducerId, Below)> = known.collect();
        sorted.sort_by_key(|(id, _)| *id);
        body.extend_from_slice(&[0; 4]);
        let mut count = 0i32;
        for (id, Below { entry, epoch, batches }) in sorted {
            let below = batches.iter().filter(|span| span.last_offset < end).map(Some);
            let none = batches.is_empty().then_some(None);
            for span in below.chain(none) {
                encode_entry(&mut body, (id, epoch), entry, span);
                count += 1;
            }
        }
        body[..4].copy_from_slice(&count.to_be_bytes());
        let mut out = Vec::with_capacity(6 + body.len());
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&crc32c(&body).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    pub fn decode(content: &[u8]) -> Result<ProducerStates, SnapshotError> {
        let short = |expected| SnapshotError::Short { expected, found: content.len() };
        let header = content.first_chunk::<SNAPSHOT_HEADER_BYTES>().ok_or_else(|| short(SNAPSHOT_HEADER_BYTES))?;
        let [v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = *header;
        let version = i16::from_be_bytes([v0, v1]);
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { found: version });
        }
        let expected = u32::from_be_bytes([c0, c1, c2, c3]);
        let found = crc32c(&content[6..]);
        if expected != found {
            return Err(SnapshotError::Crc { expected, found });
        }
        let count = usize::try_from(i32::from_be_bytes([n0, n1, n2, n3])).unwrap_or(0);
        let (chunks, _) = content[SNAPSHOT_HEADER_BYTES..].as_chunks::<SNAPSHOT_ENTRY_BYTES>();
        if chunks.len() < count {
            return Err(short(SNAPSHOT_HEADER_BYTES + count.saturating_mul(SNAPSHOT_ENTRY_BYTES)));
        }
        let mut states = ProducerStates::default();
        for (id, entry) in chunks.iter().take(count).map(decode_entry) {
            if states.producers.len() < PRODUCERS_PER_PARTITION_MAX || states.producers.contains_key(&id) {
                states.take_in(id, entry);
            }
        }
        Ok(states)
    }

    /// Adds a snapshot's entry; what earlier ones said of the producer's batches stays as far as there is room.
    fn take_in(&mut self, id: ProducerId, mut entry: ProducerEntry) {
        if let Some(earlier) = self.producers.remove(&id).filter(|earlier| earlier.epoch == entry.epoch) {
            let newest = std::mem::replace(&mut entry.batches, earlier.batches);
            entry.batches.extend(newest);
            while entry.batches.len() > SPANS_KEPT {
                entry.batches.pop_front();
            }
        }
        self.producers.insert(id, entry);
    }

    /// Forgets those that were silent longest, many at once: looking for them goes through all of them.
    fn forget_oldest(&mut self, count: usize) {
        let mut by_age: Vec<_> = self.producers.iter().map(|(id, entry)| (entry.last_timestamp_ms, *id)).collect();
        let count = count.clamp(1, by_age.len());
        by_age.select_nth_unstable(count - 1);
        for (_, id) in &by_age[..count] {
            self.producers.remove(id);
        }
    }
}

impl ProducerEntry {
    fn new() -> Self {
        ProducerEntry {
            epoch: NO_PRODUCER_EPOCH,
            coordinator_epoch: -1,
            last_timestamp_ms: -1,
            transaction_first_offset: None,
            batches: VecDeque::with_capacity(1),
            before: Vec::new(),
        }
    }

    /// A batch of another epoch has come.
    fn end_epoch(&mut self) {
        let ended = std::mem::take(&mut self.batches);
        if ended.is_empty() {
            return;
        }
        if self.before.len() == EPOCHS_KEPT {
            self.before.remove(0);
        }
        self.before.push((self.epoch, ended));
    }

    /// What was known of it below `end`, if anything. No batch at all is the state after a control batch alone.
    fn below(&self, end: Offset) -> Option<Below<'_>> {
        let is_below = |batches: &VecDeque<BatchSpan>| batches.iter().any(|span| span.last_offset < end);
        if self.batches.is_empty() || is_below(&self.batches) {
            return Some(Below { entry: self, epoch: self.epoch, batches: &self.batches });
        }
        let (epoch, batches) = self.before.iter().rev().find(|(_, batches)| is_below(batches))?;
        Some(Below { entry: self, epoch: *epoch, batches })
    }

    fn find_duplicate(&self, batch: &BatchHeader) -> Option<BatchSpan> {
        if batch.producer_epoch != self.epoch {
            return None;
        }
        let last_sequence = batch.last_sequence();
        let mut latest = self.batches.iter().rev().take(BATCHES_KEPT);
        latest.find(|span| span.last_sequence == last_sequence && span.offset_delta == batch.last_offset_delta).copied()
    }
}

/// A producer's epoch and batches as a snapshot tells of them.
struct Below<'a> {
    entry: &'a ProducerEntry,
    epoch: i16,
    batches: &'a VecDeque<BatchSpan>,
}

fn producer_of(batch: &BatchHeader) -> Option<ProducerId> {
    batch.has_producer_id().then_some(ProducerId(batch.producer_id))
}

/// Whether `next` follows `last`: sequences count records and wrap from the greatest i32 to 0.
fn follows(last: i32, next: i32) -> bool {
    if last == NO_SEQUENCE { next == 0 } else { next == increment_sequence(last, 1) }
}

/// `span`: one of the producer's batches, if there are any.
fn encode_entry(body: &mut Vec<u8>, (id, epoch): (ProducerId, i16), entry: &ProducerEntry, span: Option<&BatchSpan>) {
    body.extend_from_slice(&id.0.to_be_bytes());
    body.extend_from_slice(&epoch.to_be_bytes());
    body.extend_from_slice(&span.map_or(NO_SEQUENCE, |span| span.last_sequence).to_be_bytes());
    body.extend_from_slice(&span.map_or(-1, |span| span.last_offset.0).to_be_bytes());
    body.extend_from_slice(&span.map_or(0, |span| span.offset_delta).to_be_bytes());
    body.extend_from_slice(&span.map_or(entry.last_timestamp_ms, |span| span.timestamp_ms).to_be_bytes());
    body.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
    body.extend_from_slice(&entry.transaction_first_offset.map_or(-1, |offset| offset.0).to_be_bytes());
}

fn decode_entry(chunk: &[u8; SNAPSHOT_ENTRY_BYTES]) -> (ProducerId, ProducerEntry) {
    fn at<const N: usize>(chunk: &[u8; SNAPSHOT_ENTRY_BYTES], from: usize) -> [u8; N] {
        *chunk[from..].first_chunk::<N>().expect("field offsets lie inside the entry")
    }
    let id = ProducerId(i64::from_be_bytes(at(chunk, 0)));
    let last_offset = i64::from_be_bytes(at(chunk, 14));
    let timestamp_ms = i64::from_be_bytes(at(chunk, 26));
    let transaction = i64::from_be_bytes(at(chunk, 38));
    let mut batches = VecDeque::with_capacity(1);
    if last_offset >= 0 {
        batches.push_back(BatchSpan {
            last_sequence: i32::from_be_bytes(at(chunk, 10)),
            last_offset: Offset(last_offset),
            offset_delta: i32::from_be_bytes(at(chunk, 22)),
            timestamp_ms,
        });
    }
    let entry = ProducerEntry {
        epoch: i16::from_be_bytes(at(chunk, 8)),
        coordinator_epoch: i32::from_be_bytes(at(chunk, 34)),
        last_timestamp_ms: timestamp_ms,
        transaction_first_offset: (transaction >= 0).then_some(Offset(transaction)),
        batches,
        before: Vec::new(),
    };
    (id, entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, base_sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(base_offset),
            batch_length: 49,
            partition_leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence,
            record_count: count,
        }
    }

    #[test]
    fn a_retry_is_recognised_and_a_gap_refused() {
        let mut states = ProducerStates::default();
        for i in 0..7 {
            let next = batch(0, i * 10, 10, i64::from(i) * 10);
            assert_eq!(states.check(&next), Ok(Verdict::Append));
            states.note(&next);
        }
        let retry = states.check(&batch(0, 60, 10, 0));
        assert!(matches!(retry, Ok(Verdict::Duplicate { base_offset: Offset(60), last_offset: Offset(69), .. })));
        assert!(matches!(states.check(&batch(0, 20, 10, 0)), Ok(Verdict::Duplicate { base_offset: Offset(20), .. })));
        let forgotten = states.check(&batch(0, 10, 10, 0));
        assert!(matches!(forgotten, Err(ProducerError::OutOfOrder { found: 10, last: 69, .. })));
        assert!(matches!(states.check(&batch(0, 80, 1, 0)), Err(ProducerError::OutOfOrder { .. })));
        assert_eq!(states.check(&batch(1, 0, 1, 0)), Ok(Verdict::Append));
        assert!(matches!(states.check(&batch(1, 5, 1, 0)), Err(ProducerError::NewEpochNotFromZero { .. })));
        assert!(matches!(states.check(&batch(-1, 5, 1, 0)), Err(ProducerError::StaleEpoch { .. })));
    }

    #[test]
    fn sequences_wrap() {
        let mut states = ProducerStates::default();
        states.note(&batch(0, i32::MAX - 1, 2, 0));
        assert_eq!(states.check(&batch(0, 0, 1, 2)), Ok(Verdict::Append));
        states.note(&batch(0, 0, 3, 2));
        assert_eq!(states.check(&batch(0, 3, 1, 5)), Ok(Verdict::Append));
    }

    /// A segment was sealed while the batch that bore a new epoch was being written behind it: its snapshot had forgotten the
    /// producer, and when a crash took that batch, a fenced one was let in.
    #[test]
    fn a_snapshot_tells_of_the_epoch_that_counted_below_it() {
        let mut states = ProducerStates::default();
        for (epoch, base) in [(0, 0), (1, 10), (2, 20), (3, 30)] {
            states.note(&batch(epoch, 0, 10, base));
        }
        for (end, epoch, last) in [(40, 3, 39), (30, 2, 29), (20, 1, 19), (10, 0, 9)] {
            let below = ProducerStates::decode(&states.encode(Offset(end))).expect("whole");
            let mut expected = ProducerStates::default();
            expected.note(&batch(epoch, 0, 10, last - 9));
            assert_eq!(below, expected, "below {end}");
        }
        assert!(ProducerStates::decode(&states.encode(Offset(5))).expect("whole").is_empty());
    }

    #[test]
    fn snapshots_round_trip_and_flips_are_found() {
        let mut states = ProducerStates::default();
        states.note(&batch(3, 0, 10, 100));
        let bytes = states.encode(Offset(110));
        assert_eq!(ProducerStates::decode(&bytes), Ok(states));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(ProducerStates::decode(&bad).is_err(), "flip at {at}");
            assert!(ProducerStates::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    /// A producer sent its five batches again after the broker's death; a snapshot knew the last one only, and the first
    /// was refused as out of order, although it was in the log.
    #[test]
    fn all_batches_that_may_come_again_are_recognised_after_a_snapshot() {
        let mut states = ProducerStates::default();
        for i in 0..7 {
            states.note(&batch(0, i * 10, 10, i64::from(i) * 10));
        }
        let mut loaded = ProducerStates::decode(&states.encode(Offset(70))).expect("valid");
        assert_eq!(loaded, states);
        for i in 2..7 {
            assert!(matches!(loaded.check(&batch(0, i * 10, 10, 0)), Ok(Verdict::Duplicate { .. })), "batch {i}");
        }
        loaded.note(&batch(0, 70, 10, 70));
        assert!(loaded.check(&batch(0, 20, 10, 0)).is_err(), "five are remembered");
    }

    #[test]
    fn a_snapshot_holds_nothing_above_its_offset() {
        let mut states = ProducerStates::default();
        states.note(&batch(3, 0, 10, 100));
        let below = states.encode(Offset(110));
        states.note(&batch(3, 10, 10, 110));
        assert_eq!(states.encode(Offset(110)), below);
        assert!(ProducerStates::decode(&states.encode(Offset(100))).expect("valid").is_empty());
    }

    /// A segment was sealed while five batches of a producer were on their way to the next one, and a crash took all five:
    /// the snapshot did not know the producer, so that the first retry to arrive was taken, whichever it was.
    #[test]
    fn a_snapshot_knows_a_producer_with_all_that_it_has_in_flight_above() {
        let mut states = ProducerStates::default();
        states.note(&batch(0, 0, 10, 100));
        for i in 1..=5 {
            states.note(&batch(0, i * 10, 10, 100 + i64::from(i) * 10));
        }
        let known = ProducerStates::decode(&states.encode(Offset(110))).expect("valid");
        assert_eq!(known.check(&batch(0, 10, 10, 0)), Ok(Verdict::Append));
        assert!(matches!(known.check(&batch(0, 20, 10, 0)), Err(ProducerError::OutOfOrder { found: 20, last: 9, .. })));
        assert!(matches!(known.check(&batch(0, 0, 10, 0)), Ok(Verdict::Duplicate { base_offset: Offset(100), .. })));
    }

    /// Each new producer beyond the bound had all others looked through: a client with many ids stopped the shard.
    #[test]
    fn the_producers_silent_longest_are_forgotten_together() {
        let mut states = ProducerStates::default();
        let note = |states: &mut ProducerStates, id: i64| {
            states.note(&BatchHeader { producer_id: id, max_timestamp: id, ..batch(0, 0, 1, id) });
        };
        let most = PRODUCERS_PER_PARTITION_MAX as i64;
        (0..most).for_each(|id| note(&mut states, id));
        assert_eq!(states.len(), PRODUCERS_PER_PARTITION_MAX);
        note(&mut states, most);
        let forgotten = most / FORGOTTEN_SHARE as i64;
        assert_eq!(states.len() as i64, most - forgotten + 1);
        let next = |id| BatchHeader { producer_id: id, ..batch(0, 7, 1, 0) };
        assert_eq!(states.check(&next(forgotten - 1)), Ok(Verdict::Append), "forgotten: it may go on anywhere");
        assert!(states.check(&next(forgotten)).is_err(), "still known");
    }

    #[test]
    fn idle_producers_expire() {
        let mut states = ProducerStates::default();
        let mut old = batch(0, 0, 1, 0);
        old.max_timestamp = 1000;
        states.note(&old);
        states.expire(1500, 1000);
        assert_eq!(states.len(), 1);
        states.expire(2000, 1000);
        assert!(states.is_empty());
    }
}
