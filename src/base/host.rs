//! What the machine offers this process: kernel, cores, limits, file systems.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::path::{Path, PathBuf};

/// A file system, as seen from a path on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// As /proc/mounts names it: `xfs`, `ext4`, `tmpfs`, ….
    pub kind: String,
    pub mount_point: PathBuf,
    /// As /proc/mounts has them, with commas between.
    pub options: String,
    pub free_bytes: u64,
    pub total_bytes: u64,
}

impl FileSystem {
    /// Why a file that was written before cannot be written over in place, so that the write alone is durable; None: it can.
    pub fn moves_what_is_written(&self) -> Option<&'static str> {
        match self.kind.as_str() {
            "btrfs" | "zfs" | "bcachefs" | "nilfs2" => Some("a copy-on-write file system"),
            _ if self.has_option("data=writeback") => Some("mounted with data=writeback"),
            _ => None,
        }
    }

    /// A sync returns before the disk has written.
    pub fn has_no_barriers(&self) -> bool {
        self.has_option("nobarrier") || self.has_option("barrier=0")
    }

    /// It cannot tell whether a buffered write would wait, so that io_uring gives each one to a kernel worker.
    pub fn needs_workers_to_write(&self) -> bool {
        self.kind == "ext4"
    }

    fn has_option(&self, wanted: &str) -> bool {
        self.options.split(',').any(|option| option == wanted)
    }
}

/// Whether io_uring can be used, and if not, why and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoUring {
    Usable,
    Unusable(String),
}

/// The kernel's release, such as `6.1.0-21-amd64`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The cores that this process may run on (its affinity mask), in order.
pub fn allowed_cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        // Machines with more cores than the set holds; they have at least the first.
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Raises the limit of open files to the hard limit, as far as the kernel lets it; the limit in force is returned.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, wanted);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Bytes of memory that the machine has; a container may have fewer.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    // Their types differ by platform.
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

/// Bytes that may be locked in memory; None: without limit.
pub fn locked_memory_bytes() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// The file system that a path, which must exist, lies on.
pub fn file_system_of(path: &Path) -> io::Result<FileSystem> {
    let path = path.canonicalize()?;
    let space = rustix::fs::statvfs(&path)?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let unknown = || (PathBuf::from("/"), "unknown file system".to_owned(), String::new());
    let (mount_point, kind, options) = mount_of(&mounts, &path).unwrap_or_else(unknown);
    Ok(FileSystem {
        kind,
        mount_point,
        options,
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
    })
}

/// Tries a small ring.
pub fn probe_io_uring() -> IoUring {
    match try_io_uring() {
        Ok(()) => IoUring::Usable,
        Err(error) => {
            let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            IoUring::Unusable(why_no_ring(&error, disabled.trim()))
        }
    }
}

/// Makes a small ring, and lets it go again.
pub fn try_io_uring() -> io::Result<()> {
    // struct io_uring_params: 120 bytes, all zero for the defaults.
    let mut params = [0u64; 15];
    // SAFETY: io_uring_setup(2) reads and writes exactly one io_uring_params of 120 bytes behind the pointer, which is
    // valid and aligned to 8 for that long; it returns a new descriptor or -1.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4u32, params.as_mut_ptr()) };
    match i32::try_from(result) {
        Ok(descriptor) if descriptor >= 0 => {
            // SAFETY: the kernel has just handed us this descriptor, and nothing else owns it.
            drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(descriptor) });
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether somebody keeps the kernel's clock right. Sandboxes may refuse to tell.
pub fn is_clock_synchronized() -> io::Result<bool> {
    // SAFETY: timex is plain numbers, for which zeros are a value; `modes` 0 asks and changes nothing.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: adjtimex(2) reads and writes exactly one timex behind the pointer, which is valid for that long.
    match unsafe { libc::adjtimex(&raw mut clock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(clock.status & libc::STA_UNSYNC == 0),
    }
}

/// The reason for a refused ring, from the error and from `kernel.io_uring_disabled`.
fn why_no_ring(error: &io::Error, disabled: &str) -> String {
    match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), "1" | "2") => {
            format!("kernel.io_uring_disabled is {disabled}; run: sysctl -w kernel.io_uring_disabled=0")
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "it is forbidden to this process, usually by a container's seccomp profile; \
             allow io_uring_setup, io_uring_enter and io_uring_register there"
                .to_owned()
        }
        (Some(libc::ENOSYS), _) => {
            "the kernel or a seccomp profile does not know it; Linux 5.11 or newer is needed".to_owned()
        }
        (Some(libc::ENOMEM), _) => "the limit of locked memory is too low; run: ulimit -l unlimited".to_owned(),
        _ => error.to_string(),
    }
}

