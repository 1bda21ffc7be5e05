//! The one writer of the checkpoint files: they cover all shards, so each shard sends its part here.

use crate::base::disks::{Harm, Health, LogDirs};
use crate::log::checkpoint::{self, PartitionOffsets, encode_partition_offsets, write_atomically};
use crate::partition::checkpoints::{Checkpoints, SaveCheckpoints};
use crate::partition::table::FoundLogDir;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What is known of every log directory, by shard.
#[derive(Default)]
struct Known {
    by_dir: BTreeMap<PathBuf, BTreeMap<u16, Checkpoints>>,
    /// What the files said at start: kept until every shard has spoken, lest the first one's word erase the others'.
    inherited: BTreeMap<PathBuf, Checkpoints>,
    silent: BTreeSet<u16>,
    /// Directories that have a checkpoint of what was compacted.
    compacted: BTreeSet<PathBuf>,
    /// The number of each shard's newest part.
    newest: BTreeMap<u16, u64>,
}

/// Writes what the shards send until all of them have ended. Several parts that wait are written at once. A directory that fails goes
/// offline and does not keep the others from it.
pub async fn run(
    found: Vec<FoundLogDir>,
    (shards, disks): (u16, Arc<LogDirs>),
    mut parts: mpsc::Receiver<SaveCheckpoints>,
) {
    let mut known = Known { silent: (0..shards).collect(), ..Known::default() };
    for dir in found {
        let said =
            Checkpoints { recovery_points: dir.recovery_points, log_starts: dir.log_starts, cleaned: dir.cleaned };
        known.by_dir.insert(dir.path.clone(), BTreeMap::new());
        if !said.cleaned.is_empty() {
            known.compacted.insert(dir.path.clone());
        }
        known.inherited.insert(dir.path, said);
    }
    while let Some(part) = parts.recv().await {
        let mut waiting = vec![known.take(part)];
        while let Ok(part) = parts.try_recv() {
            waiting.push(known.take(part));
        }
        let sound = known.files().into_iter().filter(|(dir, _)| disks.health(dir) != Health::Offline);
        let written = sound.map(|(dir, files)| write_in(dir, files, &disks));
        let written = join_all(written).await.into_iter().collect::<io::Result<()>>();
        for saved in waiting {
            // A shard that did not wait for the answer does not need it.
            let _ = saved.send(match &written {
                Ok(()) => Ok(()),
                Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
            });
        }
    }
}

/// Writes the files of one directory. Without an error: they are written, or the directory is offline, and nothing in it is served.
async fn write_in(dir: PathBuf, files: Vec<(PathBuf, String)>, disks: &LogDirs) -> io::Result<()> {
    let write = move || files.iter().try_for_each(|(path, text)| write_atomically(path, text.as_bytes()));
    let written = async { tokio::task::spawn_blocking(write).await.map_err(io::Error::other).and_then(|done| done) };
    tokio::select! {
        biased;
        written = written => match written {
            Err(e) if disks.report(&dir, "writing its checkpoints", &e) != Harm::Directory => Err(e),
            _ => Ok(()),
        },
        () = disks.went_offline(&dir) => Ok(()),
    }
}

impl Known {
    /// A part that a newer one of its shard has overtaken changes nothing: the newer one says all that it would.
    fn take(&mut self, part: SaveCheckpoints) -> oneshot::Sender<io::Result<()>> {
        for (dir, key) in &part.outdated {
            let Some(inherited) = self.inherited.get_mut(dir) else { continue };
            for said in [&mut inherited.recovery_points, &mut inherited.log_starts, &mut inherited.cleaned] {
                said.remove(key);
            }
        }
        let newest = self.newest.entry(part.shard).or_default();
        if part.number < *newest {
            return part.saved;
        }
        *newest = part.number;
        for by_shard in self.by_dir.values_mut() {
            by_shard.remove(&part.shard);
        }
        // Before the first image is applied a shard has nothing open, and does not speak for what it will open.
        if !part.by_dir.is_empty() {
            self.silent.remove(&part.shard);
        }
        if self.silent.is_empty() {
            self.inherited.clear();
        }
        for (dir, checkpoints) in part.by_dir {
            self.by_dir.entry(dir).or_default().insert(part.shard, checkpoints);
        }
        part.saved
    }

