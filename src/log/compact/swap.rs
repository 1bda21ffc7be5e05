//! Puts a new segment in the place of those that it was made from.
//!
//! ```text
//!  X.log.cleaned  X.index.cleaned  ...     written and synced            old segments X, Y, Z as they were
//!      sync of the directory
//!  X.log.swap     X.index.swap     ...     renamed, the log last
//!      sync of the directory               from here on the new one counts
//!  X.log.deleted  Y.log.deleted    ...     the old ones, with all that belongs to them
//!      sync of the directory
//!  X.log          X.index          ...     renamed, the log first
//!      sync of the directory
//! ```
//! The names, and what they mean at a start, are Kafka's: either broker finishes what the other began.
//!
//! Crash argument. Between two syncs any of the renames may have happened or not.
//! - *Before the second sync* all old segments are there under their names. If the log bears `.swap`, everything that the new
//!   segment consists of was synced: `finish` goes on with it, unless a `.cleaned` file of it is left, and then removes both.
//! - *Before the third* the new segment is complete under `.swap`, and its log tells which offsets it replaces: `finish` removes
//!   what is left of the old ones in that range. It ends where the next segment begins, since the last batch of a new
//!   segment is always kept.
//! - *Before the fourth* no old segment is left, so a file under the new segment's name is the new one.
//!
//! `finish` syncs in the same order, so that a crash within it finds the same state or one of these. Files of a pass that
//! was given up stay as `.cleaned`; they are gone, durably, before a later pass renames anything: else they would speak against
//! its `.swap` files.

use crate::base::ids::Offset;
use crate::log::checkpoint::sync_dir;
use crate::log::paths::{self, CLEANED_FILE, DELETED_FILE, SWAP_FILE};
use crate::log::scan::{Depth, Problem, scan};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What belongs to a segment besides its log.
const INDEXES: [&str; 3] = [paths::OFFSET_INDEX, paths::TIME_INDEX, paths::TXN_INDEX];

/// A new segment, whose files are synced and bear `.cleaned`, and those that it replaces.
#[derive(Clone, Debug)]
pub struct Replacement {
    pub dir: PathBuf,
    /// Their base offsets; the first one is the new segment's too.
    pub old: Vec<Offset>,
}

/// A replacement that an earlier process had begun, and that is finished now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub base: Offset,
    /// The offset after the new segment's last.
    pub end: Offset,
}

#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path}: an unfinished compaction, damaged at byte {position}: {problem}; what it replaces cannot be told. If all \
         segments that it was made from are still there, remove the .swap files, otherwise restore the partition from elsewhere"
    )]
    Damaged { path: PathBuf, position: u32, problem: Problem },
    #[error("{path}: {bytes} bytes are more than a segment can have")]
    TooLarge { path: PathBuf, bytes: u64 },
}

/// One change of the directory.
#[derive(Clone, Debug)]
enum Step {
    /// `from` may be missing.
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    Sync,
}

/// Replaces; on disk when it returns. Gives the marked files of the old segments, to be removed later. After an error the next
/// start finishes it, or takes it back. Blocking.
pub fn replace(replacement: &Replacement) -> io::Result<Vec<PathBuf>> {
    let steps = replacing(replacement)?;
    perform(&replacement.dir, &steps).map_err(|e| e.source)?;
    let marked = steps.into_iter().filter_map(|step| match step {
        Step::Rename { to, .. } if to.to_string_lossy().ends_with(DELETED_FILE) => Some(to),
        _ => None,
    });
    Ok(marked.collect())
}

/// Removes the files of a new segment that is not wanted any more; those that cannot be removed go later. Blocking.
pub fn give_up(dir: &Path) {
    for (path, ..) in listed(dir, CLEANED_FILE).unwrap_or_default() {
        let _ = fs::remove_file(path);
    }
}

/// At a start, before the directory is looked at: finishes what was begun, or takes it back. Blocking.
pub fn finish(dir: &Path) -> Result<Vec<Finished>, SwapError> {
    let (steps, finished) = finishing(dir)?;
    perform(dir, &steps).map_err(|FailedAt { path, source }| SwapError::Io { path, source })?;
    Ok(finished)
}

