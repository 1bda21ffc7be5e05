//! Reading and writing a machine's files below a root directory, which may hold a copy or a counterfeit of one.

use crate::base::limits::TUNING_LIST_MAX;
use rustix::fd::OwnedFd;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// The files of a machine. Paths are absolute as on the machine itself: `/proc/sys/vm/swappiness`.
pub trait Files {
    /// A file's bytes; InvalidData where there are more than `max`, or it is no file.
    fn read(&self, path: &str, max: usize) -> io::Result<Vec<u8>>;
    /// Names in a directory, in order.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Where a symbolic link points to.
    fn link(&self, path: &str) -> io::Result<String>;
    /// The path without symbolic links in it.
    fn resolved(&self, path: &str) -> io::Result<String>;
    /// Whether the file's mode lets anybody write.
    fn has_write_bit(&self, path: &str) -> io::Result<bool>;
    /// Opens the file for writing, and writes nothing.
    fn try_open_for_writing(&self, path: &str) -> io::Result<()>;
    /// Writes an existing file in one call, as the kernel's files want it.
    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Free and all bytes of the file system that holds the path.
    fn space(&self, path: &str) -> io::Result<(u64, u64)>;
}

/// The files below a directory. Links in it, absolute ones included, lead to files below it, never out of it.
#[derive(Clone)]
pub struct Root {
    dir: Rc<OwnedFd>,
    path: PathBuf,
    is_machine: bool,
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Root> {
        let path = path.canonicalize()?;
        let dir = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let is_machine = path == Path::new("/");
        Ok(Root { dir: Rc::new(dir), path, is_machine })
    }

    /// Whether it is this machine's own root.
    pub fn is_machine(&self) -> bool {
        self.is_machine
    }

    /// Where a path of the machine lies for everybody else.
    pub fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The same file's path on the machine itself; None: it does not lie below this root, or `..` in it hides whether it does.
    pub fn inside(&self, outside: &Path) -> Option<PathBuf> {
        let below = outside.strip_prefix(&self.path).ok()?;
        let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        is_plain.then(|| Path::new("/").join(below))
    }

    /// Opens a directory.
    pub fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The same, after it and those above it were made where they are missing.
    pub fn make_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let (seen, mut above) = (OFlags::PATH | OFlags::DIRECTORY, PathBuf::from("/"));
        for part in path.strip_prefix("/").unwrap_or(path) {
            let here = above.join(part);
            match self.open_at(&here, seen).map(drop) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match rustix::fs::mkdirat(self.open_at(&above, seen)?, part, Mode::from_raw_mode(0o755)) {
                        // Somebody else was faster, or a link leads nowhere: opening it will tell.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                other => other?,
            }
            above = here;
        }
        self.folder(path)
    }

    fn open_at(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        let inside = match path.strip_prefix("/").unwrap_or(path) {
            inside if inside.as_os_str().is_empty() => Path::new("."),
            inside => inside,
        };
        // Nonblocking: a pipe that lies where a file should be must not stop us. openat2 refuses what O_PATH does not heed.
        let flags = match flags.contains(OFlags::PATH) {
            true => flags | OFlags::CLOEXEC,
            false => flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        };
        // Sandboxes often do not know openat2, and from the real root nothing leads out.
        Ok(match self.is_machine {
            true => rustix::fs::openat(&self.dir, inside, flags, Mode::empty())?,
            false => rustix::fs::openat2(&self.dir, inside, flags, Mode::empty(), ResolveFlags::IN_ROOT)?,
        })
    }

    fn open_file(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let file = self.open_at(path, flags)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(File::from(file)),
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a {other:?} instead of a file"))),
        }
    }
}

impl Files for Root {
    fn read(&self, path: &str, max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(path, OFlags::RDONLY)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
        match bytes.len() > max {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {max} bytes"))),
            false => Ok(bytes),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?)?.take(TUNING_LIST_MAX) {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn link(&self, path: &str) -> io::Result<String> {
        let link = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let target = rustix::fs::readlinkat(&link, "", Vec::new())?;
        Ok(target.to_string_lossy().into_owned())
    }

    fn resolved(&self, path: &str) -> io::Result<String> {
        let file = self.open_at(path, OFlags::PATH)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let outside = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
        let inside = outside.strip_prefix(&self.path).map_err(io::Error::other)?;
        Ok(format!("/{}", inside.to_string_lossy()))
    }

    fn has_write_bit(&self, path: &str) -> io::Result<bool> {
        let file = self.open_at(path, OFlags::PATH)?;
        Ok(rustix::fs::fstat(&file)?.st_mode & 0o222 != 0)
    }

    fn try_open_for_writing(&self, path: &str) -> io::Result<()> {
        self.open_file(path, OFlags::WRONLY).map(drop)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.open_file(path, OFlags::WRONLY | OFlags::TRUNC)?;
        match file.write(bytes)? {
            written if written == bytes.len() => Ok(()),
            written => Err(io::Error::other(format!("took {written} of {} bytes", bytes.len()))),
        }
    }

    fn space(&self, path: &str) -> io::Result<(u64, u64)> {
        let space = rustix::fs::fstatvfs(self.open_at(path, OFlags::PATH)?)?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok((bytes(space.f_bavail), bytes(space.f_blocks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_nowhere_but_below_the_root() {
        let (outer, inner) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let secret = outer.path().join("secret");
        std::fs::write(&secret, "old").expect("written");
        symlink(&secret, inner.path().join("absolute")).expect("linked");
        symlink("../../../../../../../../../..", inner.path().join("up")).expect("linked");
        std::fs::write(inner.path().join("plain"), "1\n").expect("written");
        symlink("/plain", inner.path().join("inside")).expect("linked");
        let root = Root::open(inner.path()).expect("it is there");
        assert!(root.read("/absolute", 100).is_err() && root.write("/absolute", b"new").is_err());
        assert!(root.read(&format!("/up/{}", secret.display()), 100).is_err());
        assert_eq!(root.read("/inside", 100).expect("it leads to plain"), b"1\n");
        assert_eq!(root.resolved("/inside").expect("it leads to plain"), "/plain");
        assert_eq!(root.link("/inside").expect("a link"), "/plain");
        assert_eq!(std::fs::read(&secret).expect("still there"), b"old");
    }

    #[test]
    fn paths_are_told_as_the_machine_and_as_others_see_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("it is there");
        let outside = root.outside("/var/state.json");
        assert_eq!(root.outside("var/state.json"), outside);
        assert_eq!(root.inside(&outside), Some(PathBuf::from("/var/state.json")));
        assert_eq!(root.inside(&dir.path().join("../var/state.json")), None);
        assert_eq!(root.inside(Path::new("/state.json")), None);
    }

    #[test]
    fn what_is_no_file_or_too_long_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("long"), [b'x'; 100]).expect("written");
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("a pipe");
        let root = Root::open(dir.path()).expect("it is there");
        assert!(root.read("/long", 99).expect_err("too long").to_string().contains("more than 99 bytes"));
        assert_eq!(root.read("/long", 100).expect("it fits").len(), 100);
        assert!(root.read("/", 100).is_err() && root.read("/pipe", 100).is_err() && root.write("/pipe", b"x").is_err());
        assert!(root.write("/new", b"x").is_err(), "only what exists is written");
        assert_eq!(root.list("/").expect("it can be listed"), ["long", "pipe"]);
    }
}
