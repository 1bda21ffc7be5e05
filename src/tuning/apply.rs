//! Writes a plan's changes to a machine, and takes them back.
//!
//! First everything is opened for writing, and nothing is written where that is refused. Then the old values go to disk (`state`),
//! and only then the first new value to the system.

use super::files::Files;
use super::items::Id;
use super::parse;
use super::plan::{Change, Kind, Plan};
use super::state::{Entry, State, StateError};
use super::store::Store;
use crate::base::limits::TUNING_VALUE_BYTES_MAX;
use std::io;
use std::path::PathBuf;

/// Where the state lies on a machine, unless the operator says otherwise. Not below /var/lib/corelog, which belongs to the node's user:
/// whoever can write this file says what root writes.
pub const STATE_PATH: &str = "/var/lib/corelog-tuning/state.json";

/// Another one after each boot.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error("{path}: {source}{}", as_root(.source))]
    State { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Damaged { path: PathBuf, source: StateError },
    #[error("another corelog tune is at work ({path})")]
    Locked { path: PathBuf },
    #[error("{}", refusal(.0))]
    Refused(Vec<(String, io::Error)>),
}

/// What came of applying a plan.
#[derive(Debug)]
pub struct Done {
    /// One for each change, in their order.
    pub results: Vec<Applied>,
    /// Entries of the state that were forgotten, as they were written before the machine was booted.
    pub gone: usize,
}

/// What became of one change.
#[derive(Debug)]
pub enum Applied {
    Written,
    /// An interrupt that the kernel places itself: it does not let anybody move it. No failure.
    Managed(io::Error),
    Failed(io::Error),
    /// It was written without an error, and the file shows something else.
    NotTaken {
        found: String,
    },
}

/// What became of one entry of the state.
#[derive(Debug)]
pub enum Undone {
    Restored,
    /// It had its old value already.
    WasOld,
    /// It was set before the machine was booted, which has ended it: whatever it is now is somebody else's.
    Gone,
    /// Somebody else has set it since: left as it is.
    Foreign {
        found: String,
    },
    Failed(io::Error),
}

