//! Ranges of a log that are known to be damaged: readers are told so instead of being served them.
//!
//! They are kept beside the partition, so that a restart does not begin to serve what was found before it, in a file
//! `corrupt-ranges`:
//!
//! ```text
//! 0                              version
//! 1                              number of lines that follow, the last one not counted
//! 0 4096 0 8310 120 131          segment and byte of the start, segment and byte of the end, first offset, offset after it
//! crc32c 8a2f01c3                of everything before this line
//! ```
//!
//! Crash argument: the file is rewritten as checkpoints are (`checkpoint::write_atomically`), so it is the old list or the
//! new one. An old list says too little until damage is found again, by the reader that meets it or by the next scrub; or
//! too much, until a scrub finds the range sound. It never decides what is kept of a log: recovery does not read it.
//!
//! The list is bounded (`CORRUPT_RANGES_MAX`). Where it would grow beyond, the two neighbours with the fewest offsets
//! between them become one: readers lose the least, wherever the damage lies, and nothing damaged is served. Forgetting a
//! range would serve it; refusing the whole partition would take from readers what is sound.

use crate::base::ids::Offset;
use crate::base::limits::CORRUPT_RANGES_MAX;
use crate::record::batch::crc32c;
use std::fmt::Write;

/// The file beside the segments.
pub const CORRUPT_RANGES: &str = "corrupt-ranges";

/// A byte of a log: of the segment that begins at `segment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub segment: Offset,
    pub position: u32,
}

/// Bytes that hold no sound batch, and the offsets of the records that lay in them; none, where `next` is `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptRange {
    pub start: Place,
    /// The first byte that is sound again: of the next batch, or the end of a segment.
    pub end: Place,
    pub first: Offset,
    /// The first offset behind it: where a consumer goes on.
    pub next: Offset,
}

/// The damaged ranges of one log, in order; none overlaps or touches another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorruptRanges {
    ranges: Vec<CorruptRange>,
}

/// Why a file was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptFileError {
    #[error("version {found:?} is not 0")]
    Version { found: String },
    #[error("the checksum is {expected:08x} by its last line, and {found:08x} of what is there")]
    Checksum { expected: u32, found: u32 },
    #[error("line {line}: expected {expected}, found {found:?}")]
    Malformed { line: usize, expected: &'static str, found: String },
}

impl CorruptRanges {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &CorruptRange> {
        self.ranges.iter()
    }

    /// The range that an offset lies in.
    pub fn at(&self, offset: Offset) -> Option<&CorruptRange> {
        self.ranges.get(self.ranges.partition_point(|range| range.next <= offset)).filter(|range| range.first <= offset)
    }

    /// The range that a byte lies in.
    pub fn holding(&self, place: Place) -> Option<&CorruptRange> {
        self.ranges.get(self.ranges.partition_point(|range| range.end <= place)).filter(|range| range.start <= place)
    }

    /// The first range that begins behind a byte.
    pub fn after(&self, place: Place) -> Option<&CorruptRange> {
        self.ranges.get(self.ranges.partition_point(|range| range.start <= place))
    }

    /// Where sound bytes begin again before `offset`, in the same segment: walking from batch to batch towards it must not
    /// begin before. 0: there is no damage on the way.
    pub fn sound_from(&self, segment: Offset, offset: Offset) -> u32 {
        let before = self.ranges.partition_point(|range| range.next <= offset).checked_sub(1);
        let range = before.and_then(|i| self.ranges.get(i)).filter(|range| range.end.segment == segment);
        range.map_or(0, |range| range.end.position)
    }

    /// Whether a segment has damage.
    pub fn touches(&self, segment: Offset) -> bool {
        self.ranges.iter().any(|range| range.start.segment <= segment && segment <= range.end.segment)
    }

    /// Adds a range; whether anything was not known before. Ranges that overlap or touch become one.
    pub fn add(&mut self, new: CorruptRange) -> bool {
        debug_assert!(new.start < new.end && new.first <= new.next);
        // Offsets and bytes run side by side, but where batches are told apart by their bytes alone offsets may be equal.
        let joins = |range: &CorruptRange| {
            (range.start <= new.end && new.start <= range.end) || (range.first < new.next && new.first < range.next)
        };
        let from = self.ranges.iter().position(joins);
        let Some(from) = from else {
            let at = self.ranges.partition_point(|range| range.start < new.start);
            self.ranges.insert(at, new);
            self.merge_to_bound();
            return true;
        };
        let to = self.ranges.iter().rposition(joins).expect("there is at least one");
        let joined = self.ranges[from..=to].iter().fold(new, |all, range| all.union(range));
        let is_new = from != to || self.ranges[from] != joined;
        self.ranges.splice(from..=to, [joined]);
        is_new
    }

