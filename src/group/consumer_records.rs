//! The records of groups of the new protocol (KIP-848), byte for byte as Apache Kafka writes them into `__consumer_offsets`.
//!
//! ```text
//! key      | version i16 | group string | ... |      strings with an i16 before them
//!   3:     the group            4:  its topics              5:  a member          | member id string |
//!   6:     its assignment       7:  a member's target       8:  what it has       | member id string |
//!  16:     a pattern            | pattern string |
//! value    | version i16 = 0 | ... | tagged fields |  compact: lengths are varints, one more than they say
//!   3:     | group epoch i32 |
//!   4:     | topics: each | id 16 B | name | partitions i32 | racks of partitions: empty | tags | |
//!   5:     | instance id? | rack id? | client id | client host | topics: names | pattern? | rebalance timeout i32 | assignor? |
//!          tag 0, if the member speaks the classic protocol: | session timeout i32 | protocols: each | name | bytes | tags | | tags |
//!   6:     | assignment epoch i32 |
//!   7:     | partitions: each | topic id 16 B | numbers i32 | tags | |
//!   8:     | member epoch i32 | previous epoch i32 | state i8 | assigned, as in 7 | to be revoked, as in 7 |
//!  16:     | topics: names | version i64 | time i64, ms |
//! ```

use super::consumer::assign::Partitions;
use super::consumer::member::{Classic, Current, MemberState, Profile};
use super::consumer::record::{Record, Resolved, Subject, TopicMetadata, TopicsMetadata};
use super::records::{Reader, RecordError, put_string};
use crate::base::ids::{TopicId, Uuid};
use std::collections::BTreeSet;
use std::rc::Rc;

const EPOCH: i16 = 3;
const TOPICS: i16 = 4;
const MEMBER: i16 = 5;
const ASSIGNMENT_EPOCH: i16 = 6;
const TARGET: i16 = 7;
const CURRENT: i16 = 8;
const REGEX: i16 = 16;

/// The tag of what a member of the classic protocol told besides.
const CLASSIC_TAG: u32 = 0;

impl Subject {
    pub fn encode_key(&self, group: &str) -> Vec<u8> {
        let (version, of) = match self {
            Subject::Epoch => (EPOCH, None),
            Subject::Topics => (TOPICS, None),
            Subject::Member(id) => (MEMBER, Some(id)),
            Subject::AssignmentEpoch => (ASSIGNMENT_EPOCH, None),
            Subject::Target(id) => (TARGET, Some(id)),
            Subject::Current(id) => (CURRENT, Some(id)),
            Subject::Regex(regex) => (REGEX, Some(regex)),
        };
        let mut bytes = version.to_be_bytes().to_vec();
        put_string(&mut bytes, Some(group));
        if let Some(of) = of {
            put_string(&mut bytes, Some(of));
        }
        bytes
    }

    /// The group and the subject of a key behind its version; None if the version is another's.
    pub(super) fn decode_key(version: i16, reader: &mut Reader<'_>) -> Result<Option<(String, Subject)>, RecordError> {
        if !matches!(version, EPOCH..=CURRENT | REGEX) {
            return Ok(None);
        }
        let group = reader.text("group")?;
        let subject = match version {
            EPOCH => Subject::Epoch,
            TOPICS => Subject::Topics,
            MEMBER => Subject::Member(reader.text("member id")?),
            ASSIGNMENT_EPOCH => Subject::AssignmentEpoch,
            TARGET => Subject::Target(reader.text("member id")?),
            CURRENT => Subject::Current(reader.text("member id")?),
            _ => Subject::Regex(reader.text("pattern")?),
        };
        Ok(Some((group, subject)))
    }
}

impl Record {
    /// None: a tombstone.
    pub fn encode_value(&self) -> Option<Vec<u8>> {
        let mut bytes = Flexible(0i16.to_be_bytes().to_vec());
        match self {
            Record::Epoch(epoch) | Record::AssignmentEpoch(epoch) => bytes.i32((*epoch)?),
            Record::Topics(topics) => bytes.topics(topics.as_ref()?),
            Record::Member(_, profile) => return Some(bytes.profile(profile.as_ref()?)),
            Record::Target(_, target) => bytes.partitions(target.as_ref()?),
            Record::Current(_, current) => bytes.current(current.as_ref()?),
            Record::Regex(_, resolved) => bytes.resolved(resolved.as_ref()?),
        }
        bytes.varint(0);
        Some(bytes.0)
    }

