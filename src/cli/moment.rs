//! Points in time and durations as people write them.

use anyhow::{Context, bail};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp, Zoned, civil};
use std::ops::RangeInclusive;
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

/// [`parse_duration`], for where a unit left out would do harm: `2` may well be meant as hours.
pub fn parse_duration_with_unit(text: &str) -> anyhow::Result<Duration> {
    let text = text.trim();
    if text.parse::<f64>().is_ok() {
        bail!("'{text}' has no unit: give 30s, 15m, 2h or 7d, or PT2H as Kafka's tool takes it");
    }
    parse_duration(text)
}

/// Numbers from 2001 to 5138 in seconds; as ms they would all lie in the first years from 1970 on.
const LOOKS_LIKE_SECONDS: RangeInclusive<i64> = 1_000_000_000..=100_000_000_000;

/// A point in time as ms since the epoch: `1700000000000`, `2024-05-01T12:00:00Z` (or with an offset), `2024-05-01T12:00:00`
/// and `2024-05-01` (both UTC, as with Kafka's tools), `now`, or a time ago such as `2h`, `2h ago`.
pub fn parse_moment(text: &str, now_ms: i64) -> anyhow::Result<i64> {
    let text = text.trim();
    if let Ok(ms) = text.parse::<i64>() {
        if ms < 0 {
            bail!("'{text}' lies before 1970");
        }
        if LOOKS_LIKE_SECONDS.contains(&ms) {
            let meant = show_moment(ms.saturating_mul(1000)).unwrap_or_default();
            bail!("'{text}' looks like seconds, and ms since 1970 are wanted: {text}000 is {meant}");
        }
        return Ok(ms);
    }
    if text.eq_ignore_ascii_case("now") {
        return Ok(now_ms);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    // A zone's name in brackets is only heard by the first of these.
    if text.contains('[') {
        let at: Zoned = text.parse().with_context(|| format!("'{text}' is not a time in a zone that is known here"))?;
        return Ok(at.timestamp().as_millisecond());
    }
    if let Ok(date) = text.parse::<civil::DateTime>() {
        return Ok(date.to_zoned(TimeZone::UTC)?.timestamp().as_millisecond());
    }
    let ago = text.strip_suffix("ago").unwrap_or(text);
    match parse_duration_with_unit(ago) {
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
        assert_eq!(read("2011-08-01T23:41:24"), Ok(1_312_242_084_000), "without a zone it is UTC");
        assert_eq!(read("2011-08-01T23:41:24.007"), Ok(1_312_242_084_007), "as Kafka's tool writes it");
        assert_eq!(read("1312242084").map_err(|e| e.contains("1312242084000 is 2011-08-01T23:41:24")), Err(true));
        assert_eq!((read("0"), read("1000")), (Ok(0), Ok(1000)));
        assert!(read("2 ago").is_err() && read("2011-08-01[Nowhere/At_All]").is_err());
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
        let with_unit = |text: &str| parse_duration_with_unit(text).map_err(|e| e.to_string());
        let two_hours = Ok(Duration::from_secs(7200));
        assert_eq!(
            [with_unit("2h"), with_unit("PT2H"), with_unit("120m")],
            [two_hours.clone(), two_hours.clone(), two_hours]
        );
        assert!(with_unit("2").is_err_and(|e| e.contains("has no unit")) && with_unit("1.5").is_err());
        assert!(with_unit("-2h").is_err_and(|e| e.contains("is negative")));
    }
}
