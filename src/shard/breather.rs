//! A pause that lets the whole shard breathe, its I/O drivers included.
//!
//! `tokio::task::yield_now` lets other tasks run, but as long as any task does so, the runtime polls sockets without
//! parking, and tokio-uring submits its queue only when the thread parks: a busy sender could hold back every append.
//! Waiting for an eventfd that is already readable makes the thread park for an instant, and so submits.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Wakes whoever asked, after one pass of the shard's I/O drivers.
pub struct Breather {
    event: AsyncFd<OwnedFd>,
    waiting: RefCell<Vec<Waker>>,
    closed: Cell<bool>,
}

impl Breather {
    /// Must be called within the shard's runtime; the caller spawns `run`.
    pub fn new() -> io::Result<Rc<Breather>> {
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let event = rustix::event::eventfd(0, flags)?;
        // SAFETY: an OwnedFd names the same open descriptor until it is dropped, which AsyncFd does after deregistering.
        let event = unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) };
        Ok(Rc::new(Breather {
            event: event.map_err(|error| error.into_parts().1)?,
            waiting: RefCell::new(Vec::new()),
            closed: Cell::new(false),
        }))
    }

    /// Wakes `waker` after the drivers have run once.
    pub fn wake_later(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            // An eventfd only refuses when its counter overflows: it is readable then anyway.
            let _ = rustix::io::write(self.event.get_ref(), &1u64.to_ne_bytes());
        }
        waiting.push(waker.clone());
    }

    /// Gives way to all other tasks and to the I/O drivers once.
    pub async fn breathe(&self) {
        let mut asked = false;
        std::future::poll_fn(|cx| {
            if asked {
                return Poll::Ready(());
            }
            asked = true;
            self.wake_later(cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Serves `wake_later` until `close`.
    pub async fn run(self: Rc<Self>) {
        std::future::poll_fn(|cx| self.poll_run(cx)).await;
    }

    /// Ends `run`.
    pub fn close(&self) {
        self.closed.set(true);
        let _ = rustix::io::write(self.event.get_ref(), &1u64.to_ne_bytes());
    }

    fn poll_run(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.closed.get() {
                return Poll::Ready(());
            }
            let Poll::Ready(ready) = self.event.poll_read_ready(cx) else { return Poll::Pending };
            let Ok(mut guard) = ready else { return Poll::Ready(()) };
            let mut count = [0u8; 8];
            let _ = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut count)?));
            guard.clear_ready();
            for waker in self.waiting.take() {
                waker.wake();
            }
        }
    }
}
