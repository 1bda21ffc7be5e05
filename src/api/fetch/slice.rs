//! The records that one partition adds to a fetch answer: how many, and by which way they leave.
//!
//! A slice keeps its file open until it is sent, and a client may be slow to take it. So an answer holds only so many
//! files: in one that covers more partitions, the rest of the small slices are copied, which costs no more than sending
//! each by itself, and what exceeds that too is left for the next fetch.

use super::cold;
use crate::base::limits::{COLD_READ_BYTES_MAX, FETCH_COPIED_SLICE_BYTES_MAX, FETCH_COPY_BYTES_MAX, FETCH_FILES_MAX};
use crate::log::core::ReadSpan;
use crate::log::file::SegmentFile;
use crate::log::read::Missing;
use crate::log::segment::Segment;
use crate::partition::leader::Partition;
use crate::wire::encode::Pieces;
use crate::wire::reply::{FileSlice, Piece};
use std::io;
use std::rc::Rc;

/// What a partition has to add.
pub enum Next {
    Nothing,
    /// `is_cut`: a bound of ours, not one of the request's, kept more of them back.
    Records {
        piece: Piece,
        is_cut: bool,
    },
    /// There are records, but this answer holds as much of them as it may.
    OtherFetch,
    /// The records must be read from disk.
    Cold {
        segment: Rc<Segment>,
        file: Rc<SegmentFile>,
        position: u64,
        length: usize,
        /// What may be read of the file.
        end: u64,
    },
    /// Where they are must be read from disk.
    Missing(Missing),
}

/// What is left of a fetch's limits for its next partition.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub max_bytes: usize,
    /// Nothing was found before: the first batch is sent even if it is larger than the limits.
    pub is_first: bool,
    pub used: Used,
}

/// What an answer holds so far, besides bytes on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    files: usize,
    copied_bytes: usize,
}

impl Used {
    pub fn note(&mut self, records: &Pieces) {
        for piece in records {
            match piece {
                Piece::File(_) => self.files += 1,
                Piece::Bytes(bytes) => self.copied_bytes += bytes.len(),
            }
        }
    }

    /// The way for `length` bytes that begin with a batch of `first_batch_bytes`. `can_open`: the file may be held open.
    fn way(&self, length: usize, first_batch_bytes: usize, can_open: impl FnOnce() -> bool) -> Way {
        if (self.files < FETCH_FILES_MAX || length > FETCH_COPIED_SLICE_BYTES_MAX) && can_open() {
            return Way::Slice;
        }
        let is_first = self.files == 0 && self.copied_bytes == 0;
        let room = FETCH_COPY_BYTES_MAX.saturating_sub(self.copied_bytes);
        let copied = length.min(if is_first { room.max(first_batch_bytes) } else { room });
        if copied < first_batch_bytes { Way::OtherFetch } else { Way::Copy(copied) }
    }
}

/// How records leave for the client; a copy may be of fewer bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Slice,
    Copy(usize),
    OtherFetch,
}

/// The next records of a partition, of which `span` can be read.
pub fn next_records(partition: &Rc<Partition>, span: &ReadSpan, room: Room) -> io::Result<Next> {
    let first_batch_bytes = span.first_batch_bytes as usize;
    let available = (span.end - span.position) as usize;
    let least = if room.is_first { first_batch_bytes } else { 0 };
    let length = room.max_bytes.max(least).min(available);
    // Nothing rather than a part of the first batch: with records but no whole batch, Kafka's consumer fails.
    if length < first_batch_bytes {
        return Ok(Next::Nothing);
    }
    let files = partition.files();
    let way = room.used.way(length, first_batch_bytes, || files.has_room_for(&span.segment));
    if way == Way::OtherFetch {
        return Ok(Next::OtherFetch);
    }
    let file = files.file(&span.segment)?;
    let position = u64::from(span.position);
    if let Way::Copy(copied) = way {
        let mut copy = vec![0; copied];
        if file.read_cached(position, &mut copy)? == Some(copied) {
            return Ok(Next::Records { piece: Piece::Bytes(copy.into()), is_cut: copied < length });
        }
    } else if partition.is_hot(span) {
        return Ok(Next::Records { piece: Piece::File(FileSlice { file, position, length }), is_cut: false });
    } else if file.is_cached(position, length) {
        cold::used(partition, &file, (position..position + length as u64, u64::from(span.end)));
        return Ok(Next::Records { piece: Piece::File(FileSlice { file, position, length }), is_cut: false });
    }
    Ok(Next::Cold {
        segment: Rc::clone(&span.segment),
        file,
        position,
        length: length.min(COLD_READ_BYTES_MAX.max(first_batch_bytes)),
        end: u64::from(span.end),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand partitions, or files that others keep open, must not cost a descriptor each.
    #[test]
    fn an_answer_holds_few_files_and_copies_little() {
        let mut used = Used::default();
        let (mut slices, mut copied, mut left) = (0, 0, 0);
        for _ in 0..10_000 {
            match used.way(1000, 100, || true) {
                Way::Slice => {
                    slices += 1;
                    used.files += 1;
                }
                Way::Copy(length) => {
                    assert!((100..=1000).contains(&length));
                    copied += length;
                    used.copied_bytes += length;
                }
                Way::OtherFetch => left += 1,
            }
        }
        assert_eq!(slices, FETCH_FILES_MAX);
        assert!(copied <= FETCH_COPY_BYTES_MAX && copied > FETCH_COPY_BYTES_MAX - 1000);
        assert!(left > 0);
    }

    #[test]
    fn large_slices_are_not_copied_while_files_may_be_opened() {
        let used = Used { files: FETCH_FILES_MAX, copied_bytes: 0 };
        assert_eq!(used.way(1 << 20, 100, || true), Way::Slice);
        assert_eq!(used.way(2 << 20, 100, || false), Way::Copy(FETCH_COPY_BYTES_MAX));
    }

    #[test]
    fn without_a_file_to_hold_the_first_batch_still_leaves_whole() {
        let large = FETCH_COPY_BYTES_MAX + 1;
        assert_eq!(Used::default().way(large, large, || false), Way::Copy(large));
        let used = Used { files: 1, copied_bytes: 0 };
        assert_eq!(used.way(large, large, || false), Way::OtherFetch);
    }
}
