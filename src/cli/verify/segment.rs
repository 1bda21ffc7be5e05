//! One segment, batch by batch, with the indexes beside it.
//!
//! Neither the base offset nor the length, the leader epoch or the magic of a batch is under its CRC: what tells that they
//! are wrong is what stands before and behind. So a batch that does not fit is compared with its follower before it is
//! decided which of the two is wrong, and behind bytes that are no batch the next whole one is looked for: then what is
//! affected is known.

use super::context::{Context, Gaps, Stop};
use super::finding::{Check, Findings, Place, Severity};
use super::indexes::{Indexed, Manner, OffsetCursor, TimeCursor, check_transactions, only_zeros};
use super::stream::{Cache, Stream};
use crate::base::ids::Offset;
use crate::log::paths;
use crate::record::batch::{BatchError, BatchHeader, HEADER_LEN, LOG_OVERHEAD};
use crc_fast::{CrcAlgorithm, Digest};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

/// What precedes the bytes that a batch's CRC covers.
const CRC_FROM: u64 = 21;
/// The same of formats v0 and v1, and their shortest header: offset, length, CRC, magic, attributes, two lengths.
const OLD_CRC_FROM: u64 = 16;
const OLD_HEADER: usize = 26;
/// Candidates for a batch whose CRC is computed while the next whole one is looked for: bytes may be made to look alike.
const CANDIDATES_MAX: u32 = 256;
/// Bytes that are looked at together for the next whole batch.
const SEARCH_BYTES: usize = 256 << 10;
/// How often a segment is read that a broker replaces while it is read.
const ATTEMPTS_MAX: u32 = 3;

/// What is known of a segment before it is read.
#[derive(Clone, Debug)]
pub struct SegmentJob {
    pub dir: PathBuf,
    pub base: i64,
    /// The next segment's base; None: it is the last one.
    pub next_base: Option<i64>,
    /// Which of the index files are there.
    pub offset_index: bool,
    pub time_index: bool,
    pub transaction_index: bool,
    /// A compaction has made it and was not finished: its files still bear `.swap`.
    pub is_unnamed: bool,
}

/// What was learnt of it.
#[derive(Debug, Default)]
pub struct SegmentFacts {
    pub base: i64,
    /// The first batch's offset; None: there is no batch.
    pub first: Option<i64>,
    /// The offset behind the last whole batch; the base where there is none.
    pub end: i64,
    pub first_epoch: Option<i32>,
    pub last_epoch: Option<i32>,
    pub batches: u64,
    pub records: u64,
    pub bytes: u64,
    /// Something was not a batch, or the file could not be read to its end.
    pub damaged: bool,
    pub findings: Findings,
}

/// Reads a segment and its indexes; again, where a running broker has put other files in their place meanwhile: what a
/// compaction leaves bears the same names.
pub fn check(job: &SegmentJob, context: &Context, progress: &AtomicU64) -> SegmentFacts {
    let mut attempts = 0;
    let mut job = job.clone();
    loop {
        let before = job.identities();
        let facts = check_once(&job, context, progress);
        attempts += 1;
        if !context.live || attempts == ATTEMPTS_MAX || before == job.identities() {
            return facts;
        }
        job.look_again();
    }
}

fn check_once(job: &SegmentJob, context: &Context, progress: &AtomicU64) -> SegmentFacts {
    let path = job.path(paths::LOG);
    let facts = SegmentFacts { base: job.base, end: job.base, ..SegmentFacts::default() };
    let mut walk = Walk { job, context, path, progress, facts, last_epoch: -1, told_epochs: false, told_old: false };
    if let Err((path, e)) = walk.run() {
        walk.facts.damaged = true;
        if e.kind() == io::ErrorKind::NotFound && context.live {
            let meaning = "the broker removed it meanwhile, as retention and compaction do";
            let what = ("the file", "it is gone");
            walk.facts.findings.add((Severity::Info, Check::InUse), (&path, Place::Whole), what, meaning);
        } else {
            walk.facts.findings.add_unreadable(&path, &e);
        }
    }
    walk.facts
}

