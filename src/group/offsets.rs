//! How far a group has read: its committed offsets, those on their way to the log, and when they expire (KIP-211). Pure.

use super::records::CommittedOffset;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A topic's name and a partition.
pub type TopicPartitionName = (String, i32);

/// What counts of a partition, and where in `__consumer_offsets` that was said: what lies later counts, whichever is told first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Newest {
    record_at: i64,
    said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Committed(CommittedOffset),
    /// A tombstone. It is known only as long as a commit is under way: one that lies before it must not count.
    Gone,
    /// It counts no more, for its topic is gone, but the log took no tombstone yet.
    Owed,
}

/// The offsets of one group.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    newest: BTreeMap<TopicPartitionName, Newest>,
    /// Commits of which nobody knows yet whether they are in the log, by partition: these do not expire meanwhile.
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
        self.newest.get(&(topic.to_owned(), partition)).and_then(Newest::committed)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartitionName, &CommittedOffset)> {
        self.newest.iter().filter_map(|(of, newest)| Some((of, newest.committed()?)))
    }

    pub fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.under_way.is_empty()
    }

    /// How many there are to look at.
    pub fn len(&self) -> usize {
        self.newest.len()
    }

    /// Some commit is on its way to the log.
    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Those that the log says something about, or may say soon: what a tombstone is needed for.
    pub fn known(&self) -> impl Iterator<Item = &TopicPartitionName> {
        let in_log = self.newest.iter().filter(|(_, newest)| newest.said != Said::Gone).map(|(of, _)| of);
        in_log.chain(self.under_way.keys().filter(|of| !self.newest.contains_key(*of)))
    }

    pub fn is_known(&self, of: &TopicPartitionName) -> bool {
        match self.newest.get(of) {
            Some(newest) => newest.said != Said::Gone,
            None => self.under_way.contains_key(of),
        }
    }

    /// A commit is on its way to the log.
    pub fn begin(&mut self, of: &TopicPartitionName) {
        *self.under_way.entry(of.clone()).or_default() += 1;
    }

    /// A commit is in the log at this offset of `__consumer_offsets`; or this coordinator does not learn any more whether it is, and who
    /// loads the group next will see.
    pub fn end(&mut self, of: &TopicPartitionName, stored: Option<(i64, CommittedOffset)>) {
        if let Some((record_at, value)) = stored {
            self.put(of.clone(), record_at, value);
        }
        if let Some(count) = self.under_way.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(of);
                if self.newest.get(of).is_some_and(|newest| newest.said == Said::Gone) {
                    self.newest.remove(of);
                }
            }
        }
    }

    /// What the log says at this offset of `__consumer_offsets`.
    pub fn put(&mut self, of: TopicPartitionName, record_at: i64, value: CommittedOffset) {
        self.say(of, Newest { record_at, said: Said::Committed(value) });
    }

    /// The log has taken a tombstone at this offset of `__consumer_offsets`: it takes away what lies before it, commits that
    /// are still under way included.
    pub fn forget(&mut self, of: &TopicPartitionName, record_at: i64) {
        if self.under_way.contains_key(of) {
            self.say(of.clone(), Newest { record_at, said: Said::Gone });
        } else if self.newest.get(of).is_some_and(|newest| newest.record_at < record_at) {
            self.newest.remove(of);
        }
    }

    /// The log takes no tombstone now, but what was said of it before its next record, at `end`, counts no more.
    pub fn disown(&mut self, of: &TopicPartitionName, end: i64) {
        if self.is_known(of) {
            self.newest.insert(of.clone(), Newest { record_at: end - 1, said: Said::Owed });
        }
    }

    fn say(&mut self, of: TopicPartitionName, newest: Newest) {
        if self.newest.get(&of).is_none_or(|before| before.record_at < newest.record_at) {
            self.newest.insert(of, newest);
        }
    }

    /// Which offsets have not been wanted for so long that they are to be forgotten, and those that still need a tombstone.
    pub fn expired(&self, readers: Readers<'_>, now_ms: i64, retention_ms: i64) -> Vec<TopicPartitionName> {
        let is_over = |since_ms: i64| now_ms.saturating_sub(since_ms) >= retention_ms;
        let has_expired = |(of, newest): &(&TopicPartitionName, &Newest)| {
            if self.under_way.contains_key(*of) {
                return false;
            }
            let Some(value) = newest.committed() else { return true };
            let counts_from = match readers {
                Readers::Unknown => return false,
                Readers::Subscribed(topics) if topics.contains(&of.0) => return false,
                Readers::Simple | Readers::Subscribed(_) => value.committed_ms,
                Readers::Gone { since_ms } => since_ms,
            };
            value.expires_ms.map_or_else(|| is_over(counts_from), |expires_ms| now_ms >= expires_ms)
        };
        self.newest.iter().filter(has_expired).map(|(of, _)| of.clone()).collect()
    }
}

impl Newest {
    fn committed(&self) -> Option<&CommittedOffset> {
        match &self.said {
            Said::Committed(value) => Some(value),
            Said::Gone | Said::Owed => None,
        }
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

    /// A commit lies at 10, the tombstone at 11; the log, and so the next start, says that there is none.
    #[test]
    fn a_tombstone_counts_against_commits_that_are_told_after_it_and_lie_before_it() {
        let mut offsets = Offsets::default();
        offsets.put(of("t"), 5, value(1, 0));
        for at in [10, 12] {
            offsets.begin(&of("t"));
            assert!(offsets.is_known(&of("t")));
            if at == 10 {
                offsets.forget(&of("t"), 11);
                assert!(!offsets.is_known(&of("t")), "one tombstone is enough");
            }
            assert_eq!(offsets.get("t", 0), None);
            offsets.end(&of("t"), Some((at, value(at, 0))));
        }
        assert_eq!(offsets.get("t", 0).map(|committed| committed.offset), Some(12), "what lies after it counts");
        offsets.begin(&of("u"));
        offsets.forget(&of("u"), 14);
        offsets.end(&of("u"), Some((13, value(1, 0))));
        assert_eq!(
            offsets.known().collect::<Vec<_>>(),
            [&of("t")],
            "nothing is kept of it when no commit is under way"
        );
        offsets.forget(&of("t"), 15);
        assert!(offsets.is_empty());
    }

    #[test]
    fn what_is_disowned_waits_for_its_tombstone_and_gives_way_to_a_new_commit() {
        let mut offsets = Offsets::default();
        offsets.put(of("old"), 5, value(1, 0));
        offsets.put(of("new"), 6, value(1, 0));
        offsets.begin(&of("under way"));
        for topic in ["old", "new", "under way", "unknown"] {
            offsets.disown(&of(topic), 9);
            assert_eq!(offsets.get(topic, 0), None, "{topic}");
        }
        offsets.end(&of("under way"), Some((8, value(1, 0))));
        offsets.begin(&of("new"));
        let expired = |offsets: &Offsets| offsets.expired(Readers::Unknown, 0, DAY_MS);
        assert_eq!(expired(&offsets), [of("old"), of("under way")], "a tombstone would take the new commit away");
        offsets.end(&of("new"), Some((9, value(2, 0))));
        assert_eq!(offsets.get("new", 0).map(|committed| committed.offset), Some(2));
        assert_eq!(expired(&offsets), [of("old"), of("under way")]);
        offsets.forget(&of("old"), 10);
        assert!(!offsets.is_known(&of("old")));
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
