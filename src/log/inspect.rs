//! Looks through a segment for damage, batch by batch: what is damaged, and where what is sound begins again.
//!
//! No I/O: the caller reads what is wanted (`Inspector::wants`) and hands it over in pieces of any size, so that the same
//! decisions are made of a direct stream, a file or a buffer. What is kept is one header and a running CRC, however large
//! a batch says it is.
//!
//! The CRC covers a batch from its attributes on. Of what stands before, magic and length show by themselves; a wrong base
//! offset or leader epoch shows by its neighbours: both rise through a log and stay below its end. Where a batch does not
//! follow on the one before it, that one is at fault if it was it that left a gap; else the later one.
//!
//! Behind damage the next sound batch is looked for at two kinds of places only: where the damaged batch says that it ends,
//! and where the offset index says that a batch begins. It is not searched for byte by byte: a record may hold bytes that
//! look like a batch, and its producer must not be able to decide what is read of somebody else's log. So with an index,
//! readers lose the damaged batch, or at most what lies up to the next entry; without one, the rest of the segment.

use super::corrupt::{CorruptRange, Place};
use super::index::OffsetIndex;
use crate::base::ids::Offset;
use crate::base::limits::CORRUPT_RANGES_MAX;
use crate::record::batch::{BatchError, BatchHeader, HEADER_LEN};
use crc_fast::{CrcAlgorithm, Digest};

/// What precedes the bytes that a batch's CRC covers.
const CRC_FROM: usize = 21;

/// Places that are looked at behind one damage before the rest of the segment is given up: an index that is wrong itself
/// must not have a segment read many times over.
const CANDIDATES_MAX: u32 = 64;

/// What is known of a segment before it is read.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub base: Offset,
    /// Bytes that hold batches.
    pub size: u32,
    /// The offset that its last batch may not pass: the next segment's base, or the log's end.
    pub end: Offset,
    /// The newest leader epoch of the log; None: it has none.
    pub latest_epoch: Option<i32>,
}

/// What is wrong, with what was expected and what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("CRC {expected:08x} expected, {found:08x} found")]
    Crc { expected: u32, found: u32 },
    #[error("no batch header: {0}")]
    Header(#[from] BatchError),
    #[error("a batch of {need} bytes expected, {have} found up to the segment's end")]
    Torn { have: u32, need: u64 },
    #[error("base offset {expected} or a later one expected, {found} found")]
    Offset { expected: Offset, found: Offset },
    #[error("an offset below {end} expected, {found} found")]
    BeyondEnd { end: Offset, found: Offset },
    #[error("leader epoch {least} to {most} expected, {found} found")]
    Epoch { least: i32, most: i32, found: i32 },
    #[error("last offset delta {delta} with {count} records")]
    Counts { delta: i32, count: i32 },
    #[error("the disk cannot read it")]
    Unreadable,
}

/// A damaged range and what is wrong where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub range: CorruptRange,
    pub damage: Damage,
}

/// What an inspection found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    pub found: Vec<Found>,
    pub batches: u64,
    /// The offset index says that a batch begins, or ends, where none does: it is to be rebuilt. The entry's position.
    pub index_disagrees: Option<u32>,
    /// Offsets that no batch has, up to the one found: what compaction leaves, or else a loss.
    pub gap: Option<(Offset, Offset)>,
}

/// An inspection under way.
pub struct Inspector {
    subject: Subject,
    index: OffsetIndex,
    /// Entries before this have been passed.
    entry: usize,
    /// Where the batch in hand begins.
    position: u32,
    step: Step,
    expected: Offset,
    epoch: i32,
    previous: Option<Previous>,
    damaged: Option<Damaged>,
    inspection: Inspection,
}

enum Step {
    Header { bytes: [u8; HEADER_LEN], have: usize },
    Body { header: BatchHeader, digest: Box<Digest>, done: u32 },
    End,
}

/// The batch before the one in hand, and what was due when it came.
#[derive(Clone, Copy)]
struct Previous {
    position: u32,
    base: Offset,
    expected: Offset,
    epoch: i32,
    epoch_before: i32,
}

