//! Indexes against their segment: both are read once, side by side, so that neither need fit into memory.
//!
//! An index entry is wrong when a search that begins at it misses records. So an offset entry must point at a batch's
//! start, and every batch before it must end below its offset (Kafka's followers append several batches at once, and
//! their entries name the last one's offset). A time entry must have the greatest timestamp up to its offset.

use super::finding::{Check, Findings, Place, Severity};
use super::stream::{Cache, Stream};
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

const OFFSET_ENTRY: usize = 8;
const TIME_ENTRY: usize = 12;
const TRANSACTION_ENTRY: usize = 34;

/// A batch as the indexes know it.
#[derive(Clone, Copy, Debug)]
pub struct Indexed {
    pub position: u64,
    pub first: i64,
    pub last: i64,
    pub max_timestamp: i64,
    /// None are left where compaction has emptied the batch; its time counts for Kafka's index, and not for ours.
    pub has_records: bool,
}

/// How damage of an index is told: it repeats the segment, so no record is lost.
#[derive(Clone, Copy)]
pub struct Manner {
    /// The next start reads the segment and writes its indexes anew.
    pub rebuilt: bool,
}

impl Manner {
    fn severity(self) -> Severity {
        if self.rebuilt { Severity::Warning } else { Severity::Error }
    }

    fn meaning(self) -> Cow<'static, str> {
        match self.rebuilt {
            true => "no record is affected; the next start rebuilds the indexes of this segment".into(),
            false => {
                "look-ups in this segment may miss records or fail; no record is lost: stop the broker and remove \
                      the index files of this segment, they are rebuilt from it"
                    .into()
            }
        }
    }
}

/// Entries of an index one after another; a tail of zeros (reserved, not written yet) ends them.
struct Entries<'a, const SIZE: usize> {
    stream: Stream<'a>,
    position: u64,
    /// The first entry has been met that is reserved only.
    has_tail: bool,
}

impl<'a, const SIZE: usize> Entries<'a, SIZE> {
    fn open(path: &Path, progress: &'a AtomicU64) -> io::Result<Entries<'a, SIZE>> {
        Ok(Entries { stream: Stream::open(path, Cache::Passed, progress)?, position: 0, has_tail: false })
    }

    /// The next entry and where it lies; None at the end, a remainder that is no whole entry included.
    fn next(&mut self) -> io::Result<Option<(u64, [u8; SIZE])>> {
        let at = self.position;
        let Some(entry) = self.stream.at(at, SIZE)?.first_chunk::<SIZE>().copied() else { return Ok(None) };
        if entry == [0; SIZE] && only_zeros(&mut self.stream, at)? {
            self.has_tail = true;
            return Ok(None);
        }
        self.position += SIZE as u64;
        Ok(Some((at, entry)))
    }

    /// A tail of zeros, where there should be none: whoever closes an index cuts it to its entries.
    fn tell_tail(&self, path: &Path, (check, manner): (Check, Manner), findings: &mut Findings) {
        let bytes = self.stream.length() - self.position;
        // A single entry of zeros may be a real one.
        if self.has_tail && !manner.rebuilt && (self.position > 0 || bytes > SIZE as u64) {
            let what = ("entries up to the end of a closed index".to_owned(), format!("{bytes} zero bytes"));
            findings.add((manner.severity(), check), (path, Place::Byte(self.position)), what, manner.meaning());
        }
    }

    /// Bytes at the end that are no whole entry.
    fn ragged(&self) -> u64 {
        self.stream.length() % SIZE as u64
    }
}

/// Whether nothing but zeros follows.
pub fn only_zeros(stream: &mut Stream<'_>, from: u64) -> io::Result<bool> {
    let mut position = from;
    while position < stream.length() {
        let piece = stream.at(position, 1)?;
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        position += piece.len() as u64;
    }
    Ok(true)
}

/// An offset index that is compared with the batches as they come.
pub struct OffsetCursor<'a> {
    path: PathBuf,
    manner: Manner,
    base: i64,
    entries: Entries<'a, OFFSET_ENTRY>,
    next: Option<OffsetEntry>,
    /// The last offset before the batch that is looked at.
    last_offset: Option<i64>,
}

#[derive(Clone, Copy)]
struct OffsetEntry {
    at: u64,
    offset: i64,
    position: u64,
}

