//! Retention: which segments have served their time. Pure, as Kafka decides: oldest first, by time, then by size.

use super::core::LogCore;
use crate::base::config::topic::TopicConfig;
use crate::base::ids::Offset;

/// What retention wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Keep,
    /// Everything below the offset goes; it is the base of a segment that stays.
    RaiseTo(Offset),
    /// Even the active segment has expired.
    RemoveAll,
}

/// Decides for a log at `now_ms`. Nothing at or above the high watermark is ever removed.
pub fn plan(core: &LogCore, config: &TopicConfig, high_watermark: Offset, now_ms: i64) -> Plan {
    if !config.cleanup_policy.delete {
        return Plan::Keep;
    }
    let expired = |segment: &super::segment::Segment| {
        let Some(limit_ms) = config.retention_ms else { return false };
        let newest_ms = match segment.read_max_timestamp() {
            Some((timestamp_ms, _)) if timestamp_ms >= 0 => timestamp_ms,
            _ => segment.created_ms(),
        };
        now_ms.saturating_sub(newest_ms) > i64::try_from(limit_ms).unwrap_or(i64::MAX)
    };
    let segments = core.segments();
    let mut excess = config.retention_bytes.map_or(0, |limit| core.size().saturating_sub(limit));
    let mut keep_from = None;
    for (i, segment) in segments.iter().enumerate() {
        let next = segments.get(i + 1).map_or(core.written_end(), |next| next.base);
        let size = u64::from(segment.size());
        let too_much = size > 0 && excess >= size;
        let goes = next <= high_watermark && size > 0 && (expired(segment) || (too_much && i + 1 < segments.len()));
        if !goes {
            break;
        }
        excess = excess.saturating_sub(size);
        keep_from = Some(next);
    }
    match keep_from {
        None => Plan::Keep,
        Some(end) if end == core.written_end() && end == core.staged_end() => Plan::RemoveAll,
        Some(end) => Plan::RaiseTo(end),
    }
}
