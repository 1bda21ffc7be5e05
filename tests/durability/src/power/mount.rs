//! The forgetful disk as a file system of the kernel's: FUSE in front of `disk`.
//!
//! The page cache is used (reading, mmap and mincore work as on any file system), the write-back cache is not: every write
//! reaches the disk here before it returns, and only a sync, or O_SYNC, makes it durable. Syncs take a moment, as they do on
//! real disks, so that a cut can fall between a write and the end of its sync.

use super::disk::{Attributes, Disk, DiskError, ROOT, Sync};
use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The kernel may remember names and attributes: nobody else changes them.
const REMEMBER: Duration = Duration::from_secs(3600);
/// The longest time that a sync takes.
const SYNC_MAX: Duration = Duration::from_millis(3);
const UNMOUNT_MAX: Duration = Duration::from_secs(30);
const BLOCK: u32 = 4096;
const BLOCKS: u64 = 1 << 20;

/// What is wrong with a disk that has power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Illness {
    #[default]
    No,
    /// So many bytes are left, then ENOSPC; a write that does not fit is taken in part.
    Full { left: u64 },
    /// EIO to everything that is more than a look at names.
    Fails,
    /// Remounted read-only.
    ReadOnly,
    /// EIO to every sync.
    SyncsFail,
    /// EIO to every write with O_DSYNC.
    RingFails,
}

/// A disk that a file system stands on.
#[derive(Clone)]
pub struct SharedDisk(Arc<Mutex<State>>);

struct State {
    disk: Disk,
    /// The power is off: nothing is changed or synced any more.
    off: bool,
    /// Counts the cuts: a sync that began before one does not end after it.
    cuts: u64,
    random: fastrand::Rng,
    syncs: u64,
    illness: Illness,
    /// Bytes that files may have, while it is full.
    most: u64,
}

impl SharedDisk {
    pub fn new(seed: u64) -> SharedDisk {
        let random = fastrand::Rng::with_seed(seed);
        SharedDisk(Arc::new(Mutex::new(State {
            disk: Disk::new(),
            off: false,
            cuts: 0,
            random,
            syncs: 0,
            illness: Illness::No,
            most: u64::MAX,
        })))
    }

    /// From this instant on.
    pub fn fall_ill(&self, illness: Illness) {
        let mut state = self.lock();
        state.illness = illness;
        state.most = match illness {
            Illness::Full { left } => state.disk.bytes() + left,
            _ => u64::MAX,
        };
    }

    /// From this instant on nothing reaches the disk.
    pub fn power_off(&self) {
        self.lock().off = true;
    }

    /// Chooses what is left, and gives power again. To be called while nothing is mounted.
    pub fn forget<T>(&self, choose: impl FnOnce(&mut Disk) -> T) -> T {
        let mut state = self.lock();
        state.off = false;
        state.cuts += 1;
        choose(&mut state.disk)
    }

    /// Syncs of files and directories so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no thread panics while it holds the disk")
    }

    fn powered(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.lock();
        if state.off { Err(Errno::EIO) } else { Ok(state) }
    }

    /// To change something.
    fn writable(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.powered()?;
        match state.illness {
            Illness::Fails => Err(Errno::EIO),
            Illness::ReadOnly => Err(Errno::EROFS),
            _ => Ok(state),
        }
    }
}

impl State {
    /// How much a file may grow; an error if it wants to and may not at all.
    fn room(&self, inode: u64, end: u64) -> Result<u64, Errno> {
        let size = self.disk.attributes(inode).map_err(errno)?.size;
        if end <= size || self.most == u64::MAX {
            return Ok(end);
        }
        match self.most.saturating_sub(self.disk.bytes()) {
            0 => Err(Errno::ENOSPC),
            left => Ok(end.min(size + left)),
        }
    }
}

/// A mounted disk; unmounted when dropped.
pub struct Mounted {
    at: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    pub fn new(disk: &SharedDisk, at: &Path) -> Result<Mounted> {
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("forgetful".to_owned()), MountOption::Subtype("forgetful".to_owned())];
        let session = fuser::spawn_mount(Forgetful(disk.clone()), at, &config)
            .with_context(|| format!("mounting a FUSE file system on {}", at.display()))?;
        Ok(Mounted { at: at.to_owned(), session: Some(session) })
    }

    pub fn unmount(mut self) -> Result<()> {
        self.end().with_context(|| format!("unmounting {}", self.at.display()))
    }

    /// The kernel may still hold files of a process that was killed a moment ago.
    fn end(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let path = CString::new(self.at.as_os_str().as_bytes()).expect("a path without a zero byte");
        let give_up = Instant::now() + UNMOUNT_MAX;
        loop {
            // SAFETY: umount2(2) reads a path that ends with a zero byte and outlives the call; the mount is our own.
            if unsafe { libc::umount2(path.as_ptr(), 0) } == 0 {
                break;
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EPERM) {
                // Not root: the way by fusermount3.
                return session.umount_and_join();
            }
            if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > give_up {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // How the kernel ends a session depends on what was under way.
        match session.join() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::ENODEV)) => Ok(()),
            ended => ended,
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What is said of it was said by `unmount`; here another failure is under way.
        let _ = self.end();
    }
}

struct Forgetful(SharedDisk);

