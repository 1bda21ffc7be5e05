//! What consumers tell each other within JoinGroup and SyncGroup, as far as a broker looks at it: who wants and has what. Pure.
//!
//! ```text
//! subscription | version i16 | topics: count i32, each a string | user data bytes |
//!                since 1     | owned: count i32, each | topic string | partitions: count i32, each i32 | |
//!                since 2     | generation i32 |
//!                since 3     | rack nullable string |
//! assignment   | version i16 | partitions, as "owned" above | user data bytes |
//! ```
//! Higher versions have more behind that. A string has an i16 before it, bytes an i32; -1 is null.

use bytes::{Buf, BufMut, Bytes};

/// The newest version that is known.
const VERSION_MAX: i16 = 3;

/// Partitions by the name of their topic.
pub type Named = Vec<(String, Vec<i32>)>;

/// What a consumer wants, and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    pub version: i16,
    pub topics: Vec<String>,
    pub owned: Named,
    pub rack: Option<String>,
}

/// The topics of a consumer's subscription; None: it is none.
pub fn topics(mut metadata: &[u8]) -> Option<Vec<String>> {
    metadata.try_get_i16().ok()?;
    names(&mut metadata)
}

/// All of a subscription; None: it is none.
pub fn read(mut metadata: &[u8]) -> Option<Subscription> {
    let rest = &mut metadata;
    let version = rest.try_get_i16().ok()?;
    let mut subscription = Subscription { version, topics: names(rest)?, ..Subscription::default() };
    skip_bytes(rest)?;
    if version >= 1 {
        subscription.owned = named(rest)?;
    }
    if version >= 2 {
        rest.try_get_i32().ok()?;
    }
    if version >= 3 {
        subscription.rack = nullable(rest)?;
    }
    Some(subscription)
}

/// The partitions of an assignment; an empty one has none. None: it is no assignment.
pub fn read_assignment(mut assignment: &[u8]) -> Option<Named> {
    if assignment.is_empty() {
        return Some(Named::new());
    }
    assignment.try_get_i16().ok()?;
    named(&mut assignment)
}

/// An assignment for a consumer whose subscription has this version.
pub fn write_assignment(version: i16, partitions: &Named) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(version.clamp(0, VERSION_MAX));
    bytes.put_i32(count(partitions.len()));
    for (topic, partitions) in partitions {
        bytes.put_i16(i16::try_from(topic.len()).expect("invariant: a topic's name has at most 249 bytes"));
        bytes.put_slice(topic.as_bytes());
        bytes.put_i32(count(partitions.len()));
        partitions.iter().for_each(|partition| bytes.put_i32(*partition));
    }
    bytes.put_i32(-1);
    bytes.into()
}

fn count(length: usize) -> i32 {
    i32::try_from(length).expect("invariant: a cluster has fewer partitions than i32 can count")
}

fn names(rest: &mut &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for _ in 0..rest.try_get_i32().ok()?.max(0) {
        names.push(nullable(rest)??);
    }
    Some(names)
}

fn named(rest: &mut &[u8]) -> Option<Named> {
    let mut all = Named::new();
    for _ in 0..rest.try_get_i32().ok()?.max(0) {
        let topic = nullable(rest)??;
        let mut partitions = Vec::new();
        for _ in 0..rest.try_get_i32().ok()?.max(0) {
            partitions.push(rest.try_get_i32().ok()?);
        }
        all.push((topic, partitions));
    }
    Some(all)
}

/// A string; the inner None is null.
fn nullable(rest: &mut &[u8]) -> Option<Option<String>> {
    let length = rest.try_get_i16().ok()?;
    if length == -1 {
        return Some(None);
    }
    let (text, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(std::str::from_utf8(text).ok()?.to_owned()))
}

fn skip_bytes(rest: &mut &[u8]) -> Option<()> {
    let length = rest.try_get_i32().ok()?.max(0);
    *rest = rest.split_at_checked(usize::try_from(length).ok()?)?.1;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_nonsense_is_not() {
        let metadata = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(topics(metadata), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(topics(b""), None);
        assert_eq!(topics(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(topics(b"\0\0\0\0\0\x01\xff\xff"), None);
    }

    #[test]
    fn a_subscription_is_read_in_every_version() {
        let old = b"\0\0\0\0\0\x01\0\x01a\0\0\0\x01u";
        let expected = Subscription { topics: vec!["a".to_owned()], ..Subscription::default() };
        assert_eq!(read(old), Some(expected.clone()));
        let new =
            b"\0\x03\0\0\0\x01\0\x01a\xff\xff\xff\xff\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x07\0\0\0\x05\0\x01r";
        let owned = vec![("a".to_owned(), vec![0, 7])];
        assert_eq!(read(new), Some(Subscription { version: 3, owned, rack: Some("r".to_owned()), ..expected }));
        for length in 0..new.len() {
            assert_eq!(read(&new[..length]), None);
        }
    }

    #[test]
    fn assignments_come_back() {
        let partitions = vec![("a".to_owned(), vec![0, 7]), ("b".to_owned(), vec![1])];
        let bytes = write_assignment(9, &partitions);
        assert_eq!(&bytes[..2], b"\0\x03", "no newer than is known");
        assert_eq!(read_assignment(&bytes), Some(partitions));
        assert_eq!(read_assignment(b""), Some(Named::new()));
        assert_eq!(read_assignment(b"\0\0\x7f\xff\xff\xff"), None);
    }
}
