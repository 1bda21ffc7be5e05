//! The sparse indexes of a segment: by offset and by time.
//!
//! Both are arrays of fixed-size big-endian entries without a checksum, exactly as Kafka lays them out:
//!
//! ```text
//! .index      | relative offset i32 | position i32 |                 8 bytes an entry
//! .timeindex  | timestamp i64       | relative offset i32 |         12 bytes an entry
//! ```
//!
//! Crash argument: an index only repeats what the segment says. It is written whole when the segment is sealed or the log is
//! closed; now and then what is new is appended to the files of the active segment, and synced (`DetachedSegment::append_indexes`).
//! After an unclean stop recovery takes from them only entries below a producer snapshot, which is written when they are
//! on disk (`decode_below`), and reads the segment from there; a file that does not pass `decode` is rebuilt. Entries of a part that
//! was cut go with their file. So no order of writes to it can make a reader see a wrong position.

use crate::base::ids::Offset;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

pub const OFFSET_ENTRY_BYTES: usize = 8;
pub const TIME_ENTRY_BYTES: usize = 12;

/// Why an index file was not taken: it is rebuilt from the segment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("entry {entry} of the offset index does not follow its predecessor")]
    OffsetOrder { entry: usize },
    #[error("entry {entry} of the time index does not follow its predecessor")]
    TimeOrder { entry: usize },
    #[error("entry {entry} points at byte {position} of a segment of {size} bytes")]
    BeyondEnd { entry: usize, position: u32, size: u32 },
    #[error("{bytes} bytes are no whole number of entries")]
    Ragged { bytes: usize },
}

/// Where batches lie: each entry has the *last* offset of the batch that begins at its position (as in Kafka).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetIndex {
    entries: Vec<OffsetEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OffsetEntry {
    relative_offset: u32,
    position: u32,
}

/// The greatest timestamp so far, and the last offset of the batch that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex {
    entries: Vec<TimeEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    pub timestamp_ms: i64,
    pub relative_offset: u32,
}

impl OffsetIndex {
    /// Entries must come with rising offsets; one that does not rise is dropped.
    pub fn push(&mut self, relative_offset: u32, position: u32) {
        if self.entries.last().is_none_or(|last| last.relative_offset < relative_offset) {
            self.entries.push(OffsetEntry { relative_offset, position });
        }
    }

    /// A position at or before the batch that holds the offset: 0 when the index is silent.
    pub fn position_before(&self, relative_offset: u32) -> u32 {
        let after = self.entries.partition_point(|entry| entry.relative_offset <= relative_offset);
        after.checked_sub(1).map_or(0, |i| self.entries[i].position)
    }

    /// How many entries point before a position.
    pub fn entries_before(&self, position: u32) -> usize {
        self.entries.partition_point(|entry| entry.position < position)
    }

    /// An entry's offset and position.
    pub fn entry(&self, at: usize) -> Option<(u32, u32)> {
        self.entries.get(at).map(|entry| (entry.relative_offset, entry.position))
    }

    pub fn len(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The last entry's offset and position.
    pub fn last(&self) -> Option<(u32, u32)> {
        self.entries.last().map(|entry| (entry.relative_offset, entry.position))
    }

    /// Bytes that the index takes in its file.
    pub fn bytes(&self) -> usize {
        self.entries.len() * OFFSET_ENTRY_BYTES
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.relative_offset.to_be_bytes());
            out.extend_from_slice(&entry.position.to_be_bytes());
        }
        out
    }

    /// Reads a file's content; a zero tail (Kafka preallocates) ends it. `segment_bytes` bounds the positions.
    pub fn decode(content: &[u8], segment_bytes: u32) -> Result<OffsetIndex, IndexError> {
        let (chunks, rest) = content.as_chunks::<OFFSET_ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(IndexError::Ragged { bytes: content.len() });
        }
        let mut index = OffsetIndex::default();
        for (i, chunk) in chunks.iter().enumerate() {
            let [a, b, c, d, e, f, g, h] = *chunk;
            let entry = OffsetEntry {
                relative_offset: u32::from_be_bytes([a, b, c, d]),
                position: u32::from_be_bytes([e, f, g, h]),
            };
            if i > 0 && entry.relative_offset == 0 && entry.position == 0 {
                break;
            }
            let follows = index
                .entries
                .last()
                .is_none_or(|last| last.relative_offset < entry.relative_offset && last.position < entry.position);
            if !follows {
                return Err(IndexError::OffsetOrder { entry: i });
            }
            if entry.position > segment_bytes || (segment_bytes > 0 && entry.position == segment_bytes) {
                return Err(IndexError::BeyondEnd { entry: i, position: entry.position, size: segment_bytes });
            }
            index.entries.push(entry);
        }
        Ok(index)
    }
}