impl<'a> OffsetCursor<'a> {
    pub fn open(
        path: &Path,
        base: i64,
        manner: Manner,
        progress: &'a AtomicU64,
        findings: &mut Findings,
    ) -> io::Result<OffsetCursor<'a>> {
        let entries = Entries::open(path, progress)?;
        let mut cursor = OffsetCursor { path: path.to_owned(), manner, base, entries, next: None, last_offset: None };
        tell_ragged(path, cursor.entries.ragged(), OFFSET_ENTRY, (Check::OffsetIndex, manner), findings);
        cursor.step(findings)?;
        Ok(cursor)
    }

    /// A batch of the segment, in order.
    pub fn batch(&mut self, batch: &Indexed, findings: &mut Findings) -> io::Result<()> {
        while let Some(entry) = self.next.filter(|entry| entry.position <= batch.position) {
            if entry.position < batch.position {
                let expected = format!("offset {} at a batch's start, such as byte {}", entry.offset, batch.position);
                self.tell(entry.at, (expected, format!("byte {}", entry.position)), findings);
            } else if let Some(last) = self.last_offset.filter(|last| *last >= entry.offset) {
                let expected = format!("an offset above {last} for byte {}", entry.position);
                self.tell(entry.at, (expected, format!("offset {}", entry.offset)), findings);
            }
            self.step(findings)?;
        }
        self.last_offset = Some(batch.last);
        Ok(())
    }

    /// Bytes up to `position` could not be read as batches: what points there cannot be judged.
    pub fn skip_to(&mut self, position: u64, findings: &mut Findings) -> io::Result<()> {
        while self.next.is_some_and(|entry| entry.position < position) {
            self.step(findings)?;
        }
        Ok(())
    }

    /// The segment has ended: what is left points nowhere.
    pub fn finish(mut self, (end, end_offset): (u64, i64), findings: &mut Findings) -> io::Result<()> {
        while let Some(entry) = self.next {
            let expected = format!("a batch's start below byte {end}, offsets below {end_offset}");
            self.tell(entry.at, (expected, format!("offset {} at byte {}", entry.offset, entry.position)), findings);
            self.step(findings)?;
        }
        self.entries.tell_tail(&self.path, (Check::OffsetIndex, self.manner), findings);
        Ok(())
    }

    fn step(&mut self, findings: &mut Findings) -> io::Result<()> {
        let before = self.next.take();
        let Some((at, entry)) = self.entries.next()? else { return Ok(()) };
        let [a, b, c, d, e, f, g, h] = entry;
        let (relative, position) = (i32::from_be_bytes([a, b, c, d]), i32::from_be_bytes([e, f, g, h]));
        let next = OffsetEntry {
            at,
            offset: self.base.saturating_add(i64::from(relative)),
            position: u64::try_from(position).unwrap_or(0),
        };
        let rises = before.is_none_or(|before| before.offset < next.offset && before.position < next.position);
        if relative < 0 || position < 0 || !rises {
            let before = before.map_or((self.base, 0), |before| (before.offset, before.position));
            let expected = format!("an entry above offset {} at byte {}", before.0, before.1);
            self.tell(at, (expected, format!("offset {} at byte {position}", next.offset)), findings);
        }
        self.next = Some(next);
        Ok(())
    }

    fn tell(&self, at: u64, what: (String, String), findings: &mut Findings) {
        let kind = (self.manner.severity(), Check::OffsetIndex);
        findings.add(kind, (&self.path, Place::Byte(at)), what, self.manner.meaning());
    }
}

/// A time index that is compared with the batches as they come.
pub struct TimeCursor<'a> {
    path: PathBuf,
    manner: Manner,
    base: i64,
    entries: Entries<'a, TIME_ENTRY>,
    next: Option<TimeEntry>,
    last: Option<TimeEntry>,
    max_timestamp: i64,
    /// Batches were left out: what they had for timestamps is not known.
    has_holes: bool,
}

#[derive(Clone, Copy)]
struct TimeEntry {
    at: u64,
    timestamp: i64,
    offset: i64,
}

