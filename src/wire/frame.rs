//! Requests out of a receive buffer: the frame around each one, and the header at its start.
//!
//! ```text
//! +--------+---------+---------+----------------+-----------+-----------------+------+
//! | size   | api key | version | correlation id | client id | tagged fields   | body |
//! | i32    | i16     | i16     | i32            | i16 + n   | header v2 only  |      |
//! +--------+---------+---------+----------------+-----------+-----------------+------+
//!          |<------------------------------ size bytes ----------------------------->|
//! ```

use super::cursor::Cursor;
use crate::base::limits::CLIENT_ID_BYTES_MAX;
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;
use thiserror::Error;

/// Bytes of the size that stands before each frame.
pub const FRAME_SIZE_BYTES: usize = 4;

/// A size that no well-behaved client sends. The connection is to be closed, as Kafka does: where the next frame
/// would start is unknown.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum FrameError {
    #[error("the client announced a request of {size} bytes, which cannot be")]
    NegativeSize { size: i32 },
    #[error("the client announced a request of {size} bytes; socket.request.max.bytes allows {max}")]
    TooLarge { size: i32, max: usize },
}

/// A request whose header cannot be understood. The connection is to be closed, as Kafka does.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum HeaderError {
    #[error("the request ends within its header, after {length} bytes")]
    Truncated { length: usize },
    #[error("API key {key} (version {version}) is not known")]
    UnknownApi { key: i16, version: i16 },
}

/// One request: its header, and its body as it stands on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
    /// A slice of the frame where it is UTF-8 (keeping it keeps the whole frame in memory).
    pub client_id: Option<StrBytes>,
    /// Not yet checked by `guard::check`.
    pub body: Bytes,
}