impl OffsetIndex {
    /// Reads the entries of batches that end below an offset: up to the first one that is not, or that a torn write left.
    pub fn decode_below(content: &[u8], segment_bytes: u32, relative_offset: u32) -> OffsetIndex {
        let mut index = OffsetIndex::default();
        for [a, b, c, d, e, f, g, h] in content.as_chunks::<OFFSET_ENTRY_BYTES>().0 {
            let entry = OffsetEntry {
                relative_offset: u32::from_be_bytes([*a, *b, *c, *d]),
                position: u32::from_be_bytes([*e, *f, *g, *h]),
            };
            let follows = index
                .entries
                .last()
                .is_none_or(|last| last.relative_offset < entry.relative_offset && last.position < entry.position);
            if !follows || entry.relative_offset >= relative_offset || entry.position >= segment_bytes {
                break;
            }
            index.entries.push(entry);
        }
        index
    }

    /// What the file has from this entry on.
    pub fn encode_from(&self, entry: u32) -> Vec<u8> {
        let new = OffsetIndex { entries: self.entries.get(entry as usize..).unwrap_or_default().to_vec() };
        new.encode()
    }
}

impl TimeIndex {
    /// As `OffsetIndex::decode_below`: the entries up to an offset.
    pub fn decode_to(content: &[u8], relative_offset: u32) -> TimeIndex {
        let mut index = TimeIndex::default();
        for chunk in content.as_chunks::<TIME_ENTRY_BYTES>().0 {
            let entry = decode_time_entry(chunk);
            let follows = index.entries.last().is_none_or(|last| {
                last.timestamp_ms < entry.timestamp_ms && last.relative_offset <= entry.relative_offset
            });
            if !follows || entry.relative_offset > relative_offset || entry.timestamp_ms < 0 {
                break;
            }
            index.entries.push(entry);
        }
        index
    }

    /// What the file has from this entry on.
    pub fn encode_from(&self, entry: u32) -> Vec<u8> {
        let new = TimeIndex { entries: self.entries.get(entry as usize..).unwrap_or_default().to_vec() };
        new.encode()
    }

    /// Entries must rise in time and offset; others are dropped, as Kafka's `maybeAppend` does.
    pub fn push(&mut self, timestamp_ms: i64, relative_offset: u32) {
        let follows = self
            .entries
            .last()
            .is_none_or(|last| last.timestamp_ms < timestamp_ms && last.relative_offset <= relative_offset);
        if follows && timestamp_ms >= 0 {
            self.entries.push(TimeEntry { timestamp_ms, relative_offset });
        }
    }

    /// The last entry whose timestamp is not after the target: the search goes on from its offset.
    pub fn entry_before(&self, timestamp_ms: i64) -> Option<TimeEntry> {
        let after = self.entries.partition_point(|entry| entry.timestamp_ms <= timestamp_ms);
        after.checked_sub(1).map(|i| self.entries[i])
    }

