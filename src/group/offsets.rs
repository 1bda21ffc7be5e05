//! How far a group has read: its committed offsets, those on their way to the log, and when they expire (KIP-211). Pure.

use super::records::CommittedOffset;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A topic's name and a partition.
pub type TopicPartitionName = (String, i32);

/// An offset with its place in `__consumer_offsets`: of two commits under way the one that lies later counts, whichever is told first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Committed {
    record_at: i64,
    value: CommittedOffset,
}

/// The offsets of one group.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    committed: BTreeMap<TopicPartitionName, Committed>,
    /// Commits that are not in the log yet, by partition: these do not expire meanwhile.
    under_way: HashMap<TopicPartitionName, usize>,
}

/// Who the offsets belong to, as far as it decides when they expire.
#[derive(Clone, Copy, Debug)]
pub enum Readers<'g> {
    /// Nobody ever joined: each offset counts from its own commit.
    Simple,
    /// All members have left, at this time in ms since 1970.
    Gone { since_ms: i64 },
    /// A consumer group at work on these topics: the offsets of others count from their commits.
    Subscribed(&'g HashSet<String>),
    /// Nothing expires: nobody can tell what the group reads.
    Unknown,
}

impl Offsets {
    pub fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        // A tuple of owned texts has to be made for the look-up.
        self.committed.get(&(topic.to_owned(), partition)).map(|committed| &committed.value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartitionName, &CommittedOffset)> {
        self.committed.iter().map(|(of, committed)| (of, &committed.value))
    }

    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.under_way.is_empty()
    }

    /// Some commit is on its way to the log.
    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// A commit is on its way to the log.
    pub fn begin(&mut self, of: &TopicPartitionName) {
        *self.under_way.entry(of.clone()).or_default() += 1;
    }

    /// A commit is in the log at this offset of `__consumer_offsets`, or never will be.
    pub fn end(&mut self, of: &TopicPartitionName, stored: Option<(i64, CommittedOffset)>) {
        if let Some(count) = self.under_way.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(of);
            }
        }
        if let Some((record_at, value)) = stored {
            self.put(of.clone(), record_at, value);
        }
    }

    /// What the log says at this offset of `__consumer_offsets`.
    pub fn put(&mut self, of: TopicPartitionName, record_at: i64, value: CommittedOffset) {
        if self.committed.get(&of).is_none_or(|committed| committed.record_at < record_at) {
            self.committed.insert(of, Committed { record_at, value });
        }
    }

    /// Forgets an offset; whether there was one.
    pub fn remove(&mut self, of: &TopicPartitionName) -> bool {
        self.committed.remove(of).is_some()
    }

    /// Which offsets have not been wanted for so long that they are to be forgotten.
    pub fn expired(&self, readers: Readers<'_>, now_ms: i64, retention_ms: i64) -> Vec<TopicPartitionName> {
        let is_over = |since_ms: i64| now_ms.saturating_sub(since_ms) >= retention_ms;
        let has_expired = |(of, committed): &(&TopicPartitionName, &Committed)| {
            let value = &committed.value;
            let counts_from = match readers {
                Readers::Unknown => return false,
                Readers::Subscribed(topics) if topics.contains(&of.0) => return false,
                Readers::Simple | Readers::Subscribed(_) => value.committed_ms,
                Readers::Gone { since_ms } => since_ms,
            };
            !self.under_way.contains_key(*of)
                && value.expires_ms.map_or_else(|| is_over(counts_from), |expires_ms| now_ms >= expires_ms)
        };
        self.committed.iter().filter(has_expired).map(|(of, _)| of.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn value(offset: i64, committed_ms: i64) -> CommittedOffset {
        CommittedOffset { offset, leader_epoch: -1, metadata: String::new(), committed_ms, expires_ms: None }
    }

    fn of(topic: &str) -> TopicPartitionName {
        (topic.to_owned(), 0)
    }

    #[test]
    fn of_two_commits_the_later_in_the_log_counts() {
        let mut offsets = Offsets::default();
        offsets.begin(&of("t"));
        offsets.begin(&of("t"));
        offsets.end(&of("t"), Some((8, value(20, 0))));
        offsets.end(&of("t"), Some((7, value(10, 0))));
        assert_eq!(offsets.get("t", 0).map(|committed| committed.offset), Some(20));
        offsets.begin(&of("u"));
        assert!(!offsets.is_empty());
        offsets.end(&of("u"), None);
        assert_eq!(offsets.get("u", 0), None);
    }

    #[test]
    fn offsets_expire_by_who_reads() {
        let mut offsets = Offsets::default();
        offsets.put(of("old"), 0, value(1, 0));
        offsets.put(of("new"), 1, value(1, 6 * DAY_MS));
        let own = CommittedOffset { expires_ms: Some(2 * DAY_MS), ..value(1, 0) };
        offsets.put(of("own"), 2, own);
        let expired = |readers| offsets.expired(readers, 7 * DAY_MS, 7 * DAY_MS);
        assert_eq!(expired(Readers::Simple), [of("old"), of("own")]);
        assert_eq!(expired(Readers::Gone { since_ms: DAY_MS }), [of("own")], "from when the last member went");
        assert_eq!(expired(Readers::Gone { since_ms: 0 }).len(), 3);
        let topics = HashSet::from(["old".to_owned()]);
        assert_eq!(expired(Readers::Subscribed(&topics)), [of("own")]);
        assert!(expired(Readers::Unknown).is_empty());
        offsets.begin(&of("old"));
        let expired = offsets.expired(Readers::Simple, 7 * DAY_MS, 7 * DAY_MS);
        assert_eq!(expired, [of("own")], "a commit is under way");
    }
}
