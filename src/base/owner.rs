//! A mark of the thread that made a value, checked in debug builds.
//!
//! What belongs to a shard is `Rc` and `RefCell`, so the compiler already keeps it on one thread; this catches what the
//! compiler cannot see, such as an `unsafe` that moves it.

#[cfg(debug_assertions)]
use std::thread::{self, ThreadId};

/// Remembers its thread in debug builds, and is nothing in release builds.
#[derive(Debug)]
pub struct Owner {
    #[cfg(debug_assertions)]
    thread: ThreadId,
}

impl Owner {
    /// The thread that calls.
    pub fn here() -> Owner {
        Owner {
            #[cfg(debug_assertions)]
            thread: thread::current().id(),
        }
    }

    /// Debug builds panic on any other thread than the owner's.
    #[inline]
    pub fn assert(&self) {
        #[cfg(debug_assertions)]
        assert_eq!(self.thread, thread::current().id(), "a shard's state was reached from another thread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_thread_is_caught() {
        let owner = Owner::here();
        owner.assert();
        let elsewhere = std::thread::spawn(move || owner.assert()).join();
        assert_eq!(elsewhere.is_err(), cfg!(debug_assertions));
    }
}
