//! File and directory names of a log, as Kafka 3.9 has them.

use crate::base::ids::{Offset, PartitionIndex, Uuid};
use std::path::{Path, PathBuf};

/// The files of one segment and those that belong to an offset, by suffix.
pub const LOG: &str = "log";
pub const OFFSET_INDEX: &str = "index";
pub const TIME_INDEX: &str = "timeindex";
pub const TXN_INDEX: &str = "txnindex";
pub const PRODUCER_SNAPSHOT: &str = "snapshot";
pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
pub const PARTITION_METADATA: &str = "partition.metadata";

/// Added to the names of files that left the log.
pub const DELETED_FILE: &str = ".deleted";

/// Added to the names of files that compaction has made: until they are complete, and until they are in their place.
pub const CLEANED_FILE: &str = ".cleaned";
pub const SWAP_FILE: &str = ".swap";

/// Directories of deleted partitions: renamed at once, removed later.
const DELETED: &str = "-delete";
/// Directories whose topic this cluster does not know: set aside, never removed.
const STRAY: &str = "-stray";
const MARKED_NAME_MAX: usize = 255;

/// What a directory's name says about it.
#[derive(Debug, PartialEq, Eq)]
pub enum DirName {
    Partition { topic: String, partition: PartitionIndex },
    Deleted,
    Stray,
    Other,
}

pub fn partition_dir(topic: &str, partition: PartitionIndex) -> String {
    format!("{topic}-{partition}")
}

/// The name that a deleted partition's directory bears until it is removed: `topic-partition.<uuid>-delete`.
pub fn deleted_dir(topic: &str, partition: PartitionIndex) -> String {
    marked(topic, partition, DELETED)
}

/// The name of a directory that is set aside: `topic-partition.<uuid>-stray`.
pub fn stray_dir(topic: &str, partition: PartitionIndex) -> String {
    marked(topic, partition, STRAY)
}

fn marked(topic: &str, partition: PartitionIndex, mark: &str) -> String {
    let tail = format!("-{partition}.{}{mark}", Uuid::new_v4().simple());
    let kept = topic.len().min(MARKED_NAME_MAX - tail.len());
    format!("{}{tail}", &topic[..kept])
}

pub fn parse_dir(name: &str) -> DirName {
    if name.ends_with(DELETED) && name.contains('.') {
        return DirName::Deleted;
    }
    if name.ends_with(STRAY) && name.contains('.') {
        return DirName::Stray;
    }
    let parsed = name.rsplit_once('-').and_then(|(topic, index)| {
        let canonical = index == "0" || (!index.starts_with('0') && index.bytes().all(|b| b.is_ascii_digit()));
        let partition = PartitionIndex(index.parse().ok().filter(|_| canonical)?);
        (!topic.is_empty()).then(|| DirName::Partition { topic: topic.to_string(), partition })
    });
    parsed.unwrap_or(DirName::Other)
}

/// `00000000000000001234.log` and the like.
pub fn segment_file(dir: &Path, base: Offset, suffix: &str) -> PathBuf {
    dir.join(format!("{:020}.{suffix}", base.0))
}

/// The base offset and suffix of a segment's file; None for any other name.
pub fn parse_segment_file(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let dir = partition_dir("a-b.c", PartitionIndex(12));
        assert_eq!(parse_dir(&dir), DirName::Partition { topic: "a-b.c".into(), partition: PartitionIndex(12) });
        assert_eq!(parse_dir(&deleted_dir("a-b.c", PartitionIndex(0))), DirName::Deleted);
        assert_eq!(parse_dir(&stray_dir(&"x".repeat(249), PartitionIndex(9999))), DirName::Stray);
        assert!(deleted_dir(&"x".repeat(249), PartitionIndex(9999)).len() <= MARKED_NAME_MAX);
        for other in ["lost+found", "topic", "-0", "topic-01", "topic--1x"] {
            assert_eq!(parse_dir(other), DirName::Other, "{other}");
        }
        let path = segment_file(Path::new("/d"), Offset(1234), LOG);
        let name = path.file_name().and_then(|n| n.to_str()).expect("utf-8");
        assert_eq!(parse_segment_file(name), Some((Offset(1234), "log")));
        assert_eq!(parse_segment_file("1234.log"), None);
    }
}
