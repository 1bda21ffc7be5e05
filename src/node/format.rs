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
//! removal synced, before anything else is written: a crash at any later time finds no mark.

use crate::base::ids::{NodeId, TopicId};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub const LOCK: &str = ".lock";
pub const META: &str = "meta.properties";
pub const MANIFEST: &str = "corelog.properties";
pub const CLEAN: &str = ".kafka_cleanshutdown";
const TEMPORARY: &str = ".tmp";
const FORMAT_VERSION: u32 = 1;
/// A manifest has six short lines; what is longer is not ours.
const MANIFEST_BYTES_MAX: u64 = 4096;

/// What the settings and the command line ask for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// None: as formatted, or 0.
    pub node_id: Option<NodeId>,
    /// None: as formatted, or `shards_default`.
    pub shards: Option<u16>,
    pub shards_default: u16,
}

/// A node's data directories, locked for this process.
#[derive(Debug)]
pub struct Opened {
    pub cluster_id: String,
    pub node_id: NodeId,
    pub shards: u16,
    /// In the order of `log.dirs`.
    pub dirs: Vec<LogDir>,
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
}

/// A directory's lock; the kernel drops it with the descriptor, also when the process is killed.
#[derive(Debug)]
pub struct DirLock(#[allow(dead_code, reason = "owning the descriptor is what holds the lock")] File);

/// Why the data directories cannot be used; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("{}: cannot {action}: {error}", path.display())]
    Io { path: PathBuf, action: &'static str, error: io::Error },
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
}

/// Opens the directories, formatting those that are empty or missing. Blocks on the disk.
pub fn open(dirs: &[PathBuf], wanted: Wanted) -> Result<Opened, FormatError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for dir in dirs {
        let path = make_dir(dir)?;
        if let Some(same) = paths.iter().position(|earlier| *earlier == path) {
            return Err(FormatError::SameTwice(dirs[same].clone(), dir.clone()));
        }
        // Before .lock is made there: what is not ours stays untouched.
        read_manifest(&path)?;
        paths.push(path);
    }
    let locks = paths.iter().map(|path| lock(path)).collect::<Result<Vec<_>, _>>()?;
    let found = paths.iter().map(|path| read_manifest(path)).collect::<Result<Vec<_>, _>>()?;
    let common = agree(&paths, &found, wanted)?;
    let mut opened = Vec::new();
    for (path, manifest) in paths.into_iter().zip(&found) {
        let (id, was_clean) = match manifest {
            Some(manifest) => (manifest.directory_id.clone(), take_clean_mark(&path)?),
            None => {
                let manifest = Manifest { directory_id: TopicId::random().to_string(), ..common.clone() };
                for step in format_steps(&manifest) {
                    step.perform(&path)?;
                }
                (manifest.directory_id, true)
            }
        };
        opened.push(LogDir { path, id, was_clean });
    }
    Ok(Opened {
        cluster_id: common.cluster_id,
        node_id: common.node_id,
        shards: common.shards,
        dirs: opened,
        freshly_formatted: found.iter().all(Option::is_none),
        locks,
    })
}

/// Whether the directory was formatted, whether or not it can be opened.
pub fn is_formatted(dir: &Path) -> bool {
    dir.join(MANIFEST).exists()
}

/// What a formatted directory's `corelog.properties` says. Nothing is locked or changed.
pub fn manifest_of(dir: &Path) -> Result<Manifest, FormatError> {
    let path = dir.join(MANIFEST);
    let mut text = String::new();
    let file = File::open(&path).map_err(io_error(&path, "open it"))?;
    file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text).map_err(io_error(&path, "read it"))?;
    Manifest::parse(&path, &text)
}

/// Leaves the mark of a clean stop in each directory. To be called when everything else is on disk.
pub fn mark_clean(dirs: &[LogDir]) -> Result<(), FormatError> {
    // The text that Kafka 3.9 writes; -1 stands for a broker epoch that nobody asks for.
    dirs.iter().try_for_each(|dir| write_durably(&dir.path, CLEAN, "{\"version\":0,\"brokerEpoch\":-1}"))
}

/// What is fixed at format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub cluster_id: String,
    pub node_id: NodeId,
    pub shards: u16,
    pub directory_id: String,
}

