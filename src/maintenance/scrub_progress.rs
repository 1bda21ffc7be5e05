//! How far the scrub of a log directory has come, and when it goes on. Pure: whoever asks says what time it is.
//!
//! A *round* looks at every segment of a shard's partitions in one log directory, in the order of topic, partition and
//! offset. Its progress is kept in that directory, in `corelog-scrub.N` for shard N, so that a restart goes on where it was:
//!
//! ```text
//! 0                              version
//! begun 1732213123000            when the round began, in ms since 1970
//! ended 1732219999000            when it ended; 0: it is under way
//! whole 1732219999000            when the last round ended that reached its end; 0: none has
//! segments 120                   looked through in this round
//! bytes 120000000                of them
//! total 240000000                bytes that the round had before it when it began
//! damaged 0                      segments with damage
//! gaps 0                         segments that lack offsets although nothing was compacted; older files have no such line
//! at 4096 17 clicks              the last segment's base offset, its partition and topic; - before the first
//! crc32c 8a2f01c3                of everything before this line
//! ```
//!
//! Crash argument: it is rewritten as checkpoints are, so it is old or new; old means that some segments are looked at again.
//! One that cannot be read means that a round begins. What is deleted, retained or compacted meanwhile is not there when its
//! turn comes, or is no longer when it has been read: neither is an error, and what came in its place is read in the next round.

use crate::base::ids::{Offset, PartitionIndex};
use crate::record::batch::crc32c;
use std::time::Duration;

/// The file's name, with the shard behind it; none that a partition's directory can have.
const FILE: &str = "corelog-scrub.";

/// What is set of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub enabled: bool,
    pub period: Duration,
    /// A round that began before this is begun anew.
    pub asked_ms: i64,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing for so long, or until the settings change.
    Wait(Duration),
    /// A round begins.
    Begin,
    /// The next segment's turn.
    Look,
}

/// A segment, in the order of a round.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub topic: String,
    pub partition: PartitionIndex,
    pub segment: Offset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub begun_ms: i64,
    pub ended_ms: i64,
    pub whole_ms: i64,
    pub segments: u64,
    pub bytes: u64,
    pub total: u64,
    pub damaged: u64,
    pub gaps: u64,
    pub at: Option<At>,
}

/// What was found in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    pub is_damaged: bool,
    /// Offsets are missing in it, and compaction did not take them.
    pub has_gap: bool,
}

/// Why a file was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgressError {
    #[error("the checksum is {expected:08x} by its last line, and {found:08x} of what is there")]
    Checksum { expected: u32, found: u32 },
    #[error("expected {expected}, found {found:?}")]
    Malformed { expected: &'static str, found: String },
}

/// The name of a shard's file.
pub fn file_name(shard: u16) -> String {
    format!("{FILE}{shard}")
}

/// The shard whose file bears this name.
pub fn shard_of(name: &str) -> Option<u16> {
    name.strip_prefix(FILE)?.parse().ok()
}

impl Progress {
    pub fn is_under_way(&self) -> bool {
        self.begun_ms > 0 && self.ended_ms == 0
    }

    pub fn step(&self, now_ms: i64, settings: &Settings) -> Step {
        if !settings.enabled {
            return Step::Wait(settings.period);
        }
        // A clock that was wrong must not put off the next round for ever.
        let begun_ms = if self.begun_ms > now_ms && !self.is_under_way() { 0 } else { self.begun_ms };
        if begun_ms == 0 || (settings.asked_ms > begun_ms && settings.asked_ms <= now_ms) {
            return Step::Begin;
        }
        if self.is_under_way() {
            return Step::Look;
        }
        let period_ms = i64::try_from(settings.period.as_millis()).unwrap_or(i64::MAX);
        let left_ms = begun_ms.saturating_add(period_ms).saturating_sub(now_ms);
        match u64::try_from(left_ms) {
            Ok(left_ms) if left_ms > 0 => Step::Wait(Duration::from_millis(left_ms)),
            _ => Step::Begin,
        }
    }

