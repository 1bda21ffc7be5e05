//! A reply as the connection sends it: bytes, and slices of files that never pass through user space.

use bytes::Bytes;
use smallvec::SmallVec;
use std::os::fd::AsFd;
use std::rc::Rc;

/// `length` bytes of `file` from `position` on; the file stays open while the slice lives.
#[derive(Clone)]
pub struct FileSlice {
    pub file: Rc<dyn AsFd>,
    pub position: u64,
    pub length: usize,
}

/// One piece of a reply, sent in order.
#[derive(Clone)]
pub enum Piece {
    Bytes(Bytes),
    File(FileSlice),
}

/// One whole response frame, its 4-byte length included.
#[derive(Clone, Debug, Default)]
pub struct ReplyFrame {
    pub pieces: SmallVec<[Piece; 3]>,
}

impl Piece {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::File(slice) => slice.length,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ReplyFrame {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes of memory that it holds until it is sent: its bytes, and its list of pieces where that is not within the
    /// frame itself. A fetch of very many partitions has a piece for each.
    pub fn memory(&self) -> usize {
        let bytes = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::File(_) => 0,
        };
        let list = if self.pieces.spilled() { self.pieces.capacity() * size_of::<Piece>() } else { 0 };
        self.pieces.iter().map(bytes).sum::<usize>() + list
    }
}

impl From<Bytes> for ReplyFrame {
    fn from(bytes: Bytes) -> Self {
        ReplyFrame { pieces: SmallVec::from_iter([Piece::Bytes(bytes)]) }
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Piece::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Piece::File(slice) => write!(f, "File({} at {})", slice.length, slice.position),
        }
    }
}