/// Damage whose end is being looked for.
struct Damaged {
    start: u32,
    first: Offset,
    damage: Damage,
    /// Where the batch says that it ends.
    claimed: Option<u32>,
    /// The place that was tried last.
    tried: u32,
    tries: u32,
}

impl Inspector {
    /// `index` is the segment's offset index, empty where there is none that can be read.
    pub fn new(subject: Subject, index: OffsetIndex) -> Inspector {
        let mut inspector = Inspector {
            subject,
            index,
            entry: 0,
            position: 0,
            step: Step::End,
            expected: subject.base,
            epoch: -1,
            previous: None,
            damaged: None,
            inspection: Inspection::default(),
        };
        inspector.begin(0);
        inspector
    }

    /// The position of the bytes that are to be handed over next; None: all has been seen.
    pub fn wants(&self) -> Option<u32> {
        match &self.step {
            Step::Header { have, .. } => Some(self.position + u32::try_from(*have).expect("a header is short")),
            Step::Body { done, .. } => Some(self.position + done),
            Step::End => None,
        }
    }

    /// Takes bytes that lie at `at`, as far as they are wanted.
    pub fn feed(&mut self, at: u32, bytes: &[u8]) {
        while let Some(wanted) = self.wants() {
            let from = wanted.checked_sub(at).and_then(|skip| bytes.get(skip as usize..));
            let Some(bytes) = from.filter(|bytes| !bytes.is_empty()) else { return };
            self.take(bytes);
        }
    }

    /// The bytes that are wanted, up to `to`, cannot be read.
    pub fn unreadable(&mut self, to: u32) {
        self.fault(Damage::Unreadable, None, to.saturating_sub(1));
    }

    /// The file ends where bytes are wanted.
    pub fn file_ended(&mut self) {
        let have = self.wants().map_or(0, |wanted| wanted - self.position);
        let need = u64::from(self.subject.size - self.position);
        self.fault(Damage::Torn { have, need }, None, self.subject.size);
    }

    /// What was found; to be asked for when nothing is wanted any more.
    pub fn finish(self) -> Inspection {
        debug_assert!(self.wants().is_none());
        self.inspection
    }

    fn take(&mut self, bytes: &[u8]) {
        match &mut self.step {
            Step::Header { bytes: header, have } => {
                let some = bytes.len().min(HEADER_LEN - *have);
                header[*have..*have + some].copy_from_slice(&bytes[..some]);
                *have += some;
                if *have == HEADER_LEN {
                    let header = *header;
                    self.header_read(&header);
                }
            }
            Step::Body { header, digest, done } => {
                let total = u32::try_from(header.total_len()).expect("it fits the segment");
                let some = bytes.len().min((total - *done) as usize);
                digest.update(&bytes[..some]);
                *done += u32::try_from(some).expect("no more than the batch");
                if *done == total {
                    let (header, found) = (*header, digest.finalize() as u32);
                    self.batch_read(&header, found);
                }
            }
            Step::End => {}
        }
    }

    /// Goes on with the batch that begins at `position`.
    fn begin(&mut self, position: u32) {
        self.position = position;
        let have = self.subject.size.saturating_sub(position);
        if have == 0 {
            return self.end();
        }
        self.step = Step::Header { bytes: [0; HEADER_LEN], have: 0 };
        if (have as usize) < HEADER_LEN {
            self.fault(Damage::Torn { have, need: HEADER_LEN as u64 }, None, 0);
        }
    }

    fn end(&mut self) {
        self.step = Step::End;
        if let Some(damaged) = self.damaged.take() {
            self.push(damaged.start, self.subject.size, (damaged.first, self.subject.end), damaged.damage);
        } else if self.expected < self.subject.end {
            self.inspection.gap.get_or_insert((self.expected, self.subject.end));
        }
    }

