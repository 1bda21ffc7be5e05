//! What is worth compacting, and which segments become one. Pure; as Kafka decides (`LogCleanerManager`).

use crate::base::config::topic::TopicConfig;
use crate::base::ids::Offset;
use std::ops::Range;

/// What a decision needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    pub base: Offset,
    pub bytes: u32,
    /// Its greatest timestamp; None: it has none.
    pub max_timestamp_ms: Option<i64>,
    /// The greatest timestamp of its first batch; None: it has none, or nobody has asked for it (no `max.compaction.lag.ms`).
    pub first_timestamp_ms: Option<i64>,
    /// Of both index files.
    pub index_bytes: (u32, u32),
}

/// What a decision needs to know of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogFacts<'a> {
    pub log_start: Offset,
    /// The log end offset.
    pub end: Offset,
    /// Nothing at or above it may be compacted: the high watermark, or the end of what is on disk.
    pub stable: Offset,
    /// The first offset that no pass has covered, as the checkpoint says.
    pub cleaned: Option<Offset>,
    /// Oldest first; the last one is the active one.
    pub segments: &'a [SegmentFacts],
}

/// The parts of a log that a pass is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// The first offset that no pass has covered.
    pub first_dirty: Offset,
    /// The base of the first segment that must be left alone; not below `first_dirty`.
    pub first_uncleanable: Offset,
    pub clean_bytes: u64,
    pub dirty_bytes: u64,
    /// Some of it is older than `max.compaction.lag.ms` allows.
    pub is_overdue: bool,
}

impl Dirty {
    pub fn of(log: &LogFacts<'_>, config: &TopicConfig, now_ms: i64) -> Dirty {
        // A checkpoint of a log that was cut, or whose start has moved, says nothing any more.
        let checkpointed = log.cleaned.filter(|cleaned| (log.log_start..=log.end).contains(cleaned));
        let first_dirty = checkpointed.unwrap_or(log.log_start);
        let Some((active, sealed)) = log.segments.split_last() else {
            return Dirty::nothing(first_dirty);
        };
        let holder = |offset: Offset| if offset < active.base { holder(sealed, offset) } else { sealed.len() };
        let from = holder(first_dirty);
        let dirty_sealed = || sealed.iter().skip(from);
        let too_young = dirty_sealed().find(|segment| is_young(segment, config, now_ms)).map(|young| young.base);
        let bound = [Some(log.stable), Some(active.base), too_young].into_iter().flatten().min();
        let bound = bound.unwrap_or(active.base).max(first_dirty);
        let uncleanable = sealed.get(holder(bound)).unwrap_or(active).base;
        let dirty = dirty_sealed().take_while(|segment| segment.base < uncleanable);
        Dirty {
            first_dirty,
            first_uncleanable: uncleanable.max(first_dirty),
            clean_bytes: sum(sealed.iter().take_while(|segment| segment.base < first_dirty.min(uncleanable))),
            dirty_bytes: sum(dirty),
            is_overdue: is_overdue(dirty_sealed(), config, now_ms),
        }
    }

    fn nothing(first_dirty: Offset) -> Dirty {
        Dirty { first_dirty, first_uncleanable: first_dirty, clean_bytes: 0, dirty_bytes: 0, is_overdue: false }
    }

    /// The share of dirty bytes, by which logs are compared.
    pub fn ratio(&self) -> f64 {
        let all = self.clean_bytes + self.dirty_bytes;
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }

    /// Whether a pass is worthwhile: by the share of dirty bytes, or because records have waited for too long.
    pub fn is_due(&self, config: &TopicConfig) -> bool {
        self.dirty_bytes > 0 && (self.is_overdue || self.ratio() > config.min_cleanable_dirty_ratio)
    }
}