    /// What is known of a segment is what was found now: `found` takes the place of what was known of it. `after` is the
    /// next segment's base. Whether anything changed.
    pub fn replace(&mut self, segment: Offset, after: Offset, found: &[CorruptRange]) -> bool {
        let before = self.ranges.clone();
        let mut outside = Vec::new();
        for range in self.ranges.drain(..) {
            // Ranges that were merged may reach into other segments: what lies there stays.
            if range.start.segment < segment {
                let end = range.end.min(Place { segment, position: 0 });
                outside.push(CorruptRange { end, next: range.next.min(segment), ..range });
            }
            if range.end.segment > segment {
                let start = range.start.max(Place { segment: after, position: 0 });
                outside.push(CorruptRange { start, first: range.first.max(after), ..range });
            }
        }
        outside.retain(|range| range.start < range.end && range.first <= range.next);
        self.ranges = outside;
        found.iter().for_each(|range| {
            self.add(*range);
        });
        self.ranges != before
    }

    /// Forgets what lies below the log's start; whether there was anything.
    pub fn truncate_start(&mut self, log_start: Offset) -> bool {
        let before = self.ranges.len();
        self.ranges.retain(|range| range.next > log_start);
        self.ranges.len() < before
    }

    /// Forgets what the log, as it was found on disk, does not have: `segments` are bases and sizes, in order. Ranges that
    /// reach beyond a segment's end were cut with it.
    pub fn keep_existing(&mut self, segments: &[(Offset, u32)]) {
        let size_of = |place: Place| {
            let at = segments.binary_search_by_key(&place.segment, |(base, _)| *base).ok()?;
            segments.get(at).map(|(_, size)| *size)
        };
        self.ranges.retain(|range| {
            let start_there = size_of(range.start).is_some_and(|size| range.start.position < size);
            let is_merged = range.start.segment != range.end.segment;
            start_there && (is_merged || size_of(range.end).is_some_and(|size| range.end.position <= size))
        });
    }

    fn merge_to_bound(&mut self) {
        while self.ranges.len() > CORRUPT_RANGES_MAX {
            let pairs = self.ranges.iter().zip(self.ranges.iter().skip(1));
            let gaps = pairs.map(|(one, other)| other.first - one.next).enumerate();
            let Some((at, _)) = gaps.min_by_key(|(_, gap)| *gap) else { return };
            let other = self.ranges.remove(at + 1);
            self.ranges[at] = self.ranges[at].union(&other);
        }
    }

    /// The file's content.
    pub fn encode(&self) -> String {
        let mut text = format!("0\n{}\n", self.ranges.len());
        for range in &self.ranges {
            let CorruptRange { start, end, first, next } = range;
            let places = [start.segment.0, i64::from(start.position), end.segment.0, i64::from(end.position)];
            let [a, b, c, d] = places;
            writeln!(text, "{a} {b} {c} {d} {first} {next}").expect("strings take all");
        }
        let crc = crc32c(text.as_bytes());
        writeln!(text, "crc32c {crc:08x}").expect("strings take all");
        text
    }

    pub fn decode(text: &str) -> Result<CorruptRanges, CorruptFileError> {
        let malformed = |line: usize, expected: &'static str, found: &str| CorruptFileError::Malformed {
            line,
            expected,
            found: found.chars().take(80).collect(),
        };
        let version = text.lines().next().unwrap_or("");
        if version != "0" {
            return Err(CorruptFileError::Version { found: version.chars().take(20).collect() });
        }
        let lines = text.lines().count();
        let (body, last) = text.trim_end_matches('\n').rsplit_once('\n').unwrap_or(("", text));
        let expected = last.strip_prefix("crc32c ").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let expected = expected.ok_or_else(|| malformed(lines, "a checksum", last))?;
        let found = crc32c(text.get(..=body.len()).unwrap_or("").as_bytes());
        if found != expected {
            return Err(CorruptFileError::Checksum { expected, found });
        }
        let mut ranges = CorruptRanges::default();
        for (i, line) in body.lines().enumerate().skip(2) {
            let range = parse_line(line).ok_or_else(|| malformed(i + 1, "a range", line))?;
            ranges.add(range);
        }
        let count = body.lines().nth(1).unwrap_or("");
        match count.parse::<usize>() {
            Ok(count) if count + 2 == body.lines().count() => Ok(ranges),
            _ => Err(malformed(2, "the number of ranges", count)),
        }
    }
}

