//! Whether a small append is written by the shard's own thread or goes through io_uring.
//!
//! A file system that cannot tell whether a buffered write would wait (ext4) has io_uring give each one to a kernel worker: two wake-ups
//! more, which cost several times what the copy does. A plain write costs the copy alone; but now and then it waits, and everything
//! else on the core with it: for the file system's journal, or because the kernel slows down whoever dirties too many pages. So the
//! shard writes by itself until that took long, and then leaves it to io_uring for a while; for longer each time that the next attempt
//! is no better. Pure: the caller has the clock.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Larger writes are worth a worker on another core.
const BYTES_MAX: usize = 64 << 10;
/// A write that took longer has waited for something. Less is what the scheduler may take away from a thread that shares its core.
const STALL: Duration = Duration::from_millis(4);
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// What a shard knows of its own writes.
#[derive(Debug, Default)]
pub struct Inline {
    is_possible: bool,
    /// The last pause, and when it ends or has ended.
    pause: Cell<Option<(Duration, Instant)>>,
}

impl Inline {
    pub fn new(is_possible: bool) -> Inline {
        Inline { is_possible, ..Inline::default() }
    }

    pub fn allows(&self, bytes: usize, now: Instant) -> bool {
        self.is_possible && bytes <= BYTES_MAX && self.pause.get().is_none_or(|(_, end)| now >= end)
    }

    /// A write of the shard's own thread has ended; whether it stalled.
    pub fn ended(&self, began: Instant, now: Instant) -> bool {
        if now.saturating_duration_since(began) < STALL {
            return false;
        }
        let pause = match self.pause.get() {
            Some((last, end)) if began.saturating_duration_since(end) < last => (last * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.pause.set(Some((pause, now + pause)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: usize = 1000;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn small_writes_are_the_shards_own_until_one_stalls() {
        let (inline, start) = (Inline::new(true), Instant::now());
        assert!(inline.allows(SMALL, start) && inline.allows(BYTES_MAX, start) && !inline.allows(BYTES_MAX + 1, start));
        assert!(!inline.ended(start, start + STALL / 2));
        assert!(inline.allows(SMALL, start));
        let end = start + STALL;
        assert!(inline.ended(start, end));
        assert!(!inline.allows(SMALL, end) && !inline.allows(SMALL, end + PAUSE_MIN / 2));
        assert!(inline.allows(SMALL, end + PAUSE_MIN));
    }

    #[test]
    fn where_it_is_not_possible_nothing_is() {
        assert!(!Inline::new(false).allows(SMALL, Instant::now()));
    }

    #[test]
    fn pauses_grow_while_each_attempt_stalls_and_begin_anew_after_a_good_time() {
        let (inline, mut now) = (Inline::new(true), Instant::now());
        for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
            assert!(inline.allows(SMALL, now));
            assert!(inline.ended(now, now + STALL));
            now += STALL + seconds(expected) - Duration::from_millis(1);
            assert!(!inline.allows(SMALL, now), "{expected} s");
            now += Duration::from_millis(1);
        }
        // As long without a stall as the last pause was.
        now += seconds(64);
        assert!(inline.ended(now, now + STALL));
        assert!(inline.allows(SMALL, now + STALL + PAUSE_MIN));
    }
}
