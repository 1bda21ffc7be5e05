//! The files and directories around a log: made when the first record comes, renamed and removed when the topic goes.
//! All of it is blocking work on a helper thread, none of it on the path of a record.

use super::unlink::Gently;
use crate::base::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use crate::log::checkpoint::{encode_epochs, sync_dir, write_atomically};
use crate::log::corrupt::CORRUPT_RANGES;
use crate::log::open;
use crate::log::paths;
use crate::log::redo::{RedoWrite, redo};
use crate::log::segment::{DetachedSegment, Indexes, NewEntries};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// Where a partition lives. Its directory appears with its first record, so that creating a topic of a thousand
/// partitions costs no thousand directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// One of `log.dirs`.
    pub log_dir: PathBuf,
    /// The partition's own directory in it.
    pub dir: Rc<Path>,
    pub exists: bool,
    /// How often names were made in it, and up to which time they are durable.
    names_made: u64,
    names_synced: u64,
    /// The directory is as a clean stop leaves it for a log that ends here: nothing need be written if it still does.
    pub clean_end: Option<Offset>,
}

/// Both index files' contents.
pub type EncodedIndexes = (Vec<u8>, Vec<u8>);

/// What a clean stop leaves beside the segments.
pub struct CleanState {
    /// The active segment, and sealed ones whose indexes are not on disk.
    pub indexes: Vec<(DetachedSegment, EncodedIndexes)>,
    pub end: Offset,
    pub snapshot: Vec<u8>,
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

/// What became of segments that were to be marked as deleted.
pub struct Marked {
    /// The new names, to be removed later.
    pub files: Vec<PathBuf>,
    /// The segment that failed, and all after it, which must not go before it.
    pub left: Vec<DetachedSegment>,
    pub outcome: io::Result<()>,
}

/// What lets recovery begin at an offset within the active segment.
pub struct Settled {
    pub dir: PathBuf,
    pub segment: DetachedSegment,
    pub indexes: NewEntries,
    /// The producers' snapshot at that offset.
    pub snapshot: (PathBuf, Vec<u8>),
}

impl Home {
    pub fn new(log_dir: &Path, topic: &str, partition: PartitionIndex, exists: bool) -> Home {
        let dir = Rc::from(log_dir.join(paths::partition_dir(topic, partition)));
        Home { log_dir: log_dir.to_owned(), dir, exists, names_made: 0, names_synced: 0, clean_end: None }
    }

    /// A file was made, and the directory if it was the first.
    pub fn made_names(&mut self) {
        self.exists = true;
        self.names_made += 1;
    }

    /// What to tell `synced_names` after a sync that begins now; None: all names are durable.
    pub fn unsynced_names(&self) -> Option<u64> {
        (self.names_synced < self.names_made).then_some(self.names_made)
    }

    pub fn synced_names(&mut self, made: u64) {
        self.names_synced = self.names_synced.max(made);
    }
}

/// Makes the file of a new segment, and before the first one the directory with the `epochs` that begin in it. Durable after `sync_names`:
/// of a thousand partitions whose first records come at once, none waits for syncs of the others.
/// A directory that another life of the topic left under the name is set aside.
pub async fn make_segment(
    home: Home,
    (topic, id): (&str, TopicPartition),
    base: Offset,
    epochs: Vec<(LeaderEpoch, Offset)>,
) -> io::Result<()> {
    let (dir, exists) = (home.dir.to_path_buf(), home.exists);
    let stray = home.log_dir.join(paths::stray_dir(topic, id.partition));
    run(move || {
        if !exists {
            make_dir(&dir, id.topic, &stray)?;
            fs::write(dir.join(paths::LEADER_EPOCH_CHECKPOINT), encode_epochs(&epochs))?;
        }
        make_segment_file(&dir, base)
    })
    .await
}

/// Makes a partition's directory, or finds it as a crash left it.
fn make_dir(dir: &Path, topic: TopicId, stray: &Path) -> io::Result<()> {
    match fs::symlink_metadata(dir) {
        Ok(found) if !found.is_dir() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file has its name"));
        }
        Ok(_) if read_topic_id(dir)? != Some(topic) => fs::rename(dir, stray)?,
        _ => {}
    }
    fs::create_dir_all(dir)?;
    fs::write(dir.join(paths::PARTITION_METADATA), format!("version: 0\ntopic_id: {topic}"))
}

/// Puts what a journal has back into the segments, making what is missing; on disk when it returns. Blocking.
pub fn redo_journaled(
    home: &Home,
    (topic, id): (&str, TopicPartition),
    log_start: Option<Offset>,
    writes: &[RedoWrite],
) -> io::Result<()> {
    if !home.exists {
        make_dir(&home.dir, id.topic, &home.log_dir.join(paths::stray_dir(topic, id.partition)))?;
    }
    redo(&home.dir, log_start.unwrap_or(Offset(0)), writes)?;
    match home.exists && !home.dir.join(paths::PARTITION_METADATA).exists() {
        // Its name was lost, after it had been on disk.
        true => sync_dir(&home.dir),
        false => sync_home(&home.dir, &home.log_dir),
    }
}

