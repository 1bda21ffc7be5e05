//! The shard's few pipes for splice(2): what `sendfile` does inside the kernel with 64 KiB, done with 1 MiB.
//!
//! Unprivileged users may have 64 MiB of pipes in all, so pipes are few, and no transfer ever waits for one: without a
//! pipe it uses sendfile. A pipe that is kept by a blocked transfer holds references to page cache only.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes that a pipe is asked to hold (the default of fs.pipe-max-size).
pub const PIPE_BYTES: usize = 1 << 20;
/// A pipe smaller than this gains nothing over sendfile.
const PIPE_BYTES_MIN: usize = 256 << 10;
/// After a refusal (descriptors, the user's pipe budget) sendfile serves as well: there is no hurry to ask again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// An empty pipe, both ends nonblocking.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    pub(super) capacity: usize,
}

impl Pipe {
    fn create() -> io::Result<Pipe> {
        use rustix::pipe::PipeFlags;
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused where the user's pipe budget is used up: the default of 64 KiB is then too small to be of use.
        let capacity = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES)?;
        if capacity < PIPE_BYTES_MIN {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
        }
        Ok(Pipe { read, write, capacity })
    }

    pub(super) fn read_end(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    pub(super) fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

/// At most `max` pipes, created when first needed.
pub struct PipePool {
    idle: RefCell<Vec<Pipe>>,
    created: Cell<usize>,
    max: usize,
    refused_at: Cell<Option<Instant>>,
}

impl PipePool {
    pub fn new(max: usize) -> PipePool {
        PipePool { idle: RefCell::new(Vec::new()), created: Cell::new(0), max, refused_at: Cell::new(None) }
    }

    /// An empty pipe, or None where none is left or allowed.
    pub(super) fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.borrow_mut().pop() {
            return Some(pipe);
        }
        let refused = self.refused_at.get().is_some_and(|at| at.elapsed() < RETRY_AFTER);
        if self.created.get() >= self.max || refused {
            return None;
        }
        match Pipe::create() {
            Ok(pipe) => {
                self.created.set(self.created.get() + 1);
                Some(pipe)
            }
            Err(error) => {
                if self.refused_at.replace(Some(Instant::now())).is_none() {
                    tracing::warn!(%error, "no further pipe for splice: sendfile is used instead");
                }
                None
            }
        }
    }

    /// Gives back an empty pipe.
    pub(super) fn put(&self, pipe: Pipe) {
        self.idle.borrow_mut().push(pipe);
    }

    /// Ends a pipe that still has content: closing it drops the content.
    pub(super) fn discard(&self, pipe: Pipe) {
        drop(pipe);
        self.created.set(self.created.get() - 1);
    }

    /// Whether a blocked transfer may keep its pipe: one is always left for transfers that flow.
    pub(super) fn may_keep(&self) -> bool {
        !self.idle.borrow().is_empty() || self.created.get() < self.max
    }

    /// Pipes that exist.
    pub fn created(&self) -> usize {
        self.created.get()
    }
}
