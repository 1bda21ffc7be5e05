//! The file that keeps the state (`state` is what is in it).
//!
//! Root trusts this file and writes it where others may have prepared something, in another machine's root for example. So the way to
//! its folder goes through `Root`, and in the folder nothing is followed: neither the file nor its temporary may be a link.

use super::apply::TuneError;
use super::files::Root;
use super::state::State;
use crate::base::limits::TUNING_STATE_BYTES_MAX;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Nobody but root needs it.
const MODE: Mode = Mode::from_raw_mode(0o600);

/// Where the state is kept.
pub struct Store {
    root: Root,
    /// Below the root.
    path: PathBuf,
}

/// A store that nobody else can open while this lives.
pub struct Held<'a> {
    store: &'a Store,
    folder: OwnedFd,
}

impl Store {
    /// A file below `root`, at the path that it has there.
    pub fn new(root: Root, path: impl Into<PathBuf>) -> Store {
        Store { root, path: path.into() }
    }

    /// Where it lies for everybody else.
    pub fn path(&self) -> PathBuf {
        self.root.outside(&self.path)
    }

    /// Makes its folder, if need be.
    pub fn hold(&self) -> Result<Held<'_>, TuneError> {
        let folder = self.root.make_folder(self.folder()).map_err(|source| self.failed(source))?;
        self.locked(folder)
    }

    /// None: there is no folder for it, so nothing is changed.
    pub fn hold_existing(&self) -> Result<Option<Held<'_>>, TuneError> {
        match self.root.folder(self.folder()) {
            Ok(folder) => self.locked(folder).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn locked(&self, folder: OwnedFd) -> Result<Held<'_>, TuneError> {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Held { store: self, folder }),
            Err(Errno::WOULDBLOCK) => Err(TuneError::Locked { path: self.root.outside(self.folder()) }),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn failed(&self, source: io::Error) -> TuneError {
        TuneError::State { path: self.path(), source }
    }
}

