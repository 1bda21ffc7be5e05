//! Opens a partition's directory: finds its segments, and after an unclean stop cuts what is not whole.
//!
//! Cases, and why each is right (what a crash of the process, not of the machine, can leave; the file system keeps the
//! order of one process's completed writes):
//!
//! - *Clean stop*: everything was synced and the recovery point is the log's end; only the active segment's last headers
//!   are read. If they do not fit, the directory is treated as unclean.
//! - *Torn write*: a write of several batches may have been cut anywhere. No batch of it was acknowledged. The scan from
//!   the recovery point on cuts the segment after its last whole batch with a good CRC.
//! - *Half-done roll*: the new segment's file may be empty or missing; indexes of the old one may be missing. An empty
//!   last segment is taken as it is, missing indexes are rebuilt.
//! - *Segments after a cut* can hold nothing that was acknowledged, since writes of a partition complete in order: they
//!   are removed.
//! - *Missing checkpoints and snapshots* are rebuilt from the log: they never say more than it does.

use super::checkpoint;
use super::core::LogCore;
use super::epochs::EpochHistory;
use super::paths;
use super::producers::ProducerStates;
use super::scan::{Depth, Problem, scan};
use super::segment::{DetachedSegment, Indexes, Segment};
use crate::base::config::topic::TopicConfig;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::record::batch::BatchHeader;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::UNIX_EPOCH;

/// What is known of a partition before its directory is opened.
#[derive(Clone, Debug)]
pub struct OpenParams {
    pub dir: Rc<Path>,
    /// The last stop was clean: nothing needs scanning.
    pub clean: bool,
    /// Everything below is known to be whole.
    pub recovery_point: Offset,
    /// From the log-start-offset checkpoint.
    pub log_start: Option<Offset>,
    pub now_ms: i64,
}

/// An opened log with what had to be done for it.
pub struct Opened {
    pub core: LogCore,
    pub cuts: Vec<Cut>,
    pub scanned_bytes: u64,
}

/// Bytes that were cut from a segment, or whole segments that went with them.
#[derive(Debug)]
pub struct Cut {
    pub file: PathBuf,
    pub position: u32,
    pub bytes: u64,
    pub next_offset: Offset,
    /// None: the file follows one that was cut.
    pub problem: Option<Problem>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {bytes} bytes are more than a segment can have")]
    TooLarge { path: PathBuf, bytes: u64 },
}

/// Opens the directory; an empty one is a log that begins at `log_start`, or 0.
pub fn open(params: &OpenParams, config: &TopicConfig) -> Result<Opened, OpenError> {
    let found = list(&params.dir)?;
    let stored_epochs = read_epochs(&params.dir);
    let epochs_known = stored_epochs.is_some();
    let mut opening = Opening {
        params,
        config,
        epochs: stored_epochs.unwrap_or_default(),
        cuts: Vec::new(),
        scanned_bytes: 0,
        segments: VecDeque::new(),
    };
    let lower_bound = params.log_start.unwrap_or(Offset(0));
    let mut end = lower_bound;
    for (i, file) in found.iter().enumerate() {
        let segment = Rc::new(Segment::existing(Rc::clone(&params.dir), file.base, file.bytes, file.modified_ms));
        if !opening.cuts.is_empty() {
            opening.remove(&segment)?;
            continue;
        }
        end = match found.get(i + 1) {
            Some(next) if params.clean || next.base <= params.recovery_point => {
                if !epochs_known {
                    opening.scan_whole(&segment, Depth::Headers)?;
                }
                next.base
            }
            Some(_) => opening.scan_whole(&segment, Depth::Checksums)?,
            None if params.clean && epochs_known => opening.open_active(&segment)?,
            None => opening.scan_whole(&segment, Depth::Checksums)?,
        };
        opening.segments.push_back(segment);
    }
    opening.finish(lower_bound, end)
}

/// A `.log` file of the directory.
struct Found {
    base: Offset,
    bytes: u32,
    modified_ms: i64,
}

