//! A partition's directory: what lies in it, and what its files say together when each segment has been read.

use super::context::Context;
use super::finding::{Check, Findings, Place, Severity};
use super::segment::{SegmentFacts, SegmentJob};
use super::text::{Text, read_text};
use crate::base::ids::{Offset, TopicId};
use crate::cli::dump::DumpError;
use crate::cli::dump::snapshot;
use crate::log::checkpoint::{self, CheckpointError};
use crate::log::compact::swap::{self, Finished};
use crate::log::corrupt::{CORRUPT_RANGES, CorruptRanges};
use crate::log::epochs::EpochHistory;
use crate::log::paths;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The segments' numbers of a partition, and what was found.
pub struct Partition {
    pub dir: PathBuf,
    pub context: Context,
    pub jobs: Vec<SegmentJob>,
    /// Bytes of the files that will be read.
    pub bytes: u64,
    pub findings: Findings,
    snapshots: Vec<i64>,
    epochs_are_there: bool,
    /// Only some segments are looked at, and nothing is said of the rest.
    is_part: bool,
}

/// What the partition's surroundings say of it.
pub struct Known {
    pub context: Context,
    /// What the store has as the topic's id; `Some(None)`: the store knows no such topic.
    pub topic_id: Option<Option<TopicId>>,
}

/// What lies there.
#[derive(Default)]
struct Listing {
    logs: BTreeMap<i64, u64>,
    /// By base and suffix.
    indexes: BTreeMap<(i64, &'static str), u64>,
    snapshots: Vec<i64>,
    has_metadata: bool,
    /// New segments of a compaction that was not finished.
    unnamed: Vec<i64>,
    /// What of them bears `.swap`: base, suffix without it, bytes.
    swaps: Vec<(i64, String, u64)>,
    /// Files that the broker removes in a minute, or at its next start.
    leftovers: Vec<PathBuf>,
}

const INDEXES: [&str; 3] = [paths::OFFSET_INDEX, paths::TIME_INDEX, paths::TXN_INDEX];

impl Partition {
    /// Looks through the directory; of segments only their names are read.
    pub fn open(dir: &Path, known: Known) -> io::Result<Partition> {
        let mut findings = Findings::default();
        let Known { mut context, topic_id } = known;
        let listing = Listing::read(dir, &context, &mut findings)?;
        let epochs = read_epochs(dir, &mut findings);
        let epochs_are_there = epochs.is_some();
        context.epochs = epochs.flatten().map(Arc::new);
        check_metadata(dir, &listing, topic_id, &context, &mut findings);
        let bases: Vec<i64> = listing.logs.keys().copied().collect();
        let jobs = bases.iter().enumerate().map(|(i, base)| SegmentJob {
            dir: dir.to_owned(),
            base: *base,
            next_base: bases.get(i + 1).copied(),
            offset_index: listing.indexes.contains_key(&(*base, paths::OFFSET_INDEX)),
            time_index: listing.indexes.contains_key(&(*base, paths::TIME_INDEX)),
            transaction_index: listing.indexes.contains_key(&(*base, paths::TXN_INDEX)),
            is_unnamed: listing.unnamed.contains(base),
        });
        let jobs: Vec<SegmentJob> = jobs.collect();
        tell_indexes(dir, &listing, &jobs, &context, &mut findings);
        let bytes = listing.logs.values().chain(listing.indexes.values()).sum();
        let snapshots = listing.snapshots;
        Ok(Partition {
            dir: dir.to_owned(),
            context,
            jobs,
            bytes,
            findings,
            snapshots,
            epochs_are_there,
            is_part: false,
        })
    }

    /// Leaves only one segment to be looked at.
    pub fn only(mut self, base: i64) -> Partition {
        self.jobs.retain(|job| job.base == base);
        self.is_part = true;
        self.findings = Findings::default();
        self
    }

    /// Compares what the segments said, in their order, with one another and with the small files. Reads the latter.
    pub fn join(&mut self, facts: &mut [SegmentFacts]) {
        for fact in facts.iter_mut() {
            self.findings.append(std::mem::take(&mut fact.findings));
        }
        if self.is_part {
            return;
        }
        self.join_segments(facts);
        let end = facts.last().map(|last| last.end);
        let is_whole = !facts.iter().any(|fact| fact.damaged);
        self.check_offsets(facts.last());
        self.check_epochs(facts, end);
        for offset in std::mem::take(&mut self.snapshots) {
            self.check_snapshot(offset, end.filter(|_| is_whole));
        }
    }

