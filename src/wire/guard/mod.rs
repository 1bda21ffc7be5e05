//! Looks through a message before it is decoded, so that no length in it can hurt: through the requests that come to a
//! broker (`check`), and through the answers that come to our own client (`check_response`).
//!
//! The codec reserves memory for as many elements as an array announces, before it has seen one: four hostile bytes
//! ask for 154 GB, and a failed allocation ends the process. The walk here follows the same layout (`schema`) and
//! allocates nothing. When it has reached the end, every announced element has been seen to exist, all of them
//! together are at most `REQUEST_ELEMENTS_MAX` (`RESPONSE_ELEMENTS_MAX`), and decoding takes memory only in proportion to
//! the frame.
//!
//! A further API is a table in `data`, `admin` or `groups`, and a line in `REQUESTS`; the decoder tests then hold it
//! against the codec by themselves, once `tests/decoder_fuzz` knows its request type. An answer's table is in `responses`.

mod admin;
mod data;
mod group_responses;
mod groups;
pub mod responses;
pub mod schema;

use super::cursor::Cursor;
use crate::base::limits::{REQUEST_ELEMENTS_MAX, RESPONSE_ELEMENTS_MAX};
use schema::{Field, Kind, Request, Response, Struct};
use thiserror::Error;

/// A message that must not be decoded.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum GuardError {
    #[error("API key {key} is not served")]
    UnknownApi { key: i16 },
    #[error("{api} is not served in version {version}")]
    UnsupportedVersion { api: &'static str, version: i16 },
    #[error("{api} of version {version}: {field} at byte {position} {fault}")]
    Malformed { api: &'static str, version: i16, field: &'static str, position: usize, fault: Fault },
}

/// What is wrong with one field.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    #[error("is cut off by the end of the message, or its length is no number")]
    Truncated,
    #[error("is null, which its type forbids")]
    Null,
    #[error("has a negative length")]
    NegativeLength,
    #[error("announces more elements than the message has bytes for")]
    MoreElementsThanBytes,
    #[error("takes the message over the number of array elements that is allowed")]
    TooManyElements,
    #[error("is tagged with a size that is not its own")]
    TagSize,
    #[error("is longer than {STRING_BYTES_MAX} bytes")]
    TooLong,
}

/// All that the guard knows, in no particular order.
pub static REQUESTS: [Request; 29] = [
    data::PRODUCE,
    data::FETCH,
    data::LIST_OFFSETS,
    data::METADATA,
    data::API_VERSIONS,
    data::INIT_PRODUCER_ID,
    data::OFFSET_FOR_LEADER_EPOCH,
    data::FIND_COORDINATOR,
    admin::CREATE_TOPICS,
    admin::DELETE_TOPICS,
    admin::CREATE_PARTITIONS,
    admin::DELETE_RECORDS,
    admin::DESCRIBE_CONFIGS,
    admin::ALTER_CONFIGS,
    admin::INCREMENTAL_ALTER_CONFIGS,
    admin::DESCRIBE_CLUSTER,
    admin::DESCRIBE_LOG_DIRS,
    groups::OFFSET_COMMIT,
    groups::OFFSET_FETCH,
    groups::OFFSET_DELETE,
    groups::JOIN_GROUP,
    groups::HEARTBEAT,
    groups::LEAVE_GROUP,
    groups::SYNC_GROUP,
    groups::DESCRIBE_GROUPS,
    groups::LIST_GROUPS,
    groups::DELETE_GROUPS,
    groups::CONSUMER_GROUP_HEARTBEAT,
    groups::CONSUMER_GROUP_DESCRIBE,
];

/// Whether `body` may be decoded as a request of this API and version. Bytes after its end are no fault, as in Kafka.
pub fn check(key: i16, version: i16, body: &[u8]) -> Result<(), GuardError> {
    walk(key, version, body).map(|_| ())
}

/// As `check`; tells at which byte the request ends.
pub fn walk(key: i16, version: i16, body: &[u8]) -> Result<usize, GuardError> {
    let Some(request) = request(key) else {
        return Err(GuardError::UnknownApi { key });
    };
    if version < request.version_min || version > request.version_max {
        return Err(GuardError::UnsupportedVersion { api: request.name, version });
    }
    match request.is_flexible(version) {
        true => Walk::<true>::new(version, body, REQUEST_ELEMENTS_MAX).over(request, false),
        false => Walk::<false>::new(version, body, REQUEST_ELEMENTS_MAX).over(request, false),
    }
}

/// Whether a frame (from its correlation id on) may be decoded as the answer to a request of this API and version.
pub fn check_response(key: i16, version: i16, frame: &[u8]) -> Result<(), GuardError> {
    walk_response(key, version, frame).map(|_| ())
}

