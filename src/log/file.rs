//! Files of a log as shards use them: the only place that knows tokio-uring's file type.
//!
//! Writes, syncs and reads of cold data go through io_uring and never block the core, but for small appends where that costs more than it
//! is worth (`log::inline`). What is in the page cache is read by plain system calls that return at once or not at all (`RWF_NOWAIT`).

use crate::base::faults::{Faults, Place};
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use rustix::io::ReadWriteFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::cell::RefCell;
use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use tokio_uring::fs::File;

/// A segment's `.log` file, open for reading and writing.
pub struct SegmentFile {
    file: File,
    mapping: RefCell<Option<Mapping>>,
    faults: Faults,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// io_uring: the core goes on meanwhile.
    Ring,
    /// This thread, into the page cache; it waits where the kernel does (`log::inline`).
    Inline,
}

/// A write that did not succeed: how much of it did, and the rest.
#[derive(Debug)]
pub struct Unwritten {
    pub error: io::Error,
    pub buffers: Vec<Bytes>,
    pub done: u64,
}

/// A mapping of the file that is never read through: `mincore` tells by it which pages are in the page cache.
struct Mapping {
    address: *mut c_void,
    bytes: usize,
}

/// A mapping grows by this much at once, so that an active segment is not mapped again for every append.
const MAPPING_STEP_BYTES: u64 = 256 << 20;
const PAGE_BYTES: usize = 4096;
/// Pages that one `mincore` call looks at.
const PAGES_AT_ONCE: usize = 1024;

impl SegmentFile {
    /// Opens the file; with `create`, makes it when it is missing.
    pub fn open(path: &Path, create: bool) -> io::Result<SegmentFile> {
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        // What is read ahead is decided here, not by the kernel: only so it is known who brought what into memory.
        let _ = fadvise(&file, 0, None, Advice::Random);
        Ok(SegmentFile { file: File::from_std(file), mapping: RefCell::new(None), faults: Faults::default() })
    }

    pub fn with(self, faults: Faults) -> SegmentFile {
        SegmentFile { faults, ..self }
    }

    /// Writes all buffers at `position`, as one operation unless the kernel takes less at once.
    pub async fn write_at(&self, mut buffers: Vec<Bytes>, position: u64, way: Way) -> Result<(), Unwritten> {
        let mut done = 0;
        loop {
            let wanted: usize = buffers.iter().map(Bytes::len).sum();
            let (written, back) = match self.faults.write(Place::Segment, wanted).await {
                Ok(allowed) if allowed < wanted => self.write_part(buffers, position + done, allowed).await,
                Ok(_) if way == Way::Inline => (self.write_now(&buffers, position + done), buffers),
                Ok(_) => self.file.writev_at(buffers, position + done).await,
                Err(error) => (Err(error), buffers),
            };
            match written {
                Ok(written) if written >= wanted => return Ok(()),
                Ok(0) => return Err(Unwritten { error: io::ErrorKind::WriteZero.into(), buffers: back, done }),
                Ok(written) => {
                    done += written as u64;
                    buffers = skip(back, written);
                }
                Err(error) => return Err(Unwritten { error, buffers: back, done }),
            }
        }
    }

    fn write_now(&self, buffers: &[Bytes], position: u64) -> io::Result<usize> {
        if let [one] = buffers {
            return Ok(rustix::io::retry_on_intr(|| rustix::io::pwrite(self.as_fd(), one, position))?);
        }
        let slices: Vec<IoSlice> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
        Ok(rustix::io::retry_on_intr(|| rustix::io::pwritev(self.as_fd(), &slices, position))?)
    }

    /// As a disk does that takes only the first bytes of a write; the buffers come back whole.
    async fn write_part(&self, buffers: Vec<Bytes>, position: u64, bytes: usize) -> (io::Result<usize>, Vec<Bytes>) {
        let first = Bytes::from(buffers.concat()).split_to(bytes);
        (self.file.writev_at(vec![first], position).await.0, buffers)
    }