/// What `finish` would finish; changes nothing. Blocking.
pub fn unfinished(dir: &Path) -> Result<Vec<Finished>, SwapError> {
    finishing(dir).map(|(_, finished)| finished)
}

fn replacing(replacement: &Replacement) -> io::Result<Vec<Step>> {
    let Replacement { dir, old } = replacement;
    let base = *old.first().expect("a new segment replaces one at least");
    let named = |suffix: &str, mark: &str| paths::segment_file(dir, base, &format!("{suffix}{mark}"));
    let rename = |suffix: &str, from: &str, to: &str| Step::Rename { from: named(suffix, from), to: named(suffix, to) };
    let stale = listed(dir, CLEANED_FILE)?.into_iter().filter(|(_, of, _)| *of != base);
    let mut steps: Vec<Step> = stale.map(|(path, ..)| Step::Remove(path)).collect();
    steps.push(Step::Sync);
    steps.extend(INDEXES.map(|suffix| rename(suffix, CLEANED_FILE, SWAP_FILE)));
    steps.push(rename(paths::LOG, CLEANED_FILE, SWAP_FILE));
    steps.push(Step::Sync);
    for of in old {
        // The producers' states at the new segment's base are what they were.
        let snapshot = (*of != base).then_some(paths::PRODUCER_SNAPSHOT);
        for suffix in INDEXES.into_iter().chain([paths::LOG]).chain(snapshot) {
            let from = paths::segment_file(dir, *of, suffix);
            let to = paths::segment_file(dir, *of, &format!("{suffix}{DELETED_FILE}"));
            steps.push(Step::Rename { from, to });
        }
    }
    steps.push(Step::Sync);
    steps.push(rename(paths::LOG, SWAP_FILE, ""));
    steps.extend(INDEXES.map(|suffix| rename(suffix, SWAP_FILE, "")));
    steps.push(Step::Sync);
    Ok(steps)
}

/// What Kafka does at a start (`LogLoader`): `.swap` files from the least `.cleaned` one on are of a replacement that had not
/// come far enough, the others of one that is to be finished.
fn finishing(dir: &Path) -> Result<(Vec<Step>, Vec<Finished>), SwapError> {
    let at = |source| SwapError::Io { path: dir.to_owned(), source };
    let cleaned = listed(dir, CLEANED_FILE).map_err(at)?;
    let swaps = listed(dir, SWAP_FILE).map_err(at)?;
    if cleaned.is_empty() && swaps.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let least = cleaned.iter().map(|(_, base, _)| *base).min();
    let (early, swaps): (Vec<_>, Vec<_>) =
        swaps.into_iter().partition(|(_, base, _)| least.is_some_and(|l| *base >= l));
    let mut steps: Vec<Step> = early.into_iter().map(|(path, ..)| Step::Remove(path)).collect();
    steps.push(Step::Sync);
    steps.extend(cleaned.into_iter().map(|(path, ..)| Step::Remove(path)));
    let mut finished = Vec::new();
    for (path, base, _) in swaps.iter().filter(|(_, _, suffix)| suffix == paths::LOG) {
        finished.push(Finished { base: *base, end: end_of(path, *base)? });
    }
    if let (Some(from), Some(to)) = (finished.iter().map(|f| f.base).min(), finished.iter().map(|f| f.end).max()) {
        remove_range(dir, (from, to), &swaps, &mut steps).map_err(at)?;
    }
    steps.push(Step::Sync);
    let (logs, indexes): (Vec<_>, Vec<_>) = swaps.into_iter().partition(|(_, _, suffix)| suffix == paths::LOG);
    for (path, base, suffix) in logs.into_iter().chain(indexes) {
        steps.push(Step::Rename { from: path, to: paths::segment_file(dir, base, &suffix) });
    }
    steps.push(Step::Sync);
    Ok((steps, finished))
}

