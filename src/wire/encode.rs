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
    frame.pieces.reserve(2 * cuts.len() + 1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::reply::FileSlice;
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::{ApiVersionsResponse, FetchResponse, MetadataResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::rc::Rc;

    /// One partition's records: null, or the lengths of the pieces they come in, true for pieces from the file.
    type Records = Option<Vec<(bool, usize)>>;

    fn records() -> impl Strategy<Value = Records> {
        let length = prop_oneof![Just(0usize), 1..200usize, 200..20_000usize];
        prop::option::weighted(0.9, prop::collection::vec((any::<bool>(), length), 0..4))
    }

    /// All that a client would receive, files read as sendfile would.
    fn flat(frame: &ReplyFrame) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in &frame.pieces {
            match piece {
                Piece::Bytes(bytes) => all.extend_from_slice(bytes),
                Piece::File(slice) => {
                    let file = File::from(slice.file.as_fd().try_clone_to_owned().expect("a descriptor"));
                    let mut bytes = vec![0; slice.length];
                    file.read_exact_at(&mut bytes, slice.position).expect("within the file");
                    all.extend_from_slice(&bytes);
                }
            }
        }
        all
    }

    fn response(
        version: i16,
        topics: &[Vec<Records>],
        mut records: impl FnMut(&[(bool, usize)]) -> Bytes,
    ) -> FetchResponse {
        let topics = topics.iter().enumerate().map(|(number, partitions)| {
            let partitions = partitions.iter().enumerate().map(|(index, lengths)| {
                PartitionData::default()
                    .with_partition_index(index as i32)
                    .with_high_watermark(number as i64)
                    .with_records(lengths.as_deref().map(&mut records))
            });
            let topic = FetchableTopicResponse::default().with_partitions(partitions.collect());
            match version {
                13.. => topic.with_topic_id(uuid::Uuid::from_u128(number as u128 + 1)),
                _ => topic.with_topic(TopicName(StrBytes::from_string(format!("topic-{number}")))),
            }
        });
        FetchResponse::default().with_responses(topics.collect())
    }

    /// A file of bytes that differ from place to place.
    fn segment() -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&content).expect("written");
        (file, content)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn slices_give_the_very_bytes_of_plain_encoding(
            version in 4i16..18,
            correlation_id: i32,
            topics in prop::collection::vec(prop::collection::vec(records(), 0..5), 0..4),
        ) {
            let (file, content) = segment();
            let file: Rc<dyn std::os::fd::AsFd> = Rc::new(file);
            let mut position = 0;
            let mut slices = Vec::new();
            let plain = response(version, &topics, |lengths| {
                let mut whole = Vec::new();
                let mut pieces = Pieces::new();
                for &(from_file, length) in lengths {
                    position = (position + 7919) % (content.len() - length);
                    let bytes = &content[position..position + length];
                    whole.extend_from_slice(bytes);
                    pieces.push(match from_file {
                        true => Piece::File(FileSlice { file: file.clone(), position: position as u64, length }),
                        false => Piece::Bytes(Bytes::copy_from_slice(bytes)),
                    });
                }
                if !whole.is_empty() {
                    slices.push(pieces);
                }
                Bytes::from(whole)
            });
            let held = response(version, &topics, |lengths| placeholder(lengths.iter().map(|(_, length)| length).sum()));
            let expected = flat(&encode(version, correlation_id, &plain).expect("encoded"));
            let frame = encode_with_slices(version, correlation_id, &held, slices).expect("encoded with slices");
            prop_assert_eq!(frame.len(), expected.len());
            prop_assert!(frame.pieces.iter().all(|piece| !piece.is_empty()));
            prop_assert!(flat(&frame) == expected);
            let size = i32::from_be_bytes(expected[..4].try_into().expect("four bytes"));
            prop_assert_eq!(size as usize, expected.len() - 4);
        }
    }

    #[test]
    fn headers_follow_api_and_version() {
        let header_bytes = |frame: ReplyFrame, body: usize| frame.len() - 4 - body;
        let versions = ApiVersionsResponse::default();
        let body = versions.compute_size(3).expect("a size");
        assert_eq!(header_bytes(encode(3, 1, &versions).expect("encoded"), body), 4);
        let metadata = MetadataResponse::default();
        for (version, header) in [(8, 4), (9, 5)] {
            let body = metadata.compute_size(version).expect("a size");
            assert_eq!(header_bytes(encode(version, 1, &metadata).expect("encoded"), body), header);
        }
    }

    #[test]
    fn pieces_that_do_not_fit_are_refused_not_sent() {
        let topics = vec![vec![Some(vec![(false, 10)]), Some(vec![(false, 20)])]];
        let held = response(4, &topics, |lengths| placeholder(lengths[0].1));
        let pieces = |length: usize| Pieces::from_iter([Piece::Bytes(Bytes::from(vec![0; length]))]);
        let encode = |slices: Vec<Pieces>| encode_with_slices(4, 1, &held, slices);
        assert!(encode(vec![pieces(10), pieces(20)]).is_ok());
        assert!(matches!(encode(vec![pieces(10)]), Err(EncodeError::PieceCount { expected: 2 })));
        assert!(matches!(
            encode(vec![pieces(10), pieces(20), pieces(1)]),
            Err(EncodeError::PieceCount { expected: 2 })
        ));
        assert!(matches!(
            encode(vec![pieces(10), pieces(21)]),
            Err(EncodeError::PieceLength { index: 1, expected: 20, found: 21 })
        ));
    }

    #[test]
    fn frames_longer_than_the_protocol_allows_are_refused() {
        prepare().expect("address space");
        let topics = vec![vec![Some(vec![]), Some(vec![])]];
        let held = response(11, &topics, |_| placeholder(PLACEHOLDER_BYTES_MAX - 10));
        assert!(matches!(encode_with_slices(11, 1, &held, []), Err(EncodeError::TooLong { .. })));
    }

    #[test]
    fn a_field_that_the_version_does_not_have_is_our_fault_and_told() {
        let response = MetadataResponse::default().with_cluster_id(Some(StrBytes::from_static_str("c")));
        let error = encode(99, 1, &response).expect_err("no such version");
        assert!(matches!(error, EncodeError::Message { version: 99, .. }), "{error}");
    }
}