impl Manifest {
    fn text(&self) -> String {
        let body = format!(
            "format.version={FORMAT_VERSION}\ncluster.id={}\nnode.id={}\nshards={}\ndirectory.id={}\n",
            self.cluster_id, self.node_id, self.shards, self.directory_id
        );
        let crc = crc32fast::hash(body.as_bytes());
        format!("{body}crc32={crc:08x}\n")
    }

    fn parse(path: &Path, text: &str) -> Result<Manifest, FormatError> {
        let corrupt = |reason: String| FormatError::Corrupt { path: path.to_owned(), reason };
        let (body, crc) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once("crc32="))
            .ok_or_else(|| corrupt("its checksum is missing".into()))?;
        let actual = format!("{:08x}", crc32fast::hash(body.as_bytes()));
        if crc != actual {
            return Err(corrupt(format!("its checksum is {actual} and should be {crc}")));
        }
        let field = |name: &str| {
            let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.ok_or_else(|| corrupt(format!("{name} is missing")))
        };
        let version: u32 =
            field("format.version")?.parse().map_err(|_| corrupt("format.version is no number".into()))?;
        if version > FORMAT_VERSION {
            return Err(FormatError::Newer { path: path.to_owned(), found: version });
        }
        Ok(Manifest {
            cluster_id: field("cluster.id")?.to_owned(),
            node_id: NodeId(field("node.id")?.parse().map_err(|_| corrupt("node.id is no number".into()))?),
            shards: field("shards")?.parse().map_err(|_| corrupt("shards is no number".into()))?,
            directory_id: field("directory.id")?.to_owned(),
        })
    }
}

