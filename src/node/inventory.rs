//! What lies in the log directories at start: read once, before the shards run.

use super::format::LogDir;
use crate::base::ids::PartitionIndex;
use crate::coordination::embedded::FILE_NAME;
use crate::log::checkpoint::{self, PartitionOffsets};
use crate::log::paths::{self, DirName};
use crate::partition::materialise::read_topic_id;
use crate::partition::table::FoundLogDir;
use anyhow::{Context, bail};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tracing::warn;

/// Everything found, and the directories of deleted partitions that are still to be removed.
pub struct Inventory {
    pub dirs: Vec<FoundLogDir>,
    pub deleted: Vec<PathBuf>,
}

/// Looks through all log directories.
pub fn take(dirs: &[LogDir]) -> io::Result<Inventory> {
    let mut inventory = Inventory { dirs: Vec::new(), deleted: Vec::new() };
    for dir in dirs {
        let mut found = FoundLogDir {
            path: dir.path.clone(),
            clean: dir.was_clean,
            recovery_points: read_offsets(&dir.path, checkpoint::RECOVERY_POINTS),
            log_starts: read_offsets(&dir.path, checkpoint::LOG_START_OFFSETS),
            partitions: Default::default(),
        };
        for entry in fs::read_dir(&dir.path)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            match entry.file_name().to_str().map(paths::parse_dir) {
                Some(DirName::Partition { topic, partition }) => {
                    found.partitions.insert((topic, partition), read_topic_id(&entry.path()));
                }
                Some(DirName::Deleted) => inventory.deleted.push(entry.path()),
                Some(DirName::Stray) => warn!("{} was set aside earlier; look into it", entry.path().display()),
                _ => warn!("{} is not a partition's directory", entry.path().display()),
            }
        }
        inventory.dirs.push(found);
    }
    Ok(inventory)
}

impl Inventory {
    /// Where the coordination store lies: where it was made, whatever the order of `log.dirs` is now. A node that began a
    /// new one in its absence would not know its topics any more. (Checkpoints are written a minute after the first start.)
    pub fn store_file(&self) -> anyhow::Result<PathBuf> {
        let mut holders = self.dirs.iter().map(|dir| dir.path.join(FILE_NAME)).filter(|file| file.exists());
        match (holders.next(), holders.next()) {
            (Some(file), None) => return Ok(file),
            (Some(one), Some(other)) => bail!(
                "{} and {}: both hold a {FILE_NAME}; move the copy away, so that the topics of one count",
                one.parent().unwrap_or(&one).display(),
                other.parent().unwrap_or(&other).display()
            ),
            _ => {}
        }
        let was_used =
            |dir: &FoundLogDir| !dir.partitions.is_empty() || dir.path.join(checkpoint::RECOVERY_POINTS).exists();
        if let Some(dir) = self.dirs.iter().find(|dir| was_used(dir)) {
            bail!(
                "{} was in use before, and no directory of log.dirs has {FILE_NAME}, in which its topics are: the \
                 directory that has it is missing from log.dirs, or the file is lost; restore it from a copy",
                dir.path.display()
            );
        }
        let first = self.dirs.first().context("log.dirs names no directory")?;
        Ok(first.path.join(FILE_NAME))
    }
}

/// Removes what deleted topics left behind, in the background.
pub fn remove_deleted(deleted: Vec<PathBuf>) {
    if deleted.is_empty() {
        return;
    }
    let remove = move || {
        for dir in deleted {
            if let Err(e) = fs::remove_dir_all(&dir) {
                warn!("removing {}: {e}", dir.display());
            }
        }
    };
    if let Err(e) = std::thread::Builder::new().name("remove-deleted".into()).spawn(remove) {
        warn!("directories of deleted partitions stay for now: {e}");
    }
}

/// A checkpoint that is missing or damaged says nothing: the log itself is read then.
fn read_offsets(dir: &Path, name: &str) -> PartitionOffsets {
    let path = dir.join(name);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return PartitionOffsets::new(),
        Err(e) => {
            warn!("{}: {e}; logs are read instead", path.display());
            return PartitionOffsets::new();
        }
    };
    let mut offsets = checkpoint::decode_partition_offsets(&text).unwrap_or_else(|e| {
        warn!("{}: {e}; logs are read instead", path.display());
        PartitionOffsets::new()
    });
    offsets.retain(|(_, PartitionIndex(index)), offset| *index >= 0 && offset.0 >= 0);
    offsets
}
