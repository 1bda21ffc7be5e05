//! The descriptors of a shard's segments, kept within a budget: the ones unused for longest are closed.

use super::file::SegmentFile;
use super::segment::Segment;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};

/// Open segment files of one shard, oldest first; a second chance is given to those used since they were last looked at.
pub struct OpenFiles {
    budget: usize,
    open: RefCell<VecDeque<Weak<Segment>>>,
}

impl OpenFiles {
    /// `budget`: descriptors that may be open at once, at least 1.
    pub fn new(budget: usize) -> OpenFiles {
        OpenFiles { budget: budget.max(1), open: RefCell::new(VecDeque::new()) }
    }

    /// The segment's open file.
    pub fn file(&self, segment: &Rc<Segment>) -> io::Result<Rc<SegmentFile>> {
        if segment.is_open() {
            return segment.file();
        }
        self.make_room();
        let file = segment.file()?;
        self.open.borrow_mut().push_back(Rc::downgrade(segment));
        Ok(file)
    }

    /// Closes files until one more fits; those in use stay open, even beyond the budget.
    fn make_room(&self) {
        let mut open = self.open.borrow_mut();
        let mut looked_at = 0;
        let most = 2 * open.len();
        while open.len() >= self.budget && looked_at < most {
            looked_at += 1;
            let Some(oldest) = open.pop_front() else { return };
            let Some(segment) = oldest.upgrade() else { continue };
            let keep = segment.is_open() && (segment.take_used() || !segment.close_if_unused());
            if keep {
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
}
