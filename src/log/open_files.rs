//! What the segments of a shard hold open, kept within budgets: descriptors, and indexes of sealed segments in memory.
//! The ones unused for longest are given back.

use super::cold::ColdRanges;
use super::file::SegmentFile;
use super::segment::Segment;
use crate::base::faults::Faults;
use crate::base::limits::SEALED_INDEX_BYTES_MAX;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::{Rc, Weak};

/// Files that are looked at to close one: where thousands are in use, the core is not kept for long.
const LOOKED_AT_MAX: usize = 1024;

/// Open segment files of one shard, oldest first; a second chance is given to those used since they were last looked at.
pub struct OpenFiles {
    /// What readers of cold data brought into memory.
    pub cold: RefCell<ColdRanges>,
    budget: usize,
    faults: Faults,
    open: RefCell<VecDeque<Weak<Segment>>>,
    /// Sealed segments whose indexes were read, with the bytes that they take.
    indexed: RefCell<VecDeque<(Weak<Segment>, usize)>>,
}

impl OpenFiles {
    /// `budget`: descriptors that may be open at once, at least 1.
    pub fn new(budget: usize) -> OpenFiles {
        let budget = budget.max(1);
        OpenFiles {
            cold: RefCell::default(),
            budget,
            faults: Faults::default(),
            open: RefCell::default(),
            indexed: RefCell::default(),
        }
    }

    pub fn with(self, faults: Faults) -> OpenFiles {
        OpenFiles { faults, ..self }
    }

    /// The segment's open file.
    pub fn file(&self, segment: &Rc<Segment>) -> io::Result<Rc<SegmentFile>> {
        if segment.is_open() {
            return segment.file(&self.faults);
        }
        self.make_room();
        let file = segment.file(&self.faults)?;
        self.open.borrow_mut().push_back(Rc::downgrade(segment));
        Ok(file)
    }

    /// Opens a segment's file under a name that is not its own yet.
    pub fn open_as(&self, segment: &Rc<Segment>, path: &Path) -> io::Result<Rc<SegmentFile>> {
        self.make_room();
        let file = segment.open_as(path, &self.faults)?;
        self.open.borrow_mut().push_back(Rc::downgrade(segment));
        Ok(file)
    }

    /// Whether the segment's file is open or can be opened within the budget.
    pub fn has_room_for(&self, segment: &Segment) -> bool {
        if !segment.is_open() {
            self.make_room();
        }
        segment.is_open() || self.open.borrow().len() < self.budget
    }

    /// A sealed segment's indexes were read into memory: those of others go until all of them fit the bound.
    pub fn indexes_loaded(&self, segment: &Rc<Segment>) {
        let mut indexed = self.indexed.borrow_mut();
        indexed.push_back((Rc::downgrade(segment), segment.index_bytes()));
        let mut bytes: usize = indexed.iter().map(|(_, bytes)| bytes).sum();
        let mut looked_at = 0;
        let most = 2 * indexed.len();
        while bytes > SEALED_INDEX_BYTES_MAX && indexed.len() > 1 && looked_at < most {
            looked_at += 1;
            let Some((oldest, size)) = indexed.pop_front() else { return };
            match oldest.upgrade() {
                Some(other) if Rc::ptr_eq(&other, segment) || other.take_indexes_used() => {
                    indexed.push_back((oldest, size));
                    continue;
                }
                Some(other) => other.drop_indexes(),
                None => {}
            }
            bytes -= size;
        }
    }

    /// More files are open than should be: whoever has written to one is to sync it, so that it can be closed.
    pub fn is_over_budget(&self) -> bool {
        self.open.borrow().len() > self.budget
    }

    /// Closes files until one more fits; those in use stay open, even beyond the budget, and so do files with data that no flush
    /// has covered: a write-back that fails while nobody has the file open may never be reported.
    fn make_room(&self) {
        let mut open = self.open.borrow_mut();
        let mut looked_at = 0;
        let most = LOOKED_AT_MAX.min(2 * open.len());
        while open.len() >= self.budget && looked_at < most {
            looked_at += 1;
            let Some(oldest) = open.pop_front() else { return };
            let Some(segment) = oldest.upgrade() else { continue };
            let wanted = segment.take_used() || (segment.is_dirty() && !segment.is_removed());
            if segment.is_open() && (wanted || !segment.close_if_unused()) {
                open.push_back(oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Offset;

    #[test]
    fn the_least_used_files_are_closed() {
        tokio_uring::start(async {
            let dir = tempfile::tempdir().expect("temporary directory");
            let segments: Vec<_> =
                (0..6).map(|base| Rc::new(Segment::new(Rc::from(dir.path()), Offset(base), 0))).collect();
            for segment in &segments {
                std::fs::write(segment.path(crate::log::paths::LOG), b"").expect("made");
            }
            let files = OpenFiles::new(3);
            let held = files.file(&segments[0]).expect("open");
            for segment in &segments[1..] {
                files.file(segment).expect("open");
                assert!(segments.iter().filter(|s| s.is_open()).count() <= 3);
            }
            assert!(segments[0].is_open(), "a file in use is not closed");
            drop(held);
        });
    }

    /// A segment that retention had removed was made again, empty, by whoever still wanted to read or sync it.
    #[test]
    fn a_missing_file_is_not_made_again() {
        tokio_uring::start(async {
            let dir = tempfile::tempdir().expect("temporary directory");
            let segment = Rc::new(Segment::new(Rc::from(dir.path()), Offset(0), 0));
            assert!(OpenFiles::new(3).file(&segment).is_err());
            assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
        });
    }

    /// They were closed when there were no others, and a write-back that failed afterwards was told to nobody.
    #[test]
    fn unflushed_files_stay_open_whatever_the_budget() {
        tokio_uring::start(async {
            let dir = tempfile::tempdir().expect("temporary directory");
            let segments: Vec<_> =
                (0..4).map(|base| Rc::new(Segment::new(Rc::from(dir.path()), Offset(base), 0))).collect();
            let files = OpenFiles::new(2);
            for segment in &segments {
                std::fs::write(segment.path(crate::log::paths::LOG), b"").expect("made");
            }
            segments[0].set_dirty(true);
            for segment in &segments[..3] {
                files.file(segment).expect("open");
            }
            assert!(segments[0].is_open() && !segments[1].is_open());
            segments[2].set_dirty(true);
            files.file(&segments[3]).expect("open");
            assert!(segments[0].is_open() && segments[2].is_open() && files.is_over_budget());
            segments[0].set_dirty(false);
            files.file(&segments[1]).expect("open");
            assert!(!segments[0].is_open(), "a flush has covered it");
        });
    }
}
