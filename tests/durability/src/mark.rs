//! A number that only grows, of which a broker says how far it has got. No I/O.

use crate::ledger::{Counts, Promise};
use anyhow::{Result, ensure};

/// 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The greatest that the broker may have heard of.
    sent: i64,
    /// The greatest of which it said that it is stored, or which was read.
    told: i64,
    /// How often it said so.
    answers: u64,
}

impl Mark {
    /// One that was never sent.
    pub fn next(&self) -> i64 {
        self.sent + 1
    }

    pub fn send(&mut self, number: i64) {
        self.sent = self.sent.max(number);
    }

    pub fn tell(&mut self, number: i64) {
        self.told = self.told.max(number);
        self.answers += 1;
    }

    /// What the broker knows after a crash. What was read once may not be taken back later.
    pub fn check(&mut self, found: i64, promise: Promise, counts: &mut Counts) -> Result<()> {
        let Mark { sent, told, answers } = *self;
        ensure!(found <= sent, "STRANGE: there is {found}, and never more than {sent} was sent");
        ensure!(promise == Promise::TailMayGo || found >= told, "LOST: {told} was acknowledged, there is {found}");
        counts.told += answers;
        counts.lost += u64::from(found < told);
        self.told = found;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(mark: &mut Mark, found: i64, promise: Promise) -> String {
        let mut counts = Counts::default();
        match mark.check(found, promise, &mut counts) {
            Ok(()) => format!("{} told, {} lost", counts.told, counts.lost),
            Err(error) => error.to_string().split(':').next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn what_was_acknowledged_is_a_lower_bound_and_what_was_sent_an_upper_one() {
        let mut mark = Mark::default();
        assert_eq!(verdict(&mut mark, 0, Promise::Kept), "0 told, 0 lost");
        (1..=5).for_each(|number| mark.send(number));
        (1..=3).for_each(|number| mark.tell(number));
        assert_eq!(verdict(&mut mark.clone(), 2, Promise::Kept), "LOST");
        assert_eq!(verdict(&mut mark.clone(), 0, Promise::Kept), "LOST");
        assert_eq!(verdict(&mut mark.clone(), 6, Promise::TailMayGo), "STRANGE");
        assert_eq!(verdict(&mut mark.clone(), 3, Promise::Kept), "3 told, 0 lost");
        assert_eq!(verdict(&mut mark.clone(), 2, Promise::TailMayGo), "3 told, 1 lost");
        assert_eq!(verdict(&mut mark, 4, Promise::Kept), "3 told, 0 lost");
        assert_eq!(verdict(&mut mark, 3, Promise::Kept), "LOST", "it was read");
        assert_eq!(mark.next(), 6);
    }
}
