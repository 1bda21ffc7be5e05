//! Responses into frames: bytes, or bytes with slices of files between them.
//!
//! A fetch response carries its records last, deep inside the encoded message. To send them by sendfile, the message
//! is encoded with placeholders where records belong: slices of one big mapping that nobody reads. The buffer that the
//! codec writes into recognises their address, notes a cut instead of copying, and the cuts are filled with the
//! caller's pieces. Every other byte, lengths included, is what plain encoding gives.

use super::frame::FRAME_SIZE_BYTES;
use super::reply::{Piece, ReplyFrame};
use bytes::buf::UninitSlice;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::protocol::buf::ByteBufMut;
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::OnceLock;
use thiserror::Error;

/// What stands for one placeholder, in order: usually one slice of one segment.
pub type Pieces = SmallVec<[Piece; 1]>;

/// The longest that one placeholder can be, in bytes: the protocol's own bound for records.
pub const PLACEHOLDER_BYTES_MAX: usize = i32::MAX as usize;

/// A response that cannot be put on the wire. All of these are our own faults, never the client's.
#[derive(Debug, Error)]
pub enum EncodeError {
    #[error("a response of version {version} cannot be encoded: {source}")]
    Message { version: i16, source: anyhow::Error },
    #[error("a response of {length} bytes is longer than a frame can be")]
    TooLong { length: usize },
    #[error("placeholder {index} holds {expected} bytes, its pieces hold {found}")]
    PieceLength { index: usize, expected: usize, found: usize },
    #[error("the response has {expected} placeholders, but pieces for another number")]
    PieceCount { expected: usize },
}

/// One frame: its length, the response header that belongs to `R` in `version` (v0 always for ApiVersions, KIP-511),
/// the response.
pub fn encode<R>(version: i16, correlation_id: i32, response: &R) -> Result<ReplyFrame, EncodeError>
where
    R: Encodable + HeaderVersion,
{
    let mut bytes = BytesMut::with_capacity(SMALL_FRAME_BYTES);
    write_message(&mut bytes, version, correlation_id, response)?;
    set_frame_length(&mut bytes, 0)?;
    Ok(ReplyFrame::from(bytes.freeze()))
}

/// As `encode`, with the placeholders in `response` replaced, in the order in which they are encoded, by `slices`:
/// one item for each placeholder that is not empty, of the same length.
pub fn encode_with_slices<R>(
    version: i16,
    correlation_id: i32,
    response: &R,
    slices: impl IntoIterator<Item = Pieces>,
) -> Result<ReplyFrame, EncodeError>
where
    R: Encodable + HeaderVersion,
{
    let mut buffer = CutBuffer::new();
    write_message(&mut buffer, version, correlation_id, response)?;
    let cut_bytes = buffer.cuts.iter().map(|cut| cut.length).sum();
    set_frame_length(&mut buffer.bytes, cut_bytes)?;
    fill_cuts(buffer, slices)
}

/// Stands for `len` bytes of records in a response for `encode_with_slices`. Only its length matters.
///
/// # Panics
/// If `len` is above `PLACEHOLDER_BYTES_MAX`, or the process has no 2 GiB of address space left (see `prepare`).
pub fn placeholder(len: usize) -> Bytes {
    let mapping = mapping().expect("address space for placeholders, which `prepare` checks at start");
    Bytes::from_static(&mapping[..len])
}

/// Maps the address range of placeholders, so that a lack of address space (`ulimit -v`) stops the start of the
/// process and not its first fetch. No memory is used: nothing reads or writes there.
pub fn prepare() -> std::io::Result<()> {
    mapping().map(|_| ()).map_err(std::io::Error::from)
}

/// Room for answers of small requests without growing.
const SMALL_FRAME_BYTES: usize = 256;

fn write_message<R, B>(buffer: &mut B, version: i16, correlation_id: i32, response: &R) -> Result<(), EncodeError>
where
    R: Encodable + HeaderVersion,
    B: ByteBufMut,
{
    let failed = |source| EncodeError::Message { version, source };
    buffer.put_bytes(0, FRAME_SIZE_BYTES);
    ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .encode(buffer, R::header_version(version))
        .map_err(failed)?;
    response.encode(buffer, version).map_err(failed)
}

