//! Where received bytes land, and how many of them a shard holds.
//!
//! All connections of a shard read into one shared chunk: since reading never waits, one is enough, an idle connection
//! owns no buffer, and many small frames of many connections lie densely together. Frames are slices of that chunk
//! (no copy); only a frame's torn tail moves to a buffer of its own. Connections that send large frames read straight
//! into a buffer of the frame's size.
//!
//! Buffers come back by reference count: a retired one is tried again later, and is free when all its frames are gone.

use bytes::BytesMut;
use indexmap::IndexMap;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Bytes of the chunk that all connections of a shard share.
pub(super) const CHUNK_BYTES: usize = 128 << 10;
/// A chunk with less room than this is replaced: reads would become small.
const CHUNK_ROOM_MIN: usize = 16 << 10;
/// Own buffers up to this size are outside the budget: every connection can have one.
pub(super) const SMALL_BUFFER_BYTES: usize = 8 << 10;
/// Retired buffers up to this many bytes are kept for reuse: fresh pages cost more than the copying into them.
const RETIRED_BYTES_MAX: usize = 16 << 20;
/// Retired buffers that one request looks at.
const RETIRED_LOOKS_MAX: usize = 4;

/// The shard's receive memory.
pub(super) struct ReceivePool {
    chunk: RefCell<BytesMut>,
    chunks: RefCell<Retired>,
    buffers: RefCell<Retired>,
    pub(super) budget: Budget,
}

#[derive(Default)]
struct Retired {
    queue: VecDeque<(BytesMut, usize)>,
    bytes: usize,
}

impl ReceivePool {
    pub(super) fn new(bytes_max: usize) -> ReceivePool {
        ReceivePool {
            chunk: RefCell::new(BytesMut::new()),
            chunks: RefCell::default(),
            buffers: RefCell::default(),
            budget: Budget::new(bytes_max),
        }
    }

    /// One read into the shared chunk. What was read is handed over, sharing the chunk's memory; empty means the end
    /// of the stream.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<BytesMut>> {
        let mut chunk = self.chunk.borrow_mut();
        debug_assert!(chunk.is_empty(), "what was read has been handed over");
        if chunk.capacity() < CHUNK_ROOM_MIN && !chunk.try_reclaim(CHUNK_BYTES) {
            let fresh = self.chunks.borrow_mut().take(CHUNK_BYTES);
            let full = std::mem::replace(&mut *chunk, fresh);
            self.chunks.borrow_mut().put(full, CHUNK_BYTES);
        }
        match poll_fill(cx, stream, &mut chunk) {
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(chunk.split())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// An empty buffer that holds `bytes` at least.
    pub(super) fn take(&self, bytes: usize) -> BytesMut {
        if bytes <= SMALL_BUFFER_BYTES {
            return BytesMut::with_capacity(bytes);
        }
        self.buffers.borrow_mut().take(bytes)
    }

    /// Keeps a buffer of `bytes` for reuse once the frames in it are gone.
    pub(super) fn retire(&self, buffer: BytesMut, bytes: usize) {
        if bytes > SMALL_BUFFER_BYTES {
            self.buffers.borrow_mut().put(buffer, bytes);
        }
    }
}

impl Retired {
    fn take(&mut self, bytes: usize) -> BytesMut {
        for _ in 0..self.queue.len().min(RETIRED_LOOKS_MAX) {
            let Some((mut buffer, size)) = self.queue.pop_front() else { break };
            // Not a huge buffer for a small frame: it would be charged for less than it holds.
            if size >= bytes && size / 2 <= bytes && buffer.try_reclaim(bytes) {
                self.bytes -= size;
                return buffer;
            }
            self.queue.push_back((buffer, size));
        }
        BytesMut::with_capacity(bytes)
    }