impl SegmentJob {
    pub fn path(&self, suffix: &str) -> PathBuf {
        let path = |suffix: &str| paths::segment_file(&self.dir, Offset(self.base), suffix);
        let unnamed = path(&format!("{suffix}{}", paths::SWAP_FILE));
        // One of its files may have had its name already.
        if self.is_unnamed && unnamed.exists() { unnamed } else { path(suffix) }
    }

    /// Which segment follows now: one that compaction has made may take the place of several.
    fn look_again(&mut self) {
        let names = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let bases = names.filter_map(|name| match name.to_str().and_then(paths::parse_segment_file) {
            Some((base, paths::LOG)) => Some(base.0),
            _ => None,
        });
        self.next_base = bases.filter(|base| *base > self.base).min();
    }

    /// Which files bear the segment's names.
    fn identities(&self) -> [Option<(u64, u64)>; 3] {
        [paths::LOG, paths::OFFSET_INDEX, paths::TIME_INDEX].map(|suffix| {
            let meta = fs::metadata(self.path(suffix)).ok()?;
            Some((meta.dev(), meta.ino()))
        })
    }
}

/// A batch, or a message of an old format, that is whole.
#[derive(Clone, Copy, Debug)]
struct Entry {
    header: Option<BatchHeader>,
    first: i64,
    last: i64,
    bytes: u64,
}

/// Why there is none.
struct Problem {
    check: Check,
    expected: String,
    found: String,
    /// Where the next one may begin, if the length is right.
    after: Option<u64>,
}

struct Walk<'a> {
    job: &'a SegmentJob,
    context: &'a Context,
    path: PathBuf,
    progress: &'a AtomicU64,
    facts: SegmentFacts,
    last_epoch: i32,
    told_epochs: bool,
    told_old: bool,
}

type Failed = (PathBuf, io::Error);

struct Cursors<'a> {
    offsets: Option<OffsetCursor<'a>>,
    times: Option<TimeCursor<'a>>,
}

impl<'a> Walk<'a> {
    fn run(&mut self) -> Result<(), Failed> {
        let cache = if self.is_written_to() { Cache::Used } else { Cache::Passed };
        let path = self.path.clone();
        let at = |e| (path.clone(), e);
        let mut stream = Stream::open(&self.path, cache, self.progress).map_err(at)?;
        self.facts.bytes = stream.length();
        let mut cursors = self.open_cursors()?;
        let mut position = 0;
        while position < stream.length() {
            match self.entry_at(&mut stream, position).map_err(at)? {
                Ok(entry) => {
                    self.take(&mut stream, position, &entry, &mut cursors)?;
                    position += entry.bytes;
                }
                Err(problem) => {
                    self.facts.damaged = true;
                    let next = self.resume(&mut stream, position, problem.after).map_err(at)?;
                    self.tell_damage((position, stream.length()), problem, next);
                    let Some((on, offset)) = next else { break };
                    position = on;
                    self.facts.end = self.facts.end.max(offset);
                    self.skip(&mut cursors, position, offset)?;
                }
            }
        }
        self.finish(cursors, position)
    }

    /// The file that a broker writes to while it is read.
    fn is_written_to(&self) -> bool {
        self.context.live && self.job.next_base.is_none()
    }

    fn manner(&self) -> Manner {
        Manner { rebuilt: !self.context.live && self.context.rescans(self.job.next_base) }
    }