/// Which segments become one, as ranges of `segments`, all of which lie below `end`: neighbours, as long as their bytes fit a
/// segment, their entries an index, and their offsets 31 bits.
pub fn group(segments: &[SegmentFacts], end: Offset, config: &TopicConfig) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut bytes, mut indexes) = (0, (0, 0));
    for (i, segment) in segments.iter().enumerate() {
        let own = (u64::from(segment.index_bytes.0), u64::from(segment.index_bytes.1));
        let next = segments.get(i + 1).map_or(end, |next| next.base);
        let fits = groups.last().is_some_and(|group| {
            let base = segments[group.start].base;
            let most = u64::from(config.segment_index_bytes);
            bytes + u64::from(segment.bytes) <= u64::from(config.segment_bytes)
                && indexes.0 + own.0 <= most
                && indexes.1 + own.1 <= most
                && (segment.bytes == 0 || next - base - 1 <= i64::from(i32::MAX))
        });
        match groups.last_mut().filter(|_| fits) {
            Some(group) => group.end = i + 1,
            None => {
                groups.push(i..i + 1);
                (bytes, indexes) = (0, (0, 0));
            }
        }
        bytes += u64::from(segment.bytes);
        indexes = (indexes.0 + own.0, indexes.1 + own.1);
    }
    groups
}

/// The segment that holds an offset, or the first one if it lies before all.
fn holder(sealed: &[SegmentFacts], offset: Offset) -> usize {
    sealed.partition_point(|segment| segment.base <= offset).saturating_sub(1)
}

fn is_young(segment: &SegmentFacts, config: &TopicConfig, now_ms: i64) -> bool {
    let lag_ms = config.min_compaction_lag_ms;
    lag_ms > 0 && segment.max_timestamp_ms.unwrap_or(-1) > now_ms.saturating_sub(lag_ms)
}

fn is_overdue<'a>(mut dirty: impl Iterator<Item = &'a SegmentFacts>, config: &TopicConfig, now_ms: i64) -> bool {
    let until_ms = now_ms.saturating_sub(config.max_compaction_lag_ms);
    dirty.any(|segment| segment.first_timestamp_ms.is_some_and(|first| first > 0 && first < until_ms))
}