    fn put(&mut self, mut buffer: BytesMut, bytes: usize) {
        if bytes == 0 || bytes > RETIRED_BYTES_MAX {
            return;
        }
        // A buffer that was outgrown still holds what has been copied out of it.
        buffer.clear();
        self.queue.push_back((buffer, bytes));
        self.bytes += bytes;
        while self.bytes > RETIRED_BYTES_MAX
            && let Some((_, size)) = self.queue.pop_front()
        {
            self.bytes -= size;
        }
    }
}

/// One read into `buffer`'s spare room, which must not be empty. 0: the end of the stream.
pub(super) fn poll_fill(
    cx: &mut Context<'_>,
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let spare = buffer.spare_capacity_mut();
    assert!(!spare.is_empty(), "a read of no bytes would look like the end of the stream");
    let mut target = ReadBuf::uninit(spare);
    match Pin::new(stream).poll_read(cx, &mut target) {
        Poll::Ready(Ok(())) => {
            let read = target.filled().len();
            // SAFETY: the first `read` bytes of the spare room have just been initialised by the read.
            unsafe { buffer.set_len(buffer.len() + read) };
            Poll::Ready(Ok(read))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}

/// Bytes that a shard holds for requests: frames not yet answered, and large frames still arriving.
///
/// Nobody deadlocks on it: a connection with nothing in flight may always read what fits a small buffer, and one
/// connection at a time may exceed the budget to complete its frame.
pub(super) struct Budget {
    used: Cell<usize>,
    max: usize,
    privileged: Cell<Option<u64>>,
    /// By connection, in the order in which they came.
    waiting: RefCell<IndexMap<u64, Waker>>,
}

impl Budget {
    fn new(max: usize) -> Budget {
        Budget { used: Cell::new(0), max, privileged: Cell::new(None), waiting: RefCell::default() }
    }

    pub(super) fn used(&self) -> usize {
        self.used.get()
    }

    /// Connections wait for memory.
    pub(super) fn is_contended(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.used.get() >= self.max
    }

    /// Counts `bytes` that are held whatever the budget says: they have arrived.
    pub(super) fn hold(&self, bytes: usize) {
        self.used.set(self.used.get() + bytes);
    }

    /// Counts `bytes` for a frame of `connection` that is still arriving, if there is room.
    pub(super) fn reserve(&self, connection: u64, bytes: usize) -> bool {
        let used = self.used.get();
        if used + bytes > self.max {
            match self.privileged.get() {
                Some(privileged) if privileged != connection => return false,
                _ => self.privileged.set(Some(connection)),
            }
        }
        self.used.set(used + bytes);
        true
    }

    /// Gives back what `hold` and `reserve` counted.
    pub(super) fn release(&self, bytes: usize) {
        self.used.set(self.used.get().checked_sub(bytes).expect("released no more than was held"));
        // Not at the first byte that is free: each would wake everybody for the sake of one.
        if self.used.get() <= self.max / 4 * 3 {
            self.wake_waiting();
        }
    }

    /// `connection` no longer waits.
    pub(super) fn forget(&self, connection: u64) {
        self.waiting.borrow_mut().shift_remove(&connection);
        self.end_privilege(connection);
    }

    /// `connection` has completed its frame: another one may exceed the budget.
    pub(super) fn end_privilege(&self, connection: u64) {
        if self.privileged.get() == Some(connection) {
            self.privileged.set(None);
            self.wake_waiting();
        }
    }

    /// Wakes the connection's `waker` when there may be room.
    pub(super) fn wake_later(&self, connection: u64, waker: &Waker) {
        self.waiting.borrow_mut().entry(connection).or_insert_with(|| waker.clone());
    }

    fn wake_waiting(&self) {
        // Those that find no room ask again, in the order in which they are woken.
        for (_, waker) in self.waiting.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_retired_buffer_comes_back_when_its_frames_are_gone() {
        let pool = ReceivePool::new(usize::MAX);
        let mut buffer = pool.take(100_000);
        let address = buffer.as_ptr();
        buffer.extend_from_slice(&[1; 100_000]);
        let frame = buffer.split_to(100_000).freeze();
        pool.retire(buffer, 100_000);
        let other = pool.take(90_000);
        assert_ne!(other.as_ptr(), address, "the frame still lives");
        drop(frame);
        assert_eq!(pool.take(90_000).as_ptr(), address);
        assert!(pool.take(10_000).capacity() < 90_000, "not a large one for a small frame");
    }

    /// A torn frame's first half stayed in the buffer that it was moved out of, and came back in front of another
    /// connection's bytes: that one's next length was garbage.
    #[test]
    fn a_retired_buffer_comes_back_empty() {
        let pool = ReceivePool::new(usize::MAX);
        let mut buffer = pool.take(100_000);
        let address = buffer.as_ptr();
        buffer.extend_from_slice(&[1; 40_000]);
        pool.retire(buffer, 100_000);
        let again = pool.take(100_000);
        assert_eq!(again.as_ptr(), address);
        assert!(again.is_empty() && again.capacity() >= 100_000);
    }

    #[test]
    fn no_more_retired_bytes_are_kept_than_allowed() {
        let mut retired = Retired::default();
        for _ in 0..40 {
            retired.put(BytesMut::with_capacity(1 << 20), 1 << 20);
        }
        assert_eq!((retired.queue.len(), retired.bytes), (16, RETIRED_BYTES_MAX));
    }

    #[test]
    fn one_connection_at_a_time_may_exceed_the_budget() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let budget = Budget::new(1000);
        assert!(budget.reserve(1, 900));
        assert!(budget.reserve(2, 500), "the first to need more");
        assert!(!budget.reserve(3, 200) && !budget.reserve(1, 200), "nobody else meanwhile");
        assert!(budget.reserve(2, 500), "the same one goes on");
        budget.wake_later(3, &waker);
        budget.wake_later(3, &waker);
        budget.wake_later(1, &waker);
        budget.release(1000);
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "900 of 1000 are still in use");
        budget.end_privilege(2);
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "each is woken once");
        assert!(budget.reserve(3, 200) && !budget.is_contended());
    }
}
