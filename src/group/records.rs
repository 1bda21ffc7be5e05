//! The records of `__consumer_offsets`: committed offsets and groups' metadata, byte for byte as Apache Kafka writes them.
//!
//! ```text
//! key      | version i16 | ...
//!   0, 1:  an offset     | group string | topic string | partition i32 |       written as 1
//!   2:     a group       | group string |
//!   3-8, 16: of groups of the new protocol, see `consumer_records`
//! value    | version i16 | ...; none (a tombstone) takes the key's meaning away
//!   of an offset, version 3:
//!          | offset i64 | leader epoch i32, -1 if unknown | metadata string | commit timestamp i64, ms |
//!     before 3 without the epoch; 1 with | expiry timestamp i64 | at the end
//!   of a group, version 3:
//!          | protocol type string | generation i32 | protocol nullable string | leader nullable string | state since i64, ms |
//!          | members: count i32, each | id string | instance id nullable string | client id string | client host string |
//!          | rebalance timeout i32 | session timeout i32 | subscription bytes | assignment bytes |
//!     before 3 without instance ids, before 2 without the time, 0 without rebalance timeouts
//! ```
//! Version 4 of both is version 3 in compact (flexible) form with tagged fields; it is read, not written.
//! A string has an i16 before it, -1 for null; bytes have an i32. All big-endian.

use super::classic::{GroupRecord, MemberRecord};
use super::consumer::record::Subject;
use bytes::{Buf, Bytes};
use thiserror::Error;

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
/// Written; also the newest without tagged fields.
const VALUE: i16 = 3;
const FLEXIBLE_VALUE: i16 = 4;

