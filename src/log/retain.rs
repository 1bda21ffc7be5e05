//! Retention: which segments have served their time. Pure, as Kafka decides: oldest first, by size or by time.

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
            _ => segment.modified_ms(),
        };
        now_ms.saturating_sub(newest_ms) > i64::try_from(limit_ms).unwrap_or(i64::MAX)
    };
    let segments = core.segments();
    let mut excess = config.retention_bytes.map_or(0, |limit| core.size().saturating_sub(limit));
    let mut keep_from = None;
    for (i, segment) in segments.iter().enumerate() {
        let next = segments.get(i + 1).map_or(core.written_end(), |next| next.base);
        let size = u64::from(segment.size());
        // The active segment goes by size only where retention.bytes is 0, as in Kafka.
        let goes = next <= high_watermark && size > 0 && (excess >= size || expired(segment));
        if !goes {
            break;
        }
        excess = excess.saturating_sub(size);
        keep_from = Some(next);
    }
    // An empty segment that tells the log's end is there already, as a roll that a crash cut short leaves it.
    let has_successor = segments.back().is_some_and(|active| active.size() == 0);
    match keep_from {
        None => Plan::Keep,
        Some(end) if end == core.written_end() && end == core.staged_end() && !has_successor => Plan::RemoveAll,
        Some(end) => Plan::RaiseTo(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment::Segment;
    use crate::log::testing::Batch;
    use std::path::Path;
    use std::rc::Rc;

    /// Three segments of ten records each, written at 1000, 2000 and 3000 ms; timestamps as given.
    fn log(timestamps: [i64; 3]) -> LogCore {
        let dir: Rc<Path> = Rc::from(Path::new("/nowhere"));
        let mut core = LogCore::empty(Rc::clone(&dir), Offset(0));
        for (i, timestamp_ms) in timestamps.into_iter().enumerate() {
            let now_ms = (i as i64 + 1) * 1000;
            let batch = Batch { timestamp_ms, records: 10, ..Batch::default() };
            let (header, bytes) = batch.build();
            core.stage(header, bytes, crate::base::ids::LeaderEpoch(0)).expect("no producer");
            // One batch a segment: whatever the first one holds, the second does not fit beside it.
            let config = TopicConfig { segment_bytes: 1, ..TopicConfig::default() };
            let write = core.next_write(&config, now_ms).expect("a batch is staged");
            core.write_completed(&write.segment, 4096, now_ms);
        }
        core.check_invariants();
        core
    }

    fn keep_for(retention_ms: u64) -> TopicConfig {
        TopicConfig { retention_ms: Some(retention_ms), ..TopicConfig::default() }
    }

    #[test]
    fn time_removes_the_oldest_segments_and_at_last_all() {
        let core = log([100, 200, 300]);
        let all = core.written_end();
        assert_eq!(plan(&core, &keep_for(1000), all, 1100), Plan::Keep, "not older than the limit");
        assert_eq!(plan(&core, &keep_for(1000), all, 1101), Plan::RaiseTo(Offset(10)));
        assert_eq!(plan(&core, &keep_for(1000), all, 1250), Plan::RaiseTo(Offset(20)));
        assert_eq!(plan(&core, &keep_for(1000), all, 1301), Plan::RemoveAll);
        assert_eq!(
            plan(&core, &keep_for(1000), Offset(19), 1301),
            Plan::RaiseTo(Offset(10)),
            "the high watermark binds"
        );
    }

    #[test]
    fn without_timestamps_the_last_write_counts() {
        let core = log([-1, -1, -1]);
        assert_eq!(plan(&core, &keep_for(500), core.written_end(), 1501), Plan::RaiseTo(Offset(10)));
        core.segments()[0].set_modified_ms(1400);
        assert_eq!(plan(&core, &keep_for(500), core.written_end(), 1501), Plan::Keep);
    }

    #[test]
    fn size_keeps_at_least_the_limit() {
        let core = log([0, 0, 0]);
        let segment = u64::from(Segment::size(&core.segments()[0]));
        let limited =
            |bytes| TopicConfig { retention_bytes: Some(bytes), retention_ms: None, ..TopicConfig::default() };
        let planned = |bytes| plan(&core, &limited(bytes), core.written_end(), 5000);
        assert_eq!(planned(3 * segment), Plan::Keep);
        assert_eq!(planned(2 * segment + 1), Plan::Keep, "less than the limit would be left");
        assert_eq!(planned(2 * segment), Plan::RaiseTo(Offset(10)));
        assert_eq!(planned(1), Plan::RaiseTo(Offset(20)));
        assert_eq!(planned(0), Plan::RemoveAll);
    }
}