    pub fn begin(&mut self, now_ms: i64) {
        *self = Progress { begun_ms: now_ms.max(1), whole_ms: self.whole_ms, ..Progress::default() };
    }

    /// A segment has been looked through; or could not be, and its turn is over.
    pub fn passed(&mut self, at: At, bytes: u64, looked: Looked) {
        debug_assert!(self.at.as_ref().is_none_or(|before| *before < at));
        self.at = Some(at);
        self.segments += 1;
        self.bytes += bytes;
        self.damaged += u64::from(looked.is_damaged);
        self.gaps += u64::from(looked.has_gap);
    }

    pub fn end(&mut self, now_ms: i64) {
        self.ended_ms = now_ms.max(1);
        self.whole_ms = self.ended_ms;
    }

    /// Bytes that the round has before it, as far as was known when it began.
    pub fn left(&self) -> u64 {
        if self.is_under_way() { self.total.saturating_sub(self.bytes) } else { 0 }
    }

    pub fn encode(&self) -> String {
        let Progress { begun_ms, ended_ms, whole_ms, segments, bytes, total, damaged, gaps, at } = self;
        let at = at.as_ref().map_or("-".into(), |at| format!("{} {} {}", at.segment, at.partition, at.topic));
        let text = format!(
            "0\nbegun {begun_ms}\nended {ended_ms}\nwhole {whole_ms}\nsegments {segments}\nbytes {bytes}\ntotal {total}\n\
             damaged {damaged}\ngaps {gaps}\nat {at}\n"
        );
        format!("{text}crc32c {:08x}\n", crc32c(text.as_bytes()))
    }

    pub fn decode(text: &str) -> Result<Progress, ProgressError> {
        let malformed =
            |expected, found: &str| ProgressError::Malformed { expected, found: found.chars().take(80).collect() };
        let body_end = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
        let (body, last) = text.split_at(body_end);
        let expected = last.trim_end().strip_prefix("crc32c ").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let expected = expected.ok_or_else(|| malformed("a checksum", last))?;
        let found = crc32c(body.as_bytes());
        if found != expected {
            return Err(ProgressError::Checksum { expected, found });
        }
        let mut lines = body.lines();
        let counts_gaps = body.lines().any(|line| line.starts_with("gaps "));
        let version = lines.next().unwrap_or("");
        if version != "0" {
            return Err(malformed("version 0", version));
        }
        let mut word = |name: &'static str| {
            let line = lines.next().unwrap_or("");
            line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).ok_or_else(|| malformed(name, line))
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| malformed("a number", text));
        let time = |text: &str| text.parse::<i64>().map_err(|_| malformed("a time", text));
        Ok(Progress {
            begun_ms: time(word("begun")?)?,
            ended_ms: time(word("ended")?)?,
            whole_ms: time(word("whole")?)?,
            segments: number(word("segments")?)?,
            bytes: number(word("bytes")?)?,
            total: number(word("total")?)?,
            damaged: number(word("damaged")?)?,
            gaps: if counts_gaps { number(word("gaps")?)? } else { 0 },
            at: match word("at")? {
                "-" => None,
                at => Some(parse_at(at).ok_or_else(|| malformed("a segment", at))?),
            },
        })
    }
}