    fn join_segments(&mut self, facts: &[SegmentFacts]) {
        for (i, fact) in facts.iter().enumerate() {
            let path = self.log_path(fact.base);
            let before = i.checked_sub(1).and_then(|i| facts.get(i));
            let due = before.map_or(fact.base, |before| before.end);
            let begins = fact.first.unwrap_or(fact.base);
            // What follows damage has its gap told with the damage.
            let is_told = before.is_some_and(|before| before.damaged) || (fact.damaged && fact.first.is_none());
            if begins > due
                && !is_told
                && let Some((severity, meaning)) = self.context.gaps.judged()
            {
                let what = (format!("offset {due}"), format!("offset {begins}"));
                self.findings.add((severity, Check::OffsetGap), (&path, Place::Whole), what, meaning);
            }
            let last_epoch = facts.iter().take(i).filter_map(|before| before.last_epoch).next_back();
            if let (Some(last), Some(first)) = (last_epoch, fact.first_epoch)
                && first < last
            {
                let what = (format!("leader epoch {last} or a later one"), format!("{first}"));
                let meaning = "segments of different histories lie in one log: keep a copy of the directory before \
                               anything else, and compare with another replica";
                self.findings.add((Severity::Error, Check::LeaderEpoch), (&path, Place::Byte(0)), what, meaning);
            }
        }
    }

    /// Recovery point, log start and high watermark, which stand in the data directory's checkpoints.
    fn check_offsets(&mut self, last: Option<&SegmentFacts>) {
        let context = &self.context;
        let Some(last) = last else {
            if let Some(point) = context.recovery_point.filter(|point| *point > 0) {
                let what = (format!("segments up to offset {point}"), "no segment");
                let kind = (Severity::Error, Check::RecoveryPoint);
                let meaning =
                    "all records of this partition are gone, if it had any; restore the directory from elsewhere";
                self.findings.add(kind, (&self.dir, Place::Whole), what, meaning);
            }
            return;
        };
        if last.damaged {
            // Where it ends is told with the damage.
            return;
        }
        let end = last.end;
        let here = (self.dir.as_path(), Place::Whole);
        let found = format!("the log ends at offset {end}");
        if let Some(point) = context.recovery_point.filter(|point| *point > end) {
            let meaning = format!(
                "{} offsets were on disk and are not there any more: segments, or the end of this one, have been removed or \
                 cut. The next start goes on at offset {end} and gives these offsets to other records: restore what is \
                 missing first",
                point - end
            );
            let what = (format!("a log up to the recovery point {point} at least"), found.clone());
            let path = paths::segment_file(&self.dir, Offset(last.base), paths::LOG);
            let at = (path.as_path(), Place::Byte(last.bytes));
            self.findings.add((Severity::Error, Check::RecoveryPoint), at, what, meaning);
        }
        if let Some(start) = context.log_start.filter(|start| *start > end) {
            let meaning = "the log was cut below its start: the next start removes what is left of it, and begins at the \
                           log start";
            let what = (format!("a log from {start} on"), found.clone());
            self.findings.add((Severity::Error, Check::LogStartOffset), here, what, meaning);
        }
        if let Some(mark) = context.high_watermark.filter(|mark| *mark > end && !context.live) {
            let meaning = "records that consumers could see are not in this log; with other replicas that is usual after an \
                           unclean election";
            let what = (format!("a log up to the high watermark {mark} at least"), found);
            self.findings.add((Severity::Warning, Check::HighWatermark), here, what, meaning);
        }
    }

