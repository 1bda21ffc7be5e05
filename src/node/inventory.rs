//! What lies in the log directories at start: read once, before the shards run.

use super::format::LogDir;
use crate::base::disks::Harm;
use crate::base::ids::{PartitionIndex, TopicId};
use crate::coordination::embedded::FILE_NAME;
use crate::log::checkpoint::{self, PartitionOffsets};
use crate::log::paths::{self, DirName, PARTITION_METADATA};
use crate::maintenance::{self, Lane, Maintenance};
use crate::partition::materialise::read_topic_id;
use crate::partition::table::FoundLogDir;
use anyhow::{Context, bail};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use tracing::warn;

/// A partition by its topic's name.
type Name = (String, PartitionIndex);

/// Everything found, and the directories of deleted partitions that are still to be removed.
pub struct Inventory {
    pub dirs: Vec<FoundLogDir>,
    /// Log directories that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    pub deleted: Vec<PathBuf>,
}

/// What a file system has of its own at its root.
const LOST_AND_FOUND: &str = "lost+found";

/// Looks through all log directories. Two copies of one partition are refused, as Kafka does: whichever was taken, the
/// records of the other would be gone without a word.
pub fn take(dirs: &[LogDir]) -> anyhow::Result<Inventory> {
    let mut inventory = Inventory { dirs: Vec::new(), unreadable: Vec::new(), deleted: Vec::new() };
    for dir in dirs {
        if let Err(e) = inventory.look_into(dir) {
            inventory.unreadable.push((dir.path.clone(), format!("cannot read it: {e}")));
        }
    }
    inventory.check_single()?;
    Ok(inventory)
}

impl Inventory {
    fn look_into(&mut self, dir: &LogDir) -> io::Result<()> {
        let mut found = FoundLogDir {
            path: dir.path.clone(),
            clean: dir.was_clean,
            recovery_points: read_offsets(&dir.path, checkpoint::RECOVERY_POINTS)?,
            log_starts: read_offsets(&dir.path, checkpoint::LOG_START_OFFSETS)?,
            cleaned: read_offsets(&dir.path, checkpoint::CLEANED)?,
            ..FoundLogDir::default()
        };
        if dir.is_new {
            self.dirs.push(found);
            return Ok(());
        }
        let mut partitions = Vec::new();
        for entry in fs::read_dir(&dir.path)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() || entry.file_name() == LOST_AND_FOUND {
                continue;
            }
            match entry.file_name().to_str().map(paths::parse_dir) {
                Some(DirName::Partition { topic, partition }) => {
                    partitions.push(((topic, partition), entry.path()));
                }
                Some(DirName::Deleted) => self.deleted.push(entry.path()),
                Some(DirName::Stray) => warn!("{} was set aside earlier; look into it", entry.path().display()),
                _ => warn!("{} is not a partition's directory", entry.path().display()),
            }
        }
        for (name, read) in with_topic_ids(&partitions) {
            let id = match read {
                // The disk, not the file: nothing in it can be relied on.
                Err(e) if Harm::of(&e) == Harm::Directory => return Err(e),
                Err(e) => Err(e.to_string()),
                Ok(None) => Err("names no topic".to_owned()),
                Ok(Some(id)) => Ok(id),
            };
            if let Err(why) = &id
                && was_flushed(&found, &name)
            {
                found.unnamed.insert(name.clone(), format!("{PARTITION_METADATA}: {why}"));
            }
            found.partitions.insert(name, id.ok());
        }
        self.dirs.push(found);
        Ok(())
    }

    /// Whether no partition is in two directories. One that bears another topic id is of an earlier topic of that name,
    /// and is set aside when the topic is opened.
    fn check_single(&self) -> anyhow::Result<()> {
        let mut holders: HashMap<(&str, PartitionIndex, TopicId), &Path> = HashMap::new();
        for dir in &self.dirs {
            for ((topic, partition), id) in &dir.partitions {
                let Some(id) = id else { continue };
                if let Some(other) = holders.insert((topic, *partition, *id), &dir.path) {
                    let name = format!("{topic}-{partition}");
                    bail!(
                        "duplicate log directories found: {} and {} are copies of one partition; move one of them out \
                         of log.dirs (corelog dump tells which offsets each one has)",
                        other.join(&name).display(),
                        dir.path.join(&name).display()
                    );
                }
            }
        }
        Ok(())
    }

    /// Where the coordination store lies: where it was made, whatever the order of `log.dirs` is now. A node that began a
    /// new one in its absence would not know its topics any more. (Checkpoints are written a minute after the first start.)
    /// `offline`: directories that cannot be used, and why.
    pub fn store_file(&self, offline: &[(PathBuf, String)]) -> anyhow::Result<PathBuf> {
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
        if !offline.is_empty() {
            let told: Vec<_> = offline.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
            bail!(
                "no directory that can be used has {FILE_NAME}, in which the node's topics are; it must be in one that cannot \
                 be used, which has to be mended first: {}",
                told.join("; ")
            );
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

/// A recovery point, or a start of the log, above 0 was written after the names in the partition's directory were synced: that it bears no
/// topic id is no crash's doing then.
fn was_flushed(found: &FoundLogDir, name: &Name) -> bool {
    let files = [&found.recovery_points, &found.log_starts];
    files.into_iter().any(|file| file.get(name).is_some_and(|offset| offset.0 > 0))
}

/// Reads the topic ids of partitions' directories, on all cores: a start waits for thousands of small files.
fn with_topic_ids(partitions: &[(Name, PathBuf)]) -> Vec<(Name, io::Result<Option<TopicId>>)> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let read = |part: &[(Name, PathBuf)]| -> Vec<_> {
        part.iter().map(|(name, path)| (name.clone(), read_topic_id(path))).collect()
    };
    thread::scope(|scope| {
        let parts = partitions.chunks(partitions.len().div_ceil(threads).max(1));
        let readers: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        readers.into_iter().flat_map(|reader| reader.join().expect("reading does not panic")).collect()
    })
}

/// Removes what deleted topics left behind, in the background.
pub async fn remove_deleted(maintenance: Maintenance, deleted: Vec<PathBuf>) {
    for dir in deleted {
        let path = dir.clone();
        let remove =
            async move |context: maintenance::Context| context.blocking(move || fs::remove_dir_all(path)).await?;
        match maintenance.run(Lane::Chore, remove).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!("removing {}: {e}", dir.display()),
            // The next start goes on.
            Err(_) => return,
        }
    }
}

