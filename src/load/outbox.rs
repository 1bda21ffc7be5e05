//! What a connection has yet to send: bytes of its own, and batches that all connections share. Pure.
//!
//! Small requests are copied one behind the other and leave with one write. Large batches stay where they are: one copy of a batch,
//! warm in the cache, serves every connection of a thread.

use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

/// Slices of one write.
const SLICES_MAX: usize = 128;

pub type Slices<'o> = SmallVec<[IoSlice<'o>; SLICES_MAX]>;

#[derive(Default)]
pub struct Outbox {
    copied: Vec<u8>,
    pieces: VecDeque<Piece>,
    bytes: usize,
}

enum Piece {
    /// Of `copied`.
    Copied(Range<usize>),
    Shared(Bytes),
}

impl Outbox {
    /// Bytes that are not written yet.
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let begin = self.copied.len();
        self.copied.extend_from_slice(bytes);
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Copied(range)) => range.end = self.copied.len(),
            _ => self.pieces.push_back(Piece::Copied(begin..self.copied.len())),
        }
    }

    pub fn share(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.pieces.push_back(Piece::Shared(bytes));
        }
    }

    /// What to write next, in order: all of it, unless that would be too many slices.
    pub fn slices(&self) -> Slices<'_> {
        let slice = |piece| match piece {
            &Piece::Copied(Range { start, end }) => IoSlice::new(&self.copied[start..end]),
            Piece::Shared(bytes) => IoSlice::new(bytes),
        };
        self.pieces.iter().take(SLICES_MAX).map(slice).collect()
    }

    /// So many bytes were written.
    pub fn written(&mut self, mut bytes: usize) {
        assert!(bytes <= self.bytes, "no more is written than was there");
        self.bytes -= bytes;
        while bytes > 0 {
            let piece = self.pieces.front_mut().expect("invariant: pieces hold what is not written");
            let length = match piece {
                Piece::Copied(range) => range.len(),
                Piece::Shared(shared) => shared.len(),
            };
            if length <= bytes {
                self.pieces.pop_front();
                bytes -= length;
                continue;
            }
            match piece {
                Piece::Copied(range) => range.start += bytes,
                Piece::Shared(shared) => *shared = shared.slice(bytes..),
            }
            bytes = 0;
        }
        if self.pieces.is_empty() {
            self.copied.clear();
        }
    }

    /// Everything, in order.
    #[cfg(test)]
    pub fn gathered(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Copied(range) => all.extend_from_slice(&self.copied[range.clone()]),
                Piece::Shared(bytes) => all.extend_from_slice(bytes),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_however_writes_end(
            pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..300),
            writes in proptest::collection::vec(1usize..100, 1..20),
        ) {
            let mut outbox = Outbox::default();
            for (shared, bytes) in &pieces {
                match shared {
                    true => outbox.share(Bytes::copy_from_slice(bytes)),
                    false => outbox.copy(bytes),
                }
            }
            let wanted: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            prop_assert_eq!(outbox.len(), wanted.len());
            prop_assert_eq!(&outbox.gathered(), &wanted);
            let mut sent = Vec::new();
            for turn in 0.. {
                let offered: Vec<u8> = outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                if offered.is_empty() {
                    break;
                }
                let written = writes[turn % writes.len()].min(offered.len());
                sent.extend_from_slice(&offered[..written]);
                outbox.written(written);
            }
            prop_assert_eq!(sent, wanted);
            prop_assert!(outbox.is_empty() && outbox.copied.is_empty());
        }
    }
}