    fn open_cursors(&mut self) -> Result<Cursors<'a>, Failed> {
        let (manner, base, progress) = (self.manner(), self.job.base, self.progress);
        let mut cursors = Cursors { offsets: None, times: None };
        // The running broker's own are in its memory, or ahead of what is read here.
        if self.is_written_to() {
            return Ok(cursors);
        }
        let findings = &mut self.facts.findings;
        if self.job.offset_index {
            let path = self.job.path(paths::OFFSET_INDEX);
            let opened = OffsetCursor::open(&path, base, manner, progress, findings);
            cursors.offsets = Some(opened.map_err(|e| (path, e))?);
        }
        if self.job.time_index {
            let path = self.job.path(paths::TIME_INDEX);
            let opened = TimeCursor::open(&path, base, manner, progress, findings);
            cursors.times = Some(opened.map_err(|e| (path, e))?);
        }
        Ok(cursors)
    }

    /// The batch at a position, if it is whole, its CRC is right and it follows what came before.
    fn entry_at(&mut self, stream: &mut Stream<'_>, position: u64) -> io::Result<Result<Entry, Problem>> {
        let left = stream.length() - position;
        let head = stream.at(position, HEADER_LEN)?;
        let header = match BatchHeader::parse(head) {
            Ok(header) => header,
            Err(error) => {
                // The shortest of the old ones are shorter than a header of ours.
                if matches!(error, BatchError::Magic { found: 0 | 1 } | BatchError::Short { .. })
                    && let Some(old) = self.old_entry(stream, position)?
                {
                    return Ok(Ok(old));
                }
                return Ok(Err(self.no_header(stream, (position, left), error)?));
            }
        };
        let bytes = header.total_len() as u64;
        if bytes > left {
            let expected = format!("{bytes} bytes of a batch from offset {} on", header.base_offset);
            let found = format!("{left} bytes up to the end of the file");
            return Ok(Err(Problem { check: Check::BatchHeader, expected, found, after: None }));
        }
        let after = Some(position + bytes);
        let (delta, count) = (header.last_offset_delta, header.record_count);
        let last = header.base_offset.0.checked_add(i64::from(delta));
        if delta < 0 || count < 0 || i64::from(count) > i64::from(delta) + 1 || last.is_none() {
            let expected = format!("at most as many records as offsets in the batch from {} on", header.base_offset);
            let found = format!("{count} records, last offset delta {delta}");
            return Ok(Err(Problem { check: Check::BatchHeader, expected, found, after }));
        }
        let crc = crc_of(stream, position + CRC_FROM, position + bytes)?;
        if crc != header.crc {
            let expected = format!("CRC-32C {:08x} of the batch from offset {} on", header.crc, header.base_offset);
            return Ok(Err(Problem { check: Check::BatchCrc, expected, found: format!("{crc:08x}"), after }));
        }
        let first = header.base_offset.0;
        if first < self.facts.end || self.is_ahead(stream, &header, position + bytes)? {
            let (expected, found) = (format!("offset {} or a later one", self.facts.end), format!("offset {first}"));
            return Ok(Err(Problem { check: Check::BatchOffset, expected, found, after }));
        }
        Ok(Ok(Entry { header: Some(header), first, last: header.last_offset().0, bytes }))
    }

    /// Whether the batch, which begins later than is due, has a wrong offset: then its follower begins before its end.
    fn is_ahead(&self, stream: &mut Stream<'_>, header: &BatchHeader, after: u64) -> io::Result<bool> {
        if header.base_offset.0 == self.facts.end {
            return Ok(false);
        }
        let Ok(follower) = BatchHeader::parse(stream.at(after, HEADER_LEN)?) else { return Ok(false) };
        let due = self.facts.end.saturating_add(i64::from(header.last_offset_delta));
        Ok(follower.base_offset.0 > due && follower.base_offset <= header.last_offset())
    }

    fn no_header(
        &self,
        stream: &mut Stream<'_>,
        (position, left): (u64, u64),
        error: BatchError,
    ) -> io::Result<Problem> {
        let expected = format!("a batch from offset {} on", self.facts.end);
        let found = match only_zeros(stream, position)? {
            true => format!("{left} zero bytes up to the end"),
            false => error.to_string(),
        };
        Ok(Problem { check: Check::BatchHeader, expected, found, after: None })
    }

    /// A message of format v0 or v1 (a wrapper of compressed ones included) whose CRC-32 is right.
    ///
    /// ```text
    /// | offset i64, of a wrapper: its last message's | length i32 | CRC-32 u32 of what follows | magic i8 | ...
    /// ```
    fn old_entry(&mut self, stream: &mut Stream<'_>, position: u64) -> io::Result<Option<Entry>> {
        let left = stream.length() - position;
        let head = stream.at(position, OLD_HEADER)?;
        let (Some(0 | 1), Some(offset), Some(length), Some(crc)) = (
            head.get(16),
            head.first_chunk().map(|b| i64::from_be_bytes(*b)),
            head.get(8..).and_then(|b| b.first_chunk()).map(|b| u32::from_be_bytes(*b)),
            head.get(12..).and_then(|b| b.first_chunk()).map(|b| u32::from_be_bytes(*b)),
        ) else {
            return Ok(None);
        };
        let bytes = u64::from(length) + LOG_OVERHEAD as u64;
        if bytes < OLD_HEADER as u64 || bytes > left || offset < self.facts.end {
            return Ok(None);
        }
        let mut hasher = crc32fast::Hasher::new();
        for_each_piece(stream, position + OLD_CRC_FROM, position + bytes, |piece| hasher.update(piece))?;
        let entry = Entry { header: None, first: self.facts.end, last: offset, bytes };
        Ok((hasher.finalize() == crc).then_some(entry))
    }

    /// Takes a whole batch.
    fn take(
        &mut self,
        stream: &mut Stream<'_>,
        position: u64,
        entry: &Entry,
        cursors: &mut Cursors<'_>,
    ) -> Result<(), Failed> {
        let here = (self.path.clone(), Place::Byte(position));
        let here = (here.0.as_path(), here.1);
        match &entry.header {
            Some(header) => {
                self.check_gap(header, here);
                let follower = stream.at(position + entry.bytes, HEADER_LEN);
                let follower = follower.map_err(|e| (self.path.clone(), e))?;
                let next_epoch = BatchHeader::parse(follower).ok().map(|next| next.partition_leader_epoch);
                self.check_epoch(header, next_epoch, here);
                if header.codec().is_none() {
                    let found = format!("codec {}", header.codec_id());
                    self.tell(
                        (Severity::Error, Check::BatchHeader),
                        here,
                        ("a codec from 0 to 4".into(), found),
                        UNREADABLE,
                    );
                }
            }
            None if !self.told_old => {
                self.told_old = true;
                let what = ("message format v2".into(), "an older one".into());
                let meaning =
                    "Corelog does not serve these records: have Kafka rewrite the topic before it is taken over";
                self.tell((Severity::Info, Check::OldFormat), here, what, meaning);
            }
            None => {}
        }
        self.check_bounds(entry, here);
        self.facts.first.get_or_insert(entry.first);
        self.facts.end = entry.last.saturating_add(1);
        self.facts.batches += 1;
        self.facts.records += entry.header.map_or(1, |header| u64::from(header.record_count.unsigned_abs()));
        let Some(header) = &entry.header else { return Ok(()) };
        let batch = Indexed {
            position,
            first: entry.first,
            last: entry.last,
            max_timestamp: header.max_timestamp,
            has_records: header.record_count > 0,
        };
        let findings = &mut self.facts.findings;
        if let Some(offsets) = &mut cursors.offsets {
            let done = offsets.batch(&batch, findings);
            done.map_err(|e| (self.job.path(paths::OFFSET_INDEX), e))?;
        }
        if let Some(times) = &mut cursors.times {
            times.batch(&batch, findings).map_err(|e| (self.job.path(paths::TIME_INDEX), e))?;
        }
        Ok(())
    }

    fn check_gap(&mut self, header: &BatchHeader, here: (&Path, Place)) {
        let first = header.base_offset.0;
        // What lies before a segment's first batch is the partition's business: the end of the segment before counts there.
        let is_gap = self.facts.batches > 0 && !self.facts.damaged && first > self.facts.end;
        let holes = i64::from(header.last_offset_delta) + 1 - i64::from(header.record_count);
        if is_gap {
            let what = (format!("offset {}", self.facts.end), format!("offset {first}"));
            self.tell_gap(what, here);
        } else if holes > 0 && !header.is_control() {
            let offsets = format!("offsets {first} to {}", header.last_offset());
            let what = (format!("a record for each of {offsets}"), format!("{} records", header.record_count));
            self.tell_gap(what, here);
        }
    }

    fn tell_gap(&mut self, what: (String, String), here: (&Path, Place)) {
        if let Some((severity, meaning)) = self.context.gaps.judged() {
            self.tell((severity, Check::OffsetGap), here, what, meaning);
        }
    }

    fn check_bounds(&mut self, entry: &Entry, here: (&Path, Place)) {
        let most = self.job.base.saturating_add(i64::from(i32::MAX));
        let most = self.job.next_base.map_or(most, |next| most.min(next - 1));
        if entry.last > most {
            let what = (format!("offsets from {} to {most}", self.job.base), format!("offset {}", entry.last));
            let meaning = "the next segment holds these offsets too: which of the two a reader gets is open; keep a copy \
                           of the directory before anything else";
            self.tell((Severity::Error, Check::SegmentBounds), here, what, meaning);
        }
    }

    fn check_epoch(&mut self, header: &BatchHeader, next: Option<i32>, here: (&Path, Place)) {
        let epoch = header.partition_leader_epoch;
        let known = self.context.epoch_at(header.base_offset).filter(|_| epoch >= 0);
        let is_odd = next.is_some_and(|next| (0..epoch).contains(&next) && next >= self.last_epoch);
        if epoch < self.last_epoch || is_odd {
            let what = (format!("leader epoch {} or a later one, as behind it", self.last_epoch), format!("{epoch}"));
            let meaning = "the epoch of this batch is not what its leader wrote: followers and clients that compare \
                           epochs may cut their copies wrongly, and a scan after an unclean stop cuts the log here";
            self.tell((Severity::Error, Check::LeaderEpoch), here, what, meaning);
            return;
        }
        if let Some(known) = known.filter(|known| *known != epoch && !self.told_epochs) {
            self.told_epochs = true;
            let severity = match self.context.may_be_unwritten(self.job.next_base, header.base_offset.0) {
                true => Severity::Warning,
                false => Severity::Error,
            };
            let what = (format!("leader epoch {known}, as leader-epoch-checkpoint has it"), format!("{epoch}"));
            let meaning = "either this batch's epoch or the checkpoint is wrong: clients that ask where an epoch ended \
                           get a wrong answer; if only the checkpoint is, remove it, and it is rebuilt from the log";
            self.tell((severity, Check::LeaderEpoch), here, what, meaning);
        }
        self.facts.first_epoch.get_or_insert(epoch);
        self.facts.last_epoch = Some(epoch);
        self.last_epoch = epoch;
    }

    /// The next whole batch behind damage: where it lies, and its first offset.
    fn resume(&self, stream: &mut Stream<'_>, from: u64, hint: Option<u64>) -> io::Result<Option<(u64, i64)>> {
        if let Some(hint) = hint
            && let Some(offset) = self.whole_at(stream, hint)?
        {
            return Ok(Some((hint, offset)));
        }
        let (mut position, mut candidates) = (from + 1, 0);
        while position + HEADER_LEN as u64 <= stream.length() && candidates < CANDIDATES_MAX {
            let piece = stream.at(position, HEADER_LEN)?;
            let piece = piece.get(..SEARCH_BYTES.min(piece.len())).unwrap_or(piece);
            let found = piece.windows(HEADER_LEN).position(|window| self.is_plausible(window));
            let looked_at = (piece.len() - HEADER_LEN + 1) as u64;
            let Some(found) = found else {
                position += looked_at;
                continue;
            };
            position += found as u64;
            candidates += 1;
            if let Some(offset) = self.whole_at(stream, position)? {
                return Ok(Some((position, offset)));
            }
            position += 1;
        }
        Ok(None)
    }

    fn is_plausible(&self, window: &[u8]) -> bool {
        // The magic first: one look at a byte rules out nearly everything.
        window.get(16) == Some(&2)
            && BatchHeader::parse(window).is_ok_and(|header| {
                let reach = header.base_offset.0.checked_sub(self.job.base);
                header.base_offset.0 >= self.facts.end
                    && reach.is_some_and(|reach| (0..=i64::from(i32::MAX)).contains(&reach))
                    && header.last_offset_delta >= 0
                    && (0..=i64::from(header.last_offset_delta) + 1).contains(&i64::from(header.record_count))
            })
    }

    fn whole_at(&self, stream: &mut Stream<'_>, position: u64) -> io::Result<Option<i64>> {
        let head = stream.at(position, HEADER_LEN)?;
        let Some(header) = head.get(..HEADER_LEN).filter(|head| self.is_plausible(head)) else { return Ok(None) };
        let header = BatchHeader::parse(header).expect("invariant: plausible ones parse");
        let bytes = header.total_len() as u64;
        if bytes > stream.length() - position {
            return Ok(None);
        }
        let crc = crc_of(stream, position + CRC_FROM, position + bytes)?;
        Ok((crc == header.crc).then_some(header.base_offset.0))
    }

    fn tell_damage(&mut self, (position, length): (u64, u64), problem: Problem, next: Option<(u64, i64)>) {
        let (from, bytes) = (self.facts.end, next.map_or(length, |(on, _)| on) - position);
        let until = next.map(|(_, offset)| offset - 1).or(self.job.next_base.map(|base| base - 1));
        let (severity, meaning) = self.context.judge_damage(self.job.next_base, (from, until), (bytes, next.is_some()));
        let here = (self.path.clone(), Place::Byte(position));
        let what = (problem.expected, problem.found);
        self.facts.findings.add((severity, problem.check), (&here.0, here.1), what, meaning);
    }

    fn skip(&mut self, cursors: &mut Cursors<'_>, position: u64, offset: i64) -> Result<(), Failed> {
        let findings = &mut self.facts.findings;
        if let Some(offsets) = &mut cursors.offsets {
            offsets.skip_to(position, findings).map_err(|e| (self.job.path(paths::OFFSET_INDEX), e))?;
        }
        if let Some(times) = &mut cursors.times {
            times.skip_below(offset, findings).map_err(|e| (self.job.path(paths::TIME_INDEX), e))?;
        }
        Ok(())
    }

    fn finish(&mut self, cursors: Cursors<'_>, position: u64) -> Result<(), Failed> {
        let (manner, end) = (self.manner(), self.facts.end);
        let whole = position >= self.facts.bytes;
        let has_transactions = self.job.transaction_index && !self.is_written_to();
        let findings = &mut self.facts.findings;
        // What points behind damage up to the end cannot be judged.
        if let Some(offsets) = cursors.offsets.filter(|_| whole) {
            let done = offsets.finish((position, end), findings);
            done.map_err(|e| (self.job.path(paths::OFFSET_INDEX), e))?;
        }
        if let Some(times) = cursors.times.filter(|_| whole) {
            let is_closed = (self.job.next_base.is_some() || self.context.stop == Stop::Clean) && !self.told_old;
            times.finish(end, is_closed, findings).map_err(|e| (self.job.path(paths::TIME_INDEX), e))?;
        }
        if has_transactions && whole {
            let path = self.job.path(paths::TXN_INDEX);
            let checked = check_transactions(&path, (self.job.base, end), manner, self.progress, findings);
            checked.map_err(|e| (path, e))?;
        }
        Ok(())
    }

    fn tell(&mut self, kind: (Severity, Check), here: (&Path, Place), what: (String, String), meaning: &'static str) {
        self.facts.findings.add(kind, here, what, meaning);
    }
}

const UNREADABLE: &str = "no client can read this batch";

impl Gaps {
    /// What a gap in the offsets is worth; None: it is as it should be.
    pub fn judged(self) -> Option<(Severity, &'static str)> {
        match self {
            Gaps::Legal => None,
            Gaps::Unknown => Some((
                Severity::Warning,
                "normal in a topic that is or was compacted, and nothing here tells whether it is; otherwise records are \
                 missing",
            )),
            Gaps::Unlikely => Some((
                Severity::Error,
                "records are missing, unless the topic was compacted before its settings were changed; consumers pass them \
                 without a word",
            )),
        }
    }
}

fn crc_of(stream: &mut Stream<'_>, from: u64, to: u64) -> io::Result<u32> {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for_each_piece(stream, from, to, |piece| digest.update(piece))?;
    Ok(digest.finalize() as u32)
}

fn for_each_piece(stream: &mut Stream<'_>, from: u64, to: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let piece = stream.at(at, 1)?;
        let take = usize::try_from(to - at).unwrap_or(usize::MAX).min(piece.len());
        each(piece.get(..take).unwrap_or_default());
        at += take as u64;
    }
    Ok(())
}
