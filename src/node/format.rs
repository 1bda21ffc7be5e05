//! Data directories: what is fixed when they are formatted, who may open them, and whether the last stop was clean.
//!
//! Beside the partitions' directories each data directory holds these plain files, and no directory of our own, so that
//! Apache Kafka can open it too:
//!
//! ```text
//! .lock                    empty; locked (flock and fcntl) while a process has the directory open
//! meta.properties          Kafka's, version 0
//!   version=0
//!   broker.id=<node id>
//!   cluster.id=<22 letters, URL-safe base64 of 16 random bytes>
//! corelog.properties       ours; what cannot change later
//!   format.version=1
//!   cluster.id=<as above>
//!   node.id=<broker.id>
//!   shards=<number>
//!   directory.id=<22 letters>
//!   known.directory.<22 letters>=<path>     one line for each directory of the node, this one included
//!   crc32=<8 hexadecimal digits: CRC-32 of all bytes before this line>
//! .kafka_cleanshutdown     {"version":0,"brokerEpoch":-1}; there only between a clean stop and the next start
//! ```
//!
//! # Why a crash does no harm
//! A directory is formatted when `corelog.properties` bears its name. Each file is written under a temporary name,
//! synced, renamed, and the directory synced; `corelog.properties` comes last. A crash before its rename leaves nothing
//! but `.lock`, `meta.properties` and temporary files, which count as an empty directory and are written anew; a crash
//! after it leaves a formatted one. With several directories, those that are not formatted yet join the cluster of
//! those that are, so a crash between two of them only delays the second. The mark of a clean stop is removed, and its
//! removal synced, before any log is touched: a crash at any later time finds no mark.
//!
//! # A directory that is missing or cannot be used
//! A disk that is not mounted looks like an empty directory. So each directory knows all of its node. One that is named in
//! `log.dirs` and not there, or there and unreadable, read-only or damaged, is *offline* until the next start (as in Kafka): nothing is
//! formatted or written in its place, and the others' lists go on naming it. It can be given up by name. One that `log.dirs` does not
//! name any more stops the start: its records would be forgotten by a mistake in a file. So does a first start at which any
//! cannot be used: nobody knows yet what belongs together. A directory is written into the others' lists
//! only when it is itself formatted, and before anything is stored in it: after a crash between two lists, what the shorter
//! one lacks is a directory without records, and what it has too much was given up and is asked about once more. A start
//! goes by all lists together.

use super::manifest::{
    FORMAT_VERSION, MANIFEST, META, Manifest, Step, format_steps, io_error, path_text, sync_dir, write_steps,
};
use crate::base::ids::{NodeId, TopicId};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Component, Path, PathBuf};

pub const LOCK: &str = ".lock";
pub const CLEAN: &str = ".kafka_cleanshutdown";
/// More would not fit into a manifest.
const DIRS_MAX: usize = 250;

/// What the settings and the command line ask for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// None: as formatted, or 0.
    pub node_id: Option<NodeId>,
    /// None: as formatted, or `shards_default`.
    pub shards: Option<u16>,
    pub shards_default: u16,
    /// Missing directories to give up, by the path at which each was seen last or by its id.
    pub forget: Vec<String>,
}

/// A node's data directories as they are before anything is written; those that are formatted are locked.
#[derive(Debug)]
pub struct Survey {
    common: Manifest,
    places: Vec<Place>,
    /// Directories of the node that are not there and not given up, by id: they stay in the lists.
    awaited: BTreeMap<String, String>,
    locks: Vec<DirLock>,
}

/// One directory that the settings name.
#[derive(Debug)]
struct Place {
    /// Absolute, without links.
    path: PathBuf,
    /// None: to be formatted.
    manifest: Option<Manifest>,
    /// Why it cannot be used, if it cannot.
    obstacle: Option<FormatError>,
}

