//! Member ids that were given out, and not joined with yet (KIP-394).

use crate::base::limits::{PENDING_MEMBER_BYTES, PENDING_MEMBERS_MAX};
use std::collections::{BTreeSet, HashMap};

/// Each is forgotten at its time, and the one that is nearest to it when there are too many: whoever comes with it later asks again.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    by_id: HashMap<String, i64>,
    /// When each is forgotten: (ms, member id).
    deadlines: BTreeSet<(i64, String)>,
    bytes: usize,
}

fn bytes_of(id: &str) -> usize {
    PENDING_MEMBER_BYTES + 2 * id.len()
}

impl Pending {
    pub fn insert(&mut self, id: String, until_ms: i64) {
        self.remove(&id);
        if self.by_id.len() == PENDING_MEMBERS_MAX
            && let Some((_, first)) = self.deadlines.first().cloned()
        {
            self.remove(&first);
        }
        self.deadlines.insert((until_ms, id.clone()));
        self.bytes += bytes_of(&id);
        self.by_id.insert(id, until_ms);
    }

    /// Whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some((id, until_ms)) = self.by_id.remove_entry(id) else { return false };
        self.bytes -= bytes_of(&id);
        self.deadlines.remove(&(until_ms, id))
    }

    /// Forgets those whose time is up.
    pub fn tick(&mut self, now_ms: i64) {
        while let Some((_, id)) = self.deadlines.first().filter(|(until_ms, _)| *until_ms <= now_ms).cloned() {
            self.remove(&id);
        }
    }

    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(until_ms, _)| *until_ms)
    }

    /// What they take of memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    #[cfg(any(test, debug_assertions))]
    pub fn check(&self) {
        assert_eq!(self.by_id.len(), self.deadlines.len());
        assert_eq!(self.bytes, self.by_id.keys().map(|id| bytes_of(id)).sum::<usize>());
        assert!(self.by_id.iter().all(|(id, until_ms)| self.deadlines.contains(&(*until_ms, id.clone()))));
    }

    #[cfg(any(test, debug_assertions))]
    pub fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_there_may_be() {
        let mut pending = Pending::default();
        for n in 0..PENDING_MEMBERS_MAX as i64 + 10 {
            pending.insert(format!("member {n}"), 1000 + n);
        }
        pending.check();
        assert_eq!(pending.by_id.len(), PENDING_MEMBERS_MAX);
        assert!(!pending.contains("member 9") && pending.contains("member 10"), "the oldest go first");
        pending.insert("member 10".to_owned(), 5000);
        assert_eq!(pending.next_deadline_ms(), Some(1011));
        pending.tick(i64::MAX);
        assert!(pending.is_empty() && pending.next_deadline_ms().is_none());
    }
}
