//! The high watermark: how far consumers may read. Pure.
//!
//! Records of acks 0 and 1 are visible as soon as they are written; those of acks=all only when they are durable, and
//! nothing that lies behind them before. So a consumer never sees a record of acks=all that a crash could take back.

use crate::base::ids::Offset;
use std::collections::VecDeque;

/// The high watermark of a leader with what holds it back.
#[derive(Debug, PartialEq, Eq)]
pub struct Watermark {
    high: Offset,
    /// Batches of acks=all that are not durable yet, in order: (base offset, end).
    strict: VecDeque<(Offset, Offset)>,
}

impl Watermark {
    pub fn new(high: Offset) -> Watermark {
        Watermark { high, strict: VecDeque::new() }
    }

    pub fn high(&self) -> Offset {
        self.high
    }

    /// A batch of acks=all was staged.
    pub fn note_strict(&mut self, base: Offset, end: Offset) {
        debug_assert!(self.strict.back().is_none_or(|(_, last)| *last <= base));
        self.strict.push_back((base, end));
    }

    /// Takes the least written and the least durable end of the in-sync replicas; returns whether the watermark moved.
    pub fn advance(&mut self, written: Offset, durable: Offset) -> bool {
        debug_assert!(durable <= written);
        while self.strict.front().is_some_and(|(_, end)| *end <= durable) {
            self.strict.pop_front();
        }
        let visible = self.strict.front().map_or(written, |(base, _)| written.min(*base));
        let next = self.high.max(durable).max(visible);
        let moved = next > self.high;
        self.high = next;
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark() -> Watermark {
        Watermark::new(Offset(0))
    }

    #[test]
    fn records_of_acks_one_are_visible_when_written() {
        let mut mark = mark();
        assert!(mark.advance(Offset(10), Offset(0)));
        assert_eq!(mark.high(), Offset(10));
        assert!(!mark.advance(Offset(10), Offset(5)));
    }

    #[test]
    fn records_of_acks_all_hide_what_follows_until_durable() {
        let mut mark = mark();
        mark.note_strict(Offset(4), Offset(6));
        mark.advance(Offset(10), Offset(0));
        assert_eq!(mark.high(), Offset(4));
        mark.advance(Offset(10), Offset(5));
        assert_eq!(mark.high(), Offset(5));
        mark.advance(Offset(10), Offset(6));
        assert_eq!(mark.high(), Offset(10));
    }

    proptest! {
        /// Whatever comes in between: the watermark never falls, and never passes a strict batch that is not durable.
        #[test]
        fn never_beyond_what_is_promised(steps in prop::collection::vec((1i64..5, any::<bool>(), 0i64..6, 0i64..6), 1..60)) {
            let (mut mark, mut staged, mut written, mut durable) = (mark(), 0i64, 0i64, 0i64);
            let mut strict = Vec::new();
            for (records, is_strict, write, sync) in steps {
                if is_strict {
                    mark.note_strict(Offset(staged), Offset(staged + records));
                    strict.push((staged, staged + records));
                }
                staged += records;
                written = (written + write).min(staged);
                durable = (durable + sync).min(written);
                let before = mark.high();
                mark.advance(Offset(written), Offset(durable));
                let high = mark.high();
                prop_assert!(high >= before && high.0 <= written && high.0 >= durable);
                for (base, end) in &strict {
                    prop_assert!(*end <= durable || high.0 <= (*base).max(durable));
                }
            }
        }
    }
}
