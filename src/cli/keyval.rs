//! `key=value` arguments.

use std::str::FromStr;

/// One `key=value`; the value may be empty and may contain `=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
}

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<KeyValue, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(KeyValue { key: key.trim().to_owned(), value: value.trim().to_owned() })
            }
            _ => Err(format!("'{text}' is not of the form key=value")),
        }
    }
}

impl From<KeyValue> for (String, String) {
    fn from(kv: KeyValue) -> (String, String) {
        (kv.key, kv.value)
    }
}
