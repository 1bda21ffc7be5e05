//! Stories of a node with two log directories, of which one does not answer at a start, or fails: the other one's partitions are served.

use super::disks::forgetting;
use super::world::temporary_directory;
use crate::base::config::{BrokerConfig, FlushPolicy};
use crate::base::disks::LogDirs;
use crate::base::faults::{Act, Fault, Faults, Place};
use crate::base::ids::{BrokerId, Offset, PartitionIndex, TopicId};
use crate::cluster::image::{self, ClusterImage};
use crate::log::paths;
use crate::log::testing::Batch;
use crate::maintenance::{self, Maintenance, MaintenanceThread};
use crate::partition::journal::{Rings, Settings};
use crate::partition::leader::{Acks, Partition};
use crate::partition::materialise::read_topic_id;
use crate::partition::shared::PartitionShared;
use crate::partition::table::{FoundLogDir, PartitionTable};
use crate::partition::waiters::AppendWait;
use rustix::fs::{CWD, FileType, Mode};
use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Notify;

const TOPIC: &str = "t";
const RING_BYTES: u64 = 1 << 20;
/// Longer than anything that is done here takes.
const LONG: Duration = Duration::from_secs(20);

/// A shard with partitions in two log directories.
struct Node {
    dirs: [TempDir; 2],
    image: ClusterImage,
    maintenance: Maintenance,
    _thread: MaintenanceThread,
    disks: Arc<LogDirs>,
    shared: Rc<PartitionShared>,
    table: Rc<PartitionTable>,
}

impl Node {
    /// Each partition has a record that is on disk in a ring only.
    async fn new(partitions: i32) -> Node {
        let (maintenance, thread) = maintenance::start(maintenance::Settings { plain: true }).expect("started");
        let image = image_of(TOPIC, partitions);
        let dirs = [temporary_directory(), temporary_directory()];
        let (disks, shared, table) = begun(&dirs, partitions, &maintenance, Faults::default());
        let node = Node { dirs, image, maintenance, _thread: thread, disks, shared, table };
        node.lead();
        node.table.begin_journals(|_| true).await;
        let all = node.table.all();
        for partition in &all {
            take(partition).await;
            partition.quiet().await;
        }
        assert!(node.dirs.iter().all(|dir| node.in_dir(dir).len() == all.len() / 2));
        node
    }

    /// The process is killed, and the next one begins.
    fn restart(&mut self, faults: Faults) {
        self.shared.end();
        let partitions = self.image.topics[TOPIC].partitions.len();
        let begun = begun(&self.dirs, partitions as i32, &self.maintenance, faults);
        (self.disks, self.shared, self.table) = begun;
        self.lead();
    }

    fn lead(&self) {
        let config = BrokerConfig::from_texts(Default::default()).expect("defaults are valid");
        self.table.open_led(&self.image, &config, false);
    }

    fn begin_journals(&self) -> tokio::task::JoinHandle<()> {
        let table = Rc::clone(&self.table);
        tokio::task::spawn_local(async move { table.begin_journals(|_| true).await })
    }

    fn in_dir(&self, dir: &TempDir) -> Vec<Rc<Partition>> {
        self.table.all().into_iter().filter(|partition| partition.home().log_dir == dir.path()).collect()
    }

    fn has_journal(&self, dir: &TempDir) -> bool {
        self.shared.journal(dir.path()).is_some()
    }
}

fn image_of(name: &str, partitions: i32) -> ClusterImage {
    let topic = Arc::new(image::Topic {
        name: name.into(),
        id: TopicId::random(),
        is_internal: false,
        partitions: (0..partitions).map(|_| image::Partition::led_by(BrokerId(0))).collect(),
        settings: Default::default(),
    });
    let mut image = ClusterImage::default();
    image.topics.insert(topic.name.clone(), Arc::clone(&topic));
    image.topics_by_id.insert(topic.id, topic);
    image
}