/// A node's data directories, locked for this process.
#[derive(Debug)]
pub struct Opened {
    pub cluster_id: String,
    pub node_id: NodeId,
    pub shards: u16,
    /// Those that can be used, in the order of `log.dirs`.
    pub dirs: Vec<LogDir>,
    /// Those that cannot be, and why.
    pub offline: Vec<(PathBuf, String)>,
    /// Whether this very call formatted all of them.
    pub freshly_formatted: bool,
    /// Held until dropped.
    pub locks: Vec<DirLock>,
}

/// One data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Absolute.
    pub path: PathBuf,
    /// Random; tells it from any other directory.
    pub id: String,
    /// Whether nothing can have been lost or torn since the last stop: a clean stop, or just formatted.
    pub was_clean: bool,
    /// Whether it is formatted at this start; it may not exist yet.
    pub is_new: bool,
}

/// A directory's lock; the kernel drops it with the descriptor, also when the process is killed.
#[derive(Debug)]
pub struct DirLock(#[allow(dead_code, reason = "owning the descriptor is what holds the lock")] File);

/// Why the data directories cannot be used; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("{}: cannot {action}: {error}", path.display())]
    Io { path: PathBuf, action: &'static str, error: io::Error },
    #[error("log.dirs names {0} directories; a node has at most {DIRS_MAX}")]
    TooMany(usize),
    #[error("{} is not a directory; name another in log.dirs", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} and {} are the same directory; name it once in log.dirs", .0.display(), .1.display())]
    SameTwice(PathBuf, PathBuf),
    #[error(
        "{} is not empty and not a data directory of corelog (it holds {found}); \
         name an empty or missing directory in log.dirs", path.display()
    )]
    Foreign { path: PathBuf, found: String },
    #[error(
        "{} is a data directory of Apache Kafka; taking one over is not built yet, \
         name an empty or missing directory in log.dirs", .0.display()
    )]
    Kafkas(PathBuf),
    #[error("{} is in use by another process; stop that one, or name another directory in log.dirs", .0.display())]
    InUse(PathBuf),
    #[error("{}: {reason}; restore the file from a backup, or move the directory away and start anew", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("{}: written by a newer corelog (format {found}, this one knows {FORMAT_VERSION}); use that one", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "{} was formatted with {what} {formatted}, and {asked} is asked for; it cannot change later: \
         set {what} to {formatted} or leave it out, or name other directories in log.dirs", path.display()
    )]
    Differs { path: PathBuf, what: &'static str, formatted: String, asked: String },
    #[error("{} belongs to {what} {one}, {} to {other}; take one of them out of log.dirs", a.display(), b.display())]
    Mixed { what: &'static str, a: PathBuf, one: String, b: PathBuf, other: String },
    #[error(
        "duplicate log directories found: {} is a copy of {} (both bear directory.id {id}); take one of them out of log.dirs",
        b.display(), a.display()
    )]
    Copied { a: PathBuf, b: PathBuf, id: String },
    #[error(
        "missing: {}. Records of this node are there; started without it, they would be lost without a word. Bring it \
         back under any path and name it in log.dirs; or, if it is lost for good, give it up: {}",
        missing.join(", "), forget.join(" ")
    )]
    Missing { missing: Vec<String>, forget: Vec<String> },
    #[error("{}: {why}", path.display())]
    NotThere { path: PathBuf, why: String },
    #[error("--forget-dir {0}: no directory of this node with that path or id is missing")]
    NotMissing(String),
}

