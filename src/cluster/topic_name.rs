//! What a topic may be called, and which names belong to the brokers themselves.

use crate::base::limits::TOPIC_NAME_BYTES_MAX;

/// Topics that hold the brokers' own records: clients see them marked as internal.
const INTERNAL: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Whether the topic of this name is one of the brokers' own.
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Refuses what cannot be a topic's name, in Kafka's words (INVALID_TOPIC_EXCEPTION).
///
/// A name becomes a directory's name and part of metric names: letters, digits, dot, underscore and hyphen only.
pub fn check(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    // Java counts a string's length in UTF-16 units.
    let length = name.encode_utf16().count();
    let reason = if name.is_empty() {
        "the empty string is not allowed".to_string()
    } else if matches!(name, "." | "..") {
        format!("'{name}' is not allowed")
    } else if length > TOPIC_NAME_BYTES_MAX {
        format!("the length of '{name}' is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}")
    } else if !name.bytes().all(legal) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["a", "orders", "a.b_c-D9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn each_bad_name_is_refused_with_its_reason() {
        let long = "x".repeat(250);
        let cases = [
            ("", "the empty string is not allowed"),
            (".", "'.' is not allowed"),
            ("..", "'..' is not allowed"),
            (&long, "is longer than the max allowed length 249"),
            ("a/b", "contains one or more characters other than ASCII alphanumerics"),
            ("é", "contains one or more characters other than ASCII alphanumerics"),
        ];
        for (name, reason) in cases {
            let message = check(name).expect_err(name);
            assert!(message.starts_with("Topic name is invalid: ") && message.contains(reason), "{message}");
        }
    }

    #[test]
    fn only_the_brokers_own_topics_are_internal() {
        assert!(is_internal("__consumer_offsets") && is_internal("__transaction_state"));
        assert!(!is_internal("__my_topic") && !is_internal("orders"));
    }
}
