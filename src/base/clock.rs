//! The wall clock. What decides never reads it: drivers pass the time in.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch, as Kafka's timestamps count.
pub fn now_ms() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}