    pub fn len(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn last(&self) -> Option<TimeEntry> {
        self.entries.last().copied()
    }

    pub fn bytes(&self) -> usize {
        self.entries.len() * TIME_ENTRY_BYTES
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.timestamp_ms.to_be_bytes());
            out.extend_from_slice(&entry.relative_offset.to_be_bytes());
        }
        out
    }

    pub fn decode(content: &[u8]) -> Result<TimeIndex, IndexError> {
        let (chunks, rest) = content.as_chunks::<TIME_ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(IndexError::Ragged { bytes: content.len() });
        }
        let mut index = TimeIndex::default();
        for (i, chunk) in chunks.iter().enumerate() {
            let entry = decode_time_entry(chunk);
            // A first entry of zeros may be a real one, but not when zeros follow: then the file was never written to.
            let may_be_real = i == 0 && chunks.get(1).is_none_or(|next| *next != [0; TIME_ENTRY_BYTES]);
            if *chunk == [0; TIME_ENTRY_BYTES] && !may_be_real {
                break;
            }
            let follows = index.entries.last().is_none_or(|last| {
                last.timestamp_ms < entry.timestamp_ms && last.relative_offset <= entry.relative_offset
                    // Kafka repeats the last entry when it seals a segment.
                    || *last == entry
            });
            if !follows {
                return Err(IndexError::TimeOrder { entry: i });
            }
            index.push(entry.timestamp_ms, entry.relative_offset);
        }
        Ok(index)
    }
}

fn decode_time_entry(chunk: &[u8; TIME_ENTRY_BYTES]) -> TimeEntry {
    let [t0, t1, t2, t3, t4, t5, t6, t7, o0, o1, o2, o3] = *chunk;
    TimeEntry {
        timestamp_ms: i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        relative_offset: u32::from_be_bytes([o0, o1, o2, o3]),
    }
}

/// The last entry of a time index file, without reading all of it where that can be told; None: it must be rebuilt, or
/// says nothing. Blocking, but short.
pub fn last_time_entry(path: &Path) -> Option<TimeEntry> {
    let file = File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    let mut last = [0; TIME_ENTRY_BYTES];
    if bytes > 0 && bytes.is_multiple_of(TIME_ENTRY_BYTES as u64) {
        file.read_exact_at(&mut last, bytes - TIME_ENTRY_BYTES as u64).ok()?;
        if last != [0; TIME_ENTRY_BYTES] {
            return Some(decode_time_entry(&last));
        }
    }
    TimeIndex::decode(&fs::read(path).ok()?).ok()?.last()
}

/// The offset that an entry means in the segment that begins at `base`.
pub fn absolute(base: Offset, relative_offset: u32) -> Offset {
    base + i64::from(relative_offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lookup_is_the_last_entry_at_or_before(
            steps in prop::collection::vec((1u32..50, 1u32..5000), 0..60), target in 0u32..4000
        ) {
            let mut index = OffsetIndex::default();
            let (mut offset, mut position, mut expected) = (0, 0, 0);
            for (more, bytes) in steps {
                offset += more;
                position += bytes;
                index.push(offset, position);
                if offset <= target {
                    expected = position;
                }
            }
            prop_assert_eq!(index.position_before(target), expected);
            let mut file = index.encode();
            prop_assert_eq!(OffsetIndex::decode(&file, position + 1), Ok(index.clone()));
            file.extend_from_slice(&[0; 80]);
            if index.bytes() > 0 {
                prop_assert_eq!(OffsetIndex::decode(&file, position + 1), Ok(index));
            }
        }

        #[test]
        fn decoding_never_panics(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = OffsetIndex::decode(&content, 1000);
            let _ = TimeIndex::decode(&content);
        }
    }

    #[test]
    fn time_index_keeps_only_what_rises() {
        let mut index = TimeIndex::default();
        for (timestamp, offset) in [(10, 1), (10, 5), (9, 6), (30, 7)] {
            index.push(timestamp, offset);
        }
        assert_eq!(index.entry_before(9), None);
        assert_eq!(index.entry_before(29).map(|e| e.relative_offset), Some(1));
        assert_eq!(TimeIndex::decode(&index.encode()), Ok(index.clone()));
    }
}