    /// What a record says about its subject; no value is a tombstone.
    pub fn decode(subject: Subject, value: Option<&[u8]>) -> Result<Record, RecordError> {
        let Some(value) = value else { return Ok(subject.gone()) };
        let mut reader = Reader::flexible(value, "group of the new protocol")?;
        let record = match subject {
            Subject::Epoch => Record::Epoch(Some(reader.i32()?)),
            Subject::Topics => Record::Topics(Some(topics(&mut reader)?)),
            Subject::Member(id) => return Ok(Record::Member(id, Some(Rc::new(profile(&mut reader)?)))),
            Subject::AssignmentEpoch => Record::AssignmentEpoch(Some(reader.i32()?)),
            Subject::Target(id) => Record::Target(id, Some(partitions(&mut reader)?)),
            Subject::Current(id) => Record::Current(id, Some(Rc::new(current(&mut reader)?))),
            Subject::Regex(regex) => Record::Regex(regex, Some(resolved(&mut reader)?)),
        };
        reader.tags()?;
        Ok(record)
    }
}

/// Writes the compact form.
struct Flexible(Vec<u8>);

impl Flexible {
    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn length(&mut self, length: usize) {
        self.varint(u32::try_from(length + 1).expect("invariant: what a request brings is smaller than 2 GiB"));
    }

    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn blob(&mut self, blob: &[u8]) {
        self.length(blob.len());
        self.0.extend_from_slice(blob);
    }

    fn string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.blob(text.as_bytes()),
            None => self.varint(0),
        }
    }

    fn strings<'s>(&mut self, count: usize, texts: impl Iterator<Item = &'s String>) {
        self.length(count);
        texts.for_each(|text| self.string(Some(text)));
    }

    fn topics(&mut self, topics: &TopicsMetadata) {
        self.length(topics.len());
        for (name, topic) in topics {
            self.0.extend_from_slice(topic.id.0.as_bytes());
            self.string(Some(name));
            self.i32(topic.partitions);
            self.length(0);
            self.varint(0);
        }
    }

    fn profile(mut self, profile: &Profile) -> Vec<u8> {
        self.string(profile.instance_id.as_deref());
        self.string(profile.rack_id.as_deref());
        self.string(Some(&profile.client_id));
        self.string(Some(&profile.client_host));
        self.strings(profile.topics.len(), profile.topics.iter());
        self.string(profile.regex.as_deref());
        self.i32(profile.rebalance_timeout_ms);
        self.string(profile.assignor.as_deref());
        let Some(classic) = &profile.classic else {
            self.varint(0);
            return self.0;
        };
        // A tagged structure that may be null has a byte before it that says whether it is.
        let mut field = Flexible(vec![1]);
        field.i32(classic.session_timeout_ms);
        field.length(classic.protocols.len());
        for (name, metadata) in &classic.protocols {
            field.string(Some(name));
            field.blob(metadata);
            field.varint(0);
        }
        field.varint(0);
        self.varint(1);
        self.varint(CLASSIC_TAG);
        self.varint(u32::try_from(field.0.len()).expect("invariant: what a request brings is smaller than 2 GiB"));
        self.0.extend_from_slice(&field.0);
        self.0
    }

    fn partitions(&mut self, partitions: &Partitions) {
        self.length(partitions.len());
        for (topic, partitions) in partitions {
            self.0.extend_from_slice(topic.0.as_bytes());
            self.length(partitions.len());
            partitions.iter().for_each(|partition| self.i32(*partition));
            self.varint(0);
        }
    }

    fn current(&mut self, current: &Current) {
        self.i32(current.epoch);
        self.i32(current.previous_epoch);
        self.0.extend_from_slice(&current.state.code().to_be_bytes());
        self.partitions(&current.assigned);
        self.partitions(&current.revoking);
    }

    fn resolved(&mut self, resolved: &Resolved) {
        self.strings(resolved.topics.len(), resolved.topics.iter());
        self.i64(resolved.version);
        self.i64(resolved.at_ms);
    }
}

fn topic_id(reader: &mut Reader<'_>) -> Result<TopicId, RecordError> {
    let mut id = [0; 16];
    id.copy_from_slice(reader.take(16)?);
    Ok(TopicId(Uuid::from_bytes(id)))
}

