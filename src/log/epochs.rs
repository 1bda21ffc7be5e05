//! Which leader epoch began at which offset (KIP-101): what tells a follower or a client where logs diverge.

use crate::base::ids::{LeaderEpoch, Offset};

/// Epochs and their start offsets, both rising.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    entries: Vec<(LeaderEpoch, Offset)>,
}

/// The answer to OffsetForLeaderEpoch: the largest epoch not above the asked one, and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: LeaderEpoch,
    pub end: Offset,
}

impl EpochHistory {
    /// Takes entries of a checkpoint file; None when they do not rise.
    pub fn from_entries(entries: Vec<(LeaderEpoch, Offset)>) -> Option<EpochHistory> {
        let history = EpochHistory { entries };
        history.rises().then_some(history)
    }

    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Notes that records from `start` on bear `epoch`. Returns whether the history changed.
    /// An epoch that began at or after `start` with a lower number is replaced: nothing was ever written in it.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if self.entries.last().is_some_and(|(last, _)| *last >= epoch) {
            return false;
        }
        while self.entries.last().is_some_and(|(_, last_start)| *last_start >= start) {
            self.entries.pop();
        }
        self.entries.push((epoch, start));
        debug_assert!(self.rises());
        true
    }

    /// KIP-279: where the largest epoch not above `epoch` ends; None when it is unknown.
    /// `current` is the leader's epoch: as long as nothing was written in it, it begins at the log's end.
    pub fn end_of(&self, epoch: LeaderEpoch, current: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        if epoch.0 < 0 {
            return None;
        }
        let latest = self.latest().map_or(current, |latest| latest.max(current));
        if epoch == latest {
            return Some(EpochEnd { epoch, end: log_end });
        }
        let above = self.entries.partition_point(|(e, _)| *e <= epoch);
        let end = match self.entries.get(above) {
            Some((_, start)) => *start,
            None if epoch < latest => log_end,
            None => return None,
        };
        match above.checked_sub(1) {
            Some(at) => Some(EpochEnd { epoch: self.entries[at].0, end }),
            // Asked for an epoch before the first one known: it ended where that one began.
            None => Some(EpochEnd { epoch, end }),
        }
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).map(|i| self.entries[i].0)
    }

    /// Forgets epochs that begin at or after `end`: the log was cut there.
    pub fn truncate_end(&mut self, end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < end);
        before != self.entries.len()
    }

    /// Forgets epochs that ended at or before `start`; the one that covers `start` now begins there.
    pub fn truncate_start(&mut self, start: Offset) -> bool {
        let covering = self.entries.partition_point(|(_, s)| *s <= start);
        let Some(covering) = covering.checked_sub(1) else { return false };
        if covering == 0 && self.entries[0].1 == start {
            return false;
        }
        self.entries.drain(..covering);
        self.entries[0].1 = start;
        true
    }

    fn rises(&self) -> bool {
        self.entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(i32, i64)]) -> EpochHistory {
        let mut history = EpochHistory::default();
        for (epoch, start) in entries {
            history.assign(LeaderEpoch(*epoch), Offset(*start));
        }
        history
    }

    fn end(epoch: i32, end: i64) -> Option<EpochEnd> {
        Some(EpochEnd { epoch: LeaderEpoch(epoch), end: Offset(end) })
    }

    #[test]
    fn ends_of_epochs() {
        let history = history(&[(2, 10), (5, 30), (6, 50)]);
        let end_of = |epoch, current| history.end_of(LeaderEpoch(epoch), LeaderEpoch(current), Offset(80));
        assert_eq!(end_of(6, 6), end(6, 80));
        assert_eq!(end_of(5, 6), end(5, 50));
        assert_eq!(end_of(4, 6), end(2, 30));
        assert_eq!(end_of(1, 6), end(1, 10));
        assert_eq!(end_of(7, 6), None);
        assert_eq!(end_of(-1, 6), None);
    }

    #[test]
    fn a_current_epoch_without_records_begins_at_the_end() {
        let written = history(&[(2, 10)]);
        let end_of = |epoch| written.end_of(LeaderEpoch(epoch), LeaderEpoch(4), Offset(80));
        assert_eq!(end_of(2), end(2, 80));
        assert_eq!(end_of(3), end(2, 80));
        assert_eq!(end_of(4), end(4, 80));
        assert_eq!(end_of(5), None);
        let nothing = EpochHistory::default();
        assert_eq!(nothing.end_of(LeaderEpoch(0), LeaderEpoch(0), Offset(0)), end(0, 0));
        assert_eq!(nothing.end_of(LeaderEpoch(1), LeaderEpoch(0), Offset(0)), None);
    }

    #[test]
    fn an_epoch_without_records_is_replaced() {
        assert_eq!(history(&[(0, 0), (1, 5), (2, 5)]), history(&[(0, 0), (2, 5)]));
        assert!(!history(&[(3, 5)]).clone().assign(LeaderEpoch(3), Offset(9)));
    }

    #[test]
    fn truncation_at_both_ends() {
        let mut h = history(&[(0, 0), (1, 5), (2, 9)]);
        assert!(h.truncate_end(Offset(9)));
        assert_eq!(h, history(&[(0, 0), (1, 5)]));
        assert!(h.truncate_start(Offset(7)));
        assert_eq!(h, history(&[(1, 7)]));
        assert!(!h.truncate_start(Offset(7)));
        assert!(!h.truncate_start(Offset(3)));
        assert_eq!(h.epoch_at(Offset(100)), Some(LeaderEpoch(1)));
        assert_eq!(h.epoch_at(Offset(6)), None);
    }
}