impl Forgetful {
    fn look<T>(&self, look: impl FnOnce(&Disk) -> Result<T, DiskError>) -> Result<T, Errno> {
        look(&self.0.lock().disk).map_err(errno)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Disk) -> Result<T, DiskError>) -> Result<T, Errno> {
        change(&mut self.0.writable()?.disk).map_err(errno)
    }

    /// Whether a file may have so many bytes.
    fn grow(&self, inode: INodeNo, end: u64) -> Result<(), Errno> {
        let state = self.0.writable()?;
        if state.room(inode.0, end)? < end { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// Answers when what is on the disk now has become durable.
    fn sync_later(&self, inode: INodeNo, reply: ReplyEmpty) {
        let begun = self.0.powered().and_then(|mut state| {
            if matches!(state.illness, Illness::Fails | Illness::SyncsFail) {
                return Err(Errno::EIO);
            }
            let sync = state.disk.begin_sync(inode.0).map_err(errno)?;
            state.syncs += 1;
            Ok((sync, state.cuts, SYNC_MAX.mul_f32(state.random.f32().powi(2))))
        });
        let (sync, cuts, takes) = match begun {
            Ok(begun) => begun,
            Err(error) => return reply.error(error),
        };
        let disk = self.0.clone();
        std::thread::spawn(move || {
            std::thread::sleep(takes);
            match end_sync(&disk, sync, cuts) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error),
            }
        });
    }
}

fn end_sync(disk: &SharedDisk, sync: Sync, cuts: u64) -> Result<(), Errno> {
    let mut state = disk.powered()?;
    if state.cuts != cuts {
        return Err(Errno::EIO);
    }
    state.disk.end_sync(sync);
    Ok(())
}

fn errno(error: DiskError) -> Errno {
    match error {
        DiskError::Missing => Errno::ENOENT,
        DiskError::Exists => Errno::EEXIST,
        DiskError::NotEmpty => Errno::ENOTEMPTY,
        DiskError::NotADirectory => Errno::ENOTDIR,
        DiskError::IsADirectory => Errno::EISDIR,
        DiskError::TooLarge => Errno::EFBIG,
    }
}

fn attr(found: Attributes) -> FileAttr {
    let kind = if found.is_directory { FileType::Directory } else { FileType::RegularFile };
    let size = if found.is_directory { u64::from(BLOCK) } else { found.size };
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    FileAttr {
        ino: INodeNo(found.inode),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: if found.is_directory { 0o755 } else { 0o644 },
        nlink: 1,
        // SAFETY: getuid(2) and getgid(2) cannot fail and touch no memory.
        uid: unsafe { libc::getuid() },
        // SAFETY: as above.
        gid: unsafe { libc::getgid() },
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

fn answer_entry(made: Result<Attributes, Errno>, reply: ReplyEntry) {
    match made {
        Ok(found) => reply.entry(&REMEMBER, &attr(found), Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn answer_empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Forgetful {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(self.look(|disk| disk.look_up(parent.0, name)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(|disk| disk.attributes(ino.0)) {
            Ok(found) => reply.attr(&REMEMBER, &attr(found)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = size.map_or(Ok(()), |size| self.grow(ino, size)).and_then(|()| {
            self.change(|disk| {
                if let Some(size) = size {
                    disk.set_size(ino.0, size)?;
                }
                disk.attributes(ino.0)
            })
        });
        match changed {
            Ok(found) => reply.attr(&REMEMBER, &attr(found)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        answer_entry(self.change(|disk| disk.make(parent.0, name, true)), reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, _: i32, reply: ReplyCreate) {
        match self.change(|disk| disk.make(parent.0, name, false)) {
            Ok(made) => {
                reply.created(&REMEMBER, &attr(made), Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.change(|disk| disk.remove(parent.0, name, false)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.change(|disk| disk.remove(parent.0, name, true)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer_empty(self.change(|disk| disk.rename((parent.0, name), (newparent.0, newname))), reply);
    }

    fn open(&self, _: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.0.lock().illness == Illness::Fails {
            return reply.error(Errno::EIO);
        }
        match self.look(|disk| disk.read(ino.0, offset, size as usize).map(<[u8]>::to_vec)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // O_SYNC holds the bit of O_DSYNC.
        let is_synced = flags.0 & libc::O_DSYNC != 0;
        let written = self.0.writable().and_then(|mut state| {
            if is_synced && state.illness == Illness::RingFails {
                return Err(Errno::EIO);
            }
            let end = state.room(ino.0, offset + data.len() as u64)?;
            let taken = end.saturating_sub(offset) as usize;
            if taken == 0 {
                return Err(Errno::ENOSPC);
            }
            let disk = &mut state.disk;
            disk.write(ino.0, offset, &data[..taken]).map_err(errno)?;
            if is_synced {
                let sync = disk.begin_sync(ino.0).map_err(errno)?;
                disk.end_sync(sync);
            }
            Ok(taken)
        });
        match written {
            Ok(taken) => reply.written(taken as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync_later(ino, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync_later(ino, reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let end = offset.saturating_add(length);
        // FALLOC_FL_KEEP_SIZE: there is room for it, or there is not.
        let grown = self.grow(ino, end).and_then(|()| match mode {
            0 => self.change(|disk| {
                let size = disk.attributes(ino.0)?.size;
                disk.set_size(ino.0, size.max(end))
            }),
            _ => Ok(()),
        });
        answer_empty(grown, reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = match self.look(|disk| disk.list(ino.0)) {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        let dots = [".", ".."].map(|name| (name.into(), Attributes { inode: ROOT, is_directory: true, size: 0 }));
        let all = dots.into_iter().chain(listed).enumerate();
        for (at, (name, found)) in all.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let kind = if found.is_directory { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(found.inode), at as u64 + 1, kind, &name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let state = self.0.lock();
        let used = state.disk.bytes().div_ceil(u64::from(BLOCK));
        let free = match state.most {
            u64::MAX => BLOCKS.saturating_sub(used),
            most => (most / u64::from(BLOCK)).saturating_sub(used),
        };
        reply.statfs(BLOCKS, free, free, 1 << 20, 1 << 20, BLOCK, 255, BLOCK);
    }
}