fn topics(reader: &mut Reader<'_>) -> Result<TopicsMetadata, RecordError> {
    let mut topics = TopicsMetadata::new();
    for _ in 0..reader.count()? {
        let id = topic_id(reader)?;
        let name = reader.text("topic")?;
        let partitions = reader.i32()?;
        // Racks, as Kafka kept them before 4.0.
        for _ in 0..reader.count()? {
            reader.i32()?;
            for _ in 0..reader.count()? {
                reader.text("rack")?;
            }
            reader.tags()?;
        }
        reader.tags()?;
        topics.insert(name, TopicMetadata { id, partitions });
    }
    Ok(topics)
}

fn profile(reader: &mut Reader<'_>) -> Result<Profile, RecordError> {
    let mut profile = Profile {
        instance_id: reader.string("instance id")?,
        rack_id: reader.string("rack id")?,
        client_id: reader.text("client id")?,
        client_host: reader.text("client host")?,
        ..Profile::default()
    };
    for _ in 0..reader.count()? {
        profile.topics.insert(reader.text("topic")?);
    }
    profile.regex = reader.string("pattern")?;
    profile.rebalance_timeout_ms = reader.i32()?;
    profile.assignor = reader.string("assignor")?;
    for _ in 0..reader.varint()? {
        let (tag, length) = (reader.varint()?, reader.varint()?);
        let field = reader.take(length)?;
        if tag == CLASSIC_TAG as usize {
            profile.classic = classic(&mut Reader::of_field(field))?;
        }
    }
    Ok(profile)
}

fn classic(reader: &mut Reader<'_>) -> Result<Option<Classic>, RecordError> {
    if reader.take(1)?[0] as i8 == -1 {
        return Ok(None);
    }
    let mut classic = Classic { session_timeout_ms: reader.i32()?, protocols: Vec::new() };
    for _ in 0..reader.count()? {
        classic.protocols.push((reader.text("protocol")?, reader.blob()?));
        reader.tags()?;
    }
    Ok(Some(classic))
}

fn partitions(reader: &mut Reader<'_>) -> Result<Partitions, RecordError> {
    let mut all = Partitions::new();
    for _ in 0..reader.count()? {
        let topic = topic_id(reader)?;
        let mut partitions = BTreeSet::new();
        for _ in 0..reader.count()? {
            partitions.insert(reader.i32()?);
        }
        reader.tags()?;
        if !partitions.is_empty() {
            all.insert(topic, partitions);
        }
    }
    Ok(all)
}

fn current(reader: &mut Reader<'_>) -> Result<Current, RecordError> {
    let (epoch, previous_epoch) = (reader.i32()?, reader.i32()?);
    let code = reader.take(1)?[0] as i8;
    // A state of a newer version: the member is taken to wait, and comes to the next assignment from there.
    let state = MemberState::of_code(code).unwrap_or(MemberState::Unreleased);
    Ok(Current { epoch, previous_epoch, state, assigned: partitions(reader)?, revoking: partitions(reader)? })
}

fn resolved(reader: &mut Reader<'_>) -> Result<Resolved, RecordError> {
    let mut topics = Vec::new();
    for _ in 0..reader.count()? {
        topics.push(reader.text("topic")?);
    }
    Ok(Resolved { topics, version: reader.i64()?, at_ms: reader.i64()? })
}