/// The mount point and kind of the deepest mount above a path; the last of several on one point is the one on top.
fn mount_of(mounts: &str, path: &Path) -> Option<(PathBuf, String, String)> {
    let mut best: Option<(PathBuf, String, String)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else { continue };
        let point = PathBuf::from(unescape(point));
        let deeper = best.as_ref().is_none_or(|(so_far, ..)| point.components().count() >= so_far.components().count());
        if path.starts_with(&point) && deeper {
            best = Some((point, kind.to_owned(), fields.next().unwrap_or_default().to_owned()));
        }
    }
    best
}

/// /proc/mounts writes blanks and the like as a backslash and three octal digits.
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/b /data xfs rw 0 0\n\
                      /dev/c /data/my\\040disk btrfs rw 0 0\nnonsense\n";
        let kind = |path: &str| mount_of(mounts, Path::new(path)).map(|(_, kind, _)| kind);
        assert_eq!(kind("/home/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/data/logs").as_deref(), Some("xfs"));
        assert_eq!(kind("/database").as_deref(), Some("ext4"), "a name that only begins alike is elsewhere");
        assert_eq!(kind("/data/my disk/x").as_deref(), Some("btrfs"));
        assert_eq!(mount_of("", Path::new("/x")), None);
    }

    #[test]
    fn file_systems_say_whether_a_journal_makes_sense() {
        let with = |kind: &str, options: &str| FileSystem {
            kind: kind.to_owned(),
            mount_point: PathBuf::from("/"),
            options: options.to_owned(),
            free_bytes: 0,
            total_bytes: 0,
        };
        for (kind, options) in [("xfs", "rw,noatime"), ("ext4", "rw,data=ordered"), ("ext4", "rw")] {
            assert_eq!(with(kind, options).moves_what_is_written(), None);
        }
        assert!(with("btrfs", "rw").moves_what_is_written().is_some());
        assert!(with("ext4", "rw,data=writeback").moves_what_is_written().is_some());
        assert!(with("ext4", "rw,nobarrier").has_no_barriers() && with("ext4", "rw,barrier=0").has_no_barriers());
        assert!(!with("ext4", "rw,barrier=1").has_no_barriers());
    }

    #[test]
    fn a_refused_ring_is_explained() {
        let why = |code: i32, disabled: &str| why_no_ring(&io::Error::from_raw_os_error(code), disabled);
        assert!(why(libc::EPERM, "2").contains("kernel.io_uring_disabled=0"));
        assert!(why(libc::EPERM, "0").contains("seccomp"));
        assert!(why(libc::ENOSYS, "").contains("5.11"));
        assert!(why(libc::ENOMEM, "").contains("ulimit -l"));
    }

    #[test]
    fn this_machine_answers() {
        assert!(!kernel_release().is_empty());
        assert!(!allowed_cores().is_empty());
        assert!(raise_open_files() > 0);
        let here = file_system_of(Path::new(".")).expect("the current directory exists");
        assert!(here.total_bytes >= here.free_bytes && !here.kind.is_empty());
        assert!(file_system_of(Path::new("/no/such/directory")).is_err());
        // Whichever it is here, it must be told rather than fail.
        if let IoUring::Unusable(why) = probe_io_uring() {
            assert!(!why.is_empty());
        }
    }
}