    /// Data, and the size if it changed, are on disk when this returns.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.faults.sync(Place::Segment).await?;
        self.file.sync_data().await
    }

    /// Hands the dirty pages of a range to the disk, on a thread beside, and does not wait for it to have them: that, and whether they
    /// are there, only a sync tells, which finds less to do afterwards. A part of the last page is left out.
    pub async fn begin_write_out(&self, range: Range<u64>) -> io::Result<()> {
        let page = PAGE_BYTES as u64;
        let (start, end) = (range.start / page * page, range.end / page * page);
        if start >= end {
            return Ok(());
        }
        let (at, length) = (libc::off64_t::try_from(start), libc::off64_t::try_from(end - start));
        let (at, length) = (at.map_err(io::Error::other)?, length.map_err(io::Error::other)?);
        self.faults.sync(Place::Segment).await?;
        let file = self.as_fd().try_clone_to_owned()?;
        let begun = tokio::task::spawn_blocking(move || {
            // SAFETY: a system call on a descriptor that `file` keeps open; it is given no memory.
            let begun = unsafe { libc::sync_file_range(file.as_raw_fd(), at, length, libc::SYNC_FILE_RANGE_WRITE) };
            if begun == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
        begun.await.map_err(io::Error::other)?
    }

    /// Reads exactly `length` bytes through io_uring: for data that may not be in the page cache.
    pub async fn read_at(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let (result, buffer) = self.file.read_exact_at(Vec::with_capacity(length), position).await;
        result?;
        Ok(buffer.into())
    }

    /// Reads what is in the page cache at `position`, without waiting for a disk; None when nothing is. Where a file system
    /// knows no RWF_NOWAIT (FUSE is one), mincore tells: otherwise what was brought from disk would stay out of reach.
    pub fn read_cached(&self, position: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = rustix::io::preadv2(self.as_fd(), &mut [IoSliceMut::new(buffer)], position, ReadWriteFlags::NOWAIT);
        match read {
            Ok(read) => Ok(Some(read)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => self.read_resident(position, buffer),
            Err(e) => Err(e.into()),
        }
    }

    fn read_resident(&self, position: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.is_cached(position, buffer.len()) {
            return Ok(None);
        }
        Ok(Some(rustix::io::pread(self.as_fd(), buffer, position)?))
    }
}

impl SegmentFile {
    /// Whether all of a range is in the page cache, so that splice or sendfile will not wait for the disk. When it cannot
    /// be told, the answer is no: the caller then reads through io_uring, which is right in any case.
    pub fn is_cached(&self, position: u64, length: usize) -> bool {
        let pages = position / PAGE_BYTES as u64..(position + length as u64).div_ceil(PAGE_BYTES as u64);
        self.pages(pages, |page| page & 1 == 1)
    }

    /// Whether some whole page of a range is in the page cache, or may be.
    pub fn is_any_cached(&self, position: u64, length: usize) -> bool {
        let pages = position.div_ceil(PAGE_BYTES as u64)..(position + length as u64) / PAGE_BYTES as u64;
        !pages.is_empty() && !self.pages(pages, |page| page & 1 == 0)
    }

    /// Whether all of some pages are as wanted; not, where it cannot be told.
    fn pages(&self, pages: Range<u64>, wanted: impl Fn(&u8) -> bool) -> bool {
        let end = pages.end * PAGE_BYTES as u64;
        let mut mapping = self.mapping.borrow_mut();
        if mapping.as_ref().is_none_or(|mapping| (mapping.bytes as u64) < end) {
            *mapping = None;
            *mapping = Mapping::new(self, end.next_multiple_of(MAPPING_STEP_BYTES)).ok();
        }
        mapping.as_ref().is_some_and(|mapping| mapping.pages(pages.start as usize..pages.end as usize, wanted))
    }
}

impl Mapping {
    fn new(file: &SegmentFile, bytes: u64) -> io::Result<Mapping> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours; it is never read, so a
        // file that shrinks cannot raise SIGBUS.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        Ok(Mapping { address, bytes })
    }

    fn pages(&self, pages: Range<usize>, wanted: impl Fn(&u8) -> bool) -> bool {
        let mut residency = [0u8; PAGES_AT_ONCE];
        let end = pages.end;
        pages.step_by(PAGES_AT_ONCE).all(|from| {
            let pages = PAGES_AT_ONCE.min(end - from);
            // SAFETY: the range lies inside the mapping (`pages` of the file mapped up to its end), and the vector
            // has a byte for each of its pages.
            let result = unsafe {
                libc::mincore(self.address.byte_add(from * PAGE_BYTES), pages * PAGE_BYTES, residency.as_mut_ptr())
            };
            result == 0 && residency[..pages].iter().all(&wanted)
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping that `new` made; nothing else refers to it.
        let unmapped = unsafe { rustix::mm::munmap(self.address, self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

impl AsFd for SegmentFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.file`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) }
    }
}

/// What is left of the buffers after their first `done` bytes.
fn skip(buffers: Vec<Bytes>, mut done: usize) -> Vec<Bytes> {
    let mut left = Vec::with_capacity(buffers.len());
    for mut buffer in buffers {
        let taken = done.min(buffer.len());
        done -= taken;
        let rest = buffer.split_off(taken);
        if !rest.is_empty() {
            left.push(rest);
        }
    }
    left
}

/// Has the page cache written out and forgotten from a position on: what is read next comes from the disk. After a write-back that
/// failed the cache calls clean what the disk does not have, and a sync is told of that error only once: what a recovery found
/// whole there would count as durable. Blocking.
pub fn forget_cached(file: &std::fs::File, from: u64) -> io::Result<()> {
    // No page is larger. Up to the file's end: of pages that are named in part, none would go.
    let from = from & !((64 << 10) - 1);
    let at = libc::off64_t::try_from(from).map_err(io::Error::other)?;
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: a system call on a descriptor that `file` keeps open; it is given no memory.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), at, 0, flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fadvise(file, from, None, Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_goes_on_where_it_ended() {
        let buffers = || vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de"), Bytes::from_static(b"f")];
        for done in 0..=6 {
            assert_eq!(skip(buffers(), done).concat(), b"abcdef"[done..].to_vec());
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        tokio_uring::start(async {
            let dir = tempfile::tempdir().expect("temporary directory");
            let file = SegmentFile::open(&dir.path().join("f"), true).expect("open");
            let one = vec![Bytes::from_static(b"hello ")];
            file.write_at(one, 3, Way::Inline).await.expect("write");
            let (ring, two) = (Way::Ring, vec![Bytes::from_static(b"wor"), Bytes::from_static(b"LD")]);
            file.write_at(two, 9, ring).await.expect("write");
            let again = vec![Bytes::from_static(b"l"), Bytes::from_static(b"d")];
            file.write_at(again, 12, Way::Inline).await.expect("write");
            file.sync_data().await.expect("sync");
            assert_eq!(file.read_at(3, 11).await.expect("read"), "hello world");
            assert!(file.read_at(3, 12).await.is_err());
            let mut buffer = [0; 5];
            assert_eq!(file.read_cached(9, &mut buffer).expect("read"), Some(5));
            assert_eq!(&buffer, b"world");
            assert_eq!(file.read_resident(6, &mut buffer).expect("read"), Some(5));
            assert_eq!(&buffer, b"lo wo", "the way without RWF_NOWAIT");
            assert!(file.is_cached(3, 11), "just written");
            assert!(!file.is_any_cached(3, 11), "no whole page");
        });
    }
}