/// As `check_response`; tells at which byte the answer ends.
pub fn walk_response(key: i16, version: i16, frame: &[u8]) -> Result<usize, GuardError> {
    let Some(response) = response(key) else {
        return Err(GuardError::UnknownApi { key });
    };
    if version < response.version_min || version > response.version_max {
        return Err(GuardError::UnsupportedVersion { api: response.name, version });
    }
    match response.is_flexible(version) {
        true => Walk::<true>::new(version, frame, RESPONSE_ELEMENTS_MAX).over(response, true),
        false => Walk::<false>::new(version, frame, RESPONSE_ELEMENTS_MAX).over(response, true),
    }
}

/// The layout of the answers to an API's requests, if the guard knows it.
pub fn response(key: i16) -> Option<&'static Response> {
    responses::RESPONSES.iter().find(|response| response.key == key)
}

/// The layout of an API's requests, if the guard knows it.
pub fn request(key: i16) -> Option<&'static Request> {
    let index = *BY_KEY.get(usize::try_from(key).ok()?)?;
    REQUESTS.get(usize::from(index))
}

/// Where each API key's request stands in `REQUESTS`.
static BY_KEY: [u8; KEYS] = {
    let mut by_key = [NONE; KEYS];
    let mut i = 0;
    while i < REQUESTS.len() {
        let key = REQUESTS[i].key as usize;
        assert!(by_key[key] == NONE && i < NONE as usize, "each key has one table, each table a number");
        by_key[key] = i as u8;
        i += 1;
    }
    by_key
};
const KEYS: usize = 128;
const NONE: u8 = u8::MAX;

/// The name of tagged field sections in errors.
const TAGS: &str = "the section of tagged fields";

/// The one API whose answers have the same header in all versions: whoever asks does not know yet what is spoken.
const API_VERSIONS_KEY: i16 = 18;

/// The walk ends; `Walk::fault` says why. Empty, so that results stay in a register.
struct Stop;

struct Walk<'a, const FLEXIBLE: bool> {
    cursor: Cursor<'a>,
    version: i16,
    elements_left: usize,
    fault: Option<(&'static str, Fault)>,
}

impl<'a, const FLEXIBLE: bool> Walk<'a, FLEXIBLE> {
    fn new(version: i16, bytes: &'a [u8], elements_max: usize) -> Self {
        Walk { cursor: Cursor::new(bytes), version, elements_left: elements_max, fault: None }
    }

    /// `has_header`: the bytes begin with the header of an answer.
    fn over(mut self, message: &'static Request, has_header: bool) -> Result<usize, GuardError> {
        let header = if has_header { self.response_header(message.key) } else { Ok(()) };
        if header.and_then(|()| self.structure(&message.body)).is_ok() {
            return Ok(self.cursor.position());
        }
        let (field, fault) = self.fault.expect("a walk that stops says why");
        let (version, position) = (self.version, self.cursor.position());
        Err(GuardError::Malformed { api: message.name, version, field, position, fault })
    }

    fn response_header(&mut self, key: i16) -> Result<(), Stop> {
        self.skip(4, "correlation_id")?;
        if FLEXIBLE && key != API_VERSIONS_KEY { self.tagged_fields(&[]) } else { Ok(()) }
    }

    fn structure(&mut self, structure: &'static Struct) -> Result<(), Stop> {
        for field in structure.fields {
            if field.exists_in(self.version) {
                self.field(field)?;
            }
        }
        if FLEXIBLE { self.tagged_fields(structure.tagged) } else { Ok(()) }
    }

    #[inline]
    fn field(&mut self, field: &'static Field) -> Result<(), Stop> {
        match field.kind {
            Kind::Fixed(bytes) => self.skip(bytes, field.name),
            Kind::Bool => self.skip(1, field.name),
            Kind::String => self.string(field),
            Kind::Bytes => match self.length(field)? {
                Some(bytes) => self.skip(bytes, field.name),
                None => Ok(()),
            },
            Kind::Struct(structure) => self.structure(structure),
            Kind::FixedArray(bytes) => {
                let count = self.elements(field, bytes)?;
                self.skip(count * bytes, field.name)
            }
            Kind::StringArray => {
                for _ in 0..self.elements(field, 1)? {
                    self.string_element(field)?;
                }
                Ok(())
            }
            Kind::StructArray(structure) => {
                for _ in 0..self.elements(field, structure.bytes_min)? {
                    self.structure(structure)?;
                }
                Ok(())
            }
        }
    }

    #[inline]
    fn string(&mut self, field: &'static Field) -> Result<(), Stop> {
        match self.string_length(field.name)? {
            Some(bytes) => self.skip(bytes, field.name),
            None if self.version >= field.nullable_from => Ok(()),
            None => self.stop(field.name, Fault::Null),
        }
    }

    /// An element of an array is never null, even where the array can be.
    fn string_element(&mut self, field: &'static Field) -> Result<(), Stop> {
        match self.string_length(field.name)? {
            Some(bytes) => self.skip(bytes, field.name),
            None => self.stop(field.name, Fault::Null),
        }
    }