    fn check_epochs(&mut self, facts: &[SegmentFacts], end: Option<i64>) {
        let path = self.dir.join(paths::LEADER_EPOCH_CHECKPOINT);
        let has_batches = facts.iter().any(|fact| fact.last_epoch.is_some_and(|epoch| epoch >= 0));
        if !self.epochs_are_there && has_batches && !self.context.live {
            let meaning = "the next start rebuilds it from the log, which takes reading all of it";
            let what = ("the file", "it is not there");
            self.findings.add((Severity::Warning, Check::EpochCheckpoint), (&path, Place::Whole), what, meaning);
        }
        let Some((epoch, start)) = self.context.epochs.as_ref().and_then(|history| history.entries().last().copied())
        else {
            return;
        };
        if let Some(end) = end.filter(|end| start.0 > *end && !self.context.live) {
            let severity = if self.context.rescans(None) { Severity::Warning } else { Severity::Error };
            let what = (
                format!("epochs that begin at {end}, the log's end, at the latest"),
                format!("epoch {epoch} from {start}"),
            );
            let meaning =
                "the checkpoint tells of records that the log does not have; the next start removes the entry";
            self.findings.add((severity, Check::EpochCheckpoint), (&path, Place::Whole), what, meaning);
        }
    }

    fn check_snapshot(&mut self, offset: i64, end: Option<i64>) {
        let path = paths::segment_file(&self.dir, Offset(offset), paths::PRODUCER_SNAPSHOT);
        // Kafka writes them in place: a crash may leave a part of one.
        let may_be_torn = !self.context.ours && self.context.may_be_unwritten(None, offset);
        let broken = if may_be_torn { Severity::Warning } else { Severity::Error };
        let mut beyond = None;
        let read = snapshot::read(&path, &mut |at, producer| {
            if producer.last_offset >= offset && beyond.is_none() {
                beyond = Some((at, format!("producer {} with offset {}", producer.id, producer.last_offset)));
            }
            Ok(())
        });
        let meaning = "the next start takes an older snapshot and reads the log from there, or all of it; producers whose \
                       records retention has removed are forgotten: one of their retries may be appended twice";
        let kind = (broken, Check::ProducerSnapshot);
        match read {
            Ok(_) => {}
            Err(DumpError::Corrupt(corrupt)) => {
                let here = (path.as_path(), Place::Byte(corrupt.position));
                self.findings.add(kind, here, ("a producer snapshot, version 1", corrupt.reason), meaning);
            }
            Err(DumpError::Read(e) | DumpError::Output(e)) => {
                if !(self.context.live && e.kind() == io::ErrorKind::NotFound) {
                    self.findings.add_unreadable(&path, &e);
                }
            }
        }
        if let Some((at, found)) = beyond {
            let what = (format!("offsets below {offset}"), found);
            self.findings.add(kind, (&path, Place::Byte(at)), what, meaning);
        }
        if let Some(end) = end.filter(|end| offset > *end && !self.context.live) {
            let what = (format!("a snapshot at {end}, the log's end, at the latest"), format!("one at {offset}"));
            let meaning = "it tells of records that the log does not have; the next start removes it";
            self.findings.add((Severity::Warning, Check::ProducerSnapshot), (&path, Place::Whole), what, meaning);
        }
    }

    fn log_path(&self, base: i64) -> PathBuf {
        paths::segment_file(&self.dir, Offset(base), paths::LOG)
    }
}

impl Listing {
    fn read(dir: &Path, context: &Context, findings: &mut Findings) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                tell_stray(&entry.path(), findings);
                continue;
            };
            let kind = match entry.metadata() {
                Ok(meta) => meta,
                // Removed meanwhile, by a broker.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if kind.is_file() {
                listing.note(&name, kind.len(), &entry.path(), context, findings);
            } else {
                tell_stray(&entry.path(), findings);
            }
        }
        if !context.live && !listing.swaps.is_empty() {
            listing.take_in_swaps(dir, findings);
        }
        listing.snapshots.sort_unstable();
        listing.leftovers.sort_unstable();
        if let [first, ..] = &listing.leftovers[..] {
            let found = format!("{} on their way out, or never finished, this one among them", listing.leftovers.len());
            let meaning = "no record is affected; the broker removes them, at its next start at the latest";
            let what = ("only files of the log", found);
            findings.add((Severity::Info, Check::Leftover), (first, Place::Whole), what, meaning);
        }
        Ok(listing)
    }

    fn note(&mut self, name: &str, bytes: u64, path: &Path, context: &Context, findings: &mut Findings) {
        let parsed = paths::parse_segment_file(name);
        match parsed {
            Some((base, paths::LOG)) => {
                self.logs.insert(base.0, bytes);
            }
            Some((base, paths::PRODUCER_SNAPSHOT)) => self.snapshots.push(base.0),
            Some((base, suffix)) if INDEXES.contains(&suffix) => {
                let suffix = INDEXES.into_iter().find(|s| *s == suffix).expect("invariant: just found");
                self.indexes.insert((base.0, suffix), bytes);
            }
            _ if name == paths::PARTITION_METADATA => self.has_metadata = true,
            _ if name == paths::LEADER_EPOCH_CHECKPOINT => {}
            _ if name == CORRUPT_RANGES => check_ranges(path, findings),
            Some((base, suffix)) if suffix.ends_with(paths::SWAP_FILE) => {
                let suffix = suffix.trim_end_matches(paths::SWAP_FILE).to_owned();
                self.swaps.push((base.0, suffix, bytes));
                if context.live {
                    self.leftovers.push(path.to_owned());
                }
            }
            // Kafka's raft snapshots (of __cluster_metadata) are none of the log's files.
            _ if name.ends_with(".checkpoint") => {}
            _ if [".deleted", ".cleaned", ".tmp"].iter().any(|suffix| name.ends_with(suffix)) => {
                self.leftovers.push(path.to_owned());
            }
            _ => tell_stray(path, findings),
        }
    }
}