/// Looks at the directories without changing anything but locks, and checks all that can be checked. Blocks on the disk.
pub fn survey(dirs: &[PathBuf], wanted: &Wanted) -> Result<Survey, FormatError> {
    if dirs.len() > DIRS_MAX {
        return Err(FormatError::TooMany(dirs.len()));
    }
    let mut places: Vec<Place> = Vec::new();
    for dir in dirs {
        let place = match resolve(dir) {
            Ok(path) => Place { path, manifest: None, obstacle: None },
            Err(error) => Place { path: absolute(dir), manifest: None, obstacle: Some(error) },
        };
        if let Some(same) = places.iter().position(|earlier| earlier.path == place.path) {
            return Err(FormatError::SameTwice(dirs[same].clone(), dir.clone()));
        }
        places.push(place);
    }
    let mut locks = Vec::new();
    for place in places.iter_mut().filter(|place| place.obstacle.is_none()) {
        match open_place(&place.path) {
            Ok((manifest, lock)) => {
                place.manifest = manifest;
                locks.extend(lock);
            }
            Err(error) if error.is_of_the_disk() => place.obstacle = Some(error),
            Err(error) => return Err(error),
        }
    }
    if !places.iter().any(|place| place.manifest.is_some())
        && let Some(error) = places.iter_mut().find_map(|place| place.obstacle.take())
    {
        return Err(error);
    }
    let common = agree(&places, wanted)?;
    let awaited = find_missing(&mut places, &wanted.forget)?;
    Ok(Survey { common, places, awaited, locks })
}

/// The manifest of a directory that is ours, and its lock.
fn open_place(path: &Path) -> Result<(Option<Manifest>, Option<DirLock>), FormatError> {
    // Before .lock is made there: what is not ours stays untouched.
    if read_manifest(path)?.is_none() {
        return Ok((None, None));
    }
    let lock = lock(path)?;
    Ok((read_manifest(path)?, Some(lock)))
}

impl FormatError {
    /// The directory cannot be used as it is; others can. Anything else is a mistake that somebody has to correct first.
    fn is_of_the_disk(&self) -> bool {
        matches!(self, FormatError::Io { .. } | FormatError::Corrupt { .. } | FormatError::NotADirectory(_))
    }
}

impl Survey {
    pub fn node_id(&self) -> NodeId {
        self.common.node_id
    }

    pub fn shards(&self) -> u16 {
        self.common.shards
    }

    /// A directory turns out to be unusable after all; an error if it is the only one.
    pub fn lose(&mut self, path: &Path, why: String) -> Result<(), FormatError> {
        let obstacle = FormatError::NotThere { path: path.to_owned(), why };
        let others = self.places.iter().any(|place| place.manifest.is_some() && place.path != path);
        match self.places.iter_mut().find(|place| place.path == path) {
            Some(place) if others => {
                self.awaited.extend(place.manifest.take().map(|lost| (lost.directory_id, path_text(path))));
                place.obstacle = Some(obstacle);
                Ok(())
            }
            _ => Err(obstacle),
        }
    }

    /// What cannot be used, and why.
    pub fn offline(&self) -> Vec<(PathBuf, String)> {
        let why = |place: &Place| Some((place.path.clone(), place.obstacle.as_ref()?.to_string()));
        self.places.iter().filter_map(why).collect()
    }

