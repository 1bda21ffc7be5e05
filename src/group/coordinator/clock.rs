//! When each group wants to be told the time.

use crate::base::clock::now_ms;
use crate::base::ids::PartitionIndex;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Notify;

/// The next deadlines of all groups of a shard, each of which has one at most.
#[derive(Default)]
pub struct Deadlines {
    entries: RefCell<BTreeSet<(i64, PartitionIndex, String)>>,
    /// An earlier one has come.
    earlier: Notify,
}

impl Deadlines {
    /// A group's next deadline was `before` and is `after`, in ms since 1970. They may be the same: one that was told meanwhile is told
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
    pub async fn due(&self) -> (PartitionIndex, String) {
        loop {
            let first = self.entries.borrow().first().cloned();
            let Some((at_ms, partition, group)) = first else {
                self.earlier.notified().await;
                continue;
            };
            let left_ms = at_ms - now_ms();
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
            let deadlines = Deadlines::default();
            let group = (PartitionIndex(3), "gone");
            deadlines.change(group, None, Some(1));
            assert_eq!(deadlines.due().await, (PartitionIndex(3), "gone".to_owned()));
            assert!(deadlines.entries.borrow().is_empty(), "nobody has to take it back");
            deadlines.change(group, Some(1), Some(2));
            assert_eq!(deadlines.due().await.0, PartitionIndex(3), "a new one is told");
            deadlines.change(group, Some(2), Some(2));
            assert_eq!(deadlines.due().await.0, PartitionIndex(3), "the same once more, if it still is one");
            assert!(deadlines.entries.borrow().is_empty());
        });
    }
}