    /// By directory.
    fn files(&mut self) -> Vec<(PathBuf, Vec<(PathBuf, String)>)> {
        let mut files = Vec::new();
        for (dir, by_shard) in &self.by_dir {
            let joined = |part: fn(&Checkpoints) -> &PartitionOffsets| -> PartitionOffsets {
                let inherited = self.inherited.get(dir).into_iter();
                inherited.chain(by_shard.values()).flat_map(part).map(|(key, offset)| (key.clone(), *offset)).collect()
            };
            let recovery = encode_partition_offsets(&joined(|part| &part.recovery_points));
            let starts = encode_partition_offsets(&joined(|part| &part.log_starts));
            let mut named = vec![(checkpoint::RECOVERY_POINTS, recovery), (checkpoint::LOG_START_OFFSETS, starts)];
            let cleaned = joined(|part| &part.cleaned);
            // A directory in which nothing was ever compacted has no such file.
            if !cleaned.is_empty() || self.compacted.contains(dir) {
                self.compacted.insert(dir.clone());
                named.push((checkpoint::CLEANED, encode_partition_offsets(&cleaned)));
            }
            let named = named.into_iter().map(|(name, text)| (dir.join(name), text));
            files.push((dir.clone(), named.collect()));
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Offset, PartitionIndex};
    use crate::partition::checkpoints::CheckpointSender;

    fn part(dir: &std::path::Path, topic: &str, offset: i64) -> BTreeMap<PathBuf, Checkpoints> {
        let recovery_points = PartitionOffsets::from([((topic.to_string(), PartitionIndex(0)), Offset(offset))]);
        let checkpoints = Checkpoints { recovery_points, ..Checkpoints::default() };
        BTreeMap::from([(dir.to_path_buf(), checkpoints)])
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_directory_that_cannot_be_written_does_not_keep_others_from_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (gone, sound) = (dir.path().join("a-gone"), dir.path().join("b"));
        std::fs::create_dir(&sound).expect("writable");
        let (sender, parts) = mpsc::channel(1);
        let shard = CheckpointSender::new(0, sender, Arc::default());
        let found = |path: &PathBuf| FoundLogDir { path: path.clone(), ..FoundLogDir::default() };
        let disks = Arc::default();
        let writer = tokio::task::spawn(run(vec![found(&gone), found(&sound)], (1, disks), parts));
        shard.save(part(&sound, "a", 1)).await.expect_err("one directory is missing");
        let text = std::fs::read_to_string(sound.join(checkpoint::RECOVERY_POINTS)).expect("written all the same");
        assert_eq!(text, "0\n1\na 0 1\n");
        drop(shard);
        writer.await.expect("ends when the shards have ended");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_parts_of_all_shards_are_in_the_file_and_the_newest_counts() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (sender, parts) = mpsc::channel(1);
        let (one, two) = (
            CheckpointSender::new(0, sender.clone(), Arc::default()),
            CheckpointSender::new(1, sender, Arc::default()),
        );
        let written_before = PartitionOffsets::from([
            (("a".to_string(), PartitionIndex(0)), Offset(0)),
            (("c".to_string(), PartitionIndex(0)), Offset(9)),
        ]);
        let found =
            FoundLogDir { path: dir.path().to_path_buf(), recovery_points: written_before, ..FoundLogDir::default() };
        let writer = tokio::task::spawn(run(vec![found], (2, Arc::default()), parts));
        one.save(part(dir.path(), "a", 1)).await.expect("saved");
        let text = std::fs::read_to_string(dir.path().join(checkpoint::RECOVERY_POINTS)).expect("written");
        assert_eq!(text, "0\n2\na 0 1\nc 0 9\n", "the other shard's partitions are not forgotten before it speaks");
        two.save(part(dir.path(), "b", 2)).await.expect("saved");
        one.save(part(dir.path(), "a", 3)).await.expect("saved");
        let text = std::fs::read_to_string(dir.path().join(checkpoint::RECOVERY_POINTS)).expect("written");
        assert_eq!(text, "0\n2\na 0 3\nb 0 2\n");
        drop((one, two));
        writer.await.expect("ends when the shards have ended");
    }

    /// A part that found no room was sent when its request's turn came, after a newer part, and took the place of it: records
    /// whose deletion had been answered came back with the next crash.
    #[tokio::test(flavor = "current_thread")]
    async fn a_part_that_waited_does_not_take_the_place_of_a_newer_one() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (sender, parts) = mpsc::channel(1);
        let shard = CheckpointSender::new(0, sender, Arc::default());
        let first = shard.save(part(dir.path(), "a", 1));
        let waits = shard.save(part(dir.path(), "a", 2));
        let found = FoundLogDir { path: dir.path().to_path_buf(), ..FoundLogDir::default() };
        let writer = tokio::task::spawn(run(vec![found], (1, Arc::default()), parts));
        first.await.expect("saved");
        shard.save(part(dir.path(), "a", 3)).await.expect("saved");
        waits.await.expect("saved, by the newer one");
        let text = std::fs::read_to_string(dir.path().join(checkpoint::RECOVERY_POINTS)).expect("written");
        assert_eq!(text, "0\n1\na 0 3\n");
        drop(shard);
        writer.await.expect("ends");
    }

    /// A topic was deleted while another shard had not spoken yet: what the file had said of it at start was written again,
    /// and was taken for the log start of the topic's next life after a crash, which emptied it. What is said of others stays,
    /// even if their own shard has not opened them yet.
    #[tokio::test(flavor = "current_thread")]
    async fn what_a_deleted_topic_left_in_the_files_is_forgotten() {
        for shards in [1, 2] {
            let dir = tempfile::tempdir().expect("temporary directory");
            let (sender, parts) = mpsc::channel(1);
            let shard = CheckpointSender::new(0, sender, Arc::default());
            let said = |topic: &str| ((topic.to_string(), PartitionIndex(0)), Offset(1000));
            let found = FoundLogDir {
                path: dir.path().to_path_buf(),
                recovery_points: [said("gone"), said("other")].into(),
                log_starts: [said("gone"), said("other")].into(),
                ..FoundLogDir::default()
            };
            let writer = tokio::task::spawn(run(vec![found], (shards, Arc::default()), parts));
            let gone = ("gone".to_string(), PartitionIndex(0));
            // Another directory may have a partition of that name that is alive.
            let outdated = [(dir.path().to_path_buf(), gone), ("/elsewhere".into(), said("other").0)].into();
            shard.save_without(BTreeMap::new(), outdated).await.expect("saved");
            for name in [checkpoint::RECOVERY_POINTS, checkpoint::LOG_START_OFFSETS] {
                let text = std::fs::read_to_string(dir.path().join(name)).expect("written");
                assert_eq!(text, "0\n1\nother 0 1000\n");
            }
            drop(shard);
            writer.await.expect("ends");
        }
    }
}
