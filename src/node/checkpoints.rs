//! The one writer of the checkpoint files: they cover all shards, so each shard sends its part here.

use crate::base::disks::{Harm, Health, LogDirs};
use crate::log::checkpoint::{self, PartitionOffsets, encode_partition_offsets, write_atomically};
use crate::partition::checkpoints::{Checkpoints, SaveCheckpoints};
use crate::partition::table::FoundLogDir;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
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

/// Who waits for the files of a directory.
#[derive(Default)]
struct Desk {
    /// By those that are being written.
    writing: Option<Vec<u64>>,
    /// By those that come next, with everything known by then.
    waiting: Vec<u64>,
    is_due: bool,
}

/// A part that is not in all files that it is wanted in.
struct Unsaved {
    saved: oneshot::Sender<io::Result<()>>,
    /// Directories that are still to be written.
    left: usize,
    outcome: io::Result<()>,
}

struct Writer {
    known: Known,
    disks: Arc<LogDirs>,
    desks: BTreeMap<PathBuf, Desk>,
    unsaved: HashMap<u64, Unsaved>,
    next_id: u64,
}

/// Writes what the shards send until all of them have ended. Several parts that wait are written at once. Each directory is written by
/// itself: one that fails goes offline, and one that does not answer keeps only those waiting who asked for it.
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
    let mut writer = Writer { known, disks, desks: BTreeMap::new(), unsaved: HashMap::new(), next_id: 0 };
    let mut under_way = FuturesUnordered::new();
    let mut have_ended = false;
    while !(have_ended && under_way.is_empty()) {
        tokio::select! {
            biased;
            part = parts.recv(), if !have_ended => match part {
                Some(part) => {
                    writer.take(part);
                    while let Ok(part) = parts.try_recv() {
                        writer.take(part);
                    }
                }
                None => have_ended = true,
            },
            Some(done) = under_way.next() => writer.written(done),
        }
        for (dir, files) in writer.due() {
            let disks = Arc::clone(&writer.disks);
            under_way.push(async move {
                let written = write_in(dir.clone(), files, &disks).await;
                (dir, written)
            });
        }
    }
}

impl Writer {
    fn take(&mut self, part: SaveCheckpoints) {
        let wanted = part.wanted.clone();
        let saved = self.known.take(part);
        let dirs = self.known.by_dir.keys().filter(|dir| wanted.as_ref().is_none_or(|wanted| wanted.contains(*dir)));
        let sound: Vec<PathBuf> = dirs.filter(|dir| self.disks.health(dir) != Health::Offline).cloned().collect();
        let id = self.next_id;
        self.next_id += 1;
        for dir in &sound {
            let desk = self.desks.entry(dir.clone()).or_default();
            desk.waiting.push(id);
            desk.is_due = true;
        }
        self.unsaved.insert(id, Unsaved { saved, left: sound.len(), outcome: Ok(()) });
        self.answer(id);
    }

    /// What is to be written now, by directory.
    fn due(&mut self) -> Vec<(PathBuf, Vec<(PathBuf, String)>)> {
        let due = self.desks.iter_mut().filter(|(_, desk)| desk.is_due && desk.writing.is_none());
        due.map(|(dir, desk)| {
            desk.is_due = false;
            desk.writing = Some(std::mem::take(&mut desk.waiting));
            (dir.clone(), self.known.files_in(dir))
        })
        .collect()
    }

    fn written(&mut self, (dir, written): (PathBuf, io::Result<()>)) {
        let ids = self.desks.get_mut(&dir).and_then(|desk| desk.writing.take()).unwrap_or_default();
        for id in ids {
            if let Some(unsaved) = self.unsaved.get_mut(&id) {
                unsaved.left -= 1;
                if let Err(e) = &written {
                    unsaved.outcome = Err(io::Error::new(e.kind(), e.to_string()));
                }
            }
            self.answer(id);
        }
    }

    fn answer(&mut self, id: u64) {
        if self.unsaved.get(&id).is_none_or(|unsaved| unsaved.left > 0) {
            return;
        }
        if let Some(done) = self.unsaved.remove(&id) {
            // A shard that did not wait for the answer does not need it.
            let _ = done.saved.send(done.outcome);
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

    /// The files of a directory.
    fn files_in(&mut self, dir: &Path) -> Vec<(PathBuf, String)> {
        let shards = self.by_dir.get(dir).into_iter().flat_map(BTreeMap::values);
        let parts: Vec<&Checkpoints> = self.inherited.get(dir).into_iter().chain(shards).collect();
        let joined = |part: fn(&Checkpoints) -> &PartitionOffsets| -> PartitionOffsets {
            let all = parts.iter().flat_map(|of| part(of));
            all.map(|(key, offset)| (key.clone(), *offset)).collect()
        };
        let recovery = encode_partition_offsets(&joined(|part| &part.recovery_points));
        let starts = encode_partition_offsets(&joined(|part| &part.log_starts));
        let mut named = vec![(checkpoint::RECOVERY_POINTS, recovery), (checkpoint::LOG_START_OFFSETS, starts)];
        let cleaned = joined(|part| &part.cleaned);
        // A directory in which nothing was ever compacted has no such file.
        if !cleaned.is_empty() || self.compacted.contains(dir) {
            self.compacted.insert(dir.to_owned());
            named.push((checkpoint::CLEANED, encode_partition_offsets(&cleaned)));
        }
        named.into_iter().map(|(name, text)| (dir.join(name), text)).collect()
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

    /// Lets a writer go on, however the test ends: its runtime waits for the thread.
    struct LetGo(PathBuf);

    impl Drop for LetGo {
        fn drop(&mut self) {
            let nonblocking = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
            drop(rustix::fs::open(&self.0, nonblocking, rustix::fs::Mode::empty()));
        }
    }

    /// One directory did not answer, and records that were deleted in another one were not answered either.
    #[tokio::test(flavor = "current_thread")]
    async fn a_directory_that_hangs_does_not_keep_others_waiting() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dirs = ["hangs", "sound"].map(|name| dir.path().join(name));
        dirs.iter().for_each(|dir| std::fs::create_dir(dir).expect("writable"));
        let [hangs, sound] = &dirs;
        // Whoever opens it to write waits for a reader.
        let fifo = hangs.join(checkpoint::RECOVERY_POINTS).with_extension("tmp");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("made");
        let let_go = LetGo(fifo);
        let (sender, parts) = mpsc::channel(1);
        let shard = CheckpointSender::new(0, sender, Arc::default());
        let found = |path: &PathBuf| FoundLogDir { path: path.clone(), ..FoundLogDir::default() };
        let writer = tokio::task::spawn(run(dirs.iter().map(found).collect(), (1, Arc::default()), parts));
        let mut all = std::pin::pin!(shard.save(part(sound, "a", 1)));
        for offset in [2, 3] {
            let saved = shard.save_in([sound.clone()].into(), part(sound, "a", offset));
            let saved = async { tokio::time::timeout(std::time::Duration::from_secs(20), saved).await };
            tokio::select! {
                biased;
                _ = &mut all => panic!("one of them hangs"),
                saved = saved => saved.expect("in time").expect("saved"),
            }
            let text = std::fs::read_to_string(sound.join(checkpoint::RECOVERY_POINTS)).expect("written");
            assert_eq!(text, format!("0\n1\na 0 {offset}\n"));
        }
        drop(let_go);
        all.await.expect_err("what was written there is no file");
        drop(shard);
        writer.await.expect("ends");
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