#[cfg(test)]
mod tests {
    use super::super::records::Key;
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        "[a-zä.-]{0,12}"
    }

    fn some_partitions() -> impl Strategy<Value = Partitions> {
        let numbers = proptest::collection::btree_set(any::<i32>(), 1..4);
        proptest::collection::btree_map(any::<u128>().prop_map(|id| TopicId(Uuid::from_u128(id))), numbers, 0..4)
    }

    fn some_profile() -> impl Strategy<Value = Profile> {
        let maybe = || proptest::option::of(text());
        let protocols = proptest::collection::vec((text(), proptest::collection::vec(any::<u8>(), 0..9)), 0..3);
        let classic = proptest::option::of((any::<i32>(), protocols));
        let topics = proptest::collection::btree_set(text(), 0..4);
        ((maybe(), maybe(), text(), text()), topics, maybe(), any::<i32>(), maybe(), classic).prop_map(
            |(
                (instance_id, rack_id, client_id, client_host),
                topics,
                regex,
                rebalance_timeout_ms,
                assignor,
                classic,
            )| {
                let classic = classic.map(|(session_timeout_ms, protocols)| Classic {
                    session_timeout_ms,
                    protocols: protocols.into_iter().map(|(name, metadata)| (name, Bytes::from(metadata))).collect(),
                });
                Profile {
                    instance_id,
                    rack_id,
                    client_id,
                    client_host,
                    topics,
                    regex,
                    rebalance_timeout_ms,
                    assignor,
                    classic,
                }
            },
        )
    }

    fn some_record() -> impl Strategy<Value = Record> {
        let topic = (any::<u128>(), 0..100_000_i32)
            .prop_map(|(id, partitions)| TopicMetadata { id: TopicId(Uuid::from_u128(id)), partitions });
        let topics = proptest::collection::btree_map(text(), topic, 0..4);
        let state = prop_oneof![Just(MemberState::Stable), Just(MemberState::Unrevoked), Just(MemberState::Unreleased)];
        let current = (any::<i32>(), any::<i32>(), state, some_partitions(), some_partitions()).prop_map(
            |(epoch, previous_epoch, state, assigned, revoking)| {
                Rc::new(Current { epoch, previous_epoch, state, assigned, revoking })
            },
        );
        let resolved = (proptest::collection::vec(text(), 0..4), any::<i64>(), any::<i64>())
            .prop_map(|(topics, version, at_ms)| Resolved { topics, version, at_ms });
        prop_oneof![
            proptest::option::of(any::<i32>()).prop_map(Record::Epoch),
            proptest::option::of(topics).prop_map(Record::Topics),
            (text(), proptest::option::of(some_profile().prop_map(Rc::new))).prop_map(|(id, p)| Record::Member(id, p)),
            proptest::option::of(any::<i32>()).prop_map(Record::AssignmentEpoch),
            (text(), proptest::option::of(some_partitions())).prop_map(|(id, p)| Record::Target(id, p)),
            (text(), proptest::option::of(current)).prop_map(|(id, current)| Record::Current(id, current)),
            (text(), proptest::option::of(resolved)).prop_map(|(regex, resolved)| Record::Regex(regex, resolved)),
        ]
    }

    proptest! {
        #[test]
        fn records_come_back_and_cut_ones_are_refused(group in text(), record in some_record()) {
            let key = Key::Consumer { group, subject: record.subject() };
            prop_assert_eq!(Key::decode(&key.encode()), Ok(key));
            let value = record.encode_value();
            prop_assert_eq!(Record::decode(record.subject(), value.as_deref()), Ok(record.clone()));
            for length in 0..value.as_ref().map_or(0, Vec::len) {
                let cut = value.as_ref().map(|value| &value[..length]);
                prop_assert!(Record::decode(record.subject(), cut).is_err());
            }
        }

        #[test]
        fn noise_is_refused_or_read_but_never_harms(bytes in proptest::collection::vec(any::<u8>(), 0..80), record in some_record()) {
            let _ = Record::decode(record.subject(), Some(&bytes));
        }
    }

    /// Taken down by hand from Kafka's schemas.
    #[test]
    fn bytes_are_kafkas() {
        let id = TopicId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
        let id_bytes = b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10";
        assert_eq!(Subject::Current("m".to_owned()).encode_key("g"), b"\0\x08\0\x01g\0\x01m");
        assert_eq!(Subject::AssignmentEpoch.encode_key("g"), b"\0\x06\0\x01g");
        assert_eq!(Subject::Regex("a.*".to_owned()).encode_key("g"), b"\0\x10\0\x01g\0\x03a.*");
        assert_eq!(Record::Epoch(Some(7)).encode_value().unwrap(), b"\0\0\0\0\0\x07\0");
        let target = Record::Target("m".to_owned(), Some(Partitions::from([(id, BTreeSet::from([1, 2]))])));
        let expected = [b"\0\0\x02", &id_bytes[..], b"\x03\0\0\0\x01\0\0\0\x02\0\0"].concat();
        assert_eq!(target.encode_value().unwrap(), expected);
        let topics =
            Record::Topics(Some(TopicsMetadata::from([("t".to_owned(), TopicMetadata { id, partitions: 3 })])));
        let expected = [b"\0\0\x02", &id_bytes[..], b"\x02t\0\0\0\x03\x01\0\0"].concat();
        assert_eq!(topics.encode_value().unwrap(), expected);
        let classic = Classic { session_timeout_ms: 9, protocols: vec![("p".to_owned(), Bytes::from_static(b"x"))] };
        let profile = Profile {
            client_id: "c".to_owned(),
            rebalance_timeout_ms: 5,
            classic: Some(classic),
            ..Profile::default()
        };
        let expected = b"\0\0\0\0\x02c\x01\x01\0\0\0\0\x05\0\x01\0\x0c\x01\0\0\0\x09\x02\x02p\x02x\0\0";
        assert_eq!(Record::Member("m".to_owned(), Some(Rc::new(profile))).encode_value().unwrap(), expected);
    }
}