/// The broker's own list of damage: what it says is found here too, as far as it is true.
fn check_ranges(path: &Path, findings: &mut Findings) {
    let Text::Is(text) = read_text(path, findings) else { return };
    if let Err(error) = CorruptRanges::decode(&text) {
        let meaning = "the broker does not believe it: damage that it told of is served until it is found again";
        let what = ("a list of damaged ranges", error.to_string());
        findings.add((Severity::Warning, Check::CorruptRanges), (path, Place::Whole), what, meaning);
    }
}

impl Listing {
    /// What the next start makes of a compaction that was not finished: looked at is what there will be then.
    fn take_in_swaps(&mut self, dir: &Path, findings: &mut Findings) {
        let finished = match swap::unfinished(dir) {
            Ok(finished) => finished,
            Err(e) => {
                let meaning =
                    "the next start refuses the partition: it cannot tell which segments the new one replaces";
                let what = ("a whole segment that a compaction has made".to_owned(), e.to_string());
                return findings.add((Severity::Error, Check::Leftover), (dir, Place::Whole), what, meaning);
            }
        };
        let meaning = "no record is affected: the next start of either broker finishes it, or takes it back";
        let what = ("no unfinished compaction", "one");
        findings.add((Severity::Info, Check::Leftover), (dir, Place::Whole), what, meaning);
        for Finished { base, end } in finished {
            self.logs.retain(|old, _| !(base.0..end.0).contains(old));
            self.indexes.retain(|(old, _), _| !(base.0 + 1..end.0).contains(old));
            self.snapshots.retain(|old| !(base.0 + 1..end.0).contains(old));
            self.unnamed.push(base.0);
            for (of, suffix, bytes) in self.swaps.iter().filter(|(of, ..)| *of == base.0) {
                if suffix == paths::LOG {
                    self.logs.insert(*of, *bytes);
                } else if let Some(suffix) = INDEXES.into_iter().find(|known| known == suffix) {
                    self.indexes.insert((*of, suffix), *bytes);
                }
            }
        }
    }
}

pub fn tell_stray(path: &Path, findings: &mut Findings) {
    let what = ("only files that a broker makes", "something else");
    let meaning = "no record is affected; somebody put it there, and no broker looks at it";
    findings.add((Severity::Warning, Check::Stray), (path, Place::Whole), what, meaning);
}

fn tell_indexes(dir: &Path, listing: &Listing, jobs: &[SegmentJob], context: &Context, findings: &mut Findings) {
    for job in jobs {
        let is_empty = listing.logs.get(&job.base).is_none_or(|bytes| *bytes == 0);
        if is_empty || context.rescans(job.next_base) || (context.live && job.next_base.is_none()) {
            continue;
        }
        for (suffix, is_there) in [(paths::OFFSET_INDEX, job.offset_index), (paths::TIME_INDEX, job.time_index)] {
            if !is_there {
                let path = job.path(suffix);
                let meaning = "no record is affected; it is rebuilt from the segment when it is needed";
                let what = ("the file", "it is not there");
                findings.add((Severity::Warning, Check::MissingIndex), (&path, Place::Whole), what, meaning);
            }
        }
    }
    for (base, suffix) in listing.indexes.keys().filter(|(base, _)| !listing.logs.contains_key(base)) {
        let path = paths::segment_file(dir, Offset(*base), suffix);
        let severity = if context.live { Severity::Info } else { Severity::Warning };
        let meaning = "the segment may have been removed half, or is lost; the next start removes what is left of it";
        let what = (format!("a segment from offset {base} on"), "only its index");
        findings.add((severity, Check::Leftover), (&path, Place::Whole), what, meaning);
    }
}