/// One step of formatting; what is on disk after any number of them is what a crash may leave.
#[derive(Debug)]
enum Step {
    WriteTemporary(&'static str, String),
    Rename(&'static str),
    SyncDir,
}

fn format_steps(manifest: &Manifest) -> Vec<Step> {
    let meta = format!("version=0\nbroker.id={}\ncluster.id={}\n", manifest.node_id, manifest.cluster_id);
    vec![
        Step::WriteTemporary(META, meta),
        Step::Rename(META),
        Step::SyncDir,
        Step::WriteTemporary(MANIFEST, manifest.text()),
        Step::Rename(MANIFEST),
        Step::SyncDir,
    ]
}

impl Step {
    fn perform(&self, dir: &Path) -> Result<(), FormatError> {
        let temporary = |name: &str| dir.join(format!("{name}{TEMPORARY}"));
        match self {
            Step::WriteTemporary(name, text) => {
                let path = temporary(name);
                let written = File::create(&path).and_then(|mut file| {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                });
                written.map_err(io_error(&path, "write it"))
            }
            Step::Rename(name) => fs::rename(temporary(name), dir.join(name)).map_err(io_error(dir, "rename in it")),
            Step::SyncDir => sync_dir(dir),
        }
    }
}

fn write_durably(dir: &Path, name: &'static str, text: &str) -> Result<(), FormatError> {
    for step in [Step::WriteTemporary(name, text.to_owned()), Step::Rename(name), Step::SyncDir] {
        step.perform(dir)?;
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<(), FormatError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir, "sync it"))
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> FormatError {
    let path = path.to_owned();
    move |error| FormatError::Io { path, action, error }
}

/// The directory, made if it is missing, as an absolute path without links.
fn make_dir(dir: &Path) -> Result<PathBuf, FormatError> {
    if dir.exists() && !dir.is_dir() {
        return Err(FormatError::NotADirectory(dir.to_owned()));
    }
    let missing = dir.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).count();
    if missing > 0 {
        fs::create_dir_all(dir).map_err(io_error(dir, "make it"))?;
    }
    let path = dir.canonicalize().map_err(io_error(dir, "open it"))?;
    // A name is durable when the directory above it is synced: that of every directory that was made.
    path.ancestors().skip(1).take(missing).try_for_each(sync_dir)?;
    Ok(path)
}

/// The manifest of a directory of ours; None for one that is to be formatted.
fn read_manifest(dir: &Path) -> Result<Option<Manifest>, FormatError> {
    let path = dir.join(MANIFEST);
    match File::open(&path) {
        Ok(_) => manifest_of(dir).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_empty(dir).map(|()| None),
        Err(error) => Err(io_error(&path, "open it")(error)),
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
fn agree(paths: &[PathBuf], found: &[Option<Manifest>], wanted: Wanted) -> Result<Manifest, FormatError> {
    let mut ours = paths.iter().zip(found).filter_map(|(path, manifest)| Some((path, manifest.as_ref()?)));
    let Some((first_path, first)) = ours.next() else {
        return Ok(Manifest {
            cluster_id: TopicId::random().to_string(),
            node_id: wanted.node_id.unwrap_or(NodeId(0)),
            shards: wanted.shards.unwrap_or(wanted.shards_default).max(1),
            directory_id: String::new(),
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

/// Takes away the mark of a clean stop, durably; whether there was one.
fn take_clean_mark(dir: &Path) -> Result<bool, FormatError> {
    match fs::remove_file(dir.join(CLEAN)) {
        Ok(()) => sync_dir(dir).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(dir, "remove the mark of the last clean stop")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Wanted = Wanted { node_id: None, shards: None, shards_default: 2 };

    fn asked(node: i32, shards: u16) -> Wanted {
        Wanted { node_id: Some(NodeId(node)), shards: Some(shards), shards_default: 9 }
    }

    fn refusal(dirs: &[PathBuf], wanted: Wanted) -> String {
        open(dirs, wanted).expect_err("must be refused").to_string()
    }

    #[test]
    fn what_is_fixed_at_format_is_found_again() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = [temp.path().join("deep/a"), temp.path().join("b")];
        let first = open(&dirs, asked(7, 3)).expect("missing directories are formatted");
        assert!(first.freshly_formatted && first.dirs.iter().all(|dir| dir.was_clean));
        assert_eq!(first.cluster_id.len(), 22);
        assert_ne!(first.dirs[0].id, first.dirs[1].id);
        let (cluster, found) = (first.cluster_id.clone(), first.dirs.clone());
        drop(first);
        let again = open(&dirs, ANY).expect("they are ours");
        assert_eq!((again.cluster_id, again.node_id, again.shards), (cluster.clone(), NodeId(7), 3));
        assert!(!again.freshly_formatted && again.dirs.iter().all(|dir| !dir.was_clean), "no clean stop came before");
        assert!(again.dirs.iter().zip(&found).all(|(one, other)| one.id == other.id));
        let meta = fs::read_to_string(dirs[0].join("meta.properties")).expect("Kafka's file");
        assert_eq!(meta, format!("version=0\nbroker.id=7\ncluster.id={cluster}\n"));
    }

    #[test]
    fn a_clean_stop_counts_once() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = [temp.path().to_owned()];
        mark_clean(&open(&dirs, ANY).expect("empty").dirs).expect("writable");
        let mark = fs::read_to_string(temp.path().join(".kafka_cleanshutdown")).expect("the mark");
        assert_eq!(mark, "{\"version\":0,\"brokerEpoch\":-1}");
        assert!(open(&dirs, ANY).expect("ours").dirs[0].was_clean);
        assert!(!temp.path().join(".kafka_cleanshutdown").exists());
        assert!(!open(&dirs, ANY).expect("ours").dirs[0].was_clean, "then the process was killed");
    }

    #[test]
    fn other_ids_and_shards_are_refused_with_what_to_do() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = [temp.path().to_owned()];
        drop(open(&dirs, asked(1, 2)).expect("empty"));
        let text = refusal(&dirs, asked(1, 4));
        assert!(
            text.contains("formatted with shards 2, and 4 is asked for") && text.contains("set shards to 2"),
            "{text}"
        );
        assert!(refusal(&dirs, asked(5, 2)).contains("broker.id 1, and 5"));
        open(&dirs, asked(1, 2)).expect("the same as before");
    }

    #[test]
    fn a_second_opener_is_refused() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = [temp.path().to_owned()];
        let held = open(&dirs, ANY).expect("empty");
        assert!(refusal(&dirs, ANY).contains("in use by another process"));
        drop(held);
        open(&dirs, ANY).expect("free again");
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        fs::write(temp.path().join("thesis.txt"), "x").expect("writable");
        let text = refusal(&[temp.path().to_owned()], ANY);
        assert!(text.contains("thesis.txt"), "{text}");
        assert_eq!(fs::read_dir(temp.path()).expect("listable").count(), 1, "not even a lock was made");
        assert!(refusal(&[temp.path().join("thesis.txt")], ANY).contains("is not a directory"));
    }

    #[test]
    fn a_directory_of_kafka_is_recognised() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        for name in ["meta.properties", "recovery-point-offset-checkpoint"] {
            fs::write(temp.path().join(name), "").expect("writable");
        }
        assert!(refusal(&[temp.path().to_owned()], ANY).contains("Apache Kafka"));
    }

    #[test]
    fn a_fresh_file_system_is_empty() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(temp.path().join("lost+found")).expect("writable");
        assert!(open(&[temp.path().to_owned()], ANY).expect("as mkfs leaves it").freshly_formatted);
    }

    #[test]
    fn a_directory_that_is_added_joins_the_cluster() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let (a, b, c) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("c"));
        let cluster = open(std::slice::from_ref(&a), asked(3, 5)).expect("missing").cluster_id;
        let grown = open(&[b.clone(), a.clone()], ANY).expect("one more");
        assert_eq!((grown.cluster_id.as_str(), grown.node_id, grown.shards), (cluster.as_str(), NodeId(3), 5));
        assert!(!grown.freshly_formatted && grown.dirs[0].was_clean && !grown.dirs[1].was_clean);
        drop(grown);
        drop(open(std::slice::from_ref(&c), asked(3, 5)).expect("another cluster"));
        assert!(refusal(&[a.clone(), c], ANY).contains("cluster.id"));
        assert!(refusal(&[a.clone(), temp.path().join("b/../a")], ANY).contains("the same directory"));
    }