/// What is left of old segments whose offsets lie in the range of new ones.
fn remove_range(
    dir: &Path,
    (from, to): (Offset, Offset),
    swaps: &[(PathBuf, Offset, String)],
    steps: &mut Vec<Step>,
) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((base, suffix)) = name.to_str().and_then(paths::parse_segment_file) else { continue };
        if !(from..to).contains(&base) {
            continue;
        }
        let is_new = swaps.iter().any(|(_, of, _)| *of == base);
        let goes = match suffix {
            paths::LOG => true,
            // Where the log has gone and no file is waiting for its name, it is the new segment's.
            _ if INDEXES.contains(&suffix) => !is_new || paths::segment_file(dir, base, paths::LOG).exists(),
            paths::PRODUCER_SNAPSHOT => !is_new,
            _ => false,
        };
        if goes {
            steps.push(Step::Remove(entry.path()));
        }
    }
    Ok(())
}

/// The offset after the last one of a new segment.
fn end_of(path: &Path, base: Offset) -> Result<Offset, SwapError> {
    let at = |source| SwapError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(at)?;
    let bytes = file.metadata().map_err(at)?.len();
    let size = u32::try_from(bytes).ok().filter(|size| *size <= i32::MAX as u32);
    let size = size.ok_or_else(|| SwapError::TooLarge { path: path.to_owned(), bytes })?;
    let end = scan(&mut &file, (0, size), base, Depth::Headers, &mut |_, _| {}).map_err(at)?;
    match end.problem {
        None => Ok(end.next_offset),
        Some(problem) => Err(SwapError::Damaged { path: path.to_owned(), position: end.valid_bytes, problem }),
    }
}

/// Files of a segment whose names end with a mark: path, base, and the suffix without the mark.
fn listed(dir: &Path, mark: &str) -> io::Result<Vec<(PathBuf, Offset, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((base, suffix)) = name.to_str().and_then(paths::parse_segment_file)
            && let Some(suffix) = suffix.strip_suffix(mark)
        {
            found.push((entry.path(), base, suffix.to_owned()));
        }
    }
    found.sort();
    Ok(found)
}

#[derive(Debug)]
struct FailedAt {
    path: PathBuf,
    source: io::Error,
}

