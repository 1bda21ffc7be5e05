//! Stories of starts that are cut off before the rings are renewed: the next one finds in them what this one found.

use super::disks::forgetting;
use super::world::{copy_files, temporary_directory};
use crate::base::clock::now_ms;
use crate::base::config::{BrokerConfig, FlushPolicy};
use crate::base::disks::LogDirs;
use crate::base::faults::{Act, Fault, Faults, Place};
use crate::base::ids::{BrokerId, Offset, PartitionIndex, TopicId};
use crate::cluster::image::{self, ClusterImage};
use crate::journal::file;
use crate::journal::scan::scan;
use crate::log::checkpoint::PartitionOffsets;
use crate::log::paths;
use crate::log::testing::Batch;
use crate::maintenance::{self, Maintenance, MaintenanceThread};
use crate::partition::clean::{CleanerMemory, clean_dirtiest};
use crate::partition::journal::{Rings, Settings};
use crate::partition::leader::{Acks, Partition};
use crate::partition::materialise::read_topic_id;
use crate::partition::shared::PartitionShared;
use crate::partition::table::{FoundLogDir, PartitionTable};
use crate::partition::waiters::AppendWait;
use crate::record::batch::BatchHeader;
use crate::record::builder::BatchBuilder;
use crate::record::compression::Compression;
use bytes::Bytes;
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Notify;

const TOPIC: &str = "t";
const PARTITIONS: i32 = 2;
const RING_BYTES: u64 = 64 << 10;

/// A shard that leads a topic, with everything of it in one log directory; its process ends and begins again.
struct Node {
    dir: TempDir,
    image: ClusterImage,
    config: BrokerConfig,
    maintenance: Maintenance,
    _thread: MaintenanceThread,
    shared: Rc<PartitionShared>,
    table: Rc<PartitionTable>,
    /// What the checkpoint of recovery points says at the next start.
    said: PartitionOffsets,
}

impl Node {
    async fn new(settings: &[(&str, &str)], faults: Faults) -> Node {
        let (maintenance, thread) = maintenance::start(maintenance::Settings { plain: true }).expect("started");
        let topic = Arc::new(image::Topic {
            name: TOPIC.into(),
            id: TopicId::random(),
            is_internal: false,
            partitions: (0..PARTITIONS).map(|_| image::Partition::led_by(BrokerId(0))).collect(),
            settings: settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        });
        let mut image = ClusterImage::default();
        image.topics.insert(topic.name.clone(), Arc::clone(&topic));
        image.topics_by_id.insert(topic.id, topic);
        let config = BrokerConfig::from_texts(Default::default()).expect("defaults are valid");
        let dir = temporary_directory();
        let (shared, table) = begun(&dir, &maintenance, faults, &PartitionOffsets::new());
        table.open_led(&image, &config, false);
        let node =
            Node { dir, image, config, maintenance, _thread: thread, shared, table, said: PartitionOffsets::new() };
        node.renew_rings().await;
        node
    }

