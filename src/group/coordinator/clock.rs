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
    /// A group's next deadline was `before` and is `after`, in ms since 1970.
    pub fn change(&self, (partition, group): (PartitionIndex, &str), before: Option<i64>, after: Option<i64>) {
        if before == after {
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

    /// Ends when a deadline has passed, and says whose. It stays noted until it is changed.
    pub async fn due(&self) -> (PartitionIndex, String) {
        loop {
            let first = self.entries.borrow().first().cloned();
            let Some((at_ms, partition, group)) = first else {
                self.earlier.notified().await;
                continue;
            };
            let left_ms = at_ms - now_ms();
            if left_ms <= 0 {
                return (partition, group);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left_ms as u64)) => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}