/// Takes the next whole frame (without its size) off the front of `buffer`; no bytes are copied.
///
/// `None` means that more bytes are needed: `missing_bytes` of them. `max_bytes` is `socket.request.max.bytes`.
/// A size is refused as soon as its four bytes are there, before memory is given to it.
pub fn next_frame(buffer: &mut BytesMut, max_bytes: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(size) = announced_size(buffer) else {
        return Ok(None);
    };
    let Ok(length) = usize::try_from(size) else {
        return Err(FrameError::NegativeSize { size });
    };
    if length > max_bytes {
        return Err(FrameError::TooLarge { size, max: max_bytes });
    }
    if buffer.len() - FRAME_SIZE_BYTES < length {
        return Ok(None);
    }
    buffer.advance(FRAME_SIZE_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// How many bytes must still arrive before `next_frame` can say more than `None`; 0 if it can already.
///
/// This is what the sender claims: reserve it in steps, so that memory follows what was really sent.
pub fn missing_bytes(buffer: &BytesMut) -> usize {
    let wanted = match announced_size(buffer) {
        Some(size) => FRAME_SIZE_BYTES + usize::try_from(size).unwrap_or(0),
        None => FRAME_SIZE_BYTES,
    };
    wanted.saturating_sub(buffer.len())
}

/// Splits a frame into its header and its body.
///
/// The header's version follows from API and version (KIP-482). ApiVersions is understood in versions that do not
/// exist yet, so that it can be answered with UNSUPPORTED_VERSION (KIP-511); whether a version is served at all is
/// for the caller to decide.
pub fn decode_header(frame: Bytes) -> Result<Incoming, HeaderError> {
    let mut cursor = Cursor::new(&frame);
    let truncated = HeaderError::Truncated { length: frame.len() };
    let (Some(key), Some(version)) = (cursor.i16(), cursor.i16()) else {
        return Err(truncated);
    };
    let Ok(api) = ApiKey::try_from(key) else {
        return Err(HeaderError::UnknownApi { key, version });
    };
    let tagged = api.request_header_version(version) >= 2;
    let Some((correlation_id, client_id)) = rest_of_header(&mut cursor, tagged) else {
        return Err(truncated);
    };
    let body = frame.slice(cursor.position()..);
    let client_id = client_id.map(|range| text(frame.slice(range)));
    Ok(Incoming { key, version, correlation_id, client_id, body })
}

fn announced_size(buffer: &BytesMut) -> Option<i32> {
    buffer.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

/// Correlation id and where the client id stands; the tagged fields are skipped, for none is defined yet.
fn rest_of_header(cursor: &mut Cursor, tagged: bool) -> Option<(i32, Option<std::ops::Range<usize>>)> {
    let correlation_id = cursor.i32()?;
    let client_id = match usize::try_from(cursor.i16()?) {
        // Any negative length is null to Kafka.
        Err(_) => None,
        Ok(length) => {
            let start = cursor.position();
            cursor.skip(length)?;
            Some(start..cursor.position())
        }
    };
    if tagged {
        for _ in 0..cursor.uvarint()? {
            cursor.uvarint()?;
            let size = cursor.uvarint()?;
            cursor.skip(size as usize)?;
        }
    }
    Some((correlation_id, client_id))
}

/// Bytes that are not UTF-8 are replaced, as Java does, and what is too long is cut: a client's name is no reason to refuse it.
fn text(bytes: Bytes) -> StrBytes {
    let text = StrBytes::from_utf8(bytes.clone())
        .unwrap_or_else(|_| StrBytes::from_string(String::from_utf8_lossy(&bytes).into_owned()));
    match text.len() > CLIENT_ID_BYTES_MAX {
        true => StrBytes::from_string(text[..text.floor_char_boundary(CLIENT_ID_BYTES_MAX)].to_owned()),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use kafka_protocol::messages::RequestHeader;
    use kafka_protocol::protocol::Encodable;
    use proptest::prelude::*;

    const MAX: usize = 1000;

    fn framed(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as i32).to_be_bytes(), payload].concat()
    }

    #[test]
    fn a_size_is_judged_before_its_bytes_arrive() {
        let mut negative = BytesMut::from(&(-1i32).to_be_bytes()[..]);
        assert_eq!(next_frame(&mut negative, MAX), Err(FrameError::NegativeSize { size: -1 }));
        let mut large = BytesMut::from(&1001i32.to_be_bytes()[..]);
        assert_eq!(next_frame(&mut large, MAX), Err(FrameError::TooLarge { size: 1001, max: MAX }));
        let mut largest = BytesMut::from(&1000i32.to_be_bytes()[..]);
        assert_eq!(next_frame(&mut largest, MAX), Ok(None));
        assert_eq!(missing_bytes(&largest), 1000);
        assert_eq!(missing_bytes(&BytesMut::from(&[0u8][..])), 3);
    }

    proptest! {
        /// However the network cuts the stream, the same frames come out, and `missing_bytes` is exact.
        #[test]
        fn frames_survive_any_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8),
            chunk in 1usize..70,
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for part in stream.chunks(chunk) {
                buffer.put_slice(part);
                while let Some(frame) = next_frame(&mut buffer, MAX).expect("sizes are honest") {
                    frames.push(frame.to_vec());
                }
                prop_assert!(missing_bytes(&buffer) > 0);
            }
            prop_assert_eq!(frames, payloads);
            prop_assert!(buffer.is_empty());
        }

        /// What the codec encodes is what comes out, in header versions 1 and 2.
        #[test]
        fn headers_come_back(
            api in prop::sample::select(ApiKey::iter().collect::<Vec<_>>()),
            version in 0i16..14,
            correlation_id: i32,
            client_id in prop::option::of(".{0,20}"),
            tag in prop::option::of((0i32..1000, prop::collection::vec(any::<u8>(), 0..9))),
            body in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let header_version = api.request_header_version(version);
            let mut header = RequestHeader::default()
                .with_request_api_key(api as i16)
                .with_request_api_version(version)
                .with_correlation_id(correlation_id)
                .with_client_id(client_id.map(StrBytes::from_string));
            if let Some((tag, value)) = tag && header_version >= 2 {
                header = header.with_unknown_tagged_field(tag, Bytes::from(value));
            }
            let mut frame = BytesMut::new();
            header.encode(&mut frame, header_version).expect("a header");
            let header_bytes = frame.len();
            frame.put_slice(&body);
            let frame = frame.freeze();
            for cut in 0..header_bytes {
                prop_assert_eq!(decode_header(frame.slice(..cut)), Err(HeaderError::Truncated { length: cut }));
            }
            let incoming = decode_header(frame).expect("a whole header");
            prop_assert_eq!((incoming.key, incoming.version), (api as i16, version));
            prop_assert_eq!(incoming.correlation_id, correlation_id);
            prop_assert_eq!(incoming.client_id, header.client_id);
            prop_assert_eq!(&incoming.body[..], &body[..]);
        }

        #[test]
        fn no_bytes_make_it_panic(frame in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode_header(Bytes::from(frame));
        }
    }

    #[test]
    fn a_future_api_versions_request_can_still_be_answered() {
        // Key 18, version 99, correlation id 7, client "c", no tags, a body of unknown shape.
        let frame = [0, 18, 0, 99, 0, 0, 0, 7, 0, 1, b'c', 0, 0xee, 0xff];
        let incoming = decode_header(Bytes::copy_from_slice(&frame)).expect("understood");
        assert_eq!((incoming.key, incoming.version, incoming.correlation_id), (18, 99, 7));
        assert_eq!(&incoming.body[..], [0xee, 0xff]);
    }

    #[test]
    fn odd_headers() {
        assert_eq!(decode_header(Bytes::new()), Err(HeaderError::Truncated { length: 0 }));
        let unknown = [0x7f, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff];
        assert_eq!(
            decode_header(Bytes::copy_from_slice(&unknown)),
            Err(HeaderError::UnknownApi { key: 0x7f00, version: 1 })
        );
        // A client id that is not UTF-8, and one that is null.
        let odd = [0, 3, 0, 1, 0, 0, 0, 7, 0, 2, 0xff, b'x'];
        let client_id = decode_header(Bytes::copy_from_slice(&odd)).expect("accepted").client_id;
        assert_eq!(client_id.as_deref(), Some("\u{fffd}x"));
        // Replaced bytes take more room than they had.
        let long = [&[0, 3, 0, 1, 0, 0, 0, 7, 0x7f, 0xff][..], &[0xff; 0x7fff]].concat();
        let client_id = decode_header(Bytes::from(long)).expect("accepted").client_id.expect("one");
        assert!((CLIENT_ID_BYTES_MAX - 3..=CLIENT_ID_BYTES_MAX).contains(&client_id.len()), "{}", client_id.len());
        let null = [0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff];
        assert_eq!(decode_header(Bytes::copy_from_slice(&null)).expect("accepted").client_id, None);
    }
}