/// The checkpoint of leader epochs; `Some(None)`: it is there, and says nothing.
fn read_epochs(dir: &Path, findings: &mut Findings) -> Option<Option<EpochHistory>> {
    let path = dir.join(paths::LEADER_EPOCH_CHECKPOINT);
    let text = match read_text(&path, findings) {
        Text::Is(text) => text,
        Text::NotThere => return None,
        Text::Unreadable => return Some(None),
    };
    let meaning = "the next start rebuilds it from the log; until then clients that ask where an epoch ended get no answer, \
                   or a wrong one";
    let kind = (Severity::Error, Check::EpochCheckpoint);
    let entries = match checkpoint::decode_epochs(&text) {
        Ok(entries) => entries,
        Err(error) => {
            tell_checkpoint(&path, &error, kind, meaning, findings);
            return Some(None);
        }
    };
    let history = EpochHistory::from_entries(entries);
    if history.is_none() {
        let what = ("epochs and offsets that rise", "some that do not");
        findings.add(kind, (&path, Place::Whole), what, meaning);
    }
    Some(history)
}

/// Tells of a text that is no checkpoint.
pub fn tell_checkpoint(
    path: &Path,
    error: &CheckpointError,
    kind: (Severity, Check),
    meaning: &'static str,
    findings: &mut Findings,
) {
    let (place, expected, found) = match error {
        CheckpointError::Malformed { line, expected, found } => {
            (Place::Line(*line), (*expected).to_owned(), format!("{found:?}"))
        }
        CheckpointError::Version { found } => (Place::Line(1), "version 0".to_owned(), format!("{found:?}")),
        CheckpointError::Count { expected, found } => {
            (Place::Line(2), format!("{expected} lines, as announced"), format!("{found}"))
        }
    };
    findings.add(kind, (path, place), (expected, found), meaning);
}

fn check_metadata(
    dir: &Path,
    listing: &Listing,
    topic_id: Option<Option<TopicId>>,
    context: &Context,
    findings: &mut Findings,
) {
    let path = dir.join(paths::PARTITION_METADATA);
    let text = match read_text(&path, findings) {
        Text::Is(text) => text,
        Text::Unreadable => return,
        Text::NotThere => {
            // Kafka before 2.8 had none; of ours, one without records was being made when the node died.
            if context.ours && !listing.logs.is_empty() && !listing.has_metadata {
                let meaning = "the next start does not know whose records these are: it sets the directory aside, and the \
                               partition begins anew. Write the file with the topic's id first";
                let what = ("the file", "it is not there");
                findings.add((Severity::Error, Check::PartitionMetadata), (&path, Place::Whole), what, meaning);
            }
            return;
        }
    };
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    let id_line = lines.next().unwrap_or_default();
    let id = id_line.strip_prefix("topic_id:").and_then(|id| TopicId::parse(id.trim()));
    if version.trim() != "version: 0" || id.is_none() {
        let (line, expected, found) = match version.trim() {
            "version: 0" => (2, "topic_id: and 22 letters of base64", id_line),
            _ => (1, "version: 0", version),
        };
        let found = format!("{:?}", found.chars().take(80).collect::<String>());
        let meaning = "a start does not know whose records these are, and does not serve them";
        let kind = (Severity::Error, Check::PartitionMetadata);
        findings.add(kind, (&path, Place::Line(line)), (expected, found), meaning);
        return;
    }
    let (Some(known), Some(id)) = (topic_id, id) else { return };
    if known != Some(id) {
        let expected =
            known.map_or("a topic of this name in the store".to_owned(), |known| format!("topic id {known}"));
        let meaning = "these are records of a deleted topic, or the store is another one's; they are not served, and set \
                       aside when the topic is made anew";
        let what = (expected, format!("topic id {id}"));
        findings.add((Severity::Warning, Check::PartitionMetadata), (&path, Place::Line(2)), what, meaning);
    }
}
