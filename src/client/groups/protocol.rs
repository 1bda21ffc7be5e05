//! What consumers of a group tell each other, which the coordinator passes on without a look: subscription and assignment. Pure.
//!
//! ```text
//! subscription  | version i16 | topics: count i32, each a string | user data | … more with higher versions
//! assignment    | version i16 | count i32, each: topic string, count i32, partitions i32 | user data
//! ```
//! Strings have an i16 before them, user data an i32, -1 for none. Version 0 is enough for assignors that keep nothing from one
//! generation to the next, and every client reads it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Partitions by topic.
pub type Partitions = BTreeMap<String, Vec<i32>>;

const VERSION: i16 = 0;
const NO_USER_DATA: i32 = -1;

/// The subscription to these topics.
pub fn subscription(topics: &[String]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    put_count(&mut out, topics.len());
    topics.iter().for_each(|topic| put_string(&mut out, topic));
    out.put_i32(NO_USER_DATA);
    out.freeze()
}

/// The topics of a subscription of any version; None: it is none.
pub fn topics_of(mut subscription: &[u8]) -> Option<Vec<String>> {
    let rest = &mut subscription;
    rest.try_get_i16().ok()?;
    let count = rest.try_get_i32().ok()?.max(0);
    // Nothing is reserved for what is only announced.
    (0..count).map(|_| take_string(rest)).collect()
}

/// The assignment of these partitions.
pub fn assignment(partitions: &Partitions) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    put_count(&mut out, partitions.len());
    for (topic, indexes) in partitions {
        put_string(&mut out, topic);
        put_count(&mut out, indexes.len());
        indexes.iter().for_each(|index| out.put_i32(*index));
    }
    out.put_i32(NO_USER_DATA);
    out.freeze()
}

/// The partitions of an assignment of any version; None: it is none. No bytes at all are an assignment of nothing.
pub fn partitions_of(mut assignment: &[u8]) -> Option<Partitions> {
    let rest = &mut assignment;
    let mut partitions = Partitions::new();
    if rest.is_empty() {
        return Some(partitions);
    }
    rest.try_get_i16().ok()?;
    for _ in 0..rest.try_get_i32().ok()?.max(0) {
        let topic = take_string(rest)?;
        let indexes = partitions.entry(topic).or_default();
        for _ in 0..rest.try_get_i32().ok()?.max(0) {
            indexes.push(rest.try_get_i32().ok()?);
        }
    }
    Some(partitions)
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_i32(i32::try_from(count).expect("invariant: a cluster has fewer topics and partitions"));
}

/// Topics have names of at most 249 bytes: the length always fits.
fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).expect("invariant: topics have short names"));
    out.put_slice(text.as_bytes());
}

fn take_string(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
    use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
    use proptest::prelude::*;

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    /// A version and what follows it, as clients write it.
    fn versioned(version: i16, message: &impl Encodable) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        bytes.put_i16(version);
        message.encode(&mut bytes, version).expect("the message fits the version");
        bytes.to_vec()
    }

    proptest! {
        #[test]
        fn what_kafkas_schemas_write_is_read_in_every_version(
            topics in prop::collection::btree_map("[a-z._-]{1,20}", prop::collection::vec(0..1000i32, 0..5), 0..5),
            version in 0..=3i16,
        ) {
            let names: Vec<String> = topics.keys().cloned().collect();
            let subscribed = ConsumerProtocolSubscription::default().with_topics(names.iter().map(|n| text(n)).collect());
            prop_assert_eq!(topics_of(&versioned(version, &subscribed)), Some(names));
            let of = |(name, indexes): (&String, &Vec<i32>)| {
                TopicPartition::default().with_topic(TopicName(text(name))).with_partitions(indexes.clone())
            };
            let assigned = ConsumerProtocolAssignment::default().with_assigned_partitions(topics.iter().map(of).collect());
            prop_assert_eq!(partitions_of(&versioned(version, &assigned)), Some(topics));
        }

        #[test]
        fn what_is_written_is_what_kafkas_schemas_read(
            topics in prop::collection::btree_map("[a-z]{1,20}", prop::collection::vec(0..1000i32, 1..5), 0..5),
        ) {
            let mut bytes = assignment(&topics);
            prop_assert_eq!(bytes.get_i16(), 0);
            let read = ConsumerProtocolAssignment::decode(&mut bytes, 0).expect("readable");
            prop_assert!(bytes.is_empty() && read.user_data.is_none());
            let read = read.assigned_partitions.into_iter().map(|t| (t.topic.to_string(), t.partitions)).collect::<Partitions>();
            prop_assert_eq!(&read, &topics);
            let names: Vec<String> = topics.into_keys().collect();
            prop_assert_eq!(topics_of(&subscription(&names)), Some(names));
        }

        #[test]
        fn nonsense_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (topics_of(&bytes), partitions_of(&bytes));
        }
    }

    #[test]
    fn a_length_that_lies_reserves_nothing() {
        assert_eq!(topics_of(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(partitions_of(b"\0\0\0\0\0\x01\0\x01a\x7f\xff\xff\xff"), None);
        assert_eq!(partitions_of(b""), Some(Partitions::new()), "of who has joined but got nothing");
    }
}