/// A file of that name with something in it is no segment of this log: neither to be overwritten nor to be taken over.
fn make_segment_file(dir: &Path, base: Offset) -> io::Result<()> {
    let path = paths::segment_file(dir, base, paths::LOG);
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    match file.metadata()?.len() {
        0 => Ok(()),
        bytes => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("the new segment already has {bytes} bytes")))
        }
    }
}

/// All records have expired: makes the empty segment that says where the log goes on, with the producers' snapshot, and
/// only then marks the others as deleted.
pub async fn replace_segments(
    dir: PathBuf,
    base: Offset,
    snapshot: Vec<u8>,
    gone: Vec<DetachedSegment>,
) -> io::Result<Vec<PathBuf>> {
    run(move || {
        make_segment_file(&dir, base)?;
        write_atomically(&paths::segment_file(&dir, base, paths::PRODUCER_SNAPSHOT), &snapshot)?;
        // Never a directory without a segment: the log would begin anew at an older offset.
        sync_dir(&dir)?;
        let Marked { files, left, outcome } = mark_deleted(gone);
        debug_assert!(left.is_empty() || outcome.is_err());
        outcome.map(|()| files)
    })
    .await
}

/// The topic id in a partition's directory; None: there is none, or nothing that could be one. An error says nothing of what is there.
pub fn read_topic_id(dir: &Path) -> io::Result<Option<TopicId>> {
    let content = match fs::read(dir.join(paths::PARTITION_METADATA)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let text = String::from_utf8_lossy(&content);
    Ok(text.lines().find_map(|line| TopicId::parse(line.strip_prefix("topic_id:")?.trim())))
}

/// Makes the names in the partition's directory, and its own name, durable.
pub async fn sync_names(home: Home) -> io::Result<()> {
    let (dir, log_dir) = (home.dir.to_path_buf(), home.log_dir);
    run(move || sync_home(&dir, &log_dir)).await
}

fn sync_home(dir: &Path, log_dir: &Path) -> io::Result<()> {
    File::open(dir.join(paths::PARTITION_METADATA))?.sync_all()?;
    // What a crash leaves of it otherwise is no checkpoint, which is as good as none: the log tells its epochs.
    match File::open(dir.join(paths::LEADER_EPOCH_CHECKPOINT)) {
        Ok(epochs) => epochs.sync_all()?,
        Err(e) => ignore_missing(Err(e))?,
    }
    sync_dir(dir)?;
    sync_dir(log_dir)
}

pub fn write_epochs(dir: &Path, epochs: &[(LeaderEpoch, Offset)]) -> io::Result<()> {
    write_atomically(&dir.join(paths::LEADER_EPOCH_CHECKPOINT), encode_epochs(epochs).as_bytes())
}

/// Indexes, producer snapshot and epochs of a log that is closed. Nothing here is needed for correctness: see `log::open`.
pub fn write_clean_state(dir: &Path, state: CleanState) -> io::Result<()> {
    for (segment, indexes) in &state.indexes {
        segment.write_indexes(indexes)?;
    }
    // Before the snapshot: whoever finds that relies on them.
    write_epochs(dir, &state.epochs)?;
    write_atomically(&paths::segment_file(dir, state.end, paths::PRODUCER_SNAPSHOT), &state.snapshot)
}

/// Writes what settles a log whose records and epochs are on disk up to the snapshot: the snapshot last. Blocking.
pub fn write_settled(state: &Settled) -> io::Result<()> {
    state.segment.append_indexes(&state.indexes)?;
    write_atomically(&state.snapshot.0, &state.snapshot.1)?;
    remove_old_snapshots(&state.dir)
}

/// Of the snapshots that are not at a segment's base two stay: the newest may be beyond what the recovery points on disk say.
fn remove_old_snapshots(dir: &Path) -> io::Result<()> {
    let (mut within, mut bases) = (Vec::new(), HashSet::new());
    for entry in fs::read_dir(dir)? {
        match entry?.file_name().to_str().and_then(paths::parse_segment_file) {
            Some((offset, paths::PRODUCER_SNAPSHOT)) => within.push(offset),
            Some((base, paths::LOG)) => drop(bases.insert(base)),
            _ => {}
        }
    }
    within.retain(|offset| !bases.contains(offset));
    within.sort_unstable();
    for offset in within.iter().rev().skip(2) {
        ignore_missing(fs::remove_file(paths::segment_file(dir, *offset, paths::PRODUCER_SNAPSHOT)))?;
    }
    Ok(())
}

/// Marks the files of segments as deleted: readers that hold them read on.
pub async fn mark_segments(segments: Vec<DetachedSegment>) -> Marked {
    let failed = |e| Marked { files: Vec::new(), left: Vec::new(), outcome: Err(io::Error::other(e)) };
    spawn_blocking(move || mark_deleted(segments)).await.unwrap_or_else(failed)
}

/// One segment after the other, oldest first, and each durably: whatever fails or a power cut leaves, and should the checkpoint of
/// log starts be lost as well, no segment is missing between two others.
fn mark_deleted(segments: Vec<DetachedSegment>) -> Marked {
    let mut marked = Marked { files: Vec::new(), left: Vec::new(), outcome: Ok(()) };
    let mut segments = segments.into_iter();
    for segment in &mut segments {
        if let Err(e) = mark_one(&segment, &mut marked.files) {
            (marked.left, marked.outcome) = (vec![segment], Err(e));
            break;
        }
    }
    marked.left.extend(segments);
    marked
}

/// Names are handed over once they are on disk: what a power cut brings back under the old one must be whole.
fn mark_one(segment: &DetachedSegment, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut marked = Vec::new();
    for suffix in [paths::LOG, paths::OFFSET_INDEX, paths::TIME_INDEX, paths::TXN_INDEX, paths::PRODUCER_SNAPSHOT] {
        let path = segment.path(suffix);
        let mut deleted = path.clone().into_os_string();
        deleted.push(paths::DELETED_FILE);
        let deleted = PathBuf::from(deleted);
        match fs::rename(&path, &deleted) {
            Ok(()) => marked.push(deleted),
            // An attempt before may have come so far.
            Err(e) if e.kind() == io::ErrorKind::NotFound => marked.extend(deleted.exists().then_some(deleted)),
            Err(e) => return Err(e),
        }
    }
    segment.path(paths::LOG).parent().map_or(Ok(()), sync_dir)?;
    files.extend(marked);
    Ok(())
}

/// Removes marked files after the delay. A stop in between leaves them to the next start.
pub async fn remove_marked(gently: Gently, marked: Vec<PathBuf>, delay_ms: i64) -> io::Result<()> {
    tokio::time::sleep(delay(delay_ms)).await;
    gently.remove_files(marked).await
}

/// Writes what a segment that is full leaves beside it: its indexes, and the producers' snapshot at its end. Durable, since
/// recovery will not read the segment again. Blocking.
pub fn write_sealed(segment: &DetachedSegment, indexes: &EncodedIndexes, snapshot: (&Path, &[u8])) -> io::Result<()> {
    segment.write_indexes(indexes)?;
    write_atomically(snapshot.0, snapshot.1)
}

/// Makes a sealed segment's indexes anew from the segment, and writes them.
pub async fn rebuild_indexes(segment: DetachedSegment, index_interval_bytes: u32) -> io::Result<Indexes> {
    run(move || {
        let indexes = open::rebuild_indexes(&segment, index_interval_bytes)?;
        segment.write_indexes(&(indexes.offsets.encode(), indexes.times.encode()))?;
        Ok(indexes)
    })
    .await
}

/// Writes the list of damaged ranges, or removes it where there is none.
pub async fn write_damage(dir: PathBuf, text: Option<String>) -> io::Result<()> {
    run(move || match text {
        Some(text) => write_atomically(&dir.join(CORRUPT_RANGES), text.as_bytes()),
        None => ignore_missing(fs::remove_file(dir.join(CORRUPT_RANGES))).and_then(|()| sync_dir(&dir)),
    })
    .await
}

/// Renames a partition's directory at once and removes it after the delay.
pub async fn remove_partition(
    gently: Gently,
    home: Home,
    (topic, partition): (&str, PartitionIndex),
    delay_ms: i64,
) -> io::Result<()> {
    let marked = home.log_dir.join(paths::deleted_dir(topic, partition));
    let (from, to, log_dir) = (home.dir.to_path_buf(), marked.clone(), home.log_dir);
    run(move || {
        fs::rename(&from, &to)?;
        sync_dir(&log_dir)
    })
    .await?;
    tokio::task::spawn_local(async move {
        tokio::time::sleep(delay(delay_ms)).await;
        if let Err(e) = gently.remove_dir(marked).await {
            tracing::warn!("removing a deleted partition: {e}");
        }
    });
    Ok(())
}

fn delay(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

pub(super) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ring of shard 0 was called like the directory of the topic "journal", and was set aside as a stray one.
    #[test]
    fn no_topic_takes_a_file_for_its_directory() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ring = crate::journal::file::path(dir.path(), 0);
        let name = ring.file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(paths::parse_dir(name), paths::DirName::Other, "no partition has that name");
        let taken = dir.path().join("t-0");
        fs::write(&taken, "something else").expect("written");
        let refused = make_dir(&taken, TopicId::random(), &dir.path().join("stray")).expect_err("not a directory");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&taken).expect("still there"), b"something else");
    }
}