    fn header_read(&mut self, bytes: &[u8; HEADER_LEN]) {
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(error) => return self.fault(Damage::Header(error), None, 0),
        };
        let (have, need) = (self.subject.size - self.position, header.total_len() as u64);
        if need > u64::from(have) {
            return self.fault(Damage::Torn { have, need }, None, 0);
        }
        let mut digest = Box::new(Digest::new(CrcAlgorithm::Crc32Iscsi));
        digest.update(&bytes[CRC_FROM..]);
        self.step = Step::Body { header, digest, done: HEADER_LEN as u32 };
        if need == HEADER_LEN as u64 {
            self.take(&[]);
        }
    }

    fn batch_read(&mut self, header: &BatchHeader, crc: u32) {
        let after = self.position + u32::try_from(header.total_len()).expect("it fits the segment");
        if crc != header.crc {
            return self.fault(Damage::Crc { expected: header.crc, found: crc }, Some(after), 0);
        }
        if header.last_offset_delta < 0 || header.record_count < 0 {
            let (delta, count) = (header.last_offset_delta, header.record_count);
            return self.fault(Damage::Counts { delta, count }, Some(after), 0);
        }
        match self.misplaced(header) {
            Some(_) if self.blame_previous(header) && self.misplaced(header).is_none() => {}
            Some(damage) => return self.fault(damage, Some(after), 0),
            None => {}
        }
        let candidate = self.damaged.is_some();
        if candidate && self.entry_at(self.position).is_some_and(|last| last != header.last_offset()) {
            return self.fault(Damage::Header(BatchError::Length { found: header.batch_length }), Some(after), 0);
        }
        self.accept(header, after);
    }

    /// Whether offset and epoch fit what stands before the batch and what the log may have.
    fn misplaced(&self, header: &BatchHeader) -> Option<Damage> {
        let (base, end) = (header.base_offset, self.subject.end);
        if base < self.expected {
            return Some(Damage::Offset { expected: self.expected, found: base });
        }
        // The bound on the base comes first: what follows cannot overflow then.
        if base >= end || header.next_offset() > end || base - self.subject.base > i64::from(i32::MAX) {
            return Some(Damage::BeyondEnd { end, found: base.max(header.last_offset()) });
        }
        let most = self.subject.latest_epoch.unwrap_or(i32::MAX);
        let found = header.partition_leader_epoch;
        (!(self.epoch..=most).contains(&found)).then_some(Damage::Epoch { least: self.epoch, most, found })
    }

    /// Gives up the batch before, if it is that one which does not fit: by its offset it left a gap, or by its epoch a rise,
    /// and this one would follow on what stood before it. Whether it was.
    fn blame_previous(&mut self, header: &BatchHeader) -> bool {
        if self.damaged.is_some() {
            return false;
        }
        let Some(previous) = self.previous else { return false };
        let base = header.base_offset;
        let damage = if base < self.expected && previous.base > previous.expected && base > previous.expected {
            Damage::Offset { expected: previous.expected, found: previous.base }
        } else if header.partition_leader_epoch < self.epoch && previous.epoch > previous.epoch_before {
            let (least, found) = (previous.epoch_before, previous.epoch);
            Damage::Epoch { least, most: header.partition_leader_epoch, found }
        } else {
            return false;
        };
        (self.expected, self.epoch, self.previous) = (previous.expected, previous.epoch_before, None);
        self.push(previous.position, self.position, (previous.expected, base), damage);
        // What lies before this batch is told of: it is due here.
        self.expected = base;
        self.inspection.gap.take_if(|gap| gap.0 == previous.expected);
        true
    }

    fn accept(&mut self, header: &BatchHeader, after: u32) {
        let base = header.base_offset;
        match self.damaged.take() {
            Some(damaged) => self.push(damaged.start, self.position, (damaged.first, base), damaged.damage),
            None if base > self.expected => {
                self.inspection.gap.get_or_insert((self.expected, base));
            }
            None => {}
        }
        if self.inspection.found.len() >= CORRUPT_RANGES_MAX
            && let Some(last) = self.inspection.found.last().copied()
        {
            // As much damage as is remembered: the rest is not looked through.
            self.push(last.range.end.position, self.subject.size, (last.range.next, self.subject.end), last.damage);
            self.step = Step::End;
            return;
        }
        self.check_index(header.last_offset());
        self.previous = Some(Previous {
            position: self.position,
            base,
            expected: self.expected,
            epoch: header.partition_leader_epoch,
            epoch_before: self.epoch,
        });
        self.inspection.batches += 1;
        (self.expected, self.epoch) = (header.next_offset(), header.partition_leader_epoch);
        self.begin(after);
    }

    /// Entries that point between the batch before and this one are wrong, and so is one that gives it another last offset.
    fn check_index(&mut self, last: Offset) {
        while let Some((relative, position)) = self.index.entry(self.entry).filter(|(_, at)| *at <= self.position) {
            self.entry += 1;
            if position < self.position || self.subject.base + i64::from(relative) != last {
                self.inspection.index_disagrees.get_or_insert(position);
            }
        }
    }

    /// The last offset that the index gives the batch at a position, if it speaks of it.
    fn entry_at(&self, position: u32) -> Option<Offset> {
        let (relative, at) = self.index.entry(self.index.entries_before(position))?;
        (at == position).then(|| self.subject.base + i64::from(relative))
    }

    /// What begins at `position` is no sound batch: looks for the next place where one may begin, behind `passed`.
    fn fault(&mut self, damage: Damage, claimed: Option<u32>, passed: u32) {
        let (start, first) = (self.position, self.expected);
        let damaged = self.damaged.get_or_insert(Damaged { start, first, damage, claimed, tried: start, tries: 0 });
        damaged.tried = damaged.tried.max(passed);
        damaged.tries += 1;
        let indexed = self.index.entry(self.index.entries_before(damaged.tried.saturating_add(1)));
        let indexed = indexed.map(|(_, position)| position);
        let claimed = damaged.claimed.filter(|position| *position > damaged.tried);
        let next = indexed.into_iter().chain(claimed).min().filter(|next| *next < self.subject.size);
        match next.filter(|_| damaged.tries <= CANDIDATES_MAX) {
            Some(next) => {
                damaged.tried = next;
                // Entries within the damage are its victims, not at fault.
                self.entry = self.entry.max(self.index.entries_before(next));
                self.begin(next);
            }
            None => self.end(),
        }
    }

    fn push(&mut self, start: u32, end: u32, (first, next): (Offset, Offset), damage: Damage) {
        let place = |position| Place { segment: self.subject.base, position };
        let range = CorruptRange { start: place(start), end: place(end), first, next };
        self.inspection.found.push(Found { range, damage });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::Batch;
    use proptest::prelude::*;

    /// A segment's bytes, its index, and where its batches lie.
    struct Sample {
        bytes: Vec<u8>,
        index: OffsetIndex,
        batches: Vec<(u32, BatchHeader)>,
        subject: Subject,
    }

    const BASE: i64 = 1000;

    fn sample(shapes: &[(usize, usize)], every: usize) -> Sample {
        let (mut bytes, mut index, mut batches) = (Vec::new(), OffsetIndex::default(), Vec::new());
        let mut base = Offset(BASE);
        for (i, (records, value_bytes)) in shapes.iter().enumerate() {
            let batch = Batch { records: *records, value_bytes: *value_bytes, base, ..Batch::default() };
            let (header, batch) = batch.build();
            let position = bytes.len() as u32;
            if i > 0 && i % every == 0 {
                index.push((header.last_offset() - Offset(BASE)) as u32, position);
            }
            bytes.extend_from_slice(&batch);
            batches.push((position, header));
            base = header.next_offset();
        }
        let subject = Subject { base: Offset(BASE), size: bytes.len() as u32, end: base, latest_epoch: Some(0) };
        Sample { bytes, index, batches, subject }
    }

    fn inspect(sample: &Sample, index: &OffsetIndex, chunk: usize) -> Inspection {
        let mut inspector = Inspector::new(sample.subject, index.clone());
        let mut turns = 0;
        while let Some(wanted) = inspector.wants() {
            let from = wanted as usize;
            match sample.bytes.get(from..sample.bytes.len().min(from + chunk)).filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => inspector.feed(wanted, bytes),
                None => inspector.file_ended(),
            }
            turns += 1;
            assert!(turns < 100_000, "it never ends");
        }
        inspector.finish()
    }

    /// What a reader may be given: batches outside the ranges are as they were written.
    fn check_the_rest(sample: &Sample, inspection: &Inspection, damaged: usize) {
        for (i, (position, header)) in sample.batches.iter().enumerate() {
            let place = Place { segment: Offset(BASE), position: *position };
            let found = inspection.found.iter().find(|found| found.range.start <= place && place < found.range.end);
            match found {
                Some(Found { range, .. }) => {
                    assert!(range.first <= header.base_offset && header.next_offset() <= range.next, "{range:?}");
                }
                None => assert!(i != damaged, "the damage is served: {inspection:?}"),
            }
        }
        for Found { range, .. } in &inspection.found {
            let (start, end) = (range.start.position, range.end.position);
            assert!(
                sample.batches.iter().any(|(position, header)| *position == start && header.base_offset == range.first)
            );
            let resumed = sample.batches.iter().any(|(at, header)| *at == end && header.base_offset == range.next);
            assert!(resumed || (end == sample.subject.size && range.next == sample.subject.end));
        }
    }

    #[test]
    fn a_sound_segment_is_sound() {
        let sample = sample(&[(3, 50), (1, 4000), (10, 7), (1, 0)], 2);
        for chunk in [1, 60, 61, 62, 1000, 1 << 20] {
            let inspection = inspect(&sample, &sample.index, chunk);
            assert_eq!(inspection, Inspection { batches: 4, ..Inspection::default() });
        }
    }

    /// The story of each: what is lost to readers is the damaged batch, and no more than that.
    #[test]
    fn a_damaged_body_costs_its_batch_and_no_other() {
        let mut sample = sample(&[(3, 50); 9], 4);
        let (position, header) = sample.batches[4];
        sample.bytes[position as usize + 80] ^= 4;
        for index in [OffsetIndex::default(), sample.index.clone()] {
            let inspection = inspect(&sample, &index, 100);
            let [Found { range, damage: Damage::Crc { expected, found } }] = inspection.found[..] else {
                panic!("{inspection:?}")
            };
            assert_eq!((range.first, range.next), (header.base_offset, header.next_offset()));
            assert_eq!(range.end.position, sample.batches[5].0);
            assert!(expected == header.crc && found != expected);
            assert_eq!((inspection.batches, inspection.index_disagrees), (8, None));
        }
    }

    /// A length that is wrong: the index tells where it goes on.
    #[test]
    fn a_damaged_length_costs_what_lies_before_the_next_entry() {
        let mut sample = sample(&[(3, 50); 20], 4);
        let position = sample.batches[5].0 as usize;
        for (byte, xor) in [(8, 0x80), (8, 1), (9, 1), (10, 1), (11, 1), (16, 1)] {
            sample.bytes[position + byte] ^= xor;
            let found = inspect(&sample, &sample.index, 1 << 16).found;
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].range.end.position, sample.batches[8].0, "the entry behind it");
            let found = inspect(&sample, &OffsetIndex::default(), 1 << 16).found;
            assert_eq!(found[0].range.end.position, sample.subject.size, "nobody knows");
            sample.bytes[position + byte] ^= xor;
        }
    }

    /// Who is at fault when two batches do not follow on each other.
    #[test]
    fn a_wrong_offset_is_told_from_its_neighbours() {
        let mut sample = sample(&[(10, 5); 9], 3);
        let position = sample.batches[4].0 as usize;
        for offset in [0, 5, BASE + 35, BASE + 45, BASE + 70, BASE + 5000, i64::MAX, -1] {
            sample.bytes[position..position + 8].copy_from_slice(&offset.to_be_bytes());
            let inspection = inspect(&sample, &sample.index, 1 << 16);
            assert_eq!(inspection.found.len(), 1, "{offset}: {inspection:?}");
            let range = inspection.found[0].range;
            assert_eq!((range.first, range.next), (Offset(BASE + 40), Offset(BASE + 50)), "{offset}");
            assert_eq!(inspection.gap, None, "{offset}");
        }
    }

    #[test]
    fn an_index_that_is_wrong_is_told_apart_from_a_segment_that_is() {
        let sample = sample(&[(3, 50); 9], 3);
        let mut index = OffsetIndex::default();
        index.push(11, sample.batches[3].0 + 7);
        let inspection = inspect(&sample, &index, 1 << 16);
        assert_eq!((inspection.found.len(), inspection.index_disagrees), (0, Some(sample.batches[3].0 + 7)));
        let mut index = OffsetIndex::default();
        index.push(12, sample.batches[3].0);
        assert_eq!(inspect(&sample, &index, 1 << 16).index_disagrees, Some(sample.batches[3].0));
    }

    #[test]
    fn compacted_logs_have_gaps_and_no_damage() {
        let mut sample = sample(&[(3, 50); 9], 3);
        let (from, to) = (sample.batches[2].0 as usize, sample.batches[4].0 as usize);
        sample.bytes.drain(from..to);
        sample.subject.size = sample.bytes.len() as u32;
        let inspection = inspect(&sample, &OffsetIndex::default(), 500);
        assert_eq!(inspection.found, []);
        assert_eq!(inspection.gap, Some((Offset(BASE + 6), Offset(BASE + 12))));
    }

    #[test]
    fn a_file_that_ends_early_and_a_sector_that_cannot_be_read_are_damage() {
        let mut sample = sample(&[(3, 50); 9], 3);
        sample.bytes.truncate(sample.batches[7].0 as usize + 10);
        let found = inspect(&sample, &sample.index, 500).found;
        assert_eq!(found[0].range.first, sample.batches[7].1.base_offset);
        assert_eq!(found[0].range.end.position, sample.subject.size);
        let mut inspector = Inspector::new(sample.subject, sample.index.clone());
        inspector.feed(0, &sample.bytes[..sample.batches[2].0 as usize]);
        inspector.unreadable(sample.batches[4].0);
        assert_eq!(inspector.wants(), Some(sample.batches[6].0), "the next entry behind it");
    }

    proptest! {
        /// Whatever bit is flipped wherever, its batch is not served, and all others are served as they are or not at all.
        #[test]
        fn any_flipped_bit_is_found(
            shapes in proptest::collection::vec((1..20usize, 0..200usize), 1..30),
            every in 1..6usize,
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
            chunk in 1..3000usize,
            with_index in any::<bool>(),
        ) {
            let mut sample = sample(&shapes, every);
            let index = if with_index { sample.index.clone() } else { OffsetIndex::default() };
            prop_assert_eq!(inspect(&sample, &index, chunk).found, vec![]);
            let at = at.index(sample.bytes.len());
            sample.bytes[at] ^= 1 << bit;
            let damaged = sample.batches.partition_point(|(position, _)| *position as usize <= at) - 1;
            let inspection = inspect(&sample, &index, chunk);
            prop_assert!(!inspection.found.is_empty());
            check_the_rest(&sample, &inspection, damaged);
            prop_assert_eq!(inspection.index_disagrees, None);
        }

        /// Nothing that lies on a disk makes it fail, wait for ever or read a segment many times.
        #[test]
        fn garbage_ends(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            entries in proptest::collection::vec((0..5000u32, 0..3000u32), 0..20),
            size in 0..4000u32,
        ) {
            let mut index = OffsetIndex::default();
            entries.iter().for_each(|(offset, position)| index.push(*offset, *position));
            let subject = Subject { base: Offset(0), size, end: Offset(100), latest_epoch: None };
            let sample = Sample { bytes, index, batches: Vec::new(), subject };
            let inspection = inspect(&sample, &sample.index, 512);
            prop_assert!(inspection.found.iter().all(|found| found.range.start < found.range.end));
        }
    }
}