    #[test]
    fn a_damaged_manifest_is_refused() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = [temp.path().to_owned()];
        drop(open(&dirs, asked(1, 2)).expect("empty"));
        let path = temp.path().join(MANIFEST);
        let sound = fs::read_to_string(&path).expect("written");
        for damaged in [sound.replace("shards=2", "shards=3"), sound[..sound.len() - 4].to_owned(), String::new()] {
            fs::write(&path, damaged).expect("writable");
            assert!(refusal(&dirs, ANY).contains("checksum"));
        }
        let newer = sound.split_once("crc32").expect("last line").0.replace("version=1", "version=2");
        fs::write(&path, format!("{newer}crc32={:08x}\n", crc32fast::hash(newer.as_bytes()))).expect("writable");
        assert!(refusal(&dirs, ANY).contains("newer corelog"));
    }

    /// The power fails after any step of the first format, or in the middle of writing a file: the next start formats
    /// what is not formatted, and keeps what is.
    #[test]
    fn an_interrupted_format_is_taken_up() {
        let manifest = Manifest {
            cluster_id: TopicId::random().to_string(),
            node_id: NodeId(4),
            shards: 6,
            directory_id: TopicId::random().to_string(),
        };
        let steps = format_steps(&manifest);
        for done in 0..=steps.len() {
            for torn in [false, true] {
                let temp = tempfile::tempdir().expect("a temporary directory");
                drop(lock(temp.path()).expect("free"));
                steps[..done].iter().for_each(|step| step.perform(temp.path()).expect("writable"));
                if let (true, Some(Step::WriteTemporary(name, text))) = (torn, steps.get(done)) {
                    let half = &text.as_bytes()[..text.len() / 2];
                    fs::write(temp.path().join(format!("{name}{TEMPORARY}")), half).expect("writable");
                }
                let opened = open(&[temp.path().to_owned()], asked(4, 6)).expect("taken up");
                let was_formatted = done >= 5;
                assert_eq!(opened.freshly_formatted, !was_formatted, "after {done} steps");
                assert_eq!(opened.cluster_id == manifest.cluster_id, was_formatted);
                let meta = fs::read_to_string(temp.path().join(META)).expect("written");
                assert!(meta.contains(&opened.cluster_id), "both files name one cluster");
            }
        }
    }

    /// The power fails between the first and the second of two directories.
    #[test]
    fn a_format_of_two_directories_is_taken_up() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = [temp.path().join("a"), temp.path().join("b")];
        let cluster = open(&dirs[..1], asked(1, 2)).expect("missing").cluster_id;
        fs::create_dir(&dirs[1]).expect("writable");
        fs::write(dirs[1].join("meta.properties"), "version=0\nbroker.id=1\ncluster.id=other\n").expect("writable");
        assert_eq!(open(&dirs, asked(1, 2)).expect("taken up").cluster_id, cluster);
        let meta = fs::read_to_string(dirs[1].join("meta.properties")).expect("written");
        assert!(meta.contains(&cluster));
    }
}