struct Opening<'a> {
    params: &'a OpenParams,
    config: &'a TopicConfig,
    epochs: EpochHistory,
    cuts: Vec<Cut>,
    scanned_bytes: u64,
    segments: VecDeque<Rc<Segment>>,
}

impl Opening<'_> {
    fn finish(mut self, lower_bound: Offset, mut end: Offset) -> Result<Opened, OpenError> {
        let log_start = self.segments.front().map_or(end, |first| first.base).max(lower_bound);
        if log_start > end {
            // The log was cut below its start: nothing of it may be served again.
            for segment in std::mem::take(&mut self.segments) {
                self.remove(&segment)?;
            }
            end = log_start;
        }
        self.epochs.truncate_end(end);
        self.epochs.truncate_start(log_start);
        let producers = self.read_producers(end)?;
        let dir = Rc::clone(&self.params.dir);
        let core = LogCore::recovered(dir, self.segments, (log_start, end), self.epochs, producers);
        Ok(Opened { core, cuts: self.cuts, scanned_bytes: self.scanned_bytes })
    }

    /// Reads a whole segment, rebuilds its indexes, notes its epochs, and cuts it where it is not whole.
    fn scan_whole(&mut self, segment: &Rc<Segment>, depth: Depth) -> Result<Offset, OpenError> {
        let size = segment.size();
        segment.reset();
        self.scan_rest(segment, (0, size), segment.base, depth)
    }

    /// Opens the last segment after a clean stop: reads on from its last index entry.
    fn open_active(&mut self, segment: &Rc<Segment>) -> Result<Offset, OpenError> {
        let size = segment.size();
        let Ok(indexes) = segment.detached().read_indexes() else { return self.scan_whole(segment, Depth::Checksums) };
        let from = indexes.offsets.position_before(u32::MAX);
        let max_timestamp = indexes.times.last().map(|e| (e.timestamp_ms, segment.base + i64::from(e.relative_offset)));
        let file = open_file(&segment.path(paths::LOG))?;
        let Ok((first, at)) = (|| io::Result::Ok((read_header(&file, 0)?, read_header(&file, from)?)))() else {
            return self.scan_whole(segment, Depth::Checksums);
        };
        segment.resume(indexes, from, (Some(first.max_timestamp), max_timestamp));
        self.scan_rest(segment, (from, size), at.base_offset, Depth::Headers)
    }

    fn scan_rest(
        &mut self,
        segment: &Rc<Segment>,
        (from, size): (u32, u32),
        expected: Offset,
        depth: Depth,
    ) -> Result<Offset, OpenError> {
        let path = segment.path(paths::LOG);
        let file = open_file(&path)?;
        let (epochs, interval) = (&mut self.epochs, self.config.index_interval_bytes);
        let end = scan(&file, (from, size), expected, depth, &mut |header, _| {
            segment.note_batch(header, interval);
            epochs.assign(LeaderEpoch(header.partition_leader_epoch), header.base_offset);
        })
        .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        self.scanned_bytes += u64::from(size - from);
        if let Some(problem) = end.problem {
            cut_file(&path, end.valid_bytes)?;
            self.cuts.push(Cut {
                file: path,
                position: end.valid_bytes,
                bytes: u64::from(size - end.valid_bytes),
                next_offset: end.next_offset,
                problem: Some(problem),
            });
        }
        Ok(end.next_offset)
    }

    /// Removes a segment that follows a cut, with everything that belongs to it.
    fn remove(&mut self, segment: &Segment) -> Result<(), OpenError> {
        let cut = Cut {
            file: segment.path(paths::LOG),
            position: 0,
            bytes: u64::from(segment.size()),
            next_offset: segment.base,
            problem: None,
        };
        for suffix in [paths::LOG, paths::OFFSET_INDEX, paths::TIME_INDEX, paths::PRODUCER_SNAPSHOT] {
            let path = segment.path(suffix);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(OpenError::Io { path, source }),
                _ => {}
            }
        }
        self.cuts.push(cut);
        Ok(())
    }

    /// The newest good snapshot that is not beyond the end, brought up to date from the log.
    fn read_producers(&mut self, end: Offset) -> Result<ProducerStates, OpenError> {
        let mut snapshots = list_snapshots(&self.params.dir)?;
        snapshots.sort_unstable_by(|a, b| b.cmp(a));
        let mut producers = ProducerStates::default();
        let mut from = self.segments.front().map_or(end, |first| first.base);
        for offset in snapshots {
            let path = paths::segment_file(&self.params.dir, offset, paths::PRODUCER_SNAPSHOT);
            if offset > end {
                let _ = fs::remove_file(&path);
                continue;
            }
            if let Ok(Ok(read)) = fs::read(&path).map(|content| ProducerStates::decode(&content)) {
                (producers, from) = (read, from.max(offset));
                break;
            }
        }
        for i in 0..self.segments.len() {
            let segment = Rc::clone(&self.segments[i]);
            let next = self.segments.get(i + 1).map_or(end, |next| next.base);
            if next <= from || segment.size() == 0 {
                continue;
            }
            let path = segment.path(paths::LOG);
            let noted =
                scan(&open_file(&path)?, (0, segment.size()), segment.base, Depth::Headers, &mut |header, _| {
                    if header.base_offset >= from {
                        producers.note(header);
                    }
                });
            noted.map_err(|source| OpenError::Io { path, source })?;
            self.scanned_bytes += u64::from(segment.size());
        }
        Ok(producers)
    }
}