/// Writes the changes. An error: nothing was changed.
pub fn apply(files: &dyn Files, plan: &Plan, store: &Store) -> Result<Done, TuneError> {
    let refused: Vec<(&Change, io::Error)> = plan
        .changes
        .iter()
        .filter_map(|change| Some((change, files.try_open_for_writing(&change.path).err().filter(is_forbidden)?)))
        .collect();
    // Interrupts may be the kernel's own; everything else is refused for lack of privileges.
    let is_irq = |change: &Change| change.id == Id::IrqAffinity;
    if refused.iter().any(|(change, _)| !is_irq(change)) || (!refused.is_empty() && refused.len() == plan.changes.len())
    {
        return Err(TuneError::Refused(
            refused.into_iter().map(|(change, error)| (change.path.clone(), error)).collect(),
        ));
    }
    let store = store.hold()?;
    let mut before = store.load()?.unwrap_or_default();
    let gone = before.enter(boot(files)).len();
    let mut state = before.clone();
    state.add(&plan.changes);
    store.save(&state)?;
    let results: Vec<Applied> = plan.changes.iter().map(|change| write(files, change)).collect();
    // What a refused write has left as it was is not ours to undo; what the kernel has made something else of is.
    let not_taken = plan.changes.iter().zip(&results).filter(|(_, result)| !matches!(result, Applied::Written));
    for (change, _) in not_taken {
        match read(files, &change.path) {
            Ok(found) if change.kind.is_same(&found, &change.current) => {
                let earlier = before.entries.iter().find(|entry| entry.path == change.path);
                state.entries.retain(|entry| entry.path != change.path);
                state.entries.extend(earlier.cloned());
            }
            Ok(found) => state.entries.iter_mut().filter(|entry| entry.path == change.path).for_each(|entry| {
                change.kind.to_write(&found).trim().clone_into(&mut entry.new);
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.entries.retain(|e| e.path != change.path),
            Err(_) => {}
        }
    }
    // Should this fail, the state names more than was changed: undo finds those values as they were.
    let _ = store.save(&state);
    Ok(Done { results, gone })
}

/// Takes back what the state names, the last change first; each path with its result. An error: nothing was changed.
pub fn undo(files: &dyn Files, store: &Store) -> Result<Vec<(String, Undone)>, TuneError> {
    let Some(held) = store.hold_existing()? else { return Ok(Vec::new()) };
    let Some(mut state) = held.load()? else { return Ok(Vec::new()) };
    let gone = state.enter(boot(files));
    let forbidden = |entry: &Entry| {
        let is_due = matches!(look(files, entry), Ok(Due::Restore));
        let error = files.try_open_for_writing(&entry.path).err().filter(|error| is_due && is_forbidden(error))?;
        Some((entry.path.clone(), error))
    };
    let refused: Vec<_> = state.entries.iter().filter_map(forbidden).collect();
    if !refused.is_empty() {
        return Err(TuneError::Refused(refused));
    }
    let mut results: Vec<_> = gone.into_iter().rev().map(|entry| (entry.path, Undone::Gone)).collect();
    let mut left = Vec::new();
    for entry in state.entries.drain(..).rev() {
        let result = put_back(files, &entry);
        results.push((entry.path.clone(), result));
        if matches!(results.last(), Some((_, Undone::Failed(_)))) {
            left.insert(0, entry);
        }
    }
    // Should this fail, another undo finds all values as they were.
    if let Err(error) = held.replace(&State { entries: left, ..state }) {
        results.push((store.path().display().to_string(), Undone::Failed(error)));
    }
    Ok(results)
}

fn write(files: &dyn Files, change: &Change) -> Applied {
    match files.write(&change.path, format!("{}\n", change.value).as_bytes()) {
        Err(error) if change.id == Id::IrqAffinity => Applied::Managed(error),
        Err(error) => Applied::Failed(error),
        Ok(()) => match read(files, &change.path) {
            Ok(found) if change.kind.is_same(&found, &change.value) => Applied::Written,
            Ok(found) => Applied::NotTaken { found: parse::shortened(&found) },
            Err(error) => Applied::Failed(error),
        },
    }
}

/// What an entry asks for now.
enum Due {
    Restore,
    WasOld,
    Foreign(String),
}

fn look(files: &dyn Files, entry: &Entry) -> io::Result<Due> {
    let found = read(files, &entry.path)?;
    Ok(if entry.kind.is_same(&found, &entry.old) {
        Due::WasOld
    } else if entry.kind.is_same(&found, &entry.new) {
        Due::Restore
    } else {
        Due::Foreign(parse::shortened(&found))
    })
}

fn put_back(files: &dyn Files, entry: &Entry) -> Undone {
    let restored = || -> io::Result<Undone> {
        match look(files, entry)? {
            Due::WasOld => return Ok(Undone::WasOld),
            Due::Foreign(found) => return Ok(Undone::Foreign { found }),
            Due::Restore => {}
        }
        // The twin first: with it the kernel puts this one back to 0 itself, which it does not take from us.
        if let Some(twin) = &entry.twin
            && !Kind::Words.is_same(&read(files, &twin.path)?, &twin.old)
        {
            files.write(&twin.path, twin.old.as_bytes())?;
        }
        if !entry.kind.is_same(&read(files, &entry.path)?, &entry.old) {
            files.write(&entry.path, entry.kind.to_write(&entry.old).as_bytes())?;
        }
        match look(files, entry)? {
            Due::WasOld => Ok(Undone::Restored),
            Due::Restore | Due::Foreign(_) => Err(io::Error::other("the old value was written and not taken")),
        }
    };
    restored().unwrap_or_else(Undone::Failed)
}

fn read(files: &dyn Files, path: &str) -> io::Result<String> {
    let bytes = files.read(path, TUNING_VALUE_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "bytes that are no text"))
}

/// Which boot of the machine this is; None: it does not tell.
fn boot(files: &dyn Files) -> Option<String> {
    let id = read(files, BOOT_ID_PATH).ok()?;
    let id = id.trim();
    let is_id = (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_id.then(|| id.to_owned())
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Only root may read the state.
fn as_root(error: &io::Error) -> &'static str {
    if is_forbidden(error) { "; run it as root" } else { "" }
}

/// What an operator can do about files that may not be written.
fn refusal(refused: &[(String, io::Error)]) -> String {
    let is_read_only = refused.iter().any(|(_, error)| error.kind() == io::ErrorKind::ReadOnlyFilesystem);
    let what_to_do = match is_read_only {
        true => "this looks like a container, whose /proc/sys and /sys are read-only: run it on the host, as root",
        false => "run it as root",
    };
    let (path, error) = refused.first().expect("something was refused");
    let more = match refused.len() {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    format!("nothing was changed: {path}: {error}{more}; {what_to_do}")
}