fn begun(
    dirs: &[TempDir; 2],
    partitions: i32,
    maintenance: &Maintenance,
    faults: Faults,
) -> (Arc<LogDirs>, Rc<PartitionShared>, Rc<PartitionTable>) {
    let disks = Arc::new(LogDirs::new(dirs.iter().map(|dir| (dir.path().to_owned(), None))));
    let shared = PartitionShared::new(64, FlushPolicy::Disk, Arc::default(), maintenance.clone());
    let shared = Rc::new(shared.on(Arc::clone(&disks)).with(faults));
    let found = dirs.each_ref().map(|dir| {
        let id_of = |index| read_topic_id(&dir.path().join(paths::partition_dir(TOPIC, index))).expect("readable");
        let named = (0..partitions).map(PartitionIndex);
        let named = named.filter_map(|index| Some(((TOPIC.to_owned(), index), Some(id_of(index)?))));
        FoundLogDir { path: dir.path().to_owned(), partitions: named.collect(), ..FoundLogDir::default() }
    });
    let rings = Rings::read(Settings { shard: 0, ring_bytes: Some(RING_BYTES) }, &found, &disks);
    let table = Rc::new(PartitionTable::new(BrokerId(0), found.to_vec(), rings, Rc::clone(&shared)));
    (disks, shared, table)
}

async fn take(partition: &Rc<Partition>) {
    let ((header, bytes), wait) = (Batch::default().build(), AppendWait::new());
    partition.append(header, bytes, Acks::All, (&wait, 0)).expect("taken");
    assert!(wait.done().await.is_empty(), "acknowledged");
}

async fn until_true(holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, held).await.expect("in time");
}

/// Whoever opens it to write waits for a reader, as for a disk that does not answer.
fn hang(path: &Path) {
    fs::remove_file(path).expect("there");
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
}

fn let_go(path: &Path) -> fs::File {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).expect("open")
}

/// A redo that did not end kept the journals of all directories from being used, and once enough hung, their logs from being opened.
#[test]
fn a_redo_that_hangs_keeps_no_other_directory_waiting() {
    // Whichever comes first.
    for sick in [0, 1] {
        tokio_uring::start(hang_in(sick));
    }
}