impl CorruptRange {
    fn union(&self, other: &CorruptRange) -> CorruptRange {
        CorruptRange {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
            first: self.first.min(other.first),
            next: self.next.max(other.next),
        }
    }
}

fn parse_line(line: &str) -> Option<CorruptRange> {
    let mut words = line.split(' ');
    let mut number = || words.next()?.parse::<i64>().ok().filter(|number| *number >= 0);
    let (start, at, end, to) = (number()?, number()?, number()?, number()?);
    let (first, next) = (number()?, number()?);
    let place = |segment, position: i64| Some(Place { segment: Offset(segment), position: position.try_into().ok()? });
    let range =
        CorruptRange { start: place(start, at)?, end: place(end, to)?, first: Offset(first), next: Offset(next) };
    (words.next().is_none() && range.start < range.end && range.first <= range.next).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Segments of 1,000 offsets, each record of ten bytes.
    const PER_SEGMENT: i64 = 1000;

    fn place(offset: i64) -> Place {
        let base = offset - offset % PER_SEGMENT;
        Place { segment: Offset(base), position: u32::try_from((offset - base) * 10).expect("small") }
    }

    /// A range of whole records within one segment.
    fn range(first: i64, next: i64) -> CorruptRange {
        let base = first - first % PER_SEGMENT;
        let end = Place { segment: Offset(base), position: u32::try_from((next - base) * 10).expect("small") };
        CorruptRange { start: place(first), end, first: Offset(first), next: Offset(next) }
    }

    fn ranges(pairs: &[(i64, i64)]) -> CorruptRanges {
        let mut ranges = CorruptRanges::default();
        pairs.iter().for_each(|(first, next)| {
            ranges.add(range(*first, *next));
        });
        ranges
    }

    impl CorruptRanges {
        fn check_invariants(&self) {
            assert!(self.ranges.len() <= CORRUPT_RANGES_MAX);
            assert!(self.ranges.iter().all(|range| range.start < range.end && range.first <= range.next));
            for (one, other) in self.ranges.iter().zip(self.ranges.iter().skip(1)) {
                assert!(one.end < other.start && one.next <= other.first, "{one:?} before {other:?}");
            }
        }
    }

    #[test]
    fn a_reader_is_told_where_damage_is_and_where_it_ends() {
        let known = ranges(&[(10, 20), (50, 60), (1010, 1020)]);
        assert_eq!(known.at(Offset(9)), None);
        assert_eq!(known.at(Offset(10)).map(|range| range.next), Some(Offset(20)));
        assert_eq!(known.at(Offset(20)), None);
        assert_eq!(known.after(place(20)).map(|range| range.start.position), Some(500));
        assert_eq!(known.after(place(50)).map(|range| range.first), Some(Offset(1010)), "not the one that it lies in");
        assert_eq!((known.holding(place(49)), known.holding(place(60))), (None, None));
        assert_eq!(known.holding(place(59)), known.at(Offset(59)));
        assert_eq!(known.sound_from(Offset(0), Offset(30)), 200);
        assert_eq!(known.sound_from(Offset(0), Offset(5)), 0);
        assert_eq!(known.sound_from(Offset(1000), Offset(1005)), 0, "the damage before lies in another segment");
        assert!(known.touches(Offset(1000)) && !known.touches(Offset(2000)));
    }

    #[test]
    fn finding_the_same_damage_again_is_no_news() {
        let mut known = ranges(&[(10, 20)]);
        assert!(!known.add(range(10, 20)));
        assert!(!known.add(range(12, 15)));
        assert!(known.add(range(15, 25)));
        assert_eq!(known, ranges(&[(10, 25)]));
    }

    #[test]
    fn what_a_scrub_finds_sound_again_is_forgotten() {
        let mut known = ranges(&[(10, 20), (1010, 1020), (2010, 2020)]);
        assert!(known.replace(Offset(1000), Offset(2000), &[]));
        assert_eq!(known, ranges(&[(10, 20), (2010, 2020)]));
        assert!(!known.replace(Offset(1000), Offset(2000), &[]));
        assert!(known.replace(Offset(2000), Offset(3000), &[range(2500, 2501)]));
        assert_eq!(known, ranges(&[(10, 20), (2500, 2501)]));
    }

    #[test]
    fn retention_and_recovery_take_ranges_with_them() {
        let mut known = ranges(&[(10, 20), (990, 1000), (1010, 1020)]);
        assert!(!known.truncate_start(Offset(15)), "some of it is still there");
        assert!(known.truncate_start(Offset(20)));
        assert_eq!(known.len(), 2);
        let mut cut = known.clone();
        cut.keep_existing(&[(Offset(0), 10_000), (Offset(1000), 150)]);
        assert_eq!(cut, ranges(&[(990, 1000)]), "the segment was cut within the range");
        known.keep_existing(&[(Offset(1000), 10_000)]);
        assert_eq!(known, ranges(&[(1010, 1020)]));
    }

    #[test]
    fn damaged_files_are_refused() {
        let text = ranges(&[(10, 20), (1010, 1020)]).encode();
        assert!(matches!(CorruptRanges::decode(""), Err(CorruptFileError::Version { .. })));
        assert!(matches!(CorruptRanges::decode("1\n0\n"), Err(CorruptFileError::Version { .. })));
        assert!(matches!(CorruptRanges::decode("0\n0\n"), Err(CorruptFileError::Malformed { .. })));
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(CorruptRanges::decode(&changed).is_err(), "byte {at}");
            assert!(text.get(..at).is_none_or(|part| CorruptRanges::decode(part).is_err()), "cut at byte {at}");
        }
    }

    fn some_range() -> impl Strategy<Value = (i64, i64)> {
        (0..5000i64, 1..300i64).prop_map(|(first, length)| {
            let segment_end = first - first % PER_SEGMENT + PER_SEGMENT;
            (first, (first + length).min(segment_end))
        })
    }

    proptest! {
        /// What was added and not replaced is refused, and nothing else, as long as the bound is not reached.
        #[test]
        fn exactly_what_was_found_is_refused(
            added in proptest::collection::vec(some_range(), 0..40),
            replaced in proptest::option::of(0..5i64),
            start in 0..5000i64,
        ) {
            let mut damaged = vec![false; 5000];
            let mut known = CorruptRanges::default();
            for (first, next) in &added {
                known.add(range(*first, *next));
                known.check_invariants();
                damaged[*first as usize..*next as usize].fill(true);
            }
            if let Some(segment) = replaced {
                let (base, after) = (segment * PER_SEGMENT, (segment + 1) * PER_SEGMENT);
                known.replace(Offset(base), Offset(after), &[]);
                known.check_invariants();
                damaged[base as usize..after as usize].fill(false);
            }
            for offset in 0..5000 {
                prop_assert_eq!(known.at(Offset(offset)).is_some(), damaged[offset as usize], "offset {}", offset);
                let sound = known.sound_from(place(offset).segment, Offset(offset));
                prop_assert!(damaged[offset as usize] || sound <= place(offset).position);
            }
            prop_assert_eq!(&CorruptRanges::decode(&known.encode()).expect("whole"), &known);
            known.truncate_start(Offset(start));
            known.check_invariants();
            for offset in start..5000 {
                prop_assert_eq!(known.at(Offset(offset)).is_some(), damaged[offset as usize]);
            }
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]

        /// Beyond the bound sound records may be refused, but damage is never served.
        #[test]
        fn the_bound_never_serves_damage(seed in 0..1000i64) {
            let mut known = CorruptRanges::default();
            let mut all = Vec::new();
            for i in 0..2 * CORRUPT_RANGES_MAX as i64 {
                let first = (i * 7919 + seed) % 3000 * 10;
                known.add(range(first, first + 1 + i % 7));
                known.check_invariants();
                all.push(first);
            }
            for first in all {
                prop_assert!(known.at(Offset(first)).is_some());
            }
            // A scrub that finds a segment sound takes it out of ranges that were merged across it.
            known.replace(Offset(3000), Offset(4000), &[]);
            known.check_invariants();
            for offset in 3000..4000 {
                prop_assert!(known.at(Offset(offset)).is_none());
            }
        }
    }
}