/// Rebuilds the indexes of a sealed segment from its file. Blocking.
pub fn rebuild_indexes(segment: &DetachedSegment, index_interval_bytes: u32) -> io::Result<Indexes> {
    let rebuilt = Segment::new(Rc::from(Path::new("")), segment.base, 0);
    let file = File::open(segment.path(paths::LOG))?;
    scan(&file, (0, segment.size), segment.base, Depth::Headers, &mut |header, _| {
        rebuilt.note_batch(header, index_interval_bytes);
    })?;
    Ok(rebuilt.into_indexes())
}

fn list(dir: &Path) -> Result<Vec<Found>, OpenError> {
    let at = |source| OpenError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(at)? {
        let entry = entry.map_err(at)?;
        let name = entry.file_name();
        let Some((base, paths::LOG)) = name.to_str().and_then(paths::parse_segment_file) else { continue };
        let metadata = entry.metadata().map_err(at)?;
        let bytes = metadata.len();
        let bytes = u32::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= i32::MAX as u32)
            .ok_or_else(|| OpenError::TooLarge { path: entry.path(), bytes })?;
        let modified_ms = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_ms = modified_ms.map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        found.push(Found { base, bytes, modified_ms });
    }
    found.sort_unstable_by_key(|file| file.base);
    Ok(found)
}

fn list_snapshots(dir: &Path) -> Result<Vec<Offset>, OpenError> {
    let at = |source| OpenError::Io { path: dir.to_owned(), source };
    let mut offsets = Vec::new();
    for entry in fs::read_dir(dir).map_err(at)? {
        let name = entry.map_err(at)?.file_name();
        if let Some((offset, paths::PRODUCER_SNAPSHOT)) = name.to_str().and_then(paths::parse_segment_file) {
            offsets.push(offset);
        }
    }
    Ok(offsets)
}

fn read_epochs(dir: &Path) -> Option<EpochHistory> {
    let text = fs::read_to_string(dir.join(paths::LEADER_EPOCH_CHECKPOINT)).ok()?;
    EpochHistory::from_entries(checkpoint::decode_epochs(&text).ok()?)
}

fn read_header(file: &File, position: u32) -> io::Result<BatchHeader> {
    let mut bytes = [0; BatchHeader::LEN];
    file.read_exact_at(&mut bytes, u64::from(position))?;
    BatchHeader::parse(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn open_file(path: &Path) -> Result<File, OpenError> {
    File::open(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

fn cut_file(path: &Path, bytes: u32) -> Result<(), OpenError> {
    let cut = || {
        let file = File::options().write(true).open(path)?;
        file.set_len(u64::from(bytes))?;
        file.sync_all()
    };
    cut().map_err(|source| OpenError::Io { path: path.to_owned(), source })
}