    /// All that `log.dirs` names, in its order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.places.iter().map(|place| place.path.clone()).collect()
    }

    /// The directories as they will be opened, in the order of `log.dirs`; those that are new have no id yet.
    pub fn dirs(&self) -> Vec<LogDir> {
        let dir = |place: &Place| LogDir {
            path: place.path.clone(),
            id: place.manifest.as_ref().map(|manifest| manifest.directory_id.clone()).unwrap_or_default(),
            was_clean: place.manifest.is_none() || place.path.join(CLEAN).exists(),
            is_new: place.manifest.is_none(),
        };
        self.usable().map(dir).collect()
    }

    fn usable(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.obstacle.is_none())
    }

    /// Opens the directories: those that are new are made and formatted, and all of them learn of each other.
    pub fn open(mut self) -> Result<Opened, FormatError> {
        let mut dirs = self.dirs();
        make_dirs(dirs.iter().filter(|dir| dir.is_new).map(|dir| dir.path.as_path()))?;
        for dir in dirs.iter().filter(|dir| dir.is_new) {
            self.locks.push(lock(&dir.path)?);
            if read_manifest(&dir.path)?.is_some() {
                // Another process formatted it just now.
                return Err(FormatError::InUse(dir.path.clone()));
            }
        }
        for step in self.write_manifests(&mut dirs) {
            let is_new = dirs.iter().any(|dir| dir.path == step.dir && dir.is_new);
            match step.perform() {
                // What it cannot be told now it is told at the next start.
                Err(error) if !is_new => self.lose(&step.dir, error.to_string())?,
                done => done?,
            }
        }
        for dir in dirs.iter_mut().filter(|dir| !dir.is_new) {
            match take_clean_mark(&dir.path) {
                Ok(was_clean) => dir.was_clean = was_clean,
                Err(error) => self.lose(&dir.path, error.to_string())?,
            }
        }
        let offline = self.offline();
        dirs.retain(|dir| !offline.iter().any(|(path, _)| *path == dir.path));
        Ok(Opened {
            cluster_id: self.common.cluster_id,
            node_id: self.common.node_id,
            shards: self.common.shards,
            freshly_formatted: offline.is_empty() && dirs.iter().all(|dir| dir.is_new),
            dirs,
            offline,
            locks: self.locks,
        })
    }

    /// All that is to be written, in order; new directories are given their ids. No list names a directory that is not
    /// formatted yet.
    fn write_manifests(&self, dirs: &mut [LogDir]) -> Vec<PlacedStep> {
        let mut steps = Vec::new();
        let mut add = |dir: &LogDir, more: Vec<Step>| {
            steps.extend(more.into_iter().map(|step| PlacedStep { dir: dir.path.clone(), step }));
        };
        let listed = |dir: &LogDir| (dir.id.clone(), path_text(&dir.path));
        let mut known = self.awaited.clone();
        known.extend(dirs.iter().filter(|dir| !dir.is_new).map(listed));
        let mut written: Vec<Option<Manifest>> = self.usable().map(|place| place.manifest.clone()).collect();
        for (dir, written) in dirs.iter_mut().zip(&mut written).filter(|(dir, _)| dir.is_new) {
            dir.id = TopicId::random().to_string();
            known.extend([listed(dir)]);
            let manifest = Manifest { directory_id: dir.id.clone(), known: known.clone(), ..self.common.clone() };
            add(dir, format_steps(&manifest));
            *written = Some(manifest);
        }
        for (dir, written) in dirs.iter().zip(written) {
            let Some(written) = written.filter(|manifest| manifest.known != known) else { continue };
            let manifest = Manifest { known: known.clone(), ..written };
            add(dir, write_steps(MANIFEST, manifest.text()));
        }
        steps
    }
}

/// A step in one of the directories.
#[derive(Debug)]
struct PlacedStep {
    dir: PathBuf,
    step: Step,
}

impl PlacedStep {
    fn perform(&self) -> Result<(), FormatError> {
        self.step.perform(&self.dir)
    }
}

/// Leaves the mark of a clean stop in each directory. To be called when everything else is on disk.
pub fn mark_clean(dirs: &[LogDir]) -> Result<(), FormatError> {
    // The text that Kafka 3.9 writes; -1 stands for a broker epoch that nobody asks for.
    let steps = write_steps(CLEAN, "{\"version\":0,\"brokerEpoch\":-1}".to_owned());
    dirs.iter().try_for_each(|dir| steps.iter().try_for_each(|step| step.perform(&dir.path)))
}