fn perform(dir: &Path, steps: &[Step]) -> Result<(), FailedAt> {
    for step in steps {
        let (path, done) = match step {
            Step::Rename { from, to } => (from, fs::rename(from, to)),
            Step::Remove(path) => (path, fs::remove_file(path)),
            Step::Sync => (&dir.to_path_buf(), sync_dir(dir)),
        };
        match done {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(FailedAt { path: path.clone(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::Batch;
    use std::collections::BTreeMap;

    type Files = BTreeMap<String, Vec<u8>>;

    fn batches(bases: &[i64]) -> Vec<u8> {
        bases.iter().flat_map(|base| Batch { base: Offset(*base), ..Batch::default() }.build().1).collect()
    }

    /// Segments 0, 10 and 20 with their indexes, of which the first two become one; the last one is another's.
    fn before(dir: &Path) -> Replacement {
        for (base, offsets) in [(0, [0, 5, 9]), (10, [10, 12, 19]), (20, [20, 21, 22])] {
            let write = |suffix: &str, bytes: &[u8]| {
                fs::write(paths::segment_file(dir, Offset(base), suffix), bytes).expect("written");
            };
            write("log", &batches(&offsets));
            write("index", b"old index");
            write("timeindex", b"old times");
            write("txnindex", b"old transactions");
            write("snapshot", b"snapshot");
        }
        Replacement { dir: dir.to_owned(), old: vec![Offset(0), Offset(10)] }
    }

    fn cleaned(dir: &Path) {
        for (suffix, bytes) in
            [("log", batches(&[5, 19])), ("index", b"new index".into()), ("timeindex", b"new times".into())]
        {
            let path = paths::segment_file(dir, Offset(0), &format!("{suffix}.cleaned"));
            fs::write(path, bytes).expect("written");
        }
        fs::write(paths::segment_file(dir, Offset(0), "txnindex.cleaned"), b"new transactions").expect("written");
        // Of a pass that was given up.
        fs::write(paths::segment_file(dir, Offset(10), "index.cleaned"), b"stale").expect("written");
    }

    fn files(dir: &Path) -> Files {
        let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("listed"));
        let read = |entry: fs::DirEntry| {
            (entry.file_name().into_string().expect("utf-8"), fs::read(entry.path()).expect("readable"))
        };
        entries.map(read).filter(|(name, _)| !name.ends_with(DELETED_FILE)).collect()
    }

    fn restore(dir: &Path, files: &Files) {
        for entry in fs::read_dir(dir).expect("listed") {
            fs::remove_file(entry.expect("listed").path()).expect("removed");
        }
        for (name, bytes) in files {
            fs::write(dir.join(name), bytes).expect("written");
        }
    }

    /// Every state that a power cut can leave while `steps` run: all before a sync, and any of those before the next.
    fn states(dir: &Path, steps: &[Step], mut each: impl FnMut()) {
        let begin = files(dir);
        let mut done = Vec::new();
        for epoch in steps.split(|step| matches!(step, Step::Sync)) {
            for subset in 0..1u32 << epoch.len() {
                restore(dir, &begin);
                perform(dir, &done).expect("performed");
                let some = epoch.iter().enumerate().filter(|(i, _)| subset & (1 << i) != 0);
                let some: Vec<Step> = some.map(|(_, step)| step.clone()).collect();
                perform(dir, &some).expect("performed");
                each();
            }
            done.extend_from_slice(epoch);
        }
    }

    #[test]
    fn a_power_cut_at_any_instant_leaves_the_old_segments_or_the_new_one() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let dir = temporary.path();
        let replacement = before(dir);
        let old = files(dir);
        cleaned(dir);
        let steps = replacing(&replacement).expect("listed");
        let mut begun = Vec::new();
        states(dir, &steps, || begun.push(files(dir)));
        let new: Files = {
            let mut new: Files = old.iter().filter(|(name, _)| !name.contains("10.")).map(clone).collect();
            let mut set = |suffix: &str, bytes: &[u8]| new.insert(format!("{:020}.{suffix}", 0), bytes.to_vec());
            set("log", &batches(&[5, 19]));
            set("index", b"new index");
            set("timeindex", b"new times");
            set("txnindex", b"new transactions");
            new
        };
        restore(dir, &begun[0]);
        replace(&replacement).expect("replaced");
        assert_eq!(files(dir), new);
        let (mut olds, mut news) = (0, 0);
        for (i, state) in begun.iter().enumerate() {
            restore(dir, state);
            let (again, _) = finishing(dir).expect("sound");
            finish(dir).expect("finished");
            let end = without_lost_indexes(files(dir), &new);
            match end == old {
                true => olds += 1,
                false => news += 1,
            }
            assert!(end == old || end == new, "{:?} became {:?}", state.keys(), end.keys());
            assert_eq!(finish(dir).expect("nothing to do"), []);
            // Another power cut, while the start finishes it.
            if i % 23 == 0 {
                restore(dir, state);
                let mut ends = Vec::new();
                states(dir, &again, || ends.push(files(dir)));
                for half in ends {
                    restore(dir, &half);
                    finish(dir).expect("finished");
                    let twice = without_lost_indexes(files(dir), &new);
                    assert!(twice == end, "{:?} became {:?}", half.keys(), twice.keys());
                }
            }
        }
        assert!(olds > 10 && news > 100, "{olds} {news}");
    }

    fn clone((name, bytes): (&String, &Vec<u8>)) -> (String, Vec<u8>) {
        (name.clone(), bytes.clone())
    }

    /// An index that is missing is rebuilt from its segment.
    fn without_lost_indexes(mut found: Files, new: &Files) -> Files {
        for suffix in ["index", "timeindex"] {
            let name = format!("{:020}.{suffix}", 0);
            if found.get(&format!("{:020}.log", 0)) == new.get(&format!("{:020}.log", 0)) {
                found.entry(name.clone()).or_insert_with(|| new[&name].clone());
            }
        }
        found
    }

    #[test]
    fn a_damaged_swap_file_is_refused_and_nothing_is_removed() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let dir = temporary.path();
        before(dir);
        let mut bytes = batches(&[5, 19]);
        bytes.truncate(bytes.len() - 3);
        fs::write(paths::segment_file(dir, Offset(0), "log.swap"), bytes).expect("written");
        let all = files(dir);
        assert!(matches!(finish(dir), Err(SwapError::Damaged { .. })));
        assert_eq!(files(dir), all);
    }
}