/// Why a record of `__consumer_offsets` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("it ends too early: {needed} more bytes were announced, {found} are there")]
    Short { needed: usize, found: usize },
    #[error("its {what} has version {version}, and 0 to {newest} are known")]
    Version { what: &'static str, version: i16, newest: i16 },
    #[error("its {what} is null")]
    Null { what: &'static str },
    #[error("its {what} is no UTF-8")]
    NotText { what: &'static str },
    #[error("a number is longer than it may be")]
    Varint,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Offset {
        group: String,
        topic: String,
        partition: i32,
    },
    Group {
        group: String,
    },
    /// Of a group of the new protocol.
    Consumer {
        group: String,
        subject: Subject,
    },
    /// Of a newer kind: kept, and not understood.
    Other {
        version: i16,
    },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    /// -1 if the consumer did not tell.
    pub leader_epoch: i32,
    pub metadata: String,
    /// ms since 1970.
    pub committed_ms: i64,
    /// When it expires, if the consumer itself decided that (before KIP-211).
    pub expires_ms: Option<i64>,
}

impl Key {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Key::Offset { group, topic, partition } => {
                bytes.extend_from_slice(&OFFSET_KEY.to_be_bytes());
                put_string(&mut bytes, Some(group));
                put_string(&mut bytes, Some(topic));
                bytes.extend_from_slice(&partition.to_be_bytes());
            }
            Key::Group { group } => {
                bytes.extend_from_slice(&GROUP_KEY.to_be_bytes());
                put_string(&mut bytes, Some(group));
            }
            Key::Consumer { group, subject } => bytes = subject.encode_key(group),
            Key::Other { version } => bytes.extend_from_slice(&version.to_be_bytes()),
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Key, RecordError> {
        let mut reader = Reader { bytes, flexible: false };
        Ok(match reader.i16()? {
            0 | OFFSET_KEY => {
                let (group, topic) = (reader.text("group")?, reader.text("topic")?);
                Key::Offset { group, topic, partition: reader.i32()? }
            }
            GROUP_KEY => Key::Group { group: reader.text("group")? },
            version => match Subject::decode_key(version, &mut reader)? {
                Some((group, subject)) => Key::Consumer { group, subject },
                None => Key::Other { version },
            },
        })
    }
}

impl CommittedOffset {
    pub fn encode(&self) -> Vec<u8> {
        // Only version 1 knows of an expiry of its own, and then nothing of epochs, as Kafka has it.
        let version = if self.expires_ms.is_some() { 1 } else { VALUE };
        let mut bytes = version.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        if version >= 3 {
            bytes.extend_from_slice(&self.leader_epoch.to_be_bytes());
        }
        put_string(&mut bytes, Some(&self.metadata));
        bytes.extend_from_slice(&self.committed_ms.to_be_bytes());
        if let Some(expires_ms) = self.expires_ms {
            bytes.extend_from_slice(&expires_ms.to_be_bytes());
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<CommittedOffset, RecordError> {
        let (version, mut reader) = Reader::of_value(bytes, "committed offset")?;
        let offset = reader.i64()?;
        let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
        let metadata = reader.text("metadata")?;
        let committed_ms = reader.i64()?;
        let expires_ms = if version == 1 { Some(reader.i64()?).filter(|ms| *ms != -1) } else { None };
        Ok(CommittedOffset { offset, leader_epoch, metadata, committed_ms, expires_ms })
    }
}

impl GroupRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = VALUE.to_be_bytes().to_vec();
        put_string(&mut bytes, Some(&self.protocol_type));
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        put_string(&mut bytes, self.protocol.as_deref());
        put_string(&mut bytes, self.leader.as_deref());
        bytes.extend_from_slice(&self.state_since_ms.to_be_bytes());
        bytes.extend_from_slice(&(self.members.len() as i32).to_be_bytes());
        for member in &self.members {
            put_string(&mut bytes, Some(&member.member_id));
            put_string(&mut bytes, member.instance_id.as_deref());
            put_string(&mut bytes, Some(&member.client_id));
            put_string(&mut bytes, Some(&member.client_host));
            bytes.extend_from_slice(&member.rebalance_timeout_ms.to_be_bytes());
            bytes.extend_from_slice(&member.session_timeout_ms.to_be_bytes());
            put_bytes(&mut bytes, &member.subscription);
            put_bytes(&mut bytes, &member.assignment);
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<GroupRecord, RecordError> {
        let (version, mut reader) = Reader::of_value(bytes, "group")?;
        let protocol_type = reader.text("protocol type")?;
        let generation = reader.i32()?;
        let (protocol, leader) = (reader.string("protocol")?, reader.string("leader")?);
        let state_since_ms = if version >= 2 { reader.i64()? } else { -1 };
        let mut record =
            GroupRecord { protocol_type, generation, protocol, leader, state_since_ms, members: Vec::new() };
        for _ in 0..reader.count()? {
            let member_id = reader.text("member id")?;
            let instance_id = if version >= 3 { reader.string("instance id")? } else { None };
            let (client_id, client_host) = (reader.text("client id")?, reader.text("client host")?);
            let rebalance_timeout_ms = if version >= 1 { Some(reader.i32()?) } else { None };
            let session_timeout_ms = reader.i32()?;
            record.members.push(MemberRecord {
                member_id,
                instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms: rebalance_timeout_ms.filter(|ms| *ms >= 0).unwrap_or(session_timeout_ms),
                session_timeout_ms,
                subscription: reader.blob()?,
                assignment: reader.blob()?,
            });
            reader.tags()?;
        }
        Ok(record)
    }
}

pub(super) fn put_string(bytes: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else { return bytes.extend_from_slice(&(-1i16).to_be_bytes()) };
    let length = i16::try_from(text.len()).expect("invariant: texts of requests have at most 32,767 bytes");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_bytes(bytes: &mut Vec<u8>, blob: &[u8]) {
    let length = i32::try_from(blob.len()).expect("invariant: a request has less than 2 GiB");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(blob);
}

/// Reads a record field by field; a length is never believed before its bytes are there.
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    /// Lengths are varints, one more than they say, and structures end with tagged fields (KIP-482).
    flexible: bool,
}

impl<'b> Reader<'b> {
    fn of_value(bytes: &'b [u8], what: &'static str) -> Result<(i16, Reader<'b>), RecordError> {
        let mut reader = Reader { bytes, flexible: false };
        let version = reader.i16()?;
        if !(0..=FLEXIBLE_VALUE).contains(&version) {
            return Err(RecordError::Version { what, version, newest: FLEXIBLE_VALUE });
        }
        reader.flexible = version >= FLEXIBLE_VALUE;
        Ok((version, reader))
    }

    /// A value of a kind that has version 0 alone, and that compact.
    pub(super) fn flexible(bytes: &'b [u8], what: &'static str) -> Result<Reader<'b>, RecordError> {
        let mut reader = Reader { bytes, flexible: false };
        let version = reader.i16()?;
        if version != 0 {
            return Err(RecordError::Version { what, version, newest: 0 });
        }
        reader.flexible = true;
        Ok(reader)
    }

    /// The bytes of a tagged field.
    pub(super) fn of_field(bytes: &'b [u8]) -> Reader<'b> {
        Reader { bytes, flexible: true }
    }

    pub(super) fn take(&mut self, needed: usize) -> Result<&'b [u8], RecordError> {
        let found = self.bytes.len();
        let (taken, rest) = self.bytes.split_at_checked(needed).ok_or(RecordError::Short { needed, found })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16, RecordError> {
        Ok(self.take(2)?.get_i16())
    }

    pub(super) fn i32(&mut self) -> Result<i32, RecordError> {
        Ok(self.take(4)?.get_i32())
    }

    pub(super) fn i64(&mut self) -> Result<i64, RecordError> {
        Ok(self.take(8)?.get_i64())
    }

    pub(super) fn varint(&mut self) -> Result<usize, RecordError> {
        let mut value = 0usize;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Varint)
    }

    /// None for null.
    fn length(&mut self, short: bool) -> Result<Option<usize>, RecordError> {
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1));
        }
        let length = if short { i32::from(self.i16()?) } else { self.i32()? };
        Ok(usize::try_from(length).ok())
    }

    pub(super) fn string(&mut self, what: &'static str) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(true)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| RecordError::NotText { what })?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<String, RecordError> {
        self.string(what)?.ok_or(RecordError::Null { what })
    }

    pub(super) fn blob(&mut self) -> Result<Bytes, RecordError> {
        let length = self.length(false)?.unwrap_or(0);
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    pub(super) fn count(&mut self) -> Result<usize, RecordError> {
        Ok(self.length(false)?.unwrap_or(0))
    }

    pub(super) fn tags(&mut self) -> Result<(), RecordError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        "[a-zä.-]{0,12}"
    }

    fn member() -> impl Strategy<Value = MemberRecord> {
        let texts = (text(), proptest::option::of(text()), text(), text());
        let rest = (0..i32::MAX, 0..i32::MAX, proptest::collection::vec(any::<u8>(), 0..20));
        (texts, rest).prop_map(|((member_id, instance_id, client_id, client_host), (rebalance, session, blob))| {
            MemberRecord {
                member_id,
                instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms: rebalance,
                session_timeout_ms: session,
                subscription: blob.clone().into(),
                assignment: blob.into(),
            }
        })
    }

    fn group() -> impl Strategy<Value = GroupRecord> {
        let names = (text(), proptest::option::of(text()), proptest::option::of(text()));
        (names, any::<i32>(), any::<i64>(), proptest::collection::vec(member(), 0..4)).prop_map(
            |((protocol_type, protocol, leader), generation, state_since_ms, members)| GroupRecord {
                protocol_type,
                generation,
                protocol,
                leader,
                state_since_ms,
                members,
            },
        )
    }

    proptest! {
        #[test]
        fn groups_come_back_and_cut_ones_are_refused(record in group()) {
            let bytes = record.encode();
            prop_assert_eq!(GroupRecord::decode(&bytes), Ok(record));
            for length in 0..bytes.len() {
                prop_assert!(GroupRecord::decode(&bytes[..length]).is_err());
            }
        }

        #[test]
        fn offsets_come_back(offset: i64, epoch in -1..i32::MAX, metadata in text(), committed_ms: i64, expires_ms in proptest::option::of(0..i64::MAX)) {
            let leader_epoch = if expires_ms.is_some() { -1 } else { epoch };
            let record = CommittedOffset { offset, leader_epoch, metadata, committed_ms, expires_ms };
            prop_assert_eq!(CommittedOffset::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn keys_come_back(group in text(), topic in text(), partition: i32) {
            let offset = Key::Offset { group: group.clone(), topic, partition };
            prop_assert_eq!(Key::decode(&offset.encode()), Ok(offset));
            let group = Key::Group { group };
            prop_assert_eq!(Key::decode(&group.encode()), Ok(group));
        }

        #[test]
        fn noise_is_refused_or_read_but_never_harms(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Key::decode(&bytes), CommittedOffset::decode(&bytes), GroupRecord::decode(&bytes));
        }
    }

    /// As Kafka's own GroupMetadataManager writes them, taken down by hand from its schemas.
    #[test]
    fn bytes_are_kafkas() {
        let key = Key::Offset { group: "g".to_owned(), topic: "tp".to_owned(), partition: 7 };
        assert_eq!(key.encode(), b"\0\x01\0\x01g\0\x02tp\0\0\0\x07");
        assert_eq!(Key::Group { group: "g".to_owned() }.encode(), b"\0\x02\0\x01g");
        let metadata = "m".to_owned();
        let value = CommittedOffset { offset: 9, leader_epoch: -1, metadata, committed_ms: 5, expires_ms: None };
        let expected = b"\0\x03\0\0\0\0\0\0\0\x09\xff\xff\xff\xff\0\x01m\0\0\0\0\0\0\0\x05";
        assert_eq!(value.encode(), expected);
        // Version 4: the same, with varint lengths and tagged fields.
        let flexible = b"\0\x04\0\0\0\0\0\0\0\x09\xff\xff\xff\xff\x02m\0\0\0\0\0\0\0\x05\0";
        assert_eq!(CommittedOffset::decode(flexible), Ok(value));
    }
}
