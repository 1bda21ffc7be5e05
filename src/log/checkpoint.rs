//! Kafka's checkpoint files: small texts that map partitions, or leader epochs, to offsets.
//!
//! ```text
//! 0                     version
//! 2                     number of lines that follow
//! topic-a 0 1234        topic, partition, offset     (recovery-point-offset-checkpoint and its kin)
//! 3 1200                leader epoch, start offset   (leader-epoch-checkpoint)
//! ```
//!
//! Crash argument: the whole text goes to `NAME.tmp`, is fsynced, renamed over NAME, and the directory fsynced.
//! At every instant NAME is the old text or the new one; a reader that finds neither falls back to the log itself.

use crate::base::ids::{LeaderEpoch, Offset, PartitionIndex};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
pub const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
/// Up to where logs were compacted.
pub const CLEANED: &str = "cleaner-offset-checkpoint";
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";

/// Why a checkpoint file was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("line {line}: expected {expected}, found {found:?}")]
    Malformed { line: usize, expected: &'static str, found: String },
    #[error("version {found} is not 0")]
    Version { found: String },
    #[error("{expected} lines announced, {found} found")]
    Count { expected: usize, found: usize },
}

/// Offsets by topic name and partition.
pub type PartitionOffsets = BTreeMap<(String, PartitionIndex), Offset>;

pub fn encode_partition_offsets(offsets: &PartitionOffsets) -> String {
    lines(offsets.len(), offsets.iter().map(|((topic, partition), offset)| format!("{topic} {partition} {offset}")))
}

pub fn decode_partition_offsets(text: &str) -> Result<PartitionOffsets, CheckpointError> {
    entries(text)?
        .map(|(line, content)| {
            let mut words = content.split(' ');
            let parsed = (|| {
                let topic = words.next()?.to_string();
                let partition = PartitionIndex(words.next()?.parse().ok()?);
                let offset = Offset(words.next()?.parse().ok()?);
                words.next().is_none().then_some(((topic, partition), offset))
            })();
            parsed.ok_or_else(|| malformed(line, "topic partition offset", content))
        })
        .collect()
}

pub fn encode_epochs(epochs: &[(LeaderEpoch, Offset)]) -> String {
    lines(epochs.len(), epochs.iter().map(|(epoch, start)| format!("{epoch} {start}")))
}

pub fn decode_epochs(text: &str) -> Result<Vec<(LeaderEpoch, Offset)>, CheckpointError> {
    entries(text)?
        .map(|(line, content)| {
            let parsed = content
                .split_once(' ')
                .and_then(|(epoch, start)| Some((LeaderEpoch(epoch.parse().ok()?), Offset(start.parse().ok()?))));
            parsed.ok_or_else(|| malformed(line, "epoch start-offset", content))
        })
        .collect()
}

/// Writes a file so that a crash leaves the old content or the new one.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    write_synced(Path::new(&temporary), content)?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a file whose content is on disk when it returns, but not its name.
pub fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn lines(count: usize, body: impl Iterator<Item = String>) -> String {
    let mut text = format!("0\n{count}\n");
    for line in body {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The numbered lines after version and count.
fn entries(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, CheckpointError> {
    let mut all = text.lines();
    let version = all.next().unwrap_or("");
    if version != "0" {
        return Err(CheckpointError::Version { found: version.chars().take(20).collect() });
    }
    let count = all.next().unwrap_or("");
    let expected: usize = count.parse().map_err(|_| malformed(2, "a number of lines", count))?;
    let found = all.clone().count();
    if found != expected {
        return Err(CheckpointError::Count { expected, found });
    }
    Ok(all.enumerate().map(|(i, line)| (i + 3, line)))
}

fn malformed(line: usize, expected: &'static str, found: &str) -> CheckpointError {
    CheckpointError::Malformed { line, expected, found: found.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        let offsets = PartitionOffsets::from([
            (("a".to_string(), PartitionIndex(0)), Offset(7)),
            (("b-c".to_string(), PartitionIndex(12)), Offset(0)),
        ]);
        assert_eq!(decode_partition_offsets(&encode_partition_offsets(&offsets)), Ok(offsets));
        let epochs = vec![(LeaderEpoch(0), Offset(0)), (LeaderEpoch(5), Offset(1200))];
        assert_eq!(encode_epochs(&epochs), "0\n2\n0 0\n5 1200\n");
        assert_eq!(decode_epochs("0\n2\n0 0\n5 1200\n"), Ok(epochs));
    }

    #[test]
    fn damaged_texts_are_refused() {
        assert!(matches!(decode_epochs(""), Err(CheckpointError::Version { .. })));
        assert!(matches!(decode_epochs("1\n0\n"), Err(CheckpointError::Version { .. })));
        assert!(matches!(decode_epochs("0\n2\n0 0\n"), Err(CheckpointError::Count { expected: 2, found: 1 })));
        assert!(matches!(decode_epochs("0\n1\n0\n"), Err(CheckpointError::Malformed { line: 3, .. })));
        assert!(matches!(decode_partition_offsets("0\n1\na 0 x\n"), Err(CheckpointError::Malformed { line: 3, .. })));
    }

    #[test]
    fn a_rewrite_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(RECOVERY_POINTS);
        write_atomically(&path, b"0\n0\n").expect("write");
        write_atomically(&path, b"0\n0\n").expect("rewrite");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
