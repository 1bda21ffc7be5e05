//! What time it is for groups, and when each wants to be told.
//!
//! Sessions, rebalances and delays are counted by a clock that nobody sets: when the machine's time is corrected, no member has been silent
//! for longer. Only what is stored or compared with what was stored is by the wall clock, and is converted on its way.

use crate::base::clock;
use crate::base::ids::PartitionIndex;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The time of a shard's groups.
pub struct Clock {
    begun: Instant,
    begun_ms: i64,
    wall_ms: Box<dyn Fn() -> i64>,
}

impl Clock {
    /// `wall_ms` tells the time of day, in ms since 1970, which may jump.
    pub fn by(wall_ms: impl Fn() -> i64 + 'static) -> Clock {
        Clock { begun: Instant::now(), begun_ms: wall_ms(), wall_ms: Box::new(wall_ms) }
    }

    /// Steady time in ms: it begins as ms since 1970, and goes on evenly whatever becomes of the time of day.
    pub fn now_ms(&self) -> i64 {
        let passed_ms = i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.begun_ms.saturating_add(passed_ms)
    }

    /// A moment of steady time by the wall clock as it goes now, in ms since 1970.
    pub fn to_wall_ms(&self, steady_ms: i64) -> i64 {
        steady_ms.saturating_add(self.ahead_ms())
    }

    /// A moment by the wall clock as it goes now, in steady time.
    pub fn to_steady_ms(&self, wall_ms: i64) -> i64 {
        wall_ms.saturating_sub(self.ahead_ms())
    }

    fn ahead_ms(&self) -> i64 {
        (self.wall_ms)().saturating_sub(self.now_ms())
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::by(clock::now_ms)
    }
}

/// The next deadlines of all groups of a shard, each of which has one at most.
#[derive(Default)]
pub struct Deadlines {
    entries: RefCell<BTreeSet<(i64, PartitionIndex, String)>>,
    /// An earlier one has come.
    earlier: Notify,
}

impl Deadlines {
    /// A group's next deadline was `before` and is `after`, in ms of steady time. They may be the same: one that was told meanwhile is told
    /// again, or a rebalance whose end is put off by 0 ms would never end.
    pub fn change(&self, (partition, group): (PartitionIndex, &str), before: Option<i64>, after: Option<i64>) {
        if before.is_none() && after.is_none() {
            return;
        }
        let mut entries = self.entries.borrow_mut();
        let first = entries.first().map(|(at_ms, ..)| *at_ms);
        if let Some(before) = before {
            entries.remove(&(before, partition, group.to_owned()));
        }
        if let Some(after) = after {
            entries.insert((after, partition, group.to_owned()));
            if first.is_none_or(|first| after < first) {
                self.earlier.notify_one();
            }
        }
    }

    /// Ends when a deadline has passed, and says whose. It is told once: a group that is gone does not keep the clock busy.
    pub async fn due(&self, clock: &Clock) -> (PartitionIndex, String) {
        loop {
            let first = self.entries.borrow().first().cloned();
            let Some((at_ms, partition, group)) = first else {
                self.earlier.notified().await;
                continue;
            };
            let left_ms = at_ms.saturating_sub(clock.now_ms());
            if left_ms <= 0 {
                self.entries.borrow_mut().pop_first();
                return (partition, group);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left_ms as u64)) => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_told_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let (deadlines, clock) = (Deadlines::default(), Clock::default());
            let group = (PartitionIndex(3), "gone");
            deadlines.change(group, None, Some(1));
            assert_eq!(deadlines.due(&clock).await, (PartitionIndex(3), "gone".to_owned()));
            assert!(deadlines.entries.borrow().is_empty(), "nobody has to take it back");
            deadlines.change(group, Some(1), Some(2));
            assert_eq!(deadlines.due(&clock).await.0, PartitionIndex(3), "a new one is told");
            deadlines.change(group, Some(2), Some(2));
            assert_eq!(deadlines.due(&clock).await.0, PartitionIndex(3), "the same once more, if it still is one");
            assert!(deadlines.entries.borrow().is_empty());
        });
    }
}
