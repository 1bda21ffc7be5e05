//! What consumers tell each other within JoinGroup, as far as a broker looks at it: the topics. Pure.
//!
//! ```text
//! | version i16 | topics: count i32, each a string | user data bytes | … more with higher versions
//! ```

use bytes::Buf;

/// The topics of a consumer's subscription; None: it is none.
pub fn topics(mut metadata: &[u8]) -> Option<Vec<String>> {
    let rest = &mut metadata;
    rest.try_get_i16().ok()?;
    let count = rest.try_get_i32().ok()?.max(0);
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        topics.push(std::str::from_utf8(name).ok()?.to_owned());
        *rest = after;
    }
    Some(topics)
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
}
