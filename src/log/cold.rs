//! What readers of cold data brought into the page cache, so that it goes out again behind them: 20 GB that one consumer
//! catches up on must not push out what producers and tail readers use.
//!
//! Only ranges of which nothing was in memory before are noted, so that the tail of a log and what others read are never
//! among them. The last ones are kept for a reader that follows close behind; one that is read twice is left to the kernel,
//! which knows better what is used then. Reading on in order, a reader finds the next range in memory already (`ahead`).

use super::file::SegmentFile;
use crate::base::limits::{COLD_KEPT_BYTES_MAX, COLD_RANGES_MAX};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::{Rc, Weak};
use tokio::sync::Notify;

/// The ranges of all files of a shard, oldest first.
#[derive(Default)]
pub struct ColdRanges {
    entries: VecDeque<Entry>,
    bytes: u64,
}

struct Entry {
    file: Weak<SegmentFile>,
    range: Range<u64>,
    /// It is read ahead; None once it was asked for.
    ahead: Option<Rc<Coming>>,
}

/// A range that is being read ahead.
#[derive(Default)]
pub struct Coming {
    is_here: Cell<bool>,
    arrived: Notify,
}

/// What is to be dropped from the page cache.
pub type Dropped = Vec<(Rc<SegmentFile>, Range<u64>)>;

impl ColdRanges {
    /// The part of a range behind what is noted of its begin.
    pub fn fresh(&self, file: &Rc<SegmentFile>, range: &Range<u64>) -> Range<u64> {
        let mut start = range.start;
        while start < range.end
            && let Some(noted) = self.of(file).find(|noted| noted.contains(&start))
        {
            start = noted.end;
        }
        start.min(range.end)..range.end
    }

    /// Whether a reader that wants `range` goes on where one was.
    pub fn follows(&self, file: &Rc<SegmentFile>, range: &Range<u64>) -> bool {
        self.of(file).any(|noted| noted.contains(&range.start) || noted.end == range.start)
    }

    /// What is being read ahead where `range` begins: who asks for it waits, rather than read it once more.
    pub fn coming(&self, file: &Rc<SegmentFile>, range: &Range<u64>) -> Option<Rc<Coming>> {
        let behind = |noted: &Range<u64>| noted.start < range.end && range.start < noted.end;
        let mut entries = self.entries.iter().filter(|entry| entry.is_of(file) && behind(&entry.range));
        entries.find_map(|entry| entry.ahead.clone().filter(|coming| !coming.is_here.get()))
    }

    /// Notes a range that was read from disk, or is just being read ahead. Gives what there is no room for.
    #[must_use]
    pub fn brought(&mut self, file: &Rc<SegmentFile>, range: Range<u64>, ahead: Option<Rc<Coming>>) -> Dropped {
        if range.is_empty() {
            return Dropped::new();
        }
        self.bytes += range.end - range.start;
        self.entries.push_back(Entry { file: Rc::downgrade(file), range, ahead });
        let mut dropped = Dropped::new();
        while self.bytes > COLD_KEPT_BYTES_MAX || self.entries.len() > COLD_RANGES_MAX {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.range.end - oldest.range.start;
            // A file that was closed meanwhile is left to the kernel.
            dropped.extend(oldest.file.upgrade().map(|file| (file, oldest.range)));
        }
        dropped
    }

    /// A range was asked for and is in memory; whether it was read ahead, so that its reader will go on.
    pub fn used(&mut self, file: &Rc<SegmentFile>, range: &Range<u64>) -> bool {
        let mut was_ahead = false;
        let mut freed = 0;
        self.entries.retain_mut(|entry| {
            let overlap = entry.range.end.min(range.end).saturating_sub(entry.range.start.max(range.start));
            if overlap == 0 || !entry.is_of(file) {
                return true;
            }
            if entry.ahead.take().is_some() {
                was_ahead = true;
                return true;
            }
            // A reader begins anew with the batch that its last answer cut: that is no other reader.
            let length = entry.range.end - entry.range.start;
            let is_shared = overlap * 2 >= length;
            freed += if is_shared { length } else { 0 };
            !is_shared
        });
        self.bytes -= freed;
        was_ahead
    }

    fn of(&self, file: &Rc<SegmentFile>) -> impl Iterator<Item = &Range<u64>> {
        self.entries.iter().filter(|entry| entry.is_of(file)).map(|entry| &entry.range)
    }
}