    #[inline]
    fn string_length(&mut self, name: &'static str) -> Result<Option<usize>, Stop> {
        if FLEXIBLE {
            return match self.compact_length(name)? {
                Some(STRING_TOO_LONG..) => self.stop(name, Fault::TooLong),
                length => Ok(length),
            };
        }
        match self.cursor.i16() {
            Some(-1) => Ok(None),
            Some(length) => self.not_negative(length.into(), name),
            None => self.stop(name, Fault::Truncated),
        }
    }

    /// Announces `count` elements of at least `bytes_min` bytes each; null counts as none.
    #[inline]
    fn elements(&mut self, field: &'static Field, bytes_min: usize) -> Result<usize, Stop> {
        let Some(count) = self.length(field)? else {
            return Ok(0);
        };
        // At most 2^32 times a small constant: no overflow.
        if count * bytes_min > self.cursor.remaining() {
            return self.stop(field.name, Fault::MoreElementsThanBytes);
        }
        self.charge(count, field.name)?;
        Ok(count)
    }

    /// The length of an array or of bytes, `None` if it is null and may be.
    #[inline]
    fn length(&mut self, field: &'static Field) -> Result<Option<usize>, Stop> {
        let length = if FLEXIBLE {
            self.compact_length(field.name)?
        } else {
            match self.cursor.i32() {
                Some(-1) => None,
                Some(length) => self.not_negative(length, field.name)?,
                None => return self.stop(field.name, Fault::Truncated),
            }
        };
        if length.is_none() && self.version < field.nullable_from {
            return self.stop(field.name, Fault::Null);
        }
        Ok(length)
    }

    #[inline]
    fn compact_length(&mut self, name: &'static str) -> Result<Option<usize>, Stop> {
        match self.cursor.uvarint() {
            Some(plus_one) => Ok((plus_one as usize).checked_sub(1)),
            None => self.stop(name, Fault::Truncated),
        }
    }

    #[inline]
    fn not_negative(&mut self, length: i32, name: &'static str) -> Result<Option<usize>, Stop> {
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) => self.stop(name, Fault::NegativeLength),
        }
    }

    #[inline]
    fn tagged_fields(&mut self, known: &'static [(u32, Field)]) -> Result<(), Stop> {
        match self.cursor.uvarint() {
            Some(0) => Ok(()),
            Some(count) => self.some_tagged_fields(count as usize, known),
            None => self.stop(TAGS, Fault::Truncated),
        }
    }

    /// The codec decodes the tags that it knows in place, whatever their size says, and keeps the others as bytes:
    /// they cost memory as elements do, and a size that is not the value's own would let it read elsewhere than here.
    #[cold]
    fn some_tagged_fields(&mut self, count: usize, known: &'static [(u32, Field)]) -> Result<(), Stop> {
        if count * TAGGED_FIELD_BYTES_MIN > self.cursor.remaining() {
            return self.stop(TAGS, Fault::MoreElementsThanBytes);
        }
        self.charge(count * TAGGED_FIELD_ELEMENTS, TAGS)?;
        for _ in 0..count {
            let (Some(tag), Some(size)) = (self.cursor.uvarint(), self.cursor.uvarint()) else {
                return self.stop(TAGS, Fault::Truncated);
            };
            let known = known.iter().find(|(known, field)| *known == tag && field.exists_in(self.version));
            let Some((_, field)) = known else {
                self.skip(size as usize, TAGS)?;
                continue;
            };
            let end = self.cursor.position() + size as usize;
            self.field(field)?;
            if self.cursor.position() != end {
                return self.stop(field.name, Fault::TagSize);
            }
        }
        Ok(())
    }

    #[inline]
    fn charge(&mut self, elements: usize, name: &'static str) -> Result<(), Stop> {
        match self.elements_left.checked_sub(elements) {
            Some(left) => {
                self.elements_left = left;
                Ok(())
            }
            None => self.stop(name, Fault::TooManyElements),
        }
    }

    #[inline]
    fn skip(&mut self, bytes: usize, name: &'static str) -> Result<(), Stop> {
        match self.cursor.skip(bytes) {
            Some(()) => Ok(()),
            None => self.stop(name, Fault::Truncated),
        }
    }

    #[cold]
    fn stop<T>(&mut self, name: &'static str, fault: Fault) -> Result<T, Stop> {
        self.fault = Some((name, fault));
        Err(Stop)
    }
}

/// The longest string: compact lengths could say more, but Kafka takes no more than the older encoding can hold.
const STRING_BYTES_MAX: usize = i16::MAX as usize;
const STRING_TOO_LONG: usize = STRING_BYTES_MAX + 1;

/// A tag and a size, of a byte each.
const TAGGED_FIELD_BYTES_MIN: usize = 2;

/// As how many array elements a tagged field counts: the codec keeps each structure's unknown ones in a tree of its
/// own, whose first node takes 400 bytes.
const TAGGED_FIELD_ELEMENTS: usize = 4;