fn sum<'a>(segments: impl Iterator<Item = &'a SegmentFacts>) -> u64 {
    segments.map(|segment| u64::from(segment.bytes)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn segments(bases: &[(i64, u32)]) -> Vec<SegmentFacts> {
        let facts = |(base, bytes): &(i64, u32)| SegmentFacts {
            base: Offset(*base),
            bytes: *bytes,
            max_timestamp_ms: Some(base * 1000),
            first_timestamp_ms: Some(base * 1000),
            index_bytes: (8, 12),
        };
        bases.iter().map(facts).collect()
    }

    fn log(segments: &[SegmentFacts], cleaned: Option<i64>) -> LogFacts<'_> {
        let (log_start, end) = (segments[0].base, segments[segments.len() - 1].base + 50);
        LogFacts { log_start, end, stable: end, cleaned: cleaned.map(Offset), segments }
    }

    fn dirty(log: &LogFacts<'_>) -> (i64, i64, u64, u64) {
        let dirty = Dirty::of(log, &TopicConfig::default(), 0);
        (dirty.first_dirty.0, dirty.first_uncleanable.0, dirty.clean_bytes, dirty.dirty_bytes)
    }

    #[test]
    fn the_dirty_part_lies_between_the_checkpoint_and_the_active_segment() {
        let four = segments(&[(0, 10), (100, 20), (200, 40), (300, 80)]);
        assert_eq!(dirty(&log(&four, None)), (0, 300, 0, 70));
        assert_eq!(dirty(&log(&four, Some(100))), (100, 300, 10, 60));
        assert_eq!(dirty(&log(&four, Some(150))), (150, 300, 30, 60), "the segment between is both, as in Kafka");
        assert_eq!(dirty(&log(&four, Some(300))), (300, 300, 70, 0));
        assert_eq!(dirty(&log(&four, Some(320))), (320, 320, 70, 0));
        assert_eq!(dirty(&log(&segments(&[(0, 10)]), None)), (0, 0, 0, 0), "the active segment is left alone");
        let none = LogFacts { segments: &[], ..log(&four, None) };
        assert_eq!(dirty(&none), (0, 0, 0, 0));
    }

    #[test]
    fn nothing_unstable_is_touched() {
        let four = segments(&[(0, 10), (100, 20), (200, 40), (300, 80)]);
        for (stable, expected) in [(299, 200), (200, 200), (199, 100), (0, 0), (330, 300)] {
            let log = LogFacts { stable: Offset(stable), ..log(&four, None) };
            assert_eq!(dirty(&log).1, expected, "stable below {stable}");
        }
        let behind = LogFacts { stable: Offset(120), ..log(&four, Some(200)) };
        assert_eq!(dirty(&behind), (200, 200, 30, 0));
    }

    #[test]
    fn a_checkpoint_that_fits_no_longer_is_not_believed() {
        let four = segments(&[(50, 10), (100, 20), (200, 40), (300, 80)]);
        assert_eq!(dirty(&log(&four, Some(49))).0, 50, "the log starts later now");
        assert_eq!(dirty(&log(&four, Some(351))).0, 50, "the log was cut");
        assert_eq!(dirty(&log(&four, Some(350))).0, 350);
    }

    #[test]
    fn lags_keep_young_records_and_hasten_old_ones() {
        let four = segments(&[(0, 10), (100, 20), (200, 40), (300, 80)]);
        let log = log(&four, None);
        let young = TopicConfig { min_compaction_lag_ms: 60_000, ..TopicConfig::default() };
        assert_eq!(Dirty::of(&log, &young, 159_999).first_uncleanable, Offset(100));
        assert_eq!(Dirty::of(&log, &young, 160_000).first_uncleanable, Offset(200));
        let config = TopicConfig { min_cleanable_dirty_ratio: 1.0, ..TopicConfig::default() };
        assert!(!Dirty::of(&log, &config, DAY_MS).is_due(&config), "not more than all of it is dirty");
        let hasty = TopicConfig { max_compaction_lag_ms: 60_000, ..config };
        assert!(!Dirty::of(&log, &hasty, 160_000).is_due(&hasty));
        assert!(Dirty::of(&log, &hasty, 160_001).is_due(&hasty), "a timestamp of 0 says nothing, as in Kafka");
    }

    #[test]
    fn the_share_of_dirty_bytes_decides() {
        let config = TopicConfig::default();
        let four = segments(&[(0, 70), (100, 20), (200, 50), (300, 80)]);
        let due = |cleaned| Dirty::of(&log(&four, cleaned), &config, 0).is_due(&config);
        assert!(due(None) && !due(Some(100)) && !due(Some(300)));
        let more = segments(&[(0, 70), (100, 20), (200, 51), (300, 80)]);
        assert!(Dirty::of(&log(&more, Some(100)), &config, 0).is_due(&config), "71 of 141");
        assert!(!Dirty::of(&log(&segments(&[(0, 0), (100, 0), (200, 9)]), None), &config, 0).is_due(&config));
    }

    #[test]
    fn neighbours_become_one_segment_within_its_bounds() {
        let config = TopicConfig { segment_bytes: 100, segment_index_bytes: 36, ..TopicConfig::default() };
        let of = |bases: &[(i64, u32)], end| -> Vec<(usize, usize)> {
            let groups = group(&segments(bases), Offset(end), &config);
            groups.into_iter().map(|group| (group.start, group.end)).collect()
        };
        assert_eq!(of(&[(0, 50), (10, 50), (20, 1), (30, 99), (40, 1)], 50), [(0, 2), (2, 4), (4, 5)]);
        assert_eq!(of(&[(0, 1), (10, 1), (20, 1), (30, 1)], 40), [(0, 3), (3, 4)], "12 bytes of time index each");
        let far = i64::from(i32::MAX);
        assert_eq!(of(&[(0, 1), (10, 1)], far + 1), [(0, 2)]);
        assert_eq!(of(&[(0, 1), (10, 1)], far + 2), [(0, 1), (1, 2)], "31 bits of offsets");
        assert_eq!(of(&[(0, 1), (10, 0), (far * 2, 1)], far * 2 + 5), [(0, 2), (2, 3)], "an empty one reaches nowhere");
        assert_eq!(of(&[(0, 500), (10, 500)], 20), [(0, 1), (1, 2)], "larger than a segment may be now");
        assert!(of(&[], 0).is_empty());
    }
}