impl Coming {
    /// It is in memory, or cannot be read: whoever waits looks for itself.
    pub fn end(&self) {
        self.is_here.set(true);
        self.arrived.notify_waiters();
    }

    pub async fn ended(&self) {
        while !self.is_here.get() {
            self.arrived.notified().await;
        }
    }
}

impl Entry {
    fn is_of(&self, file: &Rc<SegmentFile>) -> bool {
        std::ptr::eq(self.file.as_ptr(), Rc::as_ptr(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const MIB: u64 = 1 << 20;

    fn on_files(story: impl FnOnce(Rc<SegmentFile>, Rc<SegmentFile>)) {
        tokio_uring::start(async {
            let dir: TempDir = tempfile::tempdir().expect("temporary directory");
            let open = |name| Rc::new(SegmentFile::open(&dir.path().join(name), true).expect("open"));
            story(open("a"), open("b"));
        });
    }

    #[test]
    fn what_lies_behind_a_reader_goes_oldest_first() {
        on_files(|file, other| {
            let mut cold = ColdRanges::default();
            let kept = COLD_KEPT_BYTES_MAX / MIB;
            for i in 0..3 * kept {
                let dropped = cold.brought(&file, i * MIB..(i + 1) * MIB, None);
                match i.checked_sub(kept) {
                    Some(oldest) => assert_eq!(dropped[0].1, oldest * MIB..(oldest + 1) * MIB),
                    None => assert!(dropped.is_empty()),
                }
            }
            assert!(cold.follows(&file, &(3 * kept * MIB..(3 * kept + 1) * MIB)));
            assert!(!cold.follows(&other, &(3 * kept * MIB..(3 * kept + 1) * MIB)));
            assert!(!cold.follows(&file, &(0..MIB)), "that was dropped");
        });
    }

    #[test]
    fn what_is_read_twice_is_left_to_the_kernel() {
        on_files(|file, _| {
            let mut cold = ColdRanges::default();
            assert!(cold.brought(&file, 0..MIB, None).is_empty());
            assert!(cold.brought(&file, MIB..2 * MIB, Some(Rc::default())).is_empty());
            // The same reader again, from the batch on that was cut; what was read ahead is used for the first time.
            assert!(cold.used(&file, &(MIB - 5000..2 * MIB - 5000)));
            assert_eq!((cold.entries.len(), cold.bytes), (2, 2 * MIB));
            assert!(!cold.used(&file, &(0..MIB)), "another reader");
            assert_eq!((cold.entries.len(), cold.bytes), (1, MIB));
        });
    }

    #[test]
    fn who_asks_for_what_is_coming_waits_for_it_once() {
        on_files(|file, other| {
            let mut cold = ColdRanges::default();
            let coming = Rc::new(Coming::default());
            assert!(cold.brought(&file, 0..MIB, None).is_empty());
            assert!(cold.brought(&file, MIB..2 * MIB, Some(Rc::clone(&coming))).is_empty());
            let wanted = MIB - 5000..2 * MIB - 5000;
            assert!(cold.coming(&other, &wanted).is_none());
            assert!(cold.coming(&file, &(0..MIB)).is_none(), "that is here");
            assert!(cold.coming(&file, &wanted).is_some_and(|found| Rc::ptr_eq(&found, &coming)));
            coming.end();
            assert!(cold.coming(&file, &wanted).is_none(), "it has come");
            assert!(cold.used(&file, &wanted), "its reader goes on");
        });
    }

    #[test]
    fn the_part_that_was_cut_is_not_taken_for_somebody_elses() {
        on_files(|file, other| {
            let mut cold = ColdRanges::default();
            assert!(cold.brought(&file, 0..MIB, None).is_empty());
            let next = MIB - 5000..2 * MIB - 5000;
            assert_eq!(cold.fresh(&file, &next), MIB..2 * MIB - 5000);
            assert_eq!(cold.fresh(&other, &next), next);
            assert!(cold.fresh(&file, &(5..100)).is_empty());
            assert!(cold.brought(&file, MIB..2 * MIB, Some(Rc::default())).is_empty());
            assert!(cold.fresh(&file, &next).is_empty(), "one noted range after the other");
        });
    }

    #[test]
    fn small_ranges_do_not_pile_up() {
        on_files(|file, _| {
            let mut cold = ColdRanges::default();
            for i in 0..3 * COLD_RANGES_MAX as u64 {
                drop(cold.brought(&file, i * 10..i * 10 + 10, None));
            }
            assert_eq!(cold.entries.len(), COLD_RANGES_MAX);
        });
    }
}