fn parse_at(text: &str) -> Option<At> {
    let mut words = text.splitn(3, ' ');
    let segment = Offset(words.next()?.parse().ok()?);
    let partition = PartitionIndex(words.next()?.parse().ok()?);
    Some(At { topic: words.next()?.to_owned(), partition, segment })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    fn settings() -> Settings {
        Settings { enabled: true, period: Duration::from_secs(3600), asked_ms: 0 }
    }

    fn at(topic: &str, segment: i64) -> At {
        At { topic: topic.into(), partition: PartitionIndex(3), segment: Offset(segment) }
    }

    #[test]
    fn a_round_begins_each_period_or_when_it_is_asked_for() {
        let mut progress = Progress::default();
        assert_eq!(progress.step(HOUR, &settings()), Step::Begin, "the first one at once");
        progress.begin(HOUR);
        progress.passed(at("a", 7), 100, Looked { is_damaged: true, has_gap: false });
        assert_eq!(progress.step(9 * HOUR, &settings()), Step::Look, "a round that takes longer is finished first");
        progress.end(HOUR + 60_000);
        assert_eq!(progress.step(HOUR + 60_000, &settings()), Step::Wait(Duration::from_secs(3540)));
        assert_eq!(progress.step(2 * HOUR, &settings()), Step::Begin);
        let asked = Settings { asked_ms: HOUR + 5, ..settings() };
        assert_eq!(progress.step(HOUR + 4, &asked), Step::Wait(Duration::from_millis(HOUR as u64 - 4)), "not yet");
        assert_eq!(progress.step(HOUR + 5, &asked), Step::Begin);
        progress.begin(HOUR + 6);
        assert_eq!(progress.step(HOUR + 7, &asked), Step::Look, "it was asked for once");
        assert_eq!((progress.segments, progress.at.clone(), progress.whole_ms), (0, None, HOUR + 60_000));
    }

    #[test]
    fn a_pause_holds_everything_and_a_wrong_clock_nothing() {
        let mut progress = Progress::default();
        let paused = Settings { enabled: false, asked_ms: 5, ..settings() };
        assert!(matches!(progress.step(HOUR, &paused), Step::Wait(_)));
        progress.begin(1000 * HOUR);
        assert!(matches!(progress.step(HOUR, &paused), Step::Wait(_)));
        assert_eq!(progress.step(HOUR, &settings()), Step::Look);
        progress.end(1000 * HOUR);
        assert_eq!(progress.step(HOUR, &settings()), Step::Begin);
    }

    #[test]
    fn a_file_from_before_gaps_were_counted_is_taken() {
        let text = "0\nbegun 5\nended 0\nwhole 0\nsegments 1\nbytes 2\ntotal 3\ndamaged 1\nat -\n";
        let text = format!("{text}crc32c {:08x}\n", crc32c(text.as_bytes()));
        let progress = Progress::decode(&text).expect("sound");
        assert_eq!((progress.damaged, progress.gaps), (1, 0));
        assert_eq!(Progress::decode(&progress.encode()), Ok(progress));
    }

    #[test]
    fn names_tell_shards() {
        assert_eq!(
            (shard_of(&file_name(12)), shard_of("scrub-1"), shard_of("corelog-scrub.1.tmp")),
            (Some(12), None, None)
        );
    }

    proptest! {
        #[test]
        fn texts_round_trip_and_damage_is_refused(
            numbers in proptest::array::uniform8(0..i64::MAX),
            at in proptest::option::of(("[a-zA-Z0-9._-]{1,249}", 0..i32::MAX, 0..i64::MAX)),
            flip in any::<proptest::sample::Index>(),
        ) {
            let [begun_ms, ended_ms, whole_ms, segments, bytes, total, damaged, gaps] = numbers;
            let [segments, bytes, total] = [segments, bytes, total].map(|number| number as u64);
            let [damaged, gaps] = [damaged, gaps].map(|number| number as u64);
            let at = at.map(|(topic, partition, segment)| At {
                topic,
                partition: PartitionIndex(partition),
                segment: Offset(segment),
            });
            let progress = Progress { begun_ms, ended_ms, whole_ms, segments, bytes, total, damaged, gaps, at };
            let text = progress.encode();
            prop_assert_eq!(Progress::decode(&text), Ok(progress));
            let mut damaged = text.into_bytes();
            let at = flip.index(damaged.len() - 1);
            damaged[at] ^= 1;
            if let Ok(damaged) = String::from_utf8(damaged) {
                prop_assert!(Progress::decode(&damaged).is_err());
            }
        }
    }
}