/// A checkpoint that is missing or garbled says nothing: the log itself is read then. One that cannot be read says something that is
/// not known: records whose deletion was answered must not come back for it.
fn read_offsets(dir: &Path, name: &str) -> io::Result<PartitionOffsets> {
    let path = dir.join(name);
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(PartitionOffsets::new()),
        Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    };
    let mut offsets = checkpoint::decode_partition_offsets(&String::from_utf8_lossy(&content)).unwrap_or_else(|e| {
        warn!("{}: {e}; logs are read instead", path.display());
        PartitionOffsets::new()
    });
    offsets.retain(|(_, PartitionIndex(index)), offset| *index >= 0 && offset.0 >= 0);
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log directories, each with partitions and their topics' ids.
    fn laid_out(temp: &Path, dirs: &[&[(&str, TopicId)]]) -> Vec<LogDir> {
        let lay = |(number, partitions): (usize, &&[(&str, TopicId)])| {
            let path = temp.join(number.to_string());
            fs::create_dir_all(path.join(LOST_AND_FOUND)).expect("writable");
            for (name, id) in *partitions {
                fs::create_dir(path.join(name)).expect("writable");
                let metadata = format!("version: 0\ntopic_id: {id}");
                fs::write(path.join(name).join(PARTITION_METADATA), metadata).expect("writable");
            }
            LogDir { path, id: number.to_string(), was_clean: true, is_new: false }
        };
        dirs.iter().enumerate().map(lay).collect()
    }

    /// One was taken, whichever came last in log.dirs, and the records of the other were gone without a word.
    #[test]
    fn two_copies_of_a_partition_are_refused_and_both_named() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let (id, other) = (TopicId::random(), TopicId::random());
        let dirs = laid_out(temp.path(), &[&[("a-0", id), ("b-0", other)], &[("b-1", other)], &[("a-0", id)]]);
        let text = take(&dirs).err().expect("must be refused").to_string();
        let paths = [&dirs[0], &dirs[2]].map(|dir| dir.path.join("a-0").display().to_string());
        assert!(
            text.starts_with("duplicate log directories found") && paths.iter().all(|p| text.contains(p)),
            "{text}"
        );
    }

    /// The partition began anew at offset 0, in whichever directory had the fewest, without a word; the checkpoints forgot it.
    #[test]
    fn a_partition_that_was_flushed_and_bears_no_id_is_known_for_it() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let id = TopicId::random();
        let dirs = laid_out(temp.path(), &[&[("a-0", id), ("a-1", id), ("a-2", id), ("a-3", id)]]);
        let metadata = |name: &str| dirs[0].path.join(name).join(PARTITION_METADATA);
        fs::write(metadata("a-0"), "").expect("emptied");
        fs::remove_file(metadata("a-1")).expect("gone");
        fs::write(metadata("a-2"), [0xff, 0xfe]).expect("garbled");
        // Of a-1 nothing was synced yet when the process died.
        fs::write(dirs[0].path.join(checkpoint::RECOVERY_POINTS), "0\n3\na 0 7\na 1 0\na 2 9\n").expect("written");
        let found = &take(&dirs).expect("taken").dirs[0];
        let named = |index| ("a".to_owned(), PartitionIndex(index));
        let unnamed: std::collections::BTreeSet<_> = found.unnamed.keys().cloned().collect();
        assert_eq!(unnamed, [named(0), named(2)].into());
        assert_eq!(found.partitions[&named(3)], Some(id));
        assert_eq!(found.partitions[&named(1)], None);
    }

    /// A checkpoint that could not be read was taken for one that says nothing: deleted records came back.
    #[test]
    fn a_directory_whose_checkpoints_cannot_be_read_is_not_used() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = laid_out(temp.path(), &[&[("a-0", TopicId::random())]]);
        fs::create_dir(dirs[0].path.join(checkpoint::LOG_START_OFFSETS)).expect("reading it fails");
        let taken = take(&dirs).expect("the others are used");
        assert!(taken.dirs.is_empty());
        assert!(taken.unreadable[0].1.contains(checkpoint::LOG_START_OFFSETS), "{:?}", taken.unreadable);
    }

    #[test]
    fn what_is_left_of_an_earlier_topic_of_that_name_is_no_copy() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = laid_out(temp.path(), &[&[("a-0", TopicId::random())], &[("a-0", TopicId::random())]]);
        assert_eq!(take(&dirs).expect("two topics").dirs.len(), 2);
    }
}
