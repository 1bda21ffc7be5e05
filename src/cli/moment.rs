//! Points in time and durations as people write them.

use anyhow::{Context, bail};
use jiff::{Span, SpanRelativeTo, Timestamp, civil};
use std::time::Duration;

/// `30s`, `500ms`, `2m`, `1h 30m`, `7d` (a day is 24 hours); a bare number counts seconds.
pub fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(u64::from(seconds)));
    }
    let span: Span = text.parse().with_context(|| format!("'{text}' is not a duration such as 30s, 2h or 7d"))?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours())?;
    Duration::try_from(duration).with_context(|| format!("'{text}' is negative"))
}

/// A point in time as ms since the epoch: `1700000000000`, `2024-05-01T12:00:00Z` (or with an offset), `2024-05-01`
/// (midnight UTC), `now`, or a time ago such as `2h`, `2h ago`.
pub fn parse_moment(text: &str, now_ms: i64) -> anyhow::Result<i64> {
    let text = text.trim();
    if let Ok(ms) = text.parse::<i64>() {
        if ms < 0 {
            bail!("'{text}' lies before 1970");
        }
        return Ok(ms);
    }
    if text.eq_ignore_ascii_case("now") {
        return Ok(now_ms);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    if let Ok(date) = text.parse::<civil::Date>() {
        return Ok(date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_millisecond());
    }
    let ago = text.strip_suffix("ago").unwrap_or(text);
    match parse_duration(ago) {
        Ok(ago) => Ok(now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)).max(0)),
        Err(_) => bail!(
            "'{text}' is not a time: give ms since 1970, a date such as 2024-05-01T12:00:00Z or 2024-05-01, \
             or how long ago (2h, 7d)"
        ),
    }
}

/// [`parse_moment`] as of now.
pub fn parse_moment_now(text: &str) -> anyhow::Result<i64> {
    parse_moment(text, now_ms())
}

/// ms since the epoch as `2024-05-01T12:00:00.123Z`; None for "no timestamp" and times beyond year 9999.
pub fn show_moment(ms: i64) -> Option<String> {
    let at = Timestamp::from_millisecond(ms).ok().filter(|_| ms >= 0)?;
    Some(format!("{at:.3}"))
}

/// The wall clock in ms since the epoch.
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_form() {
        let now = 1_700_000_000_000;
        let read = |text: &str| parse_moment(text, now).map_err(|e| e.to_string());
        assert_eq!(read("1312242084000"), Ok(1_312_242_084_000));
        assert_eq!(read("2011-08-01T23:41:24Z"), Ok(1_312_242_084_000));
        assert_eq!(read("2011-08-02T01:41:24+02:00"), Ok(1_312_242_084_000));
        assert_eq!(read("1970-01-02"), Ok(86_400_000));
        assert_eq!(read("now"), Ok(now));
        assert_eq!(read("2h"), Ok(now - 7_200_000));
        assert_eq!(read("1d ago"), Ok(now - 86_400_000));
        assert!(read("yesterday").is_err());
        assert!(read("-5").is_err());
    }

    #[test]
    fn moments_and_durations_are_shown_and_read() {
        assert_eq!(show_moment(1_312_242_084_000).as_deref(), Some("2011-08-01T23:41:24.000Z"));
        assert_eq!(show_moment(-1), None);
        assert_eq!(parse_duration("90").ok(), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms").ok(), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h 30m").ok(), Some(Duration::from_secs(5400)));
        assert!(parse_duration("-3s").is_err());
    }
}