/// The directory's absolute path without links, whether or not it exists.
fn resolve(dir: &Path) -> Result<PathBuf, FormatError> {
    let exists = |path: &Path| path.try_exists().map_err(io_error(path, "look at it"));
    if !exists(dir)? {
        // Of what is missing only the name counts.
        let absolute = std::path::absolute(dir).map_err(io_error(dir, "find it"))?;
        let mut path = PathBuf::new();
        for part in absolute.components() {
            match part {
                Component::ParentDir => _ = path.pop(),
                part => path.push(part),
            }
            if exists(&path)? {
                path = path.canonicalize().map_err(io_error(&path, "open it"))?;
            }
        }
        if !exists(&path)? {
            return Ok(path);
        }
    }
    if !dir.is_dir() {
        return Err(FormatError::NotADirectory(dir.to_owned()));
    }
    dir.canonicalize().map_err(io_error(dir, "open it"))
}

fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

/// Makes directories, durably: all of them or none.
fn make_dirs<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<(), FormatError> {
    let mut made: Vec<PathBuf> = Vec::new();
    for path in paths {
        let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
        made.extend(missing.iter().rev().map(|above| above.to_path_buf()));
        let done = fs::create_dir_all(path).map_err(io_error(path, "make this directory"));
        // A name is durable when the directory above it is synced: that of every directory that was made.
        let done = done.and_then(|()| path.ancestors().skip(1).take(missing.len()).try_for_each(sync_dir));
        if let Err(error) = done {
            // Those that were not made, or that somebody uses, stay as they are.
            made.iter().rev().for_each(|dir| _ = fs::remove_dir(dir));
            return Err(error);
        }
    }
    Ok(())
}

/// The manifest of a directory of ours; None for one that is to be formatted.
fn read_manifest(dir: &Path) -> Result<Option<Manifest>, FormatError> {
    match Manifest::read(dir)? {
        None if dir.exists() => check_empty(dir).map(|()| None),
        found => Ok(found),
    }
}

/// Whether nothing is there but what mkfs and our own interrupted format leave.
fn check_empty(dir: &Path) -> Result<(), FormatError> {
    let leftovers = ["lost+found", LOCK, META, "meta.properties.tmp", "corelog.properties.tmp"];
    let mut foreign = None;
    let mut is_kafkas = false;
    for entry in fs::read_dir(dir).map_err(io_error(dir, "list it"))? {
        let name = entry.map_err(io_error(dir, "list it"))?.file_name().to_string_lossy().into_owned();
        is_kafkas |= name == "recovery-point-offset-checkpoint" || name == CLEAN;
        if !leftovers.contains(&name.as_str()) {
            foreign = Some(name);
        }
    }
    match foreign {
        None => Ok(()),
        Some(_) if is_kafkas && dir.join(META).exists() => Err(FormatError::Kafkas(dir.to_owned())),
        Some(found) => Err(FormatError::Foreign { path: dir.to_owned(), found }),
    }
}

/// Locks a directory against other processes: flock for ours, fcntl because Kafka's Java takes that one.
fn lock(dir: &Path) -> Result<DirLock, FormatError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(io_error(&path, "open it"))?;
    for attempt in [
        flock(&file, FlockOperation::NonBlockingLockExclusive),
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive),
    ] {
        match attempt {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                return Err(FormatError::InUse(dir.to_owned()));
            }
            Err(error) => return Err(io_error(&path, "lock it")(error.into())),
        }
    }
    Ok(DirLock(file))
}

