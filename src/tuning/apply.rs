//! Writes a plan's changes to a machine, and takes them back.
//!
//! First everything is opened for writing, and nothing is written where that is refused. Then the old values go to disk (`state`),
//! and only then the first new value to the system.

use super::files::Files;
use super::items::Id;
use super::parse;
use super::plan::{Change, Kind, Plan};
use super::state::{Entry, State, StateError};
use crate::base::limits::{TUNING_STATE_BYTES_MAX, TUNING_VALUE_BYTES_MAX};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Where the state lies on a machine, unless the operator says otherwise. Not below /var/lib/corelog, which belongs to the node's user:
/// whoever can write this file says what root writes.
pub const STATE_PATH: &str = "/var/lib/corelog-tuning/state.json";

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error("{path}: {source}")]
    State { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Damaged { path: PathBuf, source: StateError },
    #[error("another corelog tune is at work ({path})")]
    Locked { path: PathBuf },
    #[error("{}", refusal(.0))]
    Refused(Vec<(String, io::Error)>),
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
    /// It had its old value already, after a boot for example.
    WasOld,
    /// Somebody else has set it since: left as it is.
    Foreign {
        found: String,
    },
    Failed(io::Error),
}

/// Writes the changes; one result for each, in their order. An error: nothing was changed.
pub fn apply(files: &dyn Files, plan: &Plan, store: &Store) -> Result<Vec<Applied>, TuneError> {
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
    let _lock = store.lock()?;
    let before = store.load()?.unwrap_or_default();
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
    Ok(results)
}

/// Takes back what the state names, the last change first; each path with its result. An error: nothing was changed.
pub fn undo(files: &dyn Files, store: &Store) -> Result<Vec<(String, Undone)>, TuneError> {
    if store.load()?.is_none() {
        return Ok(Vec::new());
    }
    let _lock = store.lock()?;
    let mut state = store.load()?.unwrap_or_default();
    let forbidden = |entry: &Entry| {
        let is_due = matches!(look(files, entry), Ok(Due::Restore));
        let error = files.try_open_for_writing(&entry.path).err().filter(|error| is_due && is_forbidden(error))?;
        Some((entry.path.clone(), error))
    };
    let refused: Vec<_> = state.entries.iter().filter_map(forbidden).collect();
    if !refused.is_empty() {
        return Err(TuneError::Refused(refused));
    }
    let mut results = Vec::new();
    let mut left = Vec::new();
    for entry in state.entries.drain(..).rev() {
        let result = put_back(files, &entry);
        results.push((entry.path.clone(), result));
        if matches!(results.last(), Some((_, Undone::Failed(_)))) {
            left.insert(0, entry);
        }
    }
    // Should this fail, another undo finds all values as they were.
    if let Err(error) = store.replace(&State { entries: left }) {
        results.push((store.path.display().to_string(), Undone::Failed(error)));
    }
    Ok(results)
}

/// The file that keeps the state.
pub struct Store {
    path: PathBuf,
}

impl Store {
    pub fn new(path: PathBuf) -> Store {
        Store { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// None: there is none, so nothing is changed.
    pub fn load(&self) -> Result<Option<State>, TuneError> {
        let mut text = String::new();
        match File::open(&self.path).and_then(|file| file.take(TUNING_STATE_BYTES_MAX).read_to_string(&mut text)) {
            Ok(_) => match State::decode(&text) {
                Ok(state) => Ok(Some(state)),
                Err(source) => Err(TuneError::Damaged { path: self.path.clone(), source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// On disk, whole or not at all. A state without entries is no file.
    fn save(&self, state: &State) -> Result<(), TuneError> {
        self.replace(state).map_err(|source| self.failed(source))
    }

    fn replace(&self, state: &State) -> io::Result<()> {
        if state.entries.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(state.encode().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.folder())?.sync_all()
    }

    /// One at a time, as long as what is returned lives.
    fn lock(&self) -> Result<File, TuneError> {
        let folder = fs::create_dir_all(self.folder()).and_then(|()| File::open(self.folder()));
        let folder = folder.map_err(|source| self.failed(source))?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(folder),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(TuneError::Locked { path: self.folder().to_owned() }),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
    }

    fn failed(&self, source: io::Error) -> TuneError {
        TuneError::State { path: self.path.clone(), source }
    }
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

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
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