    /// The process is killed, and the next one has brought back what the rings hold.
    async fn restart(&mut self) {
        self.shared.end();
        (self.shared, self.table) = begun(&self.dir, &self.maintenance, Faults::default(), &self.said);
        let (forgotten, forget) = forgetting();
        self.table.close_deleted(&self.image, &forget).await;
        assert!(forgotten.borrow().is_empty(), "the checkpoints tell of what is there");
        self.table.open_led(&self.image, &self.config, false);
        while self.table.is_redoing() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn renew_rings(&self) {
        self.table.begin_journals(|_| true).await;
        assert_eq!(self.shared.disks.failure(self.dir.path()), None, "all is back");
        assert!(self.shared.journal(self.dir.path()).is_some(), "the directory has direct I/O");
        while (0..PARTITIONS).any(|index| self.partition(index).is_none()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// None: it is not served.
    fn partition(&self, index: i32) -> Option<Rc<Partition>> {
        self.table.topic(TOPIC).expect("led here").partition(PartitionIndex(index)).cloned()
    }

    fn served(&self, index: i32) -> Rc<Partition> {
        self.partition(index).expect("served")
    }

    fn path(&self, index: i32) -> PathBuf {
        self.dir.path().join(paths::partition_dir(TOPIC, PartitionIndex(index)))
    }

    /// What is on disk at this moment takes the place of the directory.
    fn freeze(&mut self) -> TempDir {
        let copy = temporary_directory();
        copy_files(self.dir.path(), copy.path());
        for path in (0..PARTITIONS).map(|index| self.path(index)).filter(|path| path.exists()) {
            let to = copy.path().join(path.file_name().expect("a name"));
            fs::create_dir(&to).expect("made");
            copy_files(&path, &to);
        }
        std::mem::replace(&mut self.dir, copy)
    }

    /// Entries that the next start finds in the ring.
    fn journaled(&self) -> usize {
        let found = file::read(&file::path(self.dir.path(), 0)).expect("whole").expect("there");
        scan(found.area.bytes(), &found.superblock).expect("whole").entries.len()
    }
}

fn begun(
    dir: &TempDir,
    maintenance: &Maintenance,
    faults: Faults,
    said: &PartitionOffsets,
) -> (Rc<PartitionShared>, Rc<PartitionTable>) {
    let disks = Arc::new(LogDirs::new([(dir.path().to_owned(), None)]));
    let shared = PartitionShared::new(64, FlushPolicy::Disk, Arc::default(), maintenance.clone());
    let shared = Rc::new(shared.on(Arc::clone(&disks)).with(faults));
    let named = |index| (TOPIC.to_owned(), PartitionIndex(index));
    let id_of =
        |index| read_topic_id(&dir.path().join(paths::partition_dir(TOPIC, PartitionIndex(index)))).expect("readable");
    let found = FoundLogDir {
        path: dir.path().to_owned(),
        partitions: (0..PARTITIONS).filter_map(|i| Some((named(i), Some(id_of(i)?)))).collect(),
        unnamed: said.keys().filter(|(_, i)| id_of(i.0).is_none()).map(|key| (key.clone(), "empty".into())).collect(),
        recovery_points: said.clone(),
        ..FoundLogDir::default()
    };
    let found = vec![found];
    let rings = Rings::read(Settings { shard: 0, ring_bytes: Some(RING_BYTES) }, &found, &disks);
    let table = Rc::new(PartitionTable::new(BrokerId(0), found, rings, Rc::clone(&shared)));
    (shared, table)
}

fn send(partition: &Rc<Partition>, (header, bytes): (BatchHeader, Bytes), acks: Acks) -> Rc<AppendWait> {
    let wait = AppendWait::new();
    partition.append(header, bytes, acks, (&wait, 0)).expect("taken");
    wait
}

async fn take(partition: &Rc<Partition>, batch: (BatchHeader, Bytes)) {
    assert!(send(partition, batch, Acks::All).done().await.is_empty(), "acknowledged");
}

fn keyed(key: &str, value: &str) -> (BatchHeader, Bytes) {
    let mut builder = BatchBuilder::new(Compression::NONE);
    builder.push(now_ms(), Some(key.as_bytes()), Some(value.as_bytes()), &[]).expect("small enough");
    let bytes = builder.build().expect("has records");
    (BatchHeader::parse(&bytes).expect("just built"), bytes)
}

/// A power cut left a hole below what the ring had, and the log was cut there. It took records at once, and the next start wrote the
/// ring's over them: in the first segment, or into one that it made anew behind them.
#[test]
fn a_log_that_was_cut_below_what_the_ring_holds_waits_for_the_ring() {
    for segment_bytes in ["1000000", "5200"] {
        tokio_uring::start(async move {
            let (hung, hangs) = (Rc::new(Notify::new()), Rc::new(Cell::new(false)));
            let (until, does) = (Rc::clone(&hung), Rc::clone(&hangs));
            let faults = Faults::by(move |place, act| {
                ((place, act) == (Place::Segment, Act::Sync) && does.get()).then(|| Fault::Hang(Rc::clone(&until)))
            });
            let mut node = Node::new(&[("segment.bytes", segment_bytes)], faults).await;
            take(&node.served(1), Batch::default().build()).await;
            let before = node.served(0);
            take(&before, Batch::default().build()).await;
            hangs.set(true);
            // Too large for the ring, and nobody waits for the disk.
            let large = Batch { value_bytes: 5000, ..Batch::default() }.build();
            send(&before, large, Acks::Leader).done().await;
            let unanswered = send(&before, Batch::default().build(), Acks::All);
            while node.journaled() < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let gone = node.freeze();
            assert!(!unanswered.is_done());
            hangs.set(false);
            hung.notify_waiters();
            before.quiet().await;
            drop((before, gone));

            // Of what was not synced the disk has only the names and zeros.
            let first = paths::segment_file(&node.path(0), Offset(0), paths::LOG);
            let mut bytes = fs::read(&first).expect("there");
            let whole = BatchHeader::parse(&bytes).expect("a batch").total_len();
            bytes[whole..].fill(0);
            fs::write(&first, bytes).expect("torn");

            node.restart().await;
            take(&node.served(1), Batch::default().build()).await;
            let mut end = Offset(1);
            if let Some(partition) = node.partition(0) {
                assert_eq!(partition.ends().log_end, end);
                for _ in 0..100 {
                    take(&partition, Batch::default().build()).await;
                }
                end = Offset(101);
            }

            node.restart().await;
            node.renew_rings().await;
            assert_eq!(node.served(1).ends().log_end, Offset(2));
            let partition = node.served(0);
            assert_eq!(partition.ends().log_end, end, "what was acknowledged, with segments of {segment_bytes} bytes");
            take(&partition, Batch::default().build()).await;
            node.restart().await;
            node.renew_rings().await;
            assert_eq!(node.served(0).ends().log_end, end + 1);
        });
    }
}

/// Compaction put a shorter segment in the place of one for which the ring had entries; the next start wrote them to their old
/// positions there.
#[test]
fn nothing_is_compacted_before_the_rings_are_renewed() {
    tokio_uring::start(async move {
        let memory = CleanerMemory { map_bytes: 1 << 20, load_factor: 0.9 };
        let settings = [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "20000"),
            ("min.cleanable.dirty.ratio", "0"),
            ("file.delete.delay.ms", "0"),
        ];
        let mut node = Node::new(&settings, Faults::default()).await;
        // Large ones do not go through the ring: what it has lies behind them, and one of them begins a segment.
        for bytes in [5000, 5000, 5000, 10, 10, 10, 6000, 10] {
            take(&node.served(0), keyed("the key", &"v".repeat(bytes))).await;
        }
        assert_eq!(node.journaled(), 4);
        node.restart().await;
        let _ = clean_dirtiest(&node.table, memory, now_ms()).await;
        node.served(0).quiet().await;
        node.restart().await;
        assert_eq!(node.served(0).ends().log_end, Offset(8), "what was acknowledged is there");
        node.renew_rings().await;
        assert_eq!(clean_dirtiest(&node.table, memory, now_ms()).await, Some(true), "there was something to do");
        node.served(0).quiet().await;
        node.restart().await;
        node.renew_rings().await;
        assert_eq!(node.served(0).ends().log_end, Offset(8));
    });
}

/// Where a partition was whole was forgotten by the checkpoints when it could not be opened: the start after that read all of it, and cut
/// it at the first damage. Where its topic's id could not be read, it began anew at offset 0.
#[test]
fn what_is_known_of_a_log_that_cannot_be_opened_stays_known() {
    tokio_uring::start(async move {
        let mut node = Node::new(&[], Faults::default()).await;
        take(&node.served(0), Batch::default().build()).await;
        node.served(0).quiet().await;
        let key = (TOPIC.to_owned(), PartitionIndex(0));
        node.said = [(key.clone(), Offset(1))].into();
        let metadata = node.path(0).join(paths::PARTITION_METADATA);
        let id = fs::read(&metadata).expect("there");
        let planted = node.path(0).join("09223372036854775807.log");
        for unnamed in [false, true] {
            match unnamed {
                false => fs::write(&planted, ""),
                true => fs::remove_file(&planted).and_then(|()| fs::write(&metadata, "")),
            }
            .expect("damaged");
            node.restart().await;
            let topic = node.table.topic(TOPIC).expect("led here").topic.id;
            while node.table.is_opening(topic, PartitionIndex(0)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(node.served(0).core().failure().is_some());
            let checkpoints = node.table.checkpoints().remove(node.dir.path()).expect("of this directory");
            assert_eq!(checkpoints.recovery_points.get(&key), Some(&Offset(1)));
        }
        fs::write(&metadata, id).expect("mended");
        node.restart().await;
        node.renew_rings().await;
        assert_eq!(node.served(0).ends().log_end, Offset(1));
    });
}

/// A directory that had lost its topic's id kept its whole log directory offline, at every start, while the ring had something for it.
#[test]
fn what_the_ring_has_for_a_directory_without_a_name_goes_there() {
    for metadata in [None, Some("version: 0\n")] {
        tokio_uring::start(async move {
            let mut node = Node::new(&[], Faults::default()).await;
            for index in [0, 0, 1] {
                take(&node.served(index), Batch::default().build()).await;
                node.served(index).quiet().await;
            }
            node.said = [((TOPIC.to_owned(), PartitionIndex(0)), Offset(1))].into();
            assert_eq!(node.journaled(), 3);
            let segment = paths::segment_file(&node.path(0), Offset(0), paths::LOG);
            let bytes = fs::read(&segment).expect("there");
            fs::write(&segment, &bytes[..bytes.len() / 2]).expect("what no sync has covered is gone");
            let named = node.path(0).join(paths::PARTITION_METADATA);
            let id = fs::read(&named).expect("there");
            match metadata {
                Some(text) => fs::write(&named, text),
                None => fs::remove_file(&named),
            }
            .expect("damaged");

            node.restart().await;
            node.renew_rings().await;
            assert!(node.served(0).core().failure().is_some_and(|why| why.contains("neither made anew nor set aside")));
            take(&node.served(1), Batch::default().build()).await;

            node.restart().await;
            node.renew_rings().await;
            assert_eq!(node.served(1).ends().log_end, Offset(2));
            fs::write(&named, id).expect("mended");
            node.restart().await;
            node.renew_rings().await;
            assert_eq!(node.served(0).ends().log_end, Offset(2), "what was acknowledged is there");
        });
    }
}

/// A store that is older than the ring may not know a partition that a topic was given later: its directory was offline for it.
#[test]
fn a_ring_with_records_of_unknown_partitions_is_set_aside() {
    tokio_uring::start(async move {
        let mut node = Node::new(&[], Faults::default()).await;
        take(&node.served(1), Batch::default().build()).await;
        node.served(1).quiet().await;
        let topic = node.image.topics.values().next().expect("one");
        let partitions = topic.partitions[..1].to_vec();
        let topic = Arc::new(image::Topic { partitions, ..(**topic).clone() });
        let mut older = ClusterImage::default();
        older.topics.insert(topic.name.clone(), Arc::clone(&topic));
        older.topics_by_id.insert(topic.id, topic);
        node.image = older;
        node.restart().await;
        node.table.begin_journals(|id| node.image.has_partition(id)).await;
        assert_eq!(node.shared.disks.failure(node.dir.path()), None);
        assert!(file::path(node.dir.path(), 0).with_extension("unknown").exists());
        take(&node.served(0), Batch::default().build()).await;
    });
}

#[test]
fn offsets_that_were_on_disk_and_are_gone_are_counted() {
    tokio_uring::start(async move {
        let mut node = Node::new(&[], Faults::default()).await;
        for _ in 0..3 {
            take(&node.served(0), Batch::default().build()).await;
        }
        node.table.close().await;
        node.said = [((TOPIC.to_owned(), PartitionIndex(0)), Offset(3))].into();
        let segment = paths::segment_file(&node.path(0), Offset(0), paths::LOG);
        let bytes = fs::read(&segment).expect("there");
        fs::write(&segment, &bytes[..bytes.len() / 3]).expect("cut");
        node.restart().await;
        node.renew_rings().await;
        assert_eq!(node.served(0).ends().log_end, Offset(1));
        assert_eq!(node.shared.metrics.lost_offsets.get(), 2);
    });
}