/// What all directories have in common: as formatted, or as asked for if none is.
fn agree(places: &[Place], wanted: &Wanted) -> Result<Manifest, FormatError> {
    let mut ours = places.iter().filter_map(|place| Some((&place.path, place.manifest.as_ref()?)));
    let Some((first_path, first)) = ours.next() else {
        return Ok(Manifest {
            cluster_id: TopicId::random().to_string(),
            node_id: wanted.node_id.unwrap_or(NodeId(0)),
            shards: wanted.shards.unwrap_or(wanted.shards_default).max(1),
            directory_id: String::new(),
            known: BTreeMap::new(),
        });
    };
    for (path, manifest) in ours {
        let facts: [(&'static str, String, String); 3] = [
            ("cluster.id", first.cluster_id.clone(), manifest.cluster_id.clone()),
            ("broker.id", first.node_id.to_string(), manifest.node_id.to_string()),
            ("shards", first.shards.to_string(), manifest.shards.to_string()),
        ];
        if let Some((what, one, other)) = facts.into_iter().find(|(_, one, other)| one != other) {
            return Err(FormatError::Mixed { what, a: first_path.clone(), one, b: path.clone(), other });
        }
    }
    let differs = |what, formatted: String, asked: String| {
        Err(FormatError::Differs { path: first_path.clone(), what, formatted, asked })
    };
    match (wanted.node_id, wanted.shards) {
        (Some(asked), _) if asked != first.node_id => {
            differs("broker.id", first.node_id.to_string(), asked.to_string())
        }
        (_, Some(asked)) if asked != first.shards => differs("shards", first.shards.to_string(), asked.to_string()),
        _ => Ok(first.clone()),
    }
}

/// Looks for every directory that any of them knows: each must be there once, be given up, or at least be named; one that is named
/// and not there cannot be used. Gives those that are awaited, by id.
fn find_missing(places: &mut [Place], forget: &[String]) -> Result<BTreeMap<String, String>, FormatError> {
    let mut there: BTreeMap<&str, &Place> = BTreeMap::new();
    for (place, manifest) in places.iter().filter_map(|place| Some((place, place.manifest.as_ref()?))) {
        if let Some(other) = there.insert(&manifest.directory_id, place) {
            let (a, b) = (other.path.clone(), place.path.clone());
            return Err(FormatError::Copied { a, b, id: manifest.directory_id.clone() });
        }
    }
    let known = places.iter().filter_map(|place| place.manifest.as_ref()).flat_map(|manifest| &manifest.known);
    let missing = known.filter(|(id, _)| !there.contains_key(id.as_str()));
    let mut missing: BTreeMap<String, String> = missing.map(|(id, path)| (id.clone(), path.clone())).collect();
    let names = |given: &String, id: &str, path: &str| given == id || given.trim_end_matches('/') == path;
    if let Some(given) = forget.iter().find(|given| !missing.iter().any(|(id, path)| names(given, id, path))) {
        return Err(FormatError::NotMissing(given.clone()));
    }
    missing.retain(|id, path| !forget.iter().any(|given| names(given, id, path)));
    let at = |places: &[Place], path: &str| places.iter().position(|place| path_text(&place.path) == path);
    let is_named = |path: &str| at(places, path).is_some_and(|at| places[at].manifest.is_none());
    let unnamed: Vec<_> = missing.iter().filter(|(_, path)| !is_named(path)).collect();
    if !unnamed.is_empty() {
        let tell = |(id, path): &(&String, &String)| {
            let why = match at(places, path) {
                Some(_) => "another one is at that path now",
                None => "log.dirs does not name it",
            };
            format!("{path} (directory.id {id}): {why}")
        };
        return Err(FormatError::Missing {
            missing: unnamed.iter().map(tell).collect(),
            forget: unnamed.iter().map(|(_, path)| format!("--forget-dir {path}")).collect(),
        });
    }
    for (id, path) in &missing {
        let Some(place) = at(places, path).map(|at| &mut places[at]) else { continue };
        if place.obstacle.is_none() {
            let found = if place.path.exists() { "the directory is empty" } else { "there is no such directory" };
            let why = format!(
                "{found}: is its disk mounted? Records of this node are there (directory.id {id}); if it is lost for good, give it \
                 up: --forget-dir {path}"
            );
            place.obstacle = Some(FormatError::NotThere { path: place.path.clone(), why });
        }
    }
    Ok(missing)
}

/// Takes away the mark of a clean stop, durably; whether there was one.
fn take_clean_mark(dir: &Path) -> Result<bool, FormatError> {
    match fs::remove_file(dir.join(CLEAN)) {
        Ok(()) => sync_dir(dir).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(dir, "remove the mark of the last clean stop")(error)),
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