async fn hang_in(sick: usize) {
    let mut node = Node::new(48).await;
    let sound = 1 - sick;
    let segment = |partition: &Rc<Partition>| paths::segment_file(&partition.home().dir, Offset(0), paths::LOG);
    let hung: Vec<PathBuf> = node.in_dir(&node.dirs[sick]).iter().map(segment).collect();
    hung.iter().for_each(|path| hang(path));
    node.restart(Faults::default());
    let begun = node.begin_journals();
    until_true(|| node.has_journal(&node.dirs[sound])).await;
    let served = node.in_dir(&node.dirs[sound]);
    assert_eq!(served.len(), 24);
    for partition in &served {
        assert_eq!(partition.ends().log_end, Offset(1), "what was acknowledged is there");
        take(partition).await;
    }
    assert!(!node.has_journal(&node.dirs[sick]) && node.in_dir(&node.dirs[sick]).is_empty());
    // It counts as failed: nobody waits for what hangs.
    node.disks.take_offline(node.dirs[sick].path(), "it has failed");
    tokio::time::timeout(LONG, begun).await.expect("ends").expect("no panic");
    assert_eq!(node.in_dir(&node.dirs[sick]).len(), 24);
    assert!(node.in_dir(&node.dirs[sick]).iter().all(|partition| partition.core().failure().is_some()));
    assert!(served.iter().all(|partition| partition.core().failure().is_none()));
    // The threads that hang go on before the test ends.
    let readers: Vec<_> = hung.iter().map(|path| let_go(path)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(readers);
}

/// A ring that cannot be renewed is its directory's loss, and so is one whose renewal does not end.
#[test]
fn a_ring_that_is_not_renewed_leaves_the_other_directory_alone() {
    for hangs in [false, true] {
        tokio_uring::start(async move {
            let mut node = Node::new(2).await;
            let (writes, hung) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
            let (count, until) = (Rc::clone(&writes), Rc::clone(&hung));
            node.restart(Faults::by(move |place, act| {
                let is_write = place == Place::Ring && matches!(act, Act::Write(_));
                count.set(count.get() + u32::from(is_write));
                let fault = if hangs { Fault::Hang(Rc::clone(&until)) } else { Fault::Error(libc::EIO) };
                (is_write && count.get() == 1).then_some(fault)
            }));
            let begun = node.begin_journals();
            until_true(|| node.dirs.iter().any(|dir| node.has_journal(dir))).await;
            let sound = usize::from(node.has_journal(&node.dirs[1]));
            let (sick, sound) = (&node.dirs[1 - sound], &node.dirs[sound]);
            assert_eq!(node.disks.failure(sick.path()).is_none(), hangs, "what hangs is not waited for");
            let partition = node.in_dir(sound).pop().expect("served");
            take(&partition).await;
            assert_eq!(partition.ends().log_end, Offset(2));
            begun.await.expect("no panic");
            assert!(node.disks.failure(sick.path()).is_some() && !node.has_journal(sick));
            assert!(node.disks.failure(sound.path()).is_none());
            hung.notify_waiters();
            partition.quiet().await;
            // What the sick one held is found again by the next start.
            node.restart(Faults::default());
            node.begin_journals().await.expect("no panic");
            until_true(|| node.table.all().len() == 2).await;
            let ends: Vec<_> = node.dirs.iter().map(|dir| node.in_dir(dir)[0].ends().log_end.0).collect();
            assert_eq!(ends.iter().sum::<i64>(), 3, "{ends:?}");
        });
    }
}

/// A topic of the name was made anew, elsewhere, while the old one's deletion hung; which went on by paths, in what another shard may have made
/// there since.
#[test]
fn nothing_is_made_under_a_name_before_its_earlier_life_is_gone() {
    tokio_uring::start(async {
        let mut node = Node::new(2).await;
        let (writes, hung) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let (count, until) = (Rc::clone(&writes), Rc::clone(&hung));
        node.restart(Faults::by(move |place, act| {
            let is_write = place == Place::Segment && matches!(act, Act::Write(_));
            count.set(count.get() + u32::from(is_write));
            (is_write && count.get() == 1).then(|| Fault::Hang(Rc::clone(&until)))
        }));
        node.begin_journals().await.expect("no panic");
        until_true(|| node.table.all().len() == 2).await;
        let kept = node.in_dir(&node.dirs[0]).pop().expect("open");
        let (header, bytes) = Batch::default().build();
        kept.append(header, bytes, Acks::Leader, (&AppendWait::new(), 0)).expect("taken");
        until_true(|| writes.get() == 1).await;
        let old = (node.dirs[0].path().to_owned(), (TOPIC.to_owned(), kept.index()));

        // The topic goes, and one of its name comes.
        let (forgotten, forget) = forgetting();
        node.image = image_of(TOPIC, 2);
        let mut applied = Box::pin(node.table.close_within(Duration::from_millis(1), &node.image, &forget));
        let waited = tokio::time::timeout(Duration::from_millis(50), &mut applied).await;
        assert!(waited.is_err(), "its directory still bears the name");
        assert!(kept.home().dir.exists() && !forgotten.borrow().iter().any(|names| names.contains(&old)));
        hung.notify_waiters();
        tokio::time::timeout(LONG, applied).await.expect("the disk answers");
        assert!(!kept.home().dir.exists(), "it got another name");
        assert!(forgotten.borrow().iter().any(|names| names.contains(&old)));
        node.lead();
        let anew = node.table.topic(TOPIC).expect("led").partition(kept.index()).cloned().expect("open");
        take(&anew).await;
        node.table.close().await;
    });
}