/// Writes the length into the gap left for it; `elsewhere` counts the bytes that come from slices.
fn set_frame_length(bytes: &mut BytesMut, elsewhere: usize) -> Result<(), EncodeError> {
    let length = bytes.len() - FRAME_SIZE_BYTES + elsewhere;
    let Ok(size) = i32::try_from(length) else {
        return Err(EncodeError::TooLong { length });
    };
    bytes[..FRAME_SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
    Ok(())
}

fn fill_cuts(buffer: CutBuffer, slices: impl IntoIterator<Item = Pieces>) -> Result<ReplyFrame, EncodeError> {
    let CutBuffer { mut bytes, cuts, .. } = buffer;
    let count_differs = || EncodeError::PieceCount { expected: cuts.len() };
    let mut slices = slices.into_iter();
    let mut frame = ReplyFrame::default();
    let mut taken = 0;
    for (index, cut) in cuts.iter().enumerate() {
        let pieces = slices.next().ok_or_else(count_differs)?;
        let found = pieces.iter().map(Piece::len).sum();
        if found != cut.length {
            return Err(EncodeError::PieceLength { index, expected: cut.length, found });
        }
        frame.pieces.push(Piece::Bytes(bytes.split_to(cut.position - taken).freeze()));
        frame.pieces.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
        taken = cut.position;
    }
    if slices.next().is_some() {
        return Err(count_differs());
    }
    if !bytes.is_empty() {
        frame.pieces.push(Piece::Bytes(bytes.freeze()));
    }
    Ok(frame)
}

/// Bytes that are left out of the buffer, at `position` of it.
struct Cut {
    position: usize,
    length: usize,
}

/// What the codec writes into: copies everything but placeholders. Offsets count the bytes really held.
struct CutBuffer {
    bytes: BytesMut,
    cuts: SmallVec<[Cut; 4]>,
    /// Addresses of placeholders; empty while none was ever made.
    placeholders: Range<usize>,
}

impl CutBuffer {
    fn new() -> Self {
        let placeholders = match MAPPING.get() {
            Some(Ok(mapping)) => {
                let start = mapping.as_ptr().addr();
                start..start + mapping.len()
            }
            _ => 0..0,
        };
        CutBuffer { bytes: BytesMut::with_capacity(SMALL_FRAME_BYTES), cuts: SmallVec::new(), placeholders }
    }
}

// SAFETY: the three required methods are those of the inner BytesMut, which upholds the trait's contract; `put_slice`
// either is BytesMut's own too, or writes nothing.
unsafe impl BufMut for CutBuffer {
    fn remaining_mut(&self) -> usize {
        self.bytes.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: our caller makes the promise that BytesMut asks for.
        unsafe { self.bytes.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.bytes.chunk_mut()
    }

    #[inline]
    fn put_slice(&mut self, slice: &[u8]) {
        if self.placeholders.contains(&slice.as_ptr().addr()) && !slice.is_empty() {
            self.cuts.push(Cut { position: self.bytes.len(), length: slice.len() });
        } else {
            self.bytes.extend_from_slice(slice);
        }
    }
}

impl ByteBufMut for CutBuffer {
    fn offset(&self) -> usize {
        self.bytes.offset()
    }

    fn seek(&mut self, offset: usize) {
        self.bytes.seek(offset);
    }

    fn range(&mut self, range: Range<usize>) -> &mut [u8] {
        ByteBufMut::range(&mut self.bytes, range)
    }
}

static MAPPING: OnceLock<Result<&'static [u8], rustix::io::Errno>> = OnceLock::new();

fn mapping() -> Result<&'static [u8], rustix::io::Errno> {
    *MAPPING.get_or_init(|| {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nobody else's memory.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), PLACEHOLDER_BYTES_MAX, ProtFlags::READ, flags)? };
        // SAFETY: the mapping is readable, zero, never written and never unmapped, and at most isize::MAX bytes long.
        Ok(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), PLACEHOLDER_BYTES_MAX) })
    })
}