impl<'a> TimeCursor<'a> {
    pub fn open(
        path: &Path,
        base: i64,
        manner: Manner,
        progress: &'a AtomicU64,
        findings: &mut Findings,
    ) -> io::Result<TimeCursor<'a>> {
        let entries = Entries::open(path, progress)?;
        tell_ragged(path, entries.ragged(), TIME_ENTRY, (Check::TimeIndex, manner), findings);
        let path = path.to_owned();
        let mut cursor =
            TimeCursor { path, manner, base, entries, next: None, last: None, max_timestamp: -1, has_holes: false };
        cursor.step(findings)?;
        Ok(cursor)
    }

    pub fn batch(&mut self, batch: &Indexed, findings: &mut Findings) -> io::Result<()> {
        while let Some(entry) = self.next.filter(|entry| entry.offset <= batch.last) {
            let due = self.max_timestamp.max(batch.max_timestamp);
            if entry.offset < batch.first && !self.has_holes {
                let expected = format!("the offset of a batch, such as {}", batch.last);
                self.tell(entry.at, (expected, format!("offset {}", entry.offset)), findings);
            } else if entry.offset >= batch.first && (entry.timestamp != batch.max_timestamp || due > entry.timestamp) {
                let expected = format!("timestamp {due}, the greatest up to offset {}", entry.offset);
                self.tell(entry.at, (expected, format!("timestamp {}", entry.timestamp)), findings);
            }
            self.step(findings)?;
        }
        if batch.has_records {
            self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        }
        Ok(())
    }

    pub fn skip_below(&mut self, offset: i64, findings: &mut Findings) -> io::Result<()> {
        self.has_holes = true;
        while self.next.is_some_and(|entry| entry.offset < offset) {
            self.step(findings)?;
        }
        Ok(())
    }

    /// `closed`: the last entry is what retention by time goes by, so it must have the segment's greatest timestamp.
    pub fn finish(mut self, end_offset: i64, closed: bool, findings: &mut Findings) -> io::Result<()> {
        while let Some(entry) = self.next {
            let found = format!("offset {}", entry.offset);
            self.tell(entry.at, (format!("an offset below {end_offset}"), found), findings);
            self.step(findings)?;
        }
        self.entries.tell_tail(&self.path, (Check::TimeIndex, self.manner), findings);
        let last = self.last.map_or(-1, |last| last.timestamp);
        if closed && !self.has_holes && last < self.max_timestamp {
            let expected = format!("timestamp {}, the greatest of the segment, in the last entry", self.max_timestamp);
            let found = if last < 0 { "no entry".to_owned() } else { format!("timestamp {last}") };
            self.tell(self.last.map_or(0, |last| last.at), (expected, found), findings);
        }
        Ok(())
    }

    fn step(&mut self, findings: &mut Findings) -> io::Result<()> {
        if let Some(before) = self.next.take() {
            self.last = Some(before);
        }
        let Some((at, entry)) = self.entries.next()? else { return Ok(()) };
        let [t0, t1, t2, t3, t4, t5, t6, t7, o0, o1, o2, o3] = entry;
        let timestamp = i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let relative = i32::from_be_bytes([o0, o1, o2, o3]);
        let offset = self.base.saturating_add(i64::from(relative));
        let follows = self.last.is_none_or(|last| {
            (last.timestamp < timestamp && last.offset <= offset)
                // Kafka repeats the last entry where it seals a segment twice.
                || (last.timestamp == timestamp && last.offset == offset)
        });
        if relative < 0 || timestamp < 0 || !follows {
            let before = self.last.map_or((-1, self.base), |last| (last.timestamp, last.offset));
            let expected = format!("an entry above timestamp {}, from offset {} on", before.0, before.1);
            self.tell(at, (expected, format!("timestamp {timestamp}, offset {offset}")), findings);
        }
        self.next = Some(TimeEntry { at, timestamp, offset });
        Ok(())
    }

    fn tell(&self, at: u64, what: (String, String), findings: &mut Findings) {
        let kind = (self.manner.severity(), Check::TimeIndex);
        findings.add(kind, (&self.path, Place::Byte(at)), what, self.manner.meaning());
    }
}

/// A transaction index, which only Kafka writes, against the segment's offsets.
pub fn check_transactions(
    path: &Path,
    (base, end): (i64, i64),
    manner: Manner,
    progress: &AtomicU64,
    findings: &mut Findings,
) -> io::Result<()> {
    let mut entries = Entries::<TRANSACTION_ENTRY>::open(path, progress)?;
    tell_ragged(path, entries.ragged(), TRANSACTION_ENTRY, (Check::TransactionIndex, manner), findings);
    let mut previous = base - 1;
    while let Some((at, entry)) = entries.next()? {
        let field = |from: usize| -> i64 {
            let bytes = entry.get(from..).and_then(|rest| rest.first_chunk());
            i64::from_be_bytes(*bytes.expect("invariant: the fields lie inside the entry"))
        };
        let version = i16::from_be_bytes([entry[0], entry[1]]);
        let (first, last) = (field(10), field(18));
        if version != 0 || first < 0 || first > last || last <= previous || last >= end {
            let expected = format!("version 0, a transaction that ends above offset {previous} and below {end}");
            let found = format!("version {version}, offsets {first} to {last}");
            let kind = (manner.severity(), Check::TransactionIndex);
            let meaning = "readers of committed records may be given aborted ones of this segment; remove the file and \
                           have Kafka rebuild it by an unclean start";
            findings.add(kind, (path, Place::Byte(at)), (expected, found), meaning);
        }
        previous = previous.max(last);
    }
    Ok(())
}

fn tell_ragged(path: &Path, ragged: u64, size: usize, (check, manner): (Check, Manner), findings: &mut Findings) {
    if ragged > 0 {
        let what = (format!("a whole number of entries of {size} bytes"), format!("{ragged} bytes too many"));
        findings.add((manner.severity(), check), (path, Place::Whole), what, manner.meaning());
    }
}
