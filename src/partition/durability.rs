//! Up to where a partition's records are on disk: in its segments, or in the journal above them. Pure.
//!
//! Writes are journaled in *runs* without a gap. A run proves what lies above it only together with everything below: its
//! records count from when the segments are synced up to the run's first offset. What was proved once stays proved.

use crate::base::ids::Offset;

/// What the journal holds of a partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Durability {
    proved: Offset,
    run: Option<Run>,
    /// The next write continues the run.
    open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: Offset,
    /// Handed to the journal.
    queued: Offset,
    /// On disk in the journal.
    journaled: Offset,
}

/// What brings an offset to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing has to be done: it is there, or will be when the journal's writes in flight are done.
    Journal,
    /// Its segments must be synced.
    Sync,
}

impl Durability {
    /// Everything below `end` is on disk in its segments.
    pub fn new(end: Offset) -> Durability {
        Durability { proved: end, run: None, open: false }
    }

    /// A write of `base..end` goes to the journal as well as to its segment.
    pub fn queue(&mut self, base: Offset, end: Offset) {
        match &mut self.run {
            Some(run) if self.open && run.queued == base => run.queued = end,
            _ => self.run = Some(Run { start: base, queued: end, journaled: base }),
        }
        self.open = true;
    }

    /// A write goes to its segment only.
    pub fn skip(&mut self) {
        self.open = false;
    }

    /// The journal has everything below `end` that it was handed. What belongs to a run before this one says nothing.
    pub fn journaled(&mut self, end: Offset) {
        if let Some(run) = &mut self.run
            && run.start < end
            && end <= run.queued
        {
            run.journaled = run.journaled.max(end);
        }
    }

    /// Up to where everything is on disk, given what is synced and what is written to the segments. Readers take records from
    /// segments: what only the journal has does not count yet.
    pub fn end(&mut self, flushed: Offset, written: Offset) -> Offset {
        self.proved = self.proved.max(flushed);
        if let Some(run) = self.run
            && self.proved >= run.start
        {
            self.proved = self.proved.max(run.journaled.min(written));
        }
        self.proved
    }

    /// The run's records wait for a sync of what is below them.
    pub fn lacks_what_is_below(&self) -> bool {
        self.run.is_some_and(|run| self.proved < run.start)
    }

    /// What has to happen so that everything below `end`, which is written, becomes durable.
    pub fn way(&self, end: Offset) -> Way {
        let is_journaled = self.run.is_some_and(|run| self.proved >= run.start && end <= run.queued);
        if end <= self.proved || is_journaled { Way::Journal } else { Way::Sync }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: i64) -> Offset {
        Offset(offset)
    }

    #[test]
    fn a_run_counts_when_what_is_below_is_synced() {
        let mut durability = Durability::new(at(0));
        durability.queue(at(5), at(9));
        durability.journaled(at(9));
        assert_eq!(durability.end(at(0), at(9)), at(0));
        assert_eq!(durability.way(at(9)), Way::Sync);
        assert_eq!(durability.end(at(5), at(9)), at(9));
        assert_eq!(durability.way(at(9)), Way::Journal);
    }

    #[test]
    fn a_gap_begins_a_new_run_and_takes_nothing_back() {
        let mut durability = Durability::new(at(0));
        durability.queue(at(0), at(4));
        durability.journaled(at(4));
        assert_eq!(durability.end(at(0), at(4)), at(4));
        durability.skip();
        assert_eq!(durability.way(at(6)), Way::Sync);
        durability.queue(at(6), at(8));
        durability.journaled(at(8));
        assert_eq!(durability.end(at(2), at(8)), at(4));
        assert_eq!(durability.end(at(6), at(8)), at(8));
    }

    #[test]
    fn what_an_earlier_run_still_writes_is_not_taken_for_the_next() {
        let mut durability = Durability::new(at(0));
        durability.queue(at(0), at(4));
        durability.skip();
        durability.queue(at(6), at(8));
        durability.journaled(at(4));
        assert_eq!(durability.end(at(0), at(8)), at(0));
    }

    proptest! {
        /// Whatever happens in which order, what is called durable is synced, or journaled without a gap above what is.
        #[test]
        fn never_more_than_the_disk_has(steps in prop::collection::vec((0u8..5, 1i64..5), 1..80)) {
            let mut durability = Durability::new(at(0));
            let (mut written, mut staged, mut flushed, mut before) = (0i64, 0i64, 0i64, at(0));
            // Which offsets the journal was handed, and how many of those pieces it has written.
            let (mut pieces, mut done): (Vec<(i64, i64)>, usize) = (Vec::new(), 0);
            for (step, count) in steps {
                match step {
                    0 | 1 => {
                        let (base, end) = (staged, staged + count);
                        staged = end;
                        if step == 0 {
                            durability.queue(at(base), at(end));
                            pieces.push((base, end));
                        } else {
                            durability.skip();
                        }
                    }
                    2 => written = staged,
                    3 => flushed = flushed.max(written - count).max(0),
                    _ if done < pieces.len() => {
                        durability.journaled(at(pieces[done].1));
                        done += 1;
                    }
                    _ => {}
                }
                let end = durability.end(at(flushed), at(written));
                prop_assert!(end >= before && end.0 >= flushed && end.0 <= written.max(flushed));
                before = end;
                let on_disk = |offset: i64| offset < flushed || pieces[..done].iter().any(|p| p.0 <= offset && offset < p.1);
                prop_assert!((0..end.0).all(on_disk));
                if done == pieces.len() && durability.way(at(written)) == Way::Journal {
                    prop_assert_eq!(end, at(written));
                }
            }
        }
    }
}