impl Held<'_> {
    /// None: there is none, so nothing is changed.
    pub fn load(&self) -> Result<Option<State>, TuneError> {
        match self.read() {
            Ok(text) => match State::decode(&text) {
                Ok(state) => Ok(Some(state)),
                Err(source) => Err(TuneError::Damaged { path: self.store.path(), source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.store.failed(source)),
        }
    }

    /// On disk, whole or not at all. A state without entries is no file.
    pub fn save(&self, state: &State) -> Result<(), TuneError> {
        self.replace(state).map_err(|source| self.store.failed(source))
    }

    pub fn replace(&self, state: &State) -> io::Result<()> {
        let name = self.name()?;
        if state.entries.is_empty() {
            return match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
                Err(error) if error != Errno::NOENT => Err(error.into()),
                _ => Ok(()),
            };
        }
        // Behind the whole name: another file's extension is not ours to replace.
        let mut new = OsString::from(name);
        new.push(".new");
        self.remove_stale(&new)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.folder, &new, flags, MODE)?);
        file.write_all(state.encode().as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat(&self.folder, &new, &self.folder, name)?;
        Ok(rustix::fs::fsync(&self.folder)?)
    }

    /// What a crash has left of an earlier temporary. Anything but a file is none of ours.
    fn remove_stale(&self, new: &OsStr) -> io::Result<()> {
        match rustix::fs::statat(&self.folder, new, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Ok(rustix::fs::unlinkat(&self.folder, new, AtFlags::empty())?),
                other => {
                    let text = format!("a {other:?} lies in its way, at {}", new.to_string_lossy());
                    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
                }
            },
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self) -> io::Result<String> {
        // Nonblocking: a pipe must not stop us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, self.name()?, flags, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => {}
            other => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a {other:?} instead of a file")));
            }
        }
        let mut text = String::new();
        File::from(file).take(TUNING_STATE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }

    fn name(&self) -> io::Result<&OsStr> {
        self.store
            .path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no name of a file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::plan::Kind;
    use crate::tuning::state::Entry;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    fn a_state() -> State {
        let entry = Entry {
            path: "/proc/sys/vm/swappiness".to_owned(),
            kind: Kind::Words,
            old: "60\n".to_owned(),
            new: "1".to_owned(),
            twin: None,
        };
        State { boot: None, entries: vec![entry] }
    }

    fn store() -> (TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("it is there");
        (dir, Store::new(root, "/var/lib/corelog-tuning/state.json"))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("it can be listed");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_file_is_root_s_alone_and_its_temporary_nobody_else_s() {
        let (_dir, store) = store();
        assert!(store.hold_existing().expect("nothing is there").is_none());
        let held = store.hold().expect("nothing forbids it");
        let folder = store.path().parent().expect("a folder").to_owned();
        for (name, text) in [("state.new", "somebody's"), ("state.json.new", "what a crash has left")] {
            fs::write(folder.join(name), text).expect("written");
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o666)).expect("it is ours");
        }
        held.save(&a_state()).expect("nothing is in its way");
        assert_eq!(held.load().expect("it can be read"), Some(a_state()));
        assert_eq!(names(&folder), ["state.json", "state.new"]);
        assert_eq!(fs::read(folder.join("state.new")).expect("untouched"), b"somebody's");
        assert_eq!(fs::metadata(store.path()).expect("it is there").permissions().mode() & 0o7777, 0o600);
        assert!(matches!(store.hold(), Err(TuneError::Locked { .. })), "one at a time");
        held.save(&State::default()).expect("nothing forbids it");
        assert_eq!(names(&folder), ["state.new"]);
    }

    #[test]
    fn what_lies_in_the_temporary_s_place_is_neither_followed_nor_removed() {
        let (dir, store) = store();
        let held = store.hold().expect("nothing forbids it");
        let (new, victim) = (store.path().with_file_name("state.json.new"), dir.path().join("victim"));
        fs::write(&victim, "old").expect("written");
        for target in [victim.clone(), dir.path().join("made-by-root")] {
            symlink(&target, &new).expect("linked");
            let refused = held.save(&a_state()).expect_err("a link").to_string();
            assert!(refused.contains("a Symlink lies in its way, at state.json.new"), "{refused}");
            assert_eq!(fs::read_link(&new).expect("still a link"), target);
            fs::remove_file(&new).expect("it is ours");
        }
        fs::create_dir(&new).expect("made");
        assert!(matches!(held.save(&a_state()), Err(TuneError::State { .. })));
        assert_eq!(fs::read(&victim).expect("still there"), b"old");
        assert_eq!(names(dir.path()), ["var", "victim"], "nothing was made through a link");
        assert_eq!(held.load().expect("there is none"), None);
    }

    #[test]
    fn links_lead_neither_folder_nor_file_out_of_the_root() {
        let outer = tempfile::tempdir().expect("a directory");
        fs::write(outer.path().join("state.json"), a_state().encode()).expect("written");
        for (link, target) in [
            ("var", outer.path().to_owned()),
            ("var/lib/corelog-tuning", outer.path().to_owned()),
            ("var/lib/corelog-tuning/state.json", outer.path().join("state.json")),
        ] {
            let (dir, store) = store();
            let link_path = dir.path().join(link);
            fs::create_dir_all(link_path.parent().expect("a folder")).expect("made");
            symlink(&target, &link_path).expect("linked");
            let seen = store.hold_existing().and_then(|held| held.map_or(Ok(None), |held| held.load()));
            assert!(!matches!(seen, Ok(Some(_))), "{link}: {seen:?}");
            let _ = store.hold().and_then(|held| held.save(&a_state()));
            assert_eq!(names(outer.path()), ["state.json"], "{link}");
        }
        let (dir, store) = store();
        fs::create_dir(dir.path().join("real")).expect("made");
        symlink("/real", dir.path().join("var")).expect("linked");
        store.hold().and_then(|held| held.save(&a_state())).expect("a link that stays below the root");
        assert_eq!(names(&dir.path().join("real/lib/corelog-tuning")), ["state.json"]);
    }
}
