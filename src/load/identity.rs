//! An idempotent producer: its id, and where it is in each partition. Pure.

use super::batches::Author;
use std::collections::HashMap;

/// One connection's. Nothing is sent twice, so brokers never see a duplicate; what fails leaves a gap, and the next batches bear another epoch,
/// as those of Kafka's clients do (KIP-360).
pub struct Identity {
    id: i64,
    epoch: i16,
    sequences: HashMap<i32, i32>,
    has_failed: bool,
}

impl Identity {
    pub fn new(id: i64, epoch: i16) -> Identity {
        Identity { id, epoch, sequences: HashMap::new(), has_failed: false }
    }

    /// Whom the next batch of a partition names, which holds so many records.
    pub fn next(&mut self, partition: i32, records: u32) -> Author {
        let sequence = self.sequences.entry(partition).or_default();
        let author = Author { id: self.id, epoch: self.epoch, sequence: *sequence };
        *sequence = following(*sequence, records);
        author
    }

    /// A request was answered with an error.
    pub fn fail(&mut self) {
        self.has_failed = true;
    }

    /// Whether more may be sent, while so many requests wait for their answers.
    pub fn may_send(&mut self, in_flight: usize) -> bool {
        if !self.has_failed {
            return true;
        }
        if in_flight > 0 {
            return false;
        }
        // With no epoch left the broker refuses what comes, and says so.
        self.epoch = self.epoch.saturating_add(1);
        self.sequences.clear();
        self.has_failed = false;
        true
    }
}

/// Behind the greatest number comes 0, as for Kafka's producers.
fn following(sequence: i32, records: u32) -> i32 {
    ((sequence as u64 + u64::from(records)) % (1 << 31)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_counts_for_itself_and_round() {
        let mut identity = Identity::new(5, 0);
        assert_eq!(identity.next(0, 10), Author { id: 5, epoch: 0, sequence: 0 });
        assert_eq!(identity.next(0, 10).sequence, 10);
        assert_eq!(identity.next(1, 10).sequence, 0);
        assert_eq!(following(i32::MAX, 1), 0);
        assert_eq!(following(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(following(i32::MAX - 1, 5), 3);
    }

    #[test]
    fn a_gap_ends_the_epoch_when_everything_is_answered() {
        let mut identity = Identity::new(5, 7);
        assert_eq!(identity.next(0, 3).epoch, 7);
        assert!(identity.may_send(4));
        identity.fail();
        assert!(!identity.may_send(1));
        assert!(identity.may_send(0));
        assert_eq!(identity.next(0, 3), Author { id: 5, epoch: 8, sequence: 0 });
    }
}
